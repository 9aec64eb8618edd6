"""All kernels over the whole shape table, and whole nets, with arrays that end and begin at protected pages.

    python tests/long/protected_pages.py                     everything (half an hour)
    python tests/long/protected_pages.py FILE… [-k WORDS]    these tests only

First a kernel that reads one number too far, and one that writes one too early, must die: else nothing is shown. Then
the tests run with every call of a compiled function guarded (see ``guarded.py``). The last line is JSON.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TESTS = HERE.parent
SUBJECTS = [*sorted(TESTS.glob("test_kernels_*.py")), TESTS / "test_augment.py", TESTS / "test_optimisers.py",
            TESTS / "test_blocks.py", TESTS / "test_net.py", TESTS / "test_models_training.py"]  # fmt: skip
# Several processes, which know nothing of the guard, or memory to the byte, which it does not leave alone.
EXCEPT = "not threads"

WRONG = """
import sys
import numpy as np
from numba import njit
import guarded

@njit
def last(x):
    return x[x.size - 1 + {further}]

@njit
def first(x):
    x[{earlier} * (-x.size - 1)] = 1.0

for function in (last, first):
    function(np.ones(7))
    function.__class__ = guarded.Guarded
    function(np.ones(7))
"""


def environment():
    paths = [str(HERE), str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def control():
    """Exit codes of a child that stays inside, one that reads too far and one that writes too early."""
    codes = []
    for further, earlier in ((0, 0), (1, 0), (0, 1)):
        program = WRONG.format(further=further, earlier=earlier)
        codes.append(
            subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True).returncode
        )
    return codes


def main(arguments):
    codes = control()
    assert codes == [0, -signal.SIGSEGV, -signal.SIGSEGV], f"the guard guards nothing: {codes}"
    tests = arguments or [*map(str, SUBJECTS), "-k", EXCEPT]
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        "-m",
        "pytest",
        "-p",
        "guarded",
        "-p",
        "no:cacheprovider",
        *tests,
    ]
    done = subprocess.run(command, env=environment(), cwd=TESTS.parent, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    numbers = re.search(r"guarded: (\d+) functions, (\d+) calls, (\d+) arrays", done.stdout)
    figures = dict(
        zip(("functions", "calls", "arrays"), map(int, numbers.groups() if numbers else (0, 0, 0)))
    )
    print(json.dumps({"exit code": done.returncode, **figures, "control": codes}))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
