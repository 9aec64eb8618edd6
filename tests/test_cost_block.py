"""What single blocks cost: the sums of the articles and papers, the kernels' own closed forms, and mistakes."""

import json
import re

import pytest
from cli_tools import numnet as command
from cli_tools import works

import numnet
from numnet import cost
from numnet.blocks import Conv, InvertedResidual, Separable
from numnet.errors import NumnetError
from numnet.layers import Dense


def test_the_article_s_7x7():
    """86,400 multiplications against 675 + 9,600 = 10,275: the article prints "12 times", it is 8.41 times."""
    whole, pair = cost.blocks(["conv:7x7x3:128:p0", "separable:7x7x3:128:p0"])
    assert (whole["macs"], whole["params"], whole["output_shape"]) == (86400, 3456, [5, 5, 128])
    assert [part["macs"] for part in pair["parts"]] == [675, 9600] and pair["macs"] == 10275
    assert whole["macs_ratio"] == 1 and pair["macs_ratio"] == 86400 / 10275
    out = works("cost", "--block", "conv:7x7x3:128:p0", "separable:7x7x3:128:p0")
    for words in (
        "P·Q·K·K·C·F  5·5·3·3·3·128  86,400",
        "5·5·3·3·3     675",
        "10,275",
        "has 8.41 times the MACs",
    ):
        assert words in out
    assert json.loads(works("cost", "--block", "conv:7×7×3:128:p0", "--json"))[0]["macs"] == 86400


@pytest.mark.parametrize(
    "text, layer, shape",
    [
        ("conv:9x11x3:8:k5:s2", Conv(8, 5, 2), (9, 11, 3)),
        ("separable:14x14x8:24:s2:psymmetric", Separable(24, 2, padding="symmetric"), (14, 14, 8)),
        ("inverted:28x28x32:32", InvertedResidual(32, expanded=192), (28, 28, 32)),
        ("inverted:8x8x16:24:t1:k5:s2", InvertedResidual(24, 2, kernel=5), (8, 8, 16)),
        ("inverted:8x8x16:24:t4:se4", InvertedResidual(24, expanded=64, squeeze=16), (8, 8, 16)),
        ("dense:50176:1024", Dense(1024, bias=False), (50176,)),
    ],
)
def test_blocks_cost_what_nets_of_them_cost(text, layer, shape):
    """Parameters without the biases of squeeze-and-excite; and each formula's numbers multiply to its MACs."""
    net = numnet.Net([layer], shape, allocate=False)
    facts = cost.block(text)
    biases = sum(spec.size for name, spec in net.specs.items() if name.endswith("bias"))
    assert (facts["macs"], facts["params"]) == (net.cost().macs, net.cost().params - biases)
    assert facts["input_shape"] == list(shape) and tuple(facts["output_shape"]) == net.output_shape
    for part in facts["parts"]:
        product = 1
        for number in part["numbers"].split("·"):
            product *= int(number)
        assert product == part["macs"] and len(part["formula"].split("·")) == len(part["numbers"].split("·"))


def test_every_number_of_a_block_is_written_once():
    assert cost.block("dense:50176:1024")["params"] + 1024 == 51381248  # with its biases
    assert re.search(r"192·48 +9,216", works("cost", "--block", "inverted:28x28x32:32:se4"))


@pytest.mark.parametrize(
    "text, words",
    [
        ("x", "expected KIND:HxWxC:F"),
        ("conv", "expected the input's shape HxWxC after conv, got ''"),
        ("conv:7x7", "expected the input's shape HxWxC after conv, got '7x7'"),
        ("dense:3x3:4", "expected the input's shape C after dense"),
        ("conv:7x7x3", "expected the output channels F"),
        ("depthwise:7x7x3:4", "expected no output channels"),
        ("conv:7x7x3:128:k9:p0", "a kernel of 9 does not fit"),
        ("conv:7x7x3:4:t2", "unknown option 't2'; conv takes k…, s…, p…"),
        ("conv:7x7x3:4:ksame", "unknown option 'ksame'"),
        ("conv:0x7x3:4", "expected numbers from 1"),
        ("conv:7x7x3:4:s0", "expected numbers from 1"),
        ("conv:7x7x3:99999999", "to 1,048,576"),
        ("conv:7x7x3:" + "9" * 5000, "5,011 letters"),
        ("conv:7x7x3:" + "9" * 50, "expected the output channels F"),
    ],
)
def test_mistakes(text, words):
    with pytest.raises(NumnetError, match=re.escape(words)):
        cost.block(text)
    code, out, err = command("cost", "--block", text)
    assert code == 2 and not out and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "expected a model, or --block"),
        (["mobilenet_v1", "--block", "conv:1x1x1:1"], "got the model mobilenet_v1"),
        (["--block", "conv:1x1x1:1", "--width", "0.5"], "the only other option can be --json"),
        (["--block", "conv:1x1x1:1", "--csv"], "the only other option can be --json"),
    ],
)
def test_mistakes_of_the_command(arguments, words):
    code, out, err = command("cost", *arguments)
    assert code == 2 and not out and words in err
