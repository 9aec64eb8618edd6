"""Blocks and the three small kernels they need: sums of maps, scaling by a gate, concatenation."""

import numba
import numpy as np
import pytest
from kernel_shapes import DIFFERENCES, ORACLE, close, differences, dot_product_test, draw

import numnet
from numnet.blocks import (
    Branches,
    Conv,
    Depthwise,
    InvertedResidual,
    Norm,
    Pointwise,
    Residual,
    Separable,
    Sequence,
    SqueezeExcite,
)
from numnet.kernels import concat, residual, squeeze_excite
from numnet.kernels.activations import CODES
from numnet.kernels.batchnorm import source_of
from numnet.layers import Activation, Dense, Dropout, Flatten, GlobalAverage, GlobalMax, MaxPool

SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (3, 4, 4, 96), (1, 2, 2, 300), (11, 1, 1, 20), (2, 48, 56, 8)]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def a_pack(channels, seed=3):
    """Means, inverse deviations, γ and β of so many channels, (4, C)."""
    rng = np.random.default_rng(seed)
    return rng.uniform([[-1], [0.5], [0.5], [-1]], [[1], [2], [1.5], [1]], size=(4, channels))


def finished(x, pack, slope=False):
    """relu6(BN(x)), or with ``slope`` x̂ and the derivative by u."""
    mean, inv_std, gamma, beta = pack
    normal = (x - mean) * inv_std
    u = normal * gamma + beta
    return (normal, (u > 0) & (u < 6)) if slope else np.clip(u, 0, 6)


# --- sums of maps -------------------------------------------------------------------------------------------


@each_shape
def test_sum_of_two_maps(shape):
    a, b = draw(shape, shape)
    close(residual.add_forward(a, b), a + b, ORACLE)
    pack_a, pack_b, y = a_pack(shape[3]), a_pack(shape[3], 4), np.empty(shape)
    code = CODES["relu6"]
    for first, second, want in (
        ((a, pack_a, code), (b,), finished(a, pack_a) + b),
        ((a,), (b, pack_b, code), a + finished(b, pack_b)),
        ((a, pack_a, code), (b, pack_b, code), finished(a, pack_a) + finished(b, pack_b)),
    ):
        residual.unit_forward(source_of(*first), source_of(*second), y)
        close(y, want, ORACLE)


@each_shape
def test_sum_of_two_gradients(shape):
    dx, more = draw(shape, shape)
    want = dx + more
    residual.unit_add_gradient(dx, more)
    close(dx, want, ORACLE)


def test_sums_of_maps_refuse_what_does_not_fit():
    a, b = draw((2, 3, 3, 4), (2, 3, 3, 5))
    with pytest.raises(ValueError, match="b: expected shape"):
        residual.add_forward(a, b)
    with pytest.raises(ValueError, match="shares memory"):
        residual.add_forward(a, a, out=a)
    assert residual.add_forward(a[:0].copy(), a[:0].copy()).shape == (0, 3, 3, 4)


# --- gates --------------------------------------------------------------------------------------------------


@each_shape
def test_scaling_by_a_gate(shape):
    x, dy, gate = draw(shape, shape, (shape[0], shape[3]))
    y = squeeze_excite.scale_forward(x, gate)
    close(y, x * gate[:, None, None], ORACLE)
    dx, dgate = squeeze_excite.scale_backward(dy, x, gate)
    close(dx, dy * gate[:, None, None], ORACLE)
    close(dgate, (dy * x).sum((1, 2)), ORACLE)
    dot_product_test(dy, y, (dx, x), (dgate, gate))


@each_shape
def test_the_passes_finish_a_raw_map_on_the_way(shape):
    x, dy, gate, ds = draw(shape, shape, (shape[0], shape[3]), (shape[0], shape[3]))
    pack, code = a_pack(shape[3]), CODES["relu6"]
    a, y, dgate, da = finished(x, pack), np.empty(shape), np.empty_like(gate), np.empty(shape)
    source = source_of(x, pack, code)
    squeeze_excite.unit_forward(source, gate, y)
    close(y, a * gate[:, None, None], ORACLE)
    squeeze_excite.unit_gate_gradient(dy, source, dgate)
    close(dgate, (dy * a).sum((1, 2)), 1e-11)
    sums = np.zeros((min(8, shape[0]), 2, shape[3]))
    squeeze_excite.unit_backward(dy, gate, ds, source, da, sums)
    want = dy * gate[:, None, None] + ds[:, None, None] / (shape[1] * shape[2])
    close(da, want, ORACLE)
    normal, slope = finished(x, pack, slope=True)
    close(
        sums.sum(0), np.stack([(want * slope).sum((0, 1, 2)), (want * slope * normal).sum((0, 1, 2))]), 1e-11
    )


