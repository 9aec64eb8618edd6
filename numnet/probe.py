"""A linear probe: how well one dense layer tells classes apart by the features of a net that stays as it is.

Every image goes through the net once; what the classifier would read of it is kept, and on these vectors softmax
regression is fitted. That takes seconds where a training takes minutes, works with a few dozen images a class, and says how
much of a task the features know already. With x the features, shifted and divided by their mean and deviation over the
training images:

(1)  loss(W, b) = mean over images of −log softmax(x·W + b)[label] + λ/2 · Σ W²

(1) is convex: there is one best W, and L-BFGS finds it (Nocedal 1980): the direction of a step comes from the last few
steps and changes of the gradient, its length is halved until the loss falls (Armijo's rule). λ is chosen by images that
are held back from training, a fifth of each class, or by the folder's own validation images; then W is fitted to all.
"""

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from numnet import data as datasets
from numnet.errors import NumnetError
from numnet.kernels.dense import dense_backward, dense_forward
from numnet.kernels.loss import softmax_cross_entropy
from numnet.models.parts import with_head
from numnet.net import Net

DECAYS = (10.0, 1.0, 0.1, 0.01, 0.001, 0.0001)  # λ, the strongest first: each starts from the one before
HELD_BACK = 0.2
# Of L-BFGS: steps it remembers, its most, and when it is there
MEMORY, STEPS, HALVINGS, ENOUGH = 8, 200, 30, 1e-6
BATCH = 64


@dataclass
class Probe:
    """What a probe found.

    ``net``          the net with the fitted layer as its classifier: predicts, saves, exports
    ``accuracy``     part of the test images that are right; ``interval``: its 95 % interval (Wilson's)
    ``per_class``    of each class; None where it has no test image
    ``chance``       part that is right by always naming the largest class of the training images
    ``train_accuracy``, ``validation_accuracy``, ``decay``   with the λ that the images held back have chosen
    ``images``       {"train", "validation", "test"}: how many; validation images are among those of "train" in the end
    """

    net: Net
    classes: list[str]
    accuracy: float
    interval: tuple[float, float]
    per_class: list[float | None]
    chance: float
    train_accuracy: float
    validation_accuracy: float
    decay: float
    features: int
    images: dict[str, int]


