"""What a cell shows besides ``lessons.figure``: tables, and the figures that other modules draw."""

import io

from numnet.lessons import PIXELS_PER_INCH

COLOURS_OF_A_PICTURE = 128  # of a stored palette: drawings have few colours, and the notebooks stay small


class Shown:
    """A matplotlib figure, of ``numnet.plotting`` or ``numnet.drawing`` say, that Jupyter shows as a picture.

    inches: its width on the page; the figure is shrunk or stretched to it. Otherwise it is the figure's own, at most 9.
    """

    def __init__(self, figure, inches=None):
        self.figure = figure
        self.inches = min(figure.get_size_inches()[0], 9.0) if inches is None else inches

    def _repr_png_(self):
        from PIL import Image

        wide, high = self.figure.get_size_inches()
        pixels = 1.5 * PIXELS_PER_INCH * self.inches  # half as many again as on the page, for sharp screens
        file, small = io.BytesIO(), io.BytesIO()
        self.figure.savefig(
            file, format="png", dpi=pixels / wide, facecolor="white", metadata={"Software": None}
        )
        few = Image.open(file).convert("RGB").quantize(COLOURS_OF_A_PICTURE, dither=Image.Dither.NONE)
        few.save(small, format="png", optimize=True)
        width = round(PIXELS_PER_INCH * self.inches)
        return small.getvalue(), {"width": width, "height": round(width * high / wide)}

    def __repr__(self):
        return f"<a figure of {len(self.figure.axes)} axes>"


class Table:
    """A table: Jupyter shows it as HTML, a terminal as aligned columns; every entry is written as ``str`` does.

    A column is aligned to the right if all its entries begin with a digit or a sign.
    """

    def __init__(self, head, rows):
        self.head = [str(name) for name in head]
        self.rows = [[str(entry) for entry in row] for row in rows]
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"table: expected {len(self.head)} entries a row, got {row}")
        columns = list(zip(*self.rows)) if self.rows else [()] * len(self.head)
        self.right = [bool(column) and all(_is_number(entry) for entry in column) for column in columns]

    def _repr_markdown_(self):
        marks = ["---:" if right else ":---" for right in self.right]
        lines = [self.head, marks, *self.rows]
        return "\n".join(
            "| " + " | ".join(entry.replace("|", "\\|") for entry in line) + " |" for line in lines
        )

    def __repr__(self):
        lines = [self.head, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.head))]
        text = []
        for line in lines:
            cells = [e.rjust(w) if r else e.ljust(w) for e, w, r in zip(line, widths, self.right)]
            text.append("  ".join(cells).rstrip())
        return "\n".join([text[0], "─" * max(len(line) for line in text), *text[1:]])


def _is_number(text):
    return text[:1].isdigit() or (
        text[:1] in ("–", "-", "+", "−", "±") and (len(text) == 1 or text[1].isdigit())
    )


def threads() -> str:
    """How many threads the kernels use, in words."""
    import numba

    count = numba.get_num_threads()
    return f"{count} thread" + "s" * (count != 1)
