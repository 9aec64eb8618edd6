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
os.environ.setdefault(
    "OMP_WAIT_POLICY", "passive"
)  # threads of two test processes must not spin for each other's work
# Under nohup and & they are ignored, which the processes that the tests stop would inherit; a handler they do not.
for name in ("SIGINT", "SIGHUP"):
    if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, name), lambda *_: None)
if (os.cpu_count() or 1) < 2:
    os.environ.setdefault("NUMBA_NUM_THREADS", "2")  # or "one thread and two" would be tested with one alone


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
