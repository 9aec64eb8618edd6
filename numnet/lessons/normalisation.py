"""Measurements, figures and exercises of notebook 04, batch norm and activations."""

from functools import partial
from math import exp

import numpy as np

from numnet import kernels
from numnet.data import batches
from numnet.kernels._jit import kernel
from numnet.kernels.moments import moments_of
from numnet.layers.layer import Memory, Pending, finish, hand
from numnet.lessons import DARK, GREY, LIGHT, MIDDLE, SERIES, best, figure
from numnet.lessons.check import agrees, check, close
from numnet.lessons.pictures import bars

STORY = np.array([1.0, 2.0, 3.0, 6.0])  # the hand-sized batch: mean and variance are easy to write down

# ---------------------------------------------------------------------------------------------- depth


def through_layers(scale, layers, norm, pixels=512, channels=64):
    """Standard deviation of the activations after each of ``layers`` random pointwise layers with ReLU6.

    scale: the weights are drawn with standard deviation scale/√C; norm: batch norm before each activation.
    """
    draw = np.random.default_rng(0)
    x = draw.normal(size=(1, pixels, 1, channels))
    gamma, beta = np.ones(channels), np.zeros(channels)
    spread = []
    for _ in range(layers):
        w = draw.normal(size=(channels, channels)) * scale / np.sqrt(channels)
        x = kernels.pointwise_forward(x, w)
        if norm:
            running = np.zeros(channels), np.ones(channels)
            x = kernels.batchnorm_forward(x, gamma, beta, *running, training=True, activation="relu6")[0]
        else:
            x = kernels.activation_forward(x, "relu6")
        spread.append(x.std())
    return spread


def depth(results):
    """Spread of the activations against depth: {(scale, with batch norm): values}."""
    drawn, panels = figure(8.8, 3.2, columns=2, sharey=True)
    looks = dict(zip(sorted({scale for scale, _ in results}), SERIES))
    for (scale, norm), values in results.items():
        colour, line, marker = looks[scale]
        shown = [max(value, 1e-9) for value in values]
        panels[norm].plot(
            range(1, len(values) + 1),
            shown,
            color=colour,
            linestyle=line,
            marker=marker,
            label=f"scale {scale:g}",
        )
    for axes, title in zip(panels, ("without batch norm", "with batch norm")):
        axes.set_yscale("log")
        axes.set_xlabel("layer")
        axes.set_title(title)
    panels[0].set_ylabel("standard deviation\nof the activations")
    panels[1].legend(loc="lower right", frameon=False)
    return drawn


# ---------------------------------------------------------------------------------------------- backward


def removed(dy, x):
    """What batch norm's backward takes away from dy: its mean and its part along x̂; and what is left.

    dy, x (M,) of one channel. Returns dict of four vectors (M,); "left" is dx·std/γ.
    """
    normal = (x - x.mean()) / x.std()
    mean, along = np.full_like(dy, dy.mean()), normal * (dy * normal).mean()
    return {"upstream": dy, "its mean": mean, "its part along x̂": along, "left for dx": dy - mean - along}


def parts_of_gradient(parts):
    """The four vectors of ``removed`` as bars, one panel each."""
    drawn, panels = figure(9, 2.4, columns=4, sharey=True)
    for axes, sign, (title, values) in zip(panels, ("", "− ", "− ", "= "), parts.items()):
        axes.bar(range(len(values)), values, color=DARK if title in ("upstream", "left for dx") else LIGHT)
        axes.axhline(0, color="black", linewidth=0.8, linestyle="-")
        axes.set_title(sign + title)
        axes.set_xlabel("number of the batch")
    panels[0].set_ylabel("gradient (no unit)")
    return drawn


# ---------------------------------------------------------------------------------------------- variance


def textbook_variance(x):
    """E[x²] − E[x]² in the precision of x."""
    return np.mean(x * x, dtype=x.dtype) - np.mean(x, dtype=x.dtype) ** 2


def page_variance(x):
    """The variance as batch norm's page finds it: sums around a near centre, merged in float64."""
    moments = moments_of(x.reshape(-1, 1))
    count, mean, m2 = moments[:, :, 0].T
    middle = (count * mean).sum() / count.sum()
    return (m2.sum() + (count * (mean - middle) ** 2).sum()) / count.sum()


