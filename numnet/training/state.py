"""A training run on disk: what its checkpoints hold, and how a run becomes the one that wrote them.

last.safetensors holds, besides the net's tensors ("params/…", "buffers/…"), the optimiser's vectors
("optimiser/…"), the averages ("ema/params", "ema/buffers"), the ranges of a training for eight bits ("quantise/…"), and
in its document under "training" the position and all sums that are under way. Nothing else is needed: random numbers come
from counters. best.safetensors is the net alone, in eight bits if it was trained for them. The rest of the document is the
same in both:

    config      keywords of ``numnet.build``          classes     names of the classes
    input       scaling of the input                  dataset     the data set's name
    recipe      all settings of the training          reading     how ``numnet train`` read the data
"""

import csv
import io
import json
import os
import re
import reprlib
import shlex
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from numnet import checkpoint
from numnet.data.names import listed
from numnet.errors import NumnetError, tell
from numnet.loading import read_document
from numnet.training import lock, trouble
from numnet.training.recipes import READING, SETTINGS

FORMAT = 1
BEST = "best.safetensors"
# Settings that change no bit of what the loop computes. (How the data is read was settled before it starts.)
FREE = ("checkpoint_every", "keep_every", "patience", "about", *READING)
# What "training" says: attributes of the Run under their own names, and two counters that it has elsewhere.
OF_THE_RUN = ("epoch", "batch", "images", "best", "sums", "busy", "seconds", "history")
KEPT = (*OF_THE_RUN, "steps", "passes")


def prepare(run, resume) -> None:
    """Make the run directory and its first checkpoint; with ``resume``, become the run that it holds."""
    last = run.out / "last.safetensors"
    if resume:
        if not last.is_file():
            raise NumnetError(f"{run.out}: no run to resume; expected a file last.safetensors in it")
        changed = run.extended or run.back is not None
        if changed or not (run.out / "result.json").exists():  # else there is nothing to write
            run.lock.take()
        load(run)
        return
    try:
        run.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NumnetError(f"cannot write to the run directory {run.out}: {error.strerror}") from None
    run.lock.take()
    require_no_run(run.out)
    checkpoint.replace(run.out / "metrics.jsonl", b"")
    save(run)


def require_free(out) -> None:
    """Raise NumnetError if a process is training in the folder, or if it holds a run."""
    lock.Lock(out).require_free()
    require_no_run(out)


def require_no_run(out) -> None:
    """Raise NumnetError if the folder holds a run."""
    out = Path(out)
    if (out / "last.safetensors").exists():
        raise NumnetError(
            f"{out} holds a run already; go on with `numnet train --resume {shlex.quote(str(out))}` "
            "or name another --out"
        )
    for name in (BEST, "result.json"):
        if (out / name).exists():
            raise NumnetError(
                f"{out} holds {name} of an earlier run, which a new one would replace; move it or name another --out"
            )


def append(run, record) -> None:
    """A line more in metrics.jsonl."""
    path = run.out / "metrics.jsonl"
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    except OSError as error:
        raise NumnetError(f"cannot write {path}: {error.strerror or error}") from error
    _write_table(run)


def _write_table(run) -> None:
    """metrics.csv: all epochs as a table. The log that counts is metrics.jsonl, so a full disk is its matter."""
    columns = list(dict.fromkeys(name for record in run.history for name in record))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(run.history)
    try:
        checkpoint.replace(run.out / "metrics.csv", text.getvalue().encode())
    except NumnetError:
        pass


def level(run) -> None:
    """Give all members of a team what member 0 has prepared: weights, vectors, position, history."""
    if run.team.size == 1:
        return
    steps = (run.net.step, run.step)
    run.net.step, run.optimiser.steps = run.team.lead(lambda: steps)
    names = (*OF_THE_RUN, "result")
    values = run.team.lead(lambda: [getattr(run, name) for name in names])
    for name, value in zip(names, values):
        setattr(run, name, value)
    averages = {} if run.average is None else run.average.slots
    run.team.level(run.net, **run.optimiser.slots, **{f"ema {name}": v for name, v in averages.items()})


