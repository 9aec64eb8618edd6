"""A register of the processor as a value: LANES numbers that are loaded, added, multiplied and stored together.

A processor's core multiplies and adds not one number at a time but a whole register of them: 4 numbers of float32 in
ARM's NEON and in SSE2, 8 in AVX2, 16 in AVX-512. Everything fast in numnet is written with such registers. On this page
they become ordinary values of a kernel, so that a kernel *says* what the processor is to do::

    v = lanes(channels, x.dtype)               # outside the kernel: how many numbers a register holds here
    total = zero(x, v)                         # inside: a register full of zeros
    for i in range(0, x.size, channels):       # pixel after pixel: the first vector of its channels
        total = fma(load(x, i, v), load(w, i, v), total)
    store(y, 0, total)

A value like ``total`` is a local variable of type ``Vector``, and LLVM, Numba's compiler, keeps it in a register.

| name | meaning, lane by lane |
|---|---|
| ``load(a, at, v)`` | the numbers a[at], a[at + 1], …  |
| ``store(a, at, x)`` | the way back |
| ``spread(number, v)``, ``spread_at(a, at, v)`` | one number, or a[at], in all lanes |
| ``zero(a, v)`` | zeros of a's dtype |
| ``x + y``, ``x - y``, ``x * y``, ``x / y`` | each rounded, never merged |
| ``fma(x, y, z)`` | x · y + z, rounded once: one instruction, and the only fusion there is |
| ``least(x, top)``, ``most(x, bottom)`` | the smaller, the larger; where x is NaN, NaN |
| ``x > y``, ``x >= y``, ``x < y``, ``x <= y``, ``both(m, n)``, ``where(m, x, y)`` | comparisons, and a choice by them |
| ``double(x)`` | float32 as float64 |
| ``power_of_two(x)`` | 2ˣ for whole numbers x, for the page ``exponential`` |

The page ``tiles`` makes tuples of them, which a product keeps in registers.

**Lanes** are a part of the type: ``v`` is a small value whose Numba type carries the number. ``lanes(channels, dtype)`` takes
as many as the processor has, or as $NUMNET_LANES says. Where a map has fewer channels than that it takes half of them, or
one. Channels that the lanes do not divide end in a vector that *overlaps* the one before: it begins at channels − lanes. That
is three times as fast as masking lanes out. Some numbers are then computed twice, with the same result. Only adding to memory
must not happen twice, so it is never done through an overlapping vector. (``lanes_of(n)`` is the ``v`` of n lanes. Back
from a ``v`` to n it goes by ``width(v)`` in kernels, and by ``number_of(v)`` in Python.)

**Same bits.** No sum runs across the lanes of a vector, so 4, 8 and 16 lanes give the same bits.

**Plain Python** (NUMBA_DISABLE_JIT=1) gives each name its meaning on small NumPy arrays, for the debugger and for
counting; ``fma`` rounds twice there. **Check mode** (NUMNET_CHECK=1) tests each index of load, store and spread_at.

How a name is made: an *intrinsic* is a function that Numba does not compile from Python, but asks for its LLVM
instructions. ``builder.fmul(x, y)`` below writes the line ``%z = fmul <16 x float> %x, %y``, which LLVM turns into the
one instruction ``vmulps``. Nothing here changes a setting of Numba or LLVM for anybody else.
"""

import operator
import os

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model
from numba.np.arrayobj import make_array

from numnet.errors import NumnetError

PLAIN = bool(numba.config.DISABLE_JIT)  # kernels run as plain Python
CHECK = os.environ.get("NUMNET_CHECK", "0") not in ("", "0")


def processor_lanes(features) -> int:
    """Numbers of float32 in a register of a processor with these LLVM features (name -> bool)."""
    return 16 if features.get("avx512f") else 8 if features.get("avx") else 4


