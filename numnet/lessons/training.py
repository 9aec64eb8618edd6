"""Data, figures and exercises of notebook 06, from images to mistakes; and the saved logs of longer runs."""

import json
import os
from math import ceil, log, sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np

import numnet.data as datasets
from numnet import checkpoint
from numnet.data import cifar10, shapes
from numnet.data.download import BYTES, cache_folder
from numnet.errors import NumnetError
from numnet.kernels.loss import softmax, softmax_cross_entropy
from numnet.lessons import DARK, GREY, SERIES, bare, figure
from numnet.lessons.check import agrees, check, close
from numnet.lessons.display import Shown, Table
from numnet.plotting import class_activation_maps
from numnet.training.results import percent
from numnet.training.schedules import schedule

# ---------------------------------------------------------------------------------------------- data


def load(train, validation, test, download=False):
    """CIFAR-10 if it lies where numnet looks for it, else the built-in shapes; that many images of each split.

    download: fetch CIFAR-10 if it does not lie there.
    """
    if download or cifar10.find() is not None:
        data = datasets.load("cifar10", download=download)
    else:
        data = shapes.load(train + validation, test)
    data.hold_back(validation, seed=0)
    data.train, data.test = (
        split.take(np.arange(n)) for split, n in ((data.train, train), (data.test, test))
    )
    return data


def what_it_is(data) -> str:
    """Which data set was loaded, and how to get the other one."""
    sizes = f"{len(data.train):,} images to train on, {len(data.validation):,} to validate, {len(data.test):,} to test"
    if data.name == "cifar10":
        return f"CIFAR-10, small photographs: {sizes}."
    return (
        f"CIFAR-10 is not on this machine: the built-in set “shapes” takes its place, drawn figures in clutter: {sizes}.\n"
        f"For the photographs write download=True above: {BYTES / 1e6:.0f} MB, fetched once and kept in {where()}\n"
        "(`numnet data cifar10` does the same in a shell); or set NUMNET_DATA to a copy of your own."
    )


def where() -> str:
    """The cache folder, as a reader would write it."""
    if os.environ.get("NUMNET_CACHE"):
        return "$NUMNET_CACHE"
    folder = cache_folder()
    return (
        f"~/{folder.relative_to(Path.home()).as_posix()}"
        if folder.is_relative_to(Path.home())
        else str(folder)
    )


def few(data, count, shuffled=False):
    """The first ``count`` training images as a data set of their own; ``shuffled``: with labels drawn at random."""
    train = data.train.take(np.arange(count))
    if shuffled:
        train.labels[:] = np.random.default_rng(0).integers(len(data.classes), size=count)
    return datasets.Dataset(data.name, data.classes, train, data.test, data.mean, data.std)


def gallery(split, classes, columns=10):
    """The first images of every class, one line for each class."""
    side, gap = split.shape[0], 2
    sheet = np.full((len(classes) * (side + gap), columns * (side + gap), 3), 255, np.uint8)
    for c in range(len(classes)):
        for i, image in enumerate(split.read(np.flatnonzero(split.labels == c)[:columns])):
            top, left = c * (side + gap), i * (side + gap)
            sheet[top : top + side, left : left + side] = image
    drawn, axes = figure(6.6, 0.56 * len(classes))
    bare(axes).imshow(sheet, interpolation="nearest")
    axes.set_yticks(
        [(c + 0.5) * (side + gap) for c in range(len(classes))],
        [f"{c} {name}" for c, name in enumerate(classes)],
    )
    axes.tick_params(length=0)
    drawn.get_layout_engine().set(w_pad=0.1)
    return Shown(drawn)


def brightness(data, images=500):
    """How often each value occurs in the three colours: as stored, and as the net sees them."""
    x = data.train.read(np.arange(min(images, len(data.train)))).reshape(-1, 3)
    scaled = (x / 255 - np.array(data.mean)) / np.array(data.std)
    drawn, panels = figure(8.5, 2.6, columns=2, sharey=True)
    for axes, values, label in zip(panels, (x, scaled), ("stored: a byte", "scaled: what the net sees")):
        for channel, name, (colour, line, _) in zip(values.T, ("red", "green", "blue"), SERIES):
            heights, edges = np.histogram(channel, 32)
            middle = (edges[1:] + edges[:-1]) / 2
            axes.plot(
                middle, 100 * heights / len(channel), color=colour, linestyle=line, marker="", label=name
            )
        axes.set_xlabel(label)
    panels[0].set_ylabel("part of all pixels (%)")
    panels[1].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return drawn


