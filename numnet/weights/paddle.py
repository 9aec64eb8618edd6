"""PaddleClas: ``.pdparams``, a pickled dictionary from names to arrays, read without executing anything.

Its conventions are the variant "paddle" (see the models' pages): ε 1e-5, padding K//2 on both sides, dense weights
(inputs, outputs). VGG16 there has convolutions without bias, and its dropout halves in inference instead of doubling
in training: zeros here, and halves of the weights that read the halved numbers.
"""

import numpy as np

from numnet import pickles
from numnet.errors import NumnetError
from numnet.models import mobilenet_v2
from numnet.weights.slots import Name, Style, slots
from numnet.weights.source import Candidate, Source

SUFFIXES = (".pdparams",)
STYLE = Style(
    words={
        "weight": "weight",
        "bias": "bias",
        "bn.gamma": "weight",
        "bn.beta": "bias",
        "bn.mean": "_mean",
        "bn.variance": "_variance",
    },
    separator=".",
    conv=(3, 2, 0, 1),
    dense=(2, 0, 1, 3),
)
TABLE = "StructuredToParameterName@@"  # Paddle's own bookkeeping in the dictionary
PARTS = {"expand": "expand", "depthwise": "bottleneck", "project": "linear"}


def _blocks(net):
    return [layer for layer in net.layers if layer.name.startswith("block")]


def _mobilenet_v1(net):
    names = {"stem": Name("conv.conv", "conv.bn"), "logits": Name("fc", rank=2)}
    for i, block in enumerate(_blocks(net)):
        for part, theirs in (
            ("depthwise", "depthwise"),
            ("pointwise", "pointwise"),
            ("project", "pointwise"),
        ):
            prefix = f"blocks.{i}.{theirs}_conv."
            names[f"{block.name}.{part}"] = Name(prefix + "conv", prefix + "bn")
    return names


def _mobilenet_v2(net):
    names, blocks = {"stem": Name("conv1._conv", "conv1._batch_norm")}, iter(_blocks(net))
    for stage, row in enumerate(mobilenet_v2.table(net.config.get("rows")), start=2):
        for i in range(1, row.n + 1):
            block, prefix = next(blocks), f"conv{stage}." + ("_first_block" if i == 1 else f"conv{stage}_{i}")
            for part, theirs in PARTS.items():
                unit = f"{prefix}._{theirs}_conv."
                names[f"{block.name}.{part}"] = Name(unit + "_conv", unit + "_batch_norm")
    return names | {"last": Name("conv9._conv", "conv9._batch_norm"), "logits": Name("out", rank=2)}


def _mobilenet_v3(net):
    names = {
        "stem": Name("conv.conv", "conv.bn"),
        "last": Name("last_second_conv.conv", "last_second_conv.bn"),
    }
    for i, block in enumerate(_blocks(net)):
        for part, theirs in PARTS.items():
            prefix = f"blocks.{i}.{theirs}_conv."
            names[f"{block.name}.{part}"] = Name(prefix + "conv", prefix + "bn")
        names[f"{block.name}.se.reduce"] = Name(f"blocks.{i}.mid_se.conv1")
        names[f"{block.name}.se.expand"] = Name(f"blocks.{i}.mid_se.conv2")
    return names | {"wide": Name("last_conv"), "logits": Name("fc", rank=2)}


def _vgg16(net):
    names = {"hidden1": "fc1", "hidden2": "fc2", "logits": "fc3"}
    names = {path: Name(name, rank=2) for path, name in names.items()}
    for layer in net.layers:
        if layer.kind == "conv":
            stage, number = layer.name.removeprefix("conv").split("_")
            names[layer.name] = Name(f"conv_block_{stage}.conv{number}")
    return names


NAMES = {
    "mobilenet_v1": _mobilenet_v1,
    "mobilenet_v2": _mobilenet_v2,
    "mobilenet_v3_large": _mobilenet_v3,
    "mobilenet_v3_small": _mobilenet_v3,
    "vgg16": _vgg16,
}
LAYOUTS = {"paddleclas": tuple(NAMES)}


def layout_slots(net, layout: str):
    """The net's slots under PaddleClas's names."""
    return slots(net, NAMES[net.config["model"]](net), STYLE)


def dense_layers(source, rest):
    """PaddleClas writes no heads of one's own."""
    return None


def candidates():
    """The nets that a file may hold."""
    for model in NAMES:
        yield Candidate("paddleclas", model, {"variant": "paddle", "padding": "symmetric"}, "imagenet")


def read(path) -> Source:
    """The arrays of the dictionary. Raises NumnetError for anything but a dictionary of arrays."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NumnetError(f"{path}: cannot be read ({error.strerror or error})") from None
    try:
        table = pickles.load(content)
    except Exception as error:  # a damaged pickle may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NumnetError(f"{path}: cannot be read as PaddleClas's parameters ({reason})") from None
    if not isinstance(table, dict):
        raise NumnetError(f"{path}: holds no dictionary of arrays, which .pdparams is")
    tensors = {}
    for name, value in table.items():
        if name == TABLE:
            continue
        if isinstance(value, tuple) and len(value) == 2:  # (Paddle's own name, array)
            value = value[1]
        array = value.array() if isinstance(value, pickles.Array) else None
        if array is None:
            raise NumnetError(f"{path}: {str(name)[:80]!r} is no array of numbers")
        tensors[str(name)] = array
    return Source("paddle", path, _vgg16_as_ours(tensors))


def _vgg16_as_ours(tensors) -> dict:
    """VGG16's tensors with the biases that it lacks and the halves that its dropout takes; others as they are."""
    if "conv_block_1.conv1.weight" not in tensors:
        return tensors
    more = {}
    for name, array in tensors.items():
        bias = name.removesuffix("weight") + "bias"
        if (
            name.startswith("conv_block_")
            and name.endswith(".weight")
            and bias not in tensors
            and array.ndim == 4
        ):
            more[bias] = np.zeros(len(array), np.float32)
        elif name in ("fc2.weight", "fc3.weight") and array.dtype.kind == "f":
            more[name] = array * array.dtype.type(0.5)
    return tensors | more
