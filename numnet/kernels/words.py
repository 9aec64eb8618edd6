"""Whole numbers in registers: a lane of 32 bits is one sum, or a *word*, four bytes side by side.

The pages ``vectors`` and ``tiles`` made registers of floats, and tuples of them, ordinary values of a kernel. This one does
it for the arithmetic in eight bits (page ``eight_bits``). A lane is as wide as a float32, so the lanes ``v`` are those of
``vectors``. A name that stands there, too, does the same job here on words; its arguments may differ (``zero``, ``zeros``,
``add_taps``).

| name | meaning, lane by lane |
|---|---|
| ``widen(a, at, v)`` | the numbers a[at], a[at + 1], … of bytes or int32, as int32 |
| ``narrow(a, at, x)`` | the way back: the low eight bits of each lane into bytes, or the lane itself into int32 |
| ``load_words(a, at, v)`` | words: lane i holds the four bytes from a[at + 4i] |
| ``store_words(a, at, x)`` | the way back |
| ``spread(number, v)`` | one number in all lanes |
| ``spread_at(a, at, v)`` | one word, the four bytes from a[at], in all lanes |
| ``zero(v)`` | zeros |
| ``x + y``, ``x - y``, ``x * y`` | int32, which wraps around |
| ``shift(x, bits)`` | x / 2^bits, rounded down |
| ``clip(x, low, high)`` | low where x is smaller, high where it is larger |
| ``rescale(x, fixed, at)`` | equation (6) of x, a ``Fixed``, for the filters at, at + 1, …; in 64 bits |
| ``dot(total, x, w)`` | total + Σ x_i · w_i over the four bytes of a word: x of 0 … 255, w of −128 … 127 |
| ``dot_pairs``, ``dot_plain`` | the same made in the second and in the third way (below), for the tests |
| ``slide(word, fresh)`` | the word's bytes one place down, and ``fresh``, a number of 0 … 255, on top |
| ``larger(word, other)`` | of each two bytes, numbers of 0 … 255, the larger |
| ``zeros(R, V, v)`` | a tile of R · V vectors, row after row, all 0 |
| ``load_tile(like, a, at, step, starts)`` | the words of vector i of row r lie at a[at + r · step + starts[i]] |
| ``narrow_tile(tile, a, at, step, starts)`` | vector i of row r goes by ``narrow`` to a[at + r · step + starts[i]] |
| ``rescale_tile(tile, fixed, columns)`` | ``rescale``: vector i of each row is of the filters columns[i], columns[i] + 1, … |
| ``add_outer(tile, a, at, step, weights)`` | vector i of row r gains dot(spread_at(a, at + r · step), weights[i]) |
| ``add_taps(tile, a, at, step, weights)`` | vector r gains dot(load_words(a, at + r · step), weights): four taps |
| ``way_of(n)`` | which of the three ways below ``dot`` takes for n lanes |

The argument ``fixed`` is a ``Fixed``, or packed weights, which have its fields, too; ``like`` is any tile of the wanted
shape. ``width(v)`` of the page ``vectors`` and ``repeat(row, R)`` of ``tiles`` take words as they take vectors. Their type is
``Words``; ``BYTES`` are the dtypes of arrays that hold them.

**dot** is the instruction that eight bits are bought for. With VNNI (``vpdpbusd``) it is one instruction, which makes four
multiply-adds a lane where a float's fma makes one. Without it two ``pmaddwd`` do it, each of two 16-bit products a lane:
twice the multiply-adds of an fma, in a few more instructions. (There is a shorter way on AVX2, ``pmaddubsw``. It adds two
products in 16 bits and *saturates*: 255 · 127 · 2 = 64,770 comes out as 32,767. So it is not used.) Elsewhere, as on
ARM, shifts and 32-bit products. All three are exact, so all give the same bits.

Plain Python and check mode: as on the page ``vectors``.
"""

import operator

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from numnet.kernels import vectors
from numnet.kernels._jit import row
from numnet.kernels.eight_bits import Fixed
from numnet.kernels.tiles import constant, numbers_of, places_of, tile_places
from numnet.kernels.vectors import CHECK, FEATURES, PLAIN, Register, width

