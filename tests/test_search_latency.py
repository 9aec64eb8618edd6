"""The table of times: what its blocks are called, how a net's time is put together. No test looks at a real time."""

import json
import threading

import numpy as np
import pytest

import numnet
from numnet.cli import latency as cli
from numnet.cli.latency import complete, save
from numnet.errors import NumnetError
from numnet.layers.layer import Pending
from numnet.search import latency, space
from numnet.search.blocks import words
from numnet.search.latency import Table, carriers, fill, measure
from numnet.search.space import Reference, Space

LINE = "search:16:8s2,sep3c8x2,inv5e3c16s2+se,conv3c16x2+noskip,conv3c16"
SMALL = Space(side=8, stem=8, stem_stride=2, stages=(Reference(c=8, n=1, s=1), Reference(c=16, n=2, s=2)))
OPTIONS = {"classes": 3}


@pytest.fixture
def few(monkeypatch):
    """A space of few blocks."""
    monkeypatch.setattr(space, "KINDS", (("sep", 1), ("inv", 3)))
    monkeypatch.setattr(space, "KERNELS", (3,))
    return SMALL


def test_words_by_hand():
    net = numnet.describe(LINE, classes=5)
    assert words(net) == [
        "16×16×3 conv-3s2-8-relu",
        "8×8×8 depthwise-3-relu pointwise-8 add",
        "8×8×8 depthwise-3-relu pointwise-8 add",
        "8×8×8 pointwise-24-relu depthwise-5s2-relu se-2 pointwise-16",
        "4×4×16 conv-3-16-relu",
        "4×4×16 conv-3-16-relu",
        "4×4×16 conv-3-16-relu add",
        "4×4×16 global-average-16",
        "16 dense-5",
    ]
    handed = [text.split(" ")[0] for text in words(net, training=True)]
    assert handed == [
        "finished",
        "raw-relu",
        "finished",
        "finished",
        "raw",
        "raw-relu",
        "raw-relu",
        "finished",
        "finished",
    ]


def test_what_words_say_is_handed_is_what_a_training_step_hands(monkeypatch):
    net = numnet.build(LINE, classes=5)
    seen = []
    for layer in net.layers:
        monkeypatch.setattr(
            layer, "forward", lambda x, training, own=layer.forward: seen.append(x) or own(x, training)
        )
    net.forward(np.zeros((2, 16, 16, 3), np.float32), training=True)
    codes = {"raw": "identity", "raw-relu": "relu"}
    for text, x in zip(words(net, training=True), seen, strict=True):
        handed = text.split(" ")[0]
        assert isinstance(x, Pending) == (handed != "finished")
        if isinstance(x, Pending):
            assert x.code == numnet.kernels.activations.CODES[codes[handed]]


def test_every_word_counts():
    """Two blocks that differ in anything that takes time have other words."""
    lines = {
        "kernel": "search:16:8s2,sep5c8", "channels": "search:16:8s2,sep3c16", "stride": "search:16:8s2,sep3c8s2",
        "side": "search:32:8s2,sep3c8", "se": "search:16:8s2,sep3c8+se", "skip": "search:16:8s2,sep3c8+noskip",
        "inv": "search:16:8s2,inv3e1c8", "conv": "search:16:8s2,conv3c8", "usual": "search:16:8s2,sep3c8",
    }  # fmt: skip
    found = {name: words(numnet.describe(line))[1] for name, line in lines.items()}
    found["activation"] = words(numnet.describe(lines["usual"], activation="hswish"))[1]
    found["dtype"] = words(numnet.describe(lines["usual"], dtype="float64"))[1]
    assert len(set(found.values())) == len(found), found
    papers = [words(numnet.describe(name)) for name in numnet.models()]
    assert all(text for each in papers for text in each)


def machine():
    return {"host": "h", "processor": "p", "lanes": 8, "threads": 2, "numnet": "0"}


def made_up(net, seconds=None):
    """(layers, whole) of a machine on which a word of n letters takes n µs, and the rest 5 µs and 1 ns a parameter."""
    layers = [1e-6 * len(text) for text in words(net)]
    return layers, sum(layers) + 5e-6 + 1e-9 * sum(spec.size for spec in net.specs.values())


