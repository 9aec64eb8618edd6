"""What each name of the page ``vectors`` means, in NumPy: for NUMBA_DISABLE_JIT=1, the debugger, and counting.

A vector is a small array, a tile of registers a tuple of them. ``fma`` rounds twice here.
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


def zeros(a, rows, vectors, v):
    return tuple(zero(a, v) for _ in range(rows * vectors))


def repeat(vectors, rows):
    return tuple(vectors) * rows


def load_tile(like, a, at, step, starts):
    n = len(like[0])
    places = [at + r * step + start for r in range(len(like) // len(starts)) for start in starts]
    for place in places:
        _inside(a, place, n)
    return tuple(a[place : place + n].copy() for place in places)


def store_tile(tile, a, at, step, starts):
    for i, vector in enumerate(tile):
        store(a, at + i // len(starts) * step + starts[i % len(starts)], vector)


def add_outer(tile, a, at, step, vectors):
    sums = []
    for i, total in enumerate(tile):
        place = at + i // len(vectors) * step
        _inside(a, place, 1)
        sums.append(fma(vectors[i % len(vectors)], a[place], total))
    return tuple(sums)


def fma_tile(tile, x, y):
    return tuple(fma(vector, x[i % len(x)], y[i % len(y)]) for i, vector in enumerate(tile))


def add_tiles(tile, other):
    return tuple(x + y for x, y in zip(tile, other))


def add_taps(tile, a, at, step, starts, tap, weights):
    """Row r, vector i of the tile gains Σ_t load(a, at + starts[i] + r · step + t · tap) · weights[t]."""
    sums = []
    for i, total in enumerate(tile):
        for t, weight in enumerate(weights):
            place = at + starts[i % len(starts)] + i // len(starts) * step + t * tap
            _inside(a, place, len(weight))
            total = fma(a[place : place + len(weight)], weight, total)
        sums.append(total)
    return tuple(sums)


def prefetch_tile(tile, a, at, step, starts):
    pass


def _inside(a, at, count):
    if at < 0 or at + count > a.size:
        raise IndexError("vectors: index out of bounds")
