"""A file of another framework, the nets that it may hold, and the choice between them.

Nothing here knows a framework: each of ``keras``, ``torch`` and ``paddle`` has ``read(path)``, which gives a
``Source``, ``candidates()``, the nets that its files may hold, and ``layout_slots(net, layout)``. The model is
recognised by the names of the tensors, the width and the number of classes by their shapes.
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

from numnet.errors import NumnetError
from numnet.models import build, describe
from numnet.models.parts import with_channels, with_head
from numnet.weights import heads
from numnet.weights.slots import fill, misfits, refuse

SCALINGS = {  # of x/255: what published nets were trained with
    "imagenet": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    "keras": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},  # x/127.5 − 1
    "unit": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
    "kuangliu": {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.2010]},
    "caffe": {"mean": [123.68 / 255, 116.779 / 255, 103.939 / 255], "std": [1 / 255, 1 / 255, 1 / 255]},
}
# Published widths, tried before those that the shapes suggest: rounding to multiples of 8 makes several fit.
WIDTHS = (1.0, 0.75, 0.5, 0.25, 0.35, 1.25, 1.3, 1.4, 1.5, 2.0)
CLOSEST = 4  # nets that fit best, of which one may fit up to the pooling
FIXED = ("vgg16", "googlenet")  # have no width
UNTOUCHED = ("cifar10", "shapes")  # data sets whose images are taken as they are


class Candidate(NamedTuple):
    """A net that a file may hold: the names it would have there, and what its framework published it with."""

    layout: str
    model: str
    options: dict  # keywords of numnet.build
    scaling: str  # in SCALINGS
    bgr: bool = False  # its input is blue, green, red


class Source(NamedTuple):
    """A file that was read: its tensors, and what else it says of its net."""

    framework: str
    path: Path
    tensors: dict
    stated: dict = {}  # keywords of numnet.build that win over the published ones
    config: dict | None = None  # all of them, where numnet wrote the file
    scaling: dict | None = None  # of its input, where the file says it
    class_names: list | None = None
    preset: str | None = None  # how images are brought to the resolution, a preset of numnet.data
    background: str | None = None  # the colour behind transparent pixels, where numnet wrote the file
    digest: str | None = None  # of the images that it was trained on, likewise
    notes: list = []  # lines for the user: what was chosen, assumed, left out
    # Kinds of layers that stand before a head of one's own, where the file says them
    pools: frozenset = frozenset()
    dense: tuple = ()  # names of the activations of its dense layers, in order, where the file says them
    question: tuple | None = None  # (keywords, line): said where the caller names none of these keywords


def match(framework, source, model=None, width=None, options=None):
    """(net with the file's weights, the Candidate that fits, untrained layers, lines for the user).

    Raises NumnetError for a file that fits none.
    """
    given = {**(options or {}), **({} if width is None else {"width": width})}
    wanted = {name: given.pop(name) for name in ("classes", "channels") if name in given}
    head = given.get("head")
    net, candidate, untrained, notes = _match(framework, source, model, given, wanted.get("classes"))
    # A caller's head that is not the file's is new; rows may be tuples.
    if head is not None and json.loads(json.dumps(head)) != net.config.get("head", []):
        net = with_head(net, net.classes, head=head)
        untrained, notes, net.notes = net.document["untrained"], [*notes, *net.notes], []
    for name, change in (("channels", with_channels), ("classes", with_head)):
        own = net.input_shape[2] if name == "channels" else net.classes
        if wanted.get(name, own) != own:
            net = change(net, wanted[name])
            untrained = net.document.get("untrained") or ([] if name == "classes" else untrained)
            notes = [*notes, *net.notes]
            net.notes = []
    return net, candidate, untrained, notes


def _match(framework, source, model, given, classes):
    head = {"head": given.pop("head")} if "head" in given else {}
    likely = _by_names(framework, source, model, given)
    tried = []
    for candidate in likely:
        for keywords in _settings(framework, candidate, source, given):
            net = describe(candidate.model, **keywords)
            wrong = misfits(framework.layout_slots(net, candidate.layout), source.tensors)
            tried.append((len(wrong), len(tried), wrong, net, candidate, keywords))
            if not wrong:
                return _built(framework, source, net, candidate), candidate, [], []
    tried.sort()
    bare = None if classes else _without_classifier(framework, source, tried)
    if bare is not None and classes == 0:
        return *bare, [], []
    for *_, candidate, keywords in tried[:CLOSEST]:
        found = heads.match_body(framework, source, candidate, {**keywords, **head})
        if found is not None:
            net, untrained, notes = found
            turn(net, candidate)
            return net, candidate, untrained, notes
    bare = bare or _without_classifier(framework, source, tried)
    if bare is not None:
        net = with_head(bare[0], classes or 1000)
        notes = ["a net without its classifier: logits starts anew; classes=0 leaves it out"]
        return net, bare[1], net.document["untrained"], notes
    best = tried[0][3], tried[0][2]
    refuse(source.path, *best)


def _without_classifier(framework, source, tried):
    """(net, candidate) if the file has all of a net but its classifier (timm's ``num_classes=0``); else None."""
    for *_, candidate, keywords in tried[:CLOSEST]:
        net = describe(candidate.model, **{**keywords, "classes": 0})
        if not misfits(framework.layout_slots(net, candidate.layout), source.tensors):
            return _built(framework, source, net, candidate), candidate
    return None


def _by_names(framework, source, model, given) -> list:
    """The candidates whose names differ least from those of the file."""
    known = list(framework.candidates())
    names = ", ".join(dict.fromkeys(candidate.model for candidate in known))
    if source.config is not None:
        model = model or source.config["model"]
        known = [c._replace(options=source.config) for c in known]
    if model is not None:
        known = [candidate for candidate in known if candidate.model == model]
    if not known:
        raise NumnetError(f"model: {source.framework} has no {model!r}, expected one of {names}")
    strangers, possible = [], []
    for candidate in known:
        keywords = _without(candidate.options, "model", "classes", "resolution")
        if "width" in given and candidate.model not in FIXED:
            keywords["width"] = given["width"]
        net = describe(candidate.model, **keywords)
        try:
            keys = {slot.key for slot in framework.layout_slots(net, candidate.layout)}
        except NumnetError:  # a net of one's own blocks, which this layout has no names for
            continue
        possible.append(candidate)
        strangers.append(len(keys.symmetric_difference(source.tensors)))
    if not possible:
        raise NumnetError(
            f"{source.path}: {source.framework} has no names for this {model} with custom blocks"
        )
    fewest = min(strangers)
    if model is None and 2 * fewest > len(source.tensors):
        some = ", ".join(list(source.tensors)[:3]) or "none at all"
        raise NumnetError(
            f"{source.path}: its tensors ({some}{', …' if len(source.tensors) > 3 else ''}) are those of no net that "
            f"numnet knows from {source.framework}; expected one of {names}"
        )
    return [candidate for candidate, count in zip(possible, strangers) if count == fewest]


def _settings(framework, candidate, source, given):
    """Keywords of numnet.build to try for a candidate, the likeliest first."""
    model, options = candidate.model, _without(candidate.options, "model", "dtype", "seed")
    base = {slot.own: slot for slot in framework.layout_slots(describe(model, **options), candidate.layout)}

    def length(own):
        """Of a vector in the file, or None."""
        array = source.tensors.get(base[own].key) if own in base else None
        return len(array) if array is not None and array.ndim == 1 and len(array) else None

    found = {}
    first = next(iter(base.values()))
    image = source.tensors.get(first.key)
    if image is not None and image.ndim == 4 and first.order is not None:
        channels = image.shape[first.order.index(2)]
        if channels != 3:
            found["channels"] = channels
    if length("params/logits.bias"):
        found["classes"] = length("params/logits.bias")
    if model == "mobilenet_v1":
        stem, wide = length("params/stem.bn.gamma"), length("params/block1.depthwise.bn.gamma")
        if stem and wide and wide > stem and wide % stem == 0:
            found["depth_multiplier"] = wide // stem
    if model == "vgg16" and length("params/hidden1.bias"):  # the map that is flattened tells the resolution
        weight = source.tensors.get(base["params/hidden1.weight"].key)
        pixels = 0 if weight is None else weight.size // length("params/hidden1.bias") // 512
        if pixels and math.isqrt(pixels) ** 2 == pixels:
            found["resolution"] = 32 * math.isqrt(pixels)
    settled = {**options, **source.stated, **found, **given}
    if model in FIXED or source.config is not None or "width" in given:
        yield settled
        return
    ratios = [length(own) / slot.shape[0] for own, slot in base.items() if "gamma" in own and length(own)]
    suggested = [
        width for ratio in ratios for width in (round(ratio, 2), round(ratio, 3), ratio) if 0 < width <= 8
    ]
    for width in dict.fromkeys((*WIDTHS, *suggested)):
        yield {**settled, "width": width}


def _without(keywords, *names):
    return {key: value for key, value in keywords.items() if key not in names}


def _built(framework, source, description, candidate):
    """The described net with arrays and the file's weights; ε stands in its configuration whatever the variant's is."""
    keywords = _without(description.config, "model")
    eps = {layer.norm.eps for _, layer in description.walk() if getattr(layer, "norm", None)}
    if len(eps) == 1:
        keywords["bn_eps"] = eps.pop()
    net = build(candidate.model, **keywords)
    fill(net, framework.layout_slots(net, candidate.layout), source.tensors, source.path)
    turn(net, candidate)
    return net


def preset_of(document) -> str | None:
    """How a net's photographs are resized, by the words of its checkpoint; None if they say nothing of it.

    As `numnet quantise` was told, else as its training read them, else as it was published.
    """
    told = (document.get("made") or {}).get("preset")
    if told is None and document.get("dataset") in UNTOUCHED:
        return "stretch"
    return told or (document.get("recipe") or {}).get("preset") or document.get("preset")


def background_of(document) -> str | None:
    """The colour behind a net's transparent pixels, by the same words in the same order; None if they say nothing of it."""
    parts = (document.get("made") or {}, document.get("recipe") or {}, document)
    return next((part["background"] for part in parts if part.get("background")), None)


def turn(net, candidate) -> None:
    """The first kernel of a net that wants blue, green, red: its inputs the other way round."""
    if candidate.bgr:
        kernel = next(iter(net.params.values()))
        kernel[...] = kernel[:, :, ::-1].copy()
