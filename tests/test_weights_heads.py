"""Files without a top or with a head of one's own: whole where it is dense, else the start of a training."""

import io
import json
import zipfile

import numpy as np
import pytest
from cli_tools import numnet as run
from cli_tools import write_images
from test_weights import bare, depthwise, images, keras_tensors, one_line, random_net, same, write_legacy

import numnet
from numnet import checkpoint, weights
from numnet.errors import NumnetError

h5py = pytest.importorskip("h5py")
MODELS = ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"]
TOPS = ("conv_preds", "predictions", "conv_2", "logits")


def body_of(net):
    """The layers of a Keras file without the top."""
    whole = numnet.build(**{name: value for name, value in net.config.items() if name != "head"})
    ours, theirs = net.state(), whole.state()
    for name in theirs:
        if name in ours and theirs[name].shape == ours[name].shape:
            theirs[name][...] = ours[name]
    return [(layer, leaves) for layer, leaves in keras_tensors(whole) if layer not in TOPS]


def own_head(net):
    """(name, [(leaf, array)]) of its dense layers as Keras names them."""
    names = [name for name in ("hidden1", "hidden2", "logits") if f"{name}.weight" in net.params]
    leaves = (("kernel", "weight"), ("bias", "bias"))
    return [
        (f"dense_{i}" if i else "dense", [(leaf, net.params[f"{name}.{own}"]) for leaf, own in leaves])
        for i, name in enumerate(names)
    ]


def configuration(activations=(), pool="GlobalAveragePooling2D", rescaling=None):
    """As Keras writes it: a functional base in a Sequential, its head after it."""
    base = [
        {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 32, 32, 3]}},
        {"class_name": "BatchNormalization", "config": {"epsilon": 0.001, "momentum": 0.99}},
    ]
    layers = [{"class_name": "Functional", "config": {"layers": base}}, {"class_name": pool, "config": {}}]
    if rescaling:
        own = {"class_name": "Rescaling", "config": {"scale": rescaling[0], "offset": rescaling[1]}}
        layers.insert(0, own)
    layers += [{"class_name": "Dropout", "config": {"rate": 0.2}}]
    layers += [{"class_name": "Dense", "config": {"units": 5, "activation": each}} for each in activations]
    return json.dumps({"class_name": "Sequential", "config": {"layers": layers}})


def write_whole(path, net, config, nested=True):
    """A legacy .h5 of a model within a model (or of one functional model), with its configuration."""
    body, head = body_of(net), own_head(net)
    if not nested:
        write_legacy(path, body + head, keras2=True)
    else:
        with h5py.File(path, "w") as file:
            root = file.create_group("model_weights")
            root.attrs["layer_names"] = [b"base_net", *(name.encode() for name, _ in head)]
            base, names = root.create_group("base_net"), []
            for layer, leaves in body:
                for leaf, array in leaves:
                    own = "depthwise_kernel" if depthwise(layer) and leaf == "kernel" else leaf
                    names.append(f"{layer}/{own}:0")
                    base[names[-1]] = array
            base.attrs["weight_names"] = [name.encode() for name in names]
            for name, leaves in head:
                group = root.create_group(name)
                for leaf, array in leaves:
                    group[f"{name}/{leaf}:0"] = array
                group.attrs["weight_names"] = [f"{name}/{leaf}:0".encode() for leaf, _ in leaves]
    with h5py.File(path, "a") as file:
        if config is None:
            file.attrs.pop("model_config", None)
        else:
            file.attrs["model_config"] = config


def write_keras3(path, net, config):
    """A .keras file: the base's layers below its own, counted by class."""
    memory, counts = io.BytesIO(), {}
    with h5py.File(memory, "w") as file:
        for layer, leaves in body_of(net) + own_head(net):
            kind = "batch_normalization" if leaves[0][0] == "gamma" else "conv2d"
            kind = (
                "dense"
                if layer.startswith("dense")
                else "depthwise_conv2d"
                if depthwise(layer) and kind == "conv2d"
                else kind
            )
            number = counts[kind] = counts.get(kind, -1) + 1
            inner = "" if kind == "dense" else "layers/functional/"
            group = file.create_group(
                f"{inner}layers/{kind}_{number}/vars" if number else f"{inner}layers/{kind}/vars"
            )
            for i, (_, array) in enumerate(leaves):
                group[str(i)] = array
            group.attrs["name"] = layer
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", memory.getvalue())
        archive.writestr("config.json", config)


@pytest.mark.parametrize("model", MODELS)
def test_a_net_without_its_top(model, tmp_path):
    """A start for --init and for features; not for predict, eval and export, which would show the new layer's noise."""
    net = random_net(model)
    write_legacy(tmp_path / "no_top.h5", body_of(net))
    again = weights.import_file(tmp_path / "no_top.h5", resolution=32, bn_eps=1e-3)
    assert again.document["untrained"] == ["logits"] and "is untrained" in "".join(again.notes)
    own = {
        name: array
        for name, array in net.state().items()
        if not name.startswith(("params/wide", "params/logits"))
    }
    theirs = again.state()
    assert all(np.array_equal(theirs[name], array) for name, array in own.items())
    x = images(net)
    last = "last" if "v1" not in model else "block13"
    pooled = net.maps(x, last)[last].mean(axis=(1, 2))
    assert np.abs(again.features(x) - pooled).max() <= 1e-5 * np.abs(pooled).max()
    assert again.document["labels"] is None


