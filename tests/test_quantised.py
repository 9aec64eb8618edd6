"""Nets in eight bits: fast steps against definitions, files, the report, the command, and what is refused."""

import copy
import json
import os
import shutil

import numpy as np
import pytest
from cli_tools import CLASSES, numnet, works, write_images
from PIL import Image
from test_weights import images, random_net, randomised

import numnet as library
from numnet import checkpoint, data, loading, quantised
from numnet.blocks import Branches, Conv, Norm, Pointwise, Sequence
from numnet.errors import NumnetError
from numnet.kernels import eight_bits
from numnet.kernels.activations import CODES
from numnet.kernels.eight_bits import Grid
from numnet.layers import Activation, AveragePool, Dense, Dropout, Flatten, GlobalAverage, GlobalMax, MaxPool
from numnet.quantised import equalise
from numnet.quantised.ranges import METHODS, Histogram, choose
from numnet.quantised.steps import CUTS, run, trace
from numnet.weights import source

HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}
MODELS = [
    "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v4_small", "mnasnet_a1", "plain_3x3", "googlenet",
    "vgg16", "branched",
]  # fmt: skip


def branched(dtype="float32", activation="relu", **options):
    """A net of one's own: maxima of all forms and branches within branches, on odd sides, with odd numbers of channels."""
    frame = {"activation": activation, "norm": Norm()}
    inner = Branches(Pointwise(3, **frame), MaxPool(3, 1, "same"))
    layers = [
        Conv(21, 3, 2, **frame),
        MaxPool(2, 1, ((0, 1), (1, 0))),
        Branches(Pointwise(5, **frame), MaxPool(3, 1, 1), Sequence(inner, Conv(10, 3, norm=Norm()))),
        MaxPool(3, 2, ceil=True),
        Activation("hswish"),
        Conv(34, 3, **frame),
        Branches(Sequence(MaxPool(3, 2, 1), Conv(7, 1, **frame)), Conv(9, 3, 2, **frame)),
        GlobalMax(),
        Dense(7),
    ]
    return randomised(library.Net(layers, (15, 21, 3), dtype=dtype))


def net_of(model, **options):
    """A random net of this name."""
    return branched(**options) if model == "branched" else random_net(model, **options)


def some(net, count=16, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *net.input_shape)).astype(np.float32)


@pytest.fixture(scope="module")
def v3():
    """(float net, the same in eight bits, its images)."""
    net = random_net("mobilenet_v3_small")
    net.scaling, net.class_names = HALF, list("abcdefg")
    x = some(net)
    return net, quantised.quantise(net, x), x


# --- steps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_the_steps_are_the_net(model):
    net = net_of(model)
    x = images(net, 2)
    maps = run(trace(net), x)
    want = net.forward(x)
    assert np.abs(maps[-1] - want).max() <= 1e-4 * np.abs(want).max()
    assert sum(step.macs() for step in trace(net)) == net.cost().macs


@pytest.mark.parametrize("model", MODELS)
def test_fast_steps_are_their_definitions_bit_for_bit(model):
    net = net_of(model)
    x = some(net)
    whole = quantised.quantise(net, x, method="squares")
    q = eight_bits.quantise(x[:2], whole.grid)
    fast, slow = whole.maps(q), whole.definition_maps(q)
    for number, (a, b) in enumerate(zip(fast, slow, strict=True)):
        assert a.dtype == b.dtype and (a == b).all(), whole.steps[number - 1].name
    assert (whole.run(q) == fast[-1]).all(), "buffers that are used again change nothing"
    got, want = whole.predict(x), net.predict(x)
    assert (got[:2] == whole.reals(fast[-1], len(whole.steps))).all()
    assert np.linalg.norm(got - want) <= 0.35 * np.linalg.norm(want)
    assert (whole.predict(x, batch_size=5) == got).all()


def test_other_forms_of_nets():
    """Depth multipliers go by the definition; skips over activations; an activation after the addition's parts."""
    for options in ({"depth_multiplier": 2}, {"skip": True, "activation": "hswish"}, {"activation": "swish"}):
        net = random_net("mobilenet_v1", **options)
        x = some(net)
        whole = quantised.quantise(net, x, method="minmax")
        want = net.predict(x)
        assert np.linalg.norm(whole.predict(x) - want) <= 0.3 * np.linalg.norm(want)


