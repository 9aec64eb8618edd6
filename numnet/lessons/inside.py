"""The steps, figures and exercises of notebook 03, inside a kernel.

The steps compute one and the same thing, a 3×3 depthwise convolution of stride 1 whose output is as large as its
input: on the way from the definition to the page ``numnet/kernels/depthwise.py``, which all nets use. They are here
to be read and timed beside one another and have no other caller.
"""

import re

import numpy as np
from numba import prange

from numnet import kernels
from numnet.kernels._jit import kernel, row
from numnet.kernels.rows import zero
from numnet.lessons import DARK, LIGHT, MIDDLE, bare, best, figure
from numnet.lessons.check import check, close
from numnet.lessons.pictures import tables

# ---------------------------------------------------------------------------------------------- the steps
# x (N, H, W, C), w (3, 3, C), y like x; ``framed`` is x in a frame of zeros, (N, H + 2, W + 2, C), made beforehand.


@kernel(parallel=False)
def definition(x, w, y):
    """Each output number by itself: the sum over its window, outside the image 0."""
    images, height, width, channels = x.shape
    for n in range(images):
        for p in range(height):
            for q in range(width):
                for c in range(channels):
                    total = np.float32(0)
                    for u in range(3):
                        for v in range(3):
                            i, j = p + u - 1, q + v - 1
                            if 0 <= i < height and 0 <= j < width:
                                total += x[n, i, j, c] * w[u, v, c]
                    y[n, p, q, c] = total


def numpy_shifts(framed, w, y):
    """Nine shifted copies of the whole map, as NumPy would have it."""
    height, width = y.shape[1:3]
    y[:] = 0
    for u in range(3):
        for v in range(3):
            y += framed[:, u : u + height, v : v + width] * w[u, v]


_u = np.uint64


@row
def add_tap(y, source, at, t, taps):
    """y[i] += source[at[t] + i] · taps[t, i]: one tap over a stretch of a row."""
    start = _u(at[t])
    for i in range(_u(y.size)):
        y[i] += source[start + i] * taps[t, i]


@row
def add_nine(y, source, at, w):
    """Nine taps over a stretch of a row, in one sweep."""
    a, b, c = _u(at[0]), _u(at[1]), _u(at[2])
    d, e, f = _u(at[3]), _u(at[4]), _u(at[5])
    g, h, k = _u(at[6]), _u(at[7]), _u(at[8])
    for i in range(_u(y.size)):
        y[i] = (
            (source[a + i] * w[0, i] + source[b + i] * w[1, i] + source[c + i] * w[2, i])
            + (source[d + i] * w[3, i] + source[e + i] * w[4, i] + source[f + i] * w[5, i])
            + (source[g + i] * w[6, i] + source[h + i] * w[7, i] + source[k + i] * w[8, i])
        )


