"""Figures and exercises of notebook 01, a convolution by hand."""

import numpy as np

from numnet import kernels
from numnet.kernels._jit import kernel
from numnet.kernels.conv import gather_row
from numnet.kernels.maps import Window
from numnet.kernels.padding import output_side, resolve
from numnet.kernels.vectors import lanes
from numnet.lessons import DARK, HEAT, LIGHT, MIDDLE, bare, figure
from numnet.lessons.check import agrees, check, close
from numnet.lessons.pictures import number, sum_of_products, tables

# The numbers of the story: small enough for paper, no symmetry that would hide a mistake.
IMAGE = np.array([[1, 2, 0, 1], [3, 1, 1, 0], [0, 2, 4, 1], [1, 0, 2, 3]], float)
KERNEL = np.array([[1, 0, -1], [2, 0, -2], [0, 1, 0]], float)
UPSTREAM = np.array([[1, -1], [2, 3]], float)

# Kernels with a name, for the first picture.
BLUR = np.full((3, 3), 1 / 9)
EDGE = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]], float)  # Sobel: left minus right
OUTLINE = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], float)


def plane(table):
    """A table (H, W) as one image of one channel, (1, H, W, 1)."""
    return np.ascontiguousarray(np.asarray(table, float)[None, :, :, None])


def filters(table):
    """A table (K, K) as the weights of one filter on one channel, (K, K, 1, 1)."""
    return np.ascontiguousarray(np.asarray(table, float)[:, :, None, None])


def convolved(x, w, stride=1, padding=0):
    """numnet's definition of the convolution, for tables: (H, W), (K, K) -> (P, Q)."""
    return kernels.conv.definition(plane(x), filters(w), stride, padding)[0, :, :, 0]


def gradients(dy, x, w, stride=1, padding=0):
    """Both gradients by numnet's definition, for tables: dx (H, W), dw (K, K)."""
    dx, dw = kernels.conv.definition_backward(plane(dy), plane(x), filters(w), stride, padding)
    return dx[0, :, :, 0], dw[:, :, 0, 0]


@kernel(parallel=False)
def _cut_row(image, p, window, patches):
    """Run the page's ``gather_row``, which like every row function runs inside a kernel only."""
    gather_row(image, p, window, 1, patches)


def cut_row(image, p, patches):
    """The windows of output row p of a table (H, W), stride 1 and no padding, into patches (Q, K, K)."""
    side = patches.shape[1]
    _cut_row(image, p, Window(side, 1, 0, 0, lanes(side, image.dtype)), patches)


def scene(side=64):
    """A grey picture (side, side) with values in 0 … 1: a disc, a square and a soft sky. Drawn, not loaded."""
    i, j = np.mgrid[0:side, 0:side] / side
    picture = 0.35 + 0.25 * i
    picture[(i - 0.4) ** 2 + (j - 0.35) ** 2 < 0.055] = 0.95
    picture[(i > 0.55) & (i < 0.85) & (j > 0.5) & (j < 0.85)] = 0.1
    return picture


# ---------------------------------------------------------------------------------------------- figures


def what_filters_see(picture, named):
    """A picture and what each kernel of the dict makes of it."""
    drawn, axes = figure(8.6, 2.7, columns=1 + len(named))
    for place, (name, w) in zip(axes, [("the picture", None), *named.items()]):
        seen = picture if w is None else convolved(picture, w)
        bare(place).imshow(seen, cmap="gray")
        place.set_title(name, loc="center")
    return drawn


def window(x, w, p, q, stride=1):
    """One window of the image, the kernel, and the output number that they make."""
    y = convolved(x, w, stride)
    k = len(w)
    places = [(p * stride + u, q * stride + v) for u in range(k) for v in range(k)]
    pairs = [(x[place], weight) for place, weight in zip(places, w.reshape(-1)) if weight]
    return tables(
        (x, f"image x, {x.shape[0]}×{x.shape[1]}", places),
        "∗",
        (w, f"kernel w, {k}×{k}"),
        "=",
        (y, f"output y, {y.shape[0]}×{y.shape[1]}", [(p, q)]),
        caption=f"y[{p}, {q}] = {sum_of_products(pairs)} = {number(y[p, q])}",
    )


def padded(x, w):
    """The image in a frame of zeros, its first window, and an output as large as the image."""
    corner = [(u, v) for u in range(3) for v in range(3)]
    return tables(
        (np.pad(x, 1), "image in a frame of zeros", corner, 1),
        "∗",
        (w, "kernel w"),
        "=",
        (convolved(x, w, 1, "same"), "output y", [(0, 0)]),
        caption="the output is as large as the image was",
    )


