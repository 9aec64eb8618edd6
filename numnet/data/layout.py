"""How a folder is laid out: where its training, validation and test images are, and what its classes are called.

    DIR/train/CLASS/*, DIR/test/CLASS/*      a folder for validation next to them holds the validation images;
                                             without one for tests it is the test set
    DIR/CLASS/train/*, DIR/CLASS/test/*      the same the other way round
    DIR/CLASS/*                              classes alone

The folders of splits may be called as people call them: Train, training_set, val, Validation, Testing Data, seg_test …
(``role``). If it is not clear whether such a folder is a split or a class, NumnetError asks: a net must never learn
to tell training images from test images.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from numnet.data import names as class_names
from numnet.data.files import has_images, hidden_images, holds_images, images_below, subfolders
from numnet.data.image import SUFFIXES
from numnet.data.names import listed
from numnet.errors import NumnetError
from numnet.texts import counted

ROLES = {
    "train": "train|training|trn|训练|訓練",
    "validation": "val|valid|vali|validate|validating|validation|dev|develop|development|eval|evaluate|evaluation|验证|驗證",
    "test": "test|tests|testing|tst|holdout|heldout|测试|測試",
}
UNLABELLED = "unlabell?ed|unsup|unsupervised|pred|predict|prediction|predictions|infer|inference|submission"
FILLERS = (
    "sets?|data|ds|datasets?|images?|imgs?|pictures?|pics?|photos?|splits?|seg|folders?|dir|files?|the|my|new|full|all|final|"
    "samples?|class(es)?|original|orig|raw|resized|cropped|small|mini|集|数据|數據"
)
FOLDS = r"(k[ _-]?)?(fold|split|part|batch|subset|chunk)s?[ _-]?\d+"
EXPECTED = "expected train/CLASS/* and test/CLASS/*, CLASS/*, or train_list.txt"
LOST = 0.1  # of a class's files: what may be left out without a line of its own


@dataclass
class Listing:
    """The image files of a data set, none of them read yet.

    ``classes``   their names, in the order of the labels
    ``parts``     "train", "validation", "test" -> [(path, label), …]; only those that are there
    ``whole``     True if the images of "train" are all there are: a test set is still to be cut off
    ``said``      lines that the user should read
    ``lost``      label -> Counter of files of that class that are not read, by their endings
    ``first``     the number of the first class in lists without names: 1 where they begin at 1
    """

    folder: Path
    classes: list
    parts: dict
    whole: bool = False
    said: list = field(default_factory=list)
    lost: dict = field(default_factory=dict)
    first: int = 0


def role(name: str) -> str | None:
    """What a folder of that name holds, by its name: "train", "validation", "test", "unlabelled", or None."""
    letters = "".join(c for c in unicodedata.normalize("NFKC", name).casefold() if c.isalpha())
    for part, words in {**ROLES, "unlabelled": UNLABELLED}.items():
        if re.fullmatch(f"(?:{FILLERS})*(?:{words})(?:{FILLERS})*[ab]?", letters):
            return part
    return None


def from_folders(folder: Path, training: bool = True) -> Listing:
    """The listing of a folder of folders. ``training``: training images of every class must be there. NumnetError."""
    said = []
    folders = cache(subfolders)  # asked for one folder several times; every answer opens all folders in it
    place = _unwrap(folder, folders)
    if place != folder:
        said.append(f"{folder}: taken from {place}, the only folder in it")
    places = _places(place, training, said, folders)
    home = "train" if "train" in places else next(iter(places))
    classes = [name for name, _ in places[home]]
    if training and len(classes) < 2:
        came = f"only one class folder, {classes[0]}" if classes else "no class folders"
        raise NumnetError(f"{_home(place, places)}: {came}; {_inner(place, folders)}{EXPECTED}")
    if not classes:
        raise NumnetError(
            f"{place}: no class folders; {_inner(place, folders)}{EXPECTED} (`numnet predict` takes images without classes)"
        )
    if home != "train":
        for part in places:
            classes += [name for name, _ in places[part] if name not in classes]
        classes.sort()
    listing = Listing(folder, classes, {}, set(places) == {"train"}, said)
    hidden, again = Counter(), 0
    for parent in {path.parent for entries in places.values() for _, path in entries}:
        hidden += hidden_images(parent, set(folders(parent)))
    for part, entries in places.items():
        spellings = [name for name, _ in entries]
        labels = class_names.match(spellings, classes)
        listing.parts[part] = []
        for (name, path), label in zip(entries, labels):
            if label is None:
                raise NumnetError(f"{path}: a class that {_home(place, places)} does not have")
            found = images_below(path)
            if not found.images and training:
                raise NumnetError(
                    f"{path}: no image of class {name}{_instead(found)}, expected {', '.join(SUFFIXES)}"
                )
            listing.parts[part] += [(file, label) for file in found.images]
            hidden, again = hidden + found.hidden, again + found.again
            if found.others:
                listing.lost[label] = listing.lost.get(label, Counter()) + found.others
        other = class_names.renamed(spellings, classes, labels)
        if other:
            said.append(f"{folder}: names of classes differ in spelling: {other}")
    if hidden:
        said.append(
            f"{folder}: {counted(sum(hidden.values()), 'image')} in hidden folders or runs left out: {kinds(hidden)}"
        )
    if again:
        said.append(
            f"{folder}: {counted(again, 'link')} to folders or images that are there already left out"
        )
    return listing


def _home(place, places) -> Path:
    """The folder that holds the classes."""
    paths = places.get("train") or next(iter(places.values()), [])
    return paths[0][1].parent if paths and all(p.name == name for name, p in paths) else place


def _instead(found) -> str:
    return f" (it holds {kinds(found.others)}, which cannot be read)" if found.others else ""


def _inner(place, folders) -> str:
    """A hint at a folder one level down that looks like the data set."""
    inner = [name for name in folders(place) if len(folders(place / name)) > 1]
    return f"did you mean {place / inner[0]}? " if len(inner) == 1 else ""


def _unwrap(folder: Path, folders, part=None) -> Path:
    """The folder itself, or the one folder in it that an archive's name or a word like "images" adds around a data set."""
    while True:
        inner = folders(folder)
        if len(inner) != 1 or holds_images(folder):
            return folder
        name, deeper = inner[0], folders(folder / inner[0])
        letters = "".join(c for c in name.casefold() if c.isalpha())
        same = letters == "".join(c for c in folder.name.casefold() if c.isalpha())
        if part is not None:
            same = same or role(name) == part
        if role(name) is not None and part is None:
            return folder
        if not (same or re.fullmatch(f"(?:{FILLERS})+", letters)):
            return folder
        if not deeper and part is None:
            return folder
        folder = folder / name


