"""What the machine can do at most, measured by two small kernels; and what keeps it from doing so.

The two roofs of Williams, Waterman and Patterson (2009), "Roofline": multiply-adds a second with everything
in registers, and bytes a second between the cores and memory. Nothing that computes on this machine exceeds
the first; only what stays in the caches exceeds the second.
"""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from numnet.cores import affinity
from numnet.kernels._jit import kernel

CHAINS = (
    10  # multiply-adds under way at once: units × latency is 8 to 10, and so many registers exist everywhere
)
LANES = 16 if llvm.get_host_cpu_features().get("avx512f") else 8  # numbers in the widest register
TRIAD_BYTES = 64 << 20  # of each of the triad's three arrays: more than the caches hold
TILES = 64


@intrinsic
def _chains(context, a, b, rounds):
    """CHAINS vectors v ← a·v + b, ``rounds`` times, all in registers; their sum, so that nothing is left out.

    Written in LLVM's own language: its vectoriser fills only half of a wide register on some processors.
    """

    def generate(context, builder, signature, arguments):
        vector = ir.VectorType(ir.FloatType(), LANES)
        multiply_add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{LANES}f32"
        )
        a = b = ir.Constant(vector, ir.Undefined)
        for lane in range(LANES):
            index = ir.IntType(32)(lane)
            a = builder.insert_element(a, arguments[0], index)
            b = builder.insert_element(b, arguments[1], index)
        chains = [cgutils.alloca_once_value(builder, b) for _ in range(CHAINS)]
        with cgutils.for_range(builder, arguments[2]):
            for chain in chains:
                builder.store(builder.call(multiply_add, [builder.load(chain), a, b]), chain)
        total = builder.load(chains[0])
        for chain in chains[1:]:
            total = builder.fadd(total, builder.load(chain))
        return builder.extract_element(total, ir.IntType(32)(0))

    return types.float32(types.float32, types.float32, types.int64), generate


@kernel
def _multiply_add(a, b, rounds, out):
    """out (threads,): every thread's chains. A prange index owns its number."""
    for t in prange(out.shape[0]):
        out[t] = _chains(a, b, rounds)


@kernel
def _triad(s, b, c, a):
    """a ← b + s·c, all (TILES, n): McCalpin's STREAM triad. A prange index owns its row of a."""
    for t in prange(a.shape[0]):
        x, y, out = b[t], c[t], a[t]
        for i in range(out.size):
            out[i] = x[i] + s * y[i]


def peak_flops(threads, seconds=1.0, rounds=2_000_000) -> float:
    """Multiply-adds a second in float32, times two: the best of what fits into ``seconds``."""
    out = np.zeros(threads, np.float32)
    best = _best(lambda: _multiply_add(np.float32(0.5), np.float32(0.5), rounds, out), seconds)
    return 2.0 * CHAINS * LANES * rounds * threads / best


def bandwidth(seconds=1.0, size=TRIAD_BYTES) -> float:
    """Bytes a second of the triad: two arrays read, one written, what caches fetch besides not counted."""
    shape = (TILES, size // 4 // TILES)
    a, b, c = (np.full(shape, value, np.float32) for value in (0, 1, 2))
    return 3.0 * a.nbytes / _best(lambda: _triad(np.float32(3), b, c, a), seconds)


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
    """A line for each environment variable that makes numnet slower than it could be here."""
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
    name = "OPENBLAS_CORETYPE"
    if os.environ.get(name):
        forced, free = blas_kernels(), blas_kernels(without=name)
        if forced != free:
            found.append(
                f"{name}={os.environ[name]} makes the BLAS use its {', '.join(forced)} kernels where "
                f"{', '.join(free)} ones would fit this processor; compute with "
                f"`env -u {name} -u OPENBLAS_L2_SIZE numnet …`"
            )
    return found


def blas_kernels(without=None) -> list[str]:
    """The processors that SciPy's BLAS has its kernels for, in a fresh process without that variable."""
    script = (
        "import json, scipy.linalg.cython_blas\n"
        "from threadpoolctl import threadpool_info\n"
        "blas = [i for i in threadpool_info() if i['user_api'] == 'blas']\n"
        "own = [i for i in blas if 'scipy.libs' in i['filepath']] or blas\n"
        "print(json.dumps(sorted({i.get('architecture') or 'unknown' for i in own})))"
    )
    environment = {name: value for name, value in os.environ.items() if name != without}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    return json.loads(done.stdout) if done.returncode == 0 else ["unknown"]
