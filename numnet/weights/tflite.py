"""TensorFlow Lite: a published net of eight bits, read as one of ours.

A .tflite file is a graph of operators on tensors, each with its scales and zero points. It becomes a list of steps
(``numnet.quantised``), nothing is quantised anew:

    CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED     conv, depthwise, dense, with the cut of a fused relu or relu6
    ADD · MUL of a map and one number a channel     add · excite
    MEAN over rows and columns, AVERAGE_POOL_2D of a whole map      average
    MAX_POOL_2D                                     maximum
    HARD_SWISH, LOGISTIC, RELU, RELU6, and ADD, SUB, MUL with a constant         table
    RESHAPE, SQUEEZE, QUANTIZE and DEQUANTIZE at the ends, and the last SOFTMAX      nothing: logits come out

Numbers of int8 are ours less 128. Weights of uint8 with a zero point (older files) become int16, and their layers run by the
definition. The package ``tflite`` reads the file's tables. Anything else is refused, by its name.
"""

import struct
from pathlib import Path

import numpy as np

from numnet.errors import NumnetError
from numnet.kernels.activations import HSWISH, IDENTITY, RELU, RELU6, SIGMOID
from numnet.kernels.eight_bits import Grid
from numnet.kernels.padding import resolve
from numnet.quantised.files import check
from numnet.quantised.make import bounds_of
from numnet.quantised.net import QuantisedNet
from numnet.quantised.steps import Step

LIMIT = 1 << 30  # bytes of a file
# Black and white as nets of float input read them: 0 … 1, Keras's −1 … 1, and nets that scale bytes themselves.
FLOATS = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
NEAR = 0.1  # of a range: images that the grid was taken from may lack black or white


def import_tflite(path) -> QuantisedNet:
    """The net of a .tflite file. Raises NumnetError, one line, for what is no such file, a float net, a foreign operator."""
    path = Path(path)
    try:
        import tflite
    except ImportError:
        raise NumnetError(
            'import: .tflite needs the package tflite: pip install ".[tflite]" or tflite'
        ) from None
    try:
        content = path.read_bytes() if path.stat().st_size <= LIMIT else b""
    except OSError as error:
        raise NumnetError(f"{path}: cannot be read ({error.strerror or error})") from None
    if content[4:8] != b"TFL3":
        raise NumnetError(f"{path}: no TensorFlow Lite file")
    try:
        reader = _Reader(tflite, content, path)
        net = reader.net()
        check(net)
        net.prepare()
    except (
        struct.error,
        IndexError,
        TypeError,
        ValueError,
        AttributeError,
        KeyError,
        OverflowError,
    ) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise NumnetError(
            f"{path}: damaged TensorFlow Lite file, or not one of a chain of images ({words})"
        ) from None
    net.path = path
    return net


