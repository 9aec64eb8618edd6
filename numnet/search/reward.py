"""The reward: what a net is worth that has so much accuracy and takes so long (Tan et al. 2019, equations 2 and 3).

(1)  reward = ACC · (LAT / T)^w,      w = α if LAT ≤ T, else β

T is the time that the net should take. The paper has two pairs:

    soft   α = β = −0.07   a net that takes twice as long may be 5 % (of its accuracy) better, and one that takes half as long
                           5 % worse: that is what twice the time had bought by hand
    hard   α = 0, β = −1   faster than T counts nothing, slower counts fully
"""

from numnet.errors import NumnetError

WEIGHTS = {"soft": (-0.07, -0.07), "hard": (0.0, -1.0)}


def reward(accuracy: float, latency: float, target: float, kind: str = "soft") -> float:
    """Equation (1). latency and target in seconds, both above 0. NumnetError for another kind or time."""
    if kind not in WEIGHTS:
        raise NumnetError(f"reward: expected one of {', '.join(WEIGHTS)}, got {kind!r}")
    if not (latency > 0 and target > 0):
        raise NumnetError(f"reward: expected times above 0, got {latency!r} and {target!r}")
    alpha, beta = WEIGHTS[kind]
    return accuracy * (latency / target) ** (alpha if latency <= target else beta)
