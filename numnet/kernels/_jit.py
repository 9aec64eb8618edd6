"""How every kernel of numnet is compiled: two decorators, one cache, one check mode.

``@row`` makes a *row function*: plain arithmetic on a few arrays of one dimension. It is inlined into the kernels that call
it and never compiled on its own. Its arrays are promised not to overlap (LLVM's ``noalias``), so the compiler
need not load again what it holds in a register, and makes vectors of plain loops without testing every pair of
pointers first. The price: what a row function writes through one argument it never reads through another.

``@kernel`` makes a *pass*: one ``prange`` over tiles, compiled once and kept on disk for the next process.

What each choice is for:

* **Flags.** None. Numba's ``contract`` would merge products and sums as it likes, those of ``vectors`` too, and the
  bits would depend on the processor; ``fma`` says where one is meant. ``fastmath=True`` makes ``isnan`` answer no.
* **Cache.** Numba looks only at the file of the cached function: edit a row function in another file and it
  would run the old machine code. Our folder's name is a hash of all kernel sources, Numba's version, the processor's
  name and features, the lanes and the check mode. So an edit anywhere starts a new folder; folders not used for a month
  are removed. Numba reads its global ``CACHE_DIR`` only while a function is decorated. We set it for just that moment,
  so that the user's own kernels keep theirs.
* **Check mode.** ``NUMNET_CHECK=1`` compiles every kernel serial and with index checks (inside a ``prange``
  Numba's check reports nothing). Slow; the tests run once that way.
* ``NUMBA_DISABLE_JIT=1`` runs the same sources as plain Python: to debug, and to count operations.
* **Threads and processes.** Of Numba's threading layers OpenMP and TBB let several Python threads run kernels at
  once; the work queue would end the process, so there kernels take turns. A forked child has none of its parent's
  threads: OpenMP would end it and TBB wait for ever, so there the first kernel raises RuntimeError instead.
"""

import hashlib
import os
import shutil
import stat
import sys
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numba
from llvmlite import binding as llvm
from numba.core.caching import FunctionCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.registry import CPUDispatcher
from numba.np.ufunc import parallel as layers

from numnet.kernels import vectors

CHECK = vectors.CHECK
MONTH = 30 * 24 * 3600
# What Numba may run in parallel: our own prange. Left to itself it also turns each np.zeros into a parallel loop,
# which costs seconds of compilation and a launch of all threads.
_ONLY_PRANGE = dict.fromkeys(
    ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion"), False
) | {"prange": True}


def _fingerprint() -> str:
    """16 hex digits that change with any kernel source, with Numba, the processor, the lanes and the check mode."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    features = ",".join(sorted(name for name, there in vectors.FEATURES.items() if there))
    digest.update(
        f"{numba.__version__} {llvm.get_host_cpu_name()} {features} {vectors.LANES} {CHECK}".encode()
    )
    return digest.hexdigest()[:16]


def _private(folder: Path) -> bool:
    """Make the folder if need be; true if it is ours alone to write (a cache file is code that will be run)."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        ours = not hasattr(os, "getuid") or status.st_uid == os.getuid()
        return ours and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and os.access(folder, os.W_OK)
    except OSError:
        return False


def _cache_folder() -> Path | None:
    """The folder of this version's machine code: $NUMNET_CACHE, else the user's cache, else a temporary one."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    homes = [Path(tempfile.gettempdir()) / f"numnet-{user}"]
    if os.environ.get("NUMNET_CACHE"):
        homes.insert(0, Path(os.environ["NUMNET_CACHE"]).expanduser().absolute())
    elif os.environ.get("XDG_CACHE_HOME") or os.environ.get("HOME") or os.name == "nt":
        homes.insert(0, _user_cache())
    for home in homes:
        folder = home / "kernels" / _fingerprint()
        if _private(folder):
            _remove_unused(folder)
            return folder
    return None


def _user_cache() -> Path:
    """The user's cache. On Linux by the rule of platformdirs, which ``import numnet`` then need not load."""
    if sys.platform == "linux":
        own = os.environ.get("XDG_CACHE_HOME", "").strip()
        return (Path(own) if os.path.isabs(own) else Path("~/.cache").expanduser()) / "numnet"
    from platformdirs import user_cache_path

    return user_cache_path("numnet", appauthor=False)


def _remove_unused(current: Path) -> None:
    """Touch our folder, and delete sisters that no process has touched for a month."""
    try:
        os.utime(current)
        for folder in current.parent.iterdir():
            if folder != current and time.time() - folder.stat().st_mtime > MONTH:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        pass  # another process removed it first


CACHE_FOLDER = _cache_folder()


class _Draft(JITCodeLibrary):
    """Code that is linked into a kernel, row functions above all: kept as it is, never turned into machine code itself."""

    def _optimize_final_module(self):
        pass  # the kernel's own passes see the whole

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._finalized = True

    @property
    def codegen(self):
        return self  # asked for by whoever wants to call set_env, below

    def set_env(self, name, env):
        pass  # an environment belongs to machine code

    def get_pointer_to_function(self, name):
        self._ensure_finalized()
        return 0


class _Row(CPUDispatcher):
    """A row function, which has no machine code of its own to call."""

    def __call__(self, *arguments):
        raise TypeError(
            f"{self.__name__} is a row function: it runs inside kernels only; .py_func is its Python form"
        )


