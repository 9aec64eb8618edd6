"""The fast passes of arithmetic in eight bits: the equations of the page ``eight_bits``, on the registers of ``words``.

A float takes four bytes, so a map in eight bits is a quarter of the traffic, and VNNI's ``dot`` makes four multiply-adds
a lane in the time of one. What is left to do is to keep ``dot`` fed, and to make the end of a sum, equation (6), cheap.

**The product** (1×1 and dense layers) is that of the page ``product``: 6 × 2 registers of sums, panels of packed weights.
Four numbers of x make a word: the weights of a panel lie as [numbers / 4][vectors][lanes][4], and a step spreads four
bytes of x. Numbers that four does not divide end in zeros of w. **A convolution** is the same product: the K·C numbers
that a row of its window sees lie side by side in the image, so its sums walk over K such rows. No patches are gathered.
Only the image's rows are copied into a tile, with the zero point around them.

**Depthwise** has no sum over channels, so the four bytes of a word are four *taps* side by side in a row of the window. The
words of an image row, [pixel][channel][4 neighbours], are put together once, each from its neighbour by ``slide``, in a
tile that stays in the second-level cache. They serve all K rows of the window and all output rows that see them: 3 dots for
3×3, 10 for 5×5, where floats need 9 and 25 fma. Beside the image they are full of the zero point, so no border is a special
case.

**The maximum** of a window compares whole bytes, four a lane, so a register holds four times as many channels as of sums.

**Zero point.** Σ (x − zero) · w = Σ x · w − zero · Σ w, and the second sum is known when the weights are packed: it goes
into c. **End of a sum**: one multiply-add and one shift in 64 bits, two bounds, one store of bytes.

**Same bits.** Whole numbers: any order, any lanes, any number of threads, any processor.

MACs: those of the float layers.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from numnet.errors import NumnetError
from numnet.kernels import _memory
from numnet.kernels._jit import kernel, row
from numnet.kernels.eight_bits import LIMIT, Fixed, definition_maximum
from numnet.kernels.maps import begin_of, share, vectors_of
from numnet.kernels.product import FEW, ROWS, VECTORS
from numnet.kernels.rows import copy, line_up
from numnet.kernels.vectors import lanes, number_of, width
from numnet.kernels.words import (
    add_dots,
    add_words,
    between,
    finish_tile,
    larger,
    load_word,
    load_words,
    noughts,
    noughts_tile,
    put,
    put_word,
    rescale,
    same,
    shift,
    slide,
    widen,
)

TILE = 96  # pixels of a product's tile
MAPS = 32  # channels of a depthwise tile, at most
PIXELS = 6  # of a row that a depthwise pass has under way
WORDS = 2**18  # bytes of words in a depthwise tile, about
ROOM = 2**15  # bytes of the rows in a convolution's tile, about
NUMBERS = 2**15  # of a tile of an elementwise pass
SLACK = 64  # bytes behind each map that passes may read, and whose values mean nothing


def empty(shape, dtype=np.uint8) -> np.ndarray:
    """A map with ``SLACK`` behind it; the passes here read such maps only."""
    size = int(np.prod(shape, dtype=np.int64))
    return _memory.empty(size + SLACK, dtype)[:size].reshape(shape)


class Packed(NamedTuple):
    """Weights and what follows them, ready for the passes."""

    words: np.ndarray  # bytes (int8)
    rows: int  # of the window
    deep: int  # numbers in a row of the window, a multiple of 4 (product); or words in it (depthwise)
    columns: int  # filters
    m: np.ndarray
    c: np.ndarray
    s: np.ndarray
    low: int
    high: int
    zero: int  # of x
    table: np.ndarray  # (256,) or (0,): equation (7)
    lanes: np.integer


class Frame(NamedTuple):
    """A window over images."""

    side: int
    stride: int
    top: int
    left: int


NO_TABLE = np.empty(0, np.uint8)


def _closed(w, zero, fixed: Fixed, table, words, size, v) -> Packed:
    """Everything but the order of the weights; w (products, F); size: (rows, deep). NumnetError where 32 bits are too few."""
    w = w.astype(np.int64)
    sums = np.abs(w).sum(axis=0)
    least = -zero * np.maximum(w, 0).sum(axis=0) + (255 - zero) * np.minimum(w, 0).sum(axis=0)
    most = (255 - zero) * np.maximum(w, 0).sum(axis=0) - zero * np.minimum(w, 0).sum(axis=0)
    c = fixed.c - zero * w.sum(axis=0) * fixed.m
    for end in (least, most):  # in Python's integers, which have no end
        for total, m, c_, s in zip(end.tolist(), fixed.m.tolist(), fixed.c.tolist(), fixed.s.tolist()):
            if abs((total * m + c_) >> s) > LIMIT:
                raise NumnetError("quantise: a layer's sums leave 32 bits; its output's range is too small")
    if 255 * sums.max(initial=0) > LIMIT or int(np.abs(c.astype(np.float64)).max(initial=0)) >= 2**62:
        raise NumnetError("quantise: a layer's sums leave 32 bits")
    longs = (np.ascontiguousarray(a, np.int64) for a in (fixed.m, c, fixed.s))
    bounds = np.int64(fixed.low), np.int64(fixed.high)
    rows, deep = map(np.int64, size)
    return Packed(words, rows, deep, w.shape[1], *longs, *bounds, np.int64(zero), table, v)


def pack(w, zero, fixed: Fixed, table=NO_TABLE) -> Packed:
    """w (K, K·C, F) int8, of 1×1 and dense layers (1, C, F), for the product: panels of words. ``zero``: of x."""
    rows, deep, columns = w.shape
    v = lanes(columns, np.float32)
    n, count = number_of(v), -(-columns // number_of(v))
    padded = np.zeros((rows, -(-deep // 4) * 4, columns), np.int8)
    padded[:, :deep] = w
    size = padded.shape[:2]
    padded = padded.reshape(-1, 4, columns).transpose(0, 2, 1)  # (words, F, 4)
    panels, j = [], 0
    while j < count:
        held = VECTORS if j + VECTORS <= count else 1
        begins = [min(i * n, columns - n) for i in range(j, j + held)]
        panels.append(np.stack([padded[:, begin : begin + n] for begin in begins], axis=1).reshape(-1))
        j += held
    words = np.concatenate(panels) if panels else np.empty(0, np.int8)
    aligned = _memory.empty(words.size, np.int8)
    aligned[:] = words
    return _closed(w.reshape(-1, columns), zero, fixed, table, aligned, size, v)


def pack_depthwise(w, zero, fixed: Fixed, table=NO_TABLE) -> Packed:
    """w (K, K, C) int8 for the depthwise pass: [row of the window][word][channel][4 taps]."""
    rows, side, channels = w.shape
    groups = -(-side // 4)
    padded = np.zeros((rows, groups * 4, channels), np.int8)
    padded[:, :side] = w
    words = padded.reshape(rows, groups, 4, channels).transpose(0, 1, 3, 2).reshape(-1)
    v = lanes(channels, np.float32)
    flat = w.reshape(-1, channels)
    return _closed(flat, zero, fixed, table, np.ascontiguousarray(words), (rows, groups), v)


# ---------------------------------------------------------------------------------------------- the product


class Panel(NamedTuple):
    """Columns of w that a product walks through together."""

    at: int  # in ``Packed.words``
    places: tuple  # where in a step of four channels its vectors begin
    columns: tuple  # where in a row of y


class Rows(NamedTuple):
    """Where the rows of a product begin in x: row r at at + r · step, and its next row of the window ``line`` further."""

    at: int
    step: int
    line: int


@row
def multiply_rows(tile, x, a, b, panel, y, to):
    """Some rows of y in the columns of a panel."""
    place, n = panel.at, 4 * width(b.lanes) * len(panel.places)
    for u in range(b.rows):
        at = a.at + u * a.line
        for k in range(0, b.deep, 4):
            tile = add_dots(tile, x, at + k, a.step, load_words(b.words, place, panel.places, b.lanes))
            place += n
    finish_tile(tile, y, to, b.columns, panel.columns, (b.m, b.c, b.s), (b.low, b.high))


@row
def multiply_panel(x, a, rows, b, panel, y, to):
    """All rows of y in the columns of a panel."""
    r = 0
    while rows - r >= ROWS:
        tile = noughts_tile(panel.places, ROWS, b.lanes)
        here = Rows(a.at + r * a.step, a.step, a.line)
        multiply_rows(tile, x, here, b, panel, y, to + r * b.columns)
        r += ROWS
    while rows - r >= FEW:
        tile = noughts_tile(panel.places, FEW, b.lanes)
        here = Rows(a.at + r * a.step, a.step, a.line)
        multiply_rows(tile, x, here, b, panel, y, to + r * b.columns)
        r += FEW
    while rows > r:
        tile = noughts_tile(panel.places, 1, b.lanes)
        here = Rows(a.at + r * a.step, a.step, a.line)
        multiply_rows(tile, x, here, b, panel, y, to + r * b.columns)
        r += 1


@row
def column(b, j):
    """The column at which vector j begins."""
    return begin_of(j, b.columns, b.lanes)


@row
def multiply(x, a, rows, b, y, to):
    """``rows`` rows of y, from number ``to``, of rows of x."""
    j, count, n = 0, vectors_of(b.columns, b.lanes), 4 * width(b.lanes)
    while j < count:
        columns = (column(b, j), column(b, j + 1), column(b, j + 2), column(b, j + 3))
        first, places = j * width(b.lanes) * b.deep * b.rows, (0, n, 2 * n, 3 * n)
        if j + VECTORS <= count:
            multiply_panel(x, a, rows, b, Panel(first, places[:VECTORS], columns[:VECTORS]), y, to)
            j += VECTORS
        else:
            multiply_panel(x, a, rows, b, Panel(first, places[:1], columns[:1]), y, to)
            j += 1
    if b.table.size:
        for i in range(to, to + rows * b.columns):  # (7), while the numbers are hot
            y[i] = b.table[y[i]]


@kernel
def _product(x, rows, b, y):
    step = x.size // max(rows, 1)
    for tile in prange((rows + TILE - 1) // TILE):  # each tile writes its own rows of y
        first = tile * TILE
        multiply(x, Rows(first * step, step, 0), min(TILE, rows - first), b, y, first * b.columns)


@row
def frame_row(x, at, size, left, zero, out):
    """out = a row of ``size`` numbers of x from ``at`` on, or, at −1, none; with the zero point before and behind."""
    inside = min(max(size, 0), out.size - left) if at >= 0 else 0
    begin = left if at >= 0 else 0
    for i in range(begin):
        out[i] = zero
    for i in range(inside):
        out[begin + i] = x[at + i]
    for i in range(begin + inside, out.size):
        out[i] = zero


@kernel
def _conv(x, frame, b, y, rows):
    """rows: of y, in a tile."""
    (h, w, channels), (p, q) = x.shape[1:], y.shape[1:3]
    flat_x, flat_y, high = x.reshape(-1), y.reshape(-1), (p + rows - 1) // rows
    step = frame.stride * channels
    line = (q - 1) * step + b.deep
    for tile in prange(y.shape[0] * high):  # each tile writes its own rows of y
        n, first = tile // high, tile % high * rows
        done = min(rows, p - first)
        framed = line_up(((rows - 1) * frame.stride + b.rows) * line, flat_x)
        for k in range((done - 1) * frame.stride + b.rows):
            i = first * frame.stride - frame.top + k
            at = (n * h + i) * w * channels if 0 <= i < h else -1
            out = framed[k * line : (k + 1) * line]
            frame_row(flat_x, at, w * channels, frame.left * channels, b.zero, out)
        for k in range(done):
            a = Rows(k * frame.stride * line, step, line)
            multiply(framed, a, q, b, flat_y, ((n * p + first + k) * q) * b.columns)


# ---------------------------------------------------------------------------------------------- depthwise


@row
def slide_over(known, x, here, j, count, row_, v):
    """The word after ``count`` more pixels, from pixel j on; here: where pixel 0 of the row begins."""
    w, step, zero = row_
    for k in range(j, j + count):
        if 0 <= k < w:
            known = slide(known, widen(x, here + k * step, v))
        else:
            known = slide(known, same(zero, v))
    return known


@row
def words_of_row(x, at, wide, step, channels, zero, out, v):
    """Words of the neighbours j … j + 3 of every ``unit``-th pixel j from −left on.

    at: where pixel 0 of the row begins in x, or −1 for a row outside of the image; wide: (pixels in the row, left, words,
    unit); step: channels in a pixel of x; channels: (first, how many).
    """
    w, left, count, unit = wide
    first, held = channels
    w = w if at >= 0 else 0
    # Words low … high − 1 gain pixels inside of the image only.
    low = min(max((left - 4 + 2 * unit - 1) // unit, 0), count)
    high = min(max((w - 4 + left) // unit + 1, low), count) if w > 0 and unit < 3 else low
    for i in range(vectors_of(held, v)):
        c = begin_of(i, held, v)
        here, row_ = at + first + c, (w, step, zero)
        known = slide_over(noughts(v), x, here, -left, 4 - unit, row_, v)
        for k in range(low):
            known = slide_over(known, x, here, k * unit - left + 4 - unit, unit, row_, v)
            put_word(out, (k * held + c) * 4, known)
        place = here + (low * unit - left + 4 - unit) * step
        if unit == 1:
            for k in range(low, high):
                known = slide(known, widen(x, place, v))
                put_word(out, (k * held + c) * 4, known)
                place += step
        elif unit == 2:
            for k in range(low, high):
                known = slide(slide(known, widen(x, place, v)), widen(x, place + step, v))
                put_word(out, (k * held + c) * 4, known)
                place += 2 * step
        for k in range(high, count):
            known = slide_over(known, x, here, k * unit - left + 4 - unit, unit, row_, v)
            put_word(out, (k * held + c) * 4, known)


class Taps(NamedTuple):
    """What a depthwise pass over the words of a tile must know."""

    rows: int  # of the window
    line: int  # bytes of words of an image row
    step: int  # bytes from the word of an output pixel to the next one's
    group: int  # bytes from a pixel's word to the word four taps on
    first: int  # channel of the tile


@row
def sum_pixels(tile, words, at, taps, b, c, y, to):
    """As many pixels of y as the tile has, in one vector of channels: channel c of the tile."""
    for u in range(taps.rows):
        for g in range(b.deep):
            w = load_word(b.words, ((u * b.deep + g) * b.columns + taps.first + c) * 4, b.lanes)
            tile = add_words(tile, words, at + u * taps.line + g * taps.group + 4 * c, taps.step, w)
    f = (taps.first + c,)
    finish_tile(tile, y, to, b.columns, f, (b.m, b.c, b.s), (b.low, b.high))


@row
def sum_row(words, at, taps, b, held, y, to, count):
    """``count`` pixels of an output row in the ``held`` channels of a tile; y holds the row's first number at ``to``."""
    for i in range(vectors_of(held, b.lanes)):
        c, q = begin_of(i, held, b.lanes), 0
        while count - q >= PIXELS:
            tile = noughts_tile((0,), PIXELS, b.lanes)
            sum_pixels(tile, words, at + q * taps.step, taps, b, c, y, to + q * b.columns)
            q += PIXELS
        while q < count:
            tile = noughts_tile((0,), 1, b.lanes)
            sum_pixels(tile, words, at + q * taps.step, taps, b, c, y, to + q * b.columns)
            q += 1
    if b.table.size:
        for q in range(count):
            for c in range(held):
                k = to + q * b.columns + taps.first + c
                y[k] = b.table[y[k]]


