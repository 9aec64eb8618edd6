"""Image folders and file lists, with everything that people's folders hold."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from numnet import data
from numnet.data.transforms import SCALINGS, resize_and_crop
from numnet.errors import NumnetError

CLASSES = {"ant": (200, 30, 30), "bee": (30, 200, 30), "cat": (30, 30, 200)}
rng = np.random.default_rng(0)


def photo(colour, height=40, width=60):
    """A picture of one colour with some noise: what class it is can be seen after any resizing."""
    noise = rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray((np.array(colour) + noise).astype(np.uint8))


def fill(folder, counts, names="{:02}.png"):
    """counts images a class; also the things that lie around in folders and are no images."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "Thumbs.db").write_text("no image")
        (folder / name / "._00.png").write_text("no image")
        for i in range(count):
            photo(CLASSES[name], 30 + i, 60 - i).save(folder / name / names.format(i))


def load(folder, **options):
    return data.load(folder, **{**dict(resolution=16), **options})


def right(split):
    """Every image has the colour of its label."""
    colours = np.array(list(CLASSES.values()))
    means = split.read(range(len(split))).mean(axis=(1, 2))
    return (np.abs(means[:, None] - colours).sum(axis=2).argmin(axis=1) == split.labels).all()


def test_train_and_test(tmp_path, capsys):
    fill(tmp_path / "train", dict(ant=4, bee=3, cat=2))
    fill(tmp_path / "test", dict(ant=1, cat=2))
    read = load(tmp_path)
    assert read.classes == ["ant", "bee", "cat"] and read.name == str(tmp_path) and read.skipped == []
    assert read.train.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2] and read.test.labels.tolist() == [
        0,
        2,
        2,
    ]
    assert read.train.images.shape == (9, 16, 16, 3) and right(read.train) and right(read.test)
    assert (read.mean, read.std) == SCALINGS["imagenet"] and read.validation is None
    first = Image.open(tmp_path / "train" / "ant" / "00.png")
    assert (read.train.images[0] == resize_and_crop(first, 16, "torchvision")).all()
    for preset in ("stretch", "keras"):
        assert (load(tmp_path, preset=preset).train.images[0] == resize_and_crop(first, 16, preset)).all()
    assert load(str(tmp_path), resolution=None).train.shape == (224, 224, 3)
    assert capsys.readouterr().err == ""


def test_a_validation_folder(tmp_path, capsys):
    fill(tmp_path / "train", dict(ant=4, bee=3))
    fill(tmp_path / "val", dict(ant=2, bee=1))
    read = load(tmp_path)
    assert read.validation is None and read.test.labels.tolist() == [0, 0, 1]
    fill(tmp_path / "test", dict(ant=1, bee=1))
    assert load(tmp_path).said == [] and capsys.readouterr().err.count("\n") == 1  # that of the lines above
    read = load(tmp_path, validation=5)  # its own wins
    assert read.validation.labels.tolist() == [0, 0, 1] and read.test.labels.tolist() == [0, 1]
    assert len(read.train) == 7
    wanted = f"numnet: {tmp_path}: has 3 validation images of its own: none is held back\n"
    assert capsys.readouterr().err == wanted
    assert load(tmp_path, validation="test").validation.labels.tolist() == [0, 1]
    assert capsys.readouterr().err == "", "asked for, and done"


def test_classes_alone(tmp_path):
    fill(tmp_path, dict(ant=20, bee=10, cat=2))
    (tmp_path / ".cache").mkdir()
    read, again = load(tmp_path), load(tmp_path, seed=5, validation=4)
    assert np.bincount(read.test.labels).tolist() == [4, 2, 1]
    assert np.bincount(read.train.labels).tolist() == [16, 8, 1] and right(read.train) and right(read.test)
    assert (again.test.images == read.test.images).all()  # or a net could be tested on what it was trained on
    everything = [image.tobytes() for split in (read.train, read.test) for image in split.images]
    assert len(set(everything)) == 32
    assert len(again.validation) == 4 and len(again.train) == 21


