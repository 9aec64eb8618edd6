"""Softmax cross-entropy: how surprised the net is by the right answer, averaged over the batch.

For logits z (N, F), the softmax π and a target distribution t:

(1)  π[n, f] = e^(z[n, f] − max z[n]) / Σ_g e^(z[n, g] − max z[n])          the maximum keeps e^ from overflowing
(2)  t[n, f] = (1 − s)·[f is the label of n] + s/F                         label smoothing s (Szegedy et al. 2016)
(3)  loss = −(1/N) Σ_nf t[n, f] · log π[n, f]
(4)  dz[n, f] = (π[n, f] − t[n, f]) / N

(4) is all that remains of the chain through the logarithm and the softmax: what the net said minus what it should have
said. A new net that knows nothing says 1/F everywhere, so its first loss is log F (2.303 for ten classes): the first
thing to check in any training.
"""

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._jit import kernel


@kernel
def _softmax_cross_entropy(logits, labels, smoothing, losses, dlogits):
    images, classes = logits.shape
    share = smoothing / classes
    for n in prange(images):  # each image has its own loss and its own row of dlogits
        top = logits[n, 0]
        for f in range(1, classes):
            top = max(top, logits[n, f])
        total, linear = 0.0, 0.0
        for f in range(classes):
            shifted = np.float64(logits[n, f]) - top
            total += np.exp(shifted)
            linear += shifted
        log_total = np.log(total)
        right = np.float64(logits[n, labels[n]]) - top
        losses[n] = log_total - (1 - smoothing) * right - share * linear  # (3)
        for f in range(classes):
            target = share + (1 - smoothing if f == labels[n] else 0.0)  # (2)
            dlogits[n, f] = (np.exp(np.float64(logits[n, f]) - top - log_total) - target) / images  # (4)


def softmax_cross_entropy(logits, labels, label_smoothing=0.0):
    """The mean loss (a float) and dlogits (N, F), equations (3) and (4).

    logits (N, F), float32 or float64; labels (N,) integers 0 … F − 1; 0 ≤ label_smoothing < 1. Exponentials and sums
    are float64 whatever the dtype. Raises ValueError for an empty batch (it has no mean) and for labels out of range.
    """
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
    losses, dlogits = np.empty(images), np.empty_like(logits)
    _softmax_cross_entropy(logits, np.array(labels, np.int64), float(label_smoothing), losses, dlogits)
    return float(losses.sum() / images), dlogits


def softmax(logits):
    """Equation (1): probabilities (N, F) for logits (N, F), in the dtype of the logits."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
