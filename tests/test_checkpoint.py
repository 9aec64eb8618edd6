"""Checkpoints: what is written is read, writes are whole or not at all, bad files get one clear line."""

import errno
import json
import os
import stat
import struct
import subprocess
import sys

import numpy as np
import pytest

from numnet import checkpoint
from numnet.errors import NumnetError

ARRAYS = {
    "params/stem.conv.weight": np.arange(27, dtype=np.float32).reshape(3, 3, 3, 1),
    "params/head.weight": np.linspace(-1, 1, 6).reshape(2, 3),
    "labels": np.array([3, -1], np.int64),
    "image": np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
    "mask": np.array([True, False]),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 4), np.float32),
    "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(10.0)[::3],
}
META = {"format": 1, "config": {"model": "mobilenet_v1", "width": 0.25}, "é": [1, None, 0.1 + 0.2, True]}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoint.write(path, ARRAYS, META)
    return path


def test_round_trip(file):
    tensors, meta = checkpoint.read(file)
    assert meta == META == checkpoint.read_meta(file)
    assert set(tensors) == set(ARRAYS)
    for name, want in ARRAYS.items():
        got = tensors[name]
        assert got.dtype == want.dtype and got.shape == want.shape and np.array_equal(got, want)
        assert got.flags.c_contiguous and got.flags.writeable


def test_other_readers_open_it(file):
    from safetensors.numpy import load_file

    assert set(load_file(file)) == set(ARRAYS)


def test_nothing_is_left_beside(file):
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_failing_write_leaves_the_old_file(file, monkeypatch, step):
    before = file.read_bytes()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    if step == "write":
        monkeypatch.setattr("builtins.open", fail)
    else:
        monkeypatch.setattr(os, step, fail)
    with pytest.raises(NumnetError, match=r"cannot write .*a\.safetensors: No space left on device"):
        checkpoint.write(file, {"x": np.ones(3)}, {})
    monkeypatch.undo()
    assert file.read_bytes() == before and os.listdir(file.parent) == [file.name]


def test_an_interrupted_write_leaves_the_old_file(file, monkeypatch):
    before = file.read_bytes()

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(file, {"x": np.ones(3)}, {})
    assert file.read_bytes() == before and os.listdir(file.parent) == [file.name]


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on the file size")
def test_a_full_disk_leaves_the_old_file(file):
    """A real failure half way through the bytes: the process may write no file above 4,096 bytes."""
    before = file.read_bytes()
    program = (
        "import resource, sys, numpy as np\n"
        "from numnet import checkpoint\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "checkpoint.write(sys.argv[1], {'x': np.ones(100000)}, {})\n"
    )
    result = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True)
    assert "NumnetError: cannot write" in result.stderr and "File too large" in result.stderr
    assert file.read_bytes() == before and os.listdir(file.parent) == [file.name]


def test_flushed_before_renamed(file, monkeypatch):
    """The order is the point: a rename that reaches the disk before the bytes would leave an empty file."""
    calls = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), rename(a, b)))
    checkpoint.write(file, {}, {})
    assert calls == ["fsync", "rename"] + (["fsync"] if os.name != "nt" else [])


def header(document, data=b""):
    text = json.dumps(document).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


