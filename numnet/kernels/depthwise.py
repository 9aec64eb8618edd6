"""Depthwise convolution: one K×K filter a channel; most of the bytes a MobileNet moves, 3 % of its multiplications.

Output channel o = c·M + m comes from input channel c alone (Howard et al. 2017, equation 3; M, the depth multiplier,
is 1 in every MobileNet). With x = 0 outside the image, and i = p·s + u − top, j = q·s + v − left:

(1)  y[p, q, o]   = Σ_uv x[i, j, c] · w[u, v, o]                       forward
(2)  dx[i, j, c]  = Σ_uvm dy[p, q, o] · w[u, v, o]                     over the (p, q) that reach (i, j) by tap (u, v)
(3)  dw[u, v, o]  = Σ_npq x[i, j, c] · dy[p, q, o]

**A row is a vector.** In NHWC an image row of W pixels is W·C numbers, side by side, and a shift by v pixels is a shift
by v·C numbers. With the weights of a tap repeated along the row, an output row is K·K multiply-adds of long vectors,
each a shifted stretch of an input row. So are both gradients, with the roles swapped:

    (1)  y[p]      +=  x[i], shifted   ·  w[u, v]         ``convolve``
    (2)  dx[i]     +=  dy[p], shifted  ·  w[u, v]         ``convolve`` again
    (3)  dw[u, v]  +=  x[i], shifted   ·  dy[p]           ``correlate``; then the copies are added up

Nine taps go through one sweep while their sum is in a register (3×3: one sweep a row, 5×5: five).

**The ring.** Shifted stretches are read from padded copies of the last few rows, in a ring that stays in the cache
whatever the size of the image. While a row is copied it is normalised and activated (batchnorm's equations 2 and 3),
so that the raw output of the unit before is all that this one reads.

**Strides.** At stride s a slot of the ring holds s *phases*: pixels 0, s, 2s, … then 1, s + 1, … Tap v reads phase
v mod s from pixel v div s on, contiguous again. For dx, row i takes the taps u ≡ i + top (mod s), and its phase j the
taps v ≡ j (mod s): a stride-s convolution backwards is s·s small ones of stride 1, whose results are interleaved.

In backward the rows of dx that no later dy can reach leave the ring at once, and while they are hot their share of the
previous batch norm's sums (its equation 5) is taken.

MACs: K·K·C·M·N·P·Q in each nest, taps on the padding counted, as the papers do. (1) and (3) multiply exactly that
often; (2) as often as a row of dy meets a row of dx: K·K·C·M·N·H·W at stride 1, less the taps above and below the image.
Not supported: dilation, different strides along H and W.
"""

import numpy as np
from numba import prange

from numnet.kernels import _check
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
from numnet.kernels.rows import (
    add_products,
    add_products_3,
    copy,
    fold,
    multiply_add,
    multiply_add_3,
    multiply_add_9,
    repeated,
    row_length,
    share,
    zero,
)

HOT = 16384  # numbers of finished images after which their sums are taken: 64 KiB of float32, still in the cache


# ---------------------------------------------------------------------------------------------- sums of shifted rows


@row
def convolve(out, source, at, taps, first, count):
    """out += Σ_t source[at[t] …] · taps[first + t], for ``count`` taps. out is whole pixels; taps (k, L) repeat a pixel."""
    length = taps.shape[1]
    for lo in range(0, out.size, length):
        n = min(length, out.size - lo)
        t = 0
        while t + 9 <= count:
            multiply_add_9(out, lo, n, source, at, t, taps, first + t)
            t += 9
        while t + 3 <= count:
            multiply_add_3(out, lo, n, source, at, t, taps, first + t)
            t += 3
        while t < count:
            multiply_add(out, lo, n, source, at, t, taps, first + t)
            t += 1


@row
def correlate(dtaps, y, source, at):
    """dtaps[t] += source[at[t] …] · y for every tap. y is whole pixels; dtaps (k, L) gathers its pixels' copies."""
    count, length = dtaps.shape
    for lo in range(0, y.size, length):
        n = min(length, y.size - lo)
        t = 0
        while t + 3 <= count:
            add_products_3(dtaps[t], dtaps[t + 1], dtaps[t + 2], y, lo, n, source, at, t)
            t += 3
        while t < count:
            add_products(dtaps[t], y, lo, n, source, at, t)
            t += 1


