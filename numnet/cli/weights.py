"""``numnet import`` and ``numnet export``: weights from and to other frameworks."""

from pathlib import Path

from numnet.cli.arguments import (
    add_model_options,
    choice,
    columns,
    model_options,
    print_json,
    require_dataset,
    require_writable,
    say_notes,
)
from numnet.data import imagenet
from numnet.data.download import cache_folder
from numnet.data.transforms import SCALINGS
from numnet.data.transforms import scaling as scaling_named
from numnet.errors import NumnetError, tell
from numnet.loading import load, require_floats, require_trained
from numnet.net import KNOWN
from numnet.quantised import QuantisedNet

STATISTICS = 256  # images that batch norm's statistics are taken from
LAYOUTS = ("torchvision", "timm", "numnet")
KEPT = (*KNOWN, "command", "result")  # what a net for use still says of its making


def import_arguments(parser):
    parser.add_argument(
        "file", metavar="FILE",
        help="of Keras (.h5, .weights.h5, .keras), PyTorch (.safetensors, .pth, .pth.tar, .ckpt), PaddleClas (.pdparams) "
        "or TensorFlow Lite (.tflite, in eight bits)",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--out", required=True, metavar="CHECKPOINT", help="file to write (.safetensors)"
    )
    parser.add_argument("--model", metavar="M", help="one of those that `numnet models` lists (recognised)")
    about = "which set of weights, if a PyTorch file has several: averaged (default, if there is one), raw, or its name"
    parser.add_argument("--take", metavar="averaged|raw|NAME", help=about)
    about = "the net's name at timm, for facts that are in no tensor (padding, epsilon, scaling): tf_mobilenetv3_large_100"
    parser.add_argument("--published", metavar="NAME", help=about)
    about = f"input scaling, instead of the published one: {', '.join(SCALINGS)}"
    parser.add_argument("--scaling", type=choice(*SCALINGS), metavar="NAME", help=about)
    parser.add_argument("--float", action="store_true", help=".tflite: as a float net, to train it further")
    about = "with --float: take batch norm's statistics, which such a file has no more, from the images of this folder"
    parser.add_argument("--statistics", metavar="DIR", help=about)
    add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def import_(arguments):
    from numnet import weights

    require_writable(arguments.out, (".safetensors",))
    options = model_options(arguments)
    tflite = weights.is_tflite(arguments.file)
    if arguments.float and not tflite:
        raise NumnetError(
            f"--float: is for .tflite files, whose nets are in eight bits; got {arguments.file}"
        )
    if arguments.statistics is not None and not arguments.float:
        raise NumnetError("--statistics: is for --float, a net of eight bits as floats")
    if tflite and not arguments.float:
        _import_tflite(arguments, options)
        return
    if tflite:
        net = _floats(arguments, options)
    else:
        chosen = {"take": arguments.take, "published": arguments.published}
        net = weights.import_file(
            arguments.file, arguments.model, options.pop("width", None), **chosen, **options
        )
    say_notes(net)
    if arguments.scaling is not None and not tflite:
        net.scaling = scaling_named(arguments.scaling)
    net.save(arguments.out, input=net.scaling, classes=net.class_names, **net.document)
    facts = {**net.document["source"], **net.config, "params": net.flat.size, "checkpoint": arguments.out}
    if arguments.json:
        print_json({**facts, "input": net.scaling, "preset": net.document.get("preset"), "notes": net.notes})
        return
    left_out = ("dtype", "seed")
    lines = [(key, value) for key, value in facts.items() if key not in left_out]
    if net.document.get("preset"):
        lines.append(("images resized", net.document["preset"]))
    if net.class_names:
        lines.append(
            ("classes named", ", ".join(net.class_names[:5]) + (", …" if len(net.class_names) > 5 else ""))
        )
    print(
        columns([*lines, ("mean, std of x/255", f"{_few(net.scaling['mean'])}, {_few(net.scaling['std'])}")])
    )


def _import_tflite(arguments, options):
    """A net in eight bits, which says itself what it is."""
    from numnet import weights

    given = {
        "--model": arguments.model,
        "--take": arguments.take,
        "--published": arguments.published,
        **options,
    }
    for name, value in given.items():
        if value is not None:
            raise NumnetError(
                f"{name}: a .tflite file says itself what net it is; expected no {name} beside it"
            )
    net = weights.import_tflite(arguments.file)
    say_notes(net)
    if arguments.scaling is not None:
        net.scaling = scaling_named(arguments.scaling)
    net.save(arguments.out)
    facts = net.summary()
    if arguments.json:
        print_json({**net.document["source"], **facts, "checkpoint": arguments.out, "input": net.scaling})
        return
    size = "×".join(map(str, net.input_shape))
    lines = [
        *net.document["source"].items(),
        ("net", f"in eight bits: {len(net.steps)} steps, images of {size}, {net.classes:,} classes"),
        (
            "numbers",
            f"{facts['total_params']:,} in {facts['bytes']:,} bytes, {facts['macs']:,} MACs an image",
        ),
        ("checkpoint", arguments.out),
    ]
    print(columns(lines))


