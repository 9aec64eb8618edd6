"""Every reader of files, fed with hundreds of thousands of broken and hostile ones.

    python tests/long/fuzz.py --inputs 220000            all readers (an hour)
    python tests/long/fuzz.py pickle image --inputs 5000 these
    python tests/long/fuzz.py pickle --engine atheris    coverage-guided (pip install atheris)

An input is a good file, changed: bits flipped, stretches cut out, doubled or put in from another, numbers at their
limits; and half of the time with what protects the format set right again, lengths, checksums, compression, so that the
change reaches the inside. A reader may take it or raise NumnetError with one line. Anything else is a finding: another
exception, more than a second of computing, more memory than CAP, a process that dies. Findings are written beside the
log, by reader and number, and make the exit code 1. The last line is JSON: inputs, how many were taken, the slowest and
the memory of each reader. Keras's files are read by a child with limits of its own, here a fork of this process, since
thousands of new ones would take hours; "ended" counts those that ran into a limit, or died: refused like any other.
"""

import argparse
import faulthandler
import gzip
import io
import json
import os
import pickle
import random
import resource
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

CAP = {"image": 1536, "default": 512}  # MiB above what the process had when all was imported
SECONDS = {"keras": 1.5, "keraszip": 1.5, "default": 1.0}  # of computing; after one a child is ended
LIMITS = [
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
]


# ------------------------------------------------------------------------------------------- changes


def change(content: bytes, chance, others) -> bytes:
    """One to four random changes."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        size = len(data)
        at = chance.randrange(size + 1)
        stretch = min(chance.choice((1, 2, 4, 8, 64, 1024)), size - at)
        kind = chance.randrange(9)
        if kind == 0 and size:
            for _ in range(chance.choice((1, 1, 2, 8))):
                data[chance.randrange(size)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at : at + stretch] = b""
        elif kind == 2:
            data[at:at] = data[at : at + stretch]
        elif kind == 3:
            data[at : at + stretch] = chance.randbytes(stretch)
        elif kind == 4:
            length = chance.choice((1, 2, 4, 8))
            number = chance.choice(LIMITS) % (1 << 8 * length)
            data[at : at + length] = number.to_bytes(length, chance.choice(("little", "big")))
        elif kind == 5:
            del data[at:]
        elif kind == 6 and others:
            other = chance.choice(others)
            start = chance.randrange(len(other) + 1)
            data[at : at + stretch] = other[start : start + chance.choice((4, 64, 4096))]
        elif kind == 7:
            data[at : at + stretch] = bytes(stretch)
        else:
            data[at:at] = chance.randbytes(chance.choice((1, 4, 16)))
    return bytes(data[: 4 << 20])


def change_json(value, chance):
    """A document with one part replaced by something of another kind."""
    odd = [
        None,
        True,
        -1,
        0,
        1.5,
        1e308,
        10**30,
        "",
        "x",
        "\x00",
        [],
        {},
        [[]],
        {"a": 1},
        [1] * 50,
        "9" * 400,
        -0.0,
    ]
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(list(value))
        value = dict(value)
        if chance.random() < 0.12:
            del value[key]
        elif chance.random() < 0.1:
            value[chance.choice(("extra", "", "__proto__", "model", key + "x"))] = chance.choice(odd)
        else:
            value[key] = change_json(value[key], chance)
        return value
    if isinstance(value, list) and value and chance.random() < 0.8:
        value = list(value)
        at = chance.randrange(len(value))
        value[at] = change_json(value[at], chance)
        return value
    return chance.choice(odd)


# ------------------------------------------------------------------------------------------- readers


class Reader:
    """``seeds``: good files. ``repair``: a changed file with its own protection set right. ``read``: what is tested."""

    share = 1.0  # of all inputs, beside the others
    suffix = ""

    def __init__(self, folder):
        self.path = Path(folder) / f"input{self.suffix}"
        self.seeds = self.make()

    def make(self):
        raise NotImplementedError

    def draw(self, chance):
        return change(chance.choice(self.seeds), chance, self.seeds)

    def read(self, content):
        self.path.write_bytes(content)
        self.use(self.path)


def tiny_net(**more):
    import numnet

    return numnet.build("mobilenet_v1", width=0.03, resolution=32, classes=3, **(more or {"shallow": True}))


def split_safetensors(content):
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join_safetensors(header, data):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


class Checkpoint(Reader):
    suffix, share = ".safetensors", 4.0

    def make(self):
        seeds = []
        for net in (tiny_net(), tiny_net(rows=[[64, 2], [64, 1], [96, 2]], skip=True)):
            net.save(self.path, input={"mean": [0.5] * 3, "std": [0.3] * 3}, classes=["a", "b", "c"])
            seeds.append(self.path.read_bytes())
        return seeds

    def draw(self, chance):
        if chance.random() < 0.4:
            return super().draw(chance)
        header, data = split_safetensors(chance.choice(self.seeds))
        if chance.random() < 0.5:
            header = change_json(header, chance)
        else:
            document = json.loads(header["__metadata__"]["numnet"])
            header["__metadata__"]["numnet"] = json.dumps(change_json(document, chance))
        if isinstance(header, dict) and chance.random() < 0.2:  # another order
            names = list(header)
            chance.shuffle(names)
            header = {name: header[name] for name in names}
        return join_safetensors(header, data)

    def use(self, path):
        from numnet import checkpoint

        checkpoint.read(path)


class Load(Checkpoint):
    """The same, up to the net."""

    share = 0.5

    def use(self, path):
        import numnet

        numnet.load(path)


class Resume(Checkpoint):
    """A run's last checkpoint, and the run that goes on from it."""

    share = 0.25

    def make(self):
        import training_fakes as fakes

        from numnet import fit
        from numnet.training.loop import Run

        self.settings = dict(epochs=3, batch_size=32, lr=0.05, ema=0.9, progress=False)
        self.out = self.path.parent / "run"
        fit(fakes.make_net(), fakes.make_data(), out=self.out, **{**self.settings, "epochs": 3})
        (self.out / "result.json").unlink()
        settings = {key: value for key, value in self.settings.items() if key != "progress"}
        self.start = lambda: Run(fakes.make_net(), self.data, settings, out=self.out, progress=False)
        self.data = fakes.make_data()
        return [(self.out / "last.safetensors").read_bytes()]

    def read(self, content):
        from numnet.training import state

        (self.out / "last.safetensors").write_bytes(content)
        run = self.start()
        try:
            state.prepare(run, True)
        finally:
            run.lock.free()


