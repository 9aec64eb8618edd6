"""ONNX: every model, plain and folded, against ONNX Runtime; the graph's own scaling; what is refused."""

import json

import numpy as np
import pytest
from test_weights import EXACT, images, random_net

import numnet
from numnet import weights
from numnet.blocks import Conv
from numnet.cli import main
from numnet.errors import NumnetError
from numnet.layers import Dense, GlobalAverage

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")


def run(model, x):
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    content = model if isinstance(model, str) else model.SerializeToString()
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": x})[0]


def close(got, want):
    return got.shape == want.shape and np.abs(got - want).max() <= EXACT * np.abs(want).max()


def truth(net, x):
    """The logits in float64: two float32 computations may be ``EXACT`` from it on opposite sides."""
    double = numnet.build(**{**net.config, "dtype": "float64"})
    double.flat[...], double.flat_buffers[...] = net.flat, net.flat_buffers
    return double.forward(x.astype(np.float64))


@pytest.mark.parametrize("model", numnet.models())
@pytest.mark.parametrize(
    "variant, padding", [("keras", "same"), ("torch", "symmetric"), ("paddle", "symmetric")]
)
def test_every_model_plain_and_folded(model, variant, padding):
    if model == "vgg16" and variant != "torch":
        pytest.skip("33 million numbers; the variants differ in dropout's rate alone")
    net = random_net(model, variant=variant, padding=padding, resolution=64 if model == "googlenet" else 32)
    x = images(net, 5)
    want = truth(net, x)
    assert close(net.forward(x), want)
    for folded in (False, True):
        exported = weights.export_onnx(net, folded=folded)
        assert exported.opset_import[0].version >= 17
        kinds = {node.op_type for node in exported.graph.node}
        assert ("BatchNormalization" in kinds) == (not folded and model != "vgg16")
        for count in (1, 5):
            got = run(exported, np.ascontiguousarray(x[:count].transpose(0, 3, 1, 2)))
            assert close(got, want[:count])


# 33 million numbers, and no kernel of its own
OPENCV = [model for model in numnet.models() if model != "vgg16"]


