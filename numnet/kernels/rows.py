"""Row functions that several pages share: arithmetic on long vectors, with no idea of images or layers.

In NHWC the C channels of a pixel lie side by side, so a *row* of r pixels is one vector of r·C numbers. A loop over
16 channels is all prologue for a vector unit; a loop over 256 numbers is not. So whatever belongs to a channel — a
depthwise weight, a mean, a gamma — is *repeated* along a row of L = r·C ≥ 256 numbers, and every inner loop of
numnet runs over L, whatever C is (at 8 channels: 2.1 → 0.4 ms for one depthwise map of 128 images at 32×32).

Three things decide how fast such a loop is, and all three are about loads, not about arithmetic:

* **A group of rows.** A table like batch norm's is the same for every row, so GROUP rows go through one sweep and each
  number of the table is loaded once for all of them.
* **Alignment.** A vector of 64 bytes that straddles two lines of the cache costs two loads. Tables and scratch start
  on a line (``line_up``), and L is a multiple of a line (depthwise forward: 0.9 → 0.45 ns a number, one core).
* **Vectors of 512 bits**, where the processor has them (see the page ``_jit``): 0.45 → 0.3 ns.
"""

from math import gcd

import numpy as np

from numnet.kernels._jit import row
from numnet.kernels._memory import LINE

LONG = 256  # numbers a row has at least: 9 KiB for the nine weights of a 3×3 kernel, well inside the first-level cache
LANES = 16  # float32 numbers in a line
GROUP = 4  # rows that go through one sweep


@row
def row_length(channels):
    """L: the least multiple of C that is at least LONG, and of LANES where that does not make it much longer."""
    if channels >= LONG:
        return channels
    step = channels * (LANES // gcd(channels, LANES))
    return step * ((LONG + step - 1) // step)


@row
def line_up(size, like):
    """Scratch of ``size`` numbers, of the dtype of ``like``, zero, that starts on a line of the cache."""
    raw = np.zeros(size + LINE // like.itemsize, like.dtype)
    first = (-raw.ctypes.data % LINE) // like.itemsize
    return raw[first : first + size]


@row
def repeated(values, length):
    """A table (k, C) repeated along rows of L numbers: (k, L)."""
    k, channels = values.shape
    out = line_up(k * length, values).reshape(k, length)
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
