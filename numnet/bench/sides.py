"""Who is measured. A side is a class with these names; put it into SIDES and `numnet bench` knows it:

    modes                      which workloads it can do
    packages                   what must be installed
    Side(workload, threads)    prepares net, input and memory
    step()                     one training step, or one batch of inference
    result()                   a number that all sides must agree on: the loss of the first step, or the logits' size
    layers(steps)              {kind of layer: [seconds forward, seconds backward]} of one step, or None
    parts(seconds)             a kind of kernel only: {shape and direction: [seconds, …]}

A training step is forward, loss, backward and the optimiser (SGD with Nesterov momentum and weight decay); the
gradient of the images is computed by no side.
"""

import time
import warnings
from dataclasses import replace
from functools import partial

import numpy as np

from numnet.bench.workloads import KERNELS, MODES, parts
from numnet.kernels.loss import softmax_cross_entropy
from numnet.models import build

LR, MOMENTUM, DECAY = 0.01, 0.9, 5e-4
INFERENCE = ("infer", "infer-int8")
CALIBRATION = 16  # images that the ranges of a net in eight bits are taken from


def batch(workload):
    """Images (N, H, W, 3), scaled, and labels: the same for every side."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((workload.batch, workload.resolution, workload.resolution, 3), np.float32)
    return x, rng.integers(0, workload.classes, workload.batch)


def quantised(workload):
    """The workload's net in eight bits, its ranges from images like those that are measured."""
    from numnet.quantised.make import quantise

    images, _ = batch(replace(workload, batch=CALIBRATION))
    return quantise(build(**workload.net()), images, method="minmax")


def size(logits) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(np.asarray(logits, np.float64)))))


def repeat(work, seconds, least=3) -> list[float]:
    """Times of single calls until ``seconds`` are over, but at least so many."""
    times, end = [], time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times


