"""check_gradients: what numnet builds passes, a mistake of each kind is found and named."""

import numpy as np
import pytest
from own_layer import Scale

import numnet
from numnet.blocks import Conv, Depthwise, Norm, SqueezeExcite
from numnet.errors import NumnetError
from numnet.layers import Dense, GlobalAverage


class Mistaken(Scale):
    """The ways to get it wrong, one at a time."""

    def __init__(self, mistake):
        super().__init__("scale")
        self.mistake = mistake

    def backward(self, dy, input_gradient=True):
        dx = super().backward(dy, input_gradient)
        self.grads["weight"][:] *= {"dw": 1 / len(dy), "dw forgotten": 0}.get(self.mistake, 1)
        return dx + 1e-4 * abs(dx).max() if self.mistake == "dx" else dx


def draw(*shape):
    return np.random.default_rng(1).standard_normal(shape)


@pytest.mark.parametrize("model", ["mobilenet_v1", "mobilenet_v3_small"])
def test_nets_of_both_precisions_pass(model):
    """float32 nets are checked in float64; the kinks of ReLU6 and the β without a gradient do not disturb."""
    for dtype in ("float32", "float64"):
        small = {"width": 0.25, "resolution": 16, "strides": "cifar", "classes": 4, "dropout": 0.2}
        net = numnet.build(model, dtype=dtype, **small)
        before, step = net.flat.copy(), net.step
        errors = numnet.check_gradients(net, draw(4, 16, 16, 3), directions=1)
        assert set(errors) == {"x", *net.params} and max(errors.values()) <= 1e-6
        assert (net.flat == before).all() and net.step == step and not net.flat_grad.any()


@pytest.mark.parametrize(
    "layer",
    [Scale(), Depthwise(3, stride=2, norm=Norm(), activation="hswish"), SqueezeExcite(2), Dense(3)],
    ids=lambda layer: layer.kind,
)
def test_layers_pass_alone(layer):
    x = draw(3, 6) if layer.kind == "dense" else draw(3, 5, 6, 4)
    errors = numnet.check_gradients(layer, x)
    assert len(errors) > 1 and max(errors.values()) <= 1e-6
    assert not layer.params, "the layer itself stays as it is"


@pytest.mark.parametrize(
    "mistake, named", [("dw", "scale.weight"), ("dw forgotten", "scale.weight"), ("dx", "x")]
)
def test_mistakes_are_named(mistake, named):
    layers = [Conv(4, name="stem"), Mistaken(mistake), GlobalAverage(), Dense(3, name="logits")]
    net = numnet.Net(layers, (6, 6, 3))
    with pytest.raises(NumnetError, match=r"disagrees with the slope of forward for ([\w.]+) ") as error:
        numnet.check_gradients(net, draw(4, 6, 6, 3))
    wrong = str(error.value)
    assert (named in wrong) if named != "x" else ("stem.weight" in wrong and "scale.weight" not in wrong)
    with pytest.raises(NumnetError, match=rf"for {named} "):
        numnet.check_gradients(Mistaken(mistake), draw(4, 6, 6, 3))


def test_a_layer_that_has_numbers_is_checked_with_them():
    net = numnet.Net([Scale(), GlobalAverage(), Dense(3)], (6, 6, 3), seed=3)
    net.params["scale.weight"][:] = np.nan
    with pytest.raises(NumnetError, match="weight"):
        numnet.check_gradients(net.layers[0], draw(4, 6, 6, 3))


def test_what_cannot_be_checked():
    for thing in ("mobilenet_v1", numnet.describe("mobilenet_v1")):
        with pytest.raises(NumnetError, match="check_gradients: "):
            numnet.check_gradients(thing, draw(1, 224, 224, 3))
    with pytest.raises(ValueError, match="x: "):
        numnet.check_gradients(numnet.build("mobilenet_v1", width=0.25, resolution=16), draw(1, 8, 8, 3))
