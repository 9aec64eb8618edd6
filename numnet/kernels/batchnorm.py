"""Batch normalisation and the activation after it: forward, backward, and the row functions that other passes borrow.

For one channel, over the M = N·H·W numbers of a batch (Ioffe and Szegedy 2015, algorithm 1; M is so on the page
``moments``, too, and the depth multiplier elsewhere):

(1)  mean = Σ x / M,   variance = Σ (x − mean)² / M                    of the batch; running ones in inference
(2)  x̂ = (x − mean) · inv_std,   inv_std = 1 / √(variance + ε)
(3)  u = γ · x̂ + β,   y = activation(u)
(4)  running ← m · running + (1 − m) · batch                           variance over M − 1, not M, if ``unbiased``

Backward, with du = dy · activation'(u):

(5)  dβ = Σ du,   dγ = Σ du · x̂
(6)  dx = γ · inv_std · (du − dβ/M − x̂ · dγ/M)                         the last two terms drop with running statistics

Where (6) comes from: x moves its own output (first term), the mean that all share (second) and the variance that all
share (third). The sum of dx over the batch is therefore 0: adding a constant to x changes nothing downstream. Nor
would scaling x, if ε were 0: Σ dx · x̂ is γ · inv_std · dγ · ε/(variance + ε), little where the variance is far above ε.
It is also why the test of this page must draw dy at random: with dy = 1, dx is 0.

**The pack.** Everything (2) and (3) need of a channel is one column of a (4, C) table: mean, inv_std, γ, β. A raw
convolution output and its pack *are* the finished activation; whoever reads next applies them while the tile is hot in
the cache (``normalise_activate``), and between two units no finished map is written to memory. Equation (6) needs two
numbers more, the means dβ/M and dγ/M: the (2, C) table ``means``.

**Mean and variance** in one look at the data are a page of their own, ``moments``.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._cost import Cost
from numnet.kernels._jit import kernel, row
from numnet.kernels.activations import (
    CLIPPED,
    HARD,
    IDENTITY,
    SMOOTH,
    activate_in,
    code_of,
    derivative_in,
    family_of,
)
from numnet.kernels.maps import Source, Upstream, begin_of, parts_of, share, vectors_of
from numnet.kernels.moments import CHAIN, TILE, merge_parts, moments_of
from numnet.kernels.vectors import fma, lanes, load, store, zero

_1 = np.float32(1)  # swish's β, which only the layer of that name lets be anything else
MEAN, INV_STD, GAMMA, BETA = 0, 1, 2, 3  # rows of a pack
GROUP = 8  # pixels for which a channel's numbers of the pack are loaded once


# ---------------------------------------------------------------------------------------------- the definition


@kernel(parallel=False)
def _definition(x, gamma, beta, eps, y, mean, inv_std):
    """Channel by channel over the pixels of x (M, C)."""
    pixels, channels = x.shape
    for c in range(channels):
        mean[c] = 0
        for r in range(pixels):
            mean[c] += x[r, c] / pixels  # (1)
        variance = 0.0
        for r in range(pixels):
            variance += (x[r, c] - mean[c]) ** 2 / pixels  # (1)
        inv_std[c] = 1 / np.sqrt(variance + eps)  # (2)
        for r in range(pixels):
            y[r, c] = (x[r, c] - mean[c]) * inv_std[c] * gamma[c] + beta[c]  # (2), (3)


@kernel(parallel=False)
def _definition_backward(dy, x, gamma, mean, inv_std, dx, dgamma, dbeta):
    """The same way back; without an activation du = dy."""
    pixels, channels = x.shape
    for c in range(channels):
        dbeta[c] = dgamma[c] = 0
        for r in range(pixels):
            dbeta[c] += dy[r, c]  # (5)
            dgamma[c] += dy[r, c] * (x[r, c] - mean[c]) * inv_std[c]  # (5)
        for r in range(pixels):
            normal = (x[r, c] - mean[c]) * inv_std[c]
            centred = dy[r, c] - dbeta[c] / pixels - normal * dgamma[c] / pixels
            dx[r, c] = gamma[c] * inv_std[c] * centred  # (6)


def definition(x, gamma, beta, eps=1e-3):
    """y (…, C), mean (C,) and inv_std (C,): (1) to (3) as they are written, in training and without an activation.

    Raises like forward for a wrong shape or dtype.
    """
    x = _check.pixels("x", x)
    gamma, beta = _vectors(x, x.shape[-1], gamma=gamma, beta=beta)
    y, (mean, inv_std) = np.empty_like(x), np.empty((2, x.shape[-1]), x.dtype)
    _definition(x.reshape(-1, x.shape[-1]), gamma, beta, eps, y.reshape(-1, x.shape[-1]), mean, inv_std)
    return y, mean, inv_std


def definition_backward(dy, x, gamma, mean, inv_std):
    """dx (…, C), dgamma (C,), dbeta (C,): (5) and (6) as they are written. Raises like forward for a wrong shape or dtype."""
    x = _check.pixels("x", x)
    dy = _check.tensor("dy", dy, x.shape, x.dtype)
    gamma, mean, inv_std = _vectors(x, x.shape[-1], gamma=gamma, mean=mean, inv_std=inv_std)
    dx, (dgamma, dbeta) = np.empty_like(x), np.empty((2, x.shape[-1]), x.dtype)
    rows = (-1, x.shape[-1])
    _definition_backward(
        dy.reshape(rows), x.reshape(rows), gamma, mean, inv_std, dx.reshape(rows), dgamma, dbeta
    )
    return dx, dgamma, dbeta


def empty_pack(dtype) -> np.ndarray:
    """The pack of a map that is finished already: (0, 0). Kernels then take its numbers as they are."""
    return np.empty((0, 0), dtype)


# ---------------------------------------------------------------------------------------------- row functions
# A tile is a flat array of whole pixels. A pixel is ``vectors_of`` vectors of channels; the last may overlap.


class Loaded(NamedTuple):
    """One vector of channels of a pack, in registers."""

    mean: object
    inv_std: object
    gamma: object
    beta: object


@row
def norm_of(pack, channels, c, v):
    """The vectors of a flat pack (4·C) for the channels from c."""
    return Loaded(
        load(pack, MEAN * channels + c, v),
        load(pack, INV_STD * channels + c, v),
        load(pack, GAMMA * channels + c, v),
        load(pack, BETA * channels + c, v),
    )


@row(inline=True)
def normalise_by(family, x, source, a):
    """Equations (2) and (3) for a tile, by the activations of one family.

    GROUP pixels share the loads of the pack; they are read in order, as memory likes it.
    """
    channels, v, first, pack = source.pack.shape[1], source.lanes, 0, source.pack.reshape(-1)
    while first < x.size:
        end = min(first + GROUP * channels, x.size)
        for j in range(vectors_of(channels, v)):
            c = begin_of(j, channels, v)
            norm, i = norm_of(pack, channels, c, v), first + c
            while i < end:
                normal = (load(x, i, v) - norm.mean) * norm.inv_std
                store(a, i, activate_in(family, source.code, _1, fma(normal, norm.gamma, norm.beta)))
                i += channels
        first = end


@row
def normalise_activate(x, source, a):
    """Equations (2) and (3) for a tile: a = finished(x), by the pack and the activation of ``source``."""
    if family_of(source.code) == CLIPPED:
        normalise_by(CLIPPED, x, source, a)
    elif family_of(source.code) == HARD:
        normalise_by(HARD, x, source, a)
    else:
        normalise_by(SMOOTH, x, source, a)


@row
def finished_tile(x, source, scratch):
    """A flat tile x of a source, finished: x itself where the source is finished, else in scratch, of that size at least."""
    if source.pack.size:
        normalise_activate(x, source, scratch)
        x = scratch[: x.size]
    return x


@row(inline=True)
def unit_gradient_by(family, dy, x, upstream, dx):
    """Equation (6) for a tile, by the derivatives of one family."""
    channels, v, first = upstream.pack.shape[1], upstream.lanes, 0
    pack, means = upstream.pack.reshape(-1), upstream.means.reshape(-1)
    while first < x.size:
        end = min(first + GROUP * channels, x.size)
        for j in range(vectors_of(channels, v)):
            c = begin_of(j, channels, v)
            norm, i = norm_of(pack, channels, c, v), first + c
            mean_beta, minus_gamma = load(means, c, v), zero(x, v) - load(means, channels + c, v)
            scale = norm.gamma * norm.inv_std
            while i < end:
                normal = (load(x, i, v) - norm.mean) * norm.inv_std
                du = derivative_in(
                    family, load(dy, i, v), upstream.code, _1, fma(normal, norm.gamma, norm.beta)
                )
                store(dx, i, scale * fma(normal, minus_gamma, du - mean_beta))
                i += channels
        first = end


@row
def unit_gradient(dy, x, upstream, dx):
    """Equation (6) for a tile, with the activation's part: dy is the gradient of activation(u), x the raw tile."""
    if family_of(upstream.code) == CLIPPED:
        unit_gradient_by(CLIPPED, dy, x, upstream, dx)
    elif family_of(upstream.code) == HARD:
        unit_gradient_by(HARD, dy, x, upstream, dx)
    else:
        unit_gradient_by(SMOOTH, dy, x, upstream, dx)


