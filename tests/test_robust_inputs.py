"""A file from a stranger does no harm: it is read, or refused in one line; it runs nothing, fills no memory, takes no time.

The long form, hundreds of thousands of inputs: ``python tests/long/fuzz.py``.
"""

import base64
import gzip
import io
import json
import lzma
import os
import pickle
import resource
import struct
import sys
import tarfile
import time
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import test_data_cifar10 as cifar
from cli_tools import numnet as command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_training import run

import numnet
from numnet import checkpoint, pickles
from numnet.data import cifar10
from numnet.data import folder as folders
from numnet.data.image import read_image
from numnet.errors import NumnetError
from numnet.loading import read_document
from numnet.training import sweep
from numnet.weights import hdf5

LONG = Path(__file__).parent / "long"
small_files = cifar.small_files  # the fixture: CIFAR-10 files of 20 images


def refused(function, *arguments, words="", seconds=5.0, mebibytes=200):
    """The one line of the NumnetError that it must raise, soon and in little memory."""
    before, start = peak(), time.process_time()
    with pytest.raises(NumnetError) as caught:
        function(*arguments)
    assert time.process_time() - start < seconds and peak() - before < mebibytes
    message = str(caught.value)
    assert "\n" not in message and words in message, message[:1000]
    return message


def peak():
    """MiB that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --------------------------------------------------------------------------------------------- all readers, briefly


def test_fuzzing(run_python, tmp_path):
    """The long check's readers and changes, another seed."""
    names = "checkpoint load resume pickle paddle binary archive image safetensors recipe plan lists result"
    names += " keras keraszip" * (find_spec("h5py") is not None)
    script = tmp_path / "all.py"
    script.write_text(
        "import sys, json, pathlib\n"
        f"sys.path.insert(0, {str(LONG)!r})\n"
        "import fuzz\n"
        f"folder, names = pathlib.Path({str(tmp_path)!r}), {names!r}.split()\n"
        "inputs = {name: int(60 * fuzz.READERS[name].share) for name in names}\n"
        "print(json.dumps({name: fuzz.work(name, inputs[name], 9, folder, limit=False) for name in names}))\n"
    )
    figures = json.loads(run_python(script).splitlines()[-1])
    assert {name: each["findings"] for name, each in figures.items()} == dict.fromkeys(names.split(), 0)
    assert sum(each["inputs"] for each in figures.values()) > 1300
    # Neither all good nor all bad
    assert all(0 < each["taken"] < each["inputs"] for each in figures.values())


header = st.dictionaries(
    st.sampled_from(["a", "b", "__metadata__", ""]),
    st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.sampled_from(["F32", "F64", "I8", "BF16", 3, None, ["F32"]]),
            "shape": st.lists(st.integers(-1, 2**64) | st.none(), max_size=4) | st.none() | st.integers(),
            "data_offsets": st.lists(st.integers(-1, 2**64), max_size=3) | st.text(max_size=2),
            "numnet": st.sampled_from(
                ["{}", "[]", "{", "null", '{"format": 1, "config": {"model": "vgg16"}}']
            )
            | st.integers(),
        },
    ),
    max_size=3,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(header, st.binary(max_size=40))
def test_headers_of_every_kind(tmp_path, table, data):
    text = json.dumps(table).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    for read in (checkpoint.read, checkpoint.read_shapes, read_document, numnet.load):
        try:
            read(tmp_path / "x.safetensors")
        except NumnetError as error:
            assert "\n" not in str(error)


# --------------------------------------------------------------------------------------------- CIFAR-10


