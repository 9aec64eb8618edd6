"""``numnet models``, ``summary``, ``draw`` and ``cost``: what is known of a net without an array being made."""

import sys

from numnet import cost as costs
from numnet import models as net_names
from numnet.cli.arguments import (
    MODEL,
    add_model_options,
    columns,
    count,
    described_or_saved,
    model_options,
    print_json,
    require_figure,
)
from numnet.errors import NumnetError
from numnet.models import MODELS, describe
from numnet.quantised import QuantisedNet

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
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def summary(arguments):
    net = described_or_saved(arguments.model, eights=True, **model_options(arguments))
    if isinstance(net, QuantisedNet):
        _summary_of_eights(net, arguments.json)
    elif arguments.json:
        print_json(costs.summary(net))
    else:
        print(costs.table(net))


def _summary_of_eights(net, as_json):
    """The summary of a net in eight bits: weights and bytes of each step."""
    facts = net.summary()
    if as_json:
        print_json(facts)
        return
    lines = [("step", "type", "output", "weights, biases", "bytes", "MACs"), None]
    for row in facts["layers"]:
        shape = "×".join(map(str, row["output_shape"]))
        lines.append(
            (row["name"], row["type"], shape, *(f"{row[key]:,}" for key in ("params", "bytes", "macs")))
        )
    totals = (f"{facts[key]:,}" for key in ("total_params", "bytes", "macs"))
    lines += [None, ("all, in eight bits", "", "", *totals)]
    print(columns(lines, right=(3, 4, 5)))


# ----------------------------------------------------------------------------------------- draw


def draw_arguments(parser):
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help=".png, .pdf or .svg")
    add_model_options(parser)


def draw(arguments):
    """The net on one page: blocks, shapes, strides and skips; says where it is."""
    require_figure(arguments.output, "-o")
    net = described_or_saved(arguments.model, **model_options(arguments))
    from numnet import drawing

    drawing.draw(net, arguments.output)
    print(arguments.output)


# ----------------------------------------------------------------------------------------- cost


def cost_arguments(parser):
    parser.epilog = (
        "A BLOCK is KIND:HxWxC:F, the shape of its input and its output channels. KIND: conv, depthwise (no F), pointwise, "
        "separable, inverted, dense (input C alone). Behind it, in any order: k3 side of the kernel (3), s1 stride (1), "
        "p0 padding (same), t6 how many times as wide an inverted residual is inside (6), se4 squeeze-and-excite to a "
        "quarter."
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=MODEL)
    about = "single blocks instead, written like conv:7x7x3:128 or separable:7x7x3:128 (see below)"
    parser.add_argument("--block", nargs="+", metavar="BLOCK", help=about)
    parser.add_argument("--batch-size", type=count(), default=1, metavar="B", help="images (1)")
    add_model_options(parser)
    parser.add_argument(
        "--json", action="store_true", help="as JSON: an object, of several models a list of them"
    )
    parser.add_argument("--csv", action="store_true", help="a line a layer, with a heading")
    parser.add_argument(
        "--time",
        action="store_true",
        help="predict a training step's time from this machine's peak, which is measured",
    )
    parser.add_argument(
        "--plot", metavar="FILE", help="draw parameters and MACs of each layer (.png, .pdf, .svg)"
    )


def cost(arguments):
    """Closed forms, layer by layer and by layer type: see ``numnet.cost.report``."""
    if arguments.json and arguments.csv:
        raise NumnetError("expected --json or --csv, got both")
    if arguments.time and (arguments.csv or arguments.block):
        raise NumnetError(
            f"--time: a prediction for whole nets, not with {'--csv' if arguments.csv else '--block'}"
        )
    if arguments.block:
        _blocks(arguments)
        return
    if not arguments.models:
        raise NumnetError("numnet cost: expected a model, or --block BLOCK; see `numnet cost --help`")
    if arguments.plot:
        require_figure(arguments.plot, "--plot")
    options = model_options(arguments)
    reports = [
        costs.report(described_or_saved(name, **options), arguments.batch_size) for name in arguments.models
    ]
    if arguments.time:
        _predict(reports)
    if arguments.json:
        print_json(reports[0] if len(reports) == 1 else reports)
    elif arguments.csv:
        print(costs.csv(reports), end="")
    else:
        print(_text(reports))
    if arguments.plot:
        from numnet.cli import figures

        figures.cost(reports, arguments.plot)


REACHED = 0.5  # of the processor's peak: measured training steps of numnet's nets reach 0.2 to 0.65 of it


def _predict(reports):
    """Each report gains "time": seconds of a training step and of inference at half the peak that is measured here."""
    import numba

    from numnet.bench import machine
    from numnet.cores import keep_to_quota

    keep_to_quota()
    threads = numba.get_num_threads()
    peak = machine.peak_flops(threads)
    for net in reports:
        step = 2 * (net["macs"] + net["dx_macs"] + net["dw_macs"])
        net["time"] = {
            "peak_flops": peak,
            "threads": threads,
            "training_flops": step,
            "training_step_seconds": step / (REACHED * peak),
            "inference_seconds": 2 * net["macs"] / (REACHED * peak),
        }


