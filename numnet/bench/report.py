"""What ``comparison`` found, as tables and as figures."""

import math

from numnet.canvas import drawn, write
from numnet.plotting import DARK, LIGHT, MIDDLE, _figure

STYLES = {  # of the sides, in a figure
    "numnet": {"color": DARK, "marker": "o", "linestyle": "-"},
    "pytorch": {"color": MIDDLE, "marker": "s", "linestyle": "--"},
    "torch.compile": {"color": "#8a6bb0", "marker": "^", "linestyle": ":"},
    "onnxruntime": {"color": LIGHT, "marker": "D", "linestyle": "-."},
}
# Colours of the kinds of layers, in turn
SHADES = (DARK, MIDDLE, LIGHT, "#8a6bb0", "#c9a227", "#5f8f5f", "#444444", "#b0b0b0")
HATCHES = ("", "////", "", "....", "\\\\\\\\", "xxxx", "", "")  # so that a grey print tells them apart
HEADING = ("workload", "side", "ms", "range", "images/s", "GFLOP/s", "% peak", "% memory", "MiB", "numnet is")
SIDE_COLUMNS = range(2, 10)


def lines(facts) -> list:
    """The rows of the main table; None stands for a rule."""
    rows = [HEADING, None]
    for workload in facts["workloads"]:
        name = workload["name"]
        for side, number in workload.get("sides", {}).items():
            memory = number["memory_bytes"]
            rows.append((
                name, side, f"{number['ms']:.4g}", f"{number['low_ms']:.4g}–{number['high_ms']:.4g}",
                f"{number['images_per_second']:,.0f}", f"{number['gflops']:.1f}",
                f"{100 * number['share_of_peak']:.0f}", f"{100 * number['share_of_bandwidth']:.0f}",
                "–" if memory is None else f"{memory / 2**20:.0f}", _times(workload["ratios"].get(side)),
            ))  # fmt: skip
            name = ""
        for side, ratio in workload["ratios"].items() if "parts" in workload else ():
            rows.append((name, side, "", "all shapes", "", "", "", "", "", _times(ratio)))
            name = ""
    return rows


def _times(ratio) -> str:
    """How many times as fast numnet is."""
    if not ratio or ratio["ratio"] is None:
        return ""
    return f"{ratio['ratio']:.2f}× as fast ({ratio['low']:.2f}–{ratio['high']:.2f})"


def notes(facts) -> list[str]:
    """What must be said beside the tables."""
    limits = facts["machine"]
    text = [
        f"{limits['processor']}, {limits['threads']} of {limits['cores']} cores; measured: "
        f"{limits['flops'] / 1e9:.0f} GFLOP/s, in eight bits {limits['int8'] / 1e9:.0f} billion operations a second, "
        f"{limits['bandwidth'] / 1e9:.1f} GB/s, with vectors of {limits['lanes']} numbers of float32",
        "median of the rounds' medians, and the range of these; % memory: what one step cannot do without, if no "
        "map survives in a cache; MiB: growth of the process; range of the ratio: over the rounds",
    ]
    if any("int8" in workload["name"] for workload in facts["workloads"]):
        text.append(
            "of nets in eight bits GFLOP/s are billions of operations a second, and % peak is of that in eight bits"
        )
    text += [f"not measured: {side} ({why})" for side, why in facts["missing"].items()]
    for workload in facts["workloads"]:
        text += [f"{workload['name']}: {side}: {why}" for side, why in workload["failed"].items()]
    return text + [f"warning: {line}" for line in facts["warnings"]]


def part_lines(workload) -> list:
    """The shapes of a workload of kernels, with the share of what the machine can do at most; last the geometric means."""
    sides = list(workload["parts"][0]["ms"])
    others = [side for side in sides if side != "numnet" and "numnet" in sides]  # each compared with numnet
    heads = *(f"{side} ms" for side in sides), *(f"by {side}" for side in others), "% of the roofline"
    rows, shares = [(workload["name"], *heads), None], []
    for part in workload["parts"]:
        ratios = [f"{part['ratios'][side]:.2f}×" for side in others if side in part["ratios"]]
        shares.append(part["floor_ms"] / part["ms"][sides[0]])
        share = f"{100 * shares[-1]:.0f}"
        rows.append((part["name"], *(f"{part['ms'][side]:.3f}" for side in sides), *ratios, share))
    mean = 100 * math.exp(sum(map(math.log, shares)) / len(shares))
    means = [f"{workload['ratios'][side]['ratio']:.2f}×" for side in others if workload["ratios"].get(side)]
    return [*rows, None, (f"geometric mean, {sides[0]}", *("" for _ in sides), *means, f"{mean:.0f}")]


def layer_lines(workload) -> list:
    """Time by kind of layer, forward and backward, side by side; what no layer accounts for is "the rest"."""
    sides = list(workload["layers"])
    rows = [
        (workload["name"], *(f"{side}, {way}" for side in sides for way in ("forward", "backward"))),
        None,
    ]
    kinds = list(dict.fromkeys(kind for side in sides for kind in workload["layers"][side]))
    kinds = [kind for kind in kinds if kind != "whole step"]
    for kind in kinds:
        cells = [workload["layers"][side].get(kind, (0.0, 0.0)) for side in sides]
        rows.append((kind, *(f"{ms:.3f}" for both in cells for ms in both)))
    rest, whole = [], []
    for side in sides:
        total = workload["layers"][side]["whole step"][0]
        rest += [f"{total - sum(sum(workload['layers'][side].get(kind, ())) for kind in kinds):.3f}", ""]
        whole += [f"{total:.3f}", ""]
    return [*rows, ("the rest", *rest), None, ("whole step, ms", *whole)]


