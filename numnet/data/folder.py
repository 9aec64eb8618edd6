"""Image folders: a folder a class (``layout``), or lists of files (``lists``), decoded and brought to one size.

Every file is decoded once when the folder is opened: what cannot be read is named, skipped and counted, so
that afterwards nothing is missing in the middle of an epoch. Images that fit into ``memory`` are kept; of
more images only the names are, and they are decoded again whenever they are asked for. Both ways give the
same batches. Only what is asked for is read: an evaluation decodes no training image.

If no folder says which images are for testing, a fifth of each class is the test set, always the same one:
it never depends on a seed, so no checkpoint is tested on its own images.
"""

import hashlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from numnet.cores import available
from numnet.data import image, layout, lists, transforms
from numnet.data.progress import bar
from numnet.data.split import ArraySplit, Dataset, Split
from numnet.errors import NumnetError, tell
from numnet.kernels.random import SPLIT, permutation

TEST_SHARE = 0.2  # of each class, where the folder has no test set of its own
NAMED = 10  # skipped images that are named on standard error; all are in Dataset.skipped
PARTS = ("train", "validation", "test", "all")


class FileSplit(Split):
    """Image files, decoded, resized and cropped when they are asked for."""

    def __init__(self, paths, labels, resolution, preset: str, background=None):
        super().__init__(labels, (*transforms.sides(resolution), 3))
        self.paths, self.preset, self.background = list(paths), preset, background

    def read_one(self, index, out):
        path = self.paths[index]
        try:
            picture = image.decode(path, self.background)
            out[...] = transforms.resize_and_crop(picture, self.shape[:2], self.preset)
        except Exception as error:  # it could be read when the folder was opened
            raise NumnetError(f"{path}: {image.why(error)}, though it could be read before") from None

    def take(self, indices):
        paths = [self.paths[i] for i in indices]
        return FileSplit(paths, self.labels[indices], self.shape[:2], self.preset, self.background)


def load(folder, *, resolution, preset: str, memory: int, background=None) -> Dataset:
    """The data set in ``folder``; ``memory`` in bytes. NumnetError, one line, for a folder that holds none.

    The scaling is ImageNet's.
    """
    listing = _listing(folder, resolution, preset, background)
    folder, classes = listing.folder, listing.classes
    if listing.whole:
        _cut_test_set(listing)
    reader = _Reader(listing, resolution, preset, memory, background)
    splits = {name: reader.read(files) for name, files in listing.parts.items()}
    reader.tell()
    for number, name in enumerate(classes):
        if not (splits["train"].labels == number).any():
            left = (
                " (none of its images can be read)"
                if any(n == number for _, n in listing.parts["train"])
                else ""
            )
            raise NumnetError(f"{folder}: class {name} has no training image{left}")
    if "test" in splits and not len(splits["test"]):
        raise NumnetError(f"{folder}: no test image; expected at least two images a class, or a test set")
    mean, std = transforms.SCALINGS["imagenet"]
    test, validation = splits.get("test"), splits.get("validation")
    if validation is not None and not len(validation):
        raise NumnetError(f"{folder}: none of the validation images can be read")
    data = Dataset(str(folder), classes, splits["train"], test, mean, std, validation, reader.skipped)
    data.digest, data.said, data.preset, data.background = digest(listing), reader.said, preset, background
    data.first = listing.first
    return data


class Evaluation(NamedTuple):
    """The labelled images that a net is to be judged by; ``part``: which of the folder's these are.

    ``first``: the number of the first class, where the classes are numbers of lists.
    """

    name: str
    classes: list
    split: Split
    part: str
    skipped: list
    first: int = 0


