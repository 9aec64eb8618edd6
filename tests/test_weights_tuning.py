"""Fine-tuning: --init takes a net over, --freeze leaves every bit of it alone."""

import json

import numpy as np
import pytest
from test_weights import one_line, random_net

import numnet
from numnet.cli import main
from numnet.data.split import ArraySplit, Dataset
from numnet.errors import NumnetError
from numnet.training.optimisers import OPTIMISERS

BLOCK = "block3"
SCALING = {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.5, 0.2]}


def tiny(classes=3, count=24, resolution=32):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, resolution, resolution, 3), dtype=np.uint8)
    split = ArraySplit(images, np.arange(count) % classes)
    return Dataset("tiny", [str(i) for i in range(classes)], split, split, (0.5,) * 3, (0.25,) * 3)


def frozen_part(net, block=BLOCK):
    names = [layer.name for layer in net.layers]
    kept = names[: names.index(block) + 1]
    return {
        name: array.copy() for name, array in net.state().items() if name.split("/")[1].split(".")[0] in kept
    }


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_no_frozen_bit_changes(optimiser):
    net = random_net("mobilenet_v2")
    before, all_before = frozen_part(net), {name: array.copy() for name, array in net.state().items()}
    assert len(before) > 20
    numnet.fit(
        net, tiny(), epochs=2, batch_size=8, optimiser=optimiser, lr=0.01, weight_decay=0.1, freeze=BLOCK,
        clip_norm=1.0, ema=0.9, accumulate=2, progress=False,
    )  # fmt: skip
    after = net.state()
    assert all(np.array_equal(after[name], array) for name, array in before.items())
    changed = [name for name, array in all_before.items() if not np.array_equal(after[name], array)]
    assert set(all_before) - set(changed) == set(before)


def test_frozen_layers_run_as_in_inference():
    """The gradients behind are those of a net whose first layers are in inference; a frozen net has no dx."""
    net = random_net("mobilenet_v2")
    x = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    net.freeze(BLOCK)
    moved = net.flat_buffers.copy()
    logits = net.forward(x, training=True)
    assert net.backward(np.ones_like(logits)) is None
    kept = frozen_part(net)
    assert all(not net.grads[n.split("/")[1]].any() for n in kept if n.startswith("params/"))
    assert all(net.grads[n].any() for n in net.grads if n.endswith("weight") and f"params/{n}" not in kept)
    start = sum(array.size for name, array in kept.items() if name.startswith("buffers/"))
    assert np.array_equal(net.flat_buffers[:start], moved[:start])
    assert not np.array_equal(net.flat_buffers[start:], moved[start:])


def test_the_head_alone_and_its_memory():
    """Everything before the last layer frozen: no gradient map is left on loan."""
    net = random_net("mobilenet_v1")
    net.freeze("block13")
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    for _ in range(3):
        net.backward(np.ones((2, 7), np.float32) * net.forward(x, training=True))
        assert not net.layers[0].workspace._lent
    assert net.grads["logits.weight"].any()


def test_what_cannot_be_frozen():
    net = random_net("mobilenet_v1")
    with pytest.raises(NumnetError) as excinfo:
        net.freeze("block77")
    one_line(excinfo, "no block 'block77', expected one of stem, block1")
    with pytest.raises(NumnetError, match="nothing of the net is left to train after logits"):
        net.freeze("logits")
    assert net.frozen == 0, "a refusal leaves the net as it was"


def test_what_net_freeze_froze_stays_so_in_a_fit(capsys):
    """Averages included; the settings know it, and a line says it. ``freeze(None)`` thaws."""
    net = random_net("mobilenet_v1")
    whole = net.decay_mask.copy()
    net.freeze(BLOCK)
    before = frozen_part(net)
    history = numnet.fit(
        net, tiny(), epochs=2, batch_size=8, lr=0.01, weight_decay=0.1, ema=0.9, progress=False
    )
    assert all(np.array_equal(net.state()[name], array) for name, array in before.items())
    assert f"{BLOCK} and all before it stay frozen" in capsys.readouterr().err and history
    net.freeze("stem")
    other = random_net("mobilenet_v1")
    other.freeze("stem")
    assert np.array_equal(net.decay_mask, other.decay_mask), "what thaws decays again"
    net.freeze(None)
    assert np.array_equal(net.decay_mask, whole) and net.frozen == 0
    numnet.fit(net, tiny(), epochs=1, batch_size=8, lr=0.01, progress=False)
    assert not any(np.array_equal(net.state()[n], a) for n, a in before.items() if n.endswith("stem.weight"))


