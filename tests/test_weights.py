"""Weights in and out: every framework's files, recognised and exact; wrong and hostile ones, one line each."""

import io
import json
import os
import pickle
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import numnet
from numnet import checkpoint, weights
from numnet.cli import main
from numnet.data.transforms import SCALINGS
from numnet.errors import NumnetError
from numnet.weights import keras, paddle
from numnet.weights.source import SCALINGS as PUBLISHED
from numnet.weights.torch import layout_for, nearest

SHARED = Path(__file__).parents[2] / "shared" / "weights"
EXACT = 1e-5  # float32, running statistics (design: how exact is exact)
TINY = {"classes": 7, "resolution": 32}


def departures(net, layout):
    return nearest(net, layout)[1]


def random_net(model, seed=0, **options):
    """A net whose every number, also β and the running statistics, is random."""
    width = {} if model in ("vgg16", "googlenet") else {"width": 0.25}
    return randomised(numnet.build(model, **{**TINY, **width, **options}), seed)


def randomised(net, seed=0):
    """The net with random β, γ, biases and running statistics."""
    rng = np.random.default_rng(seed)
    for name, array in net.params.items():
        if array.ndim == 1:
            low, high = (0.6, 1.4) if name.endswith("gamma") else (-0.3, 0.3)
            array[...] = rng.uniform(low, high, array.shape)
    for name, array in net.buffers.items():
        array[...] = rng.uniform(*((0.6, 1.5) if name.endswith("variance") else (-0.2, 0.2)), array.shape)
    return net


def images(net, count=2):
    return np.random.default_rng(1).normal(size=(count, *net.input_shape)).astype(np.float32)


def same(a, b):
    return np.array_equal(a.flat, b.flat) and np.array_equal(a.flat_buffers, b.flat_buffers)


def one_line(excinfo, *words):
    text = str(excinfo.value)
    assert "\n" not in text
    for word in words:
        assert word in text
    return text


# ------------------------------------------------------------------------------------------- PyTorch


TORCH = [
    ("mobilenet_v1", {"variant": "torch"}),
    ("mobilenet_v2", {"variant": "torch"}),
    ("mobilenet_v3_large", {"variant": "torch"}),
    ("mobilenet_v3_small", {"variant": "torch"}),
    ("mobilenet_v3_small_minimalistic", {"variant": "torch", "padding": "same"}),
    ("mobilenet_v4_small", {"variant": "torch"}),
    ("mobilenet_v4_medium", {"variant": "torch", "width": 0.25}),
    ("mobilenet_v4_large", {"variant": "torch", "width": 0.1}),
    ("mnasnet_a1", {"variant": "torch"}),
    ("mnasnet_b1", {"variant": "torch"}),
    ("mnasnet_keras", {"variant": "keras", "padding": "same"}),
    ("googlenet", {"variant": "torch", "resolution": 64}),
    ("vgg16", {"variant": "torch"}),
]


