"""Lists of images and of classes' names as people's programs write them."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from numnet import data
from numnet.errors import NumnetError

NAMES = ("ant", "honey bee", "cat")


def photo(path, label):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), 60 * label + 20, np.uint8)).save(path)


@pytest.fixture
def flowers(tmp_path):
    """A folder ``flowers`` with three images of each class, grey by class: jpg/0/a b0.png …"""
    root = tmp_path / "flowers"
    for label in range(3):
        for i in range(3):
            photo(root / "jpg" / str(label) / f"a b{i}.png", label)
    return root


def rows(line="jpg/{label}/a b{i}.png {label}", numbers=(0, 1), **more):
    return [
        line.format(label=label, i=i, name=NAMES[label], one=label + 1, **more)
        for label in range(3)
        for i in numbers
    ]


def write(root, lines, test=None, newline="\n", encoding="utf-8", name="train_list.txt"):
    (root / name).write_bytes((newline.join(lines) + newline).encode(encoding))
    if test is not None:
        (root / name.replace("train", "test")).write_bytes((newline.join(test) + newline).encode(encoding))


def check(root, classes=("0", "1", "2")):
    """Every image is of the class that its grey says."""
    read = data.load(root, resolution=8)
    assert read.classes == list(classes) and read.skipped == []
    for split in (read.train, read.test):
        grey = split.images[:, 0, 0, 0].astype(int)
        assert len(split) >= 3 and ((grey - 20) // 60 == split.labels).all()
    return read


@pytest.mark.parametrize(
    "line",
    [
        "jpg/{label}/a b{i}.png {label}",
        "jpg/{label}/a b{i}.png\t{label}",
        "jpg/{label}/a b{i}.png,{label}",
        "jpg/{label}/a b{i}.png, {label}.0",
        '"jpg/{label}/a b{i}.png";"{label}"',
        "jpg/{label}/a b{i}.png\t{label}\t",
        "{label} jpg/{label}/a b{i}.png",
        "{label},jpg/{label}/a b{i}.png",
        "./jpg/{label}/a b{i}.png   {label}",
        "jpg\\{label}\\a b{i}.png {label}",
        "C:\\data\\flowers\\jpg\\{label}\\a b{i}.png\t{label}",
        "flowers/jpg/{label}/a b{i}.png {label}",
        "/home/somebody/flowers/jpg/{label}/a b{i}.png {label}",
        "{label}/a b{i}.png {label}",
        "{label}/a b{i} {label}",
    ],
)
@pytest.mark.parametrize(
    ("newline", "encoding"), [("\n", "utf-8"), ("\r\n", "utf-16"), ("\r\n", "utf-8-sig")]
)
def test_lines(flowers, line, newline, encoding):
    write(flowers, rows(line), rows(line, [2]), newline, encoding)
    read = check(flowers)
    moved = "{label}/a" in line[:9] or "flowers" in line
    assert any("is taken to be" in text for text in read.said) == moved


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("image,label", "jpg/{label}/a b{i}.png,{label}"),
        ("path label", "jpg/{label}/a b{i}.png {label}"),
        ("# file\tclass", "jpg/{label}/a b{i}.png\t{label}"),
        ("id;file_name;width;class_id;split", "7;jpg/{label}/a b{i}.png;64;{label};train"),
    ],
)
def test_a_header(flowers, header, line):
    write(flowers, [header, *rows(line)], [header, *rows(line, [2])])
    check(flowers)


@pytest.mark.parametrize(("line", "header"), [("jpg/{label}/a b{i}.png,{name}", None), ("{label}/a b{i}.png\t{name}", None),
                                              ("{name};jpg/{label}/a b{i}.png", "species;image")])  # fmt: skip
def test_classes_by_name(flowers, line, header):
    write(
        flowers,
        [*([header] if header else []), *rows(line)],
        [*([header] if header else []), *rows(line, [2])],
    )
    read = data.load(flowers, resolution=8)
    assert read.classes == ["ant", "cat", "honey bee"] and read.train.labels.tolist() == [0, 0, 2, 2, 1, 1]
    (flowers / "classes.txt").write_text("\n".join(NAMES))
    check(flowers, NAMES)


def test_names_behind_a_blank(flowers):
    """Where a name begins, only the list of names tells."""
    write(flowers, rows("jpg/{label}/a b{i}.png {name}"), rows("jpg/{label}/a b{i}.png {name}", [2]))
    with pytest.raises(
        NumnetError,
        match=r"train_list.txt: line 1 is 'jpg/0/a b0.png ant', expected a path, a blank, a class number",
    ):
        data.load(flowers, resolution=8)
    (flowers / "label_list.txt").write_text("\n".join(NAMES))
    check(flowers, NAMES)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("label_list.txt", "ant\nhoney bee\ncat\n"),
        ("flowers_label_list.txt", "2 cat\n0 ant\n1 honey bee\n"),
        ("labels.txt", "1\thoney bee\r\n2\tcat\r\n0\tant\r\n"),
        ("classes.txt", "0: ant\n1: honey bee\n2: cat"),
        ("classes.csv", "class_id,class_name\n0,ant\n1,honey bee\n2,cat\n"),
        ("labels.txt", "cat,2\nant,0\nhoney bee,1\n"),
        ("class_names.txt", "honey bee 1\nant 0\ncat 2\n"),
        ("class_indices.json", json.dumps({"cat": 2, "ant": 0, "honey bee": 1})),
        ("label_map.json", json.dumps({"1": "honey bee", "0": "ant", "2": "cat"})),
        ("labels.json", json.dumps(NAMES)),
    ],
)
def test_names_of_the_classes(flowers, file, content):
    write(flowers, rows(), rows(numbers=[2]))
    (flowers / file).write_bytes(content.encode("utf-16" if file == "labels.txt" else "utf-8"))
    check(flowers, NAMES)


@pytest.mark.parametrize("names", [None, "ant\nhoney bee\ncat\n", "3 cat\n1 ant\n2 honey bee\n"])
def test_numbers_from_one(flowers, names):
    line = "jpg/{label}/a b{i}.png {one}"
    write(flowers, rows(line), rows(line, [2]))
    if names:
        (flowers / "label_list.txt").write_text(names)
    read = check(flowers, NAMES if names else ("1", "2", "3"))
    assert any("begin at 1" in text for text in read.said) and read.first == (0 if names else 1)
    assert data.load_for_evaluation(flowers, resolution=8).first == read.first


def test_numbers_from_zero(flowers):
    write(flowers, rows(), rows(numbers=[2]))
    assert check(flowers).first == data.load_for_evaluation(flowers, resolution=8).first == 0


def test_numbers_with_gaps(flowers):
    write(flowers, [row[:-1] + str(7 * int(row[-1]) + 3) for row in rows()], None)
    (flowers / "label_list.txt").write_text("17 cat\n10 honey bee\n3 ant\n99 dog\n")
    read = data.load(flowers, resolution=8)
    assert read.classes == list(NAMES)
    (flowers / "label_list.txt").write_text("10 honey bee\n3 ant\n99 dog\n")
    with pytest.raises(NumnetError, match=r"label_list.txt: no name for class 17"):
        data.load(flowers, resolution=8)
    (flowers / "label_list.txt").write_text("3 honey bee\n3 ant\n17 dog\n")
    with pytest.raises(NumnetError, match="a class number stands there twice"):
        data.load(flowers, resolution=8)


@pytest.mark.parametrize(("encoding", "names", "says"), [
    ("gb18030", ("蚂蚁", "蜜蜂", "猫咪"), "GBK"), ("cp1252", ("Ameise", "Häschen", "Kätzchen"), "Windows-1252"),
    ("utf-16", ("蚂蚁", "蜜蜂", "猫咪"), None), ("utf-16-le", ("ant", "bee", "cat"), None),
])  # fmt: skip
def test_letters_of_windows(tmp_path, encoding, names, says):
    for label, name in enumerate(names):
        for i in range(3):
            photo(tmp_path / name / f"{i}.png", label)
    for part, numbers in (("train", (0, 1)), ("test", (2,))):
        lines = [f"{name}\\{i}.png\t{label}" for label, name in enumerate(names) for i in numbers]
        write(tmp_path, lines, None, "\r\n", encoding, f"{part}_list.txt")
    (tmp_path / "label_list.txt").write_bytes("\r\n".join(names).encode(encoding))
    read = check(tmp_path, names)
    assert [says in text for text in read.said] == [True] * 3 if says else not read.said


@pytest.mark.skipif(os.name == "nt" or os.sys.platform == "darwin", reason="names that are no text")
def test_names_of_files_that_windows_packed(tmp_path):
    """An archive's names in GBK come out as they are; the list says the same bytes."""
    for label, name in enumerate(("蚂蚁", "蜜蜂", "猫")):
        for i in range(3):
            photo(tmp_path / os.fsdecode(name.encode("gb18030")) / f"{i}.png", label)
    lines = [f"{name}/{i}.png {label}" for label, name in enumerate(("蚂蚁", "蜜蜂", "猫")) for i in range(3)]
    write(tmp_path, lines, lines, encoding="gb18030")
    check(tmp_path)


