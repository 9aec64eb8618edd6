"""A training from names and recipes, and sweeps of them; with a net and data that train in a blink."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import training_fakes as fakes

from numnet import checkpoint
from numnet.errors import NumnetError
from numnet.training import results, run, sweep
from numnet.training.loop import Callback

FAST = {"epochs": 2, "batch_size": 64, "augment": None, "validation": 60, "warmup": None}


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """``numnet.data.load`` and ``numnet.build`` give the fakes; what they were asked for is kept."""
    asked = SimpleNamespace(load=[], build=[])

    def load(dataset, **options):
        asked.load.append((dataset, options))
        return fakes.make_data(validation=options["validation"])

    def build(model, *, seed=0, **options):
        asked.build.append({"model": model, "seed": seed, **options})
        net = fakes.make_net(seed=seed)
        net.config = {"model": model, "seed": seed, **options}
        return net

    monkeypatch.setattr(run.datasets, "load", load, raising=False)
    monkeypatch.setattr(run, "build", build)
    monkeypatch.setattr(results, "describe", lambda **config: fakes.make_net())
    monkeypatch.setattr(sweep, "build", lambda **config: fakes.make_net(dropout=0))
    monkeypatch.chdir(tmp_path)
    return asked


def test_train_merges_reads_and_reports(small, tmp_path):
    result = run.train(
        "shapes", flags={**FAST, "seed": 3, "model": {"width": 0.5}}, out="run", progress=False, data_dir="d"
    )
    data_dir = str(tmp_path / "d")
    assert small.load == [
        ("shapes", {"validation": 60, "preset": None, "background": None, "seed": 3, "resolution": 32, "data_dir": data_dir})
    ]  # fmt: skip
    assert small.build == [
        {"model": "mobilenet_v1", "width": 0.5, "resolution": 32, "strides": "cifar", "classes": 4, "seed": 3}
    ]
    assert {
        "test_accuracy",
        "validation_accuracy",
        "epochs",
        "train_seconds",
        "images_per_second",
        "checkpoint",
    } <= set(result)
    meta = checkpoint.read_meta("run/best.safetensors")
    assert meta["recipe"]["epochs"] == 2 and meta["recipe"]["model"]["width"] == 0.5
    assert (
        meta["recipe"]["optimiser"] == "sgd"
        and meta["dataset"] == "quarters"
        and meta["classes"] == list("abcd")
    )
    assert (
        meta["input"] == {"mean": [0.4] * 3, "std": [0.25] * 3} and meta["config"]["model"] == "mobilenet_v1"
    )


def test_resume_needs_the_directory_only(small):
    class Killed(BaseException):
        pass

    class Stop(Callback):
        def on_step(self, run, loss):
            if run.step == 6:
                raise Killed

    whole = run.train("shapes", flags=FAST, out="whole", progress=False)
    with pytest.raises(Killed):
        run.train("shapes", flags=FAST, out="run", progress=False, callbacks=[Stop()])
    result = run.resume("run", progress=False)
    assert result["test_accuracy"] == whole["test_accuracy"] and len(result["history"]) == 2
    a, b = (checkpoint.read(f"{name}/last.safetensors")[0] for name in ("whole", "run"))
    assert all(a[key].tobytes() == b[key].tobytes() for key in a)
    assert small.load[-1] == small.load[0] and small.build[-1] == small.build[0]
    assert run.resume("run", progress=False) == result
    assert run.resume("run/last.safetensors", progress=False) == result


def test_a_finished_run_that_was_moved_says_where_it_is_and_needs_no_images(small):
    whole = run.train("shapes", flags=FAST, out="run", progress=False)
    Path("run").rename("moved")
    read = len(small.load)
    assert run.resume("moved", progress=False) == {**whole, "checkpoint": "moved/best.safetensors"}
    assert len(small.load) == read


def test_run_directories_are_numbered():
    for number in (1, 2):
        result = run.train("shapes", flags=FAST, progress=False)
        assert result["checkpoint"] == f"runs/quarters-{number}/best.safetensors"


def test_mistakes(tmp_path):
    with pytest.raises(NumnetError, match="has 3 output classes, quarters has 4"):
        run.train("shapes", flags={**FAST, "model": {"classes": 3}}, progress=False)
    with pytest.raises(NumnetError, match="no such checkpoint"):
        run.resume("nowhere")
    checkpoint.write("a.safetensors", {}, {"format": 1})
    with pytest.raises(NumnetError, match="holds no training that was started by `numnet train`"):
        run.resume("a.safetensors")
    (tmp_path / "runs").touch()
    with pytest.raises(NumnetError, match=r"cannot make the folder runs/quarters-1: .*; name one with --out"):
        run.train("shapes", flags=FAST, progress=False)


def write(content):
    Path("plan.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return "plan.json"


def read(file):
    return json.loads(Path(file).read_text())


PLAN = {
    "common": {"dataset": "shapes", **FAST},
    "runs": [
        {"name": "narrow", "model": {"width": 0.25}, "seeds": [0, 1, 2]},
        {"name": "adam", "optimiser": "adam", "seed": 4},
    ],
}


def train(plan, out=None, say=lambda text: None):
    return sweep.train(sweep.read(write(plan), out), progress=False, say=say)


def collect(plan, out=None, say=pytest.fail):
    return results.collect(sweep.read(write(plan), out), say=say)


def test_sweep(small):
    said = []
    rows = train(PLAN, say=said.append)
    assert said == [f"{name}: starting" for name in ("narrow-seed0", "narrow-seed1", "narrow-seed2", "adam")]
    assert [build["seed"] for build in small.build] == [0, 1, 2, 4]
    accuracies = [read(f"plan/narrow-seed{seed}/result.json")["test_accuracy"] for seed in (0, 1, 2)]
    mean = sum(accuracies) / 3
    assert rows[0]["test_accuracy"] == pytest.approx(mean) and rows[0]["runs"] == 3
    assert rows[0]["deviation"] == pytest.approx((sum((a - mean) ** 2 for a in accuracies) / 2) ** 0.5)
    assert rows[1]["deviation"] is None and rows[1]["runs"] == 1
    assert rows[0]["macs"] == fakes.make_net().cost().macs
    assert read("plan/table.json") == rows
    table = Path("plan/table.md").read_text()
    assert (
        "| narrow | 3 |" in table
        and f"± {100 * rows[0]['deviation']:.2f}" in table
        and "| adam | 1 |" in table
    )
    assert checkpoint.read_meta("plan/adam/last.safetensors")["recipe"]["optimiser"] == "adam"


def test_sweep_goes_on(small, monkeypatch):
    """Killed in the second run: the first is left alone, the second resumed, the third started."""
    real, count = run.Run.train, []

    class Killed(BaseException):
        pass

    class Stop(Callback):
        def on_step(self, run, loss):
            if len(count) == 2 and run.step == 5:
                raise Killed

    def train_or_stop(self, **arguments):
        count.append(1)
        self.callbacks = [Stop()]
        return real(self, **arguments)

    monkeypatch.setattr(run.Run, "train", train_or_stop)
    with pytest.raises(Killed):
        train(PLAN, "out")
    said = []
    rows = train(PLAN, "out", say=said.append)
    assert said == [
        "narrow-seed0: done already",
        "narrow-seed1: going on",
        "narrow-seed2: starting",
        "adam: starting",
    ]
    again = []
    assert train(PLAN, "out", say=again.append) == rows
    assert all(text.endswith("done already") for text in again)
    whole = train(PLAN, "whole")
    for a, b in zip(rows, whole):
        assert {k: v for k, v in a.items() if k != "train_seconds"} == {
            k: v for k, v in b.items() if k != "train_seconds"
        }


def test_sweep_refuses_what_was_done_with_other_settings(small):
    train(PLAN)
    common = PLAN["common"]
    shorter = {key: common[key] for key in common if key != "batch_size"}
    for changed, words in (
        ({**common, "batch_size": 32}, "batch_size = 64, the sweep now wants 32; give the run"),
        ({**common, "model": {"resolution": 16}}, r"model\.resolution = 32, the sweep now wants 16"),
        ({**common, "clip_norm": 2.0}, r"clip_norm = null, the sweep now wants 2\.0"),
        (shorter, "batch_size = 64, the sweep now wants "),
    ):
        with pytest.raises(NumnetError, match=f"holds a run with {words}"):
            train({**PLAN, "common": changed})


def test_sweep_refuses_what_was_done_with_other_images_or_another_net(small, tmp_path):
    plan = {"runs": [{"name": "one", "dataset": "A", "model": {"dropout": 0.5}, **FAST}]}
    train(plan)
    (run_of_it,) = plan["runs"]
    for change, words in (
        (
            {"dataset": "B"},
            f"holds a run on {tmp_path / 'A'}, the sweep now wants {tmp_path / 'B'}; give the run",
        ),
        ({"model": {}}, r"model\.dropout = 0\.5, the sweep now wants null"),
    ):
        with pytest.raises(NumnetError, match=words):
            train({"runs": [{**run_of_it, **change}]})
    said = []
    train(plan, say=said.append)
    assert said == ["one: done already"]


def test_what_the_file_says_for_all_runs_stays_whatever_net_a_run_names():
    common = {
        "dataset": "cifar10", "progressive": [[0.5, 0.5]], "whiten": True,
        "model": {"width": 0.5, "resolution": 48, "activation": "hswish"},
    }  # fmt: skip
    nets = {"named": {"model": "mobilenet_v2"}, "line": {"model": "search:16:8s2,sep3c8"}}
    own = {"progressive": None, "model": {"model": "mobilenet_v2", "activation": "relu"}}
    runs = [{"name": name, "model": model} for name, model in nets.items()] + [{"name": "own", **own}]
    entries = sweep.read(write({"common": common, "runs": runs})).entries
    plans = {entry.name: run.plan(entry.dataset, entry.recipe, entry.flags) for entry in entries}
    for name, model in nets.items():
        assert plans[name]["progressive"] == [[0.5, 0.5]] and plans[name]["whiten"] is True, name
        assert {**common["model"], **model}.items() <= plans[name]["model"].items(), name
    assert plans["own"]["progressive"] is None and plans["own"]["model"]["activation"] == "relu"
    assert plans["own"]["whiten"] is True and plans["own"]["model"]["width"] == 0.5
    common = {"dataset": "cifar10", "model": {"model": "mobilenet_v1", "separable": False, "width": 0.5}}
    runs = [{"name": "named", "model": nets["named"]}]
    (entry,) = sweep.read(write({"common": common, "runs": runs})).entries
    assert entry.flags["model"] == {**nets["named"], "width": 0.5}, "what is of one model goes with it"


def test_a_finished_training_is_compared_without_its_last_checkpoint_too(small):
    train(PLAN)
    for path in Path("plan").glob("*/last.safetensors"):
        path.unlink()
    said = []
    train(PLAN, say=said.append)
    assert len(said) == 4 and all(text.endswith("done already") for text in said)
    words = "plan/narrow-seed0 holds a run with batch_size = 64, the sweep now wants 32"
    with pytest.raises(NumnetError, match=words):
        train({**PLAN, "common": {**PLAN["common"], "batch_size": 32}})


def test_a_mistake_in_the_last_run_is_said_before_the_first(small):
    for wrong, words in (
        ({"recipe": "fine_tune_v3"}, "unknown recipe 'fine_tune_v3'"),
        ({"model": {"model": "mobilenet_v9"}}, "mobilenet_v9"),
    ):
        with pytest.raises(NumnetError, match=words):
            runs = [{"name": "one", **FAST}, {"name": "two", **wrong}]
            train({"common": {"dataset": "shapes"}, "runs": runs}, "early")
    assert not list(Path("early").glob("one*"))


def test_a_sweep_may_name_a_part_of_augment():
    """What it leaves out is the recipe's; a whole recipe that leaves something out has the default there."""
    done = {"augment": {"crop": 3, "flip": "alternate"}}
    results.require("run", {"augment": {"crop": 3}}, done)
    results.require("run", {"augment": {"crop": 3, "flip": "alternate", "mixup": 0}}, done, whole=True)
    for wanted, whole, words in (
        ({"augment": {"crop": 2}}, False, r"augment\.crop = 3, the sweep now wants 2"),
        ({"augment": None}, False, "augment = true, the sweep now wants false"),
        ({"augment": {"crop": 3}}, True, r'augment\.flip = "alternate", the sweep now wants false'),
        ({"augment": {"cutout": 8}}, False, r"augment\.cutout = 0, the sweep now wants 8"),
    ):
        with pytest.raises(NumnetError, match=words):
            results.require("run", wanted, done, whole)


