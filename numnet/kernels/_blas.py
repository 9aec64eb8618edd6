"""SciPy's BLAS, held at one thread while our kernels run.

``np.dot`` inside a kernel is SciPy's BLAS. Its worker threads spin for milliseconds after each product and would take
the cores that Numba's workers need, so each tile's product must be single-threaded. The limit is set on SciPy's copy
alone (NumPy's has its own library and keeps the user's setting) and is lifted again when the pass is over; where both
share one library NumPy's products are held for that moment too. Setting it costs a microsecond.
"""

import contextlib
import threading

import scipy.linalg.cython_blas as cython_blas  # np.dot inside a kernel needs it; loads SciPy's BLAS
from threadpoolctl import ThreadpoolController


def _scipy_blas():
    """Controllers of the BLAS libraries that SciPy brought, or of all BLAS libraries if it brought none."""
    assert cython_blas
    libraries = [c for c in ThreadpoolController().lib_controllers if c.user_api == "blas"]
    own = [c for c in libraries if "scipy.libs" in c.filepath]
    return own or libraries


_libraries = _scipy_blas()
_lock = threading.Lock()
_depth = 0
_before: list[int] = []


@contextlib.contextmanager
def one_thread():
    """Within it SciPy's BLAS computes with one thread; the old number returns when the last user has left."""
    global _depth, _before
    with _lock:
        if _depth == 0:
            _before = [library.get_num_threads() for library in _libraries]
            for library in _libraries:
                _set(library, 1)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                for library, threads in zip(_libraries, _before):
                    _set(library, threads)


def _set(library, threads):
    """Newer threadpoolctl lets only the first Python thread that ever asked set the number; ours all may."""
    clear = getattr(library, "clear_controlling_thread", lambda force: None)
    clear(force=True)
    library.set_num_threads(threads)
    clear(force=True)


def kernels_in_use() -> list[str]:
    """A line a library: file name, version, the processor its kernels are written for."""
    lines = []
    for library in _libraries:
        info = library.info()
        name = info["filepath"].replace("\\", "/").rsplit("/", 1)[-1]
        lines.append(f"{name} {info.get('version', '')} ({info.get('architecture', 'unknown')} kernels)")
    return lines
