"""Dropout: in training each number is 0 with probability p, and the others are scaled up to keep the mean.

(1)  y[i] = x[i] · m[i] / (1 − p),   m[i] = 1 if uniform(seed, DROPOUT, step, i) ≥ p, else 0
(2)  dx[i] = dy[i] · m[i] / (1 − p)

(Srivastava et al. 2014, in the inverted form that all frameworks use: inference does nothing.) The mask is never
stored: it is a function of (seed, step, i), so backward asks the same question again and gets the same answer, and so
does a resumed run, or one with another number of threads. i counts from ``first``, so that one rank of several can
draw its own share of the batch's mask.
"""

import operator

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._cost import Cost
from numnet.kernels._jit import kernel
from numnet.kernels.random import DROPOUT, uniform

TILE = 4096  # numbers a tile holds


@kernel
def _apply(x, rate, seed, step, first, y):
    """Equations (1) and (2) are the same function."""
    keep = x.dtype.type(1 / (1 - rate))
    for tile in prange((x.size + TILE - 1) // TILE):  # each tile writes its own numbers of y
        for i in range(tile * TILE, min((tile + 1) * TILE, x.size)):
            y[i] = x[i] * keep if uniform(seed, DROPOUT, step, first + i) >= rate else 0


def dropout_forward(x, rate, seed, step, first=0, out=None):
    """y, the shape of x, by equation (1), for 0 ≤ rate < 1. Raises ValueError for any other rate or a wrong dtype."""
    return _checked("x", x, rate, seed, step, first, out)


def dropout_backward(dy, rate, seed, step, first=0, out=None):
    """dx by equation (2), for the rate, seed and step that forward had. Raises like forward."""
    return _checked("dy", dy, rate, seed, step, first, out)


def _checked(name, x, rate, seed, step, first, out):
    x = _check.tensor(name, x, getattr(x, "shape", ()))
    if not 0 <= rate < 1:
        raise ValueError(f"rate: expected 0 ≤ rate < 1, got {rate!r}")
    if out is not x:  # number by number: in place is allowed, overlapping is not
        out = _check.output("out", out, x.shape, x.dtype)
        _check.apart(out, **{name: x})
    key = (operator.index(seed), operator.index(step), operator.index(first))
    with np.errstate(over="ignore"):  # only matters as plain Python; compiled integers wrap silently
        _apply(x.reshape(-1), float(rate), *key, out.reshape(-1))
    return out


def dropout_cost(n: int, c: int) -> Cost:
    """No MACs: N·C numbers kept or dropped."""
    return Cost(elementwise=n * c, inputs=n * c, outputs=n * c)
