"""Sentences as a reader of Vietnamese would mark them."""

from __future__ import annotations

import pytest

from st_vi.text.sentences import sentence_spans

# "|" is where a reader ends a sentence.
MARKED = [
    "Ông Nguyễn V. A. sống ở TP. HCM từ năm 1990. |Nay ông 70 tuổi.",
    "PGS. TS. Lê Văn B. nói: “Tốt lắm!” |Rồi ThS. Trần C. đi về.",
    "Giá 1.200.000 đồng, tăng 3.5 %. |Rẻ quá!",
    "Điều 5. Phạm vi điều chỉnh |\n|1. Luật này quy định về\nquyền của thanh niên. |\n|2. Đối tượng áp dụng",
    "Hồ sơ gồm: |\n|a) đơn;|\n|b) giấy khai sinh;|\n|- ảnh 3x4.",
    "Mua gạo, muối, v.v. và đường. |Sao vậy? |Không biết… |Thôi được.",
    "Ở số 12/3, Q. 1, P. 5. |Đi thôi!!! |“Chờ đã.” |Hết.",
    "Dòng thứ nhất|\n\n|dòng sau một dòng trống",
    "Thủ tướng Chính phủ, Bộ trưởng,\nChủ tịch Ủy ban.",
    "Ghé thăm https://vi.wikipedia.org/wiki/Hà_Nội nhé. |Cảm ơn.",
    "không có dấu chấm nào",
    "Được chứ?không",
    "他来了。|很好！|走。",
]


@pytest.mark.parametrize("marked", MARKED)
def test_sentences_end_where_a_reader_ends_them(marked):
    text = marked.replace("|", "")
    found = [text[start:end] for start, end in sentence_spans(text)]
    assert found == [part.strip() for part in marked.split("|") if part.strip()]


@pytest.mark.parametrize("text", ["", "  \n\t ", "\n"])
def test_blank_texts_have_none(text):
    assert sentence_spans(text) == []
