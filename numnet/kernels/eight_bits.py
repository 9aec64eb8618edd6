"""Eight bits: a real number as a whole one of 0 … 255, and the arithmetic of a net on such numbers alone.

    Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
    Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference: A whitepaper"
    Nagel et al. 2021, "A White Paper on Neural Network Quantization"

The numbers of a map stand on a *grid* of 256 places. It has a *scale*, the step between two places, and a *zero point*, the
place of 0: ``scale_x`` and ``zero_x`` of a map x. In (1) and (2) q is the whole number, or place, of a real one:

(1)  real = scale · (q − zero),    q of 0 … 255           Jacob et al., equation 1
(2)  q = clip(⌊real / scale + ½⌋ + zero, 0, 255)          the nearest place; halves go up

clip(q, low, high) is low where q is smaller, and high where it is larger. 0 always has a place of its own (q = zero), since
padding is full of it. Weights have a scale for each filter, ``scale_w[f]``, and no zero point, q of −127 … 127: so
Σ (x − zero_x) · w needs one correction a filter (13), known beforehand, and none an image. From here on x, w and y are whole
numbers, and so is the bias b, in steps of scale_x · scale_w[f]:

(3)  sum[f] = b[f] + Σ (x − zero_x) · w[f]                32 bits hold it: K·K·C · 255 · 127 < 2³¹ up to 66,000 products
(4)  y = clip(⌊sum[f] · ratio[f] + ½⌋ + zero_y, low, high)     ratio[f] = scale_x · scale_w[f] / scale_y, a real number
(5)  ratio ≈ m / 2^shift                                  m a whole number below 2³¹; shift at most 54
(6)  y = clip((sum · m + c) >> shift, low, high)          c = zero_y · 2^shift + 2^(shift−1); >> rounds down

m, c and ``shift`` are numbers of each filter. (Papers call the ratio M and the shift n or s; here M is the depth multiplier
and s the stride.) (6) is (4) in whole numbers: the ½ of the rounding rule, the zero point and, in ``Fixed``, the bias are one
number c. Halves go up, towards +∞; that is the rule of this page everywhere. (TensorFlow Lite's older kernels round twice,
and halves away from zero; ONNX Runtime multiplies by a float32 and sends halves to the even neighbour. So one step between
programs is no error.)

**How near (5) is.** m / 2^shift is at most half of 2^−shift away from the ratio. Where the ratio is 2⁻²⁴ or more, m has all
its 31 bits, m ≥ 2³⁰: an error of at most 2⁻³¹ · ratio. A smaller ratio would want a larger shift than 54. It keeps 54, and m
has fewer bits: an error of 2⁻⁵⁵ at most. A sum has 32 bits, so that is at most 2⁻²⁴ of a step of y.

**Why 64 bits hold (6).** Σ (x − zero_x) · w has 32 bits and m < 2³¹: their product is below 2⁶². With shift ≤ 54, c without
the bias is below 256 · 2⁵⁴ = 2⁶². With the bias ``corrected`` makes sure of it. Both together are below 2⁶³.

``low`` and ``high`` are where relu and relu6 hide: they cut at the places of 0 and 6. Any other activation is a table:

(7)  y = table[x]                                         256 numbers, each computed once in float64

Other steps. (8), (9) and (10) end as (6) does, with the bounds low and high, an m, a c and a shift of their own:

(8)  addition      y = clip((x1 · m1 + x2 · m2 + c) >> shift, low, high)     both brought to the scale of y; 32 bits
(9)  mean          y = clip((Σ (x − zero_x) · m + c) >> shift, low, high)    the ratio has the 1/(P·Q) in it
(10) excitation    y = clip(((x − zero_x) · (g − zero_g) · m + c) >> shift, low, high)     g: a gate for each channel
(11) maximum       y = max x                                        over a window; y has the grid of x
(12) concatenation y[…, before_k + i] = table_k[x_k[…, i]]          channel i of map k; (7) of the identity

(11) needs no arithmetic: of two numbers on one grid the larger one has the larger byte, and a number that is somewhere on the
grid needs no other. Pixels outside of the image never win, wherever the zero point is. In (12) a map's numbers move from its
grid to that of the whole; where the two are equal, the table changes nothing.

Fast passes multiply bytes as they are. What the zero point of x takes from a sum is known when the weights are, and goes
into c (``corrected``):

(13) Σ (x − zero_x) · w = Σ x · w − zero_x · Σ w,    so  c − zero_x · Σ w · m  in place of c

Not supported: weights with zero points in the fast passes (the definitions take them as int16: w − zero), 4 bits.
"""

