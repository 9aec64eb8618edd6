"""The nets once more, in plain `torch.nn`: what numnet's models are compared with.

`build(name, **options)` takes the keywords of `numnet.build` and gives a channels-first module. Names of
tensors are torchvision's for V2, V3, MnasNet-B1, VGG16 and GoogLeNet, and timm's for V1, V4 and MnasNet-A1
(torchvision has none of them), so that published checkpoints fit; shapes follow ``variant``: "keras" (Keras
Applications, slim and the papers), "torch" (torchvision and timm), "paddle" (PaddleClas). The tables are
typed here a second time on purpose: a slip in numnet's own shows up as a difference. `layers(net,
resolution)` lists the convolutions and dense layers with their parameters and multiply-accumulates; under
``torch.device("meta")`` it needs no memory.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


def build(
    name,
    *,
    width=1.0,
    resolution=224,
    classes=1000,
    padding="same",
    strides="imagenet",
    variant="keras",
    dropout=None,
    bn_eps=None,
    bn_momentum=None,
    **own,
):
    """The net ``name`` as a module from (N, 3, H, W) to (N, classes).

    ``padding`` "same" (TensorFlow's) or "symmetric" (K//2 on each side); ``strides`` "imagenet" or "cifar"
    (for 32×32 images the stem and, except in V1, the first stage of stride 2 keep their size);
    ``bn_momentum`` is numnet's m (PyTorch's is 1 − m, and PyTorch keeps the unbiased running variance).

    ``own``: keywords of the net itself. V1: activation, kernel, separable, depth_multiplier, shallow. The
    nets of inverted residuals: activation (of every layer that has one, except in squeeze-and-excite),
    bottleneck_activation (after the projection's batch norm, before the addition), skip (False: no
    additions), kernel (of every depthwise layer), se (False: none).
    """
    assert padding in ("same", "symmetric") and strides in ("imagenet", "cifar")
    assert variant in ("keras", "torch", "paddle")
    eps = EPS[name][variant] if bn_eps is None else bn_eps
    momentum = (0.999 if name == "mnasnet_keras" else 0.9) if bn_momentum is None else bn_momentum
    dropout = DROPOUT[name] if dropout is None else dropout
    made = Made(width, resolution, classes, padding, strides == "cifar", variant, dropout, eps, 1 - momentum)
    return BUILDERS[name](made, **own)


V4 = ("mobilenet_v4_small", "mobilenet_v4_medium", "mobilenet_v4_large")
EPS = {
    **{name: {"keras": 1e-3, "torch": 1e-5, "paddle": 1e-5} for name in V4},
    "mobilenet_v3_large_minimalistic": {"keras": 1e-3, "torch": 1e-3, "paddle": 1e-5},
    "mobilenet_v3_small_minimalistic": {"keras": 1e-3, "torch": 1e-3, "paddle": 1e-5},
    "mobilenet_v1": {"keras": 1e-3, "torch": 1e-5, "paddle": 1e-5},
    "mobilenet_v2": {"keras": 1e-3, "torch": 1e-5, "paddle": 1e-5},
    "mobilenet_v3_large": {"keras": 1e-3, "torch": 1e-3, "paddle": 1e-5},
    "mobilenet_v3_small": {"keras": 1e-3, "torch": 1e-3, "paddle": 1e-5},
    "mnasnet_a1": {"keras": 1e-3, "torch": 1e-5, "paddle": 1e-5},
    "mnasnet_b1": {"keras": 1e-3, "torch": 1e-5, "paddle": 1e-5},
    "mnasnet_keras": {"keras": 1e-3, "torch": 1e-3, "paddle": 1e-3},
    "plain_3x3": {"keras": 1e-3, "torch": 1e-5, "paddle": 1e-5},
    "vgg16": {"keras": 0.0, "torch": 0.0, "paddle": 0.0},  # has no batch norm
    "googlenet": {"keras": 1e-3, "torch": 1e-3, "paddle": 1e-3},
}

DROPOUT = {
    **dict.fromkeys(V4, 0.0),
    "mobilenet_v3_large_minimalistic": 0.2,
    "mobilenet_v3_small_minimalistic": 0.2,
    "mobilenet_v1": 0.001,
    "mobilenet_v2": 0.2,
    "mobilenet_v3_large": 0.2,
    "mobilenet_v3_small": 0.2,
    "mnasnet_a1": 0.2,
    "mnasnet_b1": 0.2,
    "mnasnet_keras": 0.0,
    "plain_3x3": 0.0,
    "vgg16": 0.5,
    "googlenet": 0.2,
}


# --- pieces -------------------------------------------------------------------------------------------------


def make_divisible(value, divisor=8):
    """The nearest multiple of 8 that is not more than a tenth below ``value``, as in slim and torchvision."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class Conv(nn.Conv2d):
    """A convolution that knows TensorFlow's "same" padding, whose two sides may differ."""

    def __init__(self, c_in, c_out, kernel, stride=1, groups=1, bias=False, padding="symmetric"):
        symmetric = kernel // 2 if padding == "symmetric" else 0
        super().__init__(c_in, c_out, kernel, stride, symmetric, groups=groups, bias=bias)
        self.same = padding == "same"

    def forward(self, x):
        if self.same:
            (top, bottom), (left, right) = (
                same_padding(size, self.kernel_size[0], self.stride[0]) for size in x.shape[2:]
            )
            x = F.pad(x, (left, right, top, bottom))
        return super().forward(x)


