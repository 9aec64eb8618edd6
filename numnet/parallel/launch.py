"""Whether this process is one of several that an MPI launcher started, and how many cores are its own."""

import math
import os

from numnet.cores import quota
from numnet.errors import NumnetError

# MPICH, Intel and Slurm's PMI; Open MPI; MVAPICH; Slurm, whether it speaks to MPI or not
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
NAMES = ("PMIX_RANK", "PMIX_NAMESPACE")  # launchers that speak PMIx alone do not say how many there are


def launched() -> bool:
    """True if ``mpiexec``, ``srun`` or the like started this process as one of several."""
    for name in SIZES:
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name]) > 1
    return any(name in os.environ for name in NAMES)


def world():
    """MPI's communicator of all ranks, or None for one process alone. Raises NumnetError without mpi4py or an MPI."""
    if not launched():
        return None
    try:
        import mpi4py

        mpi4py.rc.thread_level = "funneled"  # only the main thread calls MPI, which is then spared its locks
        from mpi4py import MPI
    except ImportError:
        raise NumnetError(
            'started as one of several ranks, but mpi4py is missing: pip install "mpi4py>=4" mpich'
        ) from None
    except RuntimeError as error:
        raise NumnetError(
            f"mpi4py finds no MPI library ({error}): pip install mpich, or the system's"
        ) from None
    comm = MPI.COMM_WORLD
    if comm.size == 1 and launched() and not any(name in os.environ for name in NAMES):
        raise NumnetError(
            "started as one of several ranks, but the MPI library of mpi4py knows of one: it is not the launcher's; "
            "use the mpiexec in the same folder (srun: another --mpi)"
        )
    return None if comm.size == 1 else comm


def cores() -> list[int]:
    """The cores that this process may run on."""
    try:
        return sorted(os.sched_getaffinity(0))
    except AttributeError:
        return list(range(os.cpu_count() or 1))


def threads_of(comm) -> int:
    """Threads for this rank, so that the ranks of a machine share its cores: 1 at least.

    Where the launcher has bound the ranks to cores, those that are bound to the same ones share these.
    """
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    mine, all_of_them = cores(), node.allgather(cores())
    limit = quota()  # of the container, which all ranks in it share
    node.Free()
    share = len(mine) // all_of_them.count(mine)
    return max(1, share if limit is None else min(share, math.ceil(limit) // len(all_of_them)))


def share_cores(comm) -> int:
    """Set the kernels' threads by ``threads_of``, unless NUMBA_NUM_THREADS says how many; returns their number."""
    import numba

    threads = threads_of(comm)
    if "NUMBA_NUM_THREADS" not in os.environ:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    return numba.get_num_threads()
