"""What the settings of a training mean for its net and its data: the optimiser, its rate, the weights of classes, refusals.

``recipes.check`` has seen to it that each setting is of the right kind. Here stands what depends on several of them, on the
net or on the data. ``settings`` is everywhere the dict with all keywords of ``fit``.
"""

from contextlib import closing

import numpy as np

from numnet import data as datasets
from numnet.data import transforms
from numnet.data.names import listed
from numnet.errors import NumnetError, tell
from numnet.quantised import FakeQuantised
from numnet.training.optimisers import OPTIMISERS, Average
from numnet.training.schedules import OPTIONS as SCHEDULES
from numnet.training.schedules import schedule
from numnet.training.whitening import whiten

RANGES = 256  # training images that the first ranges of a training for eight bits are taken from


def plain(settings) -> dict:
    """NumPy's numbers as Python's, tuples as lists: what a JSON document gives back when it is read."""

    def value_of(value):
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, dict):
            return plain(value)
        return [value_of(part) for part in value] if isinstance(value, (list, tuple)) else value

    return {key: value_of(value) for key, value in settings.items()}


# ------------------------------------------------------------------------------------------- refusals


def require_trainable(net, data) -> None:
    """Raise NumnetError for a net without a classifier and for data without images."""
    if not net.classes:
        raise NumnetError(
            "this net has no classifier (classes=0); numnet.with_head(net, classes) gives it one to train"
        )
    if not len(data.train.labels):
        raise NumnetError(f"{data.name}: no images to train on")
    highest = int(data.train.labels.max())
    if highest >= net.classes:
        raise NumnetError(
            f"{data.name}: a training image has the label {highest}, the net the outputs 0 to {net.classes - 1}"
        )


def require_quantisable(settings, net, processes) -> None:
    """Raise NumnetError for settings that do not go with training for eight bits."""
    if not settings["quantise"]:
        return
    for key in ("ema", "freeze", "whiten"):
        if settings[key] not in (None, False):
            raise NumnetError(f"quantise: a training for eight bits has no {key}; expected one of the two")
    if net.frozen:
        raise NumnetError(
            "quantise: a training for eight bits trains all layers, this net has frozen ones; expected net.freeze(None) first"
        )
    if settings["optimiser"] == "muon":  # seen: right answers fall from 88 to 16 of 100 in one step
        raise NumnetError(
            "quantise: muon gives each matrix a length of its own choice, which the fixed statistics of batch norm do not "
            "follow; expected another optimiser, such as sgd"
        )
    if processes > 1:
        raise NumnetError(
            "quantise: a training for eight bits runs in one process; expected no mpiexec before it"
        )


def require_validation(settings, data) -> None:
    """Raise NumnetError for patience without validation images."""
    validates = data.validation is not None and len(data.validation.labels) > 0
    if settings["patience"] is not None and not validates:
        raise NumnetError(
            f"patience: {data.name} has no validation images to judge an epoch by; "
            "--validation N holds some back"
        )


def tell_of_differences(net, data, names, scaling) -> None:
    """Say so if the net was trained on classes of other ``names`` than the data has, or on images scaled otherwise."""
    before = getattr(net, "scaling", None)
    if before is not None and before != scaling:
        tell(
            "the net was trained on images scaled otherwise than these; data loaded with input_scaling=net.scaling is scaled "
            "as before"
        )
    known = getattr(net, "class_names", None)
    if known is not None and names != list(known)[: len(names)]:
        tell(
            f"the net was trained on {listed(known)}, {data.name} has {listed(names)}: its outputs are taken by "
            "position (`numnet train --init` takes them by name)"
        )


def _refuse(settings, foreign, who, has) -> None:
    for key in sorted(foreign.intersection(settings)):
        raise NumnetError(f"{who} has no {key}; it has {', '.join(has) or 'no options'}")


# ------------------------------------------------------------------------------------------- the data


def scaling_of(settings, data) -> dict:
    """{"mean": [3], "std": [3]} of x/255."""
    if settings["scaling"] == "dataset":
        return data.scaling
    return transforms.scaling(settings["scaling"])


