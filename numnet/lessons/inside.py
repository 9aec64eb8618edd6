"""The steps, figures and exercises of notebook 03, inside a kernel.

The notebook begins with the definitions of two pages, ``product.definition`` and ``depthwise.definition``, and ends with
their passes. Between them come the steps below: each uses one more property of the processor. They are here to be read
and compared in time, and nothing else calls them. They leave out cases that a page must handle: channels that lanes do not
divide, tiles at the end of a matrix, strides, windows other than 3×3.
"""

import re
from functools import partial

import numba
import numpy as np

from numnet import kernels
from numnet.kernels import vectors
from numnet.kernels._jit import kernel
from numnet.kernels.tiles import add_outer, load_tile, store_tile, zeros
from numnet.kernels.vectors import fma, load, spread_at, store, width, zero
from numnet.lessons import DARK, LIGHT, MIDDLE, best, figure
from numnet.lessons.check import agrees, check, close
from numnet.lessons.pictures import tables

# ---------------------------------------------------------------------------------------------- the product, step by step
# x (R, C), w (C, F), y (R, F); v: the lanes, which divide F.


@kernel(parallel=False)
def product_in_vectors(x, w, y, v):
    """A vector of filters at a time, its sum in a register."""
    (rows, deep), columns = x.shape, w.shape[1]
    flat_x, flat_w, flat_y = x.reshape(-1), w.reshape(-1), y.reshape(-1)
    for r in range(rows):
        for f in range(0, columns, width(v)):
            total = zero(flat_y, v)
            for c in range(deep):
                total = fma(spread_at(flat_x, r * deep + c, v), load(flat_w, c * columns + f, v), total)
            store(flat_y, r * columns + f, total)


def product_in_tiles(height, wide):
    """The product with a tile of ``height`` rows and ``wide`` vectors of sums; they must divide R and F."""

    @kernel(parallel=False)
    def multiply(x, w, y, v):
        (rows, deep), columns, n = x.shape, w.shape[1], width(v)
        flat_x, flat_w, flat_y = x.reshape(-1), w.reshape(-1), y.reshape(-1)
        starts = (0, n, 2 * n, 3 * n)[:wide]  # of the vectors in a row
        for f in range(0, columns, wide * n):
            for r in range(0, rows, height):
                tile = zeros(flat_y, height, wide, v)
                for c in range(deep):
                    b = load_tile(zeros(flat_y, 1, wide, v), flat_w, c * columns + f, 0, starts)
                    tile = add_outer(tile, flat_x, r * deep + c, deep, b)
                store_tile(tile, flat_y, r * columns + f, columns, starts)

    return multiply


# rows × vectors of sums; all divide R and F below
TILES = [(1, 1), (2, 1), (2, 2), (4, 2), (6, 2), (6, 4), (12, 4)]


def tile_speeds(rows=192, deep=128, filters=128, seconds=0.3, tiles=TILES) -> dict:
    """{(rows, vectors) of a tile: FLOP/s} of the product with such tiles; results are compared with NumPy's."""
    x, w, y = matrices(rows, deep, filters)
    v, speeds = vectors.lanes(filters, x.dtype), {}
    for height, wide in tiles:
        if rows % height or filters % (wide * vectors.number_of(v)):
            raise ValueError(f"a tile of {height} × {wide} vectors does not divide y {y.shape}")
        work = partial(product_in_tiles(height, wide), x, w, y, v)
        speeds[height, wide] = product_speed(work, x, w, y, seconds)
    return speeds


def matrices(rows, deep, filters):
    """x (R, C), w (C, F) and y (R, F), float32."""
    draw = np.random.default_rng(0)
    x, w = draw.standard_normal((rows, deep), np.float32), draw.standard_normal((deep, filters), np.float32)
    return x, w, np.empty((rows, filters), np.float32)


def product_speed(work, x, w, y, seconds=0.3) -> float:
    """FLOP/s of ``work()``, which writes y = x · w; the result is compared with NumPy's."""
    y.fill(np.nan)
    work()
    assert close(y, x @ w, 1e-5), work
    return 2 * y.size * len(w) / best(work, seconds)


# ---------------------------------------------------------------------------------------------- depthwise, step by step
# 3×3, stride 1, an output as large as the input: x (N, H, W, C), w (3, 3, C), y like x; ``framed`` is x in a frame of
# zeros, (N, H + 2, W + 2, C), made beforehand.


def numpy_shifts(framed, w, y):
    """Nine shifted copies of the whole map: the way without loops in NumPy."""
    height, wide = y.shape[1:3]
    y[:] = 0
    for u in range(3):
        for v in range(3):
            y += framed[:, u : u + height, v : v + wide] * w[u, v]


