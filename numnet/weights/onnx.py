"""ONNX: a net as a graph that other programs run.

The graph is written out from the layers, node by node, in ONNX's own layout (N, C, H, W); paddings are explicit, so
TensorFlow's asymmetric "same" comes out as it is. Any batch size runs.

    input    "images", float32 (N, 3, H, W), scaled as the net's own input is;
             with ``scaling``: uint8 (N, H, W, 3), pixels as they come, and the graph scales them
    output   "logits", float32 (N, classes); with ``softmax``: "probabilities", each row's sum is 1; "features" of a net
             without classifier, (N, C)
    sides    those of the net; with ``free_sides`` any that its strides have room for: "height" and "width" in the graph
             with ``maps``: behind it the maps of inner layers, each under its layer's name, float32 (N, C, P, Q)

``folded`` multiplies batch norm's running statistics into the convolutions: γ/√(σ²+ε) into the weights, the rest is a
bias, worked out in float64. Opset 17. Configuration, scaling and names of the classes stand in the metadata.
"""

import json
import os
from collections import abc
from typing import Any

import numpy as np

from numnet import checkpoint
from numnet.blocks import Branches, Residual, SqueezeExcite
from numnet.blocks.separable import Sequence
from numnet.blocks.unit import Conv, Depthwise, Pointwise, Unit
from numnet.errors import NumnetError
from numnet.inference.maps import matching
from numnet.kernels.activations import (
    CODES,
    HSIGMOID,
    HSIGMOID02,
    HSWISH,
    IDENTITY,
    RELU,
    RELU6,
    SIGMOID,
    SWISH,
)
from numnet.kernels.padding import resolve
from numnet.layers import Activation, Dense, Dropout, Flatten, GlobalAverage, GlobalMax, MaxPool
from numnet.net import Net
from numnet.weights.source import preset_of

OPSET, IR = 17, 8  # the pair of ONNX 1.12; every later reader knows it
NAMES = {code: name for name, code in CODES.items()}
LUMINANCE = (0.299, 0.587, 0.114)  # as in numnet.data.transforms


def export_onnx(
    net: Net,
    path: str | os.PathLike[str] | None = None,
    *,
    folded: bool = False,
    scaling: dict[str, list[float]] | None = None,
    class_names: abc.Sequence[str] | None = None,
    softmax: bool = False,
    maps: abc.Sequence[str] = (),
    free_sides: bool = False,
) -> Any:
    """The net as an ``onnx.ModelProto`` that passes ONNX's checker; written to ``path`` if one is given.

    ``folded``: batch norm inside the convolutions. ``scaling``: {"mean", "std"} of x/255 to put into the graph, whose
    input then is uint8 (N, H, W, 3). ``class_names``: for the metadata, where "classes" is a list in JSON. ``softmax``:
    probabilities come out, not logits. ``maps``: names or patterns of layers, as ``net.maps`` takes them, whose output
    the graph returns as well. ``free_sides``: images of any height and width run; TensorFlow's padding, which depends on
    them, is then left to the runtime (auto_pad SAME_UPPER, the same numbers). Raises NumnetError for a net that flattens a
    map, whose weights fit one size only, and without the package onnx, for weights that are not finite, for a layer
    that ONNX has no node for here, and for a name in ``maps`` that fits nothing.
    """
    onnx = require_onnx()
    from onnx import helper

    if not (np.isfinite(net.flat).all() and np.isfinite(net.flat_buffers).all()):
        raise NumnetError("export: the net has weights that are not finite numbers")
    if softmax and not net.classes:
        raise NumnetError("export: softmax is for a net with a classifier, this one has none (classes=0)")
    if free_sides:
        _require_free(net)
    graph = Graph(folded, free_sides)
    inner = matching([name for name, _ in net.walk()], maps) if maps else []
    output = "probabilities" if softmax else "logits" if net.classes else "features"
    inner = [name for name in inner if name != output]
    h, w, c = ("height", "width", net.input_shape[2]) if free_sides else net.input_shape
    if scaling is None:
        kind, shape, x = onnx.TensorProto.FLOAT, ["N", c, h, w], "images"
    elif c not in (1, 3):
        raise NumnetError(f"export: scaling is for nets of 1 or 3 channels, this one takes {c}")
    else:
        kind, shape, x = onnx.TensorProto.UINT8, ["N", h, w, 3], graph.scaled("images", scaling, grey=c == 1)
    for layer in net.layers:
        x = graph.add(layer, x, layer.name)
    graph.node("Softmax", x, output=output, axis=1) if softmax else graph.node("Identity", x, output=output)
    outputs = [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, ["N", *net.output_shape])]
    outputs += [graph.map(name, layer.output_shape) for name, layer in net.walk() if name in inner]
    facts = {"config": net.config, "input": scaling or getattr(net, "scaling", None), "classes": class_names}
    facts["preset"] = preset_of(getattr(net, "document", None) or {})
    return write(graph, helper.make_tensor_value_info("images", kind, shape), outputs, facts, path)


