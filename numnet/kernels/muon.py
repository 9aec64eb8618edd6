"""Muon: a step of the same length in every direction of a matrix, instead of long ones in a few.

A pointwise convolution's weights are a matrix w (C, F), and its gradient is one, too: a sum over images of few strong
directions and many weak ones. Gradient descent follows the strong ones. Muon (Jordan et al. 2024) keeps a gradient's
singular vectors and makes all its singular values nearly 1, so that the weak directions are learned as fast. With
velocity v, which starts at 0:

(1)  v = μ·v + g,   u = g + μ·v  with ``nesterov``, else v
(2)  X = u / ‖u‖;   five times:  A = X·Xᵀ,   X = a·X + (b·A + c·A²)·X        (a, b, c) = (3.4445, −4.7750, 2.0315)
(3)  w = w − η·√F · X / ‖X‖
(4)  w = w · √F / ‖w‖

‖·‖ is the Frobenius norm, the root of the sum of squares. (2) never computes a singular value: with X = U·S·Vᵀ, it is
U·p(S)·Vᵀ for the odd polynomial p(s) = a·s + b·s³ + c·s⁵, which lifts every s in (0, 1] towards 1 (a Newton–Schulz
iteration; these coefficients are Jordan's, steep at 0: after five rounds all from 0.002 to 1 lie within 0.68 and 1.2).
Whichever of C and F is smaller is the side of A: for C > F the same is done to uᵀ.

(4) is for weights that batch norm follows: their size changes nothing, so they need no weight decay that holds it; only
their direction counts, and η is the part of its own length that a matrix moves by. A filter has a length of 1, on
average. Weights that are no matrix of this kind (depthwise filters, γ and β, the classifier) are left to ``sgd``.

**All matrices at once.** One matrix after another would leave cores idle: the largest is often half of the work, and a
product of a small one is over in microseconds. So a round is three sweeps over the TILE rows at a time of every matrix:
A, then b·A + c·A², then the next X. A and A² are symmetric: a tile goes up to its diagonal, and mirrors what it has.

Cost: (2) is 5·(3·C²·F + C³) FLOPs for C ≤ F, whatever the batch: 0.34 GFLOP at 256 → 256. All twelve matrices of the recipe
``cifar10``, two threads: 31 ms beside 250 ms of forward and backward (one matrix after another: 42 beside 233).

Source: K. Jordan et al., *Muon: An optimizer for hidden layers in neural networks*, 2024, kellerjordan.github.io/posts/muon;
(4) as in his CIFAR-10 trainings. There the step is not divided by its length.

Shapes: w, g, v (n,), float32 or float64; matrices (k, 3) int64: where each starts, C and F, rows contiguous. A matrix
whose u is 0 (frozen weights) stays as it is. Raises ValueError for other shapes and dtypes.
"""

import numpy as np
from numba import prange

from numnet.kernels import _check
from numnet.kernels._blas import one_thread
from numnet.kernels._jit import kernel, row
from numnet.kernels.product import multiply, turned
from numnet.kernels.rows import copy
from numnet.kernels.sgd import own
from numnet.kernels.vector import scale_stretch

ROUNDS = 5
POLYNOMIAL = 3.4445, -4.7750, 2.0315
TILE = 64  # rows of a matrix that a task makes
HANDS = 16  # that tasks are dealt to, the largest first; a thread takes the next few hands of the row


@row
def momentum_direction(g, v, momentum, nesterov, u):
    """(1) for one matrix: u from g, and v changes."""
    for i in range(g.size):
        v[i] = momentum * v[i] + g[i]
        u[i] = g[i] + momentum * v[i] if nesterov else v[i]


@row
def length_of(x):
    """‖x‖ of a vector, summed in float64."""
    total = 0.0
    for i in range(x.size):
        total += np.float64(x[i]) * np.float64(x[i])
    return np.sqrt(total)


@row
def add_scaled(y, x, factor):
    """y += factor · x."""
    for i in range(y.size):
        y[i] += factor * x[i]


@row
def gram(x, lo, hi, own, square, out):
    """Rows lo … hi − 1 of out = own · x + square · x·xᵀ up to column hi − 1, and the mirror image of what is left of lo."""
    product = np.dot(x[lo:hi], x[:hi].T)
    for i in range(lo, hi):
        for j in range(hi):
            out[i, j] = own * x[i, j] + square * product[i - lo, j]
    for j in range(lo):
        for i in range(lo, hi):
            out[j, i] = out[i, j]