def test_maxima_keep_the_grid_and_parts_move_to_that_of_the_whole():
    net = branched()
    x = some(net)
    whole = quantised.quantise(net, x, method="squares")
    maps = whole.maps(eight_bits.quantise(x, whole.grid))
    kinds = [step.kind for step in whole.steps]
    assert kinds.count("maximum") == 6 and kinds.count("concat") == 3
    for number, step in enumerate(whole.steps):
        reals = [whole.reals(maps[i], i).astype(np.float64) for i in step.reads]
        got = whole.reals(maps[number + 1], number + 1)
        if step.kind == "maximum":
            assert step.grid == whole.grids[step.reads[0]] and np.isin(got, reals[0]).all(), step.name
        if step.kind == "concat":
            want = np.concatenate(reals, axis=-1)
            low, high = ((end - step.grid.zero) * step.grid.scale for end in (0, 255))
            assert np.abs(got - np.clip(want, low, high)).max() <= 0.501 * step.grid.scale, step.name
    assert maps[kinds.index("maximum") + 1].shape == (16, 8, 11, 21)
    end = len(kinds) - 2
    assert kinds[end] == "maximum" and (maps[end + 1] == maps[end].max(axis=(1, 2))).all()


def test_parts_that_have_the_grid_of_the_whole_are_copied():
    """By ``minmax`` a part that goes as far as the whole has its grid."""
    whole = quantised.quantise(branched(), some(branched()), method="minmax")
    whole.prepare()
    sizes = set()
    for step, packed in zip(whole.steps, whole._ready):
        if step.kind == "concat":
            equal = [whole.grids[i] == step.grid for i in step.reads]
            assert [table.size for table in packed] == [0 if each else 256 for each in equal]
            sizes |= {table.size for table in packed}
    assert sizes == {0, 256}


def test_relu6_cuts_at_its_own_places():
    net = random_net("mobilenet_v2")
    whole = quantised.quantise(net, some(net))
    step = whole.steps[0]
    assert step.code and CUTS[step.code] == (0, 6)
    low, high = step.bounds
    assert low == step.grid.zero and (
        high == 255 or abs((high - step.grid.zero) * step.grid.scale - 6) < step.grid.scale
    )


def test_a_dead_filter_keeps_its_bias():
    """Weights of 0 have no scale of their own; the bias, however large, must fit."""
    net = random_net("mobilenet_v1", bn_eps=1e-3)
    unit = net.layers[0]
    unit.params["weight"][..., 0] = 0
    unit.buffers["bn.mean"][0], unit.params["bn.beta"][0] = 0, 4.0
    whole = quantised.quantise(net, some(net))
    q = eight_bits.quantise(some(net)[:1], whole.grid)
    assert np.abs(whole.reals(whole.maps(q)[1], 1)[..., 0] - 4.0).max() <= whole.steps[0].grid.scale


# --- ranges -------------------------------------------------------------------------------------------------


def histogram_of(x):
    found = Histogram()
    found.widen(x)
    found.count(x)
    return found


def test_how_ranges_are_chosen():
    x = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    x[0] = 1000.0
    found = histogram_of(x)
    ends = {way: 255 * choose(found, way, "x").scale for way in METHODS if way != "output"}
    assert ends["minmax"] > 1000 and ends["percentile"] < 20 and ends["squares"] < 1000
    told = choose(found, "minmax", "x", (-3.0, 3.0))
    assert abs(255 * told.scale - 6) < 0.1
    with pytest.raises(NumnetError, match="expected one of"):
        choose(found, "median", "x")
    with pytest.raises(NumnetError, match="is 0 for all"):
        choose(histogram_of(np.zeros(9, np.float32)), "squares", "x")


def test_least_squares_is_the_least():
    """Beside all ranges of a fine mesh, for numbers of a long tail."""
    x = np.random.default_rng(0).standard_t(3, size=20_000).astype(np.float32)

    def error(grid):
        return ((eight_bits.dequantise(eight_bits.quantise(x, grid), grid) - x) ** 2).sum()

    got = error(choose(histogram_of(x), "squares", "x"))
    mesh = [
        error(eight_bits.grid_of(low, high))
        for low in -np.linspace(3, 40, 20)
        for high in np.linspace(3, 40, 20)
    ]
    assert got <= 1.05 * min(mesh) and got < error(choose(histogram_of(x), "minmax", "x"))


def test_one_scale_for_all_filters_is_worse():
    net = random_net("mobilenet_v2")
    for unit in (layer for _, layer in net.walk() if layer.kind == "depthwise"):
        unit.params["bn.gamma"][:] *= np.geomspace(0.02, 2, unit.params["bn.gamma"].size).astype(np.float32)
    x = some(net)
    want = net.predict(x)
    far = [
        np.linalg.norm(quantised.quantise(net, x, method="minmax", per_tensor=way).predict(x) - want)
        for way in (False, True)
    ]
    assert far[1] > 1.5 * far[0]


# --- report -------------------------------------------------------------------------------------------------


