"""Multiplications and additions that the kernels really do, in closed form; ``tests/test_counting.py`` counts them.

A MAC is a pair of both: every sum starts from zero, so it adds as often as it multiplies. But a sum that is cut adds up what
was cut, and a tap on the padding multiplies a zero that somebody put there. N images, H×W input,
P×Q output, K kernel side, s stride, C channels, F filters, M depth multiplier; B = parts(N) the number of partial sums.

Standard convolution, over tiles of patches (conv page):

(1)  forward   K²CF·NPQ products        as many additions
(2)  dx        K²CF·NPQ                 as many, and one for each tap that falls inside: C·N·T_h·T_w
(3)  dw        K²CF·NPQ                 as many, and K²CF for each tile but the first: tiles and parts are added up

with T the taps inside along an axis: T_h = #{(p, u): 0 ≤ p·s + u − top < H}. Pointwise: K = 1, and (2) scatters nothing.
A dense layer adds F·N for its bias and F·(N − 1) for the bias's gradient.

Depthwise convolution, from rows between zeros (depthwise page):

(4)  forward   K²CM·NPQ products        as many additions: a sum starts from zero
(5)  dx        CM·N·R·G                 as many, and (M − 1)·C·NHW to add up the M copies of a pixel
(6)  dw        K²CM·NPQ                 as many, then E·K²CM and (B − 1)·K²CM to add up parts

In (5) every row and pixel of dx takes all taps of its phase, of dy or of the zeros around it: R = Σ_i #{u ≡ i + top (mod s)}
over the H rows; of the phases j of the columns each has G_j pixels in the image: G = Σ_j G_j·#{v ≡ j}. At stride 1 both
are K times the side. In (6) E is how often the sums are moved into dw: once in so many rows of dy that they have PIXELS
pixels (depthwise page), at least once a part.

Batch norm and activation of one number (batchnorm and activations pages): two products and two additions to normalise
(a bias takes the same way), then ReLU and ReLU6 none, h-sigmoid one addition and a product,
h-swish one addition and two products, slope-1/5 h-sigmoid as h-sigmoid; the sigmoid two additions (one turns the sign) and
a division, swish two products more (β·x and x·s); their exponential is not counted.
"""

from typing import NamedTuple

from numnet.kernels.conv import TRAINING
from numnet.kernels.conv import tile_rows as tiles_of_conv
from numnet.kernels.depthwise import PIXELS
from numnet.kernels.maps import parts_of, share
from numnet.kernels.pointwise import LEAST, tile_rows


class Operations(NamedTuple):
    """Products (and divisions) and additions (and subtractions)."""

    multiplications: int = 0
    additions: int = 0

    def __add__(self, other):
        return Operations(*(a + b for a, b in zip(self, other)))


class Three(NamedTuple):
    """Forward, the gradient of the input, the gradient of the parameters."""

    forward: Operations = Operations()
    dx: Operations = Operations()
    dw: Operations = Operations()


def asked(row_function, *arguments):
    """What a row function gives, asked for outside a kernel."""
    return getattr(row_function, "py_func", row_function)(*arguments)


def cut(count, parts):
    """How many of ``count`` items each part has."""
    borders = [asked(share, part, parts, count) for part in range(parts)]
    return [last - first for first, last in borders]


def taps_inside(size, kernel, stride, before, count):
    """T: pairs (output p, tap u) along one axis whose pixel lies in the image."""
    return sum(1 for p in range(count) for u in range(kernel) if 0 <= p * stride + u - before < size)


def conv(n, h, w, c, f, k, s, pads, p, q) -> Three:
    """Equations (1) to (3)."""
    products = k * k * c * f * n * p * q
    inside = taps_inside(h, k, s, pads[0][0], p) * taps_inside(w, k, s, pads[1][0], q)
    step = asked(tiles_of_conv, k * k * c, f, q, n * p, TRAINING)
    tiles = sum(-(-images * p // step) for images in cut(n, parts_of(n)))
    return Three(
        Operations(products, products),
        Operations(products, products + n * c * inside),
        Operations(products, products + k * k * c * f * (tiles - 1)),
    )


def pointwise(n, h, w, c, f) -> Three:
    """Equations (1) to (3) with K = 1."""
    pixels = n * h * w
    tiles = sum(-(-rows // asked(tile_rows, c, f)) for rows in cut(pixels, parts_of(pixels, LEAST)))
    products = c * f * pixels
    return Three(
        Operations(products, products),
        Operations(products, products),
        Operations(products, products + c * f * (tiles - 1)),
    )


def dense(n, c, f, bias=True) -> Three:
    """Pointwise for one pixel, and the bias."""
    three = pointwise(n, 1, 1, c, f)
    if not bias:
        return three
    return three._replace(
        forward=three.forward + Operations(0, n * f), dw=three.dw + Operations(0, (n - 1) * f)
    )


def depthwise(n, h, w, c, m, k, s, pads, p, q) -> Three:
    """Equations (4) to (6)."""
    outputs, left = c * m, pads[1][0]
    products = k * k * outputs * n * p * q
    gathered = 0
    for phase in range(s):
        first = max(left - phase + s - 1, 0) // s
        pixels = max((left + w - 1 - phase) // s + 1 - first, 0)
        gathered += pixels * len(range(phase, k, s))
    rows = sum(len(range((i + pads[0][0]) % s, k, s)) for i in range(h))
    back = outputs * n * rows * gathered
    parts, lines = parts_of(n), -(-PIXELS // q)  # rows of dy whose sums are moved together
    moves = 0
    for part in range(parts):
        first, last = asked(share, part, parts, n)
        moves += -(-(last - first) * p // lines)
    copies = (m - 1) * n * h * w * c
    summing = moves * k * k * outputs + (parts - 1) * k * k * outputs
    return Three(
        Operations(products, products),
        Operations(back, back + copies),
        Operations(products, products + summing),
    )


def global_average(n, h, w, c) -> Three:
    """A sum over the pixels, and a product with 1/(H·W) for each channel."""
    return Three(Operations(n * c, n * h * w * c))


def average(n, h, w, c, k, s, pads, p, q) -> Three:
    """A sum over the pixels of each window that lie inside, and a division of each."""
    inside = taps_inside(h, k, s, pads[0][0], p) * taps_inside(w, k, s, pads[1][0], q)
    return Three(Operations(n * p * q * c, n * c * inside))


NORMALISE = Operations(2, 2)  # (x − mean) · inv_std · γ + β
ACTIVATE = {
    "hsigmoid": Operations(1, 1),
    "hswish": Operations(2, 1),
    "hsigmoid02": Operations(1, 1),
    "sigmoid": Operations(1, 2),
    "swish": Operations(3, 2),
}


def of_each(operations, count) -> Operations:
    """So many numbers, each with these operations."""
    return Operations(operations.multiplications * count, operations.additions * count)
