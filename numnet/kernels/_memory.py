"""Arrays that start on a line of the cache: a vector that straddles two lines costs two loads (see the page ``rows``)."""

import numpy as np

LINE = 64  # bytes in a line of the cache


def empty(shape, dtype) -> np.ndarray:
    """``np.empty(shape, dtype)`` whose first number starts a line; NumPy itself promises 16 bytes."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64))
    raw = np.empty(size + LINE // dtype.itemsize, dtype)
    first = -raw.ctypes.data % LINE // dtype.itemsize
    return raw[first : first + size].reshape(shape)
