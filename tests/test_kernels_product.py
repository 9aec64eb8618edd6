"""Inference's products: cut by pixels or by filters, in blocks or whole, every cut gives the same numbers."""

import numba
import numpy as np
import pytest
from kernel_shapes import CHECKING, ORACLE, TORCH, close, draw, needs_float32

from numnet.kernels import pointwise, product
from numnet.kernels._blas import one_thread
from numnet.kernels.activations import IDENTITY, RELU6

CUTS = [
    (1, 1, 1),
    (3, 5, 7),
    (1, 257, 1003),  # a dense layer for one image: tiles of filters
    (49, 200, 200),  # a 7×7 map: tiles of filters, blocks of channels, edges that no block divides
    (97, 24, 144),  # two tiles of pixels
    (300, 24, 7),  # thin: one block a tile
    (260, 515, 257),  # blocks along all three
]
each_cut = pytest.mark.parametrize("rows, channels, filters", CUTS)


def given(rows, channels, filters, dtype="float64"):
    return draw((rows, channels), (channels, filters), (2, filters), (rows, filters), dtype=dtype)


def run(x, w, folded, code, skip):
    y = np.full((len(x), w.shape[1]), np.nan, x.dtype)
    with one_thread():
        pointwise.unit_inference(x, w, folded, code, skip, y)
    return y


@each_cut
def test_against_the_oracle(rows, channels, filters):
    x, w, folded, skip = given(rows, channels, filters)
    want = np.clip(x @ w * folded[0] + folded[1], 0, 6)
    close(run(x, w, folded, RELU6, np.empty((0, 0))), want, ORACLE, "y")
    close(run(x, w, folded, RELU6, skip), want + skip, ORACLE, "y and skip")


@each_cut
def test_gradients(rows, channels, filters):
    """Training's products: y, dx and dw, thin weights in blocks (dw along all three edges) and others whole."""
    x, w, _, dy = given(rows, channels, filters)
    maps = x.reshape(1, 1, rows, channels), dy.reshape(1, 1, rows, filters)
    close(pointwise.pointwise_forward(maps[0], w).reshape(rows, filters), x @ w, ORACLE, "y")
    dx, dw = pointwise.pointwise_backward(maps[1], maps[0], w)
    close(dx.reshape(rows, channels), dy @ w.T, ORACLE, "dx")
    close(dw, x.T @ dy, ORACLE, "dw")


@needs_float32
@each_cut
def test_float32(rows, channels, filters):
    x, w, folded, skip = given(rows, channels, filters, "float32")
    want = x.astype(float) @ w * folded[0] + folded[1] + skip
    close(run(x, w, folded, IDENTITY, skip), want, TORCH["float32"], "y")


@pytest.mark.skipif(CHECKING or numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
@each_cut
def test_same_bits_from_two_threads(rows, channels, filters):
    x, w, folded, skip = given(rows, channels, filters, "float32")
    two = run(x, w, folded, RELU6, skip)
    numba.set_num_threads(1)
    try:
        one = run(x, w, folded, RELU6, skip)
    finally:
        numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert one.tobytes() == two.tobytes()


def test_blocks_are_near_equal():
    block = product.block.py_func
    assert [block(size, 128, 16) for size in (1, 128, 129, 320, 960, 1024)] == [1, 128, 80, 112, 128, 128]
    assert [block(size, 128, 64) for size in (24, 128, 144, 160, 576)] == [24, 128, 128, 128, 128]
    assert block(49, 61, 4) == 49 and block(98, 61, 4) == 52
