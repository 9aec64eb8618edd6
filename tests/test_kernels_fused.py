"""The passes that units are built from: a convolution between two batch norms, all in one tile.

    raw x and its pack → finished x → y = convolution → its moments and pack → finished y

Each fused pass must give what the separate ones give, and all of them together what the oracle gives.
"""

import numpy as np
import oracle
import pytest
from kernel_shapes import (
    ORACLE,
    SHAPES,
    TORCH,
    Shape,
    both_dtypes,
    close,
    draw,
    folded,
    needs_float32,
    product_ends,
    room,
    run,
)

from numnet.kernels import (
    activation_forward,
    batchnorm,
    batchnorm_backward,
    batchnorm_forward,
    conv,
    conv_backward,
    conv_forward,
    depthwise,
    depthwise_backward,
    depthwise_forward,
    folding,
    maps,
    pointwise,
    pointwise_backward,
    pointwise_forward,
    pooling,
)
from numnet.kernels.activations import code_of
from numnet.kernels.batchnorm import source_of, upstream_of
from numnet.kernels.maps import Window

EPS = 1e-3
SEPARATE = 1e-11  # fused against separate, float64: other tiles, so sums in another order, through two norms
CHAIN = 1e-11  # three kernels forward and three back, each within 1e-12 of the oracle
NO_SUMS = np.empty((0, 2, 0))


class Pointwise:
    def __init__(self, shape):
        self.shape = shape
        self.w, self.y = (shape.channels, shape.filters), (*shape.x[:3], shape.filters)
        self.parts = maps.parts_of(int(np.prod(shape.x[:3])), pointwise.LEAST)

    def partial(self, dtype):
        return np.full((self.parts, self.w[0], pointwise.padded(self.w[1], dtype)), np.nan, dtype)

    def unit_forward(self, source, w, y, moments):
        pointwise.unit_forward(source, w, y, moments)

    def unit_backward(self, upstream, source, w, dx, more, sums, partial):
        pointwise.unit_backward(upstream, source, w, dx, more, sums, partial)

    def inference(self, x, unit, code, skip, y):
        product_ends(x, unit, code, skip, y)

    def plain(self, x, w):
        return pointwise_forward(x, w)

    def plain_backward(self, dy, x, w):
        return pointwise_backward(dy, x, w)

    def oracle(self, x, w):
        return oracle.pointwise(x, w)

    def oracle_backward(self, dy, x, w):
        return oracle.pointwise_backward(dy, x, w)


def window_of(shape):
    (top, _), (left, _) = shape.pads
    return Window(oracle.pair(shape.kernel)[1], shape.stride, top, left)


class Depthwise:
    def __init__(self, shape):
        self.shape, self.window = shape, window_of(shape)
        self.w, self.y = shape.depthwise_w, shape.depthwise_y
        self.parts = maps.parts_of(shape.images)

    def partial(self, dtype):
        return np.full((self.parts, self.w[0] * self.w[1], self.y[3]), np.nan)

    def unit_forward(self, source, w, y, moments):
        depthwise.unit_forward(source, w, self.window, y, moments)

    def unit_backward(self, upstream, source, w, dx, more, sums, partial):
        depthwise.unit_backward(upstream, source, w, self.window, dx, more, sums, partial)

    def inference(self, x, unit, code, skip, y):
        run(depthwise.inference_step(source_of(x), unit, code, self.window, y))

    def plain(self, x, w):
        return depthwise_forward(x, w, self.shape.stride, self.shape.padding)

    def plain_backward(self, dy, x, w):
        return depthwise_backward(dy, x, w, self.shape.stride, self.shape.padding)

    def oracle(self, x, w):
        return oracle.depthwise(x, w, self.shape.stride, self.shape.pads)

    def oracle_backward(self, dy, x, w):
        return oracle.depthwise_backward(dy, x, w, self.shape.stride, self.shape.pads)


class Conv:
    def __init__(self, shape):
        self.shape, self.window = shape, window_of(shape)
        self.w, self.y = shape.conv_w, shape.conv_y
        self.parts = maps.parts_of(shape.images)

    def partial(self, dtype):
        columns = pointwise.padded(self.w[3], dtype)
        return np.full((self.parts, int(np.prod(self.w[:3])), columns), np.nan, dtype)

    def unit_forward(self, source, w, y, moments):
        conv.unit_forward(source, w, self.window, y, moments)

    def unit_backward(self, upstream, source, w, dx, more, sums, partial):
        conv.unit_backward(upstream, source, w, self.window, dx, more, sums, partial)

    def inference(self, x, unit, code, skip, y):
        run(conv.inference_step(source_of(x), unit, self.window, code, skip.reshape(-1), y, room(unit)))

    def plain(self, x, w):
        return conv_forward(x, w, self.shape.stride, self.shape.padding)

    def plain_backward(self, dy, x, w):
        return conv_backward(dy, x, w, self.shape.stride, self.shape.padding)

    def oracle(self, x, w):
        return oracle.conv(x, w, self.shape.stride, self.shape.pads)

    def oracle_backward(self, dy, x, w):
        return oracle.conv_backward(dy, x, w, self.shape.stride, self.shape.pads)


