"""Completion in the shell: what argcomplete answers for the beginning of a line."""

import os
import subprocess
import sys

import pytest

from numnet.cli import commands, completion

pytest.importorskip("argcomplete")


def completed(line, tmp_path):
    """The words that the shell would offer at the end of ``line``."""
    answer = tmp_path / "answer"
    answer.touch()
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line.encode())),
        "COMP_TYPE": "9",
    }
    script = "from numnet.cli import main; raise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and done.stdout == "", done.stderr
    return {word.strip() for word in answer.read_text().split("\n")}


@pytest.mark.parametrize(
    "line, offered",
    [
        ("numnet su", {"summary"}),
        ("numnet summary mobilenet_v3_l", {"mobilenet_v3_large", "mobilenet_v3_large_minimalistic"}),
        ("numnet train --keep", {"--keep-every"}),
        ("numnet train sh", {"shapes"}),
        ("numnet train shapes --recipe finetune_v3_", {"finetune_v3_large", "finetune_v3_small"}),
    ],
)
def test_the_shell_is_offered(line, offered, tmp_path):
    assert completed(line, tmp_path) == offered


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_the_whole_parser_has_every_command(name, monkeypatch):
    """Each command's arguments fit beside the others."""
    asked = []
    monkeypatch.setattr(commands, "_arguments_of", lambda name, part: asked.append(name))
    completion.parser(commands.COMMANDS, commands._arguments_of, name)
    assert asked == [name]


def test_an_open_quotation(monkeypatch):
    monkeypatch.setenv("COMP_LINE", "numnet predict 'my ph")
    assert completion.line() == "predict"
