"""One run directory, one process: the file ``.lock``, held by whoever trains there.

What is locked is the open file, by the operating system, not the file's existence: the lock of a process that is
dead, however it died, is free for the next one, and no process number is ever taken for another's. What stands in the
file only says who holds it.
"""

import json
import os
import socket
import time
from pathlib import Path

from numnet.errors import NumnetError

try:
    import fcntl
except ImportError:  # Windows: there a byte of the file is locked
    fcntl = None
    import msvcrt

NAME = ".lock"
HIDDEN_BYTE = 1 << 20  # beyond what is written: Windows lets nobody read a byte that is locked


class Lock:
    """The lock of one folder. ``take`` raises NumnetError that names the process which has it; ``free`` gives it back."""

    def __init__(self, folder):
        self.folder, self.path, self._file = Path(folder), Path(folder) / NAME, None

    def take(self) -> None:
        """Lock the folder for this process."""
        try:
            self._take()
        except OSError as error:
            self.free()
            raise NumnetError(f"cannot write to the run directory {self.folder}: {error.strerror}") from None

    def _take(self) -> None:
        while self._file is None:
            file = open(self.path, "a+b", buffering=0)  # a full disk is known at once, not when it is closed
            if not _lock(file):
                self._refuse(file)
            if _same(file, self.path):
                self._file = file
            else:  # whoever had it took the file away before we had it locked
                file.close()
        self._file.seek(0)
        self._file.truncate()
        who = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        self._file.write(json.dumps(who).encode() + b"\n")

    def require_free(self) -> None:
        """Raise what ``take`` would, and change nothing."""
        try:
            with open(self.path, encoding="utf-8") as file:
                if not _lock(file):
                    self._refuse(file)
        except OSError:
            pass  # no such file, or one that we may not read: no process claims the lock

    def _refuse(self, file) -> None:
        holder = _holder(file)
        file.close()
        raise NumnetError(
            f"{self.folder}: {holder} is training there; wait for it, stop it, or name another --out"
        )

    def free(self) -> None:
        """Remove the file, then unlock it, in this order: no process may lock a file that is about to be removed."""
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            if os.name != "nt":  # which removes no open file; an empty one stays
                self.path.unlink(missing_ok=True)
        except OSError:
            pass  # the folder has become read-only; a lock that no process holds does no harm
        file.close()


def _lock(file) -> bool:
    """True if the file is ours now. File systems that know no locks give it to everybody."""
    try:
        if fcntl is None:
            file.seek(HIDDEN_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def _same(file, path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(file, tries=20) -> str:
    """Who stands in the file; whoever has just locked it needs a moment to write."""
    for _ in range(tries):
        try:
            file.seek(0)
            who = json.loads(file.read(1000))
            return f"process {int(who['process'])} on {who['host']!s:.80} (since {who['since']!s:.40})"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.05)
    return "another process"
