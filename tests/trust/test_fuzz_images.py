"""Images of every mode and format, whole and broken, and none at all: an RGB image, or an error that shows it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from st_vi.data.values import images_of
from st_vi.inputs.pictures import MAX_ASPECT_RATIO, open_image
from tests.helpers.fuzz import ODD_VALUES, REFUSED, SURROGATES, files, fuzz, outcome

pytestmark = pytest.mark.slow

CASES = 2_500  # with ST_VI_FUZZ=1

MODES = (
    "1",
    "L",
    "P",
    "RGB",
    "RGBA",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "LA",
    "PA",
    "RGBa",
    "La",
    "I;16",
    "I;16B",
)
SIZES = ((1, 1), (1, 2), (3, 200), (200, 3), (40, 30), (1, 199), (1, 201), (201, 1), (0, 0), (0, 3), (20_000, 10))


@st.composite
def broken_files(draw: st.DrawFn) -> bytes:
    """A file cut off, with bytes changed, taken out, repeated, or of two files."""
    data = bytearray(draw(st.sampled_from(files())))
    match draw(st.sampled_from(["whole", "cut", "bytes", "bytes", "head", "head", "out", "twice", "of two"])):
        case "cut":
            del data[draw(st.integers(0, len(data))) :]
        case "bytes":
            for place in draw(st.lists(st.integers(0, len(data) - 1), max_size=8)):
                data[place] = draw(st.integers(0, 255))
        case "head":  # where sizes, modes and offsets stand
            data[draw(st.integers(0, 63))] = draw(st.sampled_from([0, 1, 127, 128, 255]))
        case "out":
            start = draw(st.integers(0, len(data)))
            del data[start : start + draw(st.integers(1, 64))]
        case "twice":
            data[10:10] = data[: draw(st.integers(1, 64))]
        case "of two":
            other = draw(st.sampled_from(files()))
            data[len(data) // 2 :] = other[len(other) // 2 :]
    return bytes(data)


def assert_usable(image: Image.Image) -> None:
    assert image.mode == "RGB" and min(image.size) > 0
    assert max(image.size) <= MAX_ASPECT_RATIO * min(image.size)
    assert len(image.tobytes()) == 3 * image.width * image.height


@fuzz(2000, data=broken_files())
def test_broken_files(data):
    image = outcome("images", lambda: open_image(data), ["the image " + repr(data[:16])])
    if image is not REFUSED:
        assert_usable(image)


@fuzz(300, mode=st.sampled_from(MODES), size=st.sampled_from(SIZES), value=st.integers(0, 2**16 - 1))
def test_modes_and_sizes(mode, size, value):
    image = Image.new(mode, size)
    if mode.startswith("I") and min(size):
        image.putpixel((0, 0), value)
    opened = outcome("images", lambda: open_image(image), ["the image <PIL"])
    if opened is not REFUSED:
        assert_usable(opened)
        assert opened.size == size
        if mode.startswith("I;"):
            assert opened.getpixel((0, 0)) == (value >> 8,) * 3  # the upper eight bits


NAMES = ("", "a\0.png", "/", "/proc/self/mem", "no.png", "x" * 5000, "http://a.b/c.png", "data:,x", *SURROGATES)


@fuzz(
    500,
    value=st.one_of(st.sampled_from(ODD_VALUES), st.sampled_from(NAMES), st.text(max_size=8), st.binary(max_size=40)),
)
def test_what_is_no_picture(value):
    assert outcome("images", lambda: open_image(value), ["the image "]) is REFUSED


@fuzz(200, value=st.lists(st.sampled_from([*files()[:4], None, b"x", [], Image.new("L", (3, 2))]), max_size=3))
def test_lists_of_pictures(value):
    images = outcome("images", lambda: images_of({"anchor_image": value}, "anchor"), ["the image "])
    if images is not REFUSED:
        assert len(images) == sum(one is not None and one != [] for one in value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_pictures_stand_upright(kind):
    """Found by comparing with what the image processor makes of the same file: it turns them."""
    image, exif, buffer = Image.new("RGB", (20, 10)), Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    image.save(buffer, kind, exif=exif)
    opened = open_image(buffer.getvalue())
    assert opened.size == (10, 20) and 0x0112 not in opened.getexif()


def test_broken_exif_data_turn_nothing():
    image, buffer = Image.new("RGB", (20, 10)), io.BytesIO()
    image.save(buffer, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert open_image(buffer.getvalue()).size == (20, 10)


def test_of_sixteen_bits_the_upper_eight():
    """Pillow's own conversion makes white of everything above 255."""
    levels = np.array([[0, 255, 256, 32_768, 65_535]], np.uint16)
    for image in (Image.fromarray(levels), Image.fromarray(levels.astype(np.int32))):
        assert np.asarray(open_image(image))[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    eight_bits = Image.fromarray(np.array([[0, 7, 255]], np.int32))  # of mode I, too
    assert np.asarray(open_image(eight_bits))[0, :, 0].tolist() == [0, 7, 255]
