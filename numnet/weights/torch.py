"""PyTorch: torchvision's and timm's names, and those of widely used reimplementations; state dicts of every wrapping.

``.safetensors``, or what ``torch.save`` writes (``.pth``, ``.pth.tar``, ``.ckpt`` …), which ``pth`` reads without PyTorch;
``states`` finds the net's tensors among all that a script saves. Neither ε nor padding nor the input's scaling is
a tensor: ``published`` takes them from names and configurations, else the table at the end has what was published:

    torchvision   V2, V3, MnasNet-B1, VGG16, GoogLeNet     timm   V1, V2, V3, V4, MnasNet-A1 and -B1, VGG16

timm's nets whose names begin with ``tf_`` have TensorFlow's conventions instead and no tensor that says so. V3 at widths
other than 1 differs between the two (the expanded channels, see ``numnet.models.mobilenet_v3``): timm's are those of the
variant "keras". GoogLeNet's two heads for training ("aux1", "aux2") have no counterpart here and are left out.
"""

import json
import os
from functools import cache
from itertools import groupby

import numpy as np

from numnet import checkpoint
from numnet.errors import NumnetError
from numnet.models import describe, mnasnet, mobilenet_v1, mobilenet_v2, mobilenet_v3, mobilenet_v4
from numnet.net import Net
from numnet.weights import heads, pth, published, reimplementations, states
from numnet.weights.slots import Name, Style, slots
from numnet.weights.source import Candidate, Source, background_of, preset_of

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
STYLE = Style(
    words={
        "weight": "weight",
        "bias": "bias",
        "bn.gamma": "weight",
        "bn.beta": "bias",
        "bn.mean": "running_mean",
        "bn.variance": "running_var",
    },
    separator=".",
    conv=(3, 2, 0, 1),
    dense=(3, 2, 0, 1),
)
COUNTER = ".num_batches_tracked"
# In the metadata of a file that export_torch wrote
CONFIG, SCALING, CLASSES, PRESET = "numnet_config", "numnet_input", "numnet_classes", "numnet_preset"
BACKGROUND, DIGEST = "numnet_background", "numnet_digest"
EPSILON = "batch norm's ε"
FACTS = {  # of a layer or block: what no tensor says
    "strides": lambda layer: getattr(layer, "stride", None),
    "padding": lambda layer: getattr(layer, "pads", None),
    EPSILON: lambda layer: getattr(getattr(layer, "norm", None), "eps", 0.0),
    "activations": lambda layer: getattr(layer, "code", None),
    "skips": lambda layer: getattr(layer, "adds", False),
}
# Options that stand behind them; of the other ones the tensors tell.
UNTOLD = ("model", "variant", "padding", "bn_eps", "strides", "activation", "bottleneck_activation", "skip")


# ------------------------------------------------------------------------------------------- torchvision's names


def _units(path, units, prefix, start=0):
    """(names of units in a Sequential of bare convolutions, batch norms and activations, the next free number)."""
    names, at = {}, start
    for unit in units:
        names[f"{path}{unit.name}"] = Name(f"{prefix}{at}", f"{prefix}{at + 1}")
        at += 1 + (unit.norm is not None) + (unit.activation != "identity")
    return names, at


def _blocks(net):
    return [layer for layer in net.layers if layer.name.startswith("block")]


def _mobilenet_v2(net):
    names, number = {"stem": Name("features.0.0", "features.0.1")}, 0
    for number, block in enumerate(_blocks(net), 1):
        for i, part in enumerate(block.children):
            unit = f"features.{number}.conv.{i}"
            if part.name == "project":
                names[f"{block.name}.project"] = Name(unit, f"features.{number}.conv.{i + 1}")
            else:
                names[f"{block.name}.{part.name}"] = Name(f"{unit}.0", f"{unit}.1")
    names["last"] = Name(f"features.{number + 1}.0", f"features.{number + 1}.1")
    return {**names, "logits": Name("classifier.1", rank=2)}


