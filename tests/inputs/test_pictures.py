"""`open_image`: the same pixels whatever holds the image, against colours put down by hand."""

from __future__ import annotations

import base64
import io
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from unicodedata import normalize

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from st_vi.data.task_rows import check_task_rows
from st_vi.inputs.content import content_key
from st_vi.inputs.kinds import is_picture
from st_vi.inputs.pictures import open_image

RED, WHITE = (200, 0, 0), (255, 255, 255)


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def row(image):
    return [open_image(image).getpixel((x, 0)) for x in range(2)]


def half_transparent():
    """Black that nobody shall see, and red."""
    image = Image.new("RGBA", (2, 1), (*RED, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    return image


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "TGA", "ICO"])
def test_transparency_is_white(kind):
    image = half_transparent().resize((32, 32), Image.Resampling.NEAREST)
    opened = open_image(saved(image, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert opened.mode == "RGB"
    assert [opened.getpixel((x, 5)) for x in (3, 28)] == [WHITE, RED]


def test_a_palette_may_be_transparent():
    palette = half_transparent().quantize(2)
    assert palette.palette.mode == "RGBA" and "transparency" not in palette.info
    assert row(palette) == [WHITE, RED]


@pytest.mark.parametrize("mode", ["LA", "PA", "La", "RGBa"])
def test_transparency_in_other_modes_is_white(mode):
    image = half_transparent()
    image = image.quantize(2) if mode == "PA" else image if mode == "RGBa" else image.convert("LA")
    assert row(image.convert(mode))[0] == WHITE
    assert row(image.convert(mode))[1] != WHITE


def test_a_colour_that_stands_for_nothing_is_white():
    palette = half_transparent().convert("RGB").quantize(2)
    rgb = half_transparent().convert("RGB")
    grey = Image.fromarray(np.array([[7, 9]], np.uint8))
    grey16 = Image.fromarray(np.array([[7, 2560]], np.uint16))
    assert row(saved(palette, transparency=palette.getpixel((0, 0)))) == [WHITE, RED]
    assert row(saved(palette, "GIF", transparency=palette.getpixel((0, 0)))) == [WHITE, RED]
    assert row(saved(rgb, transparency=(0, 0, 0))) == [WHITE, RED]
    assert row(saved(grey, transparency=7)) == [WHITE, (9, 9, 9)]
    assert row(saved(grey16, transparency=7)) == [WHITE, (10, 10, 10)]


@pytest.mark.parametrize(
    ("bits", "colour", "pixels"), [(2, 0, b"\x60"), (4, 0, b"\x1a"), (16, 2, b"\0\1" * 3 + b"\xaa" * 6)]
)
def test_a_colour_of_other_depths_that_stands_for_nothing_is_white(bits, colour, pixels):
    """Pillow scales the pixels of such PNGs, as optimisers write them, to 8 bits, but not this colour."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", 2, 1, bits, colour, 0, 0, 0)
    key = b"\0\1" * (3 if colour else 1)
    parts = {b"IHDR": head, b"tRNS": key, b"IDAT": zlib.compress(b"\0" + pixels), b"IEND": b""}
    file = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts.items())
    for holder in (file, Image.open(io.BytesIO(file))):
        assert row(holder) == [WHITE, (170, 170, 170)]


def test_opening_again_changes_nothing():
    once = open_image(saved(half_transparent().convert("RGB"), transparency=(0, 0, 0)))
    assert open_image(once).tobytes() == once.tobytes()


LEVELS = [0, 1, 64, 128, 255]


@pytest.mark.parametrize(
    "values",
    [
        np.array([LEVELS], np.uint16) * 256 + 7,
        np.array([LEVELS], np.int32) * 256 + 7,
        np.array([LEVELS], np.int32),
        np.array([LEVELS], np.uint16),
        np.array([LEVELS], np.float32),
        np.array([LEVELS], np.float32) * 256,
        np.array([LEVELS], np.float32) / 255,
    ],
    ids=["I;16", "I of 16 bits", "I of 8 bits", "I;16 of 8 bits", "F to 255", "F of 16 bits", "F to 1"],
)
def test_more_than_eight_bits(values):
    image = Image.fromarray(values)
    for way in (image, saved(image, "TIFF"), values, torch.as_tensor(values.astype(values.dtype.newbyteorder("=")))):
        assert np.asarray(open_image(way))[0, :, 0].tolist() == LEVELS


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_that_rounding_or_interpolation_took_above_one(dtype, recwarn):
    values = np.array([[0, 0.5, 1, 1.05]], dtype)
    for way in (values, torch.as_tensor(values), values * np.array(255 / 1.05, dtype)):
        *_, white, over = np.asarray(open_image(way))[0, :, 0].tolist()
        assert over == 255 and white >= 242
    assert np.asarray(open_image(np.array([[0, 1.2, 100]], dtype)))[0, :, 0].tolist() == [0, 1, 100]
    assert not recwarn.list


@pytest.mark.parametrize("values", [[-1.0, 3.0], [0.0, float("nan")], [0.0, float("inf")], [0.0, 1e6]])
def test_values_that_are_no_brightness(values):
    with pytest.raises(ValueError, match=r"its values go from .* scale them"):
        open_image(Image.fromarray(np.array([values], np.float32)))


def test_arrays_and_tensors_are_the_picture():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8))
    array = np.asarray(image)
    expected = open_image(image).tobytes()
    for way in (array, array.transpose(2, 0, 1), torch.tensor(array), torch.tensor(array).permute(2, 0, 1) / 255):
        assert open_image(way).tobytes() == expected
    assert row(np.array([[True, False]])) == [WHITE, (0, 0, 0)]
    assert row(torch.tensor([[[1.0, 0.0]]], dtype=torch.bfloat16)) == [WHITE, (0, 0, 0)]
    with pytest.raises(ValueError, match=r"of an array \(5, 6, 7\).*channels"):
        open_image(np.zeros((5, 6, 7)))


def test_whatever_holds_it(tmp_path):
    image = half_transparent()
    path, data = tmp_path / "nửa.png", saved(image)
    path.write_bytes(data)
    text = base64.b64encode(data).decode()
    ways = [image, path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), text]
    ways += [
        f"DATA:image/png;base64,{base64.encodebytes(data).decode()}",
        f"data:image/png;base64,{text}",
        {"bytes": data, "path": "không.png"},
        {"bytes": None, "path": str(path)},
    ]
    for way in ways:
        assert row(way) == [WHITE, RED]
    with path.open("rb") as file:
        assert open_image(file).getpixel((1, 0)) == RED


def test_a_name_in_the_letters_of_another_system(tmp_path, monkeypatch):
    (folder := tmp_path / normalize("NFD", "ảnh")).mkdir()
    half_transparent().save(folder / normalize("NFD", "một nửa.png"))
    for name in (tmp_path / "ảnh" / "một nửa.png", str(tmp_path / "ảnh" / "một nửa.png")):
        assert row(name) == [WHITE, RED]
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    assert is_picture("một nửa.png") and row("một nửa.png") == row("~/một nửa.png") == [WHITE, RED]
    assert content_key("một nửa.png") == content_key(half_transparent())


def test_the_first_of_several_frames():
    frames = [Image.new("RGB", (2, 1), colour) for colour in (RED, WHITE)]
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert row(data) == [RED, RED], kind


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_turned_after_it_lies_on_white(kind):
    """Transparent images have EXIF data, too: a screenshot, say."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB" if kind == "JPEG" else "RGBA", (20, 10))
    assert open_image(saved(image, kind, exif=exif)).size == (10, 20)


def test_turned_as_the_exif_data_in_memory_say():
    image = half_transparent().resize((20, 10))
    image.getexif()[0x0112] = 6
    assert open_image(image).size == (10, 20)


def test_a_file_that_was_not_read_yet_by_several_threads():
    data = saved(Image.effect_noise((400, 400), 90).convert("RGB"))
    expected = open_image(data).tobytes()
    for _ in range(5):
        image, barrier, found = Image.open(io.BytesIO(data)), threading.Barrier(4), []

        def look(image=image, barrier=barrier, found=found):
            barrier.wait()
            found.append(open_image(image).tobytes())

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [expected] * 4


def test_threads_read_one_open_file():
    data = saved(Image.effect_noise((300, 300), 90).convert("RGB"), "BMP")  # without checksums
    file, expected = io.BytesIO(data), open_image(data).tobytes()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: open_image(file).tobytes(), range(40)))
    assert found == [expected] * 40


