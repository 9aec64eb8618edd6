"""TensorFlow Lite's nets of eight bits: a file written here, operator by operator; what is refused; published nets."""

from pathlib import Path

import numpy as np
import pytest
from cli_tools import numnet, works

import numnet as library
from numnet import quantised
from numnet.errors import NumnetError

tflite = pytest.importorskip("tflite")
flatbuffers = pytest.importorskip("flatbuffers")

SHARED = Path(__file__).parents[2] / "shared" / "weights" / "int8"
KINDS = {np.dtype(np.int8): 9, np.dtype(np.uint8): 3, np.dtype(np.int32): 2, np.dtype(np.float32): 0}


class File:
    """Tensors and operators of a graph, and the bytes of the file that holds them."""

    def __init__(self):
        self.tensors, self.operators, self.codes = [], [], []

    def tensor(self, shape, dtype=np.int8, scale=None, zero=0, data=None, axis=0):
        """Append a tensor, constant where there is data; its number."""
        self.tensors.append((shape, np.dtype(dtype), scale, zero, data, axis))
        return len(self.tensors) - 1

    def operator(self, code, inputs, output, kind=0, table=None):
        """Append an operator; ``table``: function(builder) -> its options."""
        self.operators.append((code, inputs, output, kind, table))
        return output

    def bytes(self, first, last):
        b = flatbuffers.Builder(1024)
        codes = sorted({code for code, *_ in self.operators})
        buffers, tensors = [self.buffer(b, None)], []
        for shape, dtype, scale, zero, data, axis in self.tensors:
            if data is not None:
                buffers.append(self.buffer(b, data.astype(dtype).tobytes()))
            at = len(buffers) - 1 if data is not None else 0
            name = b.CreateString(f"tensor{len(tensors)}")
            quantisation = None
            if scale is not None:
                scales, zeros = np.atleast_1d(np.float32(scale)), np.atleast_1d(np.int64(zero))
                zeros = np.broadcast_to(zeros, scales.shape)
                ends = b.CreateNumpyVector(scales), b.CreateNumpyVector(np.ascontiguousarray(zeros))
                tflite.QuantizationParametersStart(b)
                tflite.QuantizationParametersAddScale(b, ends[0])
                tflite.QuantizationParametersAddZeroPoint(b, ends[1])
                tflite.QuantizationParametersAddQuantizedDimension(b, axis)
                quantisation = tflite.QuantizationParametersEnd(b)
            shape = b.CreateNumpyVector(np.array(shape, np.int32))
            tflite.TensorStart(b)
            tflite.TensorAddShape(b, shape)
            tflite.TensorAddType(b, KINDS[dtype])
            tflite.TensorAddBuffer(b, at)
            tflite.TensorAddName(b, name)
            if quantisation is not None:
                tflite.TensorAddQuantization(b, quantisation)
            tensors.append(tflite.TensorEnd(b))
        operators = []
        for code, inputs, output, kind, table in self.operators:
            ends = (
                b.CreateNumpyVector(np.array(inputs, np.int32)),
                b.CreateNumpyVector(np.array([output], np.int32)),
            )
            options = table(b) if table else None
            tflite.OperatorStart(b)
            tflite.OperatorAddOpcodeIndex(b, codes.index(code))
            tflite.OperatorAddInputs(b, ends[0])
            tflite.OperatorAddOutputs(b, ends[1])
            if options is not None:
                tflite.OperatorAddBuiltinOptionsType(b, kind)
                tflite.OperatorAddBuiltinOptions(b, options)
            operators.append(tflite.OperatorEnd(b))
        listed = [self.list(b, tflite.SubGraphStartTensorsVector, tensors)]
        listed.append(self.list(b, tflite.SubGraphStartOperatorsVector, operators))
        ends = (
            b.CreateNumpyVector(np.array([first], np.int32)),
            b.CreateNumpyVector(np.array([last], np.int32)),
        )
        tflite.SubGraphStart(b)
        tflite.SubGraphAddTensors(b, listed[0])
        tflite.SubGraphAddOperators(b, listed[1])
        tflite.SubGraphAddInputs(b, ends[0])
        tflite.SubGraphAddOutputs(b, ends[1])
        graph = tflite.SubGraphEnd(b)
        known = []
        for code in codes:
            tflite.OperatorCodeStart(b)
            tflite.OperatorCodeAddDeprecatedBuiltinCode(b, min(code, 127))
            tflite.OperatorCodeAddBuiltinCode(b, code)
            known.append(tflite.OperatorCodeEnd(b))
        lists = [
            self.list(b, tflite.ModelStartOperatorCodesVector, known),
            self.list(b, tflite.ModelStartSubgraphsVector, [graph]),
            self.list(b, tflite.ModelStartBuffersVector, buffers),
        ]
        tflite.ModelStart(b)
        tflite.ModelAddVersion(b, 3)
        tflite.ModelAddOperatorCodes(b, lists[0])
        tflite.ModelAddSubgraphs(b, lists[1])
        tflite.ModelAddBuffers(b, lists[2])
        b.Finish(tflite.ModelEnd(b), b"TFL3")
        return bytes(b.Output())

    @staticmethod
    def list(b, start, items):
        start(b, len(items))
        for item in reversed(items):
            b.PrependUOffsetTRelative(item)
        return b.EndVector()

    @staticmethod
    def buffer(b, data):
        vector = b.CreateByteVector(data) if data is not None else None
        tflite.BufferStart(b)
        if vector is not None:
            tflite.BufferAddData(b, vector)
        return tflite.BufferEnd(b)


