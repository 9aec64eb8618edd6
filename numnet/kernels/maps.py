"""What travels together between passes, as named tuples; and how work is cut.

The words for parts of arrays (map, raw, finished, pack, tile, part, window, tap …) are defined in ``kernels/__init__``. A raw
map and its pack are as good as the finished map. So passes hand on the raw one, and whoever reads it next finishes it.
"""

from typing import NamedTuple

import numpy as np

from numnet.kernels._jit import row
from numnet.kernels.vectors import width

PARTS = 8  # partial sums: fixed, so that the bits do not depend on the number of threads; 8 keep 8 cores busy


class Window(NamedTuple):
    """K×K taps, at every stride-th pixel, beginning ``top`` rows above and ``left`` columns before the image.

    ``side``: taps in a row of the window, K. How many rows the window has follows from the weights. ``lanes``: those for the
    K·C numbers of one of its rows; only the standard convolution needs them.
    """

    side: int
    stride: int
    top: int
    left: int
    lanes: np.integer | None = None


class Source(NamedTuple):
    """The map that a pass reads: raw with its pack (4, C) and activation code, or finished, with an empty pack."""

    raw: np.ndarray
    pack: np.ndarray
    code: int
    lanes: np.integer


class Folded(NamedTuple):
    """A unit in inference: its weights as the net holds them, and one scale and one shift a filter (page ``folding``)."""

    w: np.ndarray  # flat
    scale: np.ndarray  # (F,)
    shift: np.ndarray


class Upstream(NamedTuple):
    """What comes down to a convolution in backward: dy, the gradient of its finished output.

    raw: that output before batch norm and activation, with its pack (4, F), code, and batch norm's means (2, F) (its
    equation 6). An empty pack says that dy is the gradient of the raw output itself; raw is then not read.
    """

    dy: np.ndarray
    raw: np.ndarray
    pack: np.ndarray
    means: np.ndarray
    code: int
    lanes: np.integer


@row
def vectors_of(count, v):
    """How many vectors hold ``count`` numbers, which are at least one vector's; the last may overlap the one before."""
    return (count + width(v) - 1) // width(v)


@row
def padded(count, v):
    """Numbers that ``count`` of them take if each vector has a place of its own; so none is added to twice."""
    return vectors_of(count, v) * width(v)


@row
def begin_of(j, count, v):
    """Where vector j of ``count`` numbers begins; the last begins early enough to end with them."""
    return min(j * width(v), count - width(v))


@row
def share(part, parts, count):
    """Items lo … hi − 1 of part number ``part`` when ``count`` items are cut into ``parts`` near-equal parts."""
    return count * part // parts, count * (part + 1) // parts


def parts_of(items: int, least: int = 1) -> int:
    """How many parts for ``items`` pixels or images, at least ``least`` of them each: a function of shape alone.

    1, 2, 4 or 8: with three parts one of two cores would wait for half of the time.
    """
    return 2 ** (max(1, min(PARTS, items // least)).bit_length() - 1)


def tile_height(p: int, most: int, others: int) -> int:
    """Rows of a tile of a map with ``p`` rows: ``most`` at most, in near-equal tiles.

    others: tiles that lie side by side (images, parts of the channels). Where these are few, the tiles are lower:
    PARTS in all, but of about seven rows at least. So one image is work for all cores, too.
    """
    tiles = max(-(-p // most), min(-(-PARTS // others), p // 7), 1)
    return -(-p // tiles)
