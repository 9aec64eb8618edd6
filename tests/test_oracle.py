"""The oracle itself: against numbers worked by hand or printed in papers, seven plain loops, and PyTorch."""

import itertools

import numpy as np
import oracle
import pytest

EXACT = 1e-12  # both sides are float64 and differ only in the order of their sums


@pytest.fixture(scope="module")
def torch():
    """PyTorch on one thread: these arrays are tiny, and threads that wait for each other are slow."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(threads)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# --- hand-sized numbers -------------------------------------------------------------------------------------

GRID4 = np.arange(16.0).reshape(1, 4, 4, 1)
GRID5 = np.arange(25.0).reshape(1, 5, 5, 1)


@pytest.mark.parametrize(
    "x, kernel, padding, expected",
    [
        (GRID4, 3, "same", [[45, 39], [66, 50]]),
        (GRID4, 3, "symmetric", [[10, 24], [51, 90]]),
        (GRID4, 5, "same", [[120, 96], [114, 90]]),
        (GRID4, 5, "symmetric", [[45, 66], [84, 120]]),
        (GRID5, 3, "same", [[12, 27, 24], [63, 108, 81], [72, 117, 84]]),
        (GRID5, 3, "symmetric", [[12, 27, 24], [63, 108, 81], [72, 117, 84]]),
    ],
)
def test_padding_at_stride_2_like_tensorflow_and_like_pytorch(x, kernel, padding, expected):
    """Sums of the windows under a kernel of ones: equal sizes, other numbers, except on an odd side."""
    explicit = oracle.resolve(padding, x.shape[1:3], kernel, 2)
    ones = np.ones((kernel, kernel, 1, 1))
    for y in (oracle.conv(x, ones, 2, explicit), oracle.depthwise(x, ones, 2, explicit)):
        assert y[0, :, :, 0].tolist() == expected


@pytest.mark.parametrize(
    "size, kernel, expected",
    [
        (224, 3, (0, 1)),
        (112, 3, (0, 1)),
        (224, 5, (1, 2)),
        (113, 3, (1, 1)),
        (7, 3, (1, 1)),
        (113, 5, (2, 2)),
        (7, 5, (2, 2)),
        (224, 7, (2, 3)),
        (4, 1, (0, 0)),
    ],
)
def test_same_padding_at_stride_2(size, kernel, expected):
    assert oracle.resolve("same", (size, size), kernel, 2) == (expected, expected)


def test_resolve():
    assert oracle.resolve("same", (5, 8), (3, 5), 1) == ((1, 1), (2, 2))
    assert oracle.resolve("same", (4, 7), 3, (2, 3)) == ((0, 1), (1, 1))
    assert oracle.resolve("symmetric", (4, 4), (3, 5), 2) == ((1, 1), (2, 2))
    assert oracle.resolve(2, (4, 4), 3, 1) == ((2, 2), (2, 2))
    assert oracle.resolve(((0, 1), (2, 3)), (4, 4), 3, 1) == ((0, 1), (2, 3))


def test_same_padding_gives_a_window_at_every_strideth_pixel():
    for size, kernel, stride in itertools.product(range(1, 14), (1, 2, 3, 5, 7), (1, 2, 3)):
        padding = oracle.resolve("same", (size, size), kernel, stride)
        P, Q = oracle.output_size((size, size), (kernel, kernel), (stride, stride), padding)
        assert P == Q == -(-size // stride)
        before, after = padding[0]
        assert after - before in (0, 1)


X = [-4, -3, -2.5, -1, 0, 1, 2.5, 3, 4]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("hsigmoid", [0, 0, 0.083333, 0.333333, 0.5, 0.666667, 0.916667, 1, 1]),
        ("hsigmoid02", [0, 0, 0, 0.3, 0.5, 0.7, 1, 1, 1]),
        ("hswish", [0, 0, -0.208333, -0.333333, 0, 0.666667, 2.291667, 3, 4]),
        ("relu", [0, 0, 0, 0, 0, 1, 2.5, 3, 4]),
        ("identity", X),
    ],
)
def test_activation_values(name, expected):
    assert np.abs(oracle.activate(name, X) - expected).max() < 1e-6


def test_derivatives_at_the_kinks():
    assert oracle.derivative("relu", [0]) == 0
    assert oracle.derivative("relu6", [0, 6]).tolist() == [0, 0]
    assert oracle.derivative("hswish", [-3, 3]).tolist() == [0, 1]
    assert oracle.derivative("hsigmoid", [-3, 3]).tolist() == [0, 0]
    assert oracle.derivative("hsigmoid02", [-2.5, 2.5]).tolist() == [0, 0]


def test_batchnorm_of_four_numbers():
    """[1, 2, 3, 4]: mean 2.5, biased variance 1.25; the running pair goes from (0, 1) to (0.25, 1.025)."""
    x = np.array([1.0, 2, 3, 4]).reshape(1, 2, 2, 1)
    y, mean, variance = oracle.batchnorm_training(x, [1], [0], 0)
    assert (mean[0], variance[0]) == (2.5, 1.25)
    assert np.allclose(y.ravel(), np.array([-1.5, -0.5, 0.5, 1.5]) / np.sqrt(1.25), rtol=1e-15)
    assert abs(oracle.running(0, mean, 0.9) - 0.25).max() < 1e-15
    assert abs(oracle.running(1, variance, 0.9) - 1.025).max() < 1e-15


def test_cross_entropy_of_equal_logits_is_the_log_of_the_classes():
    loss, dlogits = oracle.softmax_cross_entropy(np.zeros((2, 10)), [3, 7])
    assert abs(loss - np.log(10)) < 1e-15
    assert dlogits[0, 3] == pytest.approx((0.1 - 1) / 2) and dlogits[0, 0] == pytest.approx(0.1 / 2)


def test_dropout_keeps_the_mean():
    assert oracle.dropout([1.0, 2, 3, 4], [True, False, True, False], 0.5).tolist() == [2, 0, 6, 0]


# --- counts that papers print -------------------------------------------------------------------------------


def count_of(operation, x_shape, w_shape, *arguments):
    count = oracle.Count()
    operation(np.zeros(x_shape), np.zeros(w_shape), *arguments, count=count)
    return count


ONE = ((1, 1), (1, 1))


def test_counts_of_table_3():
    """MobileNet's table 3: a 3×3 convolution 512 → 512 at 14×14 (462 M) and its separable form (52.3 M)."""
    full = count_of(oracle.conv, (1, 14, 14, 512), (3, 3, 512, 512), 1, ONE)
    depthwise = count_of(oracle.depthwise, (1, 14, 14, 512), (3, 3, 512, 1), 1, ONE)
    pointwise = count_of(oracle.pointwise, (1, 14, 14, 512), (512, 512))
    assert (full.macs, depthwise.macs, pointwise.macs) == (462_422_016, 903_168, 51_380_224)
    assert depthwise.macs_inside == 512 * (3 * 14 - 2) ** 2 < depthwise.macs
    assert pointwise.macs_inside == pointwise.macs


