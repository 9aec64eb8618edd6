"""The matrix product: about nine tenths of the arithmetic of every net here, on one page and near the processor's peak.

With x (R, C), w (C, F), y (R, F), and dx, dw, dy shaped like x, w, y:

(1)  y[r, f]  = Σ_c x[r, c] · w[c, f]        Y  = X W       forward
(2)  dx[r, c] = Σ_f dy[r, f] · w[c, f]       dX = dY Wᵀ
(3)  dw[c, f] = Σ_r x[r, c] · dy[r, f]       dW = Xᵀ dY

All three are one loop, y[i, j] = Σ_k a[i, k] · b[k, j]. What differs is how one walks through a (``Strided``), and what is
packed as b. The definitions below are three loops each. The rest of the page says why they are slow, and what helps.

**What bounds it.** A core of today multiplies and adds two registers a cycle, and each result is ready 4 cycles later. So
8 sums must be under way at any time, none waiting for another. And it loads two registers a cycle: if each
multiply-add loaded both its factors, it would wait for loads half of the time.

**A tile of registers** answers both. Keep 6 × 2 registers of sums, for 6 rows of a and 2·LANES columns of b. Each step of
k then loads 2 registers of b and 6 single numbers of a (spread to all lanes by the instruction itself), and makes 12
multiply-adds for 8 loads. AVX2 has 16 registers: 12 sums, 2 of b, 1 number of a; one is left.
12 sums also cover the latency. ARM's NEON has 32 registers, narrower ones, and up to four units: 6 × 4 there.

    for k: b0, b1 = b[k, 0:LANES], b[k, LANES:2·LANES]        one core of a Zen 5 (AVX-512, peak 282 GFLOP/s), 384 rows,
        for r in 0 … 5: s = a[r, k]                           256 × 256: 6 × 2 reaches 265 GFLOP/s, 6 × 4 262
            sum[r, 0] += s · b0;  sum[r, 1] += s · b1

**Panels.** All rows of a meet the same 2·LANES columns of b. So these columns are copied (``pack``), to lie one step of k
after another. Then they are read in order: from the first-level cache if K is small, else from the second (two lines in 6
cycles: no wait). A copy costs one load and one store a number, and each packed number is used once for every row of a.

**Rows that 6 does not divide** end in tiles of 2 and of 1 row. **Columns** that LANES does not divide end in a vector
that overlaps the one before (see ``vectors``): some columns are computed twice, with equal results.

**Same bits.** Each sum is one chain of fused multiply-adds in the order of k, starting from 0 or from a bias; what y holds
is added to the finished sum. So its bits depend on no tile of registers, no lanes, no thread and no library.

MACs: R·C·F in each of the three.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from numnet.kernels import _check, vectors
from numnet.kernels._jit import kernel, row
from numnet.kernels.activations import CLIPPED, HARD, IDENTITY, SMOOTH, activate_in, family_of
from numnet.kernels.maps import begin_of, padded, vectors_of
from numnet.kernels.rows import line_up
from numnet.kernels.tiles import add_outer, add_tiles, load_tile, prefetch_tile, repeat, store_tile, zeros
from numnet.kernels.vectors import load, store, width

_1 = np.float32(1)  # swish's β, which only the layer of that name lets be anything else
# The argument ``adds`` of a product: y = a · b, not y += a · b. (For Python's False Numba would compile the functions anew.)
NEW = np.bool_(False)
ROWS, FEW = 6, 2  # rows of a tile of registers, and of the smaller one for the rest
# Vectors in a row of the tile. AVX-512 has registers for 4, too, but is as fast with 2: see the measurement above.
VECTORS = 4 if vectors.FEATURES.get("neon") else 2


class Strided(NamedTuple):
    """A matrix in a flat array: entry (i, k) is values[at + i·row + k·deep]."""

    values: np.ndarray
    at: int
    row: int
    deep: int


class Packed(NamedTuple):
    """b (K, columns) in panels, as ``pack`` leaves it; K is ``deep``."""

    values: np.ndarray
    deep: int
    columns: int
    lanes: np.integer


# ---------------------------------------------------------------------------------------------- the definition
# Into an array that the caller gives. Nothing is checked: ``pointwise.definition`` does that for users.


@kernel(parallel=False)
def definition(x, w, y):
    """(1) as it is written: y (R, F) = x (R, C) · w (C, F)."""
    for r in range(x.shape[0]):
        for f in range(w.shape[1]):
            y[r, f] = 0
            for c in range(x.shape[1]):
                y[r, f] += x[r, c] * w[c, f]  # (1)


@kernel(parallel=False)
def definition_dx(dy, w, dx):
    """(2): dx (R, C) = dy (R, F) · wᵀ."""
    for r in range(dy.shape[0]):
        for c in range(w.shape[0]):
            dx[r, c] = 0
            for f in range(w.shape[1]):
                dx[r, c] += dy[r, f] * w[c, f]  # (2)


@kernel(parallel=False)
def definition_dw(x, dy, dw):
    """(3): dw (C, F) = xᵀ · dy."""
    for c in range(x.shape[1]):
        for f in range(dy.shape[1]):
            dw[c, f] = 0
            for r in range(x.shape[0]):
                dw[c, f] += x[r, c] * dy[r, f]  # (3)


# ---------------------------------------------------------------------------------------------- panels


@row
def packed_size(deep, columns, v):
    """Numbers of a packed matrix (deep, columns)."""
    return deep * padded(columns, v)


@row
def held_by(j, count):
    """How many vectors the panel that begins with vector j holds: VECTORS, or at the end 1."""
    return VECTORS if j + VECTORS <= count else 1


@row
def pack(b, deep, columns, out, v):
    """Copy b, rows of ``columns`` numbers in a flat array, panel by panel."""
    count, j, to = vectors_of(columns, v), 0, 0
    while j < count:
        held = held_by(j, count)
        for k in range(deep):
            for i in range(j, j + held):
                store(out, to, load(b, k * columns + begin_of(i, columns, v), v))
                to += width(v)
        j += held


@row
def pack_turned(w, deep, columns, out, v):
    """The same of wᵀ: w (columns, deep) in a flat array. Eight rows of w at a time, so eight lines of the cache are used."""
    count, n, j, to = vectors_of(columns, v), width(v), 0, 0
    while j < count:
        held = held_by(j, count)
        for i in range(held):
            column = begin_of(j + i, columns, v)
            for low in range(0, n, 8):
                for k in range(deep):
                    for lane in range(low, min(low + 8, n)):
                        out[to + (k * held + i) * n + lane] = w[(column + lane) * deep + k]
        to += deep * held * n
        j += held


# ---------------------------------------------------------------------------------------------- the product


@row
def add_products(tile, a, r, b, at, places, row_of_b):
    """tile[i] += Σ_k a[r + i, k] · b[k], for a panel of b that begins at ``at``: the loop in which the time is spent.

    row_of_b is a tile of one row: ``like`` of the loads from b.
    """
    numbers, step = a.at + r * a.row, len(places) * width(b.lanes)
    for _ in range(b.deep):
        tile = add_outer(tile, a.values, numbers, a.row, load_tile(row_of_b, b.values, at, 0, places))
        numbers += a.deep
        at += step
    return tile


class Ending(NamedTuple):
    """What inference does to a product: y = activation(a · b + bias) + skip."""

    bias: np.ndarray  # (columns of b,): what the sums begin with
    code: int  # of the activation
    skip: np.ndarray  # lies like y, or is empty


class Panel(NamedTuple):
    """Some columns of b, packed, and the same columns of y."""

    at: int  # where the panel begins in ``Packed``
    places: tuple  # where in a step of k each of its vectors begins
    columns: tuple  # where in a row of y
    begin: tuple  # what the sums of a row begin with: vectors


@row
def multiply_rows(tile, a, r, b, y, panel, adds):
    """The rows of y from row r on, as many as ``tile`` has. The tile holds what their sums begin with."""
    if adds:
        prefetch_tile(tile, y.values, y.at + r * y.row, y.row, panel.columns)
    tile = add_products(tile, a, r, b, panel.at, panel.places, panel.begin)
    if adds:
        tile = add_tiles(tile, load_tile(tile, y.values, y.at + r * y.row, y.row, panel.columns))
    store_tile(tile, y.values, y.at + r * y.row, y.row, panel.columns)


@row(inline=True)
def finish_vector(family, x, ending, at, v):
    """activation(x) + skip for a vector of y from number ``at``; skip lies like y."""
    x = activate_in(family, ending.code, _1, x)
    return x + load(ending.skip, at, v) if ending.skip.size else x


@row(inline=True)
def finish_by(family, y, rows, panel, ending, v):
    """y = activation(y) + skip for the rows of a panel, just stored.

    The last vector of a row may overlap the one before, so it is loaded before that one is stored.
    """
    count = len(panel.columns) - 1
    for i in range(rows):
        at = y.at + i * y.row
        end = at + panel.columns[count]
        last = load(y.values, end, v)
        for j in range(count):
            here = at + panel.columns[j]
            store(y.values, here, finish_vector(family, load(y.values, here, v), ending, here, v))
        store(y.values, end, finish_vector(family, last, ending, end, v))


@row
def finish_panel(y, rows, panel, ending, v):
    """y = activation(y) + skip for the rows of a panel. Each family of activations has its own loop, with no branch in it."""
    family = family_of(ending.code)
    if ending.code == IDENTITY and ending.skip.size == 0:
        return
    if family == CLIPPED:
        finish_by(CLIPPED, y, rows, panel, ending, v)
    elif family == HARD:
        finish_by(HARD, y, rows, panel, ending, v)
    else:
        finish_by(SMOOTH, y, rows, panel, ending, v)


@row
def multiply_panel(a, rows, b, y, panel, ending, adds):
    """All rows of y in the columns of one panel."""
    if ending is not None:
        begin = load_tile(panel.begin, ending.bias, 0, 0, panel.columns)
        panel = Panel(panel.at, panel.places, panel.columns, begin)
    r = 0
    while rows - r >= ROWS:
        multiply_rows(repeat(panel.begin, ROWS), a, r, b, y, panel, adds)
        r += ROWS
    while rows - r >= FEW:
        multiply_rows(repeat(panel.begin, FEW), a, r, b, y, panel, adds)
        r += FEW
    while rows > r:
        multiply_rows(repeat(panel.begin, 1), a, r, b, y, panel, adds)
        r += 1
    if ending is not None:
        finish_panel(y, rows, panel, ending, b.lanes)


@row
def multiply(a, rows, b, y, span, ending, adds):
    """y = a · b for ``rows`` rows of a and y, both Strided, and the vectors first … last − 1 = span of b's columns.

    ending: an Ending, or None; ``adds``: y += a · b. Then no two vectors of y may overlap, since what is added to memory is
    added once: give b a number of columns that the lanes divide, and y rows of that length.
    """
    j, count, n = span[0], vectors_of(b.columns, b.lanes), width(b.lanes)
    while j < span[1]:
        # Numba knows the length of a tuple only if it is written out: four, of which VECTORS or one are taken.
        columns = (column(b, j), column(b, j + 1), column(b, j + 2), column(b, j + 3))
        at, places = j * n * b.deep, (0, n, 2 * n, 3 * n)
        if held_by(j, count) == VECTORS:
            wide = zeros(b.values, 1, VECTORS, b.lanes)
            multiply_panel(a, rows, b, y, Panel(at, places[:VECTORS], columns[:VECTORS], wide), ending, adds)
        else:
            single = zeros(b.values, 1, 1, b.lanes)
            multiply_panel(a, rows, b, y, Panel(at, places[:1], columns[:1], single), ending, adds)
        j += held_by(j, count)


@row
def column(b, j):
    """The column of b at which its vector j begins."""
    return begin_of(j, b.columns, b.lanes)


@row
def multiply_all(a, rows, b, y, adds):
    """y = a · b, or y += a · b, in all columns."""
    multiply(a, rows, b, y, (0, vectors_of(b.columns, b.lanes)), None, adds)


# ---------------------------------------------------------------------------------------------- whole matrices

TILE = 128  # rows of y that a thread makes at a time


@kernel
def _product(x, w, y, turned, v):
    """y (R, F) = x (R, C) · w (C, F); of w (F, C), turned."""
    (rows, deep), columns = x.shape, y.shape[1]
    b = Packed(line_up(packed_size(deep, columns, v), x), deep, columns, v)
    if turned:
        pack_turned(w.reshape(-1), deep, columns, b.values, v)
    else:
        pack(w.reshape(-1), deep, columns, b.values, v)
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    for tile in prange((rows + TILE - 1) // TILE):  # each tile writes its own rows of y
        first, last = tile * TILE, min((tile + 1) * TILE, rows)
        a, out = Strided(flat_x, first * deep, deep, 1), Strided(flat_y, first * columns, columns, 1)
        multiply_all(a, last - first, b, out, NEW)


def product(x, w, turned=False):
    """x (R, C) · w (C, F), or x · wᵀ for w (F, C): float32 or float64, contiguous. Raises ValueError for other arrays."""
    x = _check.tensor("x", x, (None, None))
    w = _check.tensor("w", w, (None, x.shape[1]) if turned else (x.shape[1], None), x.dtype)
    y = np.zeros((len(x), w.shape[0 if turned else 1]), x.dtype)
    if y.size and w.size:
        _product(x, w, y, turned, vectors.lanes(y.shape[1], x.dtype))
    return y
