"""A net as a list of steps: each makes one map of one or more others, batch norm is folded in, and shapes are settled.

Arithmetic in eight bits needs a net to lie open: where a map begins, who reads it, what is added to what. So it does not
walk over layers and blocks, it follows a list. Map 0 is the input, map k + 1 what step k makes. The same list serves in real
numbers (``run``: to find ranges and to compare) and in whole ones (``net``).

Only relu and relu6, which cut, stay within the step before them. Every other activation is a step of its own, a table.
"""

from dataclasses import dataclass

import numpy as np

from numnet.blocks.residual import Branches, Residual, SqueezeExcite
from numnet.blocks.separable import Sequence
from numnet.blocks.unit import Conv, Depthwise, Unit
from numnet.errors import NumnetError
from numnet.kernels import activations, conv, depthwise, pointwise, pooling
from numnet.kernels.activations import (
    CODES,
    HSIGMOID,
    HSIGMOID02,
    HSWISH,
    IDENTITY,
    RELU,
    RELU6,
)
from numnet.kernels.eight_bits import Grid
from numnet.layers.simple import (
    Activation,
    Dense,
    Dropout,
    Flatten,
    GlobalAverage,
    GlobalMax,
    MaxPool,
    activated,
)

NAMES = {code: name for name, code in CODES.items()}
CUTS = {IDENTITY: (-np.inf, np.inf), RELU: (0.0, np.inf), RELU6: (0.0, 6.0)}  # activations that only cut
# Where an activation tells numbers apart: below and above nothing is lost by cutting its input.
TELLS = {HSWISH: (-3.0, np.inf), HSIGMOID: (-3.0, 3.0), HSIGMOID02: (-2.5, 2.5)}
SUMS = ("conv", "depthwise", "dense")  # steps that have weights
MOVES = ("flatten", "maximum")  # steps that make no new numbers: their output has the grid of their input


@dataclass
class Step:
    """One step; arrays as they are in real numbers, or, of a net in eight bits, as whole ones.

    kind     conv, depthwise, dense: with weight and bias, then a cut (``code``); add; average: over the whole map; table: an
             activation; excite: reads a map and gates (N, C); maximum: of each window, or of the whole map; concat: of
             the channels of several maps; flatten
    reads    numbers of the maps
    shape    of one image's output
    frame    (K, stride, ((top, bottom), (left, right))) of conv, depthwise and maximum
    """

    kind: str
    name: str
    reads: tuple
    shape: tuple
    frame: tuple = (1, 1, ((0, 0), (0, 0)))
    code: int = IDENTITY
    beta: float = 1.0
    weight: np.ndarray | None = None  # (K, K, C, F), depthwise (K, K, C, M); dense (1, 1, C, F)
    bias: np.ndarray | None = None  # (F,)
    # of a net in eight bits
    grid: Grid | None = None  # of the output; None: sums of 32 bits, which become real numbers
    scales: np.ndarray | None = None  # (F,) of the filters
    bounds: tuple = (0, 255)
    line: tuple = ()  # of a table: (slope, shift) that the activation comes after

    @property
    def filters(self) -> int:
        return self.shape[-1]

    @property
    def map_shape(self) -> tuple:
        """(P, Q, C) of the output, also where it is (C,): of one pixel."""
        return (1, 1, *self.shape)[-3:]

    def macs(self) -> int:
        """Multiply-accumulates for one image, padding taps counted."""
        if self.kind not in SUMS:
            return 0
        per = int(np.prod(self.weight.shape[:2])) * (1 if self.kind == "depthwise" else self.weight.shape[2])
        return int(np.prod(self.shape)) * per


# ---------------------------------------------------------------------------------------------- from a net


def trace(net) -> list[Step]:
    """The steps of a net, with folded weights (float64). Raises NumnetError for a layer without arithmetic in eight bits."""
    if not (np.isfinite(net.flat).all() and np.isfinite(net.flat_buffers).all()):
        raise NumnetError("quantise: the net has weights that are not finite numbers")
    tracer = _Tracer()
    tracer.through(net.layers, 0, "")
    if tracer.kept != 1:
        raise NumnetError(f"quantise: {LOST}, as at the end of this net")
    return tracer.steps


