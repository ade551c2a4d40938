"""Negations of own sentences, turned as a reader would turn them; and what must not be turned."""

from __future__ import annotations

import re
import unicodedata

import pytest

from st_vi.data import sample_nli, sample_sts, swap_negation

NEGATION = re.compile(r"\b(?:không|chưa|chẳng|chả|đừng)\b", re.IGNORECASE)

TAKEN_OUT = """
Tiệm không bán bún riêu. | Tiệm bán bún riêu.
Em bé chẳng chịu ăn cháo. | Em bé chịu ăn cháo.
Đây không phải là lối ra. | Đây là lối ra.
Đây không phải xe của tôi. | Đây là xe của tôi.
Anh ấy không phải bác sĩ. | Anh ấy là bác sĩ.
Hôm nay tôi không phải đi học. | Hôm nay tôi phải đi học.
Xe không thể qua cầu. | Xe có thể qua cầu.
Không có tiền lẻ, bà lão đành đi bộ. | Có tiền lẻ, bà lão đành đi bộ.
Không được đậu xe trước cổng. | Được đậu xe trước cổng.
Không thể qua sông bằng thuyền nhỏ. | Có thể qua sông bằng thuyền nhỏ.
Không phải ai cũng biết bơi. | Ai cũng biết bơi.
Không phải tôi làm vỡ bình hoa. | Tôi làm vỡ bình hoa.
Chưa đến giờ mở cửa. | Đến giờ mở cửa.
Chưa từng ra biển, lũ trẻ háo hức lắm. | Từng ra biển, lũ trẻ háo hức lắm.
Chẳng phải nó là anh của Lan. | Nó là anh của Lan.
Chả hiểu vì sao máy bơm hỏng. | Hiểu vì sao máy bơm hỏng.
Đừng mở cửa sổ. | Hãy mở cửa sổ.
Đừng nên thức khuya. | Nên thức khuya.
Đừng bao giờ nói dối. | Hãy luôn luôn nói dối.
Cô Hoa chưa chồng. | Cô Hoa có chồng.
Bình chưa đầy nước. | Bình đầy nước.
Cô ấy không khéo tay. | Cô ấy khéo tay.
Bà không may áo dài. | Bà may áo dài.
Mình không đi nhé. | Mình đi nhé.
Xin đừng giẫm lên cỏ. | Xin hãy giẫm lên cỏ.
KHÔNG HÚT THUỐC | HÚT THUỐC
“Không được vào!” | “Được vào!”
Không, cháu không đói. | Có, cháu đói.
Chưa, tàu chưa vào ga. | Rồi, tàu vào ga.
Tàu vẫn chưa vào ga. | Tàu đã vào ga.
Mẹ không bao giờ mắng em. | Mẹ luôn luôn mắng em.
Tôi chưa bao giờ ăn sầu riêng. | Tôi từng ăn sầu riêng.
Bố không hút thuốc nữa. | Bố vẫn hút thuốc.
Ông không còn ở phố cũ nữa. | Ông vẫn còn ở phố cũ.
Nó không thích học chút nào. | Nó thích học.
Tôi không tin đâu. | Tôi tin.
Tôi đâu có biết. | Tôi có biết.
Đó đâu phải lỗi của cô giáo. | Đó là lỗi của cô giáo.
Tôi không biết ai đã đến. | Tôi biết ai đã đến.
Cửa hàng không bán nến. | Cửa hàng bán nến.
Bị hại kể rằng bị cáo chưa xin lỗi. | Bị hại kể rằng bị cáo xin lỗi.
Vì sao anh không đi? | Vì sao anh đi?
Ai chưa nộp bài? | Ai nộp bài?
Trời mưa không? Tôi không để ý. | Trời mưa không? Tôi để ý.
“Không, tôi không đi.” | “Có, tôi đi.”
- Chưa, em chưa ăn. | - Rồi, em ăn.
1. Không được chạy trong lớp. | 1. Được chạy trong lớp.
b) Không có mái che. | b) Có mái che.
Thông báo: Không có điện hôm nay. | Thông báo: Có điện hôm nay.
Biển ghi: “Không được đỗ xe.” | Biển ghi: “Được đỗ xe.”
Tôi không biết anh ấy ở đâu. | Tôi biết anh ấy ở đâu.
TÔI KHÔNG PHẢI ĐI LÀM. | TÔI PHẢI ĐI LÀM.
TÔI KHÔNG PHẢI NGƯỜI HÀ NỘI. | TÔI LÀ NGƯỜI HÀ NỘI.
"""
PUT_IN = """
Phí chuyển khoản là không đồng. | Phí chuyển khoản không phải là không đồng.
Xe có thể qua cầu. | Xe không thể qua cầu.
Bác sĩ đã khám cho cụ. | Bác sĩ chưa khám cho cụ.
Quán vẫn mở cửa. | Quán vẫn không mở cửa.
Huế là quê nội của Na. | Huế không phải là quê nội của Na.
Cây cầu bị sập. | Cây cầu không bị sập.
Không khí ở đây có mùi khói. | Không khí ở đây không có mùi khói.
Hãng hàng không này đã đổi tên. | Hãng hàng không này chưa đổi tên.
Bún chả là món của Hà Nội. | Bún chả không phải là món của Hà Nội.
Có lẽ trời sẽ mưa. | Có lẽ trời sẽ không mưa.
Nhất là buổi sáng, chợ có rất đông người. | Nhất là buổi sáng, chợ không có rất đông người.
Trạm đo ở bên phải đã hỏng. | Trạm đo ở bên phải chưa hỏng.
Ai đã nộp bài? | Ai chưa nộp bài?
Tàu đã vào ga rồi, mọi người lên tàu. | Tàu chưa vào ga, mọi người lên tàu.
Chưa đầy một năm, anh đã học xong. | Chưa đầy một năm, anh chưa học xong.
Không may anh ấy đã ngã. | Không may anh ấy chưa ngã.
Không chừng mẹ đang ngủ. | Không chừng mẹ không ngủ.
Điện thoại không dây đã hỏng. | Điện thoại không dây chưa hỏng.
Máy bay không người lái bị rơi. | Máy bay không người lái không bị rơi.
Nem và chả đã chín. | Nem và chả chưa chín.
Mẹ đã làm chả. | Mẹ chưa làm chả.
Ngôi nhà bỏ không đã sập. | Ngôi nhà bỏ không chưa sập.
Phim “Không Thể Tha Thứ” đã chiếu. | Phim “Không Thể Tha Thứ” chưa chiếu.
"""
LEFT_ALONE = """
Nhiệt độ xuống dưới không độ.
Vé tăng giá từ không giờ ngày mai.
Lãi suất tăng không phẩy hai phần trăm.
Chưa hết, giá xăng còn tăng.
Không hiểu sao máy lại tắt.
Thế nào là lãi kép?
Doanh thu không tăng mà giảm.
Mưa rơi suốt đêm.
Anh đã ăn cơm chưa?
Anh đã ăn cơm chưa ạ?
Bạn có thích phở không?
Bạn có đi chợ không vậy?
Trời sắp mưa, phải không?
“Chị có khỏe không?”
Anh là bác sĩ à?
Có phải chị là cô giáo của Na?
Em đi học hay không?
Đây là gì?
Sao em không nói gì?
Không đi à?
Tôi hỏi anh đã ăn chưa.
Tôi muốn biết chị có đi không.
Không ai biết tên người vẽ bức tranh này.
Không căn nhà nào bị hư hại.
Chẳng chiếc ly nào bị vỡ.
Chưa ai được nghỉ.
Nó không ăn gì.
Tôi có biết đâu.
Tôi thích trà chứ không thích cà phê.
Không những đẹp mà vải còn bền.
Chưa bao giờ chị đến Huế.
Không, anh ấy đang ngủ.
Không.
Anh đã ăn chưa, vào ăn đi.
Em có yêu anh không, nói đi.
Đây không phải con mèo, mà là con chó.
Bộ phim Không Được Khóc rất hay.
Tôi ko muốn đi.
Tui khong muốn đi.
Tôi có ăn đâu mà.
Không thì thôi.
Anh xem xe có hỏng không nhé.
Trời không mưa nhỉ.
Bạn không đi à
Anh không đến, đúng không
Nặng năm cân, không hơn không kém.
Mẹ làm chả.
Đừng!
mình hông có biết
Anh ấy cũng vậy.
Sáng nay tôi quên không khóa cửa.
Cấm không được vào.
Bố cấm nó không được ra sông.
Ông ta từ chối không trả lời.
Mọi người tránh không nhắc chuyện cũ.
Bà ăn không ngồi rồi.
Họ biếu không nông dân giống lúa.
"""


