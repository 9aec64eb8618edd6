"""The definitions, plain loops on each page, against the oracle; and the fast passes against them at real sizes.

The oracle is slow and small shapes are what it can judge. The definitions are compiled, so whole layers and batches can be:
32 images and more, where a part of a pass adds up its sums more than once before it is done.
"""

import numpy as np
import oracle
import pytest
from kernel_shapes import CHECKING, ORACLE, SHAPES, TORCH, both_dtypes, close, draw

from numnet import kernels
from numnet.kernels import (
    CODES,
    activations,
    batchnorm,
    conv,
    depthwise,
    pointwise,
    pooling,
    product,
    residual,
    squeeze_excite,
)

SMALL = [SHAPES[i] for i in (0, 2, 3, 4, 6, 7, 8, 15, 18, 19, 20)]
each_small = pytest.mark.parametrize("shape", SMALL, ids=lambda shape: shape.name)
EPS = 1e-3


# --- against the oracle -------------------------------------------------------------------------------------


def compare(names, got, want):
    for name, a, b in zip(names.split(), got, want, strict=True):
        close(a, b, ORACLE, name)


@each_small
def test_convolution(shape):
    x, w, dy = draw(shape.x, shape.conv_w, shape.conv_y)
    where = shape.stride, shape.padding
    close(conv.definition(x, w, *where), oracle.conv(x, w, shape.stride, shape.pads), ORACLE, "y")
    want = oracle.conv_backward(dy, x, w, shape.stride, shape.pads)
    compare("dx dw", conv.definition_backward(dy, x, w, *where), want)


@each_small
def test_depthwise(shape):
    x, w, dy = draw(shape.x, shape.depthwise_w, shape.depthwise_y)
    where = shape.stride, shape.padding
    close(depthwise.definition(x, w, *where), oracle.depthwise(x, w, shape.stride, shape.pads), ORACLE, "y")
    want = oracle.depthwise_backward(dy, x, w, shape.stride, shape.pads)
    compare("dx dw", depthwise.definition_backward(dy, x, w, *where), want)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (2, 3, 5, 7, 4), (1, 2, 2, 3, 9)], ids=str)
def test_pointwise_and_product(shape):
    *x, f = shape
    x, w, dy = draw(tuple(x), (x[3], f), (*x[:3], f))
    close(pointwise.definition(x, w), oracle.pointwise(x, w), ORACLE, "y")
    want = oracle.pointwise_backward(dy, x, w)
    compare("dx dw", pointwise.definition_backward(dy, x, w), want)
    rows, drows = x.reshape(-1, x.shape[3]), dy.reshape(-1, f)
    y, dx, dw = np.full_like(drows, np.nan), np.full_like(rows, np.nan), np.full_like(w, np.nan)
    product.definition(rows, w, y)
    product.definition_dx(drows, w, dx)
    product.definition_dw(rows, drows, dw)
    compare("y dx dw", (y, dx, dw), (rows @ w, drows @ w.T, rows.T @ drows))


@pytest.mark.parametrize("shape", [(2, 5, 7, 3), (64, 7), (3, 1, 2, 17)], ids=str)
def test_batch_norm(shape):
    x, gamma, beta, dy = draw(shape, shape[-1:], shape[-1:], shape)
    x = 3 * x + 1
    y, mean, inv_std = batchnorm.definition(x, gamma, beta, EPS)
    want, batch_mean, variance = oracle.batchnorm_training(x, gamma, beta, EPS)
    compare("y mean inv_std", (y, mean, inv_std), (want, batch_mean, 1 / np.sqrt(variance + EPS)))
    got = batchnorm.definition_backward(dy, x, gamma, mean, inv_std)
    compare("dx dgamma dbeta", got, oracle.batchnorm_training_backward(dy, x, gamma, beta, EPS))