def keep(run_dir, folder):
    """What notebooks/runs/ holds of a run: the log and about.json, no checkpoint."""
    from numnet.lessons import training

    training.keep(run_dir, folder, data="quarters")


def test_table_from_run_directories_and_from_logs_alone(small):
    rows = train(PLAN)
    assert rows[0]["accuracies"] == [
        read(f"plan/narrow-seed{seed}/result.json")["test_accuracy"] for seed in (0, 1, 2)
    ]
    trained = len(small.build)
    assert collect(PLAN) == rows
    for name in ("narrow-seed0", "narrow-seed2", "adam"):
        keep(f"plan/{name}", f"kept/{name}")
    said = []
    kept = collect(PLAN, "kept", say=said.append)
    assert said == ["narrow-seed1: not finished"] and len(small.build) == trained
    assert kept[0]["runs"] == 2 and kept[0]["accuracies"] == rows[0]["accuracies"][::2]
    assert kept[1] == rows[1]
    assert "may do so by chance (95 %, Student's t)." in results.markdown(kept)
    assert read("kept/table.json") == kept and Path("kept/table.md").read_text() == results.markdown(kept)
    assert not list(Path("kept").glob("*/*.safetensors"))


def test_a_kept_log_is_a_training_that_is_done(small):
    rows = train(PLAN)
    for folder in [path for path in Path("plan").iterdir() if path.is_dir()]:
        keep(folder, f"kept/{folder.name}")
    before = {path: path.read_bytes() for path in Path("kept").glob("*/*")}
    trained, said = len(small.build), []
    assert train(PLAN, "kept", say=said.append) == rows and len(small.build) == trained
    assert len(said) == 4 and all(text.endswith(": done already, its log was kept") for text in said)
    assert before == {path: path.read_bytes() for path in Path("kept").glob("*/*")} and len(before) == 8
    adam = PLAN["runs"][1]
    for changed, words in (
        ({**adam, "lr": 0.5}, "lr = null, the sweep now wants 0.5; give the run another name"),
        ({"name": "adam", "seed": 4}, 'optimiser = "adam", the sweep now wants "sgd"'),
    ):
        with pytest.raises(NumnetError, match=f"kept/adam holds a run with {words}"):
            train({**PLAN, "runs": [changed]}, "kept")


