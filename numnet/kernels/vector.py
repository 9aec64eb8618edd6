"""What training does to whole vectors beside the optimiser's step: the gradient's length, clipping, averages.

(1)  norm(g) = √ Σ gᵢ²                          in float64 whatever the dtype of g
(2)  g = g · min(1, limit / (norm(g) + 1e-6))   clipping (Pascanu et al. 2013), PyTorch's guard against 0/0
(3)  a = α·a + (1 − α)·w                        moving average of the weights (Polyak and Juditsky 1992);
                                                the V3 paper reports the accuracy of such an average
(4)  a = a + x                                  gradient accumulation: the sum over the parts of a batch

The sum of (1) is cut into PARTS that are added in index order, and each part's sum into COLUMNS: number i is added to
column i mod 16, so that a register has work in all its lanes, and the columns are added in order at the end. With 4, 8 or
16 lanes these are the same sums: the bits depend neither on the threads nor on the processor. TensorFlow clips with
limit / max(norm, limit), which is (2) without the 1e-6.

Shapes: all (n,), float32 or float64. Raises ValueError for other shapes and dtypes.
"""

from math import sqrt

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._jit import kernel, row
from numnet.kernels.maps import PARTS, share
from numnet.kernels.rows import add
from numnet.kernels.sgd import TILE, own
from numnet.kernels.vectors import double, fma, lanes_of, load, spread, store, width

COLUMNS = lanes_of(16)  # on every processor; LLVM makes two, four or eight registers of them


@row
def sum_of_squares(g, columns):
    """Σ gᵢ² in float64."""
    total, n = spread(0.0, columns), width(columns)
    whole = g.size // n * n
    for i in range(0, whole, n):
        x = double(load(g, i, columns))
        total = fma(x, x, total)
    sums = np.empty(n)
    store(sums, 0, total)
    for i in range(whole, g.size):
        sums[i - whole] += np.float64(g[i]) * np.float64(g[i])
    for i in range(1, n):
        sums[0] += sums[i]
    return sums[0]


@kernel
def _squares(g, columns):
    parts = np.zeros(PARTS)
    for part in prange(PARTS):  # each part writes its own sum
        lo, hi = share(part, PARTS, g.size)
        parts[part] = sum_of_squares(g[lo:hi], columns)
    return parts


def norm(g) -> float:
    """Equation (1)."""
    g = _check.tensor("g", g, (None,))
    total = 0.0
    for part in _squares(g, COLUMNS):
        total += part
    return sqrt(total)


@row
def scale(g, factor):
    """g = factor · g."""
    for i in range(g.size):
        g[i] *= factor


@row
def average_row(a, w, alpha):
    """Equation (3)."""
    one = a.dtype.type(1)
    for i in range(a.size):
        a[i] = alpha * a[i] + (one - alpha) * w[i]


@kernel
def _scale(g, factor):
    for tile in prange((g.size + TILE - 1) // TILE):  # each tile writes its own numbers
        scale(g[tile * TILE : (tile + 1) * TILE], factor)


@kernel
def _average(a, w, alpha):
    for tile in prange((a.size + TILE - 1) // TILE):  # each tile writes its own numbers of a
        lo, hi = tile * TILE, min((tile + 1) * TILE, a.size)
        average_row(a[lo:hi], w[lo:hi], alpha)


@kernel
def _add(a, x):
    for tile in prange((a.size + TILE - 1) // TILE):  # each tile writes its own numbers of a
        lo, hi = tile * TILE, min((tile + 1) * TILE, a.size)
        add(a[lo:hi], x[lo:hi])


def clip(g, limit: float) -> float:
    """Equation (2): shortens ``g`` to length ``limit`` if it is longer; returns the length it had."""
    own("g", g)
    length = norm(g)
    factor = limit / (length + 1e-6)
    if factor < 1.0:
        _scale(g, g.dtype.type(factor))
    return length


def average(a, w, alpha: float) -> None:
    """Equation (3). Changes ``a``."""
    w = _check.tensor("w", w, (None,))
    _check.apart(own("a", a, w.shape, w.dtype), w=w)
    _average(a, w, w.dtype.type(alpha))


def accumulate(a, x) -> None:
    """Equation (4). Changes ``a``."""
    x = _check.tensor("x", x, (None,))
    _check.apart(own("a", a, x.shape, x.dtype), x=x)
    _add(a, x)
