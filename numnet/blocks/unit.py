"""The conv–BN–activation unit: what every MobileNet is made of, three convolutions in one frame.

A unit reads the map before it, finished or *pending* (raw output and pack), writes its own raw output once, and hands
on a pending map: its normalisation and activation are applied by whoever reads it next. Backward gets dy, the gradient
of the finished activation. So maps go to or come from memory twice forward (x read, y written) and four times backward
(dy, y and x read, dx written). Separate layers for convolution, batch norm and activation move at least six and nine:
each reads one and writes one forward, and reads two and writes one backward.

Without batch norm a unit has a bias instead, or neither; a bias is a pack with mean 0, inv_std 1, γ 1 and β = bias, so
it takes the same way.
"""

import numpy as np

from numnet.kernels import _check, batchnorm, conv, depthwise, maps, pointwise
from numnet.kernels._cost import Cost
from numnet.kernels.activations import IDENTITY, code_of
from numnet.kernels.maps import Window
from numnet.kernels.padding import output_side, resolve
from numnet.layers.layer import CostRow, Layer, Pending, map_of, source


class Unit(Layer):
    """Convolution, then batch norm (or a bias, or nothing), then an activation. See the subclasses.

    ``norm``: a ``Norm`` or None; ``bias``: only without norm. Gives a Pending, or an array if nothing is pending.
    """

    reads_pending = True

    def __init__(self, activation="identity", norm=None, bias=False, name=None):
        super().__init__(name)
        if norm is not None and bias:
            raise ValueError(
                "unit: a bias before batch norm is cancelled by it; expected norm or bias, not both"
            )
        if not (norm is None or isinstance(norm, Norm)):
            raise ValueError(f"{self.kind}: norm: expected a Norm or None, got {norm!r}")
        self.activation, self.code, self.norm, self.bias = activation, code_of(activation), norm, bias
        self.pending = None

    # -------------------------------------------------------------- what a kind of convolution defines

    def run(self, x, y, moments):
        """y and its moments from x, array or Pending."""
        raise NotImplementedError

    def gradients(self, upstream, x, dx, more, x_sums):
        """grads["weight"], and dx (plus ``more``, where it has a size) and x_sums where they have a size."""
        raise NotImplementedError

    def parts(self, images):
        """Number of partial sums for a batch."""
        return self.peers.parts_here(maps.parts_of(images))

    # -------------------------------------------------------------- the frame

    def frame(self, channels):
        """State what comes after the convolution."""
        if self.norm is not None:
            self.needs("bn.gamma", (channels,), "gamma")
            self.needs("bn.beta", (channels,), "beta")
            self.keeps("bn.mean", (channels,))
            self.keeps("bn.variance", (channels,))
        elif self.bias:
            self.needs("bias", (channels,), "bias", *self.specs["weight"][2:])

    @property
    def finished(self):
        """True if nothing comes after the convolution: its raw output is the result."""
        return self.norm is None and not self.bias and self.code == IDENTITY

    def forward(self, x, training):
        self.x, self.training = x, training
        dtype = self.params["weight"].dtype
        images = x.shape[0]
        y = self.memory.array("y", (images, *self.output_shape), dtype)
        filters = self.output_shape[2]
        counts = self.norm is not None and training
        # Without moments the shape says into how many parts the pass is cut, all the same.
        moments = np.zeros((self.parts(images), *((3, filters) if counts else (0, 0))))
        self.run(x, y, moments)
        self.y = y
        if self.finished:
            return y
        pack = self.memory.array("pack", (4, filters), dtype)
        if self.norm is None:
            pack[:] = np.array([0, 1, 1, 0], dtype)[:, None]
            if self.bias:
                pack[batchnorm.BETA] = self.params["bias"]
        else:
            gamma, beta = self.params["bn.gamma"], self.params["bn.beta"]
            mean, variance = self.buffers["bn.mean"], self.buffers["bn.variance"]
            if training:
                running = batchnorm.Running(mean, variance, self.norm.momentum, self.norm.unbiased)
                moments = self.peers.moments(moments)
                batchnorm.close_moments(moments, gamma, beta, self.norm.eps, running, pack)
            else:
                batchnorm.running_pack(mean, variance, gamma, beta, self.norm.eps, pack)
        self.pending = Pending(y, pack, self.code)
        return self.pending

    def backward(self, dy, input_gradient=True, more=None):
        """dx, plus ``more``: what another reader of x makes of it."""
        x, y = self.x, self.y
        raw = source(x).raw
        more = raw[:0] if more is None else more
        dx = (
            self.workspace.borrow(raw.shape, raw.dtype)
            if input_gradient
            else np.empty((0, 0, 0, 0), raw.dtype)
        )
        x_sums = np.zeros((0, 2, 0))
        if input_gradient and isinstance(x, Pending):
            x_sums = np.zeros((self.parts(len(raw)), 2, raw.shape[3]))
        if self.finished:
            self.gradients(batchnorm.upstream_of(dy), x, dx, more, x_sums)
        else:
            pack, sums = self.pending.pack, self.pending.sums
            filters = y.shape[3]
            if sums is None:
                parts = self.peers.parts_here(maps.parts_of(y.size // filters))
                sums = batchnorm.gradient_sums_of(dy, source(self.pending), parts)
            means = np.empty((2, filters), raw.dtype)
            spare = np.empty(filters, raw.dtype)
            count = y.size // filters if self.norm is not None and self.training else 0
            sums, count = self.peers.gradient_sums(sums, count)
            batchnorm.close_gradient_sums(
                sums,
                count,
                self.grads.get("bn.gamma", spare),
                self.grads["bn.beta"] if self.norm else self.grads.get("bias", np.empty_like(spare)),
                means,
            )
            self.gradients(batchnorm.upstream_of(dy, y, pack, means, self.code), x, dx, more, x_sums)
        if len(x_sums):
            x.sums = x_sums
        return dx if input_gradient else None

    def cost(self):
        """A row each for the convolution, the batch norm and the activation."""
        p, q, f = self.output_shape
        cost = self.convolution_cost()
        rows = [CostRow("", self.kind, self.output_shape, cost._replace(params=cost.params + f * self.bias))]
        if self.norm is not None:
            rows.append(CostRow("bn", "batch norm", self.output_shape, batchnorm.batchnorm_cost(1, p, q, f)))
        if self.code != IDENTITY:
            size = p * q * f
            rows.append(
                CostRow(
                    "act",
                    self.activation,
                    self.output_shape,
                    Cost(elementwise=size, inputs=size, outputs=size),
                )
            )
        return rows


class Norm:
    """Batch norm's settings: ε, the share m of the old running statistics, and whether the variance is unbiased."""

    def __init__(self, eps=1e-3, momentum=0.9, unbiased=False):
        if not eps > 0:
            raise ValueError(f"bn_eps: expected a number > 0, got {eps!r}")
        if not 0 <= momentum < 1:
            raise ValueError(f"bn_momentum: expected 0 ≤ m < 1, got {momentum!r}")
        self.eps, self.momentum, self.unbiased = float(eps), float(momentum), bool(unbiased)


class Windowed(Unit):
    """A unit whose convolution has a K×K window, a stride and padding."""

    page = None  # the kernel page of the convolution
    sums_dtype = None  # of the parts' sums of dw; None: the weight's own

    def __init__(self, kernel, stride=1, padding="same", **frame):
        super().__init__(**frame)
        self.kernel = _check.positive(f"{self.kind}: kernel", kernel)
        self.stride, self.padding = _check.positive(f"{self.kind}: stride", stride), padding

    def place(self, shape):
        """Resolve the padding for an input (H, W, C); the output's (P, Q)."""
        self.input_shape = map_of(self.kind, shape)
        k, s = self.kernel, self.stride
        self.pads = resolve(self.padding, shape[:2], (k, k), s)
        return tuple(output_side(n, k, s, *pad) for n, pad in zip(shape, self.pads))

    @property
    def window(self):
        return Window(self.kernel, self.stride, self.pads[0][0], self.pads[1][0])

    def run(self, x, y, moments):
        self.page.unit_forward(source(x), self.params["weight"], self.window, y, moments)

    def gradients(self, upstream, x, dx, more, x_sums):
        w, filters = self.params["weight"], upstream.dy.shape[3]
        columns = filters if self.sums_dtype else pointwise.padded(filters, w.dtype)
        shape = self.parts(len(upstream.dy)), w.size // filters, columns
        partial = self.memory.array("partial", shape, self.sums_dtype or w.dtype)
        self.page.unit_backward(upstream, source(x), w, self.window, dx, more, x_sums, partial)
        pointwise.sum_parts(partial, self.grads["weight"])
        self.peers.weight_sums(self, partial)


class Conv(Windowed):
    """Standard K×K convolution from C to F channels."""

    kind = "conv"
    page = conv

    def __init__(self, filters, kernel=3, stride=1, padding="same", **frame):
        super().__init__(kernel, stride, padding, **frame)
        self.filters = _check.positive(f"{self.kind}: filters", filters)

    def connect(self, shape):
        p, q = self.place(shape)
        k, c, f = self.kernel, shape[2], self.filters
        self.needs("weight", (k, k, c, f), "conv", k * k * c, k * k * f)
        self.output_shape = (p, q, f)
        self.frame(f)
        return self.output_shape

    def convolution_cost(self):
        (h, w, c), (p, q, f) = self.input_shape, self.output_shape
        return conv.conv_cost(1, p, q, self.kernel, c, f, h=h, w=w)


class Depthwise(Windowed):
    """One K×K filter a channel (times the depth multiplier)."""

    kind = "depthwise"
    page, sums_dtype = depthwise, np.float64

    def __init__(self, kernel=3, stride=1, padding="same", multiplier=1, **frame):
        super().__init__(kernel, stride, padding, **frame)
        self.multiplier = _check.positive(f"{self.kind}: multiplier", multiplier)

    def connect(self, shape):
        p, q = self.place(shape)
        k, c, m = self.kernel, shape[2], self.multiplier
        self.needs("weight", (k, k, c, m), "depthwise", k * k * c, k * k * m)
        self.output_shape = (p, q, c * m)
        self.frame(c * m)
        return self.output_shape

    def convolution_cost(self):
        (h, w, c), (p, q, _) = self.input_shape, self.output_shape
        return depthwise.depthwise_cost(1, p, q, self.kernel, c, self.multiplier, h=h, w=w)


class Pointwise(Unit):
    """1×1 convolution from C to F channels."""

    kind = "pointwise"

    def __init__(self, filters, **frame):
        super().__init__(**frame)
        self.filters = _check.positive(f"{self.kind}: filters", filters)

    def connect(self, shape):
        self.input_shape = map_of(self.kind, shape)
        c, f = shape[2], self.filters
        self.needs("weight", (c, f), "pointwise", c, f)
        self.output_shape = (*shape[:2], f)
        self.frame(f)
        return self.output_shape

    def parts(self, images):
        pixels = images * self.input_shape[0] * self.input_shape[1]
        return self.peers.parts_here(maps.parts_of(pixels, pointwise.LEAST))

    def run(self, x, y, moments):
        pointwise.unit_forward(source(x), self.params["weight"], y, moments)

    def gradients(self, upstream, x, dx, more, x_sums):
        x, w = source(x), self.params["weight"]
        shape = self.parts(len(x.raw)), len(w), pointwise.padded(w.shape[1], w.dtype)
        partial = self.memory.array("partial", shape, w.dtype)
        pointwise.unit_backward(upstream, x, w, dx, more, x_sums, partial)
        pointwise.sum_parts(partial, self.grads["weight"])
        self.peers.weight_sums(self, partial)

    def convolution_cost(self):
        (h, w, c), (_, _, f) = self.input_shape, self.output_shape
        return pointwise.pointwise_cost(1, h, w, c, f)
