"""The cost of one layer or block, as a formula and as numbers, and compared with others. No net is needed.

    cost.block("conv:7x7x3:128:p0")                  a convolution from 7×7×3 to 128 channels without padding
    cost.blocks(["conv:7x7x3:128:p0", "separable:7x7x3:128:p0"])      the second compared with the first

A block is written KIND:HxWxC:F, the shape of its input and its output channels, and behind that, in any order,

    k3      side of the kernel (3)              p0      padding: pixels on each side, "same" (as if left out) or "symmetric"
    s1      stride (1)                          t6      how many times as wide an inverted residual is inside (6)
    se4     squeeze-and-excite to a part of the inner channels: a quarter

KIND is conv, depthwise (no F), pointwise, separable, inverted, or dense (whose input is C alone). Parameters are those of the
weights: batch norm and biases are left out, as in the sums on paper.
"""

import re

from numnet.blocks import Conv, Depthwise, InvertedResidual, Pointwise, Separable
from numnet.errors import NumnetError
from numnet.layers import Dense

FORM = "KIND:HxWxC:F, like conv:7x7x3:128 or inverted:56x56x24:24:t6:s2"
KINDS = {  # kind: its options besides HxWxC and F
    "conv": ("k", "s", "p"),
    "depthwise": ("k", "s", "p"),
    "pointwise": (),
    "separable": ("k", "s", "p"),
    "inverted": ("k", "s", "p", "t", "se"),
    "dense": (),
}
MOST = 1 << 20  # of any number: what is larger is a slip of the finger
FORMULAS = {  # of a layer's MACs; its letters are those of the glossary
    "conv": ("P·Q·K·K·C·F", "{p}·{q}·{k}·{k}·{c}·{f}"),
    "depthwise": ("P·Q·K·K·C", "{p}·{q}·{k}·{k}·{c}"),
    "pointwise": ("H·W·C·F", "{p}·{q}·{c}·{f}"),
    "dense": ("C·F", "{c}·{f}"),
    "squeeze-excite": ("C·F", "{c}·{f}"),
}


def block(text) -> dict:
    """{block, input_shape, output_shape, macs, params, parts} of a block that is written as the page says.

    parts: a dict each for its layers that multiply, with name, type, output_shape, formula, numbers (the formula with
    numbers put in), macs, params. Raises NumnetError that says what is wrong with the text.
    """
    kind, shape, filters, options = _read(text)
    try:
        layer = _layer(kind, shape, filters, options)
        output = layer.connect(shape)
    except ValueError as error:
        raise NumnetError(f"block {text!r}: {error}") from None
    parts = [
        _part(name, part)
        for name, part in layer.tree(layer.name)
        if part.kind in FORMULAS and "weight" in part.specs
    ]
    return {
        "block": text,
        "input_shape": list(shape),
        "output_shape": list(output),
        "macs": sum(part["macs"] for part in parts),
        "params": sum(part["params"] for part in parts),
        "parts": parts,
    }


def blocks(texts) -> list[dict]:
    """``block`` of each, and in each ``macs_ratio`` and ``params_ratio``: the first's numbers over its own."""
    found = [block(text) for text in texts]
    for each in found:
        for key in ("macs", "params"):
            each[f"{key}_ratio"] = found[0][key] / each[key]
    return found


def _read(text):
    """(kind, input shape, F or None, options) of a block's text."""
    if len(str(text)) > 100:
        raise NumnetError(f"block {str(text)[:30]!r}…: {len(str(text)):,} letters, expected {FORM}")
    kind, *rest = str(text).replace("×", "x").split(":")
    if kind not in KINDS:
        raise NumnetError(f"block {text!r}: expected {FORM}, KIND one of {', '.join(KINDS)}")
    sides = 1 if kind == "dense" else 3
    if not rest or not re.fullmatch(r"[0-9]{1,9}(x[0-9]{1,9})*", rest[0]) or len(rest[0].split("x")) != sides:
        shape = "C" if kind == "dense" else "HxWxC"
        raise NumnetError(
            f"block {text!r}: expected the input's shape {shape} after {kind}, got {rest[0] if rest else ''!r}"
        )
    shape, more = tuple(map(int, rest[0].split("x"))), rest[1:]
    filters = None
    if more and re.fullmatch(r"[0-9]{1,9}", more[0]):
        filters, more = int(more[0]), more[1:]
    if (filters is None) != (kind == "depthwise"):
        expected = (
            "no output channels: a depthwise convolution keeps its own"
            if filters is not None
            else "the output channels F"
        )
        raise NumnetError(f"block {text!r}: expected {expected} after the input's shape")
    options = {}
    for option in more:
        match = re.fullmatch(r"(k|s|p|t|se)([0-9]{1,9}|same|symmetric)", option)
        if not match or match[1] not in KINDS[kind] or (match[1] != "p" and not match[2].isdecimal()):
            takes = ", ".join(f"{name}…" for name in KINDS[kind]) or "none"
            raise NumnetError(f"block {text!r}: unknown option {option!r}; {kind} takes {takes}")
        options[match[1]] = int(match[2]) if match[2].isdecimal() else match[2]
    numbers = [
        *shape,
        *(n for name, n in options.items() if name != "p"),
        *([] if filters is None else [filters]),
    ]
    pads = [n for n in [options.get("p", 0)] if isinstance(n, int)]
    if min(numbers) < 1 or max(*numbers, *pads, 0) > MOST:
        raise NumnetError(f"block {text!r}: expected numbers from 1 (padding: from 0) to {MOST:,}")
    return kind, shape, filters, options


def _layer(kind, shape, filters, options):
    window = {
        "kernel": options.get("k", 3),
        "stride": options.get("s", 1),
        "padding": options.get("p", "same"),
    }
    if kind == "inverted":
        wide = shape[2] * options.get("t", 6)
        squeeze = max(wide // options["se"], 1) if "se" in options else 0
        inner = {"expanded": wide if wide > shape[2] else None, "squeeze": squeeze}
        return InvertedResidual(filters, name=kind, **inner, **window)
    if kind in ("pointwise", "dense"):
        return Pointwise(filters, name=kind) if kind == "pointwise" else Dense(filters, bias=False, name=kind)
    if kind == "depthwise":
        return Depthwise(**window, name=kind)
    return {"conv": Conv, "separable": Separable}[kind](filters, **window, name=kind)


def _part(name, layer):
    """One layer that multiplies."""
    symbols, numbers = FORMULAS[layer.kind]
    output = layer.output_shape
    p, q = output[:2] if len(output) == 3 else (1, 1)
    letters = {"p": p, "q": q, "k": getattr(layer, "kernel", 1), "c": layer.input_shape[-1], "f": output[-1]}
    return {
        "name": name,
        "type": layer.kind,
        "output_shape": list(output),
        "formula": symbols,
        "numbers": numbers.format(**letters),
        "macs": sum(row.cost.macs for row in layer.cost()),
        "params": layer.specs["weight"].size,
    }
