"""Whole numbers in registers: a lane of 32 bits is one sum, or a *word*, four bytes side by side.

The page ``vectors`` made registers of floats ordinary values of a kernel; this one does it for the arithmetic in eight bits
(page ``eight_bits``). A lane is as wide as a float32, so the lanes ``v`` are those of ``vectors``.

| name | meaning, lane by lane |
|---|---|
| ``widen(a, at, v)`` | the numbers a[at], a[at + 1], … of bytes or int32, as int32 |
| ``load_word(a, at, v)`` | words: lane i holds the four bytes from a[at + 4i] |
| ``spread_word(a, at, v)`` | the four bytes from a[at] in all lanes |
| ``slide(word, fresh)`` | the word's bytes one place down, and ``fresh``, a number of 0 … 255, on top |
| ``dot(total, x, w)`` | total + Σ x_i · w_i over the four bytes of a word: x of 0 … 255, w of −128 … 127 |
| ``x + y``, ``x - y``, ``x * y`` | int32, which wraps around |
| ``between(x, low, high)`` | low where x is smaller, high where it is larger |
| ``rescale(x, m, c, s, at)`` | (x · m[at …] + c[at …]) >> s[at …] in 64 bits, as int32; m, c, s are int64 |
| ``shift(x, bits)`` | x / 2^bits, rounded down |
| ``larger(word, other)`` | of each two bytes, numbers of 0 … 255, the larger |
| ``put(a, at, x)`` | the way back: the low eight bits of each lane into bytes, or the lane itself into int32 |
| ``put_word(a, at, x)`` | words back into bytes |
| ``noughts(v)``, ``noughts_tile(places, rows, v)`` | zeros, and a tile of them: rows × len(places) |
| ``add_dots(tile, a, at, step, vectors)`` | row r of the tile gains dot(the word spread from a[at + r · step], vectors[i]) |
| ``add_words(tile, a, at, step, w)`` | tile[i] gains dot(the words from a[at + i · step], w) |
| ``load_words(a, at, places, v)`` | a tuple: the words from a[at + places[i]] |
| ``finish_tile(tile, y, to, step, columns, (m, c, s), (low, high))`` | rescaled, cut, put behind y[to + r · step] |

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
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from numnet.kernels import vectors
from numnet.kernels._jit import row
from numnet.kernels.vectors import CHECK, FEATURES, PLAIN, width

_INT, _LONG = ir.IntType(32), ir.IntType(64)
BYTES = (types.uint8, types.int8)


class Words(types.Type):
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


def _words(v):
    return v if isinstance(v, Words) else Words(vectors._lanes(v))


def _array(name, a, dtypes, writes=False):
    """Refuse, while typing, what would be read or written wrongly."""
    a = types.unliteral(a)
    if not isinstance(a, types.Array) or a.ndim != 1 or a.layout != "C" or a.dtype not in dtypes:
        kinds = " or ".join(map(str, dtypes))
        raise numba.TypingError(f"{name}: expected a contiguous array of one dimension of {kinds}, got {a}")
    if writes and not a.mutable:
        raise numba.TypingError(f"{name}: the array is read-only: {a}")
    return a


def _alike(name, *kinds):
    if not isinstance(kinds[0], Words) or any(kind != kinds[0] for kind in kinds):
        raise numba.TypingError(f"{name}: expected words of one type, got {', '.join(map(str, kinds))}")
    return kinds[0]


def _vector(kind, n):
    return ir.VectorType(kind, n)


def _equal(kind, n, number):
    return ir.Constant(_vector(kind, n), [number] * n)


def _read(builder, place, kind, n):
    """<n x kind> from an address that may stand anywhere."""
    value = builder.load(builder.bitcast(place, _vector(kind, n).as_pointer()))
    value.align = 1 if kind.width == 8 else kind.width // 8
    return value


def _read_words(builder, place, n):
    value = builder.load(builder.bitcast(place, _vector(_INT, n).as_pointer()))
    value.align = 1
    return value


def _spread(builder, number, n):
    nothing = ir.Constant(_vector(_INT, n), ir.Undefined)
    first = builder.insert_element(nothing, number, _INT(0))
    return builder.shuffle_vector(first, nothing, _equal(_INT, n, 0))


_BITS = {4: 128, 8: 256, 16: 512}
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


def _dot(builder, n, total, x, w, way=None):
    way = way or way_of(n)
    call = vectors._call
    if way == "vnni":
        return call(builder, f"llvm.x86.avx512.vpdpbusd.{_BITS[n]}", _vector(_INT, n), [total, x, w])
    if way == "pairs":  # bytes 0 and 2 of each word, and bytes 1 and 3, as numbers of 16 bits
        short = ir.IntType(16)
        x, w = (builder.bitcast(value, _vector(short, 2 * n)) for value in (x, w))
        eight = _equal(short, 2 * n, 8)
        even = builder.and_(x, _equal(short, 2 * n, 255)), builder.ashr(builder.shl(w, eight), eight)
        odd = builder.lshr(x, eight), builder.ashr(w, eight)
        for pair in (even, odd):
            total = builder.add(total, call(builder, _PAIRS[n], _vector(_INT, n), list(pair)))
        return total
    for byte in range(4):
        left, most = _equal(_INT, n, 24 - 8 * byte), _equal(_INT, n, 24)
        number = builder.lshr(builder.shl(x, left), most)
        weight = builder.ashr(builder.shl(w, left), most)
        total = builder.add(total, builder.mul(number, weight))
    return total


# ---------------------------------------------------------------------------------------------- memory and registers


@intrinsic
def _widen(typing, a, at, v):
    kind, words = _array("widen", a, (*BYTES, types.int32)).dtype, _words(v)

    def code(context, builder, signature, args):
        place = vectors._place(context, builder, signature.args[0], args[0], args[1])
        value = _read(builder, place, ir.IntType(kind.bitwidth), words.n)
        if kind == types.int32:
            return value
        return builder.sext(value, words.llvm) if kind.signed else builder.zext(value, words.llvm)

    return words(a, types.intp, v), code


@intrinsic
def _load_word(typing, a, at, v):
    words = _words(v)
    _array("load_word", a, BYTES)

    def code(context, builder, signature, args):
        place = vectors._place(context, builder, signature.args[0], args[0], args[1])
        return _read_words(builder, place, words.n)

    return words(a, types.intp, v), code


def _spread_from(builder, place, n):
    number = builder.load(builder.bitcast(place, _INT.as_pointer()))
    number.align = 1
    return _spread(builder, number, n)


@intrinsic
def _spread_word(typing, a, at, v):
    words = _words(v)
    _array("spread_word", a, BYTES)

    def code(context, builder, signature, args):
        place = vectors._place(context, builder, signature.args[0], args[0], args[1])
        return _spread_from(builder, place, words.n)

    return words(a, types.intp, v), code


@intrinsic
def _put(typing, a, at, x):
    kind = _array("put", a, (*BYTES, types.int32), True).dtype
    _alike("put", x)

    def code(context, builder, signature, args):
        place = vectors._place(context, builder, signature.args[0], args[0], args[1])
        value, element = args[2], ir.IntType(kind.bitwidth)
        if kind != types.int32:
            value = builder.trunc(value, _vector(element, x.n))
        builder.store(value, builder.bitcast(place, value.type.as_pointer())).align = kind.bitwidth // 8
        return context.get_dummy_value()

    return types.void(a, types.intp, x), code


@intrinsic
def _put_word(typing, a, at, x):
    _array("put_word", a, BYTES, True)
    _alike("put_word", x)

    def code(context, builder, signature, args):
        place = vectors._place(context, builder, signature.args[0], args[0], args[1])
        builder.store(args[2], builder.bitcast(place, x.llvm.as_pointer())).align = 1
        return context.get_dummy_value()

    return types.void(a, types.intp, x), code


@intrinsic
def _rescale(typing, x, m, c, s, at):
    _alike("rescale", x)
    for a in (m, c, s):
        _array("rescale", a, (types.int64,))

    def code(context, builder, signature, args):
        wide = builder.sext(args[0], _vector(_LONG, x.n))
        m, c, s = (
            _read(builder, vectors._place(context, builder, signature.args[i], args[i], args[4]), _LONG, x.n)
            for i in (1, 2, 3)
        )
        return builder.trunc(builder.ashr(builder.add(builder.mul(wide, m), c), s), x.llvm)

    return x(x, m, c, s, types.intp), code


# ---------------------------------------------------------------------------------------------- arithmetic


def _operator(function, build):
    """Make ``function`` work on words of one type."""

    class Typing(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and isinstance(args[0], Words) and args[0] == args[1]:
                return signature(args[0], *args)

    infer_global(function)(Typing)
    lower_builtin(function, Words, Words)(lambda context, builder, signature, args: build(builder, *args))


_operator(operator.add, lambda b, x, y: b.add(x, y))
_operator(operator.sub, lambda b, x, y: b.sub(x, y))
_operator(operator.mul, lambda b, x, y: b.mul(x, y))


@intrinsic
def noughts(typing, v):
    """Zeros."""
    words = _words(v)
    return words(v), lambda context, builder, signature, args: _equal(_INT, words.n, 0)


@intrinsic(prefer_literal=True)
def noughts_tile(typing, places, rows, v):
    """A tile of zeros: so many rows, a constant, of as many vectors as the tuple ``places`` has."""
    tile = types.UniTuple(_words(v), len(places) * vectors._literal(rows, "noughts_tile"))

    def code(context, builder, signature, args):
        return context.make_tuple(builder, tile, [_equal(_INT, tile.dtype.n, 0)] * tile.count)

    return tile(places, rows, v), code


@intrinsic
def same(typing, number, v):
    """One number in all lanes."""
    words = _words(v)

    def code(context, builder, signature, args):
        return _spread(builder, context.cast(builder, args[0], signature.args[0], types.int32), words.n)

    return words(number, v), code


@intrinsic
def between(typing, x, low, high):
    """low where x is smaller, high where it is larger; numbers or words."""
    _alike("between", x)

    def code(context, builder, signature, args):
        value = args[0]
        for i, sign in ((1, "<"), (2, ">")):
            bound = args[i]
            if not isinstance(signature.args[i], Words):
                bound = _spread(builder, context.cast(builder, bound, signature.args[i], types.int32), x.n)
            value = builder.select(builder.icmp_signed(sign, value, bound), bound, value)
        return value

    return x(x, low, high), code


@intrinsic
def shift(typing, x, bits):
    """x / 2^bits, rounded down."""
    _alike("shift", x)

    def code(context, builder, signature, args):
        return builder.ashr(
            args[0], _spread(builder, context.cast(builder, args[1], signature.args[1], types.int32), x.n)
        )

    return x(x, bits), code


@intrinsic
def slide(typing, word, fresh):
    """The word's bytes one place down, and a number of 0 … 255 on top."""
    _alike("slide", word, fresh)

    def code(context, builder, signature, args):  # one instruction where there is VBMI2
        eight = _equal(_INT, word.n, 8)
        return vectors._call(builder, f"llvm.fshr.v{word.n}i32", word.llvm, [args[1], args[0], eight])

    return word(word, fresh), code


