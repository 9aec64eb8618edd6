"""The logs in notebooks/runs: tables, pages and recipes say what they say. And the search's log."""

import json
import shutil
from pathlib import Path

import pytest

from numnet.training import results, run, sweep

RUNS = Path(__file__).parents[1] / "notebooks" / "runs"
FILES = sorted(RUNS.glob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_tables_are_made_of_the_logs(file, tmp_path):
    """Every run of the file is there, nothing else is, and the table comes out as it was kept."""
    kept = RUNS / file.stem
    out = tmp_path / "out"
    plan = sweep.read(file, out)
    wanted = {folder.name for entry in plan.entries for folder, _ in entry.trainings}
    assert {path.parent.name for path in kept.glob("*/about.json")} == wanted
    shutil.copytree(kept, out)
    (out / "table.json").unlink()
    rows = results.collect(plan, say=pytest.fail)
    close = [{k: pytest.approx(v) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    assert json.loads((kept / "table.json").read_text("utf-8")) == close
    assert (kept / "table.md").read_text("utf-8") == results.markdown(rows)


def test_the_page_shows_the_tables_as_they_are():
    page = (RUNS / "README.md").read_text("utf-8")
    for file in FILES:
        assert (RUNS / file.stem / "table.md").read_text("utf-8").strip() in page, file.stem
        assert f"({file.stem}/table.png)" in page


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_sweeps_would_do_today_what_was_done(file):
    """What a file leaves out is in today's recipes what it was when its logs were kept."""
    for entry in sweep.read(file).entries:
        for folder, flags in entry.trainings:
            _, kept = results.finished(folder)
            results.require(folder, run.plan(entry.dataset, entry.recipe, flags), kept, whole=True)


HALF_V1 = {"model": {"model": "mobilenet_v1", "width": 0.5}, "epochs": 20, "warmup": 1.333333}
ROWS = {  # of docs/results.md: a folder, its recipe and flags
    "hour": ("cifar10_hour", {}),
    "megabyte": ("cifar10_megabyte", {}),
    "v1-half-width": ("cifar10_five_minutes", HALF_V1),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_recipes_are_those_of_the_logs(name):
    """The commands of docs/results.md would do today what was done when their logs were kept."""
    _, kept = results.finished(RUNS / name)
    results.require(RUNS / name, run.plan("cifar10", *ROWS[name]), kept, whole=True)


def test_every_line_of_the_search_says_the_same_things():
    lines = [json.loads(line) for line in (RUNS / "search.jsonl").read_text("utf-8").splitlines()]
    for line in lines:
        assert line.keys() == lines[0].keys()
        speeds = line["images_per_second"]  # by the side of the images: smaller ones are faster
        assert list(speeds) == sorted(speeds) and "32" in speeds
        assert sorted(speeds.values(), reverse=True) == list(speeds.values())
