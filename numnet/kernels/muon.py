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
Here X is kept tall, as Z = X or Xᵀ with the smaller of C and F as its ``side``, and A = Zᵀ·Z, Z = a·Z + Z·(b·A + c·A²).

(4) is for weights that batch norm follows, with the statistics of the batch: their size changes nothing, so they need
no weight decay that holds it; only their direction counts, and η is the part of its own length that a matrix moves
by. A filter has a length of 1, on average. Weights that are no matrix of this kind (depthwise filters, γ and β, the
classifier) are left to ``sgd``.

**All matrices at once.** One matrix after another would leave cores idle: the largest is often half of the work, and a
product of a small one is over in microseconds. So a round is three sweeps over tiles of TILE rows of every matrix: A, then
P = b·A + c·A², then the next Z; and before each one that packs what all its tiles multiply by (see the page ``product``).
A and A² are symmetric: a tile goes up to its diagonal, and mirrors what it has. Sides are filled up with columns of zeros
to a multiple of 16, which stay zeros, so that all matrices have vectors of the same lanes.

Cost: (2) is 5·(3·C²·F + C³) FLOPs for C ≤ F, whatever the batch: 0.34 GFLOP at 256 → 256.

Source: K. Jordan et al., *Muon: An optimizer for hidden layers in neural networks*, 2024, kellerjordan.github.io/posts/muon;
(4) as in his CIFAR-10 trainings. There the step is not divided by its length.

Shapes: w, g, v (n,), float32 or float64; matrices (k, 3) int64: where each starts, C (its rows) and F, rows contiguous. A
matrix whose u is 0 (frozen weights) stays as it is. Raises ValueError for other shapes and dtypes.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from numnet.kernels import _check, vectors
from numnet.kernels._jit import kernel, row
from numnet.kernels._memory import empty, zeros
from numnet.kernels.maps import vectors_of
from numnet.kernels.product import NEW, Packed, Strided, multiply, multiply_all, pack
from numnet.kernels.sgd import own
from numnet.kernels.vector import COLUMNS, scale, sum_of_squares

ROUNDS = 5
TINY = (
    1e-37  # of a length: u below it counts as 0; not much below (3e-39) 1 / length is too large for float32
)
POLYNOMIAL = 3.4445, -4.7750, 2.0315
TILE = 64  # rows of a matrix that a task makes
PARTS = 16  # that tasks are dealt to, the largest first; a thread takes the next few parts of the row


class Matrix(NamedTuple):
    """A matrix of w, and its scratch: Z (rows, side) begins at z, what is (side, side) at a."""

    start: int
    channels: int
    filters: int
    rows: int
    side: int
    z: int
    a: int


class Rule(NamedTuple):
    """The arguments of ``muon_step`` of these names."""

    rate: float
    momentum: float
    nesterov: bool


class Work(NamedTuple):
    """Scratch for all matrices, and the tasks.

    z: two Z, used in turn, and the packed one. a: A, P and the packed one. matrices: a ``Matrix`` a row; whole, squares,
    tall (t, 3): tasks, the number of a matrix and rows lo … hi − 1: all of them, or some of A and P, or of Z.
    """

    z: np.ndarray
    a: np.ndarray
    matrices: np.ndarray
    whole: np.ndarray
    squares: np.ndarray
    tall: np.ndarray
    lanes: np.integer
    columns: np.integer


# ---------------------------------------------------------------------------------------------- row functions


@row
def matrix_of(matrices, m):
    """Row m of the table as a Matrix."""
    r = matrices[m]
    return Matrix(r[0], r[1], r[2], r[3], r[4], r[5], r[6])


@row
def z_of(z, matrix):
    """A matrix's own numbers of scratch as large as Z."""
    return z[matrix.z : matrix.z + matrix.rows * matrix.side]


@row
def a_of(a, matrix):
    """The same of scratch as large as A."""
    return a[matrix.a : matrix.a + matrix.side * matrix.side]


@row
def place(matrix, c, f):
    """Where entry (c, f) lies in Z, which is turned if the matrix is wide."""
    return c * matrix.side + f if matrix.channels >= matrix.filters else f * matrix.side + c


