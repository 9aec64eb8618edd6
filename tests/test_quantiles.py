"""Quantiles of the normal and of Student's distribution: against Python's own, and against printed tables."""

from statistics import NormalDist

import numpy as np
import pytest

from numnet.quantiles import normal_quantile, normal_share, student_quantile, student_share


def test_the_normal_quantile_is_pythons():
    """Central, middle and tail; the last bits of 1 − p are all that is known of p near 1."""
    rng = np.random.default_rng(0)
    tail = 10.0 ** -rng.uniform(1, 300, 300)
    p = np.concatenate([rng.uniform(size=2000), tail, 1 - tail[tail > 1e-15], [0.075, 0.925, 0.5]])
    want = np.array([NormalDist().inv_cdf(share) for share in p])
    np.testing.assert_allclose(normal_quantile(p), want, rtol=1e-14, atol=1e-15)
    assert normal_quantile(p).shape == p.shape and normal_quantile(0.5) == 0


def test_the_normal_share_is_the_way_back():
    x = np.linspace(-6, 3, 200)
    shares = np.array([normal_share(number) for number in x])
    np.testing.assert_allclose(shares, [NormalDist().cdf(number) for number in x], rtol=0, atol=1e-15)
    np.testing.assert_allclose(normal_quantile(shares), x, rtol=0, atol=1e-13)


def test_the_ends_of_the_normal_distribution():
    assert normal_quantile([0.0, 1.0]).tolist() == [-np.inf, np.inf]
    for p in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="p: expected shares between 0 and 1"):
            normal_quantile([0.5, p])


TABLE = {  # of Student's t, as printed in textbooks: 0.95, 0.975, 0.995
    1: (6.314, 12.706, 63.657),
    2: (2.920, 4.303, 9.925),
    3: (2.353, 3.182, 5.841),
    4: (2.132, 2.776, 4.604),
    5: (2.015, 2.571, 4.032),
    10: (1.812, 2.228, 3.169),
    29: (1.699, 2.045, 2.756),
    120: (1.658, 1.980, 2.617),
}


@pytest.mark.parametrize("freedom", TABLE)
def test_students_quantile_is_the_tables(freedom):
    got = [student_quantile(freedom, p) for p in (0.95, 0.975, 0.995)]
    assert [round(t, 3) for t in got] == list(TABLE[freedom])


def test_students_quantile_in_closed_form():
    """One degree of freedom is Cauchy's distribution, two have a root; with many it is the normal one."""
    for p in (0.5, 0.6, 0.9, 0.999):
        a = 2 * p - 1
        assert abs(student_quantile(1, p) - np.tan(np.pi * a / 2)) <= 1e-12 * max(1, np.tan(np.pi * a / 2))
        root = a * np.sqrt(2 / (1 - a * a))
        assert abs(student_quantile(2, p) - root) <= 1e-12 * max(1, root)
        assert abs(student_quantile(10_000, p) - normal_quantile(p)) <= 1e-3
    assert student_share(7, np.pi / 2) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("freedom, p", [(0, 0.9), (1.5, 0.9), (3, 0.4), (3, 1.0), (3, float("nan"))])
def test_students_quantile_of_nothing(freedom, p):
    with pytest.raises(ValueError, match="expected a whole freedom"):
        student_quantile(freedom, p)
