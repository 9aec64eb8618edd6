"""The product of two tiles, cut into blocks that BLAS multiplies where they lie.

(1)  y[r, f]  = Σ_c x[r, c] · w[c, f]         a tile of rows r, all channels c, the filters f of one part
(2)  dw[c, f] = Σ_r x[r, c] · dy[r, f]        the gradient of (1), a tile's rows r

A BLAS is made for large matrices: it first copies both factors into an order of its own ("packing"), which pays when
every number is used hundreds of times. A tile of a MobileNet is not like that: 49 pixels of a 7×7 map meet a million
weights, and each weight that was copied is used 49 times. OpenBLAS, SciPy's BLAS, multiplies in place
while rows · channels · filters ≤ 1,000,000. So a tile is cut into blocks below that size, and the blocks of one sum
are added by BLAS itself (its β = 1). One core, GFLOP/s, the whole tile at once and in blocks; medians of two runs on a
noisy machine:

    rows × C → F        49 × 1024 → 1024    49 × 320 → 1280    196 × 576 → 96    3136 × 24 → 144    3136 × 128 → 256
    ``np.dot``                    74, 48             77, 66          101, 110             82, 70            118, 110
    in blocks                     66, 49             74, 65           127, 97            111, 84              79, 79

So blocks pay for thin products, such as the expansions of V2's first blocks; for few rows they change little here; and
many rows of a middling width are better left whole. Hence the rule: blocks where there are few rows, or where w is so
``thin`` that a block has room for 32 of them. In training a thin layer's forward became 1.1 to 1.3 times as fast and its
backward 1.1 to 1.35 times (64 → 64 at 16×16: 4.85 → 3.87 and 10.9 → 8.4 ms, one core in turn). BLAS multiplies by a
transposed w without packing at half the speed; so backward turns a thin w over once, before the tiles.

The blocks depend on the shapes alone, so the bits do too.

This is ``np.dot`` without its rules (whole arrays, nothing added): Numba's own binding of xGEMM, called with strides.
"""

import numpy as np
from numba.core.extending import overload
from numba.np.linalg import _BLAS, get_blas_kind

from numnet.kernels._jit import row

SMALL = 1_000_000  # rows · channels · filters up to which OpenBLAS does not pack
ROWS = 64  # of a block at least: w is read once for them
MOST = 256  # and at most, where it is thin
LEAST = 32  # rows that a block of thin weights has room for
LARGE = 131072  # weights from which packing pays, with so many rows
CHANNELS = 192  # of a block at most: a block of x and one of w share the first levels of the cache
LANES = 16  # a block's edges are multiples of this where they can be


@row
def multiply(x, w, y, f0, f1):
    """(1): y[:, f0:f1] = x · w[:, f0:f1] for x (R, C), w (C, F), y (R, F), rows contiguous."""
    rows, channels = x.shape
    if packs(rows, channels, f1 - f0):
        multiply_block(x, w, y, 0, rows, 0, channels, f0, f1)
        return
    deep = block(channels, CHANNELS, LANES)
    high = block(rows, min(max(SMALL // (deep * (f1 - f0)), LEAST if thin(deep, f1 - f0) else ROWS), MOST), 1)
    wide = block(f1 - f0, max(SMALL // (high * deep), LANES), LANES)
    for f in range(f0, f1, wide):
        for r in range(0, rows, high):
            for c in range(0, channels, deep):
                multiply_block(
                    x, w, y, r, min(r + high, rows), c, min(c + deep, channels), f, min(f + wide, f1)
                )


@row
def packs(rows, channels, filters):
    """True if there is enough work in the product to pay for the packing: then it is left whole."""
    return rows >= MOST and not thin(channels, filters)


@row
def thin(channels, filters):
    """True for weights so few that LEAST rows and more can meet them in one product that is not packed."""
    return LEAST * channels * filters <= SMALL


@row
def multiply_transposed(x, d, dw, adds):
    """(2): dw (C, F) = xᵀ · d for x (R, C) and d (R, F), rows contiguous; added to what is there if ``adds``."""
    rows, channels = x.shape
    high = rows
    if thin(channels, d.shape[1]):
        high = block(rows, min(SMALL // (channels * d.shape[1]), MOST), LANES)
    for r in range(0, rows, high):
        transposed_block(x, d, dw, r, min(r + high, rows), adds or r > 0)


@row
def block(size, most, lanes):
    """The edge of near-equal blocks, none longer than ``most``; a multiple of ``lanes`` unless one block is enough."""
    if size <= most:
        return size
    blocks = (size + most - 1) // most
    even = (size + blocks - 1) // blocks
    return min((even + lanes - 1) // lanes * lanes, most // lanes * lanes)


def multiply_block(x, w, y, r0, r1, c0, c1, f0, f1):
    """y[r0:r1, f0:f1] = x[r0:r1, c0:c1] · w[c0:c1, f0:f1], added to what is there if c0 > 0."""
    part = np.dot(x[r0:r1, c0:c1], w[c0:c1, f0:f1])
    y[r0:r1, f0:f1] = y[r0:r1, f0:f1] + part if c0 else part


@overload(multiply_block, inline="never")
def _multiply_block(x, w, y, r0, r1, c0, c1, f0, f1):
    """The same by xGEMM, whose matrices stand column by column: yᵀ = wᵀ xᵀ."""
    gemm, kind, plain = _BLAS().numba_xxgemm(x.dtype), ord(get_blas_kind(x.dtype, "multiply")), ord("n")
    like = np.dtype(str(x.dtype))
    one, zero = np.ones(1, like), np.zeros(1, like)

    def call(x, w, y, r0, r1, c0, c1, f0, f1):
        a, b = w.reshape(-1)[c0 * w.shape[1] + f0 :], x.reshape(-1)[r0 * x.shape[1] + c0 :]
        out = y.reshape(-1)[r0 * y.shape[1] + f0 :]
        beta = one if c0 else zero
        sizes = f1 - f0, r1 - r0, c1 - c0
        gemm(
            kind, plain, plain, sizes[0], sizes[1], sizes[2], one.ctypes, a.ctypes, w.shape[1],
            b.ctypes, x.shape[1], beta.ctypes, out.ctypes, y.shape[1],
        )  # fmt: skip

    return call


def transposed_block(x, d, dw, r0, r1, adds):
    """dw = x[r0:r1]ᵀ · d[r0:r1], added to what is there if ``adds``."""
    part = np.dot(x[r0:r1].T, d[r0:r1])
    dw[:] = dw + part if adds else part


@overload(transposed_block, inline="never")
def _transposed_block(x, d, dw, r0, r1, adds):
    """The same by xGEMM: dwᵀ = dᵀ x."""
    gemm, kind = _BLAS().numba_xxgemm(x.dtype), ord(get_blas_kind(x.dtype, "multiply"))
    plain, transposed = ord("n"), ord("t")
    like = np.dtype(str(x.dtype))
    one, zero = np.ones(1, like), np.zeros(1, like)

    def call(x, d, dw, r0, r1, adds):
        a, b = d.reshape(-1)[r0 * d.shape[1] :], x.reshape(-1)[r0 * x.shape[1] :]
        beta = one if adds else zero
        gemm(
            kind, plain, transposed, d.shape[1], x.shape[1], r1 - r0, one.ctypes, a.ctypes, d.shape[1],
            b.ctypes, x.shape[1], beta.ctypes, dw.ctypes, dw.shape[1],
        )  # fmt: skip

    return call
