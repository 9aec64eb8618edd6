"""Recipes: all that decides how a net is trained, as plain JSON files in ``recipes/`` or of the user's own.

A recipe is one object. Under "model" stand keywords of ``numnet.build``; the other keys are those of SETTINGS
below, which are keywords of ``numnet.fit`` or say how the data is read. Every key may be left out. Three
layers are merged, the later winning key by key:

    the data set's default recipe  <  --recipe  <  flags

with two exceptions. Who changes the number of epochs and not the warm-up gets a warm-up of the same share.
And what only makes sense for one optimiser, schedule or model does not outlive it (BELONGS): who asks for
another optimiser gets its own learning rate, momentum and so on, not those of the recipe below. Who names a
model, even the recipe's, gets the paper's, of the recipe's size (MODEL_KEPT), and images of one size. On a folder
of photographs a recipe's net takes them at its own resolution, 224 unless the recipe says otherwise.
"""

import inspect
import json
from math import isfinite
from pathlib import Path

from numnet import checkpoint
from numnet.data.feed import OPTIONS as AUGMENT
from numnet.data.feed import SAMPLINGS, check_augment
from numnet.data.image import BACKGROUNDS
from numnet.data.transforms import PRESETS, SCALINGS, is_preset
from numnet.errors import NumnetError
from numnet.models import MODELS, NO_CHOICE
from numnet.models.common import Settings
from numnet.models.names import hint
from numnet.models.searched import is_written, parse
from numnet.texts import nearest
from numnet.training.optimisers import OPTIMISERS
from numnet.training.schedules import OPTIONS as SCHEDULES

FOLDER = Path(__file__).parent / "recipes"
SCALED_BY = ("dataset", *SCALINGS)


def number(least, below=None, above=None):
    """A check: a finite number ≥ ``least`` (> ``above`` if given) and < ``below``."""

    def check(value):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
            return False
        return value >= least and (above is None or value > above) and (below is None or value < below)

    bound = f"≥ {least:g}" if above is None else f"> {above:g}"
    return check, f"a number {bound}" + ("" if below is None else f" and < {below:g}")


def integer(least):
    return (
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least,
        f"an integer ≥ {least}",
    )


def one_of(names):
    return (lambda value: isinstance(value, str) and value in names), "one of " + ", ".join(names)


def or_none(kind):
    check, words = kind
    return (lambda value: value is None or check(value)), words + " or null"


def or_word(kind, word):
    check, words = kind
    return (lambda value: value == word or check(value)), f"{words} or {json.dumps(word)}"


PRESET = (
    (lambda value: isinstance(value, str) and is_preset(value)),
    f"one of {', '.join(PRESETS)}, bicubic/0.9",
)
TEXT = (lambda value: isinstance(value, str)), "a text"
SWITCH = (lambda value: isinstance(value, bool)), "true or false"
OBJECT = (
    (lambda value: isinstance(value, dict) and all(isinstance(key, str) for key in value)),
    "an object {…}",
)
STAGES = (
    lambda value: (
        isinstance(value, (list, tuple))
        and all(
            isinstance(stage, (list, tuple))
            and len(stage) == 2
            and all(number(0, below=1, above=0)[0](n) for n in stage)
            for stage in value
        )
        and sum(stage[1] for stage in value) < 1
    ),
    "a list of [part of the side, part of the epochs], each above 0, together less than all epochs",
)
WEIGHTS = (
    lambda value: (
        value == "balanced"
        or (isinstance(value, dict) and bool(value) and all(number(0, above=0)[0](w) for w in value.values()))
    ),
    '"balanced", or a number above 0 for each class: {"cat": 2, "dog": 0.5}',
)
EPOCH_LIST = (
    lambda value: isinstance(value, (list, tuple)) and all(number(0)[0](epoch) for epoch in value),
    "a list of epochs",
)

