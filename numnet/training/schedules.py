"""Learning rate schedules: closed-form functions of the number of the step.

Steps count from 0 to T − 1, T = epochs · steps an epoch. Nothing is remembered, so a resumed run needs no
state. With W warm-up steps, u = (t − W)/(T − W) the part done of the rest, f = ``final`` and e the epochs
done, η₀ = ``lr``:

(1)  warm-up        η = η₀·min(1, (t + 1)/W)       for t < W; all but one_cycle begin so
(2)  constant       η = η₀
(3)  linear         η = η₀·(1 − (1 − f)·u)
(4)  cosine         η = η₀·(f + (1 − f)·(1 + cos πu)/2)      Loshchilov and Hutter 2017 (SGDR), one cycle
(5)  step           η = η₀·γ^(number of ``milestones`` ≤ e)
(6)  exponential    η = η₀·γ^⌊e/``every``⌋          a staircase: "0.98 an epoch", "0.97 every 2.4 epochs"
(7)  one_cycle      η₀/25 up to η₀ at step W − 1 and down to η₀·f at step T − 1, both halves of a cosine
                    (Smith and Topin 2018)

They equal PyTorch's CosineAnnealingLR, LinearLR, MultiStepLR, StepLR and OneCycleLR (f =
``final_div_factor``'s inverse over 25), warm-up its LinearLR from 1/W over W − 1 steps. In (5) and (6) e
counts from the start of training, warm-up included, as in the papers' TensorFlow code; TensorFlow's own
warm-up is t/W, whose first step does nothing.
"""

from math import cos, floor, pi

from numnet.errors import NumnetError

DIVISOR = 25.0  # one_cycle begins at lr / DIVISOR
# Options of a schedule besides lr and warmup, with their values if not given.
OPTIONS = {
    "constant": {},
    "linear": {"final": 0.0},
    "cosine": {"final": 0.0},
    "step": {"gamma": 0.1, "milestones": ()},
    "exponential": {"gamma": 0.98, "every": 1.0},
    "one_cycle": {"final": 4e-6},
}


def schedule(name, lr, steps, steps_per_epoch, warmup=0, **options):
    """The function step -> learning rate of a whole training of ``steps`` steps.

    ``warmup`` counts steps, ``milestones`` and ``every`` epochs; all may be broken numbers. Raises
    NumnetError for an unknown name or option, and for a warm-up longer than the training.
    """
    if name not in OPTIONS:
        raise NumnetError(f"unknown schedule {name!r}; expected one of {', '.join(OPTIONS)}")
    for option in options:
        if option not in OPTIONS[name]:
            has = ", ".join(OPTIONS[name]) or "none"
            raise NumnetError(f"the schedule {name} has no option {option!r}; it has {has}")
    if not 0 <= warmup <= steps:
        raise NumnetError(f"a warm-up of {warmup} steps does not fit into a training of {steps} steps")
    option = {**OPTIONS[name], **options}
    final, gamma, every = option.get("final"), option.get("gamma"), option.get("every")

    def rate(t: int) -> float:
        if name == "one_cycle":
            return lr * one_cycle(t, steps, warmup, final)
        if t < warmup:
            return lr * min(1.0, (t + 1) / warmup)
        u = (t - warmup) / (steps - warmup)
        if name == "linear":
            return lr * (1.0 - (1.0 - final) * u)
        if name == "cosine":
            return lr * half_cosine(u, 1.0, final)
        if name == "step":
            return lr * gamma ** sum(t + 1e-6 >= epochs * steps_per_epoch for epochs in option["milestones"])
        if name == "exponential":
            return lr * gamma ** floor(t / (every * steps_per_epoch) + 1e-9)  # 1.1 · 390 is above 429
        return lr

    return rate


def half_cosine(u: float, start: float, end: float) -> float:
    """From ``start`` at u = 0 to ``end`` at u = 1, flat at both ends."""
    return end + (start - end) * (1.0 + cos(pi * u)) / 2.0


def one_cycle(t: int, steps: int, warmup: float, final: float) -> float:
    """Equation (7) as a part of η₀. The peak may lie between two steps."""
    peak, last = warmup - 1.0, steps - 1.0
    if t <= peak and peak > 0:
        return half_cosine(t / peak, 1.0 / DIVISOR, 1.0)
    return half_cosine((t - peak) / (last - peak) if last > peak else 1.0, 1.0, final)
