"""What a search leaves behind, a line a net, so that it can be killed at any moment and go on.

    nets.jsonl    number, net, parent, latency, accuracy, reward: nothing in it depends on how busy the machine was
    times.jsonl   number, seconds: what the same nets took to train, and nothing else knows of it

A line is on the disk before the next net begins. A line that was cut short by a kill is dropped when the file is read
again; its net is then done once more, with the same result.
"""

import json
import os
from pathlib import Path

from numnet import checkpoint
from numnet.errors import NumnetError

NETS, TIMES = "nets.jsonl", "times.jsonl"
TYPES = {"number": int, "net": str, "latency": float, "accuracy": float, "reward": float}


def read_nets(folder) -> list[dict]:
    """The records of a search's nets; none if there is no log yet. NumnetError for damage but a last line cut short."""
    path, records = Path(folder) / NETS, []
    for number, line in enumerate(_whole(path)[0].splitlines()):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        sound = isinstance(record, dict) and record.get("number") == number
        if not sound or not all(isinstance(record.get(name), kind) for name, kind in TYPES.items()):
            raise NumnetError(f"{path}: damaged in line {number + 1}; expected the record of net {number}")
        records.append(record)
    return records


def mend(folder) -> None:
    """Take away last lines that were cut short."""
    for name in (NETS, TIMES):
        whole, cut = _whole(Path(folder) / name)
        if cut:
            checkpoint.replace(Path(folder) / name, whole)


def _whole(path) -> tuple[bytes, bytes]:
    """The lines of a file that end, and what stands behind them."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise NumnetError(f"{path}: cannot be read ({error.strerror or error})") from None
    whole, newline, cut = content.rpartition(b"\n")
    return whole + newline, cut


def append(path, record) -> None:
    """A line more, on the disk when this returns. NumnetError if there is no room for it."""
    line = (json.dumps(record) + "\n").encode()
    try:
        with open(path, "ab") as file:
            file.write(line)
            file.flush()  # writes on until all is written: the system may take a part, and call that no error
            os.fsync(file.fileno())
    except OSError as error:
        raise NumnetError(f"cannot write {path}: {error.strerror or error}") from None
