"""--budget: how many epochs, of which recipe. No time that is measured here means anything; the arithmetic does."""

import json

import pytest
import training_fakes as fakes
from cli_tools import TINY, numnet, works, write_images

from numnet import checkpoint, describe
from numnet.errors import NumnetError
from numnet.loading import PACKAGED
from numnet.training import budget, recipes
from numnet.training.progressive import sides_of


@pytest.mark.parametrize("text, wanted", [("90s", 90), ("15min", 900), ("1.5h", 5400), ("2 min", 120)])
def test_times(text, wanted):
    assert budget.seconds(text) == wanted


@pytest.mark.parametrize("text", ["", "15", "min", "-1min", "0s", "15 minutes", "1e3s", "nan"])
def test_what_is_no_time(text):
    with pytest.raises(NumnetError, match=r"--budget: expected a time like 90s, 15min or 1.5h, got"):
        budget.seconds(text)


def test_sides():
    assert sides_of(8, [[0.625, 0.5]], 32) == [20] * 4 + [32] * 4
    assert sides_of(3, [], 32) == [32] * 3
    assert sides_of(10, [[0.5, 0.4], [0.75, 0.3]], 32) == [16] * 4 + [24] * 3 + [32] * 3


def test_as_many_epochs_as_fit():
    merged = {"model": {"resolution": 32}, "progressive": [[0.625, 0.5]]}
    cost = {32: 10.0, 20: 4.0, 0: 1.0}  # an epoch, an epoch of smaller images, its validation
    for seconds in (10, 16, 20.9, 21, 60, 61, 500):
        epochs = budget.fitting(merged, cost, seconds)

        def total(count):
            return sum(cost[side] + 1 for side in sides_of(count, [[0.625, 0.5]], 32))

        assert total(epochs) <= seconds < total(epochs + 1)
    assert budget.fitting(merged, cost, 3) == 0


@pytest.fixture
def costs(monkeypatch):
    """An epoch takes so many seconds in each recipe; the list says which ones were timed."""
    timed = []
    seconds = dict(zip(budget.LADDER["cifar10"], (10.0, 20.0, 30.0, 60.0, 60.0)))

    def measure(dataset, merged, progress, reading):
        keys = ("epochs", "batch_size")  # no two of them have both the same
        name = next(n for n in seconds if all(recipes.load(n)[key] == merged[key] for key in keys))
        timed.append(name)
        return {32: seconds[name], 20: seconds[name], 0: 0.0}

    monkeypatch.setattr(budget, "measure", measure)
    return timed


def test_the_longest_recipe_that_fits(costs):
    epochs = {name: recipes.load(name)["epochs"] for name in budget.LADDER["cifar10"]}
    first, second, *_ = budget.LADDER["cifar10"]
    short = budget.choose("cifar10", 10.0 * epochs[first] + 5)
    assert short[:2] == (first, epochs[first]) and costs == [first, second]
    assert "10.0 s at 32×32" in short[2] and first in short[2]
    long = budget.choose("cifar10", 3 * 60.0 * epochs["cifar10_hour"])
    assert long[:2] == ("cifar10_hour", 3 * epochs["cifar10_hour"])
    nearly = budget.choose("cifar10", 30.0 * (0.9 * epochs["cifar10"]) + 1)  # ENOUGH of its epochs
    assert nearly[:2] == ("cifar10", int(0.9 * epochs["cifar10"]))


def test_little_time_shortens_the_shortest_recipe(costs):
    name, epochs, line = budget.choose("cifar10", 25.0)
    assert (name, epochs) == ("cifar10_five_minutes", 2) and line.startswith("2 epochs of the recipe")
    with pytest.raises(
        NumnetError, match=r"--budget: an epoch takes .* on this machine; expected at least 10s"
    ):
        budget.choose("cifar10", 9.0)


@pytest.mark.parametrize(
    "flags",
    [
        {"model": {"skip": False}},
        {"model": {"separable": False}},
        {"model": {"kernel": 5}},
        {"freeze": "block2"},
    ],
    ids=str,
)
def test_a_recipe_whose_net_lacks_what_is_asked_for_is_passed_over(costs, flags):
    """The user named no such net; what the first one lacks is an error."""
    first, plain, third, *_ = budget.LADDER["cifar10"]
    name, epochs, _ = budget.choose("cifar10", 30.0 * recipes.load("cifar10")["epochs"], flags=flags)
    assert (name, epochs) == (third, recipes.load(third)["epochs"])
    assert costs[:2] == [first, third] and plain not in costs
    costs.clear()
    budget.choose("cifar10", 1e6, flags={"model": {"width": 0.5}})
    assert costs[:2] == [first, plain]


