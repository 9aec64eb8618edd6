"""The explainer pages with their data, ready for a file server:

    python docs/build_explainer.py OUT              the pages into the folder OUT, with all that they need
    python docs/build_explainer.py OUT --no-photo   without the photograph page, and without network
    python docs/build_explainer.py --times          measures docs/explainer/times.json anew, on this machine

The pages are written by hand (docs/explainer). What they show of numnet comes from numnet:

    budget-data.js   MACs, parameters and bytes of many nets, from numnet.describe; times from times.json, which names
                     the machine that they were measured on
    photo-data.js    names of the classes, scaling and last layer of the net that comes with numnet
    cifar10.onnx     that net, with the maps of its blocks as further outputs
    cifar10_int8.onnx  the same net in eight bits
    ort/             ONNX Runtime Web, which runs it in the browser: a pinned npm package, whose checksum is compared
    build-data.js    whether the photograph page is there, and if not, why

The photograph page needs the packages onnx and npm, and npm the network once: the package is kept in numnet's cache folder.
Without them the other pages are built all the same, and in the place of this one stands why it is not there.
"""

import argparse
import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

PAGES = Path(__file__).parent / "explainer"
TIMES = PAGES / "times.json"
PHOTO = ("photo.html", "photo.js")
FLOAT, EIGHT = "cifar10.onnx", "cifar10_int8.onnx"
INSTEAD = "photo-missing.html"  # stands in the place of photo.html

MODELS = {
    "mobilenet_v1": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_large": "MobileNetV3-Large",
    "mobilenet_v3_small": "MobileNetV3-Small",
    "mnasnet_b1": "MnasNet-B1",
}
WIDTHS = (0.25, 0.35, 0.5, 0.75, 1.0, 1.25, 1.4)
SIDES = (96, 128, 160, 192, 224, 256)
TIMED_WIDTHS, TIMED_SIDES = (0.25, 0.5, 0.75, 1.0), (96, 128, 160, 192, 224)

RUNTIME, VERSION = "onnxruntime-web", "1.30.0"
SHA512 = (
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # as npm tells
)
FILES = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")  # of dist/
SECONDS = 60  # for npm


# ---------------------------------------------------------------------------------------------- width × resolution


def counted(model, width, side) -> dict:
    """What a net costs, one image at a time: macs, params, bytes of its weights (float32) and of the maps of inference."""
    from numnet import cost, describe
    from numnet.lessons.budget import WEIGHT

    net = describe(model, width=width, resolution=side)
    total = net.cost()
    return {
        "macs": total.macs,
        "params": total.params,
        "weights": WEIGHT * (total.params + total.buffers),
        "maps": cost.peak_inference(net),
    }


def budget_data() -> dict:
    """All that the page of width × resolution shows."""
    from numnet.lessons.budget import PUBLISHED

    nets = {
        model: {f"{width:g}/{side}": counted(model, width, side) for width in WIDTHS for side in SIDES}
        for model in MODELS
    }
    published = [
        {"name": p.name, "model": p.model, "top1": p.top1, "source": p.source, **p.options}
        for p in PUBLISHED
        if p.model in MODELS
    ]
    times = json.loads(TIMES.read_text("utf-8")) if TIMES.is_file() else None
    return {
        "models": MODELS,
        "widths": WIDTHS,
        "sides": SIDES,
        "nets": nets,
        "published": published,
        "times": times,
    }


def measure() -> dict:
    """Milliseconds of ``net.predict`` on one image, for each model, width and side that is timed; and where."""
    import numba

    import numnet
    from numnet.bench.machine import processor
    from numnet.lessons.budget import PUBLISHED, measured

    wanted = [(model, width, side) for model in MODELS for width in TIMED_WIDTHS for side in TIMED_SIDES]
    named = [(p.model, p.options.get("width", 1.0), p.options.get("resolution", 224)) for p in PUBLISHED]
    wanted += [net for net in named if net[0] in MODELS and net not in wanted]
    found = {model: {} for model in MODELS}
    for model, width, side in wanted:
        ms = measured(model, 0.3, width=width, resolution=side)["ms"]
        found[model][f"{width:g}/{side}"] = round(ms, 3)
        print(f"{model} {width:g} {side}: {ms:.2f} ms", flush=True)
    return {
        "machine": processor(),
        "threads": numba.get_num_threads(),
        "numnet": numnet.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "command": "python docs/build_explainer.py --times",
        "how": "the shortest of the runs of numnet's predict on one random image that fit in 0.3 seconds",
        "ms": found,
    }


# ---------------------------------------------------------------------------------------------- the photograph


class Missing(Exception):
    """What the photograph page cannot be built without."""


def runtime(cache) -> Path:
    """The npm package of ONNX Runtime Web, in the folder ``cache``; fetched if it is not there. Raises Missing."""
    package = Path(cache) / f"{RUNTIME}-{VERSION}.tgz"
    if not package.is_file():
        npm = shutil.which("npm")
        if npm is None:
            raise Missing("the program npm is not installed")
        package.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=package.parent) as folder:  # whole, or not there
            command = [npm, "pack", f"{RUNTIME}@{VERSION}", "--pack-destination", folder, "--silent"]
            command += ["--fetch-retries", "0"]  # without a network, be told so at once
            try:
                subprocess.run(command, check=True, capture_output=True, timeout=SECONDS, cwd=folder)
                os.replace(Path(folder) / package.name, package)
            except (subprocess.SubprocessError, OSError):
                raise Missing(f"npm could not fetch {RUNTIME} {VERSION}") from None
    digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    if digest != SHA512:
        package.unlink(missing_ok=True)
        raise Missing(f"the package {RUNTIME} {VERSION} has another checksum than the pinned one")
    return package


