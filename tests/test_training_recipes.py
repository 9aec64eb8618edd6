"""Recipes: ours are sound, layers merge as documented, and mistakes get one clear line."""

import json

import pytest

import numnet
from numnet.errors import NumnetError
from numnet.training import recipes, run
from numnet.training.loop import DEFAULTS
from numnet.training.recipes import load, merge

EXPECTED = {
    "shapes", "cifar10", "folder", "finetune_v3_large", "finetune_v3_small",
    "mnasnet_article", "mnasnet_paper", "mobilenet_v1_paper",
    "mobilenet_v2_paper", "mobilenet_v3_paper",
}  # fmt: skip


def test_names():
    assert EXPECTED <= set(recipes.names())


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_recipe_is_sound(name):
    """Complete by itself: laid over any other it leaves nothing of the other's training behind."""
    recipe = load(name)
    assert recipe["about"] and recipe["model"]["model"]
    other = {**DEFAULTS, "epochs": 7, "schedule": "step", "gamma": 0.5, "optimiser": "adamw", "beta1": 0.5}
    left = {key for key, value in merge(other, recipe).items() if value != merge(DEFAULTS, recipe)[key]}
    assert left <= {"about"}
    assert {"epochs", "batch_size", "optimiser", "lr", "schedule", "weight_decay", "augment"} <= set(recipe)


def test_the_article_and_the_papers():
    article = run.plan("cifar10", "mnasnet_article")
    assert (article["batch_size"], article["epochs"], article["optimiser"]) == (2048, 100, "adam")
    assert article["scaling"] == "unit" and article["augment"] is None and article["label_smoothing"] == 0
    assert (article["style"], article["schedule"]) == ("tensorflow", "constant")
    assert article["validation"] == "test"  # all 50,000 images are trained on: 25 steps of 2,048
    assert (
        article["model"]["strides"] == "imagenet" and "nesterov" not in article and "momentum" not in article
    )
    v2 = run.plan("cifar10", "mobilenet_v2_paper")
    assert (v2["lr"], v2["gamma"], v2["every"], v2["weight_decay"], v2["batch_size"]) == (
        0.045,
        0.98,
        1,
        4e-5,
        96,
    )
    v1 = run.plan("cifar10", "mobilenet_v1_paper", {"model": {"width": 0.5}, "epochs": 2})
    assert v1["decay_depthwise"] is False and v1["epochs"] == 2
    assert v1["model"] == {
        "model": "mobilenet_v1", "width": 0.5, "resolution": 32, "strides": "cifar", "seed": 0
    }  # fmt: skip


def test_a_recipe_brings_its_net_s_resolution():
    """Photographs have no size of their own; CIFAR-10's images have."""
    sides = {}
    for name in ("mobilenet_v3_paper", "finetune_v3_small", "finetune_v3_large", "mnasnet_article"):
        sides[name] = run.plan("photos", name)["model"]["resolution"]
    assert list(sides.values()) == [224, 224, 224, 32]
    assert (
        run.plan("photos", "mobilenet_v3_paper", {"model": {"resolution": 96}})["model"]["resolution"] == 96
    )
    assert run.plan("cifar10", "mobilenet_v3_paper")["model"]["resolution"] == 32
    assert run.plan("photos")["model"]["resolution"] == 128  # no recipe named: the folder's own
    assert run.plan("photos", flags={"model": {"model": "mobilenet_v2"}})["model"]["resolution"] == 128


def test_default_recipe_belongs_to_the_data_set():
    assert [recipes.default(name) for name in ("cifar10", "shapes", "photos/dogs")] == [
        "cifar10",
        "shapes",
        "folder",
    ]


def test_later_layers_win_key_by_key():
    merged = merge(
        {
            "about": "a",
            "epochs": 3,
            "lr": 0.1,
            "model": {"model": "mobilenet_v1", "width": 0.5},
            "augment": {"crop": 4},
        },
        {"about": "b", "lr": 0.2, "model": {"width": 0.25}, "augment": {"flip": True}},
        {"epochs": 9},
    )
    assert merged == {
        "epochs": 9, "lr": 0.2, "model": {"model": "mobilenet_v1", "width": 0.25},
        "augment": {"crop": 4, "flip": True},
    }  # fmt: skip
    assert merge(merged, {"augment": None})["augment"] is None
    assert merge({"augment": None}, {"augment": {"crop": 2}})["augment"] == {"crop": 2}


