"""From a net in real numbers and some images to one in eight bits.

1. ``trace``: the net as steps, batch norm folded in.
2. Images pass twice: the ranges of all maps (``ranges``).
3. Weights: a scale for each filter. (One for all ruins nets with depthwise convolutions: after folding, one filter's numbers
   are a hundred times another's, which then has one or two places left. ``per_tensor`` shows it.)
4. Biases in steps of the sums: 32 bits.
"""

from functools import partial

import numpy as np

from numnet.errors import NumnetError
from numnet.kernels.eight_bits import HIGHEST, Grid, quantise_weights, weight_scales
from numnet.quantised.equalise import corrected, equalised
from numnet.quantised.net import QuantisedNet
from numnet.quantised.ranges import METHODS, OTHERS, Histogram, choose
from numnet.quantised.steps import (
    CUTS,
    MOVES,
    SUMS,
    Step,
    last_readers,
    run,
    step_in_reals,
    told_apart,
    trace,
)

LEAST = 16  # images that ranges are taken from, at least
BATCH = 64
WORK = 2e11  # multiply-adds that choosing by the output may take, about
BIAS = 2**29  # steps that a bias may take


def quantise(
    net, images, *, method="output", per_tensor=False, equalise=False, correct=False, steps=None
) -> QuantisedNet:
    """``net`` (float) in eight bits, its ranges from ``images`` (N, H, W, 3), scaled as the net's input is, N at least 16.

    method: of the ranges, "output", "squares", "minmax" or "percentile"; per_tensor: one scale for all filters of a layer;
    equalise, correct: weights of equal size, means that stay (page ``equalise``); steps: those of ``trace(net)``, where
    somebody has changed them. Raises NumnetError for too few images, NaN among them, a layer that has no arithmetic in
    eight bits, and a map that is 0 for all images.
    """
    require_images(net, images, method)
    given = steps is not None
    steps = steps if given else trace(net)
    steps = equalised(steps) if equalise else steps
    grids = grids_of(steps, images, method)
    origin = steps
    if correct:
        steps = corrected(steps, partial(whole_step, per_tensor=per_tensor), grids, images)
    made = made_of(net, whole_steps(steps, grids, per_tensor), grids[0])
    if equalise or given:  # what ``report`` compares with: maps are others than the net's
        made.origin = origin
    if equalise:
        made.document["equalised"] = True
    return made


