"""Sums over K×K windows of rows: what a depthwise convolution and its two gradients do to long vectors.

A *window* is K rows of a source, each shifted by 0 … K − 1 pixels. With at[r], the place where row r of it begins in the
source, C numbers a pixel, and a filter's weight, a *tap* (u, v):

(1)  y[o]       =  Σ_uv source[at[u] + v·C + s·o] · w[u, v]         ``sum_windows``
(2)  dw[u, v]  +=  Σ_o  source[at[u] + v·C + s·o] · dy[o]           ``correlate_windows``

**Sixteen channels, all pixels.** Both have K·K numbers for a channel that meet every pixel of a row: weights in (1), sums
in (2). For LANES = 16 channels those are K·K vectors of 64 bytes, 9 or 25, and a processor with vectors of 512 bits has
32 registers. So the loop over the pixels is the inner one, over its channels only as many as a vector has: the weights
stay in registers while the pixels go by, and so do the sums of (2), which are loaded before the row and stored after it.
What is loaded in the loop is x alone. (Loops over long rows, with a weight loaded for each product, had reached half of
the speed: one core of the machine in the README loads two vectors a nanosecond, and loads are what bounds this.)

**Rows in pairs.** Two rows of y, or of dy, go through one sweep. At stride 1 the second row's window is the first one's, one
row further down, and they share what they load: for K = 3, 12 loads of x for 18 products.

**How a compiler is brought to do that.** The loop over the lanes has a constant length, and so have those over u and v, which
are unrolled; the table of weights is cut into stretches of LANES, [block, tap, lane], so that all its places are
constants, too; and the two rows are two arrays, which cannot overlap. Then no test of two addresses stands between the
loop over the pixels and the vectors inside, and LLVM moves the table's loads and stores out of the loop.

Where C is no multiple of 16, a *stretch* is several pixels at stride 1: L = lcm(C, 16) numbers. At stride s the
next pixel's window begins s pixels further on, so that a stretch is one pixel, and its last lanes may be 8 (a loop of its
own) or fewer (tap by tap, as all are for K other than 3 and 5).
"""

from math import gcd

import numpy as np

from numnet.kernels._jit import row
from numnet.kernels.rows import LANES, line_up, zero

PAIR = 2  # rows of y, or of dy, that go through one sweep
HALF = LANES // 2
_u = np.uint64


