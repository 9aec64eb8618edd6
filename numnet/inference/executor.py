"""The planned executor behind ``net.predict``.

Everything that depends on shapes alone is decided once for each batch size: the order of the steps, which buffer each
map lives in, the views of weights and maps that each step gets. Running is then a loop over calls.

**Folding.** With running statistics a batch norm is y · scale + shift, two numbers a channel. They are worked out from
the net's own vectors at each call (one pass over the channels, not over the weights), and applied while the tile of the
convolution is hot. So predict sees every change of the weights, and no copy of them exists.

**Buffers by lifetime.** A map is needed from the step that writes it to the last step that reads it; a buffer whose map
nobody needs any more is taken again. A MobileNet runs in two or three buffers, the size of its largest maps.
"""

import numpy as np

from numnet.blocks.residual import Branches, Residual, SqueezeExcite
from numnet.blocks.separable import Sequence
from numnet.blocks.unit import Conv, Pointwise, Unit
from numnet.kernels import (
    _memory,
    batchnorm,
    concat,
    conv,
    depthwise,
    inverted,
    pointwise,
    pooling,
    squeeze_excite,
)
from numnet.kernels._blas import one_thread
from numnet.kernels.activations import IDENTITY
from numnet.layers.simple import Dense, Dropout, GlobalAverage, activated


class Executor:
    """Runs ``layers`` for inference; ``flat`` and ``buffers`` are the net's vectors that hold γ, β and statistics."""

    def __init__(self, layers, flat, buffers):
        self.layers, self.flat, self.buffers = layers, flat, buffers
        self.plans = {}
        self._index_channels()

    def run(self, x):
        """The output (a new array) for finished, contiguous input images x (N, …) of the net's dtype."""
        plan = self.plans.get(x.shape)
        if plan is None:
            if len(self.plans) == 4:  # batch sizes change rarely: forget the oldest plan and its buffers
                del self.plans[next(iter(self.plans))]
            plan = self.plans[x.shape] = Plan(self, x.shape, x.dtype)
        batchnorm.fold_all(self.flat, self.buffers, *self.places, self.table)
        with one_thread():
            for call, arguments in plan.steps_for(x):
                call(*arguments)
        return np.array(plan.output)

    def _index_channels(self):
        """Where each unit's γ, β and statistics lie in the net's vectors, and its scale and shift in our table."""
        rows, eps, place, self.folded = [], [], 0, {}
        for unit in _folding(self.layers):
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
            self.folded[id(unit)] = (place, f)
            place += 2 * f
        self.table = np.zeros(place, self.flat.dtype)
        at = [
            np.stack([np.arange(p, p + f), np.arange(p + f, p + 2 * f)], axis=1)
            for p, f in self.folded.values()
        ]
        columns = np.concatenate(rows, axis=1) if rows else np.zeros((4, 0), np.int64)
        self.places = (
            *(np.ascontiguousarray(column, np.int64) for column in columns),
            np.concatenate(eps) if eps else np.zeros(0),
            np.ascontiguousarray(np.concatenate(at), np.int64) if at else np.zeros((0, 2), np.int64),
        )

    def folded_of(self, unit):
        """The (2, F) view of the table for a unit."""
        place, f = self.folded[id(unit)]
        return self.table[place : place + 2 * f].reshape(2, f)


def _folding(layers):
    """Units and dense layers: whatever ends in a scale and a shift."""
    for layer in layers:
        if isinstance(layer, (Unit, Dense)):
            yield layer
        yield from _folding(layer.children)


def _places(flat, view):
    start = (view.__array_interface__["data"][0] - flat.__array_interface__["data"][0]) // flat.itemsize
    return np.arange(start, start + view.size)


class Map:
    """A map in the plan: its array, and the buffer it borrows until it is dropped."""

    __slots__ = ("array", "buffer", "readers")

    def __init__(self, array, buffer):
        self.array, self.buffer, self.readers = array, buffer, 1


