"""A net and a data set small enough to train in a blink, for the tests of the loop.

The net is a real ``numnet.Net`` of layers of one's own in plain NumPy (and numnet's dropout), with a buffer
like batch norm's, so that nothing here waits for a compiler.
"""

import numpy as np

from numnet import Net
from numnet.data.split import ArraySplit, Dataset
from numnet.layers import Dropout, Layer
from numnet.training.loop import Callback


class Center(Layer):
    """Takes off the batch's mean in training, a running mean in use: images meet here, as in batch norm."""

    kind = "center"

    def connect(self, shape):
        self.keeps("mean", (int(np.prod(shape)),))
        self.input_shape, self.output_shape = tuple(shape), (int(np.prod(shape)),)
        return self.output_shape

    def forward(self, x, training):
        x = x.reshape(len(x), -1)
        mean = x.mean(axis=0) if training else self.buffers["mean"]
        if training:
            self.buffers["mean"][:] = 0.9 * self.buffers["mean"] + 0.1 * mean
        return x - mean

    def backward(self, dy, input_gradient=True):
        return None


class Flat(Layer):
    """Images as vectors; no image knows of another."""

    kind = "flat"

    def connect(self, shape):
        self.input_shape, self.output_shape = tuple(shape), (int(np.prod(shape)),)
        return self.output_shape

    def forward(self, x, training):
        return x.reshape(len(x), -1)

    def backward(self, dy, input_gradient=True):
        return None


class Quarters(Layer):
    """The mean colour of each quarter: images of any even side. ``seen`` lists the sides of the batches trained on."""

    kind = "quarters"

    def connect(self, shape):
        self.seen = getattr(self, "seen", [])
        self.input_shape, self.output_shape = tuple(shape), (12,)
        return self.output_shape

    def forward(self, x, training):
        n, h, w, c = x.shape
        if training:
            self.seen.append(h)
        return x.reshape(n, 2, h // 2, 2, w // 2, c).mean(axis=(2, 4)).reshape(n, 12)

    def backward(self, dy, input_gradient=True):
        return None


class Linear(Layer):
    """y = relu(x)·w + b."""

    kind = "linear"

    def __init__(self, outputs, name=None):
        super().__init__(name)
        self.outputs = outputs

    def connect(self, shape):
        self.input_shape, self.output_shape = tuple(shape), (self.outputs,)
        self.needs("weight", (shape[0], self.outputs), "dense", shape[0], self.outputs)
        self.needs("bias", (self.outputs,), "bias")
        return self.output_shape

    def forward(self, x, training):
        self.x = np.maximum(x, 0)
        return self.x @ self.params["weight"] + self.params["bias"]

    def backward(self, dy, input_gradient=True):
        self.grads["weight"][...] = self.x.T @ dy
        self.grads["bias"][...] = dy.sum(axis=0)
        return (dy @ self.params["weight"].T) * (self.x > 0)


def make_net(first=Center, seed=0, dtype="float32", dropout=0.2):
    layers = [
        first(name="first"),
        Linear(16, name="hidden"),
        Dropout(dropout, name="dropout"),
        Linear(4, name="logits"),
    ]
    return Net(layers, (6, 6, 3), dtype=dtype, seed=seed, config={"model": "fake", "seed": seed})


def make_split(images, seed):
    """Four classes: which quarter of the image is bright."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, images)
    x = rng.integers(0, 160, (images, 6, 6, 3)).astype(np.uint8)
    for image, label in zip(x, labels):
        h, w = 3 * (label // 2), 3 * (label % 2)
        image[h : h + 3, w : w + 3] += 80
    return ArraySplit(x, labels)


def make_data(train=200, validation=60, test=80):
    return Dataset(
        name="quarters", classes=["a", "b", "c", "d"], mean=(0.4,) * 3, std=(0.25,) * 3,
        train=make_split(train, 1), validation=make_split(validation, 2), test=make_split(test, 3),
    )  # fmt: skip


class StopAt(Callback):
    """Raises after so many steps: what SIGKILL leaves behind, without a process."""

    class Killed(BaseException):
        pass

    def __init__(self, step):
        self.at = step

    def on_step(self, run, loss):
        if run.step == self.at:
            raise self.Killed
