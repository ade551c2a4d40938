"""One text in two spellings is one text, wherever texts are compared; one that nobody can read is none."""

from __future__ import annotations

import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW

from st_vi.data import (
    MixedTaskCollator,
    check_task_rows,
    check_triplets,
    leakage_report,
    nli_to_triplets,
    reading_comprehension_to_triplets,
    same_document_negatives,
    split_by_anchor,
)
from st_vi.encoding import encode_corpus
from st_vi.evaluation import NLISimilarityEvaluator, TaskRetrievalEvaluator
from st_vi.inspection.rankings import RetrievalSet

TWINS = ("Chị Hòa là khách quý của Ủy ban Ðông Sơn.", "Chị Hoà là khách quí  của Uỷ ban\u200b Đông Sơn.")
UNREADABLE = ["\u200b\ufeff", "\x00\x07", "\u00ad \u2060", "\u3164"]


def rows(**columns):
    return Dataset.from_dict(columns)


def test_a_twin_in_the_test_set_is_a_leak():
    for texts in (TWINS, TWINS[::-1]):
        report = leakage_report(rows(anchor=[texts[0]]), rows(anchor=[texts[1]]), near=None, show_progress_bar=False)
        assert [leak.kind for leak in report.leaks] == ["row"]


def test_twins_stay_on_one_side():
    for seed in range(20):
        sides = split_by_anchor(rows(anchor=[*TWINS, "Mèo ngủ."]), 0.5, seed=seed)
        assert len({name for name, side in sides.items() for text in side["anchor"] if text in TWINS}) == 1


def test_twins_are_one_anchor_one_row_and_in_conflict():
    data = rows(premise=[*TWINS], hypothesis=["Có khách.", "Vắng khách."], label=["entailment", "contradiction"])
    triplets = nli_to_triplets(data)
    assert triplets.report["anchors"] == 1 and triplets["triplets"]["negative"][:] == ["Vắng khách."]
    assert triplets["triplets"]["anchor"][0] == "Chị Hòa là khách quý của Ủy ban Đông Sơn."
    repeated = rows(premise=["Mưa."] * 2, hypothesis=[*TWINS], label=["entailment"] * 2)
    assert nli_to_triplets(repeated).report["duplicates skipped"] == 1
    with pytest.raises(ValueError, match="row 1: positive and negative are equal"):
        nli_to_triplets(rows(premise=["Mưa."] * 2, hypothesis=[*TWINS], label=["entailment", "contradiction"]))


def test_a_negative_that_is_the_positive_in_another_spelling():
    with pytest.raises(ValueError, match="column 'negative', row 0: the negative equals the positive"):
        check_triplets(rows(anchor=["Mưa."], positive=[TWINS[0]], negative=[TWINS[1]]))
    options = rows(question=["Ai?"], options=[[*TWINS, "Mèo."]], answer=[0])
    with pytest.raises(ValueError, match="a wrong option equals the right one"):
        reading_comprehension_to_triplets(options)
    by_text = rows(question=["Ai?"], options=[["Chó.", TWINS[0]]], answer=[TWINS[1]])
    assert reading_comprehension_to_triplets(by_text)["triplets"]["positive"][0].startswith("Chị Hòa")


def test_a_positive_in_another_spelling_is_no_negative():
    data = rows(anchor=["Hòa?", "Hoà?"], positive=["Chị Hòa.", "Chị Hoà."], document=["a", "a"])
    assert same_document_negatives(data).report["negatives added"] == 0


def test_evaluators_take_twins_for_one():
    evaluator = NLISimilarityEvaluator(TWINS, ["Có khách.", "Vắng khách."], ["entailment", "contradiction"])
    assert evaluator.triplets.tolist() == [[0, 1]]
    model = SentenceTransformer(modules=[BoW(["Hòa", "Hoà", "a"])], device="cpu")
    metrics = TaskRetrievalEvaluator(["a", "a"], ["a Hòa", "a Hoà"], ["instr"] * 2)(model)
    assert metrics["instr_chance"] == 1.0
    search = RetrievalSet(["a"], ["Hòa."], [0]).with_distractors(lambda text: "Hoà.")
    assert search.corpus == ["Hòa."]


@pytest.mark.parametrize("text", UNREADABLE)
def test_what_nobody_can_read_is_an_error_that_names_the_row(text, tmp_path):
    with pytest.raises(ValueError, match=r"column 'anchor', row 1: expected non-empty text"):
        check_triplets(rows(anchor=["Mưa.", text], positive=["a", "b"]))
    with pytest.raises(ValueError, match="column 'positive', row 0: expected text, an image or a video"):
        check_task_rows(rows(anchor=["Mưa."], positive=[text], task=["instr"]))
    collator = MixedTaskCollator(preprocess_fn=lambda inputs: {"texts": inputs})
    with pytest.raises(ValueError, match=r"row 0 of the batch, column 'positive': .*neither text nor image"):
        collator([{"anchor": "Mưa.", "positive": text, "task": "instr"}])
    model = SentenceTransformer(modules=[BoW(["mưa"])], device="cpu")
    with pytest.raises(ValueError, match="column 'text', row 1: nothing to encode"):
        encode_corpus(model, [{"text": "mưa"}, {"text": text}], tmp_path)


def test_texts_are_trained_on_as_they_are_kept():
    collator = MixedTaskCollator(preprocess_fn=lambda inputs: {"texts": inputs}, prefix_side="none")
    batch = collator([{"anchor": "Ðó\u200b là  mưa", "positive": "e\u0302", "task": "instr"}])
    assert (batch["anchor_texts"], batch["positive_texts"]) == (["Đó là  mưa"], ["ê"])
