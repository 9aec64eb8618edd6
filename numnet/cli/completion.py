"""Completion in the shell: ``eval "$(register-python-argcomplete numnet)"``. argcomplete does it, with numnet's parser.

The shell starts ``numnet`` with the line so far in the environment. Only the command of that line is imported.
"""

import os
import shlex

from numnet.cli.arguments import Parser

ASKED = "_ARGCOMPLETE"  # argcomplete's own sign that a shell asks for completions


def complete(commands, arguments_of) -> None:
    """Answer the shell and end the process; nothing if argcomplete is missing.

    commands: {name: Command}; arguments_of(name, parser) adds a command's arguments.
    """
    try:
        import argcomplete
    except ImportError:
        return
    argcomplete.autocomplete(parser(commands, arguments_of, line()), always_complete_options=False)


def line() -> str:
    """The command in the line that the shell wants completed; "" if it is not there yet."""
    try:
        words = shlex.split(os.environ.get("COMP_LINE", ""))
    except ValueError:  # a quotation that is still open
        words = os.environ.get("COMP_LINE", "").split()
    return words[1] if len(words) > 1 else ""


def parser(commands, arguments_of, name) -> Parser:
    """A parser of the whole command line, in which the command ``name`` has its arguments."""
    whole = Parser(prog="numnet")
    each = whole.add_subparsers(parser_class=Parser)
    for other, command in commands.items():
        part = each.add_parser(other, help=command.about)
        if other == name:
            arguments_of(name, part)
            for action in part._actions:
                if action.metavar in WORDS:
                    action.completer = WORDS[action.metavar]
    return whole


def _models(prefix, **_):
    from numnet.models import models

    return [*models(), *_files(prefix)]


def _datasets(prefix, **_):
    from numnet.data import BUILT_IN

    return [*BUILT_IN, *_files(prefix)]


def _recipes(prefix, **_):
    from numnet.training import recipes

    return [*recipes.names(), *_files(prefix)]


def _files(prefix):
    from argcomplete.completers import FilesCompleter

    return FilesCompleter()(prefix)


WORDS = {"MODEL": _models, "M": _models, "DATASET": _datasets, "NAME|FILE": _recipes}
