"""Generated rows and the evaluator made of rows."""

import math

import pytest
from datasets import Dataset, concatenate_datasets

from st_vi.data import check_task_rows
from st_vi.data.generated.rows import generated_rows, nli_text_pairs
from st_vi.recipes import vipolyqwen_evaluator


def test_every_kind_can_be_trained_on_and_no_picture_s_text_is_on_both_sides():
    train, test = (generated_rows(split, 12, seed=0) for split in ("train", "test"))
    assert {rows["task"][0] for rows in train.values()} == {"ocr", "vqa_single", "vqa_multi", "instr", "text_pair"}
    for name, rows in train.items():
        assert sum(check_task_rows(rows)[1].values()) == 12
        if name in ("words", "image_to_text"):
            assert not set(rows["positive"]) & set(test[name]["positive"])


def test_only_the_kinds_asked_for():
    assert list(generated_rows("train", 1, 0, kinds=["words"])) == ["words"]
    with pytest.raises(ValueError, match="unknown kinds"):
        generated_rows("train", 1, 0, kinds=["speech"])


def test_labels_become_scores():
    rows = Dataset.from_dict(
        {"premise": ["a"] * 3, "hypothesis": ["b"] * 3, "label": ["contradiction", "entailment", "neutral"]}
    )
    assert nli_text_pairs(rows)["score"][:] == [0.0, 1.0, 0.5]


def test_evaluator_of_a_dict_and_of_one_data_set():
    rows = generated_rows("test", 4, seed=0, kinds=["questions", "text_pairs"])
    by_name = vipolyqwen_evaluator(rows)
    assert by_name.prompt_names == {"questions": "vqa_single", "text_pairs": "text_pair"}
    assert all(
        row["positive"] not in options for row, options in zip(rows["questions"], by_name.options[:4], strict=True)
    )
    assert math.isnan(by_name.scores[0]) and not math.isnan(by_name.scores[4])

    plain = [part.select_columns(["anchor", "positive", "task"]) for part in rows.values()]
    by_task = vipolyqwen_evaluator(concatenate_datasets(plain))
    assert by_task.prompt_names == {"vqa_single": "vqa_single", "text_pair": "text_pair"}


def test_one_corpus_has_one_prompt():
    rows = generated_rows("test", 2, seed=0, kinds=["questions", "dialogues"])
    mixed = concatenate_datasets([part.select_columns(["anchor", "positive", "task"]) for part in rows.values()])
    with pytest.raises(ValueError, match="a single task"):
        vipolyqwen_evaluator(type(rows)({"both": mixed}))