# The keys of a recipe besides "model": key -> (check, what it expects).
SETTINGS = {
    "about": TEXT,
    "epochs": integer(1),
    "batch_size": integer(1),  # images per step of the optimiser
    "accumulate": integer(1),  # parts that a batch goes through the net in, to save memory
    "optimiser": one_of(OPTIMISERS),
    "lr": or_none(number(0, above=0)),  # null: the optimiser's own
    "weight_decay": number(0),
    "decay_depthwise": SWITCH,  # false: none on depthwise weights, as the V1 paper recommends
    "momentum": number(0, below=1),
    "nesterov": SWITCH,
    "ratio": number(0, above=0),  # of muon: what a matrix moves by, in parts of its length, over lr
    "beta_rate": number(0, above=0),  # of sgd and muon: the rate of batch norm's β, in parts of lr
    "rho": number(0, below=1),
    "beta1": number(0, below=1),
    "beta2": number(0, below=1),
    "epsilon": number(0, above=0),
    "style": one_of(("pytorch", "tensorflow")),
    "schedule": one_of(SCHEDULES),
    "warmup": or_none(number(0)),  # epochs; null: 30 % of a one_cycle, else none
    "final": number(0),  # part of lr that is left at the end
    "gamma": number(0, above=0),
    "milestones": EPOCH_LIST,
    "every": number(0, above=0),  # epochs
    "progressive": or_none(STAGES),  # smaller images first: [part of the net's side, part of the epochs] …
    "label_smoothing": number(0, below=1),
    "clip_norm": or_none(number(0, above=0)),
    "ema": or_none(number(0, below=1)),  # decay of the averaged weights
    "augment": or_none(OBJECT),
    # of x/255: by the data's own mean and deviation, or a scaling of numnet.data by name
    "scaling": one_of(SCALED_BY),
    "seed": integer(0),
    "class_weights": or_none(WEIGHTS),  # of the loss; "balanced": each class counts the same
    "sampling": one_of(SAMPLINGS),  # "balanced": in every epoch as many images of each class
    "patience": or_none(integer(1)),  # epochs without a better one after which the training ends
    "checkpoint_every": or_none(number(0)),  # minutes
    "keep_every": or_none(integer(1)),  # epochs between two checkpoints that stay: epoch-5.safetensors …
    "sync_bn": SWITCH,  # batch norm over the whole batch where several processes share it
    "quantise": SWITCH,  # train for eight bits: fake quantisation, ranges learned; the best net is saved in eight bits
    "exact": SWITCH,  # the same bits whatever the number of processes
    # images held back; "test": the test set, which then is no test
    "validation": or_word(integer(0), "test"),
    "whiten": SWITCH,  # the first convolution whitens patches of the training images, and stays as it is
    "freeze": or_none(TEXT),  # the last block that training leaves as it is, and all before it
    "preset": or_none(PRESET),  # how photographs are brought to the resolution
    "background": or_none(one_of(BACKGROUNDS)),  # what is seen through transparent pixels
}
# Keys that say how the data is read; the others are the loop's
READING = ("validation", "preset", "background")
# Keywords of numnet.build that outlive the naming of a model: what they say is not of one architecture.
MODEL_KEPT = ("width", "resolution", "classes", "padding", "strides", "dtype", "seed", "dropout")
# What is dropped from the layers below when a later one changes the key on the left.
BELONGS = {
    "optimiser": sorted({"weight_decay"}.union(*(cls.DEFAULTS for cls in OPTIMISERS.values()))),
    "schedule": sorted({"warmup"}.union(*SCHEDULES.values())),
}


