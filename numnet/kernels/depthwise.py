"""Depthwise convolution: one K×K filter a channel; most of the bytes a MobileNet moves, 3 % of its multiplications.

Output channel o = c·M + m comes from input channel c alone (Howard et al. 2017, equation 3; M, the depth multiplier,
is 1 in every MobileNet). With x = 0 outside the image, and i = p·s + u − top, j = q·s + v − left:

(1)  y[p, q, o]   = Σ_uv x[i, j, c] · w[u, v, o]                       forward
(2)  dx[i, j, c]  = Σ_uvm dy[p, q, o] · w[u, v, o]                     over the (p, q) that reach (i, j) by tap (u, v)
(3)  dw[u, v, o]  = Σ_npq x[i, j, c] · dy[p, q, o]

**A row is a vector.** In NHWC an image row of W pixels is W·C numbers, side by side, and a shift by v pixels is a shift
by v·C numbers. With the weights of a tap repeated along the row, an output row is K·K multiply-adds of long vectors,
each a shifted stretch of an input row. So are both gradients, with the roles swapped:

    (1)  y[p]      +=  x[i], shifted   ·  w[u, v]         ``sum_rows``
    (2)  dx[i]     +=  dy[p], shifted  ·  w[u, v]         ``sum_rows`` again, at stride 1; else ``sum_phase``
    (3)  dw[u, v]  +=  x[i], shifted   ·  dy[p]           ``correlate_rows``

The page ``windows`` has all three, and what makes them fast: two rows of y, of dx or of dy go through one sweep with all K·K
taps. (2) is (1) with the taps turned around, on rows of dy between zeros.

**The ring.** Shifted stretches are read from padded copies of the last few rows, in a ring that stays in the cache
whatever the size of the image. While a row is copied it is normalised and activated (batchnorm's equations 2 and 3),
so that the raw output of the unit before is all that this one reads. Forward, where there is nothing to be finished, the
copy is saved: windows inside the image are read where they lie, and only those that reach over its border from the ring.
The pair and the saved copy together made (1) 1.4 to 1.6 times as fast.

**Strides.** For dx at stride s the roles are swapped: row i takes the taps u ≡ i + top (mod s), its columns ≡ j (mod s)
the taps v ≡ j: a stride-s convolution backwards is s·s small ones of stride 1, 2×2 to 1×1 for K = 3, whose results are
interleaved.

In backward the rows of dx that no later dy can reach leave the ring at once, and while they are hot their share of the
previous batch norm's sums (its equation 5) is taken, after the gradient of another reader of x (``more``), if it has
one, was added.

MACs: K·K·C·M·N·P·Q in each nest, taps on the padding counted, as the papers do. (1) and (3) multiply exactly that
often; (2) takes all taps of each pixel of x, of dy or of the zeros around it: K·K·C·M·N·H·W at stride 1.
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
from numnet.kernels.rows import add, copy, line_up, repeated, row_length, share, zero
from numnet.kernels.windows import (
    PAIR,
    add_table,
    correlate_rows,
    empty_table,
    stretch,
    sum_phase,
    sum_rows,
    together,
)

HOT = 16384  # numbers of finished images after which their sums are taken: 64 KiB of float32, still in the cache


# ---------------------------------------------------------------------------------------------- rows in and out


@row
def spread(line, multiplier, out):
    """Every number M times: input channel c for its outputs c·M … c·M + M − 1."""
    o = 0
    for i in range(line.size):
        for _ in range(multiplier):
            out[o] = line[i]
            o += 1


@row
def gather(out, multiplier, line):
    """The way back, the M copies of a channel added up."""
    o = 0
    for i in range(line.size):
        total = out[o]
        for m in range(1, multiplier):
            total += out[o + m]
        line[i] = total
        o += multiplier


@row
def fill_slot(image, h, channels, pack, code, left, finished, slot, outputs, head, tail):
    """Row h of an image (H, W·C), finished on the way, into a slot that is zero on its padding.

    Of a row that needs nothing done to it, only the first ``head`` and the last ``tail`` numbers.
    """
    if h < 0 or h >= image.shape[0]:
        zero(slot)
        return
    line = image[h]
    multiplier = outputs // channels
    place = slot[left * outputs : left * outputs + line.size * multiplier]
    if pack.size:
        done = place if multiplier == 1 else finished
        normalise_activate(line, pack, code, done)
        line = done
    elif multiplier == 1:
        copy(line[:head], place[:head])
        copy(line[line.size - tail :], place[line.size - tail :])
    if multiplier > 1:
        spread(line, multiplier, place)


@row
def slot_pixels(width, left, columns_out, side_v, stride):
    """Pixels of a padded row: the image's, and those of the last window."""
    return max(left + width, (columns_out - 1) * stride + side_v)


