"""Dense (fully connected) layer: the classifier at the end of every net, and the simplest product to read first.

(1)  y[n, f]  = Σ_c x[n, c] · w[c, f] + b[f]            forward
(2)  dx[n, c] = Σ_f dy[n, f] · w[c, f]
(3)  dw[c, f] = Σ_n x[n, c] · dy[n, f],    db[f] = Σ_n dy[n, f]

Each entry of dw is a sum over the images, because every image used the same w. dx has no sum over images, because no image
sees another. The products are those of the pointwise page: a 1×1 convolution is a dense layer at every pixel. So this page
adds the bias and nothing else.
"""

import numpy as np

from numnet.kernels import _check, pointwise
from numnet.kernels._cost import Cost
from numnet.kernels._jit import kernel
from numnet.kernels.vectors import LANES, lanes, number_of

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


def definition(x, w, b):
    """y (N, F) by (1), for x (N, C), w (C, F) and b (F,), as plain loops."""
    y = np.empty((len(x), w.shape[1]), x.dtype)
    _definition(x, w, b, y)
    return y


def definition_backward(dy, x, w):
    """dx (N, C) by (2), dw (C, F) and db (F,) by (3), as plain loops."""
    dx, dw, db = np.zeros_like(x), np.zeros_like(w), np.zeros(w.shape[1], w.dtype)
    _definition_dx(dy, w, dx)
    _definition_dw(dy, x, dw, db)
    return dx, dw, db


# ---------------------------------------------------------------------------------------------- public


def dense_forward(x, w, b=None, out=None):
    """y (N, F) for x (N, C), w (C, F) and the bias b (F,) or None, equation (1).

    float32 or float64, C-contiguous; N may be 0. Raises ValueError naming the argument that is wrong.
    """
    x = _check.tensor("x", x, (None, None))
    w = _check.tensor("w", w, (x.shape[1], None), x.dtype)
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
    x = _check.tensor("x", x, (None, None))
    w = _check.tensor("w", w, (x.shape[1], None), x.dtype)
    dy = _check.tensor("dy", dy, (x.shape[0], w.shape[1]), x.dtype)
    out = _check.output("out", out, x.shape, x.dtype)
    if is_narrow(w):
        dx, dw, db = dense_backward(widened(dy, 1), widened(x, 1), widened(w, 0, 1))
        out[:] = dx[:, : w.shape[0]]
        return out, np.ascontiguousarray(dw[: w.shape[0], : w.shape[1]]), db[: w.shape[1]]
    _, dw = pointwise.pointwise_backward(dy[:, None, None], x[:, None, None], w, out[:, None, None])
    return out, dw, dy.sum(axis=0)


# A dense layer of fewer channels or filters than a vector has numbers, ten classes above all, gets zeros beside them. Its
# numbers stay the same to the last bit, and no kernel is compiled for narrower vectors (3 seconds of a first step).


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
