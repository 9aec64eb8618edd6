"""The command line where something is trained: train, eval, predict, info, sweep; and every mistake's one line."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from cli_tools import CLASSES, TINY, numnet, start, works, write_images
from PIL import Image

import numnet as library
from numnet import checkpoint
from numnet.kernels import vectors
from numnet.loading import PACKAGED
from numnet.training import run
from numnet.training.evaluate import evaluate


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an image folder ``photos``, a finished run ``run``, and its result ``run.json``."""
    folder = tmp_path_factory.mktemp("cli")
    write_images(folder / "photos")
    arguments = [
        "--epochs",
        4,
        "--batch-size",
        12,
        "--validation",
        6,
        "--seed",
        3,
        "--crop",
        1,
        "--out",
        folder / "run",
    ]
    (folder / "run.json").write_text(
        works("train", folder / "photos", *TINY, *arguments, "--json", "--quiet")
    )
    return folder


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


# ------------------------------------------------------------------------------------------- train


def test_checkpoints_by_epoch(here):
    """Kept every two epochs; going back to one and on again gives the same bits, log and best included."""
    arguments = ["train", "photos", *TINY, "--batch-size", 12, "--validation", 6, "--crop", 1, "--ema", 0.5]
    works(*arguments, "--epochs", 5, "--keep-every", 2, "--out", "kept", "--quiet")
    kept = {f"epoch-{n}{best}.safetensors" for n in (2, 4) for best in ("", ".best")}
    assert kept == {path.name for path in (here / "kept").glob("epoch-*")}
    read = {name: checkpoint.read(here / "kept" / f"{name}.safetensors") for name in ("last", "best")}
    lines = (here / "kept" / "metrics.jsonl").read_text().splitlines()
    result = json.loads((here / "kept" / "result.json").read_text())
    for name in ("best", "last"):  # as if both were of a later epoch: what going back takes must be its own
        (here / "kept" / f"{name}.safetensors").unlink()  # it may be one file with a kept checkpoint
        shutil.copy(here / "run" / f"{name}.safetensors", here / "kept" / f"{name}.safetensors")
    works("train", "--resume", "kept", "--epoch", 2, "--quiet")
    again = (here / "kept" / "metrics.jsonl").read_text().splitlines()
    clock = ("seconds", "images_per_second", "data_seconds")
    for one, two in zip(lines, again, strict=True):
        one, two = ({k: v for k, v in json.loads(line).items() if k not in clock} for line in (one, two))
        assert one == two
    for name, (tensors, document) in read.items():
        others, theirs = checkpoint.read(here / "kept" / f"{name}.safetensors")
        assert all((tensors[key] == others[key]).all() for key in tensors) and tensors.keys() == others.keys()
        assert document["training"]["epoch"] == theirs["training"]["epoch"]
    assert json.loads((here / "kept" / "result.json").read_text())["test_loss"] == result["test_loss"]
    facts = json.loads(works("eval", "kept/epoch-2.safetensors", "photos", "--json"))
    assert facts["checkpoint"] == "kept/epoch-2.safetensors"
    for wrong, words in (
        (["--resume", "kept", "--epoch", 3], "no checkpoint of epoch 3 (those kept: 2, 4)"),
        (["--resume", "run", "--epoch", 3], "none was kept; train with --keep-every E"),
        (["photos", "--epoch", 3], "needs --resume RUN_DIR as well, or did you mean --epochs?"),
        (["photos", "--keep-every", 0], "expected an integer ≥ 1"),
        (["--resume", "kept/epoch-2.safetensors"], "expected a run directory, got the file kept/epoch-2"),
    ):
        code, _, err = numnet("train", *wrong)
        assert code == 2 and words in err and err.count("\n") == 1, err


def test_going_back_that_is_refused_changes_nothing(here):
    """Fewer epochs than are done, images that are missing, or others: the run stays what it was, result included."""
    options = [*TINY, "--batch-size", 12, "--validation", 6, "--epochs", 3, "--keep-every", 2, "--quiet"]
    works("train", "photos", *options, "--out", "safe")
    write_images(here / "others", seed=5)
    before = {path.name: path.read_bytes() for path in (here / "safe").iterdir()}
    for wrong, words in (
        (["--epochs", 1], "is in epoch 2 already, expected 2 or more, got 1"),
        (["--data", "nowhere"], "nowhere"),
        (["--data", "others"], "are not those that this run was started with"),
    ):
        code, _, err = numnet("train", "--resume", "safe", "--epoch", 2, *wrong, "--quiet")
        assert code == 2 and words in err and err.count("\n") == 1, err
        assert {path.name: path.read_bytes() for path in (here / "safe").iterdir()} == before, wrong


