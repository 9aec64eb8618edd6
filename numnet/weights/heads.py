"""Files without the net's last layers, or with other ones: the start of a training, or a custom net.

``include_top=False`` in Keras, ``num_classes=0`` in timm: all up to the pooling is there. A custom head is a chain of
dense layers after the pooling; it becomes the net's option ``head``. Where something else stands there (batch norm, a
flattened map), or nothing, the last layer is new, and the net says which of its layers are untrained.
"""

from typing import NamedTuple

import numpy as np

from numnet.errors import NumnetError
from numnet.models import build, describe
from numnet.weights.slots import fill, misfits

POOLS = ("global average", "global max")
MOST = 8  # tensors of a head that are listed; layers that it may have
ACTIVATIONS = {
    "linear": "identity", "relu": "relu", "relu6": "relu6", "sigmoid": "sigmoid", "swish": "swish", "silu": "swish",
    "hard_swish": "hswish", "hard_silu": "hswish",
}  # fmt: skip


class DenseLayer(NamedTuple):
    """A dense layer of a file: its name there, kernel (C, F), bias (F,) or None, activation's name or None if not said."""

    name: str
    kernel: np.ndarray
    bias: np.ndarray | None
    activation: str | None = None


def match_body(framework, source, candidate, keywords):
    """(net, its untrained layers, lines for the user) if all up to the pooling fits; else None."""
    given = keywords.get("head")
    keywords = {key: value for key, value in keywords.items() if key not in ("head", "model")}
    described = describe(candidate.model, **keywords)
    kinds = [layer.kind for layer in described.layers]
    pool = next((i for i, kind in enumerate(kinds) if kind in POOLS), None)
    if pool is None:
        return None
    after = {layer.name for layer in described.layers[pool:]}
    slots = framework.layout_slots(described, candidate.layout)
    body = [slot for slot in slots if slot.own.partition("/")[2].split(".")[0] not in after]
    if any(not text.endswith("is left over") for text in misfits(body, source.tensors)):
        return None
    known = {slot.key for slot in body}
    rest = {key: array for key, array in source.tensors.items() if key not in known}
    channels = described.layers[pool].output_shape[-1]
    chain = framework.dense_layers(source, rest)
    if rest and not _begins(rest, channels):
        return None
    layers = _chain(chain, channels) if chain else None
    usable = layers and all(ACTIVATIONS.get(layer.activation or "relu") for layer in layers[:-1])
    if usable and source.pools <= {"global average"}:
        return _whole(source, candidate, keywords, body, layers, given)
    return _start(source, candidate, keywords, body, rest)


def _begins(rest, channels) -> bool:
    """Whether these may be a head: few layers, and a matrix that reads the pooled or the flattened map."""
    layers = {key.rpartition("." if "." in key else "/")[0] for key in rest}
    matrices = [array for array in rest.values() if array.ndim == 2]
    reads = any(n % channels == 0 for array in matrices for n in array.shape)
    return len(layers) <= MOST and reads and all(array.ndim <= 2 for array in rest.values())


def _chain(layers, channels):
    """The dense layers in order, if each reads what the one before it gives; else None."""
    for layer in layers:
        if layer.kernel.shape[0] != channels or (
            layer.bias is not None and layer.bias.shape != layer.kernel.shape[1:]
        ):
            return None
        channels = layer.kernel.shape[1]
    return layers


def _whole(source, candidate, keywords, body, layers, given):
    *hidden, last = layers
    notes, rows = [], []
    for number, layer in enumerate(hidden):
        activation = ACTIVATIONS.get(layer.activation or "relu")
        if isinstance(given, (list, tuple)) and number < len(given):
            activation = given[number][1]
        elif layer.activation is None:
            notes.append(
                f"nothing says the activation after {layer.name}: took relu; --set head=… names another"
            )
        rows.append([layer.kernel.shape[1], activation])
    kernel, bias = (
        last.kernel,
        last.bias if last.bias is not None else np.zeros(last.kernel.shape[1], np.float32),
    )
    if kernel.shape[1] == 1:  # softmax of (0, z) is the sigmoid of z
        kernel = np.concatenate([np.zeros_like(kernel), kernel], axis=1)
        bias = np.concatenate([np.zeros_like(bias), bias])
        notes.append("its single output, a sigmoid, became two classes: 0 and 1")
    elif last.activation == "sigmoid":
        notes.append("its outputs were sigmoids, each by itself; here they are one softmax")
    net = build(candidate.model, **{**keywords, "head": rows, "classes": kernel.shape[1]})
    _fill(net, body, source)
    for layer, name in zip(hidden, (f"hidden{i}" for i in range(1, len(hidden) + 1))):
        net.params[f"{name}.weight"][...] = layer.kernel
        net.params[f"{name}.bias"][...] = 0 if layer.bias is None else layer.bias
    net.params["logits.weight"][...], net.params["logits.bias"][...] = kernel, bias
    if not np.isfinite(net.flat).all():
        raise NumnetError(f"{source.path}: its dense layers have numbers that are not finite")
    names = ", ".join(layer.name for layer in layers)
    notes.insert(0, f"a custom head after the pooling: {names}")
    return net, [], notes


def _start(source, candidate, keywords, body, rest):
    own = {**keywords, "head": []} if candidate.model.startswith("mobilenet_v3") else keywords
    net = build(candidate.model, **own)
    _fill(net, body, source)
    untrained = [
        layer.name for layer in net.layers if f"{layer.name}.weight" in net.params and _late(net, layer)
    ]
    what = "without its last layers" if not rest else "with a head that numnet has no layers for"
    notes = [
        f"a net {what}: {', '.join(untrained)} is untrained; use `numnet train DATASET --init`, or net.features"
    ]
    if rest:
        some = ", ".join(list(rest)[:MOST]) + (", …" if len(rest) > MOST else "")
        notes.append(f"left out {len(rest)} tensors after the pooling ({some})")
    return net, untrained, notes


def _late(net, layer):
    kinds = [each.kind for each in net.layers]
    return net.layers.index(layer) > next(i for i, kind in enumerate(kinds) if kind in POOLS)


def _fill(net, body, source):
    """The body's tensors, all or none; the slots' own names are the same whatever head the net has."""
    fill(net, body, {slot.key: source.tensors[slot.key] for slot in body}, source.path)
