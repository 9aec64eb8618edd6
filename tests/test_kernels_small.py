"""The small checks of each kernel page, as plain Python; `tests/long/mutations.py` asks whether they see a page's faults.

As plain Python nothing is compiled, tiles are so small that everything is cut, and what was never written is NaN.
"""

import os
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGES = re.findall(r'^@page\("(\w+)"', (HERE / "kernel_checks.py").read_text(), re.M)

SCRIPT = """\
import sys
import warnings
warnings.simplefilter("ignore")  # plain Python divides by zero aloud
sys.path.insert(0, sys.argv[1])
import kernel_checks
kernel_checks.shrink()
for check in kernel_checks.CHECKS[sys.argv[2]]:
    check()
print(len(kernel_checks.CHECKS[sys.argv[2]]))
"""


@pytest.mark.skipif(
    os.environ.get("NUMNET_CHECK", "0") not in ("", "0"), reason="plain Python tests each index anyway"
)
@pytest.mark.parametrize("page", sorted(set(PAGES)))
def test_page(page, run_python, tmp_path):
    script = tmp_path / "page.py"
    script.write_text(SCRIPT)
    assert int(run_python(script, HERE, page, env={"NUMBA_DISABLE_JIT": 1})) > 0
