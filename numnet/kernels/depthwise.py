"""Depthwise convolution: one K×K filter a channel; most of the bytes a MobileNet moves, 3 % of its multiplications.

Output channel o = c·M + m comes from input channel c alone (Howard et al. 2017, equation 3; M, the depth multiplier,
is 1 in every MobileNet). With x = 0 outside the image, and i = p·s + u − top, j = q·s + v − left:

(1)  y[p, q, o]   = Σ_uv x[i, j, c] · w[u, v, o]                       forward
(2)  dx[i, j, c]  = Σ_uvm dy[p, q, o] · w[u, v, o]                     over the (p, q) that reach (i, j) by tap (u, v)
(3)  dw[u, v, o]  = Σ_npq x[i, j, c] · dy[p, q, o]

x (N, H, W, C), w (K, K, C, M), y and dy (N, P, Q, C·M). Not supported: dilation, different strides along H and W.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._cost import Cost
from numnet.kernels._jit import kernel, row
from numnet.kernels.activations import IDENTITY, activate_rows
from numnet.kernels.batchnorm import (
    add_gradient_sums,
    add_moments,
    empty_pack,
    normalise_activate,
    parts_of,
    unit_gradient,
)
from numnet.kernels.maps import Source, Upstream, Window, share
from numnet.kernels.padding import output_side, resolve
from numnet.kernels.rows import add, copy, line_up, zero_row
from numnet.kernels.vectors import add_products, lanes, load, load_tile, store_tile, width, zeros

# ---------------------------------------------------------------------------------------------- the definition


@kernel(parallel=False)
def _y(x, w, y, window):
    for n, p, q, u, v, c, m in np.ndindex(*y.shape[:3], *w.shape):
        i, j, o = p * window.stride + u - window.top, q * window.stride + v - window.left, c * w.shape[3] + m
        if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
            y[n, p, q, o] += x[n, i, j, c] * w[u, v, c, m]


@kernel(parallel=False)
def _dx(dx, w, dy, window):
    for n, p, q, u, v, c, m in np.ndindex(*dy.shape[:3], *w.shape):
        i, j, o = p * window.stride + u - window.top, q * window.stride + v - window.left, c * w.shape[3] + m
        if 0 <= i < dx.shape[1] and 0 <= j < dx.shape[2]:
            dx[n, i, j, c] += dy[n, p, q, o] * w[u, v, c, m]


@kernel(parallel=False)
def _dw(x, dw, dy, window):
    for n, p, q, u, v, c, m in np.ndindex(*dy.shape[:3], *dw.shape):
        i, j, o = p * window.stride + u - window.top, q * window.stride + v - window.left, c * dw.shape[3] + m
        if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
            dw[u, v, c, m] += x[n, i, j, c] * dy[n, p, q, o]


# ---------------------------------------------------------------------------------------------- row functions

HOT = (
    16384  # numbers of finished rows after which their sums are taken: 64 KiB of float32, still in the cache
)


class Line(NamedTuple):
    pixels: int
    taps: int
    channels: int
    read: int
    write: int
    lanes: np.integer


class Ring(NamedTuple):
    flat: np.ndarray
    slot: int
    at: np.ndarray
    next: np.ndarray
    spare: np.ndarray


@row
def convolve_pixels(tile, ring, at, taps, shift, line, y, q):
    n = width(line.lanes)
    for k in range((line.channels + n - 1) // n):
        c = min(k * n, line.channels - n)
        sums, t = load_tile(tile, shift, c, 0, (0,)), c
        for u in range(at.size):
            first = at[u] + q * line.read + c
            for place in range(first, first + line.taps * line.channels, line.channels):
                sums = add_products(sums, ring, place, line.read, (0,), load(taps, t, line.lanes))
                t += line.channels
        store_tile(sums, y, q * line.write + c, line.write, (0,))


@row
def convolve(ring, at, taps, shift, line, y):
    """(1) y[q] = shift + Σ_uv ring[at[u] + …] · taps[u, v] for the pixels of a line."""
    most = line.pixels // 4 * 4
    for q in range(0, most, 4):
        convolve_pixels(zeros(y, 4, 1, line.lanes), ring, at, taps, shift, line, y, q)
    for q in range(most, line.pixels):
        convolve_pixels(zeros(y, 1, 1, line.lanes), ring, at, taps, shift, line, y, q)


@row
def correlate_taps(tile, ring, starts, d, line, sums, places):
    step = len(places)
    tile = load_tile(tile, sums, 0, places[0], places[1])
    at = 0
    for q in range(0, line.pixels * line.channels, line.channels):
        tile = add_products(tile, ring, at, line.channels, starts, load(d, q, line.lanes))
        at += line.read
    store_tile(tile, sums, 0, places[0], places[1])


@row
def correlate(ring, d, line, sums):
    """(3) for one row of dy."""
    v, n, at, rows = line.lanes, width(line.lanes), ring.at, ring.at.size
    for k in range((line.channels + n - 1) // n):
        c = min(k * n, line.channels - n)
        flat, dc, own = ring.flat[c:], d[c:], sums[k * rows * line.taps * n :]
        if rows == 3 and line.taps == 3:
            correlate_taps(
                zeros(d, 3, 3, v), flat, (at[0], at[1], at[2]), dc, line, own, (3 * n, (0, n, 2 * n))
            )
        elif line.taps == 5:
            for u in range(0, rows - 1, 2):
                correlate_taps(
                    zeros(d, 5, 2, v), flat, (at[u], at[u + 1]), dc, line, own[u * n :], (rows * n, (0, n))
                )
            for u in range(rows // 2 * 2, rows):
                correlate_taps(zeros(d, 5, 1, v), flat, (at[u],), dc, line, own[u * n :], (rows * n, (0,)))
        else:
            for u in range(rows):
                for tap in range(line.taps):
                    place = flat[at[u] + tap * line.channels :]
                    correlate_taps(
                        zeros(d, 1, 1, v), place, (0,), dc, line, own[(tap * rows + u) * n :], (n, (0,))
                    )


@row
def flush(sums, side, n, dw):
    """dw (K·K, C·M) in float64 gains the sums, each channel from one vector only; they are zero then."""
    taps, channels = dw.shape
    rows = taps // side
    for k in range((channels + n - 1) // n):
        c = min(k * n, channels - n)
        for u in range(rows):
            for v in range(side):
                place = ((k * side + v) * rows + u) * n
                for lane in range(k * n - c, n):
                    dw[u * side + v, c + lane] += sums[place + lane]
    for i in range(sums.size):
        sums[i] = 0


@row
def ring_of(rows, pixels, channels, spare, like):
    slot = (pixels * channels + 15) // 16 * 16
    flat = line_up((rows + 1) * slot, like)
    zero_row(flat)
    return Ring(flat, slot, np.empty(rows, np.int64), np.zeros(1, np.int64), line_up(spare, like))


@row
def x_ring(rows, image, window, y_line, channels_in, channels):
    width_in = image.shape[1] // channels_in
    pixels = max(window.left + width_in, (y_line // channels - 1) * window.stride + window.side)
    return ring_of(rows, pixels, channels, image.shape[1] if channels > channels_in else 0, image)


@row
def slot_of(r, rows, inside):
    return r % rows if inside else rows


@row
def fill(ring, image, source, window, channels, p):
    """The rows of the image (H, W·C) that output row p sees, finished, and where they lie: ring.at."""
    rows, first = ring.at.size, p * window.stride
    for r in range(max(first, ring.next[0]), first + rows):
        i = r - window.top
        if 0 <= i < image.shape[0]:
            line = image[i]
            place = ring.flat[r % rows * ring.slot + window.left * channels :]
            out = ring.spare if ring.spare.size else place[: line.size]
            if source.pack.size:
                normalise_activate(line, source, out)
            else:
                copy(line, out)
            if ring.spare.size:
                multiplier = channels // source.raw.shape[3]
                for o in range(line.size * multiplier):
                    place[o] = out[o // multiplier]
    ring.next[0] = first + rows
    for u in range(rows):
        r = first + u
        inside = 0 <= r - window.top < image.shape[0]
        ring.at[u] = (r % rows if inside else rows) * ring.slot


@row
def convolve_row(ring, image, source, taps, shift, window, p, y):
    """(1) for row p of y."""
    channels = shift.size
    fill(ring, image, source, window, channels, p)
    line = Line(y.size // channels, window.side, channels, window.stride * channels, channels, source.lanes)
    convolve(ring.flat, ring.at, taps, shift, line, y)


@row
def meeting(side, stride, phase):
    """How many of the taps 0 … side − 1 are phase, phase + stride, …"""
    return max(side - phase + stride - 1, 0) // stride


@row
def dx_row(ring, rows, turned, shift, window, r, v, dx):
    """(2) for padded row r of x, from rows of dy in the ring."""
    channels, s, left = shift.size, window.stride, window.left
    side_u, pixels = turned.size // channels // window.side, dx.size // channels
    up = meeting(side_u, s, r % s)
    before = meeting(window.side, s, 0) - 1
    for k in range(up):
        p = r // s - up + 1 + k
        ring.at[k] = (p % ring.at.size if 0 <= p < rows else ring.at.size) * ring.slot
    first = 0
    for phase in range(r % s):
        first += meeting(side_u, s, phase) * window.side
    for phase in range(s):
        across = meeting(window.side, s, phase)
        lo = max(left - phase + s - 1, 0) // s
        hi = (left + pixels - 1 - phase) // s + 1
        if lo < hi:
            line = Line(hi - lo, across, channels, channels, s * channels, v)
            flat = ring.flat[(before + lo - across + 1) * channels :]
            convolve(
                flat,
                ring.at[:up],
                turned[first * channels :],
                shift,
                line,
                dx[(lo * s + phase - left) * channels :],
            )
        first += up * across


# ---------------------------------------------------------------------------------------------- passes
# Maps are rows here: source.raw (N, H, W·C), y (N, P, Q·C·M).


@kernel
def _forward(source, taps, shift, window, y, moments, parts):
    x, (images, rows, size) = source.raw, y.shape[:3]
    flat_y = y.reshape(-1)
    size = y.shape[2] * y.shape[3]
    channels = shift.size
    for part in prange(parts):  # each part writes its own images of y and its own moments
        ring = x_ring(
            taps.size // channels // window.side,
            x[0].reshape(x.shape[1], -1),
            window,
            size,
            x.shape[3],
            channels,
        )
        first, last = share(part, parts, images)
        counted = first * rows
        for n in range(first, last):
            ring.next[0] = 0
            image = x[n].reshape(x.shape[1], -1)
            for p in range(rows):
                here = n * rows + p
                convolve_row(
                    ring, image, source, taps, shift, window, p, flat_y[here * size : (here + 1) * size]
                )
                if moments.size and ((here + 1 - counted) * size >= HOT or here + 1 == last * rows):
                    add_moments(flat_y[counted * size : (here + 1) * size], moments[part], source.lanes)
                    counted = here + 1


@kernel
def _inference(source, taps, shift, code, window, y, band):
    x, (images, rows) = source.raw, y.shape[:2]
    size = y.shape[2] * y.shape[3]
    flat_y = y.reshape(-1)
    channels = shift.size
    bands = (rows + band - 1) // band
    for tile in prange(images * bands):  # each tile writes its own rows of y
        n, first = tile // bands, tile % bands * band
        ring = x_ring(
            taps.size // channels // window.side,
            x[0].reshape(x.shape[1], -1),
            window,
            size,
            x.shape[3],
            channels,
        )
        image = x[n].reshape(x.shape[1], -1)
        for p in range(first, min(first + band, rows)):
            line = flat_y[(n * rows + p) * size : (n * rows + p + 1) * size]
            convolve_row(ring, image, source, taps, shift, window, p, line)
            activate_rows(code, line, source.lanes)


@kernel
def _backward(upstream, source, turned, window, dx, more, dw, x_sums):
    """(2) and (3). dw (parts, K·K, C·M) float64, zero; dx and more like x, or empty."""
    x, (images, rows, columns, channels) = source.raw, upstream.dy.shape
    height, inputs, size = x.shape[1], x.shape[3], columns * channels
    flat_dy, flat_y, flat_x, flat_dx, flat_more = (
        upstream.dy.reshape(-1),
        upstream.raw.reshape(-1),
        x.reshape(-1),
        dx.reshape(-1),
        more.reshape(-1),
    )
    line_size = x.shape[2] * inputs
    s, v = window.stride, upstream.lanes
    n_v = width(v)
    taps = dw.shape[1]
    line = Line(columns, window.side, channels, s * channels, channels, v)
    multiplier = channels // inputs
    nothing = np.zeros(channels, x.dtype)
    before = (meeting(window.side, s, 0) - 1) * channels
    for part in prange(dw.shape[0]):  # each part writes its own images of dx, its own dw and its own sums
        ring = x_ring(taps // window.side, x[0].reshape(height, -1), window, size, inputs, channels)
        pixels = max(columns, (window.left + x.shape[2] - 1) // s + 1)
        dring = ring_of(
            meeting(taps // window.side, s, 0),
            pixels + before // channels,
            channels,
            x.shape[2] * channels if multiplier > 1 else 0,
            x,
        )
        sums = line_up((channels + n_v - 1) // n_v * n_v * taps, x)
        zero_row(sums)
        first, last = share(part, dw.shape[0], images)
        counted, summed = first * rows, first * height
        for n in range(first, last):
            ring.next[0] = 0
            image = x[n].reshape(height, -1)
            written = window.top
            for p in range(rows):
                here = n * rows + p
                fill(ring, image, source, window, channels, p)
                d = dring.flat[p % dring.at.size * dring.slot + before :][:size]
                if upstream.pack.size:
                    unit_gradient(
                        flat_dy[here * size : (here + 1) * size],
                        flat_y[here * size : (here + 1) * size],
                        upstream,
                        d,
                    )
                else:
                    copy(flat_dy[here * size : (here + 1) * size], d)
                correlate(ring, d, line, sums)
                if (here + 1 - counted) * size >= HOT or here + 1 == last * rows:
                    flush(sums, window.side, n_v, dw[part])
                    counted = here + 1
                done = min((p + 1) * s, window.top + height) if p + 1 < rows else window.top + height
                while dx.size and written < done:
                    at = n * height + written - window.top
                    out = flat_dx[at * line_size : (at + 1) * line_size]
                    if multiplier == 1:
                        dx_row(dring, rows, turned, nothing, window, written, v, out)
                    else:
                        dx_row(dring, rows, turned, nothing, window, written, v, dring.spare)
                        for i in range(line_size):
                            total = dring.spare[i * multiplier]
                            for m in range(1, multiplier):
                                total += dring.spare[i * multiplier + m]
                            out[i] = total
                    if more.size:
                        add(out, flat_more[at * line_size : (at + 1) * line_size])
                    if x_sums.size and ((at + 1 - summed) * line_size >= HOT or at + 1 == last * height):
                        lo, hi = summed * line_size, (at + 1) * line_size
                        add_gradient_sums(flat_dx[lo:hi], flat_x[lo:hi], source, x_sums[part])
                        summed = at + 1
                    written += 1


# ------------------------------------------------------------------------------------ used by conv–BN–activation units


def unit_forward(source, w, window, y, moments):
    """y (N, P, Q, C·M) from finished(x) and w (K, K, C, M); ``moments`` as for pointwise. No checks."""
    parts = moments.shape[0] or parts_of(len(y))
    _forward(source, w.reshape(-1), np.zeros(y.shape[3], y.dtype), window, y, moments, parts)


def unit_backward(upstream, source, w, window, dx, more, x_sums, partial):
    partial.fill(0)
    s, taps = window.stride, w.reshape(*w.shape[:2], -1)
    turned = [taps[u::s, v::s][::-1, ::-1].reshape(-1) for u in range(s) for v in range(s)]
    _backward(upstream, source, np.concatenate(turned), window, dx, more, partial, x_sums)


def unit_inference(source, taps, shift, code, window, y):
    """y (N, P, Q, C·M) = activation(depthwise(x) + shift); taps (K·K, C·M) have the batch norm's scale in them. No checks."""
    rows = y.shape[1]
    band = max(4, min(rows, -(-rows * len(y) // 16)))  # 16 tiles or more, of 4 rows or more
    _inference(source, taps.reshape(-1), shift, code, window, y, min(band, rows))


# ---------------------------------------------------------------------------------------------- public


def definition(x, w, stride=1, padding="same"):
    x, w, window, shape = _arguments(x, w, stride, padding)
    y = np.zeros(shape, x.dtype)
    _y(x, w, y, window)
    return y


def definition_backward(dy, x, w, stride=1, padding="same"):
    x, w, window, shape = _arguments(x, w, stride, padding)
    dy = _check.tensor("dy", dy, shape, x.dtype)
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    _dx(dx, w, dy, window)
    _dw(x, dw, dy, window)
    return dx, dw


def depthwise_forward(x, w, stride=1, padding="same", out=None):
    """y (N, P, Q, C·M) for x (N, H, W, C) and w (K, K, C, M), equation (1).

    stride ≥ 1; padding: see the padding page. float32 or float64, C-contiguous; N may be 0. Raises ValueError naming
    the argument that is wrong.
    """
    x, w, window, shape = _arguments(x, w, stride, padding)
    out = _check.output("out", out, shape, x.dtype)
    _check.apart(out, x=x, w=w)
    if out.size:
        unit_forward(_finished(x), w, window, out, np.empty((0, 3, 0)))
    return out


def depthwise_backward(dy, x, w, stride=1, padding="same", out=None):
    """dx (N, H, W, C) by (2) and dw (K, K, C, M) by (3), for dy (N, P, Q, C·M). Raises like forward."""
    x, w, window, shape = _arguments(x, w, stride, padding)
    dy = _check.tensor("dy", dy, shape, x.dtype)
    out = _check.output("out", out, x.shape, x.dtype)
    _check.apart(out, x=x, w=w, dy=dy)
    dw = np.zeros(w.shape, x.dtype)
    if out.size:
        none, partial = empty_pack(x.dtype), np.empty((parts_of(len(x)), w.shape[0] * w.shape[1], shape[3]))
        upstream = Upstream(dy, dy, none, none, IDENTITY, lanes(shape[3], x.dtype))
        unit_backward(upstream, _finished(x), w, window, out, x[:0], np.empty((0, 2, 0)), partial)
        dw.reshape(partial.shape[1:])[:] = partial.sum(axis=0)
    return out, dw


def _finished(x):
    return Source(x, empty_pack(x.dtype), IDENTITY, lanes(x.shape[3], x.dtype))


def _arguments(x, w, stride, padding):
    x = _check.tensor("x", x, (None, None, None, None))
    _check.positive("x: channels", x.shape[3])
    w = _check.tensor("w", w, (None, None, x.shape[3], None), x.dtype)
    _check.positive("w: kernel side and filters", min(w.shape))
    stride = _check.positive("stride", stride)
    pads = resolve(padding, x.shape[1:3], w.shape[:2], stride)
    sides = [output_side(n, k, stride, *pad) for n, k, pad in zip(x.shape[1:3], w.shape[:2], pads)]
    window = Window(w.shape[1], stride, pads[0][0], pads[1][0])
    return x, w, window, (x.shape[0], *sides, w.shape[2] * w.shape[3])


def depthwise_cost(n: int, p: int, q: int, k: int, c: int, m: int = 1, *, h: int, w: int) -> Cost:
    """K²·C·M·N·P·Q MACs in each nest (Howard et al. 2017, equation 4), from an H×W input to a P×Q output."""
    macs = n * p * q * k * k * c * m
    return Cost(macs, macs, macs, params=k * k * c * m, inputs=n * h * w * c, outputs=n * p * q * c * m)
