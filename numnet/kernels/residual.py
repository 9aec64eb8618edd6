"""The sum of two maps: where a block's output and its input meet, and where two gradients of one map meet.

(1)  y = a + b          a the end of a block's branch, b the block's input (He et al. 2016; Sandler et al. 2018, figure 4)
(2)  da = dy,  db = dy  the sum hands its gradient to both, unchanged
(3)  dx = dx' + dx''    of a map with two readers: each reader's gradient adds (the chain rule's sum over paths)

In (1) either map may be raw, with its pack: it is normalised and activated on the way (batchnorm's equations 2 and 3),
so that the projection of an inverted residual is finished and added in one pass, and never written alone. (3) is the
block's input seen from behind: the branch gave it dx', the skip dx'' = dy. A block needs no pass for that: its first
convolution is handed dy and adds it to each tile of dx' before the tile leaves the cache (``more`` on the pointwise and
the depthwise page). The pass below is for branches, which meet only when all are done.

No multiplications of its own; one addition a number in (1) and in (3), none in (2).
"""

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._cost import Cost
from numnet.kernels._jit import kernel
from numnet.kernels.batchnorm import TILE, finished_tile, source_of
from numnet.kernels.pointwise import flat
from numnet.kernels.rows import add, copy

# ---------------------------------------------------------------------------------------------- the definition


@kernel(parallel=False)
def _definition(a, b, y):
    for i in range(y.size):
        y[i] = a[i] + b[i]  # (1); and (3), for a and b gradients


def definition(a, b):
    """y = a + b by (1), number by number; backward has nothing to work out: dy is the gradient of both (2).

    Raises like ``add_forward``.
    """
    a, b = _arguments(a, b)
    y = np.empty_like(a)
    _definition(a.reshape(-1), b.reshape(-1), y.reshape(-1))
    return y


# ---------------------------------------------------------------------------------------------- passes


@kernel
def _sum(a, b, y, channels):
    """(1). a, b: sources of flat maps; y flat."""
    step = max(1, TILE // channels) * channels
    for tile in prange((y.size + step - 1) // step):  # each tile writes its own pixels of y
        lo, hi = tile * step, min((tile + 1) * step, y.size)
        scratch = np.empty((2, step), y.dtype)
        copy(finished_tile(a.raw[lo:hi], a, scratch[0]), y[lo:hi])
        add(y[lo:hi], finished_tile(b.raw[lo:hi], b, scratch[1]))


@kernel
def _add_gradient(dx, more):
    """(3): dx += more, vectors."""
    for tile in prange((dx.size + TILE - 1) // TILE):  # each tile writes its own numbers of dx
        lo, hi = tile * TILE, min((tile + 1) * TILE, dx.size)
        add(dx[lo:hi], more[lo:hi])


# ------------------------------------------------------------------------------------ used by blocks


def unit_forward(a, b, y):
    """y (…, C) = finished(a) + finished(b), for two sources. No checks."""
    _sum(flat(a), flat(b), y.reshape(-1), y.shape[-1])


def unit_add_gradient(dx, more):
    """dx (…, C) gains ``more``, (3). No checks."""
    _add_gradient(dx.reshape(-1), more.reshape(-1))


# ---------------------------------------------------------------------------------------------- public


def add_forward(a, b, out=None):
    """y = a + b of two maps (N, H, W, C), equation (1); backward is dy for both. Raises ValueError for wrong arrays."""
    a, b = _arguments(a, b)
    out = _check.output("out", out, a.shape, a.dtype)
    _check.apart(out, a=a, b=b)
    if a.size:
        unit_forward(source_of(a), source_of(b), out)
    return out


def _arguments(a, b):
    a = _check.tensor("a", a, (None, None, None, None))
    return a, _check.tensor("b", b, a.shape, a.dtype)


def residual_cost(n: int, h: int, w: int, c: int) -> Cost:
    """No MACs; N·H·W·C numbers are added."""
    size = n * h * w * c
    return Cost(elementwise=size, inputs=2 * size, outputs=size)
