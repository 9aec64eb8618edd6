"""eˣ: its error in units of the last place, its limits, and the same bits whatever the lanes."""

import numpy as np
import pytest
from kernel_shapes import DTYPES

from numnet.kernels._jit import kernel
from numnet.kernels.exponential import exp
from numnet.kernels.vectors import lanes_of, load, store, width

LIMITS = {"float32": (-87.3, 88.37), "float64": (-708.3, 709.43)}
ERROR = {"float32": 0.94, "float64": 0.88}  # as the page says
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)
wider = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant <= 52, reason="nothing here is more exact than float64"
)


@kernel(parallel=False)
def exponentials(x, y, v):
    for i in range(0, x.size, width(v)):
        store(y, i, exp(load(x, i, v)))


def exp_of(x, n=8):
    x = np.asarray(x)
    filled = np.concatenate([x, np.zeros(-x.size % n, x.dtype)])
    y = np.empty_like(filled)
    exponentials(filled, y, lanes_of(n))
    return y[: x.size]


@wider
@both_dtypes
@pytest.mark.parametrize("low, high", [(None, None), (-1, 1), (-20, 0)])
def test_error_in_units_of_the_last_place(dtype, low, high):
    """A third of a million numbers each: over the whole range, around 0, and where softmax lives."""
    low, high = LIMITS[dtype] if low is None else (low, high)
    x = np.random.default_rng(0).uniform(low, high, 333_336).astype(dtype)
    want = np.exp(x.astype(np.longdouble))
    units = np.abs(exp_of(x) - want) / np.spacing(want.astype(dtype))
    assert units.max() <= ERROR[dtype]


@both_dtypes
def test_the_limits(dtype):
    number = np.dtype(dtype).type
    low, high = (number(limit) for limit in LIMITS[dtype])
    inside = exp_of(np.array([low, high], dtype))
    np.testing.assert_allclose(inside, np.exp([low, high]), rtol=2 * np.finfo(dtype).eps)
    beyond = np.array(
        [np.nextafter(low, number(-np.inf)), np.nextafter(high, number(np.inf)), -np.inf, np.inf], dtype
    )
    assert exp_of(beyond).tolist() == [0, np.inf, 0, np.inf]
    huge = np.array([-np.finfo(dtype).max, np.finfo(dtype).max], dtype)
    assert exp_of(huge).tolist() == [0, np.inf]
    assert np.finfo(dtype).max / np.exp(np.longdouble(high)) < 1.5  # infinite hardly before it must be
    assert inside[0] >= np.finfo(dtype).tiny


@both_dtypes
def test_exact_points_and_nan(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    assert exp_of(np.array([0.0, -0.0, tiny, -tiny], dtype)).tolist() == [1] * 4
    got = exp_of(np.array([np.nan, 1, -np.nan, 1], dtype))
    assert np.isnan(got[[0, 2]]).all() and np.isfinite(got[[1, 3]]).all()


@both_dtypes
def test_it_grows(dtype):
    x = np.sort(np.random.default_rng(1).uniform(*LIMITS[dtype], 100_000).astype(dtype))
    assert (np.diff(exp_of(x)) >= 0).all()


@both_dtypes
def test_the_same_bits_for_all_lanes(dtype):
    x = np.random.default_rng(2).uniform(*LIMITS[dtype], 4096).astype(dtype)
    assert len({exp_of(x, n).tobytes() for n in (1, 2, 4, 8, 16)}) == 1
