"""``numnet info``: what this installation computes with, or how a run was set up."""

import json
import os
import platform
from importlib import metadata
from pathlib import Path

from numnet import __version__, checkpoint
from numnet.cli.arguments import columns, print_json
from numnet.cores import keep_to_quota, quota
from numnet.errors import NumnetError
from numnet.loading import read_document, refuse_foreign

PACKAGES = (
    "numpy", "numba", "matplotlib", "tqdm", "pillow", "safetensors", "pooch", "platformdirs",
    "torch", "onnxruntime", "onnx", "h5py", "mpi4py",
)  # fmt: skip


def info_arguments(parser):
    parser.add_argument(
        "path", nargs="?", metavar="RUN_DIR|CHECKPOINT", help="a run, instead of the installation"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def info(arguments):
    facts = installation() if arguments.path is None else _run(arguments.path)
    if arguments.json:
        print_json(facts)
    else:
        print(_installation_text(facts) if arguments.path is None else _run_text(facts))


# ----------------------------------------------------------------------------------------- the installation


def installation() -> dict:
    """Versions, processor, threads, lanes, cache, and what slows it all down."""

    from numnet.bench import machine
    from numnet.kernels import _jit, vectors

    keep_to_quota()
    versions = {"numnet": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "versions": versions,
        "platform": platform.platform(),
        "processor": machine.processor(),
        "cores": machine.cores(),
        "cpu_quota": quota(),
        "threads": _threads(),
        "threading_layer": threading_layer(),
        # ``lanes`` refuses what $NUMNET_LANES cannot be
        "lanes": vectors.number_of(vectors.lanes(vectors.LANES, "float32")),
        "lanes_asked": os.environ.get("NUMNET_LANES") or None,
        "fused_multiply_add": vectors.FUSED,
        "cache": None if _jit.CACHE_FOLDER is None else str(_jit.CACHE_FOLDER),
        "cache_bytes": _size(_jit.CACHE_FOLDER),
        "check_mode": _jit.CHECK,
        "warnings": machine.warnings(),
    }


def _threads() -> int:
    """Threads of the kernels; 0 where Numba starts none."""
    import numba

    try:
        return numba.get_num_threads()
    except ValueError:
        return 0


def threading_layer() -> str:
    """The layer that Numba chooses here; it decides when the first parallel kernel runs, so let it decide now."""
    import numba
    from numba.np.ufunc import parallel

    try:
        parallel._launch_threads()
        return numba.threading_layer()
    except ValueError as error:
        return f"none ({error})"


def _size(folder) -> int:
    """Bytes of all files in a folder."""
    if folder is None:
        return 0
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.stat(os.path.join(place, name)).st_size
            except OSError:
                pass  # removed by another process in between
    return total


def _installation_text(facts) -> str:
    lines = [
        (name, "not installed" if version is None else version) for name, version in facts["versions"].items()
    ]
    cache = (
        f"{facts['cache']} ({facts['cache_bytes'] / 2**20:.1f} MiB)"
        if facts["cache"]
        else "none: no folder is ours"
    )
    lines += [
        ("platform", facts["platform"]),
        ("processor", facts["processor"]),
        ("cores", facts["cores"]),
        *([("CPU quota", f"{facts['cpu_quota']:g} cores, of the container")] if facts["cpu_quota"] else []),
        ("threads", f"{facts['threads']} ({facts['threading_layer']})"),
        ("lanes", f"{facts['lanes']} numbers of float32 in a vector ({_reason(facts)})"),
        ("multiply-add", "fused" if facts["fused_multiply_add"] else "not fused: slow here"),
        ("kernels", cache),
    ]
    return "\n".join([columns(lines), *(f"warning: {line}" for line in facts["warnings"])])


def _reason(facts) -> str:
    """Why there are so many lanes, and how to have others."""
    if facts["lanes_asked"]:
        return "by $NUMNET_LANES"
    return "the processor's; $NUMNET_LANES sets 4, 8 or 16"


# ----------------------------------------------------------------------------------------- a run


def _run(path) -> dict:
    """All that a checkpoint says of its net and its training, and the result if the run is finished."""
    from numnet.models import describe
    from numnet.training.state import read_result

    refuse_foreign(path)
    folder = Path(path)
    file = folder / "last.safetensors"
    if not (folder.is_dir() and file.is_file()):
        file = checkpoint.find(path, "best")
    document = read_document(file)
    facts = {"file": str(file), **document}
    if isinstance(document.get("config"), dict):
        try:
            total = describe(**document["config"]).cost()
        except (NumnetError, TypeError, OverflowError) as error:
            raise NumnetError(f"{file}: {error}") from None
        facts |= {
            "total_params": total.params + total.buffers,
            "trainable_params": total.params,
            "macs": total.macs,
        }
    if folder.is_dir() and (folder / "result.json").is_file():
        facts["result"] = read_result(folder / "result.json")
    return facts


def _run_text(facts) -> str:
    lines = [("file", facts["file"])]
    config = facts.get("config")
    if isinstance(config, dict):
        lines.append(("net", _words(config)))
        lines.append(("", f"{facts['trainable_params']:,} parameters, {facts['macs']:,} MACs an image"))
    if "dataset" in facts:
        names = facts.get("classes") or []
        few = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
        lines.append(("data set", f"{facts['dataset']}: {len(names)} classes ({few})"))
    if facts.get("input"):
        mean, std = (" ".join(f"{v:.4g}" for v in facts["input"][key]) for key in ("mean", "std"))
        lines.append(("input", f"(x/255 − [{mean}]) / [{std}]"))
    if facts.get("command"):
        lines.append(("made by", facts["command"]))
    recipe = {key: value for key, value in (facts.get("recipe") or {}).items() if key != "model"}
    for number, (key, value) in enumerate(recipe.items()):
        lines.append(("recipe" if number == 0 else "", f"{key} {json.dumps(value, ensure_ascii=False)}"))
    training = facts.get("training") or {}
    if training.get("history") is not None and {"epoch", "steps", "seconds"} <= training.keys():
        done = f"{training['epoch']} of {recipe.get('epochs', '?')} epochs"
        lines.append(("trained", f"{done}, {training['steps']:,} steps, {training['seconds']:.1f} s"))
        best = training.get("best")
        if best and best.get("accuracy") is not None:
            lines.append(
                ("best", f"epoch {best['epoch']}: validation accuracy {100 * best['accuracy']:.2f} %")
            )
    elif training.get("accuracy") is not None:
        lines.append(
            ("epoch", f"{training.get('epoch')}: validation accuracy {100 * training['accuracy']:.2f} %")
        )
    if (facts.get("result") or {}).get("test_accuracy") is not None:
        chosen = " (of the epoch that these images chose: no test)"
        chosen = chosen if facts["result"].get("chosen_by_test") else ""
        lines.append(("test accuracy", f"{100 * facts['result']['test_accuracy']:.2f} %{chosen}"))
    return columns(lines)


def _words(config) -> str:
    model = {key: value for key, value in config.items() if key != "model"}
    return " ".join([str(config.get("model")), *(f"{key}={value}" for key, value in model.items())])
