"""Tensors as tables of numbers, and bars: what several notebooks draw."""

import numpy as np

from numnet.lessons import DARK, LIGHT, bare, figure

SQUARE = 0.46  # inches a square of a table has


def number(value) -> str:
    """A number as text for a table or a formula: without trailing zeros, with a true minus sign (−)."""
    return value if isinstance(value, str) else f"{value:.4g}".replace("-", "−")


def sum_of_products(pairs) -> str:
    """Pairs of numbers written out as a·b + c·(−d) + …"""

    def bracketed(value):
        return number(value) if value >= 0 else f"({number(value)})"

    return " + ".join(f"{bracketed(a)}·{bracketed(b)}" for a, b in pairs)


def tables(*items, caption=""):
    """Tables of numbers side by side, all squares of one size; a figure.

    Each item is a sign between two tables ("∗", "="), or a tuple (table, title) or (table, title, marked) or
    (table, title, marked, outer): marked squares (i, j) are shaded and outlined, the ``outer`` rows and columns all
    round are padding and drawn dotted. An entry may be a text. ``caption`` is written below.
    """
    spans, places, left = [], [], 0.0
    for item in items:
        if isinstance(item, str):
            wide = 0.9
        else:
            table, title, marked, outer = (*item, *((), 0)[len(item) - 2 :])
            letters = max(map(len, title.split("\n")))
            wide = max(len(table[0]), 0.27 * letters)
            spans.append((table, title, marked, outer, left + (wide - len(table[0])) / 2))
        places.append((left, wide))
        left += wide
    high = max(len(table) for table, *_ in spans)
    lines = max(title.count("\n") + 1 for _, title, *_ in spans)
    drawn, axes = figure(
        SQUARE * (left + 0.3), SQUARE * (high + 0.2) + 0.26 * lines + (0.34 if caption else 0.05)
    )
    bare(axes)
    for table, title, marked, outer, x in spans:
        _table(axes, table, x, (high - len(table)) / 2, marked, outer)
        axes.text(x + len(table[0]) / 2, (high - len(table)) / 2 - 0.15, title, ha="center", va="bottom")
    for item, (x, wide) in zip(items, places):
        if isinstance(item, str):
            axes.text(x + wide / 2, high / 2, item, ha="center", va="center", fontsize=16)
    axes.set_xlim(-0.15, left + 0.15)
    axes.set_ylim(high + 0.1, -0.1)
    axes.set_aspect("equal")
    if caption:
        drawn.supxlabel(caption, fontsize=10)
    return drawn


def _table(axes, table, x, y, marked, outer):
    from matplotlib.patches import Rectangle

    height, width = len(table), len(table[0])
    marked = {tuple(place) for place in marked}
    for i in range(height):
        for j in range(width):
            inside = outer <= i < height - outer and outer <= j < width - outer
            if (i, j) in marked:
                axes.add_patch(Rectangle((x + j, y + i), 1, 1, facecolor=LIGHT, alpha=0.55, edgecolor="none"))
            line = dict(linestyle="-", linewidth=0.8) if inside else dict(linestyle=":", linewidth=0.6)
            axes.add_patch(Rectangle((x + j, y + i), 1, 1, fill=False, edgecolor="black", **line))
            text = number(table[i][j])
            size = 10 if len(max(text.split("\n"), key=len)) <= 3 else 8
            axes.text(
                x + j + 0.5, y + i + 0.5, text, ha="center", va="center", fontsize=size, linespacing=0.95
            )
    for i, j in marked:  # the outline of what is marked, not of each square
        for di, dj, across, down in (
            (-1, 0, (0, 1), (0, 0)),
            (1, 0, (0, 1), (1, 1)),
            (0, -1, (0, 0), (0, 1)),
            (0, 1, (1, 1), (0, 1)),
        ):
            if (i + di, j + dj) not in marked:
                xs, ys = [x + j + a for a in across], [y + i + b for b in down]
                axes.plot(
                    xs,
                    ys,
                    color="black",
                    linewidth=2.2,
                    linestyle="-",
                    marker="",
                    solid_capstyle="projecting",
                )


def bars(axes, labels, values, label="", form="{:.3g}", colour=None, hatches=None):
    """Horizontal bars with their values written next to them, the first label on top; the axis begins at 0."""
    places = np.arange(len(labels))
    drawn = axes.barh(places, values, color=colour or DARK, height=0.62)
    for bar, hatch in zip(drawn, hatches or ()):
        bar.set_hatch(hatch)
        bar.set_edgecolor("white")
    axes.set_yticks(places, labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.grid(False, axis="y")
    most = max(values)
    axes.set_xlim(0, 1.2 * most)
    for place, value in zip(places, values):
        axes.text(value + 0.015 * most, place, form.format(value), va="center", fontsize=9)
    return axes
