"""The one exception that a user of numnet is meant to read."""


class NumnetError(ValueError):
    """Bad input: the message is one line that says what is wrong, where, and what would be right.

    The command line prints it as ``numnet: error: …`` and leaves with exit code 2.
    """