class Pickle(Reader):
    """A file of CIFAR-10's python version."""

    share = 5.0
    read_as = ("data_batch_1", "pickle")

    def make(self):
        import test_data_cifar10 as cifar

        from numnet.data import cifar10

        cifar10.IMAGES = cifar.N = 2
        cifar.PLANES, cifar.LABELS = cifar.PLANES[:, :2, :], cifar.LABELS[:, :2]
        short = [{b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2], b"x": ("y", 3.5)}]
        return [cifar.python2(0), *(pickle.dumps(table, p) for table in short for p in range(6))]

    def draw(self, chance):
        content = chance.choice(self.seeds)
        if chance.random() < 0.5:  # the program, not the pixels
            at = chance.choice((content[:300], content[-200:]))
            changed = change(at, chance, self.seeds)
            return changed + content[300:] if at == content[:300] else content[:-200] + changed
        if chance.random() < 0.3:  # instructions at random
            codes = b"(.0123FIJKLMNQRSTUVXabcdeghijlopqrstu}]):\x80\x81\x82" + bytes(range(0x85, 0x99))
            program = bytes(chance.choice(codes) for _ in range(chance.randrange(1, 60)))
            return b"\x80\x04" + program + chance.choice((b".", b"s.", content[-20:]))
        return super().draw(chance)

    def read(self, content):
        from numnet.data import cifar10

        cifar10._parse(self.read_as[0], content, len(content), "input")


