"""Activations: a code, a scalar function of it, its derivative, and the passes that apply them to whole arrays.

(1)  identity    a = v
(2)  relu        a = max(v, 0)
(3)  relu6       a = min(max(v, 0), 6)                      Howard et al. 2017 (MobileNet) as its code has it
(4)  hsigmoid    a = relu6(v + 3) / 6                       Howard et al. 2019 (V3), section 5.2
(5)  hswish      a = v · relu6(v + 3) / 6                   the same section, equation of h-swish
(6)  hsigmoid02  a = min(max(v/5 + 1/2, 0), 1)              the slope that PaddleClas and Keras 2 use
(7)  sigmoid     a = 1 / (1 + e^−v)
(8)  swish       a = v / (1 + e^−βv)                        Ramachandran, Zoph and Le 2017

An activation is an integer code, never a function handed over: a kernel that takes a function compiles anew in each
process, while the test of a code costs one comparison a row (``activate_row``). The *clipped* family (1)–(6) is
nothing but min, max and products; the *smooth* pair (7), (8) calls exp, which is not vectorised: 20 times the cost,
which is why V3 swapped swish for h-swish.

At the kinks the derivatives are PyTorch's: relu'(0) = 0; relu6' is 0 at 0 and at 6; hsigmoid' is 0 at ±3; hswish' is
0 at −3 and 1 at 3. Constants are float32 and exact there, so that float32 stays float32 and float64 stays float64.
Not supported: a β per channel or learned, PReLU.
"""

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._jit import kernel, row

IDENTITY, RELU, RELU6, HSIGMOID, HSWISH, HSIGMOID02, SIGMOID, SWISH = 0, 2, 3, 4, 5, 6, 7, 8
SMOOTH = SIGMOID  # codes from here on call exp

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

_0, _HALF, _1, _3, _5, _6, _INFINITY = (np.float32(v) for v in (0, 0.5, 1, 3, 5, 6, np.inf))
BLOCK = 8192  # numbers a tile of an elementwise pass: 32 KiB of float32


@row
def clip(v, top):
    """min(max(v, 0), top), written so that NaN stays NaN: one instruction each, where max() would hide it."""
    v = _0 if v < _0 else v
    return top if v > top else v


@row
def clipped_derivative(code, v):
    """da/dv of equations (1)–(6); 1 for the others."""
    if code == RELU6:
        return _1 if v > _0 and v < _6 else _0
    if code == RELU:
        return _1 if v > _0 else _0
    if code == HSWISH:
        slope = (v + v + _3) / _6
        slope = _0 if v <= -_3 else slope
        return _1 if v >= _3 else slope
    if code == HSIGMOID:
        return (v * _0 + _1) / _6 if v > -_3 and v < _3 else _0  # v·0 + 1: a one in the precision of v
    if code == HSIGMOID02:
        return (v * _0 + _1) / _5 if v > -_5 * _HALF and v < _5 * _HALF else _0
    return _1


@row
def smooth(code, v, beta):
    """Equations (7) and (8) for one number; the exponent is never positive, so nothing overflows."""
    t = v if code == SIGMOID else beta * v
    e = np.exp(-abs(t))
    s = (_1 if t >= _0 else e) / (_1 + e)
    return s if code == SIGMOID else v * s


@row
def smooth_derivative(code, v, beta):
    """sigmoid' = s(1 − s);  swish' = s + βv·s(1 − s) with s the sigmoid of βv."""
    t = v if code == SIGMOID else beta * v
    e = np.exp(-abs(t))
    s = (_1 if t >= _0 else e) / (_1 + e)
    slope = s * (_1 - s)
    if code == SIGMOID:
        return slope
    return s + t * slope if slope > _0 else s  # t may be infinite where the slope is 0


@row
def activate_row(code, beta, a):
    """Equations (1)–(8): a = activation(a) in place, for a row that is hot.

    Every family has a loop of its own. With the test inside, a vector loop works out *all* answers and then takes one:
    the divisions of (4)–(6), which a relu6 never asks for, were three quarters of its time (0.55 → 0.16 ns a number).
    """
    if code == RELU or code == RELU6:
        top = _6 if code == RELU6 else _INFINITY
        for i in range(a.size):
            a[i] = clip(a[i], top)
    elif code == HSWISH or code == HSIGMOID or code == HSIGMOID02:
        whole = _5 if code == HSIGMOID02 else _6  # (6) is relu(v + 5/2) / 5, clipped at 1
        half, part = whole * _HALF, a.dtype.type(1) / a.dtype.type(whole)
        if code == HSWISH:
            for i in range(a.size):
                a[i] = a[i] * (clip(a[i] + half, whole) * part)  # in this order: v · 6 may overflow
        else:
            for i in range(a.size):
                a[i] = clip(a[i] + half, whole) * part
    elif code >= SMOOTH:
        for i in range(a.size):
            a[i] = smooth(code, a[i], beta)


@row
def activate(code, beta, v, a):
    """A row: a = activation(v)."""
    for i in range(v.size):
        a[i] = v[i]
    activate_row(code, beta, a)


@row
def multiply_by_derivative(code, beta, da, v, dv):
    """A row: dv = da · activation'(v)."""
    for i in range(v.size):
        dv[i] = da[i] * clipped_derivative(code, v[i])
    if code >= SMOOTH:
        for i in range(v.size):
            dv[i] = da[i] * smooth_derivative(code, v[i], beta)


@kernel
def _forward(v, code, beta, a):
    for t in prange((v.size + BLOCK - 1) // BLOCK):  # each tile writes its own stretch of a
        lo, hi = t * BLOCK, min((t + 1) * BLOCK, v.size)
        activate(code, beta, v[lo:hi], a[lo:hi])


@kernel
def _backward(da, v, code, beta, dv):
    for t in prange((v.size + BLOCK - 1) // BLOCK):  # each tile writes its own stretch of dv
        lo, hi = t * BLOCK, min((t + 1) * BLOCK, v.size)
        multiply_by_derivative(code, beta, da[lo:hi], v[lo:hi], dv[lo:hi])


def code_of(activation) -> int:
    """The code of an activation given by name or code; raises ValueError that lists the names."""
    if isinstance(activation, str) and activation in CODES:
        return CODES[activation]
    if not isinstance(activation, (str, bool)) and activation in CODES.values():
        return int(activation)
    raise ValueError(f"activation: expected one of {', '.join(CODES)}, got {activation!r}")


def activation_forward(x, activation, beta=1.0, out=None):
    """a = activation(x), the shape of x. ``activation``: a name or code; ``beta``: swish's β. Raises ValueError."""
    x = _check.tensor("x", x, x.shape if isinstance(x, np.ndarray) else ())
    out = _check.output("out", out, x.shape, x.dtype)
    _check.apart(out, x=x)
    _forward(x.reshape(-1), code_of(activation), x.dtype.type(beta), out.reshape(-1))
    return out


def activation_backward(dy, x, activation, beta=1.0, out=None):
    """dx = dy · activation'(x), the shape of x, for x the *input* of the activation. Raises ValueError."""
    x = _check.tensor("x", x, x.shape if isinstance(x, np.ndarray) else ())
    dy = _check.tensor("dy", dy, x.shape, x.dtype)
    out = _check.output("out", out, x.shape, x.dtype)
    _check.apart(out, x=x, dy=dy)
    _backward(dy.reshape(-1), x.reshape(-1), code_of(activation), x.dtype.type(beta), out.reshape(-1))
    return out
