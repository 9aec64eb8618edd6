"""Padding, strides and output sizes: the one place where a word becomes numbers.

(1)  P = ⌊(H + top + bottom − K) / s⌋ + 1                        output side for input side H, kernel K, stride s
(2)  "same"        P = ⌈H/s⌉,  total = max((P − 1)·s + K − H, 0),  before = ⌊total/2⌋,  after = total − before
(3)  "symmetric"   before = after = ⌊K/2⌋

(2) is TensorFlow's rule: at stride 2 on an even side, an odd kernel gets one pixel more at the end than at the
beginning (K = 3: 0 and 1). (3) is PyTorch's: the same output size for odd kernels, other numbers. A net trained with
one and run with the other is a different function.
"""

import operator

import numpy as np


def resolve(padding, size: tuple, kernel: tuple, stride: int) -> tuple:
    """``((top, bottom), (left, right))`` as ints.

    ``padding``: "same", "symmetric", an int (each side) or ((top, bottom), (left, right)); ``size`` = (H, W) and
    ``kernel`` = (height, width) in pixels. Raises ValueError if padding is none of these, is negative, or leaves
    no room for the kernel.
    """
    if padding == "same":
        pairs = [_same(n, k, stride) for n, k in zip(size, kernel)]
    elif padding == "symmetric":
        pairs = [(k // 2, k // 2) for k in kernel]
    elif isinstance(padding, (int, np.integer)) and not isinstance(padding, bool):
        pairs = [(int(padding), int(padding))] * 2
    else:
        try:
            pairs = [(operator.index(before), operator.index(after)) for before, after in padding]
        except (TypeError, ValueError):
            pairs = []
    if len(pairs) != 2 or any(n < 0 for pair in pairs for n in pair):
        raise ValueError(
            f'padding: expected "same", "symmetric", an int ≥ 0 or ((top, bottom), (left, right)), got {padding!r}'
        )
    for n, k, (before, after) in zip(size, kernel, pairs):
        if n + before + after < k:
            raise ValueError(
                f"padding: a kernel of {k} does not fit into {n} + {before} + {after} pixels; pad more or use a larger input"
            )
    return tuple(pairs)


def _same(n: int, k: int, stride: int) -> tuple:
    """Equation (2) for one axis."""
    total = max((-(-n // stride) - 1) * stride + k - n, 0)
    return total // 2, total - total // 2


def output_side(n: int, k: int, stride: int, before: int, after: int) -> int:
    """Equation (1)."""
    return (n + before + after - k) // stride + 1
