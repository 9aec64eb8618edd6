"""``predict`` folds and packs at each call, so it must see every change of the net's weights, however made."""

import numpy as np
import pytest
from kernel_shapes import draw

import numnet

MODELS = [("mobilenet_v1", "float64"), ("mobilenet_v3_small", "float32")]


def build(model, dtype):
    return numnet.build(model, width=0.25, resolution=32, classes=10, dtype=dtype, seed=1)


@pytest.fixture(scope="module", params=MODELS, ids=[f"{model} {dtype}" for model, dtype in MODELS])
def nets(request):
    """A net with statistics off 0 and 1, another to compare with, and images."""
    net, fresh = build(*request.param), build(*request.param)
    (x,) = draw((4, *net.input_shape), dtype=request.param[1])
    net.forward(x, training=True)
    return net, fresh, x[:2].copy()


def swap(a, i, j):
    a[i], a[j] = a[j], a[i]


def largest(net):
    return max(net.params, key=lambda name: net.params[name].size)


def one(net, kind):
    """A parameter in the middle of the net whose name ends so."""
    names = [name for name in net.params if name.endswith(kind)]
    return net.params[names[len(names) // 2]]


CHANGES = {
    "one weight by its last bit": lambda net: swap_in(net.params[largest(net)].reshape(-1), 777),
    "the first number": lambda net: net.flat.__setitem__(0, net.flat[0] + 1),
    "the last number": lambda net: net.flat.__setitem__(-1, net.flat[-1] + 1),
    "two weights swapped": lambda net: swap(net.params["stem.weight"].reshape(-1), 3, 3 + 8),
    "two swapped, far apart": lambda net: swap(net.params["stem.weight"].reshape(-1), 8, -8),
    "the sign of a tensor": lambda net: np.negative(one(net, "weight"), out=one(net, "weight")),
    "the sign of everything": lambda net: np.negative(net.flat, out=net.flat),
    "gamma": lambda net: one(net, "gamma").__imul__(1.5),
    "beta": lambda net: one(net, "beta").__iadd__(0.25),
    "a view of a view": lambda net: one(net, "weight").T[::2].__iadd__(0.1),
    "a running mean": lambda net: net.flat_buffers[: len(net.flat_buffers) // 3].__iadd__(0.5),
    "a running variance": lambda net: net.flat_buffers.__imul__(2),
    "rows turned round": lambda net: net.params[largest(net)].__setitem__(
        ..., net.params[largest(net)][::-1].copy()
    ),
}


def swap_in(a, i):
    a[i] = np.nextafter(a[i], a.dtype.type(9))


@pytest.mark.parametrize("change", CHANGES)
def test_predict_sees(change, nets):
    net, fresh, x = nets
    flat, buffers = net.flat.copy(), net.flat_buffers.copy()
    before = net.predict(x)
    assert net.predict(x).tobytes() == before.tobytes()
    try:
        CHANGES[change](net)
        got = net.predict(x)
        fresh.flat[...], fresh.flat_buffers[...] = net.flat, net.flat_buffers
        fresh._executor = None
        assert got.tobytes() == fresh.predict(x).tobytes()
        if "last bit" not in change:  # which may be rounded away
            assert got.tobytes() != before.tobytes()
    finally:
        net.flat[...], net.flat_buffers[...] = flat, buffers
    assert net.predict(x).tobytes() == before.tobytes()


def test_no_weight_is_copied(nets):
    """What inference reads are the net's own weights: a last bit that is rounded away in the logits is read, too."""
    net, _, x = nets
    net.predict(x)
    seen = {id(unit): unit.w for unit in net._executor.folded.units.values()}
    assert sum(w.size for w in seen.values()) == sum(
        a.size for n, a in net.params.items() if n.endswith("weight")
    )
    assert all(np.shares_memory(w, net.flat) for w in seen.values())
