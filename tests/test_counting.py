"""Counted, not claimed: the kernels' own source, run as plain Python on numbers that count what is done to them.

The closed forms are those of ``numnet.cost``: the products and additions that a kernel really does. The papers' MACs
equal the products, except in the depthwise dx, which has a product for each tap of each pixel of x.
"""

import json

import pytest
from kernel_shapes import CHECKING

import numnet
from numnet import cost
from numnet.cost import operations
from numnet.kernels.padding import output_side, resolve

pytestmark = pytest.mark.skipif(CHECKING, reason="nothing is compiled here, so there is nothing to check")
PLAIN = {"NUMBA_DISABLE_JIT": "1"}

NUMBER = """
import json, sys
import numpy as np

class Number:
    products = additions = 0
    counting = True

    def __init__(self, value):
        self.value = value

    def __float__(self):
        return self.value

    def __mul__(self, other):
        Number.products += Number.counting
        return Number(self.value * float(other))

    def __add__(self, other):
        Number.additions += Number.counting
        return Number(self.value + float(other))

    def __sub__(self, other):
        Number.additions += Number.counting
        return Number(self.value - float(other))

    def __rsub__(self, other):
        Number.additions += Number.counting
        return Number(float(other) - self.value)

    def __truediv__(self, other):
        Number.products += Number.counting
        return Number(self.value / float(other))

    def __rtruediv__(self, other):
        Number.products += Number.counting
        return Number(float(other) / self.value)

    def __neg__(self):
        return Number(-self.value)

    def __abs__(self):
        return Number(abs(self.value))

    def __lt__(self, other):
        return self.value < float(other)

    def __gt__(self, other):
        return self.value > float(other)

    def __le__(self, other):
        return self.value <= float(other)

    def __ge__(self, other):
        return self.value >= float(other)

    __rmul__, __radd__ = __mul__, __add__

def numbers(array):
    return np.frompyfunc(Number, 1, 1)(np.asarray(array, float)).astype(object)

def counted(function, *arguments):
    Number.products = Number.additions = 0
    function(*arguments)
    return Number.products, Number.additions
"""

# --- one kernel after another: forward, dx, dw --------------------------------------------------------------

KERNELS = (
    NUMBER
    + """
from numnet.kernels import average, batchnorm, conv, dense, depthwise, maps, pointwise
from numnet.kernels.batchnorm import source_of, upstream_of
from numnet.kernels.maps import Window
from numnet.kernels.padding import output_side, resolve

def random(*shape):
    return numbers(np.random.default_rng(sum(shape)).normal(size=shape))

def empty(*shape):
    return np.zeros(shape, object)

def difference(both, one):
    return [a - b for a, b in zip(both, one)]

NO_MOMENTS, NO_SUMS = np.zeros((0, 3, 0)), np.zeros((0, 2, 0))
results = []
for n, h, w, c, f, k, s, padding, m in json.loads(sys.argv[1]):
    pads = resolve(padding if isinstance(padding, str | int) else tuple(map(tuple, padding)), (h, w), (k, k), s)
    p, q = (output_side(a, k, s, *pad) for a, pad in zip((h, w), pads))
    x, window, parts = random(n, h, w, c), (Window(k, s, pads[0][0], pads[1][0]),), maps.parts_of(n)
    few, row = maps.parts_of(n * h * w, pointwise.LEAST), {}
    for name, page, where, weights, dy, sums in (
        ("conv", conv, window, random(k, k, c, f), random(n, p, q, f), (parts, k * k * c, f)),
        ("depthwise", depthwise, window, random(k, k, c, m), random(n, p, q, c * m), (parts, k * k, c * m)),
        ("pointwise", pointwise, (), random(c, f), random(n, h, w, f), (few, c, f)),
    ):
        def back(dx):
            partial = empty(*sums)
            page.unit_backward(upstream_of(dy), source_of(x), weights, *where, dx, x[:0], NO_SUMS, partial)
            pointwise.sum_parts(partial, empty(*sums[1:]))

        forward = counted(page.unit_forward, source_of(x), weights, *where, empty(*dy.shape), NO_MOMENTS)
        of_dw, both = counted(back, empty(0, 0, 0, c)), counted(back, empty(*x.shape))
        row[name] = [forward, difference(both, of_dw), of_dw]

    rows, drows, bias = x[:, 0, 0].copy(), dy[:, 0, 0].copy(), random(f)
    if max(map(max, pads)) < k:  # no window lies in the padding altogether
        row["average"] = counted(average._forward, x, k, s, pads[0][0], pads[1][0], empty(n, p, q, c))
    row["dense"] = [counted(dense.dense_forward, rows, weights, bias), counted(dense.dense_backward, drows, rows, weights)]
    results.append(row)
print(json.dumps(results))
"""
)

