"""Sentences as a reader of Vietnamese would mark them."""

from __future__ import annotations

import time

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


@pytest.mark.slow
@pytest.mark.parametrize("part", ["hoàn vé. ", "TP. ", ".", "a.\n", "a,\n", "“a. "])
def test_time_grows_with_the_text_and_not_with_its_square(part):
    """Texts in small letters are one sentence, and an archive of them has millions of characters."""

    def seconds(times):
        begun = time.process_time()
        spans = sentence_spans(part * times)
        assert spans[0][0] == 0
        return time.process_time() - begun

    seconds(100)
    assert seconds(16_000) < 30 * max(seconds(2000), 0.002)
