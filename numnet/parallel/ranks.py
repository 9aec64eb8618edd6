"""The team of several processes: each does its share of every batch, and all have the same weights."""

import shlex
import socket
import sys
import time
import traceback

import numpy as np

from numnet.errors import NumnetError
from numnet.kernels.maps import PARTS
from numnet.layers.layer import ALONE
from numnet.parallel import launch
from numnet.parallel.exchange import Exchange, Nothing, gatherer
from numnet.parallel.peers import Exact, Peers, Synchronised, require_exact
from numnet.parallel.watch import Watch
from numnet.training.team import Part, Team, cut

PATIENCE = 2.0  # seconds that a rank with an error waits for the others to have one too


class Ranks(Team):
    """All processes that ``mpiexec`` started, or this one alone (``comm`` None), which can be exact too.

    A context: within it a rank that ends, by an error or by being killed, ends them all. Outside of steps it leaves
    a net alone.
    """

    def __init__(self, comm=None, *, overlap=True):
        self.comm, self.overlap = comm, overlap
        if comm is not None:
            self.rank, self.size = comm.rank, comm.size
        self.host, self.exchange, self.peers, self.net = socket.gethostname(), Nothing(), ALONE, None
        self.watch, self.errors, self.weight = None, None, 1.0

    @property
    def threads(self) -> int:
        """Threads of this rank's kernels now: its share of the cores, or as many as --threads says."""
        import numba

        return numba.get_num_threads()

    # ------------------------------------------------------------------------------------------- life

    def __enter__(self):
        if self.comm is not None:
            self.errors = self.comm.Dup()
            launch.share_cores(self.comm)
            self.watch = Watch(self.comm, self.host)
        return self

    def __exit__(self, kind, error, trace):
        if self.comm is None:
            return
        if error is None or self._all_have_one():
            self.watch.bye()
            if error is None or self.leads:
                return  # an error that all have is the leader's to tell
            code = 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "code", 2)
            raise SystemExit(code) from None
        where = f"rank {self.rank} on {self.host}"
        if isinstance(error, (NumnetError, OSError, MemoryError)):
            text = " ".join(str(error).split()) or type(error).__name__
            print(f"numnet: error: {where}: {text}", file=sys.stderr, flush=True)
        elif not isinstance(error, KeyboardInterrupt):
            print(f"{where}:", file=sys.stderr)
            traceback.print_exception(error)
        self.watch.bye()
        self.comm.Abort(2)

    def _all_have_one(self) -> bool:
        """True if every rank comes here within ``PATIENCE``: what went wrong went wrong everywhere."""
        request, until = self.errors.Ibarrier(), time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if request.Test():
                return True
            time.sleep(0.01)
        return False

    # ------------------------------------------------------------------------------------------- a training

    def start(self, run) -> None:
        settings, self.net, self.peers = run.settings, run.net, ALONE
        gather = gatherer(self.comm)
        if settings["exact"]:
            full, rest = divmod(run.images, settings["batch_size"])
            batches = [settings["batch_size"]] * min(full, 1) + [rest] * (rest > 0)
            require_exact(run.net, batches, settings["accumulate"], self.size)
            self.peers = Exact(self.exchange, self.rank, gather, self.size)
        elif self.comm is not None:
            kind = Synchronised if settings["sync_bn"] else Peers
            self.exchange = Exchange(self.comm, run.net, run.frozen[0], overlap=self.overlap)
            self.peers = kind(self.exchange, self.rank, gather)
        self.frozen, self.exact = run.frozen, settings["exact"]
        if self.watch is not None and run.out is not None:
            self.watch.hint(
                f"; to go on: numnet train --resume {shlex.quote(str(run.out))}", bar=run.progress
            )

    def parts(self, images, parts):
        mine, lo = [], 0
        for first, last in cut(images, parts):
            count = last - first
            if count < self.size:  # too few for all to have one: everybody does the same
                mine.append(Part(lo, lo + count, first, count, count / images / self.size, self.size))
                lo += count
                continue
            begin, end = count * self.rank // self.size, count * (self.rank + 1) // self.size
            own = end - begin
            mine.append(Part(lo, lo + own, first + begin, count, own / images))
            lo += own
        return mine

    def take(self, images, parts):
        return np.concatenate(
            [np.arange(part.first, part.first + part.hi - part.lo) for part in self.parts(images, parts)]
        )

    def before(self, part, last):
        if self.comm is None and not self.exact:
            return
        self.peers.images, self.peers.own = part.images, part.hi - part.lo
        self.peers.together = part.copies == 1
        self.weight = part.weight + (0.0 if self._fresh else self.weight)
        self._fresh = False
        for _, layer in self.net.walk():
            layer.peers = self.peers
        self.exchange.begin(live=last)

    _fresh = True  # no part of this step has begun

    def sum_gradient(self):
        for _, layer in self.net.walk():
            layer.peers = ALONE
        self._fresh = True
        if self.comm is None or self.exact:
            return
        running = self.net.flat_buffers[self.frozen[1] :]
        running *= self.weight  # of the ranks' running statistics the mean, weighted by their images
        self.exchange.finish(running)

    def sum_up(self, losses, correct, told):
        if self.comm is None:
            return sum(losses), correct, told
        own = np.array([*losses, correct, told or 0], np.float64)
        everyones = np.empty((self.size, own.size))
        self.comm.Allgather(own, everyones)
        losses, (correct, told) = everyones[:, :-2], everyones[:, -2:].T
        if self.exact:  # in the order of the images
            losses = losses.reshape(self.size, -1, PARTS // self.size).transpose(1, 0, 2).ravel()
        loss = sum(losses.ravel().tolist())
        return loss, sum(correct.tolist()), int(told.max()) or None

    # ------------------------------------------------------------------------------------------- the rest

    def gather(self, value):
        return [value] if self.comm is None else self.comm.allgather(value)

    def add(self, array):
        if self.comm is None:
            return array
        total = np.empty_like(array)
        self.comm.Allreduce(np.ascontiguousarray(array), total)
        return total

    def lead(self, function):
        return self._turns(function, everybody=False)

    def first(self, function):
        return self._turns(function, everybody=True)

    def _turns(self, function, everybody):
        value = None
        for turn in (True, False) if everybody else (True,):
            error = None
            if self.leads == turn:
                try:
                    value = function()
                except (NumnetError, OSError) as failure:
                    error = failure
            self._agree(error)
        if everybody or self.comm is None:
            return value
        return self.comm.bcast(value)

    def _agree(self, error):
        """Raise if any rank has an error: its own, or one that names the rank whose it is."""
        texts = self.gather(None if error is None else str(error))
        if error is not None:
            raise error
        for rank, text in enumerate(texts):
            if text is not None:
                raise NumnetError(f"rank {rank}: {text}")

    def level(self, net, **vectors):
        if self.comm is not None:
            for vector in (net.flat, net.flat_buffers, *vectors.values()):
                self.comm.Bcast(vector)

    def report(self) -> dict:
        """What the exchange of gradients has cost so far, on this rank: a mean step."""
        steps = max(self.exchange.steps, 1)
        return {
            "ranks": self.size,
            "threads": self.threads,
            "steps": self.exchange.steps,
            "buckets": len(getattr(self.exchange, "buckets", ())),
            "bytes_per_step": self.exchange.bytes / steps,
            **{f"{name}_seconds_per_step": value / steps for name, value in self.exchange.seconds.items()},
        }
