"""The product and the convolution in eight bits: bytes times bytes into sums of 32 bits, and these back into bytes.

With the equations of the page ``eight_bits``, x of bytes, w of int8, y of bytes or, of the last layer, of int32:

    sum[f] = Σ x · w[f]                                 (3), without the bias and the zero point of x: these are in c (13)
    y = clip((sum · m + c) >> shift, low, high)         (6)
    y = table[y]                                        (7), where an activation follows that does not only cut

The definition is ``eight_bits.definition``. 1×1 and dense layers are the product x (R, C) · w (C, F); a K×K convolution is
the same product on other rows.

**What is gained.** A map of bytes is a quarter of the traffic of float32, and ``dot`` (page ``words``) makes four
multiply-adds a lane where an fma makes one. What is left to do is to keep ``dot`` fed, and to make the end of a sum, (6),
cheap.

**Words.** Four numbers of a row of x are a word, which meets a word of four weights of one filter. The loops are those of the
page ``product``, with one step for four numbers k … k + 3:

    for k in 0, 4, 8, …:  b0, b1 = weights[k … k + 3, 0:LANES], weights[k … k + 3, LANES:2·LANES]
        for r in 0 … 5:   s = the word x[r, k … k + 3], spread to all lanes
            sum[r, 0] += dot(s, b0);  sum[r, 1] += dot(s, b1)

**Panels.** The weights lie in the order in which they are read: [panel][row of the window][k / 4][vector][lane][4 bytes]. A
row of the window whose numbers four does not divide ends in a word whose last weights are 0: what x holds there adds nothing.

**A tile of 6 × 2 registers** of sums, as for floats (6 × 4 on ARM). One core of a Zen 4, best of many runs, µs:

                                     16 lanes                                            8 lanes
    x (R, C) · w (C, F)              4 × 2   6 × 2   8 × 2   4 × 4   6 × 4   8 × 4       4 × 2   6 × 2   8 × 2
    (3136, 64) · (64, 128)             175     174     212     173     206     213         189     173     227
    (196, 512) · (512, 512)            238     238     249     238     247     253         260     242     258

**Few rows.** Threads take tiles of up to 96 rows. One image's last maps have 196 and 49 pixels, three tiles and one, and one
core of two would do nearly all. There the filters are cut into groups of whole panels, too (``cut_of``). Two cores, µs:

    x (R, C) · w (C, F)              rows only      rows and filters
    (196, 512) · (512, 512)                233                   121
    (196, 64) · (64, 384)                   35                    20
    (49, 1024) · (1024, 1024)              237                   121

**A convolution** is the same product: the K·C numbers that one row of its window sees lie side by side in the image. So
a sum goes over K such rows, and no patches are gathered. Only the rows of the image are copied, a tile's at a time, into
scratch with the zero point before and behind them: so no border is a special case, and a last word ends in the scratch.

**The end of a sum** is in 64 bits: one multiplication, one addition, one shift, two bounds, one store of bytes.

**Same bits.** Whole numbers: any order, any lanes, any number of threads, any processor.

MACs: those of the float layers, R·C·F and N·P·Q·K·K·C·F. Bytes: a quarter of those of float32.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from numnet.kernels import _check, _memory
from numnet.kernels._jit import kernel, row, run
from numnet.kernels.eight_bits import NO_TABLE, Fixed, corrected
from numnet.kernels.maps import Window, begin_of, share, tile_height, vectors_of
from numnet.kernels.product import FEW, ROWS, VECTORS, Panel, Strided, column, held_by
from numnet.kernels.rows import copy, line_up, replace
from numnet.kernels.tiles import repeat
from numnet.kernels.vectors import lanes, number_of, width
from numnet.kernels.words import add_outer, load_tile, narrow_tile, rescale_tile, zeros

TILE = 96  # rows of y that a thread makes at a time, at most: 16 tiles of 6 rows, so that none is left over
TILES = 16  # of a product, at least, where it has filters enough: with fewer, cores wait for each other
ROOM = 2**15  # bytes of a convolution's scratch, about: as many as a first-level cache has
POINT = Window(1, 1, 0, 0)  # a convolution with this window is the product


class Packed(NamedTuple):
    """Weights in panels, as ``pack`` leaves them, and what follows a sum."""

    values: np.ndarray  # int8
    rows: int  # of the window, K; of a product 1
    deep: int  # numbers in a row of the window, K·C; rounded up to words, a multiple of 4
    columns: int  # filters, F
    # A Fixed for sums of bytes as they are, (13) is done. Field by field, since Numba's prange takes no tuple within a tuple.
    m: np.ndarray
    c: np.ndarray
    shift: np.ndarray
    low: int
    high: int
    zero: int  # of x
    table: np.ndarray  # (256,), or NO_TABLE
    lanes: np.integer


class Cut(NamedTuple):
    """Tiles of a product: ``rows`` rows of y each, at most, and one of ``groups`` near-equal groups of filters."""

    rows: int
    groups: int


class Rows(NamedTuple):
    """Rows of a product in a flat array: number k of row r, in row u of its window, is values[at + r·row + u·below + k]."""

    values: np.ndarray
    at: int
    row: int
    below: int


# ---------------------------------------------------------------------------------------------- panels


@kernel(parallel=False)
def _pack(w, out, v):
    """Copy w (K, K·C, F), panel by panel."""
    (rows, deep, columns), j, to = w.shape, 0, 0
    count = vectors_of(columns, v)
    while j < count:
        held = held_by(j, count)
        for u in range(rows):
            for k in range(0, deep, 4):
                for i in range(j, j + held):
                    first = begin_of(i, columns, v)
                    for f in range(first, first + width(v)):
                        for number in range(k, k + 4):
                            out[to] = w[u, number, f] if number < deep else 0
                            to += 1
        j += held


def pack(w, zero, fixed: Fixed, table=NO_TABLE) -> Packed:
    """Weights ready for ``product`` and ``conv``: w (K, K·C, F) int8, of 1×1 and dense layers (1, C, F).

    zero: of x; fixed: of the layer, as ``fixed_of`` gives it; table: (256,) uint8, equation (7). Raises NumnetError where
    sums may leave 32 bits.
    """
    rows, deep, columns = w.shape
    v, words = lanes(columns, np.float32), (deep + 3) // 4
    vectors = (columns + number_of(v) - 1) // number_of(v)
    values = _memory.empty(vectors * number_of(v) * rows * words * 4, np.int8)
    fixed = corrected(fixed, w.reshape(-1, columns), zero)
    _pack(_check.writable(np.ascontiguousarray(w)), values, v)
    return Packed(values, rows, 4 * words, columns, *fixed, int(zero), table, v)


# ---------------------------------------------------------------------------------------------- the product


@row
def multiply_rows(tile, a, r, b, y, panel):
    """The rows of y from row r on, as many as ``tile`` has, in the columns of a panel. The tile holds zeros."""
    place, step = panel.at, 4 * width(b.lanes) * len(panel.places)
    for u in range(b.rows):
        at = a.at + r * a.row + u * a.below
        for k in range(0, b.deep, 4):
            weights = load_tile(panel.begin, b.values, place, 0, panel.places)
            tile = add_outer(tile, a.values, at + k, a.row, weights)
            place += step
    tile = rescale_tile(tile, b, panel.columns)
    narrow_tile(tile, y.values, y.at + r * y.row, y.row, panel.columns)


@row
def multiply_panel(a, rows, b, y, panel):
    """All rows of y in the columns of a panel."""
    r = 0
    while rows - r >= ROWS:
        multiply_rows(repeat(panel.begin, ROWS), a, r, b, y, panel)
        r += ROWS
    while rows - r >= FEW:
        multiply_rows(repeat(panel.begin, FEW), a, r, b, y, panel)
        r += FEW
    while rows > r:
        multiply_rows(repeat(panel.begin, 1), a, r, b, y, panel)
        r += 1


@row
def multiply(a, rows, b, y, span):
    """``rows`` rows of y, a Strided, of rows of x, in the vectors first … last − 1 = span of the columns; then the table.

    The span begins with a panel. The last vector of all may overlap the one before: then both have to be in it.
    """
    (j, count), n = span, 4 * width(b.lanes)
    first, last = j * width(b.lanes), min(count * width(b.lanes), b.columns)
    while j < count:
        # Numba knows the length of a tuple only if it is written out: four, of which VECTORS or one are taken.
        columns = (column(b, j), column(b, j + 1), column(b, j + 2), column(b, j + 3))
        at, places = j * width(b.lanes) * b.rows * b.deep, (0, n, 2 * n, 3 * n)
        if held_by(j, count) == VECTORS:
            wide = zeros(1, VECTORS, b.lanes)
            multiply_panel(a, rows, b, y, Panel(at, places[:VECTORS], columns[:VECTORS], wide))
        else:
            single = zeros(1, 1, b.lanes)
            multiply_panel(a, rows, b, y, Panel(at, places[:1], columns[:1], single))
        j += held_by(j, count)
    if b.table.size:
        for r in range(rows):
            at = y.at + r * y.row
            replace(y.values[at + first : at + last], b.table)  # (7)


@kernel
def _product(x, rows, b, y, cut):
    """x, y: flat."""
    deep, down, count = x.size // rows, (rows + cut.rows - 1) // cut.rows, vectors_of(b.columns, b.lanes)
    for tile in prange(down * cut.groups):  # each tile writes its own rows and columns of y
        first, group = tile % down * cut.rows, tile // down
        j, end = share(group, cut.groups, max(count // VECTORS, 1))
        end = count if group == cut.groups - 1 else end * VECTORS
        a, out = Rows(x, first * deep, deep, 0), Strided(y, first * b.columns, b.columns, 1)
        multiply(a, min(cut.rows, rows - first), b, out, (j * VECTORS, end))


def cut_of(rows, columns, n) -> Cut:
    """The tiles of a product of so many rows and columns; n: the lanes.

    Near-equal tiles of at most TILE rows. Where these are few, as in one image's last layers, they are cut over the
    filters, too: groups of whole panels, so that each packed weight is still read by one thread for its rows.
    """
    down = -(-rows // TILE)
    high = -(-rows // (down * ROWS)) * ROWS
    panels = max(-(-columns // n) // VECTORS, 1)
    return Cut(high, min(panels, -(-TILES // down)))


def product(x, packed: Packed, y):
    """y (R, F), uint8 or int32, of x (R, C) uint8; both contiguous, any axes before the last. Returns y.

    Raises ValueError where 4 does not divide C: there the last word of a row reaches behind it, and that of the last row
    behind x. ``conv`` takes any C. Nothing else is checked.
    """
    if x.shape[-1] % 4:
        raise ValueError(f"x: expected a multiple of 4 channels, got {x.shape[-1]}; conv takes others, too")
    return run(product_step, x, packed, y)


def product_step(x, packed, y):
    """(kernel, arguments) of ``product``, for a plan: neither is empty."""
    rows = y.size // packed.columns
    cut = cut_of(rows, packed.columns, number_of(packed.lanes))
    return _product, (x.reshape(-1), rows, packed, y.reshape(-1), cut)


# ---------------------------------------------------------------------------------------------- the convolution


@row
def frame_row(x, at, size, left, zero, out):
    """out = ``left`` zero points, the ``size`` numbers of x from ``at`` on, as many as fit, and zero points to the end."""
    left = min(left, out.size)  # with a stride wider than the image, all windows may lie before it
    inside = min(size, out.size - left)
    for i in range(left):
        out[i] = zero
    copy(x[at : at + inside], out[left : left + inside])
    for i in range(left + inside, out.size):
        out[i] = zero


@kernel
def _conv(x, window, b, y, rows):
    """rows: of y, in a tile."""
    (h, w, channels), (p, q) = x.shape[1:], y.shape[1:3]
    flat_x, flat_y, down = x.reshape(-1), y.reshape(-1), (p + rows - 1) // rows  # down: tiles of an image
    step = window.stride * channels  # numbers from the window of a pixel of y to that of the next
    line = (q - 1) * step + b.deep  # numbers of a framed row: all that the windows of a row of y see
    for tile in prange(y.shape[0] * down):  # each tile writes its own rows of y
        n, first = tile // down, tile % down * rows
        done = min(rows, p - first)
        framed = line_up(((rows - 1) * window.stride + b.rows) * line, flat_x)
        for k in range((done - 1) * window.stride + b.rows):
            i = first * window.stride - window.top + k
            out = framed[k * line : (k + 1) * line]
            if 0 <= i < h:
                at = (n * h + i) * w * channels
                frame_row(flat_x, at, w * channels, window.left * channels, b.zero, out)
            else:
                frame_row(flat_x, 0, 0, 0, b.zero, out)
        for k in range(done):
            a = Rows(framed, k * window.stride * line, step, line)
            to = Strided(flat_y, ((n * p + first + k) * q) * b.columns, b.columns, 1)
            multiply(a, q, b, to, (0, vectors_of(b.columns, b.lanes)))


def conv(x, packed: Packed, window: Window, y):
    """y (N, P, Q, F), uint8 or int32, of x (N, H, W, C) uint8: (3), (6) and the table. Returns y; nothing is checked."""
    return run(conv_step, x, packed, window, y)


def conv_step(x, packed, window, y):
    """(kernel, arguments) of ``conv``, for a plan: neither map is empty."""
    if window == POINT and x.shape[-1] % 4 == 0:
        return product_step(x, packed, y)
    line = (y.shape[2] * window.stride + window.side) * x.shape[3]
    rows = max(1, (ROOM // line - window.side) // window.stride + 1)
    return _conv, (x, window, packed, y, tile_height(y.shape[1], rows, len(y)))
