"""The page ``vectors``: each name against NumPy, for 1, 4, 8 and 16 lanes; what typing refuses; check mode; plain Python."""

import json
import os
import platform

import numba
import numpy as np
import pytest
from kernel_shapes import DTYPES

from numnet.kernels import vectors
from numnet.kernels._jit import kernel
from numnet.kernels.tiles import (
    add_outer,
    add_taps,
    add_tiles,
    fma_tile,
    load_tile,
    prefetch_tile,
    repeat,
    store_tile,
    zeros,
)
from numnet.kernels.vectors import (
    both,
    double,
    fma,
    lanes,
    lanes_of,
    least,
    load,
    most,
    number_of,
    power_of_two,
    spread,
    spread_at,
    store,
    where,
    width,
    zero,
)

LANES = (1, 4, 8, 16)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)
each_lanes = pytest.mark.parametrize("n", LANES)
X86 = platform.machine().lower() in ("x86_64", "amd64")


def numbers(count, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=count).astype(dtype)


# --- one vector ---------------------------------------------------------------------------------------------


@kernel(parallel=False)
def everything(a, b, c, out, wide, v):
    """Each name on the numbers 3 … of a, b and c; results side by side in out, those in float64 in wide."""
    n = width(v)
    x, y, z = load(a, 3, v), load(b, 3, v), load(c, 3, v)
    store(out, 0, x)
    store(out, n, spread(a[1], v))
    store(out, 2 * n, spread(2, x))
    store(out, 3 * n, spread_at(a, 2, v))
    store(out, 4 * n, zero(a, v))
    store(out, 5 * n, x + y)
    store(out, 6 * n, x - y)
    store(out, 7 * n, x * y)
    store(out, 8 * n, x / y)
    store(out, 9 * n, fma(x, y, z))
    store(out, 10 * n, least(x, y))
    store(out, 11 * n, most(x, y))
    store(out, 12 * n, where(x > y, x, z))
    store(out, 13 * n, where(x >= y, x, z))
    store(out, 14 * n, where(x < y, x, z))
    store(out, 15 * n, where(x <= y, x, z))
    store(out, 16 * n, where(both(x > y, y > z), x, z))
    store(out, 17 * n, x * y + z)
    store(wide, 0, double(x))


def expected(a, b, c, n):
    x, y, z = a[3 : 3 + n], b[3 : 3 + n], c[3 : 3 + n]
    ones = np.ones(n, a.dtype)
    # float64: rounded twice, unless long double is wider
    exact = (x.astype(np.longdouble) * y + z).astype(a.dtype)
    return [
        x, a[1] * ones, 2 * ones, a[2] * ones, 0 * ones, x + y, x - y, x * y, x / y, exact,
        np.minimum(x, y), np.maximum(x, y), np.where(x > y, x, z), np.where(x >= y, x, z), np.where(x < y, x, z),
        np.where(x <= y, x, z), np.where((x > y) & (y > z), x, z), x * y + z,
    ]  # fmt: skip


@each_lanes
@both_dtypes
def test_each_name_is_numpys(dtype, n):
    """Exactly; for float64 a fused result may differ from one rounded twice by a last bit."""
    a, b, c = (numbers(20, dtype, seed) for seed in range(3))
    b[5] = a[5]  # for ≥ and ≤
    out, wide = np.full(18 * n, np.nan, dtype), np.empty(n)
    everything(a, b, c, out, wide, lanes_of(n))
    for i, want in enumerate(expected(a, b, c, n)):
        got = out[i * n : (i + 1) * n]
        if i == 9:
            eps = np.finfo(dtype).eps
            np.testing.assert_allclose(got, want, rtol=eps, atol=4 * eps if vectors.PLAIN else 0)
        else:
            assert got.tobytes() == want.tobytes(), i
    assert (wide == a[3 : 3 + n]).all()


@each_lanes
@both_dtypes
def test_a_product_and_a_sum_are_never_fused_and_fma_always_is(dtype, n):
    """(1 + e)² − (1 + 2e): 0 if the square is rounded first, e² if it is not."""
    e = dtype_of(dtype)(2.0 ** -(np.finfo(dtype).nmant - 1))
    a = np.full(20, 1 + e, dtype)
    c = -(a * a)
    out = np.empty(18 * n, dtype)
    everything(a, a, c, out, np.empty(n), lanes_of(n))
    assert (out[17 * n :] == 0).all()
    assert (out[9 * n : 10 * n] == e * e).all()


def dtype_of(name):
    return np.dtype(name).type


