"""The benchmark: closed forms, mirrored nets, the arithmetic of medians and ratios. No time here means anything."""

import json
import os
import sys

import numpy as np
import pytest
from cli_tools import numnet, works

import numnet as library
from numnet import bench
from numnet.bench import comparison, machine, report, worker, workloads
from numnet.bench.sides import SIDES, size
from numnet.bench.workloads import (
    KERNELS,
    WORKLOADS,
    Part,
    Workload,
    find,
    floor,
    macs,
    parts,
    sweep,
    traffic,
)
from numnet.errors import NumnetError
from numnet.kernels import vectors

TINY = Workload("tiny", "train", "mobilenet_v1", 0.25, 16, 16, classes=10, strides="cifar")
INFER = Workload("tiny", "infer", "mobilenet_v1", 0.25, 16, 16, classes=10, strides="cifar")
INT8 = Workload("tiny", "infer-int8", "mobilenet_v1", 0.25, 16, 16, classes=10, strides="cifar")


# ------------------------------------------------------------------------------------------- workloads


def test_names():
    models = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "mnasnet_b1")
    names = {f"{mode}-v1-{width}" for mode in ("train", "infer") for width in ("0.25", "1.0")} | {
        "train-v2-0.5"
    }
    names |= {f"train-{model}-224" for model in models}
    names |= {f"infer{bits}-{model}-224-b{n}" for bits in ("", "-int8") for model in models for n in (1, 16)}
    assert names == {name for name, workload in WORKLOADS.items() if workload.mode not in KERNELS}
    small = WORKLOADS["train-v1-0.25"]
    assert (small.batch, small.resolution, small.strides, small.classes) == (128, 32, "cifar", 10)
    assert {w.batch for w in WORKLOADS.values() if w.resolution == 224 and w.mode == "train"} == {16}


def test_find():
    assert [w.name for w in find([])] == ["train-v1-0.25", "train-v1-1.0", "infer-v1-0.25", "infer-v1-1.0"]
    assert {w.name for w in find(["infer-*-b1"])} == {
        n for n in WORKLOADS if n.startswith("infer") and n.endswith("-b1")
    }
    assert len(find(["all"])) == len(WORKLOADS) and len(find(["train-v1-1.0", "train-v1-1.0"])) == 1
    with pytest.raises(
        NumnetError, match=r"no workload 'trian-v1-1.0' \(did you mean train-v1-1.0\?\); expected all"
    ):
        find(["trian-v1-1.0"])


def test_sweep_values():
    base = WORKLOADS["train-v1-0.25"]
    assert [w.width for w in sweep(base, "width")] == [0.25, 0.5, 0.75, 1.0]
    assert [w.resolution for w in sweep(base, "resolution")] == [16, 24, 32, 48]
    assert [w.threads for w in sweep(base, "threads", cores=3)] == [1, 2, 3]
    assert [(w.name, w.batch) for w in sweep(base, "batch", [8])] == [("train-v1-0.25 batch=8", 8)]


def test_macs_and_bytes():
    """Counted once more, layer by layer."""
    net = library.describe(**TINY.net())
    forward = gradients = maps = 0
    for path, layer in net.walk():
        if layer.kind in ("conv", "depthwise", "pointwise", "dense"):
            c, out = layer.input_shape[-1], layer.output_shape
            weights = int(np.prod(layer.specs["weight"].shape))
            own = weights * int(np.prod(out[:-1])) if layer.kind != "depthwise" else weights * out[0] * out[1]
            forward += own
            gradients += own if path == "stem" else 2 * own
            maps += int(np.prod(layer.input_shape)) + int(np.prod(out))
            assert c > 0
    assert macs(INFER) == 16 * forward and macs(TINY) == 16 * (forward + gradients)
    params = net.cost().params
    assert traffic(INFER) == 4 * (16 * maps + params) and traffic(TINY) == 4 * (3 * 16 * maps + 8 * params)


