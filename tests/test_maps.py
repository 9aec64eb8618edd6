"""Maps of inner layers and features: against the planned executor, which computes them another way."""

import numpy as np
import pytest

import numnet
from numnet.errors import NumnetError
from numnet.inference import Executor

SMALL = {"width": 0.25, "resolution": 32, "classes": 5, "dtype": "float64"}


def a_net(model="mobilenet_v3_small", **options):
    """A net whose running statistics are its own, and images."""
    net = numnet.build(model, **{**SMALL, **options})
    rng = np.random.default_rng(1)
    net.flat_buffers[:] = rng.uniform(0.5, 1.5, net.flat_buffers.size)
    return net, rng.normal(size=(3, *net.input_shape))


def by_the_executor(net, layers, x):
    return Executor(layers, net.flat, net.flat_buffers).run(x)


def close(a, b):
    assert a.shape == b.shape and a.dtype == b.dtype
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * max(1, np.abs(b).max()))


@pytest.mark.parametrize("model", ["mobilenet_v3_small", "mobilenet_v1", "mnasnet_keras"])
def test_maps_of_whole_layers(model):
    net, x = a_net(model)
    found = net.maps(x)
    assert list(found) == [layer.name for layer in net.layers]
    for number, (name, y) in enumerate(found.items(), 1):
        close(y, by_the_executor(net, net.layers[:number], x))
        assert y.shape[1:] == net.layers[number - 1].output_shape, name
    close(found["logits"], net.predict(x))


def test_maps_inside_of_blocks():
    net, x = a_net()
    found = net.maps(x, "block*.depthwise", "block2", "block4.se", batch_size=2)
    names = [name for name, _ in net.walk()]
    assert list(found) == sorted(found, key=names.index)
    assert sum(name.endswith(".depthwise") for name in found) == 11 and len(found) == 13
    for number, block in enumerate(net.layers):
        parts = [child.name for child in getattr(block, "children", ())]
        for part in ("depthwise", "se"):
            if f"{block.name}.{part}" in found:
                before = [*net.layers[:number], *block.children[: parts.index(part) + 1]]
                close(found[f"{block.name}.{part}"], by_the_executor(net, before, x))
    one = net.maps(x[:1], "block2.depthwise")["block2.depthwise"]
    close(found["block2.depthwise"][:1], one)
    one[:] = 7
    close(net.maps(x[:1], "block2.depthwise")["block2.depthwise"], found["block2.depthwise"][:1])


def test_maps_of_branches():
    net, x = a_net("googlenet", width=1.0)
    found = net.maps(x[:1], "module*")
    assert len(found) == 9
    number = [layer.name for layer in net.layers].index(list(found)[-1]) + 1
    close(list(found.values())[-1], by_the_executor(net, net.layers[:number], x[:1]))


def test_maps_keep_nothing_and_go_no_further_than_asked():
    net, x = a_net()

    def never(x, training):
        raise AssertionError("behind the last map that was asked for")

    net.layers[4].forward = never
    net.maps(x, "stem", "block2.depthwise", "block3")
    del net.layers[4].forward
    for name, layer in net.walk():
        assert layer.memory.nbytes == 0 and "x" not in vars(layer) and "forward" not in vars(layer), name
    with pytest.raises(AssertionError):  # a layer that fails leaves no trace either
        net.layers[4].forward = never
        net.maps(x, "block9")
    assert all("x" not in vars(layer) and layer.memory.nbytes == 0 for _, layer in net.walk())


def test_a_backward_that_is_due_stays_due():
    (net, x), (other, _) = a_net(), a_net()
    upstream = np.random.default_rng(2).normal(size=(3, 5))
    for each in (net, other):
        each.forward(x, training=True)
    net.maps(x, "block3", "block5.expand")
    for each in (net, other):
        each.backward(upstream)
    assert (net.flat_grad == other.flat_grad).all() and np.abs(net.flat_grad).max() > 0


@pytest.mark.parametrize(
    "model, width", [("mobilenet_v3_small", 1024), ("mobilenet_v1", 256), ("mobilenet_v2", 1280)]
)
def test_features(model, width):
    net, x = a_net(model)
    features = net.features(x, batch_size=2)
    assert features.shape == (3, width) and features.dtype == np.float64
    head = net.layers[-1].params
    close(features @ head["weight"] + head["bias"], net.predict(x))
    net.flat *= 1.1  # seen, as in predict
    close(net.features(x) @ head["weight"] + head["bias"], net.predict(x))
    assert net.features(x[:0]).shape == (0, width)
    assert net.maps(x[:0], "block2")["block2"].shape == (0, *net.layers[2].output_shape)


def test_what_maps_refuse():
    net, x = a_net()
    with pytest.raises(
        NumnetError, match=r"no layer 'blok1'; expected one of stem, block1, .*\(block1.depthwise"
    ):
        net.maps(x, "blok1")
    with pytest.raises(NumnetError, match=r"no layer 'block\*.\*.\*.\*'"):
        net.maps(x, "block*.*.*.*")
    with pytest.raises(ValueError, match="batch_size"):
        net.maps(x, "stem", batch_size=0)
    with pytest.raises(ValueError, match="expected images"):
        net.maps(x[0], "stem")
    headless = numnet.Net(net.layers[:3], net.input_shape, dtype="float64")
    with pytest.raises(NumnetError, match="features: expected a net with layers before a dense one"):
        headless.features(x)
