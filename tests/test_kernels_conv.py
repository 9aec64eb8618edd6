"""The standard convolution: forward, dx and dw on every shape, against the oracle and PyTorch."""

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

from numnet.kernels import conv, conv_backward, conv_forward


@cache
def arrays(shape):
    return draw(shape.x, shape.conv_w, shape.conv_y)


@each_shape
def test_against_the_oracle(shape):
    x, w, dy = arrays(shape)
    count = oracle.Count()
    y = oracle.conv(x, w, shape.stride, shape.pads, count)
    close(conv_forward(x, w, shape.stride, shape.padding), y, ORACLE, "y")
    dx, dw = conv_backward(dy, x, w, shape.stride, shape.padding)
    want_dx, want_dw = oracle.conv_backward(dy, x, w, shape.stride, shape.pads)
    close(dx, want_dx, ORACLE, "dx")
    close(dw, want_dw, ORACLE, "dw")
    cost = closed_form(shape)
    assert cost.macs == cost.dx_macs == cost.dw_macs == count.macs
    assert (cost.params, cost.inputs, cost.outputs) == (w.size, x.size, y.size)


def closed_form(shape):
    n, h, w, c = shape.x
    kernel = oracle.pair(shape.kernel)
    if kernel[0] != kernel[1]:
        # conv_cost knows square kernels; K² is their product for the others too
        square = conv.conv_cost(n, *shape.pixels, 1, c, shape.filters, h=h, w=w)
        k2 = kernel[0] * kernel[1]
        return square._replace(
            **{name: getattr(square, name) * k2 for name in ("macs", "dx_macs", "dw_macs", "params")}
        )
    return conv.conv_cost(n, *shape.pixels, kernel[0], c, shape.filters, h=h, w=w)


@both_dtypes
@each_shape
def test_against_pytorch(shape, dtype, torch):
    x, w, dy = (a.astype(dtype) for a in arrays(shape))
    y = conv_forward(x, w, shape.stride, shape.padding)
    dx, dw = conv_backward(dy, x, w, shape.stride, shape.padding)
    (top, bottom), (left, right) = shape.pads
    tx, tw = torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
    padded = torch.nn.functional.pad(tx.permute(0, 3, 1, 2), (left, right, top, bottom))
    ty = torch.nn.functional.conv2d(padded, tw.permute(3, 2, 0, 1), stride=shape.stride)
    ty.backward(torch.tensor(dy).permute(0, 3, 1, 2))
    assert y.dtype == dx.dtype == dw.dtype == dtype
    close(y, ty.detach().permute(0, 2, 3, 1).numpy(), TORCH[dtype], "y")
    close(dx, tx.grad.numpy(), TORCH[dtype], "dx")
    close(dw, tw.grad.numpy(), TORCH[dtype], "dw")


@pytest.mark.parametrize("shape", TINY, ids=lambda shape: shape.name)
def test_against_finite_differences(shape):
    x, w, dy = (a.copy() for a in arrays(shape))
    dx, dw = conv_backward(dy, x, w, shape.stride, shape.padding)

    def loss():
        return np.vdot(dy, conv_forward(x, w, shape.stride, shape.padding))

    close(dx, differences(loss, x, 1e-2), DIFFERENCES, "dx")  # y is linear in both: the step may be large
    close(dw, differences(loss, w, 1e-2), DIFFERENCES, "dw")


# The other layers' standard convolution would be 14×14×512→512, 3×3: no MobileNet has one.
@pytest.mark.parametrize("shape", [LAYERS[0], LAYERS[3], LAYERS[7]], ids=lambda shape: shape.name)
def test_dot_product_at_real_layer_sizes(shape):
    x, w, dy = draw(shape.x, shape.conv_w, shape.conv_y)
    y = conv_forward(x, w, shape.stride, shape.padding)
    dx, dw = conv_backward(dy, x, w, shape.stride, shape.padding)
    dot_product_test(dy, y, (dx, x), (dw, w))


def test_one_by_one_is_the_pointwise_kernel():
    from numnet.kernels import pointwise_forward

    x, w = draw((2, 5, 6, 7), (7, 9))
    close(conv_forward(x, w.reshape(1, 1, 7, 9)), pointwise_forward(x, w), ORACLE)
