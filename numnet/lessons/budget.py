"""Measurements, figures and exercises of notebook 07, width and resolution as a budget."""

from typing import NamedTuple

import numpy as np

from numnet import cost
from numnet.lessons import DARK, GREY, HEAT, LIGHT, MIDDLE, SERIES, best, figure
from numnet.lessons.check import check, close
from numnet.lessons.display import Table
from numnet.models import build, describe
from numnet.plotting import log_scale, name_points

WIDTHS, SIDES = (1.0, 0.75, 0.5, 0.25), (224, 192, 160, 128)
WEIGHT = 4  # bytes of a float32


class Published(NamedTuple):
    """A net whose accuracy on ImageNet stands in print: its name here, how to build it, top-1 in per cent, and where."""

    name: str
    model: str
    options: dict
    top1: float
    source: str


PUBLISHED = [
    Published("V1 1.0-224", "mobilenet_v1", {"width": 1.0, "resolution": 224}, 70.6, "V1, table 6"),
    Published("V1 0.5-224", "mobilenet_v1", {"width": 0.5, "resolution": 224}, 63.7, "V1, table 6"),
    Published("V1 1.0-160", "mobilenet_v1", {"width": 1.0, "resolution": 160}, 67.2, "V1, table 7"),
    Published("V1 0.5-160", "mobilenet_v1", {"width": 0.5, "resolution": 160}, 60.2, "V1, table 9"),
    Published("V2 1.0", "mobilenet_v2", {"width": 1.0}, 72.0, "V2, table 4"),
    Published("V2 0.5", "mobilenet_v2", {"width": 0.5}, 65.4, "TF-slim"),
    Published("V2 0.35", "mobilenet_v2", {"width": 0.35}, 60.3, "TF-slim"),
    Published("V3-Large 1.0", "mobilenet_v3_large", {"width": 1.0}, 75.2, "V3, table 3"),
    Published("V3-Large 0.75", "mobilenet_v3_large", {"width": 0.75}, 73.3, "V3, table 3"),
    Published("V3-Small 1.0", "mobilenet_v3_small", {"width": 1.0}, 67.4, "V3, table 3"),
    Published("MnasNet-A1 1.0", "mnasnet_a1", {"width": 1.0}, 75.2, "MnasNet, section 6.1"),
    Published("MnasNet-A1 0.5", "mnasnet_a1", {"width": 0.5}, 68.9, "the authors' README"),
]
ELDERS = [  # what V1's paper compares itself with
    Published("GoogLeNet", "googlenet", {}, 69.8, "V1, table 8"),
    Published("VGG16", "vgg16", {}, 71.5, "V1, table 8"),
]


# ---------------------------------------------------------------------------------------------- counting


def v1_grid(key):
    """V1's MACs or parameters (``key`` "macs" or "params") for the paper's 4 widths × 4 resolutions: (4, 4)."""
    return np.array(
        [
            [getattr(describe("mobilenet_v1", width=a, resolution=r).cost(), key) for r in SIDES]
            for a in WIDTHS
        ]
    )


def grids():
    """The paper's sixteen V1 nets: MACs and parameters as two maps; dark means expensive."""
    drawn, panels = figure(8.6, 3.0, columns=2)
    for axes, key, label in zip(panels, ("macs", "params"), ("million MACs", "million parameters")):
        table = v1_grid(key) / 1e6
        axes.imshow(np.sqrt(table), cmap=HEAT, vmin=0, vmax=1.25 * np.sqrt(table.max()))
        axes.grid(False)
        for i in range(4):
            for j in range(4):
                shade = np.sqrt(table[i, j] / table.max())
                text = f"{table[i, j]:.0f}" if key == "macs" else f"{table[i, j]:.2f}"
                axes.text(j, i, text, ha="center", va="center", color="white" if shade > 0.75 else "black")
        axes.set_xticks(range(4), SIDES)
        axes.set_yticks(range(4), WIDTHS)
        axes.set_xlabel("side of the image, pixels (ρ = side / 224)")
        axes.set_ylabel("width α")
        axes.set_title(label, loc="left")
        axes.tick_params(length=0)
    return drawn


