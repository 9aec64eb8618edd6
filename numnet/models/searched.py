"""Nets that are written in one line: what a search draws, changes and finds, and what ``numnet.build`` takes as a name.

    search:32:32s2,sep3c32x2,inv3e3c48x2,inv5e6c64x3s2+se,conv3c96+noskip,inv3e6c160x2s2
           │  │    │                                                          └ an optional number at the end: channels of a
           │  │    └ stages, with commas between them                           last 1×1 convolution before the pooling
           │  └ the stem: channels of a 3×3 convolution, s2: stride 2
           └ side of the images, where no ``resolution`` is asked for

A stage is a row of Tan et al. 2019, figure 4: layers of one kind, one after another, of which the first has the stride.

    conv3     standard convolution, kernel 3
    sep3      separable block: depthwise, then a pointwise convolution without activation
    inv3e6    inverted residual that expands its input channels six times
    c96       output channels        x2   two such layers (1)       s2   stride of the first (1)
    +se       squeeze-and-excite, to a quarter of the block's input channels; not in a standard convolution
    +noskip   without the addition of the input, which is done where stride and channels allow it

What the paper's space has and this one does not: pooling in place of the addition. As in the paper, the activation is ReLU,
unless ``activation`` says otherwise, and squeeze-and-excite has a plain sigmoid. Strides are those of the text. ``width``
other than 1 rounds channels to multiples of 8; at 1 they are as written.
"""

import re
from typing import NamedTuple

from numnet.blocks import Conv, InvertedResidual, Pointwise, Residual
from numnet.errors import NumnetError
from numnet.models.common import MOST_CHANNELS, MOST_ROWS, Settings, classifier, round_to_8, shown

PREFIX = "search:"
STEM = re.compile(r"(\d{1,5})(?:s(\d))?")
STAGE = re.compile(
    r"(?:(conv|sep)(\d{1,2})|inv(\d{1,2})e(\d{1,2}))c(\d{1,5})(?:x(\d{1,3}))?(?:s(\d))?((?:\+(?:se|noskip))*)"
)
EXAMPLE = "search:32:32s2,sep3c32x2,inv3e3c64x3s2+se,inv3e6c160x2s2"


class Row(NamedTuple):
    """A stage: kind (conv, sep, inv), kernel, expansion (1 but for inv), channels, repeats, stride, se, skip."""

    kind: str
    k: int
    t: int
    c: int
    n: int
    s: int
    se: bool = False
    skip: bool = True

    def __str__(self):
        expands = f"e{self.t}" if self.kind == "inv" else ""
        repeats, stride = f"x{self.n}" if self.n > 1 else "", f"s{self.s}" if self.s > 1 else ""
        flags = "+se" * self.se + "+noskip" * (not self.skip)
        return f"{self.kind}{self.k}{expands}c{self.c}{repeats}{stride}{flags}"


class Written(NamedTuple):
    """What a line says: side of the images, the stem's channels and stride, stages, channels of the last layer (0: none)."""

    side: int
    stem: int
    stem_stride: int
    rows: tuple
    last: int = 0

    def __str__(self):
        stem = f"{self.stem}s{self.stem_stride}" if self.stem_stride > 1 else str(self.stem)
        parts = [stem, *map(str, self.rows), *([str(self.last)] if self.last else [])]
        return f"{PREFIX}{self.side}:{','.join(parts)}"


def is_written(model) -> bool:
    """True if this name of a model is a net in one line."""
    return isinstance(model, str) and model.startswith(PREFIX)


def parse(text: str) -> Written:
    """The net that a line says. Raises NumnetError that names the part which is wrong, and what would be right."""
    side, colon, rest = text.removeprefix(PREFIX).partition(":")
    if not is_written(text) or not colon or not side.isdecimal() or not 1 <= int(side) <= 1 << 14:
        raise NumnetError(f"net: expected a line such as {EXAMPLE}, got {shown(text)}")
    stem, *parts = rest.split(",")
    found = STEM.fullmatch(stem)
    if not found:
        raise _wrong(stem, "the stem's channels and stride, such as 32s2")
    channels, stride = _count(found[1], stem, MOST_CHANNELS), _count(found[2] or "1", stem, 8)
    last = 0
    if parts and parts[-1].isdecimal():
        last = _count(parts.pop(), "the last number", MOST_CHANNELS)
    if not 1 <= len(parts) <= MOST_ROWS:
        raise NumnetError(f"net: expected 1 to {MOST_ROWS} stages such as inv3e6c96x2s2, got {len(parts)}")
    return Written(int(side), channels, stride, tuple(map(_stage, parts)), last)


def plain(text: str) -> str:
    """The line of a net without each ``+noskip`` that changes nothing, since no layer of its stage can add its input.

    At width 1, as in a search, lines that differ in these alone are one net. Raises like ``parse``.
    """
    net, rows = parse(text), []
    c_in = net.stem
    for row in net.rows:
        adds = row.n > 1 or (row.s == 1 and row.c == c_in)
        rows.append(row if adds else row._replace(skip=True))
        c_in = row.c
    return str(net._replace(rows=tuple(rows)))


def _stage(part) -> Row:
    found = STAGE.fullmatch(part)
    if not found:
        raise _wrong(part, "a stage such as conv3c32, sep5c32x2 or inv3e6c96x2s2+se+noskip")
    plain, k, wide, expands, c, n, s, flags = found.groups()
    flags = flags.split("+")[1:]
    if len(set(flags)) < len(flags):
        raise _wrong(part, "each of +se and +noskip once")
    if plain == "conv" and "se" in flags:
        raise _wrong(part, "+se in sep or inv: a standard convolution has none here")
    return Row(
        plain or "inv",
        _count(k or wide, part, 31),
        _count(expands or "1", part, 16),
        _count(c, part, MOST_CHANNELS),
        _count(n or "1", part, 100),
        _count(s or "1", part, 8),
        "se" in flags,
        "noskip" not in flags,
    )


def _count(text, part, most):
    if not 1 <= int(text) <= most:
        raise _wrong(part, f"numbers from 1 to {most}, and {text} is none")
    return int(text)


def _wrong(part, expected):
    return NumnetError(f"net: {shown(part)}: expected {expected}")


def layers(settings: Settings, *, text) -> list:
    """The net of a line as layers."""
    net = parse(text)
    settings.without("a net in one line", "kernel", "strides")
    frame = {
        "activation": settings.activation or "relu",
        "norm": settings.norm({"keras": 1e-3, "torch": 1e-5, "paddle": 1e-5}),
    }

    def channels(c):
        return c if settings.width == 1 else round_to_8(c * settings.width)

    made = [Conv(channels(net.stem), 3, net.stem_stride, settings.padding, **frame, name="stem")]
    c_in = channels(net.stem)
    for row in net.rows:
        for number in range(row.n):
            name, own = f"block{len(made)}", {**frame, "padding": settings.padding}
            c_out, stride = channels(row.c), row.s if number == 0 else 1
            if row.kind == "conv":
                made.append(Residual(Conv(c_out, row.k, stride, **own), skip=row.skip, name=name))
            else:
                own |= {"expanded": row.t * c_in if row.kind == "inv" else None, "kernel": row.k}
                own |= {"squeeze": max(c_in // 4, 1) if row.se else 0, "gate": "sigmoid"}
                made.append(InvertedResidual(c_out, stride, skip=row.skip, **own, name=name))
            c_in = c_out
    if net.last:
        made.append(Pointwise(channels(net.last), **frame, name="last"))
    return made + classifier(settings, dropout={"keras": 0.0, "torch": 0.0, "paddle": 0.0})
