"""A search from its plan: net after net, each drawn, trained shortly, rewarded and written down.

A search's folder holds

    plan.json      all that decides what is tried; the budget in it is a number of nets and of epochs
    latency.json   the times of the blocks that rewards are made with
    nets.jsonl     the log: see ``log``. It depends on these two files alone
    times.jsonl    what each training took
    front.png      all nets, and those that no other beats

The **proxy** that stands for a full training: fewer images, smaller ones, a few epochs, by the data set's own recipe;
judged by images that are held back. It need not say how good a net gets, only which of two gets better.
"""

import json
import math
import time
from pathlib import Path

from numnet import checkpoint
from numnet import data as datasets
from numnet._version import __version__
from numnet.data import shapes
from numnet.data import split as splits
from numnet.errors import Diverged, NumnetError
from numnet.models import build, describe
from numnet.models.searched import plain
from numnet.search import latency, log
from numnet.search.evolution import METHODS, propose
from numnet.search.front import figure
from numnet.search.reward import WEIGHTS, reward
from numnet.search.space import space_named
from numnet.training import recipes
from numnet.training.lock import Lock
from numnet.training.loop import Run

# Of plans. In those of format 1 a net in two spellings counted as two, and so their searches go on.
FORMAT = 2
PLAN, TABLE, FIGURE = "plan.json", "latency.json", "front.png"
# What a plan must say.
NEEDED = (
    *("dataset", "data_dir", "space", "method", "reward", "target", "mode", "seed", "nets"),
    *("population", "sample", "activation", "proxy"),
)
SIDES = {"small": 16, "32": 24, "224": 96}  # of the proxy's images
IMAGES = {"cifar10": 10_000, "shapes": 4_000}  # of its training; of other data sets 10,000 at most
# That judge it, at most a fifth of those there are: a thousand images leave 1.5 points of doubt, five thousand 0.7.
JUDGES = {"cifar10": 5_000, "shapes": 1_000}
BEFORE = 1_000  # in plans that do not say it, of numnet before it was one of a plan's numbers
EPOCHS = 4
ENOUGH = 64  # nets that a budget should have room for before they are trained for more than one epoch
MOST = 1.5  # times the time asked for: slower nets are not tried
LEAST = 2  # nets


