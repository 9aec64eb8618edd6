"""Maps of inner layers, by name or pattern: what each of them hands on, batch norm and activation done.

A training keeps every map of a batch, and the planned executor none: it writes each over an older one. Here the layers run
one after another as they do in training, but in inference, and as soon as a layer has been read its maps are given back.
So there are never more than those of two neighbouring blocks beside the maps that were asked for, and nothing behind
the last of these is computed. Afterwards every layer is what it was before: a backward pass that was due is still due.

A layer keeps what its backward pass will need under names of its own (``self.x``, …), one of a user's own making, too: so
there is no list of names to put back, and ``collect`` keeps each layer's whole ``__dict__``. The plan's ``owners`` are no
help here, since a plan has no map between two layers of a block that runs in one pass.
"""

from fnmatch import fnmatchcase

import numpy as np

from numnet.errors import NumnetError
from numnet.layers.layer import Memory, finish, hand


def matching(names, patterns) -> list[str]:
    """Those of ``names`` (dotted) that one of ``patterns`` fits, in their order.

    A pattern has as many parts between dots as the names that it fits; * stands for any letters within a part: "block*"
    is every block, "block*.depthwise" what happens in them, "*.*" all that is inside of blocks. Raises NumnetError for a
    pattern that fits nothing.
    """
    names, found = list(names), set()
    for pattern in patterns:
        parts = str(pattern).split(".")
        fits = {name for name in names if _fits(name.split("."), parts)}
        if not fits:
            known = [name for name in names if "." not in name]
            inner = next((f" ({name} …)" for name in names if "." in name), "")
            raise NumnetError(f"maps: no layer {pattern!r}; expected one of {', '.join(known)}{inner}")
        found |= fits
    return [name for name in names if name in found]


def _fits(parts, pattern) -> bool:
    return len(parts) == len(pattern) and all(map(fnmatchcase, parts, pattern))


def collect(layers, x, wanted) -> dict:
    """Name -> a fresh array, for ``wanted``: dotted names of layers or of what is in them; x finished images."""
    wanted, found, before = list(wanted), {}, []
    try:
        for layer in layers:
            if len(found) == len(wanted):
                break
            tree = list(layer.tree(layer.name))
            mine = [(part, dict(part.__dict__)) for _, part in tree]
            given, before = before, [*before, *mine]
            for name, part in tree:
                part.memory = Memory()
                if name in wanted:
                    part.forward = _watched(part, name, found)  # goes with the rest in _give_back
            x = hand(layer, x, False)
            _give_back(given)  # the maps of the layer before have been read
            before = mine
    finally:
        _give_back(before)
    return {name: found[name] for name in wanted}


def _watched(layer, name, found):
    """The layer's forward, which leaves a finished copy of its map in ``found``."""
    forward = layer.forward

    def watched(x, training):
        y = forward(x, training)
        found[name] = np.array(finish(y, Memory(), "map"))
        return y

    return watched


def _give_back(kept) -> None:
    """Let the layers be what they were: so no one refers to the maps any more."""
    for layer, state in kept:
        layer.__dict__.clear()
        layer.__dict__.update(state)
