"""Nets in one line, the space they are drawn from, the reward, and which net is tried next."""

import numpy as np
import pytest

import numnet
from numnet.errors import NumnetError
from numnet.models import describe, searched
from numnet.search import blocks, space
from numnet.search.evolution import choose, propose
from numnet.search.front import front
from numnet.search.reward import reward
from numnet.search.space import SPACES, Reference, Space

LINE = "search:16:8s2,sep3c8x2,inv5e3c16s2+se,conv3c16x2+noskip"
each_space = pytest.mark.parametrize("name", SPACES)

# ------------------------------------------------------------------------------------------------- lines


@pytest.mark.parametrize("line", [LINE, LINE + ",40", "search:224:32,inv3e1c8", searched.EXAMPLE])
def test_a_line_is_read_and_written(line):
    assert str(searched.parse(line)) == line


def test_ones_may_be_written_and_are_not_kept():
    assert str(searched.parse("search:16:8s1,sep3c8x1s1+noskip")) == "search:16:8,sep3c8+noskip"


def test_the_net_of_a_line():
    """Layer by layer: kinds, shapes, additions where stride and channels allow them, squeezes of a quarter of the input."""
    net = numnet.describe(LINE, classes=5)
    assert net.input_shape == (16, 16, 3) and net.config["model"] == LINE
    blocks = {layer.name: layer for layer in net.layers}
    assert list(blocks) == ["stem", "block1", "block2", "block3", "block4", "block5", "pool", "logits"]
    kinds = {name: [child.kind for child in layer.children] for name, layer in blocks.items()}
    assert kinds["block1"] == ["depthwise", "pointwise"]
    assert kinds["block3"] == ["pointwise", "depthwise", "squeeze-excite", "pointwise"]
    assert kinds["block4"] == kinds["block5"] == ["conv"]
    adds = [getattr(blocks[f"block{n}"], "adds", False) for n in range(1, 6)]
    assert adds == [True, True, False, False, False]
    expand, depthwise, se, _ = blocks["block3"].children
    assert (expand.filters, depthwise.kernel, depthwise.stride, se.squeezed) == (24, 5, 2, 2)
    assert blocks["block5"].output_shape == (4, 4, 16) and net.output_shape == (5,)
    weights = {name: spec.shape for name, spec in net.specs.items() if name.endswith("weight")}
    assert weights["block4.conv.weight"] == (3, 3, 16, 16) and weights["logits.weight"] == (16, 5)
    assert [layer.name for layer in numnet.describe(LINE + ",40").layers][-3:] == ["last", "pool", "logits"]


def test_options_of_build_apply_to_lines():
    net = numnet.build(LINE, classes=3, resolution=12, activation="hswish", width=2, seed=4)
    assert net.input_shape == (12, 12, 3) and net.predict(np.zeros((2, 12, 12, 3), np.float32)).shape == (
        2,
        3,
    )
    assert net.layers[0].activation == "hswish" and net.layers[0].filters == 16
    for options, words in (
        ({"kernel": 5}, "kernel: a net in one line has no such choice"),
        ({"rows": []}, "no option"),
    ):
        with pytest.raises(NumnetError, match=words):
            numnet.build(LINE, **options)


def test_what_a_line_says_itself_is_no_option():
    for option in ({"kernel": 5}, {"strides": "cifar"}):
        with pytest.raises(NumnetError, match="a net in one line has no such choice"):
            numnet.describe("search:32:16s2,sep3c24", **option)


def test_gradients_and_a_checkpoint(tmp_path):
    net = numnet.build(
        "search:8:4,sep3c4,conv3c4,inv3e2c6s2+se", classes=2, dtype="float64", activation="hswish"
    )
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3))
    numnet.check_gradients(net, x)
    net.save(tmp_path / "net.safetensors")
    again = numnet.load(tmp_path / "net.safetensors")
    assert again.config == net.config and np.array_equal(again.predict(x), net.predict(x))


