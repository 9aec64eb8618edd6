"""Sums over K×K windows of rows: what a depthwise convolution and its two gradients do to long vectors.

A *window* of rows is K rows of a source, each shifted by 0 … K − 1 pixels; a *tap* is a filter's weight (u, v), repeated
along a stretch of L numbers (see the page ``rows``). With ``at[r]``, the place where padded row r begins in the source:

(1)  y[i]       =  Σ_uv source[at[u] + v·C + i] · taps[u, v, i]         ``sum_windows``
(2)  dtaps[u, v, i]  +=  Σ_rows source[at[u] + v·C + i] · dy[i]         ``correlate_windows``

**Rows in pairs.** Two rows of y, or of dy, go through one sweep with all K·K taps. In (1) a sum stays in a register from
its first tap to its last, and the rows share the weights; in (2) they share the load and the store of a tap's gradient.
At stride 1 the second row's window is the first one's, one row further down, so that the rows share most of what they
read of x, too: for K = 3, nine products of a row take 12 loads of x for both instead of 18.

A stretch is cut where the weights of all taps would not stay in the first-level cache (``block_width``).
"""

import numpy as np

from numnet.kernels._jit import row
from numnet.kernels.rows import (
    GROUP,
    LANES,
    add_products,
    columns,
    multiply_add,
    multiply_add_3,
    multiply_add_9,
    row_length,
    zero,
)

PAIR = 2  # rows of y, or of dy, that go through one sweep
WEIGHTS = 6144  # numbers of repeated taps in use at a time: 24 KiB of float32, half a first-level cache
_u = np.uint64


@row
def stretch(outputs, stride):
    """Numbers of a stretch: many pixels at stride 1, one pixel at any other."""
    return row_length(outputs) if stride == 1 else outputs


@row
def short_stretch(outputs, stride, count):
    """Numbers of a stretch in (1): halved while the weights of all ``count`` taps are too many for WEIGHTS."""
    length = stretch(outputs, stride)
    while count * length > WEIGHTS and length % (2 * outputs) == 0:
        length //= 2
    return length