@row
def convolve_pair(
    image, pack, code, taps, length, shape, outputs, flat, slots, filled, finished, at, y, p, count
):
    """(1): rows p … p + count − 1 of y (P, Q·C·M), from an image (H, W·C). Gives the new ``filled``."""
    channels, side_u, side_v, stride, top, left = shape
    height, line_size = image.shape
    size, slot_size = y.shape[1], flat.size // (slots + 1)  # the last slot is zero, for rows outside
    lines, y0, y1 = image.reshape(-1), y[p], y[p + count - 1]
    first, last = p * stride, (p + count - 1) * stride + side_u  # the padded rows of these windows
    begin, end = inner_columns(line_size // channels, size // outputs, left, side_v, stride)
    direct = pack.size == 0 and outputs == channels and 2 * (end - begin) * outputs > size
    inside = direct and first >= top and last <= top + height
    new = first if direct and not inside else max(first, filled)
    head, tail = line_size, 0
    los, his = (0, 0, 0), (0, size, 0)
    if inside:  # straight from the image; the ring is for the first and the last columns
        head = max((begin - 1) * stride + side_v - left, 0) * channels
        tail = max(line_size - (end * stride - left) * channels, 0)
        los, his = (begin * outputs, 0, end * outputs), (end * outputs, begin * outputs, size)
    for piece in range(3):
        lo, hi = los[piece], his[piece]
        if piece == 0:
            source, origin = lines, lo * stride - left * outputs
            for r in range(first, last):
                at[r - first] = (r - top) * line_size
        else:
            source, origin = flat, lo * stride
            for r in range(max(new, top), min(last, top + height)):
                slot = flat[r % slots * slot_size : (r % slots + 1) * slot_size]
                fill_slot(image, r - top, channels, pack, code, left, finished, slot, outputs, head, tail)
            new = last
            for r in range(first, last):
                slot_number = r % slots if top <= r < top + height else slots
                at[r - first] = slot_number * slot_size
        if hi > lo:
            sum_rows(
                y0, y1, lo, hi, count == PAIR, source, at, origin, outputs, taps, length, stride, side_u, side_v
            )  # fmt: skip
    return last


@row
def inner_columns(width, columns_out, left, side_v, stride):
    """The columns of y whose windows lie inside the image: from the first to the one after the last."""
    begin = (left + stride - 1) // stride
    return begin, min((width + left - side_v) // stride + 1, columns_out)


# ---------------------------------------------------------------------------------------------- passes
# x (N, H, W·C), y and dy (N, P, Q·C·M), dx like x; ``shape`` = C, K, K, stride, top, left.


@kernel
def _forward(x, x_pack, code, taps, shape, y, moments, parts):
    """(1). x finished (pack empty) or raw; taps (K·K, C·M); moments (parts, 3, C·M), zero, or empty."""
    channels, side_u, side_v, stride, _, left = shape
    images, rows, size = y.shape
    outputs = taps.shape[1]
    length = stretch(outputs, stride, taps.shape[0])
    long_taps = repeated(taps, length).reshape(-1)
    pack = repeated(x_pack, row_length(channels) if x_pack.size else 0)
    slot_size = slot_pixels(x.shape[2] // channels, left, size // outputs, side_v, stride) * outputs
    slots = (PAIR - 1) * stride + side_u
    unspread = x.shape[2] if outputs > channels else 0  # a row that waits for its channels to be repeated
    flat_y = y.reshape(-1)
    for part in prange(parts):  # each part writes its own images of y and its own moments
        flat = line_up((slots + 1) * slot_size, x)
        finished = np.empty(unspread, x.dtype)
        at = np.empty(slots, np.int64)
        first, last = share(part, parts, images)
        counted = first  # images whose moments have been taken
        for n in range(first, last):
            filled = 0  # padded rows of this image that have been put into the ring
            for p in range(0, rows, PAIR):
                count = min(PAIR, rows - p)
                filled = convolve_pair(
                    x[n],
                    pack,
                    code,
                    long_taps,
                    length,
                    shape,
                    outputs,
                    flat,
                    slots,
                    filled,
                    finished,
                    at,
                    y[n],
                    p,
                    count,
                )
            if moments.size and ((n + 1 - counted) * rows * size >= HOT or n + 1 == last):
                add_moments(flat_y[counted * rows * size : (n + 1) * rows * size], outputs, moments[part])
                counted = n + 1


@kernel
def _inference(x, taps, folded, code, shape, y, band):
    """(1), batch norm and activation in the row: folded (2, C·M) = scale and shift; ``band`` rows of y a tile."""
    channels, side_u, side_v, stride, _, left = shape
    images, rows, size = y.shape
    outputs = taps.shape[1]
    length = stretch(outputs, stride, taps.shape[0])
    long_taps = repeated(taps, length).reshape(-1)
    long = repeated(folded, row_length(outputs))
    slot_size = slot_pixels(x.shape[2] // channels, left, size // outputs, side_v, stride) * outputs
    slots = (PAIR - 1) * stride + side_u
    bands = (rows + band - 1) // band
    none = np.empty((0, 0), x.dtype)
    nothing = np.empty(0, x.dtype)
    for tile in prange(images * bands):  # each tile writes its own rows of y
        n, first = tile // bands, tile % bands * band
        flat = line_up((slots + 1) * slot_size, x)
        at = np.empty(slots, np.int64)
        filled, last = 0, min(first + band, rows)
        for p in range(first, last, PAIR):
            count = min(PAIR, last - p)
            filled = convolve_pair(
                x[n],
                none,
                0,
                long_taps,
                length,
                shape,
                outputs,
                flat,
                slots,
                filled,
                nothing,
                at,
                y[n],
                p,
                count,
            )
            finish(y[n, p : p + count].reshape(-1), long, code, nothing)


@kernel
def _backward(dy, y, y_pack, means, y_code, x, x_pack, x_code, taps, shape, dx, more, dw, x_sums):
    """(2) and (3). dw (parts, K·K, C·M) float64, zero; dx and more like x, or empty; the rest as on the pointwise page."""
    channels, side_u, side_v, stride, top, left = shape
    images, rows, size = dy.shape
    height, line_size = x.shape[1:]
    outputs = taps.shape[1]
    length, at_once = stretch(outputs, stride, taps.shape[0]), together(outputs, stride)
    pack = repeated(x_pack, row_length(channels) if x_pack.size else 0)
    pack_y = repeated(y_pack, row_length(outputs) if y_pack.size else 0)
    means_y = repeated(means, row_length(outputs) if y_pack.size else 0)
    order, start = taps_by_phase(repeated(taps, length), side_u, side_v, stride)
    back_u = (side_u + stride - 1) // stride  # rows of dy that meet in a row of dx, and columns
    back_v = (side_v + stride - 1) // stride
    slots = (PAIR - 1) * stride + side_u
    slot_size = slot_pixels(line_size // channels, left, size // outputs, side_v, stride) * outputs
    back_slots = (
        (back_u + 2 * PAIR - 1) // PAIR * PAIR
    )  # whole pairs, one for a row of dx that waits for its partner
    before = (back_v - 1) * outputs  # zeros before and after a row of dy
    unspread = line_size if outputs > channels else 0  # rows whose channels are not repeated yet, or any more
    flat_x, flat_dx = x.reshape(-1), dx.reshape(-1)
    for part in prange(dw.shape[0]):  # each part writes its own images of dx, its own dw and its own sums
        flat = line_up(slots * slot_size, x)
        dring = line_up((back_slots + 1) * (before + size + before), x)
        dring = dring.reshape(back_slots + 1, -1)  # the last slot stays zero, for rows outside
        finished = np.empty(unspread, x.dtype)
        wide = np.empty((PAIR, unspread // channels * outputs), x.dtype)
        at, back = np.empty(slots, np.int64), np.empty(side_u * side_v + PAIR, np.int64)
        dtable = empty_table(side_u * side_v, at_once, x)
        first, last = share(part, dw.shape[0], images)
        counted = first
        for n in range(first, last):
            filled, written = 0, top  # padded rows of x in the ring; of dx, written or above the image
            for p in range(0, rows, PAIR):
                count = min(PAIR, rows - p)
                while filled < (p + count - 1) * stride + side_u:
                    slot = flat[filled % slots * slot_size : (filled % slots + 1) * slot_size]
                    fill_slot(
                        x[n], filled - top, channels, pack, x_code, left, finished, slot, outputs, line_size, 0
                    )  # fmt: skip
                    filled += 1
                for r in range(slots):
                    at[r] = (p * stride + r) % slots * slot_size
                for r in range(p, p + count):
                    d = dring[r % back_slots, before : before + size]
                    if pack_y.size:
                        unit_gradient(dy[n, r], y[n, r], pack_y, means_y, y_code, d)
                    else:
                        copy(dy[n, r], d)
                d0 = dring[p % back_slots, before : before + size]
                d1 = dring[(p + count - 1) % back_slots, before : before + size]
                correlate_rows(  # (3)
                    d0,
                    d1,
                    0,
                    size,
                    count == PAIR,
                    flat,
                    at,
                    0,
                    outputs,
                    dtable,
                    at_once,
                    stride,
                    side_u,
                    side_v,
                )
                done = min((p + count) * stride, top + height) if p + count < rows else top + height
                while dx.size and written < done:  # rows that no later row of dy reaches
                    ready = min(PAIR, done - written) if stride == 1 else 1
                    if stride == 1 and ready < PAIR and p + count < rows:
                        break  # its partner comes with the next pair of dy
                    lines = dx[n, written - top : written - top + ready]
                    dx_rows(dring, before, rows, written, order, start, shape, outputs, back, wide, lines)
                    if more.size:
                        for r in range(ready):
                            add(lines[r], more[n, written - top + r])
                    written += ready
            if (n + 1 - counted) * height * line_size >= HOT or n + 1 == last:
                add_table(dtable, at_once, dw[part])
                if x_sums.size:
                    lo, hi = counted * height * line_size, (n + 1) * height * line_size
                    add_gradient_sums(flat_dx[lo:hi], flat_x[lo:hi], pack, x_code, x_sums[part])
                counted = n + 1


@row
def taps_by_phase(taps, side_u, side_v, stride):
    """The rows of taps (K·K, L) in the order in which dx needs them, and where each (row phase, column phase) starts."""
    order, start = line_up(taps.size, taps).reshape(taps.shape), np.empty((stride, stride), np.int64)
    count = 0
    for row_phase in range(stride):
        for phase in range(stride):
            start[row_phase, phase] = count
            for u in range((side_u - 1 - row_phase) // stride * stride + row_phase, -1, -stride):
                for v in range((side_v - 1 - phase) // stride * stride + phase, -1, -stride):
                    copy(taps[u * side_v + v], order[count])
                    count += 1
    return order, start


@row
def dx_rows(dring, before, rows, r, order, start, shape, outputs, at, wide, lines):
    """(2) for padded row r of x, at stride 1 for a pair of rows, too: lines (count, W·C) from rows of dy in the ring.

    For each phase of the columns it is (1), at stride 1, on padded rows of dy, with the phase's taps turned around.
    """
    channels, side_u, side_v, stride, _, left = shape
    slots, slot_size = dring.shape[0] - 1, dring.shape[1]
    count, width = lines.shape[0], lines.shape[1] // channels
    last = (slot_size - before) // outputs  # columns m·s + phase with m ≥ last: no window reaches them
    out = wide if outputs > channels else lines
    if left + width > last * stride or stride > min(side_u, side_v):
        for g in range(count):
            zero(out[g])  # some of its pixels are reached by no window
    flat, length = dring.reshape(-1), order.shape[1]
    back_u = (side_u - 1 - r % stride) // stride + 1  # rows of dy that reach this one
    for k in range(count - 1 + back_u):
        p = r // stride - back_u + 1 + k
        at[k] = (p % slots if 0 <= p < rows else slots) * slot_size
    for phase in range(stride):
        back_v = (side_v - 1 - phase) // stride + 1
        lo = max(left - phase + stride - 1, 0) // stride  # padded columns lo·s + phase … lie in the image
        hi = min((left + width - 1 - phase) // stride + 1, last)
        if hi > lo and back_u > 0 and back_v > 0:
            begin = (lo * stride + phase - left) * outputs
            end = begin + ((hi - 1 - lo) * stride + 1) * outputs
            taps = order[start[r % stride, phase] :].reshape(-1)
            origin = before + (lo - back_v + 1) * outputs
            if stride == 1:
                sum_rows(
                    out[0], out[count - 1], begin, end, count == PAIR, flat, at, origin, outputs, taps, length, 1,
                    back_u, back_v,
                )  # fmt: skip
            else:
                sum_phase(
                    out[0], begin, end, stride * outputs, flat, at, origin, outputs, taps, back_u, back_v
                )
    if outputs > channels:
        for g in range(count):
            gather(wide[g], outputs // channels, lines[g])


# ------------------------------------------------------------------------------------ used by conv–BN–activation units


def unit_forward(x, x_pack, x_code, w, stride, pads, y, moments):
    """y (N, P, Q, C·M) from finished(x) and w (K, K, C, M); ``moments`` as for pointwise. No checks."""
    parts = moments.shape[0] or parts_of(len(x))
    _forward(_lines(x), x_pack, x_code, _taps(w), _shape(w, stride, pads), _lines(y), moments, parts)


def unit_backward(
    dy, y, y_pack, means, y_code, x, x_pack, x_code, w, stride, pads, dx, more, dw, x_sums, partial
):
    """dw (K, K, C, M), and where dx has a size dx, plus ``more`` where that has one, and x_sums. No checks.

    ``partial`` (parts, K·K, C·M) float64 is scratch.
    """
    partial.fill(0)
    upstream = _lines(dy), _lines(y), y_pack, means, y_code
    source = _lines(x), x_pack, x_code
    _backward(
        *upstream, *source, _taps(w), _shape(w, stride, pads), _lines(dx), _lines(more), partial, x_sums
    )
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
            dy, dy, none, none, IDENTITY, x, none, IDENTITY, w, stride, pads, out, x[:0], dw, sums, partial
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