def _mobilenet_v3(net):
    names, number = {"stem": Name("features.0.0", "features.0.1")}, 0
    for number, block in enumerate(_blocks(net), 1):
        for i, part in enumerate(block.children):
            prefix, path = f"features.{number}.block.{i}", f"{block.name}.{part.name}"
            names[path] = Name(f"{prefix}.0", f"{prefix}.1")
            names |= {f"{path}.reduce": Name(f"{prefix}.fc1"), f"{path}.expand": Name(f"{prefix}.fc2")}
    names["last"] = Name(f"features.{number + 1}.0", f"features.{number + 1}.1")
    return {**names, "wide": Name("classifier.0", rank=2), "logits": Name("classifier.3", rank=2)}


def _mnasnet(net):
    """One Sequential: stem, the separable block and the last convolution bare in it, each stack of blocks a member."""
    blocks, layers = _blocks(net), {layer.name: layer for layer in net.layers}
    names, at = _units("", [layers["stem"]], "layers.")
    more, at = _units("block1.", blocks[0].children, "layers.", at)
    names |= more
    rest = iter(blocks[1:])
    rows = mnasnet.own_table(net.config.get("rows")) or mnasnet.B1
    if (rows[0].t, rows[0].n) != (1, 1):
        raise NumnetError(
            "torchvision's MnasNet begins with one separable block (t = 1, n = 1), this net's rows do not"
        )
    for row in rows[1:]:
        for i in range(row.n):
            block = next(rest)
            names |= _units(f"{block.name}.", block.children, f"layers.{at}.{i}.layers.")[0]
        at += 1
    if "last" in layers:
        names |= _units("", [layers["last"]], "layers.", at)[0]
    return {**names, "logits": Name("classifier.1", rank=2)}


def _vgg_features(net):
    names, at = {}, 0
    for layer in net.layers:
        if layer.kind == "conv":
            names[layer.name] = Name(f"features.{at}")
            at += 2
        elif layer.kind == "max pool":
            at += 1
    return names


def _vgg16(net):
    head = {"hidden1": "classifier.0", "hidden2": "classifier.3", "logits": "classifier.6"}
    return _vgg_features(net) | {path: Name(name, rank=2) for path, name in head.items()}


def _googlenet(net):
    names = {"logits": Name("fc", rank=2)}
    stem = {"stem": "conv1", "conv2": "conv2", "conv3": "conv3"}
    inner = {"reduce": "0", "branch2.conv": "1", "branch3.conv": "1", "branch4.conv": "1"}
    for path, layer in net.walk():
        if not layer.specs or path == "logits":
            continue
        prefix = stem.get(path)
        if prefix is None:
            module, branch, *member = path.split(".")
            prefix = f"inception{module.removeprefix('module')}.{branch}"
            if member:
                prefix += "." + (inner.get(member[0]) or inner[f"{branch}.{member[0]}"])
        names[path] = Name(f"{prefix}.conv", f"{prefix}.bn")
    return names


# ------------------------------------------------------------------------------------------- timm's names

SEPARABLE = {
    "depthwise": ("conv_dw", "bn1"),
    "pointwise": ("conv_pw", "bn2"),
    "project": ("conv_pw", "bn2"),
    "conv": ("conv", "bn1"),
}
INVERTED = {"expand": ("conv_pw", "bn1"), "depthwise": ("conv_dw", "bn2"), "project": ("conv_pwl", "bn3")}


