"""Mean and variance of every channel, in one look at the data.

For one channel, over the M numbers of a batch:

(1)  mean = Σ x / M,   M2 = Σ (x − mean)²,   variance = M2 / M

Σx² − (Σx)²/M subtracts two large numbers that are nearly equal. Added up one after another in float32 it is wrong by 1 to
12 % at mean/std = 100 and M = 100,000 (eight draws); with NumPy's sums of sums by 0.07 %, and by 19 % at mean/std = 1000
(notebook 4). (1) as it stands needs two looks. Here each tile is summed once, around a centre c that is close to its mean:

(2)  mean = c + Σ(x − c)/n,   M2 = Σ(x − c)² − (Σ(x − c))²/n                  n numbers in the tile

Tiles are then merged, in float64 and in index order, by the formula of Chan, Golub and LeVeque 1979. With n_a and n_b numbers
in two tiles, n in both, and δ = mean_b − mean_a:

(3)  mean = mean_a + δ·n_b/n,   M2 = M2_a + M2_b + δ²·n_a·n_b/n

A tile is summed by whoever has just made it, while it is hot: the convolutions' passes call ``add_moments``. *Moments* are
an array (3, C) in float64: count, mean and M2 of each channel.

Cost: one load, two additions and one fma for each number.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._jit import kernel, row
from numnet.kernels.maps import begin_of, parts_of, share, vectors_of
from numnet.kernels.vectors import fma, lanes, load, store, zero

TILE = 16384  # numbers a tile holds: 64 KiB of float32
CHAIN = 256  # pixels that are summed in float32 before float64 takes over


# ---------------------------------------------------------------------------------------------- the definition


@kernel(parallel=False)
def _definition(x, mean, m2):
    """Channel by channel over the pixels of x (M, C)."""
    for c in range(x.shape[1]):
        mean[c] = m2[c] = 0
        for r in range(x.shape[0]):
            mean[c] += x[r, c] / x.shape[0]  # (1)
        for r in range(x.shape[0]):
            m2[c] += (x[r, c] - mean[c]) ** 2  # (1)


def definition(x):
    """mean (C,) and M2 (C,), float64, of x (…, C): (1) as it is written. Raises ValueError for another x."""
    x = _check.pixels("x", x)
    mean, m2 = np.empty((2, x.shape[-1]))
    _definition(x.reshape(-1, x.shape[-1]), mean, m2)
    return mean, m2


# ---------------------------------------------------------------------------------------------- row functions
# A tile is a flat array of whole pixels. A pixel is ``vectors_of`` vectors of channels; the last may overlap.


@row
def add_deviations(x, first, end, centre, tile, v):
    """tile (2·C) = Σ (x − centre), Σ (x − centre)² over the pixels first … end − 1 of flat x, channel by channel."""
    channels = centre.size
    for j in range(vectors_of(channels, v)):
        c = begin_of(j, channels, v)
        middle = load(centre, c, v)
        # Two pixels at a time, into sums of their own: an addition must wait for the one before it in the same sum only.
        total0 = total1 = square0 = square1 = zero(x, v)
        i = first + c
        while i + channels < end:
            d, e = load(x, i, v) - middle, load(x, i + channels, v) - middle
            total0, total1 = total0 + d, total1 + e
            square0, square1 = fma(d, d, square0), fma(e, e, square1)
            i += 2 * channels
        if i < end:
            d = load(x, i, v) - middle
            total0, square0 = total0 + d, fma(d, d, square0)
        store(tile, c, total0 + total1)
        store(tile, channels + c, square0 + square1)


@row
def add_moments(x, moments, v):
    """Merge a hot tile into moments (3, C), by (2) and (3).

    The centre is the mean of all tiles so far. A part's first pixels are summed twice, the first time around their first
    pixel, for their mean. The difference in (2) loses digits only if the centre is far from the tile's mean; and then the
    means of the tiles differ, which makes M2 large, too.
    """
    channels = moments.shape[1]
    centre, tile = np.empty(channels, x.dtype), np.empty(2 * channels, x.dtype)
    for first in range(0, x.size, CHAIN * channels):
        end = min(first + CHAIN * channels, x.size)
        count, before = (end - first) // channels, moments[0, 0]
        if before == 0:
            for c in range(channels):
                centre[c] = x[c]
            add_deviations(x, first, end, centre, tile, v)
            for c in range(channels):
                centre[c] += tile[c] / count
        else:
            for c in range(channels):
                centre[c] = moments[1, c]
        add_deviations(x, first, end, centre, tile, v)
        merge_tile(moments, count, centre, tile)


class Counts(NamedTuple):
    """What (3) needs of the counts: n, n_b/n and n_a·n_b/n."""

    total: float
    share: float
    cross: float


@row
def counts_of(count, more):
    """The Counts when ``count`` numbers take in ``more``: the divisions are made once for all channels."""
    total = count + more
    return Counts(total, more / total, count * more / total)


@row
def merge(moments, c, mean, m2, counts):
    """(3) for channel c: moments (3, C) take in numbers with this mean and M2."""
    delta = mean - moments[1, c]
    moments[2, c] += m2 + delta * delta * counts.cross
    moments[1, c] += delta * counts.share
    moments[0, c] = counts.total


@row
def merge_tile(moments, count, centre, tile):
    """(2) and (3) in all channels: moments take in a tile's Σ(x − centre) and Σ(x − centre)², ``count`` pixels."""
    channels, counts = centre.size, counts_of(moments[0, 0], count)
    for c in range(channels):
        beside = np.float64(tile[c]) / count  # the tile's mean − centre
        m2 = np.float64(tile[channels + c]) - tile[c] * beside
        merge(moments, c, centre[c] + beside, max(m2, 0.0), counts)  # rounding may leave less than 0


@row
def merge_parts(moments, total):
    """total (3, C), zero, takes in moments (parts, 3, C), the parts in index order."""
    for part in range(moments.shape[0]):
        if moments[part, 0, 0] > 0:
            counts = counts_of(total[0, 0], moments[part, 0, 0])
            for c in range(total.shape[1]):
                merge(total, c, moments[part, 1, c], moments[part, 2, c], counts)


# ---------------------------------------------------------------------------------------------- passes


@kernel(parallel=False)
def merge_moments(moments, total):
    """``merge_parts`` for callers outside of this page."""
    merge_parts(moments, total)


@kernel
def _add_moments(x, moments, v):
    """Flat x → moments (parts, 3, C), zero before."""
    channels = moments.shape[2]
    step = max(1, TILE // channels)
    for part in prange(moments.shape[0]):  # each part adds to its own moments
        first, last = share(part, moments.shape[0], x.size // channels)
        for lo in range(first, last, step):
            add_moments(x[lo * channels : min(lo + step, last) * channels], moments[part], v)


# ---------------------------------------------------------------------------------------------- public


def moments_of(x) -> np.ndarray:
    """Moments (parts, 3, C) of x (…, C), float64: the read-only pass of (1), for maps whose producer did not add them."""
    channels = x.shape[-1]
    moments = np.zeros((parts_of(x.size // channels), 3, channels))
    _add_moments(x.reshape(-1), moments, lanes(channels, x.dtype))
    return moments
