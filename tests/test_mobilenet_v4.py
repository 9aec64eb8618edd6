"""MobileNetV4: the four forms of its block, its gradients, its own tables, its ways out."""

from itertools import pairwise

import numpy as np
import pytest

import numnet
from numnet import weights
from numnet.blocks import Norm, Residual, UniversalBottleneck
from numnet.drawing import draw
from numnet.errors import NumnetError
from numnet.layers import Flatten, GlobalAverage
from numnet.models import mobilenet_v4

SMALL = {"width": 0.25, "resolution": 32, "classes": 5}


def kinds(block):
    return [(child.kind, getattr(child, "kernel", 1), child.activation) for child in block.children]


def test_one_block_has_four_forms():
    def form(start, middle):
        return kinds(UniversalBottleneck(8, expanded=16, start=start, middle=middle))

    expand, project = ("pointwise", 1, "relu"), ("pointwise", 1, "identity")
    first, second = ("depthwise", 5, "identity"), ("depthwise", 3, "relu")
    assert form(5, 3) == [first, expand, second, project]
    assert form(0, 3) == [expand, second, project]
    assert form(5, 0) == [first, expand, project]
    assert form(0, 0) == [expand, project]


def test_the_stride_is_the_second_kernel_s_if_there_is_one():
    def strides(start, middle):
        block = UniversalBottleneck(8, 2, expanded=16, start=start, middle=middle)
        block.connect((8, 8, 8))
        assert not block.adds and block.output_shape == (4, 4, 8)
        return [child.stride for child in block.children if child.kind == "depthwise"]

    assert strides(3, 5) == [1, 2] and strides(0, 3) == [2] and strides(3, 0) == [2]
    with pytest.raises(ValueError, match="needs a depthwise convolution"):
        UniversalBottleneck(8, 2, expanded=16, start=0, middle=0)


@pytest.mark.parametrize("start, middle, stride", [(3, 3, 1), (5, 0, 1), (0, 0, 1), (3, 5, 2)])
def test_gradients_of_every_form(start, middle, stride):
    """With batch norm and the skip where there is one; a smooth activation, so that no number lies beside a kink."""
    block = UniversalBottleneck(
        4, stride, expanded=8, start=start, middle=middle, activation="swish", norm=Norm()
    )
    net = numnet.Net([block, GlobalAverage(), Flatten()], (5, 6, 4), dtype="float64")
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 4))
    assert block.adds == (stride == 1)
    assert numnet.check_gradients(net, x)


def test_the_pool_that_keeps_its_map():
    net = numnet.Net([GlobalAverage(keep=True), Flatten()], (3, 4, 2), dtype="float64")
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 2))
    assert net.layers[0].output_shape == (1, 1, 2)
    for y in (net.forward(x), net.predict(x)):
        np.testing.assert_allclose(y, x.mean((1, 2)))
    net.forward(x, training=True)
    dy = np.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(net.backward(dy), np.broadcast_to(dy[:, None, None] / 12, x.shape))


@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_the_tables_fit_each_other(size):
    """Rows of one stage have one number of channels, only the first of them a stride; five halvings in all."""
    rows = mobilenet_v4.ROWS[size]
    for before, row in pairwise(rows):
        assert (row.s == 2) == (row.c != before.c)
    net = numnet.describe(f"mobilenet_v4_{size}", resolution=256)
    assert net.layers[len(rows)].output_shape == (8, 8, rows[-1].c)
    blocks = [layer for layer in net.layers if isinstance(layer, Residual)]
    assert sum(block.adds for block in blocks) == sum(row.s == 1 and row.kind != "conv" for row in rows)


def test_cifar_s_strides_keep_a_small_image_large():
    shapes = {
        strides: numnet.describe("mobilenet_v4_small", resolution=32, strides=strides).layers[14].output_shape
        for strides in ("imagenet", "cifar")
    }
    assert shapes == {"imagenet": (1, 1, 128), "cifar": (4, 4, 128)}


@pytest.mark.parametrize(
    "options", [{}, {"variant": "torch", "padding": "symmetric"}], ids=["keras", "torch"]
)
def test_inference_folds_as_forward_does(options):
    net = numnet.build("mobilenet_v4_small", **SMALL, **options)
    x = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)
    net.forward(x, training=True)  # running statistics that are not 0 and 1
    want = net.forward(x)
    assert np.abs(net.predict(x) - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("folded", [False, True])
def test_onnx_runtime_computes_the_same(folded):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    net = numnet.build("mobilenet_v4_small", **SMALL)
    x = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)
    net.forward(x, training=True)
    model = weights.export_onnx(net, folded=folded)
    assert not {node.op_type for node in model.graph.node} & {"Transpose", "QuantizeLinear"}
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"images": x.transpose(0, 3, 1, 2)})
    want = net.forward(x)
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_a_table_of_one_s_own():
    rows = [
        ["conv", 0, 3, 16, 16, 2],
        ["fused", 0, 3, 32, 16, 1],
        ["uib", 3, 0, 32, 16, 1],
        ["uib", 0, 0, 8, 8, 1],
    ]
    net = numnet.build("mobilenet_v4_small", rows=rows, stem=8, last=24, wide=40, resolution=16, classes=3)
    assert [layer.kind for layer in net.layers[1:5]] == [
        "sequence", "residual", "universal bottleneck", "universal bottleneck"
    ]  # fmt: skip
    assert [layer.output_shape[-1] for layer in net.layers] == [8, 16, 16, 16, 8, 24, 24, 40, 40, 3]
    assert net.forward(np.zeros((1, 16, 16, 3), np.float32)).shape == (1, 3)


@pytest.mark.parametrize(
    "row, words",
    [
        (["uib", 0, 0, 32, 16, 2], "row 1 has stride 2 and no depthwise convolution"),
        (["fused", 3, 3, 32, 16, 1], "row 1 is a fused block, whose only kernel is k2"),
        (["conv", 0, 0, 32, 16, 1], "row 1 is a conv block, whose only kernel is k2"),
        (["mqa", 3, 3, 32, 16, 1], "kind of row 1 is 'mqa', not one of conv, fused, uib"),
        (["uib", -1, 3, 32, 16, 1], "k1 of row 1 is -1, not 0 for none"),
        ([3, 3, 32, 16, 1], "expected a list of"),
    ],
)
def test_rows_that_no_net_can_have(row, words):
    with pytest.raises(NumnetError, match=words):
        numnet.describe("mobilenet_v4_small", rows=[row])


def test_the_picture_shows_both_depthwise_convolutions(tmp_path):
    figure = draw(numnet.describe("mobilenet_v4_small"), tmp_path / "v4.svg")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "depthwise 5×5" in texts and "depthwise 5×5 /2, relu" in texts


def test_names_of_timm_s_say_how_images_are_prepared(tmp_path):
    net = numnet.build("mobilenet_v4_medium", width=0.1, resolution=32, classes=3, variant="torch")
    file = tmp_path / "mobilenetv4_conv_medium.e500_r256_in1k.safetensors"
    weights.export_torch(net, file, "timm")
    from safetensors.numpy import save_file

    from numnet import checkpoint

    save_file(checkpoint.read_safetensors(file)[0], file)  # as others write it: no word of numnet's in it
    again = weights.import_file(file)
    assert again.config["model"] == "mobilenet_v4_medium" and again.config["width"] == 0.1
    assert again.input_shape == (256, 256, 3) and again.document["preset"] == "bicubic/0.95"
    np.testing.assert_array_equal(again.flat, net.flat)
