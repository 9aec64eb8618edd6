"""Threads and processes: every threading layer installed, nets side by side, spawn, a cache that many fill at once."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import pytest
from kernel_shapes import CHECKING

pytestmark = [
    pytest.mark.usefixtures("all_cores"),
    pytest.mark.skipif(CHECKING, reason="with NUMNET_CHECK=1 every kernel is serial"),
]

SIDE_BY_SIDE = """
import hashlib, json, threading
import numba
import numpy as np
import numnet

def images(seed):
    return np.random.default_rng(seed).standard_normal((4, 16, 16, 3)).astype(np.float32)

def work(seed, result):
    net = numnet.build("mobilenet_v2", width=0.1, resolution=16, classes=5, strides="cifar", seed=seed)
    x = images(seed)
    for _ in range(6):
        _, dlogits = numnet.softmax_cross_entropy(net.forward(x, training=True), np.arange(4))
        net.backward(dlogits, input_gradient=False)
        net.flat -= np.float32(0.1) * net.flat_grad
        net.predict(x)
    result[seed] = net.flat.tobytes()

alone, together = {}, {}
for seed in range(2):
    work(seed, alone)
threads = [threading.Thread(target=work, args=(seed, together)) for seed in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
bits = hashlib.sha256(alone[0] + alone[1]).hexdigest()
print(json.dumps([numba.threading_layer(), alone == together, alone[0] != alone[1], bits]))
"""


def layers():
    """Numba's threading layers that can be loaded here. TBB's must find its library, and two processors: with one, a
    process that has forked never ends, also without numnet (github.com/numba/numba/issues/10556)."""
    found = ["omp"] if find_spec("numba.np.ufunc.omppool") else []
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if find_spec("numba.np.ufunc.tbbpool") and processors > 1:
        try:
            import numba.np.ufunc.tbbpool  # noqa: F401
        except ImportError:
            pass
        else:
            found.append("tbb")
    return [*found, "workqueue"]


def test_two_nets_in_two_threads(run_python, tmp_path):
    """Both end in the bits that each has alone, under every layer; and all layers in the same."""
    script, found = tmp_path / "side_by_side.py", set()
    script.write_text(SIDE_BY_SIDE)
    for layer in layers():
        env = {"NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": 2}
        *said, bits = json.loads(run_python(script, env=env))
        assert said == [layer, True, True]
        found.add(bits)
    assert len(found) == 1


FORKED = """
import json, multiprocessing, sys
import numpy as np
import numnet
from numnet import kernels

def nets():
    from numnet.layers import Dense, Flatten
    from numnet.quantised.make import quantise
    net = numnet.build("mobilenet_v1", width=0.25, resolution=32, classes=4)
    yield net
    yield quantise(net, np.random.default_rng(0).normal(size=(16, 32, 32, 3)).astype(np.float32))
    yield numnet.Net([Flatten(), Dense(8), Dense(4)], (4, 4, 3))

def work():
    return kernels.activation_forward(np.ones((2, 3)), "relu").sum()

def child(queue, work):
    try:
        queue.put(["done", float(work())])
    except Exception as error:
        queue.put([type(error).__name__, str(error)])

def start(method, work=work):
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=child, args=(queue, work))
    process.start()
    said = queue.get(timeout=60)
    process.join(60)
    return [said, process.exitcode]

if __name__ == "__main__":
    before = start("fork")
    work()
    after = [start("fork")]
    for net in nets():  # whose plans have run, and are machine code by now
        x = np.zeros((16, *net.input_shape), np.float32)
        sums = [abs(net.predict(x)).sum() for _ in range(3)]
        after.append(start("fork", lambda: 6 * (abs(net.predict(x)).sum() == sums[0] == sums[2])))
    print(json.dumps([before, after, start("spawn")]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX processes")
@pytest.mark.parametrize("layer", layers())
def test_forked_and_spawned_children(run_python, tmp_path, layer):
    """Threads do not survive a fork. Where the layer cannot start them anew: one error, which says what to do."""
    script = tmp_path / "forked.py"
    script.write_text(FORKED)
    before, after, spawned = json.loads(run_python(script, env={"NUMBA_THREADING_LAYER": layer}))
    done = [["done", 6.0], 0]
    assert before == done and spawned == done
    assert len(after) == 4
    if layer in ("omp", "tbb"):
        for (kind, message), code in after:
            assert kind == "RuntimeError" and code == 0 and "spawn" in message and "forked" in message
    else:
        assert after == [done] * 4


SMALL = """
import json, sys
import numpy as np
from numnet.kernels import dropout
y = dropout.dropout_forward(np.ones(1000), 0.5, 1, 2)
print(json.dumps(float(y.sum())))
"""


def test_several_processes_fill_the_cache_at_once(run_python, tmp_path):
    """From nothing, all at the same time; and whoever comes later finds it whole."""
    script = tmp_path / "small.py"
    script.write_text(SMALL)
    env = {"NUMNET_CACHE": tmp_path / "cache"}
    with ThreadPoolExecutor(3) as pool:
        said = list(pool.map(lambda _: run_python(script, env=env), range(3)))
    said.append(run_python(script, env=env))
    assert len(set(said)) == 1 and 800 < float(said[0]) < 1200
    assert list((tmp_path / "cache").rglob("*.nbc")) and not list((tmp_path / "cache").rglob("*.tmp*"))
