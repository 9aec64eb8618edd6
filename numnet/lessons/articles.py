"""Experiments, figures and exercises of notebook 08, five articles checked."""

import json
from math import ceil, log

import numpy as np

from numnet import kernels
from numnet.bench import report as bench_report
from numnet.bench.sides import SIDES
from numnet.bench.workloads import Workload
from numnet.lessons import MIDDLE, SERIES, figure
from numnet.lessons.budget import ELDERS, PUBLISHED
from numnet.lessons.check import agrees, check, close
from numnet.lessons.display import Shown, Table
from numnet.lessons.training import runs_folder
from numnet.models import build, describe
from numnet.training.loop import fit

# ---------------------------------------------------------------------------------------------- MnasNet on CIFAR-10

STEPS = 25  # an epoch of the article: 50,000 images in batches of 2,048


def sides(strides=("imagenet", "cifar")) -> Table:
    """The side of the map behind each stage of the article's net at 32×32, and what the whole net costs."""
    nets = [describe("mnasnet_keras", resolution=32, classes=10, strides=each) for each in strides]
    stages = [0, *(i for i, layer in enumerate(nets[0].layers) if getattr(layer, "stride", 1) == 2)]
    last = next(i for i, layer in enumerate(nets[0].layers) if layer.kind == "global average") - 1
    rows = []
    for i in sorted({*stages, last}):
        shown = ["×".join(map(str, net.layers[i].output_shape[:2])) for net in nets]
        rows.append((nets[0].layers[i].name, *shown))
    rows.append(("MACs, M", *(f"{net.cost().macs / 1e6:.1f}" for net in nets)))
    return Table(("behind", *(f"strides={each!r}" for each in strides)), rows)


def absorbed(momenta=(0.999, 0.99, 0.9), epochs=100):
    """How much of its running statistics a batch norm has learnt, 1 − m^steps, over the article's epochs."""
    drawn, axes = figure(6.6, 2.8)
    x = np.arange(epochs + 1)
    for momentum, (colour, line, _) in zip(momenta, SERIES):
        axes.plot(
            x,
            100 * (1 - momentum ** (STEPS * x)),
            color=colour,
            linestyle=line,
            marker="",
            label=f"momentum {momentum:g}",
        )
    axes.set_xlabel(f"epoch of {STEPS} steps")
    axes.set_ylabel("learnt by the running\nstatistics (%)")
    axes.set_ylim(0, 104)
    axes.legend(loc="lower right")
    return drawn


ARTICLE = "mnasnet-article"
CHANGES = {  # of the article's run, one at a time: a title, and the folder of the kept run
    "as in the article": ARTICLE,
    "mirrored and shifted images": f"{ARTICLE}/augmented",
    'strides="cifar"': f"{ARTICLE}/cifar-strides",
}


def _log(name, file) -> list[dict]:
    return [json.loads(line) for line in (runs_folder() / name / file).read_text("utf-8").splitlines()]


def second_statistics(name=ARTICLE) -> list[dict]:
    """What the kept run's weights reach with running statistics of momentum 0.9, epoch by epoch."""
    return _log(name, "momentum-0.9.jsonl")


def _three_curves(name) -> dict[str, list[float]]:
    """Per cent right, epoch by epoch: training images, and test images with both kinds of running statistics."""
    history = _log(name, "metrics.jsonl")
    return {
        "training images": [100 * record["train_accuracy"] for record in history],
        "test images, momentum 0.999, as in the article": [100 * r["validation_accuracy"] for r in history],
        "the same weights, statistics of momentum 0.9": [
            100 * r["accuracy"] for r in second_statistics(name)
        ],
    }


