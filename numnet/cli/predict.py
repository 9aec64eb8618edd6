"""``numnet predict``: what a trained net sees in image files."""

import csv
import glob
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from numnet import plotting
from numnet.cli.arguments import columns, count, print_json, require_figure, say, set_threads
from numnet.cli.use import (
    add_input_options,
    bar,
    class_names,
    compile_net,
    input_background,
    input_preset,
    input_scaling,
    trained_net,
)
from numnet.data import progress
from numnet.data.files import has_images, holds_runs, images_below
from numnet.data.image import SUFFIXES, noted, quiet, read_quietly
from numnet.data.layout import kinds
from numnet.data.lists import lines_of
from numnet.data.names import listed
from numnet.data.transforms import as_channels
from numnet.errors import NumnetError, tell
from numnet.kernels.augment import scale
from numnet.kernels.loss import softmax
from numnet.loading import PACKAGED, PACKAGED_INT8, require_floats
from numnet.texts import printable
from numnet.weights import is_foreign
from numnet.weights.kinds import ENDINGS, is_checkpoint

BATCH = 64  # images decoded and shown to the net at a time
READERS = 4  # threads that decode
DRAWN = 60  # images at most in one figure
EXPLAINED = "explained.png"
COLUMNS = ("image", "rank", "class", "label", "probability", "error")


