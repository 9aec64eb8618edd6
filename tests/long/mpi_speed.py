"""Two ranks of one thread against one process of two threads: images/s, what communication costs, what overlap hides.

    python tests/long/mpi_speed.py [--model M --width W --batch B --steps S --rounds R]       (an otherwise idle machine)

Trains the same net with the same batches in turn, R times each: one process with two threads; two ranks with one
thread each; two ranks that send only when backward is through. Medians; a line of JSON on standard output. Exit code 0 if
two ranks reach 0.9 times the images/s of one process.

"communication" is the part of a step that the ranks spend in MPI: handing over and pushing on during backward, waiting
after it. "hidden": the part of the unoverlapped exchange that overlapping takes off the step.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

BESIDE = Path(sys.executable).parent / "mpiexec"
KINDS = {  # ranks, threads of each, overlap
    "one process, two threads": (1, 2, True),
    "two ranks, one thread": (2, 1, True),
    "two ranks, nothing overlapped": (2, 1, False),
}


def train(options):
    """One training; rank 0 prints its figures."""
    import numba
    import numpy as np

    import numnet
    from numnet import parallel
    from numnet.data.split import ArraySplit, Dataset

    numba.set_num_threads(options.threads)
    with parallel.team(overlap=not options.late) as team:
        numba.set_num_threads(options.threads)
        net = numnet.build(
            options.model,
            width=options.width,
            resolution=32,
            classes=10,
            strides="cifar",
            seed=0,
            dropout=0.0,
        )
        draw = np.random.default_rng(0)
        images = options.steps * options.batch
        split = ArraySplit(draw.integers(0, 256, (images, 32, 32, 3), np.uint8), draw.integers(0, 10, images))
        data = Dataset(
            name="noise", classes=list("0123456789"), mean=(0.5,) * 3, std=(0.3,) * 3, train=split, validation=None,
            test=None,
        )  # fmt: skip
        history = numnet.fit(
            net,
            data,
            epochs=2,
            batch_size=options.batch,
            lr=0.01,
            schedule="constant",
            progress=False,
            team=team,
        )
        if team.leads:
            print(json.dumps({**team.report(), "images_per_second": history[-1]["images_per_second"]}))


def measure(options, ranks, threads, overlap) -> dict:
    words = [sys.executable, __file__, "--train", "--threads", threads]
    for name in ("model", "width", "batch", "steps"):
        words += [f"--{name}", getattr(options, name)]
    words += [] if overlap else ["--late"]
    env = {**os.environ, "NUMBA_NUM_THREADS": str(threads)}
    if ranks > 1:
        words = [BESIDE if BESIDE.exists() else shutil.which("mpiexec"), "-n", ranks, *words]
    done = subprocess.run(
        [str(word) for word in words], env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mobilenet_v1")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--late", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options)
        return 0
    runs = {kind: [] for kind in KINDS}
    for _ in range(options.rounds):
        for kind, what in KINDS.items():
            runs[kind].append(measure(options, *what))
            print(f"{kind}: {runs[kind][-1]['images_per_second']:.0f} images/s", file=sys.stderr)
    speed = {kind: median(run["images_per_second"] for run in of) for kind, of in runs.items()}
    one, two, late = speed.values()
    step, late_step = options.batch / two, options.batch / late
    in_mpi = {
        kind: median(run["pushing_seconds_per_step"] + run["waiting_seconds_per_step"] for run in of)
        for kind, of in runs.items()
    }
    _, mpi, late_mpi = in_mpi.values()
    found = {
        "images_per_second": speed,
        "ratio": two / one,
        "communication_seconds": mpi,
        "communication_part_of_a_step": mpi / step,
        "without_overlap_seconds": late_mpi,
        "hidden_seconds": late_step - step,
        "hidden_part_of_the_exchange": (late_step - step) / late_mpi,
        "gradient_bytes": runs["two ranks, one thread"][0]["bytes_per_step"],
        **{name: getattr(options, name) for name in ("model", "width", "batch", "steps", "rounds")},
    }
    print(json.dumps(found))
    return 0 if found["ratio"] >= 0.9 else 1


if __name__ == "__main__":
    sys.exit(main())
