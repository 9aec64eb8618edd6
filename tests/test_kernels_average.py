"""Windowed average pooling, kernel and layer: definition, PyTorch, the dot product; and what one article does with it."""

import numpy as np
import oracle
import pytest
from kernel_shapes import DIFFERENCES, ORACLE, TORCH, both_dtypes, close, differences, dot_product_test, draw

import numnet
from numnet.kernels import average_backward, average_forward, global_average_forward
from numnet.kernels.average import average_cost
from numnet.layers import AveragePool, Dense, Flatten

WINDOWS = [  # x, kernel side, stride, padding
    ((1, 1, 1, 1), 1, 1, 0),
    ((2, 5, 7, 3), 2, 2, 0),  # the last row and column are read by no window
    ((2, 6, 5, 4), 3, 1, "same"),
    ((2, 6, 5, 4), 3, 2, "same"),
    ((2, 6, 5, 4), 3, 2, "symmetric"),
    ((2, 4, 4, 5), 2, 3, 0),  # stride > kernel
    ((11, 3, 3, 2), 3, 3, 1),
    ((1, 3, 3, 4), 3, 1, ((2, 2), (2, 1))),  # corners see one pixel
    ((2, 7, 7, 3), 7, 1, "same"),
]
each_window = pytest.mark.parametrize("shape, side, stride, padding", WINDOWS, ids=str)


def means(x, side, stride, pads):
    """Tap by tap: the mean of the pixels that lie inside."""
    sums = oracle.pair(stride)
    size = oracle.output_size(x.shape[1:3], oracle.pair(side), sums, pads)
    y = np.zeros((x.shape[0], *size, x.shape[3]))
    for n, p, q in np.ndindex(y.shape[:3]):
        inside = []
        for u, v in np.ndindex(side, side):
            h, w = p * stride + u - pads[0][0], q * stride + v - pads[1][0]
            if 0 <= h < x.shape[1] and 0 <= w < x.shape[2]:
                inside.append(x[n, h, w])
        y[n, p, q] = np.mean(inside, axis=0)
    return y


@each_window
def test_against_the_definition(shape, side, stride, padding):
    (x,) = draw(shape)
    pads = oracle.resolve(padding, shape[1:3], side, stride)
    y = average_forward(x, side, stride, padding)
    close(y, means(x, side, stride, pads), ORACLE)
    (dy,) = draw(y.shape, seed=1)
    dot_product_test(dy, y, (average_backward(dy, shape, side, stride, padding), x))
    assert (average_forward(np.ones(shape), side, stride, padding) == 1).all()


@both_dtypes
@each_window
def test_against_pytorch(shape, side, stride, padding, dtype, torch):
    pads = oracle.resolve(padding, shape[1:3], side, stride)
    (top, bottom), (left, right) = pads
    if (top, left) != (bottom, right) or 2 * max(top, left) > side:
        pytest.skip("PyTorch pads both ends alike, by at most half of the kernel")
    (x,) = draw(shape, dtype=dtype)
    tx = torch.tensor(x, requires_grad=True)
    ty = torch.nn.functional.avg_pool2d(
        tx.permute(0, 3, 1, 2), side, stride, (top, left), count_include_pad=False
    )
    y = average_forward(x, side, stride, padding)
    (dy,) = draw(y.shape, dtype=dtype, seed=1)
    ty.backward(torch.tensor(dy).permute(0, 3, 1, 2))
    dx = average_backward(dy, shape, side, stride, padding)
    assert y.dtype == dx.dtype == dtype
    close(y, ty.detach().permute(0, 2, 3, 1).numpy(), TORCH[dtype], "y")
    close(dx, tx.grad.numpy(), TORCH[dtype], "dx")


def test_against_finite_differences():
    (x,) = draw((2, 4, 5, 2))
    (dy,) = draw(average_forward(x, 3, 2, 1).shape)
    dx = average_backward(dy, x.shape, 3, 2, 1)
    close(dx, differences(lambda: np.vdot(dy, average_forward(x, 3, 2, 1)), x, 1e-2), DIFFERENCES)


def test_one_window_is_the_global_average():
    (x,) = draw((2, 7, 7, 5))
    close(average_forward(x, 7, 1)[:, 0, 0], global_average_forward(x), ORACLE)


def test_what_is_refused():
    x = np.ones((1, 4, 4, 2))
    with pytest.raises(ValueError, match="padding: expected less than the kernel side 2"):
        average_forward(x, 2, 1, 2)
    with pytest.raises(ValueError, match="x: a map of 0×5 pixels has no mean"):
        average_forward(np.zeros((1, 0, 5, 3)), 2, padding=1)
    with pytest.raises(ValueError, match="padding: a kernel of 5 does not fit"):
        average_forward(x, 5)
    with pytest.raises(ValueError, match="dy: expected shape"):
        average_backward(np.ones((1, 3, 2, 2)), x.shape, 2)
    with pytest.raises(ValueError, match="out"):
        average_forward(x, 2, out=np.ones((1, 2, 2, 3)))
    assert average_forward(x[:0], 2).shape == (0, 2, 2, 2)


def test_the_layer():
    """In a net: gradients by finite differences, predict as forward, and the cost of what it adds up."""
    layers = [AveragePool(3, 2, "same", name="pool"), Flatten(), Dense(4)]
    net = numnet.Net(layers, (6, 5, 3), dtype="float64")
    (x,) = draw((2, 6, 5, 3))
    numnet.check_gradients(net, x)
    net.forward(x, training=True)
    (dlogits,) = draw((2, 4))
    dx = net.backward(dlogits)
    close(dx, differences(lambda: np.vdot(dlogits, net.forward(x)), x, 1e-2), DIFFERENCES)
    close(net.predict(x), net.forward(x), ORACLE)
    row = net.cost().rows[0]
    assert (row.type, row.output_shape, row.cost) == (
        "average pool",
        (3, 3, 3),
        average_cost(1, 6, 5, 3, 3, 3, 3),
    )
    assert row.cost.elementwise == 9 * 9 * 3


def test_the_article_s_end_of_v1():
    """7×7, stride 1, with the shape left as it is, flattened to 50,176 → 1,024: twelve times the whole net."""
    end = [AveragePool(7, 1, "same", name="pool"), Flatten(name="flat"), Dense(1024, name="dense")]
    net = numnet.Net(end, (7, 7, 1024), allocate=False)
    assert [layer.output_shape for layer in net.layers] == [(7, 7, 1024), (50176,), (1024,)]
    assert net.cost().params == 51381248
    assert 12 < net.cost().params / numnet.describe("mobilenet_v1").cost().params < 12.2
