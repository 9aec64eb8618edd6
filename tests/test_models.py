"""Parameters and multiply-accumulates of every net, exactly: the frameworks' nets, the papers' tables, the articles'.

The figures were measured on Keras 3.15, torchvision 0.29, timm 1.0 and PaddleClas, or are sums worked out here.
"""

from fractions import Fraction
from itertools import pairwise

import pytest
from cli_tools import numnet as command

import numnet
from numnet.errors import NumnetError
from numnet.models import mnasnet, mobilenet_v1, mobilenet_v2, mobilenet_v3
from numnet.models.common import round_to_8
from numnet.training import recipes

MINIMALISTIC = {"activation": "relu", "kernel": 3, "se": False}
CIFAR10 = {"resolution": 32, "classes": 10}


def counts(model, **options):
    """(trainable, non-trainable, MACs)."""
    cost = numnet.describe(model, **options).cost()
    return cost.params, cost.buffers, cost.macs


# --- nets as frameworks have them: trainable, running statistics, MACs --------------------------------------

KERAS = [
    ("mobilenet_v1", CIFAR10, 3217226, 21888, 11596288),
    ("mobilenet_v2", {"width": 0.35}, 1677128, 14080, 59285808),
    ("mobilenet_v2", {"width": 0.5}, 1968680, 18544, 97131840),
    ("mobilenet_v2", {"width": 0.75}, 2636424, 26640, 209069792),
    ("mobilenet_v2", {}, 3504872, 34112, 300774272),
    ("mobilenet_v2", {"width": 1.3}, 5386792, 44256, 509374560),
    ("mobilenet_v2", {"width": 1.4}, 6108776, 47936, 582195824),
    ("mobilenet_v2", CIFAR10, 2236682, 34112, 6124928),
    ("mobilenet_v3_large", {}, 5483032, 24400, 216589760),
    ("mobilenet_v3_large", {"width": 0.75}, 3993528, 19088, 154560624),
    ("mobilenet_v3_large", MINIMALISTIC, 3924288, 24400, 209136704),
    ("mobilenet_v3_large", {"width": 0.75, **MINIMALISTIC}, 3050312, 19088, 148802544),
    ("mobilenet_v3_large_minimalistic", {}, 3924288, 24400, 209136704),
    ("mobilenet_v3_large_minimalistic", {"width": 0.75}, 3050312, 19088, 148802544),
    ("mobilenet_v3_small_minimalistic", {}, 2044736, 12112, 52288448),
    ("mobilenet_v3_small_minimalistic", {"width": 0.75}, 1732512, 9680, 40072880),
    ("mobilenet_v3_large", CIFAR10, 4214842, 24400, 7087040),
    ("mobilenet_v3_small", {}, 2542856, 12112, 56510400),
    ("mobilenet_v3_small", {"width": 0.75}, 2041872, 9680, 43399344),
    ("mobilenet_v3_small", MINIMALISTIC, 2044736, 12112, 52288448),
    ("mobilenet_v3_small", {"width": 0.75, **MINIMALISTIC}, 1732512, 9680, 40072880),
    ("mobilenet_v3_small", CIFAR10, 1528106, 12112, 2169792),
    ("mnasnet_keras", CIFAR10, 2693298, 35296, 5984128),
    ("mnasnet_keras", {}, 3011088, 35296, 293385472),
    ("mnasnet_keras", {"pooling": "max"}, 3011088, 35296, 293385472),
    ("vgg16", {}, 138357544, 0, 15470264320),
]
TORCH = [  # V1, V4 and A1: timm
    ("mobilenet_v1", {"width": 1.25}, 6270840, 27360, 879516800),
    ("mobilenet_v2", {"width": 0.75}, 2636424, 26640, 209069792),
    ("mobilenet_v2", {}, 3504872, 34112, 300774272),
    ("mobilenet_v2", {"width": 1.4}, 6108776, 47936, 582195824),
    ("mobilenet_v2", CIFAR10, 2236682, 34112, 6124928),
    ("mobilenet_v3_large", {}, 5483032, 24400, 216589760),
    ("mobilenet_v3_large", {"width": 0.75}, 3377576, 18416, 140033816),
    ("mobilenet_v3_small", {}, 2542856, 12112, 56510400),
    ("mobilenet_v3_small", {"width": 0.75}, 1653920, 9200, 39115576),
    ("mnasnet_b1", {"width": 0.5}, 2218512, 20624, 104455968),
    ("mnasnet_b1", {"width": 0.75}, 3170208, 29808, 215493104),
    ("mnasnet_b1", {}, 4383312, 37920, 314415872),
    ("mnasnet_b1", {"width": 1.3}, 6282256, 48816, 526362432),
    ("mnasnet_b1", {"width": 1.4}, 7115728, 52448, 588799408),
    ("mnasnet_b1", CIFAR10, 3115122, 37920, 6403328),
    ("mnasnet_a1", {"width": 0.5}, 2082006, 18400, 103162992),
    ("mnasnet_a1", {"width": 0.75}, 2912278, 26832, 223448480),
    ("mnasnet_a1", {}, 3887038, 33488, 311579072),
    ("mnasnet_a1", {"width": 1.4}, 6105992, 46016, 586317952),
    ("googlenet", {}, 6624904, 14560, 1498376192),
    ("mobilenet_v4_small", {}, 3774024, 25088, 186005568),
    ("mobilenet_v4_small", {"resolution": 256}, 3774024, 25088, 242178048),
    ("mobilenet_v4_small", {"width": 0.5}, 2238952, 13856, 64741408),
    ("mobilenet_v4_small", {"width": 0.35}, 1905384, 10688, 47723040),
    ("mobilenet_v4_small", {"width": 0.5, "resolution": 256}, 2238952, 13856, 83980288),
    ("mobilenet_v4_medium", {}, 9715512, 67904, 827649984),
    ("mobilenet_v4_medium", {"resolution": 256}, 9715512, 67904, 1080244224),
    ("mobilenet_v4_large", {}, 32590864, 149552, 2171341312),
    ("mobilenet_v4_large", {"resolution": 256}, 32590864, 149552, 2835269632),
]
PADDLE = [
    ("mobilenet_v1", {}, 4231976, 21888, 568740352),
    ("mobilenet_v1", {"width": 0.75}, 2585560, 16416, 325400448),
    ("mobilenet_v1", {"width": 0.5}, 1331592, 10944, 149497088),
    ("mobilenet_v1", {"width": 0.25}, 470072, 5472, 41030272),
    ("mobilenet_v2", {}, 3505960, 34176, 313619328),
    ("mobilenet_v2", {"width": 0.75}, 2628592, 26272, 186650528),
    ("mobilenet_v2", {"width": 0.5}, 1965736, 18368, 92271040),
    ("mobilenet_v2", {"width": 0.25}, 1517392, 10464, 30480864),
    ("mobilenet_v2", {"width": 1.5}, 6852712, 51264, 681017664),
    ("mobilenet_v3_large", {}, 5480206, 24432, 219799200),
    ("mobilenet_v3_large", {"width": 0.75}, 3912248, 18448, 143780440),
    ("mobilenet_v3_large", {"width": 0.5}, 2673422, 12368, 66704432),
    ("mobilenet_v3_large", {"width": 0.35}, 2104328, 8592, 37188872),
    ("mobilenet_v3_large", {"width": 1.25}, 7443308, 30640, 349965896),
    ("mobilenet_v3_small", {}, 2939958, 12144, 60119520),
    ("mobilenet_v3_small", {"width": 0.75}, 2375106, 9232, 43048536),
    ("mobilenet_v3_small", {"width": 0.5}, 1902536, 6160, 20759280),
    ("mobilenet_v3_small", {"width": 0.35}, 1665954, 4272, 13161528),
    ("mobilenet_v3_small", {"width": 1.25}, 3627370, 15280, 95364424),
]
PLAIN = 24 * 12 + 64 * 9 * (24 + 64) + 256 * 9 * (64 + 3 * 256), 2 * (24 + 2 * 64 + 4 * 256)
ON_CIFAR = [  # 32×32, ten classes: a stem of stride 1 and, except in V1, a first stage of stride 1
    ("mobilenet_v1", {}, 3217226, 21888, 46354432),
    ("mobilenet_v2", {"width": 0.5}, 700490, 18544, 27969024),
    ("mobilenet_v2", {"width": 0.75}, 1368234, 26640, 59310080),
    ("mobilenet_v2", {}, 2236682, 34112, 87976448),
    ("mobilenet_v2", {"width": 1.4}, 4333706, 47936, 170073344),
    # by hand; no framework has published it
    ("plain_3x3", {}, PLAIN[0] + PLAIN[1] + 2570, PLAIN[1], 118147360),
]
ROWS = [
    *((name, {"variant": "keras", **options}, *rest) for name, options, *rest in KERAS),
    *((name, {"variant": "torch", **options}, *rest) for name, options, *rest in TORCH),
    *((name, {"variant": "paddle", **options}, *rest) for name, options, *rest in PADDLE),
    *((name, {"strides": "cifar", **CIFAR10, **options}, *rest) for name, options, *rest in ON_CIFAR),
]