@pytest.fixture
def trained(tmp_path):
    """A checkpoint of a net for 7 classes with a scaling of its own."""
    net = random_net("mobilenet_v1", bn_momentum=0.99)
    net.save(tmp_path / "start.safetensors", input=SCALING)
    return tmp_path / "start.safetensors", net


def start_run(trained, out, *options, classes=10):
    """`train shapes --init`, stopped before it takes a step: what the net starts from."""
    file, _ = trained
    common = ["--epochs", "1", "--batch-size", "256", "--validation", "200", "--quiet", "--no-augment"]
    assert main(["train", "shapes", "--init", file, "--out", out, *common, *options]) == 0


@pytest.fixture
def seen(monkeypatch):
    """A dict with the last ``run``, of which none takes a step."""
    from numnet.training.loop import Run

    seen = {}
    monkeypatch.setattr(Run, "train", lambda run, resume: (seen.update(run=run), setattr(run, "result", {})))
    monkeypatch.setattr("numnet.cli.train._report", lambda *arguments, **options: None)
    return seen


def test_the_command_takes_the_net_over(trained, tmp_path, seen):
    file, old = trained
    start_run(trained, tmp_path / "run", "--freeze", BLOCK)
    run = seen["run"]
    net, config = run.net, run.net.config
    assert net.classes == len(run.data.classes) != old.classes
    for name, array in net.params.items():
        assert np.array_equal(array, old.params[name]) == (not name.startswith("logits.")), name
    assert np.array_equal(net.flat_buffers, old.flat_buffers)
    assert run.scaling == SCALING and config["width"] == 0.25 and config["resolution"] == 32
    assert "bn_momentum" not in config and run.meta["init"] == str(file)
    assert run.meta["reading"]["options"]["input_scaling"] == SCALING and net.frozen == 4
    start_run(trained, tmp_path / "run2", "--scaling", "unit", "--dropout", "0.3")
    assert seen["run"].scaling["std"] == [1.0, 1.0, 1.0]
    assert seen["run"].net.config["dropout"] == 0.3


def test_the_first_weights_of_a_built_net_are_taken_over(tmp_path, seen, capsys):
    file, sizes = tmp_path / "built.safetensors", ["--width", "0.25", "--resolution", "32", "--classes", "10"]
    assert main(["build", "mobilenet_v1", *sizes, "--seed", "7", "-o", file]) == 0
    start_run((file, None), tmp_path / "run", "--seed", "3")
    built, net = numnet.load(file), seen["run"].net
    assert net.classes == built.classes and np.array_equal(net.flat, built.flat)
    assert not np.array_equal(net.flat, numnet.build(**{**built.config, "seed": 3}).flat)
    assert "by position" not in capsys.readouterr().err, "nobody has taught these outputs anything"


@pytest.mark.parametrize(
    "options, words",
    [
        (["--freeze", "block77"], "no block 'block77'"),
        (["--width", "0.5"], "--init"),
        (["--init", "nowhere.safetensors"], "nowhere.safetensors: no such checkpoint"),
    ],
)
def test_the_command_s_mistakes(trained, options, words, tmp_path, capsys):
    file, _ = trained
    assert (
        main(["train", "shapes", "--init", file, "--out", tmp_path / "run", "--epochs", "1", *options]) == 2
    )
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words in error
    assert not (tmp_path / "run").exists()


def test_an_image_folder_from_the_start_to_the_resumed_end(trained, tmp_path, capsys):
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 2)):
        for name in ("a", "b"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / split / name / f"{i}.png")
    file, old = trained
    out = tmp_path / "run"
    command = ["train", tmp_path / "set", "--init", file, "--freeze", BLOCK, "--out", out, "--epochs", "1"]
    assert main([*command, "--batch-size", "4", "--validation", "0", "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["epochs"] == 1
    net = numnet.load(out)
    assert net.classes == 2 and net.scaling == SCALING
    mine, theirs = frozen_part(net), frozen_part(old)
    assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)
    file.unlink()
    assert main(["train", "--resume", out, "--quiet"]) == 0  # needs no more than the run directory
