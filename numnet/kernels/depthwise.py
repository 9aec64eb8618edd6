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
    normalise_activate,
    parts_of,
    unit_gradient,
)
from numnet.kernels.padding import output_side, resolve
from numnet.kernels.pointwise import sum_parts
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


IMAGES = 16384  # numbers of y after which its moments are taken: 64 KiB of float32, still in the cache


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
def aim(at, oldest, kernel_shape, ring_shape):
    """Offsets of all taps (u, v) in the flat ring when padded row ``oldest`` is the window's first."""
    side_u, side_v = kernel_shape
    slots, stride, pixels, outputs = ring_shape
    slot, t = oldest % slots, 0
    for _ in range(side_u):
        phase, pixel = 0, 0
        for _ in range(side_v):
            at[t] = ((slot * stride + phase) * pixels + pixel) * outputs
            t += 1
            phase += 1
            if phase == stride:
                phase, pixel = 0, pixel + 1
        slot = slot + 1 if slot + 1 < slots else 0


# ---------------------------------------------------------------------------------------------- rows in and out


@row
def take_every(line, first, step, out):
    """out[i] = line[first + i·step], pixel by pixel: out (pixels, C·M), line (W, C), channels repeated M times."""
    multiplier = out.shape[1] // line.shape[1]
    for i in range(out.shape[0]):
        if multiplier == 1:
            for c in range(out.shape[1]):
                out[i, c] = line[first + i * step, c]
        else:
            for o in range(out.shape[1]):
                out[i, o] = line[first + i * step, o // multiplier]


@row
def put_every(out, first, step, line):
    """The way back: line[first + i·step] = out[i], the M copies of a channel added up."""
    multiplier = out.shape[1] // line.shape[1]
    for i in range(out.shape[0]):
        for c in range(line.shape[1]):
            line[first + i * step, c] = out[i, c * multiplier]
            for m in range(1, multiplier):
                line[first + i * step, c] += out[i, c * multiplier + m]


@row
def inside(phase, stride, left, width, pixels):
    """Pixels lo … hi − 1 of a phase whose padded column i·s + phase lies in the image."""
    lo = max(left - phase + stride - 1, 0) // stride
    hi = min((left + width - 1 - phase) // stride + 1, pixels)
    return lo, max(hi, lo)


@row
def fill_slot(image, h, pack, code, left, finished, slot):
    """Row h of an image (H, W, C), finished on the way, into a slot (s, pixels, C·M) that is zero on its padding."""
    height, width, channels = image.shape
    stride, pixels, outputs = slot.shape
    if h < 0 or h >= height:
        zero(slot.reshape(-1))
        return
    line = image[h]
    if stride == 1 and outputs == channels:  # one phase: straight into its place
        lo, hi = inside(0, 1, left, width, pixels)
        if pack.size:
            normalise_activate(line[: hi - lo].reshape(-1), pack, code, slot[0, lo:hi].reshape(-1))
        else:
            copy(line[: hi - lo].reshape(-1), slot[0, lo:hi].reshape(-1))
        return
    if pack.size:
        normalise_activate(line.reshape(-1), pack, code, finished.reshape(-1))
        line = finished
    for phase in range(stride):
        lo, hi = inside(phase, stride, left, width, pixels)
        take_every(line, lo * stride + phase - left, stride, slot[phase, lo:hi])


# ---------------------------------------------------------------------------------------------- passes


@kernel
def _forward(x, x_pack, code, w, stride, top, left, y, moments, parts):
    """(1). x (N, H, W, C), finished (pack empty) or raw; w (K, K, C·M); moments (parts, 3, C·M), zero, or empty."""
    images, width, channels = x.shape[0], x.shape[2], x.shape[3]
    rows, columns, outputs = y.shape[1:]
    side_u, side_v = w.shape[:2]
    taps = repeated(w.reshape(side_u * side_v, outputs), row_length(outputs))
    pack = repeated(x_pack, row_length(channels) if x_pack.size else 0)
    pixels = columns + (side_v - 1) // stride  # of a phase
    for part in prange(parts):  # each part writes its own images of y and its own moments
        ring = np.zeros((side_u, stride, pixels, outputs), x.dtype)
        flat = ring.reshape(-1)
        finished = np.empty((width, channels), x.dtype)
        at = np.empty(side_u * side_v, np.int64)
        first, last = share(part, parts, images)
        counted = first  # images whose moments have been taken
        for n in range(first, last):
            filled = 0  # padded rows of this image that have been put into the ring
            for p in range(rows):
                while filled < p * stride + side_u:
                    fill_slot(x[n], filled - top, pack, code, left, finished, ring[filled % side_u])
                    filled += 1
                aim(at, p * stride, (side_u, side_v), ring.shape)
                line = y[n, p].reshape(-1)
                zero(line)
                convolve(line, flat, at, taps, 0, at.size)  # (1)
            if moments.size and ((n + 1 - counted) * y[n].size >= IMAGES or n + 1 == last):
                add_moments(y[counted : n + 1].reshape(-1), outputs, moments[part])
                counted = n + 1


@kernel
def _backward(dy, y, y_pack, means, y_code, x, x_pack, x_code, w, stride, top, left, dx, dw, x_sums):
    """(2) and (3). dw (parts, K·K, C·M) float64, zero; dx (N, H, W, C) or empty; the rest as on the pointwise page."""
    images, height, width, channels = x.shape
    rows, columns, outputs = dy.shape[1:]
    side_u, side_v = w.shape[:2]
    length = row_length(outputs)
    taps = repeated(w.reshape(side_u * side_v, outputs), length)
    pack = repeated(x_pack, row_length(channels) if x_pack.size else 0)
    pack_y = repeated(y_pack, length if y_pack.size else 0)
    means_y = repeated(means, length if y_pack.size else 0)
    back_u, back_v = (side_u + stride - 1) // stride, (side_v + stride - 1) // stride  # taps that meet in a row, a pixel
    pixels = columns + (side_v - 1) // stride
    order, start = taps_by_phase(taps, side_u, side_v, stride)
    for part in prange(dw.shape[0]):  # each part writes its own images of dx, its own dw and its own sums
        ring = np.zeros((side_u, stride, pixels, outputs), x.dtype)
        dring = np.zeros((back_u, back_v - 1 + pixels, outputs), x.dtype)  # rows of dy, zeros before and after
        phases = np.empty((stride, pixels, outputs), x.dtype)
        finished = np.empty((width, channels), x.dtype)
        at, back = np.empty(side_u * side_v, np.int64), np.empty(side_u * side_v, np.int64)
        dtaps = np.zeros((side_u * side_v, length), x.dtype)
        first, last = share(part, dw.shape[0], images)
        counted = first
        for n in range(first, last):
            filled, written = 0, 0  # padded rows of x in the ring; padded rows of dx written
            for p in range(rows):
                while filled < p * stride + side_u:
                    fill_slot(x[n], filled - top, pack, x_code, left, finished, ring[filled % side_u])
                    filled += 1
                aim(at, p * stride, (side_u, side_v), ring.shape)
                d = dring[p % back_u, back_v - 1 : back_v - 1 + columns].reshape(-1)
                if pack_y.size:
                    unit_gradient(dy[n, p].reshape(-1), y[n, p].reshape(-1), pack_y, means_y, y_code, d)
                else:
                    copy(dy[n, p].reshape(-1), d)
                correlate(dtaps, d, ring.reshape(-1), at)  # (3)
                if dx.size:
                    done = (p + 1) * stride if p + 1 < rows else top + height
                    while written < done:  # rows that no later row of dy reaches
                        if top <= written < top + height:
                            out = dx[n, written - top]
                            gather_dx(dring, written, p, order, start, side_u, side_v, left, back, phases, out)  # (2)
                        written += 1
            if x_sums.size and ((n + 1 - counted) * x[n].size >= IMAGES or n + 1 == last):
                add_gradient_sums(
                    dx[counted : n + 1].reshape(-1), x[counted : n + 1].reshape(-1), pack, x_code, x_sums[part]
                )
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
def gather_dx(dring, r, newest, order, start, side_u, side_v, left, at, phases, line):
    """(2) for padded row r of x: line (W, C) from the rows of dy in the ring, the newest of which is given."""
    back_u, size, outputs = dring.shape
    stride, pixels = phases.shape[:2]
    before = size - pixels
    width, channels = line.shape
    flat = dring.reshape(-1)
    direct = stride == 1 and outputs == channels
    if not direct and left + width > pixels * stride:
        zero(line.reshape(-1))  # last columns that no window reaches
    for phase in range(stride):
        first, count = start[r % stride, phase], 0
        lo, hi = inside(phase, stride, left, width, pixels)
        p = r // stride
        for _ in range(r % stride, side_u, stride):
            slot, shift = p % back_u, 0
            for _ in range(phase, side_v, stride):
                if p > newest:
                    first += 1  # a tap that would reach below the last row of dy
                elif p >= 0:
                    at[count] = (slot * size + before - shift + lo) * outputs
                    count += 1
                shift += 1
            p -= 1
        out = line.reshape(-1) if direct else phases[phase, lo:hi].reshape(-1)
        zero(out)
        convolve(out, flat, at, order, first, count)
        if not direct:
            put_every(phases[phase, lo:hi], lo * stride + phase - left, stride, line)


# ------------------------------------------------------------------------------------ used by conv–BN–activation units


def unit_forward(x, x_pack, x_code, w, stride, pads, y, moments):
    """y (N, P, Q, C·M) from finished(x) and w (K, K, C, M); ``moments`` as for pointwise. No checks."""
    _forward(
        x,
        x_pack,
        x_code,
        w.reshape(*w.shape[:2], -1),
        stride,
        pads[0][0],
        pads[1][0],
        y,
        moments,
        moments.shape[0] or parts_of(len(x)),
    )


def unit_backward(dy, y, y_pack, means, y_code, x, x_pack, x_code, w, stride, pads, dx, dw, x_sums, partial):
    """dw (K, K, C, M), and where dx has a size dx and x_sums; ``partial`` (parts, K·K, C·M) float64, scratch. No checks."""
    partial[:] = 0
    _backward(
        dy,
        y,
        y_pack,
        means,
        y_code,
        x,
        x_pack,
        x_code,
        w.reshape(*w.shape[:2], -1),
        stride,
        pads[0][0],
        pads[1][0],
        dx,
        partial,
        x_sums,
    )
    dw.reshape(partial.shape[1:])[:] = partial.sum(axis=0)


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
    w = _check.tensor("w", w, (None, None, x.shape[3], None), x.dtype)
    _check.positive("w: kernel side", min(w.shape[:2]))
    stride = _check.positive("stride", stride)
    pads = resolve(padding, x.shape[1:3], w.shape[:2], stride)
    sides = [output_side(n, k, stride, *pad) for n, k, pad in zip(x.shape[1:3], w.shape[:2], pads)]
    return x, w, stride, pads, (x.shape[0], *sides, w.shape[2] * w.shape[3])


def depthwise_cost(n: int, p: int, q: int, k: int, c: int, m: int = 1, *, h: int, w: int) -> Cost:
    """K²·C·M·N·P·Q MACs in each nest (Howard et al. 2017, equation 4), from an H×W input to a P×Q output."""
    macs = n * p * q * k * k * c * m
    return Cost(macs, macs, macs, params=k * k * c * m, inputs=n * h * w * c, outputs=n * p * q * c * m)