def _floats(arguments, options):
    """A net of eight bits as a float net, with batch norm put back."""
    from numnet import data, weights

    fixed = {"--take": arguments.take, "--published": arguments.published}
    fixed |= {f"--{name}": options.get(name) for name in ("resolution", "classes", "channels")}
    for name, value in fixed.items():
        if value is not None:
            raise NumnetError(f"{name}: is settled by the .tflite file; expected no {name} beside --float")
    if arguments.statistics is not None:
        require_dataset(arguments.statistics)
    whole = weights.import_tflite(arguments.file)
    if arguments.scaling is not None:  # before anything is computed with it
        whole.scaling = scaling_named(arguments.scaling)
    net = weights.to_floats(whole, arguments.model, options.pop("width", None), **options)
    if arguments.statistics is not None:
        images = data.load(
            arguments.statistics, resolution=net.input_shape[:2], preset=net.document.get("preset")
        )
        part = min(STATISTICS, len(images.train))
        x, _ = next(
            data.batches(images.train, batch_size=part, scaling=net.scaling, channels=net.input_shape[2])
        )
        weights.settle(net, x)
        net.notes[-1] = f"batch norm's statistics are those of {part} training images of {images.name}"
    return net


def _few(numbers) -> str:
    return "(" + " ".join(f"{number:.4g}" for number in numbers) + ")"


def export_arguments(parser):
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a .safetensors file, or a run directory's best"
    )
    parser.add_argument("file", metavar="FILE", help=".onnx, or .safetensors for PyTorch")
    about = (
        "names of a .safetensors file's tensors: torchvision or timm (the first that has the net), "
        "or numnet for a checkpoint without the training's state, its weights in half precision"
    )
    parser.add_argument("--layout", type=choice(*LAYOUTS), metavar="|".join(LAYOUTS), help=about)
    parser.add_argument("--fold", action="store_true", help=".onnx: fold batch norm into the convolutions")
    parser.add_argument(
        "--preprocess", action="store_true",
        help=".onnx: the graph takes bytes (N, H, W, 3) and scales them; else floats (N, 3, H, W)",
    )  # fmt: skip
    parser.add_argument(
        "--free-sides",
        action="store_true",
        help=".onnx: images of any height and width, not the net's own only",
    )
    parser.add_argument(
        "--softmax", action="store_true", help=".onnx: the graph returns probabilities, not logits"
    )
    about = ".onnx: the graph returns the maps of these layers too; names or patterns, separated by commas: stem,block*"
    parser.add_argument("--layers", metavar="NAMES", help=about)
    about = (
        "of a net in eight bits: maps of uint8 in place of int8, faster with ONNX Runtime on x86 with VNNI"
    )
    parser.add_argument("--unsigned", action="store_true", help=about)


def export(arguments):
    from numnet import weights
    from numnet.training.state import BEST, read_result
    from numnet.weights.torch import layout_for, nearest

    file = Path(arguments.file)
    require_writable(file, (".onnx", ".safetensors"))
    onnx = file.suffix.lower() == ".onnx"
    for name in (
        ("fold", "preprocess", "free_sides", "softmax", "layers", "unsigned") if not onnx else ("layout",)
    ):
        if getattr(arguments, name):
            option = f"--{name.replace('_', '-')}"
            raise NumnetError(f"{option}: is for {'.safetensors' if onnx else '.onnx'}, got {file.name}")
    net = load(arguments.checkpoint)
    if isinstance(net, QuantisedNet):
        for name in ("fold", "layers", "free_sides"):
            if getattr(arguments, name):
                require_floats(net, f"export --{name.replace('_', '-')}")
        if not onnx:
            require_floats(net, "export to .safetensors")
        _export_eights(net, file, arguments)
        return
    if arguments.unsigned:
        raise NumnetError(f"--unsigned: is for a net in eight bits; {net.path} is one of floats")
    if arguments.layout == "numnet":
        document = {key: net.document[key] for key in KEPT if net.document.get(key) is not None}
        if net.path.name == BEST and (net.path.parent / "result.json").is_file():  # it is of the best net
            result = read_result(net.path.parent / "result.json")
            document["result"] = {key: value for key, value in result.items() if key != "checkpoint"}
        net.save(file, half=True, input=net.scaling, classes=net.class_names, **document)
        return
    if net.classes:
        require_trained(net, "export")
    if not onnx:
        layout = layout_for(net, arguments.layout)
        weights.export_torch(net, file, layout)
        tensorflow, other = nearest(net, layout)
        if tensorflow and not other:
            tell(
                f"timm's module with tf_ before its name computes as this {net.config['model']} does; the one without takes "
                "these tensors, too, but computes otherwise"
            )
        elif other:
            own = f"{layout}'s own {'tf_ module for ' * tensorflow}{net.config['model']}"
            tell(
                f"{own} takes these tensors, but computes otherwise: {', '.join(other)}. Export .onnx, or train a net "
                "with the module's own settings (for most nets --padding symmetric --variant torch); numnet reads the "
                "file as it is"
            )
        return
    if arguments.softmax and not net.classes:
        raise NumnetError(f"--softmax: {net.path} has no classifier whose logits could become probabilities")
    maps = [name.strip() for name in (arguments.layers or "").split(",") if name.strip()]
    weights.export_onnx(
        net,
        file,
        folded=arguments.fold,
        maps=maps,
        free_sides=arguments.free_sides,
        **_graph_options(net, arguments),
    )


def _graph_options(net, arguments) -> dict:
    if arguments.preprocess and net.scaling is None:
        raise NumnetError(f"{net.path}: names no input scaling to put into the graph")
    scaling = net.scaling if arguments.preprocess else None
    return {"scaling": scaling, "class_names": _names(net), "softmax": arguments.softmax}


def _export_eights(net, file, arguments):
    from numnet import weights

    options = _graph_options(net, arguments)
    weights.export_quantised(net, file, unsigned=arguments.unsigned, **options)


def _names(net):
    """Names for the metadata: the checkpoint's; ImageNet's for a published net, if they lie in the cache already."""
    if net.class_names is not None or net.document.get("labels") != "imagenet":
        return net.class_names
    return imagenet.class_names() if (cache_folder() / imagenet.FILE).is_file() else None
