"""Rendered text: right letters, readable, inside the image, reproducible; phrases that do not leak."""

from __future__ import annotations

import unicodedata
from itertools import islice, product

import numpy as np
import pytest

pytest.importorskip("font_source_sans_pro")
pytest.importorskip("font_source_serif_pro")

from st_vi.data.generated import render
from st_vi.data.generated.render import FACES, LAYOUTS, ocr_rows, render_text, rendered_words, word_rows
from st_vi.data.generated.shared import side_of

MARKS = ("", "\u0300", "\u0301", "\u0309", "\u0303", "\u0323")
LOWER = [unicodedata.normalize("NFC", vowel + mark) for vowel, mark in product("aăâeêioôơuưy", MARKS)] + ["đ"]
LETTERS = [letter for letter in LOWER + [letter.upper() for letter in LOWER] if not letter.isascii()]

PARAGRAPH = (
    "Mỗi buổi sáng, bà ngoại ra vườn tưới rau. Những giọt nước long lanh trên lá cải, chú mèo mướp nằm sưởi nắng "
    "cạnh giếng. Đến trưa, cả nhà quây quần bên mâm cơm nóng hổi."
)


def ink(image):
    """Pixels that differ from the top left corner, which is paper."""
    pixels = np.asarray(image, dtype=float)
    return np.abs(pixels - pixels[0, 0]).max(axis=-1) > 60


@pytest.mark.parametrize("face", FACES, ids=[name for _, name in FACES])
def test_every_vietnamese_letter_has_a_glyph_of_its_own(face):
    assert len(LETTERS) == 134
    font = render.font_of(face, 48)
    glyphs = {letter: bytes(font.getmask(letter)) for letter in [*LETTERS, *"aăâeêioôơuưyđd", "\U0010ffff"]}
    assert len(set(glyphs.values())) == len(glyphs)
    assert all(render._has_glyph(face, letter) for letter in LETTERS)


def test_decomposed_text_gives_the_same_picture():
    composed = "Ngõ Hữu Nghị, số 7: đợi mẹ về ăn cỗ"
    decomposed = unicodedata.normalize("NFD", composed)
    assert decomposed != composed
    assert render_text(decomposed, 3) == render_text(composed, 3)
    assert ocr_rows([decomposed], 0)["positive"] == [composed]


def test_text_seed_and_settings_determine_the_picture():
    first = render_text("Chợ nổi", 1)
    render_text("Chợ nổi", 2)
    assert render_text("Chợ nổi", 1) == first
    others = [
        render_text("Chợ nổi", 2),
        render_text("Chợ nói", 1),
        render_text("Chợ nổi", 1, noise=0.1),
        render_text("Chợ nổi", 1, size=(112, 140)),
    ]
    assert all(other != first for other in others)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rotated_text_loses_nothing_at_the_border(layout):
    for seed in range(6):
        image = render_text(PARAGRAPH, seed, size=(300, 420), noise=0, max_rotation=25, layout=layout)
        marks = ink(image)
        assert marks.any()
        assert not (marks[0].any() or marks[-1].any() or marks[:, 0].any() or marks[:, -1].any())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_word_is_drawn_once_in_reading_order(layout):
    size, box = 14, (260.0, 400.0)
    lines = render._typeset(render._paragraphs(PARAGRAPH), layout, FACES[0], box, size)
    assert " ".join(text for _, _, text, _ in lines) == PARAGRAPH
    for x, y, text, font in lines:
        assert x >= -1e-6 and x + font.getlength(text) <= box[0] + 1e-6
        assert y >= 0 and y + sum(font.getmetrics()) <= box[1] + 1e-6
    if layout == "columns":
        assert len({x for x, *_ in lines}) == 2
    if layout == "title":
        assert lines[0][3].size > lines[-1][3].size == size


def test_ink_and_paper_contrast():
    def luminance(colour):
        channels = np.asarray(colour) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    dark = 0
    for seed in range(300):
        paper, text = map(luminance, render._colours(render.random.Random(seed)))
        assert (max(paper, text) + 0.05) / (min(paper, text) + 0.05) >= 4.5
        dark += paper < text
    assert 15 < dark < 90