def test_what_belongs_to_one_optimiser_goes_with_it():
    base = {
        "optimiser": "sgd",
        "lr": 0.2,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "epochs": 3,
    }
    assert merge(base, {"optimiser": "adam"}) == {"optimiser": "adam", "epochs": 3}
    assert merge(base, {"optimiser": "sgd", "lr": 0.1}) == {**base, "lr": 0.1}
    assert merge(base, {"optimiser": "rmsprop", "momentum": 0.5}) == {
        "optimiser": "rmsprop", "momentum": 0.5, "epochs": 3
    }  # fmt: skip


def test_what_belongs_to_one_schedule_goes_with_it():
    base = {"schedule": "exponential", "gamma": 0.97, "every": 2.4, "warmup": 5, "lr": 1}
    assert merge(base, {"schedule": "cosine"}) == {"schedule": "cosine", "lr": 1}
    assert merge(base, {"warmup": 1}) == {**base, "warmup": 1}


def test_what_belongs_to_one_model_goes_with_it():
    base = {"model": {"model": "mobilenet_v1", "width": 0.5, "strides": "cifar", "separable": False}}
    assert merge(base, {"model": {"model": "mobilenet_v2"}}) == {
        "model": {"model": "mobilenet_v2", "width": 0.5, "strides": "cifar"}
    }
    assert merge(base, {"model": {"width": 1.0}})["model"] == {**base["model"], "width": 1.0}
    named = merge(base, {"model": {"model": "mobilenet_v1", "width": 1.0}})["model"]
    assert named == {"model": "mobilenet_v1", "width": 1.0, "strides": "cifar"}, (
        "the paper's own, since it was named"
    )


def test_who_names_a_model_gets_images_of_one_size():
    base = {"model": {"model": "mobilenet_v1"}, "progressive": [[0.5, 0.5]]}
    assert merge(base, {"epochs": 3})["progressive"] == [[0.5, 0.5]]
    assert merge(base, {"model": {"width": 0.5}})["progressive"] == [[0.5, 0.5]]
    assert "progressive" not in merge(base, {"model": {"model": "vgg16"}})
    again = {"model": {"model": "vgg16"}, "progressive": [[0.75, 0.5]]}
    assert merge(base, again)["progressive"] == [[0.75, 0.5]]


def test_a_model_without_widths_gets_none():
    base = {"model": {"model": "mobilenet_v1", "width": 0.25, "resolution": 32, "strides": "cifar"}}
    for model, strides in (("googlenet", {"strides": "cifar"}), ("vgg16", {})):
        merged = merge(base, {"model": {"model": model}})["model"]
        assert merged == {"model": model, "resolution": 32, **strides}
        assert numnet.describe(classes=10, **merged).classes == 10
    with pytest.raises(NumnetError, match="width: googlenet has no such choice"):
        numnet.describe(**merge(base, {"model": {"model": "googlenet", "width": 0.5}})["model"])


def test_the_warm_up_keeps_its_share():
    base = {"epochs": 30, "warmup": 2}
    assert merge(base, {"epochs": 15}) == {"epochs": 15, "warmup": 1}
    assert merge(base, {"epochs": 15, "warmup": 2}) == {"epochs": 15, "warmup": 2}
    assert merge({"warmup": 2}, {"epochs": 15}) == {"epochs": 15, "warmup": 2}
    assert merge({"epochs": 30, "warmup": None}, {"epochs": 1}) == {"epochs": 1, "warmup": None}
    assert merge({**base, "schedule": "linear"}, {"epochs": 3, "schedule": "step"}) == {
        "epochs": 3, "schedule": "step"
    }  # fmt: skip
    assert run.plan("cifar10", None, {"epochs": 1})["warmup"] < 1


