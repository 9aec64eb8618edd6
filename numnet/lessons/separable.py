"""Figures, measurements and exercises of notebook 02, standard against separable convolution."""

from typing import NamedTuple

import numpy as np

from numnet import kernels
from numnet.kernels.conv import conv_cost
from numnet.kernels.depthwise import depthwise_cost
from numnet.kernels.pointwise import pointwise_cost
from numnet.lessons import DARK, GREY, HEAT, LIGHT, MIDDLE, bare, best, figure
from numnet.lessons.check import agrees, check, close
from numnet.lessons.pictures import bars

FLOAT = 4  # bytes of a float32


def saving(filters, side=3) -> float:
    """MACs of a standard convolution over those of the separable one: 1 / (1/F + 1/K²)."""
    return 1 / (1 / filters + 1 / side**2)


def composed(d, w):
    """The standard kernel (K, K, C, F) that does what depthwise (K, K, C, 1) and then pointwise (C, F) do."""
    return d[:, :, :, 0, None] * w[None, None]


def split(kernel):
    """The depthwise and pointwise pair whose composition is nearest to a standard kernel (K, K, C, F).

    Channel by channel the slice (K·K, F) is replaced by its best approximation of rank one, which its singular
    value decomposition gives (Eckart and Young 1936).
    """
    k, _, channels, filters = kernel.shape
    d, w = np.empty((k, k, channels, 1), kernel.dtype), np.empty((channels, filters), kernel.dtype)
    for c in range(channels):
        u, s, v = np.linalg.svd(kernel[:, :, c].reshape(k * k, filters), full_matrices=False)
        d[:, :, c, 0] = (u[:, 0] * s[0]).reshape(k, k)
        w[c] = v[0]
    return d, w


# ---------------------------------------------------------------------------------------------- measurements


class Measured(NamedTuple):
    """One operation on one shape: MACs, bytes of its arrays (float32, each once), seconds of the shortest run."""

    name: str
    macs: int
    bytes: int
    seconds: float

    @property
    def intensity(self) -> float:
        """FLOP a byte: two for each MAC."""
        return 2 * self.macs / self.bytes

    @property
    def flops(self) -> float:
        """FLOP a second."""
        return 2 * self.macs / self.seconds


def measure(images, side, channels, filters, k=3, seconds=0.3) -> dict:
    """Time of standard, depthwise and pointwise convolution of one shape, stride 1, "same"; {name: Measured}."""
    draw = np.random.default_rng(0)

    def normal(*shape):
        return draw.standard_normal(shape, np.float32)

    x = normal(images, side, side, channels)
    wide, deep, point = normal(k, k, channels, filters), normal(k, k, channels, 1), normal(channels, filters)
    y, between = np.empty((images, side, side, filters), np.float32), np.empty_like(x)
    shape, of = (images, side, side), dict(h=side, w=side)
    work = {
        "standard": (
            conv_cost(*shape, k, channels, filters, **of),
            lambda: kernels.conv_forward(x, wide, 1, "same", out=y),
        ),
        "depthwise": (
            depthwise_cost(*shape, k, channels, **of),
            lambda: kernels.depthwise_forward(x, deep, 1, "same", out=between),
        ),
        "pointwise": (
            pointwise_cost(*shape, channels, filters),
            lambda: kernels.pointwise_forward(x, point, out=y),
        ),
    }
    found = {}
    for name, (cost, run) in work.items():
        size = FLOAT * (cost.inputs + cost.outputs + cost.params)
        found[name] = Measured(name, cost.macs, size, best(run, seconds))
    return found


def shares(cost):
    """Where a net's MACs, parameters and bytes go: {type: (macs, params, bytes)} of the operations that multiply.

    cost: ``numnet.describe(…).cost()``; bytes of one image's maps and the weights, read or written once each.
    """
    found = {}
    for row in cost.rows:
        if row.cost.macs:
            size = FLOAT * (row.cost.inputs + row.cost.outputs + row.cost.params)
            before = found.get(row.type, (0, 0, 0))
            found[row.type] = tuple(a + b for a, b in zip(before, (row.cost.macs, row.cost.params, size)))
    return found


# ---------------------------------------------------------------------------------------------- figures


