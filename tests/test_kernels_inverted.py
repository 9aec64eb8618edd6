"""The inverted residual in one pass gives what its convolutions give one after another, however it is cut."""

import numba
import numpy as np
import pytest
from kernel_shapes import CHECKING, ORACLE, TORCH, close, draw, needs_float32

from numnet.kernels import depthwise, inverted, pointwise
from numnet.kernels._blas import one_thread
from numnet.kernels.activations import HSIGMOID, HSWISH, IDENTITY, RELU, RELU6
from numnet.kernels.padding import output_side, resolve
from numnet.kernels.squeeze_excite import scale_forward

# images, H, W, C, t·C, F, K, stride, padding, channels of the squeeze-excite
BLOCKS = [
    (1, 1, 1, 1, 1, 1, 3, 1, "same", 0),
    (2, 7, 9, 3, 5, 3, 3, 1, "same", 0),
    (3, 8, 8, 4, 24, 7, 3, 2, "same", 0),
    (2, 11, 6, 16, 40, 16, 5, 1, "symmetric", 0),
    (1, 13, 15, 8, 48, 12, 5, 2, "symmetric", 0),
    (2, 5, 40, 24, 144, 24, 3, 1, "same", 0),
    (3, 9, 8, 12, None, 20, 3, 1, "same", 0),  # nothing is expanded: MobileNetV1's block
    (2, 9, 8, 32, None, 8, 5, 2, "symmetric", 0),
    (3, 7, 6, 8, 40, 8, 5, 1, "same", 10),  # squeezed and excited: MobileNetV3's
    (2, 9, 8, 24, None, 16, 3, 2, "symmetric", 8),
]
each_block = pytest.mark.parametrize("block", BLOCKS, ids=lambda block: "x".join(map(str, block)))


def both(block, dtype="float64", cut=None):
    """y of the one pass and of the three; ``cut``: images and rows of a tile."""
    n, h, w, c, wide, f, k, stride, padding, squeezed = block
    expands, wide = wide is not None, wide or c
    pads = resolve(padding, (h, w), (k, k), stride)
    p, q = (output_side(a, k, stride, *pad) for a, pad in zip((h, w), pads))
    x, w1, a1, w2, a2, w3, a3 = draw(
        (n, h, w, c), (c, wide), (2, wide), (k, k, wide, 1), (2, wide), (wide, f), (2, f), dtype=dtype
    )
    r1, a4, r2, a5 = draw((wide, squeezed), (2, squeezed), (squeezed, wide), (2, wide), dtype=dtype)
    adds = expands and c == f and stride == 1
    nothing = np.empty((0, 0), dtype)
    fused, y = np.full((2, n, p, q, f), np.nan, dtype)
    e, z = np.empty((n, h, w, wide), dtype), np.empty((n, p, q, wide), dtype)
    with one_thread():
        codes = HSWISH, RELU6, HSIGMOID, IDENTITY
        expand = (w1, a1) if expands else (nothing, nothing)
        squeeze = (r1, a4, r2, a5) if squeezed else (nothing,) * 4
        cut = cut or (1, p)
        inverted.unit_inference(x, expand, (w2, a2), squeeze, (w3, a3), codes, stride, pads, adds, fused, cut)
        if expands:
            pointwise.unit_inference(x.reshape(-1, c), w1, a1, HSWISH, nothing, e.reshape(-1, wide))
        else:
            e = x
        depthwise.unit_inference(e, w2, a2, RELU6, stride, pads, z)
        if squeezed:
            h, gates = np.empty((n, squeezed), dtype), np.empty((n, wide), dtype)
            pointwise.unit_inference(z.mean(axis=(1, 2)), r1, a4, RELU, nothing, h)
            pointwise.unit_inference(h, r2, a5, HSIGMOID, nothing, gates)
            z = scale_forward(z, gates)
        skip = x.reshape(-1, c) if adds else nothing
        pointwise.unit_inference(z.reshape(-1, wide), w3, a3, IDENTITY, skip, y.reshape(-1, f))
    return fused, y


@each_block
def test_one_pass_equals_its_steps(block):
    for band in (1, 2, 3, None) if not block[-1] else (None,):  # a squeeze needs whole images
        close(*both(block, cut=band and (1, band)), ORACLE, f"bands of {band}")
    n, p = block[0], both(block)[0].shape[1]
    close(*both(block, cut=(2, p)), ORACLE, "two images a tile")
    close(*both(block, cut=(n, p)), ORACLE, "all images in one tile")


@needs_float32
@each_block
def test_float32(block):
    close(*both(block, "float32", None if block[-1] else (1, 2)), TORCH["float32"], "y")


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
    cut = inverted.cut_of
    assert cut(16, 112, 112, 96, 3, 2, 56, 56, True, False) == (1, 6)  # as many rows as fit, in pairs
    assert cut(16, 14, 14, 480, 5, 1, 14, 14, True, False) == (2, 14)  # whole images, and two of them
    assert cut(16, 7, 7, 960, 3, 1, 7, 7, True, False) == (4, 7)  # no more than leave four tiles
    assert cut(1, 7, 7, 960, 3, 1, 7, 7, True, False) is None  # one tile would leave a core idle
    assert cut(1, 56, 56, 128, 3, 1, 56, 56, False, False) == (1, 14)  # nothing is made twice: four bands
    assert cut(1, 7, 7, 1024, 3, 1, 7, 7, False, False) is None  # too few pixels a band
    assert cut(16, 14, 14, 672, 5, 1, 14, 14, True, True) == (1, 14)  # a squeeze-excite: whole images
    assert cut(16, 112, 112, 64, 3, 2, 56, 56, True, True) is None  # which do not fit here
    assert cut(1, 28, 28, 120, 5, 1, 28, 28, True, True) is None  # nor is one image cut
