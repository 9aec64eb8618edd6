"""A training survives: killed anywhere, a full disk, a second run in its folder, numbers that are none, closed terminals.

The long form of the first, with a MobileNet and hundreds of kills: ``python tests/long/kill_anywhere.py``.
"""

import errno
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import training_fakes as fakes
from cli_tools import TINY, start, write_images
from test_training import assert_same_run, killed, run

import numnet
from numnet import checkpoint
from numnet.errors import NumnetError
from numnet.layers import Dense, Flatten, Layer
from numnet.training.lock import Lock
from numnet.training.loop import Callback, fit

TESTS = Path(__file__).parent
LONG = TESTS / "long"


# --------------------------------------------------------------------------------------------- killed anywhere


def test_killed_anywhere(run_python, tmp_path):
    """SIGKILL at moments drawn at random and while files are written; every resume ends in the same bits."""
    said = run_python(LONG / "kill_anywhere.py", "--kills", 10, "--net", "fake", "--folder", tmp_path)
    figures = json.loads(said.splitlines()[-1])
    assert figures["kills"] >= 10 and figures["runs"] >= 1 and figures["different"] == 0
    assert figures["while writing"] >= 2 and figures.get("while resuming", 0) >= 1


# --------------------------------------------------------------------------------------------- disks


def loads(out):
    """The last checkpoint is whole."""
    assert np.isfinite(checkpoint.read(out / "last.safetensors")[0]["params/hidden.weight"]).all()
    return checkpoint.read_meta(out / "last.safetensors")["training"]["steps"]


PROGRAM = """
import numba
import resource, signal, sys
sys.path.insert(0, {tests!r})
import training_fakes as fakes
from test_training import SETTINGS
from numnet.training.loop import Callback, fit

def full():
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))

class Full(Callback):
    def on_step(self, run, loss):
        if run.step == 10:
            full()

numba.get_num_threads()  # Numba starts its threads with a semaphore, which is a file, too
if not {limit}:
    full()
fit(fakes.make_net(), fakes.make_data(), out=sys.argv[1], callbacks=[Full()], checkpoint_every=0, **SETTINGS)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on the file size")
@pytest.mark.parametrize("limit", [8000])
def test_a_disk_that_fills_up_during_a_run(run_python, tmp_path, limit):
    """No file may grow beyond the limit from step 10 on: an error that names the file, and a run that can go on."""
    script = tmp_path / "full.py"
    script.write_text(PROGRAM.format(tests=str(TESTS), limit=limit))
    errors = run_python(script, tmp_path / "run", fails=True)
    assert "NumnetError: cannot write" in errors and "last.safetensors: File too large" in errors
    assert loads(tmp_path / "run") == 9 and not list((tmp_path / "run").glob("*.tmp"))
    run(tmp_path / "whole")
    run(tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on the file size")
def test_a_disk_that_is_full_from_the_start(run_python, tmp_path):
    """Not even the lock can be written; nothing stays behind."""
    script = tmp_path / "full.py"
    script.write_text(PROGRAM.format(tests=str(TESTS), limit=0))
    errors = run_python(script, tmp_path / "run", fails=True)
    assert errors.splitlines()[-1].endswith(
        f"cannot write to the run directory {tmp_path / 'run'}: File too large"
    )
    assert not list((tmp_path / "run").iterdir())


class At(Callback):
    def __init__(self, step, function):
        self.step, self.function = step, function

    def on_step(self, run, loss):
        if run.step == self.step:
            self.function()


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT], ids=["full", "read-only", "quota"]
)
@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_every_way_to_fail(tmp_path, monkeypatch, number, call):
    where = {"open": (sys.modules["builtins"], "open"), "fsync": (os, "fsync"), "replace": (os, "replace")}[
        call
    ]
    whole = getattr(*where)

    def fail(*arguments, **more):
        if call == "open" and "r" in (more.get("mode") or (arguments[1:2] or ("r",))[0]):
            return whole(*arguments, **more)
        raise OSError(number, os.strerror(number))

    with pytest.raises(NumnetError, match=rf"^cannot write .*: {os.strerror(number)}$"):
        run(
            tmp_path / "run",
            callbacks=[At(10, lambda: monkeypatch.setattr(*where, fail))],
            checkpoint_every=0,
        )
    monkeypatch.undo()
    assert loads(tmp_path / "run") == 9
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "last.safetensors", "best.safetensors", "metrics.jsonl", "metrics.csv",
    }  # fmt: skip
    run(tmp_path / "run", resume=True)


def test_a_folder_that_is_deleted(tmp_path):
    with pytest.raises(NumnetError, match=r"cannot write .*run.*: No such file or directory"):
        run(tmp_path / "run", callbacks=[At(10, lambda: shutil.rmtree(tmp_path / "run"))])
    assert not (tmp_path / "run").exists()


def test_metrics_that_cannot_be_written(tmp_path):
    metrics = tmp_path / "run" / "metrics.jsonl"

    def block():
        metrics.unlink()
        metrics.mkdir()

    with pytest.raises(NumnetError, match=r"cannot write .*metrics\.jsonl: Is a directory"):
        run(tmp_path / "run", callbacks=[At(10, block)])
    assert loads(tmp_path / "run") == 7


# --------------------------------------------------------------------------------------------- two in one folder


HOLDER = """
import sys, time
sys.path.insert(0, {tests!r})
from test_robust_runs import At
from test_training import run