def class_weights(settings, data, names, classes):
    """The weight of each of the net's ``classes`` outputs in the loss, float64; None if all are 1. ``names``: theirs."""
    given, labels = settings["class_weights"], data.train.labels
    if given is None:
        return None
    if settings["sampling"] == "balanced":
        raise NumnetError(
            "class_weights and sampling balanced: each makes up for small classes; expected one of them"
        )
    counts = np.bincount(labels, minlength=classes)
    if given == "balanced":
        weights = 1 / np.maximum(counts, 1)
    else:
        given = {str(name): weight for name, weight in given.items()}
        strange = [name for name in given if name not in names]
        if strange:
            raise NumnetError(
                f"class_weights: {data.name} has no class {strange[0]!r}; it has {', '.join(names[:10])}"
            )
        weights = np.array([given.get(name, 1.0) for name in names] + [1.0] * (classes - len(names)))
    return weights * len(labels) / (weights * counts).sum()


# ------------------------------------------------------------------------------------------- the net


def freeze(settings, net, data, scaling) -> tuple[int, int]:
    """Whiten and freeze the first layers as asked; the numbers of parameters and of statistics that are then frozen."""
    block = settings["freeze"]
    if settings["whiten"]:
        whiten(net, data.train, scaling)
        block = block or net.layers[max(net.frozen, 1) - 1].name
    elif block is None and net.frozen:  # averages and checkpoints have to know it, too
        block = settings["freeze"] = net.layers[net.frozen - 1].name
        tell(
            f"{block} and all before it stay frozen, as net.freeze left them; net.freeze(None) lets them train"
        )
    return (0, 0) if block is None else net.freeze(block)


def give_grids(settings, net, data, scaling, resume) -> None:
    """For a training for eight bits: give the net its grids, of training images.

    A run that goes on (``resume``) reads them from its checkpoint, later.
    """
    if not settings["quantise"] or net.fake is not None:
        return
    if resume:
        net.fake = FakeQuantised(net)
        return
    found = datasets.batches(
        data.train, batch_size=RANGES, seed=settings["seed"], scaling=scaling,
        dtype=net.dtype, channels=net.input_shape[2],
    )  # fmt: skip
    with closing(found):
        net.fake = FakeQuantised.of(net, next(iter(found))[0])


# ------------------------------------------------------------------------------------------- a step


def optimiser(settings, net):
    """The Optimiser of the net's vectors. Raises NumnetError for an option that only other ones have."""
    cls = OPTIMISERS[settings["optimiser"]]
    foreign = {key for other in OPTIMISERS.values() for key in other.DEFAULTS} - set(cls.DEFAULTS)
    _refuse(settings, foreign, f"the optimiser {cls.name()}", cls.DEFAULTS)
    mask = net.decay_mask
    if not settings["decay_depthwise"]:
        mask = mask & ~_positions(net, "depthwise")
    own = {key: settings[key] for key in cls.DEFAULTS if settings.get(key) is not None}
    betas = _positions(net, "beta")
    return cls(net.flat, net.flat_grad, mask, settings["weight_decay"], net.matrices(), betas, **own)


def _positions(net, role) -> np.ndarray:
    """True where the flat vector holds a parameter of this role, see ``Spec``."""
    return np.repeat(
        [spec.role == role for spec in net.specs.values()], [spec.size for spec in net.specs.values()]
    )


def rate(settings, lr, batches):
    """The function step -> learning rate; ``lr``: the optimiser's, ``batches``: steps of an epoch.

    Raises NumnetError for an option that only other schedules have, and for a warm-up longer than the training.
    """
    name, warmup, epochs = settings["schedule"], settings["warmup"], settings["epochs"]
    foreign = {key for options in SCHEDULES.values() for key in options} - set(SCHEDULES[name])
    _refuse(settings, foreign, f"the schedule {name}", SCHEDULES[name])
    if warmup is None:
        warmup = 0.3 * epochs if name == "one_cycle" else 0
    if warmup > epochs:
        raise NumnetError(f"a warm-up of {warmup:g} epochs does not fit into a training of {epochs}")
    own = {key: settings[key] for key in SCHEDULES[name] if key in settings}
    return schedule(name, lr, epochs * batches, batches, warmup * batches, **own)


def average(settings, net, frozen):
    """The Average of the net's vectors, or None without ``ema``. ``frozen``: what ``freeze`` returned."""
    if settings["ema"] is None:
        return None
    return Average(settings["ema"], frozen, params=net.flat, buffers=net.flat_buffers)
