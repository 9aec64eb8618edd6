"""Exercises of notebook 09: right answers are accepted, plausible wrong ones rejected; and its measurements."""

import numpy as np
import pytest

import numnet
from numnet.lessons import check, eights
from numnet.loading import PACKAGED, PACKAGED_INT8


@pytest.fixture
def refuses(capsys):
    """refuses(exercise, answer): the check said no, with a hint."""

    def refused(exercise, answer):
        capsys.readouterr()
        verdict = exercise(answer)
        return verdict is False and capsys.readouterr().out.startswith(check.WRONG)

    return refused


def requantise(total, m, s, zero):
    return min(max(((total * m + (1 << (s - 1))) >> s) + zero, 0), 255)


def test_exercises(refuses):
    assert eights.exercise_1((4 / 255, 64)) and eights.exercise_2(requantise)
    assert eights.exercise_4(7) and eights.exercise_3(6.02)
    for wrong in ((4 / 256, 64), (4 / 255, 63), (3 / 255, 64), 5):
        assert refuses(eights.exercise_1, wrong)
    for wrong in (
        lambda total, m, s, zero: min(max((total * m >> s) + zero, 0), 255),
        lambda total, m, s, zero: ((total * m + (1 << (s - 1))) >> s) + zero,
        lambda total, m, s, zero: min(max(int(total * m / 2**s + 0.5) + zero, 0), 255),
        lambda total, m, s, zero: min(max(round(total * m / 2**s) + zero, 0), 255),
    ):
        assert refuses(eights.exercise_2, wrong)
    assert all(refuses(eights.exercise_4, wrong) for wrong in (5, 3, 2.54, 6))
    assert all(refuses(eights.exercise_3, wrong) for wrong in (3, 12, 2))


def test_a_bit_is_worth_six_decibels():
    x = np.random.default_rng(0).uniform(0, 6, 100_000)
    signal = [eights.decibels(x, eights.rounded(x, 0, 6, bits)) for bits in (4, 5, 8)]
    assert signal[1] - signal[0] == pytest.approx(6.02, abs=0.6)
    assert signal[2] == pytest.approx(10 * np.log10((x**2).mean() / ((6 / 255) ** 2 / 12)), abs=0.1)
    assert len(np.unique(eights.rounded(x, 0, 6, 4))) == 16 and eights.decibels(x, x) == np.inf


def test_filters_with_one_scale_and_with_many():
    w = np.random.default_rng(0).normal(size=(9, 3)) * np.array([50, 1, 1])
    each, one = (eights.signal_of_filters(w, channel) for channel in (True, False))
    assert each.min() > 35 and one[0] == each[0] and one[1:].max() < 20
    assert len(eights.filters_drawn(w).axes) == 2


def test_the_packaged_net_in_eight_bits():
    """It answers as the float net does, its file is half as large, and says what was measured."""
    net, whole = numnet.load(PACKAGED), numnet.load(PACKAGED_INT8)
    assert PACKAGED_INT8.stat().st_size <= 0.53 * PACKAGED.stat().st_size
    assert (
        whole.class_names == net.class_names and whole.scaling == net.scaling and whole.config == net.config
    )
    made, result = whole.document["made"], whole.document["result"]
    assert made["dataset"] == "cifar10" and made["float_accuracy"] - result["test_accuracy"] <= 0.005
    images = eights.images_for(net, 32)
    same, apart = eights.agreement(net, whole, images)
    assert same >= 0.75 and apart < 0.05
    before = eights.before_activation(net, images[:4])
    found = eights.activations_in_bits(before)
    assert all(values[0] > values[1] > values[2] for values in found.values())
    assert found["relu6"][0] > found["relu"][0]


def test_the_stairs_and_what_training_sees():
    left, right = eights.stairs_drawn().axes
    y, slope = left.lines[1].get_ydata(), right.lines[0].get_ydata()
    assert len(np.unique(y)) == 8 and set(np.unique(slope)) == {0, 1}
    net = numnet.load(PACKAGED)
    assert eights.seen_in_training(net, eights.images_for(net, 16)) > 0.99


def test_results_are_drawn_with_gains_to_the_left():
    rows = [{"net": "a", "float": 0.8, "quantised": 0.79, "trained": 0.81}]
    axes = eights.results_drawn(rows).axes[0]
    assert [round(bar.get_width(), 6) for bar in axes.patches] == [1, -1]
