"""A sweep: several trainings from one file, one after another; ``results`` makes the table of what came out.

The file is JSON: a list of runs, or {"common": {…}, "runs": [{…}, …]} where ``common`` is shared by all. A
run has

    "name"       its folder's name, and its row's in the table
    "dataset"    "cifar10", "shapes" or a folder
    "data"       where the data is, if not in the usual place
    "recipe"     a recipe's name or file
    "seeds"      a list: the run is done once for each, and the row is their mean ± standard deviation
    "group"      a text: in the figure a line joins the runs that have the same
    and whatever a recipe may have: "epochs", "model": {…}, …

``train`` does them all. If it is stopped and started again, it keeps finished trainings, resumes the one that was
running, and goes on. ``measure`` trains nothing, and times a training step of every run's net.
"""

import json
import re
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from numnet import checkpoint
from numnet.data import BUILT_IN
from numnet.errors import NumnetError
from numnet.kernels.loss import softmax_cross_entropy
from numnet.models import NO_CHOICE, build, describe
from numnet.models.searched import is_written
from numnet.training import recipes, results, run
from numnet.training.loop import DEFAULTS

OWN = ("name", "dataset", "data", "recipe", "seeds", "group")
ROUNDS = 5  # how often ``measure`` goes over all nets: a disturbance hits all of them, or one round


class Entry(NamedTuple):
    """A run of the file: a training for each of its seeds, and a row of the table."""

    name: str
    group: str | None
    dataset: str
    data: str | None
    recipe: str | None
    flags: dict  # what the file says of it that a recipe may have
    trainings: list  # (folder, flags with the seed) of each


class Sweep(NamedTuple):
    """What ``read`` returns."""

    file: Path
    folder: Path  # of the trainings and their table
    entries: list


def read(file, out=None) -> Sweep:
    """A sweep from its file, ``common`` merged into the runs; raises NumnetError naming the file and the run.

    out: the folder; None: the file's path without .json.
    """
    file = Path(file)
    common, content = {}, checkpoint.read_json(file)
    if isinstance(content, dict) and set(content) <= {"common", "runs"}:
        common, content = content.get("common", {}), content.get("runs")
    if not isinstance(content, list) or not content or not isinstance(common, dict):
        raise NumnetError(f'{file}: expected a list of runs, or {{"common": {{…}}, "runs": [{{…}}, …]}}')
    folder = file.with_suffix("") if out is None else Path(out)
    if folder.is_file():
        raise NumnetError(
            f"{file}: the runs need a folder of another name; expected a file that ends in .json, or --out DIR"
        )
    shared, shared_flags = _parted(common, f"{file}: common")
    entries = []
    for number, entry in enumerate(content, 1):
        where = f"{file}: run {number}"
        if not isinstance(entry, dict):
            raise NumnetError(f"{where}: expected an object {{…}}, got {json.dumps(entry)[:40]}")
        own, flags = _parted(entry, where)
        own, flags = shared | own, _joined(shared_flags, flags)
        _check(own, flags, where)
        entries.append(_entry(folder, flags, **own))
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise NumnetError(f"{file}: two runs have the name {name!r}; each needs its own")
    return Sweep(file, folder, entries)


def _parted(content, where) -> tuple:
    """What a run's description has of ``OWN``, and the rest, a recipe."""
    own = {key: value for key, value in content.items() if key in OWN}
    return own, recipes.check({key: value for key, value in content.items() if key not in OWN}, where)


def _joined(shared, flags) -> dict:
    """A run's settings on the common ones. What the file says stays, whatever net a run names, if that has a choice."""
    merged = recipes.merge(shared, flags)
    merged = {**{key: shared[key] for key in ("progressive", "whiten") if key in shared}, **merged}
    common, own = shared.get("model", {}), flags.get("model", {})
    if "model" not in common and (common or own):
        name = own.get("model", "")
        barred = ("strides",) if is_written(name) else NO_CHOICE.get(name, ())
        merged["model"] = {**{key: value for key, value in common.items() if key not in barred}, **own}
    return merged


def _check(own, flags, where) -> None:
    name, seeds = own.get("name"), own.get("seeds")
    if not isinstance(name, str) or not re.fullmatch(r"[\w.+=-]+", name) or name.startswith("."):
        raise NumnetError(f"{where}: name is {json.dumps(name)}; expected letters, digits and . + = - _")
    for key in ("dataset", "data", "recipe", "group"):
        if not isinstance(own.get(key, ""), str):
            raise NumnetError(f"{where}: {key} is {json.dumps(own[key])}; expected a text")
    if "dataset" not in own:
        raise NumnetError(f'{where}: no dataset; expected "cifar10", "shapes" or the path of an image folder')
    if seeds is not None:
        if "seed" in flags:
            raise NumnetError(f"{where}: has both seed and seeds")
        if not isinstance(seeds, list) or not seeds or not all(recipes.SETTINGS["seed"][0](s) for s in seeds):
            raise NumnetError(f"{where}: seeds is {json.dumps(seeds)}; expected a list of integers ≥ 0")
        if len(set(seeds)) < len(seeds):
            raise NumnetError(f"{where}: a seed stands twice in seeds")