@row
def block_width(length, count):
    """Numbers of a stretch that are worked on at a time, so that those of ``count`` taps stay in the first-level cache."""
    blocks = (count * length + WEIGHTS - 1) // WEIGHTS
    return ((length + blocks - 1) // blocks + LANES - 1) // LANES * LANES


@row
def sum_windows(y, step, source, at, first, pixel, taps, length, n, stride, group, side_u, side_v):
    """(1): n numbers of each of ``group`` rows of y, ``step`` apart; row r of their windows begins at at[r] in the source.

    Every caller writes ``group`` and the sides as constants, so that the four inner loops are unrolled: a sum stays in a
    register from its first tap to its last, and a weight is loaded once for the group.
    """
    step, first, pixel, length = _u(step), _u(first), _u(pixel), _u(length)
    for i in range(_u(n)):
        for g in range(_u(group)):
            total = y.dtype.type(0)
            for u in range(_u(side_u)):
                for v in range(_u(side_v)):
                    x_uv = source[_u(at[g * _u(stride) + u]) + first + v * pixel + i]
                    total += x_uv * taps[(u * _u(side_v) + v) * length + i]
            y[g * step + i] = total


@row
def sum_rows(y, step, source, at, first, pixel, taps, length, n, stride, count, side):
    """(1): n numbers of each of ``count`` rows of y. At stride 1 the rows of a pair share what they load of x, too."""
    if count == PAIR and stride == 1:
        sum_windows(y, step, source, at, first, pixel, taps, length, n, 1, PAIR, side, side)
    elif count == PAIR:
        sum_windows(y, step, source, at, first, pixel, taps, length, n, stride, PAIR, side, side)
    else:
        sum_windows(y, step, source, at, first, pixel, taps, length, n, stride, 1, side, side)


@row
def sum_taps(y, source, at, first, pixel, taps, length, n, side_u, side_v):
    """(1) for kernels of any other size: one row, tap by tap."""
    zero(y[:n])
    for u in range(side_u):
        for v in range(side_v):
            weights = taps[(u * side_v + v) * length :]
            multiply_add(y, 0, source[first + v * pixel :], 0, at, u, weights, 0, n, 1)


@row
def convolve_rows(y, size, lo, hi, count, source, at, origin, pixel, taps, length, stride, side_u, side_v):
    """(1): numbers lo … hi − 1, whole pixels, of ``count`` ≤ PAIR rows of y, ``size`` numbers each.

    A tap is L numbers long, a pixel repeated. Stretches of L begin L apart in y, s·L apart in the source.
    """
    width = block_width(length, side_u * side_v)
    for block in range(0, min(length, hi - lo), width):
        w = taps[block:]
        for o in range(lo + block, hi, length):
            n = min(width, length - block, hi - o)
            a = origin + block + (o - lo - block) * stride
            if side_u == 3 and side_v == 3:
                sum_rows(y[o:], size, source, at, a, pixel, w, length, n, stride, count, 3)
            elif side_u == 5 and side_v == 5:
                sum_rows(y[o:], size, source, at, a, pixel, w, length, n, stride, count, 5)
            else:
                for g in range(count):
                    below = at[g * stride :]
                    sum_taps(y[g * size + o :], source, below, a, pixel, w, length, n, side_u, side_v)

@row
def correlate_windows(dtaps, length, dy, step, source, at, first, pixel, n, stride, group, side_u, side_v):
    """(2): dtaps of n numbers from each of ``group`` rows of dy, ``step`` apart; the rest as for ``sum_windows``."""
    step, first, pixel, length = _u(step), _u(first), _u(pixel), _u(length)
    for i in range(_u(n)):
        for u in range(_u(side_u)):
            for v in range(_u(side_v)):
                tap = (u * _u(side_v) + v) * length + i
                total = dtaps[tap]
                for g in range(_u(group)):
                    total += source[_u(at[g * _u(stride) + u]) + first + v * pixel + i] * dy[g * step + i]
                dtaps[tap] = total


@row
def correlate_side(dtaps, length, dy, step, source, at, first, pixel, n, stride, count, side):
    """(2): of ``count`` rows. At stride 1 the rows of a pair share what they load of x, too."""
    if count == PAIR and stride == 1:
        correlate_windows(dtaps, length, dy, step, source, at, first, pixel, n, 1, PAIR, side, side)
    elif count == PAIR:
        correlate_windows(dtaps, length, dy, step, source, at, first, pixel, n, stride, PAIR, side, side)
    else:
        correlate_windows(dtaps, length, dy, step, source, at, first, pixel, n, stride, 1, side, side)


@row
def correlate_rows(dtaps, length, dy, step, size, count, source, at, pixel, stride, side_u, side_v):
    """(2): of ``count`` ≤ PAIR rows of dy, ``step`` apart, ``size`` numbers each; the rest as for ``convolve_rows``."""
    width = block_width(length, side_u * side_v)
    for block in range(0, min(length, size), width):
        sums = dtaps[block:]
        for o in range(block, size, length):
            n = min(width, length - block, size - o)
            a = block + (o - block) * stride
            d = dy[o:]
            if side_u == 3 and side_v == 3:
                correlate_side(sums, length, d, step, source, at, a, pixel, n, stride, count, 3)
            elif side_u == 5 and side_v == 5:
                correlate_side(sums, length, d, step, source, at, a, pixel, n, stride, count, 5)
            else:
                for g in range(count):
                    for u in range(side_u):
                        for v in range(side_v):
                            tap = sums[(u * side_v + v) * length :]
                            add_products(tap, d[g * step :], 0, source[a + v * pixel :], 0, at, g * stride + u, n, 1)


@row
def convolve(out, size, step, source, stride, at, count, taps, length):
    """out = Σ_t source[at[t] …] · taps[t · L …], for ``count`` taps: ``size`` numbers, whole pixels.

    A tap is L numbers long, a pixel repeated. Stretches of L begin ``step`` apart in out, ``stride`` apart in source.
    """
    width = columns(length)
    for left in range(0, min(length, size), width):
        n = min(width, length - left)
        done, o, a = left, left, left
        while done + (GROUP - 1) * length + n <= size:
            for g in range(GROUP):
                zero(out[o + g * step : o + g * step + n])
            sweep(out[o:], step, source[a:], stride, at, count, taps[left:], length, n, GROUP)
            done, o, a = done + GROUP * length, o + GROUP * step, a + GROUP * stride
        while done < size:
            n = min(n, size - done)
            zero(out[o : o + n])
            sweep(out[o:], step, source[a:], stride, at, count, taps[left:], length, n, 1)
            done, o, a = done + length, o + step, a + stride


@row
def sweep(out, step, source, stride, at, count, taps, length, n, group):
    """All taps of one group of stretches: nine, three or one at a time."""
    nines = count // 9 * 9
    threes = nines + (count - nines) // 3 * 3
    for t in range(0, nines, 9):
        multiply_add_9(out, step, source, stride, at, t, taps, length, n, group)
    for t in range(nines, threes, 3):
        multiply_add_3(out, step, source, stride, at, t, taps, length, n, group)
    for t in range(threes, count):
        multiply_add(out, step, source, stride, at, t, taps, length, n, group)
