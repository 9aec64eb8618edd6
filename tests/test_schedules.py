"""Schedules against PyTorch's, step by step, and their corners."""

import numpy as np
import pytest

from numnet.errors import NumnetError
from numnet.training.schedules import OPTIONS, schedule

STEPS, EPOCH = 100, 10


def ours(name, warmup=0, lr=0.3, steps=STEPS, **options):
    rate = schedule(name, lr, steps, EPOCH, warmup, **options)
    return np.array([rate(t) for t in range(steps)])


def theirs(make, lr=0.3, per_epoch=False):
    torch = pytest.importorskip("torch")
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(torch.optim.lr_scheduler, optimiser)
    rates = []
    for t in range(STEPS):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        if not per_epoch or (t + 1) % EPOCH == 0:
            scheduler.step()
    return np.array(rates)


def warm(s, optimiser, rest, warmup):
    ramp = s.LinearLR(optimiser, start_factor=1 / warmup, total_iters=warmup - 1)
    return s.SequentialLR(optimiser, [ramp, rest], milestones=[warmup])


CASES = {
    "constant": (dict(name="constant"), lambda s, o: s.ConstantLR(o, factor=1.0), False),
    "linear": (dict(name="linear"), lambda s, o: s.LinearLR(o, 1.0, 1e-300, total_iters=STEPS), False),
    "linear final": (
        dict(name="linear", final=0.2),
        lambda s, o: s.LinearLR(o, 1.0, 0.2, total_iters=STEPS),
        False,
    ),
    "cosine": (dict(name="cosine"), lambda s, o: s.CosineAnnealingLR(o, STEPS), False),
    "cosine final": (dict(name="cosine", final=0.1), lambda s, o: s.CosineAnnealingLR(o, STEPS, 0.03), False),
    "cosine warm-up": (
        dict(name="cosine", warmup=20),
        lambda s, o: warm(s, o, s.CosineAnnealingLR(o, STEPS - 20), 20),
        False,
    ),
    "linear warm-up": (
        dict(name="linear", warmup=15, final=0.5),
        lambda s, o: warm(s, o, s.LinearLR(o, 1.0, 0.5, total_iters=STEPS - 15), 15),
        False,
    ),
    "step": (
        dict(name="step", milestones=[3, 7], gamma=0.2),
        lambda s, o: s.MultiStepLR(o, [3, 7], 0.2),
        True,
    ),
    "exponential": (dict(name="exponential", gamma=0.98), lambda s, o: s.ExponentialLR(o, 0.98), True),
    "exponential every 3": (
        dict(name="exponential", gamma=0.9, every=3),
        lambda s, o: s.StepLR(o, 3, 0.9),
        True,
    ),
    "one_cycle": (
        dict(name="one_cycle", warmup=30),
        lambda s, o: s.OneCycleLR(o, 0.3, total_steps=STEPS),
        False,
    ),
    "one_cycle 0.25": (
        dict(name="one_cycle", warmup=25, final=0.0004),
        lambda s, o: s.OneCycleLR(o, 0.3, total_steps=STEPS, pct_start=0.25, final_div_factor=100),
        False,
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings(
    "ignore:.*epoch parameter.*:UserWarning"
)  # PyTorch's SequentialLR warns of itself
def test_schedule_equals_pytorch(case):
    options, make, per_epoch = CASES[case]
    a, b = ours(**options), theirs(make, per_epoch=per_epoch)
    assert np.abs(a - b).max() <= 1e-10


def test_mnasnet_schedule():
    """Warm-up over 5 epochs, then 0.97 every 2.4 epochs counted from the start (tpu's mnasnet_utils)."""
    rates = ours("exponential", warmup=50, lr=0.256, gamma=0.97, every=2.4)
    assert rates[0] == pytest.approx(0.256 / 50) and rates[49] == pytest.approx(0.256)
    assert rates[50] == pytest.approx(0.256 * 0.97**2)  # step 50: 2.08 times 2.4 epochs have passed
    assert rates[71] == rates[50] and rates[72] == pytest.approx(0.256 * 0.97**3)


def test_a_broken_number_of_epochs_falls_on_its_step():
    """0.3 · 10 steps is 3.0000000000000004 in floating point; the third step still has the new rate."""
    rates = ours("exponential", gamma=0.5, every=0.3)
    assert rates[:4].tolist() == [0.3, 0.3, 0.3, 0.15]


@pytest.mark.parametrize("name", OPTIONS)
def test_corners(name):
    """No division by zero in trainings of one step, or all warm-up; no rate below 0 or above lr."""
    for steps in (1, 2, 3, 50):
        for warmup in {0, 0.5, 1, steps // 2, min(2.5, steps), steps}:
            rates = ours(name, warmup, steps=steps)
            assert np.isfinite(rates).all() and rates.min() >= 0 and rates.max() <= 0.3 * (1 + 1e-12)


def test_errors():
    with pytest.raises(NumnetError, match="unknown schedule 'cosin'; expected one of constant, linear"):
        ours("cosin")
    with pytest.raises(NumnetError, match="the schedule cosine has no option 'gamma'; it has final"):
        ours("cosine", gamma=0.5)
    with pytest.raises(NumnetError, match="a warm-up of 101 steps does not fit into a training of 100 steps"):
        ours("linear", warmup=101)
