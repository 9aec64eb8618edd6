"""What each name of the page ``words`` means, in NumPy: for NUMBA_DISABLE_JIT=1. Words are small arrays of int32."""

import numpy as np


def _inside(a, at, count):
    if at < 0 or at + count > a.size:
        raise IndexError("words: index out of bounds")


def lanes_of(x):
    return int(x) if isinstance(x, np.integer) else len(x)


def widen(a, at, v):
    _inside(a, at, lanes_of(v))
    return a[at : at + lanes_of(v)].astype(np.int32)


def load_word(a, at, v):
    _inside(a, at, 4 * lanes_of(v))
    return a[at : at + 4 * lanes_of(v)].copy().view(np.int32)


def spread_word(a, at, v):
    _inside(a, at, 4)
    return np.repeat(a[at : at + 4].copy().view(np.int32), lanes_of(v))


def put(a, at, x):
    _inside(a, at, len(x))
    a[at : at + len(x)] = x.astype(a.dtype)


def put_word(a, at, x):
    _inside(a, at, 4 * len(x))
    a[at : at + 4 * len(x)] = x.view(a.dtype)


def rescale(x, m, c, s, at):
    n = len(x)
    _inside(m, at, n)
    return ((x.astype(np.int64) * m[at : at + n] + c[at : at + n]) >> s[at : at + n]).astype(np.int32)


def noughts(v):
    return np.zeros(lanes_of(v), np.int32)


def noughts_tile(places, rows, v):
    return tuple(noughts(v) for _ in range(len(places) * rows))


def same(number, v):
    return np.full(lanes_of(v), number, np.int32)


def between(x, low, high):
    return np.clip(x, low, high).astype(np.int32)


def shift(x, bits):
    return x >> np.int32(bits)


def larger(word, other):
    return np.maximum(word.view(np.uint8), other.view(np.uint8)).view(np.int32)


def slide(word, fresh):
    return (word.view(np.uint32) >> np.uint32(8) | fresh.view(np.uint32) << np.uint32(24)).view(np.int32)


def dot(total, x, w):
    x, w = x.view(np.uint8).astype(np.int32), w.view(np.int8).astype(np.int32)
    return total + (x * w).reshape(-1, 4).sum(axis=1, dtype=np.int32)


dot_pairs = dot_plain = dot


def add_dots(tile, a, at, step, words):
    count = len(words)
    return tuple(
        dot(total, spread_word(a, at + i // count * step, np.int64(len(total))), words[i % count])
        for i, total in enumerate(tile)
    )


def add_words(tile, a, at, step, w):
    return tuple(
        dot(total, load_word(a, at + i * step, np.int64(len(total))), w) for i, total in enumerate(tile)
    )


def load_words(a, at, places, v):
    return tuple(load_word(a, at + place, v) for place in places)


def finish_tile(tile, y, to, step, columns, numbers, bounds):
    count = len(columns)
    for i, total in enumerate(tile):
        f = columns[i % count]
        put(y, to + i // count * step + f, between(rescale(total, *numbers, f), *bounds))