@row
def aim_at(at, p, line, channels):
    """Where in the framed image each tap starts to read for output row p; a framed row is ``line`` numbers long."""
    for t in range(9):
        at[t] = (p + t // 3) * line + t % 3 * channels


@row
def along_the_row(w):
    """The weights (3, 3, C) of each tap repeated along a stretch of at least 256 numbers: (9, L)."""
    channels = w.shape[2]
    length = channels * max(1, (256 + channels - 1) // channels)
    taps = np.empty((9, length), w.dtype)
    for t in range(9):
        for i in range(length):
            taps[t, i] = w[t // 3, t % 3, i % channels]
    return taps


@kernel(parallel=False)
def map_by_map(framed, w, y):
    """The order of ``numpy_shifts``, compiled: one tap over the whole map, then the next tap."""
    images, height, _, channels = y.shape
    taps, at = along_the_row(w), np.empty(9, np.int64)
    zero(y.reshape(-1))
    for t in range(9):
        for n in range(images):
            source = framed[n].reshape(-1)
            for p in range(height):
                aim_at(at, p, framed.shape[2] * channels, channels)
                line = y[n, p].reshape(-1)
                for lo in range(0, line.size, taps.shape[1]):
                    add_tap(line[lo : lo + taps.shape[1]], source[lo:], at, t, taps)


@kernel(parallel=False)
def row_by_row(framed, w, y):
    """All nine taps of one output row, one after the other, then the next row."""
    images, height, _, channels = y.shape
    taps, at = along_the_row(w), np.empty(9, np.int64)
    zero(y.reshape(-1))
    for n in range(images):
        source = framed[n].reshape(-1)
        for p in range(height):
            aim_at(at, p, framed.shape[2] * channels, channels)
            line = y[n, p].reshape(-1)
            for lo in range(0, line.size, taps.shape[1]):
                for t in range(9):
                    add_tap(line[lo : lo + taps.shape[1]], source[lo:], at, t, taps)


@kernel(parallel=False)
def nine_at_once(framed, w, y):
    """All nine taps of one output row in one sweep, the sum in a register."""
    images, height, _, channels = y.shape
    taps, at = along_the_row(w), np.empty(9, np.int64)
    for n in range(images):
        source = framed[n].reshape(-1)
        for p in range(height):
            aim_at(at, p, framed.shape[2] * channels, channels)
            line = y[n, p].reshape(-1)
            for lo in range(0, line.size, taps.shape[1]):
                add_nine(line[lo : lo + taps.shape[1]], source[lo:], at, taps)


@kernel
def in_parallel(framed, w, y):
    """``nine_at_once`` with the images shared out among the threads."""
    images, height, _, channels = y.shape
    taps = along_the_row(w)
    for n in prange(images):  # each image writes its own part of y
        at = np.empty(9, np.int64)
        source = framed[n].reshape(-1)
        for p in range(height):
            aim_at(at, p, framed.shape[2] * channels, channels)
            line = y[n, p].reshape(-1)
            for lo in range(0, line.size, taps.shape[1]):
                add_nine(line[lo : lo + taps.shape[1]], source[lo:], at, taps)


def problem(images, side, channels, seed=0):
    """x, framed, w (3, 3, C) and y for the steps, float32."""
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((images, side, side, channels), np.float32)
    w = draw.standard_normal((3, 3, channels), np.float32)
    return x, np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), w, np.empty_like(x)


def ladder(images, side, channels, seconds=0.3) -> dict:
    """Nanoseconds an output number for each step, in the order of the story; every result is compared with the page's.

    Plain Python is timed on a corner of one image: it would take minutes.
    """
    x, framed, w, y = problem(images, side, channels)
    want = kernels.depthwise_forward(x, w[..., None])
    corner = np.ascontiguousarray(x[:1, :8, :8, :4])
    few, small_w = np.empty_like(corner), np.ascontiguousarray(w[:, :, :4])
    steps = {
        "the definition, plain Python": lambda: definition.py_func(corner, small_w, few),
        "the same, compiled": lambda: definition(x, w, y),
        "NumPy: nine shifted maps": lambda: numpy_shifts(framed, w, y),
        "long rows, tap after tap": lambda: row_by_row(framed, w, y),
        "long rows, nine taps at once": lambda: nine_at_once(framed, w, y),
        "and all threads": lambda: in_parallel(framed, w, y),
        "numnet's page (frames x itself)": lambda: kernels.depthwise_forward(x, w[..., None], out=y),
    }
    times = {}
    for name, work in steps.items():
        python = "Python" in name
        if not python:
            y.fill(np.nan)
        times[name] = 1e9 * best(work, seconds)
        times[name] /= few.size if python else y.size
        assert python or np.abs(y - want).max() <= 1e-5 * np.abs(want).max(), name
    return times


# ---------------------------------------------------------------------------------------------- what the compiler made


def compiled(function) -> dict:
    """What LLVM made of a compiled function's first signature.

    {"lanes": numbers in the widest vector of its arithmetic (1: none), "vector": additions and multiplications of
    vectors, "scalar": of single numbers}. Counted in LLVM's language, which is the same on every processor.
    """
    text = function.inspect_llvm(function.signatures[0])
    work = r"= (?:tail )?(?:fadd|fmul|fsub|call[^\n]*@llvm\.fmu?l?a(?:dd)?[^\n(]*)[\w ]*"
    lanes = [int(n) for n in re.findall(work + r"<(\d+) x (?:float|double)>", text)]
    scalar = len(re.findall(work + r"(?:float|double)\b", text))
    return {"lanes": max(lanes, default=1), "vector": len(lanes), "scalar": scalar}


def inner_loop(function) -> str:
    """The innermost loop of a compiled function that does floating-point arithmetic, on vectors if there is one.

    As the processor gets it, so it looks different on each kind of processor; empty if none is found.
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


def a_row_is_a_vector(width=4, channels=3):
    """One image row in memory with its frame, and the three stretches that a row of the kernel multiplies."""
    from matplotlib.patches import Rectangle

    drawn, axes = figure(9, 3.5)
    bare(axes)
    shades = [DARK, LIGHT, "white"]

    def strip(y, first, count, text, colour=None):
        for n in range(count):
            shade = colour or shades[n % channels]
            axes.add_patch(
                Rectangle((first + n, y), 1, 0.8, facecolor=shade, edgecolor="black", linewidth=0.8)
            )
            ink = "white" if shade == DARK else "black"
            axes.text(first + n + 0.5, y + 0.4, text(n), ha="center", va="center", fontsize=8.5, color=ink)

    total = (width + 2) * channels
    strip(
        0,
        0,
        total,
        lambda n: (
            "0" if n < channels or n >= total - channels else f"{n // channels - 1}{'abc'[n % channels]}"
        ),
    )
    axes.text(-0.5, 0.4, "row of x in its frame", ha="right", va="center")
    for v in range(3):
        strip(1.5 + 1.1 * v, v * channels, width * channels, lambda n: "abc"[n % channels])
        axes.text(-0.5, 1.9 + 1.1 * v, f"times w[u, {v}], repeated", ha="right", va="center")
    strip(5.2, channels, width * channels, lambda n: f"{n // channels}{'abc'[n % channels]}")
    axes.text(-0.5, 5.6, "sum: row of y", ha="right", va="center")
    axes.set_xlim(-7.6, total + 0.2)
    axes.set_ylim(6.2, -0.2)
    drawn.supxlabel(
        f"numbers side by side in memory: {channels} channels a, b, c of pixel 0, then of pixel 1, …",
        fontsize=9,
    )
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
    """Speed against threads, beside what it would be if each thread added as much as the first."""
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


def apart_and_fused(times):
    """Milliseconds of the two ways to normalise, activate and convolve."""
    from numnet.lessons.pictures import bars

    drawn, axes = figure(7.4, 0.45 * len(times) + 0.9)
    bars(
        axes,
        list(times),
        [1e3 * t for t in times.values()],
        "time (ms)",
        "{:.3f}",
        [LIGHT, DARK][: len(times)],
    )
    return drawn


# ---------------------------------------------------------------------------------------------- exercises


def exercise_1(answer):
    """How far apart in memory tap (0, 0) and tap (1, 2) read, for an image (112, 112, 32)."""
    hint = "one row further is a whole row of pixels, each of which has all its channels; two pixels further is two times C"
    return check(answer, lambda a: a == (112 + 2) * 32, hint)


def _framed_rows(seed):
    draw = np.random.default_rng(seed)
    width, channels = 6, 4
    x, w = draw.normal(size=(1, 3, width, channels)), draw.normal(size=(3, 3, channels))
    return x, w, np.pad(x[0], ((0, 0), (1, 1), (0, 0))).reshape(3, -1)


def exercise_2(answer):
    """A function of three framed rows (3, (W + 2)·C) and w (3, 3, C): the output row (W·C,), by shifted rows."""
    x, w, rows = _framed_rows(2)
    want = kernels.depthwise_forward(x, w[..., None], 1, ((0, 0), (1, 1)))[0, 0].reshape(-1)
    hint = "tap (u, v) reads rows[u] from v·C on, W·C numbers; its weights are w[u, v] repeated W times (np.tile)"
    return check(answer, lambda function: close(function(rows.copy(), w.copy()), want), hint)


def exercise_3(answer):
    """How many times more bytes of maps two passes move than the fused one: normalise, then convolve."""
    hint = "each pass reads a map and writes a map. How many passes are there, apart and fused?"
    return check(answer, lambda a: close(a, 2), hint)


def exercise_4(answer):
    """A function of three framed rows, a row d (W·C,) of dy and C: dw (3, 3, C)."""
    x, w, rows = _framed_rows(3)
    d = np.random.default_rng(33).normal(size=x.shape[2] * x.shape[3])
    dy = d.reshape(1, 1, x.shape[2], x.shape[3])
    want = kernels.depthwise_backward(dy, x, w[..., None], 1, ((0, 0), (1, 1)))[1][..., 0]
    hint = "the same stretches as forward, times d; then the W copies of each channel are added up"
    return check(answer, lambda function: close(function(rows.copy(), d.copy(), x.shape[3]), want), hint)
