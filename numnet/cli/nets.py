"""``numnet models``, ``summary`` and ``cost``: what is known of a net without an array being made."""

import csv
import io
import sys

from numnet import cost as costs
from numnet import models as net_names
from numnet.cli.arguments import (
    add_model_options,
    columns,
    described,
    model_options,
    print_json,
    require_figure,
)
from numnet.errors import NumnetError
from numnet.kernels._cost import Cost
from numnet.models import MODELS, describe

# ----------------------------------------------------------------------------------------- models


def models_arguments(parser):
    parser.add_argument("--json", action="store_true", help="as JSON")


def models(arguments):
    """A line a net: its name, its size as published (width 1, 224×224, 1,000 classes), its paper."""
    facts = []
    for name in net_names():
        total = describe(name).cost()
        page = (sys.modules[MODELS[name][0].__module__].__doc__ or name).strip().splitlines()[0]
        facts.append(
            {"name": name, "params": total.params, "macs": total.macs, "about": page.partition(', "')[0]}
        )
    if arguments.json:
        print_json(facts)
        return
    print(
        columns(
            (
                row["name"],
                f"{row['params'] / 1e6:.2f} M parameters",
                f"{row['macs'] / 1e6:,.0f} M MACs",
                row["about"],
            )
            for row in facts
        )
    )


# ----------------------------------------------------------------------------------------- summary


def summary_arguments(parser):
    parser.add_argument("model", metavar="MODEL", help="one of those that `numnet models` lists")
    add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def summary(arguments):
    net = described(arguments.model, **model_options(arguments))
    if arguments.json:
        print_json(costs.summary(net))
    else:
        print(costs.table(net))


# ----------------------------------------------------------------------------------------- cost


def cost_arguments(parser):
    parser.add_argument("models", nargs="+", metavar="MODEL", help="some of those that `numnet models` lists")
    add_model_options(parser)
    parser.add_argument(
        "--json", action="store_true", help="as JSON: an object, of several models a list of them"
    )
    parser.add_argument("--csv", action="store_true", help="a line a layer, with a heading")
    parser.add_argument(
        "--plot", metavar="FILE", help="draw parameters and MACs of each layer (.png, .pdf, .svg)"
    )


def cost(arguments):
    """Closed forms for one image: MACs of the forward pass and of the two gradients, parameters, sizes."""
    if arguments.json and arguments.csv:
        raise NumnetError("expected --json or --csv, got both")
    if arguments.plot:
        require_figure(arguments.plot, "--plot")
    options = model_options(arguments)
    facts = [_facts(name, described(name, **options)) for name in arguments.models]
    if arguments.plot:
        from numnet.cli import figures

        figures.cost(facts, arguments.plot)
    if arguments.json:
        print_json(facts[0] if len(facts) == 1 else facts)
    elif arguments.csv:
        print(_csv(facts), end="")
    else:
        print(_text(facts))


def _facts(name, net) -> dict:
    """A JSON-able dict: totals, layers, layer types; the numbers of ``numnet.kernels._cost``."""
    total = net.cost()
    rows = [(row, row.cost._asdict()) for row in total.rows]
    types: dict[str, dict] = {}
    for row, numbers in rows:
        of_type = types.setdefault(
            row.type, {"type": row.type, "layers": 0, **dict.fromkeys(Cost._fields, 0)}
        )
        of_type["layers"] += 1
        for field, value in numbers.items():
            of_type[field] += value
    return {
        "model": name,
        "config": net.config,
        "input_shape": list(net.input_shape),
        **{field: sum(numbers[field] for _, numbers in rows) for field in Cost._fields},
        "layers": [
            {"name": row.name, "type": row.type, "output_shape": list(row.output_shape), **numbers}
            for row, numbers in rows
        ],
        "types": sorted(types.values(), key=lambda of_type: -of_type["macs"]),
    }


def _csv(facts) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("model", "name", "type", "output_shape", *Cost._fields))
    for net in facts:
        for layer in net["layers"]:
            shape = "x".join(map(str, layer["output_shape"]))
            numbers = [layer[field] for field in Cost._fields]
            writer.writerow((net["model"], layer["name"], layer["type"], shape, *numbers))
    return text.getvalue()


def _text(facts) -> str:
    parts = [_layers(facts[0])] if len(facts) == 1 else []
    parts += [_types(net) for net in facts]
    if len(facts) > 1:
        lines = [("net", "parameters", "MACs", "MACs of dx", "MACs of dw", "activations"), None]
        lines += [(net["model"], *_numbers(net)) for net in facts]
        parts.append(columns(lines, right=range(1, 6)))
    parts.append(
        "for one image. 1 MAC = one multiplication and one addition; taps in the padding count, as in the "
        "papers; activations: numbers written by all layers"
    )
    return "\n\n".join(parts)


def _numbers(row) -> list[str]:
    return [f"{row[key]:,}" for key in ("params", "macs", "dx_macs", "dw_macs", "outputs")]


def _layers(net) -> str:
    lines = [
        ("layer", "type", "output", "parameters", "MACs", "MACs of dx", "MACs of dw", "activations"),
        None,
    ]
    for layer in net["layers"]:
        shape = "×".join(map(str, layer["output_shape"]))
        lines.append((layer["name"], layer["type"], shape, *_numbers(layer)))
    return columns(lines, right=range(3, 8))


def _types(net) -> str:
    size = "×".join(map(str, net["input_shape"]))
    heading = (f"{net['model']} {size}", "layers", "parameters", "%", "MACs", "%", "MACs of dx", "MACs of dw")
    lines = [(*heading, "activations"), None]
    for row in [*net["types"], None, {**net, "type": "all", "layers": len(net["layers"])}]:
        if row is None:
            lines.append(None)
            continue
        params, macs, *rest = _numbers(row)
        shares = [f"{100 * row[key] / max(net[key], 1):.1f}" for key in ("params", "macs")]
        lines.append((row["type"], row["layers"], params, shares[0], macs, shares[1], *rest))
    return columns(lines, right=range(1, 9))
