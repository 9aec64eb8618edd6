"""Labels go by the names of classes in eval, --init, --resume and export; and by which images a net is judged."""

import json
import shutil

import numpy as np
import pytest
from cli_tools import CLASSES, TINY, numnet, works, write_images
from PIL import Image

import numnet as library
from numnet import checkpoint, data
from numnet.data import image as images


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with ``photos`` (train and test), ``flat`` (classes alone), and finished runs ``run`` and ``flat run``."""
    folder = tmp_path_factory.mktemp("names")
    write_images(folder / "photos", train=16, test=4)
    for split, start in (("train", 0), ("test", 100)):
        for name in CLASSES:
            (folder / "flat" / name).mkdir(parents=True, exist_ok=True)
            for file in (folder / "photos" / split / name).iterdir():
                shutil.copy(file, folder / "flat" / name / f"{start + int(file.stem)}.png")
    options = [*TINY, "--epochs", 6, "--batch-size", 12, "--crop", 1, "--quiet"]
    works("train", folder / "photos", *options, "--out", folder / "run")
    works("train", folder / "flat", *options, "--validation", 9, "--out", folder / "flat run")
    return folder


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def judged(*arguments):
    return json.loads(works("eval", *arguments, "--json", "--per-class"))


def recalls(facts):
    return {row["label"]: row["accuracy"] for row in facts["per_class"]}


# ----------------------------------------------------------------------------------------- eval by name


def test_a_class_less_changes_nothing_for_the_others(here):
    whole = judged("run", "photos")
    shutil.copytree("photos/test", "without blue", ignore=shutil.ignore_patterns("blue"))
    less = judged("run", "without blue", "--split", "all")
    assert less["images"] == 8 and less["unknown"] == {} and less["matched_by"] == "name"
    assert recalls(less) == {**recalls(whole), "blue": None} and less["classes"] == list(CLASSES)
    assert less["confusion"][1:] == whole["confusion"][1:]


def test_another_spelling_and_another_order(here):
    whole = judged("run", "photos")
    for name, other in zip(CLASSES, ("Red".replace("Red", "zzz"), "GREEN", "Red")):
        shutil.copytree(here / "photos" / "test" / name, here / "spelt" / "test" / other)
    shutil.move(here / "spelt" / "test" / "zzz", here / "spelt" / "test" / "Blue")
    code, out, err = numnet("eval", "run", "spelt", "--json", "--per-class")
    assert code == 0 and "Blue is blue, GREEN is green, Red is red" in err
    assert json.loads(out)["confusion"] == whole["confusion"]


def test_classes_that_the_net_does_not_know_are_counted_apart(here):
    whole = judged("run", "photos")
    shutil.copytree("photos/test", "more/test")
    shutil.copytree("photos/test/red", "more/test/amber")
    more = judged("run", "more")
    assert more["unknown"] == {"amber": 4} and more["accuracy"] == whole["accuracy"] and more["images"] == 12
    assert (
        "more: 4 images are of classes that the net does not know, and not counted: amber 4"
        in numnet("eval", "run", "more", "--json")[2]
    )
    text = works("eval", "run", "more", "--per-class")
    assert "4 images of classes that the net does not know: amber 4" in text


def test_names_that_differ_altogether(here):
    write_images(here / "others", train=2, test=2, classes=("cat", "dog", "emu"))
    code, out, err = numnet("eval", "run", "others", "--json")
    assert code == 2 and out == "" and err.count("\n") == 1
    assert (
        "others has the classes cat, dog, emu, the net knows others (blue, green, red); expected the same names"
        in err
    )
    code, out, err = numnet("eval", "run", "others", "--json", "--by-position", "--per-class")
    facts = json.loads(out)
    assert code == 0 and facts["matched_by"] == "position" and facts["images"] == 6
    assert facts["classes"] == ["cat", "dog", "emu"] and err == ""


@pytest.mark.parametrize(
    ("first", "kept"), [(1, (0, 1, 2)), (1, (0, 1)), (1, (0, 2)), (0, (0, 1)), (0, (0, 2))]
)
def test_numbers_of_a_list_count_the_net_s_classes_from_where_they_begin(here, tmp_path, first, kept):
    """Whether from 0 or from 1, and though images of some classes are missing. What nobody can know is said."""
    whole = judged("run", "photos")
    lines = [f"{here}/photos/test/{CLASSES[n]}/{i}.png {n + first}" for n in kept for i in range(4)]
    (tmp_path / "test_list.txt").write_text("\n".join(lines))
    code, out, err = numnet("eval", "run", tmp_path, "--json", "--per-class")
    facts = json.loads(out)
    assert code == 0 and facts["matched_by"] == "number" and facts["images"] == 4 * len(kept)
    for n in range(3):
        assert facts["confusion"][n] == (whole["confusion"][n] if n in kept else [0, 0, 0])
    begin = ", from 1 on" if first else ""
    assert f"its classes are numbers{begin}: taken for those of the net's classes (blue, green, red)" in err
    assert ("if they begin at 0 and no image is of class 0" in err) == (first == 1 and 2 not in kept)


def test_numbers_of_a_list_are_the_numbers_of_the_net(here):
    (here / "listed").mkdir()
    lines = [f"../photos/test/{name}/{i}.png {n}" for n, name in enumerate(CLASSES) for i in range(4)]
    (here / "listed" / "test_list.txt").write_text("\n".join(lines))
    facts = judged("run", "listed")
    assert facts["matched_by"] == "number" and facts["confusion"] == judged("run", "photos")["confusion"]


def test_a_net_without_names(here):
    net = library.load("run")
    net.save("nameless.safetensors", classes=None)
    code, out, err = numnet("eval", "nameless.safetensors", "photos", "--json")
    assert code == 0 and json.loads(out)["matched_by"] == "position"
    assert "the net's classes have no names: those of photos are taken by position" in err
    shutil.copytree("photos/test", "two/test", ignore=shutil.ignore_patterns("blue"))
    code, _, err = numnet("eval", "nameless.safetensors", "two", "--json")
    assert (
        code == 2 and "the net has 3 classes without names, two has 2; which is which? --by-position" in err
    )


# ----------------------------------------------------------------------------------------- eval: which images


@pytest.fixture
def decoded(monkeypatch):
    """The files that are decoded, as they are."""
    seen, decode = [], images.decode
    monkeypatch.setattr(images, "decode", lambda path, *rest: seen.append(str(path)) or decode(path, *rest))
    return seen


def test_eval_reads_no_training_image(here, decoded):
    assert judged("run", "photos")["images"] == 12
    assert len(decoded) == 12 and all("/test/" in path for path in decoded)


def test_a_folder_that_is_all_test_is_used_whole(here):
    shutil.copytree("photos/test", "all test")
    code, out, err = numnet("eval", "run", "all test", "--json")
    assert code == 0 and json.loads(out)["images"] == 12 and json.loads(out)["split"] == "all"
    assert err == "numnet: all test: no splits in it: all 12 images are used\n"


def test_splits_without_training_images(here):
    shutil.copytree("photos/test", "tests/Testing/Images")
    assert judged("run", "tests")["images"] == 12
    shutil.copytree("photos/test", "validations/val")
    _, out, err = numnet("eval", "run", "validations", "--json")
    assert (
        json.loads(out)["split"] == "validation"
        and "its validation images, which may have chosen the net" in err
    )


def test_the_folder_that_was_trained_on(here, decoded):
    """Only what the training left out, wherever the folder lies now; after a change with a word."""
    left_out = json.loads((here / "flat run" / "result.json").read_text())["test_loss"]
    for name in ("flat", "moved"):
        if name == "moved":
            shutil.copytree("flat", "moved")
        del decoded[:]
        _, out, err = numnet("eval", "flat run", name, "--json")
        facts = json.loads(out)
        assert facts["images"] == len(decoded) == 12 and facts["split"] == "test"
        assert facts["loss"] == pytest.approx(left_out, rel=1e-6)
        assert f"{name}: the net was trained on this folder: judged by the 12 of its 60 images" in err
    assert judged("flat run", "flat", "--split", "all")["images"] == 60
    assert judged("flat run", "flat", "--split", "train")["images"] == 48
    Image.new("RGB", (9, 9)).save("flat/red/more.png")
    try:
        assert "flat: has changed since the training" in numnet("eval", "flat run", "flat")[2]
    finally:
        (here / "flat" / "red" / "more.png").unlink()


# ----------------------------------------------------------------------------------------- scores


def test_a_small_class_that_is_never_right_is_named(here):
    shutil.copytree("photos/test", "uneven/test", ignore=shutil.ignore_patterns("[1-9].png"))
    for i in range(30):
        shutil.copy("photos/test/red/0.png", f"uneven/test/red/x{i}.png")
    facts = judged("run", "uneven")
    matrix = np.array(facts["confusion"])
    right, taken = np.diag(matrix), matrix.sum(axis=0)
    recall, precision = right / matrix.sum(axis=1), right / np.maximum(taken, 1)
    f1 = 2 * precision * recall / np.where(precision + recall, precision + recall, 1)
    for key, wanted in (("accuracy", recall), ("precision", precision), ("f1", f1)):
        assert [row[key] for row in facts["per_class"]] == pytest.approx(wanted.tolist())
    for key, wanted in (("recall", recall), ("precision", precision), ("f1", f1)):
        assert facts["macro"][key] == pytest.approx(wanted.mean())
    assert (
        facts["worst"]["accuracy"] == recall.min()
        and facts["worst"]["images"] == matrix[facts["worst"]["class"]].sum()
    )
    text = works("eval", "run", "uneven")
    worst = facts["worst"]
    assert (
        f"worst class          {worst['label']}: {100 * worst['accuracy']:.1f} % of {worst['images']} images"
        in text
    )


# ----------------------------------------------------------------------------------------- export, init, resume


@pytest.mark.parametrize("layout", ["timm", "numnet"])
def test_names_survive_export_and_import(here, layout):
    works("export", "run", "out.safetensors", "--layout", layout)
    if layout == "timm":
        works("import", "out.safetensors", "-o", "in.safetensors")
    else:
        shutil.copy("out.safetensors", "in.safetensors")
    assert library.load("in.safetensors").class_names == list(CLASSES)
    assert judged("in.safetensors", "photos")["confusion"] == judged("run", "photos")["confusion"]


def test_only_the_best_net_is_exported_with_its_result(here):
    for name in ("best", "last"):
        works("export", f"run/{name}.safetensors", "out.safetensors", "--layout", "numnet")
        assert ("result" in checkpoint.read_meta("out.safetensors")) == (name == "best")


def test_a_fit_is_judged_by_what_it_left_out(here):
    """numnet.fit knows its images as `numnet train` does: their digest, and how they were resized."""
    read = data.load("flat", resolution=16, preset="stretch", validation=0, seed=0)
    net = library.build("mobilenet_v1", width=0.25, resolution=16, strides="cifar", classes=3)
    options = {"epochs": 1, "batch_size": 12, "augment": None, "progress": False}
    library.fit(net, read, out="fitted", **options)
    document = checkpoint.read_meta("fitted/best.safetensors")
    assert document["digest"] == read.digest and document["preset"] == "stretch"
    facts = judged("fitted", "flat")
    assert facts["images"] == len(read.test)


def test_a_start_takes_outputs_over_by_name(here):
    """A class less, one more, another order: what the net knows stays with its name."""
    names = ("amber", "Red", "blue")
    for split in ("train", "test"):
        for name, source in zip(names, ("green", "red", "blue")):
            shutil.copytree(here / "photos" / split / source, here / "tuned" / split / name)
    options = ["--epochs", 1, "--lr", 1e-9, "--ema", "none", "--weight-decay", 0, "--quiet"]
    code, _, err = numnet("train", "tuned", "--init", "run", *options, "--out", "tuned run")
    assert code == 0 and "--init run/best.safetensors: knows 2 of the 3 classes; new outputs for amber" in err
    net, start = library.load("tuned run"), library.load("run")
    assert net.class_names == ["Red", "amber", "blue"]
    weight, theirs = net.params["logits.weight"], start.params["logits.weight"]
    for mine, other in ((0, 2), (2, 0)):
        assert np.allclose(weight[:, mine], theirs[:, other], atol=1e-5)
    assert not any(np.allclose(weight[:, 1], theirs[:, i], atol=1e-2) for i in range(3))


def test_resume_refuses_other_classes_and_other_images(here):
    shutil.copytree("photos", "changing")
    options = [*TINY, "--epochs", 2, "--batch-size", 12, "--quiet", "--out", "changing run"]
    works("train", "changing", *options)
    (here / "changing run" / "result.json").unlink()

    def refused(words):
        code, _, err = numnet("train", "--resume", "changing run", "--quiet")
        assert code == 2 and words in err and err.splitlines()[-1].startswith("numnet: error: "), err

    shutil.move("changing/train/red", "changing/train/rose")
    shutil.move("changing/test/red", "changing/test/rose")
    refused("with other classes than changing has: red missing now and rose new; expected blue, green, red"
            .replace("than changing", f"than {here / 'changing'}"))  # fmt: skip
    shutil.move("changing/train/rose", "changing/train/red")
    shutil.move("changing/test/rose", "changing/test/red")
    shutil.copy("changing/train/red/0.png", "changing/train/red/1.png")
    shutil.move("changing/train/red/2.png", "changing/train/red/two.png")
    refused("are not those that this run was started with")
    assert checkpoint.read_meta("changing run/last.safetensors")["digest"]
