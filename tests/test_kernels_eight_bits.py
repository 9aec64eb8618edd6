"""The arithmetic in eight bits: the definitions against NumPy's and Python's integers, the fast passes bit for bit."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from numnet.errors import NumnetError
from numnet.kernels import eight_bits, quantised_depthwise, quantised_maps, quantised_product, words
from numnet.kernels._jit import kernel
from numnet.kernels.eight_bits import NO_TABLE, Grid
from numnet.kernels.maps import Window, tile_height
from numnet.kernels.vectors import CHECK, PLAIN, lanes_of, width

LANES = (1, 4, 8, 16)


def rng(seed=0):
    return np.random.default_rng(seed)


def bytes_of(*shape, seed=0):
    return rng(seed).integers(0, 256, shape).astype(np.uint8)


def weights_of(*shape, seed=1):
    return rng(seed).integers(-127, 128, shape).astype(np.int8)


def fixed_for(filters, seed=2):
    draw = rng(seed)
    return eight_bits.fixed_of(
        draw.uniform(1e-4, 3e-3, filters), draw.integers(-2000, 2000, filters), 7, 3, 250
    )


# --- grids --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("low, high", [(0, 6), (-1, 3), (-0.37, 12.5), (2, 5), (-7, -2)])
def test_a_grid_covers_its_range_and_has_a_place_for_zero(low, high):
    grid = eight_bits.grid_of(low, high)
    ends = eight_bits.dequantise(np.array([0, 255]), grid, np.float64)
    assert ends[0] <= min(low, 0) + grid.scale / 2 and ends[1] >= max(high, 0) - grid.scale / 2
    assert eight_bits.dequantise(eight_bits.quantise(0.0, grid), grid) == 0
    x = rng().uniform(min(low, 0), max(high, 0), 1000)
    x = np.clip(x, *ends)
    error = np.abs(eight_bits.dequantise(eight_bits.quantise(x, grid), grid, np.float64) - x)
    assert error.max() <= grid.scale / 2 * (1 + 1e-12)


def test_halves_go_up_and_far_numbers_to_the_ends():
    grid = Grid(0.5, 100)
    x = np.array([0.25, -0.25, 0.75, -0.75, 1e9, -1e9])
    assert eight_bits.quantise(x, grid).tolist() == [101, 100, 102, 99, 255, 0]


def test_relu6_s_step():
    assert eight_bits.grid_of(0, 6) == Grid(6 / 255, 0)


@pytest.mark.parametrize(
    "ends, words_", [((0, 0), "all numbers are 0"), ((0, np.inf), "finite"), ((np.nan, 1), "finite")]
)
def test_a_range_that_is_none_is_refused(ends, words_):
    with pytest.raises(NumnetError, match=words_):
        eight_bits.grid_of(*ends, "block1")


def test_nan_has_no_place():
    with pytest.raises(ValueError, match="NaN"):
        eight_bits.quantise([1.0, np.nan], Grid(1, 0))
    if not PLAIN:
        with pytest.raises(ValueError, match="NaN"):
            quantised_maps.to_bytes(np.array([1, np.nan], np.float32), Grid(1, 0), np.empty(2, np.uint8))


def test_the_pass_that_makes_bytes_is_the_definition():
    x = rng().normal(0, 3, 5000).astype(np.float32)
    x[:3] = np.inf, -np.inf, 0
    grid = Grid(0.037, 91)
    got = quantised_maps.to_bytes(x, grid, np.empty(5000, np.uint8))
    assert (got == eight_bits.quantise(x, grid)).all()


def test_weights_have_a_scale_for_each_filter():
    w = rng().normal(size=(3, 3, 4, 5)) * np.array([1, 10, 0.1, 0, 1e-20])
    scales = eight_bits.weight_scales(w)
    q = eight_bits.quantise_weights(w, scales)
    assert np.abs(q).reshape(-1, 5).max(axis=0).tolist() == [127, 127, 127, 0, 127] and scales[3] == 1
    assert (np.abs(q * scales - w) <= scales / 2 * (1 + 1e-9)).all()
    one = eight_bits.weight_scales(w, channel=False)
    assert (one == one[0]).all() and one[0] == scales[1]


# --- fixed point --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("real", [1e-9, 2.0**-24, 3.7e-4, 0.1, 0.5, 1 - 2**-40, 1.0, 1.7, 1000.0])
def test_equation_6_is_equation_4_in_exact_fractions(real):
    """With the multiplier that equation (5) gives, bit for bit; and that multiplier is near."""
    m, s = eight_bits.multiplier_of(real)
    assert 0 < m < 2**31 and abs(Fraction(m, 2**s) - Fraction(real)) <= Fraction(1, 2 ** (s + 1))
    fixed = eight_bits.fixed_of([real], [12345], 17)
    for total in (0, 1, -1, 99, -12346, 10**6, -(10**6)):
        want = floor((total + 12345) * Fraction(m, 2**s) + Fraction(1, 2)) + 17
        assert (total * int(fixed.m[0]) + int(fixed.c[0])) >> int(fixed.shift[0]) == want


@pytest.mark.parametrize("real", [0.0, -1.0, np.inf, np.nan, 2.0**30])
def test_multipliers_that_are_refused(real):
    with pytest.raises(ValueError, match="multiplier"):
        eight_bits.multiplier_of(real)


def test_sums_that_leave_32_bits_are_refused():
    w = np.full((70_000, 4), 127, np.int8)
    with pytest.raises(NumnetError, match="32 bits"):
        quantised_product.pack(w[None], 0, fixed_for(4))
    wide = eight_bits.fixed_of([2.0**20] * 4, [0] * 4, 0)
    with pytest.raises(NumnetError, match="too small"):
        quantised_product.pack(np.full((1, 100, 4), 127, np.int8), 0, wide)


# --- words --------------------------------------------------------------------------------------------------


@kernel(parallel=False)
def each_name(a, w, fixed, out, v):
    n = width(v)
    x, y = words.widen(a, 3, v), words.widen(w, 3, v)
    words.narrow(out, 0, x)
    words.narrow(out, n, y)
    words.narrow(out, 2 * n, x + y)
    words.narrow(out, 3 * n, x - y)
    words.narrow(out, 4 * n, x * y)
    words.narrow(out, 5 * n, words.clip(y, -5, 9))
    words.narrow(out, 6 * n, words.shift(y, 2))
    words.narrow(out, 7 * n, words.load_words(a, 1, v))
    words.narrow(out, 8 * n, words.spread_at(w, 5, v))
    words.narrow(out, 9 * n, words.slide(words.load_words(w, 1, v), x))
    words.narrow(out, 10 * n, words.rescale(x, fixed, 1))
    words.narrow(out, 11 * n, words.spread(-7, v) + words.zero(v))
    start = words.widen(out, 0, v)
    left, right = words.load_words(a, 0, v), words.load_words(w, 0, v)
    words.narrow(out, 12 * n, words.dot(start, left, right))
    words.narrow(out, 13 * n, words.dot_plain(start, left, right))
    words.narrow(out, 14 * n, words.larger(words.load_words(a, 2, v), words.load_words(w, 2, v)))


@kernel(parallel=False)
def pairs_alone(a, w, out, v):
    words.narrow(out, 0, words.dot_pairs(words.zero(v), words.load_words(a, 0, v), words.load_words(w, 0, v)))


@pytest.mark.parametrize("n", LANES)
def test_each_name_of_the_page_words(n):
    a, w = bytes_of(200), weights_of(200)
    a[:8], w[:8] = 255, 127  # where 16 bits would not do
    w[4:8] = -128
    m, c = (rng(3).integers(1, 2**30, 40) for _ in range(2))
    fixed = eight_bits.Fixed(m, c, rng(4).integers(20, 31, 40), 40, 2000)
    out = np.zeros(15 * n, np.int32)
    each_name(a, w, fixed, out, lanes_of(n))
    x, y = a[3 : 3 + n].astype(np.int64), w[3 : 3 + n].astype(np.int64)
    rescaled = np.clip((x * m[1 : 1 + n] + c[1 : 1 + n]) >> fixed.shift[1 : 1 + n], 40, 2000)
    dots = (a[: 4 * n].astype(np.int64) * w[: 4 * n]).reshape(n, 4).sum(axis=1)
    larger = np.maximum(a[2 : 2 + 4 * n], w[2 : 2 + 4 * n].view(np.uint8)).view(np.int32)
    slid = (w[1 : 1 + 4 * n].copy().view(np.uint32) >> 8) | (x.astype(np.uint32) << 24)
    want = [
        x, y, x + y, x - y, x * y, np.clip(y, -5, 9), y >> 2, a[1 : 1 + 4 * n].copy().view(np.int32),
        np.repeat(w[5:9].copy().view(np.int32), n), slid, rescaled, np.full(n, -7), x + dots, x + dots,
        larger,
    ]  # fmt: skip
    for i, row in enumerate(want):
        assert (out[i * n : (i + 1) * n] == row.astype(np.int64).astype(np.int32)).all(), i


@pytest.mark.parametrize("n", LANES)
def test_dots_without_vnni(n):
    """pmaddwd, where the processor has it: without saturation, the same sums."""
    if words.way_of(n) == "plain":
        pytest.skip("no pmaddwd for so many lanes here")
    a, w = bytes_of(64), weights_of(64)
    a[:16], w[:8], w[8:16] = 255, 127, -128
    out = np.zeros(n, np.int32)
    pairs_alone(a, w, out, lanes_of(n))
    assert (out == (a[: 4 * n].astype(np.int64) * w[: 4 * n]).reshape(n, 4).sum(axis=1)).all()


@pytest.mark.parametrize(
    "features, ways",
    [
        ({"avx512vnni": 1, "avx512vl": 1, "avx512bw": 1, "avx2": 1, "sse2": 1}, ["vnni", "vnni", "vnni"]),
        ({"avxvnni": 1, "avx2": 1, "sse2": 1}, ["vnni", "vnni", "plain"]),
        ({"avx2": 1, "sse2": 1}, ["pairs", "pairs", "plain"]),
        ({"neon": 1}, ["plain", "plain", "plain"]),
    ],
)
def test_which_instruction_makes_a_dot(features, ways):
    assert [words.way_of(n, features) for n in (4, 8, 16)] == ways


@pytest.mark.skipif(not CHECK, reason="needs NUMNET_CHECK=1")
def test_check_mode_sees_an_index_that_is_out_of_bounds():
    @kernel(parallel=False)
    def reads(a, fixed, out, v):
        words.narrow(out, 0, words.load_words(a, 1, v))

    @kernel(parallel=False)
    def writes(a, fixed, out, v):
        words.narrow_tile(words.zeros(2, 1, v), out, 0, 1, (0,))

    @kernel(parallel=False)
    def rescales(a, fixed, out, v):
        words.narrow_tile(words.rescale_tile(words.zeros(1, 1, v), fixed, (1,)), out, 0, 0, (0,))

    @kernel(parallel=False)
    def stays_inside(a, fixed, out, v):
        words.narrow_tile(words.rescale_tile(words.zeros(1, 1, v), fixed, (0,)), out, 0, 0, (0,))

    arguments = np.zeros(16, np.uint8), fixed_for(4), np.zeros(4, np.int32), lanes_of(4)
    stays_inside(*arguments)
    for wrong in (reads, writes, rescales):
        with pytest.raises(IndexError):
            wrong(*arguments)


# --- passes -------------------------------------------------------------------------------------------------

CONVS = [  # N, H, W, C, F, K, stride, top, left, P, Q
    (2, 5, 6, 8, 16, 1, 1, 0, 0, 5, 6), (2, 9, 7, 3, 21, 3, 2, 1, 0, 4, 4), (1, 5, 5, 7, 5, 1, 1, 0, 0, 5, 5),
    (1, 3, 4, 16, 50, 3, 1, 1, 1, 3, 4), (1, 5, 5, 4, 3, 1, 2, 0, 0, 3, 3), (1, 1, 1, 12, 10, 3, 1, 1, 1, 1, 1),
    (2, 4, 1, 12, 21, 1, 5, 2, 4, 2, 1),  # a stride wider than the image, whose padding ends before it
]  # fmt: skip


@pytest.mark.parametrize("case", CONVS, ids=str)
def test_convolution_is_its_definition(case):
    n, h, w_, c, f, k, stride, top, left, p, q = case
    x, w, window = bytes_of(n, h, w_, c), weights_of(k, k, c, f), Window(k, stride, top, left)
    for fixed, dtype in ((fixed_for(f), np.uint8), (eight_bits.sums_only(np.arange(f) * 9 - 40), np.int32)):
        want = eight_bits.definition(x, w, 11, window, fixed, np.empty((n, p, q, f), dtype))
        assert len(np.unique(want)) > 5
        packed = quantised_product.pack(w.reshape(k, -1, f), 11, fixed)
        got = quantised_product.conv(x, packed, window, np.empty((n, p, q, f), dtype))
        assert (got.reshape(want.shape) == want).all()


DEPTHWISE = [  # N, H, W, C, K, stride, top, left, P, Q
    (2, 5, 6, 8, 3, 1, 1, 1, 5, 6), (2, 9, 7, 24, 3, 2, 0, 1, 4, 4), (1, 9, 9, 70, 5, 2, 2, 2, 5, 5),
    (1, 8, 14, 130, 5, 1, 2, 2, 8, 14), (1, 3, 3, 3, 3, 1, 1, 1, 3, 3), (1, 8, 8, 16, 7, 1, 3, 3, 8, 8),
    (1, 12, 12, 16, 3, 3, 1, 1, 4, 4), (2, 1, 1, 16, 3, 1, 1, 1, 1, 1),
]  # fmt: skip


@pytest.mark.parametrize("case", DEPTHWISE, ids=str)
def test_depthwise_is_its_definition_and_the_table_comes_behind(case):
    n, h, w_, c, k, stride, top, left, p, q = case
    x, w, fixed = bytes_of(n, h, w_, c), weights_of(k, k, c, 1), fixed_for(c)
    window, shape = Window(k, stride, top, left), (n, p, q, c)
    want = eight_bits.definition_depthwise(x, w, 200, window, fixed, np.empty(shape, np.uint8))
    table = rng(5).permutation(256).astype(np.uint8)
    packed = quantised_depthwise.pack(w[..., 0], 200, fixed, table)
    got = quantised_depthwise.depthwise(x, packed, window, np.empty(shape, np.uint8))
    assert (got == table[want]).all()


@pytest.mark.parametrize("filters", [3, 16, 33, 48, 72, 200, 520])
@pytest.mark.parametrize("rows", [1, 49, 196])
def test_a_product_cut_over_its_filters_is_its_definition(rows, filters):
    """Each number is looked up once, also where the last vector of filters overlaps the one before."""
    x, w, fixed = bytes_of(1, 1, rows, 8), weights_of(1, 1, 8, filters), fixed_for(filters)
    want = eight_bits.definition(
        x, w, 11, quantised_product.POINT, fixed, np.empty((1, 1, rows, filters), np.uint8)
    )
    table = rng(5).permutation(256).astype(np.uint8)
    packed = quantised_product.pack(w.reshape(1, 8, filters), 11, fixed, table)
    got = quantised_product.product(x, packed, np.empty((1, 1, rows, filters), np.uint8))
    assert (got == table[want]).all()


def test_tiles_of_a_product():
    """All rows are covered, tiles have 96 rows at most, and few rows are cut over the filters, by whole panels."""
    for rows in (1, 6, 49, 96, 97, 196, 784, 12_544):
        for columns in (1, 16, 40, 512, 1000):
            cut = quantised_product.cut_of(rows, columns, 16)
            down = -(-rows // cut.rows)
            assert cut.rows % quantised_product.ROWS == 0 and cut.rows <= quantised_product.TILE
            assert (down - 1) * cut.rows < rows <= down * cut.rows
            assert 1 <= cut.groups <= max(-(-columns // 16) // quantised_product.VECTORS, 1)
            assert down * cut.groups < 2 * max(down, quantised_product.TILES)
    assert quantised_product.cut_of(196, 512, 16) == (66, 6)


def test_heights_of_tiles():
    assert tile_height(112, 23, 1) == 14 and tile_height(112, 23, 16) == 23, (
        "near-equal, and lower for one image"
    )
    assert tile_height(28, 64, 3) == 10 and tile_height(7, 64, 1) == 7 and tile_height(1, 5, 1) == 1
    for p in range(1, 60):
        for most in (1, 3, 20, 100):
            height = tile_height(p, most, 2)
            tiles = -(-p // height)
            assert height <= most and (tiles - 1) * height < p


def test_a_product_without_whole_words_is_refused():
    packed = quantised_product.pack(weights_of(1, 6, 4), 3, fixed_for(4))
    with pytest.raises(ValueError, match="multiple of 4"):
        quantised_product.product(bytes_of(5, 6), packed, np.empty((5, 4), np.uint8))


def test_depthwise_with_tiles_of_few_rows(monkeypatch):
    monkeypatch.setattr(quantised_depthwise, "WORDS", 9000)
    test_depthwise_is_its_definition_and_the_table_comes_behind(DEPTHWISE[3])


def test_the_definition_beside_numpy():
    """One convolution, with Python's own numbers."""
    x, w, zero = bytes_of(1, 4, 4, 3), weights_of(3, 3, 3, 2), 9
    fixed = fixed_for(2)
    got = eight_bits.definition(x, w, zero, Window(3, 1, 1, 1), fixed, np.empty((1, 4, 4, 2), np.uint8))
    framed = np.full((6, 6, 3), zero, np.int64)
    framed[1:5, 1:5] = x[0]
    for p in range(4):
        for q in range(4):
            sums = ((framed[p : p + 3, q : q + 3, :, None] - zero) * w).sum(axis=(0, 1, 2))
            want = np.clip((sums * fixed.m + fixed.c) >> fixed.shift, 3, 250)
            assert (got[0, p, q] == want).all()


