"""Who does a training: one process alone, as here, or several that share each batch (``numnet.parallel``).

The loop asks its team wherever the answer depends on there being others: which images of a batch are ours, what
the gradient and the loss of the whole batch are, who writes files. The members of a team all do the same steps and
have the same weights; member 0 leads: it alone prints and writes.
"""

from typing import NamedTuple

from numnet.errors import NumnetError
from numnet.layers.layer import ALONE


class Part(NamedTuple):
    """What a member does of one part of a batch (a batch goes through the net in ``accumulate`` parts)."""

    lo: int  # images lo … hi − 1 of those of the batch that the member has
    hi: int
    first: int  # place of the first in the whole batch, so that dropout's masks are those of the whole batch
    images: int  # in the part, those of all members together
    weight: float  # of the member's mean loss in that of the batch
    copies: int = 1  # members that do these images; more than 1 where there are fewer images than members

    @property
    def mine(self) -> slice:
        """Where the part's images lie among those that the member has."""
        return slice(self.lo, self.hi)


class Team:
    """One process alone. What several do otherwise is said at each method.

    ``peers``: what the layers and the loss ask of the others during a step, see ``numnet.layers.layer.Alone``.
    """

    rank, size = 0, 1
    peers = ALONE

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def start(self, run) -> None:
        """The first that a training does. Raises NumnetError for settings that the team cannot keep."""
        if run.settings["exact"]:
            raise NumnetError("exact: one process alone; expected fit(…, team=numnet.parallel.team())")

    # ------------------------------------------------------------------------------------------- a step

    def parts(self, images: int, parts: int) -> list[Part]:
        """This member's parts of a batch of ``images`` images."""
        return [Part(lo, hi, lo, hi - lo, (hi - lo) / images) for lo, hi in cut(images, parts)]

    def take(self, images: int, parts: int):
        """The places in a batch of the images that this member reads: a slice or an array."""
        return slice(None)

    def before(self, part: Part, last: bool) -> None:
        """A part is about to go through the net; ``last``: its backward pass completes the gradient."""

    def sum_gradient(self) -> None:
        """Make the gradient and the running statistics those of the whole batch."""

    def sum_up(self, losses: list, correct: float, told) -> tuple:
        """Of all members: the loss from its terms, the number of right answers, a signal that one of them had."""
        return sum(losses), correct, told

    # ------------------------------------------------------------------------------------------- the rest

    def gather(self, value) -> list:
        """The values of all members, in order."""
        return [value]

    def add(self, array):
        """The sum of all members' arrays, which have one shape."""
        return array

    def lead(self, function):
        """The value of ``function()``, called by member 0 alone; what it raises ends all."""
        return function()

    def first(self, function):
        """The value of ``function()``, called by member 0 first and by the others when it is through."""
        return function()

    def level(self, net, **vectors) -> None:
        """Give all members the weights, running statistics and ``vectors`` of member 0."""


def cut(count, parts) -> list[tuple[int, int]]:
    """``count`` images in ``parts`` parts as equal as can be; none is empty."""
    parts = min(parts, count)
    return [(count * k // parts, count * (k + 1) // parts) for k in range(parts)]
