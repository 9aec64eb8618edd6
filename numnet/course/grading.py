"""Points for handed-in notebooks: each is run from top to bottom, and each check says whether its answer is right.

Locked cells run as they were given out, whatever became of them in the file. nbclient and ipykernel run the cells;
nbgrader is not needed. What students wrote is executed with the rights of whoever grades: grade what you would run.
"""

import os
from pathlib import Path
from typing import NamedTuple

from numnet.course.exercises import read, source
from numnet.course.versions import KEY, version
from numnet.data.files import HIDDEN
from numnet.errors import NumnetError
from numnet.lessons.check import OPEN, WRONG

SECONDS = 120  # for one cell, with a cold kernel cache
NEEDS = 'grading runs notebooks and needs nbclient, nbformat and ipykernel: pip install ".[notebooks]" in the checkout'


class Mark(NamedTuple):
    """What one exercise brought: its number, points, the most it could bring, and what the check said."""

    exercise: int
    points: int
    of: int
    said: str


def submissions(place) -> dict[str, list[Path]]:
    """The notebooks in a folder by student.

    Notebooks in the folder itself are one student's, with the folder's name; those in each folder in it, however
    deep, are one student's, with that folder's name (nbgrader's ``submitted`` is such a folder). A folder without any is a
    student who handed in nothing that can be graded: an empty list. Hidden folders and those that a system makes, such
    as __MACOSX, are nobody's. Raises NumnetError if there is no notebook at all.
    """
    place = Path(place)
    if not place.is_dir():
        raise NumnetError(f"{place}: expected a folder with notebooks, or with a folder for each student")
    own, found = sorted(place.glob("*.ipynb")), {}
    for inner in sorted(path for path in place.iterdir() if path.is_dir() and not _is_nobodys(path.name)):
        found[inner.name] = sorted(p for p in inner.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
    if own:  # folders without a notebook are then what stands beside it: pictures, data
        found = {name: paths for name, paths in found.items() if paths}
        name = place.resolve().name
        found[name] = own + found.get(name, [])
    if not any(found.values()):
        raise NumnetError(f"{place}: no notebook (.ipynb) here or in the folders in it")
    return found


def _is_nobodys(name) -> bool:
    return name.startswith(".") or name.casefold() in HIDDEN


def which(path, known) -> str:
    """Which notebook of the course a file is: by what its metadata say, else by its name."""
    notebook = read(path)
    stem = notebook.get("metadata", {}).get(KEY, {}).get("notebook", Path(path).stem)
    if stem not in known:
        raise NumnetError(f"{path}: not a notebook of this course; expected one of {', '.join(known)}")
    if not any(_marks(cell) for cell in notebook["cells"]):
        raise NumnetError(
            f"{path}: a notebook as the checkout has it; expected one that `numnet course student` wrote"
        )
    return stem


def one_each(paths, place_of) -> dict:
    """Of files handed in, stem → path. Raises NumnetError if a notebook was handed in twice, or is none of the course."""
    found = {}
    for path in paths:
        stem = which(path, place_of)
        if stem in found:
            raise NumnetError(f"{stem} was handed in twice: {found[stem]} and {path}; keep one of them")
        found[stem] = path
    return found


def grade(paths, place_of, seconds=SECONDS, small=True) -> dict[str, list[Mark]]:
    """The marks of one student: for each notebook of the course its exercises.

    paths: the files handed in. place_of: dict of the course's notebooks, stem → path. A notebook that is missing
    brings no points. Raises NumnetError if a notebook was handed in twice.
    """
    handed_in, marks = one_each(paths, place_of), {}
    for stem, original in place_of.items():
        teacher = version(read(original), "teacher", stem)
        if stem in handed_in:
            path = handed_in[stem]
            marks[stem] = grade_notebook(read(path), teacher, path.parent, seconds, small)
        else:
            marks[stem] = [Mark(number, 0, of, "not handed in") for number, of in _tests(teacher).values()]
    return marks


def grade_notebook(submitted, teacher, folder=".", seconds=SECONDS, small=True) -> list[Mark]:
    """The marks of one notebook; it is run in ``folder``, each cell for at most that many seconds.

    small: at the size of the tests (NUMNET_SMALL=1), which is faster and asks for the same answers.
    """
    cells = _as_given_out(submitted["cells"], teacher["cells"])
    ran = _run({**submitted, "cells": cells}, folder, seconds, small)
    by_id = {_marks(cell).get("grade_id"): cell for cell in ran}
    found = []
    for name, (number, of) in _tests(teacher).items():
        test, answer = by_id.get(name), by_id.get(name.removesuffix("-check"))
        if test is None or answer is None:
            found.append(Mark(number, 0, of, "its cells are no longer in the notebook"))
            continue
        passed = test.get("execution_count") is not None and not _error(test)
        found.append(Mark(number, of if passed else 0, of, "right" if passed else _why(answer, test)))
    return found


def _marks(cell):
    marks = cell.get("metadata", {}).get("nbgrader", {})
    return marks if isinstance(marks, dict) else {}


def _tests(teacher):
    """The test cells of a teacher's notebook: grade_id → (exercise, points)."""
    found = {}
    for cell in teacher["cells"]:
        marks = _marks(cell)
        if marks.get("grade"):
            found[marks["grade_id"]] = int(marks["grade_id"].split("-")[1]), marks["points"]
    return found


def _as_given_out(cells, teachers):
    """The submitted code cells, each locked one with the teacher's text.

    Before each answer stands a cell that forgets the last one, so that no answer counts for another exercise. An editor that
    splits or copies a cell gives both the same name: of locked cells the last counts, of answers all run, in their order.
    """
    given = {_marks(cell)["grade_id"]: cell for cell in teachers if _marks(cell)}
    last = {_marks(cell).get("grade_id"): index for index, cell in enumerate(cells)}
    kept, begun = [], set()
    for index, cell in enumerate(cells):
        if cell["cell_type"] != "code":
            continue
        name = _marks(cell).get("grade_id")
        marks = _marks(given.get(name, {}))
        if marks.get("locked"):
            if index != last[name]:
                continue
            cell = {**cell, "source": source(given[name])}
        elif marks.get("solution") and name not in begun:
            begun.add(name)
            kept.append(
                {**given[name], "id": f"forget-{len(kept)}", "metadata": {}, "source": "answer = None"}
            )
        fresh = {"source": source(cell), "outputs": [], "execution_count": None, "id": f"cell-{len(kept)}"}
        kept.append({"metadata": {}, **cell, **fresh})
    return kept


def _run(notebook, folder, seconds, small):
    """The cells after running them; an error ends its cell and not the notebook."""
    try:
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import DeadKernelError
    except ImportError:
        raise NumnetError(NEEDS) from None
    loaded = nbformat.from_dict({**notebook, "nbformat_minor": 5, "metadata": {}})
    client = NotebookClient(
        loaded,
        timeout_func=lambda cell: limit(cell, seconds),
        kernel_name="python3",
        startup_timeout=600,  # seconds until a kernel answers, on a machine with much other work
        allow_errors=True,
        interrupt_on_timeout=True,
        extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # its remarks on how it talks to us
        resources={"metadata": {"path": str(folder)}},
    )
    ours = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH"))))
    settings = {"PYTHONPATH": paths, "NUMNET_WIDGETS": "0"} | ({"NUMNET_SMALL": "1"} if small else {})
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MPLBACKEND", "NUMNET_SMALL")
    }
    try:
        client.execute(env={**environment, **settings})
    except DeadKernelError:
        pass  # the cells after the one that killed it have no execution count, and bring nothing
    return loaded["cells"]


def limit(cell, seconds):
    """The longest that a cell may run; every cell has the same, since a check runs what a student wrote."""
    return seconds


def _error(cell):
    """The error in a cell's outputs, as "Name: text", or None."""
    for output in cell["outputs"]:
        if output["output_type"] == "error":
            return f"{output['ename']}: {output['evalue']}"
    return None


def _why(answer, test):
    """One line on an answer that was not right."""
    if test.get("execution_count") is None:
        return "the notebook stopped before this cell"
    error = _error(answer)
    if error:
        return f"the cell of the answer stopped with {error.splitlines()[0]}"
    said = "".join(output.get("text", "") for output in test["outputs"]).strip()
    # The verdicts alone, not what an answer printed.
    verdicts = [line for line in said.splitlines() if line.startswith((OPEN, WRONG))]
    return verdicts[-1] if verdicts else f"the check stopped with {_error(test).splitlines()[0]}"
