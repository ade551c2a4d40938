"""Images of every mode become RGB, on white where they are transparent."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from st_vi.viz.pictures import is_transparent, readable


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "RGBA", "LA"])
def test_opaque_pictures_stay_as_they_are(mode):
    picture = Image.new("RGB", (2, 1), (255, 255, 255)).convert(mode)
    assert not is_transparent(picture)
    assert readable("x", picture).mode == "RGB"
    assert readable("x", picture).getpixel((1, 0)) == (255, 255, 255)


def test_transparency_is_white():
    half = Image.new("RGBA", (2, 1), (200, 0, 0, 255))
    half.putpixel((0, 0), (0, 0, 0, 0))
    assert is_transparent(half)
    assert [readable("x", half).getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (200, 0, 0)]
    half.putpixel((1, 0), (0, 0, 0, 128))
    assert readable("x", half).getpixel((1, 0)) == (127, 127, 127)


def test_palette_with_a_transparent_colour():
    file = io.BytesIO()
    Image.new("P", (1, 1), 0).save(file, "PNG", transparency=0)
    assert readable("x", Image.open(file)).getpixel((0, 0)) == (255, 255, 255)


def test_a_file_cut_short():
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "PNG")
    with pytest.raises(ValueError, match=r"hoa\.png cannot be read as an image"):
        readable("hoa.png", Image.open(io.BytesIO(file.getvalue()[:1000])))
