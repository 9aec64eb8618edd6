"""Sums over K×K windows of rows: what a depthwise convolution and its two gradients do to long vectors.

A *window* is K rows of a source, each shifted by 0 … K − 1 pixels. With at[r], the place where row r of it begins in the
source, C numbers a pixel, and a filter's weight, a *tap* (u, v):

(1)  y[o]       =  Σ_uv source[at[u] + v·C + s·o] · w[u, v]         ``sum_rows``, ``sum_phase``
(2)  dw[u, v]  +=  Σ_o  source[at[u] + v·C + s·o] · dy[o]           ``correlate_rows``

What bounds both are loads, two for a product unless something stays in a register: a core of the machine in the README
loads 2 · 10⁹ vectors of 64 bytes a second, and can multiply and add 5 · 10⁹.

**Rows in pairs.** Two rows of y, or of dy, go through one sweep. A weight is loaded once for both; and at stride 1 the second
row's window is the first one's, one row further down, so that they share what they load of x: for K = 3, 12 loads
for 18 products.

**(1) goes along the row.** A sum stays in a register from its first tap to its last, and y is written once, in one long
stream, which is what the memory likes best. So the weights are loaded for every stretch: they are repeated along a stretch of
L numbers (see the page ``rows``), cut where those of all taps would not stay in the first-level cache.

**(2) goes down the row, sixteen channels at a time.** It writes nothing but K·K sums for a channel. For LANES = 16 channels
these are K·K vectors of 64 bytes, 9 or 25, and a processor with vectors of 512 bits has 32 registers. So the loop over
the pixels is the inner one, over its channels only as many as a vector has, and the sums stay in registers while the pixels
go by: for K = 3, seven loads for nine products. (As (1) goes, with a load and a store of each sum for every stretch, (2) and
the copying of its rows took 1.4 times as long, and with K = 5 four to seven times: too many addresses for the compiler to
keep apart. (1) as (2) goes is faster in a cache, and up to a quarter slower on whole maps: what it writes has gaps.)

How the compiler is brought to do that: the loop over the lanes has a constant length, and so have those over u and v,
which are unrolled; the table of sums is cut into stretches of LANES, [block, tap, lane], so that all its places are
constants, too; and the two rows are two arrays, which cannot overlap. Then no test of two addresses stands between the
loop over the pixels and the vectors inside, and LLVM moves the table's loads and stores out of the loop.

Where C is no multiple of 16, what (2) takes at a time is several pixels at stride 1, lcm(C, 16) numbers; at stride s the next
pixel's window begins s pixels further on, so that it is one pixel, and its last lanes may be fewer than 16. Those go
tap by tap, as all do for K other than 3 and 5.
"""

from math import gcd

import numpy as np

from numnet.kernels._jit import row
from numnet.kernels.rows import LANES, line_up, row_length, zero

PAIR = 2  # rows of y, or of dy, that go through one sweep
WEIGHTS = 6144  # numbers of repeated taps in use at a time: 24 KiB of float32, half a first-level cache
HALF = LANES // 2
_u = np.uint64


# ---------------------------------------------------------------------------------------------- (1)


@row
def stretch(channels, stride, count):
    """L, the numbers of a stretch in (1): many pixels at stride 1, fewer if there are many taps; one pixel at others."""
    length = row_length(channels) if stride == 1 else channels
    while count * length > WEIGHTS and length % (2 * channels) == 0:
        length //= 2
    return length


