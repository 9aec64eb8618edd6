"""The loop with a real MobileNetV1 on batches of the built-in shapes: small, but every kernel takes part."""

import json

import numba
import pytest
from training_fakes import StopAt

import numnet
from numnet.data import shapes
from numnet.training.loop import fit

SETTINGS = dict(
    epochs=2, batch_size=32, lr=0.1, label_smoothing=0.1, weight_decay=5e-4,
    augment={"crop": 4, "flip": True}, clip_norm=5.0, ema=0.99, seed=3, progress=False,
)  # fmt: skip


def train(bn_momentum=None, **more):
    data = shapes.load(train=100, test=20)
    data.hold_back(20, seed=0)
    net = numnet.build(
        "mobilenet_v1",
        width=0.125,
        resolution=32,
        classes=10,
        strides="cifar",
        dropout=0.1,
        seed=1,
        bn_momentum=bn_momentum,
    )
    return net, fit(net, data, **{**SETTINGS, **more})


def bits(net):
    return net.flat.tobytes() + net.flat_buffers.tobytes()


@pytest.fixture(scope="module")
def undisturbed():
    return train()


def test_one_thread_or_many(undisturbed):
    before = numba.get_num_threads()
    try:
        for threads in range(1, numba.config.NUMBA_NUM_THREADS + 1):
            numba.set_num_threads(threads)
            net, history = train()
            assert bits(net) == bits(undisturbed[0])
            assert [r["train_loss"] for r in history] == [r["train_loss"] for r in undisturbed[1]]
    finally:
        numba.set_num_threads(before)


def test_running_statistics_take_no_part_in_training(undisturbed):
    """Another momentum: the same weights and training losses, bit for bit; other statistics and validation."""
    net, history = train(bn_momentum=0.999)
    assert net.flat.tobytes() == undisturbed[0].flat.tobytes()
    assert [r["train_loss"] for r in history] == [r["train_loss"] for r in undisturbed[1]]
    assert net.flat_buffers.tobytes() != undisturbed[0].flat_buffers.tobytes()
    assert history[-1]["validation_loss"] != undisturbed[1][-1]["validation_loss"]


@pytest.mark.parametrize("step", [2, 3, 5])
def test_resumed(undisturbed, tmp_path, step):
    """Three batches an epoch, the last one of 16 images."""
    with pytest.raises(StopAt.Killed):
        train(out=tmp_path / "run", checkpoint_every=0, callbacks=[StopAt(step)])
    net, history = train(out=tmp_path / "run", resume=True)
    assert bits(net) == bits(undisturbed[0])
    assert [r["validation_loss"] for r in history] == [r["validation_loss"] for r in undisturbed[1]]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert 0 <= result["test_accuracy"] <= 1


def test_it_can_learn_twenty_images_by_heart():
    data = shapes.load(train=20, test=10)
    net = numnet.build(
        "mobilenet_v1", width=0.125, resolution=32, classes=10, strides="cifar", dropout=0.0, seed=1
    )
    history = fit(net, data, epochs=60, batch_size=20, lr=0.1, schedule="constant", progress=False)
    assert abs(history[0]["train_loss"] - 2.303) < 0.3
    assert history[-1]["train_loss"] < 0.05 and history[-1]["train_accuracy"] == 1.0
