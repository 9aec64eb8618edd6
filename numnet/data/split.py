"""What a data set is to the rest of numnet: images as bytes, labels, names, and the scaling of the input."""

from dataclasses import dataclass, field

import numpy as np

from numnet.cores import available
from numnet.data.progress import bar
from numnet.errors import NumnetError
from numnet.kernels.random import SPLIT, permutation


class Split:
    """Some images of one size and their labels. Only ``read_one`` says where the images come from.

    ``labels``   int64 (N,)
    ``shape``    (H, W, 3) of every image
    ``kept``     True if the images lie in memory; else ``numnet.data.batches`` reads ahead
    """

    kept = False

    def __init__(self, labels, shape):
        expected = (
            "labels: expected whole numbers from 0 on, the places of the classes' names "
            "(of texts, np.unique(texts, return_inverse=True) makes names and labels)"
        )
        try:
            given = np.asarray(labels)
            with np.errstate(invalid="ignore"):  # of what is no number; it is not equal to itself below
                self.labels = np.ascontiguousarray(given, np.int64)
        except (TypeError, ValueError, OverflowError):  # text, None, rows of several lengths
            raise NumnetError(expected) from None
        if len(self.labels) and (self.labels.min() < 0 or (self.labels != given).any()):
            raise NumnetError(expected)
        self.shape = tuple(shape)

    def __len__(self):
        return len(self.labels)

    def read_one(self, index: int, out: np.ndarray) -> None:
        """Write image number ``index`` to ``out``, uint8 (H, W, 3). Called by several threads at once."""
        raise NotImplementedError

    def take(self, indices) -> "Split":
        """The split that holds these images only, in this order."""
        raise NotImplementedError

    def read(self, indices) -> np.ndarray:
        """The images with these numbers, uint8 (B, H, W, 3), in this order."""
        images = np.empty((len(indices), *self.shape), np.uint8)
        for index, out in zip(indices, images):
            self.read_one(index, out)
        return images


class ArraySplit(Split):
    """Images in memory: ``images`` uint8 (N, H, W, 3), ``labels`` (N,). NumnetError if the two do not fit."""

    kept = True

    def __init__(self, images, labels):
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise NumnetError(f"images: expected uint8 (N, H, W, 3), got {images.dtype} {images.shape}")
        super().__init__(labels, images.shape[1:])
        if np.shape(labels) != images.shape[:1]:
            raise NumnetError(f"labels: expected {len(images)}, one an image, got shape {np.shape(labels)}")
        self.images = np.ascontiguousarray(images)

    def read_one(self, index, out):
        out[...] = self.images[index]

    def read(self, indices):
        return self.images[indices]

    def take(self, indices):
        return ArraySplit(self.images[indices], self.labels[indices])


class ResizedSplit(Split):
    """Another split's images at another resolution, made when they are asked for."""

    def __init__(self, split: Split, resolution):
        from numnet.data.transforms import sides

        super().__init__(split.labels, (*sides(resolution), 3))
        self.split = split

    def read_one(self, index, out):
        from numnet.data.transforms import resize_and_crop

        image = np.empty(self.split.shape, np.uint8)
        self.split.read_one(index, image)
        out[...] = resize_and_crop(image, self.shape[:2], "stretch")

    def take(self, indices):
        return ResizedSplit(self.split.take(indices), self.shape[:2])


@dataclass
class Dataset:
    """A data set ready for use.

    ``name``                what it was asked for by; ``classes``: their names, in the order of the labels
    ``train``, ``test``     Splits; ``test``: None where only validation images were named (lists without a test list)
    ``validation``          a Split, or None if no image was held back for it
    ``mean``, ``std``       three floats each, of x/255: the scaling of the net's input
    ``skipped``             "file: reason" for every image that could not be read
    ``said``                lines about what was left out and what was assumed
    ``digest``              a fingerprint of the training images' files before any are held back; None for built-in sets
    ``first``               the number of the first class, where the classes are numbers of lists: 1 if those begin at 1
    ``preset``, ``background``   how photographs were resized, and the colour behind transparent pixels; None likewise
    """

    name: str
    classes: list[str]
    train: Split
    test: Split | None
    mean: tuple
    std: tuple
    validation: Split | None = None
    skipped: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    digest: str | None = None
    preset: str | None = None
    background: str | None = None
    first: int = 0

    @property
    def scaling(self) -> dict:
        """The scaling as a checkpoint stores it: {"mean": [3 floats], "std": [3 floats]}."""
        return {"mean": [float(v) for v in self.mean], "std": [float(v) for v in self.std]}

    def hold_back(self, count: int, seed: int, stratified: bool = False) -> None:
        """Move ``count`` training images, drawn by ``seed``, to the validation split.

        ``stratified``: of each class its share, to the image, and never the last. Otherwise any images: of thousands
        a class that comes to the same.
        """
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 0:
            raise NumnetError(f'validation: expected a number of images, or "test", got {count!r}')
        spare = len(self.train) - 1
        if stratified:
            spare = int(np.maximum(np.bincount(self.train.labels) - 1, 0).sum())
        if count and count > spare:
            each = " and leave one of each class" if stratified and count < len(self.train) else ""
            raise NumnetError(
                f"validation: {count} images cannot be held back of the {len(self.train)} "
                f"training images of {self.name}{each}"
            )
        if count:
            order = permutation(seed, SPLIT, 0, len(self.train))
            if stratified:
                order = _by_share(order, self.train.labels, count)
            self.validation = self.train.take(np.sort(order[:count]))
            self.train = self.train.take(np.sort(order[count:]))


def _by_share(order, labels, count):
    """The same order with ``count`` images in front, of each class its share: the first of them in ``order``.

    Shares are rounded down; what is left goes to the largest remainders. One image of each class stays behind.
    """
    sizes = np.bincount(labels)
    exact = sizes * count / len(labels)
    shares = np.minimum(np.floor(exact).astype(int), np.maximum(sizes - 1, 0))
    while shares.sum() < count:
        wants = np.where(shares < sizes - 1, exact - shares, -np.inf)
        shares[wants.argmax()] += 1
    taken, chosen = np.zeros_like(shares), np.zeros(len(order), bool)
    for place, index in enumerate(order):
        label = labels[index]
        chosen[place] = taken[label] < shares[label]
        taken[label] += chosen[place]
    return np.concatenate([order[chosen], order[~chosen]])


def in_memory(split: Split) -> ArraySplit:
    """The same images, read once and kept."""
    from concurrent.futures import ThreadPoolExecutor

    images = np.empty((len(split), *split.shape), np.uint8)
    with ThreadPoolExecutor(available()) as pool:  # Pillow lets other threads run while it works
        done = pool.map(split.read_one, range(len(split)), images)
        for _ in bar(done, desc="resizing images", total=len(split), leave=False, unit=" images"):
            pass
    return ArraySplit(images, split.labels)
