"""The drawing board of the built-in data set: ten figures, each a formula for the distance to its outline.

A figure is described by its signed distance: d(q) < 0 inside, 0 on the outline, > 0 outside. With it a figure
of any place, size and turn is drawn sharp and without a jagged edge:

(1)  q = Rᵀ·(p − centre) / radius            the pixel p in the figure's own frame: unit circle, unturned
(2)  cover = clip(½ − radius·d(q), 0, 1)     the share of the pixel that the figure covers
(3)  colour ← colour + cover·(paint − colour)

Figures are put together from discs, boxes and half-planes: the union of two is min(d1, d2), their
intersection max(d1, d2), a cut max(d1, −d2), an outline of half width t is |d| − t. (Min and max give the
distance itself near straight edges and a lower bound elsewhere, which is all that (2) needs.)

A scene is a ramp between two colours, a handful of strokes and dots under the figure, the figure, and noise.
All that is drawn by lot — places, sizes, turns, colours — is a number from the counter (``kernels.random``),
so image i is the same whoever asks for it, and the draws know nothing of the class: colour alone tells
nothing. The figure's paint is the one of eight drawn colours that lies farthest from both ends of the ramp.

Shapes: classes (N,) int64, images (N, 32, 32, 3) uint8. Not supported: other sizes, other figures.
"""

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._jit import kernel, row
from numnet.kernels.random import SHAPES, hash64, uniform

FIGURES = ("disc", "ring", "crescent", "square", "frame", "bar", "triangle", "cross", "star", "heart")
SIDE = 32
DRAWS = 256  # numbers set aside for one image
PLACE, RAMP, PAINT, CLUTTER = 0, 16, 32, 64  # where in them the draws for each part of the scene begin
PAINTS, PIECES = 8, 6
SMALL, LARGE = 9.0, 13.0  # radius of the figure in pixels
NOISE = 0.06  # half the range of what is added to each byte, as a share of 255

_TAU = 2 * np.pi
_21 = np.uint64(21)
_MASK = np.uint64((1 << 21) - 1)


# ---------------------------------------------------------------------------------- figures: signed distances


@row
def disc(x, y, radius):
    """Negative inside the circle around the origin."""
    return np.sqrt(x * x + y * y) - radius


@row
def box(x, y, a, b):
    """Negative inside |x| < a, |y| < b."""
    return max(abs(x) - a, abs(y) - b)


@row
def side(x, y, turn, distance):
    """Negative on the origin's side of a line; its normal points to ``turn``, a share of the circle."""
    return x * np.cos(_TAU * turn) + y * np.sin(_TAU * turn) - distance


@row
def triangle(x, y):
    """Three half-planes."""
    return max(side(x, y, 1 / 4, 0.5), max(side(x, y, 7 / 12, 0.5), side(x, y, 11 / 12, 0.5)))


@row
def star(x, y):
    """Five points: two half-planes make one point, and the plane is turned to the nearest of five."""
    turn = np.arctan2(y, x) / _TAU * 5
    turn = abs(turn - np.floor(turn + 0.5)) / 5  # from the axis of the nearest point, mirrored: 0 … 1/10
    radius = np.sqrt(x * x + y * y)
    # Tip at 1, notch at 0.45
    return side(radius * np.cos(_TAU * turn), radius * np.sin(_TAU * turn), 0.187, 0.384)


@row
def heart(x, y):
    """Two discs side by side, and the right angle of two lines that touch them; mirrored at x = 0."""
    lobe = disc(abs(x) - 0.45, y + 0.25, 0.48)
    return min(lobe, max(side(abs(x), y, 1 / 8, 0.62), disc(x, y - 0.88, 1.12)))


@row
def distance(figure, x, y):
    """d(q) of the figure with that number in FIGURES, all of them within the unit circle."""
    if figure == 0:
        return disc(x, y, 0.85)
    if figure == 1:
        return abs(disc(x, y, 0.72)) - 0.2
    if figure == 2:
        return max(disc(x, y, 0.95), -disc(x - 0.45, y, 0.75))
    if figure == 3:
        return box(x, y, 0.7, 0.7)
    if figure == 4:
        return abs(box(x, y, 0.54, 0.54)) - 0.16
    if figure == 5:
        return box(x, y, 0.95, 0.28)
    if figure == 6:
        return triangle(x, y)
    if figure == 7:
        return min(box(x, y, 0.95, 0.27), box(x, y, 0.27, 0.95))
    if figure == 8:
        return star(x, y)
    return heart(x, y)


# ------------------------------------------------------------------------------------------------------ scene


@row
def between(seed, split, index, k, low, high):
    """Draw number k of an image: uniform in [low, high)."""
    return low + (high - low) * uniform(seed, SHAPES, split, DRAWS * index + k)


@row
def cover(d):
    """Equation (2) for a distance in pixels."""
    return min(max(0.5 - d, 0.0), 1.0)


