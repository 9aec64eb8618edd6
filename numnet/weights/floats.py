"""A published net of eight bits as a float net: to fine-tune it, to cut it open, to look at its features.

Such a file has no batch norm any more: it went into the weights W and biases b of the convolutions. A net that is to be
trained needs it. So it comes back, in a way that changes nothing: with mean m and variance v of the channel of W∗x over some
images,

(1)  γ (W∗x − m)/√(v + ε) + β = W∗x + b     for γ = √(v + ε), β = b + m

The weights are those that the bytes stand for, W = scale · whole number. What rounding has cost stays lost; the ranges of the
maps, which cost most, are gone. At the end both nets look at the same images: a graph that computes something else than the
model is refused.
"""

from dataclasses import replace

import numpy as np

from numnet.blocks.unit import Unit
from numnet.errors import NumnetError
from numnet.kernels.activations import HSIGMOID, IDENTITY, RELU6
from numnet.models import MODELS, NO_CHOICE, build, describe
from numnet.net import Net
from numnet.quantised.net import QuantisedNet
from numnet.quantised.steps import CUTS, SUMS, last_readers, run, step_in_reals, trace
from numnet.weights.source import WIDTHS

CLOSE = 1e-3  # of the largest logit: float32, and files that write 1/6 as 0.16667
CHUNK = 32  # images at a time, for memory
FAMILY = [model for model in MODELS if model not in NO_CHOICE]


def to_floats(
    whole: QuantisedNet, model: str | None = None, width: float | None = None, *, images=None, **options
) -> Net:
    """The float net whose weights the bytes of ``whole`` stand for, with batch norm put back in.

    ``model``, ``width``: None to recognise them by the shapes of the weights. ``options``: other keywords of
    ``numnet.build`` (``dropout``, ``variant`` …). The net has ``scaling``, ``document``, ``notes``, as after ``import_file``.
    ``images``: float32 (N, H, W, C), scaled as the float net takes them; batch norm's statistics are taken from them. None:
    mean 0 and variance 1, good for inference, but in training the first step would then see other maps than inference does.
    Raises NumnetError if no model fits, or if the graph does not compute what the model does.
    """
    shapes = [_shape(step) for step in whole.steps if step.kind in SUMS]
    wrong = None
    for keywords in _likely(shapes, model, width, whole, options):
        net = build(**keywords)
        wrong = _fill(net, whole) or _differs(net, whole)
        if wrong is None:
            net.document = {"source": {**whole.document.get("source", {}), "was": "in eight bits"}}
            net.document |= {"preset": whole.document.get("preset"), "labels": None}
            net.path, net.class_names = whole.path, whole.class_names
            net.notes = list(whole.notes)
            if images is None:
                net.notes.append(
                    "batch norm was folded into the weights; before a training it needs statistics of images"
                )
            else:
                settle(net, images)
            return net
    asked = f"{model or 'any model'}" + ("" if width is None else f" of width {width:g}")
    name = whole.path.name if whole.path is not None else "this net"
    raise NumnetError(
        f"{name}: as floats: its {len(shapes)} layers with weights are not those of {asked}"
        if wrong is None
        else f"{name}: as floats: {wrong}"
    )


def _shape(step) -> tuple:
    """Of a step's weights, as a layer has them: (C, F) for one pixel's."""
    shape = tuple(step.weight.shape)
    return shape[2:] if shape[:2] == (1, 1) and step.kind != "depthwise" else shape


def _likely(shapes, model, width, whole, options):
    """Keywords of ``build`` of the nets whose weights have these shapes."""
    shared = {"classes": whole.classes, "resolution": list(whole.input_shape[:2])}
    shared |= {"channels": whole.input_shape[2], **options}
    for name in FAMILY if model is None else [model]:
        for factor in (
            WIDTHS if width is None and name not in NO_CHOICE else [1.0 if width is None else width]
        ):
            keywords = {"model": name, **shared}
            if name not in NO_CHOICE:
                keywords["width"] = factor
            try:
                net = describe(**keywords)
            except NumnetError:
                if model is not None and width is not None:
                    raise
                continue
            if _shapes(net) == shapes:
                yield keywords


def _shapes(net) -> list:
    return [tuple(spec.shape) for name, spec in net.specs.items() if name.endswith(".weight")]


