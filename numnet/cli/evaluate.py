"""``numnet eval``: a trained net on a test set."""

from numnet.cli.arguments import (
    columns,
    count,
    print_json,
    require_dataset,
    require_figure,
    say,
    set_threads,
)
from numnet.cli.use import (
    add_input_options,
    bar,
    compile_net,
    input_preset,
    input_scaling,
    listed,
    trained_net,
)
from numnet.errors import NumnetError


def eval_arguments(parser):
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a .safetensors file, or a run directory for its best"
    )
    parser.add_argument("dataset", metavar="DATASET", help="cifar10, shapes, or an image folder")
    parser.add_argument("--data", metavar="DIR", help="where CIFAR-10 lies: a folder or its archive")
    parser.add_argument(
        "--per-class", action="store_true", help="accuracy of each class, and who is taken for whom"
    )
    parser.add_argument("--figure", metavar="FILE", help="draw the confusion matrix (.png, .pdf, .svg)")
    parser.add_argument(
        "--flip", action="store_true", help="also the accuracy of each image and its mirror image together"
    )
    parser.add_argument("--batch-size", type=count(), default=256, metavar="B", help="images at a time (256)")
    parser.add_argument("--memory", metavar="SIZE", help="images to keep in memory: 500M, 4G (2G)")
    add_input_options(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def eval(arguments):
    from numnet import data as datasets
    from numnet.training.evaluate import evaluate

    set_threads(arguments.threads)
    if arguments.figure:
        require_figure(arguments.figure, "--figure")
    require_dataset(arguments.dataset)
    net = trained_net(arguments.checkpoint, "eval")
    scaling = input_scaling(net, arguments)
    data = datasets.load(
        arguments.dataset, data_dir=arguments.data, memory=arguments.memory, resolution=net.input_shape[0],
        preset=input_preset(net, arguments),
    )  # fmt: skip
    if len(data.classes) > net.classes:
        raise NumnetError(
            f"{net.path}: tells {net.classes} classes apart, {data.name} has {len(data.classes)}"
        )
    if net.class_names is not None and list(data.classes) != net.class_names[: len(data.classes)]:
        say(
            f"numnet: warning: {data.name} has other classes than the net was trained on "
            f"({listed(net.class_names)})"
        )
    split = data.test
    if split is None:
        split = data.validation
        say(
            f"numnet: {data.name} has no test images: these are its validation images, which may have chosen the net"
        )
    compile_net(net)
    result = evaluate(net, split, scaling, batch_size=arguments.batch_size, flip=arguments.flip)
    names = list(data.classes) + [str(i) for i in range(len(data.classes), net.classes)]
    if arguments.figure:
        from numnet import plotting

        plotting.confusion(result["confusion"], names, arguments.figure)
    facts = {key: result[key] for key in ("accuracy", "top5", "loss", "images")}
    facts |= {"checkpoint": str(net.path), "dataset": data.name}
    if data.test is None:
        facts["split"] = "validation"
    if arguments.flip:
        facts["flip"] = result["flip"]
    if arguments.per_class:
        facts["classes"], facts["confusion"] = names, result["confusion"]
        facts["per_class"] = [
            {"class": i, "label": name, "images": sum(row), "accuracy": accuracy}
            for i, (name, row, accuracy) in enumerate(zip(names, result["confusion"], result["per_class"]))
        ]
    if arguments.json:
        print_json(facts)
    else:
        print(_evaluation(facts))


def _evaluation(facts) -> str:
    lines = [("accuracy", f"{100 * facts['accuracy']:.2f} %"), ("top 5", f"{100 * facts['top5']:.2f} %")]
    lines += [
        ("loss", f"{facts['loss']:.4f}"),
        ("images", f"{facts['images']:,}"),
        ("checkpoint", facts["checkpoint"]),
    ]
    if "flip" in facts:
        both = facts["flip"]
        words = f"{100 * both['accuracy']:.2f} %, top 5 {100 * both['top5']:.2f} %, loss {both['loss']:.4f}"
        lines.insert(3, ("with mirror images", words))
    text = columns(lines)
    if "per_class" not in facts:
        return text
    lines = [("class", "images", "right", "", "most often taken for"), None]
    for row, counts in zip(facts["per_class"], facts["confusion"]):
        if not row["images"]:
            continue
        wrong = sorted((-n, i) for i, n in enumerate(counts) if n and i != row["class"])[:2]
        taken = ", ".join(f"{facts['classes'][i]} {-n}" for n, i in wrong)
        lines.append(
            (row["label"], row["images"], f"{100 * row['accuracy']:.1f} %", bar(row["accuracy"], 20), taken)
        )
    return f"{text}\n\n{columns(lines, right=(1, 2))}"
