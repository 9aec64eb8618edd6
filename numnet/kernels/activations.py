"""Activations: a code, a function of a vector, its derivative, and the passes that apply them to whole arrays.

(1)  identity    a = x
(2)  relu        a = max(x, 0)
(3)  relu6       a = min(max(x, 0), 6)                      Howard et al. 2017 (MobileNet) as its code has it
(4)  hsigmoid    a = relu6(x + 3) / 6                       Howard et al. 2019 (V3), section 5.2
(5)  hswish      a = x · relu6(x + 3) / 6                   the same section, equation of h-swish
(6)  hsigmoid02  a = min(max(x/5 + 1/2, 0), 1)              the slope that PaddleClas and Keras 2 use
(7)  sigmoid     a = 1 / (1 + e^−x)
(8)  swish       a = x / (1 + e^−βx)                        Ramachandran, Zoph and Le 2017

An activation is an integer code, never a function handed over: a kernel that takes a function compiles anew in each
process. There are three families. The *clipped* one, (1)–(3), is nothing but a smaller and a larger; the *hard* one, (4)–(6),
has products, too. The *smooth* one, (7) and (8), needs eˣ: a dozen multiply-adds and a division, which is why V3 swapped
swish for h-swish.

A new activation needs a code with its name in CODES, in the order of the families (codes behind it move up), and a branch in
the two definitions and in its family's ``activate_…`` and ``derivative_…``: then the passes of all pages know it. Its
operations stand in ``cost.operations.ACTIVATE`` (else they count as 0), its oracle in the tests: docs/howto/own_layers.md.

At the kinks the derivatives are PyTorch's: relu'(0) = 0; relu6' is 0 at 0 and at 6; hsigmoid' is 0 at ±3; hswish' is
0 at −3 and 1 at 3. Constants are float32 and exact there, so that float32 stays float32 and float64 stays float64.
Not supported: a β per channel or learned, PReLU.
"""

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._jit import kernel, row
from numnet.kernels.exponential import exp
from numnet.kernels.vectors import both, fma, lanes, least, load, most, spread, store, where, width

# A code is the number of its equation, but for identity's.
IDENTITY, RELU, RELU6, HSIGMOID, HSWISH, HSIGMOID02, SIGMOID, SWISH = 0, 2, 3, 4, 5, 6, 7, 8

CODES = {
    "identity": IDENTITY,
    "relu": RELU,
    "relu6": RELU6,
    "hsigmoid": HSIGMOID,
    "hswish": HSWISH,
    "hsigmoid02": HSIGMOID02,
    "sigmoid": SIGMOID,
    "swish": SWISH,
}

_0, _HALF, _1, _3, _5, _6 = (np.float32(number) for number in (0, 0.5, 1, 3, 5, 6))
# Families: (1)–(3), (4)–(6), (7) and (8). NumPy numbers: Numba would compile its functions anew for each Python constant.
CLIPPED, HARD, SMOOTH = np.int64(0), np.int64(1), np.int64(2)
TILE = 8192  # numbers a tile of an elementwise pass: 32 KiB of float32


# ---------------------------------------------------------------------------------------------- the definition


@kernel(parallel=False)
def _definition(x, code, beta, a):
    for i in range(x.size):
        if code == RELU:
            a[i] = max(x[i], 0.0)
        elif code == RELU6:
            a[i] = min(max(x[i], 0.0), 6.0)
        elif code == HSIGMOID:
            a[i] = min(max(x[i] + 3.0, 0.0), 6.0) / 6.0
        elif code == HSWISH:
            a[i] = x[i] * min(max(x[i] + 3.0, 0.0), 6.0) / 6.0
        elif code == HSIGMOID02:
            a[i] = min(max(x[i] / 5.0 + 0.5, 0.0), 1.0)
        elif code == SIGMOID:
            a[i] = 1.0 / (1.0 + np.exp(-x[i]))
        elif code == SWISH:
            a[i] = x[i] / (1.0 + np.exp(-beta * x[i]))
        else:
            a[i] = x[i]


