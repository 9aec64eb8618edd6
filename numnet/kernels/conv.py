"""Standard convolution: every output channel sees every input channel; in MobileNetV1 to V3, the stem alone.

(1)  y[n, p, q, f]  = Σ_uvc x[n, i, j, c] · w[u, v, c, f]          forward,  i = p·s + u − top,  j = q·s + v − left
(2)  dx[n, i, j, c] = Σ_uvf dy[n, p, q, f] · w[u, v, c, f]         over the p, q, u, v that reach i, j
(3)  dw[u, v, c, f] = Σ_npq x[n, i, j, c] · dy[n, p, q, f]

with x = 0 outside the image (Howard et al. 2017, equation 1). The K·K·C numbers that one output pixel sees are its
*patch*. With the patches of some output rows gathered into a tile X̃ (pixels × K·K·C), all three are products of
matrices, as on the product page:

    Y = X̃ W        dX̃ = dY Wᵀ, scattered back and added where patches overlap        dW = X̃ᵀ dY

The tile stays in the second-level cache. The whole matrix of patches (im2col), K·K times the input, never exists. In
NHWC the K·C numbers of one kernel row lie side by side in the image: they are copied together, K times a pixel. Patches of
two tiles may overlap in an image. A part therefore owns whole images, and no two threads add to the same dx. A raw image
(see the pack on the batch norm page) is finished once, before its first patch is gathered.

MACs: K·K·C·F·N·P·Q in each product; taps on the padding multiply a gathered 0.
Not supported: dilation, groups (depthwise has its own page), different strides along H and W.
"""

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._cost import Cost
from numnet.kernels._jit import kernel, row
from numnet.kernels.batchnorm import (
    add_gradient_sums,
    normalise_activate,
    source_of,
    unit_gradient,
    upstream_of,
)
from numnet.kernels.folding import pack_scaled
from numnet.kernels.maps import Window, parts_of, share, vectors_of
from numnet.kernels.moments import add_moments
from numnet.kernels.padding import output_side, resolve
from numnet.kernels.pointwise import padded, sum_parts
from numnet.kernels.product import (
    NEW,
    Ending,
    Packed,
    Strided,
    multiply,
    multiply_all,
    pack,
    pack_turned,
    packed_size,
)
from numnet.kernels.rows import add, copy, line_up, lines, zero_row
from numnet.kernels.vectors import lanes, load, store, width

CACHE = 65536  # numbers of patches and outputs in a tile: 256 KiB of float32
# Pixels of a tile at least, where there are so many: every tile reads all weights, so a very low one is not worth its loads.
TRAINING, INFERENCE = 256, 48


# ---------------------------------------------------------------------------------------------- the definition


@kernel(parallel=False)
def _definition(x, w, window, y):
    for n in range(y.shape[0]):
        for p in range(y.shape[1]):
            for q in range(y.shape[2]):
                for u in range(w.shape[0]):
                    for v in range(w.shape[1]):
                        i, j = p * window.stride + u - window.top, q * window.stride + v - window.left
                        if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
                            for c in range(w.shape[2]):
                                for f in range(w.shape[3]):
                                    y[n, p, q, f] += x[n, i, j, c] * w[u, v, c, f]  # (1)


@kernel(parallel=False)
def _definition_dx(dy, w, window, dx):
    for n in range(dy.shape[0]):
        for p in range(dy.shape[1]):
            for q in range(dy.shape[2]):
                for u in range(w.shape[0]):
                    for v in range(w.shape[1]):
                        i, j = p * window.stride + u - window.top, q * window.stride + v - window.left
                        if 0 <= i < dx.shape[1] and 0 <= j < dx.shape[2]:
                            for c in range(w.shape[2]):
                                for f in range(w.shape[3]):
                                    dx[n, i, j, c] += dy[n, p, q, f] * w[u, v, c, f]  # (2)


@kernel(parallel=False)
def _definition_dw(dy, x, window, dw):
    for n in range(dy.shape[0]):
        for p in range(dy.shape[1]):
            for q in range(dy.shape[2]):
                for u in range(dw.shape[0]):
                    for v in range(dw.shape[1]):
                        i, j = p * window.stride + u - window.top, q * window.stride + v - window.left
                        if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
                            for c in range(dw.shape[2]):
                                for f in range(dw.shape[3]):
                                    dw[u, v, c, f] += x[n, i, j, c] * dy[n, p, q, f]  # (3)


def definition(x, w, stride=1, padding="same"):
    """y (N, P, Q, F) by (1), for x (N, H, W, C) and w (K, K, C, F): plain loops, exact and slow. Raises like forward."""
    x, w, window, shape = _arguments(x, w, stride, padding)
    y = np.zeros(shape, x.dtype)
    _definition(x, w, window, y)
    return y