def test_the_commands_with_a_net_without_its_top(tmp_path):
    net, folder = random_net("mobilenet_v2"), write_images(tmp_path / "set", train=4, test=1)
    write_legacy(tmp_path / "no_top.h5", body_of(net))
    code, _, error = run(
        "import", tmp_path / "no_top.h5", "-o", tmp_path / "start.safetensors", "--resolution", "32"
    )
    assert code == 0 and "is untrained" in error
    image = folder / "test" / "red" / "0.png"
    start = tmp_path / "start.safetensors"
    for command in (
        ("predict", tmp_path / "no_top.h5", image),
        ("eval", start, folder),
        ("export", start, tmp_path / "a.onnx"),
    ):
        code, out, error = run(*command)
        assert code == 2 and out == "" and "came without its last layers (logits)" in error
        assert error.splitlines()[-1].startswith("numnet: error: ")
    options = ["--epochs", "1", "--batch-size", "6", "--validation", "0", "--quiet", "--resolution", "32"]
    code, _, error = run(
        "train", folder, "--init", tmp_path / "no_top.h5", "--out", tmp_path / "run", *options
    )
    assert code == 0, error
    trained = numnet.load(tmp_path / "run")
    assert trained.document.get("untrained") is None and trained.classes == 3
    assert run("predict", tmp_path / "run", image)[0] == 0


def test_a_net_for_as_many_classes_starts_anew_too(tmp_path):
    """The last layer of a net without a top is noise, also where the numbers of classes agree."""
    from numnet.training.run import _take_over

    net = random_net("mobilenet_v1")
    write_legacy(tmp_path / "no_top.h5", body_of(net))
    start = weights.import_file(tmp_path / "no_top.h5", resolution=32, classes=7)
    new = numnet.build(**{**start.config, "seed": 7})
    before = new.params["logits.weight"].copy()
    _take_over(new, start, list("abcdefg"), print)
    assert np.array_equal(new.params["logits.weight"], before)
    assert np.array_equal(new.params["stem.weight"], net.params["stem.weight"])


TWO = [[24, "hswish"], [9, "relu6"]]


@pytest.mark.parametrize(
    "model, hidden", [*((model, TWO) for model in MODELS), (MODELS[1], []), (MODELS[3], [])], ids=str
)
def test_a_head_of_one_s_own_comes_in_whole(model, hidden, tmp_path):
    net = random_net(model, head=hidden)
    words = [{"hswish": "hard_silu"}.get(activation, activation) for _, activation in hidden] + ["softmax"]
    config = configuration(words)
    write_whole(tmp_path / "nested.h5", net, config)
    write_whole(tmp_path / "flat.h5", net, config, nested=False)
    write_keras3(tmp_path / "whole.keras", net, config)
    for file in (
        ("nested.h5", "whole.keras") if model != "mobilenet_v2" else ("nested.h5", "flat.h5", "whole.keras")
    ):
        again = weights.import_file(tmp_path / file, resolution=32)
        assert same(net, again) and again.config["head"] == hidden and again.classes == 7, file
        assert "untrained" not in again.document and again.config["bn_eps"] == 0.001
        assert "a custom head" in again.notes[0]
    x = images(net)
    assert np.array_equal(again.forward(x), net.forward(x))
    again.save(tmp_path / "mine.safetensors")
    assert same(numnet.load(tmp_path / "mine.safetensors"), net)


def test_what_a_head_computes():
    net = random_net("mobilenet_v2", head=[[12, "relu"]])
    x = images(net)
    pooled = net.maps(x, "last")["last"].mean(axis=(1, 2))
    hidden = np.maximum(pooled @ net.params["hidden1.weight"] + net.params["hidden1.bias"], 0)
    want = hidden @ net.params["logits.weight"] + net.params["logits.bias"]
    for logits in (net.forward(x), net.predict(x)):
        assert np.abs(logits - want).max() <= 1e-5 * np.abs(want).max()
    assert numnet.describe("mobilenet_v3_small", head=[]).params is not None
    for wrong in (3, [[12]], [[0, "relu"]], [[12, "nonsense"]], [[1, "relu"]] * 5):
        with pytest.raises(NumnetError, match="head: expected a list"):
            numnet.describe("mobilenet_v1", head=wrong)
    with pytest.raises(NumnetError, match="head"):
        numnet.describe("vgg16", head=[])


