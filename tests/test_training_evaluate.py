"""Evaluation against definitions written out plainly, and the figures."""

import json

import numpy as np
import pytest
import training_fakes as fakes

from numnet import plotting
from numnet.data.split import ArraySplit
from numnet.errors import NumnetError
from numnet.training.evaluate import evaluate, views_of

SCALING = {"mean": [0.4] * 3, "std": [0.25] * 3}


class Fixed:
    """A net whose logits are given: a row for each image, found by the image's first byte."""

    def __init__(self, logits, mirrored=None):
        self.logits, self.mirrored = np.asarray(logits, np.float64), mirrored
        self.classes, self.dtype = self.logits.shape[1], np.dtype("float64")
        self.input_shape = (32, 32, 3)

    def predict(self, x):
        left, right = (np.rint(255 * (x[:, 0, k, 0] * 0.25 + 0.4)).astype(int) for k in (0, -1))
        if self.mirrored is not None and right.any():  # the marks are on the other side
            return np.asarray(self.mirrored, np.float64)[right]
        return self.logits[left]


def images(count):
    x = np.zeros((count, 2, 2, 3), np.uint8)
    x[:, :, 0] = np.arange(count)[:, None, None]
    return x


def test_against_the_definition():
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(50, 8)), rng.integers(0, 7, 50)  # class 7 has no image
    result = evaluate(Fixed(logits), ArraySplit(images(50), labels), SCALING, batch_size=7)
    order = np.argsort(-logits, axis=1)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    confusion = np.zeros((8, 8), int)
    for label, best in zip(labels, order[:, 0]):
        confusion[label, best] += 1
    assert result["images"] == 50 and result["accuracy"] == (order[:, 0] == labels).mean()
    assert result["top5"] == np.mean([label in row[:5] for label, row in zip(labels, order)])
    assert result["loss"] == pytest.approx(-np.log(p[np.arange(50), labels]).mean(), rel=1e-12)
    assert result["confusion"] == confusion.tolist()
    assert result["per_class"][:7] == [confusion[c, c] / (labels == c).sum() for c in range(7)]
    assert result["per_class"][7] is None
    assert json.loads(json.dumps(result)) == result


def test_ties_rank_by_class():
    logits = np.zeros((8, 8))
    result = evaluate(Fixed(logits), ArraySplit(images(8), np.arange(8)), SCALING)
    assert result["accuracy"] == 1 / 8 and result["top5"] == 5 / 8


def test_few_classes_have_a_top5_of_one():
    assert evaluate(Fixed(np.eye(4)), ArraySplit(images(4), np.array([1, 2, 3, 0])), SCALING)["top5"] == 1.0


def test_views_are_reported_apart():
    """The mean of the probabilities of an image and of its mirror image."""
    rng = np.random.default_rng(4)
    logits, mirrored, labels = rng.normal(size=(20, 6)), 3 * rng.normal(size=(20, 6)), rng.integers(0, 6, 20)
    logits[0] = mirrored[0]  # image 0 is its own mirror image
    net, split = Fixed(logits, mirrored), ArraySplit(images(20), labels)
    plain, both = evaluate(net, split, SCALING), evaluate(net, split, SCALING, views=2)

    def softmax(z):
        return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)

    p = (softmax(logits) + softmax(mirrored)) / 2
    assert both["views"]["accuracy"] == (p.argmax(axis=1) == labels).mean()
    assert both["views"]["loss"] == pytest.approx(-np.log(p[np.arange(20), labels]).mean(), rel=1e-9)
    assert both["views"]["views"] == 2
    del both["views"]
    assert both == plain and plain["accuracy"] != (p.argmax(axis=1) == labels).mean()