def test_a_net_is_the_sum_of_its_blocks_and_what_goes_with_its_parameters(few):
    table = Table(machine())
    for line in carriers(few, **OPTIONS):
        table.note(line, OPTIONS, "infer-1", *made_up(numnet.describe(line, **OPTIONS)))
    assert table.beyond("infer-1") == pytest.approx((5e-6, 1e-9), rel=0.01)
    for number in range(10):
        net = numnet.describe(few.draw(0, number), **OPTIONS)
        assert table.predict(net, "infer-1") == pytest.approx(made_up(net)[1], rel=1e-3)


@pytest.mark.parametrize("training", [False, True])
def test_the_carriers_hold_every_block_of_the_space(few, training):
    lines = carriers(few, training, **OPTIONS)
    held = {text for line in lines for text in words(numnet.describe(line, **OPTIONS), training)}
    for number in range(300):
        assert set(words(numnet.describe(few.draw(1, number), **OPTIONS), training)) <= held
    assert lines == carriers(few, training, **OPTIONS) and len(set(lines)) == len(lines)


def test_the_middle_of_several_nets_and_the_shorter_of_two_turns():
    table, net = Table(machine()), numnet.describe(LINE, **OPTIONS)
    layers = [1e-5] * len(net.layers)
    table.note(LINE, OPTIONS, "infer-1", layers, 1e-4)
    stem = words(net)[0]
    for seconds, other in ((3e-5, "search:16:8s2,sep3c8"), (2e-5, "search:16:8s2,sep5c8")):
        own = numnet.describe(other, **OPTIONS)
        table.note(other, OPTIONS, "infer-1", [seconds] * len(own.layers), 1e-3)
    assert table.blocks("infer-1")[stem] == 2e-5
    table.note("search:16:8s2,sep3c8", OPTIONS, "infer-1", [4e-6, 9, 9, 9], 9)
    assert table.blocks("infer-1")[stem] == 1e-5 and len(table.runs) == 3
    assert table.runs[1]["layers"] == [4e-6, 3e-5, 3e-5, 3e-5] and table.runs[1]["whole"] == 1e-3
    assert table.blocks("infer-16") == {} and stem in table.lacks(net, "infer-16")
    with pytest.raises(
        NumnetError, match=r"no time \(infer-16\) of \d+ of the net's blocks, such as '16×16×3 conv"
    ):
        table.predict(net, "infer-16")


@pytest.mark.parametrize("mode", ["infer-1", "infer-5", "train-4"])
def test_measuring_gives_a_time_to_every_layer_and_leaves_the_net_as_it_was(mode):
    net = numnet.build(LINE, classes=5)
    x = np.random.default_rng(0).standard_normal((2, 16, 16, 3), np.float32)
    before, kinds = net.predict(x), [type(layer).forward for layer in net.layers]
    layers, whole = measure(net, mode, rounds=2)
    assert len(layers) == len(net.layers) and min(*layers, whole) > 0
    assert all(layer.forward.__func__ is kind for layer, kind in zip(net.layers, kinds))
    if mode.startswith("infer"):
        assert np.array_equal(net.predict(x), before)


@pytest.mark.parametrize("images", [1, 5])
def test_the_steps_of_a_plan_belong_to_the_layers_in_their_order(images):
    """Else its times would be those of another net: the steps, each with its layer, give the same bits."""
    from numnet.inference.executor import Executor, Plan

    net = numnet.build(LINE, classes=5)
    x = np.random.default_rng(0).standard_normal((images, 16, 16, 3), np.float32)
    executor = Executor(net.layers, net.flat, net.flat_buffers)
    plan = Plan(executor, x.shape, x.dtype)
    executor.folded.refresh()
    for call, arguments in plan.steps_for(x):
        call(*arguments)
    assert np.array_equal(plan.output, net.predict(x))
    assert len(plan.owners) == len(plan.steps)
    assert list(dict.fromkeys(plan.owners)) == list(net.layers)


