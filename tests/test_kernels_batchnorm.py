"""Batch normalisation with its activation: training and inference, and the variance where it is hard to get.

dy is random throughout: under dy = 1 the true dx of training is 0, and a kernel that returned zeros
would pass.
"""

import numpy as np
import oracle
import pytest
from kernel_shapes import DIFFERENCES, ORACLE, TORCH, both_dtypes, close, differences, draw, needs_float32

from numnet.kernels import CODES, batchnorm, batchnorm_backward, batchnorm_forward, maps
from numnet.kernels.moments import moments_of

EPS = 1e-3
SHAPES = [
    (2, 5, 7, 3),
    (1, 1, 1, 1024),  # one number a channel: variance 0
    (64, 7),  # after a dense layer: no pixels
    (3, 1, 2, 257),  # one channel more than a long row has numbers
    (11, 3, 1),
    (10, 16, 15, 64),  # eight parts of 300 pixels, two tiles each, the second not full
]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_activation = pytest.mark.parametrize("activation", CODES)


def arrays(shape, dtype="float64"):
    """x, gamma, beta, running mean and variance, dy. γ and β are large enough to reach past every kink."""
    channels = shape[-1:]
    x, gamma, beta, mean, variance, dy = draw(shape, *[channels] * 4, shape, dtype=dtype)
    return 2 * x + mean, 3 * gamma, 2 * beta, mean, 0.5 + variance**2, dy


def forward(x, gamma, beta, activation="identity", training=True, mean=None, variance=None, **more):
    mean = np.zeros_like(gamma) if mean is None else mean
    variance = np.ones_like(gamma) if variance is None else variance
    options = {"eps": EPS, "activation": activation, "training": training, **more}
    return batchnorm_forward(x, gamma, beta, mean, variance, **options)


# The oracle sums number by number in Python: all activations on small shapes, two of them on the large one.
CASES = [(shape, name) for shape in SHAPES[:-1] for name in CODES]
CASES += [(SHAPES[-1], "relu6"), (SHAPES[-1], "swish")]
each_case = pytest.mark.parametrize("shape, activation", CASES, ids=str)


@each_case
def test_training_against_the_oracle(shape, activation):
    x, gamma, beta, mean, variance, dy = arrays(shape)
    old_mean, old_variance = mean.copy(), variance.copy()
    y, pack = forward(x, gamma, beta, activation, True, mean, variance, momentum=0.9)
    want, batch_mean, batch_variance = oracle.batchnorm_training(x, gamma, beta, EPS, activation)
    close(y, want, ORACLE, "y")
    close(mean, oracle.running(old_mean, batch_mean, 0.9), ORACLE, "running mean")
    close(variance, oracle.running(old_variance, batch_variance, 0.9), ORACLE, "running variance")
    got = batchnorm_backward(dy, x, pack, activation=activation)
    want = oracle.batchnorm_training_backward(dy, x, gamma, beta, EPS, activation)
    if x.size == x.shape[-1]:
        # One number a channel: x̂ = 0, so dγ = 0 and dx = 0, exactly up to the rounding of the mean.
        assert np.abs(got[0]).max() <= ORACLE * np.abs(dy * gamma).max() / np.sqrt(EPS)
        assert np.abs(got[1]).max() <= ORACLE * np.abs(dy).max()
        close(got[2], want[2], ORACLE, "dbeta")
        return
    for name, a, b in zip(("dx", "dgamma", "dbeta"), got, want):
        close(a, b, ORACLE, name)


@each_case
def test_inference_against_the_oracle(shape, activation):
    x, gamma, beta, mean, variance, dy = arrays(shape)
    old_mean, old_variance = mean.copy(), variance.copy()
    y, pack = forward(x, gamma, beta, activation, False, mean, variance)
    close(y, oracle.batchnorm_inference(x, gamma, beta, mean, variance, EPS, activation), ORACLE, "y")
    assert (mean == old_mean).all() and (variance == old_variance).all()
    got = batchnorm_backward(dy, x, pack, activation=activation, training=False)
    want = oracle.batchnorm_inference_backward(dy, x, gamma, beta, mean, variance, EPS, activation)
    for name, a, b in zip(("dx", "dgamma", "dbeta"), got, want):
        close(a, b, ORACLE, name)


