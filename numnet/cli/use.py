"""What ``numnet eval`` and ``numnet predict`` share: how photographs come to a trained net, and how shares are shown."""

import numpy as np

from numnet.cli.arguments import Patience, add_threads, choice
from numnet.data import BUILT_IN
from numnet.data.transforms import PRESETS, SCALINGS
from numnet.data.transforms import scaling as scaling_named
from numnet.errors import NumnetError


def add_input_options(parser):
    about = f"of the input, instead of the checkpoint's: {', '.join(SCALINGS)}"
    parser.add_argument("--scaling", type=choice(*SCALINGS), metavar="NAME", help=about)
    about = f"how photographs are brought to the resolution: {', '.join(PRESETS)}"
    parser.add_argument("--preset", type=choice(*PRESETS), metavar="NAME", help=about)
    add_threads(parser)


def input_scaling(net, arguments):
    if arguments.scaling is not None:
        return scaling_named(arguments.scaling)
    if net.scaling is None:
        raise NumnetError(
            f"{net.path}: names no input scaling; name one with --scaling ({', '.join(SCALINGS)})"
        )
    return net.scaling


def input_preset(net, arguments):
    """--preset, else as the run read its photographs. Images of the built-in sets come through untouched."""
    if arguments.preset is not None:
        return arguments.preset
    if net.document.get("dataset") in BUILT_IN:
        return "stretch"
    return (net.document.get("recipe") or {}).get("preset") or "torchvision"


def compile_net(net):
    """One image through the net: only if that takes long there is something to say."""
    with Patience("compiling kernels (first run only)"):
        net.predict(np.zeros((1, *net.input_shape), net.dtype))


def bar(part, width=30) -> str:
    """A bar of up to ``width`` characters, in eighths of one."""
    eighths = round(8 * width * part)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def listed(words, most=5) -> str:
    return ", ".join(words[:most]) + (", …" if len(words) > most else "")
