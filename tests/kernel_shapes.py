"""The shapes that every kernel is tested on, the bounds, and how random arrays are drawn.

Small enough for the oracle's loops, odd enough that no two numbers can be mixed up unnoticed.
"""

import os
from typing import NamedTuple

import numpy as np
import oracle
import pytest

from numnet.kernels import pointwise
from numnet.kernels.maps import Folded
from numnet.kernels.pointwise import room_of

# How exact is exact: every bound is a multiple of the largest entry of what is compared with.
ORACLE = 1e-12  # float64 against the oracle: the same sums in another order
TORCH = {"float64": 1e-10, "float32": 1e-5}  # PyTorch has other orders, and float32 has 24 bits
DIFFERENCES = 1e-7  # central differences: truncation h² beside rounding 1e-16/h
DOT = 1e-12  # the dot-product test, in units of ‖dy‖‖y‖

CHECKING = os.environ.get("NUMNET_CHECK", "0") not in ("", "0")
# An index is out of bounds in both dtypes or in neither: the slow mode compiles one of them.
DTYPES = ["float64"] if CHECKING else ["float64", "float32"]
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)
needs_float32 = pytest.mark.skipif(CHECKING, reason="the check mode compiles float64 only")


class Shape(NamedTuple):
    """One convolution. ``kernel``: a side or (height, width); ``multiplier``: of the depthwise one."""

    images: int
    height: int
    width: int
    channels: int
    filters: int
    kernel: int | tuple
    stride: int = 1
    padding: str | int | tuple = "same"
    multiplier: int = 1

    @property
    def name(self):
        side = "x".join(map(str, oracle.pair(self.kernel)))
        padding = str(self.padding).replace(" ", "")
        return (
            f"{self.images}x{self.height}x{self.width}x{self.channels}to{self.filters}"
            f"-k{side}s{self.stride}-{padding}-m{self.multiplier}"
        )

    @property
    def x(self):
        return self.images, self.height, self.width, self.channels

    @property
    def pads(self):
        return oracle.resolve(self.padding, (self.height, self.width), self.kernel, self.stride)

    @property
    def pixels(self):
        """(P, Q)."""
        kernel, stride = oracle.pair(self.kernel), oracle.pair(self.stride)
        return oracle.output_size((self.height, self.width), kernel, stride, self.pads)

    @property
    def conv_w(self):
        return *oracle.pair(self.kernel), self.channels, self.filters

    @property
    def conv_y(self):
        return self.images, *self.pixels, self.filters

    @property
    def depthwise_w(self):
        return *oracle.pair(self.kernel), self.channels, self.multiplier

    @property
    def depthwise_y(self):
        return self.images, *self.pixels, self.channels * self.multiplier


SHAPES = [
    Shape(1, 1, 1, 1, 1, 1),  # the smallest there is
    Shape(1, 1, 1, 1024, 3, 1),  # the end of a net: one pixel, many channels
    Shape(2, 1, 1, 5, 7, 3),  # eight of nine taps on the padding
    Shape(2, 5, 7, 3, 5, 3),
    Shape(2, 5, 7, 3, 5, 3, 2, multiplier=2),  # odd sides: "same" pads both ends
    Shape(2, 6, 8, 3, 5, 3, 2),  # even sides at stride 2: "same" pads the end only …
    Shape(2, 6, 8, 3, 5, 3, 2, "symmetric"),  # … and PyTorch the beginning: other numbers
    Shape(1, 7, 6, 4, 9, 3, 3, multiplier=3),
    Shape(2, 7, 8, 2, 3, 2, 2),  # an even kernel
    Shape(3, 8, 5, 2, 11, 5, 1, "same", 2),
    Shape(2, 9, 10, 6, 13, 5, 2, "symmetric"),
    Shape(2, 8, 8, 6, 13, 5, 2),
    Shape(1, 9, 7, 3, 6, 7, 1, "symmetric", 3),
    Shape(1, 10, 8, 3, 17, 7, 2),  # GoogLeNet's stem
    Shape(2, 9, 9, 3, 8, 7, 3, 3),
    Shape(2, 6, 5, 4, 3, 1, 2),  # stride > kernel: pixels that no window reads, whose dx is 0
    Shape(1, 7, 8, 3, 5, 1, 3, 0, 2),
    Shape(2, 8, 9, 3, 5, 2, 3, 0),
    Shape(2, 6, 6, 3, 4, 3, 2, 0),  # no padding: the last row and column are read by no window
    Shape(2, 4, 5, 3, 4, 3, 1, ((0, 2), (1, 0))),
    Shape(1, 5, 4, 2, 3, 3, 2, ((2, 0), (0, 3)), 2),
    Shape(1, 4, 3, 2, 5, 3, 1, ((4, 0), (0, 5)), 2),  # windows that lie in the padding altogether
    Shape(2, 6, 7, 5, 12, (1, 7)),
    Shape(2, 6, 7, 5, 10, (5, 3), 2, "symmetric"),
    Shape(1, 4, 4, 1024, 3, 3),
    Shape(2, 3, 3, 257, 31, 3),  # one channel more than a long row has numbers
    Shape(2, 6, 5, 130, 7, 3, 2, "same", 2),  # 260 outputs
    Shape(11, 3, 3, 8, 16, 3),  # more images than partial sums, and no multiple of them
    Shape(19, 2, 2, 3, 5, 3, 2, "symmetric"),
    Shape(1, 40, 48, 3, 8, 3),  # several tiles of an image
    Shape(1, 20, 20, 64, 18, 3),  # the smallest tiles: 128 and 256 pixels; a depthwise row of three stretches
]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)

