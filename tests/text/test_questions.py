"""Questions from sentences."""

from __future__ import annotations

from random import Random

import pytest

from st_vi.text.questions import clauses, question, sentences


@pytest.mark.parametrize(
    ("sentence", "asked"),
    [
        ("Cây cầu dài 308 mét bắc qua sông.", "Cây cầu dài bao nhiêu mét bắc qua sông?"),
        ("Cả xã có 12 % số hộ trồng chè.", "Cả xã có bao nhiêu % số hộ trồng chè?"),
        ("Trường được xây vào năm 1932 trên đồi.", "Trường được xây vào năm nào trên đồi?"),
        ("Hội mở ngày 15 tháng 8 hằng năm ở đình.", "Hội mở ngày nào hằng năm ở đình?"),
        ("Chị Mai mở quán phở tại Hải Phòng.", "Chị Mai mở quán phở ở đâu?"),
        ("Bức tranh được vẽ bởi Lê Thị Hoa.", "Bức tranh được vẽ bởi ai?"),
        ("Con đường này có tên là Hoa Sữa.", "Con đường này có tên là gì?"),
        ("Trận đấu phải hoãn vì trời mưa to.", "Trận đấu phải hoãn vì sao?"),
        ("Mặt trời là một ngôi sao rất lớn.", "Mặt trời là gì?"),
        ("Điều 5 của bộ luật quy định việc này.", None),  # no count
        ("Trời hôm nay xanh và cao vời vợi.", None),
    ],
)
def test_the_question_word_stands_where_the_answer_did(sentence, asked):
    assert question(sentence, Random(0)) == asked


def test_the_title_stands_for_a_pronoun_and_clauses_for_the_sentence():
    sentence = "Ông sinh năm 1954 tại làng, lớn lên bên sông, rồi đi dạy học ở trường huyện nhiều năm"
    made = {question(sentence, Random(seed), "lê văn tám") for seed in range(40)}
    assert "Lê văn tám sinh năm nào tại làng?" in made
    assert any(m.endswith("nhiều năm?") for m in made)
    assert question("Ông mất năm 1990.", Random(0)) == "Ông mất năm nào?"


def test_sentences_and_clauses():
    text = "Giá là 3.5 triệu đồng. Ai mua? “Tôi!” Đường xa.\n2. Mục mới; Mục nữa"
    assert sentences(text) == ["Giá là 3.5 triệu đồng.", "Ai mua?", "“Tôi!” Đường xa.", "2.", "Mục mới;", "Mục nữa"]
    assert clauses("Trời mưa, đường trơn và tối (như mực)") == ["Trời mưa", "đường trơn", "tối", "như mực", ""]
