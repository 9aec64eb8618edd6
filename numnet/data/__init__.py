"""Data sets: CIFAR-10, image folders and the built-in shapes, all as bytes and labels, and batches of them.

data = numnet.data.load("shapes", validation=1000)
for x, labels in numnet.data.batches(data.train, batch_size=128, scaling=data.scaling, seed=0, epoch=0):
    ...
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from numnet.data.feed import batches as batches
from numnet.data.split import ArraySplit as ArraySplit
from numnet.data.split import Dataset as Dataset
from numnet.data.split import ResizedSplit, in_memory
from numnet.data.split import Split as Split
from numnet.data.transforms import check_preset, scaling, sides
from numnet.errors import NumnetError, tell

BUILT_IN = ("cifar10", "shapes")
MEMORY = 2 << 30  # bytes of images that are kept in memory; more are decoded again and again
UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def load(
    dataset: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    validation: int | str = 0,
    seed: int = 0,
    resolution: int | Sequence[int] | None = None,
    preset: str | None = None,
    memory: int | str | None = None,
    download: bool = True,
    input_scaling: str | dict[str, list[float]] | None = None,
    background: str | None = None,
) -> Dataset:
    """Read a data set.

    ``dataset``        "cifar10", "shapes", or the path of an image folder (see ``numnet.data.folder``)
    ``data_dir``       where CIFAR-10 is; None: $NUMNET_DATA, the cache, or a download if ``download``
    ``validation``     training images to hold back, drawn by ``seed``, of folders by classes; not where the folder has
                       its own.
                       "test": the test images in their place (also where the folder has its own): what is
                       chosen by them has then seen the test
    ``resolution``     side of the images in pixels, or (height, width); None: 32, for folders 224
    ``preset``         how an image of a folder is resized to it: "torchvision" (None), "stretch", "keras"
    ``memory``         bytes of images to keep, an integer or "500M", "4G"; None: 2 GiB
    ``background``     colour behind transparent pixels: "white", "black", "grey"; None: their hidden colour
    ``input_scaling``  a name in ``numnet.data.transforms.SCALINGS``, or {"mean", "std"}, instead of the data set's own

    Raises NumnetError, one line, for everything that a user can get wrong.
    """
    memory = MEMORY if memory is None else _bytes(memory)
    if dataset in BUILT_IN:
        data = _built_in(dataset, data_dir, download)
        if resolution is not None and (*sides(resolution), 3) != data.train.shape:
            check_preset("stretch", resolution)
            _resize(data, resolution, memory)
    else:
        from numnet.data import folder

        path = Path(dataset)
        if not path.exists():
            raise NumnetError(
                f"data set: expected {', '.join(BUILT_IN)} or the path of an image folder, got {dataset!r}"
            )
        data = folder.load(
            path.absolute() if str(path) in BUILT_IN else path,  # "./shapes" is no set of numnet's own
            resolution=224 if resolution is None else resolution,
            preset="torchvision" if preset is None else preset,
            memory=memory,
            background=background,
        )
    if validation == "test":
        if data.test is None:
            raise NumnetError(
                f"validation: {data.name} has no test images; expected a number, or test_list.txt"
            )
        data.validation = data.test
    elif data.validation is None:
        data.hold_back(validation, seed, stratified=dataset not in BUILT_IN)
    elif validation:
        tell(f"{data.name}: has {len(data.validation):,} validation images of its own: none is held back")
    if input_scaling is not None:
        chosen = input_scaling if isinstance(input_scaling, dict) else scaling(input_scaling)
        if set(chosen) != {"mean", "std"}:
            raise NumnetError(f'input_scaling: expected a name or {{"mean", "std"}}, got {sorted(chosen)}')
        try:
            numbers = np.array([chosen["mean"], chosen["std"]], float)
        except (TypeError, ValueError):  # texts, rows of several lengths
            numbers = np.array(np.nan)
        if numbers.shape != (2, 3) or not np.isfinite(numbers).all() or not (numbers[1] > 0).all():
            raise NumnetError(
                f"input_scaling: expected three numbers as mean, three above 0 as std, got {chosen['mean']}, {chosen['std']}"
            )
        data.mean, data.std = tuple(chosen["mean"]), tuple(chosen["std"])
    return data


def load_for_evaluation(
    dataset,
    *,
    data_dir=None,
    resolution=None,
    preset=None,
    background=None,
    memory=None,
    part=None,
    trained=None,
):
    """The images by which a net is judged, and no others: see ``numnet.data.folder.evaluation``. NumnetError.

    ``part``      "train", "validation", "test", "all"; None: the test images, if there are any
    ``trained``   what the net's checkpoint says of its training's images: {"dataset": path, "digest": …}, or None
    Other arguments as those of ``load``.
    """
    from numnet.data import folder

    if dataset not in BUILT_IN and Path(dataset).exists():
        return folder.evaluation(
            dataset, resolution=resolution or 224, preset=preset or "torchvision", background=background,
            memory=MEMORY if memory is None else _bytes(memory), part=part, trained=trained,
        )  # fmt: skip
    if part not in (None, "train", "test"):
        raise NumnetError(f"split: {dataset} has train and test images, got {part!r}")
    data = load(dataset, data_dir=data_dir, resolution=resolution, preset=preset, memory=memory)
    split = data.train if part == "train" else data.test
    return folder.Evaluation(data.name, data.classes, split, part or "test", data.skipped)


def _built_in(dataset, data_dir, download) -> Dataset:
    if dataset == "shapes":
        from numnet.data import shapes

        return shapes.load()
    from numnet.data import cifar10

    return cifar10.load(data_dir, download)


def _resize(data: Dataset, resolution, memory: int) -> None:
    """Bring the images to another resolution: at once if they fit in memory, else when asked for."""
    data.train, data.test = ResizedSplit(data.train, resolution), ResizedSplit(data.test, resolution)
    high, wide = sides(resolution)
    if (len(data.train) + len(data.test)) * high * wide * 3 <= memory:
        data.train, data.test = in_memory(data.train), in_memory(data.test)


def _bytes(memory) -> int:
    """2048, "2048", "2K", "2.5G", "2GB", "2GiB" (powers of two) as a number of bytes."""
    text = str(memory).strip().upper().removesuffix("B").removesuffix("I")
    number, unit = (text[:-1], text[-1]) if text[-1:] in tuple("KMGT") else (text, "")
    try:
        value = float(number) * 2 ** UNITS[unit]
    except ValueError:
        value = -1.0
    if not 0 <= value < 2**63:
        raise NumnetError(f"memory: expected bytes, or a size like 500M or 4G, got {memory!r}")
    return int(value)
