"""Notebook 06: two roads at equal minutes. Accuracy over time of kept trainings, separable blocks beside plain convolutions.

Machines differ, and so do their hours. So time is counted in *budget minutes*: one is the time in which PyTorch does a
hundred training steps of MobileNetV1 (32×32, batches of 128) on the same machine. ``runs/roads/quiet.json`` has what was
measured, on an otherwise idle machine: the milliseconds of such a step, and those of a step of each training, by the side of
its images. A training's minutes are its steps times these, whatever else the machine did while it ran.
"""

import json
from statistics import mean
from typing import NamedTuple

from numnet.lessons import SERIES, figure
from numnet.lessons.display import Table
from numnet.lessons.training import runs_folder, saved_runs
from numnet.models import describe
from numnet.training.results import percent

IMAGES = 50_000  # CIFAR-10's training images, those held back included


class Point(NamedTuple):
    """One training, all its seeds together."""

    road: str
    name: str
    seeds: int
    macs: int  # of an image at full size
    gflops: float  # GFLOP/s of a step at full size
    epochs: int
    minutes: float  # budget minutes
    pflop: float  # 10¹⁵ FLOP of the whole training
    accuracy: float  # on test images, mean


def points(folder=None) -> list[Point]:
    """The trainings of quiet.json, in its order; none without it. ``folder``: of the kept runs, None: the notebooks' own."""
    folder = runs_folder() if folder is None else folder
    file = folder / "roads" / "quiet.json"
    if not file.is_file():
        return []
    quiet = json.loads(file.read_text("utf-8"))
    return [_point(quiet, entry, folder) for entry in quiet["trainings"]]


def _point(quiet, entry, folder) -> Point:
    below, _, name = entry["logs"].rpartition("/")
    runs = [run for run in saved_runs(folder, below) if name in (run.name, run.name.rpartition("-seed")[0])]
    recipe, history = runs[0].about["recipe"], runs[0].history
    net = describe(**recipe["model"])
    batch = recipe["batch_size"]
    images = IMAGES - recipe["validation"]
    sides = [record.get("resolution", net.input_shape[0]) for record in history]
    steps = -(-images // batch)
    macs = {}
    for side in sorted(set(sides)):
        net.resize(side)
        macs[side] = net.cost().macs
    seconds = sum(entry["step_ms"][str(side)] for side in sides) * steps / 1000
    full = max(macs)
    return Point(
        entry["road"],
        name,
        len(runs),
        macs[full],
        6 * macs[full] * batch / entry["step_ms"][str(full)] / 1e6,
        len(history),
        seconds / (quiet["pytorch_step_ms"] / 10),
        6 * images * sum(macs[side] for side in sides) / 1e15,
        mean(run.about["test_accuracy"] for run in runs),
    )


def listed(found) -> Table:
    """Points as a table."""
    head = (
        "road",
        "training",
        "seeds",
        "MACs, M",
        "GFLOP/s",
        "epochs",
        "budget minutes",
        "PFLOP",
        "test, %",
    )
    rows = [
        (
            *(p.road, p.name, p.seeds, f"{p.macs / 1e6:.1f}", f"{p.gflops:.0f}", p.epochs),
            *(f"{p.minutes:.1f}", f"{p.pflop:.3f}", percent(p.accuracy)),
        )
        for p in found
    ]
    return Table(head, rows)


def drawn(found):
    """Test accuracy over budget minutes, on a logarithmic axis; a line joins the trainings of a road."""
    image, axes = figure(6.5, 3.2)
    for number, road in enumerate(dict.fromkeys(p.road for p in found)):
        colour, line, marker = SERIES[number]
        own = sorted((p for p in found if p.road == road), key=lambda p: p.minutes)
        axes.plot(
            [p.minutes for p in own], [100 * p.accuracy for p in own],
            color=colour, linestyle=line, marker=marker, label=road,
        )  # fmt: skip
        for p in own:
            below = {"xytext": (5, -11), "ha": "left"} if number == 0 else {"xytext": (-5, 7), "ha": "right"}
            axes.annotate(f"{p.seeds} seed{'s' * (p.seeds > 1)}", (p.minutes, 100 * p.accuracy), fontsize=8,
                          textcoords="offset points", **below)  # fmt: skip
    axes.margins(0.12, 0.14)
    axes.set_xscale("log")
    ticks = [3, 5, 10, 20, 40, 80]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("budget minutes")
    axes.set_ylabel("test accuracy (%)")
    if found:
        axes.legend(loc="lower right", frameon=False)
    return image
