"""Layers that end a net or stand between its blocks: dense, pooling, dropout, flatten, activation."""

import numpy as np

from numnet.kernels import _check, activations, average, dense, dropout, pooling
from numnet.kernels._cost import Cost
from numnet.kernels.padding import output_side, resolve
from numnet.layers.layer import CostRow, Layer, map_of, source


class Dense(Layer):
    """y (N, F) = x (N, C) · w + b."""

    kind = "dense"
    role = "dense"  # what initialisers take the weights for

    def __init__(self, filters, bias=True, name=None):
        super().__init__(name)
        self.filters, self.bias = _check.positive(f"{self.kind}: filters", filters), bias

    def connect(self, shape):
        super().connect(shape)
        if len(shape) != 1:
            raise ValueError(
                f"Dense: expected vectors (C,), got maps {shape}; put GlobalAverage or Flatten before it"
            )
        self.needs("weight", (shape[0], self.filters), self.role, shape[0], self.filters)
        if self.bias:
            self.needs("bias", (self.filters,), "bias", shape[0], self.filters)
        self.output_shape = (self.filters,)
        return self.output_shape

    def forward(self, x, training):
        self.x = x
        out = self.memory.array("y", (len(x), self.filters), x.dtype)
        for share in self.peers.shares(len(x)):
            dense.dense_forward(x[share], self.params["weight"], self.params.get("bias"), out[share])
        return out

    def backward(self, dy, input_gradient=True):
        out = self.workspace.borrow(self.x.shape, self.x.dtype)
        gradients = [
            dense.dense_backward(dy[share], self.x[share], self.params["weight"], out[share])[1:]
            for share in self.peers.shares(len(self.x))
        ]
        self.grads["weight"][:], db = self.peers.add_shares(gradients)
        if self.bias:
            self.grads["bias"][:] = db
        return out

    def cost(self):
        return [
            CostRow(
                "",
                self.kind,
                self.output_shape,
                dense.dense_cost(1, *self.input_shape, self.filters, self.bias),
            )
        ]


class GlobalAverage(Layer):
    """(N, H, W, C) → (N, C), the mean over all pixels; reads a pending map as it is.

    ``keep``: (N, 1, 1, C), a map of one pixel, for a convolution behind it.
    """

    kind = "global average"
    reads_pending = True

    def __init__(self, keep=False, name=None):
        super().__init__(name)
        self.keep = keep

    def connect(self, shape):
        super().connect(map_of(self.kind, shape))
        self.output_shape = (1, 1, shape[2]) if self.keep else (shape[2],)
        return self.output_shape

    def forward(self, x, training):
        self.shape = x.shape
        x = source(x)
        y = self.memory.array("y", (self.shape[0], self.shape[3]), x.raw.dtype)
        pooling.unit_average(x, y)
        return y.reshape(-1, *self.output_shape)

    def backward(self, dy, input_gradient=True):
        dy = dy.reshape(self.shape[0], self.shape[3])
        return pooling.global_average_backward(dy, self.shape, self.workspace.borrow(self.shape, dy.dtype))

    def cost(self):
        return [CostRow("", self.kind, self.output_shape, pooling.pooling_cost(1, *self.input_shape))]


class GlobalMax(Layer):
    """(N, H, W, C) → (N, C), the largest of all pixels."""

    kind = "global max"

    def connect(self, shape):
        super().connect(map_of(self.kind, shape))
        self.output_shape = (shape[2],)
        return self.output_shape

    def forward(self, x, training):
        self.shape = x.shape
        y, self.where = pooling.global_max_forward(x)
        return y

    def backward(self, dy, input_gradient=True):
        out = self.workspace.borrow(self.shape, dy.dtype)
        return pooling.global_max_backward(dy, self.where, self.shape, out)

    def cost(self):
        return [CostRow("", self.kind, self.output_shape, pooling.pooling_cost(1, *self.input_shape))]


class MaxPool(Layer):
    """The largest number of each K×K window. ``ceil``: a last, partial window counts (PyTorch's ceil_mode)."""

    kind = "max pool"

    def __init__(self, kernel, stride=None, padding=0, ceil=False, name=None):
        super().__init__(name)
        self.kernel, self.stride = _sides(self.kind, kernel, stride)
        self.padding, self.ceil = padding, ceil

    def connect(self, shape):
        super().connect(map_of(self.kind, shape))
        k, s = self.kernel, self.stride
        pads = resolve(self.padding, shape[:2], (k, k), s)
        if self.ceil:  # pad the end until the last window that starts inside is whole
            pads = tuple(
                (before, after + max(0, _ceil_extra(n, k, s, before, after)))
                for n, (before, after) in zip(shape, pads)
            )
        self.pads = pads
        self.output_shape = (*(output_side(n, k, s, *pad) for n, pad in zip(shape, pads)), shape[2])
        return self.output_shape

    def forward(self, x, training):
        self.shape = x.shape
        out = self.memory.array("y", (len(x), *self.output_shape), x.dtype)
        y, self.where = pooling.max_forward(x, self.kernel, self.stride, self.pads, out)
        return y

    def backward(self, dy, input_gradient=True):
        return pooling.max_backward(dy, self.where, self.shape, self.workspace.borrow(self.shape, dy.dtype))

    def cost(self):
        cost = pooling.pooling_cost(1, *self.input_shape, *self.output_shape[:2])
        return [CostRow("", self.kind, self.output_shape, cost)]


