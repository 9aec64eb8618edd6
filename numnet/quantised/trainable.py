"""Training for eight bits: the net computes on fake grids while it learns, so that it learns to live with them.

    fake = FakeQuantised.of(net, images)     # ranges as ``quantise`` chooses them
    logits = fake.forward(x)                 # what the net will be in eight bits, in floats
    fake.backward(dlogits)                   # fills net.grads, and moves the ranges
    whole = fake.whole()                     # the net in eight bits that training has seen

It walks over the same steps as ``quantise`` (``steps``, ``make``), with the same folding, scales and rounding, so nothing
changes when the net is made of whole numbers afterwards. The rule for gradients is on the kernels' page ``fake``.

**Batch norm** is folded with its running statistics, which stay as they are from here on: with c = γ/√(variance + ε),

(1)  w' = w · c                  b' = β − mean · c
(2)  dw = dw' · c                dβ = db'
(3)  dγ = (Σ dw' · w − db' · mean) / √(variance + ε)        the sum over all weights of a filter

So training sees the net as inference will compute it. The other way, statistics of each batch, makes the folded weights,
hence their grids, jump from batch to batch; Krishnamoorthi 2018, section 3.2.2, freezes them after a while for that reason,
and Nagel et al. 2021, section 5.2, folds them from the start, as here. It asks for a net that is trained already.

**Ranges** are learned: each map's scale s = exp(t), by the gradient of the page ``fake`` and Adam's rule (Kingma and Ba
2015), whose steps do not depend on the size of that gradient, which differs by orders between maps. Running smallest
and largest numbers, the older way, follow single numbers far out: what ``minmax`` loses against the other ways of
``quantise`` it would lose here. Zero points stay, and so does the input's grid. Dropout is left out.
"""

import numpy as np

from numnet.errors import NumnetError
from numnet.kernels import activations, concat, conv, depthwise, fake, pointwise, pooling, squeeze_excite
from numnet.kernels.batchnorm import source_of
from numnet.kernels.eight_bits import Grid, dequantise, quantise
from numnet.layers.layer import Memory
from numnet.layers.simple import Dropout
from numnet.quantised.make import grids_of, made_of, require_images, whole_steps
from numnet.quantised.net import QuantisedNet
from numnet.quantised.steps import MOVES, SUMS, stands_for, trace

RATE = 1e-3  # of Adam's rule: a scale moves by a thousandth in a step, at most about
DECAYS = 0.9, 0.999
STATE = ("scales", "zeros", "means", "squares", "passes")