class _RowCompiler(Compiler):
    """Numba's compiler, with the arguments' ``noalias`` promise switched on and machine code left to the kernels."""

    def __init__(self, typingctx, targetctx, library, args, return_type, flags, locals):
        flags = flags.copy()
        flags.noalias = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
        super().__init__(typingctx, targetctx, library, args, return_type, flags, locals)
        self.state.library = _Draft(targetctx.codegen(), "row")
        self.state.library.enable_object_caching()


class _KernelCompiler(Compiler):
    """Numba's compiler, with all code that a kernel is put together from kept as drafts until the kernel itself is whole.

    A prange passes through three wrappers; left alone, Numba optimises and assembles each, four times the same code.
    """

    def compile_extra(self, func):
        codegen = self.state.targetctx.codegen()
        self.state.library = codegen.create_library(func.__qualname__)
        self.state.library.enable_object_caching()
        before, codegen._library_class = codegen._library_class, _Draft
        try:
            return super().compile_extra(func)
        finally:
            codegen._library_class = before


def row(function=None, *, inline=False):
    """Compile a row function: no cache, no overlap between its arrays, bounds checked in check mode.

    ``inline``: a copy of it goes into each caller, where arguments that are constants there decide its branches for good.
    """
    if function is None:
        return lambda function: row(function, inline=inline)
    if CHECK:
        return numba.njit(boundscheck=True, error_model="numpy")(function)
    compiled = numba.njit(error_model="numpy", forceinline=inline, pipeline_class=_RowCompiler)(function)
    if isinstance(compiled, CPUDispatcher):  # a plain function with NUMBA_DISABLE_JIT=1
        compiled.__class__ = _Row
    return compiled


class _Cache(FunctionCache):
    """Numba's cache of a kernel, without which the kernel runs all the same: where the disk is full, nothing is kept."""

    def save_overload(self, sig, data):
        try:
            super().save_overload(sig, data)
        except OSError:
            pass


class _InTurn(CPUDispatcher):
    """A kernel under Numba's work queue, which ends the process if two Python threads are in it."""

    _one = threading.RLock()

    def __call__(self, *arguments):
        with self._one:
            return super().__call__(*arguments)


class _Forked(CPUDispatcher):
    """A kernel in a process that was forked after kernels had run in its parent."""

    def __call__(self, *arguments):
        raise RuntimeError(
            "numnet: no kernel runs in a process that was forked after its parent had run one: its threads are gone; "
            'start processes by "spawn", as multiprocessing.get_context("spawn") does'
        )


_parallel: list[CPUDispatcher] = []  # the kernels that start threads


def _takes_turns() -> bool:
    """True if Numba uses its work queue: because it is told to, or because there is nothing else."""
    layer = str(numba.config.THREADING_LAYER).lower()
    if layer == "default":
        return find_spec("numba.np.ufunc.omppool") is None
    return layer in ("workqueue", "forksafe")


def _after_fork() -> None:
    """In the child. The work queue starts threads of its own again; OpenMP would end the child, TBB wait for ever."""
    _InTurn._one = threading.RLock()  # whoever had the parent's is not here to give it back
    if getattr(layers, "_threading_layer", None) in ("omp", "tbb"):
        for dispatcher in _parallel:
            dispatcher.__class__ = _Forked


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def kernel(function=None, *, parallel=True):
    """Compile a pass. ``parallel=False`` for short serial work."""
    if function is None:
        return lambda function: kernel(function, parallel=parallel)
    numbas_own = numba.config.CACHE_DIR
    if CACHE_FOLDER is not None:
        numba.config.CACHE_DIR = str(CACHE_FOLDER)
    try:
        cache = CACHE_FOLDER is not None
        if CHECK:
            return numba.njit(boundscheck=True, error_model="numpy", cache=cache)(function)
        only_prange = _ONLY_PRANGE if parallel else False
        options = {"parallel": only_prange, "error_model": "numpy", "cache": cache, "no_cfunc_wrapper": True}
        compiled = numba.njit(pipeline_class=_KernelCompiler, **options)(function)
        if cache and isinstance(compiled, CPUDispatcher):
            compiled._cache.__class__ = _Cache
        if parallel and isinstance(compiled, CPUDispatcher):  # a plain function with NUMBA_DISABLE_JIT=1
            _parallel.append(compiled)
            if _takes_turns():
                compiled.__class__ = _InTurn
        return compiled
    finally:
        numba.config.CACHE_DIR = numbas_own


def run(step, *arguments):
    """Call the kernel that ``step(*arguments)`` gives, with its arguments, unless y, the last of ``arguments``, is empty.

    Returns y.
    """
    y = arguments[-1]
    if y.size:
        kernel, given = step(*arguments)
        kernel(*given)
    return y


def direct(steps) -> list:
    """``steps``, pairs (kernel, arguments) that have run once, with machine code in place of kernels where there is any.

    At each call of a kernel Numba looks up the types of all arguments, which takes 2 µs: 5 to 10 % of a net's time for one
    small image. A plan calls with arguments of the same types again and again, so here it is done once. The first kernel
    stays as it is: its arguments may be of another kind next time, and in a forked process it is the one that refuses.
    """
    found, first = [], True
    for kernel, arguments in steps:
        code = kernel
        if type(kernel) is CPUDispatcher:  # not plain Python, and not a kernel that takes turns
            if not first:
                code = kernel.overloads.get(tuple(numba.typeof(each) for each in arguments))
                code = kernel if code is None else code.entry_point
            first = first and kernel not in _parallel
        found.append((code, arguments))
    return found
