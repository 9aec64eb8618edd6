"""Pointwise (1×1) convolution: the product in which MobileNetV1 spends 95 % of its multiplications.

For pixel r of R = N·H·W, channels c of C, filters f of F (Howard et al. 2017, section 3.1, the second factor of a
depthwise-separable convolution):

(1)  y[r, f]  = Σ_c x[r, c] · w[c, f]           forward:   Y  = X W
(2)  dx[r, c] = Σ_f dy[r, f] · w[c, f]                     dX = dY Wᵀ
(3)  dw[c, f] = Σ_r x[r, c] · dy[r, f]                     dW = Xᵀ dY

In NHWC a 1×1 convolution needs no im2col: the pixels *are* the rows of the matrix. The loops are those of the product
page, which makes them fast. This page adds what stands around them.

**Tiles.** The pixels are cut into tiles of a few hundred, which stay in the second-level cache. A tile of x is normalised
and activated just before its product, and the moments of the product are taken just after. So a conv–BN–activation unit
reads its input once and writes its output once. Fusing is nothing but calling three row functions in one loop.

Backward does the same. In the tile dy goes back through activation and normalisation (batchnorm's equation 6); then it is
used for (3) and for (2) at once. The *previous* unit's batch norm needs two sums (its equation 5): they are taken from the
tile of dx, which is still in the cache. If x has another reader, as the input of a residual block has, that reader's gradient
(``more``) is added to the tile before.

**Parts.** One ``prange`` runs over at most 8 parts of the pixels. Each has its own moments and its own dw, which are added
in index order when all are done: so the bits do not depend on the threads.

Not supported: groups, a bias (the batch norm that follows has one; the dense page adds it).
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from numnet.kernels import _check, product
from numnet.kernels._cost import Cost
from numnet.kernels._jit import kernel, row
from numnet.kernels.batchnorm import (
    add_gradient_sums,
    finished_tile,
    source_of,
    unit_gradient,
    upstream_of,
)
from numnet.kernels.folding import pack_scaled
from numnet.kernels.maps import parts_of, share, vectors_of
from numnet.kernels.moments import add_moments
from numnet.kernels.product import (
    NEW,
    ROWS,
    VECTORS,
    Ending,
    Packed,
    Strided,
    multiply,
    multiply_all,
    pack,
    pack_turned,
    packed_size,
)
from numnet.kernels.rows import add, copy, line_up
from numnet.kernels.vectors import lanes, number_of

LEAST = 192  # pixels of a part, and of a tile, at least: with fewer, adding up the parts' dw costs more than it saves
TALLEST = 2048  # pixels a tile holds at most
CACHE = 65536  # numbers of x and y together in a tile: 256 KiB of float32
SMALL = 1024  # an inference of so few pixels is cut over the filters, if there are many of them
OWN = 2  # with so few tiles over pixels, each packs the weights for itself


# ---------------------------------------------------------------------------------------------- the definition


def definition(x, w):
    """y (N, H, W, F) by (1), three plain loops: see ``product.definition``. Raises like forward."""
    x, w = _arguments(x, w)
    y = np.empty((*x.shape[:3], w.shape[1]), x.dtype)
    product.definition(x.reshape(-1, len(w)), w, y.reshape(-1, w.shape[1]))
    return y


def definition_backward(dy, x, w):
    """dx (N, H, W, C) by (2) and dw (C, F) by (3), as plain loops. Raises like forward."""
    x, w = _arguments(x, w)
    dy = _check.tensor("dy", dy, (*x.shape[:3], w.shape[1]), x.dtype)
    dx, dw = np.empty_like(x), np.empty_like(w)
    product.definition_dx(dy.reshape(-1, w.shape[1]), w, dx.reshape(-1, len(w)))
    product.definition_dw(x.reshape(-1, len(w)), dy.reshape(-1, w.shape[1]), dw)
    return dx, dw


# ---------------------------------------------------------------------------------------------- passes
# x, y, dx, dy and more are flat arrays of whole pixels.


@row
def tile_rows(channels, filters):
    """Pixels a tile holds: as many as fit CACHE, between LEAST and TALLEST."""
    return min(max(CACHE // (channels + filters), LEAST), TALLEST)


@kernel
def _forward(source, w, y, moments, parts, v):
    """(1). source: the map x; w (C, F); moments (parts, 3, F), zero, or empty; v: the lanes of F."""
    x, (channels, filters) = source.raw, w.shape
    rows, step = y.size // filters, tile_rows(channels, filters)
    b = Packed(line_up(packed_size(channels, filters, v), x), channels, filters, v)
    pack(w.reshape(-1), channels, filters, b.values, v)
    for part in prange(parts):  # each part writes its own pixels of y and its own moments
        first, last = share(part, parts, rows)
        finished = line_up(step * channels if source.pack.size else 0, x)
        for lo in range(first, last, step):
            hi = min(lo + step, last)
            a = finished_tile(x[lo * channels : hi * channels], source, finished)
            out = Strided(y, lo * filters, filters, 1)
            multiply_all(Strided(a, 0, channels, 1), hi - lo, b, out, NEW)  # (1)
            if moments.size:
                add_moments(y[lo * filters : hi * filters], moments[part], v)


@kernel
def _backward(upstream, source, w, dx, more, dw, x_sums):
    """(2) and (3). dw (parts, C, padded F). These may be empty: dx; ``more``, added to dx; x_sums (parts, 2, C), zero."""
    x, dy, (channels, filters) = source.raw, upstream.dy, w.shape
    rows, step = dy.size // filters, tile_rows(channels, filters)
    vc, vf = source.lanes, upstream.lanes
    back = Packed(line_up(packed_size(filters, channels, vc) if dx.size else 0, x), filters, channels, vc)
    if dx.size:
        pack_turned(w.reshape(-1), filters, channels, back.values, vc)
    for part in prange(dw.shape[0]):  # each part writes its own pixels of dx, its own dw and its own sums
        first, last = share(part, dw.shape[0], rows)
        finished = line_up(step * channels if source.pack.size else 0, x)
        raw = line_up(step * filters if upstream.pack.size else 0, x)
        panels = line_up(packed_size(step, filters, vf), x)
        mine = Strided(dw[part].reshape(-1), 0, dw.shape[2], 1)
        for lo in range(first, last, step):
            hi = min(lo + step, last)
            a = finished_tile(x[lo * channels : hi * channels], source, finished)
            d = dy[lo * filters : hi * filters]
            if upstream.pack.size:
                unit_gradient(d, upstream.raw[lo * filters : hi * filters], upstream, raw)
                d = raw
            pack(d, hi - lo, filters, panels, vf)
            b = Packed(panels, hi - lo, dw.shape[2], vf)
            multiply_all(Strided(a, 0, 1, channels), channels, b, mine, lo > first)  # (3)
            if dx.size:
                out = dx[lo * channels : hi * channels]
                rows_of_dx = Strided(out, 0, channels, 1)
                multiply_all(Strided(d, 0, filters, 1), hi - lo, back, rows_of_dx, NEW)  # (2)
                if more.size:
                    add(out, more[lo * channels : hi * channels])
                if x_sums.size:
                    add_gradient_sums(out, x[lo * channels : hi * channels], source, x_sums[part])


class Cut(NamedTuple):
    """The tiles of an inference: so many pixels each, and so many tiles side by side over the filters."""

    pixels: int
    beside: int


@kernel
def _inference(x, folded, code, skip, y, room, cut, v):
    """activation((1) · scale + shift) + skip. folded.w (C·F) flat; room: scratch for the packed weights."""
    step, wide, deep, filters = cut.pixels, cut.beside, folded.w.size // folded.shift.size, folded.shift.size
    count, rows = vectors_of(filters, v), y.size // filters
    ending, size = Ending(folded.shift, code, skip), packed_size(deep, filters, v)
    tiles = (rows + step - 1) // step
    if tiles > OWN:
        pack_scaled(folded.w, folded.scale, Packed(room, deep, filters, v), (0, count))
    # Tiles are whole panels. The last tile also takes the vectors left over: the very last may overlap the one before it, and
    # two tiles must not write the same numbers.
    panels = max(count // VECTORS, 1)
    for tile in prange(tiles * wide):  # each tile writes its own pixels and filters of y
        at, (first, last) = tile // wide, share(tile % wide, wide, panels)
        span = first * VECTORS, last * VECTORS if last < panels else count
        b = Packed(room[at * size :] if tiles <= OWN else room, deep, filters, v)
        if tiles <= OWN:
            pack_scaled(folded.w, folded.scale, b, span)
        a, out = Strided(x, at * step * deep, deep, 1), Strided(y, at * step * filters, filters, 1)
        multiply(a, min(step, rows - at * step), b, out, span, ending, NEW)


def inference_cut(rows, channels, filters, n):
    """The Cut, by the shapes alone; n: the lanes.

    Few pixels are cut over the filters, into 8 tiles at most: each core packs and reads its own share of the weights, once.
    Where the filters are few as well, there are two tiles of pixels, and each packs all weights for itself: what another
    core has just written arrives slowly, 10 ns a line of the cache. Many pixels are cut into tiles that fit the cache, higher
    ones where the weights are many, since each tile reads them all; and over filters, too, if that gives fewer than 8 tiles.
    """
    panels = -(-filters // n) // VECTORS
    if rows <= SMALL:
        wide = min(panels, 8)
        return Cut(rows, wide) if wide >= 4 else Cut(-(-rows // (OWN * ROWS)) * ROWS, 1)
    many = channels * filters >= CACHE
    most = 2 * CACHE // channels if many else CACHE // (4 * (channels + filters))
    tiles = -(-rows // max(most, 8 * ROWS))
    step = -(-rows // (tiles * ROWS)) * ROWS
    return Cut(step, max(min(-(-8 // tiles), panels // 2), 1))


@kernel
def _sum_parts(partial, total, n):
    """total (rows, F) = Σ partial (parts, rows, padded F). n: the lanes if F is padded, else 1."""
    parts, rows, held = partial.shape
    columns = total.shape[1]
    for tile in prange((rows + 15) // 16):  # each tile writes its own rows of the total
        line = np.empty(held, partial.dtype)
        for r in range(tile * 16, min((tile + 1) * 16, rows)):
            copy(partial[0, r], line)
            for part in range(1, parts):
                add(line, partial[part, r])
            for f in range(min(held - n, columns)):
                total[r, f] = line[f]
            for f in range(held - n, columns):  # the last vector overlaps in the total, not in the parts
                total[r, f] = line[f + held - columns]


# ------------------------------------------------------------------------------------ used by conv–BN–activation units


def padded(filters, dtype):
    """Columns of a table of sums: each vector has a place of its own, so that none is added to twice."""
    n = number_of(lanes(filters, dtype))
    return -(-filters // n) * n


def sum_parts(partial, dw):
    """dw (…, F) = Σ partial (parts, rows, padded F), the parts added in index order."""
    dw = dw.reshape(partial.shape[1], -1)
    _sum_parts(partial, dw, number_of(lanes(dw.shape[1], dw.dtype)) if partial.shape[2] > dw.shape[1] else 1)


def unit_forward(source, w, y, moments):
    """y (N, H, W, F) = finished(x) · w; ``moments`` (parts, 3, F) gains y's, or has length 0. No checks."""
    parts = len(moments) or parts_of(y.size // w.shape[1], LEAST)
    _forward(flat(source), w, y.reshape(-1), moments, parts, lanes(w.shape[1], w.dtype))


def unit_backward(upstream, source, w, dx, more, x_sums, partial):
    """The parts' dw into ``partial`` (parts, C, padded F), and the gradient of x into dx (N, H, W, C). No checks.

    Each of these may be empty, and is then left out: dx; ``more``, which is added to dx; x_sums, the sums of dx (page
    ``batchnorm``).
    """
    upstream = upstream._replace(dy=upstream.dy.reshape(-1), raw=upstream.raw.reshape(-1))
    _backward(upstream, flat(source), w, dx.reshape(-1), more.reshape(-1), partial, x_sums)


def flat(source):
    """The same source, its map as a flat array."""
    return source._replace(raw=source.raw.reshape(-1))


def inference_step(x, folded, code, skip, y, room):
    """The kernel and its arguments for y (…, F) = activation(x (…, C) · w · scale + shift) + skip, for flat arrays.

    skip may be empty. room: scratch for the packed weights, ``room_of`` numbers. No checks.
    """
    filters, v = folded.shift.size, lanes(folded.shift.size, y.dtype)
    cut = inference_cut(y.size // filters, folded.w.size // filters, filters, number_of(v))
    return _inference, (x, folded, code, skip, y, room, cut, v)


def room_of(folded):
    """Numbers that the packed weights of a unit take, OWN times, since so many tiles may pack their own."""
    filters = folded.shift.size
    return OWN * (folded.w.size // max(filters, 1)) * padded(filters, folded.w.dtype)


# ---------------------------------------------------------------------------------------------- public


def pointwise_forward(x, w, out=None):
    """y (N, H, W, F) for x (N, H, W, C) and w (C, F), equation (1).

    float32 or float64, C-contiguous; N may be 0. Raises ValueError naming the argument that is wrong.
    """
    x, w = _arguments(x, w)
    out = _check.output("out", out, (*x.shape[:3], w.shape[1]), x.dtype)
    _check.apart(out, x=x, w=w)
    if x.size:
        unit_forward(source_of(x), w, out, np.empty((0, 3, 0)))
    return out


def pointwise_backward(dy, x, w, out=None):
    """dx (N, H, W, C) by equation (2) and dw (C, F) by (3), for dy (N, H, W, F). Raises like forward."""
    x, w = _arguments(x, w)
    dy = _check.tensor("dy", dy, (*x.shape[:3], w.shape[1]), x.dtype)
    out = _check.output("out", out, x.shape, x.dtype)
    _check.apart(out, x=x, w=w, dy=dy)
    dw = np.zeros(w.shape, x.dtype)
    if x.size:
        parts = parts_of(x.size // len(w), LEAST)
        partial = np.empty((parts, len(w), padded(w.shape[1], x.dtype)), x.dtype)
        unit_backward(upstream_of(dy), source_of(x), w, out, x[:0], np.empty((0, 2, 0)), partial)
        sum_parts(partial, dw)
    return out, dw


def _arguments(x, w):
    x = _check.tensor("x", x, (None, None, None, None))
    _check.positive("x: channels", x.shape[3])
    w = _check.tensor("w", w, (x.shape[3], None), x.dtype)
    _check.positive("w: filters", w.shape[1])
    return x, w


def pointwise_cost(n: int, h: int, w: int, c: int, f: int) -> Cost:
    """N·H·W·C·F MACs in each of the three products (Howard et al. 2017, equation 5, second term)."""
    macs = n * h * w * c * f
    return Cost(macs, macs, macs, params=c * f, inputs=n * h * w * c, outputs=n * h * w * f)