def test_a_log_with_more_settings_than_the_file_names_is_refused(small):
    train({**PLAN, "runs": [{**PLAN["runs"][1], "clip_norm": 2.0}]})
    keep("plan/adam", "kept/adam")
    for work in (train, collect):
        with pytest.raises(NumnetError, match=r"kept/adam holds a run with clip_norm = 2\.0, .* wants null"):
            work(PLAN | {"runs": PLAN["runs"][1:]}, "kept")


def test_logs_of_another_recipe_are_refused(small):
    train(PLAN)
    keep("plan/adam", "kept/adam")
    for changed in (
        {**PLAN["runs"][1], "recipe": "mobilenet_v2_paper"},
        {key: value for key, value in PLAN["runs"][1].items() if key != "optimiser"},
    ):
        for out in ("plan", "kept"):
            with pytest.raises(NumnetError, match=f"{out}/adam holds a run with .*, the sweep now wants"):
                collect({**PLAN, "runs": [changed]}, out)


def test_logs_of_another_sweep_are_refused(small):
    train(PLAN)
    keep("plan/adam", "kept/adam")
    for change, words in (
        ({"lr": 0.5}, "with lr = null, the sweep now wants 0.5"),
        ({"model": {"width": 2.0}}, "with model.width = 0.25, the sweep now wants 2.0; give the run"),
    ):
        plan = {**PLAN, "runs": [{**PLAN["runs"][1], **change}]}
        for out in ("plan", "kept"):
            with pytest.raises(NumnetError, match=f"{out}/adam holds a run {words}"):
                collect(plan, out)
    with pytest.raises(NumnetError, match=r"nowhere: no finished run of plan\.json; expected a folder"):
        collect(PLAN, "nowhere", say=lambda text: None)
    for content in ('{"recipe": {}}', '{"recipe": {"model": {}}}', "[]", "{}"):
        Path("kept/adam/about.json").write_text(content)
        with pytest.raises(NumnetError, match="kept/adam: its log is damaged"):
            collect(PLAN, "kept", say=lambda text: None)


