"""Lists of image files and of classes' names, in text as people's programs write it.

    train_list.txt, val_list.txt, test_list.txt    a line an image: its path below the folder, a blank, its class number
    label_list.txt, labels.txt, classes.txt …      a line a class: its name, or its number and its name

Read as well: tabs, commas and semicolons between the two, quotation marks, a header (with one, further columns); the
number before the path or the name; classes by name, where a separator or the list of names tells where the name begins;
numbers from 1 on; numbers and names in any order, ``name: number`` and JSON; Windows' line ends and backslashes; UTF-8,
UTF-16, GBK and Western European letters; paths that repeat the folder's name or begin at another computer's root.
What had to be assumed is said.
"""

import csv
import itertools
import json
import os
import re
import unicodedata
from pathlib import Path, PurePosixPath

from numnet.data.files import subfolders
from numnet.data.image import SUFFIXES
from numnet.data.layout import FILLERS, ROLES, Listing
from numnet.errors import NumnetError

ENDINGS = (".txt", ".csv", ".tsv", ".lst")
NAMES = r".*label_?list|labels?|classes|class_?names?|class_?list|names|class_?ind(ex|ices)|label_?map"
PATH_WORDS = {
    "image", "images", "img", "path", "file", "filename", "filepath", "imagepath", "imagename", "name", "id", "imageid",
    "imagefile", "imgpath", "imgname", "fname", "photo", "picture",
}  # fmt: skip
LABEL_WORDS = {
    "label", "labels", "class", "classes", "category", "target", "classid", "labelid", "classname", "labelname",
    "classnumber", "y", "categoryid", "breed", "species",
}  # fmt: skip
EXPECTED = "expected a path, a blank, a class number"
MOST = 100_000  # the largest class number
BASES = 50  # folders that are tried in front of paths
SAMPLE = 12  # lines that decide how paths are to be read


def find(folder: Path, strict: bool = True) -> dict:
    """part -> the list of its images. ``strict``: only names like train_list.txt; else train.csv, test.txt too."""
    found: dict = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in ENDINGS or path.name.startswith(".") or not os.path.isfile(path):
            continue
        letters = "".join(c for c in path.stem.casefold() if c.isalpha())
        for part, words in ROLES.items():
            tail = "lists?" if strict else "(?:lists?)?"
            if re.fullmatch(f"(?:{FILLERS})*(?:{words})(?:{FILLERS})*{tail}", letters):
                if part in found:
                    raise NumnetError(
                        f"{folder}: {found[part].name} and {path.name} are both lists of {part} images; expected one"
                    )
                found[part] = path
    return {part: found[part] for part in ROLES if part in found}


def from_lists(folder: Path, files: dict) -> Listing:
    """The listing that these lists make. NumnetError names the file and the line that is wrong."""
    said: list = []
    names_file = _names_file(folder)
    table = None if names_file is None else _names(names_file, said)
    known = None if table is None else list(table.values())
    rows = {part: _rows(path, known, said) for part, path in files.items()}
    classes, number = _classes(
        folder, files["train"] if "train" in files else None, rows, names_file, table, said
    )
    first = int(classes[0]) if table is None and classes[0].isdecimal() else 0
    listing = Listing(folder, classes, {}, said=said, first=first)
    for part, found in rows.items():
        place = _places(folder, files[part], [path for path, _ in found], said)
        listing.parts[part] = [(place(path), number[label]) for path, label in found]
    listing.whole = set(listing.parts) == {"train"}
    return listing


# ----------------------------------------------------------------------------------------- text


def lines_of(path: Path, said) -> list[str]:
    """The lines of a text file, in whatever letters it was written. NumnetError if it is no text."""
    try:
        raw = path.read_bytes()
        text, letters = _decoded(raw)
    except (OSError, UnicodeError) as error:
        raise NumnetError(f"{path}: cannot be read as text ({' '.join(str(error).split())})") from None
    if letters:
        said.append(f"{path}: read as {letters}, since it is not UTF-8")
    return text.splitlines()


