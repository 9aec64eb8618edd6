"""MobileNetV1: Howard et al. 2017, "MobileNets: Efficient convolutional neural networks for mobile vision applications".

A standard convolution, then thirteen depthwise-separable blocks, global average pooling and a dense layer: table 1 of
the paper as the rows below. ``width`` (the paper's α) thins every layer to ⌊α·c⌋ channels, ``resolution`` (ρ) shrinks
the input; both cost quadratically less.

Where the sources differ: the paper's figure 3 shows ReLU, its authors' code and Keras use ReLU6 (``variant="paddle"``
uses ReLU as PaddleClas does). The paper prints stride 2 at the last depthwise layer, whose output is 7×7 like its
input: the stride is 1. Keras and PaddleClas take ⌊α·c⌋; timm (``variant="torch"``) rounds to multiples of 8.

``separable=False`` is the paper's "Conv MobileNet" (table 4): each block a standard 3×3 convolution of the same stride.
``shallow=True`` drops the five 512-channel blocks at 14×14 (table 5). ``depth_multiplier`` is Keras's: depthwise filters
for each channel; it is not the resolution multiplier that one article takes it for.

Two options are not the paper's, for nets of one's own: ``rows``, another table of [channels, stride], the stem's
first (its strides are what is built, whatever ``strides`` says), and ``skip=True``, which adds a block's input to its
output where shapes agree. A separable block is then V2's inverted residual without expansion, its projection with an
activation. The recipes of CIFAR-10 use both. A row may also say of which kind its block is: [channels, stride,
"standard"] is one standard convolution, as in "Conv MobileNet": where maps are large and channels few it costs little
(the first blocks of MobileNetV4, Qin et al. 2024, and of EfficientNetV2, Tan & Le 2021, are of that kind); [channels,
stride, "squeeze-excite"] is a separable one that weighs its channels between the two convolutions, as MobileNetV3's
do (Howard et al. 2019, section 5.3), through a bottleneck of a quarter of the row's channels.
"""

from typing import NamedTuple

from numnet.blocks import Conv, InvertedResidual, Residual, Separable
from numnet.errors import NumnetError
from numnet.models.common import CHANNELS, MOST_ROWS, STRIDE, Settings, classifier, round_to_8, shown


class Row(NamedTuple):
    """A block of table 1: output channels, the stride of its depthwise convolution, and of which kind the block is."""

    c: int
    s: int
    kind: str = "separable"


KINDS = ("separable", "standard", "squeeze-excite")
STEM = 32
ROWS = [
    Row(64, 1),
    Row(128, 2),
    Row(128, 1),
    Row(256, 2),
    Row(256, 1),
    Row(512, 2),
    Row(512, 1),
    Row(512, 1),
    Row(512, 1),
    Row(512, 1),
    Row(512, 1),
    Row(1024, 2),
    Row(1024, 1),
]
SHALLOW = ROWS[:6] + ROWS[11:]


def table(rows=None, shallow=False) -> list[Row]:
    """The blocks' rows, without the stem's: those of ``rows``, or the paper's."""
    if rows is None:
        return SHALLOW if shallow else ROWS
    return [Row(*row) for row in rows[1:]]


def check(rows):
    """Raise NumnetError if these are no rows of a table."""

    def fits(row):
        pair = isinstance(row, (list, tuple)) and len(row) in (2, 3)
        kind = pair and (len(row) == 2 or row[2] in KINDS)
        return kind and CHANNELS[0](row[0]) and STRIDE[0](row[1])

    if not isinstance(rows, (list, tuple)) or not 1 <= len(rows) <= MOST_ROWS or not all(map(fits, rows)):
        raise NumnetError(
            "rows: expected a list of [channels, stride] or [channels, stride, kind], kind one of "
            f"{', '.join(KINDS)}; the stem's first, at most {MOST_ROWS}, got {shown(rows)}"
        )


def layers(
    settings: Settings, *, separable=True, depth_multiplier=1, shallow=False, rows=None, skip=False
) -> list:
    """The net of table 1 as layers."""
    activation = settings.pick("activation", keras="relu6", torch="relu6", paddle="relu")
    frame = {
        "activation": activation,
        "norm": settings.norm(eps={"keras": 1e-3, "torch": 1e-5, "paddle": 1e-5}),
    }
    if settings.variant == "torch":

        def channels(c):
            return round_to_8(c * settings.width)
    else:

        def channels(c):
            return max(int(c * settings.width), 1)

    if rows is not None:
        check(rows)
    if rows is not None and shallow:
        raise NumnetError(
            "mobilenet_v1: rows and shallow both say which blocks there are; expected one of them"
        )
    stem = Row(STEM, settings.stem_stride) if rows is None else Row(*rows[0])
    blocks = table(rows, shallow)
    squeezes = any(row.kind == "squeeze-excite" for row in blocks)
    if depth_multiplier != 1 and (skip or squeezes):
        option = "skip" if skip else "squeeze-excite"
        raise NumnetError(f"mobilenet_v1: {option} is for blocks of depth multiplier 1")
    if depth_multiplier != 1 and not separable:
        raise NumnetError(
            "mobilenet_v1: depth_multiplier is for depthwise convolutions, and separable=False has none"
        )
    if squeezes and not separable:
        raise NumnetError(
            "mobilenet_v1: squeeze-excite is for separable blocks, and separable=False has none"
        )
    if stem.kind == "squeeze-excite":
        raise NumnetError(
            "mobilenet_v1: the first of rows is the stem, a standard convolution, got squeeze-excite"
        )
    kernel, padding = settings.kernel or 3, settings.padding
    net = [Conv(channels(stem.c), 3, stem.s, padding, **frame, name="stem")]
    for i, row in enumerate(blocks, start=1):
        name, c, own = f"block{i}", channels(row.c), {"kernel": kernel, "padding": padding, **frame}
        standard = not separable or row.kind == "standard"
        squeezed = max(c // 4, 1) if row.kind == "squeeze-excite" else 0
        if standard and skip:
            net.append(Residual(Conv(c, stride=row.s, **own), name=name))
        elif standard:
            net.append(Conv(c, stride=row.s, **own, name=name))
        elif skip or squeezed:
            own |= {"squeeze": squeezed, "skip": skip}
            net.append(InvertedResidual(c, row.s, bottleneck_activation=activation, **own, name=name))
        else:
            net.append(Separable(c, row.s, multiplier=depth_multiplier, **own, name=name))
    return net + classifier(settings, dropout={"keras": 0.001, "torch": 0.0, "paddle": 0.0})
