"""Exercises of the first four notebooks: right answers are accepted, plausible wrong ones rejected; and their tools."""

import numpy as np
import pytest
from kernel_shapes import CHECKING

import numnet
from numnet import kernels, lessons
from numnet.cost import operations
from numnet.kernels import vectors
from numnet.lessons import check, convolution, inside, normalisation, separable
from numnet.lessons.counting import counted


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
    # To the left instead of the right
    wrong = sum(x[p, 2 - q] * dy[p, q] for p in range(2) for q in range(2))
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


# --- 02: standard against separable -------------------------------------------------------------------------


def test_standard_against_separable(capsys):
    assert separable.exercise_1(8.845) and separable.exercise_1(8.84)
    for wrong in (512, 9, 1 / 512 + 1 / 9, 8.41):  # a step forgotten, or the other; upside down; F = 128
        assert refused(separable.exercise_1(wrong), capsys)
    assert separable.exercise_2(8)
    for wrong in (7, 7.2, 4, 36):
        assert refused(separable.exercise_2(wrong), capsys)
    assert separable.exercise_4(6.25)
    for wrong in (25 / 8, 50 / 4, 2.25):  # MACs for FLOP; the read alone; 3×3
        assert refused(separable.exercise_4(wrong), capsys)


def test_the_nearest_separable_kernel(capsys):
    assert separable.exercise_3(separable.split)

    def mean(kernel):  # plausible: the average pattern, and how strong each filter is
        d = kernel.mean(axis=3, keepdims=True)
        return d, kernel.mean(axis=(0, 1)) / d[..., 0].mean(axis=(0, 1))[:, None]

    assert refused(separable.exercise_3(mean), capsys)

    def unscaled(kernel):
        d, w = separable.split(kernel)
        return d / np.linalg.norm(d, axis=(0, 1)), w

    assert refused(separable.exercise_3(unscaled), capsys)
    assert not separable.exercise_3(lambda kernel: (kernel, kernel))
    assert "expected (3, 3, 5, 1) and (5, 7)" in capsys.readouterr().out


def test_a_separable_convolution_is_a_standard_one():
    draw = np.random.default_rng(0)
    x, d, w = draw.normal(size=(2, 5, 6, 3)), draw.normal(size=(3, 3, 3, 1)), draw.normal(size=(3, 4))
    two = kernels.pointwise_forward(kernels.depthwise_forward(x, d), w)
    assert check.close(kernels.conv_forward(x, separable.composed(d, w)), two, 1e-12)
    assert check.close(
        separable.composed(*separable.split(separable.composed(d, w))), separable.composed(d, w), 1e-12
    )


def test_saving_is_the_papers_ratio():
    assert separable.saving(128) == pytest.approx(86400 / 10275) == pytest.approx(8.4088, abs=1e-4)
    rows = numnet.describe("mobilenet_v1").cost()
    found = separable.shares(rows)
    assert sum(macs for macs, *_ in found.values()) == rows.macs
    assert found["conv"][0] / rows.macs == pytest.approx(0.01906, abs=1e-5)  # the paper prints 1.19 %


@pytest.mark.skipif(CHECKING, reason="another process, that compiles nothing")
def test_counted_agrees_with_the_closed_forms():
    for kind, closed in (
        ("conv", operations.conv(1, 5, 6, 2, 3, 3, 2, ((1, 1), (0, 1)), 3, 3)),
        ("depthwise", operations.depthwise(1, 5, 6, 2, 1, 3, 2, ((1, 1), (0, 1)), 3, 3)),
        ("pointwise", operations.pointwise(1, 5, 6, 2, 3)),
    ):
        found = counted(kind, h=5, w=6, c=2, f=3, stride=2, padding=((1, 1), (0, 1)))
        assert found == {name: tuple(pair) for name, pair in closed._asdict().items()}, kind
    with pytest.raises(ValueError, match="expected one of conv, depthwise, pointwise, got 'dense'"):
        counted("dense", h=1, w=1, c=1)


def test_a_measurement_knows_its_closed_form():
    found = separable.measure(1, 6, 4, 5, seconds=0)
    assert {name: m.macs for name, m in found.items()} == {
        "standard": 6480,
        "depthwise": 1296,
        "pointwise": 720,
    }
    assert found["depthwise"].bytes == 4 * (144 + 144 + 36) and found["depthwise"].seconds > 0
    assert found["pointwise"].intensity == 2 * 720 / (4 * (144 + 180 + 20))