def test_the_report(v3):
    net, whole, x = v3
    rows = quantised.report(net, whole, x)
    assert [row["name"] for row in rows] == [step.name for step in whole.steps]
    maps = run(trace(net), x)
    for row in rows:
        assert row["hurt"] >= 0 and 0 <= row["cut"] <= 1
        if row["range"]:
            assert row["range"][0] <= 0 <= row["range"][1]
    logits = whole.predict(x)
    noise = ((maps[-1] - logits).astype(np.float64) ** 2).sum()
    want = 10 * np.log10((maps[-1].astype(np.float64) ** 2).sum() / noise)
    assert rows[-1]["signal_db"] == pytest.approx(want, abs=0.05)


def test_a_step_that_is_spoilt_hurts_and_no_other_does(v3):
    net, whole, x = v3
    steps = list(whole.steps)
    at = next(i for i, step in enumerate(steps) if step.kind == "conv" and i > 3)
    spoilt = type(steps[at])(**{**steps[at].__dict__, "scales": steps[at].scales * np.float32(30)})
    steps[at] = spoilt
    bad = quantised.QuantisedNet(steps, whole.grid, whole.input_shape)
    before, after = (quantised.report(net, each, x) for each in (whole, bad))
    assert after[at]["hurt"] > 3 * before[at]["hurt"] and after[at]["signal_db"] < before[at]["signal_db"] - 6
    others = [i for i in range(len(steps)) if i != at]
    assert [after[i]["hurt"] for i in others] == [before[i]["hurt"] for i in others]


# --- files --------------------------------------------------------------------------------------------------


def test_a_file_gives_the_same_net_again(v3, tmp_path):
    net, whole, x = v3
    whole.save(tmp_path / "a.safetensors")
    again = library.load(tmp_path / "a.safetensors")
    assert isinstance(again, quantised.QuantisedNet) and again.class_names == net.class_names
    assert again.scaling == HALF and again.config == net.config and again.nbytes == whole.nbytes
    assert (again.predict(x) == whole.predict(x)).all()
    again.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    tensors, document = checkpoint.read(tmp_path / "a.safetensors")
    assert document["format"] == 2 and {array.dtype.name for array in tensors.values()} == {
        "int8",
        "int32",
        "float32",
    }


def replaced_after_the_first_look(monkeypatch, file, other):
    """The file's document is read, and then its place taken by ``other``, as by a training that goes on."""

    def look(path):
        found = read(path)
        os.replace(other, file)
        return found

    read = loading.read_document
    monkeypatch.setattr(loading, "read_document", look)


@pytest.mark.parametrize("use", [library.load, loading.describe_checkpoint])
def test_a_file_that_is_replaced_while_it_is_read_gives_one_net_and_no_mixture(
    v3, tmp_path, monkeypatch, use
):
    net, whole, x = v3
    file, other = tmp_path / "best.safetensors", tmp_path / "other.safetensors"
    whole.save(file)
    newer = quantised.quantise(net, 3 * x, method="minmax")
    newer.save(other)
    assert newer.grid != whole.grid
    replaced_after_the_first_look(monkeypatch, file, other)
    found = use(file)
    assert found.grid == newer.grid and (found.predict(x) == newer.predict(x)).all()


def test_a_file_that_becomes_one_of_floats_while_it_is_read_is_one_line(v3, tmp_path, monkeypatch):
    net, whole, _ = v3
    file, other = tmp_path / "best.safetensors", tmp_path / "other.safetensors"
    whole.save(file)
    net.save(other)
    replaced_after_the_first_look(monkeypatch, file, other)
    with pytest.raises(NumnetError, match=r"best.safetensors: was replaced while it was read; try again$"):
        library.load(file)


def test_copies_and_threads(v3):
    """A copy has memory of its own; two threads in one net are told so."""
    import copy
    import pickle
    import threading

    whole, x = v3[1], v3[2]
    want = whole.predict(x)
    for other in (copy.deepcopy(whole), pickle.loads(pickle.dumps(whole))):
        assert (other.predict(x) == want).all() and other._lock is not whole._lock
    caught = []

    def work():
        try:
            whole.predict(x)
        except RuntimeError as error:
            caught.append(str(error))

    with whole._alone():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(caught) == 1 and "another thread" in caught[0]


def test_the_cost_has_the_form_of_a_float_nets(v3, tmp_path):
    net, whole, _ = v3
    whole.save(tmp_path / "a.safetensors")
    cost, facts = library.load(tmp_path / "a.safetensors").cost(), whole.summary()
    assert type(cost) is type(net.cost()) and cost.macs == net.cost().macs == facts["macs"]
    assert (cost.params, cost.buffers) == (facts["total_params"], 0)
    rows = [(row.name, row.type, list(row.output_shape), row.cost.macs, row.cost.params) for row in cost.rows]
    keys = ("name", "type", "output_shape", "macs", "params")
    assert rows == [tuple(row[key] for key in keys) for row in facts["layers"]]


def step_of(document, kind):
    return next(row for row in document["quantised"]["steps"] if row["kind"] == kind)


