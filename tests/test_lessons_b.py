"""Exercises of notebooks 05 to 07: right answers are accepted, plausible wrong ones rejected; and their tools."""

import json
from math import log, sqrt

import numpy as np
import pytest

import numnet
from numnet.blocks import Conv, InvertedResidual, Norm, Pointwise
from numnet.data import shapes
from numnet.layers import Dense, GlobalAverage
from numnet.lessons import budget, check, display, family, training


@pytest.fixture
def refuses(capsys):
    """refuses(exercise, answer, …): the check said no, with a hint."""

    def refused(exercise, *arguments):
        capsys.readouterr()
        verdict = exercise(*arguments)
        said = capsys.readouterr().out
        return verdict is False and any(
            line.startswith(check.WRONG) and len(line) > 20 for line in said.splitlines()
        )

    return refused


# --- tables and pictures ------------------------------------------------------------------------------------


def test_a_table_shows_itself_as_one():
    table = display.Table(("net", "MACs"), [("V1", "568.7"), ("a | b", "–")])
    assert table._repr_markdown_().splitlines() == [
        "| net | MACs |",
        "| :--- | ---: |",
        "| V1 | 568.7 |",
        "| a \\| b | – |",
    ]
    assert repr(table).splitlines() == ["net     MACs", "────────────", "V1     568.7", "a | b      –"]
    assert display.Table(("a",), [])._repr_markdown_() == "| a |\n| :--- |"
    with pytest.raises(ValueError, match="expected 2 entries"):
        display.Table(("a", "b"), [(1,)])


def test_a_figure_of_another_room_shows_itself():
    from numnet import drawing

    shown = display.Shown(drawing.draw(numnet.describe("mobilenet_v1")), inches=5)
    data, size = shown._repr_png_()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and size["width"] == 480 and size["height"] > 480
    assert int.from_bytes(data[16:20], "big") == 720  # pixels: half as many again


# --- 05: the family -----------------------------------------------------------------------------------------


def test_relu_folds_in_few_dimensions_and_not_in_many():
    points = family.spiral()
    straight = family.back(family.there(points, 2), points)
    assert family.lost(points, straight) < 1e-12
    assert family.lost(points, np.zeros_like(points) + points.mean(axis=0)) == pytest.approx(1)
    few, many = (
        np.median([family.lost(points, family.back(np.maximum(family.there(points, d, s), 0), points)) for s in range(20)])
        for d in (2, 30)
    )  # fmt: skip
    assert few > 0.1 and many < 1e-3


