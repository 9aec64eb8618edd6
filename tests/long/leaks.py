"""Resident memory over thousands of training steps and predictions: flat, or something is kept that nobody needs.

    python tests/long/leaks.py                                       2,000 steps and 10,000 predictions (minutes)
    python tests/long/leaks.py --steps 100 --predictions 500

Training is ``numnet.fit`` as it is used: augmentation, averaged weights, validation, checkpoints, metrics. Predictions
come in several batch sizes, as those of a server do. The first fifth is warm-up; after it, memory is read forty times.
``growth`` is how much more the median of the last quarter is than that of the first, as a part. The last line is JSON.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

import training_fakes as fakes

import numnet
from numnet.data.split import ArraySplit
from numnet.training.loop import Callback

READINGS = 40
NET = {"width": 0.25, "resolution": 32, "classes": 4, "strides": "cifar"}
BATCH = 16


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Curve(Callback):
    """Reads the memory now and then, once the warm-up is over."""

    def __init__(self, total):
        self.start, self.every, self.values = total // 5, max(1, (total - total // 5) // READINGS), []

    def note(self, number):
        if number >= self.start and (number - self.start) % self.every == 0:
            gc.collect()
            self.values.append(resident())

    def on_step(self, run, loss):
        self.note(run.step)

    def figures(self):
        quarter = max(1, len(self.values) // 4)
        first, last = median(self.values[:quarter]), median(self.values[-quarter:])
        curve = [round(value / 2**20, 1) for value in self.values]
        return {"growth": round(last / first - 1, 5), "MiB": curve}


def larger(split):
    """32×32 pixels."""
    return ArraySplit(np.kron(split.images, np.ones((1, 6, 6, 1), np.uint8))[:, :32, :32], split.labels)


def training(steps, folder):
    """Memory over a training of so many steps, eight an epoch."""
    data = fakes.make_data(train=8 * BATCH, validation=32, test=16)
    data.train, data.validation, data.test = map(larger, (data.train, data.validation, data.test))
    net, curve = numnet.build("mobilenet_v2", **NET), Curve(steps)
    numnet.fit(net, data, epochs=-(-steps // 8), batch_size=BATCH, lr=0.01, ema=0.9, clip_norm=5.0, checkpoint_every=0.02,
               augment={"crop": 2, "flip": True}, out=Path(folder) / "run", callbacks=[curve], progress=False)  # fmt: skip
    return curve.figures()


def predictions(count):
    """Memory over so many calls of predict: images one by one, and batches of several sizes."""
    rng, net, curve = np.random.default_rng(0), numnet.build("mobilenet_v3_small", **NET), Curve(count)
    x = rng.standard_normal((8, 32, 32, 3), np.float32)
    for number in range(count):
        net.predict(x[: 1 + number % 8])
        curve.note(number)
    return curve.figures()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--predictions", type=int, default=10_000)
    arguments, began = parser.parse_args(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures = {"steps": arguments.steps, "training": training(arguments.steps, folder)}
    figures |= {"predictions made": arguments.predictions, "predictions": predictions(arguments.predictions)}
    print(json.dumps({**figures, "seconds": round(time.monotonic() - began, 1)}))
    return int(max(figures["training"]["growth"], figures["predictions"]["growth"]) > 0.02)


if __name__ == "__main__":
    sys.exit(main())
