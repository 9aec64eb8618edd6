"""Facts of a PyTorch net that are in no tensor, from its names and the files next to it: padding, ε, scaling, resizing.

timm's nets whose names begin with ``tf_`` have TensorFlow's conventions (padding "same", ε 1e-3) and the very same
tensors as those without. So a name is looked for, in this order:

    what the caller says           --published tf_mobilenetv3_large_100
    inside the file                "arch", or "args" with "model", as training scripts save them
    config.json in its folder      "architecture" (timm) or "model_type" (transformers), as published on the Hugging Face hub
    the file's name                tf_mobilenetv3_large_100-427764d5.pth

and timm's ``pretrained_cfg`` (mean, std, crop_pct, interpolation, input_size) wherever it stands. The tables below are from
timm's and transformers' own source.
"""

import json
import re
from math import isfinite

from numnet.errors import NumnetError
from numnet.weights.source import SCALINGS

SHORT = r"(?:mobilenetv1|mobilenetv2|mobilenetv3|mobilenetv4_conv|mnasnet|semnasnet)"
TIMM = re.compile(
    rf"(?<![a-z0-9])((?:tf_)?{SHORT}_[a-z0-9]+(?:_[a-z]*\d{{3}}[a-z]?)?(?:_minimal_\d{{3}})?)", re.IGNORECASE
)
UNIT, HALF, IMAGENET = (SCALINGS[name] for name in ("unit", "keras", "imagenet"))
TENSORFLOW = {"padding": "same", "bn_eps": 1e-3}
CONFIG_LIMIT = 4_000_000  # bytes


class Facts(dict):
    """Keywords of numnet.build under "options"; "scaling", "preset", "classes", "name" and "where"."""


def of_timm(name: str, where: str) -> Facts:
    """What timm's own table says of one of its nets."""
    low = name.lower()
    tensorflow = low.startswith("tf_")
    facts = Facts(options=dict(TENSORFLOW) if tensorflow else {}, name=name, where=where)
    bilinear = tensorflow or "miil" in low
    facts["scaling"] = (
        HALF if tensorflow or low.startswith("mobilenetv1") else UNIT if "miil" in low else IMAGENET
    )
    facts["preset"] = "torchvision" if bilinear else "bicubic/0.875"
    if low.startswith("mobilenetv3_rw"):
        facts["options"]["bn_eps"] = 1e-3
    if low.startswith("mobilenetv1_125"):
        facts["preset"] = "bicubic/0.9"
    if low.startswith(("mobilenetv4_conv_medium", "mobilenetv4_conv_large")):
        facts["preset"] = "bicubic/0.95"
        facts["options"]["resolution"] = 256 if "medium" in low else 384
    if low.startswith("mobilenetv4_conv_small_0"):
        facts["scaling"] = HALF
    return facts


def name_in(text) -> str | None:
    """The name of a net of timm's in a text, or None."""
    found = TIMM.search(str(text))
    return found[1] if found else None


def _with_side(found, text) -> Facts:
    """With the side of the images that a tag such as _r256_ in a name tells."""
    side = re.search(r"[._]r(\d{3})(?!\d)", text)
    if side:
        found["options"]["resolution"] = int(side[1])
    return found


def facts(path, published=None, inside=None) -> Facts:
    """What is known of the net in this file. ``inside``: values by dotted name that the file has besides its tensors."""
    inside = inside or {}
    config = _config(path.parent / "config.json")
    found = Facts(options={})
    if published is not None:
        if name_in(published) is None:
            raise NumnetError(
                f"published: expected the name of a net of timm's, such as tf_mobilenetv3_large_100, got {published!r}"
            )
        found = _with_side(of_timm(published, "as you say"), published)
    else:
        own = inside.get("arch") or inside.get("args.model") or inside.get("hyper_parameters.model")
        theirs = config.get("architecture") or (config.get("pretrained_cfg") or {}).get("architecture")
        for text, where in (
            (own, "as the file says"),
            (theirs, "as config.json says"),
            (path.name, "by its file name"),
        ):
            if isinstance(text, str) and name_in(text):
                name = name_in(text)
                more = text[text.find(name) :] if where != "by its file name" else path.name
                found = _with_side(of_timm(name + ("_miil" if "miil" in more.lower() else ""), where), more)
                found["name"] = name
                break
        if str(config.get("model_type", "")).startswith("mobilenet_v"):
            found = _of_transformers(config, path)
    if published is None:
        _take_settings(
            found, config.get("pretrained_cfg") if isinstance(config.get("pretrained_cfg"), dict) else config
        )
        args = {key.removeprefix("args."): value for key, value in inside.items() if key.startswith("args.")}
        _take_settings(found, args)
        names = config.get("label_names")
        if isinstance(names, list):
            found["classes"] = [str(each) for each in names]
    own_classes = _classes(inside)
    if own_classes:
        found["classes"] = own_classes
    eps = {value for key, value in inside.items() if key.endswith(".eps") and isinstance(value, float)}
    if len(eps) == 1:  # of a module that was saved whole
        found["options"]["bn_eps"] = eps.pop()
    kinds = {str(value).rpartition(".")[2] for key, value in inside.items() if key.endswith(".@class")}
    if "Conv2dSame" in kinds:
        found["options"]["padding"] = "same"
    if kinds:
        found.setdefault("name", "a module saved whole")
    return found


