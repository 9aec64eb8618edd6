"""Tiles of registers: the sums that a product, or a convolution, keeps in the processor while everything else goes by.

Each register that a loop loads should be used more than once, and no sum should wait for another. So the fast loops here
work on R rows of V vectors at a time, all of them in registers (the page ``product`` says how many). Such a *tile* is a tuple
of R · V vectors of the page ``vectors``, row after row::

    row, sums = zeros(y, 1, 2, v), zeros(y, 6, 2, v)             # 6 rows of 2 vectors, of 16 lanes each
    for k in range(deep):                                       # entry (r, k) of a: a[r · deep + k]
        sums = add_outer(sums, a, k, deep, load_tile(row, b, k * columns, 0, (0, 16)))
    store_tile(sums, y, 0, columns, (0, 16))

| name | meaning |
|---|---|
| ``zeros(a, R, V, v)`` | a tile of R rows of V vectors, all 0, of a's dtype; R and V are constants |
| ``repeat(row, R)`` | R rows, each of them the tuple of vectors ``row`` |
| ``load_tile(like, a, at, step, starts)`` | vector i of row r lies at a[at + r · step + starts[i]] |
| ``store_tile(tile, a, at, step, starts)`` | the way back |
| ``prefetch_tile(tile, a, at, step, starts)`` | asks memory for what ``load_tile`` will want: a hint, which reads nothing |
| ``add_tiles(tile, other)`` | the sum of two tiles |
| ``fma_tile(tile, x, y)`` | vector i of each row · x[i] + y[i] |
| ``add_outer(tile, a, at, step, row)`` | vector i of row r gains a[at + r · step] · row[i]: a step of a product |
| ``add_taps(tile, a, at, step, starts, tap, weights)`` | vector i of row r gains Σ_t x_t · weights[t] (below) |

``starts`` is a tuple of V places: where the vectors of a row begin. The argument ``like``, here and on other pages, is any
tile of the wanted shape: its type counts, its numbers are not read. In ``add_taps`` x_t is the vector that begins at
a[at + r · step + starts[i] + t · tap]. All products are fused multiply-adds (``fma``).

LLVM has no tuples of registers. So each name writes the instructions of all its vectors, one after another: a tile of 6 × 2
is 12 values, and ``add_outer`` 12 lines ``%z = call <16 x float> @llvm.fma(…)``. Plain Python and check mode are as on the
page ``vectors``.
"""

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numnet.kernels import vectors
from numnet.kernels.vectors import CHECK, PLAIN, Vector, width

# ---------------------------------------------------------------------------------------------- helpers for LLVM


def constant(n, what):
    """The number n of rows or vectors, which has to be known while typing."""
    if not isinstance(n, types.IntegerLiteral):
        raise numba.TypingError(f"{what}: expected a constant number of rows and vectors, got {n}")
    return n.literal_value


def numbers_of(builder, values):
    """The values that a tuple holds, one by one."""
    return [builder.extract_value(values, i) for i in range(values.type.count)]


def places_of(builder, first, rows, step, starts):
    """The address first + r · step + start for each row r and each of ``starts``, row after row."""
    for r in range(rows):
        row = builder.gep(first, [builder.mul(step, ir.IntType(64)(r))])
        for start in starts:
            yield builder.gep(row, [start])


def _tile_of(name, tile, a, writes=False):
    """Refuse, while typing, a tile that is no tuple of vectors of the array's dtype."""
    if (
        not isinstance(getattr(tile, "dtype", None), Vector)
        or vectors._array(a, writes).dtype != tile.dtype.dtype
    ):
        raise numba.TypingError(
            f"{name}: expected a tile of vectors and an array of their dtype, got {tile} and {a}"
        )


# ---------------------------------------------------------------------------------------------- making tiles


@intrinsic(prefer_literal=True)
def zeros(typing, a, rows, columns, v):
    """A tile of so many rows of ``columns`` vectors, all 0, of the dtype of the array a; both numbers are constants."""
    count = constant(rows, "zeros") * constant(columns, "zeros")
    tile = types.UniTuple(Vector(a.dtype, vectors._lanes(v)), count)

    def code(context, builder, signature, args):
        nought = ir.Constant(tile.dtype.llvm, [0.0] * tile.dtype.n)
        return context.make_tuple(builder, tile, [nought] * count)

    return tile(a, rows, columns, v), code


@intrinsic(prefer_literal=True)
def repeat(typing, row, rows):
    """A tile of so many rows, each the tuple of vectors ``row``; rows is a constant."""
    count = constant(rows, "repeat")
    tile = types.UniTuple(row.dtype, len(row) * count)

    def code(context, builder, signature, args):
        return context.make_tuple(builder, tile, numbers_of(builder, args[0]) * count)

    return tile(row, rows), code


# ---------------------------------------------------------------------------------------------- memory