def one_net(model, width, resolution):
    """MACs, parameters and bytes of maps of a net, as bars: how large a part of those at width 1.0 and 224 pixels."""
    shares, labels = [], []
    nets = [describe(model, width=w, resolution=r) for w, r in ((width, resolution), (1.0, 224))]
    for label, unit, of in (
        ("MACs", "M", lambda net: net.cost().macs / 1e6),
        ("parameters", "M", lambda net: net.cost().params / 1e6),
        ("maps at inference", "MB", lambda net: cost.peak_inference(net) / 1e6),
    ):
        here, full = map(of, nets)
        shares.append(here / full)
        labels.append(f"{label}\n{here:.2f} {unit}")
    drawn, axes = figure(7.6, 2.4)
    axes.barh(range(3), shares, 0.6, color=[DARK, MIDDLE, LIGHT], edgecolor="black", linewidth=0.6)
    for place, share in enumerate(shares):
        axes.text(share + 0.02, place, f"{share:.2f}×", va="center")
    axes.axvline(1, color="black", linestyle=":")
    axes.set_yticks(range(3), labels)
    axes.set_ylim(2.6, -0.6)
    axes.set_xlim(0, max(1.2, max(shares) * 1.15))
    axes.grid(False, axis="y")
    axes.set_xlabel("times the net of width 1.0 at 224×224")
    axes.set_title(f"{model}, width {width:g}, {resolution}×{resolution}")
    return drawn


def rule():
    """How far the rule of thumb, α²ρ² of the MACs, is off: the exact count over the rule, against the width."""
    exact = v1_grid("macs")
    guess = exact[0, 0] * np.outer(np.square(WIDTHS), np.square(np.array(SIDES) / 224))
    drawn, axes = figure(6.6, 2.7)
    for j, (side, (colour, line, marker)) in enumerate(zip(SIDES, SERIES)):
        ratio = (exact / guess)[:, j]
        axes.plot(WIDTHS, ratio, color=colour, linestyle=line, marker=marker, label=f"{side}×{side}")
    axes.axhline(1, color="black", linestyle="-", marker="", linewidth=0.8)
    axes.set_xticks(WIDTHS)
    axes.set_xlabel("width α")
    axes.set_ylabel("exact MACs / α²ρ² rule")
    axes.legend(loc="upper right", frameon=False)
    return drawn


# ---------------------------------------------------------------------------------------------- measuring


def measured(model, seconds=0.3, **options) -> dict:
    """What a net costs to use, one image at a time: macs, params, bytes of its weights and of its maps, and ms here.

    The time is of ``net.predict`` on one random image, the shortest of several runs in about that many seconds.
    """
    net = build(model, **options)
    x = np.random.default_rng(0).normal(size=(1, *net.input_shape)).astype(net.dtype)
    counted = net.cost()
    return {
        "macs": counted.macs,
        "params": counted.params,
        "weights": WEIGHT * (counted.params + counted.buffers),
        "memory": cost.peak_inference(net),
        "ms": 1000 * best(lambda: net.predict(x), seconds),
    }


def twelve(seconds=0.3) -> list[dict]:
    """The published nets, measured here: the result of ``measured``, with ``name``, ``accuracy`` (0 … 1) and ``source``."""
    return [
        {
            "name": net.name,
            "accuracy": net.top1 / 100,
            "source": net.source,
            **measured(net.model, seconds, **net.options),
        }
        for net in PUBLISHED
    ]


def table(rows) -> Table:
    """Nets with their accuracies and costs, one line each."""
    head = ("net", "accuracy, %", "MACs, M", "parameters, M", "weights, kB", "maps, kB", "ms here", "GMAC/s")
    lines = [
        (
            row["name"],
            f"{100 * row['accuracy']:.1f}",
            f"{row['macs'] / 1e6:.2f}",
            f"{row['params'] / 1e6:.2f}",
            f"{row['weights'] / 1e3:,.0f}",
            f"{row['memory'] / 1e3:,.0f}",
            f"{row['ms']:.2f}",
            f"{row['macs'] / row['ms'] / 1e6:.1f}",
        )
        for row in rows
    ]
    return Table(head, lines)