def test_noise_grows_and_none_means_clean():
    clean, little, much = (
        np.asarray(render_text("Mưa", 5, noise=noise, max_rotation=0), float) for noise in (0, 0.03, 0.2)
    )
    corner = (slice(0, 8), slice(0, 8))
    assert clean[corner].std(axis=(0, 1)).max() == 0
    assert 3 < little[corner].std() < much[corner].std()


def test_larger_text_gets_a_smaller_font_and_at_last_an_error():
    paragraphs, box = render._paragraphs(PARAGRAPH), (200.0, 200.0)
    fitted = render._fit(paragraphs, "page", FACES[0], box, 60)
    size = fitted[0][3].size
    assert 12 <= size < 60
    assert render._typeset(paragraphs, "page", FACES[0], box, size + 1) is None
    with pytest.raises(ValueError, match="does not fit into 112 x 112 pixels as 'page', even at font size 12"):
        render_text(PARAGRAPH * 3, 0, layout="page")
    with pytest.raises(ValueError, match="does not fit"):
        render_text("nghiêng" * 10, 0)


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        (" \n\t", {}, "empty"),
        ("Xin chào 漢", {}, r"'漢' \(U\+6F22\)"),
        ("một x\u0323", {}, r"U\+0323"),
        ("hai\ue000ba", {}, r"U\+E000"),
        ("ba", {"size": (20, 112)}, "size"),
        ("ba", {"noise": 0.5}, "noise"),
        ("ba", {"max_rotation": -1}, "max_rotation"),
        ("ba", {"layout": "circle"}, "layout"),
    ],
)
def test_what_cannot_be_drawn(text, settings, message):
    with pytest.raises(ValueError, match=message):
        render_text(text, 0, **settings)


def test_missing_fonts_name_the_extra(monkeypatch):
    with pytest.raises(ImportError, match=r'pip install "st-vi\[vision\]"'):
        render.font_of(("font_that_is_not_there", "Regular"), 32)


def test_rows():
    rows = ocr_rows(["Nhà  hàng\nHoa Sữa", "Đi chậm"], seed=1, size=(140, 112), layout="sign")
    assert rows.column_names == ["anchor", "anchor_image", "positive", "task"]
    assert rows["positive"] == ["Nhà hàng\nHoa Sữa", "Đi chậm"]
    assert rows["task"] == ["ocr", "ocr"]
    assert [image.size for image in rows["anchor_image"]] == [(140, 112)] * 2
    assert np.array_equal(
        rows[0]["anchor_image"],
        ocr_rows(["Nhà  hàng\nHoa Sữa"], seed=1, size=(140, 112), layout="sign")[0]["anchor_image"],
    )
    with pytest.raises(ValueError, match=r"row 1: .*empty"):
        ocr_rows(["một", " "], 0)
    with pytest.raises(ValueError, match="no rows"):
        ocr_rows([], 0)


def test_phrases_of_training_and_test_never_meet():
    train = [phrase for seed in range(3) for phrase in islice(render._phrases("train", seed), 5000)]
    test = [phrase for seed in range(3) for phrase in islice(render._phrases("test", seed), 2000)]
    assert not set(train) & set(test)
    assert len(set(test)) > 2000 and len(set(train)) > 8000
    assert {word for phrase in test for word in phrase.split()} <= {word for text in train for word in text.split()}
    pool = {render._phrase(render.random.Random(seed)) for seed in range(4000)}
    share = sum(side_of(phrase) == "test" for phrase in pool) / len(pool)
    assert 0.17 < share < 0.23
    assert all(unicodedata.is_normalized("NFC", phrase) and phrase == " ".join(phrase.split()) for phrase in pool)


def test_rendered_words_are_reproducible_and_every_phrase_fits():
    once, again = (list(islice(rendered_words("test", 4), 20)) for _ in range(2))
    assert once == again
    assert [row["positive"] for row in islice(rendered_words("test", 5), 20)] != [row["positive"] for row in once]
    assert len({row["anchor"] for row in once}) > 2
    assert word_rows("test", 20, 4)["positive"] == [row["positive"] for row in once]
    shops, spots = max(render._SHOPS, key=len), max(render._SPOTS, key=len)
    for seed in range(10):  # the longest phrases, tilted as far as the default allows
        for phrase in (f"{shops} Phượng Vĩ", f"chiếc thuyền lộng lẫy {spots}", f"chú nhím nhanh nhẹn {spots}"):
            render_text(phrase, seed)
    with pytest.raises(ValueError, match="split"):
        rendered_words("dev", 0)
