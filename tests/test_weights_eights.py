"""Nets in eight bits as ONNX graphs in QDQ form: every step beside ONNX Runtime's on the same whole numbers."""

import json

import numpy as np
import pytest
from cli_tools import numnet, works
from test_quantised import HALF, MODELS, net_of, some
from test_weights import random_net

import numnet as library
from numnet import quantised, weights
from numnet.blocks import Conv
from numnet.errors import NumnetError
from numnet.kernels import eight_bits
from numnet.layers import Dense, GlobalAverage

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")


def session_of(model):
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    content = model if isinstance(model, (str, bytes)) else model.SerializeToString()
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(model, x):
    """Name -> what ONNX Runtime makes, its int8 maps as our bytes (N, P, Q, C)."""
    session = session_of(model)
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"images": np.ascontiguousarray(x.transpose(0, 3, 1, 2))})))
    for name, array in found.items():
        if array.dtype in (np.int8, np.uint8):
            array = (array.astype(np.int16) + 128).astype(np.uint8) if array.dtype == np.int8 else array
            found[name] = array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
    return found


@pytest.mark.parametrize("model", MODELS)
def test_every_step_beside_onnx_runtime(model):
    """On its own inputs each step is equal, or one place off: it rounds halves to even, and multiplies in float32."""
    net = net_of(model)
    x = some(net)
    whole = quantised.quantise(net, x, method="squares")
    found = run(weights.export_quantised(whole, maps=True), x[:2])
    maps, equal, count = [eight_bits.quantise(x[:2], whole.grid)], 0, 0
    whole.prepare()
    for number, step in enumerate(whole.steps):
        inputs = [np.ascontiguousarray(maps[i]) for i in step.reads]
        y = np.empty((2, *step.shape), np.uint8 if step.grid else np.int32)
        ours = whole._step(number, step, inputs, y)
        if step.grid is None:
            ours, theirs = whole.reals(ours, number + 1), found["logits"]
            assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()
            continue
        theirs = found[step.name]
        distance = np.abs(ours.astype(int) - theirs)
        assert distance.max() <= (step.kind != "maximum"), step.name
        equal, count = equal + (distance == 0).sum(), count + distance.size
        maps.append(theirs)
    assert equal >= 0.99 * count
    logits = whole.predict(x[:2])
    assert np.linalg.norm(logits - found["logits"]) <= 0.1 * np.linalg.norm(found["logits"])


@pytest.mark.parametrize("model", ["mobilenet_v2", "googlenet"])
def test_of_unsigned_maps_onnx_runtime_makes_integer_convolutions(model, tmp_path):
    """Its optimised graph has no float ones, nor concatenations of floats; and the same maps come out."""
    net = random_net(model)
    x = some(net)
    whole = quantised.quantise(net, x, method="squares")
    options = runtime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    content = weights.export_quantised(whole, unsigned=True).SerializeToString()
    runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert {"QLinearConv", "QGemm"} <= kinds and not {"Conv", "Gemm", "Concat"} & kinds
    first = run(weights.export_quantised(whole, unsigned=True, maps=True), x[:2])["stem"]
    assert np.abs(first.astype(int) - whole.maps(eight_bits.quantise(x[:2], whole.grid))[1]).max() <= 1


def test_steps_that_are_called_as_the_graphs_own_names():
    layers = [Conv(8, name="input", activation="relu"), Conv(8, name="images"), GlobalAverage(name="pool")]
    net = library.Net([*layers, Dense(4, name="logits")], (8, 8, 3))
    x = some(net)
    whole = quantised.quantise(net, x)
    logits = run(weights.export_quantised(whole), x[:2])["logits"]
    assert np.abs(logits - whole.predict(x[:2])).max() <= 0.05 * np.abs(logits).max()


@pytest.mark.parametrize("unsigned", [False, True])
def test_one_number_has_no_axes(unsigned):
    """ONNX Runtime before 1.32 takes the scale and the zero point of a map as scalars only, and so does ONNX's Clip."""
    net = random_net("mobilenet_v2")
    graph = weights.export_quantised(
        quantised.quantise(net, some(net), method="minmax"), unsigned=unsigned
    ).graph
    dims = {constant.name: list(constant.dims) for constant in graph.initializer}
    kinds = ("QuantizeLinear", "DequantizeLinear", "Clip")
    single = [
        name
        for node in graph.node
        if node.op_type in kinds
        for name in node.input[1:]
        if "bias" not in name and "weight" not in name
    ]
    assert single and all(dims[name] == [] for name in single)


def test_signed_weights_do_not_saturate():
    """64 products of 255 · 127: a sum that 16 bits cannot hold in pairs."""
    net = random_net("mobilenet_v1")
    whole = quantised.quantise(net, some(net), method="minmax")
    model = weights.export_quantised(whole)
    kinds = {array.name: array.data_type for array in model.graph.initializer}
    assert kinds["stem.weight"] == onnx.TensorProto.INT8 and kinds["stem.grid.zero"] == onnx.TensorProto.INT8


def test_the_command(tmp_path):
    net = random_net("mobilenet_v3_small")
    net.scaling, net.class_names = HALF, list("abcdefg")
    whole = quantised.quantise(net, some(net), method="squares")
    file, out = tmp_path / "eight.safetensors", tmp_path / "eight.onnx"
    whole.save(file, recipe={"preset": "stretch"}, made={"preset": "keras"})
    works("export", file, out, "--preprocess", "--softmax")
    pixels = np.random.default_rng(0).integers(0, 256, (2, *net.input_shape), dtype=np.uint8)
    got = session_of(str(out)).run(["probabilities"], {"images": pixels})[0]
    assert got.shape == (2, 7) and np.allclose(got.sum(1), 1, atol=1e-5)
    logits = whole.predict(((pixels / np.float32(255)) - np.float32(0.5)) / np.float32(0.5))
    e = np.exp(logits - logits.max(1, keepdims=True))
    assert np.abs(got - e / e.sum(1, keepdims=True)).max() < 0.05
    facts = {entry.key: json.loads(entry.value) for entry in onnx.load(out).metadata_props}
    assert facts["classes"] == list("abcdefg") and facts["input"] == HALF
    assert facts["preset"] == "keras", "as `numnet quantise` was told"
    for arguments, words in (
        (["export", file, tmp_path / "x.safetensors"], "a net in eight bits"),
        (["export", file, out, "--fold"], "--fold"),
        (["export", file, tmp_path / "x.safetensors", "--unsigned"], "--unsigned: is for .onnx"),
    ):
        code, _, err = numnet(*arguments)
        assert code == 2 and words in err and err.count("\n") == 1


def test_weights_with_zero_points_are_refused():
    net = random_net("mobilenet_v1")
    whole = quantised.quantise(net, some(net), method="minmax")
    whole.steps[0].weight = whole.steps[0].weight.astype(np.int16)
    with pytest.raises(NumnetError, match="zero points"):
        weights.export_quantised(whole)


@pytest.mark.parametrize("model", library.models())
def test_whole_nets_beside_onnx_runtime(model):
    """Differences of one step spread from layer to layer; they stay below what eight bits cost."""
    side = 32 if model in ("vgg16", "googlenet", "plain_3x3") else 16
    net = random_net(model, resolution=side)
    x = some(net)
    whole = quantised.quantise(net, x, method="minmax")
    theirs, ours, real = run(weights.export_quantised(whole), x)["logits"], whole.predict(x), net.predict(x)
    assert np.linalg.norm(ours - theirs) <= 0.7 * np.linalg.norm(ours - real)
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).mean() >= 0.9
