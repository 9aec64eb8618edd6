"""Nets as parts: without a classifier, under another head, for other channels, for images of any sides."""

import numpy as np
import pytest

import numnet
from numnet import checkpoint, weights
from numnet.cli import main
from numnet.data import transforms
from numnet.errors import NumnetError
from numnet.loading import require_trained
from numnet.weights import onnx as onnx_page

SMALL = {"width": 0.25, "resolution": 32, "classes": 5}
V1 = {"width": 0.1, "resolution": 32, "classes": 5}
EXACT = 1e-5  # float32, running statistics


def trained(model="mobilenet_v1", **options):
    """A net whose running statistics are not 0 and 1."""
    net = numnet.build(model, **{**(V1 if model == "mobilenet_v1" else SMALL), **options})
    net.forward(images(net, 4), training=True)
    return net


def images(net, count=2, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *net.input_shape)).astype(net.dtype)


def near(got, want, bound=EXACT):
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= bound * np.abs(want).max()


# ------------------------------------------------------------------------------------------- without a classifier


@pytest.mark.parametrize("model", ["mobilenet_v1", "mobilenet_v3_small", "mobilenet_v4_small"])
def test_a_net_without_classifier_ends_with_the_features(model):
    net = trained(model)
    body = numnet.with_head(net, 0)
    assert body.classes == 0 and body.config["classes"] == 0
    assert not [name for name in body.params if name.startswith("logits")]
    x = images(net)
    near(body.forward(x), net.features(x))
    near(body.predict(x), net.features(x))
    near(body.features(x), net.features(x))
    assert body.forward(x).shape == (2, *net.layers[-1].input_shape)


def test_features_before_the_pooling():
    net = trained()
    x = images(net, 3)
    maps = net.features(x, pooled=False, batch_size=2)
    near(maps, net.maps(x, "block13")["block13"])
    near(maps.mean((1, 2)), net.features(x))
    assert net.features(x[:0], pooled=False).shape == (0, *maps.shape[1:])
    own = numnet.Net([numnet.layers.Dense(3), numnet.layers.Dense(2)], (4,))
    with pytest.raises(NumnetError, match="pooled=False is for a net that pools or flattens"):
        own.features(np.zeros((1, 4), np.float32), pooled=False)


def test_every_model_can_be_a_body():
    for model in numnet.models():
        net = numnet.describe(model, classes=0, resolution=32)
        assert net.classes == 0 and net.layers[-1].name != "logits" and len(net.output_shape) == 1
        assert not [layer.name for layer in net.layers if layer.kind == "dropout" and model != "vgg16"]


def test_a_body_saves_loads_and_exports(tmp_path):
    net = numnet.with_head(trained("mobilenet_v4_small", variant="torch"), 0)
    net.save(tmp_path / "body.safetensors", input={"mean": [0.5] * 3, "std": [0.5] * 3})
    again = numnet.load(tmp_path / "body.safetensors")
    assert again.classes == 0
    np.testing.assert_array_equal(again.flat, net.flat)
    weights.export_torch(net, tmp_path / "timm.safetensors", "timm")
    theirs, _ = checkpoint.read_safetensors(tmp_path / "timm.safetensors")
    assert "conv_head.weight" in theirs and "classifier.weight" not in theirs


def test_commands_say_that_a_body_has_no_classes(tmp_path, capsys):
    net = numnet.with_head(trained(), 0)
    file = tmp_path / "body.safetensors"
    net.save(file, input={"mean": [0.5] * 3, "std": [0.5] * 3})
    assert main(["predict", file, "photo.jpg"]) == 2
    assert "predict needs a net with a classifier" in capsys.readouterr().err
    assert main(["export", file, tmp_path / "b.onnx", "--softmax"]) == 2
    assert "has no classifier" in capsys.readouterr().err
    with pytest.raises(NumnetError, match=r"no classifier .*with_head"):
        numnet.fit(net, numnet.data.load("shapes"), epochs=1, progress=False)