@each_lanes
@both_dtypes
def test_nan_goes_through_least_and_most(dtype, n):
    """x > NaN and x < NaN are both "no", so x comes out where the limit is NaN, and NaN where x is."""
    a, b = np.full(20, np.nan, dtype), np.ones(20, dtype)
    out = np.empty(18 * n, dtype)
    everything(a, b, b, out, np.empty(n), lanes_of(n))
    assert np.isnan(out[10 * n : 12 * n]).all()
    assert (out[12 * n : 17 * n] == 1).all()  # no comparison says yes
    everything(b, a, b, out, np.empty(n), lanes_of(n))
    assert (out[10 * n : 12 * n] == 1).all()


@kernel(parallel=False)
def powers(x, y, v):
    store(y, 0, power_of_two(load(x, 0, v)))


@pytest.mark.parametrize("dtype, low, high", [("float32", -126, 127), ("float64", -1022, 1023)])
def test_powers_of_two(dtype, low, high):
    if dtype not in DTYPES:
        pytest.skip("check mode")
    for x in ([low, high, 0, 1], [-1, 10, -37, 100]):
        y = np.empty(4, dtype)
        powers(np.array(x, dtype), y, lanes_of(4))
        assert y.tolist() == [2.0**n for n in x]


# --- tiles --------------------------------------------------------------------------------------------------

ROWS = 3


@kernel(parallel=False)
def tiles(a, b, out, v):
    """ROWS × 2 vectors: each name of tiles, results side by side in out, each with rows of 2n + 1 numbers."""
    n = width(v)
    step, starts, size = 2 * n + 1, (0, n + 1), ROWS * (2 * n + 1)
    nothing = zeros(a, ROWS, 2, v)
    tile, pair = load_tile(nothing, a, 1, step, starts), (load(b, 0, v), load(b, n, v))
    prefetch_tile(tile, a, 1, step, starts)  # changes nothing
    store_tile(tile, out, 0, step, starts)
    store_tile(repeat(pair, ROWS), out, size, step, starts)
    store_tile(add_outer(tile, b, 2, 5, pair), out, 2 * size, step, starts)
    store_tile(add_tiles(tile, repeat(pair, ROWS)), out, 3 * size, step, starts)
    store_tile(fma_tile(tile, pair, pair[::-1]), out, 4 * size, step, starts)
    store_tile(add_taps(tile, b, 1, 4, (0, 7), 3, (pair[0], pair[1])), out, 5 * size, step, starts)
    single = load_tile(zeros(a, ROWS, 1, v), a, 0, n, (0,))
    store_tile(add_taps(single, b, 1, 4, (0,), 2, (pair[0], pair[1])), out, 6 * size, n, (0,))
    store_tile(nothing, out, 7 * size, step, starts)


def expected_tiles(a, b, n):
    """Out as above; numbers that no vector covers stay NaN."""
    step, starts = 2 * n + 1, (0, n + 1)
    pair = [b[:n], b[n : 2 * n]]
    cells = [(r, i) for r in range(ROWS) for i in range(2)]
    tile = {(r, i): a[1 + r * step + starts[i] :][:n] for r, i in cells}
    results = [
        tile,
        {(r, i): pair[i] for r, i in cells},
        {(r, i): tile[r, i] + b[2 + 5 * r] * pair[i] for r, i in cells},
        {(r, i): tile[r, i] + pair[i] for r, i in cells},
        {(r, i): tile[r, i] * pair[i] + pair[1 - i] for r, i in cells},
        {
            (r, i): tile[r, i] + sum(b[1 + 4 * r + 7 * i + 3 * t :][:n] * pair[t] for t in range(2))
            for r, i in cells
        },
        None,
        {(r, i): np.zeros(n) for r, i in cells},
    ]
    out = np.full((8, ROWS * step), np.nan)
    for k, result in enumerate(results):
        for r, i in cells if result else ():
            out[k, r * step + starts[i] :][:n] = result[r, i]
    for r in range(ROWS):
        taps = b[1 + 4 * r :][:n] * pair[0] + b[3 + 4 * r :][:n] * pair[1]
        out[6, r * n : (r + 1) * n] = a[r * n : (r + 1) * n] + taps
    return out.reshape(-1)


@each_lanes
@both_dtypes
def test_tiles(dtype, n):
    a, b = numbers(ROWS * (2 * n + 1) + 1, dtype), numbers(2 * n + 40, dtype, 1)
    want = expected_tiles(a.astype(float), b.astype(float), n)
    out = np.full(want.size, np.nan, dtype)
    tiles(a, b, out, lanes_of(n))
    bound = 16 * np.finfo(dtype).eps
    np.testing.assert_allclose(out, want, rtol=bound, atol=bound)


# --- lanes --------------------------------------------------------------------------------------------------


