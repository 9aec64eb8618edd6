"""What training does to whole vectors beside the optimiser's step: the gradient's length, clipping, averages.

(1)  norm(g) = √ Σ gᵢ²                          in float64 whatever the dtype of g
(2)  g = g · min(1, limit / (norm(g) + 1e-6))   clipping (Pascanu et al. 2013), PyTorch's guard against 0/0
(3)  a = α·a + (1 − α)·w                        moving average of the weights (Polyak and Juditsky 1992);
                                                the V3 paper reports the accuracy of such an average
(4)  a = a + x                                  gradient accumulation: the sum over the parts of a batch

The sum of (1) is cut into PARTS stretches that are added in index order: its bits do not depend on the
threads. TensorFlow clips with limit / max(norm, limit), which is (2) without the 1e-6.

Shapes: all (n,), float32 or float64. Raises ValueError for other shapes and dtypes.
"""

from math import sqrt

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._jit import kernel, row
from numnet.kernels.rows import add, share
from numnet.kernels.sgd import CHUNK, own

PARTS = 8


@kernel(reassoc=True)  # a sum in index order cannot use the vector unit
def _squares(g):
    parts = np.zeros(PARTS)
    for part in prange(PARTS):  # each part writes its own sum
        lo, hi = share(part, PARTS, g.size)
        stretch, total = g[lo:hi], 0.0
        for i in range(stretch.size):
            gi = np.float64(stretch[i])
            total += gi * gi
        parts[part] = total
    return parts


def norm(g) -> float:
    """Equation (1)."""
    g = _check.tensor("g", g, (None,))
    total = 0.0
    for part in _squares(g):
        total += part
    return sqrt(total)


@row
def scale_stretch(g, factor):
    """g = factor · g."""
    for i in range(g.size):
        g[i] *= factor


@row
def average_stretch(a, w, alpha):
    """Equation (3)."""
    one = a.dtype.type(1)
    for i in range(a.size):
        a[i] = alpha * a[i] + (one - alpha) * w[i]


@kernel
def _scale(g, factor):
    for chunk in prange((g.size + CHUNK - 1) // CHUNK):  # each chunk writes its own stretch
        scale_stretch(g[chunk * CHUNK : (chunk + 1) * CHUNK], factor)


@kernel
def _average(a, w, alpha):
    for chunk in prange((a.size + CHUNK - 1) // CHUNK):  # each chunk writes its own stretch of a
        lo, hi = chunk * CHUNK, min((chunk + 1) * CHUNK, a.size)
        average_stretch(a[lo:hi], w[lo:hi], alpha)


@kernel
def _add(a, x):
    for chunk in prange((a.size + CHUNK - 1) // CHUNK):  # each chunk writes its own stretch of a
        lo, hi = chunk * CHUNK, min((chunk + 1) * CHUNK, a.size)
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