def options(name, **values):
    def table(b):
        getattr(tflite, f"{name}Start")(b)
        for key, value in values.items():
            getattr(tflite, f"{name}Add{key}")(b, value)
        return getattr(tflite, f"{name}End")(b)

    return table


OPTIONS, OPERATOR = tflite.BuiltinOptions, tflite.BuiltinOperator
SAME, RELU6 = 0, 3


def small(seed=0):
    """A net of each kind of operator, and its constants by name."""
    rng, file, c = np.random.default_rng(seed), File(), {}
    draw = lambda *shape: rng.integers(-127, 128, shape)  # noqa: E731

    def weights(name, *shape):
        filters = shape[0] if shape[0] > 1 else shape[-1]
        c[name] = (
            draw(*shape),
            rng.uniform(0.002, 0.01, filters).astype(np.float32),
            rng.integers(-500, 500, filters),
        )
        w, scales, bias = c[name]
        return [
            file.tensor(shape, np.int8, scales, 0, w, 0 if shape[0] > 1 else 3),
            file.tensor((filters,), np.int32, scales * 0.02, 0, bias),
        ]

    conv = options("Conv2DOptions", Padding=SAME, StrideW=2, StrideH=2, DilationWFactor=1, DilationHFactor=1,
                   FusedActivationFunction=RELU6)  # fmt: skip
    depth = options("DepthwiseConv2DOptions", Padding=SAME, StrideW=1, StrideH=1, DepthMultiplier=1,
                    DilationWFactor=1, DilationHFactor=1)  # fmt: skip
    plain = options("Conv2DOptions", Padding=SAME, StrideW=1, StrideH=1, DilationWFactor=1, DilationHFactor=1)
    x = file.tensor((1, 9, 9, 3), np.uint8, 0.02, 120)
    a = file.tensor((1, 5, 5, 8), np.int8, 6 / 255, -128)
    y = file.operator(OPERATOR.CONV_2D, [x, *weights("stem", 8, 3, 3, 3)], a, OPTIONS.Conv2DOptions, conv)
    d = file.tensor((1, 5, 5, 8), np.int8, 0.05, -3)
    y = file.operator(
        OPERATOR.DEPTHWISE_CONV_2D,
        [y, *weights("depth", 1, 3, 3, 8)],
        d,
        OPTIONS.DepthwiseConv2DOptions,
        depth,
    )
    h = file.tensor((1, 5, 5, 8), np.int8, 0.04, -100)
    h = file.operator(OPERATOR.HARD_SWISH, [y], h)
    m = file.operator(OPERATOR.MEAN, [h, file.tensor((2,), np.int32, None, 0, np.array([1, 2]))],
                      file.tensor((1, 1, 1, 8), np.int8, 0.03, -90))  # fmt: skip
    g = file.tensor((1, 1, 1, 8), np.int8, 0.02, -128)
    g = file.operator(OPERATOR.CONV_2D, [m, *weights("gate", 8, 1, 1, 8)], g, OPTIONS.Conv2DOptions, conv)
    sixth = file.tensor((), np.int8, 1 / 6 / 255, -128, np.array(127))
    s = file.operator(OPERATOR.MUL, [g, sixth], file.tensor((1, 1, 1, 8), np.int8, 1 / 255, -128))
    e = file.operator(OPERATOR.MUL, [h, s], file.tensor((1, 5, 5, 8), np.int8, 0.04, -100))
    p = file.tensor((1, 5, 5, 8), np.int8, 0.06, 5)
    p = file.operator(OPERATOR.CONV_2D, [e, *weights("project", 8, 1, 1, 8)], p, OPTIONS.Conv2DOptions, plain)
    z = file.operator(OPERATOR.ADD, [p, h], file.tensor((1, 5, 5, 8), np.int8, 0.07, -20))
    m = file.operator(OPERATOR.MEAN, [z, file.tensor((2,), np.int32, None, 0, np.array([1, 2]))],
                      file.tensor((1, 8), np.int8, 0.03, -20))  # fmt: skip
    logits = file.tensor((1, 5), np.int8, 0.05, 3)
    y = file.operator(OPERATOR.FULLY_CONNECTED, [m, *weights("dense", 5, 8)], logits)
    y = file.operator(OPERATOR.SOFTMAX, [y], file.tensor((1, 5), np.int8, 1 / 256, -128))
    return file, file.bytes(x, y), c