def _timm(net):
    names, blocks = {"stem": Name("conv_stem", "bn1")}, iter(_blocks(net))
    stages = _stages(net.config)
    for stage, length in enumerate(stages):
        for i in range(length):
            block, prefix = next(blocks), f"blocks.{stage}.{i}."
            parts = [part.name for part in block.children]
            if not parts:  # V1 of standard convolutions
                names[block.name] = Name(prefix + "conv", prefix + "bn1")
            for part in parts:
                path = f"{block.name}.{part}"
                if part == "se":
                    names[f"{path}.reduce"] = Name(f"{prefix}se.conv_reduce")
                    names[f"{path}.expand"] = Name(f"{prefix}se.conv_expand")
                else:
                    conv, norm = (INVERTED if "expand" in parts else SEPARABLE)[part]
                    names[path] = Name(prefix + conv, prefix + norm)
    names |= {"last": Name("conv_head", "bn2"), "logits": Name("classifier", rank=2)}
    if any(layer.name == "wide" for layer in net.layers):
        last = f"blocks.{len(stages)}.0."
        names |= {"last": Name(last + "conv", last + "bn1"), "wide": Name("conv_head")}
    return names


UNIVERSAL = {
    "start": ("dw_start.conv", "dw_start.bn"),
    "expand": ("pw_exp.conv", "pw_exp.bn"),
    "depthwise": ("dw_mid.conv", "dw_mid.bn"),
    "project": ("pw_proj.conv", "pw_proj.bn"),
}
FUSED = {"fused": ("conv_exp", "bn1"), "project": ("conv_pwl", "bn2")}


def _timm_v4(net):
    names, blocks, stages = {"stem": Name("conv_stem", "bn1")}, iter(_blocks(net)), _stages(net.config)
    for stage, length in enumerate(stages):
        at = 0
        for block in (next(blocks) for _ in range(length)):
            plain = block.kind == "sequence"  # timm has its two convolutions as two blocks
            parts = UNIVERSAL if block.kind == "universal bottleneck" else FUSED
            for i, part in enumerate(block.children):
                prefix = f"blocks.{stage}.{at + i * plain}."
                conv, norm = ("conv", "bn1") if plain else parts[part.name]
                names[f"{block.name}.{part.name}"] = Name(prefix + conv, prefix + norm)
            at += 1 + plain
    last = f"blocks.{len(stages)}.0."
    names |= {"last": Name(last + "conv", last + "bn1"), "wide": Name("conv_head", "norm_head")}
    return {**names, "logits": Name("classifier", rank=2)}


def _stages(config):
    """Lengths of timm's stages: blocks of the same output channels in the paper's table, or in the net's own."""
    own = config.get("rows")
    tables = {
        "mobilenet_v1": lambda: mobilenet_v1.table(own, config.get("shallow")),
        "mobilenet_v2": lambda: mobilenet_v2.table(own),
        **{
            f"mobilenet_v3_{size}{end}": lambda size=size: mobilenet_v3.table(size, own)
            for size in ("large", "small")
            for end in ("", "_minimalistic")
        },
        **{
            f"mobilenet_v4_{size}": lambda size=size: mobilenet_v4.table(size, own)
            for size in mobilenet_v4.ROWS
        },
        "mnasnet_a1": lambda: mnasnet.own_table(own) or mnasnet.A1,
        "mnasnet_b1": lambda: mnasnet.own_table(own) or mnasnet.B1,
    }
    rows = tables[config["model"]]()
    return [sum(getattr(row, "n", 1) for row in same) for _, same in groupby(rows, lambda row: row.c)]


def _timm_vgg16(net):
    head = {
        "hidden1": Name("pre_logits.fc1"),
        "hidden2": Name("pre_logits.fc2"),
        "logits": Name("head.fc", rank=2),
    }
    return _vgg_features(net) | head


V3 = ("mobilenet_v3_large", "mobilenet_v3_small")
MINIMALISTIC = tuple(f"{model}_minimalistic" for model in V3)
LAYOUTS = {
    "torchvision": {
        "mobilenet_v2": _mobilenet_v2,
        **dict.fromkeys(V3, _mobilenet_v3),
        **dict.fromkeys(MINIMALISTIC, _mobilenet_v3),
        "mnasnet_b1": _mnasnet,
        "mnasnet_keras": _mnasnet,  # has no other PyTorch form: torchvision's names for B1, its nearest relative
        "vgg16": _vgg16,
        "googlenet": _googlenet,
    },
    "timm": {
        "mobilenet_v1": _timm,
        "mobilenet_v2": _timm,
        **dict.fromkeys(V3, _timm),
        **dict.fromkeys(MINIMALISTIC, _timm),
        **{f"mobilenet_v4_{size}": _timm_v4 for size in mobilenet_v4.ROWS},
        "mnasnet_a1": _timm,
        "mnasnet_b1": _timm,
        "vgg16": _timm_vgg16,
    },
}