class FakeQuantised:
    """A float net that is trained for eight bits. ``grids``: of all maps, or None: to be read from a checkpoint.

    ``scales``, ``zeros``: of the maps' grids, NaN and 0 for the last, sums; ``means``, ``squares``, ``passes``: Adam's.
    """

    def __init__(self, net, grids=None):
        steps = trace(net)
        if any(isinstance(layer, Dropout) and layer.downscale for _, layer in net.walk()):
            raise NumnetError("quantise: a net with PaddlePaddle's dropout cannot be trained for eight bits")
        self.net, self.layers, self.memory = net, dict(net.walk()), Memory()
        self.owners = [0]  # of each map the map whose grid it has
        for number, step in enumerate(steps, 1):
            self.owners.append(self.owners[step.reads[0]] if step.kind in MOVES else number)
        grids = [None] * len(self.owners) if grids is None else grids
        self.scales = np.array([grid.scale if grid else np.nan for grid in grids])
        self.zeros = np.array([grid.zero if grid else 0 for grid in grids], np.float64)
        self.means, self.squares = np.zeros((2, len(grids)))
        self.passes = np.zeros(1)
        self.kept, self.winners = None, {}  # pixels that won, of each maximum by its name

    @classmethod
    def of(cls, net, images, method="output"):
        """Ranges from scaled images, as ``quantise`` chooses them; raises what it raises."""
        require_images(net, images, method)
        return cls(net, grids_of(trace(net), images, method))

    def grids(self) -> list:
        """The grid of each map; None of the last, if it is a sum."""
        scales = self.scales.astype(np.float32).astype(np.float64)  # as files have them
        return [
            None if np.isnan(scales[i]) else Grid(float(scales[i]), int(self.zeros[i])) for i in self.owners
        ]

    def whole(self) -> QuantisedNet:
        """The net in eight bits, as training sees it now."""
        grids = self.grids()
        return made_of(self.net, whole_steps(trace(self.net), grids), grids[0])

    # ------------------------------------------------------------------------------------------ passes

    def forward(self, x) -> np.ndarray:
        """Logits (N, classes) of scaled images x (N, H, W, C): those of ``whole().predict``, up to rare rounding."""
        real, grids = trace(self.net), self.grids()
        whole, kind = whole_steps(real, grids), x.dtype
        maps, raws, made = [dequantise(quantise(x, grids[0]), grids[0], kind)], [], []
        for number, (step, eight) in enumerate(zip(real, whole), 1):
            inputs = [maps[i] for i in step.reads]
            weight, bias = _numbers(eight, grids[step.reads[0]], kind)
            raw = self._raw(step, inputs, weight, number)
            if step.kind in MOVES:
                y = raw
            elif eight.grid is None:
                y = raw + bias
            else:
                ends = fake.ends_of(eight.grid, *eight.bounds)
                y = fake.fake_forward(raw, bias, ends, self._room("y", number, raw.shape, kind))
            maps.append(y)
            raws.append(raw)
            made.append((weight, bias))
        self.kept = real, whole, maps, raws, made
        return maps[-1]

    def backward(self, dlogits, input_gradient=False):
        """Fill the net's gradients, move the ranges by a step; dx if ``input_gradient``, else None."""
        real, whole, maps, raws, made = self.kept
        slopes = np.zeros(len(maps))
        gradients = {len(real): dlogits}
        for number in range(len(real), 0, -1):
            step, eight, dy = real[number - 1], whole[number - 1], gradients.pop(number)
            raw, (weight, bias) = raws[number - 1], made[number - 1]
            if step.kind in MOVES:
                dv, db = dy, None
            elif eight.grid is None:
                dv, db = dy, dy.sum(axis=0, dtype=np.float64)
            else:
                ends = fake.ends_of(eight.grid, *eight.bounds)
                dv, db, ds = fake.fake_backward(np.ascontiguousarray(dy), raw, bias, ends)
                slopes[self.owners[number]] += ds
            parts, dw = self._parts(step, [maps[i] for i in step.reads], weight, dv)
            for i, dx in zip(step.reads, parts):
                gradients[i] = gradients[i] + dx if i in gradients else dx
            if step.kind in SUMS:
                self._hand_on(step, dw.astype(np.float64), db)
        self._move(slopes)
        self.kept = None
        return gradients[0] if input_gradient else None

    def _room(self, name, number, shape, kind):
        return self.memory.array(f"{name}{number}", shape, kind)

    def _raw(self, step, inputs, weight, number):
        """What a step computes, before its bias, its cut and its grid."""
        x = inputs[0]
        out = self._room("raw", number, (len(x), *step.shape), x.dtype)
        if step.kind in SUMS:
            _, stride, pads = step.frame
            if step.kind == "depthwise":
                return depthwise.depthwise_forward(x, weight, stride, pads, out)
            if _is_pointwise(step):
                pointwise.pointwise_forward(_pixels(x), weight[0, 0], _pixels(out))
                return out
            return conv.conv_forward(x, weight, stride, pads, out)
        if step.kind == "add":
            return np.add(x, inputs[1], out=out)
        if step.kind == "average":
            pooling.global_average_forward(x, out.reshape(len(x), -1))
            return out
        if step.kind == "table":
            return activations.activation_forward(x, step.code, step.beta, out)
        if step.kind == "excite":
            return squeeze_excite.scale_forward(x, inputs[1].reshape(len(x), -1), out)
        if step.kind == "maximum":
            y = out.reshape(len(x), *step.map_shape)
            _, self.winners[step.name] = pooling.max_forward(x, *step.frame, y)
            return out
        if step.kind == "concat":
            for part, before in zip(inputs, _starts(inputs)):
                concat.unit_forward(source_of(part), before, out)
            return out
        return x.reshape(out.shape)  # flatten

    def _parts(self, step, inputs, weight, dv):
        """(the gradient of each input, that of the weights or None)."""
        x = inputs[0]
        if step.kind in SUMS:
            _, stride, pads = step.frame
            if step.kind == "depthwise":
                dx, dw = depthwise.depthwise_backward(dv, x, weight, stride, pads)
            elif _is_pointwise(step):
                dx, dw = pointwise.pointwise_backward(_pixels(dv), _pixels(x), weight[0, 0])
            else:
                dx, dw = conv.conv_backward(dv, x, weight, stride, pads)
            return (dx.reshape(x.shape),), dw.reshape(weight.shape)
        if step.kind == "add":
            return (dv, dv), None
        if step.kind == "average":
            return (pooling.global_average_backward(dv.reshape(len(x), -1), x.shape),), None
        if step.kind == "table":
            return (activations.activation_backward(dv, x, step.code, step.beta),), None
        if step.kind == "excite":
            dx, dgate = squeeze_excite.scale_backward(dv, x, inputs[1].reshape(len(x), -1))
            return (dx, dgate.reshape(inputs[1].shape)), None
        if step.kind == "maximum":
            where = self.winners.pop(step.name)
            return (pooling.max_backward(dv.reshape(where.shape), where, x.shape),), None
        if step.kind == "concat":
            parts = [np.empty_like(part) for part in inputs]
            for part, before in zip(parts, _starts(parts)):
                concat.unit_backward(dv, before, part)
            return parts, None
        return (dv.reshape(x.shape),), None  # flatten

    def _hand_on(self, step, dw, db):
        """From the gradients of folded weights (K, K, C, F) and bias (F,) to those of the layer, (2) and (3)."""
        layer = self.layers[step.name]
        params, grads = layer.params, layer.grads
        norm, shape = getattr(layer, "norm", None), params["weight"].shape
        if norm is None:
            grads["weight"][...] = dw.reshape(shape)
            if "bias" in grads:
                grads["bias"][...] = db
            return
        mean, variance = (layer.buffers[f"bn.{name}"].astype(np.float64) for name in ("mean", "variance"))
        inverse = 1 / np.sqrt(variance + norm.eps)
        c = params["bn.gamma"] * inverse
        by_filter = step.weight.shape[2:] if step.kind == "depthwise" else c.shape
        sums = (dw * params["weight"].reshape(dw.shape)).reshape(-1, c.size)
        grads["weight"][...] = (dw * c.reshape(by_filter)).reshape(shape)  # (2)
        grads["bn.gamma"][...] = (sums.sum(axis=0) - db * mean) * inverse  # (3)
        grads["bn.beta"][...] = db

    def _move(self, slopes):
        """One step of Adam's rule on t, s = exp(t): ∂/∂t = s · ∂/∂s."""
        self.passes += 1
        moves = ~np.isnan(self.scales)
        moves[0] = False
        g = np.where(moves, np.where(moves, self.scales, 1.0) * slopes, 0.0)
        for average, new, decay in ((self.means, g, DECAYS[0]), (self.squares, g * g, DECAYS[1])):
            average *= decay
            average += (1 - decay) * new
        first, second = (1 - decay ** self.passes[0] for decay in DECAYS)
        step = self.means / first / (np.sqrt(self.squares / second) + 1e-30)
        self.scales[moves] *= np.exp(-RATE * step[moves])

    # ------------------------------------------------------------------------------------------ checkpoints

    def state(self) -> dict:
        """Name -> array of all that a checkpoint needs beside the net's own."""
        return {name: np.nan_to_num(getattr(self, name), nan=0.0) for name in STATE}

    def restore(self, tensors, where="the checkpoint"):
        """``state()`` back in. Raises NumnetError for what is missing, of another shape or not finite."""
        for name in STATE:
            own, found = getattr(self, name), tensors.get(name)
            if found is None or found.shape != own.shape or not np.isfinite(found).all():
                raise NumnetError(
                    f"{where}: damaged checkpoint (quantise/{name} is missing or of another kind)"
                )
            own[...] = np.where(found == 0, np.nan, found) if name == "scales" else found


def _is_pointwise(step):
    return step.kind == "dense" or step.frame == (1, 1, ((0, 0), (0, 0)))


def _starts(parts):
    """The channel of the whole at which each part of a concatenation begins."""
    return np.cumsum([0] + [part.shape[-1] for part in parts[:-1]])


def _pixels(x):
    """A map as one row of pixels, (1, 1, pixels, C)."""
    return np.ascontiguousarray(x).reshape(1, 1, -1, x.shape[-1])


def _numbers(eight, x, kind):
    """(weight, bias) that a whole step's numbers stand for; without weights (None, zeros)."""
    if eight.kind not in SUMS:
        return None, np.zeros(eight.shape[-1], kind)
    weight, bias = stands_for(eight, x)
    return np.ascontiguousarray(weight, kind), bias.astype(kind)
