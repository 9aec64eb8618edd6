"""``numnet train --budget 15min``: how many epochs, and of which recipe, fit this machine in so much time.

A few steps of the recipe's net are timed, at each size of images that it trains on, with the threads that the training
will have, and a few batches of inference for the validation after each epoch. From these, and from nothing else, follow
the epochs. They stand in the run's recipe from then on: a resumed run times nothing.

CIFAR-10 has several recipes, each the best found for its length. A budget takes the longest of them that fits at least to
ENOUGH of its own epochs, and as many epochs of that as fit.
"""

import re
import time
from functools import partial
from statistics import median

import numpy as np

from numnet import ahead
from numnet import data as datasets
from numnet.errors import NumnetError
from numnet.models import build, describe
from numnet.training import recipes, rehearsal
from numnet.training.console import Compiling
from numnet.training.loop import Run
from numnet.training.progressive import Sized, at_side, shrunk, sides_of
from numnet.training.run import data_of, plan

LADDER = {  # by the time that they take
    "cifar10": (
        "cifar10_five_minutes",
        "cifar10_plain_five_minutes",
        "cifar10",
        "cifar10_half_hour",
        "cifar10_hour",
    )
}
ENOUGH = 0.8
STEPS = 5  # timed at each size; their median counts
UNITS = {"s": 1, "min": 60, "h": 3600}
MOST = 100_000  # epochs


def seconds(text) -> float:
    """ "15min", "90s", "1.5h" as seconds. Raises NumnetError for anything else, and for no time at all."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|min|h)", str(text))
    if not found or float(found[1]) == 0:
        raise NumnetError(f"--budget: expected a time like 90s, 15min or 1.5h, got {text!r}")
    return float(found[1]) * UNITS[found[2]]


def choose(dataset, budget, *, recipe=None, flags=None, start=None, progress=True, reading=None):
    """(recipe, epochs, what was measured as a line) for ``budget`` seconds. Arguments as of ``run.train``.

    recipe: of the user's choice, or None; then CIFAR-10's are tried from the shortest up, unless ``flags`` name a model or
    ``start`` is a net; of these, recipes whose net lacks what ``flags`` ask for are passed over. Raises NumnetError where
    not even one epoch fits.
    """
    names = [recipe]
    if recipe is None and start is None and "model" not in (flags or {}).get("model", {}):
        names = LADDER.get(str(dataset), names)
    chosen = None
    for name in names:
        merged = plan(dataset, name, flags, start)
        if merged.get("quantise"):  # by --quantise or by the recipe
            raise NumnetError("--budget: times a training in floats; expected --epochs for one in eight bits")
        if merged.get("exact"):
            raise NumnetError("--budget: times the steps of one process; expected no --exact, or --epochs")
        if chosen is not None and not _suits(merged):
            continue
        cost = measure(dataset, merged, progress, reading or {})
        epochs = fitting(merged, cost, budget)
        own = merged.get("epochs", 1)
        if chosen is None or epochs >= ENOUGH * own:
            chosen = name, epochs, cost, merged["model"]["resolution"]
        if epochs < ENOUGH * own:
            break
    name, epochs, cost, own = chosen
    # Only square images have smaller sides beside their own
    wide = {own[0]: own[1]} if isinstance(own, (list, tuple)) else {}
    each = ", ".join(f"{cost[side]:.1f} s at {side}×{wide.get(side, side)}" for side in cost if side)
    if epochs == 0:
        raise NumnetError(
            f"--budget: an epoch takes {each} on this machine; expected at least {longest(cost):.0f}s"
        )
    called = name or recipes.default(str(dataset))
    return name, epochs, f"{epochs} epoch{'s' * (epochs > 1)} of the recipe {called}: an epoch takes {each}"


def _suits(merged) -> bool:
    """True if a recipe's net has the options and the block that are asked for."""
    try:
        net = describe(**{"classes": 10, **merged["model"]})
        if merged.get("freeze") is not None:
            net.freeze(merged["freeze"])
    except NumnetError:
        return False
    return True


def longest(cost) -> float:
    """Seconds of an epoch of the largest images, validation included."""
    return max(value for side, value in cost.items() if side) + cost[0]


def fitting(merged, cost, budget) -> int:
    """The largest number of epochs that take at most ``budget`` seconds. ``cost``: what ``measure`` returns."""
    full, stages = max(cost), merged.get("progressive") or ()
    few, many = 0, MOST  # the number lies between: halve the distance until they meet
    while few < many:
        middle = (few + many + 1) // 2
        if sum(cost[side] + cost[0] for side in sides_of(middle, stages, full)) <= budget:
            few = middle
        else:
            many = middle - 1
    return few


def measure(dataset, merged, progress=True, reading=None) -> dict:
    """{side: seconds of an epoch's training steps on images of that side, …, 0: of an epoch's validation}."""
    model = dict(merged["model"])
    data = data_of(dataset, merged, reading or {})
    model.setdefault("classes", len(data.classes))
    settings = {key: value for key, value in merged.items() if key not in (*recipes.READING, "model")}
    run = Run(build(**model), data, settings, progress=False)
    batch = run.settings["batch_size"]
    few = data.train.take(np.arange(min(len(data.train), (STEPS + 1) * batch)))
    found = {}
    for side in sides_of(MOST, run.settings["progressive"] or (), run.side)[::-1]:
        if side not in found:
            found[side] = run.batches * _step_seconds(run, few, side, progress)
    found[0] = 0.0
    if data.validation is not None and len(data.validation):
        nets = 1 if run.average is None else 2  # the averaged weights are judged, too
        found[0] = nets * len(data.validation) * _predict_seconds(run, few)
    return found


def _step_seconds(run, split, side, progress) -> float:
    """The median of a few steps, reading and augmentation included; the first one, which compiles, is not counted."""
    net, settings, taken = run.net, run.settings, []
    split = Sized(split, run.side).at(side)
    with at_side(net, side):
        if ahead.compilers():
            ahead.prepare(partial(rehearsal.step, run), Compiling(progress))
        while len(taken) <= STEPS:
            began = time.perf_counter()
            for x, labels in datasets.batches(
                split, batch_size=settings["batch_size"], scaling=run.scaling, epoch=len(taken), dtype=net.dtype,
                augment=shrunk(settings["augment"], side / run.side), channels=net.input_shape[2],
            ):  # fmt: skip
                run.gradient(run.team.parts(len(x), settings["accumulate"]), x, labels)
                run.optimiser.step(0.0)
                if run.average is not None:
                    run.average.update(0)
                now = time.perf_counter()
                taken.append(now - began)
                began = now
    return median(taken[1:])


def _predict_seconds(run, split) -> float:
    """Of an image in inference."""
    x, _ = next(
        datasets.batches(
            split, batch_size=256, scaling=run.scaling, dtype=run.net.dtype, channels=run.net.input_shape[2]
        )
    )
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        run.net.predict(x)
        taken.append(time.perf_counter() - began)
    return min(taken[1:]) / len(x)