def evaluation(
    folder, *, resolution, preset: str, memory: int, background=None, part=None, trained=None
) -> Evaluation:
    """The images of a folder by which a net is judged; no others are read. NumnetError.

    ``part``      "train", "validation", "test", "all"; None: the test images if the folder names any, else the
                  validation images. A folder that names no parts is used whole, but for the folder that the net was
                  trained on: there the fifth that its training left out. If it left out none, that is said
    ``trained``   what the net's checkpoint says of its training's data: {"dataset": path, "digest": …}, or None
    """
    if part is not None and part not in PARTS:
        raise NumnetError(f"split: expected one of {', '.join(PARTS)}, got {part!r}")
    listing = _listing(folder, resolution, preset, background, training=False)
    if listing.whole and _trained_on_all(listing, trained or {}):
        listing.said.append(
            f"{folder}: the net was trained on all of these {len(listing.parts['train']):,} images: "
            "to judge it name the folder of its test images"
        )
        part = part or "all"
    if part is None:
        part = next((name for name in ("test", "validation") if name in listing.parts), None)
        if part == "validation":
            listing.said.append(
                f"{folder}: has no test images: these are its validation images, which may have chosen the net"
            )
    if part is None:
        part = _of_whole(listing, trained or {})
    elif part == "test" and listing.whole:
        _cut_test_set(listing)
    if part == "all":
        listing.parts = {"all": [file for files in listing.parts.values() for file in files]}
    elif part == "train" and listing.whole:
        _cut_test_set(listing)
    if not listing.parts.get(part):
        raise NumnetError(f"{folder}: no {part} images; it has {', '.join(listing.parts)}")
    reader = _Reader(listing, resolution, preset, memory, background, of=[part])
    split = reader.read(listing.parts[part])
    reader.tell()
    if not len(split):
        raise NumnetError(f"{folder}: none of the {part} images can be read")
    return Evaluation(str(folder), listing.classes, split, part, reader.skipped, listing.first)


def trained_on_all(folder, trained) -> bool:
    """Whether a net was trained on all images of this folder; ``trained`` as of ``evaluation``."""
    listing = _listing(folder, 224, "torchvision", None, training=False)
    return listing.whole and _trained_on_all(listing, trained)


def _trained_on_all(listing, trained) -> bool:
    """Whether these are the training images of a folder that has test images beside them: DIR/train of DIR."""
    known, named = trained.get("digest"), trained.get("dataset") or ""
    bases = _bases(listing.folder, listing.parts["train"]) + ([Path(named)] if os.path.isabs(named) else [])
    return known is not None and any(known == digest(listing, base) for base in bases)


def _of_whole(listing, trained) -> str:
    """The part by which to judge where the folder names none."""
    folder = listing.folder
    count = len(listing.parts["train"])
    whole = list(listing.parts["train"])
    _cut_test_set(listing)
    known = trained.get("digest")
    same = known is not None and any(known == digest(listing, base) for base in _bases(folder, whole))
    here = os.path.isabs(trained.get("dataset") or "") and _same(trained["dataset"], folder)  # not "cifar10"
    if here or same:
        listing.said.append(
            f"{folder}: the net was trained on this folder: judged by the {len(listing.parts['test']):,} of its "
            f"{count:,} images that the training left out"
        )
        if known is not None and not same:
            listing.said.append(
                f"{folder}: has changed since the training: some of these images may have been trained on"
            )
        return "test"
    listing.parts = {"train": whole}
    listing.said.append(f"{folder}: no splits in it: all {count:,} images are used")
    return "all"


def _bases(folder, files) -> list:
    """What a training on these files may have named: their folder, the one around it, or one in it."""
    try:
        inner = Path(os.path.commonpath([path.parent for path, _ in files]))
    except ValueError:  # no files, or a list's, some by absolute paths
        inner = folder
    between = [path for path in (inner, *inner.parents) if path.is_relative_to(folder)]
    return list(dict.fromkeys([folder, folder.absolute().parent, *between]))


def _same(one, other) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _listing(folder, resolution, preset, background, training=True) -> layout.Listing:
    """The files of the data set in ``folder``, by its lists if it has any, else by its folders."""
    folder = Path(folder)
    transforms.check_preset(preset, resolution)
    image.check_background(background)
    if not folder.is_dir():
        raise NumnetError(
            f"{folder}: {'a file' if folder.exists() else 'no such folder'}, expected an image folder"
        )
    try:
        named = lists.find(folder)
        if "train" in named or (named and not training):
            return lists.from_lists(folder, named)
        try:
            listing = layout.from_folders(folder, training)
        except NumnetError:
            named = lists.find(folder, strict=False)
            if "train" not in named and (training or not named):
                raise
        else:
            if named and listing.whole:  # its test images would be trained on, and then judge the net
                part, path = next(iter(named.items()))
                raise NumnetError(
                    f"{path}: lists {part} images, and no list those for training; expected train_list.txt beside it"
                )
            return listing
        return lists.from_lists(folder, named)
    except OSError as error:
        raise NumnetError(f"{error.filename or folder}: {error.strerror or error}") from None


