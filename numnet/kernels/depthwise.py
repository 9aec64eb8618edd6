"""Depthwise convolution: one K×K filter a channel. Of MobileNetV1's convolutions, 3 % of the MACs and 38 % of the bytes.

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

**Vectors of channels.** A vector holds the same tap of 4 to 16 channels. (1): the sums of four pixels stay in registers
while the K·K weights go by, a row of K of them at a time. (3) is the same with the roles changed: the sums of K·K taps
stay in registers, while the pixels of dy go by, four at a time. Both are the one name ``add_taps`` of ``vectors``.

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
    add_moments,
    parts_of,
    source_of,
    unit_gradient,
    upstream_of,
)
from numnet.kernels.folding import scale_taps
from numnet.kernels.maps import Window, begin_of, share, vectors_of
from numnet.kernels.padding import output_side, resolve
from numnet.kernels.ring import image_ring, ring_of, see
from numnet.kernels.rows import add, copy, line_up, lines, zero_row
from numnet.kernels.vectors import add_taps, load_tile, store_tile, width, zeros

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


# ---------------------------------------------------------------------------------------------- rows on vectors
# Rows are flat: W·C numbers. ``taps`` (K·K·C·M), the weights, is flat, too. side_u: rows of the window; window.side: columns.

HOT = 16384  # numbers of finished rows after which their moments or sums are taken: 64 KiB of float32, still in the cache
PIXELS = 1024  # of dy, after which their share of dw goes from sums in the dtype of dy into float64


class Line(NamedTuple):
    """Output pixels side by side, and how their windows lie in a ring."""

    pixels: int
    taps: int  # in a row of the window
    channels: int
    read: int  # numbers from one pixel's window to the next one's
    write: int  # numbers from one output pixel to the next
    lanes: np.integer


@row(inline=True)
def sum_window(sums, like, ring, at, taps, c, q, line):
    """(1) for the vector c of the pixels q, q + 1, …: ``sums`` gain their windows; as many taps at a time as ``like``."""
    t = c
    for u in range(at.size):
        for v in range(0, line.taps, len(like)):
            weights = load_tile(like, taps, t, line.channels, (0,))
            place = at[u] + v * line.channels + q * line.read + c
            # At stride 1 neighbours share pixels. Both calls then mean the same, but the first *says* that pixels lie as far
            # apart as taps: so LLVM sees which loads are equal, and loads each pixel once.
            if line.read == line.channels:
                sums = add_taps(sums, ring, place, line.channels, (0,), line.channels, weights)
            else:
                sums = add_taps(sums, ring, place, line.read, (0,), line.channels, weights)
            t += len(like) * line.channels
    return sums


@row(inline=True)
def convolve_line(like, ring, at, taps, shift, line, y):
    """(1) for all pixels of a line, beginning with ``shift``: four pixels at a time, then the last ones singly."""
    v, fours = line.lanes, line.pixels // 4 * 4
    for q in range(0, fours, 4):
        for j in range(vectors_of(line.channels, v)):
            c = begin_of(j, line.channels, v)
            sums = load_tile(zeros(y, 4, 1, v), shift, c, 0, (0,))
            sums = sum_window(sums, like, ring, at, taps, c, q, line)
            store_tile(sums, y, q * line.write + c, line.write, (0,))
    for q in range(fours, line.pixels):
        for j in range(vectors_of(line.channels, v)):
            c = begin_of(j, line.channels, v)
            sums = load_tile(zeros(y, 1, 1, v), shift, c, 0, (0,))
            sums = sum_window(sums, like, ring, at, taps, c, q, line)
            store_tile(sums, y, q * line.write + c, line.write, (0,))


@row(inline=True)
def convolve(ring, at, taps, shift, line, y):
    """(1) for a line. The usual numbers of taps are constants of the compiled loops; any other goes tap by tap."""
    if line.taps == 2:
        convolve_line(zeros(y, 2, 1, line.lanes), ring, at, taps, shift, line, y)
    elif line.taps == 3:
        convolve_line(zeros(y, 3, 1, line.lanes), ring, at, taps, shift, line, y)
    elif line.taps == 5:
        convolve_line(zeros(y, 5, 1, line.lanes), ring, at, taps, shift, line, y)
    else:
        convolve_line(zeros(y, 1, 1, line.lanes), ring, at, taps, shift, line, y)


@row(inline=True)
def correlate_line(like, ring, starts, d, line, sums, first, step):
    """(3) for one row of dy and the taps whose pixels begin at ``starts``, and beside them, as many as ``like`` has.

    ``sums``, from ``first``: those of the first vector of channels, those of the next ``step`` numbers further.
    """
    v, channels, fours = line.lanes, line.channels, line.pixels // 4 * 4
    for j in range(vectors_of(channels, v)):
        c, own = begin_of(j, channels, v), first + j * step
        tile = load_tile(like, sums, own, width(v), (0,))
        for q in range(0, fours, 4):
            dys = load_tile(zeros(d, 4, 1, v), d, q * channels + c, channels, (0,))
            if line.read == channels:
                tile = add_taps(tile, ring, q * channels + c, channels, starts, channels, dys)
            else:
                tile = add_taps(tile, ring, q * line.read + c, channels, starts, line.read, dys)
        for q in range(fours, line.pixels):
            dys = load_tile(zeros(d, 1, 1, v), d, q * channels + c, channels, (0,))
            tile = add_taps(tile, ring, q * line.read + c, channels, starts, line.read, dys)
        store_tile(tile, sums, own, width(v), (0,))


@row(inline=True)
def correlate(ring, d, line, sums):
    """(3) for one row of dy. How many sums fit into registers decides how many rows of taps go together: ``together``.

    Rows of taps that go together are done when u is the first of them; at the others u finds nothing left to do.
    """
    v, at, n = line.lanes, ring.at, width(line.lanes)
    step = at.size * line.taps * n
    for u in range(0, at.size):
        rows, first = together(u, at.size, line.taps)
        begin = u * line.taps * n
        if rows == 3 and u == first:
            correlate_line(zeros(d, 3, 3, v), ring.flat, (at[0], at[1], at[2]), d, line, sums, begin, step)
        elif rows == 2 and u == first:
            correlate_line(zeros(d, 5, 2, v), ring.flat, (at[u], at[u + 1]), d, line, sums, begin, step)
        elif rows == 1:
            for tap in range(line.taps):
                start = at[u] + tap * line.channels
                correlate_line(zeros(d, 1, 1, v), ring.flat, (start,), d, line, sums, begin + tap * n, step)


@row(inline=True)
def together(u, rows, taps):
    """How many rows of taps are summed at once, that of u among them, and the first of them."""
    if rows == 3 and taps == 3:
        return 3, 0
    if taps == 5 and u // 2 * 2 + 1 < rows:
        return 2, u // 2 * 2
    return 1, u


@row(inline=True)
def flush(sums, side, v, dw):
    """dw (K·K, C·M) in float64 gains the sums, which are 0 then; where vectors overlap, each channel from one only.

    The sums lie as ``correlate`` leaves them: vector of channels after vector of channels; in it the rows of taps that go
    together; in these tap after tap, each for all of these rows.
    """
    (taps, channels), n = dw.shape, width(v)
    for j in range(vectors_of(channels, v)):
        late = j * n - begin_of(j, channels, v)
        for u in range(taps // side):
            rows, first = together(u, taps // side, side)
            for tap in range(side):
                place = (j * taps + first * side + tap * rows + u - first) * n
                add(dw[u * side + tap, j * n : j * n + n - late], sums[place + late : place + n])
    zero_row(sums)


# ---------------------------------------------------------------------------------------------- rows in and out


@row(inline=True)
def line_of(size, outputs, window, v):
    """The line that is a row of y, of ``size`` numbers."""
    return Line(size // outputs, window.side, outputs, window.stride * outputs, outputs, v)


@row(inline=True)
def convolve_row(ring, image, source, taps, shift, window, p, y):
    """(1) for row p of y (Q·C·M), from an image (H, W·C); ``shift`` (C·M) is where the sums begin."""
    see(ring, image, source, window, shift.size, p)
    line = line_of(y.size, shift.size, window, source.lanes)
    convolve(ring.flat, ring.at, taps, shift, line, y)


@row(inline=True)
def meeting(taps, stride, phase):
    """How many of the taps 0 … taps − 1 are phase, phase + stride, …"""
    return max(taps - phase + stride - 1, 0) // stride


@row(inline=True)
def see_back(ring, rows, r, stride, taps):
    """Point ``at`` to the rows of dy, of ``rows``, that meet padded row r = i + top of x; how many they are."""
    count = meeting(taps, stride, r % stride)
    for k in range(count):
        p = r // stride - count + 1 + k
        ring.at[k] = (p % ring.at.size if 0 <= p < rows else ring.at.size) * ring.length
    return count


@row(inline=True)
def dx_row(ring, count, turned, shift, window, r, v, dx):
    """(2) for padded row r of x: dx (W·C·M) from the ``count`` rows of dy that ``see_back`` points to; shift is 0.

    Column phase by column phase: j + left = m·s + phase, and q = m − k for the taps v = phase + k·s.
    """
    s, channels, pixels = window.stride, shift.size, dx.size // shift.size
    taps, before = turned.size // channels // window.side, meeting(window.side, s, 0) - 1
    first = 0
    for phase in range(r % s):
        first += meeting(taps, s, phase) * window.side
    for phase in range(s):
        across = meeting(window.side, s, phase)
        lo = max(window.left - phase + s - 1, 0) // s
        hi = (window.left + pixels - 1 - phase) // s + 1
        if lo < hi:
            line = Line(hi - lo, across, channels, channels, s * channels, v)
            flat = ring.flat[(before + lo - across + 1) * channels :]
            out = dx[(lo * s + phase - window.left) * channels :]
            convolve(flat, ring.at[:count], turned[first * channels :], shift, line, out)
        first += count * across


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
def _forward(source, taps, shift, window, y, moments, parts):
    """(1). taps (K·K·C·M); shift (C·M) of zeros; moments (parts, 3, C·M), zero, or empty."""
    x, (images, rows, size), flat_y = lines(source.raw), lines(y).shape, y.reshape(-1)
    copies, side_u = shift.size // source.raw.shape[3], taps.size // shift.size // window.side
    for part in prange(parts):  # each part writes its own images of y and its own moments
        ring = image_ring(x[0], copies, window, side_u, line_of(size, shift.size, window, source.lanes))
        first, last = share(part, parts, images)
        counted = first * rows  # rows of y whose moments have been taken
        for n in range(first, last):
            ring.next[0] = 0
            for p in range(rows):
                done = n * rows + p + 1
                convolve_row(ring, x[n], source, taps, shift, window, p, row_of(flat_y, done - 1, size))
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
        taps = line_up(folded.w.size, y)  # of its own: what another core has written comes slowly
        scale_taps(folded.w, folded.scale, taps)
        ring = image_ring(x[0], copies, window, side_u, line_of(size, shift.size, window, source.lanes))
        for p in range(first, min(first + high, rows)):
            out = row_of(flat_y, n * rows + p, size)
            convolve_row(ring, x[n], source, taps, shift, window, p, out)
            activate_rows(code, out, source.lanes)


@kernel
def _backward(upstream, source, turned, window, dx, more, dw, x_sums):
    """(2) and (3). turned: the taps as ``dx_row`` takes them; dw (parts, K·K, C·M) float64, zero.

    dx and more like x, or empty; x_sums (parts, 2, C), zero, or empty.
    """
    x, (images, rows, size), v = lines(source.raw), lines(upstream.dy).shape, upstream.lanes
    (height, x_size), (taps, outputs) = x.shape[1:], dw.shape[1:]
    dys, ys, xs = upstream.dy.reshape(-1), upstream.raw.reshape(-1), x.reshape(-1)
    dxs, mores = dx.reshape(-1), more.reshape(-1)
    s, side_u, copies = window.stride, taps // window.side, outputs // source.raw.shape[3]
    # Zeros before a row of dy, and the numbers from its beginning on that windows reach, zeros behind it included.
    before = (meeting(window.side, s, 0) - 1) * outputs
    reach = max(size, ((window.left + x_size * copies // outputs - 1) // s + 1) * outputs)
    shift = np.zeros(outputs, x.dtype)
    for part in prange(dw.shape[0]):  # each part writes its own images of dx, its own dw and its own sums
        line = line_of(size, outputs, window, v)
        ring = image_ring(x[0], copies, window, side_u, line)
        spare = x_size * copies if copies > 1 else 0
        back = ring_of(meeting(side_u, s, 0), before + reach, before, size, 1, spare, x)
        sums = line_up(vectors_of(outputs, v) * width(v) * taps, x)
        zero_row(sums)
        first, last = share(part, dw.shape[0], images)
        counted, summed = first * rows, first * height  # rows of y whose sums are in dw; of x, in x_sums
        for n in range(first, last):
            ring.next[0], r = 0, window.top  # r: the next row of dx, counted from the top of the padding
            for p in range(rows):
                done = n * rows + p + 1
                see(ring, x[n], source, window, outputs, p)
                d = back.flat[p % back.at.size * back.length + before :][:size]
                if upstream.pack.size:
                    unit_gradient(row_of(dys, done - 1, size), row_of(ys, done - 1, size), upstream, d)
                else:
                    copy(row_of(dys, done - 1, size), d)
                correlate(ring, d, line, sums)  # (3)
                if (done - counted) * line.pixels >= PIXELS or done == last * rows:
                    flush(sums, window.side, v, dw[part])
                    counted = done
                end = min((p + 1) * s, window.top + height) if p + 1 < rows else window.top + height
                while dx.size and r < end:  # rows that no later row of dy meets
                    i = n * height + r - window.top
                    out = row_of(dxs, i, x_size)
                    wide = back.spare if copies > 1 else out
                    dx_row(back, see_back(back, rows, r, s, side_u), turned, shift, window, r, v, wide)  # (2)
                    if copies > 1:
                        add_copies(wide, copies, out)
                    if more.size:
                        add(out, row_of(mores, i, x_size))
                    if x_sums.size and ((i + 1 - summed) * x_size >= HOT or i + 1 == last * height):
                        hot = summed * x_size, (i + 1) * x_size
                        add_gradient_sums(dxs[hot[0] : hot[1]], xs[hot[0] : hot[1]], source, x_sums[part])
                        summed = i + 1
                    r += 1


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