def test_shapes_of_kernels():
    shapes = parts(WORKLOADS["depthwise-mobilenet_v2"])
    assert shapes[:2] == [Part(112, 32, 32, 3, 1), Part(112, 96, 96, 3, 2)] and len(set(shapes)) == len(
        shapes
    )
    assert {part.kernel for part in parts(WORKLOADS["depthwise-mobilenet_v3_large"])} == {3, 5}
    shapes = parts(WORKLOADS["pointwise-mobilenet_v1"])
    assert (
        shapes[0] == Part(112, 32, 64, 1, 1) and shapes[-1] == Part(7, 1024, 1024, 1, 1) and len(shapes) == 9
    )
    assert (shapes[0].name, shapes[0].output_side) == ("112×112×32 → 64", 112)


def test_the_least_time_of_a_kernel():
    """By hand, on a machine of 100 multiply-adds a second, 2 FLOP each; then of 3 bytes a second by the triad, 4 in truth."""
    pointwise, depthwise = Part(2, 3, 5, 1, 1), Part(4, 3, 3, 3, 2)
    assert floor(pointwise, 10, "forward", 200, 1e9) == pytest.approx(10 * 4 * 3 * 5 / 100)
    assert floor(pointwise, 10, "dx and dw", 200, 1e9) == pytest.approx(2 * 10 * 4 * 3 * 5 / 100)
    assert floor(depthwise, 10, "forward", 200, 1e9) == pytest.approx(10 * 4 * 9 * 3 / 100)
    # Read x and w; fetch and write y
    assert floor(pointwise, 10, "forward", 1e9, 3) == 10 * 4 * 3 + 2 * 10 * 4 * 5 + 3 * 5
    # x, dy; dx and dw fetched
    assert floor(depthwise, 1, "dx and dw", 1e9, 3) == 16 * 3 + 4 * 3 + 2 * 16 * 3 + 3 * 27


# ------------------------------------------------------------------------------------------- mirrored nets


@pytest.mark.parametrize("model", library.models())
def test_mirror_has_the_same_layers(torch, model):
    """As many parameters, the same output, as many multiply-adds."""
    from numnet.bench.mirror import mirror

    own = {} if model in ("vgg16", "googlenet") else {"width": 0.25}
    net = library.describe(model, classes=11, resolution=32, variant="torch", padding="symmetric", **own)
    counted = []

    def count(module, inputs, output):
        weight = module.weight
        places = output.shape[2] * output.shape[3] if output.ndim == 4 else 1
        counted.append(weight.numel() * places)

    module = mirror(net).eval()
    for part in module.modules():
        if isinstance(part, (torch.nn.Conv2d, torch.nn.Linear)):
            part.register_forward_hook(count)
    with torch.inference_mode():
        assert module(torch.zeros(1, 3, 32, 32)).shape == (1, 11)
    assert sum(p.numel() for p in module.parameters()) == net.cost().params
    assert sum(counted) == net.cost().macs


