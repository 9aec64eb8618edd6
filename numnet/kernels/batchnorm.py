"""Batch normalisation and the activation after it: forward, backward, and the row functions that other passes borrow.

For one channel, over the M = N·H·W numbers of a batch (Ioffe and Szegedy 2015, algorithm 1):

(1)  mean = Σ x / M,   variance = Σ (x − mean)² / M                    of the batch; running ones in inference
(2)  x̂ = (x − mean) · inv_std,   inv_std = 1 / √(variance + ε)
(3)  u = γ · x̂ + β,   y = activation(u)
(4)  running ← m · running + (1 − m) · batch                           variance with M − 1 below it if ``unbiased``

Backward, with du = dy · activation'(u):

(5)  dβ = Σ du,   dγ = Σ du · x̂
(6)  dx = γ · inv_std · (du − dβ/M − x̂ · dγ/M)                         the last two terms drop with running statistics

Where (6) comes from: x moves its own output (first term), the mean that all share (second) and the variance that all
share (third). The sums of dx and of dx · x̂ over the batch are therefore 0: adding a constant to x, or scaling it,
changes nothing downstream. It is also why the test of this page must draw dy at random: with dy = 1, dx is 0.

**The pack.** Everything (2) and (3) need of a channel is one column of a (4, C) table: mean, inv_std, γ, β. A raw
convolution output and its pack *are* the finished activation; whoever reads next applies them while the tile is hot in
the cache (``normalise_activate``), and no finished map is ever written to memory. Equation (6) needs two numbers more,
the means dβ/M and dγ/M: the (2, C) table ``means``.

**The variance.** Σx² − (Σx)²/M in float32 is wrong by 12 % at mean/std = 100. Here each tile is summed around a centre
close to its mean, Σ(x − c) and Σ(x − c)², which costs no second look at the tile; tiles are merged in float64 and in
index order by Chan, Golub and LeVeque 1979 (with δ the difference of two means):

(7)  mean = mean_a + δ·n_b/n,   M2 = M2_a + M2_b + δ²·n_a·n_b/n
"""

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._cost import Cost
from numnet.kernels._jit import kernel, row
from numnet.kernels.activations import (
    SMOOTH,
    activate_row,
    clipped_derivative,
    code_of,
    smooth_derivative,
)
from numnet.kernels.rows import GROUP, add, fold, line_up, repeated, row_length, share

_1 = np.float32(1)
_u = np.uint64
MEAN, INV_STD, GAMMA, BETA = 0, 1, 2, 3  # rows of a pack
PARTS = 8  # partial sums: fixed, so that the bits do not depend on the number of threads; 8 keep 8 cores busy
TILE = 16384  # numbers a tile holds: 64 KiB of float32


def empty_pack(dtype) -> np.ndarray:
    """The pack of a map that is finished already: (0, 0). Kernels then take its numbers as they are."""
    return np.empty((0, 0), dtype)


# ---------------------------------------------------------------------------------------------- row functions


@row
def normalise_activate_row(x, pack, code, a):
    """Equations (2) and (3) for one row of at most L numbers; ``pack`` (4, L). (In groups it is not vectorised.)"""
    for i in range(x.size):
        a[i] = (x[i] - pack[MEAN, i]) * pack[INV_STD, i] * pack[GAMMA, i] + pack[BETA, i]
    activate_row(code, _1, a)


@row
def normalise_activate(x, pack, code, a):
    """Equations (2) and (3) for a stretch of whole pixels, row by row; ``pack`` is repeated to (4, L)."""
    for lo in range(0, x.size, pack.shape[1]):
        hi = min(lo + pack.shape[1], x.size)
        normalise_activate_row(x[lo:hi], pack, code, a[lo:hi])


@row
def finish(y, folded, code, skip):
    """Inference: y = activation(y · scale + shift) in place, plus ``skip`` where it has a size; whole pixels.

    ``folded`` (2, L) holds scale = γ · inv_std and shift = β − mean · scale, (2) and (3) in one multiplication and one
    addition a number, since the running statistics do not depend on y.
    """
    for lo in range(0, y.size, folded.shape[1]):
        hi = min(lo + folded.shape[1], y.size)
        finish_row(y[lo:hi], folded[0], folded[1], code, skip[lo:hi] if skip.size else skip)


@row
def finish_row(y, scale, shift, code, skip):
    """The same for one row."""
    for i in range(y.size):
        y[i] = y[i] * scale[i] + shift[i]
    activate_row(code, _1, y)
    if skip.size:
        add(y, skip)


@row
def slope(code, is_smooth, u):
    """activation'(u). Every caller writes ``is_smooth`` as a constant, so that a loop has exp in it only if it must."""
    return smooth_derivative(code, u, _1) if is_smooth else clipped_derivative(code, u)