@row
def momentum_direction(g, v, matrix, rule, z):
    """(1): v changes, and z = u. Sixteen rows at a time: as many lines of the cache if z is turned."""
    momentum = v.dtype.type(rule.momentum)
    for low in range(0, matrix.channels, 16):
        for f in range(matrix.filters):
            for c in range(low, min(low + 16, matrix.channels)):
                i = matrix.start + c * matrix.filters + f
                v[i] = momentum * v[i] + g[i]
                z[place(matrix, c, f)] = g[i] + momentum * v[i] if rule.nesterov else v[i]


@row
def move(w, matrix, z, factor):
    """w += factor · z, entry by entry of the matrix."""
    for low in range(0, matrix.channels, 16):
        for f in range(matrix.filters):
            for c in range(low, min(low + 16, matrix.channels)):
                w[matrix.start + c * matrix.filters + f] += factor * z[place(matrix, c, f)]


@row
def mirror(a, side, lo, hi):
    """Of a symmetric matrix (side, side): rows lo … hi − 1, known up to column hi − 1, give columns lo … hi − 1."""
    for j in range(lo):
        for i in range(lo, hi):
            a[j * side + i] = a[i * side + j]


@row
def gram_rows(z, b, lo, hi, a):
    """Rows lo … hi − 1 of A = Zᵀ·Z up to column hi − 1, and their mirror image; b is Z, packed."""
    side = b.columns
    out = Strided(a, lo * side, side, 1)
    multiply(Strided(z, lo, 1, side), hi - lo, b, out, (0, vectors_of(hi, b.lanes)), None, NEW)
    mirror(a, side, lo, hi)


@row
def polynomial_rows(a, b, lo, hi, p):
    """The same of P = b·A + c·A²; b is A, packed."""
    side, third, fifth = b.columns, a.dtype.type(POLYNOMIAL[1]), a.dtype.type(POLYNOMIAL[2])
    out = Strided(p, lo * side, side, 1)
    multiply(Strided(a, lo * side, side, 1), hi - lo, b, out, (0, vectors_of(hi, b.lanes)), None, NEW)
    for i in range(lo, hi):
        for j in range(i * side, i * side + hi):
            p[j] = third * a[j] + fifth * p[j]
    mirror(p, side, lo, hi)


@row
def next_rows(z, b, lo, hi, new):
    """Rows lo … hi − 1 of the next Z = a·Z + Z·P; b is P, packed."""
    side, first = b.columns, z.dtype.type(POLYNOMIAL[0])
    multiply_all(Strided(z, lo * side, side, 1), hi - lo, b, Strided(new, lo * side, side, 1), NEW)
    for i in range(lo * side, hi * side):
        new[i] += first * z[i]


@row
def begin(w, g, v, matrix, work, rule):
    """(1), and z = u / ‖u‖."""
    z = z_of(work.z[0], matrix)
    momentum_direction(g, v, matrix, rule, z)
    length = np.sqrt(sum_of_squares(z, work.columns))
    scale(z, w.dtype.type(0 if length < TINY else 1 / length))


@row
def end(w, matrix, work, rule):
    """(3) and (4)."""
    z, scalar = z_of(work.z[ROUNDS % 2], matrix), w.dtype.type
    norm, length = np.sqrt(sum_of_squares(z, work.columns)), np.sqrt(float(matrix.filters))
    if norm != 0:  # not a number, too: that is not hidden
        move(w, matrix, z, scalar(-rule.rate * length / norm))  # (3)
        moved = w[matrix.start : matrix.start + matrix.channels * matrix.filters]
        scale(moved, scalar(length / np.sqrt(sum_of_squares(moved, work.columns))))  # (4)


# ---------------------------------------------------------------------------------------------- the pass

# The sweeps of a step, in their order; those of ROUND five times. One pass does all of them: eight took a third longer to
# compile (4.3 against 3.2 s).
BEGIN, PACK_Z, GRAM, PACK_A, POLYNOMIAL_OF_A, PACK_P, NEXT, END = range(8)
ROUND = PACK_Z, GRAM, PACK_A, POLYNOMIAL_OF_A, PACK_P, NEXT


