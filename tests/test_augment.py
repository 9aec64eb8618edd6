"""The augmentation page against its equations, written out image by image with np.pad."""

import numba
import numpy as np
import pytest

from numnet.kernels.augment import augment, scale
from numnet.kernels.random import AUGMENT, uniforms

MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]
rng = np.random.default_rng(0)


def bytes_of(*shape):
    return rng.integers(0, 256, shape, dtype=np.uint8)


def by_definition(images, indices, seed, epoch, padding, flip, cutout, border):
    """Equations (1) to (4) in float64."""
    z = (images / 255 - MEAN) / STD
    y = np.empty_like(z)
    _, H, W, _ = z.shape
    u = uniforms(seed, AUGMENT, epoch, 8 * (int(max(indices, default=0)) + 1)).reshape(-1, 8)
    for n, index in enumerate(indices):
        counts = [2 * padding + 1, 2 * padding + 1, 2, H, W]
        i, j, turned, row, column = (int(u[index, k] * count) for k, count in enumerate(counts))
        around = ((padding, padding), (padding, padding), (0, 0))
        padded = np.pad(z[n], around, mode="reflect" if border == "reflect" else "constant")
        y[n] = padded[i : i + H, j : j + W]
        if flip == "alternate":
            turned = (epoch + int(2 * uniforms(seed, AUGMENT, 0, 8 * index + 3)[-1])) % 2
        if flip and turned:
            y[n] = y[n, :, ::-1]
        top, left = row - cutout // 2, column - cutout // 2
        y[n, max(top, 0) : max(top + cutout, 0), max(left, 0) : max(left + cutout, 0)] = 0
    return y


CASES = [
    # N, H, W, padding, flip, cutout, border
    (40, 32, 32, 4, True, 8, "zero"),
    (40, 32, 32, 4, True, 0, "reflect"),
    (30, 7, 5, 4, True, 3, "reflect"),
    (30, 5, 9, 6, False, 0, "zero"),
    (30, 6, 6, 0, True, 5, "zero"),
    (20, 4, 4, 1, True, 20, "zero"),
    (3, 1, 1, 0, True, 0, "zero"),
    (9, 2, 3, 1, True, 1, "reflect"),
    (40, 8, 8, 2, "alternate", 3, "zero"),
]


@pytest.mark.parametrize(("N", "H", "W", "padding", "flip", "cutout", "border"), CASES)
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("float64", 1e-14)])
def test_is_its_equations(N, H, W, padding, flip, cutout, border, dtype, bound):
    images, indices = bytes_of(N, H, W, 3), rng.permutation(1000)[:N]
    expected = by_definition(images, indices, 7, 3, padding, flip, cutout, border)
    options = dict(padding=padding, flip=flip, cutout=cutout, border=border)
    y = augment(images, indices, seed=7, epoch=3, mean=MEAN, std=STD, dtype=dtype, **options)
    assert y.dtype == dtype and y.shape == images.shape
    assert np.abs(y - expected).max() <= bound * max(np.abs(expected).max(), 1)


def test_every_place_and_half_of_the_mirrors_are_drawn():
    image = np.zeros((9, 9, 3), np.uint8)
    image[4, 4], image[4, 5] = 255, 128  # the bright pixel's neighbour tells a mirror image
    images = np.broadcast_to(image, (4000, 9, 9, 3)).copy()
    y = augment(images, np.arange(4000), seed=0, epoch=0, padding=2, mean=[0] * 3, std=[1] * 3)[..., 0]
    bright = np.argwhere(y == 1)
    assert len(bright) == 4000
    mirrored = [y[n, h, w - 1] > 0.4 for n, h, w in bright]
    assert 0.46 < np.mean(mirrored) < 0.54
    places, counts = np.unique(bright[:, 1:], axis=0, return_counts=True)
    assert len(places) == 25 and places.min() == 2 and places.max() == 6
    assert counts.min() > 110 and counts.max() < 220  # 160 expected, deviation 12


def test_in_turn_shows_both_sides_in_two_epochs():
    images, options = bytes_of(200, 6, 5, 3), dict(padding=0, flip="alternate", mean=MEAN, std=STD)
    one, other, again = (augment(images, np.arange(200), seed=1, epoch=e, **options) for e in (4, 5, 6))
    assert (one == other[:, :, ::-1]).all() and (one == again).all()
    mirrored = (one != augment(images, np.arange(200), seed=1, epoch=0, **{**options, "flip": False})).any(
        axis=(1, 2, 3)
    )
    assert 0.35 < mirrored.mean() < 0.65


