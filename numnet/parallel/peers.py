"""What the layers of a net ask of the other ranks: batch norm over the whole batch, sums in the order of one process.

``layer.peers`` is ``numnet.layers.layer.ALONE`` but for the time of a step, when a rank puts one of these there.
"""

import numpy as np

from numnet.blocks.unit import Unit
from numnet.errors import NumnetError
from numnet.kernels.maps import PARTS
from numnet.kernels.moments import merge_moments
from numnet.kernels.pointwise import sum_parts
from numnet.layers.layer import Alone
from numnet.layers.simple import Dense
from numnet.training.team import cut


class Peers(Alone):
    """Batch norm over the rank's own share; the gradients go out as they become final.

    ``exchange``: told of every layer whose gradients are final. ``gather(array)`` -> (ranks, …) of all ranks.
    """

    def __init__(self, exchange, rank, gather):
        self.exchange, self.rank, self.gather = exchange, rank, gather
        self.images = self.own = 1  # of the part under way: of all ranks, and of this one
        self.together = True  # False where every rank does the same images

    def done(self, layer):
        self.exchange.done(layer)


class Synchronised(Peers):
    """``--sync-bn``: the moments and the two gradient sums of each batch norm are those of all ranks.

    Every rank merges its own parts first, sends 3 numbers a channel forward and 2 backward (float64), and merges what
    all sent in the order of the ranks: the same statistics as one process would have, up to rounding.
    """

    def moments(self, moments):
        return self.gather(merged(moments)) if self.together else moments

    def gradient_sums(self, sums, count):
        if not count or not self.together:
            return sums, count
        return self.gather(sums.sum(axis=0)), count * self.images // self.own

    def weight_sums(self, unit, partial):
        if self.together and self.rank and unit.norm is not None and unit.training:
            # Ranks are added up later, and each has the whole batch's sums already.
            unit.grads["bn.gamma"][:] = unit.grads["bn.beta"][:] = 0


class Exact(Peers):
    """``--exact``: the same bits on 1, 2, 4 and 8 ranks. numnet.parallel says when that can be and what it costs.

    Every pass is cut into the same 8 parts of the whole batch, whatever a shape would ask for; a rank owns whole
    parts, and what they sum up to is gathered from all ranks and added in index order.
    """

    def __init__(self, exchange, rank, gather, size):
        super().__init__(exchange, rank, gather)
        self.size = size
        self.own_parts = PARTS // size

    def parts_here(self, parts):
        return self.own_parts

    def _whole(self, parts):
        """(8, …) of all ranks from this rank's parts."""
        return self.gather(parts).reshape(PARTS, *parts.shape[1:])

    def moments(self, moments):
        return self._whole(moments)

    def gradient_sums(self, sums, count):
        return self._whole(sums), count * self.size

    def weight_sums(self, unit, partial):
        sum_parts(self._whole(partial), unit.grads["weight"])

    def shares(self, images):
        """As many as there are parts here, cut as the kernels cut them."""
        return [slice(lo, hi) for lo, hi in cut(images, self.own_parts)]

    def add_shares(self, gradients):
        dw, db = (np.stack(kind) for kind in zip(*gradients))
        return in_order(self._whole(dw)), in_order(self._whole(db))

    def done(self, layer):
        """Nothing is left to exchange: every sum above is the whole batch's."""


def merged(moments):
    """Moments (parts, 3, C) as (3, C), by equation (3) of the page ``moments``, in index order."""
    total = np.zeros(moments.shape[1:])
    merge_moments(moments, total)
    return total


def in_order(parts):
    """The sum over the first axis, added one after another."""
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total


def require_exact(net, batches, accumulate, size) -> None:
    """Raise NumnetError if ``--exact`` cannot be kept: see ``numnet.parallel``. ``batches``: their sizes."""
    if PARTS % size:
        raise NumnetError(
            f"exact: {size} ranks cannot own whole parts of {PARTS}; expected 1, 2, 4 or {PARTS} ranks"
        )
    for images in batches:
        if images < PARTS * accumulate or images % (size * accumulate):
            least = f", a multiple of {size * accumulate}" if size * accumulate > 1 else ""
            raise NumnetError(
                f"exact: an epoch has a batch of {images} images; expected at least {PARTS * accumulate} in each"
                f"{least} (another --batch-size, or other numbers of validation images)"
            )
    for path, layer in net.walk():
        if (layer.specs or layer.buffer_specs) and not isinstance(layer, (Unit, Dense)):
            raise NumnetError(
                f"exact: the layer {path} sums in a way that is not known here; expected numnet's layers"
            )
