"""Two roads at equal minutes: the points are what the logs and the quiet times say, by another way of adding up."""

import json

import pytest

import numnet
from numnet.lessons import roads

LOG = {"test_accuracy": 0.5, "recipe": {"batch_size": 100, "validation": 5000}}
PLAIN = {"model": "plain_3x3", "resolution": 32, "strides": "cifar", "classes": 10, "width": 0.25}


def kept(folder, name, accuracy, sides):
    place = folder / name
    place.mkdir(parents=True)
    recipe = {**LOG["recipe"], "model": PLAIN}
    (place / "about.json").write_text(json.dumps({"test_accuracy": accuracy, "recipe": recipe}))
    lines = [json.dumps({"epoch": n, "resolution": side}) for n, side in enumerate(sides, 1)]
    (place / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def test_points(tmp_path):
    for seed, accuracy in enumerate((0.8, 0.82)):
        kept(tmp_path / "roads", f"a-seed{seed}", accuracy, [20, 20, 32])
    kept(tmp_path / "roads", "a-seed-like-seed0", 0.1, [20])
    kept(tmp_path, "alone", 0.7, [20])
    entry = {"road": "plain", "logs": "roads/a", "step_ms": {"20": 10.0, "32": 30.0}}
    quiet = {"pytorch_step_ms": 300.0, "trainings": [entry, {**entry, "logs": "alone"}]}
    (tmp_path / "roads" / "quiet.json").write_text(json.dumps(quiet))
    point, alone = roads.points(tmp_path)
    assert (alone.name, alone.seeds, alone.accuracy) == ("alone", 1, 0.7)
    macs = [numnet.describe(**{**PLAIN, "resolution": side}).cost().macs for side in (20, 32)]
    assert (point.road, point.name, point.seeds, point.epochs) == ("plain", "a", 2, 3)
    assert point.macs == macs[1] and point.accuracy == pytest.approx(0.81)
    assert point.minutes == pytest.approx(450 * (10 + 10 + 30) / (100 * 300))
    assert point.pflop == pytest.approx(45_000 * 6 * (2 * macs[0] + macs[1]) / 1e15)
    assert point.gflops == pytest.approx(6 * macs[1] * 100 / 0.030 / 1e9)
    assert "81.00" in repr(roads.listed([point]))


def test_the_kept_ones():
    found = roads.points()
    assert {p.road for p in found} == {"separable blocks", "plain 3×3 convolutions"}
    assert all(0.8 < p.accuracy < 0.96 and 1 < p.minutes < 90 for p in found)
    assert len(roads.drawn(found).axes) == 1


def test_without_kept_runs(tmp_path):
    assert roads.points(tmp_path) == [] and len(roads.drawn([]).axes) == 1
    assert "budget minutes" in repr(roads.listed([]))


def test_plans_can_be_read():
    """Each row of a plan changes the recipe, and is a training that numnet accepts."""
    from numnet.training import run, sweep

    files = sorted((roads.runs_folder() / "plans").glob("*.json"))
    assert len(files) >= 2
    for file in files:
        plans = [run.plan(entry.dataset, entry.recipe, entry.flags) for entry in sweep.read(file).entries]
        assert all(plan != plans[0] for plan in plans[1:])
        for plan in plans:
            numnet.describe(**{"classes": 10, **plan["model"]})
