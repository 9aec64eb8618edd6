"""The public names: annotated, and listed in help(numnet); CI has mypy read tests/typed_use.py beside."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import numnet

ROOT = Path(__file__).parents[1]
FUNCTIONS = [
    numnet.build, numnet.describe, numnet.load, numnet.load_weights, numnet.models, numnet.check_gradients, numnet.fit,
    numnet.with_head, numnet.with_channels, numnet.linear_probe, numnet.data.load, numnet.data.batches,
    numnet.weights.import_file, numnet.weights.export_onnx, numnet.weights.export_torch,
    *(getattr(numnet.Net, name) for name in (
        "__init__", "forward", "backward", "predict", "features", "maps", "cost", "save", "resize", "freeze", "walk",
        "state", "restore",
    )),
]  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__qualname__)
def test_every_public_function_is_annotated(function):
    signature = inspect.signature(function)
    assert signature.return_annotation is not signature.empty
    bare = [n for n, p in signature.parameters.items() if p.annotation is p.empty and n != "self"]
    assert bare == []


def test_the_package_says_that_it_is_typed():
    assert (Path(numnet.__file__).parent / "py.typed").is_file()
    assert "py.typed" in (ROOT / "setup.cfg").read_text("utf-8")


def listed():
    """The names that begin the lines of the table of contents, and what each line says of others."""
    lines = [line[4:] for line in numnet.__doc__.splitlines() if re.match(r"    \w+.*  ", line)]
    return {name for line in lines for name in re.findall(r"[\w.]+", line.split("  ")[0]) if name[0] != "."}


def test_help_is_a_table_of_contents():
    """Every public name stands in it, and everything that it names exists."""
    tree = ast.parse(Path(numnet.__file__).read_text("utf-8"))
    imported = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname and not alias.asname.startswith("_")
    }
    public = imported - {"training"}
    words = set(re.findall(r"\w+", numnet.__doc__))
    assert public <= words
    heads = {name for name in listed() if name.split(".")[0] in public}
    assert {"build", "load", "Net", "with_head", "fit", "kernels"} <= heads
    for name in heads:
        found = numnet
        for part in name.split("."):
            found = getattr(found, part)
    for name in re.findall(
        r"net\.(\w+)|(?<=, )(\w+)(?=[,\n])", numnet.__doc__.split("    Net  ")[1].split("\n\n")[0]
    ):
        assert hasattr(numnet.Net, "".join(name)) or "".join(name) in ("params", "grads"), name