READ = {**LAYOUTS, **reimplementations.LAYOUTS}


def layout_slots(net, layout: str):
    """The net's slots in one of READ."""
    return slots(net, READ[layout][net.config["model"]](net), STYLE)


@cache
def expected() -> list[dict]:
    """The names of every net and layout that is read, each in the net's order."""
    tables = []
    for layout, models in READ.items():
        variants = ("torch", "paddle") if layout not in LAYOUTS else ("torch",)
        for model, variant in ((model, variant) for model in models for variant in variants):
            net = describe(model, variant="keras" if model == "mnasnet_keras" else variant)
            tables.append({slot.key: slot.shape for slot in layout_slots(net, layout)})
    return tables


# ------------------------------------------------------------------------------------------- what was published

# Torchvision's; else 0.9
MOMENTUM = {"mobilenet_v3_large": 0.99, "mobilenet_v3_small": 0.99, "mnasnet_b1": 0.9997}


def candidates():
    """The nets that a state dict may be, the framework's own conventions first."""
    for layout, models in LAYOUTS.items():
        for model in models:
            options = {"padding": "symmetric"}
            # GoogLeNet turns one into the other inside
            scaling = "keras" if model == "googlenet" else "imagenet"
            if model == "mnasnet_keras":
                options, scaling = {}, "unit"
            elif layout == "torchvision" and model in MOMENTUM:
                options["bn_momentum"] = MOMENTUM[model]
            elif layout == "timm" and model in V3:
                options["bn_eps"] = 1e-5
            elif model in MINIMALISTIC:  # timm has them as tf_ nets only
                options, scaling = dict(published.TENSORFLOW), "keras"
            if layout == "timm" and model == "mobilenet_v1":
                scaling = "keras"
            for variant in ("keras",) if model == "mnasnet_keras" else ("torch", "keras", "paddle"):
                yield Candidate(layout, model, {"variant": variant, **options}, scaling)
    for layout, settings in reimplementations.SETTINGS.items():
        for model in reimplementations.LAYOUTS[layout]:
            for options, scaling in settings:
                yield Candidate(layout, model, options, scaling)


# ------------------------------------------------------------------------------------------- files


def read(path, take=None, name=None) -> Source:
    """The tensors of one net and what the file says of it.

    ``take``: which of several sets of weights, see ``states.choose``; ``name``: the net's published one. Raises NumnetError.
    """
    metadata, others = {}, {}
    if _is_safetensors(path):
        tensors, metadata = checkpoint.read_safetensors(path)
        if checkpoint.KEY in metadata:
            raise NumnetError(
                f"{path}: a checkpoint of numnet's own, which needs no import: numnet.load reads it"
            )
    else:
        tensors, others = states.flat(_saved(path))
        if not tensors:
            raise NumnetError(f"{path}: holds no state dict (a dictionary of tensors)")
    chosen = states.choose(path, tensors, expected(), take)
    tensors, notes = chosen.tensors, list(chosen.notes)
    strange = reimplementations.unknown(tensors)
    if strange:
        raise NumnetError(f"{path}: the tensors of {strange}")
    if "inception3a.branch1.conv.weight" in tensors:
        tensors = {key: array for key, array in tensors.items() if not key.startswith(("aux1.", "aux2."))}
    config, scaling = _own(metadata, CONFIG, "model"), _own(metadata, SCALING, "mean", "std")
    facts, question = published.Facts(options={}), None
    if config is None:
        facts = published.facts(path, name, others)
        question = _settle(path, tensors, facts, notes)
    return Source(
        "torch", path, tensors, stated=facts["options"], config=config, scaling=scaling or facts.get("scaling"),
        class_names=_names(metadata) or facts.get("classes"), preset=metadata.get(PRESET) or facts.get("preset"),
        background=metadata.get(BACKGROUND), digest=metadata.get(DIGEST), notes=notes, question=question,
    )  # fmt: skip


