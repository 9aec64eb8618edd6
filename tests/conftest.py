"""What all tests share: settings that must stand before numnet is imported, and a few fixtures.

The kernel tests run in two modes, the second a slow one that compiles every index check in:

    pytest tests/test_kernels_*.py
    NUMNET_CHECK=1 pytest tests/test_kernels_*.py
"""

import os
import signal
import subprocess
import sys

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")
# Vectors of four numbers: fewer kinds of kernels to compile, more ends of rows to get wrong. All lanes give the same bits;
# the tests of just that run whole training steps with the processor's own, in processes of their own.
os.environ.setdefault("NUMNET_LANES", "4")
os.environ.setdefault("NUMNET_COMPILERS", "0")  # each worker keeps a core busy; test_ahead says otherwise
os.environ.pop("PYTHONUNBUFFERED", None)  # processes that the tests start write as a user's do
# Threads of two test processes must not spin for each other's work
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Under nohup and & they are ignored, which the processes that the tests stop would inherit; a handler they do not.
for name in ("SIGINT", "SIGHUP"):
    if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, name), lambda *_: None)

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
OWN = CORES  # the cores of this one of several test processes
if WORKERS > 1 and CORES and os.path.isdir("/proc/self/task"):
    OWN = CORES[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) % len(CORES) :: WORKERS]
if OWN != CORES or (os.cpu_count() or 1) < 2:  # or "one thread and two" would be tested with one alone
    os.environ.setdefault("NUMBA_NUM_THREADS", str(max(2, len(OWN))))


def pytest_configure(config):
    """Numba's own warnings are no errors. (Named in setup.cfg, they would have Numba imported before this file.)"""
    for name in ("NumbaWarning", "NumbaDebugInfoWarning"):
        config.addinivalue_line("filterwarnings", f"ignore::numba.core.errors.{name}")


def keep_to(cores):
    """Let all threads of this process, and the processes that it will start, run on these cores only."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cores)


def pytest_collection_modifyitems(items):
    """Two test processes begin at the first test and in the middle: there stand kernels of which none is compiled twice."""
    if WORKERS == 1:
        return
    files = {item: item.path.stem.removeprefix("test_kernels_") for item in items}
    second = [item for item in items if files[item] == "depthwise"]
    kernels = [item for item in items if item.path.stem != files[item] and item not in second]
    later = [item for item in kernels if files[item] in ("arguments", "fused", "threads")]  # use all kernels
    first = [item for item in kernels if item not in later]
    taken = {*first, *later, *second}
    later += [item for item in items if item not in taken]
    between = max(0, len(items) // 2 - len(first))
    items[:] = first + later[:between] + second + later[between:]


@pytest.fixture(scope="session", autouse=True)
def own_cores():
    """Each of several test processes keeps to cores of its own.

    A kernel ends when its last thread does, and a thread whose core is busy with another process waits for
    milliseconds, at every kernel: what takes three seconds alone took forty when two test processes had two threads
    each on two cores. Threads that share a core take turns at once.
    """
    if OWN != CORES:
        keep_to(OWN)


@pytest.fixture(scope="module")
def all_cores(own_cores):
    """For tests in which threads should really run side by side."""
    if OWN != CORES:
        keep_to(CORES)
    yield
    if OWN != CORES:
        keep_to(OWN)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def run_python():
    """run_python(script, *arguments, env={}, fails=False): standard output of a fresh Python process.

    ``env`` is laid over this process's environment; a value of None takes the variable away. Warnings are
    errors there too. With ``fails`` the process must fail, and its standard error is returned.
    """

    def run(script, *arguments, env=None, fails=False, cwd=None):
        variables = {**os.environ, **(env or {})}
        variables = {name: str(value) for name, value in variables.items() if value is not None}
        command = [sys.executable, "-W", "error", str(script), *map(str, arguments)]
        done = subprocess.run(command, env=variables, cwd=cwd, capture_output=True, text=True, timeout=300)
        assert (done.returncode != 0) == fails, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stderr if fails else done.stdout

    return run
