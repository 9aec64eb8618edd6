"""What notebook 5 says of MobileNetV4: bytes and MACs of layers, the roofline's limits, the block's forms."""

import pytest

import numnet
from numnet.blocks import Norm
from numnet.layers import Dense, GlobalAverage
from numnet.lessons import universal


def test_work_counts_weights_and_maps_once():
    """By hand: a 1×1 convolution from 4 to 6 channels on 2×3 pixels with batch norm, the mean, a dense layer."""
    from numnet.blocks import Pointwise

    layers = [Pointwise(6, activation="relu", norm=Norm()), GlobalAverage(), Dense(5)]
    net = numnet.Net(layers, (2, 3, 4), allocate=False)
    conv = (6 * 4 * 6, 4 * (4 * 6 + 6 * 4 + 6 * 6))
    pool = (0, 4 * (6 * 6 + 6))
    dense = (6 * 5, 4 * (6 * 5 + 5 + 6 + 5))
    assert universal.work(net) == [conv, pool, dense]


def test_the_roofline_has_two_limits():
    """Without memory's price MACs are all, and with a high one bytes are; between, neither sum is ever undercut."""
    net = numnet.describe("mobilenet_v4_small", resolution=64)
    macs, moved = (sum(part) for part in zip(*universal.work(net)))
    assert universal.seconds(net, 0) == macs == net.cost().macs
    assert universal.seconds(net, 1e6) == pytest.approx(1e6 * moved)
    for ridge in (1, 10, 100):
        assert universal.seconds(net, ridge) >= max(macs, ridge * moved)


def test_what_the_notebook_reads_off_the_curves():
    def times(ridge):
        names = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")
        own = universal.seconds(numnet.describe("mobilenet_v4_small"), ridge)
        return [universal.seconds(numnet.describe(name), ridge) / own for name in names]

    v1, _, v3, small = times(0.5)
    assert v1 > 2.9 and v3 < 1.25 and small < 1
    v1, v2, v3, small = times(100)
    assert v1 < v2 and v1 < v3 and 2 < v2 < 2.3 and 2 < v3 < 2.3 and small < 1


def test_the_forms_and_their_clock():
    assert [block.kind for block in universal.forms(8, 16).values()] == [
        *["universal bottleneck"] * 4,
        "residual",
    ]
    table = universal.clocked(side=4, channels=8, expanded=16, run=0.0)
    assert len(table.rows) == 5 and all(float(row[4].replace(",", "")) > 0 for row in table.rows)
    parameters = [int(row[2].replace(",", "")) for row in table.rows]
    assert parameters[0] > parameters[1] > parameters[2] > parameters[3] and parameters[4] == max(parameters)


def test_the_figure_names_every_net():
    names = ["mobilenet_v2", "mobilenet_v3_small"]
    picture = universal.roofline(names)
    assert [text.get_text() for text in picture.axes[0].get_legend().get_texts()] == ["V2", "V3-Small"]


def test_v3_and_v4_were_given_the_same_time():
    """Time of a training image, within 3 %; three seeds each; and V3-Small is ahead by far more than seeds differ."""
    rows = {row[0]: row[1:] for row in universal.beside().rows}
    (v3_macs, _, v3_time, v3_seeds, v3), (v4_macs, _, v4_time, v4_seeds, v4) = rows.values()
    assert list(rows) == ["v3-small-1.0", "v4-small-0.7"] and int(v3_seeds) == int(v4_seeds) == 3
    assert abs(float(v3_time.replace(",", "")) / float(v4_time.replace(",", "")) - 1) < 0.03
    assert float(v4_macs) / float(v3_macs) == pytest.approx(1.7, abs=0.05)
    assert float(v3.split()[0]) - float(v4.split()[0]) > 10