FEATURES = llvm.get_host_cpu_features()
_ASKED = os.environ.get("NUMNET_LANES", "")
_WRONG = _ASKED not in ("", "4", "8", "16")
# float32 numbers in a register; any value runs anywhere, and all give the same bits
LANES = int(_ASKED) if _ASKED and not _WRONG else processor_lanes(FEATURES)
# NEON and AVX-512 have 32 registers, AVX2 and SSE2 16. ``numnet bench`` asks, to measure the peak with as many sums as fit.
REGISTERS = 32 if FEATURES.get("avx512f") or FEATURES.get("neon") else 16
FUSED = bool(PLAIN or FEATURES.get("fma") or FEATURES.get("neon"))  # else fma is a slow call of a library


# How many numbers a vector of a kernel has is an argument of the kernel, ``v``, and must be known while it is compiled. So
# each number of lanes is a NumPy integer of a type of its own. (Numba recognises these in 0.1 µs, alone or in a named
# tuple. An object of a class of ours costs a named tuple 15 µs at each call; an empty array is counted by its users.)
_LANES = {1: np.uint8(1), 2: np.uint16(2), 4: np.uint32(4), 8: np.int8(8), 16: np.int16(16)}
_NUMBERS = {numba.typeof(v): n for n, v in _LANES.items()}


def lanes_of(n: int) -> np.integer:
    """The ``v`` of n lanes: 1, 2, 4, 8 or 16."""
    return _LANES[n]


def number_of(v) -> int:
    """The number of lanes of ``v``, in Python; inside kernels it is ``width(v)``."""
    return int(v)


def lanes(channels: int, dtype) -> np.integer:
    """The lanes for maps of so many channels: the processor's; with fewer channels half of them; with still fewer one.

    There is nothing between half and one: every number of lanes is compiled anew, and for so narrow maps that costs more
    than it saves.
    """
    if _WRONG:
        raise NumnetError(f"NUMNET_LANES: expected 4, 8 or 16, got {_ASKED!r}")
    dtype = np.dtype(dtype)
    if dtype.kind == "O":  # numbers that count their own operations, in plain Python
        return _LANES[1]
    most = LANES if dtype == np.float32 else LANES // 2
    return _LANES[most if channels >= most else most // 2 if channels >= most // 2 else 1]


# ---------------------------------------------------------------------------------------------- the types


class Register(types.Type):
    """n numbers side by side: a ``Vector`` here, or ``Words`` on the page of that name. ``llvm`` is what it is in LLVM."""


class Vector(Register):
    """n numbers of a dtype; in LLVM <n x float> or <n x double>."""

    def __init__(self, dtype, n):
        self.dtype, self.n = dtype, n
        super().__init__(name=f"Vector({dtype}, {n})")

    @property
    def llvm(self):
        return ir.VectorType(ir.FloatType() if self.dtype == types.float32 else ir.DoubleType(), self.n)


class Mask(types.Type):
    """n answers yes or no; in LLVM <n x i1>."""

    def __init__(self, n):
        self.n = n
        super().__init__(name=f"Mask({n})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, kind.llvm)


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(ir.IntType(1), kind.n))


# ---------------------------------------------------------------------------------------------- helpers for LLVM


FLOATS = (types.float32, types.float64)


def _array(a, writes=False, dtypes=FLOATS):
    """Refuse, while typing, what load and store would read or write wrongly."""
    a = types.unliteral(a)
    if not isinstance(a, types.Array) or a.ndim != 1 or a.layout != "C" or a.dtype not in dtypes:
        kinds = "float" if dtypes == FLOATS else " or ".join(map(str, dtypes))
        raise numba.TypingError(f"vectors: expected a contiguous {kinds} array of one dimension, got {a}")
    if writes and not a.mutable:
        raise numba.TypingError(f"vectors: store into a read-only array: {a}")
    return a


def _alike(name, *kinds, of=Vector):
    """Refuse, while typing, operands that are not vectors, or words, of one type."""
    if not isinstance(kinds[0], of) or any(kind != kinds[0] for kind in kinds):
        what = "vectors" if of is Vector else "words"
        raise numba.TypingError(f"{name}: expected {what} of one type, got {', '.join(map(str, kinds))}")
    return kinds[0]


def _lanes(v):
    """The number of lanes of the type of a ``v``, of a vector or of words."""
    if isinstance(v, Register):
        return v.n
    if types.unliteral(v) not in _NUMBERS:
        raise numba.TypingError(f"vectors: expected the lanes that ``lanes`` gives, got {v}")
    return _NUMBERS[types.unliteral(v)]


def _call(builder, name, result, arguments):
    """Call an LLVM function by its full name."""
    known = builder.module.globals.get(name)
    kind = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(known or ir.Function(builder.module, kind, name), arguments)


def _place(context, builder, array_type, array, at):
    """The address of array[at]."""
    return builder.gep(make_array(array_type)(context, builder, array).data, [at])


def _load(builder, place, vector):
    value = builder.load(builder.bitcast(place, vector.llvm.as_pointer()))
    value.align = vector.dtype.bitwidth // 8  # a row may start anywhere
    return value


def _store(builder, value, place, vector):
    done = builder.store(value, builder.bitcast(place, vector.llvm.as_pointer()))
    done.align = vector.dtype.bitwidth // 8


def _spread(builder, number, vector):
    nothing = ir.Constant(vector.llvm, ir.Undefined)
    first = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        first, nothing, ir.Constant(ir.VectorType(ir.IntType(32), vector.n), [0] * vector.n)
    )


