"""Are the gradients right? The test that numnet's own layers pass, for nets and layers of one's own.

The slope of a function along a direction v can be had without any derivative, by walking a small step h both ways:

(1)  (L(θ + h·v) − L(θ − h·v)) / 2h  =  ⟨∂L/∂θ, v⟩ + O(h²)

Here L = ⟨y, dy⟩, the outputs weighed by random numbers dy, which backward is given as the upstream gradient; v is a
random direction of one parameter, or of x. Random, because special choices hide mistakes: with dy = 1 the gradient
of a batch norm is 0. In float64, because (1) subtracts nearly equal numbers.
"""

import copy

import numpy as np

from numnet.errors import NumnetError
from numnet.layers import Flatten, Layer
from numnet.net import Net

# A step over the kink of a ReLU spoils (1); a shorter one does not reach it
STEPS = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)


def check_gradients(
    net_or_layer: Net | Layer, x: np.ndarray, *, directions: int = 3, tolerance: float = 1e-6, seed: int = 0
) -> dict[str, float]:
    """The error of backward for x and for every parameter, after comparing it with slopes.

    net_or_layer: a Net, or a Layer that need not be part of one; it is copied and stays as it is, and the copy computes
    in float64, in training mode. x (N, …): a few of its inputs. Returns {name: error}, "x" among the names: the largest
    |slope − ⟨gradient, v⟩| / ‖gradient‖ of ``directions`` random directions v of length 1, of equation (1), each with
    the first step of 1e-4, 1e-5, … 1e-8 that brings it below ``tolerance``, or the best. (A gradient shorter than 1e-4
    of the longest is measured against that: the β of a linear bottleneck has none at all.) Raises NumnetError if an
    error is above ``tolerance``, naming the parameters from the worst on, and if x does not fit. Small nets and images
    do: each direction costs two forwards or more.
    """
    x = np.array(x, np.float64)
    net = _twin(net_or_layer, x.shape[1:], seed)
    x = x.reshape(len(x), *_map(x.shape[1:]))
    rng = np.random.default_rng(seed)

    def output():
        net.step = 0  # the same dropout each time
        return net.forward(x, training=True)

    y = output()
    dy = rng.standard_normal(y.shape)
    dx = net.backward(dy, input_gradient=True)
    gradients = {"x": (x, np.array(dx))} | {
        name: (net.params[name], net.grads[name].copy()) for name in net.params
    }
    least = 1e-4 * max(np.linalg.norm(gradient) for _, gradient in gradients.values())
    errors = {}
    for name, (array, gradient) in gradients.items():
        length = max(np.linalg.norm(gradient), least)
        enough = tolerance * length
        off = [_off(lambda: np.vdot(output(), dy), array, gradient, enough, rng) for _ in range(directions)]
        errors[name] = float(max(off) / length) if length else 0.0
    wrong = sorted((name for name in errors if not errors[name] <= tolerance), key=lambda name: -errors[name])
    if wrong:
        listed = ", ".join(f"{name} (off by {errors[name]:.2g} of its length)" for name in wrong[:5])
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise NumnetError(f"backward disagrees with the slope of forward for {listed}{more}")
    return errors


def _twin(net_or_layer, shape, seed) -> Net:
    """A copy of the net, or of the layer alone as a net, in float64."""
    if isinstance(net_or_layer, Net):
        net = net_or_layer
        if net.flat is None:
            raise NumnetError("check_gradients: a description has no parameters; expected a net from build")
        twin = Net(_copied(net.layers, net), net.input_shape, dtype="float64", seed=net.seed)
        twin.flat[:], twin.flat_buffers[:] = net.flat, net.flat_buffers
        return twin
    if not isinstance(net_or_layer, Layer):
        raise NumnetError(f"check_gradients: expected a Net or a Layer, got {type(net_or_layer).__name__}")
    layer = _copied(net_or_layer, net_or_layer.clock)
    twin = Net([layer] if len(shape) == 3 else [Flatten(), layer], _map(shape), dtype="float64", seed=seed)
    rng = np.random.default_rng(seed)
    for (_, its), (_, own) in zip(layer.tree(), net_or_layer.tree()):
        # Those it has; without any, not quite the initial ones: 0 hides mistakes
        for name, array in its.params.items():
            array[...] = own.params.get(name, array + 0.1 * rng.standard_normal(array.shape))
    return twin


def _copied(layers, net):
    """Layers with all that is theirs, but not the net that they belong to."""
    return copy.deepcopy(layers, {id(net): None})


def _map(shape) -> tuple:
    """(H, W, C); a vector's numbers as the channels of one pixel."""
    return (1,) * (3 - len(shape)) + tuple(shape)


def _off(loss, array, gradient, enough, rng) -> float:
    """|slope − ⟨gradient, v⟩| for a random v of length 1 and the first of STEPS that makes it ``enough``, or the best."""
    direction = rng.standard_normal(array.shape)
    direction /= np.linalg.norm(direction)
    expected, before, off = np.vdot(gradient, direction), array.copy(), []
    for step in STEPS:
        ends = []
        for sign in (1, -1):
            array += sign * step * direction
            ends.append(loss())
            array[...] = before
        off.append(abs((ends[0] - ends[1]) / (2 * step) - expected))
        if off[-1] <= enough:
            break
    return min(off)
