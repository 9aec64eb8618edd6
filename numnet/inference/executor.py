"""The planned executor behind ``net.predict``.

Everything that depends on shapes alone is decided once for each batch size: the order of the steps, which buffer each
map lives in, the views of weights and maps that each step gets. Running is then a loop over calls.

**Folding.** With running statistics a batch norm is a scale and a shift a filter (``folding``, and the kernels' page of
that name). They are made at each call, and the weights are read where the net holds them: so every change is seen.

**Buffers by lifetime.** A map is needed from the step that writes it to the last step that reads it; a buffer whose map
nobody needs any more is taken again. A MobileNet runs in two or three buffers, the size of the largest maps
between its blocks: the wide maps inside a block that runs in one pass (page ``inverted``) never exist.
"""

import numpy as np

from numnet.blocks.residual import Branches, Residual, SqueezeExcite
from numnet.blocks.separable import Sequence
from numnet.blocks.unit import Conv, Depthwise, Pointwise, Unit
from numnet.inference.folding import Folding
from numnet.kernels import (
    _jit,
    _memory,
    batchnorm,
    concat,
    conv,
    dense,
    depthwise,
    inverted,
    pointwise,
    pooling,
)
from numnet.kernels.activations import IDENTITY
from numnet.kernels.vectors import lanes
from numnet.layers.layer import finish
from numnet.layers.simple import Activation, Dense, Dropout, GlobalAverage, activated

# What the plan knows how to do faster. A subclass with a forward of its own means something else, and is run as it is.
KNOWN = {
    kind.forward
    for kind in (Unit, Sequence, Residual, SqueezeExcite, Branches, GlobalAverage, Dense, Dropout, Activation)
}

RUNS = {kind.run for kind in (Conv, Depthwise, Pointwise)}  # likewise of a unit's convolution


class Executor:
    """Runs ``layers`` for inference; ``flat`` and ``buffers`` are the net's vectors: parameters, and statistics."""

    def __init__(self, layers, flat, buffers):
        self.layers, self.folded = layers, Folding(layers, flat, buffers)
        self.plans = {}

    def run(self, x):
        """The output (a new array) for finished, contiguous input images x (N, …) of the net's dtype."""
        plan = self.plans.get(x.shape)
        if plan is None:
            if len(self.plans) == 4:  # batch sizes change rarely: forget the oldest plan and its buffers
                del self.plans[next(iter(self.plans))]
            plan = self.plans[x.shape] = Plan(self, x.shape, x.dtype)
        self.folded.refresh()
        for kernel, arguments in plan.steps_for(x):
            kernel(*arguments)
        plan.settle()
        return np.array(plan.output)


class Map:
    """A map in the plan: its array, the buffer it borrows, and how many layers have still to read it."""

    __slots__ = ("array", "buffer", "readers")

    def __init__(self, array, buffer):
        self.array, self.buffer, self.readers = array, buffer, 1