# ------------------------------------------------------------------------------------------- another head


def test_another_head_on_a_loaded_net(tmp_path):
    net = trained()
    net.save(tmp_path / "net.safetensors", classes=list("abcde"), input={"mean": [0.5] * 3, "std": [0.5] * 3})
    loaded = numnet.load(tmp_path / "net.safetensors")
    other = numnet.with_head(loaded, 3, head=[[8, "relu"]], seed=7)
    x = images(net)
    assert other.forward(x).shape == (2, 3) and other.class_names is None
    assert other.document["untrained"] == ["hidden1", "logits"] and other.scaling == loaded.scaling
    near(other.features(x, pooled=False), net.features(x, pooled=False))
    assert loaded.classes == 5 and loaded.class_names == list("abcde")  # the old one is as it was
    again = numnet.with_head(loaded, 3, head=[[8, "relu"]], seed=7)
    np.testing.assert_array_equal(other.flat, again.flat)
    assert not np.array_equal(
        numnet.with_head(loaded, 3, seed=8).flat, numnet.with_head(loaded, 3, seed=7).flat
    )


def test_a_new_head_that_was_saved_is_not_taken_for_trained(tmp_path, capsys):
    file = tmp_path / "net.safetensors"
    trained().save(file, classes=list("abcde"), input={"mean": [0.5] * 3, "std": [0.5] * 3})
    numnet.with_head(numnet.load(file), 3).save(tmp_path / "other.safetensors")
    assert main(["predict", tmp_path / "other.safetensors", "photo.jpg"]) == 2
    assert "needs a whole net, and this one came without its last layers (logits)" in capsys.readouterr().err
    whole = numnet.quantised.quantise(
        numnet.load(tmp_path / "other.safetensors"), images(numnet.load(file), 16), method="minmax"
    )
    whole.save(tmp_path / "eights.safetensors")
    assert main(["predict", tmp_path / "eights.safetensors", "photo.jpg"]) == 2
    said = capsys.readouterr().err
    assert "a float net with layers that nobody has trained (logits)" in said and said.count("\n") == 1
    whole.save(tmp_path / "eights.safetensors", untrained=None)
    require_trained(numnet.load(tmp_path / "eights.safetensors"), "predict")


def test_v3_s_wide_layer_stays_unless_the_head_is_another():
    net = trained("mobilenet_v3_small")
    same = numnet.with_head(net, 3)
    np.testing.assert_array_equal(same.params["wide.weight"], net.params["wide.weight"])
    assert same.document["untrained"] == ["logits"]
    assert "wide.weight" not in numnet.with_head(net, 3, head=[]).params


def test_parts_of_a_net_of_one_s_own():
    own = numnet.Net([numnet.layers.GlobalAverage(), numnet.layers.Dense(2)], (4, 4, 3))
    for make in (numnet.with_head, numnet.with_channels):
        with pytest.raises(NumnetError, match="a net of one's own layers"):
            make(own, 1)
        with pytest.raises(NumnetError, match="a description without arrays"):
            make(numnet.describe("mobilenet_v1"), 1)


# ------------------------------------------------------------------------------------------- channels


def test_one_channel_sees_a_grey_image_as_three_equal_ones_did():
    net = trained()
    grey = numnet.with_channels(net, 1)
    x = images(grey, 3)
    near(grey.predict(x), net.predict(np.repeat(x, 3, axis=3)))
    assert grey.config["channels"] == 1 and "averaged, times 3" in grey.notes[-1]


@pytest.mark.parametrize("channels", [2, 4, 6])
def test_many_channels_repeat_the_weights(channels):
    net = trained()
    many = numnet.with_channels(net, channels)
    x = np.repeat(images(numnet.with_channels(net, 1), 3), channels, axis=3)
    stem = many.params["stem.weight"]
    for j in range(channels):
        near(stem[:, :, j], net.params["stem.weight"][:, :, j % 3] * 3 / channels)
    assert f"repeated for {channels}, times 3/{channels}" in many.notes[-1]
    if channels % 3 == 0:  # all channels equally often: equal channels give what they gave
        near(many.predict(x), net.predict(x[..., :3]))