def test_scaling_refuses_what_does_not_fit():
    x, gate = draw((2, 3, 3, 4), (2, 5))
    with pytest.raises(ValueError, match="gate: expected shape"):
        squeeze_excite.scale_forward(x, gate)
    with pytest.raises(ValueError, match="dy: expected shape"):
        squeeze_excite.scale_backward(x[:1].copy(), x, gate[:, :4].copy())


# --- concatenation ------------------------------------------------------------------------------------------


def test_concatenation_and_back():
    a, b = draw((2, 3, 5, 7), (2, 3, 5, 96))
    pack, y = a_pack(96), np.empty((2, 3, 5, 103))
    concat.unit_forward(source_of(a), 0, y)
    concat.unit_forward(source_of(b, pack, CODES["relu6"]), 7, y)
    close(y, np.concatenate([a, finished(b, pack)], axis=3), ORACLE)
    back = np.empty_like(b)
    concat.unit_backward(y, 7, back)
    np.testing.assert_array_equal(back, y[..., 7:])


# --- blocks: dx and every gradient are slopes ---------------------------------------------------------------

SMOOTH = {"activation": "swish", "norm": Norm(eps=1e-2)}  # no kinks for the differences to step over


def before(channels=4):
    """A unit whose output is pending, so that the block after it meets a raw map."""
    return Pointwise(channels, **SMOOTH, name="before")


BLOCKS = {
    "conv": lambda: [Conv(4, 3, 2, **SMOOTH)],
    "conv with bias": lambda: [before(), Conv(4, 3, 1, "symmetric", activation="swish", bias=True)],
    "separable": lambda: [Separable(5, 2, multiplier=2, **SMOOTH), Separable(4, 1, **SMOOTH)],
    "bare depthwise": lambda: [
        Depthwise(3),
        Pointwise(4, **SMOOTH),
    ],  # nothing between: the article's first block
    "inverted residual": lambda: [InvertedResidual(3, expanded=8, **SMOOTH)],
    "after a pending map": lambda: [before(), InvertedResidual(4, expanded=8, **SMOOTH)],
    "twice": lambda: [before(), *(InvertedResidual(4, expanded=6, **SMOOTH, name=n) for n in "ab")],
    "stride 2": lambda: [before(), InvertedResidual(4, 2, expanded=8, kernel=5, **SMOOTH)],
    "no expansion": lambda: [before(), InvertedResidual(4, padding="symmetric", **SMOOTH)],
    "activated bottleneck": lambda: [
        before(),
        InvertedResidual(4, expanded=8, bottleneck_activation="swish", **SMOOTH),
    ],
    "residual of standard convolutions": lambda: [
        before(),
        Residual(Conv(4, 3, 1, **SMOOTH), name="one"),
        Residual(Conv(6, 3, 1, **SMOOTH), Pointwise(4, **SMOOTH), name="two"),
    ],
    "residual of depthwise and standard": lambda: [
        before(),
        Residual(Depthwise(3, **SMOOTH), Conv(4, **SMOOTH)),
    ],
    "residual that adds nothing": lambda: [
        before(),
        Residual(Conv(4, 3, 2, **SMOOTH)),
        Residual(Conv(5, **SMOOTH)),
    ],
    "no skip": lambda: [before(), InvertedResidual(4, expanded=8, skip=False, **SMOOTH)],
    "squeezed": lambda: [before(), InvertedResidual(4, expanded=8, squeeze=3, gate="sigmoid", **SMOOTH)],
    "squeeze-excite alone": lambda: [SqueezeExcite(2, gate="sigmoid")],
    "branches": lambda: [
        before(),
        Branches(
            Pointwise(2, **SMOOTH, name="a"),
            Sequence(Pointwise(3, **SMOOTH), Conv(2, **SMOOTH), name="b"),
            Sequence(Activation("swish"), Pointwise(2, **SMOOTH), name="c"),
        ),
        Pointwise(3, **SMOOTH, name="after"),
    ],
    "head": lambda: [before(), GlobalAverage(), Dense(5), Activation("swish"), Dropout(0.5), Dense(3)],
    "paddle's dropout": lambda: [GlobalAverage(), Dropout(0.5, downscale=True), Dense(3, bias=False)],
    "pools": lambda: [before(), MaxPool(2, 2), GlobalMax(), Dense(3)],
    "flattened": lambda: [before(), MaxPool(3, 2, 1, ceil=True), Flatten(), Dense(3)],
}


