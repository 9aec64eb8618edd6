"""The code on pages of the documentation runs, and prints what the page shows. What trains or needs files is left out."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

import numnet

DOCS = Path(__file__).parents[1] / "docs"
CODE = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)


def blocks(page):
    """(code, what the page says it prints or "") of a page."""
    return CODE.findall((DOCS / page).read_text("utf-8"))


def run(code, names=None):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, names if names is not None else {})
    return out.getvalue()


def test_dx_at_stride_2_prints_what_the_page_shows():
    [(code, shown)] = [block for block in blocks("learn/questions.md") if block[1]]
    assert "1379" in shown and run(code) == shown


def test_the_macs_of_one_layer():
    [(code, _)] = blocks("howto/costs.md")
    page = (DOCS / "howto" / "costs.md").read_text("utf-8")
    assert f"{int(run(code)):,}" == "6,553,600" and page.count("6,553,600") >= 2


def test_nets_layers_and_activations_of_ones_own(monkeypatch):
    """All blocks of the page, one after another. Gradients are checked of the page's own layers, not of numnet's."""
    check, asked = numnet.check_gradients, []
    monkeypatch.setattr(numnet, "check_gradients", lambda net, x: asked.append(net))
    x = np.random.default_rng(0).standard_normal((4, 32, 32, 3)).astype(np.float32)
    names = {"x": x, "labels": np.arange(4)}
    found = [code for code, _ in blocks("howto/own_layers.md")]
    for code in found:
        run(code, names)
    assert len(found) == 5 and names["Scale"].kind == "scale"
    assert len(asked) == 2 and names["net"].forward(x[:2]).shape == (2, 10)
    for layer in (names["Scale"](), names["Softplus"]()):
        assert max(check(layer, x[:2, :4, :4]).values()) < 1e-6


@pytest.mark.parametrize(
    "factor, steps", [("0.999", 25), ("0.999", 850), ("0.999", 2302), ("0.999", 2500), ("0.9", 25)]
)
def test_the_share_that_running_statistics_have_learned(factor, steps):
    page = (DOCS / "learn" / "questions.md").read_text("utf-8")
    row = re.search(rf"\| {re.escape(factor)} \| {steps:,}\b.*\| ([\d.]+) % \|", page)
    digits = len(row[1].partition(".")[2])
    assert f"{100 * (1 - float(factor) ** steps):.{digits}f}" == row[1]
