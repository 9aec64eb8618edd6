"""The results of a sweep: for every run the mean over its seeds ± standard deviation, and the cost of its net.

What a training came to is read from its run directory, or from the log alone that was kept of it (about.json), and
must be of the settings that the sweep's file asks for. ``collect`` makes the table of whatever is finished; nothing
is trained here.

    row          a run: n trainings that differ in their seed; their mean and their sample standard deviation
    table        the rows, as table.json and as table.md, and below them the least significant difference
    times.json   the time of a training image, if ``sweep.measure`` left it in the sweep's folder

``plotting.sweep`` draws the same rows.
"""

import json
import math
import statistics

from numnet import checkpoint
from numnet.data.feed import OPTIONS as AUGMENT
from numnet.errors import NumnetError
from numnet.loading import read_document
from numnet.models import describe
from numnet.quantiles import student_quantile
from numnet.training.run import plan
from numnet.training.state import read_result

COLUMNS = (
    "name",
    "group",
    "runs",  # seeds
    "macs",
    "params",
    "test_accuracy",
    "deviation",  # of the test accuracy; None of one seed
    "accuracies",  # the test accuracy of each seed
    "validation_accuracy",
    "train_seconds",
    "microseconds",  # of processor time for a training image; None if it was not measured
)
MEANS = ("test_accuracy", "validation_accuracy", "train_seconds")
# keys of a recipe that change nothing about what comes out
FREE = ("about", "checkpoint_every", "keep_every")
TIMES = "times.json"


def collect(sweep, *, say=print) -> list[dict]:
    """The table of a sweep's finished trainings: its rows, as ``COLUMNS``, which are written to its folder too.

    sweep: what ``sweep.read`` returns. ``say`` is called with the names of missing trainings. Raises NumnetError if none is,
    or if one is of other settings than the file's.
    """
    rows = []
    for entry in sweep.entries:
        logs = []
        for folder, flags in entry.trainings:
            log = finished(folder)
            if log is None:
                say(f"{folder.name}: not finished")
                continue
            require_same(folder, plan(entry.dataset, entry.recipe, flags), log[1])
            logs.append(log)
        if logs:
            rows.append(row(sweep, entry, logs))
    if not rows:
        raise NumnetError(
            f"{sweep.folder}: no finished run of {sweep.file}; expected a folder for each, named as the run"
        )
    write(sweep.folder, rows)
    return rows


# ----------------------------------------------------------------------------------------- logs


def finished(folder) -> tuple | None:
    """(result, recipe) of a finished training, from its run directory or from what was kept of it; None if there is none.

    Raises NumnetError for a log that is damaged or has lost its checkpoint.
    """
    if (folder / "result.json").is_file():
        result, recipe = read_result(folder / "result.json"), document_in(folder).get("recipe")
    elif (folder / "about.json").is_file():
        result = checkpoint.read_json(folder / "about.json")
        recipe = result.get("recipe") if isinstance(result, dict) else None
    else:
        return None
    model = recipe.get("model") if isinstance(recipe, dict) else None
    if not isinstance(model, dict) or not set(MEANS) <= set(result):
        raise NumnetError(
            f"{folder}: its log is damaged; expected the results ({', '.join(MEANS)}) and the recipe"
        )
    return result, recipe


def document_in(folder) -> dict:
    """What the training's last checkpoint says; the best one's words if that alone was kept.

    The last has the settings with which it ended: the best may be of an epoch before it was extended.
    """
    name = "last" if (folder / "last.safetensors").is_file() else "best"
    return read_document(checkpoint.find(folder, name))


def require_same(folder, plan, recipe) -> None:
    """Raise NumnetError if the training in ``folder``, of this recipe, differs from ``plan`` anywhere."""
    model = dict.fromkeys(key for key in recipe["model"] if key != "classes")  # those are the data's
    require(
        folder, {**dict.fromkeys(recipe), **plan, "model": {**model, **plan["model"]}}, recipe, whole=True
    )


def require(folder, wanted, recipe, whole=False) -> None:
    """Raise NumnetError if the training in ``folder``, of this recipe, has other settings than are wanted.

    wanted: some settings, or a ``whole`` recipe; what that leaves out of "augment" then counts as well.
    """
    was = _flat(recipe, True)
    for key, value in _flat(wanted, whole).items():
        if key not in FREE and was.get(key) != value:
            raise NumnetError(
                f"{folder} holds a run with {key} = {json.dumps(was.get(key))}, the sweep now wants "
                f"{json.dumps(value)}; give the run another name or remove the folder"
            )


def _flat(recipe, whole) -> dict:
    """A recipe with keys like "model.width" and "augment.crop"; ``whole``: with what "augment" leaves out, too."""
    flat = {key: value for key, value in recipe.items() if key not in ("model", "augment")}
    flat |= {f"model.{key}": value for key, value in recipe.get("model", {}).items()}
    if "augment" in recipe or whole:
        own = recipe.get("augment")
        flat["augment"] = bool(own)
        parts = {**AUGMENT, **own} if own and whole else own or {}
        flat |= {f"augment.{key}": value for key, value in parts.items()}
    return flat


