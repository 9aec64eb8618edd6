"""The command line: ``numnet COMMAND``. Arguments and work lie side by side in the files here.

Exit code 0: the job is done. 2: bad input or usage, with one line ``numnet: error: …`` on standard error.
130, 143 and 129: stopped by Ctrl-C, SIGTERM and a terminal that was closed (SIGHUP).
141: standard output was closed by its reader.
"""

from numnet.cli.commands import main as main
