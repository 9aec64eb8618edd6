"""Cost: adds up the layers' closed forms and formats them. Allocates no array.

MACs, not FLOPs: one MAC is one multiplication and one addition. Counted as the papers count: convolutions and dense
layers, padding taps included; bias, batch norm, activation and pooling are listed and count no MAC.
"""

from typing import NamedTuple


class NetCost(NamedTuple):
    """Totals of a net for one image, and its rows (name, type, output_shape, cost)."""

    rows: list
    macs: int
    params: int
    buffers: int


def of(net) -> NetCost:
    """The cost of a net or of its description."""
    rows = [row for layer in net.layers for row in _rows(layer, layer.name)]
    totals = [sum(getattr(row.cost, field) for row in rows) for field in ("macs", "params", "buffers")]
    return NetCost(rows, *totals)


def _rows(layer, path):
    """The rows of a layer, those of its children first: a block's own work is what it does with their results."""
    for child in layer.children:
        yield from _rows(child, f"{path}.{child.name}")
    for row in layer.cost():
        yield row._replace(name=f"{path}.{row.name}" if row.name else path)


def summary(net) -> dict:
    """The summary as a JSON-able dict: totals and a list of layers."""
    total = of(net)
    return {
        "model": (net.config or {}).get("model"),
        "input_shape": list(net.input_shape),
        "total_params": total.params + total.buffers,
        "trainable_params": total.params,
        "non_trainable_params": total.buffers,
        "macs": total.macs,
        "layers": [
            {
                "name": row.name,
                "type": row.type,
                "output_shape": list(row.output_shape),
                "params": row.cost.params + row.cost.buffers,
                "macs": row.cost.macs,
            }
            for row in total.rows
        ],
    }


def table(net) -> str:
    """The familiar summary table, with a column of MACs."""
    facts = summary(net)
    lines = [("layer", "type", "output", "parameters", "MACs")]
    for layer in facts["layers"]:
        shape = "×".join(str(n) for n in layer["output_shape"])
        lines.append((layer["name"], layer["type"], shape, f"{layer['params']:,}", f"{layer['macs']:,}"))
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    text = []
    for line in lines:
        cells = [line[i].ljust(widths[i]) if i < 3 else line[i].rjust(widths[i]) for i in range(5)]
        text.append("  ".join(cells).rstrip())
    rule = "─" * max(len(line) for line in text)
    text.insert(1, rule)
    text += [
        rule,
        f"total parameters {facts['total_params']:,} · trainable {facts['trainable_params']:,} · "
        f"non-trainable {facts['non_trainable_params']:,} · MACs {facts['macs']:,} for one image",
    ]
    return "\n".join(text)
