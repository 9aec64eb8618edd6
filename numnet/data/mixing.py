"""Mixup and CutMix: every image of a batch with another one in it, and the labels of both.

(1)  mixup     x ← λ·x + (1 − λ)·x'                           Zhang et al. 2018
(2)  CutMix    x ← x' inside a box of (1 − λ)·H·W pixels, x outside; λ is then the part outside     Yun et al. 2019
(3)  loss      λ·(loss with the label of x) + (1 − λ)·(loss with the label of x')

x' is the image before x in the batch (the first one's is the last). λ ~ Beta(α, α), drawn once for a batch; (1) takes the
larger of λ and 1 − λ, so that x is the image that one sees. Where both are asked for, a coin tossed for each batch decides.
All draws come from a counter, so batch i is the same for any number of threads and processes.
"""

from typing import NamedTuple

import numpy as np

from numnet.errors import NumnetError
from numnet.kernels.random import AUGMENT, uniforms

FIRST = 1 << 33  # from here on the numbers of draws that belong to whole batches
BATCHES = 1 << 20  # at most in an epoch
PAIRS = 40  # tries for λ; for α up to 1 each succeeds with a probability of a half and more


class Mix(NamedTuple):
    """What happens to a batch: the weight of its own images, and the box (top, bottom, left, right) of CutMix or None."""

    share: float
    box: tuple | None


class Mixed:
    """The labels of a mixed batch: ``labels`` with the weight ``share``, ``others`` with the rest."""

    def __init__(self, labels, others, share):
        self.labels, self.others, self.share = labels, others, share

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, place):
        return Mixed(self.labels[place], self.others[place], self.share)


def check(name, alpha) -> None:
    """Raise NumnetError for an α that is no number from 0 (nothing) to 1."""
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 <= alpha <= 1:
        raise NumnetError(f"augmentation: {name} expects a number from 0 to 1, got {alpha!r}")


def draw(seed, epoch, number, mixup, cutmix, shape) -> Mix:
    """The Mix of batch ``number``; ``mixup``, ``cutmix``: α of each, 0 for none; ``shape``: (H, W, …) of the images."""
    u = uniforms(seed, AUGMENT, FIRST + epoch * BATCHES + number, 3 + 2 * PAIRS)
    cut = cutmix > 0 and (mixup == 0 or u[0] < 0.5)
    share = _beta(cutmix if cut else mixup, u[3::2], u[4::2])
    if not cut:
        return Mix(max(share, 1 - share), None)
    height, width = shape[:2]
    side = np.sqrt(1 - share)
    edges = []
    for size, centre in ((height, u[1] * height), (width, u[2] * width)):
        half = side * size / 2
        edges += [round(min(max(centre - half, 0), size)), round(min(max(centre + half, 0), size))]
    inside = (edges[1] - edges[0]) * (edges[3] - edges[2])
    return Mix(1 - inside / (height * width), tuple(edges))


def _beta(alpha, u, v) -> float:
    """A draw from Beta(α, α), α ≤ 1: x/(x + y) of x = u^(1/α), y = v^(1/α), where x + y ≤ 1 (Jöhnk 1964)."""
    with np.errstate(under="ignore"):
        x, y = u ** (1 / alpha), v ** (1 / alpha)
    fits = (x + y <= 1) & (x + y > 0)
    return float(x[fits][0] / (x[fits][0] + y[fits][0])) if fits.any() else 0.5


def blend(x, others, mix: Mix) -> None:
    """Equation (1) or (2), in place; x, others: (B, H, W, 3)."""
    if mix.box is None:
        x *= x.dtype.type(mix.share)
        x += others * x.dtype.type(1 - mix.share)
    else:
        top, bottom, left, right = mix.box
        x[:, top:bottom, left:right] = others[:, top:bottom, left:right]