def test_six_views():
    """Mirror images of the image where it is, one pixel up and left, one down and right; reflected at the border."""
    x = np.random.default_rng(5).normal(size=(4, 5, 7, 3))
    reflected = [1, 0, 1, 2, 3, 4, 3], [1, 0, 1, 2, 3, 4, 5, 6, 5]
    wanted = []
    for move in (0, -1, 1):  # down and to the right
        rows = [reflected[0][1 + i - move] for i in range(5)]
        columns = [reflected[1][1 + j - move] for j in range(7)]
        wanted += [x[:, rows][:, :, columns], x[:, rows][:, :, columns[::-1]]]
    found = views_of(x, 6)
    assert len(found) == 6 and all(np.array_equal(a, b) for a, b in zip(found, wanted))
    assert [np.array_equal(a, b) for a, b in zip(views_of(x, 2), wanted)] == [True, True]
    assert all(view.flags.c_contiguous for view in found)


def test_probabilities_of_six_views_are_averaged():
    net, split = fakes.make_net(), fakes.make_data().test
    result = evaluate(net, split, SCALING, views=6)
    x = (split.images / 255 - np.array(SCALING["mean"])) / np.array(SCALING["std"])
    logits = np.array([net.predict(view.astype(np.float32)) for view in views_of(x, 6)], np.float64)
    p = (np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)).mean(axis=0)
    right = p[np.arange(len(p)), split.labels]
    assert result["views"]["accuracy"] == (p.argmax(axis=1) == split.labels).mean()
    assert result["views"]["loss"] == pytest.approx(-np.log(right).mean(), rel=1e-5)
    assert abs(result["views"]["loss"] - result["loss"]) > 1e-6


def test_the_batch_size_changes_nothing_but_rounding():
    net, split = fakes.make_net(), fakes.make_data().test
    a, b = (evaluate(net, split, SCALING, batch_size=size) for size in (7, 80))
    assert a["confusion"] == b["confusion"] and a["loss"] == pytest.approx(b["loss"], rel=1e-6)


def test_errors():
    for views in (3, True, "2"):
        with pytest.raises(NumnetError, match=f"views: expected one of 1, 2, 6, got {views!r}"):
            evaluate(Fixed(np.eye(3)), ArraySplit(images(1), [0]), SCALING, views=views)
    with pytest.raises(NumnetError, match="no images to evaluate"):
        evaluate(Fixed(np.eye(3)), ArraySplit(images(0), []), SCALING)
    with pytest.raises(NumnetError, match="the images have 4 classes, the net has 3 output classes"):
        evaluate(Fixed(np.eye(3)), ArraySplit(images(1), [3]), SCALING)


# ------------------------------------------------------------------------------------------- figures

HISTORY = [
    {
        "epoch": e, "train_loss": 2 / e, "train_accuracy": 1 - 0.5 / e, "validation_loss": 2.1 / e,
        "validation_accuracy": 1 - 0.6 / e,
    }
    for e in range(1, 6)
]  # fmt: skip


def png(path):
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


def test_learning_curves(tmp_path):
    figure = plotting.learning_curves(HISTORY, tmp_path / "a.png")
    loss, accuracy = figure.axes
    assert png(tmp_path / "a.png")
    assert loss.get_xlabel() == "epoch" and loss.get_ylabel() and accuracy.get_ylabel() == "accuracy (%)"
    assert [line.get_label() for line in accuracy.lines] == ["training", "validation"]
    np.testing.assert_allclose(
        accuracy.lines[1].get_ydata(), [100 * r["validation_accuracy"] for r in HISTORY]
    )
    styles = {(line.get_linestyle(), line.get_marker()) for line in accuracy.lines}
    assert len(styles) == 2  # told apart without colour


