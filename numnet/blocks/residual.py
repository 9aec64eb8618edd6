"""Residual blocks: the inverted one of MobileNetV2, V3 and MnasNet, V4's; squeeze-and-excite; GoogLeNet's branches.

An inverted residual (Sandler et al. 2018, figures 3 and 4; with squeeze-and-excite Howard et al. 2019, figure 4):

    x ─ expand 1×1, BN, act ─ depthwise K×K, BN, act ─ [squeeze-excite] ─ project 1×1, BN ─ + ─ y
    └────────────────────────────────── if stride 1 and equal channels ─────────────────────┘

Thin maps are kept and added, wide ones live inside the block only; the projection has no activation, since ReLU on few
channels loses what it zeroes (the paper's linear bottleneck). Its β therefore has gradient 0 in training wherever the
next reader is a 1×1 convolution with batch norm, which removes any constant again.
"""

import numpy as np

from numnet.blocks.separable import Sequence, name_children
from numnet.blocks.unit import Conv, Depthwise, Pointwise, Unit
from numnet.kernels import concat, maps, residual, squeeze_excite
from numnet.layers.layer import CostRow, Layer, Pending, backward_through, finish, map_of, source
from numnet.layers.simple import Activation, Dense, GlobalAverage


class Residual(Sequence):
    """Layers one after another, plus their input where ``skip``, stride 1 and equal channels allow it.

    He et al. 2016, equation 1. The first layer is a convolution's unit, which takes the input's second gradient along;
    the last a standard or a pointwise one, in whose tiles inference adds. Raises ValueError for others.
    """

    kind = "residual"

    def __init__(self, *children, skip=True, name=None):
        super().__init__(*children, name=name)
        if (
            not children
            or not isinstance(children[0], Unit)
            or not isinstance(children[-1], (Conv, Pointwise))
        ):
            raise ValueError("residual: expected a convolution first, and a standard or pointwise one last")
        self.skip = skip

    def connect(self, shape):
        super().connect(shape)
        strided = any(getattr(child, "stride", 1) != 1 for child in self.children)
        self.adds = self.skip and not strided and self.input_shape == self.output_shape
        return self.output_shape

    def forward(self, x, training):
        y = super().forward(x, training)
        if not self.adds:
            return y
        a = source(y)
        total = self.memory.array("sum", a.raw.shape, a.raw.dtype)
        residual.unit_forward(a, source(x), total)
        return total

    def backward(self, dy, input_gradient=True):
        first, *rest = self.children
        d = backward_through(rest, dy)
        more = dy if self.adds else None  # equation (3) of the page ``residual``, in the tiles of dx
        dx = first.backward(d, input_gradient, more)
        self.peers.done(first)
        if rest:
            self.workspace.release(d)
        return dx

    def cost(self):
        if not self.adds:
            return []
        return [CostRow("add", "add", self.output_shape, residual.residual_cost(1, *self.output_shape))]


class InvertedResidual(Residual):
    """Expand to ``expanded`` channels (None: no expansion), depthwise, squeeze-excite, project to ``filters``.

    ``squeeze``: channels of the squeeze-excite's bottleneck, 0 for none, and ``gate`` its last activation.
    ``skip``: add the input where the stride is 1 and the channels are equal. ``bottleneck_activation``: after the
    projection's batch norm, before the addition; the papers have none.
    """

    kind = "inverted residual"

    def __init__(
        self,
        filters,
        stride=1,
        *,
        expanded=None,
        kernel=3,
        activation="relu6",
        squeeze=0,
        gate="hsigmoid",
        bottleneck_activation="identity",
        skip=True,
        padding="same",
        norm=None,
        name=None,
    ):
        frame = {"activation": activation, "norm": norm}
        children = [] if expanded is None else [Pointwise(expanded, **frame, name="expand")]
        children.append(Depthwise(kernel, stride, padding, **frame, name="depthwise"))
        if squeeze:
            children.append(SqueezeExcite(squeeze, gate, name="se"))
        children.append(Pointwise(filters, activation=bottleneck_activation, norm=norm, name="project"))
        super().__init__(*children, skip=skip, name=name)
        self.stride = stride


