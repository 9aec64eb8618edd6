"""The front: the nets that no other net beats in both, accuracy and latency; and the figure of it."""

from numnet.canvas import drawn, literal, panels, write
from numnet.plotting import DARK, LIGHT, MIDDLE

STYLES = [(DARK, "-", "o"), (MIDDLE, "--", "s"), (LIGHT, "-.", "^")]


def front(records) -> list[dict]:
    """The records that no other one beats, the fastest first. Of two that are equal in both the earlier one."""
    best, kept = -1.0, []
    for record in sorted(records, key=lambda r: (r["latency"], -r["accuracy"], r["number"])):
        if record["accuracy"] > best:
            best = record["accuracy"]
            kept.append(record)
    return kept


@drawn
def figure(searches, target, file=None):
    """Every net of some searches as a point (milliseconds, accuracy), a line through each front, and the time asked for.

    searches: {name: records}. target: seconds.
    """
    drawing, axes = panels(7.2, 4.2)
    axes = axes[0, 0]
    for (name, records), (colour, line, marker) in zip(searches.items(), STYLES * len(searches)):
        points = [(1e3 * r["latency"], 100 * r["accuracy"]) for r in records]
        axes.plot(*zip(*points), marker, color=colour, markersize=3.5, alpha=0.45, linestyle="none")
        edge = [(1e3 * r["latency"], 100 * r["accuracy"]) for r in front(records)]
        label = f"{literal(name)}: {len(records)} nets"
        axes.step(*zip(*edge), where="post", color=colour, linestyle=line, label=label)
    axes.axvline(1e3 * target, color="black", linewidth=0.8, linestyle=":")
    axes.annotate(
        "T",
        (1e3 * target, 0.02),
        xycoords=("data", "axes fraction"),
        xytext=(3, 0),
        textcoords="offset points",
    )
    axes.set_xlabel("predicted time of inference, ms")
    axes.set_ylabel("accuracy after the short training, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    return write(drawing, file)