# ----------------------------------------------------------------------------------------- splits or classes


def _places(folder, training, said, folders) -> dict:
    """part -> [(class, its folder), …]. ``folders``: ``subfolders`` with a memory."""
    names = folders(folder)
    roles = {name: role(name) for name in names if role(name)}
    if not roles:
        return _turned(folder, names, said, folders) or {"train": _classes(folder, said, folders)}
    inside = {name: _unwrap(folder / name, folders, roles[name]) for name in roles}
    labelled = [
        name
        for name in roles
        if any(has_images(inside[name] / sub, folders) for sub in folders(inside[name]))
    ]
    flat = [name for name in roles if name not in labelled and has_images(folder / name, folders)]
    others = [name for name in names if name not in roles and has_images(folder / name, folders)]
    trains = [name for name in labelled if roles[name] == "train"]
    if not labelled and others and not _unclear(roles, flat, others):
        return {"train": _classes(folder, said, folders)}  # {valid, invalid}, {train, bus, car}
    if not labelled and not flat and not others:
        if training and "train" in roles.values():
            empty = next(name for name in roles if roles[name] == "train")
            return {"train": _classes(inside[empty], said, folders)}
        return {"train": []}
    _ask(folder, training, roles, labelled, flat, others, trains)
    places = {}
    for name in labelled:
        if roles[name] == "unlabelled":
            others.append(name)
            continue
        if roles[name] in places:
            twice = [other for other in labelled if roles[other] == roles[name]]
            raise NumnetError(
                f"{folder}: {' and '.join(twice)} are both {roles[name]} folders by their names; expected one of them"
            )
        places[roles[name]] = _classes(inside[name], said, folders)
    for name in flat:
        count = len(images_below(folder / name).images)
        said.append(f"{folder / name}: not used: {counted(count, 'image')} without class folders")
    if others:
        said.append(f"{folder}: not used: {', '.join(others)}, next to the folders of the splits")
    if training and set(places) == {"train"}:
        said.append(
            f"{folder}: no labelled images for testing: a fifth of each class's training images is the test set"
        )
    return _as_test(folder, places, said)


def _as_test(folder, places, said) -> dict:
    """If there are validation images and no test images, the validation images are the test set."""
    if "train" in places and "validation" in places and "test" not in places:
        said.append(f"{folder}: no test images: its validation images are the test set")
        places["test"] = places.pop("validation")
    order = ("train", "test", "validation")
    return {part: places[part] for part in order if part in places}


