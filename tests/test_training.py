"""The loop: it learns, resumes bit for bit from any step, stops when told, and says what is wrong."""

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import training_fakes as fakes
from training_fakes import StopAt

from numnet import Net, checkpoint
from numnet.data.split import ArraySplit
from numnet.errors import NumnetError
from numnet.loading import read_document
from numnet.training import state
from numnet.training.loop import DEFAULTS, Callback, Run, fit

SETTINGS = dict(
    epochs=3, batch_size=32, lr=0.1, label_smoothing=0.1, weight_decay=1e-3, seed=5, progress=False
)
TIMES = ("seconds", "images_per_second", "data_seconds", "train_seconds", "checkpoint", "busy")


def run(out=None, net=None, data=None, **settings):
    net = net or fakes.make_net()
    history = fit(net, data or fakes.make_data(), out=out, **{**SETTINGS, **settings})
    return net, history


def timeless(record):
    return {key: value for key, value in record.items() if key not in TIMES}


def assert_same_run(a, b):
    """Two run directories agree in every bit of every array and in every number that is not a time."""
    for name in ("last.safetensors", "best.safetensors"):
        (x, x_meta), (y, y_meta) = checkpoint.read(a / name), checkpoint.read(b / name)
        assert x.keys() == y.keys()
        for key in x:
            assert x[key].tobytes() == y[key].tobytes(), f"{name}: {key}"
        x_meta, y_meta = (m["training"] for m in (x_meta, y_meta))
        history = [[timeless(record) for record in meta.pop("history", [])] for meta in (x_meta, y_meta)]
        assert history[0] == history[1] and timeless(x_meta) == timeless(y_meta)
    lines = [
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] for path in (a, b)
    ]
    assert [timeless(line) for line in lines[0]] == [timeless(line) for line in lines[1]]
    results = [timeless(json.loads((path / "result.json").read_text())) for path in (a, b)]
    assert results[0] == results[1]


def killed(out, at, **settings):
    with pytest.raises(StopAt.Killed):
        run(out, callbacks=[StopAt(at)], **settings)


# ------------------------------------------------------------------------------------------- learning


def test_it_learns(tmp_path):
    _, history = run(tmp_path / "run", epochs=12)
    assert (
        history[-1]["validation_accuracy"] > 0.9
        and history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]
    )
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test_accuracy"] > 0.9 and result["epochs"] == 12
    assert 0 < result["train_seconds"] < 60 and result["images_per_second"] > 0
    assert result["validation_accuracy"] == max(record["validation_accuracy"] for record in history)
    assert Path(result["checkpoint"]) == tmp_path / "run" / "best.safetensors"