def test_grey_photographs_train_and_are_judged():
    data = numnet.data.load("shapes")
    small = numnet.data.ArraySplit(data.train.images[:32], data.train.labels[:32])
    data.train = data.test = small
    net = numnet.build("mobilenet_v1", **{**V1, "classes": len(data.classes)}, channels=1)
    result = numnet.fit(net, data, epochs=1, batch_size=16, progress=False)
    assert len(result) == 1
    x, _ = next(numnet.data.batches(small, batch_size=4, scaling=data.scaling, shuffle=False, channels=1))
    colour, _ = next(numnet.data.batches(small, batch_size=4, scaling=data.scaling, shuffle=False))
    near(x[..., 0], (colour * np.array([0.299, 0.587, 0.114], np.float32)).sum(-1))
    with pytest.raises(NumnetError, match="the net takes images of 4 channels, photographs have 3"):
        numnet.data.batches(small, batch_size=4, scaling=data.scaling, channels=4)


# ------------------------------------------------------------------------------------------- on import


def published(tmp_path, model="mobilenet_v1", **options):
    """A file as others write it."""
    net, file = trained(model, variant="torch", **options), tmp_path / "their.safetensors"
    weights.export_torch(net, file, "timm")
    from safetensors.numpy import save_file

    save_file(checkpoint.read_safetensors(file)[0], file)
    return net, file


def test_import_for_grey_images_says_what_it_did(tmp_path):
    net, file = published(tmp_path)
    grey = weights.import_file(file, resolution=32, channels=1)
    near(grey.params["stem.weight"][:, :, 0], net.params["stem.weight"].sum(2))
    assert any("averaged, times 3" in note for note in grey.notes)
    assert (
        main(["import", file, "--channels", "1", "--resolution", "32", "-o", tmp_path / "g.safetensors"]) == 0
    )
    assert numnet.load(tmp_path / "g.safetensors").input_shape == (32, 32, 1)


def test_a_file_of_other_channels_is_recognised(tmp_path):
    net, file = published(tmp_path, "mobilenet_v4_small", channels=4)
    again = weights.import_file(file, resolution=32)
    assert again.config["channels"] == 4
    np.testing.assert_array_equal(again.flat, net.flat)
    assert weights.import_file(file, resolution=32, channels=3).input_shape == (32, 32, 3)


def test_import_without_classifier_or_with_another(tmp_path):
    net, file = published(tmp_path)
    body = weights.import_file(file, resolution=32, classes=0)
    assert body.classes == 0 and "untrained" not in body.document
    near(body.predict(images(net)), weights.import_file(file, resolution=32).features(images(net)))
    other = weights.import_file(file, resolution=32, classes=3)
    assert other.classes == 3 and other.document["untrained"] == ["logits"]


@pytest.mark.parametrize("model", ["mobilenet_v1", "mobilenet_v3_small", "mobilenet_v4_small"])
def test_timm_s_files_without_classifier(model, tmp_path):
    net, file = published(tmp_path, model)
    tensors = {
        k: v for k, v in checkpoint.read_safetensors(file)[0].items() if not k.startswith("classifier")
    }
    from safetensors.numpy import save_file

    save_file(tensors, file)
    body = weights.import_file(file, resolution=32, classes=0)
    own = numnet.with_head(net, 0)
    assert body.classes == 0 and np.array_equal(body.flat, own.flat)
    headed = weights.import_file(file, resolution=32)
    assert headed.classes == 1000 and headed.document["untrained"] == ["logits"]
    assert np.array_equal(headed.params["stem.weight"], own.params["stem.weight"])


