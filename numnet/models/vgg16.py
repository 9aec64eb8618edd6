"""VGG16: Simonyan and Zisserman 2015, "Very deep convolutional networks for large-scale image recognition".

Configuration D of the paper's table 1, what MobileNet's table 8 compares itself with: 138 M parameters and 15.5 G
multiply-adds at 224×224 (MobileNet 4.2 M and 0.57 G). Biases, no batch norm. The first dense layer sees the flattened
map that the last pooling leaves, (resolution/32)² × 512, so its weights fit one resolution only. The hidden dense layers
keep the paper's 4,096; Keras has no dropout, the paper and the others 0.5.
"""

from typing import NamedTuple

from numnet.blocks import Conv
from numnet.errors import NumnetError
from numnet.layers import Activation, Dense, Flatten, MaxPool
from numnet.models.common import Settings, dropped


class Row(NamedTuple):
    """A stage: output channels of its 3×3 convolutions and their number; a 2×2 max pooling ends it."""

    c: int
    n: int


ROWS = [Row(64, 2), Row(128, 2), Row(256, 3), Row(512, 3), Row(512, 3)]
HIDDEN = 4096

FIXED = ("width", "kernel", "strides", "bn_eps", "bn_momentum", "head")  # options that mean nothing here


def layers(settings: Settings) -> list:
    """Configuration D as layers."""
    settings.without("vgg16", *FIXED)
    if min(settings.input_shape[:2]) < 32:
        raise NumnetError(
            f"resolution: vgg16 halves the side five times, expected at least 32, got {settings.resolution}"
        )
    activation, net = settings.activation or "relu", []
    for stage, row in enumerate(ROWS, start=1):
        for i in range(1, row.n + 1):
            frame = {"activation": activation, "bias": True, "name": f"conv{stage}_{i}"}
            net.append(Conv(row.c, 3, 1, settings.padding, **frame))
        net.append(MaxPool(2, name=f"pool{stage}"))
    net.append(Flatten(name="flatten"))
    rates = {"keras": 0.0, "torch": 0.5, "paddle": 0.5}
    for i in (1, 2):
        net += [Dense(HIDDEN, name=f"hidden{i}"), Activation(activation, name=f"hidden{i}_act")]
        net += dropped(settings, rates, name=f"dropout{i}")
    return [*net, *([Dense(settings.classes, name="logits")] if settings.classes else [])]
