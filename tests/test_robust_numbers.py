"""Numbers at the edge, through whole nets: finite, and what float64 says, within what float32 can tell."""

import numpy as np
import pytest
from kernel_shapes import CHECKING

import numnet
from numnet.kernels.product import product

pytestmark = pytest.mark.skipif(CHECKING, reason="needs float32")

CLASSES = 5


def inputs(case):
    """(images float64, side). All can be told in float32."""
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(4, 16, 16, 3)).astype(np.float32).astype(np.float64)
    return {
        "a constant channel": np.concatenate([normal[..., :2], np.full((4, 16, 16, 1), 0.75)], axis=3),
        "constant images": np.full((4, 16, 16, 3), -2.5),
        "zeros": np.zeros((4, 16, 16, 3)),
        "one image": normal[:1],
        "one pixel": normal[:, :1, :1],
        "one image of one pixel": normal[:1, :1, :1],
        "huge": normal * 2.0**40,
        "tiny": normal * 2.0**-40,
        "denormal": np.round(normal * 4) * 2.0**-145,
        "one number far away": np.where(np.arange(normal.size).reshape(normal.shape) == 77, 1e6, normal),
    }[case]


CASES = ["a constant channel", "constant images", "zeros", "one image", "one pixel", "one image of one pixel", "huge",
         "tiny", "denormal", "one number far away"]  # fmt: skip


def both(model, side, **more):
    """The same net in float32 and float64."""
    options = {
        "width": 0.1,
        "resolution": side,
        "classes": CLASSES,
        "strides": "cifar",
        "dropout": 0.0,
        **more,
    }
    single, double = (numnet.build(model, dtype=dtype, **options) for dtype in ("float32", "float64"))
    double.flat[...] = single.flat
    return single, double


def far(got, want):
    """Largest distance, in units of the largest number that should come out."""
    assert np.isfinite(got).all() and np.isfinite(want).all()
    return np.abs(got - want).max() / max(np.abs(want).max(), np.finfo(np.float32).tiny)


@pytest.mark.parametrize("rows", [1, 4, 6, 13, 300])
def test_equal_rows_stay_equal(rows):
    """The product rounds each row alike, wherever it stands: in a tile of 6 rows, of 2, of 1, in another tile of the pass."""
    rng = np.random.default_rng(0)
    for channels, filters in ((3, 8), (33, 17), (64, 24)):
        row = rng.normal(size=(1, channels)).astype(np.float32)
        w = rng.normal(size=(channels, filters)).astype(np.float32)
        y = product(np.repeat(row, rows, axis=0), w)
        assert (y == y[0]).all()
        assert (product(row, w) == y[0]).all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("model", ["mobilenet_v1", "mobilenet_v3_small"])
def test_inference(model, case):
    """Forward and predict, running statistics of the start: no statistics of the batch, so the design's 1e-5 holds.

    Numbers as large as 2⁴⁰ leave float32 the same 24 bits.
    """
    x = inputs(case)
    single, double = both(model, x.shape[1])
    want = double.forward(x)
    for got in (single.forward(x.astype(np.float32)), single.predict(x.astype(np.float32))):
        assert far(got, want) <= 1e-5
    assert far(double.predict(x), want) <= 1e-12


@pytest.mark.parametrize("activation", ["relu6", "swish"])
@pytest.mark.parametrize("case", CASES)
def test_training(case, activation):
    """One training pass: logits, every gradient and the running statistics are finite; and, where batch norm does not
    multiply rounding, what float64 says.

    Gradients are compared for an activation without a kink: one number that rounding takes from 1e-6 to −1e-6, in a map
    of 1×1, is a fifth of all gradients before it. (But for zeros, where relu6 leaves exact zeros and a smooth activation
    rounding.)"""
    x = inputs(case)
    single, double = both("mobilenet_v1", x.shape[1], activation=activation)
    labels = np.arange(len(x)) % CLASSES
    results = []
    for net, images in ((single, x.astype(np.float32)), (double, x)):
        logits = net.forward(images, training=True)
        _, dlogits = numnet.softmax_cross_entropy(logits, labels)
        dx = net.backward(dlogits)
        assert (
            np.isfinite(net.flat_grad).all() and np.isfinite(net.flat_buffers).all() and np.isfinite(dx).all()
        )
        results.append((logits, net.flat_grad.copy(), net.flat_buffers.copy()))
    if case in ("one pixel", "one image of one pixel", "denormal"):
        return  # variances of a few numbers, and products that have lost their bits: float32 may be anywhere
    smooth = "relu6" if case in ("constant images", "zeros") else "swish"
    for what, got, want in zip(("logits", "gradients", "statistics"), *results):
        if what != "gradients" or activation == smooth:
            # PyTorch against itself in two layouts: 0.01 (design: how exact is exact)
            assert far(got, want) <= 0.02, what
