"""Squeeze-and-excite: every channel of an image is scaled by a number between 0 and 1 that the whole image decides.

With a (N, H, W, C) the finished map, in the code x (Hu, Shen and Sun 2018, equations 2 to 4; Howard et al. 2019, 5.3):

(1)  s[n, c] = Σ_hw a[n, h, w, c] / (H·W)                      squeeze: the pooling page
(2)  g = gate(relu(s · w₁ + b₁) · w₂ + b₂)                      excite: two dense layers, C → R → C
(3)  y[n, h, w, c] = a[n, h, w, c] · g[n, c]                    scale

Backward. a has two readers, (3) and (1), so its gradient has two terms, and the first needs (2) backwards first:

(4)  dg[n, c] = Σ_hw dy[n, h, w, c] · a[n, h, w, c]             then (2) backwards gives ds
(5)  da[n, h, w, c] = dy[n, h, w, c] · g[n, c] + ds[n, c] / (H·W)

This page holds (3), (4) and (5). The map may be raw, with its pack: then (3) and (4) finish it on the way. Its batch norm
needs two sums (batchnorm's equation 5): (5) takes them from each image of da while it is in the cache. So a squeeze-excite
reads the map twice forward and twice backward (and dy twice), and the finished map is never written.

Each image decides for itself, so passes run over images. Only those two sums go over all images; they are added in index
order.
"""

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._cost import Cost
from numnet.kernels._jit import kernel, row
from numnet.kernels.batchnorm import GROUP, add_gradient_sums, finished_tile, source_of
from numnet.kernels.maps import begin_of, parts_of, share, vectors_of
from numnet.kernels.vectors import fma, load, store, zero

# ---------------------------------------------------------------------------------------------- the definition


@kernel(parallel=False)
def _definition(x, gate, y):
    for n in range(x.shape[0]):
        for h in range(x.shape[1]):
            for w in range(x.shape[2]):
                for c in range(x.shape[3]):
                    y[n, h, w, c] = x[n, h, w, c] * gate[n, c]  # (3)


@kernel(parallel=False)
def _definition_backward(dy, x, gate, ds, dx, dgate):
    for n in range(x.shape[0]):
        for h in range(x.shape[1]):
            for w in range(x.shape[2]):
                for c in range(x.shape[3]):
                    dgate[n, c] += dy[n, h, w, c] * x[n, h, w, c]  # (4)
                    dx[n, h, w, c] = dy[n, h, w, c] * gate[n, c] + ds[n, c] / (x.shape[1] * x.shape[2])  # (5)


def definition(x, gate):
    """y (N, H, W, C) = x · gate (N, C) by (3), plain loops. Raises like forward."""
    x, gate = _arguments(x, gate)
    y = np.empty_like(x)
    _definition(x, gate, y)
    return y


def definition_backward(dy, x, gate, ds=None):
    """dx (N, H, W, C) by (5) and dgate (N, C) by (4); ds (N, C): the gradient of the squeezed map, or None for 0.

    Raises like forward.
    """
    x, gate = _arguments(x, gate)
    dy = _check.tensor("dy", dy, x.shape, x.dtype)
    ds = np.zeros_like(gate) if ds is None else _check.tensor("ds", ds, gate.shape, x.dtype)
    dx, dgate = np.empty_like(x), np.zeros_like(gate)
    _definition_backward(dy, x, gate, ds, dx, dgate)
    return dx, dgate


# ---------------------------------------------------------------------------------------------- row functions
# One image at a time: its numbers are a flat array of whole pixels. A vector of channels goes over the pixels.


@row
def scale_image(a, gate, y, v):
    """Equation (3): y = a · gate; gate (C,). Pixels in the order of memory."""
    channels = gate.size
    for first in range(0, a.size, GROUP * channels):
        end = min(first + GROUP * channels, a.size)
        for j in range(vectors_of(channels, v)):
            c = begin_of(j, channels, v)
            g = load(gate, c, v)
            for i in range(first + c, end, channels):
                store(y, i, load(a, i, v) * g)


@row
def gate_gradient(dy, a, dgate, v):
    """Equation (4): dgate (C,) = Σ dy · a over the pixels."""
    channels = dgate.size
    for j in range(vectors_of(channels, v)):
        c = begin_of(j, channels, v)
        total = zero(a, v)
        for i in range(c, a.size, channels):
            total = fma(load(dy, i, v), load(a, i, v), total)
        store(dgate, c, total)