def test_folders_in_classes(tmp_path):
    fill(tmp_path / "train", dict(ant=1, bee=1))
    (tmp_path / "train" / "ant" / "more" / "deeper").mkdir(parents=True)
    photo(CLASSES["ant"]).save(tmp_path / "train" / "ant" / "more" / "deeper" / "x.JPEG")
    fill(tmp_path / "test", dict(bee=1))
    assert load(tmp_path).train.labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("classes", "outer", "inner"),
    [
        ("archive/photos/photos", "archive/photos", "archive/photos/photos"),
        ("archive/train", "archive", "archive/train"),
        ("archive/images/train", "archive", "archive/images"),
        ("archive/images/train", "archive/images", "archive/images/train"),
    ],
)
def test_a_folder_that_was_trained_on_is_recognised_one_level_in_and_one_level_out(
    tmp_path, classes, outer, inner, capsys
):
    """And no longer once a file in it has changed, been added, or been renamed."""
    fill(tmp_path / classes, dict(ant=6, bee=5))
    folders = [tmp_path / outer, tmp_path / inner]
    for one, other in (folders, folders[::-1]):
        read = load(one)
        trained = {"dataset": str(one), "digest": read.digest}
        found = data.load_for_evaluation(other, resolution=16, trained=trained)
        assert found.part == "test" and (found.split.images == read.test.images).all()
        said = f"{other}: the net was trained on this folder: judged by the 2 of its 11 images"
        assert said in capsys.readouterr().err
    ant = tmp_path / classes / "ant"
    for change in (
        lambda: photo((9, 9, 9)).save(ant / "02.png"),
        lambda: photo((9, 9, 9)).save(ant / "more.png"),
        lambda: (ant / "more.png").rename(ant / "more still.png"),
    ):
        trained = [{"digest": load(folder).digest} for folder in folders]
        change()
        for folder, known in zip(folders, trained[::-1]):
            found = data.load_for_evaluation(folder, resolution=16, trained=known)
            assert found.part == "all" and len(found.split) >= 11
    assert "was trained on" not in capsys.readouterr().err


@pytest.mark.parametrize("train", ["train", "images/train"])
@pytest.mark.parametrize("part", [None, "all", "train", "test"])
def test_training_images_alone_are_said_to_be_those_of_the_training(tmp_path, train, part, capsys):
    """Named by their own folder: they know nothing of the test images beside it. Also where all was moved."""
    home = tmp_path / "home"
    fill(home / train, dict(ant=6, bee=5))
    fill((home / train).parent / "test", dict(ant=1, bee=1))
    trained = {"dataset": str(home), "digest": load(home).digest}
    if train == "train":
        home = home.rename(tmp_path / "moved")
    said = f"{home / train}: the net was trained on all of these 11 images: to judge it name the folder of its test images"
    found = data.load_for_evaluation(home / train, resolution=16, part=part, trained=trained)
    assert found.part == (part or "all") and said in capsys.readouterr().err
    assert part or len(found.split) == 11
    for folder in (home, home / train / "../test"):
        data.load_for_evaluation(folder, resolution=16, trained=trained)
    photo((9, 9, 9)).save(home / train / "ant" / "more.png")
    data.load_for_evaluation(home / train, resolution=16, trained=trained)
    assert "was trained on" not in capsys.readouterr().err


def test_folders_without_an_image_and_lists_of_paths_of_two_kinds_were_not_trained_on(tmp_path, monkeypatch):
    """Neither has a folder that holds all of its files."""
    fill(tmp_path / "empty", dict(ant=0, bee=0))
    with pytest.raises(NumnetError, match="empty: no all images"):
        data.load_for_evaluation(tmp_path / "empty", resolution=16, trained={"digest": "of another"})
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "mixed", dict(ant=2, bee=2))
    lines = [f"{name}/0{i}.png {n}" for n, name in enumerate(("ant", "bee")) for i in range(2)]
    lines[1] = str(tmp_path / "mixed" / lines[1])
    (tmp_path / "mixed" / "train_list.txt").write_text("\n".join(lines))
    found = data.load_for_evaluation("mixed", resolution=16, trained={"digest": "of another"})
    assert found.part == "all" and right(found.split) and len(found.split) == 4


def test_a_folder_called_as_a_built_in_set_has_an_absolute_name(tmp_path, monkeypatch):
    """By its name a checkpoint's readers know how its photographs were resized."""
    fill(tmp_path / "shapes", dict(ant=3, bee=3))
    monkeypatch.chdir(tmp_path)
    for path in ("./shapes", "shapes/", Path("shapes")):
        read = load(path)
        assert read.name == str(Path("shapes").absolute()) and read.classes == ["ant", "bee"]
    (tmp_path / "shapes").rename("forms")
    assert load("./forms").name == "forms"


