"""What a net in eight bits does with maps number by number: additions, tables, means, gates, maxima, concatenations.

Each pass is one equation of the page ``eight_bits``, which has its definition:

    to_bytes  (2)  real numbers onto a grid        average  (9)   the mean of a map
    look_up   (7)  an activation                   excite   (10)  a map times its gates
    add       (8)  two maps                        maximum  (11)  the largest of each window
                                                   concat   (12)  maps side by side

None has enough arithmetic to matter: each reads (the maximum: K·K times, from the cache) and writes a byte a number, so the
memory decides. What is left to do is to keep to whole registers. Sums are made in lanes of 32 bits: 4 to 16 bytes are
widened at a time. **The maximum** compares bytes as they are, four a lane: four times as many channels in a register as of
sums. **A table** of 256 bytes lies in four lines of the first-level cache; its lookups are one load each.

Maps are contiguous. The public passes check nothing and return y. ``look_up``, ``add``, ``average`` and ``excite`` have a
``…_step`` beside them, for plans: it gives the kernel and its arguments. Whole numbers: the same bits everywhere.
"""

import numpy as np
from numba import prange

from numnet.kernels._jit import kernel, row, run
from numnet.kernels.eight_bits import Addition, Fixed, Grid, definition_maximum
from numnet.kernels.maps import Window, begin_of, vectors_of
from numnet.kernels.rows import copy
from numnet.kernels.vectors import lanes, width
from numnet.kernels.words import (
    clip,
    larger,
    load_words,
    narrow,
    rescale,
    shift,
    spread,
    store_words,
    widen,
    zero,
)

NUMBERS = 2**15  # that a thread works on at a time: 32 KiB of bytes

# ---------------------------------------------------------------------------------------------- numbers by themselves


@row
def bytes_of_tile(x, grid, y):
    """(2), and how many numbers were NaN. Plain loops, which LLVM makes vectors of."""
    strange = 0
    for i in range(y.size):
        place = np.floor(np.float64(x[i]) / grid.scale + 0.5) + np.float64(grid.zero)
        strange += place != place
        y[i] = np.uint8(np.int32(min(max(place, 0.0), 255.0)))
    return strange