@pytest.mark.parametrize(
    "model, options",
    [
        ("mobilenet_v1", {"padding": "symmetric"}),
        ("mobilenet_v1", {"padding": "same", "depth_multiplier": 2}),
        (
            "mobilenet_v1",
            {
                "skip": True,
                "rows": [[32, 1], [64, 2, "standard"], [64, 1, "standard"], [64, 1, "squeeze-excite"]],
            },
        ),
        ("mobilenet_v3_small", {"padding": "same"}),
    ],
)
def test_mirror_computes_the_same(torch, model, options):
    """Weights, statistics, padding and order of channels arrive where they belong; odd sizes pad unevenly."""
    from numnet.bench.mirror import mirror

    net = library.build(model, width=0.25, resolution=38, classes=7, dropout=0.0, seed=2, **options)
    rng = np.random.default_rng(0)
    for name, array in [*net.params.items(), *net.buffers.items()]:
        if name.rpartition(".")[2] in ("gamma", "variance"):
            array[...] = rng.uniform(0.5, 2, array.shape)
        elif name.rpartition(".")[2] in ("beta", "mean", "bias"):
            array[...] = rng.normal(0, 0.3, array.shape)
    x = rng.standard_normal((3, 38, 38, 3), np.float32)
    with torch.no_grad():
        theirs = mirror(net).eval()(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    ours = net.forward(x)
    assert np.abs(ours - theirs).max() <= 2e-5 * np.abs(theirs).max() and ours.std() > 0


def test_mirror_names_what_it_cannot_do(torch):
    from numnet.bench.mirror import mirror

    class Strange(library.layers.Layer):
        kind = "strange"

    with pytest.raises(NumnetError, match=r"odd \(strange\) has no counterpart"):
        mirror(library.Net([Strange(name="odd")], (4, 4, 3)))
    with pytest.raises(NumnetError, match="hsigmoid02 has no counterpart"):
        mirror(library.describe("mobilenet_v3_small", variant="paddle"))


# ------------------------------------------------------------------------------------------- sides


def results(workload, name, steps=1):
    """What a side says of its first steps."""
    side, said = SIDES[name](workload, 1), []
    for _ in range(steps):
        side.first = None
        side.step()
        said.append(side.result())
    return said


def test_sides_train_alike(torch):
    """The same weights, images and labels give the same loss, and the same step of the optimiser the next one."""
    ours, theirs = results(TINY, "numnet", 8), results(TINY, "pytorch", 2)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-3) and ours[1] == pytest.approx(theirs[1], rel=2e-2)
    assert ours[1] != pytest.approx(ours[0], rel=5e-2) and ours[-1] < ours[0]


def test_sides_predict_alike(torch):
    ours = results(INFER, "numnet")
    assert results(INFER, "pytorch") == pytest.approx(ours, rel=1e-5)
    pytest.importorskip("onnxruntime")
    assert results(INFER, "onnxruntime") == pytest.approx(ours, rel=1e-5)


def test_sides_predict_alike_in_eight_bits():
    """The same whole numbers, so nearly the same logits; and these are another net's than the floats'."""
    ours, floats = results(INT8, "numnet"), results(INFER, "numnet")
    assert ours != floats and ours == pytest.approx(floats, rel=0.1)
    pytest.importorskip("onnxruntime")
    assert results(INT8, "onnxruntime") == pytest.approx(ours, rel=comparison.AGREE["infer-int8"])


def test_bytes_of_a_net_in_eight_bits():
    assert 4 * traffic(INT8) == traffic(INFER) and macs(INT8) == macs(INFER)


@pytest.mark.parametrize("name", ["numnet", "pytorch"])
@pytest.mark.parametrize("workload", [TINY, INFER], ids=["train", "infer"])
def test_layers(torch, name, workload):
    """Every kind of layer has its time, and the layers take no longer than the step."""
    times = SIDES[name](workload, 1).layers(2)
    assert {"conv", "depthwise", "pointwise", "global average", "dense", "whole step"} == set(times)
    assert all(both[0] > 0 for both in times.values())
    if workload.mode == "train":
        assert all(times[kind][1] > 0 for kind in ("depthwise", "pointwise", "dense"))
    assert sum(sum(both) for kind, both in times.items() if kind != "whole step") <= times["whole step"][0]


def test_layers_of_a_net_with_activations_of_their_own(torch):
    """PyTorch's, written over their input, and hooks do not go together."""
    workload = Workload("tiny", "train", "mobilenet_v3_small", 0.35, 16, 2, classes=10)
    times = SIDES["pytorch"](workload, 1).layers(1)
    assert {"squeeze-excite", "activation"} <= set(times)