@row(inline=True)
def gradient_sums_by(family, dy, x, source, first, end, tile):
    """Equation (5) over the numbers first … end − 1 of a tile: a vector of channels goes down it, two sums in registers."""
    channels, v, pack = source.pack.shape[1], source.lanes, source.pack.reshape(-1)
    for j in range(vectors_of(channels, v)):
        c = begin_of(j, channels, v)
        norm, i = norm_of(pack, channels, c, v), first + c
        dbeta = dgamma = zero(x, v)
        while i < end:
            normal = (load(x, i, v) - norm.mean) * norm.inv_std
            du = derivative_in(family, load(dy, i, v), source.code, _1, fma(normal, norm.gamma, norm.beta))
            dbeta, dgamma = dbeta + du, fma(du, normal, dgamma)
            i += channels
        store(tile, c, dbeta)
        store(tile, channels + c, dgamma)


@row
def add_gradient_sums(dy, x, source, sums):
    """Equation (5) for a tile that is hot: sums (2, C) in float64 gains Σ du and Σ du · x̂."""
    channels, first = source.pack.shape[1], 0
    tile = np.empty(2 * channels, x.dtype)
    while first < x.size:
        end = min(first + CHAIN * channels, x.size)
        if family_of(source.code) == CLIPPED:
            gradient_sums_by(CLIPPED, dy, x, source, first, end, tile)
        elif family_of(source.code) == HARD:
            gradient_sums_by(HARD, dy, x, source, first, end, tile)
        else:
            gradient_sums_by(SMOOTH, dy, x, source, first, end, tile)
        for c in range(channels):
            sums[0, c] += tile[c]
            sums[1, c] += tile[channels + c]
        first = end