class Plan:
    """Steps (kernel, arguments) for one input shape, and the buffers they work in.

    ``owners``: for each step the one of the net's layers and blocks that it belongs to, so that a clock can stand between
    them (``numnet.search.latency``). An activation that a dense layer's step does as well belongs to the dense layer.
    """

    def __init__(self, executor, shape, dtype):
        self.executor, self.dtype, self.steps, self.owners = executor, dtype, [], []
        self._settled = False
        self._owner = None  # of the steps that are being added
        self._free, self._sizes, self._order = [], [], []
        self._nothing = np.empty(0, dtype)
        # First with counted sizes, then with memory: buffers grow to the largest map that they will ever hold.
        self._memory = None
        self._lay_out(shape)
        self._memory = [_memory.empty(size, dtype) for size in self._sizes]
        self._room = _memory.empty(executor.folded.room, dtype)  # for a unit's or a block's packed weights
        self._free = []
        self.input, self.output = self._lay_out(shape)

    def steps_for(self, x):
        """The steps for input images x. A first convolution reads them where they lie; any other layer, a copy."""
        first = self.executor.layers[0]
        if isinstance(first, Conv) and _known(first):
            kernel, (source, *more) = self.steps[0]
            return [(kernel, (source._replace(raw=x), *more)), *self.steps[1:]]
        self.input[...] = x
        return self.steps

    def settle(self):
        """After a first run, which compiles: from now on the steps are machine code."""
        if not self._settled:
            self.steps, self._settled = _jit.direct(self.steps), True

    @property
    def nbytes(self):
        """Bytes of the buffers that hold maps."""
        return sum(buffer.nbytes for buffer in self._memory)

    def _lay_out(self, shape):
        self._taken = 0
        start = self._new(shape)
        return start.array, self._through(self.executor.layers, start).array

    # -------------------------------------------------------------- buffers

    def _new(self, shape):
        """A map of this shape in a free buffer. While sizes are counted, note which buffer; later take the one noted."""
        size = int(np.prod(shape, dtype=np.int64))
        if self._memory is None:
            fitting = [b for b in self._free if self._sizes[b] >= size] or self._free
            if fitting:
                buffer = min(fitting, key=lambda b: abs(self._sizes[b] - size))
                self._sizes[buffer] = max(self._sizes[buffer], size)
            else:
                buffer = len(self._sizes)
                self._sizes.append(size)
            self._order.append(buffer)
            if buffer in self._free:
                self._free.remove(buffer)
            return Map(_Shape(shape), buffer)
        buffer = self._order[self._taken]
        self._taken += 1
        return Map(self._memory[buffer][:size].reshape(shape), buffer)

    def _drop(self, map_):
        """One reader of the map is done; after the last one its buffer is free."""
        map_.readers -= 1
        if map_.readers == 0 and self._memory is None:
            self._free.append(map_.buffer)

    def _do(self, kernel, arguments):
        """Add a step to the plan (there is none to add while sizes are counted)."""
        if self._memory is not None:
            self.steps.append((kernel, arguments))
            self.owners.append(self._owner)

    # -------------------------------------------------------------- one kind of layer after another

    def _through(self, layers, x):
        """The map that layers in a row make of map x."""
        for layer, activation in activated(layers):
            if layers is self.executor.layers:
                self._owner = layer
            if isinstance(layer, Dense) and _known(layer) and (activation is None or _known(activation)):
                x = self._dense(layer, activation, x)
            else:
                x = self._add(layer, x)
                x = self._add(activation, x) if activation else x
        return x

    def _add(self, layer, x, skip=None):
        """The map that ``layer`` makes of map x, plus ``skip``; its steps go into the plan, and x has one reader less."""
        if not _known(layer):
            return self._as_it_is(layer, x)
        fuses = isinstance(layer, Sequence) and all(map(_known, layer.children))
        cut = layer.cut(x.array.shape[0]) if fuses else None
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
            images, channels = x.array.shape[0], x.array.shape[3]
            y = self._new((images, *layer.output_shape))
            if self._memory is not None:
                self._do(pooling.unit_average, (self._source(x), y.array.reshape(images, channels)))
            self._drop(x)
            return y
        return self._as_it_is(layer, x)

    def _as_it_is(self, layer, x):
        y = self._new((x.array.shape[0], *layer.output_shape))
        self._do(_plain, (layer, x.array, y.array))
        self._drop(x)
        return y

    def _source(self, x):
        return batchnorm.source_of(x.array) if self._memory is not None else None

    def _unit(self, unit, x, skip):
        y = self._new((x.array.shape[0], *unit.output_shape))
        if self._memory is not None:
            folded = self.executor.folded[unit]
            more = self._nothing if skip is None else skip.array.reshape(-1)
            if isinstance(unit, Depthwise):
                step = depthwise.inference_step(self._source(x), folded, unit.code, unit.window, y.array)
            elif isinstance(unit, Conv):
                given = self._source(x), folded, unit.window, unit.code, more, y.array, self._room
                step = conv.inference_step(*given)
            else:
                step = self._product(x, folded, unit.code, more, y)
            self._do(*step)
        self._drop(x)
        return y

    def _inverted(self, block, x, cut):
        y = self._new((x.array.shape[0], *block.output_shape))
        if self._memory is not None:
            depth = next(child for child in block.children if isinstance(child, Depthwise))
            given = self._source(x), *self._steps_of(block)
            self._do(*inverted.inference_step(*given, depth.window, y.array, cut, self._room))
        self._drop(x)
        return y

    def _steps_of(self, block):
        """The block's weights and activation codes as the fused pass takes them."""
        units = [None, *(child for child in block.children if isinstance(child, Unit))][-3:]
        se = next((child for child in block.children if isinstance(child, SqueezeExcite)), None)
        folded = self.executor.folded
        codes = [unit.code if unit else IDENTITY for unit in units]
        return (
            [folded[unit] if unit else folded.nothing for unit in units],
            self._excite_of(se),
            inverted.Codes(*codes, bool(getattr(block, "adds", False))),
        )

    def _dense(self, layer, activation, x):
        y = self._new((x.array.shape[0], *layer.output_shape))
        if self._memory is not None:
            code = activation.code if activation else IDENTITY
            self._do(*self._product(x, self.executor.folded[layer], code, self._nothing, y))
        self._drop(x)
        return y

    def _product(self, x, folded, code, skip, y):
        """A product's step: of a few pixels by the dense page, of many by the pointwise page."""
        given = x.array.reshape(-1), folded, code, skip, y.array.reshape(-1)
        if y.array.size < dense.FEW * folded.shift.size:
            return dense.inference_step(*given)
        return pointwise.inference_step(*given, self._room)

    def _squeeze_excite(self, layer, x):
        y = self._new(x.array.shape)
        if self._memory is not None:
            self._do(*inverted.squeeze_excite_step(self._source(x), self._excite_of(layer), y.array))
        self._drop(x)
        return y

    def _excite_of(self, layer):
        """The two dense layers and the gate of a squeeze-excite, or of None, as the kernels take them."""
        if layer is None:
            reduce = expand = self.executor.folded.nothing
            gate = IDENTITY
        else:
            reduce, expand = (self.executor.folded[layer.children[i]] for i in (1, 3))
            gate = layer.children[4].code
        return inverted.Excite(*reduce, *expand, lanes(len(reduce.shift), self.dtype), gate)

    def _branches(self, layer, x):
        y = self._new((x.array.shape[0], *layer.output_shape))
        x.readers += len(layer.children) - 1
        for start, child in zip(layer.starts, layer.children):
            part = self._add(child, x)
            self._do(concat.unit_forward, (self._source(part), start, y.array))
            self._drop(part)
        return y


class _Shape:
    """Stands for an array while sizes are counted."""

    def __init__(self, shape):
        self.shape = tuple(shape)


def _known(layer):
    """True if the layer computes what its kind does; of a residual block the last unit too, which adds."""
    known = type(layer).forward in KNOWN and (not isinstance(layer, Unit) or type(layer).run in RUNS)
    return known and _known(layer.children[-1]) if isinstance(layer, Residual) else known


def _plain(layer, x, y):
    """Any other layer, by its own forward."""
    y[...] = finish(layer.forward(x, False), layer.memory, "output")