# --- 03: inside a kernel ------------------------------------------------------------------------------------


def test_every_step_computes_the_same_map():
    x, framed, w, y = inside.problem(2, 8, 32)
    want, v = kernels.depthwise.definition(x, w[..., None]), vectors.lanes(32, x.dtype)
    for step in (inside.numpy_shifts, inside.depthwise_in_vectors, inside.depthwise_in_tiles):
        y.fill(np.nan)
        step(framed, w, y, *(() if step is inside.numpy_shifts else (v,)))
        assert check.close(y, want, 1e-5), step
    assert check.close(inside.definition_in_python(x[:1], w), want[:1], 1e-5)


def test_every_tile_gives_the_same_product():
    x, w, y = inside.matrices(12, 5, 64)
    v = vectors.lanes(64, x.dtype)
    assert inside.product_speed(lambda: inside.product_in_vectors(x, w, y, v), x, w, y, seconds=0) > 0
    speeds = inside.tile_speeds(12, 5, 64, seconds=0, tiles=inside.TILES[:3])
    assert list(speeds) == inside.TILES[:3] and all(speed > 0 for speed in speeds.values())
    with pytest.raises(AssertionError):
        inside.product_speed(lambda: y.fill(0), x, w, y, seconds=0)
    with pytest.raises(ValueError, match="a tile of 5 × 1 vectors does not divide"):
        inside.tile_speeds(12, 5, 64, seconds=0, tiles=[(5, 1)])


def test_the_ladder_refuses_a_wrong_step(monkeypatch):
    assert all(time > 0 for time in inside.ladder(1, 8, 4, seconds=0).values())
    monkeypatch.setattr(inside, "numpy_shifts", lambda framed, w, y: y.fill(0))
    with pytest.raises(AssertionError, match="NumPy"):
        inside.ladder(1, 8, 4, seconds=0)


@pytest.mark.skipif(CHECKING, reason="index checks keep vectors away")
def test_vectors_are_seen_where_there_are_some():
    import numba

    def chain(a):  # each number needs the one before: nothing here can be a vector
        total = a[0]
        for i in range(1, a.size):
            total = total * a[i] + a[i - 1]
        return total

    def scale(a, b):
        for i in range(a.size):
            b[i] = 2 * a[i] + b[i]

    a = np.ones(64, np.float32)
    one_by_one, together = numba.njit(chain), numba.njit(scale)
    one_by_one(a), together(a, a.copy())
    assert inside.compiled(one_by_one)["lanes"] == 1 and inside.compiled(one_by_one)["scalar"] >= 2
    assert inside.compiled(together)["lanes"] >= 4 and inside.compiled(together)["vector"] >= 1
    for function in (one_by_one, together):
        assert any(word in inside.inner_loop(function) for word in ("mul", "add", "fm"))


def test_inside_a_kernel(capsys):
    assert inside.exercise_1(12)
    for wrong in (16, 13, 4, 2):  # without an overlap; one too far; its length; the number of the vector
        assert refused(inside.exercise_1(wrong), capsys)

    assert inside.exercise_2(lambda r, v: (r + v) / (r * v))
    for wrong in (lambda r, v: 2, lambda r, v: (r * v + v) / (r * v), lambda r, v: (r * v) / (r + v)):
        assert refused(inside.exercise_2(wrong), capsys)  # nothing shared; the rows not shared; upside down

    def dw_of_row(framed, d, shift):
        dw = np.zeros((3, 3, d.shape[1]))
        for u, v, q in np.ndindex(3, 3, len(d)):
            dw[u, v] += framed[u, q + shift(v)] * d[q]
        return dw

    assert inside.exercise_4(lambda framed, d: dw_of_row(framed, d, lambda v: v))
    # Turned
    assert refused(inside.exercise_4(lambda framed, d: dw_of_row(framed, d, lambda v: 2 - v)), capsys)
    assert refused(inside.exercise_4(lambda framed, d: dw_of_row(framed, d, lambda v: 0)), capsys)

    assert inside.exercise_3(2)
    for wrong in (1.5, 4, 4 / 3):
        assert refused(inside.exercise_3(wrong), capsys)