class _Reader:
    def __init__(self, tflite, content, path):
        self.tflite, self.path = tflite, path
        self.model = tflite.Model.GetRootAs(content, 0)
        if self.model.SubgraphsLength() != 1:
            raise NumnetError(f"{path}: has {self.model.SubgraphsLength()} graphs, expected one")
        self.graph = self.model.Subgraphs(0)
        if self.graph.InputsLength() != 1 or self.graph.OutputsLength() != 1:
            raise NumnetError(f"{path}: expected a graph with one input and one output")
        self.operators = {n: name for name, n in vars(tflite.BuiltinOperator).items() if isinstance(n, int)}
        self.kinds = {n: name for name, n in vars(tflite.TensorType).items() if isinstance(n, int)}
        self.steps, self.maps, self.notes = [], {}, []  # maps: number of a tensor -> number of a map
        self.ended = False  # by a softmax

    # -------------------------------------------------------------- tensors

    def shape(self, number) -> tuple:
        """Of one image, without the batch; (1, 1, C) is (C,)."""
        tensor = self.graph.Tensors(number)
        shape = tuple(int(n) for n in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()
        shape = shape[1:]
        return shape[2:] if shape[:2] == (1, 1) and len(shape) == 3 else shape

    def kind(self, number) -> str:
        return self.kinds[self.graph.Tensors(number).Type()]

    def scales(self, number):
        """(scales, zero points), float64 and int64 arrays."""
        found = self.graph.Tensors(number).Quantization()
        if found is None or not found.ScaleLength():
            name = self.graph.Tensors(number).Name().decode("utf-8", "replace")[:80]
            raise NumnetError(
                f"{self.path}: {name!r} has no scale; expected a net in eight bits, this one is of floats"
            )
        zeros = (
            found.ZeroPointAsNumpy() if found.ZeroPointLength() else np.zeros(found.ScaleLength(), np.int64)
        )
        return found.ScaleAsNumpy().astype(np.float64), zeros.astype(np.int64)

    def grid(self, number) -> Grid:
        if self.kind(number) not in ("INT8", "UINT8"):
            raise NumnetError(
                f"{self.path}: a map of {self.kind(number)}; expected a net in eight bits (INT8 or UINT8)"
            )
        scales, zeros = self.scales(number)
        if len(scales) != 1:
            raise ValueError("a map with several scales")
        return Grid(float(scales[0]), int(zeros[0]) + (128 if self.kind(number) == "INT8" else 0))

    def constant(self, number):
        """The array of a constant tensor; None for a map."""
        tensor = self.graph.Tensors(number)
        buffer = self.model.Buffers(tensor.Buffer())
        if not buffer.DataLength():
            return None
        dtype = {"INT8": np.int8, "UINT8": np.uint8, "INT32": np.int32, "FLOAT32": np.float32}[
            self.kind(number)
        ]
        shape = tensor.ShapeAsNumpy().tolist() if tensor.ShapeLength() else []
        return buffer.DataAsNumpy().tobytes(), dtype, tuple(shape)

    def array(self, number):
        content, dtype, shape = self.constant(number)
        return np.frombuffer(content, np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(shape)

    def real(self, number):
        """A constant in real numbers, float64."""
        array = self.array(number)
        if array.dtype == np.float32:
            return array.astype(np.float64)
        scales, zeros = self.scales(number)
        return (array.astype(np.float64) - zeros[0]) * scales[0]

    # -------------------------------------------------------------- operators

    def net(self) -> QuantisedNet:
        first, last = int(self.graph.Inputs(0)), int(self.graph.Outputs(0))
        graph = self.graph
        operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
        start = first
        if operators and self.name(operators[0]) == "QUANTIZE":  # floats, or bytes with another zero point
            start = int(operators[0].Outputs(0))
            operators = operators[1:]
        self.input, self.start = self.shape(start), self.grid(start)
        if len(self.input) != 3:
            raise NumnetError(f"{self.path}: reads {self.input}; expected images (H, W, C)")
        self.maps[start] = 0
        for operator in operators:
            self.add(operator)
        if self.maps.get(last) != len(self.steps):
            raise NumnetError(f"{self.path}: its output is not what its last operator makes")
        made = {"framework": "TensorFlow Lite", "layout": "tflite", "file": self.path.name}
        std = 1 / (255 * self.start.scale)
        scaling = {"mean": [self.start.zero * self.start.scale * std] * 3, "std": [std] * 3}
        if self.kind(first) == "FLOAT32":
            scaling = self.of_floats()
        elif self.start.zero / 255 != scaling["mean"][0]:
            scaling["mean"] = [self.start.zero / 255] * 3
        net = QuantisedNet(
            self.steps,
            self.start,
            self.input,
            scaling=scaling,
            document={"source": made, "preset": "torchvision"},
        )
        net.notes = self.notes
        return net

    def of_floats(self) -> dict:
        """The scaling of x/255 for a graph that takes floats: its grid tells which."""
        low, high = (float((end - self.start.zero) * self.start.scale) for end in (0, 255))
        ends = min(FLOATS, key=lambda ends: abs(low - ends[0]) + abs(high - ends[1]))
        apart = max(abs(low - ends[0]), abs(high - ends[1])) / (ends[1] - ends[0])
        ends = ends if apart <= NEAR else (low, high)
        self.notes.append(
            f"takes floats, its grid goes from {low:.3g} to {high:.3g}: took pixels of {ends[0]:.3g} … {ends[1]:.3g}; "
            "`numnet import --scaling NAME` takes others"
        )
        std = 1 / (ends[1] - ends[0])
        return {"mean": [(0 - ends[0]) * std] * 3, "std": [std] * 3}

    def name(self, operator) -> str:
        code = self.model.OperatorCodes(operator.OpcodeIndex())
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        return self.operators.get(number, str(number))

    def options(self, operator, kind):
        """The operator's table of options; None where the file has none."""
        table = operator.BuiltinOptions()
        if table is None:
            return None
        options = getattr(self.tflite, kind)()
        options.Init(table.Bytes, table.Pos)
        return options

    def code(self, options) -> int:
        """The activation that is fused into an operator."""
        fused = options.FusedActivationFunction() if options is not None else 0
        if fused not in (0, 1, 3):
            raise NumnetError(f"{self.path}: a fused activation number {fused}; expected none, RELU or RELU6")
        return {0: IDENTITY, 1: RELU, 3: RELU6}[fused]

    def add(self, operator) -> None:
        name = self.name(operator)
        inputs = [int(n) for n in operator.InputsAsNumpy()]
        out = int(operator.Outputs(0))
        reads = [n for n in inputs if n in self.maps]
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            self.sums(name, operator, inputs, out)
        elif name in ("ADD", "MUL", "SUB") and len(reads) == 1:
            self.with_constant(name, operator, inputs, out)
        elif name == "ADD":
            options = self.options(operator, "AddOptions")
            self.step("add", out, inputs, code=self.code(options))
        elif name == "MUL":
            self.excite(operator, inputs, out)
        elif name in ("MEAN", "AVERAGE_POOL_2D"):
            self.average(name, operator, inputs, out)
        elif name == "MAX_POOL_2D":
            self.maximum(operator, inputs[0], out)
        elif name in ("HARD_SWISH", "LOGISTIC", "RELU", "RELU6"):
            codes = {"HARD_SWISH": HSWISH, "LOGISTIC": SIGMOID, "RELU": RELU, "RELU6": RELU6}
            self.step("table", out, reads, code=codes[name])
        elif name in ("RESHAPE", "SQUEEZE"):
            self.reshape(inputs[0], out)
        elif name == "SOFTMAX" or (name in ("QUANTIZE", "DEQUANTIZE") and self.same(inputs[0], out, name)):
            if name == "SOFTMAX":
                self.ended = True
                self.notes.append("the last softmax is left out: logits come out, as of every net here")
            self.maps[out] = self.maps[inputs[0]]
        else:
            raise NumnetError(
                f"{self.path}: the operator {name}, which has no arithmetic in eight bits here; expected a MobileNet's"
            )

    def same(self, x, out, name) -> bool:
        """Whether an operator changes how numbers are written, not what they are; behind a softmax nobody asks."""
        return name == "DEQUANTIZE" or self.ended or self.grid(x) == self.grid(out)

    def step(self, kind, out, reads, *, code=IDENTITY, shape=None, **more) -> None:
        """Append a step that makes tensor ``out`` of tensors ``reads``."""
        if self.ended:
            raise NumnetError(f"{self.path}: operators behind a softmax; expected it to be the last")
        grid = self.grid(out)
        name = (
            self.graph.Tensors(out).Name().decode("utf-8", "replace").split(";")[0].strip("/") or f"step{out}"
        )
        taken = {step.name for step in self.steps}
        name = f"{len(self.steps)}.{name}"[:120] if name in taken or len(name) > 120 else name
        step = Step(
            kind, name, tuple(self.maps[n] for n in reads), shape or self.shape(out), code=code, grid=grid
        )
        if kind in ("conv", "depthwise", "dense", "add"):
            step.bounds = bounds_of(code, grid)
        for key, value in more.items():
            setattr(step, key, value)
        self.steps.append(step)
        self.maps[out] = len(self.steps)

    def sums(self, name, operator, inputs, out) -> None:
        x, w = inputs[0], inputs[1]
        weight, kind = self.array(w), self.kind(w)
        if kind not in ("INT8", "UINT8"):
            raise NumnetError(f"{self.path}: weights of {kind}; expected INT8 or UINT8")
        scales, zeros = self.scales(w)
        if name == "FULLY_CONNECTED":
            weight = weight[:, None, None, :]
        if len(weight.shape) != 4 or (zeros != zeros[0]).any():
            raise ValueError(f"weights of shape {weight.shape}")
        depthwise = name == "DEPTHWISE_CONV_2D"
        whole = weight.astype(np.int16) - np.int16(zeros[0])
        whole = whole.transpose(1, 2, 0, 3).copy() if depthwise else whole.transpose(1, 2, 3, 0).copy()
        if depthwise:  # (K, K, 1, C·M) to (K, K, C, M)
            channels = self.shape(x)[-1]
            whole = whole.reshape(*whole.shape[:2], channels, -1)
        filters = self.shape(out)[-1]
        if np.abs(whole).max(initial=0) <= 127 or (kind == "INT8" and not zeros.any()):
            whole = whole.astype(np.int8)
        bias = self.array(inputs[2]) if len(inputs) > 2 and inputs[2] >= 0 else np.zeros(filters, np.int32)
        arrays = {"weight": whole, "bias": bias.reshape(-1).astype(np.int32)}
        arrays["scales"] = np.broadcast_to(scales, filters).astype(np.float32)
        options = {"CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions"}
        options = self.options(operator, options.get(name, "FullyConnectedOptions"))
        code = self.code(options)
        if len(self.shape(x)) == 1:  # of one pixel: a dense layer
            self.step("dense", out, [x], code=code, **arrays)
            return
        frame = self.frame(x, whole.shape[:2], options)
        if options.DilationWFactor() != 1 or options.DilationHFactor() != 1:
            raise NumnetError(f"{self.path}: a dilated convolution, which has no arithmetic here")
        self.step("depthwise" if depthwise else "conv", out, [x], code=code, frame=frame, **arrays)

    def frame(self, x, sides, options) -> tuple:
        """(K, stride, padding) of a step's window of these sides over the map x."""
        k, stride = int(sides[0]), int(options.StrideW())
        if sides[0] != sides[1] or options.StrideH() != stride:
            raise NumnetError(f"{self.path}: a window or stride that is not square")
        padding = "same" if options.Padding() == 0 else 0
        pads = resolve(padding, self.shape(x)[:2], (k, k), stride)
        return k, stride, tuple(tuple(int(n) for n in pad) for pad in pads)

    def maximum(self, operator, x, out) -> None:
        options = self.options(operator, "Pool2DOptions")
        self.require_plain("MAX_POOL_2D", options)
        sides = options.FilterHeight(), options.FilterWidth()
        self.step("maximum", out, [x], frame=self.frame(x, sides, options))

    def with_constant(self, name, operator, inputs, out) -> None:
        """A map and a constant number: a table."""
        x = next(n for n in inputs if n in self.maps)
        number = self.real(next(n for n in inputs if n not in self.maps))
        if number.size != 1:
            raise NumnetError(f"{self.path}: {name} with a constant of {number.size} numbers; expected one")
        number, first = float(number.reshape(-1)[0]), inputs[0] == x
        kinds = {"ADD": "AddOptions", "MUL": "MulOptions", "SUB": "SubOptions"}
        code = self.code(self.options(operator, kinds[name]))

        line = (number, 0.0) if name == "MUL" else (1.0, number if name == "ADD" else -number)
        line = (-1.0, number) if name == "SUB" and not first else line
        self.step("table", out, [x], code=code, line=line)

    def excite(self, operator, inputs, out) -> None:
        self.require_plain("MUL", self.options(operator, "MulOptions"))
        shapes = [self.shape(n) for n in inputs]
        if len(shapes[0]) == 1:
            inputs, shapes = inputs[::-1], shapes[::-1]
        if len(shapes[0]) != 3 or shapes[1] != shapes[0][-1:]:
            raise NumnetError(
                f"{self.path}: MUL of maps {shapes[0]} and {shapes[1]}; expected one number a channel"
            )
        self.step("excite", out, inputs)

    def require_plain(self, name, options) -> None:
        """Refuse an activation that is fused into an operator which has none here."""
        if self.code(options) != IDENTITY:
            raise NumnetError(f"{self.path}: {name} with a fused activation; expected none")

    def average(self, name, operator, inputs, out) -> None:
        x = inputs[0]
        shape = self.shape(x)
        if len(shape) == 1:  # of one pixel
            self.maps[out] = self.maps[x]
            if self.grid(x) != self.grid(out):
                raise ValueError("a mean of one pixel with another scale")
            return
        if name == "AVERAGE_POOL_2D":
            options = self.options(operator, "Pool2DOptions")
            self.require_plain(name, options)
            whole = (options.FilterHeight(), options.FilterWidth()) == tuple(shape[:2])
        else:
            whole = sorted(self.array(inputs[1]).reshape(-1).tolist()) == [1, 2]
        if not whole or self.shape(out) != shape[-1:]:
            raise NumnetError(f"{self.path}: {name} over a part of a map; expected all of its pixels")
        self.step("average", out, [x])

    def reshape(self, x, out) -> None:
        if self.shape(x) == self.shape(out):
            self.maps[out] = self.maps[x]
        else:
            self.step("flatten", out, [x])