@pytest.mark.parametrize("model", OPENCV)
def test_opencv_computes_the_same(model):
    """Its parser wants kernel_shape on every convolution; its fusions and small maps have gone wrong (see the exporter)."""
    cv2 = pytest.importorskip("cv2")
    cv2.setNumThreads(1)
    net = random_net(model, resolution=64 if model == "googlenet" else 32)  # the last maps have one pixel
    x = images(net, 2)
    want = truth(net, x)
    for folded in (False, True):
        exported = weights.export_onnx(net, folded=folded)
        assert not {"HardSigmoid"} & {node.op_type for node in exported.graph.node}
        convolutions = [node for node in exported.graph.node if node.op_type == "Conv"]
        assert all("kernel_shape" in {a.name for a in node.attribute} for node in convolutions)
        theirs = cv2.dnn.readNetFromONNX(np.frombuffer(exported.SerializeToString(), np.uint8))
        theirs.setInput(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
        assert close(theirs.forward(), want)


@pytest.mark.parametrize("padding", ["same", "symmetric", 2, ((1, 3), (2, 2))])
@pytest.mark.parametrize("resolution", [15, 40])
def test_taps_that_see_only_padding_are_left_out(padding, resolution):
    net = random_net("mobilenet_v3_small", padding=padding, resolution=resolution)
    x = images(net)
    assert close(run(weights.export_onnx(net), x.transpose(0, 3, 1, 2).copy()), truth(net, x))


def test_softmax_and_labels_on_request(tmp_path, capsys):
    net = random_net("mobilenet_v3_small")
    net.save(tmp_path / "net.safetensors", classes=list("abcdefg"))
    assert main(["export", tmp_path / "net.safetensors", tmp_path / "net.onnx", "--softmax"]) == 0
    x = images(net)
    e = np.exp(truth(net, x))
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["probabilities"]
    got = session.run(None, {"images": x.transpose(0, 3, 1, 2).copy()})[0]
    assert close(got, e / e.sum(1, keepdims=True))
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list("abcdefg")
    assert main(["export", tmp_path / "net.safetensors", tmp_path / "a.safetensors", "--softmax"]) == 2
    assert "--softmax: is for .onnx" in capsys.readouterr().err


@pytest.mark.parametrize(
    "activation", ["relu", "relu6", "hswish", "hsigmoid", "hsigmoid02", "sigmoid", "swish"]
)
def test_every_activation(activation):
    net = random_net("mobilenet_v1", activation=activation)
    x = images(net)
    assert close(run(weights.export_onnx(net), x.transpose(0, 3, 1, 2).copy()), net.forward(x))


def test_skips_over_standard_and_separable_blocks():
    rows = [[32, 1], [64, 2, "standard"], [64, 1, "standard"], [64, 1, "squeeze-excite"]]
    net = random_net("mobilenet_v1", rows=rows, skip=True)
    x = images(net)
    exported = weights.export_onnx(net)
    assert [node.op_type for node in exported.graph.node].count("Add") == 3  # and the gate's
    assert close(run(exported, x.transpose(0, 3, 1, 2).copy()), net.forward(x))


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("model", ["mobilenet_v1", "mobilenet_v3_small", "googlenet"])
def test_maps_of_inner_layers_come_out_as_well(model, folded):
    """All of them: blocks, what is in them, gates of squeeze-and-excite, branches."""
    net = random_net(model, resolution=32)
    x = images(net, 2)
    want = net.maps(x, "*", "*.*", "*.*.*" if model == "mobilenet_v3_small" else "*")
    names = [name for name in want if name != "logits"]
    exported = weights.export_onnx(net, folded=folded, maps=list(want))
    assert [output.name for output in exported.graph.output] == ["logits", *names]
    session = runtime.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    got = session.run(names, {"images": np.ascontiguousarray(x.transpose(0, 3, 1, 2))})
    assert len(names) > 20
    for name, mine in zip(names, got):
        theirs = want[name] if want[name].ndim == 2 else want[name].transpose(0, 3, 1, 2)
        assert mine.shape == theirs.shape, name
        assert np.abs(mine - theirs).max() <= 10 * EXACT * np.abs(theirs).max(), name


def test_a_map_that_cannot_be_put_out_is_named():
    net = random_net("mobilenet_v1", resolution=32)
    with pytest.raises(NumnetError, match="maps: no layer 'blok3'"):
        weights.export_onnx(net, maps=["blok3"])
    layers = [Conv(4, name="conv_1"), Conv(4, name="last"), GlobalAverage(), Dense(2)]
    own = numnet.Net(layers, input_shape=(8, 8, 3))
    with pytest.raises(NumnetError, match="called 'conv_1' already"):
        weights.export_onnx(own, maps=["conv_1"])


def test_a_maximum_in_place_of_the_mean():
    net = random_net("mnasnet_keras", pooling="max")
    x = images(net)
    assert close(run(weights.export_onnx(net), x.transpose(0, 3, 1, 2).copy()), net.forward(x))


def test_the_command_with_preprocessing_in_the_graph(tmp_path, capsys):
    net = random_net("mobilenet_v2")
    scaling = {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.5, 0.2]}
    known = {"input": scaling, "classes": list("abcdefg"), "preset": "bicubic/0.9"}
    net.save(tmp_path / "net.safetensors", **known)
    file = tmp_path / "net.onnx"
    assert main(["export", tmp_path / "net.safetensors", file, "--fold", "--preprocess"]) == 0
    pixels = np.random.default_rng(0).integers(0, 256, (3, *net.input_shape), dtype=np.uint8)
    x = (pixels / np.float32(255) - np.float32(scaling["mean"])) / np.float32(scaling["std"])
    assert close(run(str(file), pixels), net.forward(x.astype(np.float32)))
    assert (
        main(["export", tmp_path / "net.safetensors", tmp_path / "maps.onnx", "--layers", "stem, block1"])
        == 0
    )
    outputs = onnx.load(tmp_path / "maps.onnx").graph.output
    assert [output.name for output in outputs] == ["logits", "stem", "block1"]
    facts = {entry.key: json.loads(entry.value) for entry in onnx.load(file).metadata_props}
    assert {key: facts[key] for key in known} == known and facts["config"]["model"] == "mobilenet_v2"
    for arguments, words in (
        (["net.onnx", "--layout", "timm"], "--layout: is for .safetensors"),
        (["net.safetensors", "--fold"], "--fold: is for .onnx"),
        (["net.safetensors", "--layers", "stem"], "--layers: is for .onnx"),
        (["net.onnx", "--layers", "stem,blok*"], "maps: no layer 'blok*'"),
        (["net.txt"], "expected a file name that ends in .onnx or .safetensors"),
        (["nowhere/net.onnx"], "no folder"),
    ):
        capsys.readouterr()
        assert main(["export", tmp_path / "net.safetensors", tmp_path / arguments[0], *arguments[1:]]) == 2
        assert words in capsys.readouterr().err


def test_what_is_refused(tmp_path):
    net = random_net("mobilenet_v1")
    net.flat[3] = np.nan
    with pytest.raises(NumnetError, match="not finite"):
        weights.export_onnx(net, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
