"""What a layer is, what travels between two layers, and the memory that they work in.

A layer is made of hyperparameters alone. ``connect(shape)`` tells it the shape of one input image, (H, W, C) or (C,);
it answers with its output shape and states the parameters it needs, without allocating them. A net lays all parameters
of its layers into one flat vector and hands each layer its views (``bind``). Then ``forward`` and ``backward`` run.

A layer of one's own needs exactly these names::

    class Scale(Layer):
        kind = "scale"
        def connect(self, shape):
            self.needs("weight", (shape[-1],), role="gamma")
            return super().connect(shape)
        def forward(self, x, training):
            self.x = x
            return x * self.params["weight"]
        def backward(self, dy, input_gradient=True):
            self.grads["weight"][:] = (dy * self.x).reshape(-1, self.x.shape[-1]).sum(0)
            return dy * self.params["weight"]

``grads`` are assigned, never added to: no weight is shared in this family of nets, so there is nothing to zero.
"""

from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from numnet.kernels import _memory, batchnorm
from numnet.kernels._cost import Cost

WEIGHTS = ("conv", "depthwise", "pointwise", "dense")  # roles of parameters that decay


class Spec(NamedTuple):
    """A parameter before it exists: its shape, its role, and the fans that initialisers ask for."""

    shape: tuple
    role: str  # "conv", "depthwise", "pointwise", "dense": weights that decay; "bias", "gamma", "beta": not
    fan_in: int = 0
    fan_out: int = 0

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def decays(self) -> bool:
        return self.role in WEIGHTS


class CostRow(NamedTuple):
    """A line of the cost table: one operation of a layer, for one image."""

    name: str
    type: str
    output_shape: tuple
    cost: Cost


class Pending:
    """A map whose normalisation and activation wait for the next reader: finished = activation(BN(raw)).

    raw (N, P, Q, C); pack (4, C): mean, inv_std, γ, β; code: the activation. A consumer that knows how applies them
    to its hot tile (batchnorm's page says why); any other asks for ``finish``. In backward the consumer may leave
    in ``sums`` (parts, 2, C) the two sums that the producer's batch norm needs, taken while dx was hot.
    """

    __slots__ = ("code", "pack", "raw", "sums")

    def __init__(self, raw, pack, code):
        self.raw, self.pack, self.code, self.sums = raw, pack, code, None

    @property
    def shape(self):
        return self.raw.shape


def source(x):
    """The Source of a map that is pending or finished: what the kernels read."""
    if isinstance(x, Pending):
        return batchnorm.source_of(x.raw, x.pack, x.code)
    return batchnorm.source_of(x)


class Memory:
    """Named arrays that are allocated once and grow when a larger batch comes; fresh memory costs page faults."""

    def __init__(self):
        self._flat = {}

    def array(self, name, shape, dtype):
        """An array of this shape whose contents are whatever was there before."""
        size = int(np.prod(shape, dtype=np.int64))
        flat = self._flat.get(name)
        if flat is None or flat.size < size or flat.dtype != dtype:
            flat = self._flat[name] = _memory.empty(size, dtype)
        return flat[:size].reshape(shape)

    @property
    def nbytes(self):
        return sum(flat.nbytes for flat in self._flat.values())


class Workspace:
    """Gradient maps on loan: each lives from the layer that makes it to the layer that uses it up."""

    def __init__(self):
        self._free, self._lent = [], {}

    def borrow(self, shape, dtype):
        """An array of this shape from the smallest free buffer that holds it, or from a new one."""
        size = int(np.prod(shape, dtype=np.int64))
        fitting = [flat for flat in self._free if flat.size >= size and flat.dtype == dtype]
        if fitting:
            flat = min(fitting, key=len)
            self._free = [other for other in self._free if other is not flat]
        else:
            if self._free:  # none is large enough: the largest gives way, so that two never grow side by side
                largest = max(self._free, key=len)
                self._free = [other for other in self._free if other is not largest]
            flat = _memory.empty(size, dtype)
        self._lent[id(flat.base)] = flat
        return flat[:size].reshape(shape)

    def release(self, array):
        """Take a loan back; arrays that were never lent are somebody else's and stay as they are."""
        flat = self._lent.pop(id(array.base), None)
        if flat is not None:
            self._free.append(flat)

    @property
    def nbytes(self):
        return sum(flat.nbytes for flat in [*self._free, *self._lent.values()])


class Alone:
    """What a layer asks of the other processes that train the net. Alone, its own sums are the whole answer.

    A pass sums in parts, by index. With others it is one of ``numnet.parallel.peers``. (``training.team.Team`` is what
    the *training* asks: who reads which images, who writes files. ``team.peers`` is one of these here.)
    """

    def parts_here(self, parts):
        """How many of the ``parts`` partial sums that a shape asks for are made here."""
        return parts

    def moments(self, moments):
        """Batch norm's moments (parts, 3, C) of the whole batch."""
        return moments

    def gradient_sums(self, sums, count):
        """Batch norm's sums (parts, 2, C) and its number of pixels, 0 with running statistics, over the whole batch."""
        return sums, count

    def weight_sums(self, unit, partial):
        """The unit's gradients have been written; those of its weight are the sum of ``partial`` (parts, …)."""

    def shares(self, images):
        """The shares of a batch of ``images`` images, as slices, that a dense layer and the loss do one by one."""
        return [slice(0, images)]

    def add_shares(self, gradients):
        """The sum of the dense layer's gradients [(dw, db) of each of these shares]."""
        return gradients[0]

    def done(self, layer):
        """The gradients of this layer and of all behind it are final."""


