"""Pictures of more than eight bits a pixel, as bytes: where is their white?

A photograph of eight bits says it: 255. Scanners, microscopes and cameras write 12 bits into 16, elevations as floats,
hounsfields as signed integers; read as if 65,535 or 255 were white, they come out all black or all white. The rule, for
each picture on its own:

    integers from 0 to 65,535    of 1, 8, 10, 12, 14 and 16 bits the fewest that hold the brightest pixel; all set is white
    floats from 0 to 1           1 is white
    floats from 0 to 255         255 is white
    any other numbers            the darkest pixel is black, the brightest white

Pixels that are no finite numbers are refused. So are three channels of 16 bits that are nowhere brighter than a
sixteenth of white: Pillow hands over their upper eight bits only, and there four are left.
"""

import errno

import numpy as np

MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
BITS = (1, 8, 10, 12, 14, 16)
DIMMEST = 16  # of 255: what three channels of 16 bits must reach somewhere
PHOTOMETRIC, SAMPLE_FORMAT = 262, 339  # tags of a TIFF: 0 means that 0 is white; 1 means unsigned

# What is said of pictures for which something had to be assumed, after their number.
NOTES = {
    "bits": "of 16 or 32 bits that use 14 or fewer: in each the smallest of 1, 8, 10, 12 and 14 bits "
    "that holds its brightest pixel is taken for white",
    "unit": "of floats from 0 to 1: 1 is taken for white",
    "stretched": "of numbers without a white (floats, wide or negative integers): "
    "each is shown from its darkest pixel, black, to its brightest, white",
}


def to_bytes(image):
    """(grey levels uint8 (H, W), a key of NOTES or None) of Pillow's image in one of MODES. OSError for what is refused."""
    # Pillow forgets both when it reads the pixels
    tags, layout = getattr(image, "tag_v2", {}), str(image.tile)
    pixels = np.asarray(image)
    if "I;32N" in layout and tags.get(SAMPLE_FORMAT, (1,)) == (1,):
        pixels = pixels.view(np.uint32)  # Pillow has no unsigned kind
    if not pixels.size:
        return np.zeros(pixels.shape, np.uint8), None
    low, high = pixels.min(), pixels.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise OSError(errno.EINVAL, "pixels that are no finite numbers")
    grey, note = _rule(pixels, low, high)
    return (255 - grey if tags.get(PHOTOMETRIC) == 0 else grey), note


def _rule(pixels, low, high):
    whole = pixels.dtype.kind in "iu"
    if whole and low >= 0 and high <= 65535:
        bits = next(bits for bits in BITS if high < 1 << bits)
        if bits == 1:
            return (pixels * 255).astype(np.uint8), "bits" if high else None
        return (pixels >> (bits - 8)).astype(np.uint8), None if bits == 16 else "bits"
    if not whole and low >= 0 and high <= 255:
        white = 1 if high <= 1 else 255
        return np.rint(pixels * np.float32(255 / white)).astype(np.uint8), "unit" if white == 1 else None
    scale = 255 / max(float(high) - float(low), np.finfo(np.float32).tiny)
    grey = (pixels.astype(np.float64) - float(low)) * scale
    return np.rint(grey).clip(0, 255).astype(np.uint8), "stretched"


def require_light(image, deep: bool) -> None:
    """OSError for channels of 16 bits (``deep``), given as their upper eight, of which hardly any is used."""
    if deep and max(high for _, high in _extrema(image)) < DIMMEST:
        raise OSError(
            errno.EINVAL,
            "several channels of 16 bits, none brighter than 1/16 of white (12 bits in 16?); expected 8 bits a channel",
        )


def _extrema(image):
    extrema = image.getextrema()
    extrema = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return extrema[:-1] if image.mode in ("RGBA", "LA") else extrema
