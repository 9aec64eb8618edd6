"""SIGKILL at hundreds of moments of a short training: every resume must end in the bits of an undisturbed run.

    python tests/long/kill_anywhere.py --kills 300                    a net of plain NumPy: processes start in no time
    python tests/long/kill_anywhere.py --kills 100 --net mobilenet    a MobileNet
    python tests/long/kill_anywhere.py --kills 30 --net command       `numnet train` and `numnet train --resume`

A process is killed at a random time, or kills itself at a random call of those that read or write the run directory:
before, in the middle of and after each write, flush and rename, and while a checkpoint is read. The last line is JSON:
the kills, by what the process was doing, the runs that were finished, and how many of them differ from the undisturbed
one in any bit of any array or in any number of metrics.jsonl and result.json that is not a time.
"""

import argparse
import builtins
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ["NUMBA_THREADING_LAYER"] = "workqueue"  # which survives a fork: children find all kernels loaded

import cli_tools
import training_fakes as fakes

import numnet
from numnet import checkpoint
from numnet.training.loop import Callback, fit

SETTINGS = dict(epochs=3, batch_size=32, lr=0.05, seed=5, ema=0.9, checkpoint_every=0, progress=False)
TIMES = ("seconds", "images_per_second", "data_seconds", "train_seconds", "checkpoint", "busy")


# ------------------------------------------------------------------------------------------- what is killed


def train(net, out, steps):
    """The training, from wherever it stands."""
    data = fakes.make_data(train=120, validation=40, test=40)
    if net == "fake":
        net = fakes.make_net()
    else:
        net = numnet.build(
            "mobilenet_v1", width=0.125, resolution=6, classes=4, strides="cifar", shallow=True
        )
    resume = (out / "last.safetensors").is_file()
    fit(net, data, out=out, resume=resume, callbacks=[steps], **SETTINGS)


class Steps(Callback):
    def __init__(self, say):
        self.say = say

    def on_step(self, run, loss):
        self.say("step")


class Suicide:
    """Counts the calls that touch files, and kills its own process at a given one."""

    def __init__(self, at, say):
        self.at, self.count, self.say = at, 0, say

    def point(self, what):
        self.count += 1
        self.say(what)
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, module, name, what):
        whole = getattr(module, name)

        def call(*arguments, **more):
            self.point(what)
            result = whole(*arguments, **more)
            self.point(what)
            return result

        setattr(module, name, call)

    def install(self):
        self.around(os, "fsync", "writing")
        self.around(os, "replace", "writing")
        self.around(checkpoint, "read", "resuming")
        self.around(checkpoint, "read_meta", "resuming")
        whole = builtins.open

        def opened(file, mode="r", *arguments, **more):
            stream = whole(file, mode, *arguments, **more)
            if mode in ("wb", "a"):
                write = stream.write

                def half(content):
                    middle = len(content) // 2
                    write(content[:middle])
                    stream.flush()
                    self.point("writing")
                    write(content[middle:])
                    return len(content)

                stream = Halved(stream, half)
            return stream

        builtins.open = opened


class Halved:
    """A file whose write is in two halves."""

    def __init__(self, stream, write):
        self.stream, self.write = stream, write

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def __enter__(self):
        self.stream.__enter__()
        return self

    def __exit__(self, *error):
        return self.stream.__exit__(*error)


def forked(net, out, at):
    """A child that trains; (process, end of a pipe that says what it does)."""
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, reading
    try:
        os.close(reading)

        def say(what):
            os.write(writing, what[0].encode())

        Suicide(at, say).install()
        train(net, out, Steps(say))
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def command(out, photos):
    """The same through the command line."""
    arguments = ["train", "--resume", str(out), "--quiet"]
    if not (out / "last.safetensors").is_file():
        arguments = ["train", str(photos), *cli_tools.TINY, "--epochs", "6", "--batch-size", "4", "--seed", "3",
                     "--checkpoint-every", "0", "--validation", "6", "--out", str(out), "--quiet"]  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-m", "numnet", *arguments], **quiet)


# ------------------------------------------------------------------------------------------- one life


WORDS = {"s": "in a step", "w": "while writing", "r": "while resuming", "": "while starting"}