@both_dtypes
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2], SHAPES[5]], ids=str)
def test_against_pytorch(shape, training, dtype, torch):
    """PyTorch's momentum is 1 − ours, and its running variance the unbiased one."""
    x, gamma, beta, mean, variance, dy = arrays(shape, dtype)
    tx, tgamma, tbeta = (torch.tensor(a, requires_grad=True) for a in (x, gamma, beta))
    tmean, tvariance = torch.tensor(mean), torch.tensor(variance)
    ty = torch.nn.functional.batch_norm(
        tx.reshape(-1, shape[-1]), tmean, tvariance, tgamma, tbeta, training, 0.1, EPS
    )
    ty = torch.nn.functional.hardswish(ty).reshape(shape)
    ty.backward(torch.tensor(dy))
    y, pack = forward(x, gamma, beta, "hswish", training, mean, variance, momentum=0.9, unbiased=True)
    dx, dgamma, dbeta = batchnorm_backward(dy, x, pack, activation="hswish", training=training)
    assert y.dtype == dx.dtype == dgamma.dtype == dbeta.dtype == pack.dtype == dtype
    for name, got, want in (
        ("y", y, ty.detach()),
        ("running mean", mean, tmean),
        ("running variance", variance, tvariance),
        ("dx", dx, tx.grad),
        ("dgamma", dgamma, tgamma.grad),
        ("dbeta", dbeta, tbeta.grad),
    ):
        close(got, want.numpy(), TORCH[dtype], name)


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@each_activation
def test_against_finite_differences(activation, training):
    x, gamma, beta, mean, variance, dy = arrays((2, 3, 1, 3))
    _, pack = forward(x, gamma, beta, activation, training, mean.copy(), variance.copy())
    got = batchnorm_backward(dy, x, pack, activation=activation, training=training)

    def loss():
        return np.vdot(dy, forward(x, gamma, beta, activation, training, mean.copy(), variance.copy())[0])

    for name, gradient, a in zip(("dx", "dgamma", "dbeta"), got, (x, gamma, beta)):
        close(gradient, differences(loss, a), DIFFERENCES, name)


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[5]], ids=str)
def test_dx_of_training_neither_shifts_nor_scales(shape):
    """Adding a constant to x, or scaling it, changes nothing downstream: Σ dx = 0 and Σ dx·x = 0, almost."""
    x, gamma, beta, _, _, dy = arrays(shape)
    _, pack = forward(x, gamma, beta, eps=0.0)
    dx, _, _ = batchnorm_backward(dy, x, pack)
    rows, normal = dx.reshape(-1, shape[-1]), (x - pack[0]) * pack[1]
    scale = np.abs(rows).sum(axis=0).max()
    assert np.abs(rows.sum(axis=0)).max() <= ORACLE * scale
    assert np.abs((rows * normal.reshape(rows.shape)).sum(axis=0)).max() <= ORACLE * scale


@each_shape
def test_the_pack_is_mean_inverse_std_gamma_beta(shape):
    x, gamma, beta, mean, variance, _ = arrays(shape)
    _, pack = forward(x, gamma, beta)
    _, batch_mean, batch_variance = oracle.batchnorm_training(x, gamma, beta, EPS)
    close(pack, np.stack([batch_mean, 1 / np.sqrt(batch_variance + EPS), gamma, beta]), ORACLE)
    _, pack = forward(x, gamma, beta, training=False, mean=mean, variance=variance)
    close(pack, np.stack([mean, 1 / np.sqrt(variance + EPS), gamma, beta]), ORACLE)


