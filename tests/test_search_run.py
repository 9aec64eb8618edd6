"""A search from plan to log: the same lines whenever it is killed; the command line with a space of few nets."""

import json
import os
import resource
import signal
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from cli_tools import numnet, works, write_images
from test_search_latency import SMALL, few, machine, made_up  # noqa: F401  (a fixture)

import numnet as package
from numnet.cli import search
from numnet.errors import NumnetError
from numnet.search import latency, log, run
from numnet.search import space as spaces

CLASSES = ("a", "b", "c")


class Quick:
    """A proxy without a training: the accuracy is a number that the line alone decides."""

    def __init__(self, plan):
        self.data, self.trained = SimpleNamespace(classes=CLASSES), []

    def accuracy(self, line):
        self.trained.append(line)
        return zlib.crc32(line.encode()) % 1000 / 1000


@pytest.fixture
def small(few, monkeypatch):  # noqa: F811
    """The space "32" has few blocks, and a table knows them all."""
    monkeypatch.setitem(spaces.SPACES, "32", SMALL)
    table = latency.Table(machine())
    for line in latency.carriers(SMALL, classes=3):
        table.note(line, {"classes": 3}, "infer-1", *made_up(package.describe(line, classes=3)))
    return table


def begun(folder, table, **changes):
    plan = run.make_plan("shapes", target=2e-4, **{"nets": 12, "population": 4, "sample": 2, **changes})
    run.begin(folder, plan, table)
    return plan


def whole(tmp_path, table, **changes):
    """The log of a search that nothing stops, as bytes."""
    begun(tmp_path / "whole", table, **changes)
    run.go(tmp_path / "whole", make=Quick)
    return (tmp_path / "whole" / log.NETS).read_bytes()


# ------------------------------------------------------------------------------------------------- killed and resumed


class Killed(BaseException):
    """The end of the process, as far as Python code can tell."""


