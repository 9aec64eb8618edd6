"""The training loop, ``fit``: batches in, steps of the optimiser, validation, checkpoints, metrics.

No random generator here has a state. The order of the images, their augmentation and dropout's masks are
functions of the seed and of the position. So a checkpoint holds the position and the vectors, and a resumed
run gives bit-identical results to one that was never stopped.

A run directory holds

    last.safetensors     all that is needed to continue; written before the first step, after every epoch, every
                         ``checkpoint_every`` minutes and when the run is asked to stop
    best.safetensors     the net alone, as it was after the epoch of the best validation accuracy (without
                         validation images: the latest epoch); with ``ema`` its averaged weights; with ``quantise``
                         the net in eight bits, while last.safetensors holds the float one
    epoch-5.safetensors  with ``keep_every``: last.safetensors as it was after epoch 5, and the best net by then,
                         epoch-5.best.safetensors: all that going on from there needs
    metrics.jsonl        a line an epoch; metrics.csv the same as a table
    result.json          when all is done: the test accuracy of best.safetensors, and what it took
"""

import copy
import inspect
import json
import math
import os
import shlex
import time
from collections.abc import Callable, Iterable
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from numnet import ahead, checkpoint, cores
from numnet import data as datasets
from numnet.data import transforms
from numnet.data.mixing import Mixed
from numnet.data.names import listed
from numnet.data.split import ResizedSplit, in_memory
from numnet.errors import Diverged, NumnetError, tell
from numnet.kernels import vector
from numnet.kernels.loss import softmax_cross_entropy
from numnet.loading import load
from numnet.net import Net
from numnet.quantised import FakeQuantised
from numnet.training import state, trouble
from numnet.training.console import Bar, Compiling, Signals
from numnet.training.evaluate import evaluate, worst_class
from numnet.training.lock import Lock
from numnet.training.optimisers import OPTIMISERS, Average
from numnet.training.recipes import SETTINGS, check
from numnet.training.schedules import OPTIONS as SCHEDULES
from numnet.training.schedules import schedule as make_schedule
from numnet.training.team import Team
from numnet.training.whitening import whiten

EVALUATION_BATCH = 256  # at most: inference is not faster with more, only larger
RANGES = 256  # training images that the first ranges of a training for eight bits are taken from
# What is added up during an epoch. "busy" and "data" are without a process's first step, which compiles.
SUMS = ("loss", "correct", "images", "seconds", "busy_images", "busy_seconds", "data_seconds")


class Callback:
    """Something that a training calls as it goes. Any of the methods may be left out.

    ``run`` has ``net``, ``optimiser``, ``settings``, ``epoch`` (from 0), ``step`` (steps of the optimiser
    done), ``history`` and ``stop``: set it to True and the training ends with this epoch as if it were
    complete. What a callback remembers is not in the checkpoint.
    """

    def on_start(self, run): ...

    def on_gradient(self, run):
        """After backward, before clipping and the optimiser: ``run.net.flat_grad`` may be changed."""

    def on_step(self, run, loss): ...

    def on_epoch(self, run, record): ...

    def on_end(self, run, result): ...