@row
def block_width(length, count):
    """Numbers of a stretch that are worked on at a time, so that those of ``count`` taps stay in the first-level cache."""
    blocks = (count * length + WEIGHTS - 1) // WEIGHTS
    return ((length + blocks - 1) // blocks + LANES - 1) // LANES * LANES


@row
def sum_windows(y0, y1, source, at, first, pixel, taps, length, n, stride, pair, side_u, side_v):
    """(1): n numbers of the row y0, or of the ``pair`` y0 and y1; row r of their windows begins at at[r] + first.

    Where it is called, ``pair`` and the sides are constants, so that the inner loops are unrolled, and so is a stride of 1.
    """
    first, pixel, length = _u(first), _u(pixel), _u(length)
    for i in range(_u(n)):
        total0, total1 = y0.dtype.type(0), y0.dtype.type(0)
        for u in range(_u(side_u)):
            for v in range(_u(side_v)):
                weight = taps[(u * _u(side_v) + v) * length + i]
                total0 += source[_u(at[u]) + first + v * pixel + i] * weight
                if pair:
                    total1 += source[_u(at[_u(stride) + u]) + first + v * pixel + i] * weight
        y0[i] = total0
        if pair:
            y1[i] = total1


@row
def sum_square(y0, y1, source, at, first, pixel, taps, length, n, stride, pair, side):
    """(1) for K×K taps. At stride 1 the rows of a pair share what they load of x, too."""
    if pair and stride == 1:
        sum_windows(y0, y1, source, at, first, pixel, taps, length, n, 1, True, side, side)
    elif pair:
        sum_windows(y0, y1, source, at, first, pixel, taps, length, n, stride, True, side, side)
    else:
        sum_windows(y0, y1, source, at, first, pixel, taps, length, n, stride, False, side, side)


@row
def add_tap(y, source, at, taps, n):
    """y += source[at …] · tap, n numbers."""
    at = _u(at)
    for i in range(_u(n)):
        y[i] += source[at + i] * taps[i]


@row
def sum_taps(y, source, at, first, pixel, taps, length, n, side_u, side_v):
    """(1) for one row and kernels of any other size, tap by tap."""
    zero(y[:n])
    for u in range(side_u):
        for v in range(side_v):
            add_tap(y, source, at[u] + first + v * pixel, taps[(u * side_v + v) * length :], n)


@row
def sum_rows(y0, y1, lo, hi, pair, source, at, origin, pixel, taps, length, stride, side_u, side_v):
    """(1): numbers lo … hi − 1, whole pixels, of the row y0, or of the ``pair`` y0 and y1.

    A tap is ``length`` numbers long, a pixel repeated. Number lo's window begins at at[u] + ``origin``.
    """
    width = block_width(length, side_u * side_v)
    for block in range(0, min(length, hi - lo), width):
        w = taps[block:]
        for o in range(lo + block, hi, length):
            n = min(width, length - block, hi - o)
            a = origin + block + (o - lo - block) * stride
            if side_u == 3 and side_v == 3:
                sum_square(y0[o:], y1[o:], source, at, a, pixel, w, length, n, stride, pair, 3)
            elif side_u == 5 and side_v == 5:
                sum_square(y0[o:], y1[o:], source, at, a, pixel, w, length, n, stride, pair, 5)
            else:
                sum_taps(y0[o:], source, at, a, pixel, w, length, n, side_u, side_v)
                if pair:
                    sum_taps(y1[o:], source, at[stride:], a, pixel, w, length, n, side_u, side_v)


@row
def sum_phase(y, lo, hi, step, source, at, origin, pixel, taps, side_u, side_v):
    """(1) of small windows for pixels that are ``step`` numbers apart in the row y: a phase of dx at a stride, mostly 2."""
    for o in range(lo, hi, step):
        a, out = origin + (o - lo) // step * pixel, y[o:]
        if side_u == 2 and side_v == 2:
            sum_windows(out, out, source, at, a, pixel, taps, pixel, pixel, 1, False, 2, 2)
        elif side_u == 2 and side_v == 1:
            sum_windows(out, out, source, at, a, pixel, taps, pixel, pixel, 1, False, 2, 1)
        elif side_u == 1 and side_v == 2:
            sum_windows(out, out, source, at, a, pixel, taps, pixel, pixel, 1, False, 1, 2)
        elif side_u == 3 and side_v == 3:
            sum_windows(out, out, source, at, a, pixel, taps, pixel, pixel, 1, False, 3, 3)
        elif side_u == 3 and side_v == 2:
            sum_windows(out, out, source, at, a, pixel, taps, pixel, pixel, 1, False, 3, 2)
        elif side_u == 2 and side_v == 3:
            sum_windows(out, out, source, at, a, pixel, taps, pixel, pixel, 1, False, 2, 3)
        else:
            sum_taps(out, source, at, a, pixel, taps, pixel, pixel, side_u, side_v)


# ---------------------------------------------------------------------------------------------- (2)


@row
def together(channels, stride):
    """Numbers that (2) takes at a time: whole pixels, and whole vectors, at stride 1; one pixel at any other."""
    return channels * (LANES // gcd(channels, LANES)) if stride == 1 else channels


@row
def empty_table(taps, length, like):
    """The sums of (2) for ``taps`` taps, zero, as a table [block, tap, lane] for ``length`` numbers at a time, flat."""
    return line_up((length + LANES - 1) // LANES * taps * LANES, like)


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
# numbers of each. Where ``correlate_windows`` is called, lanes, pair and the sides are constants, and so is a stride of 1.


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
def part_of(part, lo, hi, origin, pixel, length, stride, taps):
    """What has whole vectors (part 0), and what has not (1): its span, its blocks, its lanes, its place in the table.

    At stride 1 the last stretch may end within a block, at another each of them; no lanes: there is no such part.
    """
    size, jump = taps * LANES, length * stride
    if part == 0:
        return (lo, hi, length, origin, jump, pixel), (min(length, hi - lo) // LANES, size), LANES, 0
    last = (hi - lo) % length if stride == 1 else length
    lanes, block = last % LANES, last // LANES
    place = hi - lanes if stride == 1 else lo + block * LANES
    return (place, hi, length, origin + place - lo, jump, pixel), (1, size), lanes, block * size


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
        span, blocks, lanes, begin = part_of(part, lo, hi, origin, pixel, length, stride, side_u * side_v)
        if lanes:
            correlate_blocks(
                d0, d1, source, at, table[begin:], span, blocks, lanes, stride, pair, side_u, side_v
            )
