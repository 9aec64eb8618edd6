"""Misuse of the library: an error that names the cause, never a wrong number and never a dead interpreter."""

import copy
import multiprocessing
import pickle
import threading

import numpy as np
import pytest

import numnet
from numnet.errors import NumnetError
from numnet.layers import Dense, Flatten, Layer

SMALL = {"width": 0.25, "resolution": 32, "classes": 10, "shallow": True}


@pytest.fixture(scope="module")
def small():
    return numnet.build("mobilenet_v1", **SMALL)


def images(count=2, seed=0, dtype="float32"):
    return np.random.default_rng(seed).standard_normal((count, 32, 32, 3)).astype(dtype)


def step(net, x, between=lambda: None):
    """The gradient of one training pass, with something done in the middle."""
    net.step, net.flat_grad[...] = 0, 0
    logits = net.forward(x, training=True)
    between()
    net.backward(numnet.softmax_cross_entropy(logits, np.arange(len(x)))[1], input_gradient=False)
    return net.flat_grad.copy()


# --------------------------------------------------------------------------------------------- keywords of build

ODD = [
    "x", "", None, -1, 0, 1.5, float("nan"), float("inf"), True, False, [], {}, (), ((0, 0), (0, 0)), b"x", object(),
    np.int64(3), np.float32(0.5), np.zeros(3), 10**30, 1e300, 2**63, "3", 1j, set(), int,
]  # fmt: skip
# Values of other kinds than the usual that make sense all the same.
SENSIBLE = {
    "padding": (0, 10**30, 2**63, np.int64(3), ((0, 0), (0, 0))),
    "se": (None, True, False, 0, np.float32(0.5)),
}


@pytest.mark.parametrize("model", numnet.models())
def test_every_keyword_with_every_kind_of_value(model):
    """A net, or one line that names the keyword; never another error, and never a number taken for another."""
    import inspect

    from numnet.models import MODELS
    from numnet.models.common import Settings

    make, fixed = MODELS[model]
    own = {p.name for p in inspect.signature(make).parameters.values() if p.kind == p.KEYWORD_ONLY} - set(
        fixed
    )
    accepted = {}
    for name in sorted({*Settings.__dataclass_fields__, *own, "dtype", "seed"}):
        for value in ODD:
            try:
                numnet.describe(model, **{"resolution": 32, name: value}).cost()
            except NumnetError as error:
                assert "\n" not in str(error) and len(str(error)) < 700, name
            else:
                accepted.setdefault(name, []).append(value)
    numbers = (
        "width",
        "resolution",
        "classes",
        "channels",
        "bn_eps",
        "bn_momentum",
        "dropout",
        "kernel",
        "depth_multiplier",
        "seed",
        "stem",
        "last",
        "wide",
    )
    # No layers of one's own
    assert all(value is None or value in ([], ()) for value in accepted.pop("head", ()))
    for name, values in accepted.items():
        if name not in ("padding", "se", "dtype"):
            for value in values:
                switch = name in ("skip", "separable", "shallow")
                assert (
                    value is None
                    or isinstance(value, bool) == switch
                    or (name == "dropout" and value is False)
                ) and not isinstance(value, (str, bytes, list, dict, tuple, set)), (name, value)
                assert name in numbers or switch or value is None, (name, value)


@pytest.mark.parametrize(
    "keyword, value",
    [("depth_multiplier", "x"), ("depth_multiplier", 0), ("shallow", "no"), ("separable", 1), ("seed", -1),
     ("seed", "a"), ("seed", 1 << 63), ("dtype", "int8"), ("dtype", None), ("bn_eps", "small"), ("bn_momentum", [0.9]),
     ("classes", 10**12), ("resolution", 10**6), ("kernel", 10**6), ("activation", 3), ("initialiser", ["he"]),
     ("strides", np.zeros(2)), ("bn_eps", float("inf"))],
)  # fmt: skip
def test_a_wrong_keyword_is_named(keyword, value):
    with pytest.raises(NumnetError, match=f"^{keyword}: expected .*, got ") as caught:
        numnet.build("mobilenet_v1", **{**SMALL, keyword: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", [None, 3, [], {}, np.zeros(2), "", "mobilenet"], ids=repr)
def test_a_model_that_is_none(model):
    with pytest.raises(NumnetError, match="model: expected one of mobilenet_v1"):
        numnet.build(model)


def test_numpy_s_numbers_and_dtypes_are_saved(tmp_path):
    """What build takes, a checkpoint must be able to say."""
    options = {
        "width": np.float32(0.25),
        "classes": np.int64(10),
        "resolution": np.int32(32),
        "shallow": np.bool_(True),
    }
    net = numnet.build("mobilenet_v1", dtype=np.float64, seed=np.uint8(3), **options)
    net.save(tmp_path / "net.safetensors")
    again = numnet.load(tmp_path / "net.safetensors")
    assert again.dtype == np.float64 and again.flat.tobytes() == net.flat.tobytes()


# --------------------------------------------------------------------------------------------- order of calls


def test_predict_between_forward_and_backward_is_refused(small):
    """Predict runs some layers as they are; what backward needs of them is gone, and the gradient would be wrong."""
    with pytest.raises(
        RuntimeError, match=r"backward: expected forward\(x, training=True\) before it, and no predict"
    ):
        step(small, images(), between=lambda: small.predict(images(3, seed=1)))
    with pytest.raises(RuntimeError, match="backward: expected forward"):
        step(small, images(), between=lambda: small.forward(images(3, seed=1)))
    assert np.array_equal(step(small, images()), step(small, images()))


@pytest.mark.parametrize("wrong", ["int64", "complex64", "bool", "object"])
def test_a_dlogits_of_another_kind(small, wrong):
    small.forward(images(), training=True)
    with pytest.raises(ValueError, match="dlogits: expected float32, got "):
        small.backward(np.ones((2, 10)).astype(wrong))


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "many", None])
def test_a_wrong_batch_size_of_predict(small, size):
    with pytest.raises(ValueError, match=r"batch_size: expected an integer of at least 1, got "):
        small.predict(images(), batch_size=size)