def test_counts_without_padding():
    """A 7×7 image of 3 channels under a 3×3 kernel, 128 filters: 86,400 against 675 + 9,600."""
    full = count_of(oracle.conv, (1, 7, 7, 3), (3, 3, 3, 128))
    depthwise = count_of(oracle.depthwise, (1, 7, 7, 3), (3, 3, 3, 1))
    pointwise = count_of(oracle.pointwise, (1, 5, 5, 3), (3, 128))
    assert (full.macs, depthwise.macs, pointwise.macs) == (86_400, 675, 9_600)
    assert full.macs == full.macs_inside


@pytest.mark.parametrize("side, taps", [(2, 4), (1, 1)])
def test_most_taps_of_a_large_kernel_on_a_small_map_fall_on_padding(side, taps):
    """MnasNet on 32×32 images ends with 5×5 kernels on 2×2 and 1×1 maps: 4 and 1 of 25 taps see the image."""
    count = count_of(oracle.depthwise, (1, side, side, 8), (5, 5, 8, 1), 1, ((2, 2), (2, 2)))
    assert count.macs == 25 * side * side * 8
    assert count.macs_inside == taps * side * side * 8


def test_count_of_a_dense_layer_and_of_a_multiplier():
    assert count_of(oracle.dense, (3, 1024), (1024, 10)).macs == 3 * 1024 * 10
    assert count_of(oracle.depthwise, (1, 6, 6, 4), (3, 3, 4, 2)).macs == 16 * 9 * 8


