"""An inverted residual in one pass, for inference: expand, filter and project a tile while it is in the cache.

With the running statistics folded, of scale a and shift b each, and the block's own activation (Sandler et al. 2018,
figure 3; see ``blocks/residual.py``):

(1)  e = activation(x · w₁ · a₁ + b₁)           C → t·C      pointwise; without it, e = x and t = 1
(2)  z = activation(depthwise(e) · a₂ + b₂)     t·C          depthwise
(3)  y = z · w₃ · a₃ + b₃ [+ x]                 t·C → F      pointwise; MobileNetV1's has an activation

The wide maps e and z hold about t times the numbers of x and y (6 times, in V2), and nobody outside the block reads them. So
a tile is some output rows of one image: the rows of e that it needs are made in a scratch that fits the second-level cache,
filtered and projected there, and only x and y are maps in memory. Neighbouring tiles both make the K − s rows of e
between them, which is the price; a tile is as high as the cache allows. Where whole images are smaller than that, a tile
is several of them: at 7×7 the weights, a million and more, are what has to be read, once a tile.

MobileNetV1's separable block is (2) and (3) alone: there z is what is saved. A squeeze-excite looks at all of an image
before it scales the first number; so a tile of V3 is whole images, and z is squeezed and scaled where it lies.

All three steps are the other pages' row functions, called in turn: fusing is nothing but that. So this page has no definition
of its own: it is those of ``pointwise`` and ``depthwise``, one after another.

Cost: the MACs of the three steps; those of (1) are done again for the K − s rows between two tiles of an image.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from numnet.kernels._jit import kernel, row
from numnet.kernels.activations import RELU, activate_rows
from numnet.kernels.dense import few_images
from numnet.kernels.depthwise import convolve_row, line_of
from numnet.kernels.folding import pack_scaled, scale_taps
from numnet.kernels.maps import Folded, Window, vectors_of
from numnet.kernels.pointwise import room_of
from numnet.kernels.pooling import average_image
from numnet.kernels.product import NEW, Ending, Packed, Strided, multiply
from numnet.kernels.ring import image_ring
from numnet.kernels.rows import line_up
from numnet.kernels.squeeze_excite import scale_image
from numnet.kernels.vectors import lanes

CACHE = 131072  # numbers of e in a tile: 512 KiB of float32; twice as many in a tile of several images
# Images at least. With fewer, the steps one after another are faster: each core then reads only its share of the weights.
TILES = 4


class Steps(NamedTuple):
    """A block's weights, in the order in which they are used. What a block does not have is empty."""

    expand: Folded  # (1): C → t·C
    filter: Folded  # (2): K·K·t·C
    project: Folded  # (3): t·C → F
    room1: np.ndarray  # scratch for each one's weights, packed or scaled
    room2: np.ndarray
    room3: np.ndarray
    lanes: np.integer  # of F


class Codes(NamedTuple):
    """Activation codes of (1), (2) and (3); and whether x is added at the end."""

    expand: int
    filter: int
    project: int
    adds: bool


class Cut(NamedTuple):
    """How much a tile holds: so many images, and rows of y of each; several images only if the rows are all rows."""

    images: int
    rows: int


@row
def multiply_to(a, rows, w, ending, y, at):
    """``rows`` rows of y, from its number ``at`` on: y = a · w, with its ending."""
    multiply(a, rows, w, Strided(y, at, w.columns, 1), (0, vectors_of(w.columns, w.lanes)), ending, NEW)


@row
def filter_image(e, ring, source, taps, ending, window, z):
    """(2) for one image of a tile: rows e (H, W·t·C) to rows z (P, Q·t·C)."""
    ring.next[0] = 0
    for p in range(z.shape[0]):
        convolve_row(ring, e, source, taps, ending.bias, window, p, z[p])
        activate_rows(ending.code, z[p], source.lanes)


class Excite(NamedTuple):
    """The two dense layers of a squeeze-excite, t·C → R → t·C with R squeezed channels. r1, r2 are flat; the scales are 1."""

    r1: np.ndarray
    scale1: np.ndarray  # (R,)
    bias1: np.ndarray
    r2: np.ndarray
    scale2: np.ndarray  # (t·C,)
    bias2: np.ndarray
    lanes: np.integer  # of R
    gate: int  # activation code


@row
def squeeze_excite(z, images, excite, v, y):
    """y = z · gate(r2 · relu(r1 · mean of z)) for whole images, flat; v: the lanes of t·C."""
    wide, narrow, size = excite.bias2.size, excite.bias1.size, z.size // images
    means, gates = np.empty(images * wide, z.dtype), np.empty(images * wide, z.dtype)
    squeezed = np.empty(images * narrow, z.dtype)
    for n in range(images):
        average_image(z[n * size : (n + 1) * size], means[n * wide : (n + 1) * wide], v)
    reduce, nothing = Folded(excite.r1, excite.scale1, excite.bias1), z[:0]
    few_images(means, reduce, RELU, nothing, squeezed, (0, vectors_of(narrow, excite.lanes)), excite.lanes)
    expand = Folded(excite.r2, excite.scale2, excite.bias2)
    few_images(squeezed, expand, excite.gate, nothing, gates, (0, vectors_of(wide, v)), v)
    for n in range(images):
        here = slice(n * size, (n + 1) * size)
        scale_image(z[here], gates[n * wide : (n + 1) * wide], y[here], v)


