"""Measurements, figures and exercises of notebook 10, a search that knows the clock."""

import itertools
import json
from collections import Counter

import numpy as np

from numnet.data import shapes
from numnet.lessons import DARK, GREY, LIGHT, MIDDLE, SERIES, figure, small
from numnet.lessons.check import agrees, check
from numnet.lessons.display import Table
from numnet.lessons.training import runs_folder
from numnet.models import build, describe
from numnet.models.searched import parse
from numnet.search import latency, log, run
from numnet.search.front import front
from numnet.search.reward import WEIGHTS, reward
from numnet.search.space import SPACES

SPACE = SPACES["small"]
MODE, OPTIONS = "infer-1", {"classes": 10}

# ---------------------------------------------------------------------------------------------- MACs against time


def race(nets, seed=2):
    """{"net", "macs", "measured" seconds of one image} of so many random nets, on this machine."""
    rows = []
    for number in range(nets):
        net = build(SPACE.draw(seed, number), **OPTIONS)
        rows.append(
            {"net": net.config["model"], "macs": net.cost().macs, "measured": latency.whole(net, MODE)}
        )
    return rows


def race_drawn(rows):
    """Each net as a point: time against MACs, and the time for one MAC."""
    drawn, (left, right) = figure(8.8, 3.4, columns=2)
    macs, seconds = (np.array([row[key] for row in rows], float) for key in ("macs", "measured"))
    left.plot(macs / 1e6, 1e3 * seconds, "o", color=DARK, markersize=4)
    left.set(xlabel="million MACs", ylabel="one image, ms", xlim=(0, None), ylim=(0, None))
    right.plot(macs / 1e6, 1e12 * seconds / macs, "o", color=MIDDLE, markersize=4)
    right.set(xlabel="million MACs", ylabel="picoseconds for a MAC", xlim=(0, None), ylim=(0, None))
    return drawn


def of_what(line) -> dict:
    """What a net is made of: MACs; as parts of 1 those in standard and depthwise convolutions, layers with a squeeze."""
    total, rows = describe(line, **OPTIONS).cost(), parse(line).rows
    macs = Counter()
    for row in total.rows:
        macs[row.type] += row.cost.macs
    return {
        "MACs": total.macs,
        "MACs in standard convolutions": macs["conv"] / total.macs,
        "MACs in depthwise convolutions": macs["depthwise"] / total.macs,
        "layers with squeeze-and-excite": sum(row.n * row.se for row in rows) / sum(row.n for row in rows),
    }


def directions(measurements):
    """Rank correlations of the time for a MAC with what nets are made of; measurements: {name: rows as of ``race``}."""
    lines = {}
    for rows in measurements.values():
        made = [of_what(row["net"]) for row in rows]
        per_mac = [row["measured"] / row["macs"] for row in rows]
        for name in made[0]:
            lines.setdefault(name, []).append(f"{rank_correlation(per_mac, [m[name] for m in made]):+.2f}")
    return Table(["time for a MAC, and …", *measurements], [[name, *found] for name, found in lines.items()])


