"""A training from a data set's name and a recipe: what ``numnet train`` and ``numnet sweep`` call."""

import json
from pathlib import Path

from numnet import checkpoint
from numnet import data as datasets
from numnet.data import names as class_names
from numnet.errors import NumnetError, tell
from numnet.loading import load_any, read_document, require_floats
from numnet.models import build, describe
from numnet.models.common import Settings
from numnet.models.parts import with_parameters
from numnet.models.searched import is_written
from numnet.training import recipes, state
from numnet.training.loop import Run
from numnet.training.team import Team

# Keywords of ``data.load`` that a checkpoint may name.
LOADING = {"data_dir", "memory", "download", "input_scaling"}
# Keywords of a checkpoint's net that say nothing of its weights: another training has its own.
OF_A_TRAINING = ("classes", "seed", "bn_momentum", "dropout", "initialiser")


def train(
    dataset,
    *,
    recipe=None,
    flags=None,
    init=None,
    out=None,
    callbacks=(),
    progress=True,
    team=None,
    **reading,
) -> dict:
    """Train by the data set's default recipe, ``recipe`` (a name or file) and ``flags``, the later winning.

    dataset             "cifar10", "shapes" or the path of an image folder
    flags               changes of the recipe: {"epochs": 3, "model": {"width": 0.5}}
    init                a checkpoint to start from, its path or the net that was loaded from it: its net and its input
                        scaling instead of the recipe's; a net for another number of classes gets a new last layer
    out                 run directory; None makes ``runs/<data set>-<number>``
    team                who shares the work: see ``numnet.fit``
    reading             other keywords of ``numnet.data.load``: data_dir, memory, download

    Returns result.json's contents and ``history``. Raises NumnetError for whatever a user can get wrong.
    """
    start = load_any(init) if isinstance(init, (str, Path)) else init
    if start is not None:
        require_floats(start, "training")
        if getattr(start, "path", None) is None:
            raise NumnetError(
                "init: expected a checkpoint, or a net that numnet.load gave; numnet.fit trains any other"
            )
    merged = plan(dataset, recipe, flags, start)
    if start is not None and start.scaling is not None and "scaling" not in (flags or {}):
        merged["scaling"], reading["input_scaling"] = "dataset", start.scaling
    options = {"--recipe": recipe, "--init": None if start is None else _called(start.path)}
    named = [f"{option} {value}" for option, value in options.items() if value is not None]
    command = " ".join(["numnet train", Path(dataset).name, *named])
    command += f", with {json.dumps(flags)}" if flags else ""
    return _run(dataset, merged, reading, out, False, callbacks, progress, start, team, command)


def _called(path) -> str:
    """The name of a checkpoint's file; a run is known by its folder."""
    path = Path(path).absolute()
    return path.parent.name if path.name == state.BEST else path.name


def plan(dataset, recipe=None, flags=None, start=None) -> dict:
    """The merged recipe of a run: what its checkpoints say under "recipe", but for the number of classes.

    ``start``: a net that was loaded; its configuration takes the place of the recipes' model, of which dropout and
    bn_momentum stay.
    """
    layers = [recipes.load(recipes.default(str(dataset)))]
    if recipe is None and (flags or {}).get("quantise"):
        recipe = "quantise"
    if recipe is not None:
        named = recipes.load(str(recipe))
        own = named.get("model", {}).get("model")
        if recipes.default(str(dataset)) == "folder" and own is not None and not is_written(own):
            # Photographs have no size of their own: the recipe's net brings its own, not the folder recipe's.
            named = {**named, "model": {"resolution": Settings.resolution, **named["model"]}}
        layers.append(named)
    merged = recipes.merge(*layers)
    if start is not None:
        asked = {key: merged["model"][key] for key in ("bn_momentum", "dropout") if key in merged["model"]}
        net = {key: value for key, value in start.config.items() if key not in OF_A_TRAINING}
        merged["model"] = {**net, **asked}
        # Named again, with all its options
        if (flags or {}).get("model", {}).get("model") == start.config["model"]:
            flags = {**flags, "model": {k: v for k, v in flags["model"].items() if k != "model"}}
        merged.pop("whiten", None)  # the net's own filters are what is wanted
    merged = recipes.merge(merged, recipes.check(flags or {}, "options"))
    merged.setdefault("seed", 0)
    merged["model"] = {"seed": merged["seed"], **merged["model"]}
    if start is not None:
        _require_fit(merged["model"], start)
    elif merged.get("quantise"):
        raise NumnetError("--quantise: goes on from a trained float net; expected --init CHECKPOINT")
    return merged


