"""An inverted residual in one pass, for inference: expand, filter and project a tile while it is in the cache.

With the running statistics folded, of scale a and shift b each, and the block's own activation (Sandler et al. 2018,
figure 3; see ``blocks/residual.py``):

(1)  e = activation(x · w₁ · a₁ + b₁)           C → t·C      pointwise; without it, e = x and t = 1
(2)  z = activation(depthwise(e) · a₂ + b₂)     t·C          depthwise
(3)  y = z · w₃ · a₃ + b₃ [+ x]                 t·C → F      pointwise; MobileNetV1's has an activation

The wide maps e and z hold t = 6 times the numbers of x and y, and nobody outside the block reads them. So a tile is a
band of output rows of one image: the rows of e that it needs are made in a scratch that fits the second-level cache,
filtered and projected there, and only x and y are maps in memory. Neighbouring bands make K − s rows of e twice, which
is the price; a band is as long as the cache allows. Where whole images are smaller than that, a tile is several of
them: at 7×7 the weights, a million and more, are what has to be read, once a tile.

MobileNetV1's separable block is (2) and (3) alone: there z is what is saved. A squeeze-excite looks at all of an image
before it scales the first number; so a tile of V3 is whole images, and z is squeezed and scaled where it lies.

All three steps are the other pages' row functions, called in turn: fusing is nothing but that.
"""

import numpy as np
from numba import prange

from numnet.kernels._jit import kernel
from numnet.kernels.batchnorm import finish
from numnet.kernels.depthwise import convolve_pair, slot_pixels
from numnet.kernels.product import multiply
from numnet.kernels.rows import line_up, repeated, row_length
from numnet.kernels.squeeze_excite import squeeze_excite
from numnet.kernels.windows import PAIR, stretch

CACHE = 131072  # numbers of e in a band: 512 KiB of float32; twice as many in a tile of several images
TILES = 4  # fewer than so many tiles are not worth it: with one image of 14×14, cores would wait
PIXELS = 48  # of y in a band that the cache did not cut: with fewer a product reads w too often


@kernel
def _inference(
    x, w1, folded1, taps, folded2, r1, excited1, r2, excited2, w3, folded3, codes, shape, adds, y, cut
):
    """(1) to (3). x (N, H, W·C), y (N, P, Q·F); taps (K·K, t·C); folded (2, channels); w1 empty: no expansion.

    r1 (t·C, R), r2 (R, t·C): of the squeeze-excite between (2) and (3), or empty; codes: of (1), (2), its gate, (3);
    ``cut``: images and rows of y in a tile; several images only if the rows are all rows.
    """
    side_u, side_v, stride, top, left = shape
    (images, height, line), rows, (wide, filters) = x.shape, y.shape[1], w3.shape
    channels = w1.shape[0] if w1.size else wide
    width, columns = line // channels, y.shape[2] // filters
    group, band = cut
    groups, bands = (images + group - 1) // group, (rows + band - 1) // band
    pixels_x, pixels_y = x.reshape(-1, channels), y.reshape(-1, filters)
    length = stretch(wide, stride, taps.shape[0])
    long_taps = repeated(taps, length).reshape(-1)
    long1 = repeated(folded1, row_length(wide) if w1.size else 0)
    long2, long3 = repeated(folded2, row_length(wide)), repeated(folded3, row_length(filters))
    slots = (PAIR - 1) * stride + side_u
    none, nothing = np.empty((0, 0), x.dtype), np.empty(0, x.dtype)
    for tile in prange(groups * bands):  # each tile writes its own rows of y
        n0, first = tile // bands * group, tile % bands * band
        n1, last = min(n0 + group, images), min(first + band, rows)
        lo = max(first * stride - top, 0)  # the rows of x and e that these windows see
        hi = min((last - 1) * stride + side_u - top, height)
        e = pixels_x[(n0 * height + lo) * width : ((n1 - 1) * height + hi) * width]
        if w1.size:
            seen = e
            e = line_up(seen.shape[0] * wide, x).reshape(-1, wide)
            multiply(seen, w1, e)
            finish(e.reshape(-1), long1, codes[0], nothing)  # (1)
        maps = e.reshape(n1 - n0, hi - lo, width * wide)
        z = line_up((n1 - n0) * (last - first) * columns * wide, x).reshape(n1 - n0, last - first, -1)
        part = wide, side_u, side_v, stride, lo - (first * stride - top), left
        flat = line_up((slots + 1) * slot_pixels(width, left, columns, side_v, stride) * wide, x)
        at = np.empty(slots, np.int64)
        for n in range(n1 - n0):
            filled = 0
            for p in range(0, last - first, PAIR):
                count = min(PAIR, last - first - p)
                filled = convolve_pair(
                    maps[n], none, 0, long_taps, length, part, wide, flat, slots, filled, nothing, at,
                    z[n], p, count,
                )  # fmt: skip
                finish(z[n, p : p + count].reshape(-1), long2, codes[1], nothing)  # (2)
        if r1.size:
            squeeze_excite(z.reshape(-1, wide), rows * columns, r1, excited1, r2, excited2, codes[2])
        begin, end = (n0 * rows + first) * columns, ((n1 - 1) * rows + last) * columns
        out = pixels_y[begin:end]
        multiply(z.reshape(-1, wide), w3, out)
        skip = pixels_x[begin:end].reshape(-1) if adds else nothing
        finish(out.reshape(-1), long3, codes[3], skip)  # (3)


def cut_of(images, height, width, wide, side, stride, rows, columns, expands, squeezes):
    """Images and rows of y in a tile, by the shapes alone; None if the steps one after another keep more cores busy."""
    numbers = height * width * wide
    if images >= TILES and numbers <= (2 * CACHE if squeezes else CACHE):
        return max(min(2 * CACHE // numbers, images // TILES), 1), rows
    if squeezes:
        return None
    fits = (max(CACHE // (width * wide), side) - side) // stride + 1
    bands = -(-rows // fits)
    if not expands:  # then more bands cost nothing, while their products have pixels enough
        bands = max(bands, min(-(-TILES // images), rows * columns // PIXELS))
    band = -(-rows // max(bands, 1))
    band += band % 2 and band > 1  # pairs of rows go through one sweep
    return (1, band) if images * -(-rows // band) >= TILES else None


def unit_inference(x, expand, depth, squeeze, project, codes, stride, pads, adds, y, cut):
    """y (N, P, Q, F) from x (N, H, W, C). No checks; BLAS held by the caller.

    expand: w1 (C, t·C) and its folded (2, t·C), or both empty; depth: w (K, K, t·C, 1) and folded; squeeze: r1 (t·C, R),
    folded, r2 (R, t·C), folded, or all empty; project: w3 (t·C, F) and folded; codes: of the four, squeeze's of its gate.
    """
    w, folded2 = depth
    lines, out = x.reshape(*x.shape[:2], -1), y.reshape(*y.shape[:2], -1)
    taps = w.reshape(-1, w.shape[2])
    shape = w.shape[0], w.shape[1], stride, pads[0][0], pads[1][0]
    _inference(lines, *expand, taps, folded2, *squeeze, *project, codes, shape, adds, out, cut)
