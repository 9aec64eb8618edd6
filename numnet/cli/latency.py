"""``numnet latency``: the times of all blocks on this machine, and what nets take by them."""

import os
import statistics
import time
from contextlib import contextmanager
from pathlib import Path

from numnet.cli.arguments import (
    add_model_options,
    add_threads,
    columns,
    count,
    described,
    model_options,
    print_json,
    set_threads,
)
from numnet.errors import NumnetError, tell

try:
    import fcntl
except ImportError:  # Windows, which locks no folders
    fcntl = None

TURN = 0.05  # seconds that a process waits for another one to save its table,
PATIENCE = 200  # and how often
_locked = set()  # folders for which this process has waited in vain: it will not wait that long again


def latency_arguments(parser):
    about = "nets to predict and to measure: names or lines; none: all blocks of a space are timed, which takes minutes"
    parser.add_argument("nets", nargs="*", metavar="NET", help=about)
    parser.add_argument("--space", metavar="NAME", default="32", help="the space: small, 32 or 224 (32)")
    about = "images at once, several with commas between them (1,16)"
    parser.add_argument("--images", type=_counts, default=[1, 16], metavar="N,N", help=about)
    parser.add_argument(
        "--train", type=count(), metavar="B", help="time training steps of so many images instead"
    )
    about = "so many random nets, too: predicted and measured, and how far the two are apart"
    parser.add_argument("--check", type=count(), metavar="N", help=about)
    parser.add_argument("--seed", type=count(0), default=1, metavar="S", help="of --check (1)")
    about = (
        "time all blocks of the space once more, and keep the shorter times: for a machine with other work"
    )
    parser.add_argument("--again", action="store_true", help=about)
    about = "the table (latency-MACHINE-T-threads.json); one that is there is completed"
    parser.add_argument("-o", "--out", metavar="FILE", help=about)
    add_model_options(parser)
    add_threads(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    parser.add_argument("--json", action="store_true", help="as JSON")


def _counts(text):
    return list(dict.fromkeys(count()(part) for part in text.split(",")))


def latency(arguments):
    """Complete this machine's table; of nets that are named or drawn, the predicted and the measured time."""
    import numba

    from numnet.search import latency as clock
    from numnet.search.space import space_named

    set_threads(arguments.threads)
    space, options = space_named(arguments.space), {"classes": 10, **model_options(arguments)}
    modes = [f"infer-{n}" for n in arguments.images]
    if arguments.train is not None:
        modes = [f"train-{arguments.train}"]
    lines = list(arguments.nets) + [
        space.draw(arguments.seed, number) for number in range(arguments.check or 0)
    ]
    for line in lines:
        described(line, **options)
    lines = list(dict.fromkeys(lines))  # a small space is soon drawn twice
    if arguments.again and arguments.nets and not arguments.check:
        raise NumnetError(
            "--again: times the blocks of a space once more; expected no NET, or --check as well"
        )
    path = Path(arguments.out or clock.file_name(numba.get_num_threads()))
    require_place(path)
    table = open_table(path)
    if arguments.check or not arguments.nets:
        complete(table, path, space, modes, options, not arguments.quiet, arguments.again)
    rows = _measured(table, lines, modes, options)
    if arguments.nets:
        save(table, path)
    facts = {
        "table": str(path),
        "machine": table.machine,
        "blocks": {mode: len(table.blocks(mode)) for mode in table.modes},
    }
    if arguments.json:
        print_json({**facts, "nets": rows, "errors": errors(rows)})
        return
    if rows:
        print(_told(rows))
    for mode, blocks in facts["blocks"].items():
        tell(f"{path}: {blocks:,} blocks, {mode}")


def _measured(table, lines, modes, options) -> list[dict]:
    """Each net predicted and measured in each mode: all of them, and then all of them again, for the noise."""
    from numnet.search import latency as clock

    rows = {}
    for turn in range(2):
        for line in lines:
            net = clock.build(line, **options)
            for mode in modes:
                if turn == 0:
                    own = table.lacks(net, mode)
                    if own:
                        table.note(line, options, mode, *clock.measure(net, mode))
                    rows[line, mode] = {
                        "net": line,
                        "mode": mode,
                        "macs": net.cost().macs,
                        "own_blocks": len(own),
                    }
                rows[line, mode].setdefault("times", []).append(clock.whole(net, mode))
    for (line, mode), row in rows.items():
        first, second = row["times"]
        row["predicted"] = table.predict(clock.describe(line, **options), mode)
        row["measured"] = min(first, second)  # other work makes a time longer, never shorter
        row["again"] = abs(first - second) / row["measured"]
    return list(rows.values())


def open_table(path):
    """The table in a file, or an empty one; NumnetError for that of another machine."""
    from numnet.search.latency import Table

    here = Table.here()
    if not path.exists():
        return here
    table = Table.read(path)
    _require_machine(path, table, here)
    if table.machine.get("numnet") != here.machine["numnet"]:
        tell(f"{path}: times of numnet {table.machine.get('numnet')}; remove it to measure this one's")
    return table


def _require_machine(path, table, here) -> None:
    """Raise NumnetError if the table in a file and one from here have times of different machines or threads."""
    for key in ("processor", "lanes", "threads"):
        if table.machine.get(key) != here.machine[key]:
            raise NumnetError(
                f"{path}: times of another machine ({key} {table.machine.get(key)}, here {here.machine[key]}); "
                "expected a table of this one, or another name for a new one"
            )


def require_place(path) -> None:
    """Raise NumnetError, before anything is timed, if there is no folder for the table."""
    if not path.parent.is_dir():
        raise NumnetError(f"{path}: no folder {path.parent} for this table")


def save(table, path) -> None:
    """Write the table, with what another process has written there in the meantime."""
    with _alone(path.parent):
        if path.exists() and not table.wrote(path):
            there = type(table).read(path, known=table)
            _require_machine(path, there, table)
            for run in there.runs:
                table.note(run["net"], run["options"], run["mode"], run["layers"], run["whole"])
        table.write(path)


@contextmanager
def _alone(folder):
    """Inside, no other process saves a table in this folder: each reads what the one before has written."""
    handle = None
    try:
        if fcntl is not None:
            handle = os.open(folder, os.O_RDONLY)
            # Not for ever: somebody may have started us under a lock of this folder.
            for _ in range(1 if folder in _locked else PATIENCE):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(TURN)
            else:
                _locked.add(folder)
    except OSError:
        pass  # a file system without locks, a folder that may not be read
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def complete(table, path, space, modes, options, shown, again=False) -> None:
    """Time every block of a space that the table lacks, or ``again`` all; the table is written after every few nets."""
    from numnet.search import latency as clock

    todo = []
    for line in clock.carriers(space, any(mode.startswith("train") for mode in modes), **options):
        net = clock.describe(line, **options)
        todo += [line] if again or any(table.lacks(net, mode) for mode in modes) else []
    if not todo:
        return
    require_place(path)
    save(table, path)
    with Progress(len(todo), "timing blocks", shown) as bar:

        def timed(line):
            bar.advance()
            if bar.done % 10 == 0:
                save(table, path)

        try:
            disturbed = clock.fill(table, todo, modes, timed, again, **options)
        finally:
            save(table, path)
    if disturbed:
        tell(
            f"{path}: {disturbed} of {len(todo)} nets had no calm moment on this machine, so "
            "their times may be too long; `numnet latency --again` repeats them"
        )


class Progress:
    """A bar of tqdm's on standard error, with words behind it; the work goes on if nobody takes what is written."""

    def __init__(self, total, what, shown, done=0):
        self.total, self.what, self.shown, self.done, self.bar = total, what, shown, done, None

    def __enter__(self):
        if self.shown:
            from numnet.data.progress import bar

            try:
                self.bar = bar(total=self.total, initial=self.done, desc=self.what, dynamic_ncols=True)
            except (OSError, ValueError):
                self.bar = None
        return self

    def advance(self, words=""):
        self.done += 1
        try:
            if self.bar is not None:
                self.bar.set_postfix_str(words, refresh=False)
                self.bar.update(1)
        except (OSError, ValueError):
            self.bar = None

    def __exit__(self, *error):
        if self.bar is not None:
            try:
                self.bar.close()
            except (OSError, ValueError):
                pass


def errors(rows) -> dict:
    """{mode: the median of |predicted − measured| / measured, the part that 95 % of the nets stay within, the noise}."""
    found = {}
    for mode in dict.fromkeys(row["mode"] for row in rows):
        own = [row for row in rows if row["mode"] == mode]
        apart = sorted(abs(row["predicted"] / row["measured"] - 1) for row in own)
        found[mode] = {
            "nets": len(own),
            "median": statistics.median(apart),
            "most_of_95": apart[max(-(-95 * len(apart) // 100) - 1, 0)],
            "noise": statistics.median(row["again"] for row in own),
        }
    return found


def _told(rows) -> str:
    lines = [("net", "mode", "million MACs", "predicted, ms", "measured, ms", "apart"), None]
    for row in rows:
        times = (f"{1e3 * row[key]:.3f}" for key in ("predicted", "measured"))
        apart = f"{100 * (row['predicted'] / row['measured'] - 1):+.1f} %"
        mark = " (its own blocks)" if row["own_blocks"] else ""
        lines.append((row["net"], row["mode"], f"{row['macs'] / 1e6:,.1f}", *times, apart + mark))
    text = columns(lines, right=(2, 3, 4), fit=(0,))
    for mode, found in errors(rows).items():
        if found["nets"] > 1:
            median, most, noise = (f"{100 * found[key]:.1f} %" for key in ("median", "most_of_95", "noise"))
            text += f"\n{mode}, {found['nets']} nets: half of them within {median} of what was measured, 95 % within {most}; "
            text += f"measured twice, half differ by less than {noise}"
    return text
