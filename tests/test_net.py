"""Net: a whole MobileNetV1 against PyTorch and against finite differences; the flat vectors; what is refused."""

import copy
import json

import numba
import numpy as np
import pytest
from own_layer import Scale

import numnet
from numnet.blocks import Branches, Conv, Norm, Pointwise
from numnet.errors import NumnetError
from numnet.layers import Dense, Dropout, GlobalAverage, MaxPool
from numnet.layers.layer import finish
from numnet.net import KNOWN

SMALL = {"width": 0.25, "resolution": 32, "classes": 10}


def build(dtype="float64", **options):
    return numnet.build("mobilenet_v1", dtype=dtype, **{**SMALL, **options})


def a_step(net, count=4, seed=0):
    """(logits, dx) of one training pass of random images with a random dlogits."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, *net.input_shape))
    logits = net.forward(x, training=True)
    return logits, net.backward(rng.normal(size=logits.shape))


# --- against PyTorch ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"resolution": 64, "padding": "symmetric", "variant": "torch", "bn_momentum": 0.7},
        {"resolution": 45, "variant": "paddle"},  # odd sides: 45, 23, 12, 6, 3, 2
        {"strides": "cifar", "width": 0.125},
        {"depth_multiplier": 2, "bn_eps": 1e-2},
        {"separable": False, "padding": "symmetric"},
        {"shallow": True, "kernel": 5, "activation": "hswish"},
    ],
    ids=str,
)
def test_v1_equals_pytorch(torch, options):
    import parity

    torch.set_num_threads(1)
    net, module = parity.twins("mobilenet_v1", **{**SMALL, "dropout": 0.0, **options})
    parity.check_inference(net, module, bound=parity.TRAINING)
    parity.check_training(net, module)


def test_float32_equals_pytorch_in_inference(torch):
    import parity

    torch.set_num_threads(1)
    net, module = parity.twins("mobilenet_v1", dtype="float32", **SMALL)
    parity.check_inference(net, module)


# --- against finite differences -----------------------------------------------------------------------------


def test_gradients_are_slopes():
    """Along random directions of all parameters and of x. A smooth activation: ReLU6 has kinks to step over."""
    net = build(activation="swish", resolution=16, dropout=0.0, bn_eps=1e-2)
    rng = np.random.default_rng(0)
    x, dlogits = rng.normal(size=(3, 16, 16, 3)), rng.normal(size=(3, 10))

    def loss():
        return np.vdot(net.forward(x, training=True), dlogits)

    loss()
    dx = net.backward(dlogits)
    for array, gradient in ((net.flat, net.flat_grad.copy()), (x, dx)):
        for _ in range(3):
            direction = rng.normal(size=array.shape)
            direction /= np.linalg.norm(direction)
            step, values = 1e-4, []
            for sign in (1, -1):
                array += sign * step * direction
                values.append(loss())
                array -= sign * step * direction
            slope = (values[0] - values[1]) / (2 * step)
            assert abs(slope - np.vdot(gradient, direction)) <= 1e-7 * np.linalg.norm(gradient)


def test_inference_ignores_the_batch():
    net = build()
    a_step(net)
    x = np.random.default_rng(5).normal(size=(3, 32, 32, 3))
    together = net.forward(x)
    for i in range(3):
        np.testing.assert_allclose(
            net.forward(x[i : i + 1])[0], together[i], rtol=0, atol=1e-12 * abs(together).max()
        )
    bound = 1e-12 * abs(together).max()  # predict folds batch norm, so it rounds elsewhere
    np.testing.assert_allclose(net.predict(x, batch_size=3), together, rtol=0, atol=bound)
    assert net.predict(x, batch_size=2).shape == (3, 10)


# --- the vectors --------------------------------------------------------------------------------------------


def test_flat_vectors_are_what_the_dicts_show():
    net = build()
    for flat, views in ((net.flat, net.params), (net.flat_grad, net.grads), (net.flat_buffers, net.buffers)):
        assert flat.flags.c_contiguous and flat.dtype == np.float64
        assert sum(view.size for view in views.values()) == flat.size
        flat[...] = np.arange(flat.size)
        np.testing.assert_array_equal(
            np.concatenate([view.ravel() for view in views.values()]), np.arange(flat.size)
        )
    assert list(net.params) == list(net.grads) == list(net.specs)
    assert net.cost().params == net.flat.size and net.cost().buffers == net.flat_buffers.size


def test_a_step_keeps_the_memory_and_uses_new_weights():
    net = build(dropout=0.0)
    before = [vector.ctypes.data for vector in (net.flat, net.flat_grad, net.flat_buffers)]
    first, _ = a_step(net)
    gradient = net.flat_grad.copy()
    again, _ = a_step(net)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(gradient, net.flat_grad)  # assigned, not added to
    net.flat *= 1.1
    other, _ = a_step(net)
    assert not np.array_equal(first, other)
    assert before == [vector.ctypes.data for vector in (net.flat, net.flat_grad, net.flat_buffers)]


def test_only_weights_decay():
    net = build()
    decays = {}
    at = 0
    for name, spec in net.specs.items():
        decays[name] = net.decay_mask[at : at + spec.size]
        at += spec.size
    for name, mask in decays.items():
        assert mask.all() if name.endswith(".weight") else not mask.any(), name


def test_logits_and_dx_are_the_caller_s_own():
    net = build()
    logits, dx = a_step(net)
    kept = logits.copy(), dx.copy()
    a_step(net, seed=1)
    np.testing.assert_array_equal(logits, kept[0])
    np.testing.assert_array_equal(dx, kept[1])


# --- batches of unusual size, inputs of unusual make --------------------------------------------------------


def test_one_image():
    # The last map has 2×2 pixels, so that a variance exists
    logits, dx = a_step(build(resolution=64), count=1)
    assert logits.shape == (1, 10) and dx.shape == (1, 64, 64, 3)
    assert np.isfinite(logits).all() and np.isfinite(dx).all()


def test_batches_grow_and_shrink():
    net, fresh = build(dropout=0.0), build(dropout=0.0)
    for count in (2, 5, 3):
        logits, dx = a_step(net, count)
    want, dx_want = a_step(fresh, 3)
    np.testing.assert_array_equal(logits, want)
    np.testing.assert_array_equal(dx, dx_want)
    np.testing.assert_array_equal(net.flat_grad, fresh.flat_grad)


def test_an_empty_batch():
    net = build()
    assert net.forward(np.zeros((0, 32, 32, 3))).shape == (0, 10)
    assert net.predict(np.zeros((0, 32, 32, 3))).shape == (0, 10)
    with pytest.raises(ValueError, match="empty"):
        net.forward(np.zeros((0, 32, 32, 3)), training=True)


def test_inputs_are_copied_where_they_must_be():
    net = build()
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3))
    want = net.forward(x)
    frozen = x.copy()
    frozen.flags.writeable = False
    for same in (
        np.asfortranarray(x),
        np.repeat(x, 2, axis=0)[::2],
        frozen,
        x.transpose(0, 3, 1, 2).copy().transpose(0, 2, 3, 1),
    ):
        np.testing.assert_array_equal(net.forward(same), want)
    np.testing.assert_allclose(net.forward(x.astype(np.float32)), want, atol=1e-4 * abs(want).max())


@pytest.mark.parametrize(
    "x", [np.zeros((2, 32, 31, 3)), np.zeros((32, 32, 3)), np.zeros((2, 32, 32, 3), np.uint8)]
)
def test_wrong_images_are_refused(x):
    with pytest.raises(ValueError, match="x: expected"):
        build().forward(x)


def test_backward_needs_a_training_pass():
    net = build()
    with pytest.raises(RuntimeError, match="training=True"):
        net.backward(np.zeros((1, 10)))
    net.forward(np.zeros((1, 32, 32, 3)))
    with pytest.raises(RuntimeError, match="training=True"):
        net.backward(np.zeros((1, 10)))
    a_step(net)
    with pytest.raises(RuntimeError, match="training=True"):
        net.backward(np.zeros((4, 10)))


@pytest.mark.parametrize("shape", [(4, 9), (3, 10), (40,), (4, 10, 1)])
def test_a_wrong_dlogits_is_refused(shape):
    net = build()
    net.forward(np.zeros((4, 32, 32, 3)) + 0.1, training=True)
    with pytest.raises(ValueError, match=r"d[ly]"):
        net.backward(np.zeros(shape))


def test_without_input_gradient():
    net = build(dropout=0.0)
    a_step(net)
    want = net.flat_grad.copy()
    rng = np.random.default_rng(0)
    logits = net.forward(rng.normal(size=(4, 32, 32, 3)), training=True)
    net.flat_grad[...] = 0
    assert net.backward(rng.normal(size=logits.shape), input_gradient=False) is None
    np.testing.assert_array_equal(net.flat_grad, want)


# --- the same bits, always ----------------------------------------------------------------------------------


def test_same_bits_for_any_number_of_threads():
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("Numba was started with one thread")
    results, before = [], numba.get_num_threads()
    try:
        for threads in (1, 2):
            numba.set_num_threads(threads)
            net = build("float32", resolution=64)
            logits, dx = a_step(net, count=9)
            results.append([logits, dx, net.flat_grad, net.flat_buffers])
    finally:
        numba.set_num_threads(before)
    for one, two in zip(*results):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("model", ["mobilenet_v1", "mobilenet_v3_small"])
def test_another_side_same_weights(model):
    """Resized, a net computes what one that was built for that side does, in memory that stays where it was."""
    options = {"width": 0.25, "classes": 10, "dtype": "float64", "dropout": 0.0}
    net, other = (numnet.build(model, resolution=side, **options) for side in (48, 32))
    x = np.random.default_rng(0).normal(size=(3, 32, 32, 3))
    place = net.flat.ctypes.data
    net.predict(np.zeros((1, 48, 48, 3)))
    net.resize(32)
    assert np.array_equal(net.predict(x), other.predict(x))
    assert all(np.array_equal(a, b) for a, b in zip(a_step(net), a_step(other)))
    assert np.array_equal(net.flat_grad, other.flat_grad) and np.array_equal(
        net.flat_buffers, other.flat_buffers
    )
    assert net.flat.ctypes.data == place and np.shares_memory(net.flat, next(iter(net.params.values())))
    net.resize(48)
    assert net.forward(np.zeros((1, 48, 48, 3))).shape == (1, 10)


def test_another_side_is_refused_where_it_does_not_fit():
    net = numnet.build("vgg16", resolution=64, classes=10, dropout=0.0)
    for side, message in (
        (96, "weights are for images of 64×64, they do not fit 96×96"),
        (8, "no room in images of 8×8"),
    ):
        with pytest.raises(NumnetError, match=message):
            net.resize(side)
        assert net.input_shape == (64, 64, 3) and net.output_shape == (10,)
        assert net.layers[0].output_shape == (64, 64, 64)


@pytest.mark.parametrize("side", [32.5, "32", None, True, (32,), np.array([32, 32])])
def test_a_side_that_is_none(side):
    net = build()
    with pytest.raises(NumnetError, match="side: expected an integer or"):
        net.resize(side)
    assert net.input_shape == (32, 32, 3)


def test_a_layer_that_stumbles_leaves_the_net_as_it_was():
    class Picky(Scale):
        def connect(self, shape):
            if shape[0] < 16:
                raise LookupError("of its own")
            return super().connect(shape)

    net = numnet.Net([Conv(4, 3), Picky(), GlobalAverage(), Dense(2)], (16, 16, 3))
    with pytest.raises(LookupError):
        net.resize(8)
    assert net.input_shape == (16, 16, 3) and net.layers[0].output_shape == (16, 16, 4)
    assert net.predict(np.zeros((1, 16, 16, 3), np.float32)).shape == (1, 2)


def test_a_resized_net_is_saved_at_its_side(tmp_path):
    net = build()
    net.resize(48)
    net.save(tmp_path / "net.safetensors")
    assert numnet.load(tmp_path / "net.safetensors").input_shape == (48, 48, 3)
    assert numnet.with_head(net, 3).input_shape == (48, 48, 3)


def test_what_is_known_of_a_loaded_net_is_saved_with_it(tmp_path):
    half, unit = {"mean": [0.5] * 3, "std": [0.5] * 3}, {"mean": [0.0] * 3, "std": [1.0] * 3}
    names = list("abcdefghij")
    facts = {
        "untrained": ["logits"], "labels": "imagenet", "source": {"framework": "keras"}, "dataset": "photos",
        "digest": "4f", "preset": "stretch", "background": "grey", "recipe": {"epochs": 3},
    }  # fmt: skip
    assert set(facts) == set(KNOWN)
    files = [tmp_path / f"{name}.safetensors" for name in ("trained", "again", "other")]
    build(dtype="float32").save(files[0], input=half, classes=names, command="numnet train", **facts)
    numnet.load(files[0]).save(files[1])
    again = numnet.load(files[1])
    assert again.scaling == half and again.class_names == names and "command" not in again.document
    assert {key: again.document[key] for key in KNOWN} == facts
    again.save(files[2], input=unit, untrained=None, preset="keras")
    other = numnet.load(files[2])
    assert other.scaling == unit and other.class_names == names, "what is said wins, the rest stays"
    assert {key: other.document[key] for key in KNOWN} == {**facts, "untrained": None, "preset": "keras"}
    build(dtype="float32").save(files[0])
    known = set(numnet.load(files[0]).document)
    assert known == {"format", "config", "step"}, "nothing is known of a net that was built"


@pytest.mark.parametrize("end", [[], [GlobalAverage()], [GlobalAverage(), Dense(10)]])
def test_a_gradient_of_another_shape_is_refused(end):
    net = numnet.Net([Conv(4), Conv(8, norm=Norm()), *end], (8, 8, 3))
    y = net.forward(np.zeros((2, 8, 8, 3)), training=True)
    for shape in ((3, *y.shape[1:]), (2, *y.shape[1:-1], 4)):
        with pytest.raises(ValueError, match=r"dlogits: expected shape .* like the output of forward"):
            net.backward(np.ones(shape))
    net.backward(np.ones_like(y))


def test_a_pass_that_was_interrupted_is_no_pass():
    class Stops(Scale):
        stop = False

        def forward(self, x, training):
            if self.stop:
                raise KeyboardInterrupt
            return super().forward(x, training)

    stops = Stops()
    net = numnet.Net([Conv(4), stops, GlobalAverage(), Dense(3)], (8, 8, 3))
    x = np.ones((2, 8, 8, 3))
    net.backward(net.forward(x, training=True))
    stops.stop = True
    with pytest.raises(KeyboardInterrupt):
        net.forward(x, training=True)
    with pytest.raises(RuntimeError, match="backward: expected forward"):
        net.backward(np.ones((2, 3)))
    assert net.step == 1


def test_layers_belong_to_one_net():
    layers = [Conv(8, norm=Norm()), GlobalAverage(), Dense(10)]
    first, x = numnet.Net(layers, (8, 8, 3), seed=0), np.ones((1, 8, 8, 3))
    first.predict(x)
    second = numnet.Net(layers, (8, 8, 3), seed=1)
    for use in (first.forward, first.predict):
        with pytest.raises(RuntimeError, match="layers have been given to another net"):
            use(x)
    assert np.array_equal(copy.deepcopy(second).predict(x), second.predict(x))


def test_a_layer_of_another_shape_than_it_says_is_refused():
    class Wrong(Scale):
        def forward(self, x, training):
            return x[..., :2]

    net = numnet.Net([Wrong(name="mine"), Conv(4), GlobalAverage(), Dense(3)], (8, 8, 3))
    with pytest.raises(ValueError, match="mine: forward gave shape"):
        net.forward(np.ones((2, 8, 8, 3)), training=True)


def test_a_subclass_predicts_what_its_own_forward_says():
    class Twice(Conv):
        def forward(self, x, training):
            y = super().forward(x, training)
            return 2 * finish(y, self.memory, "output")

    net = numnet.Net(
        [Twice(8), Conv(4, activation="relu"), GlobalAverage(), Dense(3)], (8, 8, 3), dtype="float64"
    )
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    np.testing.assert_allclose(net.predict(x), net.forward(x), rtol=1e-12)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Conv(8, stride=0), "conv.*stride"),
        (lambda: Conv(8.0), "filters"),
        (lambda: Conv(8, kernel=(3, 3)), "kernel"),
        (lambda: Conv(8, norm=True), "norm: expected a Norm or None, got True"),
        (lambda: MaxPool(2, 0), "stride"),
        (lambda: Dense(0), "filters"),
    ],
)
def test_layers_of_wrong_numbers_are_refused_when_they_are_made(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_dropout_is_a_function_of_seed_and_step():
    def logits(seed, steps):
        net = build(dropout=0.5, seed=seed)
        net.flat[...] = build(seed=0, dropout=0.5).flat
        net.step = steps
        return a_step(net)[0]

    np.testing.assert_array_equal(logits(0, 0), logits(0, 0))
    assert not np.array_equal(logits(0, 0), logits(0, 1))
    assert not np.array_equal(logits(0, 0), logits(1, 0))
    net = build(dropout=0.5)
    assert net.step == 0
    a_step(net)
    assert net.step == 1


def test_a_seed_is_a_net():
    np.testing.assert_array_equal(build(seed=3).flat, build(seed=3).flat)
    assert not np.array_equal(build(seed=3).flat, build(seed=4).flat)


# --- build, describe, a net of one's own --------------------------------------------------------------------


def test_a_description_has_costs_and_no_arrays():
    described = numnet.describe("mobilenet_v1", **SMALL)
    built = build("float32")
    assert described.flat is None and described.cost() == built.cost()
    assert repr(described) == repr(built)
    with pytest.raises(RuntimeError, match="description"):
        described.forward(np.zeros((1, 32, 32, 3)))


def test_the_configuration_builds_the_same_net():
    net = build(seed=7)
    config = json.loads(json.dumps(net.config))
    np.testing.assert_array_equal(numnet.build(**config).flat, net.flat)


@pytest.mark.parametrize(
    "model, options, message",
    [
        ("mobilenet_v9", {}, "mobilenet_v"),
        ("mobilenet_v1", {"widht": 1}, "width"),
        ("mobilenet_v1", {"width": 0}, "width: expected"),
        ("mobilenet_v1", {"width": "wide"}, "width: expected"),
        ("mobilenet_v1", {"resolution": 0}, "resolution: expected"),
        ("mobilenet_v1", {"classes": 1.5}, "classes: expected"),
        ("mobilenet_v1", {"padding": "full"}, "padding"),
        ("mobilenet_v1", {"strides": "small"}, "strides: expected"),
        ("mobilenet_v1", {"variant": "caffe"}, "variant: expected"),
        ("mobilenet_v1", {"activation": "gelu"}, "activation: expected"),
        ("mobilenet_v1", {"bn_eps": -1}, "bn_eps: expected"),
        ("mobilenet_v1", {"bn_momentum": 1.5}, "bn_momentum: expected"),
        ("mobilenet_v1", {"dropout": 1.0}, "dropout: expected"),
        ("mobilenet_v1", {"dtype": "float16"}, "dtype: expected"),
    ],
    ids=str,
)
def test_build_names_what_is_wrong(model, options, message):
    with pytest.raises(NumnetError, match=message) as caught:
        numnet.describe(model, **options)
    assert "\n" not in str(caught.value)


def test_a_net_of_one_s_own():
    net = numnet.Net([Scale(), GlobalAverage(), Dense(4), Scale()], (5, 6, 3), dtype="float64")
    assert list(net.params) == ["scale1.weight", "dense.weight", "dense.bias", "scale2.weight"]
    assert net.config is None and net.classes == 4
    rng = np.random.default_rng(0)
    net.flat[...] = rng.normal(size=net.flat.size)
    x, dy = rng.normal(size=(2, 5, 6, 3)), rng.normal(size=(2, 4))
    p = net.params
    want = ((x * p["scale1.weight"]).mean((1, 2)) @ p["dense.weight"] + p["dense.bias"]) * p["scale2.weight"]
    np.testing.assert_allclose(net.forward(x, training=True), want, rtol=1e-12)
    dx = net.backward(dy)
    pooled = (dy * p["scale2.weight"]) @ p["dense.weight"].T / 30
    np.testing.assert_allclose(
        dx, np.broadcast_to((pooled * p["scale1.weight"])[:, None, None], x.shape), rtol=1e-12
    )
    assert net.cost().params == net.flat.size


# --- what nets of one's own may be told ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "layers, shape, message",
    [
        (lambda: [GlobalAverage(), Conv(8)], (8, 8, 3), r"conv: expected maps \(H, W, C\), got \(3,\)"),
        (lambda: [GlobalAverage(), Pointwise(8)], (8, 8, 3), "pointwise: expected maps"),
        (lambda: [GlobalAverage(), GlobalAverage()], (8, 8, 3), "global average: expected maps"),
        (lambda: [GlobalAverage(), MaxPool(2)], (8, 8, 3), "max pool: expected maps"),
        (lambda: [Conv(8)], (8, 8), "conv: expected maps"),
        (lambda: [Branches(GlobalAverage(), Conv(2))], (8, 8, 3), "expected maps"),
        (lambda: [Conv(3), "relu"], (8, 8, 3), "layers: expected a list of layers and blocks, got 'relu'"),
        (lambda: Conv(3), (8, 8, 3), "layers: expected a list of layers and blocks"),
        (lambda: [], (8, 8, 3), "layers: expected a list of layers and blocks"),
        (lambda: [Conv(3)], (8.5, 8, 3), "input_shape: expected the shape of an image"),
        (lambda: [Conv(3)], 8, r"conv: expected maps \(H, W, C\), got \(8,\)"),
        (lambda: [Conv(3, name="a.b")], (8, 8, 3), "layers: expected a name of letters without . and /"),
        (lambda: [Conv(3, name=5)], (8, 8, 3), "layers: expected a name of letters"),
    ],
)
def test_a_net_that_cannot_be_is_one_line(layers, shape, message):
    with pytest.raises(ValueError, match=message):
        numnet.Net(layers(), shape)


def test_a_parameter_has_a_role_and_a_weight_its_fans():
    layer = Scale()
    with pytest.raises(ValueError, match=r"role: expected one of conv, .*, got 'foo'"):
        layer.needs("w", (3,), role="foo")
    with pytest.raises(ValueError, match="expected fan_in and fan_out above 0"):
        layer.needs("w", (3,), role="dense")


def test_a_description_is_not_saved_over_a_net(tmp_path):
    build().save(tmp_path / "net.safetensors")
    with pytest.raises(NumnetError, match="save: this net is a description"):
        numnet.describe("mobilenet_v1").save(tmp_path / "net.safetensors")
    assert numnet.load(tmp_path / "net.safetensors").input_shape == (32, 32, 3)


def test_a_unit_with_a_convolution_of_its_own_predicts_by_it():
    class Centred(Pointwise):
        def run(self, x, y, moments):
            w = self.params["weight"]
            kept = w.copy()
            w -= w.mean(0)
            super().run(x, y, moments)
            w[...] = kept

    layers = [Conv(8, norm=Norm(), activation="relu"), Centred(6), GlobalAverage()]
    net = numnet.Net(layers, (8, 8, 3), dtype="float64")
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    np.testing.assert_allclose(net.predict(x), net.forward(x), rtol=1e-12, atol=1e-14)


def test_parameters_that_no_row_counts_are_counted():
    class Kept(Scale):
        def connect(self, shape):
            self.keeps("seen", (4,))
            return super().connect(shape)

    net = numnet.Net([Conv(4, 3, norm=Norm()), Kept(), GlobalAverage()], (8, 8, 3))
    assert net.cost().params == net.flat.size and net.cost().buffers == net.flat_buffers.size


def test_the_dropouts_of_a_net_draw_numbers_of_their_own():
    net = numnet.Net([GlobalAverage(), Dropout(0.5, name="a"), Dropout(0.5, name="b")], (2, 2, 4096))
    left = (net.forward(np.ones((1, 2, 2, 4096), np.float32), training=True) != 0).mean()
    assert 0.22 < left < 0.28, "a quarter, not a half"
    net.resize(4)
    assert [layer.number for layer in net.layers[1:]] == [0, 1]
