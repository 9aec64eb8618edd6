"""Each unit's weights as inference reads them: the net's own, and its batch norm as one scale and one shift a filter."""

import numpy as np

from numnet.blocks.unit import Unit
from numnet.kernels.folding import fold_all
from numnet.kernels.maps import Folded
from numnet.kernels.pointwise import room_of
from numnet.layers.simple import Dense


class Folding:
    """``folding[layer]`` is the ``Folded`` of a unit or dense layer; ``refresh`` brings scales and shifts up to date.

    flat and buffers: the net's vectors, which hold γ, β and the running statistics. No weight is copied. ``room``: numbers of
    scratch that the packed weights of a unit take, or those of a block together, at most.
    """

    def __init__(self, layers, flat, buffers):
        self.flat, self.buffers = flat, buffers
        self.nothing = Folded(*[np.empty(0, flat.dtype)] * 3)
        found = list(_folding(layers))
        normed = [unit for unit in found if getattr(unit, "norm", None) is not None]
        counts = [unit.output_shape[-1] for unit in normed]
        ends = 2 * np.cumsum([0, *counts], dtype=np.int64)
        self.table = np.zeros(ends[-1], flat.dtype)  # for each unit its scale, then its shift
        self.places = np.array(
            [
                (count, *(_place(vector, view) for vector, view in self._norm_of(unit)), first)
                for unit, count, first in zip(normed, counts, ends.tolist())
            ],
            np.int64,
        ).reshape(-1, 6)
        self.eps = np.array([unit.norm.eps for unit in normed])
        self.units = {}
        for unit, count, first in zip(normed, counts, ends.tolist()):
            scale, shift = self.table[first : first + count], self.table[first + count : first + 2 * count]
            self.units[id(unit)] = Folded(unit.params["weight"].reshape(-1), scale, shift)
        for unit in found:
            if id(unit) not in self.units:
                shift = unit.params["bias"] if unit.bias else np.zeros(unit.output_shape[-1], flat.dtype)
                self.units[id(unit)] = Folded(unit.params["weight"].reshape(-1), np.ones_like(shift), shift)
        self.room = max(self._rooms(layers), default=0)

    def __getitem__(self, layer):
        return self.units[id(layer)]

    def refresh(self):
        """Scales and shifts of the present γ, β and statistics."""
        fold_all(self.flat, self.buffers, self.places, self.eps, self.table)

    def _norm_of(self, unit):
        """The vectors that hold γ, β, mean and variance, and each one's view."""
        yield self.flat, unit.params["bn.gamma"]
        yield self.flat, unit.params["bn.beta"]
        yield self.buffers, unit.buffers["bn.mean"]
        yield self.buffers, unit.buffers["bn.variance"]

    def _rooms(self, layers):
        """Numbers of scratch that the layers of one list need at a time, list by list.

        A block that runs in one pass holds all its weights there, and has at most three units (``Sequence.cut``). Others
        run one after another.
        """
        own = [room_of(self[layer]) for layer in layers if id(layer) in self.units]
        yield sum(own) if len(own) < 4 else max(own)
        for layer in layers:
            yield from self._rooms(layer.children)


def _folding(layers):
    """Units and dense layers: whatever ends in a scale and a shift."""
    for layer in layers:
        if isinstance(layer, (Unit, Dense)):
            yield layer
        yield from _folding(layer.children)


def _place(vector, view):
    return (view.__array_interface__["data"][0] - vector.__array_interface__["data"][0]) // vector.itemsize
