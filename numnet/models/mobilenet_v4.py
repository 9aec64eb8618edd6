"""MobileNetV4-Conv, small, medium and large: Qin et al. 2024, "MobileNetV4: Universal models for the mobile ecosystem".

The paper's tables as the rows below. One block does nearly all, the universal inverted bottleneck
(``numnet.blocks.UniversalBottleneck``): two kernels say which of its four forms a row is, ``k1`` of the depthwise
convolution before the expansion and ``k2`` of the one behind it, 0 for none. The first stages have standard convolutions
instead ("fused"): on few channels and large maps they keep a machine's multipliers busier than two thin layers do. No
squeeze-and-excite, no h-swish: ReLU everywhere. The end is V3's with a batch norm more: 960 channels, pooling, and only
then a 1×1 convolution to 1,280.

    row              k1  k2   what it is
    conv             –   K    K×K convolution to e channels, 1×1 to c, an activation behind both (Small's first stages)
    fused            –   K    the same with a linear end and the skip: an inverted bottleneck whose first two steps are one
    uib, extra       K   K    depthwise, expand, depthwise, project
    uib, inverted    0   K    MobileNetV2's block
    uib, ConvNeXt    K   0    depthwise, expand, project: the spatial mixing is done on the thin map
    uib, feed-forward 0  0    expand, project: no spatial mixing

Parameters at width 1 and 1,000 classes, exactly timm's: 3,774,024, 9,715,512 and 32,590,864.

Where the sources differ. ε is 1e-3 in the authors' TensorFlow code (variant "keras"), 1e-5 in timm ("torch") and in
"paddle", which is taken to be timm's. Other widths: e keeps its *ratio* to the block's input, as in V3 of Keras. Below
width 1 timm leaves the stem as it is, the authors' code thins it; above 1 the authors' code widens the 1,280, timm does
not. A block whose only depthwise convolution is the first one has its stride there, else it is in the second.

``rows`` is another table of [kind, k1, k2, e, c, s] for nets of one's own; ``stem`` and ``last`` are the channels of the
first convolution and of the one before the pooling, ``wide`` those of the one behind it.
"""

from typing import NamedTuple

from numnet.blocks import Conv, Pointwise, Residual, Sequence, UniversalBottleneck
from numnet.errors import NumnetError
from numnet.layers import Flatten, GlobalAverage
from numnet.models.common import (
    CHANNELS,
    STRIDE,
    Bottleneck,
    Settings,
    classifier,
    ending,
    own_rows,
    round_to_8,
)

KINDS = ("conv", "fused", "uib")


class Row(NamedTuple):
    """A row of one of the paper's tables: kind, the two kernels, expanded channels, output channels, stride."""

    kind: str
    k1: int
    k2: int
    e: int
    c: int
    s: int


SMALL = [
    Row("conv", k1=0, k2=3, e=32, c=32, s=2),
    Row("conv", k1=0, k2=3, e=96, c=64, s=2),
    Row("uib", k1=5, k2=5, e=192, c=96, s=2),
    *[Row("uib", k1=0, k2=3, e=192, c=96, s=1)] * 4,
    Row("uib", k1=3, k2=0, e=384, c=96, s=1),
    Row("uib", k1=3, k2=3, e=576, c=128, s=2),
    Row("uib", k1=5, k2=5, e=512, c=128, s=1),
    Row("uib", k1=0, k2=5, e=512, c=128, s=1),
    Row("uib", k1=0, k2=5, e=384, c=128, s=1),
    *[Row("uib", k1=0, k2=3, e=512, c=128, s=1)] * 2,
]
MEDIUM = [
    Row("fused", k1=0, k2=3, e=128, c=48, s=2),
    Row("uib", k1=3, k2=5, e=192, c=80, s=2),
    Row("uib", k1=3, k2=3, e=160, c=80, s=1),
    Row("uib", k1=3, k2=5, e=480, c=160, s=2),
    *[Row("uib", k1=3, k2=3, e=640, c=160, s=1)] * 2,
    Row("uib", k1=3, k2=5, e=640, c=160, s=1),
    Row("uib", k1=3, k2=3, e=640, c=160, s=1),
    Row("uib", k1=3, k2=0, e=640, c=160, s=1),
    Row("uib", k1=0, k2=0, e=320, c=160, s=1),
    Row("uib", k1=3, k2=0, e=640, c=160, s=1),
    Row("uib", k1=5, k2=5, e=960, c=256, s=2),
    Row("uib", k1=5, k2=5, e=1024, c=256, s=1),
    *[Row("uib", k1=3, k2=5, e=1024, c=256, s=1)] * 2,
    Row("uib", k1=0, k2=0, e=1024, c=256, s=1),
    Row("uib", k1=3, k2=0, e=1024, c=256, s=1),
    Row("uib", k1=3, k2=5, e=512, c=256, s=1),
    Row("uib", k1=5, k2=5, e=1024, c=256, s=1),
    *[Row("uib", k1=0, k2=0, e=1024, c=256, s=1)] * 2,
    Row("uib", k1=5, k2=0, e=512, c=256, s=1),
]
LARGE = [
    Row("fused", k1=0, k2=3, e=96, c=48, s=2),
    Row("uib", k1=3, k2=5, e=192, c=96, s=2),
    Row("uib", k1=3, k2=3, e=384, c=96, s=1),
    Row("uib", k1=3, k2=5, e=384, c=192, s=2),
    *[Row("uib", k1=3, k2=3, e=768, c=192, s=1)] * 3,
    Row("uib", k1=3, k2=5, e=768, c=192, s=1),
    *[Row("uib", k1=5, k2=3, e=768, c=192, s=1)] * 5,
    Row("uib", k1=3, k2=0, e=768, c=192, s=1),
    Row("uib", k1=5, k2=5, e=768, c=512, s=2),
    *[Row("uib", k1=5, k2=5, e=2048, c=512, s=1)] * 3,
    Row("uib", k1=5, k2=0, e=2048, c=512, s=1),
    Row("uib", k1=5, k2=3, e=2048, c=512, s=1),
    *[Row("uib", k1=5, k2=0, e=2048, c=512, s=1)] * 2,
    Row("uib", k1=5, k2=3, e=2048, c=512, s=1),
    Row("uib", k1=5, k2=5, e=2048, c=512, s=1),
    *[Row("uib", k1=5, k2=0, e=2048, c=512, s=1)] * 3,
]
ROWS = {"small": SMALL, "medium": MEDIUM, "large": LARGE}
STEM, LAST, WIDE = {"small": 32, "medium": 32, "large": 24}, 960, 1280