def life_of_fork(net, out, chance, whole):
    """One process: None if it came to its end, else what it was doing when it was killed."""
    by_itself = chance.random() < 0.7
    points = 4 if out.exists() and chance.random() < 0.3 else 60  # the first four of a resume are its reading
    process, pipe = forked(net, out, chance.randint(1, points) if by_itself else 0)
    ends, doing = None if by_itself else time.monotonic() + chance.uniform(0, whole), ""
    while True:
        wait = None if ends is None else max(0, ends - time.monotonic())
        if not select.select([pipe], [], [], wait)[0]:
            os.kill(process, signal.SIGKILL)
            break
        said = os.read(pipe, 1000).decode()
        if not said:
            break
        doing = said[-1]
    _, status = os.waitpid(process, 0)
    os.close(pipe)
    return ended(os.waitstatus_to_exitcode(status), WORDS[doing])


def life_of_command(out, photos, chance, whole):
    process = command(out, photos)
    try:
        _, errors = process.communicate(timeout=chance.uniform(0, whole))
    except subprocess.TimeoutExpired:
        process.kill()
        _, errors = process.communicate()
    return ended(process.returncode, "at a random time", errors.decode())


def ended(code, doing, errors=""):
    if code == 0:
        return None
    assert code == -signal.SIGKILL, f"exit code {code}: a resume that failed {errors}"
    return doing


# ------------------------------------------------------------------------------------------- comparison


def timeless(record):
    if isinstance(record, dict):
        return {
            key: timeless(value) for key, value in record.items() if key not in TIMES and "busy" not in key
        }
    return [timeless(part) for part in record] if isinstance(record, list) else record


def contents(out):
    """All of a run that must be equal."""
    found = {path.name: None for path in out.iterdir() if path.name != "curves.png"}
    for name in ("last.safetensors", "best.safetensors"):
        tensors, document = checkpoint.read(out / name)
        found[name] = {key: array.tobytes() for key, array in tensors.items()}, timeless(document["training"])
    found["metrics.jsonl"] = [
        timeless(json.loads(line)) for line in (out / "metrics.jsonl").read_text().splitlines()
    ]
    found["result.json"] = timeless(json.loads((out / "result.json").read_text()))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--net", choices=("fake", "mobilenet", "command"), default="fake")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    began, chance, kills, runs, different = time.monotonic(), random.Random(arguments.seed), Counter(), 0, 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        folder = Path(folder)
        photos = cli_tools.write_images(folder / "photos") if arguments.net == "command" else None

        def live(out, whole):
            if photos:
                return life_of_command(out, photos, chance, whole)
            return life_of_fork(arguments.net, out, chance, whole)

        undisturbed = folder / "undisturbed"
        if not photos:
            train(arguments.net, folder / "warm", Steps(lambda what: None))
        for _ in range(2 if photos else 1):  # the first compiles
            shutil.rmtree(undisturbed, ignore_errors=True)
            start = time.monotonic()
            if photos:
                process = command(undisturbed, photos)
                assert process.wait() == 0, process.stderr.read()
            else:
                process, pipe = forked(arguments.net, undisturbed, 0)
                while os.read(pipe, 1000):
                    pass
                assert os.waitpid(process, 0)[1] == 0
            whole = time.monotonic() - start
        wanted = contents(undisturbed)
        # A command does not say what it was doing; else at least one resume is to be among the killed.
        while sum(kills.values()) < arguments.kills or not (photos or kills["while resuming"]):
            out = folder / f"run{runs}"
            while (doing := live(out, 1.05 * whole)) is not None:
                kills[doing] += 1
            runs += 1
            if (found := contents(out)) != wanted:
                different += 1
                names = [name for name in {**wanted, **found} if found.get(name, 0) != wanted.get(name, 0)]
                print(f"run {runs} differs in {', '.join(names)}", file=sys.stderr)
            shutil.rmtree(out)
            print(f"{sum(kills.values())} kills, {runs} runs finished", file=sys.stderr)
    figures = {"kills": sum(kills.values()), **kills, "runs": runs, "different": different}
    print(json.dumps({"net": arguments.net, **figures, "seconds": round(time.monotonic() - began, 1)}))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