def from_runs(runs, seconds=0.1) -> list[dict]:
    """Kept runs (``training.saved_runs``) as rows: ``accuracy`` is the mean over a net's seeds, ``spread`` their range."""
    nets = {}
    for run in runs:
        model = {key: value for key, value in run.about["recipe"]["model"].items() if key != "seed"}
        name = run.name.partition("-seed")[0]
        nets.setdefault(name, (model, []))[1].append(run.about["test_accuracy"])
    rows = []
    for model, accuracies in nets.values():
        rows.append(
            {
                "name": f"{model['width']:g}-{model['resolution']}",
                "width": model["width"],
                "side": model["resolution"],
                "accuracy": float(np.mean(accuracies)),
                "spread": max(accuracies) - min(accuracies),
                "seeds": len(accuracies),
                **measured(seconds=seconds, **model),
            }
        )
    return sorted(rows, key=lambda row: (row["width"], row["side"]))


# ---------------------------------------------------------------------------------------------- figures

CLEAR = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # behind a text that lies on a line
COSTS = (
    ("macs", 1e6, "million MACs"),
    ("params", 1e6, "million parameters"),
    ("memory", 1e3, "kB for maps"),
    ("ms", 1, "ms an image, here"),
)


def against_costs(rows):
    """Accuracy of V1 nets against four costs; a line joins the resolutions of one width."""
    drawn, panels = figure(9, 5.6, rows=2, columns=2, sharey=True)
    for axes, (key, unit, label) in zip(np.ravel(panels), COSTS):
        for width, (colour, line, marker) in zip(sorted({row["width"] for row in rows}), SERIES):
            own = [row for row in rows if row["width"] == width]
            x, y = [row[key] / unit for row in own], [100 * row["accuracy"] for row in own]
            axes.plot(x, y, color=colour, linestyle=line, marker=marker, label=f"width {width:g}")
            if key == "macs":
                for px, py, row in zip(x, y, own):
                    axes.annotate(
                        row["side"],
                        (px, py),
                        xytext=(5, -11),
                        textcoords="offset points",
                        fontsize=8,
                        bbox=CLEAR,
                    )
        log_scale(axes)
        axes.set_xlabel(label)
        axes.margins(x=0.09, y=0.14)
    for axes in panels[:, 0]:
        axes.set_ylabel("test accuracy (%)")
    drawn.legend(
        *panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
    )
    return drawn


def rates(rows):
    """How many MACs a second each net gets done here, as bars."""
    drawn, axes = figure(7.5, 0.28 * len(rows) + 0.9)
    values = [row["macs"] / row["ms"] / 1e6 for row in rows]
    axes.barh(range(len(rows)), values, 0.65, color=DARK)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.15 * max(values))
    axes.grid(False, axis="y")
    axes.set_xlabel("billion MACs a second, one image at a time, here")
    for i, value in enumerate(values):
        axes.text(value + 0.01 * max(values), i, f"{value:.1f}", va="center", fontsize=8.5)
    return drawn


def plane():
    """Accuracy on ImageNet as printed against MACs as counted: the published nets, and the two before them."""
    drawn, axes = figure(9, 4.2)
    marks = {"V1": ("s", LIGHT), "V2": ("o", MIDDLE), "V3": ("^", DARK), "Mn": ("D", GREY)}
    points = []
    for net in [*PUBLISHED, *ELDERS]:
        macs = describe(net.model, **net.options).cost().macs / 1e6
        marker, colour = marks.get(net.name[:2], ("P", "black"))
        axes.plot(macs, net.top1, marker=marker, color=colour, linestyle="None", markersize=8)
        points.append((macs, net.top1, net.name))
    log_scale(axes)
    axes.set_xlim(right=40_000)
    axes.set_ylim(top=77)
    axes.set_xlabel("million MACs of an image, counted")
    axes.set_ylabel("accuracy on ImageNet (%), as printed")
    name_points(axes, points)
    return drawn