class UniversalBottleneck(Residual):
    """MobileNetV4's block (Qin et al. 2024), the universal inverted bottleneck: depthwise convolutions around an expansion.

        x ─ [depthwise start×start, BN] ─ expand 1×1, BN, act ─ [depthwise middle×middle, BN, act] ─ project 1×1, BN ─ + ─ y

    ``start`` and ``middle`` are kernels, 0 for none: both are the extra-depthwise block, ``middle`` alone is the inverted
    residual, ``start`` alone is like ConvNeXt's block, neither is a transformer's feed-forward. The stride is the
    middle one's if there is one, else the first one's. The input is added where the stride is 1 and the channels are
    equal. Raises ValueError for a stride that no depthwise convolution can take.
    """

    kind = "universal bottleneck"

    def __init__(
        self,
        filters,
        stride=1,
        *,
        expanded,
        start=0,
        middle=3,
        activation="relu",
        bottleneck_activation="identity",
        skip=True,
        padding="same",
        norm=None,
        name=None,
    ):
        if stride != 1 and not (start or middle):
            raise ValueError(
                f"universal bottleneck: stride {stride} needs a depthwise convolution, start or middle"
            )
        children = []
        if start:
            first = 1 if middle else stride
            children.append(Depthwise(start, first, padding, norm=norm, name="start"))
        children.append(Pointwise(expanded, activation=activation, norm=norm, name="expand"))
        if middle:
            children.append(
                Depthwise(middle, stride, padding, activation=activation, norm=norm, name="depthwise")
            )
        children.append(Pointwise(filters, activation=bottleneck_activation, norm=norm, name="project"))
        super().__init__(*children, skip=skip, name=name)
        self.stride = stride


class Excite(Dense):
    """A dense layer of a squeeze-and-excite: frameworks have a 1×1 convolution here, and initialise it as one."""

    kind = "squeeze-excite"
    role = "pointwise"


class SqueezeExcite(Layer):
    """y = x · gate(expand(relu(reduce(mean of x)))), the two dense layers with biases: see the kernel's page."""

    kind = "squeeze-excite"
    reads_pending = True

    def __init__(self, squeezed, gate="hsigmoid", name=None):
        super().__init__(name)
        self.squeezed, self.gate = squeezed, gate

    def connect(self, shape):
        super().connect(map_of(self.kind, shape))
        self.children = (
            GlobalAverage(name="squeeze"),
            Excite(self.squeezed, name="reduce"),
            Activation("relu", name="relu"),
            Excite(shape[2], name="expand"),
            Activation(self.gate, name="gate"),
        )
        for child in self.children:
            shape = child.connect(shape)
        return self.output_shape

    def forward(self, x, training):
        self.x = gates = x
        for child in self.children:
            gates = child.forward(gates, training)
        self.gates = gates
        x = source(x)
        y = self.memory.array("y", x.raw.shape, x.raw.dtype)
        squeeze_excite.unit_forward(x, gates, y)
        return y

    def backward(self, dy, input_gradient=True):
        x, pending = source(self.x), isinstance(self.x, Pending)
        raw = x.raw
        dgates = self.workspace.borrow(self.gates.shape, raw.dtype)
        squeeze_excite.unit_gate_gradient(dy, x, dgates)
        ds = backward_through(self.children[1:], dgates)
        dx = self.workspace.borrow(raw.shape, raw.dtype)
        parts = self.peers.parts_here(maps.parts_of(len(raw)))
        sums = np.zeros((parts, 2, raw.shape[3]) if pending else (0, 2, 0))
        squeeze_excite.unit_backward(dy, self.gates, ds, x, dx, sums)  # and the squeeze's share
        if pending:
            self.x.sums = sums
        self.workspace.release(dgates)
        self.workspace.release(ds)
        return dx

    def cost(self):
        return [
            CostRow("scale", "scale", self.output_shape, squeeze_excite.scale_cost(1, *self.output_shape))
        ]


class Branches(Layer):
    """The same map through several layers side by side; their outputs concatenated along the channels."""

    kind = "branches"
    reads_pending = True

    def __init__(self, *children, name=None):
        super().__init__(name)
        self.children = name_children(children)

    def connect(self, shape):
        super().connect(shape)
        shapes = [map_of(self.kind, child.connect(shape)) for child in self.children]
        if len({shape[:2] for shape in shapes}) != 1:
            raise ValueError(f"branches: expected maps of one size to concatenate, got {shapes}")
        self.starts = np.cumsum([0] + [shape[2] for shape in shapes]).tolist()
        self.output_shape = (*shapes[0][:2], self.starts[-1])
        return self.output_shape

    def forward(self, x, training):
        x = finish(x, self.memory, "finished input")  # once, not in every branch
        y = self.memory.array("y", (len(x), *self.output_shape), x.dtype)
        for start, child in zip(self.starts, self.children):
            concat.unit_forward(source(child.forward(x, training)), start, y)
        return y

    def backward(self, dy, input_gradient=True):
        total = None
        for start, child in zip(self.starts, self.children):
            part = self.workspace.borrow((len(dy), *child.output_shape), dy.dtype)
            concat.unit_backward(dy, start, part)
            dx = child.backward(part, input_gradient)
            if dx is not part:
                self.workspace.release(part)
            if total is None or dx is None:
                total = dx
            else:
                residual.unit_add_gradient(total, dx)
                self.workspace.release(dx)
        return total

    def cost(self):
        return [CostRow("concat", "concat", self.output_shape, concat.concat_cost(1, *self.output_shape))]
