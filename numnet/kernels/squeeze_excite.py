"""Squeeze-and-excite: every channel of an image is scaled by a number between 0 and 1 that the whole image decides.

With a (N, H, W, C) the finished map (Hu, Shen and Sun 2018, equations 2 to 4; Howard et al. 2019, section 5.3):

(1)  s[n, c] = Σ_hw a[n, h, w, c] / (H·W)                      squeeze: the pooling page
(2)  g = gate(relu(s · w₁ + b₁) · w₂ + b₂)                      excite: two dense layers, C → R → C
(3)  y[n, h, w, c] = a[n, h, w, c] · g[n, c]                    scale

Backward. a has two readers, (3) and (1), so its gradient has two terms, and the first needs (2) backwards first:

(4)  dg[n, c] = Σ_hw dy[n, h, w, c] · a[n, h, w, c]             then (2) backwards gives ds
(5)  da[n, h, w, c] = dy[n, h, w, c] · g[n, c] + ds[n, c] / (H·W)

This page holds (3), (4) and (5). The map may be raw with its pack: (3) and (4) finish it on the way, and (5) takes the
two sums that its batch norm needs (batchnorm's equation 5) from the tile of da that is hot. So a whole squeeze-excite
reads the map twice forward and three times backward, and the finished map is never written.

Each image decides for itself: passes run over images, and no sum crosses from one to another but those of (5), which
are added in index order.
"""

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._cost import Cost
from numnet.kernels._jit import kernel, row
from numnet.kernels.activations import IDENTITY, RELU
from numnet.kernels.batchnorm import TILE, add_gradient_sums, empty_pack, finish, normalise_activate, parts_of
from numnet.kernels.product import multiply
from numnet.kernels.rows import add, copy, fold, repeated, row_length, share, zero

# ---------------------------------------------------------------------------------------------- row functions


@row
def scale_row(a, gate, y):
    """Equation (3) for one row; ``gate`` (1, L) repeats the C numbers of its image."""
    for i in range(a.size):
        y[i] = a[i] * gate[0, i]


@row
def add_gate_gradient_row(dy, a, total):
    """Equation (4), one row into a row of sums (L,)."""
    for i in range(a.size):
        total[i] += dy[i] * a[i]


@row
def gradient_row(dy, gate, share_of_mean, da):
    """Equation (5) for one row; ``gate`` and ``share_of_mean`` = ds/(H·W) are (1, L)."""
    for i in range(dy.size):
        da[i] = dy[i] * gate[0, i] + share_of_mean[0, i]


