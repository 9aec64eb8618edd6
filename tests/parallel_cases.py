"""What the tests of numnet.parallel compute on one rank and on several: run by them, and by mpiexec as a script.

mpiexec -n 2 python tests/parallel_cases.py OUT CASE...     writes OUT.0.npz, OUT.1.npz
"""

import sys

import numpy as np

import numnet
from numnet import parallel
from numnet.data.split import ArraySplit, Dataset
from numnet.parallel import scaling
from numnet.training.loop import Callback, Run
from numnet.training.team import Team

BATCH = 16
OPTIONS = dict(width=0.25, resolution=16, strides="cifar", classes=10, dropout=0.0)
MODELS = {  # V1 as deep as it is, V1 with five blocks less (the paper's table 5), V2, V3 for its squeeze-and-excite
    "v1": {"model": "mobilenet_v1"},
    "shallow": {"model": "mobilenet_v1", "shallow": True},
    "v2": {"model": "mobilenet_v2"},
    "v3": {"model": "mobilenet_v3_small"},
}


class Watcher(Callback):
    """Keeps the first gradient and every loss."""

    def __init__(self):
        self.gradient, self.losses = None, []

    def on_gradient(self, run):
        if self.gradient is None:
            self.gradient = run.net.flat_grad.copy()

    def on_step(self, run, loss):
        self.losses.append(loss)


class Permuted(Team):
    """One process that sees the images of each batch in another order."""

    def __init__(self, seed):
        self.draw = np.random.default_rng(seed)

    def take(self, images, parts):
        return self.draw.permutation(images)


def make_data(images, side=32, seed=5):
    draw = np.random.default_rng(seed)
    pictures = draw.integers(0, 256, (images, side, side, 3)).astype(np.uint8)
    split = ArraySplit(pictures, draw.integers(0, 10, images))
    test = ArraySplit(pictures[: BATCH + 3], split.labels[: BATCH + 3])
    classes = [str(k) for k in range(10)]
    return Dataset(
        name="noise",
        classes=classes,
        mean=(0.5,) * 3,
        std=(0.3,) * 3,
        train=split,
        validation=test,
        test=None,
    )


def train(team, model="v1", dtype="float64", steps=20, images=2 * BATCH, net=None, **settings):
    """The gradient of the first step, all losses, the weights and running statistics at the end, validation."""
    net = net or numnet.build(dtype=dtype, seed=3, **(OPTIONS | MODELS[model]))
    watcher, data = Watcher(), make_data(images, net.input_shape[0])
    if model == "v2" and dtype == "float64":
        data.validation = None  # a minute of compiling in float64, for what V1 shows
    per_epoch = -(-images // BATCH)
    settings = dict(epochs=-(-steps // per_epoch), batch_size=BATCH, lr=1e-3, schedule="constant") | settings
    run = Run(net, data, settings, callbacks=[watcher], progress=False, team=team)
    run.train()
    last = run.history[-1]
    seen = {"validation": [last["validation_loss"], last["validation_accuracy"]]} if data.validation else {}
    return {
        "gradient": watcher.gradient, "losses": np.array(watcher.losses[:steps]), "flat": net.flat,
        "buffers": net.flat_buffers, **seen,
        "right": [record["train_accuracy"] for record in run.history],
    }  # fmt: skip


def case(name, team):
    """A case by name: model-kind."""
    model, kind = name.split("-")
    if kind == "sync":
        return train(team, model, steps=20, sync_bn=True)
    if kind == "uneven":  # batches of 16, 16, 3: uneven shares for two ranks, too few images for four
        return train(team, model, steps=3, images=35, sync_bn=True, lr=1e-4)
    if kind == "own":
        return train(team, model, steps=4)
    if kind == "parts":
        return train(team, model, steps=4, sync_bn=True, accumulate=2, clip_norm=1.0, ema=0.9)
    if kind == "frozen":
        return train(team, model, steps=4, sync_bn=True, freeze="block3")
    if kind == "exact":
        return train(team, model, dtype="float32", steps=6, images=40, exact=True, lr=0.05)
    if kind == "frozenexact":
        return train(
            team, model, dtype="float32", steps=2, exact=True, lr=0.05, freeze="block3", accumulate=2
        )
    if kind == "scale":
        net = numnet.build(seed=3, **(OPTIONS | MODELS[model]))
        before = net.flat.copy()
        link, seconds = scaling.measure_link(team.comm, 1), scaling.measure_step(team, net, BATCH, 1)
        return {"link": link, "seconds": seconds, "changed": (net.flat != before).sum()}
    if kind == "single":
        return train(team, model, dtype="float32", sync_bn=True)
    raise KeyError(name)


def main(out, *names):
    with parallel.team() as team:
        results = {}
        for name in names:
            results |= {f"{name}/{key}": value for key, value in case(name, team).items()}
        np.savez(f"{out}.{team.rank}.npz", **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