from typing import NamedTuple

import numpy as np

from numnet.errors import NumnetError
from numnet.kernels._jit import kernel
from numnet.kernels.maps import Window

LOWEST, HIGHEST = 0, 255  # the first and the last place of a grid: what a byte holds
LIMIT = 2**31 - 1  # the largest number of int32: of a sum, and of what (6) makes of it before it is cut
MOST_SHIFT = 54  # bits; so that zero · 2^shift and the ½ stay below 2^62 (see above)
# An addition's larger multiplier has ADD_BITS + 1 bits, and its shift is 22 at most. So both products together, without the
# zero points, are at most 2 · 255 · 2^21 < 2^30, and what the zero point of y adds is below 256 · 2^22 = 2^30: 32 bits do.
ADD_BITS = 20
NO_TABLE = np.empty(0, np.uint8)  # in place of the 256 numbers of (7): nothing is looked up


class Grid(NamedTuple):
    """Where a map's numbers stand: real = scale · (q − zero)."""

    scale: float
    zero: int


class Fixed(NamedTuple):
    """Equation (6) for each filter: arrays (F,) of int64, and the bounds of the result. The bias is part of c: b · m."""

    m: np.ndarray
    c: np.ndarray
    shift: np.ndarray
    low: int
    high: int


class Addition(NamedTuple):
    """Equation (8): numbers of 32 bits. The zero points of both maps are part of c."""

    m1: int
    m2: int
    c: int
    shift: int
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


def multiplier_of(ratio) -> tuple[int, int]:
    """(m, shift) of equation (5): the best m below 2³¹. Raises ValueError outside of 0 < ratio < 2²⁹."""
    ratio = float(ratio)
    if not 0 < ratio < 2.0**29:
        raise ValueError(f"multiplier: expected a number above 0 and below 2^29, got {ratio}")
    shift = min(31 - int(np.frexp(ratio)[1]), MOST_SHIFT)
    m = int(np.floor(ratio * 2.0**shift + 0.5))
    return (m >> 1, shift - 1) if m == 2**31 else (m, shift)


def fixed_of(ratios, biases, zero, low=LOWEST, high=HIGHEST) -> Fixed:
    """``Fixed`` for ratios (F,) and biases (F,) in steps of the sums; zero: of the output. Raises like ``multiplier_of``."""
    pairs = [multiplier_of(ratio) for ratio in np.atleast_1d(ratios)]
    m, shift = (np.array(column, np.int64) for column in zip(*pairs))
    c = np.asarray(biases, np.int64) * m + (np.int64(zero) << shift) + (np.int64(1) << (shift - 1))
    return Fixed(m, c, shift, int(low), int(high))


def sums_only(biases) -> Fixed:
    """``Fixed`` for outputs that stay sums of 32 bits: the last layer's, which become real numbers."""
    ones = np.ones(len(biases), np.int64)
    return Fixed(ones, np.asarray(biases, np.int64), np.zeros_like(ones), -LIMIT - 1, LIMIT)


