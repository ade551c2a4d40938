"""The ways in which a text is typed."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from st_vi.text import strip_diacritics
from st_vi.text.variants import move_tones, slip, vary

TEXT = "Học sinh trường Hòa Bình đọc sách ở thư viện thành phố, còn thầy Thụy thì chưa về."


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("hòa khóa xòe thủy", "hoà khoá xoè thuỷ"),
        ("Hoà Khoá", "Hòa Khóa"),
        ("HÒA", "HOÀ"),
        ("quý hoàng toàn", "quý hoàng toàn"),  # qu is an onset; with a final consonant there is one way
        ("mưa", "mưa"),
    ],
)
def test_the_tone_on_the_other_vowel(text, moved):
    assert move_tones(text) == moved
    assert strip_diacritics(moved) == strip_diacritics(text)


def test_a_slip_changes_one_place():
    random = Random(0)
    kinds = Counter(len(slip("đường", random)) for _ in range(300))
    assert set(kinds) == {4, 5, 6}
    assert all(slip(word, random) == word for word in ("", "ở", "đi"))


@pytest.mark.slow
def test_the_shares_of_the_variants():
    made = [vary(TEXT, Random(seed)) for seed in range(4000)]
    bare, low = strip_diacritics(TEXT), TEXT.lower()
    shares = Counter("bare" if m.lower() == bare.lower() else "low" if m == low else "other" for m in made)
    assert 0.42 < shares["bare"] / 4000 < 0.48 and 0.12 < shares["low"] / 4000 < 0.18
    assert 0.08 < sum(m == move_tones(TEXT) for m in made) / 4000 < 0.12
    partly = [m for m in made if strip_diacritics(m) == bare and m not in (bare, TEXT, move_tones(TEXT))]
    assert 0.15 < len(partly) / 4000 < 0.22
    assert vary(TEXT, Random(7)) == vary(TEXT, Random(7))
