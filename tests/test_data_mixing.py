"""Mixup and CutMix: against their equations, for any start and any share of a batch."""

import numpy as np
import pytest
import training_fakes as fakes

import numnet
from numnet import data
from numnet.data import mixing
from numnet.data.split import ArraySplit
from numnet.errors import NumnetError

SCALING = {"mean": [0.5] * 3, "std": [0.25] * 3}
rng = np.random.default_rng(0)
SPLIT = ArraySplit(rng.integers(0, 255, (22, 8, 8, 3), dtype=np.uint8), rng.integers(0, 4, 22))


def epoch(augment, **options):
    return list(
        data.batches(
            SPLIT, **{**dict(batch_size=8, scaling=SCALING, seed=5, epoch=1, augment=augment), **options}
        )
    )


@pytest.mark.parametrize("alphas", [{"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_every_image_has_the_one_before_in_it(alphas):
    kinds = set()
    for number in range(6):  # epochs
        plain, mixed = epoch({"flip": True}, epoch=number), epoch({"flip": True, **alphas}, epoch=number)
        for (x, labels), (y, both) in zip(plain, mixed, strict=True):
            assert (
                (both.labels == labels).all()
                and (both.others == np.roll(labels, 1)).all()
                and len(both) == len(x)
            )
            before = np.roll(x, 1, axis=0)
            taken, share = np.isclose(y, before, atol=1e-6).all(axis=(0, 3)), both.share
            if "cutmix" in alphas and np.isclose(y, np.where(taken[:, :, None], before, x)).all():
                rows, columns = taken.any(axis=1), taken.any(axis=0)
                assert (taken == np.outer(rows, columns)).all() and share == pytest.approx(1 - taken.mean())
                kinds.add("cutmix")
            else:
                assert 0.5 <= share <= 1 and np.allclose(y, share * x + (1 - share) * before, atol=1e-5)
                kinds.add("mixup")
    assert kinds == set(alphas)


def test_batches_depend_on_their_number_alone():
    augment = {"crop": 1, "mixup": 0.4, "cutmix": 1.0}
    whole, later = epoch(augment), epoch(augment, start=1)
    for (x, labels), (y, others) in zip(whole[1:], later, strict=True):
        assert (x == y).all() and labels.share == others.share
    places = np.array([5, 1])
    for (x, labels), (y, mine) in zip(whole, epoch(augment, take=lambda number, images: places), strict=True):
        assert (
            (y == x[places]).all()
            and (mine.others == labels.others[places]).all()
            and mine.share == labels.share
        )


def test_shares_are_of_the_beta_distribution():
    for alpha in (0.2, 1.0):
        shares = np.array([mixing.draw(1, 0, n, 0.0, alpha, (1000, 1000)).share for n in range(600)])
        inner = np.array([mixing.draw(1, 0, n, alpha, 0.0, (8, 8)).share for n in range(600)])
        assert inner.min() >= 0.5
        # Of λ around a half; |λ − ½| is the same for its larger side
        spread = np.sqrt(1 / (4 * (2 * alpha + 1)))
        assert np.sqrt(((inner - 0.5) ** 2).mean()) == pytest.approx(spread, rel=0.1)
        assert shares.mean() > 0.5, "boxes that hang over the edge are cut off"


def test_the_loss_is_that_of_both_labels():
    run = numnet.training.loop.Run(fakes.make_net(), fakes.make_data(), {"epochs": 1}, progress=False)
    logits, labels = rng.normal(size=(6, 4)), rng.integers(0, 4, (2, 6))
    (a, da), (b, db) = (run.loss.mean(logits, each) for each in labels)
    loss, dlogits = run.loss.mean(logits, mixing.Mixed(*labels, 0.7))
    assert loss == pytest.approx(0.7 * a + 0.3 * b, rel=1e-12) and np.allclose(
        dlogits, 0.7 * da + 0.3 * db, rtol=1e-12
    )


def test_training_and_mistakes():
    history = numnet.fit(
        fakes.make_net(),
        fakes.make_data(),
        epochs=2,
        augment={"mixup": 0.2, "cutmix": 1},
        accumulate=2,
        progress=False,
    )
    assert len(history) == 2 and 0 <= history[-1]["train_accuracy"] <= 1
    for wrong in (-0.1, 1.5, "much", True):
        with pytest.raises(NumnetError, match="augmentation: mixup expects a number from 0 to 1, got"):
            data.batches(SPLIT, batch_size=8, scaling=SCALING, augment={"mixup": wrong})
