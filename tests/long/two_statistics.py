"""The MnasNet article's training, or a variant of it, judged with two sets of running statistics after each epoch.

    python tests/long/two_statistics.py OUT [--epochs E] [--strides cifar] [--augment] [--data DIR]

Running statistics do not influence training (``tests/test_training_net.py``: another momentum has the same losses, bit for
bit). So one training serves two momenta: the net keeps each step's own statistics (momentum 0), and this script lets the
running ones of momentum 0.999, the article's, and of 0.9 follow them. OUT gets ``metrics.jsonl``, whose validation is that of
the test images with momentum 0.999, as the recipe ``mnasnet_article`` has it, and ``momentum-0.9.jsonl``.
"""

import argparse
import json
from pathlib import Path

from numnet.training import run
from numnet.training.evaluate import evaluate

MOMENTA = (0.999, 0.9)


class Statistics:
    """Follows the batches' statistics with each momentum, and evaluates the net with each of them."""

    def __init__(self, out):
        self.out = out

    def on_start(self, run):
        self.running = {momentum: run.net.flat_buffers.copy() for momentum in MOMENTA}

    def on_step(self, run, loss):
        for momentum, running in self.running.items():
            running *= momentum
            running += (1 - momentum) * run.net.flat_buffers

    def on_epoch(self, run, record):
        found, own = {}, run.net.flat_buffers.copy()
        for momentum, running in self.running.items():
            run.net.flat_buffers[:] = running
            found[momentum] = evaluate(run.net, run.data.test, run.scaling)
        run.net.flat_buffers[:] = own
        slow, fast = (found[momentum] for momentum in MOMENTA)
        whole = {**record, "validation_loss": slow["loss"], "validation_accuracy": slow["accuracy"]}
        short = {"epoch": record["epoch"], "accuracy": fast["accuracy"], "loss": fast["loss"]}
        for name, line in (("metrics.jsonl", whole), ("momentum-0.9.jsonl", short)):
            with (self.out / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--strides", choices=("imagenet", "cifar"), default="imagenet")
    parser.add_argument("--augment", action="store_true", help="mirror images, and shifts by up to 4 pixels")
    parser.add_argument("--data", help="where CIFAR-10 lies")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    flags = {
        "epochs": options.epochs,
        "validation": 0,
        "model": {"strides": options.strides, "bn_momentum": 0.0},
        "augment": {"crop": 4, "flip": True} if options.augment else None,
    }
    found = run.train(
        "cifar10", recipe="mnasnet_article", flags=flags, out=options.out / "run", data_dir=options.data,
        callbacks=[Statistics(options.out)],
    )  # fmt: skip
    print(json.dumps({key: found[key] for key in ("epochs", "train_seconds", "images_per_second")}))


if __name__ == "__main__":
    main()
