"""Windows that slide along a row, on registers: what a depthwise convolution spends its time with.

The rows of x that a window sees lie in a flat array and begin at its numbers ``at`` (page ``ring``). For one channel
an output row y, and what a row d of dy adds to dw:

(1)  y[q]    = Σ_uv flat[at[u] + q·s + v] · w[u, v]          for all pixels q: ``convolve``
(2)  dw[u,v] += Σ_q flat[at[u] + q·s + v] · d[q]             for all taps u, v: ``correlate``

with one number for each channel in every place, so a vector holds the same tap of 4 to 16 channels. (2) is (1) with the roles
changed. In (1) the sums of up to eight pixels stay in registers while the weights go by, a row of them at a time. In (2) the
sums of the taps stay there while the pixels of d go by, four at a time. Both are the one name ``add_taps`` of ``tiles``:

    (1)  rows of the tile: pixels q, q + 1, …        taps of ``add_taps``: the K weights of row u
    (2)  rows and columns of the tile: taps v, u     taps of ``add_taps``: four pixels of d

How many go together has to be known when the kernel is compiled, since each sum is a register. So functions here are handed
tiles of zeros, ``sums`` and ``like``: what counts is their shape, so many pixels and so many taps.

Each sum of (1) begins with a number of its channel (0, or inference's shift) and adds tap after tap; each of (2) adds pixel
after pixel. So the bits do not depend on how many pixels or taps go together, nor on the lanes.

MACs: K·K·Q·C in each.
"""

from typing import NamedTuple

import numpy as np

from numnet.kernels._jit import row
from numnet.kernels.maps import begin_of, padded, vectors_of
from numnet.kernels.rows import add, zero_row
from numnet.kernels.tiles import add_taps, load_tile, store_tile, zeros
from numnet.kernels.vectors import width


class Line(NamedTuple):
    """Output pixels side by side, and how their windows lie in a ring."""

    pixels: int
    side: int  # taps in a row of the window
    channels: int
    read: int  # numbers from one pixel's window to the next one's
    write: int  # numbers from one output pixel to the next
    lanes: np.integer


@row(inline=True)
def sum_window(sums, like, flat, at, w, c, q, line):
    """(1) for the vector c of the pixels q, q + 1, …: ``sums`` gain their windows, ``len(like)`` taps of a row at a time."""
    t = c
    for u in range(at.size):
        for v in range(0, line.side, len(like)):
            weights = load_tile(like, w, t, line.channels, (0,))
            place = at[u] + v * line.channels + q * line.read + c
            # At stride 1 neighbours share pixels. Both calls then mean the same, but the first *says* that pixels lie as far
            # apart as taps: so LLVM sees which loads are equal, and loads each pixel once.
            if line.read == line.channels:
                sums = add_taps(sums, flat, place, line.channels, (0,), line.channels, weights)
            else:
                sums = add_taps(sums, flat, place, line.read, (0,), line.channels, weights)
            t += len(like) * line.channels
    return sums


@row(inline=True)
def convolve_pixels(sums, like, flat, at, w, shift, line, y):
    """(1) for the pixels of a line, as many at a time as ``sums`` has; those left over at the end are left out.

    Sums begin with ``shift``.
    """
    v = line.lanes
    for q in range(0, line.pixels - len(sums) + 1, len(sums)):
        for j in range(vectors_of(line.channels, v)):
            c = begin_of(j, line.channels, v)
            total = sum_window(load_tile(sums, shift, c, 0, (0,)), like, flat, at, w, c, q, line)
            store_tile(total, y, q * line.write + c, line.write, (0,))


@row
def at_once(pixels, side):
    """How many pixels of a line go together.

    The more they are, the fewer loads a product needs: of 3×3 taps at stride 1 four pixels load 18 pixels of x and 9 vectors
    of weights for 36 products, eight load 30 and 9 for 72. The sides of maps are 7, 14, 28 or 8, 16, 32, 56, 112. With 7 at
    a time maps of 7×7 are 1.6 times as fast as with 4 and then 3 singly, with 8 those of 16×16 1.1 times (a core of a Zen 4).
    """
    # the usual windows; others have a loop for 4 only, since each loop is compiled
    if side == 3 or side == 5:
        if pixels % 8 == 0:
            return 8
        if pixels % 7 == 0:
            return 7
    return 4


