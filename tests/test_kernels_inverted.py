"""The inverted residual in one pass gives what its three convolutions give one after another, however it is cut."""

import numba
import numpy as np
import pytest
from kernel_shapes import CHECKING, ORACLE, TORCH, close, draw

from numnet.kernels import depthwise, inverted, pointwise
from numnet.kernels._blas import one_thread
from numnet.kernels.activations import HSWISH, IDENTITY, RELU6
from numnet.kernels.padding import output_side, resolve

# images, H, W, C, t·C, F, K, stride, padding
BLOCKS = [
    (1, 1, 1, 1, 1, 1, 3, 1, "same"),
    (2, 7, 9, 3, 5, 3, 3, 1, "same"),
    (3, 8, 8, 4, 24, 7, 3, 2, "same"),
    (2, 11, 6, 16, 40, 16, 5, 1, "symmetric"),
    (1, 13, 15, 8, 48, 12, 5, 2, "symmetric"),
    (2, 5, 40, 24, 144, 24, 3, 1, "same"),
]
each_block = pytest.mark.parametrize("block", BLOCKS, ids=lambda block: "x".join(map(str, block)))


def both(block, dtype="float64", band=None):
    """y of the one pass and of the three, in bands of ``band`` rows."""
    n, h, w, c, wide, f, k, stride, padding = block
    pads = resolve(padding, (h, w), (k, k), stride)
    p, q = (output_side(a, k, stride, *pad) for a, pad in zip((h, w), pads))
    x, w1, a1, w2, a2, w3, a3 = draw(
        (n, h, w, c), (c, wide), (2, wide), (k, k, wide, 1), (2, wide), (wide, f), (2, f), dtype=dtype
    )
    adds = c == f and stride == 1
    nothing = np.empty((0, 0), dtype)
    fused, y = np.full((2, n, p, q, f), np.nan, dtype)
    e, z = np.empty((n, h, w, wide), dtype), np.empty((n, p, q, wide), dtype)
    with one_thread():
        codes = HSWISH, RELU6, IDENTITY
        tables = w1, a1, w2, a2, w3, a3
        inverted.unit_inference(x, *tables, codes, stride, pads, adds, fused, band or p)
        pointwise.unit_inference(x.reshape(-1, c), w1, a1, HSWISH, nothing, e.reshape(-1, wide))
        depthwise.unit_inference(e, w2, a2, RELU6, stride, pads, z)
        skip = x.reshape(-1, c) if adds else nothing
        pointwise.unit_inference(z.reshape(-1, wide), w3, a3, IDENTITY, skip, y.reshape(-1, f))
    return fused, y


@each_block
def test_one_pass_equals_three(block):
    for band in (1, 2, 3, None):
        close(*both(block, band=band), ORACLE, f"bands of {band}")


@each_block
def test_float32(block):
    close(*both(block, "float32", 2), TORCH["float32"], "y")


@pytest.mark.skipif(CHECKING or numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
def test_same_bits_from_two_threads():
    two = both(BLOCKS[-1], "float32", 2)[0]
    numba.set_num_threads(1)
    try:
        one = both(BLOCKS[-1], "float32", 2)[0]
    finally:
        numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert one.tobytes() == two.tobytes()


def test_bands_follow_the_shapes():
    assert inverted.band_of(16, 112, 112, 96, 3, 2, 56) == 6  # as many rows as fit, in pairs
    assert inverted.band_of(16, 7, 7, 960, 3, 1, 7) == 8  # a whole image
    assert inverted.band_of(1, 7, 7, 960, 3, 1, 7) == 0  # one tile would leave a core idle
