"""Files of ``torch.save``, read without PyTorch and without running anything: their tensors and what else they hold.

Such a file is a pickle, a program that names functions and classes of installed packages, and the tensors' bytes. This
reader knows the few functions that make tensors and carries them out itself. Every other name gets a stand-in that
stores what it is handed: the arguments that a training script saves with its weights (``argparse.Namespace``, paths,
NumPy's numbers), its optimiser, even a module that was saved whole. None of that is imported, made or called.

    zip       since PyTorch 1.6: <name>/data.pkl, and <name>/data/<key> for each storage; TorchScript's too
    legacy    before, and ``_use_new_zipfile_serialization=False``: five pickles, then the storages one after another
"""

import io
import pickle
import zipfile

import numpy as np

from numnet import pickles
from numnet.checkpoint import widened

MAGIC = 0x1950A86A20F9469CFC6C  # the first of the five pickles
INSTRUCTIONS = 1_000_000  # of one pickle at most: a module saved whole, its optimiser and both sets of weights have 100,000
STORAGES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bf16", "LongStorage": "i8",
    "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip
# Names that no file of weights has a use for. They would not be called; but who finds one wants to know.
HOSTILE = (
    "os",
    "posix",
    "nt",
    "subprocess",
    "sys",
    "shutil",
    "socket",
    "runpy",
    "importlib",
    "pty",
    "ctypes",
)
HOSTILE_BUILTINS = ("eval", "exec", "compile", "__import__", "open", "input", "breakpoint", "getattr")


def load(content: bytes):
    """What was saved: plain containers, numbers and texts, arrays for tensors, ``Foreign`` for all other objects.

    Raises ValueError or UnpicklingError, and for a damaged file any other exception. Its memory is a small multiple of
    the content's length.
    """
    if content[:4] == b"PK\x03\x04":
        return _zip(content)
    return _legacy(content)


class Foreign:
    """Stands in for an object of a class that this reader does not know: its name, arguments, items and state."""

    name = "?"

    def __new__(cls, *arguments, **keywords):
        self = object.__new__(cls)
        self.arguments, self.items, self.elements, self.state = arguments, dict(keywords), [], None
        return self

    def __init__(self, *arguments, **keywords):
        pass

    def __setstate__(self, state):
        self.state = state

    def __setitem__(self, key, value):
        self.items[key] = value

    def append(self, value):
        self.elements.append(value)

    def extend(self, values):
        self.elements.extend(values)

    def contents(self) -> dict:
        """All that it holds by name: items and attributes."""
        state = self.state[0] if isinstance(self.state, tuple) and self.state else self.state
        return {**self.items, **(state if isinstance(state, dict) else {})}


class Table(dict):
    """A dictionary that may have attributes: a state dict carries its ``_metadata``."""


class _Bytes:
    """The file's storages by key. ``spend``: tensors may together be four times as long as the file, no more."""

    def __init__(self, read, length):
        self.read, self.left, self.last = read, 4 * length + (1 << 20), (None, b"")

    def of(self, key) -> bytes:
        if self.last[0] != key:  # one at a time: several tensors may lie in one storage
            self.last = key, self.read(key)
        return self.last[1]

    def spend(self, count):
        self.left -= count
        if self.left < 0:
            raise ValueError("its tensors together are far longer than the file")


class _Storage:
    """The bytes of one or several tensors, not looked at before a tensor asks."""

    def __init__(self, kind, key, source):
        self.kind, self.key, self.source = kind, key, source

    def array(self, offset, size, stride):
        sizes = (*size, *stride, offset)
        if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in sizes):
            raise ValueError("a tensor with a shape of nonsense")
        width = {"bf16": 2}.get(self.kind) or np.dtype(self.kind).itemsize
        content = self.source.of(self.key)
        length = np.prod(size, dtype=float) * width
        if length > len(content):
            raise ValueError(f"a tensor of shape {tuple(size)} in {len(content):,} bytes")
        self.source.spend(int(length))
        dtype = np.dtype("u2" if self.kind == "bf16" else self.kind).newbyteorder("<")
        strides = [width * step for step in stride]
        # A copy, checked for its bounds
        array = np.array(np.ndarray(size, dtype, content, width * offset, strides))
        return widened(array) if self.kind == "bf16" else array.astype(dtype.newbyteorder("="), copy=False)


def _tensor(storage, offset, size, stride, *more):
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    return storage.array(offset, size, stride)