def corrected(fixed: Fixed, w, zero) -> Fixed:
    """``Fixed`` for sums of bytes as they are: equation (13). w (products, F) int8; zero: of x.

    Raises NumnetError where a sum, or what (6) makes of it, may leave 32 bits for some image.
    """
    w = w.astype(np.int64)
    above, below = np.maximum(w, 0).sum(axis=0), np.minimum(w, 0).sum(axis=0)
    # x − zero goes from −zero to 255 − zero
    least = (HIGHEST - zero) * below - zero * above
    most = (HIGHEST - zero) * above - zero * below
    for end in (least, most):  # in Python's integers, which have no end
        for total, m, c, shift in zip(*(a.tolist() for a in (end, fixed.m, fixed.c, fixed.shift))):
            if abs((total * m + c) >> shift) > LIMIT:
                raise NumnetError("quantise: a layer's sums leave 32 bits; its output's range is too small")
    c = fixed.c - zero * (above + below) * fixed.m
    sums = HIGHEST * (above - below).max(initial=0)
    if sums > LIMIT or np.abs(c.astype(np.float64)).max(initial=0) >= 2**62:
        raise NumnetError("quantise: a layer's sums leave 32 bits")
    m, c, shift = (np.ascontiguousarray(a, np.int64) for a in (fixed.m, c, fixed.shift))
    return Fixed(m, c, shift, fixed.low, fixed.high)


def addition_of(first: Grid, second: Grid, grid: Grid, low=LOWEST, high=HIGHEST) -> Addition:
    """``Addition`` for the grids of both maps and of the sum. Raises ValueError where 32 bits cannot hold (8)."""
    ratios = first.scale / grid.scale, second.scale / grid.scale
    shift = int(np.clip(ADD_BITS - np.frexp(max(ratios))[1] + 1, 1, 22))
    m1, m2 = (int(np.floor(ratio * 2.0**shift + 0.5)) for ratio in ratios)
    if max(m1, m2) >= 2**22:
        raise ValueError("addition: the scales of the sum and of its parts are too far apart")
    c = (grid.zero << shift) + (1 << (shift - 1)) - first.zero * m1 - second.zero * m2
    return Addition(m1, m2, int(c), shift, int(low), int(high))


def table_of(function, x: Grid, y: Grid) -> np.ndarray:
    """The 256 numbers of equation (7) for a function of real numbers (an array of float64 in, one out)."""
    return quantise(function(dequantise(np.arange(256), x, np.float64)), y)


# ---------------------------------------------------------------------------------------------- the definition


@kernel(parallel=False)
def _definition(x, w, zero, window, fixed, y):
    for n in range(y.shape[0]):
        for p in range(y.shape[1]):
            for q in range(y.shape[2]):
                for f in range(y.shape[3]):
                    total = np.int64(0)
                    for u in range(w.shape[0]):
                        for v in range(w.shape[1]):
                            i, j = p * window.stride + u - window.top, q * window.stride + v - window.left
                            if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
                                for c in range(x.shape[3]):
                                    total += (np.int64(x[n, i, j, c]) - zero) * np.int64(w[u, v, c, f])  # (3)
                    value = (total * fixed.m[f] + fixed.c[f]) >> fixed.shift[f]  # (6)
                    y[n, p, q, f] = min(max(value, fixed.low), fixed.high)


@kernel(parallel=False)
def _definition_depthwise(x, w, zero, window, fixed, y):
    multiplier = w.shape[3]
    for n in range(y.shape[0]):
        for p in range(y.shape[1]):
            for q in range(y.shape[2]):
                for f in range(y.shape[3]):
                    c, total = f // multiplier, np.int64(0)
                    for u in range(w.shape[0]):
                        for v in range(w.shape[1]):
                            i, j = p * window.stride + u - window.top, q * window.stride + v - window.left
                            if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
                                tap = np.int64(w[u, v, c, f % multiplier])
                                total += (np.int64(x[n, i, j, c]) - zero) * tap  # (3)
                    value = (total * fixed.m[f] + fixed.c[f]) >> fixed.shift[f]  # (6)
                    y[n, p, q, f] = min(max(value, fixed.low), fixed.high)


@kernel(parallel=False)
def _definition_add(x1, x2, addition, y):
    for i in range(y.size):
        total = np.int64(x1[i]) * addition.m1 + np.int64(x2[i]) * addition.m2
        value = (total + addition.c) >> addition.shift  # (8)
        y[i] = min(max(value, addition.low), addition.high)