def wait():
    print("training", flush=True)
    time.sleep(60)

run(sys.argv[1], callbacks=[At(3, wait)], checkpoint_every=0)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that trains in tmp_path / "run" and has stopped in the middle of it."""
    command = [sys.executable, "-c", HOLDER.format(tests=str(TESTS)), str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "training\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_two_runs_in_one_folder(tmp_path, holder):
    out = tmp_path / "run"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for resume in (False, True):
        with pytest.raises(
            NumnetError, match=rf"run: process {holder.pid} on .* is training there; wait for it"
        ):
            run(out, resume=resume)
    for arguments in (["shapes", "--out", out], ["--resume", out]):
        with start("train", *arguments, "--quiet") as process:
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 2 and errors.count("\n") == 1
        if "--out" in arguments:
            assert f"process {holder.pid} on" in errors
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    holder.kill()
    holder.wait()
    assert (out / ".lock").exists()
    run(out, resume=True)  # a dead process has no lock
    run(tmp_path / "whole")
    assert_same_run(out, tmp_path / "whole")
    assert not (out / ".lock").exists()


def test_two_runs_in_one_process(tmp_path):
    """Another thread's run, or one that was started from a callback."""

    def second():
        with pytest.raises(NumnetError, match=rf"process {os.getpid()} on .* is training there"):
            run(tmp_path / "run", resume=True)

    run(tmp_path / "run", callbacks=[At(10, second)])


def test_a_lock_is_given_back(tmp_path):
    killed(tmp_path / "run", 3)
    assert not (tmp_path / "run" / ".lock").exists()
    first, second = Lock(tmp_path), Lock(tmp_path)
    first.take()
    with pytest.raises(NumnetError, match="is training there"):
        second.take()
    with pytest.raises(NumnetError, match="is training there"):
        second.require_free()
    first.free()
    second.require_free()
    second.take()
    second.free()
    first.free()
    assert not list(tmp_path.glob(".lock"))


def test_debris_of_a_finished_run_is_cleared_up(tmp_path):
    """Killed after result.json, before the lock was given back."""
    run(tmp_path / "run")
    names = set(os.listdir(tmp_path / "run"))
    (tmp_path / "run" / ".lock").write_text('{"process": 1}')
    (tmp_path / "run" / ".result.json.1.tmp").write_text("{")
    run(tmp_path / "run", resume=True)
    assert set(os.listdir(tmp_path / "run")) == names


def test_a_lock_of_nonsense_is_no_lock(tmp_path):
    for text in ("", "{", '{"process": 1}', "null", "x" * 5000):
        (tmp_path / ".lock").write_text(text)
        lock = Lock(tmp_path)
        lock.take()
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()
        lock.free()


# --------------------------------------------------------------------------------------------- numbers that are none


class Breaks(Layer):
    """Makes one number infinite or none from its n-th pass on: of its output, of its dx, or of its own gradient."""

    kind = "breaks"

    def __init__(self, where, number, name):
        super().__init__(name)
        self.where, self.number, self.on = where, number, False

    def connect(self, shape):
        self.needs("weight", (1,), "bias")
        return super().connect(shape)

    def forward(self, x, training):
        y = x + 0 * self.params["weight"]
        if self.on and self.where == "output":
            y.flat[-1] = self.number
        return y

    def backward(self, dy, input_gradient=True):
        self.grads["weight"][:] = self.number if self.on and self.where == "own" else 0
        dx = dy.copy()
        if self.on and self.where == "dx":
            dx.flat[-1] = self.number
        return dx


