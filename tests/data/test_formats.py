"""The five formats: what each row becomes, and how they stand together."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from st_vi import MixedTaskCollator
from st_vi.data import (
    check_task_rows,
    combine_rows,
    dialogues_to_rows,
    instructions_to_rows,
    ocr_to_rows,
    reading_comprehension_to_triplets,
    scored_pairs_to_rows,
    vqa_to_rows,
)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (8, 6), "red").save(path)
    return str(path)


def pairs(scores):
    return Dataset.from_dict({"sentence1": ["a"] * len(scores), "sentence2": ["b"] * len(scores), "score": scores})


@pytest.mark.parametrize(
    ("score_range", "scores", "expected"), [((0, 5), [0, 2.5, 5], [0, 0.5, 1]), ((-1, 1), [-1, 0.5], [0, 0.75])]
)
def test_scores_of_any_range(score_range, scores, expected):
    rows = scored_pairs_to_rows(pairs([float(s) for s in scores]), score_range)
    assert rows["score"][:] == expected and set(rows["task"]) == {"text_pair"}


@pytest.mark.parametrize("bad", [5.5, -0.1, None, math.nan])
def test_scores_out_of_range(bad):
    with pytest.raises(ValueError, match=r"column 'score', row 1: expected a score between 0 and 5, got"):
        scored_pairs_to_rows(pairs([1.0, bad]), (0, 5))
    for score_range in ((5, 0), 5, "05", (0, 5, 1), (0, None), None):
        with pytest.raises(ValueError, match=r"score_range must be \(lowest, highest\), got"):
            scored_pairs_to_rows(pairs([1.0]), score_range)
    with pytest.raises(ValueError, match=r"between 0 and 5, with a point for the decimals, got '4,5'"):
        scored_pairs_to_rows(pairs(["4.5", "4,5"]), (0, 5))


def test_numbers_of_other_kinds():
    assert scored_pairs_to_rows(pairs([Decimal("1.5")]), (0, 5))["score"][0] == 0.3
    with pytest.raises(ValueError, match="expected a score between 0 and 5, got True"):
        scored_pairs_to_rows(pairs([True]), (0, 5))


NOTHING = [None, math.nan, "", " ", "\u200b"]


@pytest.mark.parametrize("nothing", NOTHING, ids=repr)
def test_what_may_be_missing_is_missing_in_every_form(nothing, picture):
    assert instructions_to_rows([{"instruction": "Chào.", "input": nothing, "output": "Ừ."}])["anchor"][:] == ["Chào."]
    ocr = ocr_to_rows([{"image": picture, "text": "Phở", "question": nothing}])
    assert ocr["anchor"][:] == ["Trong ảnh có chữ gì?"]
    row = {"passage": nothing, "question": "Ai?", "options": ["Nam", "Lan"], "answer": "A"}
    assert reading_comprehension_to_triplets([row])["triplets"]["anchor"][:] == ["Ai?"]


def test_instructions_with_and_without_input():
    rows = Dataset.from_dict({"instruction": ["Dịch.", "Chào."], "input": ["mưa", ""], "output": ["rain", "Xin chào!"]})
    assert instructions_to_rows(rows)["anchor"][:] == ["Dịch. mưa", "Chào."]
    with pytest.raises(ValueError, match="column 'output', row 0"):
        instructions_to_rows(Dataset.from_dict({"instruction": ["Dịch."], "output": [None]}))


def test_ocr_has_a_question_of_its_own_or_ours(picture):
    rows = Dataset.from_dict({"image": [picture] * 2, "text": ["Phở", "Bún"], "question": ["Món gì?", None]})
    made = ocr_to_rows(rows)
    assert made["anchor"][:] == ["Món gì?", "Trong ảnh có chữ gì?"]
    assert made.column_names == ["anchor", "anchor_image", "positive", "task"]
    assert ocr_to_rows(rows.remove_columns("question"))["anchor"][0] == "Trong ảnh có chữ gì?"


def test_no_answer_stands_in_its_own_anchor(picture):
    turns = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(3)]
    rows = dialogues_to_rows(Dataset.from_dict({"image": [picture, "other.png"], "turns": [turns, turns[:1]]}))
    assert rows["anchor"][:] == [
        "Hỏi: q0",
        "Hỏi: q0 Đáp: a0 Hỏi: q1",
        "Hỏi: q0 Đáp: a0 Hỏi: q1 Đáp: a1 Hỏi: q2",
        "Hỏi: q0",
    ]
    assert rows["positive"][:] == ["a0", "a1", "a2", "a0"]
    assert rows["anchor_image"][:] == [picture] * 3 + ["other.png"]
    with pytest.raises(ValueError, match=r"column 'turns', row 0: expected a list of turns"):
        dialogues_to_rows(Dataset.from_dict({"image": ["a"], "turns": [[]]}))


def test_combined_rows_go_through_the_collator(picture):
    questions = Dataset.from_dict(
        {"image": [picture, None], "question": ["Màu gì?", "Mấy giờ?"], "answer": ["Đỏ.", "Ba."]}
    )
    rows = combine_rows(scored_pairs_to_rows(pairs([5.0]), (0, 5)), vqa_to_rows(questions))
    assert rows.column_names == ["anchor", "anchor_image", "positive", "score", "task"]
    checked, report = check_task_rows(rows)
    assert report == {"text_pair": 1, "vqa_single": 2}
    batch = MixedTaskCollator(lambda inputs: {"inputs": inputs})(checked.to_list())
    text, both, alone = batch["anchor_inputs"]
    assert text == "<text_pair> a" and alone == "<vqa_single> Mấy giờ?"
    assert both["text"] == "<vqa_single> Màu gì?" and both["image"].size == (8, 6)
    assert batch["label"][0].tolist() == [0, 1] and batch["label"][1:, 1].isnan().all()


def test_decoded_images_and_several_images_stay_what_they_are(picture):
    plain = {"question": ["Màu gì?"], "answer": ["Đỏ."]}
    decoded = Dataset.from_dict(plain | {"image": [picture]}).cast_column("image", ImageFeature())
    assert combine_rows(vqa_to_rows(decoded))[0]["anchor_image"].size == (8, 6)
    features = Features({"question": Value("string"), "answer": Value("string"), "images": List(Value("string"))})
    several = Dataset.from_dict(plain | {"images": [[picture, picture]]}, features=features)
    assert vqa_to_rows(several)[0]["anchor_image"] == [picture, picture]
    assert check_task_rows(vqa_to_rows(several))[1] == {"vqa_single": 1}