def write_lists(folder, names=None):
    fill(folder / "jpg", dict(ant=5, bee=5, cat=5), names="a photo {:02}.jpg")
    for part, numbers in (("train", range(3)), ("val", [3]), ("test", [4])):
        lines = [f"jpg/{c}/a photo {i:02}.jpg {label}" for label, c in enumerate(CLASSES) for i in numbers]
        (folder / f"{part}_list.txt").write_text("\r\n".join(lines) + "\r\n\r\n")
    if names is not None:
        (folder / "flowers_label_list.txt").write_text(names)


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (None, ["0", "1", "2"]),
        ("ant\nhoney bee\ncat\n", ["ant", "honey bee", "cat"]),
        ("0 ant\n1 honey bee\n2 cat\n3 dog\n", ["ant", "honey bee", "cat"]),
    ],
)
def test_lists(tmp_path, names, classes):
    write_lists(tmp_path, names)
    read = load(tmp_path)
    assert read.classes == classes
    assert np.bincount(read.train.labels).tolist() == [3, 3, 3]
    assert read.validation.labels.tolist() == read.test.labels.tolist() == [0, 1, 2]
    assert right(read.train) and right(read.validation) and right(read.test)
    (tmp_path / "test_list.txt").unlink()
    read = load(tmp_path)
    assert read.validation.labels.tolist() == [0, 1, 2] and read.test is None, "val_list is for validation"
    with pytest.raises(NumnetError, match="has no test images"):
        load(tmp_path, validation="test")
    (tmp_path / "val_list.txt").unlink()
    read = load(tmp_path)  # without either, a part of each class is the test set
    assert len(read.train) == 6 and read.test.labels.tolist() == [0, 1, 2]


def test_class_folders_with_a_list_of_test_images_alone(tmp_path):
    """Who trains on all would then be judged by images of the training."""
    fill(tmp_path, dict(ant=3, bee=3))
    (tmp_path / "test_list.txt").write_text("ant/02.png 0\nbee/02.png 1\n")
    said = r"test_list\.txt: lists test images, and no list those for training; expected train_list\.txt beside it"
    with pytest.raises(NumnetError, match=said):
        load(tmp_path)
    found = data.load_for_evaluation(tmp_path, resolution=16)
    assert found.part == "test" and found.split.labels.tolist() == [0, 1] and right(found.split)
    (tmp_path / "train_list.txt").write_text("ant/00.png 0\nbee/00.png 1\n")
    assert len(load(tmp_path).train) == len(load(tmp_path).test) == 2


def test_images_that_do_not_fit_in_memory(tmp_path):
    """The same batches, whether the images are kept or decoded when they are asked for."""
    fill(tmp_path, dict(ant=12, bee=9, cat=7))
    for spoilt in ("ant/03.png", "cat/05.png"):
        (tmp_path / spoilt).write_bytes((tmp_path / spoilt).read_bytes()[:300])
    kept, read = load(tmp_path, validation=4), load(tmp_path, validation=4, memory=28 * 16 * 16 * 3 - 1)
    assert kept.train.kept and not any(split.kept for split in (read.train, read.validation, read.test))
    assert load(tmp_path, memory=28 * 16 * 16 * 3).train.kept
    assert kept.skipped == read.skipped and len(kept.skipped) == 2
    options = dict(batch_size=4, scaling=kept.scaling, seed=3, augment={"crop": 2, "flip": True})
    for name in ("train", "validation", "test"):
        some, others = (list(data.batches(getattr(which, name), **options)) for which in (kept, read))
        assert len(some) == len(others) > 0
        for (x, labels), (y, others_labels) in zip(some, others):
            assert (x == y).all() and (labels == others_labels).all()
    gone = read.train.paths[7]
    gone.unlink()
    with pytest.raises(
        NumnetError, match=f"{gone.name}: No such file or directory, though it could be read before"
    ):
        list(data.batches(read.train, **options))


def test_damaged_images_are_named_skipped_and_counted(tmp_path, capsys, monkeypatch):
    fill(tmp_path / "train", dict(ant=4, bee=3))
    fill(tmp_path / "test", dict(ant=2, bee=1))
    cut, page, vast = (
        tmp_path / name for name in ("train/ant/01.png", "train/bee/02.png", "test/ant/00.png")
    )
    cut.write_bytes(cut.read_bytes()[:200])
    page.write_text("<html>")
    Image.new("RGB", (300, 300)).save(vast)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000)
    read = load(tmp_path)
    assert read.train.labels.tolist() == [0, 0, 0, 1, 1] and read.test.labels.tolist() == [0, 1]
    assert right(read.train) and right(read.test)
    assert [line.split(": ")[0] for line in read.skipped] == [str(cut), str(page), str(vast)]
    assert "damaged image" in read.skipped[0] and "not an image" in read.skipped[1]
    assert "more than 60,000 pixels" in read.skipped[2]
    wanted = [f"numnet: skipped {line}" for line in read.skipped]
    wanted += [
        f"numnet: class {name} loses {lost} files"
        for name, lost in (("ant", "2 of its 6"), ("bee", "1 of its 4"))
    ]
    assert capsys.readouterr().err.splitlines() == wanted


def test_many_damaged_images_do_not_fill_the_screen(tmp_path, capsys):
    fill(tmp_path, dict(ant=3, bee=3))
    for i in range(25):
        (tmp_path / "ant" / f"spoilt{i}.jpg").touch()
    assert len(load(tmp_path).skipped) == 25
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 12 and lines[-2] == "numnet: skipped 15 more images"
    assert lines[-1] == "numnet: class ant loses 25 of its 28 files"