def variance_errors(ratios, size=100_000):
    """Relative error of the variance in float32 against mean/std: (textbook's, the page's), for each ratio."""
    draw = np.random.default_rng(0)
    noise = draw.normal(size=size)
    found = []
    for ratio in ratios:
        x = (noise + ratio).astype(np.float32)
        true = np.var(x.astype(np.float64))
        found.append([abs(float(f(x)) - true) / true for f in (textbook_variance, page_variance)])
    return np.array(found)


def variance(ratios, errors):
    """The errors of ``variance_errors`` as curves."""
    drawn, axes = figure(7.4, 3.3)
    for values, label, (colour, line, marker) in zip(
        errors.T, ("E[x²] − E[x]²", "numnet: around a near centre"), ((MIDDLE, "--", "s"), (DARK, "-", "o"))
    ):
        axes.loglog(
            ratios, np.maximum(values, 1e-12), color=colour, linestyle=line, marker=marker, label=label
        )
    axes.axhline(1, color="black", linewidth=0.8, linestyle=":")
    axes.text(ratios[0], 1.3, "as large as the variance itself", fontsize=9, va="bottom")
    axes.set_ylim(None, 10 * max(errors.max(), 1))
    axes.set_xlabel("mean / standard deviation of the numbers")
    axes.set_ylabel("relative error\nof the variance")
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return drawn


# ---------------------------------------------------------------------------------------------- activations


def curves(groups, reach=8.0):
    """Activations above, their derivatives below; a column a group of (label, name, β)."""
    v = np.linspace(-reach, reach, 801)
    drawn, panels = figure(9, 5.2, rows=2, columns=len(groups), sharex=True)
    panels = np.asarray(panels).reshape(2, -1)
    for column, group in zip(panels.T, groups):
        for (label, name, beta), (colour, line, _) in zip(group, SERIES):
            look = dict(color=colour, linestyle=line, marker="", linewidth=1.8)
            column[0].plot(v, kernels.activation_forward(v, name, beta), label=label, **look)
            column[1].plot(
                v, kernels.activation_backward(np.ones_like(v), v, name, beta), label=label, **look
            )
        column[0].legend(loc="upper left", frameon=False)
        column[1].set_xlabel("v")
    panels[0, 0].set_ylabel("activation a(v)")
    panels[1, 0].set_ylabel("derivative a′(v)")
    return drawn


def prices(names, size, seconds=0.3):
    """Nanoseconds a number for each activation, forward and backward, float32."""
    draw = np.random.default_rng(0)
    v = (3 * draw.standard_normal(size)).astype(np.float32)
    dy, out = draw.standard_normal(size, np.float32), np.empty(size, np.float32)
    found = {}
    for name in names:
        forward = best(partial(kernels.activation_forward, v, name, out=out), seconds)
        backward = best(partial(kernels.activation_backward, dy, v, name, out=out), seconds)
        found[name] = (1e9 * forward / size, 1e9 * backward / size)
    return found


@kernel(parallel=False)
def swish_one_by_one(v, out):
    """Swish with the platform's exponential: a call of its library for each number."""
    for i in range(v.size):
        out[i] = v[i] / (v.dtype.type(1) + exp(-v[i]))


def price_one_by_one(size, seconds=0.3):
    """Nanoseconds a number for ``swish_one_by_one``, float32."""
    v = (3 * np.random.default_rng(0).standard_normal(size)).astype(np.float32)
    out = np.empty_like(v)
    swish_one_by_one(v, out)
    assert close(out, kernels.activation_forward(v, "swish"), 1e-5)
    return 1e9 * best(partial(swish_one_by_one, v, out), seconds) / size


def price_list(found):
    """The prices as bars."""
    drawn, panels = figure(8.8, 0.34 * len(found) + 1.0, columns=2, sharey=True)
    for index, (axes, title) in enumerate(zip(panels, ("forward", "backward"))):
        bars(
            axes,
            list(found),
            [pair[index] for pair in found.values()],
            "time (ns a number)",
            "{:.2f}",
            LIGHT if index else DARK,
        )
        axes.set_title(title)
    return drawn


