"""Pace: as many threads as make a training's steps fast now.

Every pass of a kernel ends when its last thread does. If another program keeps a core busy, the thread on that core comes
late, by milliseconds, at each of some hundred passes of a step: two threads are then slower than one, at times by far. (How
far, and what else helps: docs/howto/busy_machine.md.) The bits of a training do not depend on its threads, so their number
may change at any step.

So now and then a few steps are done with one thread less, with half of them, and with one more where there are more. The
number stays that was fastest, and after a change it is asked again at once. While nothing else runs, this costs some steps in
three hundred.
"""

import time
from statistics import median

import numba

TRIED = 3  # steps with each number of threads; the middle one counts
STEPS, SECONDS = 300, 20.0  # before it is asked again
CLEARLY = 0.9  # a number of threads is better if its steps take at most so much of the time


class Pace:
    """The number of threads of a training; ``threads``: those that it was given, and the most."""

    def __init__(self, threads: int, clock=time.perf_counter, use=numba.set_num_threads):
        self.most = self.threads = threads
        self.clock, self.use = clock, use
        self._ask()

    def _ask(self) -> None:
        """Try the present number of threads, then others."""
        now = self.threads
        tried = dict.fromkeys(n for n in (now, now - 1, now // 2, now + 1) if 1 <= n <= self.most)
        self.todo, self.times = [n for n in tried for _ in range(TRIED)], {n: [] for n in tried}

    def step(self, seconds: float) -> None:
        """Take note of a step, by its seconds an image, and say with how many threads the next one is done."""
        if self.most == 1:
            return
        if not self.todo:
            self.left -= 1
            if self.left <= 0 and self.clock() >= self.again:
                self._ask()
                self.use(self.todo[0])
            return
        self.times[self.todo.pop(0)].append(seconds)
        if not self.todo:
            self._choose()
        self.use(self.todo[0] if self.todo else self.threads)

    def _choose(self) -> None:
        taken = {n: median(each) for n, each in self.times.items()}
        best = min(taken, key=taken.get)
        if taken[best] <= CLEARLY * taken[self.threads]:
            self.threads = best
            self._ask()
        else:
            self.left, self.again = STEPS, self.clock() + SECONDS

    def end(self) -> None:
        """All threads, for what comes after the training."""
        self.use(self.most)
