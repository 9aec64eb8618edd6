"""Whitening filters: eigenvectors against NumPy's, whitened patches, and a stem that no step changes."""

import json

import numpy as np
import pytest

import numnet
from numnet.data import shapes
from numnet.data.split import ArraySplit
from numnet.errors import NumnetError
from numnet.training import recipes, run, whitening
from numnet.training.loop import fit

SCALING = {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.3]}
TINY = {"model": "plain_3x3", "rows": [[8, 1], [8, 1]], "resolution": 16, "strides": "cifar", "classes": 10}


def photos(count=30, side=9):
    """Images whose neighbours are alike, each colour in its own way."""
    rng = np.random.default_rng(2)
    rough = rng.normal(size=(count, side, side, 3)).cumsum(axis=1).cumsum(axis=2)
    return np.clip(128 + 9 * rough @ rng.normal(size=(3, 3)), 0, 255).astype(np.uint8)


def patches(images, side, scaling=SCALING):
    x = (images / 255 - np.array(scaling["mean"])) / np.array(scaling["std"])
    high, wide = (n - side + 1 for n in images.shape[1:3])
    windows = [x[:, u : u + high, v : v + wide] for u in range(side) for v in range(side)]
    return np.concatenate(windows, axis=3).reshape(-1, 3 * side * side)


@pytest.mark.parametrize("size", [1, 2, 12, 27])
def test_eigenvectors(size):
    a = np.random.default_rng(size).normal(size=(size, size))
    a = a @ a.T
    values, q = whitening.eigen(a)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(a)[::-1], rtol=1e-9, atol=1e-12 * values[0])
    np.testing.assert_allclose(q.T @ q, np.eye(size), atol=1e-12)
    np.testing.assert_allclose(a @ q, q * values, atol=1e-12 * values[0])
    assert (q.max(axis=0) >= -q.min(axis=0)).all()  # of a vector and its negative always the same one


def test_eigenvectors_of_a_diagonal_matrix():
    values, q = whitening.eigen(np.diag([2.0, 3.0, 3.0, 0.0]))
    assert values.tolist() == [3, 3, 2, 0] and sorted(np.abs(q).argmax(axis=0)) == [0, 1, 2, 3]


def test_covariance_is_exact_in_any_order():
    images, p = photos(450), patches(photos(450), 2)
    found = whitening.covariance(images, 2, SCALING)
    np.testing.assert_allclose(found, p.T @ p / len(p), rtol=1e-11)
    assert np.array_equal(found, whitening.covariance(images[::-1].copy(), 2, SCALING))


def test_filters_whiten():
    images = photos()
    filters = whitening.filters_of(whitening.covariance(images, 2, SCALING))
    y = patches(images, 2) @ filters[:, ::2]
    assert filters.shape == (12, 24) and np.array_equal(filters[:, 1::2], -filters[:, ::2])
    values = whitening.eigen(whitening.covariance(images, 2, SCALING))[0]
    np.testing.assert_allclose(
        y.T @ y / len(y), np.diag(values / (values + whitening.EPSILON)), rtol=1e-9, atol=1e-9
    )


def test_images_that_lie_class_by_class_are_looked_at_in_all_classes():
    """The first 5,000 of a folder may be of one class; where classes are mixed, as in CIFAR-10, the first are looked at."""
    labels = np.repeat([2, 0, 1], [6000, 9000, 15000])
    seen = whitening.looked_at(labels)
    assert np.bincount(labels[seen]).tolist() == [1500, 2500, 1000] and len(set(seen.tolist())) == 5000
    for labels in (np.arange(30000) % 10, np.repeat([0, 1], 100), np.zeros(1, int)):
        assert whitening.looked_at(labels).tolist() == list(range(min(5000, len(labels))))


@pytest.mark.parametrize("stem", [24, 30, 5])
def test_a_net_s_stem(stem):
    """The filters work on patches as the net's convolution lays them out; others keep their numbers."""
    net, images = numnet.build(**{**TINY, "resolution": 9, "rows": [[8, 1]], "stem": stem}), photos()
    before = net.params["stem.weight"].copy()
    rest = {name: array.copy() for name, array in net.params.items() if name != "stem.weight"}
    whitening.whiten(net, ArraySplit(images, np.zeros(len(images), int)), SCALING)
    x = (images / 255 - np.array(SCALING["mean"])) / np.array(SCALING["std"])
    y = net.maps(x.astype(np.float32), "stem")["stem"].reshape(-1, stem)
    wanted = patches(images, 2) @ whitening.filters_of(whitening.covariance(images, 2, SCALING))[:, :stem]
    np.testing.assert_allclose(y[:, : wanted.shape[1]], np.maximum(wanted, 0), rtol=2e-3, atol=2e-3)
    assert np.array_equal(net.params["stem.weight"][..., 24:], before[..., 24:])
    assert all(np.array_equal(net.params[name], array) for name, array in rest.items())


def test_training_leaves_the_stem_alone_and_resumes(tmp_path):
    """Killed after the first epoch and resumed: the same bits as in one go."""

    class Killed(Exception):
        pass

    def kill(record):
        raise Killed

    def train(out, **more):
        data = shapes.load(train=60, test=10)
        net = numnet.build(**{**TINY, "resolution": 32})
        settings = {"epochs": 2, "batch_size": 20, "optimiser": "muon", "beta_rate": 8.0, "whiten": True}
        fit(net, data, **settings, progress=False, out=out, **more)
        return net

    whole = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "cut", callbacks=[kill])
    again = train(tmp_path / "cut", resume=True)
    assert np.array_equal(whole.flat, again.flat)
    data = shapes.load(train=60, test=10)
    fresh = numnet.build(**{**TINY, "resolution": 32})
    assert not np.array_equal(whole.params["conv1_1.weight"], fresh.params["conv1_1.weight"])
    whitening.whiten(fresh, data.train, data.scaling)
    assert np.array_equal(whole.params["stem.weight"], fresh.params["stem.weight"])


def test_errors():
    grey = numnet.build(**{**TINY, "channels": 1})
    split = ArraySplit(photos(), np.zeros(30, int))
    with pytest.raises(
        NumnetError, match="whiten: expected a net that begins with a standard convolution of colour"
    ):
        whitening.whiten(grey, split, SCALING)


def test_recipes():
    """Another model, and weights of one's own, come without whitening; a flag asks for it again."""
    base = recipes.check({"model": {"model": "plain_3x3", "resolution": 32}, "whiten": True}, "here")
    assert "whiten" not in recipes.merge(base, {"model": {"model": "mobilenet_v1"}})
    assert recipes.merge(base, {"epochs": 3})["whiten"] is True
    assert recipes.merge(base, {"model": {"model": "mobilenet_v1"}, "whiten": True})["whiten"] is True


def test_weights_of_one_s_own_are_kept(tmp_path):
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"whiten": True, "epochs": 1}))
    net = numnet.build(**TINY)
    net.save(tmp_path / "net.safetensors")
    start = numnet.load(tmp_path / "net.safetensors")
    assert run.plan("shapes", str(file))["whiten"] is True
    assert "whiten" not in run.plan("shapes", str(file), start=start)
    assert run.plan("shapes", str(file), {"whiten": True}, start)["whiten"] is True
