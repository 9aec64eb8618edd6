"""Plain 3×3: Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", section 3.1, in units.

The other road: no separable convolution, no skip ("plain" as in He et al. 2016, section 3.3). A stem of 2×2 filters without
padding, meant for whitening ones (``numnet.training.whitening``), takes 32×32 images to 31×31; three stages of standard
3×3 convolutions, each with a 2×2 max pooling after its first one, take these to 15, 7 and 3. At full width and 32×32 that is
118 M multiply-adds and 1.97 M parameters. That is much for such images, but nearly all of it are products of matrices, which
run near the processor's peak, where depthwise convolutions wait for memory.

Where it differs from the paper's: pooling comes after batch norm and activation, not before (a unit is convolution, batch
norm, activation; the largest number is the same one as long as γ > 0, the statistics are those of the larger map); the
pooling at the end is the mean, not the maximum; the classifier has a bias; ReLU in place of GELU unless ``activation``
says otherwise. Larger images (``strides="imagenet"``) get a stem of stride 2.

``rows``: another table of [channels, convolutions]; ``stem``: the stem's channels.
"""

from typing import NamedTuple

from numnet.blocks import Conv
from numnet.errors import NumnetError
from numnet.layers import MaxPool
from numnet.models.common import CHANNELS, REPEATS, Settings, classifier, own_rows, round_to_8


class Row(NamedTuple):
    """A stage: output channels of its 3×3 convolutions and their number; a 2×2 max pooling follows the first."""

    c: int
    n: int


ROWS = [Row(64, 2), Row(256, 2), Row(256, 2)]
STEM = 24  # 12 directions of a 2×2 patch of three colours, each with both signs

FIXED = ("kernel",)  # options that mean nothing here


def layers(settings: Settings, *, rows=None, stem=None) -> list:
    """The net as layers. ``width`` thins the stages, not the stem."""
    settings.without("plain_3x3", *FIXED)
    rows = own_rows(Row, rows, c=CHANNELS, n=REPEATS) or ROWS
    frame = {
        "activation": settings.activation or "relu",
        "norm": settings.norm({"keras": 1e-3, "torch": 1e-5, "paddle": 1e-5}),
    }
    if min(settings.input_shape[:2]) < 2 ** len(rows) * settings.stem_stride + 1:
        raise NumnetError(
            f"resolution: plain_3x3 of {len(rows)} stages has no room in {settings.resolution}, "
            f"expected at least {2 ** len(rows) * settings.stem_stride + 1}"
        )
    net = [Conv(stem or STEM, 2, settings.stem_stride, 0, **frame, name="stem")]
    for stage, row in enumerate(rows, start=1):
        channels = round_to_8(row.c * settings.width)
        for i in range(1, row.n + 1):
            net.append(Conv(channels, 3, 1, settings.padding, **frame, name=f"conv{stage}_{i}"))
            if i == 1:
                net.append(MaxPool(2, name=f"pool{stage}"))
    return net + classifier(settings, dropout=dict.fromkeys(("keras", "torch", "paddle"), 0.0))