def test_each_operator_beside_real_numbers(tmp_path):
    """Each map within a step and a half of what the dequantised numbers give: it is rounded once more."""
    path = tmp_path / "small.tflite"
    path.write_bytes(small()[1])
    net = library.weights.import_tflite(path)
    kinds = [step.kind for step in net.steps]
    assert kinds == [
        "conv",
        "depthwise",
        "table",
        "average",
        "dense",
        "table",
        "excite",
        "conv",
        "add",
        "average",
        "dense",
    ]
    assert net.notes and "softmax" in net.notes[0] and net.classes == 5 and net.input_shape == (9, 9, 3)
    q = np.random.default_rng(1).integers(0, 256, (3, 9, 9, 3)).astype(np.uint8)
    maps, real = net.maps(q), net.dequantised()
    for number, step in enumerate(real):
        inputs = [net.reals(maps[i], i) for i in step.reads]
        want = inputs[0] / 6 if step.line else quantised.steps.step_in_reals(step, inputs)
        grid = net.steps[number].grid
        low, high = (bound - grid.zero for bound in (0, 255))
        want = np.clip(want / grid.scale, low, high)
        got = maps[number + 1].astype(int) - grid.zero
        assert np.abs(got - want).max() < 0.52 and len(np.unique(got)) > 4, step.name
    pixels = (q / np.float32(255) - np.float32(net.scaling["mean"])) / np.float32(net.scaling["std"])
    assert (net.predict(pixels.astype(np.float32)) == net.reals(maps[-1], len(maps) - 1)).all()
    assert [(a == b).all() for a, b in zip(net.definition_maps(q), maps)] == [True] * len(maps)


@pytest.mark.parametrize(
    "scale, zero, black, white",
    [
        (1 / 255, 0, 0, 1),  # pixels of 0 … 1
        (2 / 255, 127, -1, 1),  # Keras's
        (1.0, 0, 0, 255),  # bytes as floats
        (4.2 / 255, 130, -130 * 4.2 / 255, 125 * 4.2 / 255),  # others: as the grid has it
    ],
)
def test_floats_come_in_as_the_grid_says(tmp_path, scale, zero, black, white):
    file, _, _ = small()
    file.tensors[0] = ((1, 9, 9, 3), np.dtype(np.uint8), scale, zero, None, 0)
    floats = file.tensor((1, 9, 9, 3), np.float32)
    file.operators.insert(0, (OPERATOR.QUANTIZE, [floats], 0, 0, None))
    path = tmp_path / "floats.tflite"
    path.write_bytes(file.bytes(floats, file.operators[-1][2]))
    net = library.weights.import_tflite(path)
    mean, std = (np.array(net.scaling[name]) for name in ("mean", "std"))
    assert np.allclose((0 - mean) / std, black, atol=1e-6) and np.allclose((1 - mean) / std, white, rtol=1e-6)
    assert any("takes floats, its grid goes from" in note for note in net.notes)


