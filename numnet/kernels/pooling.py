"""Pooling: the mean or the largest of many pixels, channel by channel.

(1)  global average   y[n, c] = Σ_hw x[n, h, w, c] / (H·W)          dx = dy / (H·W) at every pixel
(2)  global maximum   y[n, c] = max_hw x[n, h, w, c]                dx = dy at the first largest pixel, else 0
(3)  maximum          y[n, p, q, c] = max_uv x[n, p·s + u − top, q·s + v − left, c]
                      dx gains dy at the first largest pixel of each window; pixels outside the image never win

(1) is the end of every MobileNet and of GoogLeNet (Lin, Chen and Yan 2014). It turns an H×W map into one number a channel,
has no parameters, and works at any resolution. It reads a raw map through its pack, like any other unit.
In (2) and (3) a NaN wins, so that it is not hidden. Of equal numbers the first in row-major order wins, as in PyTorch.
Not supported: windows that lie in the padding altogether.
"""

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._cost import Cost
from numnet.kernels._jit import kernel, row
from numnet.kernels.batchnorm import finished_tile, source_of
from numnet.kernels.maps import begin_of, vectors_of
from numnet.kernels.padding import output_side, resolve
from numnet.kernels.rows import copy, zero_row
from numnet.kernels.vectors import load, spread, store, zero

# ---------------------------------------------------------------------------------------------- the definition


@kernel(parallel=False)
def _definition_average(x, y):
    for n in range(x.shape[0]):
        for h in range(x.shape[1]):
            for w in range(x.shape[2]):
                for c in range(x.shape[3]):
                    y[n, c] += x[n, h, w, c] / (x.shape[1] * x.shape[2])  # (1)


@kernel(parallel=False)
def _definition_average_dx(dy, dx):
    for n in range(dx.shape[0]):
        for h in range(dx.shape[1]):
            for w in range(dx.shape[2]):
                for c in range(dx.shape[3]):
                    dx[n, h, w, c] = dy[n, c] / (dx.shape[1] * dx.shape[2])