class Plan:
    """Steps (call, arguments) for one input shape, and the buffers they work in."""

    def __init__(self, executor, shape, dtype):
        self.executor, self.dtype, self.steps = executor, dtype, []
        self._free, self._sizes = [], []
        self._nothing = np.empty((0, 0), dtype)
        # First with counted sizes, then with memory: buffers grow to the largest map that they will ever hold.
        self._memory = None
        self._lay_out(shape)
        self._memory = [_memory.empty(size, dtype) for size in self._sizes]
        self._free, self.steps = [], []
        self.input, self.output = self._lay_out(shape)

    def steps_for(self, x):
        """The steps for input images x. A first convolution reads them where they lie; any other layer, a copy."""
        if isinstance(self.executor.layers[0], Conv):
            call, arguments = self.steps[0]
            return [(call, (x, *arguments[1:])), *self.steps[1:]]
        self.input[...] = x
        return self.steps

    @property
    def nbytes(self):
        """Bytes of the buffers."""
        return sum(buffer.nbytes for buffer in self._memory)

    def _lay_out(self, shape):
        self._taken = 0
        start = self._new(shape)
        return start.array, self._through(self.executor.layers, start).array

    # -------------------------------------------------------------- buffers

    def _new(self, shape):
        size = int(np.prod(shape, dtype=np.int64))
        if self._memory is None:
            fitting = [b for b in self._free if self._sizes[b] >= size] or self._free
            if fitting:
                buffer = min(fitting, key=lambda b: abs(self._sizes[b] - size))
                self._sizes[buffer] = max(self._sizes[buffer], size)
            else:
                buffer = len(self._sizes)
                self._sizes.append(size)
            self._order = getattr(self, "_order", [])
            self._order.append(buffer)
            if buffer in self._free:
                self._free.remove(buffer)
            return Map(np.empty((0,) * len(shape), self.dtype) if size == 0 else _Shape(shape), buffer)
        buffer = self._order[self._taken]
        self._taken += 1
        return Map(self._memory[buffer][:size].reshape(shape), buffer)

    def _drop(self, map_):
        map_.readers -= 1
        if map_.readers == 0 and self._memory is None:
            self._free.append(map_.buffer)

    def _do(self, call, *arguments):
        if self._memory is not None:
            self.steps.append((call, arguments))

    # -------------------------------------------------------------- one kind of layer after another

    def _through(self, layers, x):
        """The map that layers in a row make of map x."""
        for layer, activation in activated(layers):
            x = self._dense(layer, activation, x) if isinstance(layer, Dense) else self._add(layer, x)
        return x

    def _add(self, layer, x, skip=None):
        """The map that ``layer`` makes of map x, whose reader this is."""
        cut = layer.cut(x.array.shape[0]) if isinstance(layer, Sequence) else None
        if cut:
            return self._inverted(layer, x, cut)
        if isinstance(layer, Residual) and layer.adds:
            x.readers += 1
            end = x
            for child in layer.children[:-1]:
                end = self._add(child, end)
            y = self._add(layer.children[-1], end, skip=x)
            self._drop(x)
            return y
        if isinstance(layer, Sequence):
            return self._through(layer.children, x)
        if isinstance(layer, Dropout) and not layer.downscale:
            return x
        if isinstance(layer, Unit):
            return self._unit(layer, x, skip)
        if isinstance(layer, SqueezeExcite):
            return self._squeeze_excite(layer, x)
        if isinstance(layer, Branches):
            return self._branches(layer, x)
        if isinstance(layer, GlobalAverage):
            y = self._new((x.array.shape[0], x.array.shape[3]))
            self._do(pooling.unit_average, x.array, self._nothing, 0, y.array)
        else:
            y = self._new((x.array.shape[0], *layer.output_shape))
            self._do(_plain, layer, x.array, y.array)
        self._drop(x)
        return y

    def _unit(self, unit, x, skip):
        images = x.array.shape[0]
        y = self._new((images, *unit.output_shape))
        if self._memory is not None:
            w, folded = unit.params["weight"], self.executor.folded_of(unit)
            more = self._nothing if skip is None else skip.array.reshape(-1, w.shape[-1])
            if isinstance(unit, Pointwise):
                c, f = w.shape
                rows = x.array.reshape(-1, c), w, folded, unit.code, more, y.array.reshape(-1, f)
                self._do(pointwise.unit_inference, *rows)
            else:
                window = x.array, w, folded, unit.code, unit.stride, unit.pads
                if isinstance(unit, Conv):
                    self._do(conv.unit_inference, *window, more, y.array)
                else:
                    self._do(depthwise.unit_inference, *window, y.array)
        self._drop(x)
        return y

    def _inverted(self, block, x, cut):
        y = self._new((x.array.shape[0], *block.output_shape))
        if self._memory is not None:
            units = [child for child in block.children if isinstance(child, Unit)]
            expand, depth, project = [None, *units][-3:]
            se = next((child for child in block.children if isinstance(child, SqueezeExcite)), None)
            excite = (se.children[1], se.children[3]) if se else (None, None)
            codes = [
                unit.code if unit else IDENTITY for unit in (expand, depth, se and se.children[4], project)
            ]
            self._do(
                inverted.unit_inference, x.array, self._tables(expand), self._tables(depth),
                self._tables(*excite), self._tables(project), tuple(codes),
                depth.stride, depth.pads, getattr(block, "adds", False), y.array, cut,
            )  # fmt: skip
        self._drop(x)
        return y

    def _tables(self, *layers):
        """Weights and folded scale and shift of each layer; empty ones of None."""
        none = self._nothing, self._nothing
        pairs = [(u.params["weight"], self.executor.folded_of(u)) if u else none for u in layers]
        return tuple(table for pair in pairs for table in pair)

    def _dense(self, layer, activation, x):
        y = self._new((x.array.shape[0], *layer.output_shape))
        w, folded = layer.params["weight"], self.executor.folded_of(layer)
        code = activation.code if activation else IDENTITY
        self._do(pointwise.unit_inference, x.array, w, folded, code, self._nothing, y.array)
        self._drop(x)
        return y

    def _squeeze_excite(self, layer, x):
        x.readers += 1
        gates = self._through(layer.children, x)
        y = self._new(x.array.shape)
        self._do(squeeze_excite.unit_forward, x.array, self._nothing, 0, gates.array, y.array)
        self._drop(gates)
        self._drop(x)
        return y

    def _branches(self, layer, x):
        y = self._new((x.array.shape[0], *layer.output_shape))
        x.readers += len(layer.children) - 1
        for start, child in zip(layer.starts, layer.children):
            part = self._add(child, x)
            self._do(concat.unit_forward, part.array, self._nothing, 0, start, y.array)
            self._drop(part)
        return y


class _Shape:
    """Stands for an array while sizes are counted."""

    def __init__(self, shape):
        self.shape = tuple(shape)


def _plain(layer, x, y):
    """Any other layer, by its own forward."""
    y[...] = layer.forward(x, False)
