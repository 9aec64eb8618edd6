"""The count of a net by the papers' rules, and the familiar summary table."""

from math import prod
from typing import NamedTuple

from numnet.kernels._cost import Cost
from numnet.layers.layer import CostRow


class NetCost(NamedTuple):
    """Totals of a net for one image, and its rows (name, type, output_shape, cost)."""

    rows: list
    macs: int
    params: int
    buffers: int


def of(net) -> NetCost:
    """The cost of a net or of its description."""
    rows = [row for row, _ in rows_and_layers(net)]
    totals = [sum(getattr(row.cost, field) for row in rows) for field in ("macs", "params", "buffers")]
    return NetCost(rows, *totals)


def rows_and_layers(net):
    """(row, layer) of every operation, named from the top; a block's own work comes after its children's."""
    return [pair for layer in net.layers for pair in _rows(layer, layer.name)]


def _rows(layer, path):
    for child in layer.children:
        yield from _rows(child, f"{path}.{child.name}")
    rows = layer.cost()
    for row in (*rows, *_uncounted(layer, rows)):
        yield row._replace(name=f"{path}.{row.name}" if row.name else path), layer


def _uncounted(layer, rows):
    """A row for parameters and buffers of a layer of one's own that the rows of its ``cost`` do not count."""
    params = sum(spec.size for spec in layer.specs.values()) - sum(row.cost.params for row in rows)
    buffers = sum(map(prod, layer.buffer_specs.values())) - sum(row.cost.buffers for row in rows)
    if params > 0 or buffers > 0:
        yield CostRow(
            "", layer.kind, layer.output_shape, Cost(params=max(params, 0), buffers=max(buffers, 0))
        )


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
