"""An inverted residual in one pass, for inference: expand, filter and project a tile while it is in the cache.

With the running statistics folded, of scale a and shift b each, and the block's own activation (Sandler et al. 2018,
figure 3; see ``blocks/residual.py``):

(1)  e = activation(x · w₁ · a₁ + b₁)           C → t·C      pointwise; without it, e = x and t = 1
(2)  z = activation(depthwise(e) · a₂ + b₂)     t·C          depthwise
(3)  y = z · w₃ · a₃ + b₃ [+ x]                 t·C → F      pointwise; MobileNetV1's has an activation

The wide maps e and z hold t = 6 times the numbers of x and y, and nobody outside the block reads them. So a tile is
some output rows of one image: the rows of e that it needs are made in a scratch that fits the second-level cache,
filtered and projected there, and only x and y are maps in memory. Neighbouring tiles both make the K − s rows of e
between them, which is the price; a tile is as high as the cache allows. Where whole images are smaller than that, a tile
is several of them: at 7×7 the weights, a million and more, are what has to be read, once a tile.

MobileNetV1's separable block is (2) and (3) alone: there z is what is saved. A squeeze-excite looks at all of an image
before it scales the first number; so a tile of V3 is whole images, and z is squeezed and scaled where it lies.

All three steps are the other pages' row functions, called in turn: fusing is nothing but that.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from numnet.kernels._jit import kernel, row
from numnet.kernels.activations import RELU, activate_rows
from numnet.kernels.depthwise import convolve_row, image_ring, line_of
from numnet.kernels.maps import Source, Window, vectors_of
from numnet.kernels.pooling import average_image
from numnet.kernels.product import NEW, Ending, Packed, Strided, multiply
from numnet.kernels.rows import line_up
from numnet.kernels.squeeze_excite import scale_image

CACHE = 131072  # numbers of e in a tile: 512 KiB of float32; twice as many in a tile of several images
TILES = 4  # with fewer images the steps one after another are faster: each core then reads only its share of the weights


class Steps(NamedTuple):
    """A block's folded weights and biases, in the order in which they are used. What a block does not have is empty."""

    w1: np.ndarray  # (1), packed: C → t·C
    bias1: np.ndarray
    taps: np.ndarray  # (2): (K·K, t·C)
    bias2: np.ndarray
    r1: np.ndarray  # squeeze-excite, packed: t·C → R → t·C
    bias_r1: np.ndarray
    r2: np.ndarray
    bias_r2: np.ndarray
    w3: np.ndarray  # (3), packed: t·C → F
    bias3: np.ndarray
    lanes: np.integer  # of t·C channels
    lanes_r: np.integer  # of R
    lanes_y: np.integer  # of F


class Codes(NamedTuple):
    """Activation codes of (1), (2), the squeeze's gate and (3); and whether x is added at the end."""

    expand: int
    filter: int
    gate: int
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
def filter_image(e, ring, source, steps, window, code, z):
    """(2) for one image of a tile: rows e (H, W·t·C) to rows z (P, Q·t·C)."""
    ring.next[0] = 0
    taps = steps.taps.reshape(-1)
    for p in range(z.shape[0]):
        convolve_row(ring, e, source, taps, steps.bias2, window, p, z[p])
        activate_rows(code, z[p], steps.lanes)


class Excite(NamedTuple):
    """The two dense layers of a squeeze-excite, folded and packed: r1 (t·C, R), r2 (R, t·C), their biases and lanes."""

    r1: np.ndarray
    bias_r1: np.ndarray
    r2: np.ndarray
    bias_r2: np.ndarray
    lanes: np.integer
    lanes_r: np.integer


@row
def squeeze_excite(z, images, excite, gate, y):
    """y = z · gate(excite(relu(reduce(mean of z)))) for whole images, flat."""
    wide, size, nothing, v = excite.bias_r2.size, z.size // images, z[:0], excite.lanes
    means, gates = np.empty(images * wide, z.dtype), np.empty(images * wide, z.dtype)
    squeezed = np.empty(images * excite.bias_r1.size, z.dtype)
    for n in range(images):
        average_image(z[n * size : (n + 1) * size], means[n * wide : (n + 1) * wide], v)
    reduce = Packed(excite.r1, wide, excite.bias_r1.size, excite.lanes_r)
    multiply_to(
        Strided(means, 0, wide, 1), images, reduce, Ending(excite.bias_r1, RELU, nothing), squeezed, 0
    )
    expand, reduced = Packed(excite.r2, reduce.columns, wide, v), Strided(squeezed, 0, reduce.columns, 1)
    multiply_to(reduced, images, expand, Ending(excite.bias_r2, gate, nothing), gates, 0)
    for n in range(images):
        here = slice(n * size, (n + 1) * size)
        scale_image(z[here], gates[n * wide : (n + 1) * wide], y[here], v)