def digest(listing, base=None) -> str:
    """A fingerprint of the training images' files: their paths below ``base``, the folder, sizes and classes, in order."""
    sum_ = hashlib.sha256()
    for path, label in listing.parts["train"]:
        try:
            name = os.path.relpath(path, base or listing.folder).replace(os.sep, "/")
            size = os.stat(path).st_size
        except (OSError, ValueError):  # a link to nothing; another drive
            name, size = path.name, -1
        sum_.update(f"{name}\0{size}\0{listing.classes[label]}\n".encode("utf-8", "surrogateescape"))
    return sum_.hexdigest()[:32]


# ------------------------------------------------------------------------------------------------ its images


class _Reader:
    """Decodes a listing's files, and keeps account of what could not be read and what had to be assumed."""

    def __init__(self, listing, resolution, preset, memory, background, of=None):
        self.listing, self.settings = listing, (resolution, preset, background)
        self.skipped, self.notes, self.unreadable = [], Counter(), Counter()
        self.said = list(listing.said)
        files = sum(len(listing.parts[part]) for part in of or listing.parts)
        high, wide = transforms.sides(resolution)
        self.keep = files * high * wide * 3 <= memory

    def read(self, files) -> Split:
        """Decode every file once; return the split of those that can be read, in memory if all fit there."""
        resolution, preset, background = self.settings
        labels = [label for _, label in files]
        split = FileSplit([path for path, _ in files], labels, resolution, preset, background)
        images = np.empty((len(split), *split.shape), np.uint8) if self.keep else None

        def read(index):
            notes = []
            try:
                picture = image.decode(split.paths[index], background, notes)
                if self.keep:
                    images[index] = transforms.resize_and_crop(picture, resolution, preset)
                return None, notes
            except MemoryError:
                raise
            except (
                Exception
            ) as error:  # a decoder may raise anything else, and each means that the file is no image
                return f"{split.paths[index]}: {image.why(error)}", []

        with image.quiet(), ThreadPoolExecutor(available()) as pool:
            done = pool.map(read, range(len(split)))
            done = list(bar(done, desc="reading images", total=len(split), leave=False, unit=" images"))
        problems = [problem for problem, _ in done]
        self.skipped += [problem for problem in problems if problem]
        self.notes.update(note for _, notes in done for note in notes)
        good = np.array([problem is None for problem in problems], bool)
        self.unreadable.update(split.labels[~good].tolist())
        if not self.keep:
            return split.take(np.flatnonzero(good))
        return (
            ArraySplit(images, split.labels) if good.all() else ArraySplit(images[good], split.labels[good])
        )

    def tell(self) -> None:
        """Say what was left out and what was assumed."""
        for line in self.skipped[:NAMED]:
            tell(f"skipped {line}")
        if len(self.skipped) > NAMED:
            tell(f"skipped {len(self.skipped) - NAMED} more images")
        self.said += layout.losses(self.listing, self.unreadable)
        self.said += [f"{self.listing.folder}: {line}" for line in image.noted(self.notes)]
        for line in self.said:
            tell(line)


def _cut_test_set(listing) -> None:
    """Move TEST_SHARE of each class's training images to a test set, at least one where a class has two."""
    files = listing.parts["train"]
    labels = np.array([label for _, label in files], np.int64)
    test = np.zeros(len(files), bool)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        count = min(max(1, round(TEST_SHARE * len(mine))), len(mine) - 1)
        test[mine[permutation(0, SPLIT, 1 + int(label), len(mine))[:count]]] = True
    listing.parts = {
        "train": [file for file, chosen in zip(files, test) if not chosen],
        "test": [file for file, chosen in zip(files, test) if chosen],
    }
