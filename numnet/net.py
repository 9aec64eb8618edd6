"""Net: layers and blocks in order, all their parameters in one flat vector, forward, backward, predict, save."""

import numpy as np

from numnet import checkpoint, cost, initialisers
from numnet.blocks.separable import name_children
from numnet.errors import NumnetError
from numnet.inference import Executor
from numnet.kernels import _check
from numnet.layers.layer import Pending, Workspace, backward_through, finish, hand


class Net:
    """Layers in a row, from images (N, H, W, 3) to logits (N, classes).

    ``params``, ``grads``, ``buffers``: dicts from dotted names to arrays; ``flat``, ``flat_grad`` and ``flat_buffers``
    are the contiguous vectors that they are views of, and keep their memory for the life of the net. ``decay_mask``
    marks the numbers of ``flat`` that weight decay applies to. ``step`` counts training passes and keys dropout.
    ``frozen``: how many of the first layers run as in inference whatever ``training`` says (``freeze``).
    A net belongs to one thread at a time. ``allocate=False`` makes a description: shapes and costs, no arrays.
    """

    def __init__(
        self,
        layers,
        input_shape,
        *,
        dtype="float32",
        seed=0,
        initialiser="glorot_uniform",
        config=None,
        allocate=True,
    ):
        self.layers = name_children(layers)
        self.input_shape = tuple(int(n) for n in input_shape)
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise NumnetError(f"dtype: expected float32 or float64, got {dtype!r}")
        self.seed, self.step, self.first_image, self.config = seed, 0, 0, config
        shape = self.input_shape
        for layer in self.layers:
            shape = layer.connect(shape)
        self.output_shape = shape
        self.flat = self.flat_grad = self.flat_buffers = self.decay_mask = None
        self.params, self.grads, self.buffers = {}, {}, {}
        self.specs = {
            f"{path}.{name}": spec for path, layer in self.walk() for name, spec in layer.specs.items()
        }
        self._ready, self._executor, self.frozen = False, None, 0
        if allocate:
            self._allocate(initialiser)

    @property
    def classes(self) -> int:
        """Length of the output vector."""
        return self.output_shape[-1]

    def walk(self):
        """(dotted name, layer) of every layer and block, in the order of computation."""
        for layer in self.layers:
            yield from layer.tree(layer.name)

    # ------------------------------------------------------------------------------------------ parameters

    def _allocate(self, initialiser):
        workspace = Workspace()
        kept = {
            f"{path}.{name}": shape
            for path, layer in self.walk()
            for name, shape in layer.buffer_specs.items()
        }
        size = sum(spec.size for spec in self.specs.values())
        self.flat, self.flat_grad = np.zeros(size, self.dtype), np.zeros(size, self.dtype)
        self.flat_buffers = np.zeros(sum(int(np.prod(shape)) for shape in kept.values()), self.dtype)
        self.decay_mask = np.zeros(size, bool)
        self.params = _views(self.flat, {name: spec.shape for name, spec in self.specs.items()})
        self.grads = _views(self.flat_grad, {name: spec.shape for name, spec in self.specs.items()})
        self.buffers = _views(self.flat_buffers, kept)
        decays = _views(self.decay_mask, {name: spec.shape for name, spec in self.specs.items()})
        for number, (name, spec) in enumerate(self.specs.items()):
            initialisers.fill(self.params[name], spec, initialiser, self.seed, number)
            decays[name][...] = spec.decays
        for name, buffer in self.buffers.items():
            buffer[...] = 1 if name.endswith("variance") else 0
        for path, layer in self.walk():
            layer.workspace, layer.clock = workspace, self
            layer.params = {name: self.params[f"{path}.{name}"] for name in layer.specs}
            layer.grads = {name: self.grads[f"{path}.{name}"] for name in layer.specs}
            layer.buffers = {name: self.buffers[f"{path}.{name}"] for name in layer.buffer_specs}

    # ------------------------------------------------------------------------------------------ passes

    def forward(self, x, training=False):
        """Logits (N, classes), a fresh array, for images x (N, H, W, 3) that are scaled already.

        ``training``: batch statistics in batch norm (the running ones move), dropout on. A strided, Fortran-ordered or
        float array of the other precision is copied; any other dtype or shape raises ValueError.
        """
        x = self._images(x)
        if training and len(x) == 0:
            raise ValueError(
                f"x: shape {x.shape} is an empty batch, which has no statistics; expected at least one image"
            )
        if len(x) == 0:
            return np.empty((0, *self.output_shape), self.dtype)
        self._ready = training
        for number, layer in enumerate(self.layers):
            x = hand(layer, x, training and number >= self.frozen)
        if isinstance(x, Pending):
            x = finish(x, self.layers[-1].memory, "output")
        return np.array(x)

    def backward(self, dlogits, input_gradient=True):
        """Fill ``grads`` for dlogits (N, classes) after ``forward(training=True)``; dx (N, H, W, 3), or None.

        ``input_gradient=False`` saves the work of the stem's dx; where layers are frozen there is none, and theirs in
        ``grads`` stay 0. Raises RuntimeError without a forward before it.
        """
        if not self._ready:
            raise RuntimeError("backward: expected forward(x, training=True) before it")
        self._ready = False
        dlogits = np.ascontiguousarray(dlogits, self.dtype)
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

    def freeze(self, name):
        """Freeze the layer or block ``name`` and all before it: no training changes a bit of them from here on.

        They run as in inference, with running statistics and without dropout; their gradients are 0, and weight decay
        leaves them alone. Returns how many of the first parameters and buffers that is. Raises NumnetError for a name
        that the net does not have or that leaves nothing to train.
        """
        names = [layer.name for layer in self.layers]
        if name not in names:
            known = ", ".join(names)
            raise NumnetError(f"freeze: the net has no block {name!r}, expected one of {known}")
        self.frozen = names.index(name) + 1
        kept = set(names[: self.frozen])  # their numbers stand first in the flat vectors
        sizes = {path: spec.size for path, spec in self.specs.items()}
        size = sum(sizes[path] for path in sizes if path.partition(".")[0] in kept)
        if size == sum(sizes.values()):
            raise NumnetError(f"freeze: nothing of the net is left to train after {name}")
        if self.flat is not None:
            self.flat_grad[:size], self.decay_mask[:size] = 0, False
        return size, sum(a.size for path, a in self.buffers.items() if path.partition(".")[0] in kept)

    def predict(self, x, batch_size=256):
        """Logits (N, classes) of inference at full speed for any number of images, ``batch_size`` at a time.

        The same numbers as ``forward(x)`` up to rounding, by the planned executor; it sees every change of the weights.
        Takes and raises what ``forward`` does.
        """
        x = self._images(x)
        if len(x) == 0:
            return self.forward(x)
        if self._executor is None:
            self._executor = Executor(self.layers, self.flat, self.flat_buffers)
        chunks = [self._executor.run(x[lo : lo + batch_size]) for lo in range(0, len(x), batch_size)]
        return np.concatenate(chunks) if len(chunks) > 1 else chunks[0]

    def _images(self, x):
        if self.flat is None:
            raise RuntimeError(
                "this net is a description without arrays; numnet.build makes one that computes"
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

    def cost(self):
        """Closed forms, layer by layer and in sum, for one image: ``.macs .params .rows``. Allocates nothing."""
        return cost.of(self)

    def __repr__(self):
        return cost.table(self)

    def state(self):
        """All tensors of the net under the names that a checkpoint gives them."""
        tensors = {f"params/{name}": array for name, array in self.params.items()}
        return tensors | {f"buffers/{name}": array for name, array in self.buffers.items()}

    def restore(self, tensors, where="the checkpoint"):
        """Copy ``state()`` back in. Raises NumnetError that lists every tensor missing, left over or of the wrong shape."""
        own = self.state()
        wrong = [f"{name} is missing" for name in own if name not in tensors]
        for name, array in tensors.items():
            if not name.startswith(("params/", "buffers/")):
                continue
            if name not in own:
                wrong.append(f"{name} is not in the net")
            elif array.shape != own[name].shape:
                wrong.append(f"{name} has shape {array.shape}, expected {own[name].shape}")
        if wrong:
            raise NumnetError(f"{where} does not fit the net: " + "; ".join(wrong))
        for name, array in own.items():
            array[...] = tensors[name]

    def save(self, path, **meta):
        """One file: all tensors, and as JSON the configuration and whatever ``meta`` says (input scaling, classes …)."""
        checkpoint.write(path, self.state(), {"format": 1, "config": self.config, "step": self.step, **meta})


def _views(flat, shapes):
    views, at = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape, dtype=np.int64))
        views[name] = flat[at : at + size].reshape(shape)
        at += size
    return views
