"""CIFAR-10 (Krizhevsky 2009) from its official files: binary or python version, folder or .tar.gz.

Both versions cut the set into five training files and one test file of 10,000 images; an image is 3,072
bytes, 32×32 red, then green, then blue. The binary version puts a label byte before each image. The python
version is a pickle of Python 2: a dictionary with ``data``, uint8 (10000, 3072), and ``labels``, a list.

A pickle is a program; ``numnet.pickles`` reads it without running it. Archives are read member by member, by
name, never unpacked: links and paths in them lead nowhere.
"""

import gzip
import os
import tarfile
import zlib
from pathlib import Path

import numpy as np

from numnet import pickles
from numnet.data.split import ArraySplit, Dataset
from numnet.data.transforms import SCALINGS
from numnet.errors import NumnetError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGES = 10_000  # in every file
PIXELS = 3 * 32 * 32
LARGEST = 64 << 20  # bytes; the python version's files have 31 million
UNPACKED = 6 * LARGEST  # bytes that an archive may become; the official ones are 170 and 186 million
MEMBERS = 1000  # in an archive; the official ones have 9

BINARY = tuple(f"data_batch_{i}.bin" for i in range(1, 6)) + ("test_batch.bin",)
PYTHON = tuple(f"data_batch_{i}" for i in range(1, 6)) + ("test_batch",)
FOLDERS = {"cifar-10-batches-bin": BINARY, "cifar-10-batches-py": PYTHON}
ARCHIVES = {"cifar-10-binary.tar.gz": BINARY, "cifar-10-python.tar.gz": PYTHON}


def load(data_dir=None, download: bool = True) -> Dataset:
    """CIFAR-10 from ``data_dir``, else from $NUMNET_DATA, else from the cache, else downloaded to the cache.

    A place is the folder with the six files, the folder around it, the archive or the folder that the archive
    lies in. NumnetError, one line that names the file, for whatever is missing, damaged or not as it should
    be.
    """
    path = find(data_dir)
    if path is None and download:
        from numnet.data.download import download_cifar10

        path = download_cifar10()
    if path is None:
        raise NumnetError(
            "CIFAR-10: neither in $NUMNET_DATA nor in the cache; name its folder or let it be downloaded"
        )
    files = read_archive(path) if path.is_file() else read_folder(path)
    images = np.stack([images for images, _ in files])
    labels = np.stack([labels for _, labels in files])
    mean, std = SCALINGS["cifar10"]
    train = ArraySplit(images[:5].reshape(-1, 32, 32, 3), labels[:5].reshape(-1))
    return Dataset("cifar10", list(CLASSES), train, ArraySplit(images[5], labels[5]), mean, std)


def find(data_dir=None) -> Path | None:
    """The folder or archive that ``load`` would read, or None. NumnetError if ``data_dir`` has none."""
    from numnet.data.download import cache_folder

    if data_dir is not None:
        found = _look_in(Path(data_dir))
        if found is None:
            what = "no CIFAR-10 in it" if Path(data_dir).exists() else "no such file or folder"
            raise NumnetError(f"{data_dir}: {what}, expected {' or '.join([*FOLDERS, *ARCHIVES])}")
        return found
    places = [cache_folder()]
    if os.environ.get("NUMNET_DATA"):
        places.insert(0, Path(os.environ["NUMNET_DATA"]))
    return next((found for found in map(_look_in, places) if found is not None), None)


def _look_in(place: Path) -> Path | None:
    if place.is_file():
        return place
    for folder in [place, *(place / name for name in FOLDERS)]:
        if any((folder / name).is_file() for name in (BINARY[0], PYTHON[0], BINARY[-1], PYTHON[-1])):
            return folder
    return next((place / name for name in ARCHIVES if (place / name).is_file()), None)


# ---------------------------------------------------------------------------------------- folder and archive


def read_folder(folder: Path) -> list:
    """(images, labels) of the six files in ``folder``."""
    names = BINARY if any((folder / name).is_file() for name in BINARY) else PYTHON
    files = []
    for name in names:
        path = folder / name
        try:
            size = path.stat().st_size
            content = path.read_bytes() if size <= LARGEST else b""
        except FileNotFoundError:
            raise NumnetError(f"{path}: missing, expected the six files {names[0]} … {names[-1]}") from None
        except OSError as error:
            raise NumnetError(f"{path}: cannot be read ({error.strerror})") from None
        files.append(_parse(name, content, size, path))
    return files