_BYTE, _SHORT, _INT, _LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))
BYTES = (types.uint8, types.int8)


class Words(Register):
    """n whole numbers of 32 bits; in LLVM <n x i32>."""

    def __init__(self, n):
        self.n = n
        super().__init__(name=f"Words({n})")

    @property
    def llvm(self):
        return ir.VectorType(_INT, self.n)


@register_model(Words)
class _WordsModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, kind.llvm)


# ---------------------------------------------------------------------------------------------- helpers for LLVM
# Below, ``kind`` is an LLVM type <n x …>. Nothing that is read or written need stand at a multiple of its size.


def _words(v):
    """The type of words of so many lanes."""
    return Words(vectors._lanes(v))


def _alike(name, *kinds):
    """Refuse, while typing, operands that are not words of one type."""
    return vectors._alike(name, *kinds, of=Words)


def _tile_of(name, tile):
    """Refuse, while typing, a tile that is no tuple of words."""
    if not isinstance(getattr(tile, "dtype", None), Words):
        raise numba.TypingError(f"{name}: expected a tile of words, got {tile}")


def _constant(kind, number):
    return ir.Constant(kind, [number] * kind.count)


def _read(builder, place, kind):
    value = builder.load(builder.bitcast(place, kind.as_pointer()))
    value.align = 1
    return value


def _write(builder, value, place):
    builder.store(value, builder.bitcast(place, value.type.as_pointer())).align = 1


def _spread_from(builder, place, words):
    """The four bytes at ``place`` in all lanes."""
    number = builder.load(builder.bitcast(place, _INT.as_pointer()))
    number.align = 1
    return vectors._spread(builder, number, words)


def _narrowed(builder, x, element, words):
    """The low bits of each lane, as numbers of the LLVM type ``element``."""
    return x if element == _INT else builder.trunc(x, ir.VectorType(element, words.n))


def _clipped(builder, x, low, high):
    x = builder.select(builder.icmp_signed("<", x, low), low, x)
    return builder.select(builder.icmp_signed(">", x, high), high, x)


_PAIRS = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}


def way_of(n, features=FEATURES) -> str:
    """How a processor with these LLVM features makes a dot of n lanes: "vnni", "pairs" (pmaddwd) or "plain"."""
    has = features.get
    narrow = has("avxvnni") or (has("avx512vnni") and has("avx512vl"))
    if (n == 16 and has("avx512vnni")) or (n in (4, 8) and narrow):
        return "vnni"
    if {4: has("sse2"), 8: has("avx2"), 16: has("avx512bw")}.get(n):
        return "pairs"
    return "plain"


def _dot(builder, words, total, x, w, way=None):
    way = way or way_of(words.n)
    if way == "vnni":
        name = f"llvm.x86.avx512.vpdpbusd.{32 * words.n}"
        return vectors._call(builder, name, words.llvm, [total, x, w])
    if way == "pairs":  # bytes 0 and 2 of each word, and bytes 1 and 3, as numbers of 16 bits
        shorts = ir.VectorType(_SHORT, 2 * words.n)
        x, w, eight = builder.bitcast(x, shorts), builder.bitcast(w, shorts), _constant(shorts, 8)
        even = builder.and_(x, _constant(shorts, 255)), builder.ashr(builder.shl(w, eight), eight)
        odd = builder.lshr(x, eight), builder.ashr(w, eight)
        for pair in (even, odd):
            total = builder.add(total, vectors._call(builder, _PAIRS[words.n], words.llvm, list(pair)))
        return total
    for byte in range(4):
        left, most = _constant(words.llvm, 24 - 8 * byte), _constant(words.llvm, 24)
        number = builder.lshr(builder.shl(x, left), most)
        weight = builder.ashr(builder.shl(w, left), most)
        total = builder.add(total, builder.mul(number, weight))
    return total


# ---------------------------------------------------------------------------------------------- memory and registers


@intrinsic
def _widen_any(typing, a, at, v):
    kind, words = vectors._array(a, dtypes=(*BYTES, types.int32)).dtype, _words(v)

    def code(context, builder, signature, args):
        place = vectors._place(context, builder, signature.args[0], args[0], args[1])
        value = _read(builder, place, ir.VectorType(ir.IntType(kind.bitwidth), words.n))
        if kind == types.int32:
            return value
        return builder.sext(value, words.llvm) if kind.signed else builder.zext(value, words.llvm)

    return words(a, types.intp, v), code


