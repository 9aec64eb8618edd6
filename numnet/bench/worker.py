"""One measurement in a process of its own: a job as JSON on standard input, its result as JSON, the last line, on output.

A process of its own, because two libraries' idle threads would take each other's cores, because memory can then be
told apart, and because neither side's first call should pay for the other's.
"""

import json
import os
import sys
import time

WARM_UP = 2  # steps before the clock runs: the first compiles and allocates


def main() -> None:
    job = json.loads(sys.stdin.read())
    print("\n" + json.dumps(TASKS[job["task"]](job)))


def _steps(job) -> dict:
    """Times of single steps, the growth of the memory, the number that all sides must agree on."""
    side, before = _side(job)
    for _ in range(WARM_UP):
        side.step()
    _forget_peak()
    times, end = [], time.perf_counter() + job["seconds"]
    while len(times) < job["least"] or time.perf_counter() < end:
        began = time.perf_counter()
        side.step()
        times.append(time.perf_counter() - began)
    after = _peak()
    memory = None if after is None or before is None else max(after - before, 0)
    return {"times": {"step": times}, "memory": memory, "result": side.result()}


def _layers(job) -> dict:
    side, _ = _side(job)
    side.step()
    return {"layers": side.layers(job["steps"])}


def _parts(job) -> dict:
    side, _ = _side(job)
    return {"times": side.parts(job["seconds"]), "memory": None, "result": None}


def _machine(job) -> dict:
    from numnet.bench import machine

    seconds = job["seconds"]
    return {
        "flops": machine.peak_flops(job["threads"], seconds),
        "int8": machine.peak_int8(job["threads"], seconds),
        "bandwidth": machine.bandwidth(seconds),
    }


TASKS = {"steps": _steps, "layers": _layers, "parts": _parts, "machine": _machine}


def _side(job):
    """The side, ready, and the memory in use before it was."""
    from numnet.bench.sides import SIDES
    from numnet.bench.workloads import Workload

    cls = SIDES[job["side"]]
    for package in cls.packages:
        __import__(package)
    before = _resident()
    return cls(Workload(**job["workload"]), job["threads"]), before


# ----------------------------------------------------------------------------------------- memory


def _resident() -> int | None:
    """Bytes of this process in memory now; where the system does not say, the most there ever were."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return _peak()


def _peak() -> int | None:
    """The most bytes of this process that were in memory, since _forget_peak where the system can forget."""
    try:  # on Linux ``ru_maxrss`` would keep the peak of the process that started this one
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _forget_peak() -> None:
    """Start counting anew, so that compiling, done once and over, is not taken for a step's need."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


if __name__ == "__main__":
    main()
