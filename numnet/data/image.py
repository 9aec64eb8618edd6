"""One image file as red, green and blue, whatever it holds: any mode that Pillow reads, any orientation."""

import errno
import stat
import warnings
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np

from numnet.data.transforms import resize_and_crop
from numnet.errors import NumnetError

# Formats that hold photographs and drawings. Pillow reads others too, some by calling other programs.
SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".ppm": "PPM",
    ".pgm": "PPM",
}
FORMATS = sorted(set(SUFFIXES.values()))
LARGEST = 1 << 30  # bytes of a file
LONGEST = 65_535  # pixels of a side: what JPEG can say; a few bytes can claim millions


@contextmanager
def quiet():
    """Pillow without its warnings, except that an image of more than Image.MAX_IMAGE_PIXELS is an error.

    For the main thread: Python keeps one list of warning filters for all threads.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(path):
    """The image as Pillow's, mode RGB, turned as its EXIF data says. Raises whatever Pillow raises.

    Transparency is dropped, as Keras and torchvision do; of an animation the first picture counts.
    """
    from PIL import Image, ImageOps

    with Image.open(BytesIO(_bytes(path)), formats=FORMATS) as image:
        if max(image.size) > LONGEST:
            raise OSError(errno.EFBIG, f"a side of {max(image.size):,} pixels, expected at most {LONGEST:,}")
        return _rgb(ImageOps.exif_transpose(image))


def _bytes(path) -> bytes:
    """The file's contents. What is no file, or has no end (a link to a device or a pipe), is an OSError."""
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a file")
    if status.st_size > LARGEST:
        raise OSError(errno.EFBIG, f"a file of {status.st_size:,} bytes, expected at most {LARGEST:,}")
    return Path(path).read_bytes()


def _rgb(image):
    from PIL import Image

    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):  # 16 bits a pixel: keep the upper eight
        deep = np.clip(np.asarray(image), 0, 65535)
        return Image.fromarray((deep >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("P", "PA", "LA", "La") or "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB would turn the transparent colour into another
    return image.convert("RGB")


def read_image(path, resolution: int, preset: str = "torchvision") -> np.ndarray:
    """One image file, uint8 (resolution, resolution, 3). NumnetError names the file and what is wrong."""
    path = Path(path)
    if not path.is_file():
        raise NumnetError(
            f"{path}: {'a folder' if path.is_dir() else 'no such file'}, expected an image file"
        )
    with quiet():
        try:
            image = decode(path)
        except Exception as error:  # a decoder may raise anything, and each means that the file is no image
            raise NumnetError(f"{path}: {why(error)}") from None
    return resize_and_crop(image, resolution, preset)


def why(error: Exception) -> str:
    """One line of what is wrong with an image file."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image that can be read ({', '.join(FORMATS)})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "damaged image (" + " ".join(str(error).split()) + ")"
