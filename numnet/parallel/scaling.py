"""How long a training step takes on R ranks, from what one rank needs and what a message costs.

**Compute** is measured, not counted: forward, and backward layer by layer, for a few numbers of images; lines
a + b·n through neighbouring ones, layer by layer, stand for any share n of a batch. (Kernels take longer an image
when there are few.)

**Communication** is the usual latency-bandwidth model (Thakur, Rabenseifner and Gropp 2005). With α seconds a
message, β bytes a second, and a vector of m bytes summed over R ranks:

(1)  ring   2·(R − 1)·α + 2·(R − 1)/R · m/β      every rank sends its R-th parts round, then the sums
(2)  tree   ⌈log₂ R⌉ · (α + m/β)                 in round k with the rank 2^k away, the whole vector each time

Rings are best for long vectors on few ranks, trees for short ones on many; ``best`` takes the quicker for each bucket, as
MPI libraries do. Adding up counts as part of 1/β.

**Overlap.** A bucket (``exchange``) starts when backward has finished its layers and the buckets before it are
through. A part ``hidden`` of its time overlaps with the computation, the rest takes the processor from it: 1 where a
network card does the work, near 0 where ranks on the same cores copy through memory. It is measured too.
"""

import time
from math import ceil, log2
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from numnet.kernels import pointwise_forward
from numnet.kernels.loss import softmax_cross_entropy
from numnet.layers.layer import ALONE, Alone
from numnet.parallel.exchange import buckets
from numnet.training.optimisers import SGD

SIZES = (8, 1024, 32 << 10, 256 << 10, 1 << 20, 4 << 20)  # bytes of the vectors that a link is measured with


ENOUGH = 3.0  # seconds after which a measurement is not repeated


class Link(NamedTuple):
    """Between two ranks: seconds a message, bytes a second, and the part of the time that computing goes on in."""

    latency: float
    bandwidth: float
    hidden: float = 1.0


def ring(size, ranks, link) -> float:
    """Equation (1)."""
    return 0.0 if ranks == 1 else 2 * (ranks - 1) * (link.latency + size / ranks / link.bandwidth)


def tree(size, ranks, link) -> float:
    """Equation (2)."""
    return ceil(log2(ranks)) * (link.latency + size / link.bandwidth)


def best(size, ranks, link) -> float:
    return min(ring(size, ranks, link), tree(size, ranks, link))


ALGORITHMS = {"best": best, "ring": ring, "tree": tree}


# ------------------------------------------------------------------------------------------- compute, measured


class Stage(NamedTuple):
    """One layer's backward, or all of forward or of the optimiser: seconds for some numbers of images, ascending."""

    name: str
    images: tuple
    times: tuple
    bucket: int = -1  # that is complete when this stage is over

    def seconds(self, images) -> float:
        """Of any number of images: the line through the neighbours; beyond them, through the last two."""
        if len(self.images) == 1:
            return self.times[0] * images / self.images[0]
        k = min(max(np.searchsorted(self.images, images), 1), len(self.images) - 1)
        (few, many), (short, long) = self.images[k - 1 : k + 1], self.times[k - 1 : k + 1]
        slope = max(0.0, (long - short) / (many - few))
        return float(max(long + slope * (images - many), 0.0))


class Compute(NamedTuple):
    """What a rank does in a step: stages in order, buckets (bytes) and the bytes of the running statistics."""

    forward: Stage
    backward: list
    update: Stage
    buckets: list
    buffers: int
    measured: dict  # images -> seconds of a whole step

    def seconds(self, images) -> float:
        return sum(stage.seconds(images) for stage in (self.forward, *self.backward, self.update))


class Clock(Alone):
    """Peers that look at the clock whenever a layer's backward is over."""

    def __init__(self):
        self.times = []

    def done(self, layer):
        if layer.specs:
            self.times.append((layer, time.perf_counter()))