def test_a_head_whose_activations_nobody_states(tmp_path):
    net = random_net("mobilenet_v1", head=[[24, "relu"]])
    write_whole(tmp_path / "weights.h5", net, None)
    again = weights.import_file(tmp_path / "weights.h5", resolution=32)
    assert same(net, again) and "took relu" in "".join(again.notes)
    again = weights.import_file(tmp_path / "weights.h5", resolution=32, head=[[24, "swish"]])
    assert again.config["head"] == [[24, "swish"]] and "took relu" not in "".join(again.notes)


def test_one_sigmoid_becomes_two_classes(tmp_path):
    net = random_net("mobilenet_v1", classes=1, head=[])
    write_whole(tmp_path / "cats.h5", net, configuration(["sigmoid"]))
    again, x = weights.import_file(tmp_path / "cats.h5", resolution=32), images(net)
    z = net.forward(x)
    logits = again.forward(x)
    assert again.classes == 2 and "sigmoid" in "".join(again.notes)
    assert np.abs(logits - np.concatenate([np.zeros_like(z), z], axis=1)).max() <= 1e-6


@pytest.mark.parametrize(
    "rescaling, mean, std",
    [((1 / 127.5, -1.0), 0.5, 0.5), ((1 / 255, 0.0), 0.0, 1.0), (None, 0.5, 0.5)],
)
def test_a_layer_that_rescales_is_the_scaling(rescaling, mean, std, tmp_path):
    net = random_net("mobilenet_v2", head=[])
    write_whole(tmp_path / "net.h5", net, configuration(["softmax"], rescaling=rescaling))
    scaling = weights.import_file(tmp_path / "net.h5", resolution=32).scaling
    assert np.allclose(scaling["mean"], mean) and np.allclose(scaling["std"], std)


@pytest.mark.parametrize("how", ["max", "flatten", "tanh", "norm"])
def test_a_head_that_numnet_has_no_layers_for_is_a_start(how, tmp_path):
    """All up to the pooling comes in, what is left out is named, and nothing predicts with it."""
    net = random_net("mobilenet_v2", head=[[24, "relu"]])
    pools = {"max": "GlobalMaxPooling2D", "flatten": "Flatten"}
    config = configuration(
        ["tanh" if how == "tanh" else "relu", "softmax"], pools.get(how, "GlobalAveragePooling2D")
    )
    if how == "norm":
        write_legacy(tmp_path / "net.h5", body_of(net) + own_head(net) + [
            ("own_norm", [("gamma", np.ones(24, np.float32)), ("beta", np.zeros(24, np.float32))]),
        ])  # fmt: skip
    else:
        write_whole(tmp_path / "net.h5", net, config)
    again = weights.import_file(tmp_path / "net.h5", resolution=32)
    assert again.document["untrained"] == ["logits"] and "dense/kernel" in "".join(again.notes)
    assert np.array_equal(again.params["block5.depthwise.weight"], net.params["block5.depthwise.weight"])


def test_what_is_no_head_is_refused(tmp_path):
    """A layer missing before the pooling, or matrices that read no pooled map, are no head."""
    net = random_net("mobilenet_v2")
    write_legacy(tmp_path / "gap.h5", [pair for pair in body_of(net) if pair[0] != "block_5_project"])
    extra = ("se_reduce", [("kernel", np.ones((3, 5), np.float32)), ("bias", np.ones(5, np.float32))])
    write_legacy(tmp_path / "extra.h5", [*body_of(net), extra])
    for file, words in (
        ("gap.h5", "block_5_project/kernel is missing"),
        ("extra.h5", "se_reduce/kernel is left over"),
    ):
        with pytest.raises(NumnetError) as excinfo:
            weights.import_file(tmp_path / file)
        one_line(excinfo, words)


def test_pytorch_s_heads_of_one_s_own(tmp_path):
    net = random_net("mobilenet_v2", variant="torch")
    file = tmp_path / "net.safetensors"
    rng = np.random.default_rng(0)
    one, two = (rng.normal(size=shape).astype(np.float32) for shape in ((24, 1280), (5, 24)))

    def change(tensors):
        del tensors["classifier.1.weight"], tensors["classifier.1.bias"]
        more = {"classifier.1.weight": one, "classifier.1.bias": one[:, 0].copy(), "classifier.4.weight": two}
        return {**tensors, **more, "classifier.4.bias": two[:, 0].copy()}

    weights.export_torch(net, file)
    bare(file, change)
    again = weights.import_file(file, resolution=32)
    assert again.config["head"] == [[24, "relu"]] and again.classes == 5
    assert np.array_equal(again.params["hidden1.weight"], one.T) and np.array_equal(
        again.params["logits.bias"], two[:, 0]
    )
    weights.export_torch(net, file)
    bare(file, lambda tensors: {n: a for n, a in tensors.items() if "classifier" not in n})
    again = weights.import_file(file, resolution=32)
    assert again.document["untrained"] == ["logits"]
    assert set(checkpoint.read_safetensors(file)[0]) and again.features(images(net)).shape == (2, 1280)
