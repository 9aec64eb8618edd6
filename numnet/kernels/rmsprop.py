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
shapes and dtypes. Not supported: the centred variant. np.divide, unlike /, raises no ZeroDivisionError,
whose test would keep the loop off the vector unit.
"""

from math import sqrt

import numpy as np
from numba import prange

from numnet.kernels._jit import kernel, row
from numnet.kernels.sgd import CHUNK, step_arrays


@row
def rmsprop_stretch(w, g, s, v, decay, rate_in, rate_out, rho, momentum, eps_in, eps_out):
    """Equations (1), (2) and (5) for one stretch of the vectors. w, s and v change."""
    one = w.dtype.type(1)
    for i in range(w.size):
        gi = g[i] + decay[i] * w[i]
        si = rho * s[i] + (one - rho) * gi * gi
        vi = momentum * v[i] + np.divide(rate_in * gi, sqrt(si + eps_in) + eps_out)
        s[i] = si
        v[i] = vi
        w[i] -= rate_out * vi


@kernel
def _rmsprop(w, g, s, v, decay, rate_in, rate_out, rho, momentum, eps_in, eps_out):
    for chunk in prange((w.size + CHUNK - 1) // CHUNK):  # each chunk writes its own stretch of w, s and v
        lo, hi = chunk * CHUNK, min((chunk + 1) * CHUNK, w.size)
        rmsprop_stretch(
            w[lo:hi], g[lo:hi], s[lo:hi], v[lo:hi], decay[lo:hi],
            rate_in, rate_out, rho, momentum, eps_in, eps_out,
        )  # fmt: skip


def rmsprop_step(w, g, s, v, decay, rate, rho=0.9, momentum=0.9, epsilon=1e-3, style="tensorflow") -> None:
    """One step of RMSProp. Changes ``w``, ``s`` and ``v``.

    ``style``: "pytorch" for equation (3), "tensorflow" for (4); how ``s`` starts is the caller's part.
    Another style raises ValueError.
    """
    w, g, decay = step_arrays(w, g, decay, s=s, v=v)
    if style == "pytorch":
        rates_and_eps = 1.0, rate, 0.0, epsilon
    elif style == "tensorflow":
        rates_and_eps = rate, 1.0, epsilon, 0.0
    else:
        raise ValueError(f"style: expected 'pytorch' or 'tensorflow', got {style!r}")
    rate_in, rate_out, eps_in, eps_out = rates_and_eps
    scalar = w.dtype.type
    values = rate_in, rate_out, rho, momentum, eps_in, eps_out
    _rmsprop(w, g, s, v, decay, *(scalar(value) for value in values))
