"""Where each tensor of a net stands in another framework's file, and how its axes turn on the way.

A framework is a table of names, one for each layer that has parameters, and a ``Style``: its words for weight, bias
and batch norm, and its order of axes. Every kernel, also the 1×1 of a pointwise convolution and the matrix of a dense
layer, is seen as (K, K, inputs of a filter, filters); then one transposition serves all. Moving is a copy of numbers:
no bit changes.

    ours        conv (K,K,C,F)   depthwise (K,K,C,M)   pointwise (C,F)   dense (C,F), after Flatten (H·W·C,F)
    Keras       the same         the same              (1,1,C,F)         the same
    PyTorch     (F,C,K,K)        (C·M,1,K,K)           (F,C,1,1)         (F,C), after Flatten (F,C·H·W)
    Paddle      (F,C,K,K)        (C·M,1,K,K)           (F,C,1,1)         (C,F), after Flatten (C·H·W,F)
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from numnet.errors import NumnetError


class Name(NamedTuple):
    """What a framework calls a layer: its convolution or dense layer, its batch norm, and the rank of its weight."""

    weight: str
    norm: str | None = None
    rank: int = 4


class Style(NamedTuple):
    """A framework's words (our leaf -> its leaf), its separator, and its order of (K, K, inputs, filters)."""

    words: dict
    separator: str
    conv: tuple
    dense: tuple  # of a weight of rank 2, before the first three axes or the last three become one
    own_depthwise: bool = False  # (K, K, C, M) as ours


class Slot(NamedTuple):
    """One tensor here and there."""

    own: str  # name in Net.state()
    own_shape: tuple
    key: str  # name in the file
    shape: tuple  # in the file
    kernel: tuple | None = None  # our array seen as (K, K, inputs of a filter, filters); None for vectors
    order: tuple | None = None  # of those axes in the file

    def take(self, array):
        """Our array from the file's."""
        if self.kernel is None:
            return array
        turned = array.reshape([self.kernel[axis] for axis in self.order])
        return turned.transpose(np.argsort(self.order)).reshape(self.own_shape)

    def give(self, array):
        """The file's array from ours."""
        if self.kernel is None:
            return array
        return np.ascontiguousarray(array.reshape(self.kernel).transpose(self.order)).reshape(self.shape)


def slots(net, names: dict, style: Style) -> list[Slot]:
    """A slot for every parameter and buffer of the net. ``names``: dotted name of a layer -> Name.

    Raises NumnetError for a layer without a name: the framework's net of this kind has none there.
    """
    flattened = {
        path: before.input_shape
        for (_, before), (path, _) in pairwise((p, layer) for p, layer in net.walk() if not layer.children)
        if before.kind == "flatten"
    }
    found = []
    for path, layer in net.walk():
        if layer.specs and path not in names:
            raise NumnetError(
                f"the layer {path} ({layer.kind}) of {net.config['model']} has no counterpart in this framework's net"
            )
        for leaf, spec in layer.specs.items():
            name, own, word = names[path], f"params/{path}.{leaf}", style.words[leaf]
            if leaf != "weight":
                prefix = name.norm if leaf.startswith("bn.") else name.weight
                found.append(Slot(own, spec.shape, prefix + style.separator + word, spec.shape))
                continue
            kernel = _kernel(spec, flattened.get(path))
            order = style.conv if name.rank == 4 else style.dense
            turned = tuple(kernel[axis] for axis in order)
            if style.own_depthwise and spec.role == "depthwise":
                turned = spec.shape
            if name.rank == 2:
                first = order.index(3) == 0  # filters come first
                inputs = int(np.prod(kernel[:3]))
                turned = (kernel[3], inputs) if first else (inputs, kernel[3])
            found.append(Slot(own, spec.shape, name.weight + style.separator + word, turned, kernel, order))
        for leaf, shape in layer.buffer_specs.items():
            key = names[path].norm + style.separator + style.words[leaf]
            found.append(Slot(f"buffers/{path}.{leaf}", shape, key, shape))
    return found


def _kernel(spec, flattened):
    """The shape of a weight as (K, K, inputs of a filter, filters)."""
    if spec.role == "depthwise":
        k, _, c, m = spec.shape
        return (k, k, 1, c * m)
    if len(spec.shape) == 4:
        return spec.shape
    c, f = spec.shape
    return (*(flattened or (1, 1, c)), f)


def misfits(slots, tensors: dict) -> list[str]:
    """What of the file is missing, left over, of the wrong shape or of no floats: a text each, in order."""
    wrong, known = [], set()
    for slot in slots:
        known.add(slot.key)
        array = tensors.get(slot.key)
        if array is None:
            wrong.append(f"{slot.key} is missing")
        elif array.shape != slot.shape:
            wrong.append(f"{slot.key} has shape {array.shape}, expected {slot.shape}")
        elif array.dtype.kind != "f":
            wrong.append(f"{slot.key} has type {array.dtype}, expected floats")
    return wrong + [f"{key} is left over" for key in tensors if key not in known]


def fill(net, slots, tensors: dict, where) -> None:
    """Copy the file's tensors into the net: all of them, or none and NumnetError."""
    wrong = misfits(slots, tensors)
    if not wrong:
        wrong = [
            f"{s.key} has numbers that are not finite" for s in slots if not np.isfinite(tensors[s.key]).all()
        ]
    if wrong:
        refuse(where, net, wrong)
    state = net.state()
    for slot in slots:
        state[slot.own][...] = slot.take(tensors[slot.key])


MOST = 8  # complaints in one line


def refuse(where, net, wrong):
    """Raise the NumnetError that says what is wrong: the first of it, and how much more."""
    config = net.config or {}
    width = f" of width {config['width']:g}" if isinstance(config.get("width"), (int, float)) else ""
    raise NumnetError(f"{where} does not fit {config.get('model', 'the net')}{width}: {listed(wrong)}")


def listed(wrong) -> str:
    """The first complaints of each kind, at most MOST, and how many more."""
    shown = [
        text for kind in ("shape", "type", "missing", "left over", "finite") for text in _few(wrong, kind)
    ][:MOST]
    more = len(wrong) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")


def _few(wrong, kind, most=3):
    known = ("has shape", "has type", "is missing", "is left over", "not finite")
    word = next(words for words in known if kind in words)
    return [text for text in wrong if word in text][:most]
