"""Weights from and to other frameworks: Keras, PyTorch (torchvision, timm), PaddleClas; ONNX outwards.

    net = numnet.weights.import_file("mobilenet_v2.safetensors")     # a net as its authors published it
    numnet.load_weights(net, "weights.h5")                           # the same numbers into a net of one's own settings
    numnet.weights.export_torch(net, "mine.safetensors", "timm")
    numnet.weights.export_onnx(net, "mine.onnx", folded=True)

One page a framework; ``slots`` moves the tensors, ``source`` recognises the net. Files are read as data: no page here
executes anything that a file says, and ``hdf5`` opens Keras's in a process that may crash or hang without harm.
"""

import copy
from pathlib import Path

from numnet import checkpoint
from numnet.errors import NumnetError
from numnet.net import Net
from numnet.weights import keras, paddle, torch
from numnet.weights.onnx import export_onnx as export_onnx
from numnet.weights.slots import fill, misfits
from numnet.weights.source import SCALINGS, match
from numnet.weights.torch import export_torch as export_torch

FRAMEWORKS = {"keras": keras, "torch": torch, "paddle": paddle}


def import_file(file, model=None, width=None, **options) -> Net:
    """The net in a file of Keras, PyTorch or PaddleClas, with its weights and the conventions it was published with.

    Model, width and number of classes are recognised from the tensors, unless ``model`` and ``width`` name them.
    ε, padding, the convention of the running variance (the variant) and batch norm's momentum come from the file where
    it states them, else as published; ``options``, keywords of ``numnet.build``, win over both, for what no tensor can
    say (``resolution``, ``padding``, ``bn_eps`` …). All of it stands in ``net.config``, so that a checkpoint of the net
    rebuilds it. Beside, as ``numnet.load`` does:

    net.scaling       {"mean", "std"} of x/255 that the net was trained with; images are red, green, blue
    net.document      {"source": {"framework", "layout", "file"}, "labels": "imagenet" if it has 1,000 classes}
    net.path          the file

    Raises NumnetError, one line: for a file that is missing, damaged, of no net that numnet knows, or whose tensors do
    not fit; a tensor missing, left over or of the wrong shape is one error that lists them all.
    """
    framework, source = _read(file)
    net, candidate = match(framework, source, model, width, options)
    net.scaling = source.scaling or copy.deepcopy(SCALINGS[candidate.scaling])
    net.class_names, net.path = None, source.path
    net.document = {
        "source": {"framework": source.framework, "layout": candidate.layout, "file": source.path.name},
        "labels": "imagenet" if net.classes == 1000 else None,
    }
    return net


def load_weights(net, file) -> None:
    """Copy all tensors of a file of Keras, PyTorch or PaddleClas, or of a checkpoint, into ``net``: all or none.

    Only numbers are copied: what tensors do not say (ε, padding, activations, the input's scaling) is as the net was
    built; ``import_file`` builds it as published. Raises NumnetError for a file that is missing or damaged, and one
    that lists every tensor missing, left over or of the wrong shape.
    """
    if net.flat is None:
        raise NumnetError(
            "load_weights: this net is a description without arrays; numnet.build makes one that has them"
        )
    if _is_checkpoint(file):
        net.restore(checkpoint.read(file)[0], str(file))
        return
    framework, source = _read(file)
    model = (net.config or {}).get("model")
    layouts = [layout for layout, models in framework.LAYOUTS.items() if model in models]
    if not layouts:
        raise NumnetError(
            f"{file}: {source.framework} has no {model or 'counterpart of a net of one of your own'}, "
            f"expected one of {', '.join(dict.fromkeys(m for models in framework.LAYOUTS.values() for m in models))}"
        )
    try:
        choices = [framework.layout_slots(net, layout) for layout in layouts]
    except NumnetError as error:
        raise NumnetError(f"{file}: {error}") from None
    best = min(choices, key=lambda slots: len(misfits(slots, source.tensors)))
    fill(net, best, source.tensors, source.path)


def _is_checkpoint(file) -> bool:
    try:
        checkpoint.read_meta(file)
    except NumnetError:
        return False
    return True


def _read(file):
    """(the framework's page, the Source) by the file's ending."""
    path = Path(file)
    for framework in FRAMEWORKS.values():
        if path.suffix.lower() in framework.SUFFIXES:
            if not path.is_file():
                raise NumnetError(
                    f"{path}: {'a folder' if path.is_dir() else 'no such file'}, expected weights"
                )
            return framework, framework.read(path)
    endings = ", ".join(suffix for framework in FRAMEWORKS.values() for suffix in framework.SUFFIXES)
    raise NumnetError(f"{path}: an unknown kind of weights, expected a file that ends in {endings}")
