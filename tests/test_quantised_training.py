"""Training for eight bits: the straight-through rule, the folded gradients, what training sees, and whole runs."""

import json

import numpy as np
import pytest
import training_fakes as fakes
from cli_tools import numnet, works, write_images
from test_quantised import branched, net_of
from test_weights import random_net

import numnet as library
from numnet import checkpoint, fit, quantised
from numnet.errors import NumnetError
from numnet.kernels import eight_bits, fake, pooling
from numnet.quantised import FakeQuantised, trainable
from numnet.quantised.steps import trace


def some(net, count=16, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *net.input_shape)).astype(net.dtype)


# --- the net ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["mobilenet_v2", "mobilenet_v3_small", "plain_3x3", "branched"])
def test_training_sees_the_net_of_eight_bits(model):
    """Map by map on the same inputs; over whole nets differences could spread, on these there are hardly any."""
    net = net_of(model)
    x = some(net)
    net.fake = FakeQuantised.of(net, x)
    logits = net.forward(x, training=True)
    whole, maps = net.fake.whole(), net.fake.kept[2]
    want = whole.maps(eight_bits.quantise(x, whole.grid))
    equal = []
    for real, q, grid in zip(maps, want, whole.grids):
        if grid is not None:
            steps = np.rint(real / grid.scale) + grid.zero - q
            assert np.abs(steps).max() <= 1
            equal.append((steps == 0).mean())
    assert min(equal) >= 0.999
    assert np.abs(logits - whole.predict(x)).max() <= 0.01 * np.abs(logits).max()
    assert not np.allclose(logits, net.predict(x), rtol=0, atol=1e-6), "and it is not the float net"


def test_training_sees_each_step_of_googlenet():
    """Each step on what training has made before it: over eighty of them, rare differences spread."""
    net = net_of("googlenet")
    x = some(net)
    net.fake = FakeQuantised.of(net, x, "minmax")
    net.forward(x, training=True)
    whole, maps = net.fake.whole(), net.fake.kept[2]
    whole.prepare()
    eights = [
        (np.rint(real / grid.scale) + grid.zero).astype(np.uint8)
        for real, grid in zip(maps, whole.grids[:-1])
    ]
    for number, step in enumerate(whole.steps[:-1]):
        y = np.empty((len(x), *step.shape), np.uint8)
        got = whole._step(number, step, [eights[i] for i in step.reads], y).astype(int)
        apart = np.abs(got - eights[number + 1])
        assert apart.max() <= (step.kind != "maximum") and (apart == 0).mean() >= 0.999, step.name


@pytest.fixture
def smooth(monkeypatch):
    """A function that takes all rounding out of the training of a net; relu stays, where a map has no number below 0."""

    def forward(x, bias, ends, out=None):
        return np.maximum(x + bias, 0) if ends.lowest == 0 else x + bias

    def backward(dy, x, bias, ends):
        dx = np.where((x + bias > 0) | (ends.lowest != 0), dy, 0)
        return dx, dx.reshape(-1, dx.shape[-1]).sum(axis=0), 0.0

    def numbers(real):
        def found(eight, x, kind):
            step = next(step for step in real if (step.name, step.kind) == (eight.name, eight.kind))
            if step.weight is None:
                return None, np.zeros(eight.shape[-1], kind)
            return np.ascontiguousarray(step.weight, kind), step.bias.astype(kind)

        return found

    def apply(net):
        monkeypatch.setattr(fake, "fake_forward", forward)
        monkeypatch.setattr(fake, "fake_backward", backward)
        monkeypatch.setattr(trainable, "quantise", lambda x, grid: x)
        monkeypatch.setattr(trainable, "dequantise", lambda x, grid, kind: x)
        monkeypatch.setattr(trainable, "_numbers", numbers(trace(net)))

    return apply


