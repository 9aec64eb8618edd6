"""Dense (fully connected) layer: the classifier at the end of every net, and the simplest product to read first.

(1)  y[n, f]  = Σ_c x[n, c] · w[c, f] + b[f]            forward
(2)  dx[n, c] = Σ_f dy[n, f] · w[c, f]
(3)  dw[c, f] = Σ_n x[n, c] · dy[n, f],    db[f] = Σ_n dy[n, f]

Each entry of dw is a sum over the images, because every image used the same w. dx has no sum over images, because no image
sees another. The products are those of the pointwise page: a 1×1 convolution is a dense layer at every pixel.

**One image.** In inference there are often few images, and then (1) reads each weight from memory to use it once. To pack
them would be of no use. What counts is to read long runs of memory: of each row of w 8 vectors side by side, row after row,
with 8 sums in registers. So V3-Small's 576 × 1024 weights take 18 µs; with 2 vectors side by side, a product's panel, 68 µs.
"""

import numpy as np
from numba import prange

from numnet.kernels import _check, pointwise
from numnet.kernels._cost import Cost
from numnet.kernels._jit import kernel, row
from numnet.kernels.activations import activate_rows
from numnet.kernels.maps import begin_of, share, vectors_of
from numnet.kernels.rows import add
from numnet.kernels.tiles import add_outer, fma_tile, load_tile, store_tile, zeros
from numnet.kernels.vectors import LANES, lanes, number_of, width

# ---------------------------------------------------------------------------------------------- the definition


@kernel(parallel=False)
def _definition(x, w, b, y):
    for n in range(y.shape[0]):
        for f in range(w.shape[1]):
            y[n, f] = b[f]
            for c in range(w.shape[0]):
                y[n, f] += x[n, c] * w[c, f]  # (1)


@kernel(parallel=False)
def _definition_dx(dy, w, dx):
    for n in range(dy.shape[0]):
        for f in range(w.shape[1]):
            for c in range(w.shape[0]):
                dx[n, c] += dy[n, f] * w[c, f]  # (2)


@kernel(parallel=False)
def _definition_dw(dy, x, dw, db):
    for n in range(dy.shape[0]):
        for f in range(dw.shape[1]):
            db[f] += dy[n, f]
            for c in range(dw.shape[0]):
                dw[c, f] += x[n, c] * dy[n, f]  # (3)


def definition(x, w, b=None):
    """y (N, F) by (1), for x (N, C), w (C, F) and b (F,) or None, as plain loops. Raises like forward."""
    x, w = _arguments(x, w)
    b = np.zeros(w.shape[1], x.dtype) if b is None else _check.tensor("b", b, (w.shape[1],), x.dtype)
    y = np.empty((len(x), w.shape[1]), x.dtype)
    _definition(x, w, b, y)
    return y


def definition_backward(dy, x, w):
    """dx (N, C) by (2), dw (C, F) and db (F,) by (3), as plain loops. Raises like forward."""
    x, w = _arguments(x, w)
    dy = _check.tensor("dy", dy, (x.shape[0], w.shape[1]), x.dtype)
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros(w.shape[1], w.dtype)
    _definition_dx(dy, w, dx)
    _definition_dw(dy, x, dw, db)
    return dx, dw, db


# ---------------------------------------------------------------------------------------------- a few images

SIDE = 8  # vectors side by side
FEW = 6  # images: from so many on, a product's tile of 6 rows uses each weight that it loads 6 times, and is faster


@row
def sums_of(like, x, folded, f, places, y):
    """(1) · scale + shift for one image x (C) and the filters from f on: as many vectors as ``like`` has zeros."""
    tile, filters = like, folded.shift.size
    for c in range(x.size):
        tile = add_outer(tile, x, c, 0, load_tile(like, folded.w, c * filters + f, 0, places))
    scale, shift = load_tile(like, folded.scale, f, 0, places), load_tile(like, folded.shift, f, 0, places)
    store_tile(fma_tile(tile, scale, shift), y, f, 0, places)