def test_a_message_is_the_same_in_every_run():
    """Reasons for skipped rows are stored."""
    with pytest.raises(ValueError, match=r"cannot read the image b'no image'…: Pillow knows no such format"):
        open_image(b"no image")


def test_a_picture_too_large_to_be_meant():
    bomb = bytearray(saved(Image.new("1", (8, 8))))
    bomb[16:24] = (30_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    with pytest.raises(ValueError, match=r"cannot read the image b'.*decompression bomb"):
        open_image(bytes(bomb))


def test_a_page_without_pictures_fetches_none():
    with pytest.raises(ValueError, match="not fetched"):
        open_image("http://127.0.0.1:1/a.png")


@pytest.mark.parametrize("scheme", ["file://", "file:", "s3://", "FTP://"])
def test_addresses_that_are_not_opened_are_named(scheme, tmp_path):
    (path := tmp_path / "a.png").write_bytes(saved(half_transparent()))
    with pytest.raises(ValueError, match=f"addresses with '{scheme}' are not opened; give the path"):
        open_image(f"{scheme}{path}")


def test_base64_without_data_is_stored_as_bytes(tmp_path):
    """Training stored the string as the name of a file."""
    text = base64.b64encode(saved(half_transparent().resize((64, 64)))).decode()
    rows = [{"anchor": "Gì?", "anchor_image": text, "positive": f"Câu {number}.", "task": "ocr"} for number in range(2)]
    checked, _ = check_task_rows(Dataset.from_list(rows))
    assert open_image(checked[0]["anchor_image"]).tobytes() == open_image(text).tobytes()
    for address in (f"data:image/png;base64,{text}", f" DATA:;base64, {text}\n"):
        assert is_picture(address) and open_image(address).tobytes() == open_image(text).tobytes()


def test_a_stream_that_cannot_go_back():
    file = io.BytesIO()
    Image.new("RGB", (5, 4), "red").save(file, "PNG")

    class Stream:
        def __init__(self):
            self.read = io.BytesIO(file.getvalue()).read

    class Response(io.BytesIO):
        def seek(self, *place):
            raise io.UnsupportedOperation("not seekable")

    for stream in (Stream(), Response(file.getvalue())):
        assert open_image(stream).getpixel((0, 0)) == (255, 0, 0)
        with pytest.raises(ValueError, match="cannot read the image"):
            open_image(stream)  # it is at its end: an error, and not an empty picture


@pytest.mark.parametrize("before", ["", " ", "\n"])
def test_damaged_base64_is_no_missing_file(before):
    with pytest.raises(ValueError, match="cannot read the image") as caught:
        open_image(f"{before}data:image/png;base64,x")
    assert "No such file" not in str(caught.value)
