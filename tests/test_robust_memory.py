"""No kernel touches memory that is not its own: arrays between protected pages. And none is kept that nobody needs.

The long forms: ``python tests/long/protected_pages.py`` runs all kernel tests and whole nets that way, and
``python tests/long/leaks.py`` thousands of steps.
"""

import json
import sys
from pathlib import Path

import pytest
from kernel_shapes import CHECKING

LONG = Path(__file__).parent / "long"

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX memory protection"),
    pytest.mark.skipif(CHECKING, reason="needs the compiled kernels as they are used"),
]


def test_arrays_between_protected_pages(run_python):
    """Every public kernel once, and one training step and inference of each family's blocks."""
    words = "out_is_written or test_one_image"
    files = [f"tests/{name}.py" for name in ("test_kernels_arguments", "test_net")]
    figures = json.loads(run_python(LONG / "protected_pages.py", *files, "-k", words).splitlines()[-1])
    assert figures["exit code"] == 0 and figures["control"] == [0, -11, -11]
    assert figures["functions"] >= 20 and figures["calls"] >= 50 and figures["arrays"] >= 400


def test_memory_does_not_grow(run_python):
    """A hundredth part of the long check, with a bound that noise does not reach and a kept batch would."""
    figures = json.loads(run_python(LONG / "leaks.py", "--steps", 40, "--predictions", 80).splitlines()[-1])
    assert figures["training"]["growth"] <= 0.02 and figures["predictions"]["growth"] <= 0.02
