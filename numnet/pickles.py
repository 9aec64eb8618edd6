"""Pickles that run nothing: arrays, numbers, texts and plain containers, and an error for anything else.

A pickle is a program: it names functions of installed packages and has them called. This reader admits the
dozen names that a file of arrays needs and gives each a stand-in of its own that stores what it is handed; any
other name is an error. So nothing in the file is ever executed.

A pickle can do harm without running anything: a number of five bytes makes Python's reader set up a table of gigabytes,
and a hundred thousand tuples in one another overflow the stack when the outermost is looked up. So the program is read
through first, instruction by instruction, and one that no file of arrays needs is refused.
"""

import io
import pickle
import pickletools

import numpy as np

INSTRUCTIONS = 300_000  # at most: a CIFAR-10 file has 50,000, VGG16's parameters 2,000
TUPLES = 20_000  # of the instructions: so deep may tuples lie in one another at most
NUMBERS = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "b1")


def load(content: bytes, encoding="ASCII"):
    """What the pickle describes; an array comes as an ``Array``, which waits to be asked for its contents.

    ``encoding``: of the texts in pickles of Python 2; "bytes" leaves them as bytes. A damaged pickle may raise
    any exception; UnpicklingError for a name that is not admitted. The memory that it takes is a small multiple of
    the content's length.
    """
    look_through(io.BytesIO(content))
    return _Unpickler(io.BytesIO(content), encoding=encoding).load()


def look_through(stream, most=INSTRUCTIONS) -> None:
    """Raise UnpicklingError for a program that no file of arrays needs; ValueError for one that is damaged.

    ``stream``: binary, read up to the program's end; ``most``: instructions.
    """
    tuples = 0
    for number, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
        name = instruction.name
        tuples += "TUPLE" in name or name == "FROZENSET"
        if number >= most or tuples > TUPLES:
            raise pickle.UnpicklingError("it has more instructions than any file of arrays")
        if name.endswith("PUT") and not 0 <= argument <= number:  # places are counted from 0
            raise pickle.UnpicklingError(f"it asks for place {argument} of a table of {number}")


class Array:
    """Stands in for ``numpy.ndarray``: stores what the pickle says of an array."""

    shape = type = content = None
    fortran = False

    def __init__(self, *arguments):
        pass

    def __setstate__(self, state):
        _, self.shape, self.type, self.fortran, self.content = state

    def array(self, *types) -> np.ndarray | None:
        """The array described (a view of the pickle's bytes), or None if it is none of these ``types``: "u1", "f4" …"""
        try:
            dtype = self.type.dtype() if isinstance(self.type, _Type) else None
            if (
                not isinstance(self.content, bytes)
                or dtype is None
                or dtype.str[1:] not in (types or NUMBERS)
            ):
                return None
            if not isinstance(self.shape, tuple) or any(type(n) is not int or n < 0 for n in self.shape):
                return None
            if np.prod(self.shape, dtype=float) * dtype.itemsize != len(self.content):
                return None
            flat = np.frombuffer(self.content, dtype)
            return flat.reshape(self.shape, order="F" if self.fortran is True else "C")
        except (ValueError, TypeError, OverflowError):  # a shape or a name of nonsense
            return None


class _FromBuffer(Array):
    """Stands in for the function by which newer versions of NumPy write an array."""

    def __init__(self, content, type, shape, order):
        if not isinstance(content, (bytes, bytearray)):  # bytes(number) would be so many zeros
            raise pickle.UnpicklingError("an array's contents are no bytes")
        self.content, self.type, self.shape, self.fortran = bytes(content), type, shape, order == "F"


class _Type:
    """Stands in for ``numpy.dtype``."""

    order = "|"

    def __init__(self, name, *arguments):
        self.name = name

    def __setstate__(self, state):
        self.order = state[1]  # of the bytes; the rest is for fields, which a number does not have

    def dtype(self) -> np.dtype | None:
        """The dtype, or None if it is no plain number."""
        name, order = (part.decode() if isinstance(part, bytes) else part for part in (self.name, self.order))
        if (
            not isinstance(name, str)
            or name.lstrip("|<>=") not in NUMBERS
            or order not in ("|", "<", ">", "=")
        ):
            return None
        return np.dtype(name.lstrip("|<>=")).newbyteorder(order)


class _Bytes(bytes):
    """Stands in for ``_codecs.encode``, by which Python 3 writes bytes in the protocol of Python 2."""

    def __new__(cls, text, encoding):
        return super().__new__(cls, text.encode("latin-1"))

    def __setstate__(self, state):
        raise pickle.UnpicklingError("bytes have no state")


STAND_INS = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): _Type,
    ("numpy.core.multiarray", "_reconstruct"): Array,
    ("numpy._core.multiarray", "_reconstruct"): Array,
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer,
    ("numpy._core.numeric", "_frombuffer"): _FromBuffer,
    ("_codecs", "encode"): _Bytes,
    ("collections", "OrderedDict"): dict,
    ("builtins", "tuple"): tuple,
    ("__builtin__", "tuple"): tuple,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        try:
            return STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no such file needs") from None
