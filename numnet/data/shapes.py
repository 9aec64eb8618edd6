"""The built-in data set ``shapes``: ten kinds of figure, drawn when they are asked for (``kernels.draw``).

20,000 training and 4,000 test images, 32×32 in colour, every class equally often; always the same ones.
Place, size, rotation, colours and clutter do not depend on the class, so no single pixel and no colour
shows the class: a linear classifier is hardly better than guessing, while a small convolutional net learns
the set in a minute or two. It needs no network and no disk.
"""

import numpy as np

from numnet.data.split import ArraySplit, Dataset
from numnet.data.transforms import SCALINGS
from numnet.kernels.draw import FIGURES, draw

TRAIN, TEST = 20_000, 4_000
SEED = 1  # of the set itself: the one that everybody trains and tests on


def load(train: int = TRAIN, test: int = TEST) -> Dataset:
    """The set, or its first images: image i does not depend on how many are drawn."""
    mean, std = SCALINGS["shapes"]
    return Dataset("shapes", list(FIGURES), _split(train, 0), _split(test, 1), mean, std)


def _split(count: int, split: int) -> ArraySplit:
    labels = np.arange(count) % len(FIGURES)
    return ArraySplit(draw(labels, seed=SEED, split=split), labels)
