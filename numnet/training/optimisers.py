"""Optimisers: what each remembers between steps. Their arithmetic has its pages in ``kernels/``.

An optimiser holds views of a net's two flat vectors and changes the first at every ``step(lr)``. All that it
remembers is in ``slots`` (name -> vector like the weights) and in ``steps``, the number of steps done: saved
and loaded again, it goes on as if nothing had happened.
"""

import numpy as np

from numnet.errors import NumnetError
from numnet.kernels import vector
from numnet.kernels.adam import adam_step
from numnet.kernels.muon import muon_step
from numnet.kernels.rmsprop import rmsprop_step
from numnet.kernels.sgd import sgd_step


class Optimiser:
    """What all optimisers share. ``DEFAULTS`` are its options with their values; ``lr`` is among them.

    ``weights``, ``gradient``: vectors (n,) of one dtype; they are kept, not copied. ``decay_mask``: bool
    (n,), True where weight decay applies; ``matrices``: (start, rows, F) of each weight that is a matrix and that batch norm
    follows, for optimisers that treat those apart; ``betas``: bool (n,), True for β of batch norm, whose steps SGD and
    muon multiply by ``beta_rate``. Raises NumnetError for an option that the optimiser does not have.
    """

    DEFAULTS: dict = {}
    SLOTS: tuple = ()

    def __init__(self, weights, gradient, decay_mask, weight_decay=0.0, matrices=(), betas=None, **options):
        for name in options:
            if name not in self.DEFAULTS:
                raise NumnetError(f"{self.name()} has no option {name!r}; it has {', '.join(self.DEFAULTS)}")
        self.weights, self.gradient, self.matrices = weights, gradient, matrices
        self.betas = np.zeros(0, np.int64) if betas is None else np.flatnonzero(betas)
        self.options = {**self.DEFAULTS, **options}
        self.decay = np.where(decay_mask, weight_decay, 0.0).astype(weights.dtype)
        self.slots = {slot: np.full_like(weights, self.start(slot)) for slot in self.SLOTS}
        self.steps = 0

    @classmethod
    def name(cls) -> str:
        return cls.__name__.lower()

    def start(self, slot: str) -> float:
        """The value that a slot starts from."""
        return 0.0

    def step(self, lr: float) -> None:
        """One step with learning rate ``lr``: reads the gradient, changes the weights and the slots."""
        self.steps += 1
        self.update(lr)

    def update(self, lr: float) -> None:
        raise NotImplementedError

    def quicken(self) -> None:
        """β's gradient times ``beta_rate``. Steps of SGD are linear in it: β then has a learning rate of its own."""
        if self.options["beta_rate"] != 1:
            self.gradient[self.betas] *= self.gradient.dtype.type(self.options["beta_rate"])

    def load(self, slots: dict, steps: int) -> None:
        """Take over the slots of an optimiser of the same kind and size; else raises NumnetError."""
        for name, slot in self.slots.items():
            if name not in slots:
                raise NumnetError(
                    f"the optimiser's slot {name!r} is missing; expected {', '.join(self.slots)}"
                )
            if slots[name].shape != slot.shape or slots[name].dtype != slot.dtype:
                raise NumnetError(
                    f"the optimiser's slot {name!r} is {slots[name].dtype} {slots[name].shape}; "
                    f"expected {slot.dtype} {slot.shape}"
                )
        for name, slot in self.slots.items():
            slot[:] = slots[name]
        self.steps = steps


class SGD(Optimiser):
    """Gradient descent with (Nesterov) momentum, as PyTorch has it: ``kernels/sgd.py``."""

    DEFAULTS = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "beta_rate": 1.0}
    SLOTS = ("velocity",)

    def update(self, lr):
        o = self.options
        self.quicken()
        sgd_step(
            self.weights, self.gradient, self.slots["velocity"], self.decay, lr, o["momentum"], o["nesterov"]
        )


