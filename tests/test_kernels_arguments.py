"""What every public kernel does with arguments that it cannot take: one clear line, nothing read or written.

Numba checks no bounds, so a wrong shape that got through would read, or write, foreign memory.
"""

import importlib
import inspect
import pkgutil
import re
from typing import NamedTuple

import numpy as np
import pytest
from kernel_shapes import draw

from numnet import kernels
from numnet.kernels import eight_bits, fake, global_max_forward, max_forward


class Call(NamedTuple):
    """A valid call. ``arrays``: name -> shape; ``free``: arguments whose rank is the caller's choice.

    ``wrong``: (name, shape) that must be refused, the message naming that argument.
    """

    arrays: dict
    options: dict
    wrong: list
    free: tuple = ()
    out: str | tuple | None = None  # the argument whose shape ``out`` has, or the shape itself


X, PLACES = (2, 5, 6, 3), {"stride": 2, "padding": "same"}
NORMS = {"gamma": (3,), "beta": (3,), "running_mean": (3,), "running_variance": (3,)}
WRONG_NORMS = [(name, shape) for name in NORMS for shape in ((4,), (2,), (1,))]
ENDS = {"ends": fake.ends_of(eight_bits.Grid(0.25, 100))}
_, PLACE = max_forward(np.zeros((2, 6, 6, 3)), 2)
_, GLOBAL_PLACE = global_max_forward(np.zeros(X))

