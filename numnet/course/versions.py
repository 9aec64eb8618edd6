"""The notebooks for students, with blanks, and for teachers, with solutions: both as nbgrader's assignments.

An exercise's cell becomes two: one to fill in (nbgrader's "solution" cell) and one that checks (a locked "test" cell).
All other code cells are locked, too, so that a grader runs them as they were given out. In the teacher's version the
solution stands between BEGIN SOLUTION and END SOLUTION, and what makes the points stands between BEGIN HIDDEN TESTS and
END HIDDEN TESTS; ``nbgrader generate_assignment`` makes of it what the student's version is.
"""

import copy
import json
import shutil
import textwrap
from pathlib import Path

from numnet.course.exercises import FOLDED, exercises, is_open, notebooks, read, source
from numnet.errors import NumnetError

SCHEMA = 3  # of nbgrader's metadata
VERDICT = "verdict"  # the variable that a check's answer is kept in
HIDDEN = (
    "### BEGIN HIDDEN TESTS\n"
    f'assert {VERDICT} is True, "the check above did not say that this is right"\n'
    "### END HIDDEN TESTS"
)
KEY = "numnet_course"  # in a notebook's metadata: which notebook it is, whatever the file is called
BESIDE = ("runs", "five_articles.md")  # what notebooks read or link to


def write(kind, target, place, only=()) -> list[Path]:
    """Write the ``kind`` ("student" or "teacher") version of the notebooks in ``place`` to the folder ``target``.

    Returns the files written. Raises NumnetError if one of them is there already: somebody may have worked in it.
    """
    target, paths = Path(target), notebooks(place, only)
    made = {target / path.name: version(read(path), kind, path.stem) for path in paths}
    for path in made:
        if path.exists():
            raise NumnetError(f"{path} is there already; choose a new folder, or remove it")
    target.mkdir(parents=True, exist_ok=True)
    for path, notebook in made.items():
        path.write_text(json.dumps(notebook, ensure_ascii=False, indent=1) + "\n", "utf-8")
    for name in BESIDE:
        if (place / name).is_dir():
            shutil.copytree(place / name, target / name, dirs_exist_ok=True)
        elif (place / name).is_file():
            shutil.copy(place / name, target / name)
    return list(made)


def version(notebook, kind, stem) -> dict:
    """One notebook for students or for teachers; nothing of ``notebook`` is changed. stem: the file's name."""
    if kind not in ("student", "teacher"):
        raise ValueError(f"kind: expected student or teacher, got {kind!r}")
    by_cell = {exercise.cell: exercise for exercise in exercises(notebook, stem)}
    if kind == "student":
        for exercise in by_cell.values():
            if not is_open(exercise.blank):
                raise NumnetError(
                    f"{stem}: exercise {exercise.number} is filled in; expected `answer = ...`: put the notebook back"
                )
    cells = []
    for index, cell in enumerate(notebook["cells"]):
        cell = {"id": f"cell-{index}", **cell}  # notebooks of format 4.4 have no names of cells
        if index in by_cell:
            cells += _cells_of(by_cell[index], kind, cell)
        elif cell["cell_type"] == "code":
            cells.append(_code(source(cell), cell["id"], _marks(f"cell-{cell['id']}", locked=True)))
        else:
            text = source(cell)
            if index - 1 in by_cell:
                text = FOLDED.sub("", text, count=1).strip()
            if text:
                cells.append({**copy.deepcopy(cell), "source": text})
    metadata = {**copy.deepcopy(notebook["metadata"]), KEY: {"notebook": stem}}
    minor = max(notebook["nbformat_minor"], 5)  # since 4.5 a cell has a name
    return {"nbformat": notebook["nbformat"], "nbformat_minor": minor, "metadata": metadata, "cells": cells}


def _cells_of(exercise, kind, cell):
    answer = _marks(exercise.name, solution=True)
    test = _marks(f"{exercise.name}-check", grade=True, locked=True, points=exercise.points)
    check = f"{VERDICT} = {exercise.check}"
    if kind == "teacher":
        words = textwrap.wrap(" ".join(exercise.why.split()), 100)
        inside = "\n".join([*(f"# {line}" for line in words), exercise.solution])
        blank = "\n".join(filter(None, (exercise.given, f"### BEGIN SOLUTION\n{inside}\n### END SOLUTION")))
        check += f"\n{HIDDEN}"
    else:
        blank = exercise.blank
    return [_code(blank, cell["id"], answer), _code(check, f"{cell['id'][:55]}-check", test)]


def _code(text, name, marks):
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": name,
        "metadata": {"nbgrader": marks},
        "outputs": [],
        "source": text,
    }


def _marks(name, grade=False, solution=False, locked=False, points=None):
    """What nbgrader wants to know of a cell."""
    marks = {"grade_id": name, "grade": grade, "solution": solution, "locked": locked, "task": False}
    marks |= {"schema_version": SCHEMA, "cell_type": "code"}
    return marks if points is None else {**marks, "points": points}
