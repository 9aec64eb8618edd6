"""Eight bits: a real number as a whole one of 0 … 255, and the arithmetic of a net on such numbers alone.

    Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
    Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference: A whitepaper"
    Nagel et al. 2021, "A White Paper on Neural Network Quantization"

A map has one *scale* and one *zero point*; its numbers stand on a grid of 256 places, with a step of ``scale`` between two:

(1)  real = scale · (q − zero),    q of 0 … 255           Jacob et al., equation 1
(2)  q = clip(⌊real / scale + ½⌋ + zero, 0, 255)          the nearest place; halves go up

0 always has a place of its own (q = zero), since padding is full of it. Weights have a scale for each filter and no zero
point, q of −127 … 127: so Σ (x − zero) · w needs one correction a filter, known beforehand, and none an image. With
s_x, s_w[f], s_y the scales of input, filter and output, b the bias in steps of s_x · s_w[f]:

(3)  sum[f] = b[f] + Σ (x − zero_x) · w[f]                32 bits hold it: K·K·C · 255 · 127 < 2³¹ up to 66,000 products
(4)  y = clip(⌊sum[f] · M[f] + ½⌋ + zero_y, low, high)    M[f] = s_x · s_w[f] / s_y, a real number
(5)  M ≈ m / 2^s                                          m a whole number of 31 bits: an error below 2⁻³¹ · M
(6)  y = clip((sum · m + c) >> s, low, high)              c = zero_y · 2^s + 2^(s−1), in 64 bits; >> rounds down

(6) is (4) in whole numbers: the ½ of the rounding rule, the zero point and, in ``Fixed``, the bias are one number c. Halves
go up, towards +∞; that is the rule of this page everywhere. (TensorFlow Lite's older kernels round twice, and halves away
from zero; ONNX Runtime multiplies by M as a float32 and sends halves to the even neighbour. So one step between
programs is no error.)

``low`` and ``high`` are where relu and relu6 hide: they cut at the places of 0 and 6. Any other activation is a table:

(7)  y = table[x]                                         256 numbers, each computed once in float64

(8)  addition      y = clip((x1 · m1 + x2 · m2 + c) >> s)           both brought to the scale of y; 32 bits
(9)  mean          y = clip((Σ x · m + c) >> s)                     M has the 1/(P·Q) in it
(10) excitation    y = clip(((x − zero_x) · (g − zero_g) · m + c) >> s)
(11) maximum       y = max x                                        over a window; y has the grid of x
(12) concatenation y[…, before_b + c] = table_b[x_b[…, c]]          (7) with the function real → real

(11) needs no arithmetic: of two numbers on one grid the larger one has the larger byte, and a number that is somewhere on the
grid needs no other. Pixels outside of the image never win, wherever the zero point is. In (12) a part's numbers move from its
grid to that of the whole; where the two are equal, the table changes nothing.

Not supported: weights with zero points in the fast passes (the definitions take them as int16: w − zero), 4 bits.
"""

from typing import NamedTuple

import numpy as np

from numnet.errors import NumnetError
from numnet.kernels._jit import kernel

LOWEST, HIGHEST = 0, 255
LIMIT = 2**31 - 1
MOST_SHIFT = 54  # so that zero · 2^s stays below 2^62
ADD_BITS = 20  # of the multipliers of an addition: 2 · 255 · 2^21 < 2^31


class Grid(NamedTuple):
    """Where a map's numbers stand: real = scale · (q − zero)."""

    scale: float
    zero: int


class Fixed(NamedTuple):
    """Equation (6) for each filter: arrays (F,) of int64, and the bounds of the result."""

    m: np.ndarray
    c: np.ndarray
    s: np.ndarray
    low: int
    high: int


# ---------------------------------------------------------------------------------------------- grids


def grid_of(low, high, what="range") -> Grid:
    """The grid whose 256 places cover low … high and 0. Raises NumnetError for bounds that are not finite, or both 0."""
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    if not np.isfinite(high - low):
        raise NumnetError(f"{what}: goes from {low} to {high}; expected finite numbers")
    scale = (high - low) / HIGHEST
    if scale <= 1e-30:
        raise NumnetError(f"{what}: all numbers are 0; eight bits need a range wider than that")
    return Grid(scale, int(np.clip(np.floor(-low / scale + 0.5), LOWEST, HIGHEST)))


def quantise(x, grid: Grid) -> np.ndarray:
    """Equation (2): real numbers of any shape as uint8. Raises ValueError where one is NaN."""
    q = np.floor(np.asarray(x, np.float64) / grid.scale + 0.5) + grid.zero
    if np.isnan(q).any():
        raise ValueError("x: has NaN, which has no place among whole numbers")
    return np.clip(q, LOWEST, HIGHEST).astype(np.uint8)


