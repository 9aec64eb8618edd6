"""The linear kernels on numbers that are huge, denormal or not numbers at all.

Multiplying by a power of two changes no bit of a mantissa. So a kernel of x·2ⁿ must be its result for x,
times 2ⁿ, bit for bit, as long as nothing overflows; small integers times the least denormal, likewise.
"""

import numpy as np
import oracle
import pytest
from kernel_shapes import both_dtypes, draw

from numnet import kernels

SHAPES = {  # x, w, dy, options
    "conv": ((2, 6, 7, 3), (3, 3, 3, 5), (2, 3, 4, 5), {"stride": 2}),
    "depthwise": ((2, 6, 7, 3), (3, 3, 3, 2), (2, 3, 4, 6), {"stride": 2}),
    "pointwise": ((2, 6, 7, 3), (3, 5), (2, 6, 7, 5), {}),
    "dense": ((6, 7), (7, 5), (6, 5), {}),
}
each_kernel = pytest.mark.parametrize("name", SHAPES)


def run(name, x, w, dy):
    """y, dx, dw."""
    options = SHAPES[name][3]
    y = getattr(kernels, name + "_forward")(x, w, **options)
    return y, *getattr(kernels, name + "_backward")(dy, x, w, **options)[:2]


@both_dtypes
@each_kernel
def test_huge_numbers(name, dtype):
    x, w, dy = draw(*SHAPES[name][:3], dtype=dtype)
    scale = np.array(2.0 ** {"float64": 1000, "float32": 110}[dtype], dtype)
    y, dx, dw = run(name, x, w, dy)
    assert (run(name, x * scale, w, dy)[0] == y * scale).all()
    assert (run(name, x * scale, w, dy)[2] == dw * scale).all()
    assert (run(name, x, w, dy * scale)[1] == dx * scale).all()
    assert np.isfinite(dx * scale).all() and (dx * scale != 0).any()


@both_dtypes
@each_kernel
def test_denormal_numbers(name, dtype):
    rng = np.random.default_rng(0)
    x, w, dy = (rng.integers(-3, 4, shape).astype(dtype) for shape in SHAPES[name][:3])
    tiny = np.finfo(dtype).smallest_subnormal
    y, dx, dw = run(name, x, w, dy)
    assert (run(name, x * tiny, w, dy)[0] == y * tiny).all()
    assert (run(name, x * tiny, w, dy)[2] == dw * tiny).all()
    assert (run(name, x, w, dy * tiny)[1] == dx * tiny).all()
    assert (dx * tiny != 0).any()


@both_dtypes
def test_pools_of_huge_and_denormal_numbers(dtype):
    (x,) = draw((2, 4, 4, 3), dtype=dtype)
    huge = np.array(2.0 ** {"float64": 1000, "float32": 110}[dtype], dtype)
    average = kernels.global_average_forward
    assert (average(x * huge) == average(x) * huge).all()
    whole = 16 * np.round(8 * x)  # a mean of sixteen multiples of sixteen is whole
    tiny = np.finfo(dtype).smallest_subnormal
    assert (average(whole * tiny) == average(whole) * tiny).all()
    y, where = kernels.max_forward(whole * tiny, 2)
    assert (y == kernels.max_forward(whole, 2)[0] * tiny).all()
    assert (where == kernels.max_forward(whole, 2)[1]).all()


@each_kernel
def test_nan_reaches_whatever_reads_it_and_nothing_else(name):
    x, w, dy = draw(*SHAPES[name][:3])
    at = (1, 3, 2, 1)[: x.ndim]
    x[at] = np.nan
    options = (
        {"padding": oracle.resolve("same", x.shape[1:3], 3, 2), **SHAPES[name][3]} if w.ndim == 4 else {}
    )
    reference = oracle.pointwise if name == "dense" else getattr(oracle, name)
    y, _, dw = run(name, x, w, dy)
    seen = np.isnan(reference(x, w, **options))
    assert (np.isnan(y) == seen).all()
    assert seen.any() and not seen.all()
    channel = np.zeros(w.shape, bool)
    channel[(slice(None),) * (w.ndim - 2) + (at[-1],)] = True
    assert not np.isnan(dw[~channel]).any() and np.isnan(dw[channel]).any()
    dy[(1, 2, 2, 1)[: dy.ndim]] = np.nan
    dx = run(name, draw(x.shape)[0], w, dy)[1]
    back = getattr(oracle, name + "_backward")
    assert (np.isnan(dx) == np.isnan(back(dy, draw(x.shape)[0], w, **options)[0])).all()