@row
def paint_over(canvas, share, paint):
    """Equation (3) for one pixel."""
    for c in range(3):
        canvas[c] += share * (paint[c] - canvas[c])


@row
def draw_ramp(seed, split, index, first, last):
    """Draw the two colours of the background."""
    for c in range(3):
        first[c] = between(seed, split, index, RAMP + c, 0.0, 1.0)
        last[c] = first[c] + between(seed, split, index, RAMP + 3 + c, -0.4, 0.4)


@row
def draw_paint(seed, split, index, first, last, paint):
    """Of PAINTS drawn colours, keep the one farthest from both colours of the background."""
    best = -1.0
    for j in range(PAINTS):
        near, far = 0.0, 0.0
        for c in range(3):
            colour = between(seed, split, index, PAINT + 3 * j + c, 0.0, 1.0)
            near += (colour - first[c]) ** 2
            far += (colour - last[c]) ** 2
        if min(near, far) > best:
            best = min(near, far)
            for c in range(3):
                paint[c] = between(seed, split, index, PAINT + 3 * j + c, 0.0, 1.0)


@row
def draw_pieces(seed, split, index, pieces):
    """Draw the clutter: strokes of some length, or dots of none. Each has a start, an end, half a width, a colour."""
    for j in range(PIECES):
        k = CLUTTER + 16 * j
        turn = between(seed, split, index, k, 0.0, _TAU)
        length = max(between(seed, split, index, k + 1, -8.0, 12.0), 0.0)
        for a in range(2):
            pieces[j, a] = between(seed, split, index, k + 2 + a, 0.0, SIDE)
        pieces[j, 2] = length * np.cos(turn)
        pieces[j, 3] = length * np.sin(turn)
        pieces[j, 4] = between(seed, split, index, k + 4, 0.5, 1.3)
        for c in range(3):
            pieces[j, 5 + c] = between(seed, split, index, k + 5 + c, 0.0, 1.0)


@row
def stroke(x, y, piece):
    """The distance in pixels to a stroke: to the nearest point of its axis, less half its width."""
    dx, dy = piece[2], piece[3]
    along = ((x - piece[0]) * dx + (y - piece[1]) * dy) / max(dx * dx + dy * dy, 1e-9)
    along = min(max(along, 0.0), 1.0)
    return disc(x - piece[0] - along * dx, y - piece[1] - along * dy, piece[4])


@kernel
def _draw(classes, seed, split, images):
    for n in prange(classes.size):  # an image is written by its own turn only
        first, last, paint, canvas = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
        pieces = np.empty((PIECES, 8))
        draw_ramp(seed, split, n, first, last)
        draw_paint(seed, split, n, first, last, paint)
        draw_pieces(seed, split, n, pieces)
        radius = between(seed, split, n, PLACE, SMALL, LARGE)
        cx = between(seed, split, n, PLACE + 1, radius - 1, SIDE - radius + 1)
        cy = between(seed, split, n, PLACE + 2, radius - 1, SIDE - radius + 1)
        turn = between(seed, split, n, PLACE + 3, 0.0, _TAU)
        slope = between(seed, split, n, PLACE + 4, 0.0, _TAU)
        for h in range(SIDE):
            for w in range(SIDE):
                x, y = w + 0.5, h + 0.5
                along = (x / SIDE - 0.5) * np.cos(slope) + (y / SIDE - 0.5) * np.sin(slope)
                for c in range(3):
                    canvas[c] = first[c] + (0.5 + along / np.sqrt(2.0)) * (last[c] - first[c])
                for j in range(PIECES):
                    paint_over(canvas, cover(stroke(x, y, pieces[j])), pieces[j, 5:])
                u = ((x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)) / radius
                v = ((y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)) / radius
                paint_over(canvas, cover(radius * distance(classes[n], u, v)), paint)
                bits = hash64(seed, SHAPES, split + 2, (n * SIDE + h) * SIDE + w)
                for c in range(3):
                    noise = np.float64(bits & _MASK) * 2.0**-20 - 1.0
                    bits >>= _21
                    value = 255 * (canvas[c] + NOISE * noise)
                    images[n, h, w, c] = np.uint8(min(max(value + 0.5, 0.0), 255.0))


def draw(classes, *, seed, split):
    """One image for each class number, (N, 32, 32, 3) uint8. ``split``: 0 or 1, two sets that share no draw.

    Image i depends on its class, ``seed``, ``split`` and i alone. Raises ValueError.
    """
    classes = np.ascontiguousarray(classes, np.int64)
    if classes.ndim != 1 or (classes.size and not 0 <= classes.min() <= classes.max() < len(FIGURES)):
        raise ValueError(f"classes: expected a list of numbers from 0 to {len(FIGURES) - 1}")
    if split not in (0, 1):
        raise ValueError(f"split: expected 0 or 1, got {split!r}")
    images = np.empty((classes.size, SIDE, SIDE, 3), np.uint8)
    _draw(classes, _check.positive("seed", seed, 0), split, images)
    return images
