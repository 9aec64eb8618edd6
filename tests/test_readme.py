"""The README: its code runs, its kernel is the real one, its numbers stand in docs/results.md, its links lead somewhere."""

import contextlib
import inspect
import io
import re
from pathlib import Path

import pytest

import numnet
from numnet.data import shapes
from numnet.kernels import depthwise

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "README.md").read_text("utf-8")
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
FOUND = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "notebooks").glob("*.md")]
MADE = {ROOT / "docs" / name for name in ("kernels", "reference", "notebooks")}  # when the site is built
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in FOUND if path.parent not in MADE),
]


def test_it_is_short():
    assert len(PAGE.split()) < 900 and PAGE.count("\n") < 110


def test_its_code_runs(monkeypatch):
    """On few images and one epoch: the data set and the training are the real ones, smaller."""
    fit = numnet.fit
    monkeypatch.setattr(numnet.data, "load", lambda name, validation: _small())
    monkeypatch.setattr(
        numnet,
        "fit",
        lambda net, data, epochs, **rest: fit(net, data, **rest, epochs=1, progress=False),
        raising=False,
    )
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(next(code for code in CODE if "numnet.fit" in code), {})
    accuracy, macs, classes = out.getvalue().splitlines()
    assert 0 <= float(accuracy) <= 1 and macs == "3331072 multiply-accumulates for one image"
    assert len(re.findall(r"\d", classes)) == 16


def _small():
    data = shapes.load(256, 8)
    data.validation = shapes.load(64, 8).train
    return data


def test_its_kernel_is_the_real_one():
    shown = next(code for code in CODE if code.startswith("@kernel"))
    assert shown.strip() == inspect.getsource(depthwise._y.py_func).strip()


def test_its_numbers_stand_in_the_results():
    """Each row of its table beside PyTorch is a row of the results, shortened."""
    results = (ROOT / "docs" / "results.md").read_text("utf-8")
    table = PAGE[PAGE.index("| net | numnet |") :].split("\n\n")[0].splitlines()[2:]
    assert len(table) == 3
    for row in table:
        net, ours, theirs, ratio = (cell.strip() for cell in row.strip("|").split("|"))
        assert f"| {net}, 224×224 | {ours} | {theirs} | {ratio} (" in results


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_of_the_project(path):
    """Pages of the site that are made when it is built are the exceptions."""
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s#]+)", text):
        if not re.match(r"\w+:", target):
            found = (path.parent / target).resolve()
            made = re.match(r"docs/(reference|kernels|notebooks)/", found.relative_to(ROOT).as_posix())
            assert made or found.exists(), target
