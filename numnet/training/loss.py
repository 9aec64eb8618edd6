"""The loss of a batch, and its gradient: cross-entropy with smoothed labels, mixed labels and weights of classes.

    mean loss = Σ over the images of w[label] · (cross-entropy of the image) / number of images

The cross-entropy of each image is the kernel's (``kernels/loss.py``). A batch may go through the net in parts, and a team's
member has only some of its images; each loss and each gradient here is then a share of the *whole* batch's mean.
"""

from typing import NamedTuple

import numpy as np

from numnet.data.mixing import Mixed
from numnet.kernels.loss import softmax_cross_entropy


class PartLoss(NamedTuple):
    """Of one part of a batch: dlogits like its logits, and its terms of the batch's mean loss, one for each share."""

    dlogits: np.ndarray
    terms: list


class Loss:
    """smoothing: the label smoothing, 0 … 1. weights: of each class, float64, or None: all are 1."""

    def __init__(self, smoothing, weights=None):
        self.smoothing, self.weights = smoothing, weights

    def mean(self, logits, labels):
        """The mean loss of these images (a float), and dlogits like logits.

        logits (N, F); labels (N,) or Mixed. Images whose classes have one weight are computed together.
        """
        if isinstance(labels, Mixed):
            loss, dlogits = self.mean(logits, labels.labels)
            theirs, more = self.mean(logits, labels.others)
            share = labels.share
            return share * loss + (1 - share) * theirs, share * dlogits + (1 - share) * more
        if self.weights is None:
            return softmax_cross_entropy(logits, labels, self.smoothing)
        weights, dlogits, loss = self.weights[labels], np.empty_like(logits), 0.0
        for weight in np.unique(weights):
            rows = np.flatnonzero(weights == weight)
            mean, mine = softmax_cross_entropy(logits[rows], labels[rows], self.smoothing)
            share = float(weight) * len(rows) / len(labels)
            dlogits[rows] = mine * share
            loss += mean * share
        return loss, dlogits

    def of_part(self, logits, labels, weight, shares) -> PartLoss:
        """The loss of one part of a batch, as a part of the batch's mean.

        weight: of the part's mean in the batch's. shares: slices of the part, whose losses become one term each.
        """
        dlogits, terms = np.empty_like(logits), []
        for share in shares:
            mean, dlogits[share] = self.mean(logits[share], labels[share])
            own = weight * (len(dlogits[share]) / len(logits))
            if own != 1:  # the mean over the batch, not over the share
                dlogits[share] *= own
            terms.append(mean * own)
        return PartLoss(dlogits, terms)
