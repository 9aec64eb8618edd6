"""Argument checks of the public kernels. Numba checks no bounds: a wrong shape would read foreign memory.

Every message names the argument, what came and what was expected.
"""

import numpy as np
from numba import config

from numnet.kernels import _memory

_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
# Arrays of counting numbers (dtype object) are admitted only where the kernels run as plain Python.
COUNTING = bool(config.DISABLE_JIT)


def tensor(name: str, x, shape: tuple, dtype=None) -> np.ndarray:
    """``x`` itself if it is a C-contiguous float array of the expected shape (None: any length) and dtype.

    Raises ValueError (TypeError if ``x`` is no array at all). A read-only array comes back as a writable view of
    the same memory, which the kernels never write: otherwise each would be compiled a second time.
    """
    if not isinstance(x, np.ndarray):
        raise TypeError(f"{name}: expected a numpy array, got {type(x).__name__}")
    expected = (
        "("
        + ", ".join("any" if n is None else str(n) for n in shape)
        + ("," if len(shape) == 1 else "")
        + ")"
    )
    if x.ndim != len(shape):
        raise ValueError(f"{name}: expected {len(shape)} dimensions {expected}, got shape {x.shape}")
    if any(want is not None and want != got for want, got in zip(shape, x.shape)):
        raise ValueError(f"{name}: expected shape {expected}, got {x.shape}")
    if x.dtype not in _DTYPES and not (COUNTING and x.dtype == object):
        raise ValueError(f"{name}: expected float32 or float64, got {x.dtype}")
    if dtype is not None and x.dtype != dtype:
        raise ValueError(f"{name}: expected {np.dtype(dtype)} like the other arrays, got {x.dtype}")
    if not x.flags.c_contiguous:
        raise ValueError(f"{name}: expected a C-contiguous array; pass np.ascontiguousarray({name})")
    return writable(x)


def pixels(name: str, x) -> np.ndarray:
    """``x`` (…, C), of two dimensions at least, checked like a ``tensor``."""
    if isinstance(x, np.ndarray) and x.ndim < 2:
        raise ValueError(f"{name}: expected an array (…, C), got shape {x.shape}")
    x = tensor(name, x, getattr(x, "shape", ()))
    positive(f"{name}: channels", x.shape[-1])
    return x


def writable(x: np.ndarray) -> np.ndarray:
    """A view of the same memory that says it is writable, so that each kernel compiles for one array type only."""
    if x.flags.writeable or x.dtype == object:
        return x
    return np.asarray(_Address(x))


class _Address:
    """Shares an array's memory through the array interface, with the read-only mark left out."""

    def __init__(self, x: np.ndarray):
        self._owner = x
        interface = dict(x.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def output(name: str, out, shape: tuple, dtype) -> np.ndarray:
    """``out`` if given and of exactly this shape and dtype, else a new array."""
    if out is None:
        return _memory.empty(shape, dtype)
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise ValueError(f"{name}: the output array is read-only")
    return tensor(name, out, shape, dtype)


def apart(out: np.ndarray, **others: np.ndarray) -> None:
    """Raise ValueError if an output shares memory with an input: passes read their inputs while they write."""
    for name, x in others.items():
        if x is not None and x.size and np.may_share_memory(out, x):
            raise ValueError(f"out: shares memory with {name}; expected an array of its own")


def image_shape(shape) -> tuple:
    """``shape`` as (N, H, W, C) ints; raises ValueError."""
    try:
        n, h, w, c = (int(side) for side in shape)
    except (TypeError, ValueError):
        raise ValueError(f"shape: expected (N, H, W, C), got {shape!r}") from None
    return n, h, w, c


def positive(name: str, value, least: int = 1) -> int:
    """``value`` as a Python int if it is an integer of at least ``least``; raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
    return int(value)
