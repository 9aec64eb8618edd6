"""MobileNetV3-Large and -Small: Howard et al. 2019, "Searching for MobileNetV3".

Tables 1 and 2 of the paper as the rows below: kernel, *expanded* channels, output channels, squeeze-and-excite,
activation, stride. New against V2: squeeze-and-excite after the depthwise convolution, h-swish in the deeper half, a
stem of 16 channels, and the redesigned end (section 5.1): the last 1×1 convolution, the pooling, and only then the wide
layer, a dense one with bias and without batch norm.

Where the sources differ, all at width 1 unless said:
- The first row expands 16 channels to 16. Keras, torchvision and timm leave that convolution out, PaddleClas has it
  (the paper's 219 M multiply-adds for Large count it too: 216,589,760 + 3,211,264).
- Small's wide layer is 1,024 in the last printing and in all implementations but PaddleClas, which has 1,280.
- The squeeze is a quarter of the expanded channels, rounded to a multiple of 8; PaddleClas takes ⌊e/4⌋, the
  hard-sigmoid of slope 1/5, and no bias in the wide layer.
- Other widths: Keras keeps the *ratio* of expansion, torchvision and PaddleClas scale the expanded channels. Keras keeps
  the stem at 16 and the wide layer unless α > 1; torchvision scales both; PaddleClas the stem only.
- PaddleClas's dropout scales in inference, not in training.

"Minimalistic" nets (Keras, and timm's ``tf_mobilenetv3_…_minimal_100``) have ReLU, 3×3 kernels and no squeeze-and-excite
throughout: ``mobilenet_v3_large_minimalistic`` and ``mobilenet_v3_small_minimalistic``, the same as
``activation="relu", kernel=3, se=False``.

Nets of one's own: ``rows``, another table of [k, e, c, se, nl, s] (PaddleClas's ``config``), and the channels at width 1 of
the stem, of the last convolution and of the wide layer: ``stem``, ``last``, ``wide`` (its ``inplanes``, ``class_squeeze``,
``class_expand``). Where ``rows`` say a nonlinearity for each block, ``activation`` is that of the layers around them.
"""

from dataclasses import replace
from typing import NamedTuple

from numnet.blocks import Conv, InvertedResidual, Pointwise
from numnet.layers import Activation, Dense, GlobalAverage
from numnet.models.common import (
    ACTIVATION,
    CHANNELS,
    KERNEL,
    STRIDE,
    Bottleneck,
    Settings,
    classifier,
    ending,
    own_rows,
    round_to_8,
)


class Row(NamedTuple):
    """A row of table 1 or 2: kernel, expanded channels, output channels, squeeze-and-excite, nonlinearity, stride."""

    k: int
    e: int
    c: int
    se: bool
    nl: str
    s: int


RE, HS = "relu", "hswish"
STEM = 16
LARGE = [
    Row(k=3, e=16, c=16, se=False, nl=RE, s=1),
    Row(k=3, e=64, c=24, se=False, nl=RE, s=2),
    Row(k=3, e=72, c=24, se=False, nl=RE, s=1),
    Row(k=5, e=72, c=40, se=True, nl=RE, s=2),
    Row(k=5, e=120, c=40, se=True, nl=RE, s=1),
    Row(k=5, e=120, c=40, se=True, nl=RE, s=1),
    Row(k=3, e=240, c=80, se=False, nl=HS, s=2),
    Row(k=3, e=200, c=80, se=False, nl=HS, s=1),
    Row(k=3, e=184, c=80, se=False, nl=HS, s=1),
    Row(k=3, e=184, c=80, se=False, nl=HS, s=1),
    Row(k=3, e=480, c=112, se=True, nl=HS, s=1),
    Row(k=3, e=672, c=112, se=True, nl=HS, s=1),
    Row(k=5, e=672, c=160, se=True, nl=HS, s=2),
    Row(k=5, e=960, c=160, se=True, nl=HS, s=1),
    Row(k=5, e=960, c=160, se=True, nl=HS, s=1),
]
SMALL = [
    Row(k=3, e=16, c=16, se=True, nl=RE, s=2),
    Row(k=3, e=72, c=24, se=False, nl=RE, s=2),
    Row(k=3, e=88, c=24, se=False, nl=RE, s=1),
    Row(k=5, e=96, c=40, se=True, nl=HS, s=2),
    Row(k=5, e=240, c=40, se=True, nl=HS, s=1),
    Row(k=5, e=240, c=40, se=True, nl=HS, s=1),
    Row(k=5, e=120, c=48, se=True, nl=HS, s=1),
    Row(k=5, e=144, c=48, se=True, nl=HS, s=1),
    Row(k=5, e=288, c=96, se=True, nl=HS, s=2),
    Row(k=5, e=576, c=96, se=True, nl=HS, s=1),
    Row(k=5, e=576, c=96, se=True, nl=HS, s=1),
]
LAST = 6  # the last convolution's channels, as a multiple of its input's: 960 = 6·160, 576 = 6·96
WIDE = {"large": 1280, "small": 1024}


