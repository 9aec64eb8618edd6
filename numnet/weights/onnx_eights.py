"""ONNX: a net in eight bits as a graph in QDQ form, which other programs run on whole numbers too.

QDQ writes a layer as it is in real numbers, and around it what makes them whole: DequantizeLinear before, QuantizeLinear
behind. A program that knows the pattern, as ONNX Runtime does, takes the group for one operation on integers.

    input    "images", float32 (N, 3, H, W), scaled as the net's own input is;
             with ``scaling``: uint8 (N, H, W, 3), pixels as they come, and the graph scales them
    output   "logits", float32 (N, classes); with ``softmax``: "probabilities"
             with ``maps``: behind it the map of every step, int8 (N, C, P, Q) or (N, C), under its step's name

Maps are int8 here, our numbers less 128, and so are weights: signed times signed. (Of unsigned times signed, ONNX Runtime
adds pairs of products in 16 bits on x86 processors without VNNI, which saturates: 255 · 127 · 2 is more than 32,767.) With
``unsigned`` maps are our bytes as they are. ONNX Runtime 1.32 on x86 turns most signed maps into unsigned ones by itself, but
not those with two readers, and computes a layer between the two kinds in floats. So unsigned is the faster form there, and
safe where there is VNNI. Relu and relu6 are nodes only where the ends of the range do not cut at their places. Opset 17.
"""

import numpy as np

from numnet.errors import NumnetError
from numnet.kernels.activations import IDENTITY
from numnet.quantised.steps import SUMS
from numnet.weights.onnx import Graph, require_onnx, write
from numnet.weights.source import preset_of

OFFSET = 128  # between our bytes and int8
OWN_NAMES = ("images", "input", "logits", "probabilities")  # the graph's; a step called so gets another name


def export_quantised(
    net, path=None, *, scaling=None, class_names=None, softmax=False, maps=False, unsigned=False
):
    """The ``QuantisedNet`` as an ``onnx.ModelProto`` that passes ONNX's checker; written to ``path`` if one is given.

    Arguments as those of ``export_onnx``; ``maps``: True for the maps of all steps as well; ``unsigned``: maps of
    uint8. Raises NumnetError without the package onnx, and for a net with weights that int8 does not hold (an imported one
    with zero points of weights).
    """
    onnx = require_onnx()
    from onnx import helper

    graph, (h, w, c) = _Graph(unsigned), net.input_shape
    if scaling is None:
        kind, shape, x = onnx.TensorProto.FLOAT, ["N", c, h, w], "images"
    elif c not in (1, 3):
        raise NumnetError(f"export: scaling is for nets of 1 or 3 channels, this one takes {c}")
    else:
        kind, shape, x = onnx.TensorProto.UINT8, ["N", h, w, 3], graph.scaled("images", scaling, grey=c == 1)
    names = [graph.quantise("input", x, net.grid)]
    for number, step in enumerate(net.steps):
        names.append(graph.step(step, net, names, number))
    end = names[-1] if net.steps[-1].grid is None else graph.real(names[-1], net.steps[-1].grid)
    output = "probabilities" if softmax else "logits"
    end = graph.node("Softmax", end, axis=1) if softmax else end
    graph.node("Identity", end, output=output)
    outputs = [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, ["N", net.classes])]
    if maps:
        whole = onnx.TensorProto.UINT8 if unsigned else onnx.TensorProto.INT8
        for step, name in zip(net.steps, names[1:]):
            if step.grid is not None:
                shape_ = ["N", step.shape[-1], *step.shape[:-1]]
                outputs.append(helper.make_tensor_value_info(name, whole, shape_))
    facts = {"config": net.config, "input": scaling or net.scaling, "classes": class_names}
    facts["preset"] = preset_of(net.document or {})
    return write(graph, helper.make_tensor_value_info("images", kind, shape), outputs, facts, path)