@pytest.mark.parametrize("name", ["numnet", "pytorch"])
@pytest.mark.parametrize("kind, shape", [("depthwise", "16×16×8 3×3"), ("pointwise", "16×16×8 → 8")])
def test_kernels_alone(torch, name, kind, shape):
    workload = Workload("tiny", kind, "mobilenet_v2", 0.1, 32, 1)
    times = SIDES[name](workload, 1).parts(0)
    assert len(times) == 2 * len(parts(workload)) and all(len(part) == 3 for part in times.values())
    assert f"{shape}, forward" in times and f"{shape}, dx and dw" in times
    assert all(min(part) > 0 for part in times.values())


def test_size():
    assert size([[3.0, 4.0]]) == pytest.approx(np.sqrt(12.5))


# ------------------------------------------------------------------------------------------- machine, worker


def test_peak_and_bandwidth():
    assert machine.peak_int8(1, 0, rounds=1000) > 1e8
    assert machine.peak_flops(1, 0, rounds=1000) > 1e8 and machine.bandwidth(0, size=1 << 16) > 1e7
    assert machine.cores() >= 1 and machine.processor()


def test_the_peak_kernel_multiplies_and_adds():
    """Vectors v ← v/2 + 1/2: after three rounds v/8 + 7/8, and no chain was left out of the sum."""
    v = vectors.lanes(vectors.LANES, np.float32)
    start, out = (
        np.arange(machine.CHAINS * vectors.LANES, dtype=np.float32),
        np.zeros((2, vectors.LANES), np.float32),
    )
    machine._multiply_add(start, np.float32(0.5), 3, out, v)
    want = (start / 8 + 7 / 8).reshape(machine.CHAINS, vectors.LANES).sum(axis=0)
    assert (out == want).all()
    a, b, c = np.zeros((3, 32), np.float32), np.full((3, 32), 2, np.float32), np.full((3, 32), 7, np.float32)
    machine._triad(np.float32(3), b, c, a, v)
    assert (a == 23).all()


def test_warnings(monkeypatch):
    for name in ("NUMNET_CHECK", "NUMBA_DISABLE_JIT", "NUMBA_OPT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(vectors, "LANES", vectors.processor_lanes(vectors.FEATURES))
    assert machine.warnings() == []
    monkeypatch.setenv("NUMNET_CHECK", "1")
    (check,) = machine.warnings()
    assert check.startswith("NUMNET_CHECK=1 compiles the kernels serial")
    monkeypatch.setattr(vectors, "FEATURES", {"avx512f": True})
    monkeypatch.setattr(vectors, "LANES", 4)
    monkeypatch.setattr(vectors, "FUSED", False)
    _, lanes, fused = machine.warnings()
    assert lanes == "NUMNET_LANES=4 makes vectors of 4 numbers where the processor has 16"
    assert "no fused multiply-add" in fused


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="only Linux can forget the peak")
def test_growth_of_memory():
    before = worker._resident()
    large = np.ones(8 << 20)  # 64 MiB
    del large
    assert worker._peak() - before >= 60 << 20
    worker._forget_peak()
    assert worker._peak() - before < 30 << 20


# ------------------------------------------------------------------------------------------- medians, ratios


SHAPE = "112×112×32 3×3"
TIMES = {  # ms of single steps, round by round
    "numnet": [[10, 10, 40], [12, 12, 12], [11, 11, 11]],
    "pytorch": [[20, 22, 20], [18, 18, 18], [33, 33, 33]],
}


@pytest.fixture
def scripted(monkeypatch):
    """``comparison._run`` with given times instead of processes; the jobs that it was given."""
    jobs, counts = [], {}

    def run(job):
        jobs.append(job)
        if job["task"] == "machine":
            return {"flops": 1e12, "int8": 4e12, "bandwidth": 1e11}
        side = job["side"]
        if side == "torch.compile":
            raise NumnetError("torch.compile failed: no compiler")
        if job["task"] == "layers":
            return {"layers": {"depthwise": [0.001, 0.002], "whole step": [0.004, 0.0]}}
        number = counts[side] = counts.get(side, 0) + 1
        times = [ms / 1e3 for ms in TIMES[side][number - 1]]
        if job["task"] == "parts":
            return {
                "times": {f"{SHAPE}, forward": times, f"{SHAPE}, dx and dw": [10 * t for t in times]},
                "memory": None,
                "result": None,
            }
        return {"times": {"step": times}, "memory": number << 20, "result": 1.0 + 0.1 * (side == "pytorch")}

    monkeypatch.setattr(comparison, "_run", run)
    monkeypatch.setattr(
        comparison, "_missing", lambda side: "not installed" if side == "onnxruntime" else None
    )
    monkeypatch.setattr(machine, "warnings", lambda: [])
    return jobs