@intrinsic
def larger(typing, word, other):
    """Of each two bytes, numbers of 0 … 255, the larger."""
    _alike("larger", word, other)

    def code(context, builder, signature, args):
        x, y = (builder.bitcast(value, _vector(ir.IntType(8), 4 * word.n)) for value in args)
        return builder.bitcast(builder.select(builder.icmp_unsigned(">", x, y), x, y), word.llvm)

    return word(word, other), code


def _dot_by(way):
    @intrinsic
    def dot(typing, total, x, w):
        """total + Σ x_i · w_i over the four bytes of a word."""
        _alike("dot", total, x, w)
        return total(total, x, w), lambda context, builder, signature, args: _dot(
            builder, total.n, *args, way
        )

    return dot


dot, dot_pairs, dot_plain = _dot_by(None), _dot_by("pairs"), _dot_by("plain")  # the last two for the tests


# ---------------------------------------------------------------------------------------------- tiles


def _tile_of(name, tile):
    if not isinstance(getattr(tile, "dtype", None), Words):
        raise numba.TypingError(f"{name}: expected a tile of words, got {tile}")


@intrinsic
def _add_dots(typing, tile, a, at, step, vectors_):
    rows, count = len(tile) // len(vectors_), len(vectors_)
    _tile_of("add_dots", tile)
    _array("add_dots", a, BYTES)

    def code(context, builder, signature, args):
        first = vectors._place(context, builder, signature.args[1], args[1], args[2])
        sums = []
        for r in range(rows):
            place = builder.gep(first, [builder.mul(args[3], _LONG(r))])
            x = _spread_from(builder, place, tile.dtype.n)
            for i in range(count):
                old, w = builder.extract_value(args[0], r * count + i), builder.extract_value(args[4], i)
                sums.append(_dot(builder, tile.dtype.n, old, x, w))
        return context.make_tuple(builder, tile, sums)

    return tile(tile, a, types.intp, types.intp, vectors_), code


