"""A net as a picture on one page: a line for each block, its layers from left to right, skips as arcs above them.

``draw(net, file)`` takes a net or its description. A box names its operation, kernel and channels; "/2" and a thick
border mark a stride; the shape of the map stands at the end of the line. Long nets go on in a second column.
"""

from typing import NamedTuple

from numnet.blocks import Branches, Conv, Depthwise, Pointwise, Residual, Sequence, SqueezeExcite
from numnet.canvas import blank, drawn, write
from numnet.layers import Activation, Dense, Dropout, MaxPool

COLOURS = {  # light enough for black letters; a grey print tells them apart by their texts
    "conv": "#f2c9a1",
    "depthwise": "#a9cce3",
    "pointwise": "#d5e8c8",
    "squeeze-excite": "#e3c6e8",
    "dense": "#f4e3a1",
}
OTHER, SKIP, FLOW = "#e6e6e6", "#a03020", "#555555"
# Inches. Places on the page are inches too, y downwards.
WIDTH, HEIGHT, GAP, LINE = 1.62, 0.30, 0.22, 0.54  # a box, the space between two, from line to line
NAME, SHAPE = 0.95, 0.95  # room for a block's name before it and for a shape behind it
MOST = 26  # lines of a column


class Box(NamedTuple):
    """A layer to draw: where its left end and its middle are, and what it looks like."""

    x: float
    y: float
    text: str
    kind: str
    strided: bool


class Page:
    """What is to be drawn, collected before anything is: the page's size depends on it."""

    def __init__(self):
        self.boxes, self.flows, self.skips, self.pluses, self.texts = [], [], [], [], []

    def row(self, layers, x, y):
        """Layers from left to right, joined; (x of the end, y of its lowest line)."""
        low = y
        for i, layer in enumerate(layers):
            if i:
                self.flow((x, y), (x + GAP, y))
                x += GAP
            x, lowest = self.place(layer, x, y)
            low = max(low, lowest)
        return x, low

    def place(self, layer, x, y):
        """A layer with what it consists of; (x of its end, y of its lowest line)."""
        if isinstance(layer, Branches):
            return self.branches(layer.children, x, y)
        if not isinstance(layer, Sequence):
            strided = getattr(layer, "stride", 1) not in (1, None)
            self.boxes.append(Box(x, y, words(layer), layer.kind, strided))
            return x + WIDTH, y
        start = x
        x, low = self.row(layer.children, x, y)
        if isinstance(layer, Residual) and layer.adds:
            self.flow((x, y), (x + GAP, y))
            x += GAP + 0.08
            top = y - HEIGHT / 2 - 0.06
            self.skips.append([(start - GAP / 2, y), (start - GAP / 2, top), (x, top), (x, y - 0.08)])
            self.pluses.append((x, y))
            x += 0.08
        return x, low

    def branches(self, children, x, y):
        """Layers one below the other, between two rails."""
        ends, low = [], y - LINE
        for child in children:
            at = low + LINE
            end, low = self.place(child, x + GAP, at)
            self.flow((x, y), (x, at), (x + GAP, at))
            ends.append((end, at))
        rail = max(end for end, _ in ends) + GAP
        for end, at in ends:
            self.flow((end, at), (rail, at), (rail, y))
        return rail, low

    def flow(self, *points):
        """A line along which a map goes."""
        self.flows.append(points)


def words(layer) -> str:
    """What stands in the box of a layer."""
    after = getattr(layer, "activation", "identity")
    after = "" if after == "identity" else f", {after}"
    stride = f" /{layer.stride}" if getattr(layer, "stride", 1) not in (1, None) else ""
    if isinstance(layer, Conv):
        return f"conv {layer.kernel}×{layer.kernel}{stride}, {layer.filters}{after}"
    if isinstance(layer, Depthwise):
        times = f" ×{layer.multiplier}" if layer.multiplier > 1 else ""
        return f"depthwise {layer.kernel}×{layer.kernel}{stride}{times}{after}"
    if isinstance(layer, Pointwise):
        return f"1×1, {layer.filters}{after}"
    if isinstance(layer, SqueezeExcite):
        return f"squeeze {layer.squeezed}, {layer.gate}"
    if isinstance(layer, Dense):
        return f"dense, {layer.filters}"
    if isinstance(layer, MaxPool):
        return f"max {layer.kernel}×{layer.kernel}{stride}"
    if isinstance(layer, Dropout):
        return f"dropout {layer.rate:g}"
    return layer.activation if isinstance(layer, Activation) else layer.kind


