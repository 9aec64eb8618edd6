"""MnasNet-A1 and -B1: Tan et al. 2019, "MnasNet: Platform-aware neural architecture search for mobile"; and an article's.

Figure 7 of the paper (A1) and its authors' code (B1) as rows: kernel, expansion t of the block's input channels, output
channels, squeeze-and-excite as a part of the block's *input* channels, repeats, stride of the first. The first row, with
t = 1, is a separable block without a skip. A1's gate is a plain sigmoid. The variants differ in ε alone (Keras and
TensorFlow 1e-3, torchvision and timm 1e-5): no other framework publishes widths of its own. ``rows`` is another table of
[k, t, c, se, n, s] for nets of one's own.

``mnasnet_keras`` is the net of an article that presents MnasNet in Keras. It is B1 with these oddities, kept as they are:
- no batch norm and no activation between the first depthwise convolution and its pointwise, and ReLU6 after that
  pointwise, where B1 has a linear bottleneck; its channels are ⌊16·α⌋, not rounded to a multiple of 8;
- all other blocks round ⌊c·α⌋ to a multiple of 8, where the papers' code rounds c·α. The two part at six widths of two
  decimals up to 2: 0.14, 0.28, 0.67, 0.89, 1.12, 1.49 (``whole_channels``);
- ReLU6 everywhere, where the paper has ReLU;
- no 320 → 1280 convolution before the pooling, and no dropout: 3,011,088 parameters, not B1's 4,383,312;
- ``pooling``: whatever is not "avg" means the maximum; here only "max" does;
- ``depth_multiplier`` reaches the first depthwise convolution alone;
- batch norm's momentum is 0.999: after 250 steps the running statistics have absorbed 22 % of what they should know, so
  early validation accuracies mean nothing. For short trainings use ``bn_momentum=0.9``;
- at its 32×32 input the 5×5 kernels of the last blocks see 4 or 1 of their 25 taps; the rest is padding.
"""

from typing import NamedTuple

from numnet.blocks import Conv, Depthwise, InvertedResidual, Pointwise, Sequence
from numnet.errors import NumnetError
from numnet.layers import GlobalMax
from numnet.models.common import (
    CHANNELS,
    KERNEL,
    REPEATS,
    STRIDE,
    Bottleneck,
    Settings,
    classifier,
    own_rows,
    round_to_8,
)


class Row(NamedTuple):
    """Kernel, expansion, output channels, part of the input channels to squeeze to, repeats, stride of the first."""

    k: int
    t: int
    c: int
    se: float
    n: int
    s: int


STEM, LAST = 32, 1280
A1 = [
    Row(k=3, t=1, c=16, se=0, n=1, s=1),
    Row(k=3, t=6, c=24, se=0, n=2, s=2),
    Row(k=5, t=3, c=40, se=0.25, n=3, s=2),
    Row(k=3, t=6, c=80, se=0, n=4, s=2),
    Row(k=3, t=6, c=112, se=0.25, n=2, s=1),
    Row(k=5, t=6, c=160, se=0.25, n=3, s=2),
    Row(k=3, t=6, c=320, se=0, n=1, s=1),
]
B1 = [
    Row(k=3, t=1, c=16, se=0, n=1, s=1),
    Row(k=3, t=3, c=24, se=0, n=3, s=2),
    Row(k=5, t=3, c=40, se=0, n=3, s=2),
    Row(k=5, t=6, c=80, se=0, n=3, s=2),
    Row(k=3, t=6, c=96, se=0, n=2, s=1),
    Row(k=5, t=6, c=192, se=0, n=4, s=2),
    Row(k=3, t=6, c=320, se=0, n=1, s=1),
]
EPS = {"keras": 1e-3, "torch": 1e-5, "paddle": 1e-5}


PART = (
    (lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and 0 <= v <= 1),
    "a number from 0 to 1",
)


def own_table(rows) -> list[Row] | None:
    """A user's rows; None for none."""
    return own_rows(Row, rows, k=KERNEL, t=REPEATS, c=CHANNELS, se=PART, n=REPEATS, s=STRIDE)


def layers(settings: Settings, *, table, rows=None, se=None, bottleneck_activation=None, skip=True) -> list:
    """MnasNet-A1 or -B1 as layers; ``table``: A1 or B1; ``rows``: another in its place."""
    options = Bottleneck(se, bottleneck_activation, skip)
    frame = {"activation": settings.activation or "relu", "norm": settings.norm(EPS)}
    net = [Conv(_channels(STEM, settings), 3, settings.stem_stride, settings.padding, **frame, name="stem")]
    rows = settings.stages(own_table(rows) or table)
    net += _blocks(settings, rows, net[0].filters, options, frame)
    net.append(Pointwise(LAST, **frame, name="last"))
    return net + classifier(settings, dropout={"keras": 0.2, "torch": 0.2, "paddle": 0.2})


def article(
    settings: Settings, *, pooling="avg", depth_multiplier=1, se=None, bottleneck_activation=None, skip=True
) -> list:
    """The article's net as layers; see the top of this page."""
    if pooling not in ("avg", "max"):
        raise NumnetError(f'pooling: expected "avg" or "max", got {pooling!r}')
    options = Bottleneck(se, bottleneck_activation, skip)
    frame = {"activation": settings.activation or "relu6", "norm": settings.norm(eps=1e-3, momentum=0.999)}
    thin, padding = max(int(16 * settings.width), 1), settings.padding
    net = [
        Conv(_channels(STEM, settings), 3, settings.stem_stride, padding, **frame, name="stem"),
        Sequence(
            Depthwise(settings.kernel or 3, 1, padding, depth_multiplier, name="depthwise"),
            Pointwise(thin, **frame, name="pointwise"),
            name="block1",
        ),
    ]
    rows = settings.stages(B1)[1:]
    net += _blocks(settings, rows, thin, options, frame, first=2, channels=whole_channels)
    rates = {"keras": 0.0, "torch": 0.0, "paddle": 0.0}
    if pooling == "avg":
        return net + classifier(settings, rates)
    return [
        GlobalMax(name="pool") if layer.name == "pool" else layer
        for layer in net + classifier(settings, rates)
    ]


def _channels(c, settings):
    return round_to_8(c * settings.width)


def whole_channels(c, settings):
    """The article's rounding: the fraction is cut off first, so a width just below 90 % of a step stays down."""
    return round_to_8(int(c * settings.width))


def _blocks(settings, rows, c_in, options, frame, first=1, channels=_channels):
    """The blocks of the rows, named from number ``first`` on; ``channels``: how widths are rounded."""
    blocks = []
    for row in rows:
        for i in range(row.n):
            expanded = c_in * row.t
            block = InvertedResidual(
                channels(row.c, settings),
                row.s if i == 0 else 1,
                expanded=expanded if row.t > 1 else None,
                kernel=settings.kernel or row.k,
                padding=settings.padding,
                squeeze=options.squeeze(expanded, max(int(c_in * row.se), 1) if row.se else 0),
                gate="sigmoid",
                **frame,
                **options.frame | ({} if row.t > 1 else {"skip": False}),
                name=f"block{first + len(blocks)}",
            )
            blocks.append(block)
            c_in = channels(row.c, settings)
    return blocks