@intrinsic
def _add_words(typing, tile, a, at, step, w):
    _tile_of("add_words", tile)
    _array("add_words", a, BYTES)

    def code(context, builder, signature, args):
        place = vectors._place(context, builder, signature.args[1], args[1], args[2])
        sums = []
        for i in range(len(tile)):
            x = _read_words(builder, place, tile.dtype.n)
            sums.append(_dot(builder, tile.dtype.n, builder.extract_value(args[0], i), x, args[4]))
            place = builder.gep(place, [args[3]])
        return context.make_tuple(builder, tile, sums)

    return tile(tile, a, types.intp, types.intp, w), code


@intrinsic
def _load_words(typing, a, at, places, v):
    tile = types.UniTuple(_words(v), len(places))
    _array("load_words", a, BYTES)

    def code(context, builder, signature, args):
        first = vectors._place(context, builder, signature.args[0], args[0], args[1])
        places_ = [builder.gep(first, [builder.extract_value(args[2], i)]) for i in range(tile.count)]
        return context.make_tuple(
            builder, tile, [_read_words(builder, place, tile.dtype.n) for place in places_]
        )

    return tile(a, types.intp, places, v), code


@intrinsic
def _finish_tile(typing, tile, y, to, step, columns, numbers, bounds):
    rows, count, n = len(tile) // len(columns), len(columns), tile.dtype.n
    _tile_of("finish_tile", tile)
    kind = _array("finish_tile", y, (types.uint8, types.int32), True).dtype
    if not isinstance(numbers, types.UniTuple) or numbers.dtype.dtype != types.int64:
        raise numba.TypingError(f"finish_tile: expected three arrays of int64, got {numbers}")

    def code(context, builder, signature, args):
        first = vectors._place(context, builder, signature.args[1], args[1], args[2])
        low, high = (_spread_long(builder, builder.extract_value(args[6], i), n) for i in (0, 1))
        element = ir.IntType(kind.bitwidth)
        for i in range(count):
            f = builder.extract_value(args[4], i)
            m, c, s = (
                _read(
                    builder,
                    vectors._place(context, builder, numbers.dtype, builder.extract_value(args[5], k), f),
                    _LONG,
                    n,
                )
                for k in range(3)
            )
            for r in range(rows):
                wide = builder.sext(builder.extract_value(args[0], r * count + i), _vector(_LONG, n))
                whole = builder.trunc(builder.ashr(builder.add(builder.mul(wide, m), c), s), _vector(_INT, n))
                for sign, bound in (("<", low), (">", high)):
                    whole = builder.select(builder.icmp_signed(sign, whole, bound), bound, whole)
                value = builder.trunc(whole, _vector(element, n)) if element != _INT else whole
                row = builder.gep(first, [builder.add(builder.mul(args[3], _LONG(r)), f)])
                builder.store(value, builder.bitcast(row, value.type.as_pointer())).align = element.width // 8
        return context.get_dummy_value()

    return types.void(tile, y, types.intp, types.intp, columns, numbers, bounds), code


