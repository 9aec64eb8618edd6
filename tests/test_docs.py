"""The documentation: every line of a kernel file stands on its page, broken links are found, the site builds."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXTENSIONS = ROOT / "docs" / "_ext"
KERNELS = {
    path.stem: path for path in sorted((ROOT / "numnet" / "kernels").glob("*.py")) if path.stem != "__init__"
}


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    yield
    for name in ("prose", "kernel_pages", "reference", "pages", "links"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", KERNELS)
def test_every_line_of_a_kernel_file_stands_on_its_page(name, tools):
    import kernel_pages

    source = KERNELS[name].read_text("utf-8")
    page = kernel_pages.page(name, source).replace("&lt;", "<").replace("\\$", "$")
    there = {line.strip() for line in page.splitlines()}
    tree = ast.parse(source)
    docstrings = set()  # their lines stand on the page without the quotes
    for node in [tree, *tree.body]:
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            docstrings.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
            assert [
                line for line in ast.get_docstring(node).splitlines() if line.strip() not in {"", *there}
            ] == []
    for number, line in enumerate(source.splitlines(), 1):
        if line.strip() and number not in docstrings and not kernel_pages.RULE.match(line):
            assert line.strip().removeprefix("# ").strip() in there or line.strip() in there, (
                f"{name}:{number}: {line}"
            )


def test_equations_and_examples_of_a_docstring_become_blocks(tools):
    import prose

    said = prose.markdown("Sum.\n\n(1)  y = Σ x\n(2)  dx = dy\n\nWhere a < b costs $1:\n\n    y = f(x)\n")
    assert re.search(r":class: equations\n\(1\)  y = Σ x\n\(2\)  dx = dy\n", said)
    assert "a &lt; b costs \\$1" in said and "{code-block} python\ny = f(x)\n" in said


def test_names_and_meanings_that_line_up_become_a_list(tools):
    import prose

    text = "Read it.\n\nfile, kind   where it lies\n             and what it is\nsize         in bytes\n"
    assert "`file, kind`\n: where it lies and what it is\n\n`size`\n: in bytes" in prose.markdown(
        text, columns=True
    )
    assert "{code-block} text\nfile, kind   where it lies\n" in prose.markdown(text)


def test_a_link_that_leads_nowhere_is_found(tools, tmp_path):
    import links

    (tmp_path / "a.html").write_text('<h1 id="top">A</h1><a href="b.html#here">b</a><a href="#top">t</a>')
    (tmp_path / "b.html").write_text('<a href="a.html#top">a</a>')
    assert links.broken(tmp_path) == ["a.html: b.html#here has no such place"]
    (tmp_path / "b.html").write_text(
        '<p id="here"><a href="c.html">c</a><script src="https://example.org/x.js">'
    )
    assert links.broken(tmp_path) == [
        "b.html: loads https://example.org/x.js",
        "b.html: c.html is no file of the site",
    ]


def test_links_to_files_of_the_project_lead_to_their_pages(tools):
    import pages

    text = "[a](../numnet/kernels/conv.py) [b](five_articles.md#x) [c](https://a.b/c) [d](runs/README.md)"
    source, page = ROOT / "notebooks" / "README.md", ROOT / "docs" / "notebooks" / "index.md"
    assert pages.moved(text, source, page) == (
        "[a](../kernels/conv.md) [b](five_articles.md#x) [c](https://a.b/c) [d](runs.md)"
    )