def test_a_file_has_windows_and_branches(tmp_path):
    net = branched()
    whole = quantised.quantise(net, some(net), method="minmax")
    whole.save(tmp_path / "a.safetensors")
    again = library.load(tmp_path / "a.safetensors")
    for step, other in zip(whole.steps, again.steps, strict=True):
        assert (step.kind, step.frame, step.reads, step.grid) == (
            other.kind,
            other.frame,
            other.reads,
            other.grid,
        )
    assert (again.predict(some(net)) == whole.predict(some(net))).all()
    rows = again.summary()["layers"]
    assert [row["type"] for row in rows] == [
        step.kind if step.kind != "table" else "hswish" for step in whole.steps
    ]
    assert all(row["macs"] == row["params"] == 0 for row in rows if row["type"] in ("maximum", "concat"))


ONE = Grid(0.5, 3)
WINDOW = (3, 2, ((1, 0), (1, 1)))  # of a map (6, 5, 4): 3×3 pixels


def alone(kind, shape, reads=(0,), frame=WINDOW, grid=ONE):
    return quantised.QuantisedNet(
        [quantised.steps.Step(kind, kind, reads, shape, frame, grid=grid)], ONE, (6, 5, 4)
    )


def test_steps_that_fit():
    for net in (
        alone("maximum", (3, 3, 4)), alone("maximum", (4,), frame=(6, 1, ((0, 0), (0, 1)))),
        alone("concat", (6, 5, 8), (0, 0), grid=Grid(0.25, 9)), alone("concat", (6, 5, 12), (0, 0, 0)),
    ):  # fmt: skip
        quantised.files.check(net)
        q = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 4)).astype(np.uint8)
        assert (net.maps(q)[1] == net.definition_maps(q)[1]).all()


@pytest.mark.parametrize(
    "kind, shape, more",
    [
        ("maximum", (3, 2, 4), {}),
        ("maximum", (3, 3, 5), {}),
        ("maximum", (1, 3, 3, 4), {}),
        ("maximum", (3, 3, 4), {"grid": Grid(0.5, 4)}),
        ("maximum", (3, 3, 4), {"reads": (0, 0)}),
        ("maximum", (4, 4, 4), {"frame": (3, 2, ((3, 0), (2, 2)))}),  # its first windows lie in the padding
        ("maximum", (3, 3, 4), {"frame": (3, 2, ((-1, 2), (1, 1)))}),
        ("maximum", (1, 1, 4), {"frame": (3, 2**70, ((0, 0), (0, 0)))}),
        ("maximum", (1, 1, 4), {"frame": (2**40, 1, ((2**40 - 6, 0), (2**40 - 5, 0)))}),
        ("concat", (6, 5, 9), {"reads": (0, 0)}),
        ("concat", (5, 6, 8), {"reads": (0, 0)}),
        ("concat", (30, 8), {"reads": (0, 0)}),
        ("concat", (6, 5, 1, 8), {"reads": (0, 0)}),
    ],
)
def test_steps_that_do_not_fit(kind, shape, more):
    with pytest.raises(ValueError, match="does not fit what it reads"):
        quantised.files.check(alone(kind, shape, **more))


@pytest.mark.parametrize(
    "kind, change",
    [
        ("maximum", {"grid": [0.5, 3]}),
        ("maximum", {"shape": [8, 11, 22]}),
        ("maximum", {"frame": [2, 0, [[0, 1], [1, 0]]]}),
        ("maximum", {"frame": [2, 1, [[1], [1]]]}),
        ("maximum", {"reads": [1, 1]}),
        ("concat", {"reads": [2]}),
        ("concat", {"reads": []}),
        ("concat", {"reads": [3, 4, 4]}),
        ("concat", {"shape": [8, 11, 40]}),
        ("concat", {"grid": [0.0, 3]}),
    ],
)
def test_damaged_windows_and_branches_are_one_line(tmp_path, kind, change):
    file = tmp_path / "net.safetensors"
    quantised.quantise(branched(), some(branched()), method="minmax").save(file)
    tensors, document = checkpoint.read(file)
    step_of(document, kind).update(change)
    checkpoint.write(file, tensors, document)
    with pytest.raises(NumnetError, match="damaged") as caught:
        library.load(file)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda t, d: t.pop("stem.weight"),
        lambda t, d: t.update({"stem.weight": t["stem.weight"][..., :-1].copy()}),
        lambda t, d: t.update({"stem.scales": -t["stem.scales"]}),
        lambda t, d: t.update({"stem.bias": t["stem.bias"].astype(np.float32)}),
        lambda t, d: d["quantised"]["steps"][0].update(kind="fft"),
        lambda t, d: d["quantised"]["steps"][0].update(reads=[9]),
        lambda t, d: d["quantised"]["steps"][0].update(frame=[3, 0, [[0, 1], [0, 1]]]),
        lambda t, d: d["quantised"]["steps"][0].update(shape=[999, 8, 16]),
        lambda t, d: d["quantised"]["steps"][0].update(grid=[0.1, 300]),
        lambda t, d: d["quantised"]["steps"][0].pop("grid"),
        lambda t, d: d["quantised"].update(steps=[]),
        lambda t, d: d["quantised"].update(input_shape="wide"),
        lambda t, d: d.update(format=99),
    ],
)
def test_damaged_files_are_one_line(v3, tmp_path, change):
    file = tmp_path / "net.safetensors"
    v3[1].save(file)
    tensors, document = checkpoint.read(file)
    change(tensors, document)
    checkpoint.write(file, tensors, document)
    with pytest.raises(NumnetError, match=r"damaged|format 99") as caught:
        library.load(file)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "behind",
    [
        lambda: [Pointwise(6, activation="hswish"), GlobalAverage(), Dense(3)],
        lambda: [GlobalAverage(keep=True), Conv(3, 1), Flatten()],
        lambda: [MaxPool(2), GlobalAverage(), Dense(3)],
    ],
    ids=["in front of a convolution", "of an average", "of a maximum"],
)
def test_the_factor_of_paddles_dropout_goes_into_the_weights_behind_it(behind):
    net = library.Net([Conv(8, 3, activation="relu"), Dropout(0.5, downscale=True), *behind()], (8, 8, 3))
    x = some(net)
    want = net.predict(x)
    got = quantised.quantise(net, x, method="minmax").predict(x)
    assert np.linalg.norm(got - want) <= 0.03 * np.linalg.norm(want)