def test_measured_times_stand_in_the_table(small):
    plan = {**PLAN, "runs": [{**run, "group": "both"} for run in PLAN["runs"]]}
    rows = train(plan)
    assert all(row["microseconds"] is None and row["group"] == "both" for row in rows)
    times = sweep.measure(sweep.read("plan.json"), steps=1, say=lambda text: None)
    assert set(times) == {"narrow", "adam"} and all(time > 0 for time in times.values())
    rows = collect(plan)
    assert [row["microseconds"] for row in rows] == [times["narrow"], times["adam"]]
    table = results.markdown(rows)
    assert "| µs an image |" in table and f"| {times['adam']:.0f} |" in table
    macs = rows[0]["macs"]
    for time in ("soon", [], {"microseconds": 3}, {"microseconds": "soon", "macs": macs}):
        Path("plan/times.json").write_text(json.dumps({"adam": time}))
        with pytest.raises(NumnetError, match=r"plan/times\.json: damaged; remove it or measure again"):
            collect(plan)
    for content in ("{", "[]", "3"):
        Path("plan/times.json").write_text(content)
        with pytest.raises(NumnetError, match=r"plan/times\.json: damaged; remove it or measure again"):
            collect(plan)


def test_a_time_is_shown_for_the_net_that_was_timed_alone(small):
    train(PLAN)
    times = sweep.measure(sweep.read("plan.json"), steps=1, say=lambda text: None)
    macs = fakes.make_net().cost().macs
    written = {name: {"microseconds": time, "macs": macs} for name, time in times.items()}
    assert read("plan/times.json") == written
    for content, shown in (
        ({**written, "adam": {"microseconds": 5.0, "macs": macs + 1}}, [times["narrow"], None]),
        ({"adam": written["adam"]}, [None, times["adam"]]),
        ({"narrow": 12.5, "adam": 13}, [12.5, 13]),
    ):
        Path("plan/times.json").write_text(json.dumps(content))
        assert [row["microseconds"] for row in collect(PLAN)] == shown


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"test_accuracy": 0.5}'])
def test_a_damaged_result_is_one_line(small, content):
    train(PLAN)
    Path("plan/adam/result.json").write_text(content)
    for work in (train, collect):
        with pytest.raises(NumnetError, match=r"^plan/adam.*(damaged|cannot be read)") as caught:
            work(PLAN)
        assert "\n" not in str(caught.value)