# ----------------------------------------------------------------------------------------- table


def row(sweep, entry, logs) -> dict:
    """A row of ``COLUMNS``: the logs of an entry's trainings, each (result, recipe), taken together."""
    results = [result for result, _ in logs]
    cost = describe(**logs[-1][1]["model"]).cost()
    accuracies = [result["test_accuracy"] for result in results]
    several = len(accuracies) > 1 and None not in accuracies
    values = {"name": entry.name, "group": entry.group, "runs": len(results)}
    values |= {"macs": cost.macs, "params": cost.params, "accuracies": accuracies}
    for key in MEANS:
        each = [result[key] for result in results]
        values[key] = None if None in each else statistics.fmean(each)
    values["deviation"] = statistics.stdev(accuracies) if several else None
    values["microseconds"] = _time(sweep.folder, entry)
    return {key: values[key] for key in COLUMNS}


def write_times(folder, times) -> None:
    """times.json: for each run's name (microseconds of a training image, MACs of the net that was timed)."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {name: {"microseconds": time, "macs": macs} for name, (time, macs) in times.items()}
    checkpoint.replace(folder / TIMES, (json.dumps(content, indent=1) + "\n").encode())


def timed(plan) -> dict:
    """Keywords of ``build`` for the net that ``sweep.measure`` times: ten classes if nobody says how many."""
    return {"classes": 10, **plan["model"]}


def _time(folder, entry) -> float | None:
    """What ``sweep.measure`` left in the folder for a run's net; None if it was not asked, or was for another net."""
    try:
        found = json.loads((folder / TIMES).read_text(encoding="utf-8")).get(entry.name)
        if isinstance(found, dict):  # else a number alone: an older numnet's
            now = describe(**timed(plan(entry.dataset, entry.recipe, entry.flags))).cost().macs
            found = found["microseconds"] if found["macs"] == now else None
        return None if found is None else float(found)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise NumnetError(f"{folder / TIMES}: damaged; remove it or measure again with --time") from None


def write(folder, rows) -> None:
    """The rows as table.json and table.md."""
    checkpoint.replace(folder / "table.json", (json.dumps(rows, indent=1) + "\n").encode())
    checkpoint.replace(folder / "table.md", markdown(rows).encode())


def markdown(rows) -> str:
    """The rows as a Markdown table: with the measured time of a training image, or else the minutes of the trainings."""
    measured = any(row["microseconds"] is not None for row in rows)
    lines = [
        "| run | seeds | MACs, M | parameters, M | test accuracy, % | validation, % | "
        + ("µs an image |" if measured else "minutes |"),
        "|---" * 7 + "|",
    ]
    for row in rows:
        test = percent(row["test_accuracy"])
        if row["deviation"] is not None:
            test += f" ± {100 * row['deviation']:.2f}"
        took = f"{row['train_seconds'] / 60:.1f}"
        if measured:
            took = "–" if row["microseconds"] is None else f"{row['microseconds']:.0f}"
        lines.append(
            f"| {row['name']} | {row['runs']} | {row['macs'] / 1e6:.2f} | {row['params'] / 1e6:.3f} | {test} "
            f"| {percent(row['validation_accuracy'])} | {took} |"
        )
    least = least_significant_difference(rows)
    if least is not None:
        lines += [
            "",
            f"The seeds' standard deviation, all rows together, is {100 * least['deviation']:.2f} points "
            f"({least['freedom']} degree{'s' * (least['freedom'] > 1)} of freedom). Two rows of {least['runs']} seed"
            f"{'s' * (least['runs'] > 1)} that differ by less than "
            f"{100 * least['difference']:.2f} points may do so by chance (95 %, Student's t).",
        ]
    return "\n".join(lines) + "\n"


def percent(part) -> str:
    return "–" if part is None else f"{100 * part:.2f}"


def least_significant_difference(rows) -> dict | None:
    """The smallest significant difference between two rows of a table (Fisher's LSD); None if no row has two seeds.

    A deviation of two seeds says next to nothing, that of all rows together a little: the variance is taken to be
    the same in all of them and pooled, s² = ∑ (nᵢ − 1) sᵢ² / ∑ (nᵢ − 1). Two means of n seeds then differ by chance
    by less than t·s·√(2/n) in 95 of 100 cases, with Student's t of ∑ (nᵢ − 1) degrees of freedom; n here is the smallest
    that a row has, be it 1. Between many rows some difference is larger by chance. What other test images would do
    is not in it.
    """
    several = [row for row in rows if row["deviation"] is not None]
    if not several:
        return None
    freedom = sum(row["runs"] - 1 for row in several)
    squares = sum((row["runs"] - 1) * row["deviation"] ** 2 for row in several)
    deviation, fewest = math.sqrt(squares / freedom), min(row["runs"] for row in rows)
    difference = student_quantile(freedom, 0.975) * deviation * math.sqrt(2 / fewest)
    return {"deviation": deviation, "freedom": freedom, "runs": fewest, "difference": difference}