@pytest.mark.parametrize("activation", CODES)
def test_activations(activation):
    x, dy = draw((3, 67), (3, 67))
    x = np.concatenate([4 * x, [[-3, -2.5, 0, 0.5, 2.5, 3, 6] * 9 + [1, 2, 4, 5]]])  # kinks
    dy = np.concatenate([dy, 1 - dy[:1]])
    for beta in (1.0, 1.5) if activation == "swish" else (1.0,):
        options = (beta,) if activation == "swish" else ()
        close(activations.definition(x, activation, beta), oracle.activate(activation, x, *options), ORACLE)
        want = oracle.activate_backward(dy, activation, x, *options)
        close(activations.definition_backward(dy, x, activation, beta), want, ORACLE)
    with pytest.raises(ValueError, match="activation: expected"):
        activations.definition(x, "gelu")


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 4, 5, 3), (3, 7, 6, 2)], ids=str)
def test_pools(shape):
    x, dy = draw(shape, (shape[0], shape[3]))
    close(pooling.definition_average(x), oracle.global_average_pool(x), ORACLE, "average")
    want = oracle.global_average_pool_backward(dy, shape)
    close(pooling.definition_average_backward(dy, shape), want, ORACLE, "dx of the average")
    x = np.round(2 * x)  # with equal numbers: the first wins
    for side, stride, padding in ((1, 1, 0), (2, 2, "same"), (3, 2, 1), (3, 1, "symmetric")):
        if min(shape[1:3]) == 1 and side == 2:
            continue
        pads = oracle.resolve(padding, shape[1:3], side, stride)
        y, where = pooling.definition_maximum(x, side, stride, padding)
        close(y, oracle.max_pool(x, side, stride, pads), ORACLE, "maximum")
        (dy,) = draw(y.shape, seed=1)
        want = oracle.max_pool_backward(dy, x, side, stride, pads)
        close(pooling.definition_maximum_backward(dy, where, shape), want, ORACLE, "dx of the maximum")
        got = kernels.max_forward(x, side, stride, padding)
        assert (got[0] == y).all() and (got[1] == where).all()


def test_squeeze_excite_and_sums():
    x, dy, gate, ds = draw((3, 4, 5, 7), (3, 4, 5, 7), (3, 7), (3, 7))
    wide = gate[:, None, None]
    close(squeeze_excite.definition(x, gate), x * wide, ORACLE, "y")
    dx, dgate = squeeze_excite.definition_backward(dy, x, gate, ds)
    close(dx, dy * wide + ds[:, None, None] / 20, ORACLE, "dx")
    close(dgate, (dy * x).sum(axis=(1, 2)), ORACLE, "dgate")
    close(squeeze_excite.definition_backward(dy, x, gate)[0], dy * wide, ORACLE, "dx without ds")
    assert (residual.definition(x, dy) == x + dy).all()


# --- the fast passes, at real sizes -------------------------------------------------------------------------

BOUNDS = {"float64": ORACLE, "float32": TORCH["float32"]}


def judged(names, fast, definition, arrays, dtype):
    """fast(arrays in dtype) against definition(the same numbers in float64)."""
    got = fast(*arrays)
    want = definition(*(a.astype(np.float64) for a in arrays))
    for name, a, b in zip(names.split(), got, want, strict=True):
        assert a.dtype == dtype
        close(a, b, BOUNDS[dtype], name)


DEPTHWISE = [  # N, H, W, C, K, stride, padding, M
    # two flushes a part would hide a sum that is not zeroed: four images each
    (32, 32, 32, 32, 3, 1, "same", 1),
    (33, 16, 16, 64, 3, 2, "same", 1),
    (64, 8, 8, 40, 5, 1, "symmetric", 1),
    (35, 14, 14, 24, 5, 2, "same", 1),
    (32, 7, 7, 72, 3, 2, "symmetric", 2),
    (16, 28, 28, 17, 3, 1, "same", 1),
]


