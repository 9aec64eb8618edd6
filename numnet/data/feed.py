"""From a split to the batches that a net takes: an epoch's order, reading ahead, augmentation, scaling."""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from numnet.data import mixing
from numnet.data.split import Split
from numnet.data.transforms import as_channels
from numnet.errors import NumnetError
from numnet.kernels.augment import BORDERS, FLIPS, augment, scale
from numnet.kernels.random import SHUFFLE, SPLIT, permutation

# Options of augmentation, with what leaving them out means
OPTIONS = {"crop": 0, "flip": False, "cutout": 0, "border": "zero", "mixup": 0, "cutmix": 0}
SAMPLINGS = ("shuffled", "balanced")
OVERSAMPLED = 1 << 32  # from here on the numbers of draws that choose among a class's images
THREADS = 4  # that decode; more than cores, since each waits for Python's lock while a kernel runs
AHEAD = 3  # batches that are being read while one is trained on


def batches(
    split: Split,
    *,
    batch_size: int,
    scaling: dict[str, list[float]],
    seed: int = 0,
    epoch: int = 0,
    augment: dict[str, Any] | None = None,
    shuffle: bool = True,
    start: int = 0,
    dtype: DTypeLike = "float32",
    threads: int = THREADS,
    take: Callable[[int, int], Any] | None = None,
    sampling: str = "shuffled",
    channels: int = 3,
) -> Generator[tuple[np.ndarray, Any], None, None]:
    """Yield (x, labels): x (B, H, W, 3) of ``dtype``, scaled, and labels int64 (B,). The last may be short.

    ``scaling``   {"mean": [3 floats], "std": [3 floats]} of x/255
    ``augment``   None, or some of {"crop": pixels, "flip": True or "alternate", "cutout": side, "border": "reflect"};
                  with "mixup" or "cutmix": α the labels are a ``mixing.Mixed``: see ``numnet.data.mixing``
    ``shuffle``   in an order drawn by (``seed``, ``epoch``), else in the order of the split
    ``start``     the number of the first batch: a resumed run asks for the batches that it has not seen
    ``take``      function(number, images of batch ``number``) -> the places in it that are wanted here, an array or a
                  slice, or None for no such batch; where several share the work, each reads its own images only
    ``sampling``  "shuffled": every image once. "balanced": as many images of each class, as many as there are images in
                  all: those of small classes several times, each time with another augmentation, of large ones
                  a part, another one in each epoch
    ``channels``  what the net takes: 3, or 1 for the luminance of the scaled images, x then (B, H, W, 1)

    Batch number i depends on the arguments and on i alone, never on what was read before or on how many
    threads read. Raises NumnetError.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise NumnetError(f"batch size: expected an integer of at least 1, got {batch_size!r}")
    options = _options(augment, split.shape)
    if sampling not in SAMPLINGS:
        raise NumnetError(f"sampling: expected one of {', '.join(SAMPLINGS)}, got {sampling!r}")
    order = permutation(seed, SHUFFLE, epoch, len(split)) if shuffle else np.arange(len(split))
    draws = order  # what an image's augmentation is drawn by
    if sampling == "balanced":
        images, times = _balanced(split.labels, seed, epoch)
        order, draws = images[order], (images + len(split) * times)[order]
    starts = range(start * batch_size, len(order), batch_size)
    alphas = {name: (augment or {}).get(name, 0) for name in ("mixup", "cutmix")}
    parts = []
    for number, i in enumerate(starts, start):
        part = order[i : i + batch_size], draws[i : i + batch_size]
        place = slice(None) if take is None else take(number, len(part[0]))
        if place is None:
            continue
        if any(alphas.values()):  # behind the images their partners, which are read and augmented as well
            part = [np.concatenate([whole[place], np.roll(whole, 1)[place]]) for whole in part]
            parts.append((*part, mixing.draw(seed, epoch, number, **alphas, shape=split.shape)))
        else:
            parts.append((part[0][place], part[1][place], None))
    made = _batches(split, parts, scaling, options, dict(seed=seed, epoch=epoch), dtype, threads)
    if channels == 3:
        return made
    as_channels(np.empty((0, *split.shape), dtype), channels)  # whether there are such
    return _with_channels(made, channels)


def _with_channels(made, channels):
    with closing(made):
        for x, labels in made:
            yield as_channels(x, channels), labels


def _balanced(labels, seed, epoch):
    """(numbers of as many images as there are, the same number of each class; how often each was there before)."""
    classes = np.unique(labels)
    share, rest = divmod(len(labels), max(len(classes), 1))
    images, times = [], []
    for place, label in enumerate(classes):
        own = np.flatnonzero(labels == label)
        count = share + ((place + epoch) % len(classes) < rest)
        rounds, more = divmod(count, len(own))
        order = permutation(seed, SPLIT, OVERSAMPLED + epoch * len(classes) + place, len(own))
        images += [np.tile(own, rounds), own[order[:more]]]
        times += [np.repeat(np.arange(rounds), len(own)), np.full(more, rounds)]
    return (np.concatenate(part).astype(np.int64) for part in (images, times))


def _batches(split, parts, scaling, options, draw, dtype, threads):
    mean, std = scaling["mean"], scaling["std"]
    for (_, draws, mix), (part, images) in zip(parts, _read(split, [part[0] for part in parts], threads)):
        if options is None:
            x = scale(images, mean, std, dtype)
        else:
            x = augment(images, draws, mean=mean, std=std, dtype=dtype, **draw, **options)
        labels = split.labels[part]
        if mix is not None:
            half = len(x) // 2
            labels = mixing.Mixed(labels[:half], labels[half:], mix.share)
            mixing.blend(x[:half], x[half:], mix)
            x = x[:half]
        yield x, labels


def check_augment(augment) -> None:
    """Raise NumnetError for an option ``augment`` that no images can have."""
    for name in augment or {}:
        if name not in OPTIONS:
            raise NumnetError(f"augmentation: expected some of {', '.join(OPTIONS)}, got {name!r}")
    options = {**OPTIONS, **(augment or {})}
    for name in ("mixup", "cutmix"):
        mixing.check(name, options[name])
    for name in ("crop", "cutout"):
        value = options[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise NumnetError(f"augmentation: {name} expects a number of pixels, got {value!r}")
    if type(options["flip"]) not in (bool, str) or options["flip"] not in FLIPS:
        raise NumnetError(f'augmentation: flip expects true, false or "alternate", got {options["flip"]!r}')
    if options["border"] not in BORDERS:
        raise NumnetError(
            f"augmentation: border expects one of {', '.join(BORDERS)}, got {options['border']!r}"
        )


def _options(augment, shape):
    """The keywords of ``kernels.augment`` for the option ``augment``; None for none."""
    check_augment(augment)
    if augment is None:
        return None
    options = {key: value for key, value in {**OPTIONS, **augment}.items() if key not in ("mixup", "cutmix")}
    if options["border"] == "reflect" and options["crop"] >= min(shape[:2]):
        raise NumnetError(
            f"augmentation: crop by {options['crop']} pixels cannot reflect images of {shape[0]}×{shape[1]}"
        )
    return {"padding": options.pop("crop"), **options}


def _read(split, parts, threads):
    """Yield each part with its images. What is not in memory is read ahead, an image a task."""
    if split.kept:
        for part in parts:
            yield part, split.read(part)
        return
    pool, waiting, rest = ThreadPoolExecutor(threads, "numnet-read"), deque(), iter(parts)
    try:
        while True:
            while len(waiting) < AHEAD and (part := next(rest, None)) is not None:
                images = np.empty((len(part), *split.shape), np.uint8)
                waiting.append(
                    (part, images, [pool.submit(split.read_one, *job) for job in zip(part, images)])
                )
            if not waiting:
                return
            part, images, tasks = waiting.popleft()
            for task in tasks:
                task.result()  # raises what the thread raised
            yield part, images
    finally:
        pool.shutdown(cancel_futures=True)