@row
def stretch(channels, stride):
    """Numbers of a stretch: whole pixels, and whole vectors, at stride 1; one pixel at any other."""
    return channels * (LANES // gcd(channels, LANES)) if stride == 1 else channels


@row
def table_of(taps, length):
    """Taps (K·K, C) as a table [block, tap, lane] for stretches of ``length`` numbers, flat; 0 in lanes beyond it."""
    count, channels = taps.shape
    table = line_up((length + LANES - 1) // LANES * count * LANES, taps)
    for n in range(length):
        for t in range(count):
            table[(n // LANES * count + t) * LANES + n % LANES] = taps[t, n % channels]
    return table


@row
def add_table(table, length, dw):
    """dw (K·K, C) += the table's sums, over the pixels of a stretch; the table is zero again."""
    count, channels = dw.shape
    for n in range(length):
        for t in range(count):
            dw[t, n % channels] += table[(n // LANES * count + t) * LANES + n % LANES]
    zero(table)


# A ``span`` says which numbers: lo … hi − 1 of the row, in stretches that begin ``step`` apart in it and ``jump`` apart in
# the source, lo's windows at at[u] + ``origin``, and the numbers of a pixel. ``blocks``: how many of the table, and the
# numbers of each. Where the two are called, lanes, pair, the sides and ``adds`` are constants, and so is a stride of 1.


@row
def sum_windows(y0, y1, source, at, table, span, blocks, lanes, stride, pair, side_u, side_v, adds):
    """(1): ``lanes`` numbers of every stretch and block, for the row y0 or the ``pair`` y0 and y1; it may ``add`` to them."""
    lo, hi, step, origin, jump, pixel = span
    for block in range(blocks[0]):
        place, w = lo + block * LANES, _u(block * blocks[1])
        o, a, c = _u(place), _u(origin + block * LANES), _u(pixel)
        for _ in range((hi - lanes - place) // step + 1):
            for i in range(_u(lanes)):
                total0 = y0[o + i] if adds else y0.dtype.type(0)
                total1 = y1[o + i] if adds and pair else y0.dtype.type(0)
                for u in range(_u(side_u)):
                    for v in range(_u(side_v)):
                        weight = table[w + (u * _u(side_v) + v) * _u(LANES) + i]
                        total0 += source[_u(at[u]) + a + v * c + i] * weight
                        if pair:
                            total1 += source[_u(at[_u(stride) + u]) + a + v * c + i] * weight
                y0[o + i] = total0
                if pair:
                    y1[o + i] = total1
            o, a = o + _u(step), a + _u(jump)


@row
def correlate_windows(d0, d1, source, at, table, span, blocks, lanes, stride, pair, side_u, side_v):
    """(2): into the table, from the row d0 of dy or the ``pair`` d0 and d1."""
    lo, hi, step, origin, jump, pixel = span
    for block in range(blocks[0]):
        place, w = lo + block * LANES, _u(block * blocks[1])
        o, a, c = _u(place), _u(origin + block * LANES), _u(pixel)
        for _ in range((hi - lanes - place) // step + 1):
            for i in range(_u(lanes)):
                for u in range(_u(side_u)):
                    for v in range(_u(side_v)):
                        total = source[_u(at[u]) + a + v * c + i] * d0[o + i]
                        if pair:
                            total += source[_u(at[_u(stride) + u]) + a + v * c + i] * d1[o + i]
                        table[w + (u * _u(side_v) + v) * _u(LANES) + i] += total
            o, a = o + _u(step), a + _u(jump)


@row
def part_of(part, lo, hi, origin, pixel, length, strides, taps):
    """What has whole vectors (part 0), and what has not (1): its span, its blocks, its lanes, its place in the table.

    ``strides``: of the row and of the source. Where both are 1 the last stretch may end within a block, else each of them;
    without any lanes there is no such part.
    """
    size, step, jump = taps * LANES, length * strides[0], length * strides[1]
    if part == 0:
        return (lo, hi, step, origin, jump, pixel), (min(length, hi - lo) // LANES, size), LANES, 0
    runs = step == jump == length
    last = (hi - lo) % length if runs else length
    lanes, block = last % LANES, last // LANES
    place = hi - lanes if runs else lo + block * LANES
    return (place, hi, step, origin + place - lo, jump, pixel), (1, size), lanes, block * size


@row
def sum_square(y0, y1, source, at, table, span, blocks, stride, pair, side):
    """(1) for K×K taps and all lanes. At stride 1 a pair of rows shares what it loads of the source."""
    if pair and stride == 1:
        sum_windows(y0, y1, source, at, table, span, blocks, LANES, 1, True, side, side, False)
    elif pair:
        sum_windows(y0, y1, source, at, table, span, blocks, LANES, stride, True, side, side, False)
    else:
        sum_windows(y0, y1, source, at, table, span, blocks, LANES, stride, False, side, side, False)


@row
def sum_taps(y, source, at, table, span, blocks, lanes, side_u, side_v):
    """(1) for one row and any kernel, tap by tap; and for fewer lanes, often HALF: of 24, 40, 72 … channels."""
    lo, hi, step, origin, jump, pixel = span
    for block in range(blocks[0]):
        for o in range(lo + block * LANES, hi - lanes + 1, step):
            zero(y[o : o + lanes])
    for u in range(side_u):
        for v in range(side_v):
            w, shifted = table[(u * side_v + v) * LANES :], (lo, hi, step, origin + v * pixel, jump, pixel)
            if lanes == HALF:
                sum_windows(y, y, source, at[u:], w, shifted, blocks, HALF, 1, False, 1, 1, True)
            else:
                sum_windows(y, y, source, at[u:], w, shifted, blocks, lanes, 1, False, 1, 1, True)


@row
def sum_blocks(y0, y1, source, at, table, span, blocks, lanes, stride, pair, side_u, side_v):
    """(1) for any kernel, any number of lanes, a row or a pair."""
    if lanes == LANES and side_u == 3 and side_v == 3:
        sum_square(y0, y1, source, at, table, span, blocks, stride, pair, 3)
    elif lanes == LANES and side_u == 5 and side_v == 5:
        sum_square(y0, y1, source, at, table, span, blocks, stride, pair, 5)
    else:
        sum_taps(y0, source, at, table, span, blocks, lanes, side_u, side_v)
        if pair:
            sum_taps(y1, source, at[stride:], table, span, blocks, lanes, side_u, side_v)


@row
def sum_rows(y0, y1, lo, hi, pair, source, at, origin, pixel, table, length, stride, side_u, side_v):
    """(1): numbers lo … hi − 1, whole pixels, of the row y0, or of the ``pair`` y0 and y1.

    ``table``: of the taps, for stretches of ``length`` numbers. Number lo's window begins at at[u] + ``origin``.
    """
    for part in range(2):
        span, blocks, lanes, begin = part_of(
            part, lo, hi, origin, pixel, length, (1, stride), side_u * side_v
        )
        if lanes:
            sum_blocks(y0, y1, source, at, table[begin:], span, blocks, lanes, stride, pair, side_u, side_v)


@row
def sum_phase(y0, y1, source, at, table, span, blocks, lanes, pair, side_u, side_v):
    """(1) of the small windows that dx is made of at a stride of 2, and of all others."""
    small = lanes == LANES and not pair
    if small and side_u == 2 and side_v == 2:
        sum_windows(y0, y0, source, at, table, span, blocks, LANES, 1, False, 2, 2, False)
    elif small and side_u == 2 and side_v == 1:
        sum_windows(y0, y0, source, at, table, span, blocks, LANES, 1, False, 2, 1, False)
    elif small and side_u == 1 and side_v == 2:
        sum_windows(y0, y0, source, at, table, span, blocks, LANES, 1, False, 1, 2, False)
    elif small and side_u == 1 and side_v == 1:
        sum_windows(y0, y0, source, at, table, span, blocks, LANES, 1, False, 1, 1, False)
    elif small and side_u == 3 and side_v == 2:
        sum_windows(y0, y0, source, at, table, span, blocks, LANES, 1, False, 3, 2, False)
    elif small and side_u == 2 and side_v == 3:
        sum_windows(y0, y0, source, at, table, span, blocks, LANES, 1, False, 2, 3, False)
    else:
        sum_blocks(y0, y1, source, at, table, span, blocks, lanes, 1, pair, side_u, side_v)


@row
def correlate_square(d0, d1, source, at, table, span, blocks, stride, pair, side):
    """(2) for K×K taps and all lanes. At stride 1 a pair of rows shares what it loads of the source."""
    if pair and stride == 1:
        correlate_windows(d0, d1, source, at, table, span, blocks, LANES, 1, True, side, side)
    elif pair:
        correlate_windows(d0, d1, source, at, table, span, blocks, LANES, stride, True, side, side)
    else:
        correlate_windows(d0, d1, source, at, table, span, blocks, LANES, stride, False, side, side)


@row
def correlate_taps(d, source, at, table, span, blocks, lanes, side_u, side_v):
    """(2) for one row and any kernel, tap by tap; and for fewer lanes, often HALF: of 24, 40, 72 … channels."""
    lo, hi, step, origin, jump, pixel = span
    for u in range(side_u):
        for v in range(side_v):
            w, shifted = table[(u * side_v + v) * LANES :], (lo, hi, step, origin + v * pixel, jump, pixel)
            if lanes == HALF:
                correlate_windows(d, d, source, at[u:], w, shifted, blocks, HALF, 1, False, 1, 1)
            else:
                correlate_windows(d, d, source, at[u:], w, shifted, blocks, lanes, 1, False, 1, 1)


@row
def correlate_blocks(d0, d1, source, at, table, span, blocks, lanes, stride, pair, side_u, side_v):
    """(2) for any kernel, any number of lanes, a row or a pair."""
    if lanes == LANES and side_u == 3 and side_v == 3:
        correlate_square(d0, d1, source, at, table, span, blocks, stride, pair, 3)
    elif lanes == LANES and side_u == 5 and side_v == 5:
        correlate_square(d0, d1, source, at, table, span, blocks, stride, pair, 5)
    else:
        correlate_taps(d0, source, at, table, span, blocks, lanes, side_u, side_v)
        if pair:
            correlate_taps(d1, source, at[stride:], table, span, blocks, lanes, side_u, side_v)


@row
def correlate_rows(d0, d1, lo, hi, pair, source, at, origin, pixel, table, length, stride, side_u, side_v):
    """(2): the same for rows of dy, into the ``table`` of the taps' gradients."""
    for part in range(2):
        span, blocks, lanes, begin = part_of(
            part, lo, hi, origin, pixel, length, (1, stride), side_u * side_v
        )
        if lanes:
            correlate_blocks(
                d0, d1, source, at, table[begin:], span, blocks, lanes, stride, pair, side_u, side_v
            )