@kernel
def _squeeze_excite(source, excite, gate, y):
    """A squeeze-excite alone: source.raw and y (N, H, W, C)."""
    x, out, size = source.raw.reshape(-1), y.reshape(-1), y.size // max(len(y), 1)
    for n in prange(len(y)):  # each image has its own y
        squeeze_excite(x[n * size : (n + 1) * size], 1, excite, gate, out[n * size : (n + 1) * size])


@kernel
def _inference(source, steps, codes, window, y, cut):
    """(1) to (3). source.raw (N, H, W, C), y (N, P, Q, F); ``cut`` says what a tile is."""
    (images, height, width, channels), (rows, columns, filters) = source.raw.shape, y.shape[1:]
    x, out, wide = source.raw.reshape(-1), y.reshape(-1), steps.bias2.size
    side_u = steps.taps.shape[0] // window.side
    along, down = (images + cut.images - 1) // cut.images, (rows + cut.rows - 1) // cut.rows
    for tile in prange(along * down):  # each tile writes its own rows of y
        n0, first = tile // down * cut.images, tile % down * cut.rows
        n1, last = min(n0 + cut.images, images), min(first + cut.rows, rows)
        lo = max(first * window.stride - window.top, 0)  # the rows of x and e that these windows see
        hi = min((last - 1) * window.stride + side_u - window.top, height)
        begin, pixels = (n0 * height + lo) * width, ((n1 - n0 - 1) * height + hi - lo) * width
        e = x[begin * channels : (begin + pixels) * channels]
        if steps.bias1.size:
            a, w1 = Strided(e, 0, channels, 1), Packed(steps.w1, channels, wide, steps.lanes)
            e = line_up(pixels * wide, x)
            multiply_to(a, pixels, w1, Ending(steps.bias1, codes.expand, x[:0]), e, 0)  # (1)
        lines, many = e.reshape(n1 - n0, hi - lo, width * wide), (n1 - n0) * (last - first) * columns
        z = line_up(many * wide, x)
        maps = z.reshape(n1 - n0, last - first, columns * wide)
        here = Window(window.side, window.stride, lo - first * window.stride + window.top, window.left)
        ring = image_ring(lines[0], 1, here, side_u, line_of(columns * wide, wide, here, steps.lanes))
        finished = Source(source.raw, source.pack, source.code, steps.lanes)
        for n in range(n1 - n0):
            filter_image(lines[n], ring, finished, steps, here, codes.filter, maps[n])  # (2)
        if steps.bias_r1.size:
            scaled = line_up(z.size, x)
            excite = Excite(steps.r1, steps.bias_r1, steps.r2, steps.bias_r2, steps.lanes, steps.lanes_r)
            squeeze_excite(z, n1 - n0, excite, codes.gate, scaled)
            z = scaled
        w3, skip = Packed(steps.w3, wide, filters, steps.lanes_y), x if codes.adds else x[:0]
        a, to = Strided(z, 0, wide, 1), (n0 * rows + first) * columns * filters
        multiply_to(a, many, w3, Ending(steps.bias3, codes.project, skip), out, to)  # (3)


def cut_of(images, shape, window, rows, squeezes):
    """The Cut, by the shapes alone; None if the steps one after another keep more cores busy. shape: (H, W, t·C)."""
    (height, width, wide), (side, stride) = shape, window
    numbers = height * width * wide
    if images < TILES:
        return None
    if images >= TILES and numbers <= (2 * CACHE if squeezes else CACHE):
        return Cut(max(min(2 * CACHE // numbers, images // TILES), 1), rows)
    if squeezes:
        return None
    fits = (max(CACHE // (width * wide), side) - side) // stride + 1
    return Cut(1, -(-rows // -(-rows // fits)))


def unit_inference(source, steps, codes, window, y, cut):
    """y (N, P, Q, F) from the finished map ``source`` (N, H, W, C). No checks."""
    _inference(source, steps, codes, window, y, cut)


def unit_squeeze_excite(source, excite, gate, y):
    """y (N, H, W, C) = x · gates, for a finished map. No checks."""
    if y.size:
        _squeeze_excite(source, excite, gate, y)
