"""Counting what a kernel really does: its source is run as plain Python on objects that count their operations.

    counted("depthwise", n=1, h=7, w=7, c=3)     -> {"forward": (products, additions), "dx": …, "dw": …}

Numba would compile the kernels for ordinary numbers, so the counting happens in a separate process, started with
``NUMBA_DISABLE_JIT=1``, which runs the same functions as plain Python; keep the shapes small.
"""

import json
import os
import subprocess
import sys

import numpy as np

KINDS = ("conv", "depthwise", "pointwise")


class Number:
    """A number that counts the products and the additions it takes part in."""

    products = additions = 0

    def __init__(self, value):
        self.value = value

    def __float__(self):
        return self.value

    def __mul__(self, other):
        if isinstance(other, np.ndarray):
            return NotImplemented  # NumPy then multiplies number by number
        Number.products += 1
        return Number(self.value * float(other))

    def __add__(self, other):
        if isinstance(other, np.ndarray):
            return NotImplemented
        Number.additions += 1
        return Number(self.value + float(other))

    __rmul__, __radd__ = __mul__, __add__


def counted(kind, *, n=1, h, w, c, f=None, k=3, stride=1, padding="same") -> dict:
    """(products, additions) of the forward pass and of the two gradients, counted while they run.

    kind: "conv", "depthwise" (F = C) or "pointwise" (K = 1); n, h, w, c, f, k as in the glossary of
    ``numnet.kernels``; padding a word, an int or pairs. Raises ValueError for another kind or wrong shapes.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    job = dict(kind=kind, shape=(n, h, w, c, f or c, k), stride=stride, padding=padding)
    done = subprocess.run(
        [sys.executable, "-m", "numnet.lessons.counting"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
    )
    if done.returncode:
        raise ValueError(f"counting failed: {done.stderr.strip().splitlines()[-1]}")
    return {name: tuple(pair) for name, pair in json.loads(done.stdout).items()}


def _count(job) -> dict:
    from numnet.kernels import conv, depthwise, maps, pointwise
    from numnet.kernels.batchnorm import source_of, upstream_of
    from numnet.kernels.maps import Window
    from numnet.kernels.padding import output_side, resolve

    n, h, w, c, f, k = job["shape"]
    stride, padding = job["stride"], job["padding"]
    if job["kind"] == "pointwise":
        k, stride, padding = 1, 1, 0
    pads = resolve(padding, (h, w), (k, k), stride)
    p, q = (output_side(side, k, stride, *pad) for side, pad in zip((h, w), pads))
    page, weights, sides, parts = {
        "conv": (conv, (k, k, c, f), (k * k * c, f), maps.parts_of(n)),
        "depthwise": (depthwise, (k, k, c, 1), (k * k, c), maps.parts_of(n)),
        "pointwise": (pointwise, (c, f), (c, f), maps.parts_of(n * h * w, pointwise.LEAST)),
    }[job["kind"]]
    window = () if page is pointwise else (Window(k, stride, pads[0][0], pads[1][0]),)
    draw = np.random.default_rng(0)

    def numbers(*shape):
        return np.frompyfunc(Number, 1, 1)(draw.normal(size=shape)).astype(object)

    def zeros(*shape):
        return np.zeros(shape, object)

    x, weights, dy, partial = (
        numbers(n, h, w, c),
        numbers(*weights),
        numbers(n, p, q, sides[1]),
        zeros(parts, *sides),
    )

    def forward():
        page.unit_forward(source_of(x), weights, *window, zeros(*dy.shape), np.zeros((0, 3, 0)))

    def backward(dx):
        page.unit_backward(
            upstream_of(dy), source_of(x), weights, *window, dx, x[:0], np.zeros((0, 2, 0)), partial
        )
        if page is depthwise:
            partial.sum(axis=0)
        else:
            pointwise.sum_parts(partial, zeros(*sides))

    def measure(work, *arguments):
        Number.products = Number.additions = 0
        work(*arguments)
        return Number.products, Number.additions

    of_dw, of_both = measure(backward, zeros(0, 0, 0, c)), measure(backward, zeros(*x.shape))
    of_dx = [both - one for both, one in zip(of_both, of_dw)]
    return {"forward": measure(forward), "dx": of_dx, "dw": of_dw}


if __name__ == "__main__":
    print(json.dumps(_count(json.load(sys.stdin))))