# ---------------------------------------------------------------------------------------------- few bits


def fixed_point(a, top, bits=8):
    """a rounded to the nearest of 2^bits evenly spaced values from 0 to ``top``; what is above is cut off."""
    step = a.dtype.type(top / (2**bits - 1))
    return np.clip(np.rint(a / step), 0, 2**bits - 1).astype(a.dtype) * step


def leaves(layers):
    """The layers of a net without branches, blocks opened."""
    for layer in layers:
        yield from leaves(layer.children) if layer.children else (layer,)


def activations(net, x, change=lambda a: a):
    """Run a net without branches on x; (name, activation) of every unit, and the logits under "logits".

    change: a function that is applied to each finished activation before the next layer reads it.
    """
    found, names = [], {id(layer): name for name, layer in net.walk()}
    for layer in leaves(net.layers):
        x = hand(layer, x, False)
        if isinstance(x, Pending):
            x = change(np.array(finish(x, Memory(), "finished")))
            found.append((names.get(id(layer), layer.name), x))
    return found, np.array(x)


def accuracy(net, split, scaling, change=lambda a: a):
    """Part of a split's images that the net gets right with its activations changed."""
    right = 0
    for x, labels in batches(split, batch_size=250, scaling=scaling, shuffle=False):
        right += int((activations(net, x, change)[1].argmax(axis=1) == labels).sum())
    return right / len(split)


def range_and_error(a, tops, bits=8):
    """Root-mean-square error of fixed point for each top of the range, and that of float16; in units of a's own RMS."""
    size = np.sqrt(np.mean(np.square(a, dtype=np.float64)))
    fixed = [
        np.sqrt(np.mean(np.square(fixed_point(a, top, bits) - a, dtype=np.float64))) / size for top in tops
    ]
    half = np.sqrt(np.mean(np.square(a.astype(np.float16).astype(a.dtype) - a, dtype=np.float64))) / size
    return np.array(fixed), half


def ranges(tops, nets, bits=8):
    """Error against range for nets: {label: (errors, float16's, largest activation)}; and histograms next to them."""
    drawn, axes = figure(8, 3.8)
    for (label, (errors, half, largest)), (colour, line, marker) in zip(nets.items(), SERIES):
        axes.loglog(
            tops,
            100 * errors,
            color=colour,
            linestyle=line,
            marker=marker,
            label=f"{label}: {bits}-bit fixed point",
        )
        axes.axhline(100 * half, color=colour, linestyle=line, linewidth=1, alpha=0.8)
        axes.axvline(largest, color=colour, linestyle=":", linewidth=1)
    axes.set_xlabel("largest value of the fixed-point range (dotted: largest activation)")
    axes.set_ylabel("error (% of the activations' RMS)")
    axes.set_xticks(tops, [f"{top:.2g}" for top in tops])
    axes.set_xticks([], minor=True)
    axes.set_title("thin horizontal lines: float16")
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return drawn


def histograms(samples, top=None):
    """How the activations of some nets are distributed: {label: numbers}, logarithmic counts."""
    drawn, axes = figure(8, 3.0)
    top = top or 1.02 * max(a.max() for a in samples.values())
    for (label, a), (colour, line, _) in zip(samples.items(), SERIES):
        heights, edges = np.histogram(a, 80, (0, top))
        axes.stairs(100 * heights / a.size, edges, color=colour, linestyle=line, linewidth=1.6, label=label)
    axes.set_yscale("log")
    axes.axvline(6, color=GREY, linestyle=":")
    axes.set_xlabel("activation (dotted line: 6)")
    axes.set_ylabel("part of all numbers (%)")
    axes.legend(loc="upper right", frameon=False)
    return drawn


# ---------------------------------------------------------------------------------------------- exercises


def exercise_1(answer):
    """The normalised numbers of the batch 2, 4, 4, 6, with ε = 0."""
    hint = "mean first; then the mean of the squared distances (divided by 4, not by 3), its root, and divide"
    return check(
        answer, lambda a: close(np.asarray(a, float), np.array([-1, 0, 0, 1]) * np.sqrt(2), 2e-3), hint
    )