def test_medians_and_ratios(scripted):
    said = []
    facts = bench.compare(
        [TINY],
        sides=["numnet", "pytorch", "torch.compile", "onnxruntime"],
        threads=2,
        say=said.append,
        layers=True,
    )
    steps = [job["side"] for job in scripted if job["task"] == "steps"]
    assert steps == ["numnet", "pytorch", "torch.compile", "numnet", "pytorch", "numnet", "pytorch"], (
        "in turn"
    )
    assert all(job["threads"] == 2 for job in scripted)
    (result,) = facts["workloads"]
    own, theirs = result["sides"]["numnet"], result["sides"]["pytorch"]
    assert (own["ms"], own["low_ms"], own["high_ms"]) == pytest.approx((11, 10, 12)) and own["steps"] == 9
    assert (theirs["ms"], theirs["low_ms"], theirs["high_ms"]) == pytest.approx((20, 18, 33))
    assert result["ratios"]["pytorch"] == pytest.approx({"ratio": 20 / 11, "low": 1.5, "high": 3.0})
    assert own["images_per_second"] == pytest.approx(16 / 0.011) and own["memory_bytes"] == 1 << 20
    assert own["gflops"] == pytest.approx(2 * macs(TINY) / 0.011 / 1e9)
    assert own["share_of_peak"] == pytest.approx(2 * macs(TINY) / 0.011 / 1e12)
    assert own["share_of_bandwidth"] == pytest.approx(traffic(TINY) / 0.011 / 1e11)
    assert facts["missing"] == {"onnxruntime": "not installed"}
    assert result["failed"] == {"torch.compile": "torch.compile failed: no compiler"}
    assert facts["warnings"] == ["tiny: pytorch computes 1.1 where numnet computes 1"]
    assert result["layers"]["numnet"] == {"depthwise": [1.0, 2.0], "whole step": [4.0, 0.0]}
    assert said[-1] == "tiny, round 3 of 3: numnet 11 ms, pytorch 33 ms"


def test_a_side_whose_layers_fail_loses_nothing_else(scripted, monkeypatch):
    """Its steps were measured before; numnet's own failure is one of the whole."""
    run, sick = comparison._run, {"pytorch"}

    def layers_fail(job):
        if job["task"] == "layers" and job["side"] in sick:
            raise NumnetError(f"{job['side']} failed: no hooks")
        return run(job)

    monkeypatch.setattr(comparison, "_run", layers_fail)
    given = {"sides": ["numnet", "pytorch"], "threads": 2, "say": lambda text: None, "layers": True}
    facts = bench.compare([TINY, TINY], **given, rounds=1)
    for workload in facts["workloads"]:
        assert list(workload["layers"]) == ["numnet"] and "pytorch" in workload["ratios"]
        assert workload["failed"] == {"pytorch": "no times of layers: pytorch failed: no hooks"}
    assert "tiny: pytorch: no times of layers: pytorch failed: no hooks" in report.notes(facts)
    sick.add("numnet")
    with pytest.raises(NumnetError, match="numnet failed: no hooks"):
        bench.compare([TINY], **given, rounds=1)


def test_eight_bits_have_a_peak_of_their_own(scripted):
    (result,) = bench.compare([INT8], sides=["numnet"], threads=2, say=lambda text: None)["workloads"]
    assert result["sides"]["numnet"]["share_of_peak"] == pytest.approx(2 * macs(INT8) / 0.011 / 4e12)