KIND = (lambda v: isinstance(v, str) and v in KINDS), "one of " + ", ".join(KINDS)
KERNEL = (
    (lambda v: isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 255),
    "0 for none, or at most 255",
)


def table(size, rows=None) -> list[Row]:
    """The rows of ``rows``, or the paper's."""
    own = own_rows(Row, rows, kind=KIND, k1=KERNEL, k2=KERNEL, e=CHANNELS, c=CHANNELS, s=STRIDE)
    for number, row in enumerate(own or (), 1):
        if row.kind != "uib" and (row.k1 or not row.k2):
            raise NumnetError(
                f"rows: row {number} is a {row.kind} block, whose only kernel is k2; got {list(row)}"
            )
        if row.kind == "uib" and row.s > 1 and not (row.k1 or row.k2):
            raise NumnetError(
                f"rows: row {number} has stride {row.s} and no depthwise convolution to take it"
            )
    return own or ROWS[size]


def layers(
    settings: Settings,
    *,
    size,
    rows=None,
    stem=None,
    last=None,
    wide=None,
    bottleneck_activation=None,
    skip=True,
) -> list:
    """The net of a table as layers."""
    linear, timm = Bottleneck(None, bottleneck_activation, skip).frame, settings.variant != "keras"

    def channels(c):
        return round_to_8(c * settings.width)

    frame = {
        "activation": settings.activation or "relu",
        "norm": settings.norm(eps={"keras": 1e-3, "torch": 1e-5, "paddle": 1e-5}),
    }
    norm, padding = frame["norm"], settings.padding
    before = stem or STEM[size]  # the table's own channels before a row
    c_in = before if timm and settings.width < 1 else channels(before)
    net = [Conv(c_in, 3, settings.stem_stride, padding, **frame, name="stem")]
    for i, row in enumerate(settings.stages(table(size, rows))):
        name, own = f"block{i + 1}", settings.kernel
        expanded = channels(row.e) if row.kind == "conv" else round_to_8(c_in * (row.e / before))
        if row.kind == "uib":
            block = UniversalBottleneck(
                channels(row.c), row.s, expanded=expanded, start=row.k1 and (own or row.k1),
                middle=row.k2 and (own or row.k2), padding=padding, **frame, **linear, name=name,
            )  # fmt: skip
        else:
            first = Conv(expanded, own or row.k2, row.s, padding, **frame, name="fused")
            end = frame["activation"] if row.kind == "conv" else linear["bottleneck_activation"]
            project = Pointwise(channels(row.c), activation=end, norm=norm, name="project")
            if row.kind == "conv":
                block = Sequence(first, project, name=name)
            else:
                block = Residual(first, project, skip=skip, name=name)
        net.append(block)
        c_in, before = channels(row.c), row.c
    net.append(Pointwise(channels(last or LAST), **frame, name="last"))
    rates = {"keras": 0.0, "torch": 0.0, "paddle": 0.0}
    if settings.head is not None:  # in place of the wide layer
        return net + classifier(settings, rates)
    widest = (wide or WIDE) if timm else round_to_8((wide or WIDE) * max(1, settings.width))
    return [
        *net,
        GlobalAverage(keep=True, name="pool"),
        Pointwise(widest, **frame, name="wide"),
        Flatten(name="flatten"),
        *ending(settings, rates),
    ]