@pytest.mark.parametrize("model", ["mobilenet_v2", "mobilenet_v3_small", "plain_3x3", "branched"])
def test_gradients_through_folded_norms(model, smooth):
    """Without rounding all gradients are true: finite differences in float64 along random ways, of weights and images."""
    net = net_of(model, dtype="float64", activation="swish")
    gain = 1 if model == "plain_3x3" else 2.5  # else little of the images comes through so many swishes
    for name, array in net.params.items():
        array *= gain if name.endswith("gamma") else 1
    x, draw = some(net, 16), np.random.default_rng(1)
    net.fake, x = FakeQuantised.of(net, x), x[:2]
    smooth(net)
    logits = net.forward(x, training=True)
    assert np.abs(logits - net.forward(x)).max() <= 1e-9 * np.abs(logits).max(), "running statistics"
    dlogits = draw.normal(size=logits.shape)
    net.forward(x, training=True)
    dx = net.backward(dlogits)

    def loss():
        return float((net.forward(x) * dlogits).sum())

    for names in ("weight", "gamma", "beta", "bias", None):
        vector, gradient = (x, dx) if names is None else (net.flat, net.flat_grad)
        chosen = np.zeros(vector.shape)
        if names is None:
            chosen[:] = draw.normal(size=x.shape)
        else:
            place = net.flat.__array_interface__["data"][0]
            for name, array in net.params.items():
                if name.endswith(names):
                    at = (array.__array_interface__["data"][0] - place) // 8
                    chosen[at : at + array.size] = draw.normal(size=array.size)
        kept, found = vector.copy(), []
        for sign in (1, -1):
            vector[...] = kept + sign * 1e-7 * chosen  # so little that no maximum changes its pixel
            found.append(loss())
        vector[...] = kept
        want = float((gradient * chosen).sum())
        assert (found[0] - found[1]) / 2e-7 == pytest.approx(want, rel=1e-4), names


def test_every_number_gets_a_gradient_and_every_range_moves():
    net = random_net("mobilenet_v3_small")
    x = some(net)
    net.fake = FakeQuantised.of(net, x)
    before, buffers = net.fake.scales.copy(), net.flat_buffers.copy()
    logits = net.forward(x, training=True)
    net.backward(np.random.default_rng(0).normal(size=logits.shape).astype(np.float32))
    assert all(np.abs(grad).max() > 0 for grad in net.grads.values())
    assert (net.flat_buffers == buffers).all() and np.isnan(before[-1]) and net.fake.scales[0] == before[0]
    moved = np.abs(np.log(net.fake.scales[1:-1] / before[1:-1]))
    assert (moved <= 1.01e-3).all() and (moved > 0.9e-3).mean() > 0.9


@pytest.mark.parametrize("model", ["plain_3x3", "googlenet", "branched"])
def test_maxima_and_branches_hand_gradients_on(model):
    """All numbers get one; the range of a maximum is that of its input, and only that one moves."""
    net = net_of(model)
    x = some(net)
    net.fake = FakeQuantised.of(net, x, "minmax")
    before, owners = net.fake.scales.copy(), net.fake.owners
    logits = net.forward(x, training=True)
    net.backward(np.random.default_rng(0).normal(size=logits.shape).astype(np.float32))
    assert all(np.abs(grad).max() > 0 for grad in net.grads.values())
    own = np.array(
        [owners[i] == i and step.grid is not None for i, step in enumerate(net.fake.whole().steps, 1)]
    )
    moved = np.abs(np.log(net.fake.scales[1:] / before[1:]))
    assert (moved[own] > 0.9e-3).mean() > 0.9 and not moved[~own][:-1].any()
    grids = net.fake.grids()
    for i, step in enumerate(trace(net), 1):
        assert step.kind != "maximum" or grids[i] == grids[step.reads[0]]


def test_a_step_with_branches_against_the_rules_by_hand():
    """Two branches of one map: the gradient of the input is the sum of theirs, each through its own ends of range."""
    net = branched()
    x = some(net)
    net.fake = FakeQuantised.of(net, x, "squares")
    net.forward(x, training=True)
    real, _, maps, raws, _ = net.fake.kept
    draw, checked = np.random.default_rng(3), 0
    for number, step in enumerate(real):
        inputs = [maps[i] for i in step.reads]
        dy = draw.normal(size=raws[number].shape).astype(np.float32)
        if step.kind == "maximum":
            (dx,), _ = net.fake._parts(step, inputs, None, dy)
            want = pooling.definition_maximum(inputs[0], *step.frame)
            assert (want[0].reshape(raws[number].shape) == raws[number]).all()
            want = pooling.definition_maximum_backward(dy.reshape(want[1].shape), want[1], inputs[0].shape)
            assert np.abs(dx - want).max() <= 1e-5
        elif step.kind == "concat":
            parts, _ = net.fake._parts(step, inputs, None, dy)
            assert (np.concatenate(parts, axis=-1) == dy).all() and (
                np.concatenate(inputs, -1) == raws[number]
            ).all()
            assert [part.shape for part in parts] == [x.shape for x in inputs]
        checked += step.kind in ("maximum", "concat")
    assert checked == 9


# --- whole runs ---------------------------------------------------------------------------------------------

SETTINGS = {"epochs": 2, "batch_size": 32, "lr": 0.01, "seed": 5, "progress": False, "quantise": True}


def trained(**options):
    """A small net that knows the fakes' images."""
    data = fakes.make_data()
    side, classes = data.train.shape[0], len(data.classes)
    net = library.build(
        "mobilenet_v2", width=0.1, resolution=side, classes=classes, strides="cifar", seed=1, **options
    )
    fit(net, data, epochs=2, batch_size=32, lr=0.05, progress=False)
    return net, data