CALLS = {
    "conv_forward": Call(
        {"x": X, "w": (3, 3, 3, 4)}, PLACES, [("w", (3, 3, 4, 4)), ("w", (3, 3, 1, 4))], (), (2, 3, 3, 4)
    ),
    "conv_backward": Call(
        {"dy": (2, 3, 3, 4), "x": X, "w": (3, 3, 3, 4)},
        PLACES,
        [
            ("w", (3, 3, 2, 4)),
            *[("dy", dy) for dy in ((1, 3, 3, 4), (2, 4, 3, 4), (2, 3, 2, 4), (2, 3, 3, 5))],
        ],
        (),
        "x",
    ),
    "depthwise_forward": Call(
        {"x": X, "w": (3, 3, 3, 2)}, PLACES, [("w", (3, 3, 6, 2)), ("w", (3, 3, 1, 2))], (), (2, 3, 3, 6)
    ),
    "depthwise_backward": Call(
        {"dy": (2, 3, 3, 6), "x": X, "w": (3, 3, 3, 2)},
        PLACES,
        [
            ("w", (3, 3, 2, 2)),
            *[("dy", dy) for dy in ((1, 3, 3, 6), (2, 4, 3, 6), (2, 3, 2, 6), (2, 3, 3, 3))],
        ],
        (),
        "x",
    ),
    "pointwise_forward": Call({"x": X, "w": (3, 4)}, {}, [("w", (4, 4)), ("w", (1, 4))], (), (2, 5, 6, 4)),
    "pointwise_backward": Call(
        {"dy": (2, 5, 6, 4), "x": X, "w": (3, 4)},
        {},
        [("w", (4, 3)), *[("dy", dy) for dy in ((1, 5, 6, 4), (2, 6, 5, 4), (2, 5, 6, 3))]],
        (),
        "x",
    ),
    "dense_forward": Call(
        {"x": (5, 3), "w": (3, 4), "b": (4,)}, {}, [("w", (4, 3)), ("b", (3,)), ("b", (1,))], (), (5, 4)
    ),
    "dense_backward": Call(
        {"dy": (5, 4), "x": (5, 3), "w": (3, 4)}, {}, [("w", (4, 3)), ("dy", (4, 4)), ("dy", (5, 3))], (), "x"
    ),
    "batchnorm_forward": Call({"x": X, **NORMS}, {"training": False}, WRONG_NORMS, ("x",), "x"),
    "batchnorm_backward": Call(
        {"dy": X, "x": X, "pack": (4, 3)},
        {},
        [("dy", (1, 5, 6, 3)), ("dy", (2, 5, 6, 1)), ("pack", (4, 4)), ("pack", (3, 3)), ("pack", (4, 1))],
        ("x",),
        "x",
    ),
    "activation_forward": Call({"x": X}, {"activation": "relu"}, [], ("x",), "x"),
    "activation_backward": Call(
        {"dy": X, "x": X}, {"activation": "relu"}, [("dy", (2, 5, 6, 1)), ("dy", (1, 5, 6, 3))], ("x",), "x"
    ),
    "global_average_forward": Call({"x": X}, {}, [], (), (2, 3)),
    "global_average_backward": Call({"dy": (2, 3)}, {"shape": X}, [("dy", (2, 4)), ("dy", (1, 3))], (), X),
    "global_max_forward": Call({"x": X}, {}, []),
    "global_max_backward": Call(
        {"dy": (2, 3)}, {"shape": X, "where": GLOBAL_PLACE}, [("dy", (2, 4)), ("dy", (1, 3))], (), X
    ),
    "max_forward": Call({"x": (2, 6, 6, 3)}, {"kernel_side": 2}, [], (), (2, 3, 3, 3)),
    "max_backward": Call(
        {"dy": (2, 3, 3, 3)},
        {"shape": (2, 6, 6, 3), "where": PLACE},
        [("dy", (2, 3, 3, 1)), ("dy", (2, 3, 4, 3)), ("dy", (1, 3, 3, 3))],
        (),
        (2, 6, 6, 3),
    ),
    "average_forward": Call({"x": (2, 6, 6, 3)}, {"kernel_side": 2}, [], (), (2, 3, 3, 3)),
    "average_backward": Call(
        {"dy": (2, 3, 3, 3)},
        {"shape": (2, 6, 6, 3), "kernel_side": 2},
        [("dy", (2, 3, 3, 1)), ("dy", (2, 3, 4, 3)), ("dy", (1, 3, 3, 3))],
        (),
        (2, 6, 6, 3),
    ),
    "dropout_forward": Call({"x": X}, {"rate": 0.5, "seed": 1, "step": 2}, [], ("x",), "x"),
    "dropout_backward": Call({"dy": X}, {"rate": 0.5, "seed": 1, "step": 2}, [], ("dy",), "dy"),
    "softmax_cross_entropy": Call({"logits": (5, 3)}, {"labels": np.arange(5) % 3}, []),
}
GATED = {"x": X, "gate": (2, 3)}
DEFINITIONS = {
    **{
        f"{page}.definition{end}": CALLS[page + (end or "_forward")]
        for page in ("conv", "depthwise", "pointwise", "dense")
        for end in ("", "_backward")
    },
    "activations.definition": CALLS["activation_forward"],
    "activations.definition_backward": CALLS["activation_backward"],
    "pooling.definition_average": CALLS["global_average_forward"],
    "pooling.definition_average_backward": CALLS["global_average_backward"],
    "pooling.definition_maximum": CALLS["max_forward"],
    "pooling.definition_maximum_backward": CALLS["max_backward"],
    "loss.definition": CALLS["softmax_cross_entropy"],
    "moments.definition": Call({"x": X}, {}, []),
    "batchnorm.definition": Call(
        {"x": X, "gamma": (3,), "beta": (3,)}, {}, [("gamma", (4,)), ("gamma", (1,)), ("beta", (2,))]
    ),
    "batchnorm.definition_backward": Call(
        {"dy": X, "x": X, "gamma": (3,), "mean": (3,), "inv_std": (3,)},
        {},
        [("dy", (2, 5, 6, 1)), ("gamma", (4,)), ("mean", (1,)), ("inv_std", (2,))],
    ),
    "residual.definition": Call({"a": X, "b": X}, {}, [("b", (2, 5, 6, 1)), ("b", (1, 5, 6, 3))]),
    "squeeze_excite.definition": Call(GATED, {}, [("gate", (2, 4)), ("gate", (1, 3))]),
    "squeeze_excite.definition_backward": Call(
        {"dy": X, **GATED, "ds": (2, 3)}, {}, [("dy", (2, 5, 6, 1)), ("gate", (2, 2)), ("ds", (2, 1))]
    ),
    "fake.definition": Call({"x": (5, 3), "bias": (3,)}, ENDS, [("bias", (1,)), ("bias", (4,))]),
    "fake.definition_backward": Call(
        {"dy": (5, 3), "x": (5, 3), "bias": (3,)}, ENDS, [("dy", (5, 1)), ("bias", (4,))]
    ),
}
EACH = [(name, argument) for name, call in CALLS.items() for argument in call.arrays]


