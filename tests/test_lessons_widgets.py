"""Figures with sliders: what moves with them, and that the same figure is there without a kernel or ipywidgets."""

import os
import sys
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest

import numnet
from numnet.errors import NumnetError
from numnet.lessons import convolution, figure, widgets
from numnet.lessons.budget import one_net
from numnet.lessons.separable import at_size

OWN = {
    "walk": lambda: widgets.walk(convolution.IMAGE, convolution.KERNEL),
    "separable": widgets.separable,
    "width_and_resolution": widgets.width_and_resolution,
}


def square(number=2):
    drawn, axes = figure(2, 1)
    axes.text(0, 0, f"{number}² = {number**2}")
    return drawn


@pytest.fixture
def sliders(monkeypatch):
    """As in a kernel; ipywidgets works without one too, then nobody listens."""
    pytest.importorskip("ipywidgets")
    monkeypatch.setattr(widgets, "live", lambda: True)


@pytest.mark.parametrize("name", OWN)
def test_without_a_kernel_there_is_the_figure(name):
    explorer = OWN[name]()
    data, size = explorer._repr_mimebundle_()
    assert sorted(data) == ["image/png", "text/plain"] and explorer.box is None
    assert data["image/png"][:8] == b"\x89PNG\r\n\x1a\n" and size["image/png"]["width"] > 300
    assert data["text/plain"].startswith("<a figure for ")


def test_without_ipywidgets_there_is_the_figure(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert widgets.live() is False
    assert sorted(widgets.separable()._repr_mimebundle_()[0]) == ["image/png", "text/plain"]


def test_a_moved_slider_draws_the_figure_anew(sliders):
    explorer = widgets.explore(square, number=([1, 2, 3], 2))
    assert explorer.picture.value == square(2)._repr_png_()[0]
    explorer.sliders["number"].value = 3
    assert explorer.picture.value == square(3)._repr_png_()[0] != square(2)._repr_png_()[0]
    data, _ = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data and data["image/png"] == explorer.picture.value
    assert data["text/plain"] == "<a figure for number 3>"


@pytest.mark.parametrize("name", OWN)
def test_every_end_of_every_slider_can_be_drawn(name, sliders):
    explorer = OWN[name]()
    seen = set()
    for slider in explorer.sliders.values():
        for _, value in (slider.options[0], slider.options[-1]):
            slider.value = value
            seen.add(bytes(explorer.picture.value))
    assert len(seen) > len(explorer.sliders)  # each of them changes something
    assert explorer.values == {name: slider.options[-1][1] for name, slider in explorer.sliders.items()}


def test_a_first_value_that_the_slider_does_not_have_is_named():
    with pytest.raises(NumnetError, match="explore: number starts at 5, expected one of 1, 2"):
        widgets.explore(square, number=([1, 2], 5))


def test_the_figures_say_what_numnet_counts():
    title = at_size(3, 64, 128, 56).axes[0].get_title()
    assert "8.41 times fewer MACs (limit: K² = 9)" in title
    assert "2.00 times more MACs" in at_size(1, 8, 1, 7).axes[0].get_title()
    axes = one_net("mobilenet_v1", 0.5, 160).axes[0]
    half, full = (
        numnet.describe("mobilenet_v1", width=w, resolution=r).cost() for w, r in ((0.5, 160), (1.0, 224))
    )
    bars = [bar.get_width() for bar in axes.patches]
    assert np.allclose(bars[:2], [half.macs / full.macs, half.params / full.params])
    assert f"{half.macs / 1e6:.2f} M" in axes.get_yticklabels()[0].get_text()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the packages that start the kernel
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_in_a_kernel_there_are_sliders_unless_they_are_switched_off(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("ipywidgets")
    root = str(Path(numnet.__file__).parents[1])
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    )
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.delenv("NUMNET_WIDGETS", raising=False)
    cells = [
        "import os\nfrom numnet.lessons import widgets\nwidgets.separable()",
        "os.environ['NUMNET_WIDGETS'] = '0'\nwidgets.separable()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env=dict(os.environ))
    with_sliders, without = (cell.outputs[-1].data for cell in notebook.cells)
    assert set(with_sliders) == {*without, "application/vnd.jupyter.widget-view+json"}
    assert sorted(without) == ["image/png", "text/plain"]
    assert b64decode(with_sliders["image/png"]) == b64decode(without["image/png"])