def test_an_archive_cut_at_every_block(tmp_path, monkeypatch):
    """Of what is packed and of the file; only the padding at the end is nobody's loss."""
    monkeypatch.setattr(cifar10, "IMAGES", 2)
    layout = (*cifar.BINARY[:2], lambda number: bytes([number]) * (2 * 3073))
    path = cifar.write_archive(tmp_path / "cifar-10-binary.tar.gz", layout)
    packed = path.read_bytes()
    tar = gzip.decompress(packed)
    needed = 512 * (len(tar.rstrip(b"\0")) // 512 + 1)
    for cut in range(0, needed, 512):
        path.write_bytes(gzip.compress(tar[:cut], 1))
        refused(cifar10.read_archive, path, words=str(path))
    for cut in range(0, len(packed), 16):
        path.write_bytes(packed[:cut])
        refused(cifar10.read_archive, path, words="damaged, expected")
    path.write_bytes(packed)
    assert len(cifar10.read_archive(path)) == 6


def test_a_flipped_bit_is_seen(tmp_path):
    """The archive has a checksum; anywhere but in its own first bytes a flipped bit is an error."""
    path = cifar.write_archive(tmp_path / "cifar-10-binary.tar.gz", cifar.BINARY)
    packed = bytearray(path.read_bytes())
    whole = cifar10.read_archive(path)
    unseen = 0
    for at in range(0, len(packed), len(packed) // 120):
        packed[at] ^= 1 << at % 8
        path.write_bytes(packed)
        try:
            read = cifar10.read_archive(path)
        except NumnetError as error:
            assert "\n" not in str(error)
        else:
            unseen += 1
            assert all((a == b).all() for one, two in zip(whole, read) for a, b in zip(one, two))
        packed[at] ^= 1 << at % 8
    assert unseen <= 2


def member(name, size=0, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


def archive_of(path, *parts):
    with gzip.open(path, "wb", 1) as packed:
        for part in parts:
            packed.write(part if isinstance(part, bytes) else part.tobuf(tarfile.GNU_FORMAT))
    return path


INSIDE = "cifar-10-batches-bin/data_batch_1.bin"


@pytest.mark.parametrize(
    "parts",
    [
        [member(INSIDE, kind=tarfile.SYMTYPE, link="/etc/passwd")],
        [member(INSIDE, kind=tarfile.LNKTYPE, link="/etc/passwd")],
        [member(INSIDE, kind=tarfile.LNKTYPE, link=INSIDE)],
        [member(INSIDE, kind=tarfile.CHRTYPE)],
        [member(INSIDE, kind=tarfile.FIFOTYPE)],
        [member("../../" + INSIDE, 3), b"abc".ljust(512, b"\0")],
        [member("/etc/passwd", 3), b"abc".ljust(512, b"\0")],
        [
            member("cifar-10-batches-bin", kind=tarfile.SYMTYPE, link="/etc"),
            member(INSIDE, 3),
            b"abc".ljust(512, b"\0"),
        ],
    ],
    ids=["symlink", "hard link", "link to itself", "device", "pipe", "above", "absolute", "linked folder"],
)
def test_links_and_paths_in_archives_lead_nowhere(tmp_path, parts):
    path = archive_of(tmp_path / "cifar-10-binary.tar.gz", *parts, bytes(1024))
    refused(cifar10.read_archive, path)
    assert list(tmp_path.iterdir()) == [path]


BOMBS = {
    "a member's size": lambda: [member(INSIDE, 1 << 40)],
    "zeros without end": lambda: [member("x", 1 << 30), *[bytes(1 << 20)] * 80],
    "a long name": lambda: [member("././@LongLink", 300 << 20, tarfile.GNUTYPE_LONGNAME), bytes(1 << 20)],
    "a header's header": lambda: [member("x", 300 << 20, tarfile.XHDTYPE), bytes(1 << 20)],
    "members without end": lambda: [member("x").tobuf() * 2_000],
    "a checksum far away": lambda: [bytes(1024), *[bytes(1 << 20)] * 80],
}


@pytest.mark.parametrize("name", BOMBS)
def test_archives_that_unpack_to_too_much(tmp_path, monkeypatch, name):
    assert cifar10.UNPACKED == 384 << 20 and cifar10.LARGEST == 64 << 20
    monkeypatch.setattr(cifar10, "UNPACKED", 64 << 20)
    path = archive_of(tmp_path / "cifar-10-binary.tar.gz", *BOMBS[name]())
    assert path.stat().st_size < 1 << 20
    refused(cifar10.read_archive, path, words=str(path), mebibytes=100)


# --------------------------------------------------------------------------------------------- pickles

PICKLES = {
    "a table of gigabytes": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a table of gigabytes, in words": b"Np2000000000\n.",
    "tuples in tuples": b"\x80\x02})" + b"\x85" * 1_000_000 + b"Ns.",
    "bytes that are not there": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
    "a long number": b"\x80\x02\x8b" + struct.pack("<i", 1 << 30) + b".",
    "a number of ten million digits": b"I" + b"9" * 10_000_000 + b"\n.",
    "instructions without end": b"\x80\x02" + b"N0" * 5_000_000 + b"N.",
    "zeros by the terabyte": b"\x80\x04\x8c\x12numpy._core.numeric\x8c\x0b_frombuffer\x93\x8a\x06\0\0\0\0\0\1NNNtR.",
    "a number for contents": b"cnumpy.core.numeric\n_frombuffer\n(L1000000000000L\ncnumpy\ndtype\n(VU1\ntRNNtR.",
}  # fmt: skip


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_that_fill_the_memory(name):
    def read():
        cifar10._parse("data_batch_1", PICKLES[name], len(PICKLES[name]), "a file")

    refused(read, words="a file: cannot be read as a CIFAR-10 pickle")


def array_pickle(**change):
    state = {"shape": (20, 3072), "type": "u1", "order": "|", "content": bytes(20 * 3072), **change}
    array = pickles.Array()
    kind = pickles._Type(state["type"])
    kind.order = state["order"]
    array.__setstate__((1, state["shape"], kind, state.get("fortran", False), state["content"]))
    return array


@pytest.mark.parametrize(
    "change",
    [{"shape": (10**400,)}, {"shape": (-1, 3)}, {"shape": (2.0,)}, {"shape": None}, {"type": b"\xff\xfe"}, {"type": "O"},
     {"type": ["u1"]}, {"order": b"\xff"}, {"order": ["<"]}, {"content": "text"}, {"content": None}, {"shape": (1 << 62, 4)},
     {"shape": (0, 10**30)}],
    ids=repr,
)  # fmt: skip
def test_arrays_of_nonsense_are_none(change):
    assert array_pickle().array("u1").shape == (20, 3072)
    assert array_pickle(**change).array() is None


def test_real_pickles_pass_the_look_through():
    """Every protocol, as many texts and numbers as CIFAR-10's own files have, and parameters of a large net."""
    names = [f"leptodactylus_pentadactylus_s_{i:06}.png".encode() for i in range(10_000)]
    table = {b"data": np.zeros((10_000, 3), np.uint8), b"labels": list(range(10_000)), b"filenames": names}
    weights = {f"layer{i}.weight": (f"layer{i}.weight", np.ones((3, 2), np.float32)) for i in range(1_500)}
    for protocol in (0, 2, 5):
        assert len(pickles.load(pickle.dumps(table, protocol), "bytes")[b"filenames"]) == 10_000
        read = pickles.load(pickle.dumps(weights, protocol))
        assert read["layer7.weight"][1].array("f4").sum() == 6


# --------------------------------------------------------------------------------------------- images


def png(width, height, data=b"", *chunks):
    """A PNG that claims these sides."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        *chunks,
        (b"IDAT", data),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


def save(form, size=(8, 6)):
    memory = io.BytesIO()
    Image.new("RGB", size, (10, 200, 30)).save(memory, form)
    return memory.getvalue()


def test_images_that_lie_about_their_format(tmp_path):
    """The contents count, whatever the name says; what they are not is refused."""
    for form, name in (("PNG", "a.jpg"), ("JPEG", "a.png"), ("GIF", "a.bmp"), ("TIFF", "a.webp")):
        (tmp_path / name).write_bytes(save(form))
        assert abs(read_image(tmp_path / name, 4).astype(int) - (10, 200, 30)).max() <= 3
    for content in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>",
                    b"GIF89a", b"RIFF\xff\xff\xff\xffWEBPVP8 ", b"II*\0\xff\xff\xff\xff", b"P6 4 4 255\n",
                    b"BM" + b"\xff" * 50,
                    save("PNG")[:45], save("JPEG")[:-200], b"\0" * 100, b""):  # fmt: skip
        (tmp_path / "x.png").write_bytes(content)
        refused(read_image, tmp_path / "x.png", 4, words="x.png: ")


@pytest.mark.parametrize(
    "content",
    [
        png(30_000, 30_000),
        png(2**31 - 1, 2**31 - 1),
        png(30_000, 30_000, zlib.compress(bytes(1 << 20))),
        png(9_000, 9_000, zlib.compress(bytes(3 << 20))),
        png(0, 0),
        png(
            8, 6, zlib.compress(bytes(6 * 25)), (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200 << 20), 1))
        ),
        png(8, 6, zlib.compress(bytes(6 * 25)), (b"iCCP", b"x\0\0" + zlib.compress(bytes(200 << 20), 1))),
        b"P6 30000 30000 255\n",
        b"P5 99999999999999999999 1 255\n",
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 30_000, -30_000, 1, 24, 0, 0, 0, 0, 0, 0),
    ],
    ids=[
        "30,000 pixels",
        "2³¹ pixels",
        "30,000 and some",
        "9,000 and too little",
        "none",
        "text",
        "profile",
        "ppm",
        "digits",
        "bmp",
    ],
)
def test_images_of_absurd_sizes(tmp_path, content):
    """Refused, or read where only a remark was absurd; within the memory that 89 million pixels take."""
    (tmp_path / "x.png").write_bytes(content)
    before, start = peak(), time.process_time()
    try:
        assert read_image(tmp_path / "x.png", 4).shape == (4, 4, 3)
    except NumnetError as error:
        assert "\n" not in str(error) and "x.png: " in str(error)
    assert peak() - before < 600 and time.process_time() - start < 5


@pytest.mark.skipif(os.name == "nt", reason="POSIX devices and pipes")
def test_images_without_an_end(tmp_path, capsys):
    """Links to a device and a pipe: nobody waits for what never ends."""
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        for i in range(3):
            (tmp_path / str(number) / f"{i}.png").write_bytes(save("PNG"))
    (tmp_path / "0" / "device.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "0" / "pipe.png")
    (tmp_path / "1" / "lost.png").symlink_to("/nowhere")
    refused(read_image, tmp_path / "0" / "device.png", 4, words="device.png")
    data = numnet.data.load(tmp_path, resolution=4)
    assert len(data.skipped) == 3 and len(data.train) + len(data.test) == 6
    assert "device.png: not a file" in capsys.readouterr().err


def test_a_side_of_millions(tmp_path):
    (tmp_path / "x.png").write_bytes(png(8_388_617, 7, zlib.compress(bytes(100))))
    refused(read_image, tmp_path / "x.png", 4, words="a side of 8,388,617 pixels, expected at most 65,535")


@pytest.mark.parametrize("model", [[], {}, 3, None])
def test_a_sweep_of_a_model_of_nonsense(tmp_path, model):
    runs = {"common": {"model": {"model": model, "width": 0.5}}, "runs": [{"name": "a", "dataset": "shapes"}]}
    (tmp_path / "sweep.json").write_text(json.dumps(runs))
    refused(sweep.read, tmp_path / "sweep.json", words="common: model of model is ")


def test_lists_of_nonsense(tmp_path):
    for content in (
        b"\xff\xfe",
        b"a.png 99999999999999999999\n",
        b"a.png -1\n",
        b"x\n",
        b"\0 0\n\0 1\n",
        b"/dev/zero 0\n/dev/zero 1\n",
    ):
        (tmp_path / "train_list.txt").write_bytes(content)
        refused(lambda: folders.load(tmp_path, resolution=4, preset="stretch", memory=1 << 20))


# --------------------------------------------------------------------------------------------- HDF5

# Found by fuzzing: one flipped bit or so, and HDF5 1.14 looks for an attribute without end. Packed by lzma, base64.
BUSY = """
LQAAAAT//////////wBEkXRMuGX3kHTEReiJfx4B7vFpf+X4Ya+G8BG/Lnie3Sa908f8ctnMY7c1B/ZyTAzpTzTD08rSOB2iNJr0MhSIt9uwBy
SFMTUN4hLDDiLC/12rosH5ePGloF+/143+tlHvDH9Cu8YkwKYbSw1YnZshGjWrQDB9Dn3KbTfdutQCaAqUliaRK+OZ0alGXIpjweIeeGxmRAvz
Can2IDffdRPQOZdXW3EMWxbqy+BuB+6mGyPI1IXSkiu6BiKTSK7YtCoI4Dta9ops/C2wHuBvFlAaTJOoyQmP45gLGeAuvUNRzL9KdSlrk59uDi
Q8kc8uaZF3qbW6/IaCg99q60WnkF7vYcgPJr27RelSJ8m2MDg6qAJeFNSH8KGM0dmaC7L/vegVp4UEeiHXYNPBhtZqz36rWoCqycfqD/rHEDiN
u1pkjph84z/NaIp54pXu5mWT5kxU3Oh3YLq0V84BMaUBchoAmRfC8Kl6kG8xu5EusvkKXgymIdxOsmRRM6lxrCxy8TUnILFju+txDmFyBcCr99
/1FX4OEidklsgcnuDmjRGIeKTIIx157xttl8hq7EBSOeodxZyinbo3G5zpctpFYu6bUFO3Z66gCGI8Od5UlBXxqMLdHmMeBb1xaAbixH2+iM5s
hSN51ZGVYWHzNhjrFcbuhiFB7vFtKrsc0tfLQ2Ip4G98Jwz+AUmrKvaMHrbDK495WFwceINaxTRFPQqzhrsSYRwGYiQUalZdc/w3bTSO2ip+Mw
xCrHT/M9+kSEHWHP689IzdCsngHOEo3icmAlOMscpN8fObT6LbKrfJWwshEiNFq5hkKNh7pP+qufhN
"""


@pytest.mark.skipif(os.name == "nt", reason="there the limit on computing is one on waiting, a minute")
def test_a_file_that_keeps_the_library_busy(tmp_path, monkeypatch):
    pytest.importorskip("h5py")
    monkeypatch.setattr(hdf5, "COMPUTING", (1.0, 10e6))
    (tmp_path / "busy.h5").write_bytes(lzma.decompress(base64.b64decode(BUSY)))
    refused(numnet.weights.import_file, tmp_path / "busy.h5", words="busy.h5: damaged, or no Keras file (")


LIBRARIES = {
    "busy": ("while True: pass", "takes far longer"),
    "asleep": ("import time; time.sleep(60)", "takes far longer"),
    "crashes": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed on it, exit code -11"),
    "leaves": ("import os; os._exit(0)", "crashed on it, exit code 0"),
    "fails": ("raise RuntimeError('two' + chr(10) + 'lines')", "(two lines)"),
}
if sys.platform == "linux":
    LIBRARIES["greedy"] = "bytearray(400 << 20)", "MemoryError"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_that_never_returns(tmp_path, monkeypatch, name):
    """An h5py of our own in the place of the real one: whatever becomes of the child is one line, and it is gone."""
    pytest.importorskip("h5py")
    body, words = LIBRARIES[name]
    (tmp_path / "h5py.py").write_text(f"def File(*arguments):\n    {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(hdf5, "COMPUTING", (0.3 if name == "busy" else 60.0, 10e6))
    monkeypatch.setattr(hdf5, "WAITING", (1.0 if name == "asleep" else 60.0, 5e6))
    children, start = [], hdf5._start
    monkeypatch.setattr(hdf5, "_start", lambda arguments: children.append(start(arguments)) or children[-1])
    (tmp_path / "x.h5").write_bytes(b"x")
    refused(numnet.weights.import_file, tmp_path / "x.h5", words=words)
    assert children[0].returncode is not None and children[0].stdout.closed


def test_the_child_finds_nothing_in_its_folder(tmp_path, monkeypatch):
    """A file of that name beside the weights is not taken for the library."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "net.h5", "w") as file:
        file["a/b"], file["link"] = np.arange(6.0).reshape(2, 3), h5py.SoftLink("/a/b")
        file["nothing"], file["scalar"] = h5py.Empty("f4"), np.float16(3)
        file["none"], file.attrs["name"] = np.zeros((0, 4), "i8"), "ä"
    for name in ("h5py", "json", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    arrays, texts = hdf5.read(tmp_path / "net.h5")
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "a/b": [[0, 1, 2], [3, 4, 5]], "scalar": 3, "none": [],
    }  # fmt: skip
    assert texts == {"": {"name": "ä"}, "a": {}} and arrays["none"].shape == (0, 4)


# --------------------------------------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "net.safetensors"
    net = numnet.build("mobilenet_v1", width=0.03, resolution=32, classes=3, shallow=True)
    net.save(path, input={"mean": [0.5] * 3, "std": [0.3] * 3}, classes=["a", "b", "c"])
    return path


def rewritten(good, tmp_path, tensors=lambda t: t, **document):
    arrays, was = checkpoint.read(good)
    path = tmp_path / "changed.safetensors"
    checkpoint.write(path, tensors(arrays), {**was, **document})
    return path


def without(name):
    return lambda tensors: {key: array for key, array in tensors.items() if key != name}


BIAS = "params/logits.bias"
TENSORS = {
    "missing": (without(BIAS), f"{BIAS} is missing"),
    "extra": (lambda t: {**t, "params/extra": np.ones(3)}, "params/extra is not in the net"),
    "another shape": (
        lambda t: {**t, BIAS: np.zeros((3, 1), np.float32)},
        r"has shape (3, 1), expected (3,)",
    ),
    "none": (lambda t: {}, "is missing"),
    "integers": (lambda t: {**t, BIAS: np.zeros(3, np.int64)}, f"{BIAS} has type int64; expected floats"),
    "truths": (lambda t: {**t, BIAS: np.zeros(3, bool)}, f"{BIAS} has type bool; expected floats"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_wrong_tensors(good, tmp_path, case):
    change, words = TENSORS[case]
    refused(numnet.load, rewritten(good, tmp_path, change), words=words)


def test_reordered_tensors_are_the_same_net(good, tmp_path):
    path = rewritten(good, tmp_path, lambda t: dict(reversed(t.items())))
    net = numnet.load(path)
    assert net.flat.tobytes() == numnet.load(good).flat.tobytes()


CONFIGS = [
    {"classes": 10**12}, {"classes": 10**6}, {"width": 8}, {"width": 1e308}, {"width": "wide"}, {"resolution": 10**9},
    {"kernel": 10**6}, {"depth_multiplier": 10**6}, {"depth_multiplier": "x"}, {"padding": 10**30}, {"seed": -1},
    {"seed": "x"}, {"dtype": "complex64"}, {"model": ["vgg16"]}, {"model": "vgg16"}, {"unknown": 1}, {"shallow": "yes"},
    {"separable": False}, {"allocate": True}, {"bn_eps": None, "bn_momentum": "x"}, {"dropout": [0.5]},
    {"rows": "x"}, {"rows": []}, {"rows": [[64, 1, 1]]}, {"rows": [[10**9, 1]]}, {"rows": [[64, 1]]}, {"skip": True},
    {"rows": [[16384, 1]] * 100, "shallow": False}, {"rows": [[64, 8]] * 10**5, "shallow": False},
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: str(config)[:60])
def test_configurations_of_nonsense(good, tmp_path, config):
    """No net is made before its shapes are known to be those of the file: a small file takes little memory."""
    was = checkpoint.read_meta(good)["config"]
    path = rewritten(good, tmp_path, config={**was, **config})
    refused(numnet.load, path, words=str(path), mebibytes=60)
    code, _, err = command("info", path)
    assert (code == 2 and err.count("\n") == 1) or code == 0


DOCUMENTS = [
    {"step": -1}, {"step": "x"}, {"input": {"mean": [0.5] * 3}}, {"input": {"mean": [0] * 3, "std": [0, 1, 1]}},
    {"input": 3},
    {"input": {"mean": [0, 0, "x"], "std": [1] * 3}}, {"classes": "abc"}, {"classes": [1, 2, 3]}, {"classes": ["a"] * 9},
    {"recipe": []}, {"training": "x"}, {"training": {"epoch": -1}}, {"training": {"history": {}}}, {"dataset": 7},
    {"format": 3}, {"format": "1"}, {"training": {"best": []}}, {"training": {"sums": {"loss": "x"}}}, {"config": 5},
]  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_documents_of_nonsense(good, tmp_path, document):
    path = rewritten(good, tmp_path, **document)
    message = refused(numnet.load, path, words=str(path))
    assert "damaged" in message or next(iter(document)) in ("format", "config", "classes")


def test_a_header_of_gigabytes(tmp_path):
    """Ten million bytes of JSON are the most that is looked at."""
    path = tmp_path / "x.safetensors"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", 50_000_000))
        file.write(b"[" + b"[]," * 16_666_666 + b"]")
    refused(checkpoint.read_meta, path, words="its header would be 50,000,000 bytes long", mebibytes=10)


def test_a_damaged_run_is_one_line(tmp_path):
    """Whatever of a run's last checkpoint is missing or of another kind."""
    run(tmp_path / "run", ema=0.9)
    (tmp_path / "run" / "result.json").unlink()
    last = tmp_path / "run" / "last.safetensors"
    whole = last.read_bytes()
    tensors, document = checkpoint.read(last)
    for name in tensors:
        for changed in (without(name)(tensors), {**tensors, name: np.zeros(2, np.int8)}):
            checkpoint.write(last, changed, document)
            refused(lambda: run(tmp_path / "run", resume=True, ema=0.9), words="last.safetensors")
    for key in document["training"]:
        for value in (None, "x", [], -3):
            checkpoint.write(last, tensors, {**document, "training": {**document["training"], key: value}})
            if not (key == "best" and value is None):
                refused(lambda: run(tmp_path / "run", resume=True, ema=0.9), words="last.safetensors")
    last.write_bytes(whole)
    (tmp_path / "run" / "result.json").write_text("{")
    refused(lambda: run(tmp_path / "run", resume=True, ema=0.9), words="result.json: cannot be read")
    (tmp_path / "run" / "result.json").unlink()
    run(tmp_path / "run", resume=True, ema=0.9)
