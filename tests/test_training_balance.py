"""Small classes and early ends: class weights, balanced sampling, patience, the table of the curves."""

import csv
import json

import numpy as np
import pytest
import training_fakes as fakes

import numnet
from numnet import data as datasets
from numnet.data.split import ArraySplit, Dataset
from numnet.errors import NumnetError
from numnet.training import scoring
from numnet.training.loop import Run

SCALING = {"mean": [0.5] * 3, "std": [0.25] * 3}
SIZES = (40, 7, 3)


def uneven():
    """50 images of three classes; the first byte of each is its number."""
    images = np.random.default_rng(0).integers(0, 255, (sum(SIZES), 4, 4, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(len(images))
    return ArraySplit(images, np.repeat(np.arange(3), SIZES))


def epoch(number=0, **options):
    """(first bytes, labels) of all images of an epoch, in their order."""
    split = uneven()
    options = {
        "batch_size": 8,
        "scaling": SCALING,
        "seed": 3,
        "epoch": number,
        "sampling": "balanced",
        **options,
    }
    batches = list(datasets.batches(split, **options))
    x, labels = (np.concatenate(part) for part in zip(*batches))
    return np.rint((x[:, 0, 0, 0] * 0.25 + 0.5) * 255).astype(int), labels


# ----------------------------------------------------------------------------------------- balanced sampling


def test_every_class_as_often():
    before = None
    for number in range(4):
        images, labels = epoch(number)
        assert len(images) == 50 and sorted(np.bincount(labels)) == [16, 17, 17]
        assert (np.repeat(np.arange(3), SIZES)[images] == labels).all(), "each with its own label"
        counts = np.bincount(images, minlength=50)
        for label, (lo, hi) in enumerate(((0, 40), (40, 47), (47, 50))):
            count = (labels == label).sum()
            assert counts[lo:hi].min() == count // (hi - lo) and counts[lo:hi].max() <= -(-count // (hi - lo))
        assert before is None or (counts[:40] != before[:40]).any(), "another part of the large class"
        before = counts
    seen = np.concatenate([epoch(number)[0] for number in range(12)])
    assert len(np.unique(seen)) == 50


def test_balanced_batches_depend_on_their_number_alone():
    whole, later = epoch(2), epoch(2, start=3)
    assert (whole[0][24:] == later[0]).all() and (whole[1][24:] == later[1]).all()
    mine = epoch(2, take=lambda number, images: slice(0, images, 2))
    assert (np.concatenate([whole[0][i : i + 8 : 2] for i in range(0, 50, 8)]) == mine[0]).all()


def test_an_image_that_is_there_again_is_augmented_anew():
    split = uneven()
    options = dict(
        batch_size=50, scaling=SCALING, seed=1, sampling="balanced", augment={"crop": 1, "flip": True}
    )
    x, labels = next(datasets.batches(split, **options))
    small = x[labels == 2]
    assert len(small) >= 16 and len({image.tobytes() for image in small}) > 9, (
        "three images, each five times or more"
    )
    with pytest.raises(NumnetError, match="sampling: expected one of shuffled, balanced, got 'fair'"):
        datasets.batches(split, **{**options, "sampling": "fair"})


# ----------------------------------------------------------------------------------------- class weights


def training(weights, labels, classes=3, **settings):
    images = np.random.default_rng(1).integers(0, 255, (len(labels), 8, 8, 3), dtype=np.uint8)
    data = Dataset(
        "toy", ["ant", "bee", "cat"][:classes], ArraySplit(images, labels), None, (0.5,) * 3, (0.3,) * 3
    )
    net = fakes.make_net()
    return Run(net, data, {"epochs": 1, "class_weights": weights, **settings}, progress=False)


def test_weights_have_the_mean_one_over_the_images():
    labels = np.repeat(np.arange(3), SIZES)
    run = training("balanced", labels)
    assert (run.loss.weights[:3] * SIZES).tolist() == pytest.approx([50 / 3] * 3)
    run = training({"cat": 5, "bee": 0.5}, labels)
    weights = run.loss.weights[:3]
    assert (weights / weights[0]).tolist() == pytest.approx([1, 0.5, 5]) and weights[
        labels
    ].mean() == pytest.approx(1)


def test_the_weighted_loss_and_its_gradient():
    """Against the definition: w[label]·loss of each image, divided by their number; finite differences."""
    labels = np.repeat(np.arange(3), SIZES)
    run = training("balanced", labels, label_smoothing=0.1)
    rng = np.random.default_rng(2)
    logits, some = rng.normal(size=(9, run.net.classes)), rng.integers(0, 3, 9)

    def loss(z):
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        target = np.full_like(z, 0.1 / z.shape[1])
        target[np.arange(9), some] += 0.9
        return (run.loss.weights[some] * -(target * log_p).sum(axis=1)).mean()

    got, dlogits = run.loss.mean(logits, some)
    assert got == pytest.approx(loss(logits), rel=1e-12)
    for n, f in ((0, 0), (3, some[3]), (8, 1)):
        step = np.zeros_like(logits)
        step[n, f] = 1e-5
        assert dlogits[n, f] == pytest.approx(
            (loss(logits + step) - loss(logits - step)) / 2e-5, rel=1e-6, abs=1e-10
        )
    plain = training(None, labels, label_smoothing=0.1)
    same = training({"ant": 2, "bee": 2, "cat": 2}, labels, label_smoothing=0.1)
    assert same.loss.mean(logits, some)[0] == pytest.approx(plain.loss.mean(logits, some)[0], rel=1e-12)


def test_weights_of_classes_whose_names_are_numbers():
    """Images in arrays have whatever names their owner gave them."""
    data = training(None, [0, 1, 1, 2]).data
    data.classes = [0, 1, 2]
    by_number, by_text = (
        Run(fakes.make_net(), data, {"epochs": 1, "class_weights": weights}, progress=False).loss.weights
        for weights in ({0: 2, 2: 3}, {"0": 2, "2": 3})
    )
    assert by_number.tolist() == by_text.tolist() and by_number[0] == 2 * by_number[1]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (dict(class_weights={"dog": 2}), "class_weights: toy has no class 'dog'; it has ant, bee, cat"),
        (
            dict(class_weights="balanced", sampling="balanced"),
            "each makes up for small classes; expected one of them",
        ),
        (dict(class_weights={"ant": 0}), 'class_weights is .*; expected "balanced", or a number above 0'),
        (dict(class_weights="heavy"), 'class_weights is "heavy"; expected "balanced"'),
        (dict(sampling="fair"), 'sampling is "fair"; expected one of shuffled, balanced'),
        (dict(patience=2), "patience: toy has no validation images .*; --validation N holds some back"),
        (dict(patience=0), "patience is 0; expected an integer ≥ 1 or null"),
    ],
)
def test_settings_that_make_no_sense(settings, says):
    weights = settings.pop("class_weights", None)
    with pytest.raises(NumnetError, match=says):
        training(weights, np.repeat(np.arange(3), SIZES), **settings)


