"""Net: layers and blocks in order, all their parameters in one flat vector, forward, backward, predict, save."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from numnet import checkpoint, cost, initialisers
from numnet.blocks.separable import name_children
from numnet.cost import NetCost
from numnet.errors import NumnetError
from numnet.inference import Executor, maps
from numnet.kernels import _check, _memory
from numnet.layers.layer import Layer, Pending, Workspace, backward_through, finish, hand

# Attributes that layers, optimisers and checkpoints share memory with: they are changed in place, never replaced.
SHARED = ("flat", "flat_grad", "flat_buffers", "params", "grads", "buffers")
# Of the document of a net that was loaded or trained: what a user of its weights must know, whoever saves them.
KNOWN = ("untrained", "labels", "source", "dataset", "digest", "preset", "background", "recipe")


def dtype_of(dtype) -> np.dtype:
    """The dtype of a net, float32 or float64. Raises NumnetError for another one."""
    for kind in (np.float32, np.float64):
        try:
            if dtype is not None and np.dtype(dtype) == kind:
                return np.dtype(kind)
        except TypeError:
            pass
    raise NumnetError(f"dtype: expected float32 or float64, got {dtype!r}")


class Views(dict[str, np.ndarray]):
    """Name -> array, each a view of a flat vector. An array is written to, never replaced: nobody would see the new."""

    def __setitem__(self, name, value):
        if self.get(name) is not value:  # as it is after ``params[name] *= 2``
            raise TypeError(f"{name!r} is a view of the net's memory; expected [{name!r}][...] = values")

    def update(self, *arguments, **more):
        for name, value in dict(*arguments, **more).items():
            self[name] = value

    def __reduce__(self):
        return dict, (dict(self),)


class Net:
    """Layers in a row, from images (N, H, W, 3) to logits (N, classes).

    ``params``, ``grads``, ``buffers``: dicts from dotted names to arrays; ``flat``, ``flat_grad`` and ``flat_buffers``
    are the contiguous vectors that they are views of, and keep their memory for the life of the net. ``decay_mask``
    marks the numbers of ``flat`` that weight decay applies to. ``step`` counts training passes and keys dropout.
    ``frozen``: how many of the first layers run as in inference whatever ``training`` says (``freeze``).
    ``fake``: None, or a ``numnet.quantised.FakeQuantised`` of this net, which then does its training passes.
    A loader (``numnet.load``, ``numnet.weights.import_file``) leaves what its file says beside the weights: ``scaling``,
    ``class_names``, ``document``, ``notes``, ``path``. ``fit`` sets the first three; a net that was only built has none.
    A net belongs to one thread at a time, and says so where two meet. Copies (``copy.deepcopy``, ``pickle``, a process
    that was spawned) have memory of their own. ``allocate=False`` makes a description: shapes and costs, no arrays.
    """

    flat: np.ndarray  # None in a description, as the next three
    flat_grad: np.ndarray
    flat_buffers: np.ndarray
    decay_mask: np.ndarray
    params: dict[str, np.ndarray]
    grads: dict[str, np.ndarray]
    buffers: dict[str, np.ndarray]
    config: dict[str, Any] | None
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    scaling: dict[str, list[float]] | None  # from here on: of a net that was loaded or trained, see above
    class_names: list[str] | None
    document: dict[str, Any]
    notes: list[str]
    path: Path

    def __init__(
        self,
        layers: Sequence[Layer],
        input_shape: Sequence[int],
        *,
        dtype: DTypeLike = "float32",
        seed: int = 0,
        initialiser: str = "glorot_uniform",
        config: dict[str, Any] | None = None,
        allocate: bool = True,
    ) -> None:
        listed = layers if isinstance(layers, (list, tuple)) else ()
        strange = [layer for layer in listed if not isinstance(layer, Layer)]
        if strange or not listed:
            got = repr(strange[0] if strange else layers)[:60]
            raise NumnetError(f"layers: expected a list of layers and blocks, got {got}")
        shape = tuple(input_shape) if np.iterable(input_shape) else (input_shape,)
        if not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n > 0 for n in shape):
            raise NumnetError(f"input_shape: expected the shape of an image, (H, W, C), got {input_shape!r}")
        self.layers = name_children(listed)
        self.input_shape = tuple(int(n) for n in shape)
        self.dtype = dtype_of(dtype)
        self.seed, self.step, self.first_image, self.config = seed, 0, 0, config
        self.__dict__ |= dict.fromkeys(("flat", "flat_grad", "flat_buffers", "decay_mask"))
        self.params, self.grads, self.buffers = {}, {}, {}
        self._connect(self.input_shape)
        self.frozen, self.fake = 0, None
        self._start()
        if allocate:
            self._allocate(initialiser)

    def _start(self):
        """What no copy shares: who is at work, and the plans of predict."""
        self._ready, self._executor, self._before_head = False, None, {}
        self._lock, self._worker = threading.RLock(), None
        self._forwards, self._own, self._shape = 0, threading.local(), None
        self._robbed = False  # True once another net has been built of these layers

    def __setattr__(self, name, value):
        if name in SHARED and self.__dict__.get("flat") is not None and self.__dict__.get(name) is not value:
            raise AttributeError(f"{name}: the layers share its memory; expected net.{name}[...] = values")
        super().__setattr__(name, value)

    def __getstate__(self):
        return {
            name: value
            for name, value in self.__dict__.items()
            if name
            not in ("_executor", "_before_head", "_lock", "_own", "_worker", "params", "grads", "buffers")
        }

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._start()
        if self.flat is not None:
            self._bind()

    @property
    def classes(self) -> int:
        """Length of the output vector; 0 for a net that was built without a classifier (``classes=0``)."""
        return 0 if (self.config or {}).get("classes") == 0 else self.output_shape[-1]

    def walk(self) -> Iterator[tuple[str, Layer]]:
        """(dotted name, layer) of every layer and block, in the order of computation."""
        for layer in self.layers:
            yield from layer.tree(layer.name)

    # ------------------------------------------------------------------------------------------ parameters

    def _connect(self, shape):
        """Tell all layers the shape of one input image; note what they need."""
        self.input_shape = shape
        for layer in self.layers:
            shape = layer.connect(shape)
        self.output_shape = shape
        self.specs = {
            f"{path}.{name}": spec for path, layer in self.walk() for name, spec in layer.specs.items()
        }

    def _kept(self):
        """Dotted name -> shape of every buffer."""
        return {
            f"{path}.{name}": shape
            for path, layer in self.walk()
            for name, shape in layer.buffer_specs.items()
        }

    def _shapes(self):
        """The names of ``state()`` with their shapes; a description has them, too."""
        shapes = {f"params/{name}": spec.shape for name, spec in self.specs.items()}
        return shapes | {f"buffers/{name}": shape for name, shape in self._kept().items()}

    def _allocate(self, initialiser):
        size = sum(spec.size for spec in self.specs.values())
        kept = sum(int(np.prod(shape)) for shape in self._kept().values())
        vectors = {
            "flat": _memory.zeros(size, self.dtype),  # then nearly all weights start on a line of the cache
            "flat_grad": _memory.zeros(size, self.dtype),
            "flat_buffers": _memory.zeros(kept, self.dtype),
            "decay_mask": np.zeros(size, bool),
        }
        self.__dict__.update(vectors)
        self._bind()
        decays = _views(self.decay_mask, {name: spec.shape for name, spec in self.specs.items()})
        for number, (name, spec) in enumerate(self.specs.items()):
            initialisers.fill(self.params[name], spec, initialiser, self.seed, number)
            decays[name][...] = spec.decays
        for name, buffer in self.buffers.items():
            buffer[...] = 1 if name.endswith("variance") else 0

    def _bind(self):
        """Cut the flat vectors into the views, and hand each layer its own."""
        workspace = Workspace()
        shapes = {name: spec.shape for name, spec in self.specs.items()}
        self.__dict__["params"] = _views(self.flat, shapes)
        self.__dict__["grads"] = _views(self.flat_grad, shapes)
        self.__dict__["buffers"] = _views(self.flat_buffers, self._kept())
        for number, layer in enumerate(layer for _, layer in self.walk() if layer.kind == "dropout"):
            layer.number = number
        for path, layer in self.walk():
            if layer.clock is not None and layer.clock is not self:
                layer.clock._robbed = True
            layer.workspace, layer.clock = workspace, self
            layer.params = {name: self.params[f"{path}.{name}"] for name in layer.specs}
            layer.grads = {name: self.grads[f"{path}.{name}"] for name in layer.specs}
            layer.buffers = {name: self.buffers[f"{path}.{name}"] for name in layer.buffer_specs}

    def resize(self, side: int | Sequence[int]) -> None:
        """Take images of another side, (N, side, side, C), from here on; every weight stays what and where it is.

        ``side``: pixels, or (height, width). Nets that average over the last map can; one that flattens it has weights
        for each of its places. Raises NumnetError, and leaves the net as it was, where another side would ask for other
        weights or has no room for the net's strides, and for one side of a net whose images are not square.
        """
        before = self.input_shape
        sides = tuple(side) if isinstance(side, (tuple, list)) else (side, side)
        if len(sides) != 2 or any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) for n in sides):
            raise NumnetError(f"side: expected an integer or (height, width), got {side!r}")
        high, wide = map(int, sides)
        if before[0] != before[1] and not isinstance(side, (tuple, list)):
            raise NumnetError(
                f"this net takes images of {before[0]}×{before[1]}; another side is for square images, expected "
                "(height, width)"
            )
        shapes, problem = self._shapes(), None
        try:
            self._connect((high, wide, *before[2:]))
            if self._shapes() != shapes:
                problem = f"this net's weights are for images of {before[0]}×{before[1]}, they do not fit {high}×{wide}"
        except ValueError as error:
            problem = f"this net has no room in images of {high}×{wide}: {error}"
        except BaseException:  # of a layer of one's own; its reason is not known here
            self._connect(before)
            self._anew()
            raise
        if problem:
            self._connect(before)
        elif self.config and "model" in self.config:  # what is saved is this net
            self.config = {**self.config, "resolution": high if high == wide else [high, wide]}
        self._anew()
        if problem:
            raise NumnetError(problem)

    def _anew(self):
        """After the layers were connected once more: their views, and no plan of before."""
        if self.flat is not None:
            self._bind()
        self._executor, self._before_head, self._ready = None, {}, False

    def matrices(self):
        """(start in ``flat``, rows, F) of every weight that is a matrix and that batch norm follows, in their order.

        Rows are all inputs of a filter: C of a pointwise convolution, K·K·C of a standard one.
        """
        found, start = [], 0
        for name, spec in self.specs.items():
            normed = name.removesuffix("weight") + "bn.gamma" in self.specs
            if spec.role in ("conv", "pointwise") and normed:
                found.append((start, spec.size // spec.shape[-1], spec.shape[-1]))
            start += spec.size
        return found

    # ------------------------------------------------------------------------------------------ passes

    @contextmanager
    def _alone(self, what):
        """Inside, this thread has the net to itself; RuntimeError if another has it."""
        if not self._lock.acquire(blocking=False):
            raise RuntimeError(
                f"{what}: this net is at work in another thread ({self._worker}); a net belongs to one thread at a time, "
                "expected a net for each (copy.deepcopy) or a lock around it"
            )
        try:
            self._worker = threading.current_thread().name
            yield
        finally:
            self._lock.release()

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """Logits (N, classes), a fresh array, for images x (N, H, W, 3) that are scaled already.

        ``training``: batch statistics in batch norm (the running ones move), dropout on. A strided, Fortran-ordered or
        float array of the other precision is copied; any other dtype or shape raises ValueError. Else x itself is kept
        for ``backward``: leave it as it is until then. RuntimeError while another thread uses the net.
        """
        with self._alone("forward"):
            return self._forward(self._images(x), training)

    def _forward(self, x, training):
        if training and len(x) == 0:
            raise ValueError(
                f"x: shape {x.shape} is an empty batch, which has no statistics; expected at least one image"
            )
        if len(x) == 0:
            return np.empty((0, *self.output_shape), self.dtype)
        self._ready = False  # until the pass is whole: an error or Ctrl-C may end it between two layers
        if training:
            self._forwards += 1
            self._own.forward, self._shape = self._forwards, (len(x), *self.output_shape)
            if self.fake is not None:
                y = self.fake.forward(x)
                self._ready = True
                return y
        for number, layer in enumerate(self.layers):
            x = hand(layer, x, training and number >= self.frozen)
        if isinstance(x, Pending):
            x = finish(x, self.layers[-1].memory, "output")
        self._ready = training
        return np.array(x)

    def backward(self, dlogits: np.ndarray, input_gradient: bool = True) -> np.ndarray | None:
        """Fill ``grads`` for dlogits (N, classes) after ``forward(training=True)``; dx (N, H, W, 3), or None.

        ``input_gradient=False`` saves the work of the stem's dx; where layers are frozen there is none, and theirs in
        ``grads`` stay 0. Raises RuntimeError without a forward before it, and if predict, or a forward of another
        thread, has come between: what backward needs of the layers is gone then.
        """
        with self._alone("backward"):
            return self._backward(dlogits, input_gradient)

    def _backward(self, dlogits, input_gradient):
        if not self._ready:
            raise RuntimeError(
                "backward: expected forward(x, training=True) before it, and no predict between"
            )
        if getattr(self._own, "forward", self._forwards) != self._forwards:
            raise RuntimeError(
                "backward: another thread has called forward on this net since; a net belongs to one thread at a time"
            )
        dlogits = np.asarray(dlogits)
        if dlogits.dtype.kind != "f":
            raise ValueError(f"dlogits: expected {self.dtype}, got {dlogits.dtype}")
        if dlogits.shape != self._shape:
            raise ValueError(
                f"dlogits: expected shape {self._shape} like the output of forward, got {dlogits.shape}"
            )
        self._ready = False
        dlogits = np.ascontiguousarray(dlogits, self.dtype)
        if self.fake is not None:
            self.step += 1
            return self.fake.backward(dlogits, input_gradient)
        input_gradient = input_gradient and not self.frozen
        dx = backward_through(self.layers[self.frozen :], dlogits, input_gradient)
        self.step += 1
        if dx is None or not input_gradient:
            if dx is not None:
                self.layers[0].workspace.release(dx)
            return None
        result = np.array(dx)
        self.layers[0].workspace.release(dx)
        return result

    def freeze(self, name: str | None) -> tuple[int, int]:
        """Freeze the layer or block ``name`` and all before it, and no other: no training changes a bit of them from here on.

        They run as in inference, with running statistics and without dropout; their gradients are 0, and weight decay
        leaves them alone. (An optimiser that is at work keeps its velocity and its weight decay: call this before ``fit``,
        not in its callbacks.) None: from here on everything trains. Returns how many of the first parameters and buffers
        are frozen. Raises NumnetError, and leaves the net as it was, for a name that the net does not have or that leaves
        nothing to train.
        """
        names = [layer.name for layer in self.layers]
        if name is not None and name not in names:
            known = ", ".join(names)
            raise NumnetError(f"freeze: the net has no block {name!r}, expected one of {known}")
        frozen = 0 if name is None else names.index(name) + 1
        kept = set(names[:frozen])  # their numbers stand first in the flat vectors
        sizes = {path: spec.size for path, spec in self.specs.items()}
        size = sum(sizes[path] for path in sizes if path.partition(".")[0] in kept)
        if size == sum(sizes.values()):
            raise NumnetError(f"freeze: nothing of the net is left to train after {name}")
        if self.flat is not None:
            decays = _views(self.decay_mask, {path: spec.shape for path, spec in self.specs.items()})
            for path, spec in self.specs.items():
                if path.partition(".")[0] in names[: self.frozen]:  # those that were frozen until now
                    decays[path][...] = spec.decays
            self.flat_grad[:size], self.decay_mask[:size] = 0, False
        self.frozen = frozen
        return size, sum(a.size for path, a in self.buffers.items() if path.partition(".")[0] in kept)

    def predict(self, x: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """Logits (N, classes) of inference at full speed for any number of images, ``batch_size`` at a time.

        The same numbers as ``forward(x)`` up to rounding, by the planned executor; it sees every change of the weights.
        Takes and raises what ``forward`` does.
        """
        _require_batch_size(batch_size)
        with self._alone("predict"):
            return self._predict(self._images(x), batch_size)

    def _predict(self, x, batch_size):
        if len(x) == 0:
            return np.empty((0, *self.output_shape), self.dtype)
        self._ready = False  # some layers are run as they are, and forget what they kept for backward
        if self._executor is None:
            self._executor = Executor(self.layers, self.flat, self.flat_buffers)
        chunks = [self._executor.run(x[lo : lo + batch_size]) for lo in range(0, len(x), batch_size)]
        return np.concatenate(chunks) if len(chunks) > 1 else chunks[0]

    def maps(self, x: np.ndarray, *names: str, batch_size: int = 256) -> dict[str, np.ndarray]:
        """What inner layers make of images x (N, H, W, 3): a dict from dotted names to maps (N, P, Q, C), vectors (N, C).

        names: those of ``walk()``, or patterns with *: "block*" is every block, "block*.depthwise" the depthwise
        convolution in each. In the order of computation; each finished, batch norm and activation done, and a copy. No other
        map is kept, and nothing behind the last one is computed. Raises NumnetError for a name that fits nothing,
        else what ``forward`` raises. A backward that is due stays due.
        """
        wanted = maps.matching([name for name, _ in self.walk()], names or ("*",))
        _require_batch_size(batch_size)
        with self._alone("maps"):
            x = self._images(x)
            if not len(x):
                shapes = {name: layer.output_shape for name, layer in self.walk()}
                return {name: np.empty((0, *shapes[name]), self.dtype) for name in wanted}
            parts = [
                maps.collect(self.layers, x[lo : lo + batch_size], wanted)
                for lo in range(0, len(x), batch_size)
            ]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in wanted}

    def features(self, x: np.ndarray, batch_size: int = 256, *, pooled: bool = True) -> np.ndarray:
        """What the classifier reads, (N, C), for images x (N, H, W, 3): the net's output before its last dense layer.

        Of a net without classifier (``classes=0``) all that it computes. ``pooled=False``: the last map instead,
        (N, P, Q, C), as the pooling reads it (V3 and V4 have a layer more between the pooling and the classifier).
        At the speed of ``predict``, which raises the same. NumnetError for a net that has no dense layer, or no map.
        """
        stop = self._end_of_features() if pooled else self._end_of_maps()
        _require_batch_size(batch_size)
        with self._alone("features"):
            x = self._images(x)
            before = self.layers[:stop]
            if len(x) == 0:
                return np.empty((0, *before[-1].output_shape), self.dtype)
            self._ready = False
            if stop not in self._before_head:
                self._before_head[stop] = Executor(before, self.flat, self.flat_buffers)
            run = self._before_head[stop].run
            parts = [run(x[lo : lo + batch_size]) for lo in range(0, len(x), batch_size)]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _end_of_features(self) -> int:
        """How many of the layers stand before the classifier."""
        dense = [number for number, layer in enumerate(self.layers) if layer.kind == "dense"]
        if self.classes == 0:
            return len(self.layers)
        if not dense or not dense[-1]:
            raise NumnetError(
                "features: expected a net with layers before a dense one; see maps for any other layer's"
            )
        return dense[-1]

    def _end_of_maps(self) -> int:
        """How many of the layers stand before the one that pools or flattens the last map."""
        ends = ("global average", "global max", "flatten")
        stop = next((number for number, layer in enumerate(self.layers) if layer.kind in ends), 0)
        if not stop:
            raise NumnetError("features: pooled=False is for a net that pools or flattens a map")
        return stop

    def _images(self, x):
        if self.flat is None:
            raise RuntimeError(
                "this net is a description without arrays; numnet.build makes one that computes"
            )
        if self._robbed:
            raise RuntimeError(
                "this net's layers have been given to another net since; expected new layers for each net"
            )
        x = np.asarray(x)
        if x.ndim != 4 or x.shape[1:] != self.input_shape:
            expected = ", ".join(str(n) for n in self.input_shape)
            raise ValueError(f"x: expected images (N, {expected}), got shape {x.shape}")
        if x.dtype.kind != "f":
            raise ValueError(
                f"x: expected scaled floats ({self.dtype}), got {x.dtype}; see numnet.data for the scaling"
            )
        return _check.writable(np.ascontiguousarray(x, self.dtype))

    # ------------------------------------------------------------------------------------------ cost, files, text

    def cost(self) -> NetCost:
        """Closed forms, layer by layer and in sum, for one image: ``.macs .params .rows``. Allocates nothing."""
        return cost.of(self)

    def __repr__(self):
        return cost.table(self)

    def state(self) -> dict[str, np.ndarray]:
        """All tensors of the net under the names that a checkpoint gives them."""
        tensors = {f"params/{name}": array for name, array in self.params.items()}
        return tensors | {f"buffers/{name}": array for name, array in self.buffers.items()}

    def require(self, shapes, where="the checkpoint"):
        """Raise NumnetError that lists every tensor of ``shapes``, name -> shape, missing, left over or of the wrong shape.

        A description without arrays can tell, too.
        """
        own = self._shapes()
        wrong = [f"{name} is missing" for name in own if name not in shapes]
        for name, shape in shapes.items():
            if not name.startswith(("params/", "buffers/")):
                continue
            if name not in own:
                wrong.append(f"{name} is not in the net")
            elif shape != own[name]:
                wrong.append(f"{name} has shape {shape}, expected {own[name]}")
        if wrong:
            raise NumnetError(f"{where} does not fit the net: " + "; ".join(wrong))

    def restore(self, tensors: dict[str, np.ndarray], where: str = "the checkpoint") -> None:
        """Copy ``state()`` back in. Raises NumnetError that lists every tensor missing, left over or of a wrong kind."""
        own = self.state()
        self.require({name: array.shape for name, array in tensors.items()}, where)
        wrong = [f"{name} has type {tensors[name].dtype}" for name in own if tensors[name].dtype.kind != "f"]
        if wrong:
            raise NumnetError(f"{where} does not fit the net: {'; '.join(wrong)}; expected floats")
        for name, array in own.items():
            array[...] = tensors[name]

    def save(self, path: str | os.PathLike[str], *, half: bool = False, **meta: Any) -> None:
        """One file: all tensors, and as JSON the configuration and whatever ``meta`` says.

        What is known of a net that was loaded, or trained by ``fit``, goes along: ``input``, its scaling, ``classes``, their
        names, and ``KNOWN``; ``meta`` wins over it. After a loop of your own say ``untrained=None``: ``fit`` alone knows
        that new layers have been trained.

        ``half``: all as float16 but the running variances, which may leave its range: about half the bytes. Loading
        gives the net's own dtype again.
        """
        if self.flat is None:
            raise NumnetError(
                "save: this net is a description without arrays; numnet.build makes one that has them"
            )
        tensors = self.state()
        if half:
            tensors = {
                name: a if name.endswith(".variance") else a.astype(np.float16) for name, a in tensors.items()
            }
        document = getattr(self, "document", None) or {}
        known = {"input": getattr(self, "scaling", None), "classes": getattr(self, "class_names", None)}
        known |= {key: document.get(key) for key in KNOWN}
        known = {key: value for key, value in known.items() if value is not None and key not in meta}
        own = {"format": 1, "config": self.config, "step": self.step}
        checkpoint.write(path, tensors, {**own, **known, **meta})


def _require_batch_size(batch_size):
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(f"batch_size: expected an integer of at least 1, got {batch_size!r}")


def _views(flat, shapes):
    views, at = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape, dtype=np.int64))
        views[name] = flat[at : at + size].reshape(shape)
        at += size
    return Views(views)