def _time(net) -> str:
    time = net["time"]
    step, forward = (time[f"{name}_seconds"] for name in ("training_step", "inference"))
    return (
        f"predicted for {net['model']}: a training step {1e3 * step:,.1f} ms, inference {1e3 * forward:,.1f} ms. That is "
        f"{time['training_flops'] / 1e9:,.3g} and {2 * net['macs'] / 1e9:,.3g} GFLOP at half of the "
        f"{time['peak_flops'] / 1e9:,.0f} GFLOP/s measured here (threads: {time['threads']}). "
        "Most training steps on an idle machine are within a factor of two of it; narrow nets and one image alone take longer"
    )


def _blocks(arguments):
    """Single blocks, each compared with the first."""
    if arguments.models:
        raise NumnetError(f"--block: expected blocks alone, got the model {arguments.models[0]}")
    if arguments.csv or arguments.plot or arguments.batch_size != 1 or model_options(arguments):
        raise NumnetError("--block: costs one image and one block; the only other option can be --json")
    found = costs.blocks(arguments.block)
    if arguments.json:
        print_json(found)
        return
    print("\n\n".join(_one_block(each, found[0]) for each in found))


def _one_block(facts, first) -> str:
    """Formula, numbers, sum; and how many times as much the first block costs."""
    shape = "×".join(map(str, facts["output_shape"]))
    lines = [(facts["block"], "MACs", "", "", "weights"), None]
    for part in facts["parts"]:
        lines.append(
            (part["type"], part["formula"], part["numbers"], f"{part['macs']:,}", f"{part['params']:,}")
        )
    if len(facts["parts"]) > 1:
        lines += [None, ("sum", "", "", f"{facts['macs']:,}", f"{facts['params']:,}")]
    text = columns(lines, right=(3, 4)) + f"\noutput {shape}"
    if facts is not first:
        ratios = f"{facts['macs_ratio']:.2f} times the MACs, {facts['params_ratio']:.2f} times the weights of this one"
        text += f"; {first['block']} has {ratios}"
    return text


NUMBERS = ("parameters", "MACs", "MACs of dx", "MACs of dw", "kept, KiB", "moved, KiB", "FLOP a byte")


def _text(reports) -> str:
    if len(reports) == 1:
        parts = [_layers(reports[0]), _types(reports[0]), _totals(reports[0])]
    else:
        parts = [_types(net) for net in reports] + [_side_by_side(reports)]
    batch = reports[0]["batch_size"]
    parts.append(
        f"for {'one image' if batch == 1 else f'{batch} images'}. 1 MAC = one multiplication and one addition; "
        "taps in the padding count, as in the papers. Kept: maps that training keeps; moved: maps and weights that "
        "forward reads and writes"
    )
    parts += [_time(net) for net in reports if "time" in net]
    return "\n\n".join(parts)


def _numbers(row) -> list[str]:
    counts = [f"{row[key]:,}" for key in ("params", "macs", "dx_macs", "dw_macs")]
    sizes = [f"{row[key] / 1024:,.0f}" for key in ("activation_bytes", "bytes_moved")]
    return [*counts, *sizes, f"{row['intensity']:.1f}" if row["bytes_moved"] else ""]


def _layers(net) -> str:
    lines = [("layer", "type", "output", *NUMBERS), None]
    for layer in net["layers"]:
        shape = "×".join(map(str, layer["output_shape"]))
        lines.append((layer["name"], layer["type"], shape, *_numbers(layer)))
    return columns(lines, right=range(3, 10))


def _types(net) -> str:
    size = "×".join(map(str, net["input_shape"]))
    parameters, macs, *rest = NUMBERS
    lines = [(f"{net['model']} {size}", "layers", parameters, "%", macs, "%", *rest), None]
    for row in [*net["types"], None, {**net, "type": "all", "layers": len(net["layers"])}]:
        if row is None:
            lines.append(None)
            continue
        parameters, macs, *rest = _numbers(row)
        shares = [f"{100 * row[key] / max(net[key], 1):.1f}" for key in ("params", "macs")]
        lines.append((row["type"], row["layers"], parameters, shares[0], macs, shares[1], *rest))
    return columns(lines, right=range(1, 11))


def _totals(net) -> str:
    done = ", ".join(
        f"{way} {net[f'{key}multiplications']:,} + {net[f'{key}additions']:,}"
        for way, key in (("forward", ""), ("dx", "dx_"), ("dw", "dw_"))
    )
    inference, training = (
        f"{net[f'peak_{way}_bytes'] / 2**20:,.2f} MiB" for way in ("inference", "training")
    )
    lines = [
        ("multiplications + additions really done", done),
        ("MACs without taps in the padding", f"{net['macs_inside']:,}"),
        ("most memory for maps", f"inference {inference}, a training step {training}"),
    ]
    lines += [(f"{tool} prints", f"{printed:,}") for tool, printed in net["tools"].items()]
    return columns(lines)


def _side_by_side(reports) -> str:
    heading = ("", "parameters", "MACs", "mult. + add.", "moved, MiB", "FLOP a byte")
    lines = [(*heading, "most memory, MiB", "in training, MiB"), None]
    for net in reports:
        sizes = [net[key] / 2**20 for key in ("bytes_moved", "peak_inference_bytes", "peak_training_bytes")]
        moved, inference, training = (f"{size:,.2f}" for size in sizes)
        counts = (f"{net['params']:,}", f"{net['macs']:,}", f"{net['flops']:,}")
        lines.append((net["model"], *counts, moved, f"{net['intensity']:.1f}", inference, training))
    return columns(lines, right=range(1, 8))
