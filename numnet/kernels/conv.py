"""Standard convolution: every output channel sees every input channel; in the papers' MobileNets, the stem alone.

(1)  y[n, p, q, f]  = Σ_uvc x[n, p·s + u − top, q·s + v − left, c] · w[u, v, c, f]         forward
(2)  dx[n, p·s + u − top, q·s + v − left, c] += Σ_f dy[n, p, q, f] · w[u, v, c, f]          for every p, q, u, v
(3)  dw[u, v, c, f] = Σ_npq x[n, p·s + u − top, q·s + v − left, c] · dy[n, p, q, f]

with x = 0 outside the image (Howard et al. 2017, equation 1). The K·K·C numbers that one output pixel sees are its
*patch*. With the patches of some output rows gathered into a tile X̃ (pixels × K·K·C), all three are products of
matrices, as on the pointwise page:

    Y = X̃ W        dX̃ = dY Wᵀ, scattered back and added where patches overlap        dW = X̃ᵀ dY

The tile stays in the second-level cache; the whole matrix of patches (im2col), K·K times the input, never exists. In
NHWC the K·C numbers of one kernel row lie side by side in the image, so gathering copies K stretches a pixel. Patches
of two tiles may overlap in an image: a part therefore owns whole images, and no two threads add to the same dx. A raw
image (see the pack on the batch norm page) is finished once, before its first patch is gathered.

Multiplications: exactly K·K·C·F·N·P·Q in each product; taps on the padding multiply a gathered 0.
Not supported: dilation, groups (depthwise has its own page), different strides along H and W.
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
    normalise_activate,
    parts_of,
    unit_gradient,
)
from numnet.kernels.padding import output_side, resolve
from numnet.kernels.pointwise import sum_parts
from numnet.kernels.product import multiply_many, multiply_transposed
from numnet.kernels.rows import add, copy, repeated, row_length, share, zero

CACHE = 65536  # numbers of patches and outputs in a tile: 256 KiB of float32
# Pixels of a tile where these are more. BLAS packs a large w anew for each tile; in training twice as many pixels a tile
# as in inference, which cuts single images, made forward of 96 → 96 at 8×8 1.34 times, 256 → 256 at 4×4 1.27 times as fast.
TRAINING, INFERENCE = 256, 128


@row
def rows_of_tile(patch, filters, columns, rows, least):
    """Output rows a tile holds: as many as fit CACHE; at least one, and ``least`` pixels where there are so many."""
    pixels = max(CACHE // (patch + filters), least)
    return min(max(pixels // columns, 1), rows)


@row
def stretch(column, taps, width):
    """Taps lo … hi − 1 of a kernel row that starts at this image column fall inside the image."""
    return min(max(-column, 0), taps), max(min(width - column, taps), 0)


@row
def gather_row(image, top, left, stride, channels, patches):
    """The patches (Q, K, K·C) of one output row. ``image`` (H, W·C); its first tap lies at (top, left)."""
    height, size = image.shape
    width = size // channels
    taps = patches.shape[2] // channels
    for q in range(patches.shape[0]):
        column = left + q * stride
        lo, hi = stretch(column, taps, width)
        for u in range(patches.shape[1]):
            patch = patches[q, u]
            if top + u < 0 or top + u >= height or lo >= hi:
                zero(patch)
            else:
                zero(patch[: lo * channels])
                line = image[top + u]
                copy(
                    line[(column + lo) * channels : (column + hi) * channels],
                    patch[lo * channels : hi * channels],
                )
                zero(patch[hi * channels :])


@row
def scatter_row(patches, top, left, stride, channels, image):
    """The way back: each patch of one output row is added to the pixels it was gathered from."""
    height, size = image.shape
    width = size // channels
    taps = patches.shape[2] // channels
    for q in range(patches.shape[0]):
        column = left + q * stride
        lo, hi = stretch(column, taps, width)
        for u in range(patches.shape[1]):
            if 0 <= top + u < height and lo < hi:
                line = image[top + u]
                add(
                    line[(column + lo) * channels : (column + hi) * channels],
                    patches[q, u, lo * channels : hi * channels],
                )


@row
def gather_tile(x, pack, code, finished, first, lo, hi, rows, top, left, stride, channels, patches):
    """The patches (hi − lo, Q, K, K·C) of output rows lo … hi − 1, ``rows`` an image, counted from image ``first`` of x.

    A raw image is finished, in scratch, when its first row is asked for; one after another, rows of a tile leave none out.
    """
    for r in range(lo, hi):
        image = x[first + r // rows]
        if pack.size:
            if r % rows == 0:
                normalise_activate(image.reshape(-1), pack, code, finished.reshape(-1))
            image = finished
        gather_row(image, r % rows * stride - top, -left, stride, channels, patches[r - lo])


@row
def begin_image(dx, more):
    """What another reader of x makes of dx, or 0, for the patches to be added to."""
    if more.size:
        copy(more, dx)
    else:
        zero(dx)


@kernel
def _forward(x, x_pack, x_code, channels, w, side_u, stride, top, left, y, moments, parts):
    """(1). x (N, H, W·C), finished (x_pack empty) or raw with its pack (4, C); w (K·K·C, F); y (N, P, Q, F); moments
    (parts, 3, F), zero, or empty."""
    images, rows, columns, filters = y.shape
    patch = w.shape[0]
    step = rows_of_tile(patch, filters, columns, images * rows, TRAINING)
    pack = repeated(x_pack, row_length(channels) if x_pack.size else 0)
    for part in prange(parts):  # each part writes its own images of y and its own moments
        first, last = share(part, parts, images)
        patches = np.empty((step * columns, patch), x.dtype)
        finished = np.empty(x.shape[1:] if pack.size else (0, 0), x.dtype)
        flat = y[first:last].reshape(-1, filters)
        for lo in range(0, (last - first) * rows, step):
            hi = min(lo + step, (last - first) * rows)
            tile = patches[: (hi - lo) * columns]
            places = tile.reshape(hi - lo, columns, side_u, patch // side_u)
            gather_tile(x, pack, x_code, finished, first, lo, hi, rows, top, left, stride, channels, places)
            out = flat[lo * columns : hi * columns]
            multiply_many(tile, w, out)  # (1)
            if moments.size:
                add_moments(out.reshape(-1), filters, moments[part])


@kernel
def _inference(x, channels, w, side_u, stride, top, left, folded, code, skip, y):
    """(1), batch norm, activation and addition in the tile: folded (2, F) = scale and shift; skip (N·P·Q, F) or empty."""
    images, rows, columns, filters = y.shape
    patch = w.shape[0]
    step = rows_of_tile(patch, filters, columns, images * rows, INFERENCE)
    long = repeated(folded, row_length(filters))
    flat, none = y.reshape(-1, filters), np.empty((0, 0), x.dtype)
    for tile in prange((images * rows + step - 1) // step):  # each tile writes its own rows of y
        lo, hi = tile * step, min((tile + 1) * step, images * rows)
        patches = np.empty(((hi - lo) * columns, patch), x.dtype)
        places = patches.reshape(hi - lo, columns, side_u, patch // side_u)
        gather_tile(x, none, IDENTITY, none, 0, lo, hi, rows, top, left, stride, channels, places)
        out = flat[lo * columns : hi * columns]
        multiply_many(patches, w, out)
        more = skip[lo * columns : hi * columns] if skip.size else skip
        finish(out.reshape(-1), long, code, more.reshape(-1))


@kernel
def _backward(
    dy,
    y,
    y_pack,
    means,
    y_code,
    x,
    x_pack,
    x_code,
    channels,
    w,
    side_u,
    stride,
    top,
    left,
    dx,
    more,
    dw,
    x_sums,
):
    """(2) and (3). dw (parts, K·K·C, F); dx (N, H, W·C) or empty; the others as on the pointwise page.

    dx begins as ``more`` where that has a size: what another reader of x makes of it costs no pass of its own.
    """
    images, rows, columns, filters = dy.shape
    patch = w.shape[0]
    step = rows_of_tile(patch, filters, columns, images * rows, TRAINING)
    pack = repeated(x_pack, row_length(channels) if x_pack.size else 0)
    pack_y = repeated(y_pack, row_length(filters) if y_pack.size else 0)
    means_y = repeated(means, row_length(filters) if y_pack.size else 0)
    for part in prange(dw.shape[0]):  # each part writes its own images of dx and its own dw
        first, last = share(part, dw.shape[0], images)
        patches = np.empty((step * columns, patch), x.dtype)
        finished = np.empty(x.shape[1:] if pack.size else (0, 0), x.dtype)
        raw = np.empty((step * columns if pack_y.size else 0, filters), x.dtype)
        flat_dy, flat_y = dy[first:last].reshape(-1, filters), y[first:last].reshape(-1, filters)
        for lo in range(0, (last - first) * rows, step):
            hi = min(lo + step, (last - first) * rows)
            tile = patches[: (hi - lo) * columns]
            places = tile.reshape(hi - lo, columns, side_u, patch // side_u)
            gather_tile(x, pack, x_code, finished, first, lo, hi, rows, top, left, stride, channels, places)
            d = flat_dy[lo * columns : hi * columns]
            if pack_y.size:
                d = raw[: (hi - lo) * columns]
                here = flat_y[lo * columns : hi * columns]
                unit_gradient(
                    flat_dy[lo * columns : hi * columns].reshape(-1),
                    here.reshape(-1),
                    pack_y,
                    means_y,
                    y_code,
                    d.reshape(-1),
                )
            multiply_transposed(tile, d, dw[part], lo > 0)  # (3)
            if dx.size:
                np.dot(d, w.T, tile)  # (2), over the patches, which are used up
                for r in range(lo, hi):
                    n = first + r // rows
                    if r % rows == 0:
                        begin_image(dx[n].reshape(-1), more[n].reshape(-1) if more.size else more.reshape(-1))
                    scatter_row(places[r - lo], r % rows * stride - top, -left, stride, channels, dx[n])
                    # With its last row an image's dx is whole, and still in the cache.
                    if x_sums.size and r % rows == rows - 1:
                        add_gradient_sums(dx[n].reshape(-1), x[n].reshape(-1), pack, x_code, x_sums[part])


# ------------------------------------------------------------------------------------ used by conv–BN–activation units


def unit_forward(x, x_pack, x_code, w, stride, pads, y, moments):
    """y (N, P, Q, F) from x (N, H, W, C), raw or finished, and w (K, K, C, F); ``moments`` as for pointwise. No checks."""
    images, height = x.shape[:2]
    with one_thread():
        _forward(
            x.reshape(images, height, -1),
            x_pack,
            x_code,
            x.shape[3],
            w.reshape(-1, w.shape[3]),
            w.shape[0],
            stride,
            pads[0][0],
            pads[1][0],
            y,
            moments,
            moments.shape[0] or parts_of(images),
        )


def unit_backward(
    dy, y, y_pack, means, y_code, x, x_pack, x_code, w, stride, pads, dx, more, dw, x_sums, partial
):
    """dw (K, K, C, F), and where dx has a size dx, plus ``more`` where that has one, and x_sums. No checks.

    ``partial`` (parts, K·K·C, F) is scratch.
    """
    images, height = x.shape[:2]
    with one_thread():
        _backward(
            dy,
            y,
            y_pack,
            means,
            y_code,
            x.reshape(images, height, -1),
            x_pack,
            x_code,
            x.shape[3],
            w.reshape(-1, w.shape[3]),
            w.shape[0],
            stride,
            pads[0][0],
            pads[1][0],
            _lines(dx),
            _lines(more),
            partial,
            x_sums,
        )
        sum_parts(partial.reshape(len(partial), -1), dw.reshape(-1))


def _lines(x):
    """A map (N, H, W, C) as (N, H, W·C), or the same number of dimensions of nothing."""
    return x.reshape(*x.shape[:2], -1) if x.size else x.reshape(0, 0, 0)


def unit_inference(x, w, folded, code, stride, pads, skip, y):
    """y (N, P, Q, F) = activation(conv(x) · scale + shift), plus ``skip`` (N·P·Q, F) where it has a size.

    No checks, and SciPy's BLAS is held by the caller.
    """
    lines, matrix = x.reshape(x.shape[0], x.shape[1], -1), w.reshape(-1, w.shape[3])
    _inference(lines, x.shape[3], matrix, w.shape[0], stride, pads[0][0], pads[1][0], folded, code, skip, y)


# ---------------------------------------------------------------------------------------------- public


def conv_forward(x, w, stride=1, padding="same", out=None):
    """y (N, P, Q, F) for x (N, H, W, C) and w (K, K, C, F), equation (1).

    stride ≥ 1; padding: see the padding page. float32 or float64, C-contiguous; N may be 0. Raises ValueError naming
    the argument that is wrong.
    """
    x, w, stride, pads, shape = _arguments(x, w, stride, padding)
    out = _check.output("out", out, shape, x.dtype)
    _check.apart(out, x=x, w=w)
    if out.size:
        unit_forward(x, empty_pack(x.dtype), IDENTITY, w, stride, pads, out, np.empty((0, 3, 0)))
    return out


def conv_backward(dy, x, w, stride=1, padding="same", out=None):
    """dx (N, H, W, C) by (2) and dw (K, K, C, F) by (3), for dy (N, P, Q, F). Raises like forward."""
    x, w, stride, pads, shape = _arguments(x, w, stride, padding)
    dy = _check.tensor("dy", dy, shape, x.dtype)
    out = _check.output("out", out, x.shape, x.dtype)
    _check.apart(out, x=x, w=w, dy=dy)
    dw = np.zeros(w.shape, x.dtype)
    if out.size and dy.size:
        none = empty_pack(x.dtype)
        partial = np.empty((parts_of(len(x)), dw.size // dw.shape[3], dw.shape[3]), x.dtype)
        ends = dy, dy, none, none, IDENTITY, x, none, IDENTITY
        unit_backward(*ends, w, stride, pads, out, out[:0], dw, np.zeros((0, 2, 0)), partial)
    return out, dw


def _arguments(x, w, stride, padding):
    x = _check.tensor("x", x, (None, None, None, None))
    _check.positive("x: channels", x.shape[3])
    w = _check.tensor("w", w, (None, None, x.shape[3], None), x.dtype)
    _check.positive("w: kernel side and filters", min(w.shape))
    stride = _check.positive("stride", stride)
    pads = resolve(padding, x.shape[1:3], w.shape[:2], stride)
    sides = [output_side(n, k, stride, *pad) for n, k, pad in zip(x.shape[1:3], w.shape[:2], pads)]
    return x, w, stride, pads, (x.shape[0], *sides, w.shape[3])


def conv_cost(n: int, p: int, q: int, k: int, c: int, f: int, *, h: int, w: int) -> Cost:
    """K²·C·F·N·P·Q MACs in each product (Howard et al. 2017, equation 2), from an H×W input to a P×Q output."""
    macs = n * p * q * k * k * c * f
    return Cost(macs, macs, macs, params=k * k * c * f, inputs=n * h * w * c, outputs=n * p * q * f)