@pytest.mark.parametrize(
    "line, words",
    [
        ("search:", "expected a line such as search:32"),
        ("search:0:8,sep3c8", "expected a line such as"),
        ("search:32:8", "expected 1 to 100 stages"),
        ("search:32:8,40", "expected 1 to 100 stages"),
        ("search:32:x,sep3c8", "'x': expected the stem's channels"),
        ("search:32:8,dep3c8", "'dep3c8': expected a stage such as"),
        ("search:32:8,sep3", "'sep3': expected a stage"),
        ("search:32:8,inv3c8", "'inv3c8': expected a stage"),
        ("search:32:8,conv3c8+se", "a standard convolution has none here"),
        ("search:32:8,sep3c8+se+se", "each of [+]se and [+]noskip once"),
        ("search:32:8,sep3c0", "numbers from 1 to 16384, and 0 is none"),
        ("search:32:8,sep3c20000", "20000 is none"),
        ("search:32:8,sep99c8", "numbers from 1 to 31"),
        ("search:32:8,sep3c8,", "'': expected a stage"),
    ],
)
def test_wrong_lines_say_what_is_wrong(line, words):
    with pytest.raises(NumnetError, match=words) as caught:
        numnet.describe(line)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------- the space


@each_space
def test_what_is_drawn_lies_in_the_space_and_builds(name):
    chosen = SPACES[name]
    for number in range(20):
        line = chosen.draw(7, number)
        net = searched.parse(line)
        chosen.require(net)
        assert str(net) == line and all(row in chosen.rows(i) for i, row in enumerate(net.rows))
        if number < 3:
            numnet.describe(line).cost()
    assert chosen.draw(7, 3) == chosen.draw(7, 3) != chosen.draw(8, 3)


@each_space
def test_a_change_changes_one_choice(name):
    chosen = SPACES[name]
    for number in range(40):
        line = chosen.draw(0, number)
        before, after = searched.parse(line), searched.parse(chosen.mutate(line, 1, number))
        chosen.require(after)
        changed = [(a, b) for a, b in zip(before.rows, after.rows) if a != b]
        assert len(changed) == 1
        a, b = (row._asdict() for row in changed[0])
        fields = {key for key in a if a[key] != b[key]}
        # a standard convolution has no squeeze-and-excite: with the kind it may go too
        assert len(fields) == 1 or fields <= {"kind", "t", "se"}


def test_every_choice_is_drawn_and_reached_by_changes():
    """Else a search could not find it."""
    chosen = SPACES["32"]
    start = "search:32:32s2,sep3c32,sep3c48,sep3c64x2s2,sep3c96x2,sep3c160s2"  # se is nothing for a conv
    for change in (chosen.draw, lambda seed, number: chosen.mutate(start, seed, number)):
        rows = [searched.parse(change(3, number)).rows for number in range(300)]
        for stage in range(len(chosen.stages)):
            for field, values in chosen.choices(stage).items():
                seen = {
                    (r[stage].kind, r[stage].t) if field == "kind" else getattr(r[stage], field) for r in rows
                }
                assert seen >= set(values), (stage, field)


def test_the_size_is_the_number_of_different_nets(monkeypatch):
    monkeypatch.setattr(space, "KINDS", (("conv", 1), ("sep", 1)))
    small = Space(side=16, stem=8, stem_stride=2, stages=(Reference(c=16, n=1, s=1),))
    assert small.choices(0)["c"] == (16, 24) and small.choices(0)["n"] == (1, 2)
    # kernels 2 × skip 2 × (a conv, a sep, a sep with se) × channels 2 × repeats 2
    assert small.size == 48 == len({small.draw(0, n) for n in range(2000)})
    assert small._replace(stages=small.stages * 2).size == 48**2


def test_nets_of_another_space_are_refused():
    chosen = SPACES["32"]
    line = chosen.draw(0, 0)
    for other in (
        SPACES["224"].draw(0, 0),
        line + ",64",
        line.replace("search:32:32s2", "search:32:24s2"),
        LINE,
    ):
        with pytest.raises(NumnetError, match=r"not a net of the space|is no choice of stage"):
            chosen.mutate(other, 0, 0)
    with pytest.raises(NumnetError, match="expected one of small, 32, 224"):
        space.space_named("33")


# ------------------------------------------------------------------------------------------------- reward, front


def test_the_papers_two_rewards():
    """Tan et al. 2019, section 3.1: double the time is worth 5 % of accuracy, and equal rewards by their example."""
    assert reward(0.75, 2e-3, 2e-3) == 0.75 == reward(0.75, 2e-3, 2e-3, "hard")
    assert reward(0.5 * 1.05, 4e-3, 2e-3) == pytest.approx(reward(0.5, 2e-3, 2e-3), rel=1e-3)
    assert reward(0.5, 1e-3, 2e-3, "hard") == 0.5 and reward(0.5, 4e-3, 2e-3, "hard") == 0.25
    assert reward(0.5, 1e-3, 2e-3) > 0.5
    for words, arguments in (("expected one of soft, hard", (0.5, 1, 1, "x")), ("above 0", (0.5, 0, 1))):
        with pytest.raises(NumnetError, match=words):
            reward(*arguments)


