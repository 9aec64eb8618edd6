"""Kernels compiled ahead: the calls are noted without running, several processes compile, and nothing depends on it."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import test_training
from kernel_shapes import CHECKING

import numnet
from numnet import ahead
from numnet.kernels import _jit, vector

pytestmark = pytest.mark.skipif(CHECKING, reason="checked kernels are not compiled ahead")

SOME = """
import json, os, sys
import numpy as np
from numnet import ahead, softmax_cross_entropy
from numnet.kernels import vector

def work():
    for x in (np.ones((4, 3), np.float32), np.ones((4, 3))):
        vector.accumulate(x[0], x[1])
        softmax_cross_entropy(x, np.zeros(4, int), 0.0)

told, here = [], []
for call in ahead.noted(work):
    kernel, usual = call.kernel, call.kernel.compile
    kernel.compile = lambda types, usual=usual, name=call.name: (here.append(name), usual(types))
missing = ahead.prepare(work, lambda *numbers: told.append(numbers))
print(json.dumps({"missing": missing, "told": told, "here": len(here), "again": ahead.prepare(work)}))
"""


def test_two_processes_compile_into_one_cache(tmp_path):
    """What one did not do the other did; the numbers that are told grow up to that of the missing kernels."""
    environment = {**os.environ, "NUMNET_CACHE": str(tmp_path), "NUMNET_COMPILERS": "2"}
    command = [sys.executable, "-W", "error", "-c", SOME]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr
    result = json.loads(done.stdout)
    missing, told = result["missing"], [number for number, _ in result["told"]]
    assert missing >= ahead.WORTH and result["again"] == 0 and result["here"] <= missing
    assert told[0] == 0 and told[-1] == missing and told == sorted(told)


def net_and_input():
    net = numnet.build("mobilenet_v1", width=0.125, resolution=16, classes=3, shallow=True, strides="cifar")
    x = np.random.default_rng(0).normal(size=(8, *net.input_shape)).astype(np.float32)
    return net, x


def test_what_is_noted_is_what_is_called(monkeypatch):
    """The list holds every kernel of forward and backward once, and each is then found compiled."""
    net, x = net_and_input()

    def work():
        logits = net.forward(x, training=True)
        net.backward(numnet.softmax_cross_entropy(logits, np.zeros(8, int))[1], input_gradient=False)

    work()
    calls = ahead.noted(work)
    assert len(set(calls)) == len(calls) > 8 and all(call.compiled() for call in calls)
    assert {"pointwise", "depthwise", "conv", "batchnorm", "loss"} <= {
        call.module.rpartition(".")[2] for call in calls
    }
    assert not ahead.Call(calls[0].module, calls[0].name, (*calls[0].types, *calls[0].types)).compiled()


def test_nothing_runs_while_it_is_noted():
    x = np.full(1000, 2.0, np.float32)
    (call,) = ahead.noted(lambda: vector.accumulate(x, x.copy()))
    assert (
        (x == 2).all() and call.name and all(type(kernel) is not ahead._Noting for kernel in ahead._kernels())
    )
    vector.accumulate(x, x.copy())
    assert (x == 4).all()


def test_another_thread_computes_as_ever():
    """Its kernels run while this thread's are noted."""
    x, y = (np.full(1000, 2.0, np.float32) for _ in range(2))
    vector.accumulate(x.copy(), x)

    def work():
        other = threading.Thread(target=lambda: vector.accumulate(y, x))
        other.start()
        other.join()

    assert ahead.noted(work) == [] and (y == 4).all()


def test_an_error_leaves_the_kernels_as_they_were():
    def work():
        raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        ahead.noted(work)
    assert all(type(kernel) is not ahead._Noting for kernel in ahead._kernels())


@pytest.fixture
def missing(monkeypatch):
    """Calls that seem to be missing, and a list of those that this process compiled."""
    net, x = net_and_input()
    net.forward(x, training=True)
    calls, compiled = ahead.noted(lambda: net.forward(x, training=True)), []
    for kernel in {call.kernel for call in calls}:
        monkeypatch.setattr(kernel, "compile", lambda types: compiled.append(types), raising=False)
    return calls, compiled


def test_one_process_compiles_all_that_is_missing(missing, monkeypatch):
    calls, compiled = missing
    monkeypatch.setenv("NUMNET_COMPILERS", "1")
    told = []
    ahead.compile_all(calls, lambda *numbers: told.append(numbers))
    assert sorted(map(str, compiled)) == sorted(str(call.types) for call in calls)
    assert told == [(done, len(calls)) for done in range(len(calls) + 1)]


@pytest.mark.parametrize("code", ["", "import sys; sys.exit(3)", "not Python"])
def test_a_helper_that_dies_harms_nothing(missing, monkeypatch, code):
    """What it had taken is compiled when it is called; the rest is compiled here."""
    calls, compiled = missing
    monkeypatch.setenv("NUMNET_COMPILERS", "3")
    monkeypatch.setattr(ahead._Helper, "CODE", code)
    ahead.compile_all(calls)
    assert len(calls) - 2 <= len(compiled) <= len(calls)


def test_no_process_can_be_started(missing, monkeypatch):
    calls, compiled = missing
    monkeypatch.setenv("NUMNET_COMPILERS", "2")
    monkeypatch.setattr(sys, "executable", "/no/such/interpreter")
    ahead.compile_all(calls)
    assert len(compiled) == len(calls)


def test_it_stops_when_it_is_asked_to(missing, monkeypatch):
    calls, compiled = missing
    monkeypatch.setenv("NUMNET_COMPILERS", "1")
    ahead.compile_all(calls, stopped=lambda: len(compiled) == 2)
    assert len(compiled) == 2


def test_left_out(monkeypatch):
    """0 processes, and no folder to keep anything in: the work is not even noted."""
    monkeypatch.setenv("NUMNET_COMPILERS", "0")
    assert ahead.prepare(lambda: 1 / 0) == 0
    monkeypatch.setenv("NUMNET_COMPILERS", "2")
    monkeypatch.setattr(_jit, "CACHE_FOLDER", None)
    assert ahead.prepare(lambda: 1 / 0) == 0
    assert ahead.compilers() == 2


def test_a_net_of_eight_bits_predicts_as_without(monkeypatch):
    """Its tables are made of numbers that a kernel writes; while calls are noted, there are none."""
    from numnet.cli.use import compile_net
    from numnet.loading import PACKAGED_INT8

    monkeypatch.setenv("NUMNET_COMPILERS", "1")
    x = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    net = numnet.load(PACKAGED_INT8)
    compile_net(net)
    assert np.array_equal(net.predict(x), numnet.load(PACKAGED_INT8).predict(x))


def test_work_that_raises_compiles_nothing(monkeypatch):
    monkeypatch.setenv("NUMNET_COMPILERS", "1")
    assert ahead.prepare(lambda: 1 / 0) == 0


def test_a_training_is_the_same_with_and_without(monkeypatch, tmp_path):
    """Rehearsing a step and a validation changes no bit of the net, the optimiser or the averaged weights."""
    for processes in "02":
        monkeypatch.setenv("NUMNET_COMPILERS", processes)
        test_training.run(tmp_path / processes, ema=0.9)
    test_training.assert_same_run(tmp_path / "0", tmp_path / "2")


def test_a_layer_that_cannot_be_rehearsed(monkeypatch):
    """Such a net trains all the same."""
    monkeypatch.setenv("NUMNET_COMPILERS", "2")
    monkeypatch.setattr(ahead, "noted", lambda work: 1 / 0)
    _, history = test_training.run(epochs=1)
    assert len(history) == 1