class Numnet:
    """This library."""

    modes = MODES
    packages = ()

    def __init__(self, workload, threads):
        import numba

        from numnet.training.optimisers import SGD

        numba.set_num_threads(threads)
        self.workload, self.first = workload, None
        if workload.mode in KERNELS:
            return
        self.net = quantised(workload) if workload.mode == "infer-int8" else build(**workload.net())
        self.x, self.labels = batch(workload)
        if workload.mode == "train":
            options = {"momentum": MOMENTUM, "nesterov": True}
            self.optimiser = SGD(self.net.flat, self.net.flat_grad, self.net.decay_mask, DECAY, **options)

    def step(self):
        if self.workload.mode in INFERENCE:
            logits = self.net.predict(self.x)
            self.first = size(logits) if self.first is None else self.first
            return
        logits = self.net.forward(self.x, training=True)
        loss, dlogits = softmax_cross_entropy(logits, self.labels)
        self.net.backward(dlogits, input_gradient=False)
        self.optimiser.step(LR)
        self.first = loss if self.first is None else self.first

    def result(self):
        return self.first

    def layers(self, steps):
        if self.workload.mode == "infer-int8":
            return None
        clock = Clock()
        for layer in _leaves(self.net.layers):
            for direction, method in enumerate(("forward", "backward")):
                setattr(layer, method, clock.timed(getattr(layer, method), layer.kind, direction))
        if self.workload.mode == "infer":  # predict does not go through the layers
            return clock.run(lambda: self.net.forward(self.x), steps)
        return clock.run(self.step, steps)

    def parts(self, seconds):
        from numnet import kernels
        from numnet.kernels import _memory

        rng, times = np.random.default_rng(0), {}
        for part in parts(self.workload):
            # All begin on a line of the cache, as in a net, and as PyTorch's do.
            x = _memory.empty((self.workload.batch, part.side, part.side, part.inputs), np.float32)
            x[:] = rng.standard_normal(x.shape, np.float32)
            if self.workload.mode == "depthwise":
                w = rng.standard_normal((part.kernel, part.kernel, part.inputs, 1), np.float32)
                work = kernels.depthwise_forward, kernels.depthwise_backward
                window = (part.stride, part.kernel // 2)
            else:
                w = rng.standard_normal((part.inputs, part.outputs), np.float32)
                work = kernels.pointwise_forward, kernels.pointwise_backward
                window = ()
            y, dy = (work[0](x, w, *window) for _ in range(2))
            dx = np.empty_like(x)
            work[1](dy, x, w, *window, out=dx)
            forward, backward = (
                partial(work[0], x, w, *window, out=y),
                partial(work[1], dy, x, w, *window, out=dx),
            )
            times[f"{part.name}, forward"] = repeat(forward, seconds)
            times[f"{part.name}, dx and dw"] = repeat(backward, seconds)
        return times


def _leaves(layers):
    """The layers that compute: a block's children in its place, but a squeeze-and-excite is one thing."""
    for layer in layers:
        if layer.children and layer.kind != "squeeze-excite":
            yield from _leaves(layer.children)
        else:
            yield layer


class Clock:
    """Adds up the time that functions take, by kind and direction (0 forward, 1 backward)."""

    def __init__(self):
        self.times: dict[str, list[float]] = {}

    def add(self, kind, direction, seconds):
        self.times.setdefault(kind, [0.0, 0.0])[direction] += seconds

    def timed(self, function, kind, direction):
        def call(*arguments, **options):
            began = time.perf_counter()
            result = function(*arguments, **options)
            self.add(kind, direction, time.perf_counter() - began)
            return result

        return call

    def run(self, step, steps) -> dict:
        """Seconds of one step, by kind; "whole step" is the step itself, all of it as its first number."""
        step()
        self.times.clear()
        began = time.perf_counter()
        for _ in range(steps):
            step()
        took = time.perf_counter() - began
        result = {kind: [seconds / steps for seconds in both] for kind, both in self.times.items()}
        return {**result, "whole step": [took / steps, 0.0]}


class PyTorch:
    """PyTorch, eager, channels_last."""

    modes = ("train", "infer", *KERNELS)
    packages = ("torch",)

    def __init__(self, workload, threads):
        import torch

        torch.set_num_threads(threads)
        self.torch, self.workload, self.first = torch, workload, None
        if workload.mode in KERNELS:
            return
        self.net = self.prepare(_mirrored(workload).to(memory_format=torch.channels_last))
        x, labels = batch(workload)
        self.x = torch.from_numpy(x).permute(0, 3, 1, 2)  # channels-first in shape, NHWC in memory
        self.labels = torch.from_numpy(labels)
        if workload.mode == "train":
            options = {"momentum": MOMENTUM, "nesterov": True, "weight_decay": DECAY}
            self.optimiser = torch.optim.SGD(self.net.parameters(), lr=LR, fused=True, **options)

    def prepare(self, net):
        """A hook for what is done to the net before it is measured."""
        return net

    def step(self):
        torch = self.torch
        if self.workload.mode == "infer":
            with torch.inference_mode():
                logits = self.net(self.x)
            self.first = size(logits.numpy()) if self.first is None else self.first
            return
        self.optimiser.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(self.net(self.x), self.labels)
        loss.backward()
        self.optimiser.step()
        self.first = float(loss.detach()) if self.first is None else self.first

    def result(self):
        return self.first

    def layers(self, steps):
        clock, handles, started = Clock(), [], {}

        def start(module, *_):
            started[module] = time.perf_counter()

        def stop(direction):
            def hook(module, *_):
                clock.add(module.kind, direction, time.perf_counter() - started.pop(module))

            return hook

        for module in self.net.modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # hooks make outputs views, which must not be written to
        modules = list(_leaf_modules(self.net))
        for module in modules:
            handles += [module.register_forward_pre_hook(start), module.register_forward_hook(stop(0))]
            if self.workload.mode == "train" and module is not modules[0]:
                handles.append(module.register_full_backward_pre_hook(start))
                handles.append(module.register_full_backward_hook(stop(1)))
        times = clock.run(self.step, steps)
        for handle in handles:
            handle.remove()
        return times

    def parts(self, seconds):
        torch, generator, times = self.torch, np.random.default_rng(0), {}
        for part in parts(self.workload):
            shape = (self.workload.batch, part.side, part.side, part.inputs)
            x = torch.from_numpy(generator.standard_normal(shape, np.float32)).permute(0, 3, 1, 2)
            depthwise = self.workload.mode == "depthwise"
            w = torch.randn(part.outputs, 1 if depthwise else part.inputs, part.kernel, part.kernel)
            w = w.to(memory_format=torch.channels_last)
            groups = part.inputs if depthwise else 1
            more = (None, [part.stride] * 2, [part.kernel // 2] * 2, [1, 1], groups)
            dy = torch.nn.functional.conv2d(x, w, *more).contiguous(memory_format=torch.channels_last)
            dy = dy.clone()

            def forward(x=x, w=w, more=more):
                torch.nn.functional.conv2d(x, w, *more)

            def backward(dy=dy, x=x, w=w, more=more):
                bias, stride, padding, dilation, groups = more
                torch.ops.aten.convolution_backward(
                    dy, x, w, bias, stride, padding, dilation, False, [0, 0], groups, [True, True, False]
                )

            forward(), backward()
            times[f"{part.name}, forward"] = repeat(forward, seconds)
            times[f"{part.name}, dx and dw"] = repeat(backward, seconds)
        return times


def _mirrored(workload):
    """The workload's net as a module with numnet's initial weights, in training or inference mode."""
    from numnet.bench.mirror import mirror

    return mirror(build(**workload.net())).train(workload.mode == "train")


def _leaf_modules(module):
    """Modules that are the mirror of a layer that computes (see _leaves)."""
    for child in module.children():
        whole = {"conv", "depthwise", "pointwise", "squeeze-excite"}
        kind = getattr(child, "kind", None)
        if kind in whole or (
            kind is not None and not any(hasattr(m, "kind") for m in list(child.modules())[1:])
        ):
            yield child
        else:
            yield from _leaf_modules(child)


class Compiled(PyTorch):
    """PyTorch with torch.compile, channels_last."""

    modes = ("train", "infer")

    def prepare(self, net):
        return self.torch.compile(net)

    def layers(self, steps):
        return None


class OnnxRuntime:
    """ONNX Runtime, the CPU provider, all graph optimisations."""

    modes = INFERENCE
    packages = ("onnxruntime", "onnx", "torch")

    def __init__(self, workload, threads):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        graph = _onnx(workload)
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        x, _ = batch(workload)
        self.feed = {self.session.get_inputs()[0].name: np.ascontiguousarray(x.transpose(0, 3, 1, 2))}
        self.first = None

    def step(self):
        (logits,) = self.session.run(None, self.feed)
        self.first = size(logits) if self.first is None else self.first

    def result(self):
        return self.first

    def layers(self, steps):
        return None


def _onnx(workload) -> bytes:
    """The mirrored net as an ONNX file, what PyTorch's exporter makes of it; in eight bits numnet's own export.

    There in the form that is the faster one for ONNX Runtime and exact on this processor: see ``onnx_eights``.
    """
    if workload.mode == "infer-int8":
        from numnet.kernels import vectors, words
        from numnet.weights.onnx_eights import export_quantised

        exact = words.way_of(vectors.LANES) == "vnni"
        return export_quantised(quantised(workload), unsigned=exact).SerializeToString()
    import io

    import torch

    file = io.BytesIO()
    x = torch.zeros(workload.batch, 3, workload.resolution, workload.resolution)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is the older one; the newer needs a package more
        torch.onnx.export(_mirrored(workload), (x,), file, dynamo=False)
    return file.getvalue()


SIDES = {"numnet": Numnet, "pytorch": PyTorch, "torch.compile": Compiled, "onnxruntime": OnnxRuntime}