OURS = {"__metadata__": {"numnet": "{}"}}
BAD = {
    "empty file": (b"", "0 bytes are no safetensors file"),
    "five bytes": (b"hello", "5 bytes are no safetensors file"),
    "a web page": (b"<!DOCTYPE html><html></html>" * 40, "no safetensors file"),
    "a zip": (
        b"PK\x03\x04\x14\x00\x00\x00\x00\x00\x00\x00" * 9,
        r"its header would be [\d,]+ bytes",
    ),
    "absurd header": (
        struct.pack("<Q", 2**63) + b"{}",
        "its header would be 9,223,372,036,854,775,808 bytes",
    ),
    "header longer than the file": (struct.pack("<Q", 500) + b"{}", "cut short within its header"),
    "no JSON": (struct.pack("<Q", 4) + b"{{{{", "no safetensors file"),
    "deep JSON": (struct.pack("<Q", 100000) + b"[" * 100000, "no safetensors file"),
    "a list": (header([1, 2]), "not a JSON object"),
    "cut short": (header({**OURS, "x": entry()}, b"1234"), "cut short"),
    "not ours": (header({"x": entry()}, bytes(8)), "no checkpoint of numnet"),
    "metadata no dict": (header({"__metadata__": 3}), "damaged|no checkpoint"),
    "document no JSON": (header({"__metadata__": {"numnet": "{"}}), "damaged checkpoint"),
    "document a list": (header({"__metadata__": {"numnet": "[]"}}), "damaged checkpoint"),
    "float of eight bits": (
        header({**OURS, "x": entry("F8_E4M3", (8,))}, bytes(8)),
        "array 'x' has the type 'F8_E4M3'",
    ),
    "unknown type": (header({**OURS, "x": entry("XYZ")}, bytes(8)), "array 'x' has the type 'XYZ'"),
    "no type": (header({**OURS, "x": {}}, bytes(8)), "array 'x' has the type None"),
    "shape against size": (header({**OURS, "x": entry(shape=(3,))}, bytes(8)), "damaged safetensors file"),
    "huge shape": (header({**OURS, "x": entry(shape=(2**62, 2**62))}, bytes(8)), "damaged safetensors file"),
    "negative shape": (header({**OURS, "x": entry(shape=(-2,))}, bytes(8)), "damaged safetensors file"),
    "overlap": (header({**OURS, "x": entry(), "y": entry()}, bytes(8)), "damaged safetensors file"),
    "a hole": (header({**OURS, "x": entry(offsets=(8, 16))}, bytes(16)), "damaged safetensors file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(tmp_path, case):
    content, message = BAD[case]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(NumnetError, match=message) as caught:
        checkpoint.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_every_truncation_is_seen(file):
    whole = file.read_bytes()
    for length in [0, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(NumnetError):
            checkpoint.read(file)
        if length > 8:
            with pytest.raises(NumnetError, match="cut short"):
                checkpoint.read_meta(file)


def test_missing_and_directories(tmp_path):
    with pytest.raises(NumnetError, match=r"none\.safetensors: no such file"):
        checkpoint.read(tmp_path / "none.safetensors")
    with pytest.raises(NumnetError, match="is a directory"):
        checkpoint.read(tmp_path)
    with pytest.raises(NumnetError, match=r"cannot write .*: No such file or directory"):
        checkpoint.write(tmp_path / "no" / "a.safetensors", {}, {})


def test_meta_must_be_json(tmp_path):
    for meta in ({"x": float("nan")}, {"x": {1, 2}}):
        with pytest.raises((ValueError, TypeError)):
            checkpoint.write(tmp_path / "a.safetensors", {}, meta)
    assert os.listdir(tmp_path) == []


def test_find(tmp_path):
    with pytest.raises(NumnetError, match="no such checkpoint"):
        checkpoint.find(tmp_path / "x", "best")
    with pytest.raises(NumnetError, match=r"no run in this directory; expected a file best\.safetensors"):
        checkpoint.find(tmp_path, "best")
    last, best = tmp_path / "last.safetensors", tmp_path / "best.safetensors"
    last.touch()
    assert checkpoint.find(tmp_path, "best") == last
    best.touch()
    assert checkpoint.find(tmp_path, "best") == best and checkpoint.find(tmp_path, "last") == last
    assert checkpoint.find(best, "last") == best


@pytest.mark.parametrize("number, flushes", [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_file_systems_that_flush_no_folders(tmp_path, monkeypatch, number, flushes):
    flush = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    if flushes:
        checkpoint.replace(tmp_path / "a.json", b"{}")
    else:
        with pytest.raises(NumnetError, match=r"cannot write .*a\.json"):
            checkpoint.replace(tmp_path / "a.json", b"{}")
    assert (tmp_path / "a.json").read_bytes() == b"{}"


def test_json_with_a_mark_in_front(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"epochs": 3}')
    assert checkpoint.read_json(tmp_path / "a.json") == {"epochs": 3}
