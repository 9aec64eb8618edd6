"""One image file as red, green and blue, whatever it holds: any mode that Pillow reads, any orientation."""

import errno
import stat
import warnings
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np

from numnet.data import deep
from numnet.data.transforms import resize_and_crop
from numnet.errors import NumnetError

# Formats that hold photographs and drawings. Pillow reads others too, some by calling other programs.
SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".mpo": "JPEG",
    ".png": "PNG",
    ".apng": "PNG",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".pbm": "PPM",
    ".pnm": "PPM",
}
FORMATS = sorted(set(SUFFIXES.values()))
BACKGROUNDS = {"white": (255,), "black": (0,), "grey": (128,)}
ORIENTATION = 0x0112  # EXIF's tag
STRANGE_TIFF = (
    "a TIFF of a kind that cannot be read (64 bits, several channels of floats, or more than four channels); "
    "expected one channel of up to 32 bits, or three or four of 8 or 16"
)
NOTES = {
    **deep.NOTES,
    "pages": "with several pages: the first is used",
    "transparent": "with transparent pixels, shown in the colours that lie hidden there "
    "(--background white puts them on white)",
}
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


def decode(path, background=None, notes=None):
    """The image as Pillow's, mode RGB, turned as its EXIF data says. Raises whatever Pillow raises.

    ``background``   what is seen through transparent pixels, a name in BACKGROUNDS; None drops the transparency, as
                     Keras and torchvision do: the colours that lie hidden below come to light
    ``notes``        a list that gains the keys of NOTES that hold for the image

    More than eight bits a pixel: see ``numnet.data.deep``. Of an animation the first picture counts.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    content = _bytes(path)
    notes = [] if notes is None else notes
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        if content[:4] in (b"II*\0", b"MM\0*"):
            raise OSError(errno.EINVAL, STRANGE_TIFF) from None
        raise
    with image:
        if max(image.size) > LONGEST:
            raise OSError(errno.EFBIG, f"a side of {max(image.size):,} pixels, expected at most {LONGEST:,}")
        if image.format == "TIFF" and _has_second_page(image):
            notes.append("pages")
        if image.mode in deep.MODES:
            grey, note = deep.to_bytes(image)
            notes += [note] if note else []
            return ImageOps.exif_transpose(_with_exif(Image.fromarray(grey), image)).convert("RGB")
        sixteen = ";16" in str(image.tile)
        return _rgb(ImageOps.exif_transpose(image), sixteen, background, notes)


def _has_second_page(image) -> bool:
    try:
        image.seek(1)
        return True
    except Exception:  # the end, or a page that cannot be read
        return False
    finally:
        image.seek(0)


def _bytes(path) -> bytes:
    """The file's contents. What is no file, or has no end (a link to a device or a pipe), is an OSError."""
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a file")
    if status.st_size > LARGEST:
        raise OSError(errno.EFBIG, f"a file of {status.st_size:,} bytes, expected at most {LARGEST:,}")
    return Path(path).read_bytes()


def _with_exif(image, original):
    """The image, with what the original's EXIF data says of its orientation."""
    orientation = original.getexif().get(ORIENTATION)
    if orientation:
        image.getexif()[ORIENTATION] = orientation
    return image


def _rgb(image, sixteen, background, notes):
    from PIL import Image

    deep.require_light(image, sixteen)
    if image.mode in ("P", "PA", "LA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB would turn the transparent colour into another
    if image.mode == "RGBA" and image.getextrema()[3][0] < 255:
        if background is not None:
            below = Image.new("RGBA", image.size, BACKGROUNDS[background] * 3 + (255,))
            return Image.alpha_composite(below, image).convert("RGB")
        notes.append("transparent")
    return image.convert("RGB")


def check_background(name) -> None:
    """Raise NumnetError for a background that does not exist."""
    if name is not None and name not in BACKGROUNDS:
        raise NumnetError(f"background: expected one of {', '.join(BACKGROUNDS)}, got {name!r}")


def read_image(path, resolution, preset: str = "torchvision", background=None, notes=None) -> np.ndarray:
    """One image file, uint8 (resolution, resolution, 3). NumnetError names the file and what is wrong.

    ``resolution``: a side, or (height, width).

    ``background``, ``notes``: see ``decode``.
    """
    with quiet():
        return read_quietly(path, resolution, preset, background, notes)


def read_quietly(path, resolution, preset: str, background=None, notes=None) -> np.ndarray:
    """``read_image`` for several threads: whoever starts them is inside ``quiet``."""
    path = Path(path)
    check_background(background)
    if not path.is_file():
        raise NumnetError(
            f"{path}: {'a folder' if path.is_dir() else 'no such file'}, expected an image file"
        )
    try:
        image = decode(path, background, notes)
    except MemoryError:
        raise
    except Exception as error:  # a decoder may raise anything else, and each means that the file is no image
        raise NumnetError(f"{path}: {why(error)}") from None
    return resize_and_crop(image, resolution, preset)


def noted(counts) -> list[str]:
    """A line for each key of NOTES: how many images it holds for, and what was assumed."""
    return [
        f"{count:,} {'image' if count == 1 else 'images'} {NOTES[key]}"
        for key, count in counts.items()
        if count
    ]


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