@intrinsic
def _narrow_any(typing, a, at, x):
    kind = vectors._array(a, True, (*BYTES, types.int32)).dtype
    _alike("narrow", x)

    def code(context, builder, signature, args):
        place = vectors._place(context, builder, signature.args[0], args[0], args[1])
        _write(builder, _narrowed(builder, args[2], ir.IntType(kind.bitwidth), x), place)
        return context.get_dummy_value()

    return types.void(a, types.intp, x), code


@intrinsic
def _load_words_any(typing, a, at, v):
    words = _words(v)
    vectors._array(a, dtypes=BYTES)

    def code(context, builder, signature, args):
        place = vectors._place(context, builder, signature.args[0], args[0], args[1])
        return _read(builder, place, words.llvm)

    return words(a, types.intp, v), code


@intrinsic
def _store_words_any(typing, a, at, x):
    vectors._array(a, True, BYTES)
    _alike("store_words", x)

    def code(context, builder, signature, args):
        _write(builder, args[2], vectors._place(context, builder, signature.args[0], args[0], args[1]))
        return context.get_dummy_value()

    return types.void(a, types.intp, x), code


@intrinsic
def _spread_at_any(typing, a, at, v):
    words = _words(v)
    vectors._array(a, dtypes=BYTES)

    def code(context, builder, signature, args):
        place = vectors._place(context, builder, signature.args[0], args[0], args[1])
        return _spread_from(builder, place, words)

    return words(a, types.intp, v), code


@intrinsic
def spread(typing, number, v):
    """One number in all lanes."""
    words = _words(v)

    def code(context, builder, signature, args):
        number = context.cast(builder, args[0], signature.args[0], types.int32)
        return vectors._spread(builder, number, words)

    return words(number, v), code


@intrinsic
def zero(typing, v):
    """Zeros."""
    words = _words(v)
    return words(v), lambda context, builder, signature, args: _constant(words.llvm, 0)


# ---------------------------------------------------------------------------------------------- arithmetic

vectors._operator(operator.add, lambda b, x, y: b.add(x, y), lambda words: words, Words)
vectors._operator(operator.sub, lambda b, x, y: b.sub(x, y), lambda words: words, Words)
vectors._operator(operator.mul, lambda b, x, y: b.mul(x, y), lambda words: words, Words)


@intrinsic
def shift(typing, x, bits):
    """x / 2^bits, rounded down."""
    _alike("shift", x)

    def code(context, builder, signature, args):
        bits = context.cast(builder, args[1], signature.args[1], types.int32)
        return builder.ashr(args[0], vectors._spread(builder, bits, x))

    return x(x, bits), code


@intrinsic
def clip(typing, x, low, high):
    """low where x is smaller, high where it is larger; low and high are numbers."""
    _alike("clip", x)

    def code(context, builder, signature, args):
        bounds = (
            vectors._spread(builder, context.cast(builder, args[i], signature.args[i], types.int32), x)
            for i in (1, 2)
        )
        return _clipped(builder, args[0], *bounds)

    return x(x, low, high), code


def _like_fixed(name, fixed):
    """Refuse, while typing, what has not the fields of a ``Fixed``."""
    fields = getattr(fixed, "fields", ())
    if not set(Fixed._fields) <= set(fields):
        raise numba.TypingError(f"{name}: expected a Fixed, got {fixed}")
    for field in ("m", "c", "shift"):
        vectors._array(fixed.types[fields.index(field)], dtypes=(types.int64,))


def _rescaling(context, builder, fixed, value, at, words):
    """A function, LLVM's x -> equation (6) of x, with the numbers of the filters at, at + 1, … in registers."""
    kinds = dict(zip(fixed.fields, fixed.types))
    parts = {field: builder.extract_value(value, i) for i, field in enumerate(fixed.fields)}
    longs = ir.VectorType(_LONG, words.n)
    m, c, shift = (
        _read(builder, vectors._place(context, builder, kinds[field], parts[field], at), longs)
        for field in ("m", "c", "shift")
    )
    low, high = (
        vectors._spread(builder, builder.trunc(parts[field], _INT), words) for field in ("low", "high")
    )

    def rescaled(x):
        whole = builder.ashr(builder.add(builder.mul(builder.sext(x, longs), m), c), shift)
        return _clipped(builder, builder.trunc(whole, words.llvm), low, high)

    return rescaled


