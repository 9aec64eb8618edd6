"""A parser whose mistakes are one line, kinds of values, and the options that several commands share."""

import argparse
import json
import os
import re
import shutil
import threading
from math import isfinite
from pathlib import Path

from numnet import cores
from numnet.cli import elsewhere
from numnet.cli.tables import columns as columns
from numnet.data import BUILT_IN
from numnet.errors import NumnetError, tell
from numnet.errors import say as say
from numnet.loading import describe_checkpoint, require_floats
from numnet.models import describe, models
from numnet.models.names import hint
from numnet.texts import nearest as nearest
from numnet.weights.kinds import ENDINGS, OTHERS


class Parser(argparse.ArgumentParser):
    """argparse, except that a mistake raises NumnetError and that options may stand among the arguments."""

    def __init__(self, **options):
        super().__init__(**options, allow_abbrev=False, formatter_class=_wide)

    def parse(self, argv):
        """The arguments, or None if help was asked for and printed. Raises NumnetError."""
        if any(argument in ("-h", "--help") for argument in argv):
            self.print_help()
            return None
        elsewhere.answer(self.prog, argv, self._option_string_actions)
        arguments, rest = self.parse_known_intermixed_args(argv)
        for argument in rest:
            if argument.startswith("-") and len(argument) > 1:
                name = argument.partition("=")[0]
                raise NumnetError(
                    f"{self.prog} has no option {name}{hint(name, self._option_string_actions, '--')}; "
                    f"see `{self.prog} --help`"
                )
            raise NumnetError(f"{self.prog}: one argument too many, {argument!r}; see `{self.prog} --help`")
        return arguments

    def error(self, message):
        message = re.sub(r"^argument ([^/:]+)[^:]*:", r"\1:", message)  # of two names for an option the first
        missing = re.fullmatch(r"the following arguments are required: (.*)", message)
        if missing:
            message = f"{self.prog}: {missing[1]} is missing; see `{self.prog} --help`"
        raise NumnetError(message)


def _wide(prog):
    return argparse.HelpFormatter(
        prog, max_help_position=30, width=min(100, shutil.get_terminal_size().columns)
    )


# ----------------------------------------------------------------------------------------- kinds of values


def number(*, above=None, least=None, below=None, most=None):
    """A finite number within bounds."""
    words = [
        f"{word} {bound:g}"
        for word, bound in (("above", above), ("at least", least), ("below", below), ("at most", most))
        if bound is not None
    ]

    def convert(text):
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        fits = isfinite(value) and (above is None or value > above) and (least is None or value >= least)
        if not fits or (below is not None and value >= below) or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"expected a number {', '.join(words)}, got {text!r}")
        return value

    return convert


def count(least=1):
    """An integer from ``least``."""

    def convert(text):
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"expected an integer of at least {least}, got {text!r}")
        return value

    return convert


