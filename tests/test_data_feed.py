"""Batches: every image once, the same whatever was read before and however many threads read."""

import threading
import time

import numpy as np
import pytest

from numnet import data
from numnet.data.split import ArraySplit, Dataset, ResizedSplit, Split, in_memory
from numnet.errors import NumnetError
from numnet.kernels.augment import augment, scale

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (50, 12, 10, 3), dtype=np.uint8)
KEPT = ArraySplit(IMAGES, np.arange(50))  # the label is the image's number
SCALING = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.1]}


class Slow(Split):
    """The same images, each read after a while that says nothing about its place."""

    def __init__(self, fails=None):
        super().__init__(KEPT.labels, KEPT.shape)
        self.fails, self.readers, self.read_so_far = fails, set(), []

    def read_one(self, index, out):
        self.readers.add(threading.current_thread().name)
        time.sleep(0.002 * (7 * index % 5))
        if index == self.fails:
            raise NumnetError(f"image {index} is gone")
        out[...] = IMAGES[index]
        self.read_so_far.append(index)


def collect(split, **options):
    return list(data.batches(split, **{**dict(batch_size=8, scaling=SCALING), **options}))


def equal(some, others):
    return len(some) == len(others) and all(
        (a == b).all() and (i == j).all() for (a, i), (b, j) in zip(some, others)
    )


def test_in_order():
    batches = collect(KEPT, shuffle=False)
    assert [len(labels) for _, labels in batches] == [8] * 6 + [2]
    assert (np.concatenate([labels for _, labels in batches]) == np.arange(50)).all()
    x = np.concatenate([x for x, _ in batches])
    assert x.dtype == np.float32 and (x == scale(IMAGES, SCALING["mean"], SCALING["std"])).all()
    assert collect(KEPT, shuffle=False, dtype="float64")[0][0].dtype == np.float64


def test_an_epoch_is_an_order_of_all_images():
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        batches = collect(KEPT, seed=seed, epoch=epoch)
        order = np.concatenate([labels for _, labels in batches])
        assert sorted(order) == list(range(50))
        x = np.concatenate([x for x, _ in batches])
        assert (x == scale(IMAGES[order], SCALING["mean"], SCALING["std"])).all()
        orders.append(order.tolist())
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert equal(collect(KEPT, seed=0, epoch=1), collect(KEPT, seed=0, epoch=1))


def test_augmentation_goes_by_the_number_in_the_split():
    options = {"crop": 2, "flip": True, "cutout": 3, "border": "reflect"}
    for x, labels in collect(KEPT, seed=4, epoch=2, augment=options):
        expected = augment(
            IMAGES[labels],
            labels,
            seed=4,
            epoch=2,
            padding=2,
            flip=True,
            cutout=3,
            border="reflect",
            **SCALING,
        )
        assert (x == expected).all()
    assert equal(collect(KEPT, augment={}), collect(KEPT))  # every part of it is off unless asked for


@pytest.mark.parametrize("start", [0, 3, 6, 7])
def test_a_resumed_epoch(start):
    options = dict(seed=1, epoch=5, augment={"crop": 3, "flip": True})
    assert equal(collect(KEPT, start=start, **options), collect(KEPT, **options)[start:])


def test_reading_ahead_changes_nothing():
    options = dict(seed=1, epoch=5, augment={"crop": 3, "flip": True})
    split = Slow()
    for threads in (1, 4):
        assert equal(collect(split, threads=threads, **options), collect(KEPT, **options))
    assert len(split.readers) > 2 and threading.current_thread().name not in split.readers


def test_the_next_batches_are_read_while_one_is_used():
    split = Slow()
    batches = data.batches(split, batch_size=5, scaling=SCALING, shuffle=False)
    next(batches)
    until = time.monotonic() + 20
    while len(split.read_so_far) < 15 and time.monotonic() < until:
        time.sleep(0.01)  # nobody asks for a batch
    time.sleep(0.05)
    assert sorted(split.read_so_far) == list(range(15))  # three batches and no more
    batches.close()


def test_a_reader_that_stops_early_leaves_no_threads():
    before = threading.active_count()
    batches = data.batches(Slow(), batch_size=2, scaling=SCALING)
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before


