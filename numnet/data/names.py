"""Names of classes: which of one list is which of another. Labels go by name, never by place in a list.

Equal names match; then those that differ only in capitals, in blanks, hyphens and underscores, in leading zeros of a
number or in how Unicode composes a letter, where that leaves no choice.
"""

import re
import unicodedata
from collections import Counter


def match(names, known) -> list:
    """For each of ``names`` its place in ``known``, or None."""
    exact = {name: place for place, name in enumerate(known)}
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


def renamed(names, known, places, most=5) -> str:
    """ "Bee is bee, CAT is cat": matches whose spelling differs; "" if there are none."""
    pairs = [f"{name} is {known[place]}" for name, place in zip(names, places) if place is not None]
    pairs = [pair for pair in pairs if pair.partition(" is ")[0] != pair.partition(" is ")[2]]
    return ", ".join(pairs[:most]) + (", …" if len(pairs) > most else "")
