"""Optimisers against PyTorch, 100 steps in float64; TensorFlow's rules against its formulas, written out."""

import numpy as np
import pytest

import numnet
from numnet.errors import NumnetError
from numnet.kernels import sgd, vector
from numnet.kernels.adam import adam_step
from numnet.kernels.muon import muon_step
from numnet.kernels.rmsprop import rmsprop_step
from numnet.training.optimisers import OPTIMISERS, Average

STEPS = 100
MATRIX = [(0, 6, 3)]  # of the problem below: start, C, F
TIGHT = 1e-10  # the same operations in another order, over 100 steps


class Problem:
    """A linear net with a bias and squared error: the gradient depends on the weights, so errors grow."""

    def __init__(self, dtype=np.float64):
        rng = np.random.default_rng(7)
        self.x = rng.normal(size=(40, 6)).astype(dtype)
        self.y = rng.normal(size=(40, 3)).astype(dtype)
        self.start = rng.normal(size=6 * 3 + 3).astype(dtype)
        self.mask = np.arange(21) < 18  # decay on the matrix, none on the bias

    def gradient(self, w):
        error = self.x @ w[:18].reshape(6, 3) + w[18:] - self.y
        return np.concatenate([(self.x.T @ error).ravel(), error.sum(axis=0)]) / len(self.x)

    def run(self, name, lr, steps=STEPS, clip=None, **options):
        w, g = self.start.copy(), np.empty_like(self.start)
        optimiser = OPTIMISERS[name](w, g, self.mask, matrices=MATRIX, **options)
        for t in range(steps):
            g[:] = self.gradient(w)
            if clip:
                vector.clip(g, clip)
            optimiser.step(lr(t))
        return w, optimiser


def rate(t):
    return 0.05 * (1 - t / 150)


def torch_run(problem, make, clip=None):
    """The same training in PyTorch: the matrix and the bias are two parameters, the second without decay."""
    torch = pytest.importorskip("torch")
    x, y = torch.tensor(problem.x), torch.tensor(problem.y)
    matrix = torch.tensor(problem.start[:18].reshape(6, 3).copy(), requires_grad=True)
    bias = torch.tensor(problem.start[18:].copy(), requires_grad=True)
    optimiser = make(torch.optim, matrix, bias)
    for t in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = rate(t)
        optimiser.zero_grad()
        (((x @ matrix + bias - y) ** 2).sum() / 2 / len(x)).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_([matrix, bias], clip)
        optimiser.step()
    return np.concatenate([matrix.detach().numpy().ravel(), bias.detach().numpy()])


def groups(matrix, bias, decay):
    return [{"params": [matrix], "weight_decay": decay}, {"params": [bias], "weight_decay": 0.0}]


AGAINST_TORCH = {
    "sgd": (dict(momentum=0.0, nesterov=False), lambda o, p: o.SGD(p, lr=1.0)),
    "sgd momentum": (dict(momentum=0.9, nesterov=False), lambda o, p: o.SGD(p, lr=1.0, momentum=0.9)),
    "sgd nesterov": (dict(momentum=0.8), lambda o, p: o.SGD(p, lr=1.0, momentum=0.8, nesterov=True)),
    "adam": ({}, lambda o, p: o.Adam(p)),
    "adam betas": (
        dict(beta1=0.8, beta2=0.95, epsilon=1e-3),
        lambda o, p: o.Adam(p, betas=(0.8, 0.95), eps=1e-3),
    ),
    "adamw": ({}, lambda o, p: o.AdamW(p)),
    "rmsprop": (
        dict(style="pytorch", rho=0.95, momentum=0.7, epsilon=1e-4),
        lambda o, p: o.RMSprop(p, alpha=0.95, momentum=0.7, eps=1e-4),
    ),
    "rmsprop plain": (
        dict(style="pytorch", rho=0.99, momentum=0.0, epsilon=1e-8),
        lambda o, p: o.RMSprop(p),
    ),
}


@pytest.mark.parametrize("case", AGAINST_TORCH)
@pytest.mark.parametrize("decay", [0.0, 0.03])
def test_optimiser_equals_pytorch(case, decay):
    options, make = AGAINST_TORCH[case]
    problem = Problem()
    ours, _ = problem.run(case.split()[0], rate, weight_decay=decay, **options)
    theirs = torch_run(problem, lambda o, m, b: make(o, groups(m, b, decay)))
    assert np.abs(ours - theirs).max() <= TIGHT * np.abs(theirs).max()
    assert np.abs(ours - problem.start).max() > 0.1  # it went somewhere