def keep(run) -> None:
    """Write the checkpoint that is kept, and next to it the best net so far, which a later one may replace."""
    name = f"epoch-{run.epoch}"
    save(run, f"{name}.safetensors")
    _copy(run.out / BEST, run.out / f"{name}.best.safetensors")


def kept(out) -> list[int]:
    """The epochs whose checkpoints were kept."""
    names = (re.fullmatch(r"epoch-(\d+)\.safetensors", path.name) for path in Path(out).iterdir())
    return sorted(int(name[1]) for name in names if name)


def kept_at(out, epoch) -> Path:
    """The checkpoint that was kept after ``epoch``. NumnetError if there is none, or not the best net by then."""
    out = Path(out)
    there = out / f"epoch-{epoch}.safetensors"
    if not there.is_file():
        epochs = ", ".join(map(str, kept(out)))
        which = f"those kept: {epochs}" if epochs else "none was kept; train with --keep-every E to keep some"
        raise NumnetError(f"{out}: no checkpoint of epoch {epoch} ({which})")
    best = out / f"epoch-{epoch}.best.safetensors"
    if not best.is_file():
        raise NumnetError(f"{best}: missing; without it the best net by epoch {epoch} is not known")
    return there


def _go_back(run) -> None:
    """Make the run that was loaded from a kept checkpoint the last: what came after is no longer there.

    Kept checkpoints of later epochs stay until they are written again.
    """
    (run.out / "result.json").unlink(missing_ok=True)
    last = kept_at(run.out, run.back)
    # The best net first: killed in between, the last checkpoint is what it was, and the next --resume says that the best
    # net beside it is another.
    _copy(run.out / f"epoch-{run.back}.best.safetensors", run.out / BEST)
    _copy(last, run.out / "last.safetensors")


def _copy(source, target) -> None:
    """The same file under another name: one file where the disk can do that, as none is ever written in place."""
    beside = target.with_name(f".{target.name}.tmp")
    beside.unlink(missing_ok=True)
    try:
        try:
            os.link(source, beside)
        except OSError:
            shutil.copyfile(source, beside)
        os.replace(beside, target)
    except OSError as error:
        raise NumnetError(f"cannot write {target}: {error.strerror or error}") from error


def save(run, name="last.safetensors") -> None:
    """Write last.safetensors, or the same under another name."""
    tensors = {f"optimiser/{slot}": array for slot, array in run.optimiser.slots.items()}
    if run.average is not None:
        tensors |= {f"ema/{slot}": array for slot, array in run.average.slots.items()}
    if run.net.fake is not None:
        tensors |= {f"quantise/{key}": array for key, array in run.net.fake.state().items()}
    training = {key: getattr(run, key) for key in OF_THE_RUN} | {"steps": run.step, "passes": run.net.step}
    _require_finite(run, tensors)
    checkpoint.write(
        run.out / name, {**run.net.state(), **tensors}, {**document_of(run), "training": training}
    )


def save_net(run, name) -> None:
    """Write the net alone, in eight bits if it is trained for them, and what made it the best."""
    _require_finite(run, {})
    document = {**document_of(run), "training": run.best}
    if run.net.fake is None:
        checkpoint.write(run.out / name, run.net.state(), document)
    else:
        del document["format"]  # of floats
        run.net.fake.whole().save(run.out / name, **document)


@contextmanager
def weights_of_best(run):
    """Inside, the net has the weights of best.safetensors, which member 0 reads; afterwards its own again."""
    net, best = run.net, run.out / BEST
    own, own_buffers = net.flat.copy(), net.flat_buffers.copy()
    try:
        run.team.lead(lambda: net.restore(checkpoint.read(best)[0], str(best)))
        run.team.level(net)
        yield
    finally:
        net.flat[:], net.flat_buffers[:] = own, own_buffers


def _require_finite(run, tensors) -> None:
    """Raise Diverged for a number that is not finite: it is not saved, and the older checkpoint stays."""
    net = run.net
    if not (np.isfinite(net.flat).all() and np.isfinite(net.flat_buffers).all()):
        trouble.diverged(run, "a weight is not finite", trouble.of_weights(net), over=True)
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            trouble.diverged(run, f"{name} is not finite", over=True)


