"""The weights as inference reads them: batch norm folded in, packed for the product, made anew when they have changed."""

import numpy as np

from numnet.blocks.unit import Depthwise, Unit
from numnet.kernels import _memory, vectors
from numnet.kernels.folding import checksum, fold_all, pack_scaled, scale_taps
from numnet.kernels.product import Packed
from numnet.kernels.vectors import lanes, number_of
from numnet.layers.simple import Dense


class Folded:
    """For each unit and dense layer of ``layers``: its weights, packed or, of a depthwise convolution, taps (K·K, C·M); and
    the bias (F,) that its sums begin with. ``folded[layer]`` gives the two; ``refresh`` brings them up to date.
    """

    def __init__(self, layers, flat, buffers):
        self.flat, self.buffers, self.key = flat, buffers, None
        found = list(_folding(layers))
        most = number_of(lanes(vectors.LANES, flat.dtype)) + 16
        sizes = [
            unit.params["weight"].size + unit.params["weight"].size // unit.output_shape[-1] * most
            for unit in found
        ]
        self.arena, self.taken = _memory.empty(sum(sizes) + 16 * len(found), flat.dtype), 0
        self.nothing = self._packed(np.empty((0, 0), flat.dtype)), np.empty(0, flat.dtype)
        self._index_channels(found)

    def __getitem__(self, layer):
        return self.tables[id(layer)]

    def refresh(self):
        """Fold and pack, if a weight or a statistic has changed since the last time."""
        key = checksum(self.flat) + checksum(self.buffers)
        if key == self.key:
            return
        fold_all(self.flat, self.buffers, *self.places, self.table)
        for layer, scale in self.scales:
            w, (folded, _) = layer.params["weight"], self.tables[id(layer)]
            if isinstance(layer, Depthwise):
                scale_taps(w.reshape(folded.shape), scale, folded)
            else:
                pack_scaled(w.reshape(-1, w.shape[-1]), scale, folded.values, folded.lanes)
        self.key = key

    def _packed(self, w):
        columns = w.shape[-1]
        deep, v = w.size // columns if columns else 0, lanes(columns, self.flat.dtype)
        return Packed(self._take(deep * -(-columns // number_of(v)) * number_of(v)), deep, columns, v)

    def _take(self, size):
        """So many numbers of the one array that all tables lie in: large pages of memory are found faster than many small."""
        first, self.taken = self.taken, self.taken + -(-size // 16) * 16
        return self.arena[first : first + size]

    def _index_channels(self, found):
        """Where each unit's γ, β and statistics lie in the net's vectors, and its scale and shift in our table."""
        rows, eps, at = [], [np.zeros(0)], [np.zeros((0, 2), np.int64)]
        ends = np.cumsum([0] + [2 * unit.output_shape[-1] for unit in found])
        self.table = np.zeros(ends[-1], self.flat.dtype)
        self.tables, self.scales = {}, []
        for unit, place in zip(found, ends.tolist()):
            f = unit.output_shape[-1]
            own, norm = np.full((4, f), -1), getattr(unit, "norm", None)
            if norm is not None:
                own[0] = _places(self.flat, unit.params["bn.gamma"])
                own[1] = _places(self.flat, unit.params["bn.beta"])
                own[2] = _places(self.buffers, unit.buffers["bn.mean"])
                own[3] = _places(self.buffers, unit.buffers["bn.variance"])
            elif unit.bias:
                own[1] = _places(self.flat, unit.params["bias"])
            rows.append(own)
            eps.append(np.full(f, norm.eps if norm else 1.0))
            at.append(np.stack([np.arange(place, place + f), np.arange(place + f, place + 2 * f)], axis=1))
            w = unit.params["weight"]
            depthwise = isinstance(unit, Depthwise)
            folded = self._take(w.size).reshape(-1, f) if depthwise else self._packed(w)
            self.tables[id(unit)] = folded, self.table[place + f : place + 2 * f]
            self.scales.append((unit, self.table[place : place + f]))
        places = np.concatenate(rows, axis=1) if rows else np.zeros((4, 0))
        self.places = (
            np.ascontiguousarray(places, np.int64),
            np.concatenate(eps),
            np.ascontiguousarray(np.concatenate(at), np.int64),
        )


def _folding(layers):
    """Units and dense layers: whatever ends in a scale and a shift."""
    for layer in layers:
        if isinstance(layer, (Unit, Dense)):
            yield layer
        yield from _folding(layer.children)


def _places(flat, view):
    start = (view.__array_interface__["data"][0] - flat.__array_interface__["data"][0]) // flat.itemsize
    return np.arange(start, start + view.size)
