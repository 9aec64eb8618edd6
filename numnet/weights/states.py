"""Of all that a PyTorch file holds, the tensors of one net: wrappers, prefixes, averaged weights, leftovers of tools.

Training scripts save more than weights, and each in a place of its own: ``{"state_dict": …}``, ``{"net": …}``,
``model_ema.module.…``, ``_orig_mod.backbone.…``. So the whole file becomes one table of dotted names first, and a wrapper is
a prefix like any other. Where a prefix ends in the name of a net's first tensor, a set of weights begins:

    state_dict.module.conv_stem.weight         the set "state_dict.module"
    state_dict_ema.module.conv_stem.weight     the set "state_dict_ema.module", averaged

Several sets: the averaged one, as timm takes it; what else there is, and how to choose it, is said. All that is left out
is counted.
"""

import re
from typing import NamedTuple

import numpy as np

from numnet.errors import NumnetError
from numnet.weights.pth import Foreign

WRAPPED = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
AVERAGED = re.compile(r"(^|[._])(ema|swa|avg|averaged?|polyak|shadow)([._]|$)", re.IGNORECASE)
LEAVES = ("weight", "bias", "running_mean", "running_var")
SMALL = 8  # numbers: what tools leave in a module is not longer ("total_ops", "input_shape", "Flops")
DEEPEST = 12  # dictionaries in one another; a module saved whole has ten
COUNTER = ".num_batches_tracked"


class Chosen(NamedTuple):
    """One net's tensors, and lines for the user about what was chosen and left out."""

    tensors: dict
    notes: list


def flat(content) -> tuple[dict, dict]:
    """(tensors by dotted name, other values by dotted name: numbers, texts, lists) of what a file holds."""
    tensors, others = {}, {}

    def visit(value, path, depth, seen):
        if isinstance(value, Foreign):
            facts = value.contents()
            if {"_parameters", "_buffers", "_modules"} <= facts.keys():  # a module that was saved whole
                others[f"{path}.@class"] = value.name
                for fact in ("eps", "padding"):
                    if isinstance(facts.get(fact), (float, str)):
                        others[f"{path}.{fact}"] = facts[fact]
                value = {
                    **_dict(facts["_parameters"]),
                    **_dict(facts["_buffers"]),
                    **_dict(facts["_modules"]),
                }
            else:
                value = facts
        array = getattr(value, "array", None)
        if isinstance(value, np.ndarray):
            tensors[path] = value
        elif callable(array) and (found := array()) is not None:  # NumPy's, pickled
            tensors[path] = found
        elif isinstance(value, dict):
            if depth < DEEPEST and id(value) not in seen:
                for key, part in value.items():
                    name = str(key)
                    visit(part, f"{path}.{name}" if path else name, depth + 1, seen | {id(value)})
                if value and all(isinstance(n, int) and not isinstance(n, bool) for n in value.values()):
                    others[path] = value  # class_to_idx
        elif isinstance(value, (str, int, float, list, tuple)):
            others[path] = value

    visit(content, "", 0, frozenset())
    return tensors, others


def _dict(value):
    return value if isinstance(value, dict) else {}


def choose(path, tensors, expected, take=None) -> Chosen:
    """The tensors of one net of a file's, under the names that a net of its kind has.

    ``expected``: a list of tables of names, each as a net has them, the first tensor's first. ``take``: "averaged", "raw",
    or the prefix of a set; None takes averaged weights where there are any. Raises NumnetError where several sets are
    alike, and where ``take`` names none.
    """
    tensors = {WRAPPED.sub("", name).lstrip("."): array for name, array in tensors.items()}
    tensors = _unpruned(tensors)
    sets, dropped = _sets(tensors, expected)
    if not sets:
        if take not in (None, "averaged", "raw"):
            raise NumnetError(f"{path}: has no set of weights {take!r}")
        return Chosen({n: a for n, a in tensors.items() if not n.endswith(COUNTER)}, [])
    averaged = [prefix for prefix in sets if _is_averaged(prefix, tensors)]
    raw = [prefix for prefix in sets if prefix not in averaged]
    if take in ("averaged", "raw"):
        likely = averaged if take == "averaged" else raw
        if not likely:
            raise NumnetError(
                f"{path}: has no {take} weights, only {_listed(sets)}; expected no --take {take}"
            )
    elif take is not None:
        likely = [prefix for prefix in sets if prefix.rstrip(".") == take.rstrip(".")]
        likely = likely or [prefix for prefix in sets if prefix.startswith(take.rstrip(".") + ".")]
        if not likely:
            raise NumnetError(f"{path}: has no set of weights {take!r}, expected one of {_listed(sets)}")
    else:
        likely = averaged or raw
    alike = [prefix for prefix in likely[1:] if not _equal(sets[likely[0]], sets[prefix])]
    if alike:
        raise NumnetError(
            f"{path}: holds several sets of weights, {_listed(likely)}; name one: "
            f"numnet import --take {_name(likely[0])}"
        )
    prefix, notes = likely[0], []
    others = [other for other in sets if other not in likely]
    if others:
        kind = "averaged" if prefix in averaged else "raw"
        choice = "raw" if kind == "averaged" and others == raw else "averaged" if others == averaged else None
        choice = choice or _name(others[0])
        notes.append(
            f"took the {kind} weights, {_name(prefix)}; `numnet import --take {choice}` takes {_listed(others)} instead"
        )
    elif prefix in averaged:
        notes.append(f"took the averaged weights, {_name(prefix)}, the only ones in the file")
    table = _merged(prefix, sets[prefix], tensors, expected)
    small = [name for name in table if _is_leftover(name, table[name], expected)]
    table = {name: array for name, array in table.items() if name not in small and not name.endswith(COUNTER)}
    if small:
        notes.append(f"left out {_count(small)} that tools have added ({_some(small)})")
    inside = tuple(p for p in sets if p)
    left = [name for name in dropped if not name.startswith(inside or ("\0",)) and not name.endswith(COUNTER)]
    left = [name for name in left if not _kept(name, prefix, table)]
    left = [name for name in left if not re.search(r"(^|\.)n_averaged$", name) and not _of_training(name)]
    if prefix and left:
        notes.append(f"left out {_count(left)} outside {_name(prefix)} ({_some(left)})")
    return Chosen(table, notes)


