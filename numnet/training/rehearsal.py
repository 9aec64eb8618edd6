"""The kernels of a training compiled before its first step, on all cores at once (``numnet.ahead``).

What a step calls is found by rehearsing it: forward, loss, backward and the optimiser run once on copies of all that they
change, while every kernel only notes its arguments.
"""

import copy
from functools import partial

import numpy as np

from numnet import ahead
from numnet.kernels.loss import softmax_cross_entropy
from numnet.training.console import Compiling
from numnet.training.progressive import at_side

IMAGES = 8  # at most, in a rehearsal: kernels depend on the types of arrays, not on their sizes


def compile_step(run) -> None:
    """Compile what the first step of the run will call."""
    _compile(run, partial(step, run))


def compile_validation(run) -> None:
    """Compile what inference with the run's net will call."""
    _compile(run, partial(_validation, run))


def _compile(run, work) -> None:
    """Compile what ``work`` calls. In a team the members share the cores, so they compile as they go."""
    if run.team.size > 1 or not ahead.compilers():
        return
    try:
        ahead.prepare(work, Compiling(run.progress), lambda: run.signals.received is not None)
    except Exception:  # kernels then compile when they are called, and what is wrong comes to light there
        pass


def step(run) -> None:
    """The kernels' calls of a step of the run, on copies."""
    side = run.sides[min(run.epoch, len(run.sides) - 1)]
    net, optimiser, average = copy.deepcopy((run.net, run.optimiser, run.average))
    with at_side(net, side):
        x = _blank(run, net)
        logits = net.forward(x, training=True)
        _, dlogits = softmax_cross_entropy(logits, np.zeros(len(x), np.int64), 0.0)
        net.backward(dlogits, input_gradient=False)
    optimiser.step(run.rate(0))
    if average is not None:
        average.update(0)


def _validation(run) -> None:
    copy.deepcopy(run.net).predict(_blank(run, run.net))


def _blank(run, net) -> np.ndarray:
    """A few images of the net's size with nothing in them."""
    return np.zeros((min(IMAGES, run.settings["batch_size"]), *net.input_shape), net.dtype)
