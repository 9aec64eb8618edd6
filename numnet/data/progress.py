"""Progress bars of reading and downloading: on a terminal, and in a notebook, where there is none."""

import sys

SOON = 1.0  # seconds: what takes less shows nothing in a notebook, whose cells keep all that is printed


def bar(iterable=None, *, shown=True, **options):
    """A bar of tqdm's on standard error, if it is to be ``shown``; nothing where that is a file, a pipe or closed."""
    from tqdm import tqdm

    notebook = in_notebook()
    hidden = (
        not shown or sys.stderr is None or (False if notebook else None)
    )  # None: where that is no terminal
    return tqdm(iterable, disable=hidden, delay=SOON if notebook else 0, **options)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None
