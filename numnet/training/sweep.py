"""A sweep: several trainings from one file, one after another, and a table of what came out.

The file is JSON: a list of runs, or {"common": {…}, "runs": [{…}, …]} where ``common`` is shared by all. A
run has

    "name"       its folder's name, and its row's in the table
    "dataset"    "cifar10", "shapes" or a folder
    "data"       where the data lies, if not where it is looked for anyway
    "recipe"     a recipe's name or file
    "seeds"      a list: the run is done once for each, and the row is their mean ± standard deviation
    "group"      a text: in the figure a line joins the runs that have the same
    and whatever a recipe may have: "epochs", "model": {…}, …

Stopped in the middle and started again it leaves finished runs alone, resumes the one that was under way, and
goes on. ``logged`` makes the same table of what is finished, without training: from run directories, or from
the logs alone that were kept of them. ``measure`` times a training step of every run's net.
"""

import json
import math
import re
import statistics
import time
from pathlib import Path

import numpy as np

from numnet import checkpoint
from numnet.errors import NumnetError
from numnet.kernels.loss import softmax_cross_entropy
from numnet.models import build, describe
from numnet.training import recipes, run
from numnet.training.loop import DEFAULTS

OWN = ("name", "dataset", "data", "recipe", "seeds", "group")
COLUMNS = (
    "name",
    "group",
    "runs",
    "macs",
    "params",
    "test_accuracy",
    "deviation",
    "accuracies",  # the test accuracy of each seed
    "validation_accuracy",
    "train_seconds",
    "microseconds",  # of processor time for a training image, if ``measure`` was asked
)
MEANS = ("test_accuracy", "validation_accuracy", "train_seconds")
FREE = ("about", "checkpoint_every")  # keys of a recipe that change nothing about what comes out
TIMES = "times.json"  # what ``measure`` leaves in the sweep's folder
ROUNDS = 5  # how often ``measure`` goes over all nets: a disturbance hits all of them, or one round


