"""Dense (fully connected) layer: the classifier at the end of every net, and the simplest product to read first.

(1)  y[n, f]  = Σ_c x[n, c] · w[c, f] + b[f]            forward
(2)  dx[n, c] = Σ_f dy[n, f] · w[c, f]
(3)  dw[c, f] = Σ_n x[n, c] · dy[n, f],    db[f] = Σ_n dy[n, f]

Each entry of dw is a sum over the images because every image used the same w; dx has no sum over images because no
image sees another. The products are those of the pointwise page (a 1×1 convolution is a dense layer at every pixel),
so this page adds the bias and nothing else.
"""

from numnet.kernels import _check, pointwise
from numnet.kernels._cost import Cost


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
    y = pointwise.pointwise_forward(x[:, None, None], w, out[:, None, None])[:, 0, 0]
    if b is not None:
        y += b
    return y


def dense_backward(dy, x, w, out=None):
    """dx (N, C), dw (C, F) and db (F,) for dy (N, F), equations (2) and (3). Raises like forward."""
    x = _check.tensor("x", x, (None, None))
    w = _check.tensor("w", w, (x.shape[1], None), x.dtype)
    dy = _check.tensor("dy", dy, (x.shape[0], w.shape[1]), x.dtype)
    out = _check.output("out", out, x.shape, x.dtype)
    dx, dw = pointwise.pointwise_backward(dy[:, None, None], x[:, None, None], w, out[:, None, None])
    return dx[:, 0, 0], dw, dy.sum(axis=0)


def dense_cost(n: int, c: int, f: int, bias: bool = True) -> Cost:
    """N·C·F MACs in each product; the bias adds F parameters and no MAC."""
    macs = n * c * f
    return Cost(macs, macs, macs, params=c * f + f * bias, inputs=n * c, outputs=n * f)
