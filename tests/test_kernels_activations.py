"""Activations: values, derivatives, and the exact points at which they have none."""

import numpy as np
import oracle
import pytest
from kernel_shapes import DIFFERENCES, ORACLE, TORCH, both_dtypes, close, draw

from numnet.kernels import CODES, activation_backward, activation_forward
from numnet.kernels.activations import TILE

each_activation = pytest.mark.parametrize("activation", CODES)
SHAPES = [(), (1,), (3, 5), (2, 3, 3, 5), (2 * TILE + 17,)]


def test_every_code_has_an_oracle():
    assert set(CODES) == {*oracle.ACTIVATIONS, "swish"}
    assert len(set(CODES.values())) == len(CODES)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@each_activation
def test_against_the_oracle(activation, shape):
    x, dy = draw(shape, shape)
    x = np.asarray(4 * x)
    dy = np.asarray(dy)
    close(activation_forward(x, activation), oracle.activate(activation, x), ORACLE, "y")
    dx = activation_backward(dy, x, activation)
    close(dx, oracle.activate_backward(dy, activation, x), ORACLE, "dx")


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 1.702, -2.0])
def test_swish_with_a_beta(beta):
    x, dy = draw((3, 50), (3, 50))
    x *= 10
    close(activation_forward(x, "swish", beta), oracle.activate("swish", x, beta), ORACLE, "y")
    dx = activation_backward(dy, x, "swish", beta)
    close(dx, oracle.activate_backward(dy, "swish", x, beta), ORACLE, "dx")


def functions(torch):
    f = torch.nn.functional
    return {
        "identity": lambda v: v * 1,
        "relu": f.relu,
        "relu6": f.relu6,
        "hsigmoid": f.hardsigmoid,
        "hswish": f.hardswish,
        "sigmoid": torch.sigmoid,
        "swish": f.silu,
    }


KINKS = [-3, -2.5, -0.0, 0.0, 2.5, 3, 6]


@both_dtypes
@pytest.mark.parametrize("activation", [name for name in CODES if name != "hsigmoid02"])
def test_against_pytorch(activation, dtype, torch):
    """At random points, at the kinks, and at their neighbours on both sides."""
    kinks = np.array(KINKS, dtype)
    neighbours = [np.nextafter(kinks, kinks.dtype.type(side)) for side in (-9, 9)]
    (x,) = draw((500,), dtype=dtype)
    x = np.concatenate([4 * x, kinks, *neighbours])
    (dy,) = draw(x.shape, dtype=dtype)
    tx = torch.tensor(x, requires_grad=True)
    ty = functions(torch)[activation](tx)
    ty.backward(torch.tensor(dy))
    y, dx = activation_forward(x, activation), activation_backward(dy, x, activation)
    assert y.dtype == dx.dtype == dtype
    close(y, ty.detach().numpy(), TORCH[dtype], "y")
    # PyTorch's hardsigmoid multiplies by a 1/6 that was rounded to float32, in float64 too
    close(dx, tx.grad.numpy(), max(TORCH[dtype], 1e-7 * (activation == "hsigmoid")), "dx")


@both_dtypes
@pytest.mark.parametrize(
    "activation, points",
    [
        ("relu", [(0.0, 0, 0), (-0.0, 0, 0)]),
        ("relu6", [(0.0, 0, 0), (-0.0, 0, 0), (6.0, 6, 0)]),
        ("hsigmoid", [(-3.0, 0, 0), (3.0, 1, 0), (0.0, 1 / 2, 1 / 6)]),
        ("hsigmoid02", [(-2.5, 0, 0), (2.5, 1, 0), (0.0, 1 / 2, 1 / 5)]),
        ("hswish", [(-3.0, 0, 0), (3.0, 3, 1), (0.0, 0, 1 / 2)]),
        ("sigmoid", [(0.0, 1 / 2, 1 / 4)]),
        ("swish", [(0.0, 0, 1 / 2)]),
    ],
)
def test_exact_points(activation, points, dtype):
    """Value and derivative at the kinks: PyTorch's choice, to the last bit."""
    x, y, slope = np.array(points, dtype).T.copy()
    (dy,) = draw(x.shape, dtype=dtype)
    assert (activation_forward(x, activation) == y).all()
    assert (activation_backward(np.ones_like(x), x, activation) == slope).all()
    close(activation_backward(dy, x, activation), dy * slope, 2 * np.finfo(dtype).eps)


