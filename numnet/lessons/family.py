"""Figures, measurements and exercises of notebook 05, the family from V1 to MnasNet."""

import numpy as np

from numnet.blocks import Conv, Depthwise, InvertedResidual, Pointwise, SqueezeExcite
from numnet.blocks.unit import Unit
from numnet.cost import blocks as costs_of
from numnet.cost import report
from numnet.kernels.loss import softmax_cross_entropy
from numnet.layers import Dense, GlobalAverage
from numnet.lessons import DARK, GREY, LIGHT, MIDDLE, bare, figure
from numnet.lessons.check import agrees, check
from numnet.lessons.display import Table
from numnet.models import describe
from numnet.net import Net

NAMES = {
    "mobilenet_v1": "V1",
    "mobilenet_v2": "V2",
    "mobilenet_v3_large": "V3-Large",
    "mobilenet_v3_small": "V3-Small",
    "mobilenet_v4_small": "V4-Small",
    "mobilenet_v4_medium": "V4-Medium",
    "mnasnet_a1": "MnasNet-A1",
    "mnasnet_b1": "MnasNet-B1",
}


def millions(count, digits=1) -> str:
    """568740352 → "568.7"."""
    return f"{count / 1e6:,.{digits}f}"


# ---------------------------------------------------------------------------------- the spiral of V2's figure 1


def spiral(points=400, turns=2.0):
    """Points (N, 2) along a spiral, from near the origin outwards to radius 1."""
    part = np.linspace(0, 1, points)
    angle = 2 * np.pi * turns * part
    return (0.1 + 0.9 * part)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def there(points, dimensions, seed=0):
    """The points (N, 2) mapped to ``dimensions`` channels by a random matrix, before any ReLU."""
    return points @ np.random.default_rng(seed).normal(size=(points.shape[1], dimensions))


def back(wide, points):
    """The best approximation of the points (N, 2) by a linear map of ``wide`` (N, d) and a constant."""
    columns = np.concatenate([wide, np.ones((len(wide), 1))], axis=1)
    best = np.linalg.lstsq(columns, points, rcond=None)[0]
    return columns @ best


def lost(points, seen) -> float:
    """The part of the points' variance that ``seen`` has lost: 0 if nothing is lost, 1 if only the mean is left."""
    return float(((points - seen) ** 2).sum() / ((points - points.mean(axis=0)) ** 2).sum())


def folding(points, dimensions, seed=0):
    """The spiral, and what the best linear reader recovers of it after ReLU, for several numbers of dimensions."""
    drawn, axes = figure(9, 2.2, columns=1 + len(dimensions), sharex=True, sharey=True)
    views = [("the spiral\n", points)]
    for d in dimensions:
        seen = back(np.maximum(there(points, d, seed), 0), points)
        part = 100 * lost(points, seen)
        views.append((f"d = {d}\n{part:.2g} % lost" if part >= 0.01 else f"d = {d}\n< 0.01 % lost", seen))
    for place, (title, seen) in zip(axes, views):
        bare(place).scatter(*seen.T, c=np.arange(len(seen)), cmap="viridis", s=5, marker="o")
        place.set_aspect("equal")
        place.set_title(title, loc="center", fontsize=9)
    return drawn


def folding_curve(points, dimensions, seeds):
    """How much is lost against the dimension: the median over random matrices, and the range without the outer tenths."""
    losses = np.array(
        [
            [lost(points, back(np.maximum(there(points, d, s), 0), points)) for s in range(seeds)]
            for d in dimensions
        ]
    )
    drawn, axes = figure(7, 3.0)
    low, middle, high = np.quantile(losses, [0.1, 0.5, 0.9], axis=1)
    axes.fill_between(
        dimensions, 100 * low, 100 * high, color=LIGHT, alpha=0.5, label=f"8 of 10 of {seeds} matrices"
    )
    axes.plot(dimensions, 100 * middle, color=DARK, marker="o", linestyle="-", label="the median")
    axes.set_yscale("log")
    axes.set_xticks(dimensions, dimensions)
    axes.set_xlabel("dimensions d in which ReLU acts")
    axes.set_ylabel("lost of the spiral (%)")
    axes.legend(loc="upper right", frameon=False)
    return drawn


# ---------------------------------------------------------------------------------------------- blocks as pictures