def same_padding(size, kernel, stride):
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class HardSigmoid(nn.Module):
    """relu6(x + 3) / 6. PyTorch's own has 1/6 in float32 in its backward, off by 3e-8 in float64."""

    def forward(self, x):
        return F.relu6(x + 3) / 6


class HardSigmoid02(nn.Module):
    """PaddleClas's: clip(0.2·x + 0.5, 0, 1), as relu6 so that its derivative at ±2.5 is 0."""

    def forward(self, x):
        return F.relu6(1.2 * x + 3) / 6


ACTIVATIONS = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hswish": nn.Hardswish,
    "hsigmoid": HardSigmoid,
    "hsigmoid02": HardSigmoid02,
    "sigmoid": nn.Sigmoid,
    "swish": nn.SiLU,
}


class DownscaleInInference(nn.Module):
    """Dropout as in PaddleClas's V3: nothing is scaled in training, and inference multiplies by 1 − p."""

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        return F.dropout(x, self.p) * (1 - self.p) if self.training else x * (1 - self.p)


class GlobalAveragePool(nn.Module):
    """(N, C, H, W) -> (N, C)."""

    def forward(self, x):
        return x.mean((2, 3))


class Residual(nn.Sequential):
    """Layers one after another, with the input added to the output if ``skip``."""

    def __init__(self, layers, skip):
        super().__init__(layers)
        self.skip = skip

    def forward(self, x):
        y = super().forward(x)
        return x + y if self.skip else y


class SqueezeExcite(nn.Module):
    """x · gate(expand(relu(squeeze(mean of x)))), the two 1×1 convolutions under the names given."""

    def __init__(self, channels, squeezed, gate, names=("fc1", "fc2")):
        super().__init__()
        self.names = names
        self.add_module(names[0], nn.Conv2d(channels, squeezed, 1))
        self.add_module(names[1], nn.Conv2d(squeezed, channels, 1))
        self.gate = ACTIVATIONS[gate]()

    def forward(self, x):
        squeeze, expand = (getattr(self, name) for name in self.names)
        return x * self.gate(expand(F.relu(squeeze(x.mean((2, 3), keepdim=True)))))


def named(**layers):
    return nn.Sequential(OrderedDict(layers))


@dataclass(frozen=True)
class Made:
    """What all layers of one net share, and how its layers are made."""

    width: float
    resolution: int
    classes: int
    padding: str
    cifar: bool
    variant: str
    dropout: float
    eps: float
    momentum: float

    def conv(self, c_in, c_out, kernel, stride=1, groups=1, bias=False):
        return Conv(c_in, c_out, kernel, stride, groups, bias, self.padding)

    def norm(self, channels):
        return nn.BatchNorm2d(channels, self.eps, self.momentum)

    def unit(self, c_in, c_out, kernel, stride, activation, groups=1):
        """[convolution, batch norm, activation]; no last one for "identity", as torchvision's names need."""
        layers = [self.conv(c_in, c_out, kernel, stride, groups), self.norm(c_out)]
        return layers if activation == "identity" else [*layers, ACTIVATIONS[activation]()]

    def unit_of(self, *arguments, **keywords):
        """The same as one module: names 0 and 1."""
        return nn.Sequential(*self.unit(*arguments, **keywords))

    def timm_unit(self, name, number, conv, activation):
        """The same as a dictionary with timm's names."""
        norm = self.norm(conv.out_channels)
        return OrderedDict({name: conv, f"bn{number}": norm, f"act{number}": ACTIVATIONS[activation]()})

    @property
    def stem_stride(self):
        return 1 if self.cifar else 2

    def stages(self, rows):
        """``rows`` with the first stride 2 made 1 for 32×32 images."""
        first = next(i for i, row in enumerate(rows) if row.stride == 2)
        return [row._replace(stride=1) if self.cifar and i == first else row for i, row in enumerate(rows)]


