"""How kernels are compiled: the cache sees every edit, needs no home, and leaves the user's Numba alone.

Every test runs fresh Python processes, most of them on a copy of the package with a cache of its own.
"""

import json
import os
import re
import shutil
import stat
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from kernel_shapes import CHECKING

import numnet
from numnet.kernels import _jit, vectors

DROPOUT = """
import json
import numpy as np
from numnet.kernels import _jit, dropout

y = dropout.dropout_forward(np.ones(1000), 0.5, 1, 2)
stats = dropout._apply.stats
print(json.dumps({
    "kept": int((y != 0).sum()),
    "hits": sum(stats.cache_hits.values()),
    "misses": sum(stats.cache_misses.values()),
    "cache": str(_jit.CACHE_FOLDER),
    "package": _jit.__file__,
}))
"""


class Copy:
    """A copy of numnet, its own cache, and a small script that drops out half of a vector."""

    def __init__(self, folder, run_python):
        self.folder, self.run_python = folder, run_python
        self.package, self.cache = folder / "copy" / "numnet", folder / "cache"
        self.script = folder / "dropout.py"
        self.script.write_text(DROPOUT)
        source = Path(numnet.__file__).parent
        shutil.copytree(source, self.package, ignore=shutil.ignore_patterns("__pycache__"))

    def run(self, script=None, **env):
        env = {
            "NUMNET_LANES": None,
            "PYTHONPATH": self.package.parent,
            "PYTHONDONTWRITEBYTECODE": "1",  # an edit within the same second would meet the old .pyc
            "NUMNET_CACHE": self.cache,
            "NUMNET_CHECK": None,
            "NUMBA_CACHE_DIR": None,
            **env,
        }
        return self.run_python(script or self.script, env=env, cwd=self.folder)

    def dropout(self, **env):
        result = json.loads(self.run(**env))
        assert Path(result["package"]).is_relative_to(self.package)
        return result

    def where(self, **env):
        """The cache folder."""
        script = self.write("from numnet.kernels import _jit\nprint(_jit.CACHE_FOLDER)")
        return Path(self.run(script, **env).strip())

    def edit(self, file, old, new):
        path = self.package / file
        source = path.read_text()
        assert source.count(old) == 1
        path.write_text(source.replace(old, new))

    def write(self, source):
        script = self.folder / "script.py"
        script.write_text(source)
        return script

    def files(self):
        return sorted(str(path) for path in self.package.rglob("*"))


@pytest.fixture
def copy(tmp_path, run_python):
    return Copy(tmp_path, run_python)


# --- the cache ----------------------------------------------------------------------------------------------


def test_an_edited_row_function_is_seen_by_the_next_process(copy):
    """The row function lies in another file than the kernel: Numba alone would run the old machine code."""
    first = copy.dropout()
    assert (first["hits"], first["misses"]) == (0, 1)
    assert 400 < first["kept"] < 600
    second = copy.dropout()
    assert (second["hits"], second["misses"]) == (1, 0)
    assert second["kept"] == first["kept"]
    copy.edit("kernels/random.py", "* 2.0**-53", "* 2.0**-54")  # uniform in [0, ½): less than the rate
    third = copy.dropout()
    assert third["kept"] == 0
    assert (third["hits"], third["misses"]) == (0, 1)
    copy.edit("kernels/random.py", "* 2.0**-54", "* 2.0**-53")
    fourth = copy.dropout()
    assert fourth == second  # the first folder is still there


def test_lanes_have_caches_of_their_own(copy):
    """Numba's own key does not hold them: compiled for 8 and run with 4 would be a hit, and code for 8."""
    runs = {lanes: copy.dropout(NUMNET_LANES=lanes) for lanes in (8, 4, None)}
    processors = vectors.processor_lanes(vectors.FEATURES)
    folders = {run["cache"] for run in runs.values()}
    assert len(folders) == len({8, 4, processors})
    assert (runs[8]["hits"], runs[8]["misses"]) == (runs[4]["hits"], runs[4]["misses"]) == (0, 1)
    again = copy.dropout(NUMNET_LANES=8)
    assert again["cache"] == runs[8]["cache"] and (again["hits"], again["misses"]) == (1, 0)