def frontier(rows, key="ms") -> list[dict]:
    """The nets that no other one beats: by more accuracy at no more cost, or by less cost at no less accuracy."""
    return [
        row
        for row in rows
        if not any(
            other["accuracy"] >= row["accuracy"]
            and other[key] <= row[key]
            and (other["accuracy"], -other[key]) != (row["accuracy"], -row[key])
            for other in rows
        )
    ]


def choice(rows, limit):
    """Published accuracy against the time measured here, the nets that no other beats joined, and the limit."""
    drawn, axes = figure(9, 4.4)
    front = sorted(frontier(rows), key=lambda row: row["ms"])
    axes.plot(
        [row["ms"] for row in front],
        [100 * row["accuracy"] for row in front],
        color=DARK, linestyle="-", marker="", drawstyle="steps-post", zorder=1.2, label="no net here beats these",
    )  # fmt: skip
    marks = {"V1": ("s", LIGHT), "V2": ("o", MIDDLE), "V3": ("^", DARK), "Mn": ("D", GREY)}
    for row in rows:
        marker, colour = marks[row["name"][:2]]
        axes.plot(
            row["ms"],
            100 * row["accuracy"],
            marker=marker,
            color=colour,
            linestyle="",
            markeredgecolor="black",
            markersize=7,
        )
    accuracies = [100 * row["accuracy"] for row in rows]
    axes.set_ylim(min(accuracies) - 1, max(accuracies) + 2)
    axes.axvline(
        limit, color="black", linestyle="--", marker="", zorder=1.1, label=f"the budget: {limit:g} ms"
    )
    log_scale(axes)
    axes.set_xlim(
        min(limit, *(row["ms"] for row in rows)) * 0.8, max(limit, *(row["ms"] for row in rows)) * 1.9
    )
    axes.set_xlabel("ms for one image, measured here")
    axes.set_ylabel("accuracy on ImageNet, published (%)")
    axes.legend(loc="lower right", frameon=False)
    name_points(axes, [(row["ms"], 100 * row["accuracy"], row["name"]) for row in rows])
    return drawn


# ---------------------------------------------------------------------------------------------- MnasNet's objective


def reward(accuracy, cost, target, w=-0.07) -> float:
    """Equation 2 of the MnasNet paper with one exponent: accuracy · (cost / target)^w."""
    return accuracy * (cost / target) ** w


def order(rows, key, target, w=-0.07) -> list[str]:
    """The names of the nets by their reward, the best first; ``key``: "ms" or "macs"."""
    ranked = sorted(rows, key=lambda row: (-reward(row["accuracy"], row[key], target, w), row["name"]))
    return [row["name"] for row in ranked]


def rewards(exponents, target=5.0):
    """The reward of a net of accuracy 0.75 against its time, for some exponents w."""
    drawn, axes = figure(7, 2.9)
    times = np.geomspace(target / 8, target * 8, 200)
    for w, (colour, line, _) in zip(exponents, SERIES):
        axes.plot(
            times,
            [reward(0.75, t, target, w) for t in times],
            color=colour,
            linestyle=line,
            marker="",
            label=f"w = {w:g}",
        )
    axes.axvline(target, color="black", linestyle="-", marker="", linewidth=0.8)
    log_scale(axes)
    axes.set_xlabel(f"time in ms (target: {target:g})")
    axes.set_ylabel("reward")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return drawn


