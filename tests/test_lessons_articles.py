"""Exercises of notebook 08: right answers are accepted, plausible wrong ones rejected; and its tools."""

import numpy as np
import pytest

import numnet
from numnet.lessons import articles, budget, check
from numnet.lessons.training import saved_runs


@pytest.mark.parametrize(
    "exercise, right, wrong",
    [
        (articles.exercise_1, 93, (92, 2302, 47)),
        (articles.exercise_2, 51381248, (51380224, 50176 * 1000, 1024 * 1000)),
        (articles.exercise_3, (-0.5, 1.5), ((0.0, 1.0), (1.5, -0.5))),
    ],
)
def test_exercises(exercise, right, wrong, capsys):
    assert exercise(right) is True
    for answer in wrong:
        capsys.readouterr()
        assert exercise(answer) is False and capsys.readouterr().out.startswith(check.WRONG)


def test_the_article_s_run_and_its_second_statistics():
    """Epoch by epoch: by its own statistics it guesses, by quicker ones it does not."""
    (run,) = (run for run in saved_runs() if run.name == "mnasnet-article")
    second = articles.second_statistics()
    assert (
        [r["epoch"] for r in run.history] == [r["epoch"] for r in second] == list(range(1, len(second) + 1))
    )
    recipe = run.about["recipe"]
    assert (recipe["batch_size"], recipe["validation"], recipe["model"]["model"]) == (
        2048,
        "test",
        "mnasnet_keras",
    )
    assert len(second) >= 20 and run.history[19]["validation_accuracy"] == 0.1
    assert second[19]["accuracy"] > 0.35 and run.history[19]["train_accuracy"] > 0.6


def test_the_article_s_run_with_one_thing_changed():
    """Each change cures its own fault; running statistics of momentum 0.999 guess in all three."""
    article, augmented, cifar = articles.changes().rows
    assert [row[1] for row in (article, augmented, cifar)] == ["100", "100", "4"]
    assert {row[3] for row in (article, augmented, cifar)} == {"10.0"}
    apart = [float(row[2]) - float(row[4]) for row in (article, augmented)]
    assert apart[0] > 50 and apart[1] < 15  # learnt by heart, or not
    fourth = articles.second_statistics()[3]["accuracy"]
    assert float(cifar[4]) > 100 * fourth + 10
    assert len(articles.changed_curves().axes) == 3


def test_maps_shrink_to_one_pixel():
    rows = {row[0]: row[1:] for row in articles.sides().rows}
    assert rows["stem"] == ["16×16", "32×32"] and rows["block17"] == ["1×1", "4×4"]
    ratio = float(rows["MACs, M"][1]) / float(rows["MACs, M"][0])
    assert 14 < ratio < 15.5


def test_jumps_and_elders():
    assert [row[1:] for row in articles.jumps().rows] == [
        ["0.000", "0.000", "-0.500"],
        ["1.500", "1.000", "1.000"],
    ]
    rows = {row[0]: row for row in articles.elders().rows}
    assert rows["VGG16"][4:] == ["138,357,544", "32.69"] and rows["GoogLeNet"][1] == "69.8"
    assert len(budget.plane().axes[0].lines) == len(budget.PUBLISHED) + 2
    assert len(articles.swept().rows) >= 4


def test_dead_and_silent():
    """A filter of zeros is dead; a channel that is the same number everywhere is silent."""
    net = numnet.build("mobilenet_v1", width=0.125, resolution=16, classes=4, strides="cifar")
    x = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype(np.float32)
    before, filters = articles.dead(net)
    silent_before, channels = articles.silent(net, x)
    assert before == 0 and filters == channels == sum(
        v.size for v in articles.depthwise_lengths(net).values()
    )
    net.params["block1.depthwise.weight"][:, :, 1] = 0
    assert articles.dead(net) == (1, filters)
    assert articles.silent(net, x)[0] >= silent_before + 1  # and whoever listened to that channel alone


def test_figures():
    slow = articles.absorbed().axes[0].lines[0].get_ydata()
    assert slow[0] == 0 and 91 < slow[-1] < 92  # 2,500 steps of momentum 0.999
    (training, own, quick, _) = articles.article_curves().axes[0].lines
    assert max(own.get_ydata()) == 10 < 35 < max(quick.get_ydata()) < max(training.get_ydata())
    lines = articles.swishes().axes[1].lines
    assert np.isnan(lines[1].get_ydata()).sum() == 2  # two jumps, not two steep lines
    found = {"net": [(0, 5, 10), (1, 2, 10)]}
    left, right = articles.dying_figure(found).axes
    assert list(left.lines[0].get_ydata()) == [0, 10] and list(right.lines[0].get_ydata()) == [50, 20]
