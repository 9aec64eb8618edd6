"""Fake quantisation: passes against the definition, the straight-through rule number by number, the scale's slope."""

import numpy as np
import pytest

from numnet.kernels import fake
from numnet.kernels.eight_bits import Grid

ENDS = [
    fake.ends_of(Grid(0.25, 100)),
    fake.ends_of(Grid(0.25, 100), 100, 124),
    fake.ends_of(Grid(0.25, 0), 0, 250),
]


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_passes_are_the_definition(ends, kind):
    draw = np.random.default_rng(0)
    x, dy = (draw.normal(size=(3, 20, 23, 5), scale=20).astype(kind) for _ in range(2))
    bias = draw.normal(size=5).astype(kind)
    flat = x.reshape(-1, 5)
    assert (fake.fake_forward(x, bias, ends).reshape(-1, 5) == fake.definition(flat, bias, ends)).all()
    dx, db, ds = fake.fake_backward(dy, x, bias, ends)
    want = fake.definition_backward(dy.reshape(-1, 5), flat, bias, ends)
    assert (dx.reshape(-1, 5) == want[0]).all()
    assert np.allclose(db, want[1], rtol=1e-12, atol=1e-9) and ds == pytest.approx(want[2], rel=1e-5)


def test_the_straight_through_rule_number_by_number():
    """Scale 1/4, places −10 … 20 of an activation that cuts above: the slope is 1 inside, 0 outside, both ends included."""
    ends = fake.ends_of(Grid(0.25, 10), 0, 30)
    x = np.array([[-2.626, -2.624, -0.1, 0.0, 0.13, 5.0, 5.124, 5.126]])
    dy, bias = np.arange(1.0, 9.0)[None], np.zeros(8)
    assert fake.fake_forward(x, bias, ends).tolist() == [[-2.5, -2.5, 0, 0, 0.25, 5.0, 5.0, 5.0]]
    dx, db, ds = fake.fake_backward(dy, x, bias, ends)
    assert dx.tolist() == [[0, 2, 3, 4, 5, 6, 7, 0]] and db.tolist() == dx[0].tolist()
    inside = [2 * (-10 + 2.624 * 4), 3 * 0.4, 0, 5 * (1 - 0.52), 0, 7 * (20 - 20.496)]
    # below: the grid's end; above: the activation's
    assert ds == pytest.approx(1 * -10 + sum(inside) + 8 * 0)


def test_the_scale_has_the_slope_of_the_line_through_the_stairs():
    """Where numbers are cut by the grid's end nothing is rounded, and the slope is true."""
    x, bias = np.array([[100.0, -100.0]]), np.zeros(2)
    y = [fake.fake_forward(x, bias, fake.ends_of(Grid(s, 100)))[0] for s in (0.25, 0.26)]
    _, _, ds = fake.fake_backward(np.array([[1.0, 0.0]]), x, bias, fake.ends_of(Grid(0.25, 100)))
    assert ds == pytest.approx((y[1] - y[0])[0] / 0.01)


@pytest.mark.parametrize("start", [0.05, 1.0])
def test_a_scale_that_follows_its_gradient_finds_the_least_error(start):
    """Of normal numbers on 16 places: from far too narrow and from far too wide, beside the best of a fine mesh."""
    x, bias = np.random.default_rng(0).normal(size=(4000, 5)), np.zeros(5)

    def error(scale):
        return ((fake.fake_forward(x, bias, fake.ends_of(Grid(scale, 128), 120, 135)) - x) ** 2).sum()

    def free(scale):  # all ends move with the scale, as a grid's do
        return fake.ends_of(Grid(scale, 8))._replace(lowest=-8.0, highest=7.0, below=-8.0, above=7.0)

    scale = start
    for step in range(300):
        y = fake.fake_forward(x, bias, free(scale))
        _, _, slope = fake.fake_backward(2 * (y - x), x, bias, free(scale))
        scale *= np.exp(-0.03 * 0.99**step * np.sign(slope))
    best = min(np.geomspace(0.05, 1, 400), key=error)
    assert scale == pytest.approx(best, rel=0.03)


def test_bad_arrays_are_refused():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="bias"):
        fake.fake_forward(x, np.zeros(2, np.float32), ENDS[0])
    with pytest.raises(ValueError, match="dy"):
        fake.fake_backward(x[:1], x, np.zeros(3, np.float32), ENDS[0])
    assert fake.fake_cost(2, 3, 4, 5).elementwise == 120
