"""Image folders: a folder a class, or PaddlePaddle's lists of files.

    DIR/train/CLASS/*, DIR/test/CLASS/*      a folder ``val`` or ``validation`` beside them holds the
                                             validation images; without ``test`` it is the test set
    DIR/CLASS/*                              a fifth of each class, drawn once and for all, is the test set
    DIR/train_list.txt, DIR/test_list.txt    a line an image: its path below DIR, a blank, its class number;
                                             label_list.txt with the classes' names. The images of val_list.txt
                                             are the validation images, also where there is no test_list.txt:
                                             then there is no test set

Every file is decoded once when the folder is opened: what cannot be read is named, skipped and counted, so
that afterwards nothing is missing in the middle of an epoch. Images that fit into ``memory`` are kept; of
more images only the names are, and they are decoded again whenever they are asked for. Both ways give the
same batches.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from numnet.data import image, transforms
from numnet.data.split import ArraySplit, Dataset, Split
from numnet.errors import NumnetError
from numnet.kernels.random import SPLIT, permutation

TEST_SHARE = 0.2  # of each class, where the folder has no test set of its own
NAMED = 10  # skipped images that are named on standard error; all are in Dataset.skipped
VALIDATION = ("validation", "val", "valid")


class FileSplit(Split):
    """Image files, decoded, resized and cropped when they are asked for."""

    def __init__(self, paths, labels, resolution: int, preset: str):
        super().__init__(labels, (resolution, resolution, 3))
        self.paths, self.preset = list(paths), preset

    def read_one(self, index, out):
        path = self.paths[index]
        try:
            out[...] = transforms.resize_and_crop(image.decode(path), self.shape[0], self.preset)
        except Exception as error:  # it could be read when the folder was opened
            raise NumnetError(f"{path}: {image.why(error)}, though it could be read before") from None

    def take(self, indices):
        paths = [self.paths[i] for i in indices]
        return FileSplit(paths, self.labels[indices], self.shape[0], self.preset)


def load(folder, *, resolution: int, preset: str, memory: int) -> Dataset:
    """The data set in ``folder``; ``memory`` in bytes. NumnetError, one line, for a folder that holds none.

    The scaling is ImageNet's; the test set never depends on a seed, so no checkpoint is tested on its own
    images.
    """
    folder = Path(folder)
    transforms.check_preset(preset, resolution)
    if not folder.is_dir():
        raise NumnetError(
            f"{folder}: {'a file' if folder.exists() else 'no such folder'}, expected an image folder"
        )
    lists = (folder / "train_list.txt").exists()
    classes, parts = _from_lists(folder) if lists else _from_folders(folder)
    skipped: list[str] = []
    keep = sum(len(files) for files in parts.values()) * resolution * resolution * 3 <= memory
    splits = {name: _open(files, resolution, preset, keep, skipped) for name, files in parts.items()}
    _tell(skipped)
    if "test" not in splits and "validation" not in splits:
        _cut_test_set(splits)
    for number, name in enumerate(classes):
        if not (splits["train"].labels == number).any():
            left = " (none of its images can be read)" if any(n == number for _, n in parts["train"]) else ""
            raise NumnetError(f"{folder}: class {name} has no training image{left}")
    if "test" in splits and not len(splits["test"]):
        raise NumnetError(f"{folder}: no test image; expected at least two images a class, or a test set")
    mean, std = transforms.SCALINGS["imagenet"]
    test, validation = splits.get("test"), splits.get("validation")
    if validation is not None and not len(validation):
        raise NumnetError(f"{folder}: none of the validation images can be read")
    return Dataset(str(folder), classes, splits["train"], test, mean, std, validation, skipped)


# -------------------------------------------------------------------------------------- what is in the folder


def _from_folders(folder: Path):
    """The classes' names, and (path, class number) of every image of every split."""
    train = folder / "train"
    places = {"train": train if train.is_dir() else folder}
    if train.is_dir():
        validation = next((folder / name for name in VALIDATION if (folder / name).is_dir()), None)
        if (folder / "test").is_dir():
            places["test"] = folder / "test"
        if validation is not None:
            places["validation" if "test" in places else "test"] = validation
    classes = _subfolders(places["train"])
    if len(classes) < 2:
        came = f"only one class folder, {classes[0]}" if classes else "no class folders"
        raise NumnetError(
            f"{places['train']}: {came}; expected train/CLASS/* and test/CLASS/*, CLASS/*, or train_list.txt"
        )
    parts = {}
    for split, place in places.items():
        parts[split] = []
        for name in _subfolders(place):
            if name not in classes:
                raise NumnetError(f"{place / name}: a class that {places['train']} does not have")
            files = _images_below(place / name)
            if not files:
                raise NumnetError(
                    f"{place / name}: no image of class {name}, expected {', '.join(image.SUFFIXES)}"
                )
            parts[split] += [(file, classes.index(name)) for file in files]
    return classes, parts


