"""How long a net takes on this machine: every distinct block timed once, a net's time the sum of its blocks'.

A block is timed *in its place*, inside a whole net that runs from end to end, by a clock between the blocks. Timed alone,
again and again, it would find its weights in the nearest cache, where a whole net never has them; and it would have to be
told what it is handed (``blocks`` says what that is), and from which core's cache. The nets that carry the blocks are drawn
at random until every block of the space has had its turn.

What a net takes beyond its blocks (``predict`` makes batch norm's scales and shifts anew; a training step has the loss and
the optimiser) is measured in the same nets, and goes with the number of parameters:

(1)  time = Σ blocks + a + b · parameters

A table is a JSON file: the nets that carried the blocks, with the seconds of each layer and of the whole, for one machine and
one number of threads, in some modes:

    infer-1, infer-16     inference of so many images
    train-64              a training step of so many: forward, loss, backward, SGD

Each time is the shortest of several runs, since other work on the machine can only make a run longer; a block's time is the
median of those that it took in different nets.
"""

import json
import math
import platform
import re
import statistics
import time
from pathlib import Path

import numba
import numpy as np

from numnet import checkpoint
from numnet._version import __version__
from numnet.bench.machine import processor
from numnet.errors import NumnetError
from numnet.inference.executor import Executor, Plan
from numnet.kernels import vectors
from numnet.kernels.loss import softmax_cross_entropy
from numnet.layers.layer import watched
from numnet.models import build, describe
from numnet.search.blocks import words
from numnet.search.space import generator

FORMAT = 1
# How often a net runs with the clock between its blocks, and as often without.
ROUNDS = {"infer": 15, "train": 4}
WARM = 2  # runs before: the first allocates
YARDSTICK, CALM, MORE = "infer-1", 1.1, 4  # of ``fill``
LR = 0.001


def file_name(threads: int) -> str:
    """The usual name of this machine's table."""
    host = re.sub(r"[^\w.-]+", "-", platform.node()) or "this-machine"
    return f"latency-{host}-{threads}-threads.json"


def mode_of(text) -> tuple[str, int]:
    """("infer" or "train", images) of a mode's name; NumnetError for none."""
    found = re.fullmatch(r"(infer|train)-([1-9]\d{0,4})", str(text))
    if not found:
        raise NumnetError(
            f"mode: expected infer-1, infer-16, train-64 or another number of images, got {text!r}"
        )
    return found[1], int(found[2])


