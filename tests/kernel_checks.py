"""Small checks of every kernel page, a few seconds in all as plain Python: what `tests/long/mutations.py` runs on each fault.

``CHECKS``: page -> its checks, each a function without arguments that raises AssertionError (or anything else) if the page
is wrong. `test_kernels_small.py` runs them compiled, in CI.

As plain Python (NUMBA_DISABLE_JIT=1) ``shrink`` makes tiles, parts and chains so short that these small maps are cut into
several of them, and fills memory that nobody has written yet with NaN.
"""

import functools
import sys

import numpy as np
import oracle
from kernel_shapes import ORACLE, Shape, close, draw, folded, product_ends, run
from test_kernels_fused import (
    CHAIN,
    Conv,
    Depthwise,
    Norm,
    Pointwise,
    drawn,
    folded_inference,
    fused,
    separate,
)
from test_kernels_inverted import both

from numnet import kernels
from numnet.kernels import (
    CODES,
    activations,
    batchnorm,
    concat,
    conv,
    dense,
    depthwise,
    exponential,
    folding,
    inverted,
    maps,
    pointwise,
    pooling,
    product,
    residual,
    squeeze_excite,
    vectors,
)
from numnet.kernels.batchnorm import source_of
from numnet.kernels.moments import definition as definition_of_moments
from numnet.kernels.moments import merge_moments, moments_of

SMALLER = {  # constants of pages, for plain Python
    "numnet.kernels.activations": {"TILE": 8},
    "numnet.kernels.batchnorm": {"TILE": 40, "GROUP": 2, "CHAIN": 5},
    "numnet.kernels.moments": {"TILE": 40, "CHAIN": 5},
    "numnet.kernels.conv": {"CACHE": 64, "TRAINING": 6, "INFERENCE": 4},
    "numnet.kernels.concat": {"TILE": 40},
    "numnet.kernels.depthwise": {"HOT": 50, "PIXELS": 10},
    "numnet.kernels.pointwise": {"CACHE": 64, "LEAST": 8, "SMALL": 9},
    "numnet.kernels.product": {"TILE": 4},
    "numnet.kernels.residual": {"TILE": 40},
    "numnet.kernels.squeeze_excite": {"GROUP": 2},
}


def shrink():
    """For plain Python only: small tiles, and NaN where nothing has been written."""
    assert vectors.PLAIN
    for module, constants in SMALLER.items():
        for name, value in constants.items():
            assert hasattr(sys.modules[module], name), (module, name)
            setattr(sys.modules[module], name, value)
    empty = np.empty

    def unwritten(shape, dtype=float, **more):
        a = empty(shape, dtype, **more)
        if a.dtype.kind == "f":
            a.fill(np.nan)
        return a

    np.empty = unwritten
    np.empty_like = lambda a, dtype=None, **more: unwritten(a.shape, dtype or a.dtype)


def page(name):
    """The decorator that enters a check for a page."""

    def enter(check):
        CHECKS.setdefault(name, []).append(check)
        return check

    return enter


CHECKS = {}


def equal(got, want, bound, what=""):
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        close(a, b, bound, f"{what} {i}")


# --- the product and what stands on it ----------------------------------------------------------------------


@page("product")
def products():
    for rows, deep, columns in (
        (1, 1, 1),
        (6, 1, 2),
        (7, 3, 3),
        (13, 4, 9),
        (20, 3, 8),
        (9, 2, 5),
        (3, 5, 12),
        (8, 9, 34),
        (2, 3, 37),
    ):
        x, w = draw((rows, deep), (deep, columns))
        close(product.product(x, w), x @ w, ORACLE, f"product {rows} {deep} {columns}")
        close(product.product(x, w.T.copy(), turned=True), x @ w, ORACLE, f"turned {rows} {deep} {columns}")
    assert product.product(np.empty((0, 2)), np.ones((2, 3))).shape == (0, 3)
    a, b = draw((3, 4), (4, 5))
    y, dx, dw = np.empty((3, 5)), np.empty((3, 4)), np.empty((4, 5))
    product.definition(a, b, y)
    product.definition_dx(y, b, dx)
    product.definition_dw(a, y, dw)
    equal((y, dx, dw), (a @ b, y @ b.T, a.T @ y), ORACLE)


@page("product")
@page("pointwise")
def products_of_inference():
    for rows, deep, columns in (
        (1, 1, 1),
        (7, 3, 5),
        (13, 2, 9),
        (50, 4, 3),
        (6, 3, 40),
        (8, 9, 34),
        (100, 3, 40),
    ):
        x, w, scale, bias, skip = draw((rows, deep), (deep, columns), (columns,), (columns,), (rows, columns))
        for name in ("identity", "relu6", "hswish", "swish"):
            for more in (skip, skip[:0]):
                y = np.full((rows, columns), np.nan)
                product_ends(x, folded(w, bias, scale), CODES[name], more, y)
                want = oracle.activate(name, x @ w * scale + bias)
                close(y, want + more if more.size else want, ORACLE, f"{name} {rows} {deep} {columns}")