def ranks(left, right, titles):
    """Two orders of the same names side by side; a name that changes its place has a thick line."""
    drawn, axes = figure(7.2, 0.3 * len(left) + 0.7)
    for rank, name in enumerate(left):
        other = right.index(name)
        style = (
            dict(color=GREY, linewidth=1.0, linestyle="-")
            if other == rank
            else dict(color=DARK, linewidth=2.2, linestyle="-")
        )
        axes.plot([0, 1], [rank, other], marker="o", markersize=4, **style)
        axes.text(-0.04, rank, f"{name}  {rank + 1}", ha="right", va="center", fontsize=9)
        axes.text(1.04, other, f"{other + 1}  {name}", ha="left", va="center", fontsize=9)
    axes.set_xlim(-0.75, 1.75)
    axes.set_ylim(len(left) - 0.5, -1.2)
    axes.text(0, -0.8, titles[0], ha="center", fontsize=10)
    axes.text(1, -0.8, titles[1], ha="center", fontsize=10)
    axes.axis("off")
    return drawn


# ---------------------------------------------------------------------------------------------- exercises


def exercise_1(answer):
    """MACs of V1's 512 → 512 block at 14×14 at half the width."""
    expected = 14 * 14 * 256 * (9 + 256)
    hint = "both convolutions by hand: the pointwise one shrinks with α², the depthwise one only with α"
    return check(answer, lambda a: a == expected, hint)


def exercise_2(answer):
    """The largest of the paper's resolutions at which V1 0.75 stays within 170 million MACs."""
    fits = [
        side for side in SIDES if describe("mobilenet_v1", width=0.75, resolution=side).cost().macs <= 170e6
    ]
    hint = "numnet.describe(…).cost().macs for each of the four sides; the largest that still fits"
    return check(answer, lambda a: a == max(fits), hint)


_TRIAL = [  # names, accuracies and times that a wrong rule trips over
    {"name": "fast", "accuracy": 0.68, "ms": 1.0},
    {"name": "exactly", "accuracy": 0.70, "ms": 5.0},
    {"name": "slow and bad", "accuracy": 0.65, "ms": 4.9},
    {"name": "best, too slow", "accuracy": 0.80, "ms": 5.1},
]


def exercise_3(answer):
    """The reader's function (rows, limit) → the most accurate row within the limit, None if there is none."""

    def condition(function):
        if function(_TRIAL, 5.0)["name"] != "exactly" or function(_TRIAL, 0.5) is not None:
            return False
        return function(_TRIAL[::-1], 4.95)["name"] == "fast"

    hint = "of the rows whose time is at most the limit the one with the greatest accuracy; None where no row fits"
    return check(answer, condition, hint)


def exercise_4(answer):
    """The reward of a net of accuracy 0.75 that takes twice the target, w = −0.07."""
    return check(answer, lambda a: close(a, reward(0.75, 2, 1), 1e-3), "0.75 · 2^w, and w is negative")


def exercise_5(answer, rows, w=-0.07):
    """The names of the nets whose place differs between the order by time and the order by MACs."""
    by_time, by_macs = order(rows, "ms", 1.0, w), order(rows, "macs", 1.0, w)
    expected = {name for name, other in zip(by_time, by_macs) if name != other}
    hint = "compare the two lists place by place; a name counts if its two places differ"
    return check(answer, lambda a: set(a) == expected, hint)


def exercise_6(answer):
    """The reader's function (rows) → the names on the Pareto frontier, as a set."""
    rows = [
        *_TRIAL,
        {"name": "as fast, worse", "accuracy": 0.60, "ms": 1.0},
        {"name": "between", "accuracy": 0.69, "ms": 3.0},
    ]
    hint = "a net falls out if another one is at least as fast and at least as accurate, and better in one of the two"
    want = {"fast", "between", "exactly", "best, too slow"}
    return check(answer, lambda f: set(f(list(rows))) == want and set(f(rows[::-1])) == want, hint)


def exercise_7(answer):
    """Seconds of a training step of 8.9 GMAC on cores whose peak is 40 GFLOP/s, half of which is reached."""
    hint = "a MAC is two FLOP; divide by what is reached, half of the peak"
    return check(answer, lambda a: close(a, 2 * 8.9e9 / (0.5 * 40e9), 2e-2), hint)