# --- MobileNetV1, names of timm -----------------------------------------------------------------------------


V1 = [  # stages of (channels, stride)
    [(64, 1)],
    [(128, 2), (128, 1)],
    [(256, 2), (256, 1)],
    [(512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1)],
    [(1024, 2), (1024, 1)],
]


def mobilenet_v1(made, activation=None, kernel=3, separable=True, depth_multiplier=1, shallow=False):
    def channels(c):
        return make_divisible(c * made.width) if made.variant == "torch" else int(c * made.width)

    act = activation or ("relu" if made.variant == "paddle" else "relu6")
    c_in = channels(32)
    layers = made.timm_unit("conv_stem", 1, made.conv(3, c_in, 3, made.stem_stride), act)
    stages = []
    for rows in V1:
        blocks = []
        for c, stride in rows[:1] if shallow and len(rows) == 6 else rows:
            c_out, wide = channels(c), c_in * depth_multiplier
            if separable:
                block = made.timm_unit("conv_dw", 1, made.conv(c_in, wide, kernel, stride, groups=c_in), act)
                block.update(made.timm_unit("conv_pw", 2, made.conv(wide, c_out, 1), act))
            else:
                block = made.timm_unit("conv", 1, made.conv(c_in, c_out, kernel, stride), act)
            blocks.append(named(**block))
            c_in = c_out
        stages.append(nn.Sequential(*blocks))
    layers.update(blocks=nn.Sequential(*stages), pool=GlobalAveragePool(), dropout=nn.Dropout(made.dropout))
    return named(**layers, classifier=nn.Linear(c_in, made.classes))


# --- MobileNetV2, names of torchvision ----------------------------------------------------------------------


class Stage(NamedTuple):
    """One row of V2's or MnasNet's table; ``squeeze`` is a part of the block's input channels."""

    kernel: int
    expansion: int
    channels: int
    repeats: int
    stride: int
    squeeze: float = 0


V2 = [
    Stage(3, 1, 16, 1, 1),
    Stage(3, 6, 24, 2, 2),
    Stage(3, 6, 32, 3, 2),
    Stage(3, 6, 64, 4, 2),
    Stage(3, 6, 96, 3, 1),
    Stage(3, 6, 160, 3, 2),
    Stage(3, 6, 320, 1, 1),
]


def mobilenet_v2(made, activation=None, bottleneck_activation=None, skip=True, kernel=None, se=None):
    assert not se, "V2 has no squeeze-and-excite"
    activation = activation or "relu6"
    width, paddle = made.width, made.variant == "paddle"

    def channels(c):
        if paddle:
            return int(c * width)
        return make_divisible(int(c * width) if made.variant == "keras" else c * width)

    c_in = int(32 * width) if paddle else make_divisible(32 * width)
    last = int(1280 * max(1, width)) if paddle else make_divisible(1280 * max(1, width))
    features = [made.unit_of(3, c_in, 3, made.stem_stride, activation)]
    for row in made.stages(V2):
        for i in range(row.repeats):
            c_out, stride, hidden = channels(row.channels), row.stride if i == 0 else 1, c_in * row.expansion
            layers = []
            if row.expansion != 1 or paddle:
                layers += [made.unit_of(c_in, hidden, 1, 1, activation)]
            layers += [made.unit_of(hidden, hidden, kernel or row.kernel, stride, activation, groups=hidden)]
            layers += made.unit(hidden, c_out, 1, 1, bottleneck_activation or "identity")
            adds = skip and stride == 1 and c_in == c_out
            features.append(Residual(OrderedDict(conv=nn.Sequential(*layers)), adds))
            c_in = c_out
    features.append(made.unit_of(c_in, last, 1, 1, activation))
    return named(
        features=nn.Sequential(*features),
        pool=GlobalAveragePool(),
        classifier=nn.Sequential(nn.Dropout(made.dropout), nn.Linear(last, made.classes)),
    )


# --- MobileNetV3, names of torchvision ----------------------------------------------------------------------


class Bneck(NamedTuple):
    """One row of V3's tables."""

    kernel: int
    expanded: int
    channels: int
    squeeze: bool
    activation: str
    stride: int