def tile_places(context, builder, signature, args):
    """The addresses of the vectors of a tile, for the arguments (tile, a, at, step, starts)."""
    _, array, at, step, starts = args
    first = vectors._place(context, builder, signature.args[1], array, at)
    starts = numbers_of(builder, starts)
    return places_of(builder, first, len(signature.args[0]) // len(starts), step, starts)


@intrinsic
def _load_tile_any(typing, like, a, at, step, starts):
    _tile_of("load_tile", like, a)

    def code(context, builder, signature, args):
        places = tile_places(context, builder, signature, args)
        return context.make_tuple(
            builder, like, [vectors._load(builder, place, like.dtype) for place in places]
        )

    return like(like, a, types.intp, types.intp, starts), code


@intrinsic
def _store_tile_any(typing, tile, a, at, step, starts):
    _tile_of("store_tile", tile, a, True)

    def code(context, builder, signature, args):
        places = tile_places(context, builder, signature, args)
        for vector, place in zip(numbers_of(builder, args[0]), places):
            vectors._store(builder, vector, place, tile.dtype)
        return context.get_dummy_value()

    return types.void(tile, a, types.intp, types.intp, starts), code


@intrinsic
def prefetch_tile(typing, tile, a, at, step, starts):
    """Ask memory for what ``load_tile`` of the same arguments will want. The place may lie outside of the array."""

    def code(context, builder, signature, args):
        bits = ir.IntType(32)
        for place in tile_places(context, builder, signature, args):
            byte = builder.bitcast(place, ir.IntType(8).as_pointer())
            # read, keep close, data
            vectors._call(builder, "llvm.prefetch.p0", ir.VoidType(), [byte, bits(0), bits(3), bits(1)])
        return context.get_dummy_value()

    return types.void(tile, a, types.intp, types.intp, starts), code


# ---------------------------------------------------------------------------------------------- arithmetic


@intrinsic
def add_tiles(typing, tile, other):
    """The sum of two tiles of one type."""
    if tile != other:
        raise numba.TypingError(f"add_tiles: expected two tiles of one type, got {tile} and {other}")

    def code(context, builder, signature, args):
        pairs = zip(*(numbers_of(builder, arg) for arg in args))
        return context.make_tuple(builder, tile, [builder.fadd(x, y) for x, y in pairs])

    return tile(tile, other), code


@intrinsic
def fma_tile(typing, tile, x, y):
    """The tile with vector · x + y in place of each vector; x and y hold what one row of it needs."""

    def code(context, builder, signature, args):
        old, factors, terms = (numbers_of(builder, arg) for arg in args)
        new = [
            vectors._fma(builder, tile.dtype, vector, factors[i % len(x)], terms[i % len(y)])
            for i, vector in enumerate(old)
        ]
        return context.make_tuple(builder, tile, new)

    return tile(tile, x, y), code


@intrinsic
def _add_outer_any(typing, tile, a, at, step, row):
    _tile_of("add_outer", tile, a)

    def code(context, builder, signature, args):
        first = vectors._place(context, builder, signature.args[1], args[1], args[2])
        sums, old = [], iter(numbers_of(builder, args[0]))
        for place in places_of(builder, first, len(tile) // len(row), args[3], [ir.IntType(64)(0)]):
            number = vectors._spread(builder, builder.load(place), tile.dtype)
            for vector in numbers_of(builder, args[4]):
                sums.append(vectors._fma(builder, tile.dtype, number, vector, next(old)))
        return context.make_tuple(builder, tile, sums)

    return tile(tile, a, types.intp, types.intp, row), code


@intrinsic
def _add_taps_any(typing, tile, a, at, step, starts, tap, weights):
    _tile_of("add_taps", tile, a)
    vectors._alike("add_taps", tile.dtype, weights.dtype)

    def code(context, builder, signature, args):
        sums = numbers_of(builder, args[0])
        for i, start in enumerate(numbers_of(builder, args[4])):
            begin = builder.add(args[2], start)
            for weight in numbers_of(builder, args[6]):
                place = begin
                for r in range(i, len(tile), len(starts)):  # the same column in all rows
                    here = vectors._place(context, builder, signature.args[1], args[1], place)
                    x = vectors._load(builder, here, tile.dtype)
                    sums[r] = vectors._fma(builder, tile.dtype, x, weight, sums[r])
                    place = builder.add(place, args[3])
                begin = builder.add(begin, args[5])
        return context.make_tuple(builder, tile, sums)

    return tile(tile, a, types.intp, types.intp, starts, types.intp, weights), code


# ---------------------------------------------------------------------------------------------- public names of memory

if PLAIN:
    from numnet.kernels._plain_tiles import *  # noqa: F403  the same names on NumPy arrays
elif CHECK:

    @numba.njit
    def _inside_rows(a, at, count, rows, step):
        vectors._inside(a, at, count)
        vectors._inside(a, at + (rows - 1) * step, count)

    @numba.njit
    def load_tile(like, a, at, step, starts):
        for start in starts:
            _inside_rows(a, at + start, width(like[0]), len(like) // len(starts), step)
        return _load_tile_any(like, a, at, step, starts)

    @numba.njit
    def store_tile(tile, a, at, step, starts):
        for start in starts:
            _inside_rows(a, at + start, width(tile[0]), len(tile) // len(starts), step)
        _store_tile_any(tile, a, at, step, starts)

    @numba.njit
    def add_outer(tile, a, at, step, row):
        _inside_rows(a, at, 1, len(tile) // len(row), step)
        return _add_outer_any(tile, a, at, step, row)

    @numba.njit
    def add_taps(tile, a, at, step, starts, tap, weights):
        for start in starts:
            seen = width(tile[0]) + (len(weights) - 1) * tap  # all taps of a vector
            _inside_rows(a, at + start, seen, len(tile) // len(starts), step)
        return _add_taps_any(tile, a, at, step, starts, tap, weights)

else:
    load_tile, store_tile = _load_tile_any, _store_tile_any
    add_outer, add_taps = _add_outer_any, _add_taps_any