class Norm:
    """One batch norm with its activation, by the separate passes: what fusing is compared with."""

    def __init__(self, x, activation, training=True, seed=0):
        gamma, beta, mean, variance = draw(*[x.shape[-1:]] * 4, dtype=x.dtype, seed=seed)
        self.gamma, self.beta, self.mean, self.variance = 2 * gamma, 2 * beta, mean, 0.5 + variance**2
        self.activation, self.code, self.training = activation, code_of(activation), training
        self.old = self.mean.copy(), self.variance.copy()
        options = {"training": training, "momentum": 0.9, "eps": EPS, "activation": activation}
        self.finished, self.pack = batchnorm_forward(
            x, self.gamma, self.beta, self.mean, self.variance, **options
        )

    def backward(self, dy, x):
        """dx, dgamma, dbeta."""
        return batchnorm_backward(dy, x, self.pack, activation=self.activation, training=self.training)

    def close_sums(self, sums, count):
        """dgamma, dbeta and the means that a fused backward needs, from the sums of (5)."""
        dgamma, dbeta = np.empty_like(self.gamma), np.empty_like(self.gamma)
        means = np.empty((2, self.gamma.size), self.gamma.dtype)
        batchnorm.close_gradient_sums(sums, count if self.training else 0, dgamma, dbeta, means)
        return dgamma, dbeta, means

    def oracle(self, x):
        if self.training:
            return oracle.batchnorm_training(x, self.gamma, self.beta, EPS, self.activation)[0]
        return oracle.batchnorm_inference(x, self.gamma, self.beta, *self.old, EPS, self.activation)

    def oracle_backward(self, dy, x):
        if self.training:
            return oracle.batchnorm_training_backward(dy, x, self.gamma, self.beta, EPS, self.activation)
        return oracle.batchnorm_inference_backward(
            dy, x, self.gamma, self.beta, *self.old, EPS, self.activation
        )


SMALL = [SHAPES[i] for i in (0, 3, 4, 6, 9, 15, 20, 21, 25, 26)]
MANY_IMAGES = Shape(9, 3, 3, 8, 16, 3)  # more images than parts
WIDE = Shape(3, 17, 24, 100, 60, 3, 2, "symmetric")  # pointwise: four parts of 306 pixels
TILES = Shape(10, 16, 16, 250, 7, 1)  # pointwise: eight parts of two tiles
KINDS = [Pointwise, Depthwise, Conv]
ACTIVATIONS = [("relu6", "hswish"), ("swish", "relu"), ("sigmoid", "hsigmoid"), ("hswish", "identity")]


def activations_of(shape):
    """Another pair of activations for each shape, for x and for y."""
    return ACTIVATIONS[sum(shape.x) % len(ACTIVATIONS)]


def cases(*pairs):
    """These kinds and shapes, in training and in inference.

    Not one number a channel in training: its batch norm has gradient 0, so nothing could be compared.
    """
    table = [
        (kind, shape, training)
        for kind, shape in pairs
        for training in (True, False)
        if not (training and shape.x[:3] == (1, 1, 1))
    ]
    names = ["-".join((k.__name__, s.name, "training" if t else "inference")) for k, s, t in table]
    return pytest.mark.parametrize("kind, shape, training", table, ids=names)


def drawn(op, activation_x="relu6", training=True, dtype="float64"):
    """x (raw), w, dz (the gradient of finished y) and the norm of x."""
    x, w, dz = draw(op.shape.x, op.w, op.y, dtype=dtype)
    return x, w, dz, Norm(x, activation_x, training)


