"""From a checkpoint to a net that is ready for use."""

import os
from math import isfinite
from pathlib import Path
from typing import Any

from numnet import checkpoint
from numnet.errors import NumnetError
from numnet.models import build, describe
from numnet.models.parts import with_parameters
from numnet.net import Net
from numnet.quantised import QuantisedNet, files
from numnet.quantised import net as eights
from numnet.weights import import_file, is_foreign
from numnet.weights.kinds import file_of, framework_of

# A small net for `numnet predict photo.jpg`
PACKAGED = Path(__file__).parent / "trained" / "cifar10.safetensors"
PACKAGED_INT8 = PACKAGED.with_name("cifar10_int8.safetensors")  # the same in eight bits
FORMAT = files.FORMAT  # the newest document of a checkpoint that is read: 1 has floats, 2 has eight bits


def load(path: str | os.PathLike[str]) -> Net | Any:
    """The net in a checkpoint, or in a run directory's best one, with what the file says about its use:

    net.config        the keywords of ``numnet.build``
    net.scaling       {"mean": [3 floats], "std": [3 floats]} of x/255, or None if the file has none
    net.class_names   a list with a text for each class, or None
    net.document      all that the file says besides its arrays: data set, recipe, state of the training, …
    net.path          the file itself

    ``net.save(path)`` writes such a file again.

    Raises NumnetError, one line, for a file that is missing, damaged, no checkpoint of numnet, or of a net
    that ``numnet.build`` did not make. A file that ``numnet quantise`` wrote gives a ``numnet.quantised.QuantisedNet``.
    """
    refuse_foreign(path)
    path = checkpoint.find(path, "best")
    document = read_document(path)
    if files.is_quantised(document):
        return _load_eights(path)
    description = _description(path, document)  # a small file must not have a large net made
    description.require(checkpoint.read_shapes(path), str(path))
    tensors, _ = checkpoint.read(path)
    net = build(**(description.config or {}))
    net.restore(tensors, str(path))
    net.step = document.get("step") or (document.get("training") or {}).get("passes") or 0
    net.scaling, net.class_names = document.get("input"), document.get("classes")
    if net.class_names is not None and len(net.class_names) > net.classes:
        raise NumnetError(
            f"{path}: names {len(net.class_names)} classes, its net has {net.classes} output classes"
        )
    net.document, net.path = document, path
    return net


def _load_eights(path) -> QuantisedNet:
    """The net in eight bits of a checkpoint: grids and weights of one look, since a training may replace the file."""
    tensors, document = checkpoint.read(path)
    _require_kinds(path, document)
    if not files.is_quantised(document):
        raise NumnetError(f"{path}: was replaced while it was read; try again")
    _known_format(path, document)
    net = eights.load(path, document, tensors)
    if net.class_names is not None and len(net.class_names) > net.classes:
        raise NumnetError(
            f"{path}: names {len(net.class_names)} classes, its net has {net.classes} output classes"
        )
    return net


def refuse_foreign(path) -> None:
    """Raise NumnetError for another framework's file; it says which commands read it."""
    if is_foreign(path):
        framework_of(file_of(path))  # raises for what is not read
        if file_of(path).suffix.lower() == ".safetensors":
            checkpoint.read_shapes(file_of(path))  # raises for what is cut short, which may be numnet's own
        raise NumnetError(
            f"{path}: another framework's file; `numnet import {path} -o net.safetensors` makes a checkpoint of it, "
            "numnet.weights.import_file a net"
        )


def load_any(path) -> Net | Any:
    """``load``, or for another framework's file ``numnet.weights.import_file``; then ``net.notes`` says what was assumed."""
    return import_file(path) if is_foreign(path) else load(path)


def require_floats(net, what) -> None:
    """Raise NumnetError for a net in eight bits, where a float one is needed."""
    if isinstance(net, QuantisedNet):
        raise NumnetError(
            f"{net.path}: a net in eight bits; {what} needs the float net that it was made from"
        )


def require_trained(net, what) -> None:
    """Raise NumnetError for a net that has layers which nobody has trained: no classifier, a new one, or all of them."""
    if net.classes == 0:
        raise NumnetError(
            f"{net.path}: {what} needs a net with a classifier, and this one has none (classes 0); train one: "
            f"numnet train DATASET --init {net.path}"
        )
    new = net.document.get("untrained")
    if new and isinstance(net, QuantisedNet):
        raise NumnetError(
            f"{net.path}: {what} needs a trained net, and this one was made of a float net with layers that nobody has "
            f"trained ({', '.join(new)}); train that one first, or if you did, save this one with untrained=None"
        )
    if new and set(new) == with_parameters(net):
        raise NumnetError(
            f"{net.path}: {what} needs a trained net, and this one has its first, random weights; train it first: "
            f"numnet train DATASET --init {net.path}"
        )
    if new:
        raise NumnetError(
            f"{net.path}: {what} needs a whole net, and this one came without its last layers ({', '.join(new)}); train them "
            f"first: numnet train DATASET --init {net.path}"
        )