@pytest.mark.parametrize(
    "exercise, right, wrong",
    [
        (family.exercise_1, 3, 5),  # all of them, as before ReLU
        (family.exercise_1, 3, 2),  # the origin forgotten
        (family.exercise_2, 10_988_544, 28 * 28 * 32 * 73),  # t forgotten
        (family.exercise_2, 10_988_544, 28 * 28 * 192 * (32 * 9 + 32)),  # a standard convolution inside
        (family.exercise_3, 1504, 16 + 24 + 32 + 64 + 96 + 160 + 320),  # repeats forgotten
        (family.exercise_3, 1504, 17),  # one a block
        (family.exercise_4, 34_317_760, 35_546_560),  # what comes in return forgotten
        (family.exercise_4, 34_317_760, 9 * 960 + 960 * 320 + 320 * 1280 - 960 * 1280),  # at one place
        # fvcore's pooling taken for batch norm
        (family.exercise_5, 6_678_112, (314_193_216 - 300_774_272) // 2),
        (family.exercise_5, 6_678_112, 327_486_720 - 300_774_272),  # not divided by four
    ],
)
def test_the_family(exercise, right, wrong, refuses):
    assert exercise(right) and refuses(exercise, wrong)


def own_net(stride=2, squeeze=24, channels=24, last=96):
    frame = {"activation": "relu6", "norm": Norm()}
    layers = [
        Conv(16, 3, stride, **frame),
        InvertedResidual(24, expanded=64, **frame),
        InvertedResidual(channels, expanded=96, squeeze=squeeze, **frame),
        Pointwise(last, **frame),
        GlobalAverage(),
        Dense(10),
    ]
    return numnet.Net(layers, (32, 32, 3), allocate=False)


def test_a_net_of_ones_own(refuses, capsys):
    assert family.exercise_6(own_net())
    assert "no " not in capsys.readouterr().out
    assert refuses(family.exercise_6, own_net(stride=1))  # too many MACs
    assert refuses(family.exercise_6, own_net(last=1280))  # too many parameters
    assert refuses(family.exercise_6, own_net(squeeze=0))
    assert refuses(family.exercise_6, own_net(channels=32))  # 24 → 32: nothing can be added
    assert refuses(family.exercise_6, "mobilenet_v2")


def test_what_stands_in_print_is_counted():
    counted = {(row[0], row[1]): row[3] for row in family.in_print().rows}
    assert counted["an article on MnasNet", "what its blocks end in"].startswith("linear: 16 of 16")
    assert (
        "8.41 times: 86,400 against 10,275" in counted.values()
        and "51,381,248 parameters more" in counted.values()
    )
    assert counted["V1, table 2", "the 3×3 convolution's part of the MACs"] == "1.91 %"
    assert counted["V2, section 4", "bottleneck blocks"] == "17"
    assert counted["V2, table 4", "V2 1.4: parameters, MACs"] == "6.1 M, 582.2 M"
    assert counted["Keras, docs of V1", "MACs at 224, 192, 160, 128"] == "568.7 / 418.1 / 290.7 / 186.4 M"


def test_the_two_tails_end_in_the_same_number_of_channels():
    assert family.tail(True).output_shape == family.tail(False).output_shape == (1280,)


# --- 06: training -------------------------------------------------------------------------------------------


def test_data_is_cifar10_where_it_lies_and_shapes_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(training.cifar10, "find", lambda: None)
    data = training.load(60, 20, 30)
    assert data.name == "shapes" and (len(data.train), len(data.validation), len(data.test)) == (60, 20, 30)
    words = training.what_it_is(data)
    assert "not on this machine" in words and "download=True" in words
    assert "170 MB" in words and f"kept in {training.where()}" in words and "numnet data cifar10" in words
    asked = []
    monkeypatch.setattr(
        training.datasets, "load", lambda name, download: asked.append(download) or shapes.load(90, 40)
    )
    training.load(60, 20, 30, download=True)
    assert asked == [True]
    random = training.few(data, 20, shuffled=True)
    assert len(random.train) == 20 and np.array_equal(random.train.images, data.train.images[:20])
    assert not np.array_equal(random.train.labels, data.train.labels[:20])
    assert np.array_equal(training.few(data, 20).train.labels, data.train.labels[:20])


def test_exercises_of_training(refuses):
    data = training.shapes.load(train=20, test=10)
    mean, std = data.mean[0], data.std[0]
    assert training.exercise_1((1 - mean) / std, data)
    assert refuses(training.exercise_1, (255 - mean) / std, data)  # not brought to 0 … 1
    assert refuses(training.exercise_1, 1.0, data)  # not scaled
    assert training.exercise_2(log(1000)) and training.exercise_2(6.908)
    assert refuses(training.exercise_2, 3.0)  # the logarithm to base 10
    assert refuses(training.exercise_2, -log(1000))
    assert training.exercise_3(5 * 313, 20_000, 64, 5)
    assert refuses(training.exercise_3, 5 * 312, 20_000, 64, 5)  # the last, smaller batches forgotten
    assert refuses(training.exercise_3, 313, 20_000, 64, 5)  # one epoch
    right = 100 * sqrt(0.6 * 0.4 / 2000)
    assert training.exercise_4(right, 0.6, 2000) and training.exercise_4(1.1, 0.6, 2000)
    assert refuses(training.exercise_4, right / 100, 0.6, 2000)  # not in per cent
    assert refuses(training.exercise_4, 100 * sqrt(0.6 * 0.4), 0.6, 2000)  # of one image
    assert training.exercise_5((0.5, 0.625))
    assert refuses(training.exercise_5, (0.625, 0.5))  # the other way round
    assert refuses(training.exercise_5, (0.5, 0.5))


def test_the_worst_come_first():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    assert training.worst(probabilities, np.array([0, 0, 1]), 2).tolist() == [1, 2]


def test_a_map_is_enlarged_between_the_middles_of_its_places():
    big = training._enlarged(np.array([[0.0, 1.0], [2.0, 3.0]]), 4)
    assert (
        big.shape == (4, 4)
        and np.allclose(big[0], [0, 0.25, 0.75, 1])
        and np.allclose(big[:, 0], [0, 0.5, 1.5, 2])
    )


def test_kept_runs(tmp_path):
    """``keep`` of a real, tiny run, and what ``saved_runs`` makes of it and of logs without about.json."""
    from numnet import checkpoint

    run = tmp_path / "there"
    record = {"epoch": 1, "train_accuracy": 0.4, "validation_accuracy": None, "seconds": 60.0}
    run.mkdir()
    (run / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    result = dict.fromkeys(
        ("test_accuracy", "validation_accuracy", "train_seconds", "images_per_second"), 0.5
    )
    (run / "result.json").write_text(json.dumps({**result, "epochs": 1, "checkpoint": "/a/path/of/mine"}))
    model = {"model": "mobilenet_v1", "width": 0.5, "resolution": 32}
    checkpoint.write(run / "last.safetensors", {"x": np.zeros(1)}, {"recipe": {"model": model}})
    training.keep(run, tmp_path / "runs" / "mine", data="shapes")
    assert "/a/path" not in (tmp_path / "runs" / "mine" / "about.json").read_text("utf-8")
    for name, text in (("begun", ""), ("bare", json.dumps(record) + "\n")):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "metrics.jsonl").write_text(text)
    runs = training.saved_runs(tmp_path / "runs")
    assert [saved.name for saved in runs] == ["bare", "mine"]
    assert training.listed(runs).rows == [
        ["bare", "–", "–", "1", "1.0", "–", "–", "–"],
        ["mine", "mobilenet_v1 × 0.5", "shapes", "1", "1.0", "–", "50.00", "–"],
    ]
    curves = training.saved_curves(runs)
    assert [text.get_text() for text in curves.axes[1].get_legend().get_texts()] == [
        "bare (training images)",
        "mine (training images)",
    ]
    assert curves._repr_png_() and training.saved_curves([])._repr_png_()
    (tmp_path / "runs" / "bare" / "metrics.jsonl").write_text("{")
    with pytest.raises(numnet.NumnetError, match="bare: its log is damaged"):
        training.saved_runs(tmp_path / "runs")


def test_the_kept_runs_of_the_notebooks_are_whole_and_name_no_machines_folder():
    runs = training.saved_runs() + training.saved_runs(below="width-and-resolution")
    for run in runs:
        assert [record["epoch"] for record in run.history] == list(range(1, len(run.history) + 1))
        if run.about:
            assert run.about["epochs"] == len(run.history) and 0 < run.about["test_accuracy"] < 1
            assert "/" not in json.dumps(run.about).replace(" / ", "")


# --- 07: width and resolution -------------------------------------------------------------------------------


def test_exercises_of_the_budget(refuses):
    assert budget.exercise_1(13_296_640)
    assert refuses(budget.exercise_1, 52_283_392 // 4)  # exactly a quarter
    assert refuses(budget.exercise_1, 52_283_392 // 2)
    assert budget.exercise_2(160)
    assert refuses(budget.exercise_2, 192)  # 239 million
    assert refuses(budget.exercise_2, 128)  # fits, but is not the largest
    assert budget.exercise_4(0.75 * 2**-0.07) and budget.exercise_4(0.7145)
    assert refuses(budget.exercise_4, 0.75 * 2**0.07)  # the sign
    assert refuses(budget.exercise_4, 0.75 * 0.5**-0.07)  # half the target


def test_the_choice_within_a_limit(refuses):
    def best(rows, limit):
        return max((row for row in rows if row["ms"] <= limit), key=lambda row: row["accuracy"], default=None)

    def fastest(rows, limit):
        return min((row for row in rows if row["ms"] <= limit), key=lambda row: row["ms"], default=None)

    def slowest(rows, limit):
        return max((row for row in rows if row["ms"] <= limit), key=lambda row: row["ms"], default=None)

    def below(rows, limit):
        return max((row for row in rows if row["ms"] < limit), key=lambda row: row["accuracy"], default=None)

    def unbound(rows, limit):
        return max(rows, key=lambda row: row["accuracy"])

    def never_none(rows, limit):
        return max((row for row in rows if row["ms"] <= limit), key=lambda row: row["accuracy"])

    assert budget.exercise_3(best)
    for wrong in (fastest, slowest, below, unbound, never_none):
        assert refuses(budget.exercise_3, wrong), wrong.__name__


def test_two_orders_of_the_same_nets(refuses):
    rows = [
        {"name": "a", "accuracy": 0.70, "ms": 10.0, "macs": 100e6},
        {"name": "b", "accuracy": 0.70, "ms": 5.0, "macs": 200e6},  # faster than a, but counted dearer
        {"name": "c", "accuracy": 0.40, "ms": 1.0, "macs": 50e6},
    ]
    assert budget.order(rows, "ms", 5) == budget.order(rows, "ms", 50) == ["b", "a", "c"]
    assert budget.order(rows, "macs", 5) == ["a", "b", "c"]
    assert budget.order(rows, "ms", 5, w=-1.0)[0] == "c"
    assert budget.exercise_5({"a", "b"}, rows) and budget.exercise_5(["b", "a"], rows)
    assert refuses(budget.exercise_5, {"a", "b", "c"}, rows)
    assert refuses(budget.exercise_5, set(), rows)
    assert budget.exercise_5(set(), rows[2:])


def test_the_frontier_keeps_what_no_other_beats():
    rows = [
        {"name": "cheap", "accuracy": 0.5, "ms": 1.0},
        {"name": "beaten", "accuracy": 0.5, "ms": 2.0},
        {"name": "better", "accuracy": 0.6, "ms": 2.0},
        {"name": "slow", "accuracy": 0.6, "ms": 3.0},
    ]
    assert [row["name"] for row in budget.frontier(rows)] == ["cheap", "better"]
    assert len(budget.frontier([rows[0], dict(rows[0])])) == 2  # equals do not beat each other


def test_v1s_sixteen_nets_are_the_papers():
    """Tables 6 and 7 of the V1 paper, to the million; its 290 for 160 pixels is cut off, not rounded."""
    macs = budget.v1_grid("macs") / 1e6
    assert macs[:, 0].round().tolist() == [569, 325, 149, 41] and macs[0].astype(int).tolist() == [
        568,
        418,
        290,
        186,
    ]
    assert len(budget.PUBLISHED) == 12 and len({net.name for net in budget.PUBLISHED}) == 12