def sides(text):
    """A side in pixels, or height x width as [height, width]."""
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) == 1:
        return count()(text)
    try:
        numbers = [int(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != 2 or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"expected pixels, 224, or height x width, 96x160; got {text!r}")
    return numbers


def choice(*known):
    """One of some words."""

    def convert(text):
        if text not in known:
            raise argparse.ArgumentTypeError(
                f"expected one of {', '.join(known)}, got {text!r}{nearest(text, known)}"
            )
        return text

    return convert


def assignment(text):
    """KEY=VALUE as (key, value); the value is JSON, and what is not JSON is a text."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    return key.strip().replace("-", "_"), plain(value)


def plain(text):
    """A value as JSON has it, or the text itself; None, True and False as Python writes them too."""
    try:
        return json.loads({"None": "null", "True": "true", "False": "false"}.get(text, text))
    except ValueError:
        return text


# ----------------------------------------------------------------------------------------- shared options

FIGURES = (".png", ".pdf", ".svg")
MODEL_OPTIONS = ("width", "resolution", "classes", "channels", "padding", "strides", "variant", "dropout")


def add_model_options(parser, classes=True):
    """The keywords of ``numnet.build`` as options; one that is not given stays out of the namespace."""
    group = parser.add_argument_group("the net")

    def add(flag, **options):
        group.add_argument(flag, default=argparse.SUPPRESS, **options)

    add(
        "--width",
        type=number(above=0, most=8),
        metavar="W",
        help="width multiplier: scales the channels of every layer (1.0)",
    )
    add(
        "--resolution",
        type=sides,
        metavar="R|HxW",
        help="side of the input in pixels (224), or height x width",
    )
    if classes:
        add("--classes", type=count(0), metavar="K", help="length of the output (1000); 0: no classifier")
    add("--channels", type=count(), metavar="C", help="of a pixel (3); 1: grey images")
    add(
        "--padding",
        type=choice("same", "symmetric"),
        metavar="same|symmetric",
        help="padding as in TensorFlow (same) or PyTorch (symmetric)",
    )
    add("--strides", type=choice("imagenet", "cifar"), metavar="imagenet|cifar",
        help="cifar: 32×32 inputs keep their size in the first layers")  # fmt: skip
    add("--variant", type=choice("keras", "torch", "paddle"), metavar="keras|torch|paddle",
        help="details as in this framework: rounding of widths, batch norm, activations (keras)")  # fmt: skip
    add("--dropout", type=number(least=0, below=1), metavar="P", help="dropout rate before the last layer")
    group.add_argument(
        "--set",
        type=assignment,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other keyword of numnet.build: --set separable=false --set bn_eps=1e-5",
    )


def model_options(arguments) -> dict:
    """The keywords for ``numnet.build`` that were given."""
    given = {name: getattr(arguments, name) for name in MODEL_OPTIONS if hasattr(arguments, name)}
    for key, value in arguments.set:
        if key in given or key == "model":
            raise NumnetError(f"--set {key}: expected --{key} instead")
        if key == "dtype" and value not in ("float32", "float64"):
            raise NumnetError(f"--set dtype: expected float32 or float64, got {value!r}")
        given[key] = value
    return given


def described(model, **options):
    """``numnet.describe``; a keyword of a kind that no net can have is the user's mistake here."""
    return _counted(describe, model, options)


def _counted(make, model, options):
    try:
        net = make(model, **options)
        net.cost()
    except TypeError as error:
        raise NumnetError(f"{model}: a keyword has a value of the wrong kind ({error})") from None
    return net


MODEL = "one of those that `numnet models` lists, or a checkpoint, run directory or another framework's file"


def described_or_saved(model, *, eights=None, **options):
    """``described``, or the net of a checkpoint with ``options`` in place of its own.

    ``eights``: what to do with a net in eight bits; None is what needs floats and refuses it.
    """
    ending = os.path.splitext(model)[1].lower()
    saved = model not in models() and (
        ending in (*ENDINGS, *OTHERS) or os.sep in model or os.path.exists(model)
    )
    net = _counted(describe_checkpoint if saved else describe, model, options)
    if eights is None:
        require_floats(net, "this command")
    say_notes(net)
    return net


def require_dataset(dataset, data=None) -> None:
    """Raise NumnetError if that is neither a built-in data set nor a path; ``data``: where --data says that it lies."""
    if data is not None and dataset != "cifar10":
        what = "comes with numnet" if dataset in BUILT_IN else "is a path itself"
        raise NumnetError(f"--data: says where CIFAR-10 lies; {dataset} {what}, expected no --data")
    if dataset not in BUILT_IN and not os.path.exists(dataset):
        words = f"expected {', '.join(BUILT_IN)} or the path of an image folder"
        raise NumnetError(f"data set: {words}, got {dataset!r}{nearest(dataset, BUILT_IN)}")


def add_threads(parser):
    """--threads."""
    parser.add_argument(
        "--threads",
        type=count(),
        metavar="T",
        help="threads of the kernels (all cores, or a container's quota)",
    )


def set_threads(threads) -> None:
    """Let the kernels run on so many threads; None: on all cores, or as many as a container's quota is worth."""
    import numba

    require_threads()
    if threads is None:
        cores.keep_to_quota()
        return
    most = numba.config.NUMBA_NUM_THREADS
    if threads > most:
        why = "as NUMBA_NUM_THREADS says" if "NUMBA_NUM_THREADS" in os.environ else "one for each core"
        raise NumnetError(f"--threads: expected 1 to {most}, {why}, got {threads}")
    numba.set_num_threads(threads)


def require_threads() -> None:
    """Raise NumnetError if Numba cannot start its threads, as the user's variables have it."""
    import numba

    try:
        numba.get_num_threads()  # starts them
    except ValueError as error:
        why = " ".join(str(error).split())
        raise NumnetError(
            f"NUMBA_NUM_THREADS, NUMBA_THREADING_LAYER: Numba starts no threads ({why})"
        ) from None


# ----------------------------------------------------------------------------------------- output


def print_json(document) -> None:
    """One document on standard output; numbers that are not finite, which JSON does not have, become null."""
    print(json.dumps(_finite(document), indent=1, allow_nan=False))


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def say_notes(net) -> None:
    """What was assumed, chosen or left out when another framework's file became this net."""
    for note in getattr(net, "notes", ()):
        tell(f"{net.path.name}: {note}")


class IfSlow:
    """Says ``text`` if what is done inside takes longer than ``seconds``. A training's start ends the wait too."""

    def __init__(self, text, seconds=3.0):
        self.timer = threading.Timer(seconds, say, [text])
        self.timer.daemon = True

    def __enter__(self):
        self.timer.start()
        return self

    def __exit__(self, *error):
        self.timer.cancel()

    def on_start(self, run):
        self.timer.cancel()


def require_figure(file, option) -> None:
    """Raise NumnetError, before the work, if a figure could not be written to ``file`` after it."""
    if not file.lower().endswith(FIGURES):
        raise NumnetError(f"{option}: expected a name that ends in {', '.join(FIGURES)}, got {file!r}")
    folder = os.path.dirname(os.path.abspath(file))
    if os.path.isdir(file):
        raise NumnetError(f"{option}: {file} is a folder, expected a file name")
    if not os.path.isdir(folder):
        raise NumnetError(f"{option}: no folder {os.path.dirname(file)} for {os.path.basename(file)}")
    if not os.access(folder, os.W_OK):
        raise NumnetError(f"{option}: the folder {folder} cannot be written to")


def require_writable(file, endings) -> None:
    """Raise NumnetError before the work for a file that could not be written after it."""
    file = Path(file)
    if file.suffix.lower() not in endings:
        raise NumnetError(f"{file}: expected a file name that ends in {' or '.join(endings)}")
    if file.is_dir():
        raise NumnetError(f"{file} is a folder, expected a file name")
    if not file.parent.is_dir():
        raise NumnetError(f"{file}: no folder {file.parent}")
    if not os.access(file.parent, os.W_OK):
        raise NumnetError(f"{file}: the folder {file.parent} cannot be written to")