def each(pairs):
    return pytest.mark.parametrize("name, argument", pairs, ids=["-".join(pair) for pair in pairs])


each_argument = each(EACH)
each_out = pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call.out])


def arrays_of(name):
    shapes = CALLS[name].arrays
    drawn = dict(zip(shapes, draw(*shapes.values())))
    if "running_variance" in drawn:
        drawn["running_variance"] **= 2
    return drawn


def out_of(name, **arrays):
    out = CALLS[name].out
    return arrays[out].shape if isinstance(out, str) else out


def run(name, arrays, **more):
    return getattr(kernels, name)(**{**CALLS[name].options, **arrays, **more})


def results(value):
    """The arrays and numbers of a result, as bytes."""
    return [np.asarray(a).tobytes() for a in (value if isinstance(value, tuple) else (value,))]


def refused(name, arrays, error=ValueError, **more):
    """The message of the ValueError that this call must raise: one line."""
    with pytest.raises(error) as caught:
        run(name, arrays, **more)
    message = str(caught.value)
    assert "\n" not in message, message
    return message


def test_every_public_kernel_is_here():
    public = {name for name in vars(kernels) if re.search("_forward$|_backward$|cross_entropy$", name)}
    assert public == set(CALLS)


@each([(name, argument) for name, argument in EACH if argument not in CALLS[name].free])
def test_another_rank(name, argument):
    for change in (lambda a: a[None], lambda a: np.array(a[0])):
        arrays = arrays_of(name)
        arrays[argument] = change(arrays[argument])
        assert re.match(rf"{argument}: expected .* got ", refused(name, arrays))


@pytest.mark.parametrize(
    "name, argument, shape", [(name, *wrong) for name, call in CALLS.items() for wrong in call.wrong], ids=str
)
def test_another_shape(name, argument, shape):
    arrays = arrays_of(name)
    (arrays[argument],) = draw(shape)
    assert re.match(rf"{argument}: expected shape .*, got {re.escape(str(shape))}", refused(name, arrays))


@each_argument
def test_another_dtype(name, argument):
    for dtype in (np.int64, np.float16, np.complex128, np.bool_, object, ">f8", "U3"):
        arrays = arrays_of(name)
        arrays[argument] = arrays[argument].astype(dtype)
        message = refused(name, arrays)
        assert message == f"{argument}: expected float32 or float64, got {arrays[argument].dtype}"
    if len(CALLS[name].arrays) > 1:  # one float32 among float64
        arrays = arrays_of(name)
        arrays[argument] = arrays[argument].astype(np.float32)
        assert re.match(r"\w+: expected float(32|64) like the other arrays, got float", refused(name, arrays))


@each_argument
def test_not_an_array(name, argument):
    for change in (lambda a: a.tolist(), lambda a: 1.5, lambda a: "text"):
        arrays = arrays_of(name)
        arrays[argument] = change(arrays[argument])
        message = refused(name, arrays, (TypeError, ValueError))
        assert re.match(rf"{argument}: expected .*, got (list|float|str)", message)


@each_argument
def test_not_contiguous(name, argument):
    """Fortran's order, every second number, backwards: the message ends in the cure, and the cure works."""
    good = arrays_of(name)
    want = results(run(name, good))
    a = good[argument]
    strided = np.repeat(a, 2, axis=-1)[..., ::2]
    backwards = np.ascontiguousarray(a[::-1])[::-1]
    for other in [strided, backwards] + ([np.asfortranarray(a)] if a.ndim > 1 else []):
        assert not other.flags.c_contiguous and (other == a).all()
        message = refused(name, {**good, argument: other})
        assert message.startswith(f"{argument}: expected a C-contiguous array")
        assert message.endswith(f"np.ascontiguousarray({argument})")
        assert results(run(name, {**good, argument: np.ascontiguousarray(other)})) == want


