"""A net in eight bits: its steps, what they weigh, and how they run on whole numbers alone.

Images come in as real numbers, logits go out as such; in between there is no float. ``predict`` is what a ``Net``'s is.
"""

import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np

from numnet.cost import NetCost
from numnet.errors import NumnetError
from numnet.kernels import _check, _memory, eight_bits, quantised_depthwise, quantised_maps, quantised_product
from numnet.kernels._cost import Cost
from numnet.kernels._jit import direct
from numnet.kernels.eight_bits import Grid
from numnet.kernels.maps import Window
from numnet.layers.layer import CostRow
from numnet.quantised import files
from numnet.quantised.steps import NAMES, SUMS, Step, last_readers, run, stands_for, table_function


class Plan(NamedTuple):
    """A run over so many images: where they are put, (function, arguments) of each step, and where the output will be.

    settled: the functions are machine code where they can be (``_jit.direct``).
    """

    input: np.ndarray
    calls: list
    output: np.ndarray
    settled: bool = False


class QuantisedNet:
    """Eight-bit steps in a row. ``grid``: of the input; ``facts``: config, scaling, names of classes … of the float net.

    Like a net: ``predict``, ``input_shape``, ``classes``, ``dtype``, ``config``, ``scaling``, ``class_names``,
    ``document``, ``path``, ``notes``. ``steps`` are read-only: packed weights are made of them once.
    """

    def __init__(
        self, steps, grid, input_shape, *, config=None, scaling=None, class_names=None, document=None
    ):
        self.steps, self.grid, self.input_shape = list(steps), Grid(*grid), tuple(input_shape)
        self.config, self.scaling, self.class_names = config, scaling, class_names
        self.document, self.path, self.notes = dict(document or {}), None, []
        self.dtype = np.dtype(np.float32)
        self.output_shape = tuple(self.steps[-1].shape)
        self.grids = [self.grid, *(step.grid for step in self.steps)]
        # Steps in real numbers, where they are others than ``trace`` of the float net gives.
        self.origin = None
        self._start()

    def _start(self):
        """What no copy shares: packed weights, buffers, and who is at work."""
        self._ready, self._buffers, self._plans, self._lock = None, {}, {}, threading.RLock()

    def __getstate__(self):
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in ("_ready", "_joined", "_buffers", "_plans", "_lock")
        }

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._start()

    @property
    def classes(self) -> int:
        return self.output_shape[-1]

    @property
    def nbytes(self) -> int:
        """Bytes of weights, biases and scales."""
        arrays = (a for step in self.steps for a in (step.weight, step.bias, step.scales))
        return sum(a.nbytes for a in arrays if a is not None)

    def cost(self) -> NetCost:
        """What ``summary`` counts, in the form of a float net's cost: macs and params, in all and by step."""
        facts = self.summary()
        rows = [
            CostRow(
                row["name"], row["type"], tuple(row["output_shape"]), Cost(row["macs"], params=row["params"])
            )
            for row in facts["layers"]
        ]
        return NetCost(rows, facts["macs"], facts["total_params"], 0)

    def summary(self) -> dict:
        """As a float net's summary, with bytes: totals and a list of steps. Scales count as bytes only."""
        rows = []
        for step in self.steps:
            arrays = [a for a in (step.weight, step.bias, step.scales) if a is not None]
            rows.append(
                {
                    "name": step.name,
                    "type": step.kind if step.kind != "table" else NAMES[step.code],
                    "output_shape": list(step.shape),
                    "params": sum(a.size for a in arrays[:2]),
                    "macs": step.macs(),
                    "bytes": sum(a.nbytes for a in arrays),
                }
            )
        totals = {key: sum(row[key] for row in rows) for key in ("params", "macs", "bytes")}
        return {
            "model": (self.config or {}).get("model"), "input_shape": list(self.input_shape),
            "total_params": totals["params"], "trainable_params": 0, "non_trainable_params": totals["params"],
            "macs": totals["macs"], "bytes": totals["bytes"], "layers": rows,
        }  # fmt: skip

    # ------------------------------------------------------------------------------------------ running

    def predict(self, x, batch_size=256):
        """Logits (N, classes), float32, of images x (N, H, W, C) that are scaled already.

        Raises ValueError for another shape or dtype and for NaN; RuntimeError while another thread uses the net.
        """
        x = np.asarray(x)
        if x.ndim != 4 or x.shape[1:] != self.input_shape:
            expected = ", ".join(map(str, self.input_shape))
            raise ValueError(f"x: expected images (N, {expected}), got shape {x.shape}")
        if x.dtype.kind != "f":
            raise ValueError(
                f"x: expected scaled floats (float32), got {x.dtype}; see numnet.data for the scaling"
            )
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise ValueError(f"batch_size: expected an integer of at least 1, got {batch_size!r}")
        if not len(x):
            return np.empty((0, *self.output_shape), np.float32)
        parts = []
        for lo in range(0, len(x), batch_size):
            part = np.ascontiguousarray(x[lo : lo + batch_size], np.float32)
            with self._alone():
                q = quantised_maps.to_bytes(part, self.grid, self._plan(len(part)).input)
                parts.append(self.reals(self.run(q), len(self.steps)))
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def reals(self, q, number) -> np.ndarray:
        """The real numbers that map ``number`` stands for, float32."""
        grid = self.grids[number]
        if grid is not None:
            return eight_bits.dequantise(q, grid)
        step = self.steps[number - 1]
        return (q * (step.scales.astype(np.float64) * self.grids[step.reads[0]].scale)).astype(np.float32)

    def run(self, q):
        """The output of bytes q (N, H, W, C), a new array: uint8 on its grid, or int32 sums."""
        plan = self._plan(len(q))
        if q is not plan.input:
            plan.input[...] = q
        for function, arguments in plan.calls:
            function(*arguments)
        if not plan.settled:  # it has run once, which compiles
            self._plans[len(q)] = plan._replace(calls=direct(plan.calls), settled=True)
        return plan.output.copy()

    def _plan(self, images):
        """The Plan for so many images: made once, and forgotten when a buffer grows."""
        self.prepare()
        if images not in self._plans:
            self._lay_out(images)  # buffers grow to the largest maps that they will hold
            self._plans[images] = self._lay_out(images)
        return self._plans[images]

    def _lay_out(self, images):
        """The Plan, with the buffers as they are now; those that are too small grow."""
        last, joined = self._last, self._joined
        maps, free, taken, calls = {0: self._map(0, images, self.input_shape)}, [], {}, []
        begin = maps[0]
        for number, step in enumerate(self.steps):
            if number - 1 in joined:  # a table that the step before has applied
                maps[number + 1], taken[number + 1] = maps.pop(number), taken.pop(number)
                continue
            inputs = [maps[i] for i in step.reads]
            if number + 1 == len(self.steps):
                dtype = np.uint8 if step.grid is not None else np.int32
                y = _memory.empty((images, *step.shape), dtype)
            elif step.kind == "flatten":
                maps[number + 1] = inputs[0].reshape(images, *step.shape)
                taken[number + 1] = taken.get(step.reads[0])
                continue
            else:
                place = free.pop() if free else len(taken)
                taken[number + 1] = place
                y = self._map(1 + place, images, step.shape)
            maps[number + 1] = y
            calls.append(self._call(number, step, inputs, y, joined.get(number)))
            for i in set(step.reads):
                if last[i] == number and taken.get(i) is not None:
                    shared = [k for k in maps if k != i and taken.get(k) == taken[i] and last[k] > number]
                    if not shared:
                        free.append(taken[i])
                    del maps[i]
        return Plan(begin, calls, maps[len(self.steps)])

    def maps(self, q) -> list:
        """All maps of bytes q, each an array of its own: of the input, then of every step."""
        self.prepare()
        maps = [_whole(q)]
        for number, step in enumerate(self.steps):
            dtype = np.uint8 if step.grid is not None else np.int32
            y = _memory.empty((len(q), *step.shape), dtype)
            maps.append(self._step(number, step, [maps[i] for i in step.reads], y))
        return maps

    def definition_maps(self, q) -> list:
        """The same by the definitions, in plain loops."""
        self.prepare()
        maps = [q]
        for step in self.steps:
            dtype = np.uint8 if step.grid is not None else np.int32
            y = np.empty((len(q), *step.shape), dtype)
            maps.append(self._by_definition(step, [maps[i] for i in step.reads], y))
        return maps

    def dequantised(self) -> list[Step]:
        """Steps in real numbers with the weights that the whole ones stand for."""
        found = []
        for step in self.steps:
            more = {"grid": None, "scales": None}
            if step.weight is not None:
                more["weight"], more["bias"] = stands_for(step, self.grids[step.reads[0]])
            found.append(Step(**{**step.__dict__, **more}))
        return found

    def in_reals(self, x) -> list:
        """All maps of scaled images by ``dequantised`` weights, in float32."""
        return run(self.dequantised(), x)

    def _alone(self):
        if not self._lock.acquire(blocking=False):
            raise RuntimeError(
                "predict: this net is at work in another thread; expected a net for each, or a lock around it"
            )
        return _Release(self._lock)

    def _map(self, place, images, shape):
        """The buffer number ``place``, as a map of this shape; it grows to the largest that it ever was."""
        size = images * int(np.prod(shape, dtype=np.int64))
        held = self._buffers.get(place)
        if held is None or held.size < size:
            held = self._buffers[place] = _memory.empty(size, np.uint8)
            self._plans.clear()
        return held[:size].reshape(images, *shape)

    # ------------------------------------------------------------------------------------------ steps

    def prepare(self):
        """Pack the weights, if that is still to be done. Raises NumnetError for what does not fit."""
        if self._ready is None:
            self._last = last_readers(self.steps)
            self._ready = [self._packed(step) for step in self.steps]
            self._joined = dict(self._with_tables())

    def _with_tables(self):
        """(number, packed weights with the table of the step behind) of each step whose map only a table reads.

        A pass looks its numbers up while they are hot; ``maps`` still makes both maps.
        """
        readers = [i for step in self.steps for i in step.reads]
        for number, (step, after) in enumerate(zip(self.steps, self.steps[1:])):
            packed = self._ready[number]
            alone = after.kind == "table" and after.reads == (number + 1,) and readers.count(number + 1) == 1
            last = number + 2 == len(self.steps)  # the output, which has an array of its own
            if step.kind in SUMS and packed is not None and alone and not last:
                yield number, packed._replace(table=self._ready[number + 1])

    def _fixed(self, step):
        """Equation (6) of a step with weights, or of an average or excitation."""
        x = self.grids[step.reads[0]]
        if step.kind in SUMS:
            if step.grid is None:
                return eight_bits.sums_only(step.bias)
            reals = x.scale * step.scales.astype(np.float64) / step.grid.scale
            return _fixed(step, reals, step.bias)
        if step.kind == "average":
            size = int(np.prod(self.shape_of(step.reads[0])[:-1]))
            return _fixed(step, [x.scale / step.grid.scale / size], [0])
        gates = self.grids[step.reads[1]]
        return _fixed(step, [x.scale * gates.scale / step.grid.scale], [0])

    def shape_of(self, number):
        """Shape of map ``number`` without the images: 0 is the input, n the map of step n − 1."""
        return self.input_shape if number == 0 else self.steps[number - 1].shape

    def _packed(self, step):
        """What the step's pass takes beside maps."""
        if step.kind in SUMS:
            fixed, zero = self._fixed(step), self.grids[step.reads[0]].zero
            if step.weight.dtype != np.int8 or (step.kind == "depthwise" and step.weight.shape[3] > 1):
                return None  # by the definition
            if step.kind == "depthwise":
                return quantised_depthwise.pack(step.weight[..., 0], zero, fixed)
            return quantised_product.pack(
                step.weight.reshape(step.weight.shape[0], -1, step.filters), zero, fixed
            )
        if step.kind == "add":
            first, second = (self.grids[i] for i in step.reads)
            return eight_bits.addition_of(first, second, step.grid, *step.bounds)
        if step.kind == "table":
            return table_of(step, self.grids[step.reads[0]])
        if step.kind == "maximum":
            return _window(step)
        if step.kind == "average":
            h, w, channels = self.shape_of(step.reads[0])
            return quantised_maps.for_means(
                self._fixed(step), self.grids[step.reads[0]].zero, h * w, channels
            )
        if step.kind == "excite":
            return quantised_maps.for_channels(self._fixed(step), step.shape[-1])
        if step.kind == "concat":
            same = [self.grids[i] == step.grid for i in step.reads]
            return [eight_bits.NO_TABLE if equal else table for equal, table in zip(same, self._tables(step))]
        return None  # flatten

    def _tables(self, step):
        """For each part of a concatenation the 256 numbers that bring it to the grid of the whole."""
        return [eight_bits.table_of(lambda real: real, self.grids[i], step.grid) for i in step.reads]

    def _step(self, number, step, inputs, y):
        """y, the map of a step."""
        function, arguments = self._call(number, step, inputs, y)
        function(*arguments)
        return y

    def _call(self, number, step, inputs, y, packed=None):
        """(function, arguments) that write the map of a step into y."""
        packed = self._ready[number] if packed is None else packed
        if packed is None:
            return self._by_definition, (step, inputs, y)
        x = inputs[0]
        if step.kind == "depthwise":
            return quantised_depthwise.depthwise_step(x, packed, _window(step), y)
        if step.kind == "conv":
            return quantised_product.conv_step(x, packed, _window(step), y)
        if step.kind == "dense":
            rows = len(x), 1, 1
            x, y = x.reshape(*rows, -1), y.reshape(*rows, -1)
            return quantised_product.conv_step(x, packed, quantised_product.POINT, y)
        if step.kind == "add":
            return quantised_maps.add_step(x, inputs[1], packed, y)
        if step.kind == "table":
            return quantised_maps.look_up_step(x, packed, y)
        if step.kind == "average":
            return quantised_maps.average_step(x, packed, y)
        if step.kind == "maximum":
            return quantised_maps.maximum, (x, packed, y.reshape(len(x), *step.map_shape))
        if step.kind == "concat":
            return quantised_maps.concat, (inputs, packed, y)
        zero_x, zero_g = (self.grids[i].zero for i in step.reads)
        return quantised_maps.excite_step(x, zero_x, inputs[1], zero_g, packed, y)

    def _by_definition(self, step, inputs, y):
        x, grid = inputs[0], self.grids[step.reads[0]]
        if step.kind == "flatten":
            y[...] = x.reshape(y.shape)
            return y
        if step.kind == "table":
            y[...] = table_of(step, grid)[x]
            return y
        if step.kind == "maximum":
            shape = len(x), *step.map_shape
            eight_bits.definition_maximum(x, _window(step), y.reshape(shape))
            return y
        if step.kind == "concat":
            return eight_bits.definition_concat(inputs, self._tables(step), y)
        if step.kind == "add":
            first, second = (self.grids[i] for i in step.reads)
            addition = eight_bits.addition_of(first, second, step.grid, *step.bounds)
            return eight_bits.definition_add(
                np.ascontiguousarray(x), np.ascontiguousarray(inputs[1]), addition, y
            )
        fixed = self._fixed(step)
        if step.kind == "average":
            return eight_bits.definition_average(x, grid.zero, fixed, y)
        if step.kind == "excite":
            gates = self.grids[step.reads[1]].zero
            return eight_bits.definition_excite(x, grid.zero, inputs[1], gates, fixed, y)
        window = _window(step)
        if step.kind == "depthwise":
            return eight_bits.definition_depthwise(x, step.weight, grid.zero, window, fixed, y)
        rows = (len(x), 1, 1) if step.kind == "dense" else x.shape[:3]
        shape = (len(x), 1, 1, step.filters) if step.kind == "dense" else y.shape
        eight_bits.definition(x.reshape(*rows, -1), step.weight, grid.zero, window, fixed, y.reshape(shape))
        return y

    def save(self, path, **meta):
        """One file that ``numnet.load`` reads: see ``quantised.files``. ``meta`` joins its document."""
        files.write(self, path, meta)


class _Release:
    def __init__(self, lock):
        self.lock = lock

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.lock.release()


def _fixed(step, reals, biases):
    try:
        return eight_bits.fixed_of(reals, biases, step.grid.zero, *step.bounds)
    except ValueError as error:
        raise NumnetError(f"{step.name}: scales that do not go together ({error})") from None


def _whole(q):
    """q as the passes want it: contiguous, and of the one array type that they are compiled for."""
    return _check.writable(np.ascontiguousarray(q, np.uint8))


def _window(step):
    k, stride, ((top, _), (left, _)) = step.frame
    return Window(k, stride, top, left)


def table_of(step, grid) -> np.ndarray:
    """The 256 numbers of a step of kind table."""
    return eight_bits.table_of(table_function(step), grid, step.grid)


def load(path, document, tensors) -> QuantisedNet:
    """The net of a checkpoint's document and arrays. Raises NumnetError for one that is damaged."""
    net = files.read(QuantisedNet, path, document, tensors)
    net.path = Path(path)
    return net
