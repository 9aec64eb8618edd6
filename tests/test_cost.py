"""The account of a net: MACs by both conventions, what is moved, what counting tools print, peak memory, CSV."""

import csv
import io
import json
import time
import tracemalloc

import numpy as np
import oracle
import pytest

import numnet
from numnet import cost
from numnet.blocks import Conv, Depthwise, InvertedResidual, Norm, Pointwise
from numnet.cost.memory import parts_of_peak
from numnet.layers import Layer

# --- MACs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", numnet.models())
def test_a_report_agrees_with_the_table(model):
    net = numnet.describe(model, variant="torch")
    report, total = cost.report(net), net.cost()
    assert (report["macs"], report["params"], report["buffers"]) == (total.macs, total.params, total.buffers)
    assert [line["name"] for line in report["layers"]] == [row.name for row in total.rows]
    assert sum(line["macs"] for line in report["types"]) == total.macs
    assert report["macs_inside"] < report["macs"] < report["multiplications"] or model == "vgg16"
    assert report["flops"] == report["multiplications"] + report["additions"]
    assert json.loads(json.dumps(report)) == report
    names = [line["name"] for line in report["layers"]]
    assert len(set(names)) == len(names)


def test_a_batch_costs_its_images():
    one, eight = (cost.report(numnet.describe("mobilenet_v2"), n) for n in (1, 8))
    for key in ("macs", "macs_inside", "dx_macs", "dw_macs", "multiplications", "activation_bytes"):
        assert eight[key] == 8 * one[key]
    assert eight["params"] == one["params"]
    assert one["bytes_moved"] < eight["bytes_moved"] < 8 * one["bytes_moved"]  # the weights are read once


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize(
    "resolution, kernel, stride", [(8, 3, 1), (8, 3, 2), (7, 3, 2), (9, 5, 2), (2, 5, 1), (5, 1, 2)]
)
def test_macs_inside_the_image(resolution, kernel, stride, padding):
    """The oracle counts tap by tap."""
    layers = [
        Conv(5, kernel, stride, padding, name="conv"),
        Depthwise(kernel, 1, padding, 2, name="depthwise"),
    ]
    net = numnet.Net(layers, (resolution, resolution + 1, 3), allocate=False)
    lines = cost.report(net)["layers"]
    x = np.zeros((1, resolution, resolution + 1, 3))
    first, second = oracle.Count(), oracle.Count()
    y = oracle.conv(x, np.zeros((kernel, kernel, 3, 5)), stride, layers[0].pads, first)
    oracle.depthwise(y, np.zeros((kernel, kernel, 5, 2)), 1, layers[1].pads, second)
    assert [(line["macs"], line["macs_inside"]) for line in lines] == [
        (count.macs, count.macs_inside) for count in (first, second)
    ]


def test_what_a_layer_moves():
    """V1's first pointwise layer at 112×112, 32 → 64, in float32: it reads and writes each map once."""
    line = next(
        x for x in cost.report(numnet.describe("mobilenet_v1"))["layers"] if x["name"] == "block1.pointwise"
    )
    pixels = 112 * 112
    assert line["bytes_moved"] == 4 * (pixels * 32 + pixels * 64 + 32 * 64)
    assert line["activation_bytes"] == 4 * pixels * 64
    assert line["intensity"] == pytest.approx(2 * pixels * 32 * 64 / line["bytes_moved"], abs=1e-3)
    double = cost.report(numnet.describe("mobilenet_v1", dtype="float64"))["layers"]
    assert next(x for x in double if x["name"] == line["name"])["bytes_moved"] == 2 * line["bytes_moved"]


def test_depthwise_is_poor_and_pointwise_rich():
    """Operations a byte: why a depthwise layer is never as fast as its MACs promise."""
    types = {line["type"]: line for line in cost.report(numnet.describe("mobilenet_v1"))["types"]}
    assert types["depthwise"]["intensity"] < 3 < 10 < types["pointwise"]["intensity"]
    assert types["batch norm"]["bytes_moved"] == types["relu6"]["bytes_moved"] == 0


# --- counting tools -----------------------------------------------------------------------------------------

