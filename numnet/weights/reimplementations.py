"""Names of widely used PyTorch reimplementations, read only; each verified against its published source.

    tonylins        tonylins/pytorch-mobilenet-v2: blocks as one flat ``conv`` of convolutions, batch norms, activations;
                    its first version expands the block of t = 1 too and has widths ⌊α·c⌋, as the variant "paddle"
    d-li14          d-li14/mobilenetv2.pytorch: the same blocks, the last convolution in ``conv``, a bare ``classifier``
    kuangliu        kuangliu/pytorch-cifar's MobileNet: V1 for 32×32 images, ReLU, a stem of stride 1
    transformers    Hugging Face's MobileNetV1 and V2, translated from TensorFlow: padding "same", ε 1e-3, x/127.5 − 1,
                    1,001 classes of which the first is the background

Not read, since numnet builds no such net: kuangliu's MobileNetV2 (a convolution on the shortcut of blocks whose channels
change) and d-li14's MobileNetV3 (an activation between pooling and classifier).
"""

from numnet.weights.slots import Name


def _blocks(net):
    return [layer for layer in net.layers if layer.name.startswith("block")]


def _flat_blocks(net):
    """V2's stem and blocks where a block is one Sequential: convolution, batch norm, activation, and so on."""
    names, number = {"stem": Name("features.0.0", "features.0.1")}, 0
    for number, block in enumerate(_blocks(net), 1):
        for i, part in enumerate(block.children):
            prefix = f"features.{number}.conv."
            names[f"{block.name}.{part.name}"] = Name(f"{prefix}{3 * i}", f"{prefix}{3 * i + 1}")
    return names, number + 1


def _tonylins(net):
    names, after = _flat_blocks(net)
    last = {"last": Name(f"features.{after}.0", f"features.{after}.1")}
    return names | last | {"logits": Name("classifier.1", rank=2)}


def _tonylins_later(net):
    return _tonylins(net) | {"logits": Name("classifier", rank=2)}


def _d_li14(net):
    names, _ = _flat_blocks(net)
    return names | {"last": Name("conv.0", "conv.1"), "logits": Name("classifier", rank=2)}


def _kuangliu(net):
    names = {"stem": Name("conv1", "bn1"), "logits": Name("linear", rank=2)}
    for i, block in enumerate(_blocks(net)):
        for number, part in enumerate(block.children, 1):
            names[f"{block.name}.{part.name}"] = Name(f"layers.{i}.conv{number}", f"layers.{i}.bn{number}")
    return names


def _pair(prefix):
    return Name(f"{prefix}.convolution", f"{prefix}.normalization")


def _transformers_v1(net):
    names = {"stem": _pair("mobilenet_v1.conv_stem"), "logits": Name("classifier", rank=2)}
    for i, block in enumerate(_blocks(net)):
        for number, part in enumerate(block.children):
            names[f"{block.name}.{part.name}"] = _pair(f"mobilenet_v1.layer.{2 * i + number}")
    return names


def _transformers_v2(net):
    words = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
    names = {"stem": _pair("mobilenet_v2.conv_stem.first_conv"), "last": _pair("mobilenet_v2.conv_1x1")}
    for i, block in enumerate(_blocks(net)):
        prefix = f"mobilenet_v2.layer.{i - 1}" if i else "mobilenet_v2.conv_stem"
        for part in block.children:
            names[f"{block.name}.{part.name}"] = _pair(f"{prefix}.{words[part.name]}")
    return names | {"logits": Name("classifier", rank=2)}


LAYOUTS = {
    "tonylins": {"mobilenet_v2": _tonylins},
    "tonylins, later": {"mobilenet_v2": _tonylins_later},
    "d-li14": {"mobilenet_v2": _d_li14},
    "kuangliu": {"mobilenet_v1": _kuangliu},
    "transformers": {"mobilenet_v1": _transformers_v1, "mobilenet_v2": _transformers_v2},
}
PYTORCH = {"padding": "symmetric"}
TENSORFLOW = {"variant": "keras", "padding": "same", "bn_eps": 1e-3}
SETTINGS = {  # layout: [(keywords of numnet.build, the name of the scaling)], the likeliest first
    "tonylins": [({"variant": v, **PYTORCH}, "imagenet") for v in ("torch", "paddle")],
    "tonylins, later": [({"variant": v, **PYTORCH}, "imagenet") for v in ("torch", "paddle")],
    "d-li14": [({"variant": "torch", **PYTORCH}, "imagenet")],
    "kuangliu": [
        (
            {"variant": "torch", "activation": "relu", "strides": "cifar", "resolution": 32, **PYTORCH},
            "kuangliu",
        )
    ],
    "transformers": [(TENSORFLOW, "keras")],
}


def unknown(names) -> str | None:
    """What is wrong with a file of these names, where it is a net that is known but cannot be built; else None."""
    if any(name.endswith(".shortcut.0.weight") for name in names) and "layers.0.conv3.weight" in names:
        return (
            "kuangliu/pytorch-cifar's MobileNetV2, whose blocks have a convolution on the shortcut where channels change; "
            "numnet builds no such block"
        )
    if "features.4.conv.5.fc.0.weight" in names or "features.1.conv.3.fc.0.weight" in names:
        return (
            "d-li14/mobilenetv3.pytorch's MobileNetV3, which has an activation between pooling and classifier; "
            "numnet builds no such net"
        )
    return None
