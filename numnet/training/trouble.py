"""Where a number stopped being finite: the batch goes through the net once more, and every layer is watched.

Weights, statistics and the counter of dropout are what they were when the batch went through the first time, so the
same thing happens again; afterwards the net is as it was.
"""

from contextlib import contextmanager

import numpy as np

from numnet.errors import Diverged
from numnet.layers.layer import Pending, watched


def diverged(run, what, where="", over=False) -> None:
    """Raise Diverged: ``what`` is no longer a finite number; ``where``: ", first in …"; ``over``: between steps."""
    when = f"in epoch {run.epoch + 1}, step {run.batch + (not over)} of {run.batches}"
    if over and not run.batch:
        when = f"at the end of epoch {run.epoch}"
    raise Diverged(
        f"{what} {when}{where}: training diverged; "
        f"try a learning rate below {run.optimiser.options['lr']:g}, a longer warm-up, or clip_norm"
    )


def finite(vector) -> bool:
    """True if every number is finite: a sum is then, too, unless it overflows. Half the price of looking at each."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(vector.sum())) or bool(np.isfinite(vector).all())


def of_weights(net, buffers=True) -> str:
    """ ", first in …" of a parameter or running statistic that is no finite number, or ""."""
    for name, array in {**net.params, **(net.buffers if buffers else {})}.items():
        if not np.isfinite(array).all():
            return f", first in {name}"
    return ""


def of_training(net, passes, parts) -> str:
    """The same for a training pass over ``parts``; ``passes``: the net's step.

    parts: [(first image, x, a function logits → their gradient)].
    """
    found = of_weights(net, buffers=False)  # the running statistics have already seen this batch
    if found:
        return found
    if not all(np.isfinite(x).all() for _, x, _ in parts):
        return ", first in the images"
    buffers, grads, step = net.flat_buffers.copy(), net.flat_grad.copy(), net.step
    try:
        for first, x, dlogits in parts:
            net.step, net.first_image = passes, first
            with _looked_through(net) as seen, np.errstate(all="ignore"):
                net.backward(dlogits(net.forward(x, training=True)), input_gradient=False)
            if seen:
                return f", first in {seen[0]}"
    finally:
        net.flat_buffers[:], net.flat_grad[:] = buffers, grads
        net.step, net.first_image = step, 0
    return of_gradient(net)


def of_gradient(net) -> str:
    """The same for a gradient as it is; it goes from the last layer to the first."""
    for name, array in reversed(net.grads.items()):
        if not np.isfinite(array).all():
            return f", first in the gradient of {name}"
    return ""


def of_inference(net, batches) -> str:
    """The same for inference over the batches."""
    found = of_weights(net)
    if found:
        return found
    for x, _ in batches:
        with _looked_through(net) as seen, np.errstate(all="ignore"):
            net.forward(x)
        if seen:
            return f", first in {seen[0]}"
    return ""


@contextmanager
def _looked_through(net):
    """Inside, the list gets a text for every layer whose result is not finite, in the order of computation."""
    seen, paths = [], {id(layer): path for path, layer in net.walk()}

    def watch(layer, name, method):
        path, forward = paths[id(layer)], name == "forward"

        def call(*arguments, **more):
            result = method(*arguments, **more)
            for parameter, array in () if forward else layer.grads.items():
                if not np.isfinite(array).all():
                    seen.append(f"the gradient of {path}.{parameter}")
            if not _sound(result):
                seen.append(f"the output of {path}" if forward else f"the gradient behind {path}")
            return result

        return call

    with watched([layer for _, layer in net.walk()], watch):
        yield seen


def _sound(value) -> bool:
    """True if what a layer returned holds no number that is not finite."""
    if isinstance(value, Pending):
        return _sound(value.raw) and _sound(value.pack)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return bool(np.isfinite(value).all())
    return True