def a_net(name, shape=(5, 4, 3), seed=0):
    """The block as a net of its own, float64, with γ, β and biases off 1 and 0."""
    net = numnet.Net(BLOCKS[name](), shape, dtype="float64", seed=seed)
    net.flat += 0.3 * np.random.default_rng(seed).normal(size=net.flat.size)
    return net


@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_of_blocks_are_slopes(name):
    net = a_net(name)
    (x,) = draw((2, *net.input_shape), seed=1)
    net.step = 7
    dy = np.random.default_rng(2).normal(size=net.forward(x, training=True).shape)

    def loss():
        net.step = 7  # the same dropout each time
        return np.vdot(net.forward(x, training=True), dy)

    loss()
    dx = net.backward(dy)
    gradient = net.flat_grad.copy()
    close(dx, differences(loss, x), DIFFERENCES, "dx")
    for seed in range(8):  # along random directions of all parameters
        direction = np.random.default_rng(seed).normal(size=net.flat.shape)
        values = []
        for step in (1e-5, -2e-5):
            net.flat += step * direction
            values.append(loss())
        net.flat += 1e-5 * direction
        slope, scale = (values[0] - values[1]) / 2e-5, np.linalg.norm(gradient) * np.linalg.norm(direction)
        assert abs(slope - np.vdot(gradient, direction)) <= DIFFERENCES * scale


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_without_input_gradient(name):
    net = a_net(name)
    (x,) = draw((2, *net.input_shape), seed=1)
    dy = np.random.default_rng(2).normal(size=net.forward(x, training=True).shape)
    net.backward(dy)
    want = net.flat_grad.copy()
    net.step = 0
    net.forward(x, training=True)
    net.flat_grad[...] = 0
    assert net.backward(dy, input_gradient=False) is None
    np.testing.assert_array_equal(net.flat_grad, want)


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_predict_what_forward_gives(name):
    net = a_net(name)
    for seed in range(3):  # running statistics off 0 and 1
        net.forward(draw((2, *net.input_shape), seed=seed)[0], training=True)
    (x,) = draw((2, *net.input_shape), seed=3)
    close(net.predict(x), net.forward(x), ORACLE)


@pytest.mark.parametrize(
    "side, kernel, stride, padding", [(8, 3, 2, 0), (8, 1, 2, "same"), (9, 3, 3, "symmetric")]
)
def test_predict_where_the_last_rows_are_seen_by_no_window(side, kernel, stride, padding):
    """Eight images: enough for tiles of two, whose pixels must lie side by side."""
    net = numnet.Net(
        [Conv(6, 3, activation="relu"), Separable(5, stride, kernel=kernel, padding=padding)], (9, 9, 3)
    )
    (x,) = draw((8, *net.input_shape), dtype=np.float32)
    want = net.forward(x).copy()
    np.testing.assert_allclose(net.predict(x), want, rtol=0, atol=1e-5 * abs(want).max())


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_return_what_they_borrow(name):
    """After backward every gradient map is back; after a few steps no step allocates anything."""
    net = a_net(name)
    workspace, sizes = net.layers[0].workspace, []
    for _ in range(6):
        y = net.forward(draw((2, *net.input_shape))[0], training=True)
        net.backward(y)
        assert not workspace._lent
        sizes.append(workspace.nbytes)
    assert sizes[-1] == sizes[-2] == sizes[-3]


