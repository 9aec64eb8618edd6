"""What inference does to weights once: batch norm goes into them, and they are packed for the product.

With the running statistics a batch norm is one multiplication and one addition a channel (batchnorm's equations 2 and 3):

(1)  scale[f] = γ[f] / √(variance[f] + ε),   shift[f] = β[f] − mean[f] · scale[f]
(2)  (Σ_c x[c] · w[c, f]) · scale[f] + shift[f]  =  shift[f] + Σ_c x[c] · (w[c, f] · scale[f])

The right side of (2) costs nothing: the scale is multiplied into the weights, and sums begin with the shift in place of 0.
A depthwise convolution's weights take the scale of their channel in the same way.

**Seeing every change.** The folded, packed weights are a copy. Whether the net's own have changed since is asked at each
prediction, by a checksum of all of them: for each of 16 columns of the numbers' bits, as 64-bit integers,

(3)  a = Σ_i b_i,   c = Σ_i (n − i) · b_i           (Fletcher 1982: c sees the order, too)

modulo 2⁶⁴. Before b is added, its upper half is laid over its lower one (exclusive or). Otherwise signs could be lost: a sign
is the highest bit, and the sum of two highest bits is 0. Each weight is read once and added twice, at the speed of memory.
"""

import numpy as np
from numba import prange

from numnet.kernels._jit import kernel, row
from numnet.kernels.maps import share
from numnet.kernels.product import pack

COLUMNS, PARTS = 16, 8


@kernel(parallel=False)
def fold_all(flat, buffers, places, eps, at, out):
    """(1) for every channel of a net, by its places in the flat vectors; −1: γ = 1, β = 0, no statistics.

    places (4, channels): of γ, β, mean, variance; out[at[c, 0]] = scale, out[at[c, 1]] = shift.
    """
    for c in range(places.shape[1]):
        gamma, beta, mean, variance = places[:, c]
        scale, shift = 1.0, 0.0
        if gamma >= 0:
            scale = flat[gamma] / np.sqrt(np.float64(buffers[variance]) + eps[c])
            shift = -buffers[mean] * scale
        if beta >= 0:
            shift += flat[beta]
        out[at[c, 0]] = scale
        out[at[c, 1]] = shift


@row
def scale_columns(w, scale, out):
    """out (rows, columns) = w · scale (columns,)."""
    for r in range(w.shape[0]):
        for c in range(w.shape[1]):
            out[r, c] = w[r, c] * scale[c]


@kernel(parallel=False)
def pack_scaled(w, scale, out, v):
    """(2) for a product: w (C, F) · scale (F,), packed."""
    scaled = np.empty_like(w)
    scale_columns(w, scale, scaled)
    pack(scaled.reshape(-1), w.shape[0], w.shape[1], out, v)


@kernel(parallel=False)
def scale_taps(taps, scale, out):
    """(2) for a depthwise convolution: taps (K·K, C·M) · scale (C·M,)."""
    scale_columns(taps, scale, out)


@row
def add_words(words, sums):
    """Words (8·n, COLUMNS) into a and c, (3): sums (2, COLUMNS). Eight rows are summed up before a and c in memory change."""
    for i in range(0, words.shape[0], 8):
        for k in range(COLUMNS):
            a = c = np.uint64(0)
            for j in range(8):
                a += words[i + j, k] ^ (words[i + j, k] >> np.uint64(32))
                c += a
            sums[1, k] += c + np.uint64(8) * sums[0, k]
            sums[0, k] += a


@kernel
def _checksum(words, sums):
    for part in prange(PARTS):  # each part has its own sums
        first, last = share(part, PARTS, words.shape[0] // 8)
        add_words(words[8 * first : 8 * last], sums[part])


def checksum(numbers) -> bytes:
    """(3) of a flat array's bits; two arrays with equal checksums hold the same numbers in all likelihood."""
    words = numbers.view(np.uint32 if numbers.itemsize == 4 else np.uint64)
    block = 8 * COLUMNS * 8 // words.itemsize  # eight rows
    whole = words.size // block * block
    sums = np.zeros((PARTS, 2, COLUMNS), np.uint64)
    with np.errstate(over="ignore"):  # sums modulo 2⁶⁴; only plain Python would mention it
        _checksum(words[:whole].view(np.uint64).reshape(-1, COLUMNS), sums)
    return sums.tobytes() + words[whole:].tobytes()