def test_an_error_while_reading_arrives():
    before = threading.active_count()
    with pytest.raises(NumnetError, match="image 17 is gone"):
        collect(Slow(fails=17))
    assert threading.active_count() == before


def test_no_images():
    assert collect(ArraySplit(IMAGES[:0], [])) == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (dict(batch_size=0), "batch size: expected an integer of at least 1, got 0"),
        (dict(batch_size=2.5), "batch size: expected"),
        (
            dict(augment={"crops": 4}),
            "augmentation: expected some of crop, flip, cutout, border, mixup, cutmix, got 'crops'",
        ),
        (dict(augment={"crop": -1}), "augmentation: crop expects a number of pixels, got -1"),
        (dict(augment={"cutout": True}), "augmentation: cutout expects a number of pixels, got True"),
        (dict(augment={"flip": 1}), 'augmentation: flip expects true, false or "alternate", got 1'),
        (dict(augment={"flip": "always"}), "augmentation: flip expects .* got 'always'"),
        (dict(augment={"border": "wrap"}), "augmentation: border expects one of zero, reflect, got 'wrap'"),
        (dict(augment={"crop": 10, "border": "reflect"}), "crop by 10 pixels cannot reflect images of 12×10"),
    ],
)
def test_wrong_options_are_named_before_the_first_batch(wrong, says):
    with pytest.raises(NumnetError, match=says):
        data.batches(KEPT, **{**dict(batch_size=8, scaling=SCALING), **wrong})


# ------------------------------------------------------------------------------------------ splits, data sets


def dataset(split=KEPT):
    return Dataset("mine", ["a", "b"], split, split, (0.5,) * 3, (0.25,) * 3)


def test_images_held_back_are_drawn_and_gone_from_training():
    held = []
    for seed in (0, 0, 1):
        mine = dataset()
        mine.hold_back(12, seed)
        both = np.concatenate([mine.train.labels, mine.validation.labels])
        assert len(mine.train) == 38 and len(mine.validation) == 12 and sorted(both) == list(range(50))
        assert (mine.train.images == IMAGES[mine.train.labels]).all()
        assert (mine.validation.read([3]) == IMAGES[mine.validation.labels[[3]]]).all()
        held.append(mine.validation.labels.tolist())
    assert held[0] == held[1] != held[2]
    mine = dataset()
    mine.hold_back(0, 0)
    assert mine.validation is None and len(mine.train) == 50
    assert mine.scaling == {"mean": [0.5] * 3, "std": [0.25] * 3}


@pytest.mark.parametrize("count", [50, 51, -1, 2.5, "many", True])
def test_images_that_cannot_be_held_back(count):
    with pytest.raises(NumnetError, match="validation: "):
        dataset().hold_back(count, 0)


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (IMAGES.astype(np.float32), np.arange(50), "images: expected uint8"),
        (IMAGES[..., :2], np.arange(50), r"images: expected uint8 \(N, H, W, 3\)"),
        (IMAGES, np.arange(49), "labels: expected 50, one an image"),
        (IMAGES, np.arange(50) / 2, "labels: expected whole numbers from 0 on"),
        (IMAGES, np.arange(50) - 1, "labels: expected whole numbers from 0 on"),
        (IMAGES, np.where(np.arange(50) < 49, 0, np.nan), "labels: expected whole numbers from 0 on"),
        (
            IMAGES,
            ["ant", "bee"] * 25,
            r"labels: expected whole numbers .*\(of texts, np.unique\(texts, return_inverse=True\)",
        ),
        (IMAGES[:1], 0, r"labels: expected 1, one an image, got shape \(\)"),
        (IMAGES, [None, *range(49)], "labels: expected whole numbers from 0 on"),
        (IMAGES, [[0, 1], *range(49)], "labels: expected whole numbers from 0 on"),
        (IMAGES, np.eye(50, dtype=int), r"labels: expected 50, one an image, got shape \(50, 50\)"),
    ],
)
def test_arrays_that_are_no_split(images, labels, says):
    with pytest.raises(NumnetError, match=says):
        ArraySplit(images, labels)