def _decoded(raw: bytes) -> tuple:
    """(text, name of the letters if they were guessed)."""
    for mark, name in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig")):
        if raw.startswith(mark):
            return raw.decode(name), None
    if b"\0" in raw:  # UTF-16 without a mark: of every second byte most are 0
        return raw.decode("utf-16-le" if raw[1::2].count(0) >= raw[0::2].count(0) else "utf-16-be"), None
    try:
        return raw.decode("utf-8"), None
    except UnicodeDecodeError:
        pass
    high = re.findall(rb"[\x80-\xff]+", raw)
    if sum(len(run) for run in high if len(run) > 1) * 2 > sum(map(len, high)):  # two bytes a letter
        try:
            return raw.decode("gb18030"), "GBK"
        except UnicodeDecodeError:
            pass
    return raw.decode("cp1252", errors="strict"), "Western European (Windows-1252)"


# ----------------------------------------------------------------------------------------- lists of images


def _rows(path: Path, known, said) -> list:
    """[(path as it stands there, class number or name), …]."""
    lines = [(number, line.strip()) for number, line in enumerate(lines_of(path, said), 1) if line.strip()]
    if not lines:
        raise NumnetError(f"{path}: empty, expected a line an image: a path, a blank, a class number")
    parse, header = _way(lines, known)
    rows = []
    for number, line in lines[1:] if header else lines:
        row = parse(line)
        if row is None:
            raise NumnetError(f"{path}: line {number} is {line[:80]!r}, {EXPECTED}")
        if isinstance(row[1], int) and row[1] > MOST:
            raise NumnetError(f"{path}: line {number} has class number {row[1]}, expected at most {MOST:,}")
        rows.append(row)
    if not rows:
        raise NumnetError(f"{path}: only a header, expected a line an image: a path, a blank, a class number")
    return rows


def _way(lines, known):
    """(function from a line to (path, label) or None, whether the first line is a header)."""
    first, rest = lines[0][1], [line for _, line in lines[1:]]
    separators = [sep for sep in "\t,;" if all(sep in line for line in rest or [first])]
    header = bool(rest) and _is_header(first)
    body = rest if header else [first, *rest]
    for sep in separators if header else []:
        columns = _columns(_split(first, sep))
        if columns is not None:
            return _by_columns(sep, columns), True
    ways = [make(sep) for sep in (*separators, None) for make in (_number_last, _number_first)]
    ways += [_named(sep) for sep in separators]
    ways += [_known_name(known)] if known is not None else []
    # The first that reads the most lines; where that is not all, the others are what is wrong.
    best = max(ways, key=lambda parse: sum(parse(line) is not None for line in body))
    return best, header and (best(first) is None or all(best(line) for line in body))


def _split(line, sep) -> list:
    if sep is None:
        return line.replace("\t", " ").split(" ")
    if sep == "\t":
        return [field.strip().strip('"') for field in line.split("\t")]
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=sep, skipinitialspace=True), [])]
    except csv.Error:
        return [line]


def _is_header(line) -> bool:
    """True for a first line of words, none of them a file."""
    fields = [field for field in re.split(r"[\t,;\s]+", line.strip().lstrip("#")) if field]
    letters = {re.sub("[^a-z]", "", field.casefold()) for field in fields}
    return bool(letters & (PATH_WORDS | LABEL_WORDS)) and not any(
        _number(field) is not None
        or PurePosixPath(field).suffix.lower() in SUFFIXES
        or "/" in field
        or "\\" in field
        for field in fields
    )


def _columns(fields):
    """(column of the paths, column of the classes) of a header, or None."""
    letters = [re.sub("[^a-z]", "", field.casefold()) for field in fields]
    paths = [i for i, word in enumerate(letters) if word in PATH_WORDS]
    labels = [i for i, word in enumerate(letters) if word in LABEL_WORDS]
    paths.sort(key=lambda i: letters[i] == "id")  # mostly the number of the line
    return (paths[0], labels[0]) if paths and labels else None


def _by_columns(sep, columns):
    def parse(line):
        fields = _split(line, sep)
        if len(fields) <= max(columns) or not fields[columns[0]] or not fields[columns[1]]:
            return None
        label = _number(fields[columns[1]])
        return fields[columns[0]], fields[columns[1]] if label is None else label

    return parse


