"""Depthwise convolution: one K×K filter a channel; 9 of every 10 bytes a MobileNet moves, 3 % of its multiplications.

Output channel o = c·M + m comes from input channel c alone (Howard et al. 2017, equation 3; M, the depth multiplier,
is 1 in every MobileNet). With padding, x is 0 outside the image:

(1)  y[p, q, o]             = Σ_uv x[p·s + u − top, q·s + v − left, c] · w[u, v, o]       forward
(2)  dx[p·s + u − top, …, c] += dy[p, q, o] · w[u, v, o]                                   for every p, q, u, v, m
(3)  dw[u, v, o]            = Σ_npq dy[p, q, o] · x[p·s + u − top, q·s + v − left, c]

**A row is a vector.** In NHWC an image row of W pixels is W·C numbers, side by side. With the weights of tap (u, v)
repeated along a row, all of (1) for one output row is K·K multiply-adds of long vectors:

    forward   y[p]      += x[p·s + u, shifted by v]  ·  w[u, v]
    dx        dx[…]     += dy[p]                     ·  w[u, v]         into the same shifted places
    dw        dw[u, v]  += dy[p]                     ·  x[…]            then added up over the copies

One row function (``multiply_add``) serves all three; the three nests differ in that line.

**The ring.** Rows are shifted by reading them from a padded copy: a ring of K rows, row h of the image in slot
(h + top) mod K. While it is copied, a row is normalised and activated (batchnorm's equations 2 and 3), so the raw
output of the unit before is all that this one reads; K rows fit the second-level cache whatever the image. At stride
s the slot holds s *phases*: pixels 0, s, 2s, … then 1, s+1, …, so that tap v reads phase v mod s from pixel v div s
on — contiguous again, and a strided convolution runs through the same code. Backward keeps a second ring for dx;
an output row touches K rows of it, and the s rows that no later output row can touch are finished: written out, and
their share of the previous batch norm's sums (its equation 5) taken while they are hot.

Multiplications: exactly K·K·N·P·Q·C·M in each nest; taps on the padding multiply a stored 0 (the papers count them).
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
    copy,
    fold,
    multiply_add,
    multiply_add_3,
    repeated,
    row_length,
    share,
)


@row
def split_phases(line, left, multiplier, phases):
    """A row of pixels (W, C) into a slot (s, pixels, C·M): pixel j goes to padded column left + j, phase by phase."""
    stride, pixels, channels = phases.shape
    for j in range(line.shape[0]):
        column = left + j
        if column // stride < pixels:
            spread(line[j], multiplier, phases[column % stride, column // stride])


@row
def spread(pixel, multiplier, out):
    """One pixel (C,) with each channel repeated M times: (C·M,)."""
    if multiplier == 1:
        copy(pixel, out)
    else:
        for o in range(out.size):
            out[o] = pixel[o // multiplier]


@row
def join_phases(phases, left, multiplier, line):
    """The way back: row (W, C) from a slot (s, pixels, C·M), the M copies of a channel added up."""
    stride, pixels, channels = phases.shape
    for j in range(line.shape[0]):
        column = left + j
        if column // stride >= pixels:
            line[j] = 0  # a last column that no window reaches
        elif multiplier == 1:
            copy(phases[column % stride, column // stride], line[j])
        else:
            pixel = phases[column % stride, column // stride]
            for c in range(line.shape[1]):
                line[j, c] = pixel[c * multiplier]
                for m in range(1, multiplier):
                    line[j, c] += pixel[c * multiplier + m]


@row
def fill_slot(image, h, pack, code, left, multiplier, finished, slot):
    """Padded row h of an image (H, W, C) into a slot (s, pixels·C·M), finished on the way; zeros outside the image."""
    height, width, channels = image.shape
    stride, size = slot.shape
    if h < 0 or h >= height:
        slot[:] = 0
        return
    if stride == 1 and multiplier == 1:  # no phases to split: straight into the slot
        count = min(width * channels, size - left * channels)
        inside = slot[0, left * channels : left * channels + count]
        slot[0, : left * channels] = 0
        slot[0, left * channels + count :] = 0
        if pack.size:
            normalise_activate(image[h].reshape(-1)[:count], pack, code, inside)
        else:
            copy(image[h].reshape(-1)[:count], inside)
        return
    slot[:] = 0
    phases = slot.reshape(stride, size // (channels * multiplier), channels * multiplier)
    if pack.size:
        normalise_activate(image[h].reshape(-1), pack, code, finished.reshape(-1))
        split_phases(finished, left, multiplier, phases)
    else:
        split_phases(image[h], left, multiplier, phases)


@row
def ring_of(kernel_side, stride, columns, channels, like):
    """An empty ring (K, s, pixels·C): ``columns`` padded columns in s phases."""
    return np.zeros((kernel_side, stride, (columns + stride - 1) // stride * channels), like.dtype)


@kernel
def _forward(x, x_pack, code, w, stride, top, left, y, moments, parts):
    """(1). x (N, H, W, C), finished (pack empty) or raw; w (K, K, C·M); moments (parts, 3, C·M), zero, or empty."""
    images, height, width, channels = x.shape
    rows, columns, outputs = y.shape[1:]
    side_u, side_v = w.shape[:2]
    length = row_length(outputs)
    taps = repeated(w.reshape(side_u * side_v, outputs), length)
    pack = repeated(x_pack, row_length(channels) if x_pack.size else 0)
    size = columns * outputs
    for part in prange(parts):  # each part writes its own images of y and its own moments
        ring = ring_of(side_u, stride, (columns - 1) * stride + side_v, outputs, x)
        finished = np.empty((width, channels), x.dtype)
        first, last = share(part, parts, images)
        for n in range(first, last):
            filled = 0  # padded rows of this image that have been put into the ring
            for p in range(rows):
                while filled < p * stride + side_u:
                    slot = ring[filled % side_u]
                    fill_slot(x[n], filled - top, pack, code, left, outputs // channels, finished, slot)
                    filled += 1
                line = y[n, p].reshape(-1)
                for lo in range(0, size, length):
                    hi = min(lo + length, size)
                    out = line[lo:hi]
                    out[:] = 0
                    for u in range(side_u):
                        slot = ring[(p * stride + u) % side_u]
                        v = 0
                        while v + 3 <= side_v:
                            a, b, c = v // stride * outputs, (v + 1) // stride * outputs, (v + 2) // stride * outputs
                            tap = u * side_v + v
                            multiply_add_3(  # (1), three taps of a kernel row
                                out,
                                slot[v % stride, a + lo : a + hi],
                                slot[(v + 1) % stride, b + lo : b + hi],
                                slot[(v + 2) % stride, c + lo : c + hi],
                                taps[tap],
                                taps[tap + 1],
                                taps[tap + 2],
                            )
                            v += 3
                        while v < side_v:
                            a = v // stride * outputs
                            multiply_add(out, slot[v % stride, a + lo : a + hi], taps[u * side_v + v])  # (1)
                            v += 1
            if moments.size:
                add_moments(y[n].reshape(-1), outputs, moments[part])


@kernel
def _backward(dy, y, y_pack, means, y_code, x, x_pack, x_code, w, stride, top, left, dx, dw, x_sums):
    """(2) and (3). dw (parts, K·K, C·M) in float64, zero; dx (N, H, W, C) or empty; the rest as for pointwise."""
    images, height, width, channels = x.shape
    rows, columns, outputs = dy.shape[1:]
    side_u, side_v = w.shape[:2]
    length = row_length(outputs)
    taps = repeated(w.reshape(side_u * side_v, outputs), length)
    pack = repeated(x_pack, row_length(channels) if x_pack.size else 0)
    pack_y = repeated(y_pack, length if y_pack.size else 0)
    means_y = repeated(means, length if y_pack.size else 0)
    size = columns * outputs
    for part in prange(dw.shape[0]):  # each part writes its own images of dx, its own dw and its own sums
        ring = ring_of(side_u, stride, (columns - 1) * stride + side_v, outputs, x)
        dring = np.zeros_like(ring)
        finished = np.empty((width, channels), x.dtype)
        raw = np.empty(size, x.dtype)
        dtaps = np.zeros((side_u * side_v, length), x.dtype)
        first, last = share(part, dw.shape[0], images)
        for n in range(first, last):
            filled = 0
            dring[:] = 0
            for p in range(rows):
                while filled < p * stride + side_u:
                    slot = ring[filled % side_u]
                    fill_slot(x[n], filled - top, pack, x_code, left, outputs // channels, finished, slot)
                    filled += 1
                line = dy[n, p].reshape(-1)
                if pack_y.size:
                    unit_gradient(line, y[n, p].reshape(-1), pack_y, means_y, y_code, raw)
                    line = raw
                for lo in range(0, size, length):
                    hi = min(lo + length, size)
                    d = line[lo:hi]
                    for u in range(side_u):
                        slot, dslot = ring[(p * stride + u) % side_u], dring[(p * stride + u) % side_u]
                        for v in range(side_v):
                            a, tap = v // stride * outputs, u * side_v + v
                            multiply_add(dtaps[tap, : hi - lo], d, slot[v % stride, a + lo : a + hi])  # (3)
                            if dx.size:
                                multiply_add(dslot[v % stride, a + lo : a + hi], d, taps[tap])  # (2)
                if dx.size:
                    for padded in range(p * stride, p * stride + (stride if p < rows - 1 else side_u)):
                        if padded < p * stride + side_u:
                            dslot = dring[padded % side_u]
                            if 0 <= padded - top < height:
                                flush(dslot, left, outputs // channels, dx[n, padded - top])
                            dslot[:] = 0
                        elif 0 <= padded - top < height:
                            dx[n, padded - top] = 0  # a row between two windows (stride > K)
            if dx.size:
                for h in range(max((rows - 1) * stride + side_u - top, 0), height):
                    dx[n, h] = 0  # rows below the last window
                if x_sums.size:
                    add_gradient_sums(dx[n].reshape(-1), x[n].reshape(-1), pack, x_code, x_sums[part])
            for tap in range(side_u * side_v):
                fold(dtaps[tap], dw[part, tap])
            dtaps[:] = 0


@row
def flush(dslot, left, multiplier, line):
    """A finished row of the dx ring to its place (W, C)."""
    width, channels = line.shape
    stride, size = dslot.shape
    if stride == 1 and multiplier == 1:
        count = min(width * channels, size - left * channels)
        copy(dslot[0, left * channels : left * channels + count], line.reshape(-1)[:count])
        line.reshape(-1)[count:] = 0
    else:
        outputs = channels * multiplier
        join_phases(dslot.reshape(stride, size // outputs, outputs), left, multiplier, line)


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
    stride = _check.positive("stride", stride)
    pads = resolve(padding, x.shape[1:3], w.shape[:2], stride)
    sides = [output_side(n, k, stride, *pad) for n, k, pad in zip(x.shape[1:3], w.shape[:2], pads)]
    return x, w, stride, pads, (x.shape[0], *sides, w.shape[2] * w.shape[3])


def depthwise_cost(n: int, p: int, q: int, k: int, c: int, m: int = 1, *, h: int, w: int) -> Cost:
    """K²·C·M·N·P·Q MACs in each nest (Howard et al. 2017, equation 4), from an H×W input to a P×Q output."""
    macs = n * p * q * k * k * c * m
    return Cost(macs, macs, macs, params=k * k * c * m, inputs=n * h * w * c, outputs=n * p * q * c * m)