@kernel(parallel=False)
def depthwise_in_vectors(framed, w, y, v):
    """A vector of channels of one pixel at a time: nine multiply-adds, for which nine taps and nine inputs are loaded."""
    images, height, wide, channels = y.shape
    x, taps, out, line = framed.reshape(-1), w.reshape(-1), y.reshape(-1), (wide + 2) * channels
    for n in range(images):
        for p in range(height):
            for q in range(wide):
                for c in range(0, channels, width(v)):
                    total, at = zero(x, v), (n * (height + 2) + p) * line + q * channels + c
                    for t in range(9):
                        total = fma(
                            load(x, at + t // 3 * line + t % 3 * channels, v),
                            load(taps, t * channels + c, v),
                            total,
                        )
                    store(out, ((n * height + p) * wide + q) * channels + c, total)


@kernel(parallel=False)
def depthwise_in_tiles(framed, w, y, v):
    """A tile of four pixels: each tap is loaded once for four sums. Four must divide W."""
    images, height, wide, channels = y.shape
    x, taps, out, line = framed.reshape(-1), w.reshape(-1), y.reshape(-1), (wide + 2) * channels
    for n in range(images):
        for p in range(height):
            for c in range(0, channels, width(v)):
                for q in range(0, wide, 4):
                    s0 = s1 = s2 = s3 = zero(x, v)
                    for t in range(9):
                        tap = load(taps, t * channels + c, v)
                        at = (n * (height + 2) + p + t // 3) * line + (q + t % 3) * channels + c
                        s0 = fma(load(x, at, v), tap, s0)
                        s1 = fma(load(x, at + channels, v), tap, s1)
                        s2 = fma(load(x, at + 2 * channels, v), tap, s2)
                        s3 = fma(load(x, at + 3 * channels, v), tap, s3)
                    to = ((n * height + p) * wide + q) * channels + c
                    store(out, to, s0)
                    store(out, to + channels, s1)
                    store(out, to + 2 * channels, s2)
                    store(out, to + 3 * channels, s3)


def problem(images, side, channels, seed=0):
    """x, framed, w (3, 3, C) and y for the steps, float32."""
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((images, side, side, channels), np.float32)
    w = draw.standard_normal((3, 3, channels), np.float32)
    return x, np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), w, np.empty_like(x)


def definition_in_python(x, w):
    """``depthwise.definition`` without the compiler: its innermost function as plain Python."""
    from numnet.kernels.depthwise import Window, _y

    y = np.zeros_like(x)
    getattr(_y, "py_func", _y)(x, w[..., None], y, Window(3, 1, 1, 1))
    return y


def ladder(images, side, channels, seconds=0.3) -> dict:
    """Nanoseconds an output number for each step, one thread, in the order of the story; every result is compared.

    Plain Python is timed on a corner of one image: it would take minutes.
    """
    x, framed, w, y = problem(images, side, channels)
    want, v, threads = (
        kernels.depthwise_forward(x, w[..., None]),
        vectors.lanes(channels, x.dtype),
        numba.get_num_threads(),
    )
    corner, few = np.ascontiguousarray(x[:1, :8, :8, :4]), np.ascontiguousarray(w[:, :, :4])
    page = "numnet's page (frames x itself)"
    steps = {
        "the definition, plain Python": lambda: definition_in_python(corner, few),
        "the definition, compiled": lambda: kernels.depthwise.definition(x, w[..., None]),
        "NumPy: nine shifted maps": lambda: numpy_shifts(framed, w, y),
        "a vector of channels at a time": lambda: depthwise_in_vectors(framed, w, y, v),
        "a tile of four pixels": lambda: depthwise_in_tiles(framed, w, y, v),
        page: lambda: kernels.depthwise_forward(x, w[..., None], out=y),
    }
    times = {}
    numba.set_num_threads(1)
    try:
        for name, work in steps.items():
            y.fill(np.nan)
            made = work()
            made = y if made is None else made
            right = want if made.shape == want.shape else kernels.depthwise_forward(corner, few[..., None])
            assert close(made, right, 1e-5), name
            times[name] = 1e9 * best(work, seconds) / made.size
    finally:
        numba.set_num_threads(threads)
    if threads > 1:
        times[f"and {threads} threads"] = 1e9 * best(steps[page], seconds) / y.size
    return times


# ---------------------------------------------------------------------------------------------- what the compiler made


def compiled(function) -> dict:
    """What LLVM made of a compiled function's first signature.

    {"lanes": numbers in the widest vector of its arithmetic (1: none), "vector": additions and multiplications of
    vectors, "scalar": of single numbers}. Counted in LLVM's language, which is the same on every processor.
    """
    text = function.inspect_llvm(function.signatures[0])
    work = r"= (?:tail )?(?:fadd|fmul|fsub|call[^\n]*@llvm\.fmu?l?a(?:dd)?[^\n(]*\(?)[\w ]*"
    lanes = [int(n) for n in re.findall(work + r"<(\d+) x (?:float|double)>", text)]
    scalar = len(re.findall(work + r"(?:float|double)\b", text))
    return {"lanes": max(lanes, default=1), "vector": len(lanes), "scalar": scalar}


def inner_loop(function) -> str:
    """The innermost loop of a compiled function that does floating-point arithmetic, on vectors if there is one.

    It is machine code, so it differs between kinds of processors; empty if none is found.
    """
    code, where = [], {}
    for line in function.inspect_asm(function.signatures[0]).splitlines():
        label = re.match(r"^([.\w$]+):", line)
        if label:
            where[label.group(1)] = len(code)
        elif line.startswith("\t") and not line.startswith("\t."):
            code.append(" ".join(line.split()))
    arithmetic = re.compile(r"^v?f?n?m?(add|sub|mul)\w*[sp][sd] |^fn?m(la|ls|add|sub|ul)|^f(add|mul) ")
    vector = re.compile(r"^v?\w+p[sd] |\bv\d+\.\d|\bz\d+\.")
    loops = []
    for end, line in enumerate(code):
        start = where.get(line.split()[-1], end) if line[:1] in "jb" else end
        body = code[start : end + 1]
        if start < end and any(arithmetic.search(s) for s in body):
            widest = max((" xyz".index(r) for s in body for r in re.findall(r"([xyz])mm\d", s)), default=0)
            loops.append((not any(vector.search(s) for s in body), -widest, len(body), body))
    return "\n".join(min(loops)[-1]) if loops else ""


# ---------------------------------------------------------------------------------------------- figures


def a_tile(height=6, wide=2):
    """One step of a product's tile: numbers of a column of x, vectors of a row of w, and the sums they are added to."""
    numbers = [[f"x{r}"] for r in range(height)]
    row = [[f"w{i}" for i in range(wide)]]
    sums = [[f"x{r}·w{i}" for i in range(wide)] for r in range(height)]
    return tables(
        (numbers, f"{height} numbers of\nx, column c"),
        "·",
        (row, f"{wide} vectors of\nw, row c"),
        "→",
        (sums, f"{height * wide} sums stay\nin registers"),
        caption=f"one step of c: {height + wide} loads; {height * wide} products of whole vectors are added to the sums",
    )


def tiles(speeds, peak):
    """Speed of the product for each tile of sums, compared with the processor's peak."""
    drawn, axes = figure(8, 3.2)
    labels, values = [f"{r} × {v}" for r, v in speeds], [s / 1e9 for s in speeds.values()]
    places = range(len(labels))
    axes.bar(places, values, 0.62, color=DARK)
    for place, value in zip(places, values):
        axes.text(place, 0.97 * value, f"{value:.0f}", ha="center", va="top", fontsize=9, color="white")
    axes.axhline(peak / 1e9, color=MIDDLE, linestyle="--")
    axes.text(-0.4, peak / 1e9, f"peak {peak / 1e9:.0f}", color=MIDDLE, va="bottom", fontsize=9)
    axes.set_xticks(places, labels)
    axes.set_ylim(0, 1.15 * max(peak / 1e9, *values))
    axes.grid(False, axis="x")
    axes.set_xlabel("tile: rows × vectors of sums")
    axes.set_ylabel("speed (GFLOP/s)")
    return drawn


def steps(times):
    """Time for an output number, step by step, on a logarithmic axis."""
    drawn, axes = figure(8.6, 0.42 * len(times) + 0.9)
    places, values = np.arange(len(times)), list(times.values())
    axes.barh(places, values, 0.62, color=[LIGHT] * (len(times) - 1) + [DARK])
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 3, 6 * max(values))
    for place, value in zip(places, values):
        text = f"{value:,.0f} ns" if value >= 100 else f"{value:.2f} ns"
        axes.text(value * 1.1, place, f"{text}, {values[0] / value:,.0f}×", va="center", fontsize=9)
    axes.set_yticks(places, list(times))
    axes.set_ylim(len(times) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.set_xlabel("nanoseconds for an output number (logarithmic)")
    return drawn


def sizes_and_speed(megabytes, series):
    """Speed against the size of the map: where a cache ends, a curve falls."""
    drawn, axes = figure(8, 3.4)
    for (label, values), colour, line, marker in zip(series.items(), (MIDDLE, DARK), ("--", "-"), "so"):
        axes.plot(megabytes, values, label=label, color=colour, linestyle=line, marker=marker)
    axes.set_xscale("log")
    axes.set_xticks(megabytes, [f"{size:.2g}" for size in megabytes])
    axes.set_xticks([], minor=True)
    axes.set_ylim(0, None)
    axes.set_xlabel("size of the map x (MB, logarithmic)")
    axes.set_ylabel("speed (billion MACs / s)")
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return drawn


def threads_and_speed(speeds):
    """Speed against threads, compared with what it would be if each thread added as much as the first."""
    drawn, axes = figure(6.4, 3.2)
    threads = list(speeds)
    axes.plot(threads, list(speeds.values()), color=DARK, marker="o", linestyle="-", label="measured")
    axes.plot(
        threads,
        [speeds[1] * t for t in threads],
        color=LIGHT,
        linestyle="--",
        marker="",
        label="thread count × one thread",
    )
    axes.set_xticks(threads)
    axes.set_ylim(0, None)
    axes.set_xlabel("threads")
    axes.set_ylabel("speed (billion MACs / s)")
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return drawn


def ring(rows=5, side=3, top=1):
    """Which padded row lies in which slot of the ring while each output row is made."""
    slots = [["" for _ in range(rows)] for _ in range(side)]
    held, fresh, filled = [None] * side, [], 0
    for p in range(rows):
        while filled < p + side:
            held[filled % side] = filled - top
            fresh.append((filled % side, p))
            filled += 1
        for s in range(side):
            slots[s][p] = f"x{held[s]}" if 0 <= held[s] < rows else "zeros"
    names = [[f"slot {s}"] for s in range(side)]
    return tables(
        (names, ""),
        (slots, "while row p = 0, 1, 2, … of y is made", fresh),
        caption="shaded: copied into the ring now",
    )


# ---------------------------------------------------------------------------------------------- exercises


def exercise_1(answer):
    """Where the last vector of 20 channels begins, with 8 lanes."""
    hint = "it ends with the last channel and may overlap the vector before it"
    return check(answer, lambda a: a == 20 - 8, hint)


def exercise_2(answer):
    """A function of a tile's rows R and vectors V: loads for one multiply-add."""
    shapes = ((1, 1), (6, 2), (4, 3), (2, 5))
    hint = "in each step R single numbers and V vectors are loaded, for R·V multiply-adds"
    return check(
        answer, lambda function: all(close(function(r, v), (r + v) / (r * v)) for r, v in shapes), hint
    )


def exercise_3(answer):
    """How many times more bytes of maps two passes move than the fused one: normalise, then convolve."""
    hint = "each pass reads a map and writes a map. How many passes are there, apart and fused?"
    return check(answer, lambda a: close(a, 2), hint)


def exercise_4(answer):
    """A function of three framed rows (3, W + 2, C) of x and a row d (W, C) of dy: dw (3, 3, C)."""
    draw = np.random.default_rng(3)
    x, w, d = draw.normal(size=(1, 3, 6, 4)), draw.normal(size=(3, 3, 4, 1)), draw.normal(size=(6, 4))
    framed = np.pad(x[0], ((0, 0), (1, 1), (0, 0)))
    want = kernels.depthwise.definition_backward(d[None, None], x, w, 1, ((0, 0), (1, 1)))[1][..., 0]
    hint = "tap (u, v) meets pixel q of dy at pixel q + v of row u; a channel's products are added up over q"
    return check(answer, lambda function: close(function(framed.copy(), d.copy()), want), hint)


def exercise_5(answer):
    """How many vectors a tile of six rows may have with 16 registers."""
    hint = "6·V sums, V vectors of w and one number of x must fit into 16 registers at the same time"
    return check(answer, lambda a: a == 2, hint)


def exercise_6(answer):
    """A function of three framed rows (3, W + 2, C) of dy and the taps w (3, 3, C): a row of dx (W, C)."""
    draw = np.random.default_rng(6)
    dy, w = draw.normal(size=(1, 3, 6, 4)), draw.normal(size=(3, 3, 4, 1))
    x = np.zeros((1, 3, 6, 4))
    want = kernels.depthwise.definition_backward(dy, x, w, 1, "same")[0][0, 1]
    framed = np.pad(dy[0], ((0, 0), (1, 1), (0, 0)))
    hint = (
        "the forward pass with the taps in opposite order: pixel q + v of row u meets the tap (2 − u, 2 − v)"
    )
    return check(answer, lambda function: agrees(function, [((framed, w[..., 0]), want)]), hint)


def exercise_7(answer):
    """KiB of the ring for a 5×5 kernel, 56 pixels a row, 64 channels of float32."""
    hint = (
        "5 rows; each is 2 pixels longer at both ends; 64 channels of 4 bytes a pixel; 1 KiB is 1,024 bytes"
    )
    return check(answer, lambda a: close(a, 5 * (56 + 4) * 64 * 4 / 1024), hint)
