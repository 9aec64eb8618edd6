"""Tables in a terminal: aligned by what letters take there, and no wider than it is."""

import shutil
import sys

from numnet.texts import padded, printable, shortened, width

WIDEST = 48  # columns of a cell that may be shortened, where no terminal sets a limit
NARROWEST = 12


def columns(lines, right=(), fit=()) -> str:
    """Lines of cells as aligned text; the columns in ``right`` are flush right, a None is a rule.

    ``fit``: columns of names, which lose their middles where a line would be wider than the terminal.
    """
    lines = [None if line is None else [printable(cell) for cell in line] for line in lines]
    cells = [line for line in lines if line is not None]
    widths = [max(width(line[i]) for line in cells) for i in range(len(cells[0]))]
    for i, most in _limits(widths, fit).items():
        widths[i] = min(widths[i], most)
        for line in cells:
            line[i] = shortened(line[i], most)
    text = []
    for line in lines:
        if line is None:
            text.append("─" * (sum(widths) + 2 * (len(widths) - 1)))
            continue
        aligned = [padded(cell, each, right=i in right) for i, (cell, each) in enumerate(zip(line, widths))]
        text.append("  ".join(aligned).rstrip())
    return "\n".join(text)


def _limits(widths, fit) -> dict:
    """The most columns that each of ``fit`` may take."""
    if not fit:
        return {}
    if sys.stdout is None or not sys.stdout.isatty():
        return dict.fromkeys(fit, WIDEST)
    room = shutil.get_terminal_size().columns - sum(each + 2 for i, each in enumerate(widths) if i not in fit)
    limits = {i: widths[i] for i in fit}
    while sum(limits.values()) + 2 * (len(fit) - 1) > room and max(limits.values()) > NARROWEST:
        limits[max(limits, key=limits.get)] -= 1
    return limits