def test_metrics_have_the_agreed_keys(tmp_path):
    _, history = run(tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines == history and [line["epoch"] for line in lines] == [1, 2, 3]
    assert set(lines[0]) == {
        "epoch", "lr", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "seconds",
        "images_per_second", "data_seconds",
    }  # fmt: skip


def test_the_first_loss_is_log_classes():
    """A step of no length, so the epoch's loss is that of the untrained net; with small weights log 4."""
    net = fakes.make_net()
    net.flat *= 1e-3
    _, history = run(net=net, epochs=1, lr=1e-12)
    assert history[0]["train_loss"] == pytest.approx(math.log(4), abs=1e-3)


def test_validation_is_what_predict_says():
    from numnet.kernels.loss import softmax_cross_entropy

    data = fakes.make_data()
    net, history = run(data=data)
    x = (data.validation.images / np.float32(255) - np.float32(0.4)) / np.float32(0.25)
    logits = net.predict(x)
    assert history[-1]["validation_accuracy"] == (logits.argmax(axis=1) == data.validation.labels).mean()
    loss = softmax_cross_entropy(logits, data.validation.labels)[0]
    assert history[-1]["validation_loss"] == pytest.approx(loss, rel=1e-6)


def test_the_best_is_kept_and_tested(tmp_path):
    """The net is wiped out in the last epoch: best.safetensors and the test accuracy are of an earlier one."""
    after = {}

    class Wipe(Callback):
        def on_step(self, run, loss):
            if run.epoch == 5:
                run.net.flat[:] = 0

        def on_epoch(self, run, record):
            after[record["epoch"]] = {name: array.copy() for name, array in run.net.state().items()}

    net, history = run(tmp_path / "run", epochs=6, callbacks=[Wipe()])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    accuracies = [record["validation_accuracy"] for record in history]
    assert (
        accuracies[-1] < 0.5 < max(accuracies) == result["validation_accuracy"]
        and result["test_accuracy"] > 0.5
    )
    best = max(history, key=lambda record: (record["validation_accuracy"], -record["validation_loss"]))[
        "epoch"
    ]
    tensors, meta = checkpoint.read(tmp_path / "run" / "best.safetensors")
    assert result["best_epoch"] == meta["training"]["epoch"] == best < 6
    assert all(np.array_equal(tensors[name], array) for name, array in after[best].items())
    assert not net.flat.any()  # the net itself is as the training left it


def test_without_validation_the_latest_is_the_best(tmp_path):
    data = fakes.make_data()
    data.validation = None
    net, history = run(tmp_path / "run", data=data)
    assert history[-1]["validation_loss"] is None and history[-1]["validation_accuracy"] is None
    tensors, meta = checkpoint.read(tmp_path / "run" / "best.safetensors")
    assert meta["training"]["epoch"] == 3
    assert all(np.array_equal(tensors[name], array) for name, array in net.state().items())


def test_same_seed_same_bits_other_seed_other_bits():
    a, b, c = run()[0], run()[0], run(seed=6)[0]
    assert a.flat.tobytes() == b.flat.tobytes() and a.flat.tobytes() != c.flat.tobytes()


def test_weight_decay_spares_biases():
    net, settings = fakes.make_net(), dict(epochs=1, batch_size=200, lr=0.5, weight_decay=0.1, momentum=0.0)
    before = {name: p.copy() for name, p in net.params.items()}

    class NoGradient(Callback):
        def on_gradient(self, run):
            run.net.flat_grad[:] = 0

    net.params["hidden.bias"][:] = before["hidden.bias"][:] = 1
    run(net=net, schedule="constant", callbacks=[NoGradient()], **settings)
    np.testing.assert_allclose(net.params["hidden.weight"], 0.95 * before["hidden.weight"], rtol=1e-6)
    assert np.array_equal(net.params["hidden.bias"], before["hidden.bias"])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_accumulation_equals_one_batch_where_images_do_not_meet(dropout):
    """4 and 8 parts against one, in float64; dropout draws the whole batch's masks.

    Batches of 128 and of 75 images: the second one is cut into unequal parts.
    """
    settings = dict(batch_size=128, epochs=3, data=fakes.make_data(train=203))
    nets = [
        run(net=fakes.make_net(fakes.Flat, dtype="float64", dropout=dropout), accumulate=parts, **settings)[0]
        for parts in (1, 4, 8)
    ]
    for net in nets[1:]:
        assert np.abs(net.flat - nets[0].flat).max() <= 1e-12 * np.abs(nets[0].flat).max()
        assert net.step == nets[0].step
    centered = [run(net=fakes.make_net(dtype="float64"), accumulate=parts, **settings)[0] for parts in (1, 4)]
    # Where images meet, parts are other batches
    assert np.abs(centered[0].flat - centered[1].flat).max() > 1e-6


def test_clipping_is_felt():
    class Length(Callback):
        lengths = []

        def on_step(self, run, loss):
            self.lengths.append(float(np.linalg.norm(run.net.flat_grad)))

    run(clip_norm=0.05, callbacks=[Length()])
    assert max(Length.lengths) <= 0.05 * (1 + 1e-6) and max(Length.lengths) > 0.049


def test_ema_is_evaluated_saved_and_handed_over(tmp_path):
    net, history = run(tmp_path / "run", ema=0.9, epochs=6)
    assert history[-1]["ema_validation_accuracy"] is not None
    last, _ = checkpoint.read(tmp_path / "run" / "last.safetensors")
    assert np.array_equal(net.flat, last["ema/params"]) and np.array_equal(
        net.flat_buffers, last["ema/buffers"]
    )
    assert not np.array_equal(net.params["hidden.weight"], last["params/hidden.weight"])
    _, meta = checkpoint.read(tmp_path / "run" / "best.safetensors")
    assert meta["training"]["accuracy"] == max(record["ema_validation_accuracy"] for record in history)


def test_the_net_is_what_its_training_made_of_it(tmp_path):
    """Whatever it was loaded from; also where a finished run is taken up again."""
    data, out = fakes.make_data(), tmp_path / "run"
    for more in ({}, {"out": out}, {"out": out, "resume": True}):
        net = fakes.make_net()
        net.document = {"untrained": ["logits"], "digest": "old", "recipe": {"epochs": 9}}
        net.scaling, net.class_names = {"mean": [0.5] * 3, "std": [0.5] * 3}, list("wxyz")
        run(net=net, data=data, **more)
        assert not {"untrained", "digest"} & set(net.document) and net.document["dataset"] == "quarters"
        assert net.document["recipe"]["epochs"] == 3 and net.scaling == data.scaling
        assert net.class_names == data.classes
        net.save(tmp_path / "net.safetensors")
        document = checkpoint.read_meta(tmp_path / "net.safetensors")
        assert document["input"] == data.scaling and document["recipe"] == net.document["recipe"]


@pytest.mark.parametrize("moment", ["on_start", "on_step", "on_epoch"])
def test_a_net_that_is_saved_while_it_trains_knows_this_training(tmp_path, moment):
    """Also one whose training was broken off: not the names and the scaling of what it was loaded from."""
    file, data = tmp_path / "net.safetensors", fakes.make_data()

    def save(run, *_):
        run.net.save(file)
        raise KeyboardInterrupt

    saves = Callback()
    setattr(saves, moment, save)
    net = fakes.make_net()
    net.document, net.class_names = {"untrained": ["logits"], "digest": "old"}, list("wxyz")
    net.scaling = {"mean": [0.5] * 3, "std": [0.5] * 3}
    with pytest.raises(KeyboardInterrupt):
        run(net=net, data=data, callbacks=[saves])
    document = checkpoint.read_meta(file)
    assert document["classes"] == net.class_names == data.classes and document["input"] == data.scaling
    assert document["dataset"] == "quarters" and not {"untrained", "digest"} & set(document)


@pytest.mark.parametrize("classes", [["a", "b", "c", "d", "e", "f"], [0, 1, 2, 3], np.arange(6)])
def test_names_of_classes_are_texts_and_no_more_than_outputs(tmp_path, capsys, classes):
    """Else the net's files could not be loaded, or not even be written."""
    data, names = fakes.make_data(), [str(name) for name in classes][:4]
    data.classes, out = classes, tmp_path / "run"
    net, _ = run(out, data=data, epochs=1, class_weights={names[1]: 2.0})
    net.save(tmp_path / "net.safetensors")
    for file in (tmp_path / "net.safetensors", out / "best.safetensors", out / "last.safetensors"):
        assert read_document(file)["classes"] == net.class_names == names
    run(out, net=net, data=data, epochs=1, class_weights={names[1]: 2.0}, resume=True)
    assert "the net was trained on" not in capsys.readouterr().err
    assert json.loads((out / "result.json").read_text())["test_worst"]["label"] in names


def test_a_run_whose_checkpoint_names_more_classes_than_outputs_goes_on(tmp_path):
    """An older numnet wrote those."""
    data, last = fakes.make_data(), tmp_path / "run" / "last.safetensors"
    data.classes = list("abcdef")
    killed(tmp_path / "run", 9, data=data)
    tensors, document = checkpoint.read(last)
    checkpoint.write(last, tensors, {**document, "classes": data.classes})
    run(tmp_path / "run", data=data, resume=True)
    assert checkpoint.read_meta(last)["classes"] == list("abcd")


def test_callbacks():
    calls = []

    class Recorder(Callback):
        def on_start(self, run):
            calls.append(("start", run.step))

        def on_epoch(self, run, record):
            calls.append(("epoch", record["epoch"], run.step))
            run.stop = record["epoch"] == 2

        def on_end(self, run, result):
            calls.append(("end", len(run.history)))

    records = []
    _, history = run(callbacks=[Recorder(), records.append])
    assert calls == [("start", 0), ("epoch", 1, 7), ("epoch", 2, 14), ("end", 2)]
    assert records == history and len(history) == 2


# ------------------------------------------------------------------------------------------- smaller images first


GROWING = {"epochs": 4, "progressive": [[0.3, 0.25], [0.7, 0.25]], "augment": {"crop": 2, "flip": True}}


def test_smaller_images_first(tmp_path):
    """A quarter of the epochs at 2×2, a quarter at 4×4, the rest and all validation at the net's own 6×6."""
    net, history = run(tmp_path / "run", fakes.make_net(fakes.Quarters), **GROWING)
    assert net.layers[0].seen == [2] * 7 + [4] * 7 + [6] * 14
    assert [record["resolution"] for record in history] == [2, 4, 6, 6]
    assert net.input_shape == (6, 6, 3)
    assert history[0]["validation_accuracy"] is not None
    plain = run(net=fakes.make_net(fakes.Quarters), epochs=4)[1]
    assert "resolution" not in plain[0]


@pytest.mark.parametrize("at", [3, 7, 12, 20])
def test_smaller_images_first_killed_and_resumed(tmp_path, at):
    run(tmp_path / "whole", fakes.make_net(fakes.Quarters), **GROWING)
    killed(tmp_path / "run", at, net=fakes.make_net(fakes.Quarters), checkpoint_every=0, **GROWING)
    run(tmp_path / "run", fakes.make_net(fakes.Quarters), resume=True, **GROWING)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_images_that_are_not_square():
    """Trained as they are; smaller ones first are refused."""
    data = fakes.make_data()
    for name in ("train", "validation", "test"):
        split = getattr(data, name)
        setattr(data, name, ArraySplit(split.images[:, :, :4], split.labels))

    def net():
        return Net([fakes.Quarters(name="first"), fakes.Linear(4, name="logits")], (6, 4, 3))

    trained, _ = run(net=net(), data=data)
    assert trained.input_shape == (6, 4, 3)
    with pytest.raises(
        NumnetError, match="progressive: is for square images, this net takes 6×4; expected none"
    ):
        run(net=net(), data=data, progressive=[[0.7, 0.5]])


def test_a_net_of_one_size_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(NumnetError, match="weights are for images of 6×6, they do not fit 4×4"):
        run(tmp_path / "run", progressive=[[0.7, 0.5]])
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------- resume


PLAIN, RICH = {}, {"ema": 0.95, "optimiser": "adam", "lr": 0.003, "accumulate": 3}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs that nobody disturbed, by their settings."""
    done = {}

    def get(**settings):
        key = json.dumps(settings)
        if key not in done:
            done[key] = tmp_path_factory.mktemp("whole") / "run"
            run(done[key], **settings)
        return done[key]

    return get


@pytest.mark.parametrize(
    "at, every, more",
    [(1, 0, PLAIN), (4, 0, PLAIN), (7, 0, PLAIN), (8, 0, PLAIN), (13, None, PLAIN), (21, 0, PLAIN)]
    + [(1, None, RICH), (10, 0, RICH), (14, 0, RICH)],
)
def test_killed_at_any_step_and_resumed(tmp_path, whole, at, every, more):
    """Seven batches an epoch: killed in the first, in the middle, in the last; saved each step or not."""
    killed(tmp_path / "run", at, checkpoint_every=every, **more)
    _, history = run(tmp_path / "run", resume=True, **more)
    assert_same_run(whole(**more), tmp_path / "run")
    assert len(history) == 3


def test_killed_twice(tmp_path, whole):
    killed(tmp_path / "run", 5, checkpoint_every=0)
    killed(tmp_path / "run", 12, checkpoint_every=0, resume=True)
    run(tmp_path / "run", resume=True)
    assert_same_run(whole(), tmp_path / "run")


def test_train_seconds_add_up(tmp_path):
    class Slow(Callback):
        def on_step(self, run, loss):
            time.sleep(0.02)

    with pytest.raises(StopAt.Killed):
        run(tmp_path / "run", callbacks=[Slow(), StopAt(10)], checkpoint_every=0)
    time.sleep(2)  # time between two processes is nobody's
    run(tmp_path / "run", resume=True, callbacks=[Slow()])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    seconds = [
        json.loads(line)["seconds"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert 20 * 0.02 <= result["train_seconds"] and result["train_seconds"] == pytest.approx(
        sum(seconds), abs=1
    )


def test_killed_while_it_goes_back_to_a_kept_checkpoint(tmp_path, monkeypatch):
    """Between its two files: the run never takes the best net of epochs that are no longer there for its own."""
    out, copy, copied = tmp_path / "run", state._copy, []
    run(out, keep_every=1)
    best = checkpoint.read_meta(out / "best.safetensors")["training"]
    assert best["epoch"] > 1 and best != checkpoint.read_meta(out / "epoch-1.best.safetensors")["training"]

    def once(source, target):
        if copied:
            raise StopAt.Killed
        copied.append(target.name)
        copy(source, target)

    def back():
        settings = {key: value for key, value in SETTINGS.items() if key != "progress"}
        again = Run(
            fakes.make_net(), fakes.make_data(), {**settings, "keep_every": 1}, out=out, progress=False
        )
        again.back = 1
        again.train(resume=True)

    with monkeypatch.context() as killing, pytest.raises(StopAt.Killed):
        killing.setattr(state, "_copy", once)
        back()
    with pytest.raises(
        NumnetError, match=r"best.safetensors: of another epoch or run; expected the net of epoch"
    ):
        run(out, keep_every=1, resume=True)
    back()
    assert checkpoint.read_meta(out / "best.safetensors")["training"] == best


def test_lines_after_the_checkpoint_are_dropped(tmp_path, whole):
    """Killed between the line of an epoch and its checkpoint: the line is written again, not twice."""
    killed(tmp_path / "run", 10)
    (tmp_path / "run" / ".last.safetensors.1234.tmp").write_bytes(b"half a checkpoint")
    with open(tmp_path / "run" / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 2, "lr": 9}\n{"epo')
    run(tmp_path / "run", resume=True)
    assert_same_run(whole(), tmp_path / "run")
    names = {"metrics.jsonl", "metrics.csv", "last.safetensors", "best.safetensors", "result.json"}
    assert set(os.listdir(tmp_path / "run")) == names


def test_a_finished_run_is_left_alone(tmp_path):
    net, history = run(tmp_path / "run")
    before = {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "run").iterdir()
    }
    other, again = run(tmp_path / "run", resume=True)
    assert again == history and other.flat.tobytes() == net.flat.tobytes()
    assert before == {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "run").iterdir()
    }


def test_killed_before_the_test_images(tmp_path):
    run(tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    (tmp_path / "run" / "result.json").unlink()
    run(tmp_path / "run", resume=True)
    assert timeless(json.loads((tmp_path / "run" / "result.json").read_text())) == timeless(result)


def test_the_first_checkpoint_comes_before_the_first_step(tmp_path):
    class Refuse(Callback):
        def on_start(self, run):
            raise StopAt.Killed

    with pytest.raises(StopAt.Killed):
        run(tmp_path / "run", callbacks=[Refuse()])
    tensors, meta = checkpoint.read(tmp_path / "run" / "last.safetensors")
    assert meta["training"]["steps"] == 0
    assert all(np.array_equal(tensors[name], array) for name, array in fakes.make_net().state().items())


PROGRAM = """
import sys, time
sys.path.insert(0, {tests!r})
import training_fakes as fakes
from training_fakes import StopAt
from numnet.training.loop import Callback, fit

class Slow(Callback):
    def on_step(self, run, loss):
        print(run.step, flush=True)
        time.sleep(0.05)

fit(fakes.make_net(), fakes.make_data(), out={out!r}, callbacks=[Slow()], checkpoint_every={every},
    resume={resume}, **{settings!r})
"""


def start(out, every=None, resume=False, **settings):
    """The same training, slow, in a process of its own that prints each step; returned at step 9."""
    settings = {**SETTINGS, **settings}
    program = PROGRAM.format(
        tests=str(Path(__file__).parent), out=str(out), every=every, resume=resume, settings=settings
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if int(line) == 9:
            return process
    raise AssertionError(process.communicate()[1])


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_signals(tmp_path, whole, name):
    out = tmp_path / "a run"
    process = start(out, every=0 if name == "SIGKILL" else None)
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == {"SIGINT": -signal.SIGINT, "SIGTERM": 143, "SIGKILL": -signal.SIGKILL}[name]
    position = checkpoint.read_meta(out / "last.safetensors")["training"]
    assert 8 <= position["steps"] <= 10 and position["epoch"] == 1
    if name != "SIGKILL":
        assert f"numnet train --resume {shlex.quote(str(out))}" in errors
        assert f"stopped in epoch 2 after {position['batch']} of 7 batches" in errors
    assert not [path for path in out.iterdir() if path.suffix == ".tmp"] or name == "SIGKILL"
    run(out, resume=True)
    assert_same_run(whole(), out)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_handlers_come_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run(tmp_path / "run", epochs=1)
    killed(tmp_path / "killed", 3)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


# ------------------------------------------------------------------------------------------- what is said


def test_progress_goes_to_standard_error(tmp_path, capsys):
    run(tmp_path / "run", progress=True)
    out, errors = capsys.readouterr()
    assert out == ""
    assert "epoch 1/3" in errors and "epoch 3/3: loss" in errors and "validation loss" in errors
    assert "images/s" in errors and "accuracy" in errors and "100%" in errors


def test_compiling_is_announced(monkeypatch, capsys):
    """How many kernels are compiled, and of how many; nothing where all are in the cache."""
    from numnet import ahead

    said = "compiling kernels (first run only)"
    monkeypatch.setenv("NUMNET_COMPILERS", "1")
    run(epochs=1)  # what is not in the cache yet is now
    capsys.readouterr()
    run(epochs=1, progress=True)
    assert said not in capsys.readouterr().err
    monkeypatch.setattr(ahead.Call, "compiled", lambda call: False)
    monkeypatch.setattr(
        ahead,
        "compile_all",
        lambda calls, tell, stopped: [tell(n, len(calls)) for n in (0, 0, 0, len(calls))],
    )
    run(epochs=1, progress=True)
    numbers = re.findall(rf"{re.escape(said)}: (\d+) of (\d+)", capsys.readouterr().err)
    assert (
        numbers.count(("0", numbers[0][1])) == 1  # not once more for each look at the clock
        and (numbers[0][1], numbers[0][1]) in numbers
        and int(numbers[0][1]) > 1
    )


# ------------------------------------------------------------------------------------------- errors


def test_divergence_names_the_place_and_spares_the_checkpoint(tmp_path):
    class Break(Callback):
        def on_gradient(self, run):
            if run.step == 9:
                run.net.flat_grad[:] = np.nan

    with pytest.raises(
        NumnetError,
        match=r"the gradient is not finite in epoch 2, step 3 of 7, first in the gradient of logits.bias",
    ):
        run(tmp_path / "run", callbacks=[Break()], checkpoint_every=None)
    assert checkpoint.read_meta(tmp_path / "run" / "last.safetensors")["training"]["steps"] == 7


ERRORS = {
    "epochs": (dict(epochs=0), "epochs is 0; expected an integer ≥ 1"),
    "epochs float": (dict(epochs=1.5), "epochs is 1.5; expected an integer"),
    "batch size": (dict(batch_size=-1), "batch_size is -1"),
    "lr": (dict(lr=-0.1), "lr is -0.1; expected a number > 0 or null"),
    "lr nan": (dict(lr=math.nan), "lr is NaN"),
    "optimiser": (
        dict(optimiser="sdg"),
        'optimiser is "sdg"; expected one of sgd, muon, rmsprop, adam, adamw',
    ),
    "unknown": (dict(momentun=0.9), r"unknown key 'momentun' \(did you mean momentum\?\)"),
    "no momentum": (
        dict(optimiser="adam", momentum=0.9),
        "the optimiser adam has no momentum; it has lr, beta1",
    ),
    "no gamma": (dict(schedule="cosine", gamma=0.9), "the schedule cosine has no gamma; it has final"),
    "warmup": (dict(warmup=5), "a warm-up of 5 epochs does not fit into a training of 3"),
    "smoothing": (dict(label_smoothing=1), "label_smoothing is 1; expected a number ≥ 0 and < 1"),
    "augment": (dict(augment={"corp": 4}), r"unknown augmentation 'corp' \(did you mean crop\?\)"),
    "scaling": (dict(scaling="none"), 'scaling is "none"; expected one of dataset, cifar10, imagenet, keras'),
    "progressive": (dict(progressive=[[0.5, 0.6], [0.7, 0.4]]), "together less than all epochs"),
    "resume nowhere": (dict(resume=True), "resume=True needs the run directory"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_settings_that_make_no_sense(case):
    settings, message = ERRORS[case]
    with pytest.raises(NumnetError, match=message) as caught:
        run(**settings)
    assert "\n" not in str(caught.value)


def test_run_directories(tmp_path):
    with pytest.raises(NumnetError, match=r"no run to resume; expected a file last\.safetensors in it"):
        run(tmp_path, resume=True)
    run(tmp_path / "run")
    with pytest.raises(NumnetError, match=r"holds a run already; go on with `numnet train --resume .*run`"):
        run(tmp_path / "run")
    (tmp_path / "file").touch()
    with pytest.raises(NumnetError, match="cannot write to the run directory"):
        run(tmp_path / "file")
    with pytest.raises(NumnetError, match=r"this run was started with lr = 0\.1, it cannot go on with 0\.2"):
        run(tmp_path / "run", resume=True, lr=0.2)
    with pytest.raises(NumnetError, match=r"started with momentum = null, it cannot go on with 0\.8"):
        run(tmp_path / "run", resume=True, momentum=0.8)
    with pytest.raises(NumnetError, match="started with 200 training images, quarters has 100 now"):
        run(tmp_path / "run", resume=True, data=fakes.make_data(train=100))
    with pytest.raises(NumnetError, match="does not fit the net"):
        run(tmp_path / "run", resume=True, net=fakes.make_net(fakes.Flat))
    checkpoint.write(tmp_path / "last.safetensors", {}, {"format": 1})
    with pytest.raises(NumnetError, match="holds a net but no training to resume"):
        run(tmp_path, resume=True)


@pytest.mark.parametrize("name", ["best.safetensors", "result.json"])
def test_what_is_left_of_a_run_is_not_replaced_by_a_new_one(tmp_path, name):
    (tmp_path / name).write_text("of days of work")
    with pytest.raises(
        NumnetError, match=f"holds {name} of an earlier run, .*; move it or name another --out"
    ):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "of days of work"


def test_no_images(tmp_path):
    with pytest.raises(NumnetError, match="quarters: no images to train on"):
        run(data=fakes.make_data(train=0))


def test_a_label_that_the_net_has_no_output_for(tmp_path):
    data = fakes.make_data()
    data.train.labels[7] = 4
    with pytest.raises(NumnetError, match="a training image has the label 4, the net the outputs 0 to 3"):
        run(tmp_path / "run", data=data)
    assert not (tmp_path / "run").exists()


def test_numpy_numbers_are_numbers(tmp_path):
    run(tmp_path / "run", epochs=np.int64(1), lr=np.float64(0.1), batch_size=np.int32(64))
    assert checkpoint.read_meta(tmp_path / "run" / "last.safetensors")["recipe"]["batch_size"] == 64


def test_defaults_stand_in_the_signature():
    assert DEFAULTS["batch_size"] == 128 and "epochs" not in DEFAULTS and "out" not in DEFAULTS
    assert Run(fakes.make_net(), fakes.make_data(), {"epochs": 1}).settings["schedule"] == "one_cycle"