@pytest.mark.parametrize(
    "name", ["Train_List.txt", "train-list.csv", "trainlist.lst", "train.txt", "train.csv"]
)
def test_names_of_lists(flowers, name):
    write(flowers, rows("jpg/{label}/a b{i}.png,{label}"), None, name=name)
    write(
        flowers,
        rows("jpg/{label}/a b{i}.png,{label}", [2]),
        None,
        name="test.csv" if "list" not in name else "test_list.txt",
    )
    assert len(check(flowers).test) == 3


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            "jpg/0/a b0.png,0,1\njpg/1/a b0.png,1,0\n",
            "train_list.txt: line 1 is 'jpg/0/a b0.png,0,1', expected a path",
        ),
        (
            "elsewhere/x.png 0\nelsewhere/y.png 1\n",
            "none of its images is there; the first is 'elsewhere/x.png', looked for as",
        ),
        (
            "jpg/0/a b0.png 0\njpg/1/a b1.png 100001\n",
            "line 2 has class number 100001, expected at most 100,000",
        ),
        ("image,label\n", r"line 1 is 'image,label', expected"),
        ("jpg/0/a b0.png,0\njpg/1/a b0.png,bee\n", "line 2 is 'jpg/1/a b0.png,bee', expected"),
    ],
)
def test_lists_that_are_refused(flowers, content, says):
    (flowers / "train_list.txt").write_text(content)
    with pytest.raises(NumnetError, match=says) as excinfo:
        data.load(flowers, resolution=8)
    assert "\n" not in str(excinfo.value)
    write(flowers, rows(), rows(numbers=[2]))
    write(flowers, rows(), None, name="Training_List.csv")
    with pytest.raises(
        NumnetError, match=r"Training_List.csv and train_list.txt are both lists of train images"
    ):
        data.load(flowers, resolution=8)
