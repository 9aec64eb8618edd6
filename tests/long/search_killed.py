"""Kills a real search again and again, by SIGKILL at random moments, and compares its log with that of one left alone.

    python tests/long/search_killed.py --kills 10

Each kill ends the process group of `numnet search`; then `--resume` goes on. The times of blocks are made up, so that the
search begins at once and its log is the same on every machine.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from numnet.models import describe
from numnet.search import latency, log
from numnet.search.blocks import words
from numnet.search.space import SPACES

OPTIONS = [
    "shapes",
    "--latency",
    "1ms",
    "--epochs",
    "1",
    "--images",
    "100",
    "--side",
    "8",
    "--population",
    "4",
]


def write_table(path) -> None:
    """A table in which a word of n letters takes n/2 µs."""
    table = latency.Table({"processor": "made up", "threads": 1})
    for line in latency.carriers(SPACES["32"], classes=10):
        layers = [0.5e-6 * len(text) for text in words(describe(line, classes=10))]
        table.note(line, {"classes": 10}, "infer-1", layers, sum(layers))
    table.write(path)


def start(*arguments):
    """`numnet` as a process group of its own."""
    command = [sys.executable, "-m", "numnet", "search", *map(str, arguments), "--quiet"]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def finish(process) -> None:
    _, said = process.communicate()
    if process.returncode:
        sys.exit(f"failed with {process.returncode}: {said.decode()}")


def lines(folder) -> int:
    path = folder / log.NETS
    return path.read_bytes().count(b"\n") if path.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--nets", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        write_table(place / "table.json")
        search = [*OPTIONS, "--nets", arguments.nets, "--table", place / "table.json"]
        finish(start(*search, "--out", place / "whole"))
        process, kills = start(*search, "--out", place / "killed"), 0
        while kills < arguments.kills:
            before = lines(place / "killed")
            # a moment within the next net or two: long before it, while it trains, or as its line is written
            while process.poll() is None and lines(place / "killed") <= before:
                time.sleep(0.005)
            time.sleep(draw.choice([0, 0, draw.random() * 0.3]))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
            process.communicate()
            print(
                f"kill {kills}: {lines(place / 'killed')} of {arguments.nets} nets were written", flush=True
            )
            if lines(place / "killed") >= arguments.nets:
                break
            process = start("--resume", place / "killed")
        process.communicate()
        finish(start("--resume", place / "killed"))
        whole, killed = ((place / name / log.NETS).read_bytes() for name in ("whole", "killed"))
        print(f"{kills} kills; the logs are {'equal, line for line' if whole == killed else 'DIFFERENT'}")
        sys.exit(whole != killed)


if __name__ == "__main__":
    main()