def test_a_cutout_is_a_square_that_the_edge_may_cut():
    y = augment(
        np.full((3000, 12, 12, 3), 255, np.uint8), np.arange(3000),
        seed=0, epoch=0, padding=0, flip=False, cutout=4, mean=[0] * 3, std=[1] * 3,
    )  # fmt: skip
    hidden = (y == 0).all(axis=3)
    assert ((y == 0) | (y == 1)).all() and (hidden == (y == 0).any(axis=3)).all()
    heights, widths = hidden.any(axis=2).sum(axis=1), hidden.any(axis=1).sum(axis=1)
    assert (hidden.sum(axis=(1, 2)) == heights * widths).all()
    assert heights.max() == widths.max() == 4 and heights.min() == widths.min() == 2
    assert hidden.any(axis=0).all()


def test_an_image_does_not_know_its_batch_or_the_threads():
    images, options = bytes_of(64, 8, 8, 3), dict(seed=3, cutout=3, mean=MEAN, std=STD)
    whole = augment(images, np.arange(64), epoch=5, **options)
    some = np.array([60, 2, 33, 2])
    assert (augment(images[some], some, epoch=5, **options) == whole[some]).all()
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert (augment(images, np.arange(64), epoch=5, **options) == whole).all()
    finally:
        numba.set_num_threads(threads)
    assert (augment(images, np.arange(64), epoch=6, **options) != whole).any()
    assert (augment(images, np.arange(64), epoch=5, **{**options, "seed": 4}) != whole).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_without_augmentation_only_the_scaling_is_left(dtype):
    images = bytes_of(50, 23, 17, 3)  # more than one tile
    plain = scale(images, MEAN, STD, dtype)
    assert plain.dtype == dtype
    expected = (images / 255 - MEAN) / STD
    assert np.abs(plain - expected).max() <= (1e-6 if dtype == "float32" else 1e-14) * 2
    nothing = dict(padding=0, flip=False, mean=MEAN, std=STD, dtype=dtype)
    assert (augment(images, np.arange(50), seed=0, epoch=0, **nothing) == plain).all()


def test_out_read_only_and_empty():
    images = bytes_of(3, 8, 8, 3)
    images.flags.writeable = False
    out = np.full(images.shape, np.nan, np.float32)
    assert scale(images, MEAN, STD, out=out) is out and np.isfinite(out).all()
    out[:] = np.nan
    assert augment(images, [0, 1, 2], seed=0, epoch=0, mean=MEAN, std=STD, out=out) is out
    assert np.isfinite(out).all()
    assert scale(images[:0], MEAN, STD).shape == (0, 8, 8, 3)
    assert augment(images[:0], [], seed=0, epoch=0, mean=MEAN, std=STD).shape == (0, 8, 8, 3)


GOOD = dict(images=bytes_of(2, 8, 8, 3), indices=[0, 1], seed=0, epoch=0, mean=MEAN, std=STD)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (dict(images=np.zeros((2, 8, 8, 3))), "images: expected uint8"),
        (dict(images=bytes_of(2, 8, 8)), r"images: expected uint8 \(N, H, W, 3\)"),
        (dict(images=bytes_of(2, 8, 8, 4)), "images: expected uint8"),
        (dict(images=bytes_of(2, 8, 9, 3)[:, :, ::2]), "np.ascontiguousarray"),
        (dict(indices=[0]), "indices: expected 2 integers"),
        (dict(indices=[0, -1]), "indices: expected 2 integers"),
        (dict(indices=[0.0, 1.0]), "indices: expected 2 integers"),
        (dict(padding=-1), "padding: expected an integer of at least 0, got -1"),
        (dict(padding=8, border="reflect"), "padding: expected less than the side"),
        (dict(border="wrap"), "border: expected one of zero, reflect, got 'wrap'"),
        (dict(cutout=1.5), "cutout: expected an integer"),
        (dict(seed=-1), "seed: expected an integer of at least 0"),
        (dict(epoch=None), "epoch: expected an integer of at least 0"),
        (dict(std=[1, 0, 1]), "std > 0"),
        (dict(mean=[0.5]), "mean, std: expected three numbers each"),
        (dict(dtype="int32"), "dtype: expected float32 or float64, got int32"),
        (dict(out=np.empty((2, 8, 8, 3))), "out: expected float32"),
        (dict(out=np.empty((2, 8, 7, 3), np.float32)), "out: expected shape"),
    ],
)
def test_wrong_arguments_are_named(wrong, says):
    arguments = {**GOOD, **wrong}
    with pytest.raises(ValueError, match=says):
        augment(arguments.pop("images"), arguments.pop("indices"), **arguments)


def test_images_must_be_an_array():
    with pytest.raises(TypeError, match="images: expected a numpy array, got list"):
        scale([[1, 2, 3]], MEAN, STD)
