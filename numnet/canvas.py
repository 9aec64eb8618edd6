"""Where every figure is made and written: matplotlib without a window, without the user's settings, and with any name.

Three things of a user's environment have broken figures elsewhere and cannot here. A backend in $MPLBACKEND, as a notebook
leaves it to the programs that it starts, is not looked at: figures are drawn by Agg. Settings that need other programs
(LaTeX) are off. And names come as they are: ``literal`` says of any text what matplotlib must be given so that this text
appears, in a font that has its letters if one is installed, else spelled out.
"""

import functools
import os
import sys
import unicodedata
import warnings

from numnet.errors import NumnetError
from numnet.texts import printable, shortened

LONGEST = 40  # columns of a name in a figure
OWN = {"text.usetex": False, "axes.formatter.use_mathtext": False, "svg.fonttype": "path"}
# Fonts to look into first for letters that matplotlib's own does not have.
LIKED = ("noto sans cjk", "noto sans", "source han", "wenquanyi", "droid sans fallback", "microsoft yahei", "simhei",
         "pingfang", "hiragino", "malgun", "noto emoji", "symbola", "arial unicode", "unifont")  # fmt: skip


def matplotlib():
    """The package, imported without the backend that the environment names; the user's own code still gets that one."""
    if "matplotlib" in sys.modules:
        return sys.modules["matplotlib"]
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        try:
            matplotlib.rcParams["backend"] = backend
        except (ValueError, ImportError):  # it is not installed: nobody's business here
            pass
    return matplotlib


def drawn(function):
    """A decorator for what draws: settings of our own inside, and an unexpected failure as one NumnetError."""

    @functools.wraps(function)
    def draw(*arguments, **keywords):
        try:
            with matplotlib().rc_context(OWN), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
                matplotlib().rcParams["font.family"] = ["DejaVu Sans"]
                return function(*arguments, **keywords)
        except (NumnetError, MemoryError, OSError):
            raise
        except TypeError:
            raise  # a mistake of the caller's
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise NumnetError(
                f"the figure could not be drawn ({type(error).__name__}: {reason:.200})"
            ) from error

    return draw


def blank(width, height, **options):
    """A figure of that many inches."""
    matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), **options)
    FigureCanvasAgg(figure)
    return figure


def panels(width, height, rows=1, columns=1, **subplots):
    """A figure of that many inches, and its axes as an array (rows, columns)."""
    figure = blank(width, height, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **subplots)


def write(figure, file=None):
    """The figure, written to ``file`` if one is given. Raises NumnetError."""
    if file is None:
        return figure
    try:
        figure.savefig(file, dpi=150)
    except ValueError as error:  # an ending that matplotlib does not know
        raise NumnetError(f"cannot write the figure {file}: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise NumnetError(f"cannot write the figure {file}: {error.strerror or error}") from None
    return figure


# ------------------------------------------------------------------------------------------- names


def literal(text, longest=LONGEST) -> str:
    """What to give matplotlib so that this text appears; call it before the text is made, since it may add a font."""
    text = printable(text)
    if not text.isascii():
        text = _spelled(text)
    return shortened(text, longest).replace("$", r"\$")  # two dollars would be a formula


def _spelled(text) -> str:
    """The text with each letter that no installed font has spelled out; fonts that are needed join the family."""
    matplotlib()
    from matplotlib import font_manager

    family = matplotlib().rcParams["font.family"]
    own = _letters(font_manager.findfont("DejaVu Sans"))
    lacking = {letter for letter in text if ord(letter) not in own and not _silent(letter)}
    for name, letters in _others(lacking) if lacking else ():
        found = {letter for letter in lacking if ord(letter) in letters}
        if found:
            if name not in family:
                matplotlib().rcParams["font.family"] = family = [*family, name]
            lacking -= found
        if not lacking:
            break
    return "".join(
        _substitute(c) if c in lacking else "" if _silent(c) and ord(c) not in own else c for c in text
    )


def _silent(letter) -> bool:
    """Marks that join or vary emoji, and other signs without a shape."""
    return unicodedata.category(letter) == "Cf" or 0xFE00 <= ord(letter) <= 0xFE0F


def _others(wanted):
    """(name, letters) of the installed fonts, the liked ones first."""
    from matplotlib import font_manager

    def rank(font):
        low = font.name.lower()
        return next((i for i, liked in enumerate(LIKED) if liked in low), len(LIKED)), font.name

    seen = {"DejaVu Sans"}
    for font in sorted(font_manager.fontManager.ttflist, key=rank):
        plain = font.style == "normal" and str(font.weight) in (
            "400",
            "normal",
            "regular",
            "book",
            "medium",
            "500",
        )
        if (
            plain
            and font.name not in seen
            and not any(word in font.name for word in ("Last Resort", "Color"))
        ):
            seen.add(font.name)
            letters = _letters(font.fname)
            if letters:
                yield font.name, letters


@functools.cache
def _letters(path) -> frozenset:
    """The numbers of a font file's letters; none for one that cannot be read or has pictures of one size alone."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _substitute(letter) -> str:
    """A letter spelled out: the sound that its Unicode name ends in, an emoji's name, else its number."""
    name = unicodedata.name(letter, "")
    for word in (" LETTER ", " SYLLABLE "):
        if word in name and "IDEOGRAPH" not in name:
            return name.rpartition(word)[2].split(" ")[-1].lower()
    if name and unicodedata.category(letter) == "So":
        return f"[{name.lower()}]"
    return f"[U+{ord(letter):04X}]"