@both_dtypes
@pytest.mark.parametrize("case", DEPTHWISE, ids=str)
def test_depthwise_of_whole_batches(case, dtype):
    n, h, w, c, k, stride, padding, m = case
    x, weights = draw((n, h, w, c), (k, k, c, m), dtype=dtype)
    (dy,) = draw(kernels.depthwise_forward(x, weights, stride, padding).shape, dtype=dtype, seed=1)
    where = stride, padding

    def fast(x, weights, dy):
        y = kernels.depthwise_forward(x, weights, *where)
        return y, *kernels.depthwise_backward(dy, x, weights, *where)

    def definition(x, weights, dy):
        y = depthwise.definition(x, weights, *where)
        return y, *depthwise.definition_backward(dy, x, weights, *where)

    judged("y dx dw", fast, definition, (x, weights, dy), dtype)


CONV = [  # N, H, W, C, F, K, stride, padding
    (32, 32, 32, 3, 32, 3, 1, "same"),
    (33, 32, 30, 3, 24, 3, 2, "symmetric"),
    (32, 9, 9, 10, 17, 3, 1, "same"),
]


@both_dtypes
@pytest.mark.parametrize("case", CONV, ids=str)
def test_convolutions_of_whole_batches(case, dtype):
    n, h, w, c, f, k, stride, padding = case
    x, weights = draw((n, h, w, c), (k, k, c, f), dtype=dtype)
    (dy,) = draw(kernels.conv_forward(x, weights, stride, padding).shape, dtype=dtype, seed=1)
    where = stride, padding

    def fast(x, weights, dy):
        y = kernels.conv_forward(x, weights, *where)
        return y, *kernels.conv_backward(dy, x, weights, *where)

    def definition(x, weights, dy):
        y = conv.definition(x, weights, *where)
        return y, *conv.definition_backward(dy, x, weights, *where)

    judged("y dx dw", fast, definition, (x, weights, dy), dtype)


@both_dtypes
@pytest.mark.parametrize(
    "shape", [(32, 32, 32, 64, 64), (32, 16, 16, 24, 40), (128, 4, 4, 72, 17), (40, 7, 7, 160, 8)], ids=str
)
def test_products_of_whole_batches(shape, dtype):
    *x, f = shape
    x, w, dy = draw(tuple(x), (x[3], f), (*x[:3], f), dtype=dtype)

    def fast(x, w, dy):
        return kernels.pointwise_forward(x, w), *kernels.pointwise_backward(dy, x, w)

    def definition(x, w, dy):
        return pointwise.definition(x, w), *pointwise.definition_backward(dy, x, w)

    judged("y dx dw", fast, definition, (x, w, dy), dtype)


@both_dtypes
@pytest.mark.parametrize("shape", [(32, 32, 32, 24), (64, 7, 7, 72), (128, 4, 4, 17)], ids=str)
def test_batch_norm_of_whole_batches(shape, dtype):
    x, gamma, beta, dy = draw(shape, shape[-1:], shape[-1:], shape, dtype=dtype)
    x = 2 * x + 1
    one = np.ones_like(gamma)
    y, pack = kernels.batchnorm_forward(x, gamma, beta, one.copy(), one.copy(), training=True, eps=EPS)
    wide = [a.astype(np.float64) for a in (x, gamma, beta, dy)]
    want = batchnorm.definition(*wide[:3], EPS)
    for name, got, a in zip(("y", "mean", "inv_std"), (y, pack[0], pack[1]), want):
        close(got, a, BOUNDS[dtype], name)
    got = kernels.batchnorm_backward(dy, x, pack)
    want = batchnorm.definition_backward(wide[3], wide[0], wide[1], *want[1:])
    for name, a, b in zip(("dx", "dgamma", "dbeta"), got, want):
        close(a, b, BOUNDS[dtype], name)


@both_dtypes
@pytest.mark.parametrize("activation", CODES)
def test_activations_of_whole_maps(activation, dtype):
    x, dy = draw((32, 9, 9, 24), (32, 9, 9, 24), dtype=dtype)
    x = 3 * x

    def fast(x, dy):
        return kernels.activation_forward(x, activation), kernels.activation_backward(dy, x, activation)

    def definition(x, dy):
        return activations.definition(x, activation), activations.definition_backward(dy, x, activation)

    judged("y dx", fast, definition, (x, dy), dtype)