def test_lists_of_training_and_validation_images(here):
    """val_list.txt chooses the best epoch; without test_list.txt nothing is called a test."""
    for part, split in (("train", "train"), ("val", "test")):
        files = sorted((here / "photos" / split).glob("*/*.png"))
        lines = [f"{file.relative_to(here)} {CLASSES.index(file.parent.name)}\n" for file in files]
        (here / f"{part}_list.txt").write_text("".join(lines))
    (here / "label_list.txt").write_text("\n".join(CLASSES))
    try:
        out = works(
            "train",
            ".",
            *TINY,
            "--epochs",
            3,
            "--batch-size",
            12,
            "--out",
            "listed",
            "--quiet",
            "--validation",
            6,
        )
        result = json.loads((here / "listed" / "result.json").read_text())
        lines = [json.loads(line) for line in (here / "listed" / "metrics.jsonl").read_text().splitlines()]
        best = max(line["validation_accuracy"] for line in lines)
        assert result["validation_accuracy"] == best and result["test_accuracy"] is None
        assert "validation accuracy" in out
        code, text, err = numnet("eval", "listed", ".", "--json")
        facts = json.loads(text)
        assert code == 0 and "no test images" in err
        assert (facts["split"], facts["accuracy"], facts["images"]) == ("validation", best, 12)
    finally:
        for name in ("train_list.txt", "val_list.txt", "label_list.txt"):
            (here / name).unlink()


def test_the_test_images_as_validation(here):
    """All training images are trained on, the test images are seen after every epoch, and the result says so."""
    again = ["train", "photos", *TINY, "--epochs", 2, "--batch-size", 12, "--validation", "test", "--quiet"]
    out = works(*again, "--out", "chosen")
    assert "which these same images chose: no test" in out and "validation accuracy" not in out
    result = json.loads((here / "chosen" / "result.json").read_text())
    lines = [json.loads(line) for line in (here / "chosen" / "metrics.jsonl").read_text().splitlines()]
    assert result["chosen_by_test"] and result["test_accuracy"] == result["validation_accuracy"]
    assert result["test_accuracy"] == max(line["validation_accuracy"] for line in lines)
    assert checkpoint.read_meta("chosen/last.safetensors")["training"]["images"] == 36
    assert "these images chose: no test" in works("info", "chosen")
    assert json.loads((here / "run.json").read_text())["chosen_by_test"] is False
    code, _, err = numnet(*again[:-2], "train", "--out", "wrong")
    assert code == 2 and "expected an integer ≥ 0 or" in err and "test" in err


def test_train(here):
    result = json.loads((here / "run.json").read_text())
    keys = {
        "test_accuracy",
        "validation_accuracy",
        "epochs",
        "train_seconds",
        "images_per_second",
        "checkpoint",
    }
    assert keys <= set(result) and "history" not in result
    assert 0 <= result["test_accuracy"] <= 1 and result["epochs"] == 4 and result["train_seconds"] > 0
    assert result["checkpoint"] == str(here / "run" / "best.safetensors")
    names = {
        "best.safetensors",
        "last.safetensors",
        "metrics.jsonl",
        "metrics.csv",
        "result.json",
        "curves.png",
    }
    assert names == set(os.listdir("run"))
    lines = [json.loads(line) for line in (here / "run" / "metrics.jsonl").read_text().splitlines()]
    wanted = {"epoch", "lr", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"}
    assert len(lines) == 4 and wanted | {"seconds", "images_per_second"} <= set(lines[0])
    recipe = checkpoint.read_meta("run/last.safetensors")["recipe"]
    assert recipe["batch_size"] == 12 and recipe["seed"] == 3 and recipe["validation"] == 6
    assert recipe["augment"] == {"crop": 1, "flip": True}, "the recipe's flip, the option's crop"
    model = {"model": "mobilenet_v1", "width": 0.125, "resolution": 16, "strides": "cifar", "shallow": True}
    assert model.items() <= recipe["model"].items() and recipe["model"]["classes"] == 3


def test_resume_of_a_finished_run_changes_nothing(here):
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (here / "run").iterdir()}
    code, out, err = numnet("train", "--resume", "run", "--json")
    result = {**json.loads((here / "run.json").read_text()), "checkpoint": "run/best.safetensors"}
    assert code == 0 and json.loads(out) == result and "finished" in err
    assert before == {
        path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (here / "run").iterdir()
    }


