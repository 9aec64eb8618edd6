"""What each name of the page ``vectors`` means, in NumPy: for NUMBA_DISABLE_JIT=1, the debugger, and counting.

A vector is a small array. ``fma`` rounds twice here.
"""

import numpy as np


def load(a, at, v):
    _inside(a, at, width(v))
    return a[at : at + width(v)].copy()  # a copy: a later store must not change it


def store(a, at, x):
    _inside(a, at, len(x))
    a[at : at + len(x)] = x


def spread(number, v):
    like = np.asarray(number).dtype if isinstance(v, np.integer) else v.dtype
    return np.full(width(v), number, like)


def spread_at(a, at, v):
    _inside(a, at, 1)
    return np.full(width(v), a[at], a.dtype)


def zero(a, v):
    return np.zeros(width(v), a.dtype)


def width(v):
    return int(v) if isinstance(v, np.integer) else len(v)


def fma(x, y, z):
    return x * y + z


def where(mask, x, y):
    return np.where(mask, x, y)


def both(mask, other):
    return mask & other


def least(x, top):
    return np.where(top < x, top, x)


def most(x, bottom):
    return np.where(bottom > x, bottom, x)


def double(x):
    return x.astype(np.float64)


def power_of_two(x):
    with np.errstate(invalid="ignore"):  # of NaN and infinity any number will do
        return np.ldexp(x.dtype.type(1), x.astype(np.int64)).astype(x.dtype)


def _inside(a, at, count):
    if at < 0 or at + count > a.size:
        raise IndexError("vectors: index out of bounds")