@pytest.mark.parametrize(
    "behind, place",
    [
        (lambda: [Activation("hswish"), GlobalAverage(), Dense(3)], "in front of activation"),
        (lambda: [GlobalAverage()], "at the end of this net"),
    ],
)
def test_a_factor_without_weights_behind_it_is_refused(behind, place):
    net = library.Net([Conv(8, 3, activation="relu"), Dropout(0.5, downscale=True), *behind()], (8, 8, 3))
    with pytest.raises(NumnetError, match=f"factor of Dropout.* {place}"):
        quantised.quantise(net, some(net))


def test_what_is_refused(v3):
    net, whole, x = v3
    for bad, words in (
        (x[:3], "at least 16 images, got 3"), (x[:, :5], "expected scaled images"), (x.astype(int), "floats, got int"),
        (np.where(x > 3, np.nan, x).astype(np.float32), "not finite"), (0 * x, "is 0 for all"),
    ):  # fmt: skip
        with pytest.raises(NumnetError, match=words):
            quantised.quantise(net, bad)
    with pytest.raises(NumnetError, match="expected one of output, squares"):
        quantised.quantise(net, x, method="best")
    with pytest.raises(NumnetError, match="of kind 'average pool'"):
        other = library.Net([AveragePool(2), Flatten(), Dense(3)], (8, 8, 3))
        quantised.quantise(other, some(other))
    broken = random_net("mobilenet_v1")
    broken.flat[0] = np.nan
    with pytest.raises(NumnetError, match="not finite"):
        quantised.quantise(broken, some(broken))
    for bad in (x[0], x.astype(int), np.full_like(x, np.nan)):
        with pytest.raises(ValueError, match="x:"):
            whole.predict(bad)
    with pytest.raises(ValueError, match="batch_size"):
        whole.predict(x, batch_size=0)
    assert whole.predict(x[:0]).shape == (0, 7)


def test_scales_that_do_not_go_together(v3):
    steps = list(v3[1].steps)
    steps[0] = type(steps[0])(**{**steps[0].__dict__, "grid": Grid(1e-25, 3)})
    with pytest.raises(NumnetError, match="stem: scales that do not go together"):
        quantised.QuantisedNet(steps, v3[1].grid, v3[1].input_shape).predict(v3[2])


# --- the commands -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eights")
    write_images(folder / "photos", train=8, test=3)
    net = random_net("mobilenet_v2", classes=3)
    net.save(folder / "net.safetensors", input=HALF, classes=list(CLASSES))
    out = works(
        "quantise",
        folder / "net.safetensors",
        folder / "photos",
        "-o",
        folder / "eight.safetensors",
        "--images",
        20,
    )
    assert "hurt most" in out and "logits" in out and "20 images" in out
    return folder


def test_eval_predict_and_summary_take_it(place):
    both = [
        json.loads(works("eval", place / file, place / "photos", "--json"))
        for file in ("net.safetensors", "eight.safetensors")
    ]
    assert both[0]["images"] == both[1]["images"] == 9 and abs(both[0]["loss"] - both[1]["loss"]) < 0.3
    photo = place / "photos/test/red/0.png"
    seen = json.loads(works("predict", place / "eight.safetensors", photo, "--json"))[0]["top"]
    assert {row["label"] for row in seen} == set(CLASSES)
    facts = json.loads(works("summary", place / "eight.safetensors", "--json"))
    floats = json.loads(works("summary", place / "net.safetensors", "--json"))
    assert facts["macs"] == floats["macs"] and facts["bytes"] < 0.5 * 4 * floats["total_params"]
    assert facts["bytes"] == sum(row["bytes"] for row in facts["layers"])
    assert "all, in eight bits" in works("summary", place / "eight.safetensors")
    assert "eight.safetensors" in works("info", place / "eight.safetensors")


