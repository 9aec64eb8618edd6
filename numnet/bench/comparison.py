"""Side against side: each measurement in a process of its own, the sides in turn, several rounds; then medians."""

import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys

from numnet.bench import machine
from numnet.bench.sides import SIDES
from numnet.bench.workloads import KERNELS, floor, macs, parts, traffic
from numnet.errors import NumnetError
from numnet.kernels import vectors

LEAST = 3  # steps a measurement
LAYER_STEPS = 5
# Relative: logits of running statistics agree better than losses; in eight bits sums may be rounded another way
AGREE = {"train": 1e-2, "infer": 1e-3, "infer-int8": 5e-2}
TOO_LONG = 1800  # seconds beside those of the measurement; nothing here takes that long


def compare(
    workloads, *, sides=("numnet", "pytorch"), threads, rounds=3, seconds=2.0, layers=False, say=print
) -> dict:
    """Measure all workloads with all sides that are installed; a JSON-able dict.

    machine      processor, cores, threads, lanes; measured peaks in floats ("flops") and in eight bits ("int8"), two
                 operations a multiply-add, and bandwidth (bytes/s)
    warnings     lines: what slows numnet here, and sides that do not agree in their results
    missing      {side: why it is not measured}
    workloads    a dict each: see ``measure``

    ``seconds`` of measurement a round, side and workload. ``say`` is told how it goes. NumnetError if numnet
    itself fails.
    """
    missing = {side: why for side in sides if (why := _missing(side))}
    sides = [side for side in sides if side not in missing]
    able = {w.name: [side for side in sides if w.mode in SIDES[side].modes] for w in workloads}
    if not any(able.values()):
        why = [f"{side}: {reason}" for side, reason in missing.items()]
        why += [f"{', '.join(sides)} cannot do {', '.join(able)}"] if sides else []
        raise NumnetError(f"nothing to measure: {'; '.join(why)}")
    facts = {"machine": _machine(threads, seconds), "warnings": machine.warnings(), "missing": missing}
    facts["workloads"] = []
    for workload in workloads:
        own = able[workload.name]
        if not own:
            facts["warnings"].append(f"{workload.name}: not measured, {', '.join(sides)} cannot do it")
            continue
        result = measure(workload, own, threads, rounds, seconds, layers, say, facts["machine"])
        facts["warnings"] += result.pop("warnings")
        facts["workloads"].append(result)
    return facts


def _missing(side) -> str | None:
    lacking = [package for package in SIDES[side].packages if importlib.util.find_spec(package) is None]
    if lacking:
        return f'{" and ".join(lacking)} not installed; pip install ".[compare]"'
    return None


def _machine(threads, seconds) -> dict:
    job = {"task": "machine", "threads": threads, "seconds": min(1.0, seconds / 2)}
    return {
        "processor": machine.processor(),
        "cores": machine.cores(),
        "threads": threads,
        "lanes": vectors.LANES,
        **_run(job),
    }


def measure(workload, sides, threads, rounds, seconds, layers, say, limits) -> dict:
    """One workload.

    name, mode, model, … threads    the workload
    macs, bytes                     of one step, in closed form
    sides                           {side: {"ms", "low_ms", "high_ms": the median of the rounds' medians and the range
                                    of these medians, "rounds_ms", "steps", "images_per_second", "gflops",
                                    "share_of_peak", "share_of_bandwidth", "memory_bytes"}}
    ratios                          {side: {"ratio": its time by numnet's, "low", "high": over the rounds}}
    failed                          {side: the last line that it said}: not measured, or in ``layers`` alone
    layers                          with ``layers``: {side: {kind of layer: [ms forward, ms backward]}}
    parts                           a kind of kernel: a list of {"name", "ms": {side: …}, "ratios": {side: its time by
                                    numnet's}, "floor_ms": what the machine needs at least: see ``workloads.floor``}
    """
    threads = workload.threads or threads
    job = {"task": "parts" if workload.mode in KERNELS else "steps", "workload": workload.as_dict()}
    job |= {"threads": threads, "seconds": seconds, "least": LEAST}
    if workload.mode in KERNELS:
        job["turns"] = 2 * len(parts(workload))  # forward and backward of each shape
    measured, failed = {side: [] for side in sides}, {}
    say(f"{workload.name}: {', '.join(sides)} in turn, rounds: {rounds}; the first compiles")
    for number in range(1, rounds + 1):
        for side in sides:
            if side in failed:
                continue
            try:
                measured[side].append(_run({**job, "side": side}))
            except NumnetError as error:
                if side == "numnet":
                    raise
                failed[side] = str(error)
                del measured[side]
        done = ", ".join(
            f"{side} {1e3 * _middle(runs[-1]['times']):.3g} ms" for side, runs in measured.items()
        )
        say(f"{workload.name}, round {number} of {rounds}: {done}")
    facts = {**workload.as_dict(), "threads": threads, "failed": failed}
    facts["warnings"] = _disagreement(workload, measured)
    if workload.mode in KERNELS:
        facts["ratios"] = {}
        if not measured:  # every side failed
            return facts
        facts["parts"] = _parts(measured, workload, limits)
        facts["ratios"] = {side: _mean_ratio(facts["parts"], side) for side in measured if side != "numnet"}
        return facts
    facts |= {"macs": macs(workload), "bytes": traffic(workload)}
    facts["sides"] = {side: _numbers(facts, runs, limits) for side, runs in measured.items()}
    facts["ratios"] = {}
    if "numnet" in measured:
        own = facts["sides"]["numnet"]
        facts["ratios"] = {
            side: _ratio(own, theirs) for side, theirs in facts["sides"].items() if side != "numnet"
        }
    if layers:
        facts["layers"] = _layers(job, measured, failed)
    return facts


