"""A pytest plugin: every array that any compiled function of numnet gets ends, and begins, at a protected page.

    python -m pytest -p guarded tests/test_kernels_fused.py          (with tests/long on PYTHONPATH)

Numba checks no bounds. Here each call of a compiled function is done twice, on copies of its arrays: once with each
array's last byte before a page that nobody may touch, once with its first byte behind one. One number too far, read or
written, by any thread, and the process is dead. The two results must have the same bits; they are then copied to where
the caller has his arrays. Arrays that share memory share it in the copies, too.

``protected_pages.py`` beside this file runs the tests of all kernels, and whole nets, this way.
"""

import ctypes
import importlib
import mmap
import pkgutil
from collections import Counter

import numpy as np
from numba.core.registry import CPUDispatcher

import numnet.kernels

PAGE = mmap.PAGESIZE
LIBC = ctypes.CDLL(None, use_errno=True)
FREE: dict[int, list] = {}  # number of pages -> memory between two protected pages that nobody uses
COUNTS = Counter()


class Memory:
    """So many pages between two that nobody may touch."""

    def __init__(self, pages):
        self.pages, self.map = pages, mmap.mmap(-1, (pages + 2) * PAGE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        for guard in (self.address, self.address + (pages + 1) * PAGE):
            if LIBC.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(PAGE), 0):
                raise OSError(ctypes.get_errno(), "mprotect")

    def place(self, size, ends):
        """Offset of ``size`` bytes at the end or at the beginning."""
        return PAGE + (self.pages * PAGE - size if ends else 0)


def borrow(size):
    pages = -(-size // PAGE)
    return FREE[pages].pop() if FREE.get(pages) else Memory(pages)


def release(memories):
    for memory in memories:
        FREE.setdefault(memory.pages, []).append(memory)


def stretch(array):
    """(first, last + 1) address of an array."""
    return np.lib.array_utils.byte_bounds(array)


def groups(arrays):
    """Arrays that share memory, together: [(first, last + 1, [numbers])]."""
    found = []
    for number in sorted(range(len(arrays)), key=lambda i: stretch(arrays[i])):
        first, last = stretch(arrays[number])
        if found and first < found[-1][1]:
            found[-1] = found[-1][0], max(last, found[-1][1]), [*found[-1][2], number]
        else:
            found.append((first, last, [number]))
    return found


def copies(arrays, ends):
    """The arrays once more, on protected memory; and that memory."""
    made, memories = [None] * len(arrays), []
    for first, last, members in groups(arrays):
        memory = borrow(last - first)
        memories.append(memory)
        place = memory.place(last - first, ends)
        ctypes.memmove(memory.address + place, first, last - first)
        for i in members:
            a = arrays[i]
            offset = place + a.__array_interface__["data"][0] - first
            made[i] = np.ndarray(a.shape, a.dtype, memory.map, offset, a.strides)
            made[i].flags.writeable = a.flags.writeable
            COUNTS["arrays"] += 1
    return made, memories


def arrays_in(value):
    """The arrays among arguments, and in the named tuples among them."""
    if isinstance(value, tuple):
        return [a for part in value for a in arrays_in(part)]
    return [value] if isinstance(value, np.ndarray) and value.size and value.dtype != object else []


def with_arrays(value, made):
    """The same arguments with the next of ``made`` in place of each array."""
    if isinstance(value, tuple):
        parts = [with_arrays(part, made) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return next(made) if arrays_in(value) else value


class Guarded(CPUDispatcher):
    """A compiled function whose arrays are guarded."""

    def __call__(self, *arguments):
        arrays = arrays_in(arguments)
        COUNTS[f"{self.py_func.__module__.rpartition('.')[2]}.{self.py_func.__name__}"] += 1
        results = []
        for ends in (True, False):
            made, memories = copies(arrays, ends)
            value = super().__call__(*with_arrays(arguments, iter(made)))
            results.append((value, [copy.tobytes() for copy in made]))
            if ends:
                release(memories)
        assert results[0][1] == results[1][1], f"{self.py_func}: the place in memory changes the result"
        for array, copy in zip(arrays, made):
            if array.flags.writeable:
                array[...] = copy
        release(memories)
        return value


def install():
    """Guard every compiled function of numnet.kernels; the number of them."""
    count = 0
    for module in pkgutil.iter_modules(numnet.kernels.__path__, "numnet.kernels."):
        for value in vars(importlib.import_module(module.name)).values():
            if type(value) is CPUDispatcher and value.py_func.__module__ == module.name:
                value.__class__ = Guarded
                count += 1
    return count


def pytest_configure(config):
    install()


def pytest_terminal_summary(terminalreporter):
    functions = [name for name in COUNTS if "." in name]
    calls = sum(COUNTS[name] for name in functions)
    terminalreporter.write_line(
        f"guarded: {len(functions)} functions, {calls} calls, {COUNTS['arrays']} arrays"
    )
