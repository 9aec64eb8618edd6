"""How good a net is: accuracy, loss and the confusion matrix over a split of images."""

import numpy as np

from numnet import data as datasets
from numnet.errors import NumnetError
from numnet.kernels.loss import softmax, softmax_cross_entropy
from numnet.training.team import Team

VIEWS = (1, 2, 6)  # that evaluation may look at; see ``views_of``
SHIFTS = ((0, 0), (-1, -1), (1, 1))  # pixels down and to the right


def evaluate(net, split, scaling, batch_size=256, views=1, team=None) -> dict:
    """Run ``net.predict`` over all images of ``split``; with a ``team`` each member takes every so-many-th batch.

    scaling: {"mean": [3], "std": [3]} of x/255. Returns

    accuracy, top5     parts of the images, 0 … 1; top-5 of few classes is 1. Equal logits rank by class
    loss               mean cross-entropy, without label smoothing
    images             their number
    per_class          accuracy of each class (its recall); None for a class without images
    precision, f1      of each class: of the images taken for it the part that is of it (0 if there are none), and
                       2·precision·recall/(precision + recall); None for a class without images
    macro              means of precision, recall and f1 over the classes that have images: each counts the same
    confusion          rows: the true class, columns: the predicted one; counts
    views              with ``views`` 2 or 6: their number, and accuracy, top5 and loss once more, for the mean of the
                       probabilities of all views of an image (``views_of``); the figures above are not touched by it

    Raises NumnetError for a split without images and for labels that the net does not have,
    and for another number of views.
    """
    if views not in VIEWS or isinstance(views, bool):
        raise NumnetError(f"views: expected one of {', '.join(map(str, VIEWS))}, got {views!r}")
    if not len(split.labels):
        raise NumnetError("there are no images to evaluate")
    if split.labels.max() >= net.classes:
        raise NumnetError(
            f"the images have {split.labels.max() + 1} classes, the net has {net.classes} output classes"
        )
    team = team or Team()
    plain, together = _Score(net.classes), _Score(net.classes)
    numbers = range(team.rank, -(-len(split.labels) // batch_size), team.size)
    batches = datasets.batches(
        split, batch_size=batch_size, scaling=scaling, shuffle=False, dtype=net.dtype,
        channels=net.input_shape[2],
        take=lambda number, _: slice(None) if number in numbers else None,
    )  # fmt: skip
    for number, (x, labels) in zip(numbers, batches):
        logits = net.predict(x)
        plain.add(number, logits, labels)
        if views > 1:
            total = softmax(logits)
            for view in views_of(x, views)[1:]:
                total += softmax(net.predict(view))
            tiny = np.finfo(total.dtype).tiny
            together.add(number, np.log(total / views + tiny), labels)  # log p are logits of p
    result = plain.result(team)
    if views > 1:
        both = together.result(team)
        result["views"] = {"views": views, **{key: both[key] for key in ("accuracy", "top5", "loss")}}
    return result


def views_of(x, views) -> list:
    """Views of scaled images x (N, H, W, C), x itself first, each as large as x.

    2: the images and their mirror images. 6: these two of the images where they are, one pixel up and to the left, and
    one down and to the right; what comes in at the border is the image reflected at its outermost pixel (Jordan 2024,
    section 3.5).
    """
    high, wide = x.shape[1:3]
    framed = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    made = []
    for down, right in SHIFTS[: views // 2]:
        shifted = framed[:, 1 - down : 1 - down + high, 1 - right : 1 - right + wide]
        made += [np.ascontiguousarray(shifted), np.ascontiguousarray(shifted[:, :, ::-1])]
    return made


def worst_class(result) -> int:
    """The class whose images are least often right: of equals the one with more images."""
    images = [sum(row) for row in result["confusion"]]
    return min(
        (n for n, recall in enumerate(result["per_class"]) if recall is not None),
        key=lambda n: (result["per_class"][n], -images[n]),
    )


def _mean(parts) -> float:
    """Of those that are not None."""
    parts = [part for part in parts if part is not None]
    return sum(parts) / len(parts)


class _Score:
    """Sums over batches, in float64 and in the order of the images, whoever of a team saw them."""

    def __init__(self, classes):
        self.losses, self.first_five = {}, 0  # of each batch by its number
        self.confusion = np.zeros((classes, classes), np.int64)

    def add(self, number, logits, labels):
        self.losses[number] = softmax_cross_entropy(logits, labels)[0] * len(labels)
        own = logits[np.arange(len(labels)), labels][:, None]
        earlier = np.arange(logits.shape[1]) < labels[:, None]
        rank = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
        self.first_five += int(((rank < 5) & ~np.isnan(own[:, 0])).sum())
        np.add.at(self.confusion, (labels, logits.argmax(axis=1)), 1)

    def result(self, team) -> dict:
        losses = {number: loss for part in team.gather(self.losses) for number, loss in part.items()}
        first_five, confusion = sum(team.gather(self.first_five)), team.add(self.confusion)
        images, right = confusion.sum(axis=1), np.diag(confusion)
        total = int(images.sum())
        recall = [int(r) / int(n) if n else None for r, n in zip(right, images)]
        precision = [
            int(r) / max(int(taken), 1) if n else None
            for r, n, taken in zip(right, images, confusion.sum(axis=0))
        ]
        f1 = [None if r is None else 2 * p * r / (p + r) if p + r else 0.0 for p, r in zip(precision, recall)]
        return {
            "accuracy": int(right.sum()) / total,
            "top5": first_five / total,
            "loss": sum(losses[number] for number in sorted(losses)) / total,
            "images": total,
            "per_class": recall,
            "precision": precision,
            "f1": f1,
            "macro": {"precision": _mean(precision), "recall": _mean(recall), "f1": _mean(f1)},
            "confusion": confusion.tolist(),
        }