def pairs(table: str) -> list[tuple[str, ...]]:
    return [tuple(line.split(" | ")) for line in table.strip().splitlines()]


@pytest.mark.parametrize(("text", "turned"), pairs(TAKEN_OUT) + pairs(PUT_IN))
def test_turned(text, turned):
    assert swap_negation(text) == turned
    assert swap_negation(unicodedata.normalize("NFD", text)) == turned


@pytest.mark.parametrize("text", LEFT_ALONE.strip().splitlines())
def test_left_alone(text):
    assert swap_negation(text) is None


@pytest.mark.slow
@pytest.mark.parametrize("begin", ["Không", "Chưa", "Chẳng", "Chả", "Đừng"])
def test_no_sentence_of_the_samples_is_negated_twice(begin):
    """Each shipped sentence that has none, behind a negation that begins it; but where that makes another word."""
    nli, sts = sample_nli(), sample_sts()
    texts = {*nli["premise"], *nli["hypothesis"], *sts["sentence1"], *sts["sentence2"]}
    words = r"\W|sao|quân|khí|qua|giò|cá|quế|ram|nem|rươi|trứng|gian|lẽ|lụa|mực|trung|dưng|vận|hạn"
    texts = {text for text in texts if not NEGATION.search(text) and not re.match(words, text, re.IGNORECASE)}
    turned = [swap_negation(f"{begin} {text[0].lower()}{text[1:]}") for text in texts]
    assert sum(new is not None for new in turned) > len(texts) / 2
    assert not [new for new in turned if new and NEGATION.search(new)]


def test_a_negation_of_the_samples_goes():
    nli = sample_nli()
    has = re.compile(r"\b(?:không|chưa|chẳng) (?:có|được)")
    texts = {text for text in (*nli["premise"], *nli["hypothesis"]) if has.search(text)}
    turned = [(text, swap_negation(text)) for text in texts]
    assert sum(new is not None for _, new in turned) > len(texts) / 2
    assert all(len(NEGATION.findall(new)) < len(NEGATION.findall(text)) for text, new in turned if new)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["không", "chưa", "phải không", "đúng không", "hay không", "hả", "không ạ", "chưa vậy"])
def test_no_question_of_yes_or_no_is_turned(end):
    texts = [text.rstrip(".") for text in sample_nli("test")["hypothesis"] if not NEGATION.search(text)]
    assert [swap_negation(f"{text} {end}?") for text in texts] == [None] * len(texts)
