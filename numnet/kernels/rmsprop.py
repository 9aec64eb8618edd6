"""RMSProp with momentum: the optimiser that all the MobileNet papers trained with. One pass, in place.

For each parameter w with gradient g (Hinton's lecture 6e, 2012, with a momentum that the frameworks added):

(1)  g' = g + λ·w                             weight decay, λ a number for each parameter
(2)  s  = ρ·s + (1 − ρ)·g'²                   running mean of the squared gradient
(3)  v  = μ·v + g'/(√s + ε),    w = w − η·v   PyTorch: ε outside the root, η outside the velocity, s from 0
(4)  v  = μ·v + η·g'/√(s + ε),  w = w − v     TensorFlow: ε inside the root, η inside the velocity, s from 1

The difference is not small: s from 1 makes the first steps plain descent, while s from 0 makes the very first
one η/√(1 − ρ) long whatever the gradient; and ε inside the root bounds a step by η·g'/√ε. (Keras writes (4)
with s from 0.) One kernel serves both, with four numbers:

(5)  v = μ·v + η_in·g' / (√(s + ε_in) + ε_out),     w = w − η_out·v

Shapes: w, g, s, v and decay (= λ) (n,), float32 or float64, all of one dtype. Raises ValueError for other
shapes and dtypes. Not supported: the centred variant.
"""

from math import sqrt
from typing import NamedTuple

from numba import prange

from numnet.kernels._jit import kernel, row
from numnet.kernels.sgd import TILE, step_arrays


class Rule(NamedTuple):
    """The numbers of (2) and (5), of the vectors' dtype."""

    rate_in: float
    rate_out: float
    rho: float
    momentum: float
    eps_in: float
    eps_out: float


@row
def rmsprop_row(w, g, s, v, decay, rule):
    """Equations (1), (2) and (5) for rows of the vectors. w, s and v change."""
    one = w.dtype.type(1)
    for i in range(w.size):
        gi = g[i] + decay[i] * w[i]
        si = rule.rho * s[i] + (one - rule.rho) * gi * gi
        vi = rule.momentum * v[i] + rule.rate_in * gi / (sqrt(si + rule.eps_in) + rule.eps_out)
        s[i] = si
        v[i] = vi
        w[i] -= rule.rate_out * vi


@kernel
def _rmsprop(w, g, s, v, decay, rule):
    for tile in prange((w.size + TILE - 1) // TILE):  # each tile writes its own numbers of w, s and v
        lo, hi = tile * TILE, min((tile + 1) * TILE, w.size)
        rmsprop_row(w[lo:hi], g[lo:hi], s[lo:hi], v[lo:hi], decay[lo:hi], rule)


# more than eight: the optimiser's own numbers, each by its name in the papers and frameworks
def rmsprop_step(w, g, s, v, decay, rate, rho=0.9, momentum=0.9, epsilon=1e-3, style="tensorflow") -> None:
    """One step of RMSProp. Changes ``w``, ``s`` and ``v``.

    ``style``: "pytorch" for equation (3), "tensorflow" for (4); how ``s`` starts is the caller's part.
    Another style raises ValueError.
    """
    w, g, decay = step_arrays(w, g, decay, s=s, v=v)
    if style == "pytorch":
        rates, epsilons = (1.0, rate), (0.0, epsilon)
    elif style == "tensorflow":
        rates, epsilons = (rate, 1.0), (epsilon, 0.0)
    else:
        raise ValueError(f"style: expected 'pytorch' or 'tensorflow', got {style!r}")
    scalar = w.dtype.type
    numbers = (*rates, rho, momentum, *epsilons)
    _rmsprop(w, g, s, v, decay, Rule(*(scalar(number) for number in numbers)))