def _entry(folder, flags, *, name, dataset, data=None, recipe=None, group=None, seeds=None) -> Entry:
    trainings = [(folder / f"{name}-seed{seed}", {**flags, "seed": seed}) for seed in seeds or ()]
    return Entry(name, group, dataset, data, recipe, flags, trainings or [(folder / name, flags)])


# ----------------------------------------------------------------------------------------- training


def train(sweep, *, progress=True, say=print) -> list[dict]:
    """Do the trainings of a sweep that are not done yet; return its table, the rows of ``results``.

    The table is written after each row. ``say`` is given a line before each training.
    """
    for entry in sweep.entries:  # what can be known to be wrong is said before the first training
        for _, flags in entry.trainings:
            describe(**run.plan(entry.dataset, entry.recipe, flags)["model"])
    rows = []
    for entry in sweep.entries:
        for folder, flags in entry.trainings:
            _train(entry, folder, flags, progress, say)
        rows.append(results.row(sweep, entry, [results.finished(folder) for folder, _ in entry.trainings]))
        results.write(sweep.folder, rows)
    return rows


def _train(entry, folder, flags, progress, say) -> None:
    """One training: done before, resumed, or done now."""
    begun, done = ((folder / name).is_file() for name in ("last.safetensors", "result.json"))
    plan = run.plan(entry.dataset, entry.recipe, flags)
    if begun or done:
        _require_same(entry.dataset, plan, folder)
    kept = None if begun or done else results.finished(folder)
    if kept is not None:
        results.require_same(folder, plan, kept[1])
        say(f"{folder.name}: done already, its log was kept")
    elif done:
        say(f"{folder.name}: done already")
    elif begun:
        say(f"{folder.name}: going on")
        data = entry.data if entry.dataset == "cifar10" else None  # the others do not ask for it
        run.resume(folder, data=data, progress=progress)
    else:
        say(f"{folder.name}: starting")
        where = {} if entry.data is None else {"data_dir": entry.data}
        run.train(entry.dataset, recipe=entry.recipe, flags=flags, out=folder, progress=progress, **where)


def _require_same(dataset, plan, folder) -> None:
    """Raise NumnetError if the training in ``folder`` has other images, or more settings than ``plan``, fewer or others."""
    document = results.document_in(folder)
    results.require_same(folder, plan, {"model": {}, **(document.get("recipe") or {})})
    place = dataset if dataset in BUILT_IN else str(Path(dataset).absolute())
    theirs = (document.get("reading") or {}).get("dataset", place)
    if theirs != place:
        raise NumnetError(
            f"{folder} holds a run on {theirs}, the sweep now wants {place}; give the run another name or remove the folder"
        )


# ----------------------------------------------------------------------------------------- time


def measure(sweep, *, steps=3, say=print) -> dict:
    """Time a training image in every run's net, and leave the microseconds in its folder for the table; return them.

    What is counted is processor time, so that other work on the machine disturbs little; with several threads it is
    that of all together, waiting included: give it one. The nets take turns, ``ROUNDS`` times ``steps`` steps
    (forward, loss, backward) on random images each; the middle of the rounds counts. The first step, which
    compiles, does not. (A net whose file does not say so has ten classes here.)
    """
    work = []
    for entry in sweep.entries:
        plan = run.plan(entry.dataset, entry.recipe, entry.flags)
        net = build(**results.timed(plan))
        rng = np.random.default_rng(0)
        images = plan.get("batch_size", DEFAULTS["batch_size"])
        x = rng.standard_normal((images, *net.input_shape)).astype(net.dtype)
        labels = rng.integers(0, net.classes, images)
        say(f"{entry.name}: a first step")
        _step(net, x, labels)
        work.append((entry.name, net, x, labels))
    taken = {name: [] for name, *_ in work}
    for number in range(1, ROUNDS + 1):
        say(f"round {number} of {ROUNDS}")
        for name, net, x, labels in work:
            began = time.process_time()
            for _ in range(steps):
                _step(net, x, labels)
            taken[name].append(1e6 * (time.process_time() - began) / (steps * len(x)))
    times = {name: statistics.median(rounds) for name, rounds in taken.items()}
    results.write_times(sweep.folder, {name: (times[name], net.cost().macs) for name, net, *_ in work})
    return times


def _step(net, x, labels) -> None:
    logits = net.forward(x, training=True)
    net.backward(softmax_cross_entropy(logits, labels)[1], input_gradient=False)
