"""Every net learns: twenty images by heart, and the built-in shapes in three epochs, judged by running statistics."""

import numpy as np
import pytest

import numnet
from numnet.data import shapes
from numnet.training.loop import fit
from numnet.training.run import train

SMALL = {"width": 0.25, "strides": "cifar"}
NETS = {name: SMALL for name in numnet.models()} | {
    "mnasnet_keras": {**SMALL, "bn_momentum": 0.9},  # at its own 0.999 the statistics absorb too little
    "vgg16": {
        "initialiser": "he_fan_in"
    },  # without batch norm, Glorot's smaller numbers take three times as long
    "googlenet": {"strides": "imagenet"},  # its maps are wide: eight times the work with the others' strides
}
QUICK = ("mobilenet_v2", "mobilenet_v3_small")
MARKED = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETS]


@pytest.mark.parametrize("name", MARKED)
def test_twenty_images_by_heart(name):
    data = shapes.load(train=20, test=10)
    net = numnet.build(name, resolution=32, classes=10, dropout=0.0, seed=1, **NETS[name])
    lr = 1e-4 if name == "vgg16" else 3e-3
    history = fit(
        net, data, epochs=60, batch_size=20, lr=lr, optimiser="adam", schedule="constant", progress=False
    )
    assert abs(history[0]["train_loss"] - np.log(10)) < 0.7
    assert min(record["train_loss"] for record in history[-5:]) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in NETS if name != "vgg16"]
)  # VGG16 has no batch norm to help it
def test_three_epochs_of_shapes(name, tmp_path):
    model = {"model": name, **NETS[name]}
    # GoogLeNet is deep and has no skips: at the recipe's rate of 0.1, or at 0.02, plain SGD does not set it going.
    own = {"optimiser": "adam", "lr": 1e-3} if name == "googlenet" else {}
    result = train("shapes", flags={"epochs": 3, "model": model, **own}, out=tmp_path / "run", progress=False)
    assert result["test_accuracy"] >= 0.6
