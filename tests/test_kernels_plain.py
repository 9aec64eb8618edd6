"""The kernels as plain Python (NUMBA_DISABLE_JIT=1): the same results, and as many products as they state.

The oracle counts the definition's multiply-accumulates; here the kernels' own are, by numbers that count.
"""

import json

import numpy as np
import oracle
import pytest
import test_kernels_arguments as arguments
from kernel_shapes import CHECKING, ORACLE, SHAPES, close

from numnet import kernels
from numnet.kernels import conv, dense, depthwise, pointwise

pytestmark = pytest.mark.skipif(CHECKING, reason="nothing is compiled here, so there is nothing to check")
PLAIN = {"NUMBA_DISABLE_JIT": "1"}

COUNT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from kernel_shapes import SHAPES, draw
from numnet import kernels

class Number:
    products = 0

    def __init__(self, value):
        self.value = value

    def __mul__(self, other):
        Number.products += 1
        return Number(self.value * float(other))

    def __add__(self, other):
        return Number(self.value + float(other))

    def __float__(self):
        return self.value

    __rmul__, __radd__ = __mul__, __add__

def numbers(shape):
    return np.frompyfunc(Number, 1, 1)(draw(shape)[0])

def products(function, *arguments):
    Number.products = 0
    function(*arguments)
    return Number.products

counted = []
for i in json.loads(sys.argv[2]):
    s = SHAPES[i]
    x, where = numbers(s.x), (s.stride, s.padding)
    w, dy = numbers(s.conv_w), numbers(s.conv_y)
    row = [products(kernels.conv_forward, x, w, *where), products(kernels.conv_backward, dy, x, w, *where)]
    w, dy = numbers(s.depthwise_w), numbers(s.depthwise_y)
    row += [products(kernels.depthwise_forward, x, w, *where)]
    row += [products(kernels.depthwise_backward, dy, x, w, *where)]
    w, dy = numbers((s.channels, s.filters)), numbers((*s.x[:3], s.filters))
    row += [products(kernels.pointwise_forward, x, w), products(kernels.pointwise_backward, dy, x, w)]
    rows, drows = x[:, 0, 0].copy(), dy[:, 0, 0].copy()
    row += [products(kernels.dense_forward, rows, w), products(kernels.dense_backward, drows, rows, w)]
    counted.append(row)
print(json.dumps(counted))
"""


def test_the_kernels_multiply_as_often_as_their_costs_say(run_python, tmp_path, request):
    chosen = [0, 2, 3, 4, 6, 7, 8, 15, 16, 18, 19, 21]
    script = tmp_path / "count.py"
    script.write_text(COUNT)
    counted = json.loads(run_python(script, request.path.parent, json.dumps(chosen), env=PLAIN))
    for i, row in zip(chosen, counted):
        shape = SHAPES[i]
        (n, h, w, c), (p, q) = shape.x, shape.pixels
        k, s, m, count = shape.kernel, shape.stride, shape.multiplier, oracle.Count()
        cost = depthwise.depthwise_cost(n, p, q, k, c, m, h=h, w=w)
        assert row.pop(2) == cost.macs, shape.name
        # Depthwise dx sums for each pixel of x what reaches it: taps on the padding of x are left out.
        dx = row.pop(2) - cost.dw_macs
        oracle.depthwise(np.zeros(shape.x), np.zeros(shape.depthwise_w), s, shape.pads, count)
        assert count.macs_inside <= dx <= n * h * w * c * m * (-(-k // s)) ** 2, shape.name
        costs = [
            conv.conv_cost(n, p, q, k, c, shape.filters, h=h, w=w),
            pointwise.pointwise_cost(n, h, w, c, shape.filters),
            dense.dense_cost(n, c, shape.filters),
        ]
        want = [count for cost in costs for count in (cost.macs, cost.dx_macs + cost.dw_macs)]
        assert row == want, shape.name


RESULTS = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import test_kernels_arguments as arguments

saved = {}
for name in arguments.CALLS:
    value = arguments.run(name, arguments.arrays_of(name))
    for i, a in enumerate(value if isinstance(value, tuple) else (value,)):
        saved[f"{name} {i}"] = a
np.savez(sys.argv[2], **saved)
"""


def test_plain_python_gives_what_the_machine_code_gives(run_python, tmp_path, request):
    script, saved = tmp_path / "results.py", tmp_path / "results.npz"
    script.write_text(RESULTS)
    run_python(script, request.path.parent, saved, env=PLAIN)
    plain = np.load(saved)
    for name in arguments.CALLS:
        value = arguments.run(name, arguments.arrays_of(name))
        for i, a in enumerate(value if isinstance(value, tuple) else (value,)):
            close(plain[f"{name} {i}"], a, ORACLE, name)
    assert len(kernels.__path__) == 1