def test_a_named_recipe_or_model_is_kept(costs):
    assert budget.choose("cifar10", 65.0, recipe="cifar10")[:2] == ("cifar10", 2)
    assert costs == ["cifar10"]


@pytest.mark.parametrize(
    "setting, words",
    [
        ("quantise", "--budget: times a training in floats; expected --epochs for one in eight bits"),
        ("exact", "--budget: times the steps of one process; expected no --exact, or --epochs"),
    ],
)
def test_what_is_not_timed_is_refused_as_an_option_and_in_a_recipe(setting, words, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "measure", lambda *_: {32: 1.0, 0: 0.0})
    recipe, start = tmp_path / "mine.json", describe("mobilenet_v2", width=0.25, resolution=32)
    recipe.write_text(json.dumps({setting: True}))
    for given in ({"recipe": recipe}, {"flags": {setting: True}}):
        with pytest.raises(NumnetError, match=words):
            budget.choose("shapes", 60, start=start, **given)
    init = ["--init", PACKAGED] if setting == "quantise" else []
    code, out, err = numnet("train", "shapes", "--budget", "1h", f"--{setting}", "--quiet", *init)
    assert code == 2 and not out and words in err and err.count("\n") == 1


def test_a_batch_is_timed_in_the_parts_that_it_is_trained_in(monkeypatch):
    seen = []

    class Noted(fakes.Center):
        def forward(self, x, training):
            if training:
                seen.append(len(x))
            return super().forward(x, training)

    monkeypatch.setattr(budget, "data_of", lambda *_: fakes.make_data())
    monkeypatch.setattr(budget, "build", lambda **_: fakes.make_net(Noted))
    recipe = {"model": {}, "epochs": 1, "batch_size": 50, "accumulate": 5, "augment": None}
    cost = budget.measure("quarters", recipe, progress=False)
    assert set(seen) == {10} and len(seen) > 5 * budget.STEPS and cost[6] > 0


@pytest.mark.parametrize("sides", [[24, 16], (16, 24)])
def test_images_that_are_not_square(tmp_path, monkeypatch, sides):
    """Measured for real but for the steps: as many epochs as fit, with both sides named."""
    write_images(tmp_path / "photos")
    monkeypatch.setattr(budget, "_step_seconds", lambda *_: 2.5)
    monkeypatch.setattr(budget, "_predict_seconds", lambda *_: 0.0)
    flags = {
        "model": {"width": 0.125, "resolution": sides, "shallow": True},
        "batch_size": 32,
        "validation": 6,
    }
    _, epochs, line = budget.choose(tmp_path / "photos", 26, flags=flags, progress=False)
    assert epochs == 10 and line.endswith(f": an epoch takes 2.5 s at {sides[0]}×{sides[1]}")
    with pytest.raises(NumnetError, match=f"an epoch takes 2.5 s at {sides[0]}×{sides[1]} on this machine"):
        budget.choose(tmp_path / "photos", 2, flags=flags, progress=False)
    with pytest.raises(
        NumnetError, match=r"^progressive: is for square images, this net takes .*; expected none"
    ):
        budget.choose(tmp_path / "photos", 26, flags={**flags, "progressive": [[0.625, 0.5]]}, progress=False)


def test_the_epochs_stand_in_the_run(tmp_path, monkeypatch):
    """Timed for real, on a tiny net; the run and its resuming know the epochs, and nothing is timed again."""
    write_images(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    common = ["train", "photos", *TINY, "--batch-size", 12, "--validation", 6, "--warmup", 0]
    kept, fitting = [], budget.fitting

    def capped(merged, cost, seconds):
        kept.append((cost, seconds))
        return min(fitting(merged, cost, seconds), 2)

    monkeypatch.setattr(budget, "fitting", capped)
    facts = json.loads(works(*common, "--budget", "1h", "--out", "run", "--json", "--quiet"))
    (cost, seconds) = kept[0]
    assert facts["epochs"] == 2 and seconds == 3600 and set(cost) == {16, 0}
    assert 0 < cost[16] < 3600 and 0 < cost[0] < 3600
    assert checkpoint.read_meta("run/last.safetensors")["recipe"]["epochs"] == 2
    monkeypatch.setattr(budget, "measure", None)  # whoever calls it fails
    assert json.loads(works("train", "--resume", "run", "--json"))["epochs"] == 2
    for wrong, words in (
        (["--budget", "soon"], "--budget: expected a time"),
        (["--budget", "1h", "--epochs", 3], "--budget: chooses the number of epochs; expected no --epochs"),
    ):
        code, out, err = numnet(*common, *wrong)
        assert code == 2 and words in err and not out
    code, _, err = numnet("train", "--resume", "run", "--budget", "1h")
    assert code == 2 and "expected no --budget" in err