def fit(
    net: Net,
    data: datasets.Dataset,
    *,
    epochs: int,
    batch_size: int = 128,
    optimiser: str = "sgd",
    lr: float | None = None,
    weight_decay: float = 0.0,
    decay_depthwise: bool = True,
    schedule: str = "one_cycle",
    warmup: float | None = None,
    label_smoothing: float = 0.0,
    augment: dict[str, Any] | None = None,
    progressive: Any = None,
    scaling: str = "dataset",
    accumulate: int = 1,
    clip_norm: float | None = None,
    ema: float | None = None,
    freeze: str | None = None,
    whiten: bool = False,
    class_weights: str | dict[str, float] | None = None,
    sampling: str = "shuffled",
    patience: int | None = None,
    seed: int = 0,
    checkpoint_every: float | None = None,
    keep_every: int | None = None,
    quantise: bool = False,
    sync_bn: bool = False,
    exact: bool = False,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    callbacks: Iterable[Callable[..., Any]] = (),
    progress: bool = True,
    team: Any = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Train ``net`` on ``data.train``; return the history, a dict an epoch: the lines of ``metrics.jsonl``.

    net               a ``numnet.Net``; its weights are changed in place; with ``ema`` to the averages
    data              a Dataset of ``numnet.data``; validation images, if any, are evaluated after each epoch
    batch_size        images per step of the optimiser
    accumulate        parts in which a batch goes through the net, one after another: the memory of a part,
                      the gradient of the batch. Equal up to rounding, dropout included, where images do not
                      meet in the net. In batch normalisation they do: its statistics are those of a part
    optimiser, lr     "sgd", "muon", "rmsprop", "adam", "adamw"; lr None: the optimiser's own. Their further options
                      (momentum, nesterov, ratio, beta_rate, rho, beta1, beta2, epsilon, style) are ``options``
    weight_decay      on weights, not biases, gamma, beta; ``decay_depthwise=False``: nor on depthwise ones
    schedule, warmup  "constant", "linear", "cosine", "one_cycle", "step", "exponential"; warm-up in epochs,
                      None: 30 % of a one_cycle, else 0. Their further options (final, gamma, milestones,
                      every) are ``options``
    augment           {"crop": pixels, "flip": True or "alternate", "cutout": side} or None;
                      also "mixup" and "cutmix": α, see ``numnet.data.mixing``
    progressive       smaller images first: [[part of the net's side, part of the epochs], …], the rest at the
                      net's own side. [[0.5, 0.4], [0.75, 0.3]]: of 10 epochs four at half the side, a quarter of
                      the work, and three at three quarters. Validation is at the net's own side always
    scaling           of x/255: "dataset" takes off the training set's mean and divides by its deviation;
                      "unit" leaves it, "keras" makes it −1 … 1, "imagenet": see ``numnet.data.transforms``
    clip_norm         the gradient is clipped to this L2 norm
    ema               decay of the averaged weights, which are evaluated and saved too
    freeze            name of a block: it and all before it run as in inference, and no bit of them changes
    whiten            the first convolution gets filters that whiten patches of the training images (``training.whitening``)
                      and is frozen
    class_weights     of the loss of each image, by its class: "balanced" (one over the number of its images) or
                      {"cat": 2, …} (those not named: 1); scaled so that their mean over the training images is 1.
                      Validation is not weighted
    sampling          "shuffled": each image once an epoch; "balanced": as many of each class (``numnet.data.batches``)
    patience          epochs: the training ends after this many in a row without a better result (a higher validation
                      accuracy, or the same and a smaller loss); the schedule is still that of all ``epochs``
    out               run directory (see the module); ``resume=True`` goes on from its last checkpoint
    checkpoint_every  minutes between checkpoints within an epoch
    keep_every        epochs between checkpoints that are kept: see the module
    quantise          train for eight bits a net that is trained already: ``net.fake`` is then a
                      ``numnet.quantised.FakeQuantised``, ``net.fake.whole()`` the net in eight bits, and validation
                      and test are those of that net. Batch norm keeps its running statistics, dropout is left out
    callbacks         objects with methods of ``Callback``, or functions called with each epoch's dict
    team              who shares the work: None, this process alone, or a ``numnet.parallel.team()``
    sync_bn, exact    for a team only: see ``numnet.parallel``

    A record has ``epoch`` (from 1), ``lr`` (of its last step), ``train_loss``, ``train_accuracy`` (while
    training, on augmented images), ``validation_loss``, ``validation_accuracy`` (None without validation
    images), ``seconds``, ``images_per_second`` (of training alone, without a process's first step, which
    compiles), ``data_seconds`` (waiting for data); with ``ema`` also ``ema_validation_loss`` and
    ``ema_validation_accuracy``.

    Given a run directory, Ctrl-C and SIGTERM finish the step, save, and say how to go on; then
    KeyboardInterrupt, or SystemExit with code 143; a terminal that is closed (SIGHUP) does the same, code 129.
    Raises NumnetError for settings that make no sense, for a run directory that another process trains in, and
    for a loss, a gradient or a weight that is no finite number: with epoch, step and the first layer. The last
    checkpoint then stays.
    """
    settings = {name: value for name, value in locals().items() if name in SETTINGS}
    run = Run(net, data, {**settings, **options}, out=out, callbacks=callbacks, progress=progress, team=team)
    run.train(resume=resume)
    return run.history


DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(fit).parameters.items()
    if name in SETTINGS and parameter.default is not parameter.empty
}


class Run:
    """One training, step by step: what ``fit`` does. ``meta`` goes into the checkpoints' document."""

    DEFAULTS = DEFAULTS

    def __init__(self, net, data, settings, *, out=None, meta=None, callbacks=(), progress=True, team=None):
        settings = {key: _plain(value) for key, value in {**DEFAULTS, **settings}.items()}
        self.settings = check(settings, "training")
        self.net, self.data, self.meta = net, data, meta or {}
        self.out, self.team = None if out is None else Path(out), team or Team()
        self.writes = self.out is not None and self.team.leads
        self.lock = Lock(self.out or ".")  # taken by ``state.prepare``
        self.callbacks, self.progress = callbacks, progress and self.team.leads
        if not net.classes:
            raise NumnetError(
                "this net has no classifier (classes=0); numnet.with_head(net, classes) gives it one to train"
            )
        self.images = len(data.train.labels)
        if not self.images:
            raise NumnetError(f"{data.name}: no images to train on")
        self.batches = -(-self.images // self.settings["batch_size"])  # of an epoch; the last may be smaller
        if net.fake is not None:
            self.settings["quantise"] = True
        self._require_quantisable()
        self.scaling = (
            data.scaling
            if self.settings["scaling"] == "dataset"
            else transforms.scaling(self.settings["scaling"])
        )
        freeze = self.settings["freeze"]
        if self.settings["whiten"]:
            whiten(net, data.train, self.scaling)
            freeze = freeze or net.layers[0].name
        self.frozen = (0, 0) if freeze is None else net.freeze(freeze)
        known = getattr(net, "class_names", None)
        if known is not None and list(data.classes) != list(known)[: len(data.classes)] and self.team.leads:
            tell(
                f"the net was trained on {listed(known)}, {data.name} has {listed(data.classes)}: its outputs are taken by "
                "position (`numnet train --init` takes them by name)"
            )
        self.weights = self._class_weights()
        if self.settings["patience"] is not None and not self._validates():
            raise NumnetError(
                f"patience: {data.name} has no validation images to judge an epoch by; "
                "--validation N holds some back"
            )
        self.optimiser = self._optimiser()
        self.rate = self._rate()
        ema = self.settings["ema"]
        self.average = None if ema is None else Average(ema, params=net.flat, buffers=net.flat_buffers)
        self.side = net.input_shape[0]
        self.sides = self._sides()  # of each epoch
        self._smaller = (None, None)  # a smaller side, and the images of that side
        self.epoch = self.batch = 0  # epochs done, and batches of the next one
        self.history: list[dict] = []
        self.best = self.result = None
        self.sums = dict.fromkeys(SUMS, 0)  # of the epoch under way
        self.busy = {"images": 0, "seconds": 0.0}  # of all epochs
        self.seconds = 0.0  # from the start of the first step, in all processes
        self.stop, self._told = False, None  # a signal that a member of the team had
        self.extended = ()  # settings that a resumed run may change: "epochs", "patience"
        self.team.start(self)

    @property
    def step(self) -> int:
        """Steps of the optimiser done."""
        return self.optimiser.steps

    # ------------------------------------------------------------------------------------------- settings

    def _optimiser(self):
        settings, cls = self.settings, OPTIMISERS[self.settings["optimiser"]]
        foreign = {key for other in OPTIMISERS.values() for key in other.DEFAULTS} - set(cls.DEFAULTS)
        _refuse(settings, foreign, f"the optimiser {cls.name()}", cls.DEFAULTS)
        mask = self.net.decay_mask
        if not settings["decay_depthwise"]:
            mask = mask & ~_positions(self.net, "depthwise")
        own = {key: settings[key] for key in cls.DEFAULTS if settings.get(key) is not None}
        net = self.net
        betas = _positions(net, "beta")
        return cls(net.flat, net.flat_grad, mask, settings["weight_decay"], net.matrices(), betas, **own)

    def _class_weights(self):
        """The weight of each class, float64; None if all are 1."""
        given, labels, names = self.settings["class_weights"], self.data.train.labels, list(self.data.classes)
        if given is None:
            return None
        if self.settings["sampling"] == "balanced":
            raise NumnetError(
                "class_weights and sampling balanced: each makes up for small classes; expected one of them"
            )
        counts = np.bincount(labels, minlength=self.net.classes)
        if given == "balanced":
            weights = 1 / np.maximum(counts, 1)
        else:
            strange = [name for name in given if name not in names]
            if strange:
                raise NumnetError(
                    f"class_weights: {self.data.name} has no class {strange[0]!r}; it has {', '.join(names[:10])}"
                )
            weights = np.array(
                [given.get(name, 1.0) for name in names] + [1.0] * (self.net.classes - len(names))
            )
        return weights * len(labels) / (weights * counts).sum()

    def _require_quantisable(self) -> None:
        """Raise NumnetError for settings that do not go with training for eight bits."""
        if not self.settings["quantise"]:
            return
        for key in ("ema", "freeze", "whiten"):
            if self.settings[key] not in (None, False):
                raise NumnetError(
                    f"quantise: a training for eight bits has no {key}; expected one of the two"
                )
        if self.team.size > 1:
            raise NumnetError(
                "quantise: a training for eight bits runs in one process; expected no mpiexec before it"
            )

    def _fake(self, resume) -> None:
        """Give the net its grids, from training images. A run that goes on reads them from its checkpoint, later."""
        if not self.settings["quantise"] or self.net.fake is not None:
            return
        if resume:
            self.net.fake = FakeQuantised(self.net)
            return
        found = datasets.batches(
            self.data.train, batch_size=RANGES, seed=self.settings["seed"], scaling=self.scaling,
            dtype=self.net.dtype, channels=self.net.input_shape[2],
        )  # fmt: skip
        with closing(found):
            self.net.fake = FakeQuantised.of(self.net, next(iter(found))[0])

    def _validates(self) -> bool:
        return self.data.validation is not None and len(self.data.validation.labels) > 0

    def out_of_patience(self) -> bool:
        """True if the last epochs, as many as ``patience`` says, were no better than the best."""
        patience, best = self.settings["patience"], self.best
        if patience is None or best is None or best["accuracy"] is None:
            return False
        return self.epoch - best["epoch"] >= patience

    def _rate(self):
        settings, name = self.settings, self.settings["schedule"]
        foreign = {key for options in SCHEDULES.values() for key in options} - set(SCHEDULES[name])
        _refuse(settings, foreign, f"the schedule {name}", SCHEDULES[name])
        warmup, epochs = settings["warmup"], settings["epochs"]
        if warmup is None:
            warmup = 0.3 * epochs if name == "one_cycle" else 0
        if warmup > epochs:
            raise NumnetError(f"a warm-up of {warmup:g} epochs does not fit into a training of {epochs}")
        own = {key: settings[key] for key in SCHEDULES[name] if key in settings}
        lr = self.optimiser.options["lr"]
        return make_schedule(name, lr, epochs * self.batches, self.batches, warmup * self.batches, **own)

    def _sides(self) -> list[int]:
        """The side of the images in each epoch, even; NumnetError for one that the net cannot take."""
        sides = sides_of(self.settings["epochs"], self.settings["progressive"] or (), self.side)
        for side in dict.fromkeys(sides):
            with _at(self.net, side):  # refused before the first step, not in the middle
                pass
        return sides

    def images_of(self, side):
        """The training images at this side; the net's own are there, others are made once and kept while needed."""
        if side == self.side:
            return self.data.train
        if self._smaller[0] != side:
            split = ResizedSplit(self.data.train, side)
            self._smaller = side, in_memory(split) if self.data.train.kept else split
        return self._smaller[1]

    # ------------------------------------------------------------------------------------------- training

    def train(self, resume=False) -> None:
        """Train to the end, from the start or from the last checkpoint. A finished run is left as it is."""
        try:
            with cores.within_quota():
                self._train(resume)
        finally:
            self.lock.free()

    def _train(self, resume) -> None:
        self._fake(resume)
        if self.out is not None:
            self.team.lead(lambda: state.prepare(self, resume))
        elif resume:
            raise NumnetError("resume=True needs the run directory: out=…")
        state.level(self)
        if self.result is not None:
            return
        self._fresh = True  # until this process's first step, which may compile, is over
        self._evaluated = False
        self._began = time.perf_counter() - self.seconds
        with Signals(self.out is not None) as self._signals:
            self._compile(self._rehearse_a_step)
            self._epochs()

    def _compile(self, work) -> None:
        """Compile what ``work`` calls, on all cores at once. A team's members share their cores already."""
        if self.team.size > 1 or not ahead.compilers():
            return
        try:
            ahead.prepare(work, Compiling(self.progress), lambda: self._signals.received is not None)
        except Exception:  # a layer of one's own that cannot be copied, say: kernels then compile when called
            pass

    def _blank(self, net) -> np.ndarray:
        """A few images of the net's size with nothing in them."""
        return np.zeros((min(8, self.settings["batch_size"]), *net.input_shape), net.dtype)

    def _rehearse_a_step(self):
        """The kernels' calls of a step, on copies of all that it changes."""
        side = self.sides[min(self.epoch, len(self.sides) - 1)]
        net, optimiser, average = copy.deepcopy((self.net, self.optimiser, self.average))
        with _at(net, side):
            x = self._blank(net)
            logits = net.forward(x, training=True)
            _, dlogits = softmax_cross_entropy(logits, np.zeros(len(x), np.int64), 0.0)
            net.backward(dlogits, input_gradient=False)
        optimiser.step(self.rate(0))
        if average is not None:
            average.update(0)

    def _rehearse_validation(self):
        copy.deepcopy(self.net).predict(self._blank(self.net))

    def _epochs(self) -> None:
        with Bar(self, self.progress) as self._bar:
            self._leave_if_told()
            self._call("on_start")
            while self.epoch < self.settings["epochs"] and not self.stop and not self.out_of_patience():
                self._train_epoch()
                self._end_epoch()
                self._leave_if_told()
            if self.epoch < self.settings["epochs"] and self.out_of_patience():
                self._bar.line(
                    f"ended after epoch {self.epoch}: none better than epoch {self.best['epoch']} "
                    f"for {self.settings['patience']} epochs"
                )
            self._end()
            self._agree()
            self._leave_if_told()

    def _train_epoch(self) -> None:
        """The batches of this epoch that are still to do."""
        settings, every = self.settings, math.inf  # seconds
        if self.writes and settings["checkpoint_every"] is not None:
            every = 60 * settings["checkpoint_every"]
        self._epoch_began = saved = time.perf_counter() - self.sums["seconds"]
        side = self.sides[self.epoch]
        batches = datasets.batches(
            self.images_of(side), batch_size=settings["batch_size"], seed=settings["seed"], epoch=self.epoch,
            channels=self.net.input_shape[2],
            augment=shrunk(settings["augment"], side / self.side), scaling=self.scaling,
            start=self.batch, dtype=self.net.dtype,
            take=lambda number, images: self.team.take(images, settings["accumulate"]), sampling=settings["sampling"],
        )  # fmt: skip
        with closing(batches), _at(self.net, side):
            asked = time.perf_counter()
            for x, labels in batches:
                got = time.perf_counter()
                images = min(settings["batch_size"], self.images - self.batch * settings["batch_size"])
                loss, correct = self._step(x, labels, images)
                now = time.perf_counter()
                self._count(loss, correct, images, got - asked, now - asked)
                self._bar.advance(images)
                self._call("on_step", loss)
                if self.batch < self.batches:  # the end of an epoch saves anyway
                    if now - saved >= every:
                        state.save(self)
                        saved = time.perf_counter()
                    self._leave_if_told()
                asked = time.perf_counter()

    def _step(self, x, labels, images) -> tuple[float, int]:
        """One step of the optimiser on one batch: the mean loss and the number of images that were right.

        x, labels: those of the batch's ``images`` images that are ours; all of them, unless a team shares them.
        """
        net, settings, team = self.net, self.settings, self.team
        losses, correct = [], 0
        parts = team.parts(images, settings["accumulate"])
        total = np.zeros_like(net.flat_grad) if len(parts) > 1 else None
        passes = net.step
        for part in parts:
            mine = slice(part.lo, part.hi)
            net.step, net.first_image = passes, part.first
            team.before(part, last=total is None)
            logits = net.forward(x[mine], training=True)
            dlogits = self._loss(logits, labels[mine], part, losses)
            net.backward(dlogits, input_gradient=False)
            if total is not None:
                vector.accumulate(total, net.flat_grad)
            own = labels.labels if isinstance(labels, Mixed) else labels
            # Images that several members do (a batch of fewer images than members) count once in the team's sum.
            correct += int((logits.argmax(axis=1) == own[mine]).sum()) / part.copies
        net.first_image = 0
        if total is not None:
            net.flat_grad[:] = total
        team.sum_gradient()
        loss, correct, self._told = team.sum_up(losses, correct, self._signals.received)
        correct = round(correct)
        if not math.isfinite(loss):
            self.diverged(f"the loss is {loss}", self._where(passes, parts, x, labels))
        self._call("on_gradient")
        if not _finite(net.flat_grad):
            self.diverged("the gradient is not finite", self._where(passes, parts, x, labels))
        if settings["clip_norm"] is not None:
            vector.clip(net.flat_grad, settings["clip_norm"])
        self.optimiser.step(self.rate(self.step))
        if self.average is not None:
            self.average.update(self.step)
            for count, (name, vector_) in zip(self.frozen, self.average.vectors.items()):
                # what is frozen is copied: an average of equal numbers may be off by a bit
                self.average.slots[name][:count] = vector_[:count]
        return loss, correct

    def _loss(self, logits, labels, part, losses):
        """dlogits of one part of a batch, as a share of the batch's mean loss; ``losses`` gains its terms."""
        dlogits = np.empty_like(logits)
        for share in self.team.peers.shares(len(logits)):
            mean, dlogits[share] = self._cross_entropy(logits[share], labels[share])
            weight = part.weight * (len(dlogits[share]) / len(logits))
            if weight != 1:  # the mean over the batch, not over the share
                dlogits[share] *= weight
            losses.append(mean * weight)
        return dlogits

    def _cross_entropy(self, logits, labels):
        """The mean loss and dlogits, each image with the weight of its class: images of one weight together."""
        if isinstance(labels, Mixed):
            loss, dlogits = self._cross_entropy(logits, labels.labels)
            theirs, more = self._cross_entropy(logits, labels.others)
            share = labels.share
            return share * loss + (1 - share) * theirs, share * dlogits + (1 - share) * more
        smoothing = self.settings["label_smoothing"]
        if self.weights is None:
            return softmax_cross_entropy(logits, labels, smoothing)
        weights, dlogits, loss = self.weights[labels], np.empty_like(logits), 0.0
        for weight in np.unique(weights):
            rows = np.flatnonzero(weights == weight)
            mean, mine = softmax_cross_entropy(logits[rows], labels[rows], smoothing)
            share = float(weight) * len(rows) / len(labels)
            dlogits[rows] = mine * share
            loss += mean * share
        return loss, dlogits

    def _where(self, passes, parts, x, labels) -> str:
        """The first layer in which this batch makes a number that is not finite."""
        if self.team.size > 1:  # passes of one member alone would wait for the others
            return trouble.of_gradient(self.net)
        work = []
        for part in parts:
            mine = slice(part.lo, part.hi)
            gradient = partial(self._loss, labels=labels[mine], part=part, losses=[])
            work.append((part.first, x[mine], gradient))
        return trouble.of_training(self.net, passes, work)

    def _count(self, loss, correct, images, waited, took) -> None:
        """Take note of a step: the position, the sums, the clocks."""
        sums, now = self.sums, time.perf_counter()
        self.batch += 1
        sums["loss"] += loss * images
        sums["correct"] += correct
        sums["images"] += images
        if self._fresh:
            self._fresh = False
        else:
            sums["busy_images"] += images
            sums["busy_seconds"] += took
            sums["data_seconds"] += waited
            self.busy["images"] += images
            self.busy["seconds"] += took
        sums["seconds"], self.seconds = now - self._epoch_began, now - self._began

    def _end_epoch(self) -> None:
        """Validation, the line of metrics, the checkpoints."""
        sums, validation = self.sums, self._validation()
        now = time.perf_counter()
        self.seconds = now - self._began
        record = {
            "epoch": self.epoch + 1,
            "lr": self.rate(self.step - 1),
            "train_loss": sums["loss"] / sums["images"],
            "train_accuracy": sums["correct"] / sums["images"],
            **validation,
            "seconds": now - self._epoch_began,
            "images_per_second": sums["busy_images"] / sums["busy_seconds"] if sums["busy_images"] else None,
            "data_seconds": sums["data_seconds"],
        }
        if self.settings["progressive"]:
            record["resolution"] = self.sides[self.epoch]
        self.history.append(record)
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, dict.fromkeys(SUMS, 0)
        if self.writes:
            state.append(self, record)
        # The best net before last.safetensors: killed in between, the epoch is done again, and both are right.
        self._note_best(record)
        if self.writes:
            if self.settings["keep_every"] is not None and self.epoch % self.settings["keep_every"] == 0:
                state.keep(self)
            state.save(self)
        self._bar.epoch(record)
        self._call("on_epoch", record)
        for callback in self.callbacks:
            if not isinstance(callback, type) and callable(callback):
                callback(record)
        self._agree()

    def _validation(self) -> dict:
        """Loss and accuracy on the validation images, of the net and of the averaged one."""
        split, values = self.data.validation, {"validation_loss": None, "validation_accuracy": None}
        nets = [("", nullcontext())]
        if self.average is not None:
            nets.append(("ema_", self.average))
        for prefix, weights in nets:
            if split is None or not len(split.labels):
                continue
            with weights:
                result = self._evaluate(split)
            if not math.isfinite(result["loss"]):
                with weights:
                    batches = datasets.batches(
                        split,
                        channels=self.net.input_shape[2],
                        batch_size=EVALUATION_BATCH,
                        scaling=self.scaling,
                        shuffle=False,
                        dtype=self.net.dtype,
                    )
                    where = trouble.of_inference(self.net, batches)
                self.diverged(f"the validation loss is {result['loss']}", where, over=True)
            values[f"{prefix}validation_loss"] = result["loss"]
            values[f"{prefix}validation_accuracy"] = result["accuracy"]
        return values

    def _evaluate(self, split, net=None) -> dict:
        """Loss, accuracy and more of ``net``; None: of the one in training, put into eight bits if it is trained for them."""
        batch_size = min(self.settings["batch_size"], EVALUATION_BATCH)
        if self.net.fake is not None:
            net = net or self.net.fake.whole()
        elif not self._evaluated:
            self._compile(self._rehearse_validation)
            self._evaluated = True
        return evaluate(net or self.net, split, self.scaling, batch_size=batch_size, team=self.team)

    def _note_best(self, record) -> None:
        """Keep this epoch's net if it is the best so far: of equal accuracies the smaller loss."""
        prefix = "" if self.average is None else "ema_"
        accuracy, loss = (record.get(f"{prefix}validation_{key}") for key in ("accuracy", "loss"))
        if accuracy is not None and self.best is not None:
            if (accuracy, -loss) <= (self.best["accuracy"], -self.best["loss"]):
                return
        self.best = {"epoch": record["epoch"], "accuracy": accuracy, "loss": loss}
        if self.writes:
            with self.average or nullcontext():
                state.save_net(self, "best.safetensors")

    def _end(self) -> None:
        """The test images, seen by the best net; with ``ema`` the averages are put into the net for good."""
        if self.out is not None:
            best = self.out / "best.safetensors"
            test = {"accuracy": None, "top5": None, "loss": None}
            if self.data.test is not None and len(self.data.test.labels):
                if self.net.fake is not None:
                    test = self._evaluate(self.data.test, load(best))
                else:
                    with _weights_of(self.net, best, self.team):
                        test = self._evaluate(self.data.test)
            self.result = {
                "test_accuracy": test["accuracy"],
                "test_top5": test["top5"],
                "test_loss": test["loss"],
                "test_macro": test.get("macro"),
                "test_worst": self._worst(test),
                "validation_accuracy": self.best["accuracy"],
                "chosen_by_test": self.data.validation is not None and self.data.validation is self.data.test,
                "best_epoch": self.best["epoch"],
                "epochs": self.epoch,
                "stopped_early": self.epoch < self.settings["epochs"] and self.out_of_patience(),
                "train_seconds": self.seconds,
                "images_per_second": self.busy["images"] / self.busy["seconds"]
                if self.busy["images"]
                else None,
                "checkpoint": str(best),
            }
            if self.writes:
                checkpoint.replace(
                    self.out / "result.json", (json.dumps(self.result, indent=1) + "\n").encode()
                )
        if self.average is not None:
            self.average.take()
        self._call("on_end", self.result)

    def _worst(self, test):
        """The class whose test images are least often right, or None without test images."""
        if "confusion" not in test:
            return None
        worst = worst_class(test)
        label = str(worst) if worst >= len(self.data.classes) else self.data.classes[worst]
        images = sum(test["confusion"][worst])
        return {"class": worst, "label": label, "images": images, "accuracy": test["per_class"][worst]}

    def _call(self, method, *arguments) -> None:
        for callback in self.callbacks:
            if hasattr(callback, method):
                getattr(callback, method)(self, *arguments)

    def diverged(self, what, where="", over=False) -> None:
        """Raise Diverged: ``what`` is no longer a finite number; ``where``: ", first in …"; ``over``: between steps."""
        when = f"in epoch {self.epoch + 1}, step {self.batch + (not over)} of {self.batches}"
        if over and not self.batch:
            when = f"at the end of epoch {self.epoch}"
        raise Diverged(
            f"{what} {when}{where}: training diverged; "
            f"try a learning rate below {self.optimiser.options['lr']:g}, a longer warm-up, or clip_norm"
        )

    def _leave_if_told(self) -> None:
        """After Ctrl-C, SIGTERM or SIGHUP: save, say how to go on, and end the process with the signal's exit code."""
        told = self._signals.received if self.team.size == 1 else self._told
        if told is None:
            return
        if self.result is None and self.writes:
            state.save(self)
            where = f"after epoch {self.epoch}"
            if self.batch:
                where = f"in epoch {self.epoch + 1} after {self.batch} of {self.batches} batches"
            self._bar.say(f"stopped {where}; to go on:\nnumnet train --resume {shlex.quote(str(self.out))}")
        self._signals.leave(told)

    def _agree(self) -> None:
        """Whether to stop, and a signal that one member had, are the same for all of a team."""
        stops, signals = zip(*self.team.gather((self.stop, self._signals.received)))
        self.stop, self._told = any(stops), max((s for s in signals if s is not None), default=None)


# ------------------------------------------------------------------------------------------------- helpers


def _finite(vector) -> bool:
    """True if every number is finite: a sum is then, too, unless it overflows. Half the price of looking at each."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(vector.sum())) or bool(np.isfinite(vector).all())


def _plain(value):
    """NumPy's numbers as Python's, tuples as lists: what a JSON document gives back when it is read."""
    if isinstance(value, np.generic):
        return value.item()
    return list(value) if isinstance(value, tuple) else value


def _refuse(settings, foreign, who, has) -> None:
    for key in sorted(foreign.intersection(settings)):
        raise NumnetError(f"{who} has no {key}; it has {', '.join(has) or 'no options'}")


def _positions(net, role) -> np.ndarray:
    """True where the flat vector holds a parameter of this role, see ``Spec``."""
    return np.repeat(
        [spec.role == role for spec in net.specs.values()], [spec.size for spec in net.specs.values()]
    )


def sides_of(epochs, stages, full) -> list[int]:
    """The side of the images in each epoch, even: what ``progressive`` says for a net of side ``full``."""
    done, sides = 0.0, []
    for part, share in stages:
        done += share
        side = max(round(part * full / 2) * 2, 2)
        sides += [side] * (round(done * epochs) - len(sides))
    return sides + [full] * (epochs - len(sides))


def shrunk(augment, part):
    """The augmentation of smaller images: what is given in pixels shrinks with them."""
    if augment is None or part == 1:
        return augment
    return {
        key: round(value * part) if key in ("crop", "cutout") else value for key, value in augment.items()
    }


@contextmanager
def _at(net, side):
    """Inside, the net takes images of this side."""
    own = net.input_shape[0]
    if side != own:
        net.resize(side)
    try:
        yield
    finally:
        if side != own:
            net.resize(own)


@contextmanager
def _weights_of(net, path, team):
    """Inside, the net has the weights of a checkpoint, which member 0 reads; afterwards its own again."""
    own, own_buffers = net.flat.copy(), net.flat_buffers.copy()
    try:
        team.lead(lambda: net.restore(checkpoint.read(path)[0], str(path)))
        team.level(net)
        yield
    finally:
        net.flat[:], net.flat_buffers[:] = own, own_buffers