def dequantise(q, grid: Grid, dtype=np.float32) -> np.ndarray:
    """Equation (1): the real numbers that whole ones stand for."""
    return ((np.asarray(q, np.float64) - grid.zero) * grid.scale).astype(dtype)


def weight_scales(w, channel=True) -> np.ndarray:
    """The scale of each filter (float64, (F,)) of weights (…, F): its largest number is 127 steps; of a filter of zeros, 1.

    ``channel=False``: one scale for all, F times.
    """
    w = np.abs(np.asarray(w, np.float64)).reshape(-1, w.shape[-1])
    most = w.max(axis=0, initial=0.0)
    if not channel:
        most = np.full_like(most, most.max(initial=0.0))
    return np.where(most > 0, most / 127, 1.0)


def quantise_weights(w, scales) -> np.ndarray:
    """Weights (…, F) in steps of their scales, the nearest of −127 … 127, int8."""
    return np.clip(np.floor(np.asarray(w, np.float64) / scales + 0.5), -127, 127).astype(np.int8)


# ---------------------------------------------------------------------------------------------- fixed point


def multiplier_of(real) -> tuple[int, int]:
    """(m, s) of equation (5): the best m below 2³¹ with real ≈ m / 2^s. Raises ValueError outside of 0 < real < 2²⁹."""
    real = float(real)
    if not 0 < real < 2.0**29:
        raise ValueError(f"multiplier: expected a number above 0 and below 2^29, got {real}")
    s = min(31 - int(np.frexp(real)[1]), MOST_SHIFT)
    m = int(np.floor(real * 2.0**s + 0.5))
    return (m >> 1, s - 1) if m == 2**31 else (m, s)


def fixed_of(reals, biases, zero, low=LOWEST, high=HIGHEST) -> Fixed:
    """``Fixed`` for multipliers M (F,) and biases b (F,) in steps of the sums; zero: of the output."""
    pairs = [multiplier_of(real) for real in np.atleast_1d(reals)]
    m, s = (np.array(column, np.int64) for column in zip(*pairs))
    c = np.asarray(biases, np.int64) * m + (np.int64(zero) << s) + (np.int64(1) << (s - 1))
    return Fixed(m, c, s, int(low), int(high))


def sums_only(biases) -> Fixed:
    """``Fixed`` for outputs that stay sums of 32 bits: the last layer's, which become real numbers."""
    ones = np.ones(len(biases), np.int64)
    return Fixed(ones, np.asarray(biases, np.int64), np.zeros_like(ones), -LIMIT - 1, LIMIT)


def addition_of(first, second, grid: Grid, low=LOWEST, high=HIGHEST) -> tuple:
    """(m1, m2, c, s, low, high) of equation (8), all of 32 bits, for the grids of both maps and of the sum."""
    reals = first.scale / grid.scale, second.scale / grid.scale
    s = int(np.clip(ADD_BITS - np.frexp(max(reals))[1] + 1, 1, 22))
    m1, m2 = (int(np.floor(real * 2.0**s + 0.5)) for real in reals)
    c = (grid.zero << s) + (1 << (s - 1)) - first.zero * m1 - second.zero * m2
    if max(m1, m2) >= 2**22:
        raise ValueError("addition: the scales of the sum and of its parts are too far apart")
    return m1, m2, c, s, int(low), int(high)


def table_of(function, x: Grid, y: Grid) -> np.ndarray:
    """The 256 numbers of equation (7) for a function of real numbers (an array of float64 in, one out)."""
    return quantise(function(dequantise(np.arange(256), x, np.float64)), y)


# ---------------------------------------------------------------------------------------------- the definition


@kernel(parallel=False)
def _definition(x, w, zero, frame, fixed, y):
    stride, top, left = frame
    for n in range(y.shape[0]):
        for p in range(y.shape[1]):
            for q in range(y.shape[2]):
                for f in range(y.shape[3]):
                    total = np.int64(0)
                    for u in range(w.shape[0]):
                        for v in range(w.shape[1]):
                            i, j = p * stride + u - top, q * stride + v - left
                            if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
                                for c in range(x.shape[3]):
                                    total += (np.int64(x[n, i, j, c]) - zero) * np.int64(w[u, v, c, f])  # (3)
                    value = (total * fixed.m[f] + fixed.c[f]) >> fixed.s[f]  # (6)
                    y[n, p, q, f] = min(max(value, fixed.low), fixed.high)


@kernel(parallel=False)
def _definition_depthwise(x, w, zero, frame, fixed, y):
    stride, top, left = frame
    multiplier = w.shape[3]
    for n in range(y.shape[0]):
        for p in range(y.shape[1]):
            for q in range(y.shape[2]):
                for f in range(y.shape[3]):
                    c, total = f // multiplier, np.int64(0)
                    for u in range(w.shape[0]):
                        for v in range(w.shape[1]):
                            i, j = p * stride + u - top, q * stride + v - left
                            if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
                                tap = np.int64(w[u, v, c, f % multiplier])
                                total += (np.int64(x[n, i, j, c]) - zero) * tap  # (3)
                    value = (total * fixed.m[f] + fixed.c[f]) >> fixed.s[f]  # (6)
                    y[n, p, q, f] = min(max(value, fixed.low), fixed.high)


