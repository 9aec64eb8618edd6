"""MobileNetV2: Sandler et al. 2018, "MobileNetV2: Inverted residuals and linear bottlenecks".

Table 2 of the paper as the rows below: t is the expansion of a block's input channels, c its output channels, n how
often the block is repeated, s the stride of the first. The text speaks of 19 bottlenecks; the table and all
implementations have 17.

Where the sources differ. Widths: Keras rounds ⌊α·c⌋ to a multiple of 8, torchvision α·c (they part at α = 1.12, c = 16:
16 against 24), PaddleClas takes ⌊α·c⌋. The last convolution grows with α only above 1. A block with t = 1 has no
expanding convolution; PaddleClas keeps one (+1,088 parameters at α = 1). ε is 1e-3 in Keras, 1e-5 in the others.
Dropout before the classifier is torchvision's 0.2; Keras and PaddleClas have none.

``rows`` is another table of [t, c, n, s] for nets of one's own.
"""

from typing import NamedTuple

from numnet.blocks import Conv, InvertedResidual, Pointwise
from numnet.models.common import (
    CHANNELS,
    REPEATS,
    STRIDE,
    Bottleneck,
    Settings,
    classifier,
    own_rows,
    round_to_8,
)


class Row(NamedTuple):
    """A row of table 2: expansion, output channels, repeats, stride of the first."""

    t: int
    c: int
    n: int
    s: int


STEM = 32
ROWS = [
    Row(t=1, c=16, n=1, s=1),
    Row(t=6, c=24, n=2, s=2),
    Row(t=6, c=32, n=3, s=2),
    Row(t=6, c=64, n=4, s=2),
    Row(t=6, c=96, n=3, s=1),
    Row(t=6, c=160, n=3, s=2),
    Row(t=6, c=320, n=1, s=1),
]
LAST = 1280


def table(rows=None) -> list[Row]:
    """The rows of ``rows``, or the paper's."""
    return own_rows(Row, rows, t=REPEATS, c=CHANNELS, n=REPEATS, s=STRIDE) or ROWS


def layers(settings: Settings, *, rows=None, se=None, bottleneck_activation=None, skip=True) -> list:
    """The net of table 2 as layers."""
    options, paddle = Bottleneck(se, bottleneck_activation, skip), settings.variant == "paddle"

    def ends(c, width):
        """Channels of the stem and of the last convolution."""
        return max(int(c * width), 1) if paddle else round_to_8(c * width)

    def channels(c):
        """Output channels of a block."""
        return round_to_8(int(c * settings.width)) if settings.variant == "keras" else ends(c, settings.width)

    frame = {
        "activation": settings.activation or "relu6",
        "norm": settings.norm(eps={"keras": 1e-3, "torch": 1e-5, "paddle": 1e-5}),
    }
    kernel, padding = settings.kernel or 3, settings.padding
    c_in = ends(STEM, settings.width)
    net = [Conv(c_in, 3, settings.stem_stride, padding, **frame, name="stem")]
    for row in settings.stages(table(rows)):
        for i in range(row.n):
            expanded = c_in * row.t
            block = InvertedResidual(
                channels(row.c),
                row.s if i == 0 else 1,
                expanded=expanded if row.t > 1 or paddle else None,
                kernel=kernel,
                padding=padding,
                squeeze=options.squeeze(expanded),
                **frame,
                **options.frame,
                name=f"block{len(net)}",
            )
            net.append(block)
            c_in = channels(row.c)
    net.append(Pointwise(ends(LAST, max(1, settings.width)), **frame, name="last"))
    return net + classifier(settings, dropout={"keras": 0.0, "torch": 0.2, "paddle": 0.0})