def test_clipping_equals_pytorch():
    problem = Problem()
    ours, _ = problem.run("sgd", rate, clip=0.5)
    theirs = torch_run(problem, lambda o, m, b: o.SGD([m, b], lr=1.0, momentum=0.9, nesterov=True), clip=0.5)
    free, _ = problem.run("sgd", rate)
    assert np.abs(ours - theirs).max() <= TIGHT * np.abs(theirs).max()
    assert np.abs(ours - free).max() > 1e-3  # the limit was felt


@pytest.mark.parametrize("name", ["sgd", "muon"])
def test_a_learning_rate_of_beta_s_own(name):
    """``beta_rate``: the bias moves by SGD at another rate, the matrix as before in each step."""
    problem, betas = Problem(), np.arange(21) >= 18
    ours, _ = problem.run(name, rate, betas=betas, beta_rate=3.0)
    if name == "sgd":

        def make(optim, matrix, bias):
            return Fast(optim.SGD(groups(matrix, bias, 0.0), lr=1.0, momentum=0.9, nesterov=True))

        class Fast:
            def __init__(self, inner):
                self.inner, self.param_groups, self.zero_grad = inner, inner.param_groups, inner.zero_grad

            def step(self):
                self.param_groups[1]["lr"] *= 3.0
                self.inner.step()

        theirs = torch_run(problem, make)
        assert np.abs(ours - theirs).max() <= TIGHT * np.abs(theirs).max()
    plain, _ = problem.run(name, rate, betas=betas)
    assert np.abs(ours - plain)[18:].max() > 1e-3  # it was felt
    first, _ = problem.run(name, rate, steps=1, betas=betas, beta_rate=3.0)
    slow, _ = problem.run(name, rate, steps=1, betas=betas)
    assert np.array_equal(first[:18], slow[:18])
    moved = first - problem.start, slow - problem.start
    np.testing.assert_allclose(moved[0][18:], 3 * moved[1][18:], rtol=1e-12)


def test_others_have_no_rate_for_beta():
    with pytest.raises(NumnetError, match="adam has no option 'beta_rate'"):
        Problem().run("adam", rate, beta_rate=3.0)


def test_tensorflow_rmsprop():
    """tf.train.RMSPropOptimizer: ms from 1, epsilon inside the root, learning rate inside the momentum."""
    problem = Problem()
    ours, _ = problem.run("rmsprop", rate, rho=0.9, momentum=0.9, epsilon=0.002)
    w, ms, mom = problem.start.copy(), np.ones(21), np.zeros(21)
    for t in range(STEPS):
        g = problem.gradient(w)
        ms = 0.9 * ms + 0.1 * g**2
        mom = 0.9 * mom + rate(t) * g / np.sqrt(ms + 0.002)
        w = w - mom
    assert np.abs(ours - w).max() <= TIGHT * np.abs(w).max()
    torch_style, _ = problem.run("rmsprop", rate, rho=0.9, momentum=0.9, epsilon=0.002, style="pytorch")
    assert np.abs(ours - torch_style).max() > 1e-3  # the styles differ


def test_tensorflow_adam():
    """Keras and tf.train.AdamOptimizer: epsilon beside the root of the uncorrected mean square."""
    problem = Problem()
    ours, _ = problem.run("adam", rate, epsilon=1e-2, style="tensorflow")
    w, m, v = problem.start.copy(), np.zeros(21), np.zeros(21)
    for t in range(STEPS):
        g = problem.gradient(w)
        m += (g - m) * (1 - 0.9)
        v += (g**2 - v) * (1 - 0.999)
        alpha = rate(t) * np.sqrt(1 - 0.999 ** (t + 1)) / (1 - 0.9 ** (t + 1))
        w = w - m * alpha / (np.sqrt(v) + 1e-2)
    assert np.abs(ours - w).max() <= TIGHT * np.abs(w).max()
    torch_style, _ = problem.run("adam", rate, epsilon=1e-2)
    assert np.abs(ours - torch_style).max() > 1e-3


@pytest.mark.parametrize("name", OPTIMISERS)
def test_float32_follows_float64(name):
    ours, optimiser = Problem(np.float32).run(name, lambda t: 0.01, weight_decay=0.01)
    exact, _ = Problem().run(name, lambda t: 0.01, weight_decay=0.01)
    assert ours.dtype == np.float32 and all(slot.dtype == np.float32 for slot in optimiser.slots.values())
    assert np.abs(ours - exact).max() <= 1e-4 * np.abs(exact).max()  # 100 steps of float32 rounding


