"""Global average, global maximum and windowed maximum, with ties and NaN."""

import numpy as np
import oracle
import pytest
from kernel_shapes import DIFFERENCES, ORACLE, TORCH, both_dtypes, close, differences, dot_product_test, draw

from numnet.kernels import (
    global_average_backward,
    global_average_forward,
    global_max_backward,
    global_max_forward,
    max_backward,
    max_forward,
)
from numnet.kernels.pooling import definition_maximum, pooling_cost

MAPS = [(1, 1, 1, 1), (2, 1, 1, 1024), (2, 5, 7, 3), (3, 7, 7, 130), (11, 2, 3, 5), (1, 17, 31, 257)]
each_map = pytest.mark.parametrize("shape", MAPS, ids=str)

WINDOWS = [  # x, kernel side, stride, padding
    ((1, 1, 1, 1), 1, 1, 0),
    ((2, 5, 7, 3), 2, 2, 0),  # the last column is read by no window
    ((2, 6, 5, 4), 3, 1, "same"),  # an inception block's
    ((2, 6, 5, 4), 3, 2, "same"),
    ((2, 6, 5, 4), 3, 2, "symmetric"),
    ((2, 8, 7, 3), 3, 2, ((0, 1), (0, 1))),  # one end only: GoogLeNet's rounding up
    ((1, 7, 9, 2), 5, 3, 2),
    ((2, 4, 4, 5), 2, 3, 0),  # stride > kernel
    ((1, 2, 3, 1024), 3, 2, 1),
    ((11, 3, 3, 2), 3, 3, 1),
    ((1, 3, 3, 4), 3, 1, ((2, 2), (2, 1))),  # corners see one pixel
    ((2, 6, 6, 3), 7, 1, 3),
]
each_window = pytest.mark.parametrize("shape, side, stride, padding", WINDOWS, ids=str)


@each_map
def test_global_pools_against_the_oracle(shape):
    x, dy = draw(shape, (shape[0], shape[3]))
    close(global_average_forward(x), oracle.global_average_pool(x), ORACLE, "average")
    dx = global_average_backward(dy, shape)
    close(dx, oracle.global_average_pool_backward(dy, shape), ORACLE, "dx of the average")
    y, where = global_max_forward(x)
    assert (y == oracle.global_max_pool(x)).all()
    assert (global_max_backward(dy, where, shape) == oracle.global_max_pool_backward(dy, x)).all()


@each_window
def test_max_against_the_oracle(shape, side, stride, padding):
    (x,) = draw(shape)
    pads = oracle.resolve(padding, shape[1:3], side, stride)
    y, where = max_forward(x, side, stride, padding)
    want = oracle.max_pool(x, side, stride, pads)
    assert y.shape == want.shape and (y == want).all()
    (dy,) = draw(y.shape, seed=1)
    close(max_backward(dy, where, shape), oracle.max_pool_backward(dy, x, side, stride, pads), ORACLE)
    assert where.dtype == np.int32


@each_window
def test_of_equal_numbers_the_first_wins(shape, side, stride, padding):
    """Few values, so that nearly every window has a tie: all of dy goes to the first in row-major order."""
    x = np.random.default_rng(0).integers(0, 3, shape).astype(float)
    pads = oracle.resolve(padding, shape[1:3], side, stride)
    y, where = max_forward(x, side, stride, padding)
    (dy,) = draw(y.shape)
    close(max_backward(dy, where, shape), oracle.max_pool_backward(dy, x, side, stride, pads), ORACLE)
    (dy,) = draw((shape[0], shape[3]))
    _, where = global_max_forward(x)
    assert (global_max_backward(dy, where, shape) == oracle.global_max_pool_backward(dy, x)).all()


@both_dtypes
@pytest.mark.parametrize("ties", [False, True], ids=["", "ties"])
@each_window
def test_max_against_pytorch(shape, side, stride, padding, ties, dtype, torch):
    (x,) = draw(shape, dtype=dtype)
    x = np.round(x) if ties else x
    (top, bottom), (left, right) = oracle.resolve(padding, shape[1:3], side, stride)
    tx = torch.tensor(x, requires_grad=True)
    padded = torch.nn.functional.pad(tx.permute(0, 3, 1, 2), (left, right, top, bottom), value=-np.inf)
    ty = torch.nn.functional.max_pool2d(padded, side, stride)
    y, where = max_forward(x, side, stride, padding)
    (dy,) = draw(y.shape, dtype=dtype, seed=1)
    ty.backward(torch.tensor(dy).permute(0, 3, 1, 2))
    dx = max_backward(dy, where, shape)
    assert y.dtype == dx.dtype == dtype
    assert (y == ty.detach().permute(0, 2, 3, 1).numpy()).all()
    close(dx, tx.grad.numpy(), TORCH[dtype])


@both_dtypes
@each_map
def test_global_average_against_pytorch(shape, dtype, torch):
    x, dy = draw(shape, (shape[0], shape[3]), dtype=dtype)
    tx = torch.tensor(x, requires_grad=True)
    ty = tx.mean(dim=(1, 2))
    ty.backward(torch.tensor(dy))
    y, dx = global_average_forward(x), global_average_backward(dy, shape)
    assert y.dtype == dx.dtype == dtype
    close(y, ty.detach().numpy(), TORCH[dtype], "y")
    close(dx, tx.grad.numpy(), TORCH[dtype], "dx")