def augmented(split, index, augment, times=9):
    """An image, and what a training sees of it in its first epochs."""
    one = split.take([index])
    unit = {"mean": [0.0] * 3, "std": [1.0] * 3}
    drawn, axes = figure(8.5, 1.25, columns=1 + times)
    bare(axes[0]).imshow(one.read([0])[0])
    axes[0].set_title("as it is", fontsize=8, loc="center")
    for epoch, place in enumerate(axes[1:]):
        batch = datasets.batches(one, batch_size=1, scaling=unit, epoch=epoch, augment=augment)
        bare(place).imshow(np.clip(next(batch)[0][0], 0, 1))
        place.set_title(f"epoch {epoch + 1}", fontsize=8, loc="center")
    return Shown(drawn)


# ---------------------------------------------------------------------------------------------- training


def losses(histories):
    """The training loss against the step for some histories (title → records of one step each)."""
    drawn, axes = figure(7, 2.8)
    for (title, history), (colour, line, marker) in zip(histories.items(), SERIES):
        values = [record["train_loss"] for record in history]
        style = {"color": colour, "linestyle": line, "marker": marker, "markevery": max(1, len(values) // 10)}
        axes.plot(range(1, len(values) + 1), values, label=title, **style)
    axes.axhline(log(10), color=GREY, linestyle=":", marker="", linewidth=1.2)
    axes.text(len(values), log(10), "ln 10 ", ha="right", va="bottom", fontsize=9)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    axes.legend(loc="lower left", frameon=False)
    return drawn


def rates(lr, epochs, steps_per_epoch, warmup):
    """The learning rate of a one-cycle schedule, step by step."""
    steps = epochs * steps_per_epoch
    rate = schedule("one_cycle", lr, steps, steps_per_epoch, warmup * steps_per_epoch)
    drawn, axes = figure(7, 2.3)
    axes.plot(range(steps), [rate(t) for t in range(steps)], color=DARK, linestyle="-", marker="")
    axes.set_xlabel("step")
    axes.set_ylabel("learning rate")
    axes.set_xlim(0, steps)
    axes.set_ylim(0, None)
    return drawn


def judged(net, split, scaling):
    """The net's probabilities for every image: (N, classes)."""
    batches = datasets.batches(split, batch_size=256, scaling=scaling, shuffle=False)
    return np.concatenate([softmax(net.predict(x)) for x, _ in batches])


def worst(probabilities, labels, count):
    """Indices of the images whose true class got the smallest probability, the worst first."""
    own = probabilities[np.arange(len(labels)), labels]
    return np.argsort(own, kind="stable")[:count]


def shown(split, indices, probabilities, classes):
    """Images with their true class and the class that the net predicts."""
    columns = 6
    rows = ceil(len(indices) / columns)
    drawn, axes = figure(9, 2.0 * rows, rows=rows, columns=columns)
    for place, index in zip(np.ravel(axes), indices):
        guess, true = int(probabilities[index].argmax()), int(split.labels[index])
        bare(place).imshow(split.read([index])[0], interpolation="nearest")
        sure = 100 * probabilities[index, guess]
        own = 100 * probabilities[index, true]
        place.set_title(
            f"{classes[true]} ({own:.2g} %)\ntaken for {classes[guess]} ({sure:.0f} %)",
            fontsize=7.5,
            loc="center",
        )
    for place in np.ravel(axes)[len(indices) :]:
        bare(place)
    return Shown(drawn)


def filters(before, after, title):
    """Filters (3, 3, 3, F) in colour or (3, 3, C, 1) in grey, before and after training, a line each."""
    drawn, lines = figure(9, 2.1, rows=2, columns=min(16, max(before.shape[2:])))
    for line, weights, when in zip(lines, (before, after), ("before", "after")):
        coloured = weights.shape[2] == 3
        images = np.moveaxis(weights, 3, 0) if coloured else np.moveaxis(weights[..., 0], 2, 0)
        for place, image in zip(line, images):
            largest = np.abs(image).max()  # the middle of the scale is 0
            bare(place).imshow(0.5 + 0.5 * image / largest, cmap="gray", vmin=0, vmax=1)
        line[0].set_ylabel(when)
    drawn.suptitle(title, fontsize=10)
    return drawn


def spotlights(net, data, indices, probabilities):
    """Class activation maps as light: images, and below each the same image, bright where it supports the answer."""
    x = next(
        datasets.batches(
            data.test.take(indices), batch_size=len(indices), scaling=data.scaling, shuffle=False
        )
    )[0]
    maps = class_activation_maps(net, x)
    drawn, lines = figure(9, 2.6, rows=2, columns=len(indices))
    for number, index in enumerate(indices):
        image = data.test.read([index])[0]
        guess, true = int(probabilities[index].argmax()), int(data.test.labels[index])
        light = np.maximum(maps[number, :, :, guess], 0)
        light = _enlarged(light / max(light.max(), 1e-9), image.shape[0])
        bare(lines[0][number]).imshow(image, interpolation="nearest")
        lines[0][number].set_title(data.classes[true], fontsize=8, loc="center")
        bare(lines[1][number]).imshow(
            (image * (0.12 + 0.88 * light[..., None])).astype(np.uint8), interpolation="nearest"
        )
        lines[1][number].set_title(f"“{data.classes[guess]}”", fontsize=8, loc="center")
    return Shown(drawn)


def _enlarged(small, side):
    """A map (P, P) brought to (side, side), linear between the middles of its places."""
    at = (np.arange(side) + 0.5) * len(small) / side - 0.5
    middles = np.arange(len(small))
    columns = np.stack([np.interp(at, middles, row) for row in small])
    return np.stack([np.interp(at, middles, column) for column in columns.T], axis=1)


# ---------------------------------------------------------------------------------------------- saved logs


class Saved(NamedTuple):
    """A kept run: its name, the contents of its about.json (or an empty dict), a record for every epoch."""

    name: str
    about: dict
    history: list


def saved_runs(folder=None, below="") -> list[Saved]:
    """The runs kept in ``folder``: each a folder with metrics.jsonl and, if somebody wrote one, about.json.

    ``folder`` None: the notebooks' folder ``runs``, wherever they are being run. ``below``: a folder in it. Runs without
    a finished epoch are left out. Raises NumnetError for a log that cannot be read.
    """
    runs = []
    for path in sorted(
        (runs_folder() if folder is None else Path(folder)).joinpath(below).glob("*/metrics.jsonl")
    ):
        about = path.with_name("about.json")
        try:
            history = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            known = json.loads(about.read_text("utf-8")) if about.is_file() else {}
        except ValueError:
            raise NumnetError(
                f"run {path.parent.name}: its log is damaged, expected a JSON object a line"
            ) from None
        if history:
            runs.append(Saved(path.parent.name, known, history))
    return runs


def runs_folder() -> Path:
    """``notebooks/runs`` of the checkout that this package lies in, else ``runs`` where we are."""
    ours = Path(__file__).parents[2] / "notebooks" / "runs"
    return ours if ours.is_dir() else Path("runs")


def keep(run_dir, folder, **about) -> None:
    """Keep a finished run of ``numnet train`` for the notebooks: metrics.jsonl, and about.json without paths.

    about: more facts about it, as texts: ``data`` (“JPEG copies …”), ``machine``, ``command``.
    """
    run_dir, folder = Path(run_dir), Path(folder)
    if not (run_dir / "result.json").is_file():
        raise NumnetError(f"{run_dir}: expected the directory of a finished run, with its result.json")
    result = json.loads((run_dir / "result.json").read_text("utf-8"))
    recipe = checkpoint.read_meta(run_dir / "last.safetensors")["recipe"]
    keys = ("test_accuracy", "validation_accuracy", "epochs", "train_seconds", "images_per_second")
    known = {**about, **{key: result[key] for key in keys}, "recipe": recipe}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_bytes((run_dir / "metrics.jsonl").read_bytes())
    (folder / "about.json").write_text(
        json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def listed(runs) -> Table:
    """A list of the kept runs, one line for each."""
    rows = []
    for run in runs:
        last, recipe = run.history[-1], run.about.get("recipe", {})
        model = recipe.get("model", {})
        net = run.about.get("net", "–")
        if "model" in model:
            net = f"{model['model']} × {model.get('width', 1.0):g}"
        test = run.about.get("test_accuracy")
        rows.append(
            (
                run.name,
                net,
                run.about.get("data", "–"),
                last["epoch"],
                f"{sum(record['seconds'] for record in run.history) / 60:.1f}",
                percent(last.get("validation_accuracy")),
                percent(test),
                run.about.get("machine", "–"),
            )
        )
    head = ("run", "net", "data", "epochs", "minutes", "validation, %", "test, %", "machine")
    return Table(head, rows)


def saved_curves(runs):
    """Validation accuracy of the kept runs against epochs and minutes; without validation images training accuracy."""
    drawn, panels = figure(9, 3.0, columns=2, sharey=True)
    for number, run in enumerate(runs):
        colour, line, marker = SERIES[number % len(SERIES)]
        accuracies, label = [record.get("validation_accuracy") for record in run.history], run.name
        if None in accuracies:
            accuracies = [record["train_accuracy"] for record in run.history]
            label += " (training images)"
        minutes = np.cumsum([record["seconds"] for record in run.history]) / 60
        style = {
            "color": colour,
            "linestyle": line,
            "marker": marker,
            "markerfacecolor": colour if number < len(SERIES) else "white",
            "markevery": max(1, len(minutes) // 10),
        }
        for axes, x in zip(panels, ([record["epoch"] for record in run.history], minutes)):
            axes.plot(x, [100 * value for value in accuracies], label=label, **style)
    panels[0].set_xlabel("epoch")
    panels[0].xaxis.get_major_locator().set_params(integer=True)
    panels[1].set_xlabel("minutes")
    panels[0].set_ylabel("validation accuracy (%)")
    if runs:
        panels[1].legend(loc="lower right", frameon=False)
    return drawn


# ---------------------------------------------------------------------------------------------- exercises


def exercise_1(answer, data):
    """What the net sees where the red byte is 255."""
    expected = (1 - data.mean[0]) / data.std[0]
    hint = "bring the byte to 0 … 1 first, then take off red's mean and divide by red's deviation"
    return check(answer, lambda a: close(a, expected, 2e-3), hint)


def exercise_2(answer):
    """The first loss of a net for 1,000 classes."""
    hint = "each class gets probability 1/1000; the loss is −ln of the right one's"
    return check(answer, lambda a: close(a, log(1000), 1e-3), hint)


def exercise_3(answer, images, batch_size, epochs):
    """Steps of the optimiser in the whole run."""
    hint = "the last batch of an epoch may be smaller, but it is a step as well"
    return check(answer, lambda a: a == epochs * ceil(images / batch_size), hint)


def exercise_4(answer, accuracy, images):
    """Standard error of an accuracy, in per cent."""
    expected = 100 * sqrt(accuracy * (1 - accuracy) / images)
    hint = "√(p(1 − p)/n), times 100 for per cent; p between 0 and 1"
    return check(answer, lambda a: close(a, expected, 0.02), hint)


# Rows: bird, cat, dog as they are; columns: as they are called
SMALL_MATRIX = np.array([[8, 2, 0], [3, 5, 2], [1, 1, 8]])


def exercise_5(answer):
    """Recall and precision of the cat in the matrix of three classes."""
    expected = (SMALL_MATRIX[1, 1] / SMALL_MATRIX[1].sum(), SMALL_MATRIX[1, 1] / SMALL_MATRIX[:, 1].sum())
    hint = "recall: of the images that are cats (a row); precision: of the images that are called cats (a column)"
    return check(answer, lambda a: close(a, expected, 1e-3), hint)


def exercise_6(answer):
    """A function (logits, labels) → dlogits of the mean cross-entropy, (N, F), (N,) → (N, F)."""
    draw = np.random.default_rng(6)
    logits, labels = 2 * draw.normal(size=(5, 4)), draw.integers(4, size=5)
    want = softmax_cross_entropy(logits, labels)[1]
    hint = "probabilities, minus 1 at the right class; and the loss is a mean over the images, so divide by their number"
    return check(answer, lambda function: agrees(function, [((logits, labels), want)]), hint)


def exercise_7(answer):
    """A function (dy, height, width) → dx of the mean over the pixels, (N, C) → (N, H, W, C)."""
    dy = np.random.default_rng(7).normal(size=(2, 3))
    want = np.broadcast_to(dy[:, None, None] / 20, (2, 4, 5, 3))
    hint = "every pixel went into the mean with the same weight, 1 / (H·W): each gets that part of dy"
    return check(answer, lambda function: agrees(function, [((dy, 4, 5), want)]), hint)


def exercise_8(answer):
    """A function (dy, x, w) → dx, dw, db of a dense layer y = x·w + b, (N, F), (N, C), (C, F)."""
    draw = np.random.default_rng(8)
    dy, x, w = draw.normal(size=(5, 4)), draw.normal(size=(5, 3)), draw.normal(size=(3, 4))
    want = dy @ w.T, x.T @ dy, dy.sum(0)
    hint = "the shapes say which product: dx is (N, C), dw is (C, F). b is added to every image's output: sum over images"
    return check(answer, lambda function: agrees(function, [((dy, x, w), want)]), hint)


def exercise_9(answer):
    """A function (w, v, g, rate, momentum) → w, v after one step of descent with momentum."""
    draw = np.random.default_rng(9)
    w, v, g = draw.normal(size=(3, 6))
    velocity = 0.9 * v + g
    want = w - 0.1 * velocity, velocity
    hint = "first the velocity, momentum·v + g; then w goes against the new velocity, rate times as far"
    return check(answer, lambda function: agrees(function, [((w, v, g, 0.1, 0.9), want)]), hint)