def test_learning_curves_of_a_run_directory(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in HISTORY[:1]))
    plotting.learning_curves(tmp_path, tmp_path / "a.png")
    assert png(tmp_path / "a.png")
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(NumnetError, match="no epoch is finished yet"):
        plotting.learning_curves(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("oops")
    with pytest.raises(NumnetError, match=r"metrics\.jsonl: no metrics"):
        plotting.learning_curves(tmp_path)
    with pytest.raises(NumnetError, match="cannot be read"):
        plotting.learning_curves(tmp_path / "none")


def test_confusion(tmp_path):
    figure = plotting.confusion([[8, 2], [0, 5]], ["cat", "dog"], tmp_path / "c.png")
    axes = figure.axes[0]
    assert png(tmp_path / "c.png") and {text.get_text() for text in axes.texts} == {"8", "2", "5"}
    assert axes.get_ylabel() == "true class" and axes.get_xlabel() == "predicted class"
    assert "15 images, accuracy 86.67 %" in axes.get_title()
    plotting.confusion(np.eye(100, dtype=int), [str(i) for i in range(100)], tmp_path / "big.png")
    plotting.confusion(np.zeros((3, 3), int), "abc", tmp_path / "empty.png")
    with pytest.raises(NumnetError, match="does not fit 3 class names"):
        plotting.confusion(np.eye(2), "abc")


def test_sweep_figure(tmp_path):
    row = {
        "name": "a",
        "macs": 1e6,
        "params": 1e5,
        "test_accuracy": 0.8,
        "deviation": None,
        "train_seconds": 60,
    }
    figure = plotting.sweep([row, {**row, "name": "b", "deviation": 0.01}], tmp_path / "s.png")
    assert png(tmp_path / "s.png")
    assert len(figure.axes) == 1  # both cost the same: by name only
    grouped = [
        {**row, "group": "one", "accuracies": [0.79, 0.81], "deviation": 0.014, "microseconds": 90.0},
        {**row, "name": "b", "group": "one", "macs": 9e6, "microseconds": 400.0, "train_seconds": 70},
    ]
    by_name, macs, time = plotting.sweep(grouped).axes
    bars = [bar for bar in macs.collections[0].get_paths() if np.isfinite(bar.vertices).all()]
    assert len(bars) == 1  # a run of one seed has none
    assert [label.get_text() for label in by_name.get_yticklabels()] == ["a", "b"]
    assert macs.get_xscale() == "log" and "µs" in time.get_xlabel() and "multiply-acc" in macs.get_xlabel()
    minutes = [{**row, "train_seconds": seconds} for seconds in (60, 90)]
    assert plotting.sweep(minutes).axes[1].get_xlabel() == "minutes of training"
    assert len(plotting.sweep(minutes, minutes=False).axes) == 1
    with pytest.raises(NumnetError, match="no run of the sweep"):
        plotting.sweep([{**row, "test_accuracy": None}])
    with pytest.raises(NumnetError, match=r"cannot write the figure .*\.xyz"):
        plotting.sweep([row], tmp_path / "s.xyz")
    with pytest.raises(NumnetError, match="cannot write the figure"):
        plotting.sweep([row], tmp_path / "no" / "s.png")


def test_names_in_a_sweep_figure_lie_on_nothing():
    """Lines that rise, fall and cross: no name lies on a line, an error bar, another name or the frame."""
    up, down = ((1, 40), (3, 52), (5, 55)), ((1.5, 55), (4, 44), (9, 30))
    rows = [
        {"name": f"{group}-{macs}", "group": group, "macs": macs * 1e6, "test_accuracy": percent / 100,
         "deviation": 0.02, "train_seconds": 60}
        for group, points in (("up", up), ("down", down)) for macs, percent in points
    ]  # fmt: skip
    figure = plotting.sweep(rows)
    figure.draw_without_rendering()
    axes = figure.axes[1]
    boxes, legend = [text.get_window_extent() for text in axes.texts], axes.get_legend().get_window_extent()
    strokes = [line.get_path() for line in axes.lines if line.get_linestyle() != "None"]
    strokes += [bar for bars in axes.collections for bar in bars.get_paths()]
    strokes = [axes.transData.transform_path(stroke) for stroke in strokes]
    assert len(boxes) == len(rows) and len(strokes) == 2 + len(rows)
    for number, box in enumerate(boxes):
        assert not any(stroke.intersects_bbox(box, filled=False) for stroke in strokes), rows[number]
        assert not box.count_overlaps([*boxes[:number], legend])
        assert axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1)
