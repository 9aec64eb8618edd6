"""Where a map's 256 places should stand: from its smallest number to its largest, or closer, at the cost of a few.

A wide range makes every number coarse, a narrow one cuts the few that lie outside. From the numbers of some hundred images:

    minmax       nothing is cut                                        (Jacob et al. 2018)
    percentile   a ten-thousandth of the numbers is cut at each end    (the usual remedy for single numbers far out)
    squares      the range whose squared errors, of rounding and of cutting together, have the smallest sum
    output       for each map the one of these three that makes the least noise in the net's output

A ``Histogram`` counts numbers into 2,048 bins once smallest and largest are known, so images pass twice.
"""

import numpy as np

from numnet.errors import NumnetError
from numnet.kernels.eight_bits import Grid, grid_of

BINS = 2048
OTHERS = ("squares", "minmax", "percentile")
METHODS = ("output", *OTHERS)
CUT = 1e-4  # of percentile, at each end


class Histogram:
    """Counts of a map's numbers between the smallest and the largest."""

    def __init__(self):
        self.low, self.high = np.inf, -np.inf
        self.counts, self.clipped = np.zeros(BINS, np.int64), 0

    def widen(self, x) -> None:
        """First pass."""
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))

    def count(self, x) -> None:
        """Second pass."""
        span = self.high - self.low
        if span <= 0 or not np.isfinite(span):
            self.counts[0] += x.size
            return
        places = ((x.reshape(-1) - np.float32(self.low)) * np.float32(BINS / span)).astype(np.int64)
        self.counts += np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS)

    @property
    def centres(self):
        return self.low + (np.arange(BINS) + 0.5) * (self.high - self.low) / BINS


def choose(histogram, method, name, tells=(-np.inf, np.inf)) -> Grid:
    """The grid for a map by one of OTHERS; ``tells``: the range outside of which its reader sees no difference.

    Raises NumnetError for an unknown method, and for a map of zeros or of numbers that are not finite.
    """
    if method not in OTHERS:
        raise NumnetError(f"ranges: expected one of {', '.join(OTHERS)}, got {method!r}")
    low, high = max(histogram.low, tells[0]), min(histogram.high, tells[1])
    if not np.isfinite([histogram.low, histogram.high]).all():
        raise NumnetError(f"quantise: {name} has numbers that are not finite for these images")
    if min(low, 0) == max(high, 0):
        raise NumnetError(f"quantise: {name} is 0 for all these images; eight bits need a range")
    if method == "percentile":
        low, high = _percentile(histogram, low, high)
    elif method == "squares":
        low, high = _least_squares(histogram, low, high)
    return grid_of(low, high, name)


def _percentile(histogram, low, high):
    below = np.cumsum(histogram.counts) / max(histogram.counts.sum(), 1)
    centres = histogram.centres
    lower = centres[np.searchsorted(below, CUT)]
    upper = centres[min(np.searchsorted(below, 1 - CUT), BINS - 1)]
    return max(low, min(lower, 0)), min(high, max(upper, 0))


def _least_squares(histogram, low, high):
    """Both ends come closer in turn, as long as that helps."""
    x, n = histogram.centres, histogram.counts.astype(np.float64)
    inside = np.clip(x, low, high)  # what is cut by the reader anyway costs nothing
    low, high = min(low, 0.0), max(high, 0.0)
    shares = np.concatenate([np.linspace(1, 0.5, 51), np.linspace(0.48, 0.02, 24)])

    def error(lower, upper):
        step = (upper - lower) / 255
        if step <= 0:
            return np.inf
        cut = np.clip(inside, lower, upper)
        return (n * (inside - cut) ** 2).sum() + n.sum() * step**2 / 12

    best = low, high
    for _ in range(3):
        before = best
        best = min(((best[0], high * share) for share in shares), key=lambda ends: error(*ends))
        best = min(((low * share, best[1]) for share in shares), key=lambda ends: error(*ends))
        if best == before:
            break
    return best