@kernel(parallel=False)
def _definition_maximum(x, side, stride, top, left, where):
    """(3). where (N, P, Q, C): the first pixel h·W + w that no other of the window is larger than; −1 before."""
    for n in range(where.shape[0]):
        for p in range(where.shape[1]):
            for q in range(where.shape[2]):
                for u in range(side):
                    for v in range(side):
                        h, w = p * stride + u - top, q * stride + v - left
                        if 0 <= h < x.shape[1] and 0 <= w < x.shape[2]:
                            for c in range(x.shape[3]):
                                best = where[n, p, q, c]
                                if best < 0 or x[n, h, w, c] > x[n, best // x.shape[2], best % x.shape[2], c]:
                                    where[n, p, q, c] = h * x.shape[2] + w


def window_of(shape, kernel_side, stride, padding):
    """(kernel side, stride, ((top, bottom), (left, right)), (P, Q)) on a map of ``shape``, here and on the page ``average``.

    Raises ValueError for padding ≥ kernel_side, and for what else a window cannot be.
    """
    k = _check.positive("kernel_side", kernel_side)
    stride = _check.positive("stride", k if stride is None else stride)
    pads = resolve(padding, shape[1:3], (k, k), stride)
    if max(n for pair in pads for n in pair) >= k:
        raise ValueError(f"padding: expected less than the kernel side {k}, got {pads}")
    return k, stride, pads, tuple(output_side(n, k, stride, *pad) for n, pad in zip(shape[1:3], pads))


def definition_average(x):
    """y (N, C) by (1), plain loops. Raises like ``global_average_forward``."""
    x = nonempty_map("x", x)
    y = np.zeros((x.shape[0], x.shape[3]), x.dtype)
    _definition_average(x, y)
    return y


def definition_average_backward(dy, shape):
    """dx of ``shape`` (N, H, W, C) for dy (N, C). Raises like ``global_average_backward``."""
    n, h, w, c = _check.image_shape(shape)
    dy = _check.tensor("dy", dy, (n, c))
    dx = np.empty((n, h, w, c), dy.dtype)
    _definition_average_dx(dy, dx)
    return dx


def definition_maximum(x, kernel_side, stride=None, padding=0):
    """y (N, P, Q, C) by (3), and the winners' pixels; for x without NaN. Arguments and errors as of ``max_forward``."""
    x = nonempty_map("x", x)
    k, stride, ((top, _), (left, _)), sides = window_of(x.shape, kernel_side, stride, padding)
    where = np.full((len(x), *sides, x.shape[3]), -1, np.int32)
    _definition_maximum(x, k, stride, top, left, where)
    pixels = x.reshape(len(x), -1, x.shape[3])
    return np.take_along_axis(pixels, where.reshape(len(x), -1, x.shape[3]), 1).reshape(where.shape), where


def definition_maximum_backward(dy, where, shape):
    """dx of ``shape`` (N, H, W, C): each dy is added to the pixel that won. Raises like ``max_backward``."""
    dy, where, (images, height, width, channels) = _arguments(dy, where, shape)
    dx = np.zeros((images, height * width, channels), dy.dtype)
    for n, p, q, c in np.ndindex(*dy.shape):
        dx[n, where[n, p, q, c], c] += dy[n, p, q, c]
    return dx.reshape(images, height, width, channels)


# ---------------------------------------------------------------------------------------------- passes


@row
def average_image(image, means, v):
    """(1) for one finished image, a flat array of whole pixels: means (C,). A vector of channels goes over the pixels."""
    channels = means.size
    inverse = spread(image.dtype.type(1) / image.dtype.type(image.size // channels), v)
    for j in range(vectors_of(channels, v)):
        c = begin_of(j, channels, v)
        total = zero(image, v)
        for i in range(c, image.size, channels):
            total = total + load(image, i, v)
        store(means, c, total * inverse)


@kernel
def _average(source, y, v):
    """(1). source: the map (N, H, W, C), finished or raw; y (N, C)."""
    images, height, width_, channels = source.raw.shape
    x, size = source.raw.reshape(-1), height * width_ * channels
    for n in prange(images):  # each image has its own row of y
        scratch = np.empty(size if source.pack.size else 0, x.dtype)
        average_image(finished_tile(x[n * size : (n + 1) * size], source, scratch), y[n], v)


@kernel
def _average_backward(dy, dx):
    images, pixels = dx.shape[:2]
    for n in prange(images):  # each image has its own dx
        share = dy[n] / dy.dtype.type(pixels)
        for p in range(pixels):
            copy(share, dx[n, p])


@row
def take_larger(line, place, best, where):
    """best = max(best, line), where = the place of the winner; a NaN wins, and the first of equals stays."""
    for c in range(line.size):
        if line[c] > best[c] or (line[c] != line[c] and best[c] == best[c]):
            best[c] = line[c]
            where[c] = place


@kernel
def _maximum(x, side_u, side_v, stride, top, left, y, where):
    """(3). ``where`` (N, P, Q, C) int32: the winner's pixel h·W + w."""
    images, height, width, _ = x.shape
    for n in prange(images):  # each image has its own y and where
        for p in range(y.shape[1]):
            for q in range(y.shape[2]):
                fresh = True
                for h in range(max(p * stride - top, 0), min(p * stride - top + side_u, height)):
                    for w in range(max(q * stride - left, 0), min(q * stride - left + side_v, width)):
                        if fresh:
                            copy(x[n, h, w], y[n, p, q])
                            where[n, p, q] = h * width + w
                            fresh = False
                        else:
                            take_larger(x[n, h, w], h * width + w, y[n, p, q], where[n, p, q])


@kernel
def _maximum_backward(dy, where, dx):
    """dx (N, H·W, C) gains dy (N, P·Q, C) at the winners."""
    for n in prange(dy.shape[0]):  # each image has its own dx
        zero_row(dx[n].reshape(-1))
        for p in range(dy.shape[1]):
            for c in range(dy.shape[2]):
                dx[n, where[n, p, c], c] += dy[n, p, c]


def unit_average(source, y):
    """y (N, C): the global average of finished(x). No checks."""
    if y.size:
        _average(source, y, source.lanes)


def global_average_forward(x, out=None):
    """y (N, C) for x (N, H, W, C), equation (1). Raises ValueError for a wrong shape or dtype, or an empty map."""
    x = nonempty_map("x", x)
    out = _check.output("out", out, (x.shape[0], x.shape[3]), x.dtype)
    _check.apart(out, x=x)
    unit_average(source_of(x), out)
    return out


def global_average_backward(dy, shape, out=None):
    """dx of ``shape`` (N, H, W, C) for dy (N, C), from the shape of x alone. Raises ValueError for a wrong shape or dtype."""
    n, h, w, c = _check.image_shape(shape)
    dy = _check.tensor("dy", dy, (n, c))
    out = _check.output("out", out, (n, h, w, c), dy.dtype)
    _check.apart(out, dy=dy)
    _average_backward(dy, out.reshape(n, h * w, c))
    return out


def max_forward(x, kernel_side, stride=None, padding=0, out=None):
    """y (N, P, Q, C) by equation (3) and the winners' pixels (N, P, Q, C), int32, which backward needs.

    ``stride``: kernel_side if None. Raises ValueError for a wrong shape or dtype and for padding ≥ kernel_side.
    """
    x = nonempty_map("x", x)
    k, stride, pads, sides = window_of(x.shape, kernel_side, stride, padding)
    shape = (x.shape[0], *sides, x.shape[3])
    out = _check.output("out", out, shape, x.dtype)
    _check.apart(out, x=x)
    where = np.empty(shape, np.int32)
    _maximum(x, k, k, stride, pads[0][0], pads[1][0], out, where)
    return out, where


def max_backward(dy, where, shape, out=None):
    """dx of ``shape`` (N, H, W, C) for dy and the winners of forward. Raises ValueError for a wrong shape or dtype."""
    dy, where, (n, h, w, c) = _arguments(dy, where, shape)
    out = _check.output("out", out, (n, h, w, c), dy.dtype)
    _check.apart(out, dy=dy)
    pixels = dy.shape[1] * dy.shape[2]
    _maximum_backward(dy.reshape(n, pixels, c), where.reshape(n, pixels, c), out.reshape(n, h * w, c))
    return out


def _arguments(dy, where, shape):
    n, h, w, c = _check.image_shape(shape)
    if not isinstance(where, np.ndarray) or where.dtype != np.int32 or where.ndim != 4:
        raise ValueError("where: expected the int32 winners (N, P, Q, C) that forward returned")
    dy = _check.tensor("dy", dy, (n, *where.shape[1:3], c))
    where = np.require(where, requirements=["C", "W"])
    if where.shape != dy.shape:
        raise ValueError(f"where: expected shape {dy.shape} like dy, got {where.shape}")
    if where.size and not (0 <= where.min() and where.max() < h * w):
        raise ValueError(f"where: expected pixels 0 to {h * w - 1}, got {where.min()} to {where.max()}")
    return dy, where, (n, h, w, c)


def global_max_forward(x):
    """y (N, C) and the winners (N, C), equation (2), for x (N, H, W, C). Raises like ``max_forward``."""
    x = nonempty_map("x", x)
    n, h, w, c = x.shape
    y, where = np.empty((n, 1, 1, c), x.dtype), np.empty((n, 1, 1, c), np.int32)
    _maximum(x, h, w, 1, 0, 0, y, where)
    return y[:, 0, 0], where[:, 0, 0]


def global_max_backward(dy, where, shape, out=None):
    """dx of ``shape`` (N, H, W, C) for dy (N, C) and the winners of forward. Raises like ``max_backward``."""
    n, _, _, c = _check.image_shape(shape)
    dy = _check.tensor("dy", dy, (n, c))
    if getattr(where, "shape", None) != (n, c):
        raise ValueError(f"where: expected the winners ({n}, {c}) that forward returned, got {where!r:.60}")
    return max_backward(dy[:, None, None], where[:, None, None], shape, out)


def nonempty_map(name, x):
    """x (N, H, W, C), checked: every image has a pixel."""
    x = _check.tensor(name, x, (None, None, None, None))
    if x.shape[1] * x.shape[2] == 0:
        raise ValueError(f"{name}: a map of {x.shape[1]}×{x.shape[2]} pixels has no mean and no maximum")
    return x


def pooling_cost(n: int, h: int, w: int, c: int, p: int = 1, q: int = 1) -> Cost:
    """No MACs; N·H·W·C numbers are added or compared."""
    return Cost(elementwise=n * h * w * c, inputs=n * h * w * c, outputs=n * p * q * c)