@pytest.mark.parametrize("name, options, params, buffers, macs", ROWS)
def test_counts(name, options, params, buffers, macs):
    """With the padding of the variant's framework; counts do not depend on it."""
    padding = "same" if options.get("variant", "keras") == "keras" else "symmetric"
    assert counts(name, padding=padding, **options) == (params, buffers, macs)


@pytest.mark.parametrize(
    "width, total, macs", [(0.5, 749762, 1902432), (0.75, 1608070, 3930960), (1.4, 5312240, 11310256)]
)
def test_the_article_s_widths(width, total, macs):
    params, buffers, counted = counts("mnasnet_keras", width=width, **CIFAR10)
    assert (params + buffers, counted) == (total, macs)


def by_the_article(alpha, classes=10, whole=int):
    """Its net's parameters and statistics, from its table and its rounding: written down apart from numnet.models."""

    def divisible(v):
        rounded = max(8, int(v + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * v else rounded

    c, thin = divisible(32 * alpha), max(int(16 * alpha), 1)
    total = 27 * c + 4 * c + 9 * c + c * thin + 4 * thin
    c = thin
    for kernel, t, filters, repeats in (
        (3, 3, 24, 3), (5, 3, 40, 3), (5, 6, 80, 3), (3, 6, 96, 2), (5, 6, 192, 4), (3, 6, 320, 1)
    ):  # fmt: skip
        for _ in range(repeats):
            wide, out = t * c, divisible(whole(filters * alpha))
            total += c * wide + kernel * kernel * wide + wide * out + 8 * wide + 4 * out
            c = out
    return total + c * classes + classes


def test_every_width_of_the_article():
    """All two-decimal α from 0.05 to 2. Cutting off the fraction before rounding to 8 makes another net at six."""
    alphas = [n / 100 for n in range(5, 201)]
    part = [a for a in alphas if by_the_article(a) != by_the_article(a, whole=float)]
    assert part == [0.14, 0.28, 0.67, 0.89, 1.12, 1.49]
    assert (by_the_article(0.67), by_the_article(0.67, whole=float)) == (1274076, 1288476)
    for alpha in alphas:
        params, buffers, _ = counts("mnasnet_keras", width=alpha, **CIFAR10)
        assert params + buffers == by_the_article(alpha), alpha


def test_the_article_s_totals():
    assert sum(counts("mobilenet_v1")[:2]) == 4253864  # as one article prints it, with 21,888 non-trainable
    assert sum(counts("mnasnet_keras", **CIFAR10)[:2]) == 2728594
    assert sum(counts("mnasnet_keras")[:2]) == 3046384
    by_type = {}
    for row in numnet.describe("mnasnet_keras", **CIFAR10).cost().rows:
        by_type[row.type] = by_type.get(row.type, 0) + row.cost.params + row.cost.buffers
    assert by_type["conv"] + by_type["pointwise"] == 2494304
    assert (by_type["batch norm"], by_type["depthwise"], by_type["dense"]) == (70592, 160488, 3210)


def test_the_article_s_net_against_b1():
    """1,372,224 parameters fewer: no 320 → 1280 convolution and its batch norm, a thinner classifier, one norm."""
    missing = 320 * 1280 + 2 * 1280 + (1280 - 320) * 1000 + 2 * 32
    assert counts("mnasnet_b1")[0] - counts("mnasnet_keras")[0] == missing == 1372224


# --- the V1 paper -------------------------------------------------------------------------------------------

WIDTHS, RESOLUTIONS = (1.0, 0.75, 0.5, 0.25), (224, 192, 160, 128)
V1_GRID = {  # width: total, trainable, non-trainable, then MACs at each resolution
    1.0: (4253864, 4231976, 21888, 568740352, 418121728, 290675200, 186400768),
    0.75: (2601976, 2585560, 16416, 325400448, 239273472, 166396800, 106770432),
    0.5: (1342536, 1331592, 10944, 149497088, 109970432, 76524800, 49160192),
    0.25: (475544, 470072, 5472, 41030272, 30212608, 21059200, 13570048),
}


@pytest.mark.parametrize("variant", ["keras", "torch", "paddle"])
@pytest.mark.parametrize("width", WIDTHS)
def test_v1_s_sixteen_models(width, variant):
    total, trainable, kept, *macs = V1_GRID[width]
    for resolution, expected in zip(RESOLUTIONS, macs, strict=True):
        assert counts("mobilenet_v1", width=width, resolution=resolution, variant=variant) == (
            trainable,
            kept,
            expected,
        )
    assert trainable + kept == total


def test_v1_s_layers_on_the_way():
    """Table 1: the size of the map after each block."""
    net = numnet.describe("mobilenet_v1")
    shapes = [layer.output_shape for layer in net.layers]
    sides = [112, 112, 56, 56, 28, 28, 14, 14, 14, 14, 14, 14, 7, 7]
    channels = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
    assert shapes[:14] == [(side, side, c) for side, c in zip(sides, channels, strict=True)]
    assert shapes[14] == (1024,) and shapes[-1] == (1000,)


def of_type(rows, kind, field):
    return sum(getattr(row.cost, field) for row in rows if row.type == kind)


def test_v1_table_2():
    """Where the multiply-adds and the weights lie. The paper prints 1.19 % for the standard convolution: it is 1.906 %,
    and the paper's own column sums to 99.29 %. Parameters are weights alone, no bias and no batch norm."""
    cost = numnet.describe("mobilenet_v1").cost()
    kinds = ("pointwise", "depthwise", "conv", "dense")
    macs = [of_type(cost.rows, kind, "macs") for kind in kinds]
    assert macs[2] == 10838016
    assert [round(100 * n / cost.macs, 2) for n in macs] == [94.86, 3.06, 1.91, 0.18]
    weights = [of_type(cost.rows, kind, "params") for kind in kinds]
    weights[3] -= 1000
    assert sum(weights) == 4209088
    assert [round(100 * n / 4209088, 2) for n in weights] == [74.59, 1.06, 0.02, 24.33]


def test_v1_table_3():
    """One 14×14×512 layer: a standard convolution, a separable one, width 0.75, and resolution 0.714 (10×10)."""
    from numnet.kernels.conv import conv_cost
    from numnet.kernels.depthwise import depthwise_cost
    from numnet.kernels.pointwise import pointwise_cost

    def separable(side, c):
        depthwise = depthwise_cost(1, side, side, 3, c, h=side, w=side)
        pointwise = pointwise_cost(1, side, side, c, c)
        return depthwise.macs + pointwise.macs, depthwise.params + pointwise.params

    standard = conv_cost(1, 14, 14, 3, 512, 512, h=14, w=14)
    assert (standard.macs, standard.params) == (462422016, 2359296)
    assert separable(14, 512) == (52283392, 266752)
    assert separable(14, 384) == (29578752, 150912)
    assert separable(10, 384) == (15091200, 150912)


def test_v1_table_4():
    """Every separable block a standard convolution. The paper prints 4,866 M and 29.3 M."""
    assert counts("mobilenet_v1", separable=False) == (29294088, 11968, 4867293184)
    cost = numnet.describe("mobilenet_v1", separable=False).cost()
    assert of_type(cost.rows, "conv", "params") + of_type(cost.rows, "dense", "params") - 1000 == 29281120


def test_v1_table_5():
    """Shallower (without five of the 512-channel blocks) against thinner: 307 M and 2.9 M, 325 M and 2.6 M."""
    assert counts("mobilenet_v1", shallow=True) == (2887976, 11648, 307323392)
    assert counts("mobilenet_v1", width=0.75)[::2] == (2585560, 325400448)


def test_v1_tables_6_and_7():
    """In millions, as printed: 569, 325, 149, 41 and 569, 418, 290, 186 multiply-adds (290.7 was cut, not rounded)."""
    by_width = [counts("mobilenet_v1", width=width)[2] for width in WIDTHS]
    assert [round(n / 1e6) for n in by_width] == [569, 325, 149, 41]
    assert [round(counts("mobilenet_v1", width=width)[0] / 1e6, 1) for width in WIDTHS] == [
        4.2,
        2.6,
        1.3,
        0.5,
    ]
    by_side = [counts("mobilenet_v1", resolution=side)[2] for side in RESOLUTIONS]
    assert [round(n / 1e6) for n in by_side] == [569, 418, 291, 186]


def test_v1_table_8():
    """MobileNet 569 M and 4.2 M; GoogLeNet 1,550 M and 6.8 M; VGG16 15,300 M and 138 M ("27 times less compute").

    GoogLeNet here is torchvision's: 3.3 % less than the paper's. VGG16's 15,300 leave out the dense layers."""
    mobilenet, google, vgg = (counts(name)[2] for name in ("mobilenet_v1", "googlenet", "vgg16"))
    assert round(vgg / mobilenet, 1) == 27.2
    assert abs(google / 1550e6 - 1) < 0.034
    rows = numnet.describe("vgg16").cost().rows
    assert of_type(rows, "conv", "macs") == 15346630656
    assert of_type(rows, "dense", "macs") == 123633664 == vgg - 15346630656


def test_v1_tables_9_and_10():
    """0.50 MobileNet-160: 76 M and 1.32 M (without batch norm); 0.75 MobileNet-192: 239 M and 2.6 M."""
    assert counts("mobilenet_v1", width=0.5, resolution=160)[::2] == (1331592, 76524800)
    cost = numnet.describe("mobilenet_v1", width=0.5).cost()
    assert cost.params - of_type(cost.rows, "batch norm", "params") == 1320648
    assert counts("mobilenet_v1", width=0.75, resolution=192)[2] == 239273472


def test_the_depth_multiplier_is_not_the_resolution_multiplier():
    """An article takes Keras's depth_multiplier for ρ. It doubles the depthwise channels: nearly twice the work."""
    assert counts("mobilenet_v1", depth_multiplier=2)[2] == 1125618688
    assert sum(counts("mobilenet_v1", depth_multiplier=2)[:2]) == 7457928


def test_the_worked_example():
    """7×7×3 through 3×3 without padding to 5×5×128: 86,400 multiplications, or 675 + 9,600; not the article's "12×"."""
    from numnet.kernels.conv import conv_cost
    from numnet.kernels.depthwise import depthwise_cost
    from numnet.kernels.pointwise import pointwise_cost

    standard = conv_cost(1, 5, 5, 3, 3, 128, h=7, w=7).macs
    depthwise = depthwise_cost(1, 5, 5, 3, 3, h=7, w=7).macs
    pointwise = pointwise_cost(1, 5, 5, 3, 128).macs
    assert (standard, depthwise, pointwise) == (86400, 675, 9600)
    ratio = Fraction(depthwise + pointwise, standard)
    assert ratio == Fraction(1, 128) + Fraction(1, 9)
    assert round(float(1 / ratio), 2) == 8.41
    for f, k in ((64, 3), (512, 3), (960, 5)):
        separable = depthwise_cost(1, 14, 14, k, 96, h=14, w=14).macs + pointwise_cost(1, 14, 14, 96, f).macs
        assert Fraction(separable, conv_cost(1, 14, 14, k, 96, f, h=14, w=14).macs) == Fraction(
            1, f
        ) + Fraction(1, k * k)


# --- the V2, V3 and MnasNet papers --------------------------------------------------------------------------

V2_GRID = {  # width: MACs at 224, 192, 160, 128, 96
    1.4: (582195824, 428211136, 297916400, 191311616, 108396784),
    1.0: (300774272, 221316608, 154083200, 99074048, 56289152),
    0.75: (209069792, 153941888, 107295200, 69129728, 39445472),
    0.5: (97131840, 71701760, 50184000, 32578560, 18885440),
    0.35: (59285808, 43896512, 30874800, 20220672, 11934128),
}


@pytest.mark.parametrize("variant", ["keras", "torch"])
@pytest.mark.parametrize("width", V2_GRID)
def test_v2_at_five_widths_and_resolutions(width, variant):
    macs = [
        counts("mobilenet_v2", width=width, resolution=r, variant=variant)[2]
        for r in (224, 192, 160, 128, 96)
    ]
    assert tuple(macs) == V2_GRID[width]


def test_v2_s_headline():
    """300 M multiply-adds and 3.4 M parameters: 3.47 M without batch norm, as its authors' table counts."""
    cost = numnet.describe("mobilenet_v2").cost()
    assert cost.macs // 10**6 == 300
    assert cost.params - of_type(cost.rows, "batch norm", "params") == 3470760
    wide = numnet.describe("mobilenet_v2", width=1.4).cost()  # printed 585 M and 6.9 M, which no count gives
    assert (wide.macs, wide.params) == (582195824, 6108776)


def test_v2_s_blocks():
    """17 bottlenecks (the text says 19), ten of them with an addition, and the maps of table 2."""
    net = numnet.describe("mobilenet_v2")
    blocks = [layer for layer in net.layers if layer.kind == "inverted residual"]
    assert len(blocks) == 17 and sum(block.adds for block in blocks) == 10
    sides = [112, *[56] * 2, *[28] * 3, *[14] * 7, *[7] * 4]
    assert [block.output_shape[0] for block in blocks] == sides
    one = blocks[2]  # 24 → 144 → 24 at 56×56
    macs = sum(child.cost()[0].cost.macs for child in one.children)
    assert macs == 25740288 == 56 * 56 * (24 * 144 + 144 * 9 + 144 * 24)


def test_v3_s_headlines():
    """219 M counts the expanding convolution of the first row, which no implementation but PaddleClas has."""
    large, small = counts("mobilenet_v3_large"), counts("mobilenet_v3_small")
    assert large[2] + 16 * 16 * 112 * 112 == 219801024
    assert round(large[0] / 1e6, 1) == 5.5  # printed 5.4
    assert (small[2] // 10**6, small[0]) == (56, 2542856)
    assert round(counts("mobilenet_v3_large", width=0.75)[2] / 1e6) == 155
    assert round(counts("mobilenet_v3_small", width=0.75)[2] / 1e6) == 43  # printed 44


def test_mnasnet_s_headline():
    """A1: 312 M and 3.9 M."""
    params, _, macs = counts("mnasnet_a1")
    assert (round(macs / 1e6), round(params / 1e6, 1)) == (312, 3.9)


def test_squeeze_excite_by_hand():
    """V3-Large's block 4: 72 channels squeezed to 24. 2·C·R products, 2·C·R + R + C parameters."""
    block = next(layer for layer in numnet.describe("mobilenet_v3_large").layers if layer.name == "block4")
    rows = [row for child in block.children[2].children for row in child.cost()]
    assert sum(row.cost.macs for row in rows) == 3456 == 2 * 72 * 24
    assert sum(row.cost.params for row in rows) == 3552
    squeezes = {
        variant: [
            block.children[-2].squeezed
            for block in numnet.describe("mobilenet_v3_large", variant=variant).layers
            if block.kind == "inverted residual" and block.children[-2].kind == "squeeze-excite"
        ]
        for variant in ("keras", "paddle")
    }
    assert squeezes["keras"] == [24, 32, 32, 120, 168, 168, 240, 240]
    assert squeezes["paddle"] == [18, 30, 30, 120, 168, 168, 240, 240]


def test_v3_s_widths_of_expansion():
    def expanded(variant):
        net = numnet.describe("mobilenet_v3_large", width=0.75, variant=variant)
        return [
            next(child for child in block.children if child.name == "depthwise").output_shape[2]
            for block in net.layers
            if block.kind == "inverted residual"
        ]

    torch_s = [16, 48, 56, 56, 88, 88, 184, 152, 136, 136, 360, 504, 504, 720, 720]
    keras_s = [16, 64, 72, 72, 96, 96, 192, 160, 144, 144, 384, 528, 528, 720, 720]
    assert (expanded("torch"), expanded("keras")) == (torch_s, keras_s)


def test_where_the_width_rules_of_keras_and_torchvision_part():
    def channels(variant, width, block):
        return numnet.describe("mobilenet_v2", variant=variant, width=width).layers[block].output_shape[2]

    assert [channels(variant, 1.12, 1) for variant in ("keras", "torch")] == [16, 24]
    assert [channels(variant, 0.56, 7) for variant in ("keras", "torch")] == [32, 40]


def test_the_article_s_maps():
    net = numnet.describe("mnasnet_keras", **CIFAR10)
    maps = [layer for layer in net.layers if len(layer.output_shape) == 3]
    assert [layer.output_shape[0] for layer in maps] == [16, 16, 8, 8, 8, 4, 4, 4, *[2] * 5, *[1] * 5]
    assert [i for i, layer in enumerate(maps[2:], 1) if layer.adds] == [2, 3, 5, 6, 8, 9, 11, 13, 14, 15]


# --- options ------------------------------------------------------------------------------------------------


def settings_of(net):
    norms = {layer.norm for _, layer in net.walk() if getattr(layer, "norm", None)}
    assert len(norms) == 1
    return norms.pop()


@pytest.mark.parametrize("name", [name for name in numnet.models() if name != "vgg16"])
def test_batch_norm_s_settings(name):
    def norm(**options):
        return settings_of(numnet.describe(name, **options))

    own = 0.999 if name == "mnasnet_keras" else 0.9
    assert norm().momentum == own and norm(bn_momentum=0.5).momentum == 0.5
    assert norm().eps == 1e-3 and norm(bn_eps=1e-4).eps == 1e-4
    assert [norm(variant=variant).unbiased for variant in ("keras", "torch", "paddle")] == [
        False,
        True,
        False,
    ]


def test_se_squeezes_every_block_if_asked_to():
    net = numnet.describe("mobilenet_v2", se=0.25)
    blocks = [layer for layer in net.layers if layer.kind == "inverted residual"]
    squeezed = [
        child.squeezed for block in blocks for child in block.children if child.kind == "squeeze-excite"
    ]
    assert squeezed == [round_to_8(block.children[-1].input_shape[2] / 4) for block in blocks]
    assert counts("mobilenet_v2", se=True) == counts("mobilenet_v2", se=0.25)
    assert counts("mobilenet_v2", se=False) == counts("mobilenet_v2")
    for wrong in (0, 0.0, 1.5):
        with pytest.raises(NumnetError, match="se: expected None, False, True or a ratio above 0"):
            numnet.describe("mobilenet_v2", se=wrong)


def test_ablations_that_cost_nothing():
    """Skips, activations and pooling have no parameters and no MACs."""
    for options in ({"skip": False}, {"bottleneck_activation": "relu6"}, {"activation": "swish"}):
        assert counts("mobilenet_v2", **options) == counts("mobilenet_v2")
    net = numnet.describe("mobilenet_v2", skip=False)
    assert not any(layer.adds for layer in net.layers if layer.kind == "inverted residual")


def test_v1_with_a_table_of_one_s_own():
    """rows and skip: the paper's table gives the paper's net; a skip costs nothing but the addition."""
    paper = [[32, 2], *([row.c, row.s] for row in mobilenet_v1.ROWS)]
    standard = [[c, s, "standard"] for c, s in paper]
    assert counts("mobilenet_v1", rows=standard) == counts("mobilenet_v1", separable=False)
    assert counts("mobilenet_v1", rows=standard, skip=True) == counts("mobilenet_v1", separable=False)
    assert counts("mobilenet_v1", rows=paper) == counts("mobilenet_v1") == counts("mobilenet_v1", skip=True)
    net = numnet.describe(
        "mobilenet_v1",
        rows=[[32, 2], [64, 1], [64, 1], [96, 2]],
        width=0.5,
        resolution=16,
        classes=10,
        skip=True,
    )
    assert [layer.output_shape for layer in net.layers] == [
        (8, 8, 16),
        (8, 8, 32),
        (8, 8, 32),
        (4, 4, 48),
        (48,),
        (48,),
        (10,),
    ]
    assert [layer.adds for layer in net.layers if layer.kind == "inverted residual"] == [False, True, False]
    separable = sum(c * 9 + c * f + 2 * (c + f) for c, f in ((16, 32), (32, 32), (32, 48)))
    assert net.cost().params == 27 * 16 + 2 * 16 + separable + 48 * 10 + 10
    net = numnet.describe(
        "mobilenet_v1",
        rows=[[8, 1], [16, 2, "standard"], [16, 1, "standard"], [16, 1]],
        skip=True,
        resolution=16,
    )
    assert [type(layer).__name__ for layer in net.layers[1:4]] == ["Residual", "Residual", "InvertedResidual"]
    assert [layer.adds for layer in net.layers[1:4]] == [False, True, True]


TABLES = [
    ("mobilenet_v2", [list(row) for row in mobilenet_v2.ROWS], {}),
    (
        "mobilenet_v3_small",
        [list(row) for row in mobilenet_v3.LARGE],
        {"stem": 16, "last": 960, "wide": 1280},
    ),
    ("mobilenet_v3_large", [list(row) for row in mobilenet_v3.SMALL], {"last": 576, "wide": 1024}),
    ("mnasnet_b1", [list(row) for row in mnasnet.A1], {}),
]


@pytest.mark.parametrize("variant", ["keras", "torch"])
@pytest.mark.parametrize("name, rows, more", TABLES, ids=[name for name, _, _ in TABLES])
def test_tables_of_one_s_own(name, rows, more, variant):
    """The paper's table of another net makes that net; at other widths, too."""
    meant = {
        "mobilenet_v3_small": "mobilenet_v3_large", "mobilenet_v3_large": "mobilenet_v3_small", "mnasnet_b1": "mnasnet_a1",
    }  # fmt: skip
    for width in (0.5, 1.0, 1.25):
        own = counts(name, rows=rows, variant=variant, width=width, **more)
        assert own == counts(meant.get(name, name), variant=variant, width=width)


def test_v3_as_the_paddle_constructor_makes_it():
    """config, inplanes, class_squeeze, class_expand, counted by hand; no row of stride 2 here."""
    rows = [[3, 24, 16, False, "relu", 1], [5, 48, 16, True, "hswish", 1]]
    own = {"rows": rows, "stem": 8, "last": 40, "wide": 64, "classes": 10, "dropout": 0.5, "resolution": 8}
    for variant, squeezed, bias in (("keras", 16, 64), ("paddle", 12, 0)):
        net = numnet.describe("mobilenet_v3_large", variant=variant, strides="cifar", **own)
        first = 8 * 24 + 9 * 24 + 24 * 16 + 2 * (24 + 24 + 16)
        second = 16 * 48 + 25 * 48 + 48 * 16 + 2 * (48 + 48 + 16) + 2 * 48 * squeezed + 48 + squeezed
        end = 16 * 40 + 2 * 40 + 40 * 64 + bias + 64 * 10 + 10
        assert net.cost().params == 27 * 8 + 16 + first + second + end, variant
        assert [layer.adds for layer in net.layers[1:3]] == [False, True]
        assert net.layers[2].input_shape == (8, 8, 16) and net.layers[-2].kind == "dropout"
    bigger = numnet.describe("mobilenet_v2", rows=[[1, 16, 1, 1], [4, 32, 2, 2]])
    assert [layer.output_shape for layer in bigger.layers[1:4]] == [
        (112, 112, 16),
        (56, 56, 32),
        (56, 56, 32),
    ]


def test_names_that_people_bring_along():
    brought = {
        "width": ["alpha", "scale", "width_mult", "depth_multiplier"], "resolution": ["rho", "input_size"],
        "classes": ["class_num", "num_classes"], "rows": ["config"], "stem": ["inplanes"], "last": ["class_squeeze"],
        "wide": ["class_expand"], "dropout": ["dropout_prob"],
    }  # fmt: skip
    for meant, names in brought.items():
        for name in names:
            with pytest.raises(NumnetError, match=rf"no option '{name}' \(did you mean {meant}\?\)"):
                numnet.describe("mobilenet_v3_large", **{name: 0.5})
    for name, words in (
        ("include_top", "net.features"),
        ("pretrained", "numnet import"),
        ("features_only", "net.maps"),
    ):
        with pytest.raises(NumnetError, match=words):
            numnet.describe("mobilenet_v3_large", **{name: True})
    with pytest.raises(NumnetError, match=r"depth_multiplier: expected an integer .*, got 0.5; .*width=0.5"):
        numnet.describe("mobilenet_v1", depth_multiplier=0.5)
    with pytest.raises(NumnetError, match=r"unknown key 'alpha' of model \(did you mean width\?\)"):
        recipes.check({"model": {"alpha": 0.5}}, "recipe")
    for option, words in (
        ("--alpha", "--width"),
        ("--num-classes", "--classes"),
        ("--config", "--set rows=…"),
    ):
        code, _, err = command("summary", "mobilenet_v3_small", option, "1")
        assert code == 2 and f"(did you mean {words}?)" in err


@pytest.mark.parametrize("skip", [False, True])
def test_v1_with_squeeze_excite(skip):
    """Between the two convolutions, a quarter of the row's channels in its bottleneck: 2·C·R MACs, R and C biases more."""
    rows = [[16, 1], [32, 2], [32, 1], [64, 2]]
    plain = numnet.describe("mobilenet_v1", rows=rows, skip=skip, resolution=16)
    kinds = [[*row, "squeeze-excite"] for row in rows[1:]]
    net = numnet.describe("mobilenet_v1", rows=[rows[0], *kinds], skip=skip, resolution=16)
    weights = [2 * c * f // 4 for (c, _), (f, _) in pairwise(rows)]
    biases = [c + f // 4 for (c, _), (f, _) in pairwise(rows)]
    assert net.cost().macs - plain.cost().macs == sum(weights)
    assert net.cost().params - plain.cost().params == sum(weights) + sum(biases)
    blocks = net.layers[1:4]
    assert all([c.kind for c in b.children] == ["depthwise", "squeeze-excite", "pointwise"] for b in blocks)
    assert [block.adds for block in blocks] == [False, skip, False]
    assert [block.output_shape for block in blocks] == [layer.output_shape for layer in plain.layers[1:4]]


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("mobilenet_v2", {"se": 2}, "se: expected"),
        ("mobilenet_v2", {"skip": "no"}, "skip: expected"),
        ("mobilenet_v2", {"bottleneck_activation": "gelu"}, "activation: expected"),
        ("mobilenet_v1", {"se": False}, "no option 'se'"),
        ("mobilenet_v2", {"rows": []}, "rows: expected a list of .t, c, n, s., at least one and at most 100"),
        ("mobilenet_v2", {"rows": [[1, 16, 1]]}, r"rows: expected .*, got .1, 16, 1. as row 1"),
        (
            "mobilenet_v3_small",
            {"rows": [[3, 16, 8, 1, "RE", 1]]},
            "nl of row 1 is 'RE', not one of identity, relu",
        ),
        (
            "mobilenet_v3_small",
            {"rows": [[3, 16, 0, 1, "relu", 1]]},
            "c of row 1 is 0, not an integer of at least 1",
        ),
        ("mobilenet_v3_small", {"wide": 0}, "wide: expected an integer of at least 1"),
        ("mnasnet_a1", {"rows": [[3, 1, 16, 2, 1, 1]]}, "se of row 1 is 2, not a number from 0 to 1"),
        ("mnasnet_keras", {"rows": [[3, 1, 16, 0, 1, 1]]}, "no option 'rows'"),
        ("mobilenet_v1", {"skip": 1}, "skip: expected True or False, got 1"),
        ("mobilenet_v1", {"separable": False, "depth_multiplier": 2}, "separable=False has none"),
        ("mobilenet_v1", {"skip": True, "depth_multiplier": 2}, "skip is for blocks of depth multiplier 1"),
        (
            "mobilenet_v1",
            {"rows": [[64, 1], [64, 1, "dense"]]},
            "rows: expected a list of .channels, stride.",
        ),
        ("mobilenet_v1", {"rows": [], "width": 0.5}, "rows: expected a list of .channels, stride.*, got .."),
        ("mobilenet_v1", {"rows": [[64]]}, "rows: expected a list of .channels, stride."),
        ("mobilenet_v1", {"rows": [[64, 0]]}, "rows: expected a list of .channels, stride."),
        ("mobilenet_v1", {"rows": [[64, 1]], "shallow": True}, "rows and shallow both"),
        ("mobilenet_v1", {"rows": [[64, 1, "squeeze-excite"]]}, "the first of rows is the stem"),
        (
            "mobilenet_v1",
            {"rows": [[64, 1], [64, 1, "squeeze-excite"]], "separable": False},
            "squeeze-excite is for separable blocks",
        ),
        (
            "mobilenet_v1",
            {"rows": [[64, 1], [64, 1, "squeeze-excite"]], "depth_multiplier": 2},
            "squeeze-excite is for blocks of depth multiplier 1",
        ),
        ("mobilenet_v3_large", {"size": "small"}, "no option 'size'"),
        ("mnasnet_b1", {"pooling": "max"}, "no option 'pooling'"),
        ("mnasnet_keras", {"pooling": "mean"}, "pooling: expected"),
        ("vgg16", {"width": 0.5}, "width: vgg16 has no such choice"),
        ("vgg16", {"resolution": 31}, "resolution: vgg16"),
        ("plain_3x3", {"kernel": 5}, "kernel: plain_3x3 has no such choice"),
        (
            "plain_3x3",
            {"resolution": 16},
            "resolution: plain_3x3 of 3 stages has no room in 16, expected at least 17",
        ),
        ("plain_3x3", {"rows": [[64]]}, r"rows: expected a list of \[c, n\], got \[64\] as row 1"),
        ("googlenet", {"kernel": 5}, "kernel: googlenet has no such choice"),
        ("mobilenet_v2", {"initialiser": "he"}, "initialiser: expected"),
        ("mobilenet_v2", {"dropout": "a"}, "dropout: expected"),
    ],
)
def test_options_that_make_no_sense(name, options, message):
    with pytest.raises(NumnetError, match=message) as caught:
        numnet.describe(name, **options)
    assert "\n" not in str(caught.value)