def test_a_table_is_written_read_and_completed(tmp_path, few):
    table, lines = Table.here(2), carriers(few, **OPTIONS)[:3]
    fill(table, lines[:2], ["infer-1", "infer-2"], **OPTIONS)
    table.write(tmp_path / "table.json")
    again = Table.read(tmp_path / "table.json")
    assert again.runs == table.runs and again.machine == table.machine and again.machine["threads"] == 2
    Table.here().write(tmp_path / "empty.json")
    assert Table.read(tmp_path / "empty.json").runs == []
    shown = json.loads((tmp_path / "table.json").read_text())["blocks"]
    assert again.blocks("infer-2") == table.blocks("infer-2") == pytest.approx(shown["infer-2"], rel=1e-3)
    count, told = len(again.runs), []
    fill(again, lines[:2], ["infer-1", "infer-2"], told.append, **OPTIONS)
    assert len(again.runs) == count and told == lines[:2], "nothing is timed twice"
    assert again.only("infer-1").modes == ["infer-1"]


def test_nets_that_were_timed_beside_other_work_are_timed_again(monkeypatch, few):
    """The first net, timed beside each, says when the machine was busy; the shorter times stay."""
    lines, clock = carriers(few, **OPTIONS)[:4], []
    busy = [1, 1.05, 2, 2, 1.5, 1]  # the third and fourth net are disturbed, the third one once more

    def seconds(net, mode, rounds=None):
        clock.append(str(net.config["model"]))
        return made_up(net)[1] * busy[len(clock) - 1]

    def measured(net, mode):
        layers, whole = made_up(net)
        return [seconds * busy[len(clock)] for seconds in layers], whole * busy[len(clock)]

    monkeypatch.setattr(latency, "measure", measured)
    monkeypatch.setattr(latency, "whole", seconds)
    monkeypatch.setattr(latency, "MORE", 1)
    table = Table(machine())
    assert fill(table, lines, ["infer-1"], **OPTIONS) == 1, "the third net had no calm moment"
    assert clock == [lines[0]] * 6, "always the same net"
    for run, factor in zip(table.runs, (1, 1.05, 1.5, 1), strict=True):
        exact = made_up(numnet.describe(run["net"], **OPTIONS))
        assert run["layers"] == pytest.approx([factor * each for each in exact[0]], rel=1e-3)
        assert run["whole"] == pytest.approx(factor * exact[1], rel=1e-3)
    busy[:] = [1] * 20
    clock.clear()
    assert fill(Table(machine()), lines, ["infer-1"], **OPTIONS) == 0 and len(clock) == 4


RUN = {"net": "search:8:8,sep3c8", "options": {}, "mode": "infer-1", "layers": [1], "whole": 1}
SOUND = {"format": 1, "machine": {}}
WHOLE = {**RUN, "layers": [1] * len(words(numnet.describe(RUN["net"])))}
CHANGES = ({"whole": None}, {"whole": "1"}, {"layers": [np.nan] * 4}, {"whole": -1}, {"whole": np.inf})


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"format": 1}']
    + [json.dumps({**SOUND, "nets": [run]}) for run in (3, RUN, {**RUN, "net": "x"}, {**RUN, "mode": "y"})]
    + [json.dumps({**SOUND, "nets": [{**WHOLE, **change}]}) for change in CHANGES],
)
def test_damaged_tables_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "table.json"
    path.write_text(content)
    with pytest.raises(NumnetError, match=r"table\.json: (not JSON|no table of times, or a damaged one)"):
        Table.read(path)
    with pytest.raises(NumnetError, match="no such table; `numnet latency` makes one"):
        Table.read(tmp_path / "none.json")


def test_two_processes_with_one_table_keep_both_measurements(tmp_path, few, monkeypatch):
    path, lines = tmp_path / "table.json", carriers(few, **OPTIONS)[:2]
    tables = [Table.here(), Table.here()]
    for table, line in zip(tables, lines):
        table.note(line, OPTIONS, "infer-1", *made_up(numnet.describe(line, **OPTIONS)))
        save(table, path)
    assert [run["net"] for run in Table.read(path).runs] == lines[::-1]


