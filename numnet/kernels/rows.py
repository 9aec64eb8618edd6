"""Row functions that several pages share: arithmetic on long vectors, with no idea of images or layers.

In NHWC the C channels of a pixel lie side by side, so a *row* of r pixels is one vector of r·C numbers. A loop over
16 channels is all prologue for a vector unit; a loop over 256 numbers is not. So whatever belongs to a channel — a
depthwise weight, a mean, a gamma — is *repeated* along a row of L = r·C ≥ 256 numbers, and every inner loop of
numnet runs over L, whatever C is (at 8 channels: 2.1 → 0.4 ms for one depthwise map of 128 images at 32×32).

Three things decide how fast such a loop is, and all three are about loads, not about arithmetic:

* **A group of rows.** A table like the weights is the same for every row, so GROUP rows go through one sweep and each
  number of the table is loaded once for all of them (depthwise forward: 18 loads for nine products become 11).
* **Alignment.** A vector of 64 bytes that straddles two lines of the cache costs two loads. Tables and scratch start
  on a line (``line_up``), and L is a multiple of a line (depthwise forward: 0.9 → 0.45 ns a number, one core).
* **Vectors of 512 bits**, where the processor has them (see the page ``_jit``): 0.45 → 0.3 ns, in groups 0.2.
"""

from math import gcd

import numpy as np

from numnet.kernels._jit import row
from numnet.kernels._memory import LINE

_u = np.uint64
LONG = 256  # numbers a row has at least: 8 KiB for the nine weights of a 3×3 kernel, well inside the first-level cache
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
def columns(length):
    """How many columns of a table (k, L) are worked on at a time, so that they stay in the first-level cache."""
    blocks = max(1, length // LONG)
    return ((length + blocks - 1) // blocks + LANES - 1) // LANES * LANES


@row
def fold(long, total):
    """Add a long row (L,) up into its channels (C,): total[c] += Σ long[c + j·C], in the precision of total."""
    for lo in range(0, long.size, total.size):
        for c in range(total.size):
            total[c] += long[lo + c]


# The next five read stretches of one long ``source``, at offsets that only the caller knows. The offsets are unsigned: a
# signed index is tested for counting from the end, and that test in the loop stops the vectoriser (8 times slower).
# The stretches of a group begin ``step`` numbers apart in y and ``stride`` numbers apart in source. Every caller writes
# ``group`` as a constant, so that the compiler unrolls that loop and loads each weight once for the whole group.


@row
def multiply_add(y, step, source, stride, at, t, w, length, n, group):
    """y[i] += source[at[t] + i] · w[t·length + i], n numbers of each stretch: one tap of a depthwise convolution."""
    s, r, a, p = _u(step), _u(stride), _u(at[t]), _u(t * length)
    for i in range(_u(n)):
        for g in range(_u(group)):
            y[g * s + i] += source[a + g * r + i] * w[p + i]


@row
def multiply_add_3(y, step, source, stride, at, t, w, length, n, group):
    """Three taps, t … t + 2, while y is in a register."""
    s, r, a, b, c = _u(step), _u(stride), _u(at[t]), _u(at[t + 1]), _u(at[t + 2])
    p, q, o = _u(t * length), _u((t + 1) * length), _u((t + 2) * length)
    for i in range(_u(n)):
        for g in range(_u(group)):
            j = g * r + i
            y[g * s + i] += source[a + j] * w[p + i] + source[b + j] * w[q + i] + source[c + j] * w[o + i]


@row
def multiply_add_9(y, step, source, stride, at, t, w, length, n, group):
    """Nine taps: a whole 3×3 kernel in one sweep."""
    s, r = _u(step), _u(stride)
    a, b, c, d, e = _u(at[t]), _u(at[t + 1]), _u(at[t + 2]), _u(at[t + 3]), _u(at[t + 4])
    f, h, l, m = _u(at[t + 5]), _u(at[t + 6]), _u(at[t + 7]), _u(at[t + 8])
    k0, k1, k2 = _u(t * length), _u((t + 1) * length), _u((t + 2) * length)
    k3, k4, k5 = _u((t + 3) * length), _u((t + 4) * length), _u((t + 5) * length)
    k6, k7, k8 = _u((t + 6) * length), _u((t + 7) * length), _u((t + 8) * length)
    for i in range(_u(n)):
        for g in range(_u(group)):
            j = g * r + i
            y[g * s + i] += (
                (source[a + j] * w[k0 + i] + source[b + j] * w[k1 + i] + source[c + j] * w[k2 + i])
                + (source[d + j] * w[k3 + i] + source[e + j] * w[k4 + i] + source[f + j] * w[k5 + i])
                + (source[h + j] * w[k6 + i] + source[l + j] * w[k7 + i] + source[m + j] * w[k8 + i])
            )


@row
def add_products(dw, y, step, source, stride, at, t, n, group):
    """dw[i] += source[at[t] + i] · y[i]: one tap of the gradient of a depthwise convolution."""
    s, r, a = _u(step), _u(stride), _u(at[t])
    for i in range(_u(n)):
        total = dw[i]
        for g in range(_u(group)):
            total += y[g * s + i] * source[a + g * r + i]
        dw[i] = total


@row
def add_products_3(dw0, dw1, dw2, y, step, source, stride, at, t, n, group):
    """Three taps, t … t + 2, while y is in a register. (Nine at once run out of registers: slower.)"""
    s, r, a, b, c = _u(step), _u(stride), _u(at[t]), _u(at[t + 1]), _u(at[t + 2])
    for i in range(_u(n)):
        total0, total1, total2 = dw0[i], dw1[i], dw2[i]
        for g in range(_u(group)):
            d, j = y[g * s + i], g * r + i
            total0 += d * source[a + j]
            total1 += d * source[b + j]
            total2 += d * source[c + j]
        dw0[i], dw1[i], dw2[i] = total0, total1, total2


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