@page("product")
def rows_of_four_vectors_and_wide_vectors():
    """NEON's tile of registers has more vectors in a row, AVX-512's vectors more lanes; plain Python can have both."""
    if not vectors.PLAIN:
        return
    held, lanes = product.VECTORS, vectors.LANES
    try:
        for product.VECTORS, vectors.LANES in ((6 - held, lanes), (held, 32)):
            pointwise.VECTORS = product.VECTORS
            products()
            products_of_inference()
            folded_weights()
    finally:
        product.VECTORS = pointwise.VECTORS = held
        vectors.LANES = lanes


def unit(kind, shape, activations_=("relu6", "hswish"), training=True):
    """All of a fused unit against the separate passes; with another reader of x, without dx, and of a finished map."""
    op = kind(shape)
    x, w, dz, norm_x = drawn(op, activations_[0], training)
    (more,) = draw(x.shape)
    got, norm_y = fused(op, x, norm_x, w, dz, activations_[1], training, more=more)
    want = separate(op, x, norm_x, w, dz, norm_y, more)
    for name in got:
        close(got[name], want[name], CHAIN, f"{shape.name} {name}")
    got, norm_y = fused(op, x, norm_x, w, dz, activations_[1], training, with_dx=kind is Conv)
    close(got["dw"], separate(op, x, norm_x, w, dz, norm_y)["dw"], CHAIN, f"{shape.name} dw alone")
    got, norm_y = fused(op, x, None, w, dz, activations_[1], training)
    want = separate(op, x, None, w, dz, norm_y)
    for name in got:
        close(got[name], want[name], CHAIN, f"{shape.name} finished x {name}")


def plain(op, arrays=None):
    """The public kernel against the oracle."""
    x, w, dy = arrays or draw(op.shape.x, op.w, op.y)
    close(op.plain(x, w), op.oracle(x, w), ORACLE, f"{op.shape.name} y")
    equal(op.plain_backward(dy, x, w), op.oracle_backward(dy, x, w), ORACLE, op.shape.name)


def inference(kind, shape):
    op = kind(shape)
    x, w = draw(shape.x, op.w)
    for activation in ("identity", "relu6", "hswish", "swish"):
        close(*folded_inference(op, x, w, activation), ORACLE, f"{shape.name} {activation}")
    if kind is not Depthwise:
        close(*folded_inference(op, x, w, "relu6", with_skip=True), ORACLE, f"{shape.name} skip")


def writers(names, run, *outputs):
    """Run with a look at each tile of the passes of these pages: no number of the outputs is written by two tiles.

    Tiles run one after another here; two threads at one number would be wrong now and then, and never in a test.
    """
    if not vectors.PLAIN:
        return run()
    written = [np.zeros(a.shape, bool) for a in outputs]

    def prange(*span):
        for tile in range(*span):
            before = [a.copy() for a in outputs]
            for a in outputs:
                a.fill(np.nan)
            yield tile
            for a, old, seen in zip(outputs, before, written):
                new = ~np.isnan(a)
                assert not (new & seen).any(), "two tiles write one number"
                seen |= new
                a[~new] = old[~new]

    modules = [sys.modules[f"numnet.kernels.{name}"] for name in names]
    own = [module.prange for module in modules]
    try:
        for module in modules:
            module.prange = prange
        run()
    finally:
        for module, function in zip(modules, own):
            module.prange = function
    for seen in written:
        assert seen.all(), "a number that no tile writes"


def backwards(names, run):
    """Run with the tiles of these pages' passes in the opposite order, as threads may: what one does to another's shows."""
    if not vectors.PLAIN:
        return run()
    modules = [sys.modules[f"numnet.kernels.{name}"] for name in names]
    own = [module.prange for module in modules]
    try:
        for module in modules:
            module.prange = lambda *span: reversed(range(*span))
        run()
    finally:
        for module, function in zip(modules, own):
            module.prange = function


def each_number_has_one_writer(kind, shape):
    op, name = kind(shape), kind.__name__.lower()
    x, w, dz, norm_x = drawn(op)
    source, y, dx = source_of(x, norm_x.pack, norm_x.code), np.zeros(op.y), np.zeros(shape.x)
    skip, unit = draw(op.y)[0].reshape(-1), folded(w, np.zeros(op.y[3]))
    writers([name], lambda: op.inference(x, unit, CODES["relu6"], skip, y), y)
    moments, sums = np.zeros((op.parts, 3, op.y[3])), np.zeros((op.parts, 2, shape.channels))
    writers([name], lambda: op.unit_forward(source, w, y, moments), y)
    upstream, partial = batchnorm.upstream_of(dz), op.partial(np.float64)
    writers([name], lambda: op.unit_backward(upstream, source, w, dx, x[:0], sums, partial), dx)


@page("pointwise")
def pointwise_writers():
    each_number_has_one_writer(Pointwise, Shape(2, 5, 5, 3, 34, 1))
    each_number_has_one_writer(Pointwise, Shape(3, 5, 7, 5, 40, 1))
    each_number_has_one_writer(Pointwise, Shape(1, 3, 2, 9, 21, 1))