def make_plan(
    dataset,
    *,
    target,
    nets,
    images_at_once=1,
    space="32",
    activation=None,
    method="evolution",
    kind="soft",
    population=None,
    sample=None,
    epochs=EPOCHS,
    images=None,
    side=None,
    data_dir=None,
    seed=0,
) -> dict:
    """The plan of a search, as plan.json has it. NumnetError for what no search can be.

    dataset, data_dir       "cifar10", "shapes" or a folder; where CIFAR-10 lies, if not in the usual place
    target                  seconds of inference of ``images_at_once`` images that a net should take
    nets                    how many are tried
    space, activation       the space's name in ``space.SPACES``; the activation of all nets, None: as a line has it
    method, kind            of proposing nets (``evolution.METHODS``), and of the reward (``reward.WEIGHTS``)
    population, sample      P and S of evolution; None: a fifth of the nets, and a quarter of that
    epochs, images, side    of the proxy: its epochs, training images and their side in pixels; None: as ``IMAGES`` and
                            ``SIDES`` have it
    """
    space_named(space)
    for name, value, known in (("method", method, METHODS), ("reward", kind, WEIGHTS)):
        if value not in known:
            raise NumnetError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    if not (isinstance(target, (int, float)) and math.isfinite(target) and target > 0):
        raise NumnetError(f"latency: expected a time above 0, got {target!r}")
    if nets < LEAST:
        raise NumnetError(f"nets: expected at least {LEAST}, got {nets}")
    population = population or min(max(nets // 5, 2), 100)
    sample = sample or max(math.ceil(population / 4), 2)
    if method == "evolution" and population > nets:
        raise NumnetError(f"population: expected at most {nets}, the nets, got {population}")
    if not 2 <= sample <= population:
        raise NumnetError(f"sample: expected 2 to {population}, the population, got {sample}")
    return {
        "format": FORMAT,
        "numnet": __version__,
        "dataset": str(dataset),
        "data_dir": None if data_dir is None else str(data_dir),
        "space": str(space),
        "method": method,
        "reward": kind,
        "target": float(target),
        "mode": f"infer-{images_at_once}",
        "seed": seed,
        "nets": nets,
        "population": population,
        "sample": sample,
        "activation": activation,
        "proxy": {
            "side": side or SIDES[str(space)],
            "images": images or IMAGES.get(str(dataset), max(IMAGES.values())),
            "judges": JUDGES.get(str(dataset), max(JUDGES.values())),
            "recipe": _recipe(dataset, epochs, seed),
        },
    }


def _recipe(dataset, epochs, seed) -> dict:
    """The data set's recipe, cut to so many epochs; without its net, and with images of one size."""
    own = recipes.load(recipes.default(str(dataset)))
    short = recipes.merge(own, {"epochs": epochs, "progressive": None, "seed": seed})
    return {
        key: value
        for key, value in short.items()
        if key not in ("about", "model", "whiten", *recipes.READING)
    }


class Proxy:
    """The short training of a plan: the data, read once, and ``accuracy(line)``."""

    def __init__(self, plan):
        self.plan, proxy = plan, plan["proxy"]
        judges = proxy.get("judges", BEFORE)
        if plan["dataset"] == "shapes":  # which draws its images: no more of them than are used
            data = shapes.load(min(proxy["images"] + judges, shapes.TRAIN), 10)
            if data.train.shape[0] != proxy["side"]:
                data.train = splits.in_memory(splits.ResizedSplit(data.train, proxy["side"]))
        else:
            if plan["dataset"] not in datasets.BUILT_IN and not Path(plan["dataset"]).exists():
                raise NumnetError(
                    f"{plan['dataset']}: the folder of this search's images is missing; give its new place with --data DIR"
                )
            where = {} if plan["data_dir"] is None else {"data_dir": plan["data_dir"]}
            data = datasets.load(plan["dataset"], resolution=proxy["side"], **where)
            judges = min(judges, len(data.train) // 5)
        if plan.get("digest") not in (None, data.digest):
            raise NumnetError(
                f"{plan['dataset']}: other images than this search was begun with (files added, removed, renamed or changed)"
            )
        data.hold_back(judges, plan["seed"], stratified=True)
        if proxy["images"] < len(data.classes):
            raise NumnetError(
                f"--images: expected at least {len(data.classes)}, one of each class, got {proxy['images']}"
            )
        validation = data.validation
        data.hold_back(max(len(data.train) - proxy["images"], 0), plan["seed"], stratified=True)
        data.validation = validation
        self.data, self.options = data, options(plan, len(data.classes))

    def build(self, line):
        return build(
            line, **{**self.options, "resolution": self.plan["proxy"]["side"], "seed": self.plan["seed"]}
        )

    def accuracy(self, line) -> float:
        """The part of the held-back images that the net gets right after its training; 0 if that diverged."""
        run = Run(self.build(line), self.data, self.plan["proxy"]["recipe"], progress=False)
        try:
            run.train()
        except Diverged:
            return 0.0
        return float(run.history[-1]["validation_accuracy"])

    def seconds(self, lines) -> float:
        """What one such training takes on this machine, from a few steps of each of these nets."""
        recipe, total = self.plan["proxy"]["recipe"], 0.0
        batch = min(recipe.get("batch_size", 128), len(self.data.train))
        for line in lines:
            net = self.build(line)
            step = latency.whole(net, f"train-{batch}", rounds=3)
            look = latency.whole(net, f"infer-{batch}", rounds=3)
            epoch = len(self.data.train) / batch * step + len(self.data.validation) / batch * look
            total += recipe["epochs"] * epoch
        return total / len(lines)


def options(plan, classes) -> dict:
    """Keywords of ``numnet.build`` for all nets of a plan."""
    return {"classes": classes, **({} if plan["activation"] is None else {"activation": plan["activation"]})}


def samples(plan, table, classes, count=3) -> list[str]:
    """The first nets that the plan would try: for the timing that turns a budget into a number of nets."""
    history = []
    for number in range(count):
        line, _ = propose(
            space_named(plan["space"]), "random", history, seed=plan["seed"], population=1, sample=1,
            fits=fits(plan, table, classes), same=same_as(plan),
        )  # fmt: skip
        history.append({"number": number, "net": line})
    return [record["net"] for record in history]


def fits(plan, table, classes):
    """A function that says whether a net is fast enough to be tried."""

    def fast(line):
        return seconds_of(plan, table, classes, line) <= MOST * plan["target"]

    return fast


def same_as(plan):
    """The function by which two lines are known as one net; see ``FORMAT``."""
    return str if plan["format"] == 1 else plain


def seconds_of(plan, table, classes, line) -> float:
    """The predicted time of a net, to four digits, as the log has it."""
    return float(f"{table.predict(describe(line, **options(plan, classes)), plan['mode']):.4g}")


def nets_for(budget, plan, seconds) -> tuple[int, int]:
    """(nets, epochs) that so many seconds have room for, if a training of the plan's epochs takes ``seconds``.

    As many epochs as leave room for ENOUGH nets, at least one. NumnetError if there is no room for two nets.
    """
    each = seconds / plan["proxy"]["recipe"]["epochs"]
    for epochs in range(plan["proxy"]["recipe"]["epochs"], 0, -1):
        nets = int(budget / (each * epochs))
        if nets >= ENOUGH or epochs == 1:
            break
    if nets < LEAST:
        raise NumnetError(
            f"--budget: a net takes about {each:.0f} s here, and a search needs {LEAST}; expected more, or fewer --images"
        )
    return nets, epochs


# ------------------------------------------------------------------------------------------------- folders


def require_free(folder) -> None:
    """Raise NumnetError if the folder holds a search."""
    if (Path(folder) / PLAN).exists():
        raise NumnetError(
            f"{folder} holds a search already; --resume {folder} goes on with it, or name another --out"
        )
    if (Path(folder) / log.NETS).exists():
        raise NumnetError(f"{folder} holds the log of a search without its {PLAN}; name another --out")


def begin(folder, plan, table) -> None:
    """Make a search's folder; NumnetError if there is one already."""
    folder = Path(folder)
    require_free(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NumnetError(f"cannot make the folder {folder}: {error.strerror}; name one with --out") from None
    table.only(plan["mode"]).write(folder / TABLE)
    # last: with it the folder is a search
    checkpoint.replace(folder / PLAN, (json.dumps(plan, indent=1) + "\n").encode())


def read(folder) -> tuple[dict, latency.Table]:
    """Plan and table of a search's folder. NumnetError if it holds none."""
    path = Path(folder) / PLAN
    plan = checkpoint.read_json(path, f"{folder}: holds no search ({PLAN} is missing)")
    if not isinstance(plan, dict) or plan.get("format") not in (1, FORMAT):
        raise NumnetError(f"{path}: no plan of a search that this numnet knows")
    missing = set(NEEDED) - set(plan)
    if missing:
        raise NumnetError(f"{path}: damaged: {', '.join(sorted(missing))} is missing")
    if not isinstance(plan["nets"], int) or plan["nets"] < LEAST:
        raise NumnetError(f"{path}: nets is {plan['nets']!r}; expected an integer of at least {LEAST}")
    whole = all(type(plan[key]) is int and plan[key] >= 0 for key in ("seed", "population", "sample"))
    target, proxy = plan["target"], plan["proxy"]
    if not whole or not 2 <= plan["sample"] <= plan["population"]:
        raise NumnetError(
            f"{path}: expected whole numbers for seed, population and sample (2 to the population)"
        )
    if type(target) not in (int, float) or not 0 < target < math.inf:
        raise NumnetError(f"{path}: expected seconds as target, got {target!r}")
    for key, names in (("method", METHODS), ("reward", tuple(WEIGHTS))):
        if plan[key] not in tuple(names):
            raise NumnetError(f"{path}: {key} is {plan[key]!r}; expected {' or '.join(names)}")
    if not isinstance(proxy, dict) or not isinstance(proxy.get("recipe"), dict):
        raise NumnetError(f"{path}: expected a recipe in proxy")
    if any(type(proxy.get(key)) is not int for key in ("images", "side")):
        raise NumnetError(f"{path}: expected whole numbers for images and side of proxy")
    return plan, latency.Table.read(Path(folder) / TABLE)


def go(folder, *, make=Proxy, tell=lambda record, history: None) -> list[dict]:
    """Do what is left of the search in this folder; return the log, a record a net.

    make: of a plan an object with ``accuracy(line)`` and ``data``, the proxy. ``tell``: is called with each new record.
    """
    folder = Path(folder)
    plan, table = read(folder)
    lock = Lock(folder)
    lock.take()
    try:
        log.mend(folder)
        history = log.read_nets(folder)
        if len(history) < plan["nets"]:
            _go_on(folder, plan, table, history, make(plan), tell)
        figure({plan["method"]: history}, plan["target"], folder / FIGURE)
    finally:
        lock.free()
    return history


def in_memory(plan, table, *, make=Proxy, tell=lambda record, history: None) -> list[dict]:
    """The records of the whole search of a plan, with nothing written down."""
    history = []
    for record, _ in _records(plan, table, history, make(plan)):
        history.append(record)
        tell(record, history)
    return history


def _go_on(folder, plan, table, history, proxy, tell) -> None:
    for record, seconds in _records(plan, table, history, proxy):
        took = {"number": record["number"], "seconds": round(seconds, 3)}
        log.append(folder / log.TIMES, took)  # first: a net that is done again has two times, and one record
        log.append(folder / log.NETS, record)
        history.append(record)
        tell(record, history)


def _records(plan, table, history, proxy):
    """(record, seconds of its training) of each net that is left; the caller adds each to ``history``."""
    space, classes = space_named(plan["space"]), len(proxy.data.classes)
    fast = fits(plan, table, classes)
    for record in history:  # rewards by two tables would compete
        now = seconds_of(plan, table, classes, record["net"])
        if now != record["latency"]:
            raise NumnetError(
                f"{TABLE}: net {record['number']} took {1e6 * record['latency']:.4g} µs by the table that this search "
                f"was begun with, and {1e6 * now:.4g} now; expected the same table"
            )
    while len(history) < plan["nets"]:
        line, parent = propose(
            space, plan["method"], history, seed=plan["seed"], population=plan["population"], sample=plan["sample"],
            fits=fast, same=same_as(plan),
        )  # fmt: skip
        began, seconds = time.perf_counter(), seconds_of(plan, table, classes, line)
        accuracy = proxy.accuracy(line)
        record = {
            "number": len(history),
            "net": line,
            "parent": parent,
            "latency": seconds,
            "accuracy": accuracy,
            "reward": reward(accuracy, seconds, plan["target"], plan["reward"]),
        }
        yield record, time.perf_counter() - began
