"""The reference: signatures and docstrings of the public names, and the help of every command, as numnet itself has them."""

import ast
import contextlib
import importlib
import inspect
import io
import os
import re
from pathlib import Path

from prose import escaped, fence, markdown

MODULES = {  # page: its title, and the modules whose public names it lists
    "numnet": ("The top level", ["numnet"]),
    "kernels": ("Kernels: functions on arrays", ["numnet.kernels"]),
    "layers": ("Layers and blocks", ["numnet.layers", "numnet.blocks", "numnet.initialisers"]),
    "models": ("Models", ["numnet.models", "numnet.models.common", "numnet.models.searched"]),
    "cost": ("Costs", ["numnet.cost"]),
    "inference": ("Inference", ["numnet.inference"]),
    "data": (
        "Data",
        [
            "numnet.data",
            "numnet.data.folder",
            "numnet.data.lists",
            "numnet.data.deep",
            "numnet.data.mixing",
            "numnet.data.transforms",
            "numnet.data.shapes",
            "numnet.data.cifar10",
        ],
    ),
    "training": (
        "Training",
        [
            "numnet.training",
            "numnet.training.loop",
            "numnet.training.optimisers",
            "numnet.training.schedules",
            "numnet.training.recipes",
            "numnet.training.evaluate",
            "numnet.training.sweep",
        ],
    ),
    "search": (
        "Search",
        [
            "numnet.search.space",
            "numnet.search.latency",
            "numnet.search.reward",
            "numnet.search.evolution",
            "numnet.search.run",
            "numnet.search.log",
            "numnet.search.front",
        ],
    ),
    "weights": ("Weights from and for elsewhere", ["numnet.weights", "numnet.loading", "numnet.checkpoint"]),
    "parallel": ("Several processes", ["numnet.parallel", "numnet.parallel.scaling"]),
    "plotting": ("Figures", ["numnet.plotting", "numnet.drawing"]),
}
TOP = "build describe models load load_weights fit Net check_gradients softmax_cross_entropy NumnetError".split()


def pages():
    """(path below docs, MyST text) of every page of the reference."""
    for name, (title, modules) in MODULES.items():
        yield f"reference/{name}.md", _page(title, modules)
    yield "reference/cli.md", _commands()
    entries = "\n".join([*MODULES, "cli"])
    listed = "\n".join(f"* [{title}]({name}.md)" for name, (title, _) in MODULES.items())
    yield (
        "reference/index.md",
        "# Reference\n\nWhat the docstrings say, and what `numnet COMMAND --help` prints.\n\n"
        f"{listed}\n* [The command line](cli.md)\n\n```{{toctree}}\n:hidden:\n\n{entries}\n```\n",
    )


def _page(title, modules):
    out = [f"# {title}"]
    for name in modules:
        module = importlib.import_module(name)
        if len(modules) > 1:
            out.append(f"## `{name}`")
        out.append(markdown(module.__doc__, columns=True, module=True))
        for member in members(module):
            thing = getattr(module, member)
            out.append(_class(name, thing) if inspect.isclass(thing) else _function(name, member, thing))
    return "\n\n".join(out) + "\n"


def members(module) -> list[str]:
    """The public names: functions and classes defined in the file, or imported there as ``X as X``."""
    if module.__name__ == "numnet":
        return TOP
    found = []
    for node in ast.parse(Path(module.__file__).read_text("utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.append(node.name)
        elif isinstance(node, ast.ImportFrom):
            found += [alias.name for alias in node.names if alias.asname == alias.name]
    found = [name for name in found if not name.startswith("_")]
    return [name for name in found if callable(getattr(module, name)) and getattr(module, name).__doc__]


def _signature(thing):
    try:
        text = str(inspect.signature(thing))
    except (TypeError, ValueError):
        return "(...)"
    return re.sub(r"<[^>]*>", "...", text).replace("numnet.net.", "").replace("'", '"')


def _function(module, name, thing, kind="py:function"):
    said = markdown(thing.__doc__ or "", columns=True)
    return f"`````{{{kind}}} {module}.{name}{_signature(thing)}\n\n{said}\n`````"


def _class(module, thing):
    methods = [
        f"``````{{py:method}} {name}{_signature(method).replace('(self, ', '(').replace('(self)', '()')}\n\n"
        f"{markdown(method.__doc__, columns=True)}\n``````"
        for name, method in vars(thing).items()
        if inspect.isfunction(method) and method.__doc__ and not name.startswith("_")
    ]
    own = thing.__doc__ or ""
    if own.startswith(f"{thing.__name__}("):  # what NamedTuple writes by itself
        own = ""
    body = "\n\n".join([markdown(own, columns=True), *methods])
    return f"```````{{py:class}} {module}.{thing.__name__}{_signature(thing)}\n\n{body}\n```````"


def _commands():
    from numnet.cli.commands import COMMANDS, main

    os.environ["COLUMNS"] = "100"
    out = ["# The command line", "What each command prints with `--help`."]
    for name, command in COMMANDS.items():
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            assert main([name, "--help"]) == 0
        about = command.about[0].upper() + command.about[1:]
        out += [
            f"(command-{name})=\n## numnet {name}",
            escaped(about) + ".",
            fence(text.getvalue().rstrip(), "text"),
        ]
    return "\n\n".join(out) + "\n"