def dispatchers():
    """Every compiled function of numnet.kernels, by its name."""
    found = {}
    for module in pkgutil.iter_modules(kernels.__path__, "numnet.kernels."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if hasattr(value, "signatures") and not isinstance(value, type):
                found[value.__module__, name] = value
    return found


def signatures():
    return {name: list(dispatcher.signatures) for name, dispatcher in dispatchers().items()}


@each_argument
def test_read_only_arrays_are_as_good_and_compile_nothing(name, argument):
    arrays = arrays_of(name)
    want = results(run(name, arrays))
    before = signatures()
    arrays[argument].flags.writeable = False
    copy = arrays[argument].copy()
    assert results(run(name, arrays)) == want
    assert signatures() == before
    assert not arrays[argument].flags.writeable
    assert (arrays[argument] == copy).all()
    # bytes are read-only by birth: their memory belongs to no array
    arrays[argument] = np.frombuffer(copy.tobytes()).reshape(copy.shape)
    assert results(run(name, arrays)) == want
    assert signatures() == before


@pytest.mark.parametrize("name", CALLS)
def test_read_only_integers_compile_nothing(name):
    integers = {key: value for key, value in CALLS[name].options.items() if isinstance(value, np.ndarray)}
    arrays = arrays_of(name)
    want = results(run(name, arrays))
    before = signatures()
    for key, value in integers.items():
        value = value.copy()
        value.flags.writeable = False
        assert results(run(name, arrays, **{key: value})) == want
    assert signatures() == before


@pytest.mark.parametrize(
    "name, options",
    [
        ("conv_forward", {"stride": np.int64(2)}),
        ("depthwise_forward", {"stride": np.int32(2), "padding": np.int64(1)}),
        ("batchnorm_forward", {"eps": 0, "momentum": 1}),
        ("batchnorm_forward", {"eps": np.float32(1e-3), "momentum": np.float64(0.9), "unbiased": 1}),
        ("batchnorm_forward", {"eps": 0, "momentum": 0, "training": True}),
        ("batchnorm_forward", {"training": True, "unbiased": np.bool_(True), "momentum": np.float32(0.5)}),
        ("batchnorm_forward", {"activation": np.int64(3)}),
        ("activation_forward", {"activation": np.int64(3), "beta": 1}),
        ("dropout_forward", {"rate": 0, "seed": np.int64(3), "step": np.uint32(7)}),
        ("dropout_forward", {"rate": np.float32(0.5), "seed": np.uint64(3), "first": np.int32(7)}),
        ("max_forward", {"kernel_side": np.int64(2), "stride": np.int32(1)}),
        ("softmax_cross_entropy", {"label_smoothing": 0}),
        ("softmax_cross_entropy", {"labels": np.zeros(5, np.uint8)}),
        ("softmax_cross_entropy", {"labels": [0, 1, 2, 0, 1]}),
    ],
    ids=str,
)
def test_numbers_of_another_type_compile_nothing(name, options):
    """Each signature costs seconds: an ε of 0, or a seed from an array, must not make one."""
    arrays = arrays_of(name)
    run(name, arrays)
    if name == "batchnorm_forward":
        run(name, arrays, training=True)
    before = signatures()
    run(name, arrays, **options)
    assert signatures() == before


def test_one_signature_a_dtype():
    """Whatever the tests before this one have called."""
    for name in CALLS:
        run(name, arrays_of(name))
    lanes = re.compile(r"\bu?int(8|16|32)\b")  # each number of lanes is an integer type of its own
    for where, found in signatures().items():
        # Passes; row functions are compiled into them, and the index tests of vectors and tiles, too.
        registers = ("numnet.kernels.vectors", "numnet.kernels.tiles")
        if where[1].startswith("_") and where[0] not in registers:
            assert len({lanes.sub("lanes", str(signature)) for signature in found}) <= 2, (where, found)


# --- definitions --------------------------------------------------------------------------------------------


def test_every_definition_is_here():
    """But those that fill an array that the caller gives, whose pages say that nothing is checked."""
    public = {
        f"{module.name}.{name}"
        for module in pkgutil.iter_modules(kernels.__path__)
        for name, value in vars(importlib.import_module(f"numnet.kernels.{module.name}")).items()
        if name.startswith("definition") and "y" not in inspect.signature(value).parameters
    }
    assert public - {"product.definition_dx", "product.definition_dw"} == set(DEFINITIONS)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_definition_refuses_what_its_fast_function_refuses(name):
    page, function = name.split(".")
    definition, call = getattr(getattr(kernels, page), function), DEFINITIONS[name]
    good = dict(zip(call.arrays, draw(*call.arrays.values())))
    want = results(definition(**good, **call.options))

    def message_for(argument, value):
        with pytest.raises(ValueError) as caught:
            definition(**{**good, argument: value}, **call.options)
        return str(caught.value)

    for argument, a in good.items():
        integers = a.astype(np.int64)
        assert message_for(argument, integers) == f"{argument}: expected float32 or float64, got int64"
        strided = np.repeat(a, 2, axis=-1)[..., ::2]
        cure = f"pass np.ascontiguousarray({argument})"
        assert message_for(argument, strided) == f"{argument}: expected a C-contiguous array; {cure}"
        a.flags.writeable = False
    for argument, shape in call.wrong:
        assert message_for(argument, *draw(shape)).startswith(f"{argument}: expected shape ")
    assert results(definition(**good, **call.options)) == want  # read-only arrays are as good


def test_what_else_a_definition_takes_and_refuses():
    x, w = draw((5, 3), (3, 4))
    assert (kernels.dense.definition(x, w) == kernels.dense.definition(x, w, np.zeros(4))).all()
    with pytest.raises(ValueError, match=r"labels: expected integers of shape \(5,\)"):
        kernels.loss.definition(x, np.zeros(2, int))
    with pytest.raises(ValueError, match="labels: expected 0 to 2, got 0 to 3"):
        kernels.loss.definition(x, np.array([0, 1, 2, 3, 0]))
    with pytest.raises(ValueError, match="where: expected pixels 0 to 35"):
        kernels.pooling.definition_maximum_backward(np.ones(PLACE.shape), PLACE + 36, (2, 6, 6, 3))
    for page in (kernels.moments.definition, lambda x: kernels.batchnorm.definition(x, x, x)):
        with pytest.raises(ValueError, match=r"x: expected an array \(…, C\), got shape \(3,\)"):
            page(np.ones(3))


# --- out ----------------------------------------------------------------------------------------------------


@each_out
def test_out_is_written_and_returned(name):
    arrays = arrays_of(name)
    want = run(name, arrays)
    out = np.full(out_of(name, **arrays), np.nan)
    got = run(name, arrays, out=out)
    assert results(got) == results(want)
    first = got[0] if isinstance(got, tuple) else got
    assert first.__array_interface__["data"] == out.__array_interface__["data"]
    assert out.tobytes() == first.tobytes()


@each_out
def test_out_that_cannot_be_used(name):
    arrays = arrays_of(name)
    shape = out_of(name, **arrays)
    for wrong in ((*shape, 1), shape[1:], (*shape[:-1], shape[-1] + 1), (shape[0] + 1, *shape[1:])):
        message = refused(name, arrays, out=np.zeros(wrong))
        assert re.match(rf"out: expected .*{re.escape(str(shape))}, got .*{re.escape(str(wrong))}", message)
    assert refused(name, arrays, out=np.zeros(shape, np.float32)).startswith("out: expected float64")
    assert refused(name, arrays, out=np.zeros(shape, int)).startswith("out: expected float32 or float64")
    assert refused(name, arrays, out=np.zeros((*shape, 2))[..., 0]).startswith("out: expected a C-contig")
    assert refused(name, arrays, (TypeError, ValueError), out=[]).startswith("out: expected a numpy array")
    locked = np.zeros(shape)
    locked.flags.writeable = False
    assert re.match("out: .*read-only", refused(name, arrays, out=locked))
    assert (locked == 0).all()


VECTORS = ("gamma", "beta", "running_mean", "running_variance", "pack")  # copied before the pass begins
ALIASES = [(name, argument) for name, argument in EACH if CALLS[name].out and argument not in VECTORS]


@each(ALIASES)
def test_out_that_shares_memory_with_an_input(name, argument):
    """A pass reads its inputs while it writes."""
    arrays = arrays_of(name)
    shape, a = out_of(name, **arrays), arrays[argument]
    size = int(np.prod(shape))
    memory = np.zeros(max(a.size, size) + 1)
    memory[1 : 1 + a.size] = a.reshape(-1)
    arrays[argument] = memory[1 : 1 + a.size].reshape(a.shape)
    before = memory.copy()
    message = refused(name, arrays, out=memory[:size].reshape(shape))
    assert message.startswith(f"out: shares memory with {argument}")
    assert (memory == before).all()


def test_running_statistics_that_cannot_be_moved():
    for argument in ("running_mean", "running_variance"):
        arrays = arrays_of("batchnorm_forward")
        arrays[argument].flags.writeable = False
        message = refused("batchnorm_forward", arrays, training=True)
        assert re.match(f"{argument}: .*read-only", message)


# --- numbers that are no arrays -----------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [0, -1, 1.0, True, None, "2", (2, 2)], ids=repr)
@pytest.mark.parametrize("name", ["conv_forward", "conv_backward", "depthwise_forward", "depthwise_backward"])
def test_a_wrong_stride(name, stride):
    message = refused(name, arrays_of(name), stride=stride)
    assert message == f"stride: expected an integer of at least 1, got {stride!r}"


@pytest.mark.parametrize("name", ["conv_forward", "depthwise_forward"])
def test_a_kernel_of_no_size(name):
    for sides in ((0, 0), (0, 3), (3, 0)):
        arrays = arrays_of(name)
        arrays["w"] = np.zeros((*sides, *arrays["w"].shape[2:]))
        assert refused(name, arrays).startswith("w: ")


@pytest.mark.parametrize("side", [0, -2, 1.5, None])
def test_a_wrong_pooling_window(side):
    assert refused("max_forward", arrays_of("max_forward"), kernel_side=side).startswith(
        "kernel_side: expected"
    )


@pytest.mark.parametrize("name", ["global_average_backward", "global_max_backward", "max_backward"])
@pytest.mark.parametrize("shape", [(2, 3), (2, 6, 6), None, 5, (2, 6, 6, 3, 1), "abcd"], ids=repr)
def test_a_wrong_shape_of_x(name, shape):
    assert refused(name, arrays_of(name), shape=shape).startswith("shape: expected (N, H, W, C), got")


def test_winners_of_another_kind():
    for change in (
        lambda w: w.astype(np.int64),
        lambda w: w.astype(float),
        lambda w: w[0],
        lambda w: w.tolist(),
    ):
        assert refused("max_backward", arrays_of("max_backward"), where=change(PLACE)).startswith("where: ")
    # winners in another order of memory are the same winners
    arrays = arrays_of("max_backward")
    fortran = run("max_backward", arrays, where=np.asfortranarray(PLACE))
    assert (fortran == run("max_backward", arrays)).all()


# --- empty batches ------------------------------------------------------------------------------------------

# Not the loss, a mean of nothing, nor the pools' backward: their own files test them.
ELSEWHERE = ("softmax_cross_entropy", "max_backward", "global_max_backward")


@pytest.mark.parametrize("name", [name for name in CALLS if name not in ELSEWHERE])
def test_an_empty_batch(name):
    """Arrays of length 0, and gradients of the weights that are 0."""
    call, arrays = CALLS[name], arrays_of(name)
    full = run(name, arrays)
    batched = ("x", "dy")
    empty = {key: a[:0].copy() if key in batched else a for key, a in arrays.items()}
    more = {"shape": (0, *call.options["shape"][1:])} if "shape" in call.options else {}
    got = run(name, empty, **more)
    full, got = (value if isinstance(value, tuple) else (value,) for value in (full, got))
    for i, (a, b) in enumerate(zip(full, got)):
        if i == 0 or name.startswith("global_max") or name == "max_forward":
            assert b.shape == (0, *a.shape[1:])
        elif name != "batchnorm_forward":
            assert b.shape == a.shape and (b == 0).all()
        assert b.dtype == a.dtype


@pytest.mark.parametrize("name", ["conv", "depthwise", "pointwise"])
def test_no_channels_and_no_filters(name):
    """Nonsense, but no uninitialised memory: an error, or arrays that are empty or 0."""
    forward = getattr(kernels, name + "_forward")
    head = () if name == "pointwise" else (3, 3)
    for channels, filters in ((0, 4), (3, 0), (0, 0)):
        try:
            y = forward(np.ones((2, 4, 4, channels)), np.ones((*head, channels, filters)))
        except ValueError as error:
            assert re.match("[xw]: ", str(error))
        else:
            assert (y == 0).all()


def test_public_signatures():
    """Every public kernel takes its arrays first and ``out`` last, where it has one."""
    for name, call in CALLS.items():
        parameters = list(inspect.signature(getattr(kernels, name)).parameters)
        assert parameters[: len(call.arrays)] == list(call.arrays) or name.endswith("max_backward")
        assert ("out" in parameters) == (call.out is not None)
        assert call.out is None or parameters[-1] == "out"
