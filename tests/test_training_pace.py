"""Pace: a training goes on with fewer threads where another program keeps a core busy, and with more when it is gone."""

import numba
import pytest
import training_fakes as fakes

import numnet
from numnet.training import pace
from numnet.training.loop import Callback
from numnet.training.pace import SECONDS, STEPS, TRIED, Pace


class Machine:
    """``cores``, of which other programs hold ``busy``: what a step takes with so many threads, and a clock."""

    def __init__(self, threads, busy=0):
        self.busy, self.now, self.used, self.cores = busy, 0.0, threads, threads
        self.pace = Pace(threads, clock=lambda: self.now, use=self.use)

    def use(self, threads):
        self.used = threads

    def go(self, steps):
        """Do so many steps; the numbers of threads that they were done with."""
        seen = []
        for _ in range(steps):
            took = 1 / self.used if self.used <= self.cores - self.busy else 40.0
            seen.append(self.used)
            self.now += took
            self.pace.step(took)
        return seen


def test_alone_it_stays_with_all_threads():
    machine = Machine(2)
    seen = machine.go(2000)
    assert seen[:TRIED] == [2] * TRIED and seen[TRIED : 2 * TRIED] == [1] * TRIED and machine.used == 2
    assert seen.count(1) <= TRIED * (1 + 2000 // STEPS)


@pytest.mark.parametrize("threads, busy", [(2, 1), (8, 1), (8, 4), (4, 2)])
def test_beside_other_programs_it_takes_the_cores_that_are_left(threads, busy):
    machine = Machine(threads, busy)
    machine.go(8 * TRIED)
    assert machine.pace.threads == threads - busy
    machine.busy = 0
    machine.go(STEPS + int(SECONDS * threads) + 4 * TRIED * threads)
    assert machine.pace.threads == threads, "when they are gone it takes all again"
    machine.pace.end()
    assert machine.used == threads


def test_a_little_noise_changes_nothing():
    machine = Machine(2)
    for took in (1.0, 1.05, 0.95) * TRIED:  # one thread seems 5 % faster
        machine.pace.step(took if machine.used == 2 else 0.95 * took)
    assert machine.pace.threads == 2


def test_one_thread_is_never_asked():
    machine = Machine(1)
    assert machine.go(1000) == [1] * 1000


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="NUMBA_NUM_THREADS allows one thread only")
def test_a_training_changes_its_threads_and_no_bit(monkeypatch):
    """Sent to and fro at each step; afterwards as many threads as before."""

    class Restless(Pace):
        def step(self, seconds):
            self.use(1 + len(used) % 2)

    class Watch(Callback):
        def on_step(self, run, loss):
            used.append(numba.get_num_threads())

    nets = []
    before = numba.get_num_threads()
    for kind in (Pace, Restless):
        monkeypatch.setattr("numnet.training.loop.Pace", kind)
        used = []
        net = fakes.make_net(seed=1)
        numnet.fit(net, fakes.make_data(), epochs=1, batch_size=8, callbacks=[Watch()], progress=False)
        nets.append(net)
        assert numba.get_num_threads() == before
    assert set(used) == {1, 2}
    assert (nets[0].flat == nets[1].flat).all() and pace.TRIED
