"""The inverted residual in one pass gives what its convolutions give one after another, however it is cut."""

import numba
import numpy as np
import pytest
from kernel_shapes import (
    CHECKING,
    ORACLE,
    TORCH,
    close,
    draw,
    folded,
    needs_float32,
    product_ends,
    room,
    run,
)

from numnet.kernels import depthwise, inverted
from numnet.kernels.activations import HSIGMOID, HSWISH, IDENTITY, RELU, RELU6
from numnet.kernels.batchnorm import source_of
from numnet.kernels.maps import Folded, Window
from numnet.kernels.padding import output_side, resolve
from numnet.kernels.squeeze_excite import scale_forward
from numnet.kernels.vectors import lanes

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
    (3, 8, 8, 4, 8, 5, 3, 2, 0, 0),  # the last row of x is seen by no window
    (3, 8, 8, 4, None, 5, 1, 2, "same", 0),
    (3, 9, 9, 4, 8, 5, 3, 3, "symmetric", 0),
    (1, 4, 4, 4, 8, 5, 3, 1, 5, 0),  # windows that lie in the padding altogether
]
each_block = pytest.mark.parametrize("block", BLOCKS, ids=lambda block: "x".join(map(str, block)))


def both(block, dtype="float64", cut=None):
    """y of the one pass and of the three; ``cut``: images and rows of a tile."""
    n, h, w, c, wide, f, k, stride, padding, squeezed = block
    expands, wide = wide is not None, wide or c
    pads = resolve(padding, (h, w), (k, k), stride)
    p, q = (output_side(a, k, stride, *pad) for a, pad in zip((h, w), pads))
    x, w1, b1, w2, b2, w3, b3 = draw(
        (n, h, w, c), (c, wide), (wide,), (k, k, wide, 1), (wide,), (wide, f), (f,), dtype=dtype
    )
    r1, b4, r2, b5 = draw((wide, squeezed), (squeezed,), (squeezed, wide), (wide,), dtype=dtype)
    adds = expands and c == f and stride == 1
    nothing = np.empty(0, dtype)
    fused, y = np.full((2, n, p, q, f), np.nan, dtype)
    e, z = np.empty((n, h, w, wide), dtype), np.empty((n, p, q, wide), dtype)
    window, scales = (
        Window(k, stride, pads[0][0], pads[1][0]),
        draw((wide,), (wide,), (f,), dtype=dtype, seed=1),
    )
    absent = Folded(nothing, nothing, nothing)
    expand = folded(w1, b1, scales[0]) if expands else absent
    depth, project = folded(w2, b2, scales[1]), folded(w3, b3, scales[2])
    reduce, excite = (folded(r1, b4), folded(r2, b5)) if squeezed else (absent, absent)
    squeeze = inverted.Excite(*reduce, *excite, lanes(squeezed, dtype), HSIGMOID)
    codes = inverted.Codes(HSWISH, RELU6, IDENTITY, adds)
    units, tile = (expand, depth, project), inverted.Cut(*(cut or (1, p)))
    run(inverted.inference_step(source_of(x), units, squeeze, codes, window, fused, tile, room(*units)))
    if expands:
        product_ends(x, expand, HSWISH, nothing, e)
    else:
        e = x
    run(depthwise.inference_step(source_of(e), depth, RELU6, window, z))
    if squeezed:
        s, gates = np.empty((n, squeezed), dtype), np.empty((n, wide), dtype)
        product_ends(z.mean(axis=(1, 2)), reduce, RELU, nothing, s)
        product_ends(s, excite, HSIGMOID, nothing, gates)
        z = scale_forward(z, gates)
    product_ends(z, project, IDENTITY, x if adds else nothing, y)
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
    """Images, height, width and channels of the wide map, side and stride, output rows, whether it squeezes."""

    def cut(images, height, width, wide, side, stride, rows, squeezes=False):
        return inverted.cut_of(images, (height, width, wide), side, stride, rows, squeezes)

    assert cut(16, 112, 112, 96, 3, 2, 56) == (1, 5)  # as many rows as fit
    assert cut(16, 14, 14, 480, 5, 1, 14) == (2, 14)  # whole images, and two of them
    assert cut(16, 7, 7, 960, 3, 1, 7) == (4, 7)  # no more than leave four tiles
    assert cut(1, 7, 7, 960, 3, 1, 7) is None  # one tile would leave a core idle
    assert cut(1, 56, 56, 128, 3, 1, 56) == (1, 7)  # a large image is cut for eight cores
    assert cut(1, 28, 28, 120, 3, 1, 28) is None  # of smaller maps few images go step by step
    assert cut(16, 14, 14, 672, 5, 1, 14, True) == (1, 14)  # a squeeze-excite: whole images
    assert cut(16, 112, 112, 64, 3, 2, 56, True) is None  # which do not fit here
    assert cut(1, 28, 28, 120, 5, 1, 28, True) is None  # nor is one image cut
