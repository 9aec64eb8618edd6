"""What each name of the page ``words`` means, in NumPy: for NUMBA_DISABLE_JIT=1. Words are small arrays of int32."""

import numpy as np

from numnet.kernels._plain import _inside, width


def widen(a, at, v):
    _inside(a, at, width(v))
    return a[at : at + width(v)].astype(np.int32)


def narrow(a, at, x):
    _inside(a, at, len(x))
    a[at : at + len(x)] = x.astype(a.dtype)


def load_words(a, at, v):
    _inside(a, at, 4 * width(v))
    return a[at : at + 4 * width(v)].copy().view(np.int32)


def store_words(a, at, x):
    _inside(a, at, 4 * len(x))
    a[at : at + 4 * len(x)] = x.view(a.dtype)


def spread(number, v):
    return np.full(width(v), number, np.int32)


def spread_at(a, at, v):
    _inside(a, at, 4)
    return np.repeat(a[at : at + 4].copy().view(np.int32), width(v))


def zero(v):
    return np.zeros(width(v), np.int32)


def shift(x, bits):
    return x >> np.int32(bits)


def clip(x, low, high):
    return np.clip(x, low, high).astype(np.int32)


def rescale(x, fixed, at):
    _inside(fixed.m, at, len(x))
    m, c, shift = (a[at : at + len(x)] for a in (fixed.m, fixed.c, fixed.shift))
    return clip(((x.astype(np.int64) * m + c) >> shift).astype(np.int32), fixed.low, fixed.high)


def dot(total, x, w):
    x, w = x.view(np.uint8).astype(np.int32), w.view(np.int8).astype(np.int32)
    return total + (x * w).reshape(-1, 4).sum(axis=1, dtype=np.int32)


dot_pairs = dot_plain = dot


def slide(word, fresh):
    return (word.view(np.uint32) >> np.uint32(8) | fresh.view(np.uint32) << np.uint32(24)).view(np.int32)


def larger(word, other):
    return np.maximum(word.view(np.uint8), other.view(np.uint8)).view(np.int32)


def zeros(rows, count, v):
    return tuple(zero(v) for _ in range(rows * count))


def load_tile(like, a, at, step, starts):
    rows = range(len(like) // len(starts))
    return tuple(load_words(a, at + r * step + start, like[0]) for r in rows for start in starts)


def narrow_tile(tile, a, at, step, starts):
    for i, x in enumerate(tile):
        narrow(a, at + i // len(starts) * step + starts[i % len(starts)], x)


def rescale_tile(tile, fixed, columns):
    return tuple(rescale(x, fixed, columns[i % len(columns)]) for i, x in enumerate(tile))


def add_outer(tile, a, at, step, weights):
    count = len(weights)
    return tuple(
        dot(total, spread_at(a, at + i // count * step, total), weights[i % count])
        for i, total in enumerate(tile)
    )


def add_taps(tile, a, at, step, weights):
    return tuple(dot(total, load_words(a, at + i * step, total), weights) for i, total in enumerate(tile))
