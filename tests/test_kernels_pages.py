"""What the kernels' pages promise their readers: few arguments, an order in which no page needs a later one, few words."""

import ast
import importlib
import re
from pathlib import Path

import numpy as np
import pytest

from numnet import kernels

FOLDER = Path(kernels.__file__).parent
PAGES = {path.stem: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.py"))}
each_page = pytest.mark.parametrize("page", PAGES)
MOST = 8  # arguments of a function


def functions(text):
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]


def arguments(function):
    a = function.args
    return len(a.posonlyargs + a.args + a.kwonlyargs) + bool(a.vararg) + bool(a.kwarg)


def reading_order():
    """The pages in the order in which ``kernels/__init__`` says they can be read."""
    text = kernels.__doc__[kernels.__doc__.index("**Reading order**") :]
    listed = re.findall(r"^    (.*)$", text, re.MULTILINE)
    words = [word for line in listed for word in re.split(r"\s{2,}", line)[0].replace("→", " ").split()]
    return words


def imported(text):
    """The pages that a page's source imports from, wherever it does so."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("numnet.kernels"):
            parts = node.module.split(".")
            found |= {parts[2]} if len(parts) > 2 else {alias.name for alias in node.names}
    return found


@each_page
def test_no_function_has_more_than_eight_arguments_without_saying_why(page):
    """The line of the ``def``, or the one above it, says ``more than eight:`` and why."""
    lines = PAGES[page].splitlines()
    for function in functions(PAGES[page]):
        near = "\n".join(lines[max(function.lineno - 4, 0) : function.lineno])
        if arguments(function) > MOST:
            assert "more than eight:" in near, f"{page}.{function.name} has {arguments(function)} arguments"


def test_every_page_stands_in_the_reading_order():
    order = reading_order()
    assert len(order) == len(set(order)), "a page stands twice"
    assert {page for page in PAGES if not page.startswith("_")} == set(order) - {"_jit"}


def test_the_documentation_has_the_same_order():
    text = (FOLDER.parent.parent / "docs" / "reading_kernels.md").read_text("utf-8")
    table = text[text.index("| | pages |") :].split("\n\n")[0]
    assert re.findall(r"\(\.\./numnet/kernels/(\w+)\.py\)", table) == reading_order()


@each_page
def test_no_page_needs_a_later_one(page):
    order = [*reading_order()]
    if page.startswith("_"):
        return  # what all pages stand on
    for other in imported(PAGES[page]):
        if not other.startswith("_"):
            assert order.index(other) < order.index(page), f"{page} needs {other}, which comes later"


def test_a_page_that_needs_a_later_one_would_be_seen():
    assert imported(
        "from numnet.kernels import _check, conv\ndef f():\n    from numnet.kernels.muon import g"
    ) == {
        "_check",
        "conv",
        "muon",
    }


def public_names(text):
    """What a page's source binds to a name without a leading underscore, imports apart; also within ``if``."""
    waiting, found = list(ast.parse(text).body), set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If):
            waiting += node.body + node.orelse
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {
                name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)
            }
    return {name for name in found if not name.startswith("_")}


def test_the_page_words_explains_each_of_its_names():
    named = set(re.findall(r"``(\w+)", ast.get_docstring(ast.parse(PAGES["words"]))))
    assert "add_taps" in public_names(PAGES["words"]) and public_names(PAGES["words"]) <= named


def test_a_name_without_explanation_would_be_seen():
    text = "import a\nif a:\n    b, c = 1, 2\nelse:\n    def d():\n        e = 1\nclass F:\n    g = 1\n_h = 2"
    assert public_names(text) == {"b", "c", "d", "F"}


# Words that once meant a part of an array here, beside those of the glossary.
OTHERS = re.compile(r"\b(stretch(?:es)?|chunks?|segments?|pieces?|grains?|strips?|bands?)\b")


@each_page
def test_parts_of_arrays_have_the_names_of_the_glossary(page):
    """In docstrings and comments."""
    text = PAGES[page]
    tree = ast.parse(text)
    prose = [
        ast.get_docstring(node) or ""
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef))
    ]
    prose += re.findall(r"(?:^|\s)# (.*)$", text, re.MULTILINE)
    for part in prose:
        assert not OTHERS.findall(part), part


def test_another_word_would_be_seen():
    assert OTHERS.findall("a tile is cut into bands, a band into pieces") == ["bands", "band", "pieces"]


@pytest.mark.parametrize("page", [page for page in PAGES if page != "__init__"])
def test_a_page_is_an_attribute_of_the_package(page):
    assert importlib.import_module(f"numnet.kernels.{page}") is not None
    # kernels.depthwise.definition
    for name in re.findall(r"^def (definition\w*)\(", PAGES[page], re.MULTILINE):
        assert getattr(kernels, page).__dict__[name].__doc__, f"{page}.{name} has no docstring"


@pytest.mark.parametrize(
    "page",
    ["product", "pointwise", "dense", "depthwise", "conv", "batchnorm", "pooling", "squeeze_excite"],
)
def test_a_page_defines_both_directions(page):
    names = set(re.findall(r"^def (definition\w*)\(", PAGES[page], re.MULTILINE))
    assert names & {"definition", "definition_average"}
    assert names & {"definition_backward", "definition_dx", "definition_average_backward"}


def test_the_definition_of_dense_beside_numpy():
    draw = np.random.default_rng(0)
    x, w, b, dy = (draw.normal(size=shape) for shape in ((4, 3), (3, 5), (5,), (4, 5)))
    found = kernels.dense.definition(x, w, b), *kernels.dense.definition_backward(dy, x, w)
    wanted = x @ w + b, dy @ w.T, x.T @ dy, dy.sum(axis=0)
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape and np.allclose(a, b, rtol=0, atol=1e-13)