@pytest.mark.parametrize("method", ["evolution", "random"])
def test_killed_ten_times_the_log_is_the_same_line_for_line(small, tmp_path, monkeypatch, method):
    """Killed while a net is trained, before its line, in the middle of its line, and after it; each several times."""
    expected = whole(tmp_path, small, method=method)
    folder, kills, calls = tmp_path / "killed", 0, 0
    begun(folder, small, method=method)
    append, accuracy = log.append, Quick.accuracy
    state = {"left": 0}

    def counted():
        state["left"] -= 1
        if state["left"] < 0:
            raise Killed

    def train(self, line):
        counted()
        return accuracy(self, line)

    def write(path, record):
        counted()
        line = (json.dumps(record) + "\n").encode()
        try:
            counted()
        except Killed:
            with open(path, "ab") as file:
                file.write(line[: len(line) // 2])  # what a full page of the disk may have taken
            raise
        append(path, record)
        counted()

    monkeypatch.setattr(Quick, "accuracy", train)
    monkeypatch.setattr(log, "append", write)
    while True:
        state["left"], calls = 1 + 3 * kills % 11, calls + 1
        assert calls < 100
        try:
            found = run.go(folder, make=Quick)
            break
        except Killed:
            kills += 1
    assert kills >= 10
    assert (folder / log.NETS).read_bytes() == expected
    assert [record["number"] for record in found] == list(range(12)) and (folder / run.FIGURE).is_file()
    times = [json.loads(line) for line in (folder / log.TIMES).read_text().splitlines()]
    assert {row["number"] for row in times} == set(range(12)) and set(times[0]) == {"number", "seconds"}


def test_a_finished_search_is_left_alone(small, tmp_path):
    before = whole(tmp_path, small)
    proxy = []
    run.go(tmp_path / "whole", make=lambda plan: proxy.append(plan))
    assert not proxy and (tmp_path / "whole" / log.NETS).read_bytes() == before


def test_the_log_depends_on_plan_and_table_alone(small, tmp_path):
    a = whole(tmp_path / "a", small)
    assert whole(tmp_path / "b", small) == a != whole(tmp_path / "c", small, seed=1)
    assert whole(tmp_path / "d", small, method="random") != a
    for entry in small.runs:
        entry["layers"] = [2 * seconds for seconds in entry["layers"]]
    other = latency.Table(machine(), small.runs)
    assert whole(tmp_path / "e", other) != a
    first = json.loads(a.splitlines()[0])
    assert list(first) == ["number", "net", "parent", "latency", "accuracy", "reward"]


def test_nothing_slower_than_half_as_much_again_is_tried(small, tmp_path):
    net_times = sorted(
        small.predict(package.describe(SMALL.draw(5, n), classes=3), "infer-1") for n in range(40)
    )
    target = net_times[10]
    plan = run.make_plan("shapes", target=target, nets=10)
    run.begin(tmp_path / "x", plan, small)
    history = run.go(tmp_path / "x", make=Quick)
    assert max(record["latency"] for record in history) <= run.MOST * target < net_times[-1]
    assert len({record["net"] for record in history}) == 10


@pytest.mark.parametrize(
    "damage, words",
    [
        (b'{"number": 0}\n', r"nets\.jsonl: damaged in line 1"),
        (b"{]\n", r"nets\.jsonl: damaged in line 1"),
    ],
)
def test_a_damaged_log_is_refused(small, tmp_path, damage, words):
    begun(tmp_path / "x", small)
    (tmp_path / "x" / log.NETS).write_bytes(damage)
    with pytest.raises(NumnetError, match=words):
        run.go(tmp_path / "x", make=Quick)


def test_a_log_without_its_plan_is_not_added_to(small, tmp_path):
    before = whole(tmp_path, small)
    (tmp_path / "whole" / run.PLAN).unlink()
    with pytest.raises(
        NumnetError, match=r"whole holds the log of a search without its plan.json; name another"
    ):
        begun(tmp_path / "whole", small)
    assert (tmp_path / "whole" / log.NETS).read_bytes() == before


def test_a_search_does_not_go_on_with_another_table(small, tmp_path):
    """Rewards by two tables would compete."""
    lines = whole(tmp_path, small).splitlines(keepends=True)
    (tmp_path / "whole" / log.NETS).write_bytes(b"".join(lines[:5]))
    slower = latency.Table(machine())
    for line in latency.carriers(SMALL, classes=3):
        layers, seconds = made_up(package.describe(line, classes=3))
        slower.note(line, {"classes": 3}, "infer-1", [1.1 * each for each in layers], 1.1 * seconds)
    slower.write(tmp_path / "whole" / run.TABLE)
    with pytest.raises(
        NumnetError, match=r"net 0 took .* µs by the table .* expected the same table"
    ) as refused:
        run.go(tmp_path / "whole", make=Quick)
    assert "\n" not in str(refused.value)
    small.write(tmp_path / "whole" / run.TABLE)
    run.go(tmp_path / "whole", make=Quick)
    assert (tmp_path / "whole" / log.NETS).read_bytes() == b"".join(lines)


@pytest.mark.parametrize(
    "change",
    [
        {"sample": 1},
        {"sample": 5},
        {"sample": 2.0},
        {"population": "4"},
        {"seed": -1},
        {"seed": None},
        {"method": "best"},
        {"reward": []},
        {"proxy": {}},
        {"proxy": {"recipe": {}, "images": 10}},
    ]
    + [{"target": target} for target in (0, -1.0, None, "1", True, float("inf"), float("nan"))],
)
def test_plans_that_were_edited_to_what_no_search_can_be(small, tmp_path, change):
    plan = begun(tmp_path / "x", small)
    assert run.read(tmp_path / "x")[0] == plan
    (tmp_path / "x" / run.PLAN).write_text(json.dumps({**plan, **change}))
    with pytest.raises(NumnetError, match=rf"plan\.json: .*{next(iter(change))}"):
        run.read(tmp_path / "x")


def test_a_line_that_the_disk_took_in_part_is_an_error(tmp_path):
    """And ``mend`` takes the part away, so the next line stands alone."""
    path, record = tmp_path / log.NETS, {"number": 0, "net": "x" * 200}
    log.append(path, record)
    size = path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    was = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, hard))
    try:
        with pytest.raises(NumnetError, match=r"cannot write .*File too large"):
            log.append(path, record)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, was)
    log.mend(tmp_path)
    assert path.stat().st_size == size