@kernel(parallel=False)
def _definition_backward(dy, x, code, beta, dx):
    for i in range(x.size):
        slope = 1.0
        if code == RELU:
            slope = 1.0 if x[i] > 0 else 0.0
        elif code == RELU6:
            slope = 1.0 if 0 < x[i] < 6 else 0.0
        elif code == HSIGMOID:
            slope = 1.0 / 6.0 if -3 < x[i] < 3 else 0.0
        elif code == HSWISH:
            slope = 0.0 if x[i] <= -3 else 1.0 if x[i] >= 3 else (2.0 * x[i] + 3.0) / 6.0
        elif code == HSIGMOID02:
            slope = 0.2 if -2.5 < x[i] < 2.5 else 0.0
        elif code == SIGMOID or code == SWISH:
            t = x[i] if code == SIGMOID else beta * x[i]
            s = 1.0 / (1.0 + np.exp(-t))
            slope = s * (1.0 - s) if code == SIGMOID else s + t * s * (1.0 - s)
        dx[i] = dy[i] * slope


def definition(x, activation, beta=1.0):
    """a, the shape of x, by (1)–(8) as they are written, number by number. Raises like ``activation_forward``."""
    x = _argument(x)
    a = np.empty_like(x)
    _definition(x.reshape(-1), code_of(activation), float(beta), a.reshape(-1))
    return a


def definition_backward(dy, x, activation, beta=1.0):
    """dx = dy · da/dx, the shape of x, for x the input of the activation. Raises like ``definition``."""
    x = _argument(x)
    dy = _check.tensor("dy", dy, x.shape, x.dtype)
    dx = np.empty_like(x)
    _definition_backward(dy.reshape(-1), x.reshape(-1), code_of(activation), float(beta), dx.reshape(-1))
    return dx


# ---------------------------------------------------------------------------------------------- one vector


@row
def clip(x, top):
    """min(max(x, 0), top); where x is NaN, NaN."""
    return least(most(x, spread(_0, x)), spread(top, x))


@row
def logistic(x):
    """(7). The exponent is never positive, so nothing overflows."""
    one = spread(_1, x)
    e = exp(least(x, spread(_0, x) - x))
    return where(x >= spread(_0, x), one, e) / (one + e)


# Each family has a function of its own: a pass asks once for the family, then its loop holds the constants of that one
# alone. (With all eight in one loop the registers would not do: 3 cycles a vector become 25.)


@row
def activate_clipped(code, x):
    """(1)–(3) of a vector."""
    if code == RELU6:
        return clip(x, _6)
    if code == RELU:
        return most(x, spread(_0, x))
    return x


@row
def activate_hard(code, x):
    """(4)–(6) of a vector."""
    if code == HSIGMOID02:
        return clip(x + spread(_5 * _HALF, x), _5) * (spread(_1, x) / spread(_5, x))
    gate = clip(x + spread(_3, x), _6) * (spread(_1, x) / spread(_6, x))
    return x * gate if code == HSWISH else gate  # in this order: x · 6 may overflow


@row
def activate_smooth(code, beta, x):
    """(7) and (8) of a vector; ``beta``, a number: swish's β."""
    if code == SIGMOID:
        return logistic(x)
    return x * logistic(spread(beta, x) * x)


@row(inline=True)
def activate_in(family, code, beta, x):
    """(1)–(8) of a vector; callers write ``family`` as a constant."""
    if family == CLIPPED:
        return activate_clipped(code, x)
    if family == HARD:
        return activate_hard(code, x)
    return activate_smooth(code, beta, x)


@row
def between(low, x, high, y):
    """y where low < x < high, else y · 0, which is y − y: a NaN stays one."""
    return where(both(x > spread(low, x), x < spread(high, x)), y, y - y)


@row
def derivative_clipped(dy, code, x):
    """dy · da/dx of (1)–(3), vectors."""
    if code == RELU6:
        return between(_0, x, _6, dy)
    if code == RELU:
        return where(x > spread(_0, x), dy, dy - dy)
    return dy


@row
def derivative_hard(dy, code, x):
    """dy · da/dx of (4)–(6)."""
    if code == HSWISH:
        slope = (x + x + spread(_3, x)) * (spread(_1, x) / spread(_6, x))
        rising = where(x >= spread(_3, x), dy, dy * slope)
        return where(x <= spread(-_3, x), dy - dy, rising)
    if code == HSIGMOID:
        return between(-_3, x, _3, dy * (spread(_1, x) / spread(_6, x)))
    return between(-_5 * _HALF, x, _5 * _HALF, dy * (spread(_1, x) / spread(_5, x)))