def _settle(path, tensors, facts, notes):
    """Keep of the facts what these tensors are; the question that is left, for V3 under timm's names alone.

    timm's names say nothing of tensors under others' names, and mobilenetv3 and tf_mobilenetv3 have the same tensors.
    """
    name = facts.get("name")
    if "conv_stem.weight" not in tensors and facts.get("where") == "as you say":
        raise NumnetError(
            f"published: {path} has not the tensors of timm's {name}; expected no name beside it"
        )
    if "conv_stem.weight" not in tensors and published.name_in(name or ""):
        facts["options"] = {key: value for key, value in facts["options"].items() if key == "resolution"}
        facts.pop("scaling", None), facts.pop("preset", None)
        name = None
    elif "conv_stem.weight" in tensors and "preset" not in facts:
        facts["preset"] = "bicubic/0.875"
    if name is not None:
        notes.append(f"settings of {name}, {facts['where']}" if "where" in facts else f"settings of {name}")
        return None
    small = "blocks.1.0.conv_pw.weight" in tensors and "conv_head.bias" in tensors
    if not small or not any(".se." in key for key in tensors):
        return None
    return (
        ("padding", "bn_eps"),
        "nothing says whether this is mobilenetv3_… or tf_mobilenetv3_… of timm, whose tensors are alike: took mobilenetv3_… "
        "(padding symmetric, ε 1e-5); the other is `numnet import --published {name}`",
    )


def dense_layers(source, rest):
    """What is left of a file as dense layers in its order; None if it is not that alone."""
    layers = {}
    for key, array in (
        sorted(rest.items(), key=lambda item: _by_numbers(item[0])) if _is_sorted(rest) else rest.items()
    ):
        name, _, leaf = key.rpartition(".")
        layers.setdefault(name, {})[leaf] = array
    if not all(
        set(each) <= {"weight", "bias"} and each.get("weight", _NONE).ndim == 2 for each in layers.values()
    ):
        return None
    return [heads.DenseLayer(name, each["weight"].T, each.get("bias")) for name, each in layers.items()]


_NONE = np.zeros(0)


def _is_sorted(keys) -> bool:
    """Whether names are in the order of the alphabet, as .safetensors has them, which is no order of layers."""
    return list(keys) == sorted(keys)


def _by_numbers(key):
    """A name for sorting in which classifier.10 comes behind classifier.4."""
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in key.split(".")]


