"""Any name in figures and tables; figures in any environment; numbers that no figure's failure can lose."""

import io
import json
import sys

import numpy as np
import pytest
from cli_tools import TINY, numnet, works, write_images

from numnet import canvas, plotting
from numnet.cli.tables import columns
from numnet.texts import printable, shortened, width

NAMES = [
    "$5 bill", "$x$", "$\\frac{1}{", "a_b^c", "100 % \\alpha", "cafe\u0301", "caf\udce9", "line\nbreak", "\x1b[31mred",
    "\u732b", "\u3042\u306b\u3081", "\ud55c\uad6d\uc5b4", "\U0001f600 face", "\U0001f469\u200d\U0001f52c",
    "\u202eevil", "x" * 300, "\u732b" * 90, "", " ", "\U0010ffff", "\ud800",
]  # fmt: skip


def texts(figure):
    from matplotlib.text import Text

    return [text for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_any_name_is_drawn(ending, tmp_path):
    """Warnings are errors here: no glyph is missing, no formula is parsed."""
    count = len(NAMES)
    matrix = np.eye(count, dtype=int)
    figure = plotting.confusion(matrix, NAMES, tmp_path / f"a.{ending}")
    assert (tmp_path / f"a.{ending}").stat().st_size > 1000
    from matplotlib.cbook import is_math_text

    assert not any(is_math_text(text.get_text()) is True for text in texts(figure))
    rows = [
        {"pixels": np.zeros((8, 8, 3), np.uint8), "title": name, "top": [{"label": name, "probability": 1.0}]}
        for name in NAMES[:6] + ["\u732b", "caf\udce9"]
    ]
    for row in rows:
        row["top"][0]["class"] = 0
    plotting.photos(rows, tmp_path / f"b.{ending}")
    table = {"test_accuracy": 0.9, "deviation": None, "macs": 1e6, "train_seconds": 60.0, "group": "$g$"}
    plotting.sweep(
        [{**table, "name": "$a$"}, {**table, "name": "caf\udce9", "macs": 9e6}], tmp_path / f"c.{ending}"
    )


def test_dollars_come_out_as_dollars(tmp_path):
    """The picture of a name with dollars is that of the same letters drawn where nothing is parsed."""

    def picture(parse, text):
        figure = canvas.blank(2, 1)
        figure.text(0.1, 0.5, text, parse_math=parse)
        content = io.BytesIO()
        figure.savefig(content, format="png")
        return content.getvalue()

    assert picture(True, canvas.literal("$x$ and _y_")) == picture(False, "$x$ and _y_")
    assert picture(True, "$x$ and _y_") != picture(False, "$x$ and _y_")


def test_letters_that_no_font_has_are_spelled_out(monkeypatch):
    monkeypatch.setattr(canvas, "_others", lambda wanted: [])
    assert canvas.literal("\u732b!") == "[U+732B]!"
    assert canvas.literal("\u306d\u3053") == "neko"
    assert canvas.literal("\U0001f6b2") == "[bicycle]"
    assert canvas.literal("caf\u00e9 \u03b1") == "caf\u00e9 \u03b1"


def test_a_font_that_has_them_is_taken(monkeypatch, tmp_path):
    monkeypatch.setattr(canvas, "_others", lambda wanted: [("cmr10", frozenset([0x732B]))])
    matplotlib = canvas.matplotlib()
    with matplotlib.rc_context():
        assert canvas.literal("\u732b") == "\u732b"
        assert matplotlib.rcParams["font.family"][-1] == "cmr10"


@pytest.mark.parametrize(
    "backend", ["module://matplotlib_inline.backend_inline", "module://nowhere", "nonsense", "TkAgg"]
)
def test_the_environment_s_backend_is_not_looked_at(backend, run_python, tmp_path):
    script = tmp_path / "draw.py"
    script.write_text(
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'matplotlib_inline':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from numnet.cli import main\n"
        f"assert main(['draw', 'mobilenet_v1', '-o', {str(tmp_path / 'net.png')!r}]) == 0\n"
        f"assert main(['cost', 'mobilenet_v1', '--plot', {str(tmp_path / 'cost.svg')!r}]) == 0\n"
        "import os\nprint(os.environ['MPLBACKEND'])\n"
    )
    out = run_python(script, env={"MPLBACKEND": backend})
    assert out.splitlines()[-1] == backend
    assert (tmp_path / "net.png").stat().st_size and (tmp_path / "cost.svg").stat().st_size


def test_a_matplotlibrc_that_asks_for_latex_changes_nothing(run_python, tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.family: No Such Font\n")
    script = tmp_path / "draw.py"
    script.write_text(
        f"from numnet import plotting\nplotting.confusion([[1]], ['a_b'], {str(tmp_path / 'a.png')!r})\n"
    )
    run_python(script, env={"MATPLOTLIBRC": tmp_path / "matplotlibrc"})
    assert (tmp_path / "a.png").stat().st_size


def test_no_figure_s_failure_loses_numbers(tmp_path, monkeypatch):
    def broken(*arguments, **keywords):
        raise RuntimeError("the canvas\nis torn")

    folder = write_images(tmp_path / "set", train=4, test=1)
    monkeypatch.setattr(canvas, "panels", broken)
    monkeypatch.setattr(plotting, "panels", broken)
    run = tmp_path / "run"
    command = [
        "train",
        folder,
        *TINY,
        "--epochs",
        "1",
        "--batch-size",
        "6",
        "--validation",
        "3",
        "--out",
        run,
    ]
    code, out, error = numnet(*command, "--quiet", "--json")
    assert code == 0 and json.loads(out)["epochs"] == 1
    assert "curves.png was not drawn" in error and "is torn" in error
    code, out, error = numnet("eval", run, folder, "--figure", tmp_path / "a.png", "--json")
    assert code == 2 and json.loads(out)["images"] == 3
    assert error.splitlines()[-1].startswith(
        "numnet: error: the figure could not be drawn (RuntimeError: the canvas is"
    )
    image = folder / "test" / "red" / "0.png"
    code, out, error = numnet("predict", run, image, "--figure", tmp_path / "a.png", "--json")
    assert code == 2 and len(json.loads(out)) == 1


def test_the_user_s_settings_come_back():
    matplotlib = canvas.matplotlib()
    with matplotlib.rc_context({"font.family": ["serif"], "axes.grid": True}):
        before = dict(matplotlib.rcParams)
        plotting.confusion([[1]], ["\u732b"])
        assert dict(matplotlib.rcParams) == before


# ------------------------------------------------------------------------------------------- tables


def test_printable_width_and_shortened():
    assert printable("a\nb\t\x1b[0m") == "a b \\x1b[0m"
    assert printable("caf\udce9 \ud800") == "caf\\xe9 \\ud800"
    assert [width(text) for text in ("abc", "\u732b", "e\u0301", "\U0001f600")] == [3, 2, 1, 2]
    for name in map(printable, NAMES):
        for most in (5, 12, 40):
            assert width(shortened(name, most)) <= most
        assert shortened(name, 1000) == name
    assert (
        shortened("beginning and end", 9).startswith("begin") and shortened("beginning and end", 9)[-1] == "d"
    )


def test_tables_stay_aligned_and_fit(monkeypatch):
    lines = [("class", "images"), None, *((name, 7) for name in NAMES)]
    for shown in (columns(lines, right=(1,), fit=(0,)), columns(lines, right=(1,))):
        rows = shown.splitlines()
        assert len(rows) == len(lines) and len({width(row) for row in rows}) == 1
    assert max(map(width, columns(lines, right=(1,), fit=(0,)).splitlines())) <= 60
    monkeypatch.setattr("numnet.cli.tables.sys.stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "30")
    assert {width(row) for row in columns(lines, right=(1,), fit=(0,)).splitlines()} == {30}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="file names that are no text")
def test_classes_with_such_names_from_training_to_evaluation(tmp_path):
    classes = ("$a_1$", "caf\udce9", "\u732b \U0001f600")
    folder = write_images(tmp_path / "set", train=4, test=1, classes=classes)
    command = ["train", folder, *TINY, "--epochs", "1", "--batch-size", "6", "--validation", "0"]
    works(*command, "--out", tmp_path / "run", "--quiet")
    out = works("eval", tmp_path / "run", folder, "--per-class", "--figure", tmp_path / "confusion.png")
    assert "$a_1$" in out and "caf\\xe9" in out and "\u732b" in out
    image = folder / "test" / classes[1] / "0.png"
    assert "caf\\xe9" in works("predict", tmp_path / "run", image, "--figure", tmp_path / "photo.png")
