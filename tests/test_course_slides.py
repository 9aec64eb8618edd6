"""Slides made of the notebooks' figures: what is on them, and that a file needs no other."""

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cli_tools import numnet

from numnet.course import exercises, slides

PLACE = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(PLACE.glob("[0-9][0-9]_*.ipynb"))
PICTURE = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "AAAA\n"}}
EMPTY = {"meta", "img", "br"}  # elements without an end


class Reader(HTMLParser):
    """Collects sections, pictures and whatever is loaded; asserts that every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sections, self.pictures, self.loaded = [], 0, [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.sections += tag == "section"
        if tag == "img":
            self.pictures.append(known)
        self.loaded += [known[key] for key in ("src", "href") if key in known]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def pictures(notebook):
    found = [output.get("data", {}) for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return sum("image/png" in data for data in found)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_figure_is_on_a_slide(path, tmp_path):
    notebook = exercises.read(path)
    (file,) = slides.write(tmp_path, PLACE, [path.name[:2]])
    text = file.read_text("utf-8")
    read = Reader(text)
    assert len(read.pictures) == pictures(notebook) >= 3
    assert read.sections == len(read.pictures) + 3  # the title, what you will know, what you now know
    assert all(picture["alt"].startswith("Figure: ") for picture in read.pictures)
    assert all(source.startswith("data:image/png;base64,") for source in read.loaded), "nothing is fetched"
    assert "<details>" not in text and "**" not in re.sub(r"base64,[^\"]*", "", text)
    assert re.findall(r'id="slide-(\d+)"', text) == [str(n) for n in range(1, read.sections + 1)]


def test_what_stands_on_a_slide():
    text = "Look at **this** $K^2 \\cdot F$, that is `a < b`. More [of it](x.ipynb).\n\n$$ y = x $$\n\n| a | table |\n"
    text += f"And {'so ' * 50}on."
    cells = [
        {"cell_type": "markdown", "source": "# 1 · A title\n\nThe question.\n\n**Time:** about an hour."},
        {"cell_type": "markdown", "source": f"## 2. A *part*\n\n{text}"},
        {"cell_type": "code", "source": "", "outputs": [PICTURE]},
    ]
    title, (first, second) = slides.sections({"cells": cells})
    assert title == "1 · A title" and "The question." in first and "Time" not in first and "1 / 2" in first
    assert (
        "<h2>2. A part</h2><p>Look at <b>this</b> <i>K² · F</i>, that is <code>a &lt; b</code>. More of it.</p>"
        in second
    )
    assert 'alt="Figure: 2. A part. Look at this K² · F, that is a &lt; b. More of it."' in second
    assert (
        "base64,AAAA" in second
        and "<aside>And so so" in second
        and "y = x" not in second
        and "table" not in second
    )


def test_a_figure_has_no_text_of_another_section_or_of_an_exercise():
    cells = [
        {"cell_type": "markdown", "source": "## 1. First\n\nOf the first."},
        {"cell_type": "markdown", "source": "### Exercise 3\n\nHow many steps?"},
        {"cell_type": "code", "source": "", "outputs": [PICTURE]},
        {"cell_type": "markdown", "source": "Of the second figure.\n\n## 2. Second"},
        {"cell_type": "code", "source": "", "outputs": [PICTURE]},
    ]
    _, (first, second) = slides.sections({"cells": cells})
    assert "<h2>1. First</h2>" in first and "How many" not in first
    assert "<h2>2. Second</h2>" in second and "Of the second figure" not in second


def test_a_list_ends_at_an_empty_line():
    cells = [
        {
            "cell_type": "markdown",
            "source": "## What you will know\n\n* one\n  and more;\n* two.\n\nRun the cells.",
        }
    ]
    _, (only,) = slides.sections({"cells": cells})
    assert "<li>one and more;</li><li>two.</li></ul>" in only


def test_the_command(tmp_path):
    code, out, err = numnet("course", "slides", tmp_path / "slides", "--only", "02")
    assert code == 0 and out == "" and re.fullmatch(r"\d+ slides of 1 notebook in .*slides\n", err)
    code, _, err = numnet("course", "slides", tmp_path / "slides", "--only", "02")
    assert code == 2 and "02_standard_vs_separable.html is there already" in err


def test_a_notebook_without_outputs_is_an_error(tmp_path):
    notebook = copy.deepcopy(exercises.read(NOTEBOOKS[0]))
    for cell in notebook["cells"]:
        cell.pop("outputs", None)
    (tmp_path / "01_bare.ipynb").write_text(json.dumps(notebook), "utf-8")
    code, _, err = numnet("course", "slides", tmp_path / "out", "--notebooks", tmp_path)
    assert code == 2 and "no figure in its outputs; run the notebook and save it first" in err
    assert not (tmp_path / "out").exists()