TOOLS = [  # measured on torchvision's nets: fvcore, thop, ptflops (pytorch), ptflops (aten), PyTorch, torchinfo
    ("mobilenet_v2", {}, 314193216, 327486720, 320300008, 300775272, 601548544, 300809384),
    ("mobilenet_v2", {"width": 0.75}, 220843120, 232491008, 226182376, 209070792, 418139584, 209097432),
    ("mobilenet_v2", {"width": 0.5}, 104474784, 111692288, 107804648, 97132840, 194263680, 97151384),
    ("mobilenet_v2", {"width": 0.35}, 65074080, 70736912, 67698344, 59286808, 118571616, 59300888),
    ("mobilenet_v2", {"width": 1.4}, 601430480, 620489520, 610186408, 582196824, 1164391648, 582244760),
    ("mobilenet_v3_large", {}, 226033824, 234838456, 231316416, 216597120, 433179520, 216621520),
    ("mobilenet_v3_large", {"width": 0.75}, 147544928, 154578032, 151634152, 140039592, 280067632, 140058008),
    ("mobilenet_v3_small", {}, 59649536, 62477944, 60910032, 56515312, 113020800, 56527424),
    ("mobilenet_v3_small", {"width": 0.75}, 41676512, 43989912, 42671208, 39119544, 78231152, 39128744),
    ("mnasnet_b1", {"width": 0.5}, 110586848, 116717728, 115966088, 104456968, 208911936, 104477592),
    ("mnasnet_b1", {"width": 0.75}, 225023408, 234553712, 233339512, 215494104, 430986208, 215523912),
    ("mnasnet_b1", {}, 325329152, 336242432, 334926312, 314416872, 628831744, 314454792),
    ("mnasnet_b1", {"width": 1.3}, 541067136, 555771840, 553944552, 526363432, 1052724864, 526412248),
    ("vgg16", {}, 15470289408, 15470314496, 15523225576, 15483821032, 30940528640, 15483821032),
    ("googlenet", {}, 1504878688, 1511332032, 1513907448, 1498377192, 2996752384, 1498391752),
    (
        "mobilenet_v2",
        {"resolution": 32, "classes": 10},
        6398784,
        6670080,
        6523402,
        6124938,
        12249856,
        6159050,
    ),
    (
        "mobilenet_v3_large",
        {"resolution": 32, "classes": 10},
        7279776,
        7464376,
        7395810,
        7093410,
        14174080,
        7117810,
    ),
    (
        "mobilenet_v3_small",
        {"resolution": 32, "classes": 10},
        2233856,
        2294392,
        2264562,
        2173714,
        4339584,
        2185826,
    ),
    ("mnasnet_b1", {"resolution": 32, "classes": 10}, 6626048, 6848768, 6821898, 6403338, 12806656, 6441258),
]


@pytest.mark.parametrize("model, options, fvcore, thop, python, aten, torch, torchinfo", TOOLS)
def test_what_the_tools_print(model, options, fvcore, thop, python, aten, torch, torchinfo):
    assert cost.tools(numnet.describe(model, variant="torch", padding="symmetric", **options)) == {
        "fvcore": fvcore,
        "thop": thop,
        "torch": torch,
        "ptflops_aten": aten,
        "ptflops_pytorch": python,
        "torchinfo": torchinfo,
    }


@pytest.mark.parametrize(
    "model, fvcore, aten, torch",
    [("mobilenet_v1", 578875904, 568741352, 1137480704), ("mnasnet_a1", 324085440, 311584310, 623158144)],
)
def test_what_the_tools_print_of_timm_s_nets(model, fvcore, aten, torch):
    """The three tools that see into its fused batch norm."""
    prints = cost.tools(numnet.describe(model, variant="torch"))
    assert (prints["fvcore"], prints["ptflops_aten"], prints["torch"]) == (fvcore, aten, torch)


# --- memory -------------------------------------------------------------------------------------------------

MIXED = [[32, 1], [64, 2, "standard"], [64, 1, "standard"], [64, 1], [128, 2], [128, 1, "standard"]]
SQUEEZED = [*MIXED, [128, 1, "squeeze-excite"]]
HELD = [
    ("mobilenet_v1", {"width": 0.25, "dropout": 0.0}),
    ("mobilenet_v1", {"width": 0.25, "separable": False}),
    ("mobilenet_v1", {"width": 0.25, "separable": False, "skip": True}),
    ("mobilenet_v1", {"width": 0.25, "skip": True, "rows": MIXED}),
    ("mobilenet_v1", {"width": 0.25, "skip": True, "rows": SQUEEZED}),
    ("mobilenet_v2", {"width": 0.35}),
    ("mobilenet_v3_large", {"width": 0.35}),
    ("mobilenet_v3_small", {"width": 0.35, "strides": "cifar"}),
    ("mnasnet_a1", {"width": 0.35}),
    ("mnasnet_keras", {"width": 0.35, "pooling": "max"}),
    ("googlenet", {}),
    ("vgg16", {"dropout": 0.5}),
]


