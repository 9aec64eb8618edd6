"""numnet train --resume elsewhere and further: images that have moved, more epochs, another patience."""

import json
import shutil

import numpy as np
import pytest
from cli_tools import TINY, numnet, works, write_images

from numnet import checkpoint


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with ``photos``, and ``run``: two epochs of a training on it, finished."""
    folder = tmp_path_factory.mktemp("resume")
    write_images(folder / "photos", train=8, test=2)
    options = [
        "--epochs",
        2,
        "--batch-size",
        12,
        "--validation",
        6,
        "--crop",
        1,
        "--schedule",
        "cosine",
        "--quiet",
    ]
    works("train", folder / "photos", *TINY, *options, "--out", folder / "run")
    return folder


@pytest.fixture
def here(place, tmp_path, monkeypatch):
    """A fresh copy of all, as on another machine: the images are not where they were."""
    shutil.copytree(place / "run", tmp_path / "run")
    shutil.copytree(place / "photos", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def history(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def fails(*arguments):
    code, out, err = numnet("train", "--resume", "run", "--quiet", *arguments)
    assert code == 2 and out == "" and err.splitlines()[-1].startswith("numnet: error: "), err
    return err.splitlines()[-1]


def test_images_that_have_moved(here, place):
    """They go on as if they had never moved: the same bits."""
    whole = checkpoint.read(place / "run" / "last.safetensors")[0]
    (here / "run" / "result.json").unlink()
    works("train", "--resume", "run", "--data", "elsewhere", "--quiet")
    # Nothing was left to do
    assert checkpoint.read_meta("run/last.safetensors")["reading"]["dataset"] == str(place / "photos")
    works("train", "--resume", "run", "--data", "elsewhere", "--epochs", 3, "--quiet")
    tensors, document = checkpoint.read("run/last.safetensors")
    assert document["reading"]["dataset"] == str(here / "elsewhere") and document["training"]["epoch"] == 3
    assert tensors.keys() == whole.keys() and history(here / "run")[:2] == history(place / "run")
    works("train", "--resume", "run", "--quiet")  # from now on they are known to lie there


def test_other_images_are_refused(here, place, monkeypatch):
    assert "no such folder, expected the images of" in fails("--data", "nowhere")
    shutil.move("elsewhere/train/red/0.png", "elsewhere/train/red/zero.png")
    said = fails("--data", "elsewhere")
    assert "are not those that this run was started with" in said and "finished" not in said
    shutil.rmtree("elsewhere/train/red")
    shutil.rmtree("elsewhere/test/red")
    assert "red missing now" in fails("--data", "elsewhere", "--epochs", 4)
    assert history(here / "run") == history(place / "run") and (here / "run" / "result.json").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (None, "test_accuracy is missing"),
        ({"test_accuracy": "x"}, "test_accuracy is 'x', expected a number"),
        ({"epochs": None}, "epochs is None, expected a number"),
    ],
)
def test_a_result_that_is_not_whole(here, change, says):
    path = here / "run" / "result.json"
    path.write_text(json.dumps({} if change is None else json.loads(path.read_text()) | change))
    assert f"result.json: cannot be read ({says})" in fails()


def test_images_that_are_gone(here, place):
    """A run that is finished needs none; any other asks for them."""
    shutil.move(place / "photos", place / "gone")
    try:
        result = json.loads(works("train", "--resume", "run", "--quiet", "--json"))
        (here / "run" / "result.json").unlink()
        assert "which is missing; give their new place with --data DIR" in fails()
    finally:
        shutil.move(place / "gone", place / "photos")
    assert result["epochs"] == 2 and result["checkpoint"] == "run/best.safetensors"


def test_a_run_that_has_moved_is_drawn_where_it_is(here, place):
    shutil.copy(place / "run" / "curves.png", here / "kept.png")
    for run in (place / "run", here / "run"):
        (run / "curves.png").unlink()
    try:
        options = ["--data", "elsewhere", "--epochs", 2, "--quiet", "--json"]
        result = json.loads(works("train", "--resume", "run", *options))
        assert result["checkpoint"] == "run/best.safetensors"
        assert (here / "run" / "curves.png").is_file() and not (place / "run" / "curves.png").exists()
    finally:
        shutil.copy(here / "kept.png", place / "run" / "curves.png")


def test_more_epochs(here, place):
    code, out, err = numnet(
        "train", "--resume", "run", "--data", "elsewhere", "--epochs", 5, "--quiet", "--json"
    )
    lines, result = history(here / "run"), json.loads(out)
    assert code == 0 and len(lines) == 5 and result["epochs"] == 5 and lines[:2] == history(place / "run")
    assert result == json.loads((here / "run" / "result.json").read_text())
    # The cosine of 5 epochs of 2 steps, after the warm-up that the folder's recipe scaled to the first 2 epochs.
    steps, warmup = 2, 2 * 2 * 2 / 30

    def rate(step):
        return 0.1 * (1 + np.cos(np.pi * (step - warmup) / (5 * steps - warmup))) / 2

    now = rate(2 * steps)
    assert [line["lr"] for line in lines[2:]] == pytest.approx(
        [rate(e * steps - 1) for e in (3, 4, 5)], rel=1e-4
    )
    assert (
        "run: 5 epochs instead of 2: the schedule cosine is now that of 5 epochs, from the first on; " in err
    )
    assert f"goes on at {now:.3g} (its last was {lines[1]['lr']:.3g})" in err
    assert checkpoint.read_meta("run/last.safetensors")["recipe"]["epochs"] == 5
    assert numnet("train", "--resume", "run", "--quiet")[2].startswith("run: this run is finished")


def test_fewer_epochs(here):
    assert "--epochs: run is in epoch 2 already, expected 2 or more, got 1" in fails(
        "--data", "elsewhere", "--epochs", 1
    )
    assert "expected no --lr" in fails("--lr", 0.2)
    before = (here / "run" / "last.safetensors").read_bytes()
    works("train", "--resume", "run", "--data", "elsewhere", "--epochs", 2, "--quiet")
    assert before == (here / "run" / "last.safetensors").read_bytes()


def test_another_patience(here):
    """A run that its patience ended goes on with more of it."""
    options = [
        *TINY,
        "--epochs",
        6,
        "--batch-size",
        12,
        "--validation",
        6,
        "--quiet",
        "--patience",
        1,
        "--out",
        "short",
    ]
    options[options.index("--lr") + 1] = 1e-12  # no epoch is better than another, but by rounding
    result = json.loads(works("train", "elsewhere", *options, "--json", "--ema", "none", "--weight-decay", 0))
    if not result["stopped_early"]:
        pytest.skip("rounding made every epoch better")
    done = result["epochs"]
    code, out, err = numnet("train", "--resume", "short", "--epochs", 7, "--quiet")
    assert code == 0 and "its patience of 1 epochs ended it" in err and len(history(here / "short")) == done
    assert "ended by its patience" in out
    works("train", "--resume", "short", "--patience", "none", "--epochs", 7, "--quiet")
    assert len(history(here / "short")) == 7


def test_the_small_class_is_named_and_weighted(here):
    for split in ("train", "test"):
        for i in range(1, 8):
            (here / "elsewhere" / split / "red" / f"{i}.png").unlink(missing_ok=True)
    options = [*TINY, "--epochs", 1, "--batch-size", 12, "--quiet"]
    out = works("train", "elsewhere", *options, "--class-weights", "red=3,blue=1", "--out", "weighted")
    assert "worst class" in out and "test images" in out
    recipe = checkpoint.read_meta("weighted/last.safetensors")["recipe"]
    assert recipe["class_weights"] == {"red": 3, "blue": 1}
    out = works("train", "elsewhere", *options, "--sampling", "balanced", "--out", "sampled", "--json")
    assert {"test_macro", "test_worst"} <= set(json.loads(out))
    code, _, err = numnet("train", "elsewhere", *options, "--class-weights", "red=heavy", "--out", "never")
    assert code == 2 and '--class-weights: expected "balanced", or a number above 0 for each class' in err


def test_a_best_net_that_is_not_the_runs_best_is_refused(here, place):
    """Of a copy that was made while the training ran, say."""
    (here / "run" / "result.json").unlink()
    best = here / "run" / "best.safetensors"
    tensors, document = checkpoint.read(best)
    kept = best.read_bytes()
    checkpoint.write(best, tensors, {**document, "training": {**document["training"], "accuracy": 0.123}})
    assert "of another epoch or run; expected the net of epoch" in fails("--data", "elsewhere")
    best.unlink()
    assert "best.safetensors: missing; expected the net of epoch" in fails("--data", "elsewhere")
    # Of a finished run that shall go on, too: before it trains, and the result stays
    shutil.copy(place / "run" / "result.json", here / "run" / "result.json")
    assert "best.safetensors: missing; expected" in fails("--data", "elsewhere", "--epochs", 3)
    assert (here / "run" / "result.json").exists() and history(here / "run") == history(place / "run")
    (here / "run" / "result.json").unlink()
    best.write_bytes(kept)
    works("train", "--resume", "run", "--data", "elsewhere", "--quiet")
    assert (here / "run" / "result.json").exists()