@kernel
def _to_bytes(x, grid, y, strange):
    for tile in prange((y.size + NUMBERS - 1) // NUMBERS):  # each tile writes its own numbers
        first, last = tile * NUMBERS, min((tile + 1) * NUMBERS, y.size)
        strange[tile] = bytes_of_tile(x[first:last], grid, y[first:last])


def to_bytes(x, grid: Grid, y):
    """(2): y uint8 of real numbers x, float32 of the same size. Raises ValueError where one is NaN."""
    strange = np.zeros((y.size + NUMBERS - 1) // NUMBERS, np.int64)
    _to_bytes(x.reshape(-1), Grid(float(grid.scale), int(grid.zero)), y.reshape(-1), strange)
    if strange.any():
        raise ValueError("x: has NaN, which has no place among whole numbers")
    return y


@kernel
def _look_up(x, table, y):
    for tile in prange((y.size + NUMBERS - 1) // NUMBERS):  # each tile writes its own numbers
        first, last = tile * NUMBERS, min((tile + 1) * NUMBERS, y.size)
        source, here = x[first:last], y[first:last]
        for i in range(here.size):
            here[i] = table[source[i]]  # (7)


def look_up(x, table, y):
    """(7): y = table[x], uint8, of one shape; table (256,)."""
    return run(look_up_step, x, table, y)


def look_up_step(x, table, y):
    return _look_up, (x.reshape(-1), table, y.reshape(-1))


@kernel
def _add(x1, x2, a, y, v):
    """(8); a: the Addition. What is left of a tile goes number by number."""
    n = width(v)
    for tile in prange((y.size + NUMBERS - 1) // NUMBERS):  # each tile writes its own numbers
        i, last = tile * NUMBERS, min((tile + 1) * NUMBERS, y.size)
        m1, m2, c = spread(a.m1, v), spread(a.m2, v), spread(a.c, v)
        while i + n <= last:
            total = widen(x1, i, v) * m1 + widen(x2, i, v) * m2 + c
            narrow(y, i, clip(shift(total, a.shift), a.low, a.high))
            i += n
        while i < last:
            total = np.int64(x1[i]) * a.m1 + np.int64(x2[i]) * a.m2 + a.c
            y[i] = min(max(total >> a.shift, a.low), a.high)
            i += 1


def add(x1, x2, addition: Addition, y):
    """(8): y = x1 + x2, uint8, all of one shape; ``addition`` as ``addition_of`` gives it."""
    return run(add_step, x1, x2, addition, y)


def add_step(x1, x2, addition, y):
    return _add, (x1.reshape(-1), x2.reshape(-1), addition, y.reshape(-1), lanes(y.size, np.float32))


@kernel
def _concat(x, table, before, y):
    """(12) for one map: x (R, C_k), y (R, C); table (256,), or (0,) for a copy."""
    rows, channels = x.shape
    step = max(1, NUMBERS // channels)
    for tile in prange((rows + step - 1) // step):  # each tile writes its own pixels of y
        for r in range(tile * step, min((tile + 1) * step, rows)):
            if table.size:
                for c in range(channels):
                    y[r, before + c] = table[x[r, c]]
            else:
                copy(x[r], y[r, before : before + channels])


def concat(parts, tables, y):
    """(12): y (…, C_0 + C_1 + …) of maps (…, C_k), each with its table, or ``NO_TABLE`` where its grid is that of y."""
    before, flat = 0, y.reshape(-1, y.shape[-1])
    for x, table in zip(parts, tables):
        _concat(x.reshape(-1, x.shape[-1]), table, before, flat)
        before += x.shape[-1]
    return y


# ---------------------------------------------------------------------------------------------- channel by channel


def for_channels(fixed: Fixed, channels) -> Fixed:
    """One ratio for all channels: the arrays (1,) as (C,), for vectors of channels to be loaded from."""
    m, c, shift = (
        np.ascontiguousarray(np.broadcast_to(a, channels)) for a in (fixed.m, fixed.c, fixed.shift)
    )
    return Fixed(m, c, shift, fixed.low, fixed.high)


@kernel
def _average(x, fixed, y, v):
    """(9) for bytes as they are: x (N, H·W, C), y (N, C)."""
    pixels, channels = x.shape[1], x.shape[2]
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    count, whole = vectors_of(channels, v), max(channels // width(v), 1)
    # Each part writes its own vector of means; a last vector that overlaps the one before goes with that.
    for part in prange(x.shape[0] * whole):
        n, i = part // whole, part % whole
        for k in range(i, count if i == whole - 1 else i + 1):
            f = begin_of(k, channels, v)
            total, at = zero(v), n * pixels * channels + f
            for _ in range(pixels):
                total = total + widen(flat_x, at, v)
                at += channels
            narrow(flat_y, n * channels + f, rescale(total, fixed, f))


def for_means(fixed: Fixed, zero_x, pixels, channels) -> Fixed:
    """What ``average`` takes: a Fixed with arrays (1,), as in (13) with weights of 1, for all channels."""
    return for_channels(fixed._replace(c=fixed.c - zero_x * pixels * fixed.m), channels)


def average(x, fixed: Fixed, y):
    """(9): y (N, C), uint8, the means of x (N, H, W, C); fixed: as ``for_means`` makes it."""
    return run(average_step, x, fixed, y)


def average_step(x, fixed, y):
    return _average, (x.reshape(len(x), -1, x.shape[3]), fixed, y, lanes(x.shape[3], np.float32))


@kernel
def _excite(x, zero_x, gates, zero_g, fixed, y, v):
    """(10): x, y (N, H·W, C)."""
    pixels, channels = x.shape[1], x.shape[2]
    flat_x, flat_y, flat_g = x.reshape(-1), y.reshape(-1), gates.reshape(-1)
    for pixel in prange(x.shape[0] * pixels):  # each pixel writes its own numbers
        for i in range(vectors_of(channels, v)):
            f = begin_of(i, channels, v)
            gate = widen(flat_g, pixel // pixels * channels + f, v) - spread(zero_g, v)
            total = (widen(flat_x, pixel * channels + f, v) - spread(zero_x, v)) * gate
            narrow(flat_y, pixel * channels + f, rescale(total, fixed, f))


def excite(x, zero_x, gates, zero_g, fixed: Fixed, y):
    """(10): y (N, H, W, C), uint8, of x and gates (N, C); zero_x, zero_g: of both; fixed: of ``for_channels``."""
    return run(excite_step, x, zero_x, gates, zero_g, fixed, y)


def excite_step(x, zero_x, gates, zero_g, fixed, y):
    shape = len(x), x.shape[1] * x.shape[2], x.shape[3]
    v = lanes(shape[2], np.float32)
    return _excite, (x.reshape(shape), int(zero_x), gates, int(zero_g), fixed, y.reshape(shape), v)


# ---------------------------------------------------------------------------------------------- windows


@kernel
def _maximum(x, window, y, v):
    """(11). A vector has four times as many channels as ``v`` lanes."""
    (h, w, channels), (p, q), n = x.shape[1:], y.shape[1:3], 4 * width(v)
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    for r in prange(y.shape[0] * p):  # each row of y is written by itself
        top = r % p * window.stride - window.top
        for k in range(q):
            left = k * window.stride - window.left
            for c in range(0, channels, n):
                at, best = min(c, channels - n), zero(v)  # 0: no byte is smaller
                for i in range(max(top, 0), min(top + window.side, h)):
                    for j in range(max(left, 0), min(left + window.side, w)):
                        pixel = (r // p * h + i) * w + j
                        best = larger(best, load_words(flat_x, pixel * channels + at, v))
                store_words(flat_y, (r * q + k) * channels + at, best)


def maximum(x, window: Window, y):
    """(11): y (N, P, Q, C), uint8, the largest numbers of the windows of x (N, H, W, C), whose grid it has.

    Every window meets the image. Fewer than 4 channels, less than a word, go by the definition.
    """
    channels = y.shape[3]
    if channels < 4:
        return definition_maximum(x, window, y)
    if y.size:
        _maximum(x, window, y, lanes(channels // 4, np.float32))
    return y
