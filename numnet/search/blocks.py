"""The blocks of a net as words: two blocks with the same words take the same time.

What a block's time depends on is its input's shape, its layers, and what it is *handed*. In inference every map is finished:
batch norm is in the weights, the activation is applied where the sums are made. In training a block that follows a
convolution is handed the raw sums with a pack of four numbers a channel, and normalises and activates them while it
reads; after an addition it is handed a finished map, which is less work, and its backward pass leaves no sums for the block
before. So a training step has other words than inference:

    16×16×48 pointwise-144-relu depthwise-3-relu pointwise-48 add                         in inference
    raw-relu 16×16×48 pointwise-144-relu depthwise-3-relu pointwise-48 add                in training
"""

from numnet.blocks import Residual
from numnet.blocks.unit import Unit


def words(net, training=False) -> list[str]:
    """The words of each of the net's layers and blocks, in order. The net may be a description."""
    found, handed, wide = [], "finished", "float64 " if net.dtype == "float64" else ""
    for layer in net.layers:
        found.append(wide + (f"{handed} {_words(layer)}" if training else _words(layer)))
        handed = _hands_on(layer)
    return found


def _words(layer) -> str:
    shape = "×".join(map(str, layer.input_shape))
    parts = [_part(child) for child in _steps(layer)]
    return " ".join([shape, *parts, *(["add"] if getattr(layer, "adds", False) else [])])


def _steps(layer):
    """The layer's steps: a block's children in its place, but a squeeze-and-excite is one step."""
    if not layer.children or layer.kind == "squeeze-excite":
        return [layer]
    return [step for child in layer.children for step in _steps(child)]


def _part(layer) -> str:
    if layer.kind == "squeeze-excite" and layer.children:
        return f"se-{layer.squeezed}"
    word = layer.kind.replace(" ", "-")
    if layer.kind in ("conv", "depthwise"):
        word += f"-{layer.kernel}" + (f"s{layer.stride}" if layer.stride > 1 else "")
    if layer.kind != "depthwise" and layer.output_shape:
        word += f"-{layer.output_shape[-1]}"
    elif getattr(layer, "multiplier", 1) > 1:
        word += f"-times{layer.multiplier}"
    activation = getattr(layer, "activation", "identity")
    return word if activation == "identity" else f"{word}-{activation}"


def _hands_on(layer) -> str:
    """What the next layer is handed in training."""
    if isinstance(layer, Residual) and layer.adds:
        return "finished"
    last = _steps(layer)[-1]
    if isinstance(last, Unit) and not last.finished:
        return "raw" if last.activation == "identity" else f"raw-{last.activation}"
    return "finished"