def require_onnx():
    """The package onnx. Raises NumnetError, which says how to install it."""
    try:
        import onnx
    except ImportError:
        raise NumnetError(
            'export: .onnx needs the package onnx: pip install "numnet[weights]" or onnx'
        ) from None
    return onnx


def write(graph, images, outputs, facts, path=None):
    """The model of a ``Graph``, checked; ``facts`` go into its metadata as JSON. Written to ``path`` if one is given."""
    onnx = require_onnx()
    from onnx import helper

    name = (facts.get("config") or {}).get("model", "net")
    model = helper.make_model(
        helper.make_graph(graph.nodes, name, [images], outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="numnet",
    )
    helper.set_model_props(
        model, {key: json.dumps(value) for key, value in facts.items() if value is not None}
    )
    onnx.checker.check_model(model, full_check=True)
    if path is not None:
        checkpoint.replace(path, model.SerializeToString())
    return model


class Graph:
    """Nodes and constants, and a method for each kind of layer; names of maps are made from those of the layers."""

    def __init__(self, folded, free=False):
        self.folded, self.free, self.nodes, self.constants, self.count = folded, free, [], [], 0
        self.made = {}  # dotted name of a layer: the name of its output

    def node(self, kind, *inputs, output=None, **attributes):
        """Append a node; the name of its output."""
        from onnx import helper

        self.count += 1
        output = output or f"{kind.lower()}_{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=f"{output}_node", **attributes))
        return output

    def constant(self, name, array, dtype=np.float32):
        """Append an array, or a number, which has no axes (``np.ascontiguousarray`` would give it one); its name."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.array(array, dtype, order="C"), name))
        return name

    def scaled(self, x, scaling, grey=False):
        """Bytes (N, H, W, 3) to the net's input: x/255 less the mean, divided by the deviation; ``grey``: the luminance."""
        mean, std = (np.array(scaling[key], np.float64) for key in ("mean", "std"))
        x = self.node("Transpose", self.node("Cast", x, to=1), perm=[0, 3, 1, 2])
        x = self.node("Mul", x, self.constant("scaling.factor", (1 / (255 * std)).reshape(1, 3, 1, 1)))
        x = self.node("Sub", x, self.constant("scaling.shift", (mean / std).reshape(1, 3, 1, 1)))
        if not grey:
            return x
        weights = self.constant("scaling.luminance", np.array(LUMINANCE).reshape(1, 3, 1, 1))
        return self.node("Conv", x, weights, kernel_shape=[1, 1])

    def map(self, name, shape):
        """Append an output with the map of a layer, whose shape is (P, Q, C) or (C,); ONNX's note of it."""
        from onnx import TensorProto, helper

        if name == "images" or name in [output for node in self.nodes for output in node.output]:
            raise NumnetError(
                f"export: maps: a node of the graph is called {name!r} already; rename the layer"
            )
        self.node("Identity" if len(shape) == 3 else "Flatten", self.made[name], output=name)
        sides = [f"{name}.height", f"{name}.width"] if self.free and len(shape) == 3 else shape[:-1]
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", shape[-1], *sides])

    def activation(self, code, x, beta=1.0):
        """Append the activation of a code."""
        if code == IDENTITY:
            return x
        if code == RELU:
            return self.node("Relu", x)
        if code == RELU6:
            return self.clip(x, 6.0)
        if code in (HSIGMOID, HSIGMOID02):
            # Not HardSigmoid: OpenCV 5.0 takes x · HardSigmoid(c) for HardSwish, whatever c is.
            slope = self.constant(f"{x}.slope", 1 / 6 if code == HSIGMOID else 0.2)
            line = self.node("Add", self.node("Mul", x, slope), self.constant(f"{x}.half", 0.5))
            return self.clip(line, 1.0)
        if code == HSWISH:
            return self.node("HardSwish", x)
        if code == SIGMOID:
            return self.node("Sigmoid", x)
        if code == SWISH:
            inner = x if beta == 1 else self.node("Mul", x, self.constant(f"{x}.beta", beta))
            return self.node("Mul", x, self.node("Sigmoid", inner))
        raise NumnetError(f"export: no ONNX node for the activation {NAMES.get(code, code)}")

    def clip(self, x, most):
        """Append a Clip to 0 … most."""
        return self.node("Clip", x, self.constant(f"{x}.low", 0.0), self.constant(f"{x}.high", most))

    # -------------------------------------------------------------- one kind of layer after another

    def add(self, layer, x, path):
        """Append the nodes of a layer that reads map x; the name of its output, which ``made`` keeps."""
        self.made[path] = self._add(layer, x, path)
        return self.made[path]

    def _add(self, layer, x, path):
        if isinstance(layer, Unit):
            return self.unit(layer, x, path)
        if isinstance(layer, Sequence):  # inverted residuals too
            y = x
            for child in layer.children:
                y = self.add(child, y, f"{path}.{child.name}")
            return self.node("Add", x, y) if isinstance(layer, Residual) and layer.adds else y
        if isinstance(layer, SqueezeExcite):
            return self.squeeze_excite(layer, x, path)
        if isinstance(layer, Branches):
            branches = [self.add(child, x, f"{path}.{child.name}") for child in layer.children]
            return self.node("Concat", *branches, axis=1)
        if isinstance(layer, GlobalAverage):
            pooled = self.node("GlobalAveragePool", x)
            return pooled if layer.keep else self.node("Flatten", pooled)
        if isinstance(layer, GlobalMax):
            return self.node("Flatten", self.node("GlobalMaxPool", x))
        if isinstance(layer, MaxPool):
            frame = {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2}
            if self.free and layer.ceil:
                pads = resolve(layer.padding, layer.input_shape[:2], (layer.kernel,) * 2, layer.stride)
                return self.node("MaxPool", x, pads=_pads(pads), ceil_mode=1, **frame)
            return self.node("MaxPool", x, **self.padding(layer, layer.pads), **frame)
        if isinstance(layer, Flatten) and layer.input_shape[:2] == (1, 1):
            return self.node("Flatten", x)
        if isinstance(layer, Flatten):  # ours flattens (H, W, C)
            return self.node("Flatten", self.node("Transpose", x, perm=[0, 2, 3, 1]))
        if isinstance(layer, Dense):
            inputs = [x, self.constant(f"{path}.weight", layer.params["weight"])]
            if layer.bias:
                inputs.append(self.constant(f"{path}.bias", layer.params["bias"]))
            return self.node("Gemm", *inputs)
        if isinstance(layer, Activation):
            return self.activation(layer.code, x, layer.beta)
        if isinstance(layer, Dropout):
            if not layer.downscale or layer.rate == 0:
                return x
            return self.node("Mul", x, self.constant(f"{path}.kept", 1 - layer.rate))
        raise NumnetError(f"export: no ONNX node for {path}, a layer of kind {layer.kind!r}")

    def unit(self, unit, x, path):
        """Convolution, batch norm (a node, or folded into it) and activation."""
        weight, group = unit.params["weight"], 1
        if isinstance(unit, Depthwise):  # (K, K, C, M) to (C·M, 1, K, K)
            group = weight.shape[2]
            weight = weight.reshape(*weight.shape[:2], 1, -1)
        elif isinstance(unit, Pointwise):
            weight = weight[None, None]
        frame = {"group": group}
        if isinstance(unit, (Conv, Depthwise)):
            weight, pads = (weight, unit.pads) if self.free else _without_idle_taps(weight, unit)
            frame |= {"strides": [unit.stride] * 2, **self.padding(unit, pads)}
        frame["kernel_shape"] = list(weight.shape[:2])
        weight, bias = weight.transpose(3, 2, 0, 1).astype(np.float64), unit.params.get("bias")
        if unit.norm is not None and self.folded:
            gamma, beta, mean, variance = (array.astype(np.float64) for array in _statistics(unit))
            scale = gamma / np.sqrt(variance + unit.norm.eps)
            weight, bias = weight * scale[:, None, None, None], beta - mean * scale
        inputs = [x, self.constant(f"{path}.weight", weight)]
        if bias is not None:
            inputs.append(self.constant(f"{path}.bias", bias))
        y = self.node("Conv", *inputs, **frame)
        if unit.norm is not None and not self.folded:
            names = (f"{path}.bn.{name}" for name in ("gamma", "beta", "mean", "variance"))
            constants = [self.constant(name, array) for name, array in zip(names, _statistics(unit))]
            y = self.node("BatchNormalization", y, *constants, epsilon=unit.norm.eps)
        return self.activation(unit.code, y)

    def padding(self, layer, pads):
        """The attribute that says a window's padding; only TensorFlow's at a stride depends on the image's sides."""
        if self.free and layer.padding == "same" and layer.stride > 1:
            return {"auto_pad": "SAME_UPPER"}
        return {"pads": _pads(pads)}

    def squeeze_excite(self, layer, x, path):
        """Its dense layers as 1×1 convolutions of the pooled map."""
        gates = self.node("GlobalAveragePool", x)
        self.made[f"{path}.{layer.children[0].name}"] = gates
        for child in layer.children[1:]:
            if isinstance(child, Dense):
                weight = self.constant(
                    f"{path}.{child.name}.weight", child.params["weight"].T[:, :, None, None]
                )
                bias = self.constant(f"{path}.{child.name}.bias", child.params["bias"])
                gates = self.node("Conv", gates, weight, bias, kernel_shape=[1, 1])  # OpenCV asks for it
            else:
                gates = self.activation(child.code, gates, child.beta)
            self.made[f"{path}.{child.name}"] = gates
        return self.node("Mul", x, gates)


def _require_free(net):
    """Raise NumnetError for a net whose weights fit one size of image only."""
    kinds = [layer.kind for layer in net.layers]
    pools = [place for place, kind in enumerate(kinds) if kind in ("global average", "global max")]
    if "flatten" in kinds and kinds.index("flatten") < min(pools, default=len(kinds)):
        h, w = net.input_shape[:2]
        raise NumnetError(
            f"export: free sides: this net flattens its last map, so its weights are for images of {h}×{w} only"
        )


def _statistics(unit):
    return (
        unit.params["bn.gamma"],
        unit.params["bn.beta"],
        unit.buffers["bn.mean"],
        unit.buffers["bn.variance"],
    )


def _without_idle_taps(weight, unit):
    """(weight, pads) without the taps that see nothing but padding, where the map is smaller than the kernel.

    The products are the same; OpenCV 4 computes a depthwise 3×3 on a map of one pixel wrongly.
    """
    cuts, pads = [], []
    for axis, (before, after) in enumerate(unit.pads):
        size, kernel, outputs = unit.input_shape[axis], weight.shape[axis], unit.output_shape[axis]
        starts = [p * unit.stride - before for p in range(outputs)]
        busy = [tap for tap in range(kernel) if any(0 <= start + tap < size for start in starts)]
        first, last = busy[0], busy[-1]
        cuts.append(slice(first, last + 1))
        pads.append((before - first, after - (kernel - 1 - last)))
    if min(min(pad) for pad in pads) < 0:
        return weight, unit.pads
    return weight[tuple(cuts)], pads


def _pads(pads):
    (top, bottom), (left, right) = pads
    return [top, left, bottom, right]