@row
def squeeze_excite(a, pixels, w1, folded1, w2, folded2, gate):
    """(1) to (3) in place, for inference: whole finished images a (n · pixels, C), a tile that is in the cache.

    w1 (C, R), w2 (R, C); folded (2, ·) hold 1 and the bias of each channel; ``gate``: the code of the last activation.
    """
    images, nothing = a.shape[0] // pixels, np.empty(0, a.dtype)
    means, gates = np.zeros((images, w1.shape[0]), a.dtype), np.empty((images, w2.shape[1]), a.dtype)
    squeezed = np.empty((images, w1.shape[1]), a.dtype)
    part = a.dtype.type(1) / a.dtype.type(pixels)
    for r in range(a.shape[0]):
        add(means[r // pixels], a[r])
    for n in range(images):
        for c in range(means.shape[1]):
            means[n, c] *= part
    multiply(means, w1, squeezed)
    finish(squeezed.reshape(-1), folded1, RELU, nothing)
    multiply(squeezed, w2, gates)
    finish(gates.reshape(-1), folded2, gate, nothing)
    for r in range(a.shape[0]):
        scale_row(a[r], gates[r // pixels : r // pixels + 1], a[r])


# ---------------------------------------------------------------------------------------------- passes


@kernel
def _scale(x, x_pack, x_code, gate, y):
    """(3). x, y (N, H·W, C), x finished (pack empty) or raw; gate (N, C)."""
    images, _, channels = x.shape
    length = row_length(channels)
    pack = repeated(x_pack, length if x_pack.size else 0)
    for n in prange(images):  # each image has its own y
        long = repeated(gate[n : n + 1], length)
        finished = np.empty(length, x.dtype)
        image, out = x[n].reshape(-1), y[n].reshape(-1)
        for lo in range(0, image.size, length):
            hi = min(lo + length, image.size)
            if pack.size:
                normalise_activate(image[lo:hi], pack, x_code, finished[: hi - lo])
                scale_row(finished[: hi - lo], long, out[lo:hi])
            else:
                scale_row(image[lo:hi], long, out[lo:hi])


@kernel
def _gate_gradient(dy, x, x_pack, x_code, dgate):
    """(4). dy, x (N, H·W, C); dgate (N, C)."""
    images, _, channels = x.shape
    length = row_length(channels)
    pack = repeated(x_pack, length if x_pack.size else 0)
    for n in prange(images):  # each image has its own row of dgate
        total, finished = np.zeros(length, x.dtype), np.empty(length, x.dtype)
        image, d = x[n].reshape(-1), dy[n].reshape(-1)
        for lo in range(0, image.size, length):
            hi = min(lo + length, image.size)
            if pack.size:
                normalise_activate(image[lo:hi], pack, x_code, finished[: hi - lo])
            else:
                copy(image[lo:hi], finished[: hi - lo])
            add_gate_gradient_row(d[lo:hi], finished[: hi - lo], total[: hi - lo])
        zero(dgate[n])
        fold(total, dgate[n])


@kernel
def _backward(dy, gate, dmean, x, x_pack, x_code, dx, parts, sums):
    """(5). dmean (N, C) is ds/(H·W); where x is raw, sums (parts, 2, C), zero before, gain batchnorm's (5), else length 0."""
    images, _, channels = dx.shape
    length = row_length(channels)
    pack = repeated(x_pack, length if x_pack.size else 0)
    step = length * max(1, TILE // length)
    for part in prange(parts):  # each part writes its own images of dx and its own sums
        first, last = share(part, parts, images)
        for n in range(first, last):
            long, long_mean = repeated(gate[n : n + 1], length), repeated(dmean[n : n + 1], length)
            d, image, out = dy[n].reshape(-1), x[n].reshape(-1), dx[n].reshape(-1)
            for at in range(0, out.size, step):
                end = min(at + step, out.size)
                for lo in range(at, end, length):
                    hi = min(lo + length, end)
                    gradient_row(d[lo:hi], long, long_mean, out[lo:hi])
                if sums.size:
                    add_gradient_sums(out[at:end], image[at:end], pack, x_code, sums[part])


# ------------------------------------------------------------------------------------ used by blocks


def _flat(x):
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2], x.shape[3])


def unit_forward(x, x_pack, x_code, gate, y):
    """y (N, H, W, C) = finished(x) · gate (N, C). No checks."""
    _scale(_flat(x), x_pack, x_code, gate, _flat(y))


def unit_gate_gradient(dy, x, x_pack, x_code, dgate):
    """dgate (N, C) by (4). No checks."""
    _gate_gradient(_flat(dy), _flat(x), x_pack, x_code, dgate)


def unit_backward(dy, gate, ds, x, x_pack, x_code, dx, sums):
    """dx (N, H, W, C) by (5), and the sums (parts, 2, C) of the batch norm of x, or length 0. No checks."""
    dmean = ds / ds.dtype.type(x.shape[1] * x.shape[2])
    parts = len(sums) or parts_of(len(x))
    _backward(_flat(dy), gate, dmean, _flat(x), x_pack, x_code, _flat(dx), parts, sums)


# ---------------------------------------------------------------------------------------------- public


def scale_forward(x, gate, out=None):
    """y (N, H, W, C) = x · gate (N, C), equation (3). Raises ValueError naming the argument that is wrong."""
    x, gate = _arguments(x, gate)
    out = _check.output("out", out, x.shape, x.dtype)
    _check.apart(out, x=x)
    unit_forward(x, empty_pack(x.dtype), IDENTITY, gate, out)
    return out


def scale_backward(dy, x, gate, out=None):
    """dx (N, H, W, C) = dy · gate and dgate (N, C) by (4), for a gate that x did not decide. Raises like forward."""
    x, gate = _arguments(x, gate)
    dy = _check.tensor("dy", dy, x.shape, x.dtype)
    out = _check.output("out", out, x.shape, x.dtype)
    _check.apart(out, x=x, dy=dy)
    none, dgate = empty_pack(x.dtype), np.empty_like(gate)
    unit_gate_gradient(dy, x, none, IDENTITY, dgate)
    unit_backward(dy, gate, np.zeros_like(gate), x, none, IDENTITY, out, np.zeros((0, 2, 0)))
    return out, dgate


def _arguments(x, gate):
    x = _check.tensor("x", x, (None, None, None, None))
    return x, _check.tensor("gate", gate, (x.shape[0], x.shape[3]), x.dtype)


def scale_cost(n: int, h: int, w: int, c: int) -> Cost:
    """N·H·W·C products with no sum behind them: no MACs by the papers' count."""
    size = n * h * w * c
    return Cost(elementwise=size, inputs=size + n * c, outputs=size)