def fused(op, x, norm_x, w, dz, activation_y="relu", training=True, with_dx=True, more=None):
    """The whole chain by the fused passes: a dict of all it gives, and the norm of y. ``more`` is added to dx."""
    dtype, got = x.dtype, {}
    raw = norm_x is not None
    source = source_of(x, norm_x.pack, norm_x.code) if raw else source_of(x)

    got["y"] = y = np.full(op.y, np.nan, dtype)
    moments = np.zeros((op.parts if training else 0, 3, op.y[3]))
    op.unit_forward(source, w, y, moments)
    norm_y = Norm(y, activation_y, training, seed=1)
    if training:
        pack, mean, variance = np.empty_like(norm_y.pack), *(a.copy() for a in norm_y.old)
        running = batchnorm.Running(mean, variance, 0.9, False)
        batchnorm.close_moments(moments, norm_y.gamma, norm_y.beta, EPS, running, pack)
        bound = {"float64": ORACLE, "float32": TORCH["float32"]}[str(dtype)]
        close(pack, norm_y.pack, bound, "the pack from fused moments")
        close(mean, norm_y.mean, bound, "running mean")
        close(variance, norm_y.variance, bound, "running variance")

    sums = batchnorm.gradient_sums_of(dz, source_of(y, norm_y.pack, norm_y.code))
    got["dgamma of y"], got["dbeta of y"], means = norm_y.close_sums(sums, y.size // y.shape[-1])
    dw = np.full(w.shape, np.nan, dtype)
    dx = np.full(x.shape, np.nan, dtype) if with_dx else np.empty((0, *x.shape[1:]), dtype)
    x_sums = np.zeros((op.parts, 2, x.shape[3])) if raw and with_dx else NO_SUMS
    upstream, partial = upstream_of(dz, y, norm_y.pack, means, norm_y.code), op.partial(dtype)
    op.unit_backward(upstream, source, w, dx, x[:0] if more is None else more, x_sums, partial)
    pointwise.sum_parts(partial, dw)
    got["dw"] = dw
    if with_dx:
        got["dx"] = dx
    if len(x_sums):
        got["dgamma of x"], got["dbeta of x"], means = norm_x.close_sums(x_sums, x.size // x.shape[-1])
        got["dx, raw"] = batchnorm.unit_gradient_of(upstream_of(dx, x, norm_x.pack, means, norm_x.code))
    return got, norm_y


def separate(op, x, norm_x, w, dz, norm_y, more=0):
    """The same by batch norm's passes and the plain convolution."""
    want, finished = {}, norm_x.finished if norm_x else x
    want["y"] = op.plain(finished, w)
    dy, want["dgamma of y"], want["dbeta of y"] = norm_y.backward(dz, want["y"])
    want["dx"], want["dw"] = op.plain_backward(dy, finished, w)
    want["dx"] = want["dx"] + more
    if norm_x:
        want["dx, raw"], want["dgamma of x"], want["dbeta of x"] = norm_x.backward(want["dx"], x)
    return want


@cases(
    *[(kind, shape) for kind in KINDS for shape in [*SMALL, MANY_IMAGES, WIDE]],
    (Pointwise, TILES),
)
def test_fused_equals_separate(kind, shape, training):
    op = kind(shape)
    activation_x, activation_y = activations_of(shape)
    x, w, dz, norm_x = drawn(op, activation_x, training)
    more = draw(x.shape)[0]  # of another reader of x
    got, norm_y = fused(op, x, norm_x, w, dz, activation_y, training, more=more)
    want = separate(op, x, norm_x, w, dz, norm_y, more)
    assert set(got) == set(want)
    for name in got:
        close(got[name], want[name], SEPARATE, name)


@needs_float32
@pytest.mark.parametrize("kind", KINDS)
def test_fused_equals_separate_in_float32(kind):
    op = kind(Shape(9, 7, 6, 16, 24, 3, 2))
    x, w, dz, norm_x = drawn(op, dtype="float32")
    got, norm_y = fused(op, x, norm_x, w, dz)
    want = separate(op, x, norm_x, w, dz, norm_y)
    for name in got:
        assert got[name].dtype == np.float32, name
        close(got[name], want[name], TORCH["float32"], name)


@cases(*[(kind, shape) for kind in KINDS for shape in [*SMALL, MANY_IMAGES]])
def test_the_chain_against_the_oracle(kind, shape, training):
    op = kind(shape)
    activation_x, activation_y = activations_of(shape)
    x, w, dz, norm_x = drawn(op, activation_x, training)
    got, norm_y = fused(op, x, norm_x, w, dz, activation_y, training)

    want, finished = {}, norm_x.oracle(x)
    want["y"] = op.oracle(finished, w)
    dy, want["dgamma of y"], want["dbeta of y"] = norm_y.oracle_backward(dz, want["y"])
    want["dx"], want["dw"] = op.oracle_backward(dy, finished, w)
    want["dx, raw"], want["dgamma of x"], want["dbeta of x"] = norm_x.oracle_backward(want["dx"], x)
    for name in want:
        close(got[name], want[name], CHAIN, name)


@pytest.mark.parametrize("with_dx", [True, False], ids=["dx", "no dx"])
@pytest.mark.parametrize("shape", [SHAPES[4], SHAPES[21], WIDE], ids=lambda shape: shape.name)
@pytest.mark.parametrize("kind", KINDS)
def test_finished_input_with_and_without_dx(kind, shape, with_dx):
    """The first unit of a net reads a finished map, and needs no gradient of it."""
    op = kind(shape)
    x, w, dz, _ = drawn(op)
    got, norm_y = fused(op, x, None, w, dz, with_dx=with_dx)
    want = separate(op, x, None, w, dz, norm_y)
    assert ("dx" in got) == with_dx
    for name in got:
        close(got[name], want[name], SEPARATE, name)


@pytest.mark.parametrize("shape", [SHAPES[4], WIDE], ids=lambda shape: shape.name)
@pytest.mark.parametrize("kind", [Pointwise, Depthwise])
def test_raw_input_without_dx(kind, shape):
    """Frozen layers before: raw input, dw wanted, dx not."""
    op = kind(shape)
    x, w, dz, norm_x = drawn(op)
    got, norm_y = fused(op, x, norm_x, w, dz, with_dx=False)
    close(got["dw"], separate(op, x, norm_x, w, dz, norm_y)["dw"], SEPARATE)


def folded_inference(op, x, w, activation, with_skip=False):
    """y by the planned executor's pass, and by the plain convolution, affine map and activation."""
    scale, shift, skip = draw(op.y[-1:], op.y[-1:], op.y, seed=2, dtype=x.dtype)
    skip = skip if with_skip else skip[:0]
    y = np.full(op.y, np.nan, x.dtype)
    op.inference(x, folded(w, shift, scale), code_of(activation), skip, y)
    want = activation_forward(op.plain(x, w) * scale + shift, activation)
    return y, want + skip if with_skip else want


@pytest.mark.parametrize("shape", [*SMALL, MANY_IMAGES, WIDE, TILES], ids=lambda shape: shape.name)
@pytest.mark.parametrize("kind", KINDS)
def test_inference_with_batch_norm_folded(kind, shape):
    op = kind(shape)
    x, w = draw(shape.x, op.w)
    for activation in activations_of(shape):
        y, want = folded_inference(op, x, w, activation)
        close(y, want, ORACLE, activation)
    if kind is not Depthwise:
        y, want = folded_inference(op, x, w, "relu6", with_skip=True)
        close(y, want, ORACLE, "with a skip connection")


def test_folding_gives_scale_and_shift_of_every_channel():
    """γ/√(variance + ε) and β − mean·scale of two units, each at its places in the flat vectors."""
    flat, buffers = draw((20,), (20,))
    buffers[10:] **= 2
    places = np.array([[2, 3, 7, 1, 12, 6], [3, 10, 14, 4, 16, 0]])
    out = np.full(10, np.nan)
    folding.fold_all(flat, buffers, places, np.array([EPS, 0.1]), out)
    for (count, gamma, beta, mean, variance, to), eps in zip(places, (EPS, 0.1)):
        scale = flat[gamma : gamma + count] / np.sqrt(buffers[variance : variance + count] + eps)
        close(out[to : to + count], scale, ORACLE, "scale")
        shift = flat[beta : beta + count] - buffers[mean : mean + count] * scale
        close(out[to + count : to + 2 * count], shift, ORACLE, "shift")


def test_a_shift_before_a_pointwise_convolution_is_undone_by_the_next_norm():
    """A linear bottleneck's β has gradient 0: the next norm removes whatever it does."""
    op = Pointwise(Shape(4, 5, 6, 8, 12, 1))
    x, w, dz, norm_x = drawn(op, "identity")
    got, _ = fused(op, x, norm_x, w, dz, "relu6")
    assert np.abs(got["dbeta of x"]).max() <= 1e-12 * np.abs(got["dx"]).sum(axis=(0, 1, 2)).max()
    assert np.abs(got["dgamma of x"]).max() > 0.1


@both_dtypes
@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 3, 5, 7), (3, 7, 7, 130), (2, 13, 11, 257)], ids=str)
def test_average_of_a_raw_map(shape, dtype):
    (x,) = draw(shape, dtype=dtype)
    for activation in ("hswish", "sigmoid"):
        norm = Norm(x, activation)
        y = np.full((shape[0], shape[3]), np.nan, dtype)
        pooling.unit_average(source_of(x, norm.pack, norm.code), y)
        close(y, norm.finished.mean(axis=(1, 2)), {"float64": ORACLE, "float32": 1e-6}[dtype])


@pytest.mark.parametrize("activation", ["relu6", "swish"])
def test_normalised_and_its_gradient_are_batch_norm(activation):
    x, dy = draw((3, 5, 4, 6), (3, 5, 4, 6))
    norm = Norm(x, activation)
    source = source_of(x, norm.pack, norm.code)
    assert (batchnorm.normalised(source) == norm.finished).all()
    affine = (x - norm.pack[0]) * norm.pack[1] * norm.pack[2] + norm.pack[3]
    close(norm.finished, activation_forward(affine, activation), ORACLE)
    *_, means = norm.close_sums(batchnorm.gradient_sums_of(dy, source), x.size // 6)
    dx = batchnorm.unit_gradient_of(upstream_of(dy, x, norm.pack, means, norm.code))
    assert (dx == norm.backward(dy, x)[0]).all()
