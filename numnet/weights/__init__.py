"""Weights from and to other frameworks: Keras, PyTorch (torchvision, timm), PaddleClas; ONNX outwards.

    net = numnet.weights.import_file("mobilenet_v2.safetensors")     # a net as its authors published it
    numnet.load_weights(net, "weights.h5")                           # the same numbers into a net with other settings
    numnet.weights.export_torch(net, "mine.safetensors", "timm")
    numnet.weights.export_onnx(net, "mine.onnx", folded=True)

One page a framework; ``kinds`` recognises the file, ``source`` the net, ``slots`` moves the tensors. Files are read as data:
no page here executes anything that a file says; ``hdf5`` opens Keras's in a process that may crash or hang without harm,
``pth`` reads PyTorch's pickles with stand-ins for all that they name.
"""

import copy
import os
from pathlib import Path
from typing import Any

from numnet import checkpoint
from numnet.errors import NumnetError
from numnet.net import KNOWN, Net
from numnet.quantised.files import is_quantised
from numnet.weights import keras, kinds, paddle, torch
from numnet.weights.floats import settle as settle
from numnet.weights.floats import to_floats as to_floats
from numnet.weights.kinds import is_foreign as is_foreign
from numnet.weights.kinds import is_tflite as is_tflite
from numnet.weights.onnx import export_onnx as export_onnx
from numnet.weights.onnx_eights import export_quantised as export_quantised
from numnet.weights.slots import fill, misfits
from numnet.weights.source import SCALINGS, match, turn
from numnet.weights.tflite import import_tflite as import_tflite
from numnet.weights.torch import export_torch as export_torch

FRAMEWORKS = {"keras": keras, "torch": torch, "paddle": paddle}


def import_file(
    file: str | os.PathLike[str],
    model: str | None = None,
    width: float | None = None,
    *,
    take: str | None = None,
    published: str | None = None,
    **options: Any,
) -> Net:
    """The net in a file of Keras, PyTorch or PaddleClas, with its weights and the conventions it was published with.

    Model, width and number of classes are recognised from the tensors, unless ``model`` and ``width`` name them.
    ε, padding, the convention of the running variance (the variant) and batch norm's momentum come from the file where
    it states them, else as published; ``options``, keywords of ``numnet.build``, win over both, for what no tensor can
    say (``resolution``, ``padding``, ``bn_eps`` …). All of it stands in ``net.config``, so that a checkpoint of the net
    rebuilds it. The net also has, as after ``numnet.load``:

    net.scaling       {"mean", "std"} of x/255 that the net was trained with; images are red, green, blue
    net.class_names   a list with a text for each class where the file names them, or None
    net.document      {"source": {"framework", "layout", "file"}, "labels": "imagenet" if it has 1,000 classes,
                      "preset": how images are resized, "untrained": layers that the file has no weights for; where
                      numnet wrote the file "background" and "digest", as in a checkpoint}
    net.notes         lines on what was chosen among several weights, assumed, or left out
    net.path          the file

    ``take``: of several sets of weights in a PyTorch file "averaged" (None, if there are any), "raw", or its name there.
    ``published``: the net's name at timm, for what only the name says ("tf_mobilenetv3_large_100").

    Raises NumnetError, one line: for a file that is missing, damaged, of no net that numnet knows, or whose tensors do
    not fit; tensors missing, left over or of the wrong shape are one error that names the first of them.
    """
    framework, source = _read(file, take, published)
    net, candidate, untrained, notes = match(framework, source, model, width, options)
    net.scaling = copy.deepcopy(source.scaling or SCALINGS[candidate.scaling])
    names = source.class_names
    net.class_names = names if names is not None and len(names) == net.classes else None
    net.path, net.notes = source.path, [*source.notes, *notes]
    if source.question is not None and not set(source.question[0]) & options.keys() and _asked(candidate):
        size = candidate.model.rpartition("_")[2]
        net.notes.append(source.question[1].format(name=f"tf_mobilenetv3_{size}_100"))
    net.document = {
        "source": {"framework": source.framework, "layout": candidate.layout, "file": source.path.name},
        "labels": "imagenet" if net.classes == 1000 and net.class_names is None else None,
    }
    facts = {key: getattr(source, key) for key in ("preset", "background", "digest")}
    net.document |= {key: fact for key, fact in facts.items() if fact is not None}
    if untrained:
        net.document |= {"untrained": untrained, "labels": None}
        net.class_names = None
    if (net.config.get("head") or untrained) and net.document["labels"]:
        net.document["labels"] = None
    return net