def _of_transformers(config, path) -> Facts:
    """MobileNetV1 and V2 of transformers: config.json has all, and what it does not say is the class's default."""
    options = {
        "padding": "same" if config.get("tf_padding", True) else "symmetric",
        "bn_eps": float(config.get("layer_norm_eps", 1e-3)),
    }
    if config.get("hidden_act", "relu6") in ("relu", "relu6"):
        options["activation"] = config.get("hidden_act", "relu6")
    if isinstance(config.get("image_size"), int):
        options["resolution"] = config["image_size"]
    found = Facts(options=options, name=config["model_type"], where="as config.json says", scaling=HALF)
    found["preset"] = "torchvision"
    labels = config.get("id2label")
    if isinstance(labels, dict) and all(str(i) in labels for i in range(len(labels))):
        found["classes"] = [str(labels[str(i)]) for i in range(len(labels))]
    reader = _config(path.parent / "preprocessor_config.json")
    mean, std = reader.get("image_mean"), reader.get("image_std")
    if _three(mean) and _three(std, above=0):
        found["scaling"] = {"mean": [float(v) for v in mean], "std": [float(v) for v in std]}
    return found


def _take_settings(found, settings):
    """timm's words for how images become inputs, in a configuration or in a script's arguments."""
    if not isinstance(settings, dict):
        return
    mean, std = settings.get("mean"), settings.get("std")
    if _three(mean) and _three(std, above=0):
        found["scaling"] = {"mean": [float(v) for v in mean], "std": [float(v) for v in std]}
    size = settings.get("input_size")
    side = size[-1] if isinstance(size, (list, tuple)) and len(size) == 3 else settings.get("img_size")
    side = side or settings.get("val_crop_size")
    if isinstance(side, int) and not isinstance(side, bool) and 0 < side <= 4096:
        found["options"]["resolution"] = side
    eps = settings.get("bn_eps")
    if isinstance(eps, float) and 0 < eps < 1:
        found["options"]["bn_eps"] = eps
    if settings.get("bn_tf") is True and eps is None:
        found["options"]["bn_eps"] = 1e-3
    crop, way = settings.get("crop_pct"), settings.get("interpolation")
    before = found.get("preset") or "torchvision"
    before = "bilinear/0.875" if before == "torchvision" else before
    old_way, _, old_crop = before.partition("/")
    way = way if way in ("bilinear", "bicubic") else old_way
    crop = crop if isinstance(crop, (int, float)) and 0 < crop <= 1 else float(old_crop)
    if settings.get("crop_pct") or settings.get("interpolation"):
        found["preset"] = "torchvision" if (way, crop) == ("bilinear", 0.875) else f"{way}/{crop:g}"


def _three(values, above=None):
    return (
        isinstance(values, (list, tuple))
        and len(values) == 3
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) and isfinite(v) for v in values)
        and (above is None or min(values) > above)
    )


def _classes(inside):
    """Names of the classes that a script saved with the weights, or None."""
    for key, value in inside.items():
        leaf = key.rpartition(".")[2]
        if leaf in ("classes", "class_names", "label_names", "labels") and isinstance(value, (list, tuple)):
            if value and all(isinstance(each, str) for each in value):
                return list(value)
        if (
            leaf == "class_to_idx"
            and isinstance(value, dict)
            and sorted(value.values()) == list(range(len(value)))
        ):
            return [str(name) for name in sorted(value, key=value.get)]
    return None


def _config(path) -> dict:
    try:
        if path.stat().st_size > CONFIG_LIMIT:
            return {}
        document = json.loads(path.read_text(encoding="utf-8"))
        return document if isinstance(document, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}
