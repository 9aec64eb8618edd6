"""The page of the five articles: every command of it that trains nothing prints the numbers of its row."""

import re
import shlex
from pathlib import Path

import pytest
from cli_tools import works

PAGE = Path(__file__).parents[1] / "notebooks" / "five_articles.md"
LIGHT = ("numnet summary ", "numnet cost ")


def rows():
    """(claim, what is so, [commands]) of every row of the page's tables."""
    for line in PAGE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0] != "claim":
            claim, _, said, shown = cells
            yield claim, said, re.findall(r"`([^`]+)`", shown)


ROWS = [row for row in rows() if any(command.startswith(LIGHT) for command in row[2])]


def numbers(text):
    """The counts in a text: numbers of four digits and more, written with commas."""
    return re.findall(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d.]*\d)", text)


@pytest.mark.parametrize("claim, said, commands", ROWS, ids=[row[0][:40] for row in ROWS])
def test_the_commands_print_what_the_page_says(claim, said, commands):
    printed = " ".join(works(*shlex.split(command)[1:]) for command in commands if command.startswith(LIGHT))
    missing = [n for n in numbers(said) if n not in printed and n not in KNOWN]
    assert not missing, (commands, missing)
    if "cost --block" in commands[0]:
        for ratio in re.findall(r"(\d\.\d\d) times", said):
            assert ratio in printed


# What a row repeats of another one, which prints it: V1's own totals, and what a claim or a sum gets wrong.
KNOWN = {"568,740,352", "4,231,976", "1,288,476", "51,381,248", "1,024", "1,280", "1,000"}


def test_every_row_says_what_shows_it():
    every = list(rows())
    assert len(every) >= 30 and len(ROWS) >= 18
    for claim, said, _ in every:
        assert claim and said, claim
    page = PAGE.read_text("utf-8")
    assert all(f"\n## {n}. " in page for n in range(1, 6))
    assert not re.search(r"\b[A-Z]{6,}\b", page.replace("RUN_DIR", "")), "a gap was left open"
