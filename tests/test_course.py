"""The notebooks as a course: what students and teachers get, and the points that handed-in notebooks bring."""

import copy
import json
import re
import textwrap
from pathlib import Path

import pytest
from cli_tools import numnet, works
from kernel_shapes import CHECKING

from numnet.course import exercises, grading, versions
from numnet.errors import NumnetError
from numnet.lessons.check import OPEN, WRONG

PLACE = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(PLACE.glob("[0-9][0-9]_*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
runs_cells = [
    pytest.mark.skipif(CHECKING, reason="nothing is compiled here that a notebook could run"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the packages that start the kernel
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

# Ten wrong answers that people give, by notebook and exercise.
WRONG_ANSWERS = {
    ("01", 1): "answer = 5  # another window's",
    ("01", 2): "answer = 111  # without padding",
    ("01", 4): """
def answer(dy, w, stride, side):
    dx = np.zeros((side, side))
    for p, q in np.ndindex(*dy.shape):
        for u, v in np.ndindex(*w.shape):
            dx[p + u, q + v] += dy[p, q] * w[u, v]  # the stride is forgotten
    return dx
""",
    ("02", 1): "answer = 512  # forgets the pointwise step",
    ("02", 4): "answer = 25 / 8  # MACs for FLOP",
    ("03", 1): "answer = 16  # without the overlap",
    ("04", 1): "answer = [-2 / np.sqrt(8 / 3), 0, 0, 2 / np.sqrt(8 / 3)]  # divided by M - 1",
    ("04", 2): """
def answer(du, x, gamma, eps):
    return gamma / np.sqrt(x.var() + eps) * (du - du.mean())  # the third term is forgotten
""",
    ("05", 2): "answer = 28 * 28 * (6 * 32) * (32 + 32)  # without the depthwise convolution",
    ("06", 2): "answer = 1000  # the classes, not the logarithm",
}


@pytest.fixture(autouse=True)
def no_time_limit(monkeypatch):
    """However slow the machine is: no cell is stopped but where a test says so."""
    monkeypatch.setattr(grading, "limit", lambda cell, seconds: None)


def marks(cell):
    return cell["metadata"].get("nbgrader", {})


@pytest.fixture(scope="module")
def small_course(tmp_path_factory):
    """A folder with one notebook, made of the ten exercises above as they stand in theirs."""
    cells, modules = [], set()
    for number, (notebook, exercise) in enumerate(WRONG_ANSWERS, 1):
        (path,) = PLACE.glob(f"{notebook}_*.ipynb")
        whole = exercises.read(path)
        (found,) = (e for e in exercises.exercises(whole) if e.number == exercise)
        modules.add(found.check.split(".")[0])
        cells += [
            {
                "cell_type": "markdown",
                "id": f"text-{number}",
                "metadata": {},
                "source": f"### Exercise {number}",
            },
            copy.deepcopy(whole["cells"][found.cell]),
            copy.deepcopy(whole["cells"][found.cell + 1]),
        ]
    first = f"import numpy as np\n\nfrom numnet.lessons import {', '.join(sorted(modules))}"
    cells.insert(0, {"cell_type": "code", "id": "first", "metadata": {}, "outputs": [], "source": first})
    folder = tmp_path_factory.mktemp("small course")
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}
    (folder / "01_ten.ipynb").write_text(json.dumps(notebook), "utf-8")
    return folder


def hand_in(notebook, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook), "utf-8")


# ----------------------------------------------------------------------------------------- what is written


@each_notebook
def test_the_students_version_has_no_solution(path):
    notebook = exercises.read(path)
    found = exercises.exercises(notebook, path.stem)
    assert [exercise.number for exercise in found] == list(range(1, len(found) + 1))
    student = versions.version(notebook, "student", path.stem)
    everything = "\n".join(exercises.source(cell) for cell in student["cells"])
    assert "<details>" not in everything and "SOLUTION" not in everything and "HIDDEN" not in everything
    for exercise in found:
        assert exercise.solution and exercise.solution not in everything
        assert exercise.check in everything and f"### Exercise {exercise.number}" in everything
    assert not any(cell.get("outputs") for cell in student["cells"])


@each_notebook
def test_the_teachers_version_has_solutions_and_hidden_tests(path):
    notebook = exercises.read(path)
    teacher = versions.version(notebook, "teacher", path.stem)
    by_name = {marks(cell)["grade_id"]: exercises.source(cell) for cell in teacher["cells"] if marks(cell)}
    for exercise in exercises.exercises(notebook, path.stem):
        answer, test = by_name[exercise.name], by_name[f"{exercise.name}-check"]
        begin, end = answer.index("### BEGIN SOLUTION"), answer.index("### END SOLUTION")
        assert exercise.solution in answer[begin:end]
        assert exercise.check in test and versions.HIDDEN in test
    assert not any("<details>" in exercises.source(cell) for cell in teacher["cells"])


@each_notebook
@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_the_cells_are_nbgraders(path, kind):
    """The rules of nbgrader's schema 3 for metadata, as its documentation has them; and of the notebook format."""
    made = versions.version(exercises.read(path), kind, path.stem)
    pytest.importorskip("nbformat").validate(made)
    names = [marks(cell)["grade_id"] for cell in made["cells"] if marks(cell)]
    assert len(names) == len(set(names)) and all(re.fullmatch(r"[\w-]+", name) for name in names)
    for cell in made["cells"]:
        if cell["cell_type"] == "code":
            of = marks(cell)
            assert of["schema_version"] == 3 and of["cell_type"] == "code" and of["task"] is False
            assert {type(of[key]) for key in ("grade", "solution", "locked")} == {bool}
            assert of["grade"] == ("points" in of) and of["locked"] != of["solution"]
            assert not of["grade"] or (of["locked"] and of["points"] in (1, 2))


def test_what_is_given_stays_in_the_teachers_blank():
    blank = "p, n = 0.5, 100\nanswer = ...\n"
    assert exercises.given(blank) == "p, n = 0.5, 100"
    assert exercises.given("def f(x):\n    ...  # your lines\n\n\nanswer = ...  # put f here") == ""


def test_an_exercise_without_a_solution_is_an_error():
    cells = [
        {"cell_type": "markdown", "source": "### Exercise 1"},
        {"cell_type": "code", "source": "answer = ...\nlesson.exercise_1(answer);"},
    ]
    with pytest.raises(NumnetError, match=r"^here: exercise 1 has no folded solution"):
        exercises.exercises({"cells": cells}, "here")


@pytest.mark.parametrize(
    "code, message",
    [
        ("answer = ...\n", "exercise 1 has no cell that ends in its check"),
        ("%matplotlib inline\n", "exercise 1 has no cell that ends in its check"),
    ],
)
def test_an_exercise_without_a_check_is_an_error(code, message):
    heading = {"cell_type": "markdown", "source": "### Exercise 1"}
    for rest in ([], [{"cell_type": "markdown", "source": "### Exercise 2"}]):
        with pytest.raises(NumnetError, match=f"^here: {message}"):
            exercises.exercises({"cells": [heading, {"cell_type": "code", "source": code}, *rest]}, "here")


def test_a_notebook_that_somebody_worked_in_is_not_given_out(small_course):
    notebook = exercises.read(small_course / "01_ten.ipynb")
    blank = next(cell for cell in notebook["cells"] if "answer = ..." in exercises.source(cell))
    blank["source"] = exercises.source(blank).replace("answer = ...", "answer = -6")
    with pytest.raises(NumnetError, match="01_ten: exercise 1 is filled in"):
        versions.version(notebook, "student", "01_ten")
    assert versions.version(notebook, "teacher", "01_ten")


def test_notebooks_of_format_4_4_get_names_of_cells(small_course):
    notebook = exercises.read(small_course / "01_ten.ipynb")
    notebook["nbformat_minor"] = 4
    for cell in notebook["cells"]:
        cell.pop("id", None)
    made = versions.version(notebook, "student", "01_ten")
    names = [cell["id"] for cell in made["cells"]]
    assert len(set(names)) == len(names) and made["nbformat_minor"] == 5


def test_one_is_notebook_one_and_not_ten():
    assert [path.name[:2] for path in exercises.notebooks(PLACE, ["1", "10"])] == ["01", "10"]
    with pytest.raises(NumnetError, match="no notebook begins with '00'"):
        exercises.notebooks(PLACE, ["0"])


def test_written_to_a_new_folder(tmp_path):
    out = numnet("course", "student", tmp_path / "class", "--only", "01,02")
    assert out[0] == 0 and re.fullmatch(r"2 notebooks with \d+ exercises in .*class\n", out[2])
    names = {path.name for path in (tmp_path / "class").iterdir()}
    assert names == {NOTEBOOKS[0].name, NOTEBOOKS[1].name, "runs", "five_articles.md"}
    code, _, err = numnet("course", "teacher", tmp_path / "class", "--only", "02")
    assert code == 2 and "02_standard_vs_separable.ipynb is there already" in err


@pytest.mark.parametrize(
    "words, message",
    [
        (["student"], "DIR is missing"),
        (["pupil", "out"], "expected one of student, teacher, grade, slides"),
        (["student", "out", "--only", "99"], "--only: no notebook begins with '99'; expected one of 01, 02"),
        (["student", "out", "--json"], "--json, --full and --seconds belong to grade"),
        (["slides", "out", "--seconds", "5"], "--json, --full and --seconds belong to grade"),
        (
            ["student", "out", "--notebooks", "nowhere"],
            "no notebooks in nowhere; expected files like 01_….ipynb",
        ),
        (
            ["grade", "nowhere"],
            "nowhere: expected a folder with notebooks, or with a folder for each student",
        ),
        (["grade", "empty"], "empty: no notebook (.ipynb) here or in the folders in it"),
        (["grade", "broken"], "expected a notebook (.ipynb), and this is not JSON"),
        (["grade", "other"], "other.ipynb: not a notebook of this course; expected one of 01_"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "01.ipynb").write_text("{")
    hand_in(
        {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}, tmp_path / "other" / "other.ipynb"
    )
    code, out, err = numnet("course", *words)
    assert code == 2 and out == "" and message in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_notebook_twice_is_an_error(tmp_path, small_course):
    student = versions.version(exercises.read(small_course / "01_ten.ipynb"), "student", "01_ten")
    for name in ("a.ipynb", "b.ipynb"):  # whatever they are called, both say that they are 01_ten
        hand_in(student, tmp_path / "class" / "anna" / name)
    code, _, err = numnet("course", "grade", tmp_path / "class", "--notebooks", small_course)
    assert code == 2 and "01_ten was handed in twice" in err


def test_who_handed_in_what(tmp_path):
    for name in ("anna/01.ipynb", "berta/deep/01.ipynb", "berta/notes.pdf", "carl/photo.png"):
        hand_in({}, tmp_path / name)
    (tmp_path / "__pycache__").mkdir()
    found = grading.submissions(tmp_path)
    assert {name: len(paths) for name, paths in found.items()} == {"anna": 1, "berta": 1, "carl": 0}
    found = grading.submissions(tmp_path / "berta")
    assert {name: len(paths) for name, paths in found.items()} == {"deep": 1}
    hand_in({}, tmp_path / "mia" / "01.ipynb")
    hand_in({}, tmp_path / "mia" / "mia" / "02.ipynb")
    (tmp_path / "mia" / "pictures").mkdir()
    found = grading.submissions(tmp_path / "mia")
    assert {name: len(paths) for name, paths in found.items()} == {"mia": 2}


def test_a_student_s_folder_may_begin_with_an_underscore(tmp_path):
    for name in ("_anna", "__MACOSX", ".cache", "__pycache__"):
        hand_in({}, tmp_path / name / "01.ipynb")
    assert list(grading.submissions(tmp_path)) == ["_anna"]


def test_the_checkouts_own_notebook_handed_in_is_said(tmp_path, small_course):
    hand_in(exercises.read(small_course / "01_ten.ipynb"), tmp_path / "class" / "anna" / "01_ten.ipynb")
    code, _, err = numnet("course", "grade", tmp_path / "class", "--notebooks", small_course)
    assert code == 2 and "a notebook as the checkout has it; expected one that `numnet course student`" in err


def test_the_hint_is_not_what_an_answer_printed():
    printed = {"output_type": "stream", "text": f"shape (8, 3)\nyes   10 numbers out\n{WRONG}: seven taps\n"}
    answer, test = {"outputs": []}, {"execution_count": 1, "outputs": [printed]}
    assert grading._why(answer, test) == f"{WRONG}: seven taps"


# ----------------------------------------------------------------------------------------- grading


def test_solutions_blanks_and_ten_wrong_answers(tmp_path, small_course):
    for kind in ("student", "teacher"):
        works("course", kind, tmp_path / kind, "--notebooks", small_course)
    wrong = exercises.read(tmp_path / "student" / "01_ten.ipynb")
    answers = iter(WRONG_ANSWERS.values())
    for cell in wrong["cells"]:
        if marks(cell).get("solution"):
            cell["source"] = next(answers).splitlines(keepends=True)  # a list of lines, as Jupyter saves it
    hand_in(wrong, tmp_path / "wrong" / "deep" / "ten of anna.ipynb")  # renamed; the metadata say what it is
    reports = json.loads(works("course", "grade", tmp_path, "--notebooks", small_course, "--json"))
    points = {report["student"]: (report["points"], report["of"]) for report in reports}
    assert points == {"student": (0, 12), "teacher": (12, 12), "wrong": (0, 12)}
    said = {r["student"]: [mark["said"] for mark in r["notebooks"][0]["exercises"]] for r in reports}
    assert set(said["teacher"]) == {"right"} and len(said["teacher"]) == 10
    assert all(text.startswith(OPEN) for text in said["student"])
    assert all(text.startswith(f"{WRONG}: ") and len(text) > len(WRONG) + 15 for text in said["wrong"])
    assert len(set(said["wrong"])) == 10, "each has a hint of its own"


test_solutions_blanks_and_ten_wrong_answers.pytestmark = runs_cells


def test_what_students_do_to_their_files(tmp_path, small_course, monkeypatch):
    """A changed check counts as it was given out, an error ends one cell, and a lost or doubled cell is no crash."""
    teacher = versions.version(exercises.read(small_course / "01_ten.ipynb"), "teacher", "01_ten")
    handed_in, seen = copy.deepcopy(teacher), []
    for cell in handed_in["cells"]:
        name = marks(cell).get("grade_id", "")
        if name == "cell-first":
            cell["source"] = ["this is no Python\n", "at all"]  # locked: runs as given out
        elif name == "exercise-1-check":
            cell["source"] = "verdict = True"  # locked, so that this changes nothing
        elif name == "exercise-1":
            cell["source"] = "answer = 5"
        elif name == "exercise-2":
            cell["source"] = "raise KeyError('lost')"  # and the answer of exercise 1 does not count here
        elif name == "exercise-3":
            cell["source"] = "while True:\n    pass"
        elif name == "exercise-4":
            seen.append({**copy.deepcopy(cell), "id": "again"})  # copied, with its metadata: the last counts
            cell["source"] = "answer = 1"
        elif name == "exercise-6":
            cell["source"] = "forgotten = 12"
        elif name == "exercise-10":
            cell["source"] = "import os\nos._exit(3)"
        if name not in ("exercise-5", "exercise-7-check"):
            seen.append(cell)
    position = next(i for i, cell in enumerate(seen) if marks(cell).get("grade_id") == "exercise-4")
    seen[position], seen[position + 1] = seen[position + 1], seen[position]
    handed_in["cells"] = seen
    monkeypatch.setattr(grading, "limit", lambda cell, seconds: 1 if "while" in cell["source"] else None)
    found = {mark.exercise: mark for mark in grading.grade_notebook(handed_in, teacher, tmp_path)}
    assert found[1].points == 0 and found[1].said.startswith(WRONG)
    assert found[2].said == "the cell of the answer stopped with KeyError: 'lost'"
    assert found[3].points == 0 and "KeyboardInterrupt" in found[3].said
    assert found[4].points == 1 and found[8].points == 2 and found[9].points == 1
    for number in (5, 7):
        assert found[number].said == "its cells are no longer in the notebook"
    assert found[6].said.startswith(OPEN)
    assert found[10].said == "the notebook stopped before this cell"


test_what_students_do_to_their_files.pytestmark = runs_cells


def test_both_halves_of_an_answer_that_was_split_count(tmp_path, small_course):
    teacher = versions.version(exercises.read(small_course / "01_ten.ipynb"), "teacher", "01_ten")
    handed_in = copy.deepcopy(teacher)
    at, cell = next(
        (i, c) for i, c in enumerate(handed_in["cells"]) if marks(c).get("grade_id") == "exercise-8"
    )
    whole = "".join(cell["source"])
    handed_in["cells"].insert(at + 1, {**copy.deepcopy(cell), "source": "answer = half", "id": "half"})
    cell["source"] = whole + "\nhalf, answer = answer, None"
    found = {mark.exercise: mark for mark in grading.grade_notebook(handed_in, teacher, tmp_path)}
    assert (found[8].points, found[8].said) == (2, "right")


test_both_halves_of_an_answer_that_was_split_count.pytestmark = runs_cells


def test_a_stray_file_is_said_before_the_first_notebook_runs(tmp_path, small_course, monkeypatch):
    student = versions.version(exercises.read(small_course / "01_ten.ipynb"), "student", "01_ten")
    hand_in(student, tmp_path / "class" / "anna" / "a.ipynb")
    hand_in({**student, "metadata": {}}, tmp_path / "class" / "berta" / "Untitled.ipynb")
    monkeypatch.setattr(grading, "grade", lambda *arguments: pytest.fail("ran a notebook"))
    code, _, err = numnet("course", "grade", tmp_path / "class", "--notebooks", small_course)
    assert code == 2 and "Untitled.ipynb: not a notebook of this course" in err


def test_a_notebook_that_is_missing_brings_nothing(small_course):
    course = {"01_ten": small_course / "01_ten.ipynb"}
    found = grading.grade([], course)["01_ten"]
    assert [mark.said for mark in found] == ["not handed in"] * 10 and sum(mark.of for mark in found) == 12


@pytest.mark.slow
@pytest.mark.parametrize("kind, share", [("teacher", 1), ("student", 0)])
def test_the_whole_course(kind, share, tmp_path):
    """Minutes: every notebook run with its solutions brings all points, and with its blanks none."""
    works("course", kind, tmp_path / "class" / "one")
    (report,) = json.loads(works("course", "grade", tmp_path / "class", "--json"))
    assert report["points"] == share * report["of"] and report["of"] >= 60


test_the_whole_course.pytestmark += runs_cells


# ----------------------------------------------------------------------------------------- the teacher's guide


def test_the_exams_answers_are_right():
    """Every block of Python in the guide runs, in order; each holds what it says with an assert."""
    page = (PLACE.parent / "docs" / "teaching.md").read_text("utf-8")
    blocks = [textwrap.dedent(block) for block in re.findall(r"^ *```python\n(.*?)^ *```", page, re.M | re.S)]
    assert len(blocks) >= 9 and all("assert" in block for block in blocks)
    names = {}
    for block in blocks:
        exec(block, names)
    exam, answers = page.split("## An exam")[1].split("### Answers")
    points = [int(n) for n in re.findall(r"^\d+\. \((\d+)\)", exam, re.MULTILINE)]
    assert sum(points) == 60 and "Sixty points" in exam
    assert len(re.findall(r"^\d+\. ", answers, re.MULTILINE)) == len(points) == 12


def test_there_are_sixty_exercises_and_ten_gradients():
    texts = [exercises.source(cell) for path in NOTEBOOKS for cell in exercises.read(path)["cells"]]
    found = [exercise for path in NOTEBOOKS for exercise in exercises.exercises(exercises.read(path))]
    assert len(found) >= 60
    assert sum("**Write this backward.**" in text for text in texts) >= 10