@pytest.mark.parametrize("name", OPTIMISERS)
def test_state_goes_on(name):
    """Half a run, slots copied into a new optimiser, the other half: the bits of a whole run."""
    problem = Problem()
    whole, _ = problem.run(name, rate)
    half, first = problem.run(name, rate, steps=STEPS // 2)
    g = np.empty_like(half)
    second = OPTIMISERS[name](half, g, problem.mask, matrices=MATRIX)
    second.load({k: v.copy() for k, v in first.slots.items()}, first.steps)
    for t in range(STEPS // 2, STEPS):
        g[:] = problem.gradient(half)
        second.step(rate(t))
    assert np.array_equal(half, whole)


def muon_direction(u):
    """Jordan's iteration, as its equations stand there, by NumPy."""
    x = (u if u.shape[0] <= u.shape[1] else u.T) / np.linalg.norm(u)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x if u.shape[0] <= u.shape[1] else x.T


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_against_its_equations(nesterov):
    """A bias and two matrices, one tall and one wide, with a stretch between them that is left to SGD."""
    rng = np.random.default_rng(3)
    matrices, size = [(2, 9, 4), (40, 3, 5)], 58
    w, v = rng.normal(size=size), np.zeros(size)
    want, g = w.copy(), np.empty(size)
    rest = np.ones(size, bool)
    for start, c, f in matrices:
        rest[start : start + c * f] = False
    options = dict(momentum=0.8, nesterov=nesterov)
    muon = OPTIMISERS["muon"](w, g, rest, 0.03, matrices=matrices, ratio=0.2, **options)
    for t in range(STEPS):
        g[:] = rng.normal(size=size)
        muon.step(rate(t))
        gradient = g + 0.03 * want * rest
        v = 0.8 * v + gradient
        u = gradient + 0.8 * v if nesterov else v
        want[rest] -= rate(t) * u[rest]
        for start, c, f in matrices:
            at = slice(start, start + c * f)
            x = muon_direction(u[at].reshape(c, f)).reshape(-1)
            moved = want[at] - 0.2 * rate(t) * np.sqrt(f) * x / np.linalg.norm(x)
            want[at] = moved * np.sqrt(f) / np.linalg.norm(moved)
    np.testing.assert_allclose(w, want, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(muon.slots["velocity"], v, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("c, f", [(16, 16), (8, 32), (32, 8), (27, 16)])
def test_muon_moves_equally_far_in_all_directions(c, f):
    """From singular values of 1 to 100 it makes a step whose own lie within a factor of two."""
    rng = np.random.default_rng(c + f)
    q, _ = np.linalg.qr(rng.normal(size=(c, min(c, f))))
    r, _ = np.linalg.qr(rng.normal(size=(f, min(c, f))))
    g = (q * np.logspace(0, 2, min(c, f))) @ r.T
    w = np.zeros(c * f)  # so the step alone is left, at its length
    muon_step(w, g.reshape(-1), np.zeros(c * f), [(0, c, f)], 0.1, 0.0, False)
    assert np.linalg.norm(w) == pytest.approx(np.sqrt(f), rel=1e-12)
    values = np.linalg.svd(w.reshape(c, f), compute_uv=False)
    assert values[0] < 2 * values[-1]
    np.testing.assert_allclose(
        q.T @ -w.reshape(c, f) @ r, np.diag(np.diag(q.T @ -w.reshape(c, f) @ r)), atol=1e-9
    )


def test_muon_leaves_frozen_matrices_alone():
    rng = np.random.default_rng(0)
    w, g, v = rng.normal(size=24), rng.normal(size=24), np.zeros(24)
    g[:12] = 0
    before = w.copy()
    muon_step(w, g, v, [(0, 3, 4), (12, 4, 3)], 0.1)
    assert np.array_equal(w[:12], before[:12]) and np.abs(w[12:] - before[12:]).min() > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_muon_does_not_hide_what_is_not_finite(bad):
    w, g, v = np.ones(24, np.float32), np.ones(24, np.float32), np.zeros(24, np.float32)
    g[3] = bad
    muon_step(w, g, v, [(0, 3, 4), (12, 4, 3)], 0.1)
    assert np.isnan(w[:12]).all() and np.isfinite(w[12:]).all()


def test_muon_takes_the_dust_of_an_old_velocity_for_nothing():
    w, g, v = np.ones(12, np.float32), np.zeros(12, np.float32), np.full(12, 1e-44, np.float32)
    muon_step(w, g, v, [(0, 3, 4)], 0.1)
    assert (w == 1).all()


def test_a_net_names_its_matrices():
    """Pointwise and standard convolutions before batch norm; no depthwise filter, no classifier."""
    net = numnet.build("mobilenet_v2", width=0.35, resolution=32, classes=10)
    start, want = 0, []
    for name, w in net.params.items():
        if name.endswith("weight") and "depthwise" not in name and "logits" not in name:
            want.append((start, w.size // w.shape[-1], w.shape[-1]))
        start += w.size
    assert net.matrices() == want
    assert want[0] == (0, 27, 16) and want[-1][1:] == (112, 1280) and len(want) == 2 + 1 + 16 * 2
    # No SE weights
    assert numnet.build("mobilenet_v3_small", resolution=32, classes=10).matrices()[1][1:] == (16, 16)


def test_loading_a_foreign_state_is_refused():
    w = np.zeros(5)
    optimiser = OPTIMISERS["adam"](w, w.copy(), np.ones(5, bool))
    with pytest.raises(NumnetError, match="'mean' is missing; expected mean, square"):
        optimiser.load({"velocity": w}, 3)
    with pytest.raises(NumnetError, match=r"slot 'square' is float64 \(4,\); expected float64 \(5,\)"):
        optimiser.load({"mean": w, "square": w[:4]}, 3)
    with pytest.raises(NumnetError, match="adam has no option 'momentum'; it has lr, beta1"):
        OPTIMISERS["adam"](w, w.copy(), np.ones(5, bool), momentum=0.9)


@pytest.mark.parametrize("size", [0, 1, 7, 16384, 16385, 100003])
def test_chunks_cover_every_length(size):
    rng = np.random.default_rng(size)
    w, g, v, decay = (rng.normal(size=size) for _ in range(4))
    want_v = 0.9 * v + g + decay * w
    want = w - 0.1 * want_v
    sgd.sgd_step(w, g, v, decay, 0.1, 0.9, nesterov=False)
    np.testing.assert_allclose(w, want, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(v, want_v, rtol=1e-13, atol=1e-13)
    assert vector.norm(g) == pytest.approx(np.linalg.norm(g), rel=1e-13)


def test_norm_is_float64_and_the_same_for_any_threads():
    import numba

    g = np.random.default_rng(0).normal(size=70001).astype(np.float32)
    before = numba.get_num_threads()
    try:
        norms = []
        for threads in range(1, numba.config.NUMBA_NUM_THREADS + 1):
            numba.set_num_threads(threads)
            norms.append(vector.norm(g))
    finally:
        numba.set_num_threads(before)
    assert len(set(norms)) == 1
    assert norms[0] == pytest.approx(np.sqrt((g.astype(np.float64) ** 2).sum()), rel=1e-13)
    assert vector.norm(np.full(4, 1e30, np.float32)) == pytest.approx(2e30)  # float32 squares would overflow


def test_clip_leaves_short_gradients_alone():
    g = np.array([3.0, 4.0])
    assert vector.clip(g, 6.0) == 5.0 and g.tolist() == [3.0, 4.0]
    assert vector.clip(g, 1.0) == 5.0
    np.testing.assert_allclose(g, [0.6, 0.8], rtol=1e-6)


def test_average():
    rng = np.random.default_rng(1)
    w, b = rng.normal(size=50), rng.normal(size=4)
    average = Average(0.9, params=w, buffers=b)
    want, own = w.copy(), None
    for t in range(1, 200):
        w += rng.normal(size=50)
        average.update(t)
        decay = min(0.9, (1 + t) / (10 + t))
        want = decay * want + (1 - decay) * w
    np.testing.assert_allclose(average.slots["params"], want, rtol=1e-12)
    np.testing.assert_allclose(average.slots["buffers"], b, rtol=1e-12)
    own = w.copy()
    with average:
        assert np.array_equal(w, average.slots["params"])
    assert np.array_equal(w, own)


def test_bad_arrays_are_named():
    w, g, v, decay = (np.zeros(5) for _ in range(4))
    cases = [
        (lambda: sgd.sgd_step(w, g[:4], v, decay, 0.1), "g: expected shape"),
        (lambda: sgd.sgd_step(w, g, v.astype(np.float32), decay, 0.1), "v: expected float64"),
        (lambda: sgd.sgd_step(w, g, v, decay.astype(bool), 0.1), "decay: expected float32 or float64"),
        (lambda: sgd.sgd_step(np.zeros(10)[::2], g, v, decay, 0.1), "w: expected a C-contiguous array"),
        (lambda: sgd.sgd_step(w, w, v, decay, 0.1), "shares memory with g"),
        (lambda: adam_step(w, g, v, v, decay, 0.1, 1), "shares memory with m"),
        (lambda: adam_step(w, g, v, v + 0, decay, 0.1, 0), "t: expected the number of the step"),
        (lambda: adam_step(w, g, v, v + 0, decay, 0.1, 1, style="keras"), "style: expected 'pytorch'"),
        (lambda: rmsprop_step(w, g, v, v + 0, decay, 0.1, style="keras"), "style: expected 'pytorch'"),
        (lambda: vector.average(w, g[:3], 0.5), "a: expected shape"),
        (lambda: vector.accumulate(w, w), "shares memory with x"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
    frozen = np.zeros(5)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="w: the array is read-only"):
        sgd.sgd_step(frozen, g, v, decay, 0.1)
    sgd.sgd_step(w, frozen, v, decay, 0.1)  # a gradient may be read-only
