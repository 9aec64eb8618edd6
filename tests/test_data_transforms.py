"""Presets, scalings, and what one image file is read as."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from numnet.data import image
from numnet.data.transforms import PRESETS, SCALINGS, resize_and_crop, scaling
from numnet.errors import NumnetError

rng = np.random.default_rng(0)
PHOTO = np.asarray(
    Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize(
        (90, 60), Image.Resampling.BICUBIC
    )
)


def triangle_filter(size, target):
    """Bilinear resizing along an axis as a matrix: weights fall linearly over the span of a target pixel."""
    step = max(size / target, 1)
    centres = (np.arange(target) + 0.5) * size / target
    distance = np.abs(np.arange(size) + 0.5 - centres[:, None]) / step
    weights = np.maximum(1 - distance, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def resized(photo, height, width):
    H, W, _ = photo.shape
    rows, columns = triangle_filter(H, height), triangle_filter(W, width)
    return np.einsum("ph,qw,hwc->pqc", rows, columns, photo / 1.0, optimize=True)


@pytest.mark.parametrize("resolution", [24, 100, 7])
def test_stretch_is_a_triangle_filter(resolution):
    out = resize_and_crop(PHOTO, resolution, "stretch")
    assert out.shape == (resolution, resolution, 3) and out.dtype == np.uint8
    assert np.abs(out - resized(PHOTO, resolution, resolution)).max() < 2  # bytes, rounded after each axis


@pytest.mark.parametrize("resolution", [24, 100, 7])
def test_keras_takes_the_nearest_pixel(resolution):
    rows = ((np.arange(resolution) + 0.5) * 60 / resolution).astype(int)
    columns = ((np.arange(resolution) + 0.5) * 90 / resolution).astype(int)
    assert (resize_and_crop(PHOTO, resolution, "keras") == PHOTO[rows][:, columns]).all()


@pytest.mark.parametrize(("resolution", "shorter"), [(224, 256), (28, 32), (192, 219), (160, 182), (7, 8)])
def test_torchvision_cuts_the_middle(resolution, shorter):
    for photo in (PHOTO, PHOTO.transpose(1, 0, 2)):
        height, width = (n * shorter // 60 for n in photo.shape[:2])
        top, left = round((height - resolution) / 2), round((width - resolution) / 2)
        middle = resized(photo, height, width)[top : top + resolution, left : left + resolution]
        assert np.abs(resize_and_crop(photo, resolution, "torchvision") - middle).max() < 2


def test_an_image_of_the_right_size_is_left_alone():
    square = PHOTO[:, :60]
    for preset in ("stretch", "keras"):
        assert (resize_and_crop(square, 60, preset) == square).all()


@pytest.mark.parametrize("preset", PRESETS)
def test_strips_are_no_trouble(preset):
    for shape in ((1, 30_000, 3), (30_000, 1, 3), (1, 1, 3)):
        assert resize_and_crop(np.full(shape, 77, np.uint8), 224, preset).tolist() == [[[77] * 3] * 224] * 224


def test_scalings():
    bytes_ = np.arange(0, 256, 5)[:, None]

    def scaled(name):
        return (bytes_ / 255 - scaling(name)["mean"]) / scaling(name)["std"]

    assert np.abs(scaled("keras") - (bytes_ / 127.5 - 1)).max() < 1e-15
    assert np.abs(scaled("unit") - bytes_ / 255).max() == 0
    assert scaling("imagenet") == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert scaling("cifar10")["std"] == [0.24703223, 0.24348513, 0.26158784]
    assert set(SCALINGS) == {"cifar10", "imagenet", "keras", "shapes", "unit"}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: scaling("torch"),
            "input scaling: expected one of cifar10, imagenet, keras, .*, got 'torch'",
        ),
        (
            lambda: resize_and_crop(PHOTO, 32, "tf"),
            "preset: expected one of torchvision, stretch, keras, or bicubic/0.9, got 'tf",
        ),
        (lambda: resize_and_crop(PHOTO, 0), "resolution: expected a number of pixels, got 0"),
        (lambda: resize_and_crop(PHOTO, 32.0), "resolution: expected a number of pixels, got 32.0"),
    ],
)
def test_wrong_names(call, says):
    with pytest.raises(NumnetError, match=says):
        call()


# ------------------------------------------------------------------------------------------------ image files

GREY = np.broadcast_to(np.linspace(0, 255, 90).astype(np.uint8), (60, 90))


def save(path, picture, **options):
    picture.save(path, **options)
    return path


def files(folder):
    """One file of every kind, all showing PHOTO or GREY, and what is to be read (None: only nearly that)."""
    photo, grey = Image.fromarray(PHOTO), Image.fromarray(GREY)
    alpha = Image.fromarray(np.full((60, 90), 100, np.uint8))
    grey3 = np.repeat(GREY[..., None], 3, axis=2)
    palette = photo.quantize(16)
    colours = np.asarray(palette.convert("RGB"))
    deep = Image.fromarray((GREY.astype(np.uint16) << 8) + 99)
    see_through = Image.merge("RGBA", [*photo.split(), alpha])
    yield "rgb.png", save(folder / "rgb.png", photo), PHOTO
    yield "rgb.bmp", save(folder / "rgb.bmp", photo), PHOTO
    yield "rgb.ppm", save(folder / "rgb.ppm", photo), PHOTO
    yield "rgb.tif", save(folder / "rgb.tif", photo), PHOTO
    yield "rgb.webp", save(folder / "rgb.webp", photo, lossless=True), PHOTO
    yield "rgb.jpg", save(folder / "rgb.jpg", photo, quality=95), None
    pair = dict(format="MPO", save_all=True, append_images=[photo], quality=95)  # as telephones write them
    yield "pair.jpg", save(folder / "pair.jpg", photo, **pair), None
    yield "cmyk.jpg", save(folder / "cmyk.jpg", photo.convert("CMYK"), quality=95), None
    yield "grey.jpg", save(folder / "grey.jpg", grey, quality=95), None
    yield "grey.png", save(folder / "grey.png", grey), grey3
    yield "bit.png", save(folder / "bit.png", grey.convert("1")), np.asarray(grey.convert("1").convert("RGB"))
    yield "16bit.png", save(folder / "16bit.png", deep), grey3
    yield "16bit.tif", save(folder / "16bit.tif", deep), grey3
    yield "16bit.pgm", save(folder / "16bit.pgm", deep), grey3
    yield "rgba.png", save(folder / "rgba.png", see_through), PHOTO
    yield "la.png", save(folder / "la.png", Image.merge("LA", [grey, alpha])), grey3
    yield "palette.png", save(folder / "palette.png", palette), colours
    yield "palette.gif", save(folder / "palette.gif", palette), colours
    yield "transparent.png", save(folder / "transparent.png", palette, transparency=bytes(range(16))), colours
    moving = dict(save_all=True, append_images=[Image.new("P", palette.size)])
    yield "moving.gif", save(folder / "moving.gif", palette, **moving), colours


def test_every_mode(tmp_path):
    for name, path, expected in files(tmp_path):
        picture = image.decode(path)
        assert picture.mode == "RGB" and picture.size == (90, 60), name
        if expected is not None:
            assert (np.asarray(picture) == expected).all(), name
        else:
            nearly = np.repeat(GREY[..., None], 3, axis=2) if "grey" in name else PHOTO
            assert np.abs(np.asarray(picture, int) - nearly).mean() < 6, name
        assert image.read_image(path, 24).shape == (24, 24, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, suffix, orientation):
    """EXIF tag 0x0112 says how the stored rows are to be turned and mirrored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = PHOTO[:, :72]
    options = {"jpg": dict(quality=95), "webp": dict(lossless=True)}.get(suffix, {})
    path = save(tmp_path / f"photo.{suffix}", Image.fromarray(stored), exif=exif, **options)
    seen = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored, 1),
    }[orientation]
    picture = np.asarray(image.decode(path), int)
    assert picture.shape == seen.shape and np.abs(picture - seen).mean() < (6 if suffix == "jpg" else 0.01)


