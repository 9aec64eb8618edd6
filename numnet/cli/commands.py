"""The table of commands, and what all of them share: usage, errors, exit codes."""

import codecs
import os
import signal
import sys
import threading
from contextlib import contextmanager
from importlib import import_module
from keyword import iskeyword
from typing import NamedTuple

from numnet import __version__
from numnet.cli import completion
from numnet.cli.arguments import Parser, nearest
from numnet.errors import NumnetError, tell


class Command(NamedTuple):
    """``numnet.cli.<module>`` has the functions ``<name>_arguments(parser)`` and ``<name>(arguments)``."""

    module: str
    about: str


COMMANDS = {
    "models": Command("nets", "the nets that numnet builds"),
    "summary": Command("nets", "a net layer by layer: output shapes, parameters, multiply-accumulates"),
    "draw": Command("nets", "a net as a picture on one page"),
    "cost": Command("nets", "cost of nets, layer by layer and by type of layer; several side by side"),
    "train": Command("train", "train a net on CIFAR-10, the built-in shapes or a folder of images"),
    "sweep": Command("train", "do the trainings that a file lists, one after another"),
    "eval": Command("evaluate", "accuracy and loss of a trained net on a test set"),
    "predict": Command("predict", "classify image files with a trained net"),
    "probe": Command("probe", "a linear classifier on a net's features: what they know of other classes"),
    "data": Command("data", "fetch CIFAR-10, or check your own copy, and say where it is"),
    "quantise": Command("quantise", "a trained net in eight bits, and what that does to each layer"),
    "import": Command("weights", "weights of Keras, PyTorch or PaddleClas as a checkpoint"),
    "export": Command("weights", "a checkpoint as .onnx, or as .safetensors for PyTorch"),
    "build": Command("search", "a net from a name or from one line of text; print it, save it"),
    "latency": Command("latency", "times of all blocks on this machine, and what nets take by them"),
    "search": Command("search", "search for nets that are accurate and fast on this machine"),
    "scale": Command("scale", "predict the time of a step on many ranks (MPI), and the speed-up"),
    "bench": Command("bench", "speed and memory, compared with PyTorch and ONNX Runtime"),
    "course": Command("course", "the notebooks without and with solutions, for teaching; and their points"),
    "info": Command("info", "versions, threads, lanes, cache; or the settings of a run"),
}

RANKS = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")  # by which launchers number
USAGE = "usage: numnet COMMAND [arguments]      numnet COMMAND --help\n\n{}\n"


def _byte_or_question(error):
    """What a stream writes for what its encoding lacks: "?"; for a byte of a file's name that is no text the byte."""
    part = error.object[error.start : error.end]
    kept = (bytes([ord(sign) - 0xDC00]) if 0xDC80 <= ord(sign) <= 0xDCFF else b"?" for sign in part)
    return b"".join(kept), error.end


codecs.register_error("numnet", _byte_or_question)


def main(argv=None) -> int:
    """Run the command in ``argv`` (the process's arguments if None) and return the exit code."""
    argv = sys.argv[1:] if argv is None else [str(argument) for argument in argv]
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a sign gets "?", not a traceback
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="numnet")
    try:
        with _ended_by_signals():
            _run(argv)
            if sys.stdout is not None:
                sys.stdout.flush()
        return 0
    except NumnetError as error:
        return _fail(error)
    except BrokenPipeError:
        return 141
    except KeyboardInterrupt:
        return 130
    except MemoryError as error:
        return _fail(f"not enough memory ({error})" if str(error) else "not enough memory")
    except OSError as error:
        if not error.strerror:
            raise
        if error.filename is None:  # standard output, on a full disk for example
            return _fail(error.strerror)
        return _fail(f"{os.fsdecode(error.filename)}: {error.strerror}")
    finally:
        _flush()


class Leave:
    """A handler that ends the command as Ctrl-C does: half-written files are removed on the way out.

    It raises, and stores the signal in ``heard``: a signal may come while Python runs a callback of a library
    written in C, or clean-up code, whose exceptions are lost. ``end`` still finds it there.
    """

    heard = None  # the number of the signal

    def __call__(self, number, frame):
        self.heard = number
        self.end()

    def end(self):
        """Raise what ends the process with 128 and the signal's number; nothing if there was none."""
        if self.heard == signal.SIGINT:
            raise KeyboardInterrupt
        if self.heard is not None:
            raise SystemExit(128 + self.heard)

    def hook(self, usual):
        """``sys.unraisablehook``: Python prints a traceback of an exception that is lost; not of one raised here."""
        ours = (KeyboardInterrupt, SystemExit)
        return lambda lost: None if self.heard and isinstance(lost.exc_value, ours) else usual(lost)


@contextmanager
def _ended_by_signals():
    """Inside, Ctrl-C, SIGTERM and SIGHUP end the command. A training has its own handlers, which save first."""
    before, leave, hook = {}, Leave(), sys.unraisablehook
    sys.unraisablehook = leave.hook(hook)
    if threading.current_thread() is threading.main_thread():
        for name, usual in (
            ("SIGINT", signal.default_int_handler),
            ("SIGTERM", signal.SIG_DFL),
            ("SIGHUP", signal.SIG_DFL),
        ):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is usual:
                before[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook
        leave.end()  # also in place of an error: clean-up that was cut short may raise one


def _arguments_of(name, parser) -> None:
    """Add the arguments of a command to its parser."""
    module = import_module(f"numnet.cli.{COMMANDS[name].module}")
    getattr(module, f"{name}_arguments")(parser)


def _run(argv) -> None:
    if completion.ASKED in os.environ:
        completion.complete(COMMANDS, _arguments_of)
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print(
            USAGE.format(
                "\n".join(f"  {name:{width}}  {command.about}" for name, command in COMMANDS.items())
            )
        )
        return
    if argv[0] == "--version":
        print(f"numnet {__version__}")
        return
    name, *rest = argv
    if name not in COMMANDS:
        what = "option" if name.startswith("-") else "command"
        raise NumnetError(
            f"unknown {what} {name!r}{nearest(name, COMMANDS)}; expected one of {', '.join(COMMANDS)}"
        )
    parser = Parser(prog=f"numnet {name}", description=COMMANDS[name].about)
    _arguments_of(name, parser)
    arguments = _parsed(parser, rest)
    if arguments is not None:
        module = import_module(f"numnet.cli.{COMMANDS[name].module}")
        getattr(module, f"{name}_" if iskeyword(name) else name)(arguments)


def _parsed(parser, words):
    """The arguments; of several ranks (``mpiexec``), which all have the same words, the first says what is wrong."""
    try:
        return parser.parse(words)
    except NumnetError:
        if any(os.environ.get(name, "0") != "0" for name in RANKS):
            raise SystemExit(2) from None
        raise


def _fail(error) -> int:
    """The one line."""
    tell("error: " + " ".join(str(error).split()))
    return 2


def _flush() -> None:
    """Write what is left for standard output and error; discard it where nobody reads, or Python ends with code 120."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except (OSError, ValueError):
                _discard(stream)


def _discard(stream) -> None:
    """What is left in a stream, and what still comes, goes nowhere."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass  # a stream that is no file