def resume(
    run_dir, *, epoch=None, data=None, memory=None, changes=None, callbacks=(), progress=True, team=None
) -> dict:
    """Go on with the run in this directory; a finished one is not changed. Returns what ``train`` returns.

    epoch      go back to the checkpoint that was kept after this epoch, and on from there; what came after is done again
    data       where the images lie now, if not where they lay: they must be the same files, or CIFAR-10
    memory     bytes of images to keep, instead of what the run was started with
    changes    {"epochs": E, "patience": P}: another end; a finished run goes on if these leave something to do
    """
    team = team or Team()
    last = team.lead(lambda: checkpoint.find(run_dir, "last"))
    path = last if epoch is None else team.lead(lambda: state.kept_at(last.parent, epoch))
    document = team.lead(lambda: read_document(path))
    if document.get("reading") is None or document.get("recipe") is None:
        raise NumnetError(
            f"{path}: holds no training that was started by `numnet train`; use fit(…, resume=True)"
        )
    result = path.parent / "result.json"
    if epoch is None and not changes and data is None and team.lead(result.is_file):
        done = team.lead(lambda: state.read_result(result))  # which needs no image any more
        return {**done, "history": (document.get("training") or {}).get("history", [])}
    source, run_dir = document["reading"], path.parent
    options, recipe = dict(source["options"]), recipes.check(document["recipe"], f"{path}: recipe")
    if not set(options) <= LOADING or "seed" not in recipe or "resolution" not in recipe.get("model", {}):
        raise NumnetError(
            f"{path}: damaged checkpoint (its recipe or its reading of the data is not complete)"
        )
    dataset = source["dataset"]
    if data is not None:
        if dataset == "shapes":
            raise NumnetError("--data: the built-in shapes are in no file; expected no --data")
        if dataset in datasets.BUILT_IN:
            options["data_dir"] = data
        else:
            dataset = data
            if not Path(data).is_dir():
                raise NumnetError(
                    f"--data: {data}: no such folder, expected the images of {source['dataset']}"
                )
            if document.get("digest") is None and team.leads:
                tell(f"{path}: by an older numnet: whether {data} holds the same images cannot be checked")
    elif dataset not in datasets.BUILT_IN and not Path(dataset).exists():
        raise NumnetError(
            f"{path}: the images were in {dataset}, which is missing; give their new place with --data DIR"
        )
    if memory is not None:
        options["memory"] = memory
    recipe = {**recipe, **recipes.check(changes or {}, "options")}
    return _run(
        dataset, recipe, options, run_dir, True, callbacks, progress, team=team, command=document.get("command"),
        extended=tuple(changes or ()), back=epoch,
    )  # fmt: skip


