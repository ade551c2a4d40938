"""Kept texts, compared texts, and texts without accents, against tables written by hand."""

from __future__ import annotations

import subprocess
import sys
import unicodedata

import pytest

from st_vi.data import sample_nli
from st_vi.text import comparison_key, is_blank, mend, normalise, strip_diacritics

ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u202a\u061c"


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("Ðại ðường", "Đại đường"),
        ("Ɖà Nẵng", "Đà Nẵng"),
        ("12/QÐ-UBND, HÐND, vnð, 50.000ð", "12/QĐ-UBND, HĐND, vnđ, 50.000đ"),
        ("bộ_ðội, côngðoàn, (ðẹp)", "bộ_đội, côngđoàn, (đẹp)"),
        ("Guðrún, Sigurður và Óðinn", "Guðrún, Sigurður và Óðinn"),
        ("Müller, Đồ café, straße, œuvre", "Müller, Đồ café, straße, œuvre"),
        ("a\u0301\u0302y, Vie\u0323\u0302t, Vie\u0302\u0323t, o\u0301\u031bt", "ấy, Việt, Việt, ớt"),
        ("\ufeffTrời\u00a0mưa\u3000to\u2028", "Trời mưa to"),
        (ZERO_WIDTH.join("mưa rơi"), "mưa rơi"),
        ("x\x00ấu\x07", "xấu"),
        ("👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥 ở Huế", "👨\u200d👩\u200d👧 ❤\ufe0f\u200d🔥 ở Huế"),
        (
            "🏴\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f",
            "🏴\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f",
        ),
        ("Huế\U000e0067\U000e007f", "Huế"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("25 m², ½, Ｈà", "25 m², ½, Ｈà"),
    ],
)
def test_kept(typed, kept):
    assert normalise(typed) == normalise(kept) == kept
    assert normalise(unicodedata.normalize("NFD", typed)) == kept


def test_spaces_stay_where_texts_are_only_mended():
    assert mend("Ðường  phố\n\u200b ở\tHuế ") == "Đường  phố\n ở\tHuế "


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \u00a0\n",
        *ZERO_WIDTH,
        ZERO_WIDTH,
        "\x00\x07",
        "\u2800 \u3164",
        "\ufe0f",
        "\u200d\u2800",
        "\u200d\u115f\u00ad",
    ],
)
def test_nothing_to_read(text):
    assert is_blank(text) and normalise(text) == ""


@pytest.mark.parametrize("text", ["a", "…", "\u200bđ", "👍", " " * 100 + "ở", "中"])
def test_something_to_read(text):
    assert not is_blank(text)


TWINS = """Hòa Hoà|HÒA HOÀ|Ủy Uỷ|quý quí|qúy quý|thúy thuý|khỏe khoẻ|xòe xoè|hóan hoán|tóan toán|gìa già|qùa quà
lọai loại|khuỷu khủyu|ngoẻo ngỏeo|tíêng tiếng|thuở thủơ|qủyên quyển|nghiã nghĩa|mía miá|sĩ sỹ|kỹ kĩ|Mỹ Mĩ|lý lí|quỳ quì
quýt quít|Ðảng Đảng|Guðrún Guđrún|Ｈà Hà|𝐇à Hà|tỷ tỉ|❤ ❤\ufe0f"""


@pytest.mark.parametrize("twins", [pair.split() for line in TWINS.splitlines() for pair in line.split("|")])
def test_twins(twins):
    for change in (str, str.upper, lambda word: f"Ở {word}, có 3."):
        first, second = map(change, twins)
        assert first != second and comparison_key(first) == comparison_key(second)
    assert comparison_key(twins[0].upper(), casefold=True) == comparison_key(twins[1], casefold=True)


DIFFERENT = """tai tay|Vi Vy|hoa hòa|hòa hóa|y i|thui thuy|túi tuý|cao cau|mùa mua|của cua|lui luy|nghỉ nghĩ|bí bỉ
hoài hoái|Trời trời|má mạ|quan quán|khoan khoán|10³ 103|día dĩa"""


@pytest.mark.parametrize("words", [pair.split() for line in DIFFERENT.splitlines() for pair in line.split("|")])
def test_different_words_stay_different(words):
    assert comparison_key(words[0]) != comparison_key(words[1])


def test_words_of_other_languages_are_compared_as_they_are():
    for word in ("café", "résumé", "Nguyễn", "Straße", "naïve", "Zoë", "tôi-là-ai", "x²", "año", "Ελλάδα", "й"):
        assert comparison_key(word) == word


@pytest.mark.slow
def test_the_place_of_the_tone_says_nothing_else():
    """Every sample, spelled the old way by a table, has the key of the new way; and keys of different texts differ."""
    table = {}
    for vowels in ("oa", "oe", "uy"):
        for tone in "\u0300\u0301\u0303\u0309\u0323":
            old, new = vowels[0] + tone + vowels[1], vowels + tone
            table[unicodedata.normalize("NFC", old)] = unicodedata.normalize("NFC", new)
    texts = [*dict.fromkeys([*sample_nli()["premise"], *sample_nli()["hypothesis"]])]
    changed = 0
    for text in texts:
        other = text
        for old, new in table.items():
            other = other.replace(old, new)
        changed += other != text
        assert comparison_key(other) == comparison_key(text)
    assert changed > 50 and len(set(map(comparison_key, texts))) == len(texts)


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("Ðại ðường", "Dai duong"),
        ("Đường ra Hà Nội", "Duong ra Ha Noi"),
        ("café Müller, ß ø æ", "cafe Muller, ß ø æ"),
        ("Guðrún", "Gudrun"),
        ("й, が, ό, กำ, नि", "й, が, ό, กำ, नि"),
    ],
)
def test_without_accents(text, bare):
    assert strip_diacritics(text) == strip_diacritics(unicodedata.normalize("NFD", text)) == bare


def test_a_word_of_many_letters_is_read_once():
    """As damaged files have; a square of its length would take a minute."""
    for word in ("a" * 50_000, "ð" + "a" * 50_000):
        assert len(comparison_key(word)) == len(word)


def test_it_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import st_vi.text; print(st_vi.text.normalise('Ðó  là'))"
    run = subprocess.run([sys.executable, "-X", "utf8", "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert run.stdout == "Đó là\n"