def test_layers_are_not_changed():
    layers = [
        {"model": {"width": 1.0}, "augment": {"crop": 4}},
        {"model": {"width": 0.5}, "augment": {"crop": 2}},
    ]
    before = json.dumps(layers)
    merge(*layers)
    assert json.dumps(layers) == before


def test_every_keyword_of_build_may_stand_in_a_recipe():
    model = {
        "width": 0.5, "resolution": 32, "classes": 10, "padding": "same", "strides": "cifar", "variant": "keras",
        "dropout": 0.1, "bn_eps": 1e-3, "bn_momentum": 0.9, "dtype": "float32", "seed": 3, "separable": False,
        "depth_multiplier": 1, "shallow": True, "activation": "relu", "se": True, "bottleneck_activation": "relu",
        "skip": False, "kernel": 5,
    }  # fmt: skip
    assert recipes.check({"model": model}, "here")["model"] == model


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"epochs": 2, "model": {"width": 0.25}}')
    assert load(str(path)) == {"epochs": 2, "model": {"width": 0.25}}
    assert run.plan("shapes", path)["epochs"] == 2


BAD = {
    "unknown key": ('{"epocs": 3}', r"unknown key 'epocs' \(did you mean epochs\?\)"),
    "far away": ('{"zzz": 3}', "unknown key 'zzz'$"),
    "model key": ('{"model": {"widht": 1}}', r"unknown key 'widht' of model \(did you mean width\?\)"),
    "model of another": ('{"model": {"size": "large"}}', "unknown key 'size' of model"),
    "model text": ('{"model": "mobilenet_v1"}', 'model is "mobilenet_v1"; expected an object like'),
    "value": ('{"epochs": "three"}', 'epochs is "three"; expected an integer ≥ 1'),
    "true is no number": ('{"epochs": true}', "epochs is true; expected an integer"),
    "negative": ('{"lr": -1}', "lr is -1; expected a number > 0 or null"),
    "infinite": ('{"lr": Infinity}', "lr is Infinity; expected"),
    "momentum": ('{"momentum": 1.0}', "momentum is 1.0; expected a number ≥ 0 and < 1"),
    "schedule": ('{"schedule": "cosin"}', 'schedule is "cosin"; expected one of constant, linear'),
    "milestones": ('{"milestones": 3}', "milestones is 3; expected a list of epochs"),
    "switch": ('{"nesterov": 1}', "nesterov is 1; expected true or false"),
    "augment": ('{"augment": {"rotate": 3}}', "unknown augmentation 'rotate'"),
    "augment value": ('{"augment": {"flip": "yes"}}', "flip expects true, false or .*, got 'yes'"),
    "augment number": ('{"augment": {"mixup": 2}}', "mixup expects a number from 0 to 1, got 2"),
    "augment list": ('{"augment": ["crop"]}', r"augment is \[\"crop\"\]; expected an object"),
    "scaling": ('{"scaling": "imagnet"}', 'scaling is "imagnet"; expected one of dataset'),
    "a list": ("[1]", r"expected an object \{…\}, got \[1\]"),
    "not JSON": ("{epochs: 3}", "not JSON"),
    "not text": (b"\xff\xfe\x00", "not JSON"),
    "long value": ('{"optimiser": "%s"}' % ("x" * 500), "optimiser is \"xxx.*…; expected one of sgd"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_mistakes(tmp_path, case):
    content, message = BAD[case]
    path = tmp_path / "bad.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(NumnetError, match=message) as caught:
        load(str(path))
    text = str(caught.value)
    assert text.startswith(f"recipe {path}: ") and "\n" not in text


def test_unknown_names(tmp_path):
    with pytest.raises(
        NumnetError, match=r"unknown recipe 'cifar' \(did you mean cifar10\?\); expected a JSON file"
    ):
        load("cifar")
    with pytest.raises(NumnetError, match=r"recipe .*none\.json: no such file"):
        load(str(tmp_path / "none.json"))
    with pytest.raises(NumnetError, match="options: unknown key 'epoch'"):
        run.plan("shapes", None, {"epoch": 3})