@pytest.mark.parametrize(
    "where, number, says",
    [
        ("output", np.nan, r"the loss is nan in epoch 2, step 4 of 7, first in the output of breaks: "),
        ("output", np.inf, r"the loss is (nan|inf) in epoch 2, step 4 of 7, first in the output of breaks: "),
        (
            "dx",
            np.nan,
            r"the gradient is not finite in epoch 2, step 4 of 7, first in the gradient behind breaks: ",
        ),
        ("own", -np.inf, r"not finite in epoch 2, step 4 of 7, first in the gradient of breaks.weight: "),
    ],
)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_first_layer_is_named(tmp_path, where, number, says, accumulate):
    breaks = Breaks(where, number, "breaks")
    net = numnet.Net(
        [Flatten(name="first"), fakes.Linear(16, "hidden"), breaks, Dense(4, name="logits")], (6, 6, 3),
        config={"model": "fake"},
    )  # fmt: skip

    def switch():
        breaks.on = True

    with pytest.raises(
        NumnetError, match=says + "training diverged; try a learning rate below 0.1"
    ) as caught:
        run(tmp_path / "run", net=net, callbacks=[At(10, switch)], checkpoint_every=0, accumulate=accumulate)
    assert "\n" not in str(caught.value)
    assert loads(tmp_path / "run") == 10
    assert "forward" not in vars(breaks)  # the watch is over


def test_weights_images_and_gradients_that_are_none():
    """What no layer's own arithmetic made."""
    with np.errstate(all="ignore"):
        _weights_images_and_gradients()


def _weights_images_and_gradients():
    net = fakes.make_net(first=fakes.Flat)

    def spoil():
        net.params["hidden.bias"][3] = np.inf

    with pytest.raises(
        NumnetError, match=r"in epoch 2, step 4 of 7, first in hidden\.bias: training diverged"
    ):
        run(net=net, callbacks=[At(10, spoil)])
    scaling = {"mean": (0.4,) * 3, "std": (0.25, 1e-42, 0.25)}
    data = fakes.make_data()
    data.mean, data.std = scaling["mean"], scaling["std"]
    with pytest.raises(NumnetError, match=r"in epoch 1, step 1 of 7, first in the images"):
        run(data=data)

    class Spoil(Callback):
        def on_gradient(self, run):
            run.net.grads["hidden.weight"][0, 0] = np.nan

    with pytest.raises(NumnetError, match=r"step 1 of 7, first in the gradient of hidden\.weight: "):
        run(callbacks=[Spoil()])


def test_a_real_net_that_diverges(tmp_path):
    """A learning rate of 1e30: stopped in the first epoch, and the layer is one of the net's."""
    net = numnet.build("mobilenet_v1", width=0.25, resolution=32, classes=4, strides="cifar", shallow=True)
    data = fakes.make_data(train=64)
    data.train, data.validation, data.test = (
        type(s)(np.kron(s.images, np.ones((1, 6, 6, 1), np.uint8))[:, :32, :32], s.labels)
        for s in (data.train, data.validation, data.test)
    )
    with pytest.raises(NumnetError, match=r"not finite|is nan|is inf") as caught:
        fit(
            net,
            data,
            epochs=3,
            batch_size=16,
            lr=1e30,
            schedule="constant",
            progress=False,
            out=tmp_path / "run",
        )
    assert re.search(r" (in|at the end of) epoch 1\b.*, first in ", str(caught.value))
    assert any(name in str(caught.value) for name, _ in net.walk())
    numnet.load(tmp_path / "run" / "last.safetensors")


# --------------------------------------------------------------------------------------------- signals and pipes


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("photos") / "photos")


def train(photos, out, *more, **options):
    return start("train", photos, *TINY, "--epochs", 400, "--batch-size", 12, "--out", out, *more, **options)


