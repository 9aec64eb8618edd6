"""``numnet build``, ``numnet latency`` and ``numnet search``: nets in one line, their times, and the search among them."""

import argparse
import re
import shlex
import statistics
from pathlib import Path

from numnet.cli.arguments import (
    add_model_options,
    add_threads,
    choice,
    columns,
    count,
    described,
    model_options,
    print_json,
    require_dataset,
    say,
    set_threads,
)
from numnet.errors import NumnetError
from numnet.models.searched import is_written, parse

UNITS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


def instant(text):
    """A time of inference with its unit, such as 2ms, in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+) ?(us|µs|ms|s)", text)
    if not found or not 0 < float(found[1]) < 1e6:
        raise argparse.ArgumentTypeError(f"expected a time above 0 such as 500us, 2ms or 0.1s, got {text!r}")
    return float(found[1]) * UNITS[found[2]]


# ----------------------------------------------------------------------------------------- build


def build_arguments(parser):
    about = (
        "a name that `numnet models` lists, or a net in one line: search:32:32s2,sep3c32x2,inv3e3c64x3s2+se"
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help=about)
    parser.add_argument("--random", type=count(0), metavar="SEED", help="instead: a random net of a space")
    parser.add_argument("--space", metavar="NAME", default="32", help="of --random: small, 32 or 224 (32)")
    about = "write the net, untrained: `numnet train DATASET --init FILE` trains it"
    parser.add_argument("-o", "--out", metavar="FILE", help=about)
    parser.add_argument("--seed", type=count(0), default=0, metavar="S", help="of its first weights (0)")
    add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def build(arguments):
    """The net's line, its size; with -o the net as a checkpoint."""
    from numnet.cli.weights import require_folder
    from numnet.models import build as make
    from numnet.search.space import space_named

    if (arguments.model is None) == (arguments.random is None):
        raise NumnetError("numnet build: expected a MODEL, or --random SEED; see `numnet build --help`")
    name = arguments.model
    if arguments.random is not None:
        name = space_named(arguments.space).draw(arguments.random)
    if is_written(name):
        name = str(parse(name))
    if arguments.out is not None:
        require_folder(arguments.out, (".safetensors",))
    net = described(name, **model_options(arguments))
    total = net.cost()
    if arguments.out is not None:
        net = make(name, seed=arguments.seed, **model_options(arguments))
        net.save(arguments.out, untrained=list(dict.fromkeys(spec.split(".")[0] for spec in net.specs)))
    if arguments.json:
        facts = {
            "net": name,
            "params": total.params,
            "macs": total.macs,
            "input_shape": list(net.input_shape),
        }
        print_json({**facts, **({} if arguments.out is None else {"checkpoint": arguments.out})})
        return
    print(name)
    size = "×".join(map(str, net.input_shape))
    say(
        f"numnet: {total.params:,} parameters, {total.macs:,} MACs for an image of {size}; `numnet summary` shows the layers"
    )
    if arguments.out is not None:
        say(f"numnet: {Path(arguments.out)}: the net, untrained")


# ----------------------------------------------------------------------------------------- latency


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
    return [count()(part) for part in text.split(",")]


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
    path = Path(arguments.out or clock.file_name(numba.get_num_threads()))
    table = open_table(path)
    if arguments.check or not arguments.nets:
        complete(table, path, space, modes, options, not arguments.quiet, arguments.again)
    rows = _measured(table, lines, modes, options)
    if arguments.nets:
        table.write(path)
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
        say(f"numnet: {path}: {blocks:,} blocks, {mode}")


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
        row["measured"] = (first + second) / 2
        row["again"] = abs(first - second) / row["measured"]
    return list(rows.values())


def open_table(path):
    """The table in a file, or an empty one; NumnetError for that of another machine."""
    from numnet.search.latency import Table

    here = Table.here()
    if not path.exists():
        return here
    table = Table.read(path)
    for key in ("processor", "lanes", "threads"):
        if table.machine.get(key) != here.machine[key]:
            raise NumnetError(
                f"{path}: times of another machine ({key} {table.machine.get(key)}, here {here.machine[key]}); "
                "expected a table of this one, or another name for a new one"
            )
    if table.machine.get("numnet") != here.machine["numnet"]:
        say(f"numnet: {path}: times of numnet {table.machine.get('numnet')}; remove it to measure this one's")
    return table