def _own(metadata, key, *needed):
    """A document that export_torch left in the file's metadata, or None."""
    try:
        document = json.loads(metadata[key])
    except (KeyError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and all(name in document for name in needed) else None


def _names(metadata):
    """The names of the classes that export_torch left there, or None."""
    names = (_own(metadata, CLASSES, "names") or {}).get("names")
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _is_safetensors(path):
    """By its contents: a length of 8 bytes, then "{". What is too short or cannot be read goes by its ending."""
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError:
        start = b""
    if start[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05", b"\x80\x03"):
        return False
    return start[8:9] == b"{" or path.suffix.lower() == ".safetensors"


def _saved(path):
    """What torch.save wrote."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NumnetError(f"{path}: cannot be read ({error.strerror or error})") from None
    try:
        return pth.load(content)
    except Exception as error:  # a damaged file may raise anything
        raise NumnetError(f"{path}: cannot be read as tensors alone ({_short(error)})") from None


def _short(error) -> str:
    """The first sentence of an error, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "…"


def export_torch(net: Net, path: str | os.PathLike[str], layout: str | None = None) -> None:
    """Write the net's tensors under torchvision's or timm's names as ``.safetensors``, batch norm's counters included.

    ``layout``: "torchvision", "timm", or None for the first of the two that has this net. Configuration, scaling and the
    names of the classes stand in the file's metadata, so that ``import_file`` makes the very same net of it; PyTorch does
    not look there.
    The names alone say nothing of padding, ε, strides and activations: see ``nearest``. Raises NumnetError for a net that
    the layout does not have.
    """
    from safetensors.numpy import save

    layout, state, tensors = layout_for(net, layout), net.state(), {}
    for slot in layout_slots(net, layout):
        tensors[slot.key] = np.ascontiguousarray(slot.give(state[slot.own]))
        if slot.own.endswith("bn.variance"):
            tensors[slot.key.rpartition(".")[0] + COUNTER] = np.array(net.step, np.int64)
    metadata = {"format": "pt", CONFIG: json.dumps(net.config)}
    if getattr(net, "scaling", None):
        metadata[SCALING] = json.dumps(net.scaling)
    if getattr(net, "class_names", None):
        metadata[CLASSES] = json.dumps({"names": list(net.class_names)})
    document = getattr(net, "document", None) or {}
    texts = {PRESET: preset_of(document), BACKGROUND: background_of(document), DIGEST: document.get("digest")}
    metadata |= {key: text for key, text in texts.items() if text}
    checkpoint.replace(path, save(tensors, metadata=metadata))


def layout_for(net, layout=None) -> str:
    """The layout itself, or the first that has this net for None. Raises NumnetError where there is none."""
    model = (net.config or {}).get("model")
    if model is None:
        raise NumnetError("export: a custom net has no PyTorch counterpart; expected one of numnet.models()")
    known = [name for name, models in LAYOUTS.items() if model in models]
    if not known:
        raise NumnetError(
            f"export: neither torchvision nor timm has a {model}; expected layout numnet (`numnet export --layout numnet`), "
            "or an ONNX file"
        )
    if layout is None:
        layout = known[0]
    if layout not in LAYOUTS:
        raise NumnetError(f"layout: expected one of {', '.join(LAYOUTS)}, got {layout!r}")
    if layout not in known:
        raise NumnetError(f"layout: {layout} has no {model}, expected {' or '.join(known)}")
    return layout


def nearest(net, layout) -> tuple[bool, list[str]]:
    """What the layout's own module computes otherwise than this net, though every tensor fits.

    Returns (whether it is timm's ``tf_`` module that computes most like this net, a text for each thing). timm has V3
    twice, with the same tensors: as PyTorch computes it, and as TensorFlow does, ``tf_`` before its name.
    """
    model = net.config["model"]
    options = next(c.options for c in candidates() if (c.layout, c.model) == (layout, model))
    if layout == "timm" and model in V3 and net.config.get("variant", "keras") == "keras":
        # timm's channels at widths other than 1, with which block1 has no skip at 0.5
        options = {**options, "variant": "keras"}
    found = _departures(net, options)
    if layout == "timm" and model in V3:
        tensorflow = _departures(net, {**options, **published.TENSORFLOW})
        if len(tensorflow) < len(found):
            return True, tensorflow
    return False, found


def _departures(net, options) -> list[str]:
    """The texts of ``nearest`` for a module with these options of ``numnet.build``."""
    model, config = net.config["model"], net.config
    tensors = {key: value for key, value in config.items() if key not in UNTOLD}
    theirs = dict(describe(model, **{**tensors, **options}).walk())
    found = {}
    for name, layer in net.walk():
        for what, value in FACTS.items() if name in theirs else ():  # dropout may be missing there
            here, there = value(layer), value(theirs[name])
            if here != there and None not in (here, there):  # which says nothing of it
                found.setdefault(
                    what, f"{what} ({there:g} there, {here:g} here)" if what == EPSILON else what
                )
    return list(found.values())
