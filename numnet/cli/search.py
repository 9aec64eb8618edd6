"""``numnet build`` and ``numnet search``: nets in one line, and the search among them."""

import argparse
import re
import shlex
from functools import partial
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
    require_writable,
    say,
    set_threads,
)
from numnet.cli.latency import Progress, complete, open_table
from numnet.errors import NumnetError, tell
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
    from numnet.models import build as make
    from numnet.models.parts import with_parameters
    from numnet.search.space import space_named

    if (arguments.model is None) == (arguments.random is None):
        raise NumnetError("numnet build: expected a MODEL, or --random SEED; see `numnet build --help`")
    name = arguments.model
    if arguments.random is not None:
        name = space_named(arguments.space).draw(arguments.random)
    if is_written(name):
        name = str(parse(name))
    if arguments.out is not None:
        require_writable(arguments.out, (".safetensors",))
    net = described(name, **model_options(arguments))
    total = net.cost()
    if arguments.out is not None:
        net = make(name, seed=arguments.seed, **model_options(arguments))
        net.save(arguments.out, untrained=sorted(with_parameters(net)))
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
    tell(
        f"{total.params:,} parameters, {total.macs:,} MACs for an image of {size}; `numnet summary` shows the layers"
    )
    if arguments.out is not None:
        tell(f"{Path(arguments.out)}: the net, untrained")


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
    add(
        "--data", "where CIFAR-10 lies; with --resume: the new place of images that have moved", metavar="DIR"
    )
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
    add(
        "--side",
        "of the images in each training (24; space small: 16, 224: 96)",
        type=count(8),
        metavar="PIXELS",
    )
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


FREE = ("resume", "threads", "quiet", "json", "dataset", "data")  # what may stand beside --resume


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
    plan = moved(run.read(folder)[0], vars(arguments).get("data") if proxy is None else None)
    done = log.read_nets(folder)
    if len(done) >= plan["nets"]:
        say(f"{folder}: this search is finished; nothing is left to do")
    with Progress(plan["nets"], plan["method"], not arguments.quiet, len(done)) as bar:
        try:
            history = run.go(
                folder,
                make=lambda _: proxy or run.Proxy(plan),
                tell=lambda record, history: bar.advance(_best_so_far(history)),
            )
        except (KeyboardInterrupt, SystemExit):
            say(f"stopped; to go on:\nnumnet search --resume {shlex.quote(str(folder))}")
            raise
    _report(arguments, folder, plan, history)


def moved(plan, place) -> dict:
    """The plan with its images at ``place``, if they have moved. The proxy compares their fingerprint."""
    from numnet.search import run

    if place is None:
        return plan
    if plan["dataset"] == "shapes":
        raise NumnetError("--data: the built-in shapes are in no file; expected no --data")
    if plan["dataset"] in run.IMAGES:
        return {**plan, "data_dir": str(Path(place).absolute())}
    if not place or not Path(place).is_dir():
        raise NumnetError(f"--data: {place}: no such folder, expected the images of {plan['dataset']}")
    if plan.get("digest") is None:
        say(
            "--data: this search's plan has no fingerprint of its images; that these are the same cannot be checked"
        )
    return {**plan, "dataset": str(Path(place).absolute())}


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
    from numnet.training.run import new_folder

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
    planned = partial(run.make_plan, dataset, target=given["latency"], space=space)
    # With --budget the number of nets, and so what P and S may be, is known only after the timing.
    early = {
        name: value
        for name, value in keywords.items()
        if "nets" in given or name not in ("population", "sample")
    }
    plan = planned(nets=given.get("nets", run.LEAST), **early)
    if "out" in given:
        run.require_free(given["out"])
    proxy = run.Proxy(plan)
    described(space_named(space).draw(0), **proxy.options)
    out = Path(given["out"]) if "out" in given else new_folder("searches", arguments.dataset)
    table = _table(given.get("table"), space, plan["mode"], proxy.options, not arguments.quiet)
    if budget is not None:
        each = proxy.seconds(run.samples(plan, table, len(proxy.data.classes)))
        nets, epochs = run.nets_for(budget, plan, each)
        proxy.plan = plan = planned(nets=nets, **{**keywords, "epochs": epochs})
        tell(f"{given['budget']} are {nets} nets of {epochs} epochs here")
    run.begin(out, {**plan, "digest": proxy.data.digest}, table)
    return out, proxy


def _table(file, name, mode, options, shown):
    """The times of all blocks of the space; what is missing is measured now. A whole table may be of another machine."""
    import numba

    from numnet.search import latency as clock
    from numnet.search.space import space_named

    space = space_named(name)
    path = Path(file or clock.file_name(numba.get_num_threads()))
    if file is not None and path.exists():
        table = clock.Table.read(path)
        lines = clock.carriers(space, **options)
        facts = table.machine
        lacking = [each for line in lines for each in table.lacks(clock.describe(line, **options), mode)]
        if not lacking:
            tell(f"{path}: times of {facts.get('processor')}, threads: {facts.get('threads')}")
            return table
        if facts.get("processor") != clock.Table.here().machine["processor"]:
            asked = "".join(
                f" --{key} {value}" if key == "classes" else f" --set {key}={value}"
                for key, value in options.items()
            )
            raise NumnetError(
                f"{path}: has no time ({mode}) of blocks such as {lacking[0]!r}; expected, "
                f"measured on {facts.get('processor')}: "
                f"numnet latency --space {name} --images {mode.partition('-')[2]}{asked} -o {path.name}"
            )
    table = open_table(path)
    complete(table, path, space, [mode], options, shown)
    return table


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
    place = "" if plan["data_dir"] is None else f" --data {shlex.quote(plan['data_dir'])}"
    name = shlex.quote(plan["dataset"])
    print(f"to train it in full: numnet train {name}{place} --model {best['net']}{activation}")