def widths(blocks):
    """How wide the map is along a block: one bar for each map, as high as it has channels, and the operations between them.

    blocks: title → (layers in a row, channels of the input). The maps are taken to be 14×14, which the picture
    does not show.
    """
    drawn, panels = figure(
        9, 2.9, columns=len(blocks), width_ratios=[_places(*block) for block in blocks.values()]
    )
    for axes, (title, (layers, channels)) in zip(panels, blocks.items()):
        bare(axes)
        net = Net(layers, (14, 14, channels), allocate=False)
        units = [layer for _, layer in net.walk() if isinstance(layer, Unit)]
        maps = [channels, *(unit.output_shape[2] for unit in units)]
        top = max(maps)
        for i, c in enumerate(maps):
            axes.bar(i, c, 0.34, bottom=(top - c) / 2, color=LIGHT, edgecolor="black", linewidth=0.8)
            axes.text(i, (top + c) / 2 + 0.03 * top, str(c), ha="center", va="bottom", fontsize=9)
        for i, unit in enumerate(units):
            axes.annotate(
                "", (i + 0.8, top / 2), (i + 0.2, top / 2), arrowprops={"arrowstyle": "-|>", "color": "black"}
            )
            name = {"pointwise": "1×1", "depthwise": "dw 3×3", "conv": "3×3"}[unit.kind]
            after = "linear" if unit.activation == "identity" else unit.activation.replace("relu", "ReLU")
            axes.text(i + 0.5, -0.05 * top, f"{name}\n{after}", ha="center", va="top", fontsize=8)
        adds = any(getattr(layer, "adds", False) for layer in net.layers)
        if adds or title.startswith("ResNet"):
            y = 1.3 * top
            axes.plot(
                [0, 0, len(maps) - 1, len(maps) - 1],
                [1.17 * top, y, y, 1.17 * top],
                color=MIDDLE,
                linestyle="-",
                marker="",
                lw=1.6,
            )
            axes.text(
                (len(maps) - 1) / 2, 1.32 * top, "added", ha="center", va="bottom", fontsize=8, color=MIDDLE
            )
        axes.set_xlim(-0.35, len(maps) - 0.65)
        axes.set_ylim(-0.35 * top, 1.5 * top)
        axes.set_title(title, loc="center", fontsize=9.5)
    return drawn


def _places(layers, channels):
    return 1 + sum(max(len(layer.children), 1) for layer in layers)


KINDS = {  # in the order of the legend: colour and hatching, so that a grey print tells them apart
    "conv": (GREY, ""),
    "pointwise": (DARK, ""),
    "depthwise": (MIDDLE, "////"),
    "squeeze-excite": ("white", "xxxx"),
    "dense": (LIGHT, "...."),
}


def by_type(net) -> Table:
    """Where a net's multiply-accumulates and parameters are, in per cent, by type of layer."""
    facts = report(net)
    rows = [
        (
            line["type"],
            line["layers"],
            f"{100 * line['macs'] / facts['macs']:.2f}",
            f"{100 * line['params'] / facts['params']:.2f}",
        )
        for line in facts["types"]
        if line["macs"] or line["params"]
    ]
    return Table(("type of layer", "layers", "% of the MACs", "% of the parameters"), rows)


