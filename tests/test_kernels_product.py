"""The product: training's and inference's, cut by pixels or by filters; every cut gives the same numbers."""

import numba
import numpy as np
import pytest
from kernel_shapes import (
    CHECKING,
    ORACLE,
    TORCH,
    both_dtypes,
    close,
    draw,
    folded,
    needs_float32,
    product_ends,
)

from numnet.kernels import dense, pointwise, product
from numnet.kernels.activations import IDENTITY, RELU6
from numnet.kernels.product import ROWS, VECTORS

CUTS = [
    (1, 1, 1),
    (3, 5, 7),
    (1, 257, 1003),  # a dense layer for one image: tiles of filters
    (49, 200, 200),  # a 7×7 map: tiles of filters, and rows that the tile of registers does not divide
    (97, 24, 144),  # two tiles of pixels
    (300, 24, 7),  # thin: one panel, and another of one vector that overlaps it
    (260, 515, 257),  # tiles along all three
]
each_cut = pytest.mark.parametrize("rows, channels, filters", CUTS)


def given(rows, channels, filters, dtype="float64"):
    return draw((rows, channels), (channels, filters), (2, filters), (rows, filters), dtype=dtype)


def run(x, w, norm, code, skip, way=pointwise):
    y = np.full((len(x), w.shape[1]), np.nan, x.dtype)
    product_ends(x, folded(w, norm[1], norm[0]), code, skip, y, way)
    return y


@each_cut
def test_against_the_oracle(rows, channels, filters):
    x, w, norm, skip = given(rows, channels, filters)
    want = np.clip(x @ w * norm[0] + norm[1], 0, 6)
    for way in (pointwise, dense) if rows < 50 else (pointwise,):
        close(run(x, w, norm, RELU6, np.empty((0, 0)), way), want, ORACLE, "y")
        close(run(x, w, norm, RELU6, skip, way), want + skip, ORACLE, "y and skip")


@each_cut
def test_gradients(rows, channels, filters):
    """Training's products: y, dx and dw."""
    x, w, _, dy = given(rows, channels, filters)
    maps = x.reshape(1, 1, rows, channels), dy.reshape(1, 1, rows, filters)
    close(pointwise.pointwise_forward(maps[0], w).reshape(rows, filters), x @ w, ORACLE, "y")
    dx, dw = pointwise.pointwise_backward(maps[1], maps[0], w)
    close(dx.reshape(rows, channels), dy @ w.T, ORACLE, "dx")
    close(dw, x.T @ dy, ORACLE, "dw")


@needs_float32
@each_cut
def test_float32(rows, channels, filters):
    x, w, norm, skip = given(rows, channels, filters, "float32")
    want = x.astype(float) @ w * norm[0] + norm[1] + skip
    close(run(x, w, norm, IDENTITY, skip), want, TORCH["float32"], "y")


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


@both_dtypes
@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
@each_cut
def test_whole_matrices(rows, channels, filters, turned, dtype):
    x, w = draw((rows, channels), (filters, channels) if turned else (channels, filters), dtype=dtype)
    y = product.product(x, w, turned)
    bound = {"float64": ORACLE, "float32": TORCH["float32"]}[dtype]
    close(y, x.astype(float) @ (w.T if turned else w).astype(float), bound)
    assert y.dtype == dtype


def test_a_product_of_nothing():
    assert product.product(np.empty((0, 3)), np.ones((3, 2))).shape == (0, 2)
    assert (product.product(np.empty((4, 0)), np.empty((0, 2))) == np.zeros((4, 2))).all()
    with pytest.raises(ValueError, match="w: expected shape"):
        product.product(np.ones((2, 3)), np.ones((2, 3)))


def test_a_tile_is_cut_so_that_two_cores_have_work():
    """Pixels of a tile and shares of the filters, for lanes of 8: tiles of pixels where there are many, of filters else."""

    def tiles(rows, channels, filters):
        step, shares = pointwise.inference_cut(rows, channels, filters, 8)
        assert (step % ROWS == 0 or step >= rows) and 1 <= shares <= max(filters // (8 * VECTORS), 1)
        return -(-rows // step) * shares

    assert tiles(16 * 112 * 112, 32, 64) >= 8 and tiles(16 * 7 * 7, 1024, 1024) >= 8
    assert tiles(49, 1024, 1024) >= 8 and tiles(1, 1024, 1000) >= 8
    assert tiles(1, 5, 7) == 1