@pytest.mark.parametrize("shape", [(2, 3, 3, 5), (1, 40, 40, 24)])
def test_addition_average_excitation_and_table(shape):
    x, other, gates = bytes_of(*shape), bytes_of(*shape, seed=3), bytes_of(shape[0], shape[3], seed=4)
    a, b, y = Grid(0.05, 20), Grid(0.031, 140), Grid(0.07, 99)
    addition = eight_bits.addition_of(a, b, y, 5, 240)
    want = eight_bits.definition_add(x, other, addition, np.empty(shape, np.uint8))
    assert (quantised_maps.add(x, other, addition, np.empty(shape, np.uint8)) == want).all()
    real = eight_bits.dequantise(x, a, np.float64) + eight_bits.dequantise(other, b, np.float64)
    exact = np.clip(np.floor(real / y.scale + 0.5) + y.zero, 5, 240)
    assert np.abs(exact - want).max() <= 1 and (exact == want).mean() > 0.99

    fixed = eight_bits.fixed_of([0.05 / 0.07 / (shape[1] * shape[2])], [0], 99)
    want = eight_bits.definition_average(x, 20, fixed, np.empty(gates.shape, np.uint8))
    means = quantised_maps.for_means(fixed, 20, shape[1] * shape[2], shape[3])
    assert (quantised_maps.average(x, means, np.empty(gates.shape, np.uint8)) == want).all()
    assert np.abs(want - (x.mean(axis=(1, 2)) - 20) * 0.05 / 0.07 - 99).max() < 0.51

    fixed = eight_bits.fixed_of([0.003], [0], 99)
    want = eight_bits.definition_excite(x, 20, gates, 128, fixed, np.empty(shape, np.uint8))
    fixed = quantised_maps.for_channels(fixed, shape[3])
    assert (quantised_maps.excite(x, 20, gates, 128, fixed, np.empty(shape, np.uint8)) == want).all()

    table = rng(6).integers(0, 256, 256).astype(np.uint8)
    assert (quantised_maps.look_up(x, table, np.empty(shape, np.uint8)) == table[x]).all()