def test_tables_and_figures(scripted, tmp_path, monkeypatch):
    facts = bench.compare(
        [TINY], sides=["numnet", "pytorch", "onnxruntime"], threads=2, say=print, layers=True
    )
    rows = report.lines(facts)
    assert rows[2][:4] == ("tiny", "numnet", "11", "10–12") and rows[2][4] == "1,455"
    assert rows[3][1] == "pytorch" and rows[3][-1] == "1.82× as fast (1.50–3.00)"
    text = "\n".join(report.notes(facts))
    assert (
        "measured: 1000 GFLOP/s, in eight bits 4000 billion operations a second, 100.0 GB/s" in text
        and "not measured: onnxruntime (not installed)" in text
    )
    layers = report.layer_lines(facts["workloads"][0])
    assert ("depthwise", "1.000", "2.000", "1.000", "2.000") in layers and layers[-3][1] == "1.000"
    report.plot(facts, file=tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")


def test_time_by_kind_of_layer_over_the_batch(tmp_path):
    """A column each batch size: parts of the whole step that add up to 1, and the milliseconds of an image above."""
    times = {1: (1.0, 2.0, 4.0), 4: (5.0, 9.0, 20.0)}
    facts = {"workloads": []}
    for batch in (4, 1):
        conv, pointwise, whole = times[batch]
        layers = {
            "conv": [conv, 0.0],
            "pointwise": [pointwise / 2, pointwise / 2],
            "whole step": [whole, 0.0],
        }
        facts["workloads"].append(
            {"name": f"net batch={batch}", "batch": batch, "layers": {"numnet": layers}}
        )
    figure = report.plot(facts, "batch", tmp_path / "kinds.png")
    assert (tmp_path / "kinds.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figure.axes
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    assert heights == [[0.25, 0.25], [0.5, pytest.approx(0.45)], [pytest.approx(0.25), pytest.approx(0.3)]]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "4"]
    assert [text.get_text() for text in axes.texts] == ["4", "5"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["conv", "pointwise", "the rest"]


def test_sweep_figure(scripted, monkeypatch, tmp_path):
    for side in TIMES:
        monkeypatch.setitem(TIMES, side, [[10]] * 2)
    varied = sweep(INFER, "batch", [2, 4])
    facts = bench.compare(varied, sides=["numnet", "pytorch"], threads=1, rounds=1, say=lambda text: None)
    figure = report.plot(facts, "batch", tmp_path / "sweep.pdf")
    lines = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].get_lines()}
    assert lines["tiny, numnet"] == [[2.0, pytest.approx(200)], [4.0, pytest.approx(400)]]


def test_shapes_of_the_depthwise_kernels(scripted):
    workload = Workload("dw", "depthwise", "mobilenet_v2", 1.0, 224, 16)
    facts = bench.compare([workload], sides=["numnet", "pytorch"], threads=2, say=lambda text: None)
    (result,) = facts["workloads"]
    assert result["parts"][0]["ratios"]["pytorch"] == pytest.approx(20 / 11) and len(result["parts"]) == 2
    assert result["ratios"]["pytorch"]["ratio"] == pytest.approx(20 / 11), (
        "geometric mean of two equal ratios"
    )
    least = 1e3 * floor(Part(112, 32, 32, 3, 1), 16, "forward", 1e12, 1e11)
    assert result["parts"][0]["floor_ms"] == pytest.approx(least)
    lines = report.part_lines(result)
    assert lines[2] == (f"{SHAPE}, forward", "11.000", "20.000", "1.82×", f"{100 * least / 11:.0f}")
    assert lines[-1][0] == "geometric mean, numnet" and lines[-1][-2] == "1.82×"
    assert report.lines(facts)[2][3] == "all shapes"


