"""Keras Applications: legacy ``.h5`` (Keras 2 and 3), ``.weights.h5`` and ``.keras``.

Two ways to name a layer. Keras Applications gives names ("conv_dw_1", "block_3_expand"), and so do their files. A
model whose author gave none has Keras's own ("conv2d_7"), counted a class at a time in the order of the layers, which
in these nets is the order of computation: that is the layout "order", and the only one for the article's MnasNet.

    .h5          /model_weights (or /) with attribute layer_names; a group a layer with attribute weight_names
    .weights.h5  /layers/<class and number>/vars/<number>, the layer's name in an attribute of vars
    .keras       a zip of such a file, of config.json and of metadata.json

Read as data, by a process of its own (``hdf5``): configurations as JSON, nothing in them is rebuilt or run; links in the
file lead nowhere.
"""

import json
import re
from collections import Counter
from importlib.util import find_spec

from numnet.errors import NumnetError
from numnet.weights import hdf5, heads
from numnet.weights.slots import Name, Style, slots
from numnet.weights.source import Candidate, Source

SUFFIXES = (".h5", ".hdf5", ".keras")
STYLE = Style(
    words={
        "weight": "kernel",
        "bias": "bias",
        "bn.gamma": "gamma",
        "bn.beta": "beta",
        "bn.mean": "moving_mean",
        "bn.variance": "moving_variance",
    },
    separator="/",
    conv=(0, 1, 2, 3),
    dense=(0, 1, 2, 3),
    own_depthwise=True,
)
NORM = ("gamma", "beta", "moving_mean", "moving_variance")  # in the order of .weights.h5
KERNEL = ("kernel", "bias")
AUTOMATIC = re.compile(r"(conv2d|depthwise_conv2d|batch_normalization|dense)(_\d+)?")
PARTS = {"depthwise": "dw", "pointwise": "pw", "project": "pw"}  # of V1; a project is a pointwise with a skip


# ------------------------------------------------------------------------------------------- names


def _mobilenet_v1(net):
    names = {"stem": Name("conv1", "conv1_bn"), "logits": Name("conv_preds")}
    for path, _ in net.walk():
        block, _, part = path.partition(".")
        if part in PARTS:
            name = f"conv_{PARTS[part]}_{block.removeprefix('block')}"
            names[path] = Name(name, f"{name}_bn")
    return names


def _inverted(net, first, later):
    """Names of the parts of all blocks; ``first``: the first block's prefix, ``later``: that of others by number."""
    names = {}
    for path, layer in net.walk():
        block, _, part = path.partition(".")
        if not part or not layer.specs:
            continue
        number = int(block.removeprefix("block")) - 1
        prefix = f"{later}{number}" if number else first
        if part.startswith("se."):
            names[path] = Name(f"{prefix}_squeeze_excite_conv" + ("_1" if part == "se.expand" else ""))
        else:
            names[path] = Name(f"{prefix}_{part}", f"{prefix}_{part}_bn")
    return names


def _mobilenet_v2(net):
    ends = {"stem": Name("conv1", "bn_conv1"), "last": Name("conv_1", "conv_1_bn")}
    return _inverted(net, "expanded_conv", "block_") | ends | {"logits": Name("predictions", rank=2)}


def _mobilenet_v3(net):
    ends = {"stem": Name("conv", "conv_bn"), "last": Name("conv_1", "conv_1_bn")}
    heads = {"wide": Name("conv_2"), "logits": Name("logits")}
    return _inverted(net, "expanded_conv", "expanded_conv_") | ends | heads


def _vgg16(net):
    names = {"hidden1": "fc1", "hidden2": "fc2", "logits": "predictions"}
    names = {path: Name(name, rank=2) for path, name in names.items()}
    for layer in net.layers:
        if layer.kind == "conv":
            stage, number = layer.name.removeprefix("conv").split("_")
            names[layer.name] = Name(f"block{stage}_conv{number}")
    return names


V3 = tuple(f"mobilenet_v3_{size}{end}" for size in ("large", "small") for end in ("", "_minimalistic"))
NAMES = {
    "mobilenet_v1": _mobilenet_v1,
    "mobilenet_v2": _mobilenet_v2,
    **dict.fromkeys(V3, _mobilenet_v3),
    "vgg16": _vgg16,
}