def test_a_table_is_its_function_rounded_once():
    x, y = Grid(0.05, 60), Grid(0.04, 10)
    table = eight_bits.table_of(lambda r: r * np.clip(r + 3, 0, 6) / 6, x, y)
    real = (np.arange(256) - 60) * 0.05
    want = np.clip(np.floor(real * np.clip(real + 3, 0, 6) / 6 / 0.04 + 0.5) + 10, 0, 255)
    assert (table == want).all()


MAXIMA = [  # N, H, W, C, K, stride, top, left, P, Q
    (2, 6, 8, 8, 2, 2, 0, 0, 3, 4), (2, 5, 7, 70, 2, 2, 0, 0, 2, 3), (1, 6, 5, 33, 3, 2, 1, 0, 3, 3),
    (2, 6, 5, 130, 3, 1, 1, 1, 6, 5), (1, 4, 4, 5, 2, 3, 0, 0, 1, 1), (1, 7, 9, 64, 5, 3, 2, 2, 3, 3),
    (2, 3, 5, 21, 5, 1, 0, 0, 1, 1), (1, 6, 5, 3, 3, 2, 1, 0, 3, 3),
    (1, 1, 1, 4, 3, 1, 1, 1, 1, 1), (1, 3, 3, 1, 2, 1, 1, 1, 3, 3),
]  # fmt: skip