# ------------------------------------------------------------------------------------------- sides


def test_images_that_are_not_square():
    net = numnet.build("mobilenet_v1", **{**V1, "resolution": (40, 72)})
    assert net.config["resolution"] == [40, 72] and net.input_shape == (40, 72, 3)
    net.forward(images(net), training=True)
    net.backward(np.ones((2, 5), np.float32))
    near(net.predict(images(net)), net.forward(images(net)))
    with pytest.raises(NumnetError, match=r"another side is for square images, expected \(height, width\)"):
        net.resize(32)
    net.resize((96, 50))
    assert net.predict(images(net)).shape == (2, 5) and net.input_shape == (96, 50, 3)


@pytest.mark.parametrize("resolution", [[32], [32, 0], [32, 32, 3], "32x32", (32, None)], ids=str)
def test_what_no_pair_of_sides_can_be(resolution):
    with pytest.raises(NumnetError, match=r"^resolution: expected .* or .height, width."):
        numnet.build("mobilenet_v1", resolution=resolution)


def test_photographs_cover_a_frame_that_is_not_square():
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[:, 50:] = 200
    for preset in ("torchvision", "stretch", "keras", "bicubic/0.9"):
        for sides in ((40, 90), (90, 40), (33, 33)):
            assert transforms.resize_and_crop(pixels, sides, preset).shape == (*sides, 3)
    square = transforms.resize_and_crop(pixels, 32)
    np.testing.assert_array_equal(square, transforms.resize_and_crop(pixels, (32, 32)))
    halves = transforms.resize_and_crop(pixels, (24, 48), "stretch")  # height first
    assert halves[:, :20].max() == 0 and halves[:, 28:].min() == 200


def test_commands_take_height_times_width(tmp_path, capsys):
    from PIL import Image

    net = numnet.build("mobilenet_v1", **{**V1, "resolution": [32, 48]})
    net.save(tmp_path / "net.safetensors", input={"mean": [0.5] * 3, "std": [0.5] * 3})
    Image.new("RGB", (90, 50)).save(tmp_path / "photo.png")
    assert main(["predict", tmp_path / "net.safetensors", tmp_path / "photo.png", "--json"]) == 0
    capsys.readouterr()
    assert (
        main(["summary", "mobilenet_v1", "--resolution", "96x160", "--channels", "4", "--classes", "0"]) == 0
    )
    assert "48×80×32" in capsys.readouterr().out
    assert main(["summary", "mobilenet_v1", "--resolution", "96x"]) == 2
    assert "expected pixels, 224, or height x width, 96x160; got '96x'" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- ONNX


def run_onnx(model, x):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": x})[0]