def _ordered(net):
    """Keras's own names: the class, and how many of it stood before."""
    model = net.config["model"]
    named = NAMES[model](net) if model in NAMES else {"logits": Name("", rank=2)}
    counts, names = Counter(), {}

    def next_of(kind):
        counts[kind] += 1
        return _automatic(kind, counts[kind] - 1)

    for path, layer in net.walk():
        if layer.specs:
            rank = named.get(path, Name("")).rank
            kind = "dense" if rank == 2 else "depthwise_conv2d" if layer.kind == "depthwise" else "conv2d"
            norm = next_of("batch_normalization") if "bn.gamma" in layer.specs else None
            names[path] = Name(next_of(kind), norm, rank)
    return names


def _automatic(kind, number):
    return f"{kind}_{number}" if number else kind


def layout_slots(net, layout: str):
    """The net's slots under the names of Keras Applications ("names") or under Keras's own ("order")."""
    model = net.config["model"]
    return slots(net, _ordered(net) if layout == "order" else NAMES[model](net), STYLE)


LAYOUTS = {"names": tuple(NAMES), "order": (*NAMES, "mnasnet_keras")}
MOMENTUM = {
    "mobilenet_v1": 0.99,
    "mobilenet_v2": 0.999,
    **dict.fromkeys(V3, 0.999),
}


def candidates():
    """The nets that a file may hold."""
    for layout, models in LAYOUTS.items():
        for model in models:
            options = {"variant": "keras", "padding": "same"}
            if model in MOMENTUM:
                options["bn_momentum"] = MOMENTUM[model]
            scaling = {"vgg16": "caffe", "mnasnet_keras": "unit"}.get(model, "keras")
            yield Candidate(layout, model, options, scaling, bgr=model == "vgg16")


# ------------------------------------------------------------------------------------------- files


def read(path) -> Source:
    """The tensors as "layer/leaf", and the ε, momentum and resolution that a configuration states. Raises NumnetError."""
    if find_spec("h5py") is None:
        raise NumnetError(f'{path}: reading {path.suffix} needs h5py: pip install "numnet[weights]" or h5py')
    if not path.is_file():
        raise NumnetError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}, expected a Keras file")
    try:
        arrays, texts = hdf5.read(path)
        root = "model_weights/" if "layer_names" in texts.get("model_weights", {}) else ""
        legacy = "layer_names" in texts[root.rstrip("/")]
        layers = list(_legacy(arrays, texts, root) if legacy else _numbered(arrays, texts))
    except OSError as error:
        raise NumnetError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a damaged file may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NumnetError(f"{path}: damaged, or no Keras file ({reason})") from None
    told = _layers_of(texts[""].get("model_config"))
    return Source(
        "keras", path, _canonical(layers), _stated(told), scaling=_rescaled(told),
        pools=frozenset(POOLS[layer["class"]] for layer in told if layer["class"] in POOLS),
        dense=tuple(_activation(layer) for layer in told if layer["class"] == "Dense"),
    )  # fmt: skip


POOLS = {
    "GlobalAveragePooling2D": "global average", "GlobalMaxPooling2D": "global max", "Flatten": "flatten",
}  # fmt: skip
NESTED = ("Functional", "Model", "Sequential")


def _layers_of(config) -> list[dict]:
    """The layers that a configuration names, those of models within the model in their place; empty without one."""
    found = []

    def visit(layers, depth):
        for layer in layers:
            own = layer["config"]
            if layer["class_name"] in NESTED and depth < 8:
                visit(own["layers"], depth + 1)
            else:
                found.append({**own, "class": layer["class_name"]})

    try:
        visit(json.loads(config)["config"]["layers"], 0)
    except (TypeError, KeyError, ValueError, AttributeError, RecursionError):
        return []
    return found


def _activation(layer) -> str | None:
    """The name of a dense layer's activation; Keras 3 may write it as an object."""
    said = layer.get("activation")
    if isinstance(said, dict):
        said = said.get("config") if isinstance(said.get("config"), str) else said.get("class_name")
    return str(said).lower() if said is not None else "linear"


def _rescaled(layers) -> dict | None:
    """The scaling of x/255 that the model does itself, by one layer x·scale + offset on pixels from 0 to 255."""
    own = [layer for layer in layers if layer["class"] == "Rescaling"]
    if len(own) != 1:
        return None
    scale, offset = own[0].get("scale"), own[0].get("offset", 0.0)
    if (
        not all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in (scale, offset))
        or not scale > 0
    ):
        return None
    std = 1 / (255 * scale)
    return {"mean": [-offset * std] * 3, "std": [std] * 3}