@kernel(parallel=False)
def _definition_add(x1, x2, numbers, y):
    m1, m2, c, s, low, high = numbers
    for i in range(y.size):
        y[i] = min(max((np.int64(x1[i]) * m1 + np.int64(x2[i]) * m2 + c) >> s, low), high)  # (8)


@kernel(parallel=False)
def _definition_average(x, zero, fixed, y):
    for n in range(x.shape[0]):
        for c in range(x.shape[2]):
            total = np.int64(0)
            for i in range(x.shape[1]):
                total += np.int64(x[n, i, c]) - zero
            y[n, c] = min(max((total * fixed.m[0] + fixed.c[0]) >> fixed.s[0], fixed.low), fixed.high)  # (9)


@kernel(parallel=False)
def _definition_excite(x, zero, gates, gate_zero, fixed, y):
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            for c in range(x.shape[2]):
                total = (np.int64(x[n, i, c]) - zero) * (np.int64(gates[n, c]) - gate_zero)
                value = (total * fixed.m[0] + fixed.c[0]) >> fixed.s[0]  # (10)
                y[n, i, c] = min(max(value, fixed.low), fixed.high)


@kernel(parallel=False)
def _definition_maximum(x, side, window, y):
    stride, top, left = window
    for n in range(y.shape[0]):
        for p in range(y.shape[1]):
            for q in range(y.shape[2]):
                for c in range(y.shape[3]):
                    best = np.int64(0)
                    for u in range(side):
                        for v in range(side):
                            i, j = p * stride + u - top, q * stride + v - left
                            if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
                                best = max(best, np.int64(x[n, i, j, c]))  # (11)
                    y[n, p, q, c] = best


@kernel(parallel=False)
def _definition_concat(x, table, before, y):
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            y[r, before + c] = table[x[r, c]]  # (12)


def definition(x, w, zero, window, fixed, y):
    """(3) and (6) as they are written: y (N, P, Q, F), uint8 or int32, of x (N, H, W, C) uint8 and w (K, K, C, F).

    window: (stride, top, left); zero: of x. Taps outside of the image add nothing. Returns y.
    """
    _definition(x, w, np.int64(zero), tuple(map(np.int64, window)), _longs(fixed), y)
    return y


def definition_depthwise(x, w, zero, window, fixed, y):
    """The same with one filter a channel: w (K, K, C, M), y (N, P, Q, C·M)."""
    _definition_depthwise(x, w, np.int64(zero), tuple(map(np.int64, window)), _longs(fixed), y)
    return y


def definition_add(x1, x2, numbers, y):
    """(8), number by number; ``numbers`` as ``addition_of`` gives them."""
    _definition_add(x1.reshape(-1), x2.reshape(-1), tuple(map(np.int64, numbers)), y.reshape(-1))
    return y


def definition_average(x, zero, fixed, y):
    """(9): y (N, C) of x (N, H, W, C)."""
    flat = y.reshape(len(x), x.shape[-1])  # some nets keep (N, 1, 1, C)
    _definition_average(x.reshape(len(x), -1, x.shape[-1]), np.int64(zero), _longs(fixed), flat)
    return y


def definition_excite(x, zero, gates, gate_zero, fixed, y):
    """(10): y (N, H, W, C) of x and gates (N, C)."""
    shape = len(x), -1, x.shape[-1]
    zeros = np.int64(zero), np.int64(gate_zero)
    _definition_excite(x.reshape(shape), zeros[0], gates, zeros[1], _longs(fixed), y.reshape(shape))
    return y


def definition_maximum(x, side, window, y):
    """(11): y (N, P, Q, C) of x (N, H, W, C); side: of the window; window: (stride, top, left). Returns y."""
    _definition_maximum(x, np.int64(side), tuple(map(np.int64, window)), y)
    return y


def definition_concat(parts, tables, y):
    """(12): y (…, C_0 + C_1 + …) of maps (…, C_b), each with its table of 256 numbers."""
    before, flat = 0, y.reshape(-1, y.shape[-1])
    for x, table in zip(parts, tables):
        _definition_concat(x.reshape(-1, x.shape[-1]), table, np.int64(before), flat)
        before += x.shape[-1]
    return y


def _longs(fixed):
    return fixed._replace(low=np.int64(fixed.low), high=np.int64(fixed.high))


# ---------------------------------------------------------------------------------------------- what it costs


def bytes_of(weights, filters):
    """Bytes that a layer's numbers take: one a weight, and eight a filter, for its bias and its scale."""
    return weights + 8 * filters