ALONE = Alone()


class Layer:
    """The base of all layers; see the top of this page."""

    kind = "layer"
    reads_pending = False  # True: forward takes a Pending as it is
    peers = ALONE

    def __init__(self, name=None):
        self.name = name
        self.input_shape = self.output_shape = None
        self.specs: dict[str, Spec] = {}
        self.buffer_specs: dict[str, tuple] = {}
        self.params, self.grads, self.buffers = {}, {}, {}
        self.memory, self.workspace = Memory(), Workspace()
        self.clock = None  # the net, for layers that ask for its seed and step

    # -------------------------------------------------------------- what a kind of layer defines

    def connect(self, shape):
        """Take the shape of one input image and return that of one output image; state parameters with ``needs``."""
        self.input_shape = self.output_shape = tuple(shape)
        return self.output_shape

    def forward(self, x, training):
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, dy, input_gradient=True):
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def cost(self):
        """Rows (name, type, output shape, Cost) of one image; parameters that no row counts are added by the net."""
        params = sum(spec.size for spec in self.specs.values())
        return [CostRow("", self.kind, self.output_shape, Cost(params=params))]

    # -------------------------------------------------------------- what all layers share

    children: tuple = ()  # blocks list their layers here

    def needs(self, name, shape, role, fan_in=0, fan_out=0):
        """State a parameter; ``role``: see ``Spec``. Raises ValueError for another one, and for weights without fans."""
        if role not in (*WEIGHTS, "bias", "gamma", "beta"):
            raise ValueError(
                f"{self.kind}: role: expected one of {', '.join(WEIGHTS)}, bias, gamma, beta, got {role!r}"
            )
        if role in WEIGHTS and not (fan_in > 0 and fan_out > 0):
            raise ValueError(
                f"{self.kind}: {name}: a weight of role {role} is drawn by its fans; expected fan_in and fan_out above 0"
            )
        self.specs[name] = Spec(tuple(shape), role, fan_in, fan_out)

    def keeps(self, name, shape):
        """State a buffer: kept and saved, not trained."""
        self.buffer_specs[name] = tuple(shape)

    def tree(self, prefix=""):
        """(dotted name, layer) of this layer and all below it, parents first."""
        yield prefix, self
        for child in self.children:
            yield from child.tree(f"{prefix}.{child.name}" if prefix else child.name)


def map_of(kind, shape) -> tuple:
    """The shape (H, W, C) of a map, as a tuple. Raises ValueError for that of a vector, or of anything else."""
    if len(shape) != 3:
        raise ValueError(
            f"{kind}: expected maps (H, W, C), got {tuple(shape)}; vectors come after GlobalAverage or Flatten"
        )
    return tuple(shape)


def finish(x, memory, name):
    """The finished activation of a map, in the given memory if it has to be computed."""
    if not isinstance(x, Pending):
        return x
    return batchnorm.normalised(source(x), memory.array(name, x.shape, x.raw.dtype))


def hand(layer, x, training):
    """layer.forward, with a pending x finished first if the layer does not know what to do with one."""
    if isinstance(x, Pending) and not layer.reads_pending:
        x = finish(x, layer.memory, "finished input")
    y = layer.forward(x, training)
    if isinstance(y, Pending):
        return y
    if y.shape[1:] != tuple(layer.output_shape):  # the kernels behind it check nothing
        raise ValueError(
            f"{layer.name}: forward gave shape {y.shape}, expected (N, {', '.join(map(str, layer.output_shape))}) "
            "as its connect says"
        )
    return np.ascontiguousarray(y, x.raw.dtype if isinstance(x, Pending) else x.dtype)


@contextmanager
def watched(layers, watch):
    """Inside, every call of these layers' ``forward`` and ``backward`` goes to the function that ``watch`` makes of it.

    watch(layer, name, method) -> a function of the same arguments, which calls ``method``, the layer's own of this name, and
    may look at the clock or at the result.
    """
    for layer in layers:
        layer.forward = watch(layer, "forward", layer.forward)
        layer.backward = watch(layer, "backward", layer.backward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward, layer.backward


def backward_through(layers, dy, input_gradient=True):
    """The layers' backward, last to first. dy stays the caller's; maps between two layers go back to the workspace."""
    given = dy
    for layer in reversed(layers):
        dx = layer.backward(dy, input_gradient or layer is not layers[0])
        layer.peers.done(layer)
        if dx is not None:
            dx = np.ascontiguousarray(dx, dy.dtype)  # as the kernels behind it expect; itself, if it is so
        # dy has been read: its memory is free, unless it is the caller's or the layer handed the same memory on as dx.
        if _owner(dy) is not _owner(given) and (dx is None or _owner(dx) is not _owner(dy)):
            layer.workspace.release(dy)
        dy = dx
    return dy


def _owner(array):
    """The array whose memory this one uses."""
    return array if array.base is None else array.base
