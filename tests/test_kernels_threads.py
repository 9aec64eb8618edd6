"""The same bits from one thread and from two, for every kernel, forward and backward.

Every cut depends on the shape alone and partial sums are added in index order; so a run can be repeated, and
resumed, on any number of cores.
"""

import numba
import numpy as np
import pytest
from kernel_shapes import CHECKING, Shape, draw
from test_kernels_fused import KINDS, drawn, folded_inference, fused

from numnet import kernels
from numnet.kernels import CODES, batchnorm
from numnet.kernels.moments import moments_of

pytestmark = [
    pytest.mark.usefixtures("all_cores"),
    pytest.mark.skipif(CHECKING, reason="with NUMNET_CHECK=1 every kernel is serial"),
    pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="NUMBA_NUM_THREADS allows one thread only"),
]

# Odd enough that parts and tiles are unequal: 13 images, 13·17·15 = 3315 pixels, 79,560 numbers.
X, SHAPE = (13, 17, 15, 24), Shape(13, 17, 15, 24, 40, 3, 2, "same", 2)
DTYPE = "float32"  # rounds more, and is what training uses


def bits(function, threads):
    """The bytes of everything that function() returns, computed by so many threads."""
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        value = function()
    finally:
        numba.set_num_threads(before)
    if isinstance(value, dict):
        value = tuple(value[name] for name in sorted(value))
    return [np.asarray(a).tobytes() for a in (value if isinstance(value, tuple) else (value,))]


def same(function):
    one = bits(function, 1)
    for _ in range(3):  # a race need not show at once
        assert bits(function, 2) == one


def test_convolutions():
    x, conv_w, conv_y, depthwise_w, depthwise_y = draw(
        X, SHAPE.conv_w, SHAPE.conv_y, SHAPE.depthwise_w, SHAPE.depthwise_y, dtype=DTYPE
    )
    same(lambda: kernels.conv_forward(x, conv_w, 2))
    same(lambda: kernels.conv_backward(conv_y, x, conv_w, 2))
    same(lambda: kernels.depthwise_forward(x, depthwise_w, 2))
    same(lambda: kernels.depthwise_backward(depthwise_y, x, depthwise_w, 2))
    same(lambda: kernels.depthwise_forward(x, depthwise_w[..., :1].copy()))
    same(lambda: kernels.depthwise_backward(x, x, depthwise_w[..., :1].copy()))


@pytest.mark.parametrize("channels, filters", [(24, 40), (500, 37)])  # the second: two tiles in some parts
def test_products(channels, filters):
    x, w, dy = draw((13, 17, 15, channels), (channels, filters), (13, 17, 15, filters), dtype=DTYPE)
    same(lambda: kernels.pointwise_forward(x, w))
    same(lambda: kernels.pointwise_backward(dy, x, w))
    rows, drows = x.reshape(-1, channels), dy.reshape(-1, filters)
    same(lambda: kernels.dense_forward(rows, w, drows[0].copy()))
    same(lambda: kernels.dense_backward(drows, rows, w))


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_batch_norm(training):
    x, dy, gamma, beta = draw(X, X, X[3:], X[3:], dtype=DTYPE)

    def forward():
        mean, variance = np.zeros_like(gamma), np.ones_like(gamma)
        y, pack = kernels.batchnorm_forward(
            x, gamma, beta, mean, variance, training=training, activation="hswish"
        )
        return y, pack, mean, variance

    same(forward)
    pack = forward()[1]
    same(lambda: kernels.batchnorm_backward(dy, x, pack, activation="hswish", training=training))
    same(lambda: moments_of(x))
    same(lambda: batchnorm.gradient_sums_of(dy, batchnorm.source_of(x, pack, CODES["hswish"])))


@pytest.mark.parametrize("kind", KINDS)
def test_fused_passes(kind):
    """Products, moments and gradient sums in one tile; everything that the chain gives."""
    op = kind(SHAPE)
    x, w, dz, norm_x = drawn(op, dtype=DTYPE)
    same(lambda: fused(op, x, norm_x, w, dz)[0])
    same(lambda: folded_inference(op, x, w, "hswish")[0])


def test_the_rest():
    x, dy = draw(X, X, dtype=DTYPE)
    for name in CODES:
        same(lambda: kernels.activation_forward(x, name))  # noqa: B023  called at once
        same(lambda: kernels.activation_backward(dy, x, name))  # noqa: B023
    same(lambda: kernels.global_average_forward(x))
    same(lambda: kernels.global_average_backward(dy[:, 0, 0].copy(), X))
    same(lambda: kernels.global_max_forward(x))
    y, where = kernels.max_forward(x, 3, 2, 1)
    same(lambda: kernels.max_forward(x, 3, 2, 1))
    same(lambda: kernels.max_backward(y, where, X))
    same(lambda: kernels.dropout_forward(x, 0.4, 1, 2))
    same(lambda: kernels.dropout_backward(dy, 0.4, 1, 2))
    logits = x.reshape(-1, 24)
    labels = np.arange(len(logits)) % 24
    same(lambda: kernels.softmax_cross_entropy(logits, labels, 0.1))