def document_of(run) -> dict:
    """What a run's checkpoints say besides their arrays and its position."""
    return {
        "format": FORMAT,
        "config": run.net.config,
        "input": run.scaling,
        "classes": run.class_names,
        "dataset": run.data.name,
        "recipe": run.settings,
        **run.meta,
    }


# Numbers that a result.json has; all but the last two may be null.
RESULT_NUMBERS = ("test_accuracy", "validation_accuracy", "images_per_second", "epochs", "train_seconds")


def read_result(path) -> dict:
    """A run's result.json. Raises NumnetError."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(result, dict):
            raise ValueError("not an object")
        for key in RESULT_NUMBERS:
            if key not in result:
                raise ValueError(f"{key} is missing")
            value = result[key]
            if type(value) not in (int, float) and (value is not None or key in ("epochs", "train_seconds")):
                raise ValueError(f"{key} is {reprlib.repr(value)}, expected a number")
        # Where it is now: runs are moved and renamed.
        return {**result, "checkpoint": str(path.parent / BEST)}
    except (OSError, ValueError, RecursionError) as error:
        raise NumnetError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); without it, resume makes it again"
        ) from None


def load(run) -> None:
    """Become the run that wrote last.safetensors: weights, vectors, position, history.

    Raises NumnetError if it was another net, other settings or other data.
    """
    last = run.out / "last.safetensors" if run.back is None else kept_at(run.out, run.back)
    document = read_document(last)
    training, theirs = document.get("training") or {}, document.get("recipe") or {}
    if training.get("history") is None:
        raise NumnetError(f"{last}: holds a net but no training to resume")
    for key in KEPT:
        if key not in training or (training[key] is None and key != "best"):
            raise NumnetError(f"{last}: damaged checkpoint (training.{key} is missing)")
    if len(training["history"]) != training["epoch"] or training["batch"] > run.batches:
        raise NumnetError(f"{last}: damaged checkpoint (its position is not where its history ends)")
    for key in sorted((set(run.settings) | set(theirs)) & set(SETTINGS) - set(FREE) - set(run.extended)):
        was, now = (recipe.get(key, run.defaults.get(key)) for recipe in (theirs, run.settings))
        if was != now:
            raise NumnetError(
                f"{run.out}: this run was started with {key} = {json.dumps(was)}, it cannot go on with "
                f"{json.dumps(now)}"
            )
    _require_data(run, document)
    if training["images"] != run.images:
        raise NumnetError(
            f"{run.out}: this run was started with {training['images']:,} training images, "
            f"{run.data.name} has {run.images:,} now"
        )
    run.net.require(checkpoint.read_shapes(last), str(last))
    tensors, _ = checkpoint.read(last)
    run.net.restore(tensors, str(last))
    run.net.step = training["passes"]
    slots = {
        name.partition("/")[2]: array for name, array in tensors.items() if name.startswith("optimiser/")
    }
    try:
        run.optimiser.load(slots, training["steps"])
    except NumnetError as error:
        raise NumnetError(f"{last}: {error}") from None
    if run.average is not None:
        for name, slot in run.average.slots.items():
            average = tensors.get(f"ema/{name}")
            if average is None or average.shape != slot.shape or average.dtype != slot.dtype:
                raise NumnetError(f"{last}: damaged checkpoint (ema/{name} is missing or of another kind)")
            slot[:] = average
    if run.net.fake is not None:
        ranges = {
            name.partition("/")[2]: array for name, array in tensors.items() if name.startswith("quantise/")
        }
        run.net.fake.restore(ranges, str(last))
    for name in OF_THE_RUN:
        setattr(run, name, training[name])
    finished = run.out / "result.json"
    if run.back is None and (run.extended or not finished.exists()):
        _require_best(run)
    if run.extended:
        _extend(run, theirs, finished)
    if run.back is not None:  # only now, when nothing can be refused any more
        _go_back(run)
    if finished.exists():
        run.result = read_result(finished)
        if run.average is not None:
            run.average.take()
        # A lock may be left of a process that was killed after its last word; who asks for more holds it himself.
        _clear_up(run.out, *([] if run.extended else [lock.NAME]))
        return
    _clear_up(run.out)
    # Without epochs that came after the checkpoint.
    lines = "".join(json.dumps(record) + "\n" for record in run.history)
    checkpoint.replace(run.out / "metrics.jsonl", lines.encode())
    _write_table(run)
    if run.extended:
        save(run)


def _require_best(run) -> None:
    """Raise NumnetError if best.safetensors is not of the run's best epoch, nor of one that is done again now."""
    best = run.out / BEST
    if run.best is None or not run.writes:
        return
    made = (read_document(best).get("training") or {}) if best.is_file() else None
    if made is None or (made != run.best and made.get("epoch", 0) <= run.epoch):
        raise NumnetError(
            f"{best}: {'missing' if made is None else 'of another epoch or run'}; expected the net of epoch "
            f"{run.best['epoch']}, the best so far: put it back, or go back with --epoch to a checkpoint that was kept"
        )