def damaged(folder):
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, "JPEG")
    (folder / "cut.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, "PNG")
    wrong = bytearray(buffer.getvalue())
    wrong[len(wrong) // 2] ^= 0xFF
    (folder / "flipped.png").write_bytes(wrong)
    (folder / "empty.jpg").touch()
    (folder / "page.jpg").write_text("<html>404</html>")
    (folder / "script.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    return {
        "cut.jpg": "damaged image",
        "flipped.png": "damaged image",
        "empty.jpg": "not an image that can be read",
        "page.jpg": "not an image that can be read",
        "script.png": "not an image that can be read",  # PostScript: Pillow would run Ghostscript
        "missing.jpg": "no such file, expected an image file",
        "": "a folder, expected an image file",
    }


def test_damaged_files(tmp_path):
    for name, says in damaged(tmp_path).items():
        with pytest.raises(NumnetError, match=says) as excinfo:
            image.read_image(tmp_path / name, 32)
        message = str(excinfo.value)
        assert message.startswith(str(tmp_path / name)) and "\n" not in message, name


@pytest.mark.parametrize("limit", [5000, 2000])  # just over it, where Pillow would only warn, and far over it
def test_too_many_pixels(tmp_path, monkeypatch, limit):
    path = save(tmp_path / "large.png", Image.fromarray(PHOTO))
    image.read_image(path, 32)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(NumnetError, match=f"large.png: more than {limit:,} pixels"):
        image.read_image(path, 32)


def test_pillows_other_warnings_are_not_the_users():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with image.quiet():
            warnings.warn("Palette images with Transparency …", UserWarning, stacklevel=1)
