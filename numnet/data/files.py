"""Which files below a folder are images: by their endings and their first bytes; hidden folders, links, strangers.

Everything that a reader could take for an image and that is not read is counted, so that nobody trains on two images of
ten without a word:

    others    files of kinds that are not read (.heic, raw photographs, videos, archives …), by their endings
    hidden    images in hidden folders (thumbnails, checkpoints of notebooks, bins): copies, as a rule
    again     links to folders and images that are there already

Files that are often found among images (notes, tables, those of the system) are not counted as lost.
"""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from numnet.data.image import SUFFIXES

# Folders that a system or a program makes for itself; those that begin with a dot are hidden as well.
HIDDEN = {
    "__macosx", "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin", "recycler",
    "system volume information", "lost+found", "__pycache__", "thumbnails", "thumbs", "_thumbs", "_thumbnails",
}  # fmt: skip
COMPANIONS = {
    ".txt", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".md", ".rst", ".html", ".htm", ".yaml", ".yml", ".ini", ".cfg",
    ".toml", ".db", ".log", ".py", ".ipynb", ".sh", ".bat", ".url", ".lnk", ".webloc", ".info", ".sqlite", ".sha256",
    ".md5", ".xmp", ".aae", ".nfo", ".lst", ".tfw", ".pgw", ".jgw", ".prj",
}  # fmt: skip
# Endings of which the first bytes say nothing about use: copies, halves of downloads, previews.
COPIES = {".bak", ".orig", ".old", ".tmp", ".part", ".crdownload", ".download", ".thm"}
SNIFFED = 64  # bytes
# What a run directory of numnet's holds, and a search's; BEST may also be a net that somebody put beside photographs
OURS, BEST = ("last.safetensors", "nets.jsonl"), "best.safetensors"
FIGURES = {"curves.png", "front.png", "table.png"}  # of a run, of a search, of a sweep


@dataclass
class Found:
    """What is below a folder: the images in order of their names, and counts of what else was there."""

    images: list = field(default_factory=list)
    others: Counter = field(default_factory=Counter)
    hidden: Counter = field(default_factory=Counter)  # by the hidden folder's name
    again: int = 0
    linked: set = field(default_factory=set)  # those of the images that are links


def is_hidden(folder) -> bool:
    """True for a folder (a Path or a DirEntry) that holds nothing of a data set: a system's, or numnet's own runs.

    The learning curves in a run are a .png, but no photograph.
    """
    return folder.name.startswith(".") or folder.name.casefold() in HIDDEN or holds_runs(folder)


def holds_runs(folder) -> bool:
    """True for a run directory, a search's, and a folder of such: with no photograph of its own, nor in other folders."""
    runs, inner, image = False, [], False
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in OURS and entry.is_file():
                return True
            if image or entry.name.startswith("."):
                continue  # an image decides nothing yet: one of OURS may come behind it
            if entry.is_dir():
                inner += [] if entry.is_symlink() else [Path(entry)]
            elif entry.name == BEST:
                runs = True
            else:
                image = entry.name not in FIGURES and _kind(entry.path, entry.name) == "image"
    if image:
        return False
    others = []
    for path in inner:
        if holds_runs(path):
            runs = True
        elif holds_images(path):  # so it is in a folder of classes, of which only the first is opened then
            return False
        else:
            others.append(path)
    return runs and not any(has_images(path) for path in others)


