"""What notebook 5 shows of MobileNetV4: its block's four forms, and nets on machines of all kinds (the roofline)."""

import json

import numpy as np

from numnet.blocks import Conv, Norm, Pointwise, Residual, UniversalBottleneck
from numnet.lessons import SERIES, best, figure
from numnet.lessons.display import Table
from numnet.lessons.family import NAMES, millions
from numnet.lessons.training import runs_folder
from numnet.models import describe
from numnet.net import Net

BYTES = 4  # a float32
HIDDEN = ("batch norm", "relu", "relu6", "hswish", "identity")  # done while a convolution's result is at hand


def work(net) -> list[tuple[int, int]]:
    """(MACs, bytes) of every layer of one image: its weights, what it reads and what it writes.

    Batch norm and activations are folded into the convolution before them, as every inference does it.
    """
    found = []
    for row in net.cost().rows:
        if row.type not in HIDDEN:
            numbers = row.cost.params + row.cost.inputs + row.cost.outputs
            found.append((row.cost.macs, BYTES * numbers))
    return found


def seconds(net, ridge: float) -> float:
    """The roofline's time, in MACs: each layer takes as long as its arithmetic or its memory does, whichever is longer.

    ``ridge``: MACs that the machine does while it moves one byte.
    """
    return float(sum(max(macs, ridge * moved) for macs, moved in work(net)))


def roofline(names, against="mobilenet_v4_small", **options):
    """How many times as long as ``against`` each net takes, for machines from slow arithmetic to slow memory."""
    ridges = np.geomspace(0.5, 100, 60)
    base = describe(against, **options)
    picture, axes = figure(9, 3.8)
    axes.axhline(1, color="black", lw=1.2)
    axes.text(ridges[0], 1.02, f" {NAMES[against]}", va="bottom", fontsize=9)
    for name, (colour, line, _) in zip(names, SERIES):
        net = describe(name, **options)
        times = [seconds(net, ridge) / seconds(base, ridge) for ridge in ridges]
        axes.plot(ridges, times, color=colour, ls=line, marker="", label=NAMES[name])
    axes.set_xscale("log")
    axes.set(xlabel="MACs that the machine does while it moves one byte", ylim=(0, None))
    axes.set_ylabel(f"time, {NAMES[against]}'s = 1")
    for place, text in ((0.8, "a small processor"), (60, "an accelerator")):
        axes.text(
            place, 0.02, text, transform=axes.get_xaxis_transform(), ha="center", fontsize=9, color="#555555"
        )
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return picture


def forms(channels=160, expanded=640) -> dict:
    """The block's four forms, and the fused one, all from so many channels to the same."""
    frame = {"activation": "relu", "norm": Norm()}

    def universal(start, middle):
        return UniversalBottleneck(channels, expanded=expanded, start=start, middle=middle, **frame)

    fused = Residual(Conv(expanded, 3, **frame), Pointwise(channels, norm=Norm()))
    return {
        "extra depthwise (3×3, 3×3)": universal(3, 3),
        "inverted residual (–, 3×3)": universal(0, 3),
        "like ConvNeXt (3×3, –)": universal(3, 0),
        "feed-forward (–, –)": universal(0, 0),
        "fused: 3×3 standard, 1×1": fused,
    }


def clocked(side=14, channels=160, expanded=640, run=0.5) -> Table:
    """Each form on a map of this side: what it costs, and what the clock of this machine says."""
    image = np.random.default_rng(0).normal(size=(1, side, side, channels)).astype("float32")
    rows = []
    for name, block in forms(channels, expanded).items():
        net = Net([block], (side, side, channels))
        net.forward(image, training=True)
        macs, moved = (sum(part) for part in zip(*work(net)))
        taken = best(lambda net=net: net.predict(image), run)
        rows.append(
            (
                name,
                millions(macs),
                f"{net.flat.size:,}",
                f"{macs / moved:.0f}",
                f"{1e6 * taken:.0f}",
                f"{macs / taken / 1e9:.1f}",
            )
        )
    heading = ("block", "MACs, M", "parameters", "MACs a byte", "µs, here", "GMAC a second")
    return Table(heading, rows)


def beside(name="v4-or-v3") -> Table:
    """A kept sweep's nets side by side: accuracy with its deviation over the seeds, and what each costs."""
    rows = json.loads((runs_folder() / name / "table.json").read_text("utf-8"))
    lines = []
    for row in rows:
        accuracy = f"{100 * row['test_accuracy']:.1f} ± {100 * row['deviation']:.1f}"
        cost = (f"{row['macs'] / 1e6:.1f}", f"{row['params']:,}", f"{row['microseconds']:,.0f}")
        lines.append((row["name"], *cost, row["runs"], accuracy))
    head = ("net", "MACs, M", "parameters", "µs a training image", "seeds", "test accuracy, %")
    return Table(head, lines)