def read_archive(path: Path) -> list:
    """(images, labels) of the six files in the archive, in whatever order they lie in it."""
    found = {}
    try:
        with gzip.open(path) as packed, tarfile.open(fileobj=_Bounded(packed), mode="r:") as archive:
            for number, member in enumerate(archive):
                if number >= MEMBERS:
                    raise tarfile.ReadError(f"more than {MEMBERS} members")
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                if member.isreg() and name in FOLDERS.get(folder, ()) and name not in found:
                    content = archive.extractfile(member).read() if member.size <= LARGEST else b""
                    found[name] = _parse(name, content, member.size, f"{path}: {member.name}")
            archive.fileobj.exhaust()  # the checksum stands at the very end
    except NumnetError:
        raise
    except (
        tarfile.TarError,
        EOFError,
        zlib.error,
        OSError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NumnetError(f"{path}: damaged, expected {' or '.join(ARCHIVES)} ({reason})") from None
    names = PYTHON if PYTHON[0] in found else BINARY
    for name in names:
        if name not in found:
            raise NumnetError(f"{path}: has no {name}, expected the six files {names[0]} … {names[-1]}")
    return [found[name] for name in names]


class _Bounded:
    """The unpacked stream as tarfile wants it, which ends in an error before it fills the memory or takes for ever."""

    def __init__(self, stream):
        self.stream = stream

    def read(self, size=-1):
        if not 0 <= size <= LARGEST:  # a header may claim any length, and tarfile reads it in one piece
            raise tarfile.ReadError(f"a member's header claims {size:,} bytes")
        content = self.stream.read(size)
        self._check(self.stream.tell())
        return content

    def seek(self, place):
        self._check(place)
        return self.stream.seek(place)

    def tell(self):
        return self.stream.tell()

    def exhaust(self):
        while self.read(1 << 20):
            pass

    def _check(self, place):
        if place > UNPACKED:
            raise tarfile.ReadError(f"unpacks to more than {UNPACKED:,} bytes")


# -------------------------------------------------------------------------------------------------- one file


def _parse(name, content: bytes, size: int, where):
    """(images, labels) of a file's content: uint8 (10000, 32, 32, 3) and int64 (10000,)."""
    if size > LARGEST:
        raise NumnetError(f"{where}: {size:,} bytes, expected a CIFAR-10 file of about 31 million")
    planes, labels = (_binary if name in BINARY else _python)(content, where)
    if labels.size and not 0 <= labels.min() <= labels.max() < len(CLASSES):
        wrong = labels[(labels < 0) | (labels >= len(CLASSES))][0]
        raise NumnetError(f"{where}: label {wrong}, expected 0 to {len(CLASSES) - 1}")
    images = planes.reshape(IMAGES, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels.astype(np.int64)


def _binary(content: bytes, where):
    expected = IMAGES * (1 + PIXELS)
    if len(content) != expected:
        raise NumnetError(f"{where}: {len(content):,} bytes, expected {expected:,} ({IMAGES:,} images)")
    records = np.frombuffer(content, np.uint8).reshape(IMAGES, 1 + PIXELS)
    return records[:, 1:], records[:, 0]


def _python(content: bytes, where):
    try:
        table = pickles.load(content, encoding="bytes")
    except Exception as error:  # a damaged pickle may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NumnetError(f"{where}: cannot be read as a CIFAR-10 pickle ({reason})") from None
    table = table if isinstance(table, dict) else {}
    data, labels = (table.get(key.encode(), table.get(key)) for key in ("data", "labels"))
    data = data.array("u1") if isinstance(data, pickles.Array) else None
    if data is None or data.shape != (IMAGES, PIXELS):
        came = "no such array" if data is None else f"{data.shape}"
        raise NumnetError(f"{where}: data is {came}, expected uint8 ({IMAGES}, {PIXELS})")
    if (
        not isinstance(labels, list)
        or len(labels) != IMAGES
        or any(type(label) is not int for label in labels)
    ):
        came = f"a list of {len(labels)}" if isinstance(labels, list) else type(labels).__name__
        raise NumnetError(f"{where}: labels are {came}, expected a list of {IMAGES} integers")
    return data, np.array(labels)