def unpack(package, out) -> None:
    """The three files of the runtime into ``out``, and what they are."""
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(package) as archive:
        for name in FILES:
            (out / name).write_bytes(archive.extractfile(f"package/dist/{name}").read())
        about = json.load(archive.extractfile("package/package.json"))
    (out / "README.txt").write_text(f"{RUNTIME} {VERSION}, {about['license']} licence\n", encoding="utf-8")


def photo_data(out) -> dict:
    """Write cifar10.onnx and cifar10_int8.onnx; what the page must know besides."""
    from numnet.loading import PACKAGED, PACKAGED_INT8, load, load_any
    from numnet.weights import export_onnx
    from numnet.weights.onnx_eights import export_quantised

    net, eight = load(PACKAGED), load_any(PACKAGED_INT8)
    blocks = [layer.name for layer in net.layers if len(layer.output_shape) == 3]
    export_onnx(net, out / FLOAT, folded=True, maps=blocks)
    export_quantised(eight, out / EIGHT, maps=True, unsigned=True)
    last = next(layer for layer in net.layers if layer.kind == "dense")
    weight = last.params["weight"].astype("<f4")
    return {
        "classes": net.class_names,
        "scaling": net.scaling,
        "side": net.input_shape[0],
        "blocks": [
            {"name": layer.name, "kind": layer.kind, "shape": list(layer.output_shape)}
            for layer in net.layers
            if layer.name in blocks
        ],
        "weight": base64.b64encode(weight.tobytes()).decode(),  # (C, classes), float32
        "bias": [float(b) for b in last.params["bias"]],
        "macs": net.cost().macs,
        "params": net.cost().params,
        "nets": [
            {"name": name, "file": file, "bytes": (out / file).stat().st_size, "maps": maps,
             "accuracy": trained.document["result"]["test_accuracy"]}
            for name, file, trained, maps in (
                ("float32", FLOAT, net, None),
                ("int8", EIGHT, eight, whole_maps(eight, blocks)),
            )
        ],
    }  # fmt: skip


def whole_maps(eight, blocks) -> dict:
    """{block: where the page finds its map: the output's name, and the scale and zero point of its numbers}."""
    found = {}
    for step in eight.steps:  # the last step of a block makes its map
        block = step.name.partition(".")[0]
        if block in blocks:
            found[block] = {"output": step.name, "scale": step.grid.scale, "zero": step.grid.zero}
    return found


# ---------------------------------------------------------------------------------------------- all of it


def script(path, name, value) -> None:
    """A file that gives the page a value: a script, since a page that was opened as a file may not fetch."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    path.write_text(f"window.{name} = {text};\n", encoding="utf-8")


def build(out, photo=True, cache=None, home=None) -> str | None:
    """The pages into the folder ``out``. None, or why the photograph page is left out.

    cache: the folder that keeps the npm package; numnet's own by default. home: the address of the documentation that
    the pages are part of, seen from ``out``; they link to it.
    """
    from numnet.data.download import cache_folder

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(PAGES.iterdir()):
        if path.suffix in (".html", ".js", ".css") and path.name not in (*PHOTO, INSTEAD):
            shutil.copyfile(path, out / path.name)
    script(out / "budget-data.js", "NUMNET_BUDGET", budget_data())
    why = None
    try:
        if not photo:
            raise Missing("it was left out on request (--no-photo)")
        try:
            import onnx  # noqa: F401
        except ImportError:
            raise Missing("the package onnx is not installed") from None
        unpack(runtime(cache or cache_folder() / "explainer"), out / "ort")
        script(out / "photo-data.js", "NUMNET_PHOTO", photo_data(out))
        for name in PHOTO:
            shutil.copyfile(PAGES / name, out / name)
    except Missing as missing:
        why = str(missing)
        for name in (*PHOTO, "photo-data.js", FLOAT, EIGHT):
            (out / name).unlink(missing_ok=True)
        shutil.rmtree(out / "ort", ignore_errors=True)
        shutil.copyfile(PAGES / INSTEAD, out / "photo.html")
    script(out / "build-data.js", "NUMNET_BUILD", {"photo": why is None, "why": why})
    for page in out.glob("*.html") if home else ():
        text, place = page.read_text("utf-8"), "<ul>\n"
        link = f'  <li><a href="{home}">Documentation</a></li>\n'
        page.write_text(text.replace(place, place + link, 1), encoding="utf-8")
    return why


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description="Build the explainer pages into a folder.")
    parser.add_argument("out", nargs="?", help="the folder to build into")
    parser.add_argument("--no-photo", action="store_true", help="without the photograph page")
    parser.add_argument("--times", action="store_true", help=f"measure {TIMES.name} anew (minutes)")
    options = parser.parse_args(arguments)
    if options.out is None and not options.times:
        parser.error("expected a folder to build into, or --times")
    if options.times:
        TIMES.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    if options.out:
        why = build(options.out, not options.no_photo)
        print(f"explainer: {options.out}" + (f" without the photograph page: {why}" if why else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