def by_block(names, **options):
    """MACs of every block of some nets: one panel for each net, each bar divided by type of layer."""
    from matplotlib.patches import Patch

    rows = -(-len(names) // 2)
    drawn, panels = figure(9, 2.5 * rows + 0.3, rows=rows, columns=2, sharey=True)
    tallest = 0.0
    for axes, name in zip(np.ravel(panels), names):
        net = describe(name, **options)
        blocks = {}
        for line in report(net)["layers"]:
            if line["macs"]:
                block = blocks.setdefault(line["name"].partition(".")[0], {})
                block[line["type"]] = block.get(line["type"], 0) + line["macs"]
        bottom = np.zeros(len(blocks))
        for kind, (colour, hatch) in KINDS.items():
            part = np.array([block.get(kind, 0) / 1e6 for block in blocks.values()])
            axes.bar(
                range(len(blocks)),
                part,
                0.8,
                bottom=bottom,
                color=colour,
                hatch=hatch,
                edgecolor="black",
                linewidth=0.5,
            )
            bottom += part
        axes.grid(False, axis="x")
        axes.set_xticks(
            range(len(blocks)), [block.replace("block", "") for block in blocks], rotation=90, fontsize=7.5
        )
        axes.set_title(f"{NAMES[name]}: {millions(sum(bottom) * 1e6, 0)} M MACs")
        axes.set_ylabel("million MACs")
        tallest = max(tallest, *bottom)
    np.ravel(panels)[0].set_ylim(0, 1.06 * tallest)
    handles = [
        Patch(facecolor=c, hatch=h, edgecolor="black", linewidth=0.5, label=kind)
        for kind, (c, h) in KINDS.items()
    ]
    drawn.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return drawn


def choices(names):
    """What differs from block to block: expansion as the bar's height, 5×5 kernels hatched, squeeze-excite as a dot."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    drawn, panels = figure(9, 1.7 * len(names) + 0.5, rows=len(names), sharey=True)
    for axes, name in zip(np.ravel(panels), names):
        blocks = [layer for layer in describe(name).layers if isinstance(layer, InvertedResidual)]
        for i, block in enumerate(blocks):
            depthwise = next(layer for layer in block.children if isinstance(layer, Depthwise))
            times = depthwise.input_shape[2] / block.input_shape[2]
            axes.bar(
                i,
                times,
                0.75,
                color=LIGHT if depthwise.kernel == 3 else "white",
                hatch="" if depthwise.kernel == 3 else "////",
                edgecolor="black",
                linewidth=0.8,
            )
            if any(isinstance(layer, SqueezeExcite) for layer in block.children):
                axes.plot(i, times + 0.7, marker="o", color="black", markersize=5, linestyle="")
            if block.stride == 2:
                axes.text(
                    i,
                    0.25,
                    "/2",
                    ha="center",
                    fontsize=8,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
                )
        axes.set_xticks(range(len(blocks)), range(1, len(blocks) + 1))
        axes.grid(False, axis="x")
        axes.set_ylim(0, 8)
        axes.set_ylabel("expansion t")
        axes.set_title(NAMES[name])
    np.ravel(panels)[-1].set_xlabel("block (“/2”: halves the side of the map)")
    handles = [
        Patch(facecolor=LIGHT, edgecolor="black", label="depthwise 3×3"),
        Patch(facecolor="white", hatch="////", edgecolor="black", label="depthwise 5×5"),
        Line2D([], [], marker="o", color="black", linestyle="", markersize=5, label="squeeze-excite"),
    ]
    drawn.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return drawn


# ---------------------------------------------------------------------------------------------- betas without a gradient


def beta_gradients(net, images=8, seed=0):
    """One training step on random images: [(unit, its role, largest |dbeta|)] for every batch norm of the net."""
    numbers = np.random.default_rng(seed)
    x = numbers.normal(size=(images, *net.input_shape)).astype(net.dtype)
    logits = net.forward(x, training=True)
    _, dlogits = softmax_cross_entropy(logits, numbers.integers(net.classes, size=images))
    net.backward(dlogits, input_gradient=False)
    return [
        (
            path,
            layer.name if layer.name in ("expand", "depthwise", "project") else "others",
            float(np.abs(layer.grads["bn.beta"]).max()),
        )
        for path, layer in net.walk()
        if isinstance(layer, Unit) and layer.norm is not None
    ]


def beta_figure(sizes):
    """The largest gradient of each beta, by the role of its unit: what ``beta_gradients`` found."""
    drawn, axes = figure(8, 3.2)
    styles = {
        "expand": (LIGHT, "^"),
        "depthwise": (GREY, "s"),
        "project": (MIDDLE, "o"),
        "others": (DARK, "D"),
    }
    for role, (colour, marker) in styles.items():
        points = [(i, max(size, 1e-12)) for i, (_, of, size) in enumerate(sizes) if of == role]
        label = {"project": "project (the linear bottlenecks)", "others": "stem and last"}.get(role, role)
        axes.plot(
            *zip(*points),
            color=colour,
            marker=marker,
            linestyle="",
            markersize=6,
            markeredgecolor="black",
            label=label,
        )
    axes.set_yscale("log")
    axes.set_xlabel("batch norms in the order of computation")
    axes.set_ylabel("largest |∂loss/∂β|")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return drawn


# ---------------------------------------------------------------------------------------------- squeeze-excite by hand

MAP = np.array([[[4, 0], [2, 1]], [[1, 0], [1, 1]]], float)  # (2, 2, channels)


def squeeze_excite_net(gate="hsigmoid"):
    """A net of one squeeze-excite layer on a 2×2 map of two channels, weights set by hand: it prefers the stronger one."""
    net = Net([SqueezeExcite(1, gate, name="se")], (2, 2, 2))
    net.params["se.reduce.weight"][:] = [[1], [-1]]
    net.params["se.expand.weight"][:] = [[1, -1]]
    net.params["se.reduce.bias"][:], net.params["se.expand.bias"][:] = 0, 0
    return net


def squeeze_excite_figure(net, x):
    """The numbers of a squeeze-excite on a map (2, 2, 2): mean, gate and result, a line for each channel."""
    y = net.forward(x[None])[0]
    gates = net.layers[0].gates[0]
    drawn, axes = figure(7.5, 3.6, rows=2, columns=4, width_ratios=[2, 1, 1, 2])
    titles = ("the map", "its mean", "its gate", "map · gate")
    for c, line in enumerate(axes):
        tables = x[:, :, c], [[x[:, :, c].mean()]], [[gates[c]]], y[:, :, c]
        for place, table, title in zip(line, tables, titles):
            _numbers(place, table, "" if c else title)
        line[0].set_ylabel(f"channel {c}")
    return drawn


def _numbers(axes, table, title):
    """A table of numbers as squares, row 0 on top."""
    from matplotlib.patches import Rectangle

    bare(axes).set_aspect("equal")
    for i, row in enumerate(table):
        for j, value in enumerate(row):
            axes.add_patch(Rectangle((j, i), 1, 1, fill=False, edgecolor="black", linewidth=0.8))
            axes.text(j + 0.5, i + 0.5, f"{value:.3g}", ha="center", va="center", fontsize=11)
    axes.set_xlim(-0.05, len(table[0]) + 0.05)
    axes.set_ylim(len(table) + 0.05, -0.05)
    axes.set_title(title, loc="center")


# ---------------------------------------------------------------------------------------------- the tail


def tail(cheap, channels=160, side=7):
    """The end of V3-Large from the last block's map on, as a separate net: before and after the redesign (figure 5)."""
    frame = {"activation": "hswish", "bias": False}
    if cheap:
        layers = [
            Pointwise(960, **frame, name="expand"),
            GlobalAverage(name="pool"),
            Dense(1280, bias=False, name="wide"),
        ]
    else:
        layers = [
            Pointwise(960, **frame, name="expand"),
            Depthwise(3, **frame, name="depthwise"),
            Pointwise(320, bias=False, name="project"),
            Pointwise(1280, **frame, name="wide"),
            GlobalAverage(name="pool"),
        ]
    return Net(layers, (side, side, channels), allocate=False)


def tails():
    """MACs of the two tails, layer by layer, as bars."""
    drawn, panels = figure(9, 2.4, columns=2, sharex=True)
    for axes, cheap in zip(panels, (False, True)):
        net = tail(cheap)
        rows = [row for row in net.cost().rows if row.cost.macs or row.type == "global average"]
        labels = [f"{row.name} → {'×'.join(str(n) for n in row.output_shape)}" for row in rows]
        values = [row.cost.macs / 1e6 for row in rows]
        axes.barh(range(len(rows)), values, 0.62, color=DARK)
        for i, value in enumerate(values):
            axes.text(value + 0.4, i, f"{value:.2f}", va="center", fontsize=9)
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(4.6, -0.6)
        axes.set_xlim(0, 25)
        axes.grid(False, axis="y")
        axes.set_xlabel("million MACs")
        axes.set_title(f"{'after' if cheap else 'before'}: {millions(net.cost().macs, 2)} M")
    return drawn


# ---------------------------------------------------------------------------------------------- who counts what


def variants(names, widths=(1.0,)) -> Table:
    """Trainable parameters and MACs of the same net as three frameworks publish it."""
    rows = []
    for name in names:
        for width in widths:
            costs = [describe(name, width=width, variant=v).cost() for v in ("keras", "torch", "paddle")]
            rows.append((NAMES[name], width, *(f"{c.params:,} · {millions(c.macs)} M" for c in costs)))
    return Table(("net", "width", "papers, Keras", "torchvision, timm", "PaddleClas"), rows)


def tools(names) -> Table:
    """What counting tools print for the same net, in millions."""
    labels = {
        "fvcore": "fvcore",
        "thop": "thop",
        "torch": "PyTorch's FlopCounterMode",
        "ptflops_aten": "ptflops (aten)",
        "ptflops_pytorch": "ptflops (pytorch)",
        "torchinfo": "torchinfo",
    }
    facts = [report(describe(name, variant="torch")) for name in names]
    rows = [("MACs, as in the papers", *(millions(fact["macs"], 2) for fact in facts))]
    rows += [(label, *(millions(fact["tools"][key], 2) for fact in facts)) for key, label in labels.items()]
    return Table(("counter", *(NAMES[name] for name in names)), rows)


def in_print() -> Table:
    """Published claims, compared with what the nets here give."""

    def macs(name, **options):
        return millions(describe(name, **options).cost().macs)

    v1, v2 = describe("mobilenet_v1"), describe("mobilenet_v2")
    stem = next(row.cost.macs for row in v1.cost().rows if row.name == "stem")
    last = [layer for _, layer in v1.walk() if isinstance(layer, Depthwise)][-1]
    blocks = sum(isinstance(layer, InvertedResidual) for layer in v2.layers)
    wide = describe("mobilenet_v2", width=1.4).cost()
    early = macs("mobilenet_v3_small", wide=1280)  # the wide layer of that printing; 1,024 later
    sides = [macs("mobilenet_v1", resolution=side) for side in (224, 192, 160, 128)]
    whole, pair = costs_of(["conv:7x7x3:128:p0", "separable:7x7x3:128:p0"])
    times = f"{pair['macs_ratio']:.2f} times: {whole['macs']:,} against {pair['macs']:,}"
    flat = 7 * 7 * 1024 * 1024 + 1024
    article = describe("mnasnet_keras", resolution=32, classes=10)
    ends = [block.children[-1].activation for block in article.layers if isinstance(block, InvertedResidual)]
    linear = f"linear: {ends.count('identity')} of {len(ends)} blocks, in its code and here"
    doubled = f"2 makes {macs('mobilenet_v1', depth_multiplier=2)} M of {sides[0]} M"
    rows = [
        ("V1, table 1", "stride of the last depthwise layer", "2", last.stride),
        ("V1, table 2", "the 3×3 convolution's part of the MACs", "1.19 %", f"{100 * stem / v1.cost().macs:.2f} %"),
        ("V2, section 4", "bottleneck blocks", "19", blocks),
        ("V2, table 4", "V1's MACs", "575 M", f"{macs('mobilenet_v1')} M"),
        ("V2, table 4", "V2 1.4: parameters, MACs", "6.9 M, 585 M", f"{millions(wide.params)} M, {millions(wide.macs)} M"),
        ("V3, an early printing", "Small: MACs", "66 M", f"{early} M"),
        ("Keras, docs of V1", "MACs at 224, 192, 160, 128", "529 M, four times", " / ".join(sides) + " M"),
        ("TF-slim, README of V1", "V1 0.75: MACs", "317 M", f"{macs('mobilenet_v1', width=0.75)} M"),
        ("MnasNet, two printings", "A1's accuracy and time on a phone", "74.0 %, 76 ms", "75.2 %, 78 ms in the other"),
        ("an article on MnasNet", "what its blocks end in", "ReLU", linear),
        ("an article on MnasNet", "stride of its separable block", "given to both convolutions", "harmless: it is 1"),
        ("an article on V1", "7×7×3 to 5×5×128, standard over separable", "12 times", times),
        ("an article on V1", "the mean over 7×7×1024", "flattened, 50,176 → 1,024", f"{flat:,} parameters more"),
        ("an article on Keras", "depth_multiplier shrinks the image", "cost falls by its square", doubled),
    ]  # fmt: skip
    return Table(("where", "what", "printed", "counted here"), rows)


# ---------------------------------------------------------------------------------------------- exercises


def exercise_1(answer):
    """How many different points are left of the five after ReLU."""
    points = np.array(POINTS)
    return check(
        answer,
        lambda a: a == len({tuple(p) for p in np.maximum(points, 0)}),
        "write down (max(x, 0), max(y, 0)) for each point and count how many different pairs there are",
    )


POINTS = [(2, 1), (-1, 3), (-2, 3), (-1, -2), (-3, -1)]


def exercise_2(answer):
    """MACs of V2's 32 → 32 block with t = 6 on a 28×28 map."""
    block = Net([InvertedResidual(32, expanded=6 * 32)], (28, 28, 32), allocate=False)
    hint = "h·w·(c·t)·(c + k² + c′): the expansion t multiplies the channels of all three convolutions"
    return check(answer, lambda a: a == block.cost().macs, hint)


def exercise_3(answer):
    """How many of V2's parameters are betas of linear bottlenecks."""
    net = describe("mobilenet_v2")
    dead = sum(block.output_shape[2] for block in net.layers if isinstance(block, InvertedResidual))
    hint = (
        "a β for each output channel of each block's projection; the table has n blocks of c channels a row"
    )
    return check(answer, lambda a: int(a) == a == dead, hint)


def exercise_4(answer):
    """MACs that the redesigned tail of V3-Large saves."""
    saved = tail(False).cost().macs - tail(True).cost().macs
    hint = "what falls away: three convolutions at 7×7; what comes in return: 960 → 1280, at one place"
    return check(answer, lambda a: a == saved, hint)


def exercise_5(answer):
    """Numbers that V2's batch norms read, from what two tools print."""
    net = describe("mobilenet_v2")
    read = sum(int(np.prod(row.output_shape)) for row in net.cost().rows if row.type == "batch norm")
    hint = "thop − MACs is four times the number asked for; fvcore also counts the numbers that the pooling reads"
    return check(answer, lambda a: a == read, hint)


MOST_MACS, MOST_PARAMETERS = 3_000_000, 60_000


def exercise_6(net):
    """A net of one's own: 32×32 images, 10 classes, within the budget, a squeeze-excite, a skip that really adds."""

    def within(net):
        cost, layers = net.cost(), [layer for _, layer in net.walk()]
        wanted = {
            "32×32 colour images in, 10 numbers out": net.input_shape == (32, 32, 3)
            and net.output_shape == (10,),
            f"at most {MOST_MACS:,} MACs (yours: {cost.macs:,})": cost.macs <= MOST_MACS,
            f"at most {MOST_PARAMETERS:,} parameters (yours: {cost.params:,})": cost.params
            <= MOST_PARAMETERS,
            "a convolution with a window in it": any(
                isinstance(layer, (Conv, Depthwise)) for layer in layers
            ),
            "a squeeze-excite": any(isinstance(layer, SqueezeExcite) for layer in layers),
            "a skip that adds (stride 1, as many channels out as in)": any(
                getattr(layer, "adds", False) for layer in layers
            ),
        }
        for wish, granted in wanted.items():
            print("yes  " if granted else "no   ", wish)
        return all(wanted.values())

    hint = (
        f"32×32 colour images, 10 classes, at most {MOST_MACS:,} MACs and {MOST_PARAMETERS:,} parameters, a convolution with "
        "a window, a squeeze-excite, a skip that adds: a “no” stands above for what is missing"
    )
    return check(net, within, hint)


def exercise_7(answer):
    """A function (dy, x, gate) → dx, dgate of y = x · gate, for (H, W, C), (H, W, C), (C,)."""
    draw = np.random.default_rng(7)
    dy, x, gate = draw.normal(size=(3, 4, 5)), draw.normal(size=(3, 4, 5)), draw.uniform(size=5)
    want = dy * gate, (dy * x).sum(axis=(0, 1))
    hint = "a pixel met one gate: dy · gate. A gate met all pixels of its channel: add up dy · x over them"
    return check(answer, lambda function: agrees(function, [((dy, x, gate), want)]), hint)


def exercise_8(answer):
    """A function (dy, backward) → dx of y = x + f(x), where backward(dy) is the gradient through f."""
    draw = np.random.default_rng(8)
    dy, inner = draw.normal(size=(6, 4)), draw.normal(size=(4, 4))
    cases = [((dy, lambda d: d @ inner), dy + dy @ inner)]
    hint = "x reaches y in two ways, directly and through f; the gradients of the two ways are added"
    return check(answer, lambda function: agrees(function, cases), hint)


def exercise_9(answer):
    """Blocks of V3-Small with a squeeze-excite: of the paper's net, and with se=0.5."""
    want = tuple(_squeezes(describe("mobilenet_v3_small", **options)) for options in ({}, {"se": 0.5}))
    hint = "the paper's net: count the rows of mobilenet_v3.SMALL that have one; a ratio in se reaches every block"
    return check(answer, lambda a: tuple(a) == want, hint)


def _squeezes(net):
    return sum(isinstance(layer, SqueezeExcite) for _, layer in net.walk())


def squeezed(choices) -> Table:
    """V3-Large with each value of ``se``: blocks that have one, its channels in the last block, what the net costs."""
    rows = []
    for se in choices:
        net = describe("mobilenet_v3_large", se=se)
        last = [layer for _, layer in net.walk() if isinstance(layer, SqueezeExcite)][-1:]
        cost, channels = net.cost(), last[0].squeezed if last else 0
        rows.append((f"se={se}", _squeezes(net), channels, millions(cost.macs), millions(cost.params, 2)))
    return Table(("", "blocks with SE", "R in the last block", "MACs, M", "parameters, M"), rows)
