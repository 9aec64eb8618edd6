"""``numnet probe``: a linear classifier on the features of a net, in seconds."""

import time
from pathlib import Path

from numnet.cli.arguments import (
    columns,
    count,
    print_json,
    require_dataset,
    require_writable,
    say_notes,
    set_threads,
)
from numnet.cli.use import add_input_options, bar, compile_net, input_background, input_preset, input_scaling
from numnet.errors import tell
from numnet.loading import load_any, require_floats


def probe_arguments(parser):
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a checkpoint, run directory or another framework's file"
    )
    parser.add_argument("dataset", metavar="DATASET", help="cifar10, shapes or a folder of images")
    parser.add_argument("--data", metavar="DIR", help="where CIFAR-10 lies")
    parser.add_argument(
        "--seed", type=count(0), default=0, metavar="S", help="which images are held back (0)"
    )
    parser.add_argument("--memory", metavar="SIZE", help="images to keep in memory: 500M, 4G (2G)")
    about = "write the net with its new classifier: numnet predict, export, train --init take it"
    parser.add_argument("-o", "--out", metavar="CHECKPOINT", help=about)
    add_input_options(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def probe(arguments):
    from numnet import data as datasets
    from numnet.probe import linear_probe

    set_threads(arguments.threads)
    require_dataset(arguments.dataset, arguments.data)
    if arguments.out is not None:
        require_writable(arguments.out, (".safetensors",))
    net = load_any(arguments.checkpoint)
    require_floats(net, "probe")
    say_notes(net)
    scaling, preset = input_scaling(net, arguments), input_preset(net, arguments)
    background = input_background(net, arguments)
    data = datasets.load(
        arguments.dataset, data_dir=arguments.data, memory=arguments.memory, resolution=net.input_shape[:2],
        preset=preset, background=background,
    )  # fmt: skip
    compile_net(net)
    began = time.perf_counter()
    found = linear_probe(net, data, scaling=scaling, seed=arguments.seed)
    seconds = time.perf_counter() - began
    facts = {
        "accuracy": found.accuracy, "interval": list(found.interval), "chance": found.chance,
        "train_accuracy": found.train_accuracy, "validation_accuracy": found.validation_accuracy,
        "decay": found.decay, "features": found.features, "images": found.images, "classes": found.classes,
        "per_class": found.per_class, "seconds": seconds, "dataset": data.name, "source": str(net.path),
    }  # fmt: skip
    if arguments.out is not None:
        found.net.save(
            arguments.out, input=scaling, classes=found.classes, preset=preset, dataset=data.name,
            digest=data.digest, recipe={"background": background} if background else None,
            result={"test_accuracy": found.accuracy}, source=net.document.get("source"),
        )  # fmt: skip
        facts["checkpoint"] = str(arguments.out)
    if arguments.json:
        print_json(facts)
        return
    print(_told(facts))
    if arguments.out is not None:
        tell(f"{Path(arguments.out)}: the net with its new classifier")


def _told(facts) -> str:
    low, high = facts["interval"]
    images = facts["images"]
    lines = [
        (
            "test images right",
            f"{100 * facts['accuracy']:.1f} %   (95 % interval {100 * low:.1f} to {100 * high:.1f}; "
            f"always the largest class: {100 * facts['chance']:.1f})",
        ),
        ("training images right", f"{100 * facts['train_accuracy']:.1f} %"),
        (
            "images",
            f"{images['train']:,} for training, {images['validation']:,} of them chose the weight decay, "
            f"{images['test']:,} for the test",
        ),
        ("features", f"{facts['features']:,}"),
        ("weight decay", f"{facts['decay']:g}"),
        ("seconds", f"{facts['seconds']:.1f}"),
    ]
    classes = [
        (f"  {name}", "no test image" if share is None else f"{100 * share:.0f} %", bar(share or 0))
        for name, share in zip(facts["classes"], facts["per_class"])
    ]
    return f"{columns(lines)}\n{columns(classes, right=(1,), fit=(0,))}"