def dense_layers(source, rest):
    """What is left of a file as dense layers in its order; None if it is not that alone."""
    layers = {}
    for key, array in rest.items():
        name, _, leaf = key.rpartition("/")
        layers.setdefault(name, {})[leaf] = array
    for each in layers.values():
        if not set(each) <= {"kernel", "bias"} or "kernel" not in each or each["kernel"].ndim != 2:
            return None
    said = source.dense[-len(layers) :] if len(source.dense) >= len(layers) else (None,) * len(layers)
    return [
        heads.DenseLayer(name, each["kernel"], each.get("bias"), activation)
        for (name, each), activation in zip(layers.items(), said)
    ]


def _legacy(arrays, texts, root):
    """(layer, leaf, array) of a legacy file, in the order of its layers. ``root``: the path of the group of layers."""
    for layer in texts[root.rstrip("/")]["layer_names"]:
        weights = texts.get(root + layer, {}).get("weight_names", ())
        inner = {weight.rpartition("/")[0] for weight in weights}  # several in a model within the model
        for weight in weights:
            prefix, _, leaf = weight.rpartition("/")
            array = arrays.get(f"{root}{layer}/{weight}")
            if array is not None:
                leaf = leaf.partition(":")[0].removeprefix("depthwise_")
                yield (prefix if len(inner) > 1 else layer), leaf, array


def _numbered(arrays, texts):
    """(layer, leaf, array) of a .weights.h5, each class in the order of its numbers."""

    def place(path):
        own = path.split("/")[-3]
        kind, _, number = own.rpartition("_")
        return (kind, int(number)) if number.isdecimal() else (own, 0)

    inside = [path for path in arrays if re.fullmatch(r"(layers/[^/]+/)+vars/\d+", path)]
    for path in sorted(inside, key=lambda path: (*place(path), int(path.rpartition("/")[2]))):
        *_, layer, _, number = path.split("/")  # the last of several: a layer in a model within the model
        leaves = NORM if layer.startswith("batch_normalization") else KERNEL
        leaf = leaves[int(number)] if int(number) < len(leaves) else number
        name = texts[path.rpartition("/")[0]].get("name", layer)
        yield (layer if AUTOMATIC.fullmatch(name) else name), leaf, arrays[path]
    for path in arrays:  # what this page does not understand will be listed as left over
        if path not in inside and not re.search(r"(^|/)(optimizer|seed_generator)(/|$)", path):
            yield path, "", arrays[path]


def _canonical(layers) -> dict:
    """ "layer/leaf" -> array: layers' names as Keras 3 spells them, in lower case, automatic ones counted from 0."""
    tensors, numbers, counts = {}, {}, Counter()
    for layer, leaf, array in layers:
        automatic = AUTOMATIC.fullmatch(layer)
        if automatic:
            if layer not in numbers:
                kind = automatic[1]
                numbers[layer] = _automatic(kind, counts[kind])
                counts[kind] += 1
            layer = numbers[layer]
        else:  # Keras 2 wrote "expanded_conv_1/squeeze_excite/Conv" and "Conv/BatchNorm" in V3
            layer = layer.replace("/", "_").lower().replace("batchnorm", "bn")
        tensors[f"{layer}/{leaf}"] = array
    return tensors


def _stated(layers) -> dict:
    """Keywords of numnet.build that a model's configuration states: ε and momentum if all layers agree, resolution."""
    norms = [layer for layer in layers if layer["class"] == "BatchNormalization"]
    inputs = [layer for layer in layers if layer["class"] == "InputLayer"]
    shape = [layer.get("batch_shape") or layer.get("batch_input_shape") for layer in inputs][:1]
    stated = {}
    for key, ours in (("epsilon", "bn_eps"), ("momentum", "bn_momentum")):
        values = {layer.get(key) for layer in norms if isinstance(layer.get(key), float)}
        if len(values) == 1 and 0 < (value := values.pop()) < 1:
            stated[ours] = value
    if shape and isinstance(shape[0], list) and len(shape[0]) == 4:
        _, height, width, _ = shape[0]
        if isinstance(height, int) and height == width and 0 < height <= 4096:
            stated["resolution"] = height
    return stated