@row
def derivative_smooth(dy, code, beta, x):
    """dy · da/dx of (7) and (8)."""
    if code == SIGMOID:
        s = logistic(x)
        return dy * (s * (spread(_1, x) - s))
    t = spread(beta, x) * x
    s = logistic(t)
    slope = s * (spread(_1, x) - s)
    return dy * where(slope > spread(_0, x), fma(t, slope, s), s)  # t may be infinite where the slope is 0


@row(inline=True)
def derivative_in(family, dy, code, beta, x):
    """dy · da/dx of (1)–(8), vectors; callers write ``family`` as a constant."""
    if family == CLIPPED:
        return derivative_clipped(dy, code, x)
    if family == HARD:
        return derivative_hard(dy, code, x)
    return derivative_smooth(dy, code, beta, x)


@row
def family_of(code):
    """The family of an activation: CLIPPED, HARD or SMOOTH."""
    return CLIPPED if code <= RELU6 else HARD if code <= HSIGMOID02 else SMOOTH


# ---------------------------------------------------------------------------------------------- whole arrays


@row(inline=True)
def activate_by(family, code, a, v):
    """a = activation(a) in place, for a flat array of at least one vector."""
    end, i = a.size - width(v), 0
    last = activate_in(family, code, _1, load(a, end, v))  # before the vector that it overlaps is written
    while i < end:
        store(a, i, activate_in(family, code, _1, load(a, i, v)))
        i += width(v)
    store(a, end, last)


@row
def activate_rows(code, a, v):
    """a = activation(a) in place, for a flat array that is hot, of at least one vector."""
    if code == IDENTITY:
        return
    family = family_of(code)
    if family == CLIPPED:
        activate_by(CLIPPED, code, a, v)
    elif family == HARD:
        activate_by(HARD, code, a, v)
    else:
        activate_by(SMOOTH, code, a, v)


@kernel
def _forward(x, code, beta, a, v):
    family = family_of(code)
    # each tile writes its own numbers of a; a short last one some of those before, too, with the same result
    for tile in prange((x.size + TILE - 1) // TILE):
        for i in range(tile * TILE, min((tile + 1) * TILE, x.size), width(v)):
            at = min(i, x.size - width(v))
            store(a, at, activate_in(family, code, beta, load(x, at, v)))


@kernel
def _backward(da, x, code, beta, dx, v):
    family = family_of(code)
    for tile in prange((x.size + TILE - 1) // TILE):  # each tile writes its own numbers of dx, as above
        for i in range(tile * TILE, min((tile + 1) * TILE, x.size), width(v)):
            at = min(i, x.size - width(v))
            store(dx, at, derivative_in(family, load(da, at, v), code, beta, load(x, at, v)))


# ---------------------------------------------------------------------------------------------- public


def code_of(activation) -> int:
    """The code of an activation given by name or code; raises ValueError that lists the names."""
    if isinstance(activation, str) and activation in CODES:
        return CODES[activation]
    if not isinstance(activation, (str, bool)) and activation in CODES.values():
        return int(activation)
    raise ValueError(f"activation: expected one of {', '.join(CODES)}, got {activation!r}")


def activation_forward(x, activation, beta=1.0, out=None):
    """a = activation(x), the shape of x. ``activation``: a name or code; ``beta``: swish's β. Raises ValueError."""
    x = _argument(x)
    out = _check.output("out", out, x.shape, x.dtype)
    _check.apart(out, x=x)
    code = code_of(activation)
    if x.size:
        _forward(x.reshape(-1), code, x.dtype.type(beta), out.reshape(-1), lanes(x.size, x.dtype))
    return out


def activation_backward(dy, x, activation, beta=1.0, out=None):
    """dx = dy · activation'(x), the shape of x, for x the *input* of the activation. Raises ValueError."""
    x = _argument(x)
    dy = _check.tensor("dy", dy, x.shape, x.dtype)
    out = _check.output("out", out, x.shape, x.dtype)
    _check.apart(out, x=x, dy=dy)
    code, v = code_of(activation), lanes(x.size, x.dtype)
    if x.size:
        _backward(dy.reshape(-1), x.reshape(-1), code, x.dtype.type(beta), out.reshape(-1), v)
    return out


def _argument(x):
    return _check.tensor("x", x, x.shape if isinstance(x, np.ndarray) else ())