def require_images(net, images, method):
    """Raise NumnetError for images that no ranges can be taken from, and for an unknown method."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1:] != net.input_shape or images.dtype.kind != "f":
        shape = ", ".join(map(str, net.input_shape))
        raise NumnetError(
            f"quantise: expected scaled images (N, {shape}), floats, got {images.dtype} {images.shape}"
        )
    if len(images) < LEAST:
        raise NumnetError(f"quantise: ranges need at least {LEAST} images, got {len(images)}")
    if not np.isfinite(images).all():
        raise NumnetError("quantise: the images have numbers that are not finite (NaN or infinity)")
    if method not in METHODS:
        raise NumnetError(f"ranges: expected one of {', '.join(METHODS)}, got {method!r}")


def made_of(net, steps, grid) -> QuantisedNet:
    """Whole steps as a net that has the names, scaling and configuration of the float ``net``."""
    facts = {key: getattr(net, key, None) for key in ("config", "scaling", "class_names")}
    document = {**(getattr(net, "document", None) or {})}
    for key in ("training", "step", "result"):  # the float net's
        document.pop(key, None)
    made = QuantisedNet(steps, grid, net.input_shape, **facts, document=document)
    made.prepare()  # says here what does not fit
    return made


def grids_of(steps, images, method) -> list:
    """The grid of each map; None for the last, if it is a sum."""
    histograms = [Histogram() for _ in range(len(steps) + 1)]
    for counting in (False, True):
        for lo in range(0, len(images), BATCH):
            maps = walk(steps, images[lo : lo + BATCH])
            for histogram, x in zip(histograms, maps):
                histogram.count(x) if counting else histogram.widen(x)
    grids = [choose(histograms[0], "minmax", "the input")]
    tells, maps = told_apart(steps), None
    if method == "output":
        work = sum(step.macs() for step in steps) * len(steps)
        maps = run(steps, images[: int(np.clip(WORK // max(work, 1), 8, BATCH))])
    for number, step in enumerate(steps, 1):
        if number == len(steps) and step.kind in SUMS:
            grids.append(None)
        elif step.kind in MOVES:
            grids.append(grids[step.reads[0]])
        else:
            ends = tells.get(number, (-np.inf, np.inf))
            ways = OTHERS if method == "output" else (method,)
            choices = [choose(histograms[number], way, step.name, ends) for way in ways]
            grids.append(_by_output(steps, number - 1, maps, choices))
    return [grid and _single(grid) for grid in grids]


def on_grid(y, grid) -> np.ndarray:
    """The real numbers on a grid that are nearest to those of y, float32."""
    q = np.clip(np.floor(y / np.float32(grid.scale) + np.float32(0.5)) + grid.zero, 0, HIGHEST)
    return ((q - grid.zero) * grid.scale).astype(np.float32)


def hurt_of(steps, maps, number, y) -> float:
    """The noise of the output, relative to its size, if step ``number`` makes y instead of maps[number + 1]."""
    changed = {number + 1: y}
    for later in range(number + 1, len(steps)):
        if any(i in changed for i in steps[later].reads):
            inputs = [changed.get(i, maps[i]) for i in steps[later].reads]
            changed[later + 1] = step_in_reals(steps[later], inputs)
    size = np.linalg.norm(maps[-1])
    return float(np.linalg.norm(changed.get(len(steps), maps[-1]) - maps[-1]) / size) if size else 0.0


def _by_output(steps, number, maps, choices) -> Grid:
    """The one of some grids for the output of step ``number`` that makes the least noise in the net's output."""
    if len(set(choices)) == 1:
        return choices[0]
    return min(choices, key=lambda grid: hurt_of(steps, maps, number, on_grid(maps[number + 1], grid)))


def walk(steps, x):
    """All maps of ``run``, one after another, each forgotten when its last reader is done."""
    last, maps = last_readers(steps), {0: np.ascontiguousarray(x, np.float32)}
    yield maps[0]
    for number, step in enumerate(steps):
        maps[number + 1] = step_in_reals(step, [maps[i] for i in step.reads])
        yield maps[number + 1]
        for i in set(step.reads):
            if last[i] == number:
                del maps[i]


def whole_steps(steps, grids, per_tensor=False) -> list[Step]:
    """The steps with whole weights, for the grids of all maps."""
    return [
        whole_step(step, grids[number + 1], grids[step.reads[0]], per_tensor)
        for number, step in enumerate(steps)
    ]


def whole_step(step, grid, x: Grid, per_tensor=False) -> Step:
    """One step in whole numbers: grid of its output (None: sums), x of its input."""
    more = {"grid": grid}
    if step.kind in SUMS:
        weight = step.weight.reshape(*step.weight.shape[:2], -1) if step.kind == "depthwise" else step.weight
        scales = weight_scales(weight, not per_tensor)
        dead = np.abs(step.bias) / (x.scale * BIAS)  # a filter of next to nothing whose bias would not fit
        scales = np.maximum(scales, dead).astype(np.float32)
        wide = scales.astype(np.float64)
        more["weight"] = quantise_weights(weight, wide).reshape(step.weight.shape)
        more["bias"] = np.floor(step.bias / (wide * x.scale) + 0.5).astype(np.int32)
        more["scales"] = scales
    if step.kind in (*SUMS, "add") and grid is not None:
        more["bounds"] = bounds_of(step.code, grid)
    return Step(**{**step.__dict__, **more})


def bounds_of(code, grid) -> tuple:
    """(low, high) on the grid for an activation that cuts."""
    low, high = CUTS[code]
    lower = 0 if low == -np.inf else int(np.clip(np.floor(low / grid.scale + 0.5) + grid.zero, 0, HIGHEST))
    upper = HIGHEST
    if high != np.inf:
        upper = int(np.clip(np.floor(high / grid.scale + 0.5) + grid.zero, 0, HIGHEST))
    return lower, upper


def _single(grid) -> Grid:
    """The grid with a scale that float32 holds, as files and other programs have it."""
    return Grid(float(np.float32(grid.scale)), grid.zero)