def test_running_statistics_of_one_number():
    """M − 1 = 0 below the unbiased variance: it stays 0 and does not become NaN."""
    for unbiased in (False, True):
        one, mean, variance = np.ones(1), np.array([1.0]), np.array([2.0])
        forward(np.array([[5.0]]), one, one, "identity", True, mean, variance, unbiased=unbiased)
        close(mean, [0.9 * 1 + 0.1 * 5], ORACLE)
        close(variance, [0.9 * 2], ORACLE)


# --- hard numbers -------------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("shape", [(8, 9, 9, 5), (3, 40, 40, 33), (2, 3, 3, 300)], ids=str)
def test_variance_where_the_mean_is_a_thousand_times_larger(shape, dtype):
    """Σx²/M − mean² in float32 would have lost all of it (mean² has 20 bits more than the variance)."""
    (x,) = draw(shape, dtype=dtype)
    x += 1000
    c = shape[-1]
    (gamma, beta), mean, variance = draw((c,), (c,), dtype=dtype), np.zeros(c, dtype), np.zeros(c, dtype)
    _, pack = forward(x, gamma, beta, "identity", True, mean, variance, momentum=0.0)
    rows = x.reshape(-1, c).astype(np.float64)
    bound = {"float32": 1e-3, "float64": 1e-10}[dtype]
    assert (np.abs(variance / rows.var(axis=0) - 1) <= bound).all()  # of each channel, not of the largest
    assert (np.abs(pack[1] * np.sqrt(rows.var(axis=0) + EPS) - 1) <= bound).all()
    assert (np.abs(mean / rows.mean(axis=0) - 1) <= {"float32": 1e-7, "float64": 1e-14}[dtype]).all()


@both_dtypes
@pytest.mark.parametrize("value", [0.0, 0.1, 1000.1, -3e4])
def test_a_constant_channel(value, dtype):
    """Variance 0: y = β whatever γ, and nothing is NaN; the variance does not become negative."""
    shape, c = (6, 13, 11, 3), 3
    (other, dy), eps = draw(shape, shape, dtype=dtype), 1e-3
    x = other.copy()
    x[..., 1] = value
    gamma, beta = np.array([1.5, -2, 3], dtype), np.array([0.5, 1, 2], dtype)
    mean, variance = np.zeros(c, dtype), np.zeros(c, dtype)
    y, pack = forward(x, gamma, beta, "identity", True, mean, variance, eps=eps, momentum=0.0)
    tiny = np.finfo(dtype).eps * (1 + abs(value))
    assert 0 <= variance[1] <= tiny**2
    assert np.abs(y[..., 1] - beta[1]).max() <= 4 * tiny / np.sqrt(eps)
    for gradient in batchnorm_backward(dy, x, pack):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    "dtype, size",
    [("float64", 1e100), ("float64", 1e-300), pytest.param("float32", 1e15, marks=needs_float32)]
    + [pytest.param("float32", 1e-42, marks=needs_float32)],
)
def test_huge_and_denormal_numbers(dtype, size):
    """Finite and right wherever the squares of the deviations are numbers of this dtype."""
    (x, dy) = draw((4, 5, 5, 6), (4, 5, 5, 6))
    x = (x * size).astype(dtype)
    gamma, beta = draw((6,), (6,), seed=1)
    args = [a.astype(dtype) for a in (gamma, beta)]
    y, pack = forward(x, *args, "relu6")
    want, _, _ = oracle.batchnorm_training(x, *args, EPS, "relu6")
    bound = {"float64": 1e-12, "float32": 1e-5}[dtype]
    close(y, want, bound, "y")
    got = batchnorm_backward(dy.astype(dtype), x, pack, activation="relu6")
    want = oracle.batchnorm_training_backward(dy.astype(dtype), x, *args, EPS, "relu6")
    assert all(np.isfinite(gradient).all() for gradient in got)
    close(got[2], want[2], bound, "dbeta")


def test_nan_is_not_hidden():
    x, gamma, beta, mean, variance, _ = arrays((2, 3, 3, 4))
    x[1, 2, 0, 2] = np.nan
    y, _ = forward(x, gamma, beta, "relu6")
    assert np.isnan(y[..., 2]).all() and np.isfinite(y[..., [0, 1, 3]]).all()
    y, _ = forward(x, gamma, beta, "relu6", False, mean, variance)
    assert np.isnan(y).sum() == 1 and np.isnan(y[1, 2, 0, 2])


