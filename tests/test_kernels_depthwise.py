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
    Shape,
    both_dtypes,
    close,
    differences,
    dot_product_test,
    draw,
    each_shape,
    folded,
    needs_float32,
    run,
)

from numnet.kernels import (
    batchnorm,
    conv_forward,
    depthwise,
    depthwise_backward,
    depthwise_forward,
    maps,
    vectors,
)
from numnet.kernels.activations import HSWISH, RELU6


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


@each_shape
def test_the_definition_against_the_oracle(shape):
    x, w, dy = arrays(shape)
    y = oracle.depthwise(x, w, shape.stride, shape.pads)
    close(depthwise.definition(x, w, shape.stride, shape.padding), y, ORACLE, "y")
    got = depthwise.definition_backward(dy, x, w, shape.stride, shape.padding)
    for name, a, b in zip(("dx", "dw"), got, oracle.depthwise_backward(dy, x, w, shape.stride, shape.pads)):
        close(a, b, ORACLE, name)


# 40 images: a part has five, so that its sums of dw are flushed within an image, between images and at its end.
# Channels: 24 = 16 + 8 lanes that overlap, 8 fewer than a register has, 33 no multiple of any.
MANY = [
    Shape(40, 32, 34, 24, 24, 3),
    Shape(40, 17, 19, 33, 33, 3, 2, "symmetric"),
    Shape(40, 20, 19, 24, 24, 5, 2),
    Shape(33, 15, 22, 8, 8, 5),
    Shape(33, 14, 14, 3, 6, 3, 1, ((2, 0), (1, 3)), 2),
]


@both_dtypes
@pytest.mark.parametrize("shape", MANY, ids=lambda shape: shape.name)
def test_many_images_against_the_definition(shape, dtype):
    x, w, dy = draw(shape.x, shape.depthwise_w, shape.depthwise_y, dtype=dtype)
    exact = [a.astype("float64") for a in (x, w, dy)]
    bound = ORACLE if dtype == "float64" else TORCH[dtype]
    y = depthwise.definition(*exact[:2], shape.stride, shape.padding)
    close(depthwise_forward(x, w, shape.stride, shape.padding), y, bound, "y")
    got = depthwise_backward(dy, x, w, shape.stride, shape.padding)
    for name, a, b in zip(
        ("dx", "dw"), got, depthwise.definition_backward(exact[2], *exact[:2], shape.stride, shape.padding)
    ):
        close(a, b, bound, name)


@pytest.mark.parametrize("shape", [MANY[0], MANY[1], MANY[4]], ids=lambda shape: shape.name)
def test_the_passes_of_a_unit_against_separate_ones(shape):
    """Raw x in, moments out; the gradient of finished y in, dx (plus another reader's) and the sums of x's norm out."""
    x, w, dz, more = draw(shape.x, shape.depthwise_w, shape.depthwise_y, shape.x)
    window = maps.Window(w.shape[1], shape.stride, shape.pads[0][0], shape.pads[1][0])
    pack_x, pack_y, means = draw((4, x.shape[3]), (4, dz.shape[3]), (2, dz.shape[3]))
    source, parts = batchnorm.source_of(x, pack_x, RELU6), maps.parts_of(len(x))
    finished = batchnorm.normalised(source)

    y, moments = np.full(dz.shape, np.nan), np.zeros((parts, 3, dz.shape[3]))
    depthwise.unit_forward(source, w, window, y, moments)
    close(y, depthwise.definition(finished, w, shape.stride, shape.padding), ORACLE, "y")
    count, mean = (
        moments[:, 0].sum(axis=0),
        (moments[:, 0] * moments[:, 1]).sum(axis=0) / moments[:, 0].sum(axis=0),
    )
    spread = (moments[:, 2] + moments[:, 0] * (moments[:, 1] - mean) ** 2).sum(axis=0)
    assert (count == y.size // y.shape[3]).all()
    close(mean, y.mean(axis=(0, 1, 2)), ORACLE, "mean")
    close(spread, y.var(axis=(0, 1, 2)) * count, ORACLE, "M2")

    upstream = batchnorm.upstream_of(dz, y, pack_y, means, HSWISH)
    dx, x_sums = np.full(x.shape, np.nan), np.zeros((parts, 2, x.shape[3]))
    partial = np.full((parts, w.shape[0] * w.shape[1], dz.shape[3]), np.nan)
    depthwise.unit_backward(upstream, source, w, window, dx, more, x_sums, partial)
    dy = batchnorm.unit_gradient_of(upstream)
    want_dx, want_dw = depthwise.definition_backward(dy, finished, w, shape.stride, shape.padding)
    close(partial.sum(axis=0).reshape(w.shape), want_dw, ORACLE, "dw")
    close(dx, want_dx + more, ORACLE, "dx")
    close(x_sums.sum(axis=0), batchnorm.gradient_sums_of(dx, source).sum(axis=0), ORACLE, "sums of x")

    scale, shift = draw((dz.shape[3],), (dz.shape[3],))
    run(depthwise.inference_step(batchnorm.source_of(finished), folded(w, shift, scale), RELU6, window, y))
    want = depthwise.definition(finished, w, shape.stride, shape.padding) * scale + shift
    close(y, np.clip(want, 0, 6), ORACLE, "inference")


BITS = """
import hashlib, numpy as np
from numnet.kernels import depthwise_backward, depthwise_forward
from numnet.kernels.vectors import LANES
draw, digest = np.random.default_rng(0), hashlib.sha256()
for n, h, w, c, k, stride in ((9, 12, 11, 24, 3, 1), (9, 9, 8, 33, 3, 2), (3, 9, 7, 20, 5, 2)):
    x, weights = draw.standard_normal((n, h, w, c), np.float32), draw.standard_normal((k, k, c, 1), np.float32)
    y = depthwise_forward(x, weights, stride)
    for a in (y, *depthwise_backward(y, x, weights, stride)):
        digest.update(a.tobytes())
print(LANES, digest.hexdigest())
"""


@needs_float32
@pytest.mark.skipif(vectors.PLAIN, reason="plain Python rounds a product before it is added")
def test_the_same_bits_for_any_lanes(run_python, tmp_path):
    script = tmp_path / "bits.py"
    script.write_text(BITS)
    seen = {}
    for n in ("4", "8", "16"):
        lanes, bits = run_python(script, env={"NUMNET_LANES": n, "NUMNET_CACHE": tmp_path / n}).split()
        seen[lanes] = bits
    assert set(seen) == {"4", "8", "16"} and len(set(seen.values())) == 1


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