def _run(
    dataset,
    recipe,
    reading,
    out,
    resuming,
    callbacks,
    progress,
    start=None,
    team=None,
    command=None,
    extended=(),
    back=None,
) -> dict:
    team = team or Team()
    model = dict(recipe["model"])
    settings = {key: value for key, value in recipe.items() if key not in (*recipes.READING, "model")}
    reading = {key: str(value) if isinstance(value, Path) else value for key, value in reading.items()}
    if reading.get("data_dir") is not None:
        reading["data_dir"] = str(Path(reading["data_dir"]).absolute())
    if recipes.default(str(dataset)) == "folder":
        dataset = str(Path(dataset).absolute())
    data = team.first(lambda: data_of(dataset, recipe, reading))  # one at a time: it may download
    classes = model.setdefault("classes", len(data.classes))
    if classes < len(data.classes):
        raise NumnetError(
            f"the recipe's model has {classes} output classes, {data.name} has {len(data.classes)}"
        )
    net = build(**model)
    if start is not None:
        _take_over(net, start, data.classes, tell if team.leads else lambda line: None)
    if out is None:
        out = team.lead(lambda: new_folder("runs", data.name))
    meta = {"recipe": {**recipe, "model": model}, "reading": {"dataset": str(dataset), "options": reading}}
    if command is not None:
        meta["command"] = command
    if start is not None:
        meta["init"] = str(start.path)
    run = Run(net, data, settings, out=out, meta=meta, callbacks=callbacks, progress=progress, team=team)
    run.extended, run.back = extended, back
    run.train(resume=resuming)
    return {**run.result, "history": run.history}


def data_of(dataset, recipe, reading):
    """The data set that a recipe trains on; ``reading``: other keywords of ``numnet.data.load``."""
    return datasets.load(
        dataset,
        validation=recipe.get("validation", 0),
        preset=recipe.get("preset"),
        background=recipe.get("background"),
        seed=recipe["seed"],
        resolution=recipe["model"]["resolution"],
        **reading,
    )


def _require_fit(model, start) -> None:
    """Raise NumnetError if the options make another net than the one whose weights are to be taken over."""
    net = describe(**model)
    ours, theirs = ({name: spec.shape for name, spec in each.specs.items()} for each in (net, start))
    head = net.layers[-1].name + "."
    for name in dict.fromkeys((*ours, *theirs)):
        if ours.get(name) != theirs.get(name) and not name.startswith(head):
            raise NumnetError(
                f"--init {start.path}: the options make another net than its {start.config['model']}; "
                f"{name} would have shape {ours.get(name)}, it has {theirs.get(name)}"
            )


def _take_over(net, start, classes, say) -> None:
    """The weights of ``start``. Outputs of its last layer go by the names of their classes; new classes get new ones.

    classes: the names that the outputs of ``net`` will have. Where the names of ``start`` are not known, its last layer
    is taken as it is if it has as many outputs, else it is new.
    """
    tensors, own = start.state(), net.state()
    new = set(start.document.get("untrained") or ())  # layers that the file had no weights for
    if new == with_parameters(start):  # of `numnet build`: its first weights, which are wanted
        new = set()
    head, known = net.layers[-1].name, start.class_names
    names = list(classes) + [None] * (net.classes - len(classes))
    if head in new:
        pass
    elif known is None:
        if net.classes != start.classes:
            new.add(head)
        elif start.document.get("labels") is None and not start.document.get("untrained"):
            say(
                f"--init {start.path}: names no classes: its {start.classes} outputs are taken over by position"
            )
    else:
        places = class_names.match(names[: len(classes)], known) + names[len(classes) :]
        for name in [name for name in own if name.startswith(f"params/{head}.")]:
            array = own[name].copy()
            for output, place in enumerate(places):
                if place is not None:
                    array[..., output] = tensors[name][..., place]
            tensors[name] = array
        fresh = [name for name, place in zip(classes, places) if place is None]
        if fresh:
            kept = len(classes) - len(fresh)
            say(
                f"--init {start.path}: knows {kept} of the {len(classes)} classes; "
                f"new outputs for {class_names.listed(fresh)}"
            )
    heads = tuple(f"params/{name}." for name in new)
    if heads:
        tensors |= {name: array for name, array in own.items() if name.startswith(heads)}
    net.restore(tensors, f"--init {start.path}")


def new_folder(parent, name) -> Path:
    """``<parent>/<name>-<number>``, made now so that no other process takes it."""
    number = 1
    while True:
        folder = Path(parent) / f"{Path(name).name}-{number}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise NumnetError(
                f"cannot make the folder {folder}: {error.strerror}; name one with --out"
            ) from None