SHAPES = [  # N, H, W, C, F, K, stride, padding, M
    (1, 1, 1, 1, 1, 1, 1, "same", 1),
    (2, 5, 7, 3, 5, 3, 1, "same", 1),
    (2, 5, 7, 3, 5, 3, 2, "same", 2),
    (2, 6, 8, 3, 5, 3, 2, "same", 1),
    (2, 6, 8, 3, 5, 3, 2, "symmetric", 1),
    (3, 8, 5, 2, 4, 5, 1, "same", 2),
    (2, 9, 10, 4, 3, 5, 2, "symmetric", 1),
    (2, 7, 8, 2, 3, 2, 2, "same", 1),
    (1, 7, 6, 4, 2, 3, 3, "same", 3),
    (11, 3, 3, 5, 2, 3, 1, "symmetric", 1),
    (1, 10, 8, 3, 4, 7, 2, "same", 1),
    (2, 6, 6, 3, 4, 3, 2, 0, 1),
    (1, 5, 4, 2, 3, 3, 2, ((2, 0), (0, 3)), 2),
    (2, 6, 5, 4, 3, 1, 2, "same", 1),
    (1, 24, 23, 2, 3, 3, 1, "same", 1),  # several parts of pixels
    (1, 3, 4, 300, 2, 3, 1, "symmetric", 1),  # many channels
    (2, 20, 20, 100, 2, 1, 1, "same", 1),  # pointwise: two tiles a part
]


def test_the_kernels_do_what_the_closed_forms_say(run_python, tmp_path):
    script = tmp_path / "count.py"
    script.write_text(KERNELS)
    results = json.loads(run_python(script, json.dumps(SHAPES), env=PLAIN))
    assert len(results) == len(SHAPES) >= 10
    for shape, counted in zip(SHAPES, results, strict=True):
        n, h, w, c, f, k, s, padding, m = shape
        pads = resolve(padding, (h, w), (k, k), s)
        p, q = (output_side(a, k, s, *pad) for a, pad in zip((h, w), pads))
        where = (k, s, pads, p, q)
        closed = {
            "conv": operations.conv(n, h, w, c, f, *where),
            "depthwise": operations.depthwise(n, h, w, c, m, *where),
            "pointwise": operations.pointwise(n, h, w, c, f),
        }
        for name, three in closed.items():
            assert counted[name] == [list(operation) for operation in three], (name, shape)
        dense = operations.dense(n, c, f)
        assert counted["dense"] == [list(dense.forward), list(dense.dx + dense.dw)], shape
        if max(map(max, pads)) < k:
            assert counted["average"] == list(operations.average(n, h, w, c, k, s, pads, p, q).forward), shape
        # The papers' MACs are the products.
        macs = n * p * q * k * k * c
        assert closed["conv"].forward.multiplications == macs * f
        assert closed["depthwise"].forward.multiplications == macs * m


# --- whole nets ---------------------------------------------------------------------------------------------