class Paddle(Pickle):
    suffix, share = ".pdparams", 1.5

    def make(self):
        table = {
            "a.weight": np.ones((2, 3), np.float32),
            "b": np.zeros(3),
            "StructuredToParameterName@@": {"a": "b"},
        }
        pairs = {name: (name, value) for name, value in table.items()}
        return [pickle.dumps(each, p) for each in (table, pairs) for p in range(2, 6)]

    def read(self, content):
        from numnet.weights import paddle

        self.path.write_bytes(content)
        paddle.read(self.path)


class Binary(Reader):
    share = 0.5

    def make(self):
        from numnet.data import cifar10

        cifar10.IMAGES = 2
        return [bytes(2 * 3073)]

    def read(self, content):
        from numnet.data import cifar10

        cifar10._parse("data_batch_1.bin", content, len(content), "input")


class Archive(Reader):
    suffix, share = ".tar.gz", 2.0

    def make(self):
        from numnet.data import cifar10

        cifar10.IMAGES = 1
        pixels = random.Random(0).randbytes(3072)
        self.tars = []
        for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            memory = io.BytesIO()
            with tarfile.open(fileobj=memory, mode="w", format=form) as archive:
                for name in cifar10.BINARY:
                    member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                    member.size = 3073
                    if form == tarfile.PAX_FORMAT:
                        member.pax_headers = {"comment": "x" * 100}
                    archive.addfile(member, io.BytesIO(b"\1" + pixels))
                if form != tarfile.USTAR_FORMAT:
                    archive.addfile(tarfile.TarInfo("x" * 150))
            self.tars.append(memory.getvalue())
        return [gzip.compress(tar, 1) for tar in self.tars]

    def draw(self, chance):
        if chance.random() < 0.25:
            return super().draw(chance)
        tar = bytearray(change(chance.choice(self.tars), chance, self.tars))
        if chance.random() < 0.7 and len(tar) >= 512:  # a header, its checksum set right
            at = 512 * chance.randrange(len(tar) // 512)
            kind = chance.randrange(4)
            if kind == 0:
                tar[at + 156] = chance.choice(b"01234567gxLKSVD\0")
            elif kind == 1:
                size = chance.choice(
                    (b"77777777777\0", b"\x80" + b"\xff" * 11, b"00000000000\0", b"-1\0", b"\xff" * 12)
                )
                tar[at + 124 : at + 136] = size.ljust(12, b"\0")
            elif kind == 2:
                name = chance.choice(
                    (b"../../x", b"/etc/passwd", b"", b"cifar-10-batches-bin/data_batch_1.bin\0")
                )
                tar[at : at + len(name)] = name
            header = tar[at : at + 512]
            header[148:156] = b" " * 8
            tar[at + 148 : at + 156] = b"%06o\0 " % sum(header)
        return gzip.compress(bytes(tar), 1)

    def use(self, path):
        from numnet.data import cifar10

        cifar10.read_archive(path)


class Image(Reader):
    share = 6.0

    def make(self):
        from PIL import Image as pil

        from numnet.data.image import FORMATS

        pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
        seeds = []
        for mode in ("RGB", "L", "P", "RGBA", "LA", "1", "I;16", "CMYK", "I"):
            picture = pil.fromarray(pixels, "RGBA").convert("RGB" if mode in ("P", "CMYK") else "RGBA")
            picture = (
                pil.fromarray(pixels[..., 0].astype(np.uint16))
                if mode == "I;16"
                else picture.convert(mode if mode != "I" else "L").convert(mode)
            )
            for form in FORMATS:
                for more in ({}, {"compression": "tiff_lzw"}) if form == "TIFF" else ({},):
                    memory = io.BytesIO()
                    exif = pil.Exif()
                    exif[274] = 6
                    try:
                        picture.save(
                            memory,
                            form,
                            **more,
                            **({"exif": exif} if form in ("JPEG", "PNG", "WEBP") else {}),
                        )
                    except (OSError, ValueError, KeyError):
                        continue
                    seeds.append(memory.getvalue())
        return seeds

    def draw(self, chance):
        content = super().draw(chance)
        if content.startswith(b"\x89PNG") and chance.random() < 0.7:
            content = _png(content, chance)
        return content

    def use(self, path):
        from numnet.data.image import read_image

        read_image(path, 8, random.choice(("torchvision", "stretch", "keras")))


def _png(content, chance):
    """A changed PNG with its checksums set right, and now and then other sides."""
    out, at = content[:8], 8
    while at + 8 <= len(content):
        length = min(int.from_bytes(content[at : at + 4], "big"), len(content) - at - 8)
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        if kind == b"IHDR" and chance.random() < 0.3:
            sides = (1, 30_000, 9_000, 65_535, 2**31 - 1, 0, 3)
            body = struct.pack(">II", chance.choice(sides), chance.choice(sides)) + body[8:]
        out += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        at += 12 + length
    return out


class Forked:
    """What ``hdf5`` needs of a process."""

    def __init__(self, arguments):
        from numnet.weights import hdf5

        reading, writing = os.pipe()
        self.process, self.code = os.fork(), None
        if not self.process:
            try:
                with open(writing, "wb") as pipe:
                    hdf5.tell(*arguments, pipe)
            finally:
                os._exit(0)
        os.close(writing)
        self.stdout = open(reading, "rb")

    def kill(self):
        if self.code is None:
            os.kill(self.process, signal.SIGKILL)

    def wait(self):
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        return self.code


class Keras(Reader):
    suffix, share = ".h5", 0.75

    def make(self):
        import h5py

        from numnet.weights import hdf5

        hdf5._start = Forked
        seeds = []
        for numbered in (False, True):
            with h5py.File(self.path, "w") as file:
                if numbered:
                    group = file.create_group("layers/conv2d/vars")
                    group["0"], group["1"] = np.ones((3, 3, 3, 2), np.float32), np.zeros(2, np.float32)
                    group.attrs["name"] = "conv1"
                else:
                    root = file.create_group("model_weights")
                    root.attrs["layer_names"] = [b"conv1"]
                    group = root.create_group("conv1")
                    group["conv1/kernel"] = np.ones((3, 3, 3, 2), np.float32)
                    group.create_dataset("conv1/bias", data=np.zeros(64), chunks=(8,), compression="gzip")
                    group.attrs["weight_names"] = [b"conv1/kernel", b"conv1/bias"]
                    file.attrs["model_config"] = json.dumps({"config": {"layers": []}})
            seeds.append(self.path.read_bytes())
        return seeds

    def use(self, path):
        from numnet.weights import keras

        keras.read(path)


class KerasZip(Keras):
    suffix, share = ".keras", 0.5

    def make(self):
        path, self.path = self.path, self.path.with_suffix(".h5")
        self.inner, self.path = super().make(), path
        return [self.pack(inner) for inner in self.inner]

    def pack(self, inner, config=b'{"config": {"layers": []}}'):
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.json", config)
            archive.writestr("model.weights.h5", inner)
        return memory.getvalue()

    def draw(self, chance):
        if chance.random() < 0.5:
            return super().draw(chance)
        layers = [{"class_name": "BatchNormalization", "config": {"epsilon": 0.001, "momentum": 0.9}},
                  {"class_name": "InputLayer", "config": {"batch_shape": [None, 32, 32, 3]}}]  # fmt: skip
        config = json.dumps(change_json({"config": {"layers": layers}}, chance)).encode()
        inner = chance.choice(self.inner)
        return self.pack(change(inner, chance, self.inner) if chance.random() < 0.5 else inner, config)


class Safetensors(Checkpoint):
    """Of PyTorch."""

    share = 1.5

    def make(self):
        from numnet.weights import export_torch

        export_torch(tiny_net(), self.path)
        return [self.path.read_bytes()]

    def draw(self, chance):
        if chance.random() < 0.4:
            return Reader.draw(self, chance)
        header, data = split_safetensors(self.seeds[0])
        return join_safetensors(change_json(header, chance), data)

    def use(self, path):
        from numnet.weights import torch

        torch.read(path)


class Import(Safetensors):
    """The same, up to the net."""

    share = 0.02

    def use(self, path):
        from numnet import weights

        weights.import_file(path, model="mobilenet_v1", width=0.03, resolution=32)


class Pth(Reader):
    suffix, share = ".pth", 0.75

    def make(self):
        import torch

        seeds = []
        for zipped in (True, False):
            torch.save(
                {"a.weight": torch.ones(2, 3), "b": torch.zeros(3)},
                self.path,
                _use_new_zipfile_serialization=zipped,
            )
            seeds.append(self.path.read_bytes())
        return seeds

    def use(self, path):
        from numnet.weights import torch

        torch.read(path)


class Recipe(Reader):
    suffix, share = ".json", 1.0

    def make(self):
        from numnet.training import recipes

        return [path.read_bytes() for path in sorted(recipes.FOLDER.glob("*.json"))]

    def draw(self, chance):
        content = chance.choice(self.seeds)
        if chance.random() < 0.3:
            return super().draw(chance)
        return json.dumps(change_json(json.loads(content), chance)).encode()

    def use(self, path):
        from numnet.training import recipes

        recipes.load(str(path))


class Plan(Recipe):
    """Of a sweep."""

    share = 0.5

    def make(self):
        plan = {"common": {"dataset": "shapes", "epochs": 1, "model": {"width": 0.5}},
                "runs": [{"name": "a", "seeds": [0, 1]}, {"name": "b", "lr": 0.01, "recipe": "shapes"}]}  # fmt: skip
        return [json.dumps(plan).encode()]

    def use(self, path):
        from numnet.training import sweep

        sweep.read(path)


class Lists(Reader):
    """train_list.txt and label_list.txt."""

    share = 0.75

    def make(self):
        for name in ("a/1.png", "b/2.png", "b c/3.png"):  # a list of which no image is there is refused
            path = self.path.parent / "lists" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return [b"a/1.png 0\nb/2.png 1\n\nb c/3.png\t2\n", b"0 cat\n1 dog\n2 hat\n", "\ufeffä 0\n".encode()]

    def read(self, content):
        from numnet.data import lists

        place = self.path.parent / "lists"
        (place / "train_list.txt").write_bytes(content)
        (place / "label_list.txt").write_bytes(content)
        lists.from_lists(place, lists.find(place))


class Result(Reader):
    """result.json, and the file of a lock."""

    share = 0.5

    def make(self):
        from numnet.training.state import RESULT_NUMBERS

        whole = {**dict.fromkeys(RESULT_NUMBERS, 0.5), "checkpoint": 400 * "x"}  # room for harmless changes
        return [
            json.dumps(whole).encode(),
            b'{"process": 1, "host": "x", "since": ""}\n',
        ]

    def use(self, path):
        from numnet.training import lock, state

        with open(path, encoding="utf-8") as file:
            lock._holder(file, tries=1)
        state.read_result(path)


READERS = {name.lower(): kind for name, kind in list(globals().items())
           if isinstance(kind, type) and issubclass(kind, Reader) and kind is not Reader}  # fmt: skip


# ------------------------------------------------------------------------------------------- the work


def memory(which) -> float:
    """MiB of this process: VmHWM, the highest, or VmRSS, now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) / 1024
    return 0.0


def computed() -> float:
    """Seconds that this process and its children have computed."""
    return time.process_time() + sum(os.times()[2:4])


def work(name, inputs, seed, findings, limit=True) -> dict:
    """One reader, in this process; ``limit``: with no address space beyond the cap."""
    import warnings

    from numnet.errors import NumnetError

    warnings.simplefilter("ignore")  # of Pillow and NumPy; the command line shows none either
    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)  # says where, and then the process dies of it
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        reader = READERS[name](folder)
        for good in reader.seeds:  # and all that reading needs is imported
            try:
                reader.read(good)
            except NumnetError:
                assert name in ("lists", "result", "image"), name
        base = memory("VmRSS")
        cap = CAP.get(name, CAP["default"])
        if limit:
            resource.setrlimit(resource.RLIMIT_AS, (_address_space() + (cap + 512 << 20),) * 2)
        Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
        found, taken, ended, slowest, top = 0, 0, 0, 0.0, 0.0
        for number in range(inputs):
            content = reader.draw(random.Random(seed * 1_000_003 + number))
            case = findings / f"{name}-{number}.bin"
            current = findings / f"{name}.current"
            current.write_bytes(content)
            signal.setitimer(signal.ITIMER_PROF, 30)
            start, problem = computed(), None
            try:
                reader.read(content)
                taken += 1
            except NumnetError as error:
                ended += "far longer" in str(error) or "crashed on it" in str(error)
                if "\n" in str(error):
                    problem = f"more than one line: {error!r}"
            except BaseException as error:
                problem = f"{type(error).__name__}: {error}"
                if os.environ.get("FUZZ_TRACE"):
                    import traceback

                    traceback.print_exc()
            took = computed() - start
            if took > SECONDS.get(name, SECONDS["default"]):
                problem = problem or f"{took:.2f} s"
            slowest = max(slowest, took)
            highest = max(memory("VmHWM"), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
            if highest - base > top:
                top = highest - base
                if top > cap:
                    problem = problem or f"{top:.0f} MiB"
            if problem:
                found += 1
                case.write_bytes(content)
                print(f"{name} {number}: {problem[:300]}", file=sys.stderr, flush=True)
        signal.setitimer(signal.ITIMER_PROF, 0)
        current.unlink()
    return {
        "inputs": inputs,
        "taken": taken,
        **({"ended": ended} if name.startswith("keras") else {}),
        "findings": found,
        "slowest": round(slowest, 3),
        "MiB": round(top, 1),
    }


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def guided(name, runs, seed, findings):
    """The same reader under atheris, which looks where a change leads."""
    import atheris

    with atheris.instrument_imports(include=["numnet", "PIL", "pickletools", "tarfile"]):
        from numnet.errors import NumnetError

        folder = tempfile.mkdtemp()
        reader = READERS[name](folder)
        corpus = Path(tempfile.mkdtemp())
        for number, good in enumerate(reader.seeds):
            (corpus / str(number)).write_bytes(good)
        try:
            reader.read(reader.seeds[0])
        except NumnetError:
            pass

    def one(content):
        try:
            reader.read(content)
        except NumnetError:
            pass

    options = [
        f"-runs={runs}",
        f"-seed={seed + 1}",
        "-timeout=20",
        "-rss_limit_mb=2048",
        f"-artifact_prefix={findings}/",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "readers", nargs="*", choices=[*READERS, []], metavar="READER", help=", ".join(READERS)
    )
    parser.add_argument("--inputs", type=int, default=220_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=Path(tempfile.gettempdir()) / "numnet-fuzz")
    parser.add_argument("--engine", choices=("random", "atheris"), default="random")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.findings.mkdir(parents=True, exist_ok=True)
    names = arguments.readers or list(READERS)
    if arguments.work:
        if arguments.engine == "atheris":
            guided(names[0], arguments.inputs, arguments.seed, arguments.findings)
        print(json.dumps(work(names[0], arguments.inputs, arguments.seed, arguments.findings)))
        return 0
    shares = sum(READERS[name].share for name in names)
    figures, failed = {}, False
    for name in names:
        inputs = max(1, round(arguments.inputs * READERS[name].share / shares))
        command = [sys.executable, __file__, name, "--inputs", str(inputs), "--seed", str(arguments.seed),
                   "--findings", str(arguments.findings), "--engine", arguments.engine, "--work"]  # fmt: skip
        # This changes the kernels' code
        plain = {"NUMBA_DISABLE_JIT": "1"} if arguments.engine == "atheris" else {}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **plain})
        if done.returncode or arguments.engine == "atheris":
            figures[name] = {"inputs": inputs, "exit code": done.returncode}
            failed |= done.returncode != 0
        else:
            figures[name] = json.loads(done.stdout.splitlines()[-1])
            failed |= figures[name]["findings"] > 0
        print(name, json.dumps(figures[name]), flush=True)
    total = sum(each["inputs"] for each in figures.values())
    slowest = max((each.get("slowest", 0.0) for each in figures.values()), default=0.0)
    print(json.dumps({"inputs": total, "failed": failed, "slowest": slowest, "readers": figures}))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