@kernel
def _sweep(sweep, turn, w, g, v, work, rule):
    tasks = work.whole
    if sweep == GRAM or sweep == POLYNOMIAL_OF_A:
        tasks = work.squares
    elif sweep == NEXT:
        tasks = work.tall
    old, new, packed_z = work.z[turn % 2], work.z[1 - turn % 2], work.z[2]
    a, p, packed_a = work.a[0], work.a[1], work.a[2]
    for t in prange(tasks.shape[0]):  # each task writes its own rows of one matrix, and their mirror image
        m, lo, hi = tasks[t, 0], tasks[t, 1], tasks[t, 2]
        matrix = matrix_of(work.matrices, m)
        by_z = Packed(z_of(packed_z, matrix), matrix.rows, matrix.side, work.lanes)
        by_a = Packed(a_of(packed_a, matrix), matrix.side, matrix.side, work.lanes)
        if sweep == BEGIN:
            begin(w, g, v, matrix, work, rule)
        elif sweep == PACK_Z:
            pack(z_of(old, matrix), by_z.deep, by_z.columns, by_z.values, work.lanes)
        elif sweep == GRAM:
            gram_rows(z_of(old, matrix), by_z, lo, hi, a_of(a, matrix))
        elif sweep == PACK_A:
            pack(a_of(a, matrix), by_a.deep, by_a.columns, by_a.values, work.lanes)
        elif sweep == POLYNOMIAL_OF_A:
            polynomial_rows(a_of(a, matrix), by_a, lo, hi, a_of(p, matrix))
        elif sweep == PACK_P:
            pack(a_of(p, matrix), by_a.deep, by_a.columns, by_a.values, work.lanes)
        elif sweep == NEXT:
            next_rows(z_of(old, matrix), by_a, lo, hi, z_of(new, matrix))
        else:
            end(w, matrix, work, rule)


# ---------------------------------------------------------------------------------------------- public


def dealt(tasks):
    """Tasks, the largest first, in an order whose halves, quarters … are about equal work."""
    order = sorted(range(PARTS), key=lambda part: f"{part:04b}"[::-1])
    return np.concatenate([tasks[part::PARTS] for part in order])


def tasks_of(matrices, column):
    """Tasks (t, 3) of TILE rows each, for as many rows as that column of the table says."""
    found = [
        (m, lo, min(lo + TILE, row[column]))
        for m, row in enumerate(matrices)
        for lo in range(0, row[column], TILE)
    ]
    found.sort(key=lambda task: -matrices[task[0], 3] * matrices[task[0], 4])
    return dealt(np.array(found, np.int64).reshape(-1, 3))


def work_of(matrices, dtype):
    """The Work of matrices (k, 3): start, C and F of each, the largest first."""
    n = vectors.number_of(COLUMNS)
    rows, sides = matrices[:, 1:].max(axis=1), -(-matrices[:, 1:].min(axis=1) // n) * n
    z, a = np.cumsum(rows * sides), np.cumsum(sides**2)
    table = np.column_stack([matrices, rows, sides, z - rows * sides, a - sides**2])
    return Work(
        z=zeros((3, z[-1] if len(z) else 0), dtype),  # what fills up the sides stays 0
        a=empty((3, a[-1] if len(a) else 0), dtype),
        matrices=table,
        whole=np.column_stack([np.arange(len(table)), 0 * rows, rows]),
        squares=tasks_of(table, 4),
        tall=tasks_of(table, 3),
        lanes=vectors.lanes(n, dtype),
        columns=COLUMNS,
    )


def muon_step(w, g, v, matrices, rate, momentum=0.9, nesterov=True) -> None:
    """One step of Muon for the matrices in w: equations (1) to (4). Changes their numbers in ``w`` and ``v``."""
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
    work = work_of(dealt(matrices[np.argsort(-sizes, kind="stable")]), w.dtype)
    rule = Rule(float(rate), float(momentum), bool(nesterov))
    _sweep(BEGIN, 0, w, g, v, work, rule)
    for turn in range(ROUNDS):
        for sweep in ROUND:
            _sweep(sweep, turn, w, g, v, work, rule)
    _sweep(END, ROUNDS, w, g, v, work, rule)
