"""The exercises of a notebook: the text, the cell to fill in, its check, and the folded solution."""

import ast
import json
import re
from pathlib import Path
from typing import NamedTuple

from numnet.errors import NumnetError

HEADING = re.compile(r"^### Exercise (\d+)", re.MULTILINE)
FOLDED = re.compile(r"<details>.*?</details>\s*", re.DOTALL)
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
SUMMARY = re.compile(r"</?details>|<summary>.*?</summary>")


class Exercise(NamedTuple):
    """An exercise of a notebook.

    number: as in its heading. cell: the index of the cell to fill in. blank: that cell without its check. given: the
    lines of the blank that are no part of the answer. check: the call of the check, without a semicolon. solution:
    the code that answers it, without the check. why: the words beside the solution. points: 1, or 2 for a function.
    """

    number: int
    cell: int
    blank: str
    given: str
    check: str
    solution: str
    why: str
    points: int

    @property
    def name(self) -> str:
        return f"exercise-{self.number}"


def folder(given=None) -> Path:
    """Where the notebooks are: ``given``, else beside the package (a checkout), else ``notebooks`` where we are.

    Raises NumnetError if no notebook is there.
    """
    beside = Path(__file__).parents[2] / "notebooks"
    places = [Path(given)] if given is not None else [beside, Path("notebooks")]
    for place in places:
        if any(place.glob("[0-9][0-9]_*.ipynb")):
            return place
    where = f"in {places[0]}" if given is not None else "beside the package or in ./notebooks"
    raise NumnetError(
        f"no notebooks {where}; expected files like 01_….ipynb: run this in numnet's checkout, or give its "
        "folder with --notebooks"
    )


def read(path) -> dict:
    """A notebook file as the dict that it is. Raises NumnetError if it is none."""
    try:
        notebook = json.loads(Path(path).read_text("utf-8"))
    except (ValueError, UnicodeDecodeError):
        raise NumnetError(f"{path}: expected a notebook (.ipynb), and this is not JSON") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    sound = isinstance(cells, list) and all(isinstance(cell, dict) and "cell_type" in cell for cell in cells)
    if not sound or notebook.get("nbformat") != 4:
        raise NumnetError(f"{path}: expected a notebook of format 4, with a list of cells")
    return notebook


def notebooks(place, only=()) -> list[Path]:
    """The notebooks of a folder in order; ``only``: the two digits, or the beginnings of names, of those wanted."""
    found = sorted(place.glob("[0-9][0-9]_*.ipynb"))
    only = [word.zfill(2) if word.isdigit() else word for word in only]  # 1 is 01, and not 10
    for word in only:
        if not any(path.name.startswith(word) for path in found):
            known = ", ".join(path.name[:2] for path in found)
            raise NumnetError(f"--only: no notebook begins with {word!r}; expected one of {known}")
    return [path for path in found if not only or any(path.name.startswith(word) for word in only)]


def source(cell) -> str:
    """A cell's text; the file may hold it as one string or as a list of lines."""
    text = cell.get("source", "")
    return text if isinstance(text, str) else "".join(text)


def exercises(notebook, name="notebook") -> list[Exercise]:
    """All exercises, in order. Raises NumnetError if one has no check or no solution."""
    found, number = [], None
    for index, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "markdown":
            headings = HEADING.findall(source(cell))
            if headings:
                _require_check(number, name)
                number = int(headings[-1])
        elif cell["cell_type"] == "code" and number is not None:
            parts = _split(source(cell))
            if parts is None:
                continue
            found.append(_exercise(notebook, index, number, *parts, name))
            number = None
    _require_check(number, name)
    return found


def _require_check(number, name):
    """Raise NumnetError if exercise ``number`` is still without a check; None: there is none to wait for."""
    if number is not None:
        raise NumnetError(
            f"{name}: exercise {number} has no cell that ends in its check; expected a notebook as in the checkout"
        )


def _split(text):
    """(blank, check) of a cell that ends in the call of a check, else None."""
    try:
        body = ast.parse(text).body
    except SyntaxError:  # %magic, or !command
        return None
    last = body[-1] if body else None
    call = last.value if isinstance(last, ast.Expr) else None
    called = getattr(getattr(call, "func", None), "attr", "")
    if not called.startswith("exercise_"):
        return None
    lines = text.splitlines()
    return "\n".join(lines[: last.lineno - 1]).rstrip(), ast.unparse(call)


def _exercise(notebook, index, number, blank, check, name):
    after = notebook["cells"][index + 1 : index + 2]
    folded = FOLDED.search(source(after[0])) if after else None
    codes = CODE.findall(folded[0]) if folded else []
    parts = _split(codes[0]) if codes else None
    if parts is None:
        raise NumnetError(f"{name}: exercise {number} has no folded solution that ends in its check")
    why = SUMMARY.sub("", CODE.sub("", folded[0])).strip()
    is_function = "def " in blank or "def " in parts[0]
    return Exercise(number, index, blank, given(blank), check, parts[0], why, 2 if is_function else 1)


def given(blank) -> str:
    """The lines of a blank that are no part of the answer: all but ``answer = …`` and unfinished functions."""
    lines, kept = blank.splitlines(), []
    for node in ast.parse(blank).body:
        if not isinstance(node, ast.FunctionDef) and not _is_answer(node):
            kept += lines[node.lineno - 1 : node.end_lineno]
    return "\n".join(kept)


def is_open(blank) -> bool:
    """True if nobody has filled this blank in: it ends in ``answer = ...``."""
    values = [node.value for node in ast.parse(blank).body if _is_answer(node)]
    return bool(values) and isinstance(values[-1], ast.Constant) and values[-1].value is ...


def _is_answer(node):
    return isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "answer"
