"""Pointwise convolution and the dense layer: products of matrices, cut into tiles."""

from functools import cache

import numpy as np
import oracle
import pytest
from kernel_shapes import (
    DIFFERENCES,
    LAYERS,
    ORACLE,
    SHAPES,
    TORCH,
    both_dtypes,
    close,
    differences,
    dot_product_test,
    draw,
)

from numnet.kernels import (
    dense,
    dense_backward,
    dense_forward,
    pointwise,
    pointwise_backward,
    pointwise_forward,
)

MAPS = [
    *dict.fromkeys((*shape.x, shape.filters) for shape in SHAPES),
    (1, 257, 1, 2, 3),  # one pixel more than a part needs
    (1, 23, 23, 5, 9),  # two parts, 264 and 265 pixels
    (10, 16, 16, 250, 7),  # eight parts of 320 pixels, two tiles each, the second not full
    (1, 1, 1, 3, 1001),
]
each_map = pytest.mark.parametrize("shape", MAPS, ids=lambda shape: "x".join(map(str, shape)))


@cache
def arrays(shape):
    *x, filters = shape
    return draw(tuple(x), (x[3], filters), (*x[:3], filters))


@each_map
def test_pointwise_against_the_oracle(shape):
    x, w, dy = arrays(shape)
    count = oracle.Count()
    y = oracle.pointwise(x, w, count)
    close(pointwise_forward(x, w), y, ORACLE, "y")
    dx, dw = pointwise_backward(dy, x, w)
    want_dx, want_dw = oracle.pointwise_backward(dy, x, w)
    close(dx, want_dx, ORACLE, "dx")
    close(dw, want_dw, ORACLE, "dw")
    cost = pointwise.pointwise_cost(*shape)
    assert cost.macs == cost.dx_macs == cost.dw_macs == count.macs
    assert (cost.params, cost.inputs, cost.outputs) == (w.size, x.size, y.size)


@both_dtypes
@each_map
def test_pointwise_against_pytorch(shape, dtype, torch):
    x, w, dy = (a.astype(dtype) for a in arrays(shape))
    y = pointwise_forward(x, w)
    dx, dw = pointwise_backward(dy, x, w)
    tx, tw = torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
    ty = torch.nn.functional.conv2d(tx.permute(0, 3, 1, 2), tw.T[:, :, None, None])
    ty.backward(torch.tensor(dy).permute(0, 3, 1, 2))
    assert y.dtype == dx.dtype == dw.dtype == dtype
    close(y, ty.detach().permute(0, 2, 3, 1).numpy(), TORCH[dtype], "y")
    close(dx, tx.grad.numpy(), TORCH[dtype], "dx")
    close(dw, tw.grad.numpy(), TORCH[dtype], "dw")


@pytest.mark.parametrize("shape", [(2, 1, 1, 5, 7), (1, 3, 2, 4, 3)], ids=str)
def test_pointwise_against_finite_differences(shape):
    x, w, dy = (a.copy() for a in arrays(shape))
    dx, dw = pointwise_backward(dy, x, w)

    def loss():
        return np.vdot(dy, pointwise_forward(x, w))

    close(dx, differences(loss, x, 1e-2), DIFFERENCES, "dx")
    close(dw, differences(loss, w, 1e-2), DIFFERENCES, "dw")


@pytest.mark.parametrize("shape", LAYERS[1:], ids=lambda shape: shape.name)
def test_pointwise_dot_product_at_real_layer_sizes(shape):
    x, w, dy = draw(shape.x, (shape.channels, shape.filters), (*shape.x[:3], shape.filters))
    y = pointwise_forward(x, w)
    dx, dw = pointwise_backward(dy, x, w)
    dot_product_test(dy, y, (dx, x), (dw, w))


DENSE = [(1, 1, 1), (3, 5, 7), (2, 1024, 10), (17, 33, 1001), (600, 3, 2)]  # N, C, F
each_dense = pytest.mark.parametrize("shape", DENSE, ids=lambda shape: "x".join(map(str, shape)))


@each_dense
def test_dense_against_the_oracle(shape):
    n, c, f = shape
    x, w, b, dy = draw((n, c), (c, f), (f,), (n, f))
    count = oracle.Count()
    y = oracle.dense(x, w, b, count)
    close(dense_forward(x, w, b), y, ORACLE, "y")
    close(dense_forward(x, w), y - b, ORACLE, "y without a bias")
    for name, got, want in zip(("dx", "dw", "db"), dense_backward(dy, x, w), oracle.dense_backward(dy, x, w)):
        close(got, want, ORACLE, name)
    cost = dense.dense_cost(n, c, f)
    assert cost.macs == cost.dx_macs == cost.dw_macs == count.macs
    assert (cost.params, cost.inputs, cost.outputs) == (w.size + b.size, x.size, y.size)
    assert dense.dense_cost(n, c, f, bias=False).params == w.size


@both_dtypes
@each_dense
def test_dense_against_pytorch(shape, dtype, torch):
    n, c, f = shape
    x, w, b, dy = draw((n, c), (c, f), (f,), (n, f), dtype=dtype)
    tx, tw, tb = (torch.tensor(a, requires_grad=True) for a in (x, w, b))
    ty = torch.nn.functional.linear(tx, tw.T, tb)
    ty.backward(torch.tensor(dy))
    close(dense_forward(x, w, b), ty.detach().numpy(), TORCH[dtype], "y")
    for name, got, want in zip(("dx", "dw", "db"), dense_backward(dy, x, w), (tx, tw, tb)):
        assert got.dtype == dtype
        close(got, want.grad.numpy(), TORCH[dtype], name)


def test_dense_against_finite_differences():
    x, w, b, dy = draw((4, 5), (5, 3), (3,), (4, 3))

    def loss():
        return np.vdot(dy, dense_forward(x, w, b))

    for name, gradient, a in zip(("dx", "dw", "db"), dense_backward(dy, x, w), (x, w, b)):
        close(gradient, differences(loss, a, 1e-2), DIFFERENCES, name)