@row
def unit_gradient_rows(dy, x, pack, means, code, is_smooth, dx, n, group):
    """Activation and normalisation backwards, (6), for a group of rows; ``means`` (2, L)."""
    length = _u(pack.shape[1])
    for i in range(_u(n)):
        for g in range(_u(group)):
            j = g * length + i
            normal = (x[j] - pack[MEAN, i]) * pack[INV_STD, i]
            du = dy[j] * slope(code, is_smooth, normal * pack[GAMMA, i] + pack[BETA, i])
            dx[j] = pack[GAMMA, i] * pack[INV_STD, i] * (du - means[0, i] - normal * means[1, i])


@row
def unit_gradient(dy, x, pack, means, code, dx):
    """Equation (6) for a stretch of whole pixels; ``pack`` and ``means`` are repeated along L."""
    length, lo = pack.shape[1], 0
    while code < SMOOTH and lo + GROUP * length <= x.size:
        unit_gradient_rows(dy[lo:], x[lo:], pack, means, code, False, dx[lo:], length, GROUP)
        lo += GROUP * length
    while lo < x.size:
        n = min(length, x.size - lo)
        if code < SMOOTH:
            unit_gradient_rows(dy[lo:], x[lo:], pack, means, code, False, dx[lo:], n, 1)
        else:
            unit_gradient_rows(dy[lo:], x[lo:], pack, means, code, True, dx[lo:], n, 1)
        lo += length


@row
def add_gradient_sums_rows(dy, x, pack, code, is_smooth, dbeta, dgamma, n, group):
    """Equation (5), a group of rows into rows of sums (L,)."""
    length = _u(pack.shape[1])
    for i in range(_u(n)):
        total_beta, total_gamma = dbeta[i], dgamma[i]
        for g in range(_u(group)):
            j = g * length + i
            normal = (x[j] - pack[MEAN, i]) * pack[INV_STD, i]
            du = dy[j] * slope(code, is_smooth, normal * pack[GAMMA, i] + pack[BETA, i])
            total_beta += du
            total_gamma += du * normal
        dbeta[i], dgamma[i] = total_beta, total_gamma


@row
def add_gradient_sums(dy, x, pack, code, sums):
    """Equation (5) for a stretch of whole pixels: sums (2, C) in float64 gains Σ du and Σ du · x̂."""
    length, lo = pack.shape[1], 0
    dbeta, dgamma = line_up(length, x), line_up(length, x)
    while code < SMOOTH and lo + GROUP * length <= x.size:
        add_gradient_sums_rows(dy[lo:], x[lo:], pack, code, False, dbeta, dgamma, length, GROUP)
        lo += GROUP * length
    while lo < x.size:
        n = min(length, x.size - lo)
        if code < SMOOTH:
            add_gradient_sums_rows(dy[lo:], x[lo:], pack, code, False, dbeta, dgamma, n, 1)
        else:
            add_gradient_sums_rows(dy[lo:], x[lo:], pack, code, True, dbeta, dgamma, n, 1)
        lo += length
    fold(dbeta, sums[0])
    fold(dgamma, sums[1])


@row
def add_deviations(x, centre, first, second, n, group):
    """first += x − centre,  second += (x − centre)², for a group of rows."""
    length = _u(centre.size)
    for i in range(_u(n)):
        total, squares = first[i], second[i]
        for g in range(_u(group)):
            d = x[g * length + i] - centre[i]
            total += d
            squares += d * d
        first[i], second[i] = total, squares