V3_LARGE = [
    Bneck(3, 16, 16, False, "relu", 1),
    Bneck(3, 64, 24, False, "relu", 2),
    Bneck(3, 72, 24, False, "relu", 1),
    Bneck(5, 72, 40, True, "relu", 2),
    Bneck(5, 120, 40, True, "relu", 1),
    Bneck(5, 120, 40, True, "relu", 1),
    Bneck(3, 240, 80, False, "hswish", 2),
    Bneck(3, 200, 80, False, "hswish", 1),
    Bneck(3, 184, 80, False, "hswish", 1),
    Bneck(3, 184, 80, False, "hswish", 1),
    Bneck(3, 480, 112, True, "hswish", 1),
    Bneck(3, 672, 112, True, "hswish", 1),
    Bneck(5, 672, 160, True, "hswish", 2),
    Bneck(5, 960, 160, True, "hswish", 1),
    Bneck(5, 960, 160, True, "hswish", 1),
]

V3_SMALL = [
    Bneck(3, 16, 16, True, "relu", 2),
    Bneck(3, 72, 24, False, "relu", 2),
    Bneck(3, 88, 24, False, "relu", 1),
    Bneck(5, 96, 40, True, "hswish", 2),
    Bneck(5, 240, 40, True, "hswish", 1),
    Bneck(5, 240, 40, True, "hswish", 1),
    Bneck(5, 120, 48, True, "hswish", 1),
    Bneck(5, 144, 48, True, "hswish", 1),
    Bneck(5, 288, 96, True, "hswish", 2),
    Bneck(5, 576, 96, True, "hswish", 1),
    Bneck(5, 576, 96, True, "hswish", 1),
]


def mobilenet_v3_large(made, **own):
    return _mobilenet_v3(made, V3_LARGE, 1280, **own)


def mobilenet_v3_small(made, **own):
    return _mobilenet_v3(made, V3_SMALL, 1280 if made.variant == "paddle" else 1024, **own)


