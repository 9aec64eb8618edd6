"""``numnet data``: fetch CIFAR-10, or check a copy that you have, and say what it is and where it is."""

import hashlib
import shlex

import numpy as np

from numnet.cli.arguments import choice, columns, print_json
from numnet.data import cifar10, download


def data_arguments(parser):
    parser.add_argument("dataset", type=choice("cifar10"), metavar="cifar10", help="the data set")
    about = "a folder or archive of your own to look at, instead of the cache and the download"
    parser.add_argument("--data", metavar="FILE", help=about)
    parser.add_argument("--json", action="store_true", help="as JSON")


def data(arguments):
    """Reads every image and label: what is printed was counted."""
    path = cifar10.find(arguments.data) or download.download_cifar10()
    read = cifar10.load(path, download=False)
    facts = {"dataset": "cifar10", "path": str(path.absolute()), "classes": read.classes}
    for name, split in (("train", read.train), ("test", read.test)):
        facts[name] = np.bincount(split.labels, minlength=len(read.classes)).tolist()
    facts |= {"bytes": None, "sha256": None, "official": None}
    if path.is_file():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        official = digest in download.OFFICIAL
        facts |= {"bytes": path.stat().st_size, "sha256": digest, "official": official}
    if arguments.json:
        print_json(facts)
        return
    lines = [("CIFAR-10", facts["path"]), *(_images(name, facts[name]) for name in ("train", "test"))]
    if path.is_file():
        words = "the official archive" if facts["official"] else "not that of an official archive"
        lines.append(("checksum", f"{words} (SHA-256 {facts['sha256'][:12]}…, {facts['bytes']:,} bytes)"))
    else:
        lines.append(("checksum", "none: the official checksums are of the archives, this is a folder"))
    command = "numnet train cifar10"
    if arguments.data is not None:
        command += f" --data {shlex.quote(arguments.data)}, or set NUMNET_DATA to it"
    lines.append(("train on it", command))
    print(columns(lines))


def _images(name, counts):
    least, most = min(counts), max(counts)
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return f"{name} images", f"{sum(counts):,}, {each} of each of {len(counts)} classes"
