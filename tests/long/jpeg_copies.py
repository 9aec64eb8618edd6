"""CIFAR-10 once more as JPEG: what do lossy copies of the images cost a net?

    python tests/long/jpeg_copies.py FROM TO --quality 50
    numnet train cifar10 --recipe cifar10_plain_five_minutes --data TO

FROM: a folder with CIFAR-10 in its binary layout (``cifar-10-batches-bin``). Every image of the training and the test set is
encoded as JPEG (4:2:0, as Pillow does by itself) and decoded again. TO gets files of the same layout, and must not exist.
Half a minute.
"""

import argparse
import io
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = "cifar-10-batches-bin"
RECORD = 1 + 3 * 32 * 32  # a label, then the red, green and blue pixels


def copied(pixels, quality):
    """uint8 (3, 32, 32) after JPEG of this quality."""
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(content, "JPEG", quality=quality)
    return np.asarray(Image.open(content)).transpose(2, 0, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--quality", type=int, required=True, help="1 to 95, as Pillow counts")
    options = parser.parse_args()
    source, target = options.source / FOLDER, options.target / FOLDER
    files = sorted(source.glob("*.bin"))
    if not files:
        parser.error(f"{source} has no .bin files")
    target.mkdir(parents=True)
    error, count = 0.0, 0
    for file in files:
        records = np.fromfile(file, np.uint8).reshape(-1, RECORD)
        for record in records:
            pixels = record[1:].reshape(3, 32, 32)
            copy = copied(pixels, options.quality)
            error, count = error + float(((copy - pixels.astype(float)) ** 2).mean()), count + 1
            pixels[...] = copy
        records.tofile(target / file.name)
    for file in source.glob("*.txt"):
        shutil.copyfile(file, target / file.name)
    print(f"{count} images, mean squared difference {error / count:.1f} (levels 0 to 255)")


if __name__ == "__main__":
    main()
