"""Exercises of notebooks 05 to 07: right answers are accepted, plausible wrong ones rejected; and their tools."""

import numpy as np
import pytest

import numnet
from numnet.blocks import Conv, InvertedResidual, Norm, Pointwise
from numnet.layers import Dense, GlobalAverage
from numnet.lessons import check, display, family


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
        (
            family.exercise_5,
            6_678_112,
            (314_193_216 - 300_774_272) // 2,
        ),  # fvcore's pooling taken for batch norm
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
    assert counted["V1, table 2", "the 3×3 convolution's part of the MACs"] == "1.91 %"
    assert counted["V2, section 4", "bottleneck blocks"] == "17"
    assert counted["V2, table 4", "V2 1.4: parameters, MACs"] == "6.1 M, 582.2 M"
    assert counted["Keras, docs of V1", "MACs at 224, 192, 160, 128"] == "568.7 / 418.1 / 290.7 / 186.4 M"


def test_the_two_tails_end_in_the_same_number_of_channels():
    assert family.tail(True).output_shape == family.tail(False).output_shape == (1280,)