def _extend(run, recipe, finished) -> None:
    """Let a run that was loaded go on with other ``epochs`` or another ``patience``, and say what that does.

    recipe: as it was started. A result that more epochs make old is removed. Raises NumnetError for fewer epochs than
    are done.
    """
    best = run.out / BEST
    made = checkpoint.read_meta(best).get("training") if run.back is None and best.is_file() else None
    if made and made["epoch"] > run.epoch:
        raise NumnetError(
            f"{run.out}: stopped while it saved epoch {made['epoch']}, of which {BEST} is already; go on once without "
            f"--{run.extended[0]}, then with it"
        )
    planned, epochs, done = recipe.get("epochs"), run.settings["epochs"], run.epoch + (run.batch > 0)
    if epochs < done:
        raise NumnetError(
            f"--epochs: {run.out} is in epoch {done} already, expected {done} or more, got {epochs}"
        )
    if epochs != planned:
        step, name = run.step, run.settings["schedule"]
        now = "" if epochs == run.epoch else f" goes on at {run.rate(step):.3g}"
        last = f" (its last was {run.history[-1]['lr']:.3g})" if run.history and now else ""
        tell(
            f"{run.out}: {epochs} epochs instead of {planned}: the schedule {name} is now that of {epochs} epochs, from the "
            f"first on; the learning rate{now or ' has no step left'}{last}"
        )
    if run.epoch < epochs and run.out_of_patience():
        tell(
            f"{run.out}: its patience of {run.settings['patience']} epochs ended it: none was better than epoch "
            f"{run.best['epoch']}; --patience with more, or none, lets it go on"
        )
    elif run.epoch < epochs or run.batch:
        finished.unlink(missing_ok=True)


def _require_data(run, document) -> None:
    """Raise NumnetError if the classes or the images are others than those that the run was started with."""
    was, now = document.get("classes"), run.class_names
    # An older numnet wrote names without an output, too.
    was = was and was[: run.net.classes]
    if was is not None and was != now:
        gone, new = (
            [name for name in ours if name not in theirs] for ours, theirs in ((was, now), (now, was))
        )
        words = [f"{listed(names)} {what}" for names, what in ((gone, "missing now"), (new, "new")) if names]
        raise NumnetError(
            f"{run.out}: this run was started with other classes than {run.data.name} has: "
            f"{' and '.join(words) or 'the same in another order'}; expected {listed(was, 10)}"
        )
    digest, finished = document.get("digest"), (run.out / "result.json").exists()
    if digest is not None and run.meta.get("digest") not in (None, digest):
        raise NumnetError(
            f"{run.out}: the training images of {run.data.name} are not those that this run was started with "
            "(files were added, removed, renamed or changed)"
        )
    held_back = (document.get("recipe") or {}).get("validation")
    if (
        digest is None
        and run.meta.get("digest") is not None
        and held_back
        and held_back != "test"
        and not finished
    ):
        raise NumnetError(
            f"{run.out}: was started by an older numnet, which held back other validation images; start a new run"
        )


def _clear_up(out, *more) -> None:
    """Remove the unfinished files of a killed process, and the files ``more``, if no process trains there."""
    if more:
        lock.Lock(out).require_free()
    for left in (*out.glob(".*.tmp"), *(out / name for name in more)):
        try:
            left.unlink(missing_ok=True)
        except OSError:
            pass  # a folder that is only to be read