@kernel
def _depthwise(x, frame, b, y, cut):
    """cut: (output rows of a tile, channels of a tile)."""
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    (images, p, q, channels), (h, w) = y.shape, x.shape[1:3]
    rows, most = cut
    unit = frame.stride if 4 % frame.stride == 0 else 1
    count = ((q - 1) * frame.stride + 4 * b.deep - 4) // unit + 1
    high, groups = (p + rows - 1) // rows, (channels + most - 1) // most
    for tile in prange(images * high * groups):  # each tile writes its own rows and channels of y
        n, first = tile // (high * groups), tile // groups % high * rows
        # Tiles must not overlap: what one has looked up in the table, the other would look up again. Of more than MAPS
        # channels each has at least MAPS / 2, which is a vector.
        begin, end = share(tile % groups, groups, channels)
        held = end - begin
        done = min(rows, p - first)
        line = count * held * 4
        seen = (rows - 1) * frame.stride + frame.side
        words = line_up(seen * line, flat_x)
        for k in range((done - 1) * frame.stride + frame.side):
            i = first * frame.stride - frame.top + k
            at = (n * h + i) * w * channels if 0 <= i < h else -1
            out = words[k * line : (k + 1) * line]
            wide = (w, frame.left, count, unit)
            words_of_row(flat_x, at, wide, channels, (begin, held), b.zero, out, b.lanes)
        taps = Taps(frame.side, line, frame.stride // unit * held * 4, 4 // unit * held * 4, begin)
        for k in range(done):
            to = ((n * p + first + k) * q) * channels
            sum_row(words, k * frame.stride * line, taps, b, held, flat_y, to, q)


# ---------------------------------------------------------------------------------------------- the maximum


@kernel
def _maximum(x, frame, y, v):
    (h, w, channels), (p, q), n = x.shape[1:], y.shape[1:3], 4 * width(v)
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    for line in prange(y.shape[0] * p):  # each row of y is written by itself
        first = line % p * frame.stride - frame.top
        for k in range(q):
            left = k * frame.stride - frame.left
            for c in range(0, channels, n):
                at, best = min(c, channels - n), noughts(v)  # 0: no byte is smaller
                for i in range(max(first, 0), min(first + frame.side, h)):
                    for j in range(max(left, 0), min(left + frame.side, w)):
                        pixel = (line // p * h + i) * w + j
                        best = larger(best, load_word(flat_x, pixel * channels + at, v))
                put_word(flat_y, (line * q + k) * channels + at, best)


# ---------------------------------------------------------------------------------------------- number by number


@kernel
def _add(x1, x2, numbers, y, v):
    m1, m2, c, s, low, high = numbers
    n = width(v)
    for tile in prange((y.size + NUMBERS - 1) // NUMBERS):  # each tile writes its own numbers
        first, last = tile * NUMBERS, min((tile + 1) * NUMBERS, y.size)
        a, b, begin = same(m1, v), same(m2, v), same(c, v)
        i = first
        while i + n <= last:
            total = widen(x1, i, v) * a + widen(x2, i, v) * b + begin
            put(y, i, between(shift(total, s), low, high))
            i += n
        while i < last:
            y[i] = min(max((np.int64(x1[i]) * m1 + np.int64(x2[i]) * m2 + c) >> s, low), high)
            i += 1


@kernel
def _look_up(x, table, y):
    for tile in prange((y.size + NUMBERS - 1) // NUMBERS):  # each tile writes its own numbers
        for i in range(tile * NUMBERS, min((tile + 1) * NUMBERS, y.size)):
            y[i] = table[x[i]]


@kernel
def _concat(x, table, before, y):
    """(12) for one map: x (R, C_b), y (R, C); table (256,), or (0,) for a copy."""
    rows, channels = x.shape
    step = max(1, NUMBERS // channels)
    for tile in prange((rows + step - 1) // step):  # each tile writes its own pixels of y
        for r in range(tile * step, min((tile + 1) * step, rows)):
            if table.size:
                for c in range(channels):
                    y[r, before + c] = table[x[r, c]]
            else:
                copy(x[r], y[r, before : before + channels])


@kernel
def _average(x, fixed, y, v):
    """fixed: m, c, s (C,) of which c holds −zero · pixels · m; bounds."""
    pixels, channels = x.shape[1], x.shape[2]
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    for n in prange(y.shape[0]):  # each image writes its own means
        for i in range(vectors_of(channels, v)):
            f = begin_of(i, channels, v)
            total, at = noughts(v), n * pixels * channels + f
            for _ in range(pixels):
                total = total + widen(flat_x, at, v)
                at += channels
            done = between(rescale(total, fixed.m, fixed.c, fixed.s, f), fixed.low, fixed.high)
            put(flat_y, n * channels + f, done)


@kernel
def _excite(x, zero, gates, gate_zero, fixed, y, v):
    pixels, channels = x.shape[1], x.shape[2]
    flat_x, flat_y, flat_g = x.reshape(-1), y.reshape(-1), gates.reshape(-1)
    for row_ in prange(y.shape[0] * pixels):  # each pixel writes its own numbers
        for i in range(vectors_of(channels, v)):
            f = begin_of(i, channels, v)
            gate = widen(flat_g, row_ // pixels * channels + f, v) - same(gate_zero, v)
            total = (widen(flat_x, row_ * channels + f, v) - same(zero, v)) * gate
            done = between(rescale(total, fixed.m, fixed.c, fixed.s, f), fixed.low, fixed.high)
            put(flat_y, row_ * channels + f, done)


@row
def bytes_of_tile(x, scale, zero, y):
    """(2), and how many numbers were NaN; plain loops, which LLVM makes vectors of."""
    strange = 0
    for i in range(y.size):
        place = np.floor(np.float64(x[i]) / scale + 0.5) + zero
        strange += place != place
        y[i] = np.uint8(np.int32(min(max(place, 0.0), 255.0)))
    return strange


@kernel
def _to_bytes(x, scale, zero, y, strange):
    for tile in prange((y.size + NUMBERS - 1) // NUMBERS):  # each tile writes its own numbers
        first, last = tile * NUMBERS, min((tile + 1) * NUMBERS, y.size)
        strange[tile] = bytes_of_tile(x[first:last], scale, zero, y[first:last])


# ---------------------------------------------------------------------------------------------- public passes


def to_bytes(x, grid, y):
    """(2): the map y, uint8, of real numbers x (float32, contiguous). Raises ValueError where one is NaN."""
    strange = np.zeros(-(-y.size // NUMBERS), np.int64)
    _to_bytes(x.reshape(-1), float(grid.scale), float(grid.zero), y.reshape(-1), strange)
    if strange.any():
        raise ValueError("x: has NaN, which has no place among whole numbers")
    return y


def product(x, packed: Packed, y):
    """y (rows, F), uint8 or int32, of x (rows, C) uint8. C must be a multiple of 4, else use ``conv`` with 1×1."""
    if x.size:
        _product(x.reshape(-1), x.size // x.shape[-1], packed, y.reshape(-1))
    return y


def conv(x, packed: Packed, frame: Frame, y):
    """y (N, P, Q, F) of x (N, H, W, C): equations (3) and (6), and the table."""
    if frame == Frame(1, 1, 0, 0) and x.shape[-1] % 4 == 0:
        return product(x.reshape(-1, x.shape[-1]), packed, y)
    if y.size:
        line = (y.shape[2] * frame.stride + frame.side) * x.shape[3]
        rows = max(1, min(y.shape[1], (ROOM // line - frame.side) // frame.stride + 1))
        _conv(x, Frame(*map(np.int64, frame)), packed, y, np.int64(rows))
    return y


def depthwise(x, packed: Packed, frame: Frame, y):
    """y (N, P, Q, C) of x (N, H, W, C), one filter a channel."""
    if y.size:
        channels = y.shape[3]
        held = min(MAPS, channels)
        line = (y.shape[2] * frame.stride + 4) * held * 4
        rows = max(1, min(y.shape[1], (WORDS // line - frame.side) // frame.stride + 1))
        _depthwise(x, Frame(*map(np.int64, frame)), packed, y, (np.int64(rows), np.int64(held)))
    return y


def maximum(x, frame: Frame, y):
    """(11): y (N, P, Q, C), the largest bytes of the windows of x (N, H, W, C), whose grid it has."""
    channels = y.shape[3]
    if channels < 4:  # less than a word
        return definition_maximum(x, frame.side, frame[1:], y)
    if y.size:
        _maximum(x, Frame(*map(np.int64, frame)), y, lanes(channels // 4, np.float32))
    return y


def concat(parts, tables, y):
    """(12): y (…, C_0 + C_1 + …) of maps (…, C_b), each with its table, or ``NO_TABLE`` where its grid is that of y."""
    before, flat = 0, y.reshape(-1, y.shape[-1])
    for x, table in zip(parts, tables):
        _concat(x.reshape(-1, x.shape[-1]), table, np.int64(before), flat)
        before += x.shape[-1]
    return y


def add(x1, x2, numbers, y):
    """(8): y = x1 + x2, all of one shape; ``numbers`` of ``addition_of``."""
    if y.size:
        flat = (a.reshape(-1) for a in (x1, x2))
        _add(*flat, tuple(map(np.int64, numbers)), y.reshape(-1), lanes(y.size, np.float32))
    return y


def look_up(x, table, y):
    """(7): y = table[x]."""
    if y.size:
        _look_up(x.reshape(-1), table, y.reshape(-1))
    return y


def average(x, zero, fixed: Fixed, y):
    """(9): y (N, C), the means of x (N, H, W, C)."""
    pixels, channels = x.shape[1] * x.shape[2], x.shape[3]
    if y.size:
        whole = _spread(fixed, channels, fixed.c - zero * pixels * fixed.m)
        _average(x.reshape(len(x), pixels, channels), whole, y, lanes(channels, np.float32))
    return y


def excite(x, zero, gates, gate_zero, fixed: Fixed, y):
    """(10): y (N, H, W, C) of x and gates (N, C)."""
    pixels, channels = x.shape[1] * x.shape[2], x.shape[3]
    if y.size:
        shape = len(x), pixels, channels
        whole = _spread(fixed, channels, fixed.c)
        zeros = np.int64(zero), np.int64(gate_zero)
        v = lanes(channels, np.float32)
        _excite(x.reshape(shape), zeros[0], gates, zeros[1], whole, y.reshape(shape), v)
    return y


def _spread(fixed, channels, c):
    """One multiplier for all channels."""
    m, c, s = (np.ascontiguousarray(np.broadcast_to(a, channels)) for a in (fixed.m, c, fixed.s))
    return Fixed(m, c, s, np.int64(fixed.low), np.int64(fixed.high))
