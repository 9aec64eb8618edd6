"""The linear probe: its optimum, its choices, the net it gives, its command."""

import json

import numpy as np
import pytest

import numnet
from numnet import probe
from numnet.cli import main
from numnet.data import ArraySplit, Dataset
from numnet.errors import NumnetError

ROWS = [[16, 1], [16, 1], [24, 2], [32, 1]]


def colours(images, seed):
    """Noise around one of three colours: what every net's features tell apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % 3
    middle = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])[labels]
    pixels = middle[:, None, None] + rng.normal(0, 25, (images, 16, 16, 3))
    return ArraySplit(np.clip(pixels, 0, 255).astype(np.uint8), labels)


def dataset(**parts):
    given = {"train": colours(30, 0), "test": colours(21, 1), **parts}
    return Dataset("colours", ["red", "green", "blue"], mean=(0.5,) * 3, std=(0.5,) * 3, **given)


@pytest.fixture(scope="module")
def net():
    """Random weights, and the running statistics of images like those of the probe."""
    net = numnet.build("mobilenet_v1", rows=ROWS, resolution=16, classes=7, bn_momentum=0.0)
    net.scaling = {"mean": [0.5] * 3, "std": [0.5] * 3}
    net.forward((colours(30, 3).images / np.float32(127.5)) - 1, training=True)
    return net


def test_the_minimum_is_one():
    """At the fitted W the gradient of (1) is 0, checked with plain NumPy; from anywhere else the same W is found."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 5)) * 3 + 1, rng.integers(0, 3, 40)
    weight, bias = probe.fit(x, labels, 3, 0.1)
    deviation = x.std(axis=0)
    logits = x @ weight + bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    error = (p - np.eye(3)[labels]) / len(x)
    standardised = (x - x.mean(0)) / deviation
    gradient = standardised.T @ error + 0.1 * weight * deviation[:, None]
    assert np.abs(gradient).max() <= 1e-5 and np.abs(error.sum(0)).max() <= 1e-5
    again, _, _ = probe._fitted(x, labels, 3, 0.1, rng.normal(size=18))
    assert np.abs(again - weight).max() <= 1e-4 * np.abs(weight).max()


def test_a_convex_valley_is_walked_to_its_end():
    """Curvatures a thousand times apart: plain descent would need thousands of steps."""
    scales = np.geomspace(1, 1000, 20)
    target = np.arange(20.0)
    asked = []

    def valley(v):
        asked.append(1)
        return float((scales * (v - target) ** 2).sum() / 2), scales * (v - target)

    found = probe.minimise(valley, np.zeros(20))
    assert np.abs(found - target).max() <= 1e-5 and len(asked) < 300


def test_wilson_s_interval():
    low, high = probe.wilson(9, 10)
    assert (round(low, 4), round(high, 4)) == (0.5958, 0.9821)  # as tables print it
    assert probe.wilson(10, 10)[1] == pytest.approx(1) and probe.wilson(0, 10)[0] == pytest.approx(0)


def test_features_tell_colours_apart_and_the_net_then_does(net):
    before = net.flat.copy()
    found = numnet.linear_probe(net, dataset())
    assert found.accuracy == 1 and found.per_class == [1, 1, 1] and found.interval[0] > 0.8
    assert found.chance == pytest.approx(1 / 3) and found.images == {"train": 30, "validation": 6, "test": 21}
    assert found.features == net.layers[-1].input_shape[0] and found.decay in probe.DECAYS
    np.testing.assert_array_equal(net.flat, before)
    test = colours(21, 1)
    x = ((test.images / 255 - 0.5) / 0.5).astype(np.float32)
    assert (found.net.predict(x).argmax(1) == test.labels).all()
    assert found.net.class_names == ["red", "green", "blue"] and not found.net.document.get("untrained")
    again = numnet.linear_probe(net, dataset())
    np.testing.assert_array_equal(found.net.flat, again.net.flat)


def test_a_body_is_probed_like_its_net(net):
    body = numnet.with_head(net, 0)
    one, other = numnet.linear_probe(body, dataset()), numnet.linear_probe(net, dataset())
    np.testing.assert_array_equal(one.net.params["logits.weight"], other.net.params["logits.weight"])


def test_own_validation_images_choose(net):
    found = numnet.linear_probe(net, dataset(validation=colours(9, 2)))
    assert found.images == {"train": 39, "validation": 9, "test": 21}


@pytest.mark.parametrize(
    "parts, words",
    [
        ({"test": None}, "colours has no test images"),
        ({"train": ArraySplit(np.zeros((4, 16, 16, 3), np.uint8), [0, 0, 1, 1])}, r"at least two classes, got \[2, 2, 0\]"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_probed(net, parts, words):
    with pytest.raises(NumnetError, match=words):
        numnet.linear_probe(net, dataset(**parts))


def test_the_callers_data_stay_whole_and_test_images_judge_alone(net):
    data = dataset()
    count = len(data.train)
    numnet.linear_probe(net, data)
    assert len(data.train) == count and data.validation is None
    with pytest.raises(NumnetError, match="the validation images are the test images"):
        numnet.linear_probe(net, dataset(validation=data.test, test=data.test))


def test_a_net_without_scaling_asks_for_one(net):
    bare = numnet.build("mobilenet_v1", width=0.1, resolution=16, classes=7)
    with pytest.raises(NumnetError, match="names no input scaling"):
        numnet.linear_probe(bare, dataset())


def test_the_command_on_a_folder(net, tmp_path, capsys):
    from PIL import Image

    for split, images, seed in (("train", 15, 0), ("test", 6, 1)):
        part = colours(images, seed)
        for i, (pixels, label) in enumerate(zip(part.images, part.labels)):
            folder = tmp_path / "photos" / split / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    net.save(tmp_path / "net.safetensors", input=net.scaling)
    out = tmp_path / "probed.safetensors"
    words = ["probe", tmp_path / "net.safetensors", tmp_path / "photos", "-o", out]
    assert main([*words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["accuracy"] == 1 and facts["images"]["test"] == 6 and facts["checkpoint"] == str(out)
    probed = numnet.load(out)
    assert probed.class_names == ["class0", "class1", "class2"] and probed.classes == 3
    assert main(["predict", out, tmp_path / "photos" / "test" / "class2", "--json"]) == 0
    assert {row["top"][0]["label"] for row in json.loads(capsys.readouterr().out)} == {"class2"}
    assert main([*words[:3], "--seed", "-1"]) == 2
    assert "--seed: expected an integer of at least 0" in capsys.readouterr().err
    assert main(words[:3]) == 0
    assert "test images right" in capsys.readouterr().out