def _mobilenet_v3(
    made, rows, head, activation=None, bottleneck_activation=None, skip=True, kernel=None, se=None
):
    assert se in (None, False)
    width, variant = made.width, made.variant

    def channels(c):
        return make_divisible(c * width)

    c_in = 16 if variant == "keras" else channels(16)
    features = [made.unit_of(3, c_in, 3, made.stem_stride, activation or "hswish")]
    before = 16  # the table's input channels of the row
    for i, row in enumerate(made.stages(rows)):
        c_out, act = channels(row.channels), activation or row.activation
        if variant == "keras":  # the ratio of the table, on the channels that come in
            hidden = make_divisible(c_in * (row.expanded / before)) if i > 0 else c_in
        else:
            hidden = channels(row.expanded)
        expands = {"keras": i > 0, "torch": hidden != c_in, "paddle": True}[variant]
        layers = [made.unit_of(c_in, hidden, 1, 1, act)] if expands else []
        layers += [made.unit_of(hidden, hidden, kernel or row.kernel, row.stride, act, groups=hidden)]
        if row.squeeze and se is None:
            if variant == "paddle":
                layers += [SqueezeExcite(hidden, hidden // 4, "hsigmoid02")]
            else:
                layers += [SqueezeExcite(hidden, make_divisible(hidden / 4), "hsigmoid")]
        layers += [made.unit_of(hidden, c_out, 1, 1, bottleneck_activation or "identity")]
        adds = skip and row.stride == 1 and c_in == c_out
        features.append(Residual(OrderedDict(block=nn.Sequential(*layers)), adds))
        c_in, before = c_out, row.channels
    # at width 1 the last convolution is 960 or 576 wide: six times its input
    last = channels(6 * before) if variant == "paddle" else 6 * c_in
    if variant == "torch" or (variant == "keras" and width > 1):
        head = channels(head)
    features.append(made.unit_of(c_in, last, 1, 1, activation or "hswish"))
    dropout = DownscaleInInference if variant == "paddle" else nn.Dropout
    return named(
        features=nn.Sequential(*features),
        pool=GlobalAveragePool(),
        classifier=nn.Sequential(
            nn.Linear(last, head, bias=variant != "paddle"),
            ACTIVATIONS[activation or "hswish"](),
            dropout(made.dropout),
            nn.Linear(head, made.classes),
        ),
    )


def mobilenet_v3_large_minimalistic(made, **own):
    return mobilenet_v3_large(made, **{"activation": "relu", "kernel": 3, "se": False, **own})


def mobilenet_v3_small_minimalistic(made, **own):
    return mobilenet_v3_small(made, **{"activation": "relu", "kernel": 3, "se": False, **own})


# --- MobileNetV4, names of timm -----------------------------------------------------------------------------


class Universal(NamedTuple):
    """One row of V4's tables: a kernel before the expansion and one behind it (0: none), the ratio of expansion."""

    first: int
    second: int
    ratio: float
    channels: int
    stride: int = 1
    repeats: int = 1


V4_SMALL = [
    [(32, 32)],  # pairs of a 3×3 of stride 2 and a 1×1
    [(96, 64)],
    [Universal(5, 5, 3, 96, 2), Universal(0, 3, 2, 96, 1, 4), Universal(3, 0, 4, 96)],
    [
        Universal(3, 3, 6, 128, 2),
        Universal(5, 5, 4, 128),
        Universal(0, 5, 4, 128),
        Universal(0, 5, 3, 128),
        Universal(0, 3, 4, 128, 1, 2),
    ],
]
V4_MEDIUM = [
    [48],  # a fused block: 3×3 to four times the channels, 1×1
    [Universal(3, 5, 4, 80, 2), Universal(3, 3, 2, 80)],
    [
        Universal(3, 5, 6, 160, 2),
        Universal(3, 3, 4, 160, 1, 2),
        Universal(3, 5, 4, 160),
        Universal(3, 3, 4, 160),
        Universal(3, 0, 4, 160),
        Universal(0, 0, 2, 160),
        Universal(3, 0, 4, 160),
    ],
    [
        Universal(5, 5, 6, 256, 2),
        Universal(5, 5, 4, 256),
        Universal(3, 5, 4, 256, 1, 2),
        Universal(0, 0, 4, 256),
        Universal(3, 0, 4, 256),
        Universal(3, 5, 2, 256),
        Universal(5, 5, 4, 256),
        Universal(0, 0, 4, 256, 1, 2),
        Universal(5, 0, 2, 256),
    ],
]
V4_LARGE = [
    [48],
    [Universal(3, 5, 4, 96, 2), Universal(3, 3, 4, 96)],
    [
        Universal(3, 5, 4, 192, 2),
        Universal(3, 3, 4, 192, 1, 3),
        Universal(3, 5, 4, 192),
        Universal(5, 3, 4, 192, 1, 5),
        Universal(3, 0, 4, 192),
    ],
    [
        Universal(5, 5, 4, 512, 2),
        Universal(5, 5, 4, 512, 1, 3),
        Universal(5, 0, 4, 512),
        Universal(5, 3, 4, 512),
        Universal(5, 0, 4, 512, 1, 2),
        Universal(5, 3, 4, 512),
        Universal(5, 5, 4, 512),
        Universal(5, 0, 4, 512, 1, 3),
    ],
]


class KeptPool(nn.Module):
    """(N, C, H, W) -> (N, C, 1, 1)."""

    def forward(self, x):
        return x.mean((2, 3), keepdim=True)


def mobilenet_v4_small(made, **own):
    return _mobilenet_v4(made, V4_SMALL, 32, **own)


def mobilenet_v4_medium(made, **own):
    return _mobilenet_v4(made, V4_MEDIUM, 32, **own)


def mobilenet_v4_large(made, **own):
    return _mobilenet_v4(made, V4_LARGE, 24, **own)


def _mobilenet_v4(made, stages, stem, activation=None, bottleneck_activation=None, skip=True, kernel=None):
    act, linear, keras = activation or "relu", bottleneck_activation or "identity", made.variant == "keras"

    def channels(c):
        return make_divisible(c * made.width)

    def unit(c_in, c_out, K, stride=1, groups=1, after="identity"):
        conv = made.conv(c_in, c_out, K, stride, groups)
        return named(conv=conv, bn=made.norm(c_out), act=ACTIVATIONS[after]())

    c_in = channels(stem) if keras or made.width >= 1 else stem
    net = made.timm_unit("conv_stem", 1, made.conv(3, c_in, 3, made.stem_stride), act)
    blocks, halves = [], made.cifar  # whether the next stride of 2 stays out
    for stage in stages:
        members = []
        for row in stage:
            if not isinstance(row, Universal):
                stride, halves = 1 if halves else 2, False
            if isinstance(row, tuple) and not isinstance(row, Universal):
                wide, c_out = map(channels, row)
                members.append(
                    named(**made.timm_unit("conv", 1, made.conv(c_in, wide, kernel or 3, stride), act))
                )
                members.append(named(**made.timm_unit("conv", 1, made.conv(wide, c_out, 1), act)))
                c_in = c_out
            elif isinstance(row, int):
                wide, c_out = make_divisible(c_in * 4), channels(row)
                fused = made.timm_unit("conv_exp", 1, made.conv(c_in, wide, kernel or 3, stride), act)
                fused.update(made.timm_unit("conv_pwl", 2, made.conv(wide, c_out, 1), linear))
                members.append(Residual(fused, skip and stride == 1 and c_in == c_out))
                c_in = c_out
            else:
                for i in range(row.repeats):
                    stride = row.stride if i == 0 else 1
                    wide, c_out = make_divisible(c_in * row.ratio), channels(row.channels)
                    parts = OrderedDict()
                    if row.first:
                        own = 1 if row.second else stride
                        parts["dw_start"] = unit(c_in, c_in, kernel or row.first, own, groups=c_in)
                    parts["pw_exp"] = unit(c_in, wide, 1, after=act)
                    if row.second:
                        parts["dw_mid"] = unit(
                            wide, wide, kernel or row.second, stride, groups=wide, after=act
                        )
                    parts["pw_proj"] = unit(wide, c_out, 1, after=linear)
                    members.append(Residual(parts, skip and stride == 1 and c_in == c_out))
                    c_in = c_out
        blocks.append(nn.Sequential(*members))
    wide = channels(960)
    blocks.append(nn.Sequential(named(**made.timm_unit("conv", 1, made.conv(c_in, wide, 1), act))))
    head = make_divisible(1280 * max(1, made.width)) if keras else 1280
    net.update(blocks=nn.Sequential(*blocks), pool=KeptPool(), conv_head=made.conv(wide, head, 1))
    net.update(norm_head=made.norm(head), act_head=ACTIVATIONS[act](), flatten=nn.Flatten())
    return named(**net, dropout=nn.Dropout(made.dropout), classifier=nn.Linear(head, made.classes))


# --- MnasNet: A1 with the names of timm, B1 with those of torchvision, the article's like B1 ----------------


A1 = [
    Stage(3, 1, 16, 1, 1),
    Stage(3, 6, 24, 2, 2),
    Stage(5, 3, 40, 3, 2, 0.25),
    Stage(3, 6, 80, 4, 2),
    Stage(3, 6, 112, 2, 1, 0.25),
    Stage(5, 6, 160, 3, 2, 0.25),
    Stage(3, 6, 320, 1, 1),
]

B1 = [
    Stage(3, 1, 16, 1, 1),
    Stage(3, 3, 24, 3, 2),
    Stage(5, 3, 40, 3, 2),
    Stage(5, 6, 80, 3, 2),
    Stage(3, 6, 96, 2, 1),
    Stage(5, 6, 192, 4, 2),
    Stage(3, 6, 320, 1, 1),
]


def mnasnet_a1(made, activation=None, bottleneck_activation=None, skip=True, kernel=None, se=None):
    assert se in (None, False)
    act, linear = activation or "relu", bottleneck_activation or "identity"
    c_in = make_divisible(32 * made.width)
    layers = made.timm_unit("conv_stem", 1, made.conv(3, c_in, 3, made.stem_stride), act)
    stages = []
    for row in made.stages(A1):
        blocks = []
        for i in range(row.repeats):
            c_out, stride = make_divisible(row.channels * made.width), row.stride if i == 0 else 1
            hidden, K = c_in * row.expansion, kernel or row.kernel
            depthwise = made.conv(hidden, hidden, K, stride, groups=hidden)
            project = made.conv(hidden, c_out, 1)
            if row.expansion == 1:  # the separable block
                block = made.timm_unit("conv_dw", 1, depthwise, act)
                block.update(made.timm_unit("conv_pw", 2, project, linear))
            else:
                block = made.timm_unit("conv_pw", 1, made.conv(c_in, hidden, 1), act)
                block.update(made.timm_unit("conv_dw", 2, depthwise, act))
                if row.squeeze and se is None:
                    names = ("conv_reduce", "conv_expand")
                    block.update(se=SqueezeExcite(hidden, int(c_in * row.squeeze), "sigmoid", names))
                block.update(made.timm_unit("conv_pwl", 3, project, linear))
            blocks.append(Residual(block, skip and row.expansion > 1 and stride == 1 and c_in == c_out))
            c_in = c_out
        stages.append(nn.Sequential(*blocks))
    layers.update(blocks=nn.Sequential(*stages))
    layers.update(made.timm_unit("conv_head", 2, made.conv(c_in, 1280, 1), act))
    layers.update(pool=GlobalAveragePool(), dropout=nn.Dropout(made.dropout))
    return named(**layers, classifier=nn.Linear(1280, made.classes))


def mnasnet_b1(made, activation=None, bottleneck_activation=None, skip=True, kernel=None, se=None):
    assert not se, "B1 has no squeeze-and-excite"
    own = activation or "relu", bottleneck_activation or "identity", skip, kernel
    c_in, separated = (make_divisible(c * made.width) for c in (32, 16))
    layers = made.unit(3, c_in, 3, made.stem_stride, own[0])
    layers += made.unit(c_in, c_in, kernel or 3, 1, own[0], groups=c_in)
    layers += made.unit(c_in, separated, 1, 1, own[1])
    stacks, c_in = _mnasnet_stacks(made, separated, *own)
    layers += [*stacks, *made.unit(c_in, 1280, 1, 1, own[0])]
    return _mnasnet(made, layers, 1280)


def mnasnet_keras(made, activation=None, bottleneck_activation=None, skip=True, kernel=None, se=None):
    """The article's: nothing between the first depthwise and pointwise, ReLU6 after; no last convolution."""
    assert not se, "the article's net has no squeeze-and-excite"
    own = activation or "relu6", bottleneck_activation or "identity", skip, kernel
    c_in, separated = make_divisible(32 * made.width), int(16 * made.width)
    layers = made.unit(3, c_in, 3, made.stem_stride, own[0])
    layers += [made.conv(c_in, c_in, kernel or 3, groups=c_in)]
    layers += made.unit(c_in, separated, 1, 1, own[0])
    stacks, c_in = _mnasnet_stacks(made, separated, *own, cuts=True)
    return _mnasnet(made, layers + stacks, c_in)


def _mnasnet_stacks(made, c_in, activation, bottleneck_activation, skip, kernel, cuts=False):
    """Rows 2 to 7 of B1's table, a Sequential each, and their output channels; ``cuts``: fractions go before rounding."""
    stacks = []
    for row in made.stages(B1)[1:]:
        blocks = []
        for i in range(row.repeats):
            wide = row.channels * made.width
            c_out, stride = make_divisible(int(wide) if cuts else wide), row.stride if i == 0 else 1
            hidden = c_in * row.expansion
            layers = made.unit(c_in, hidden, 1, 1, activation)
            layers += made.unit(hidden, hidden, kernel or row.kernel, stride, activation, groups=hidden)
            layers += made.unit(hidden, c_out, 1, 1, bottleneck_activation)
            adds = skip and stride == 1 and c_in == c_out
            blocks.append(Residual(OrderedDict(layers=nn.Sequential(*layers)), adds))
            c_in = c_out
        stacks.append(nn.Sequential(*blocks))
    return stacks, c_in


def _mnasnet(made, layers, channels):
    return named(
        layers=nn.Sequential(*layers),
        pool=GlobalAveragePool(),
        classifier=nn.Sequential(nn.Dropout(made.dropout), nn.Linear(channels, made.classes)),
    )


# --- VGG16 and GoogLeNet, which the papers compare with; names of torchvision -------------------------------


def vgg16(made):
    """Configuration D. Five pools halve the side: the first dense layer has (resolution/32)²·512 inputs."""
    assert made.width == 1
    layers, c_in = [], 3
    for c, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            layers += [made.conv(c_in, c, 3, bias=True), nn.ReLU()]
            c_in = c
        layers.append(nn.MaxPool2d(2))
    wide = 512 * (made.resolution // 32) ** 2
    return named(
        features=nn.Sequential(*layers),
        flatten=nn.Flatten(),
        classifier=nn.Sequential(
            *(nn.Linear(wide, 4096), nn.ReLU(), nn.Dropout(made.dropout)),
            *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(made.dropout)),
            nn.Linear(4096, made.classes),
        ),
    )


def plain_3x3(made, stem=24, rows=((64, 2), (256, 2), (256, 2)), activation="relu"):
    """2×2 filters without padding; in each stage a convolution, a max pooling, and the other convolutions."""
    first = nn.Conv2d(3, stem, 2, made.stem_stride, bias=False)
    layers, c_in = [first, made.norm(stem), ACTIVATIONS[activation]()], stem
    for c, count in rows:
        c = make_divisible(c * made.width)
        for number in range(count):
            layers += made.unit(c_in, c, 3, 1, activation)
            c_in = c
            if number == 0:
                layers.append(nn.MaxPool2d(2))
    return named(
        features=nn.Sequential(*layers),
        pool=GlobalAveragePool(),
        dropout=nn.Dropout(made.dropout),
        classifier=nn.Linear(c_in, made.classes),
    )


INCEPTIONS = {  # channels of 1×1 | 1×1, 3×3 | 1×1, 3×3 | pool, 1×1; or the kernel of a max pool
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "maxpool3": 3,
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "maxpool4": 2,
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}


class Inception(nn.Module):
    """Four branches side by side, concatenated."""

    def __init__(self, *branches):
        super().__init__()
        self.branch1, self.branch2, self.branch3, self.branch4 = branches

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


def googlenet(made):
    """torchvision's: batch norm, no auxiliary heads, a 3×3 where the paper's third branch has 5×5."""
    assert made.width == 1

    def unit(c_in, c_out, kernel, stride=1):
        return named(conv=made.conv(c_in, c_out, kernel, stride), bn=made.norm(c_out), act=nn.ReLU())

    layers = OrderedDict(
        conv1=unit(3, 64, 7, made.stem_stride),
        maxpool1=nn.MaxPool2d(3, 2, ceil_mode=True),
        conv2=unit(64, 64, 1),
        conv3=unit(64, 192, 3),
        maxpool2=nn.MaxPool2d(3, 2, ceil_mode=True),
    )
    c_in = 192
    for name, row in INCEPTIONS.items():
        if name.startswith("maxpool"):
            layers[name] = nn.MaxPool2d(row, 2, ceil_mode=True)
            continue
        one, before3, three, before5, five, pooled = row
        layers[name] = Inception(
            unit(c_in, one, 1),
            nn.Sequential(unit(c_in, before3, 1), unit(before3, three, 3)),
            nn.Sequential(unit(c_in, before5, 1), unit(before5, five, 3)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), unit(c_in, pooled, 1)),
        )
        c_in = one + three + five + pooled
    layers.update(
        pool=GlobalAveragePool(), dropout=nn.Dropout(made.dropout), fc=nn.Linear(c_in, made.classes)
    )
    return named(**layers)


BUILDERS = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_large": mobilenet_v3_large,
    "mobilenet_v3_small": mobilenet_v3_small,
    "mobilenet_v3_large_minimalistic": mobilenet_v3_large_minimalistic,
    "mobilenet_v3_small_minimalistic": mobilenet_v3_small_minimalistic,
    "mobilenet_v4_small": mobilenet_v4_small,
    "mobilenet_v4_medium": mobilenet_v4_medium,
    "mobilenet_v4_large": mobilenet_v4_large,
    "mnasnet_a1": mnasnet_a1,
    "mnasnet_b1": mnasnet_b1,
    "mnasnet_keras": mnasnet_keras,
    "plain_3x3": plain_3x3,
    "vgg16": vgg16,
    "googlenet": googlenet,
}


