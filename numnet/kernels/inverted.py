"""An inverted residual in one pass, for inference: expand, filter and project a band of rows while it is in the cache.

With the running statistics folded, of scale a and shift b each, and the block's own activation (Sandler et al. 2018,
figure 3; see ``blocks/residual.py``):

(1)  e = activation(x · w₁ · a₁ + b₁)           C → t·C      pointwise
(2)  z = activation(depthwise(e) · a₂ + b₂)     t·C          depthwise
(3)  y = z · w₃ · a₃ + b₃ [+ x]                 t·C → F      pointwise

The wide maps e and z hold t = 6 times the numbers of x and y, and nobody outside the block reads them. So a tile is a
band of output rows of one image: the rows of e that it needs are made in a scratch that fits the second-level cache,
filtered and projected there, and only x and y are maps in memory. Neighbouring bands make K − s rows of e twice, which
is the price; a band is as long as the cache allows.

All three steps are the other pages' row functions, called in turn: fusing is nothing but that.
"""

import numpy as np
from numba import prange

from numnet.kernels._jit import kernel
from numnet.kernels.batchnorm import finish
from numnet.kernels.depthwise import PAIR, convolve_pair, slot_pixels, stretch
from numnet.kernels.product import multiply
from numnet.kernels.rows import line_up, repeated, row_length

CACHE = 131072  # numbers of e in a band: 512 KiB of float32
TILES = 4  # fewer than so many bands are not worth it: with one image of 14×14, cores would wait


@kernel
def _inference(x, w1, folded1, taps, folded2, w3, folded3, codes, shape, adds, y, band):
    """(1) to (3). x (N, H, W·C), y (N, P, Q·F); taps (K·K, t·C); folded (2, channels); ``band`` rows of y a tile."""
    wide, side_u, side_v, stride, top, left = shape
    height, (images, rows, size) = x.shape[1], y.shape
    channels, filters = w1.shape[0], w3.shape[1]
    width, columns = x.shape[2] // channels, size // filters
    length = stretch(wide, stride)
    long_taps = repeated(taps, length).reshape(-1)
    long1, long2 = repeated(folded1, row_length(wide)), repeated(folded2, row_length(wide))
    long3 = repeated(folded3, row_length(filters))
    slots = (PAIR - 1) * stride + side_u
    bands = (rows + band - 1) // band
    none, nothing = np.empty((0, 0), x.dtype), np.empty(0, x.dtype)
    for tile in prange(images * bands):  # each tile writes its own rows of y
        n, first = tile // bands, tile % bands * band
        last = min(first + band, rows)
        lo = max(first * stride - top, 0)  # the rows of x and e that these windows see
        hi = min((last - 1) * stride + side_u - top, height)
        e = line_up((hi - lo) * width * wide, x)
        multiply(x[n, lo:hi].reshape(-1, channels), w1, e.reshape(-1, wide), 0, wide)
        finish(e, long1, codes[0], nothing)  # (1)
        part = wide, side_u, side_v, stride, lo - (first * stride - top), left
        flat = line_up((slots + 1) * slot_pixels(width, left, columns, side_v, stride) * wide, x)
        at, filled = np.empty(slots, np.int64), 0
        image, z = (
            e.reshape(hi - lo, -1),
            line_up((last - first) * columns * wide, x).reshape(last - first, -1),
        )
        for p in range(0, last - first, PAIR):
            count = min(PAIR, last - first - p)
            filled = convolve_pair(
                image, none, 0, long_taps, length, part, wide, flat, slots, filled, nothing, at, z, p, count
            )
            finish(z[p : p + count].reshape(-1), long2, codes[1], nothing)  # (2)
        out = y[n, first:last].reshape(-1, filters)
        multiply(z.reshape(-1, wide), w3, out, 0, filters)
        skip = x[n, first:last].reshape(-1) if adds else nothing
        finish(out.reshape(-1), long3, codes[2], skip)  # (3)


def band_of(images, height, width, wide, side, stride, rows) -> int:
    """Output rows of a tile, by the shapes alone; 0 if the three steps one after another keep more cores busy."""
    fits = (max(CACHE // (width * wide), side) - side) // stride + 1
    bands = -(-rows // fits)
    band = -(-rows // bands)
    band += band % 2 and band > 1  # pairs of rows go through one sweep
    return band if images * -(-rows // band) >= TILES else 0


def unit_inference(x, w1, folded1, w, folded2, w3, folded3, codes, stride, pads, adds, y, band):
    """y (N, P, Q, F) from x (N, H, W, C), w1 (C, t·C), w (K, K, t·C, 1), w3 (t·C, F). No checks; BLAS held by the caller."""
    lines, out = x.reshape(*x.shape[:2], -1), y.reshape(*y.shape[:2], -1)
    taps = w.reshape(-1, w.shape[2])
    shape = w.shape[2], w.shape[0], w.shape[1], stride, pads[0][0], pads[1][0]
    _inference(lines, w1, folded1, taps, folded2, w3, folded3, codes, shape, adds, out, band)
