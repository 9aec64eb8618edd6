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
is several of them: at 7×7 the weights are what has to be read, once a tile (316,000 in V2, beside 8,000 numbers of x an
image).

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

CACHE = 131072  # numbers of e in a tile of rows: 512 KiB of float32; a tile of whole images may have twice as many
# A batch of fewer is cut by rows, or not at all; and tiles of several images leave at least so many tiles.
IMAGES = 4
TILES = 8  # of a small batch, at least: they keep eight cores busy


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


class Tile(NamedTuple):
    """Which rows of which images a tile makes, and which rows of x and e their windows see."""

    image: int  # the first one
    images: int
    p: int  # the first row of y
    rows: int  # of y, in each image
    i: int  # the first row of x and e
    high: int  # rows of x and e, in each image


@row
def tile_of(number, cut, window, side_u, x_shape, y_shape):
    """The Tile of this number: image after image, in each from top to bottom. Shapes (N, H, W, C) and (N, P, Q, F)."""
    down = (y_shape[1] + cut.rows - 1) // cut.rows  # tiles of an image
    n, p = number // down * cut.images, number % down * cut.rows
    end = min(p + cut.rows, y_shape[1])
    # At least one row of x, even where all windows lie in the padding
    i = min(max(p * window.stride - window.top, 0), x_shape[1] - 1)
    end_x = max(min((end - 1) * window.stride + side_u - window.top, x_shape[1]), i + 1)
    if cut.images > 1:  # all rows, also those that no window sees: the images' pixels then lie side by side
        end_x = x_shape[1]
    return Tile(n, min(cut.images, y_shape[0] - n), p, end - p, i, end_x - i)


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
    """y = z · gate(relu(mean of z · r1 + bias1) · r2 + bias2) for whole images, flat; v: the lanes of t·C."""
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


@row
def expand_tile(x, w, ending, tile, shape):
    """(1): e (images, high, W·t·C) of a tile; where w has no numbers, x itself (t = 1). shape: (N, H, W, C) of x."""
    _, height, width, channels = shape
    first = (tile.image * height + tile.i) * width  # a pixel
    pixels = tile.images * tile.high * width  # side by side: a tile of several images has all of their rows
    seen = x[first * channels : (first + pixels) * channels]
    e = seen
    if w.values.size:
        e = line_up(pixels * w.columns, x)
        multiply_to(Strided(seen, 0, channels, 1), pixels, w, ending, e, 0)
    return e.reshape(tile.images, tile.high, width * w.columns)


@row
def filter_tile(e, source, w, ending, window, tile, columns):
    """(2): z (images, rows, Q·t·C) of a tile; columns: Q."""
    wide = ending.bias.size
    z = line_up(tile.images * tile.rows * columns * wide, e).reshape(tile.images, tile.rows, columns * wide)
    # The same window over the rows that were made: its top is counted from row i, not from the image's first.
    here = Window(window.side, window.stride, tile.i - tile.p * window.stride + window.top, window.left)
    line = line_of(columns * wide, wide, here, source.lanes)
    ring = image_ring(e[0], 1, here, w.size // wide // window.side, line)
    for n in range(tile.images):
        ring.next[0] = 0
        for p in range(tile.rows):
            convolve_row(ring, e[n], source, w, ending.bias, here, p, z[n, p])
            activate_rows(ending.code, z[n, p], source.lanes)
    return z


@row
def multiply_to(a, rows, w, ending, y, at):
    """``rows`` rows of y, from its number ``at`` on: y = a · w, with its ending."""
    multiply(a, rows, w, Strided(y, at, w.columns, 1), (0, vectors_of(w.columns, w.lanes)), ending, NEW)


@row
def pack_steps(steps, first, last):
    """The weights of (1) and (3), scaled, into the Packed ``first`` and ``last``; the taps of (2), scaled, into room2."""
    if first.values.size:
        pack_scaled(steps.expand.w, steps.expand.scale, first, (0, vectors_of(first.columns, first.lanes)))
    scale_taps(steps.filter.w, steps.filter.scale, steps.room2)
    pack_scaled(steps.project.w, steps.project.scale, last, (0, vectors_of(last.columns, last.lanes)))


@kernel
def _inference(source, steps, excite, codes, window, y, cut):
    """(1) to (3). source.raw (N, H, W, C), finished, with the lanes of t·C; y (N, P, Q, F); ``cut`` says what a tile is."""
    shape, (images, rows, columns, filters) = source.raw.shape, y.shape
    x, out, v = source.raw.reshape(-1), y.reshape(-1), source.lanes
    wide, w2 = steps.filter.shift.size, steps.room2
    w1, w3 = Packed(steps.room1, shape[3], wide, v), Packed(steps.room3, wide, filters, steps.lanes)
    pack_steps(steps, w1, w3)
    ending1 = Ending(steps.expand.shift, codes.expand, x[:0])
    ending2 = Ending(steps.filter.shift, codes.filter, x[:0])
    ending3 = Ending(steps.project.shift, codes.project, x if codes.adds else x[:0])
    side_u = w2.size // wide // window.side
    tiles = ((images + cut.images - 1) // cut.images) * ((rows + cut.rows - 1) // cut.rows)
    for number in prange(tiles):  # each tile writes its own rows of y
        tile = tile_of(number, cut, window, side_u, shape, y.shape)
        e = expand_tile(x, w1, ending1, tile, shape)  # (1)
        z = filter_tile(e, source, w2, ending2, window, tile, columns).reshape(-1)  # (2)
        if excite.r1.size:
            scaled = line_up(z.size, x)
            squeeze_excite(z, tile.images, excite, v, scaled)
            z = scaled
        at = (tile.image * rows + tile.p) * columns * filters
        multiply_to(Strided(z, 0, wide, 1), z.size // wide, w3, ending3, out, at)  # (3)


def cut_of(images, shape, side, stride, rows, squeezes):
    """The Cut, by the shapes alone; None if the steps one after another keep more cores busy.

    shape: (H, W, t·C); side and stride: of the window; rows: of y.

    Each tile reads all weights of the block. On large maps these are few, so tiles of rows pay off for one image, too: V2
    takes 4.9 ms for it so, and 5.2 step by step (two cores of a Zen 4). On small maps they are many. Then each core should
    read its share of them only, step by step.
    """
    height, width, wide = shape
    numbers = height * width * wide
    if numbers <= (2 * CACHE if squeezes else CACHE):
        if images < IMAGES:
            return None
        return Cut(max(min(2 * CACHE // numbers, images // IMAGES), 1), rows)
    if squeezes:
        return None
    fits = (max(CACHE // (width * wide), side) - side) // stride + 1
    if images < IMAGES:
        fits = min(fits, max(-(-rows * images // TILES), 1))
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
