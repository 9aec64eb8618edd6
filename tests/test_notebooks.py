"""Every notebook runs from top to bottom, at the tests' size, with its folded solutions; and is kept with its outputs.

A notebook's exercise is open when it is read and solved when it is tested: the code in each ``<details>`` block is run
in its place, and the check in it must say "right" (numnet/lessons/check.py).
"""

import ast
import functools
import os
import re
from pathlib import Path

import pytest
from kernel_shapes import CHECKING

from numnet.lessons.check import OPEN, RIGHT, WRONG

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
KERNELS = sorted((ROOT / "numnet" / "kernels").glob("*.py"))
SECONDS = 240  # for one notebook with a cold kernel cache; warm it takes a tenth
MACHINE = re.compile(r"(?<![\w.])(/(tmp|home|root|work|Users|private|var|usr|opt|mnt)/|[A-Z]:\\Users)")
SOLUTION = re.compile(r"<details>.*?```python\n(.*?)```.*?</details>", re.DOTALL)
pytestmark = [
    pytest.mark.skipif(CHECKING, reason="nothing is compiled here that the notebooks could show"),
    # of the packages that start the kernel, not ours
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def texts(output):
    """Every text of an output: streams, plain text, HTML, Markdown, errors; not the pictures."""
    if output.output_type == "stream":
        yield output.text
    elif output.output_type == "error":
        yield from output.traceback
    else:
        for kind, data in output.data.items():
            if not kind.startswith("image/"):
                yield str(data)


def sources(notebook):
    """(cell, source as it is today) of each thing whose source a cell prints by name."""
    space = {}
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                exec(compile(ast.Module([node], []), "imports", "exec"), space)
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "inspect.getsource":
                name = ast.unparse(node.args[0])
                if name.partition(".")[0] in space:  # else a loop's own
                    yield number, eval(f"inspect.getsource({name})", space)


def complaints(notebook):
    """What no output of a notebook may hold."""
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error" or output.get("name") == "stderr":
                yield f"cell {number}: {output}"
            for text in texts(output):
                if "Warning" in text or MACHINE.search(text):
                    yield f"cell {number}: {text}"


def with_solutions(notebook):
    """A copy in which each folded solution is a code cell too; these cells carry the tag "solution"."""
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "markdown":
            for code in SOLUTION.findall(cell.source):
                cells.append(nbformat.v4.new_code_cell(code.strip(), metadata={"tags": ["solution"]}))
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


def execute(notebook, folder, monkeypatch):
    for name, value in {
        "NUMNET_SMALL": "1",
        "NUMNET_WIDGETS": "0",  # a kept notebook holds the figures alone
        "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "OMP_WAIT_POLICY": "passive",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MPLBACKEND", raising=False)
    client = nbclient.NotebookClient(
        notebook,
        timeout=SECONDS,
        startup_timeout=SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=dict(os.environ))
    return notebook


def test_the_index_names_every_notebook():
    index = (ROOT / "notebooks" / "README.md").read_text("utf-8")
    assert NOTEBOOKS and sorted(set(re.findall(r"\((\d\d_\w+\.ipynb)\)", index))) == [
        path.name for path in NOTEBOOKS
    ]


@each_notebook
def test_it_runs_and_its_solutions_are_right(path, tmp_path, monkeypatch):
    kept = read(path)
    run = execute(with_solutions(read(path)), tmp_path, monkeypatch)
    assert not list(complaints(run))
    solutions = [cell for cell in run.cells if "solution" in cell.metadata.get("tags", [])]
    assert len(solutions) >= 2, "a notebook has exercises"
    for cell in solutions:
        said = "".join(text for output in cell.outputs for text in texts(output))
        assert RIGHT in said and WRONG not in said and OPEN not in said, f"{cell.source}\n{said}"
    original = [cell for cell in run.cells if "solution" not in cell.metadata.get("tags", [])]
    # What a cell shows when run, the file shows as well
    for was, now in zip(kept.cells, original, strict=True):
        if was.cell_type == "code":
            assert kinds(was) == kinds(now), was.source


def kinds(cell):
    """The kinds of a cell's outputs, in order, streams joined."""
    found = []
    for output in cell.outputs:
        data = sorted(output.data) if "data" in output else [output.get("name", "error")]
        if found[-1:] != [data] or "data" in output:
            found.append(data)
    return found


@each_notebook
def test_it_is_kept_as_it_ran(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert not list(complaints(notebook))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), (
        "run it from top to bottom"
    )
    assert sum("image/png" in output.get("data", {}) for cell in code for output in cell.outputs) >= 3
    assert path.stat().st_size < 1_000_000
    assert not MACHINE.search("\n".join(cell.source for cell in notebook.cells))


@each_notebook
def test_the_source_that_it_shows_is_todays(path):
    """A page of numnet that a notebook prints is kept as it is now."""
    notebook = read(path)
    for number, source in sources(notebook):
        shown = "".join(text for output in notebook.cells[number].outputs for text in texts(output))
        assert source in shown, f"cell {number} shows an older version of\n{source}"


@each_notebook
def test_it_says_what_a_reader_wants_to_know(path):
    prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    assert prose.startswith("# ")
    for heading in ("## What you will know", "## What you now know", "## References"):
        assert heading in prose
    assert re.search(r"\*\*Time:\*\* about (2\d|3\d|40) minutes", prose)
    assert prose.count("<details>") == prose.count("</details>") == len(SOLUTION.findall(prose)) >= 2
    assert prose.count("### Exercise") == prose.count("<details>")


def windows(source, size=3):
    """Each run of that many lines of code, blank lines and indentation apart."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    return {tuple(lines[i : i + size]) for i in range(len(lines) - size + 1)}


@functools.cache
def kernel_lines():
    """The windows of every function of the kernels' pages."""
    found = set()
    for page in KERNELS:
        text = page.read_text("utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef):
                found |= windows("\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno]))
    return found


@each_notebook
def test_no_kernel_is_pasted(path):
    """Kernels are shown by inspect.getsource, so that what is read is what runs."""
    for cell in read(path).cells:
        assert not windows(cell.source) & kernel_lines(), cell.source


def test_a_pasted_kernel_would_be_seen():
    page = (ROOT / "numnet" / "kernels" / "sgd.py").read_text("utf-8")
    body = page[page.index("\n    for ") :].splitlines()[1:8]
    assert windows("\n".join(line[4:] for line in body)) & kernel_lines()
