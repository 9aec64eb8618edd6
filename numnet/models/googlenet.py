"""GoogLeNet: Szegedy et al. 2015, "Going deeper with convolutions", as torchvision has it.

Table 1 of the paper as the rows below, with torchvision's three changes: batch norm after every convolution and no
bias; the third branch of each module has a 3×3 convolution where the paper has a 5×5 (its channels keep the paper's
name); no auxiliary classifiers. 6,624,904 parameters and 1,498,376,192 multiply-adds at 224×224; MobileNet's table 8
quotes the paper's 6.8 M and 1,550 M. Poolings round their size up (a last, partial window counts). Dropout 0.2.
"""

from typing import NamedTuple

from numnet.blocks import Branches, Conv, Pointwise, Sequence
from numnet.layers import MaxPool
from numnet.models.common import Settings, classifier


class Row(NamedTuple):
    """A module: 1×1 | 1×1, 3×3 | 1×1, "5×5" | pooling, 1×1; ``pool``: the side of a max pooling after it, or 0."""

    name: str
    one: int
    reduce3: int
    three: int
    reduce5: int
    five: int
    pooled: int
    pool: int = 0


ROWS = [
    Row("3a", 64, 96, 128, 16, 32, 32),
    Row("3b", 128, 128, 192, 32, 96, 64, pool=3),
    Row("4a", 192, 96, 208, 16, 48, 64),
    Row("4b", 160, 112, 224, 24, 64, 64),
    Row("4c", 128, 128, 256, 24, 64, 64),
    Row("4d", 112, 144, 288, 32, 64, 64),
    Row("4e", 256, 160, 320, 32, 128, 128, pool=2),
    Row("5a", 256, 160, 320, 32, 128, 128),
    Row("5b", 384, 192, 384, 48, 128, 128),
]

FIXED = ("width", "kernel", "head")  # options that mean nothing here


def layers(settings: Settings) -> list:
    """The net of table 1 as layers."""
    settings.without("googlenet", *FIXED)
    frame = {"activation": settings.activation or "relu", "norm": settings.norm(eps=1e-3)}
    padding = settings.padding
    net = [
        Conv(64, 7, settings.stem_stride, padding, **frame, name="stem"),
        MaxPool(3, 2, ceil=True, name="pool1"),
        Pointwise(64, **frame, name="conv2"),
        Conv(192, 3, 1, padding, **frame, name="conv3"),
        MaxPool(3, 2, ceil=True, name="pool2"),
    ]

    def branch(name, reduce, c):
        thin, wide = Pointwise(reduce, **frame, name="reduce"), Conv(c, 3, 1, padding, **frame, name="conv")
        return Sequence(thin, wide, name=name)

    for row in ROWS:
        pooled = MaxPool(3, 1, 1, name="pool"), Pointwise(row.pooled, **frame, name="conv")
        module = Branches(
            Pointwise(row.one, **frame, name="branch1"),
            branch("branch2", row.reduce3, row.three),
            branch("branch3", row.reduce5, row.five),
            Sequence(*pooled, name="branch4"),
            name=f"module{row.name}",
        )
        net.append(module)
        if row.pool:
            net.append(MaxPool(row.pool, 2, ceil=True, name=f"pool{row.name}"))
    return net + classifier(settings, dropout={"keras": 0.2, "torch": 0.2, "paddle": 0.2})
