"""The model behind ``numnet scale`` against times worked out by hand, buckets, and the command."""

import json
from itertools import pairwise

import numpy as np
import pytest

import numnet
from numnet.cli import main
from numnet.layers.layer import ALONE
from numnet.parallel import scaling
from numnet.parallel.exchange import buckets
from numnet.parallel.scaling import Compute, Link, Stage

# A message takes a second, and one more for every 10 bytes
LINK = Link(latency=1.0, bandwidth=10.0, hidden=1.0)


def ring_by_message(size, ranks, link):
    """Round by round: in each all ranks send an R-th part, first to add up, then to hand the sums on."""
    seconds = 0.0
    for _ in ("add up", "hand on"):
        for _ in range(ranks - 1):
            seconds += link.latency + (size / ranks) / link.bandwidth
    return seconds


def tree_by_message(size, ranks, link):
    """Round by round: whoever has the sum of a group exchanges it with the group beside, until one group is left."""
    seconds, group = 0.0, 1
    while group < ranks:
        seconds += link.latency + size / link.bandwidth
        group *= 2
    return seconds


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7, 8, 1000])
@pytest.mark.parametrize("size", [1, 80, 1e6])
def test_all_reductions(ranks, size):
    ring, tree = ring_by_message(size, ranks, LINK), tree_by_message(size, ranks, LINK)
    assert scaling.ring(size, ranks, LINK) == pytest.approx(ring)
    assert scaling.tree(size, ranks, LINK) == pytest.approx(tree)
    assert scaling.best(size, ranks, LINK) == pytest.approx(min(ring, tree))


def hand_sized():
    """Forward 2 s, backward 3 s, then 4 s, then 1 s; the first two stages each complete a bucket of 20 bytes."""
    stages = [
        Stage("c", (1, 2), (3.0, 6.0), 0),
        Stage("b", (1, 2), (4.0, 4.0), 1),
        Stage("a", (1, 2), (1.0, 1.0)),
    ]
    return Compute(Stage("f", (1, 2), (2.0, 4.0)), stages, Stage("u", (1,), (0.5,)), [20, 20], 10, {1: 10.5})


def test_a_stage_between_and_beyond_its_measurements():
    stage = Stage("x", (2, 4, 8), (3.0, 4.0, 8.0))
    assert [stage.seconds(n) for n in (2, 3, 4, 6, 8, 16)] == pytest.approx([3, 3.5, 4, 6, 8, 16])
    assert stage.seconds(1) == pytest.approx(2.5)
    assert Stage("x", (4,), (2.0,)).seconds(6) == pytest.approx(3.0)


def test_one_rank_computes_and_no_more():
    found = scaling.step(hand_sized(), 1, 1, LINK)
    assert found == {"step": 10.5, "compute": 10.5, "communication": 0.0, "exposed": 0.0}


@pytest.mark.parametrize(
    "overlap, hidden, seconds",
    [
        # Two ranks, a tree: 3 s a bucket, 2 s the running statistics, 1 s the three numbers, 0.5 s the update.
        (
            True,
            1.0,
            12.0 + 2 + 1 + 0.5,
        ),  # 0–2 forward; sums from 5 to 8 and from 9 to 12; backward ends at 10
        (False, 1.0, 10.0 + 6 + 2 + 1 + 0.5),  # both sums after backward
        (True, 0.0, 16.0 + 2 + 1 + 0.5),  # the processor does it all: 10 s and 6 s
        # half of the first sum before stage b, which ends at 10.5; sum until 13.5
        (True, 0.5, 13.5 + 2 + 1 + 0.5),
    ],
)
def test_a_step_of_two_ranks(overlap, hidden, seconds):
    found = scaling.step(hand_sized(), 2, 1, LINK._replace(hidden=hidden), "tree", overlap)
    assert found["step"] == pytest.approx(seconds)
    assert found["communication"] == pytest.approx(6 + 2 + 1)
    assert found["exposed"] == pytest.approx(seconds - 10.5)


def test_curves():
    rows = scaling.curves(hand_sized(), 4, LINK._replace(latency=1e-3, bandwidth=1e5), 8)
    assert [row["ranks"] for row in rows] == [1, 2, 4, 8]
    assert rows[0]["speedup"] == rows[0]["efficiency"] == rows[0]["each_efficiency"] == 1
    assert [row.get("images") for row in rows] == [4, 2, 1, None]  # eight ranks cannot share four images
    assert 1 < rows[1]["speedup"] < 2 and rows[1]["speedup"] < rows[2]["speedup"] < 4
    for row in rows[:3]:
        assert row["efficiency"] == pytest.approx(row["speedup"] / row["ranks"])
        assert row["images_per_second"] == pytest.approx(4 / row["step"])


@pytest.fixture(scope="module")
def net():
    return numnet.build("mobilenet_v2", width=0.35, resolution=32, classes=10)


@pytest.mark.parametrize("size", [1, 50_000, 10**9])
@pytest.mark.parametrize("start", [0, 1000])
def test_buckets_are_the_vector_from_its_end(net, size, start):
    cut = buckets(net, start, size)
    assert cut[0][1] == net.flat.size and cut[-1][0] == start
    assert all(before[0] == after[1] for before, after in pairwise(cut))
    if size == 50_000:
        assert all((hi - lo) * 4 >= size for lo, hi, _ in cut[:-1])
        assert 1 < len(cut) < net.flat.nbytes / size + 1
    if size == 10**9:
        assert len(cut) == 1
    if start == 0:
        names = [path for path, layer in net.walk() if layer.specs]
        owners = [layer for *_, layers in cut for layer in layers]
        by_id = {id(layer): path for path, layer in net.walk()}
        assert [by_id[id(layer)] for layer in owners] == names[::-1]


def test_measuring_leaves_the_net_as_it_was(net):
    before = net.flat.copy()
    compute = scaling.measure(net, [1, 2], repeats=2)
    assert np.array_equal(net.flat, before)
    assert all(layer.peers is ALONE for _, layer in net.walk())
    finished = [stage.bucket for stage in compute.backward if stage.bucket >= 0]
    assert finished == list(range(len(compute.buckets)))  # each once, and in the order of backward
    assert sum(compute.buckets) == net.flat.nbytes
    assert {path for path, layer in net.walk() if layer.specs} <= {stage.name for stage in compute.backward}
    assert all(stage.seconds(2) >= 0 for stage in compute.backward)
    assert compute.forward.seconds(2) > 0 and set(compute.measured) == {1, 2}


NET = ["mobilenet_v1", "--width", "0.25", "--resolution", "32", "--classes", "10", "--batch", "4"]


def test_the_command(capsys, tmp_path):
    assert main(["scale", *NET, "--ranks", "8", "--plot", str(tmp_path / "scale.png"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["ranks"] for row in found["rows"]] == [1, 2, 4, 8]
    assert (
        found["gradient_bytes"] == 4 * numnet.describe("mobilenet_v1", width=0.25, classes=10).cost().params
    )
    assert (tmp_path / "scale.png").stat().st_size > 10_000
    assert (
        main(["scale", *NET, "--ranks", "2", "--latency", "1e9", "--bandwidth", "2", "--hidden", "0.5"]) == 0
    )
    text = capsys.readouterr().out
    assert "1,000,000,000.0 µs and 2 GB/s" in text and "50 % of an all-reduction" in text
    assert "efficiency" in text and "assumed:" in text
    assert main(["scale", *NET, "--algorithm", "rings"]) == 2
    assert "did you mean ring?" in capsys.readouterr().err
