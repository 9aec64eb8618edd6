"""Fake quantisation: training sees the numbers that eight bits will leave, and its gradients pass as if nothing were rounded.

A net in eight bits computes on grids (page ``eight_bits``). To train for it, every map is put on its grid while it is still
made of floats. v is what a step computed, b its bias, s and z the grid's scale and zero point, low … high the places that
its activation leaves (0 … 255, fewer for relu and relu6):

(1)  n = ⌊v / s + ½⌋,   v = x + b            the nearest place, counted from that of 0; halves go up
(2)  y = s · clip(n, low − z, high − z)      the real number of that place

y is a staircase of v. Its slope is 0 on every step, so a true gradient says nothing. The straight-through rule takes the
staircase for the line that it follows, slope 1, and keeps what is real about it, its two ends:

(3)  dv = dy where low − z ≤ n ≤ high − z, else 0
(4)  dx = dv,   db = Σ dv over all pixels

The scale is learned, too. With n as it is, y = s · n has the slope n in s; but n is about v / s, whose slope is −v / s².
The rule (3) for the rounding, dn = d(v/s), makes of both:

(5)  ∂y/∂s = n − v / s    inside: the error of rounding, in steps
             low − z      below, and  high − z  above: the end of the grid moves with s
             0            at an end that an activation makes: relu's 0 and relu6's 6 stay where they are

So a scale grows where cut numbers want to get out, and shrinks where rounding errors hurt. Jacob et al. 2018 (section 3)
train with (1) to (4) and running ranges; (5) is in Esser et al. 2020, "Learned Step Size Quantization", and Jain et al. 2020,
"Trained Quantization Thresholds"; Krishnamoorthi 2018 and Nagel et al. 2021 explain the whole way.

Weights need no page: they are put on their grids once a step, by ``quantise_weights``, and for them (3) says dw = dŵ, since
the largest weight of a filter is its last place and none lies outside.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._cost import Cost
from numnet.kernels._jit import kernel
from numnet.kernels.eight_bits import HIGHEST, LOWEST, Grid

ROWS = 512  # pixels of a part


class Ends(NamedTuple):
    """A grid as (1) to (5) take it: scale, the lowest and highest n, and what these are worth in (5)."""

    scale: float
    lowest: float
    highest: float
    below: float
    above: float


def ends_of(grid: Grid, low=LOWEST, high=HIGHEST) -> Ends:
    """``Ends`` of a grid of which an activation leaves the places low … high."""
    lowest, highest = float(low - grid.zero), float(high - grid.zero)
    below, above = lowest * (low == LOWEST), highest * (high == HIGHEST)
    return Ends(float(grid.scale), lowest, highest, below, above)


# ---------------------------------------------------------------------------------------------- the definition


def definition(x, bias, ends):
    """y (pixels, C) by (1) and (2), of x (pixels, C) and bias (C,), all at once. Raises like ``fake_forward``."""
    x, bias = _arguments(x, bias)
    n = np.floor((x + bias) / x.dtype.type(ends.scale) + x.dtype.type(0.5))
    return np.clip(n, ends.lowest, ends.highest) * x.dtype.type(ends.scale)


def definition_backward(dy, x, bias, ends):
    """dx (pixels, C), db (C,) and ds by (3) to (5). Raises like ``fake_forward``."""
    x, bias = _arguments(x, bias)
    dy = _check.tensor("dy", dy, x.shape, x.dtype)
    t = (x + bias) / x.dtype.type(ends.scale)
    n = np.floor(t + x.dtype.type(0.5))
    inside = (ends.lowest <= n) & (n <= ends.highest)
    dx = np.where(inside, dy, 0)  # (3)
    slope = np.where(inside, n - t, np.where(n < ends.lowest, ends.below, ends.above))  # (5)
    return dx, dx.sum(axis=0, dtype=np.float64), (dy.astype(np.float64) * slope).sum()


# ---------------------------------------------------------------------------------------------- passes

# Plain loops: all numbers are independent, and the compiler makes vectors of them. (4) and (5) are summed in float64, channel
# by channel, and in parts of ROWS pixels that are added in their order: the same bits for any number of threads.


@kernel
def _forward(x, bias, scale, lowest, highest, y):
    half = y.dtype.type(0.5)
    for part in prange((len(x) + ROWS - 1) // ROWS):  # each part writes its own pixels of y
        for i in range(part * ROWS, min((part + 1) * ROWS, len(x))):
            for c in range(x.shape[1]):
                n = np.floor((x[i, c] + bias[c]) / scale + half)  # (1)
                y[i, c] = min(max(n, lowest), highest) * scale  # (2)


@kernel
def _backward(dy, x, bias, numbers, dx, sums):
    scale, lowest, highest, below, above = numbers
    half, nothing = dx.dtype.type(0.5), dx.dtype.type(0)
    for part in prange(len(sums)):  # each part writes its own pixels of dx, and its own sums
        for i in range(part * ROWS, min((part + 1) * ROWS, len(x))):
            for c in range(x.shape[1]):
                t = (x[i, c] + bias[c]) / scale
                n = np.floor(t + half)
                inside = (n >= lowest) & (n <= highest)
                slope = n - t if inside else (below if n < lowest else above)
                dx[i, c] = dy[i, c] if inside else nothing  # (3)
                sums[part, 0, c] += dx[i, c]  # (4)
                sums[part, 1, c] += dy[i, c] * slope  # (5)


# ---------------------------------------------------------------------------------------------- public


def fake_forward(x, bias, ends, out=None):
    """y (…, C) by (1) and (2): x + bias put on a grid; x (…, C), bias (C,), float32 or float64. Raises ValueError."""
    x, bias = _arguments(x, bias)
    out = _check.output("out", out, x.shape, x.dtype)
    kind = x.dtype.type
    flat = x.reshape(-1, x.shape[-1])
    _forward(flat, bias, kind(ends.scale), kind(ends.lowest), kind(ends.highest), out.reshape(flat.shape))
    return out


def fake_backward(dy, x, bias, ends, out=None):
    """(dx (…, C), db (C,) float64, ds) by (3) to (5). ``out`` may be dy itself. Raises ValueError."""
    x, bias = _arguments(x, bias)
    dy = _check.tensor("dy", dy, x.shape, x.dtype)
    out = _check.output("out", out, x.shape, x.dtype)
    flat = x.reshape(-1, x.shape[-1])
    sums = np.zeros((-(-len(flat) // ROWS), 2, flat.shape[1]))
    numbers = tuple(map(x.dtype.type, ends))
    _backward(dy.reshape(flat.shape), flat, bias, numbers, out.reshape(flat.shape), sums)
    db, slopes = sums.sum(axis=0)
    return out, db, float(slopes.sum())


def _arguments(x, bias):
    x = np.asarray(x)
    x = _check.tensor("x", x, (None,) * x.ndim)
    return x, _check.tensor("bias", bias, (x.shape[-1],), x.dtype)


def fake_cost(n: int, h: int, w: int, c: int) -> Cost:
    """No MACs; N·H·W·C numbers are rounded."""
    size = n * h * w * c
    return Cost(elementwise=size, inputs=size, outputs=size)
