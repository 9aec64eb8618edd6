"""Two remedies that need no training: weights of equal size, and means that stay where they were (Nagel et al. 2019).

**Equalisation across layers.** After folding, one filter's weights can be a hundred times another's, and its channel's map
too. Two steps in a row, the first with weights w1[…, i] and bias b1[i], the second with w2[…, i, …] for its input i, compute
the same if channel i is divided by any number s_i > 0 on the way and multiplied again, as long as what stands between
them keeps factors, f(s · x) = s · f(x), as relu, no activation and the maximum of a window do:

(1)  w1[…, i] / s_i,   b1[i] / s_i,   w2[…, i, …] · s_i
(2)  s_i = √(r1_i / r2_i)          r1_i = max |w1[…, i]|, r2_i = max |w2[…, i, …]|: both become √(r1_i · r2_i)

relu6 keeps no factors: min(6, s · x) is not s · min(6, x). So it is replaced by relu, which changes the net wherever a number
above 6 occurs; ``report`` and ``--test`` tell what that costs. Pairs share channels (expand, depthwise, project), so (2) goes
over all pairs until nothing moves.

With one scale for each filter, (2) makes no weight finer, since dividing a filter divides its scale; it does change the maps,
which have one grid for all channels, for better or worse. With one scale for a whole layer it is what saves the net.

**Bias correction.** Rounded weights ŵ and maps x̂ shift the mean of a channel, the same way for all images. The bias takes
that back, step by step from the first to the last, over some images:

(3)  b[f] − (mean of (ŵ · x̂)[f] − mean of (w · x)[f])       x̂ of the steps before, which are corrected already
"""

from dataclasses import replace

import numpy as np

from numnet.kernels.activations import IDENTITY, RELU, RELU6
from numnet.kernels.eight_bits import dequantise, quantise
from numnet.quantised.steps import SUMS, Step, last_readers, stands_for, step_in_reals

ROUNDS = 20  # over all pairs, at most
STILL = 1e-3  # a factor nearer to 1 is as good as none
MOST = 2.0**10  # of a factor, up or down: dead channels have no size
IMAGES = 64  # that means are taken over


def pairs_of(steps) -> list:
    """Numbers (a, b) of steps between which only what keeps factors stands: relu, for which relu6 is taken, and maxima."""
    readers = {}
    for number, step in enumerate(steps):
        for i in step.reads:
            readers.setdefault(i, []).append(number)
    found = []
    for a, step in enumerate(steps):
        after = readers.get(a + 1, [])
        while len(after) == 1 and steps[after[0]].kind == "maximum":
            after = readers.get(after[0] + 1, [])
        if step.kind not in SUMS or step.code not in (IDENTITY, RELU, RELU6) or len(after) != 1:
            continue
        if steps[after[0]].kind in SUMS:
            found.append((a, after[0]))
    return found


def equalised(steps) -> list[Step]:
    """Steps in real numbers that compute the same by weights of equal size, (1), (2); relu6 in a pair becomes relu."""
    steps = [replace(step) for step in steps]
    pairs = pairs_of(steps)
    for a, _ in pairs:
        steps[a].code = RELU if steps[a].code == RELU6 else steps[a].code
    for _ in range(ROUNDS):
        moved = 0.0
        for a, b in pairs:
            first, second = _sizes(steps[a], out=True), _sizes(steps[b], out=False)
            alive = (first > 0) & (second > 0)
            factors = np.where(alive, np.sqrt(np.where(alive, first, 1) / np.where(alive, second, 1)), 1.0)
            factors = np.clip(factors, 1 / MOST, MOST)
            steps[a].weight = _times(steps[a], 1 / factors, out=True)
            steps[a].bias = steps[a].bias / factors
            steps[b].weight = _times(steps[b], factors, out=False)
            moved = max(moved, float(np.abs(np.log(factors)).max()))
        if moved < STILL:
            break
    return steps


def _sizes(step, out):
    """The largest weight of each output channel, or of each input channel."""
    w = np.abs(step.weight)
    if step.kind == "depthwise":  # (K, K, C, M): output c · M + m
        w = w.max(axis=(0, 1))
        return w.reshape(-1) if out else w.max(axis=1)
    return w.max(axis=(0, 1, 2)) if out else w.max(axis=(0, 1, 3))


def _times(step, factors, out):
    """The weights with each output channel, or each input channel, multiplied."""
    if step.kind == "depthwise":
        return step.weight * (factors.reshape(step.weight.shape[2:]) if out else factors[:, None])
    return step.weight * (factors if out else factors[:, None])


def corrected(steps, whole_step, grids, images) -> list[Step]:
    """The steps in real numbers with biases by (3). ``whole_step``: (step, grid of its output, of its input) -> whole."""
    x = np.ascontiguousarray(images[:IMAGES], np.float32)
    last, found = last_readers(steps), []
    real, eight = {0: x}, {0: dequantise(quantise(x, grids[0]), grids[0])}
    for number, step in enumerate(steps):
        inputs, theirs = [real[i] for i in step.reads], [eight[i] for i in step.reads]
        grid, source = grids[number + 1], grids[step.reads[0]]
        if step.kind in SUMS:
            plain = replace(step, code=IDENTITY)
            wanted = step_in_reals(plain, inputs)
            got = step_in_reals(_rounded(plain, whole_step(step, grid, source), source), theirs)
            axes = tuple(range(got.ndim - 1))
            shift = got.mean(axis=axes, dtype=np.float64) - wanted.mean(axis=axes, dtype=np.float64)
            step = replace(step, bias=step.bias - shift)
            y = step_in_reals(_rounded(step, whole_step(step, grid, source), source), theirs)
        else:
            y = step_in_reals(step, theirs)
        found.append(step)
        real[number + 1] = step_in_reals(steps[number], inputs)
        eight[number + 1] = y if grid is None else dequantise(quantise(y, grid), grid)
        for i in set(step.reads):
            if last[i] == number:
                del real[i], eight[i]
    return found


def _rounded(step, whole, x) -> Step:
    """The step with the weights and the bias that its whole form stands for; x: the grid of its input."""
    weight, bias = stands_for(whole, x)
    return replace(step, weight=weight, bias=bias)