def predict_arguments(parser):
    about = (
        "a .safetensors file or run directory (without: the net that comes with numnet), then image files, "
        "folders of them or patterns like 'photos/*.jpg'"
    )
    parser.add_argument("files", nargs="*", metavar="[CHECKPOINT] IMAGE|FOLDER", help=about)
    about = "also the images that this text file lists, one in a line; - reads standard input"
    parser.add_argument("--list", metavar="FILE", help=about)
    parser.add_argument("--top", type=count(), default=5, metavar="K", help="number of classes to print (5)")
    parser.add_argument("--figure", metavar="FILE", help="draw images and bars (.png, .pdf, .svg)")
    about = f"draw over each image which pixels support its first class (into --figure, or {EXPLAINED})"
    parser.add_argument("--explain", action="store_true", help=about)
    about = "draw the maps of the net's layers for one photograph, block by block (.png, .pdf, .svg)"
    parser.add_argument("--maps", metavar="FILE", help=about)
    about = "layers for --maps: names or patterns, separated by commas: block3, block*.depthwise (all blocks)"
    parser.add_argument("--layers", metavar="NAMES", help=about)
    about = "without CHECKPOINT: the net that comes with numnet in eight bits, half the file"
    parser.add_argument("--int8", action="store_true", help=about)
    add_input_options(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    about = f"as CSV: {','.join(COLUMNS)}"
    parser.add_argument("--csv", action="store_true", help=about)


def predict(arguments):
    set_threads(arguments.threads)
    if arguments.json and arguments.csv:
        raise NumnetError("--csv: cannot be used with --json")
    first, images = _checkpoint(arguments.files)
    images = _images(images, arguments.list, first)
    if not images:
        raise NumnetError(f"predict: expected image files after the checkpoint {first or ''}".rstrip())
    figure = arguments.figure or (EXPLAINED if arguments.explain else None)
    if figure:
        require_figure(figure, "--figure")
        if len(images) > DRAWN:
            raise NumnetError(f"--figure: draws at most {DRAWN} images, got {len(images):,}")
    if arguments.maps:
        require_figure(arguments.maps, "--maps")
        if len(images) != 1:
            raise NumnetError(f"--maps: draws one photograph; expected one image file, got {len(images)}")
    elif arguments.layers:
        raise NumnetError("--layers: chooses the maps to draw; needs --maps FILE as well")
    if first is not None and arguments.int8:
        raise NumnetError(
            f"--int8: chooses between the nets that come with numnet; got the checkpoint {first}"
        )
    net = trained_net(first or (PACKAGED_INT8 if arguments.int8 else PACKAGED), "predict")
    for option in ("explain", "maps"):
        if getattr(arguments, option):
            require_floats(net, f"--{option}")
    read = partial(
        _read, net=net, scaling=input_scaling(net, arguments), preset=input_preset(net, arguments),
        background=input_background(net, arguments), notes=Counter(),
    )  # fmt: skip
    names = class_names(net) or []
    compile_net(net, min(len(images), BATCH))
    show = _Output("json" if arguments.json else "csv" if arguments.csv else "text", net.path)
    rows, bad = [], []
    with _bar_over(len(images), show) as progress:
        for lo in range(0, len(images), BATCH):
            batch = images[lo : lo + BATCH]
            pixels, x, reasons = read(batch)
            probabilities = iter(softmax(net.predict(x)) if len(x) else ())
            if arguments.maps and len(x):
                _draw_maps(net, pixels, x, arguments)
            places = iter(range(len(x)))
            for image, reason in zip(batch, reasons):
                if reason is not None:
                    bad.append(reason)
                    show.add(image, [], reason.removeprefix(f"{Path(image)}: "))
                    continue
                i, p = next(places), next(probabilities)
                top = [_named(int(k), names, p) for k in (-p).argsort(kind="stable")[: arguments.top]]
                show.add(image, top)
                if figure:
                    rows.append({"pixels": pixels[i], "title": Path(image).name, "top": top})
                if arguments.explain:
                    best = top[0]["class"]
                    rows[-1]["map"] = plotting.class_activation_maps(net, x[i : i + 1])[0, ..., best]
            progress.update(len(batch))
    if first is None and len(bad) < len(images):
        accuracy = net.document["result"]["test_accuracy"]
        tell(
            f"no checkpoint given: the net that comes with numnet, for {listed(net.class_names, 10)} "
            f"({100 * accuracy:.1f} % of {net.document['dataset']}'s test images)"
        )
    for line in noted(read.keywords["notes"]):
        tell(line)
    if len(bad) < len(images):
        show.end()
        if figure:
            plotting.photos(rows, figure)
            say(f"figure: {figure}")
    _tell_bad(bad, len(images))


def _tell_bad(bad, count) -> None:
    """Raise NumnetError if an image could not be read: the answers for the others are printed already."""
    if not bad:
        return
    if len(bad) > 1:
        for reason in bad:
            tell(f"skipped {reason}")
    if count == 1:
        raise NumnetError(bad[0])
    which = bad[0] if len(bad) == 1 else "those named above"
    raise NumnetError(f"{len(bad):,} of {count:,} images could not be read: {which}")


def _named(number, names, p) -> dict:
    label = names[number] if number < len(names) else str(number)
    return {"class": number, "label": label, "probability": float(p[number])}


# ----------------------------------------------------------------------------------------- what is to be read


def _checkpoint(arguments):
    """(the checkpoint or None for the net of the package, the other arguments)."""
    if not arguments:
        return None, []
    first, path = arguments[0], Path(arguments[0])
    if path.is_dir():
        run = _is_run(path)
        may = len(arguments) > 1 or is_foreign(path)  # has_images ends at the first one, but follows no links
        own = run or (may and not has_images(path) and not images_below(path).images)
    else:
        own = path.suffix.lower() in (".safetensors", *ENDINGS) or is_foreign(first) or is_checkpoint(first)
    if not own and not path.suffix and not os.path.exists(first) and not any(sign in first for sign in "*?["):
        raise NumnetError(f"{first}: no such run directory, checkpoint, image or folder of images")
    return (first, arguments[1:]) if own else (None, arguments)


def _is_run(folder) -> bool:
    return any((Path(folder) / f"{name}.safetensors").exists() for name in ("best", "last"))


def _is_net(argument) -> bool:
    """True for a run, and for a file of weights; not for a folder of photographs in which a net lies, too."""
    if os.path.isdir(argument):
        return _is_run(argument) and holds_runs(argument)
    suffix = Path(argument).suffix.lower()
    named = suffix == ".safetensors" or (suffix in ENDINGS and is_foreign(argument))
    return named and os.path.isfile(argument)


def _is_same(path, checkpoint) -> bool:
    return checkpoint is not None and os.path.isfile(path) and os.path.samefile(path, checkpoint)


def _images(arguments, list_file, checkpoint) -> list[str]:
    """The image files that the arguments mean: files, folders of them, patterns; and those of a list."""
    found = []
    for argument in arguments:
        if _is_same(argument, checkpoint):
            continue  # DIR/* is DIR/best.safetensors, too
        if _is_net(argument):
            what = "a run or a checkpoint among the images"
            raise NumnetError(f"{argument}: {what}; expected one net, as the first argument")
        if os.path.isdir(argument):
            found += _images_in(argument)
        elif not os.path.exists(argument) and any(sign in argument for sign in "*?["):
            matching = sorted(glob.glob(argument, recursive=True))
            if not matching:
                raise NumnetError(f"{argument}: no file has such a name")
            inside, walked = {}, set()  # plain paths: that of a folder sorts before what is in it
            for path in matching:
                plain = Path(os.path.normpath(path))
                if not walked.isdisjoint(plain.parents):
                    continue  # ** finds an image and all the folders around it
                if os.path.isdir(path):
                    walked.add(plain)
                for image in _images_in(path, named=False) if plain in walked else [path]:
                    if not _is_same(image, checkpoint):
                        inside.setdefault(os.path.normpath(image), image)
            if not inside:
                raise NumnetError(f"{argument}: only folders without images have such a name")
            found += inside.values()
        else:
            found.append(argument)
    return found + ([] if list_file is None else _listed_images(list_file))


def _images_in(folder, named=True) -> list[str]:
    """The images below a folder; says what is left out. A folder that the user ``named`` must have some."""
    below = images_below(Path(folder))
    if named and not below.images:
        others = f" (it holds {kinds(below.others)}, which cannot be read)" if below.others else ""
        raise NumnetError(f"{folder}: a folder without images{others}, expected {', '.join(SUFFIXES)}")
    if below.hidden:
        tell(f"{folder}: images in hidden folders or runs left out: {kinds(below.hidden)}")
    if below.others:
        tell(f"{folder}: files of kinds that are not read left out: {kinds(below.others)}")
    return [str(path) for path in below.images]


def _listed_images(list_file) -> list[str]:
    """The images of a list: a path a line, from here or from the list's folder; what follows a path is not read."""
    if list_file == "-":
        if sys.stdin is None:
            raise NumnetError("--list -: standard input is closed; expected an image a line there")
        if hasattr(sys.stdin, "reconfigure"):  # names of files may be no UTF-8
            sys.stdin.reconfigure(errors="surrogateescape")
        lines, home = sys.stdin.read().splitlines(), Path()
    else:
        said = []
        if not os.path.isfile(list_file):
            raise NumnetError(f"--list: {list_file}: no such file, expected a text file with an image a line")
        lines, home = lines_of(Path(list_file), said), Path(list_file).parent
        for line in said:
            tell(line)
    found = []
    for line in (line.strip().strip('"') for line in lines):
        if line:
            ways = [line, line.split("\t")[0], line.split(",")[0].strip('"'), line.rpartition(" ")[0].strip()]
            ways += [way.replace("\\", "/") for way in ways]
            there = (str(place / way) for way in ways if way for place in (Path(), home))
            found.append(next((path for path in there if os.path.isfile(path)), line))
    if not found:
        raise NumnetError(f"--list: {list_file}: names no image")
    return found


def _read(files, net, scaling, preset, background, notes):
    """(pixels uint8 (N, H, W, 3), the net's input, for every file None or why it cannot be read)."""

    def read(file):
        own = []
        try:
            return read_quietly(file, net.input_shape[:2], preset, background, own), own, None
        except NumnetError as error:
            return None, [], str(error)

    with quiet(), ThreadPoolExecutor(READERS) as pool:
        done = list(pool.map(read, files))
    for _, own, _ in done:
        notes.update(own)
    pictures = [picture for picture, _, _ in done if picture is not None]
    pixels = np.stack(pictures) if pictures else np.empty((0, *net.input_shape[:2], 3), np.uint8)
    x = as_channels(scale(pixels, scaling["mean"], scaling["std"], net.dtype), net.input_shape[2])
    return pixels, x, [reason for *_, reason in done]


# ----------------------------------------------------------------------------------------- what is shown


class _Output:
    """Answers as they come: text and CSV at once, JSON as one document at the end."""

    def __init__(self, form, path):
        self.form, self.path, self.results = form, str(path), []
        self.table = csv.writer(sys.stdout, lineterminator="\n") if form == "csv" and sys.stdout else None
        self.begun = False

    def add(self, image, top, error=None):
        if self.form == "json":
            result = {"image": image, "checkpoint": self.path, "top": top}
            self.results.append(result if error is None else {**result, "error": error})
        elif self.form == "csv":
            if self.table is None:  # standard output is closed
                return
            if not self.begun:
                self.table.writerow(COLUMNS)
            for rank, row in enumerate(top, 1):
                self.table.writerow(
                    [image, rank, row["class"], row["label"], f"{row['probability']:.6g}", ""]
                )
            if error is not None:
                self.table.writerow([image, "", "", "", "", error])
        elif error is None:
            lines = [
                (f"  {row['label']}", f"{100 * row['probability']:.1f} %", bar(row["probability"]))
                for row in top
            ]
            print(f"{printable(image)}\n{columns(lines, right=(1,), fit=(0,))}", flush=True)
        self.begun = True

    def end(self):
        if self.form == "json":
            print_json(self.results)


def _bar_over(images, show):
    """A bar on the terminal, where many images take time and no text of answers scrolls by."""
    scrolls = show.form != "json" and sys.stdout is not None and sys.stdout.isatty()
    return progress.bar(shown=images > BATCH and not scrolls, total=images, unit=" images", leave=False)


def _draw_maps(net, pixels, x, arguments):
    """The picture of --maps."""
    names = arguments.layers.split(",") if arguments.layers else _outer(net)
    plotting.layer_maps(pixels[0], net.maps(x, *(name.strip() for name in names)), arguments.maps)
    say(f"figure: {arguments.maps}")


def _outer(net) -> list[str]:
    """The layers and blocks whose output has rows and columns."""
    return [layer.name for layer in net.layers if len(layer.output_shape) == 3]
