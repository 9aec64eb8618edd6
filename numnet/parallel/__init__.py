"""Training on several processes and machines: ``mpiexec -n 4 numnet train …``.

    with numnet.parallel.team() as team:            # in a script that mpiexec starts several times
        numnet.fit(net, data, epochs=10, team=team)

Each *rank*, as MPI calls its processes, has the whole net and reads its own part of every batch: images
``B·r // R`` … ``B·(r + 1) // R − 1`` of the B that one process would train on at that step, so the data order and the
batch size are those of one process. It computes the gradient of its images' part of the batch's mean loss, and the
parts are summed over the ranks while backward goes on (``exchange``). Then all do the same step of the optimiser: the
weights stay equal bit for bit, and nothing else is ever sent. Where a batch has fewer images than there are ranks, all
do all of it. The batches of an evaluation are divided among the ranks. Only rank 0 prints and writes the run directory.

Batch norm takes its statistics over a rank's part, and the running ones are averaged over the ranks at every step.
With ``sync_bn`` they are those of the whole batch: the same training as in one process, up to rounding.

``exact``: bit-identical results on 1, 2, 4 and 8 ranks. A kernel sums in 8 parts of its batch, which are added in index
order. Here every kernel makes 8 parts of the *whole* batch, each rank its own of them, and all parts of all weights'
gradients are gathered and added in index order. These conditions are checked; if one fails, an error names it:

* 1, 2, 4 or 8 ranks: each owns whole parts;
* every batch of an epoch, the last one too, holds at least 8 images and a multiple of the ranks (with ``accumulate``
  k: k times as many): the parts' borders are then the same whoever owns them;
* numnet's own layers: a layer of another kind that has parameters or buffers sums in ways that are not known here;
* one kind of machine: that two kinds of processors give the same bits is meant, but not promised.

A plain run cuts small maps into fewer parts than 8, so ``--exact`` on one process need not have the bits of a run
without it. It sends 8 times the gradient at every step and hides none of it: for tests, and to find a fault.
"""

from numnet.parallel import launch
from numnet.parallel.ranks import Ranks as Ranks


def team(*, overlap=True) -> Ranks:
    """The team of all processes that an MPI launcher started; without one, of this process alone.

    ``overlap=False`` sends gradients only when backward is through. Raises NumnetError without mpi4py.
    """
    return Ranks(launch.world(), overlap=overlap)