@pytest.fixture(scope="module")
def start():
    return trained()


def copy_of(net):
    import copy

    return copy.deepcopy(net)


def test_a_run_ends_as_a_net_of_eight_bits(start, tmp_path):
    net, data = copy_of(start[0]), start[1]
    history = fit(net, data, out=tmp_path / "run", **SETTINGS)
    best = library.load(tmp_path / "run")
    assert isinstance(best, quantised.QuantisedNet) and best.class_names == list(data.classes)
    result = json.loads((tmp_path / "run/result.json").read_text())
    from numnet.training.evaluate import evaluate

    assert result["test_accuracy"] == evaluate(best, data.test, best.scaling)["accuracy"]
    assert result["validation_accuracy"] == max(row["validation_accuracy"] for row in history)
    last = library.load(tmp_path / "run/last.safetensors")
    assert (last.flat == net.flat).all() and (last.flat_buffers == start[0].flat_buffers).all()
    assert (last.flat != start[0].flat).any()


def test_a_run_that_was_stopped_goes_on_bit_for_bit(start, tmp_path):
    for out, at in (("whole", None), ("parts", 5)):
        net = copy_of(start[0])
        if at is None:
            fit(net, start[1], out=tmp_path / out, **SETTINGS)
            continue
        with pytest.raises(fakes.StopAt.Killed):
            fit(
                net,
                start[1],
                out=tmp_path / out,
                checkpoint_every=0,
                callbacks=[fakes.StopAt(at)],
                **SETTINGS,
            )
        fit(copy_of(start[0]), start[1], out=tmp_path / out, resume=True, checkpoint_every=0, **SETTINGS)
    for name in ("best.safetensors", "last.safetensors"):
        ours, theirs = (checkpoint.read(tmp_path / out / name)[0] for out in ("whole", "parts"))
        assert ours.keys() == theirs.keys()
        for key, array in ours.items():
            assert array.tobytes() == theirs[key].tobytes(), f"{name}: {key}"


def test_two_threads_train_as_one(start):
    import numba

    found = []
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            net = copy_of(start[0])
            fit(net, start[1], **{**SETTINGS, "epochs": 1})
            found.append((net.flat.copy(), net.fake.scales.copy()))
        finally:
            numba.set_num_threads(before)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*found))


def test_what_does_not_go_together_is_one_line(start, tmp_path):
    for more, words in (
        ({"ema": 0.9}, "has no ema"),
        ({"freeze": "stem"}, "has no freeze"),
        ({"optimiser": "muon"}, "quantise: muon gives .* expected another optimiser, such as sgd"),
    ):
        with pytest.raises(NumnetError, match=words):
            fit(copy_of(start[0]), start[1], **SETTINGS, **more)
    net = copy_of(start[0])
    net.freeze(net.layers[0].name)
    with pytest.raises(NumnetError, match=r"this net has frozen ones; expected net.freeze\(None\) first"):
        fit(net, start[1], **SETTINGS)
    net = copy_of(start[0])
    net.fake = FakeQuantised(net)
    with pytest.raises(NumnetError, match="quantise/scales is missing"):
        net.fake.restore({})
    write_images(tmp_path / "photos", train=8, test=2)
    code, _, err = numnet("train", tmp_path / "photos", "--quantise")
    assert code == 2 and err.count("\n") == 1 and "expected --init CHECKPOINT" in err
    start[0].save(tmp_path / "net.safetensors")
    init = ["--init", tmp_path / "net.safetensors"]
    code, _, err = numnet("train", tmp_path / "photos", "--quantise", "--budget", "15min", *init)
    assert code == 2 and err.count("\n") == 1 and "--budget: times a training in floats" in err


def test_the_command(tmp_path):
    write_images(tmp_path / "photos", train=12, test=3)
    net = random_net("mobilenet_v2", classes=3)
    half = {"mean": [0.5] * 3, "std": [0.5] * 3}
    net.save(tmp_path / "net.safetensors", input=half, classes=["red", "green", "blue"])
    arguments = [
        "train",
        tmp_path / "photos",
        "--init",
        tmp_path / "net.safetensors",
        "--quantise",
        "--out",
        tmp_path / "run",
    ]
    result = json.loads(works(*arguments, "--epochs", 1, "--batch-size", 8, "--json"))
    whole = library.load(tmp_path / "run")
    assert isinstance(whole, quantised.QuantisedNet) and whole.scaling == half
    assert (
        json.loads(works("eval", tmp_path / "run", tmp_path / "photos", "--json"))["accuracy"]
        == result["test_accuracy"]
    )
    assert works("train", "--resume", tmp_path / "run", "--json")