@row
def add_moments(x, channels, moments):
    """Merge a hot tile of whole pixels into moments (3, C) = count, mean, M2 of each channel, float64; (1) and (7).

    The tile is summed once, around a centre near its mean: the mean of all tiles so far, for the first tile that of its
    first row. What cancels in Σd² − (Σd)²/n is then no more than the centres' own scatter, which is part of M2 anyway.
    """
    length = row_length(channels)
    first, second, centre = line_up(length, x), line_up(length, x), line_up(length, x)
    row_size = min(length, x.size)
    for c in range(channels):
        mean = moments[1, c]
        if moments[0, c] == 0:
            for i in range(c, row_size, channels):
                mean += x[i] / (row_size // channels)
        for lo in range(c, length, channels):
            centre[lo] = mean
    lo = 0
    while lo + GROUP * length <= x.size:
        add_deviations(x[lo:], centre, first, second, length, GROUP)
        lo += GROUP * length
    while lo < x.size:
        add_deviations(x[lo:], centre, first, second, min(length, x.size - lo), 1)
        lo += length
    tile = np.zeros((2, channels))  # Σ(x − centre), Σ(x − centre)²
    fold(first, tile[0])
    fold(second, tile[1])
    count = x.size // channels
    for c in range(channels):
        slip = tile[0, c] / count
        m2 = tile[1, c] - tile[0, c] * slip
        merge(moments, c, count, np.float64(centre[c]) + slip, 0.0 if m2 < 0 else m2)


@row
def merge(moments, c, count, mean, m2):
    """Equation (7): channel c of moments (3, C) takes in ``count`` numbers with this mean and M2."""
    total = moments[0, c] + count
    delta = mean - moments[1, c]
    moments[2, c] += m2 + delta * delta * (moments[0, c] * count / total)
    moments[1, c] += delta * (count / total)
    moments[0, c] = total


# ---------------------------------------------------------------------------------------------- passes


@kernel
def _add_moments(x, moments):
    """(R, C) → moments (parts, 3, C), zero before."""
    rows, channels = x.shape
    step = max(1, TILE // channels)
    for part in prange(moments.shape[0]):  # each part adds to its own moments
        first, last = share(part, moments.shape[0], rows)
        for lo in range(first, last, step):
            hi = min(lo + step, last)
            add_moments(x[lo:hi].reshape(-1), channels, moments[part])


@kernel
def _normalise_activate(x, pack, code, y):
    rows, channels = x.shape
    long = repeated(pack, row_length(channels))
    step = max(1, TILE // channels)
    for tile in prange((rows + step - 1) // step):  # each tile writes its own pixels of y
        lo, hi = tile * step, min((tile + 1) * step, rows)
        normalise_activate(x[lo:hi].reshape(-1), long, code, y[lo:hi].reshape(-1))


@kernel
def _add_gradient_sums(dy, x, pack, code, sums):
    """sums (parts, 2, C), zero before."""
    rows, channels = x.shape
    long = repeated(pack, row_length(channels))
    step = max(1, TILE // channels)
    for part in prange(sums.shape[0]):  # each part adds to its own sums
        first, last = share(part, sums.shape[0], rows)
        for lo in range(first, last, step):
            hi = min(lo + step, last)
            add_gradient_sums(dy[lo:hi].reshape(-1), x[lo:hi].reshape(-1), long, code, sums[part])


@kernel
def _unit_gradient(dy, x, pack, means, code, dx):
    rows, channels = x.shape
    long, long_means = repeated(pack, row_length(channels)), repeated(means, row_length(channels))
    step = max(1, TILE // channels)
    for tile in prange((rows + step - 1) // step):  # each tile writes its own pixels of dx
        lo, hi = tile * step, min((tile + 1) * step, rows)
        unit_gradient(
            dy[lo:hi].reshape(-1), x[lo:hi].reshape(-1), long, long_means, code, dx[lo:hi].reshape(-1)
        )


@kernel(parallel=False)
def close_moments(moments, gamma, beta, eps, momentum, unbiased, running_mean, running_variance, pack):
    """Merge the parts in index order, fill the pack (4, C) by (1) and (2), move the running statistics by (4)."""
    for c in range(gamma.size):
        total = np.zeros((3, 1))
        for part in range(moments.shape[0]):
            if moments[part, 0, c] > 0:
                merge(total, 0, moments[part, 0, c], moments[part, 1, c], moments[part, 2, c])
        count, mean = total[0, 0], total[1, 0]
        variance = total[2, 0] / count
        pack[MEAN, c] = mean
        pack[INV_STD, c] = 1 / np.sqrt(variance + eps)
        pack[GAMMA, c] = gamma[c]
        pack[BETA, c] = beta[c]
        if unbiased:
            variance *= count / max(count - 1, 1)
        running_mean[c] = momentum * running_mean[c] + (1 - momentum) * mean
        running_variance[c] = momentum * running_variance[c] + (1 - momentum) * variance


@kernel(parallel=False)
def running_pack(running_mean, running_variance, gamma, beta, eps, pack):
    """The pack of inference: (2) with the running statistics."""
    for c in range(gamma.size):
        pack[MEAN, c] = running_mean[c]
        pack[INV_STD, c] = 1 / np.sqrt(np.float64(running_variance[c]) + eps)
        pack[GAMMA, c] = gamma[c]
        pack[BETA, c] = beta[c]


@kernel(parallel=False)
def fold_all(flat, buffers, gamma, beta, mean, variance, eps, at, out):
    """Scale and shift of every channel of a net by its places in the flat vectors; −1: γ = 1, β = 0, no statistics.

    gamma, beta, mean, variance, at (channels,): places; out[at[c, 0]] = scale, out[at[c, 1]] = shift.
    """
    for c in range(gamma.size):
        scale, shift = 1.0, 0.0
        if gamma[c] >= 0:
            scale = flat[gamma[c]] / np.sqrt(np.float64(buffers[variance[c]]) + eps[c])
            shift = -buffers[mean[c]] * scale
        if beta[c] >= 0:
            shift += flat[beta[c]]
        out[at[c, 0]] = scale
        out[at[c, 1]] = shift


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


def parts_of(items: int, least: int = 1) -> int:
    """How many partial sums for ``items`` pieces of work, at least ``least`` pieces each: a function of shape alone."""
    return max(1, min(PARTS, items // least))


def moments_of(x) -> np.ndarray:
    """Moments (parts, 3, C) of x (…, C), float64: the read-only pass of (1), for maps whose producer did not add them."""
    rows = x.reshape(-1, x.shape[-1])
    moments = np.zeros((parts_of(len(rows)), 3, x.shape[-1]))
    _add_moments(rows, moments)
    return moments


def normalised(x, pack, code, out=None):
    """The finished activation of a raw map x (…, C): equations (2) and (3) with ``pack`` (4, C) of the same dtype."""
    out = _check.output("out", out, x.shape, x.dtype)
    channels = x.shape[-1]
    _normalise_activate(x.reshape(-1, channels), pack, code, out.reshape(-1, channels))
    return out


def gradient_sums_of(dy, x, pack, code, parts=None) -> np.ndarray:
    """Sums (parts, 2, C) of (5), float64: a read-only pass, for maps whose consumer did not add them."""
    rows = x.reshape(-1, x.shape[-1])
    sums = np.zeros((parts or parts_of(len(rows)), 2, x.shape[-1]))
    _add_gradient_sums(dy.reshape(rows.shape), rows, pack, code, sums)
    return sums


def unit_gradient_of(dy, x, pack, means, code, out=None):
    """dx of (6) as a map of its own, for convolutions that do not apply it to their hot tile."""
    out = _check.output("out", out, x.shape, x.dtype)
    rows = (-1, x.shape[-1])
    _unit_gradient(dy.reshape(rows), x.reshape(rows), pack, means, code, out.reshape(rows))
    return out


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
    if not isinstance(x, np.ndarray) or x.ndim < 2:
        raise ValueError(f"x: expected an array (…, C), got {getattr(x, 'shape', type(x).__name__)}")
    x = _check.tensor("x", x, x.shape)
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
            if (
                not _check.tensor(name, running, (channels,), x.dtype).flags.writeable
                or running.flags.writeable is False
            ):
                raise ValueError(f"{name}: read-only, but training moves the running statistics in place")
        if x.size == 0:
            raise ValueError(
                f"x: shape {x.shape} is an empty batch, which has no mean; expected at least one image"
            )
        close_moments(
            moments_of(x), gamma, beta, eps, momentum, unbiased, running_mean, running_variance, pack
        )
    else:
        running = _vectors(x, channels, running_mean=running_mean, running_variance=running_variance)
        running_pack(*running, gamma, beta, eps, pack)
    return normalised(x, pack, code, out), pack


def batchnorm_backward(dy, x, pack, *, activation="identity", training=True, out=None):
    """dx (…, C), dgamma (C,), dbeta (C,) from (5) and (6).

    x: what went into forward; pack (4, C): what forward gave back; ``training=False``: running statistics, whose
    terms drop out of (6). Raises ValueError for a wrong shape or dtype.
    """
    if not isinstance(x, np.ndarray) or x.ndim < 2:
        raise ValueError(f"x: expected an array (…, C), got {getattr(x, 'shape', type(x).__name__)}")
    x = _check.tensor("x", x, x.shape)
    dy = _check.tensor("dy", dy, x.shape, x.dtype)
    channels = x.shape[-1]
    pack = _check.tensor("pack", pack, (4, channels), x.dtype)
    out = _check.output("out", out, x.shape, x.dtype)
    _check.apart(out, x=x, dy=dy)
    code = code_of(activation)
    dgamma, dbeta = np.empty(channels, x.dtype), np.empty(channels, x.dtype)
    means = np.empty((2, channels), x.dtype)
    count = x.size // channels if training else 0
    close_gradient_sums(gradient_sums_of(dy, x, pack, code), count, dgamma, dbeta, means)
    return unit_gradient_of(dy, x, pack, means, code, out), dgamma, dbeta


def _vectors(x, channels, **vectors):
    return [_check.tensor(name, v, (channels,), x.dtype) for name, v in vectors.items()]


def batchnorm_cost(n: int, p: int, q: int, c: int) -> Cost:
    """N images of P×Q pixels and C channels: no MACs by the papers' count (it folds into the convolution)."""
    size = n * p * q * c
    return Cost(elementwise=size, params=2 * c, buffers=2 * c, inputs=size, outputs=size)