@drawn
def draw(net, file=None):
    """The picture as a matplotlib Figure, written to ``file`` (.png, .pdf, .svg) if one is given. Raises NumnetError."""
    page, wide, high = _lay_out(net)
    total, shape = net.cost(), "×".join(str(n) for n in net.input_shape)
    facts = f"{shape} → {'×'.join(map(str, net.output_shape))}     {total.params:,} parameters, {total.macs:,} MACs"
    wide, top = max(wide, 0.3 + 0.07 * len(facts)), 0.85  # room for the line of facts, and for the title
    figure = blank(wide, top + high)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, wide), ylim=(high, -top))
    axes.axis("off")
    _paint(axes, page)
    name = (net.config or {}).get("model") or "net"
    axes.text(0.15, -top + 0.22, name, fontsize=12, va="center", weight="bold")
    axes.text(0.15, -top + 0.44, facts, fontsize=8, va="center")
    return write(figure, file)


def _lay_out(net):
    """(Page, width, height)."""
    page, rows = Page(), list(_rows(net.layers))
    lines = sum(_height(layer) for _, layers in rows for layer in layers[:1])
    columns = -(-lines // MOST)
    left, x_end, y, deepest, start = NAME, NAME, 0.0, 0.0, None
    for name, layers in rows:
        if y > 0 and y / LINE >= lines / columns:
            deepest = max(deepest, y)
            left, x_end, y = x_end + SHAPE + NAME, 0.0, 0.0
        if start is not None:  # from the end of the row before
            x, out, low = start
            turn, between = low + LINE / 2, left - GAP / 2
            if y > 0:
                way = [(between, turn)]
            else:  # up along the new column
                way = [(left - NAME, turn), (left - NAME, -0.3), (between, -0.3)]
            page.flow((x, out), (x, turn), *way, (between, y), (left, y))
        x, low = page.row(layers, left, y)
        page.texts.append((left - 0.2, y, name, "right"))
        page.texts.append((x + 0.1, y, "×".join(str(n) for n in layers[-1].output_shape), "left"))
        open_end = isinstance(layers[-1], Branches) or page.pluses[-1:] == [(x - 0.08, y)]
        start = (x, y, low) if open_end else (x - 0.12, y + HEIGHT / 2, low)
        x_end, y = max(x_end, x), low + LINE
    return page, x_end + SHAPE, max(deepest, y)


def _rows(layers):
    """(name, layers) for each line of the page: a block, or the layers of the net's end, which make no map, together."""
    end = []
    for layer in layers:
        if len(layer.output_shape) == 3:
            yield layer.name, [layer]
        else:
            end.append(layer)
    for at in range(0, len(end), 4):
        yield end[at].name, end[at : at + 4]


def _height(layer):
    """Lines that a layer takes."""
    heights = [_height(child) for child in layer.children] or [1]
    return sum(heights) if isinstance(layer, Branches) else max(heights)


def _paint(axes, page):
    from matplotlib.patches import FancyBboxPatch

    for points in page.flows:
        axes.plot(*zip(*points), color=FLOW, linewidth=0.8, zorder=1, solid_joinstyle="round")
    for points in page.skips:
        axes.plot(*zip(*points), color=SKIP, linewidth=1.3, zorder=2, solid_joinstyle="round")
    for x, y in page.pluses:
        axes.text(x, y, "+", ha="center", va="center", fontsize=12, color=SKIP, weight="bold", zorder=3)
    for box in page.boxes:
        patch = FancyBboxPatch(
            (box.x, box.y - HEIGHT / 2),
            WIDTH,
            HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.05",
            facecolor=COLOURS.get(box.kind, OTHER),
            edgecolor="#202020",
            linewidth=2.0 if box.strided else 0.6,
            zorder=3,
        )
        axes.add_patch(patch)
        axes.text(box.x + WIDTH / 2, box.y, box.text, ha="center", va="center", fontsize=6.6, zorder=4)
    for x, y, text, side in page.texts:
        axes.text(x, y, text, ha=side, va="center", fontsize=7.5)
