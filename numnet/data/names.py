"""Names of classes: which of one list is which of another. Labels go by name, never by place in a list.

Equal names match; then those that differ only in capitals, in blanks, hyphens and underscores, in leading zeros of a
number or in how Unicode composes a letter, where that leaves no choice.
"""

import copy
import re
import unicodedata
from collections import Counter
from typing import NamedTuple

import numpy as np

from numnet.data.split import Split
from numnet.errors import NumnetError


def match(names, known) -> list:
    """For each of ``names`` its place in ``known``, or None."""
    if list(names) == list(known):
        return list(range(len(known)))  # also where a name stands there twice
    count = Counter(known)
    exact = {name: place for place, name in enumerate(known) if count[name] == 1}
    plain = [_plain(name) for name in known]
    single = {name for name, count in Counter(plain).items() if count == 1}
    close = {name: place for place, name in enumerate(plain) if name in single}
    asked = Counter(_plain(name) for name in names if name not in exact)
    taken = {exact[name] for name in names if name in exact}
    places = []
    for name in names:
        place = exact.get(name)
        if place is None and asked[_plain(name)] == 1:
            place = close.get(_plain(name))
            place = None if place in taken else place
        places.append(place)
    return places


def _plain(name: str) -> str:
    """What is left of a name when spelling does not count."""
    text = re.sub(r"[\s_\-]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()
    return str(int(text)) if text.isdecimal() else text


def renamed(names, known, places) -> str:
    """ "Bee is bee, CAT is cat": matches whose spelling differs; "" if there are none."""
    pairs = [(name, known[place]) for name, place in zip(names, places) if place is not None]
    return listed([f"{name} is {other}" for name, other in pairs if name != other])


def listed(names, most=5) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


class Assigned(NamedTuple):
    """Images with the labels of a net that knows other classes than the data set, or the same in another order."""

    split: Split  # those of a class that the net knows
    unknown: dict  # name of a class that it does not know -> number of images
    matched: str  # "name", "number" or "position"
    said: list


def assign(split, classes, known, outputs, *, where, by_position=False, first=0) -> Assigned:
    """Give the images of ``split``, whose labels number ``classes``, the labels of a net. Raises NumnetError.

    known        the names of the net's classes, or None: then, or ``by_position``, label n is the net's class n
    outputs      how many output classes the net has
    where        the data set's name, for messages
    first        the number of the first class, where classes are numbers

    Classes that are numbers (of lists without names) are the numbers of the net's classes, if those have names.
    """
    places, matched, said = _places(classes, known, outputs, where, by_position, first)
    if matched == "name":
        other = renamed(classes, known, places)
        if other:
            said.append(f"{where}: names of classes differ in spelling: {other}")
    table = np.array([-1 if place is None else place for place in places], np.int64)
    labels = table[split.labels]
    unknown = Counter(np.asarray(split.labels)[labels < 0].tolist())
    kept = split.take(np.flatnonzero(labels >= 0)) if unknown else copy.copy(split)
    kept.labels = labels[labels >= 0]
    if not len(kept.labels):
        raise NumnetError(
            f"{where}: none of its images is of a class that the net knows ({listed(known or [])})"
        )
    strange = {classes[n]: unknown[n] for n in sorted(unknown)}
    if strange:
        counts = listed([f"{name} {count:,}" for name, count in strange.items()])
        total = sum(strange.values())
        said.append(
            f"{where}: {total:,} images are of classes that the net does not know, and not counted: {counts}"
        )
    return Assigned(kept, strange, matched, said)


def _places(classes, known, outputs, where, by_position, first):
    """(the net's class of each of ``classes`` or None, by what, lines to say)."""
    if by_position or known is None:
        if len(classes) > outputs:
            raise NumnetError(f"the net has {outputs} output classes, {where} has {len(classes)}")
        if not by_position and len(classes) < outputs:
            raise NumnetError(
                f"the net has {outputs} classes without names, {where} has {len(classes)}; which is which? "
                "--by-position takes the first for the first, and so on"
            )
        said = (
            []
            if by_position
            else [f"the net's classes have no names: those of {where} are taken by position"]
        )
        return list(range(len(classes))), "position", said
    places = match(classes, known)
    if any(place is not None for place in places):
        return places, "name", []
    if all(name.isdecimal() and 0 <= int(name) - first < outputs for name in classes):
        begin = f", from {first} on" if first else ""
        said = [
            f"{where}: its classes are numbers{begin}: taken for those of the net's classes ({listed(known)})"
        ]
        if first and len(classes) < outputs:
            said.append(
                f"{where}: if they begin at 0 and no image is of class 0, put the classes' names into label_list.txt"
            )
        return [int(name) - first for name in classes], "number", said
    raise NumnetError(
        f"{where} has the classes {listed(classes)}, the net knows others ({listed(known)}); "
        "expected the same names; --by-position takes the first for the first, and so on"
    )
