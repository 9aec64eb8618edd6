"""What a file of weights is, by its first bytes: endings lie, and people rename."""

import zipfile
from pathlib import Path

from numnet import checkpoint
from numnet.errors import NumnetError

READ = "Keras (.h5, .keras), PyTorch (.pth, .pt, .ckpt, .safetensors) or PaddleClas (.pdparams)"
ENDINGS = {
    ".h5": "keras", ".hdf5": "keras", ".keras": "keras", ".safetensors": "torch", ".pth": "torch", ".pt": "torch",
    ".bin": "torch", ".ckpt": "torch", ".tar": "torch", ".pkl": "torch", ".pdparams": "paddle",
}  # fmt: skip
# What numnet does not read, by ending or first bytes: (what it is, what to do instead).
OTHERS = {
    ".onnx": ("an ONNX model, which numnet writes but does not read", "the weights that it was made from"),
    ".tflite": ("a TensorFlow Lite model", "`numnet import FILE -o net.safetensors`, or numnet.weights.import_tflite"),
    ".pb": ("a TensorFlow graph, which numnet does not read", "the model saved by Keras: model.save('net.keras')"),
    ".index": ("a TensorFlow checkpoint, which numnet does not read", "the model saved by Keras: model.save('net.keras')"),
    ".npz": ("arrays of NumPy, which say of no net", f"a file of {READ}"),
    ".mlmodel": ("a Core ML model, which numnet does not read", "the weights that it was made from"),
    ".caffemodel": ("a Caffe model, which numnet does not read", f"a file of {READ}"),
    ".pdmodel": ("a Paddle graph without weights", "the .pdparams next to it"),
}  # fmt: skip
FOLDER = ("model.safetensors", "pytorch_model.bin")  # of a net as the Hugging Face hub has it


def file_of(path) -> Path:
    """The file itself, or the one in a folder as the Hugging Face hub has it."""
    path = Path(path)
    if path.is_dir():
        for name in FOLDER:
            if (path / name).is_file():
                return path / name
    return path


def is_foreign(path) -> bool:
    """Whether this is another framework's file, or a folder of one, and no checkpoint or run of numnet's."""
    path = file_of(path)
    if not path.is_file():
        return False
    if path.suffix.lower() != ".safetensors" and _by_contents(path) is None:
        return path.suffix.lower() in ENDINGS or path.suffix.lower() in OTHERS
    return not is_checkpoint(path) and _by_contents(path) is not None


def is_tflite(path) -> bool:
    """Whether this is a net of TensorFlow Lite, by its first bytes or else its ending."""
    path = Path(path)
    return (_by_contents(path) or path.suffix.lower()) == ".tflite"


def is_checkpoint(path) -> bool:
    """Whether numnet wrote the file."""
    try:
        checkpoint.read_meta(path)
    except NumnetError:
        return False
    return True


def framework_of(path) -> str:
    """ "keras", "torch" or "paddle". Raises NumnetError that says what the file is instead, as far as that is known."""
    path = Path(path)
    ending = path.suffix.lower()
    if not path.is_file():
        what = "a folder without weights" if path.is_dir() else "no such file"
        more = "" if ending in ENDINGS else ", and an unknown kind of weights"
        raise NumnetError(f"{path}: {what}{more}, expected a file of {READ}")
    found = _by_contents(path) or ENDINGS.get(ending)
    if found in ("keras", "torch", "paddle"):
        return found
    what, instead = OTHERS.get(found or ending, (None, None))
    if what is None:
        raise NumnetError(f"{path}: an unknown kind of weights, expected a file of {READ}")
    raise NumnetError(f"{path}: {what}; expected {instead}")


def _by_contents(path) -> str | None:
    """A framework, a key of OTHERS, or None for what is not known by its first bytes."""
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError:
        return None
    ending = path.suffix.lower()
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "keras"
    if start.startswith(b"PK\x03\x04"):
        return _of_zip(path)
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "paddle" if ending == ".pdparams" else "torch"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= checkpoint.HEADER_LIMIT:
        return "torch"
    if start[4:8] == b"TFL3":
        return ".tflite"
    return None


def _of_zip(path):
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return "torch"
    if "model.weights.h5" in names:
        return "keras"
    if names and all(name.endswith(".npy") for name in names):
        return ".npz"
    return None
