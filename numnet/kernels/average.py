"""Windowed average pooling: the mean over each K×K window, channel by channel.

    T = the taps (u, v), 0 ≤ u, v < K, whose pixel (p·s + u − top, q·s + v − left) lies inside the image
(1)  y[n, p, q, c]  = 1/|T| · Σ_T x[n, p·s + u − top, q·s + v − left, c]
(2)  dx[n, h, w, c] = Σ dy[n, p, q, c]/|T| over the windows (p, q) that hold the pixel (h, w)

Pixels outside the image are not counted, so a map of ones stays a map of ones (Keras's rule; PyTorch's with
``count_include_pad=False``). With K = H = W, stride 1 and no padding there is one window: the global average. With "same"
padding and stride 1 the shape stays as it is, and so do all H·W·C numbers that a layer behind it has to read.

No net of this package needs it; it is here because one article ends MobileNetV1 with it. It has no weights and nothing to
keep for backward but the shape of x. Its loops are the definition: the sum over the taps is the innermost that matters, a
pixel's C channels lie side by side, and each image is done by one thread.
Not supported: windows that lie in the padding altogether.
"""

from numba import prange

from numnet.kernels import _check
from numnet.kernels._cost import Cost
from numnet.kernels._jit import kernel
from numnet.kernels.pooling import nonempty_map, window_of


@kernel
def _forward(x, side, stride, top, left, y):
    """(1)."""
    images, height, width, channels = x.shape
    for n in prange(images):  # each image has its own y
        for p in range(y.shape[1]):
            for q in range(y.shape[2]):
                up, low = max(p * stride - top, 0), min(p * stride - top + side, height)
                west, east = max(q * stride - left, 0), min(q * stride - left + side, width)
                for c in range(channels):
                    y[n, p, q, c] = 0
                for h in range(up, low):
                    for w in range(west, east):
                        for c in range(channels):
                            y[n, p, q, c] += x[n, h, w, c]
                for c in range(channels):
                    y[n, p, q, c] /= (low - up) * (east - west)


@kernel
def _backward(dy, side, stride, top, left, dx):
    """(2), window by window."""
    images, height, width, channels = dx.shape
    for n in prange(images):  # each image has its own dx
        for h in range(height):
            for w in range(width):
                for c in range(channels):
                    dx[n, h, w, c] = 0
        for p in range(dy.shape[1]):
            for q in range(dy.shape[2]):
                up, low = max(p * stride - top, 0), min(p * stride - top + side, height)
                west, east = max(q * stride - left, 0), min(q * stride - left + side, width)
                for h in range(up, low):
                    for w in range(west, east):
                        for c in range(channels):
                            dx[n, h, w, c] += dy[n, p, q, c] / ((low - up) * (east - west))


def average_forward(x, kernel_side, stride=None, padding=0, out=None):
    """y (N, P, Q, C) for x (N, H, W, C) by equation (1).

    ``stride``: kernel_side if None. Raises ValueError for a wrong shape or dtype, and for padding ≥ kernel_side.
    """
    x = nonempty_map("x", x)
    k, stride, pads, sides = window_of(x.shape, kernel_side, stride, padding)
    out = _check.output("out", out, (x.shape[0], *sides, x.shape[3]), x.dtype)
    _check.apart(out, x=x)
    _forward(x, k, stride, pads[0][0], pads[1][0], out)
    return out


def average_backward(dy, shape, kernel_side, stride=None, padding=0, out=None):
    """dx of ``shape`` (N, H, W, C) for dy (N, P, Q, C), equation (2): only the shape of x is needed. Raises like forward."""
    n, h, w, c = _check.image_shape(shape)
    k, stride, pads, sides = window_of((n, h, w, c), kernel_side, stride, padding)
    dy = _check.tensor("dy", dy, (n, *sides, c))
    out = _check.output("out", out, (n, h, w, c), dy.dtype)
    _check.apart(out, dy=dy)
    _backward(dy, k, stride, pads[0][0], pads[1][0], out)
    return out


def average_cost(n: int, h: int, w: int, c: int, kernel_side: int, p: int, q: int) -> Cost:
    """No MACs; N·P·Q·K²·C numbers are added, those on the padding counted."""
    added = n * p * q * kernel_side * kernel_side * c
    return Cost(elementwise=added, inputs=n * h * w * c, outputs=n * p * q * c)