@pytest.mark.parametrize("model, options", TORCH, ids=[model for model, _ in TORCH])
def test_state_dicts_of_plain_torch(model, options, torch, tmp_path):
    """A module with torchvision's or timm's names, its state dict recognised: the same logits; out again: the same bits."""
    import torch_nets

    torch.set_num_threads(1)
    torch.manual_seed(0)
    width = {} if model in ("vgg16", "googlenet") else {"width": 0.5}
    module = torch_nets.build(model, **{"padding": "symmetric", **TINY, **width, **options}).eval()
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.weight.uniform_(0.6, 1.4), layer.bias.uniform_(-0.3, 0.3)
                layer.running_mean.uniform_(-0.2, 0.2), layer.running_var.uniform_(0.6, 1.5)
    theirs = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    file = tmp_path / "state.pth"
    torch.save(theirs, file)
    net = weights.import_file(file, resolution=options.get("resolution", 32))
    assert net.config["model"] == model and net.classes == 7
    if model not in ("vgg16", "mnasnet_keras"):
        assert {layer.norm.unbiased for _, layer in net.walk() if getattr(layer, "norm", None)} == {True}
    x = images(net)
    with torch.no_grad():
        want = module(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    for logits in (net.forward(x), net.predict(x)):
        assert np.abs(logits - want).max() <= EXACT * np.abs(want).max()
    out = tmp_path / "out.safetensors"
    weights.export_torch(net, out)
    ours, _ = checkpoint.read_safetensors(out)
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert ours[name].shape == tuple(tensor.shape), name
        assert name.endswith("num_batches_tracked") or np.array_equal(ours[name], tensor.numpy()), name
    again = weights.import_file(out)
    assert again.config == net.config and same(net, again)
    if model == "vgg16":
        return  # its 138 million numbers have been moved enough
    net.flat[...] = 0
    numnet.load_weights(net, out)
    assert same(net, again)


PAIRS = [
    (layout, model)
    for layout, models in weights.torch.LAYOUTS.items()
    for model in models
    if model != "vgg16"
]


@pytest.mark.parametrize("layout, model", PAIRS)
def test_every_layout_round_trips_bit_for_bit(layout, model, tmp_path):
    net, file = random_net(model, padding="symmetric"), tmp_path / "net.safetensors"
    net.scaling = {"mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0]}
    weights.export_torch(net, file, layout)
    again = weights.import_file(file)
    assert same(net, again) and again.scaling == net.scaling
    assert again.config["padding"] == "symmetric" and again.config["bn_eps"] == 1e-3
    other = random_net(model, seed=5)
    other.flat[...] = 0
    numnet.load_weights(other, file)
    assert same(net, other)


OWN_ROWS = [[16, 1], [16, 1, "squeeze-excite"], [32, 2, "standard"], [32, 1, "standard"], [32, 1], [32, 1]]


@pytest.mark.parametrize(
    "options",
    [
        {"separable": False},
        {"shallow": True},
        {"depth_multiplier": 2},
        {"skip": True},
        {"separable": False, "skip": True},
        {"rows": OWN_ROWS},
        {"rows": OWN_ROWS, "skip": True},
    ],
    ids=str,
)
def test_v1_s_own_options_round_trip(options, tmp_path):
    net = random_net("mobilenet_v1", **options)
    weights.export_torch(net, tmp_path / "net.safetensors")
    assert same(net, weights.import_file(tmp_path / "net.safetensors"))
    other = random_net("mobilenet_v1", seed=5, **options)
    other.flat[...] = 0
    numnet.load_weights(other, tmp_path / "net.safetensors")
    assert same(net, other)


@pytest.mark.parametrize(
    "model, rows",
    [
        ("mobilenet_v2", [[1, 8, 1, 1], [2, 16, 2, 2]]),
        (
            "mobilenet_v3_small",
            [[3, 16, 8, 1, "relu", 2], [5, 24, 8, 0, "hswish", 1], [5, 24, 16, 1, "hswish", 2]],
        ),
        ("mnasnet_b1", [[3, 1, 8, 0, 1, 1], [3, 3, 16, 0, 2, 2]]),
    ],
)
def test_tables_of_one_s_own_round_trip(model, rows, tmp_path):
    net = random_net(model, rows=rows)
    for number, layout in enumerate(("torchvision", "timm")):
        file = tmp_path / f"{number}.safetensors"
        weights.export_torch(net, file, layout)
        assert same(net, weights.import_file(file))
    net.save(tmp_path / "own.safetensors")
    assert same(net, numnet.load(tmp_path / "own.safetensors"))


def bare(file, change=lambda tensors: tensors):
    """The same file as PyTorch would have written it, without what numnet says of the net."""
    from safetensors.numpy import save_file

    save_file(change(checkpoint.read_safetensors(file)[0]), file)
    return file


def exported(model, tmp_path, change=lambda tensors: tensors, layout=None, **options):
    file = tmp_path / "bare.safetensors"
    weights.export_torch(random_net(model, **options), file, layout)
    return bare(file, change)


@pytest.mark.parametrize("width", [0.25, 0.6, 1.0, 1.3])
@pytest.mark.parametrize("model", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small"])
def test_the_width_is_recognised(model, width, tmp_path):
    net = weights.import_file(exported(model, tmp_path, width=width, variant="torch"), resolution=32)
    assert net.config["width"] == width and net.config["variant"] == "torch"


def test_timm_s_minimalistic_v3(tmp_path):
    options = {"se": False, "kernel": 3, "activation": "relu"}
    file = exported("mobilenet_v3_large", tmp_path, layout="timm", variant="torch", **options)
    net = weights.import_file(file, resolution=32)
    assert net.config["model"] == "mobilenet_v3_large_minimalistic"
    assert net.config["padding"] == "same" and net.config["bn_eps"] == 1e-3
    assert net.scaling == PUBLISHED["keras"]
    # The longer way to say it
    again = weights.import_file(file, "mobilenet_v3_large", resolution=32, **options)
    assert same(net, again) and {key: again.config[key] for key in options} == options


def test_conventions_travel_to_the_checkpoint_and_back(tmp_path):
    net = weights.import_file(
        exported("mobilenet_v3_small", tmp_path, layout="timm", variant="torch"), resolution=32
    )
    assert net.config["bn_eps"] == 1e-5 and net.config["padding"] == "symmetric"
    net.save(tmp_path / "mine.safetensors", input=net.scaling, **net.document)
    again, x = numnet.load(tmp_path / "mine.safetensors"), images(net)
    assert again.scaling == PUBLISHED["imagenet"] and again.config == net.config
    assert np.array_equal(again.forward(x), net.forward(x))


def test_wrapped_and_half_precision_state_dicts(torch, tmp_path):
    net, file = random_net("mobilenet_v2", variant="torch"), tmp_path / "net.safetensors"
    weights.export_torch(net, file)
    tensors = {f"module.{k}": torch.from_numpy(v) for k, v in checkpoint.read_safetensors(file)[0].items()}
    tensors = {k: t.bfloat16() if t.is_floating_point() else t for k, t in tensors.items()}
    torch.save({"epoch": 3, "state_dict": tensors}, tmp_path / "run.pt")
    again = weights.import_file(tmp_path / "run.pt", resolution=32)
    assert np.abs(again.flat - net.flat).max() <= 2**-8 * np.abs(net.flat).max()


def test_what_a_net_s_users_must_know_of_its_images_survives_export_and_import(tmp_path):
    """The colour behind transparent pixels, how they were resized, and which images it was trained on."""
    net, file = random_net("mobilenet_v2"), tmp_path / "net.safetensors"
    facts = {"background": "white", "digest": "0123abcd", "preset": "stretch"}
    recipe = {
        "recipe": {"background": "white", "preset": "stretch"},
        "digest": "0123abcd",
        "dataset": "photos",
    }
    for document in (facts, recipe, {"made": {"background": "white", "preset": "stretch"}, **recipe}):
        net.document = document
        weights.export_torch(net, file)
        again = weights.import_file(file)
        assert {key: again.document[key] for key in facts} == facts
        assert main(["import", str(file), "-o", str(tmp_path / "own.safetensors")]) == 0
        own = numnet.load(tmp_path / "own.safetensors").document
        assert {key: own[key] for key in facts} == facts
    net.document = None
    weights.export_torch(net, file)
    assert not set(facts) & set(weights.import_file(file).document)


ALIKE = {model: {"padding": "symmetric", **options} for model, options in TORCH}
EPSILON = "batch norm's ε (1e-05 there, 0.001 here)"


@pytest.mark.parametrize("layout, model", PAIRS)
def test_a_net_of_pytorch_s_conventions_departs_from_no_module(layout, model):
    options = ALIKE.get(model, ALIKE["mobilenet_v3_small_minimalistic"])
    if layout == "timm" and model in ("mobilenet_v3_large", "mobilenet_v3_small"):
        assert departures(numnet.describe(model, **options), layout) == [EPSILON]
        options = {**options, "bn_eps": 1e-5}
    for more in ({}, {"dropout": 0.0}, {**TINY, "classes": 0}, {"width": 0.5, "channels": 1}):
        if model == "googlenet":
            more = {key: value for key, value in more.items() if key not in ("width", "resolution")}
        assert departures(numnet.describe(model, **{**options, **more}), layout) == []


@pytest.mark.parametrize(
    "model, options, departs",
    [
        ("mobilenet_v2", {}, ["padding", EPSILON]),
        ("mobilenet_v2", {"variant": "torch"}, ["padding"]),
        ("mobilenet_v2", {"padding": "symmetric"}, [EPSILON]),
        ("mobilenet_v1", {"activation": "hswish", **ALIKE["mobilenet_v1"]}, ["activations"]),
        ("mobilenet_v1", {"strides": "cifar", **ALIKE["mobilenet_v1"]}, ["strides"]),
        ("mobilenet_v1", {"skip": True, **ALIKE["mobilenet_v1"]}, ["skips"]),
        ("mobilenet_v1", {"shallow": True, **ALIKE["mobilenet_v1"]}, []),
        ("mobilenet_v1", {"separable": False, **ALIKE["mobilenet_v1"]}, []),
        ("mobilenet_v3_small", {"se": False, "kernel": 3, **ALIKE["mobilenet_v3_small"]}, []),
        ("vgg16", {}, []),
    ],
)
def test_what_pytorch_s_module_computes_otherwise_is_named(model, options, departs):
    """All that no tensor says, and nothing else: no layer that one of the two leaves out, nor its own sizes."""
    net = numnet.describe(model, **options)
    assert departures(net, layout_for(net)) == departs


def test_export_says_in_one_line_what_pytorch_would_compute_otherwise(tmp_path, capsys):
    file, out = tmp_path / "net.safetensors", tmp_path / "out.safetensors"
    for options, said in (
        (
            {},
            "torchvision's own mobilenet_v2 takes these tensors, but computes otherwise: padding, " + EPSILON,
        ),
        (ALIKE["mobilenet_v2"], None),
    ):
        random_net("mobilenet_v2", **options).save(file)
        assert main(["export", str(file), str(out)]) == 0
        err = capsys.readouterr().err
        if said is None:
            assert err == ""
        else:
            assert err.startswith(
                f"numnet: {said}. Export .onnx, or train a net with the module's own settings"
            )
            assert err.count("\n") == 1
    assert main(["export", str(file), str(out), "--layout", "numnet"]) == 0 and capsys.readouterr().err == ""


@pytest.mark.parametrize("model", ["mobilenet_v3_large", "mobilenet_v3_small"])
def test_timm_s_module_of_tensorflow_s_conventions_is_told_from_its_other_one(model, tmp_path, capsys):
    """The two have the same tensors; a net as Keras trains it, or imported from a tf_ file, is the second one's."""
    file, out = tmp_path / "net.safetensors", tmp_path / "out.safetensors"
    half = {"padding": "same", "bn_eps": 1e-3, "activation": "relu6"}  # nearer to tf_, and not alike
    for options, departs, said in (
        ({"padding": "same", "bn_eps": 1e-3}, [], "timm's module with tf_ before its name computes as this"),
        ({"padding": "symmetric", "bn_eps": 1e-5}, [], None),
        ({"padding": "same", "bn_eps": 1e-5}, ["padding"], f"timm's own {model} takes these tensors, but"),
        (half, ["activations"], f"timm's own tf_ module for {model} takes these tensors, but computes"),
    ):
        net = random_net(model, width=0.5, **options)
        assert departures(net, "timm") == departs
        net.save(file)
        assert main(["export", str(file), str(out), "--layout", "timm"]) == 0
        err = capsys.readouterr().err
        if said is None:
            assert err == ""
        else:
            assert err.startswith(f"numnet: {said}") and err.count("\n") == 1


def test_a_net_that_neither_layout_has(tmp_path):
    net = random_net("plain_3x3")
    for layout in (None, "timm"):
        with pytest.raises(
            NumnetError, match="neither torchvision nor timm has a plain_3x3; expected layout numnet"
        ):
            weights.export_torch(net, tmp_path / "net.safetensors", layout=layout)


def test_googlenet_s_training_heads_are_left_out(tmp_path):
    def add(tensors):
        return {**tensors, "aux1.conv.conv.weight": np.zeros((3, 3), np.float32)}

    net = weights.import_file(exported("googlenet", tmp_path, add, resolution=64), resolution=64)
    assert net.config["model"] == "googlenet" and net.scaling == PUBLISHED["keras"]


# ------------------------------------------------------------------------------------------- Keras

h5py = pytest.importorskip("h5py")


def keras_tensors(net, layout="names"):
    """[(layer, [(leaf, array)])] of a net in Keras's names and shapes, in the order of its layers."""
    state, layers = net.state(), {}
    for slot in keras.layout_slots(net, layout):
        layer, leaf = slot.key.split("/")
        layers.setdefault(layer, {})[leaf] = slot.give(state[slot.own])
    order = ("kernel", "bias", *keras.NORM)
    return [
        (layer, sorted(leaves.items(), key=lambda item: order.index(item[0])))
        for layer, leaves in layers.items()
    ]


def depthwise(layer):
    return "depthwise" in layer or "_dw_" in layer


def old_name(layer):
    """V3's layers as Keras 2 named them."""
    name = layer.replace("_squeeze_excite_conv", "/squeeze_excite/Conv").removesuffix("_bn")
    for part in ("expand", "depthwise", "project"):
        name = name.replace(f"_{part}", f"/{part}") if name.endswith(part) else name
    return name + "/BatchNorm" * layer.endswith("_bn")


def write_legacy(path, layers, keras2=False, slashes=False, inside=True):
    """A legacy .h5. keras2: ":0" and depthwise_kernel; slashes: V3's old names; inside: below model_weights."""
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if inside else file
        rename = old_name if slashes else lambda layer: layer
        root.attrs["layer_names"] = [b"input_1", *(rename(layer).encode() for layer, _ in layers)]
        root.create_group("input_1").attrs["weight_names"] = np.array([], "S1")
        for layer, leaves in layers:
            group, names = root.create_group(rename(layer)), []
            for leaf, array in leaves:
                if keras2:
                    leaf = ("depthwise_" if depthwise(layer) and leaf == "kernel" else "") + leaf + ":0"
                names.append(f"{rename(layer)}/{leaf}")
                group[names[-1]] = array
            group.attrs["weight_names"] = [name.encode() for name in names]
        if inside:
            norms = [{"class_name": "BatchNormalization", "config": {"epsilon": 0.002, "momentum": 0.95}}]
            start = [{"class_name": "InputLayer", "config": {"batch_input_shape": [None, 32, 32, 3]}}]
            file.attrs["model_config"] = json.dumps({"config": {"layers": start + norms}})


def write_numbered(target, layers, names=True):
    """A .weights.h5: classes and numbers."""
    counts = Counter()
    with h5py.File(target, "w") as file:
        for layer, leaves in layers:
            kind = "batch_normalization" if leaves[0][0] == "gamma" else "conv2d"
            if kind == "conv2d":
                kind = (
                    "dense"
                    if leaves[0][1].ndim == 2
                    else "depthwise_conv2d"
                    if depthwise(layer)
                    else "conv2d"
                )
            number, counts[kind] = counts[kind], counts[kind] + 1
            group = file.create_group(f"layers/{kind}_{number}/vars" if number else f"layers/{kind}/vars")
            for i, (_, array) in enumerate(leaves):
                group[str(i)] = array
            if names:
                group.attrs["name"] = layer
        file["layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)


KERAS = ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"]


@pytest.mark.parametrize("model", KERAS)
def test_keras_files_of_every_kind(model, tmp_path):
    net = random_net(model)
    layers = keras_tensors(net)
    write_legacy(tmp_path / "k2.h5", layers, keras2=True)
    write_legacy(tmp_path / "k3.h5", layers, inside=False)
    write_legacy(tmp_path / "slashes.h5", layers, keras2=True, slashes=model.startswith("mobilenet_v3"))
    write_numbered(tmp_path / "named.weights.h5", layers)
    write_numbered(tmp_path / "ordered.weights.h5", layers, names=False)
    with zipfile.ZipFile(tmp_path / "whole.keras", "w") as archive:
        memory = io.BytesIO()
        write_numbered(memory, layers)
        archive.writestr("model.weights.h5", memory.getvalue())
        archive.writestr("config.json", json.dumps({"config": {"layers": []}}))
    momentum = 0.99 if model == "mobilenet_v1" else 0.999
    for file in sorted(tmp_path.iterdir()):
        again = weights.import_file(file, resolution=32)
        stated = file.name in ("k2.h5", "slashes.h5")
        assert same(net, again), file.name
        assert again.config["bn_eps"] == (0.002 if stated else 1e-3), file.name
        assert again.config["bn_momentum"] == (0.95 if stated else momentum)
        assert again.config["padding"] == "same" and again.config["width"] == 0.25
        assert again.scaling == PUBLISHED["keras"]
    again.flat[...] = 0
    numnet.load_weights(again, tmp_path / "k2.h5")
    assert same(net, again)


def test_a_stated_resolution(tmp_path):
    write_legacy(tmp_path / "net.h5", keras_tensors(random_net("mobilenet_v1")))
    assert weights.import_file(tmp_path / "net.h5").input_shape == (32, 32, 3)


@pytest.mark.parametrize("numbered", [False, True])
def test_the_article_s_mnasnet_has_automatic_names(numbered, tmp_path):
    net, file = random_net("mnasnet_keras"), tmp_path / "net.weights.h5"
    layers = keras_tensors(net, "order")
    if numbered:
        write_numbered(file, layers, names=False)
    else:  # the second model of a process: Keras goes on counting
        later = [(f"{'_'.join(layer.split('_')[:-1]) if layer[-1].isdigit() and '_' in layer else layer}_{90 + i}", leaves)
                 for i, (layer, leaves) in enumerate(layers)]  # fmt: skip
        write_legacy(file, later)
    again = weights.import_file(file, resolution=32, bn_eps=1e-3)
    assert again.config["model"] == "mnasnet_keras" and same(net, again)
    assert again.scaling == SCALINGS_AS_CHECKPOINT["unit"]


def test_minimalistic_v3(tmp_path):
    net = random_net("mobilenet_v3_small", se=False, kernel=3, activation="relu")
    write_legacy(tmp_path / "net.h5", keras_tensors(net))
    again = weights.import_file(tmp_path / "net.h5")
    assert again.config["model"] == "mobilenet_v3_small_minimalistic" and same(net, again)


SCALINGS_AS_CHECKPOINT = {
    name: {"mean": list(mean), "std": list(std)} for name, (mean, std) in SCALINGS.items()
}


def test_scalings_are_those_of_data():
    assert {
        name: PUBLISHED[name] for name in ("imagenet", "keras", "unit")
    }.items() <= SCALINGS_AS_CHECKPOINT.items()


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/weights")
def test_the_real_pretrained_v1(tmp_path):
    """The published file, the reference logits of eight photographs, and the classes from the image files."""
    reference = np.load(SHARED / "mobilenet_v1_0.25_224_logits.npz")
    out = tmp_path / "v1.safetensors"
    assert main(["import", SHARED / "mobilenet_v1_0.25_224.h5", "-o", out]) == 0
    net = numnet.load(out)
    x = reference["images"].astype(np.float32) / 127.5 - 1
    for logits in (net.forward(x), net.predict(x)):
        assert np.abs(logits - reference["logits"]).max() <= 1e-3
    from numnet.data.image import read_image

    for row in json.loads((SHARED / "photos" / "labels.json").read_text()):
        pixels = read_image(SHARED / "photos" / row["file"], 224)
        mean, std = (np.array(net.scaling[key], np.float32) for key in ("mean", "std"))
        logits = net.predict(((pixels / np.float32(255) - mean) / std)[None])
        assert logits.argmax() in row["accepted_index"], row["file"]


# ------------------------------------------------------------------------------------------- PaddleClas


def paddle_table(net):
    state = net.state()
    return {slot.key: slot.give(state[slot.own]) for slot in paddle.layout_slots(net, "paddleclas")}


@pytest.mark.parametrize("model", KERAS)
def test_paddle_files(model, tmp_path):
    net, file = random_net(model, variant="paddle", padding="symmetric"), tmp_path / "net.pdparams"
    table = paddle_table(net)
    for protocol, extra in ((2, {}), (4, {paddle.TABLE: {name: "x" for name in table}}), (5, {})):
        content = {name: (name, array) if protocol == 4 else array for name, array in table.items()}
        file.write_bytes(pickle.dumps({**content, **extra}, protocol))
        again = weights.import_file(file, resolution=32)
        assert same(net, again) and again.config["bn_eps"] == 1e-5
        assert again.scaling == PUBLISHED["imagenet"]
    x = images(net)
    forward = again.forward(x)
    # V3's dropout scales in both
    assert np.abs(again.predict(x) - forward).max() <= EXACT * np.abs(forward).max()


def test_paddle_s_names():
    """A few of each net's, typed from its authors' files."""
    nets = {model: numnet.describe(model, variant="paddle") for model in KERAS}
    keys = {m: {s.key: s.shape for s in paddle.layout_slots(net, "paddleclas")} for m, net in nets.items()}
    counts = {"mobilenet_v1": 137, "mobilenet_v2": 267, "mobilenet_v3_large": 270, "mobilenet_v3_small": 214}
    assert {model: len(names) for model, names in keys.items()} == counts
    assert keys["mobilenet_v1"]["blocks.12.pointwise_conv.bn._variance"] == (1024,)
    assert keys["mobilenet_v1"]["fc.weight"] == (1024, 1000)
    assert keys["mobilenet_v2"]["conv2._first_block._expand_conv._conv.weight"] == (32, 32, 1, 1)
    assert keys["mobilenet_v2"]["conv5.conv5_4._bottleneck_conv._batch_norm._mean"] == (384,)
    assert keys["mobilenet_v3_large"]["blocks.3.mid_se.conv1.weight"] == (18, 72, 1, 1)
    assert keys["mobilenet_v3_small"]["last_conv.weight"] == (1280, 576, 1, 1)


# ------------------------------------------------------------------------------------------- wrong files


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def v1(tmp_path):
    """A good file of each kind, of a tiny V1."""
    net, good = random_net("mobilenet_v1"), tmp_path / "good"
    good.mkdir()
    weights.export_torch(net, good / "v1.safetensors")
    bare(good / "v1.safetensors")
    write_legacy(good / "v1.h5", keras_tensors(net))
    table = paddle_table(random_net("mobilenet_v1", variant="paddle"))
    (good / "v1.pdparams").write_bytes(pickle.dumps(table))
    with zipfile.ZipFile(good / "v1.keras", "w") as archive:
        memory = io.BytesIO()
        write_numbered(memory, keras_tensors(net))
        archive.writestr("model.weights.h5", memory.getvalue())
        archive.writestr("config.json", "{}")
    return good


@pytest.mark.parametrize("kind", [".safetensors", ".h5", ".keras", ".pdparams"])
@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "folder", "missing"])
def test_damaged_files_are_one_line_and_leave_nothing(kind, damage, v1, tmp_path, capsys):
    file, out = tmp_path / f"bad{kind}", tmp_path / "out.safetensors"
    content = (v1 / f"v1{kind}").read_bytes()
    assert main(["import", v1 / f"v1{kind}", "-o", tmp_path / "fine.safetensors", "--resolution", "32"]) == 0
    if damage == "folder":
        file.mkdir()
    elif damage != "missing":
        broken = {"cut": content[: len(content) // 2], "empty": b""}
        noise = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()
        file.write_bytes(broken.get(damage, noise))
    capsys.readouterr()
    assert main(["import", file, "-o", out]) == 2
    error = capsys.readouterr().err
    assert error.startswith("numnet: error: ") and error.count("\n") == 1 and str(file) in error
    assert not out.exists()


def test_hostile_pickles_run_nothing(torch, v1, tmp_path):
    mark = tmp_path / "executed"
    for name, words in (("bomb.pdparams", "system"), ("bomb.pth", "tensors alone")):
        for content in (pickle.dumps(Bomb(mark)), pickle.dumps({"fc.weight": Bomb(mark)})):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(NumnetError) as excinfo:
                weights.import_file(tmp_path / name)
            one_line(excinfo, name, words)
            assert not mark.exists()
    torch.save({"conv_stem.weight": Bomb(mark)}, tmp_path / "zip.pth")
    with pytest.raises(NumnetError) as excinfo:
        weights.import_file(tmp_path / "zip.pth")
    one_line(excinfo, "zip.pth", "tensors alone")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()  # the mark would have been seen


def test_links_and_bombs_in_h5(v1, tmp_path):
    """External links are not followed, and a small file may not claim gigabytes."""
    good = v1 / "v1.h5"
    for name in ("link", "huge"):
        file = tmp_path / f"{name}.h5"
        file.write_bytes(good.read_bytes())
        with h5py.File(file, "a") as content:
            group = content["model_weights/conv_preds/conv_preds"]
            shape = group["kernel"].shape
            del group["kernel"]
            if name == "link":
                group["kernel"] = h5py.ExternalLink(str(good), "model_weights/conv_preds/conv_preds/kernel")
            else:
                group.create_dataset("kernel", (*shape[:2], 1 << 20, 1 << 10), "f4", chunks=(1, 1, 64, 64))
        with pytest.raises(NumnetError) as excinfo:
            weights.import_file(file)
        one_line(excinfo, "conv_preds/kernel is missing" if name == "link" else "claim")


def test_a_zip_that_unpacks_to_too_much(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", bytes(65 << 20))
    with pytest.raises(NumnetError) as excinfo:
        weights.import_file(tmp_path / "bomb.keras")
    one_line(excinfo, "unpacks to more than")


def test_all_misfits_in_one_line(tmp_path):
    def spoil(tensors):
        tensors["extra.weight"] = np.zeros(3, np.float32)
        tensors["classifier.1.bias"] = tensors["classifier.1.bias"].astype(np.int64)
        tensors["features.3.conv.2.weight"] = tensors["features.3.conv.2.weight"][:-1]
        del tensors["features.5.conv.0.1.running_var"]
        return tensors

    file = exported("mobilenet_v2", tmp_path, spoil)
    with pytest.raises(NumnetError) as excinfo:
        weights.import_file(file)
    one_line(excinfo, "extra.weight is left over", "classifier.1.bias has type int64", "features.3.conv.2.weight has shape",
             "features.5.conv.0.1.running_var is missing")  # fmt: skip
    net = random_net("mobilenet_v2", seed=3)
    before = net.flat.copy()
    with pytest.raises(NumnetError, match=r"extra.weight is left over"):
        numnet.load_weights(net, file)
    assert np.array_equal(net.flat, before)


def test_v1_s_weights_into_a_net_of_one_s_own_blocks(tmp_path):
    """Skips change no tensor; blocks that the framework's net does not have are named, for a file of any kind."""
    published = random_net("mobilenet_v1")
    write_legacy(tmp_path / "v1.h5", keras_tensors(published))
    (tmp_path / "v1.pdparams").write_bytes(pickle.dumps(paddle_table(published)))
    weights.export_torch(published, tmp_path / "v1.safetensors")
    for suffix in ("h5", "pdparams", "safetensors"):
        file = tmp_path / f"v1.{suffix}"
        skips = random_net("mobilenet_v1", skip=True, seed=5)
        skips.flat[...] = 0
        numnet.load_weights(skips, file)
        assert np.array_equal(skips.flat, published.flat)
        for kind in ("standard", "squeeze-excite"):
            own = random_net("mobilenet_v1", rows=[[8, 2], [16, 1, kind], [16, 1]])
            before = own.flat.copy()
            with pytest.raises(NumnetError) as excinfo:
                numnet.load_weights(own, file)
            told = "is left over" if suffix == "safetensors" else "block1"
            one_line(excinfo, file.name, "mobilenet_v1", told)
            assert np.array_equal(own.flat, before)


def test_wrong_width_model_and_net(tmp_path):
    file = exported("mobilenet_v2", tmp_path, variant="torch")
    with pytest.raises(NumnetError, match=r"does not fit mobilenet_v2 of width 0.5: .*has shape"):
        weights.import_file(file, width=0.5)
    with pytest.raises(NumnetError, match=r"does not fit mnasnet_b1.*is missing.*is left over"):
        weights.import_file(file, model="mnasnet_b1")
    with pytest.raises(NumnetError, match="torch has no 'resnet', expected one of mobilenet_v2"):
        weights.import_file(file, model="resnet")
    with pytest.raises(NumnetError, match=r"does not fit mobilenet_v3_small.*is missing"):
        numnet.load_weights(random_net("mobilenet_v3_small"), file)
    stranger = exported(
        "mobilenet_v2", tmp_path, lambda _: {"layer1.0.conv1.weight": np.zeros((3, 3), np.float32)}
    )
    with pytest.raises(NumnetError, match=r"layer1.0.conv1.weight.* are those of no net"):
        weights.import_file(stranger)
    with pytest.raises(NumnetError, match="an unknown kind of weights"):
        weights.import_file(tmp_path / "weights.txt")


def test_not_finite(tmp_path):
    def spoil(tensors):
        tensors["conv_stem.weight"][0, 0, 0, 0] = np.nan
        return tensors

    with pytest.raises(NumnetError, match=r"conv_stem.weight has numbers that are not finite"):
        weights.import_file(exported("mobilenet_v1", tmp_path, spoil))


def test_a_checkpoint_needs_no_import_but_loads(tmp_path):
    net, file = random_net("mobilenet_v1"), tmp_path / "own.safetensors"
    net.save(file)
    with pytest.raises(NumnetError, match="a checkpoint of numnet's own"):
        weights.import_file(file)
    other = random_net("mobilenet_v1", seed=9)
    other.flat[...] = 0
    numnet.load_weights(other, file)
    assert same(net, other)


def test_export_s_errors(tmp_path):
    net = random_net("mobilenet_v1")
    with pytest.raises(NumnetError, match="torchvision has no mobilenet_v1, expected timm"):
        weights.export_torch(net, tmp_path / "x.safetensors", "torchvision")
    with pytest.raises(NumnetError, match="layout: expected one of torchvision, timm, got 'keras'"):
        weights.export_torch(net, tmp_path / "x.safetensors", "keras")
    own = numnet.Net([numnet.layers.GlobalAverage(), numnet.layers.Dense(2)], (4, 4, 3))
    with pytest.raises(NumnetError, match="a custom net"):
        weights.export_torch(own, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())
