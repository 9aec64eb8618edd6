"""Images that are no photographs: more than eight bits a pixel, floats, transparency."""

import struct

import numpy as np
import pytest
from PIL import Image

from numnet import data
from numnet.data.image import read_image
from numnet.errors import NumnetError

RAMP = np.linspace(0, 1, 16 * 16).reshape(16, 16)
WHOLE = np.rint(255 * RAMP)


def tiff(pixels, kind, zero_is_white=False):
    """A TIFF of one strip; ``kind``: 1 unsigned, 2 signed, 3 floats. Pillow writes only a few of these."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    body, bits, more = pixels.tobytes(), pixels.itemsize * 8, b""
    after = 8 + len(body) + 2 + 12 * 10 + 4

    def each(value):
        nonlocal more
        if channels == 1:
            return value
        more += struct.pack(f"<{channels}H", *[value] * channels)
        return after + len(more) - 2 * channels

    photometric = 0 if zero_is_white else 1 if channels == 1 else 2
    shorts = {256: width, 257: height, 259: 1, 262: photometric, 277: channels, 278: height}
    tags = [(tag, 3, 1, value) for tag, value in shorts.items()] + [(273, 4, 1, 8), (279, 4, 1, len(body))]
    tags = sorted([*tags, (258, 3, channels, each(bits)), (339, 3, channels, each(kind))])
    table = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + table + more


def grey(path, notes=None):
    return read_image(path, 16, "stretch", notes=notes)[..., 0].astype(int)


@pytest.mark.parametrize(
    ("pixels", "kind", "note"),
    [
        (RAMP.astype(np.float32), 3, "unit"),
        ((300 + 2000 * RAMP).astype(np.float32), 3, "stretched"),
        ((2 * RAMP - 1).astype(np.float32), 3, "stretched"),
        ((255 * RAMP).astype(np.float32), 3, None),
        ((1e30 * RAMP).astype(np.float32), 3, "stretched"),
        ((3000 * RAMP - 1000).astype(np.int16), 2, "stretched"),
        ((1e6 * RAMP).astype(np.int32), 2, "stretched"),
        ((4e9 * RAMP).astype(np.uint32), 1, "stretched"),
        ((255 * RAMP).astype(np.int32), 2, "bits"),
        ((1023 * RAMP).astype(np.uint16), 1, "bits"),
        ((4095 * RAMP).astype(np.uint16), 1, "bits"),
        ((16383 * RAMP).astype(np.uint16), 1, "bits"),
        ((65535 * RAMP).astype(np.uint16), 1, None),
        ((RAMP > 0.5).astype(np.uint16), 1, "bits"),
    ],
)
def test_numbers_of_every_range_come_out_from_black_to_white(tmp_path, pixels, kind, note):
    (tmp_path / "x.tif").write_bytes(tiff(pixels, kind))
    notes = []
    got = grey(tmp_path / "x.tif", notes)
    wanted = 255 * (RAMP > 0.5) if pixels.max() == 1 and kind == 1 else WHOLE
    assert notes == ([note] if note else []) and np.abs(got - wanted).max() <= 1


def test_white_may_be_zero(tmp_path):
    (tmp_path / "x.tif").write_bytes(tiff((4095 * RAMP).astype(np.uint16), 1, zero_is_white=True))
    assert np.abs(grey(tmp_path / "x.tif") - (255 - WHOLE)).max() <= 1


def test_a_png_of_twelve_bits_in_sixteen(tmp_path):
    Image.fromarray((4095 * RAMP).astype(np.uint16)).save(tmp_path / "x.png")
    assert np.abs(grey(tmp_path / "x.png") - WHOLE).max() <= 1
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "black.png")
    assert (grey(tmp_path / "black.png") == 0).all()


def test_what_has_no_rule_is_refused(tmp_path):
    colours = np.repeat(RAMP[..., None], 3, axis=2)
    lost = RAMP.astype(np.float32)
    lost[3, 3] = np.nan
    for pixels, kind, says in (
        (lost, 3, "pixels that are no finite numbers"),
        (
            (4095 * colours).astype(np.uint16),
            1,
            r"several channels of 16 bits, none brighter than 1/16 of white",
        ),
        (colours.astype(np.float32), 3, "a TIFF of a kind that cannot be read"),
        (RAMP.astype(np.float64), 3, "a TIFF of a kind that cannot be read"),
        (np.repeat(colours, 2, axis=2).astype(np.uint16), 1, "a TIFF of a kind that cannot be read"),
    ):
        (tmp_path / "x.tif").write_bytes(tiff(pixels, kind))
        with pytest.raises(NumnetError, match=rf"x\.tif: {says}") as excinfo:
            read_image(tmp_path / "x.tif", 8)
        assert "\n" not in str(excinfo.value)
    (tmp_path / "x.tif").write_bytes(tiff((65535 * colours).astype(np.uint16), 1))
    assert np.abs(grey(tmp_path / "x.tif") - WHOLE).max() <= 1


def test_what_a_data_set_holds_is_said(tmp_path, capsys):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for i in range(4):
            (tmp_path / name / f"{i}.tif").write_bytes(
                tiff(((300 + 100 * i) * RAMP + 300).astype(np.float32), 3)
            )
    pages = [Image.fromarray(WHOLE.astype(np.uint8)) for _ in range(3)]
    pages[0].save(tmp_path / "ant" / "stack.tif", save_all=True, append_images=pages[1:])
    read = data.load(tmp_path, resolution=16, preset="stretch")
    assert len(read.train) + len(read.test) == 9 and (np.ptp(read.train.images, axis=(1, 2, 3)) > 250).all()
    said = capsys.readouterr().err
    assert f"numnet: {tmp_path}: 8 images of numbers without a white" in said
    assert f"numnet: {tmp_path}: 1 image with several pages: the first is used" in said


# ----------------------------------------------------------------------------------------- transparency


def see_through(path, mode):
    """Left half red, right half nothing, below which black lies hidden."""
    colours = np.zeros((8, 8, 4), np.uint8)
    colours[:, :4] = 200, 30, 30, 255
    image = Image.fromarray(colours)
    if mode == "LA":
        image = image.convert("LA")
    if mode == "P":
        palette = Image.fromarray(np.repeat([[1] * 4 + [0] * 4], 8, axis=0).astype(np.uint8)).convert("L")
        image = Image.frombytes("P", (8, 8), palette.tobytes())
        image.putpalette([0, 0, 0, 200, 30, 30])
        image.save(path, transparency=0)
        return
    image.save(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_images_on_a_background(tmp_path, mode):
    see_through(tmp_path / "x.png", mode)
    notes = []
    plain = read_image(tmp_path / "x.png", 8, "stretch", notes=notes)
    assert notes == ["transparent"] and (plain[:, 4:] == 0).all()
    for background, level in (("white", 255), ("black", 0), ("grey", 128)):
        notes = []
        shown = read_image(tmp_path / "x.png", 8, "stretch", background, notes)
        assert notes == [] and (shown[:, 4:] == level).all() and (shown[:, :4] == plain[:, :4]).all()
    with pytest.raises(NumnetError, match="background: expected one of white, black, grey, got 'pink'"):
        read_image(tmp_path / "x.png", 8, background="pink")


@pytest.mark.parametrize("memory", [None, 0])
def test_a_data_set_on_white(tmp_path, memory, capsys):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for i in range(3):
            see_through(tmp_path / name / f"{i}.png", "RGBA")
    options = dict(resolution=8, preset="stretch", memory=memory)
    assert (data.load(tmp_path, **options).train.read([0])[0, :, 4:] == 0).all()
    assert (
        "6 images with transparent pixels, shown in the colours that lie hidden there (--background"
        in capsys.readouterr().err
    )
    assert (data.load(tmp_path, background="white", **options).train.read([0])[0, :, 4:] == 255).all()
    assert capsys.readouterr().err == ""