def records(*points):
    return [{"number": n, "latency": t, "accuracy": a} for n, (t, a) in enumerate(points)]


def test_the_front_is_what_nothing_beats():
    found = front(records((2, 0.5), (1, 0.4), (3, 0.5), (2, 0.6), (4, 0.7), (4, 0.7), (0.5, 0.1), (1.5, 0.4)))
    assert [record["number"] for record in found] == [6, 1, 3, 4]
    points = np.random.default_rng(0).random((60, 2))
    kept = {record["number"] for record in front(records(*points))}
    for n, (t, a) in enumerate(points):
        beaten = any(t2 <= t and a2 >= a and (t2, a2) != (t, a) for t2, a2 in points)
        assert (n in kept) == (not beaten)


# ------------------------------------------------------------------------------------------------- what is tried next


def history(count, rewards=None):
    found = []
    for number in range(count):
        line = SPACES["32"].draw(0, 100, number)
        found.append({"number": number, "net": line, "reward": (rewards or {}).get(number, 0.1)})
    return found


KEYWORDS = {"seed": 0, "population": 4, "sample": 2, "fits": lambda line: True}


def test_the_first_nets_of_both_methods_are_the_same_random_ones():
    for count in range(4):
        both = {
            propose(SPACES["32"], method, history(count), **KEYWORDS) for method in ("evolution", "random")
        }
        assert len(both) == 1 and next(iter(both))[1] is None


def test_a_child_differs_from_its_parent_in_one_stage_and_random_search_has_none():
    before = history(9)
    line, parent = propose(SPACES["32"], "evolution", before, **KEYWORDS)
    rows, own = searched.parse(line).rows, searched.parse(before[parent]["net"]).rows
    assert sum(a != b for a, b in zip(rows, own)) == 1 and parent >= 5
    assert propose(SPACES["32"], "random", before, **KEYWORDS)[1] is None


def test_the_old_die_however_good_they_were():
    """With everybody in the sample the best of the youngest P is the parent; net 0, the best of all, is not among them."""
    before = history(9, {0: 0.9, 4: 0.8, 6: 0.5})
    assert choose(before, seed=0, population=5, sample=5) == 4
    assert choose(before, seed=0, population=4, sample=4) == 6
    assert choose(history(9), seed=0, population=4, sample=4) == 8
    smaller = {choose(history(20, {17: 0.5}), seed, 5, 2) for seed in range(60)}
    assert 17 in smaller and len(smaller) > 1, "a sample does not always hold the best"


def test_a_net_in_two_spellings_is_one_net():
    line = "search:32:16s2,conv3c16,sep3c24s2+noskip,inv3e3c40+noskip,inv3e3c40x2+noskip"
    assert searched.plain(line) == "search:32:16s2,conv3c16,sep3c24s2,inv3e3c40,inv3e3c40x2+noskip"
    for space_ in SPACES.values():
        for seed in range(20):
            drawn = space_.draw(seed)
            a, b = (describe(text, classes=10) for text in (drawn, searched.plain(drawn)))
            assert blocks.words(a) == blocks.words(b)


def test_evolution_tries_no_net_in_two_spellings():
    space_, found = SPACES["small"], []
    for number in range(40):
        line, parent = propose(space_, "evolution", found, **{**KEYWORDS, "seed": 3})
        found.append({"number": number, "net": line, "parent": parent, "reward": (7 * number) % 11})
    assert len({searched.plain(record["net"]) for record in found}) == 40


def test_nothing_is_tried_twice_and_nothing_that_is_too_slow():
    space_, before = SPACES["32"], history(6)
    first, _ = propose(space_, "evolution", before, **KEYWORDS)
    other, _ = propose(space_, "evolution", [*before[:-1], {**before[-1], "net": first}], **KEYWORDS)
    assert other != first
    banned = {first}
    again, _ = propose(space_, "evolution", before, **{**KEYWORDS, "fits": lambda line: line not in banned})
    assert again != first
    for method in ("evolution", "random"):
        with pytest.raises(NumnetError, match="none of 200 random nets"):
            propose(space_, method, before, **{**KEYWORDS, "fits": lambda line: False})