def _number_last(sep):
    def parse(line):
        fields = _split(line, sep)
        while sep is not None and len(fields) > 2 and not fields[-1]:
            fields.pop()  # a separator at the end of the line
        label, name = _number(fields[-1]), (" " if sep is None else sep).join(fields[:-1]).strip()
        if (
            label is None
            or not name
            or (sep is not None and len(fields) > 2 and _number(fields[-2]) is not None)
        ):
            return None
        return name, label

    return parse


def _number_first(sep):
    def parse(line):
        fields = _split(line, sep)
        label, name = _number(fields[0]), (" " if sep is None else sep).join(fields[1:]).strip()
        return (name, label) if label is not None and PurePosixPath(name).suffix.lower() in SUFFIXES else None

    return parse


def _named(sep):
    def parse(line):
        fields = _split(line, sep)
        known = [PurePosixPath(field).suffix.lower() in SUFFIXES for field in fields]
        named = known == [True, False] and fields[1] and _number(fields[1]) is None
        return (fields[0], fields[1]) if named else None

    return parse


def _known_name(known):
    longest = sorted(known, key=len, reverse=True)

    def parse(line):
        name = next((name for name in longest if line.endswith((" " + name, "\t" + name))), None)
        return None if name is None else (line[: -len(name)].strip(), name)

    return parse


def _number(text) -> int | None:
    """A class number, as a program for tables may write it too: 3, "3", 3.0."""
    found = re.fullmatch(r'"?([0-9]{1,18})(?:\.0+)?"?', text.strip())
    return int(found[1]) if found else None


# ----------------------------------------------------------------------------------------- classes


def _names_file(folder) -> Path | None:
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in (*ENDINGS, ".json", ".names") and re.fullmatch(NAMES, path.stem.casefold())
    ]
    return min(
        found, key=lambda path: (not path.stem.casefold().endswith("label_list"), path.name), default=None
    )


def _names(path: Path, said) -> dict:
    """Class number -> name, in the order of the numbers; a file that numbers nothing is numbered from 0."""
    lines = [line.strip() for line in lines_of(path, said) if line.strip()]
    if path.suffix.lower() == ".json":
        return _names_of_json(path, "\n".join(lines))
    pairs = _numbered(lines) or (_numbered(lines[1:]) if len(lines) > 2 and _is_header(lines[0]) else None)
    if pairs is None:
        return dict(enumerate(lines))
    table = dict(sorted(pairs))
    if len(table) < len(pairs):
        raise NumnetError(f"{path}: a class number stands there twice, expected each once")
    return table


def _numbered(lines) -> list | None:
    """[(number, name), …] if every line has a number before its name, or every line behind it."""
    separator = r"(?:\s*[\t,;:=]\s*|\s+)"
    for pattern, number, name in (
        (rf'"?(\d{{1,6}})"?(?:{separator}"?(.*?)"?)?', 1, 2),
        (rf'"?(.+?)"?{separator}"?(\d{{1,6}})"?', 2, 1),
    ):
        found = [re.fullmatch(pattern, line.rstrip(",")) for line in lines]
        if lines and all(found):
            return [(int(match[number]), (match[name] or match[number]).strip()) for match in found]
    return None


def _names_of_json(path, text) -> dict:
    try:
        table = json.loads(text)
        if isinstance(table, list):
            return dict(enumerate(map(str, table)))
        if all(isinstance(value, int) for value in table.values()):
            table = {value: name for name, value in table.items()}
        else:
            table = {int(number): str(name) for number, name in table.items()}
        return dict(sorted(table.items()))
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise NumnetError(
            f'{path}: expected JSON like ["ant", "bee"] or {{"0": "ant", "1": "bee"}}'
        ) from None


