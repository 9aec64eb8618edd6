"""PyTorch files as people's scripts write them, and what only a name or a configuration says of a net."""

import argparse
import collections
import json
import pathlib

import numpy as np
import pytest
from cli_tools import numnet as run
from cli_tools import works, write_images
from PIL import Image
from test_weights import Bomb, bare, images, one_line, random_net, same

import numnet
from numnet import checkpoint, weights
from numnet.data.transforms import resize_and_crop
from numnet.errors import NumnetError
from numnet.weights import pth, states

HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
TF = {"padding": "same", "bn_eps": 1e-3}
NAME = "tf_mobilenetv3_small_100"


def tensors_of(net, tmp_path, layout=None):
    file = tmp_path / "tensors.safetensors"
    weights.export_torch(net, file, layout)
    tensors = checkpoint.read_safetensors(file)[0]
    file.unlink()
    return tensors


@pytest.fixture
def v3(tmp_path):
    """A net with TensorFlow's conventions, and its tensors under timm's names."""
    net = random_net("mobilenet_v3_small", variant="torch", **TF)
    return net, tensors_of(net, tmp_path, "timm")


def as_torch(torch, tensors, factor=1):
    return {
        name: torch.from_numpy(factor * array if array.dtype.kind == "f" else array.copy())
        for name, array in tensors.items()
    }


def said(net, *words):
    text = "\n".join(net.notes)
    for word in words:
        assert word in text, text


# ------------------------------------------------------------------------------------------- what no tensor says


