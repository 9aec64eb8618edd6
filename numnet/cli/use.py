"""``numnet eval`` and ``numnet predict``: a trained net on a test set, and on image files."""

from pathlib import Path

import numpy as np

from numnet import plotting
from numnet.cli.arguments import (
    Patience,
    add_threads,
    choice,
    columns,
    count,
    print_json,
    require_dataset,
    require_figure,
    say,
    set_threads,
)
from numnet.data import BUILT_IN, imagenet
from numnet.data.image import read_image
from numnet.data.transforms import PRESETS, SCALINGS
from numnet.data.transforms import scaling as scaling_named
from numnet.errors import NumnetError
from numnet.kernels.augment import scale
from numnet.kernels.loss import softmax
from numnet.loading import PACKAGED, load

BATCH = 64  # images decoded and shown to the net at a time
EXPLAINED = "explained.png"


def _add_input_options(parser):
    about = f"of the input, instead of the checkpoint's: {', '.join(SCALINGS)}"
    parser.add_argument("--scaling", type=choice(*SCALINGS), metavar="NAME", help=about)
    about = f"how photographs are brought to the resolution: {', '.join(PRESETS)}"
    parser.add_argument("--preset", type=choice(*PRESETS), metavar="NAME", help=about)
    add_threads(parser)


def _scaling(net, arguments):
    if arguments.scaling is not None:
        return scaling_named(arguments.scaling)
    if net.scaling is None:
        raise NumnetError(
            f"{net.path}: names no input scaling; name one with --scaling ({', '.join(SCALINGS)})"
        )
    return net.scaling


def _preset(net, arguments):
    """--preset, else as the run read its photographs. Images of the built-in sets come through untouched."""
    if arguments.preset is not None:
        return arguments.preset
    if net.document.get("dataset") in BUILT_IN:
        return "stretch"
    return (net.document.get("recipe") or {}).get("preset") or "torchvision"


def _compile(net):
    """One image through the net: only if that takes long there is something to say."""
    with Patience("compiling kernels (first run only)"):
        net.predict(np.zeros((1, *net.input_shape), net.dtype))


# ----------------------------------------------------------------------------------------- eval


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
    _add_input_options(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def eval(arguments):
    from numnet import data as datasets
    from numnet.training.evaluate import evaluate

    set_threads(arguments.threads)
    if arguments.figure:
        require_figure(arguments.figure, "--figure")
    require_dataset(arguments.dataset)
    net = load(arguments.checkpoint)
    scaling = _scaling(net, arguments)
    data = datasets.load(
        arguments.dataset, data_dir=arguments.data, memory=arguments.memory, resolution=net.input_shape[0],
        preset=_preset(net, arguments),
    )  # fmt: skip
    if len(data.classes) > net.classes:
        raise NumnetError(
            f"{net.path}: tells {net.classes} classes apart, {data.name} has {len(data.classes)}"
        )
    if net.class_names is not None and list(data.classes) != net.class_names[: len(data.classes)]:
        say(
            f"numnet: warning: {data.name} has other classes than the net was trained on "
            f"({_list(net.class_names)})"
        )
    split = data.test
    if split is None:
        split = data.validation
        say(
            f"numnet: {data.name} has no test images: these are its validation images, which may have chosen the net"
        )
    _compile(net)
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
            (row["label"], row["images"], f"{100 * row['accuracy']:.1f} %", _bar(row["accuracy"], 20), taken)
        )
    return f"{text}\n\n{columns(lines, right=(1, 2))}"


def _list(words, most=5) -> str:
    return ", ".join(words[:most]) + (", …" if len(words) > most else "")


# ----------------------------------------------------------------------------------------- predict


def predict_arguments(parser):
    about = "a .safetensors file or run directory (without: the net that comes with numnet), then image files"
    parser.add_argument("files", nargs="+", metavar="[CHECKPOINT] IMAGE", help=about)
    parser.add_argument("--top", type=count(), default=5, metavar="K", help="classes to name (5)")
    parser.add_argument("--figure", metavar="FILE", help="draw images and bars (.png, .pdf, .svg)")
    about = f"draw over each image what speaks for its first class (into --figure, or {EXPLAINED})"
    parser.add_argument("--explain", action="store_true", help=about)
    _add_input_options(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def predict(arguments):
    set_threads(arguments.threads)
    first, *images = arguments.files
    own = first.endswith(".safetensors") or Path(first).is_dir()
    if not own:
        first, images = PACKAGED, arguments.files
    if not images:
        raise NumnetError(f"predict: expected image files after the checkpoint {first}")
    figure = arguments.figure or (EXPLAINED if arguments.explain else None)
    if figure:
        require_figure(figure, "--figure")
    net = load(first)
    scaling, preset = _scaling(net, arguments), _preset(net, arguments)
    names = _class_names(net)
    _compile(net)
    results, rows = [], []
    for lo in range(0, len(images), BATCH):
        pixels, x = _read(net, images[lo : lo + BATCH], scaling, preset)
        for i, (image, p) in enumerate(zip(images[lo:], softmax(net.predict(x)))):
            top = (-p).argsort(kind="stable")[: arguments.top]
            top = [
                {"class": int(i), "label": names[i] if i < len(names) else str(i), "probability": float(p[i])}
                for i in top
            ]
            results.append({"image": image, "checkpoint": str(net.path), "top": top})
            if figure:
                rows.append({"pixels": pixels[i], "title": Path(image).name, "top": top})
            if arguments.explain:
                rows[-1]["map"] = plotting.class_activation_maps(net, x[i : i + 1])[0, ..., top[0]["class"]]
    if not own:
        accuracy = net.document["result"]["test_accuracy"]
        say(
            f"numnet: no checkpoint given: the net that comes with numnet, for {_list(net.class_names, 10)} "
            f"({100 * accuracy:.1f} % of {net.document['dataset']}'s test images)"
        )
    if figure:
        plotting.photos(rows, figure)
        say(f"figure: {figure}")
    if arguments.json:
        print_json(results)
        return
    for result in results:
        lines = [
            (f"  {row['label']}", f"{100 * row['probability']:.1f} %", _bar(row["probability"]))
            for row in result["top"]
        ]
        print(f"{result['image']}\n{columns(lines, right=(1,))}")


def _class_names(net) -> list[str]:
    """The checkpoint's names; ImageNet's for a published net; else none."""
    if net.class_names is not None or net.document.get("labels") != "imagenet":
        return net.class_names or []
    names = imagenet.class_names()
    if names is None:
        say(f"numnet: {imagenet.hint()}")
    return names or []


def _read(net, files, scaling, preset):
    """Image files as pixels uint8 (N, H, W, 3), and as the net's input."""
    pixels = np.stack([read_image(file, net.input_shape[0], preset) for file in files])
    return pixels, scale(pixels, scaling["mean"], scaling["std"], net.dtype)


def _bar(part, width=30) -> str:
    """A bar of up to ``width`` characters, in eighths of one."""
    eighths = round(8 * width * part)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
