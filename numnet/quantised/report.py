"""What eight bits do to a net, step by step: ranges, what is cut, noise, and which steps hurt most.

range     from the smallest to the largest number that the 256 places stand for
cut       share of the float net's numbers outside of it (what an activation does not tell apart is not counted)
signal    to noise, in decibels, of the map against the float net's, all errors before it included:
          10 · log10(Σ y² / Σ (y − ŷ)²); 6 dB are one bit
hurt      the noise in the logits, in per cent of their size, if this step alone is in eight bits
"""

import numpy as np

from numnet.kernels.eight_bits import quantise
from numnet.quantised.equalise import equalised
from numnet.quantised.make import hurt_of, on_grid, walk
from numnet.quantised.steps import run, step_in_reals, told_apart, trace

IMAGES = 64  # that "hurt" is measured with


def report(net, whole, images, *, hurt=True) -> list[dict]:
    """A row a step, of the float ``net`` and its ``whole`` form, for scaled images. ``hurt=False`` is much quicker."""
    steps = whole.origin
    if steps is None:
        steps = trace(net)
        if whole.document.get("equalised") or (whole.document.get("made") or {}).get("equalise"):
            steps = equalised(steps)  # a net from a file does not hold them
    sums = [{"signal": 0.0, "noise": 0.0, "outside": 0, "count": 0} for _ in steps]
    images, tells = np.ascontiguousarray(images, np.float32), told_apart(steps)
    for lo in range(0, len(images), IMAGES):
        x = images[lo : lo + IMAGES]
        eights = whole.maps(quantise(x, whole.grid))
        for number, real in enumerate(walk(steps, x)):
            if number:
                real = np.clip(real, *tells[number]) if number in tells else real
                _add(
                    sums[number - 1], real, whole.reals(eights[number], number), whole.steps[number - 1].grid
                )
    shares = hurts(steps, whole, images[:IMAGES]) if hurt else [None] * len(steps)
    rows = []
    for step, eight, found, share in zip(steps, whole.steps, sums, shares):
        grid = eight.grid
        ends = None if grid is None else [-grid.zero * grid.scale, (255 - grid.zero) * grid.scale]
        rows.append(
            {
                "name": step.name,
                "kind": step.kind,
                "range": ends,
                "cut": found["outside"] / max(found["count"], 1),
                "signal_db": _decibels(found),
                "hurt": share,
            }
        )
    return rows


def _add(found, real, eight, grid):
    noise = (real - eight).astype(np.float64)
    found["signal"] += float((real.astype(np.float64) ** 2).sum())
    found["noise"] += float((noise**2).sum())
    found["count"] += real.size
    if grid is not None:
        low, high = (-grid.zero - 0.5) * grid.scale, (255.5 - grid.zero) * grid.scale
        found["outside"] += int(((real < low) | (real > high)).sum())


def _decibels(found):
    if not found["noise"] or not found["signal"]:
        return None
    return 10 * float(np.log10(found["signal"] / found["noise"]))


def hurts(steps, whole, x) -> list:
    """For each step the relative noise of the output if it alone has whole weights and a whole output."""
    maps, grained = run(steps, x), whole.dequantised()
    found = []
    for number, step in enumerate(grained):
        y = step_in_reals(step, [maps[i] for i in step.reads])
        grid = whole.steps[number].grid
        found.append(hurt_of(steps, maps, number, y if grid is None else on_grid(y, grid)))
    return found
