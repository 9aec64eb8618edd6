"""Depthwise convolution: one K×K filter a channel. 3 % of the MACs of V1's convolutions, and for one image 38 % of the bytes.

Output channel o = c·M + m comes from input channel c alone (Howard et al. 2017, equation 3; M, the depth multiplier, is
1 in every MobileNet). Output pixel (p, q) reads by tap (u, v) the pixel i = p·s + u − top, j = q·s + v − left; x is 0
outside the image:

(1)  y[p, q, o]   = Σ_uv x[i, j, c] · w[u, v, o]                       forward
(2)  dx[i, j, c]  = Σ_uvm dy[p, q, o] · w[u, v, o]                     over the (p, q) that reach (i, j) by tap (u, v)
(3)  dw[u, v, o]  = Σ_npq x[i, j, c] · dy[p, q, o]

x (N, H, W, C), w (K, K, C, M), y and dy (N, P, Q, C·M); w[u, v, o] is w[u, v, c, m]. Not supported: dilation, different
strides along H and W.

**Rows in a ring.** An output row needs K rows of x. They lie in a *ring* (the page of that name): K rows of scratch, finished
on the way in, with zeros where the padding is. So (1) and (3) have no borders. With M > 1 each channel comes in M times.

**Vectors of channels.** The page ``taps`` makes an output row by (1), or takes a row of dy into (3), from the rows in the
ring. A vector holds the same tap of 4 to 16 channels, and the sums of up to eight pixels, or of K·K taps, stay in registers.

**dx** is (1) again, on a ring of rows of dy. Solved for p and q, (2) reads: p = (i + top − u)/s, q = (j + left − v)/s, for
the taps that make them whole numbers. At stride 1 that is every tap, and p falls while u grows: a convolution with the
weights turned around. At stride s, row i takes the taps u ≡ i + top (mod s), and column j the taps v ≡ j + left: s·s small
convolutions of stride 1, for K = 3 and s = 2 of 2×2, 2×1, 1×2 and 1×1 taps, whose results lie s pixels apart.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._cost import Cost
from numnet.kernels._jit import kernel, row
from numnet.kernels.activations import activate_rows
from numnet.kernels.batchnorm import (
    add_gradient_sums,
    source_of,
    unit_gradient,
    upstream_of,
)
from numnet.kernels.folding import scale_taps
from numnet.kernels.maps import Window, padded, parts_of, share
from numnet.kernels.moments import add_moments
from numnet.kernels.padding import output_side, resolve
from numnet.kernels.ring import Ring, image_ring, ring_of, see
from numnet.kernels.rows import add, copy, line_up, lines, zero_row
from numnet.kernels.taps import Line, convolve, correlate, flush

# ---------------------------------------------------------------------------------------------- the definition


@kernel(parallel=False)
def _y(x, w, y, window):
    for n, p, q, u, v, c, m in np.ndindex(*y.shape[:3], *w.shape):
        i, j, o = p * window.stride + u - window.top, q * window.stride + v - window.left, c * w.shape[3] + m
        if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
            y[n, p, q, o] += x[n, i, j, c] * w[u, v, c, m]  # (1)


@kernel(parallel=False)
def _dx(dx, w, dy, window):
    for n, p, q, u, v, c, m in np.ndindex(*dy.shape[:3], *w.shape):
        i, j, o = p * window.stride + u - window.top, q * window.stride + v - window.left, c * w.shape[3] + m
        if 0 <= i < dx.shape[1] and 0 <= j < dx.shape[2]:
            dx[n, i, j, c] += dy[n, p, q, o] * w[u, v, c, m]  # (2)


@kernel(parallel=False)
def _dw(x, dw, dy, window):
    for n, p, q, u, v, c, m in np.ndindex(*dy.shape[:3], *dw.shape):
        i, j, o = p * window.stride + u - window.top, q * window.stride + v - window.left, c * dw.shape[3] + m
        if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
            dw[u, v, c, m] += x[n, i, j, c] * dy[n, p, q, o]  # (3)


def definition(x, w, stride=1, padding="same"):
    """y (N, P, Q, C·M) by (1), as plain loops. Arguments and errors like ``depthwise_forward``."""
    x, w, window, shape = _arguments(x, w, stride, padding)
    y = np.zeros(shape, x.dtype)
    _y(x, w, y, window)
    return y


def definition_backward(dy, x, w, stride=1, padding="same"):
    """dx (N, H, W, C) by (2) and dw (K, K, C, M) by (3), as plain loops."""
    x, w, window, shape = _arguments(x, w, stride, padding)
    dy = _check.tensor("dy", dy, shape, x.dtype)
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    _dx(dx, w, dy, window)
    _dw(x, dw, dy, window)
    return dx, dw


# ---------------------------------------------------------------------------------------------- rows in and out
# Rows are flat: W·C numbers. ``w`` (K·K·C·M), the weights, is flat, too. side_u: rows of the window; window.side: columns.

HOT = 16384  # numbers of complete rows after which their moments or sums are taken: 64 KiB of float32, still in the cache
PIXELS = 1024  # of dy, after which their share of dw goes from sums in the dtype of dy into float64


@row(inline=True)
def line_of(size, outputs, window, v):
    """The line that is a row of y, of ``size`` numbers."""
    return Line(size // outputs, window.side, outputs, window.stride * outputs, outputs, v)


@row(inline=True)
def convolve_row(ring, image, source, w, shift, window, p, y):
    """(1) for row p of y (Q·C·M), from an image (H, W·C); ``shift`` (C·M) is where the sums begin."""
    see(ring, image, source, window, shift.size, p)
    line = line_of(y.size, shift.size, window, source.lanes)
    convolve(ring.flat, ring.at, w, shift, line, y)


@row(inline=True)
def meeting(taps, stride, phase):
    """How many of the taps 0 … taps − 1 are phase, phase + stride, …"""
    return (taps - phase + stride - 1) // stride


class Back(NamedTuple):
    """What makes rows of dx: the last rows of dy in a ring, and the taps turned around."""

    ring: Ring
    rows: int  # of dy
    before: int  # zeros before each row in the ring: a number
    turned: np.ndarray  # see ``unit_backward``
    shift: np.ndarray  # (C·M,) zeros, with which sums begin
    side_u: int
    window: Window
    lanes: np.integer


@row(inline=True)
def back_of(dy, image, copies, turned, shift, side_u, window, v):
    """The Back for rows dy (N, P, Q·C·M) and an image (H, W·C), by their shapes."""
    s, outputs, size = window.stride, shift.size, image.shape[1] * copies
    before = (meeting(window.side, s, 0) - 1) * outputs
    # The windows of a row of dx reach as far as this, into zeros behind dy.
    reach = ((window.left + size // outputs - 1) // s + 1) * outputs
    length, spare = before + max(dy.shape[2], reach), size if copies > 1 else 0
    ring = ring_of(meeting(side_u, s, 0), length, before, dy.shape[2], copies, spare, image)
    return Back(ring, dy.shape[1], before, turned, shift, side_u, window, v)


@row(inline=True)
def row_back(back, dy, y, upstream, p):
    """Bring row p of dy into the ring, back through activation and batch norm (its equation 6), and return it there."""
    ring = back.ring
    d = ring.flat[p % ring.at.size * ring.length + back.before :][: dy.size]
    if upstream.pack.size:
        unit_gradient(dy, y, upstream, d)
    else:
        copy(dy, d)
    return d


@row(inline=True)
def see_back(back, r):
    """Point ``at`` to the rows of dy that meet padded row r = i + top of x; how many they are."""
    ring, s = back.ring, back.window.stride
    count = meeting(back.side_u, s, r % s)
    for k in range(count):
        p = r // s - count + 1 + k
        ring.at[k] = (p % ring.at.size if 0 <= p < back.rows else ring.at.size) * ring.length
    return count


@row(inline=True)
def dx_row(back, r, dx):
    """(2) for padded row r of x: dx (W·C).

    Column phase by column phase: j + left = b·s + phase, and q = b − k for the taps v = phase + k·s.
    """
    ring, window, s, outputs = back.ring, back.window, back.window.stride, back.shift.size
    wide = ring.spare if ring.copies > 1 else dx  # W·C·M numbers
    pixels, count, first = wide.size // outputs, see_back(back, r), 0
    for phase in range(r % s):
        first += meeting(back.side_u, s, phase) * window.side
    for phase in range(s):
        across = meeting(window.side, s, phase)
        lo = (window.left - phase + s - 1) // s
        hi = (window.left + pixels - 1 - phase) // s + 1
        if lo < hi:
            line = Line(hi - lo, across, outputs, outputs, s * outputs, back.lanes)
            dys = ring.flat[back.before + (lo - across + 1) * outputs :]
            out = wide[(lo * s + phase - window.left) * outputs :]
            convolve(dys, ring.at[:count], back.turned[first * outputs :], back.shift, line, out)
        first += count * across
    if ring.copies > 1:
        add_copies(wide, ring.copies, dx)


@row(inline=True)
def add_copies(wide, copies, x):
    """x = the sums of the M copies of each channel."""
    for i in range(x.size):
        total = wide[i * copies]
        for m in range(1, copies):
            total += wide[i * copies + m]
        x[i] = total


# ---------------------------------------------------------------------------------------------- passes


@row(inline=True)
def row_of(flat, i, size):
    """Row i of a flat map whose rows have so many numbers."""
    return flat[i * size : (i + 1) * size]


@kernel
def _forward(source, w, shift, window, y, moments, parts):
    """(1). w (K·K·C·M); shift (C·M) of zeros; moments (parts, 3, C·M), zero, or empty."""
    x, (images, rows, size), flat_y = lines(source.raw), lines(y).shape, y.reshape(-1)
    copies, side_u = shift.size // source.raw.shape[3], w.size // shift.size // window.side
    for part in prange(parts):  # each part writes its own images of y and its own moments
        ring = image_ring(x[0], copies, window, side_u, line_of(size, shift.size, window, source.lanes))
        first, last = share(part, parts, images)
        counted = first * rows  # rows of y whose moments have been taken
        for n in range(first, last):
            ring.next[0] = 0
            for p in range(rows):
                done = n * rows + p + 1
                convolve_row(ring, x[n], source, w, shift, window, p, row_of(flat_y, done - 1, size))
                if moments.size and ((done - counted) * size >= HOT or done == last * rows):
                    add_moments(flat_y[counted * size : done * size], moments[part], source.lanes)
                    counted = done


@kernel
def _inference(source, folded, code, window, y, high):
    """activation((1) · scale + shift); ``high`` rows of y a tile."""
    x, (images, rows, size), flat_y = lines(source.raw), lines(y).shape, y.reshape(-1)
    shift = folded.shift
    copies, side_u = shift.size // source.raw.shape[3], folded.w.size // shift.size // window.side
    tiles = (rows + high - 1) // high
    for tile in prange(images * tiles):  # each tile writes its own rows of y
        n, first = tile // tiles, tile % tiles * high
        w = line_up(folded.w.size, y)  # of its own: what another core has written comes slowly
        scale_taps(folded.w, folded.scale, w)
        ring = image_ring(x[0], copies, window, side_u, line_of(size, shift.size, window, source.lanes))
        for p in range(first, min(first + high, rows)):
            out = row_of(flat_y, n * rows + p, size)
            convolve_row(ring, x[n], source, w, shift, window, p, out)
            activate_rows(code, out, source.lanes)


@kernel
def _backward(upstream, source, turned, window, dx, more, dw, x_sums):
    """(2) and (3), row by row of dy. turned: see ``unit_backward``; dw (parts, K·K, C·M) float64, zero.

    dx and more like x, or empty; x_sums (parts, 2, C), zero, or empty.
    """
    x, (images, rows, size), v = lines(source.raw), lines(upstream.dy).shape, upstream.lanes
    (height, x_size), (places, outputs) = x.shape[1:], dw.shape[1:]
    dys, ys, xs = upstream.dy.reshape(-1), upstream.raw.reshape(-1), x.reshape(-1)
    dxs, mores = dx.reshape(-1), more.reshape(-1)
    side_u, copies = places // window.side, outputs // source.raw.shape[3]
    shift = np.zeros(outputs, x.dtype)
    for part in prange(dw.shape[0]):  # each part writes its own images of dx, its own dw and its own sums
        line = line_of(size, outputs, window, v)
        ring = image_ring(x[0], copies, window, side_u, line)
        back = back_of(lines(upstream.dy), x[0], copies, turned, shift, side_u, window, v)
        sums = line_up(places * padded(outputs, v), x)
        zero_row(sums)
        first, last = share(part, dw.shape[0], images)
        counted, summed = first * rows, first * height  # rows of y whose sums are in dw; of x, in x_sums
        for n in range(first, last):
            ring.next[0] = 0
            for p in range(rows):
                done = n * rows + p + 1
                see(ring, x[n], source, window, outputs, p)
                d = row_back(back, row_of(dys, done - 1, size), row_of(ys, done - 1, size), upstream, p)
                correlate(ring, d, line, sums)  # (3)
                if (done - counted) * line.pixels >= PIXELS or done == last * rows:
                    flush(sums, v, dw[part])
                    counted = done
                # Padded rows of x that meet no later row of dy: those before the first one that row p + 1 meets.
                end = window.top + height
                if p + 1 < rows:
                    end = min((p + 1) * window.stride, end)
                if not dx.size:
                    end = 0  # nobody asked for dx
                for r in range(max(p * window.stride, window.top), end):
                    i = n * height + r - window.top
                    out = row_of(dxs, i, x_size)
                    dx_row(back, r, out)  # (2)
                    if more.size:
                        add(out, row_of(mores, i, x_size))
                    if x_sums.size and ((i + 1 - summed) * x_size >= HOT or i + 1 == last * height):
                        lo, hi = summed * x_size, (i + 1) * x_size
                        add_gradient_sums(dxs[lo:hi], xs[lo:hi], source, x_sums[part])
                        summed = i + 1


# ------------------------------------------------------------------------------------ used by conv–BN–activation units


def unit_forward(source, w, window, y, moments):
    """y (N, P, Q, C·M) from finished(x) and w (K, K, C, M); ``moments`` (parts, 3, C·M) gains y's, or has size 0."""
    parts = len(moments) or parts_of(len(y))
    _forward(source, w.reshape(-1), np.zeros(y.shape[3], y.dtype), window, y, moments, parts)


