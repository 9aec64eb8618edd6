"""Adam and AdamW: a step whose length is fitted to each parameter. One pass over the vectors, in place.

For each parameter w with gradient g, at step t = 1, 2, … (Kingma and Ba 2015, algorithm 1):

(1)  g' = g + λ·w                                  "L2" weight decay, λ a number for each parameter
(2)  w  = w − η·λ·w                                decoupled instead (AdamW, Loshchilov and Hutter 2019)
(3)  m  = β₁·m + (1 − β₁)·g'                       running mean of the gradient, from 0
(4)  s  = β₂·s + (1 − β₂)·g'²                      running mean of its square, from 0
(5)  m̂ = m / (1 − β₁ᵗ),   ŝ = s / (1 − β₂ᵗ)        started at 0, both are too small by exactly these factors
(6)  w  = w − η·m̂ / (√ŝ + ε)                       the paper's algorithm, and PyTorch
(7)  w  = w − η·√(1 − β₂ᵗ)/(1 − β₁ᵗ)·m/(√s + ε)    the paper's faster order (section 2), TensorFlow and Keras

(7) is (6) with ε/√(1 − β₂ᵗ) in place of ε: 32 times as much at t = 1 and β₂ = 0.999. One kernel serves both,
as w − a·m/(b·√s + ε):

(8)  a = η/(1 − β₁ᵗ), b = 1/√(1 − β₂ᵗ)  for (6);    a = η·√(1 − β₂ᵗ)/(1 − β₁ᵗ), b = 1  for (7)

Shapes: w, g, m, s and decay (= λ) (n,), float32 or float64, all of one dtype. Raises ValueError for other
shapes and dtypes. Not supported: AMSGrad, Nesterov's form (NAdam).
"""

from math import sqrt
from typing import NamedTuple

from numba import prange

from numnet.kernels._jit import kernel, row
from numnet.kernels.sgd import TILE, step_arrays


class Rule(NamedTuple):
    """The numbers of a step, of the vectors' dtype: those of (8), and l2 = 1 for (1), shrink = η for (2), or 0."""

    a: float
    b: float
    beta1: float
    beta2: float
    epsilon: float
    l2: float
    shrink: float


@row
def adam_row(w, g, m, s, decay, rule):
    """Equations (1) to (4) and (8) for rows of the vectors. w, m and s change."""
    one = w.dtype.type(1)
    for i in range(w.size):
        gi = g[i] + rule.l2 * decay[i] * w[i]
        wi = w[i] - rule.shrink * decay[i] * w[i]
        mi = rule.beta1 * m[i] + (one - rule.beta1) * gi
        si = rule.beta2 * s[i] + (one - rule.beta2) * gi * gi
        m[i] = mi
        s[i] = si
        w[i] = wi - rule.a * mi / (rule.b * sqrt(si) + rule.epsilon)


@kernel
def _adam(w, g, m, s, decay, rule):
    for tile in prange((w.size + TILE - 1) // TILE):  # each tile writes its own numbers of w, m and s
        lo, hi = tile * TILE, min((tile + 1) * TILE, w.size)
        adam_row(w[lo:hi], g[lo:hi], m[lo:hi], s[lo:hi], decay[lo:hi], rule)


# more than eight: the optimiser's own numbers, each by its name in the papers and frameworks
def adam_step(
    w, g, m, s, decay, rate, t, beta1=0.9, beta2=0.999, epsilon=1e-8, decoupled=False, style="pytorch"
) -> None:
    """Step number ``t`` (from 1) of Adam; of AdamW with ``decoupled``. Changes ``w``, ``m`` and ``s``.

    ``style``: "pytorch" for equation (6), "tensorflow" for (7); another one, or t < 1, raises ValueError.
    """
    w, g, decay = step_arrays(w, g, decay, m=m, s=s)
    if t < 1:
        raise ValueError(f"t: expected the number of the step, counted from 1, got {t}")
    a, root = rate / (1.0 - beta1**t), sqrt(1.0 - beta2**t)
    if style == "pytorch":
        a, b = a, 1.0 / root
    elif style == "tensorflow":
        a, b = a * root, 1.0
    else:
        raise ValueError(f"style: expected 'pytorch' or 'tensorflow', got {style!r}")
    l2, shrink = (0.0, rate) if decoupled else (1.0, 0.0)
    scalar = w.dtype.type
    numbers = (a, b, beta1, beta2, epsilon, l2, shrink)
    _adam(w, g, m, s, decay, Rule(*(scalar(number) for number in numbers)))