def test_plans_that_make_no_sense(small, tmp_path):
    for change, words in (
        ({"method": "best"}, "method: expected one of evolution, random"),
        ({"kind": "x"}, "reward: expected one of soft, hard"),
        ({"space": "33"}, "space: expected one of"),
        ({"nets": 1}, "nets: expected at least 2"),
        ({"population": 3, "sample": 4}, "sample: expected 2 to 3"),
        ({"population": 50}, "population: expected at most 9, the nets, got 50"),
    ):
        with pytest.raises(NumnetError, match=words):
            run.make_plan("shapes", target=1e-3, **{"nets": 9, **change})
    begun(tmp_path / "x", small)
    with pytest.raises(NumnetError, match="holds a search already; --resume"):
        begun(tmp_path / "x", small)
    with pytest.raises(NumnetError, match="holds no search"):
        run.go(tmp_path / "none")
    (tmp_path / "x" / run.PLAN).write_text('{"format": 1}')
    with pytest.raises(NumnetError, match=r"damaged: activation, .* is missing"):
        run.read(tmp_path / "x")
    whole = run.make_plan("shapes", target=1e-3, nets=9)
    assert set(run.NEEDED) == set(whole) - {"format", "numnet"}


def test_a_budget_becomes_nets_and_epochs(small):
    plan = run.make_plan("shapes", target=1e-3, nets=2)
    assert plan["proxy"]["recipe"]["epochs"] == 4
    assert run.nets_for(6400, plan, seconds=100.0) == (64, 4), "as many nets as there is room for"
    assert run.nets_for(3300, plan, seconds=100.0) == (66, 2), "rather fewer epochs than fewer than 64 nets"
    assert run.nets_for(500, plan, seconds=100.0) == (20, 1)
    with pytest.raises(NumnetError, match="--budget: a net takes about 25 s here, and a search needs 2"):
        run.nets_for(40, plan, seconds=100.0)
    recipe = plan["proxy"]["recipe"]
    assert recipe["warmup"] == 0.8 and recipe["progressive"] is None and "model" not in recipe


def test_the_rivals_have_the_same_budget_and_begin_alike(small, tmp_path):
    logs = {}
    for method in ("evolution", "random"):
        begun(tmp_path / method, small, method=method)
        logs[method] = run.go(tmp_path / method, make=Quick)
    assert len(logs["evolution"]) == len(logs["random"]) == 12
    assert logs["evolution"][:4] == logs["random"][:4]
    assert all(record["parent"] is None for record in logs["random"])
    assert all(record["parent"] is not None for record in logs["evolution"][4:])


# ------------------------------------------------------------------------------------------------- the command line


def test_a_search_from_the_command_line(small, tmp_path, monkeypatch):
    """Two nets for the built-in set, really trained; then the same log again with other threads, and a resumed one."""
    monkeypatch.chdir(tmp_path)
    small.machine = latency.Table.here().machine
    table = latency.Table(small.machine)
    for line in latency.carriers(SMALL, classes=10):
        table.note(line, {"classes": 10}, "infer-1", *made_up(package.describe(line, classes=10)))
    table.write("table.json")
    words = [
        "shapes",
        "--latency",
        "300us",
        "--nets",
        2,
        "--epochs",
        1,
        "--images",
        64,
        "--side",
        8,
        "--table",
        "table.json",
    ]
    done = json.loads(works("search", *words, "--out", "one", "--quiet", "--json"))
    assert done["nets"] == 2 and 0 <= done["best"]["accuracy"] <= 1 and done["front"]
    text = works("search", "--resume", "one")
    assert done["best"]["net"] in text and "numnet train shapes --model search:" in text
    first = Path("one/nets.jsonl").read_bytes()
    code, _, err = numnet("search", *words, "--out", "one")
    assert code == 2 and "one holds a search already; --resume one" in err
    os.truncate("one/nets.jsonl", first.index(b"\n") + 9)
    works("search", "--resume", "one", "--quiet", "--threads", 1)
    assert Path("one/nets.jsonl").read_bytes() == first
    assert numnet("search", "--resume", "one", "--seed", 3)[2].count("expected no --seed") == 1