class _Graph(Graph):
    """Nodes of steps. A map of whole numbers is named like its step; ``real`` gives the name of what it stands for."""

    def __init__(self, unsigned):
        super().__init__(False)
        self.unsigned, self.reals = unsigned, {}

    def grid(self, name, grid):
        """The constants of a grid: scale and zero point."""
        scale = self.constant(f"{name}.scale", np.float32(grid.scale))
        if self.unsigned:
            return scale, self.constant(f"{name}.zero", np.uint8(grid.zero), np.uint8)
        return scale, self.constant(f"{name}.zero", np.int8(grid.zero - OFFSET), np.int8)

    def quantise(self, name, x, grid):
        return self.node("QuantizeLinear", x, *self.grid(f"{name}.grid", grid), output=name)

    def real(self, name, grid):
        """The real numbers of a whole map, by one node however many read it."""
        if name not in self.reals:
            self.reals[name] = self.node("DequantizeLinear", name, f"{name}.grid.scale", f"{name}.grid.zero")
        return self.reals[name]

    def weights(self, step, x):
        """(weight, bias) in real numbers, of int8 (F, C, K, K), dense (C, F), and int32 constants."""
        weight, name = step.weight, step.name
        if weight.dtype != np.int8:
            raise NumnetError(
                f"export: {name} has weights with zero points; QDQ graphs here have int8 weights"
            )
        if step.kind == "dense":
            weight, axis = weight[0, 0], 1
        else:
            if step.kind == "depthwise":
                weight = weight.reshape(*weight.shape[:2], 1, -1)
            weight, axis = weight.transpose(3, 2, 0, 1), 0
        scales = self.constant(f"{name}.weight.scale", step.scales)
        zeros = self.constant(f"{name}.weight.zero", np.zeros(len(step.scales), np.int8), np.int8)
        whole = self.constant(f"{name}.weight", weight, np.int8)
        weight = self.node("DequantizeLinear", whole, scales, zeros, axis=axis)
        by = step.scales.astype(np.float64) * x.scale
        scales = self.constant(f"{name}.bias.scale", by)
        zeros = self.constant(f"{name}.bias.zero", np.zeros(len(step.scales), np.int32), np.int32)
        whole = self.constant(f"{name}.bias", step.bias, np.int32)
        return weight, self.node("DequantizeLinear", whole, scales, zeros, axis=0)

    def step(self, step, net, names, number):
        """Append a step; the name of its map: of whole numbers, or of the real ones that sums become."""
        grids = [net.grids[i] for i in step.reads]
        inputs = [self.real(names[i], grid) for i, grid in zip(step.reads, grids)]
        x, name = inputs[0], step.name if step.name not in OWN_NAMES else f"{step.name}.map"
        if step.kind in SUMS:
            weight, bias = self.weights(step, grids[0])
            if step.kind == "dense":
                y = self.node("Gemm", x, weight, bias)
            else:
                group = step.weight.shape[2] if step.kind == "depthwise" else 1
                y = self.node("Conv", x, weight, bias, group=group, **_frame(step))
        elif step.kind == "add":
            y = self.node("Add", *inputs)
        elif step.kind == "average":
            y = self.node("GlobalAveragePool", x)
            y = self.node("Flatten", y) if len(step.shape) == 1 else y
        elif step.kind == "maximum":
            y = self.node("MaxPool", x, **_frame(step))
            y = self.node("Flatten", y) if len(step.shape) == 1 else y
        elif step.kind == "concat":
            y = self.node("Concat", *inputs, axis=1)
        elif step.kind == "excite":
            gates = self.node("Unsqueeze", inputs[1], self.constant(f"{name}.axes", [2, 3], np.int64))
            y = self.node("Mul", x, gates)
        elif step.kind == "table":
            if step.line:
                slope, shift = (self.constant(f"{name}.{i}", number) for i, number in enumerate(step.line))
                x = self.node("Add", self.node("Mul", x, slope), shift)
            y = self.activation(step.code, x, step.beta)
        elif len(net.shape_of(step.reads[0])) == 3:  # ours flattens (H, W, C)
            y = self.node("Flatten", self.node("Transpose", x, perm=[0, 2, 3, 1]))
        else:
            y = self.node("Identity", x)
        if step.grid is None:
            return y
        if step.code != IDENTITY and step.kind != "table" and tuple(step.bounds) != (0, 255):
            low, high = ((bound - step.grid.zero) * step.grid.scale for bound in step.bounds)
            y = self.node("Clip", y, self.constant(f"{name}.low", low), self.constant(f"{name}.high", high))
        return self.quantise(name, y, step.grid)


def _frame(step) -> dict:
    """A step's window as a node's attributes."""
    k, stride, ((top, bottom), (left, right)) = step.frame
    return {"strides": [stride] * 2, "pads": [top, left, bottom, right], "kernel_shape": [k, k]}