def as_matrix(w, side, stride=1, padding=0):
    """The matrix of a convolution: column n is the output for an image that is 1 at n and 0 elsewhere."""
    columns = []
    for n in range(side * side):
        image = np.zeros(side * side)
        image[n] = 1
        columns.append(convolved(image.reshape(side, side), w, stride, padding).reshape(-1))
    return np.array(columns).T


def who_touches_whom(w, side):
    """How many outputs each input pixel reaches; and the matrix with an entry for each pair that touches."""
    k = w.shape[1]
    # Each weight by its number: none is 0
    matrix = as_matrix(np.arange(1, w.size + 1).reshape(w.shape), side)
    reach = (matrix != 0).sum(axis=0).reshape(side, side)
    drawn, (left, right) = figure(9, 2.7, columns=2, width_ratios=[1, 2.9])
    for axes, seen in ((left, reach), (right, matrix != 0)):
        bare(axes).imshow(seen, cmap=HEAT, vmin=0, vmax=2.5 * seen.max(), aspect="equal")
    for i, j in np.ndindex(*reach.shape):
        left.text(j, i, str(reach[i, j]), ha="center", va="center")
    for r, n in zip(*np.nonzero(matrix)):
        weight = round(matrix[r, n]) - 1
        right.text(n, r, f"w{weight // k}{weight % k}", ha="center", va="center", fontsize=8)
    outputs = round(len(matrix) ** 0.5)
    right.set_xticks(range(side * side), [f"{n // side}{n % side}" for n in range(side * side)])
    right.set_yticks(range(len(matrix)), [f"y{r // outputs}{r % outputs}" for r in range(len(matrix))])
    left.set_xticks(range(side))
    left.set_yticks(range(side))
    for axes in (left, right):
        axes.tick_params(length=0)
    left.set_title("outputs that see a pixel", loc="center")
    left.set_xlabel("column j of x")
    left.set_ylabel("row i")
    right.set_xlabel("input pixel ij of x")
    right.set_title("the same as a matrix: a row an output, a column an input", loc="center")
    return drawn


def blame(dy, w, i, j):
    """The way back for one input pixel: the outputs that saw it, the weights through which they did, its gradient."""
    k, side = len(w), len(dy) + len(w) - 1
    seen = [(p, q) for p in range(len(dy)) for q in range(len(dy)) if 0 <= i - p < k and 0 <= j - q < k]
    met = [(i - p, j - q) for p, q in seen]
    dx = gradients(dy, np.zeros((side, side)), w)[0]
    named_dy, named_w = ([[number(v) for v in row] for row in table] for table in (dy, w))
    for letter, (p, q), (u, v) in zip("abcdefghi", seen, met):
        named_dy[p][q] += f"\n({letter})"
        named_w[u][v] += f"\n({letter})"
    products = sum_of_products([(dy[a], w[b]) for a, b in zip(seen, met)])
    return tables(
        (named_dy, "dy, given", seen),
        "∗",
        (named_w, "kernel w", met),
        "→",
        (dx, "dx, wanted", [(i, j)]),
        caption=f"dx[{i}, {j}] = {products} = {number(dx[i, j])}",
    )


def nudges(steps, errors, exact):
    """Error of a finite difference against its step, and the error of the dot-product test."""
    drawn, axes = figure(7, 3.2)
    axes.loglog(
        steps, errors, color=DARK, marker="o", linestyle="-", label="finite differences, one step size each"
    )
    label = "dot-product test: no step to choose" + (" (0: drawn at the foot)" if exact < 1e-18 else "")
    axes.axhline(max(exact, 1e-18), color=MIDDLE, linestyle="--", label=label)
    axes.set_xlabel("step h (in units of x)")
    axes.set_ylabel("relative error (no unit)")
    axes.set_ylim(2e-19, None)
    axes.legend(loc="upper right", frameon=False)
    return drawn


def verdicts(results):
    """Bars of the dot-product test's error: {name: (with random dy, with dy of ones)}, on a logarithmic axis."""
    drawn, axes = figure(8.2, 0.55 * len(results) + 1.5)
    floor = 1e-18
    for offset, index, label, colour, hatch in (
        (-0.2, 0, "random dy", DARK, ""),
        (0.2, 1, "dy = 1 everywhere", LIGHT, "///"),
    ):
        values = [max(pair[index], floor) for pair in results.values()]
        places = np.arange(len(results)) + offset
        axes.barh(places, values, 0.36, left=floor, color=colour, hatch=hatch, label=label, edgecolor="white")
    axes.set_xscale("log")
    axes.set_xlim(floor, 30)
    axes.axvline(1e-12, color="black", linestyle=":")
    axes.text(1e-12, -0.65, "the bound in numnet's tests", fontsize=9, va="bottom", ha="center")
    axes.set_yticks(range(len(results)), list(results))
    axes.set_ylim(len(results) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.set_xlabel("|⟨dy, y⟩ − ⟨dx, x⟩| / (‖dy‖·‖y‖)   (no unit)")
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False)
    return drawn