class AveragePool(Layer):
    """The mean of each K×K window; pixels outside the image are not counted. ``GlobalAverage`` is the one of a whole map."""

    kind = "average pool"

    def __init__(self, kernel, stride=None, padding=0, name=None):
        super().__init__(name)
        self.kernel, self.stride = _sides(self.kind, kernel, stride)
        self.padding = padding

    def connect(self, shape):
        super().connect(map_of(self.kind, shape))
        k, s = self.kernel, self.stride
        self.pads = resolve(self.padding, shape[:2], (k, k), s)
        self.output_shape = (*(output_side(n, k, s, *pad) for n, pad in zip(shape, self.pads)), shape[2])
        return self.output_shape

    def forward(self, x, training):
        self.shape = x.shape
        out = self.memory.array("y", (len(x), *self.output_shape), x.dtype)
        return average.average_forward(x, self.kernel, self.stride, self.pads, out)

    def backward(self, dy, input_gradient=True):
        dx = self.workspace.borrow(self.shape, dy.dtype)
        return average.average_backward(dy, self.shape, self.kernel, self.stride, self.pads, dx)

    def cost(self):
        cost = average.average_cost(1, *self.input_shape, self.kernel, *self.output_shape[:2])
        return [CostRow("", self.kind, self.output_shape, cost)]


def _sides(kind, kernel, stride):
    """The kernel's side and the stride, which is the same where none is given."""
    kernel = _check.positive(f"{kind}: kernel", kernel)
    return kernel, kernel if stride is None else _check.positive(f"{kind}: stride", stride)


def _ceil_extra(n, k, s, before, after):
    windows = -(-(n + before + after - k) // s) + 1
    if (windows - 1) * s >= n + before:  # a window that would start in the padding after the image is dropped
        windows -= 1
    return (windows - 1) * s + k - n - before - after


class Flatten(Layer):
    """(N, H, W, C) → (N, H·W·C)."""

    kind = "flatten"

    def connect(self, shape):
        super().connect(shape)
        self.output_shape = (int(np.prod(shape)),)
        return self.output_shape

    def forward(self, x, training):
        return x.reshape(len(x), -1)

    def backward(self, dy, input_gradient=True):
        return dy.reshape(len(dy), *self.input_shape)

    def cost(self):
        return [CostRow("", self.kind, self.output_shape, Cost())]


class Dropout(Layer):
    """In training each number is 0 with probability ``rate`` and scaled by 1/(1 − rate) otherwise.

    ``downscale``: PaddlePaddle's older form instead, which scales nothing in training and all numbers by 1 − rate in
    inference.
    """

    kind = "dropout"

    def __init__(self, rate, downscale=False, name=None):
        super().__init__(name)
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
            raise ValueError(f"dropout: expected 0 ≤ rate < 1, got {rate!r}")
        self.rate, self.downscale, self.key = rate, downscale, None
        self.number = 0  # among the dropouts of its net: each draws numbers of its own

    def forward(self, x, training):
        self.key = None
        if training and len(x):
            first = (self.number << 40) + self.clock.first_image * x[0].size
            self.key = self.clock.seed, self.clock.step, first
        if self.rate == 0 or (self.key is None and not self.downscale):
            return x
        y = self.memory.array("y", x.shape, x.dtype)
        if self.key is None:
            return np.multiply(x, x.dtype.type(1 - self.rate), out=y)
        return self._kept(dropout.dropout_forward(x, self.rate, *self.key, y))

    def backward(self, dy, input_gradient=True):
        if self.key is None or self.rate == 0:
            return dy
        out = self.workspace.borrow(dy.shape, dy.dtype)
        return self._kept(dropout.dropout_backward(dy, self.rate, *self.key, out))

    def _kept(self, y):
        """y, with the kernel's 1/(1 − rate) taken back if nothing is to be scaled in training."""
        if self.downscale:
            y *= y.dtype.type(1 - self.rate)
        return y

    def cost(self):
        return [
            CostRow(
                "", self.kind, self.output_shape, dropout.dropout_cost(1, int(np.prod(self.output_shape)))
            )
        ]


class Activation(Layer):
    """An activation by name, applied to whatever comes; between a convolution and its batch norm use a unit instead."""

    kind = "activation"

    def __init__(self, activation, beta=1.0, name=None):
        super().__init__(name)
        self.activation, self.code, self.beta = activation, activations.code_of(activation), beta

    def forward(self, x, training):
        self.x = x
        out = self.memory.array("y", x.shape, x.dtype)
        return activations.activation_forward(x, self.code, self.beta, out)

    def backward(self, dy, input_gradient=True):
        out = self.workspace.borrow(dy.shape, dy.dtype)
        return activations.activation_backward(dy, self.x, self.code, self.beta, out)

    def cost(self):
        size = int(np.prod(self.output_shape))
        return [
            CostRow("", self.activation, self.output_shape, Cost(elementwise=size, inputs=size, outputs=size))
        ]


def activated(layers):
    """(layer, activation) of each layer: an Activation right behind a Dense comes with it, else None.

    Inference applies such a pair in one pass, while the sums are hot; swish with a β of its own stays a layer.
    """
    pairs = []
    for layer in layers:
        dense = bool(pairs) and isinstance(pairs[-1][0], Dense) and pairs[-1][1] is None
        if dense and isinstance(layer, Activation) and layer.beta == 1:
            pairs[-1] = (pairs[-1][0], layer)
        else:
            pairs.append((layer, None))
    return pairs