# --- the definition once more, with every loop --------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, (2, 1)])
def test_convolution_is_seven_loops(rng, stride):
    padding = ((1, 2), (0, 1))
    x, w = rng.standard_normal((2, 5, 6, 3)), rng.standard_normal((3, 2, 3, 4))
    sh, sw = oracle.pair(stride)
    (top, bottom), (left, right) = padding
    P, Q = (5 + top + bottom - 3) // sh + 1, (6 + left + right - 2) // sw + 1
    y = np.zeros((2, P, Q, 4))
    macs = inside = 0
    for n in range(2):
        for p in range(P):
            for q in range(Q):
                for f in range(4):
                    for u in range(3):
                        for v in range(2):
                            for c in range(3):
                                i, j = p * sh + u - top, q * sw + v - left
                                macs += 1
                                if 0 <= i < 5 and 0 <= j < 6:
                                    inside += 1
                                    y[n, p, q, f] += x[n, i, j, c] * w[u, v, c, f]
    count = oracle.Count()
    assert oracle.error(oracle.conv(x, w, stride, padding, count), y) < EXACT
    assert (count.macs, count.macs_inside) == (macs, inside)


def test_depthwise_is_a_convolution_that_looks_at_one_channel(rng):
    """It equals a full convolution whose weights are 0 wherever channels would mix: output c·M + m."""
    C, M = 3, 2
    x, w = rng.standard_normal((2, 5, 6, C)), rng.standard_normal((3, 3, C, M))
    full = np.zeros((3, 3, C, C * M))
    for c in range(C):
        for m in range(M):
            full[:, :, c, c * M + m] = w[:, :, c, m]
    assert oracle.error(oracle.depthwise(x, w, 2, ONE), oracle.conv(x, full, 2, ONE)) < EXACT


def test_linear_layers_pass_the_dot_product_test(rng):
    """⟨dy, y⟩ = ⟨dx, x⟩ = ⟨dw, w⟩ for what is linear in x and in w."""
    x = rng.standard_normal((2, 6, 7, 3))
    padding = ((0, 1), (2, 1))

    def agree(y, x, w, dy, dx, dw):
        scale = np.linalg.norm(dy) * np.linalg.norm(y)
        assert abs((dy * y).sum() - (dx * x).sum()) < EXACT * scale
        assert abs((dy * y).sum() - (dw * w).sum()) < EXACT * scale

    for forward, backward, w in (
        (oracle.conv, oracle.conv_backward, rng.standard_normal((3, 3, 3, 5))),
        (oracle.depthwise, oracle.depthwise_backward, rng.standard_normal((5, 5, 3, 2))),
    ):
        y = forward(x, w, 2, padding)
        dy = rng.standard_normal(y.shape)
        agree(y, x, w, dy, *backward(dy, x, w, 2, padding))
    w = rng.standard_normal((3, 4))
    y = oracle.pointwise(x, w)
    dy = rng.standard_normal(y.shape)
    agree(y, x, w, dy, *oracle.pointwise_backward(dy, x, w))


# --- PyTorch ------------------------------------------------------------------------------------------------


def leaf(torch, a):
    return torch.tensor(np.asarray(a, np.float64), requires_grad=True)


def nchw(t):
    return t.permute(0, 3, 1, 2)