@pytest.mark.parametrize("model, options", HELD, ids=str)
def test_the_estimate_is_what_a_net_holds(model, options):
    """Byte for byte: what the layers keep, and what the workspace has grown to."""
    net = numnet.build(model, resolution=32, classes=10, dtype="float64", **options)
    count = 9
    x = np.random.default_rng(0).normal(size=(count, *net.input_shape))
    net.backward(net.forward(x, training=True), input_gradient=False)
    layers = [layer for _, layer in net.walk()]
    winners = [layer.where for layer in layers if isinstance(getattr(layer, "where", None), np.ndarray)]
    kept = sum(layer.memory.nbytes for layer in layers) + sum(where.nbytes for where in winners)
    described = numnet.describe(model, resolution=32, classes=10, dtype="float64", **options)
    assert parts_of_peak(described, count)[:2] == (kept, layers[0].workspace.nbytes)


MEASURE = """
import resource, sys
import numpy as np
import numnet

def high_water():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def step(count):
    x = np.zeros((count, 224, 224, 3), np.float32)
    logits = net.forward(x, training=True)
    net.backward(logits, input_gradient=False)

net = numnet.build(sys.argv[1])
step(1)
before = high_water()
step(8)
print(high_water() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large"])
def test_the_estimate_is_what_a_process_grows_by(model, run_python, tmp_path):
    """At 224×224, from a warm-up step of one image to a step of eight: within 15 %.

    The first run fills the cache of machine code: a process that compiles has grown before it computes."""
    script = tmp_path / "measure.py"
    script.write_text(MEASURE)
    for _ in range(2):
        grown = int(run_python(script, model))
    net = numnet.describe(model)
    assert cost.peak_training(net, 8) == pytest.approx(grown, rel=0.15)


@pytest.mark.parametrize("model", numnet.models())
def test_inference_needs_what_its_plan_holds(model):
    """Byte for byte the executor's buffers."""
    thin = {} if model in ("vgg16", "googlenet") else {"width": 0.5}
    net = numnet.build(model, resolution=64, classes=10, dtype="float64", **thin)
    net.predict(np.zeros((2, 64, 64, 3)))
    (plan,) = net._executor.plans.values()
    estimate = cost.peak_inference(
        numnet.describe(model, resolution=64, classes=10, dtype="float64", **thin), 2
    )
    assert estimate == plan.nbytes


def test_peak_memory_by_hand():
    """V1 at 224×224: the largest two maps in a row are 112×112 × (32 + 64); training keeps all maps."""
    net = numnet.describe("mobilenet_v1")
    assert cost.peak_inference(net) == 4 * 112 * 112 * (32 + 64)
    assert cost.peak_training(net) > cost.report(net)["activation_bytes"] > 4 * cost.peak_inference(net)


# --- it is quick and makes no arrays ------------------------------------------------------------------------


@pytest.mark.parametrize("model", numnet.models())
def test_a_report_takes_no_time_and_no_memory(model):
    tracemalloc.start()
    before = time.process_time()
    net = numnet.describe(model)
    cost.report(net, 64)
    took, (_, peak) = time.process_time() - before, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert net.flat is None
    assert took < 0.5 * 4  # tracemalloc is slow; without it a few hundredths
    assert peak < 5_000_000 < 4 * net.cost().params or model == "mobilenet_v1"


def test_a_net_of_one_s_own_has_a_report():
    """With layers that this package has never heard of, and a raw map at the end, which forward finishes."""

    class Noise(Layer):
        kind = "noise"

    layers = [Conv(4, norm=Norm(), activation="relu"), Noise(), InvertedResidual(4, expanded=8, norm=Norm())]
    net = numnet.Net([*layers, Pointwise(5, norm=Norm(), activation="hswish")], (8, 8, 3), allocate=False)
    report = cost.report(net, 2)
    assert report["model"] is None and report["macs"] == 2 * net.cost().macs
    last = {line["name"]: line for line in report["layers"]}
    pixels = 2 * 8 * 8 * 5
    assert (last["pointwise.bn"]["multiplications"], last["pointwise.act"]["multiplications"]) == (
        2 * pixels,
    ) * 2
    assert "noise" in last and report["peak_training_bytes"] > report["activation_bytes"]


def test_csv():
    reports = [
        cost.report(numnet.describe(name, resolution=32, classes=10))
        for name in ("mobilenet_v1", "mnasnet_a1")
    ]
    rows = list(csv.DictReader(io.StringIO(cost.csv(reports))))
    assert len(rows) == sum(len(report["layers"]) for report in reports)
    for report in reports:
        own = [row for row in rows if row["model"] == report["model"]]
        assert sum(int(row["macs"]) for row in own) == report["macs"]
        assert sum(int(row["params"]) for row in own) == report["params"]
    assert rows[0]["name"] == "stem" and rows[0]["output_shape"] == "16x16x32"
