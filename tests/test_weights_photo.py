"""A photo: figures, class activation maps, the names of ImageNet's classes."""

import hashlib
import json

import numpy as np
import pytest
from test_weights import images, random_net

from numnet import plotting
from numnet.cli import main
from numnet.data import imagenet
from numnet.errors import NumnetError

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def photo(tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def saved(net, tmp_path, **meta):
    net.save(tmp_path / "net.safetensors", input={"mean": [0.5] * 3, "std": [0.25] * 3}, **meta)
    return tmp_path / "net.safetensors"


@pytest.mark.parametrize("model", ["mobilenet_v1", "mobilenet_v2", "mnasnet_a1", "googlenet"])
def test_a_map_s_mean_is_the_logits(model):
    net = random_net(model, resolution=96)
    x = images(net)
    maps, logits = plotting.class_activation_maps(net, x), net.forward(x)
    assert maps.shape == (2, 3, 3, 7)
    assert np.abs(maps.mean(axis=(1, 2)) - logits).max() <= 1e-5 * np.abs(maps).max()


def test_a_map_says_where():
    """A net that sees the brightness of red only: its map is the image's, square by square."""
    from numnet import Net
    from numnet.layers import Dense, GlobalAverage, MaxPool

    net = Net([MaxPool(2, 2), GlobalAverage(), Dense(2)], (8, 8, 3))
    net.params["dense.weight"][...] = [[1, -1], [0, 0], [0, 0]]
    x = np.zeros((1, 8, 8, 3), np.float32)
    x[0, 4:6, 2:4, 0] = 5
    maps = plotting.class_activation_maps(net, x)
    assert maps[0, 2, 1].tolist() == [5, -5] and np.count_nonzero(maps) == 2


def test_v3_s_head_is_applied_place_by_place():
    net = random_net("mobilenet_v3_small", resolution=96)
    assert np.isfinite(plotting.class_activation_maps(net, images(net, 1))).all()


def test_vgg_cannot_be_explained():
    import numnet

    with pytest.raises(NumnetError, match="expected a net that ends in global average pooling"):
        plotting.class_activation_maps(numnet.describe("vgg16", resolution=32), np.zeros((1, 32, 32, 3)))


def test_figure_and_explanation(photo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = saved(random_net("mobilenet_v1"), tmp_path, classes=list("abcdefg"))
    assert main(["predict", file, photo, photo, "--json"]) == 0
    plain = capsys.readouterr().out
    assert main(["predict", file, photo, photo, "--json", "--figure", "out.png"]) == 0
    assert capsys.readouterr().out == plain  # a figure changes no result
    assert main(["predict", file, photo, "--explain", "--top", "3"]) == 0
    text = capsys.readouterr()
    assert "explained.png" in text.err and text.out.count("%") == 3
    assert (tmp_path / "out.png").read_bytes().startswith(PNG)
    assert (tmp_path / "explained.png").read_bytes().startswith(PNG)
    assert main(["predict", file, photo, "--figure", "nowhere/out.png"]) == 2
    assert "no folder nowhere" in capsys.readouterr().err


def test_what_a_figure_shows():
    top = [{"class": 1, "label": "cat", "probability": 0.8}, {"class": 0, "label": "dog", "probability": 0.1}]
    pixels = np.zeros((20, 20, 3), np.uint8)
    rows = [{"pixels": pixels, "title": "a.png", "top": top, "map": np.ones((3, 3))}]
    image, explained, bars = plotting.photos(rows).axes
    assert image.get_title() == "a.png" and explained.get_title() == "what speaks for cat"
    assert [label.get_text() for label in bars.get_yticklabels()] == ["cat", "dog"]
    assert [bar.get_width() for bar in bars.patches] == [80, 10]
    assert len(plotting.photos([{**rows[0], "map": np.ones((3, 3))}, {**rows[0]}]).axes) == 6


@pytest.fixture
def names(tmp_path, monkeypatch):
    """A list of class names in the cache, known by its checksum, and no network."""
    table = {str(i): [f"n{i:08}", f"some_thing_{i}"] for i in range(1000)}
    content = json.dumps(table).encode()
    monkeypatch.setenv("NUMNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(imagenet, "URL", "http://127.0.0.1:9/list.json")
    monkeypatch.setattr(imagenet, "MD5", hashlib.md5(content).hexdigest())
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path / "cache" / imagenet.FILE, content


def test_names_of_imagenet(names, photo, tmp_path, capsys):
    cached, content = names
    file = saved(random_net("mobilenet_v1", classes=1000), tmp_path, labels="imagenet")
    assert main(["predict", file, photo, "--json"]) == 0  # no network, no cache: numbers and a hint
    text = capsys.readouterr()
    top = json.loads(text.out)[0]["top"]
    assert [entry["label"] for entry in top] == [str(entry["class"]) for entry in top]
    assert text.err.count("\n") == 1 and "showing numbers" in text.err and str(cached.parent) in text.err
    cached.parent.mkdir(exist_ok=True)
    cached.write_bytes(content)
    assert main(["predict", file, photo, "--json"]) == 0
    text = capsys.readouterr()
    top = json.loads(text.out)[0]["top"]
    assert [entry["label"] for entry in top] == [f"some thing {entry['class']}" for entry in top]
    assert "showing numbers" not in text.err
    cached.write_bytes(content + b" ")  # another checksum is no list
    assert imagenet.class_names() is None
    # Not a published net: its classes are its own
    own = saved(random_net("mobilenet_v1", classes=1000), tmp_path)
    assert main(["predict", own, photo, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["top"][0]["label"].isdecimal()
