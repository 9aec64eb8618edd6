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
    (3, 9, 8, 12, None, 20, 3, 1, "same"),  # nothing is expanded: MobileNetV1's block
    (2, 9, 8, 32, None, 8, 5, 2, "symmetric"),
]
each_block = pytest.mark.parametrize("block", BLOCKS, ids=lambda block: "x".join(map(str, block)))


def both(block, dtype="float64", cut=None):
    """y of the one pass and of the three; ``cut``: images and rows of a tile."""
    n, h, w, c, wide, f, k, stride, padding = block
    expands, wide = wide is not None, wide or c
    pads = resolve(padding, (h, w), (k, k), stride)
    p, q = (output_side(a, k, stride, *pad) for a, pad in zip((h, w), pads))
    x, w1, a1, w2, a2, w3, a3 = draw(
        (n, h, w, c), (c, wide), (2, wide), (k, k, wide, 1), (2, wide), (wide, f), (2, f), dtype=dtype
    )
    adds = expands and c == f and stride == 1
    nothing = np.empty((0, 0), dtype)
    fused, y = np.full((2, n, p, q, f), np.nan, dtype)
    e, z = np.empty((n, h, w, wide), dtype), np.empty((n, p, q, wide), dtype)
    with one_thread():
        codes = HSWISH, RELU6, IDENTITY
        tables = (w1, a1) if expands else (nothing, nothing)
        tables += w2, a2, w3, a3
        inverted.unit_inference(x, *tables, codes, stride, pads, adds, fused, cut or (1, p))
        if expands:
            pointwise.unit_inference(x.reshape(-1, c), w1, a1, HSWISH, nothing, e.reshape(-1, wide))
        else:
            e = x
        depthwise.unit_inference(e, w2, a2, RELU6, stride, pads, z)
        skip = x.reshape(-1, c) if adds else nothing
        pointwise.unit_inference(z.reshape(-1, wide), w3, a3, IDENTITY, skip, y.reshape(-1, f))
    return fused, y


@each_block
def test_one_pass_equals_three(block):
    for band in (1, 2, 3, None):
        close(*both(block, cut=band and (1, band)), ORACLE, f"bands of {band}")
    n, p = block[0], both(block)[0].shape[1]
    close(*both(block, cut=(2, p)), ORACLE, "two images a tile")
    close(*both(block, cut=(n, p)), ORACLE, "all images in one tile")


@each_block
def test_float32(block):
    close(*both(block, "float32", (1, 2)), TORCH["float32"], "y")


@pytest.mark.skipif(CHECKING or numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
def test_same_bits_from_two_threads():
    two = both(BLOCKS[5], "float32", (1, 2))[0]
    numba.set_num_threads(1)
    try:
        one = both(BLOCKS[5], "float32", (1, 2))[0]
    finally:
        numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert one.tobytes() == two.tobytes()


def test_tiles_follow_the_shapes():
    assert inverted.cut_of(16, 112, 112, 96, 3, 2, 56, 56, True) == (1, 6)  # as many rows as fit, in pairs
    assert inverted.cut_of(16, 14, 14, 480, 5, 1, 14, 14, True) == (2, 14)  # whole images, and two of them
    assert inverted.cut_of(16, 7, 7, 960, 3, 1, 7, 7, True) == (4, 7)  # no more than leave four tiles
    assert inverted.cut_of(1, 7, 7, 960, 3, 1, 7, 7, True) is None  # one tile would leave a core idle
    assert inverted.cut_of(1, 56, 56, 128, 3, 1, 56, 56, False) == (
        1,
        14,
    )  # nothing is made twice: four bands
    assert inverted.cut_of(1, 7, 7, 1024, 3, 1, 7, 7, False) is None  # too few pixels a band