# --- what a net costs ---------------------------------------------------------------------------------------


class Layer(NamedTuple):
    """A convolution or dense layer as it ran; the output shape is without N, channels first."""

    name: str
    shape: tuple
    params: int
    macs: int


KEEP_SHAPE = (nn.BatchNorm2d, nn.Dropout, DownscaleInInference, *ACTIVATIONS.values())


def layers(net, resolution=224):
    """Every convolution and dense layer in the order they run, on one image of ``resolution``.

    What only passes a shape on is left out of the run: on the meta device it takes nine tenths of the time.
    """
    rows, handles = [], []

    def noting(name):
        def note(layer, inputs, output):
            params = sum(p.numel() for p in layer.parameters())
            macs = output[0].numel() * layer.weight[0].numel()  # each output number is a sum over weight[0]
            rows.append(Layer(name, tuple(output.shape[1:]), params, macs))

        return note

    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            handles.append(module.register_forward_hook(noting(name)))
        elif isinstance(module, KEEP_SHAPE):
            module.forward = lambda x: x
    first = next(net.parameters())
    try:
        with torch.no_grad():
            net(torch.zeros(1, 3, resolution, resolution, dtype=first.dtype, device=first.device))
    finally:
        for handle in handles:
            handle.remove()
        for module in net.modules():
            if isinstance(module, KEEP_SHAPE):
                del module.forward
    return rows


def cost(net, resolution=224):
    """(trainable parameters, multiply-accumulates of one image)."""
    return sum(p.numel() for p in net.parameters()), sum(row.macs for row in layers(net, resolution))
