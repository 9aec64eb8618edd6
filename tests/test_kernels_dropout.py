"""Dropout and the random numbers from a counter that it, and everything else random, is made of."""

import numpy as np
import oracle
import pytest
from kernel_shapes import DIFFERENCES, ORACLE, both_dtypes, close, differences, dot_product_test, draw

from numnet.kernels import dropout_backward, dropout_forward, random
from numnet.kernels.dropout import dropout_cost

MASK = 2**64 - 1
SHAPES = [(), (7,), (2, 3, 5), (3, 4099)]


def mix(z):
    """random's equation (1), in Python's own integers."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def hash64(*counters):
    """random's equation (2)."""
    z, golden = 1, 0x9E3779B97F4A7C15
    for counter in counters:
        z = mix(counter + golden * z & MASK)
    return z


def mask_of(size, rate, seed, step, first=0):
    numbers = [(hash64(seed, random.DROPOUT, step, first + i) >> 11) / 2**53 for i in range(size)]
    return np.array(numbers) >= rate


# --- the generator ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seed, purpose, step", [(0, 1, 0), (1, 2, 3), (2**31, 6, 10**6), (2**40 + 7, 4, 12345)]
)
def test_the_hash_in_pythons_own_integers(seed, purpose, step):
    want = [(hash64(seed, purpose, step, i) >> 11) / 2**53 for i in range(50)]
    assert random.uniforms(seed, purpose, step, 50).tolist() == want


def test_uniform_numbers_are_uniform():
    """Mean, variance, neighbours and sixteenths of 2¹⁶ numbers, each within five standard errors."""
    n = 2**16
    u = random.uniforms(3, random.SHAPES, 1, n)
    assert 0 <= u.min() and u.max() < 1
    assert abs(u.mean() - 1 / 2) < 5 * np.sqrt(1 / 12 / n)
    assert abs(u.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / n)
    assert abs(np.mean((u[1:] - 0.5) * (u[:-1] - 0.5))) < 5 / 12 / np.sqrt(n)
    counts = np.bincount((u * 16).astype(int), minlength=16)
    assert np.abs(counts - n / 16).max() < 5 * np.sqrt(n / 16)


def test_each_counter_gives_other_numbers():
    base = random.uniforms(1, 2, 3, 1000)
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4), (2, 1, 3), (3, 2, 1)):
        u = random.uniforms(*other, 1000)
        assert not np.isin(u, base).any()
        assert abs(np.corrcoef(u, base)[0, 1]) < 5 / np.sqrt(1000)


def test_normals():
    n = 2**16 + 1
    z = random.normals(5, random.INIT, 0, n)
    assert z.shape == (n,)
    assert abs(z.mean()) < 5 / np.sqrt(n)
    assert abs(z.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs((z**4).mean() - 3) < 5 * np.sqrt(96 / n)
    assert abs(np.mean(np.abs(z) < 1) - 0.682689) < 5 * np.sqrt(0.68 * 0.32 / n)


def test_permutation():
    order = random.permutation(5, random.SHUFFLE, 2, 1000)
    assert sorted(order.tolist()) == list(range(1000))
    assert (order == random.permutation(5, random.SHUFFLE, 2, 1000)).all()
    assert (order != random.permutation(5, random.SHUFFLE, 3, 1000)).sum() > 950
    assert random.permutation(5, random.SHUFFLE, 2, 0).size == 0


# --- dropout ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.999])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_the_oracle(shape, rate):
    x, dy = map(np.asarray, draw(shape, shape))
    mask = mask_of(x.size, rate, 11, 5).reshape(shape)
    close(dropout_forward(x, rate, 11, 5), oracle.dropout(x, mask, rate), ORACLE, "y")
    close(dropout_backward(dy, rate, 11, 5), oracle.dropout_backward(dy, mask, rate), ORACLE, "dx")


@both_dtypes
def test_the_mean_is_kept_and_the_rate_is_met(dtype):
    x = np.ones((100, 1000), dtype)
    y = dropout_forward(x, 0.3, 0, 0)
    assert y.dtype == dtype
    assert np.unique(y).tolist() == [0, y.dtype.type(1 / (1 - 0.3))]
    assert abs((y == 0).mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / x.size)
    # rows, columns and neighbours are independent of each other
    z = (y == 0) - 0.3
    assert abs((z[1:] * z[:-1]).mean()) < 5 * 0.21 / np.sqrt(x.size)
    assert abs((z[:, 1:] * z[:, :-1]).mean()) < 5 * 0.21 / np.sqrt(x.size)


def test_other_steps_and_seeds_drop_others():
    x = np.ones(10000)
    kept = [dropout_forward(x, 0.5, seed, step) > 0 for seed, step in ((0, 0), (0, 1), (1, 0), (1, 1))]
    for i in range(4):
        for j in range(i):
            assert abs((kept[i] == kept[j]).mean() - 0.5) < 5 * 0.5 / 100


def test_a_rank_draws_its_share_of_the_mask():
    (x,) = draw((20, 30))
    whole = dropout_forward(x, 0.4, 9, 2)
    parts = [dropout_forward(x[:7].copy(), 0.4, 9, 2), dropout_forward(x[7:].copy(), 0.4, 9, 2, first=7 * 30)]
    assert (np.concatenate(parts) == whole).all()


def test_backward_is_the_gradient():
    x, dy = draw((5, 6), (5, 6))
    dx = dropout_backward(dy, 0.5, 3, 4)
    dot_product_test(dy, dropout_forward(x, 0.5, 3, 4), (dx, x))
    close(dx, differences(lambda: np.vdot(dy, dropout_forward(x, 0.5, 3, 4)), x, 1e-2), DIFFERENCES)


def test_a_number_equal_to_the_rate_is_kept():
    """u ≥ rate, so that rate 0 keeps everything, a u of 0 too."""
    numbers = random.uniforms(1, random.DROPOUT, 2, 20)
    kept = dropout_forward(np.ones(20), numbers[7], 1, 2) != 0
    assert kept[7] and (kept == (numbers >= numbers[7])).all()


@pytest.mark.parametrize("rate", [1.0, -0.1, 2, np.nan])
def test_a_wrong_rate(rate):
    for apply in (dropout_forward, dropout_backward):
        with pytest.raises(ValueError, match="rate: expected 0 ≤ rate < 1, got"):
            apply(np.ones(3), rate, 0, 0)


def test_an_empty_batch():
    assert dropout_forward(np.empty((0, 5)), 0.5, 0, 0).shape == (0, 5)
    assert dropout_backward(np.empty((0, 5)), 0.5, 0, 0).shape == (0, 5)


def test_cost():
    assert dropout_cost(3, 5).macs == 0
    assert dropout_cost(3, 5).elementwise == 15