# ----------------------------------------------------------------------------------------- patience


@pytest.fixture
def scripted(monkeypatch):
    """A function that makes a run whose validation says what a list says."""

    def make(accuracies, out=None, **settings):
        def validation(run):
            accuracy = accuracies[run.epoch]
            return {"validation_loss": 1 - accuracy, "validation_accuracy": accuracy}

        monkeypatch.setattr(scoring, "validation", validation)
        settings = {"epochs": len(accuracies), **settings}
        return Run(fakes.make_net(), fakes.make_data(), settings, out=out, progress=False)

    return make


@pytest.mark.parametrize(
    ("accuracies", "patience", "epochs"),
    [
        ([0.1, 0.3, 0.3, 0.2, 0.9, 0.9], 2, 4),  # epoch 2, then two that are no better
        ([0.1, 0.3, 0.3, 0.2, 0.9, 0.9], 3, 6),
        ([0.5, 0.4, 0.4, 0.4], None, 4),
        ([0.5, 0.4], 5, 2),
    ],
)
def test_patience(scripted, tmp_path, accuracies, patience, epochs):
    run = scripted(accuracies, tmp_path / "run", patience=patience)
    run.train()
    assert len(run.history) == epochs and run.result["epochs"] == epochs
    assert run.result["stopped_early"] == (epochs < len(accuracies))
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines()))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [int(row["epoch"]) for row in rows] == list(range(1, epochs + 1)) and set(rows[0]) == set(lines[0])
    assert [float(row["validation_accuracy"]) for row in rows] == accuracies[:epochs]


def test_patience_that_ran_out_is_remembered(scripted, tmp_path):
    """Killed between its last epoch and its result, a run does not train on."""
    accuracies = [0.1, 0.3, 0.3, 0.2, 0.9, 0.9]
    scripted(accuracies, tmp_path / "run", patience=2).train()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    (tmp_path / "run" / "result.json").unlink()
    again = scripted(accuracies, tmp_path / "run", patience=2)
    again.train(resume=True)
    assert len(again.history) == 4 and again.result["test_accuracy"] == result["test_accuracy"]


def test_fit_says_that_outputs_go_by_position(capsys):
    net = fakes.make_net()
    net.class_names = ["a", "b", "c", "d"]
    numnet.fit(net, fakes.make_data(), epochs=1, progress=False)
    assert capsys.readouterr().err == ""
    net.class_names = ["b", "a", "c", "d"]
    numnet.fit(net, fakes.make_data(), epochs=1, progress=False)
    said = "the net was trained on b, a, c, d, quarters has a, b, c, d: its outputs are taken by position"
    assert said in capsys.readouterr().err


def test_fit_says_that_images_were_scaled_otherwise(capsys):
    net, data = fakes.make_net(), fakes.make_data()
    net.scaling = data.scaling
    numnet.fit(net, data, epochs=1, progress=False)
    assert capsys.readouterr().err == ""
    net.scaling = {"mean": [0.5] * 3, "std": [0.5] * 3}
    numnet.fit(net, data, epochs=1, progress=False)
    assert "the net was trained on images scaled otherwise than these" in capsys.readouterr().err
    numnet.fit(net, data, epochs=1, progress=False)
    assert capsys.readouterr().err == "", "by now it was trained on these"


def test_fit_takes_them_all(tmp_path):
    data = fakes.make_data()
    history = numnet.fit(
        fakes.make_net(), data, epochs=2, class_weights="balanced", patience=5, progress=False
    )
    assert len(history) == 2
    assert len(numnet.fit(fakes.make_net(), data, epochs=1, sampling="balanced", progress=False)) == 1