NETS = (
    NUMBER
    + """
import numnet
from numnet.kernels import activations, batchnorm, conv, depthwise, pointwise, pooling, residual, ring, squeeze_excite
from numnet.layers import layer as layers
from numnet.layers.layer import Memory, Workspace, backward_through, finish, hand

def objects(self, name, shape, dtype):
    return np.zeros(shape, object)

def counting(function):
    return lambda x, y: numbers(function(x, y))  # a clipped number counts too, where it is bare 0 or 6

activations.least, activations.most = counting(activations.least), counting(activations.most)
activations.exp = lambda x: numbers(np.exp(np.asarray(x, float)))  # not counted
Memory.array = objects
Workspace.borrow = lambda self, shape, dtype: np.zeros(shape, object)
Workspace.release = lambda self, array: None

def silent(function):
    def run(*arguments):
        before, Number.counting = Number.counting, False
        result = function(*arguments)
        Number.counting = before
        return result
    return run

activation = sys.argv[2] or None
net = numnet.build(sys.argv[1], width=0.1, resolution=8, classes=10, dtype="float64", dropout=0.0, activation=activation)
for _, layer in net.walk():
    layer.params = {name: numbers(array) for name, array in layer.params.items()}
    layer.grads = {name: numbers(array) for name, array in layer.grads.items()}
x = numbers(np.random.default_rng(0).normal(size=(2, 8, 8, 3)))

def forward(training):
    y = x
    for layer in net.layers:
        y = hand(layer, y, training)
    return y

result = {"inference": counted(forward, False)}
# What is left without batch norm and activations: the convolutions, the dense layer, and the gradients of skips.
page = {"normalise_activate", "unit_gradient", "add_moments", "add_gradient_sums"}
for module in (batchnorm, conv, depthwise, pointwise, pooling, residual, ring):
    for name in page & set(vars(module)):
        setattr(module, name, silent(getattr(module, name)))
for name in ("gradient_sums_of", "close_moments", "close_gradient_sums"):
    setattr(batchnorm, name, silent(getattr(batchnorm, name)))
residual._sum = silent(residual._sum)
for name in ("unit_average", "global_average_backward"):
    setattr(pooling, name, silent(getattr(pooling, name)))
for name in ("unit_forward", "unit_gate_gradient", "unit_backward"):  # the scaling; its dense layers are counted
    setattr(squeeze_excite, name, silent(getattr(squeeze_excite, name)))
for name in ("activation_forward", "activation_backward"):
    setattr(activations, name, silent(getattr(activations, name)))
result["forward"] = counted(forward, True)
dlogits = numbers(np.random.default_rng(1).normal(size=(2, 10)))
result["backward"] = counted(backward_through, net.layers, dlogits)
print(json.dumps(result))
"""
)


@pytest.mark.parametrize(
    "model, activation",
    [("mobilenet_v1", "swish"), ("mobilenet_v2", ""), ("mnasnet_a1", ""), ("mobilenet_v3_small", "")],
)
def test_a_whole_net_does_what_its_report_says(run_python, tmp_path, model, activation):
    """8×8 pixels, width 0.1, two images: inference with batch norm and activations, a training step without."""
    script = tmp_path / "count.py"
    script.write_text(NETS)
    counted = json.loads(run_python(script, model, activation, env=PLAIN))
    net = numnet.describe(model, width=0.1, resolution=8, classes=10, activation=activation or None)
    report = cost.report(net, 2)
    assert counted["inference"] == [report["multiplications"], report["additions"]]
    linear = [line for line in report["layers"] if line["macs"]]

    def total(*keys):
        return sum(line[key] for line in linear for key in keys)

    skips = sum(line["additions"] for line in report["layers"] if line["type"] == "add")
    assert counted["forward"] == [total("macs"), total("additions")]
    assert counted["forward"] == [total("multiplications"), total("additions")]
    assert counted["backward"] == [
        total("dx_multiplications", "dw_multiplications"),
        total("dx_additions", "dw_additions") + skips,
    ]
    assert total("dx_multiplications") <= total("dx_macs") and total("dw_multiplications") == total("dw_macs")