@page("conv")
def conv_writers():
    each_number_has_one_writer(Conv, Shape(5, 6, 5, 2, 7, 3))
    each_number_has_one_writer(Conv, Shape(9, 5, 4, 3, 2, 3, 2))


@page("depthwise")
def depthwise_writers():
    each_number_has_one_writer(Depthwise, Shape(5, 13, 5, 3, 1, 3))
    each_number_has_one_writer(Depthwise, Shape(9, 11, 4, 5, 1, 3, 2, multiplier=2))


@page("pointwise")
def pointwise_plain():
    for shape in (
        Shape(1, 1, 1, 1, 1, 1),
        Shape(1, 3, 2, 1, 3, 1),
        Shape(3, 5, 3, 5, 7, 1),
        Shape(2, 9, 5, 3, 2, 1),
        Shape(1, 4, 2, 10, 9, 1),
    ):
        plain(Pointwise(shape))
    x, w, dy = draw((2, 3, 1, 4), (4, 3), (2, 3, 1, 3))
    close(pointwise.definition(x, w), oracle.pointwise(x, w), ORACLE)
    equal(pointwise.definition_backward(dy, x, w), oracle.pointwise_backward(dy, x, w), ORACLE)
    for partial in (np.arange(3 * 2 * 4.0).reshape(3, 2, 4), draw((5, 40, 6))[0]):
        for columns in (partial.shape[2], partial.shape[2] - 1):
            total = np.full((partial.shape[1], columns), np.nan)
            pointwise.sum_parts(partial, total)
            whole = partial.sum(0)
            v = vectors.number_of(vectors.lanes(columns, np.float64))
            if columns == partial.shape[2]:
                close(total, whole, ORACLE)
            elif -(-columns // v) * v == partial.shape[2]:  # the last vector overlaps in the total
                close(
                    total,
                    np.concatenate(
                        [whole[:, :-v], whole[:, -v:][:, -(columns - (partial.shape[2] - v)) :]], 1
                    ),
                    ORACLE,
                )


@page("pointwise")
def pointwise_units():
    unit(Pointwise, Shape(3, 5, 3, 5, 7, 1))
    unit(Pointwise, Shape(2, 9, 5, 3, 2, 1), ("swish", "relu"), False)
    unit(Pointwise, Shape(9, 2, 2, 2, 9, 1), ("hswish", "identity"))
    unit(Pointwise, Shape(2, 3, 2, 1, 3, 1))


# --- windows ------------------------------------------------------------------------------------------------

WINDOWS = [
    Shape(1, 1, 1, 1, 1, 1),
    Shape(2, 5, 6, 3, 5, 3),
    Shape(2, 5, 7, 3, 2, 3, 2),
    Shape(1, 6, 8, 2, 3, 3, 2, "symmetric", 2),
    Shape(1, 7, 6, 3, 2, 5, 2, "symmetric"),
    Shape(2, 4, 5, 2, 5, 5),
    Shape(1, 7, 5, 2, 3, 3, 3, multiplier=3),
    Shape(2, 5, 4, 2, 3, 2, 2),
    Shape(1, 5, 5, 2, 3, 1, 2),
    Shape(1, 6, 6, 3, 4, 3, 2, 0),
    Shape(1, 5, 4, 2, 3, 3, 2, ((2, 0), (0, 3)), 2),
    Shape(1, 3, 3, 2, 2, 3, 1, ((4, 0), (0, 5))),
    Shape(1, 3, 3, 5, 2, 3, 1, ((1, 1), (0, 5))),  # rows of dy longer than those of x
    Shape(1, 3, 7, 3, 2, 3),  # 7 and 8 output pixels, which go together
    Shape(1, 2, 8, 2, 2, 3),
    Shape(1, 4, 5, 2, 3, (1, 5)),
    Shape(1, 6, 5, 3, 3, (5, 3), 2, "symmetric"),
    Shape(1, 5, 8, 2, 2, 4, 3, 2),
    Shape(1, 6, 7, 2, 2, 6),
    Shape(2, 4, 3, 5, 1, 3),
    Shape(1, 3, 11, 3, 2, 3),  # several fours of pixels, and more
    Shape(1, 3, 21, 2, 3, 5, 2),
    Shape(1, 5, 7, 6, 2, 2, 6, ((0, 0), (5, 0))),  # an image that reaches further than its windows do
    Shape(1, 5, 7, 6, 2, 2, 6, ((0, 0), (5, 0)), 2),
]


@page("depthwise")
def depthwise_plain():
    for shape in WINDOWS:
        op = Depthwise(shape)
        plain(op)
        x, w, dy = draw(shape.x, op.w, op.y)
        where = shape.stride, shape.padding
        close(depthwise.definition(x, w, *where), op.oracle(x, w), ORACLE, f"{shape.name} definition")
        equal(depthwise.definition_backward(dy, x, w, *where), op.oracle_backward(dy, x, w), ORACLE)
    plain(Depthwise(Shape(9, 3, 4, 10, 1, 3)))
    plain(Depthwise(Shape(17, 2, 3, 5, 1, 3, 2)))


@page("depthwise")
def depthwise_units():
    unit(Depthwise, WINDOWS[1])
    unit(Depthwise, WINDOWS[2], ("swish", "relu"), False)
    unit(Depthwise, WINDOWS[3], ("sigmoid", "hsigmoid"))
    unit(Depthwise, Shape(18, 3, 2, 5, 1, 5, 1), ("hswish", "identity"))
    for shape in WINDOWS:
        inference(Depthwise, shape)
    inference(Depthwise, Shape(1, 11, 3, 5, 1, 3))
    inference(Depthwise, Shape(1, 13, 3, 3, 1, 3, 2))


@page("conv")
def conv_plain():
    for shape in WINDOWS:
        op = Conv(shape)
        plain(op)
        x, w, dy = draw(shape.x, op.w, op.y)
        where = shape.stride, shape.padding
        close(conv.definition(x, w, *where), op.oracle(x, w), ORACLE, f"{shape.name} definition")
        equal(conv.definition_backward(dy, x, w, *where), op.oracle_backward(dy, x, w), ORACLE)
    plain(Conv(Shape(9, 3, 4, 2, 3, 3)))
    plain(Conv(Shape(17, 2, 3, 1, 5, 3, 2)))


@page("conv")
def conv_units():
    unit(Conv, WINDOWS[1])
    unit(Conv, WINDOWS[2], ("swish", "relu"), False)
    unit(Conv, Shape(10, 3, 2, 2, 3, 3, 1), ("hswish", "identity"))
    for shape in WINDOWS:
        inference(Conv, shape)


# --- batch norm and activations -----------------------------------------------------------------------------


@page("batchnorm")
def batch_norm():
    # 45: more than a tile has
    for shape in ((1, 1, 1, 2), (2, 3, 4, 3), (9, 5, 1), (3, 7, 2, 10), (50, 2), (5, 45)):
        for training in (True, False):
            if training and shape[:3] == (1, 1, 1):
                continue
            for activation in CODES if shape[-1] == 3 else ("relu6", "swish", "hsigmoid"):
                x, dy = draw(shape, shape)
                x = 2 * x + 1
                norm = Norm(x, activation, training)
                close(norm.finished, norm.oracle(x), ORACLE, f"{shape} {activation}")
                equal(norm.backward(dy, x), norm.oracle_backward(dy, x), ORACLE * 10, f"{shape} {activation}")
    x = draw((3, 4, 2, 5))[0]
    one = np.ones(5)
    for unbiased in (True, False):
        mean, variance = draw((5,), (5,), seed=3)
        old = mean.copy(), variance.copy()
        options = {"training": True, "momentum": 0.8, "unbiased": unbiased, "eps": 0.5}
        _, pack = kernels.batchnorm_forward(x, one, one, mean, variance, **options)
        rows = x.reshape(-1, 5)
        close(mean, 0.8 * old[0] + 0.2 * rows.mean(0), ORACLE, "running mean")
        close(variance, 0.8 * old[1] + 0.2 * rows.var(0, ddof=int(unbiased)), ORACLE, "running variance")
        close(pack[1], 1 / np.sqrt(rows.var(0) + 0.5), ORACLE, "inv_std")
    y, mean, inv_std = batchnorm.definition(x, 2 * one, 3 * one, 0.5)
    want, batch_mean, batch_variance = oracle.batchnorm_training(x, 2 * one, 3 * one, 0.5)
    equal((y, mean, inv_std), (want, batch_mean, 1 / np.sqrt(batch_variance + 0.5)), ORACLE)
    got = batchnorm.definition_backward(y, x, 2 * one, mean, inv_std)
    equal(got, oracle.batchnorm_training_backward(y, x, 2 * one, 3 * one, 0.5), ORACLE)


@page("batchnorm")
def hardly_any_numbers():
    """One number a channel: x̂ = 0, so dx = 0; and a part without any, as ranks without images have."""
    x, dy = draw((1, 3), (1, 3))
    norm = Norm(x, "identity")
    dx, dgamma, dbeta = norm.backward(dy, x)
    assert np.abs(dx).max() <= 1e-12 and np.abs(dgamma).max() <= 1e-12
    close(dbeta, dy[0], ORACLE)
    (x,) = draw((6, 3))
    y, _ = kernels.batchnorm_forward(x, np.ones(3), np.zeros(3), *np.zeros((2, 3)), training=True, eps=0)
    close(y, (x - x.mean(0)) / x.std(0), ORACLE)
    moments = np.insert(moments_of(x), [0, 3], np.zeros((2, 3, 3)), axis=0)
    pack, one, running = np.full((4, 3), np.nan), np.ones(3), np.zeros((2, 3))
    batchnorm.close_moments(moments, one, one, 0.1, batchnorm.Running(*running, 0.5, False), pack)
    close(pack[0], x.mean(0), ORACLE)
    close(pack[1], 1 / np.sqrt(x.var(0) + 0.1), ORACLE)
    single = np.stack([one, one, np.zeros(3)])[None]  # one pixel
    batchnorm.close_moments(single, one, one, 0.1, batchnorm.Running(*running, 0.0, True), pack)
    assert np.isfinite(running).all()
    refuses(lambda: kernels.batchnorm_forward(one, one, one, *running, training=True), "x")
    refuses(lambda: kernels.batchnorm_backward(one, one, pack), "x")


def refuses(call, word):
    """Assert that the call raises a ValueError which names this."""
    try:
        call()
    except ValueError as error:
        assert word in str(error)
    else:
        raise AssertionError("it was taken")


@page("batchnorm")
@page("moments")
def means_and_variances():
    for shape in ((1, 3), (7, 3), (40, 5), (33, 2), (100, 1)):
        x = draw(shape)[0] * [1] + 1e5  # the mean far from 0
        x[0] += 1e3  # and the first pixel, which the sums first stand around, far from the mean
        parts = moments_of(x)
        assert parts.shape == (maps.parts_of(shape[0]), 3, shape[1])
        rest = x
        for part in parts:
            count = int(part[0, 0])
            assert (part[0] == count).all() and count > 0
            mine, rest = rest[:count], rest[count:]
            assert np.abs(part[1] - mine.mean(0)).max() <= 1e-10
            want = ((mine - mine.mean(0)) ** 2).sum(0)
            assert (np.abs(part[2] - want) <= 1e-12 * want + 1e-9).all()
        assert len(rest) == 0
        whole = np.zeros((3, shape[1]))
        merge_moments(parts, whole)
        mean, m2 = definition_of_moments(x)
        assert np.abs(whole[1] - mean).max() <= 1e-9 and np.abs(whole[2] - m2).max() <= 1e-9 * max(
            m2.max(), 1
        )
    assert [maps.parts_of(n, least) for n, least in ((0, 1), (7, 1), (90, 1), (31, 8))] == [1, 4, 8, 2]


@page("batchnorm")
def gradient_sums():
    x, dy, pack = draw((23, 5), (23, 5), (4, 5))
    for activation in ("identity", "hswish", "swish"):
        normal = (x - pack[0]) * pack[1]
        du = dy * oracle.derivative(activation, normal * pack[2] + pack[3])
        sums = batchnorm.gradient_sums_of(dy, source_of(x, pack, CODES[activation]))
        close(sums.sum(0), np.stack([du.sum(0), (du * normal).sum(0)]), ORACLE, activation)
        assert len(batchnorm.gradient_sums_of(dy, source_of(x, pack, CODES[activation]), 3)) == 3


@page("activations")
@page("exponential")
def all_activations():
    for size in (1, 2, 3, 7, 8, 9, 24, 50):
        x, dy = draw((size,), (size,))
        x *= 4
        for name in CODES:
            close(kernels.activation_forward(x, name), oracle.activate(name, x), ORACLE, name)
            want = oracle.activate_backward(dy, name, x)
            close(kernels.activation_backward(dy, x, name), want, ORACLE, name)
            close(activations.definition(x, name), oracle.activate(name, x), ORACLE, name)
            close(activations.definition_backward(dy, x, name), want, ORACLE, name)
        a, dx = np.empty(size), np.empty(size)
        if size % 8 == 0:  # else the last vector of a tile overlaps the one before
            writers(["activations"], lambda x=x, a=a: kernels.activation_forward(x, "relu", out=a), a)
            writers(["activations"], lambda x=x, dx=dx: kernels.activation_backward(x, x, "relu", out=dx), dx)
    kinks = np.array([-3, -2.5, -0.0, 0, 2.5, 3, 6, 1, -9, 9])
    near = np.concatenate([kinks, np.nextafter(kinks, -9), np.nextafter(kinks, 9)])
    for name in CODES:
        (d,) = draw(near.shape)
        for got, want in (
            (kernels.activation_forward(near, name), oracle.activate(name, near)),
            (kernels.activation_backward(d, near, name), oracle.activate_backward(d, name, near)),
        ):
            assert (np.abs(got - want) <= 1e-14).all(), (name, near, got, want)
    for beta in (0.5, -2.0):
        close(kernels.activation_forward(near, "swish", beta), oracle.activate("swish", near, beta), 1e-14)
        want = oracle.activate_backward(near, "swish", near, beta)
        close(kernels.activation_backward(near, near, "swish", beta), want, 1e-14)
    huge = np.array([1e308, -1e308, 800, -800, 37, -37])
    for name in ("sigmoid", "swish", "hswish"):
        assert np.isfinite(kernels.activation_forward(huge, name)).all()
        assert np.isfinite(kernels.activation_backward(np.ones(6), huge, name)).all()
    assert (kernels.activation_backward(np.ones(2), huge[:2], "swish", 2.0) == [1, 0]).all()
    nan = np.array([np.nan, 1.0])
    for name in CODES:
        assert np.isnan(kernels.activation_forward(nan, name)).tolist() == [True, False]
        assert np.isnan(kernels.activation_backward(nan, np.array([-9.0, 1.0]), name)).tolist() == [
            True,
            False,
        ]


@page("exponential")
def exponentials():
    for dtype, low, high, bound in ((np.float64, -708, 709, 4e-16), (np.float32, -87, 88, 2.5e-7)):
        x = np.concatenate([np.linspace(low, high, 3000), np.linspace(-2, 2, 2000)]).astype(dtype)
        got = -1 + 1 / kernels.activation_forward(-x[np.abs(x) < 30].astype(np.float64), "sigmoid")
        want = np.exp(x[np.abs(x) < 30].astype(np.float64))
        assert np.abs(got - want).max() <= 1e-12 * want.max()
        if vectors.PLAIN:
            exp = exponential.exp
            close(exp(x) / np.exp(x.astype(np.float64)), np.ones_like(x), bound, str(dtype))
            ends = exp(np.array([low - 5, high + 5, np.nan, 0], dtype))
            assert np.array_equal(ends, np.array([0, np.inf, np.nan, 1], dtype), equal_nan=True)
            constants = exponential._Float64 if dtype == np.float64 else exponential._Float32
            assert (exp(np.array([constants.LOW, constants.LOW], dtype)) > 0).all()
            assert np.isfinite(exp(np.array([constants.HIGH, constants.HIGH], dtype))).all()
            below, above = np.nextafter(constants.LOW, dtype(-1e9)), np.nextafter(constants.HIGH, dtype(1e9))
            assert (exp(np.array([below, above], dtype)) == [0, np.inf]).all()


# --- pools, gates, sums, copies -----------------------------------------------------------------------------


@page("pooling")
def pools():
    for shape in ((1, 1, 1, 1), (2, 3, 2, 3), (3, 4, 5, 10)):
        x, dy = draw(shape, (shape[0], shape[3]))
        close(kernels.global_average_forward(x), oracle.global_average_pool(x), ORACLE)
        want = oracle.global_average_pool_backward(dy, shape)
        close(kernels.global_average_backward(dy, shape), want, ORACLE)
        norm = Norm(np.concatenate([x, 2 * x + 1]), "hswish")
        y = np.full((shape[0], shape[3]), np.nan)
        pooling.unit_average(source_of(x, norm.pack, norm.code), y)
        close(y, norm.finished[: shape[0]].mean((1, 2)), ORACLE)
        x = np.round(x)
        y, where = kernels.global_max_forward(x)
        assert (y == oracle.global_max_pool(x)).all()
        assert (kernels.global_max_backward(dy, where, shape) == oracle.global_max_pool_backward(dy, x)).all()
        close(pooling.definition_average(x), oracle.global_average_pool(x), ORACLE)
        close(pooling.definition_average_backward(dy, shape), want, ORACLE)
        for side, stride, padding in ((1, 1, 0), (2, 1, "same"), (3, 2, 1), (3, 3, ((1, 0), (2, 1)))):
            if min(shape[1:3]) == 1 and side > 1:
                continue
            pads = oracle.resolve(padding, shape[1:3], side, stride)
            y, where = kernels.max_forward(x, side, stride, padding)
            want = oracle.max_pool(x, side, stride, pads)
            assert (y == want).all()
            (d,) = draw(y.shape)
            back = oracle.max_pool_backward(d, x, side, stride, pads)
            close(kernels.max_backward(d, where, shape), back, ORACLE)
            got = pooling.definition_maximum(x, side, stride, padding)
            assert (got[0] == want).all() and (got[1] == where).all()
            close(pooling.definition_maximum_backward(d, where, shape), back, ORACLE)
    x = np.array([1, np.nan, 3, np.nan, 0, 2]).reshape(1, 2, 3, 1)
    y, where = kernels.global_max_forward(x)
    assert np.isnan(y).all() and where.item() == 1
    for padding in (2, ((0, 2), (0, 0)), ((1, 1), (3, 0))):  # a window in the padding altogether
        refuses(functools.partial(kernels.max_forward, np.ones((1, 4, 4, 1)), 2, 1, padding), "padding")


@page("squeeze_excite")
def gates():
    for shape in ((1, 1, 1, 1), (2, 3, 5, 7), (3, 4, 2, 10), (9, 2, 1, 3)):
        x, dy, gate, ds = draw(shape, shape, (shape[0], shape[3]), (shape[0], shape[3]))
        y = squeeze_excite.scale_forward(x, gate)
        close(y, x * gate[:, None, None], ORACLE)
        dx, dgate = squeeze_excite.scale_backward(dy, x, gate)
        equal((dx, dgate), (dy * gate[:, None, None], (dy * x).sum((1, 2))), ORACLE)
        close(squeeze_excite.definition(x, gate), y, ORACLE)
        got = squeeze_excite.definition_backward(dy, x, gate, ds)
        da = dy * gate[:, None, None] + ds[:, None, None] / (shape[1] * shape[2])
        equal(got, (da, dgate), ORACLE)
        norm = Norm(np.concatenate([x, 1 - x]), "hswish")
        source = source_of(x, norm.pack, norm.code)
        finished, y, dgate = norm.finished[: shape[0]], np.full(shape, np.nan), np.full(gate.shape, np.nan)
        squeeze_excite.unit_forward(source, gate, y)
        close(y, finished * gate[:, None, None], ORACLE)
        squeeze_excite.unit_gate_gradient(dy, source, dgate)
        close(dgate, (dy * finished).sum((1, 2)), ORACLE)
        sums, dx = np.zeros((min(8, shape[0]), 2, shape[3])), np.full(shape, np.nan)
        squeeze_excite.unit_backward(dy, gate, ds, source, dx, sums)
        close(dx, da, ORACLE)
        close(sums.sum(0), batchnorm.gradient_sums_of(da, source).sum(0), ORACLE * 10)


@page("residual")
@page("concat")
def sums_and_copies():
    for shape in ((1, 1, 1, 1), (2, 3, 5, 7), (1, 9, 3, 10), (5, 4, 2, 3), (1, 3, 2, 45)):
        a, b = draw(shape, shape)
        close(residual.add_forward(a, b), a + b, ORACLE)
        close(residual.definition(a, b), a + b, ORACLE)
        n_a, n_b = (
            Norm(np.concatenate([a, 1 - a]), "hswish"),
            Norm(np.concatenate([b, 1 + b]), "relu6", seed=1),
        )
        of_a, of_b = source_of(a, n_a.pack, n_a.code), source_of(b, n_b.pack, n_b.code)
        f_a, f_b = n_a.finished[: len(a)], n_b.finished[: len(a)]
        for first, second, want in (
            (of_a, source_of(b), f_a + b),
            (of_a, of_b, f_a + f_b),
            (source_of(a), of_b, a + f_b),
        ):
            y = np.full(shape, np.nan)
            residual.unit_forward(first, second, y)
            close(y, want, ORACLE)
        dx = a.copy()
        residual.unit_add_gradient(dx, b)
        close(dx, a + b, ORACLE)
        y = np.full((*shape[:3], 2 * shape[3] + 3), np.nan)
        concat.unit_forward(source_of(a), 2, y)
        concat.unit_forward(of_b, 2 + shape[3], y)
        close(y[..., 2:-1], np.concatenate([a, f_b], 3), ORACLE)
        assert np.isnan(y[..., :2]).all() and np.isnan(y[..., -1]).all()
        back = np.full(shape, np.nan)
        concat.unit_backward(np.nan_to_num(y), 2, back)
        close(back, a, ORACLE)


@page("conv")
@page("depthwise")
@page("pointwise")
@page("activations")
@page("pooling")
@page("squeeze_excite")
@page("residual")
def batches_of_nothing():
    none, full = np.empty((0, 4, 4, 3)), np.ones((3, 3, 3, 2))
    for name, w in (("conv", full), ("depthwise", full), ("pointwise", full[0, 0])):
        forward, backward = getattr(kernels, f"{name}_forward"), getattr(kernels, f"{name}_backward")
        y = forward(none, w)
        dx, dw = backward(y, none, w)
        assert y.shape[0] == 0 and dx.shape == none.shape and (dw == 0).all() and dw.shape == w.shape
    assert (
        kernels.activation_backward(none, kernels.activation_forward(none, "swish"), "swish").shape
        == none.shape
    )
    assert (
        kernels.global_average_backward(kernels.global_average_forward(none), none.shape).shape == none.shape
    )
    dx, dgate = squeeze_excite.scale_backward(
        none, squeeze_excite.scale_forward(none, none[:, 0, 0]), none[:, 0, 0]
    )
    assert dx.shape == none.shape and dgate.shape == (0, 3)
    assert residual.add_forward(none, none).shape == none.shape


@page("batchnorm")
@page("pooling")
@page("squeeze_excite")
@page("residual")
@page("concat")
def writers_of_maps():
    for shape in ((3, 4, 5, 7), (9, 2, 3, 10), (1, 3, 1, 45)):
        x, dy, gate, ds = draw(shape, shape, (shape[0], shape[3]), (shape[0], shape[3]))
        norm, y, mean = Norm(np.concatenate([x, 1 - x]), "hswish"), np.zeros(shape), np.zeros(gate.shape)
        source, sums = source_of(x, norm.pack, norm.code), np.zeros((min(8, shape[0]), 2, shape[3]))
        upstream = batchnorm.upstream_of(dy, x, norm.pack, norm.pack[:2].copy(), norm.code)
        wide = np.zeros((*shape[:3], shape[3] + 5))
        for name, function, arguments, output in (
            ("batchnorm", batchnorm.normalised, (source, y), y),
            ("batchnorm", batchnorm.unit_gradient_of, (upstream, y), y),
            ("pooling", pooling.unit_average, (source, mean), mean),
            ("pooling", kernels.global_average_backward, (gate, shape, y), y),
            ("squeeze_excite", squeeze_excite.unit_forward, (source, gate, y), y),
            ("squeeze_excite", squeeze_excite.unit_gate_gradient, (dy, source, mean), mean),
            ("squeeze_excite", squeeze_excite.unit_backward, (dy, gate, ds, source, y, sums), y),
            ("residual", residual.unit_forward, (source, source, y), y),
            ("concat", concat.unit_backward, (wide, 2, y), y),
        ):
            writers([name], functools.partial(function, *arguments), output)


# --- inference ----------------------------------------------------------------------------------------------


@page("folding")
def scales_and_shifts():
    flat, buffers = draw((20,), (20,))
    buffers[10:] **= 2
    places, eps = np.array([[2, 3, 7, 1, 12, 6], [3, 10, 14, 4, 16, 0]]), np.array([0.1, 0.2])
    out = np.full(10, np.nan)
    folding.fold_all(flat, buffers, places, eps, out)
    scale = [*(flat[3:5] / np.sqrt(buffers[12:14] + 0.1)), *(flat[10:13] / np.sqrt(buffers[16:19] + 0.2))]
    close(out[[6, 7, 0, 1, 2]], scale, ORACLE)
    close(out[[8, 9, 3, 4, 5]], [*flat[7:9], *flat[14:17]] - buffers[[1, 2, 4, 5, 6]] * scale, ORACLE)


@page("folding")
def folded_weights():
    for deep, columns in ((1, 1), (3, 5), (2, 9), (4, 2), (3, 34), (5, 3)):
        w, scale, x = draw((deep, columns), (columns,), (7, deep))
        y, taps = np.full((7, columns), np.nan), np.full(deep * columns, np.nan)
        product_ends(x, folded(w, np.zeros(columns), scale), 0, y[:0], y)
        close(y, x @ (w * scale), ORACLE)
        folding.scale_taps(w.reshape(-1), scale, taps)
        close(taps, (w * scale).reshape(-1), ORACLE)


@page("dense")
def dense_layers():
    for rows, deep, columns in ((1, 1, 1), (3, 2, 1), (2, 5, 9), (4, 1, 3), (3, 7, 2)):
        x, w, b, dy = draw((rows, deep), (deep, columns), (columns,), (rows, columns))
        want, back = x @ w + b, (dy @ w.T, x.T @ dy, dy.sum(axis=0))
        close(kernels.dense_forward(x, w, b), want, ORACLE)
        close(kernels.dense_forward(x, w), x @ w, ORACLE)
        equal(kernels.dense_backward(dy, x, w), back, ORACLE)
        close(dense.definition(x, w, b), want, ORACLE)
        equal(dense.definition_backward(dy, x, w), back, ORACLE)


@page("dense")
def a_few_images():
    for rows, deep, columns in (
        (1, 1, 1),
        (3, 4, 2),
        (2, 3, 5),
        (1, 5, 16),
        (2, 2, 17),
        (1, 3, 35),
        (4, 2, 70),
    ):
        x, w, scale, shift, skip = draw(
            (rows, deep), (deep, columns), (columns,), (columns,), (rows, columns)
        )
        for name in ("identity", "relu6", "hswish"):
            for more in (skip, skip[:0]):
                y, unit = np.full((rows, columns), np.nan), folded(w, shift, scale)
                end = functools.partial(product_ends, x, unit, CODES[name], more, y, dense)
                writers(["dense"], end, y)
                want = oracle.activate(name, x @ w * scale + shift)
                want = want + more if more.size else want
                for way in (end, functools.partial(backwards, ["dense"], end)):
                    way()
                    close(y, want, ORACLE, f"{name} {rows} {deep} {columns}")


@page("inverted")
def squeeze_excite_alone():
    for n, h, w, c, r in ((1, 1, 1, 1, 1), (3, 4, 2, 5, 3), (2, 3, 3, 10, 7)):
        x, w1, b1, w2, b2 = draw((n, h, w, c), (c, r), (r,), (r, c), (c,))
        layers, v_r = (*folded(w1, b1), *folded(w2, b2)), vectors.lanes(r, np.float64)
        excite = inverted.Excite(*layers, v_r, CODES["hsigmoid"])
        y = np.full(x.shape, np.nan)
        step = inverted.squeeze_excite_step(source_of(x), excite, y)
        writers(["inverted"], functools.partial(run, step), y)
        gate = oracle.activate("hsigmoid", np.maximum(x.mean((1, 2)) @ w1 + b1, 0) @ w2 + b2)
        close(y, x * gate[:, None, None], ORACLE)


@page("inverted")
def inverted_residuals():
    for block in (
        (1, 1, 1, 1, 1, 1, 3, 1, "same", 0),
        (2, 4, 5, 3, 5, 3, 3, 1, "same", 0),
        (3, 6, 4, 2, 7, 3, 3, 2, "same", 0),
        (1, 7, 5, 2, 6, 3, 5, 2, "symmetric", 0),
        (2, 5, 4, 3, None, 5, 3, 1, "same", 0),
        (3, 4, 3, 2, 5, 2, 5, 1, "same", 3),
        (2, 5, 4, 3, None, 2, 3, 2, "symmetric", 2),
    ):
        p = both(block)[0].shape[1]
        for band in (1, 2, 3, None) if not block[-1] else (None,):
            close(*both(block, cut=band and (1, band)), ORACLE, f"{block} bands of {band}")
        close(*both(block, cut=(2, p)), ORACLE, f"{block} two images a tile")
