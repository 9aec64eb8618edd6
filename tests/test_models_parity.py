"""Every net and variant against plain PyTorch of the same structure and weights (bounds: design, how exact is exact)."""

import pytest

torch = pytest.importorskip("torch")
import parity  # noqa: E402  (needs torch)

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
    ("mobilenet_v2", {**SMALL, "skip": False, "activation": "hswish", "bottleneck_activation": "relu6"}),
    ("mobilenet_v3_small", {**SMALL, "se": False, "kernel": 3, "activation": "relu"}),  # minimalistic
    ("mobilenet_v3_large", {**SMALL, "resolution": 45, "bn_eps": 1e-2, "bn_momentum": 0.5}),  # odd sides
    ("mnasnet_keras", {**SMALL, "bn_momentum": 0.9, "kernel": 3}),
    (
        "googlenet",
        {"resolution": 64, "classes": 10, "dropout": 0.0, "variant": "torch", "padding": "symmetric"},
    ),
    (
        "googlenet",
        {"resolution": 50, "classes": 10, "dropout": 0.0, "strides": "cifar"},
    ),  # partial last windows
    ("vgg16", {"resolution": 32, "classes": 10, "dropout": 0.0}),
    ("vgg16", {"resolution": 64, "classes": 10, "dropout": 0.0, "variant": "torch", "padding": "symmetric"}),
]


def brief(value):
    if isinstance(value, str):
        return value
    return ",".join(f"{k}={v}" for k, v in value.items() if k not in ("classes", "dropout"))


@pytest.mark.parametrize("name, options", CASES, ids=brief)
def test_parity(name, options):
    net, module = parity.twins(name, **options)
    parity.check_inference(net, module, bound=parity.TRAINING)
    parity.check_training(net, module)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "mnasnet_a1"])
def test_float32_in_inference(name):
    parity.check_inference(*parity.twins(name, dtype="float32", **SMALL))


def test_paddle_s_dropout_scales_in_inference():
    options = {**SMALL, "variant": "paddle", "dropout": 0.4}
    parity.check_inference(*parity.twins("mobilenet_v3_small", **options), bound=parity.TRAINING)