def test_a_graph_that_is_read_in_part_is_refused(tmp_path):
    path = tmp_path / "part.tflite"
    relu6 = options("Pool2DOptions", FilterHeight=5, FilterWidth=5, FusedActivationFunction=RELU6)
    for change, words in (
        (lambda file: file.operators[2][2], "its output is not what its last operator makes"),
        (lambda file: file.operators.insert(3, (OPERATOR.SOFTMAX, [file.operators[2][2]], 3, 0, None)), None),
        (lambda file: file.operators.__setitem__(-3, (OPERATOR.AVERAGE_POOL_2D, file.operators[-3][1][:1],
         file.operators[-3][2], OPTIONS.Pool2DOptions, relu6)), "AVERAGE_POOL_2D with a fused activation"),
    ):  # fmt: skip
        file, _, _ = small()
        last = change(file)
        if words is None:  # a softmax in the middle: what follows reads a map behind it
            words = "operators behind a softmax"
        path.write_bytes(file.bytes(0, file.operators[-1][2] if last is None else last))
        with pytest.raises(NumnetError, match=words):
            library.weights.import_tflite(path)


def test_the_command_makes_a_checkpoint(tmp_path):
    path, out = tmp_path / "small.tflite", tmp_path / "small.safetensors"
    path.write_bytes(small()[1])
    assert "eight bits" in works("import", path, "-o", out)
    net, again = library.weights.import_tflite(path), library.load(out)
    x = np.random.default_rng(0).normal(size=(2, 9, 9, 3)).astype(np.float32)
    assert (net.predict(x) == again.predict(x)).all() and again.scaling == net.scaling
    assert again.document["source"]["framework"] == "TensorFlow Lite"
    code, _, err = numnet("import", path, "-o", out, "--model", "mobilenet_v1")
    assert code == 2 and "--model" in err and err.count("\n") == 1


def test_weights_of_uint8_with_a_zero_point(tmp_path):
    file = File()
    rng = np.random.default_rng(0)
    w, bias = rng.integers(0, 256, (4, 1, 1, 3)), rng.integers(-99, 99, 4)
    x = file.tensor((1, 6, 6, 3), np.uint8, 0.02, 120)
    y = file.tensor((1, 6, 6, 4), np.uint8, 0.05, 90)
    inputs = [x, file.tensor(w.shape, np.uint8, 0.01, 200, w), file.tensor((4,), np.int32, 0.0002, 0, bias)]
    table = options("Conv2DOptions", Padding=1, StrideW=1, StrideH=1, DilationWFactor=1, DilationHFactor=1)
    file.operator(OPERATOR.CONV_2D, inputs, y, OPTIONS.Conv2DOptions, table)
    path = tmp_path / "old.tflite"
    path.write_bytes(file.bytes(x, y))
    net = library.weights.import_tflite(path)
    q = rng.integers(0, 256, (2, 6, 6, 3)).astype(np.uint8)
    real = (q - 120.0) * 0.02 @ ((w[:, 0, 0].T - 200.0) * 0.01) + bias * 0.0002
    want = np.clip(np.floor(real / 0.05 + 0.5) + 90, 0, 255)
    assert np.abs(net.maps(q)[1] - want).max() <= 1 and net.steps[0].weight.dtype == np.int16


def pooled(padding, side, stride=2, code=0, **sides):
    """A graph of one MAX_POOL_2D of 3×3 over 9×9×5 maps, and the file's bytes."""
    file = File()
    x, y = file.tensor((1, 9, 9, 5), np.int8, 0.02, 3), file.tensor((1, side, side, 5), np.int8, 0.02, 3)
    sides = {"FilterHeight": 3, "FilterWidth": 3, "StrideW": stride, "StrideH": stride, **sides}
    table = options("Pool2DOptions", Padding=padding, FusedActivationFunction=code, **sides)
    file.operator(OPERATOR.MAX_POOL_2D, [x], y, OPTIONS.Pool2DOptions, table)
    return file.bytes(x, y)