SWITCH = (lambda v: v in (False, True)), "true or false"


def table(size, rows=None) -> list[Row]:
    """The rows of ``rows``, or the paper's table 1 or 2."""
    own = own_rows(Row, rows, k=KERNEL, e=CHANNELS, c=CHANNELS, se=SWITCH, nl=ACTIVATION, s=STRIDE)
    return own or (LARGE if size == "large" else SMALL)


def layers(
    settings: Settings,
    *,
    size,
    rows=None,
    stem=None,
    last=None,
    wide=None,
    se=None,
    bottleneck_activation=None,
    skip=True,
) -> list:
    """The net of table 1 (``size`` "large") or table 2 ("small") as layers."""
    options, variant = Bottleneck(se, bottleneck_activation, skip), settings.variant

    def channels(c):
        return round_to_8(c * settings.width)

    norm = settings.norm(eps={"keras": 1e-3, "torch": 1e-3, "paddle": 1e-5})
    padding, last_activation = settings.padding, settings.activation or HS
    tail = {"activation": last_activation, "norm": norm}
    before = stem or STEM  # the table's own channels before a row
    c_in = before if variant == "keras" else channels(before)
    net = [Conv(c_in, 3, settings.stem_stride, padding, **tail, name="stem")]
    for i, row in enumerate(settings.stages(table(size, rows))):
        if variant == "keras":
            as_is = i == 0 and row.e == before
            expanded = c_in if as_is else round_to_8(c_in * (row.e / before))
        else:
            expanded = channels(row.e)
        expands = {"keras": i > 0 or expanded != c_in, "torch": expanded != c_in, "paddle": True}[variant]
        own = (expanded // 4 if variant == "paddle" else round_to_8(expanded / 4)) if row.se else 0
        block = InvertedResidual(
            channels(row.c),
            row.s,
            expanded=expanded if expands else None,
            kernel=settings.kernel or row.k,
            activation=row.nl if rows else settings.activation or row.nl,
            norm=norm,
            padding=padding,
            squeeze=options.squeeze(expanded, own),
            gate="hsigmoid02" if variant == "paddle" else "hsigmoid",
            **options.frame,
            name=f"block{i + 1}",
        )
        net.append(block)
        c_in, before = channels(row.c), row.c
    if last is not None:
        last = channels(last)
    else:
        last = channels(LAST * before) if variant == "paddle" else LAST * c_in
    wide = wide or (WIDE["large"] if variant == "paddle" else WIDE[size])
    if variant == "torch" or (variant == "keras" and settings.width > 1):
        wide = channels(wide)
    rates = {"keras": 0.2, "torch": 0.2, "paddle": 0.2}
    net.append(Pointwise(last, **tail, name="last"))
    if settings.head is not None:  # in place of the wide layer
        return net + classifier(settings, rates)
    return [
        *net,
        GlobalAverage(name="pool"),
        Dense(wide, bias=variant != "paddle", name="wide"),
        Activation(last_activation, name="wide_act"),
        *ending(settings, rates, downscale=variant == "paddle"),
    ]


def minimalistic(settings: Settings, *, size, bottleneck_activation=None, skip=True) -> list:
    """The net of a table without what slow processors are slow at: ReLU, 3×3 kernels, no squeeze-and-excite."""
    plain = replace(settings, activation=settings.activation or "relu", kernel=settings.kernel or 3)
    return layers(plain, size=size, se=False, bottleneck_activation=bottleneck_activation, skip=skip)