def _subfolders(folder: Path) -> list[str]:
    return sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def _images_below(folder: Path) -> list[Path]:
    """All image files in the folder and the folders in it, in order of their names."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders.sort()
        names = (name for name in sorted(files) if not name.startswith("."))
        found += [Path(parent, name) for name in names if Path(name).suffix.lower() in image.SUFFIXES]
    return found


def _from_lists(folder: Path):
    """The same from lists of files."""
    parts = {"train": _read_list(folder / "train_list.txt")}
    if (folder / "test_list.txt").exists():
        parts["test"] = _read_list(folder / "test_list.txt")
    if (folder / "val_list.txt").exists():
        parts["validation"] = _read_list(folder / "val_list.txt")
    count = 1 + max(label for files in parts.values() for _, label in files)
    if count < 2:
        raise NumnetError(f"{folder / 'train_list.txt'}: only one class, expected at least two")
    return _class_names(folder, count), parts


def _read_list(path: Path) -> list:
    files = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        name, _, label = line.strip().replace("\t", " ").rpartition(" ")
        if not name or not label.isdecimal() or int(label) > 100_000:
            raise NumnetError(
                f"{path}: line {number} is {line[:80]!r}, expected a path, a blank, a class number"
            )
        files.append((path.parent / name.strip(), int(label)))
    if not files:
        raise NumnetError(f"{path}: empty, expected a line an image: a path, a blank, a class number")
    return files


def _class_names(folder: Path, count: int) -> list[str]:
    """From label_list.txt, NAME_label_list.txt or labels.txt: a line is a name, or a number and a name."""
    found = sorted([*folder.glob("*label_list.txt"), *folder.glob("labels.txt")])
    if not found:
        return [str(number) for number in range(count)]
    lines = [line.strip() for line in _lines(found[0]) if line.strip()]
    numbered = [line.partition(" ") for line in lines]
    if [number for number, _, _ in numbered] == [str(n) for n in range(len(lines))]:
        lines = [name.strip() or number for number, _, name in numbered]
    if len(lines) < count:
        raise NumnetError(
            f"{found[0]}: {len(lines)} names, expected {count}, one for each class of the lists"
        )
    return lines[:count]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise NumnetError(f"{path}: cannot be read as text ({' '.join(str(error).split())})") from None


# ------------------------------------------------------------------------------------------------ its images


def _open(files, resolution, preset, keep, skipped) -> Split:
    """Decode every file once; return the split of those that can be read, in memory if ``keep``."""
    split = FileSplit([path for path, _ in files], [label for _, label in files], resolution, preset)
    images = np.empty((len(split), *split.shape), np.uint8) if keep else None

    def read(index):
        try:
            picture = image.decode(split.paths[index])
            if keep:
                images[index] = transforms.resize_and_crop(picture, resolution, preset)
        except Exception as error:  # a decoder may raise anything, and each means that the file is no image
            return f"{split.paths[index]}: {image.why(error)}"

    with image.quiet(), ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        done = pool.map(read, range(len(split)))
        problems = list(tqdm(done, "reading images", len(split), leave=False, disable=None, unit=" images"))
    skipped += [problem for problem in problems if problem]
    good = np.array([problem is None for problem in problems], bool)
    if not keep:
        return split.take(np.flatnonzero(good))
    return ArraySplit(images, split.labels) if good.all() else ArraySplit(images[good], split.labels[good])


def _tell(skipped) -> None:
    for line in skipped[:NAMED]:
        print(f"numnet: skipped {line}", file=sys.stderr)
    if len(skipped) > NAMED:
        print(f"numnet: skipped {len(skipped) - NAMED} more images", file=sys.stderr)


def _cut_test_set(splits) -> None:
    """Move TEST_SHARE of each class's training images to a test set, at least one where a class has two."""
    train = splits["train"]
    test = np.zeros(len(train), bool)
    for label in np.unique(train.labels):
        mine = np.flatnonzero(train.labels == label)
        count = min(max(1, round(TEST_SHARE * len(mine))), len(mine) - 1)
        test[mine[permutation(0, SPLIT, 1 + int(label), len(mine))[:count]]] = True
    splits["test"], splits["train"] = train.take(np.flatnonzero(test)), train.take(np.flatnonzero(~test))