@kernel(reassoc=True)  # the sums of squares
def _muon(w, g, v, matrices, places, tasks, xs, a, p, rate, momentum, nesterov):
    """matrices (k, 3); places (k, 4): where X and A of each lie in xs[0], xs[1] and a, p, and their rows and columns;
    tasks (t, 3): a matrix, and the rows lo … hi − 1 of its X."""
    scalar = w.dtype.type
    first, third, fifth = scalar(POLYNOMIAL[0]), scalar(POLYNOMIAL[1]), scalar(POLYNOMIAL[2])
    for m in prange(matrices.shape[0]):  # each writes its own stretches of v and X
        start, channels, filters = matrices[m]
        size, at = channels * filters, places[m, 0]
        u = np.empty(size, w.dtype)
        momentum_direction(g[start : start + size], v[start : start + size], momentum, nesterov, u)
        length = length_of(u)
        if channels > filters:
            u = turned(u.reshape(channels, filters)).reshape(-1)
        copy(u, xs[0, at : at + size])
        scale_stretch(xs[0, at : at + size], scalar(1 / length if length > 0 else 0))
    for turn in range(ROUNDS):
        old, new = xs[turn % 2], xs[1 - turn % 2]
        for t in prange(tasks.shape[0]):  # each task writes its own rows of A, and their mirror image
            m, lo, hi = tasks[t]
            x_at, a_at, rows, columns = places[m]
            x = old[x_at : x_at + rows * columns].reshape(rows, columns)
            gram(x, lo, hi, scalar(0), scalar(1), a[a_at : a_at + rows * rows].reshape(rows, rows))
        for t in prange(tasks.shape[0]):  # the same of b·A + c·A²
            m, lo, hi = tasks[t]
            a_at, rows = places[m, 1], places[m, 2]
            square = a[a_at : a_at + rows * rows].reshape(rows, rows)
            gram(square, lo, hi, third, fifth, p[a_at : a_at + rows * rows].reshape(rows, rows))
        for t in prange(tasks.shape[0]):  # each task writes its own rows of the next X
            m, lo, hi = tasks[t]
            x_at, a_at, rows, columns = places[m]
            x = old[x_at : x_at + rows * columns].reshape(rows, columns)
            polynomial = p[a_at : a_at + rows * rows].reshape(rows, rows)
            lifted = new[x_at + lo * columns : x_at + hi * columns]
            multiply(polynomial[lo:hi], x, lifted.reshape(hi - lo, columns))
            add_scaled(lifted, x[lo:hi].reshape(-1), first)
    for m in prange(matrices.shape[0]):  # each writes its own stretches of w
        start, channels, filters = matrices[m]
        size, at = channels * filters, places[m, 0]
        x = xs[ROUNDS % 2, at : at + size]
        norm, length = length_of(x), np.sqrt(float(filters))
        if norm > 0:
            if channels > filters:
                x = turned(x.reshape(filters, channels)).reshape(-1)
            moved = w[start : start + size]
            add_scaled(moved, x, scalar(-rate * length / norm))  # (3)
            scale_stretch(moved, scalar(length / length_of(moved)))  # (4)


def dealt(tasks):
    """Tasks, the largest first, in an order whose halves, quarters … are about equal work."""
    hands = sorted(range(HANDS), key=lambda hand: f"{hand:04b}"[::-1])
    return np.concatenate([tasks[hand::HANDS] for hand in hands])


def muon_step(w, g, v, matrices, rate, momentum=0.9, nesterov=True) -> None:
    """One step of Muon for the matrices in w: equations (1) to (4). Changes their stretches of ``w`` and ``v``."""
    own("w", w)
    g = _check.tensor("g", g, w.shape, w.dtype)
    _check.apart(own("v", v, w.shape, w.dtype), w=w, g=g)
    _check.apart(w, g=g)
    matrices = np.asarray(matrices, np.int64).reshape(-1, 3)
    sizes, sides = matrices[:, 1] * matrices[:, 2], matrices[:, 1:]
    if matrices.size and (matrices.min() < 0 or sides.min() < 1 or (matrices[:, 0] + sizes).max() > w.size):
        raise ValueError(
            f"matrices: expected rows (start, C, F) of matrices inside {w.size} weights, got {matrices}"
        )
    matrices = dealt(matrices[np.argsort(-sizes, kind="stable")])
    rows, columns = matrices[:, 1:].min(axis=1), matrices[:, 1:].max(axis=1)
    places = np.stack(
        [np.cumsum(rows * columns) - rows * columns, np.cumsum(rows**2) - rows**2, rows, columns], 1
    )
    tasks = [(m, lo, min(lo + TILE, n)) for m, n in enumerate(rows.tolist()) for lo in range(0, n, TILE)]
    tasks.sort(key=lambda task: -rows[task[0]] * columns[task[0]])
    tasks = dealt(np.array(tasks, np.int64).reshape(-1, 3))
    xs = np.empty((2, (rows * columns).sum()), w.dtype)
    a, p = np.empty((2, (rows**2).sum()), w.dtype)
    scalar = w.dtype.type
    with one_thread():
        _muon(w, g, v, matrices, places, tasks, xs, a, p, float(rate), scalar(momentum), bool(nesterov))