def test_the_command_as_json(place):
    out = json.loads(
        works("quantise", place / "net.safetensors", place / "photos", "-o", place / "other.safetensors",
              "--ranges", "minmax", "--per-tensor", "--equalise", "--correct-bias", "--json", "--images", 16)
    )  # fmt: skip
    assert out["ranges"] == "minmax" and out["per_tensor"] and len(out["steps"]) > 30
    assert out["file_bytes"] == (place / "other.safetensors").stat().st_size


def test_the_test_counts_by_the_names_of_the_classes(place, monkeypatch):
    """A class less: as `numnet eval` says, and so it stands in the file, with the way in which images were resized."""
    monkeypatch.chdir(place)
    shutil.copytree("photos", "fewer", ignore=shutil.ignore_patterns(CLASSES[0]))
    options = ["--images", 16, "--preset", "stretch", "--json"]
    out = json.loads(works("quantise", "net.safetensors", "fewer", "-o", "q.safetensors", "--test", *options))
    floats = json.loads(works("eval", "net.safetensors", "fewer", "--preset", "stretch", "--json"))
    eights = json.loads(works("eval", "q.safetensors", "fewer", "--json"))
    assert out["float_accuracy"] == floats["accuracy"] and out["test_accuracy"] == eights["accuracy"]
    assert floats["loss"] != json.loads(works("eval", "net.safetensors", "fewer", "--json"))["loss"]
    assert out["test_loss"] == pytest.approx(eights["loss"], rel=1e-6)


def test_images_of_the_training_are_no_test(place, tmp_path, monkeypatch):
    """The folder ``train`` alone, of a net that was trained on all that is in it; beside ``test`` it may be named."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "photos", "photos")
    read = data.load("photos", resolution=16)
    net = library.load(place / "net.safetensors")
    net.save("net.safetensors", reading={"dataset": read.name, "options": {}}, digest=read.digest)
    options = ["-o", "q.safetensors", "--images", 16]
    code, out, err = numnet("quantise", "net.safetensors", "photos/train", *options, "--test")
    said = (
        "--test: the net was trained on all images of photos/train; expected a folder with test images, too"
    )
    assert (code, out) == (2, "") and err.splitlines()[-1] == f"numnet: error: {said}"
    assert not (tmp_path / "q.safetensors").exists()
    works("quantise", "net.safetensors", "photos/train", *options)
    assert "test images right" in works("quantise", "net.safetensors", "photos", *options, "--test")


def save_a_seeing_net(file):
    """A net of random weights whose answers differ from image to image."""
    tiny = {"width": 0.125, "resolution": 16, "strides": "cifar", "shallow": True}
    net, rng = library.build("mobilenet_v1", classes=3, seed=1, **tiny), np.random.default_rng(0)
    net.params["logits.weight"][...] = rng.normal(size=net.params["logits.weight"].shape)
    for _ in range(30):  # batch norm's running statistics
        net.forward(rng.normal(size=(8, 16, 16, 3)).astype(np.float32), training=True)
    net.save(file, input=HALF, classes=list(CLASSES))


@pytest.mark.parametrize("kept", [CLASSES, CLASSES[:2]])
def test_the_test_counts_numbers_of_lists_from_where_they_begin(place, tmp_path, kept):
    net, whole = tmp_path / "net.safetensors", tmp_path / "q.safetensors"
    save_a_seeing_net(net)
    for part, count in (("train", 8), ("test", 3)):
        lines = [
            f"{place}/photos/{part}/{c}/{i}.png {n}" for n, c in enumerate(kept, 1) for i in range(count)
        ]
        (tmp_path / f"{part}_list.txt").write_text("\n".join(lines))
        for c in kept:
            shutil.copytree(place / "photos" / part / c, tmp_path / "photos" / part / c)
    options = ["-o", whole, "--test", "--images", 16, "--json"]
    out = json.loads(works("quantise", net, tmp_path, *options))
    floats, eights = (json.loads(works("eval", file, tmp_path / "photos", "--json")) for file in (net, whole))
    assert out["float_accuracy"] == floats["accuracy"] and out["test_accuracy"] == eights["accuracy"]
    assert out["test_loss"] == pytest.approx(eights["loss"], rel=1e-6)


def test_the_background_is_kept_for_those_who_use_the_net(tmp_path, monkeypatch):
    """Images are read with it here, and by eval and predict without a word."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    save_a_seeing_net("net.safetensors")
    for part in ("train", "test"):
        for name in CLASSES:
            (tmp_path / "glass" / part / name).mkdir(parents=True)
            for i in range(6):
                pixels = rng.integers(0, 255, (20, 20, 4), dtype=np.uint8)
                pixels[..., 3] = 255 * (np.arange(20) > 12)
                Image.fromarray(pixels).save(tmp_path / "glass" / part / name / f"{i}.png")
    options = ["--images", 16, "--test", "--background", "white", "--json"]
    out = json.loads(works("quantise", "net.safetensors", "glass", "-o", "q.safetensors", *options))
    assert out["background"] == "white"
    kept = json.loads(works("eval", "q.safetensors", "glass", "--json"))
    assert kept["accuracy"] == out["test_accuracy"]
    assert kept["loss"] == pytest.approx(out["test_loss"], rel=1e-6)
    told = {
        name: json.loads(works("eval", "q.safetensors", "glass", "--json", "--background", name))["loss"]
        for name in ("white", "black")
    }
    assert kept["loss"] == told["white"] != told["black"]
    photo = "glass/test/red/0.png"
    seen = [
        json.loads(works("predict", "q.safetensors", photo, "--json", *more))[0]["top"]
        for more in ([], ["--background", "white"], ["--background", "black"])
    ]
    assert seen[0] == seen[1] != seen[2]


