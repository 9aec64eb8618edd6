"""What each name of the page ``tiles`` means, in NumPy: as on ``_plain``. A tile is a tuple of small arrays."""

from numnet.kernels._plain import _inside, fma, store, zero


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
