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

import inspect
import json
import math
import os
import shlex
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np

from numnet import checkpoint, cores
from numnet import data as datasets
from numnet.data.mixing import Mixed
from numnet.errors import NumnetError
from numnet.kernels import vector
from numnet.net import Net
from numnet.training import rehearsal, scoring, setup, state, trouble
from numnet.training.console import Bar, Signals
from numnet.training.lock import Lock
from numnet.training.loss import Loss
from numnet.training.pace import Pace
from numnet.training.progressive import Sized, at_side, possible_sides, shrunk
from numnet.training.recipes import SETTINGS, check
from numnet.training.team import Team

# What is added up during an epoch. "busy" and "data" are without a process's first step, which compiles.
SUMS = ("loss", "correct", "images", "seconds", "busy_images", "busy_seconds", "data_seconds")


class Found(NamedTuple):
    """What this member of the team found out about a batch while it made the gradient."""

    terms: list  # of the batch's mean loss: those of this member's images
    correct: float  # images that were right; where several members do the same images, its share of them


class Run:
    """One training, step by step: what ``fit`` does. ``meta`` goes into the checkpoints' document.

    Raises NumnetError for settings that make no sense, for this net or for this data.
    """

    def __init__(self, net, data, settings, *, out=None, meta=None, callbacks=(), progress=True, team=None):
        # Who trains what, and where it is written
        self.net, self.data, self.callbacks = net, data, callbacks
        # What the images are: whoever uses the net shall know them again, and resize others alike
        facts = {key: getattr(data, key, None) for key in ("digest", "preset", "background")}
        self.meta = {**{key: fact for key, fact in facts.items() if fact is not None}, **(meta or {})}
        self.settings = settings = check(setup.plain({**DEFAULTS, **settings}), "training")
        self.out, self.team = None if out is None else Path(out), team or Team()
        self.writes = self.out is not None and self.team.leads
        self.lock = Lock(self.out or ".")  # taken by ``state.prepare``

        # What the settings mean for this net and this data
        setup.require_trainable(net, data)
        # As texts, whatever the data set has, and none without an output: files with others cannot be loaded
        self.class_names = [str(name) for name in data.classes][: net.classes]
        if net.fake is not None:
            settings["quantise"] = True
        setup.require_quantisable(settings, net, self.team.size)
        self.images = len(data.train.labels)
        self.batches = -(-self.images // settings["batch_size"])  # of an epoch; the last may be smaller
        self.scaling = setup.scaling_of(settings, data)
        self.frozen = setup.freeze(settings, net, data, self.scaling)
        if self.team.leads:
            setup.tell_of_differences(net, data, self.class_names, self.scaling)
        weights = setup.class_weights(settings, data, self.class_names, net.classes)
        self.loss = Loss(settings["label_smoothing"], weights)
        setup.require_validation(settings, data)
        self.optimiser = setup.optimiser(settings, net)
        self.rate = setup.rate(settings, self.optimiser.options["lr"], self.batches)
        self.average = setup.average(settings, net, self.frozen)
        self.side = net.input_shape[0]
        self.sides = possible_sides(settings, net)  # of each epoch
        self.sized = Sized(data.train, self.side)
        self.extended = ()  # settings that a resumed run may change: "epochs", "patience"
        self.back = None  # the epoch whose kept checkpoint a resumed run goes back to
        self.defaults = DEFAULTS  # of settings that an older checkpoint does not name

        # How far it is: all that a checkpoint holds besides vectors
        self.epoch = self.batch = 0  # epochs done, and batches of the next one
        self.history: list[dict] = []
        self.best = self.result = None
        self.sums = dict.fromkeys(SUMS, 0)  # of the epoch under way
        self.busy = {"images": 0, "seconds": 0.0}  # of all epochs
        self.seconds = 0.0  # of training, in all processes, compiling included

        # What this process alone knows
        self.stop = False  # a callback's wish
        self.told = None  # a signal that a member of the team had
        self.progress = progress and self.team.leads
        self.signals, self.bar = Signals(self.out is not None), Bar(self, self.progress)
        self.fresh = True  # until this process's first step, which may compile, is over
        self.evaluated = False  # until its first evaluation, which may compile
        self.began = self.epoch_began = 0.0  # time.perf_counter() less the seconds of earlier processes
        self.team.start(self)

    @property
    def step(self) -> int:
        """Steps of the optimiser done."""
        return self.optimiser.steps

    # ------------------------------------------------------------------------------------------- start

    def train(self, resume=False) -> None:
        """Train to the end, from the start or from the last checkpoint. A finished run is left as it is."""
        try:
            with cores.within_quota():
                self._train(resume)
        finally:
            self.lock.free()

    def _train(self, resume) -> None:
        setup.give_grids(self.settings, self.net, self.data, self.scaling, resume)
        if self.out is not None:
            self.team.lead(lambda: state.prepare(self, resume))
        elif resume:
            raise NumnetError("resume=True needs the run directory: out=…")
        state.level(self)
        if self.result is not None:
            self._name_net()
            return
        self.began = time.perf_counter() - self.seconds
        with self.signals:
            rehearsal.compile_step(self)
            with self.bar:
                self._leave_if_told()
                self._name_net()  # not only at the end: callbacks save the net, and a training may be broken off
                self._call("on_start")
                self.pace = Pace(numba.get_num_threads())
                try:
                    self._train_epochs()
                finally:
                    self.pace.end()
                self._end()
                self._agree()
                self._leave_if_told()

    # ------------------------------------------------------------------------------------------- epochs

    def _train_epochs(self) -> None:
        epochs = self.settings["epochs"]
        while self.epoch < epochs and not self.stop and not self.out_of_patience():
            self._train_epoch()
            self._end_epoch()
            self._leave_if_told()
        if self.epoch < epochs and self.out_of_patience():
            self.bar.line(
                f"ended after epoch {self.epoch}: none better than epoch {self.best['epoch']} "
                f"for {self.settings['patience']} epochs"
            )

    def out_of_patience(self) -> bool:
        """True if the last epochs, as many as ``patience`` says, were no better than the best."""
        patience, best = self.settings["patience"], self.best
        if patience is None or best is None or best["accuracy"] is None:
            return False
        return self.epoch - best["epoch"] >= patience

    def _train_epoch(self) -> None:
        """The batches of this epoch that are still to do."""
        settings, every = self.settings, math.inf  # seconds
        if self.writes and settings["checkpoint_every"] is not None:
            every = 60 * settings["checkpoint_every"]
        self.epoch_began = saved = time.perf_counter() - self.sums["seconds"]
        side = self.sides[self.epoch]
        batches = datasets.batches(
            self.sized.at(side), batch_size=settings["batch_size"], seed=settings["seed"], epoch=self.epoch,
            channels=self.net.input_shape[2],
            augment=shrunk(settings["augment"], side / self.side), scaling=self.scaling,
            start=self.batch, dtype=self.net.dtype,
            take=lambda number, images: self.team.take(images, settings["accumulate"]), sampling=settings["sampling"],
        )  # fmt: skip
        with closing(batches), at_side(self.net, side):
            asked = time.perf_counter()
            for x, labels in batches:
                got = time.perf_counter()
                images = min(settings["batch_size"], self.images - self.batch * settings["batch_size"])
                loss, correct = self._step(x, labels, images)
                now = time.perf_counter()
                self.pace.step((now - got) / images)
                self._count(loss, correct, images, got - asked, now - asked)
                self.bar.advance(images)
                self._call("on_step", loss)
                if self.batch < self.batches:  # the end of an epoch saves anyway
                    if now - saved >= every:
                        state.save(self)
                        saved = time.perf_counter()
                    self._leave_if_told()
                asked = time.perf_counter()

    def _count(self, loss, correct, images, waited, took) -> None:
        """Take note of a step: the position, the sums, the clocks."""
        sums, now = self.sums, time.perf_counter()
        self.batch += 1
        sums["loss"] += loss * images
        sums["correct"] += correct
        sums["images"] += images
        if self.fresh:
            self.fresh = False
        else:
            sums["busy_images"] += images
            sums["busy_seconds"] += took
            sums["data_seconds"] += waited
            self.busy["images"] += images
            self.busy["seconds"] += took
        sums["seconds"], self.seconds = now - self.epoch_began, now - self.began

    def _end_epoch(self) -> None:
        """Validation, the line of metrics, the checkpoints."""
        sums, validation = self.sums, scoring.validation(self)
        now = time.perf_counter()
        self.seconds = now - self.began
        record = {
            "epoch": self.epoch + 1,
            "lr": self.rate(self.step - 1),
            "train_loss": sums["loss"] / sums["images"],
            "train_accuracy": sums["correct"] / sums["images"],
            **validation,
            "seconds": now - self.epoch_began,
            # where the process's first step is all that there is, that one, compilation included
            "images_per_second": (sums["busy_images"] or sums["images"])
            / (sums["busy_seconds"] or sums["seconds"]),
            "data_seconds": sums["data_seconds"],
        }
        if self.settings["progressive"]:
            record["resolution"] = self.sides[self.epoch]
        self.history.append(record)
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, dict.fromkeys(SUMS, 0)
        if self.writes:
            state.append(self, record)
        # The best net before last.safetensors: killed in between, the epoch is done again, and both are right.
        scoring.note_best(self, record)
        if self.writes:
            if self.settings["keep_every"] is not None and self.epoch % self.settings["keep_every"] == 0:
                state.keep(self)
            state.save(self)
        self.bar.epoch(record)
        self._call("on_epoch", record)
        for callback in self.callbacks:
            if not isinstance(callback, type) and callable(callback):
                callback(record)
        self._agree()

    # ------------------------------------------------------------------------------------------- a step

    def _step(self, x, labels, images) -> tuple[float, int]:
        """One step of the optimiser on one batch: the mean loss and the number of images that were right.

        x, labels: those of the batch's ``images`` images that are ours; all of them, unless a team shares them.
        """
        net, team, passes = self.net, self.team, self.net.step
        parts = team.parts(images, self.settings["accumulate"])
        found = self.gradient(parts, x, labels)
        loss, correct, self.told = team.sum_up(found.terms, found.correct, self.signals.received)
        if not math.isfinite(loss):
            trouble.diverged(self, f"the loss is {loss}", self._where(passes, parts, x, labels))
        self._call("on_gradient")
        if not trouble.finite(net.flat_grad):
            trouble.diverged(self, "the gradient is not finite", self._where(passes, parts, x, labels))
        if self.settings["clip_norm"] is not None:
            vector.clip(net.flat_grad, self.settings["clip_norm"])
        self.optimiser.step(self.rate(self.step))
        if self.average is not None:
            self.average.update(self.step)
        return loss, round(correct)

    def gradient(self, parts, x, labels) -> Found:
        """Fill ``net.flat_grad`` with the gradient of the whole batch's mean loss, one part after another."""
        net, team, passes = self.net, self.team, self.net.step
        terms, correct = [], 0
        total = np.zeros_like(net.flat_grad) if len(parts) > 1 else None
        for part in parts:
            net.step, net.first_image = passes, part.first
            team.before(part, last=total is None)
            logits = net.forward(x[part.mine], training=True)
            loss = self._loss_of(part, logits, labels[part.mine])
            net.backward(loss.dlogits, input_gradient=False)
            if total is not None:
                vector.accumulate(total, net.flat_grad)
            terms += loss.terms
            own = labels.labels if isinstance(labels, Mixed) else labels
            # Images that several members do (a batch of fewer images than members) count once in the team's sum.
            correct += int((logits.argmax(axis=1) == own[part.mine]).sum()) / part.copies
        net.first_image = 0
        if total is not None:
            net.flat_grad[:] = total
        team.sum_gradient()
        return Found(terms, correct)

    def _loss_of(self, part, logits, labels):
        return self.loss.of_part(logits, labels, part.weight, self.team.peers.shares(len(logits)))

    def _where(self, passes, parts, x, labels) -> str:
        """The first layer in which this batch makes a number that is not finite."""
        if self.team.size > 1:  # passes of one member alone would wait for the others
            return trouble.of_gradient(self.net)
        work = [(part.first, x[part.mine], partial(self._dlogits, part, labels[part.mine])) for part in parts]
        return trouble.of_training(self.net, passes, work)

    def _dlogits(self, part, labels, logits):
        return self._loss_of(part, logits, labels).dlogits

    # ------------------------------------------------------------------------------------------- end

    def _end(self) -> None:
        """The test images, seen by the best net; with ``ema`` the averages are put into the net for good."""
        if self.out is not None:
            self.result = scoring.result(self)
            if self.writes:
                text = json.dumps(self.result, indent=1) + "\n"
                checkpoint.replace(self.out / "result.json", text.encode())
        if self.average is not None:
            self.average.take()
        self._call("on_end", self.result)

    def _name_net(self) -> None:
        """From now on the net is what this training made of it, whatever it was loaded from."""
        self.net.document = state.document_of(self)
        self.net.scaling, self.net.class_names = self.scaling, list(self.class_names)

    def _leave_if_told(self) -> None:
        """After Ctrl-C, SIGTERM or SIGHUP: save, say how to go on, and end the process with the signal's exit code."""
        told = self.signals.received if self.team.size == 1 else self.told
        if told is None:
            return
        if self.result is None and self.writes:
            state.save(self)
            where = f"after epoch {self.epoch}"
            if self.batch:
                where = f"in epoch {self.epoch + 1} after {self.batch} of {self.batches} batches"
            self.bar.say(f"stopped {where}; to go on:\nnumnet train --resume {shlex.quote(str(self.out))}")
        self.signals.leave(told)

    def _agree(self) -> None:
        """Whether to stop, and a signal that one member had, are the same for all of a team."""
        stops, signals = zip(*self.team.gather((self.stop, self.signals.received)))
        self.stop, self.told = any(stops), max((s for s in signals if s is not None), default=None)

    def _call(self, method, *arguments) -> None:
        for callback in self.callbacks:
            if hasattr(callback, method):
                getattr(callback, method)(self, *arguments)


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
    compiles, if there are others), ``data_seconds`` (waiting for data); with ``progressive`` also
    ``resolution``; with ``ema`` also ``ema_validation_loss`` and ``ema_validation_accuracy``.

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
