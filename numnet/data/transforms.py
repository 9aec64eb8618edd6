"""How an image becomes a net's input: resize-and-crop presets by name, and input scalings by name.

A published net gives its published accuracy only for images prepared as its authors did:

    torchvision   the shorter side to resolution · 256/224, bilinear, and the middle cut out
    stretch       both sides to the resolution, bilinear, whatever that does to the proportions
    keras         both sides to the resolution, taking the nearest pixel: ``keras.utils.load_img``
    bicubic/0.9   timm's: the shorter side to ⌊resolution / 0.9⌋, bicubic or bilinear, and the middle cut out

A scaling is the mean and the standard deviation that x/255 is shifted and divided by: z = (x/255 − mean)/std.
"""

import numpy as np

from numnet.errors import NumnetError

PRESETS = ("torchvision", "stretch", "keras")
STRIP = 32  # no image is taken to be longer than that many times its width

SCALINGS = {
    # of its training set
    "cifar10": ((0.49139968, 0.48215841, 0.44653091), (0.24703223, 0.24348513, 0.26158784)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # torchvision's, timm's and PaddleClas's
    "keras": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # x/127.5 − 1, the same as (x/255 − ½)/½
    "shapes": ((0.5, 0.5, 0.5), (0.3, 0.3, 0.3)),  # of the built-in training set, to two digits
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # x/255
}


def scaling(name: str) -> dict:
    """{"mean": [3 floats], "std": [3 floats]} by name. Raises NumnetError that lists the names."""
    if name not in SCALINGS:
        raise NumnetError(f"input scaling: expected one of {', '.join(SCALINGS)}, got {name!r}")
    mean, std = SCALINGS[name]
    return {"mean": list(mean), "std": list(std)}


def sides(resolution) -> tuple[int, int]:
    """(height, width) of a resolution: one side of square images, or the two."""
    return tuple(resolution) if isinstance(resolution, (list, tuple)) else (resolution, resolution)


def check_preset(name: str, resolution) -> None:
    """Raise NumnetError for a preset that does not exist or a resolution that no image can have."""
    if name not in PRESETS and _timm(name) is None:
        raise NumnetError(f"preset: expected one of {', '.join(PRESETS)}, or bicubic/0.9, got {name!r}")
    pixels = sides(resolution)
    if len(pixels) != 2 or any(
        isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1 for n in pixels
    ):
        pair = " each in [height, width]" if isinstance(resolution, (list, tuple)) else ""
        raise NumnetError(f"resolution: expected a number of pixels{pair}, got {resolution!r}")


def _timm(name):
    """(interpolation, part of the shorter side that is kept) of a preset such as "bicubic/0.9"; else None."""
    way, _, crop = str(name).partition("/")
    try:
        part = float(crop)
    except ValueError:
        return None
    return (way, part) if way in ("bicubic", "bilinear") and 0.1 <= part <= 1 else None


def is_preset(name) -> bool:
    """Whether there is such a preset."""
    return name in PRESETS or _timm(name) is not None


def resize_and_crop(image, resolution, preset: str = "torchvision") -> np.ndarray:
    """The image as uint8 (resolution, resolution, 3). ``image``: uint8 (H, W, 3), or Pillow's in RGB.

    ``resolution``: a side, or (height, width); then the image is resized until it covers both.
    """
    from PIL import Image

    check_preset(preset, resolution)
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    high, wide = (int(n) for n in sides(resolution))
    size = (wide, high)
    if preset == "keras":
        return np.asarray(image.resize(size, Image.Resampling.NEAREST))
    if preset == "stretch":
        return np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    way, part = _timm(preset) or ("bilinear", None)
    short = min(image.size)
    if max(image.size) > STRIP * short:  # resized whole, a strip one pixel high would not fit in memory
        image = _middle(image, min(image.width, STRIP * short), min(image.height, STRIP * short))
    height, width = (int(n / part) if part else n * 256 // 224 for n in (high, wide))
    if height * image.width >= width * image.height:  # then the height decides, and the width is larger
        width = image.width * height // image.height
    else:
        height = image.height * width // image.width
    image = image.resize((width, height), Image.Resampling[way.upper()])
    return np.asarray(_middle(image, wide, high))


LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601


def as_channels(x: np.ndarray, channels: int) -> np.ndarray:
    """Scaled photographs (N, H, W, 3) as a net of so many channels takes them: 3 as they are, 1 the luminance.

    NumnetError for other nets: what their channels mean no photograph says.
    """
    if channels == 3:
        return x
    if channels == 1:
        red, green, blue = (x.dtype.type(part) for part in LUMINANCE)
        return np.ascontiguousarray(x[..., :1] * red + x[..., 1:2] * green + x[..., 2:] * blue)
    raise NumnetError(
        f"the net takes images of {channels} channels, photographs have 3 (or 1, grey); give it arrays in Python: "
        "net.predict(x)"
    )


def _middle(image, width: int, height: int):
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))