def unit_backward(upstream, source, w, window, dx, more, x_sums, partial):
    """The parts' dw into ``partial`` (parts, K·K, C·M) float64, and the gradient of x into dx. No checks.

    Each of these may be empty, and is then left out: dx; ``more``, which is added to dx; x_sums, the sums of dx (page
    ``batchnorm``).
    """
    partial.fill(0)
    s, taps = window.stride, w.reshape(*w.shape[:2], -1)
    # The s·s small convolutions of (2), one after another: the taps u, u + s, … and v, v + s, … of each, last ones first.
    turned = [taps[u::s, v::s][::-1, ::-1].reshape(-1) for u in range(s) for v in range(s)]
    _backward(upstream, source, np.concatenate(turned), window, dx, more, partial, x_sums)


def inference_step(source, folded, code, window, y):
    """The kernel and its arguments for y (N, P, Q, C·M) = activation(depthwise(x) · scale + shift). No checks."""
    rows = y.shape[1]
    # eight tiles, of 4 rows at least, since each has to fill a ring first
    high = max(4, -(-rows * len(y) // 8))
    return _inference, (source, folded, code, window, y, min(high, rows))


# ---------------------------------------------------------------------------------------------- public


def depthwise_forward(x, w, stride=1, padding="same", out=None):
    """y (N, P, Q, C·M) for x (N, H, W, C) and w (K, K, C, M), equation (1).

    stride ≥ 1; padding: see the padding page. float32 or float64, C-contiguous; N may be 0. Raises ValueError naming
    the argument that is wrong.
    """
    x, w, window, shape = _arguments(x, w, stride, padding)
    out = _check.output("out", out, shape, x.dtype)
    _check.apart(out, x=x, w=w)
    if out.size:
        unit_forward(source_of(x), w, window, out, np.empty((0, 3, 0)))
    return out


def depthwise_backward(dy, x, w, stride=1, padding="same", out=None):
    """dx (N, H, W, C) by (2) and dw (K, K, C, M) by (3), for dy (N, P, Q, C·M). Raises like forward."""
    x, w, window, shape = _arguments(x, w, stride, padding)
    dy = _check.tensor("dy", dy, shape, x.dtype)
    out = _check.output("out", out, x.shape, x.dtype)
    _check.apart(out, x=x, w=w, dy=dy)
    dw = np.zeros(w.shape, x.dtype)
    if out.size:
        partial = np.empty((parts_of(len(x)), w.shape[0] * w.shape[1], shape[3]))
        unit_backward(upstream_of(dy), source_of(x), w, window, out, x[:0], np.empty((0, 2, 0)), partial)
        dw.reshape(partial.shape[1:])[:] = partial.sum(axis=0)
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
    return x, w, window, (x.shape[0], *sides, w.shape[2] * w.shape[3])


# ---------------------------------------------------------------------------------------------- what it costs


def depthwise_cost(n: int, p: int, q: int, k: int, c: int, m: int = 1, *, h: int, w: int) -> Cost:
    """K²·C·M·N·P·Q MACs in each of (1) to (3) (Howard et al. 2017, equation 4), from an H×W input to a P×Q output."""
    macs = n * p * q * k * k * c * m
    return Cost(macs, macs, macs, params=k * k * c * m, inputs=n * h * w * c, outputs=n * p * q * c * m)
