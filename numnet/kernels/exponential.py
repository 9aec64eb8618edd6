"""eˣ of a vector: the one function here that is more than a few additions and products; sigmoid, swish, softmax use it.

The platform's library has an ``exp``, but for one number at a time, and with other last bits on each platform. Ours is made
of the operations of ``vectors`` alone, so it is fast, and its bits are the same everywhere.

With n the whole number nearest to x / ln 2, and r what is left:

(1)  x = n · ln 2 + r,   |r| ≤ ln 2 / 2 = 0.347
(2)  eˣ = 2ⁿ · eʳ
(3)  eʳ = 1 + r + r²/2! + … + rᵈ/d!            d = 7 for float32, 13 for float64: what is left out is below half a last bit

**n.** Adding 1.5 · 2²³ to a float32 below 2²² pushes all digits after the point out of its 24 bits; subtracting it again
gives the number rounded to a whole one. **r.** ln 2 is subtracted as a sum of two numbers: the first has so few bits that
n times it is exact, the second is the rest (Cody and Waite 1980). **2ⁿ** is made by writing n into the bits of the exponent.

Largest error against the exact value: 0.94 units of the last place in float32, 0.88 in float64 (of fifty million numbers
each; the page's test draws a million). Below −87.3 (float64: −708.3) the result is 0, where it would soon be a denormal
number; above 88.37 (709.43), where n would be one more than the exponent's bits can hold, it is infinite, a little before
it must be; of NaN it is NaN.
"""

import numpy as np
from numba import types
from numba.extending import overload

from numnet.kernels.vectors import PLAIN, fma, least, most, power_of_two, spread, where


class _Float32:
    LOG2E, SHIFT = np.float32(1.4426950408889634), np.float32(1.5 * 2**23)
    LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440054690583e-4)
    LOW, HIGH = np.float32(-87.3), np.float32(88.37)
    TERMS = tuple(np.float32(t) for t in (1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1, 1))


class _Float64:
    LOG2E, SHIFT = np.float64(1.4426950408889634), np.float64(1.5 * 2**52)
    LN2_HIGH, LN2_LOW = np.float64(0.693145751953125), np.float64(1.42860682030941723212e-6)
    LOW, HIGH = np.float64(-708.3), np.float64(709.43)
    TERMS = tuple(
        np.float64(t)
        for t in (
            1 / 6227020800, 1 / 479001600, 1 / 39916800, 1 / 3628800, 1 / 362880, 1 / 40320, 1 / 5040, 1 / 720,
            1 / 120, 1 / 24, 1 / 6, 1 / 2, 1, 1,
        )
    )  # fmt: skip


def _exp_of(constants):
    """exp for one dtype, whose constants become part of its code."""
    log2e, shift, low, high = constants.LOG2E, constants.SHIFT, constants.LOW, constants.HIGH
    ln2_high, ln2_low, terms = constants.LN2_HIGH, constants.LN2_LOW, constants.TERMS
    infinity, nought = type(low)(np.inf), type(low)(0)

    def exp(x):
        inside = least(most(x, spread(low, x)), spread(high, x))
        n = fma(inside, spread(log2e, x), spread(shift, x)) - spread(shift, x)
        r = fma(n, spread(-ln2_low, x), fma(n, spread(-ln2_high, x), inside))  # (1)
        y = spread(nought, x)
        for term in terms:  # (3) by Horner's rule
            y = fma(y, r, spread(term, x))
        y = y * power_of_two(n)  # (2)
        y = where(x < spread(low, x), spread(nought, x), y)
        return where(x > spread(high, x), spread(infinity, x), y)

    return exp


_exp32, _exp64 = _exp_of(_Float32), _exp_of(_Float64)


def exp(x):
    """eˣ, lane by lane."""
    return (_exp64 if x.dtype == np.float64 else _exp32)(x)


if not PLAIN:

    @overload(exp)
    def _exp(x):
        return _exp64 if x.dtype == types.float64 else _exp32