@row(inline=True)
def convolve_line(like, flat, at, w, shift, line, y):
    """(1) for the pixels of a line that go together, with a usual window."""
    step = at_once(line.pixels, line.side)
    if step == 8:
        convolve_pixels(zeros(y, 8, 1, line.lanes), like, flat, at, w, shift, line, y)
    elif step == 7:
        convolve_pixels(zeros(y, 7, 1, line.lanes), like, flat, at, w, shift, line, y)
    else:
        convolve_pixels(zeros(y, 4, 1, line.lanes), like, flat, at, w, shift, line, y)


@row(inline=True)
def convolve(flat, at, w, shift, line, y):
    """(1) for a line: as many pixels at a time as ``at_once`` says, a row of the window's taps at a time; the rest singly.

    Both numbers are constants of the loops, each of which is compiled. The rest, and windows of unusual sides, go tap by tap.
    """
    one, four, lanes = zeros(y, 1, 1, line.lanes), zeros(y, 4, 1, line.lanes), line.lanes
    if line.side == 3:
        convolve_line(zeros(y, 3, 1, lanes), flat, at, w, shift, line, y)
    elif line.side == 5:
        convolve_line(zeros(y, 5, 1, lanes), flat, at, w, shift, line, y)
    elif line.side == 2:  # a phase of dx at stride 2
        convolve_pixels(four, zeros(y, 2, 1, lanes), flat, at, w, shift, line, y)
    else:
        convolve_pixels(four, one, flat, at, w, shift, line, y)
    rest = line.pixels % at_once(line.pixels, line.side)
    if rest > 0:
        done = line.pixels - rest
        last = Line(rest, line.side, line.channels, line.read, line.write, lanes)
        convolve_pixels(one, one, flat[done * line.read :], at, w, shift, last, y[done * line.write :])


@row(inline=True)
def correlate_line(like, flat, starts, d, line, sums, first, apart):
    """(2) for one row d and a block of taps, as many as ``like`` has: its rows begin at the numbers ``starts``.

    Their sums begin at number ``first`` of ``sums``, those of each row of the block ``apart`` from there.
    """
    v, channels, by_four = line.lanes, line.channels, line.pixels // 4 * 4
    for j in range(vectors_of(channels, v)):
        c, own = begin_of(j, channels, v), first + j * width(v)
        tile = load_tile(like, sums, own, padded(channels, v), apart)
        for q in range(0, by_four, 4):
            dys = load_tile(zeros(d, 4, 1, v), d, q * channels + c, channels, (0,))
            if line.read == channels:  # see ``sum_window``
                tile = add_taps(tile, flat, q * channels + c, channels, starts, channels, dys)
            else:
                tile = add_taps(tile, flat, q * line.read + c, channels, starts, line.read, dys)
        for q in range(by_four, line.pixels):
            dys = load_tile(zeros(d, 1, 1, v), d, q * channels + c, channels, (0,))
            tile = add_taps(tile, flat, q * line.read + c, channels, starts, line.read, dys)
        store_tile(tile, sums, own, padded(channels, v), apart)


@row(inline=True)
def correlate(ring, d, line, sums):
    """(2) for one row d: ``sums`` (K·K, ``padded``) gain its products.

    Taps go together while the registers hold their sums: the 9 of 3×3, two rows of 5×5. The last row of 5×5 and those of
    other windows go tap by tap.
    """
    at, v, u = ring.at, line.lanes, 0
    tap = padded(line.channels, v)  # numbers of a tap, and of a row of taps
    row_ = line.side * tap
    if at.size == 3 and line.side == 3:
        starts, apart = (at[0], at[1], at[2]), (0, row_, 2 * row_)
        correlate_line(zeros(d, 3, 3, v), ring.flat, starts, d, line, sums, 0, apart)
        u = 3
    while line.side == 5 and u + 2 <= at.size:
        starts = (at[u], at[u + 1])
        correlate_line(zeros(d, 5, 2, v), ring.flat, starts, d, line, sums, u * row_, (0, row_))
        u += 2
    while u < at.size:
        for t in range(line.side):
            start = (at[u] + t * line.channels,)
            correlate_line(zeros(d, 1, 1, v), ring.flat, start, d, line, sums, u * row_ + t * tap, (0,))
        u += 1


@row(inline=True)
def flush(sums, v, dw):
    """dw (K·K, C·M) in float64 gains the sums (K·K, ``padded``), which are 0 then."""
    (taps, channels), size = dw.shape, sums.size // dw.shape[0]
    whole = channels // width(v) * width(v)  # of the vector that overlaps, only the other channels are new
    for tap in range(taps):
        mine = sums[tap * size : (tap + 1) * size]
        add(dw[tap, :whole], mine[:whole])
        add(dw[tap, whole:], mine[size - (channels - whole) :])
    zero_row(sums)