def _unclear(roles, flat, others) -> bool:
    """True if it is not clear whether the flat folders with a split's name are classes as the others are."""
    kinds = {roles[name] for name in flat}
    return len(kinds) > 1 or (kinds != {"train"} and len(others) > 1)


def _ask(folder, training, roles, labelled, flat, others, trains) -> None:
    """Raise NumnetError if a folder's name is that of a split and its neighbours look like classes."""
    rename = "if they are classes, give them other names"
    if not labelled:
        raise NumnetError(
            f"{folder}: {_and(flat)} named as a split is and {'holds' if len(flat) == 1 else 'hold'} images but no class "
            f"folders{_beside(others)}; {EXPECTED}; {rename}"
        )
    if training and not trains:
        raise NumnetError(
            f"{folder}: {_and(labelled)} by name not for training{_beside(others)}; "
            f"expected the classes' training images in train/CLASS/*; {rename}"
        )
    if training and len(others) > 1 and set(roles[name] for name in labelled + flat) == {"train"}:
        raise NumnetError(
            f"{folder}: is {trains[0]} a split, or a class like {listed(others)} next to it? "
            f"expected train/CLASS/* alone, or another name for the class"
        )


def _and(names) -> str:
    return listed(names) + (" is" if len(names) == 1 else " are")


def _beside(others) -> str:
    return f", next to {listed(others)}" if others else ""


def _classes(folder: Path, said, folders) -> list:
    names = folders(folder)
    if names and holds_images(folder):
        loose = sum(1 for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        said.append(
            f"{folder}: not used: {counted(loose, 'image')} next to the class folders, without a class"
        )
    _ask_about_folds(folder, names, said, folders)
    return [(name, folder / name) for name in names]


def _ask_about_folds(folder, names, said, folders) -> None:
    """NumnetError for fold1, fold2 …; a line for other folders that all hold the same folders: those may be the classes."""
    inner = [
        [sub for sub in folders(folder / name) if has_images(folder / name / sub, folders)] for name in names
    ]
    common = sorted(set(inner[0]).intersection(*inner[1:])) if len(names) > 1 else []
    if len(common) < 2:
        return
    words = f"{folder}: {listed(names)} all hold the folders {listed(common)}"
    if all(re.fullmatch(FOLDS, name.casefold()) for name in names):
        raise NumnetError(f"{words}; those look like the classes: {EXPECTED}")
    said.append(f"{words}: {names[0]} … are taken for the classes")


def _turned(folder, names, said, folders) -> dict | None:
    """The places of CLASS/train, CLASS/test; None if the class folders hold no splits."""
    inner = {name: {sub: role(sub) for sub in folders(folder / name)} for name in names}
    split = [name for name in names if "train" in inner[name].values()]
    if not split:
        return None
    places: dict = {}
    for name in names:
        parts = Counter(inner[name].values())
        if "train" not in parts or None in parts or max(parts.values()) > 1 or holds_images(folder / name):
            odd = folder / name
            raise NumnetError(
                f"{folder / split[0]} holds a training split, {odd} does not or holds more; expected CLASS/train/* and "
                "CLASS/test/* in every class, or train/CLASS/* and test/CLASS/*"
            )
        for sub, part in inner[name].items():
            places.setdefault(part, []).append((name, folder / name / sub))
    if "unlabelled" in places:
        said.append(
            f"{folder}: not used: {listed([str(path.relative_to(folder)) for _, path in places['unlabelled']])}"
        )
    return _as_test(folder, places, said)


# ----------------------------------------------------------------------------------------- what was left out


def losses(listing: Listing, unreadable: Counter) -> list[str]:
    """Lines about files that are no images that can be read; a line more for each class that loses more than LOST.

    ``unreadable``: label -> images that could not be decoded.
    """
    said, total = [], sum(listing.lost.values(), Counter())
    if total:
        said.append(
            f"{listing.folder}: {counted(sum(total.values()), 'file')} left out, of kinds that are not read: "
            f"{kinds(total)}; JPEG or PNG would be"
        )
    listed = Counter(label for files in listing.parts.values() for _, label in files)
    heavy = []
    for label, name in enumerate(listing.classes):
        strangers = sum(listing.lost.get(label, Counter()).values())
        lost, all_ = strangers + unreadable[label], listed[label] + strangers
        if lost > LOST * all_:
            heavy.append(f"class {name} loses {lost:,} of its {all_:,} files")
    return said + heavy[:10] + ([f"and {len(heavy) - 10} classes more"] if len(heavy) > 10 else [])


def kinds(counts: Counter) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common(6)) + (
        ", …" if len(counts) > 6 else ""
    )
