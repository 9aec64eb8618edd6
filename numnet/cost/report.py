"""The whole account of a net, as a JSON-able dict: layer by layer, by type, in sum; and as CSV."""

import csv as csv_writer
import io
from math import prod
from numbers import Integral

from numnet.blocks import Branches, Conv, Depthwise, Pointwise, Residual, Sequence, SqueezeExcite
from numnet.blocks.unit import Unit
from numnet.cost import operations
from numnet.cost.memory import peak_inference, peak_training
from numnet.cost.operations import ACTIVATE, NORMALISE, Operations, of_each, taps_inside
from numnet.cost.table import rows_and_layers
from numnet.cost.tools import tools
from numnet.errors import NumnetError
from numnet.layers import Dense

SUMS = (
    "params",
    "buffers",
    "macs",
    "macs_inside",
    "dx_macs",
    "dw_macs",
    "multiplications",
    "additions",
    "dx_multiplications",
    "dx_additions",
    "dw_multiplications",
    "dw_additions",
    "activation_bytes",
    "bytes_moved",
)


def report(net, batch_size=1) -> dict:
    """All costs of a net or of its description, for a batch of this many images. Allocates no array.

    A line of "layers" has name, type, output_shape (of one image) and the numbers of SUMS:

    params, buffers        trainable numbers, and those kept but not trained
    macs, dx_macs, dw_macs multiply-accumulates of forward and of the two gradients, taps on the padding counted
    macs_inside            forward again, only taps inside the image
    multiplications, additions, and with dx_ and dw_   what the kernels really do (``operations``); forward as in
                           ``net.forward`` for inference, where every reader of a raw map normalises and activates it;
                           dx and dw of convolutions and dense layers alone
    activation_bytes       the map that the layer writes and training keeps
    bytes_moved            maps and weights that forward reads and writes; 0 for what happens in a tile on its way: batch
                           norm and activation
    intensity              operations (2 · MACs) a byte moved

    "types" adds the lines up by type; the sums of all are next to "flops" (multiplications and additions of forward),
    "peak_inference_bytes", "peak_training_bytes" and "tools": what PyTorch's counters print. Raises NumnetError for a batch
    size below 1.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, Integral) or batch_size < 1:
        raise NumnetError(f"batch_size: expected an integer of at least 1, got {batch_size!r}")
    readers = readers_of(net)
    lines = [
        _line(row, layer, batch_size, net.dtype.itemsize, readers.get(id(layer), 0))
        for row, layer in rows_and_layers(net)
    ]
    sums = {key: sum(line[key] for line in lines) for key in SUMS}
    types = {}
    for line in lines:
        of_type = types.setdefault(
            line["type"], {"type": line["type"], "layers": 0, **dict.fromkeys(SUMS, 0)}
        )
        of_type["layers"] += 1
        for key in SUMS:
            of_type[key] += line[key]
    for line in types.values():
        line["intensity"] = _intensity(line)
    return {
        "model": (net.config or {}).get("model"),
        "config": net.config,
        "input_shape": list(net.input_shape),
        "batch_size": batch_size,
        **sums,
        "flops": sums["multiplications"] + sums["additions"],
        "intensity": _intensity(sums),
        "peak_inference_bytes": peak_inference(net, batch_size),
        "peak_training_bytes": peak_training(net, batch_size),
        "tools": tools(net),
        "layers": lines,
        "types": sorted(types.values(), key=lambda line: (-line["macs"], -line["bytes_moved"])),
    }


def csv(reports) -> str:
    """The layers of some reports as CSV with a heading; the first column is the model."""
    text = io.StringIO()
    writer = csv_writer.writer(text, lineterminator="\n")
    writer.writerow(("model", "name", "type", "output_shape", *SUMS, "intensity"))
    for net in reports:
        for line in net["layers"]:
            shape = "x".join(str(n) for n in line["output_shape"])
            numbers = [line[key] for key in SUMS]
            writer.writerow((net["model"], line["name"], line["type"], shape, *numbers, line["intensity"]))
    return text.getvalue()


def readers_of(net) -> dict:
    """For each unit, by id, how often its raw map is normalised and activated in forward: once by each reader."""
    readers = {}
    last = _read(net.layers, None, readers)
    _note(last, readers, 1)
    return readers


def _note(unit, readers, times):
    if unit is not None:
        readers[id(unit)] = readers.get(id(unit), 0) + times


def _read(layers, before, readers):
    """Note who reads ``before``, the unit whose map is pending, or None; return the unit that is pending at the end."""
    for layer in layers:
        if isinstance(layer, Unit):
            _note(before, readers, 1)
            before = None if layer.finished else layer
        elif isinstance(layer, SqueezeExcite):
            _note(before, readers, 2)  # the squeeze, and the scale
            before = None
        elif isinstance(layer, Sequence):
            adds = isinstance(layer, Residual) and layer.adds
            _note(before, readers, int(adds))
            before = _read(layer.children, before, readers)
            if adds:
                _note(before, readers, 1)  # the sum
                before = None
        else:
            _note(before, readers, 1)
            before = None
            if isinstance(layer, Branches):
                for child in layer.children:
                    _note(_read([child], None, readers), readers, 1)
    return before


def _line(row, layer, n, itemsize, readers):
    cost, main = row.cost, row.cost.macs > 0
    three = _three(row, layer, n, readers)
    fused = isinstance(layer, Unit) and not main  # its map is written once, raw, by the convolution
    moved = 0 if fused else (n * (cost.inputs + cost.outputs) + (cost.params if main else 0)) * itemsize
    line = {
        "name": row.name,
        "type": row.type,
        "output_shape": list(row.output_shape),
        "params": cost.params,
        "buffers": cost.buffers,
        "macs": n * cost.macs,
        "macs_inside": n * _inside(row, layer),
        "dx_macs": n * cost.dx_macs,
        "dw_macs": n * cost.dw_macs,
        "activation_bytes": 0 if fused else n * cost.outputs * itemsize,
        "bytes_moved": moved,
    }
    for prefix, operation in zip(("", "dx_", "dw_"), three):
        line[f"{prefix}multiplications"], line[f"{prefix}additions"] = operation
    line["intensity"] = _intensity(line)
    return line


def _intensity(line):
    return round(2 * line["macs"] / line["bytes_moved"], 3) if line["bytes_moved"] else 0.0


def _three(row, layer, n, readers):
    """Operations of a row: forward, dx, dw."""
    three = _linear(row, layer, n)
    size = n * prod(row.output_shape)
    if three is not None:
        # A bias is normalised as by a batch norm that does nothing
        biased = isinstance(layer, Unit) and layer.norm is None
        more = of_each(NORMALISE, size * readers) if biased else Operations()
        return three._replace(forward=three.forward + more)
    if isinstance(layer, Unit):
        return operations.Three(
            of_each(
                NORMALISE if row.type == "batch norm" else ACTIVATE.get(row.type, Operations()),
                size * readers,
            )
        )
    if row.type == "global average":
        return operations.global_average(n, *layer.input_shape)
    if row.type == "average pool":
        (h, w, c), (p, q, _) = layer.input_shape, layer.output_shape
        return operations.average(n, h, w, c, layer.kernel, layer.stride, layer.pads, p, q)
    of_one = {"add": Operations(0, 1), "scale": Operations(1, 0), **ACTIVATE}.get(row.type, Operations())
    return operations.Three(of_each(of_one, size))


def _linear(row, layer, n):
    """Operations of a convolution or a dense layer; None of anything else."""
    if row.cost.macs:
        (h, w, c), pads = (*layer.input_shape, 1, 1)[:3], getattr(layer, "pads", None)
        if isinstance(layer, Conv):
            return operations.conv(
                n, h, w, c, layer.filters, layer.kernel, layer.stride, pads, *layer.output_shape[:2]
            )
        if isinstance(layer, Depthwise):
            m = layer.multiplier
            return operations.depthwise(
                n, h, w, c, m, layer.kernel, layer.stride, pads, *layer.output_shape[:2]
            )
        if isinstance(layer, Pointwise):
            return operations.pointwise(n, h, w, c, layer.filters)
        if isinstance(layer, Dense):
            return operations.dense(n, layer.input_shape[0], layer.filters, layer.bias)
    return None


def _inside(row, layer):
    """Forward MACs of one image without the taps on the padding."""
    if not isinstance(layer, (Conv, Depthwise)) or not row.cost.macs:
        return row.cost.macs
    (h, w, _), (p, q, _) = layer.input_shape, layer.output_shape
    k, s, pads = layer.kernel, layer.stride, layer.pads
    inside = taps_inside(h, k, s, pads[0][0], p) * taps_inside(w, k, s, pads[1][0], q)
    return row.cost.macs // (k * k * p * q) * inside