@pytest.mark.parametrize("case", MAXIMA, ids=str)
def test_the_maximum_is_its_definition_and_that_of_floats(case):
    """Bytes and their real numbers have the same winners; of negative numbers, too, padding never wins."""
    n, h, w_, c, k, stride, top, left, p, q = case
    x, shape = bytes_of(n, h, w_, c), (n, p, q, c)
    window, y = Window(k, stride, top, left), np.empty(shape, np.uint8)
    want = eight_bits.definition_maximum(x, window, np.empty(shape, np.uint8))
    assert quantised_maps.maximum(x, window, y) is y and (y == want).all()
    grid = Grid(0.37, 255)  # no number is above 0
    bottom, right = ((m - 1) * stride + k - before - side for m, before, side in ((p, top, h), (q, left, w_)))
    framed = np.pad(
        eight_bits.dequantise(x, grid).astype(np.float64),
        [(0, 0), (top, max(bottom, 0)), (left, max(right, 0)), (0, 0)],
        constant_values=-np.inf,
    )
    real = np.array(
        [
            [framed[:, i : i + k, j : j + k].max(axis=(1, 2)) for j in range(0, q * stride, stride)]
            for i in range(0, p * stride, stride)
        ]
    ).transpose(2, 0, 1, 3)
    assert (eight_bits.quantise(real, grid) == want).all()