# ----------------------------------------------------------------------------------------- figures


@drawn
def plot(facts, what=None, file=None):
    """Images a second against the number that was varied (``what``), or a roofline of all workloads.

    Where the time by kind of layer was measured as well, a sweep is drawn as that: see ``kinds``.
    """
    if what is not None and all(workload.get("layers") for workload in facts["workloads"]):
        return kinds(facts, what, file)
    figure, (axes,) = _figure(8, 5)
    if what is None:
        _roofline(axes, facts)
    else:
        _sweep(axes, facts, what)
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False, fontsize="small")
    return write(figure, file)


@drawn
def kinds(facts, what, file=None):
    """Where the time of a step goes, by kind of layer, at each value of ``what``: a column each, a panel a workload and side.

    Parts of the whole step, forward and backward together; above each column the milliseconds of an image.
    """
    panels: dict[tuple, list] = {}
    for workload in facts["workloads"]:
        for side, times in workload["layers"].items():
            base = workload["name"].partition(" ")[0]
            panels.setdefault((base, side), []).append((workload[what], workload["batch"], times))
    every = dict.fromkeys(kind for line in panels.values() for *_, times in line for kind in times)
    names = [*(kind for kind in every if kind != "whole step"), "the rest"]
    figure, axes = _figure(2.2 + 3.6 * len(panels), 4.4, columns=len(panels))
    for place, ((base, side), line) in zip(axes, panels.items()):
        line.sort(key=lambda entry: entry[0])
        floor = [0.0] * len(line)
        for number, kind in enumerate(names):
            parts = [_part(times, kind, names) for *_, times in line]
            if any(parts):
                style = {"color": SHADES[number % len(SHADES)], "hatch": HATCHES[number % len(HATCHES)]}
                place.bar(
                    range(len(line)), parts, 0.8, floor, label=kind, edgecolor="white", linewidth=0.5, **style
                )
            floor = [a + b for a, b in zip(floor, parts)]
        for i, (_, batch, times) in enumerate(line):
            place.text(i, 1.01, f"{times['whole step'][0] / batch:.3g}", ha="center", va="bottom", fontsize=8)
        place.set_xticks(range(len(line)), [f"{value:g}" for value, *_ in line])
        place.set_xlabel(what)
        place.set_ylim(0, 1.12)
        place.set_title(f"{base}\n{side}; above: ms an image", fontsize="small", loc="left")
    axes[0].set_ylabel("part of the time")
    handles = {label: handle for place in axes for handle, label in zip(*place.get_legend_handles_labels())}
    figure.legend(
        handles.values(), handles.keys(), loc="outside right upper", frameon=False, fontsize="small"
    )
    return write(figure, file)


def _part(times, kind, names) -> float:
    """A kind's part of the whole step; "the rest" is what no kind accounts for."""
    whole = times["whole step"][0]
    if kind == "the rest":
        return max(0.0, 1 - sum(sum(times.get(name, ())) for name in names if name != kind) / whole)
    return sum(times.get(kind, ())) / whole


def _sweep(axes, facts, what):
    series: dict[tuple, list] = {}
    for workload in facts["workloads"]:
        for side, number in workload["sides"].items():
            base = workload["name"].partition(" ")[0]
            series.setdefault((base, side), []).append((workload[what], number["images_per_second"]))
    for (base, side), points in series.items():
        axes.plot(*zip(*sorted(points)), label=f"{base}, {side}", **STYLES.get(side, {}))
    axes.set_xlabel(what)
    axes.set_ylabel("images a second")
    axes.set_ylim(bottom=0)


def _roofline(axes, facts):
    limits = facts["machine"]
    peak, bandwidth = limits["flops"] / 1e9, limits["bandwidth"] / 1e9
    points = [
        (2 * workload["macs"] / workload["bytes"], number["gflops"], side, workload["name"])
        for workload in facts["workloads"]
        for side, number in workload.get("sides", {}).items()
    ]
    roofs = [(peak, "-", "the machine's limits")]
    if any(workload["mode"] == "infer-int8" for workload in facts["workloads"]):
        roofs.append((limits["int8"] / 1e9, ":", "its limits in eight bits"))
    reach = [x for x, *_ in points] + [roof / bandwidth for roof, *_ in roofs]
    low, high = min(reach) / 4, max(reach) * 4
    for roof, line, label in roofs:
        corners = (low, roof / bandwidth, high)
        heights = [min(roof, bandwidth * x) for x in corners]
        axes.plot(corners, heights, line, color="#8c8c8c", label=label)
    shown = set()
    for x, y, side, name in points:
        style = {**STYLES.get(side, {}), "linestyle": "none"}
        axes.plot(x, y, label=None if side in shown else side, **style)
        shown.add(side)
        if side == "numnet":
            axes.annotate(name, (x, y), xytext=(5, 3), textcoords="offset points", fontsize=7)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations a byte that must be moved")
    axes.set_ylabel("billion operations a second")
    axes.set_title(f"{limits['processor']}, {limits['threads']} threads", fontsize="medium", loc="left")