def test_against_finite_differences():
    shape = (2, 3, 4, 2)
    x, dy = draw(shape, (2, 2))
    dx = global_average_backward(dy, shape)
    close(dx, differences(lambda: np.vdot(dy, global_average_forward(x)), x, 1e-2), DIFFERENCES)
    _, where = global_max_forward(x)
    dx = global_max_backward(dy, where, shape)
    close(dx, differences(lambda: np.vdot(dy, global_max_forward(x)[0]), x), DIFFERENCES)
    y, where = max_forward(x, 3, 2, 1)
    (dy,) = draw(y.shape)
    dx = max_backward(dy, where, shape)
    close(dx, differences(lambda: np.vdot(dy, max_forward(x, 3, 2, 1)[0]), x), DIFFERENCES)


@pytest.mark.parametrize("shape", [(8, 7, 7, 1024), (2, 112, 112, 64), (3, 28, 28, 192)], ids=str)
def test_dot_product_at_real_layer_sizes(shape):
    """The average is linear in x; the maximum is, as long as the winners stay: y = Σ of the winners."""
    x, dy = draw(shape, (shape[0], shape[3]))
    dot_product_test(dy, global_average_forward(x), (global_average_backward(dy, shape), x))
    y, where = global_max_forward(x)
    dot_product_test(dy, y, (global_max_backward(dy, where, shape), x))
    y, where = max_forward(x, 3, 2, "symmetric")
    (dy,) = draw(y.shape)
    dot_product_test(dy, y, (max_backward(dy, where, shape), x))


def test_nan_wins_and_minus_infinity_may_win():
    x = np.full((1, 4, 4, 2), -np.inf)
    x[0, 1, 2, 0] = np.nan
    x[0, 3, 3, 0] = 7
    y, where = max_forward(x, 2)
    assert np.array_equal(y[0, ..., 0], [[-np.inf, np.nan], [-np.inf, 7]], equal_nan=True)
    assert (y[..., 1] == -np.inf).all()
    assert where[0, ..., 0].tolist() == [[0, 6], [8, 15]]  # pixel h·W + w
    y, where = global_max_forward(x)
    assert np.isnan(y[0, 0]) and where[0].tolist() == [6, 0]
    assert np.isnan(global_average_forward(np.where(np.isinf(x), 0, x))).tolist() == [[True, False]]


def test_of_two_nans_the_first_stays():
    x = np.array([1, np.nan, 3, np.nan]).reshape(1, 2, 2, 1)
    _, where = global_max_forward(x)
    assert where.item() == 1
    assert global_max_backward(np.array([[2.5]]), where, x.shape).ravel().tolist() == [0, 2.5, 0, 0]


def test_the_window_may_not_lie_in_the_padding():
    with pytest.raises(ValueError, match="padding: expected less than the kernel side 2"):
        max_forward(np.ones((1, 4, 4, 1)), 2, 1, 2)
    with pytest.raises(ValueError, match="padding: expected less than the kernel side 2"):
        definition_maximum(np.zeros((1, 4, 4, 1)), 2, padding=2)


def test_a_map_without_pixels():
    for pool in (global_average_forward, global_max_forward, lambda x: max_forward(x, 1)):
        with pytest.raises(ValueError, match="x: a map of 0×3 pixels"):
            pool(np.empty((2, 0, 3, 4)))


def test_the_winners_are_checked():
    """Numba checks no index: a winner from elsewhere would write into foreign memory."""
    y, where = max_forward(np.ones((1, 4, 4, 2)), 2)
    for shape in ((1, 1, 2, 2), (1, 0, 0, 2)):
        with pytest.raises(ValueError, match="where: expected pixels 0 to"):
            max_backward(y, where, shape)
    with pytest.raises(ValueError, match="where: expected pixels 0 to 15"):
        max_backward(y, where - 1, (1, 4, 4, 2))
    with pytest.raises(ValueError, match=r"where|dy"):
        max_backward(y, where, (2, 4, 4, 2))
    with pytest.raises(ValueError, match=r"where|dy"):
        max_backward(y, where, (1, 4, 4, 1))
    with pytest.raises(ValueError, match="dy: expected shape"):
        max_backward(y[:, :1].copy(), where, (1, 4, 4, 2))


def test_an_empty_batch():
    x = np.empty((0, 4, 6, 3))
    assert global_average_forward(x).shape == (0, 3)
    assert global_average_backward(np.empty((0, 3)), x.shape).shape == x.shape
    y, where = global_max_forward(x)
    assert y.shape == where.shape == (0, 3)
    assert global_max_backward(y, where, x.shape).shape == x.shape
    y, where = max_forward(x, 2)
    assert y.shape == where.shape == (0, 2, 3, 3)
    assert max_backward(y, where, x.shape).shape == x.shape


def test_cost():
    cost = pooling_cost(2, 3, 4, 5)
    assert (cost.macs, cost.elementwise, cost.inputs, cost.outputs) == (0, 120, 120, 10)
    assert pooling_cost(2, 3, 4, 5, 2, 2).outputs == 40
