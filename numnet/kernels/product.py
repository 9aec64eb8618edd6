"""The product of two tiles, cut into blocks that BLAS multiplies where they lie.

(1)  y[r, f]  = Σ_c x[r, c] · w[c, f]         a tile of rows r, all channels c, the filters f of one part
(2)  dw[c, f] = Σ_r x[r, c] · dy[r, f]        the gradient of (1), a tile's rows r

A BLAS is made for large matrices: it first copies both factors into an order of its own ("packing"), which pays when
every number is used many hundreds of times. A tile of a MobileNet is not like that: 49 pixels of a 7×7 map meet a
million weights, and each weight that was copied is used 49 times. OpenBLAS, SciPy's BLAS, multiplies in place while
rows · channels · filters ≤ 1,000,000. So a tile is cut into blocks below that size, and the blocks of one sum are
added by BLAS itself (its β = 1). What bounds a block:

* **Filters**, a multiple of 64: OpenBLAS takes 64 filters and 4 pixels at a time, 16 sums in registers. A rest of 16
  filters keeps 4 sums, too few to hide an addition behind the next.
* **Channels**, 128: the 64 columns of w that are in use then fit the first-level cache (32 KiB) while all pixels of the
  block go by. More do not, least of all where F is a power of two, whose columns fall into few places of the cache.
* **Order**: channels outermost, so that w is read in long stretches, once, and y waits in the second-level cache.

One core, GFLOP/s, the weights not in the cache; medians on a noisy machine:

    rows × C → F    49 × 192 → 1152    49 × 1024 → 1024    196 × 576 → 96    392 × 24 → 144    392 × 128 → 256
    ``np.dot``                   46                  38               80               73                 131
    in blocks                   111                  73              102              109                 154

Training multiplies many rows by the same weights, (2) and the gradient of x too. There packing pays for itself from
some 65,536 weights on (512 → 512: 1.2 times as fast whole), and blocks win below: 64 → 64 at 16×16 forward 4.1 → 3.3 ms,
backward 11.3 → 8.7 ms; 19 shapes of V1 and V2, one core in turn, by geometric mean 1.09 and 1.16 times as fast.

The blocks depend on the shapes alone, so the bits do too.

This is ``np.dot`` without its rules (whole arrays, nothing added): Numba's own binding of xGEMM, called with strides.
"""

import numpy as np
from numba.core.extending import overload
from numba.np.linalg import _BLAS, get_blas_kind

from numnet.kernels._jit import row

SMALL = 1_000_000  # rows · channels · filters up to which OpenBLAS does not pack
ROWS = 200  # of a block at most
CHANNELS = 128  # of a block at most: its weights share the first two levels of the cache with its rows
FILTERS = 128  # of a block at most
THIN = 65536  # weights up to which blocks are faster for many rows, too: 256 KiB of float32, an eighth of the L2 cache
PANEL = 64  # filters that OpenBLAS takes in one sweep of four registers; narrower rests run at half the speed


@row
def multiply(x, w, y):
    """(1): y = x · w for x (R, C), w (C, F), y (R, F), each row contiguous."""
    deep, wide, high = edges(*x.shape, w.shape[1])
    for c in range(0, x.shape[1], deep):
        for f in range(0, w.shape[1], wide):
            for r in range(0, x.shape[0], high):
                multiply_block(
                    x[r : r + high, c : c + deep],
                    w[c : c + deep, f : f + wide],
                    y[r : r + high, f : f + wide],
                    c > 0,
                    False,
                )


@row
def multiply_many(x, w, y):
    """(1) for a tile of many rows, all contiguous: in blocks where w is ``thin``, else whole."""
    if thin(*w.shape):
        multiply(x, w, y)
    else:
        np.dot(x, w, y)


@row
def multiply_transposed(x, d, dw, adds):
    """(2): dw (C, F) = xᵀ · d for x (R, C) and d (R, F), rows contiguous; added to what is there if ``adds``."""
    if not thin(*dw.shape):
        multiply_block(x, d, dw, adds, True)
        return
    deep, wide, high = edges(*x.shape, d.shape[1])
    for c in range(0, x.shape[1], deep):
        for f in range(0, d.shape[1], wide):
            for r in range(0, x.shape[0], high):
                multiply_block(
                    x[r : r + high, c : c + deep],
                    d[r : r + high, f : f + wide],
                    dw[c : c + deep, f : f + wide],
                    adds or r > 0,
                    True,
                )


@row
def thin(channels, filters):
    """True for weights so few that many rows are multiplied faster in blocks; else packing pays for itself."""
    return channels * filters <= THIN


@row
def turned(w):
    """wᵀ (F, C) of w (C, F), rows contiguous: BLAS multiplies by a transposed matrix in place at half the speed."""
    channels, filters = w.shape
    out = np.empty((filters, channels), w.dtype)
    for lo in range(0, channels, 16):  # sixteen rows of w at a time: a line of the cache of each row of out
        hi = min(lo + 16, channels)
        for f in range(filters):
            for c in range(lo, hi):
                out[f, c] = w[c, f]
    return out


@row
def edges(rows, channels, filters):
    """Channels, filters and rows of a block."""
    deep, wide = block(channels, CHANNELS, 16), block(filters, FILTERS, PANEL)
    return deep, wide, block(rows, min(SMALL // (deep * wide), ROWS), 4)


@row
def block(size, most, lanes):
    """The edge of near-equal blocks, none longer than ``most``; a multiple of ``lanes`` unless one block is enough."""
    if size <= most:
        return size
    blocks = (size + most - 1) // most
    even = (size + blocks - 1) // blocks
    return min((even + lanes - 1) // lanes * lanes, most // lanes * lanes)


def multiply_block(x, w, y, adds, turns):
    """y = x · w, or xᵀ · w if it ``turns``; added to what is there if it ``adds``."""
    part = np.dot(x.T if turns else x, w)
    y[:] = y + part if adds else part


@overload(multiply_block, inline="never")
def _multiply_block(x, w, y, adds, turns):
    """The same by xGEMM, whose matrices stand column by column: yᵀ = wᵀ xᵀ."""
    gemm, kind = _BLAS().numba_xxgemm(x.dtype), ord(get_blas_kind(x.dtype, "multiply"))
    plain, turned, like = ord("n"), ord("t"), np.dtype(str(x.dtype))
    one, zero, size = np.ones(1, like), np.zeros(1, like), like.itemsize

    def call(x, w, y, adds, turns):
        (inner, filters), rows = w.shape, y.shape[0]
        beta = one if adds else zero
        gemm(
            kind, plain, turned if turns else plain, filters, rows, inner, one.ctypes, w.ctypes, w.strides[0] // size,
            x.ctypes, x.strides[0] // size, beta.ctypes, y.ctypes, y.strides[0] // size,
        )  # fmt: skip

    return call