def _sets(tensors, expected):
    """({prefix: its tensors without the prefix}, names that belong to none); those with about as many names as the best."""
    prefixes = {}
    for names in expected:
        first = next(iter(names))
        for name in tensors:
            if name == first or name.endswith("." + first):
                prefixes.setdefault(name[: len(name) - len(first)])
    hits = {}
    for prefix in prefixes:
        inside = {name[len(prefix) :] for name in tensors if name.startswith(prefix)}
        hits[prefix] = max(len(inside & names.keys()) for names in expected)
    # A prefix that only happens to end in a net's first name ("layers.0." before "conv1.weight") has few others.
    good, likely = (
        {},
        {prefix for prefix in prefixes if hits[prefix] > 2 and 2 * hits[prefix] > max(hits.values())},
    )
    for prefix in (prefix for prefix in prefixes if prefix in likely):
        # Of two sets the one with the longer prefix keeps its tensors: "model_ema.module." against "".
        longer = tuple(p for p in likely if p != prefix and p.startswith(prefix))
        good[prefix] = {
            name[len(prefix) :]: array
            for name, array in tensors.items()
            if name.startswith(prefix) and not (longer and name.startswith(longer))
        }
    taken = {prefix + name for prefix, inside in good.items() for name in inside}
    return good, [name for name in tensors if name not in taken]


def _merged(prefix, table, tensors, expected):
    """The set, and what belongs to it elsewhere in the file: a head under a shorter prefix than "backbone."."""
    names = max(expected, key=lambda names: len(table.keys() & names))
    parts = prefix.rstrip(".").split(".") if prefix else []
    for length in range(len(parts) - 1, -1, -1):
        shorter = "".join(part + "." for part in parts[:length])
        for name in names:
            if name not in table and shorter + name in tensors:
                table = {**table, name: tensors[shorter + name]}
    return table


def _kept(name, prefix, table):
    return any(name.endswith(own) and prefix.startswith(name[: len(name) - len(own)]) for own in table)


def _is_averaged(prefix, tensors):
    parent = prefix.removesuffix("module.")
    return bool(AVERAGED.search(prefix.rstrip("."))) or f"{parent}n_averaged" in tensors


def _is_leftover(name, array, expected):
    leaf = name.rpartition(".")[2]
    known = any(name in names for names in expected)
    return not known and leaf not in LEAVES and not name.endswith(COUNTER) and array.size <= SMALL


def _of_training(name):
    return bool(
        re.match(r"(optim\w*|\w*scheduler\w*|\w*scaler\w*|\w*optimizer\w*|loops|callbacks)(\.|$)", name)
    )


def _unpruned(tensors):
    """``torch.nn.utils.prune`` keeps a weight and its mask: their product is the weight."""
    masks = {
        name for name in tensors if name.endswith("_mask") and name.removesuffix("mask") + "orig" in tensors
    }
    if not masks:
        return tensors
    made = {}
    for name, array in tensors.items():
        mask = name.removesuffix("orig") + "mask"
        if name.endswith("_orig") and mask in masks and tensors[mask].shape == array.shape:
            made[name.removesuffix("_orig")] = array * tensors[mask]
        elif name not in masks:
            made[name] = array
    return made


def _equal(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def _name(prefix):
    return prefix.rstrip(".") or "those without a prefix"


def _listed(prefixes):
    return ", ".join(map(_name, prefixes))


def _count(names):
    return "1 tensor" if len(names) == 1 else f"{len(names)} tensors"


def _some(names, most=3):
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
