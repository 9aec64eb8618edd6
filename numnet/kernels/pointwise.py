"""Pointwise (1×1) convolution: the product in which a MobileNet spends 95 % of its multiplications.

For pixel r of R = N·H·W, channels c of C, filters f of F (Howard et al. 2017, section 3.1, the second factor of a
depthwise-separable convolution):

(1)  y[r, f]  = Σ_c x[r, c] · w[c, f]           forward:   Y  = X W
(2)  dx[r, c] = Σ_f dy[r, f] · w[c, f]                     dX = dY Wᵀ
(3)  dw[c, f] = Σ_r x[r, c] · dy[r, f]                     dW = Xᵀ dY

In NHWC a 1×1 convolution needs no im2col: the pixels *are* the rows of the matrix.

**Why a library here.** A product of two matrices is the one loop that we leave to BLAS (``np.dot``): its inner
loop is written by hand for each processor, keeps a block of y in registers, and reaches 70–90 % of the peak, several
times what a compiler makes of three nested loops. Everything around it is ours: the rows are cut into tiles, one
``prange`` runs over them, and each tile is a *single-threaded* product. BLAS's own threads would fight Numba's for
the cores: measured, that made a whole training step 2 to 10 times slower.

**Why tiles.** A tile of x is normalised and activated just before its product, and the moments of the product are
taken just after, while both lie in the second-level cache. So a conv–BN–activation unit reads its input once and
writes its output once; fusing is nothing but calling three row functions in one loop. Backward does the same: dy goes
back through activation and normalisation (batchnorm's equation 6) in the tile, is used for (3) and (2) at once, and
the sums that the *previous* unit's batch norm needs (its equation 5) are taken from the hot tile of dx. If x has another
reader, as the input of a residual block has, that one's gradient (``more``) is added to the tile before.

Not supported: groups, a bias (the batch norm that follows has one; the dense page adds it).
"""

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._blas import one_thread
from numnet.kernels._cost import Cost
from numnet.kernels._jit import kernel, row
from numnet.kernels.activations import IDENTITY
from numnet.kernels.batchnorm import (
    add_gradient_sums,
    add_moments,
    empty_pack,
    finish,
    finish_row,
    normalise_activate,
    parts_of,
    unit_gradient,
)
from numnet.kernels.product import PANEL, multiply, multiply_many, multiply_transposed, thin, turned
from numnet.kernels.rows import add, copy, repeated, row_length, share

LEAST = 256  # pixels a part holds at least: with fewer, BLAS spends its time repacking w
CACHE = 65536  # numbers of x and y together in a tile: 256 KiB of float32