def _fma(builder, vector, x, y, z):
    return _call(builder, f"llvm.fma.v{vector.n}f{vector.dtype.bitwidth}", vector.llvm, [x, y, z])


# ---------------------------------------------------------------------------------------------- memory and registers


@intrinsic
def _load_any(typing, a, at, v):
    vector = Vector(_array(a).dtype, _lanes(v))

    def code(context, builder, signature, args):
        return _load(builder, _place(context, builder, signature.args[0], args[0], args[1]), vector)

    return vector(a, types.intp, v), code


@intrinsic
def _store_any(typing, a, at, x):
    if not isinstance(x, Vector) or _array(a, True).dtype != x.dtype:
        raise numba.TypingError(f"store: expected a vector of the array's dtype {a.dtype}, got {x}")

    def code(context, builder, signature, args):
        _store(builder, args[2], _place(context, builder, signature.args[0], args[0], args[1]), x)
        return context.get_dummy_value()

    return types.void(a, types.intp, x), code


@intrinsic
def _spread_at_any(typing, a, at, v):
    vector = Vector(_array(a).dtype, _lanes(v))

    def code(context, builder, signature, args):
        return _spread(
            builder, builder.load(_place(context, builder, signature.args[0], args[0], args[1])), vector
        )

    return vector(a, types.intp, v), code


@intrinsic
def spread(typing, number, v):
    """One number in all lanes; where v is a vector, in its dtype."""
    vector = v if isinstance(v, Vector) else Vector(types.unliteral(number), _lanes(v))
    if vector.dtype not in (types.float32, types.float64):
        raise numba.TypingError(f"spread: expected a float32 or float64 number, got {number}")

    def code(context, builder, signature, args):
        return _spread(builder, context.cast(builder, args[0], signature.args[0], vector.dtype), vector)

    return vector(number, v), code


@intrinsic
def zero(typing, a, v):
    """Zeros of the dtype of the array a."""
    vector = Vector(a.dtype, _lanes(v))
    return vector(a, v), lambda context, builder, signature, args: ir.Constant(vector.llvm, [0.0] * _lanes(v))


@intrinsic
def width(typing, v):
    """The number of lanes: of ``v``, of a vector or of words."""
    return types.intp(v), lambda context, builder, signature, args: ir.Constant(ir.IntType(64), _lanes(v))


# ---------------------------------------------------------------------------------------------- arithmetic


