"""Nets as parts: the body of a trained net under another head, or for images of other channels.

Both functions give a new net and leave the old one as it is. What the two nets share is copied bit for bit; what starts
anew stands in ``net.document["untrained"]``, so that no command takes it for trained, and ``net.notes`` has a line on it.
"""

import copy
from collections.abc import Sequence

import numpy as np

from numnet.errors import NumnetError
from numnet.models import build
from numnet.net import Net

CARRIED = ("scaling", "path", "document", "notes", "class_names")  # what a loader has left on a net


def with_head(
    net: Net, classes: int, *, head: Sequence[Sequence[int | str]] | None = None, seed: int | None = None
) -> Net:
    """The net with a new classifier for so many classes, or none: ``classes=0`` gives a net that ends with its features.

    ``head``: dense layers between the pooling and the classifier, [[units, activation], …], [] for none; None: as the net
    has them. ``seed``: of the new layers' numbers. Raises NumnetError for a net that ``numnet.build`` did not make, and for
    what no head can be.
    """
    config = _config(net, "head")
    config["classes"] = classes
    if head is not None:
        config["head"] = head
    if seed is not None:
        config["seed"] = seed
    made = build(**config)
    new = set() if classes == 0 else {made.layers[-1].name}
    if head is not None:
        new |= {layer.name for layer in made.layers[_pool(made) :]}
    new &= with_parameters(made)
    # Layers of the body that nobody has trained since.
    before = set((getattr(net, "document", None) or {}).get("untrained") or ())
    _take(made, net, new)
    _carry(made, net)
    made.class_names = None
    untrained = [layer.name for layer in made.layers if layer.name in new | before]
    made.document = {**made.document, "labels": None, "classes": None, "untrained": untrained or None}
    anew = ", ".join(layer.name for layer in made.layers if layer.name in new)
    made.notes.append(f"a new head: {anew} starts anew" if new else "without classifier")
    return made


def with_channels(net: Net, channels: int) -> Net:
    """The net for images of so many channels: the first convolution's weights averaged or repeated, the rest as it is.

    From C channels to n: channel j takes the weights of channel j mod C, times C/n; one channel the mean of all, times C.
    So the sums keep their size, and a grey image gives what it gave as C equal channels. Raises NumnetError for a net that
    ``numnet.build`` did not make.
    """
    config = _config(net, "channels")
    config["channels"] = channels
    made = build(**config)
    stem = next(iter(net.specs))
    old = net.params[stem]
    count = old.shape[2]
    if channels == 1:
        turned = old.sum(axis=2, keepdims=True, dtype=np.float64)
        what = f"its {count} channels averaged, times {count}"
    else:
        turned = old[:, :, np.arange(channels) % count].astype(np.float64) * (count / channels)
        what = f"its {count} channels repeated for {channels}, times {count}/{channels}"
    _take(made, net, {stem.split(".")[0]})
    for name in made.params:  # the first layer's batch norm is as it was
        if name.split(".")[0] == stem.split(".")[0] and name != stem:
            made.params[name][...] = net.params[name]
    for name in made.buffers:
        if name.split(".")[0] == stem.split(".")[0]:
            made.buffers[name][...] = net.buffers[name]
    made.params[stem][...] = turned
    _carry(made, net)
    made.notes.append(f"{stem}: {what}")
    return made


def with_parameters(net: Net) -> set[str]:
    """The names of the layers and blocks that have parameters."""
    return {name.split(".")[0] for name in net.specs}


def _config(net, what) -> dict:
    if net.config is None or "model" not in net.config:
        raise NumnetError(f"{what}: a net of one's own layers; expected one that numnet.build made")
    if net.flat is None:
        raise NumnetError(f"{what}: this net is a description without arrays; numnet.build makes one")
    return copy.deepcopy(net.config)


def _pool(net) -> int:
    """Place of the layer that pools or flattens the last map."""
    kinds = [layer.kind for layer in net.layers]
    return next(i for i, kind in enumerate(kinds) if kind in ("global average", "global max", "flatten"))


def _take(made, net, new) -> None:
    """Copy all tensors but those of the layers ``new``."""
    theirs = net.state()
    for name, array in made.state().items():
        if name.partition("/")[2].split(".")[0] not in new:
            array[...] = theirs[name]
    made.step = net.step


def _carry(made, net) -> None:
    for name in CARRIED:
        if hasattr(net, name):
            setattr(made, name, copy.deepcopy(getattr(net, name)))
    made.document = dict(getattr(made, "document", None) or {})
    made.notes = list(getattr(made, "notes", None) or [])