def test_load_weights_refuses_it_in_one_line(place):
    net = library.build("mobilenet_v2", width=0.25, resolution=32, classes=3)
    with pytest.raises(NumnetError, match="a net in eight bits; expected one of floats"):
        library.load_weights(net, place / "eight.safetensors")


def test_the_data_sets_that_no_preset_touches_are_the_built_in_ones():
    assert data.BUILT_IN == source.UNTOUCHED


@pytest.mark.parametrize("shape", [{"resolution": [32, 48]}, {"resolution": 32, "channels": 1}])
def test_nets_of_other_images(place, monkeypatch, shape):
    monkeypatch.chdir(place)
    random_net("mobilenet_v1", classes=3, width=0.25, **shape).save(
        "odd.safetensors", input=HALF, classes=list(CLASSES)
    )
    out = works("quantise", "odd.safetensors", "photos", "-o", "odd8.safetensors", "--images", 16, "--test")
    assert "test images right" in out


def test_mistakes_are_one_line(place, monkeypatch):
    monkeypatch.chdir(place)
    (place / "few/train/red").mkdir(parents=True, exist_ok=True)
    for arguments, words in (
        (["quantise", "eight.safetensors", "photos", "-o", "x.safetensors"], "a net in eight bits"),
        (["quantise", "net.safetensors", "photos", "-o", "x.onnx"], "ends in .safetensors"),
        (["quantise", "net.safetensors", "photos"], "-o/--out is missing"),
        (["quantise", "net.safetensors", "nowhere", "-o", "x.safetensors"], "data set"),
        (["quantise", "net.safetensors", "photos", "-o", "x.safetensors", "--images", "3"], "at least 16"),
        (
            ["quantise", "net.safetensors", "photos", "-o", "x.safetensors", "--ranges", "mean"],
            "output, squares",
        ),
        (["quantise", "net.safetensors", "few", "-o", "x.safetensors"], "few"),
        (["train", "photos", "--init", "eight.safetensors"], "train --init needs the float net"),
        (["cost", "eight.safetensors"], "a net in eight bits"),
        (["draw", "eight.safetensors", "-o", "x.png"], "a net in eight bits"),
        (["summary", "eight.safetensors", "--width", "2"], "a net in eight bits"),
        (
            ["predict", "eight.safetensors", "photos/test/red/0.png", "--explain"],
            "--explain needs the float net",
        ),
        (["export", "eight.safetensors", "x.safetensors"], "export to .safetensors needs the float net"),
    ):
        code, out, err = numnet(*arguments)
        assert code == 2 and out == "", (arguments, err)
        assert err.startswith("numnet: error: ") and err.count("\n") == 1 and words in err, (arguments, err)
        assert not (place / "x.safetensors").exists()


# --- equalisation and bias correction -----------------------------------------------------------------------


def spread(net, seed=0):
    """The same function with filters of very different size: gammas of the norms before a pair's second layer."""
    draw = np.random.default_rng(seed)
    for unit in (layer for _, layer in net.walk() if layer.kind == "depthwise"):
        unit.params["bn.gamma"][:] *= np.geomspace(0.02, 2, unit.params["bn.gamma"].size).astype(np.float32)
        draw.shuffle(unit.params["bn.gamma"])
    return net