def nhwc(t):
    return t.permute(0, 2, 3, 1)


def compare(torch, rng, y_torch, leaves, y, backward, *arguments):
    """y against y_torch; ``backward(dy, *arguments)`` for a random dy against the gradients of ``leaves``."""
    assert oracle.error(y, y_torch.detach().numpy()) < EXACT
    dy = rng.standard_normal(y_torch.shape)
    gradients = torch.autograd.grad(y_torch, leaves, torch.tensor(dy))
    mine = backward(dy, *arguments)
    mine = mine if isinstance(mine, tuple) else (mine,)
    assert len(mine) == len(gradients)
    for got, want in zip(mine, gradients):
        assert oracle.error(got, want.numpy()) < EXACT


SHAPES = [  # x, kernel, stride, padding
    ((2, 5, 6, 3), (1, 1), 1, oracle.NO_PADDING),
    ((2, 5, 6, 3), (3, 3), 1, ONE),
    ((2, 6, 6, 3), (3, 3), 2, ((0, 1), (0, 1))),
    ((1, 7, 5, 2), (5, 5), 2, ((2, 2), (2, 2))),
    ((1, 2, 2, 4), (5, 5), 1, ((2, 2), (2, 2))),
    ((1, 8, 9, 1), (3, 5), (2, 3), ((1, 0), (2, 1))),
    ((1, 8, 8, 3), (7, 7), 2, ((2, 3), (2, 3))),
    ((1, 7, 7, 2), (2, 2), 3, oracle.NO_PADDING),
    ((0, 5, 5, 2), (3, 3), 1, ONE),
]


def padded(torch, x, padding, value=0.0):
    """x in PyTorch's order, with the padding added as numbers."""
    (top, bottom), (left, right) = padding
    return torch.nn.functional.pad(nchw(x), (left, right, top, bottom), value=value)


@pytest.mark.parametrize("x_shape, kernel, stride, padding", SHAPES)
def test_convolutions_against_pytorch(torch, rng, x_shape, kernel, stride, padding):
    x, C = rng.standard_normal(x_shape), x_shape[3]
    w = rng.standard_normal((*kernel, C, 4))
    tx, tw = leaf(torch, x), leaf(torch, w)
    y = nhwc(torch.nn.functional.conv2d(padded(torch, tx, padding), tw.permute(3, 2, 0, 1), stride=stride))
    mine = oracle.conv(x, w, stride, padding)
    compare(torch, rng, y, (tx, tw), mine, oracle.conv_backward, x, w, stride, padding)

    for M in (1, 2):
        w = rng.standard_normal((*kernel, C, M))
        tx, tw = leaf(torch, x), leaf(torch, w)
        groups = tw.permute(2, 3, 0, 1).reshape(C * M, 1, *kernel)
        y = nhwc(torch.nn.functional.conv2d(padded(torch, tx, padding), groups, stride=stride, groups=C))
        mine = oracle.depthwise(x, w, stride, padding)
        compare(torch, rng, y, (tx, tw), mine, oracle.depthwise_backward, x, w, stride, padding)


def test_pointwise_and_dense_against_pytorch(torch, rng):
    x, w, bias = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((5, 6)), rng.standard_normal(6)
    tx, tw = leaf(torch, x), leaf(torch, w)
    compare(torch, rng, tx @ tw, (tx, tw), oracle.pointwise(x, w), oracle.pointwise_backward, x, w)
    x = x.reshape(-1, 5)
    tx, tw, tb = leaf(torch, x), leaf(torch, w), leaf(torch, bias)
    y = torch.nn.functional.linear(tx, tw.T, tb)
    compare(torch, rng, y, (tx, tw, tb), oracle.dense(x, w, bias), oracle.dense_backward, x, w)
    assert oracle.error(oracle.dense(x, w), x @ w) < EXACT


