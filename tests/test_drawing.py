"""The picture of a net: every layer has a box, every addition an arc, and nothing lies on anything else."""

import itertools

import pytest
from cli_tools import numnet as command
from cli_tools import works

import numnet
from numnet.blocks import Conv, Residual, Sequence, SqueezeExcite
from numnet.drawing import HEIGHT, WIDTH, _lay_out, draw
from numnet.errors import NumnetError
from numnet.layers import MaxPool


def leaves(layers):
    for layer in layers:
        if layer.children and not isinstance(layer, SqueezeExcite):
            yield from leaves(layer.children)
        else:
            yield layer


@pytest.mark.parametrize("model", numnet.models())
def test_every_layer_has_a_box(model):
    net = numnet.describe(model)
    page, wide, high = _lay_out(net)
    assert len(page.boxes) == len(list(leaves(net.layers)))
    adds = [layer for layer in net.layers if isinstance(layer, Residual) and layer.adds]
    assert len(page.skips) == len(page.pluses) == len(adds)
    strided = [layer for layer in leaves(net.layers) if getattr(layer, "stride", 1) > 1]
    assert sum(box.strided for box in page.boxes) == len(strided) > 0
    assert all(box.text.count("/2") == box.strided for box in page.boxes)
    for one, two in itertools.combinations(page.boxes, 2):
        assert abs(one.x - two.x) >= WIDTH or abs(one.y - two.y) >= HEIGHT, (one, two)
    assert all(0 < box.x and box.x + WIDTH < wide and box.y + HEIGHT / 2 < high for box in page.boxes)
    assert wide < 20 and high < 20
    texts = [text for _, _, text, _ in page.texts]
    for layer in net.layers:
        if len(layer.output_shape) == 3:
            assert layer.name in texts and "×".join(map(str, layer.output_shape)) in texts


def test_the_picture_is_written(tmp_path):
    file = tmp_path / "net.png"
    figure = draw(numnet.describe("mobilenet_v3_small"), file)
    assert file.read_bytes().startswith(b"\x89PNG")
    assert any("mobilenet_v3_small" in text.get_text() for text in figure.axes[0].texts)
    net = numnet.Net([Sequence(*numnet.describe("mobilenet_v2").layers[:2])], (32, 32, 3), allocate=False)
    draw(net, tmp_path / "own.svg")  # a net of one's own, blocks in blocks
    with pytest.raises(NumnetError, match="cannot write"):
        draw(net, tmp_path / "net.docx")


def test_the_command(tmp_path):
    file = tmp_path / "net.svg"
    assert works("draw", "mobilenet_v2", "--width", "0.5", "--strides", "cifar", "-o", file) == f"{file}\n"
    assert "<svg" in file.read_text()
    for options, words in ((["-o", tmp_path / "net.docx"], "-o: expected a name that ends in"), ([], "-o")):
        code, out, err = command("draw", "mobilenet_v2", *options)
        assert code == 2 and out == "" and err.startswith("numnet: error: ") and words in err


def test_the_line_of_facts_fits_on_a_narrow_page():
    """Three wide convolutions one above another: few boxes, many MACs."""
    layers = [Conv(256, activation="relu", name=f"conv{i}") for i in (1, 2, 3)]
    figure = draw(numnet.Net([*layers, MaxPool(2, name="pool")], (56, 56, 128), allocate=False))
    renderer, page = figure.canvas.get_renderer(), figure.bbox
    for text in figure.axes[0].texts:
        extent = text.get_window_extent(renderer)
        assert 0 <= extent.x0 and extent.x1 <= page.x1, text.get_text()