def test_timm_s_tensorflow_nets_by_file_name_content_option_and_configuration(v3, tmp_path, torch):
    from safetensors.numpy import save_file

    own, tensors = v3
    x, want = images(own), own.forward(images(own))
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    config = {"architecture": NAME, "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0]}}
    config["pretrained_cfg"] |= {"input_size": [3, 32, 32], "crop_pct": 0.9, "interpolation": "bicubic"}
    (folder / "config.json").write_text(json.dumps({**config, "label_names": list("abcdefg")}))
    save_file(tensors, tmp_path / f"{NAME}-37f49e2b.safetensors")
    save_file(tensors, tmp_path / "plain.safetensors")
    state = as_torch(torch, tensors)
    torch.save({"arch": NAME, "state_dict": state}, tmp_path / "last.pth.tar")
    torch.save(
        {"model": state, "args": argparse.Namespace(model=NAME, output=pathlib.Path("x"))},
        tmp_path / "args.pth",
    )
    for file, options in (
        (f"{NAME}-37f49e2b.safetensors", {}),
        ("last.pth.tar", {}),
        ("args.pth", {}),
        ("plain.safetensors", {"published": NAME}),
        ("hub", {}),
    ):
        net = weights.import_file(tmp_path / file, **{"resolution": 32, **options} if file != "hub" else {})
        assert (net.config["padding"], net.config["bn_eps"]) == ("same", 1e-3), file
        assert np.array_equal(net.forward(x), want), file
        said(net, NAME)
    assert net.scaling == {"mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 3.0]}
    assert net.input_shape == (32, 32, 3) and net.class_names == list("abcdefg")
    assert net.document["preset"] == "bicubic/0.9" and weights.import_file(folder).notes == net.notes


def test_what_nothing_says_is_assumed_aloud_and_an_option_settles_it(v3, tmp_path):
    from safetensors.numpy import save_file

    save_file(v3[1], tmp_path / "plain.safetensors")
    net = weights.import_file(tmp_path / "plain.safetensors", resolution=32)
    assert (net.config["padding"], net.config["bn_eps"], net.scaling) == ("symmetric", 1e-5, IMAGENET)
    said(net, "tensors are alike", f"--published {NAME}")
    code, _, error = run("import", tmp_path / "plain.safetensors", "-o", tmp_path / "a.safetensors", "--json")
    assert code == 0 and "--published tf_" in error
    for options in ({"padding": "same"}, {"published": "mobilenetv3_small_100"}):
        assert "alike" not in str(
            weights.import_file(tmp_path / "plain.safetensors", resolution=32, **options).notes
        )
    with pytest.raises(NumnetError, match="published: expected the name of a net of timm's"):
        weights.import_file(tmp_path / "plain.safetensors", published="resnet50")


@pytest.mark.parametrize(
    "name, options, scaling, preset",
    [
        ("tf_mobilenetv3_large_minimal_100", TF, HALF, "torchvision"),
        ("mobilenetv3_large_100.ra_in1k", {"padding": "symmetric", "bn_eps": 1e-5}, IMAGENET, "bicubic/0.875"),
        ("mobilenetv3_large_100_miil", {"padding": "symmetric"}, {"mean": [0.0] * 3, "std": [1.0] * 3}, "torchvision"),
    ],
)  # fmt: skip
def test_timm_s_own_settings_by_name(name, options, scaling, preset, tmp_path):
    more = {"se": False, "kernel": 3, "activation": "relu"} if "minimal" in name else {}
    net = random_net("mobilenet_v3_large", variant="torch", **more)
    weights.export_torch(net, tmp_path / f"{name}.safetensors", "timm")
    bare(tmp_path / f"{name}.safetensors")
    again = weights.import_file(tmp_path / f"{name}.safetensors", resolution=32)
    assert options.items() <= again.config.items() and again.scaling == scaling
    assert again.document["preset"] == preset and same(again, net)


def test_names_of_timm_s_mean_nothing_for_other_layouts(tmp_path):
    net = random_net("mobilenet_v3_small", variant="torch")
    weights.export_torch(net, tmp_path / f"{NAME}.safetensors", "torchvision")
    again = weights.import_file(bare(tmp_path / f"{NAME}.safetensors"), resolution=32)
    assert again.config["padding"] == "symmetric" and again.scaling == IMAGENET


def test_timm_s_resizing_is_pillow_s():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    # ⌊32/0.9⌋ = 35, ⌊35·90/60⌋ = 52
    whole = Image.fromarray(pixels).resize((52, 35), Image.Resampling.BICUBIC)
    want = np.asarray(whole.crop((10, 2, 42, 34)))
    assert np.array_equal(resize_and_crop(pixels, 32, "bicubic/0.9"), want)
    for wrong in ("bicubic/2", "cubic/0.9", "bicubic/", "bicubic"):
        with pytest.raises(NumnetError, match="preset: expected one of"):
            resize_and_crop(pixels, 32, wrong)


# ------------------------------------------------------------------------------------------- raw and averaged


def test_averaged_weights_are_taken_and_said_and_raw_ones_on_request(v3, tmp_path, torch):
    net, tensors = v3
    raw, averaged = as_torch(torch, tensors, 2), as_torch(torch, tensors)
    inside = {"n_averaged": torch.tensor(7), **{f"module.{name}": t for name, t in averaged.items()}}
    for number, (content, ema, plain) in enumerate(
        [
            ({"state_dict": raw, "state_dict_ema": averaged}, "state_dict_ema", "state_dict"),
            ({"model": raw, "model_ema": inside}, "model_ema.module", "model"),
            ({"net": raw, "average": inside}, "average.module", "net"),
            ({**raw, **{f"ema_model.{name}": t for name, t in averaged.items()}}, "ema_model", "without"),
        ]
    ):
        file = tmp_path / f"{number}.pth"
        torch.save(content, file)
        for take, words, factor in (
            (None, (f"averaged weights, {ema}", "--take raw", plain), 1),
            ("averaged", ("averaged",), 1),
            ("raw", ("took the raw weights", "--take averaged"), 2),
            (ema, ("averaged",), 1),
        ):
            again = weights.import_file(file, resolution=32, take=take)
            assert np.array_equal(again.flat, factor * net.flat), (number, take)
            said(again, *words)
        loaded = random_net("mobilenet_v3_small", variant="torch")
        numnet.load_weights(loaded, file, take="raw")
        assert np.array_equal(loaded.flat, 2 * net.flat)
    torch.save({"student": raw, "teacher": averaged}, tmp_path / "two.pth")
    with pytest.raises(NumnetError) as excinfo:
        weights.import_file(tmp_path / "two.pth")
    one_line(excinfo, "two.pth: holds several sets of weights, student, teacher", "--take student")
    assert np.array_equal(
        weights.import_file(tmp_path / "two.pth", take="teacher", resolution=32).flat, net.flat
    )
    for take, words in (("averaged", "has no averaged weights"), ("x", "has no set of weights 'x'")):
        with pytest.raises(NumnetError, match=words):
            weights.import_file(tmp_path / "two.pth", take=take)
    torch.save({"model": raw, "copy": raw}, tmp_path / "twice.pth")  # the same numbers: no question
    assert np.array_equal(weights.import_file(tmp_path / "twice.pth", resolution=32).flat, 2 * net.flat)


# ------------------------------------------------------------------------------------------- as scripts write them


def wrapped(kind, state, torch):
    prefixed = {f"_orig_mod.{name}": tensor for name, tensor in state.items()}
    return {
        "orig_mod": prefixed,
        "module of a compiled model": {f"module.{name}": tensor for name, tensor in prefixed.items()},
        "compiled within": {
            name.replace("features.", "features._orig_mod.", 1): tensor for name, tensor in state.items()
        },
        "model": {f"model.{name}": tensor for name, tensor in state.items()},
        "net and leftovers": {
            "net": {
                **{f"net.backbone.{name}": tensor for name, tensor in state.items()},
                "net.backbone.total_ops": torch.zeros(1), "net.backbone.features.3.total_params": torch.zeros(1),
            },
            "acc": 91.2, "epoch": 3,
        },
        "head outside": {
            "model_state_dict": {
                (name if name.startswith("classifier") else f"backbone.{name}"): t for name, t in state.items()
            }
        },
        "in parts": {
            "features": {n.removeprefix("features."): t for n, t in state.items() if n.startswith("features")},
            "classifier": {n.removeprefix("classifier."): t for n, t in state.items() if n.startswith("classifier")},
        },
        "lightning": {
            "state_dict": {**{f"model.{name}": t for name, t in state.items()}, "criterion.weight": torch.ones(20)},
            "hyper_parameters": argparse.Namespace(lr=0.1), "pytorch-lightning_version": "2.0", "loops": {"a": 1},
        },
        "arguments": {
            "weights": state, "args": argparse.Namespace(out=pathlib.Path("/x"), gpus=[0]), "best": np.float64(0.5),
            "history": collections.defaultdict(list, {"loss": [1.0]}), "where": torch.device("cpu"),
        },
        "optimiser": {"state_dict": state, "optimizer": optimiser(torch)},
    }[kind]  # fmt: skip


def optimiser(torch):
    weight = torch.nn.Parameter(torch.ones(30))
    adam = torch.optim.AdamW([weight])
    weight.sum().backward()
    adam.step()
    return adam.state_dict()


KINDS = [
    "orig_mod", "module of a compiled model", "compiled within", "model", "net and leftovers", "head outside",
    "in parts", "lightning", "arguments", "optimiser",
]  # fmt: skip


@pytest.fixture
def v2(tmp_path):
    net = random_net("mobilenet_v2", variant="torch", padding="symmetric")
    return net, tensors_of(net, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_wrappers_prefixes_and_leftovers(kind, v2, tmp_path, torch):
    net, tensors = v2
    content = wrapped(kind, as_torch(torch, tensors), torch)
    for number, name in enumerate(("a.pth.tar", "a.ckpt", "weights")):
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=number != 1)
        again = weights.import_file(tmp_path / name, resolution=32)
        assert same(net, again) and again.classes == 7
    if kind == "net and leftovers":
        said(again, "left out 2 tensors that tools have added", "total_ops")
    if kind == "lightning":
        said(again, "left out 1 tensor outside state_dict.model", "criterion.weight")


def test_whole_modules_pruned_weights_plain_pickles_and_torchscript(torch, tmp_path):
    import pickle

    import torch_nets

    torch.set_num_threads(1)
    options = {"variant": "torch", "padding": "symmetric", "classes": 7, "resolution": 32, "width": 0.25}
    module = torch_nets.build("mobilenet_v2", **options).eval()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eps = 0.002
    torch.save(module, tmp_path / "whole.pth")
    torch.save({"ema": module, "model": None}, tmp_path / "yolo.pt")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(module.state_dict()))
    pruned = dict(module.state_dict())
    weight = pruned.pop("features.0.0.weight")
    pruned |= {"features.0.0.weight_orig": weight, "features.0.0.weight_mask": torch.ones_like(weight)}
    torch.save(pruned, tmp_path / "pruned.pth")
    x = images(random_net("mobilenet_v2"))
    with torch.no_grad():
        want = module(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    for name in ("whole.pth", "yolo.pt", "plain.pkl", "pruned.pth"):
        own = {} if name in ("whole.pth", "yolo.pt") else {"bn_eps": 0.002}
        net = weights.import_file(tmp_path / name, resolution=32, **own)
        assert net.config["bn_eps"] == 0.002, name
        assert np.abs(net.forward(x) - want).max() <= 1e-5 * np.abs(want).max(), name


def test_no_pytorch_is_needed(v2, tmp_path, torch, run_python):
    torch.save({"model": as_torch(torch, v2[1])}, tmp_path / "a.pth")
    script = tmp_path / "read.py"
    script.write_text(
        "import sys\nsys.modules['torch'] = None\nfrom numnet import weights\n"
        f"print(weights.import_file({str(tmp_path / 'a.pth')!r}, resolution=32).classes)\n"
    )
    assert run_python(script) == "7\n"


def test_tensors_of_every_type_shape_and_stride(torch, tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    content = {
        "bf16": base.bfloat16(), "half": base.half(), "double": base.double(), "long": base.long(), "bool": base > 3,
        "turned": base.t(), "part": base[1:, 2:4], "empty": base[:0], "scalar": torch.tensor(3.0),
        "parameter": torch.nn.Parameter(base),
    }  # fmt: skip
    for new in (True, False):
        torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
        read = pth.load((tmp_path / "a.pth").read_bytes())
        for name, tensor in content.items():
            want = tensor.detach().float().numpy() if name == "bf16" else tensor.detach().numpy()
            assert np.array_equal(read[name], want) and read[name].dtype == want.dtype, name


def test_brain_floats_in_safetensors(v2, tmp_path, torch):
    safetensors = pytest.importorskip("safetensors.torch")
    net, tensors = v2
    state = {n: t.bfloat16() if t.is_floating_point() else t for n, t in as_torch(torch, tensors).items()}
    safetensors.save_file(state, tmp_path / "half.safetensors")
    again = weights.import_file(tmp_path / "half.safetensors", resolution=32)
    assert 0 < np.abs(again.flat - net.flat).max() <= 2**-8 * np.abs(net.flat).max()


def test_hostile_and_broken_ones_stay_one_line(v2, tmp_path, torch):
    mark = tmp_path / "executed"
    state = as_torch(torch, v2[1])
    torch.save({"state_dict": state, "args": Bomb(mark)}, tmp_path / "bomb.pth")
    bad = dict(state)
    name = "features.18.1.weight"
    bad[name] = bad[name][:-1]
    torch.save({f"model.{key}": tensor for key, tensor in bad.items()}, tmp_path / "bad.pth")
    torch.save({f"x{i}.weight": torch.zeros(3) for i in range(900)}, tmp_path / "stranger.pth")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    torch.save({"a": torch.ones(1).expand(1 << 40)}, tmp_path / "endless.pth")
    for file, words in (
        ("bomb.pth", ("posix.system" if mark.drive == "" else "system", "tensors alone")),
        ("bad.pth", (f"{name} has shape",)),
        ("stranger.pth", ("are those of no net",)),
        ("none.pth", ("holds no state dict",)),
        ("endless.pth", ("cannot be read",)),
    ):
        with pytest.raises(NumnetError) as excinfo:
            weights.import_file(tmp_path / file)
        assert len(one_line(excinfo, file, *words)) < 700 and "\x1b" not in str(excinfo.value)
    assert not mark.exists()


def test_many_misfits_are_counted(tmp_path):
    net = random_net("mobilenet_v2", variant="torch")
    weights.export_torch(net, tmp_path / "v2.safetensors")
    bare(tmp_path / "v2.safetensors", lambda t: {n: a for n, a in t.items() if "running_mean" not in n})
    with pytest.raises(NumnetError) as excinfo:
        weights.import_file(tmp_path / "v2.safetensors")
    assert len(one_line(excinfo, "running_mean is missing", "more")) < 700


def test_a_set_is_no_set_for_a_few_names():
    """A prefix that ends by chance in a net's first name takes nothing away."""
    names = {
        "conv1.weight": (1,),
        "layers.0.conv1.weight": (1,),
        "layers.0.bn1.weight": (1,),
        "linear.weight": (1,),
    }
    tensors = {name: np.zeros(100, np.float32) for name in names}
    assert states.choose("x", tensors, [names]).tensors.keys() == tensors.keys()


# ------------------------------------------------------------------------------------------- given straight


def test_foreign_files_straight_to_the_commands(v2, tmp_path, torch, monkeypatch):
    net, tensors = v2
    file, folder = tmp_path / "mobilenetv2.pth.tar", write_images(tmp_path / "set", train=3, test=1)
    torch.save({"state_dict": as_torch(torch, tensors, 2), "ema": as_torch(torch, tensors)}, file)
    same_net = ["--variant", "torch", "--width", "0.25", "--padding", "symmetric", "--classes", "7"]
    assert works("summary", file, "--json") == works("summary", "mobilenet_v2", *same_net, "--json")
    code, out, error = run("predict", file, folder / "test" / "red" / "0.png", "--json")
    assert code == 0 and len(json.loads(out)[0]["top"]) == 5
    assert "averaged weights, ema" in error
    code, out, error = run("eval", file, folder, "--json")  # a file without names of classes
    assert code == 2 and "--by-position" in error
    code, out, error = run("eval", file, folder, "--by-position", "--json")
    assert code == 0 and "averaged weights, ema" in error and json.loads(out)["images"] == 3
    options = ["--epochs", "1", "--batch-size", "4", "--validation", "0", "--out", tmp_path / "run"]
    seen = {}
    from numnet.training import run as runs

    take_over = runs._take_over
    monkeypatch.setattr(
        runs, "_take_over", lambda new, *rest: (take_over(new, *rest), seen.update(net=new.flat.copy()))
    )
    code, out, error = run(
        "train", folder, "--init", file, *options, "--resolution", "32", "--json", "--lr", "1e-9"
    )
    assert code == 0, error
    assert np.array_equal(seen["net"][:1000], net.flat[:1000]) and "averaged weights, ema" in error


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("net.onnx", b"\x08\x08", "an ONNX model, which numnet writes but does not read"),
        ("net.tflite", b"\x1c\0\0\0TFL3....", "TensorFlow Lite"),
        ("net.pb", b"\x08\x01", "a TensorFlow graph"),
        ("net.txt", b"hello", "an unknown kind of weights"),
    ],
)
def test_what_is_not_read_is_named(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    code, _, error = run("import", tmp_path / name, "-o", tmp_path / "a.safetensors")
    assert code == 2 and error.count("\n") == 1 and words in error
    if name != "net.txt":
        code, _, error = run("train", "shapes", "--init", tmp_path / name)
        assert code == 2 and error.count("\n") == 1 and words in error


def test_load_names_the_import_line(v2, tmp_path):
    from safetensors.numpy import save_file

    save_file(v2[1], tmp_path / "theirs.safetensors")
    with pytest.raises(NumnetError) as excinfo:
        numnet.load(tmp_path / "theirs.safetensors")
    one_line(excinfo, "another framework's file", f"numnet import {tmp_path / 'theirs.safetensors'} -o")
    for command in (["info"], ["export"]):
        more = [tmp_path / "a.onnx"] if command == ["export"] else []
        code, _, error = run(*command, tmp_path / "theirs.safetensors", *more)
        assert code == 2 and error.count("\n") == 1 and "numnet import" in error
    code, _, error = run("predict", tmp_path / "missing.pth.tar", "photo.png")
    assert code == 2 and error.count("\n") == 1 and "missing.pth.tar: no such checkpoint" in error