def test_the_folder_s_name_holds_all_that_changes_machine_code(monkeypatch):
    """Lanes, the processor's features (virtual machines hide some under one name), check mode, Numba's version."""
    names = [_jit._fingerprint()]
    assert names == [_jit._fingerprint()]
    for module, name, value in (
        (vectors, "LANES", 2 * vectors.LANES),
        (vectors, "FEATURES", {**vectors.FEATURES, "a feature": True}),
        (_jit, "CHECK", not _jit.CHECK),
        (_jit.numba, "__version__", "0.0"),
        (_jit.llvm, "get_host_cpu_name", lambda: "another"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            names.append(_jit._fingerprint())
    with monkeypatch.context() as patch:  # a feature that is named and not there is none
        patch.setattr(vectors, "FEATURES", {**vectors.FEATURES, "a feature": False})
        assert _jit._fingerprint() == names[0]
    assert len(set(names)) == len(names) and all(re.fullmatch("[0-9a-f]{16}", name) for name in names)


ALL = """
import json, sys
sys.path.insert(0, sys.argv[1])
import test_kernels_arguments as arguments

for name in arguments.CALLS:
    arguments.run(name, arguments.arrays_of(name))
compiled = []
for (module, name), dispatcher in arguments.dispatchers().items():
    cached = dispatcher.stats.cache_path is not None
    if (dispatcher.signatures and not cached) or dispatcher.stats.cache_misses:
        compiled.append(f"{module}.{name}")
print(json.dumps(compiled))
"""


@pytest.mark.skipif(CHECKING, reason="the same in both modes; one is enough")
def test_a_second_start_compiles_nothing(run_python, tmp_path, request):
    """Every public kernel, forward and backward, float64: neither the passes nor their row functions."""
    script = tmp_path / "all.py"
    script.write_text(ALL)
    run_python(script, request.path.parent)
    assert json.loads(run_python(script, request.path.parent)) == []


def test_without_a_home_and_beside_a_package_that_is_read_only(copy):
    """No HOME, no XDG folder: machine code goes to a private temporary folder, never beside the sources."""
    for path in [copy.package, *copy.package.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    before, temporary = copy.files(), copy.folder / "temporary"
    temporary.mkdir()
    env = {"HOME": None, "XDG_CACHE_HOME": None, "NUMNET_CACHE": None, "TMPDIR": temporary}
    try:
        first, second = copy.dropout(**env), copy.dropout(**env)
    finally:
        for path in [copy.package, *copy.package.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o200)
    assert Path(first["cache"]).is_relative_to(temporary)
    assert (second["hits"], second["misses"]) == (1, 0)
    assert copy.files() == before


def test_the_cache_lies_where_the_user_keeps_caches(copy):
    xdg = copy.folder / "xdg"
    assert copy.where(XDG_CACHE_HOME=xdg, NUMNET_CACHE=None).parent == xdg / "numnet" / "kernels"


@pytest.mark.skipif(sys.platform != "linux", reason="the rule of Linux")
@pytest.mark.parametrize("odd", ["here", "~/there", "~nobody-of-this-name/c", " "])
def test_a_cache_that_is_no_absolute_place_is_passed_over(copy, odd):
    """As platformdirs does, which chooses the folder of downloads."""
    found = copy.where(XDG_CACHE_HOME=odd, HOME=copy.folder, NUMNET_CACHE=None)
    assert found.parent == copy.folder / ".cache" / "numnet" / "kernels"


def test_without_any_folder_kernels_are_compiled_and_not_kept(copy):
    script = copy.write("import os\nos.access = lambda *arguments, **more: False\n" + DROPOUT)
    result = json.loads(copy.run(script))
    assert result["cache"] == "None"
    assert 400 < result["kept"] < 600
    assert (result["hits"], result["misses"]) == (0, 1)
    assert not copy.cache.exists() or not list(copy.cache.rglob("*.nbc"))


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_folder_that_others_may_write_is_not_trusted(copy):
    """A cache file is code that will be run."""
    temporary = copy.folder / "temporary"
    temporary.mkdir()
    ours = copy.where(TMPDIR=temporary)
    assert ours.is_relative_to(copy.cache)
    assert not ours.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ours.chmod(0o777)
    assert copy.where(TMPDIR=temporary).is_relative_to(temporary)


def test_folders_unused_for_a_month_are_removed(copy):
    kernels = copy.cache / "kernels"
    for name, days in (("old", 40), ("young", 10)):
        (kernels / name).mkdir(parents=True)
        (kernels / name / "machine.nbc").write_bytes(b"code")
        then = time.time() - days * 24 * 3600
        os.utime(kernels / name, (then, then))
    ours = copy.where()
    assert sorted(path.name for path in kernels.iterdir()) == sorted(["young", ours.name])


USER = """
import json, os
import numba

@numba.njit(cache=True)
def before(x):
    return x + 1

import numnet.kernels
from numnet.kernels import _jit, dropout
import numpy as np

@numba.njit(cache=True)
def after(x):
    return x + 2

dropout.dropout_forward(np.ones(3), 0.5, 1, 2)
print(json.dumps([before(1), after(1), numba.config.CACHE_DIR, before.stats.cache_path, after.stats.cache_path,
                  dropout._apply.stats.cache_path, str(_jit.CACHE_FOLDER)]))
"""


@pytest.mark.parametrize("chosen", [True, False], ids=["NUMBA_CACHE_DIR set", "not set"])
def test_the_users_own_kernels_keep_their_cache(copy, chosen):
    folder = copy.folder / "users"
    result = json.loads(copy.run(copy.write(USER), NUMBA_CACHE_DIR=folder if chosen else None))
    assert result[:2] == [2, 3]
    assert result[2] == (str(folder) if chosen else "")
    for path in result[3:5]:
        assert Path(path).is_relative_to(folder if chosen else copy.folder / "__pycache__")
    assert Path(result[5]).is_relative_to(result[6])
    assert Path(result[6]).is_relative_to(copy.cache)


# --- the check mode -----------------------------------------------------------------------------------------

BOUNDS = """
import numpy as np
from numba import prange
from numnet.kernels._jit import kernel, row

@row
def one_further(x, y):
    for i in range(y.size):
        y[i] = x[i + 1]

@kernel
def in_a_row_function(x, y):
    for part in prange(2):
        one_further(x[part * 5 : part * 5 + 5], y[part * 5 : part * 5 + 5])

@kernel
def in_the_pass(x, y):
    for i in prange(y.size):
        y[i] = x[i + 1]

# The stretch is followed by memory of our own, so that reading too far is safe without the check.
memory = np.arange(11.0)
for function in in_a_row_function, in_the_pass:
    try:
        function(memory[:10], np.empty(10))
    except IndexError as error:
        print("caught", error)
    else:
        print("unseen")
"""


def test_the_check_mode_catches_an_index_out_of_bounds(run_python, tmp_path):
    """In a pass and in a row function that it calls; without the mode neither is seen."""
    script = tmp_path / "bounds.py"
    script.write_text(BOUNDS)
    checked = run_python(script, env={"NUMNET_CACHE": tmp_path, "NUMNET_CHECK": "1"})
    assert checked.splitlines() == ["caught index is out of bounds"] * 2
    fast = run_python(script, env={"NUMNET_CACHE": tmp_path, "NUMNET_CHECK": "0"})
    assert fast.splitlines() == ["unseen"] * 2


PROCESS = """
import json
import numba
from numba.core.registry import cpu_target

def settings():
    codegen = cpu_target.target_context.codegen()
    return [numba.config.CPU_NAME, numba.config.CPU_FEATURES, codegen._tm_features, codegen._library_class.__name__,
            codegen._customize_tm_features(), numba.get_num_threads()]

@numba.njit
def users(x, y):
    return x * y + 1.0

users(1.0, 2.0)
before = settings()
import numpy as np
from numnet.kernels import dropout
dropout.dropout_forward(np.ones(1000), 0.5, 1, 2)

@numba.njit
def later(x, y):
    return x * y + 1.0

later(1.0, 2.0)
print(json.dumps([before, settings(), "fmadd" in later.inspect_asm(later.signatures[0]), later(1.0, 2.0)]))
"""


def test_nothing_process_wide_is_changed(copy):
    """Numba's target, its features and the user's own functions are as they were, after kernels were compiled too."""
    before, after, fused, value = json.loads(copy.run(copy.write(PROCESS)))
    assert after == before
    assert not fused and value == 3


# --- flags --------------------------------------------------------------------------------------------------

FLAGS = """
import json
import numpy as np
from numba import prange
from numnet.kernels._jit import kernel, row

@row
def count(x):
    total = 0
    for i in range(x.size):
        if np.isnan(x[i]) or x[i] != x[i]:
            total += 1
    return total

@kernel
def parallel(x, out):
    for part in prange(2):
        out[part] = count(x)

@kernel(parallel=False)
def serial(x):
    total = 0
    for i in range(x.size):
        if np.isnan(x[i]):
            total += 1
    return total

@row
def add_products(a, b, y):
    for i in range(y.size):
        y[i] += a[i] * b[i]

@kernel
def products(a, b, y):
    for part in prange(2):
        add_products(a[part], b[part], y[part])

@kernel(parallel=False)
def total(x):
    out = np.float32(0)
    for i in range(x.size):
        out += x[i]
    return out

x, out = np.array([1.0, np.nan, 3.0, np.nan]), np.zeros(2)
parallel(x, out)
a = np.full((2, 40), 1 + 2.0**-30)
y = -(a * a)
products(a, a, y)
ones = np.full(64, 2.0**-24, np.float32)
ones[0] = 1
print(json.dumps([out.tolist(), serial(x), np.abs(y).max(), float(total(ones))]))
"""


@pytest.mark.parametrize("check", ["0", "1"])
def test_a_kernel_has_no_flags(check, run_python, tmp_path):
    """NaN is seen, a product and a sum are never fused, sums run in their order: fastmath would change each of them."""
    script = tmp_path / "flags.py"
    script.write_text(FLAGS)
    seen, serial, rest, total = json.loads(
        run_python(script, env={"NUMNET_CACHE": tmp_path, "NUMNET_CHECK": check})
    )
    assert seen == [2, 2] and serial == 2
    assert rest == 0  # fused it would be 2⁻⁶⁰
    assert total == 1  # in another order the small ones add up first


def test_a_kernel_takes_no_flag():
    for option in ("reassoc", "contract", "fastmath"):
        with pytest.raises(TypeError, match=option):
            _jit.kernel(**{option: True})


@pytest.mark.skipif(CHECKING or _jit._takes_turns(), reason="kernels that are serial or take turns stay")
def test_steps_that_have_run_become_machine_code():
    """All but the first kernel and what is no kernel; a kernel without code for just these types stays, too."""
    from numnet.kernels import quantised_maps

    def plain():
        pass

    table, a, b = (
        np.arange(256)[::-1].astype(np.uint8),
        np.arange(100, dtype=np.uint8),
        np.empty(100, np.uint8),
    )
    step = quantised_maps.look_up_step(a, table, b)
    step[0](*step[1])
    other = step[0], (a, table.astype(np.int16), b)
    found = _jit.direct([(plain, ()), step, step, (plain, ()), other])
    assert [code is kernel for (code, _), kernel in zip(found, (plain, step[0], step[0], plain, step[0]))] == [
        True, True, False, True, True,
    ]  # fmt: skip
    b[:] = 0
    found[2][0](*found[2][1])
    assert (b == table[a]).all()


@pytest.mark.skipif(CHECKING, reason="checked row functions are compiled like any other")
def test_a_row_function_is_not_called_from_python():
    """It has no machine code of its own; the error says so, and names what has."""
    from numnet.kernels import rows

    x = np.ones(8, np.float32)
    with pytest.raises(TypeError, match="add is a row function"):
        rows.add(x, x)
    rows.add.py_func(x, x.copy())
    assert (x == 2).all()


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on the file size")
def test_a_disk_without_room_keeps_no_code_and_runs_all_the_same(copy):
    """No file may get a byte from here on: the kernel is compiled and run, and not kept."""
    full = "\nimport numba, resource\nnumba.get_num_threads()\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\ny ="
    script = copy.write(DROPOUT.replace("\ny =", full))
    result = json.loads(copy.run(script))
    assert 400 < result["kept"] < 600 and (result["hits"], result["misses"]) == (0, 1)
    assert not any(file.stat().st_size for file in copy.cache.rglob("*") if file.is_file())