def _asked(candidate) -> bool:
    """Only V3 under timm's names has two nets of the same tensors."""
    return candidate.layout == "timm" and candidate.model.startswith("mobilenet_v3")


def load_weights(net: Net, file: str | os.PathLike[str], *, take: str | None = None) -> None:
    """Copy all tensors of a file of Keras, PyTorch or PaddleClas, or of a checkpoint, into ``net``: all or none.

    Only numbers are copied: what tensors do not say (ε, padding, activations, the input's scaling) is as the net was
    built; ``import_file`` builds it as published, and says what ``take`` is. Raises NumnetError for a file that is missing
    or damaged, and one that names the tensors that are missing, left over or of the wrong shape.
    """
    if net.flat is None:
        raise NumnetError(
            "load_weights: this net is a description without arrays; numnet.build makes one that has them"
        )
    if Path(file).is_dir() and any(
        (Path(file) / f"{name}.safetensors").is_file() for name in ("best", "last")
    ):
        file = checkpoint.find(file, "best")  # a run directory
    if kinds.is_checkpoint(file):
        tensors, document = checkpoint.read(file)
        if is_quantised(document):
            raise NumnetError(f"{file}: a net in eight bits; expected one of floats")
        net.restore(tensors, str(file))
        _forget(net, document.get("untrained"))
        return
    framework, source = _read(file, take)
    model = (net.config or {}).get("model")
    known = getattr(framework, "READ", framework.LAYOUTS)
    layouts = [layout for layout, models in known.items() if model in models]
    if not layouts:
        raise NumnetError(
            f"{file}: {source.framework} has no {model or 'counterpart of a net of one of your own'}, "
            f"expected one of {', '.join(dict.fromkeys(m for models in known.values() for m in models))}"
        )
    choices, reason, own = [], None, False
    for layout in layouts:
        try:
            choices.append(framework.layout_slots(net, layout))
        except NumnetError as error:  # a block of one's own, which this layout has no name for
            reason, own = error, own or layout in framework.LAYOUTS
    best = min(choices, key=lambda slots: len(misfits(slots, source.tensors)), default=None)
    if best is None or (own and misfits(best, source.tensors)):
        raise NumnetError(f"{file}: {reason}")
    fill(net, best, source.tensors, source.path)
    for candidate in framework.candidates():
        if candidate.model == model and candidate.bgr:
            turn(net, candidate)
    _forget(net)


def _forget(net, untrained=None) -> None:
    """What was known of the net's numbers is not true of other ones; names of classes and scaling are its user's."""
    known = getattr(net, "document", None) or {}
    kept = {key: value for key, value in known.items() if key not in (*KNOWN, "result")}
    if known or untrained:
        net.document = {**kept, "untrained": untrained} if untrained else kept


def _read(file, take=None, published=None):
    """(the framework's page, the Source) by what the file is."""
    path = kinds.file_of(file)
    kind = kinds.framework_of(path)
    if kind == "torch":
        return torch, torch.read(path, take, published)
    for option, value in (("take", take), ("published", published)):
        if value is not None:
            raise NumnetError(
                f"{path}: --{option} is for PyTorch's files, this is one of {kind.capitalize()}"
            )
    return FRAMEWORKS[kind], FRAMEWORKS[kind].read(path)