def test_equalisation_leaves_the_function_of_a_relu_net_as_it_is():
    net = spread(random_net("mobilenet_v2", activation="relu"))
    steps = trace(net)
    equal = equalise.equalised(steps)
    x = some(net, 4)
    want, got = run(steps, x)[-1], run(equal, x)[-1]
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
    pairs = equalise.pairs_of(steps)
    assert len(pairs) > 20
    for a, b in pairs:
        before, after = (
            np.log(equalise._sizes(each[a], True) / equalise._sizes(each[b], False))
            for each in (steps, equal)
        )
        assert np.abs(after).max() < 0.02 < np.abs(before).max(), steps[a].name


def test_equalisation_goes_through_maxima():
    """VGG16's and plain_3x3's pairs have poolings between them; a map that branches is left alone."""
    net = random_net("plain_3x3")
    steps, x = trace(net), some(net, 4)
    pairs = [(steps[a].name, steps[b].name) for a, b in equalise.pairs_of(steps)]
    assert ("conv1_1", "conv1_2") in pairs and ("conv2_1", "conv2_2") in pairs and len(pairs) == 6
    want, got = run(steps, x)[-1], run(equalise.equalised(steps), x)[-1]
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
    steps = trace(branched())
    kinds = [(steps[a].kind, steps[b].kind) for a, b in equalise.pairs_of(steps)]
    assert kinds == []


def test_relu6_becomes_relu_and_only_numbers_above_6_tell():
    net = random_net("mobilenet_v2")
    steps, x = trace(net), some(net, 4)
    maps = run(steps, x)
    equal = equalise.equalised(steps)
    assert not any(equal[a].code == CODES["relu6"] for a, _ in equalise.pairs_of(steps))
    assert any(step.code == CODES["relu6"] for step in steps)
    never = all(maps[a + 1].max() < 6 for a, _ in equalise.pairs_of(steps) if steps[a].code)
    same = np.abs(run(equal, x)[-1] - maps[-1]).max() <= 1e-5 * np.abs(maps[-1]).max()
    assert never and same
    for unit in (layer for _, layer in net.walk() if layer.kind == "depthwise"):
        unit.params["bn.beta"][:] += 5.9  # now some are cut, and the two differ
    steps = trace(net)
    want, got = run(steps, x)[-1], run(equalise.equalised(steps), x)[-1]
    assert np.abs(got - want).max() > 1e-3 * np.abs(want).max()


def test_equalisation_saves_one_scale_for_all_filters():
    """A net whose channels somebody has scaled up and down on the way, which changes no answer in real numbers."""
    net = random_net("mobilenet_v2", activation="relu")
    x, steps, draw = some(net), trace(net), np.random.default_rng(0)
    want = run(steps, x)[-1]
    for a, b in equalise.pairs_of(steps):
        factors = np.exp(draw.normal(size=len(steps[a].bias)))
        steps[a].weight, steps[a].bias = equalise._times(steps[a], factors, True), steps[a].bias * factors
        steps[b].weight = equalise._times(steps[b], 1 / factors, False)
    assert np.abs(run(steps, x)[-1] - want).max() <= 1e-4 * np.abs(want).max()
    far = [
        np.linalg.norm(
            quantised.quantise(net, x, method="minmax", per_tensor=True, equalise=way, steps=steps).predict(x)
            - want
        )
        for way in (False, True)
    ]
    assert far[1] < 0.5 * far[0]


def test_corrected_means_are_those_of_the_float_net():
    """Channel by channel, over the images that they were taken from; and without correction they are not."""
    net = spread(random_net("mobilenet_v1"))
    x, steps = some(net, 32), trace(net)
    want = run(steps, x)
    shifts = []
    for way in (False, True):
        whole = quantised.quantise(net, x, method="minmax", per_tensor=True, correct=way)
        logits = whole.predict(x)
        shifts.append(np.abs(logits.mean(axis=0) - want[-1].mean(axis=0)).max())
    assert shifts[1] < 0.2 * shifts[0]


def test_an_equalised_net_reports_and_saves(tmp_path):
    net = random_net("mobilenet_v2", activation="relu")
    x = some(net)
    whole = quantised.quantise(net, x, method="minmax", equalise=True, correct=True)
    rows = quantised.report(net, whole, x, hurt=False)
    assert min(row["signal_db"] for row in rows if row["signal_db"] is not None) > 10
    whole.save(tmp_path / "a.safetensors")
    again = library.load(tmp_path / "a.safetensors")
    assert (again.predict(x) == whole.predict(x)).all()
    signals = [row["signal_db"] for row in rows]
    for other in (again, copy.deepcopy(whole)):  # whatever way it comes, the same figures
        assert [row["signal_db"] for row in quantised.report(net, other, x, hurt=False)] == signals
    steps = quantised.quantise(net, x, method="minmax", steps=equalise.equalised(trace(net)), correct=True)
    assert [row["signal_db"] for row in quantised.report(net, steps, x, hurt=False)] == signals