def _fill(net, whole) -> str | None:
    """Copy weights and biases, layer by layer; batch norm then does nothing. A line on what does not fit, or None."""
    ours, theirs = trace(net), whole.dequantised()
    after = {step.reads[0]: step for step in ours if step.kind == "table"}
    pairs = zip(
        [(number, step) for number, step in enumerate(ours) if step.kind in SUMS],
        [step for step in theirs if step.kind in SUMS],
    )
    norms = dict(_norms(net))
    for (number, own), step in pairs:
        if own.frame != step.frame:
            return f"{own.name} has another stride or padding"
        bias = np.asarray(step.bias, np.float64)
        gate = after.get(number + 1)
        if gate is not None and gate.code == HSIGMOID and step.code == RELU6:
            bias = bias - 3  # relu6(x + 3)/6: files have the 3 in the bias
        weight = net.params[f"{own.name}.weight"]
        weight[...] = np.reshape(step.weight, weight.shape)
        if own.name in norms:
            _set_norm(net, own.name, bias, np.zeros(len(bias)), np.full(len(bias), 1 - norms[own.name]), 1.0)
        elif f"{own.name}.bias" in net.params:
            net.params[f"{own.name}.bias"][...] = bias
        elif np.abs(bias).max() > 0:
            return f"{own.name} has no bias, the file's has"
    return _scaling(net, whole, theirs)


def _norms(net):
    """(name, ε) of every unit with batch norm."""
    for path, layer in net.walk():
        if isinstance(layer, Unit) and layer.norm is not None:
            yield path, layer.norm.eps


def _set_norm(net, name, beta, mean, variance, gamma) -> None:
    net.params[f"{name}.bn.gamma"][...] = gamma
    net.params[f"{name}.bn.beta"][...] = beta
    net.buffers[f"{name}.bn.mean"][...] = mean
    net.buffers[f"{name}.bn.variance"][...] = variance


def _scaling(net, whole, steps) -> str | None:
    """The scaling of x/255, with what the graph itself does to pixels before its first layer."""
    first = next(number for number, step in enumerate(steps) if step.kind in SUMS)
    slope, shift = 1.0, 0.0
    for step in steps[:first]:
        if step.kind != "table" or step.code != IDENTITY:
            return f"{step.name}, before the first layer with weights, is no scaling of pixels"
        by, add = step.line or (1.0, 0.0)
        slope, shift = slope * by, shift * by + add
    if slope <= 0:
        return "its graph turns pixels into their negative"
    mean, std = (np.array(whole.scaling[key], np.float64) for key in ("mean", "std"))
    net.scaling = {"mean": (mean - shift * std / slope).tolist(), "std": (std / slope).tolist()}
    return None


def _differs(net, whole) -> str | None:
    """A line if the two nets compute different logits of the same two images, else None."""
    pixels = np.random.default_rng(0).random((2, *whole.input_shape))
    scaled = [
        ((pixels - np.array(each["mean"])) / np.array(each["std"])).astype(np.float32)
        for each in (net.scaling, whole.scaling)
    ]
    ours, theirs = net.predict(scaled[0]), run(whole.dequantised(), scaled[1])[-1]
    apart = float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))
    if apart <= CLOSE:
        return None
    model = net.config["model"]
    return f"its graph computes something else than {model} with the same weights (logits differ by {100 * apart:.2g} %)"


def settle(net: Net, images) -> None:
    """Give each batch norm the statistics of ``images`` (N, H, W, C), equation (1); what the net computes stays the same.

    Each norm must do nothing as it is (mean 0, variance 1 − ε, γ 1), as ``to_floats`` leaves it.
    """
    steps, norms = trace(net), dict(_norms(net))
    last = last_readers(steps)
    found = {name: (0, 0.0, 0.0) for name in norms}
    for lo in range(0, len(images), CHUNK):
        maps = {0: np.ascontiguousarray(images[lo : lo + CHUNK], np.float32)}
        for number, step in enumerate(steps):
            inputs = [maps[i] for i in step.reads]
            if step.name in norms:
                raw = step_in_reals(replace(step, code=IDENTITY), inputs)
                found[step.name] = _merged(found[step.name], raw)
                maps[number + 1] = np.clip(raw, *CUTS[step.code]) if step.code != IDENTITY else raw
            else:
                maps[number + 1] = step_in_reals(step, inputs)
            for i in set(step.reads):
                if last[i] == number:
                    del maps[i]
    for name, (count, mean, squares) in found.items():
        bias = net.params[f"{name}.bn.beta"].astype(np.float64)
        variance = squares / count
        _set_norm(net, name, mean, mean - bias, variance, np.sqrt(variance + norms[name]))


def _merged(found, y) -> tuple:
    """(count, mean, Σ(y − mean)²) of a channel with the pixels of y added: Chan's formula, in float64."""
    count, mean, squares = found
    y = y.reshape(-1, y.shape[-1]).astype(np.float64)
    here = y.mean(axis=0)
    more, apart = len(y), here - mean
    whole = count + more
    squares = squares + ((y - here) ** 2).sum(axis=0) + apart**2 * (count * more / whole)
    return whole, mean + apart * (more / whole), squares