def what_one_number_sees(side=5, k=3, channels=4):
    """Which input numbers one output number is made of, for the three kinds of convolution: one line for each."""
    from matplotlib.patches import Rectangle

    lo = (side - k) // 2
    window = {(i, j) for i in range(lo, lo + k) for j in range(lo, lo + k)}
    middle = {(side // 2, side // 2)}
    kinds = [
        ("standard", lambda c: window, "the window in all channels:\nK·K·C products"),
        ("depthwise", lambda c: window if c == 0 else set(), "the window in one channel:\nK·K products"),
        ("pointwise", lambda c: middle, "one pixel in all channels:\nC products"),
    ]
    drawn, axes = figure(8.2, 4.1)
    bare(axes)
    for line, (name, seen, label) in enumerate(kinds):
        top = line * (side + 1)
        for c in range(channels):
            for i in range(side):
                for j in range(side):
                    colour = DARK if (i, j) in seen(c) else "white"
                    place = (c * (side + 1) + j, top + i)
                    axes.add_patch(Rectangle(place, 1, 1, facecolor=colour, edgecolor="black", linewidth=0.6))
        axes.text(-1, top + side / 2, name, ha="right", va="center", fontsize=11)
        axes.text(channels * (side + 1), top + side / 2, label, ha="left", va="center", fontsize=9.5)
    for c in range(channels):
        axes.text(c * (side + 1) + side / 2, -0.4, f"channel {c}", ha="center", va="bottom", fontsize=9)
    axes.set_xlim(-6.5, channels * (side + 1) + 10.5)
    axes.set_ylim(3 * (side + 1) - 0.7, -0.2)
    axes.set_aspect("equal")
    return drawn


def two_ways(n_standard, n_depthwise, n_pointwise):
    """Bars of the worked example: MACs of the standard convolution, and of the two steps of the separable one."""
    drawn, axes = figure(7.6, 1.9)
    axes.barh(0, n_standard, 0.6, color=DARK)
    axes.barh(1, n_depthwise, 0.6, color=MIDDLE, hatch="...", edgecolor="white", label="depthwise")
    axes.barh(
        1, n_pointwise, 0.6, left=n_depthwise, color=LIGHT, hatch="///", edgecolor="white", label="pointwise"
    )
    axes.text(n_standard * 1.01, 0, f"{n_standard:,}", va="center")
    total = n_depthwise + n_pointwise
    axes.text(total + n_standard * 0.01, 1, f"{n_depthwise:,} + {n_pointwise:,} = {total:,}", va="center")
    axes.set_yticks([0, 1], ["standard", "separable"])
    axes.set_ylim(1.6, -0.6)
    axes.set_xlim(0, 1.15 * n_standard)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("multiply-accumulates (MACs)")
    axes.legend(loc="lower right", frameon=False)
    return drawn


def at_size(k, channels, filters, side):
    """``two_ways`` for K, C, F and the side of the map, stride 1; the saving and its limit stand above."""
    shape = (1, side, side)
    standard = conv_cost(*shape, k, channels, filters, h=side, w=side).macs
    depthwise = depthwise_cost(*shape, k, channels, h=side, w=side).macs
    drawn = two_ways(standard, depthwise, pointwise_cost(*shape, channels, filters).macs)
    ratio = standard / (depthwise + pointwise_cost(*shape, channels, filters).macs)
    said = (
        f"{ratio:.2f} times fewer MACs (limit: K² = {k * k})"
        if ratio >= 1
        else f"{1 / ratio:.2f} times more MACs"
    )
    drawn.axes[0].set_title(f"K = {k}, C = {channels}, F = {filters}, {side}×{side}: {said}")
    drawn.axes[0].set_xlim(0, 1.6 * max(bar.get_x() + bar.get_width() for bar in drawn.axes[0].patches))
    return drawn


def surface():
    """1/F + 1/K² over filters and kernel sides, as a map with the saving's contours and as curves."""
    filters, sides = np.logspace(0, 10, 200, base=2), np.linspace(1, 7, 200)
    cost = 1 / filters[None, :] + 1 / sides[:, None] ** 2
    drawn, (left, right) = figure(9, 3.6, columns=2, width_ratios=[1.15, 1])
    shown = left.pcolormesh(
        filters,
        sides,
        np.minimum(cost, 1),
        cmap=f"{HEAT}_r",
        vmin=-0.4,
        vmax=1,
        shading="auto",
        rasterized=True,
    )
    lines = left.contour(
        filters, sides, 1 / cost, levels=[1, 2, 4, 8, 16, 32], colors="black", linewidths=0.8
    )
    left.clabel(lines, fmt=lambda level: f"{level:g}×", fontsize=9)
    drawn.colorbar(
        shown,
        ax=left,
        label="separable MACs / standard MACs",
        boundaries=np.linspace(0, 1, 51),
        ticks=[0, 0.25, 0.5, 0.75, 1],
    )
    left.set_xscale("log", base=2)
    left.grid(False)
    left.set_xlabel("filters F (the paper's N)")
    left.set_ylabel("kernel side K (the paper's D_K)")
    left.set_title("contours: how many times fewer MACs")
    count = 2 ** np.arange(11)
    for (colour, line, marker), k in zip(
        ((LIGHT, ":", "^"), (DARK, "-", "o"), (MIDDLE, "--", "s")), (2, 3, 5)
    ):
        right.plot(count, saving(count, k), color=colour, linestyle=line, marker=marker, label=f"K = {k}")
        right.axhline(k * k, color=colour, linewidth=0.7, linestyle=line)
    right.set_xscale("log", base=2)
    right.set_xlabel("filters F")
    right.set_ylabel("saving (times fewer MACs)")
    right.set_title("thin lines: the limit K²")
    right.legend(loc="upper left", frameon=False)
    return drawn


def macs_and_time(labels, by_macs, by_time):
    """For each shape two bars: how many times less work the separable block is by MACs, and by the clock."""
    drawn, axes = figure(8, 0.62 * len(labels) + 1.4)
    places = np.arange(len(labels))
    axes.barh(places - 0.19, by_macs, 0.36, color=LIGHT, hatch="///", edgecolor="white", label="fewer MACs")
    axes.barh(places + 0.19, by_time, 0.36, color=DARK, label="less time")
    most = max(*by_macs, *by_time)
    for shift, values in ((-0.19, by_macs), (0.19, by_time)):
        for place, value in zip(places, values):
            axes.text(value + 0.01 * most, place + shift, f"{value:.2f}×", va="center", fontsize=9)
    axes.set_yticks(places, labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(0, 1.15 * most)
    axes.grid(False, axis="y")
    axes.set_xlabel("standard / separable (times)")
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False)
    return drawn


def roofline(peak, bandwidth, points):
    """The two roofs of a machine (FLOP/s, bytes/s) and what each operation reaches under them."""
    drawn, axes = figure(8, 4)
    ridge = peak / bandwidth
    intensity = np.array([min(0.25, ridge / 4), ridge, max(2000, 4 * ridge)])
    axes.loglog(
        intensity,
        np.minimum(bandwidth * intensity, peak) / 1e9,
        color="black",
        marker="",
        linestyle="-",
        label="roofs",
    )
    axes.axvline(ridge, color=GREY, linestyle=":")
    axes.text(ridge * 1.06, peak / 1e9 / 800, f"ridge: {ridge:.1f} FLOP/byte", fontsize=9, va="bottom")
    for point, colour, marker in zip(points, (DARK, MIDDLE, LIGHT), "ovs"):
        axes.plot(
            point.intensity,
            point.flops / 1e9,
            color=colour,
            marker=marker,
            markersize=9,
            linestyle="",
            markeredgecolor="black",
            label=point.name,
        )
    axes.set_xlabel("arithmetic intensity (FLOP / byte)")
    axes.set_ylabel("speed (GFLOP/s)")
    axes.set_ylim(peak / 1e9 / 1000, 2.5 * peak / 1e9)
    axes.text(
        intensity[-1], 1.12 * peak / 1e9, f"arithmetic: {peak / 1e9:,.0f} GFLOP/s", ha="right", fontsize=9
    )
    axes.set_title(f"the sloping roof: {bandwidth / 1e9:,.0f} GB/s from memory")
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return drawn


def where_it_goes(found):
    """Shares of MACs, parameters, bytes and roofline time by type of operation, as stacked bars.

    found: {column: {type: amount}}.
    """
    drawn, axes = figure(8.2, 2.9)
    kinds = list(next(iter(found.values())))
    looks = [(DARK, ""), (LIGHT, "///"), (MIDDLE, "..."), ("white", "xxx")]
    for row, amounts in enumerate(found.values()):
        left, total = 0.0, sum(amounts.values())
        for (colour, hatch), kind in zip(looks, kinds):
            share = 100 * amounts[kind] / total
            edge = "black" if colour == "white" else "white"
            axes.barh(
                row,
                share,
                0.62,
                left=left,
                color=colour,
                hatch=hatch,
                edgecolor=edge,
                label=kind if row == 0 else None,
            )
            if share > 7:
                box = dict(facecolor="white", edgecolor="none", pad=1.2)
                axes.text(
                    left + share / 2, row, f"{share:.0f} %", ha="center", va="center", fontsize=9, bbox=box
                )
            left += share
    axes.set_yticks(range(len(found)), list(found))
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share (%)")
    axes.grid(False)
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return drawn


def lost(errors, labels):
    """How far the nearest separable kernel is from a standard one."""
    drawn, axes = figure(7.2, 0.42 * len(labels) + 0.9)
    bars(axes, labels, errors, "part of the kernel's norm that is lost (%)", "{:.1f}")
    return drawn


# ---------------------------------------------------------------------------------------------- exercises


def exercise_1(answer):
    """How many times fewer MACs for 512 channels in and 512 filters, 3×3."""
    hint = "the separable block pays twice: K·K for each channel, and F for each channel. Add, then divide"
    return check(answer, lambda a: close(a, saving(512), 2e-3), hint)


def exercise_2(answer):
    """The least number of filters for which a separable block with a 3×3 kernel saves a factor of 4."""
    hint = "solve 1/F + 1/9 ≤ 1/4 for F, and round in the direction that keeps the saving"
    return check(answer, lambda a: a == 8, hint)


def exercise_3(answer):
    """A function of a standard kernel (K, K, C, F) that gives the nearest pair (K, K, C, 1), (C, F)."""
    kernel = np.random.default_rng(3).normal(size=(3, 3, 5, 7))
    least = np.linalg.norm(kernel - composed(*split(kernel)))

    def right(function):
        d, w = function(kernel)
        if d.shape != (3, 3, 5, 1) or w.shape != (5, 7):
            raise ValueError(f"shapes {d.shape} and {w.shape}, expected (3, 3, 5, 1) and (5, 7)")
        return np.linalg.norm(kernel - composed(d, w)) <= least * (1 + 1e-9)

    hint = "for each channel, the first singular vectors of kernel[:, :, c].reshape(K·K, F) and the first singular value"
    return check(answer, right, hint)


def exercise_4(answer):
    """FLOP a byte of a 5×5 depthwise convolution in float32, stride 1, its few weights left out."""
    hint = (
        "for each output number K·K MACs, two FLOP each; and one number read, one written, of four bytes each"
    )
    return check(answer, lambda a: close(a, 2 * 25 / 8), hint)


def exercise_5(answer):
    """What the saving comes to for 64 filters when the kernel grows without end."""
    hint = "which of the two terms of equation (1) vanishes when K grows, and what is 1 divided by the other?"
    return check(answer, lambda a: close(a, 64), hint)


def exercise_6(answer):
    """A function (dy, x, w) → dx, dw of a depthwise convolution: (P, Q, C), (H, W, C), (K, K, C); stride 1, no padding."""
    draw = np.random.default_rng(6)

    def cases():
        for side, k, channels in ((6, 3, 2), (5, 2, 3)):
            x, w = draw.normal(size=(1, side, side, channels)), draw.normal(size=(k, k, channels, 1))
            dy = draw.normal(size=(1, side - k + 1, side - k + 1, channels))
            dx, dw = kernels.depthwise.definition_backward(dy, x, w, 1, 0)
            yield (dy[0], x[0], w[..., 0]), (dx[0], dw[..., 0])

    hint = "as for one channel in notebook 1; a slice [p + u, q + v] holds all channels, and no channel meets another"
    return check(answer, lambda function: agrees(function, cases()), hint)


def exercise_7(answer):
    """A function (dy, x, w) → dx, dw of a pointwise convolution: (M, F), (M, C), (C, F)."""
    draw = np.random.default_rng(7)
    dy, x, w = draw.normal(size=(5, 4)), draw.normal(size=(5, 3)), draw.normal(size=(3, 4))
    cases = [((dy, x, w), (dy @ w.T, x.T @ dy))]
    hint = (
        "y = x @ w; dx has the shape of x, dw that of w, and only one product of two of the three fits each"
    )
    return check(answer, lambda function: agrees(function, cases), hint)


def exercise_8(answer):
    """A function (intensity, peak, bandwidth): the most FLOP/s that the roofline allows."""
    cases = [((i, 40e9, 10e9), min(40e9, i * 10e9)) for i in (0.25, 2.25, 4.0, 60.0)]
    hint = "two roofs: the peak, and bandwidth times intensity. The lower one counts"
    return check(answer, lambda function: agrees(function, cases), hint)