@pytest.mark.parametrize(
    "shape, channels", [((2, 3, 3), (5, 1, 34)), ((1, 40, 40), (24, 40)), ((3, 1, 1), (7, 2, 2, 9))]
)
def test_concatenation_brings_each_part_to_its_grid(shape, channels):
    parts = [bytes_of(*shape, c, seed=c) for c in channels]
    y, first = Grid(0.07, 99), Grid(0.031, 140)
    grids = [first, *[y] * (len(parts) - 1)]  # the others are copied
    tables = [eight_bits.table_of(lambda real: real, x, y) for x in grids]
    assert (tables[1] == np.arange(256)).all()
    shape = (*shape, sum(channels))
    want = eight_bits.definition_concat(parts, tables, np.empty(shape, np.uint8))
    copied = [tables[0], *[NO_TABLE] * (len(parts) - 1)]
    for each in (tables, copied):
        assert (quantised_maps.concat(parts, each, np.empty(shape, np.uint8)) == want).all()
    real = np.concatenate(
        [eight_bits.dequantise(x, grid, np.float64) for x, grid in zip(parts, grids)], axis=-1
    )
    assert (want == eight_bits.quantise(real, y)).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_any_number_of_threads(threads):
    import numba

    if threads > numba.config.NUMBA_NUM_THREADS or PLAIN:
        pytest.skip("there are not so many threads here")
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(threads)
        for case in (CONVS[3], CONVS[1]):
            test_convolution_is_its_definition(case)
        test_depthwise_is_its_definition_and_the_table_comes_behind(DEPTHWISE[3])
        test_the_maximum_is_its_definition_and_that_of_floats(MAXIMA[3])
        test_concatenation_brings_each_part_to_its_grid((1, 40, 40), (24, 40))
    finally:
        numba.set_num_threads(before)