# Through these the factor of a Dropout(downscale=True) passes, or it goes into their weights.
PASSES = (Unit, Dense, Dropout, Flatten, GlobalAverage, GlobalMax, MaxPool)
LOST = "the factor of Dropout(downscale=True) has no place where no convolution or dense layer follows it"


class _Tracer:
    def __init__(self):
        self.steps, self.kept = [], 1.0

    def put(self, *arguments, **more) -> int:
        self.steps.append(Step(*arguments, **more))
        return len(self.steps)

    def through(self, layers, x, prefix) -> int:
        for layer, activation in activated(layers):
            x = self.add(layer, activation, x, f"{prefix}{layer.name}")
        return x

    def add(self, layer, activation, x, path) -> int:
        if self.kept != 1 and not isinstance(layer, PASSES) and type(layer) is not Sequence:
            raise NumnetError(f"quantise: {LOST}, as in front of {path}")
        if isinstance(layer, Unit):
            return self.unit(layer, x, path)
        if isinstance(layer, Sequence):
            y = self.through(layer.children, x, f"{path}.")
            if isinstance(layer, Residual) and layer.adds:
                y = self.put("add", f"{path}.add", (x, y), tuple(layer.output_shape))
            return y
        if isinstance(layer, SqueezeExcite):
            gates = self.through(layer.children, x, f"{path}.")
            return self.put("excite", f"{path}.scale", (x, gates), tuple(layer.output_shape))
        if isinstance(layer, Branches):
            parts = [self.add(child, None, x, f"{path}.{child.name}") for child in layer.children]
            return self.put("concat", f"{path}.concat", tuple(parts), tuple(layer.output_shape))
        if isinstance(layer, GlobalAverage):
            return self.put("average", path, (x,), tuple(layer.output_shape))
        if isinstance(layer, (MaxPool, GlobalMax)):
            return self.put("maximum", path, (x,), tuple(layer.output_shape), window_of(layer))
        if isinstance(layer, Dense):
            weight = layer.params["weight"].astype(np.float64)[None, None] * self.kept
            bias = layer.params.get("bias")
            bias = np.zeros(layer.filters) if bias is None else bias.astype(np.float64)
            self.kept = 1.0
            return self.sums("dense", path, x, layer, (weight, bias), activation and activation.code)
        if isinstance(layer, Activation):
            return self.table(path, x, tuple(layer.output_shape), layer.code, layer.beta)
        if isinstance(layer, Flatten):
            return self.put("flatten", path, (x,), tuple(layer.output_shape))
        if isinstance(layer, Dropout):
            self.kept *= 1 - layer.rate if layer.downscale else 1.0  # goes into the weights behind it
            return x
        raise NumnetError(f"quantise: no arithmetic in eight bits for {path}, a layer of kind {layer.kind!r}")

    def unit(self, unit, x, path) -> int:
        kind = "depthwise" if isinstance(unit, Depthwise) else "conv"
        frame = (1, 1, ((0, 0), (0, 0)))
        if isinstance(unit, (Conv, Depthwise)):
            frame = unit.kernel, unit.stride, tuple(map(tuple, unit.pads))
        weight, bias = folded(unit)
        weight, self.kept = weight * self.kept, 1.0
        return self.sums(kind, path, x, unit, (weight, bias), unit.code, frame)

    def sums(self, kind, path, x, layer, arrays, code, frame=(1, 1, ((0, 0), (0, 0)))) -> int:
        code, shape = code or IDENTITY, tuple(layer.output_shape)
        cut = code if code in CUTS else IDENTITY
        x = self.put(kind, path, (x,), shape, frame, cut, 1.0, *arrays)
        return x if code in CUTS else self.table(f"{path}.{NAMES[code]}", x, shape, code, 1.0)

    def table(self, path, x, shape, code, beta) -> int:
        return x if code == IDENTITY else self.put("table", path, (x,), shape, code=code, beta=float(beta))


def window_of(layer) -> tuple:
    """The frame of a maximum: of a whole map one square window, which may reach beyond the last row or column."""
    if isinstance(layer, MaxPool):
        return layer.kernel, layer.stride, tuple(map(tuple, layer.pads))
    height, width = layer.input_shape[:2]
    side = max(height, width)
    return side, 1, ((0, side - height), (0, side - width))


