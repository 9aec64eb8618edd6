"""``numnet quantise``: a trained net in eight bits, and what that did to each of its layers."""

from pathlib import Path

import numpy as np

from numnet.cli.arguments import (
    choice,
    columns,
    count,
    print_json,
    require_dataset,
    require_writable,
    set_threads,
)
from numnet.cli.use import (
    add_input_options,
    class_names,
    input_background,
    input_preset,
    input_scaling,
    trained_net,
)
from numnet.data import names
from numnet.data.folder import trained_on_all
from numnet.errors import NumnetError, tell
from numnet.loading import require_floats
from numnet.quantised.make import LEAST
from numnet.quantised.ranges import METHODS

IMAGES = 256


def quantise_arguments(parser):
    about = "a .safetensors file, a run directory for its best, or another framework's file"
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help=about)
    about = "cifar10, shapes, or an image folder: where the images come from that ranges are taken from"
    parser.add_argument("dataset", metavar="DATASET", help=about)
    about = "file to write (.safetensors)"
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help=about)
    parser.add_argument("--data", metavar="DIR", help="where CIFAR-10 lies: a folder or its archive")
    about = f"training images to take ranges from ({IMAGES})"
    parser.add_argument("--images", type=count(LEAST), default=IMAGES, metavar="N", help=about)
    about = f"how ranges are chosen: {', '.join(METHODS)} (output: by the least noise there)"
    parser.add_argument("--ranges", type=choice(*METHODS), default=METHODS[0], metavar="NAME", help=about)
    about = "one scale for all filters of a layer instead of one for each: to see what that ruins"
    parser.add_argument("--per-tensor", action="store_true", help=about)
    about = "make the weights of layers in a row equally large first; relu6 between them becomes relu"
    parser.add_argument("--equalise", action="store_true", help=about)
    about = "change biases so that no layer's mean is shifted by rounding"
    parser.add_argument("--correct-bias", action="store_true", help=about)
    about = "also count the test images, by both nets, and keep the result in the file"
    parser.add_argument("--test", action="store_true", help=about)
    about = "with --test: match classes by position, whatever their names"
    parser.add_argument("--by-position", action="store_true", help=about)
    parser.add_argument("--seed", type=count(0), default=0, metavar="S", help="which images (0)")
    add_input_options(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def quantise(arguments):
    from numnet import data as datasets
    from numnet import quantised

    set_threads(arguments.threads)
    require_writable(arguments.out, (".safetensors",))
    require_dataset(arguments.dataset, arguments.data)
    if arguments.by_position and not arguments.test:
        raise NumnetError("--by-position: says how --test counts; expected --test beside it")
    net = trained_net(arguments.checkpoint, "quantise")
    require_floats(net, "quantise")
    if arguments.test and arguments.dataset not in datasets.BUILT_IN:
        trained = {**(net.document.get("reading") or {}), "digest": net.document.get("digest")}
        if trained_on_all(arguments.dataset, trained):
            raise NumnetError(
                f"--test: the net was trained on all images of {arguments.dataset}; expected a folder with test images, too"
            )
    scaling = input_scaling(net, arguments)
    data = datasets.load(
        arguments.dataset, data_dir=arguments.data, resolution=net.input_shape[:2], preset=input_preset(net, arguments),
        background=input_background(net, arguments), input_scaling=scaling,
    )  # fmt: skip
    test = _test_images(net, data, arguments.by_position) if arguments.test else None
    found = datasets.batches(
        data.train, batch_size=arguments.images, scaling=scaling, seed=arguments.seed, dtype=net.dtype,
        channels=net.input_shape[2],
    )  # fmt: skip
    images = next(iter(found), (np.empty((0, *net.input_shape), np.float32), None))[0]
    if len(images) < arguments.images:
        tell(f"{data.name} has {len(images):,} training images; ranges are taken from these")
    net.scaling = scaling
    remedies = {"equalise": arguments.equalise, "correct": arguments.correct_bias}
    whole = quantised.quantise(
        net, images, method=arguments.ranges, per_tensor=arguments.per_tensor, **remedies
    )
    rows = quantised.report(net, whole, images)
    how = {
        "dataset": data.name, "images": len(images), "ranges": arguments.ranges, "per_tensor": arguments.per_tensor,
        "equalise": arguments.equalise, "correct_bias": arguments.correct_bias,
    }  # fmt: skip
    for name in ("preset", "background"):  # whoever uses the net shall read its images alike
        if getattr(arguments, name) is not None:
            how[name] = getattr(arguments, name)
    result = None
    if arguments.test:
        before, result = (_tested(each, test, scaling) for each in (net, whole))
        how |= {"float_accuracy": before["test_accuracy"]}
    whole.save(arguments.out, made=how, result=result)
    floats = sum(a.nbytes for a in net.state().values())
    facts = {"checkpoint": arguments.out, **how, "bytes": whole.nbytes, "float_bytes": floats}
    facts |= result or {}
    facts["file_bytes"] = Path(arguments.out).stat().st_size
    if arguments.json:
        print_json({**facts, "steps": rows})
    else:
        print(_text(facts, rows))


def _test_images(net, data, by_position):
    """The test images with the labels of the net's classes of the same names, as ``numnet eval`` counts them."""
    if data.test is None:
        raise NumnetError(f"--test: {data.name} has no test images; expected some, or no --test")
    known = class_names(net, data.classes)
    how = {"where": data.name, "by_position": by_position, "first": data.first}
    assigned = names.assign(data.test, data.classes, known, net.classes, **how)
    for line in assigned.said:
        tell(line)
    return assigned.split


def _tested(net, split, scaling) -> dict:
    """What ``result.json`` of a training says of the test images."""
    from numnet.training.evaluate import evaluate

    found = evaluate(net, split, scaling)
    return {"test_accuracy": found["accuracy"], "test_top5": found["top5"], "test_loss": found["loss"]}


def _text(facts, rows) -> str:
    lines = [("step", "kind", "range", "cut", "signal", "hurt"), None]
    for row in rows:
        ends = "sums of 32 bits" if row["range"] is None else "{:.3g} … {:.3g}".format(*row["range"])
        signal = "exact" if row["signal_db"] is None else f"{row['signal_db']:.1f} dB"
        cells = (row["name"], row["kind"], ends, f"{100 * row['cut']:.2f} %", signal)
        lines.append((*cells, f"{100 * row['hurt']:.2f} %"))
    worst = sorted(rows, key=lambda row: -row["hurt"])[:3]
    size = (
        f"{facts['file_bytes']:,} bytes; its numbers {facts['bytes']:,}, of float32 {facts['float_bytes']:,}"
    )
    said = [
        ("hurt most", ", ".join(f"{row['name']} {100 * row['hurt']:.1f} %" for row in worst)),
        ("ranges", f"of {facts['images']:,} images of {facts['dataset']}, by {facts['ranges']}"),
        ("written", f"{facts['checkpoint']}: {size}"),
    ]
    if "test_accuracy" in facts:
        before, after = 100 * facts["float_accuracy"], 100 * facts["test_accuracy"]
        said.insert(
            0, ("test images right", f"{after:.2f} %, in floats {before:.2f} %: {after - before:+.2f} points")
        )
    about = (
        "cut: numbers outside of the range. signal: to noise, all errors before included. "
        "hurt: noise in the output, of its size, if this step alone is in eight bits"
    )
    return "\n\n".join([columns(lines, right=(3, 4, 5)), columns(said), about])
