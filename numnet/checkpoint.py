"""One file in, one file out: named arrays and a JSON document, as safetensors. Knows nothing of nets.

The file: 8 bytes with the length of a JSON header, the header (name -> dtype, shape, place), the arrays'
bytes. Our own document stands as JSON text under the key "numnet" of the header's metadata, so that any
safetensors reader opens the file, and nothing in it is ever executed.

A file is written as a whole or not at all: to a temporary name in the same folder, flushed to the disk, renamed over the old
one, and the folder flushed too. Whoever pulls the plug finds the old file or the new one.
"""

import errno
import json
import os
from pathlib import Path

import numpy as np

from numnet.errors import NumnetError

KEY = "numnet"
# Bytes. The largest of our nets has a header of 60 kB; a JSON text takes up to 40 times its length when it is read.
HEADER_LIMIT = 10_000_000
# The format's names of the types that NumPy has. 8-bit floats are not among them; brain floats become float32.
DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BOOL": np.bool_,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
}  # fmt: skip


def write(path, tensors: dict, meta: dict) -> None:
    """Write arrays and a JSON-able dict to ``path``, replacing what was there only when all is on the disk.

    Raises NumnetError if the file cannot be written (the old one is then untouched), TypeError or ValueError
    for a ``meta`` that is not JSON.
    """
    from safetensors.numpy import save  # here: `import numnet` alone loads no more than it computes with

    document = json.dumps(meta, allow_nan=False)
    arrays = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    replace(path, save(arrays, metadata={KEY: document}))


def replace(path, content: bytes) -> None:
    """Put ``content`` in the place of the file ``path``, whole or not at all; raises NumnetError."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)
    except OSError as error:
        raise NumnetError(f"cannot write {path}: {error.strerror or error}") from error


def read_json(path, missing=None):
    """The content of a JSON file. Raises NumnetError, which says ``missing`` if the file is and that is given."""
    try:
        return json.loads(Path(path).read_text("utf-8-sig"))  # some editors write a mark in front
    except OSError as error:
        if missing is not None and isinstance(error, FileNotFoundError):
            raise NumnetError(missing) from None
        raise NumnetError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise NumnetError(f"{path}: not JSON ({_one_line(error)})") from None


def _flush_folder(folder: Path) -> None:
    """The rename itself is on the disk only when the folder is. Windows knows no such thing."""
    if os.name == "nt":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder that may be written to, not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise  # the others are of file systems that flush no folders
    finally:
        os.close(descriptor)


def read(path) -> tuple[dict, dict]:
    """The arrays (name -> a fresh ndarray) and the document of a file that ``write`` made.

    Raises NumnetError that names the file and what is wrong with it: missing, cut short, no safetensors file,
    none of numnet's, an array of a type that NumPy does not have.
    """
    tensors, metadata = read_safetensors(path)
    return tensors, _document(path, metadata)


def read_meta(path) -> dict:
    """Only the document of a file that ``write`` made: the arrays are not read."""
    return _document(path, _header(path).get("__metadata__", {}))


def read_shapes(path) -> dict:
    """Name -> shape of the arrays of any safetensors file, which are not read."""
    shapes = {}
    for name, entry in _header(path).items():
        if name != "__metadata__":
            shape = entry.get("shape") if isinstance(entry, dict) else None
            if not isinstance(shape, list) or any(type(n) is not int or n < 0 for n in shape):
                raise NumnetError(f"{path}: damaged safetensors file (the array {name[:80]!r} has no shape)")
            shapes[name] = tuple(shape)
    return shapes


def read_safetensors(path) -> tuple[dict, dict]:
    """The arrays and the metadata (str -> str) of any safetensors file; raises as ``read`` does.

    The arrays' bytes must all lie in the file, so reading takes no more memory than the file is long.
    """
    header = _header(path)
    for name, entry in header.items():
        kind = entry.get("dtype") if isinstance(entry, dict) else "F32"  # what is no entry is refused below
        if name != "__metadata__" and kind != "BF16" and (not isinstance(kind, str) or kind not in DTYPES):
            raise NumnetError(
                f"{path}: the array {name!r} has the type {kind!r:.40}; expected one of {', '.join(DTYPES)}, BF16"
            )
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            brain = {
                name for name, entry in header.items() if name != "__metadata__" and entry["dtype"] == "BF16"
            }
            tensors = {name: file.get_tensor(name) for name in file.keys() if name not in brain}
            metadata = file.metadata() or {}
        return {**tensors, **_brain_floats(path, header, brain)} if brain else tensors, metadata
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise NumnetError(f"{path}: damaged safetensors file ({_one_line(error)})") from error


def _brain_floats(path, header, names) -> dict:
    """Arrays of 16-bit brain floats as float32, whose upper half they are."""
    content, arrays = np.memmap(path, np.uint8, "r"), {}
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    for name in names:
        begin, end = header[name]["data_offsets"]
        bits = np.frombuffer(content[start + begin : start + end].tobytes(), "<u2")
        arrays[name] = widened(bits).reshape(header[name]["shape"])
    return arrays


def widened(bits) -> np.ndarray:
    """Brain floats, given as uint16, as float32: their upper half."""
    return (np.asarray(bits, "<u2").astype(np.uint32) << 16).view(np.float32)


def find(path, name: str) -> Path:
    """The checkpoint that a user means: the file ``path``, or ``name`` ("best", "last") of a run directory.

    A run that was stopped in its first epoch has no best yet; its last then stands in. Raises NumnetError if
    there is neither.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise NumnetError(f"{path}: no such checkpoint; expected a .safetensors file or a run directory")
        return path
    for candidate in (name, "last"):
        if (path / f"{candidate}.safetensors").exists():
            return path / f"{candidate}.safetensors"
    raise NumnetError(f"{path}: no run in this directory; expected a file {name}.safetensors in it")