def test_text_of_a_run(here):
    out = works("train", "--resume", "run/last.safetensors", "--quiet", "--threads", 1)
    assert re.search(r"^test accuracy +\d+\.\d\d %$", out, re.M)
    assert (
        re.search(r"^trained +4 epochs in [\d.]+ s, [\d,]+ images/s$", out, re.M)
        and "best.safetensors" in out
    )


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_stopped_and_resumed(here):
    """Ctrl-C: the code of a shell, the command that goes on, nothing on standard output; then it does go on."""
    options = [*TINY, "--epochs", 2000, "--batch-size", 12, "--quiet"]
    with start("train", "photos", *options, "--out", "a run") as process:
        metrics = here / "a run" / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while process.poll() is None and not (metrics.exists() and metrics.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == "" and err.endswith("numnet train --resume 'a run'\n")
    with start("train", "--resume", "a run", "--quiet") as process:
        time.sleep(0.3)
        process.terminate()
        out, err = process.communicate(timeout=60)
    assert process.returncode in (143, -signal.SIGTERM) and out == "" and "Traceback" not in err


def test_options_of_a_recipe(here):
    """Every kind of option, from the command line into the stored recipe."""
    options = [
        "--epochs",
        1,
        "--batch-size",
        36,
        "--optimizer",
        "rmsprop",
        "--style",
        "pytorch",
        "--epsilon",
        "1e-7",
    ]
    options += [
        "--schedule",
        "step",
        "--milestones",
        "0.5,0.8",
        "--gamma",
        ".5",
        "--warmup",
        0,
        "--no-augment",
    ]
    options += [
        "--ema",
        "none",
        "--clip-norm",
        5,
        "--label-smoothing",
        "0",
        "--no-decay-depthwise",
        "--scaling",
        "keras",
    ]
    works("train", "photos", *TINY, *options, "--preset", "stretch", "--out", "options", "--quiet")
    recipe = json.loads(works("info", "options", "--json"))["recipe"]
    wanted = {
        "epochs": 1, "batch_size": 36, "optimiser": "rmsprop", "style": "pytorch", "epsilon": 1e-7, "lr": 0.1,
        "schedule": "step", "milestones": [0.5, 0.8], "gamma": 0.5, "warmup": 0, "augment": None, "ema": None,
        "clip_norm": 5, "label_smoothing": 0, "decay_depthwise": False, "scaling": "keras", "preset": "stretch",
    }  # fmt: skip
    assert {key: recipe.get(key) for key in wanted} == wanted
    assert checkpoint.read_meta("options/best.safetensors")["input"] == {"mean": [0.5] * 3, "std": [0.5] * 3}


AUGMENT = {"crop": 4, "flip": "alternate", "cutout": 8}  # of the recipe cifar10


@pytest.mark.parametrize(
    "options, key, value",
    [
        (["--progressive", "[[0.5,0.5]]"], "progressive", [[0.5, 0.5]]),
        (["--progressive", "[[0.5, 0.25], [0.75, 0.25]]"], "progressive", [[0.5, 0.25], [0.75, 0.25]]),
        (["--progressive", "none"], "progressive", None),
        (["--model", "mobilenet_v2", "--progressive", "[[0.5,0.5]]"], "progressive", [[0.5, 0.5]]),
        (["--border", "reflect"], "augment", {**AUGMENT, "border": "reflect"}),
        (["--border", "zero", "--crop", "2"], "augment", {**AUGMENT, "crop": 2, "border": "zero"}),
    ],
)
def test_stages_and_borders_come_into_the_recipe(here, monkeypatch, options, key, value):
    merged = []
    monkeypatch.setattr(run, "_run", lambda dataset, recipe, *rest: merged.append(recipe))
    monkeypatch.setattr("numnet.cli.train._report", lambda *arguments: None)
    plain = run.plan("photos", "cifar10")
    works("train", "photos", "--recipe", "cifar10", *options, "--quiet")
    assert merged[0][key] == value != plain[key]


# ------------------------------------------------------------------------------------------- load


def test_load(here):
    net = library.load("run")
    assert net.class_names == list(CLASSES) and net.classes == 3 and net.input_shape == (16, 16, 3)
    assert (
        net.scaling["mean"] == pytest.approx([0.485, 0.456, 0.406]) and net.config["model"] == "mobilenet_v1"
    )
    assert net.path.name == "best.safetensors" and net.document["recipe"]["epochs"] == 4
    tensors, _ = checkpoint.read("run/best.safetensors")
    assert all(np.array_equal(net.params[name], tensors[f"params/{name}"]) for name in net.params)
    assert all(np.array_equal(net.buffers[name], tensors[f"buffers/{name}"]) for name in net.buffers)
    x = np.random.default_rng(0).standard_normal((2, 16, 16, 3), np.float32)
    net.save("copy.safetensors")
    again = library.load("copy.safetensors")
    assert np.array_equal(net.forward(x), again.forward(x)) and again.config == net.config
    assert again.class_names == net.class_names and again.scaling == net.scaling
    assert again.document["digest"] == net.document["digest"] and again.document["recipe"]["epochs"] == 4


# ------------------------------------------------------------------------------------------- eval


def test_eval(here):
    facts = json.loads(
        works("eval", "run", "photos", "--per-class", "--views", 6, "--json", "--figure", "confusion.png")
    )
    net = library.load("run")
    data = library.data.load("photos", resolution=16)
    wanted = evaluate(net, data.test, net.scaling, views=6)
    assert {key: facts[key] for key in ("accuracy", "top5", "loss", "images", "confusion", "views")} == {
        key: wanted[key] for key in ("accuracy", "top5", "loss", "images", "confusion", "views")
    }
    assert (
        facts["accuracy"] == json.loads((here / "run.json").read_text())["test_accuracy"]
        and facts["images"] == 12
    )
    assert [row["label"] for row in facts["per_class"]] == list(CLASSES) and facts["per_class"][1][
        "images"
    ] == 4
    assert (here / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert f"with 2 views{' ' * 8}" in works("eval", "run", "photos", "--views", 2)
    brief = json.loads(works("eval", "run/best.safetensors", "photos", "--json", "--batch-size", 5))
    wanted = {"accuracy", "top5", "loss", "images", "checkpoint", "dataset", "macro", "worst", "split"}
    assert set(brief) == wanted | {"matched_by", "unknown", "skipped"}
    assert (brief["split"], brief["matched_by"], brief["unknown"], brief["skipped"]) == (
        "test",
        "name",
        {},
        0,
    )
    text = works("eval", "run", "photos", "--per-class")
    assert "top 5" in text and "most often taken for" in text and "green" in text


# ------------------------------------------------------------------------------------------- predict


def test_predict(here):
    images = [f"photos/test/{name}/0.png" for name in CLASSES]
    results = json.loads(works("predict", "run", *images, "--top", 2, "--json"))
    assert [result["image"] for result in results] == images
    net = library.load("run")
    for result in results:
        assert (
            set(result) == {"image", "checkpoint", "top"} and result["checkpoint"] == "run/best.safetensors"
        )
        pixels = library.data.image.read_image(result["image"], 16)
        x = (pixels[None] / 255 - net.scaling["mean"]) / net.scaling["std"]
        logits = net.forward(x.astype(np.float32))[0].astype(float)
        p = np.exp(logits) / np.exp(logits).sum()
        order = np.argsort(-p)
        assert [row["class"] for row in result["top"]] == order[:2].tolist()
        assert [row["label"] for row in result["top"]] == [CLASSES[i] for i in order[:2]]
        assert [row["probability"] for row in result["top"]] == pytest.approx(p[order[:2]].tolist(), rel=1e-4)
    last = works("predict", "run/last.safetensors", images[0])
    assert last.startswith(images[0] + "\n") and last.count("%") == 3 and "█" in last


def test_export_for_use(here):
    """A checkpoint of its own layout: half the bytes, no state of the training, and what made it."""
    works("export", "run", "small.safetensors", "--layout", "numnet")
    small, whole = library.load("small.safetensors"), library.load("run")
    assert Path("small.safetensors").stat().st_size < 0.75 * Path("run/best.safetensors").stat().st_size
    assert np.abs(small.flat - whole.flat).max() <= 2**-11 * np.abs(whole.flat).max()
    for name, array in whole.buffers.items():
        near = 0 if name.endswith("variance") else 2**-11 * np.abs(array).max()
        assert np.abs(small.buffers[name] - array).max() <= near, name
    assert small.scaling == whole.scaling
    assert small.document["command"].startswith("numnet train photos, with {")
    facts = json.loads(works("info", "small.safetensors", "--json"))
    assert (
        facts["result"]["test_accuracy"] == json.loads(Path("run/result.json").read_text())["test_accuracy"]
    )
    assert "training" not in facts and "checkpoint" not in facts["result"]
    text = works("info", "small.safetensors")
    assert "test accuracy" in text and "numnet train photos" in text


def test_predict_with_the_net_of_the_package(here):
    """At most 1 MB, inference tensors only; the output says whose net it is, and the file how it was made."""
    assert PACKAGED.stat().st_size <= 1_000_000
    facts = json.loads(works("info", PACKAGED, "--json"))
    assert (
        facts["command"].startswith("numnet train cifar10 --recipe ")
        and facts["result"]["test_accuracy"] > 0.8
    )
    assert {name.split("/")[0] for name in checkpoint.read_shapes(PACKAGED)} == {"params", "buffers"}
    code, out, err = numnet("predict", "photos/test/red/0.png", "--top", 1, "--json")
    accuracy = f"{100 * facts['result']['test_accuracy']:.1f} %"
    assert code == 0 and "the net that comes with numnet, for airplane, automobile" in err and accuracy in err
    (result,) = json.loads(out)
    assert result["image"] == "photos/test/red/0.png" and result["checkpoint"] == str(PACKAGED)
    assert result["top"][0]["label"] in facts["classes"] and len(facts["classes"]) == 10


def test_a_net_of_one_s_own_summed_up_and_drawn(here):
    """A checkpoint or run directory wherever a model's name stands, options in place of its own; a name comes first."""
    net = library.load("run")
    told = json.loads(works("summary", "run", "--json"))
    assert (told["trainable_params"], told["macs"]) == (net.cost().params, net.cost().macs)
    own = json.loads(works("cost", "run", "run/best.safetensors", PACKAGED, "--json"))
    assert [report["macs"] for report in own] == [net.cost().macs] * 2 + [library.load(PACKAGED).cost().macs]
    larger = json.loads(works("summary", "run", "--resolution", 2 * net.input_shape[0], "--json"))
    assert larger["total_params"] == told["total_params"] and larger["macs"] > 3 * told["macs"]
    assert works("draw", "run", "-o", "own.svg") == "own.svg\n" and Path("own.svg").stat().st_size
    Path("vgg16").mkdir()
    assert "138,357,544" in works("summary", "vgg16")
    for wrong, words in [("nowhere/run", "no such checkpoint"), ("vgg16/..", "no run in this directory")]:
        code, out, err = numnet("summary", wrong)
        assert code == 2 and out == "" and err.count("\n") == 1 and wrong in err and words in err


def test_predict_without_names(here):
    """A net that was saved by hand: numbers for names, and the scaling from the option."""
    net = library.load("run")
    net.save("bare.safetensors", input=None, classes=None)
    code, _, err = numnet("predict", "bare.safetensors", "photos/test/red/0.png")
    assert code == 2 and "names no input scaling; name one with --scaling" in err
    results = json.loads(
        works("predict", "bare.safetensors", "photos/test/red/0.png", "--scaling", "imagenet", "--json")
    )
    named = json.loads(works("predict", "run", "photos/test/red/0.png", "--json"))
    assert [row["label"] for row in results[0]["top"]] == [str(row["class"]) for row in named[0]["top"]]
    assert [row["probability"] for row in results[0]["top"]] == [
        row["probability"] for row in named[0]["top"]
    ]


# ------------------------------------------------------------------------------------------- info


def test_info_of_the_installation(monkeypatch):
    monkeypatch.delenv("NUMNET_LANES", raising=False)
    facts = json.loads(works("info", "--json"))
    assert facts["versions"]["numnet"] == library.__version__ and facts["versions"]["numpy"] == np.__version__
    assert facts["threads"] >= 1 and facts["threading_layer"] in ("omp", "tbb", "workqueue")
    assert facts["cores"] >= 1 and facts["processor"]
    assert facts["lanes"] == vectors.LANES and facts["lanes_asked"] is None
    assert facts["fused_multiply_add"] is vectors.FUSED
    assert "scipy" not in facts["versions"] and "blas" not in facts
    assert facts["cache"] is None or os.path.isdir(facts["cache"])
    text = works("info")
    assert library.__version__ in text and "kernels" in text
    assert (
        f"{vectors.LANES} numbers of float32 in a vector (the processor's; $NUMNET_LANES sets 4, 8 or 16)"
        in text
    )
    monkeypatch.setenv("NUMNET_LANES", "8")
    monkeypatch.setattr(vectors, "LANES", 8)
    monkeypatch.setattr(vectors, "FUSED", False)
    text = works("info")
    assert "8 numbers of float32 in a vector (by $NUMNET_LANES)" in text and "not fused: slow here" in text
    assert "warning: this processor has no fused multiply-add" in text


def test_info_of_a_run(here):
    facts = json.loads(works("info", "run", "--json"))
    assert facts["file"] == "run/last.safetensors" and facts["recipe"]["epochs"] == 4
    assert facts["trainable_params"] == library.load("run").cost().params
    assert facts["result"]["test_accuracy"] == json.loads((here / "run.json").read_text())["test_accuracy"]
    text = works("info", "run")
    for words in (
        "mobilenet_v1",
        "width=0.125",
        "blue, green, red",
        "4 of 4 epochs",
        "batch_size 12",
        "test accuracy",
    ):
        assert words in text
    assert "validation accuracy" in works("info", "run/best.safetensors")


# ------------------------------------------------------------------------------------------- sweep


def test_sweep(here):
    model = {"width": 0.125, "resolution": 16, "strides": "cifar", "shallow": True}
    common = {"dataset": "photos", "epochs": 1, "batch_size": 36, "model": model}
    plan = {"common": common, "runs": [{"name": "a", "seeds": [0, 1]}, {"name": "b", "lr": 0.01}]}
    (here / "plan.json").write_text(json.dumps(plan))
    code, out, err = numnet("sweep", "plan.json", "--json", "--quiet")
    assert code == 0, err
    rows = json.loads(out)
    assert [(row["name"], row["runs"]) for row in rows] == [("a", 2), ("b", 1)] and "starting" not in err
    assert {"table.json", "table.md", "table.png", "a-seed0", "a-seed1", "b"} == set(os.listdir("plan"))
    code, out, err = numnet("sweep", "plan.json")
    assert code == 0 and out == (here / "plan" / "table.md").read_text() and "b: done already" in err
    code, out, err = numnet("sweep", "plan.json", "--logged", "--plot", "figure.png")
    assert code == 0 and out == (here / "plan" / "table.md").read_text() and not err
    assert (here / "figure.png").read_bytes().startswith(b"\x89PNG")
    code, out, err = numnet("sweep", "plan.json", "--logged", "--out", "elsewhere")
    assert code == 2 and "elsewhere: no finished run of plan.json" in err.splitlines()[-1]
    code, out, err = numnet("sweep", "plan.json", "--time", "--json", "--quiet")
    assert code == 0 and set(json.loads(out)) == {"a", "b"} and not err
    assert "µs an image" in numnet("sweep", "plan.json", "--logged")[1]


# ------------------------------------------------------------------------------------------- mistakes


@pytest.fixture(scope="module")
def wrong(place):
    """Files that are not what they should be, in the same folder."""
    (place / "text.safetensors").write_text("this is no safetensors file")
    (place / "text.png").write_text("this is no image")
    (place / "text.json").write_text("{epochs: 3}")
    (place / "unknown.json").write_text('{"epocs": 3}')
    (place / "empty").mkdir()
    (place / "folder.png").mkdir()
    (place / "one class" / "cats").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(place / "one class" / "cats" / "1.png")
    checkpoint.write(place / "own.safetensors", {}, {"format": 1, "config": None})
    checkpoint.write(place / "newer.safetensors", {}, {"format": 99, "config": {"model": "mobilenet_v1"}})
    checkpoint.write(place / "strange.safetensors", {}, {"hello": "world"})
    checkpoint.write(place / "bare.safetensors", {}, {"format": 1, "config": {"model": "mobilenet_v1"}})
    checkpoint.write(place / "other.safetensors", {}, {"format": 1, "config": {"model": "mobilenet_v9"}})
    shutil.copytree(place / "photos", place / "four", ignore=shutil.ignore_patterns("[1-9]*.png"))
    for split in ("train", "test"):
        shutil.copytree(place / "photos" / split / "red", place / "four" / split / "yellow")
    (place / "twice.json").write_text(
        '[{"name": "a", "dataset": "shapes"}, {"name": "a", "dataset": "shapes"}]'
    )
    return place


TRAIN = ["train", "photos", "--quiet", "--resolution", "16", "--epochs", "2", "--out", "never"]
MISTAKES = [
    # the command itself
    (["sumary"], r"unknown command 'sumary' \(did you mean summary\?\); expected one of models, summary"),
    (["--jsn"], "unknown option '--jsn'"),
    (["models", "mobilenet_v1"], "one argument too many, 'mobilenet_v1'"),
    # nets
    (["summary"], "MODEL is missing; see `numnet summary --help`"),
    (["summary", "mobilnet_v1"], r"expected one of mobilenet_v1.* \(did you mean mobilenet_v1\?\)"),
    (["summary", "missing.onnx"], r"missing\.onnx: no such checkpoint; expected a \.safetensors file or a run"),
    (["cost", "missing.tflite"], r"missing\.tflite: no such checkpoint"),
    (["summary", "missing.H5"], r"missing\.H5: no such checkpoint"),
    (["summary", "mobilenet_v1", "--widht", "1"], r"has no option --widht \(did you mean --width\?\)"),
    (["summary", "mobilenet_v1", "--width"], "--width: expected one argument"),
    (["summary", "mobilenet_v1", "--width", "0"], "--width: expected a number above 0, at most 8, got '0'"),
    (["summary", "mobilenet_v1", "--width", "wide"], "--width: expected a number .*, got 'wide'"),
    (["summary", "mobilenet_v1", "--width", "nan"], "--width: expected a number .*, got 'nan'"),
    (["summary", "mobilenet_v1", "--resolution", "0"], "--resolution: expected an integer of at least 1, got '0'"),
    (["summary", "mobilenet_v1", "--resolution", "1.5"], "--resolution: expected an integer .*, got '1.5'"),
    (["summary", "mobilenet_v1", "--classes", "-1"], "--classes: expected"),
    (["summary", "mobilenet_v1", "--padding", "valid"], "--padding: expected one of same, symmetric, got 'valid'"),
    (["summary", "mobilenet_v1", "--strides", "cifr"], r"--strides: .*got 'cifr' \(did you mean cifar\?\)"),
    (["summary", "mobilenet_v1", "--variant", "tf"], "--variant: expected one of keras, torch, paddle, got 'tf'"),
    (["summary", "mobilenet_v1", "--dropout", "1"], "--dropout: expected a number at least 0, below 1, got '1'"),
    (["summary", "mobilenet_v1", "--set", "shallow"], "--set: expected KEY=VALUE, got 'shallow'"),
    (["summary", "mobilenet_v1", "--set", "shalow=true"], r"no option 'shalow' \(did you mean shallow\?\)"),
    (["summary", "mobilenet_v1", "--set", "width=2", "--width", "1"], "--set width: expected --width instead"),
    (["summary", "mobilenet_v1", "--set", "activation=rulu"], "rulu"),
    (["summary", "mobilenet_v1", "--set", "dtype=float16"], "expected float32 or float64, got 'float16'"),
    (["summary", "mobilenet_v1", "--set", "depth_multiplier=x"], "depth_multiplier: expected an integer"),
    (["summary", "vgg16", "--width", "0.5"], "width: vgg16 has no such choice"),
    (["cost", "mobilenet_v1", "--json", "--csv"], "expected --json or --csv, got both"),
    (["cost", "mobilenet_v1", "--time", "--csv"], "--time: a prediction for whole nets, not with --csv"),
    (["cost", "--time", "--block", "conv:7x7x3:8"], "--time: a prediction for whole nets, not with --block"),
    (["cost", "mobilenet_v1", "--plot", "nowhere/cost.png"], "--plot: no folder nowhere for cost.png"),
    (["cost", "mobilenet_v1", "--plot", "folder.png"], "--plot: folder.png is a folder"),
    (["cost", "mobilenet_v1", "--plot", "cost.xyz"], "--plot: expected a name that ends in .png, .pdf, .svg, got 'cost.xyz'"),
    # train
    (["train"], "expected a data set .* or --resume RUN_DIR"),
    (["train", "cifr10"], r"data set: expected .*, got 'cifr10' \(did you mean cifar10\?\)"),
    (["train", "nowhere"], "expected cifar10, shapes or the path of an image folder, got 'nowhere'"),
    (["train", "empty"], "no class folders"),
    (["train", "one class"], "only one class folder, cats"),
    (["train", "cifar10", "--data", "empty"], "empty: no CIFAR-10 in it"),
    ([*TRAIN, "--recipe", "cifar"], r"unknown recipe 'cifar' \(did you mean cifar10\?\)"),
    ([*TRAIN, "--recipe", "nowhere.json"], "recipe nowhere.json: no such file"),
    ([*TRAIN, "--recipe", "text.json"], "recipe text.json: not JSON"),
    ([*TRAIN, "--recipe", "unknown.json"], r"unknown key 'epocs' \(did you mean epochs\?\)"),
    ([*TRAIN, "--epochs", "0"], "--epochs: expected an integer ≥ 1, got '0'"),
    ([*TRAIN, "--lr", "fast"], "--lr: expected a number > 0, or none, got 'fast'"),
    ([*TRAIN, "--lr", "-1"], "--lr: expected a number > 0, or none, got '-1'"),
    ([*TRAIN, "--lr", "inf"], "--lr: expected a number > 0, or none, got 'inf'"),
    ([*TRAIN, "--batch-size", "12.5"], "--batch-size: expected an integer ≥ 1, got '12.5'"),
    ([*TRAIN, "--optimiser", "sdg"], r"--optimiser: expected one of sgd.*got 'sdg' \(did you mean sgd\?\)"),
    ([*TRAIN, "--optimizer", "sdg"], "--optimiser: expected one of sgd"),
    ([*TRAIN, "--optimiser", "adam", "--momentum", "0.5"], "the optimiser adam has no momentum"),
    ([*TRAIN, "--schedule", "cosin"], r"--schedule: .*\(did you mean cosine\?\)"),
    ([*TRAIN, "--schedule", "cosine", "--gamma", "0.5"], "the schedule cosine has no gamma"),
    ([*TRAIN, "--milestones", "1,x"], "--milestones: expected a list of epochs, got '1,x'"),
    ([*TRAIN, "--warmup", "99"], "a warm-up of 99 epochs does not fit into a training of 2"),
    ([*TRAIN, "--ema", "1"], "--ema: expected a number ≥ 0 and < 1, or none, got '1'"),
    ([*TRAIN, "--seed", "-1"], "--seed: expected an integer ≥ 0, got '-1'"),
    ([*TRAIN, "--scaling", "unti"], r"--scaling: expected one of .*\(did you mean unit\?\)"),
    ([*TRAIN, "--preset", "crop"], "--preset: expected one of torchvision"),
    ([*TRAIN, "--crop", "-1"], "--crop: expected a number of pixels, got '-1'"),
    ([*TRAIN, "--no-augment", "--crop", "2"], "--no-augment: cannot be used with --crop"),
    ([*TRAIN, "--progressive", "half"], "--progressive: expected a list of .*, or none, got 'half'"),
    ([*TRAIN, "--progressive", "[[0.5,0.7],[0.7,0.4]]"], "--progressive: .* together less than all epochs"),
    ([*TRAIN, "--border", "reflct"], r"one of zero, reflect, got 'reflct' \(did you mean reflect\?\)"),
    ([*TRAIN, "--no-augment", "--border", "reflect"], "--no-augment: cannot be used with --border"),
    ([*TRAIN, "--validation", "99"], "99 images cannot be held back"),
    ([*TRAIN, "--memory", "lots"], "memory: expected bytes, or a size like 500M or 4G, got 'lots'"),
    ([*TRAIN, "--threads", "0"], "--threads: expected an integer of at least 1, got '0'"),
    ([*TRAIN, "--threads", "9999"], "--threads: expected 1 to .*, got 9999"),
    ([*TRAIN, "--model", "mobilenet"], "model: expected one of mobilenet_v1"),
    ([*TRAIN, "--set", "shalow=1"], "(un)?known|no option"),
    ([*TRAIN, "--set", "classes=2"], "has 2 output classes, photos has 3|has 2 output classes, .*photos has 3"),
    ([*TRAIN, "--out", "run"], "run holds a run already; go on with `numnet train --resume run`"),
    ([*TRAIN, "--out", "text.png"], "cannot write to the run directory text.png"),
    (["train", "--resume", "nowhere"], "nowhere: no such checkpoint"),
    (["train", "--resume", "empty"], "empty: no run in this directory"),
    (["train", "--resume", "own.safetensors"], "expected a run directory, got the file own.safetensors"),
    (["train", "--resume", "run", "--lr", "0.1"], "expected no --lr"),
    (["train", "shapes", "--resume", "run"], "expected no data set 'shapes'"),
    (["train", "photos", "--data", "elsewhere"], "--data: says where CIFAR-10 lies; photos is a path itself"),
    (["eval", "run", "photos", "--data", "elsewhere"], "--data: says where CIFAR-10 lies; photos is a path itself"),
    # what other programs have
    (["train", "shapes", "--device", "cuda"], "has no option --device: numnet computes on the processor's cores, all"),
    (["train", "--workers=8", "shapes"], "has no option --workers: images are decoded ahead by threads of their own"),
    (["predict", "run", "photos/test/red/0.png", "--gpu", "0"], "numnet predict has no option --gpu: numnet computes on"),
    (["eval", "run", "photos", "-j", "4"], "has no option -j: images are decoded ahead"),
    (["train", "shapes", "--early-stopping"], "has no option --early-stopping: --patience E ends after"),
    ([*TRAIN, "--mixup", "2"], "--mixup: expected a number at least 0, at most 1, got '2'"),
    # eval and predict
    (["eval", "run"], "DATASET is missing"),
    (["eval", "nowhere.safetensors", "shapes"], "nowhere.safetensors: no such checkpoint"),
    (["eval", "text.safetensors", "shapes"], "text.safetensors: .*no safetensors file"),
    (["eval", "strange.safetensors", "shapes"], "no checkpoint of a net"),
    (["eval", "newer.safetensors", "shapes"], "has format 99, this numnet reads up to 2"),
    (["eval", "own.safetensors", "shapes"], "a custom net"),
    (["eval", "other.safetensors", "shapes"], "mobilenet_v9"),
    (["eval", "bare.safetensors", "shapes"], "params/stem.weight is missing"),
    (["eval", "run", "four", "--by-position"], "has 3 output classes, four has 4"),
    (["eval", "run", "photos", "--split", "all the rest"], "--split: expected one of train, validation, test, all"),
    (["eval", "run", "shapes", "--split", "validation"], "shapes has train and test images"),
    (["eval", "run", "nowhere"], "data set: expected cifar10, shapes or the path"),
    (["eval", "run", "photos", "--figure", "nowhere/x.png"], "--figure: no folder nowhere"),
    (["predict", "nowhere.jpg"], "nowhere.jpg: no such file, expected an image file"),
    (["predict", "run"], "expected image files after the checkpoint run"),
    (["predict", "empty", "photos/test/red/0.png"], "empty: no run in this directory"),
    (["predict", "run", "nowhere.png"], "nowhere.png: no such file, expected an image file"),
    (["predict", "run", "empty"], "empty: a folder without images, expected .jpg"),
    (["predict", "run", "nothing*.png"], r"nothing\*.png: no file has such a name"),
    (["predict", "run", "--list", "nowhere.txt"], "--list: nowhere.txt: no such file"),
    (["predict", "run", "photos", "--json", "--csv"], "--csv: cannot be used with --json"),
    (["predict", "run", "text.png"], "text.png: not an image that can be read"),
    (["predict", "run", "photos/test/red/0.png", "--top", "0"], "--top: expected an integer of at least 1, got '0'"),
    (["predict", "run", "photos/test/red/0.png", "--scaling", "x"], "--scaling: expected one of"),
    # info, sweep
    (["info", "nowhere"], "nowhere: no such checkpoint"),
    (["info", "text.safetensors"], "no safetensors file"),
    (["info", "other.safetensors"], "other.safetensors: .*mobilenet_v9"),
    (["sweep", "nowhere.json"], "nowhere.json: cannot be read"),
    (["sweep", "text.json"], "text.json: not JSON"),
    (["sweep", "twice.json"], "two runs have the name 'a'"),
    # bench
    (["bench", "train-v1"], r"no workload 'train-v1' \(did you mean train-v1-"),
    (["bench", "--sides", "tensorflow"], "--sides: expected some of numnet, pytorch"),
    (["bench", "--sides", "pytorh"], r"\(did you mean pytorch\?\)"),
    (["bench", "--values", "1,2"], "--values: needs --sweep as well"),
    (["bench", "--sweep", "depth"], "--sweep: expected one of width, resolution, batch, threads, got 'depth'"),
    (["bench", "--sweep", "width", "--values", "1,x"], "--values: expected a number .*, got 'x'"),
    (["bench", "--sweep", "batch", "--values", "1,0.5"], "--values: expected an integer of at least 1, got '0.5'"),
    (["bench", "--sweep", "batch", "depthwise-mobilenet_v2"], "--sweep: expected workloads of training or inference"),
    (["bench", "--seconds", "0"], "--seconds: expected a number above 0, got '0'"),
    (["bench", "--rounds", "none"], "--rounds: expected an integer of at least 1, got 'none'"),
]  # fmt: skip


@pytest.mark.parametrize(
    "arguments, message", MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_mistakes(wrong, monkeypatch, arguments, message):
    """One line on standard error that says what is wrong, nothing on standard output, exit code 2."""
    monkeypatch.chdir(wrong)
    code, out, err = numnet(*arguments)
    assert code == 2 and out == "", err
    assert err.startswith("numnet: error: ") and err.count("\n") == 1 and err.endswith("\n"), err
    assert re.search(message, err), err
    assert not (wrong / "never" / "metrics.jsonl").exists(), "nothing was begun"
    shutil.rmtree(wrong / "never", ignore_errors=True)