@pytest.mark.parametrize("channels", [33, 40, 63, 70])
def test_two_threads_never_look_a_number_up_twice(channels):
    """Channels that CHANNELS does not divide, in tiles that two threads work on at once, many times over."""
    x, w, fixed = bytes_of(1, 28, 28, channels), weights_of(3, 3, channels, 1), fixed_for(channels)
    table = rng(5).permutation(256).astype(np.uint8)
    shape, window = (1, 28, 28, channels), Window(3, 1, 1, 1)
    want = table[eight_bits.definition_depthwise(x, w, 200, window, fixed, np.empty(shape, np.uint8))]
    packed = quantised_depthwise.pack(w[..., 0], 200, fixed, table)
    for _ in range(1 if PLAIN or CHECK else 100):
        y = quantised_depthwise.depthwise(x, packed, window, np.empty(shape, np.uint8))
        assert (y == want).all()


def test_nothing_in_nothing_out():
    fixed = fixed_for(4)
    packed = quantised_product.pack(weights_of(1, 8, 4), 3, fixed)
    assert quantised_product.product(
        np.empty((0, 8), np.uint8), packed, np.empty((0, 4), np.uint8)
    ).shape == (0, 4)
    y = np.empty((0, 2, 2, 4), np.uint8)
    assert quantised_product.conv(np.empty((0, 2, 2, 8), np.uint8), packed, Window(1, 1, 0, 0), y).size == 0
    assert quantised_maps.maximum(np.empty((0, 4, 4, 4), np.uint8), Window(2, 2, 0, 0), y).size == 0
    assert quantised_maps.concat([y[..., :3], y[..., 3:]], [NO_TABLE] * 2, y).size == 0