def test_a_photo_is_seen_upright(tmp_path):
    fill(tmp_path, dict(ant=3, bee=3))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = photo(CLASSES["ant"], 40, 40)
    for name in ("00.png", "01.png", "02.png"):
        upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "ant" / name, exif=exif)
    read = load(tmp_path, preset="stretch")
    assert (read.train.images[0] == resize_and_crop(upright, 16, "stretch")).all()


# -------------------------------------------------------------------------------------------- what goes wrong


def empty(folder):
    pass


def images_only(folder):
    photo(CLASSES["ant"]).save(folder / "x.png")


def one_class(folder):
    fill(folder, dict(ant=3))


def empty_class(folder):
    fill(folder / "train", dict(ant=3, bee=0))
    fill(folder / "test", dict(ant=3))


def empty_test_class(folder):
    fill(folder / "train", dict(ant=3, bee=1))
    fill(folder / "test", dict(ant=3, bee=0))


def unreadable_class(folder):
    fill(folder, dict(ant=3, bee=3))
    for path in (folder / "bee").glob("*.png"):
        path.write_bytes(b"")


def foreign_class(folder):
    fill(folder / "train", dict(ant=3, bee=3))
    fill(folder / "test", dict(ant=3, cat=3))


def no_test_image(folder):
    fill(folder, dict(ant=1, bee=1))


def unreadable_test_set(folder):
    fill(folder / "train", dict(ant=1, bee=1))
    fill(folder / "test", dict(ant=1))
    (folder / "test" / "ant" / "00.png").write_bytes(b"")


def lists(name, content):
    def make(folder):
        write_lists(folder, names="ant\nbee\n")
        (folder / name).write_bytes(content)

    return make


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (empty, "no class folders; expected train/CLASS/"),
        (images_only, "no class folders; expected train/CLASS/"),
        (one_class, "only one class folder, ant; expected"),
        (empty_class, r"train/bee: no image of class bee, expected \.jpg, "),
        (empty_test_class, r"test/bee: no image of class bee"),
        (unreadable_class, r"class bee has no training image \(none of its images can be read\)"),
        (foreign_class, "test/cat: a class that .*train does not have"),
        (no_test_image, "no test image; expected at least two images a class, or a test set"),
        (unreadable_test_set, "no test image"),
        (lists("train_list.txt", b""), "train_list.txt: empty, expected a line an image"),
        (
            lists("train_list.txt", b"jpg/x.jpg 1\nfile\n"),
            "train_list.txt: line 2 is 'file', expected a path",
        ),
        (lists("train_list.txt", b"jpg/x.jpg cat\n"), "line 1 is 'jpg/x.jpg cat', expected"),
        (lists("test_list.txt", b"jpg/x.jpg -1\n"), "test_list.txt: line 1 is 'jpg/x.jpg -1'"),
        (lists("val_list.txt", b"\xff\xfe\x00"), "val_list.txt: cannot be read as text"),
        (lists("val_list.txt", b"jpg/x.jpg 3\n"), "flowers_label_list.txt: 2 names, expected 4"),
        (
            lists("train_list.txt", b"jpg/ant/a photo 00.jpg 0\n"),
            "flowers_label_list.txt: 2 names, expected 3",
        ),
        (lists("train_list.txt", b"no.jpg 0\nno.jpg 1\n"), "label_list.txt: 2 names, expected 3"),
    ],
)
def test_folders_that_hold_no_data_set(tmp_path, make, says):
    make(tmp_path)
    with pytest.raises(NumnetError, match=says) as excinfo:
        load(tmp_path)
    message = str(excinfo.value)
    assert message.startswith(str(tmp_path)) and "\n" not in message


def test_a_class_number_that_no_training_image_has(tmp_path):
    write_lists(tmp_path)
    (tmp_path / "train_list.txt").write_text("jpg/ant/a photo 00.jpg 0\njpg/cat/a photo 00.jpg 2\n")
    with pytest.raises(NumnetError, match="class 1 has no training image"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            dict(preset="centre"),
            "preset: expected one of torchvision, stretch, keras, or bicubic/0.9, got 'centre'",
        ),
        (dict(resolution=-3), "resolution: expected a number of pixels, got -3"),
        (dict(memory="a lot"), "memory: expected bytes"),
        (dict(validation=10), "validation: 10 images cannot be held back of the 4 training images"),
    ],
)
def test_wrong_options(tmp_path, wrong, says):
    fill(tmp_path, dict(ant=3, bee=3))
    with pytest.raises(NumnetError, match=says):
        load(tmp_path, **wrong)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(NumnetError, match="x: a file, expected an image folder"):
        load(tmp_path / "x")
    with pytest.raises(
        NumnetError, match="data set: expected cifar10, shapes or the path of an image folder"
    ):
        load(tmp_path / "nowhere")
