"""Row functions that several pages share: arithmetic on long vectors, with no idea of images or layers.

In NHWC the C channels of a pixel lie side by side, so a *row* of r pixels is one vector of r·C numbers. A loop over
16 channels is all prologue for a vector unit; a loop over 256 numbers is not. So whatever belongs to a channel — a
depthwise weight, a mean, a gamma — is *repeated* along a row of L = r·C ≥ 256 numbers, and every inner loop of
numnet runs over L, whatever C is (at 8 channels: 2.1 → 0.4 ms for one depthwise map of 128 images at 32×32).
"""

import numpy as np

from numnet.kernels._jit import row

_u = np.uint64
LONG = 256  # numbers a row has at least: 8 KiB for the nine weights of a 3×3 kernel, well inside the first-level cache


@row
def row_length(channels):
    """L: the least multiple of C that is at least LONG."""
    return channels * max(1, (LONG + channels - 1) // channels)


@row
def repeated(values, length):
    """A table (k, C) repeated along rows of L numbers: (k, L)."""
    k, channels = values.shape
    out = np.empty((k, length), values.dtype)
    for j in range(k):
        for lo in range(0, length, channels):
            for c in range(channels):
                out[j, lo + c] = values[j, c]
    return out


@row
def fold(long, total):
    """Add a long row (L,) up into its channels (C,): total[c] += Σ long[c + j·C], in the precision of total."""
    for lo in range(0, long.size, total.size):
        for c in range(total.size):
            total[c] += long[lo + c]


# The next five read stretches of one long ``source``, at offsets that only the caller knows. The offsets are unsigned:
# a signed index is tested for counting from the end, and that test in the loop stops the vectoriser (8 times slower).


@row
def multiply_add(y, lo, n, source, at, t, w, k):
    """y[lo …] += source[at[t] + lo …] · w[k], n numbers: one tap of a depthwise convolution."""
    z, a = _u(lo), _u(at[t] + lo)
    for i in range(_u(n)):
        y[z + i] += source[a + i] * w[k, i]


@row
def multiply_add_3(y, lo, n, source, at, t, w, k):
    """Three taps, t … t + 2 and k … k + 2, while y is in a register."""
    z, a, b, c = _u(lo), _u(at[t] + lo), _u(at[t + 1] + lo), _u(at[t + 2] + lo)
    for i in range(_u(n)):
        y[z + i] += source[a + i] * w[k, i] + source[b + i] * w[k + 1, i] + source[c + i] * w[k + 2, i]


@row
def multiply_add_9(y, lo, n, source, at, t, w, k):
    """Nine taps: a whole 3×3 kernel in one sweep, 1.5 times the speed of three sweeps of three."""
    z, a, b, c = _u(lo), _u(at[t] + lo), _u(at[t + 1] + lo), _u(at[t + 2] + lo)
    d, e, f = _u(at[t + 3] + lo), _u(at[t + 4] + lo), _u(at[t + 5] + lo)
    g, h, j = _u(at[t + 6] + lo), _u(at[t + 7] + lo), _u(at[t + 8] + lo)
    for i in range(_u(n)):
        y[z + i] += (
            (source[a + i] * w[k, i] + source[b + i] * w[k + 1, i] + source[c + i] * w[k + 2, i])
            + (source[d + i] * w[k + 3, i] + source[e + i] * w[k + 4, i] + source[f + i] * w[k + 5, i])
            + (source[g + i] * w[k + 6, i] + source[h + i] * w[k + 7, i] + source[j + i] * w[k + 8, i])
        )


@row
def add_products(dw, y, lo, n, source, at, t):
    """dw += source[at[t] + lo …] · y[lo …], n numbers: one tap of the gradient of a depthwise convolution."""
    z, a = _u(lo), _u(at[t] + lo)
    for i in range(_u(n)):
        dw[i] += y[z + i] * source[a + i]


@row
def add_products_3(dw0, dw1, dw2, y, lo, n, source, at, t):
    """Three taps, t … t + 2, while y is in a register. (Nine at once run out of registers: no faster.)"""
    z, a, b, c = _u(lo), _u(at[t] + lo), _u(at[t + 1] + lo), _u(at[t + 2] + lo)
    for i in range(_u(n)):
        d = y[z + i]
        dw0[i] += d * source[a + i]
        dw1[i] += d * source[b + i]
        dw2[i] += d * source[c + i]


@row
def add(y, x):
    """y += x."""
    for i in range(y.size):
        y[i] += x[i]


@row
def zero(y):
    """y = 0. (An assignment to a slice would do, and take Numba seconds longer to compile.)"""
    for i in range(y.size):
        y[i] = 0


@row
def copy(x, y):
    """y = x."""
    for i in range(y.size):
        y[i] = x[i]


@row
def share(part, parts, count):
    """Items lo … hi − 1 of part number ``part`` when ``count`` items are cut into ``parts`` near-equal parts."""
    return count * part // parts, count * (part + 1) // parts