@pytest.fixture
def photos(small, tmp_path, monkeypatch):
    """A search, as words, of a folder of images that is here; ``table.json`` has the times for it."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "photos", train=6, test=2)
    small.machine = latency.Table.here().machine
    small.write("table.json")
    options = ["--space", 32, "--latency", "300us", "--nets", 2, "--epochs", 1, "--images", 10, "--side", 8]
    return ["search", "photos", *options, "--table", "table.json", "--out", "one", "--quiet"]


def test_a_search_goes_on_with_the_images_that_it_was_begun_with_alone(photos, monkeypatch):
    with monkeypatch.context() as stopped:
        stopped.setattr(run, "go", lambda *arguments, **options: (_ for _ in ()).throw(KeyboardInterrupt))
        assert numnet(*photos)[0] == 130
    plan, _ = run.read("one")
    assert run.Proxy(plan).data.digest == plan["digest"]
    without = {key: value for key, value in plan.items() if key != "digest"}
    os.remove("photos/train/red/0.png")
    code, out, err = numnet("search", "--resume", "one", "--quiet")
    assert code == 2 and not out and err.count("\n") == 1
    assert "photos: other images than this search was begun with (files added, removed, renamed" in err
    assert run.Proxy(without).data.digest != plan["digest"], "a plan of an older numnet says nothing of them"


def test_images_at_another_place_that_cannot_be_compared_are_said(photos, capsys):
    plan = {"dataset": os.path.abspath("photos"), "data_dir": None}
    assert search.moved({**plan, "digest": "1"}, "photos")["dataset"] == os.path.abspath("photos")
    assert capsys.readouterr().err == ""
    search.moved(plan, "photos")
    assert "has no fingerprint of its images" in capsys.readouterr().err


def test_images_that_are_gone_and_fewer_than_classes(photos, monkeypatch):
    with monkeypatch.context() as stopped:
        stopped.setattr(run, "go", lambda *arguments, **options: (_ for _ in ()).throw(KeyboardInterrupt))
        assert numnet(*photos)[0] == 130
    plan, _ = run.read("one")
    with pytest.raises(NumnetError, match="--images: expected at least 3, one of each class, got 2"):
        run.Proxy({**plan, "proxy": {**plan["proxy"], "images": 2}})
    os.rename("photos", "moved")
    code, out, err = numnet("search", "--resume", "one", "--quiet")
    assert code == 2 and not out and err.count("\n") == 1
    assert "photos: the folder of this search's images is missing; give its new place with --data DIR" in err
    for nowhere in ("nosuch", ""):
        code, out, err = numnet("search", "--resume", "one", "--quiet", "--data", nowhere)
        assert code == 2 and f"--data: {nowhere}: no such folder, expected the images of " in err
    code, out, err = numnet("search", "--resume", "one", "--quiet", "--data", "moved")
    assert code == 0 and "no fingerprint" not in err, err
    assert f"numnet train {os.path.abspath('moved')} --model" in out


def test_a_table_of_another_machine_that_lacks_blocks_says_how_to_measure_them(photos, small):
    content = json.loads(Path("table.json").read_text())
    content["machine"]["processor"] = "another"
    Path("table.json").write_text(json.dumps(content))
    code, out, err = numnet(*photos, "--images-at-once", 16, "--activation", "hswish")
    assert code == 2 and not out and err.count("\n") == 1 and not Path("one/plan.json").exists()
    assert "table.json: has no time (infer-16) of blocks such as '8×8×3 conv-3s2-8-hswish'; expected" in err
    command = "numnet latency --space 32 --images 16 --classes 3 --set activation=hswish -o table.json"
    assert f"measured on another: {command}" in err


def test_a_training_takes_a_line_as_it_is_written(tmp_path):
    """No recipe's width, strides or side gets into it; what is asked for does."""
    from numnet.training import recipes
    from numnet.training.run import plan

    line = SMALL.draw(0, 0)
    for dataset in ("cifar10", "shapes", str(tmp_path)):
        model = plan(dataset, None, {"model": {"model": line}})["model"]
        assert model == {"model": line, "resolution": 8, "seed": 0}
    asked = plan("shapes", None, {"model": {"model": line, "width": 0.5, "resolution": 16}})["model"]
    assert asked == {"model": line, "width": 0.5, "resolution": 16, "seed": 0}
    (tmp_path / "recipe.json").write_text(json.dumps({"model": {"model": line}}))
    model = plan(str(tmp_path), str(tmp_path / "recipe.json"))["model"]
    assert model["resolution"] == 8 and "width" not in model
    with pytest.raises(NumnetError, match="expected a stage such as"):
        recipes.merge({"model": {"width": 0.5}}, {"model": {"model": "search:8:8,foo"}})


