"""The package: a file imports only from its own part and from parts above it; what `import numnet` loads."""

import ast
import json
from pathlib import Path

import pytest

import numnet

ROOT = Path(numnet.__file__).parent
ROOMS = [  # the parts of the package, from the top down
    "errors",
    "cores",
    "texts",
    "_version",
    "pickles",
    "kernels",
    "ahead",
    "quantiles",
    "initialisers",
    "layers",
    "blocks",
    "cost",
    "inference",
    "checkpoint",
    "quantised",
    "net",
    "gradients",
    "models",
    "weights",
    "loading",
    "data",
    "training",
    "probe",
    "parallel",
    "canvas",
    "plotting",
    "drawing",
    "bench",
    "search",
    "lessons",
    "course",
    "cli",
]
SOURCES = sorted(ROOT.rglob("*.py"))
each_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))


def room_of(path):
    """The part that a file belongs to; None for numnet/__init__.py and __main__.py, which may import from all."""
    name = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return None if name in ("__init__", "__main__") else name


def imports(path):
    """(line, dotted name) of every import anywhere in the file, in functions too; relative ones made absolute."""
    package = ("numnet", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def rooms_imported(path):
    """(line, part) of every import from numnet; the part is "" for numnet itself."""
    for line, name in imports(path):
        if name.split(".")[0] == "numnet":
            first = name.split(".")[1] if "." in name else ""
            yield line, first if first in ROOMS else ""


def test_every_file_lies_in_a_room():
    assert {room_of(path) for path in SOURCES} <= {None, *ROOMS}


@each_source
def test_a_file_imports_only_from_rooms_above_it(path):
    room = room_of(path)
    if room is None:
        return
    for line, other in rooms_imported(path):
        assert other or room == "cli", f"{path.name}:{line} imports numnet itself, which imports every part"
        assert not other or ROOMS.index(other) <= ROOMS.index(room), (
            f"{path.name}:{line}: {room} imports from {other}"
        )


def test_in_training_no_two_files_import_each_other():
    """There is an order in which each file imports only from those before it."""
    files = {path.stem: path for path in SOURCES if path.parent == ROOT / "training"}
    needs = {
        name: {dotted.split(".")[2] for _, dotted in imports(path) if dotted.startswith("numnet.training.")}
        for name, path in files.items()
        if name != "__init__"
    }
    assert needs["loop"] > {"setup", "state"}
    while needs:
        free = {name for name, others in needs.items() if not others & set(needs)}
        assert free, f"in a ring: {', '.join(needs)}"
        needs = {name: others for name, others in needs.items() if name not in free}


@pytest.mark.parametrize(
    "room, allowed",
    [
        ("kernels", {"errors", "_version"}),
        ("checkpoint", {"errors", "_version"}),  # knows nothing of nets
        # knows nothing of nets either
        ("data", {"errors", "cores", "_version", "pickles", "kernels", "texts"}),
    ],
)
def test_rooms_that_stand_apart(room, allowed):
    for path in SOURCES:
        if room_of(path) == room:
            for line, other in rooms_imported(path):
                assert other in allowed | {room}, f"{path.name}:{line}: {room} imports from {other}"


def test_training_does_no_arithmetic_on_activations():
    """It moves vectors of parameters; what happens to a map of pixels is the net's business."""
    allowed = {"sgd", "adam", "rmsprop", "muon", "vector", "random", "loss", "_jit"}
    for path in SOURCES:
        if room_of(path) == "training":
            for line, name in imports(path):
                if name.startswith("numnet.kernels"):
                    parts = name.split(".")
                    assert len(parts) > 2 and parts[2] in allowed, f"{path.name}:{line} imports {name}"


def test_one_decorator_makes_every_kernel():
    """Flags, cache and check mode are decided in _jit.py and nowhere else.

    It stands on vectors.py, whose checks are njit, as those of tiles.py are.
    """
    for path in SOURCES:
        if path.name not in ("_jit.py", "vectors.py", "tiles.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                name = getattr(node, "attr", None) or getattr(node, "id", None) or getattr(node, "name", None)
                wrong = name in ("njit", "jit", "vectorize", "guvectorize", "stencil", "cfunc")
                assert not wrong, f"{path.name}:{getattr(node, 'lineno', '?')} uses {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "kernels").glob("*.py")), ids=lambda path: path.name)
def test_every_prange_says_who_else_could_write(path):
    lines = path.read_text("utf-8").splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.For) and isinstance(node.iter, ast.Call):
            if getattr(node.iter.func, "id", None) == "prange":
                near = lines[node.lineno - 2 : node.lineno]
                assert any("#" in line for line in near), (
                    f"{path.name}:{node.lineno}: prange without a comment"
                )


@each_source
def test_every_file_begins_with_a_docstring(path):
    assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path


HEAVY = [
    "matplotlib",
    "tqdm",
    "PIL",
    "platformdirs",
    "pooch",
    "safetensors",
    "torch",
    "h5py",
    "onnx",
    "mpi4py",
    "pandas",
]
GONE = ["scipy", "threadpoolctl"]


def test_import_numnet_loads_numpy_and_numba_only(run_python, tmp_path):
    """SciPy, which Numba loads where it finds it, is hidden; with it all the rest must work."""
    script = tmp_path / "loaded.py"
    script.write_text(
        "import json, sys\n"
        "sys.modules |= dict.fromkeys(['scipy', 'threadpoolctl'])\n"
        "import numpy as np\nimport numnet\n"
        "print(json.dumps(sorted(sys.modules)))\n"
        "numnet.build('mobilenet_v1', width=0.1, resolution=32, classes=2, initialiser='truncated_normal_009')\n"
        "numnet.softmax_cross_entropy(np.ones((1, 2)), np.zeros(1, int))\n"
    )
    # without NUMNET_CACHE, as most users are: then the user's own cache folder is looked for
    loaded = json.loads(run_python(script, env={"NUMNET_CACHE": None, "XDG_CACHE_HOME": str(tmp_path)}))
    assert "numnet" in loaded
    assert [name for name in HEAVY if name in loaded] == []


@each_source
def test_no_file_asks_for_scipy_or_threadpoolctl(path):
    for line, name in imports(path):
        assert name.split(".")[0] not in GONE, f"{path.name}:{line} imports {name}"


def test_no_kernel_calls_another_librarys_product():
    """np.dot in a kernel would be SciPy's BLAS, with other bits on each processor."""
    for path in SOURCES:
        if room_of(path) == "kernels":
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                assert not isinstance(node, ast.MatMult), path.name
                assert getattr(node, "attr", None) not in ("dot", "matmul", "einsum", "tensordot"), path.name