def read(file) -> list[dict]:
    """The runs of a sweep file, ``common`` merged in; raises NumnetError naming the file and the run."""
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise NumnetError(f"{file}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise NumnetError(f"{file}: not JSON ({' '.join(str(error).split())})") from None
    common = {}
    if isinstance(content, dict) and set(content) <= {"common", "runs"}:
        common, content = content.get("common", {}), content.get("runs")
    if not isinstance(content, list) or not content or not isinstance(common, dict):
        raise NumnetError(f'{file}: expected a list of runs, or {{"common": {{…}}, "runs": [{{…}}, …]}}')
    runs = []
    for number, entry in enumerate(content, 1):
        where = f"{file}: run {number}"
        if not isinstance(entry, dict):
            raise NumnetError(f"{where}: expected an object {{…}}, got {json.dumps(entry)[:40]}")
        own = {
            **{key: common[key] for key in OWN if key in common},
            **{k: entry[k] for k in OWN if k in entry},
        }
        flags = recipes.merge(
            recipes.check(_without(common, OWN), f"{file}: common"),
            recipes.check(_without(entry, OWN), where),
        )
        runs.append(_checked({**own, "flags": flags}, where))
    for name in (entry["name"] for entry in runs):
        if sum(entry["name"] == name for entry in runs) > 1:
            raise NumnetError(f"{file}: two runs have the name {name!r}; each needs its own")
    return runs


def _checked(entry, where) -> dict:
    name, seeds = entry.get("name"), entry.get("seeds")
    if not isinstance(name, str) or not re.fullmatch(r"[\w.+=-]+", name) or name.startswith("."):
        raise NumnetError(f"{where}: name is {json.dumps(name)}; expected letters, digits and . + = - _")
    for key in ("dataset", "data", "recipe", "group"):
        if not isinstance(entry.get(key, ""), str):
            raise NumnetError(f"{where}: {key} is {json.dumps(entry[key])}; expected a text")
    if "dataset" not in entry:
        raise NumnetError(f'{where}: no dataset; expected "cifar10", "shapes" or the path of an image folder')
    if seeds is not None:
        if "seed" in entry["flags"]:
            raise NumnetError(f"{where}: has both seed and seeds")
        if not isinstance(seeds, list) or not seeds or not all(recipes.SETTINGS["seed"][0](s) for s in seeds):
            raise NumnetError(f"{where}: seeds is {json.dumps(seeds)}; expected a list of integers ≥ 0")
        if len(set(seeds)) < len(seeds):
            raise NumnetError(f"{where}: a seed stands twice in seeds")
    return entry


def sweep(file, out=None, *, progress=True, say=print) -> list[dict]:
    """Do the runs of a sweep file in the folder ``out`` (None: its name without .json); return the table.

    A row has ``COLUMNS``: runs (seeds) done, MACs and parameters of the net, the means over the seeds, and
    the standard deviation of the test accuracy (None of one seed). The table is written to ``out`` as
    table.json and table.md too. ``say`` is given a line before each run.
    """
    entries, out = read(file), folder(file, out)
    rows = []
    for entry in entries:
        results = [_result(entry, flags, out / name, name, progress, say) for name, flags in _seeded(entry)]
        config = checkpoint.read_meta(results[-1]["checkpoint"])["config"]
        rows.append(_row(entry, results, config, _times(out)))
        _write(out, rows)
    return rows


def logged(file, out=None, *, say=print) -> list[dict]:
    """The table of the runs that are finished in ``out``, without training any; written and returned as by ``sweep``.

    A run's folder may hold its run directory, or only what was kept of it: about.json, with the results and the
    recipe. ``say`` is told which runs are not there. Raises NumnetError if none is, or if one is of other settings
    than the file's.
    """
    entries, out = read(file), folder(file, out)
    rows = []
    for entry in entries:
        logs = []
        for name, flags in _seeded(entry):
            log = _log(out / name)
            if log is None:
                say(f"{name}: not finished")
                continue
            _agree(flags, log[1], out / name)
            logs.append(log)
        if logs:
            rows.append(_row(entry, [result for result, _ in logs], logs[-1][1]["model"], _times(out)))
    if not rows:
        raise NumnetError(f"{out}: no finished run of {file}; expected a folder for each, named as the run")
    _write(out, rows)
    return rows


def folder(file, out=None) -> Path:
    """The folder of a sweep: ``out``, or the file's name without its ending."""
    return Path(file).with_suffix("") if out is None else Path(out)


def _seeded(entry) -> list[tuple]:
    """(folder's name, flags) of each seed's run."""
    name, flags = entry["name"], entry["flags"]
    if not entry.get("seeds"):
        return [(name, flags)]
    return [(f"{name}-seed{seed}", {**flags, "seed": seed}) for seed in entry["seeds"]]


def _log(folder) -> tuple | None:
    """(result, recipe) of a finished run, from its run directory or from what was kept of it; None if there is none."""
    try:
        if (folder / "result.json").is_file():
            result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            return result, checkpoint.read_meta(folder / "last.safetensors")["recipe"]
        if (folder / "about.json").is_file():
            kept = json.loads((folder / "about.json").read_text(encoding="utf-8"))
            recipe, result = dict(kept["recipe"]), {key: kept[key] for key in MEANS}
            return result, {**recipe, "model": dict(recipe["model"])}
    except (ValueError, KeyError, TypeError):
        raise NumnetError(f"{folder}: its log is damaged; expected the results and the recipe") from None
    return None


def _agree(flags, recipe, folder) -> None:
    """Raise NumnetError if a finished run's recipe is not what the sweep's file asks for."""
    model = recipe["model"]
    asked = {key: (value, recipe.get(key)) for key, value in flags.items() if key != "model"}
    asked |= {f"model.{key}": (value, model.get(key)) for key, value in flags.get("model", {}).items()}
    for key, (wanted, was) in asked.items():
        if key not in FREE and was != wanted:
            raise NumnetError(_differs(folder, key, was, wanted))


def _differs(folder, key, was, wanted) -> str:
    return (
        f"{folder} holds a run with {key} = {json.dumps(was)}, the sweep now wants {json.dumps(wanted)}; "
        "give the run another name or remove the folder"
    )


def _result(entry, flags, folder, name, progress, say) -> dict:
    """The result of one run: done before, resumed, or done now."""
    if (folder / "last.safetensors").is_file():
        _compare(run.plan(entry["dataset"], entry.get("recipe"), flags), folder)
    if (folder / "result.json").is_file():
        say(f"{name}: done already")
        return json.loads((folder / "result.json").read_text(encoding="utf-8"))
    if (folder / "last.safetensors").is_file():
        say(f"{name}: going on")
        return run.resume(folder, progress=progress)
    say(f"{name}: starting")
    where = {} if "data" not in entry else {"data_dir": entry["data"]}
    return run.train(
        entry["dataset"], recipe=entry.get("recipe"), flags=flags, out=folder, progress=progress, **where
    )


def _compare(wanted, folder) -> None:
    """Raise NumnetError if the run in ``folder`` is not the one that is wanted."""
    was = checkpoint.read_meta(folder / "last.safetensors").get("recipe", {})
    was["model"] = {key: value for key, value in was.get("model", {}).items() if key in wanted["model"]}
    for key in sorted(set(was) | set(wanted)):
        if key not in FREE and was.get(key) != wanted.get(key):
            raise NumnetError(_differs(folder, key, was.get(key), wanted.get(key)))


def _row(entry, results, config, times) -> dict:
    cost = describe(**config).cost()
    tests = [result["test_accuracy"] for result in results]
    deviation = None
    if len(tests) > 1 and None not in tests:
        mean = sum(tests) / len(tests)
        deviation = math.sqrt(sum((test - mean) ** 2 for test in tests) / (len(tests) - 1))
    row = {"name": entry["name"], "group": entry.get("group"), "runs": len(results)}
    row |= {"macs": cost.macs, "params": cost.params, "accuracies": tests}
    for key in MEANS:
        values = [result[key] for result in results]
        row[key] = None if None in values else sum(values) / len(values)
    row |= {"deviation": deviation, "microseconds": times.get(entry["name"])}
    return {key: row[key] for key in COLUMNS}


def _write(out, rows) -> None:
    checkpoint.replace(out / "table.json", (json.dumps(rows, indent=1) + "\n").encode())
    checkpoint.replace(out / "table.md", table(rows).encode())


def table(rows) -> str:
    """The rows as a Markdown table: with the measured time of a training image, or else the minutes of the runs."""
    measured = any(row["microseconds"] is not None for row in rows)
    lines = [
        "| run | seeds | MACs, M | parameters, M | test accuracy, % | validation, % | "
        + ("µs an image |" if measured else "minutes |"),
        "|---" * 7 + "|",
    ]
    for row in rows:
        test = _percent(row["test_accuracy"])
        if row["deviation"] is not None:
            test += f" ± {100 * row['deviation']:.2f}"
        took = f"{row['train_seconds'] / 60:.1f}"
        if measured:
            took = "–" if row["microseconds"] is None else f"{row['microseconds']:.0f}"
        lines.append(
            f"| {row['name']} | {row['runs']} | {row['macs'] / 1e6:.2f} | {row['params'] / 1e6:.3f} | {test} "
            f"| {_percent(row['validation_accuracy'])} | {took} |"
        )
    told = apart(rows)
    if told is not None:
        lines += [
            "",
            f"The seeds' standard deviation, all rows together, is {100 * told['deviation']:.2f} points "
            f"({told['freedom']} degree{'s' * (told['freedom'] > 1)} of freedom). Two rows of {told['runs']} seed"
            f"{'s' * (told['runs'] > 1)} that differ by less than "
            f"{100 * told['difference']:.2f} points may do so by chance (95 %, Student's t).",
        ]
    return "\n".join(lines) + "\n"


def apart(rows) -> dict | None:
    """From what difference on two rows of a table can be told apart; None if no row has two seeds.

    A deviation of two seeds says next to nothing, that of all rows together a little: the variance is taken to be
    the same in all of them, (∑ of squares about each row's mean) / (∑ of seeds − 1). Two means of n seeds then
    differ by chance by less than t·deviation·√(2/n) in 95 of 100 cases; n here is the smallest that a row has, be it 1.
    Between many rows some difference is larger by chance. What other test images would do is not in it.
    """
    from scipy.special import stdtrit

    groups = [row["accuracies"] for row in rows if row["deviation"] is not None]
    if not groups:
        return None
    freedom = sum(len(group) - 1 for group in groups)
    squares = sum((value - sum(group) / len(group)) ** 2 for group in groups for value in group)
    deviation, fewest = math.sqrt(squares / freedom), min(row["runs"] for row in rows)
    difference = float(stdtrit(freedom, 0.975)) * deviation * math.sqrt(2 / fewest)
    return {"deviation": deviation, "freedom": freedom, "runs": fewest, "difference": difference}


def _percent(part) -> str:
    return "–" if part is None else f"{100 * part:.2f}"


def _without(entry, keys) -> dict:
    return {key: value for key, value in entry.items() if key not in keys}


# ----------------------------------------------------------------------------------------- time


def measure(file, out=None, *, steps=3, say=print) -> dict:
    """Time a training image in every run's net, and leave the microseconds in ``out`` for the table; return them.

    What is counted is processor time, so that other work on the machine disturbs little; with several threads it is
    that of all together, waiting included: give it one. The nets take turns, ``ROUNDS`` times ``steps`` steps
    (forward, loss, backward) on random images each; the middle of the rounds counts. The first step, which
    compiles, does not. (A net whose file does not say so has ten classes here.)
    """
    entries, out = read(file), folder(file, out)
    work = []
    for entry in entries:
        plan = run.plan(entry["dataset"], entry.get("recipe"), entry["flags"])
        net = build(**{"classes": 10, **plan["model"]})
        rng = np.random.default_rng(0)
        images = plan.get("batch_size", DEFAULTS["batch_size"])
        x = rng.standard_normal((images, *net.input_shape)).astype(net.dtype)
        labels = rng.integers(0, net.classes, images)
        say(f"{entry['name']}: a first step")
        _step(net, x, labels)
        work.append((entry["name"], net, x, labels))
    taken = {name: [] for name, *_ in work}
    for number in range(1, ROUNDS + 1):
        say(f"round {number} of {ROUNDS}")
        for name, net, x, labels in work:
            began = time.process_time()
            for _ in range(steps):
                _step(net, x, labels)
            taken[name].append(1e6 * (time.process_time() - began) / (steps * len(x)))
    times = {name: statistics.median(rounds) for name, rounds in taken.items()}
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.replace(out / TIMES, (json.dumps(times, indent=1) + "\n").encode())
    return times


def _step(net, x, labels) -> None:
    logits = net.forward(x, training=True)
    net.backward(softmax_cross_entropy(logits, labels)[1], input_gradient=False)


def _times(out) -> dict:
    """What ``measure`` left in the folder; nothing if it was not asked."""
    try:
        return json.loads((out / TIMES).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise NumnetError(f"{out / TIMES}: damaged; remove it or measure again with --time") from None