def test_the_sum_is_written_out():
    """y = x + project(depthwise(expand(x))), the last without an activation."""
    block = InvertedResidual(3, expanded=8, activation="relu6", norm=Norm())
    with_skip = numnet.Net([block], (5, 4, 3), dtype="float64")
    twin = InvertedResidual(3, expanded=8, activation="relu6", norm=Norm(), skip=False)
    without = numnet.Net([twin], (5, 4, 3), dtype="float64")
    without.flat[...] = with_skip.flat
    (x,) = draw((2, 5, 4, 3))
    y = with_skip.forward(x)
    close(y, without.forward(x) + x, ORACLE)
    assert without.forward(x).min() < 0 < block.adds


def test_residual_blocks_begin_and_end_with_convolutions():
    for children in ((), (Activation("relu"), Conv(3)), (Conv(3), Depthwise(3)), (Conv(3), MaxPool(2, 2))):
        with pytest.raises(ValueError, match="residual: expected a convolution first"):
            Residual(*children)


@pytest.mark.parametrize(
    "options, adds",
    [
        ({}, True),
        ({"stride": 2}, False),
        ({"skip": False}, False),
        ({"filters": 4}, False),
        ({"expanded": None}, True),
    ],
)
def test_where_a_block_adds(options, adds):
    options = {"filters": 3, "expanded": 6, **options}
    block = InvertedResidual(**options)
    block.connect((6, 6, 3))
    assert block.adds is adds
    assert [child.name for child in block.children][-2:] == ["depthwise", "project"]
    assert ("add" in [row.name for row in block.cost()]) is adds


def test_squeeze_excite_by_its_definition():
    net = numnet.Net([SqueezeExcite(3, gate="hsigmoid")], (4, 5, 6), dtype="float64", seed=1)
    net.flat += 0.5 * np.random.default_rng(0).normal(size=net.flat.size)
    (x,) = draw((2, 4, 5, 6))
    p = {name.split(".", 1)[1]: value for name, value in net.params.items()}
    squeezed = np.maximum(x.mean((1, 2)) @ p["reduce.weight"] + p["reduce.bias"], 0)
    gate = np.clip(squeezed @ p["expand.weight"] + p["expand.bias"] + 3, 0, 6) / 6
    assert 0 < gate.min() < gate.max() < 1
    close(net.forward(x), x * gate[:, None, None], ORACLE)


def test_branches_must_fit_together():
    branches = Branches(Pointwise(2, name="a"), Conv(2, 3, 2, name="b"))
    with pytest.raises(ValueError, match="one size"):
        branches.connect((6, 6, 3))


# --- facts of whole nets ------------------------------------------------------------------------------------


def a_step(net, count=4):
    x, dlogits = draw((count, *net.input_shape), (count, net.classes), seed=5)
    net.forward(x.astype(net.dtype), training=True)
    return net.backward(dlogits)


def test_a_linear_bottleneck_s_beta_has_no_gradient():
    """A constant added to a bottleneck passes the sums, and the batch norm after the next 1×1 convolution removes it."""
    net = numnet.build("mobilenet_v2", width=0.25, resolution=32, classes=10, dtype="float64")
    a_step(net)
    bottlenecks = {name for name in net.grads if name.endswith("project.bn.beta")}
    assert len(bottlenecks) == 17
    largest = {name: np.abs(gradient).max() for name, gradient in net.grads.items() if name.endswith(".beta")}
    assert max(largest[name] for name in bottlenecks) < 1e-12 * max(largest.values())
    others = [largest[name] for name in largest if name not in bottlenecks]
    assert min(others) > 1e-6 * max(others)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "googlenet"])
def test_same_bits_for_any_number_of_threads(name):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("Numba was started with one thread")
    options = {} if name == "googlenet" else {"width": 0.25}
    results, threads = [], numba.get_num_threads()
    try:
        for count in (1, 2):
            numba.set_num_threads(count)
            net = numnet.build(name, resolution=32, classes=10, dtype="float64", **options)
            results.append([a_step(net, 9), net.flat_grad, net.flat_buffers])
    finally:
        numba.set_num_threads(threads)
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)