# ---------------------------------------------------------------------------------------------- passes


@kernel
def _normalise_activate(source, y):
    """Flat y = finished(source)."""
    step = max(1, TILE // source.pack.shape[1]) * source.pack.shape[1]
    x = source.raw.reshape(-1)
    for tile in prange((y.size + step - 1) // step):  # each tile writes its own pixels of y
        normalise_activate(x[tile * step : (tile + 1) * step], source, y[tile * step : (tile + 1) * step])


@kernel
def _add_gradient_sums(dy, source, sums):
    """Flat dy → sums (parts, 2, C), zero before."""
    channels = sums.shape[2]
    step, x = max(1, TILE // channels), source.raw.reshape(-1)
    for part in prange(sums.shape[0]):  # each part adds to its own sums
        first, last = share(part, sums.shape[0], x.size // channels)
        for lo in range(first, last, step):
            here = slice(lo * channels, min(lo + step, last) * channels)
            add_gradient_sums(dy[here], x[here], source, sums[part])


@kernel
def _unit_gradient(upstream, dx):
    """Flat dx by equation (6)."""
    step = max(1, TILE // upstream.pack.shape[1]) * upstream.pack.shape[1]
    dy, x = upstream.dy.reshape(-1), upstream.raw.reshape(-1)
    for tile in prange((dx.size + step - 1) // step):  # each tile writes its own pixels of dx
        here = slice(tile * step, (tile + 1) * step)
        unit_gradient(dy[here], x[here], upstream, dx[here])


class Running(NamedTuple):
    """The running statistics (C,), and how (4) moves them: momentum m, and the variance over M − 1 if ``unbiased``."""

    mean: np.ndarray
    variance: np.ndarray
    momentum: float
    unbiased: bool


@kernel(parallel=False)
def close_moments(moments, gamma, beta, eps, running, pack):
    """Merge the parts in index order, fill the pack (4, C) by (1) and (2), move the running statistics by (4)."""
    momentum, total = running.momentum, np.zeros((3, gamma.size))
    merge_parts(moments, total)
    for c in range(gamma.size):
        count, mean = total[0, c], total[1, c]
        variance = total[2, c] / count
        pack[MEAN, c] = mean
        pack[INV_STD, c] = 1 / np.sqrt(variance + eps)
        pack[GAMMA, c] = gamma[c]
        pack[BETA, c] = beta[c]
        if running.unbiased:
            variance *= count / max(count - 1, 1)
        running.mean[c] = momentum * running.mean[c] + (1 - momentum) * mean
        running.variance[c] = momentum * running.variance[c] + (1 - momentum) * variance


@kernel(parallel=False)
def running_pack(running_mean, running_variance, gamma, beta, eps, pack):
    """The pack of inference: (2) with the running statistics."""
    for c in range(gamma.size):
        pack[MEAN, c] = running_mean[c]
        pack[INV_STD, c] = 1 / np.sqrt(np.float64(running_variance[c]) + eps)
        pack[GAMMA, c] = gamma[c]
        pack[BETA, c] = beta[c]


@kernel(parallel=False)
def close_gradient_sums(sums, count, dgamma, dbeta, means):
    """Add the parts in index order: dβ and dγ by (5), and means (2, C) = dβ/M, dγ/M, or 0 if count is 0."""
    for c in range(dgamma.size):
        total_beta, total_gamma = 0.0, 0.0
        for part in range(sums.shape[0]):
            total_beta += sums[part, 0, c]
            total_gamma += sums[part, 1, c]
        dbeta[c] = total_beta
        dgamma[c] = total_gamma
        means[0, c] = total_beta / count if count > 0 else 0.0
        means[1, c] = total_gamma / count if count > 0 else 0.0


# ---------------------------------------------------------------------------------------------- public


def source_of(x, pack=None, code=IDENTITY) -> Source:
    """The Source of a map (…, C): raw with its pack and code, or finished without."""
    return Source(x, empty_pack(x.dtype) if pack is None else pack, code, lanes(x.shape[-1], x.dtype))


def upstream_of(dy, raw=None, pack=None, means=None, code=IDENTITY) -> Upstream:
    """The Upstream of dy (…, F): the gradient of what is made of ``raw``, or of the raw output itself."""
    if pack is None:
        raw, pack, means = dy, empty_pack(dy.dtype), empty_pack(dy.dtype)
    return Upstream(dy, raw, pack, means, code, lanes(dy.shape[-1], dy.dtype))


def normalised(source, out=None):
    """The finished activation of a raw map (…, C): equations (2) and (3)."""
    out = _check.output("out", out, source.raw.shape, source.raw.dtype)
    _normalise_activate(source._replace(raw=source.raw.reshape(-1)), out.reshape(-1))
    return out


def gradient_sums_of(dy, source, parts=None) -> np.ndarray:
    """Sums (parts, 2, C) of (5), float64: a read-only pass, for maps whose consumer did not add them."""
    channels = source.raw.shape[-1]
    sums = np.zeros((parts or parts_of(dy.size // channels), 2, channels))
    _add_gradient_sums(dy.reshape(-1), source._replace(raw=source.raw.reshape(-1)), sums)
    return sums


def unit_gradient_of(upstream, out=None):
    """dx of (6) as a map of its own, for convolutions that do not apply it to their hot tile."""
    dy, raw = upstream.dy, upstream.raw
    out = _check.output("out", out, raw.shape, raw.dtype)
    _unit_gradient(upstream._replace(dy=dy.reshape(-1), raw=raw.reshape(-1)), out.reshape(-1))
    return out


# more than eight: a layer's four vectors and what may be set about them, each by its usual name
def batchnorm_forward(
    x,
    gamma,
    beta,
    running_mean,
    running_variance,
    *,
    training,
    momentum=0.9,
    eps=1e-3,
    activation="identity",
    unbiased=False,
    out=None,
):
    """y (…, C) and the pack (4, C) that backward needs; in training the running statistics move in place, by (4).

    x (…, C); gamma, beta and the running statistics (C,), all float32 or all float64. Raises ValueError for a wrong
    shape or dtype, for eps < 0 and, in training, for an empty batch: its mean does not exist.
    """
    x = _check.pixels("x", x)
    channels = x.shape[-1]
    gamma, beta = _vectors(x, channels, gamma=gamma, beta=beta)
    if not eps >= 0:
        raise ValueError(f"eps: expected a number ≥ 0, got {eps!r}")
    eps, momentum, unbiased = float(eps), float(momentum), bool(unbiased)
    code = code_of(activation)
    out = _check.output("out", out, x.shape, x.dtype)
    _check.apart(out, x=x)
    pack = np.empty((4, channels), x.dtype)
    if training:
        for name, running in (("running_mean", running_mean), ("running_variance", running_variance)):
            _check.tensor(name, running, (channels,), x.dtype)
            if not running.flags.writeable:
                raise ValueError(f"{name}: read-only, but training moves the running statistics in place")
        if x.size == 0:
            raise ValueError(
                f"x: shape {x.shape} is an empty batch, which has no mean; expected at least one image"
            )
        running = Running(running_mean, running_variance, momentum, unbiased)
        close_moments(moments_of(x), gamma, beta, eps, running, pack)
    else:
        running = _vectors(x, channels, running_mean=running_mean, running_variance=running_variance)
        running_pack(*running, gamma, beta, eps, pack)
    return normalised(source_of(x, pack, code), out), pack


def batchnorm_backward(dy, x, pack, *, activation="identity", training=True, out=None):
    """dx (…, C), dgamma (C,), dbeta (C,) from (5) and (6).

    x: what went into forward; pack (4, C): what forward gave back; ``training=False``: running statistics, whose
    terms drop out of (6). Raises ValueError for a wrong shape or dtype.
    """
    x = _check.pixels("x", x)
    dy = _check.tensor("dy", dy, x.shape, x.dtype)
    channels = x.shape[-1]
    pack = _check.tensor("pack", pack, (4, channels), x.dtype)
    out = _check.output("out", out, x.shape, x.dtype)
    _check.apart(out, x=x, dy=dy, pack=pack)
    code = code_of(activation)
    dgamma, dbeta = np.empty(channels, x.dtype), np.empty(channels, x.dtype)
    means = np.empty((2, channels), x.dtype)
    count = x.size // channels if training else 0
    close_gradient_sums(gradient_sums_of(dy, source_of(x, pack, code)), count, dgamma, dbeta, means)
    return unit_gradient_of(upstream_of(dy, x, pack, means, code), out), dgamma, dbeta


def _vectors(x, channels, **vectors):
    return [_check.tensor(name, v, (channels,), x.dtype) for name, v in vectors.items()]


def batchnorm_cost(n: int, p: int, q: int, c: int) -> Cost:
    """N images of P×Q pixels and C channels: no MACs by the papers' count (it folds into the convolution)."""
    size = n * p * q * c
    return Cost(elementwise=size, params=2 * c, buffers=2 * c, inputs=size, outputs=size)