# So few numbers that two passes a number cost nothing: for finite differences.
TINY = [
    Shape(1, 2, 3, 2, 3, 3),
    Shape(1, 4, 3, 2, 2, 3, 2),
    Shape(1, 4, 3, 2, 2, 3, 2, "symmetric", 2),
    Shape(2, 3, 4, 1, 2, 2, 3, 0, 3),
]

# Real layers of MobileNetV1 and V3 at 224×224: (N, H, W, C, F, K, s, padding)
LAYERS = [
    Shape(1, 224, 224, 3, 32, 3, 2),
    Shape(2, 112, 112, 32, 64, 3, 1),
    Shape(2, 112, 112, 64, 128, 3, 2),
    Shape(2, 56, 56, 72, 40, 5, 2, "symmetric"),
    Shape(3, 14, 14, 512, 512, 3),
    Shape(3, 14, 14, 512, 1024, 3, 2, "symmetric"),
    Shape(4, 7, 7, 1024, 1000, 3),
    Shape(2, 7, 7, 960, 160, 5),
]


def draw(*shapes, dtype="float64", seed=0):
    """Standard normal arrays of these shapes; also for dy, always: under ones a flipped dy looks right."""
    rng = np.random.default_rng([seed, *(n for shape in shapes for n in shape)])
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def folded(w, shift, scale=None):
    """The weights w with their scale (or 1) and shift, as inference's passes take them."""
    return Folded(w.reshape(-1), np.ones_like(shift) if scale is None else scale.copy(), shift.copy())


def room(*units):
    """Scratch for the packed weights of these units, none of it a number yet."""
    return np.full(sum(room_of(unit) for unit in units), np.nan, units[0].w.dtype)


def run(step):
    """Run a step of inference: a kernel and its arguments."""
    kernel, arguments = step
    kernel(*arguments)


def product_ends(x, unit, code, skip, y, way=pointwise):
    """y (…, F) = activation(x (…, C) · w · scale + shift) + skip by the pointwise page's pass, or by the dense page's."""
    given = x.reshape(-1), unit, code, skip.reshape(-1), y.reshape(-1)
    run(way.inference_step(*given, *([room(unit)] if way is pointwise else [])))


def close(got, want, bound, what=""):
    """Assert max|got − want| ≤ bound · max|want| (false for a NaN), shapes equal."""
    error = oracle.error(got, want)
    assert error <= bound, f"{what}: off by {error:.2e} of the largest entry, allowed {bound:.0e}"


def differences(function, x, step=1e-5):
    """∂function/∂x by central differences, every entry of x (float64); ``function()`` is a number."""
    gradient = np.empty_like(x)
    flat, out = x.reshape(-1), gradient.reshape(-1)
    for i in range(flat.size):
        middle = flat[i]
        flat[i] = middle + step
        above = function()
        flat[i] = middle - step
        out[i] = (above - function()) / (2 * step)
        flat[i] = middle
    return gradient


def dot_product_test(dy, y, *pairs):
    """⟨dy, y⟩ = ⟨da, a⟩ for each (da, a): y is linear in a, da is the gradient of ⟨dy, y⟩."""
    want = np.vdot(dy, y)
    scale = np.linalg.norm(dy) * np.linalg.norm(y)
    for gradient, a in pairs:
        assert abs(np.vdot(gradient, a) - want) <= DOT * scale
