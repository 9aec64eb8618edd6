"""Figures: learning curves, confusion matrices, sweeps.

Each function returns a matplotlib Figure and writes it if given a file.

No window, no global state, no setting of the user's (see ``canvas``): matplotlib is loaded at the first figure. Lines
differ in dash and marker as well as in shade, so that they can be distinguished in black and white and by
colour-blind readers.
"""

import json
import math
from pathlib import Path

from numnet.canvas import drawn, literal, panels, write
from numnet.errors import NumnetError

DARK, MIDDLE, LIGHT = "#1b3a5c", "#c05a1c", "#7fa9c9"  # in this order of brightness on a grey print too


def _figure(width, height, columns=1):
    """A figure of that many inches and its axes."""
    figure, axes = panels(width, height, columns=columns)
    return figure, axes[0]


@drawn
def learning_curves(history, file=None):
    """Loss and accuracy of training and validation over the epochs.

    history: what ``numnet.fit`` returns, or the path of a run directory or of its metrics.jsonl. A curve that
    no epoch has a value for is left out. Raises NumnetError for a run without a finished epoch.
    """
    history = _history(history)
    epochs = [record["epoch"] for record in history]
    styles = [
        ("train", "training", dict(color=LIGHT, linestyle="-", marker="s")),
        ("validation", "validation", dict(color=DARK, linestyle="--", marker="o")),
        ("ema_validation", "validation, averaged weights", dict(color=MIDDLE, linestyle=":", marker="^")),
    ]
    figure, (left, right) = _figure(9, 3.6, columns=2)
    for axes, key, factor in ((left, "loss", 1), (right, "accuracy", 100)):
        for prefix, label, style in styles:
            values = [record.get(f"{prefix}_{key}") for record in history]
            points = [(epoch, factor * value) for epoch, value in zip(epochs, values) if value is not None]
            if points:
                marker = {"markersize": 4, "markevery": max(1, len(points) // 15)}
                axes.plot(*zip(*points), label=label, **style, **marker)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    left.set_ylabel("loss (mean cross-entropy)")
    right.set_ylabel("accuracy (%)")
    right.legend(loc="lower right", frameon=False)
    last = [record for record in history if record.get("validation_accuracy") is not None]
    if last:
        value = 100 * last[-1]["validation_accuracy"]
        right.set_title(f"last validation accuracy {value:.2f} %", fontsize="medium", loc="left")
    return write(figure, file)


def _history(source) -> list[dict]:
    if not isinstance(source, (str, Path)):
        history = list(source)
    else:
        path = Path(source)
        path = path / "metrics.jsonl" if path.is_dir() else path
        try:
            history = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except OSError as error:
            raise NumnetError(f"{path}: cannot be read ({error.strerror or error})") from None
        except ValueError:
            raise NumnetError(f"{path}: no metrics; expected a JSON object a line") from None
    if not history:
        raise NumnetError("no epoch is finished yet: there is nothing to draw")
    return history


@drawn
def confusion(matrix, classes, file=None):
    """A confusion matrix: shade by the part of the true class's images, and counts other than 0 if there is space for them.

    matrix: counts, rows the true class, columns the predicted one, as ``evaluate`` returns it; classes: their
    names.
    """
    import numpy as np

    matrix = np.asarray(matrix)
    if matrix.shape != (len(classes), len(classes)):
        raise NumnetError(
            f"a confusion matrix of shape {matrix.shape} does not fit {len(classes)} class names"
        )
    count = len(classes)
    parts = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(max(4.5, 0.55 * count + 1.5), 14)
    figure, (axes,) = _figure(side + 1, side)
    image = axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="part of the true class's images")
    step = max(1, -(-count // 60))  # more names than that would overlap
    ticks, classes = range(0, count, step), [literal(name) for name in classes]
    axes.set_xticks(ticks, [classes[i] for i in ticks], rotation=45 if count <= 20 else 90, ha="right")
    axes.set_yticks(ticks, [classes[i] for i in ticks])
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    accuracy = np.trace(matrix) / max(matrix.sum(), 1)
    axes.set_title(f"{matrix.sum():,} images, accuracy {100 * accuracy:.2f} %", fontsize="medium")
    if count <= 20:
        for i in range(count):
            for j in range(count):
                if matrix[i, j]:
                    color = "white" if parts[i, j] > 0.5 else "black"
                    axes.text(j, i, str(matrix[i, j]), ha="center", va="center", fontsize=8, color=color)
    return write(figure, file)


@drawn
def sweep(rows, file=None, minutes=True):
    """Test accuracy of a sweep's runs, by name and against what they cost: the rows of ``training.results``.

    On the left every run has a line: its mean ± standard deviation, and each of its seeds. To the right the same
    against MACs and against time, the measured time of a training image or else (if ``minutes``) the minutes of the
    training; a panel is left out where all runs cost about the same (within 15 %). Runs of one group have a colour, a
    marker and a line.
    """
    rows = [row for row in rows if row["test_accuracy"] is not None]
    if not rows:
        raise NumnetError("no run of the sweep has a test accuracy: there is nothing to draw")
    costs = [("macs", 1e6, "million multiply-accumulates per image")]
    if all(row.get("microseconds") for row in rows):
        costs.append(("microseconds", 1, "µs of processor time per training image"))
    elif minutes:
        costs.append(("train_seconds", 60, "minutes of training"))
    costs = [cost for cost in costs if _spread([row[cost[0]] for row in rows]) > 1.15]
    height = max(1.6 + 0.34 * len(rows), 3.4 if costs else 0)
    figure, (names, *panels) = _figure(4.6 + 4.2 * len(costs), height, 1 + len(costs))
    rows = [{**row, "name": literal(row["name"])} for row in rows]
    groups = list(dict.fromkeys(row.get("group") for row in rows))
    styles = [(DARK, "o", "-"), (MIDDLE, "s", "--"), (LIGHT, "^", "-."), ("black", "D", ":")]
    for number, group in enumerate(groups):
        colour, marker, line = styles[number % len(styles)]
        style = {"color": colour, "marker": marker, "capsize": 3, "markersize": 5}
        of = [(place, row) for place, row in enumerate(rows) if row.get("group") == group]
        y = [100 * row["test_accuracy"] for _, row in of]
        error = [100 * (row["deviation"] or math.nan) for _, row in of]  # no bar, no caps of one seed
        error = None if all(map(math.isnan, error)) else error
        names.errorbar(y, [place for place, _ in of], xerr=error, linestyle="", **style)
        for place, row in of:
            seeds = [100 * value for value in row.get("accuracies") or ()]
            names.plot(seeds, [place] * len(seeds), "|", color=colour, markersize=12)
        for axes, (key, unit, _) in zip(panels, costs):
            x = [row[key] / unit for _, row in of]
            joined = {"linestyle": "" if group is None else line, "linewidth": 1, "elinewidth": 1.4}
            axes.errorbar(
                x, y, yerr=error, label=group if group is None else literal(group), **joined, **style
            )
    names.set_yticks(range(len(rows)), [row["name"] for row in rows])
    names.set_ylim(len(rows) - 0.5, -0.5)
    names.set_xlabel("test accuracy (%)")
    names.grid(alpha=0.3)
    names.margins(x=0.1)
    for axes, (key, _, label) in zip(panels, costs):
        if _spread([row[key] for row in rows]) > 4:
            log_scale(axes)
        axes.set_xlabel(label)
        axes.set_ylabel("test accuracy (%)")
        axes.grid(alpha=0.3)
        axes.margins(x=0.18, y=0.12)
    if panels and groups != [None]:
        panels[0].legend(loc="best", frameon=False)
    for axes, (key, unit, _) in zip(panels, costs):
        name_points(axes, [(row[key] / unit, 100 * row["test_accuracy"], row["name"]) for row in rows])
    return write(figure, file)


def _spread(values) -> float:
    """The largest value divided by the smallest."""
    return max(values) / min(values) if min(values) > 0 else float("inf")


def log_scale(axes):
    """A logarithmic x axis with plain numbers at 1, 2, 5, 10, …"""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


# Where a name may stand next to its point: right and up from it, in points (1/72 inch), the best liked first.
PLACES = (
    *((6, -6), (-6, -6), (6, 6), (-6, 6), (8, 0), (-8, 0), (0, -8), (0, 8)),
    *((12, -12), (-12, -12), (12, 12), (-12, 12), (14, 0), (-14, 0), (0, -16), (0, 16)),
)


def name_points(axes, points):
    """A name next to each point (x, y, name), at the first of ``PLACES`` where it covers the least.

    A line or an error bar under a name counts once; a marker, the legend, an earlier name and the axes' frame count three
    times. Call it last, when lines, limits, scales and legend no longer change.
    """
    from matplotlib.transforms import Bbox

    figure = axes.figure
    figure.draw_without_rendering()  # from here on it is known where everything lies, in pixels
    renderer, point = figure.canvas.get_renderer(), figure.dpi / 72
    inside, taken = axes.bbox.padded(-3 * point), []
    strokes = [_stroke(line) for line in axes.lines if line.get_linestyle() != "None"]
    bars = (bar for several in axes.collections for bar in several.get_paths())
    strokes += [axes.transData.transform_path(bar) for bar in bars]
    for line in axes.lines:
        if line.get_marker() != "None":
            corners = axes.transData.transform(line.get_xydata())
            taken += [Bbox([at, at]).padded(point * line.get_markersize() / 2) for at in corners]
    if axes.get_legend() is not None:
        taken.append(axes.get_legend().get_window_extent(renderer))

    def covered(box):
        outside = not (inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1))
        crossed = sum(stroke.intersects_bbox(box, filled=False) for stroke in strokes)
        return crossed + 3 * (outside + box.count_overlaps(taken))

    for x, y, name in points:
        text = axes.annotate(name, (x, y), PLACES[0], textcoords="offset points", fontsize=8)
        text.set_in_layout(False)  # the axes stay where they are
        boxes = []
        for place in PLACES:
            _put(text, place)
            boxes.append(text.get_window_extent(renderer).padded(point))
        best = min(boxes, key=covered)
        _put(text, PLACES[boxes.index(best)])
        taken.append(best)


def _stroke(line):
    """The path of a line in pixels, its steps included."""
    from matplotlib.cbook import STEP_LOOKUP_MAP
    from matplotlib.path import Path

    corners = STEP_LOOKUP_MAP[line.get_drawstyle()](*line.get_xydata().T)
    return line.get_transform().transform_path(Path(list(zip(*corners))))


def _put(text, place) -> None:
    """A name to one of ``PLACES``, with the side that is towards its point."""
    right, up = place
    text.xyann = place
    text.set_horizontalalignment("left" if right > 0 else "right" if right < 0 else "center")
    text.set_verticalalignment("bottom" if up > 0 else "top" if up < 0 else "center_baseline")


@drawn
def scaling(rows, file=None):
    """Speed-up and efficiency over the number of ranks: what ``numnet scale --json`` has under "rows"."""
    figure, (left, right) = _figure(9, 3.6, columns=2)
    shared = [row for row in rows if "step" in row]
    ranks = [row["ranks"] for row in rows]
    left.plot(ranks, ranks, color=LIGHT, linestyle=":", label="ideal")
    each_speedup = [row["ranks"] * row["each_efficiency"] for row in rows]
    kinds = [
        ("one batch shared by all", shared, [row["speedup"] for row in shared],
         [row["efficiency"] for row in shared], dict(color=DARK, linestyle="-", marker="o")),
        ("a batch for each rank", rows, each_speedup,
         [row["each_efficiency"] for row in rows], dict(color=MIDDLE, linestyle="--", marker="s")),
    ]  # fmt: skip
    for label, of, speedups, efficiencies, style in kinds:
        at = [row["ranks"] for row in of]
        left.plot(at, speedups, label=label, markersize=4, **style)
        right.plot(at, [100 * part for part in efficiencies], label=label, markersize=4, **style)
    left.set_yscale("log", base=2)
    left.set_ylabel("times as many images/s as one rank")
    right.set_ylabel("efficiency (%)")
    right.set_ylim(0, 105)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("ranks")
        axes.grid(alpha=0.3)
    left.legend()
    return write(figure, file)


def class_activation_maps(net, x):
    """What each place of the last map says for each class: (N, P, Q, classes), for images x (N, H, W, 3), scaled.

    These nets end in global average pooling and dense layers. What follows the pooling is applied to the numbers of one
    place at a time instead of to their mean; where that is one dense layer, it is one product, and the mean over all
    places is the net's logits (Zhou et al. 2016, "Learning deep features for discriminative localization"). Raises
    NumnetError for a net without such an end.
    """
    import numpy as np

    from numnet.layers.layer import hand

    kinds = [layer.kind for layer in net.layers]
    if "global average" not in kinds:
        raise NumnetError("explain: expected a net that ends in global average pooling, this one does not")
    end = kinds.index("global average")
    x = net.features(x, pooled=False)
    places = np.ascontiguousarray(x).reshape(-1, x.shape[3])
    for layer in net.layers[end + 1 :]:
        places = hand(layer, places, False)
    return np.array(places).reshape(*x.shape[:3], -1)


@drawn
def layer_maps(pixels, maps, file=None, channels=8):
    """A photograph and the maps of each layer: one line for each layer, the channels that vary most as grey pictures.

    pixels: uint8 (H, W, 3); maps: what ``net.maps`` gives for that one image, {name: (1, P, Q, C)}; vectors are left
    out. The ``channels`` channels are those that differ most over the image, in the order of their numbers, which stand
    above; each is drawn from its least (black) to its largest value (white), and one that is the same everywhere is grey.
    """
    import numpy as np

    maps = {name: y[0] for name, y in maps.items() if y.ndim == 4}
    if not maps:
        raise NumnetError("maps: nothing to draw; expected layers whose output has rows and columns")
    size = 1.5 + 1.05 * channels, 1.6 + 1.22 * len(maps)
    figure, grid = panels(*size, len(maps) + 1, channels)
    for axes in grid.flat:
        axes.set_axis_off()
    grid[0, 0].imshow(pixels)
    for line, (name, y) in zip(grid[1:], maps.items()):
        spread = y.reshape(-1, y.shape[2]).std(axis=0)
        chosen = np.sort((-spread).argsort(kind="stable")[:channels])
        for axes, number in zip(line, chosen):
            low, high = float(y[..., number].min()), float(y[..., number].max())
            if low == high:
                low, high = low - 1, high + 1
            axes.imshow(y[..., number], cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axes.set_title(str(number), fontsize=7, pad=2)
        side = "×".join(map(str, y.shape))
        line[0].text(
            -0.15, 0.5, f"{name}\n{side}", transform=line[0].transAxes, ha="right", va="center", fontsize=8
        )
    return write(figure, file)


@drawn
def photos(rows, file=None):
    """Images and what a net predicts for them: one line for each, with bars of the most probable classes.

    rows: dicts with ``pixels`` uint8 (H, W, 3), ``title``, ``top`` as ``numnet predict --json`` prints it, and, if the
    first class is to be explained, ``map`` (P, Q): its class activation map, drawn over a second copy of the image.
    """
    import numpy as np

    columns = 3 if any("map" in row for row in rows) else 2
    longest = max(len(row["top"]) for row in rows)
    size = 3.2 * columns + 1.5, max(2.8, 0.3 * longest) * len(rows)
    figure, grid = panels(*size, len(rows), columns, width_ratios=[1] * (columns - 1) + [1.3])
    for line, row in zip(grid, rows):
        for axes in line[:-1]:
            axes.imshow(row["pixels"])
            axes.set_axis_off()
        line[0].set_title(literal(row["title"]), fontsize="medium")
        if "map" in row:
            height, width = row["pixels"].shape[:2]
            shown = np.maximum(row["map"], 0)
            extent = (-0.5, width - 0.5, height - 0.5, -0.5)
            line[1].imshow(shown, cmap="inferno", alpha=0.55, extent=extent, interpolation="bilinear", vmin=0)
            line[1].set_title(f"what speaks for {literal(row['top'][0]['label'])}", fontsize="medium")
        axes, top = line[-1], row["top"]
        values = [100 * entry["probability"] for entry in top]
        axes.barh(range(len(top)), values, color=[DARK, *[LIGHT] * (len(top) - 1)])
        axes.set_yticks(range(len(top)), [literal(entry["label"]) for entry in top])
        axes.set_ylim(len(top) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.set_xlabel("probability (%)")
        for i, value in enumerate(values):
            text = dict(va="center", fontsize=8)
            if value > 75:
                axes.text(
                    value - 1, i, f"{value:.1f}", ha="right", color="white" if i == 0 else "black", **text
                )
            else:
                axes.text(value + 1, i, f"{value:.1f}", ha="left", **text)
    return write(figure, file)