@intrinsic
def _rescale_any(typing, x, fixed, at):
    _alike("rescale", x)
    _like_fixed("rescale", fixed)

    def code(context, builder, signature, args):
        return _rescaling(context, builder, fixed, args[1], args[2], x)(args[0])

    return x(x, fixed, types.intp), code


def _dot_by(way):
    @intrinsic
    def dot(typing, total, x, w):
        """total + Σ x_i · w_i over the four bytes of a word."""
        _alike("dot", total, x, w)
        return total(total, x, w), lambda context, builder, signature, args: _dot(builder, total, *args, way)

    return dot


dot, dot_pairs, dot_plain = _dot_by(None), _dot_by("pairs"), _dot_by("plain")


@intrinsic
def slide(typing, word, fresh):
    """The word's bytes one place down, and a number of 0 … 255 on top."""
    _alike("slide", word, fresh)

    def code(context, builder, signature, args):  # one instruction where there is VBMI2
        eight = _constant(word.llvm, 8)
        return vectors._call(builder, f"llvm.fshr.v{word.n}i32", word.llvm, [args[1], args[0], eight])

    return word(word, fresh), code


@intrinsic
def larger(typing, word, other):
    """Of each two bytes, numbers of 0 … 255, the larger."""
    _alike("larger", word, other)

    def code(context, builder, signature, args):
        x, y = (builder.bitcast(value, ir.VectorType(_BYTE, 4 * word.n)) for value in args)
        return builder.bitcast(builder.select(builder.icmp_unsigned(">", x, y), x, y), word.llvm)

    return word(word, other), code


# ---------------------------------------------------------------------------------------------- tiles of registers


@intrinsic(prefer_literal=True)
def zeros(typing, rows, count, v):
    """A tile of so many rows of ``count`` vectors, all 0; rows and count are constants."""
    tile = types.UniTuple(_words(v), constant(rows, "zeros") * constant(count, "zeros"))

    def code(context, builder, signature, args):
        return context.make_tuple(builder, tile, [_constant(tile.dtype.llvm, 0)] * tile.count)

    return tile(rows, count, v), code


@intrinsic
def _load_tile_any(typing, like, a, at, step, starts):
    _tile_of("load_tile", like)
    vectors._array(a, dtypes=BYTES)

    def code(context, builder, signature, args):
        places = tile_places(context, builder, signature, args)
        return context.make_tuple(builder, like, [_read(builder, place, like.dtype.llvm) for place in places])

    return like(like, a, types.intp, types.intp, starts), code


@intrinsic
def _narrow_tile_any(typing, tile, a, at, step, starts):
    _tile_of("narrow_tile", tile)
    kind = vectors._array(a, True, (*BYTES, types.int32)).dtype

    def code(context, builder, signature, args):
        places = tile_places(context, builder, signature, args)
        for x, place in zip(numbers_of(builder, args[0]), places):
            _write(builder, _narrowed(builder, x, ir.IntType(kind.bitwidth), tile.dtype), place)
        return context.get_dummy_value()

    return types.void(tile, a, types.intp, types.intp, starts), code


@intrinsic
def _rescale_tile_any(typing, tile, fixed, columns):
    _tile_of("rescale_tile", tile)
    _like_fixed("rescale_tile", fixed)

    def code(context, builder, signature, args):
        sums = numbers_of(builder, args[0])
        for i, at in enumerate(numbers_of(builder, args[2])):
            rescaled = _rescaling(context, builder, fixed, args[1], at, tile.dtype)
            for k in range(i, len(sums), len(columns)):  # the same column in all rows
                sums[k] = rescaled(sums[k])
        return context.make_tuple(builder, tile, sums)

    return tile(tile, fixed, columns), code