@kernel(parallel=False)
def _definition_average(x, zero, fixed, y):
    for n in range(x.shape[0]):
        for c in range(x.shape[2]):
            total = np.int64(0)
            for i in range(x.shape[1]):
                total += np.int64(x[n, i, c]) - zero
            value = (total * fixed.m[0] + fixed.c[0]) >> fixed.shift[0]  # (9)
            y[n, c] = min(max(value, fixed.low), fixed.high)


@kernel(parallel=False)
def _definition_excite(x, zero, gates, gate_zero, fixed, y):
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            for c in range(x.shape[2]):
                total = (np.int64(x[n, i, c]) - zero) * (np.int64(gates[n, c]) - gate_zero)
                value = (total * fixed.m[0] + fixed.c[0]) >> fixed.shift[0]  # (10)
                y[n, i, c] = min(max(value, fixed.low), fixed.high)


@kernel(parallel=False)
def _definition_maximum(x, window, y):
    for n in range(y.shape[0]):
        for p in range(y.shape[1]):
            for q in range(y.shape[2]):
                for c in range(y.shape[3]):
                    best = np.int64(0)
                    for u in range(window.side):
                        for v in range(window.side):
                            i, j = p * window.stride + u - window.top, q * window.stride + v - window.left
                            if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
                                best = max(best, np.int64(x[n, i, j, c]))  # (11)
                    y[n, p, q, c] = best


@kernel(parallel=False)
def _definition_concat(x, table, before, y):
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            y[r, before + c] = table[x[r, c]]  # (12)


# Each returns y, an array that the caller gives: uint8, or of ``definition`` and ``definition_depthwise`` also int32. Maps x
# are uint8. Nothing is checked.


def definition(x, w, zero, window: Window, fixed: Fixed, y):
    """(3) and (6) as they are written: y (N, P, Q, F) of x (N, H, W, C) and w (K, K, C, F) int8 or int16; zero: of x.

    Taps outside of the image add nothing.
    """
    _definition(x, w, int(zero), window, fixed, y)
    return y


def definition_depthwise(x, w, zero, window: Window, fixed: Fixed, y):
    """The same with M filters a channel: w (K, K, C, M), y (N, P, Q, C·M)."""
    _definition_depthwise(x, w, int(zero), window, fixed, y)
    return y


def definition_add(x1, x2, addition: Addition, y):
    """(8), number by number, of maps of one shape."""
    _definition_add(x1.reshape(-1), x2.reshape(-1), addition, y.reshape(-1))
    return y


def definition_average(x, zero, fixed: Fixed, y):
    """(9): y (N, C) or (N, 1, 1, C) of x (N, H, W, C); zero: of x; fixed: arrays (1,)."""
    flat = y.reshape(len(x), x.shape[-1])
    _definition_average(x.reshape(len(x), -1, x.shape[-1]), int(zero), fixed, flat)
    return y


def definition_excite(x, zero, gates, gate_zero, fixed: Fixed, y):
    """(10): y (N, H, W, C) of x and gates (N, C), and the zero points of both; fixed: arrays (1,)."""
    shape = len(x), -1, x.shape[-1]
    _definition_excite(x.reshape(shape), int(zero), gates, int(gate_zero), fixed, y.reshape(shape))
    return y


def definition_maximum(x, window: Window, y):
    """(11): y (N, P, Q, C) of x (N, H, W, C)."""
    _definition_maximum(x, window, y)
    return y


def definition_concat(parts, tables, y):
    """(12): y (…, C_0 + C_1 + …) of maps (…, C_k), each with its table of 256 numbers."""
    before, flat = 0, y.reshape(-1, y.shape[-1])
    for x, table in zip(parts, tables):
        _definition_concat(x.reshape(-1, x.shape[-1]), table, before, flat)
        before += x.shape[-1]
    return y
