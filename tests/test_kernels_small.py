"""The small checks of each kernel page, compiled; `tests/long/mutations.py` asks whether they see a page's faults."""

import pytest
from kernel_checks import CHECKS

EACH = [(page, check) for page, checks in CHECKS.items() for check in checks]


@pytest.mark.parametrize("page, check", EACH, ids=[f"{page}-{check.__name__}" for page, check in EACH])
def test_page(page, check):
    check()
