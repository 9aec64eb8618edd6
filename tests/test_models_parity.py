"""Every net and variant against plain PyTorch of the same structure and weights (bounds: design, how exact is exact)."""

import numpy as np
import pytest

import numnet

torch = pytest.importorskip("torch")
import parity  # noqa: E402  (needs torch)
import torch_nets  # noqa: E402

THIN = {"width": 0.25, "resolution": 64, "classes": 10, "dropout": 0.0}
SMALL = {**THIN, "resolution": 32}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


INVERTED = ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "mnasnet_a1", "mnasnet_b1")
CASES = [
    *((name, {**THIN, "variant": "keras"}) for name in (*INVERTED, "mnasnet_keras")),
    *((name, {**THIN, "variant": "torch", "padding": "symmetric"}) for name in INVERTED),
    *((name, {**THIN, "variant": "paddle", "padding": "symmetric"}) for name in INVERTED),
    *((name, {**SMALL, "strides": "cifar"}) for name in (*INVERTED, "mnasnet_keras")),
    *((name, {**SMALL, "width": 0.5}) for name in INVERTED),
    ("mobilenet_v4_small", {**THIN, "variant": "torch", "padding": "symmetric"}),
    ("mobilenet_v4_small", {**SMALL, "strides": "cifar"}),
    ("mobilenet_v4_medium", {**SMALL, "variant": "torch", "padding": "symmetric"}),
    ("mobilenet_v4_large", {**SMALL, "width": 0.1}),
    ("mobilenet_v4_small", {**SMALL, "resolution": 45, "skip": False, "kernel": 3, "activation": "hswish"}),
    ("mobilenet_v3_small_minimalistic", SMALL),
    ("mobilenet_v2", {**SMALL, "skip": False, "activation": "hswish", "bottleneck_activation": "relu6"}),
    ("mobilenet_v3_small", {**SMALL, "se": False, "kernel": 3, "activation": "relu"}),  # minimalistic
    ("mobilenet_v3_large", {**SMALL, "resolution": 45, "bn_eps": 1e-2, "bn_momentum": 0.5}),  # odd sides
    ("mnasnet_keras", {**SMALL, "bn_momentum": 0.9, "kernel": 3}),
    (
        "googlenet",
        {"resolution": 64, "classes": 10, "dropout": 0.0, "variant": "torch", "padding": "symmetric"},
    ),
    # partial last windows
    ("googlenet", {"resolution": 50, "classes": 10, "dropout": 0.0, "strides": "cifar"}),
    ("plain_3x3", {**SMALL, "strides": "cifar"}),
    ("plain_3x3", {**THIN, "variant": "torch", "padding": "symmetric", "activation": "hswish"}),
    ("plain_3x3", {**SMALL, "resolution": 37, "width": 0.5, "rows": [(40, 1), (64, 3)], "stem": 12}),
    ("vgg16", {"resolution": 32, "classes": 10, "dropout": 0.0}),
    ("vgg16", {"resolution": 64, "classes": 10, "dropout": 0.0, "variant": "torch", "padding": "symmetric"}),
]


def brief(value):
    if isinstance(value, str):
        return value
    return ",".join(f"{k}={v}" for k, v in value.items() if k not in ("classes", "dropout"))


@pytest.mark.parametrize("variant", ["keras", "torch", "paddle"])
@pytest.mark.parametrize("name", numnet.models())
def test_counts_that_no_framework_published(name, variant):
    """Odd widths, sides and classes: parameters, statistics and MACs of two tables typed apart."""
    padding = "same" if variant == "keras" else "symmetric"
    widths = (1.0,) if name in ("vgg16", "googlenet") else (0.2, 0.35, 0.6, 1.12, 2.0)
    for width, resolution, strides in zip(widths, (96, 97, 33, 64, 50), ("imagenet", "cifar") * 3):
        options = {"width": width, "classes": 17, "variant": variant, "padding": padding, "strides": strides}
        with torch.device("meta"):
            module = torch_nets.build(name, resolution=resolution, **options)
        cost = numnet.describe(name, resolution=resolution, **options).cost()
        kept = sum(statistic.numel() for _, statistic in parity.statistics(module))
        assert (cost.params, cost.macs) == torch_nets.cost(module, resolution), (width, resolution)
        assert cost.buffers == kept


@pytest.mark.parametrize("name, options", CASES, ids=brief)
def test_parity(name, options):
    net, module = parity.twins(name, **options)
    parity.check_inference(net, module, bound=parity.TRAINING)
    parity.check_training(net, module)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "mobilenet_v4_small", "mnasnet_a1"])
def test_float32_in_inference(name):
    parity.check_inference(*parity.twins(name, dtype="float32", **SMALL))


def test_paddle_s_dropout_scales_in_inference():
    options = {**SMALL, "variant": "paddle", "dropout": 0.4}
    parity.check_inference(*parity.twins("mobilenet_v3_small", **options), bound=parity.TRAINING)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small"])
def test_float32_in_training_is_as_near_to_float64_as_pytorch(name):
    """Root mean squares of the errors in logits, dx and gradients: at most twice PyTorch's.

    With a smooth activation: where a number lies beside a kink of ReLU6, rounding decides whether its gradient passes,
    and that is chance on both sides (PyTorch against itself, two layouts: factors of hundreds)."""
    options = {**THIN, "width": 0.5, "activation": "swish"}
    net, module = parity.twins(name, dtype="float32", **options)
    exact = numnet.build(name, dtype="float64", **options)
    exact.flat[...] = net.flat
    x = parity.images(net, 8)
    dlogits = np.random.default_rng(2).normal(size=(8, net.classes)).astype(np.float32)
    results = [(each.forward(x, training=True), each.backward(dlogits), each) for each in (exact, net)]
    module.train()
    x_theirs = parity.channels_first(x).requires_grad_()
    logits = module(x_theirs)
    logits.backward(torch.from_numpy(dlogits))

    def distance(got, want):
        return np.sqrt(np.mean((got.astype(np.float64) - want) ** 2))

    theirs = {name: p.grad.numpy() for name, p, _ in parity.pairs(net, module)}
    turns = {name: turn for name, _, turn in parity.pairs(net, module)}
    (want, dx_want, _), (got, dx, _) = results
    assert distance(got, want) <= 2 * distance(logits.detach().numpy(), want)
    assert distance(dx, dx_want) <= 2 * distance(x_theirs.grad.numpy().transpose(0, 2, 3, 1), dx_want)
    own_error = other_error = 0.0
    for name, turn in turns.items():
        truth = turn(exact.grads[name])
        own_error += np.sum((turn(net.grads[name]).astype(np.float64) - truth) ** 2)
        other_error += np.sum((theirs[name].astype(np.float64) - truth) ** 2)
    assert own_error <= 4 * other_error
