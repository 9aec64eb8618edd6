"""The exercises at the notebooks' ends: plausible wrong answers are rejected with a hint (right ones: test_notebooks.py)."""

import numpy as np
import pytest

from numnet.lessons import (
    articles,
    budget,
    check,
    convolution,
    family,
    inside,
    normalisation,
    separable,
    training,
)


def no_sum(da, v):
    return da * np.where(np.abs(v) < 3, (v + 3) / 6, v > 0)  # the gate alone, not the product's derivative


def unscaled(logits, labels):
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    p[np.arange(len(labels)), labels] -= 1
    return p  # not divided by the number of images


def old_velocity(w, v, g, rate, momentum):
    return w - rate * v, momentum * v + g


def dx_forward_taps(framed, w):
    taps = [(u, v) for u in range(3) for v in range(3)]
    pixels = framed.shape[1] - 2
    return sum(framed[u, v : v + pixels] * w[u, v] for u, v in taps)  # as in the forward pass


def dw_without_stride(dy, x, stride, k):
    places = [(u, v) for u in range(k) for v in range(k)]
    p, q = dy.shape
    return np.array([np.sum(dy * x[u : u + p, v : v + q]) for u, v in places]).reshape(k, k)


def fast_alone(rows):
    return {row["name"] for row in rows if row["ms"] <= 5}


def mean_of_means(n, mean, M2, m, other, other_M2):
    return n + m, (mean + other) / 2, M2 + other_M2


WRONG = [
    (convolution.exercise_5, {(2, 0)}),  # one of two
    (convolution.exercise_5, {(0, 4), (1, 2), (2, 0)}),  # a tap that there is not
    (convolution.exercise_6, dw_without_stride),
    (convolution.exercise_7, lambda dy: dy.sum(axis=(1, 2))),  # of each image by itself
    (convolution.exercise_7, lambda dy: dy.mean(axis=(0, 1, 2))),
    (convolution.exercise_8, lambda H, K, s, a, b: (H + a + b - K) / s + 1),  # not rounded down
    (convolution.exercise_8, lambda H, K, s, a, b: -(-H // s)),  # of "same" alone
    (separable.exercise_5, 9),
    (separable.exercise_5, float("inf")),
    (separable.exercise_6, lambda dy, x, w: (np.zeros_like(x), np.zeros_like(w))),
    (separable.exercise_7, lambda dy, x, w: (dy @ w.T, dy.T @ x)),  # transposed
    (separable.exercise_8, lambda intensity, peak, bandwidth: max(peak, bandwidth * intensity)),
    (separable.exercise_8, lambda intensity, peak, bandwidth: peak),
    (inside.exercise_5, 16 // 6 + 1),
    (inside.exercise_6, dx_forward_taps),
    (inside.exercise_7, 5 * 56 * 64 * 4 / 1024),  # without the frame
    (normalisation.exercise_5, no_sum),
    (normalisation.exercise_6, lambda du, normal: (du.sum(0), (du * normal).sum(0))),  # in the other order
    (normalisation.exercise_7, mean_of_means),
    (normalisation.exercise_8, 5 * 0.9**3),  # what is missing
    (family.exercise_7, lambda dy, x, gate: (dy * gate, (dy * x).mean(axis=(0, 1)))),
    (family.exercise_8, lambda dy, backward: backward(dy)),  # the straight way is forgotten
    (family.exercise_9, (9, 9)),
    (training.exercise_6, unscaled),
    (training.exercise_7, lambda dy, h, w: np.broadcast_to(dy[:, None, None], (len(dy), h, w, dy.shape[1]))),
    (training.exercise_8, lambda dy, x, w: (dy @ w.T, x.T @ dy, dy.mean(0))),
    (training.exercise_9, old_velocity),
    (budget.exercise_6, fast_alone),
    (budget.exercise_7, 8.9e9 / 40e9),  # MACs for FLOP, and the whole peak
    (articles.exercise_4, 0.9 ** (1 / 25)),
    (articles.exercise_5, lambda da, v, beta: da / (1 + np.exp(-beta * v))),  # the second term is forgotten
]


@pytest.mark.parametrize("exercise, answer", WRONG, ids=lambda value: getattr(value, "__name__", None))
def test_plausible_wrong_answers(exercise, answer, capsys):
    assert exercise(answer) is False
    said = capsys.readouterr().out
    assert said.startswith(f"{check.WRONG}: ") and len(said) > len(check.WRONG) + 20


def test_numbers_that_are_right():
    assert convolution.exercise_5([(1, 2), (2, 0)]) and separable.exercise_5(64.0) and inside.exercise_5(2)
    assert inside.exercise_7(75) and normalisation.exercise_8(1.355) and family.exercise_9((9, 11))
    assert budget.exercise_7(0.9) and articles.exercise_4(0.912)


def test_a_function_that_returns_the_wrong_things(capsys):
    x = np.ones(2)
    for function, message in (
        (lambda x: None, "returns nothing"),
        (lambda x: (x, x, x), "returns 3 things, expected 2"),
        (lambda x: (x[:1], x), r"shape (1,), expected (2,)"),
    ):
        assert not check.check(function, lambda f: check.agrees(f, [((x,), (x, x))]), "hint")
        assert message in capsys.readouterr().out


def test_a_function_may_change_what_it_is_given():
    x = np.ones(2)

    def doubles(a):
        a *= 2
        return a

    assert check.agrees(doubles, [((x,), 2 * np.ones(2)), ((x,), 2 * np.ones(2))]) and x[0] == 1


def test_blocks_with_a_squeeze_excite():
    table = family.squeezed([None, False, 0.5])
    assert [row[1] for row in table.rows] == ["8", "0", "15"] and [row[2] for row in table.rows] == [
        "240",
        "0",
        "480",
    ]
