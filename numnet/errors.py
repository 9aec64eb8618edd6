"""What a user of numnet is meant to read: the one exception, and lines about what was assumed or left out."""

import sys


class NumnetError(ValueError):
    """Bad input: the message is one line that says what is wrong, where, and what would be right.

    The command line prints it as ``numnet: error: …`` and leaves with exit code 2.
    """


class Diverged(NumnetError):
    """A training whose numbers are no longer finite."""


def say(text) -> None:
    """A line for a person: on standard error, so that standard output holds results alone.

    If nobody takes it (a closed pipe, a terminal that is gone), the work goes on.
    """
    if sys.stderr is not None:
        try:
            print(text, file=sys.stderr, flush=True)
        except (OSError, ValueError):
            pass


def tell(line: str) -> None:
    """``say`` in numnet's name."""
    say(f"numnet: {line}")