def _operator(function, build, result, of=Vector):
    """Make ``function`` work on two vectors, or words, of one type."""

    class Typing(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and isinstance(args[0], of) and args[0] == args[1]:
                return signature(result(args[0]), *args)

    infer_global(function)(Typing)
    lower_builtin(function, of, of)(lambda context, builder, signature, args: build(builder, *args))


_operator(operator.add, lambda b, x, y: b.fadd(x, y), lambda vector: vector)
_operator(operator.sub, lambda b, x, y: b.fsub(x, y), lambda vector: vector)
_operator(operator.mul, lambda b, x, y: b.fmul(x, y), lambda vector: vector)
_operator(operator.truediv, lambda b, x, y: b.fdiv(x, y), lambda vector: vector)
_operator(operator.gt, lambda b, x, y: b.fcmp_ordered(">", x, y), lambda vector: Mask(vector.n))
_operator(operator.ge, lambda b, x, y: b.fcmp_ordered(">=", x, y), lambda vector: Mask(vector.n))
_operator(operator.lt, lambda b, x, y: b.fcmp_ordered("<", x, y), lambda vector: Mask(vector.n))
_operator(operator.le, lambda b, x, y: b.fcmp_ordered("<=", x, y), lambda vector: Mask(vector.n))


@intrinsic
def fma(typing, x, y, z):
    """x · y + z, rounded once."""
    _alike("fma", x, y, z)
    return x(x, y, z), lambda context, builder, signature, args: _fma(builder, x, *args)


@intrinsic
def where(typing, mask, x, y):
    """x where the mask says yes, else y."""
    if _alike("where", x, y).n != getattr(mask, "n", 0) or not isinstance(mask, Mask):
        raise numba.TypingError(f"where: expected a mask of {x.n} lanes, got {mask}")
    return x(mask, x, y), lambda context, builder, signature, args: builder.select(*args)


@intrinsic
def both(typing, mask, other):
    """Yes where both masks say yes."""
    if not isinstance(mask, Mask) or mask != other:
        raise numba.TypingError(f"both: expected two masks of as many lanes, got {mask}, {other}")
    return mask(mask, other), lambda context, builder, signature, args: builder.and_(*args)


@intrinsic
def least(typing, x, top):
    """The smaller of x and top; where x is NaN, NaN."""
    _alike("least", x, top)

    def code(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered("<", args[1], args[0]), args[1], args[0])

    return x(x, top), code


@intrinsic
def most(typing, x, bottom):
    """The larger of x and bottom; where x is NaN, NaN."""
    _alike("most", x, bottom)

    def code(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered(">", args[1], args[0]), args[1], args[0])

    return x(x, bottom), code


@intrinsic
def double(typing, x):
    """The same numbers as float64."""
    vector = Vector(types.float64, x.n)
    if x.dtype == types.float64:
        return x(x), lambda context, builder, signature, args: args[0]
    return vector(x), lambda context, builder, signature, args: builder.fpext(args[0], vector.llvm)


@intrinsic
def power_of_two(typing, x):
    """2ˣ for whole numbers x: the exponent's bits are put together as an integer."""
    bits, bias, place = (32, 127, 23) if x.dtype == types.float32 else (64, 1023, 52)
    whole = ir.VectorType(ir.IntType(bits), x.n)

    def code(context, builder, signature, args):
        exponent = builder.add(builder.fptosi(args[0], whole), ir.Constant(whole, [bias] * x.n))
        return builder.bitcast(builder.shl(exponent, ir.Constant(whole, [place] * x.n)), x.llvm)

    return x(x), code


# ---------------------------------------------------------------------------------------------- public names of memory


def _inside(a, at, count):
    if at < 0 or at + count > a.size:
        raise IndexError("vectors: index out of bounds")


if PLAIN:
    from numnet.kernels._plain import *  # noqa: F403  the same names on NumPy arrays
elif CHECK:
    _inside = numba.njit(_inside)

    @numba.njit
    def load(a, at, v):
        _inside(a, at, width(v))
        return _load_any(a, at, v)

    @numba.njit
    def store(a, at, x):
        _inside(a, at, width(x))
        _store_any(a, at, x)

    @numba.njit
    def spread_at(a, at, v):
        _inside(a, at, 1)
        return _spread_at_any(a, at, v)

else:
    load, store, spread_at = _load_any, _store_any, _spread_at_any
