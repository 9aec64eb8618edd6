"""The space: which nets a search may draw (Tan et al. 2019, section 3, "factorized hierarchical search space").

A net is a few stages. Each stage chooses for itself the kind of its layers, their kernel, squeeze-and-excite, skip, width and
number, so a layer near the input may differ from one near the output. Within a stage all layers are alike (but for the stride
of the first), which keeps the space small enough to be searched. Strides are the space's own. Widths and repeats are steps
around a reference:

    channels   0.75, 1 or 1.25 times the reference's, to a multiple of 8        repeats   one less, as many, one more
    kinds      conv, sep, inv with expansion 3 or 6        kernels   3, 5       squeeze-and-excite   none, 1/4

``SPACES["224"]`` takes MobileNetV2's table for its reference, as the paper does; ``SPACES["32"]`` is for images of 32×32, and
``"small"`` for the same, with nets of half a million to ten million MACs: a search in it takes minutes, and teaches as much.

Whatever is drawn is a function of a seed and the net's number, so that a search can be stopped anywhere and needs no
generator's state to go on.
"""

from typing import NamedTuple

import numpy as np

from numnet.errors import NumnetError
from numnet.models.common import round_to_8
from numnet.models.searched import Row, Written, parse

KINDS = (("conv", 1), ("sep", 1), ("inv", 3), ("inv", 6))
KERNELS = (3, 5)
WIDTHS = (0.75, 1.0, 1.25)
MORE = (-1, 0, 1)
FIELDS = ("kind", "k", "se", "skip", "c", "n")  # what a stage chooses


class Reference(NamedTuple):
    """A stage of the reference, around which the space lies."""

    c: int  # output channels of each of its layers
    n: int  # layers, one after another
    s: int  # stride of the first; the others have 1


class Space(NamedTuple):
    """A space of nets: what all of them share, and a reference for each stage that they choose.

    side          of the images, in pixels
    stem          output channels of the stem, a 3×3 convolution
    stem_stride   its stride
    stages        a Reference for each stage, in the order of computation
    last          output channels of a 1×1 convolution behind the stages; 0: there is none
    """

    side: int
    stem: int
    stem_stride: int
    stages: tuple
    last: int = 0

    def choices(self, stage: int) -> dict:
        """What each of FIELDS may be in this stage; "kind" has pairs (kind, expansion)."""
        reference = self.stages[stage]
        return {
            "kind": KINDS,
            "k": KERNELS,
            "se": (False, True),
            "skip": (True, False),
            "c": tuple(dict.fromkeys(round_to_8(w * reference.c) for w in WIDTHS)),
            "n": tuple(n for more in MORE if (n := reference.n + more) > 0),
        }

    def rows(self, stage: int) -> list[Row]:
        """Every row that this stage can have."""
        every, choices = [], self.choices(stage)
        for number in np.ndindex(*(len(values) for values in choices.values())):
            every.append(self.row(stage, *(values[i] for i, values in zip(number, choices.values()))))
        return list(dict.fromkeys(every))

    def row(self, stage, kind, k, se, skip, c, n) -> Row:
        """The row with these choices; a standard convolution has no squeeze-and-excite."""
        return Row(kind[0], k, kind[1], c, n, self.stages[stage].s, se and kind[0] != "conv", skip)

    @property
    def size(self) -> int:
        """How many lines there are. Some are one net: see ``searched.plain``."""
        product = 1
        for stage in range(len(self.stages)):
            product *= len(self.rows(stage))
        return product

    def net(self, rows) -> Written:
        """The net with these rows, one a stage."""
        return Written(self.side, self.stem, self.stem_stride, tuple(rows), self.last)

    def draw(self, seed: int, *numbers: int) -> str:
        """The line of a random net: every choice of every stage with equal chances."""
        rng, rows = generator(seed, *numbers), []
        for stage in range(len(self.stages)):
            rows.append(self.row(stage, *(_one_of(rng, values) for values in self.choices(stage).values())))
        return str(self.net(rows))

    def mutate(self, line: str, seed: int, *numbers: int) -> str:
        """The line of a net that differs from this one in one choice of one stage. NumnetError for a net of another space."""
        net, rng = parse(line), generator(seed, *numbers)
        self.require(net)
        while True:
            stage, field = int(rng.integers(len(net.rows))), _one_of(rng, FIELDS)
            row, choices = net.rows[stage], self.choices(stage)[field]
            chosen = {"kind": (row.kind, row.t), **{name: getattr(row, name) for name in FIELDS[1:]}}
            chosen[field] = _one_of(rng, choices)
            other = self.row(stage, **chosen)
            if other != row:
                return str(self.net((*net.rows[:stage], other, *net.rows[stage + 1 :])))

    def require(self, net: Written) -> None:
        """Raise NumnetError if this net is not in the space."""
        same = net._replace(rows=()) == self.net(())
        if not same or len(net.rows) != len(self.stages):
            raise NumnetError(f"{net}: not a net of the space for {self.side}×{self.side}")
        for stage, row in enumerate(net.rows):
            choices = self.choices(stage)
            kind = (row.kind, row.t) in KINDS and row.s == self.stages[stage].s
            if not kind or any(getattr(row, name) not in choices[name] for name in FIELDS[1:]):
                raise NumnetError(f"{net}: {row} is no choice of stage {stage + 1} of the space")


SPACES = {
    "small": Space(
        side=32,
        stem=16,
        stem_stride=2,
        stages=(
            Reference(c=16, n=1, s=1),
            Reference(c=24, n=1, s=2),
            Reference(c=40, n=2, s=2),
        ),
        last=0,
    ),
    "32": Space(
        side=32,
        stem=32,
        stem_stride=2,
        stages=(
            Reference(c=32, n=2, s=1),
            Reference(c=48, n=2, s=1),
            Reference(c=64, n=3, s=2),
            Reference(c=96, n=3, s=1),
            Reference(c=160, n=2, s=2),
        ),
        last=0,
    ),
    "224": Space(
        side=224,
        stem=32,
        stem_stride=2,
        stages=(
            Reference(c=16, n=1, s=1),
            Reference(c=24, n=2, s=2),
            Reference(c=32, n=3, s=2),
            Reference(c=64, n=4, s=2),
            Reference(c=96, n=3, s=1),
            Reference(c=160, n=3, s=2),
            Reference(c=320, n=1, s=1),
        ),
        last=1280,
    ),
}


def space_named(name) -> Space:
    """The space of that name; NumnetError for another."""
    if str(name) not in SPACES:
        raise NumnetError(f"space: expected one of {', '.join(SPACES)}, got {name!r}")
    return SPACES[str(name)]


def generator(seed: int, *numbers: int) -> np.random.Generator:
    """Random numbers of their own for each seed and numbers."""
    return np.random.default_rng([seed, *numbers])


def _one_of(rng, values):
    return values[int(rng.integers(len(values)))]