def exercise_2(answer):
    """A function dx(dy, x, gamma, eps) for one channel, (M,) → (M,)."""

    def right(function):
        draw = np.random.default_rng(2)
        for size, eps in ((5, 1e-3), (64, 0.1)):
            dy, x = draw.normal(size=size), 3 + 2 * draw.normal(size=size)
            pack = np.array([x.mean(), 1 / np.sqrt(x.var() + eps), 1.7, 0.3])[:, None]
            want = kernels.batchnorm_backward(dy[:, None], x[:, None], pack)[0][:, 0]
            if not close(function(dy, x, 1.7, eps), want, 1e-9):
                return False
        return True

    hint = "three terms: du, minus its mean, minus x̂ times the mean of du·x̂; times γ / √(variance + ε)"
    return check(answer, right, hint)


def exercise_3(answer):
    """A function fold(w, gamma, beta, mean, variance, eps) → (w', bias) for w (C, F)."""
    draw = np.random.default_rng(3)
    w, gamma, beta, mean = draw.normal(size=(3, 4)), *draw.normal(size=(3, 4))
    some, eps, x = draw.uniform(0.1, 2, size=4), 0.05, draw.normal(size=(6, 3))

    def right(function):
        folded, bias = function(w.copy(), gamma, beta, mean, some, eps)
        want = gamma * (x @ w - mean) / np.sqrt(some + eps) + beta
        return close(x @ folded + bias, want, 1e-9)

    hint = (
        "with scale = γ / √(variance + ε): each filter (a column of w) times its scale, and β − mean · scale"
    )
    return check(answer, right, hint)


def exercise_4(answer):
    """The step between two neighbouring 8-bit codes for a range of 0 … 6."""
    hint = "eight bits are 256 values, and 0 and 6 are two of them; count the gaps between them"
    return check(answer, lambda a: close(a, 6 / 255, 1e-4), hint)


def exercise_5(answer):
    """A function (da, v) → dv of h-swish, for arrays of one shape."""
    draw = np.random.default_rng(5)
    v = np.concatenate([draw.uniform(-6, 6, size=40), [-4.0, 4.0, 0.0]])
    da = draw.normal(size=v.shape)
    hint = (
        "three pieces: 0 below −3, 1 above 3, between them the derivative of v·(v + 3)/6; and da times that"
    )
    want = kernels.activation_backward(da, v, "hswish")
    return check(answer, lambda function: agrees(function, [((da, v), want)]), hint)


def exercise_6(answer):
    """A function (du, normal) → dgamma, dbeta for arrays (M, C) of du and x̂."""
    draw = np.random.default_rng(6)
    du, normal = draw.normal(size=(8, 3)), draw.normal(size=(8, 3))
    hint = "equation (5), for each channel: sums over the M numbers, not over the channels"
    want = (du * normal).sum(0), du.sum(0)
    return check(answer, lambda function: agrees(function, [((du, normal), want)]), hint)


def exercise_7(answer):
    """A function (n, mean, M2, n', mean', M2') → count, mean and sum of squares of both groups together."""
    draw = np.random.default_rng(7)

    def cases():
        for sizes in ((3, 5), (1, 7)):
            a, b = (1e3 + draw.normal(size=size) for size in sizes)
            parts = [f for g in (a, b) for f in (len(g), g.mean(), ((g - g.mean()) ** 2).sum())]
            both = np.concatenate([a, b])
            yield tuple(parts), (len(both), both.mean(), ((both - both.mean()) ** 2).sum())

    hint = "δ is the difference of the means: the sum of squares grows by δ²·n·n'/(n + n'), the mean by δ·n'/(n + n')"
    return check(answer, lambda function: agrees(function, cases(), 1e-8), hint)


def exercise_8(answer):
    """A running mean after three steps from 0, with momentum 0.9 and batches of mean 5."""
    hint = "equation (4), three times: first 0.9·0 + 0.1·5; or: what is missing shrinks by 0.9 in each step"
    return check(answer, lambda a: close(a, 5 * (1 - 0.9**3), 1e-6), hint)