@each_activation
def test_against_finite_differences(activation):
    x, dy = draw((4, 250), (4, 250))
    x *= 4
    x = x[np.abs(np.abs(x[..., None]) - [0, 2.5, 3, 6]).min(axis=-1) > 1e-3]  # away from every kink
    dy = dy.reshape(-1)[: x.size]
    assert x.size > 950
    step = 1e-5  # each number of y depends on one of x: all differences at once
    rise = activation_forward(x + step, activation) - activation_forward(x - step, activation)
    close(dy * rise / (2 * step), activation_backward(dy, x, activation), DIFFERENCES)


@both_dtypes
@each_activation
def test_nan_is_not_hidden(activation, dtype):
    x = np.array([1, np.nan, -1, 7, np.nan], dtype)
    y = activation_forward(x, activation)
    assert np.isnan(y).tolist() == [False, True, False, False, True]
    dy = np.array([np.nan, 1, np.nan, np.nan, 1], dtype)
    assert np.isnan(activation_backward(dy, x, activation))[[0, 2, 3]].all()


@both_dtypes
@each_activation
def test_huge_and_denormal_numbers(activation, dtype):
    """Finite wherever the truth is a number of this dtype; nothing overflows on the way to it."""
    limit = float(np.finfo(dtype).max)
    tiny = float(np.finfo(dtype).smallest_subnormal)
    sizes = [limit, limit / 3, limit / 40, 1e30, 1e4, 90.0, 1e-30, 100 * tiny, tiny]
    x = np.array([sign * size for size in sizes for sign in (1, -1)], dtype)
    with np.errstate(over="ignore"):
        want_y = np.array([oracle.activate(activation, x[i : i + 1])[0] for i in range(x.size)])
        want_dx = np.array([oracle.derivative(activation, x[i : i + 1])[0] for i in range(x.size)])
    y, dx = activation_forward(x, activation), activation_backward(np.ones_like(x), x, activation)
    bound = 8 * np.finfo(dtype).eps
    for got, want, name in ((y, want_y, "y"), (dx, want_dx, "dx")):
        off = ~(np.abs(got - want) <= bound * np.abs(want) + 2 * tiny + 1e-25)
        assert not off.any(), f"{name} at {x[off]}: {got[off]}, expected {want[off]}"


@both_dtypes
@pytest.mark.parametrize("beta", [2.0, -2.0])
def test_swish_does_not_overflow_in_beta_x(beta, dtype):
    limit = np.finfo(dtype).max
    x = np.array([limit, -limit, limit / 3, -limit / 3], dtype)
    up = np.sign(beta) * np.sign(x) > 0
    assert (activation_forward(x, "swish", beta) == np.where(up, x, 0)).all()
    assert (activation_backward(np.ones_like(x), x, "swish", beta) == up).all()


@pytest.mark.parametrize(
    "activation, limits",
    [
        ("identity", (np.inf, -np.inf)),
        ("relu", (np.inf, 0)),
        ("relu6", (6, 0)),
        ("hsigmoid", (1, 0)),
        ("hsigmoid02", (1, 0)),
        ("sigmoid", (1, 0)),
    ],
)
def test_infinity(activation, limits):
    assert (activation_forward(np.array([np.inf, -np.inf]), activation) == limits).all()


def test_a_code_is_as_good_as_a_name():
    (x,) = draw((7,))
    for name, code in CODES.items():
        assert (activation_forward(x, name) == activation_forward(x, code)).all()
        assert (activation_forward(x, name) == activation_forward(x, np.int64(code))).all()


@pytest.mark.parametrize("activation", ["gelu", "ReLU", 1, 99, -1, None, True])
def test_an_unknown_activation(activation):
    x, message = np.ones(3), r"activation: expected one of identity, relu, .*, swish, got "
    with pytest.raises(ValueError, match=message):
        activation_forward(x, activation)
    with pytest.raises(ValueError, match=message):
        activation_backward(x, x, activation)


def test_an_empty_batch():
    x = np.empty((0, 4, 4, 3))
    assert activation_forward(x, "relu6").shape == x.shape
    assert activation_backward(x, x, "relu6").shape == x.shape