@row
def few_images(x, folded, code, skip, y, span, v):
    """y (N·F) = activation(x (N·C) · w · scale + shift) + skip, for the vectors first … last − 1 = span of the filters.

    An empty skip adds nothing.
    """
    filters, n = folded.shift.size, width(v)
    images, (first, last) = y.size // filters, span
    channels, places = x.size // images, (0, n, 2 * n, 3 * n, 4 * n, 5 * n, 6 * n, 7 * n)
    begin, end = first * n, begin_of(last - 1, filters, v) + n
    for image in range(images):
        a, out = x[image * channels : (image + 1) * channels], y[image * filters : (image + 1) * filters]
        j = first
        while j + SIDE <= last and (j + SIDE) * n <= filters:
            sums_of(zeros(y, 1, SIDE, v), a, folded, j * n, places, out)
            j += SIDE
        while j < last:
            sums_of(zeros(y, 1, 1, v), a, folded, begin_of(j, filters, v), (0,), out)
            j += 1
        activate_rows(code, out[begin:end], v)
        if skip.size:
            add(out[begin:end], skip[image * filters + begin : image * filters + end])


@kernel
def _few_images(x, folded, code, skip, y, tiles, v):
    """y = activation(x · w · scale + shift) + skip, or no skip if that is empty; all flat."""
    count = vectors_of(folded.shift.size, v)
    groups = max(count // SIDE, 1)
    for tile in prange(tiles):  # each tile writes its own filters of y
        first, last = share(tile, tiles, groups)
        if first < last:
            until = last * SIDE if last < groups else count
            few_images(x, folded, code, skip, y, (first * SIDE, until), v)


def inference_step(x, folded, code, skip, y):
    """The kernel and its arguments for y (N·F) = activation(x (N·C) · w · scale + shift) + skip. No checks."""
    return _few_images, (x, folded, code, skip, y, 8, lanes(folded.shift.size, y.dtype))


# ---------------------------------------------------------------------------------------------- public


def dense_forward(x, w, b=None, out=None):
    """y (N, F) for x (N, C), w (C, F) and the bias b (F,) or None, equation (1).

    float32 or float64, C-contiguous; N may be 0. Raises ValueError naming the argument that is wrong.
    """
    x, w = _arguments(x, w)
    out = _check.output("out", out, (x.shape[0], w.shape[1]), x.dtype)
    if b is not None:
        b = _check.tensor("b", b, (w.shape[1],), x.dtype)
        _check.apart(out, b=b)
    if is_narrow(w):
        out[:] = dense_forward(widened(x, 1), widened(w, 0, 1))[:, : w.shape[1]]
    else:
        pointwise.pointwise_forward(x[:, None, None], w, out[:, None, None])
    if b is not None:
        out += b
    return out


def dense_backward(dy, x, w, out=None):
    """dx (N, C), dw (C, F) and db (F,) for dy (N, F), equations (2) and (3). Raises like forward."""
    x, w = _arguments(x, w)
    dy = _check.tensor("dy", dy, (x.shape[0], w.shape[1]), x.dtype)
    out = _check.output("out", out, x.shape, x.dtype)
    if is_narrow(w):
        dx, dw, db = dense_backward(widened(dy, 1), widened(x, 1), widened(w, 0, 1))
        out[:] = dx[:, : w.shape[0]]
        return out, np.ascontiguousarray(dw[: w.shape[0], : w.shape[1]]), db[: w.shape[1]]
    _, dw = pointwise.pointwise_backward(dy[:, None, None], x[:, None, None], w, out[:, None, None])
    return out, dw, dy.sum(axis=0)


def _arguments(x, w):
    x = _check.tensor("x", x, (None, None))
    return x, _check.tensor("w", w, (x.shape[1], None), x.dtype)


# A dense layer with fewer channels or filters than a vector has numbers (ten classes, above all) gets zeros beside them. Its
# results stay the same to the last bit, and no kernel has to be compiled for narrower vectors, which would take 3 seconds.


def is_narrow(w):
    """True if a side of w is shorter than the processor's vectors."""
    return bool(w.size) and min(w.shape) < number_of(lanes(LANES, w.dtype))


def widened(a, *axes):
    """A copy of the matrix a with zeros behind its numbers, up to one vector along the axes."""
    n = number_of(lanes(LANES, a.dtype))
    return np.pad(a, [(0, max(n - size, 0) if axis in axes else 0) for axis, size in enumerate(a.shape)])


def dense_cost(n: int, c: int, f: int, bias: bool = True) -> Cost:
    """N·C·F MACs in each product; the bias adds F parameters and no MAC."""
    macs = n * c * f
    return Cost(macs, macs, macs, params=c * f + f * bias, inputs=n * c, outputs=n * f)
