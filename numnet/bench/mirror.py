"""Any net of numnet's once more, as plain PyTorch modules: what PyTorch is measured with.

One function a kind of layer; a block is the mirror of its children. Convolutions are channels-first modules, to be
run in the memory format channels_last, which is numnet's NHWC. The weights are numnet's own, if the net has any, so that
both sides compute the same numbers.
"""

import torch
from torch import nn
from torch.nn import functional as F

from numnet import blocks, layers
from numnet.errors import NumnetError

ACTIVATIONS = {
    "identity": nn.Identity,
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "hswish": lambda: nn.Hardswish(inplace=True),
    "hsigmoid": lambda: nn.Hardsigmoid(inplace=True),
    "sigmoid": nn.Sigmoid,
    "swish": lambda: nn.SiLU(inplace=True),
}


def mirror(net) -> nn.Module:
    """A module from (N, 3, H, W) to (N, classes). NumnetError names a kind of layer that has no mirror."""
    return nn.Sequential(*(_module(layer) for layer in net.layers))


def _module(layer) -> nn.Module:
    """The module of a layer; ``kind`` says what the layer is, for measurements by kind."""
    for cls, make in MIRRORS.items():
        if isinstance(layer, cls):
            module = make(layer)
            module.kind = layer.kind
            return module
    raise NumnetError(f"the layer {layer.name} ({layer.kind}) has no counterpart in PyTorch here")


def _children(layer) -> nn.Module:
    return nn.Sequential(*(_module(child) for child in layer.children))


def _activation(name) -> nn.Module:
    if name not in ACTIVATIONS:
        raise NumnetError(f"the activation {name} has no counterpart in PyTorch here")
    return ACTIVATIONS[name]()


def _fill(tensor, array) -> None:
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(array.copy()))


# ----------------------------------------------------------------------------------------- units


def _unit(layer) -> nn.Module:
    c, f = layer.input_shape[2], layer.output_shape[2]
    kernel, stride, pads = (
        getattr(layer, "kernel", 1),
        getattr(layer, "stride", 1),
        getattr(layer, "pads", None),
    )
    groups = c if isinstance(layer, blocks.Depthwise) else 1
    parts, padding = [], 0
    if pads is not None:
        (top, bottom), (left, right) = pads
        if top == bottom and left == right:
            padding = (top, left)
        else:
            parts.append(nn.ZeroPad2d((left, right, top, bottom)))
    conv = nn.Conv2d(c, f, kernel, stride, padding, groups=groups, bias=layer.bias)
    parts.append(conv)
    if layer.norm is not None:
        parts.append(nn.BatchNorm2d(f, layer.norm.eps, 1 - layer.norm.momentum))
    if layer.params:
        _fill(conv.weight, _weights(layer).reshape(conv.weight.shape))
        if layer.bias:
            _fill(conv.bias, layer.params["bias"])
        if layer.norm is not None:
            _fill(parts[-1].weight, layer.params["bn.gamma"])
            _fill(parts[-1].bias, layer.params["bn.beta"])
            _fill(parts[-1].running_mean, layer.buffers["bn.mean"])
            _fill(parts[-1].running_var, layer.buffers["bn.variance"])
    if layer.activation != "identity":
        parts.append(_activation(layer.activation))
    return nn.Sequential(*parts)


def _weights(layer):
    """PyTorch's order: (F, C, K, K), depthwise (C·M, 1, K, K), pointwise (F, C)."""
    w = layer.params["weight"]
    if isinstance(layer, blocks.Depthwise):
        return w.transpose(2, 3, 0, 1)
    return w.transpose(3, 2, 0, 1) if isinstance(layer, blocks.Conv) else w.T


# ----------------------------------------------------------------------------------------- blocks


class Residual(nn.Module):
    """y = x + body(x)."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x + self.body(x)


class SqueezeExcite(nn.Module):
    """y = x · gate(expand(relu(reduce(mean of x)))), with 1×1 convolutions, as torchvision has it."""

    def __init__(self, layer):
        super().__init__()
        _, reduce, _, expand, _ = layer.children
        c = layer.input_shape[2]
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce, self.expand = nn.Conv2d(c, layer.squeezed, 1), nn.Conv2d(layer.squeezed, c, 1)
        self.relu, self.gate = nn.ReLU(inplace=True), _activation(layer.gate)
        for conv, dense in ((self.reduce, reduce), (self.expand, expand)):
            if dense.params:
                _fill(conv.weight, dense.params["weight"].T[:, :, None, None])
                _fill(conv.bias, dense.params["bias"])

    def forward(self, x):
        return x * self.gate(self.expand(self.relu(self.reduce(self.pool(x)))))


class Branches(nn.Module):
    """The same map through several modules; their outputs side by side."""

    def __init__(self, branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], dim=1)


# ----------------------------------------------------------------------------------------- single layers


class Function(nn.Module):
    """A function without parameters."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def _dense(layer):
    linear = nn.Linear(layer.input_shape[0], layer.filters, bias=layer.bias)
    if layer.params:
        _fill(linear.weight, layer.params["weight"].T)
        if layer.bias:
            _fill(linear.bias, layer.params["bias"])
    return linear


def _max_pool(layer):
    (top, bottom), (left, right) = layer.pads
    pool = nn.MaxPool2d(layer.kernel, layer.stride)
    if not any((top, bottom, left, right)):
        return pool
    return nn.Sequential(nn.ConstantPad2d((left, right, top, bottom), float("-inf")), pool)


def _dropout(layer):
    if getattr(layer, "downscale", False):
        raise NumnetError("PaddlePaddle's older dropout has no counterpart in PyTorch here")
    return nn.Dropout(layer.rate)


def _residual(layer):
    return Residual(_children(layer)) if layer.adds else _children(layer)


MIRRORS = {
    blocks.Conv: _unit,
    blocks.Depthwise: _unit,
    blocks.Pointwise: _unit,
    blocks.Residual: _residual,
    blocks.InvertedResidual: _residual,
    blocks.SqueezeExcite: SqueezeExcite,
    blocks.Branches: lambda layer: Branches(_module(child) for child in layer.children),
    blocks.Sequence: _children,
    layers.Dense: _dense,
    layers.GlobalAverage: lambda layer: (
        nn.AdaptiveAvgPool2d(1) if layer.keep else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    ),
    layers.GlobalMax: lambda layer: Function(lambda x: F.adaptive_max_pool2d(x, 1).flatten(1)),
    layers.MaxPool: _max_pool,
    layers.Flatten: lambda layer: Function(lambda x: x.permute(0, 2, 3, 1).flatten(1)),
    layers.Dropout: _dropout,
    layers.Activation: lambda layer: _activation(layer.activation),
}
