"""Smaller images first: the side of the images in each epoch of a training, and those images themselves.

``progressive`` in a recipe says for which part of the epochs the images have which part of the net's own side. A net of
convolutions takes images of any side with the same weights, so only ``net.resize`` stands between two sides.
"""

from contextlib import contextmanager

from numnet.data.split import ResizedSplit, in_memory
from numnet.errors import NumnetError


def sides_of(epochs, stages, full) -> list[int]:
    """The side of the images in each epoch, even: what ``progressive`` says for a net of side ``full``."""
    done, sides = 0.0, []
    for part, share in stages:
        done += share
        side = max(round(part * full / 2) * 2, 2)
        sides += [side] * (round(done * epochs) - len(sides))
    return sides + [full] * (epochs - len(sides))


def possible_sides(settings, net) -> list[int]:
    """``sides_of`` for a training's settings. Raises NumnetError for a side that the net cannot take."""
    own = net.input_shape[:2]
    if settings["progressive"] and len(set(own)) > 1:
        raise NumnetError(
            f"progressive: is for square images, this net takes {'×'.join(map(str, own))}; expected none (--progressive none)"
        )
    sides = sides_of(settings["epochs"], settings["progressive"] or (), net.input_shape[0])
    for side in dict.fromkeys(sides):
        with at_side(net, side):  # refused before the first step, not in the middle
            pass
    return sides


def shrunk(augment, part):
    """The augmentation of smaller images: what is given in pixels shrinks with them."""
    if augment is None or part == 1:
        return augment
    return {
        key: round(value * part) if key in ("crop", "cutout") else value for key, value in augment.items()
    }


@contextmanager
def at_side(net, side):
    """Inside, the net takes images of this side."""
    own, config = net.input_shape[0], net.config
    try:  # with the way in, since Ctrl-C may come in the middle of it
        if side != own:
            net.resize(side)
            net.config = config  # a checkpoint that is written inside is that of the whole training's net
        yield
    finally:
        if side != own:
            net.resize(own)
            net.config = config


class Sized:
    """The images of ``split`` at any side; ``own`` is the net's and theirs. One smaller side is kept at a time."""

    def __init__(self, split, own):
        self.split, self.own = split, own
        self._side = self._smaller = None

    def at(self, side):
        """The split at this side. Its own is there; another is made once and kept while it is asked for."""
        if side == self.own:
            return self.split
        if self._side != side:
            smaller = ResizedSplit(self.split, side)
            self._side, self._smaller = side, in_memory(smaller) if self.split.kept else smaller
        return self._smaller
