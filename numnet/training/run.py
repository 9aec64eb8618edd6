"""A training from a data set's name and a recipe: what ``numnet train`` and ``numnet sweep`` call."""

from pathlib import Path

from numnet import checkpoint
from numnet import data as datasets
from numnet.errors import NumnetError
from numnet.models import build
from numnet.training import recipes
from numnet.training.loop import Run


def train(dataset, *, recipe=None, flags=None, out=None, callbacks=(), progress=True, **reading) -> dict:
    """Train by the data set's default recipe, ``recipe`` (a name or file) and ``flags``, the later winning.

    dataset             "cifar10", "shapes" or the path of an image folder
    flags               a recipe of its own: {"epochs": 3, "model": {"width": 0.5}}
    out                 run directory; None makes ``runs/<data set>-<number>``
    reading             other keywords of ``numnet.data.load``: data_dir, memory, download

    Returns result.json's contents and ``history``. Raises NumnetError for whatever a user can get wrong.
    """
    return _run(dataset, plan(dataset, recipe, flags), reading, out, False, callbacks, progress)


def plan(dataset, recipe=None, flags=None) -> dict:
    """The merged recipe of a run: what its checkpoints say under "recipe", but for the number of classes."""
    layers = [recipes.load(recipes.default(str(dataset)))]
    if recipe is not None:
        layers.append(recipes.load(str(recipe)))
    merged = recipes.merge(*layers, recipes.check(flags or {}, "options"))
    merged.setdefault("seed", 0)
    merged["model"] = {"seed": merged["seed"], **merged["model"]}
    return merged


def resume(run_dir, *, callbacks=(), progress=True) -> dict:
    """Go on with the run in this directory; a finished one is left alone. Returns what ``train`` returns."""
    path = checkpoint.find(run_dir, "last")
    document = checkpoint.read_meta(path)
    if "reading" not in document:
        raise NumnetError(
            f"{path}: holds no training that was started by `numnet train`; use fit(…, resume=True)"
        )
    source, run_dir = document["reading"], path.parent
    return _run(source["dataset"], document["recipe"], source["options"], run_dir, True, callbacks, progress)


def _run(dataset, recipe, reading, out, resuming, callbacks, progress) -> dict:
    model = dict(recipe["model"])
    settings = {key: value for key, value in recipe.items() if key not in (*recipes.READING, "model")}
    reading = {key: str(value) if isinstance(value, Path) else value for key, value in reading.items()}
    if reading.get("data_dir") is not None:
        reading["data_dir"] = str(Path(reading["data_dir"]).absolute())
    if recipes.default(str(dataset)) == "folder":
        dataset = str(Path(dataset).absolute())
    data = datasets.load(
        dataset,
        validation=recipe.get("validation", 0),
        preset=recipe.get("preset"),
        seed=recipe["seed"],
        resolution=model["resolution"],
        **reading,
    )
    classes = model.setdefault("classes", len(data.classes))
    if classes < len(data.classes):
        raise NumnetError(
            f"the recipe's model tells {classes} classes apart, {data.name} has {len(data.classes)}"
        )
    net = build(**model)
    if out is None:
        out = _new_folder(data.name)
    meta = {"recipe": {**recipe, "model": model}, "reading": {"dataset": str(dataset), "options": reading}}
    run = Run(net, data, settings, out=out, meta=meta, callbacks=callbacks, progress=progress)
    run.train(resume=resuming)
    return {**run.result, "history": run.history}


def _new_folder(name) -> Path:
    """``runs/<name>-<number>``, made now so that no other process takes it."""
    number = 1
    while True:
        folder = Path("runs") / f"{Path(name).name}-{number}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise NumnetError(
                f"cannot make the run directory {folder}: {error.strerror}; name one with --out"
            ) from None
