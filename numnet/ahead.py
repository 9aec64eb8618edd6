"""Kernels compiled before they are needed, by several processes at once.

A first training step on a new machine needs some twenty kernels. Compiled one after another, as each is called, they
take half a minute on one core while the others wait. So the step is first *noted*: it runs on a copy of the net while
every kernel only writes down the types of its arguments. Then the kernels that are not in the cache are compiled, one
process a core; each takes the next one from a common list. They meet in the cache on disk, from which this process
then loads them.

Nothing depends on it: what was not compiled ahead is compiled when it is called. ``NUMNET_COMPILERS`` sets the number
of processes: 1 is this one alone, 0 leaves it all to the calls.
"""

import importlib
import os
import pickle
import pkgutil
import subprocess
import sys
import threading
from collections import deque
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numba.core.registry import CPUDispatcher

from numnet import cores, kernels
from numnet.kernels import _jit

PROCESSES = 6  # at most: each holds a compiler of 250 MB
WORTH = 4  # kernels that are missing; for fewer the start of a process costs as much as it saves
LONGEST = ("inverted", "depthwise", "conv", "pointwise")  # pages whose kernels take longest: they go first


class Call(NamedTuple):
    """A kernel and the types of its arguments, by names that another process understands."""

    module: str
    name: str
    types: tuple

    @property
    def kernel(self):
        return getattr(importlib.import_module(self.module), self.name)

    def compiled(self) -> bool:
        """True if the machine code is in this process or in the cache."""
        kernel = self.kernel
        if self.types in kernel.overloads:
            return True
        cache = kernel._cache
        return cache._index_key(self.types, kernel.targetctx.codegen()) in cache._cache_file._load_index()


def prepare(work, tell=None, stopped=lambda: False) -> int:
    """Compile all kernels that ``work()`` would call; return how many were missing.

    work     is called once, with kernels that do nothing: give it copies. If it raises, since it cannot be copied or
             reads what a kernel did not write, nothing is compiled ahead
    tell     is called as tell(done, missing) at the start and after each kernel
    stopped  is asked between two kernels; true ends the compiling, with the rest left for later
    """
    if _jit.CACHE_FOLDER is None or not compilers():
        return 0
    try:
        calls = noted(work)
    except Exception:  # whatever it is, the work itself comes later, and says it then
        return 0
    missing = [call for call in calls if not call.compiled()]
    if missing:
        compile_all(missing, tell, stopped)
    return len(missing)


# ------------------------------------------------------------------------------------------------- noting


class _Noting(CPUDispatcher):
    """A kernel that writes down what it is called with, in the thread that asked for it; in others it runs as ever."""

    thread, calls, usual = None, {}, {}

    def __call__(self, *arguments):
        if threading.get_ident() != _Noting.thread:
            return _Noting.usual[self].__call__(self, *arguments)
        types = tuple(self.typeof_pyval(argument) for argument in arguments)
        _Noting.calls[Call(self.py_func.__module__, self.py_func.__name__, types)] = None
        return 0.0  # what a kernel of a step returns, if anything, is a number


_one = threading.Lock()


def noted(work) -> list[Call]:
    """The different calls of kernels in ``work()``, in order; the kernels themselves do not run.

    Arrays are left as they were made, so ``work`` must not decide anything by their numbers.
    """
    with _one, _noting():
        with np.errstate(all="ignore"):
            work()
        return list(_Noting.calls)


@contextmanager
def _noting():
    usual = {kernel: kernel.__class__ for kernel in _kernels()}
    _Noting.thread, _Noting.calls, _Noting.usual = threading.get_ident(), {}, usual
    try:
        for kernel in usual:
            kernel.__class__ = _Noting
        yield
    finally:
        for kernel, own in usual.items():
            kernel.__class__ = own