def measure(net, shares, repeats=5) -> Compute:
    """Time steps of ``net`` with so many images as the numbers in ``shares`` say; the medians of ``repeats``."""
    optimiser = SGD(net.flat, net.flat_grad, net.decay_mask)
    names = {id(layer): path for path, layer in net.walk()}
    cut = buckets(net)
    last, left = {}, [{id(layer) for layer in layers} for *_, layers in cut]
    before, clock, tables, totals = net.flat.copy(), Clock(), {}, {}
    for _, layer in net.walk():
        layer.peers = clock
    try:
        for images in shares:
            x, labels = _batch(net, images)
            rows = []
            for _ in range(repeats + 2):
                clock.times = []
                began = time.perf_counter()
                logits = net.forward(x, training=True)
                dlogits = softmax_cross_entropy(logits, labels)[1]
                middle = time.perf_counter()
                net.backward(dlogits, input_gradient=False)
                end = time.perf_counter()
                optimiser.step(0.0)  # the same work, and the weights stay
                stamps = [middle, *(stamp for _, stamp in clock.times), end]
                rows.append([middle - began, *np.diff(stamps), time.perf_counter() - end])
                layers = [layer for layer, _ in clock.times]
            tables[images] = np.median(rows[2:], axis=0)
            totals[images] = float(np.median([sum(row) for row in rows[2:]]))
    finally:
        for _, layer in net.walk():
            layer.peers = ALONE
        net.flat[:] = before
    for layer in layers:
        for number, owed in enumerate(left):
            if id(layer) in owed:
                owed.discard(id(layer))
                if not owed:
                    last[id(layer)] = number
    words = ["forward", *(names[id(layer)] for layer in layers), "end of backward", "update"]
    complete = [-1, *(last.get(id(layer), -1) for layer in layers), -1, -1]
    stages = [
        Stage(word, tuple(sorted(tables)), tuple(float(tables[n][k]) for n in sorted(tables)), bucket)
        for k, (word, bucket) in enumerate(zip(words, complete))
    ]
    sizes = [(hi - lo) * net.flat.itemsize for lo, hi, _ in cut]
    return Compute(stages[0], stages[1:-1], stages[-1], sizes, net.flat_buffers.nbytes, totals)


def _batch(net, images):
    draw = np.random.default_rng(0)
    return draw.normal(size=(images, *net.input_shape)).astype(net.dtype), np.arange(images) % max(
        net.classes, 1
    )


# ------------------------------------------------------------------------------------------- the link, measured


def measure_link(comm, repeats=9) -> Link:
    """The link between the first and the last rank, by all-reductions of ``SIZES``; the others wait.

    They are those of ``exchange``, ``Iallreduce`` in place: MPI may go another way for the call that blocks.
    """
    ends = comm.Split(0 if comm.rank in (0, comm.size - 1) else 1)
    link = None
    if comm.rank in (0, comm.size - 1):
        times = []
        for size in SIZES:
            send = _sum_of(size, ends)
            times.append(_median(lambda send=send: send().Wait(), ends, repeats))
        latency, long = float(np.median(times[:2])), sum(times[-2:])
        # Where others use the cores, short messages may seem to take as long as long ones: half of these is their bytes'.
        bandwidth = sum(SIZES[-2:]) / max(long - 2 * latency, long / 2)
        link = Link(latency, bandwidth, _hidden(ends, times[-1], repeats))
    ends.Free()
    comm.Barrier()
    return comm.bcast(link)


def _median(function, comm, repeats) -> float:
    """Seconds of ``function()``, the slower rank's; the first two calls warm up."""
    seconds = []
    for _ in range(repeats + 2):
        comm.Barrier()
        began = time.perf_counter()
        function()
        seconds.append(max(comm.allgather(time.perf_counter() - began)))
        # Ranks that share a core are slow; all see the same sum
        if sum(seconds) > ENOUGH and len(seconds) > 1:
            break
    return float(np.median(seconds[2:] or seconds[-1:]))