@both_dtypes
def test_pools_and_gates_of_whole_batches(dtype):
    x, dy, gate, dmean = draw((32, 7, 7, 72), (32, 7, 7, 72), (32, 72), (32, 72), dtype=dtype)

    def fast(x, dy, gate, dmean):
        average = kernels.global_average_forward(x), kernels.global_average_backward(dmean, x.shape)
        y, where = kernels.max_forward(x, 3, 2, 1)
        maximum = y, kernels.max_backward(dy[:, : y.shape[1], : y.shape[2]].copy(), where, x.shape)
        return (
            *average,
            *maximum,
            squeeze_excite.scale_forward(x, gate),
            *squeeze_excite.scale_backward(dy, x, gate),
        )

    def definition(x, dy, gate, dmean):
        average = pooling.definition_average(x), pooling.definition_average_backward(dmean, x.shape)
        y, where = pooling.definition_maximum(x, 3, 2, 1)
        dy_small = dy[:, : y.shape[1], : y.shape[2]].copy()
        maximum = y, pooling.definition_maximum_backward(dy_small, where, x.shape)
        gated = squeeze_excite.definition(x, gate), *squeeze_excite.definition_backward(dy, x, gate)
        return *average, *maximum, *gated

    names = "average dx maximum dx scaled dx dgate"
    judged(names, fast, definition, (x, dy, gate, dmean), dtype)


# --- channels that the lanes do not divide ------------------------------------------------------------------

CHANNELS = [3, 8, 10, 17, 24, 40, 72]


@both_dtypes
@pytest.mark.parametrize("channels", CHANNELS)
def test_channels_that_lanes_do_not_divide(channels, dtype):
    """Each kernel, both ways of being cut: 3 images of 5×4, and of a batch of nothing."""
    filters = {3: 17, 8: 10, 10: 8, 17: 24, 24: 72, 40: 3, 72: 40}[channels]
    x, w, dw, p, dy = draw(
        (3, 5, 4, channels), (3, 3, channels, filters), (3, 3, channels, 1), (channels, filters), (3, 5, 4, filters),
        dtype=dtype,
    )  # fmt: skip
    (again, gate) = draw(x.shape, (3, channels), dtype=dtype, seed=1)
    cases = {
        "conv": (kernels.conv_forward, kernels.conv_backward, conv, dy, w),
        "depthwise": (kernels.depthwise_forward, kernels.depthwise_backward, depthwise, again, dw),
        "pointwise": (kernels.pointwise_forward, kernels.pointwise_backward, pointwise, dy, p),
        "squeeze_excite": (
            squeeze_excite.scale_forward,
            squeeze_excite.scale_backward,
            squeeze_excite,
            again,
            gate,
        ),
    }
    for name, (forward, backward, page, d, weights) in cases.items():
        wide = [a.astype(np.float64) for a in (d, x, weights)]
        close(forward(x, weights), page.definition(*wide[1:]), BOUNDS[dtype], f"{name}: y")
        for of, a, b in zip(("dx", "dw"), backward(d, x, weights), page.definition_backward(*wide)):
            close(a, b, BOUNDS[dtype], f"{name}: {of}")
        if name != "squeeze_excite":
            assert forward(x[:0], weights).shape == (0, *d.shape[1:])
            dx, gradient = backward(d[:0], x[:0], weights)
            assert dx.shape == (0, *x.shape[1:]) and (gradient == 0).all()
    close(kernels.global_average_forward(x), pooling.definition_average(x.astype(np.float64)), BOUNDS[dtype])
    close(residual.add_forward(x, again), x.astype(np.float64) + again, BOUNDS[dtype])


@pytest.mark.skipif(CHECKING, reason="the check mode compiles float64 only")
def test_a_definition_refuses_what_the_fast_pass_refuses():
    x, w = draw((2, 3, 3, 4), (3, 3, 5, 2))
    for page in (conv, depthwise):
        with pytest.raises(ValueError, match="w: expected shape"):
            page.definition(x, w)
