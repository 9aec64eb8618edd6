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

from numba import prange

from numnet.kernels import _check
from numnet.kernels._cost import Cost
from numnet.kernels._jit import kernel
from numnet.kernels.activations import IDENTITY
from numnet.kernels.batchnorm import TILE, empty_pack, normalise_activate
from numnet.kernels.rows import GROUP, add, copy, line_up, repeated, row_length


@kernel
def _sum(a, a_pack, a_code, b, b_pack, b_code, y):
    """(1). a, b, y (R, C); a pack is empty (finished) or (4, C)."""
    rows, channels = a.shape
    length = row_length(channels)
    pack_a = repeated(a_pack, length if a_pack.size else 0)
    pack_b = repeated(b_pack, length if b_pack.size else 0)
    step = max(1, TILE // channels)
    for tile in prange((rows + step - 1) // step):  # each tile writes its own pixels of y
        lo, hi = tile * step, min((tile + 1) * step, rows)
        first, second, out = a[lo:hi].reshape(-1), b[lo:hi].reshape(-1), y[lo:hi].reshape(-1)
        finished = line_up(GROUP * length, a)
        for i in range(0, out.size, GROUP * length):
            j = min(i + GROUP * length, out.size)
            if pack_a.size:
                normalise_activate(first[i:j], pack_a, a_code, out[i:j])
            else:
                copy(first[i:j], out[i:j])
            if pack_b.size:
                normalise_activate(second[i:j], pack_b, b_code, finished[: j - i])
                add(out[i:j], finished[: j - i])
            else:
                add(out[i:j], second[i:j])


@kernel
def _add_gradient(dx, more):
    """(3): dx += more, vectors."""
    for tile in prange((dx.size + TILE - 1) // TILE):  # each tile writes its own stretch of dx
        lo, hi = tile * TILE, min((tile + 1) * TILE, dx.size)
        add(dx[lo:hi], more[lo:hi])


# ------------------------------------------------------------------------------------ used by blocks


def unit_forward(a, a_pack, a_code, b, b_pack, b_code, y):
    """y (…, C) = finished(a) + finished(b). No checks."""
    shape = (a.size // a.shape[-1], a.shape[-1])
    _sum(a.reshape(shape), a_pack, a_code, b.reshape(shape), b_pack, b_code, y.reshape(shape))


def unit_add_gradient(dx, more):
    """dx (…, C) gains ``more``, (3). No checks."""
    _add_gradient(dx.reshape(-1), more.reshape(-1))


# ---------------------------------------------------------------------------------------------- public


def add_forward(a, b, out=None):
    """y = a + b of two maps (N, H, W, C), equation (1); backward is dy for both. Raises ValueError for wrong arrays."""
    a = _check.tensor("a", a, (None, None, None, None))
    b = _check.tensor("b", b, a.shape, a.dtype)
    out = _check.output("out", out, a.shape, a.dtype)
    _check.apart(out, a=a, b=b)
    none = empty_pack(a.dtype)
    if a.size:
        unit_forward(a, none, IDENTITY, b, none, IDENTITY, out)
    return out


def residual_cost(n: int, h: int, w: int, c: int) -> Cost:
    """No MACs; N·H·W·C numbers are added."""
    size = n * h * w * c
    return Cost(elementwise=size, inputs=2 * size, outputs=size)