def test_what_chance_may_do():
    """Student's t by hand: deviations 1 and 3 points, two seeds each; t of 2 degrees of freedom is 4.303."""
    rows = [
        {"runs": 2, "accuracies": [0.50, 0.50 + 0.01 * 2**0.5], "deviation": 0.01},
        {"runs": 2, "accuracies": [0.60, 0.60 + 0.03 * 2**0.5], "deviation": 0.03},
        {"runs": 1, "accuracies": [0.9], "deviation": None},
    ]
    told = results.least_significant_difference(rows[:2])
    assert told["deviation"] == pytest.approx(((0.01**2 + 0.03**2) / 2) ** 0.5)
    assert told["difference"] == pytest.approx(4.3027 * told["deviation"], rel=1e-4)
    assert (told["freedom"], told["runs"]) == (2, 2)
    assert results.least_significant_difference(rows[2:]) is None
    alone = results.least_significant_difference(rows)  # a row of one seed in it: its mean is less certain
    assert alone["runs"] == 1 and alone["difference"] == pytest.approx(2**0.5 * told["difference"])


RUN = {"name": "a", "dataset": "shapes"}
BAD = {
    "not JSON": ("{", "not JSON"),
    "empty": ([], "expected a list of runs"),
    "a number": (3, "expected a list of runs"),
    "other keys": ({"common": {}, "run": []}, "expected a list of runs"),
    "no object": ([3], "run 1: expected an object"),
    "no name": ([{"dataset": "shapes"}], "run 1: name is null; expected letters"),
    "bad name": ([{**RUN, "name": "../a"}], 'run 1: name is "../a"; expected letters'),
    "dots": ([{**RUN, "name": ".."}], "run 1: name is"),
    "same name": ([RUN, RUN], "two runs have the name 'a'"),
    "no dataset": ([{"name": "a"}], "run 1: no dataset"),
    "dataset": ([{**RUN, "dataset": 3}], "run 1: dataset is 3; expected a text"),
    "group": ([{**RUN, "group": 1}], "run 1: group is 1; expected a text"),
    "unknown": ([{**RUN, "epoch": 3}], r"run 1: unknown key 'epoch' \(did you mean epochs\?\)"),
    "common": ({"common": {"lrr": 1}, "runs": [RUN]}, r"common: unknown key 'lrr' \(did you mean lr\?\)"),
    "seeds": ([{**RUN, "seeds": 3}], "run 1: seeds is 3; expected a list"),
    "seeds twice": ([{**RUN, "seeds": [1, 1]}], "run 1: a seed stands twice"),
    "seed and seeds": ([{**RUN, "seeds": [1], "seed": 2}], "run 1: has both seed and seeds"),
}