@row
def aim(at, oldest, side_u, side_v, stride, phase_size, outputs):
    """Offsets of all taps (u, v) in the flat ring when padded row ``oldest`` is the window's first."""
    slot, t = oldest % side_u, 0
    for _ in range(side_u):
        phase, pixel = 0, 0
        for _ in range(side_v):
            at[t] = (slot * stride + phase) * phase_size + pixel * outputs
            t += 1
            phase += 1
            if phase == stride:
                phase, pixel = 0, pixel + 1
        slot = slot + 1 if slot + 1 < side_u else 0


# ---------------------------------------------------------------------------------------------- rows in and out


@row
def take_every(line, channels, first, step, out, lo, hi, outputs):
    """Pixels lo … hi − 1 of out = pixels first, first + step, … of line; channels repeated M times."""
    multiplier = outputs // channels
    a, b = first * channels, lo * outputs
    for _ in range(lo, hi):
        pixel, spread = line[a : a + channels], out[b : b + outputs]
        if multiplier == 1:
            copy(pixel, spread)
        else:
            for o in range(outputs):
                spread[o] = pixel[o // multiplier]
        a += step * channels
        b += outputs


@row
def put_every(out, lo, hi, outputs, line, channels, first, step):
    """The way back, the M copies of a channel added up."""
    multiplier = outputs // channels
    a, b = first * channels, lo * outputs
    for _ in range(lo, hi):
        pixel, spread = line[a : a + channels], out[b : b + outputs]
        if multiplier == 1:
            copy(spread, pixel)
        else:
            zero(pixel)
            for o in range(outputs):
                pixel[o // multiplier] += spread[o]
        a += step * channels
        b += outputs


@row
def inside(phase, stride, left, width, pixels):
    """Pixels lo … hi − 1 of a phase whose padded column i·s + phase lies in the image."""
    lo = max(left - phase + stride - 1, 0) // stride
    hi = min((left + width - 1 - phase) // stride + 1, pixels)
    return lo, max(hi, lo)


@row
def fill_slot(image, h, channels, pack, code, left, finished, slot, outputs):
    """Row h of an image (H, W·C), finished on the way, into a slot (s, pixels·C·M) that is zero on its padding."""
    stride, pixels = slot.shape[0], slot.shape[1] // outputs
    width = image.shape[1] // channels
    if h < 0 or h >= image.shape[0]:
        for phase in range(stride):
            zero(slot[phase])
        return
    line = image[h]
    if stride == 1 and outputs == channels:  # one phase: straight into its place
        lo, hi = inside(0, 1, left, width, pixels)
        line, place = line[: (hi - lo) * channels], slot[0, lo * channels : hi * channels]
        if pack.size:
            normalise_activate(line, pack, code, place)
        else:
            copy(line, place)
        return
    if pack.size:
        normalise_activate(line, pack, code, finished)
        line = finished
    for phase in range(stride):
        lo, hi = inside(phase, stride, left, width, pixels)
        take_every(line, channels, lo * stride + phase - left, stride, slot[phase], lo, hi, outputs)


# ---------------------------------------------------------------------------------------------- passes
# x (N, H, W·C), y and dy (N, P, Q·C·M), dx like x; ``shape`` = C, K, K, stride, top, left.


@kernel
def _forward(x, x_pack, code, taps, shape, y, moments, parts):
    """(1). x finished (pack empty) or raw; taps (K·K, C·M); moments (parts, 3, C·M), zero, or empty."""
    channels, side_u, side_v, stride, top, left = shape
    images, rows, size = y.shape
    outputs = taps.shape[1]
    long_taps = repeated(taps, row_length(outputs))
    pack = repeated(x_pack, row_length(channels) if x_pack.size else 0)
    pixels = size // outputs + (side_v - 1) // stride  # of a phase
    flat_y = y.reshape(-1)
    for part in prange(parts):  # each part writes its own images of y and its own moments
        flat = np.zeros(side_u * stride * pixels * outputs, x.dtype)
        ring = flat.reshape(side_u, stride, pixels * outputs)
        finished = np.empty(x.shape[2], x.dtype)
        at = np.empty(side_u * side_v, np.int64)
        first, last = share(part, parts, images)
        counted = first  # images whose moments have been taken
        for n in range(first, last):
            filled = 0  # padded rows of this image that have been put into the ring
            for p in range(rows):
                while filled < p * stride + side_u:
                    slot = ring[filled % side_u]
                    fill_slot(x[n], filled - top, channels, pack, code, left, finished, slot, outputs)
                    filled += 1
                aim(at, p * stride, side_u, side_v, stride, pixels * outputs, outputs)
                line = y[n, p]
                zero(line)
                convolve(line, flat, at, long_taps, 0, at.size)  # (1)
            if moments.size and ((n + 1 - counted) * rows * size >= HOT or n + 1 == last):
                add_moments(flat_y[counted * rows * size : (n + 1) * rows * size], outputs, moments[part])
                counted = n + 1


@kernel
def _inference(x, taps, folded, code, shape, y, band):
    """(1), batch norm and activation in the row: folded (2, C·M) = scale and shift; ``band`` rows of y a tile."""
    channels, side_u, side_v, stride, top, left = shape
    images, rows, size = y.shape
    outputs = taps.shape[1]
    long_taps, long = repeated(taps, row_length(outputs)), repeated(folded, row_length(outputs))
    pixels = size // outputs + (side_v - 1) // stride
    bands = (rows + band - 1) // band
    none = np.empty((0, 0), x.dtype)
    nothing = np.empty(0, x.dtype)
    for tile in prange(images * bands):  # each tile writes its own rows of y
        n, first = tile // bands, tile % bands * band
        flat = np.zeros(side_u * stride * pixels * outputs, x.dtype)
        ring = flat.reshape(side_u, stride, pixels * outputs)
        at = np.empty(side_u * side_v, np.int64)
        filled = first * stride
        for p in range(first, min(first + band, rows)):
            while filled < p * stride + side_u:
                slot = ring[filled % side_u]
                fill_slot(x[n], filled - top, channels, none, 0, left, nothing, slot, outputs)
                filled += 1
            aim(at, p * stride, side_u, side_v, stride, pixels * outputs, outputs)
            line = y[n, p]
            zero(line)
            convolve(line, flat, at, long_taps, 0, at.size)
            finish(line, long, code, nothing)


@kernel
def _backward(dy, y, y_pack, means, y_code, x, x_pack, x_code, taps, shape, dx, dw, x_sums):
    """(2) and (3). dw (parts, K·K, C·M) float64, zero; dx like x, or empty; the rest as on the pointwise page."""
    channels, side_u, side_v, stride, top, left = shape
    images, rows, size = dy.shape
    height, line_size = x.shape[1:]
    outputs = taps.shape[1]
    length = row_length(outputs)
    pack = repeated(x_pack, row_length(channels) if x_pack.size else 0)
    pack_y = repeated(y_pack, length if y_pack.size else 0)
    means_y = repeated(means, length if y_pack.size else 0)
    order, start = taps_by_phase(repeated(taps, length), side_u, side_v, stride)
    back_u, back_v = (
        (side_u + stride - 1) // stride,
        (side_v + stride - 1) // stride,
    )  # taps that meet in a row, a pixel
    pixels = size // outputs + (side_v - 1) // stride
    flat_x, flat_dx = x.reshape(-1), dx.reshape(-1)
    for part in prange(dw.shape[0]):  # each part writes its own images of dx, its own dw and its own sums
        flat = np.zeros(side_u * stride * pixels * outputs, x.dtype)
        ring = flat.reshape(side_u, stride, pixels * outputs)
        dring = np.zeros(
            (back_u, (back_v - 1 + pixels) * outputs), x.dtype
        )  # rows of dy, zeros before and after
        phases = np.empty((stride, pixels * outputs), x.dtype)
        finished = np.empty(line_size, x.dtype)
        at, back = np.empty(side_u * side_v, np.int64), np.empty(side_u * side_v, np.int64)
        dtaps = np.zeros((side_u * side_v, length), x.dtype)
        first, last = share(part, dw.shape[0], images)
        counted = first
        for n in range(first, last):
            filled, written = 0, 0  # padded rows of x in the ring; padded rows of dx written
            for p in range(rows):
                while filled < p * stride + side_u:
                    slot = ring[filled % side_u]
                    fill_slot(x[n], filled - top, channels, pack, x_code, left, finished, slot, outputs)
                    filled += 1
                aim(at, p * stride, side_u, side_v, stride, pixels * outputs, outputs)
                d = dring[p % back_u, (back_v - 1) * outputs : (back_v - 1) * outputs + size]
                if pack_y.size:
                    unit_gradient(dy[n, p], y[n, p], pack_y, means_y, y_code, d)
                else:
                    copy(dy[n, p], d)
                correlate(dtaps, d, flat, at)  # (3)
                if dx.size:
                    done = (p + 1) * stride if p + 1 < rows else top + height
                    while written < done:  # rows that no later row of dy reaches
                        if top <= written < top + height:
                            line = dx[n, written - top]
                            gather_dx(dring, written, p, order, start, shape, outputs, back, phases, line)
                        written += 1
            if x_sums.size and ((n + 1 - counted) * height * line_size >= HOT or n + 1 == last):
                lo, hi = counted * height * line_size, (n + 1) * height * line_size
                add_gradient_sums(flat_dx[lo:hi], flat_x[lo:hi], pack, x_code, x_sums[part])
                counted = n + 1
        for tap in range(side_u * side_v):
            fold(dtaps[tap], dw[part, tap])


@row
def taps_by_phase(taps, side_u, side_v, stride):
    """The rows of taps (K·K, L) in the order in which dx needs them, and where each (row phase, column phase) starts."""
    order, start = np.empty_like(taps), np.empty((stride, stride), np.int64)
    count = 0
    for row_phase in range(stride):
        for phase in range(stride):
            start[row_phase, phase] = count
            for u in range(row_phase, side_u, stride):
                for v in range(phase, side_v, stride):
                    copy(taps[u * side_v + v], order[count])
                    count += 1
    return order, start


@row
def gather_dx(dring, r, newest, order, start, shape, outputs, at, phases, line):
    """(2) for padded row r of x: line (W·C) from the rows of dy in the ring, the newest of which is given."""
    channels, side_u, side_v, stride, _, left = shape
    back_u, size = dring.shape
    before, pixels = size - phases.shape[1], phases.shape[1] // outputs
    width = line.size // channels
    flat = dring.reshape(-1)
    direct = stride == 1 and outputs == channels
    if not direct and left + width > pixels * stride:
        zero(line)  # last columns that no window reaches
    for phase in range(stride):
        first, count = start[r % stride, phase], 0
        lo, hi = inside(phase, stride, left, width, pixels)
        p = r // stride
        for _ in range(r % stride, side_u, stride):
            origin = p % back_u * size + before + lo * outputs
            for _ in range(phase, side_v, stride):
                if p > newest:
                    first += 1  # a tap that would reach below the last row of dy
                elif p >= 0:
                    at[count] = origin
                    count += 1
                origin -= outputs
            p -= 1
        out = line if direct else phases[phase, lo * outputs : hi * outputs]
        zero(out)
        convolve(out, flat, at, order, first, count)
        if not direct:
            put_every(phases[phase], lo, hi, outputs, line, channels, lo * stride + phase - left, stride)


# ------------------------------------------------------------------------------------ used by conv–BN–activation units


def unit_forward(x, x_pack, x_code, w, stride, pads, y, moments):
    """y (N, P, Q, C·M) from finished(x) and w (K, K, C, M); ``moments`` as for pointwise. No checks."""
    parts = moments.shape[0] or parts_of(len(x))
    _forward(_lines(x), x_pack, x_code, _taps(w), _shape(w, stride, pads), _lines(y), moments, parts)


def unit_backward(dy, y, y_pack, means, y_code, x, x_pack, x_code, w, stride, pads, dx, dw, x_sums, partial):
    """dw (K, K, C, M), and where dx has a size dx and x_sums; ``partial`` (parts, K·K, C·M) float64, scratch. No checks."""
    partial.fill(0)
    upstream = _lines(dy), _lines(y), y_pack, means, y_code
    source = _lines(x), x_pack, x_code
    _backward(*upstream, *source, _taps(w), _shape(w, stride, pads), _lines(dx), partial, x_sums)
    dw.reshape(partial.shape[1:])[:] = partial.sum(axis=0)


def unit_inference(x, w, folded, code, stride, pads, y):
    """y (N, P, Q, C·M) = activation(depthwise(x) · scale + shift). No checks."""
    rows = y.shape[1]
    band = max(4, min(rows, -(-rows * len(x) // 16)))  # 16 tiles or more, of 4 rows or more
    _inference(_lines(x), _taps(w), folded, code, _shape(w, stride, pads), _lines(y), min(band, rows))


def _lines(x):
    """Images (N, H, W, C) as rows (N, H, W·C)."""
    return x.reshape(x.shape[0], x.shape[1], x.shape[2] * x.shape[3])


def _taps(w):
    return w.reshape(w.shape[0] * w.shape[1], w.shape[2] * w.shape[3])


def _shape(w, stride, pads):
    return w.shape[2], w.shape[0], w.shape[1], stride, pads[0][0], pads[1][0]


# ---------------------------------------------------------------------------------------------- public


def depthwise_forward(x, w, stride=1, padding="same", out=None):
    """y (N, P, Q, C·M) for x (N, H, W, C) and w (K, K, C, M), equation (1).

    stride ≥ 1; padding: see the padding page. float32 or float64, C-contiguous; N may be 0. Raises ValueError naming
    the argument that is wrong.
    """
    x, w, stride, pads, shape = _arguments(x, w, stride, padding)
    out = _check.output("out", out, shape, x.dtype)
    _check.apart(out, x=x, w=w)
    if out.size:
        unit_forward(x, empty_pack(x.dtype), IDENTITY, w, stride, pads, out, np.empty((0, 3, 0)))
    return out


def depthwise_backward(dy, x, w, stride=1, padding="same", out=None):
    """dx (N, H, W, C) by (2) and dw (K, K, C, M) by (3), for dy (N, P, Q, C·M). Raises like forward."""
    x, w, stride, pads, shape = _arguments(x, w, stride, padding)
    dy = _check.tensor("dy", dy, shape, x.dtype)
    out = _check.output("out", out, x.shape, x.dtype)
    _check.apart(out, x=x, w=w, dy=dy)
    dw = np.zeros(w.shape, x.dtype)
    if out.size:
        none, sums = empty_pack(x.dtype), np.empty((0, 2, 0))
        partial = np.zeros((parts_of(len(x)), w.shape[0] * w.shape[1], w.shape[2] * w.shape[3]))
        unit_backward(
            dy, dy, none, none, IDENTITY, x, none, IDENTITY, w, stride, pads, out, dw, sums, partial
        )
    return out, dw


def _arguments(x, w, stride, padding):
    x = _check.tensor("x", x, (None, None, None, None))
    _check.positive("x: channels", x.shape[3])
    w = _check.tensor("w", w, (None, None, x.shape[3], None), x.dtype)
    _check.positive("w: kernel side and filters", min(w.shape))
    stride = _check.positive("stride", stride)
    pads = resolve(padding, x.shape[1:3], w.shape[:2], stride)
    sides = [output_side(n, k, stride, *pad) for n, k, pad in zip(x.shape[1:3], w.shape[:2], pads)]
    return x, w, stride, pads, (x.shape[0], *sides, w.shape[2] * w.shape[3])


def depthwise_cost(n: int, p: int, q: int, k: int, c: int, m: int = 1, *, h: int, w: int) -> Cost:
    """K²·C·M·N·P·Q MACs in each nest (Howard et al. 2017, equation 4), from an H×W input to a P×Q output."""
    macs = n * p * q * k * k * c * m
    return Cost(macs, macs, macs, params=k * k * c * m, inputs=n * h * w * c, outputs=n * p * q * c * m)
