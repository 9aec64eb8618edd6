"""Softmax cross-entropy: how surprised the net is by the right answer, averaged over the batch.

For logits z (N, F), the softmax π and a target distribution t:

(1)  π[n, f] = e^(z[n, f] − max z[n]) / Σ_g e^(z[n, g] − max z[n])          the maximum keeps e^ from overflowing
(2)  t[n, f] = (1 − s)·[f is the label of n] + s/F                         label smoothing s (Szegedy et al. 2016)
(3)  loss = −(1/N) Σ_nf t[n, f] · log π[n, f]
(4)  dz[n, f] = (π[n, f] − t[n, f]) / N

(4) is all that remains of the chain through the logarithm and the softmax: what the net said minus what it should have
said. A new net that knows nothing says 1/F everywhere, so its first loss is log F (2.303 for ten classes): the first
thing to check in any training.

**Same bits.** Exponentials are those of the page ``exponential``, whatever the dtype in float64, sums run in the order of
the classes, and the logarithm is made of additions and products, too:

(5)  log x = k·ln 2 + 2·(r + r³/3 + r⁵/5 + …),   x = 2ᵏ·m,  r = (m − 1)/(m + 1)       m between √½ and √2, so |r| ≤ 0.172

In the pass (3) has one logarithm an image: log π[n, f] = z[n, f] − max z[n] − log Σ, with Σ the sum of (1), and Σ_f t = 1. So

(6)  loss of an image = log Σ − (1 − s)·(z[label] − max z) − s/F · Σ_f (z[f] − max z)           the last sum is ``linear``

Cost: N·F exponentials, next to nothing beside the layer that made the logits.
"""

from math import frexp

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._jit import kernel, row
from numnet.kernels.exponential import exp
from numnet.kernels.maps import begin_of, vectors_of
from numnet.kernels.vectors import double, lanes, load, spread, store

LN2 = 0.6931471805599453
LAST = 11  # term of (5), counted from 0: r²² / 23 is 1e-18

# ---------------------------------------------------------------------------------------------- the definition


@kernel(parallel=False)
def _definition(logits, labels, smoothing, dlogits):
    images, classes = logits.shape
    loss = 0.0
    for n in range(images):
        top, total = logits[n].max(), 0.0
        for f in range(classes):
            total += np.exp(logits[n, f] - top)
        for f in range(classes):
            p = np.exp(logits[n, f] - top) / total  # (1)
            t = (1 - smoothing) * (f == labels[n]) + smoothing / classes  # (2)
            if t > 0:  # (3), without a logarithm of 0
                loss -= t * (logits[n, f] - top - np.log(total)) / images
            dlogits[n, f] = (p - t) / images  # (4)
    return loss


def definition(logits, labels, smoothing=0.0):
    """The mean loss and dlogits (N, F), (1) to (4) as they are written. Raises like ``softmax_cross_entropy``."""
    logits, labels, smoothing = _arguments(logits, labels, smoothing)
    dlogits = np.empty_like(logits)
    return _definition(logits, labels, smoothing, dlogits), dlogits


# ---------------------------------------------------------------------------------------------- row functions


@row
def logarithm(x):
    """(5), for a finite x ≥ 1; of NaN it is NaN."""
    m, k = frexp(x)  # m in [½, 1)
    if m < 0.7071067811865476:
        m, k = 2 * m, k - 1
    r = (m - 1) / (m + 1)
    series = 0.0
    for term in range(LAST, -1, -1):
        series = series * r * r + 1 / (2 * term + 1)
    return k * LN2 + 2 * r * series


@row
def exponentials(z, top, out, v):
    """out = e^(z − top) in float64 for a row z, and their sum, added up in index order."""
    centre = spread(np.float64(top), v)
    for j in range(vectors_of(z.size, v)):
        f = begin_of(j, z.size, v)
        store(out, f, exp(double(load(z, f, v)) - centre))
    total = 0.0
    for f in range(z.size):
        total += out[f]
    return total


@row
def largest(z):
    """max z of a row."""
    top = z[0]
    for f in range(1, z.size):
        top = max(top, z[f])
    return top


# ---------------------------------------------------------------------------------------------- passes


@kernel
def _softmax_cross_entropy(logits, labels, smoothing, losses, dlogits, v):
    images, classes = logits.shape
    share = smoothing / classes
    for n in prange(images):  # each image has its own loss and its own row of dlogits
        z, p, top = logits[n], np.empty(classes), largest(logits[n])
        total, linear = exponentials(z, top, p, v), 0.0
        for f in range(classes):
            linear += np.float64(z[f]) - top
            target = share + (1 - smoothing if f == labels[n] else 0.0)  # (2)
            dlogits[n, f] = (p[f] / total - target) / images  # (1), (4)
        right = np.float64(z[labels[n]]) - top
        # A logit of −∞ has probability 0, and no part in (6) without smoothing.
        rest = share * linear if share > 0 else 0.0
        losses[n] = logarithm(total) - (1 - smoothing) * right - rest  # (6)


@kernel(parallel=False)
def _softmax(logits, p, v):
    images, classes = logits.shape
    e = np.empty(classes)
    for n in range(images):
        total = exponentials(logits[n], largest(logits[n]), e, v)
        for f in range(classes):
            p[n, f] = e[f] / total  # (1)


# ---------------------------------------------------------------------------------------------- public


def softmax_cross_entropy(logits, labels, label_smoothing=0.0):
    """The mean loss (a float) and dlogits (N, F), equations (3) and (4).

    logits (N, F), float32 or float64; labels (N,) integers 0 … F − 1; 0 ≤ label_smoothing < 1. Exponentials and sums
    are float64 whatever the dtype. Raises ValueError for an empty batch (it has no mean) and for labels out of range.
    """
    logits, labels, label_smoothing = _arguments(logits, labels, label_smoothing)
    images, classes = logits.shape
    losses, dlogits, v = np.empty(images), np.empty_like(logits), lanes(classes, logits.dtype)
    _softmax_cross_entropy(logits, labels, label_smoothing, losses, dlogits, v)
    return sum(losses.tolist()) / images, dlogits


def _arguments(logits, labels, label_smoothing):
    logits = _check.tensor("logits", logits, (None, None))
    images, classes = logits.shape
    labels = np.asarray(labels)
    if labels.shape != (images,) or labels.dtype.kind not in "iu":
        raise ValueError(f"labels: expected integers of shape ({images},), got {labels.dtype} {labels.shape}")
    if images == 0:
        raise ValueError("logits: an empty batch has no mean loss; expected at least one image")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels: expected 0 to {classes - 1}, got {labels.min()} to {labels.max()}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing: expected 0 ≤ s < 1, got {label_smoothing!r}")
    return logits, np.array(labels, np.int64), float(label_smoothing)


def softmax(logits):
    """Equation (1): probabilities (N, F) for logits (N, F), in the dtype of the logits. Raises ValueError like the loss."""
    logits = _check.tensor("logits", np.ascontiguousarray(logits), (None, None))
    p = np.empty_like(logits)
    if p.size:
        _softmax(logits, p, lanes(p.shape[1], p.dtype))
    return p