def _header(path) -> dict:
    """The JSON header, after checks of everything that can be checked without reading the arrays."""
    path = Path(path)
    try:
        if path.is_dir():
            raise NumnetError(f"{path} is a directory; expected a .safetensors file")
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8:
                raise NumnetError(f"{path}: {size} bytes are no safetensors file")
            if length > HEADER_LIMIT:
                raise NumnetError(f"{path}: no safetensors file (its header would be {length:,} bytes long)")
            if 8 + length > size:
                raise NumnetError(
                    f"{path}: cut short within its header, or no safetensors file "
                    f"({size:,} bytes of at least {8 + length:,})"
                )
            text = file.read(length)
    except FileNotFoundError:
        raise NumnetError(f"{path}: no such file") from None
    except OSError as error:
        raise NumnetError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        header = json.loads(text)
        if not isinstance(header, dict):
            raise ValueError("not a JSON object")
    except (ValueError, RecursionError) as error:
        raise NumnetError(f"{path}: no safetensors file ({_one_line(error)} in its header)") from error
    ends = [8 + length]
    for entry in header.values():
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if isinstance(offsets, list) and len(offsets) == 2 and isinstance(offsets[1], int):
            ends.append(8 + length + offsets[1])
    if max(ends) > size:
        raise NumnetError(f"{path}: cut short ({size:,} bytes of {max(ends):,})")
    return header


def _document(path, metadata) -> dict:
    """numnet's JSON document among a file's metadata."""
    if not isinstance(metadata, dict) or KEY not in metadata:
        raise NumnetError(
            f"{path}: a safetensors file, but no checkpoint of numnet (its metadata has no {KEY!r})"
        )
    try:
        document = json.loads(metadata[KEY])
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")
    except (ValueError, TypeError, RecursionError) as error:
        raise NumnetError(f"{path}: damaged checkpoint ({_one_line(error)} in its metadata)") from error
    return document


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
