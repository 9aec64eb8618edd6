"""CIFAR-10's two official layouts, as folder and as archive, whole and in every way damaged."""

import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from numnet import data, pickles
from numnet.data import cifar10
from numnet.errors import NumnetError

N = 20  # images a file here; the official 10,000 only where their size matters
rng = np.random.default_rng(0)
PLANES = rng.integers(0, 256, (6, N, 3072), dtype=np.uint8)
LABELS = rng.integers(0, 10, (6, N))


@pytest.fixture(autouse=True)
def small_files(monkeypatch, tmp_path):
    monkeypatch.setattr(cifar10, "IMAGES", N)
    monkeypatch.setenv("NUMNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NUMNET_DATA", raising=False)


def binary(i):
    return np.hstack([LABELS[i][:, None].astype(np.uint8), PLANES[i]]).tobytes()


def text(value: bytes):
    """A string as Python 2 pickles it: BINSTRING."""
    return b"T" + struct.pack("<i", len(value)) + value


def number(value):
    return b"J" + struct.pack("<i", value)


def python2(i):
    """The very opcodes that Python 2's cPickle wrote for {"data": array, "labels": list}."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n"
        + b"(cnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"tR("
        + number(1) + b"(" + number(N) + number(3072) + b"t"
        + b"cnumpy\ndtype\n(" + text(b"u1") + number(0) + number(1) + b"tR("
        + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
        + b"\x89" + text(PLANES[i].tobytes()) + b"tb"
    )  # fmt: skip
    labels = b"](" + b"".join(number(int(label)) for label in LABELS[i]) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + labels + b"u."


def python3(protocol):
    def content(i):
        return pickle.dumps({b"data": PLANES[i], b"labels": LABELS[i].tolist(), b"x": "y"}, protocol)

    return content


BINARY = ("cifar-10-batches-bin", cifar10.BINARY, binary)
PYTHON = ("cifar-10-batches-py", cifar10.PYTHON, python2)


def write_folder(place, layout, **replaced):
    folder, names, content = layout
    (place / folder).mkdir(parents=True)
    for i, name in enumerate(names):
        (place / folder / name).write_bytes(replaced.get(name.removesuffix(".bin"), content(i)))
    return place / folder


def write_archive(path, layout, change=lambda members: members):
    folder, names, content = layout
    members = []
    for i, name in enumerate(names):
        member = tarfile.TarInfo(f"{folder}/{name}")
        bytes_ = content(i)
        member.size = len(bytes_)
        members.append((member, bytes_))
    with tarfile.open(path, "w:gz") as archive:
        for member, bytes_ in change(members):
            archive.addfile(member, io.BytesIO(bytes_))
    return path


def check(read):
    assert read.classes[3] == "cat" and len(read.classes) == 10 and read.name == "cifar10"
    assert read.train.images.shape == (5 * N, 32, 32, 3) and read.test.images.shape == (N, 32, 32, 3)
    assert read.train.labels.dtype == np.int64
    assert (read.train.labels == LABELS[:5].ravel()).all() and (read.test.labels == LABELS[5]).all()
    for n in (0, N, 5 * N - 1):
        for channel in range(3):  # a record holds 1,024 red, 1,024 green, 1,024 blue bytes, row by row
            plane = PLANES[n // N, n % N, 1024 * channel : 1024 * (channel + 1)].reshape(32, 32)
            assert (read.train.images[n, :, :, channel] == plane).all()
    assert read.test.images[1, 2, 3, 1] == PLANES[5, 1, 1024 + 2 * 32 + 3]
    assert read.mean[0] == 0.49139968 and read.std[2] == 0.26158784


def test_the_hand_made_pickle_is_one():
    table = pickle.loads(python2(0), encoding="bytes")
    assert (table[b"data"] == PLANES[0]).all() and table[b"labels"] == LABELS[0].tolist()


@pytest.mark.parametrize("layout", [BINARY, PYTHON], ids=["binary", "python"])
def test_folder_parent_and_archive(tmp_path, layout, monkeypatch):
    folder = write_folder(tmp_path / "here", layout)
    check(data.load("cifar10", data_dir=folder))
    check(data.load("cifar10", data_dir=str(folder.parent)))
    archive = {
        "cifar-10-batches-bin": "cifar-10-binary.tar.gz",
        "cifar-10-batches-py": "cifar-10-python.tar.gz",
    }
    path = write_archive(tmp_path / archive[layout[0]], layout, change=reversed)
    check(data.load("cifar10", data_dir=path))
    check(data.load("cifar10", data_dir=tmp_path))
    monkeypatch.setenv("NUMNET_DATA", str(folder.parent))
    check(data.load("cifar10", download=False))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_written_again_by_python_3(tmp_path, protocol):
    write_folder(tmp_path, ("cifar-10-batches-py", cifar10.PYTHON, python3(protocol)))
    check(data.load("cifar10", data_dir=tmp_path))


def test_where_it_is_looked_for(tmp_path, monkeypatch):
    with pytest.raises(NumnetError, match="nor in the cache; name its folder"):
        data.load("cifar10", download=False)
    write_folder(tmp_path / "cache", BINARY)
    assert cifar10.find() == tmp_path / "cache" / BINARY[0]
    monkeypatch.setenv("NUMNET_DATA", str(tmp_path / "nothing"))
    assert cifar10.find() == tmp_path / "cache" / BINARY[0]
    folder = write_folder(tmp_path / "mine", PYTHON)
    monkeypatch.setenv("NUMNET_DATA", str(tmp_path / "mine"))
    assert cifar10.find() == folder
    assert cifar10.find(tmp_path / "cache") == tmp_path / "cache" / BINARY[0]


def test_official_sizes(tmp_path, monkeypatch):
    monkeypatch.undo()
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in cifar10.BINARY:
        (folder / name).touch()
        os.truncate(folder / name, 30_730_000)  # holes: black aeroplanes, and no disk used
    read = data.load("cifar10", data_dir=tmp_path, validation=5000)
    assert (len(read.train), len(read.validation), len(read.test)) == (45_000, 5_000, 10_000)
    os.truncate(folder / "data_batch_2.bin", 30_730_000 - 3073)
    with pytest.raises(NumnetError, match=r"data_batch_2.bin: 30,726,927 bytes, expected 30,730,000"):
        data.load("cifar10", data_dir=tmp_path)


def one_line(excinfo):
    message = str(excinfo.value)
    assert "\n" not in message and len(message) < 400
    return message


def labelled(label):
    return binary(2)[:3073] + bytes([label]) + binary(2)[3074:]


def pickled(protocol=2, **table):
    return pickle.dumps({key.encode(): value for key, value in table.items()}, protocol)


GOOD_LABELS = LABELS[0].tolist()
DAMAGED = [
    # layout, what data_batch_3 holds instead, what the message says
    (BINARY, b"", r"data_batch_3.bin: 0 bytes, expected 61,460"),
    (BINARY, binary(2)[:-1], r"data_batch_3.bin: 61,459 bytes, expected 61,460"),
    (BINARY, binary(2) + b"\0", r"61,461 bytes, expected 61,460"),
    (BINARY, labelled(10), r"data_batch_3.bin: label 10, expected 0 to 9"),
    (PYTHON, b"", r"data_batch_3: cannot be read as a CIFAR-10 pickle"),
    (PYTHON, python2(2)[:-500], r"data_batch_3: cannot be read"),
    (PYTHON, b"<html>not found</html>", r"data_batch_3: cannot be read"),
    (PYTHON, pickle.dumps([1, 2]), r"data is no such array"),
    (PYTHON, pickled(labels=GOOD_LABELS), r"data is no such array, expected uint8 \(20, 3072\)"),
    (PYTHON, pickled(data=[1], labels=GOOD_LABELS), r"data is no such array"),
    (PYTHON, pickled(data=PLANES[0].astype(float), labels=GOOD_LABELS), r"data is no such array"),
    (PYTHON, pickled(data=PLANES[0].T.copy(), labels=GOOD_LABELS), r"data is \(3072, 20\), expected"),
    (PYTHON, pickled(data=PLANES[0]), r"labels are NoneType, expected a list of 20 integers"),
    (PYTHON, pickled(data=PLANES[0], labels=GOOD_LABELS[1:]), r"labels are a list of 19"),
    (PYTHON, pickled(data=PLANES[0], labels=["cat"] * N), r"labels are a list of 20, expected"),
    (PYTHON, pickled(data=PLANES[0], labels=[-1] * N), r"label -1, expected 0 to 9"),
    (PYTHON, pickled(data=PLANES[0], labels=[10**30] * N), r"label 10+, expected 0 to 9"),
]


@pytest.mark.parametrize(("layout", "content", "says"), DAMAGED)
def test_damaged_files_are_named(tmp_path, layout, content, says):
    write_folder(tmp_path, layout, data_batch_3=content)
    with pytest.raises(NumnetError, match=says) as excinfo:
        data.load("cifar10", data_dir=tmp_path)
    assert "data_batch_3" in one_line(excinfo)


class Bomb:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def test_nothing_in_a_pickle_is_executed(tmp_path):
    mark = tmp_path / "executed"
    bombs = {
        "os.system": pickle.dumps(Bomb(os.system, f"touch {mark}")),
        "eval": pickle.dumps(Bomb(eval, f"open({str(mark)!r}, 'w')")),
        "nested name": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93" + b"\x8c\x011\x85R.",
        "name below an admitted one": b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.",
        "numpy": b"cnumpy\nload\n(S'x'\ntR.",
        "import": b"cantigravity\nx\n.",
        "extension": b"\x80\x02\x82\x01.",
        "attributes of a stand-in": b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93}\x8c\x05shape\x8c\x01x\x73b.",
        "attributes of another": b"\x80\x02c_codecs\nencode\nN}X\x01\x00\x00\x00aX\x01\x00\x00\x00bs\x86b.",
        "persistent": b"Pwhatever\n.",
    }
    for name, bomb in bombs.items():
        folder = write_folder(tmp_path / name, PYTHON, data_batch_1=bomb)
        with pytest.raises(NumnetError, match="data_batch_1: cannot be read as a CIFAR-10 pickle") as excinfo:
            data.load("cifar10", data_dir=folder)
        one_line(excinfo)
        assert not mark.exists(), name
    assert pickles.Array.shape is None  # no pickle has left anything behind


def test_the_mark_would_be_seen(tmp_path):
    pickle.loads(pickle.dumps(Bomb(os.system, f"touch {tmp_path / 'executed'}")))
    assert (tmp_path / "executed").exists()


def linked(members):
    member, _ = members[1]
    link = tarfile.TarInfo(member.name)
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return [members[0], (link, b""), *members[2:]]


def renamed(prefix):
    def change(members):
        members[1][0].name = prefix + members[1][0].name
        return members

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda members: members[:-1], "has no test_batch.bin, expected the six files"),
        (lambda members: [], "has no data_batch_1.bin"),
        (linked, "has no data_batch_2.bin"),
        (renamed("../"), "has no data_batch_2.bin"),
        (renamed("/"), "has no data_batch_2.bin"),
    ],
)
def test_archives_without_a_file(tmp_path, change, says):
    path = write_archive(tmp_path / "cifar-10-binary.tar.gz", BINARY, change)
    with pytest.raises(NumnetError, match=says) as excinfo:
        data.load("cifar10", data_dir=path)
    assert str(path) in one_line(excinfo)
    assert sorted(tmp_path.iterdir()) == [path]


def test_damaged_archives(tmp_path):
    path = write_archive(tmp_path / "cifar-10-binary.tar.gz", BINARY)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for content in (b"", b"<html>404</html>", whole[: len(whole) // 2], bytes(flipped), whole[:-5]):
        path.write_bytes(content)
        with pytest.raises(NumnetError, match="damaged, expected") as excinfo:
            data.load("cifar10", data_dir=path)
        assert str(path) in one_line(excinfo)


def test_missing_things(tmp_path):
    for place, says in (
        (tmp_path / "nowhere", "nowhere: no such file or folder, expected cifar-10-batches-bin or"),
        (tmp_path, "no CIFAR-10 in it"),
    ):
        with pytest.raises(NumnetError, match=says) as excinfo:
            data.load("cifar10", data_dir=place)
        one_line(excinfo)
    folder = write_folder(tmp_path, BINARY)
    (folder / "data_batch_4.bin").unlink()
    with pytest.raises(NumnetError, match=r"data_batch_4.bin: missing, expected the six files"):
        data.load("cifar10", data_dir=tmp_path)
    (folder / "data_batch_4.bin").mkdir()
    with pytest.raises(NumnetError, match=r"data_batch_4.bin: cannot be read"):
        data.load("cifar10", data_dir=tmp_path)


def test_files_far_too_large_are_not_read(tmp_path, monkeypatch):
    folder = write_folder(tmp_path, PYTHON)
    os.truncate(folder / "data_batch_1", 10 << 40)
    with pytest.raises(NumnetError, match="data_batch_1: 10,995,116,277,760 bytes, expected a CIFAR-10 file"):
        data.load("cifar10", data_dir=tmp_path)
