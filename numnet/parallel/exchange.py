"""The gradient of all ranks from that of each, a bucket at a time, while backward goes on.

The parameters of a net lie in one vector in the order of computation, and backward finishes its gradient from the
end. So the vector is cut from the end into *buckets* of whole layers, about ``BUCKET`` bytes each; as soon as all
layers of a bucket are done, its sum over the ranks is started (``Iallreduce``, in place) and backward goes on with
the layers before. MPI moves data only inside its own calls, so after every layer all sums under way are given a push
(``Testall``). What is not through when backward is, is waited for: that wait is all that a step pays in time for
the network, besides the processor time of the pushes.
"""

import time

import numpy as np

BUCKET = 2 << 20  # bytes: at 1 GB/s 2 ms, a hundred times the latency of a message


def buckets(net, start=0, size=BUCKET):
    """[(lo, hi, layers)]: stretches of the flat vector from its end down to ``start``, and whose they are."""
    found, hi, layers = [], net.flat.size, []
    spans, at = [], 0
    for _, layer in net.walk():
        if layer.specs:
            spans.append((at, layer))
            at += sum(spec.size for spec in layer.specs.values())
    for lo, layer in reversed(spans):
        if hi <= start:
            break
        layers.append(layer)
        if (hi - lo) * net.flat.itemsize >= size or lo <= start:
            found.append((max(lo, start), hi, layers))
            hi, layers = lo, []
    return found


class Exchange:
    """Sums ``net.flat_grad`` over the ranks of ``comm`` in place. ``start``: parameters below are frozen.

    ``overlap=False`` sends everything after backward, to see what overlapping is worth. ``seconds``: what the
    steps so far spent in MPI during backward, and waited for it afterwards; ``bytes``: of gradients a rank handed over.
    """

    def __init__(self, comm, net, start=0, *, overlap=True, size=BUCKET):
        from mpi4py import MPI

        self.MPI, self.comm, self.net, self.overlap = MPI, comm, net, overlap
        self.buckets = buckets(net, start, size)
        self.owner = {id(layer): k for k, (*_, layers) in enumerate(self.buckets) for layer in layers}
        self.requests, self.left, self.sent, self.live = [], [], [], False
        self.seconds, self.bytes, self.steps = {"pushing": 0.0, "waiting": 0.0}, 0, 0

    def begin(self, live):
        """A backward pass is about to start; ``live``: it completes the gradient, so that layers may be sent."""
        self.live = live and self.overlap
        self.left = [{id(layer) for layer in layers} for *_, layers in self.buckets]
        self.sent = [False] * len(self.buckets)

    def done(self, layer):
        """The gradients of ``layer`` and of all below it are final."""
        if not self.live:
            return
        began = time.perf_counter()
        for _, leaf in layer.tree():
            number = self.owner.get(id(leaf))
            if number is not None:
                self.left[number].discard(id(leaf))
                if not self.left[number]:
                    self._send(number)
        if self.requests:
            self.MPI.Request.Testall(self.requests)
        self.seconds["pushing"] += time.perf_counter() - began

    def finish(self, *more):
        """Wait until the gradient, and the vectors ``more``, are the sums over all ranks."""
        began = time.perf_counter()
        for number in range(len(self.buckets)):
            self._send(number)
        for vector in more:
            if vector.size:
                self.requests.append(self.comm.Iallreduce(self.MPI.IN_PLACE, vector))
        self.MPI.Request.Waitall(self.requests)
        self.requests = []
        self.seconds["waiting"] += time.perf_counter() - began
        self.steps += 1

    def _send(self, number):
        if not self.sent[number]:
            self.sent[number] = True
            lo, hi, _ = self.buckets[number]
            self.bytes += (hi - lo) * self.net.flat_grad.itemsize
            self.requests.append(self.comm.Iallreduce(self.MPI.IN_PLACE, self.net.flat_grad[lo:hi]))


class Nothing:
    """The exchange where the sums are made elsewhere, or where there is nobody to exchange with."""

    seconds, bytes, steps = {"pushing": 0.0, "waiting": 0.0}, 0, 0

    def begin(self, live): ...

    def done(self, layer): ...

    def finish(self, *more): ...


def gatherer(comm):
    """gather(array) -> the arrays of all ranks, in order, as one (ranks, …)."""

    def gather(array):
        array = np.ascontiguousarray(array)
        if comm is None:
            return array[None]
        out = np.empty((comm.size, *array.shape), array.dtype)
        comm.Allgather(array, out)
        return out

    return gather