def wait_for_an_epoch(process, out):
    deadline = time.monotonic() + 120
    while process.poll() is None and not (
        (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_text()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def debris(out):
    return [path.name for path in out.iterdir() if path.name.startswith(".")]


@pytest.mark.skipif(os.name == "nt", reason="POSIX terminals")
def test_a_closed_terminal(photos, tmp_path):
    """The terminal goes, and SIGHUP comes with it: the run is saved, with nobody to tell."""
    out, (terminal, line) = tmp_path / "run", pty.openpty()
    process = train(photos, out, stdout=line, stderr=line, stdin=line, preexec_fn=_own_terminal)
    os.close(line)
    wait_for_an_epoch(process, out)
    os.close(terminal)
    assert process.wait(60) == 128 + signal.SIGHUP
    assert debris(out) == [] and checkpoint.read_meta(out / "last.safetensors")["training"]["epoch"] >= 1


def _own_terminal():
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_a_closed_pipe(photos, tmp_path):
    """``numnet train … 2>&1 | head``: the training goes on to its end, and the code says that its result was not read."""
    out = tmp_path / "run"
    arguments = ["train", photos, *TINY, "--epochs", 2, "--batch-size", 12, "--out", out]
    with start(*arguments, stderr=subprocess.STDOUT) as process:
        process.stdout.close()
        assert process.wait(60) == 141
    assert json.loads((out / "result.json").read_text())["epochs"] == 2 and debris(out) == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_an_error_that_nobody_reads():
    """Standard error is closed: the exit code is the command's all the same, not Python's 120."""
    with start("summary", "no such net") as process:
        process.stderr.close()
        assert process.wait(60) == 2


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_nohup(photos, tmp_path):
    """A signal that is ignored stays ignored."""
    out = tmp_path / "run"

    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = train(photos, out, "--quiet", preexec_fn=ignore)
    wait_for_an_epoch(process, out)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (
        process.returncode == 128 + signal.SIGTERM and "numnet train --resume" in errors and debris(out) == []
    )


SLOW = """
import os, sys, time
from numnet.cli import main

def slow(descriptor):
    print("writing", flush=True)
    for _ in range(600):  # in pieces: a signal just before a sleep does not end that sleep
        time.sleep(0.1)

os.fsync = slow
sys.exit(main(["import", sys.argv[1], "-o", sys.argv[2], "--resolution", "32"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("name, code", [("SIGTERM", 143), ("SIGHUP", 129)])
def test_stopped_while_a_file_is_written(tmp_path, name, code):
    """Other commands end at once, and take what they had half written with them."""
    net = numnet.build("mobilenet_v1", width=0.25, resolution=32)
    numnet.weights.export_torch(net, tmp_path / "net.safetensors")
    command = [
        sys.executable,
        "-c",
        SLOW,
        str(tmp_path / "net.safetensors"),
        str(tmp_path / "out.safetensors"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code and errors == ""
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


LOST = """
import ctypes, signal, sys
from numnet import cli
from numnet.cli import nets
from numnet.training import state

@ctypes.CFUNCTYPE(None)
def callback():  # what Numba's cache has, too; an exception in here is lost
    signal.raise_signal(getattr(signal, sys.argv[1]))

where = {"training": (state, "prepare"), "other": (nets, "models")}[sys.argv[2]]
usual = getattr(*where)
setattr(*where, lambda *arguments, **options: (callback(), usual(*arguments, **options))[1])
sys.exit(cli.main(sys.argv[3:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
@pytest.mark.parametrize("kind", ["training", "other"])
def test_a_signal_that_raises_in_vain(photos, tmp_path, name, code, kind):
    """It comes while a library's callback runs. A training then stops at its first step; a command ends with its code."""
    out = tmp_path / "run"
    arguments = {
        "training": ["train", photos, *TINY, "--epochs", 400, "--batch-size", 12, "--out", out, "--quiet"],
        "other": ["models"],
    }[kind]
    command = [sys.executable, "-c", LOST, name, kind, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    if kind == "training":
        assert done.stderr.endswith(f"numnet train --resume {out}\n") and debris(out) == []
        assert checkpoint.read_meta(out / "last.safetensors")["training"]["epoch"] == 0


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_signal_in_place_of_an_error():
    """An error in what was cut short is not the last word."""
    from numnet.cli import commands

    with pytest.raises(SystemExit) as raised, commands._ended_by_signals():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise AttributeError("of a clean-up that did not end")
    assert raised.value.code == 143 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_stop_between_two_steps_is_not_forgotten(tmp_path):
    """The signal comes while the loop asks its team whether anybody has had one."""
    from numnet.training.team import Team

    class Late(Team):
        def sum_up(self, losses, correct, told):
            if run_.step == 3:
                run_.signals.received = signal.SIGTERM
            return sum(losses), correct, told

    from test_training import SETTINGS

    from numnet.training.loop import Run

    settings = {key: value for key, value in SETTINGS.items() if key != "progress"}
    run_ = Run(
        fakes.make_net(), fakes.make_data(), settings, out=tmp_path / "run", progress=False, team=Late()
    )
    with pytest.raises(SystemExit) as caught:
        run_.train()
    assert caught.value.code == 143 and loads(tmp_path / "run") == 4
