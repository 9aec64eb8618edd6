"""What the tests of the command line share: a way to run it, and a data set that trains in a blink."""

import contextlib
import io
import subprocess
import sys

import numpy as np
from PIL import Image

from numnet.cli import main

CLASSES = ("blue", "green", "red")
TINY = [
    "--width",
    "0.125",
    "--resolution",
    "16",
    "--set",
    "shallow=true",
    "--strides",
    "cifar",
    "--lr",
    "0.1",
]


def numnet(*arguments):
    """(exit code, standard output, standard error) of the command line, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(map(str, arguments)))
    return code, out.getvalue(), err.getvalue()


def works(*arguments):
    """Standard output of a command that must succeed."""
    code, out, err = numnet(*arguments)
    assert code == 0, err
    return out


def start(*arguments, **options):
    """The command line as a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-W", "error", "-m", "numnet", *map(str, arguments)]
    return subprocess.Popen(command, **{**pipes, **options})


def write_images(folder, train=12, test=4, classes=CLASSES, seed=0):
    """An image folder of noise that is mostly blue, green or red; 24 × 20 pixels."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        for channel, name in enumerate(classes):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (20, 24, 3), dtype=np.uint8)
                pixels[..., 2 - channel % 3] += 120
                Image.fromarray(pixels).save(place / f"{number}.png")
    return folder
