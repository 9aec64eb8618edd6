"""Measurements, figures and exercises of notebook 09, eight bits."""

import json

import numpy as np

from numnet import kernels
from numnet.data import batches, shapes
from numnet.kernels import eight_bits, fake
from numnet.lessons import DARK, GREY, LIGHT, MIDDLE, SERIES, figure
from numnet.lessons.check import check, close
from numnet.lessons.training import runs_folder
from numnet.quantised import FakeQuantised, report
from numnet.quantised.steps import run, trace

STORY = np.array([-1.0, 0.0, 0.3, 1.1, 2.6, 3.0])  # the hand-sized numbers
BITS = (8, 6, 4)

# ---------------------------------------------------------------------------------------------- grids


def rounded(x, low, high, bits):
    """x on the grid of 2^bits places that covers low … high and 0, float64."""
    most = 2**bits - 1
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / most
    zero = np.floor(-low / scale + 0.5)
    return (np.clip(np.floor(x / scale + 0.5) + zero, 0, most) - zero) * scale


def decibels(x, other) -> float:
    """Signal to noise of ``other`` against x."""
    noise = ((x - other) ** 2).sum()
    return float(10 * np.log10((x**2).sum() / noise)) if noise else float("inf")


def number_line(x, low, high, bits):
    """Numbers above a line, and the places below it that each of them goes to."""
    drawn, axes = figure(8.8, 1.8)
    places = np.unique(rounded(np.linspace(low, high, 4001), low, high, bits))
    axes.plot(places, np.zeros_like(places), "|", color=GREY, markersize=14)
    for value in x:
        place = rounded(value, low, high, bits)
        axes.annotate("", (place, 0), (value, 1), arrowprops={"arrowstyle": "->", "color": MIDDLE})
    axes.plot(x, np.ones_like(x), "o", color=DARK)
    axes.set_yticks([0, 1], ["places", "numbers"])
    axes.set_ylim(-0.5, 1.5)
    axes.set_title(f"{bits} bits: {len(places)} places from {low:g} to {high:g}")
    axes.grid(False)
    return drawn


# ---------------------------------------------------------------------------------------------- real maps


def images_for(net, count):
    """Scaled images of the built-in shapes, (count, 32, 32, 3); nets of CIFAR-10 have never seen such."""
    split = shapes.load(max(count, 64), 64).train
    return next(iter(batches(split, batch_size=count, scaling=net.scaling, seed=0)))[0]


def before_activation(net, images):
    """The numbers of the first depthwise convolution, batch norm done and no activation yet, float64."""
    steps = trace(net)
    number = next(i for i, step in enumerate(steps) if step.kind == "depthwise")
    return run(steps[: number + 1], images)[-1].astype(np.float64)


def activations_in_bits(x, names=("relu", "relu6", "hswish", "swish")):
    """{activation: [signal to noise at 8, 6 and 4 bits]}, the grid from the smallest to the largest number."""
    found = {}
    for name in names:
        y = kernels.activations.definition(np.ascontiguousarray(x), name)
        found[name] = [decibels(y, rounded(y, y.min(), y.max(), bits)) for bits in BITS]
    return found


def activations_drawn(found):
    drawn, axes = figure(7.0, 3.2)
    for (name, values), (colour, line, marker) in zip(found.items(), SERIES):
        axes.plot(BITS, values, color=colour, linestyle=line, marker=marker, label=name)
    axes.set_xticks(BITS)
    axes.set_xlabel("bits")
    axes.set_ylabel("signal to noise, dB")
    axes.legend()
    return drawn


# ---------------------------------------------------------------------------------------------- one scale or many


def filters_of(net):
    """(name, folded weights (K·K, C)) of the depthwise layer whose filters differ most in size."""
    layers = [(s.name, s.weight.reshape(-1, s.weight.shape[2])) for s in trace(net) if s.kind == "depthwise"]

    def spread(pair):
        most = np.abs(pair[1]).max(axis=0)
        return most.max() / max(np.median(most), 1e-30)

    return max(layers, key=spread)


def signal_of_filters(w, channel):
    """Signal to noise of each filter's weights in eight bits, in dB: a scale for each, or one for all."""
    scales = eight_bits.weight_scales(w, channel)
    back = eight_bits.quantise_weights(w, scales) * scales
    return np.array([min(decibels(w[:, c], back[:, c]), 99.0) for c in range(w.shape[1])])


def filters_drawn(w):
    """Largest number of each filter, and what is left of it with one scale and with many; filters by size."""
    drawn, (left, right) = figure(8.8, 3.2, columns=2)
    most = np.abs(w).max(axis=0)
    order = np.argsort(-most)
    left.semilogy(np.maximum(most[order], 1e-6), color=DARK)
    left.set_xlabel("filter")
    left.set_title("largest weight, after folding")
    for channel, colour, line, label in (
        (True, DARK, "-", "a scale for each"),
        (False, MIDDLE, "--", "one for all"),
    ):
        right.plot(signal_of_filters(w, channel)[order], color=colour, linestyle=line, label=label)
    right.set_xlabel("filter")
    right.set_title("signal to noise of its weights, dB")
    right.legend()
    return drawn


# ---------------------------------------------------------------------------------------------- the whole net


