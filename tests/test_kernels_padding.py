"""Padding and output sizes."""

import itertools

import oracle
import pytest

from numnet.kernels import padding


def test_same_and_symmetric_against_the_oracle():
    for side, kernel, stride in itertools.product(range(1, 16), (1, 2, 3, 5, 7), (1, 2, 3)):
        for word in ("same", "symmetric"):
            size = side, side + 1
            want = oracle.resolve(word, size, kernel, stride)
            if any(n + sum(pad) < kernel for n, pad in zip(size, want)):  # an even kernel, one pixel
                with pytest.raises(ValueError, match="does not fit"):
                    padding.resolve(word, size, (kernel, kernel), stride)
                continue
            got = padding.resolve(word, size, (kernel, kernel), stride)
            assert got == want
            sides = [padding.output_side(n, kernel, stride, *pad) for n, pad in zip(size, got)]
            assert tuple(sides) == oracle.output_size(size, (kernel, kernel), (stride, stride), want)


def test_same_is_tensorflows():
    """At stride 2 an even side is padded at its end only; PyTorch pads both: other numbers, same size."""
    assert padding.resolve("same", (224, 225), (3, 3), 2) == ((0, 1), (1, 1))
    assert padding.resolve("symmetric", (224, 225), (3, 3), 2) == ((1, 1), (1, 1))
    assert padding.output_side(224, 3, 2, 0, 1) == padding.output_side(224, 3, 2, 1, 1) == 112


def test_numbers_and_pairs():
    assert padding.resolve(2, (4, 4), (3, 3), 1) == ((2, 2), (2, 2))
    assert padding.resolve(0, (4, 4), (3, 3), 1) == ((0, 0), (0, 0))
    assert padding.resolve(((0, 1), (2, 3)), (4, 4), (3, 3), 1) == ((0, 1), (2, 3))
    assert padding.resolve([[0, 1], [2, 3]], (4, 4), (3, 3), 1) == ((0, 1), (2, 3))


@pytest.mark.parametrize(
    "value",
    ["valid", "SAME", "", -1, True, None, 1.0, (1, 1), ((1, 1),), ((1, 1), (1, 1), (1, 1)), {}]
    + [((1, -1), (0, 0)), ((0.5, 1), (0, 0)), ((1, 2, 3), (1, 2, 3))],
    ids=repr,
)
def test_anything_else(value):
    with pytest.raises(ValueError, match=r"padding: expected .*same.*symmetric.*, got"):
        padding.resolve(value, (8, 8), (3, 3), 1)


def test_no_room_for_the_kernel():
    with pytest.raises(ValueError, match=r"padding: a kernel of 5 does not fit into 2 \+ 1 \+ 1 pixels"):
        padding.resolve(1, (8, 2), (5, 5), 1)