@pytest.mark.parametrize("padding, side, stride", [(SAME, 5, 2), (1, 4, 2), (SAME, 9, 1), (1, 3, 3)])
def test_the_largest_of_each_window(tmp_path, padding, side, stride):
    """Beside a maximum written out; what lies beyond the map is in no window."""
    path = tmp_path / "pooled.tflite"
    path.write_bytes(pooled(padding, side, stride))
    net = library.weights.import_tflite(path)
    q = np.random.default_rng(2).integers(0, 256, (2, 9, 9, 5)).astype(np.uint8)
    before = max((side - 1) * stride + 3 - 9, 0) // 2 if padding == SAME else 0
    starts = [(max(i * stride - before, 0), i * stride - before + 3) for i in range(side)]
    want = [[q[:, a:b, c:d].max((1, 2)) for c, d in starts] for a, b in starts]
    assert [step.kind for step in net.steps] == ["maximum"]
    assert (net.maps(q)[1] == np.array(want).transpose(2, 0, 1, 3)).all()


def test_windows_of_a_maximum_that_are_refused(tmp_path):
    path = tmp_path / "pooled.tflite"
    for given, words in (
        ({"FilterWidth": 2}, "not square"),
        ({"code": RELU6}, "MAX_POOL_2D with a fused activation"),
    ):
        path.write_bytes(pooled(1, 4, **given))
        with pytest.raises(NumnetError, match=words):
            library.weights.import_tflite(path)


@pytest.mark.parametrize("cut", [0, 4, 8, 40, 200, 900, -700, -40])
def test_a_file_that_is_cut_short_is_one_line(tmp_path, cut):
    path = tmp_path / "cut.tflite"
    path.write_bytes(small()[1][:cut])
    with pytest.raises(NumnetError) as caught:
        library.weights.import_tflite(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_bytes_that_are_changed_give_one_line_or_a_net(tmp_path):
    content, path = bytearray(small()[1]), tmp_path / "changed.tflite"
    rng = np.random.default_rng(0)
    for _ in range(150):
        changed = content.copy()
        for place in rng.integers(8, len(content), 3):
            changed[place] = rng.integers(0, 256)
        path.write_bytes(changed)
        try:
            library.weights.import_tflite(path)
        except NumnetError as error:
            assert "\n" not in str(error)


def test_what_is_refused(tmp_path):
    path = tmp_path / "net.tflite"

    def refused(file, x, y, words):
        path.write_bytes(file.bytes(x, y))
        with pytest.raises(NumnetError, match=words):
            library.weights.import_tflite(path)

    file = File()
    x, y = file.tensor((1, 4, 4, 3), np.uint8, 0.1, 0), file.tensor((1, 4, 4, 3), np.uint8, 0.1, 0)
    file.operator(OPERATOR.RESIZE_BILINEAR, [x], y)
    refused(file, x, y, "RESIZE_BILINEAR, which has no arithmetic")
    file = File()
    x, y = file.tensor((1, 4, 4, 3), np.float32), file.tensor((1, 4, 4, 3), np.float32)
    file.operator(OPERATOR.RELU, [x], y)
    refused(file, x, y, "FLOAT32; expected a net in eight bits")
    path.write_bytes(b"not a net at all")
    with pytest.raises(NumnetError, match="no TensorFlow Lite file"):
        library.weights.import_tflite(path)
    with pytest.raises(NumnetError, match="cannot be read"):
        library.weights.import_tflite(tmp_path / "nowhere.tflite")


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published nets lie beside this checkout only")
@pytest.mark.parametrize(
    "name, right, apart",
    [
        ("mobilenet_v1_0.25_128_uint8", 8, 14),
        ("mobilenet_v2_1.0_224_int8", 8, 21),
        ("mobilenet_v3_small_1.0_224_int8", 5, 60),
    ],
)
def test_published_nets_beside_litert(name, right, apart):
    """First answers, and the largest difference in steps of the output's scale. LiteRT rounds twice in places."""
    stored = np.load(SHARED / "litert_outputs8.npz")
    net = library.weights.import_tflite(SHARED / f"{name}.tflite")
    x, want = stored[f"{name}_input"], stored[f"{name}_output"]
    if x.dtype == np.uint8:
        got = softmax(net.reals(net.run(x), len(net.steps))) * 256
    else:
        scale = net.steps[-1].grid.scale
        got, want = net.predict(x) / scale, want / scale
    far = np.abs(got - want).max()
    assert (got.argmax(1) == want.argmax(1)).sum() >= right and far <= apart
