"""Depthwise convolution: forward, dx and dw on every shape, against the oracle and PyTorch."""

from functools import cache

import numpy as np
import oracle
import pytest
from kernel_shapes import (
    DIFFERENCES,
    LAYERS,
    ORACLE,
    TINY,
    TORCH,
    both_dtypes,
    close,
    differences,
    dot_product_test,
    draw,
    each_shape,
)

from numnet.kernels import conv_forward, depthwise, depthwise_backward, depthwise_forward


@cache
def arrays(shape):
    return draw(shape.x, shape.depthwise_w, shape.depthwise_y)


@each_shape
def test_against_the_oracle(shape):
    x, w, dy = arrays(shape)
    count = oracle.Count()
    y = oracle.depthwise(x, w, shape.stride, shape.pads, count)
    close(depthwise_forward(x, w, shape.stride, shape.padding), y, ORACLE, "y")
    dx, dw = depthwise_backward(dy, x, w, shape.stride, shape.padding)
    want_dx, want_dw = oracle.depthwise_backward(dy, x, w, shape.stride, shape.pads)
    close(dx, want_dx, ORACLE, "dx")
    close(dw, want_dw, ORACLE, "dw")
    kernel = oracle.pair(shape.kernel)
    if kernel[0] == kernel[1]:  # depthwise_cost knows square kernels
        n, height, width, c = shape.x
        cost = depthwise.depthwise_cost(n, *shape.pixels, kernel[0], c, shape.multiplier, h=height, w=width)
        assert cost.macs == cost.dx_macs == cost.dw_macs == count.macs
        assert (cost.params, cost.inputs, cost.outputs) == (w.size, x.size, y.size)


@both_dtypes
@each_shape
def test_against_pytorch(shape, dtype, torch):
    x, w, dy = (a.astype(dtype) for a in arrays(shape))
    y = depthwise_forward(x, w, shape.stride, shape.padding)
    dx, dw = depthwise_backward(dy, x, w, shape.stride, shape.padding)
    (top, bottom), (left, right) = shape.pads
    tx, tw = torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
    padded = torch.nn.functional.pad(tx.permute(0, 3, 1, 2), (left, right, top, bottom))
    filters = tw.flatten(2).permute(2, 0, 1)[:, None]  # (K, K, C, M) -> (C·M, 1, K, K)
    ty = torch.nn.functional.conv2d(padded, filters, stride=shape.stride, groups=shape.channels)
    ty.backward(torch.tensor(dy).permute(0, 3, 1, 2))
    assert y.dtype == dx.dtype == dw.dtype == dtype
    close(y, ty.detach().permute(0, 2, 3, 1).numpy(), TORCH[dtype], "y")
    close(dx, tx.grad.numpy(), TORCH[dtype], "dx")
    close(dw, tw.grad.numpy(), TORCH[dtype], "dw")


@pytest.mark.parametrize("shape", TINY, ids=lambda shape: shape.name)
def test_against_finite_differences(shape):
    x, w, dy = (a.copy() for a in arrays(shape))
    dx, dw = depthwise_backward(dy, x, w, shape.stride, shape.padding)

    def loss():
        return np.vdot(dy, depthwise_forward(x, w, shape.stride, shape.padding))

    close(dx, differences(loss, x, 1e-2), DIFFERENCES, "dx")  # y is linear in both: the step may be large
    close(dw, differences(loss, w, 1e-2), DIFFERENCES, "dw")


@pytest.mark.parametrize("shape", LAYERS[1:], ids=lambda shape: shape.name)
def test_dot_product_at_real_layer_sizes(shape):
    x, w, dy = draw(shape.x, shape.depthwise_w, shape.depthwise_y)
    y = depthwise_forward(x, w, shape.stride, shape.padding)
    dx, dw = depthwise_backward(dy, x, w, shape.stride, shape.padding)
    dot_product_test(dy, y, (dx, x), (dw, w))


def test_is_the_convolution_whose_weights_are_zero_between_channels():
    x, w = draw((2, 6, 7, 4), (3, 3, 4, 2))
    full = np.zeros((3, 3, 4, 4, 2))
    full[:, :, range(4), range(4)] = w
    want = conv_forward(x, full.reshape(3, 3, 4, 8), 2)
    close(depthwise_forward(x, w, 2), want, ORACLE)
