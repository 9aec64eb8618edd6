"""What is measured: a net, a size, a batch, training or inference; and what that costs in closed form.

All nets are as the torch variant has them, with symmetric padding and without dropout: so that PyTorch runs the
net it has kernels for, with nothing padded apart, and all sides compute the same numbers.
"""

import fnmatch
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

from numnet.errors import NumnetError
from numnet.models import MODELS, describe
from numnet.texts import nearest

# Modes that measure one kind of kernel, at all the shapes that a net has of it
KERNELS = ("depthwise", "pointwise")
# Inference of a net in eight bits is a mode of its own: other sides can do it, and another peak bounds it.
MODES = ("train", "infer", "infer-int8", *KERNELS)
SWEEPS = {
    "width": (0.25, 0.5, 0.75, 1.0),
    "resolution": (0.5, 0.75, 1.0, 1.5),  # times the workload's own
    "batch": (1, 4, 16, 64, 256),
    "threads": (),  # 1 to the number of cores
}


@dataclass(frozen=True)
class Workload:
    """One thing to measure. ``mode``: a training step, inference in floats or in eight bits, or one kind of kernel
    (``KERNELS``) alone."""

    name: str
    mode: str
    model: str
    width: float
    resolution: int
    batch: int
    classes: int = 1000
    strides: str = "imagenet"
    threads: int | None = None  # None: as many as the whole comparison

    def net(self) -> dict:
        """The keywords for ``numnet.build`` and ``describe``."""
        return {
            "model": self.model, "width": self.width, "resolution": self.resolution, "classes": self.classes,
            "strides": self.strides, "variant": "torch", "padding": "symmetric", "dropout": 0.0, "seed": 0,
        }  # fmt: skip

    def vary(self, what, value) -> "Workload":
        """The same with another width, resolution, batch or number of threads."""
        return replace(self, name=f"{self.name} {what}={value:g}", **{what: value})

    def as_dict(self) -> dict:
        return asdict(self)


def _workloads():
    cifar = {"resolution": 32, "batch": 128, "classes": 10, "strides": "cifar"}
    for mode in ("train", "infer"):
        for width in (0.25, 1.0):
            yield Workload(f"{mode}-v1-{width}", mode, "mobilenet_v1", width, **cifar)
    yield Workload("train-v2-0.5", "train", "mobilenet_v2", 0.5, **cifar)
    nets = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "mnasnet_b1")
    for model in nets:
        yield Workload(f"train-{model}-224", "train", model, 1.0, 224, 16)
        for batch in (1, 16):
            for mode in ("infer", "infer-int8"):
                yield Workload(f"{mode}-{model}-224-b{batch}", mode, model, 1.0, 224, batch)
    for model in ("mobilenet_v2", "mobilenet_v3_large"):
        yield Workload(f"depthwise-{model}", "depthwise", model, 1.0, 224, 16)
    for model in nets:
        yield Workload(f"pointwise-{model}", "pointwise", model, 1.0, 224, 16)


WORKLOADS = {w.name: w for w in _workloads() if w.model in MODELS}
DEFAULT = ("train-v1-0.25", "train-v1-1.0", "infer-v1-0.25", "infer-v1-1.0")


def find(names) -> list[Workload]:
    """The workloads of these names; a name may be a pattern ("infer-*-b1"). NumnetError for one that fits none."""
    found = {}
    for name in names or DEFAULT:
        fitting = fnmatch.filter(WORKLOADS, "*" if name == "all" else name)
        if not fitting:
            raise NumnetError(
                f"no workload {name!r}{nearest(name, WORKLOADS)}; expected all, a pattern, or one of {', '.join(WORKLOADS)}"
            )
        found |= {name: WORKLOADS[name] for name in fitting}
    return list(found.values())


def sweep(workload, what, values=None, cores=1) -> list[Workload]:
    """The workload with one of its numbers varied."""
    if not values:
        values = SWEEPS[what] or tuple(range(1, cores + 1))
        if what == "resolution":
            values = tuple(int(value * workload.resolution) for value in values)
    return [workload.vary(what, value if what == "width" else int(value)) for value in values]


# ----------------------------------------------------------------------------------------- closed forms


def macs(workload) -> int:
    """Multiply-accumulates of one step: forward, and in training dx and dw too, but for the first layer's dx."""
    rows = [row.cost for row in describe(**workload.net()).cost().rows]
    total = sum(cost.macs for cost in rows)
    if workload.mode == "train":
        total += sum(cost.dx_macs + cost.dw_macs for cost in rows)
        total -= next(cost.dx_macs for cost in rows if cost.dx_macs)
    return total * workload.batch


def traffic(workload) -> int:
    """Bytes that one step cannot do without if no map of activations survives in a cache: four a number, in eight bits one.

    Forward reads the input and writes the output of every layer that multiplies, and reads the weights. In training
    backward once more reads both maps and reads and writes a gradient of each size; weights are read for dx, their
    gradient written, and the optimiser reads weights, gradient and velocity and writes weights and velocity.
    """
    rows = [row.cost for row in describe(**workload.net()).cost().rows]
    maps = sum(cost.inputs + cost.outputs for cost in rows if cost.macs)
    weights = sum(cost.params for cost in rows)
    if workload.mode == "train":
        return 4 * (3 * maps * workload.batch + 8 * weights)
    return (1 if workload.mode == "infer-int8" else 4) * (maps * workload.batch + weights)


class Part(NamedTuple):
    """One shape of a kind of kernel."""

    side: int  # H = W of the input
    inputs: int  # C
    outputs: int  # F; depthwise: C
    kernel: int
    stride: int

    @property
    def output_side(self) -> int:
        return -(-self.side // self.stride)

    @property
    def name(self) -> str:
        if self.kernel == 1:
            return f"{self.side}×{self.side}×{self.inputs} → {self.outputs}"
        stride = f" stride {self.stride}" if self.stride > 1 else ""
        return f"{self.side}×{self.side}×{self.inputs} {self.kernel}×{self.kernel}{stride}"


def parts(workload) -> list[Part]:
    """The shapes of every kernel of the workload's kind in the net, each once, in order."""
    found = {}
    for _, layer in describe(**workload.net()).walk():
        if layer.kind == workload.mode:
            (side, _, inputs), outputs = layer.input_shape, layer.output_shape[2]
            kernel, stride = (layer.kernel, layer.stride) if layer.kind == "depthwise" else (1, 1)
            found[Part(side, inputs, outputs, kernel, stride)] = True
    return list(found)


def floor(part, batch, direction, flops, bandwidth) -> float:
    """Seconds that a part takes at least on a machine of ``flops`` a second and ``bandwidth`` bytes a second (the triad's).

    A roofline (Williams et al. 2009): the longer of what the multiplications take at the peak and what the bytes take that
    go between cores and memory. Whatever is written is fetched first; the triad's figure does not count that, so its true
    bandwidth is 4/3 of it. ``direction``: "forward" or "dx and dw". A map that stays in a cache is not bound by the second.
    """
    x, y = batch * part.side**2 * part.inputs, batch * part.output_side**2 * part.outputs
    weights = part.kernel**2 * part.inputs * (part.outputs if part.kernel == 1 else 1)
    macs = y * part.kernel**2 * (part.inputs if part.kernel == 1 else 1)
    if direction == "forward":
        moved = x + 2 * y + weights
    else:
        macs, moved = 2 * macs, x + y + 2 * x + 3 * weights
    return max(2 * macs / flops, 4 * moved / (bandwidth * 4 / 3))
