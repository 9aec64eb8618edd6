"""What the machine can do at most, measured by three small kernels; and what keeps it from doing so.

The two roofs of Williams, Waterman and Patterson (2009), "Roofline": multiply-adds a second with everything
in registers, and bytes a second between the cores and memory. Nothing that computes on this machine exceeds
the first; only what stays in the caches exceeds the second. Eight bits have a first roof of their own.
"""

import os
import platform
import time
from pathlib import Path

import numpy as np
from numba import prange

from numnet.cores import affinity
from numnet.kernels import vectors, words
from numnet.kernels._jit import kernel
from numnet.kernels.tiles import fma_tile, load_tile, zeros
from numnet.kernels.vectors import fma, lanes, load, number_of, spread, store, width

# Multiply-adds under way at once: units × latency is 8 to 10, with NEON up to 16, and a result is ready in its turn only.
CHAINS = 12 if vectors.REGISTERS == 16 else 24
# Of eight bits: sums under way, rows × vectors, and how many words of each row there are.
ROWS, VECTORS, WORDS = (4, 2, 16) if vectors.REGISTERS == 16 else (6, 4, 16)
TRIAD_BYTES = 64 << 20  # of each of the triad's three arrays: more than the caches hold
TILES = 64


@kernel
def _multiply_add(start, factor, rounds, out, v):
    """out (threads, LANES): CHAINS vectors v ← factor·v + factor, ``rounds`` times, all in registers; then their sum.

    They begin with different numbers, those of start, since one chain would do for several that are alike.
    """
    for t in prange(out.shape[0]):  # each thread writes its own row of out
        chains, numbers = load_tile(zeros(start, CHAINS, 1, v), start, 0, width(v), (0,)), spread(factor, v)
        for _ in range(rounds):
            chains = fma_tile(chains, (numbers,), (numbers,))
        total = chains[0] - chains[0]
        for chain in chains:
            total = total + chain
        store(out[t], 0, total)


@kernel
def _multiply_add_bytes(a, weights, rounds, out, v):
    """out (threads, LANES): ROWS · VECTORS sums gain a dot of four bytes a lane, ``rounds`` times; then their sum.

    The bytes a (ROWS, 4 · WORDS) take turns, since a product that is the same every time would be made once.
    """
    n = width(v)
    for t in prange(out.shape[0]):  # each thread writes its own row of out
        starts = (0, 4 * n, 8 * n, 12 * n)[:VECTORS]
        four = words.load_tile(words.zeros(1, VECTORS, v), weights, 0, 0, starts)
        sums = words.zeros(ROWS, VECTORS, v)
        for i in range(rounds):
            sums = words.add_outer(sums, a, i % WORDS * 4, 4 * WORDS, four)
        total = words.zero(v)
        for each in sums:
            total = total + each
        words.narrow(out[t], 0, total)


@kernel
def _triad(s, b, c, a, v):
    """a ← b + s·c, all (TILES, n), n a multiple of the lanes: McCalpin's STREAM triad."""
    for t in prange(a.shape[0]):  # each writes its own row of a
        x, y, out, factor = b[t], c[t], a[t], spread(s, v)
        for i in range(0, out.size, width(v)):
            store(out, i, fma(factor, load(y, i, v), load(x, i, v)))


def peak_flops(threads, seconds=1.0, rounds=2_000_000) -> float:
    """Multiply-adds a second in float32, times two: the best of what fits into ``seconds``."""
    v = lanes(vectors.LANES, np.float32)
    n = number_of(v)
    start, out = np.arange(CHAINS * n, dtype=np.float32), np.zeros((threads, n), np.float32)
    best = _best(lambda: _multiply_add(start, np.float32(0.5), rounds, out, v), seconds)
    return 2.0 * CHAINS * n * rounds * threads / best


def peak_int8(threads, seconds=1.0, rounds=1_000_000) -> float:
    """As ``peak_flops`` of eight bits: bytes multiplied and added to 32 bits a second, times two."""
    v = lanes(vectors.LANES, np.float32)
    n = number_of(v)
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, ROWS * WORDS * 4, np.uint8)
    weights = rng.integers(-128, 128, VECTORS * n * 4, np.int8)
    out = np.zeros((threads, n), np.int32)
    best = _best(lambda: _multiply_add_bytes(a, weights, rounds, out, v), seconds)
    return 2.0 * 4 * ROWS * VECTORS * n * rounds * threads / best


def bandwidth(seconds=1.0, size=TRIAD_BYTES) -> float:
    """Bytes a second of the triad: two arrays read, one written, what caches fetch besides not counted."""
    v = lanes(vectors.LANES, np.float32)
    shape = (TILES, size // 4 // TILES // number_of(v) * number_of(v))
    a, b, c = (np.full(shape, value, np.float32) for value in (0, 1, 2))
    return 3.0 * a.nbytes / _best(lambda: _triad(np.float32(3), b, c, a, v), seconds)


def _best(work, seconds) -> float:
    """The shortest of several runs, in seconds; the first one, which compiles, does not count."""
    work()
    best, start = float("inf"), time.perf_counter()
    while True:
        began = time.perf_counter()
        work()
        now = time.perf_counter()
        best = min(best, now - began)
        if now - start >= seconds:
            return best


# ----------------------------------------------------------------------------------------- facts


def processor() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """Processors that this process may use."""
    return affinity()


def warnings() -> list[str]:
    """A line for each environment variable that makes numnet slower than it could be, and for what the processor lacks."""
    found = []
    for name, effect in (
        ("NUMBA_DISABLE_JIT", "runs the kernels as plain Python"),
        ("NUMNET_CHECK", "compiles the kernels serial and with index checks"),
        ("NUMBA_BOUNDSCHECK", "compiles the kernels with index checks"),
        ("NUMBA_DEBUG", "compiles the kernels without optimisation"),
    ):
        if os.environ.get(name, "0") not in ("", "0"):
            found.append(f"{name}={os.environ[name]} {effect}")
    for name in ("NUMBA_OPT", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"):
        if os.environ.get(name):
            found.append(f"{name}={os.environ[name]} decides which machine code Numba makes")
    fitting = vectors.processor_lanes(vectors.FEATURES)
    if vectors.LANES != fitting:
        found.append(
            f"NUMNET_LANES={vectors.LANES} makes vectors of {vectors.LANES} numbers where the processor has {fitting}"
        )
    if not vectors.FUSED:
        found.append("this processor has no fused multiply-add: each one is a slow call of a library")
    return found
