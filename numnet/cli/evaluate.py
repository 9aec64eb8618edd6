"""``numnet eval``: a trained net on a test set."""

from numnet.cli.arguments import (
    choice,
    columns,
    count,
    print_json,
    require_dataset,
    require_figure,
    set_threads,
)
from numnet.cli.use import (
    add_input_options,
    bar,
    class_names,
    compile_net,
    input_background,
    input_preset,
    input_scaling,
    trained_net,
)
from numnet.data import names
from numnet.data.folder import PARTS
from numnet.errors import tell


def eval_arguments(parser):
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a .safetensors file, or a run directory for its best"
    )
    parser.add_argument("dataset", metavar="DATASET", help="cifar10, shapes, or an image folder")
    parser.add_argument("--data", metavar="DIR", help="where CIFAR-10 lies: a folder or its archive")
    parser.add_argument(
        "--per-class",
        action="store_true",
        help="recall, precision and F1 of each class, and its confusions",
    )
    about = (
        "train, validation, test, or all (test where the folder names test images; a folder without splits is used "
        "whole, but for the one that the net was trained on)"
    )
    parser.add_argument("--split", type=choice(*PARTS), metavar="NAME", help=about)
    about = "match classes by position: the data set's first is the net's first, whatever their names"
    parser.add_argument("--by-position", action="store_true", help=about)
    parser.add_argument("--figure", metavar="FILE", help="draw the confusion matrix (.png, .pdf, .svg)")
    about = (
        "also the accuracy from several views of each image: 2, it and its mirror image; 6, both shifted too"
    )
    parser.add_argument("--views", type=choice("2", "6"), metavar="2|6", help=about)
    parser.add_argument("--batch-size", type=count(), default=256, metavar="B", help="images at a time (256)")
    parser.add_argument("--memory", metavar="SIZE", help="images to keep in memory: 500M, 4G (2G)")
    add_input_options(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def eval(arguments):
    from numnet import data as datasets
    from numnet.training.evaluate import evaluate, worst_class

    set_threads(arguments.threads)
    if arguments.figure:
        require_figure(arguments.figure, "--figure")
    require_dataset(arguments.dataset, arguments.data)
    net = trained_net(arguments.checkpoint, "eval")
    scaling = input_scaling(net, arguments)
    trained = {**(net.document.get("reading") or {}), "digest": net.document.get("digest")}
    data = datasets.load_for_evaluation(
        arguments.dataset, data_dir=arguments.data, memory=arguments.memory, resolution=net.input_shape[:2],
        preset=input_preset(net, arguments), background=input_background(net, arguments), part=arguments.split,
        trained=trained,
    )  # fmt: skip
    known = class_names(net, data.classes)
    given = {"where": data.name, "by_position": arguments.by_position, "first": data.first}
    assigned = names.assign(data.split, data.classes, known, net.classes, **given)
    for line in assigned.said:
        tell(line)
    compile_net(net, 8)
    views = int(arguments.views or 1)
    result = evaluate(net, assigned.split, scaling, batch_size=arguments.batch_size, views=views)
    labels = list(known or data.classes)
    labels += [str(i) for i in range(len(labels), net.classes)]
    if assigned.matched == "position":
        labels[: len(data.classes)] = data.classes
    facts = {key: result[key] for key in ("accuracy", "top5", "loss", "images", "macro")}
    facts |= {"checkpoint": str(net.path), "dataset": data.name, "split": data.part}
    facts |= {"matched_by": assigned.matched, "unknown": assigned.unknown, "skipped": len(data.skipped)}
    worst = worst_class(result)
    images = [sum(row) for row in result["confusion"]]
    facts["worst"] = {"class": worst, "label": labels[worst], "images": images[worst]}
    facts["worst"]["accuracy"] = result["per_class"][worst]
    if views > 1:
        facts["views"] = result["views"]
    if arguments.per_class:
        facts["classes"], facts["confusion"] = labels, result["confusion"]
        columns_ = zip(labels, images, result["per_class"], result["precision"], result["f1"])
        facts["per_class"] = [
            {"class": i, "label": label, "images": n, "accuracy": recall, "precision": precision, "f1": f1}
            for i, (label, n, recall, precision, f1) in enumerate(columns_)
        ]
    if arguments.json:
        print_json(facts)
    else:
        print(_evaluation(facts))
    if arguments.figure:  # last: no figure's failure may lose the numbers
        from numnet import plotting

        plotting.confusion(result["confusion"], labels, arguments.figure)


def _evaluation(facts) -> str:
    lines = [("accuracy", f"{100 * facts['accuracy']:.2f} %"), ("top 5", f"{100 * facts['top5']:.2f} %")]
    lines += [
        ("loss", f"{facts['loss']:.4f}"),
        ("images", f"{facts['images']:,}"),
        ("checkpoint", facts["checkpoint"]),
    ]
    macro, worst = facts["macro"], facts["worst"]
    each = f"recall {100 * macro['recall']:.2f} %, precision {100 * macro['precision']:.2f} %, F1 {100 * macro['f1']:.2f} %"
    lines.insert(2, ("mean of the classes", each))
    least = f"{worst['label']}: {100 * worst['accuracy']:.1f} % of {worst['images']:,} images"
    lines.insert(3, ("worst class", least))
    if facts["unknown"]:
        strange = names.listed([f"{name} {count:,}" for name, count in facts["unknown"].items()])
        total = sum(facts["unknown"].values())
        lines.append(("not counted", f"{total:,} images of classes that the net does not know: {strange}"))
    if "views" in facts:
        both = facts["views"]
        words = f"{100 * both['accuracy']:.2f} %, top 5 {100 * both['top5']:.2f} %, loss {both['loss']:.4f}"
        lines.insert(5, (f"with {both['views']} views", words))
    text = columns(lines)
    if "per_class" not in facts:
        return text
    lines = [("class", "images", "right", "", "precision", "F1", "most often taken for"), None]
    for row, counts in zip(facts["per_class"], facts["confusion"]):
        if not row["images"]:
            continue
        wrong = sorted((-n, i) for i, n in enumerate(counts) if n and i != row["class"])[:2]
        taken = ", ".join(f"{facts['classes'][i]} {-n}" for n, i in wrong)
        right, precision, f1 = (f"{100 * row[key]:.1f} %" for key in ("accuracy", "precision", "f1"))
        lines.append((row["label"], row["images"], right, bar(row["accuracy"], 20), precision, f1, taken))
    return f"{text}\n\n{columns(lines, right=(1, 2, 4, 5), fit=(0, 6))}"