def test_another_resolution():
    flat = np.broadcast_to(rng.integers(0, 256, (50, 1, 1, 3), dtype=np.uint8), (50, 12, 12, 3))
    split = ResizedSplit(ArraySplit(flat, np.arange(50)), 20)
    assert split.shape == (20, 20, 3) and not split.kept
    assert (split.read([7, 3]) == flat[[7, 3], :1, :1]).all()
    assert (split.take(np.array([9, 8])).read([1]) == flat[8, :1, :1]).all()
    kept = in_memory(split)
    assert kept.kept and (kept.images == split.read(range(50))).all() and (kept.labels == split.labels).all()


def test_load_brings_the_built_in_set_to_another_resolution(monkeypatch):
    from numnet.data import shapes

    small = shapes.load(40, 20)
    monkeypatch.setattr(shapes, "load", lambda: shapes_copy(small))
    kept = data.load("shapes", resolution=48)
    read = data.load("shapes", resolution=48, memory="100K", validation=10)
    assert kept.train.images.shape == (40, 48, 48, 3) and not read.train.kept
    whole = np.concatenate([read.train.read(range(30)), read.validation.read(range(10))])
    assert sorted(image.tobytes() for image in whole) == sorted(
        image.tobytes() for image in kept.train.images
    )
    assert data.load("shapes", resolution=32).train.images is small.train.images
    assert data.load("shapes", input_scaling="keras").scaling == {"mean": [0.5] * 3, "std": [0.5] * 3}


def shapes_copy(small):
    return Dataset(small.name, small.classes, small.train, small.test, small.mean, small.std)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            dict(dataset="cifar100"),
            "data set: expected cifar10, shapes or the path of an image folder, got 'cifar100'",
        ),
        (dict(resolution=0), "resolution: expected a number of pixels, got 0"),
        (dict(resolution="big"), "resolution: expected a number of pixels, got 'big'"),
        (dict(memory="lots"), "memory: expected bytes, or a size like 500M or 4G, got 'lots'"),
        (dict(memory=-1), "memory: expected bytes"),
        (dict(memory="5X"), "memory: expected bytes"),
        (
            dict(validation=40),
            "validation: 40 images cannot be held back of the 40 training images of shapes",
        ),
        (dict(validation=-1), 'validation: expected a number of images, or "test", got -1'),
        (dict(input_scaling="zero"), "input scaling: expected one of cifar10, imagenet"),
        (dict(input_scaling={"mean": [0.5] * 3}), r"input_scaling: expected a name or .*, got \['mean'\]"),
        (dict(input_scaling={"mean": 0.5, "std": [1] * 3}), "input_scaling: expected three numbers as mean"),
        (dict(input_scaling={"mean": [0] * 3, "std": [1, 1]}), r"three above 0 as std, got .*\[1, 1\]"),
        (dict(input_scaling={"mean": [0] * 3, "std": [1, 0, 1]}), r"three above 0 as std, got .*\[1, 0, 1\]"),
        (dict(input_scaling={"mean": [0.5, np.nan, 0], "std": [1] * 3}), "expected three numbers as mean"),
        (dict(input_scaling={"mean": [0] * 3, "std": [1, np.inf, 1]}), "three above 0 as std"),
        (dict(input_scaling={"mean": list("abc"), "std": [1] * 3}), "expected three numbers as mean, .*'b'"),
        (dict(input_scaling={"mean": [[0], [0, 1], [1]], "std": [1] * 3}), "expected three numbers as mean"),
    ],
)
def test_wrong_arguments_of_load(monkeypatch, wrong, says):
    from numnet.data import shapes

    small = shapes.load(40, 20)
    monkeypatch.setattr(shapes, "load", lambda: shapes_copy(small))
    with pytest.raises(NumnetError, match=says):
        data.load(**{**dict(dataset="shapes"), **wrong})


def test_sizes_in_words():
    sizes = {
        2048: 2048,
        "2048": 2048,
        "2K": 2048,
        "2kb": 2048,
        "1.5MiB": 3 << 19,
        "4G": 4 << 30,
        "1T": 1 << 40,
    }
    for text, size in sizes.items():
        assert data._bytes(text) == size, text
