"""Exercises of the first four notebooks: right answers are accepted, plausible wrong ones rejected; and their tools."""

import numpy as np
import pytest

from numnet import lessons
from numnet.lessons import check, convolution


def refused(verdict, capsys):
    """The check said no, and said so with a hint."""
    said = capsys.readouterr().out.splitlines()[-1]  # what stood before it was said of another answer
    return verdict is False and said.startswith(check.WRONG) and len(said) > 20


# --- what all notebooks share -------------------------------------------------------------------------------


def test_a_check_says_right_not_yet_or_still_open(capsys):
    assert check.check(3, lambda a: a == 3, "count again") is True
    assert capsys.readouterr().out == f"{check.RIGHT}\n"
    assert check.check(4, lambda a: a == 3, "count again") is False
    assert capsys.readouterr().out == f"{check.WRONG}: count again\n"
    for still_open in (..., None):
        assert check.check(still_open, lambda a: True, "hint") is False
        assert capsys.readouterr().out.startswith(check.OPEN)
    assert check.check("three", lambda a: a + 1 == 4, "a number") is False
    assert "a number" in (said := capsys.readouterr().out) and "TypeError" in said
    assert check.check(1, True, "") is True


def test_close_compares_with_the_largest_entry():
    assert check.close([1.0, 1000.0], [1.0001, 1000.0]) and check.close(0.5, 0.5)
    assert not check.close([1.0, 1000.0], [1.01, 1000.0]) and not check.close(1.001, 1.0)
    assert not check.close([np.nan], [1.0])
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \(2, 2\)"):
        check.close(np.ones(2), np.ones((2, 2)))


def test_small_reads_the_environment(monkeypatch):
    for value, expected in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv("NUMNET_SMALL", value)
        assert lessons.small() is expected
    monkeypatch.delenv("NUMNET_SMALL")
    assert lessons.small() is False


def test_a_figure_shows_itself_at_its_size():
    drawn, (left, right) = lessons.figure(4, 2, columns=2)
    left.plot([0, 1], [0, 1])
    right.plot([0, 1], [1, 0])
    data, size = drawn._repr_png_()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and size == {"width": 384, "height": 192}
    assert np.shape(lessons.figure(4, 4, 2, 3)[1]) == (2, 3)
    assert "figure" in repr(drawn)


def test_series_differ_in_brightness_dash_and_marker():
    from matplotlib.colors import to_rgb

    grey = [
        0.299 * r + 0.587 * g + 0.114 * b for r, g, b in (to_rgb(colour) for colour, *_ in lessons.SERIES)
    ]
    assert min(abs(a - b) for n, a in enumerate(grey) for b in grey[:n]) > 0.01
    assert (
        len({str(dash) for _, dash, _ in lessons.SERIES}) == len({m for *_, m in lessons.SERIES}) == len(grey)
    )


def test_best_is_the_shortest_run():
    calls = []
    assert 0 <= lessons.best(lambda: calls.append(1), seconds=0, least=4) < 1
    assert len(calls) == 5  # the first does not count


# --- 01: a convolution by hand ------------------------------------------------------------------------------


def test_convolution_by_hand(capsys):
    assert convolution.exercise_1(-6)
    turned = convolution.convolved(convolution.IMAGE, convolution.KERNEL[::-1, ::-1])[1, 0]
    assert turned != -6 and refused(convolution.exercise_1(turned), capsys)  # the kernel turned first
    assert refused(convolution.exercise_1(5), capsys)  # another window's

    assert convolution.exercise_2(112)
    assert refused(convolution.exercise_2(111), capsys)  # without padding
    assert refused(convolution.exercise_2(224), capsys)  # without the stride

    assert convolution.exercise_3(1)
    x, dy = convolution.IMAGE, convolution.UPSTREAM
    wrong = sum(
        x[p, 2 - q] * dy[p, q] for p in range(2) for q in range(2)
    )  # to the left instead of the right
    assert wrong != 1 and refused(convolution.exercise_3(wrong), capsys)


def test_gradient_with_a_stride(capsys):
    def gradient(dy, w, stride, side, step):
        dx = np.zeros((side, side))
        for p, q in np.ndindex(*dy.shape):
            for u, v in np.ndindex(*w.shape):
                dx[p * step + u, q * step + v] += dy[p, q] * w[u, v]
        return dx

    assert convolution.exercise_4(lambda dy, w, stride, side: gradient(dy, w, stride, side, stride))
    assert refused(convolution.exercise_4(lambda *a: gradient(*a, 1)), capsys)  # the stride forgotten
    turned = lambda dy, w, s, side: gradient(dy, w[::-1, ::-1], s, side, s)  # noqa: E731
    assert refused(convolution.exercise_4(turned), capsys)
    assert refused(convolution.exercise_4(lambda dy, w, stride, side: np.zeros((side, side))), capsys)


def test_the_matrix_of_a_convolution_is_that_convolution():
    draw = np.random.default_rng(0)
    x, w = draw.normal(size=(6, 6)), draw.normal(size=(3, 3))
    for stride, padding in ((1, 0), (2, "same"), (1, "symmetric")):
        y = convolution.convolved(x, w, stride, padding)
        dy = draw.normal(size=y.shape)
        matrix = convolution.as_matrix(w, 6, stride, padding)
        assert check.close(matrix @ x.reshape(-1), y.reshape(-1), 1e-12)
        assert check.close(
            matrix.T @ dy.reshape(-1), convolution.gradients(dy, x, w, stride, padding)[0].reshape(-1), 1e-12
        )