def _sum_of(size, comm):
    """A function that starts to add up vectors of so many bytes over the ranks."""
    from mpi4py import MPI

    x = np.zeros(size // 4, np.float32)
    return lambda: comm.Iallreduce(MPI.IN_PLACE, x)


def _hidden(comm, alone, repeats) -> float:
    """The part of a 4 MiB all-reduction that overlaps with a computation of the same length, with ``Test`` every so often.

    It computes as a layer does, with a kernel and as many threads as this rank has. (A product by NumPy would have a
    thread for each core of the machine: those of all ranks of a machine together are more than its cores, and nothing
    overlaps with them.)
    """
    x, w = np.ones((1, 16, 32, 256), np.float32), np.full((256, 256), 1 / 256, np.float32)
    y, send = np.empty_like(x), _sum_of(SIZES[-1], comm)

    def layers(number, request=None):
        for _ in range(number):
            pointwise_forward(x, w, out=y)
            if request is not None:
                request.Test()

    layers(10)
    one = _median(lambda: layers(10), comm, repeats) / 10
    number = max(1, round(alone / one))

    def both():
        request = send()
        layers(number, request)
        request.Wait()

    work, together = _median(lambda: layers(number), comm, repeats), _median(both, comm, repeats)
    return float(np.clip((alone + work - together) / min(alone, work), 0.0, 1.0))


def measure_step(team, net, images, repeats=9) -> float:
    """Seconds of a step of all ranks of ``team``, each with its share of ``images``; the slowest rank's median."""
    settings = {"exact": False, "sync_bn": False, "batch_size": images}
    run = SimpleNamespace(settings=settings, net=net, images=images, frozen=(0, 0), out=None, progress=False)
    team.start(run)
    optimiser, before = SGD(net.flat, net.flat_grad, net.decay_mask), net.flat.copy()
    (part,) = team.parts(images, 1)
    x, labels = _batch(net, part.hi - part.lo)

    def step():
        team.before(part, last=True)
        logits = net.forward(x, training=True)
        loss, dlogits = softmax_cross_entropy(logits, labels)
        dlogits *= part.weight
        net.backward(dlogits, input_gradient=False)
        team.sum_gradient()
        team.sum_up([loss], 0, None)
        optimiser.step(0.0)

    seconds = _median(step, team.comm, repeats)
    net.flat[:] = before
    return seconds


# ------------------------------------------------------------------------------------------- prediction


def step(compute, ranks, images, link, algorithm="best", overlap=True) -> dict:
    """Seconds of a step on ``ranks`` ranks of ``images`` images each: "step", "compute", "communication", "exposed".

    "communication" is what the all-reductions take by themselves, "exposed" what they add to the step.
    """
    time_of = ALGORITHMS[algorithm]
    clock, line, total = compute.forward.seconds(images), 0.0, 0.0
    ready = []
    for stage in compute.backward:
        clock += stage.seconds(images)
        if stage.bucket >= 0:
            took = time_of(compute.buckets[stage.bucket], ranks, link)
            ready.append(took)
            if overlap:
                line = max(line, clock) + took
                clock += (1 - link.hidden) * took
    for took in () if overlap else ready:
        line = max(line, clock) + took
    # The running statistics, and the loss and the number of right answers.
    last = time_of(compute.buffers, ranks, link) + ceil(log2(ranks)) * link.latency
    total = sum(ready) + last
    own = compute.seconds(images)
    if ranks == 1:
        return {"step": own, "compute": own, "communication": 0.0, "exposed": 0.0}
    whole = max(line, clock) + last + compute.update.seconds(images)
    return {"step": whole, "compute": own, "communication": total, "exposed": whole - own}


def curves(compute, batch, link, most, algorithm="best") -> list[dict]:
    """A row for 1, 2, 4 … ``most`` ranks: one batch shared by all, and (``each_``) a batch of that size for each.

    Speed-up and efficiency are against one rank; a batch is shared by at most as many ranks as it has images.
    """
    rows, ranks = [], 1
    one = step(compute, 1, batch, link, algorithm)["step"]
    while ranks <= most:
        row = {"ranks": ranks}
        if ranks <= batch:
            found = step(compute, ranks, batch / ranks, link, algorithm)
            speedup = one / found["step"]
            row |= {"images": batch / ranks, **found, "images_per_second": batch / found["step"]}
            row |= {"speedup": speedup, "efficiency": speedup / ranks}
        each = step(compute, ranks, batch, link, algorithm)
        row |= {"each_step": each["step"], "each_exposed": each["exposed"]}
        row |= {"each_images_per_second": ranks * batch / each["step"], "each_efficiency": one / each["step"]}
        rows.append(row)
        ranks *= 2
    return rows


def assumptions(link, algorithm, measured_link) -> list[str]:
    """What a prediction rests on, a line each."""
    how = (
        "measured between the first and the last rank"
        if measured_link
        else "as given or by default, not measured"
    )
    return [
        f"a message takes {1e6 * link.latency:,.1f} µs and {link.bandwidth / 1e9:.3g} GB/s: {how}",
        f"{100 * link.hidden:.0f} % of an all-reduction overlaps with the computation",
        f"all-reduction: {'the quicker of ring and tree' if algorithm == 'best' else algorithm}, on links that do not "
        "disturb each other and are equal between all ranks",
        "every rank computes as fast as the slowest one here; none is late",
        "batch norm over each rank's share (no --sync-bn, no --exact); data is read in time; evaluation and "
        "checkpoints are left out",
    ]
