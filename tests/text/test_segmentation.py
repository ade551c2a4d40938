"""Words of a text, whatever letters it is written in."""

from __future__ import annotations

import unicodedata

from st_vi.text.segmentation import segment_words


def test_decomposed_letters_and_other_forms_give_the_same_words():
    text = "Sinh viên đại học bách khoa."
    assert segment_words(text) == "Sinh_viên đại_học bách_khoa ."
    for other in (unicodedata.normalize("NFD", text), text.replace("đ", "ð")):
        assert segment_words(other) == segment_words(text)