@pytest.mark.parametrize("model", [name for name in numnet.models() if name != "vgg16"])
@pytest.mark.parametrize("channels", [1, 4])
def test_every_model_at_1_and_4_channels_on_96x160(model, channels):
    """Built, exported and run by ONNX Runtime: free batch, folded, the same numbers as forward."""
    pytest.importorskip("onnx")
    width = {} if model == "googlenet" else {"width": 0.1}
    net = numnet.build(model, resolution=(96, 160), channels=channels, classes=5, **width)
    x = images(net, 2)
    exported = weights.export_onnx(net, folded=True)
    near(run_onnx(exported, x.transpose(0, 3, 1, 2)), net.forward(x), 1e-4)


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("model", ["mobilenet_v1", "mobilenet_v3_small", "mobilenet_v4_small", "googlenet"])
def test_free_sides_run_at_any_size(model, padding):
    pytest.importorskip("onnx")
    width = {} if model == "googlenet" else {"width": 0.1}
    net = numnet.build(model, resolution=64, classes=5, padding=padding, **width)
    exported = weights.export_onnx(net, free_sides=True)
    dims = [dim.dim_param or dim.dim_value for dim in exported.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["N", 3, "height", "width"]
    for sides in ((64, 64), (45, 82), (33, 70)):
        net.resize(sides)
        x = images(net, 2)
        near(run_onnx(exported, x.transpose(0, 3, 1, 2)), net.forward(x), 1e-4)


def test_onnx_of_a_body_and_of_grey_bytes():
    pytest.importorskip("onnx")
    body = numnet.with_head(trained(), 0)
    exported = weights.export_onnx(body, folded=True)
    assert exported.graph.output[0].name == "features"
    near(run_onnx(exported, images(body).transpose(0, 3, 1, 2)), body.predict(images(body)))
    grey = numnet.with_channels(trained(), 1)
    scaling = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    x = ((pixels / 255 - scaling["mean"]) / scaling["std"]).astype(np.float32)
    want = grey.predict(transforms.as_channels(x, 1))
    near(run_onnx(weights.export_onnx(grey, scaling=scaling), pixels), want, 1e-4)
    assert onnx_page.LUMINANCE == transforms.LUMINANCE


def test_what_cannot_be_exported_with_free_sides(tmp_path, capsys):
    pytest.importorskip("onnx")
    own = numnet.Net([numnet.blocks.Conv(4, 3), numnet.layers.Flatten(), numnet.layers.Dense(3)], (8, 8, 3))
    with pytest.raises(NumnetError, match="flattens its last map, so its weights are for images of 8×8 only"):
        weights.export_onnx(own, free_sides=True)
    with pytest.raises(NumnetError, match="scaling is for nets of 1 or 3 channels, this one takes 4"):
        weights.export_onnx(
            numnet.build("mobilenet_v1", **V1, channels=4), scaling={"mean": [0.5] * 3, "std": [0.5] * 3}
        )
    net = trained()
    net.save(tmp_path / "net.safetensors")
    assert main(["export", tmp_path / "net.safetensors", tmp_path / "n.onnx", "--free-sides", "--fold"]) == 0
    import onnx

    graph = onnx.load(tmp_path / "n.onnx").graph
    assert graph.input[0].type.tensor_type.shape.dim[2].dim_param == "height"
    assert main(["export", tmp_path / "net.safetensors", tmp_path / "n.safetensors", "--free-sides"]) == 2
    assert "--free-sides" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- in commands


def test_a_body_is_the_start_of_a_training():
    from numnet.training import run

    body = numnet.with_head(numnet.build("mobilenet_v1", **V1), 0)
    body.path, body.class_names = "body.safetensors", None
    net, said = numnet.build("mobilenet_v1", **{**V1, "classes": 3}, seed=9), []
    fresh = net.params["logits.weight"].copy()
    run._require_fit(net.config, body)
    run._take_over(net, body, ["a", "b", "c"], said.append)
    np.testing.assert_array_equal(net.params["stem.weight"], body.params["stem.weight"])
    np.testing.assert_array_equal(net.params["logits.weight"], fresh)


def test_predict_shows_a_grey_net_the_luminance(tmp_path, capsys):
    """A red and a grey photograph of one luminance, up to a rounded byte: nearly the same probabilities."""
    import json

    from PIL import Image

    grey = numnet.with_channels(trained(), 1)
    grey.save(tmp_path / "grey.safetensors", input={"mean": [0.5] * 3, "std": [0.5] * 3})
    Image.new("RGB", (40, 40), (200, 0, 0)).save(tmp_path / "red.png")
    Image.new("RGB", (40, 40), (60, 60, 60)).save(tmp_path / "grey.png")  # 0.299 · 200 = 59.8
    assert (
        main(
            ["predict", tmp_path / "grey.safetensors", tmp_path / "red.png", tmp_path / "grey.png", "--json"]
        )
        == 0
    )
    red, plain = (row["top"][0] for row in json.loads(capsys.readouterr().out))
    assert red["class"] == plain["class"] and abs(red["probability"] - plain["probability"]) < 0.01
