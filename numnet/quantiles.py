"""Quantiles of the two distributions that numnet asks for: where a share p of all numbers lies below.

**Normal.** x with Φ(x) = p has no closed form. Wichura 1988 ("Algorithm AS 241: The Percentage Points of the Normal
Distribution", Applied Statistics 37, PPND16) gives three ratios of polynomials of degree 7, each for a range of p, with a
relative error of about 1e-16:

(1)  |q| ≤ 0.425:  x = q · A(0.180625 − q²) / B(0.180625 − q²)                     q = p − 1/2
(2)  r ≤ 5:        |x| = C(r − 1.6) / D(r − 1.6)                                    r = √(−ln min(p, 1 − p))
(3)  r > 5:        |x| = E(r − 5) / F(r − 5)

**Student's t** with a whole number ν of degrees of freedom: its distribution function is a finite sum of powers of cos θ,
θ = atan(t/√ν) (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4). The share of all numbers between −t and t is

(4)  ν odd:   A = (2/π)·(θ + sin θ · (cos θ + 2/3·cos³ θ + … + (2·4·…·(ν−3))/(3·5·…·(ν−2))·cos^(ν−2) θ))
(5)  ν even:  A = sin θ · (1 + 1/2·cos² θ + … + (1·3·…·(ν−3))/(2·4·…·(ν−2))·cos^(ν−2) θ)

and grows with θ, so halving an interval finds the θ that belongs to a given A.
"""

from math import cos, erfc, pi, sin, sqrt, tan

import numpy as np

CENTRAL = (  # numerator and denominator of (1), the highest power first
    (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
     1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080),
    (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
     5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0),
)  # fmt: skip
MIDDLE = (  # of (2)
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258,
     3.64784832476320460504, 5.76949722146069140550, 4.63033784615654529590, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
     6.89767334985100004550e-1, 1.67638483018380384940, 2.05319162663775882187, 1.0),
)  # fmt: skip
TAIL = (  # of (3)
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
     2.96560571828504891230e-1, 1.78482653991729133580, 5.46378491116411436990, 6.65790464350110377720),
    (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
     1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0),
)  # fmt: skip


def normal_share(x: float) -> float:
    """Φ(x): the share of standard normal numbers below x."""
    return erfc(-x / sqrt(2)) / 2


def normal_quantile(p) -> np.ndarray:
    """x with Φ(x) = p, float64, for an array p of numbers between 0 and 1: by (1) to (3). At 0 and 1 it is infinite.

    Raises ValueError for p below 0, above 1, or NaN.
    """
    p = np.asarray(p, np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p: expected shares between 0 and 1")
    q = p - 0.5
    # All three at every p, at 0 and 1 too; then the one that fits
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.sqrt(-np.log(np.minimum(p, 1 - p)))
        middle, tail = _ratio(MIDDLE, r - 1.6), np.where(np.isinf(r), np.inf, _ratio(TAIL, r - 5))
    outside = np.copysign(np.where(r <= 5, middle, tail), q)
    return np.where(np.abs(q) <= 0.425, q * _ratio(CENTRAL, 0.180625 - q * q), outside)


def _ratio(polynomials, x):
    above, below = (np.polyval(polynomial, x) for polynomial in polynomials)
    return above / below


def student_share(freedom: int, theta: float) -> float:
    """The share of Student's numbers between −t and t, t = √freedom · tan θ: by (4) and (5)."""
    odd = freedom % 2
    term, total = cos(theta) if odd else 1.0, 0.0
    for power in range(3 if odd else 2, freedom + 1, 2):
        total += term
        term *= (power - 1) / power * cos(theta) ** 2
    return 2 / pi * (theta + sin(theta) * total) if odd else sin(theta) * total


def student_quantile(freedom: int, p: float) -> float:
    """t such that a share p of Student's numbers with ``freedom`` degrees of freedom lies below it, ½ ≤ p < 1.

    Raises ValueError for another p and for fewer than one degree of freedom.
    """
    if freedom < 1 or freedom != int(freedom) or not 0.5 <= p < 1:
        raise ValueError(f"expected a whole freedom ≥ 1 and ½ ≤ p < 1, got {freedom!r} and {p!r}")
    low, high = 0.0, pi / 2
    for _ in range(60):  # 2⁻⁶⁰ of the interval is less than its last bit
        middle = (low + high) / 2
        if student_share(int(freedom), middle) < 2 * p - 1:
            low = middle
        else:
            high = middle
    return sqrt(freedom) * tan(low)