def subfolders(folder: Path) -> list[str]:
    """The names of the folders in a folder, without hidden ones. Opens each of them, to see whether it is a run."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not is_hidden(entry))


def holds_images(folder: Path) -> bool:
    """True if an image lies in the folder itself."""
    with os.scandir(folder) as entries:
        return any(_kind(entry.path, entry.name) == "image" for entry in entries if not entry.is_dir())


def images_below(folder: Path) -> Found:
    """All images in the folder and the folders in it. Links are followed, each folder and image counts once."""
    found, links, taken = Found(), [], {os.path.realpath(folder)}
    _walk(folder, found, links, taken)
    home = os.path.realpath(folder)
    while links:
        link = links.pop(0)
        target = os.path.realpath(link)
        # The way back up would bring the images of all other classes.
        if target in taken or home.startswith(target.rstrip(os.sep) + os.sep):
            found.again += 1
            continue
        taken.add(target)
        _walk(link, found, links, taken)
    _drop_doubles(found)
    return found


def _walk(folder, found, links, taken) -> None:
    with os.scandir(folder) as entries:
        entries = sorted(entries, key=lambda entry: entry.name)
    inner = []
    for entry in entries:
        if entry.is_dir():
            inner.append(entry)
            continue
        kind = _kind(entry.path, entry.name)
        if kind == "image":
            found.images.append(Path(folder, entry.name))
            if entry.is_symlink():
                found.linked.add(found.images[-1])
        elif kind == "hidden":
            found.hidden["in files whose names begin with a dot"] += 1
        elif kind is not None:
            found.others[kind] += 1
    for entry in inner:
        if is_hidden(entry):
            count = _count(entry.path)
            if count:
                found.hidden[entry.name] += count
        elif entry.is_symlink():
            links.append(entry.path)
        else:
            taken.add(os.path.realpath(entry.path))
            _walk(entry.path, found, links, taken)


def _drop_doubles(found) -> None:
    """Leave out links to images that are in the same class under a name of their own."""
    if not found.linked:
        return
    there = {os.path.realpath(path) for path in found.images if path not in found.linked}
    doubles = set()
    for path in (path for path in found.images if path in found.linked):
        target = os.path.realpath(path)
        if target in there:
            doubles.add(path)
        there.add(target)
    found.again += len(doubles)
    found.images = [path for path in found.images if path not in doubles]


def hidden_images(folder, shown) -> Counter:
    """How many images lie in the hidden folders in a folder, by the names of these. ``shown``: its ``subfolders``."""
    with os.scandir(folder) as entries:
        hidden = [entry for entry in entries if entry.is_dir() and entry.name not in shown]
    return Counter({entry.name: count for entry in hidden if (count := _count(entry.path))})


def _count(folder) -> int:
    """Images below a hidden folder, by their endings."""
    return sum(
        not name.startswith("._") and Path(name).suffix.lower() in SUFFIXES
        for _, _, names in os.walk(folder)
        for name in names
    )


def _kind(path, name) -> str | None:
    """ "image", "hidden", None for what is no loss, or what to call a file that is not read."""
    suffix = Path(name).suffix.lower()
    if name.startswith("."):
        return "hidden" if suffix in SUFFIXES and not name.startswith("._") else None
    if suffix in SUFFIXES:
        return "image"
    if suffix in COMPANIONS or name.casefold() in ("icon\r", "desktop.ini"):
        return None
    if suffix in COPIES or name.endswith("~"):
        return suffix or "~"
    try:
        with open(
            os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb"
        ) as file:
            start = file.read(SNIFFED)
    except OSError:
        return suffix or "without an ending"
    if looks_like_an_image(start or b"") and not (suffix and start[:4] in (b"II*\0", b"MM\0*")):
        return "image"  # cameras' raw files begin as TIFFs do
    if not suffix and start and _is_text(start):
        return None
    return suffix or "without an ending"


def looks_like_an_image(start: bytes) -> bool:
    """True if a file that begins so is of one of the formats that are read."""
    if start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")):
        return True
    if start[:2] == b"BM":
        return start[6:10] == bytes(4)
    if start[:2] in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"):
        return start[2:3].isspace() and start[3:4].isdigit()
    if start[:4] == b"RIFF":
        return start[8:12] == b"WEBP"
    return start[4:12] in (b"ftypavif", b"ftypavis")


def _is_text(start: bytes) -> bool:
    return b"\0" not in start and not any(byte < 9 or 13 < byte < 32 for byte in start)


def has_images(folder: Path, folders=subfolders) -> bool:
    """True if an image lies in the folder or below it. ``folders``: ``subfolders``, or one that remembers its answers."""
    if holds_images(folder):
        return True
    inner = (folder / name for name in folders(folder))
    return any(has_images(path, folders) for path in inner if not path.is_symlink())