def torch_activation(torch, name):
    F = torch.nn.functional
    return {
        "identity": lambda v: v * 1,
        "relu": F.relu,
        "relu6": F.relu6,
        "hsigmoid": lambda v: F.relu6(v + 3) / 6,
        "hsigmoid02": lambda v: (0.2 * v + 0.5).clamp(0, 1),
        "hswish": F.hardswish,
        "sigmoid": torch.sigmoid,
        "swish": F.silu,
    }[name]


@pytest.mark.parametrize("name", [*oracle.ACTIVATIONS, "swish"])
def test_activations_against_pytorch(torch, rng, name):
    """Also at the kinks. ±2.5 is not among them: there the clamp of "hsigmoid02" has other derivatives."""
    kinks = [0.0, 6, -3, 3, -40, 40, -1000, 1000]
    x = np.concatenate([rng.uniform(-8, 8, 200), kinks])
    tx = leaf(torch, x)
    y = torch_activation(torch, name)(tx)
    compare(torch, rng, y, (tx,), oracle.activate(name, x), oracle.activate_backward, name, x)


def test_hard_sigmoid_of_pytorch(torch, rng):
    """F.hardsigmoid's backward has 1/6 in float32 even for float64, so it is off by 3e-8 (PyTorch 2.13)."""
    x = np.concatenate([rng.uniform(-8, 8, 200), [-3.0, 3]])
    tx = leaf(torch, x)
    y = torch.nn.functional.hardsigmoid(tx)
    (dx,) = torch.autograd.grad(y.sum(), tx)
    assert oracle.error(oracle.activate("hsigmoid", x), y.detach().numpy()) < EXACT
    assert oracle.error(oracle.derivative("hsigmoid", x), dx.numpy()) < 1e-7


@pytest.mark.parametrize("name", [*oracle.ACTIVATIONS, "swish"])
def test_activations_let_nan_through(name):
    assert np.isnan(oracle.activate(name, [np.nan])).all()


def test_swish_with_beta_against_pytorch(torch, rng):
    x = rng.standard_normal(50) * 4
    tx = leaf(torch, x)
    y = tx * torch.sigmoid(1.7 * tx)
    mine = oracle.activate("swish", x, beta=1.7)
    compare(torch, rng, y, (tx,), mine, oracle.activate_backward, "swish", x, 1.7)


@pytest.mark.parametrize("activation", ["identity", "relu6", "hswish"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (7, 6)])
def test_batchnorm_against_pytorch(torch, rng, activation, training, shape):
    x, gamma, beta = 3 * rng.standard_normal(shape) + 1, rng.standard_normal(6), rng.standard_normal(6)
    mean, variance, eps = rng.standard_normal(6), rng.uniform(0.5, 2, 6), 1e-3
    tx, tg, tb = leaf(torch, x), leaf(torch, gamma), leaf(torch, beta)
    running = torch.tensor(mean), torch.tensor(variance)
    rows = torch.nn.functional.batch_norm(tx.reshape(-1, 6), *running, tg, tb, training, 0.25, eps)
    y = torch_activation(torch, activation)(rows.reshape(shape))
    if training:
        given = x, gamma, beta, eps, activation
        mine, batch_mean, batch_variance = oracle.batchnorm_training(*given)
        compare(torch, rng, y, (tx, tg, tb), mine, oracle.batchnorm_training_backward, *given)
        n = x.size // 6
        unbiased = batch_variance * n / (n - 1)  # what PyTorch keeps
        assert oracle.error(oracle.running(mean, batch_mean, 0.75), running[0].numpy()) < EXACT
        assert oracle.error(oracle.running(variance, unbiased, 0.75), running[1].numpy()) < EXACT
    else:
        given = x, gamma, beta, mean, variance, eps, activation
        mine = oracle.batchnorm_inference(*given)
        compare(torch, rng, y, (tx, tg, tb), mine, oracle.batchnorm_inference_backward, *given)


