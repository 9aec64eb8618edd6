"""Folders as people have them: names of splits, what is left out and counted, links, class names by name."""

import os
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from numnet import data
from numnet.data import files, names
from numnet.data.layout import from_folders, role
from numnet.errors import NumnetError

rng = np.random.default_rng(0)


def photos(folder, count=3):
    """``count`` photographs, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)).save(folder / f"{i}.png")


def make(root, *paths, count=3):
    for path in paths:
        photos(root / path, count)


def load(folder, **options):
    return data.load(folder, resolution=8, **options)


def refused(folder, words):
    with pytest.raises(NumnetError, match=words) as excinfo:
        load(folder)
    assert "\n" not in str(excinfo.value)


# ----------------------------------------------------------------------------------------- splits or classes


@pytest.mark.parametrize(
    "train", ["train", "Train", "TRAINING", "training_set", "Train Data", "seg_train", "train2017", "训练集"]
)
@pytest.mark.parametrize(
    "test", ["test", "Test", "Testing Data", "test_images", "holdout", "Validation", "val", "VALID", "dev"]
)
def test_names_of_splits(tmp_path, train, test):
    make(tmp_path, *(f"{split}/{name}" for split in (train, test) for name in ("ant", "bee")))
    photos(tmp_path / train / "ant", 5)
    read = load(tmp_path)
    assert (
        read.classes == ["ant", "bee"]
        and len(read.train) == 8
        and len(read.test) == 6
        and read.validation is None
    )


@pytest.mark.parametrize(
    "name", ["trainer", "trains", "invalid", "control", "tested", "ant", "training wheels", "devil", "set"]
)
def test_names_of_classes(name):
    assert role(name) is None


def test_train_and_capital_validation_evaluates_on_no_training_image(tmp_path):
    make(tmp_path, "train/ant", "train/bee", "Validation/ant", "Validation/bee", "TEST/ant", "TEST/bee")
    read = load(tmp_path)
    assert [len(split) for split in (read.train, read.validation, read.test)] == [6, 6, 6]
    seen = [{image.tobytes() for image in split.images} for split in (read.train, read.validation, read.test)]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (["Train", "Test"], "Test, Train are named as a split is and hold images but no class folders; expected train/CLASS"),
        (["trainA", "trainB", "testA", "testB"], "named as a split is"),
        (["ant", "bee", "test"], "test is named as a split is .* next to ant, bee; .*if they are classes, give them other"),
        (["ant", "bee", "unlabeled"], "unlabeled is named as a split is"),
        (["test/ant", "test/bee"], "test is by name not for training; expected"),
        (["ant", "bee", "test/ant", "test/bee"], "test is by name not for training, next to ant, bee"),
        (["train_1/ant", "train_1/bee", "train_2/ant", "train_2/bee"], "train_1 and train_2 are both train folders"),
        (["train/2019", "train/2020", "bus", "car"], "is train a split, or a class like bus, car next to it"),
        (["ant/train", "ant/test", "bee"], "ant holds a training split, .*bee does not"),
        (["fold1/ant", "fold1/bee", "fold2/ant", "fold2/bee"], "fold1, fold2 all hold the folders ant, bee; those look like"),
        (["cat/2019", "cat/2020"], r"only one class folder, cat; did you mean .*cat\?"),
    ],
)  # fmt: skip
def test_splits_are_no_classes(tmp_path, folders, words):
    make(tmp_path, *folders)
    refused(tmp_path, words)


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (["valid", "invalid"], ["invalid", "valid"]),
        (["train", "bus", "car"], ["bus", "car", "train"]),
        (["photos/train/ant", "photos/train/bee", "photos/test/ant", "photos/test/bee"], ["ant", "bee"]),
        (["seg_train/seg_train/ant", "seg_train/seg_train/bee", "seg_test/seg_test/bee"], ["ant", "bee"]),
        (["ant/train", "ant/test", "bee/train", "bee/test"], ["ant", "bee"]),
    ],
)
def test_classes_that_could_be_splits_and_splits_in_other_places(tmp_path, folders, classes):
    make(tmp_path, *folders)
    read = load(tmp_path)
    assert read.classes == classes
    if "test" in str(folders):
        assert len(read.test) == 3 * sum("test" in folder for folder in folders)


def test_what_lies_beside_is_named(tmp_path, capsys):
    make(tmp_path, "train/ant", "train/bee", "val/ant", "val/bee", "test", "extra", "seg_pred")
    photos(tmp_path / "train", 2)
    read = load(tmp_path)  # an unlabelled test folder: the labelled val judges
    assert len(read.train) == len(read.test) == 6
    said = capsys.readouterr().err
    assert f"{tmp_path}: no test images: its validation images are the test set" in said
    assert "test: not used: 3 images without class folders" in said and "not used: extra, next to" in said
    assert "seg_pred: not used: 3 images without class folders" in said
    assert "train: not used: 2 images next to the class folders, without a class" in said
    assert said.splitlines() == [f"numnet: {line}" for line in read.said]


def test_a_third_folder_inside_each_class_is_named(tmp_path, capsys):
    make(tmp_path, *(f"{name}/{split}" for name in ("ant", "bee") for split in ("train", "test", "pred")))
    read = load(tmp_path)
    assert len(read.train) == len(read.test) == 6
    assert "not used: ant/pred, bee/pred" in capsys.readouterr().err


def test_a_test_set_out_of_the_training_images_is_said(tmp_path, capsys):
    make(tmp_path, "train/ant", "train/bee", "test", count=5)
    read = load(tmp_path)
    assert len(read.train) == 8 and len(read.test) == 2
    said = capsys.readouterr().err
    assert "test: not used: 5 images without class folders" in said
    assert "no labelled images for testing: a fifth of each class's training images is the test set" in said


@pytest.mark.parametrize("turned", [False, True])
def test_validation_images_that_become_the_test_set_are_said(tmp_path, turned, capsys):
    pairs = [(split, name) for split in ("train", "val") for name in ("ant", "bee")]
    make(tmp_path, *("/".join(reversed(pair) if turned else pair) for pair in pairs))
    read, line = load(tmp_path), f"{tmp_path}: no test images: its validation images are the test set"
    assert len(read.test) == 6 and read.validation is None
    assert capsys.readouterr().err == f"numnet: {line}\n" and read.said == [line]


def test_classes_of_one_pattern_are_asked_about(tmp_path, capsys):
    make(tmp_path, *(f"{state}/{plant}" for state in ("healthy", "sick") for plant in ("apple", "corn")))
    assert load(tmp_path).classes == ["healthy", "sick"]
    assert (
        "healthy, sick all hold the folders apple, corn: healthy … are taken for the classes"
        in capsys.readouterr().err
    )


def test_a_test_folder_with_another_spelling(tmp_path):
    make(tmp_path, "train/honey_bee", "train/ant", "test/Honey Bee", "test/ANT")
    read = load(tmp_path)
    assert read.classes == ["ant", "honey_bee"] and read.test.labels.tolist() == [0] * 3 + [1] * 3
    assert any("ANT is ant, Honey Bee is honey_bee" in line for line in read.said)


# ----------------------------------------------------------------------------------------- what is left out


def test_files_that_are_not_read_are_counted(tmp_path, capsys):
    make(tmp_path, "ant", "bee", "cat", count=4)
    for i in range(8):
        (tmp_path / "ant" / f"x{i}.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (tmp_path / "bee" / "raw.nef").write_bytes(b"II*\0" + bytes(40))
    (tmp_path / "bee" / "3.png.bak").write_bytes((tmp_path / "bee" / "3.png").read_bytes())
    for name in ("notes.txt", "Thumbs.db", "README", "box.xml", ".DS_Store"):
        (tmp_path / "cat" / name).write_text("no image, and no loss")
    assert load(tmp_path).skipped == []
    assert capsys.readouterr().err.splitlines() == [
        f"numnet: {tmp_path}: 10 files left out, of kinds that are not read: 8 .heic, 1 .bak, 1 .nef; JPEG or PNG would be",
        "numnet: class ant loses 8 of its 12 files",
        "numnet: class bee loses 2 of its 6 files",
    ]


def test_images_with_other_endings_or_none_are_read(tmp_path, capsys):
    make(tmp_path, "ant", "bee", count=4)
    for i in range(3):
        os.rename(tmp_path / "ant" / f"{i}.png", tmp_path / "ant" / f"photo{i}")
    os.rename(tmp_path / "bee" / "0.png", tmp_path / "bee" / "0.jpg_large")
    Image.new("RGB", (9, 9), (200, 40, 40)).save(tmp_path / "bee" / "new.avif")
    read = load(tmp_path)
    assert len(read.train) + len(read.test) == 9 and capsys.readouterr().err == ""


def test_hidden_folders(tmp_path, capsys):
    make(tmp_path, "ant", "bee", count=5)
    for hidden in (".ipynb_checkpoints", ".Trash-1000/files", "@eaDir", "#recycle", "thumbnails"):
        photos(tmp_path / "ant" / hidden, 2)
    photos(tmp_path / "__MACOSX")
    Image.new("RGB", (9, 9)).save(tmp_path / "bee" / ".hidden.png")
    read = load(tmp_path)
    assert read.classes == ["ant", "bee"] and len(read.train) == 8 and len(read.test) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"numnet: {tmp_path}: 14 images in hidden folders or runs left out: 3 __MACOSX, ")
    assert "2 .Trash-1000" in line and line.count("\n") == 1


def a_run(folder, file="last.safetensors"):
    """What a training leaves behind, with a picture of its curves."""
    photos(folder, 1)
    (folder / "0.png").rename(folder / "curves.png")
    (folder / file).touch()


@pytest.mark.parametrize(
    "places",
    [["run"], ["runs/photos-1", "runs/photos-2"], ["runs/plan/a", "runs/b", "runs/.old/c"], ["ant/run"]],
    ids=" ".join,
)
@pytest.mark.parametrize("splits", [(".",), ("train", "test")])
def test_runs_among_the_photographs_are_no_class_and_hold_no_image(tmp_path, splits, places, capsys):
    """Training, its digest and what an evaluation judges by stay what they were."""
    make(tmp_path, *(f"{split}/{name}" for split in splits for name in ("ant", "bee")), count=6)
    before, trained = load(tmp_path), {"digest": load(tmp_path).digest}
    judges = data.load_for_evaluation(tmp_path, resolution=8, trained=trained)
    for place in places:
        a_run(tmp_path / splits[0] / place)
    capsys.readouterr()
    after = load(tmp_path)
    assert after.classes == ["ant", "bee"] and after.digest == before.digest and after.skipped == []
    for part in ("train", "test"):
        assert (getattr(after, part).images == getattr(before, part).images).all()
    again = data.load_for_evaluation(tmp_path, resolution=8, trained=trained)
    assert (again.classes, again.part) == (judges.classes, judges.part) == (["ant", "bee"], "test")
    assert (again.split.images == judges.split.images).all()
    assert "in hidden folders or runs left out: " in capsys.readouterr().err


@pytest.mark.parametrize("file", ["last.safetensors", "best.safetensors", "nets.jsonl"])
@pytest.mark.parametrize("first", [True, False])
def test_one_file_tells_a_run_wherever_it_stands_in_the_listing(tmp_path, file, first, monkeypatch):
    """Of a finished run that was tidied up only the best net is left, with the picture of its curves."""
    make(tmp_path, "ant", "bee", count=5)
    a_run(tmp_path / "run", file)
    scan = os.scandir

    @contextmanager
    def ordered(folder):
        with scan(folder) as entries:
            yield iter(sorted(entries, key=lambda entry: (entry.name == file) != first))

    monkeypatch.setattr(os, "scandir", ordered)
    assert files.subfolders(tmp_path) == ["ant", "bee"]
    monkeypatch.undo()
    assert load(tmp_path).classes == ["ant", "bee"]


@pytest.mark.parametrize("place", ["", "train", "train/ant"])
def test_a_net_beside_photographs_makes_them_no_run(tmp_path, place):
    """People keep a best.safetensors where they use it."""
    make(tmp_path, *(f"{split}/{name}" for split in ("train", "test") for name in ("ant", "bee")))
    (tmp_path / place / "best.safetensors").touch()
    read = load(tmp_path)
    assert read.classes == ["ant", "bee"] and len(read.train) == len(read.test) == 6


def test_a_deep_folder_without_images_is_opened_once_a_level(tmp_path, monkeypatch):
    """A class may hold a copy of a program with its libraries."""
    (tmp_path / "deep" / "/".join("abcdefghijkl")).mkdir(parents=True)
    opened, scan = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: opened.append(os.fspath(folder)) or scan(folder))
    assert not files.is_hidden(tmp_path / "deep")
    assert len(opened) <= 3 * 13


def test_a_listing_opens_a_class_folder_three_times(tmp_path, monkeypatch):
    """To see that it is no run, to look for folders in it, and for its images: folders may lie behind a network."""
    make(tmp_path, *(f"{split}/{k:02}" for split in ("train", "val") for k in range(20)), count=1)
    opened, scan = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: opened.append(os.fspath(folder)) or scan(folder))
    monkeypatch.setattr(os, "listdir", None)  # whoever calls it fails
    assert len(from_folders(tmp_path).classes) == 20
    assert len(opened) <= 3 * 40 + 20 and opened.count(str(tmp_path / "val" / "19")) == 3


def test_a_folder_around_photographs_is_found_though_a_run_lies_among_them(tmp_path):
    """It holds nothing but folders, of which one is a run, as a folder of runs does."""
    make(tmp_path, "photos/train/ant", "photos/train/bee", "photos/test/ant", "photos/test/bee")
    a_run(tmp_path / "photos" / "train" / "run")
    a_run(tmp_path / "photos" / "run")
    read = load(tmp_path)
    assert read.classes == ["ant", "bee"] and len(read.train) == len(read.test) == 6


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_a_link_out_of_the_folder_of_runs_ends(tmp_path):
    make(tmp_path, "ant", "bee", count=5)
    a_run(tmp_path / "runs" / "a")
    os.symlink("..", tmp_path / "runs" / "up")
    assert load(tmp_path).classes == ["ant", "bee"]


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_links_are_followed_once(tmp_path, capsys):
    root, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    make(root, "ant", "bee", count=5)
    photos(elsewhere, 4)
    os.symlink(elsewhere, root / "ant" / "more")
    os.symlink(elsewhere, root / "ant" / "more again")
    os.symlink(root, root / "ant" / "loop")  # would make ants of all bees
    os.symlink("..", root / "bee" / "up")
    os.symlink(root / "bee" / "0.png", root / "bee" / "copy.png")
    os.symlink(elsewhere, root / "cat")  # a class of its own
    read = load(root)
    assert np.bincount(np.concatenate([read.train.labels, read.test.labels])).tolist() == [9, 5, 4]
    assert "4 links to folders or images that are there already left out" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------- names


def test_names_match():
    known = ["ant", "Bee", "honey bee", "07", "Äpfel"]
    assert names.match(["bee", "ant", "cat"], known) == [1, 0, None]
    assert names.match(["Honey_Bee", "7", "A\u0308pfel", "ANT"], known) == [2, 3, 4, 0]
    assert names.match(["ant", "Ant"], ["ant", "bee"]) == [0, None], "no class is taken twice"
    assert names.match(["ANT", "Ant"], ["ant", "bee"]) == [None, None], "nor by chance"
    assert names.match(["bee"], ["Bee", "BEE"]) == [None]
    twice = ["crane", "dog", "crane"]
    assert names.match(twice, twice) == [0, 1, 2], "two classes of one name stay two"
    assert names.match(["crane", "dog"], twice) == [None, 1], "which of the two nobody knows"


# ----------------------------------------------------------------------------------------- holding images back


@pytest.mark.parametrize("count", [1, 6, 13, 40, 61])
def test_held_back_images_are_of_all_classes_alike(tmp_path, count):
    make(tmp_path / "train", "ant", count=60)
    make(tmp_path / "train", "bee", count=3)
    make(tmp_path / "test", "ant", "bee", count=1)
    for seed in range(6):
        read = load(tmp_path, validation=count, seed=seed)
        held, left = (np.bincount(split.labels, minlength=2) for split in (read.validation, read.train))
        assert held.sum() == count and (held + left).tolist() == [60, 3] and left.min() >= 1
        assert abs(held[1] - count * 3 / 63) <= 1
    if count == 61:
        with pytest.raises(
            NumnetError, match=r"62 images cannot be held back .* and leave one of each class"
        ):
            load(tmp_path, validation=62)