def describe_checkpoint(path, /, **options) -> Net | Any:
    """The net of a checkpoint, or of a run directory's best one, for its shapes and cost: a description without arrays.

    ``options``: keywords instead of its own. A net in eight bits (which has no options) and another framework's file come
    with their arrays. Raises NumnetError as ``load`` does.
    """
    if is_foreign(path):
        return import_file(path, **options)
    path = checkpoint.find(path, "best")
    document = read_document(path)
    if files.is_quantised(document):
        if options:
            raise NumnetError(f"{path}: a net in eight bits cannot be changed; expected no options of a net")
        return _load_eights(path)
    return _description(path, document, **options)


def _description(path, document, /, **options) -> Net:
    try:
        return describe(**{**_config(path, document), **options})
    except (TypeError, OverflowError) as error:
        raise NumnetError(f"{path}: no net has such a configuration ({error})") from None
    except NumnetError as error:
        raise error if str(path) in str(error) else NumnetError(f"{path}: {error}") from None


def read_document(path) -> dict:
    """The document of a checkpoint, each part of the kind that its readers count on. Raises NumnetError."""
    document = checkpoint.read_meta(path)
    _require_kinds(path, document)
    return document


def _require_kinds(path, document) -> None:
    _require(path, document, DOCUMENT)
    _require(path, document.get("training") or {}, TRAINING, "training.")


def _count(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _object(value):
    return isinstance(value, dict)


def _numbers(value):
    return isinstance(value, dict) and all(map(_number, value.values()))


def _scaling(value):
    if not isinstance(value, dict) or set(value) != {"mean", "std"}:
        return False
    parts = value["mean"], value["std"]
    if not all(isinstance(part, list) and len(part) == 3 and all(map(_number, part)) for part in parts):
        return False
    return min(value["std"]) > 0


def _texts(value):
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _text(value):
    return isinstance(value, str)


def _best(value):
    numbers = (value.get("accuracy"), value.get("loss")) if isinstance(value, dict) else ()
    return _object(value) and _count(value.get("epoch")) and all(n is None or _number(n) for n in numbers)


def _history(value):
    return isinstance(value, list) and all(
        isinstance(record, dict) and all(n is None or _number(n) for n in record.values()) for record in value
    )


# What may stand in a document, where it stands there at all; null is nothing.
DOCUMENT = {
    "step": (_count, "a number of steps"),
    "input": (_scaling, '{"mean": [3 numbers], "std": [3 numbers above 0]}'),
    "classes": (_texts, "a list of texts"),
    "dataset": (_text, "a text"),
    "command": (_text, "a text"),
    "result": (_object, "an object"),
    "labels": (_text, "a text"),
    "digest": (_text, "a text"),
    "init": (_text, "a text"),
    "preset": (_text, "a text"),
    "background": (_text, "a text"),
    "untrained": (_texts, "a list of texts"),
    "recipe": (_object, "an object"),
    "reading": (
        lambda v: _object(v) and _text(v.get("dataset")) and _object(v.get("options")),
        "a data set and its options",
    ),
    "source": (_object, "an object"),
    "made": (_object, "an object"),
    "training": (_object, "an object"),
    "quantised": (_object, "an object"),
}
TRAINING = {
    **dict.fromkeys(("epoch", "batch", "steps", "passes", "images"), (_count, "an integer of at least 0")),
    "seconds": (lambda v: _number(v) and v >= 0, "a number of at least 0"),
    **dict.fromkeys(("sums", "busy"), (_numbers, "an object of numbers")),
    "history": (_history, "a list of records"),
    "best": (_best, "an epoch with its accuracy and loss"),
}


def _require(path, document, kinds, prefix=""):
    for name, (valid, expected) in kinds.items():
        value = document.get(name)
        if value is not None and not valid(value):
            shown = repr(value)
            shown = shown if len(shown) <= 60 else shown[:57] + "…"
            raise NumnetError(f"{path}: damaged checkpoint ({prefix}{name} is {shown}, expected {expected})")


def _config(path, document) -> dict:
    _known_format(path, document)
    config = document.get("config")
    if not isinstance(config, dict) or "model" not in config:
        raise NumnetError(
            f"{path}: a custom net; build it as its author did, then call net.restore(its arrays)"
        )
    return config


def _known_format(path, document) -> None:
    version = document.get("format")
    if not isinstance(version, int) or version < 1:
        raise NumnetError(f"{path}: a file of numnet's, but no checkpoint of a net (it has no format number)")
    if version > FORMAT:
        raise NumnetError(
            f"{path}: has format {version}, this numnet reads up to {FORMAT}; install a newer one"
        )