def _run(job) -> dict:
    """The result of one child process. NumnetError with the last line of what it said, if it failed."""
    count = str(job["threads"])
    environment = {
        **os.environ,
        "NUMBA_NUM_THREADS": count,
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
    }
    command = [sys.executable, "-m", "numnet.bench.worker"]
    limit = TOO_LONG + job.get("turns", 1) * job.get("seconds", 0)
    try:
        done = subprocess.run(
            command, input=json.dumps(job), capture_output=True, text=True, env=environment, timeout=limit
        )
    except subprocess.TimeoutExpired:
        raise NumnetError(f"{job.get('side', 'the machine')}: no result after {limit:.0f} s") from None
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        why = said[-1] if said else f"exit code {done.returncode}"
        raise NumnetError(f"{job.get('side', 'the machine')} failed: {why[:600]}")
    return json.loads(done.stdout.splitlines()[-1])


# ----------------------------------------------------------------------------------------- numbers


def _middle(times) -> float:
    """The median time; of several parts their sum."""
    return sum(statistics.median(part) for part in times.values())


def _numbers(facts, runs, limits) -> dict:
    medians = [statistics.median(run["times"]["step"]) for run in runs]
    middle = statistics.median(medians)
    flops, memory = 2.0 * facts["macs"] / middle, [run["memory"] for run in runs if run["memory"] is not None]
    return {
        "ms": 1e3 * middle,
        "low_ms": 1e3 * min(medians),
        "high_ms": 1e3 * max(medians),
        "rounds_ms": [1e3 * median for median in medians],
        "steps": sum(len(run["times"]["step"]) for run in runs),
        "images_per_second": facts["batch"] / middle,
        "gflops": flops / 1e9,
        "share_of_peak": flops / limits["int8" if facts["mode"] == "infer-int8" else "flops"],
        "share_of_bandwidth": facts["bytes"] / middle / limits["bandwidth"],
        "memory_bytes": min(memory, default=None),  # the least: a round that compiled holds the compiler too
    }


def _ratio(own, theirs) -> dict:
    rounds = [b / a for a, b in zip(own["rounds_ms"], theirs["rounds_ms"])]
    return {"ratio": theirs["ms"] / own["ms"], "low": min(rounds), "high": max(rounds)}


def _parts(measured, workload, limits) -> list[dict]:
    floors = {
        f"{part.name}, {way}": floor(part, workload.batch, way, limits["flops"], limits["bandwidth"])
        for part in parts(workload)
        for way in ("forward", "dx and dw")
    }
    names = next(iter(measured.values()))[0]["times"]
    found = []
    for name in names:
        part = {"name": name, "ms": {}, "ratios": {}, "floor_ms": 1e3 * floors[name]}
        for side, runs in measured.items():
            part["ms"][side] = 1e3 * statistics.median(statistics.median(run["times"][name]) for run in runs)
        own = part["ms"].get("numnet")
        part["ratios"] = {side: ms / own for side, ms in part["ms"].items() if own and side != "numnet"}
        found.append(part)
    return found


def _mean_ratio(parts, side) -> dict:
    """The geometric mean over all parts, and the worst and the best of them."""
    ratios = [part["ratios"][side] for part in parts if side in part["ratios"]]
    if not ratios:
        return {"ratio": None, "low": None, "high": None}
    mean = math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios))
    return {"ratio": mean, "low": min(ratios), "high": max(ratios)}


def _disagreement(workload, measured) -> list[str]:
    """A line for each side that computes other numbers than numnet."""
    if workload.mode not in AGREE or "numnet" not in measured:
        return []
    own, lines = measured["numnet"][0]["result"], []
    for side, runs in measured.items():
        theirs = runs[0]["result"]
        if not abs(theirs - own) <= AGREE[workload.mode] * abs(own):
            lines.append(f"{workload.name}: {side} computes {theirs:.6g} where numnet computes {own:.6g}")
    return lines


def _layers(job, measured, failed) -> dict:
    """The times by kind of layer; another side that fails goes to ``failed``, and its steps stay measured."""
    times = {}
    for side in measured:
        try:
            found = _run({**job, "task": "layers", "side": side, "steps": LAYER_STEPS})["layers"]
        except NumnetError as error:
            if side == "numnet":
                raise
            failed[side] = f"no times of layers: {error}"
            continue
        if found is not None:
            times[side] = {kind: [1e3 * seconds for seconds in both] for kind, both in found.items()}
    return times