# --- 04: batch norm and activations -------------------------------------------------------------------------


def test_batch_norm_and_activations(capsys):
    assert normalisation.exercise_1([-(2**0.5), 0, 0, 2**0.5]) and normalisation.exercise_1(
        [-1.414, 0, 0, 1.414]
    )
    unbiased = np.array([-2, 0, 0, 2]) / np.sqrt(8 / 3)
    # By 3; by the variance; not divided; not a list
    for wrong in (unbiased, [-1, 0, 0, 1], [-2, 0, 0, 2], 2**0.5):
        assert refused(normalisation.exercise_1(wrong), capsys) or isinstance(wrong, float)

    def backward(du, x, gamma, eps, mean=1, along=1, root=True):
        s = np.sqrt(x.var() + eps) if root else x.std()
        normal = (x - x.mean()) / s
        return gamma / s * (du - mean * du.mean() - along * normal * (du * normal).mean())

    assert normalisation.exercise_2(backward)
    for wrong in ({"mean": 0}, {"along": 0}, {"mean": 0, "along": 0}, {"root": False}):
        assert refused(normalisation.exercise_2(lambda *a, wrong=wrong: backward(*a, **wrong)), capsys)

    def fold(w, gamma, beta, mean, variance, eps):
        scale = gamma / np.sqrt(variance + eps)
        return w * scale, beta - mean * scale

    assert normalisation.exercise_3(fold)
    assert refused(normalisation.exercise_3(lambda *a: fold(*a[:5], 0)), capsys)  # ε forgotten
    assert refused(
        normalisation.exercise_3(lambda w, g, b, m, v, e: (fold(w, g, b, m, v, e)[0], b - m)), capsys
    )

    assert normalisation.exercise_4(6 / 255) and normalisation.exercise_4(0.02353)
    for wrong in (6 / 256, 6 / 8, 6 / 127):
        assert refused(normalisation.exercise_4(wrong), capsys)


def test_variances_of_the_story():
    ratios = np.array([1.0, 1e4])
    errors = normalisation.variance_errors(ratios, size=2_000)
    assert errors[0].max() < 1e-4 and errors[1, 0] > 0.1 and errors[1, 1] < 1e-3
    x = np.random.default_rng(0).normal(size=1_000)
    assert normalisation.page_variance(x) == pytest.approx(x.var(), rel=1e-12)


def test_what_backward_removes():
    draw = np.random.default_rng(0)
    dy, x = draw.normal(size=12), draw.normal(size=12)
    parts = normalisation.removed(dy, x)
    assert check.close(parts["its mean"] + parts["its part along x̂"] + parts["left for dx"], dy, 1e-12)
    assert abs(parts["left for dx"].sum()) < 1e-12 and abs(parts["left for dx"] @ x) < 1e-12


def test_fixed_point():
    a = np.array([0, 0.01, 1.5, 6, 7], np.float32)
    assert (
        check.close(normalisation.fixed_point(a, 6, 2), [0, 0, 2, 6, 6])
        and normalisation.fixed_point(a, 6).dtype == a.dtype
    )
    fine = np.linspace(0, 6, 1000)
    assert np.abs(normalisation.fixed_point(fine, 6) - fine).max() <= 6 / 255 / 2 + 1e-12
    errors, half = normalisation.range_and_error(fine.astype(np.float32), [0.5, 6, 100])
    assert errors.argmin() == 1 and half < errors[1]


def test_activations_of_a_net_and_its_logits():
    net = numnet.build("mobilenet_v1", width=0.25, resolution=8, classes=10, dropout=0.0, seed=3)
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)
    found, logits = normalisation.activations(net, x)
    assert check.close(logits, net.forward(x), 1e-6) and len(found) == 27  # one for each convolution
    assert all(0 <= a.min() and a.max() <= 6 for _, a in found) and len({name for name, _ in found}) == 27
    (bias,) = (array for name, array in net.params.items() if name.endswith("bias"))
    bias[:] = np.arange(10)
    nothing = normalisation.activations(net, x, np.zeros_like)[1]  # of the images nothing is left
    assert check.close(nothing, np.broadcast_to(bias, (2, 10)), 1e-6)