def names() -> list[str]:
    """The recipes that come with numnet."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def default(dataset: str) -> str:
    """The name of the recipe that a data set is trained with if no other is named."""
    return dataset if dataset in ("cifar10", "shapes") else "folder"


def load(name: str) -> dict:
    """The recipe of that name, or in the file of that name; checked. Raises NumnetError."""
    path = FOLDER / f"{name}.json"
    if not (name in names() or name.endswith(".json") or Path(name).is_file()):
        raise NumnetError(
            f"unknown recipe {name!r}{nearest(name, names(), 0.5)}; "
            f"expected a JSON file or one of {', '.join(names())}"
        )
    if name not in names():
        path = Path(name)
    try:
        recipe = checkpoint.read_json(path, f"{path}: no such file")
    except NumnetError as error:
        raise NumnetError(f"recipe {error}") from None
    return check(recipe, f"recipe {name}")


def check(recipe, where: str) -> dict:
    """The recipe itself if every key and value is right; raises NumnetError that starts with ``where``."""
    if not isinstance(recipe, dict):
        raise NumnetError(f"{where}: expected an object {{…}}, got {json.dumps(recipe)[:40]}")
    for key, value in recipe.items():
        if key == "model":
            _check_model(value, where)
            continue
        if key not in SETTINGS:
            raise NumnetError(f"{where}: unknown key {key!r}{nearest(key, [*SETTINGS, 'model'], 0.5)}")
        fits, expected = SETTINGS[key]
        if not fits(value):
            raise NumnetError(f"{where}: {key} is {_show(value)}; expected {expected}")
        if key == "augment":
            for name in value or {}:
                if name not in AUGMENT:
                    raise NumnetError(f"{where}: unknown augmentation {name!r}{nearest(name, AUGMENT, 0.5)}")
            try:
                check_augment(value)
            except NumnetError as error:
                raise NumnetError(f"{where}: {error}") from None
    return recipe


def _check_model(model, where: str) -> None:
    if not isinstance(model, dict):
        raise NumnetError(
            f'{where}: model is {_show(model)}; expected an object like {{"model": "mobilenet_v1"}}'
        )
    if not isinstance(model.get("model", ""), str):
        raise NumnetError(f"{where}: model of model is {_show(model['model'])}; expected a name")
    known = {"model", "dtype", "seed", *Settings.__dataclass_fields__}
    for make, fixed in MODELS.values():
        keywords = inspect.signature(make).parameters.values()
        known.update(p.name for p in keywords if p.kind == p.KEYWORD_ONLY and p.name not in fixed)
    for key in model:
        if key not in known:
            raise NumnetError(f"{where}: unknown key {key!r} of model{hint(key, sorted(known))}")


def merge(*layers: dict) -> dict:
    """One recipe out of several, the later winning: key by key, inside "model" and "augment" too.

    The two exceptions stand at the top of this page. ``about`` is the last layer's own.
    """
    merged: dict = {}
    for layer in layers:
        kept = {key: value for key, value in merged.items() if key != "about"}
        for key, belongings in BELONGS.items():
            if key in layer and layer[key] != merged.get(key, layer[key]):
                kept = {k: v for k, v in kept.items() if k not in belongings}
        if kept.get("warmup") and "warmup" not in layer and {"epochs"} <= kept.keys() & layer.keys():
            kept["warmup"] = round(kept["warmup"] * layer["epochs"] / kept["epochs"], 6)
        model, augment = dict(kept.get("model", {})), kept.get("augment")
        if "model" in layer.get("model", {}):
            kept_keys = set(MODEL_KEPT) - set(NO_CHOICE.get(layer["model"]["model"], ()))
            model = {key: value for key, value in model.items() if key in kept_keys}
            if is_written(layer["model"]["model"]):  # a line says its channels, strides and side itself
                model = {key: value for key, value in model.items() if key not in ("width", "strides")}
                model["resolution"] = parse(layer["model"]["model"]).side
            kept.pop("progressive", None)
            kept.pop("whiten", None)
        merged = {**kept, **layer}
        if model or "model" in layer:
            merged["model"] = {**model, **layer.get("model", {})}
        if augment and layer.get("augment"):
            merged["augment"] = {**augment, **layer["augment"]}
    return merged


def _show(value) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else text[:37] + "…"