def ranks(values) -> np.ndarray:
    """The place of each number in their order, from 0; equal ones share the middle of their places."""
    values = np.asarray(values, float)
    return np.array([(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values])


def rank_correlation(a, b) -> float:
    """Spearman's ρ: the correlation of the ranks."""
    a, b = ranks(a), ranks(b)
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


# ---------------------------------------------------------------------------------------------- the clock


def kept(name="evolution"):
    """(plan, records) of a kept search: "evolution", "random"; on CIFAR-10 "cifar10/evolution", "cifar10/random"."""
    folder = runs_folder() / "search" / name
    return json.loads((folder / run.PLAN).read_text("utf-8")), log.read_nets(folder)


def kept_table(of="."):
    """The table of times of the machine on which the kept searches were made; of "cifar10" those on CIFAR-10."""
    return latency.Table.read(runs_folder() / "search" / of / run.TABLE)


def kept_json(name):
    """Another measurement that was kept."""
    return json.loads((runs_folder() / "search" / name).read_text("utf-8"))


def table_of_this_machine(progress=False):
    """Times of all blocks of the space, measured now (a quarter of a minute); in the tests those that were kept."""
    if small():
        return kept_table()
    table = latency.Table.here()
    latency.fill(table, latency.carriers(SPACE, **OPTIONS), [MODE], **OPTIONS)
    return table


def checked(table, nets, seed=3):
    """Rows (predicted, measured) in seconds of so many random nets."""
    rows = []
    for number in range(nets):
        net = build(SPACE.draw(seed, number), **OPTIONS)
        rows.append((table.predict(net, MODE), latency.whole(net, MODE)))
    return rows


def checked_drawn(kept_rows, here):
    """Predicted against measured: the nets that were kept, on their machine, and some on this one."""
    drawn, axes = figure(5.4, 4.2)
    lists = [
        ("kept, on its machine", [(r["predicted"], r["measured"]) for r in kept_rows]),
        ("here and now", here),
    ]
    for (name, rows), (colour, _, marker) in zip(lists, SERIES):
        points = 1e3 * np.array(rows)
        axes.plot(
            points[:, 1], points[:, 0], marker, color=colour, markersize=4, linestyle="none", label=name
        )
    most = 1e3 * max(max(pair) for _, rows in lists for pair in rows)
    axes.plot([0, most], [0, most], color=GREY, linewidth=0.8, marker="")
    axes.set(xlabel="measured, ms", ylabel="sum of the blocks, ms", xlim=(0, None), ylim=(0, None))
    axes.legend()
    return drawn


# ---------------------------------------------------------------------------------------------- the reward


def reward_drawn(target=1.0):
    """Lines of equal reward in the plane of time and accuracy, for the paper's two pairs of w."""
    drawn, panels = figure(8.8, 3.4, columns=2, sharey=True)
    times = np.linspace(0.25, 4, 300) * target
    for axes, (kind, (alpha, beta)) in zip(panels, WEIGHTS.items()):
        for level, (colour, line, _) in zip((0.5, 0.6, 0.7, 0.8), SERIES):
            accuracy = [100 * level / reward(1.0, t, target, kind) for t in times]
            axes.plot(
                times / target, accuracy, color=colour, linestyle=line, marker="", label=f"reward {level:g}"
            )
        axes.axvline(1, color=GREY, linewidth=0.8)
        axes.set(xlabel="time / T", ylim=(40, 100), title=f"{kind}: α = {alpha:g}, β = {beta:g}")
    panels[0].set_ylabel("accuracy, %")
    panels[1].legend(loc="lower right")
    return drawn


# MnasNet-A1 at five widths, as its authors' code lists them: accuracy on ImageNet in percent, ms on a Pixel 1.
PUBLISHED = [(0.35, 64.1, 22), (0.5, 68.9, 32), (0.75, 73.3, 61), (1.0, 75.2, 78), (1.4, 77.2, 135)]


def exchange():
    """What time bought by width alone: from each published net to the next, the exponent w that would call them equal."""
    rows = []
    for (a, accuracy, time), (b, better, longer) in itertools.pairwise(PUBLISHED):
        w = -np.log(better / accuracy) / np.log(longer / time)
        rows.append(
            [
                f"{a:g} → {b:g}",
                f"{longer / time:.2f}",
                f"{100 * (better / accuracy - 1):.1f}",
                f"{w:.3f}".replace("-", "−"),
            ]
        )
    return Table(["width", "times the time", "accuracy, % more", "w"], rows)


# ---------------------------------------------------------------------------------------------- a search


def small_search(table, target, nets, method="evolution", seed=0, images=1500, epochs=5, tell=None):
    """Records of a short search on the built-in set, with images of 16×16; nothing is written to the disk."""
    proxy = {"images": images, "epochs": epochs}
    plan = run.make_plan(
        "shapes", target=target, nets=nets, space="small", method=method, kind="hard", seed=seed, **proxy
    )
    return run.in_memory(plan, table, tell=tell or (lambda record, history: None))


def front_drawn(searches, target):
    """All nets of some searches, {name: records}, and each one's front."""
    drawn, axes = figure(7.6, 4.0)
    for (name, records), (colour, line, marker) in zip(searches.items(), SERIES):
        points = np.array([(1e3 * r["latency"], 100 * r["accuracy"]) for r in records])
        axes.plot(points[:, 0], points[:, 1], marker, color=colour, markersize=4, alpha=0.5, linestyle="none")
        edge = np.array([(1e3 * r["latency"], 100 * r["accuracy"]) for r in front(records)])
        axes.step(edge[:, 0], edge[:, 1], where="post", color=colour, linestyle=line, label=name)
    axes.axvline(1e3 * target, color=GREY, linewidth=0.8)
    axes.set(xlabel="predicted time of one image, ms", ylabel="held-back images right, %")
    axes.legend(loc="lower right")
    return drawn


def best_of(records):
    return max(records, key=lambda record: record["reward"])


def best_so_far_drawn(searches):
    """The best reward after each net."""
    drawn, axes = figure(6.4, 3.2)
    for (name, records), (colour, line, _) in zip(searches.items(), SERIES):
        best = np.maximum.accumulate([record["reward"] for record in records])
        axes.step(np.arange(1, len(best) + 1), best, where="post", color=colour, linestyle=line, label=name)
    axes.set(xlabel="nets tried", ylabel="best reward so far")
    axes.legend(loc="lower right")
    return drawn


def choices(lines):
    """How often each choice was made in the stages of these nets, as parts of all stages: {field: {value: part}}."""
    rows = [row for line in lines for row in parse(line).rows]
    words = {
        "kind": [f"inv e{row.t}" if row.kind == "inv" else row.kind for row in rows],
        "kernel": [f"{row.k}×{row.k}" for row in rows],
        "squeeze": ["se" if row.se else "no se" for row in rows],
        "skip": ["skip" if row.skip else "no skip" for row in rows],
        "layers": ["1 layer" if row.n == 1 else f"{row.n} layers" for row in rows],
    }
    return {
        field: {word: n / len(rows) for word, n in Counter(each).items()} for field, each in words.items()
    }


def in_common_drawn(records, quarter=0.25):
    """The choices of the best quarter of some nets beside those of all."""
    order = sorted(records, key=lambda record: -record["reward"])
    chosen = order[: max(int(len(order) * quarter), 1)]
    groups = [
        ("all", LIGHT, choices([r["net"] for r in order])),
        ("best quarter", DARK, choices([r["net"] for r in chosen])),
    ]
    drawn, axes = figure(8.8, 3.0)
    labels = [(field, word) for field in groups[0][2] for word in sorted(groups[0][2][field])]
    for number, (name, colour, found) in enumerate(groups):
        heights = [100 * found[field].get(word, 0) for field, word in labels]
        axes.bar(
            np.arange(len(labels)) + 0.4 * number - 0.2,
            heights,
            0.38,
            color=colour,
            label=f"{name}: {len(records) if number == 0 else len(chosen)} nets",
        )
    axes.set_xticks(range(len(labels)), [word for _, word in labels])
    axes.set_ylabel("of the stages, %")
    axes.legend()
    return drawn


def layer_table(line):
    """A net's stages as a table."""
    rows = []
    for number, row in enumerate(parse(line).rows, 1):
        kind = (
            f"inv, expands {row.t}×"
            if row.kind == "inv"
            else {"conv": "standard", "sep": "separable"}[row.kind]
        )
        rows.append(
            [
                str(number),
                kind,
                f"{row.k}×{row.k}",
                str(row.c),
                str(row.n),
                str(row.s),
                "1/4" if row.se else "–",
                "yes" if row.skip else "no",
            ]
        )
    return Table(["stage", "kind", "kernel", "channels", "layers", "stride", "squeeze", "skip"], rows)


# ---------------------------------------------------------------------------------------------- exercises


def exercise_1(answer):
    """How many different rows the last stage of the space has."""
    hint = "3 widths, 3 repeats, 2 kernels, 2 skips; of the four kinds three have squeeze-and-excite or not, and one never"
    return check(answer, lambda a: a == len(SPACE.rows(2)), hint)


def exercise_2(answer):
    """Accuracy in percent that a net of twice the time needs for the soft reward of 75 % at T."""
    hint = "75 · 1 = answer · 2^(−0.07); solve for the answer"
    return check(answer, lambda a: abs(a - 75 * 2**0.07) < 0.05, hint)


def exercise_3(answer):
    """A function reward(accuracy, latency, target, alpha, beta)."""
    draw, cases = np.random.default_rng(0), []
    for _ in range(40):
        accuracy, time, target = draw.uniform(0.1, 1), draw.uniform(0.2, 5), draw.uniform(0.2, 5)
        alpha, beta = WEIGHTS["soft" if draw.random() < 0.5 else "hard"]
        expected = accuracy * (time / target) ** (alpha if time <= target else beta)
        cases.append(((accuracy, time, target, alpha, beta), expected))
    cases.append(((0.5, 2.0, 2.0, 0.0, -1.0), 0.5))
    hint = "the base is the same for both, latency / target; only the exponent depends on which of the two is larger"
    return check(answer, lambda function: agrees(function, cases), hint)


def exercise_4(answer):
    """Numbers of the nets alive after net 6, oldest first, and of the next parent: P = 4, everybody in the sample."""
    hint = "the four youngest live, however good an older one was; the best of these is the parent"
    return check(answer, lambda a: list(a[0]) == [3, 4, 5, 6] and a[1] == 5, hint)


def exercise_5(answer):
    """A function front(points) of pairs (latency, accuracy): those that no other point beats, the fastest first."""

    def right(function):
        draw = np.random.default_rng(1)
        for count in (1, 5, 40):
            points = [(float(t), float(a)) for t, a in draw.random((count, 2)).round(2)]
            records = [{"number": n, "latency": t, "accuracy": a} for n, (t, a) in enumerate(points)]
            want = [(r["latency"], r["accuracy"]) for r in front(records)]
            if [tuple(point) for point in function(list(points))] != want:
                return False
        return True

    hint = "go through the points from the fastest to the slowest, and keep each that is more accurate than all before it"
    return check(answer, right, hint)


def shapes_chance() -> float:
    """What guessing gets right on the built-in set."""
    return 1 / len(shapes.FIGURES)