@row
def image_gradient(dy, gate, dmean, da, v):
    """Equation (5): da = dy · gate + dmean; gate and dmean = ds/(H·W) (C,)."""
    channels = gate.size
    for first in range(0, dy.size, GROUP * channels):
        end = min(first + GROUP * channels, dy.size)
        for j in range(vectors_of(channels, v)):
            c = begin_of(j, channels, v)
            g, m = load(gate, c, v), load(dmean, c, v)
            for i in range(first + c, end, channels):
                store(da, i, fma(load(dy, i, v), g, m))


# ---------------------------------------------------------------------------------------------- passes
# source.raw (N, H, W, C); y, dy, dx like it; gate, dgate and dmean (N, C).


@kernel
def _scale(source, gate, y):
    """(3)."""
    x, flat, size = source.raw.reshape(-1), y.reshape(-1), y.size // max(len(y), 1)
    for n in prange(len(gate)):  # each image has its own y
        scratch = np.empty(size if source.pack.size else 0, y.dtype)
        here = slice(n * size, (n + 1) * size)
        scale_image(finished_tile(x[here], source, scratch), gate[n], flat[here], source.lanes)


@kernel
def _gate_gradient(dy, source, dgate):
    """(4)."""
    x, flat, size = source.raw.reshape(-1), dy.reshape(-1), dy.size // max(len(dy), 1)
    for n in prange(len(dgate)):  # each image has its own row of dgate
        scratch = np.empty(size if source.pack.size else 0, dy.dtype)
        here = slice(n * size, (n + 1) * size)
        gate_gradient(flat[here], finished_tile(x[here], source, scratch), dgate[n], source.lanes)


@kernel
def _backward(dy, gate, dmean, source, dx, parts, sums):
    """(5). Where x is raw, sums (parts, 2, C), zero before, gain batchnorm's (5); else they have length 0."""
    d, x, out, size = dy.reshape(-1), source.raw.reshape(-1), dx.reshape(-1), dx.size // max(len(dx), 1)
    for part in prange(parts):  # each part writes its own images of dx and its own sums
        first, last = share(part, parts, len(gate))
        for n in range(first, last):
            lo, hi = n * size, (n + 1) * size
            image_gradient(d[lo:hi], gate[n], dmean[n], out[lo:hi], source.lanes)
            if sums.size:
                add_gradient_sums(out[lo:hi], x[lo:hi], source, sums[part])


# ------------------------------------------------------------------------------------ used by blocks


def unit_forward(source, gate, y):
    """y (N, H, W, C) = finished(x) · gate (N, C). No checks."""
    if y.size:
        _scale(source, gate, y)


def unit_gate_gradient(dy, source, dgate):
    """dgate (N, C) by (4). No checks."""
    if dy.size:
        _gate_gradient(dy, source, dgate)


def unit_backward(dy, gate, ds, source, dx, sums):
    """dx (N, H, W, C) by (5), and the sums (parts, 2, C) of the batch norm of x, or length 0. No checks."""
    dmean = ds / ds.dtype.type(dx.shape[1] * dx.shape[2])
    if dx.size:
        _backward(dy, gate, dmean, source, dx, len(sums) or parts_of(len(dx)), sums)


# ---------------------------------------------------------------------------------------------- public


def scale_forward(x, gate, out=None):
    """y (N, H, W, C) = x · gate (N, C), equation (3). Raises ValueError naming the argument that is wrong."""
    x, gate = _arguments(x, gate)
    out = _check.output("out", out, x.shape, x.dtype)
    _check.apart(out, x=x, gate=gate)
    unit_forward(source_of(x), gate, out)
    return out


def scale_backward(dy, x, gate, out=None):
    """dx (N, H, W, C) = dy · gate and dgate (N, C) by (4), for a gate that x did not decide. Raises like forward."""
    x, gate = _arguments(x, gate)
    dy = _check.tensor("dy", dy, x.shape, x.dtype)
    out = _check.output("out", out, x.shape, x.dtype)
    _check.apart(out, x=x, dy=dy, gate=gate)
    source, dgate = source_of(x), np.zeros_like(gate)
    unit_gate_gradient(dy, source, dgate)
    unit_backward(dy, gate, np.zeros_like(gate), source, out, np.zeros((0, 2, 0)))
    return out, dgate


def _arguments(x, gate):
    x = _check.tensor("x", x, (None, None, None, None))
    return x, _check.tensor("gate", gate, (x.shape[0], x.shape[3]), x.dtype)


def scale_cost(n: int, h: int, w: int, c: int) -> Cost:
    """N·H·W·C products with no sum behind them: no MACs by the papers' count."""
    size = n * h * w * c
    return Cost(elementwise=size, inputs=size + n * c, outputs=size)
