"""Training on several ranks against one process; ranks that die, errors, resuming. Needs mpi4py and an ``mpiexec``."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import parallel_cases as cases
import pytest

from numnet import parallel
from numnet.errors import NumnetError
from numnet.training.team import Team

pytest.importorskip("mpi4py")
HERE = Path(__file__).parent
BESIDE = Path(sys.executable).parent / "mpiexec"
MPIEXEC = str(BESIDE) if BESIDE.exists() else shutil.which("mpiexec")
NAMES = {2: ["v1-uneven", "shallow-sync", "v2-sync", "v2-own", "v1-parts", "v1-exact", "v2-exact", "v3-exact",
             "v1-single", "v2-single", "v2-frozen", "v2-frozenexact", "v1-scale"],
         4: ["v1-uneven", "v2-uneven", "v1-exact", "v2-exact"]}  # fmt: skip


def mpiexec(ranks, *command, **more):
    """The words and the environment that start ``command`` so many times; Open MPI asks to be told more."""
    env = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    env |= {"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe", "OMP_WAIT_POLICY": "passive"}
    env = {**os.environ, **env, **more}
    env.pop("NUMBA_NUM_THREADS", None)  # ranks share the cores that they have
    return [MPIEXEC, "-n", str(ranks), *map(str, command)], env


def run(ranks, *command, code=0, **more):
    words, env = mpiexec(ranks, *command, **more)
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def of_one():
    """of_one(case): what one process finds, which can be exact but shares nothing."""
    kept = {}

    def results(name):
        if name not in kept:
            kept[name] = cases.case(name, parallel.Ranks() if name.endswith("exact") else None)
        return kept[name]

    return results


@pytest.fixture(scope="module")
def of_ranks(of_one, tmp_path_factory):
    """of_ranks(2): what each of two ranks found in every case; computed once."""
    if MPIEXEC is None:
        pytest.skip("no mpiexec: pip install mpich")
    kept = {}

    def results(ranks):
        if ranks not in kept:
            out = tmp_path_factory.mktemp("ranks") / "out"
            for name in NAMES[ranks]:
                if not name.endswith(("own", "single", "scale")):
                    of_one(name)  # first, or every rank would compile the same
            run(ranks, sys.executable, HERE / "parallel_cases.py", out, *NAMES[ranks])
            kept[ranks] = [dict(np.load(f"{out}.{rank}.npz")) for rank in range(ranks)]
        return kept[ranks]

    return results


def distance(a, b):
    return np.abs(np.asarray(a) - b).max() / np.abs(b).max()


TWO_OR_FOUR = [2, pytest.param(4, marks=pytest.mark.slow)]


@pytest.mark.parametrize("ranks", TWO_OR_FOUR)
def test_all_ranks_have_the_same_weights(of_ranks, ranks):
    first, *others = of_ranks(ranks)
    for other in others:
        for name in first:
            assert np.array_equal(first[name], other[name], equal_nan=True), name


@pytest.mark.parametrize("name", ["v1-uneven", "shallow-sync", "v2-sync", "v1-parts", "v2-frozen"])
def test_synchronised_ranks_are_one_process(of_ranks, of_one, name):
    """Float64: the first gradient, and all there is after 3, 20 or 4 steps; see ``parallel_cases`` for the batches.

    V1 in its full depth is left to 3 and 4 steps: at the start its gradients grow from layer to layer so much that
    rounding is ten times larger after each step, in one process as well (``test_float32_losses``).
    """
    ours, theirs = of_ranks(2)[0], of_one(name)
    assert distance(ours[f"{name}/gradient"], theirs["gradient"]) < 1e-10
    for what in ["flat", "buffers", "losses"] + ["validation"] * (not name.startswith("v2")):
        assert distance(ours[f"{name}/{what}"], theirs[what]) < 1e-8, what
    assert np.array_equal(ours[f"{name}/right"], theirs["right"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v1-uneven", "v2-uneven"])
def test_four_synchronised_ranks_are_one_process(of_ranks, of_one, name):
    ours, theirs = of_ranks(4)[0], of_one(name)
    assert distance(ours[f"{name}/gradient"], theirs["gradient"]) < 1e-10
    for what in ["flat", "buffers", "losses"] + ["validation"] * (not name.startswith("v2")):
        assert distance(ours[f"{name}/{what}"], theirs[what]) < 1e-8, what


def test_without_synchronised_batch_norm_a_share_is_a_part(of_ranks):
    """Two ranks with statistics of their own are one process that does the batch in two parts."""
    theirs = cases.train(None, "v2", steps=4, accumulate=2)
    assert distance(of_ranks(2)[0]["v2-own/gradient"], theirs["gradient"]) < 1e-10
    assert distance(of_ranks(2)[0]["v2-own/flat"], theirs["flat"]) < 1e-10


@pytest.mark.parametrize("name", ["v1", "v2"])
def test_float32_losses_are_like_those_of_another_order_of_images(of_ranks, name):
    """Five single-process runs with every batch's images permuted leave each other as rounding grows; ours no more.

    A sixth such run lies outside of the range of five at every third step, so the band is 20 losses wide: a run's
    distance is the root mean square over all steps of what parts it from the mean of the others.
    """
    runs = np.array([cases.train(cases.Permuted(seed), name, "float32")["losses"] for seed in range(5)])
    losses = of_ranks(2)[0][f"{name}-single/losses"]
    assert losses.shape == (20,) and losses[0] == pytest.approx(runs[0, 0], rel=1e-5)

    def departs(k):
        return np.sqrt(np.square(runs[k] - np.delete(runs, k, axis=0).mean(axis=0)).mean())

    assert np.sqrt(np.square(losses - runs.mean(axis=0)).mean()) <= 1.5 * max(departs(k) for k in range(5))


@pytest.mark.parametrize("ranks", TWO_OR_FOUR)
@pytest.mark.parametrize("name", ["v1-exact", "v2-exact", "v3-exact", "v2-frozenexact"])
def test_exact_is_bit_for_bit(of_ranks, of_one, ranks, name):
    if name not in NAMES[ranks]:
        return
    theirs = of_one(name)
    for what in ("gradient", "losses", "flat", "buffers", "validation", "right"):
        assert np.array_equal(of_ranks(ranks)[0][f"{name}/{what}"], theirs[what]), what
    if name == "v2-frozenexact":
        return
    plain = cases.train(None, name[:2], "float32", steps=6, images=40, lr=0.05)
    assert not np.array_equal(theirs["flat"], plain["flat"])  # or nothing was cut otherwise


def test_the_link_and_a_step_are_measured(of_ranks):
    """What `numnet scale` measures on two ranks; a step of it changes no weight."""
    found = of_ranks(2)[0]
    latency, bandwidth, hidden = found["v1-scale/link"]
    assert 0 < latency < 1 and 1e6 < bandwidth < 1e12 and 0 <= hidden <= 1
    assert found["v1-scale/seconds"] > 0 and found["v1-scale/changed"] == 0


@pytest.mark.parametrize(
    "images, batch, accumulate, size, message",
    [
        (40, 16, 1, 3, "3 ranks cannot own whole parts of 8; expected 1, 2, 4 or 8"),
        (35, 16, 1, 1, "a batch of 3 images; expected at least 8"),
        (32, 18, 1, 4, "a batch of 18 images; expected at least 8 in each, a multiple of 4"),
        (32, 16, 4, 2, "a batch of 16 images; expected at least 32 in each, a multiple of 8"),
    ],
)
def test_exact_is_refused_where_it_cannot_be(images, batch, accumulate, size, message):
    team = parallel.Ranks()
    team.size = size
    with pytest.raises(NumnetError, match=message):
        cases.train(team, images=images, batch_size=batch, accumulate=accumulate, exact=True)


def test_exact_needs_a_team():
    with pytest.raises(NumnetError, match=r"numnet\.parallel\.team"):
        cases.train(None, exact=True)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("images, parts", [(16, 1), (17, 3), (5, 2), (1, 1)])
def test_shares_are_the_batch(size, images, parts):
    """Every image has one rank, and the weights add up to 1; where there are too few, all ranks have all of a part."""
    weight, seen = 0.0, np.zeros(images)
    for rank in range(size):
        team = parallel.Ranks()
        team.rank, team.size = rank, size
        mine, places = team.parts(images, parts), team.take(images, parts)
        assert len(mine) == len(Team().parts(images, parts))
        for part in mine:
            assert part.hi > part.lo
            assert list(places[part.lo : part.hi]) == list(range(part.first, part.first + part.hi - part.lo))
            seen[part.first : part.first + part.hi - part.lo] += 1 / part.copies
            weight += part.weight
    assert weight == pytest.approx(1)
    assert seen == pytest.approx(np.ones(images))


# ------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty small pictures of two classes."""
    from PIL import Image

    root = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(1)
    for split, count in (("train", 40), ("test", 6)):
        for label, name in enumerate(("dark", "light")):
            (root / split / name).mkdir(parents=True)
            for k in range(count // 2):
                pixels = draw.integers(0, 128, (16, 16, 3)) + 100 * label
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{k}.png")
    return root


NUMNET = (sys.executable, "-m", "numnet")
SMALL = ("--model", "mobilenet_v2", "--width", "0.25", "--resolution", "16", "--batch-size", "8",
         "--lr", "0.002", "--clip-norm", "1", "--sync-bn", "--no-augment", "--validation", "0")  # fmt: skip


@pytest.fixture(scope="module")
def stopped(folder, tmp_path_factory):
    """A run of which one of two ranks was killed: its directory, its standard error, the seconds it took to end."""
    if MPIEXEC is None:
        pytest.skip("no mpiexec: pip install mpich")
    out = tmp_path_factory.mktemp("runs") / "killed"
    words, env = mpiexec(2, *NUMNET, "train", folder, *SMALL, "--lr", 0.05, "--epochs", 14, "--out", out)
    job = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 200
    while not (out / "metrics.jsonl").exists() or (out / "metrics.jsonl").read_text().count("\n") < 2:
        assert job.poll() is None and time.monotonic() < until, job.communicate()
        time.sleep(0.02)
    victim = process_of(1, out)
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    _, error = job.communicate(timeout=60)
    return out, error, time.monotonic() - began, victim, job.returncode


def process_of(rank, out):
    """The process of a rank, by the variables that MPICH and Open MPI give it."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if {b"PMI_RANK=%d" % rank, b"OMPI_COMM_WORLD_RANK=%d" % rank} & set(environment):
            if words[2] == b"numnet" and os.fsencode(out) in words:
                return int(folder.name)
    raise AssertionError("no such rank")


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for the rank in /proc")
def test_a_rank_that_dies_ends_the_job_with_one_line(stopped):
    out, error, seconds, victim, code = stopped
    assert seconds < 10 and code != 0
    lines = [line for line in error.splitlines() if line.startswith("numnet: error:")]
    assert len(lines) == 1, error
    assert f"rank 1 (process {victim} on " in lines[0] and lines[0].endswith(f"numnet train --resume {out}")


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for the rank in /proc")
@pytest.mark.parametrize("ranks", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_its_checkpoint_goes_on_with_another_number_of_ranks(stopped, tmp_path, ranks):
    shutil.copytree(stopped[0], tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    command = (*NUMNET, "train", "--resume", tmp_path / "run", "--json", "--quiet")
    if ranks == 1:
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    else:
        output = run(ranks, *command).stdout
    after = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    result = json.loads(output)  # one document, whoever printed it
    assert result["epochs"] == len(after) == 14 > len(before)
    assert after[: len(before) - 1] == before[: len(before) - 1]
    assert ("parallel" in result) == (ranks > 1)
    losses = [json.loads(line)["train_loss"] for line in (*before[:1], *after[-5:])]
    assert min(losses[1:]) < losses[0]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--lr", "-1"], "--lr: expected a number > 0"),
        (
            ["--exact", "--batch-size", "6"],
            "exact: an epoch has a batch of 6 images",
        ),
    ],
)
def test_an_error_that_all_ranks_have_is_one_line(folder, tmp_path, words, message):
    if MPIEXEC is None:
        pytest.skip("no mpiexec: pip install mpich")
    command = (*NUMNET, "train", folder, *SMALL, *words, "--out", tmp_path / "run")
    done = run(2, *command, code=2)
    lines = [line for line in done.stderr.splitlines() if line.startswith("numnet: error:")]
    assert len(lines) == 1 and message in lines[0]
    assert "Traceback" not in done.stderr


def test_several_ranks_without_mpi4py_are_told_so(run_python, tmp_path):
    script = tmp_path / "alone.py"
    script.write_text(
        "import sys\nsys.modules['mpi4py'] = None\n"
        "from numnet.cli import main\nsys.exit(main(['train', 'shapes']))\n"
    )
    error = run_python(script, env={"PMI_SIZE": "2", "PMI_RANK": "0"}, fails=True)
    assert error.startswith("numnet: error: started as one of several ranks, but mpi4py is missing")
    assert "\n" not in error.strip()


def test_ranks_that_do_not_know_each_other_are_told_so(run_python, tmp_path):
    """As srun starts them without a way to tell MPI: each would train for itself, in one directory."""
    script = tmp_path / "alone.py"
    script.write_text("import sys\nfrom numnet.cli import main\nsys.exit(main(['train', 'shapes']))\n")
    error = run_python(script, env={"SLURM_STEP_NUM_TASKS": "2"}, fails=True)
    assert error.startswith(
        "numnet: error: started as one of several ranks, but the MPI library of mpi4py knows"
    )


def test_one_process_does_not_load_mpi(run_python, tmp_path):
    script = tmp_path / "alone.py"
    script.write_text(
        "import sys\nfrom numnet import parallel\n"
        "with parallel.team() as team:\n    print(team.size, 'mpi4py' in sys.modules)\n"
    )
    assert run_python(script).split() == ["1", "False"]


def test_linear_scaling_of_the_learning_rate(folder, tmp_path):
    from numnet import checkpoint
    from numnet.cli import main

    words = ["train", str(folder), *SMALL, "--epochs", "1", "--quiet", "--out", str(tmp_path / "run")]
    assert main([*words, "--lr", "0.08", "--scale-lr"]) == 0  # the last --lr counts
    recipe = checkpoint.read_meta(tmp_path / "run" / "last.safetensors")["recipe"]
    from numnet.training import recipes

    usual = recipes.load("folder")["batch_size"]
    assert recipe["lr"] == pytest.approx(0.08 * 8 / usual)
