"""Six small things that many pages need. A plain loop over one index is as fast as vectors here, so it is a plain loop."""

import numpy as np

from numnet.kernels._jit import row
from numnet.kernels._memory import LINE


@row
def line_up(size, like):
    """Scratch of ``size`` numbers, of the dtype of ``like``, that starts on a line of the cache (see ``_memory``)."""
    raw = np.empty(size + LINE // like.itemsize, like.dtype)
    first = (-raw.ctypes.data % LINE) // like.itemsize
    return raw[first : first + size]


@row
def zero_row(y):
    """y = 0. (An assignment to a slice would do, and take Numba seconds longer to compile.)"""
    for i in range(y.size):
        y[i] = 0


@row
def copy(x, y):
    """y = x."""
    for i in range(y.size):
        y[i] = x[i]


@row
def replace(y, table):
    """y = table[y]: numbers of a map in eight bits, equation (7) of the page ``eight_bits``."""
    for i in range(y.size):
        y[i] = table[y[i]]


@row
def add(y, x):
    """y += x."""
    for i in range(y.size):
        y[i] += x[i]


@row
def lines(x):
    """A map (N, H, W, C) as rows (N, H, W·C)."""
    return x.reshape(x.shape[0], x.shape[1], x.shape[2] * x.shape[3])