@pytest.mark.parametrize("activation", ["relu", "relu6", "hsigmoid", "hswish", "hsigmoid02"])
def test_kinks(activation):
    """mean 0, variance 1, γ 1, β 0, ε 0: u is x exactly, and the kinks are the activation page's."""
    x = np.array([-3, -2.5, 0, 2.5, 3, 6]).reshape(-1, 1)
    one, zero = np.ones(1), np.zeros(1)
    y, pack = forward(x, one, zero, activation, False, zero, one, eps=0.0)
    (dy,) = draw(x.shape)
    dx, _, dbeta = batchnorm_backward(dy, x, pack, activation=activation, training=False)
    close(y, oracle.activate(activation, x), 1e-15)
    close(dx, oracle.activate_backward(dy, activation, x), 1e-15)
    close(dbeta, oracle.activate_backward(dy, activation, x).sum(axis=0), 1e-15)


def test_an_empty_batch():
    one = np.ones(3)
    x = np.empty((0, 4, 5, 3))
    with pytest.raises(ValueError, match="empty batch"):
        forward(x, one, one)
    y, pack = forward(x, one, one, training=False)
    assert y.shape == x.shape
    for training in (True, False):
        dx, dgamma, dbeta = batchnorm_backward(x, x, pack, training=training)
        assert dx.shape == x.shape
        assert (dgamma == 0).all() and (dbeta == 0).all()


def test_negative_eps():
    for eps in (-1e-3, np.nan):
        with pytest.raises(ValueError, match="eps: expected"):
            forward(np.ones((2, 3)), np.ones(3), np.ones(3), eps=eps)


# --- the pieces that units use ------------------------------------------------------------------------------


@each_shape
def test_moments(shape):
    """Count, mean and Σ(x − mean)² of the parts add up to those of the whole."""
    x = arrays(shape)[0]
    moments = moments_of(x)
    rows = x.reshape(-1, shape[-1])
    assert moments.shape == (maps.parts_of(len(rows)), 3, shape[-1])
    assert (moments[:, 0].sum(axis=0) == len(rows)).all()
    weights = moments[:, 0] / len(rows)
    mean = (weights * moments[:, 1]).sum(axis=0)
    close(mean, rows.mean(axis=0), ORACLE, "mean")
    m2 = (moments[:, 2] + moments[:, 0] * (moments[:, 1] - mean) ** 2).sum(axis=0)
    if len(rows) > 1:
        close(m2, ((rows - rows.mean(axis=0)) ** 2).sum(axis=0), ORACLE, "M2")


@needs_float32
def test_moments_correct_the_rounded_mean_of_a_tile():
    """A mean of 1e5 in float32 is off by up to 0.004, of a standard deviation of 1: it is made good in float64."""
    (x,) = draw((6, 30, 30, 7))
    x = (1e5 + x).astype(np.float32)
    rows = x.reshape(-1, 7).astype(np.float64)
    for count, mean, m2 in moments_of(x[:1]):
        part = rows[: int(count[0])]  # the parts follow one another
        rows = rows[int(count[0]) :]
        assert (np.abs(mean - part.mean(axis=0)) <= 1e-9 * 1e5).all()
        assert (np.abs(m2 / ((part - part.mean(axis=0)) ** 2).sum(axis=0) - 1) <= 1e-6).all()


def test_parts_depend_on_the_shape_alone():
    assert [maps.parts_of(n) for n in (0, 1, 5, 8, 1000)] == [1, 1, 4, 8, 8]
    assert [maps.parts_of(n, 256) for n in (0, 1, 511, 512, 10**6)] == [1, 1, 1, 2, 8]


def test_cost():
    cost = batchnorm.batchnorm_cost(2, 3, 4, 5)
    assert (cost.macs, cost.elementwise, cost.params, cost.buffers) == (0, 120, 10, 10)