@row
def tile_rows(channels, filters):
    """Pixels a tile holds: as many as fit CACHE, between LEAST and 2,048."""
    return min(max(CACHE // (channels + filters), LEAST), 2048)


@kernel
def _forward(x, x_pack, code, w, y, moments, parts):
    """(1). x (R, C), finished (x_pack empty) or raw with its pack (4, C); moments (parts, 3, F), zero, or empty."""
    rows, channels = x.shape
    step = tile_rows(channels, w.shape[1])
    pack = repeated(x_pack, row_length(channels) if x_pack.size else 0)
    for part in prange(parts):  # each part writes its own pixels of y and its own moments
        first, last = share(part, parts, rows)
        finished = np.empty((step if pack.size else 0, channels), x.dtype)
        for lo in range(first, last, step):
            hi = min(lo + step, last)
            a = x[lo:hi]
            if pack.size:
                a = finished[: hi - lo]
                normalise_activate(x[lo:hi].reshape(-1), pack, code, a.reshape(-1))
            multiply_many(a, w, y[lo:hi])  # (1)
            if moments.size:
                add_moments(y[lo:hi].reshape(-1), w.shape[1], moments[part])


@kernel
def _backward(dy, y, y_pack, means, y_code, x, x_pack, x_code, w, dx, more, dw, x_sums):
    """(2) and (3). dw (parts, C, F); dx (R, C) or empty; more (R, C), added to dx, or empty; x_sums (parts, 2, C), zero,
    or empty.

    y_pack empty: dy is the gradient of the raw output. Else y (R, F) is that raw output and dy the gradient of its
    activation; ``means`` (2, F).
    """
    rows, channels = x.shape
    filters = w.shape[1]
    step = tile_rows(channels, filters)
    pack = repeated(x_pack, row_length(channels) if x_pack.size else 0)
    pack_y = repeated(y_pack, row_length(filters) if y_pack.size else 0)
    means_y = repeated(means, row_length(filters) if y_pack.size else 0)
    back = turned(w if dx.size and thin(channels, filters) else w[:0])  # wᵀ, or empty: see ``product``
    for part in prange(dw.shape[0]):  # each part writes its own pixels of dx, its own dw and its own sums
        first, last = share(part, dw.shape[0], rows)
        finished = np.empty((step if pack.size else 0, channels), x.dtype)
        raw = np.empty((step if pack_y.size else 0, filters), x.dtype)
        for lo in range(first, last, step):
            hi = min(lo + step, last)
            a, d = x[lo:hi], dy[lo:hi]
            if pack.size:
                a = finished[: hi - lo]
                normalise_activate(x[lo:hi].reshape(-1), pack, x_code, a.reshape(-1))
            if pack_y.size:
                d = raw[: hi - lo]
                unit_gradient(
                    dy[lo:hi].reshape(-1), y[lo:hi].reshape(-1), pack_y, means_y, y_code, d.reshape(-1)
                )
            multiply_transposed(a, d, dw[part], lo > first)  # (3)
            if dx.size:
                if back.size:
                    multiply(d, back, dx[lo:hi])  # (2)
                else:
                    np.dot(d, w.T, dx[lo:hi])
                if more.size:
                    add(dx[lo:hi].reshape(-1), more[lo:hi].reshape(-1))
                if x_sums.size:
                    add_gradient_sums(dx[lo:hi].reshape(-1), x[lo:hi].reshape(-1), pack, x_code, x_sums[part])


@kernel
def _inference(x, w, folded, code, skip, y):
    """(1), batch norm and activation in the tile: folded (2, F) = scale and shift; skip (R, F) is added, or empty."""
    rows, filters = y.shape
    parts, columns, wide = inference_tiles(rows, w.shape[0], filters)
    long = repeated(folded, row_length(filters) if columns == 1 else filters)
    for tile in prange(parts * columns):  # each tile writes its own pixels and filters of y
        lo, hi = share(tile // columns, parts, rows)
        f0 = tile % columns * wide
        f1 = min(f0 + wide, filters)
        multiply(x[lo:hi], w[:, f0:f1], y[lo:hi, f0:f1])
        if columns == 1:
            more = skip[lo:hi] if skip.size else skip
            finish(y[lo:hi].reshape(-1), long, code, more.reshape(-1))
        else:
            for r in range(lo, hi):
                more = skip[r, f0:f1] if skip.size else skip.reshape(-1)
                finish_row(y[r, f0:f1], long[0, f0:f1], long[1, f0:f1], code, more)


@row
def inference_tiles(rows, channels, filters):
    """How many tiles of pixels, how many of filters, and filters a tile has: at least eight tiles where that pays.

    The pixels of one image's 7×7 map are too few to be cut: there the filters are, so that two cores have work.
    """
    parts = max(rows // tile_rows(channels, filters), min(8, rows // 48), 1)
    columns = max(min(8 // parts, filters // PANEL), 1)
    wide = (filters + columns - 1) // columns
    wide = (wide + PANEL - 1) // PANEL * PANEL if columns > 1 else filters
    return parts, (filters + wide - 1) // wide, wide


@kernel
def sum_parts(partial, total):
    """total (size,) = Σ partial (parts, size), the parts added in index order."""
    block = 16384
    for t in prange((total.size + block - 1) // block):  # each tile writes its own stretch of total
        lo, hi = t * block, min((t + 1) * block, total.size)
        copy(partial[0, lo:hi], total[lo:hi])
        for part in range(1, partial.shape[0]):
            add(total[lo:hi], partial[part, lo:hi])


# ------------------------------------------------------------------------------------ used by conv–BN–activation units


def unit_forward(x, x_pack, x_code, w, y, moments):
    """y (N, H, W, F) = finished(x) · w; ``moments`` (parts, 3, F) gains y's, or has length 0. No checks."""
    rows, (channels, filters) = x.size // w.shape[0], w.shape
    with one_thread():
        _forward(
            x.reshape(rows, channels),
            x_pack,
            x_code,
            w,
            y.reshape(rows, filters),
            moments,
            moments.shape[0] or parts_of(rows, LEAST),
        )


def unit_backward(dy, y, y_pack, means, y_code, x, x_pack, x_code, w, dx, more, dw, x_sums, partial):
    """dw (C, F), and where dx has a size dx (N, H, W, C), plus ``more`` where that has one, and x_sums. No checks.

    ``partial`` (parts, C, F) is scratch.
    """
    rows, (channels, filters) = x.size // w.shape[0], w.shape
    with one_thread():
        _backward(
            dy.reshape(rows, filters),
            y.reshape(-1, filters),
            y_pack,
            means,
            y_code,
            x.reshape(rows, channels),
            x_pack,
            x_code,
            w,
            dx.reshape(-1, channels),
            more.reshape(-1, channels),
            partial,
            x_sums,
        )
        sum_parts(partial.reshape(len(partial), -1), dw.reshape(-1))


def unit_inference(x, w, folded, code, skip, y):
    """y (R, F) = activation(x (R, C) · w · scale + shift) + skip. No checks, and SciPy's BLAS is held by the caller."""
    _inference(x, w, folded, code, skip, y)


# ---------------------------------------------------------------------------------------------- public


def pointwise_forward(x, w, out=None):
    """y (N, H, W, F) for x (N, H, W, C) and w (C, F), equation (1).

    float32 or float64, C-contiguous; N may be 0. Raises ValueError naming the argument that is wrong.
    """
    x, w = _arguments(x, w)
    out = _check.output("out", out, (*x.shape[:3], w.shape[1]), x.dtype)
    _check.apart(out, x=x, w=w)
    if x.size:
        unit_forward(x, empty_pack(x.dtype), IDENTITY, w, out, np.empty((0, 3, 0)))
    return out


def pointwise_backward(dy, x, w, out=None):
    """dx (N, H, W, C) by equation (2) and dw (C, F) by (3), for dy (N, H, W, F). Raises like forward."""
    x, w = _arguments(x, w)
    dy = _check.tensor("dy", dy, (*x.shape[:3], w.shape[1]), x.dtype)
    out = _check.output("out", out, x.shape, x.dtype)
    _check.apart(out, x=x, w=w, dy=dy)
    dw = np.zeros(w.shape, x.dtype)
    if x.size:
        none = empty_pack(x.dtype)
        parts = parts_of(x.size // len(w), LEAST)
        partial = np.empty((parts, *w.shape), x.dtype)
        sums = np.empty((0, 2, 0))
        unit_backward(dy, dy, none, none, IDENTITY, x, none, IDENTITY, w, out, x[:0], dw, sums, partial)
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
