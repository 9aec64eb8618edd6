"""Which net is tried next: by aged evolution, or at random.

Aged evolution (Real et al. 2019, "Regularized evolution for image classifier architecture search", algorithm 1):

    the first P nets are random; then, again and again:
    of the P youngest nets draw S, take the best of these, change it in one place, and try the child;
    the oldest of the P makes room for it, however good it was

Since the P youngest nets are the last P of the log, the log is all that a search has to remember. Random search, with which
evolution has to be compared at the same budget, draws every net as evolution draws its first P; from the same seed
both begin with the same nets.

Neither way tries a net twice, nor one that is too slow (``fits`` says no): its training would take the longest, and its time
would spoil its reward.
"""

from numnet.errors import NumnetError
from numnet.models.searched import plain
from numnet.search.space import generator

METHODS = ("evolution", "random")
TRIES = 200  # draws for one net
DRAW, CHANGE, CHOOSE = 0, 1, 2  # what random numbers are for


def propose(space, method, history, *, seed, population, sample, fits, same=plain) -> tuple[str, int | None]:
    """(line, number of its parent or None) of the next net, for the records of all nets so far.

    fits(line): whether the net is fast enough to be tried. same(line): equal for lines that are one net. NumnetError if
    ``TRIES`` draws find none that is new.
    """
    number, tried = len(history), {same(record["net"]) for record in history}
    if method == "evolution" and number >= population:
        parent = choose(history, seed, population, sample)
        for attempt in range(TRIES):
            line = space.mutate(history[parent]["net"], seed, CHANGE, number, attempt)
            if same(line) not in tried and fits(line):
                return line, parent
    for attempt in range(TRIES):
        line = space.draw(seed, DRAW, number, attempt)
        if same(line) not in tried and fits(line):
            return line, None
    raise NumnetError(
        f"none of {TRIES} random nets of the space is new and fast enough; expected a larger --latency, or fewer nets"
    )


def choose(history, seed, population, sample) -> int:
    """The number of the next parent: the best of ``sample`` of the youngest ``population`` nets; of equals the youngest."""
    first = len(history) - population
    drawn = generator(seed, CHOOSE, len(history)).choice(population, size=sample, replace=False)
    return max((first + int(place) for place in drawn), key=lambda n: (history[n]["reward"], n))