def definition_backward(dy, x, w, stride=1, padding="same"):
    """dx (N, H, W, C) by (2) and dw (K, K, C, F) by (3), for dy (N, P, Q, F). Raises like forward."""
    x, w, window, shape = _arguments(x, w, stride, padding)
    dy = _check.tensor("dy", dy, shape, x.dtype)
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    _definition_dx(dy, w, window, dx)
    _definition_dw(dy, x, window, dw)
    return dx, dw


# ---------------------------------------------------------------------------------------------- row functions


@row
def tile_rows(patch, filters, columns, rows, least):
    """Output rows a tile holds: as many as fit CACHE; at least one, and ``least`` pixels where there are so many."""
    pixels = max(CACHE // (patch + filters), least)
    return min(max(pixels // columns, 1), rows)


@row
def inside(column, taps, width):
    """(lo, hi): the taps lo … hi − 1 of a kernel row that starts at this image column are those inside the image."""
    return min(max(-column, 0), taps), max(min(width - column, taps), 0)


@row
def gather_row(image, p, window, channels, patches):
    """The patches (Q, K, K·C) of output row p, flat. ``image`` (H, W·C).

    Inside the image a kernel row is copied by vectors, the last one overlapping; at its borders number by number.
    """
    # line: numbers of a kernel row; taps: how many kernel rows
    height, width_, line = image.shape[0], image.shape[1] // channels, window.side * channels
    taps, flat, top = patches.shape[1], patches.reshape(-1), p * window.stride - window.top
    x, v = image.reshape(-1), window.lanes
    for q in range(patches.shape[0]):
        column = q * window.stride - window.left
        lo, hi = inside(column, window.side, width_)
        for u in range(taps):
            to, at = (q * taps + u) * line, (top + u) * image.shape[1] + column * channels
            if top + u < 0 or top + u >= height or lo >= hi:
                zero_row(flat[to : to + line])
            elif lo == 0 and hi == window.side:
                end, i = line - width(v), 0
                while i < end:
                    store(flat, to + i, load(x, at + i, v))
                    i += width(v)
                store(flat, to + end, load(x, at + end, v))
            else:
                zero_row(flat[to : to + line])
                first, last = lo * channels, hi * channels
                copy(x[at + first : at + last], flat[to + first : to + last])


@row
def scatter_row(patches, p, window, channels, image):
    """The way back: each patch of output row p is added to the pixels it was gathered from."""
    height, width = image.shape[0], image.shape[1] // channels
    top = p * window.stride - window.top
    for q in range(patches.shape[0]):
        column = q * window.stride - window.left
        lo, hi = inside(column, window.side, width)
        for u in range(patches.shape[1]):
            if 0 <= top + u < height and lo < hi:
                line, start = image[top + u], column * channels
                first, last = lo * channels, hi * channels
                add(line[start + first : start + last], patches[q, u, first:last])


@row
def gather_tile(images, source, finished, rows, span, window, patches):
    """The patches (rows of the tile, Q, K, K·C) of output rows lo … hi − 1 = span, ``rows`` of them an image.

    images (N, H, W·C). A raw image is finished into the scratch ``finished`` when its first row is asked for. The caller asks
    for one row after another and skips none, so the later rows of the image find it there.
    """
    channels = patches.shape[3] // window.side
    for r in range(span[0], span[1]):
        image = images[r // rows]
        if source.pack.size:
            if r % rows == 0:
                normalise_activate(image.reshape(-1), source, finished.reshape(-1))
            image = finished
        gather_row(image, r % rows, window, channels, patches[r - span[0]])


# ---------------------------------------------------------------------------------------------- passes
# source.raw, dx and more (N, H, W, C), in the passes as rows (N, H, W·C); y and dy (N, P, Q, F); w (K·K·C, F).


@kernel
def _forward(source, w, window, y, moments, parts, v):
    """(1). moments (parts, 3, F), zero, or empty; v: the lanes of F."""
    x, (images, rows, columns, filters), patch = lines(source.raw), y.shape, w.shape[0]
    line = window.side * source.raw.shape[3]  # numbers of a row of a patch
    step = tile_rows(patch, filters, columns, images * rows, TRAINING)
    b = Packed(line_up(packed_size(patch, filters, v), x), patch, filters, v)
    pack(w.reshape(-1), patch, filters, b.values, v)
    for part in prange(parts):  # each part writes its own images of y and its own moments
        first, last = share(part, parts, images)
        patches = line_up(step * columns * patch, x)
        finished = np.empty(x.shape[1:] if source.pack.size else (0, 0), x.dtype)
        out = y[first:last].reshape(-1)
        for lo in range(0, (last - first) * rows, step):
            hi = min(lo + step, (last - first) * rows)
            places = patches[: (hi - lo) * columns * patch].reshape(hi - lo, columns, patch // line, line)
            gather_tile(x[first:last], source, finished, rows, (lo, hi), window, places)
            at, pixels = lo * columns * filters, (hi - lo) * columns
            multiply_all(Strided(patches, 0, patch, 1), pixels, b, Strided(out, at, filters, 1), NEW)  # (1)
            if moments.size:
                add_moments(out[at : at + pixels * filters], moments[part], v)


@kernel
def _backward(upstream, source, w, window, dx, more, dw, x_sums):
    """(2) and (3). dw (parts, K·K·C, padded F); dx or empty; x_sums (parts, 2, C), zero, or empty.

    dx begins as ``more`` where that has a size: what another reader of x makes of it costs no pass of its own.
    """
    x, (images, rows, columns, filters), patch = lines(source.raw), upstream.dy.shape, w.shape[0]
    dxs, mores, line = lines(dx), lines(more), window.side * source.raw.shape[3]
    vp, vf, step = window.lanes, upstream.lanes, tile_rows(patch, filters, columns, images * rows, TRAINING)
    back = Packed(line_up(packed_size(filters, patch, vp) if dx.size else 0, x), filters, patch, vp)
    if dx.size:
        pack_turned(w.reshape(-1), filters, patch, back.values, vp)
    for part in prange(dw.shape[0]):  # each part writes its own images of dx and its own dw
        first, last = share(part, dw.shape[0], images)
        patches = line_up(step * columns * patch, x)
        panels = line_up(packed_size(step * columns, filters, vf), x)
        finished = np.empty(x.shape[1:] if source.pack.size else (0, 0), x.dtype)
        raw = line_up(step * columns * filters if upstream.pack.size else 0, x)
        mine = Strided(dw[part].reshape(-1), 0, dw.shape[2], 1)
        dys, ys = upstream.dy[first:last].reshape(-1), upstream.raw[first:last].reshape(-1)
        for lo in range(0, (last - first) * rows, step):
            hi = min(lo + step, (last - first) * rows)
            at, pixels = lo * columns * filters, (hi - lo) * columns
            places = patches[: pixels * patch].reshape(hi - lo, columns, patch // line, line)
            gather_tile(x[first:last], source, finished, rows, (lo, hi), window, places)
            d = dys[at : at + pixels * filters]
            if upstream.pack.size:
                unit_gradient(d, ys[at : at + pixels * filters], upstream, raw)
                d = raw
            pack(d, pixels, filters, panels, vf)
            b = Packed(panels, pixels, dw.shape[2], vf)
            multiply_all(Strided(patches, 0, 1, patch), patch, b, mine, lo > 0)  # (3)
            if dx.size:  # (2), over the patches, which are used up
                multiply_all(Strided(d, 0, filters, 1), pixels, back, Strided(patches, 0, patch, 1), NEW)
                scatter_tile(places, (lo, hi), rows, window, dxs[first:last], mores[first:last])
                if x_sums.size:
                    for r in range(lo, hi):
                        if r % rows == rows - 1:  # with its last row an image's dx is whole, and in the cache
                            n = first + r // rows
                            add_gradient_sums(dxs[n].reshape(-1), x[n].reshape(-1), source, x_sums[part])


@row
def scatter_tile(patches, span, rows, window, dx, more):
    """Output rows lo … hi − 1 = span of patches are added to dx, whose images begin as ``more`` or 0."""
    channels = patches.shape[3] // window.side
    for r in range(span[0], span[1]):
        n = r // rows
        if r % rows == 0:
            if more.size:
                copy(more[n].reshape(-1), dx[n].reshape(-1))
            else:
                zero_row(dx[n].reshape(-1))
        scatter_row(patches[r - span[0]], r % rows, window, channels, dx[n])


@kernel
def _inference(source, folded, window, ending, y, room, v):
    """activation((1) · scale + shift) + skip. room: scratch for the packed weights."""
    x, (images, rows, columns, filters), patch = lines(source.raw), y.shape, folded.w.size // y.shape[3]
    line, b = window.side * source.raw.shape[3], Packed(room, patch, filters, v)
    pack_scaled(folded.w, folded.scale, b, (0, vectors_of(filters, v)))
    # Patches count four times, so tiles are low, and the product finds its patches in a near cache: the stem at 224×224 takes
    # 4.6 ms for 16 images so, and 5.3 if they count once (two cores of a Zen 4).
    step, flat = tile_rows(4 * patch, filters, columns, images * rows, INFERENCE), y.reshape(-1)
    none = np.empty((0, 0), x.dtype)
    for tile in prange((images * rows + step - 1) // step):  # each tile writes its own rows of y
        lo, hi = tile * step, min((tile + 1) * step, images * rows)
        patches = line_up((hi - lo) * columns * patch, x)
        places = patches.reshape(hi - lo, columns, patch // line, line)
        gather_tile(x, source, none, rows, (lo, hi), window, places)
        a, out = Strided(patches, 0, patch, 1), Strided(flat, lo * columns * filters, filters, 1)
        multiply(a, (hi - lo) * columns, b, out, (0, vectors_of(filters, b.lanes)), ending, NEW)


# ------------------------------------------------------------------------------------ used by conv–BN–activation units


def with_lanes(window, source):
    """The window with the lanes of a row of it, K·C numbers."""
    x = source.raw
    return window._replace(lanes=lanes(window.side * x.shape[3], x.dtype))


def unit_forward(source, w, window, y, moments):
    """y (N, P, Q, F) from the source x (N, H, W, C) and w (K, K, C, F); ``moments`` as for pointwise. No checks."""
    parts, v = len(moments) or parts_of(len(y)), lanes(w.shape[3], w.dtype)
    _forward(source, w.reshape(-1, w.shape[3]), with_lanes(window, source), y, moments, parts, v)


def unit_backward(upstream, source, w, window, dx, more, x_sums, partial):
    """The parts' dw into ``partial`` (parts, K·K·C, padded F), and the gradient of x into dx. No checks.

    Each of these may be empty, and is then left out: dx; ``more``, which is added to dx; x_sums, the sums of dx (page
    ``batchnorm``).
    """
    _backward(
        upstream, source, w.reshape(-1, w.shape[3]), with_lanes(window, source), dx, more, partial, x_sums
    )


def inference_step(source, folded, window, code, skip, y, room):
    """The kernel and its arguments for y (N, P, Q, F) = activation(conv(x) · scale + shift) + skip, flat or empty. No checks.

    room: scratch for the packed weights, ``pointwise.room_of`` numbers.
    """
    ending, v = Ending(folded.shift, code, skip), lanes(y.shape[3], y.dtype)
    return _inference, (source, folded, with_lanes(window, source), ending, y, room, v)


# ---------------------------------------------------------------------------------------------- public


def conv_forward(x, w, stride=1, padding="same", out=None):
    """y (N, P, Q, F) for x (N, H, W, C) and w (K, K, C, F), equation (1).

    stride ≥ 1; padding: see the padding page. float32 or float64, C-contiguous; N may be 0. Raises ValueError naming
    the argument that is wrong.
    """
    x, w, window, shape = _arguments(x, w, stride, padding)
    out = _check.output("out", out, shape, x.dtype)
    _check.apart(out, x=x, w=w)
    if out.size:
        unit_forward(source_of(x), w, window, out, np.empty((0, 3, 0)))
    return out


def conv_backward(dy, x, w, stride=1, padding="same", out=None):
    """dx (N, H, W, C) by (2) and dw (K, K, C, F) by (3), for dy (N, P, Q, F). Raises like forward."""
    x, w, window, shape = _arguments(x, w, stride, padding)
    dy = _check.tensor("dy", dy, shape, x.dtype)
    out = _check.output("out", out, x.shape, x.dtype)
    _check.apart(out, x=x, w=w, dy=dy)
    dw = np.zeros(w.shape, x.dtype)
    if out.size:
        filters = w.shape[3]
        partial = np.empty((parts_of(len(x)), dw.size // filters, padded(filters, x.dtype)), x.dtype)
        unit_backward(upstream_of(dy), source_of(x), w, window, out, out[:0], np.zeros((0, 2, 0)), partial)
        sum_parts(partial, dw)
    return out, dw


def _arguments(x, w, stride, padding):
    x = _check.tensor("x", x, (None, None, None, None))
    _check.positive("x: channels", x.shape[3])
    w = _check.tensor("w", w, (None, None, x.shape[3], None), x.dtype)
    _check.positive("w: kernel side and filters", min(w.shape))
    stride = _check.positive("stride", stride)
    pads = resolve(padding, x.shape[1:3], w.shape[:2], stride)
    sides = [output_side(n, k, stride, *pad) for n, k, pad in zip(x.shape[1:3], w.shape[:2], pads)]
    window = Window(w.shape[1], stride, pads[0][0], pads[1][0])
    return x, w, window, (x.shape[0], *sides, w.shape[3])


def conv_cost(n: int, p: int, q: int, k: int, c: int, f: int, *, h: int, w: int) -> Cost:
    """K²·C·F·N·P·Q MACs in each product (Howard et al. 2017, equation 2), from an H×W input to a P×Q output."""
    macs = n * p * q * k * k * c * f
    return Cost(macs, macs, macs, params=k * k * c * f, inputs=n * h * w * c, outputs=n * p * q * f)