class Table:
    """Times of nets and of their blocks. ``machine``: what was measured on. ``runs``: a dict for each net and mode:

    net, options      what ``numnet.build`` takes
    mode              such as "infer-1"
    layers, whole     seconds of each of the net's layers and blocks in its place, and of all together
    """

    def __init__(self, machine, runs=()):
        self.machine, self.runs = machine, list(runs)
        self._blocks, self._beyond, self._words = {}, {}, {}  # what has been worked out, by mode or by net
        self._written = None  # the bytes that ``write`` wrote last

    @classmethod
    def here(cls, threads: int | None = None) -> "Table":
        """An empty table for this machine."""
        return cls(
            {
                "host": platform.node(),
                "processor": processor(),
                "lanes": int(vectors.LANES),
                "threads": threads or numba.get_num_threads(),
                "numnet": __version__,
            }
        )

    @classmethod
    def read(cls, path, known: "Table | None" = None) -> "Table":
        """The table in a file. NumnetError for one that is missing, damaged or something else.

        ``known``: a table with many of the same nets; what it has worked out of them is not worked out once more.
        """
        content = checkpoint.read_json(path, f"{path}: no such table; `numnet latency` makes one")
        try:
            if content["format"] != FORMAT or not isinstance(content["machine"], dict):
                raise ValueError
            table = cls(content["machine"], content["nets"])
            if known is not None:
                table._words = known._words
            for mode in {run["mode"] for run in table.runs}:
                mode_of(mode)
                times = [*table.blocks(mode).values(), *(run["whole"] for run in table.only(mode).runs)]
                if not all(0 <= seconds < math.inf for seconds in times):  # NaN is neither
                    raise ValueError
                table.beyond(mode)
        except (NumnetError, ValueError, TypeError, KeyError, AttributeError):
            raise NumnetError(
                f"{path}: no table of times, or a damaged one; `numnet latency` makes one"
            ) from None
        return table

    def write(self, path) -> None:
        """Into a file, whole or not at all: a line for each block, for readers, and one for each net."""

        def listed(parts):
            return ",\n".join(parts)

        def text(value):
            return json.dumps(value, ensure_ascii=False)

        blocks = [
            f" {text(mode)}: {{\n"
            + listed(f"  {text(w)}: {s:.4g}" for w, s in self.blocks(mode).items())
            + "\n }"
            for mode in self.modes
        ]
        nets = listed(f"  {text(run)}" for run in self.runs)
        head = f'"format": {FORMAT},\n"machine": {text(self.machine)}'
        content = f'{{{head},\n"blocks": {{\n{listed(blocks)}\n}},\n"nets": [\n{nets}\n]}}\n'
        self._written = content.encode()
        checkpoint.replace(Path(path), self._written)

    def wrote(self, path) -> bool:
        """True if the file is what this table has written last: nobody else has written there since."""
        try:
            return self._written is not None and Path(path).read_bytes() == self._written
        except OSError:
            return False

    @property
    def modes(self) -> list[str]:
        return list(dict.fromkeys(run["mode"] for run in self.runs))

    def only(self, mode) -> "Table":
        """The table of one mode."""
        return Table(self.machine, [run for run in self.runs if run["mode"] == mode])

    def blocks(self, mode) -> dict:
        """{words of a block: its seconds}."""
        if mode not in self._blocks:
            times = {}
            for run in self.only(mode).runs:
                for word, seconds in zip(self._describe(run)[0], run["layers"], strict=True):
                    times.setdefault(word, []).append(seconds)
            self._blocks[mode] = {word: statistics.median(each) for word, each in times.items()}
        return self._blocks[mode]

    def beyond(self, mode) -> tuple[float, float]:
        """a and b of (1): Theil and Sen's line, the median of all slopes, which single disturbances do not move."""
        if mode not in self._beyond:
            runs = self.only(mode).runs
            self._beyond[mode] = _line([(self._describe(r)[1], r["whole"] - sum(r["layers"])) for r in runs])
        return self._beyond[mode]

    def lacks(self, net, mode) -> list[str]:
        """The words of the net's blocks that have no time in this mode."""
        known = self.blocks(mode)
        return [each for each in dict.fromkeys(words(net, mode.startswith("train"))) if each not in known]

    def predict(self, net, mode) -> float:
        """Seconds of the net by (1). NumnetError if a block has no time."""
        missing = self.lacks(net, mode)
        if missing:
            raise NumnetError(
                f"the table has no time ({mode}) of {len(missing)} of the net's blocks, such as {missing[0]!r}; "
                "`numnet latency NET` measures them"
            )
        known, (start, each) = self.blocks(mode), self.beyond(mode)
        return (
            sum(known[word] for word in words(net, mode.startswith("train")))
            + start
            + each * _parameters(net)
        )

    def note(self, line, options, mode, layers, whole) -> None:
        """Enter what was measured. Of a net that is there already the shorter times stay."""
        layers, whole = [float(f"{seconds:.4g}") for seconds in layers], float(f"{whole:.4g}")
        self._blocks.pop(mode, None)
        self._beyond.pop(mode, None)
        for run in self.runs:
            if (run["net"], run["options"], run["mode"]) == (line, options, mode):
                run["layers"] = list(map(min, run["layers"], layers))
                run["whole"] = min(run["whole"], whole)
                return
        self.runs.append({"net": line, "options": options, "mode": mode, "layers": layers, "whole": whole})

    def _describe(self, run):
        """(words, number of parameters) of the net of a run."""
        training = run["mode"].startswith("train")
        key = run["net"], str(run["options"]), training
        if key not in self._words:
            net = describe(run["net"], **run["options"])
            self._words[key] = words(net, training), _parameters(net)
        return self._words[key]


def _line(points) -> tuple[float, float]:
    """(start, slope ≥ 0) of a line near these points (x, y)."""
    slopes = [(y2 - y1) / (x2 - x1) for i, (x1, y1) in enumerate(points) for x2, y2 in points[:i] if x1 != x2]
    slope = max(statistics.median(slopes), 0.0) if slopes else 0.0
    return (statistics.median(y - slope * x for x, y in points) if points else 0.0), slope


def _parameters(net) -> int:
    return sum(spec.size for spec in net.specs.values())


# ------------------------------------------------------------------------------------------------- the clock


def measure(net, mode, rounds=None) -> tuple[list[float], float]:
    """(seconds of each of the net's layers in their places, seconds of all) in a mode: the shortest of ``rounds`` runs."""
    kind, images = mode_of(mode)
    rounds = rounds or ROUNDS[kind]
    x = _images(net, images)
    return (_inference if kind == "infer" else _training)(net, x, rounds)


def whole(net, mode, rounds=None) -> float:
    """Seconds of the whole net in a mode, without any clock inside: the shortest of ``rounds`` runs."""
    kind, images = mode_of(mode)
    x = _images(net, images)
    work = (lambda: net.predict(x)) if kind == "infer" else _step(net, x)
    return _shortest(work, rounds or ROUNDS[kind])


def _images(net, images):
    return generator(0).standard_normal((images, *net.input_shape), np.float32).astype(net.dtype)


