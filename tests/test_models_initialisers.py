"""Where parameters start: the spread of each scheme against its formula, and which net has which."""

import numpy as np
import pytest

import numnet
from numnet.initialisers import SCHEMES, fill
from numnet.layers.layer import Spec
from numnet.models import INITIALISERS, INITIALISERS_OF_MODELS

K, C, F, M = 3, 512, 256, 2
SPECS = {
    "conv": Spec((K, K, 16, F), "conv", K * K * 16, K * K * F),
    "depthwise": Spec((K, K, C, M), "depthwise", K * K * C, K * K * M),
    "pointwise": Spec((C, F), "pointwise", C, F),
    "dense": Spec((C, F), "dense", C, F),
}
U = 1 / np.sqrt(3)  # deviation of U(−1, 1)
WIDE = {  # deviations of conv, depthwise, pointwise, dense
    "glorot_uniform": [U * np.sqrt(6 / (i + o)) for i, o in [(144, 2304), (4608, 18), (C, F), (C, F)]],
    "he_fan_out": [*(np.sqrt(2 / o) for o in (2304, 9 * C * M, F)), 0.01],
    "he_fan_out_group": [*(np.sqrt(2 / o) for o in (2304, 18, F)), U / np.sqrt(F)],
    "he_fan_in": [*(np.sqrt(2 / i) for i in (144, 18, C)), U * np.sqrt(6 / (C + F))],
    "he_fan_in_all": [np.sqrt(2 / i) for i in (144, 18, C, C)],
    "he_fan_out_uniform_dense": [*(np.sqrt(2 / o) for o in (2304, 9 * C * M, F)), U * np.sqrt(3 / F)],
    "normal_001": [0.01] * 4,
    "truncated_normal_009": [0.09 * 0.879626] * 4,  # the deviation of a standard normal cut at ±2
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_spread(scheme):
    for (role, spec), expected in zip(SPECS.items(), WIDE[scheme], strict=True):
        values = np.empty(spec.shape)
        fill(values, spec, scheme, seed=0, tensor=3)
        error = 5 * expected / np.sqrt(2 * spec.size)  # five standard errors of a deviation
        assert abs(values.std() - expected) < error, role
        assert abs(values.mean()) < 5 * expected / np.sqrt(spec.size), role


def test_uniform_numbers_have_a_limit_and_cut_ones_too():
    """Keras's V1: a depthwise filter of 512 channels starts in ±√(6/(9·512 + 9)) = ±0.036049."""
    net = numnet.build("mobilenet_v1", resolution=32, classes=10)
    values = net.params["block8.depthwise.weight"]
    assert values.shape == (3, 3, 512, 1)
    assert 0.03600 < np.abs(values).max() <= 0.036050
    net = numnet.build("mobilenet_v1", resolution=32, classes=10, initialiser="truncated_normal_009")
    assert 0.179 < np.abs(net.params["block8.pointwise.weight"]).max() <= 0.18


def test_biases_and_norms_start_neutral():
    net = numnet.build("mobilenet_v3_small", resolution=32, classes=10)
    for name, spec in net.specs.items():
        if spec.role in ("bias", "beta", "gamma"):
            assert (net.params[name] == (spec.role == "gamma")).all(), name
    for name, buffer in net.buffers.items():
        assert (buffer == name.endswith("variance")).all()


def test_tensors_have_numbers_of_their_own():
    """Two tensors of one shape differ; a tensor does not depend on those before it, only on its place."""
    net = numnet.build("mobilenet_v1", width=0.25, resolution=32, classes=10)
    assert not np.array_equal(net.params["block8.depthwise.weight"], net.params["block9.depthwise.weight"])
    other = numnet.build("mobilenet_v1", width=0.25, resolution=32, classes=7)
    np.testing.assert_array_equal(net.params["stem.weight"], other.params["stem.weight"])


@pytest.mark.parametrize("model", numnet.models())
@pytest.mark.parametrize("variant", ["keras", "torch", "paddle"])
def test_each_net_starts_like_its_framework_s(model, variant):
    """The first weights of the net are those of the scheme that the variant's framework uses."""
    thin = {} if model in ("vgg16", "googlenet") else {"width": 0.1 if "v4" in model else 0.5}
    options = {"resolution": 32, "classes": 10, "variant": variant, **thin}
    expected = {
        ("mobilenet_v1", "torch"): "he_fan_out_group",
        ("mobilenet_v1", "paddle"): "he_fan_in_all",
        ("mobilenet_v2", "torch"): "he_fan_out",
        ("mnasnet_a1", "torch"): "he_fan_out_group",
        ("mnasnet_b1", "torch"): "he_fan_out_uniform_dense",
        ("googlenet", "torch"): "normal_001",
        ("mobilenet_v4_small", "torch"): "he_fan_out_group",
        ("mobilenet_v4_medium", "torch"): "he_fan_out_group",
        ("mobilenet_v4_large", "torch"): "he_fan_out_group",
    }.get(
        (model, variant), {"keras": "glorot_uniform", "torch": "he_fan_out", "paddle": "he_fan_in"}[variant]
    )
    assert INITIALISERS_OF_MODELS.get((model, variant), INITIALISERS[variant]) == expected
    if model == "vgg16":
        return  # the rule above is all there is to see, and its 33 million numbers take seconds
    net = numnet.build(model, **options)
    np.testing.assert_array_equal(net.flat, numnet.build(model, initialiser=expected, **options).flat)