@intrinsic
def _add_outer_any(typing, tile, a, at, step, weights):
    _tile_of("add_outer", tile)
    vectors._array(a, dtypes=BYTES)

    def code(context, builder, signature, args):
        first = vectors._place(context, builder, signature.args[1], args[1], args[2])
        sums, old = [], iter(numbers_of(builder, args[0]))
        for place in places_of(builder, first, len(tile) // len(weights), args[3], [_LONG(0)]):
            x = _spread_from(builder, place, tile.dtype)
            for w in numbers_of(builder, args[4]):
                sums.append(_dot(builder, tile.dtype, next(old), x, w))
        return context.make_tuple(builder, tile, sums)

    return tile(tile, a, types.intp, types.intp, weights), code


@intrinsic
def _add_taps_any(typing, tile, a, at, step, weights):
    _tile_of("add_taps", tile)
    _alike("add_taps", weights)
    vectors._array(a, dtypes=BYTES)

    def code(context, builder, signature, args):
        first = vectors._place(context, builder, signature.args[1], args[1], args[2])
        places = places_of(builder, first, len(tile), args[3], [_LONG(0)])
        sums = [
            _dot(builder, tile.dtype, total, _read(builder, place, tile.dtype.llvm), args[4])
            for total, place in zip(numbers_of(builder, args[0]), places)
        ]
        return context.make_tuple(builder, tile, sums)

    return tile(tile, a, types.intp, types.intp, weights), code


# ---------------------------------------------------------------------------------------------- public names of memory

if PLAIN:
    from numnet.kernels._plain_words import *  # noqa: F403  the same names on NumPy arrays
elif CHECK:
    _inside = vectors._inside

    @row
    def widen(a, at, v):
        _inside(a, at, width(v))
        return _widen_any(a, at, v)

    @row
    def narrow(a, at, x):
        _inside(a, at, width(x))
        _narrow_any(a, at, x)

    @row
    def load_words(a, at, v):
        _inside(a, at, 4 * width(v))
        return _load_words_any(a, at, v)

    @row
    def store_words(a, at, x):
        _inside(a, at, 4 * width(x))
        _store_words_any(a, at, x)

    @row
    def spread_at(a, at, v):
        _inside(a, at, 4)
        return _spread_at_any(a, at, v)

    @row
    def rescale(x, fixed, at):
        _inside(fixed.m, at, width(x))
        _inside(fixed.c, at, width(x))
        _inside(fixed.shift, at, width(x))
        return _rescale_any(x, fixed, at)

    @row
    def load_tile(like, a, at, step, starts):
        rows = len(like) // len(starts)
        for start in starts:
            _inside(a, at + start, 4 * width(like[0]))
            _inside(a, at + start + (rows - 1) * step, 4 * width(like[0]))
        return _load_tile_any(like, a, at, step, starts)

    @row
    def narrow_tile(tile, a, at, step, starts):
        rows = len(tile) // len(starts)
        for start in starts:
            _inside(a, at + start, width(tile[0]))
            _inside(a, at + start + (rows - 1) * step, width(tile[0]))
        _narrow_tile_any(tile, a, at, step, starts)

    @row
    def rescale_tile(tile, fixed, columns):
        for f in columns:
            _inside(fixed.m, f, width(tile[0]))
            _inside(fixed.c, f, width(tile[0]))
            _inside(fixed.shift, f, width(tile[0]))
        return _rescale_tile_any(tile, fixed, columns)

    @row
    def add_outer(tile, a, at, step, weights):
        _inside(a, at, 4)
        _inside(a, at + (len(tile) // len(weights) - 1) * step, 4)
        return _add_outer_any(tile, a, at, step, weights)

    @row
    def add_taps(tile, a, at, step, weights):
        _inside(a, at, 4 * width(weights))
        _inside(a, at + (len(tile) - 1) * step, 4 * width(weights))
        return _add_taps_any(tile, a, at, step, weights)

else:
    widen, narrow, load_words, store_words = _widen_any, _narrow_any, _load_words_any, _store_words_any
    spread_at, rescale = _spread_at_any, _rescale_any
    load_tile, narrow_tile, rescale_tile = _load_tile_any, _narrow_tile_any, _rescale_tile_any
    add_outer, add_taps = _add_outer_any, _add_taps_any
