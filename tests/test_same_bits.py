"""Whole training steps and predictions have the same bits for 4, 8 and 16 lanes, and for one thread and two.

No sum runs across lanes, and work is cut by shapes alone. In CI this is shown as plain Python, where nothing has to be
compiled; the compiled nets, each number of lanes with a cache of its own, are a long check.
"""

import json
import os
import subprocess
import sys

import pytest
from kernel_shapes import CHECKING

pytestmark = pytest.mark.skipif(CHECKING, reason="with NUMNET_CHECK=1 every kernel is serial")

STEPS = """
import hashlib, json, sys
import numba, numpy as np
import numnet
from numnet.kernels import vectors

job = json.loads(sys.argv[1])
assert vectors.LANES == job["lanes"], vectors.LANES
bits = {}
for model in job["models"]:
    for dtype in job["dtypes"]:
        for threads in job["threads"]:
            numba.set_num_threads(threads)
            net = numnet.build(model, width=job["width"], resolution=job["side"], classes=10, dtype=dtype, seed=3)
            rng = np.random.default_rng(5)
            x = rng.normal(size=(job["images"], *net.input_shape)).astype(dtype)
            labels = rng.integers(0, 10, len(x))
            found = []
            for _ in range(2):
                loss, dlogits = numnet.softmax_cross_entropy(net.forward(x, training=True), labels)
                dx = net.backward(dlogits)
                found += [np.float64(loss), dx, net.flat_grad.copy()]
                net.flat -= net.flat.dtype.type(0.05) * net.flat_grad
            found += [net.flat, net.flat_buffers, net.forward(x), net.predict(x[:1]), net.predict(x)]
            assert all(np.isfinite(a).all() for a in found)
            digests = [hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest() for a in found]
            bits.setdefault(f"{model} {dtype}", []).append(digests)
print(json.dumps(bits))
"""


EIGHTS = """
import hashlib, json, sys
import numba, numpy as np
import numnet
from numnet import quantised
from numnet.kernels import eight_bits, vectors

job = json.loads(sys.argv[1])
assert vectors.LANES == job["lanes"], vectors.LANES
bits = {}
for model in job["models"]:
    for threads in job["threads"]:
        numba.set_num_threads(threads)
        net = numnet.build(model, width=job["width"], resolution=job["side"], classes=10, seed=3)
        rng = np.random.default_rng(5)
        x = rng.normal(size=(16, *net.input_shape)).astype("float32")
        whole = quantised.quantise(net, x, method="minmax")
        maps = whole.maps(eight_bits.quantise(x[: job["images"]], whole.grid))
        net.fake = quantised.FakeQuantised.of(net, x, "minmax")
        found = [*maps, whole.predict(x[: job["images"]]), net.forward(x, training=True)]
        digests = [hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest() for a in found]
        bits.setdefault(model, []).append(digests)
print(json.dumps(bits))
"""


def steps(script, lanes, env, **job):
    env = {**os.environ, "NUMNET_LANES": str(lanes), "NUMBA_NUM_THREADS": "2", "NUMNET_CHECK": "0", **env}
    command = [sys.executable, "-W", "ignore", str(script), json.dumps({"lanes": lanes, **job})]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def all_equal(runs):
    want = next(iter(runs.values()))
    for lanes, run in runs.items():
        for name, threads in run.items():
            for digests in threads:
                assert digests == want[name][0], f"{name}: other bits with {lanes} lanes"


def test_plain_python_has_the_same_bits_for_any_lanes(tmp_path):
    script = tmp_path / "steps.py"
    script.write_text(STEPS)
    job = {"models": ["mobilenet_v3_small"], "width": 0.1, "side": 16, "images": 2, "dtypes": ["float32"]}
    env = {"NUMBA_DISABLE_JIT": "1"}
    all_equal({lanes: steps(script, lanes, env, threads=[1], **job) for lanes in (4, 8, 16)})


@pytest.mark.slow
def test_compiled_nets_have_the_same_bits_for_any_lanes_and_threads(tmp_path):
    script = tmp_path / "steps.py"
    script.write_text(STEPS)
    models = ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small"]
    job = {"models": models, "width": 0.25, "side": 32, "images": 9, "dtypes": ["float32", "float64"]}
    env = {lanes: {"NUMNET_CACHE": str(tmp_path / f"lanes {lanes}")} for lanes in (4, 8, 16)}
    all_equal({lanes: steps(script, lanes, env[lanes], threads=[1, 2], **job) for lanes in env})


@pytest.mark.slow
def test_nets_of_eight_bits_have_the_same_bits_for_any_lanes_and_threads(tmp_path):
    """Every map, the logits, and what training on fake grids sees."""
    script = tmp_path / "eights.py"
    script.write_text(EIGHTS)
    models = ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "plain_3x3"]
    job = {"models": models, "width": 0.25, "side": 32, "images": 5}
    env = {lanes: {"NUMNET_CACHE": str(tmp_path / f"lanes {lanes}")} for lanes in (4, 8, 16)}
    all_equal({lanes: steps(script, lanes, env[lanes], threads=[1, 2], **job) for lanes in env})