def test_a_net_that_was_only_built_is_refused_where_a_trained_one_is_needed(tmp_path):
    file = tmp_path / "net.safetensors"
    works("build", SMALL.draw(0, 0), "-o", file)
    for command, other in (("predict", "photo.png"), ("eval", "shapes"), ("export", tmp_path / "net.onnx")):
        said = f"{command} needs a trained net, and this one has its first, random weights; train it first:"
        line = f"numnet: error: {file}: {said} numnet train DATASET --init {file}\n"
        assert numnet(command, file, other) == (2, "", line)


def test_build_from_the_command_line(tmp_path):
    line = SMALL.draw(0, 0)
    assert works("build", line).strip() == line
    facts = json.loads(works("build", line, "--classes", 4, "-o", tmp_path / "net.safetensors", "--json"))
    cost = package.describe(line, classes=4).cost()
    assert (facts["net"], facts["macs"], facts["params"]) == (line, cost.macs, cost.params)
    assert package.load(tmp_path / "net.safetensors").config["model"] == line
    code, _, err = numnet("predict", tmp_path / "net.safetensors", "photo.png")
    assert code == 2 and "needs a trained net, and this one has its first, random weights" in err
    drawn = works("build", "--random", 5).strip()
    assert drawn == spaces.SPACES["32"].draw(5) and works("build", "--random", 5).strip() == drawn
    assert works("summary", line, "--json")


def test_latency_from_the_command_line(few, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setitem(spaces.SPACES, "32", SMALL)
    monkeypatch.setitem(latency.ROUNDS, "infer", 1)
    monkeypatch.chdir(tmp_path)
    facts = json.loads(works("latency", "--images", "1", "--check", 2, "--quiet", "--json", "-o", "t.json"))
    assert facts["table"] == "t.json" and len(facts["nets"]) == 2 and facts["errors"]["infer-1"]["nets"] == 2
    assert all(row["own_blocks"] == 0 and row["predicted"] > 0 for row in facts["nets"])
    assert set(facts["blocks"]) == {"infer-1"} and latency.Table.read("t.json").modes == ["infer-1"]
    text = works("latency", SMALL.draw(0, 0), "--images", "1", "--quiet", "-o", "t.json")
    assert "predicted, ms" in text and "%" in text
    content = json.loads(Path("t.json").read_text())
    content["machine"]["processor"] = "another"
    Path("t.json").write_text(json.dumps(content))
    code, _, err = numnet("latency", "-o", "t.json", "--images", "1")
    assert code == 2 and "times of another machine (processor another" in err


def test_a_number_of_images_that_is_named_twice_counts_once(tmp_path, monkeypatch):
    monkeypatch.setitem(latency.ROUNDS, "infer", 1)
    monkeypatch.chdir(tmp_path)
    words = ["latency", SMALL.draw(0, 0), "--images", "1,1", "--quiet", "--json", "-o", "t.json"]
    assert [row["mode"] for row in json.loads(works(*words))["nets"]] == ["infer-1"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["search"], "expected a data set"),
        (["search", "shapes"], "expected --latency T"),
        (["search", "shapes", "--latency", "2ms"], "expected --budget B"),
        (
            ["search", "shapes", "--latency", "2", "--nets", "4"],
            "--latency: expected a time above 0 such as 500us",
        ),
        (
            ["search", "shapes", "--latency", "2ms", "--budget", "5"],
            "--budget: expected a time like 90s",
        ),
        (["search", "shapes", "--latency", "2ms", "--budget", "1h", "--nets", "3"], "expected --budget B"),
        (["search", "nothing", "--latency", "2ms", "--nets", "3"], "data set: expected cifar10, shapes"),
        (["search", "--resume", "nowhere"], "nowhere: holds no search"),
        (
            ["search", "shapes", "--latency", "2ms", "--nets", "3", "--space", "9"],
            "space: expected one of small, 32, 224",
        ),
        (["build"], "expected a MODEL, or --random SEED"),
        (["build", "search:32:8,foo"], "'foo': expected a stage such as"),
        (["build", "mobilenet_v9"], "model: expected one of"),
        (["build", "mobilenet_v1", "-o", "net.onnx"], ".safetensors"),
        (["build", "--random", "1", "--space", "x"], "space: expected one of"),
        (["latency", "--images", "0"], "--images: expected an integer of at least 1"),
        (["latency", "nonet"], "model: expected one of"),
        (["train", "shapes", "--model", "search:32:8,foo"], "'foo': expected a stage such as"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = numnet(*words)
    assert code == 2 and out == "" and message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())