def folded(unit) -> tuple:
    """(weight (K, K, C, F), bias (F,)) of a unit in float64, its running statistics multiplied in."""
    weight = unit.params["weight"].astype(np.float64)
    if weight.ndim == 2:
        weight = weight[None, None]
    filters = unit.output_shape[-1]
    if unit.norm is None:
        bias = unit.params.get("bias")
        return weight, np.zeros(filters) if bias is None else bias.astype(np.float64)
    gamma, beta, mean, variance = (
        array.astype(np.float64)
        for array in (
            unit.params["bn.gamma"],
            unit.params["bn.beta"],
            unit.buffers["bn.mean"],
            unit.buffers["bn.variance"],
        )
    )
    scale = gamma / np.sqrt(variance + unit.norm.eps)
    if isinstance(unit, Depthwise):
        return weight * scale.reshape(weight.shape[2:]), beta - mean * scale
    return weight * scale, beta - mean * scale


# ---------------------------------------------------------------------------------------------- in real numbers


def step_in_reals(step, inputs) -> np.ndarray:
    """What a step with real weights makes of finished maps of float32."""
    x = inputs[0]
    if step.kind in SUMS:
        weight = np.ascontiguousarray(step.weight, np.float32)
        k, stride, pads = step.frame
        if step.kind == "depthwise":
            y = depthwise.depthwise_forward(x, weight, stride, pads)
        elif k == 1 and stride == 1 and pads == ((0, 0), (0, 0)):
            flat = np.ascontiguousarray(x.reshape(len(x), 1, -1, weight.shape[2]))
            y = pointwise.pointwise_forward(flat, weight[0, 0]).reshape(len(x), *step.shape)
        else:
            y = conv.conv_forward(x, weight, stride, pads)
        y = y + step.bias.astype(np.float32)
        low, high = CUTS[step.code]
        return np.clip(y, low, high) if step.code != IDENTITY else y
    if step.kind == "add":
        low, high = CUTS[step.code]
        return np.clip(x + inputs[1], low, high) if step.code != IDENTITY else x + inputs[1]
    if step.kind == "average":
        y = x.reshape(len(x), -1, x.shape[-1]).mean(axis=1, dtype=np.float64).astype(np.float32)
        return y.reshape(len(x), *step.shape)
    if step.kind == "table":
        return table_function(step)(np.ascontiguousarray(x))
    if step.kind == "excite":
        return x * inputs[1].reshape(len(x), 1, 1, -1)
    if step.kind == "maximum":
        return pooling.max_forward(x, *step.frame)[0].reshape(len(x), *step.shape)
    if step.kind == "concat":
        return np.concatenate(inputs, axis=-1)
    return np.ascontiguousarray(x).reshape(len(x), *step.shape)  # flatten


def stands_for(whole, x) -> tuple:
    """(weight, bias) in real numbers, float64, that the whole numbers of a step stand for; x: the grid of its input."""
    scales = whole.scales.astype(np.float64)
    by = scales.reshape(whole.weight.shape[2:]) if whole.kind == "depthwise" else scales
    return whole.weight * by, whole.bias * scales * x.scale


def table_function(step):
    """The function of real numbers that a step of kind table stands for."""
    slope, shift = step.line or (1.0, 0.0)

    def function(x):
        x = x * x.dtype.type(slope) + x.dtype.type(shift) if step.line else x
        return activations.activation_forward(np.ascontiguousarray(x), step.code, step.beta)

    return function


def run(steps, x, hooks=None) -> list:
    """All maps, float32, of images x (N, H, W, C). ``hooks``: {step's number: function(map) -> the map that is handed on}."""
    maps = [np.ascontiguousarray(x, np.float32)]
    for number, step in enumerate(steps):
        y = step_in_reals(step, [maps[i] for i in step.reads])
        maps.append(hooks[number](y) if hooks and number in hooks else y)
    return maps


def last_readers(steps) -> dict:
    """Number of a map -> number of the last step that reads it; the net's output is read by the caller."""
    last = {}
    for number, step in enumerate(steps):
        for x in step.reads:
            last[x] = number
    last[len(steps)] = len(steps)
    return last


def told_apart(steps) -> dict:
    """Number of a map -> (low, high), where its only reader is an activation that sees no difference outside of these."""
    readers = {}
    for step in steps:
        for i in step.reads:
            readers.setdefault(i, []).append(step)
    return {
        i: TELLS[after[0].code]
        for i, after in readers.items()
        if len(after) == 1 and after[0].kind == "table" and after[0].code in TELLS
    }