@pytest.mark.parametrize("case", BAD)
def test_sweep_files(case):
    content, message = BAD[case]
    with pytest.raises(NumnetError, match=message) as caught:
        sweep.read(write(content))
    assert str(caught.value).startswith("plan.json: ") and "\n" not in str(caught.value)


def test_a_file_that_stands_where_its_runs_would(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan").write_text(json.dumps([RUN]))
    with pytest.raises(NumnetError, match=r"^plan: the runs need a folder of another name"):
        sweep.read("plan")
    assert sweep.read("plan", "out").folder.name == "out"


def test_missing_sweep_file():
    with pytest.raises(NumnetError, match=r"none\.json: cannot be read"):
        sweep.read("none.json")


@pytest.mark.parametrize(
    "common, name, kept",
    [
        ({"width": 0.5, "dropout": 0.1}, "vgg16", {"dropout": 0.1}),
        ({"strides": "cifar", "bn_eps": 1e-5}, "search:32:8s2,sep3c8", {"bn_eps": 1e-5}),
    ],
)
def test_what_a_net_has_no_choice_in_is_left_out(tmp_path, common, name, kept):
    file = tmp_path / "plan.json"
    runs = [{"name": "a", "dataset": "shapes", "model": {"model": name}}]
    file.write_text(json.dumps({"common": {"model": common}, "runs": runs}))
    (entry,) = sweep.read(file).entries
    assert entry.flags["model"] == {**kept, "model": name}


def test_a_sweep_that_goes_on_takes_the_place_of_cifar10_for_cifar10_alone(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(run, "resume", lambda folder, data, progress: asked.append(data))
    monkeypatch.setattr(sweep, "_require_same", lambda *arguments: None)
    for dataset in ("shapes", "cifar10"):
        file = tmp_path / f"{dataset}.json"
        file.write_text(json.dumps([{"name": "a", "dataset": dataset, "data": "elsewhere"}]))
        (entry,) = sweep.read(file).entries
        folder, flags = entry.trainings[0]
        folder.mkdir(parents=True)
        (folder / "last.safetensors").touch()
        sweep._train(entry, folder, flags, False, lambda line: None)
    assert asked == [None, "elsewhere"]