def layers_drawn(net, whole, images):
    """Signal to noise of each step, all errors before it included, and what each does to the output alone."""
    rows = report(net, whole, images)
    drawn, (top, bottom) = figure(8.8, 4.6, rows=2, sharex=True)
    top.plot([row["signal_db"] for row in rows], color=DARK)
    top.set_ylabel("signal to noise, dB")
    bottom.bar(range(len(rows)), [100 * row["hurt"] for row in rows], color=LIGHT)
    bottom.set_ylabel("noise in the logits\nof this step alone, %")
    bottom.set_xlabel("step")
    return drawn


def agreement(net, whole, images):
    """(share of equal first answers, mean distance of the probabilities)."""
    a, b = (kernels.loss.softmax(each.predict(images)) for each in (net, whole))
    return float((a.argmax(1) == b.argmax(1)).mean()), float(np.abs(a - b).mean())


# ---------------------------------------------------------------------------------------------- training for it

STAIRS = fake.ends_of(eight_bits.Grid(0.5, 3), 0, 7)._replace(above=4.0)  # eight places from −1.5 to 2


def stairs_drawn():
    """What fake quantisation makes of a number, and the slope that the straight-through rule gives it; three bits."""
    drawn, (left, right) = figure(8.8, 3.0, columns=2)
    v = np.linspace(-3, 3.5, 1301)[:, None]
    bias = np.zeros(1)
    y = fake.definition(v, bias, STAIRS)
    slope, _, _ = fake.definition_backward(np.ones_like(v), v, bias, STAIRS)
    scales = np.array(
        [fake.definition_backward(np.ones((1, 1)), v[i : i + 1], bias, STAIRS)[2] for i in range(len(v))]
    )
    left.plot(v, v, color=LIGHT, marker="", label="in real numbers")
    left.plot(v, y, color=DARK, marker="", linestyle="-", label="on the grid")
    left.set_xlabel("v")
    left.set_title("y: what the next layer gets")
    left.legend()
    right.plot(v, slope, color=DARK, marker="", linestyle="-", label="in v, straight through")
    right.plot(v, scales, color=MIDDLE, marker="", linestyle="--", label="in the scale")
    right.set_xlabel("v")
    right.set_title("the slope of y that training uses")
    right.legend()
    return drawn


def seen_in_training(net, images) -> float:
    """Share of all maps' numbers that training on fake grids sees exactly as the whole net makes them."""
    learner = FakeQuantised.of(net, images, "minmax")
    learner.forward(images)
    whole = learner.whole()
    equal = count = 0
    for real, q, grid in zip(
        learner.kept[2], whole.maps(eight_bits.quantise(images, whole.grid)), whole.grids
    ):
        if grid is not None:
            equal += int((np.rint(real / grid.scale) + grid.zero == q).sum())
            count += q.size
    return equal / count


def kept_results() -> list[dict]:
    """What ``runs/eight-bits/table.json`` keeps: a row a net, with its accuracies."""
    return json.loads((runs_folder() / "eight-bits" / "table.json").read_text("utf-8"))


def results_drawn(rows):
    """Test accuracy lost against the float net, after quantisation and after training for it, in points."""
    drawn, axes = figure(7.0, 2.6)
    places = np.arange(len(rows))
    for shift, key, colour, label in (
        (-0.2, "quantised", LIGHT, "quantised"), (0.2, "trained", DARK, "trained for eight bits"),
    ):  # fmt: skip
        lost = [100 * (row["float"] - row[key]) for row in rows]
        axes.barh(places + shift, lost, height=0.35, color=colour, label=label)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_yticks(places, [row["net"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("points lost against the float net (left of 0: gained)")
    axes.legend()
    return drawn


# ---------------------------------------------------------------------------------------------- exercises


def exercise_1(answer):
    """(scale, zero point) of eight bits for numbers from −1 to 3."""
    hint = (
        "255 steps from −1 to 3; the zero point says how many steps 0 is above the lower end, to the nearest"
    )
    return check(answer, lambda a: close(a[0], 4 / 255, 1e-3) and a[1] == 64, hint)


def exercise_2(answer):
    """A function requantise(total, m, s, zero): ⌊total · m / 2^s + ½⌋ + zero, cut to 0 … 255, without a division."""

    def right(function):
        draw = np.random.default_rng(0)
        for total in [*draw.integers(-600, 900, 50).tolist(), 512, -512, 40_000]:
            want = min(max((total * 307 + (1 << 9)) // (1 << 10) + 9, 0), 255)
            if function(total, 307, 10, 9) != want:
                return False
        return function(1, 1, 1, 0) == 1 and function(-1, 1, 1, 5) == 5

    hint = "add half of 2^s before you shift, so that halves go up; then the zero point, then the cut"
    return check(answer, right, hint)


def exercise_3(answer):
    """Decibels that one bit more is worth."""
    hint = (
        "half the step is half the error, a quarter of its square; ten times the logarithm to base ten of 4"
    )
    return check(answer, lambda a: abs(a - 10 * np.log10(4)) < 0.1, hint)


def exercise_4(answer):
    """Places that a filter uses whose largest weight is a fiftieth of the layer's largest, with one scale for all."""
    hint = "its largest weight is 127/50 steps: to which place does it go, and how many are there from minus it to it?"
    return check(answer, lambda a: a == 2 * round(127 / 50) + 1, hint)
