"""What the notebooks are drawn and checked with: figures, exercise checks, counting, timing.

``notebooks/`` holds the text; code that a reader need not see to follow it is here. There is one module for each notebook
(convolution, separable, inside, normalisation, …), and this is what all of them share:

    lessons.small()                       True under NUMNET_SMALL=1: run at the tests' size
    figure, axes = lessons.figure(8, 3, columns=2)       then draw; the last line of the cell is ``figure``
    lessons.best(work, seconds)           seconds that the work takes: the shortest of several runs
    check.check(answer, condition, hint)  says "right" or "not yet", for the exercises

Figures are drawn by matplotlib's Agg without pyplot, so there is no global state and nothing appears twice. Series
differ in dash, marker and brightness, so that they can be distinguished in a grey print.
"""

import io
import os
import time

DARK, MIDDLE, LIGHT, GREY = "#1b3a5c", "#c05a1c", "#7fa9c9", "#9a9a9a"  # in rising brightness
SERIES = [  # colour, line, marker of the first, second, … series of an axes
    (DARK, "-", "o"),
    (MIDDLE, "--", "s"),
    (LIGHT, "-.", "^"),
    ("black", ":", "D"),
    (GREY, (0, (5, 1, 1, 1, 1, 1)), "v"),
]
HEAT = "Blues"  # for maps: light to dark, so that a grey print keeps the order
PIXELS_PER_INCH = 96  # on the page; the file has half as many again, for sharp screens


def small() -> bool:
    """True if the notebooks are to run at the tests' size: NUMNET_SMALL is set, and to something other than 0."""
    return os.environ.get("NUMNET_SMALL", "0") not in ("", "0")


def style() -> dict:
    """matplotlib's settings for all figures of the notebooks."""
    from cycler import cycler

    colours, lines, markers = zip(*SERIES)
    return {
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.labelsize": 10,
        "axes.titlelocation": "left",
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=colours, linestyle=lines, marker=markers),
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "figure.facecolor": "white",
    }


def figure(width=8.0, height=3.2, rows=1, columns=1, **subplots):
    """A figure of that many inches that shows itself in a notebook, and its axes.

    One axes comes alone, a row or a column of them as a list, more as an array (rows, columns). Further keywords go
    to matplotlib's ``Figure.subplots`` (sharex, width_ratios, …). 9 inches fill a page; wider is shrunk.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that Jupyter shows when it is the last value of a cell."""

        def _repr_png_(self):
            from PIL import Image

            drawn, palette = io.BytesIO(), io.BytesIO()
            self.savefig(drawn, format="png", dpi=1.5 * PIXELS_PER_INCH)
            # A third of it
            Image.open(drawn).convert("RGB").quantize(256).save(palette, "png", optimize=True)
            width, height = (round(PIXELS_PER_INCH * inches) for inches in self.get_size_inches())
            return palette.getvalue(), {"width": width, "height": height}

        def __repr__(self):
            return f"<a figure of {len(self.axes)} axes>"

    with matplotlib.rc_context(style()):
        picture = Picture(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(picture)
        axes = picture.subplots(rows, columns, squeeze=False, **subplots)
    if rows == columns == 1:
        return picture, axes[0, 0]
    return picture, list(axes.ravel()) if 1 in (rows, columns) else axes


def bare(axes):
    """Take ticks, grid and frame away: for pictures of tensors, whose axes are pixels."""
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def best(work, seconds=0.3, least=3) -> float:
    """Seconds that ``work()`` takes: the shortest of at least ``least`` runs within about that many seconds.

    The first run does not count, since it may compile. The shortest run is taken, because other work on the machine can only
    make a run longer.
    """
    work()
    times, start = [], time.perf_counter()
    while len(times) < least or time.perf_counter() - start < seconds:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)
