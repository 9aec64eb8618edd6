"""What the commands share that use a trained net: how photographs come to it, and how shares are shown."""

import copy
import re

import numpy as np

from numnet import ahead
from numnet.cli.arguments import add_threads, choice, say_notes
from numnet.data import imagenet
from numnet.data.image import BACKGROUNDS
from numnet.data.transforms import PRESETS, SCALINGS, is_preset
from numnet.data.transforms import scaling as scaling_named
from numnet.errors import NumnetError, tell
from numnet.loading import load_any, require_trained
from numnet.training.console import Compiling
from numnet.weights.source import background_of, preset_of


def add_input_options(parser):
    about = f"input scaling, instead of the checkpoint's: {', '.join(SCALINGS)}"
    parser.add_argument("--scaling", type=choice(*SCALINGS), metavar="NAME", help=about)
    about = f"how photographs are resized: {', '.join(PRESETS)}, bicubic/0.9"
    parser.add_argument("--preset", type=_preset, metavar="NAME", help=about)
    about = "colour behind transparent pixels: white, black, grey (default: their hidden colour)"
    parser.add_argument("--background", type=choice(*BACKGROUNDS), metavar="NAME", help=about)
    add_threads(parser)


def _preset(text):
    return text if is_preset(text) else choice(*PRESETS, "bicubic/0.9")(text)


def trained_net(path, command):
    """The net of a checkpoint, or of another framework's file, for a command that needs a whole one."""
    net = load_any(path)
    say_notes(net)
    require_trained(net, command)
    return net


def input_scaling(net, arguments):
    if arguments.scaling is not None:
        return scaling_named(arguments.scaling)
    if net.scaling is None:
        raise NumnetError(
            f"{net.path}: names no input scaling; name one with --scaling ({', '.join(SCALINGS)})"
        )
    return net.scaling


def input_preset(net, arguments):
    """--preset, else as the run read its photographs or as the net was published; built-in sets stay untouched."""
    return arguments.preset or preset_of(net.document) or "torchvision"


def input_background(net, arguments):
    """--background, else as the run had it."""
    return arguments.background or background_of(net.document)


def class_names(net, classes=()):
    """The names of the net's classes, ImageNet's as a data set with these ``classes`` has them; None if not known."""
    if net.class_names is not None or net.document.get("labels") != "imagenet":
        return net.class_names
    ids = bool(classes) and all(re.fullmatch(r"n\d{8}", name) for name in classes)
    known = imagenet.class_ids() if ids else imagenet.class_names()
    if known is None:
        tell(imagenet.hint())
    return known


def compile_net(net, images=1):
    """Compile what ``predict`` needs for so many images, on all cores at once, and show how far that is."""
    images = min(images, 8)  # many or few: no other kernels
    ahead.prepare(
        lambda: copy.deepcopy(net).predict(np.zeros((images, *net.input_shape), net.dtype)), Compiling()
    )


def bar(part, width=30) -> str:
    """A bar of up to ``width`` characters, in eighths of one."""
    eighths = round(8 * width * part)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