class Muon(Optimiser):
    """Matrices that batch norm follows: steps of one length in all directions, ``kernels/muon.py``; the rest as SGD.

    Such a matrix moves by ``ratio`` · lr of its own length in a step, and keeps that length.
    """

    DEFAULTS = {"lr": 0.2, "momentum": 0.9, "nesterov": True, "ratio": 0.1, "beta_rate": 1.0}
    SLOTS = ("velocity",)

    def __init__(self, weights, gradient, decay_mask, weight_decay=0.0, matrices=(), betas=None, **options):
        super().__init__(weights, gradient, decay_mask, weight_decay, matrices, betas, **options)
        ends = [0, *(start + rows * filters for start, rows, filters in matrices)]
        starts = [*(start for start, _, _ in matrices), weights.size]
        self.rest = [slice(lo, hi) for lo, hi in zip(ends, starts) if hi > lo]

    def update(self, lr):
        o, velocity = self.options, self.slots["velocity"]
        self.quicken()
        for part in self.rest:
            sgd_step(
                self.weights[part], self.gradient[part], velocity[part], self.decay[part], lr,
                o["momentum"], o["nesterov"],
            )  # fmt: skip
        muon_step(
            self.weights,
            self.gradient,
            velocity,
            self.matrices,
            lr * o["ratio"],
            o["momentum"],
            o["nesterov"],
        )


class RMSProp(Optimiser):
    """RMSProp with momentum, TensorFlow's (as the papers used it) or PyTorch's: ``kernels/rmsprop.py``."""

    DEFAULTS = {"lr": 0.01, "momentum": 0.9, "rho": 0.9, "epsilon": 1e-3, "style": "tensorflow"}
    SLOTS = ("square", "velocity")

    def start(self, slot):
        return 1.0 if slot == "square" and self.options["style"] == "tensorflow" else 0.0

    def update(self, lr):
        o = self.options
        rmsprop_step(
            self.weights, self.gradient, self.slots["square"], self.slots["velocity"], self.decay, lr,
            o["rho"], o["momentum"], o["epsilon"], o["style"],
        )  # fmt: skip


class Adam(Optimiser):
    """Adam, PyTorch's or TensorFlow's: ``kernels/adam.py``. Weight decay is part of the gradient."""

    DEFAULTS = {"lr": 0.001, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "style": "pytorch"}
    SLOTS = ("mean", "square")
    DECOUPLED = False

    def update(self, lr):
        o = self.options
        adam_step(
            self.weights, self.gradient, self.slots["mean"], self.slots["square"], self.decay, lr, self.steps,
            o["beta1"], o["beta2"], o["epsilon"], self.DECOUPLED, o["style"],
        )  # fmt: skip


class AdamW(Adam):
    """Adam with decoupled weight decay: it is not part of the gradient."""

    DECOUPLED = True


OPTIMISERS = {cls.name(): cls for cls in (SGD, Muon, RMSProp, Adam, AdamW)}


class Average:
    """Exponential moving averages of a net's weights and buffers (the running statistics), step by step.

    After t steps the decay is min(decay, (1 + t)/(10 + t)), as ``tf.train.ExponentialMovingAverage`` has it
    with a step count: the average forgets the random start quickly and becomes long only as training goes on.

    ``frozen``: how many of the first numbers of each vector never change. They are copied: an average of equal numbers
    may be off by a bit.
    """

    def __init__(self, decay: float, frozen: tuple[int, ...] = (), **vectors):
        self.decay, self.vectors = decay, vectors
        self.frozen = dict(zip(vectors, frozen))
        self.slots = {name: v.copy() for name, v in vectors.items()}

    def update(self, steps: int) -> None:
        """Move towards the vectors as they are after ``steps`` steps."""
        decay = min(self.decay, (1 + steps) / (10 + steps))
        for name, v in self.vectors.items():
            vector.average(self.slots[name], v, decay)
            count = self.frozen.get(name, 0)
            self.slots[name][:count] = v[:count]

    def take(self) -> None:
        """Put the averages into the net for good."""
        for name, v in self.vectors.items():
            v[:] = self.slots[name]

    def __enter__(self):
        """Inside ``with average:`` the net has the averaged weights."""
        self._own = {name: v.copy() for name, v in self.vectors.items()}
        self.take()
        return self

    def __exit__(self, *error):
        for name, v in self.vectors.items():
            v[:] = self._own.pop(name)
