"""``numnet course``: the notebooks for students and for teachers, graded, and as slides."""

from numnet.cli.arguments import choice, number, print_json, say
from numnet.course import exercises, grading, slides, versions
from numnet.errors import NumnetError, tell
from numnet.texts import counted

PARTS = ("student", "teacher", "grade", "slides")


def course_arguments(parser):
    parser.epilog = (
        "student, teacher and slides write to DIR. grade reads DIR: the notebooks of one student, or a folder for each. "
        "It runs what students wrote. docs/teaching.md is the teacher's guide."
    )
    parser.add_argument(
        "part", type=choice(*PARTS), metavar="student|teacher|grade|slides", help="what to do"
    )
    parser.add_argument("folder", metavar="DIR", help="the folder to write to, or the one to grade")
    parser.add_argument("--only", default="", metavar="NN,…", help="these notebooks alone, for example 01,02")
    parser.add_argument("--notebooks", metavar="DIR", help="where the notebooks are (the checkout's)")
    parser.add_argument(
        "--seconds",
        type=number(above=0),
        metavar="S",
        help=f"grade: the longest that a cell may run ({grading.SECONDS})",
    )
    parser.add_argument(
        "--full", action="store_true", help="grade: run at full size; the answers are the same"
    )
    parser.add_argument("--json", action="store_true", help="grade: as JSON")


def course(arguments):
    place = exercises.folder(arguments.notebooks)
    if arguments.part == "grade":
        _grade(arguments, place)
        return
    if arguments.json or arguments.full or arguments.seconds is not None:
        raise NumnetError(f"numnet course {arguments.part}: --json, --full and --seconds belong to grade")
    if arguments.part == "slides":
        written = slides.write(arguments.folder, place, _words(arguments.only))
        say(
            f"{counted(sum(written.values()), 'slide')} of {counted(len(written), 'notebook')} in {arguments.folder}"
        )
        return
    written = versions.write(arguments.part, arguments.folder, place, _words(arguments.only))
    count = sum(len(exercises.exercises(exercises.read(place / path.name), path.stem)) for path in written)
    say(f"{counted(len(written), 'notebook')} with {counted(count, 'exercise')} in {arguments.folder}")


def _words(text):
    """The words between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def _grade(arguments, place):
    """One student after another; what is known of each is printed when it is known."""
    known = {path.stem: path for path in exercises.notebooks(place, _words(arguments.only))}
    every = {path.stem: path for path in exercises.notebooks(place)}
    # All files are looked at before the first one runs.
    handed_in = {
        student: [path for stem, path in grading.one_each(paths, every).items() if stem in known]
        for student, paths in grading.submissions(arguments.folder).items()
    }
    reports = []
    for student, paths in handed_in.items():
        tell(f"grading {student}: {len(paths)} of {counted(len(known), 'notebook')}")
        marks = grading.grade(paths, known, arguments.seconds or grading.SECONDS, not arguments.full)
        reports.append(_report(student, marks))
        if not arguments.json:
            print(_text(reports[-1]))
    if arguments.json:
        print_json(reports)


def _report(student, marks):
    notebooks = [
        {
            "notebook": stem,
            "points": sum(mark.points for mark in each),
            "of": sum(mark.of for mark in each),
            "exercises": [mark._asdict() for mark in each],
        }
        for stem, each in marks.items()
    ]
    points, of = (sum(notebook[key] for notebook in notebooks) for key in ("points", "of"))
    return {"student": student, "points": points, "of": of, "notebooks": notebooks}


def _text(report):
    share = 100 * report["points"] / report["of"] if report["of"] else 0
    lines = [f"{report['student']}: {report['points']} of {report['of']} points, {share:.0f} %"]
    for notebook in report["notebooks"]:
        lines.append(f"  {notebook['notebook']}: {notebook['points']} of {notebook['of']}")
        for mark in notebook["exercises"]:
            if mark["points"] < mark["of"]:
                lines.append(f"    exercise {mark['exercise']}: {mark['said']}")
    return "\n".join(lines)