def test_global_pools_against_pytorch(torch, rng):
    x = rng.integers(0, 4, (2, 3, 5, 4)).astype(float)  # few values: many equal maxima
    tx = leaf(torch, x)
    mine = oracle.global_average_pool(x)
    y = tx.mean((1, 2))
    compare(torch, rng, y, (tx,), mine, oracle.global_average_pool_backward, x.shape)
    y = torch.nn.functional.adaptive_max_pool2d(nchw(tx).contiguous(), 1).reshape(2, 4)
    compare(torch, rng, y, (tx,), oracle.global_max_pool(x), oracle.global_max_pool_backward, x)


POOLS = [  # x, kernel, stride, padding
    ((2, 6, 7, 3), (2, 2), 2, oracle.NO_PADDING),
    ((2, 6, 7, 3), (3, 3), 1, ONE),
    ((2, 6, 6, 3), (3, 3), 2, ((0, 1), (0, 1))),
    ((1, 7, 5, 2), (3, 2), (2, 1), ((1, 1), (1, 0))),
]


@pytest.mark.parametrize("values", ["equal maxima", "all negative"])
@pytest.mark.parametrize("x_shape, kernel, stride, padding", POOLS)
def test_max_pool_against_pytorch(torch, rng, x_shape, kernel, stride, padding, values):
    """The padding must not win over negative numbers; of equal maxima the first one gets the gradient."""
    x = rng.integers(0, 3, x_shape).astype(float) if values == "equal maxima" else -rng.uniform(1, 2, x_shape)
    tx = leaf(torch, x)
    y = nhwc(torch.nn.functional.max_pool2d(padded(torch, tx, padding, value=-np.inf), kernel, stride))
    mine = oracle.max_pool(x, kernel, stride, padding)
    compare(torch, rng, y, (tx,), mine, oracle.max_pool_backward, x, kernel, stride, padding)


@pytest.mark.parametrize("count_padding", [True, False])
@pytest.mark.parametrize("x_shape, kernel, stride, padding", POOLS)
def test_average_pool_against_pytorch(torch, rng, x_shape, kernel, stride, padding, count_padding):
    x = rng.standard_normal(x_shape)
    tx = leaf(torch, x)
    y = torch.nn.functional.avg_pool2d(padded(torch, tx, padding), kernel, stride)
    if not count_padding:  # PyTorch leaves out its own padding only: divide by the mean of padded ones
        y = y / torch.nn.functional.avg_pool2d(padded(torch, torch.ones_like(tx), padding), kernel, stride)
    where = kernel, stride, padding, count_padding
    mine = oracle.average_pool(x, *where)
    compare(torch, rng, nhwc(y), (tx,), mine, oracle.average_pool_backward, x_shape, *where)


def test_dropout_backward_is_dropout(rng):
    x, dy, mask = rng.standard_normal((3, 5)), rng.standard_normal((3, 5)), rng.random((3, 5)) < 0.8
    y, dx = oracle.dropout(x, mask, 0.2), oracle.dropout_backward(dy, mask, 0.2)
    assert abs((y * dy).sum() - (dx * x).sum()) < EXACT
    assert oracle.error(y, x * mask * 1.25) < EXACT


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_against_pytorch(torch, rng, smoothing):
    logits, labels = 30 * rng.standard_normal((5, 7)), rng.integers(0, 7, 5)
    tl = leaf(torch, logits)
    loss = torch.nn.functional.cross_entropy(tl, torch.tensor(labels), label_smoothing=smoothing)
    mine, dlogits = oracle.softmax_cross_entropy(logits, labels, smoothing)
    compare(torch, rng, loss, (tl,), mine, lambda dy: (dy * dlogits,))
    assert oracle.error(oracle.softmax(logits), torch.softmax(tl, 1).detach().numpy()) < EXACT


def test_error_sees_what_it_should():
    assert oracle.error([1.0, 2], [1.0, 4]) == 0.5
    assert oracle.error([1e-3], [0.0]) == 1e-3
    assert np.isnan(oracle.error([np.nan], [1.0]))
    with pytest.raises(AssertionError, match="shapes"):
        oracle.error(np.zeros((2, 1)), np.zeros(2))
