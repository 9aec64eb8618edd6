"""Stochastic gradient descent with momentum: one step of the whole parameter vector, in place.

For each parameter w with gradient g = ∂L/∂w and velocity v, which starts at 0:

(1)  g' = g + λ·w                     weight decay: λ·w is the gradient of λ/2·w² ("L2")
(2)  v  = μ·v + g'
(3)  w  = w − η·v                     Polyak's heavy ball (1964), as PyTorch writes it
(4)  w  = w − η·(g' + μ·v)            with ``nesterov``: the gradient is taken as if one step ahead

η is the learning rate, μ the momentum, λ the weight decay: a number for each parameter, since biases and
the γ and β of batch normalisation have none. These are the equations of ``torch.optim.SGD``: η stands
outside the velocity, so a new learning rate acts at once. Sutskever et al. 2013 and Keras multiply it in,
v = μ·v − η·g'; both are the same while η stands still. With μ = 0 the velocity is the gradient and plain descent is
left.

Shapes: w, g, v and decay (= λ) (n,), float32 or float64, all of one dtype, which is also that of the
arithmetic. Raises ValueError for other shapes and dtypes. Not supported: dampening.
"""

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._jit import kernel, row

TILE = 16384  # numbers a tile holds: of four arrays 256 KiB of float32, inside a second-level cache


@row
def momentum_row(w, g, v, decay, rate, momentum, nesterov):
    """Equations (1) to (4) for rows of the vectors. They are distinct arrays; w and v change."""
    for i in range(w.size):
        gi = g[i] + decay[i] * w[i]
        vi = momentum * v[i] + gi
        v[i] = vi
        w[i] -= rate * (gi + momentum * vi if nesterov else vi)


@kernel
def _sgd(w, g, v, decay, rate, momentum, nesterov):
    for tile in prange((w.size + TILE - 1) // TILE):  # each tile writes its own numbers of w and v
        lo, hi = tile * TILE, min((tile + 1) * TILE, w.size)
        momentum_row(w[lo:hi], g[lo:hi], v[lo:hi], decay[lo:hi], rate, momentum, nesterov)


def sgd_step(w, g, v, decay, rate, momentum=0.9, nesterov=True) -> None:
    """One step of stochastic gradient descent: equations (1) to (4). Changes ``w`` and ``v``."""
    w, g, decay = step_arrays(w, g, decay, v=v)
    scalar = w.dtype.type
    _sgd(w, g, v, decay, scalar(rate), scalar(momentum), bool(nesterov))


def step_arrays(w, g, decay, **slots):
    """Check the vectors of an optimiser's step against w: one length, one dtype, no shared memory."""
    own("w", w)
    g = _check.tensor("g", g, w.shape, w.dtype)
    decay = _check.tensor("decay", decay, w.shape, w.dtype)
    others = {"w": w, "g": g, "decay": decay}
    for name, slot in slots.items():
        _check.apart(own(name, slot, w.shape, w.dtype), **others)
        others[name] = slot
    _check.apart(w, g=g, decay=decay)
    return w, g, decay


def own(name, x, shape=(None,), dtype=None):
    """``x`` if it is a vector that may be changed in place."""
    if isinstance(x, np.ndarray) and not x.flags.writeable:
        raise ValueError(f"{name}: the array is read-only and would be changed in place")
    return _check.tensor(name, x, shape, dtype)
