"""Maps of inner layers and features: against the planned executor, which computes them another way."""

import json

import numpy as np
import pytest
from cli_tools import numnet as command
from PIL import Image

import numnet
from numnet import plotting
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


def test_the_picture_of_maps(tmp_path):
    """A line a layer, its liveliest channels; a channel that is the same everywhere is grey, not black."""
    maps = {"stem": np.zeros((1, 4, 4, 3)), "pool": np.ones((1, 3))}
    maps["stem"][0, 1, 2, 2] = 5
    figure = plotting.layer_maps(np.zeros((8, 8, 3), np.uint8), maps, tmp_path / "maps.png", channels=2)
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["", "", "0", "2"] and figure.axes[2].texts[0].get_text() == "stem\n4×4×3"
    flat, lively = (axes.images[0] for axes in figure.axes[2:])
    assert flat.norm(0.0) == 0.5 and (lively.norm.vmin, lively.norm.vmax) == (0, 5)
    with pytest.raises(NumnetError, match="nothing to draw"):
        plotting.layer_maps(np.zeros((8, 8, 3), np.uint8), {"pool": np.ones((1, 3))})


def test_predict_draws_maps(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("one.png", "two.png"):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / name)
    one, two, drawn = tmp_path / "one.png", tmp_path / "two.png", tmp_path / "maps.png"
    code, out, err = command("predict", one, "--maps", drawn, "--layers", "stem, block1*", "--json")
    assert code == 0 and f"figure: {drawn}" in err and json.loads(out)
    with Image.open(drawn) as picture:
        assert picture.size[1] > 600  # the photograph, stem, block1, block10, block11
    for wrong, words in (
        ([one, two, "--maps", drawn], "expected one image file, got 2"),
        ([one, "--maps", drawn, "--layers", "blok"], "no layer 'blok'"),
        ([one, "--maps", "maps.txt"], "--maps: expected a name that ends in"),
        ([one, "--layers", "stem"], "needs --maps FILE as well"),
    ):
        code, _, err = command("predict", *wrong)
        assert code == 2 and words in err and len(err.splitlines()) == 1, err


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
