"""The built-in data set: always the same, and hard for whoever only looks at colours or single pixels."""

import numba
import numpy as np
import pytest

from numnet.data import load, shapes
from numnet.data.transforms import SCALINGS
from numnet.kernels import draw as page
from numnet.kernels.draw import FIGURES, draw


@pytest.fixture(scope="module")
def data():
    return shapes.load(4000, 1000)


def test_sizes_and_classes(data):
    whole = load("shapes")
    assert len(whole.train) == 20_000 and len(whole.test) == 4_000 and len(whole.classes) == 10
    assert (whole.train.images[:4000] == data.train.images).all()
    for split, count in ((data.train, 4000), (data.test, 1000)):
        assert split.images.shape == (count, 32, 32, 3) and split.images.dtype == np.uint8
        assert (np.bincount(split.labels) == count / 10).all()


def test_the_scaling_is_the_training_sets(data):
    mean, std = SCALINGS["shapes"]
    assert data.mean == mean and data.std == std
    pixels = data.train.images / 255
    assert np.abs(pixels.mean(axis=(0, 1, 2)) - mean).max() < 0.01
    assert np.abs(pixels.std(axis=(0, 1, 2)) - std).max() < 0.01


def test_an_image_depends_on_its_number_alone(data):
    assert (shapes.load(30, 10).train.images == data.train.images[:30]).all()
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert (shapes.load(30, 10).test.images == data.test.images[:10]).all()
    finally:
        numba.set_num_threads(threads)
    classes = np.arange(10)
    sets = [draw(classes, seed=seed, split=split) for seed, split in ((1, 0), (1, 1), (2, 0))]
    assert (sets[0] == data.train.images[:10]).all()
    for a, b in ((0, 1), (0, 2), (1, 2)):  # no scene twice
        assert (np.abs(sets[a].astype(int) - sets[b]).mean(axis=(1, 2, 3)) > 20).all()


def test_scenes_differ_in_nothing_but_the_figure():
    """Drawn by the same numbers: background, clutter and noise agree, and the figure stands out."""
    numbers = (FIGURES.index(name) for name in ("disc", "ring"))
    disc, ring = (draw(np.full(200, number), seed=1, split=0).astype(int) for number in numbers)
    differs = (disc != ring).any(axis=3)
    assert 0.05 < differs.mean() < 0.4  # the hole and a little at the rim
    strength = np.abs(disc - ring).max(axis=3)
    visible = [image[mask].mean() for image, mask in zip(strength, differs)]
    assert np.median(visible) > 110 and min(visible) > 60  # of 255


def linear_accuracy(train, labels, test, test_labels, penalty):
    """The ridge classifier in closed form (dual: one equation an image): W = Xᵀ(XXᵀ + λ)⁻¹Y."""
    train, test = (images.reshape(len(images), -1) / 127.5 - 1 for images in (train, test))
    train, test = (np.hstack([x, np.ones((len(x), 1))]).astype(np.float32) for x in (train, test))
    inverse = np.linalg.solve(
        train @ train.T + penalty * np.eye(len(train), dtype=np.float32), np.eye(10)[labels]
    )
    return float(((test @ (train.T @ inverse)).argmax(axis=1) == test_labels).mean())


def test_a_linear_model_learns_nothing(data):
    train, test = data.train, data.test
    assert linear_accuracy(train.images, train.labels, test.images, test.labels, 1000.0) < 0.25


def test_that_linear_model_can_learn(data):
    """The control: give every class a faint pattern of its own, and the same classifier finds it."""
    pattern = np.random.default_rng(0).integers(-20, 21, (10, 32, 32, 1))

    def marked(split):
        return np.clip(split.images + pattern[split.labels], 0, 255)

    train, test = data.train, data.test
    assert linear_accuracy(marked(train), train.labels, marked(test), test.labels, 1000.0) > 0.6


def test_colour_alone_tells_nothing(data):
    """A ridge classifier on counts of 64 colours, then on each channel's mean and deviation."""

    def colours(images):
        cells = (images // 64).astype(int) @ [16, 4, 1]
        return np.stack([np.bincount(cell.ravel(), minlength=64) / 1024 for cell in cells])

    def moments(images):
        pixels = images.reshape(len(images), -1, 3) / 255
        return np.hstack([pixels.mean(axis=1), pixels.std(axis=1), np.ones((len(images), 1))])

    for features in (colours, moments):
        x, t = features(data.train.images), features(data.test.images)
        w = np.linalg.solve(x.T @ x + 1e-2 * np.eye(x.shape[1]), x.T @ np.eye(10)[data.train.labels])
        assert ((t @ w).argmax(axis=1) == data.test.labels).mean() < 0.25


@numba.njit
def distances(figure, x, y):
    out = np.empty(x.shape)
    for i in range(x.size):
        out.flat[i] = page.distance(figure, x.flat[i], y.flat[i])
    return out


def test_figures_are_what_they_are_called():
    y, x = np.mgrid[-1.5:1.5:601j, -1.5:1.5:601j]
    cell = (x[0, 1] - x[0, 0]) ** 2
    inside = {name: distances(i, x, y) < 0 for i, name in enumerate(FIGURES)}
    for name, mask in inside.items():
        assert not mask[x * x + y * y > 1.01].any() and mask[x * x + y * y > 0.7].any(), name
    areas = {
        "disc": np.pi * 0.85**2,
        "ring": np.pi * (0.92**2 - 0.52**2),
        "square": 1.4**2,
        "frame": 1.4**2 - 0.76**2,
        "bar": 1.9 * 0.56,
        "triangle": 3 * np.sqrt(3) / 4,
        "cross": 2 * 1.9 * 0.54 - 0.54**2,
    }
    for name, area in areas.items():
        assert inside[name].sum() * cell == pytest.approx(area, rel=0.02), name
    centre = (300, 300)
    assert {name for name in FIGURES if not inside[name][centre]} == {"ring", "crescent", "frame"}
    turns = np.linspace(0.01, 2 * np.pi + 0.01, 1000)  # once around, across the five points
    star = distances(FIGURES.index("star"), 0.8 * np.cos(turns), 0.8 * np.sin(turns)) < 0
    assert abs(np.diff(star.astype(int))).sum() == 10
    heart = inside["heart"]
    assert (heart == heart[:, ::-1]).mean() > 0.999 > (heart == heart[::-1]).mean()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (dict(classes=[10]), "classes: expected a list of numbers from 0 to 9"),
        (dict(classes=[-1]), "classes: expected"),
        (dict(classes=[[1]]), "classes: expected"),
        (dict(split=2), "split: expected 0 or 1, got 2"),
        (dict(seed=-1), "seed: expected an integer of at least 0"),
    ],
)
def test_wrong_arguments_are_named(wrong, says):
    arguments = {**dict(classes=[1], seed=0, split=0), **wrong}
    with pytest.raises(ValueError, match=says):
        draw(arguments.pop("classes"), **arguments)


def test_no_figures():
    assert draw([], seed=0, split=0).shape == (0, 32, 32, 3)
