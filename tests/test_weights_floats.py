"""Nets of eight bits as float nets: the same logits, batch norm with statistics of images, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from cli_tools import numnet, works, write_images

import numnet as library
from numnet import quantised, weights
from numnet.errors import NumnetError
from numnet.kernels.activations import IDENTITY, RELU6

UNIT = {"mean": [0.0] * 3, "std": [1.0] * 3}
SETTINGS = {"mobilenet_v3_small": (0.35, 5), "mobilenet_v2": (0.25, 4)}


@pytest.fixture(scope="module", params=SETTINGS)
def whole(request):
    """A net in eight bits of a net whose batch norms have statistics of their own."""
    width, classes = SETTINGS[request.param]
    net = library.build(request.param, width=width, resolution=32, classes=classes, dropout=0.0, seed=1)
    rng = np.random.default_rng(0)
    for name, array in net.params.items():
        if name.endswith(("bn.beta", "bn.gamma")):
            array[...] = (
                rng.normal(0, 0.3, array.shape) if "beta" in name else rng.uniform(0.7, 1.5, array.shape)
            )
    x = rng.normal(size=(16, 32, 32, 3)).astype(np.float32)
    for _ in range(60):  # the running statistics settle; else the logits of all images would be the same
        net.forward(x, training=True)
    assert net.predict(x).std(axis=0).min() > 0.005
    found = quantised.quantise(net, x, method="minmax")
    found.scaling, found.path = {"mean": [0.5] * 3, "std": [0.25] * 3}, Path("net.tflite")
    return found


def images(count=8, seed=3):
    return np.random.default_rng(seed).normal(size=(count, 32, 32, 3)).astype(np.float32)


def close(a, b, bound=1e-4):
    return np.abs(a - b).max() <= bound * np.abs(b).max()


def test_the_same_logits_and_the_model_is_recognised(whole):
    net = weights.to_floats(whole)
    assert (net.config["model"], net.config["width"]) == (whole.config["model"], whole.config["width"])
    assert close(net.predict(images()), whole.in_reals(images())[-1])
    assert net.scaling == whole.scaling and "batch norm was folded" in net.notes[-1]


def test_statistics_are_those_of_the_images(whole):
    """A batch of just these images then gives in training, by its own statistics, what inference gives."""
    x = images(40)
    net = weights.to_floats(whole, images=x, dropout=0.0)
    want = whole.in_reals(x)[-1]
    assert close(net.predict(x), want) and close(net.forward(x, training=True), want, 1e-3)
    assert not any("batch norm" in note for note in net.notes)
    plain = weights.to_floats(whole, dropout=0.0)  # without statistics a training sees other maps
    assert not close(plain.forward(x, training=True), want, 1e-2)


def test_a_hard_sigmoid_whose_three_lies_in_the_bias(whole):
    """As TensorFlow Lite's files of V3 have it: relu6(x + 3) · 0.16667."""
    if whole.config["model"] != "mobilenet_v3_small":
        pytest.skip("V2 has no hard sigmoid")
    changed = quantised.QuantisedNet(
        [quantised.steps.Step(**step.__dict__) for step in whole.steps], whole.grid, whole.input_shape,
        scaling=whole.scaling, document={},
    )  # fmt: skip
    gates = 0
    for number, step in enumerate(changed.steps):
        if step.kind == "table" and quantised.steps.NAMES[step.code] == "hsigmoid":
            dense = changed.steps[number - 1]
            unit = dense.scales.astype(np.float64) * changed.grids[dense.reads[0]].scale
            dense.bias = (dense.bias + np.round(3 / unit)).astype(np.int32)
            dense.code, step.code, step.line = RELU6, IDENTITY, (0.16667, 0.0)
            gates += 1
    net = weights.to_floats(changed)
    assert gates == 9 and close(net.predict(images()), whole.in_reals(images())[-1], 1e-3)


def test_scaling_within_the_graph(whole):
    """A graph that takes x/255 and makes 2x − 1 of it is a net with mean 0.5 and deviation 0.5."""
    grid, shape = whole.grid, whole.input_shape
    step = quantised.steps.Step("table", "scale", (0,), shape, grid=grid, line=(2.0, -1.0))
    rest = []
    for old in whole.steps:
        rest.append(
            quantised.steps.Step(**{**old.__dict__, "reads": tuple(1 + number for number in old.reads)})
        )
    net = weights.to_floats(
        quantised.QuantisedNet([step, *rest], quantised.make.Grid(1 / 255, 0), shape, scaling=UNIT)
    )
    assert np.allclose(net.scaling["mean"], 0.5) and np.allclose(net.scaling["std"], 0.5)
    assert close(net.predict(images()), whole.in_reals(images())[-1])


def test_another_net_or_another_graph_is_refused(whole):
    with pytest.raises(NumnetError, match=r"are not those of mobilenet_v1$"):
        weights.to_floats(whole, "mobilenet_v1")
    with pytest.raises(NumnetError, match=r"are not those of .* of width 1$"):
        weights.to_floats(whole, whole.config["model"], 1.0)
    bent = quantised.QuantisedNet(
        [quantised.steps.Step(**step.__dict__) for step in whole.steps], whole.grid, whole.input_shape,
        scaling=whole.scaling,
    )  # fmt: skip
    for step in bent.steps:
        step.code = IDENTITY if step.kind != "table" else step.code
    with pytest.raises(NumnetError, match=r"computes something else than .* \(logits differ by"):
        weights.to_floats(bent)


def test_the_command(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "import_tflite", lambda file: whole)
    write_images(tmp_path / "photos")
    file, out = tmp_path / "net.tflite", tmp_path / "net.safetensors"
    assert "width" in works("import", file, "--float", "--statistics", tmp_path / "photos", "-o", out)
    net = library.load(out)
    assert close(net.predict(images()), whole.in_reals(images())[-1]) and net.scaling == whole.scaling
    variances = [a for name, a in net.buffers.items() if name.endswith("variance")]
    assert variances and all(a.std() > 0 for a in variances)
    seen = []
    own = whole.scaling
    monkeypatch.setattr(weights, "settle", lambda net, x: seen.append(x))
    works("import", file, "--float", "--statistics", tmp_path / "photos", "--scaling", "unit", "-o", out)
    assert library.load(out).scaling == UNIT != own
    assert 0 <= seen[0].min() < 0.05 and 0.7 < seen[0].max() <= 1, "x/255, not as the file has it"
    whole.scaling = own
    for wrong, words in {
        ("--float", "--classes", "3"): "--classes: is settled by the .tflite file",
        ("--statistics", str(tmp_path)): "--statistics: is for --float",
        ("--float", "--statistics", str(tmp_path / "nowhere")): "nowhere",
    }.items():
        code, _, err = numnet("import", file, "-o", out, *wrong)
        assert code == 2 and words in err and err.count("\n") == 1
    code, _, err = numnet("import", tmp_path / "net.h5", "--float", "-o", out)
    assert code == 2 and "--float: is for .tflite files" in err