def _classes(folder, first, rows, names_file, table, said) -> tuple:
    """(names of the classes, label as it stands in the lists -> class number)."""
    used = {label for found in rows.values() for _, label in found}
    words = {label for label in used if isinstance(label, str)}
    if words and words != used:
        odd = min(words)
        raise NumnetError(
            f"{first or folder}: classes by number and by name ({odd[:40]!r}); expected one of the two"
        )
    if words:
        known = sorted(words) if table is None else list(table.values())
        strange = sorted(words - set(known))
        if strange:
            raise NumnetError(f"{names_file}: has no class {strange[0]!r}, which the lists name")
        return _several(known, first or folder), {name: known.index(name) for name in words}
    shift = 1 if min(used) == 1 and _from_one(table, max(used)) else 0
    if shift:
        said.append(f"{folder}: the class numbers of the lists begin at 1")
    count = 1 + max(used) - shift
    _several(range(count), first or folder)
    number = {label: label - shift for label in used}
    if table is None:
        return [str(n + shift) for n in range(count)], number
    if list(table) == list(range(len(table))):
        names = list(table.values())
        if len(names) < count:
            raise NumnetError(
                f"{names_file}: {len(names)} names, expected {count}, one for each class of the lists"
            )
        return names[:count], number
    if list(table) == list(range(1, len(table) + 1)) and shift:
        return list(table.values())[:count], number
    missing = sorted(used - set(table))
    if missing:
        raise NumnetError(
            f"{names_file}: no name for class {missing[0]}, expected one for each class of the lists"
        )
    numbers = [n for n in table if n in used]
    return [table[n] for n in numbers], {n: place for place, n in enumerate(numbers)}


def _from_one(table, largest) -> bool:
    """True if numbers that begin at 1 leave out nobody: the names agree, or there are none."""
    return table is None or len(table) == largest or list(table) == list(range(1, len(table) + 1))


def _several(classes, where):
    if len(classes) < 2:
        raise NumnetError(f"{where}: only one class, expected at least two")
    return classes


# ----------------------------------------------------------------------------------------- paths


def _places(folder, list_file, names, said):
    """The function from a path as it stands in a list to a file; what it does to all paths is said."""
    sample = names[:: max(1, len(names) // SAMPLE)][:SAMPLE]
    depth = max(len(_parts(name)) for name in sample)
    bases = [Path()] + [Path(name) for name in subfolders(folder)[:BASES]]
    best, most = None, 0
    for ending, base, drop, spelling in itertools.product(
        ("", ".jpg", ".png", ".jpeg"), bases, range(depth), SPELLINGS
    ):
        way = _Way(folder, base, drop, ending, spelling)
        hits = sum(os.path.isfile(way(name)) for name in sample)
        if hits > most and len({way(name) for name in names}) == len(set(names)):  # no two paths are one file
            best, most = way, hits
        if most == len(sample):
            break
    plain = _Way(folder, Path(), 0, "", SPELLINGS[0])
    if best is None:
        if not any(os.path.isfile(plain(name)) for name in names):
            raise NumnetError(
                f"{list_file}: none of its images is there; the first is {names[0][:80]!r}, "
                f"looked for as {plain(names[0])}"
            )
        return plain
    if (best.base, best.drop, best.ending) == (Path(), 0, "") and best.spelling is SPELLINGS[0]:
        return plain
    said.append(f"{list_file}: {names[0][:80]} is taken to be {best(names[0])}, and the others alike")

    def place(name):
        path = best(name)
        return plain(name) if not os.path.isfile(path) and os.path.isfile(plain(name)) else path

    return place


SPELLINGS = (
    lambda name: name,
    lambda name: unicodedata.normalize("NFD", name),
    lambda name: unicodedata.normalize("NFC", name),
    lambda name: os.fsdecode(name.encode("gb18030")),  # as an archive from Windows is unpacked elsewhere
)


class _Way:
    """From a path in a list to a file: parts left out in front, a folder put there, an ending added."""

    def __init__(self, folder, base, drop, ending, spelling):
        self.folder, self.base, self.drop, self.ending, self.spelling = folder, base, drop, ending, spelling

    def __call__(self, name) -> Path:
        name = self.spelling(name) + self.ending
        if not self.drop and self.base == Path():
            path = self.folder / name
            if "\\" not in name or os.path.isfile(path):
                return path
        return self.folder / self.base / Path(*_parts(name)[self.drop :])


def _parts(name) -> list:
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    return parts or [name]
