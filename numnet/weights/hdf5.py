"""HDF5 files as plain arrays and texts, read by a process of its own.

The library that reads HDF5 is C, and a damaged file can crash it or keep it busy for ever. So a child reads: a fresh
Python that loads h5py and nothing of numnet (a fifth of a second), within limits, and tells through a pipe what it
found. What becomes of the child is one line to the user.

    computing   5 s, and 1 s more per 10 MB of the file (POSIX)
    waiting     60 s, and 1 s more per 5 MB, for a disk that does not answer
    memory      256 MiB, and 16 times the file's length, at least 64 MiB, beyond what it starts with (Linux)

The pipe: for each array a line of JSON, {"array": path, "dtype", "shape"}, and its bytes; at the end the texts.
"""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import zipfile

import numpy as np

COMPUTING = 5.0, 10e6  # s, bytes per further s: five times what a slow machine needs
WAITING = 60.0, 5e6
MEMORY = 256 << 20
ATTRIBUTES = ("layer_names", "weight_names", "name", "model_config")  # those that are read
RUN = "import json, runpy, sys; sys.path = json.loads(sys.argv.pop(1)); runpy.run_path(sys.argv[1], run_name='__main__')"


# ------------------------------------------------------------------------------------------- the parent


def read(path) -> tuple[dict, dict]:
    """(arrays, texts) of a .h5, or of the one in a .keras, whose config.json then is the root's "model_config".

    arrays: path -> array, of all numbers that lie in the file itself; links lead nowhere. texts: path of a group ("" is
    the root) -> {attribute -> text or list of texts}. Raises ValueError, one line, for a file that is no HDF5, or that
    takes more than any good file of its length.
    """
    size, late = path.stat().st_size, threading.Event()
    computing, waiting = (first + size / more for first, more in (COMPUTING, WAITING))
    process = _start([str(path), str(computing), str(max(64 << 20, 16 * size))])

    def give_up():
        late.set()
        process.kill()

    alarm = threading.Timer(waiting, give_up)
    alarm.start()
    try:
        return _listen(process.stdout)
    except EOFError:
        code = process.wait()
        if late.is_set() or -code == getattr(signal, "SIGPROF", None):
            raise ValueError("reading it takes far longer than a good file of its length does") from None
        raise ValueError(f"the HDF5 library crashed on it, exit code {code}") from None
    finally:
        alarm.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def _start(arguments):
    """The child. It finds packages where this process does, not in the folder where it is started."""
    command = [sys.executable, "-I", "-c", RUN, json.dumps(sys.path), __file__, *arguments]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}, **pipes)


def _listen(pipe):
    """What ``tell`` says; EOFError where that ends too early."""
    arrays = {}
    while (line := pipe.readline()).endswith(b"\n"):
        said = json.loads(line)
        if "error" in said:
            raise ValueError(said["error"])
        if "texts" in said:
            return arrays, said["texts"]
        array = np.empty(said["shape"], said["dtype"])
        if pipe.readinto(array.reshape(-1).view(np.uint8)) < array.nbytes:
            break
        arrays[said["array"]] = array
    raise EOFError


# ------------------------------------------------------------------------------------------- the child


def tell(path, computing, budget, pipe):
    """Read the file and say what is in it. ``budget``: bytes that it may become, so that a small file stays small."""
    import h5py

    def say(**line):
        pipe.write(json.dumps(line).encode() + b"\n")

    _limit(float(computing), MEMORY + int(budget))
    try:
        content, config = path, None
        if path.lower().endswith(".keras"):
            with zipfile.ZipFile(path) as archive:
                config = _member(archive, "config.json", int(budget)).decode()
                content = io.BytesIO(_member(archive, "model.weights.h5", int(budget)))
        with h5py.File(content, "r") as file:
            arrays, texts = _contents(file)
            size = sum(array.nbytes for array in arrays.values()) + len(str(texts))
            if size > int(budget):
                raise ValueError(f"its contents claim {size:,} bytes")
            for name, item in arrays.items():
                array = np.asarray(item[()], order="C")
                say(array=name, dtype=array.dtype.str, shape=array.shape)
                pipe.write(array.reshape(-1).view(np.uint8))
        if config is not None:
            texts[""]["model_config"] = config
        say(texts=texts)
    except Exception as error:  # a damaged file may raise anything
        say(error=" ".join(str(error).split()) or type(error).__name__)


def _limit(seconds, memory):
    """End this process after so many seconds of computing, and let it have so many bytes more than it has."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGPROF, signal.SIG_DFL)  # no handler: none would run while the library does
        signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        import resource

        with open("/proc/self/statm") as file:
            memory += int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, OSError, ValueError):
        pass  # not Linux, or a limit that is lower already


def _member(archive, name, budget) -> bytes:
    with archive.open(name) as file:
        content = file.read(budget + 1)
    if len(content) > budget:
        raise ValueError(f"{name} unpacks to more than {budget:,} bytes")
    return content


def _contents(file):
    """(path -> data set of numbers in the file itself, path of a group -> its texts)."""
    import h5py

    arrays, texts = {}, {"": _texts(file)}

    def visit(path, item):
        if not isinstance(item, h5py.Dataset):
            texts[path] = _texts(item)
        elif item.shape is not None and item.dtype.kind in "fiu" and not (item.external or item.is_virtual):
            arrays[path] = item

    file.visititems(visit)
    return arrays, texts


def _texts(group) -> dict:
    return {name: _text(group.attrs[name]) for name in ATTRIBUTES if name in group.attrs}


def _text(value):
    if isinstance(value, np.ndarray):
        return [_text(each) for each in value.ravel().tolist()]
    return value.decode() if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    with open(1, "wb") as standard_output:
        tell(*sys.argv[2:], standard_output)
