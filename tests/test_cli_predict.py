"""numnet predict on many: folders, patterns, lists; a bad image among them; text, JSON and CSV."""

import csv
import io
import json
import os
import shutil
import sys

import numpy as np
import pytest
from cli_tools import numnet, works, write_images
from PIL import Image

import numnet as library
from numnet.cli import predict as page
from numnet.data import progress
from numnet.training import console


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A net ``net.safetensors`` of three classes and image folders ``photos`` and ``mixed``, where three of six are bad."""
    folder = tmp_path_factory.mktemp("predict")
    net = library.build(
        "mobilenet_v1", width=0.125, resolution=16, classes=3, strides="cifar", shallow=True, seed=1
    )
    weight = net.params["logits.weight"]  # which begins as zeros
    rng = np.random.default_rng(0)
    weight[:] = rng.normal(size=weight.shape)
    for _ in range(30):  # batch norm's running statistics
        net.forward(rng.normal(size=(8, 16, 16, 3)).astype(np.float32), training=True)
    net.save(
        folder / "net.safetensors",
        input={"mean": [0.5] * 3, "std": [0.25] * 3},
        classes=["blue", "green", "red"],
    )
    write_images(folder / "photos", train=5, test=2)
    mixed = folder / "mixed"
    mixed.mkdir()
    for i in range(3):
        shutil.copy(folder / "photos" / "test" / "red" / "0.png", mixed / f"{i}.png")
    (mixed / "1b.png").write_bytes((mixed / "1.png").read_bytes()[:70])
    (mixed / "2b.jpg").write_text("<html>")
    return folder


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(page, "BATCH", 4)
    return place


def seen(*arguments):
    return json.loads(works("predict", "net.safetensors", *arguments, "--json"))


def test_a_folder_a_pattern_and_a_list_are_their_images(here, monkeypatch):
    files = [f"photos/test/{name}/{i}.png" for name in ("blue", "green", "red") for i in range(2)]
    wanted = seen(*files)
    assert [result["image"] for result in wanted] == files and len(
        {str(result["top"]) for result in wanted}
    ) > 1
    for arguments in (["photos/test"], ["photos/test/*/*.png"], ["photos/te*/**/*.png"]):
        assert seen(*arguments) == wanted
    (here / "files.txt").write_bytes("\r\n".join(files).encode("utf-16"))
    (here / "photos" / "labelled.txt").write_text(
        "".join(f"{file.removeprefix('photos/')}\t{2}\n" for file in files)
    )
    assert seen("--list", "files.txt") == wanted
    assert seen("--list", "photos/labelled.txt") == wanted
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(files)))
    assert seen("--list", "-") == wanted
    (here / "photos" / "test" / "red" / ".thumbs").mkdir()
    shutil.copy(files[0], "photos/test/red/.thumbs/0.png")
    try:
        code, out, err = numnet("predict", "net.safetensors", "photos/test", "--json")
        assert (
            code == 0
            and json.loads(out) == wanted
            and "images in hidden folders or runs left out: 1 .thumbs" in err
        )
    finally:
        shutil.rmtree("photos/test/red/.thumbs")


def test_a_pattern_of_folders_means_the_images_in_them_each_once(here):
    """And with ** also the files, which are not seen twice for that."""
    wanted = seen("photos/test")
    for pattern in ("photos/te*", "photos/test/*", "photos/tes?/**", "./photos/test/**"):
        assert [row["top"] for row in seen(pattern)] == [row["top"] for row in wanted], pattern


def test_a_pattern_says_once_what_is_left_out(here, tmp_path):
    """As its folder does, though ** finds each file and every folder on the way to it."""
    inner = tmp_path / "all" / "some" / "few"
    shutil.copytree("photos/test/red", inner)
    shutil.copytree("photos/test/red", inner / "thumbs")
    (inner / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    wanted = numnet("predict", "net.safetensors", tmp_path / "all", "--json")
    assert wanted[0] == 0 and wanted[2].count("1 .heic") == wanted[2].count("2 thumbs") == 1
    code, out, err = numnet("predict", "net.safetensors", tmp_path / "all" / "**", "--json")
    assert (code, json.loads(out)) == (0, json.loads(wanted[1]))
    assert err.replace(f"{os.sep}:", ":") == wanted[2]


def test_a_checkpoint_without_its_ending_is_one(here):
    wanted = seen("photos/test/red/0.png")
    for name in ("net", "net.v2"):
        shutil.copy("net.safetensors", name)
        results = json.loads(works("predict", name, "photos/test/red/0.png", "--json"))
        assert [row["top"] for row in results] == [row["top"] for row in wanted]
        assert results[0]["checkpoint"] == name


@pytest.mark.parametrize(
    "files, held",
    [
        ([], ""),
        (["a.heic", "b.heic", "c.nef"], " (it holds 2 .heic, 1 .nef, which cannot be read)"),
        (["notes.txt"], ""),
    ],
)
def test_a_folder_without_an_image_is_named(here, tmp_path, files, held):
    """Alone, as with a checkpoint before it."""
    for file in files:
        (tmp_path / file).write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    for before in ([], ["net.safetensors"]):
        code, out, err = numnet("predict", *before, tmp_path)
        assert code == 2 and out == "" and err.count("\n") == 1
        assert err.startswith(f"numnet: error: {tmp_path}: a folder without images{held}, expected .jpg, "), (
            err
        )


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_net_behind_the_images_is_named(here, tmp_path, name):
    """A run's curves are a .png: it would be read as a folder of photographs."""
    run, image = tmp_path / "run", "photos/test/red/0.png"
    run.mkdir()
    shutil.copy("net.safetensors", run / f"{name}.safetensors")
    shutil.copy(image, run / "curves.png")
    (tmp_path / "net.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    for net in (run, run / f"{name}.safetensors", tmp_path / "net.h5"):
        for before in ([image], ["net.safetensors", image], ["net.safetensors"]):
            code, out, err = numnet("predict", *before, net)
            assert (
                code == 2
                and out == ""
                and err
                == (
                    f"numnet: error: {net}: a run or a checkpoint among the images; expected one net, "
                    "as the first argument\n"
                )
            )


def test_a_net_beside_photographs_is_passed_over(here, tmp_path):
    """Whoever keeps them together names both by one pattern, which the shell may have expanded."""
    net, image = tmp_path / "best.safetensors", "photos/test/red/0.png"
    shutil.copy("net.safetensors", net)
    for name in "ab":
        shutil.copy(image, tmp_path / f"{name}.png")
    ways = [
        [net, tmp_path],
        ["net.safetensors", tmp_path],
        [net, tmp_path / "*"],
        [net, *sorted(tmp_path.iterdir())],
    ]
    for way in ways:
        results = json.loads(works("predict", *way, "--json"))
        assert [row["top"][0]["label"] for row in results] == [seen(image)[0]["top"][0]["label"]] * 2, way


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names that are no text")
@pytest.mark.parametrize("form", [[], ["--csv"], ["--json"]])
def test_a_list_on_standard_input_with_names_that_are_no_text(here, monkeypatch, form):
    """Of an archive from Windows, say: they are names of files all the same."""
    odd = os.fsdecode(b"caf\xe9.png")
    shutil.copy("photos/test/red/0.png", odd)
    given = io.TextIOWrapper(io.BytesIO(b"caf\xe9.png\nnowhere \xe9.png\n"), "utf-8", "strict")
    monkeypatch.setattr(sys, "stdin", given)
    code, out, err = numnet("predict", "net.safetensors", "--list", "-", *form)
    assert code == 2 and err.count("\n") == 1
    assert "numnet: error: 1 of 2 images could not be read: nowhere " in err and "no such file" in err
    if form == ["--json"]:
        first = json.loads(out)[0]
        assert first["image"] == odd and first["top"] == seen("photos/test/red/0.png")[0]["top"]


def test_what_a_stream_lacks_is_a_question_mark_and_a_byte_stays_a_byte():
    assert "a\udcff→b".encode("ascii", "numnet") == b"a\xff?b"


def test_standard_streams_that_are_closed(here, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    code, _, err = numnet("predict", "net.safetensors", "--list", "-")
    assert code == 2 and "--list -: standard input is closed" in err
    monkeypatch.setattr(sys, "stderr", None)
    bar = progress.bar(range(3))
    assert list(bar) == [0, 1, 2] and bar.disable
    console.Bar(None, True).say("nobody hears it")


def test_bad_images_cost_only_their_own_answers(here):
    good = seen("mixed/0.png", "mixed/1.png", "mixed/2.png")
    arguments = ["predict", "net.safetensors", "mixed", "nowhere.png", "--json"]
    code, out, err = numnet(*arguments)
    results = json.loads(out)
    assert code == 2 and [result for result in results if "error" not in result] == good
    bad = {result["image"]: result["error"] for result in results if "error" in result}
    assert list(bad) == ["mixed/1b.png", "mixed/2b.jpg", "nowhere.png"]
    assert (
        bad["nowhere.png"] == "no such file, expected an image file"
        and "damaged image" in bad["mixed/1b.png"]
    )
    assert all(result["top"] == [] for result in results if "error" in result)
    lines = err.splitlines()
    assert (
        lines[-1] == "numnet: error: 3 of 6 images could not be read: those named above" and len(lines) == 4
    )
    assert lines[1].startswith("numnet: skipped mixed/2b.jpg: not an image that can be read")
    (here / "mixed" / "2b.jpg").rename("other.txt")
    try:
        code, out, err = numnet("predict", "net.safetensors", "mixed")
        assert code == 2 and [line for line in out.splitlines() if line[0] != " "] == [
            f"mixed/{i}.png" for i in range(3)
        ]
        assert err.startswith("numnet: error: 1 of 4 images could not be read: mixed/1b.png: damaged image")
        assert err.count("\n") == 1
    finally:
        (here / "other.txt").rename("mixed/2b.jpg")
    code, out, err = numnet("predict", "net.safetensors", "mixed/1b.png", "mixed/2b.jpg", "--json")
    assert code == 2 and out == "" and "2 of 2 images could not be read" in err


def test_csv(here):
    code, out, _ = numnet("predict", "net.safetensors", "mixed", "--csv", "--top", 2)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 2 and tuple(rows[0]) == page.COLUMNS and len(rows) == 3 * 2 + 2
    wanted = {result["image"]: result["top"] for result in seen("mixed/0.png", "mixed/1.png", "mixed/2.png")}
    for row in rows:
        if row["error"]:
            assert row["image"] in ("mixed/1b.png", "mixed/2b.jpg") and row["rank"] == row["label"] == ""
            continue
        top = wanted[row["image"]][int(row["rank"]) - 1]
        assert (row["class"], row["label"]) == (str(top["class"]), top["label"])
        assert float(row["probability"]) == pytest.approx(top["probability"], rel=1e-5)


def test_a_folder_with_the_net_of_the_package(here):
    code, out, err = numnet("predict", "photos/test/red", "--top", 1, "--json")
    assert code == 0 and len(json.loads(out)) == 2 and "the net that comes with numnet" in err


def test_transparent_images_on_white(here):
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save("glass.png")
    Image.new("RGB", (20, 20), (255, 255, 255)).save("white.png")
    Image.new("RGB", (20, 20), (0, 0, 0)).save("black.png")
    code, out, err = numnet("predict", "net.safetensors", "glass.png", "--json")
    assert code == 0 and "1 image with transparent pixels" in err
    assert json.loads(out)[0]["top"] == seen("black.png")[0]["top"]
    assert seen("glass.png", "--background", "white")[0]["top"] == seen("white.png")[0]["top"]
    assert seen("white.png")[0]["top"] != seen("black.png")[0]["top"]


def test_too_many_for_a_figure(here, monkeypatch):
    monkeypatch.setattr(page, "DRAWN", 5)
    code, _, err = numnet("predict", "net.safetensors", "photos/test", "--figure", "seen.png")
    assert code == 2 and err == "numnet: error: --figure: draws at most 5 images, got 6\n"