def patches(x, k):
    """Every window of the image as one row of a matrix, which turns a convolution into a matrix product."""
    cut = np.lib.stride_tricks.sliding_window_view(x, (k, k)).reshape(-1, k * k)
    second = [(u, v + 1) for u in range(k) for v in range(k)]
    return tables(
        (x, "image x,\nits second window", second),
        "→",
        (cut, "patches X̃: a window a row", [(1, n) for n in range(k * k)]),
    )


# ---------------------------------------------------------------------------------------------- exercises


def exercise_1(answer):
    """The output number at (1, 0)."""
    return check(
        answer,
        lambda a: close(a, convolved(IMAGE, KERNEL)[1, 0]),
        "lay the kernel's top left corner on x[1, 0], multiply what lies on top of each other, add. No flipping",
    )


def exercise_2(answer):
    """The side of MobileNet's first map, for 224 pixels, K = 3, stride 2, "same" padding."""
    pads = resolve("same", (224, 224), (3, 3), 2)[0]
    return check(
        answer,
        lambda a: a == output_side(224, 3, 2, *pads),
        "how many multiples of the stride are there from 0 to 223? Each is where a window starts",
    )


def exercise_3(answer):
    """dw[0, 2] for the story's image and upstream gradient."""
    return check(
        answer,
        lambda a: close(a, gradients(UPSTREAM, IMAGE, KERNEL)[1][0, 2]),
        "w[0, 2] was multiplied once for each output: by x[0 + p, 2 + q]. Weigh these by dy[p, q] and add",
    )


def exercise_4(answer):
    """A function dx(dy, w, stride, side) for a square image without padding."""
    draw = np.random.default_rng(4)

    def right(function):
        for side, k, stride in ((7, 3, 2), (8, 3, 1), (9, 2, 3)):
            count = output_side(side, k, stride, 0, 0)
            dy, w = draw.normal(size=(count, count)), draw.normal(size=(k, k))
            want = gradients(dy, np.zeros((side, side)), w, stride)[0]
            if not close(function(dy, w, stride, side), want):
                return False
        return True

    return check(
        answer,
        right,
        "output (p, q) read the pixels from (p·stride, q·stride) on: send dy[p, q]·w[u, v] back there",
    )


def exercise_5(answer):
    """Every (p, u) through which pixel 4 of a row of 7 reaches the output, for K = 3, stride 2, no padding."""
    want = {(p, u) for p in range(3) for u in range(3) if 2 * p + u == 4}
    hint = "output p reads the pixels 2p, 2p + 1 and 2p + 2 with taps 0, 1 and 2; which outputs read pixel 4?"
    return check(answer, lambda a: {tuple(pair) for pair in a} == want, hint)


def exercise_6(answer):
    """A function dw(dy, x, stride, k) for a square image without padding."""
    draw = np.random.default_rng(6)

    def cases():
        for side, k, stride in ((7, 3, 2), (8, 3, 1), (9, 2, 3)):
            x, count = draw.normal(size=(side, side)), output_side(side, k, stride, 0, 0)
            dy = draw.normal(size=(count, count))
            yield (dy, x, stride, k), gradients(dy, x, np.zeros((k, k)), stride)[1]

    hint = "w[u, v] met the pixel (p·stride + u, q·stride + v) once for each output (p, q); its part of the loss is dy[p, q]"
    return check(answer, lambda function: agrees(function, cases()), hint)


def exercise_7(answer):
    """A function db(dy) for dy (N, P, Q, F): the gradient of a bias (F,)."""
    dy = np.random.default_rng(7).normal(size=(2, 3, 4, 5))
    hint = "b[f] was added to every output of filter f: in all images, in all rows, in all columns. Add up their dy"
    return check(answer, lambda function: agrees(function, [((dy,), dy.sum(axis=(0, 1, 2)))]), hint)


def exercise_8(answer):
    """A function of (H, K, stride, before, after): how often the window fits."""
    shapes = ((224, 3, 2, 0, 1), (7, 3, 2, 1, 1), (5, 5, 1, 0, 0), (10, 3, 3, 0, 0), (32, 5, 2, 2, 2))
    cases = [(shape, output_side(*shape)) for shape in shapes]
    return check(answer, lambda function: agrees(function, cases), "equation (2); // rounds down in Python")