def linear_probe(
    net: Net,
    data: datasets.Dataset,
    *,
    scaling: dict[str, list[float]] | None = None,
    seed: int = 0,
    batch_size: int = BATCH,
) -> Probe:
    """Fit one dense layer to the features of ``net`` on ``data.train`` and try it on ``data.test``.

    ``data``: a Dataset (``numnet.data.load``); ``scaling``: {"mean", "std"} of x/255, None for the net's own.
    ``seed`` decides which images are held back. Neither net nor data is changed. Raises NumnetError for data without test
    images or with these for validation, a class without training images, and a net without scaling.
    """
    scaling = scaling or getattr(net, "scaling", None)
    if scaling is None:
        raise NumnetError("probe: the net names no input scaling; expected scaling={'mean': …, 'std': …}")
    if data.test is None or not len(data.test):
        raise NumnetError(f"probe: {data.name} has no test images")
    if data.validation is data.test:  # the layer is fitted to both in the end
        raise NumnetError(
            'probe: the validation images are the test images (validation="test"); expected other ones, or none'
        )
    counts = np.bincount(data.train.labels, minlength=len(data.classes))
    if len(data.classes) < 2 or counts.min() == 0:
        raise NumnetError(f"probe: expected training images of at least two classes, got {counts.tolist()}")
    if data.validation is None:
        data = replace(data)  # the caller's stays whole
        data.hold_back(max(1, int(HELD_BACK * len(data.train))), seed, stratified=True)

    made = with_head(net, len(data.classes))  # refuses nets that it cannot give one

    def of(split):
        batches = datasets.batches(
            split, batch_size=batch_size, scaling=scaling, shuffle=False, dtype=net.dtype,
            channels=net.input_shape[2],
        )  # fmt: skip
        found = np.concatenate([made.features(x) for x, _ in batches])
        return found.astype(np.float64), split.labels

    (x, labels), (held, held_labels), (test, test_labels) = map(of, (data.train, data.validation, data.test))
    decay, validation = _choose(x, labels, held, held_labels, len(data.classes))
    if held_labels.size:
        x, labels = np.concatenate([x, held]), np.concatenate([labels, held_labels])
    weight, bias = fit(x, labels, len(data.classes), decay)
    guesses = _logits(test, weight, bias).argmax(axis=1)
    right = guesses == test_labels
    each = [test_labels == label for label in range(len(data.classes))]
    made.params["logits.weight"][...], made.params["logits.bias"][...] = weight, bias
    made.class_names, made.scaling = list(data.classes), scaling
    # What is known of the new classifier, and not what its body was trained on
    facts = {key: getattr(data, key, None) for key in ("digest", "preset", "background")}
    rest = [name for name in made.document.get("untrained") or () if name != made.layers[-1].name]
    facts |= {"source": made.document.get("source"), "untrained": rest or None}
    made.document = {"dataset": data.name, **facts}
    made.notes = []
    return Probe(
        net=made,
        classes=list(data.classes),
        accuracy=float(right.mean()),
        interval=wilson(int(right.sum()), len(right)),
        per_class=[float(right[of_it].mean()) if of_it.any() else None for of_it in each],
        chance=float((test_labels == counts.argmax()).mean()),
        train_accuracy=float((_logits(x, weight, bias).argmax(axis=1) == labels).mean()),
        validation_accuracy=validation,
        decay=decay,
        features=x.shape[1],
        images={"train": len(x), "validation": len(held), "test": len(test)},
    )


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share: Wilson 1927. It stays within 0 … 1, and holds for few images."""
    z, p = 1.959964, right / count
    middle, spread = p + z * z / (2 * count), z * sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return (middle - spread) / (1 + z * z / count), (middle + spread) / (1 + z * z / count)


def _choose(x, labels, held, held_labels, classes):
    """(the λ that tells most of the held images, of equals the strongest; the share it tells)."""
    best, start = (0.0, -1.0), None
    for decay in DECAYS:
        weight, bias, start = _fitted(x, labels, classes, decay, start)
        share = float((_logits(held, weight, bias).argmax(axis=1) == held_labels).mean())
        if share > best[1]:
            best = decay, share
    return best


def fit(x, labels, classes: int, decay: float):
    """(W (C, classes), b) that minimise (1), for features x (N, C) float64 as they are and labels (N,)."""
    return _fitted(x, labels, classes, decay, None)[:2]


def _fitted(x, labels, classes, decay, start):
    """(W, b, the same for standardised features as a vector to start from)."""
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    deviation[deviation == 0] = 1
    z = np.ascontiguousarray((x - mean) / deviation)
    size = z.shape[1] * classes

    def loss_and_gradient(vector):
        w, b = vector[:size].reshape(-1, classes), vector[size:]
        loss, dlogits = softmax_cross_entropy(dense_forward(z, w, b), labels)
        _, dw, db = dense_backward(dlogits, z, w)
        return loss + decay / 2 * _inner(w, w), np.concatenate([(dw + decay * w).ravel(), db])

    vector = minimise(loss_and_gradient, np.zeros(size + classes) if start is None else start)
    w = vector[:size].reshape(-1, classes) / deviation[:, None]
    return w, vector[size:] - (mean[:, None] * w).sum(axis=0), vector


def minimise(function, vector, steps=STEPS):
    """The place of the least value of a convex ``function``: vector -> (value, gradient). L-BFGS; see the page's top."""
    value, gradient = function(vector)
    moves, changes = [], []
    for _ in range(steps):
        if np.abs(gradient).max() <= ENOUGH:
            break
        direction = -_inverse_times(gradient, moves, changes)
        slope = _inner(gradient, direction)
        length = 1.0 if moves else min(1.0, 1 / np.abs(gradient).sum())
        for _ in range(HALVINGS):
            after = vector + length * direction
            value_after, gradient_after = function(after)
            if value_after <= value + 1e-4 * length * slope:
                break
            length /= 2
        else:
            break  # no step lowers the value any more: rounding is all that is left
        move, change = after - vector, gradient_after - gradient
        if _inner(move, change) > 0:
            moves, changes = [*moves, move][-MEMORY:], [*changes, change][-MEMORY:]
        vector, value, gradient = after, value_after, gradient_after
    return vector


def _inverse_times(gradient, moves, changes):
    """The inverse of the curvature, as the last moves and changes show it, times the gradient: the two loops."""
    q, shares = gradient.copy(), []
    for move, change in zip(reversed(moves), reversed(changes)):
        share = _inner(move, q) / _inner(move, change)
        q -= share * change
        shares.append(share)
    if moves:
        q *= _inner(moves[-1], changes[-1]) / _inner(changes[-1], changes[-1])
    for move, change, share in zip(moves, changes, reversed(shares)):
        q += (share - _inner(change, q) / _inner(move, change)) * move
    return q


def _inner(a, b) -> float:
    """Σ a·b, added in NumPy's own order: the same bits on any number of threads."""
    return float((a * b).sum())


def _logits(x, weight, bias):
    return dense_forward(np.ascontiguousarray(x), np.ascontiguousarray(weight), bias)
