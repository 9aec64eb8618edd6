"""Row functions that several pages share: arithmetic on long vectors, with no idea of images or layers.

In NHWC the C channels of a pixel lie side by side, so a *row* of r pixels is one vector of r·C numbers. A loop over
16 channels is all prologue for a vector unit; a loop over 256 numbers is not. So whatever belongs to a channel — a
depthwise weight, a mean, a gamma — is *repeated* along a row of L = r·C ≥ 256 numbers, and every inner loop of
numnet runs over L, whatever C is (at 8 channels: 2.1 → 0.4 ms for one depthwise map of 128 images at 32×32).
"""

import numpy as np

from numnet.kernels._jit import row

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


@row
def multiply_add(y, x, w):
    """y += x · w, number by number: one tap of a depthwise convolution, and of both its gradients."""
    for i in range(y.size):
        y[i] += x[i] * w[i]


@row
def multiply_add_3(y, x0, x1, x2, w0, w1, w2):
    """y += x0·w0 + x1·w1 + x2·w2: three taps while y is in a register (1.6× the speed of three single ones)."""
    for i in range(y.size):
        y[i] += x0[i] * w0[i] + x1[i] * w1[i] + x2[i] * w2[i]


@row
def add(y, x):
    """y += x."""
    for i in range(y.size):
        y[i] += x[i]


@row
def copy(x, y):
    """y = x."""
    for i in range(y.size):
        y[i] = x[i]


@row
def share(part, parts, count):
    """Items lo … hi − 1 of part number ``part`` when ``count`` items are cut into ``parts`` near-equal parts."""
    return count * part // parts, count * (part + 1) // parts
