"""A sweep: several trainings from one file, one after another, and a table of what came out.

The file is JSON: a list of runs, or {"common": {…}, "runs": [{…}, …]} where ``common`` is shared by all. A
run has

    "name"       its folder's name, and its row's in the table
    "dataset"    "cifar10", "shapes" or a folder
    "data"       where the data lies, if not where it is looked for anyway
    "recipe"     a recipe's name or file
    "seeds"      a list: the run is done once for each, and the row is their mean ± standard deviation
    and whatever a recipe may have: "epochs", "model": {…}, …

Stopped in the middle and started again it leaves finished runs alone, resumes the one that was under way, and
goes on.
"""

import json
import math
import re
from pathlib import Path

from numnet import checkpoint
from numnet.errors import NumnetError
from numnet.models import describe
from numnet.training import recipes, run

OWN = ("name", "dataset", "data", "recipe", "seeds")
COLUMNS = (
    "name",
    "runs",
    "macs",
    "params",
    "test_accuracy",
    "deviation",
    "validation_accuracy",
    "train_seconds",
)


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
    for key in ("dataset", "data", "recipe"):
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
    entries = read(file)
    out = Path(file).with_suffix("") if out is None else Path(out)
    rows = []
    for entry in entries:
        results = []
        for seed in entry.get("seeds") or [None]:
            name = entry["name"] if seed is None else f"{entry['name']}-seed{seed}"
            flags = entry["flags"] if seed is None else {**entry["flags"], "seed": seed}
            results.append(_result(entry, flags, out / name, name, progress, say))
        rows.append(_row(entry["name"], results, checkpoint.read_meta(results[-1]["checkpoint"])["config"]))
        _write(out, rows)
    return rows


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
        if key not in ("about", "checkpoint_every") and was.get(key) != wanted.get(key):
            raise NumnetError(
                f"{folder} holds a run with {key} = {json.dumps(was.get(key))}, the sweep now wants "
                f"{json.dumps(wanted.get(key))}; give the run another name or remove the folder"
            )


def _row(name, results, config) -> dict:
    cost = describe(**config).cost()
    tests = [result["test_accuracy"] for result in results]
    deviation = None
    if len(tests) > 1 and None not in tests:
        mean = sum(tests) / len(tests)
        deviation = math.sqrt(sum((test - mean) ** 2 for test in tests) / (len(tests) - 1))
    row = {"name": name, "runs": len(results), "macs": cost.macs, "params": cost.params}
    for key in ("test_accuracy", "validation_accuracy", "train_seconds"):
        values = [result[key] for result in results]
        row[key] = None if None in values else sum(values) / len(values)
    row["deviation"] = deviation
    return {key: row[key] for key in COLUMNS}


def _write(out, rows) -> None:
    checkpoint.replace(out / "table.json", (json.dumps(rows, indent=1) + "\n").encode())
    checkpoint.replace(out / "table.md", table(rows).encode())


def table(rows) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| run | seeds | MACs, M | parameters, M | test accuracy, % | validation, % | minutes |",
        "|---" * 7 + "|",
    ]
    for row in rows:
        test = _percent(row["test_accuracy"])
        if row["deviation"] is not None:
            test += f" ± {100 * row['deviation']:.2f}"
        lines.append(
            f"| {row['name']} | {row['runs']} | {row['macs'] / 1e6:.2f} | {row['params'] / 1e6:.3f} | {test} "
            f"| {_percent(row['validation_accuracy'])} | {row['train_seconds'] / 60:.1f} |"
        )
    return "\n".join(lines) + "\n"


def _percent(part) -> str:
    return "–" if part is None else f"{100 * part:.2f}"


def _without(entry, keys) -> dict:
    return {key: value for key, value in entry.items() if key not in keys}