@pytest.mark.parametrize("key", ["processor", "lanes", "threads"])
def test_times_of_two_machines_are_not_merged(tmp_path, key):
    """The file became another machine's while this one measured."""
    path, other = tmp_path / "table.json", Table.here()
    other.machine = {**other.machine, key: 3}
    other.write(path)
    before = path.read_bytes()
    with pytest.raises(
        NumnetError, match=rf"table\.json: times of another machine \({key} 3, here .*expected a table"
    ):
        save(Table.here(), path)
    assert path.read_bytes() == before


def test_saving_again_works_out_only_what_another_process_has_measured(tmp_path, few, monkeypatch):
    """A table is saved after every few of hundreds of nets."""
    path, lines, described = tmp_path / "table.json", carriers(few, **OPTIONS)[:3], []
    times = {line: made_up(numnet.describe(line, **OPTIONS)) for line in lines}
    one, two = Table.here(), Table.here()

    def noted(line, **options):
        described.append(line)
        return numnet.describe(line, **options)

    monkeypatch.setattr(latency, "describe", noted)
    for table, line in ((one, lines[0]), (one, lines[1]), (two, lines[2])):
        table.note(line, OPTIONS, "infer-1", *times[line])
        save(table, path)
    described.clear()
    save(one, path)
    assert described == [lines[2]]
    described.clear()
    monkeypatch.setattr(Table, "read", None)  # whoever calls it fails: the file is as it was written
    one.note(lines[0], OPTIONS, "infer-1", *times[lines[0]])
    save(one, path)
    assert described == [] and json.loads(path.read_text())["nets"] == one.runs and len(one.runs) == 3


@pytest.mark.skipif(cli.fcntl is None, reason="Windows locks no folders")
def test_who_saves_waits_for_another_that_is_saving(tmp_path, few, monkeypatch):
    """The second one would read the table before the first has written it, and then take away what that wrote."""
    path, lines = tmp_path / "table.json", carriers(few, **OPTIONS)[:2]
    tables = [Table.here(), Table.here()]
    for table, line in zip(tables, lines):
        table.note(line, OPTIONS, "infer-1", *made_up(numnet.describe(line, **OPTIONS)))
    second, write = threading.Thread(target=save, args=(tables[1], path)), Table.write

    def slowly(table, path):
        if table is tables[0]:
            second.start()
            second.join(0.3)
            assert second.is_alive()
        write(table, path)

    monkeypatch.setattr(Table, "write", slowly)
    save(tables[0], path)
    second.join()
    assert [run["net"] for run in Table.read(path).runs] == lines[::-1]


@pytest.mark.skipif(cli.fcntl is None, reason="Windows locks no folders")
def test_a_folder_that_stays_locked_or_that_nobody_can_lock_is_written_to(tmp_path, few, monkeypatch):
    monkeypatch.setattr(cli, "PATIENCE", 2)
    with cli._alone(tmp_path):
        save(Table.here(), tmp_path / "one.json")
        turns = []
        monkeypatch.setattr(cli.time, "sleep", turns.append)
        save(Table.here(), tmp_path / "one.json")
        assert len(turns) == 1, "this process has waited once"
    monkeypatch.setattr(cli.fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(95, "no locks")))
    save(Table.here(), tmp_path / "two.json")
    assert Table.read(tmp_path / "one.json").runs == Table.read(tmp_path / "two.json").runs == []


def test_nets_without_a_calm_moment_are_said(tmp_path, few, monkeypatch, capsys):
    monkeypatch.setattr(latency, "fill", lambda table, lines, *more, **options: 3)
    complete(Table.here(), tmp_path / "table.json", few, ["infer-1"], OPTIONS, False)
    assert "3 of" in (said := capsys.readouterr().err) and "had no calm moment" in said


def test_modes():
    assert latency.mode_of("infer-16") == ("infer", 16) and latency.mode_of("train-64") == ("train", 64)
    for wrong in ("infer-0", "test-1", "infer", "infer-1x"):
        with pytest.raises(NumnetError, match="mode: expected infer-1"):
            latency.mode_of(wrong)