def test_lanes_of_channels(monkeypatch):
    for processors, want in (
        (16, [1, 1, 1, 1, 1, 8, 8, 16, 16]),
        (8, [1, 1, 1, 1, 4, 8, 8, 8, 8]),
        (4, [1, 1, 2, 2] + [4] * 5),
    ):
        monkeypatch.setattr(vectors, "LANES", processors)
        assert [number_of(lanes(c, np.float32)) for c in (0, 1, 2, 3, 4, 8, 15, 16, 1000)] == want
        half = processors // 2
        assert [number_of(lanes(c, np.float64)) for c in (half, half // 2, 0)] == [half, half // 2, 1]
    assert number_of(lanes(64, object)) == 1
    assert [number_of(lanes_of(n)) for n in (1, 2, 4, 8, 16)] == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    "features, want",
    [
        ({"avx512f": True, "avx": True}, 16),
        ({"avx": True, "avx512f": False}, 8),
        ({"neon": True}, 4),
        ({}, 4),
    ],
)
def test_lanes_of_processors(features, want):
    assert vectors.processor_lanes(features) == want


@pytest.mark.parametrize("value", ["5", "sixteen"])
def test_a_number_of_lanes_that_no_processor_has(value, run_python, tmp_path):
    script = tmp_path / "lanes.py"
    script.write_text("import sys\nfrom numnet.cli import main\nsys.exit(main(['info']))\n")
    said = run_python(script, env={"NUMNET_LANES": value}, fails=True)
    assert said.strip() == f"numnet: error: NUMNET_LANES: expected 4, 8 or 16, got {value!r}"


REGISTERS = """
import json, re
import numpy as np
from numnet.kernels._jit import kernel
from numnet.kernels.vectors import lanes, load, store, width

@kernel(parallel=False)
def products(x, y, v):
    for i in range(0, x.size, width(v)):
        store(y, i, load(x, i, v) * load(y, i, v))

x, y = np.arange(64, dtype=np.float32), np.full(64, 3, np.float32)
products(x, y, lanes(64, x.dtype))
(code,) = products.inspect_asm().values()
lines = [line for line in code.splitlines() if "mulps" in line]
print(json.dumps([(y == 3 * x).all().item(), sorted(set(re.findall("[xyz]mm", " ".join(lines))))]))
"""


@pytest.mark.skipif(not X86, reason="registers of x86")
@pytest.mark.parametrize(
    "n, register, needs", [(4, "xmm", "sse2"), (8, "ymm", "avx"), (16, "zmm", "avx512f")]
)
def test_the_code_has_registers_of_that_width(n, register, needs, run_python, tmp_path):
    """In a fresh process and cache; the product is looked for, since Numba's code around ours uses any register."""
    if not vectors.FEATURES.get(needs):  # then LLVM cuts the vectors
        register = "ymm" if vectors.FEATURES.get("avx") else "xmm"
    script = tmp_path / "registers.py"
    script.write_text(REGISTERS)
    env = {"NUMNET_LANES": n, "NUMNET_CACHE": tmp_path, "NUMNET_CHECK": "0"}
    assert json.loads(run_python(script, env=env)) == [True, [register]]


# --- what typing refuses ------------------------------------------------------------------------------------


def loads(a, v):
    return width(load(a, 0, v))


def stores(a, v):
    store(a, 0, spread(np.float32(1), v))


def adds(a, v):
    return width(load(a, 0, v) + spread(1.0, v))


def fuses(a, v):
    return width(fma(load(a, 0, v), load(a, 0, v), spread(1.0, v)))


def chooses(a, v):
    return width(least(load(a, 0, v), spread(1.0, v)))


def outer(a, v):
    return len(add_outer(zeros(a, 2, 1, v), np.ones(9), 0, 1, (zero(a, v),)))


def unknown_rows(a, v):
    return len(zeros(a, a.size, 1, v))


READ_ONLY = np.ones(16, np.float32)
READ_ONLY.flags.writeable = False
FLOATS = np.ones(16, np.float32)


@pytest.mark.parametrize(
    "function, array, says",
    [
        (loads, np.ones(32, np.float32)[::2], "expected a contiguous float array of one dimension"),
        (loads, np.ones((4, 4), np.float32), "expected a contiguous float array of one dimension"),
        (loads, np.ones(16, np.int64), "expected a contiguous float array of one dimension"),
        (stores, READ_ONLY, "store into a read-only array"),
        (stores, np.ones(16), "expected a vector of the array's dtype float64"),
        (adds, FLOATS, "No implementation of function Function(<built-in function add>)"),
        (fuses, FLOATS, "fma: expected vectors of one type"),
        (chooses, FLOATS, "least: expected vectors of one type"),
        (outer, FLOATS, "add_outer: expected a tile of vectors and an array of their dtype"),
        (unknown_rows, FLOATS, "zeros: expected a constant number of rows and vectors"),
    ],
)
def test_what_typing_refuses(function, array, says):
    """It would read wrong numbers or write where nobody may: an intrinsic takes what it is given."""
    with pytest.raises(numba.TypingError) as refused:
        kernel(parallel=False)(function)(array, lanes_of(4))
    assert says in str(refused.value)


def test_a_good_array_is_typed():
    assert kernel(parallel=False)(loads)(FLOATS, lanes_of(4)) == 4


# --- check mode and plain Python ----------------------------------------------------------------------------

BOUNDS = """
import numpy as np
from numnet.kernels._jit import kernel
from numnet.kernels.tiles import *
from numnet.kernels.vectors import *
from numnet.kernels.vectors import lanes_of

v, memory = lanes_of(4), np.ones(100)
a = memory[40:60]  # of 20 numbers, in the midst of memory of our own

@kernel(parallel=False)
def loads(a, at, v):
    return width(load(a, at, v))

@kernel(parallel=False)
def stores(a, at, v):
    store(a, at, zero(a, v))

@kernel(parallel=False)
def spreads(a, at, v):
    return width(spread_at(a, at, v))

@kernel(parallel=False)
def load_tiles(a, at, v):  # the last of two rows of two vectors ends 17 numbers further
    return len(load_tile(zeros(a, 2, 2, v), a, at, 8, (0, 5)))

@kernel(parallel=False)
def store_tiles(a, at, v):
    store_tile(zeros(a, 2, 2, v), a, at, 8, (0, 5))

@kernel(parallel=False)
def outers(a, at, v):  # the third of three numbers lies 14 further
    return len(add_outer(zeros(a, 3, 1, v), a, at, 7, (zero(a, v),)))

@kernel(parallel=False)
def products(a, at, v):
    return len(add_taps(zeros(a, 2, 2, v), a, at, 8, (0, 5), 1, (zero(a, v),)))

@kernel(parallel=False)
def taps(a, at, v):  # the last of two rows and three taps ends 8 + 2·3 + 4 numbers further
    return len(add_taps(zeros(a, 2, 1, v), a, at, 8, (0,), 3, (zero(a, v), zero(a, v), zero(a, v))))

for function, last in (
    (loads, 16), (stores, 16), (spreads, 19), (load_tiles, 3), (store_tiles, 3), (outers, 5), (products, 3), (taps, 2),
):
    function(a, 0, v)
    function(a, last, v)
    for at in last + 1, -1:
        try:
            function(a, at, v)
        except IndexError as error:
            assert str(error) == "vectors: index out of bounds", error
        else:
            print(function.__name__, at, "unseen")
print("done")
"""


@pytest.mark.parametrize("mode", ["NUMNET_CHECK", "NUMBA_DISABLE_JIT"])
def test_an_index_one_too_far_is_caught(mode, run_python, tmp_path):
    script = tmp_path / "bounds.py"
    script.write_text(BOUNDS)
    env = {"NUMNET_CACHE": tmp_path, "NUMNET_CHECK": "0", mode: "1"}
    assert run_python(script, env=env).splitlines() == ["done"]


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="that is what it starts")
def test_plain_python_says_the_same(run_python, tmp_path, request):
    """This file's own tests of names, tiles and NaN, with each name a few lines of NumPy; fma rounds twice there."""
    script = tmp_path / "plain.py"
    script.write_text(
        "import sys\nsys.path.insert(0, sys.argv[1])\nimport numpy as np\n"
        "import test_kernels_vectors as t\n"
        "for dtype in ('float32', 'float64'):\n"
        "    for n in t.LANES:\n"
        "        with np.errstate(invalid='ignore'):\n"
        "            t.test_each_name_is_numpys(dtype, n)\n"
        "            t.test_tiles(dtype, n)\n"
        "            t.test_nan_goes_through_least_and_most(dtype, n)\n"
        "print(t.vectors.PLAIN, t.everything.__class__.__name__)\n"
    )
    env = {"NUMBA_DISABLE_JIT": "1", "NUMNET_CHECK": "0"}
    assert run_python(script, request.path.parent, env=env).split() == ["True", "function"]


def test_plain_loads_are_copies(run_python, tmp_path):
    """A view would change under a later store."""
    script = tmp_path / "copies.py"
    script.write_text(
        "import numpy as np\nfrom numnet.kernels.tiles import load_tile, zeros\n"
        "from numnet.kernels.vectors import lanes_of, load, store\n"
        "a, v = np.arange(8.0), lanes_of(4)\n"
        "x, (y,) = load(a, 0, v), load_tile(zeros(a, 1, 1, v), a, 0, 4, (0,))\n"
        "store(a, 0, x + x)\nprint(x.tolist() == y.tolist() == [0, 1, 2, 3])\n"
    )
    assert run_python(script, env={"NUMBA_DISABLE_JIT": "1", "NUMNET_CHECK": "0"}).strip() == "True"
