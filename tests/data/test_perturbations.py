"""Marks, negations and numbers of own sentences, in both Unicode forms."""

from __future__ import annotations

import unicodedata

import pytest

from st_vi.data import sample_nli
from st_vi.data.perturbations import NUMBERS, strip_diacritics, swap_negation, swap_number

ALPHABET = "aàảãáạăằẳẵắặâầẩẫấậeèẻẽéẹêềểễếệiìỉĩíịoòỏõóọôồổỗốộơờởỡớợuùủũúụưừửữứựyỳỷỹýỵđ"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_every_letter_loses_its_marks(form, case):
    bare = "a" * 18 + "e" * 12 + "i" * 6 + "o" * 18 + "u" * 12 + "y" * 6 + "d"
    assert strip_diacritics(unicodedata.normalize(form, case(ALPHABET))) == case(bare)


def test_what_bears_no_marks_stays():
    assert strip_diacritics("Xe 29B-123.45, 50% – “OK”!") == "Xe 29B-123.45, 50% – “OK”!"


@pytest.mark.parametrize(
    ("text", "turned"),
    [
        ("Tiệm không bán bún riêu.", "Tiệm bán bún riêu."),
        ("Em bé chẳng chịu ăn cháo.", "Em bé chịu ăn cháo."),
        ("Đây không phải là lối ra.", "Đây là lối ra."),
        ("Xe không thể qua cầu.", "Xe có thể qua cầu."),
        ("Xe có thể qua cầu.", "Xe không thể qua cầu."),
        ("Bác sĩ đã khám cho cụ.", "Bác sĩ chưa khám cho cụ."),
        ("Quán vẫn mở cửa.", "Quán vẫn không mở cửa."),
        ("Huế là quê nội của Na.", "Huế không phải là quê nội của Na."),
        ("Cây cầu bị sập.", "Cây cầu không bị sập."),
        ("Không khí ở đây có mùi khói.", "Không khí ở đây không có mùi khói."),
        ("Hãng hàng không này đã đổi tên.", "Hãng hàng không này chưa đổi tên."),
        ("Bị hại kể rằng bị cáo chưa xin lỗi.", "Bị hại kể rằng bị cáo xin lỗi."),
        ("Anh đã ăn cơm chưa?", "Anh chưa ăn cơm chưa?"),
        ("Mưa rơi suốt đêm.", None),
    ],
)
def test_negation(text, turned):
    assert swap_negation(text) == turned
    assert swap_negation(unicodedata.normalize("NFD", text)) == turned


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("Vé giá 120 nghìn.", "Vé giá 1", "0 nghìn."),
        ("Đàn cá có 1.250 con.", "Đàn cá có ", ".250 con."),
        ("Trang tải trong 0,8 giây.", "Trang tải trong 0,", " giây."),
        ("Năm 1998 làng có 3 giếng.", "Năm 199", " làng có 3 giếng."),
        ("Máy in 3D chạy bốn giờ.", "Máy in 3D chạy ", " giờ."),
        ("Lớp có mười hai bạn nữ.", "Lớp có mười ", " bạn nữ."),
        ("Bà nuôi hai mươi con gà.", "Bà nuôi ", " mươi con gà."),
        ("Năm nay cô ở đây được sáu năm.", "Năm nay cô ở đây được ", " năm."),
        ("Chị Hai đi một mình, mất chín ngày.", "Chị Hai đi một mình, mất ", " ngày."),
    ],
)
def test_number(text, before, after):
    changed = swap_number(text)
    assert changed.startswith(before) and changed.endswith(after) and changed != text
    new = changed[len(before) : len(changed) - len(after)]
    assert new in NUMBERS or (new.isdigit() and len(new) == 1 and new != "0")


def test_number_depends_on_text_and_seed_alone():
    text = "Thuyền chở tám khách."
    assert swap_number(text) == swap_number(unicodedata.normalize("NFD", text))
    assert len({swap_number(text, seed) for seed in range(40)}) == 6  # all but eight itself
    for nothing in ("Mùa này năm ngoái trời mát.", "Mỗi năm chị về quê.", "Chị Hai ra chợ.", "Cô đi một mình."):
        assert swap_number(nothing) is None


def test_one_place_of_real_sentences_changes():
    sentences = sample_nli("test")["hypothesis"]
    for change, most in ((swap_number, 1), (swap_negation, 3)):
        changed = [(text, new) for text in sentences if (new := change(text))]
        assert len(changed) > 50
        for text, new in changed:
            old_words, new_words = text.split(), new.split()
            same = 0
            while min(len(old_words), len(new_words)) > same and old_words[same] == new_words[same]:
                same += 1
            rest = len(old_words) - same
            assert new != text and abs(len(new_words) - len(old_words)) <= most - 1
            tails = range(max(0, rest - 3), rest + 1)
            assert any(old_words[len(old_words) - t :] == new_words[len(new_words) - t :] for t in tails)
