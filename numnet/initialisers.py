"""What a net's parameters are before the first step: the schemes of the frameworks that published MobileNets.

Numbers come from a counter (kernels/random): element i of tensor t is a function of (seed, t, i), so a net is the same
whatever was drawn before it. With fans as Keras and PyTorch count them (depthwise: K·K·C in and K·K·M out in Keras):

(1)  glorot_uniform   U(−l, l),  l = √(6 / (fan_in + fan_out))           Keras; Glorot and Bengio 2010
(2)  he_fan_out       N(0, 2 / fan_out)                                   torchvision; He et al. 2015. Dense: N(0, 0.01²)
(3)  he_fan_out_group N(0, 2 / fan_out), depthwise fan_out K·K            timm and TensorFlow's MnasNet. Dense: U(±1/√F)
(4)  he_fan_in        N(0, 2 / fan_in)                                    PaddlePaddle's default for convolutions.
     he_fan_in_all    the same for the dense layer, (1) in the other          PaddleClas's MobileNetV1
(5)  he_fan_out_uniform_dense   (2); dense: U(−l, l), l = √(3 / F)         torchvision's MnasNet
(6)  normal_001       N(0, 0.01²) everywhere                              torchvision's GoogLeNet
(7)  truncated_normal_009   N(0, 0.09²) without its tails beyond ±2·0.09  slim's V1, V2 and V3: the papers' authors

Biases and β are 0, γ is 1.
"""

import numpy as np

from numnet.kernels import random
from numnet.quantiles import normal_quantile, normal_share


def fill(array, spec, scheme, seed, tensor):
    """Fill ``array`` of ``spec`` by the scheme; ``tensor`` is its number in the net. Raises ValueError for a new scheme."""
    if scheme not in SCHEMES:
        raise ValueError(f"initialiser: expected one of {', '.join(SCHEMES)}, got {scheme!r}")
    if spec.role in ("bias", "beta"):
        array[...] = 0
    elif spec.role == "gamma":
        array[...] = 1
    else:
        kind, size = SCHEMES[scheme](spec)
        draw = {"normal": random.normals, "uniform": _symmetric, "truncated": _truncated}[kind]
        array[...] = (size * draw(seed, random.INIT, tensor, spec.size)).reshape(spec.shape)


def _symmetric(seed, purpose, step, count):
    return 2 * random.uniforms(seed, purpose, step, count) - 1


def _truncated(seed, purpose, step, count):
    """Standard normal numbers between −2 and 2: the inverse of Φ at uniform numbers between Φ(−2) and Φ(2)."""
    low, high = normal_share(-2.0), normal_share(2.0)
    return normal_quantile(low + (high - low) * random.uniforms(seed, purpose, step, count))


def _glorot_uniform(spec):
    return "uniform", np.sqrt(6 / (spec.fan_in + spec.fan_out))


def _he_fan_out(spec):
    if spec.role == "dense":
        return "normal", 0.01
    # PyTorch counts all C·M filters going out
    fan_out = spec.size if spec.role == "depthwise" else spec.fan_out
    return "normal", np.sqrt(2 / fan_out)


def _he_fan_out_group(spec):
    if spec.role == "dense":
        return "uniform", 1 / np.sqrt(spec.fan_out)
    return "normal", np.sqrt(2 / spec.fan_out)


def _he_fan_in(spec):
    if spec.role == "dense":
        return _glorot_uniform(spec)
    fan_in = spec.fan_out if spec.role == "depthwise" else spec.fan_in  # a depthwise filter sees one channel
    return "normal", np.sqrt(2 / fan_in)


def _he_fan_in_all(spec):
    if spec.role == "dense":
        return "normal", np.sqrt(2 / spec.fan_in)
    return _he_fan_in(spec)


def _he_fan_out_uniform_dense(spec):
    if spec.role == "dense":
        return "uniform", np.sqrt(3 / spec.fan_out)
    return _he_fan_out(spec)


SCHEMES = {
    "glorot_uniform": _glorot_uniform,
    "he_fan_out": _he_fan_out,
    "he_fan_out_group": _he_fan_out_group,
    "he_fan_in": _he_fan_in,
    "he_fan_in_all": _he_fan_in_all,
    "he_fan_out_uniform_dense": _he_fan_out_uniform_dense,
    "normal_001": lambda spec: ("normal", 0.01),
    "truncated_normal_009": lambda spec: ("truncated", 0.09),
}