# --------------------------------------------------------------------------------------------- shared memory


def test_views_cannot_be_replaced(small):
    """``net.params["…"] = array`` would be a net that goes on with the old numbers."""
    name = "logits.bias"
    for views in (small.params, small.grads, small.buffers):
        some = name if name in views else next(iter(views))
        with pytest.raises(TypeError, match=rf"'{some}' is a view .*\['{some}'\]\[\.\.\.\] = values"):
            views[some] = views[some] + 1
        with pytest.raises(TypeError, match="is a view"):
            views.update({some: np.zeros(3)})
    for attribute in ("flat", "flat_grad", "flat_buffers", "params", "grads", "buffers"):
        with pytest.raises(AttributeError, match=rf"expected net\.{attribute}\[\.\.\.\] = values"):
            setattr(small, attribute, None)
    before = small.flat.copy()
    small.flat *= 2
    small.params[name] += 1
    assert np.array_equal(small.params[name], 2 * before[-10:] + 1)
    small.flat[...] = before


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["deepcopy", "pickle"]
)
def test_a_copy_is_a_net_of_its_own(small, duplicate):
    other, x = duplicate(small), images()
    assert np.array_equal(other.forward(x), small.forward(x)) and np.array_equal(
        step(other, x), step(small, x)
    )
    other.flat *= 0
    assert (other.predict(x) == 0).all() and (other.params["stem.weight"] == 0).all()
    assert not (small.predict(x) == 0).all() and not np.shares_memory(other.flat, small.flat)
    assert (copy.deepcopy(numnet.describe("mobilenet_v1"))).cost().params == numnet.describe(
        "mobilenet_v1"
    ).cost().params


class Keeps(Layer):
    """A layer of one's own that waits in its forward until it is told to go on."""

    kind = "keeps"

    def __init__(self, gate, name=None):
        super().__init__(name)
        self.gate, self.inside = gate, threading.Event()

    def forward(self, x, training):
        self.inside.set()
        assert self.gate.wait(20)
        return x

    def backward(self, dy, input_gradient=True):
        return dy


def test_a_net_in_two_threads_at_once():
    gate = threading.Event()
    keeps = Keeps(gate)
    net = numnet.Net([keeps, Flatten(), Dense(4)], (2, 2, 3))
    x, got = np.ones((1, 2, 2, 3), np.float32), []
    thread = threading.Thread(target=lambda: got.append(net.forward(x)), name="the first")
    thread.start()
    assert keeps.inside.wait(20)
    for call in (
        lambda: net.forward(x),
        lambda: net.predict(x),
        lambda: net.backward(np.ones((1, 4), np.float32)),
    ):
        with pytest.raises(RuntimeError, match=r"this net is at work in another thread \(the first\)"):
            call()
    gate.set()
    thread.join()
    assert np.array_equal(got[0], net.forward(x))


def test_a_forward_of_another_thread_between(small):
    """Nothing runs at the same time, and still the gradient would be that of the other's images."""

    def other():
        small.forward(images(2, seed=5), training=True)

    def between():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    with pytest.raises(RuntimeError, match="another thread has called forward on this net since"):
        step(small, images(), between)
    small.forward(images(), training=True)  # forward here, backward there: a net that is handed on
    thread = threading.Thread(target=lambda: small.backward(np.ones((2, 10), np.float32)))
    thread.start()
    thread.join()
    with pytest.raises(RuntimeError, match="expected forward"):
        small.backward(np.ones((2, 10), np.float32))


# --------------------------------------------------------------------------------------------- processes


def _step_of(net, x):
    return step(net, x)


def test_a_net_sent_to_a_spawned_process(small):
    x = images()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(_step_of, (small, x))
    assert np.array_equal(there, step(small, x))
