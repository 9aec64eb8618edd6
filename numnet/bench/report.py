"""What ``comparison`` found, as tables and as figures."""

from numnet.plotting import DARK, LIGHT, MIDDLE, _figure, _write

STYLES = {  # of the sides, in a figure
    "numnet": {"color": DARK, "marker": "o", "linestyle": "-"},
    "pytorch": {"color": MIDDLE, "marker": "s", "linestyle": "--"},
    "torch.compile": {"color": "#8a6bb0", "marker": "^", "linestyle": ":"},
    "onnxruntime": {"color": LIGHT, "marker": "D", "linestyle": "-."},
}
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
        f"{limits['flops'] / 1e9:.0f} GFLOP/s, {limits['bandwidth'] / 1e9:.1f} GB/s, with vectors of "
        f"{limits['lanes']} numbers of float32",
        "median of the rounds' medians, and the range of these; % memory: what one step cannot do without, if no "
        "map survives in a cache; MiB: growth of the process; range of the ratio: over the rounds",
    ]
    text += [f"not measured: {side} ({why})" for side, why in facts["missing"].items()]
    for workload in facts["workloads"]:
        text += [f"{workload['name']}: {side}: {why}" for side, why in workload["failed"].items()]
    return text + [f"warning: {line}" for line in facts["warnings"]]


def part_lines(workload) -> list:
    """The shapes of a depthwise workload."""
    sides = list(workload["parts"][0]["ms"])
    others = [side for side in sides if side != "numnet"]
    rows = [(workload["name"], *(f"{side} ms" for side in sides), *(f"by {side}" for side in others)), None]
    for part in workload["parts"]:
        ratios = [f"{part['ratios'][side]:.2f}×" for side in others if side in part["ratios"]]
        rows.append((part["name"], *(f"{part['ms'][side]:.3f}" for side in sides), *ratios))
    return rows


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


def plot(facts, what=None, file=None):
    """Images a second against the number that was varied (``what``), or a roofline of all workloads."""
    figure, (axes,) = _figure(8, 5)
    if what is None:
        _roofline(axes, facts)
    else:
        _sweep(axes, facts, what)
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False, fontsize="small")
    return _write(figure, file)


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
    reach = [x for x, *_ in points] + [peak / bandwidth]
    low, high = min(reach) / 4, max(reach) * 4
    corners = sorted({low, peak / bandwidth, high})
    axes.plot(
        corners, [min(peak, bandwidth * x) for x in corners], color="#8c8c8c", label="the machine's limits"
    )
    shown = set()
    for x, y, side, name in points:
        style = {**STYLES.get(side, {}), "linestyle": "none"}
        axes.plot(x, y, label=None if side in shown else side, **style)
        shown.add(side)
        if side == "numnet":
            axes.annotate(name, (x, y), xytext=(5, 3), textcoords="offset points", fontsize=7)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("FLOP a byte that must be moved")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(f"{limits['processor']}, {limits['threads']} threads", fontsize="medium", loc="left")
