"""Counting what a kernel really does: its own source, run as plain Python on numbers that count.

    counted("depthwise", n=1, h=7, w=7, c=3)     -> {"forward": (products, additions), "dx": …, "dw": …}

Numba would compile the kernels for ordinary numbers, so the counting happens in a process of its own, started with
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
        Number.products += 1
        return Number(self.value * float(other))

    def __add__(self, other):
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
    from numnet.kernels import batchnorm, conv, depthwise, pointwise
    from numnet.kernels.padding import output_side, resolve

    n, h, w, c, f, k = job["shape"]
    stride, padding = job["stride"], job["padding"]
    if job["kind"] == "pointwise":
        k, stride, padding = 1, 1, 0
    pads = resolve(padding, (h, w), (k, k), stride)
    p, q = (output_side(side, k, stride, *pad) for side, pad in zip((h, w), pads))
    none = np.empty((0, 0), object)
    finished, sums = (none, none, 0), np.zeros((0, 2, 0))
    draw = np.random.default_rng(0)

    def numbers(*shape):
        return np.frompyfunc(Number, 1, 1)(draw.normal(size=shape)).astype(object)

    def zeros(*shape):
        return np.zeros(shape, object)

    x = numbers(n, h, w, c)
    if job["kind"] == "conv":
        weights, dy, partial = (
            numbers(k, k, c, f),
            numbers(n, p, q, f),
            zeros(batchnorm.parts_of(n), k * k * c, f),
        )

        def forward():
            conv.unit_forward(x, none, 0, weights, stride, pads, zeros(n, p, q, f), np.zeros((0, 3, 0)))

        def backward(dx):
            dw = zeros(k, k, c, f)
            conv.unit_backward(
                dy, dy, *finished, x, none, 0, weights, stride, pads, dx, x[:0], dw, sums, partial
            )

    elif job["kind"] == "depthwise":
        weights, dy, partial = (
            numbers(k, k, c, 1),
            numbers(n, p, q, c),
            zeros(batchnorm.parts_of(n), k * k, c),
        )

        def forward():
            y = zeros(n, p, q, c)
            depthwise.unit_forward(x, none, 0, weights, stride, pads, y, np.zeros((0, 3, 0)))

        def backward(dx):
            dw = zeros(k, k, c, 1)
            depthwise.unit_backward(
                dy, dy, *finished, x, none, 0, weights, stride, pads, dx, x[:0], dw, sums, partial
            )

    else:
        weights, dy = numbers(c, f), numbers(n, h, w, f)
        partial = zeros(batchnorm.parts_of(n * h * w, pointwise.LEAST), c, f)

        def forward():
            pointwise.unit_forward(x, none, 0, weights, zeros(n, h, w, f), np.zeros((0, 3, 0)))

        def backward(dx):
            dw = zeros(c, f)
            pointwise.unit_backward(dy, dy, *finished, x, none, 0, weights, dx, x[:0], dw, sums, partial)

    def measure(work, *arguments):
        Number.products = Number.additions = 0
        work(*arguments)
        return Number.products, Number.additions

    of_dw, of_both = measure(backward, zeros(0, 0, 0, c)), measure(backward, zeros(*x.shape))
    of_dx = [both - one for both, one in zip(of_both, of_dw)]
    return {"forward": measure(forward), "dx": of_dx, "dw": of_dw}


if __name__ == "__main__":
    print(json.dumps(_count(json.load(sys.stdin))))