def _shortest(work, rounds) -> float:
    for _ in range(WARM):
        work()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def _inference(net, x, rounds):
    net.predict(x)
    executor = Executor(net.layers, net.flat, net.flat_buffers)
    plan = Plan(executor, x.shape, x.dtype)
    executor.folded.refresh()
    clock, rows = time.perf_counter, []
    for number in range(WARM + rounds):
        steps = plan.steps_for(x)
        taken = dict.fromkeys((id(layer) for layer in net.layers), 0.0)
        last = clock()
        for (call, arguments), owner in zip(steps, plan.owners, strict=True):
            call(*arguments)
            now = clock()
            taken[id(owner)] += now - last
            last = now
        plan.settle()
        if number >= WARM:
            rows.append(list(taken.values()))
    return [min(row) for row in zip(*rows)], _shortest(lambda: net.predict(x), rounds)


def _training(net, x, rounds):
    taken = {id(layer): 0.0 for layer in net.layers}

    def timed(layer, name, method):
        def call(*arguments, **options):
            began = time.perf_counter()
            result = method(*arguments, **options)
            taken[id(layer)] += time.perf_counter() - began
            return result

        return call

    step, rows = _step(net, x), []
    total = _shortest(step, rounds)
    with watched(net.layers, timed):
        for _ in range(rounds):
            taken.update(dict.fromkeys(taken, 0.0))
            step()
            rows.append(list(taken.values()))
    return [min(row) for row in zip(*rows)], total


def _step(net, x):
    """A training step as a function: forward, loss, backward, SGD with Nesterov's momentum."""
    from numnet.training.optimisers import SGD

    labels = np.arange(len(x)) % net.classes
    optimiser = SGD(net.flat, net.flat_grad, net.decay_mask, 0.0, momentum=0.9, nesterov=True)

    def step():
        _, dlogits = softmax_cross_entropy(net.forward(x, training=True), labels)
        net.backward(dlogits, input_gradient=False)
        optimiser.step(LR)

    return step


# ------------------------------------------------------------------------------------------------- whole spaces


def carriers(space, training=False, seed=0, **options) -> list[str]:
    """Lines of random nets that together hold every block of the space.

    Each stage of each net is drawn among the rows that have not yet followed a stage of so many channels, if any are left.
    In ``training`` what the stage before hands on counts, too. A stage has at least two layers (in ``training`` three) where
    it may have them, so that the later ones are timed as well. ``options``: keywords of ``numnet.build``.
    """
    rows, left = [], []
    for stage in range(len(space.stages)):
        most = max(space.choices(stage)["n"])
        rows.append([row for row in space.rows(stage) if row.n >= min(3 if training else 2, most)])
        before = (
            {(space.stem, "raw")} if stage == 0 else {(row.c, _handed(row, training)) for row in rows[-2]}
        )
        left.append({(start, row._replace(n=0)) for start in before for row in rows[-1]})
    seen, lines, number = set(), [], 0
    while any(left):
        rng, chosen, start = generator(seed, number), [], (space.stem, "raw")
        number += 1
        for missing, each in zip(left, rows):
            fresh = [row for row in each if (start, row._replace(n=0)) in missing] or each
            row = fresh[int(rng.integers(len(fresh)))]
            missing.discard((start, row._replace(n=0)))
            chosen.append(row)
            start = row.c, _handed(row, training)
        line = str(space.net(chosen))
        new = set(words(describe(line, **options), training)) - seen
        if new:
            seen |= new
            lines.append(line)
    return lines


def _handed(row, training):
    """What decides on what the next stage is handed in training."""
    return (row.kind == "conv", row.skip) if training else "raw"


def fill(table, lines, modes, tell=lambda line: None, again=False, **options) -> int:
    """Time the nets of these lines, each in the modes in which the table lacks one of its blocks; ``again``: in all.

    Other work on the machine or on its host comes in phases of seconds and minutes, longer than all runs of one net. So
    beside each net the first one is timed, too, always in the same way. Nets beside which it took over ``CALM`` times its
    best are timed again when all have had their turn, ``MORE`` times at most. Returns how many never had a calm moment.
    """
    yardstick = build(lines[0], **options) if lines else None
    wanted, beside = {}, {}  # of each net that is timed: its modes; seconds of the first net at that time

    def timed(line):
        net = build(line, **options)
        for mode in wanted[line]:
            table.note(line, options, mode, *measure(net, mode))
        return whole(yardstick, YARDSTICK, rounds=5)

    for line in lines:
        lacking = [mode for mode in modes if again or table.lacks(describe(line, **options), mode)]
        if lacking:
            wanted[line] = lacking
            beside[line] = timed(line)
        tell(line)
    for _ in range(MORE):
        for line in _disturbed(beside):
            beside[line] = min(beside[line], timed(line))
    return len(_disturbed(beside))


def _disturbed(beside) -> list:
    """The nets beside which the first one took longer than in its best moment."""
    return [each for each, seconds in beside.items() if seconds > CALM * min(beside.values())]
