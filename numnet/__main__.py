"""``python -m numnet``: the command line, where the command ``numnet`` is not on the path."""

import sys

from numnet.cli import main

if __name__ == "__main__":
    sys.exit(main())
