"""How many threads this process can keep busy: its cores, or the processor time that a container's quota leaves it.

A container sees all cores of its machine, and may use a part of their time only: its control groups say which. Threads
beyond that part do not make anything faster: all are stopped together when the part of a tenth of a second is used up.

``import numnet`` loads this file before Numba, which cannot be imported while NUMBA_NUM_THREADS is 0 (``leave_out``).
"""

import math
import os
from contextlib import contextmanager
from pathlib import Path

from numnet.errors import tell


def available(root="/") -> int:
    """Threads that are worth starting: the cores that this process may run on, or the quota rounded up. 1 at least."""
    limit = quota(root)
    return affinity() if limit is None else max(1, min(affinity(), math.ceil(limit)))


def affinity() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota(root="/") -> float | None:
    """Seconds of processor time a second that the control groups of this process allow (Linux), or None for no limit.

    The least of its own group and all groups around it; groups of version 2 (cpu.max) and 1 (cpu.cfs_quota_us).
    ``root``: where /proc and /sys lie.
    """
    limits = []
    try:
        groups = _groups(Path(root, "proc/self/cgroup").read_text())
        mounts = Path(root, "proc/self/mountinfo").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in mounts:
        fields, _, rest = line.partition(" - ")
        fields, rest = fields.split(" "), rest.split(" ")
        if len(fields) < 5 or len(rest) < 3 or rest[0] not in ("cgroup", "cgroup2"):
            continue
        if rest[0] == "cgroup" and "cpu" not in rest[2].split(","):
            continue
        group = groups.get("" if rest[0] == "cgroup2" else "cpu")
        if group is not None:
            place = Path(root, _plain(fields[4]).lstrip("/"))
            limits += _limits(place, _below(group, _plain(fields[3])))
    return min(limits, default=None)


def _groups(text) -> dict:
    """Controller -> path of this process's group; "" stands for version 2."""
    groups = {}
    for line in text.splitlines():
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        groups |= dict.fromkeys(controllers.split(","), path)
    return groups


def _plain(path) -> str:
    """A path of /proc/self/mountinfo, where a blank is \\040."""
    return path.replace("\\040", " ").replace("\\134", "\\")


def _below(group, top) -> list:
    """The parts of a group's path below the mounted group ``top``; none if it does not lie there, as in a container."""
    top = top.rstrip("/")
    inside = group == top or group.startswith(top + "/")
    parts = [part for part in group[len(top) :].split("/") if part] if inside else []
    return [] if ".." in parts else parts


def _limits(place, parts) -> list:
    """The limits of the group ``place/parts`` and of those around it."""
    limits = []
    for depth in range(len(parts), -1, -1):
        group = place.joinpath(*parts[:depth])
        try:
            if (group / "cpu.max").exists():
                time, period = (group / "cpu.max").read_text().split()
            else:
                time = (group / "cpu.cfs_quota_us").read_text()
                period = (group / "cpu.cfs_period_us").read_text()
            if float(time) > 0 and float(period) > 0:  # "max" and -1 are no limit
                limits.append(float(time) / float(period))
        except (OSError, ValueError):
            pass  # no limit of this group
    return limits


def keep_to_quota() -> None:
    """Let the kernels run on no more threads than the quota is worth, unless NUMBA_NUM_THREADS says how many."""
    import numba

    if "NUMBA_NUM_THREADS" not in os.environ:
        threads = available()
        if threads < numba.config.NUMBA_NUM_THREADS and threads < numba.get_num_threads():
            numba.set_num_threads(threads)


@contextmanager
def within_quota():
    """``keep_to_quota`` inside; afterwards as many threads as before. Who has chosen a number keeps it."""
    import numba

    before = numba.get_num_threads() if available() < numba.config.NUMBA_NUM_THREADS else None
    chosen = before is not None and before != numba.config.NUMBA_NUM_THREADS
    try:
        if before is not None and not chosen:
            keep_to_quota()
        yield
    finally:
        if before is not None:
            numba.set_num_threads(before)


def leave_out(name="NUMBA_NUM_THREADS") -> None:
    """Take this variable away, and say so, where it is no number of threads. All cores are used then."""
    text = os.environ.get(name)
    try:
        usable = text is None or int(text) > 0
    except ValueError:
        usable = False
    if not usable:
        tell(f"{name} is {text!r}, expected a number of threads from 1 on: it is left out")
        del os.environ[name]


leave_out()