@kernel
def _squeeze_excite(source, excite, y):
    """A squeeze-excite alone: source.raw and y (N, H, W, C)."""
    x, out, size = source.raw.reshape(-1), y.reshape(-1), y.size // max(len(y), 1)
    for n in prange(len(y)):  # each image has its own y
        here = slice(n * size, (n + 1) * size)
        squeeze_excite(x[here], 1, excite, source.lanes, out[here])


@kernel
def _inference(source, steps, excite, codes, window, y, cut):
    """(1) to (3). source.raw (N, H, W, C), finished, with the lanes of t·C; y (N, P, Q, F); ``cut`` says what a tile is."""
    (images, height, width, channels), (rows, columns, filters) = source.raw.shape, y.shape[1:]
    x, out, wide, v = source.raw.reshape(-1), y.reshape(-1), steps.filter.shift.size, source.lanes
    w1, taps, w3, v3 = steps.room1, steps.room2, steps.room3, steps.lanes
    shift1, shift2, shift3 = steps.expand.shift, steps.filter.shift, steps.project.shift
    if w1.size:
        pack_scaled(
            steps.expand.w, steps.expand.scale, Packed(w1, channels, wide, v), (0, vectors_of(wide, v))
        )
    scale_taps(steps.filter.w, steps.filter.scale, taps)
    pack_scaled(
        steps.project.w, steps.project.scale, Packed(w3, wide, filters, v3), (0, vectors_of(filters, v3))
    )
    side_u = taps.size // wide // window.side
    along, down = (images + cut.images - 1) // cut.images, (rows + cut.rows - 1) // cut.rows
    for tile in prange(along * down):  # each tile writes its own rows of y
        n0, first = tile // down * cut.images, tile % down * cut.rows
        n1, last = min(n0 + cut.images, images), min(first + cut.rows, rows)
        lo = max(first * window.stride - window.top, 0)  # the rows of x and e that these windows see
        hi = min((last - 1) * window.stride + side_u - window.top, height)
        begin, pixels = (n0 * height + lo) * width, ((n1 - n0 - 1) * height + hi - lo) * width
        e = x[begin * channels : (begin + pixels) * channels]
        if w1.size:
            a, b = Strided(e, 0, channels, 1), Packed(w1, channels, wide, v)
            e = line_up(pixels * wide, x)
            multiply_to(a, pixels, b, Ending(shift1, codes.expand, x[:0]), e, 0)  # (1)
        lines, many = e.reshape(n1 - n0, hi - lo, width * wide), (n1 - n0) * (last - first) * columns
        z = line_up(many * wide, x)
        maps = z.reshape(n1 - n0, last - first, columns * wide)
        # The same window over the rows that were made: its top is counted from row lo, not from the image's first.
        here = Window(window.side, window.stride, lo - first * window.stride + window.top, window.left)
        ring = image_ring(lines[0], 1, here, side_u, line_of(columns * wide, wide, here, v))
        ending = Ending(shift2, codes.filter, x[:0])
        for n in range(n1 - n0):
            filter_image(lines[n], ring, source, taps, ending, here, maps[n])  # (2)
        if excite.r1.size:
            scaled = line_up(z.size, x)
            squeeze_excite(z, n1 - n0, excite, v, scaled)
            z = scaled
        a, b, skip = Strided(z, 0, wide, 1), Packed(w3, wide, filters, v3), x if codes.adds else x[:0]
        to = (n0 * rows + first) * columns * filters
        multiply_to(a, many, b, Ending(shift3, codes.project, skip), out, to)  # (3)


def cut_of(images, shape, window, rows, squeezes):
    """The Cut, by the shapes alone; None if the steps one after another keep more cores busy. shape: (H, W, t·C)."""
    (height, width, wide), (side, stride) = shape, window
    numbers = height * width * wide
    if images < TILES:
        return None
    if numbers <= (2 * CACHE if squeezes else CACHE):
        return Cut(max(min(2 * CACHE // numbers, images // TILES), 1), rows)
    if squeezes:
        return None
    fits = (max(CACHE // (width * wide), side) - side) // stride + 1
    return Cut(1, -(-rows // -(-rows // fits)))


def inference_step(source, units, excite, codes, window, y, cut, room):
    """The kernel and its arguments for y (N, P, Q, F) from the finished map ``source`` (N, H, W, C). No checks.

    units: the Folded of (1), (2) and (3). room: scratch, as many numbers as ``room_of`` says of the three together.
    """
    expand, taps, project = units
    first = room_of(expand)
    second = first + taps.w.size
    rooms = room[:first], room[first:second], room[second : second + room_of(project)]
    steps = Steps(*units, *rooms, lanes(y.shape[3], y.dtype))
    source = source._replace(lanes=lanes(taps.shift.size, y.dtype))
    return _inference, (source, steps, excite, codes, window, y, cut)


def squeeze_excite_step(source, excite, y):
    """The kernel and its arguments for y (N, H, W, C) = x · gates, for a finished map. No checks."""
    return _squeeze_excite, (source, excite, y)