def _kernels() -> list[CPUDispatcher]:
    """All kernels that a cache keeps; none where Numba compiles nothing or a fork has taken the threads."""
    pages = [
        importlib.import_module(f"{kernels.__name__}.{page.name}")
        for page in pkgutil.iter_modules(kernels.__path__)
    ]
    found = {
        id(each): each for page in pages for each in vars(page).values() if isinstance(each, CPUDispatcher)
    }
    return [
        kernel
        for kernel in found.values()
        if isinstance(kernel._cache, _jit._Cache) and not isinstance(kernel, _jit._Forked)
    ]


# ---------------------------------------------------------------------------------------------- compiling


def compilers() -> int:
    """Processes that compile at once: $NUMNET_COMPILERS, else one a core, six at most. 0: nothing is compiled ahead."""
    asked = os.environ.get("NUMNET_COMPILERS", "")
    return int(asked) if asked.isdecimal() else min(PROCESSES, cores.available())


def compile_all(calls, tell=None, stopped=lambda: False) -> None:
    """Compile every call of the list, here and in as many processes more as there are cores."""
    tell = tell or (lambda done, missing: None)
    waiting = deque(sorted(calls, key=_rank))
    processes = compilers() if len(calls) >= WORTH else 1
    helpers = [_Helper(waiting, calls) for _ in range(min(processes, len(calls)) - 1)]
    try:
        tell(0, len(calls))
        while not stopped():
            try:
                call = waiting.popleft()
            except IndexError:
                break
            call.kernel.compile(call.types)
            tell(len(calls) - len(waiting) - sum(helper.busy for helper in helpers), len(calls))
        while not stopped() and any(helper.is_alive() for helper in helpers):
            for helper in helpers:
                helper.join(0.1)
            tell(len(calls) - len(waiting) - sum(helper.busy for helper in helpers), len(calls))
    finally:
        waiting.clear()
        for helper in helpers:
            helper.end()


def _rank(call) -> int:
    page = call.module.rpartition(".")[2]
    return LONGEST.index(page) if page in LONGEST else len(LONGEST)


class _Helper(threading.Thread):
    """A process that compiles, and the thread that gives it one kernel after another.

    The process is a new interpreter: a fork would have OpenMP's threads without what they do.
    """

    CODE = "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); from numnet import ahead; ahead._serve()"

    def __init__(self, waiting, calls):
        super().__init__(daemon=True)
        self.waiting, self.busy = waiting, False
        environment = {**os.environ, "NUMNET_CACHE": str(_jit.CACHE_FOLDER.parent.parent)}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", self.CODE], env=environment,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, ValueError, TypeError):  # no interpreter, no memory: we do without
            self.process = None
            return
        self.first = pickle.dumps(sys.path) + pickle.dumps(calls)
        self.numbers = {call: number for number, call in enumerate(calls)}
        self.start()

    def run(self):
        try:
            pipe = self.process.stdin
            pipe.write(self.first)
            while self.waiting:
                try:
                    call = self.waiting.popleft()
                except IndexError:
                    break
                self.busy = True
                pipe.write(b"%d\n" % self.numbers[call])
                pipe.flush()
                if not self.process.stdout.readline():
                    break  # it is gone; its kernel is compiled when it is called
                self.busy = False
            pipe.close()
        except (OSError, ValueError):
            pass
        self.busy = False

    def is_alive(self):
        return self.process is not None and super().is_alive()

    def join(self, timeout=None):
        if self.process is not None:
            super().join(timeout)

    def end(self):
        """At once, whatever it is doing: a file of the cache is put in its place whole or not at all."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.join()
            self.process.stdout.close()


def _serve() -> None:
    """The other process: the list, then a number a line; an answer when its kernel is compiled. Ends with its parent."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    calls = pickle.load(sys.stdin.buffer)
    for line in sys.stdin.buffer:
        call = calls[int(line)]
        if not call.compiled():
            call.kernel.compile(call.types)
        sys.stdout.buffer.write(b"done\n")
        sys.stdout.buffer.flush()