def _draw_curves(axes, name):
    for (label, values), (colour, line, marker) in zip(_three_curves(name).items(), SERIES):
        every, epochs = max(1, len(values) // 12), range(1, len(values) + 1)
        axes.plot(epochs, values, color=colour, linestyle=line, marker=marker, markevery=every, label=label)
    axes.axhline(10, color="black", linestyle="-", linewidth=0.8, marker="")
    axes.set_xlabel(f"epoch of {STEPS} steps")
    axes.set_ylim(0, 102)


def article_curves():
    """The article's run: accuracy on training images, and on test images with its own and with faster running statistics."""
    drawn, axes = figure(7.6, 3.3)
    _draw_curves(axes, ARTICLE)
    axes.set_ylabel("images right (%)")
    axes.legend(loc="best", fontsize=8.5)
    return drawn


def changed_curves():
    """The article's run beside those in which one thing was changed, the same three curves in each."""
    drawn, panels = figure(9.4, 3.2, columns=len(CHANGES), sharey=True)
    for axes, (title, name) in zip(panels, CHANGES.items()):
        _draw_curves(axes, name)
        axes.set_title(title, fontsize=9.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[0].set_ylabel("images right (%)")
    panels[-1].legend(loc="upper left", fontsize=7)
    return drawn


def changes() -> Table:
    """The last epoch of each of these runs."""
    rows = []
    for title, name in CHANGES.items():
        curves = list(_three_curves(name).values())
        rows.append((title, len(curves[0]), *(f"{values[-1]:.1f}" for values in curves)))
    return Table(
        ("training", "epochs", "training images, %", "test, momentum 0.999, %", "test, momentum 0.9, %"), rows
    )


# ---------------------------------------------------------------------------------------------- time by kind of layer


def kinds_over_batches(batches, resolution=128, steps=3, model="mobilenet_v1", width=1.0):
    """Measured here: the parts of a forward pass's time by kind of layer, one column for each batch size."""
    import numba

    facts = {"workloads": []}
    for batch in batches:
        workload = Workload(f"{model} {batch}", "infer", model, width, resolution, batch)
        times = SIDES["numnet"](workload, numba.get_num_threads()).layers(steps)
        layers = {kind: [1e3 * seconds for seconds in both] for kind, both in times.items()}
        facts["workloads"].append({"name": workload.name, "batch": batch, "layers": {"numnet": layers}})
    return Shown(bench_report.kinds(facts, "batch"))


# ---------------------------------------------------------------------------------------------- activations


def swishes():
    """Swish and h-swish, their derivatives, and the two gates that make them."""
    v = np.linspace(-6, 6, 2401)
    ones = np.ones_like(v)
    drawn, panels = figure(9.4, 3.0, columns=3)
    pairs = [
        ("the functions", [(name, kernels.activation_forward(v, code)) for name, code in NAMES]),
        ("their derivatives", [(name, kernels.activation_backward(ones, v, code)) for name, code in NAMES]),
        (
            "their gates",
            [("sigmoid", 1 / (1 + np.exp(-v))), ("hard-sigmoid", kernels.activation_forward(v, "hsigmoid"))],
        ),
    ]
    for axes, (title, lines) in zip(panels, pairs):
        for (name, y), (colour, line, _) in zip(lines, SERIES):
            shown = y.copy()
            if title == "their derivatives" and name == "h-swish":
                shown[np.isin(np.abs(v), 3.0)] = np.nan  # a jump is no steep line
            axes.plot(v, shown, color=colour, linestyle=line, marker="", label=name)
        axes.set_title(title)
        axes.legend(loc="upper left", fontsize=8.5)
    for x, low, high, side in ((-3, 0.0, -0.5, -1), (3, 1.5, 1.0, 1)):
        panels[1].plot([x, x], [low, high], color=MIDDLE, linestyle=":", marker="o", markersize=3)
        place = {"xytext": (9 * side, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
        text, middle = f"{min(low, high):g} | {max(low, high):g}".replace("-", "−"), (low + high) / 2
        panels[1].annotate(text, (x, middle), ha="left" if side > 0 else "right", **place)
    return drawn


NAMES = (("swish", "swish"), ("h-swish", "hswish"))


def jumps() -> Table:
    """The derivative of h-swish just before and just after its two kinks, computed by the kernel."""
    rows = []
    for kink in (-3.0, 3.0):
        near = np.array([kink - 1e-9, kink, kink + 1e-9])
        before, at, behind = kernels.activation_backward(np.ones(3), near, "hswish")
        rows.append((f"{kink:+.0f}", f"{before:.3f}", f"{at:.3f}", f"{behind:.3f}"))
    return Table(("at", "just before", "there, by convention", "just behind"), rows)


def swept(name="where-hswish") -> Table:
    """The kept sweep's table: accuracy of two seeds and time of a training image."""
    rows = json.loads((runs_folder() / name / "table.json").read_text("utf-8"))
    lines = []
    for row in rows:
        spread = row["deviation"]
        text = f"{100 * row['test_accuracy']:.1f}" + (f" ± {100 * spread:.1f}" if spread else "")
        time = "–" if row["microseconds"] is None else f"{row['microseconds']:.0f}"
        lines.append((row["name"], row["runs"], text, time))
    return Table(("activations", "seeds", "test accuracy, %", "µs a training image"), lines)


# ---------------------------------------------------------------------------------------------- dead filters

NEAR_ZERO = 0.05  # of the middle length of its layer's filters


def depthwise_lengths(net):
    """Name -> the length √Σw² of each filter of the net's depthwise layers."""
    found = {}
    for name, layer in net.walk():
        if layer.kind == "depthwise":
            w = np.asarray(layer.params["weight"], np.float64)
            found[name] = np.sqrt((w.reshape(w.shape[0] * w.shape[1], -1) ** 2).sum(axis=0))
    return found


def dead(net) -> tuple[int, int]:
    """(filters shorter than a twentieth of the middle length of their layer, all depthwise filters)."""
    lengths = depthwise_lengths(net).values()
    return sum(int((v < NEAR_ZERO * np.median(v)).sum()) for v in lengths), sum(v.size for v in lengths)


def silent(net, x) -> tuple[int, int]:
    """(channels after depthwise layers that have the same value everywhere in all images x, number of channels)."""
    still = total = 0
    for y in net.maps(x, "*.depthwise").values():
        flat = y.reshape(-1, y.shape[3])
        still += int((flat.max(axis=0) == flat.min(axis=0)).sum())
        total += flat.shape[1]
    return still, total


DYING = {  # what is trained: a title, the model and its options
    "V1, ReLU6 behind every convolution": ("mobilenet_v1", {"width": 0.25}),
    "V2, linear bottlenecks": ("mobilenet_v2", {"width": 0.35}),
    "V2, ReLU6 behind the projections too": (
        "mobilenet_v2",
        {"width": 0.35, "bottleneck_activation": "relu6"},
    ),
}


def dying(data, epochs, lr=0.1, weight_decay=5e-4):
    """Train each of DYING on ``data``; title -> [(dead, silent, filters) before training and after each epoch]."""
    x = next(_batches(data))
    found = {}
    for title, (model, options) in DYING.items():
        net = build(model, resolution=data.train.shape[0], classes=len(data.classes), **options)
        counts = [(dead(net)[0], silent(net, x)[0], dead(net)[1])]

        def count(record, net=net, counts=counts):
            counts.append((dead(net)[0], silent(net, x)[0], dead(net)[1]))

        fit(
            net,
            data,
            epochs=epochs,
            lr=lr,
            weight_decay=weight_decay,
            augment={"flip": True},
            callbacks=[count],
            progress=False,
        )
        found[title] = counts
    return found


def _batches(data):
    from numnet.data import batches

    for x, _ in batches(data.test, batch_size=128, scaling=data.scaling, shuffle=False):
        yield x


def dying_figure(found):
    """Dead filters and silent channels over the epochs, in per cent of all."""
    drawn, panels = figure(9, 2.9, columns=2)
    for axes, place, title in (
        (panels[0], 0, "filters near zero"),
        (panels[1], 1, "channels that never change"),
    ):
        for (name, counts), (colour, line, marker) in zip(found.items(), SERIES):
            values = [100 * each[place] / each[2] for each in counts]
            axes.plot(range(len(values)), values, color=colour, linestyle=line, marker=marker, label=name)
        axes.set_title(f"{title} (%)")
        axes.set_xlabel("epochs of training")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(bottom=0)
    panels[0].legend(loc="upper left", fontsize=8)
    return drawn


# ---------------------------------------------------------------------------------------------- V1 and its elders


def elders() -> Table:
    """V1 compared with GoogLeNet and VGG16: accuracy as V1's table 8 prints it, MACs and parameters as counted."""
    nets = [PUBLISHED[0], *ELDERS]
    counted = [describe(net.model, **net.options).cost() for net in nets]
    first = counted[0]
    lines = []
    for net, cost in zip(nets, counted):
        ratios = (f"{cost.macs / first.macs:.2f}", f"{cost.params / first.params:.2f}")
        lines.append(
            (net.name, f"{net.top1:.1f}", f"{cost.macs / 1e6:,.1f}", ratios[0], f"{cost.params:,}", ratios[1])
        )
    return Table(("net", "accuracy, %", "MACs, M", "of V1's", "parameters", "of V1's"), lines)


# ---------------------------------------------------------------------------------------------- exercises


def exercise_1(answer):
    """Whole epochs until 0.999 has learnt nine tenths."""
    expected = ceil(log(0.1) / log(0.999) / STEPS)
    hint = "after n steps a part 0.999ⁿ of the start is left; find the first n with 0.999ⁿ ≤ 0.1, then count whole epochs"
    return check(answer, lambda a: a == expected, hint)


def exercise_2(answer):
    """Parameters of the dense layer behind a flattened 7×7×1024 map."""
    hint = (
        "every one of the 7·7·1024 numbers meets every one of the 1,024 outputs, and each output has a bias"
    )
    return check(answer, lambda a: a == 7 * 7 * 1024 * 1024 + 1024, hint)


def exercise_3(answer):
    """The slopes of h-swish at both kinks, from the inside."""
    hint = "between −3 and 3 h-swish is x·(x + 3)/6; take its derivative (2x + 3)/6 at both ends"
    return check(answer, lambda a: tuple(a) == (-0.5, 1.5), hint)


def exercise_4(answer):
    """The momentum with which an epoch of 25 steps teaches a running statistic nine tenths."""
    hint = "m to the power of 25 steps is the part of the start that is left, and that shall be 0.1. Take the 25th root"
    return check(answer, lambda a: close(a, 0.1 ** (1 / STEPS), 1e-3), hint)


def exercise_5(answer):
    """A function (da, v, beta) → dv of swish."""
    draw = np.random.default_rng(5)
    da, v = draw.normal(size=30), draw.uniform(-5, 5, size=30)
    cases = [((da, v, beta), kernels.activation_backward(da, v, "swish", beta)) for beta in (1.0, 0.5)]
    hint = "with σ = sigmoid(β·v): the product v·σ has the derivative σ + v·σ', and σ' = β·σ·(1 − σ)"
    return check(answer, lambda function: agrees(function, cases, 1e-6), hint)
