"""Questions with options: the right one is the positive, the wrong ones are negatives."""

from __future__ import annotations

import pytest
from datasets import Dataset

from st_vi.data import reading_comprehension_to_triplets


def comprehension(**columns):
    rows = {"article": ["Bài."], "question": ["Hỏi?"], "options": [["a", "b", "c"]], "answer": ["C"]}
    return reading_comprehension_to_triplets(Dataset.from_dict(rows | columns))


@pytest.mark.parametrize("answer", ["C", "c", 2, 2.0, "2", "2.0"])
def test_answers_by_letter_text_or_index(answer):
    expected = {"anchor": "Hỏi? Bài.", "positive": "c", "negative_1": "a", "negative_2": "b"}
    assert comprehension(answer=[answer])["2_negatives"].to_list() == [expected]


def test_numbers_of_options_may_differ():
    made = comprehension(
        article=["Bài."] * 2, question=["Hỏi?", "Gì?"], options=[["a", "b"], ["a", "b", "c", "d"]], answer=["A", "D"]
    )
    assert {name: len(part) for name, part in made.items()} == {"triplets": 1, "3_negatives": 1}


def test_race_layout_and_no_passage():
    made = comprehension(
        question=[["Hỏi?", "Gì?"]], options=[[["a", "b"], ["x", "y"]]], answer=[["A", "B"]]
    )  # fmt: skip
    assert made["triplets"]["positive"][:] == ["a", "y"]
    rows = Dataset.from_dict({"question": ["Hỏi?"], "answers": [["a", "b"]], "correct": [1]})
    made = reading_comprehension_to_triplets(rows, {"options": "answers", "answer": "correct"})
    assert made["triplets"].to_list() == [{"anchor": "Hỏi?", "positive": "b", "negative": "a"}]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"answer": ["D"]}, r"column 'answer', row 0: expected one of 3 options.*got 'D'"),
        ({"answer": [3]}, r"column 'answer', row 0"),
        ({"options": [["a"]]}, r"column 'options', row 0: expected a list of two"),
        ({"options": [["a", "", "c"]]}, r"column 'options', row 0: expected non-empty text"),
        ({"options": [["c", "b", "c"]]}, r"column 'options', row 0: a wrong option equals the right one"),
        ({"question": [None]}, r"'question', row 0"),
    ],
)
def test_bad_questions(columns, message):
    with pytest.raises(ValueError, match=message):
        comprehension(**columns)