def test_kernels_all_of_whose_sides_fail(scripted, monkeypatch):
    """There is nothing to show but why."""
    run, why = comparison._run, "pytorch failed: no memory"

    def steps_fail(job):
        if job.get("side") == "pytorch":
            raise NumnetError(why)
        return run(job)

    monkeypatch.setattr(comparison, "_run", steps_fail)
    workload = Workload("dw", "depthwise", "mobilenet_v2", 1.0, 224, 16)
    facts = bench.compare([workload], sides=["pytorch"], threads=2, rounds=2, say=lambda text: None)
    (result,) = facts["workloads"]
    assert result["failed"] == {"pytorch": why} and result["ratios"] == {} and "parts" not in result
    assert len(report.lines(facts)) == 2 and f"dw: pytorch: {why}" in report.notes(facts)
    out = works("bench", "depthwise-mobilenet_v2", "--sides", "pytorch", "--rounds", 1, "--threads", 2)
    assert f"depthwise-mobilenet_v2: pytorch: {why}" in out


def test_without_pytorch(monkeypatch):
    monkeypatch.setattr(comparison.importlib.util, "find_spec", lambda name: None)
    assert comparison._missing("pytorch") == 'torch not installed; pip install ".[compare]"'
    assert comparison._missing("numnet") is None


def test_a_child_that_fails():
    job = {
        "task": "steps",
        "side": "numnet",
        "threads": 1,
        "workload": {**TINY.as_dict(), "model": "mobilenet_v9"},
    }
    with pytest.raises(NumnetError, match=r"^numnet failed: .*mobilenet_v9"):
        comparison._run(job)


# ------------------------------------------------------------------------------------------- the command


def test_bench(torch, tmp_path, monkeypatch):
    """All of it once, processes included. That the tests have few lanes is no fault: test_warnings."""
    monkeypatch.setattr(vectors, "LANES", vectors.processor_lanes(vectors.FEATURES))
    code, out, err = numnet(
        "bench", "infer-v1-0.25", "--resolution", 16, "--batch-size", 2, "--rounds", 1, "--seconds", 0.01,
        "--threads", 1, "--sides", "numnet,pytorch", "--json", "--plot", tmp_path / "roofline.png",
    )  # fmt: skip
    assert code == 0, err
    facts = json.loads(out)
    assert {"machine", "warnings", "missing", "workloads"} == set(facts)
    assert {"processor", "cores", "threads", "lanes", "flops", "int8", "bandwidth"} == set(facts["machine"])
    (result,) = facts["workloads"]
    assert (
        result["name"] == "infer-v1-0.25 resolution=16 batch=2"
        and result["batch"] == 2
        and result["threads"] == 1
    )
    assert (
        set(result["sides"]) == {"numnet", "pytorch"} and result["failed"] == {} and facts["warnings"] == []
    )
    for side in result["sides"].values():
        assert side["ms"] > 0 and side["steps"] >= 3 and side["gflops"] > 0
        assert side["memory_bytes"] is None or side["memory_bytes"] > 1 << 20 or sys.platform != "linux"
    assert result["ratios"]["pytorch"]["ratio"] > 0 and (tmp_path / "roofline.png").exists()
    assert "round 1 of 1: numnet" in err


def test_bench_text(scripted):
    out = works(
        "bench",
        "train-v1-0.25",
        "depthwise-mobilenet_v2",
        "--sides",
        "numnet",
        "--rounds",
        "1",
        "--threads",
        2,
    )
    assert "% peak" in out and "train-v1-0.25" in out and "GFLOP/s" in out and "measured: " in out


def test_bench_sweeps(scripted, monkeypatch):
    monkeypatch.setitem(TIMES, "numnet", [[10]] * 3)
    out = works(
        "bench",
        "infer-v1-0.25",
        "--sides",
        "numnet",
        "--rounds",
        "1",
        "--sweep",
        "width",
        "--values",
        "0.5,1",
        "--json",
    )
    assert [workload["width"] for workload in json.loads(out)["workloads"]] == [0.5, 1.0]
    assert workloads.SWEEPS.keys() == {"width", "resolution", "batch", "threads"}