def _tensor_of_type(storage, offset, size, stride, requires_grad, hooks, dtype, *more):
    name = getattr(dtype, "name", "?").rpartition(".")[2]
    kinds = {
        "float64": "f8",
        "float32": "f4",
        "float16": "f2",
        "bfloat16": "bf16",
        "uint16": "u2",
        "uint32": "u4",
    }
    if name not in kinds or not isinstance(storage, _Storage):
        raise ValueError(f"a tensor of the type {name}")
    return _Storage(kinds[name], storage.key, storage.source).array(offset, size, stride)


def _first(value, *more):
    return value


def _of_a_subclass(function, kind, arguments, state=None):
    if function not in TENSORS.values():
        raise ValueError("a tensor that is made by a function of its own")
    return function(*arguments)


def _inner_file(content):
    """A storage as plain ``pickle.dump`` writes it: a file of torch.save in the pickle."""
    return _legacy(bytes(content))


TENSORS = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_of_type,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch._tensor", "_rebuild_from_type_v2"): _of_a_subclass,
    ("torch.nn.parameter", "Parameter"): _first,
    ("torch.storage", "_load_from_bytes"): _inner_file,
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): Table,
}


class _Reader(pickle.Unpickler):
    def __init__(self, stream, storage):
        super().__init__(stream, encoding="latin-1")
        self.storage, self.classes = storage, {}

    def find_class(self, module, name):
        known = TENSORS.get((module, name)) or pickles.STAND_INS.get((module, name))
        if known is not None:
            return known
        top = module.partition(".")[0]
        if top in HOSTILE or (top in ("builtins", "__builtin__") and name in HOSTILE_BUILTINS):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no file of weights needs")
        full = f"{module}.{name}"
        if full not in self.classes:
            self.classes[full] = type("Foreign", (Foreign,), {"name": full})
        return self.classes[full]

    def persistent_load(self, said):
        if isinstance(said, tuple) and len(said) > 1 and said[0] == "module":  # a class and its source
            return said[1]
        if not isinstance(said, tuple) or len(said) < 5 or said[0] not in ("storage", b"storage"):
            raise pickle.UnpicklingError("it refers to something that is no storage")
        kind = STORAGES.get(getattr(said[1], "name", "?").rpartition(".")[2])
        key = said[2].decode() if isinstance(said[2], bytes) else str(said[2])
        return self.storage(kind or "u1", key)


def _unpickle(stream, storage):
    start = stream.tell()
    pickles.look_through(stream, INSTRUCTIONS)
    stream.seek(start)
    return _Reader(stream, storage).load()


def _zip(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: info for info in archive.infolist()}
        program = next((name for name in members if name == "data.pkl" or name.endswith("/data.pkl")), None)
        if program is None:
            raise ValueError("a zip archive without data.pkl")
        folder = program.removesuffix("data.pkl")

        def read(name):
            if name not in members:
                raise ValueError(f"{name} is missing in it")
            if members[name].compress_type != zipfile.ZIP_STORED or members[name].file_size > len(content):
                raise ValueError(f"{name} is compressed, which torch.save never does")
            return archive.read(name)

        if folder + "byteorder" in members and read(folder + "byteorder") == b"big":
            raise ValueError("its numbers are big-endian")

        source = _Bytes(lambda key: read(f"{folder}data/{key}"), len(content))
        return _unpickle(io.BytesIO(read(program)), lambda kind, key: _Storage(kind, key, source))


def _legacy(content):
    """Storages come after the pickles, so they are looked up when all is read: tensors are made in a second reading."""
    stream, kinds, places = io.BytesIO(content), {}, {}

    def note(kind, key):
        kinds[key] = kind
        return _Unread(kind, key, None)

    first = _unpickle(stream, note)
    if first != MAGIC:
        return first  # of plain pickle.dump
    _unpickle(stream, note), _unpickle(stream, note)  # version and sizes
    program = stream.tell()
    saved = _unpickle(stream, note)
    for key in map(str, _unpickle(stream, note)):
        kind = kinds.get(key, "u1")
        length = int.from_bytes(stream.read(8), "little") * ({"bf16": 2}.get(kind) or np.dtype(kind).itemsize)
        if stream.tell() + length > len(content):
            raise ValueError("cut short")
        places[key] = slice(stream.tell(), stream.tell() + length)
        stream.seek(length, io.SEEK_CUR)
    source = _Bytes(lambda key: content[places[key]], len(content))
    if isinstance(saved, _Unread):  # a lone storage, of plain pickle.dump
        return _Storage(saved.kind, saved.key, source)
    stream.seek(program)
    return _unpickle(stream, lambda kind, key: _Storage(kind, key, source))


class _Unread(_Storage):
    """A storage in the first reading of a legacy file, when nobody knows yet where its bytes are."""

    def array(self, offset, size, stride):
        return None
