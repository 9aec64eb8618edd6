"""Arrays that start on a line of the cache: a vector that straddles two lines costs two loads."""

import numpy as np

LINE = 64  # bytes in a line of the cache


def empty(shape, dtype, make=np.empty) -> np.ndarray:
    """``np.empty(shape, dtype)`` whose first number starts a line; NumPy itself promises 16 bytes."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64))
    raw = make(size + LINE // dtype.itemsize, dtype)
    first = -raw.ctypes.data % LINE // dtype.itemsize
    return raw[first : first + size].reshape(shape)


def zeros(shape, dtype) -> np.ndarray:
    """The same for ``np.zeros``, which takes no memory until it is used."""
    return empty(shape, dtype, np.zeros)
