"""``numnet predict``: what a trained net sees in image files."""

from pathlib import Path

import numpy as np

from numnet import plotting
from numnet.cli.arguments import columns, count, print_json, require_figure, say, set_threads
from numnet.cli.use import (
    add_input_options,
    bar,
    compile_net,
    input_preset,
    input_scaling,
    trained_net,
)
from numnet.data import imagenet
from numnet.data.image import read_image
from numnet.data.names import listed
from numnet.errors import NumnetError
from numnet.kernels.augment import scale
from numnet.kernels.loss import softmax
from numnet.loading import PACKAGED
from numnet.weights import is_foreign

BATCH = 64  # images decoded and shown to the net at a time
EXPLAINED = "explained.png"


def predict_arguments(parser):
    about = "a .safetensors file or run directory (without: the net that comes with numnet), then image files"
    parser.add_argument("files", nargs="+", metavar="[CHECKPOINT] IMAGE", help=about)
    parser.add_argument("--top", type=count(), default=5, metavar="K", help="classes to name (5)")
    parser.add_argument("--figure", metavar="FILE", help="draw images and bars (.png, .pdf, .svg)")
    about = f"draw over each image what speaks for its first class (into --figure, or {EXPLAINED})"
    parser.add_argument("--explain", action="store_true", help=about)
    about = "draw what the net's layers make of one photograph, block by block (.png, .pdf, .svg)"
    parser.add_argument("--maps", metavar="FILE", help=about)
    about = "layers for --maps, by name or pattern, apart by commas: block3, block*.depthwise (all blocks)"
    parser.add_argument("--layers", metavar="NAMES", help=about)
    add_input_options(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def predict(arguments):
    set_threads(arguments.threads)
    first, *images = arguments.files
    own = first.endswith(".safetensors") or Path(first).is_dir() or is_foreign(first)
    if not own:
        first, images = PACKAGED, arguments.files
    if not images:
        raise NumnetError(f"predict: expected image files after the checkpoint {first}")
    figure = arguments.figure or (EXPLAINED if arguments.explain else None)
    if figure:
        require_figure(figure, "--figure")
    if arguments.maps:
        require_figure(arguments.maps, "--maps")
        if len(images) != 1:
            raise NumnetError(f"--maps: draws one photograph; expected one image file, got {len(images)}")
    elif arguments.layers:
        raise NumnetError("--layers: says which maps to draw; expected --maps FILE beside it")
    net = trained_net(first, "predict")
    scaling, preset = input_scaling(net, arguments), input_preset(net, arguments)
    names = _class_names(net)
    compile_net(net)
    results, rows = [], []
    for lo in range(0, len(images), BATCH):
        pixels, x = _read(net, images[lo : lo + BATCH], scaling, preset)
        if arguments.maps:
            _draw_maps(net, pixels, x, arguments)
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
            f"numnet: no checkpoint given: the net that comes with numnet, for {listed(net.class_names, 10)} "
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
            (f"  {row['label']}", f"{100 * row['probability']:.1f} %", bar(row["probability"]))
            for row in result["top"]
        ]
        print(f"{result['image']}\n{columns(lines, right=(1,))}")


def _draw_maps(net, pixels, x, arguments):
    """The picture of --maps."""
    names = arguments.layers.split(",") if arguments.layers else _outer(net)
    plotting.layer_maps(pixels[0], net.maps(x, *(name.strip() for name in names)), arguments.maps)
    say(f"figure: {arguments.maps}")


def _outer(net) -> list[str]:
    """The layers and blocks whose output has rows and columns."""
    return [layer.name for layer in net.layers if len(layer.output_shape) == 3]


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
