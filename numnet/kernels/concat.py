"""Concatenation: maps of the same size laid side by side along the channels; the end of each of GoogLeNet's modules.

(1)  y[r, before_b + c] = a_b[r, c]              before_b = C_0 + … + C_{b−1}      (Szegedy et al. 2015, figure 2)
(2)  da_b[r, c] = dy[r, before_b + c]

In NHWC the C_b numbers of a pixel stay together, so both are copies of C_b numbers a pixel. A raw map is normalised and
activated on the way (batchnorm's equations 2 and 3). No arithmetic of its own.
"""

import numpy as np
from numba import prange

from numnet.kernels._cost import Cost
from numnet.kernels._jit import kernel
from numnet.kernels.batchnorm import TILE, normalise_activate
from numnet.kernels.rows import copy


@kernel
def _put(source, before, y):
    """(1) for one map: source.raw (R, C_b), finished or raw; y (R, C)."""
    x = source.raw
    rows, channels = x.shape
    step = max(1, TILE // channels)
    for tile in prange((rows + step - 1) // step):  # each tile writes its own pixels of y
        lo, hi = tile * step, min((tile + 1) * step, rows)
        finished = np.empty((hi - lo if source.pack.size else 0, channels), x.dtype)
        a = x[lo:hi]
        if source.pack.size:
            normalise_activate(a.reshape(-1), source, finished.reshape(-1))
            a = finished
        for r in range(hi - lo):
            copy(a[r], y[lo + r, before : before + channels])


@kernel
def _take(dy, before, dx):
    """(2) for one map: dy (R, C), dx (R, C_b)."""
    rows, channels = dx.shape
    step = max(1, TILE // channels)
    for tile in prange((rows + step - 1) // step):  # each tile writes its own pixels of dx
        for r in range(tile * step, min((tile + 1) * step, rows)):
            copy(dy[r, before : before + channels], dx[r])


def unit_forward(source, before, y):
    """finished(x) (…, C_b) into the channels of y (…, C) from number ``before`` on. No checks."""
    x = source.raw
    rows = x.size // x.shape[-1]
    _put(source._replace(raw=x.reshape(rows, x.shape[-1])), before, y.reshape(rows, y.shape[-1]))


def unit_backward(dy, before, dx):
    """dx (…, C_b) from the channels of dy (…, C) from number ``before`` on. No checks."""
    rows = dx.size // dx.shape[-1]
    _take(dy.reshape(rows, dy.shape[-1]), before, dx.reshape(rows, dx.shape[-1]))


def concat_cost(n: int, h: int, w: int, c: int) -> Cost:
    """No arithmetic: N·H·W·C numbers are copied."""
    return Cost(inputs=n * h * w * c, outputs=n * h * w * c)