def _spread_long(builder, number, n):
    return _spread(builder, builder.trunc(number, _INT), n)


@intrinsic
def lanes_of(typing, x):
    """How many lanes words have."""
    n = _words(x).n
    return types.intp(x), lambda context, builder, signature, args: _LONG(n)


# ---------------------------------------------------------------------------------------------- public names of memory

if PLAIN:
    from numnet.kernels._plain_words import *  # noqa: F403  the same names on NumPy arrays
elif CHECK:
    _inside = vectors._inside

    @row
    def widen(a, at, v):
        _inside(a, at, width(v))
        return _widen(a, at, v)

    @row
    def load_word(a, at, v):
        _inside(a, at, 4 * width(v))
        return _load_word(a, at, v)

    @row
    def spread_word(a, at, v):
        _inside(a, at, 4)
        return _spread_word(a, at, v)

    @row
    def put(a, at, x):
        _inside(a, at, lanes_of(x))
        _put(a, at, x)

    @row
    def put_word(a, at, x):
        _inside(a, at, 4 * lanes_of(x))
        _put_word(a, at, x)

    @row
    def rescale(x, m, c, s, at):
        _inside(m, at, lanes_of(x))
        _inside(c, at, lanes_of(x))
        _inside(s, at, lanes_of(x))
        return _rescale(x, m, c, s, at)

    @row
    def add_dots(tile, a, at, step, words):
        _inside(a, at, 4)
        _inside(a, at + (len(tile) // len(words) - 1) * step, 4)
        return _add_dots(tile, a, at, step, words)

    @row
    def load_words(a, at, places, v):
        for place in places:
            _inside(a, at + place, 4 * width(v))
        return _load_words(a, at, places, v)

    @row
    def finish_tile(tile, y, to, step, columns, numbers, bounds):
        n, rows = lanes_of(tile[0]), len(tile) // len(columns)
        for f in columns:
            _inside(y, to + f, n)
            _inside(y, to + f + (rows - 1) * step, n)
            for a in numbers:
                _inside(a, f, n)
        _finish_tile(tile, y, to, step, columns, numbers, bounds)

    @row
    def add_words(tile, a, at, step, w):
        _inside(a, at, 4 * lanes_of(w))
        _inside(a, at + (len(tile) - 1) * step, 4 * lanes_of(w))
        return _add_words(tile, a, at, step, w)

else:
    widen, load_word, spread_word, put, put_word = _widen, _load_word, _spread_word, _put, _put_word
    rescale, add_dots, add_words = _rescale, _add_dots, _add_words
    load_words, finish_tile = _load_words, _finish_tile
