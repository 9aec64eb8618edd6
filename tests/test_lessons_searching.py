"""Exercises of notebook 10: right answers are accepted, plausible wrong ones rejected; what was kept is whole."""

import json
import statistics

import pytest

from numnet.lessons import check, searching
from numnet.models.searched import parse
from numnet.search import run
from numnet.search.evolution import choose
from numnet.search.reward import reward
from numnet.search.space import space_named


@pytest.fixture
def refuses(capsys):
    """refuses(exercise, answer): the check said no, with a hint."""

    def refused(exercise, answer):
        capsys.readouterr()
        verdict = exercise(answer)
        return verdict is False and capsys.readouterr().out.startswith(check.WRONG)

    return refused


def front(points):
    kept, best = [], -1.0
    for latency, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if accuracy > best:
            kept.append((latency, accuracy))
            best = accuracy
    return kept


def test_exercises(refuses):
    assert searching.exercise_2(75 * 2**0.07) and searching.exercise_1(252)
    assert searching.exercise_3(
        lambda a, t, target, alpha, beta: a * (t / target) ** (alpha if t <= target else beta)
    )
    assert searching.exercise_5(front) and searching.exercise_4(([3, 4, 5, 6], 5))
    for exercise, wrong in (
        (searching.exercise_2, (80, 75 * 2**-0.07, 150)),
        (searching.exercise_1, (288, 4 * 2 * 2 * 2 * 3, 10**12)),
        (searching.exercise_4, (([0, 1, 2, 3], 1), ([3, 4, 5, 6], 1), ([6, 5, 4, 3], 5), 5)),
        (
            searching.exercise_3,
            (
                lambda a, t, target, alpha, beta: a * (t / target) ** beta,
                lambda a, t, target, alpha, beta: a * (target / t) ** (alpha if t <= target else beta),
            ),
        ),
        (
            searching.exercise_5,
            (lambda points: sorted(points), lambda points: [max(points, key=lambda p: p[1])]),
        ),
    ):
        for answer in wrong:
            assert refuses(exercise, answer)


def test_ranks_by_hand():
    assert searching.ranks([3.0, 1.0, 2.0, 1.0]).tolist() == [3, 0.5, 2, 0.5]
    assert searching.rank_correlation([1, 2, 3], [10, 20, 300]) == pytest.approx(1)
    assert searching.rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert searching.rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert searching.rank_correlation([1, 1], [1, 2]) == 0


def test_choices_are_counted_by_stage():
    found = searching.choices(["search:32:8,sep3c8x3+se,inv5e6c8", "search:32:8,conv3c8+noskip,inv3e3c8"])
    assert found["kind"] == {"sep": 0.25, "inv e6": 0.25, "conv": 0.25, "inv e3": 0.25}
    assert (
        found["kernel"] == {"3×3": 0.75, "5×5": 0.25}
        and found["squeeze"]["se"] == 0.25 == found["skip"]["no skip"]
    )


@pytest.mark.parametrize("name", ["evolution", "random", "cifar10/evolution", "cifar10/random"])
def test_the_kept_searches_follow_from_their_plan_and_table(name):
    """Latencies and rewards are those of the kept table; each net is the one that the plan proposes after the ones before."""
    plan, records = searching.kept(name)
    folder, _, method = name.rpartition("/")
    table, space = searching.kept_table(folder or "."), space_named(plan["space"])
    assert (
        len(records) == plan["nets"]
        and plan["method"] == method
        and "data_dir" not in {k for k, v in plan.items() if v}
    )
    fits = run.fits(plan, table, 10)
    for number, record in enumerate(records):
        line, parent = run.propose(
            space, plan["method"], records[:number], seed=plan["seed"], population=plan["population"],
            sample=plan["sample"], fits=fits, same=run.same_as(plan),
        )  # fmt: skip
        assert (line, parent) == (record["net"], record["parent"])
        assert record["latency"] == run.seconds_of(plan, table, 10, line)
        assert record["reward"] == reward(
            record["accuracy"], record["latency"], plan["target"], plan["reward"]
        )
        space.require(parse(line))


def test_the_kept_check_of_the_clock_says_what_its_nets_say():
    from numnet.cli.latency import errors

    clock = searching.kept_json("clock.json")
    assert errors(clock["nets"]) == clock["errors"]
    for found in clock["errors"].values():
        assert found["nets"] == 50
        bound = max(0.05, 2 * found["noise"])
        assert found["median"] <= bound and found["most_of_95"] <= 3 * bound
    table, held = searching.kept_table(), {entry["net"] for entry in searching.kept_table().runs}
    rows = [row for row in clock["nets"] if row["mode"] == "small, infer-1"]
    for row in rows:
        assert row["net"] not in held and row["own_blocks"] == 0
        net = searching.describe(row["net"], **searching.OPTIONS)
        assert table.predict(net, "infer-1") == pytest.approx(row["predicted"], rel=1e-6)


def test_the_longer_trainings_are_of_nets_that_were_searched():
    longer, known = searching.kept_json("longer.json"), {}
    for name in ("evolution", "random"):
        known |= {record["net"]: record["accuracy"] for record in searching.kept(name)[1]}
    assert len(longer["nets"]) >= 12 and all(known[row["net"]] == row["short"] for row in longer["nets"])


def test_the_page_shows_the_rivals_as_they_were_kept():
    """docs/howto/search.md: mean and standard deviation over three seeds, of the best net of each search and one by hand."""
    kept, found = searching.runs_folder() / "search" / "rivals.jsonl", {}
    for line in kept.read_text("utf-8").splitlines():
        row = json.loads(line)
        found.setdefault(row["who"], []).append(row)
    page = (searching.runs_folder().parents[1] / "docs" / "howto" / "search.md").read_text("utf-8")
    for who, rows in found.items():
        values = [100 * row["long"] for row in rows]
        assert sorted(row["seed"] for row in rows) == [1, 2, 3]
        shown = f"| {1e3 * rows[0]['latency']:.3f} ms | {statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} % |"
        assert shown in page, (who, shown)
        if who != "hand":
            assert rows[0]["net"] == searching.best_of(searching.kept(who)[1])["net"]


def test_figures():
    _, records = searching.kept()
    assert len(searching.reward_drawn().axes) == 2
    assert (
        searching.front_drawn({"a": records}, 3e-4).axes and searching.best_so_far_drawn({"a": records}).axes
    )
    bars = searching.in_common_drawn(records).axes[0].patches
    assert len(bars) >= 2 * 8
    assert [row[3] for row in searching.exchange().rows] == ["−0.193", "−0.096", "−0.104", "−0.048"]
    rewards = [{"reward": r} for r in (0.62, 0.71, 0.55, 0.48, 0.60, 0.66, 0.59)]
    assert choose(rewards, seed=0, population=4, sample=4) == 5
    rows = [
        {"net": f"search:32:8,sep3c{8 * n},conv3c8", "macs": 10**6 * n, "measured": 1e-4 * n}
        for n in (1, 2, 3)
    ]
    assert searching.race_drawn(rows).axes[0].lines[0].get_ydata() == pytest.approx([0.1, 0.2, 0.3])
    assert searching.of_what("search:32:8,sep3c8x3+se,conv3c8")["layers with squeeze-and-excite"] == 0.75
    table = searching.directions({"here": rows})
    assert table.head[1:] == ["here"] and len(table.rows) == 4 and table.rows[3][1] == "+0.00"
    assert "sep3" not in json.dumps(searching.layer_table("search:32:8,sep3c8x2+se").rows)