def complete(table, path, space, modes, options, shown, again=False) -> None:
    """Time every block of a space that the table lacks, or ``again`` all; the table is written after every few nets."""
    from numnet.search import latency as clock

    todo = []
    for line in clock.carriers(space, any(mode.startswith("train") for mode in modes), **options):
        net = clock.describe(line, **options)
        todo += [line] if again or any(table.lacks(net, mode) for mode in modes) else []
    if not todo:
        return
    if not path.parent.is_dir():
        raise NumnetError(f"{path}: no folder {path.parent} for this table")
    table.write(path)
    with Progress(len(todo), "timing blocks", shown) as bar:

        def tell(line):
            bar.advance()
            if bar.done % 10 == 0:
                table.write(path)

        try:
            clock.fill(table, todo, modes, tell, again, **options)
        finally:
            table.write(path)


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


# ----------------------------------------------------------------------------------------- search


def search_arguments(parser):
    parser.add_argument("dataset", nargs="?", metavar="DATASET", help="cifar10, shapes or a folder of images")
    hidden = {"default": argparse.SUPPRESS}

    def add(flag, about, **more):
        parser.add_argument(flag, help=about, **hidden, **more)

    add("--latency", "time that the net should take: 2ms", type=instant, metavar="T")
    add("--budget", "time of the search: 60min. It becomes a number of nets", metavar="TIME")
    add("--nets", "that number itself, instead of --budget", type=count(2), metavar="N")
    parser.add_argument(
        "--resume", metavar="DIR", help="go on with a search that was stopped; its plan stays"
    )
    add("--out", "folder of this search (searches/DATASET-NUMBER)", metavar="DIR")
    add("--data", "where CIFAR-10 lies", metavar="DIR")
    add(
        "--method",
        "how nets are chosen (evolution)",
        type=choice("evolution", "random"),
        metavar="evolution|random",
    )
    add(
        "--reward",
        "soft: w = -0.07; hard: w = 0 below T, -1 above (soft)",
        type=choice("soft", "hard"),
        metavar="soft|hard",
    )
    add(
        "--space",
        "32 for small images, small for a short search, 224 for photographs (32; of a folder 224)",
        metavar="NAME",
    )
    add("--images-at-once", "that T is for (1)", type=count(), metavar="N")
    add("--activation", "of the nets (relu)", metavar="NAME")
    add("--seed", "of the draws and the trainings (0)", type=count(0), metavar="S")
    add("--epochs", "of each training; with --budget the most (4)", type=count(), metavar="E")
    add("--images", "of each training (shapes 4000, others 10000)", type=count(10), metavar="N")
    add("--side", "of the images in each training (24; space 224: 96)", type=count(8), metavar="PIXELS")
    add("--population", "of evolution (a fifth of the nets, 100 at most)", type=count(2), metavar="P")
    add("--sample", "of these the parents are chosen from (a quarter)", type=count(2), metavar="S")
    add(
        "--table",
        "times of blocks (latency-MACHINE-T-threads.json; it is made if it is missing)",
        metavar="FILE",
    )
    add_threads(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    parser.add_argument("--json", action="store_true", help="the result as JSON")


FREE = ("resume", "threads", "quiet", "json", "dataset")  # what may stand beside --resume


def search(arguments):
    from numnet.search import log, run

    set_threads(arguments.threads)
    if arguments.resume is None:
        folder, proxy = _begin(arguments)
    else:
        for name, value in vars(arguments).items():
            if name not in FREE or (name == "dataset" and value):
                what = f"data set {value!r}" if name == "dataset" else "--" + name.replace("_", "-")
                raise NumnetError(f"--resume goes on with the search's own plan: expected no {what}")
        folder, proxy = Path(arguments.resume), None
    plan, _ = run.read(folder)
    done = log.read_nets(folder)
    if len(done) >= plan["nets"]:
        say(f"{folder}: this search is finished; nothing is left to do")
    with Progress(plan["nets"], plan["method"], not arguments.quiet, len(done)) as bar:
        try:
            history = run.go(
                folder,
                make=run.Proxy if proxy is None else lambda plan: proxy,
                tell=lambda record, history: bar.advance(_best_so_far(history)),
            )
        except (KeyboardInterrupt, SystemExit):
            say(f"stopped; to go on:\nnumnet search --resume {shlex.quote(str(folder))}")
            raise
    _report(arguments, folder, plan, history)


def _best_so_far(history) -> str:
    best = max(history, key=lambda record: record["reward"])
    return f"best {100 * best['accuracy']:.1f} %, {1e3 * best['latency']:.2f} ms, reward {best['reward']:.3f}"


KEYWORDS = {"reward": "kind", "data": "data_dir"}  # options whose name in run.make_plan is another one
PLANNED = (
    "method",
    "reward",
    "images_at_once",
    "activation",
    "seed",
    "epochs",
    "images",
    "side",
    "population",
    "sample",
    "data",
)


def _begin(arguments):
    """(folder, proxy) of a new search: the plan, the table, the number of nets."""
    from numnet.search import run
    from numnet.search.space import space_named
    from numnet.training.budget import seconds

    given = vars(arguments)
    if arguments.dataset is None:
        raise NumnetError(
            "numnet search: expected a data set (cifar10, shapes or an image folder), or --resume DIR"
        )
    require_dataset(arguments.dataset, given.get("data"))
    if "latency" not in given:
        raise NumnetError("numnet search: expected --latency T, the time that a net should take, such as 2ms")
    if ("budget" in given) == ("nets" in given):
        raise NumnetError("numnet search: expected --budget B, such as 60min, or --nets N")
    budget = seconds(given["budget"]) if "budget" in given else None
    space = given.get("space") or ("32" if arguments.dataset in run.IMAGES else "224")
    keywords = {KEYWORDS.get(name, name): given[name] for name in PLANNED if name in given}
    if "data_dir" in keywords:
        keywords["data_dir"] = str(Path(keywords["data_dir"]).absolute())
    dataset = (
        arguments.dataset if arguments.dataset in run.IMAGES else str(Path(arguments.dataset).absolute())
    )
    plan = run.make_plan(
        dataset, target=given["latency"], nets=given.get("nets", run.LEAST), space=space, **keywords
    )
    out = Path(given["out"]) if "out" in given else _new_folder(arguments.dataset)
    run.require_free(out)
    proxy = run.Proxy(plan)
    described(space_named(space).draw(0), **proxy.options)
    table = _table(given.get("table"), space_named(space), plan["mode"], proxy.options, not arguments.quiet)
    if budget is not None:
        each = proxy.seconds(run.samples(plan, table, len(proxy.data.classes)))
        nets, epochs = run.nets_for(budget, plan, each)
        plan = run.make_plan(
            dataset, target=given["latency"], nets=nets, space=space, **{**keywords, "epochs": epochs}
        )
        proxy.plan = plan
        say(f"numnet: {given['budget']} are {nets} nets of {epochs} epochs here")
    run.begin(out, plan, table)
    return out, proxy


def _table(file, space, mode, options, shown):
    """The times of all blocks of the space; what is missing is measured now. A whole table may be of another machine."""
    import numba

    from numnet.search import latency as clock

    path = Path(file or clock.file_name(numba.get_num_threads()))
    if file is not None and path.exists():
        table = clock.Table.read(path)
        lines = clock.carriers(space, **options)
        if not any(table.lacks(clock.describe(line, **options), mode) for line in lines):
            facts = table.machine
            say(f"numnet: {path}: times of {facts.get('processor')}, threads: {facts.get('threads')}")
            return table
    table = open_table(path)
    complete(table, path, space, [mode], options, shown)
    return table


def _new_folder(dataset) -> Path:
    number = 1
    while (Path("searches") / f"{Path(dataset).name}-{number}").exists():
        number += 1
    return Path("searches") / f"{Path(dataset).name}-{number}"


def _report(arguments, folder, plan, history):
    from numnet.search.front import front
    from numnet.search.run import FIGURE

    best = max(history, key=lambda record: record["reward"])
    edge = front(history)
    if arguments.json:
        print_json({"folder": str(folder), "nets": len(history), "best": best, "front": edge})
        return
    lines = [("front: net", "ms", "accuracy, %", "reward"), None]
    for record in edge:
        numbers = (
            f"{1e3 * record['latency']:.3f}",
            f"{100 * record['accuracy']:.2f}",
            f"{record['reward']:.4f}",
        )
        lines.append((record["net"], *numbers))
    print(columns(lines, right=(1, 2, 3)))
    target = f"{1e3 * plan['target']:.3g} ms"
    print(f"\nbest reward of {len(history)} nets (T = {target}):\n{best['net']}")
    print(f"figure: {folder / FIGURE}")
    activation = "" if plan["activation"] is None else f" --set activation={plan['activation']}"
    name = Path(plan["dataset"]).name if plan["dataset"] not in ("cifar10", "shapes") else plan["dataset"]
    print(f"to train it in full: numnet train {name} --model {best['net']}{activation}")
