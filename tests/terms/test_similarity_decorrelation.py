"""`SimilarityDecorrelation` against a loop, its minimum, and in the stock trainer."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from st_vi import DLELoss, Task, train_vipolyqwen
from st_vi.terms import InfoNCE, PairBatch, SimilarityDecorrelation
from tests.conftest import SENTENCES
from tests.helpers.term_checks import assert_own_rows, assert_same, make_batch, unit


@pytest.mark.parametrize("more", [1, 2])
@pytest.mark.parametrize("negatives", [0, 2])
def test_equals_the_naive_loop(more, negatives):
    pairs, inputs = make_batch(more, negatives)
    expected = []
    for i in range(6):
        views = [pairs.positives[i], *(column[i] for column in pairs.more_positives)]
        similarities = [unit(pairs.anchors[i]) @ unit(view) / 0.3 for view in views]
        mean = sum(similarities) / len(similarities)
        expected.append(sum((similarity - mean) ** 2 for similarity in similarities) / more)
    assert_same(SimilarityDecorrelation(temperature=0.3)(pairs), expected, inputs)


def test_own_rows_and_precision():
    assert_own_rows(SimilarityDecorrelation())
    pairs, _ = make_batch(more=2)
    low = [part.detach().bfloat16() for part in (pairs.anchors, pairs.positives, pairs.more_positives)]
    batches = [PairBatch(a, p, more_positives=m) for a, p, m in (low, [part.float() for part in low])]
    torch.testing.assert_close(*(SimilarityDecorrelation()(batch) for batch in batches))


def test_views_that_are_equally_near_are_the_minimum_whatever_the_height():
    anchors = torch.eye(2)
    for views in (anchors, anchors.flip(0), -anchors):
        loss = SimilarityDecorrelation()(PairBatch(anchors, views, more_positives=views[None]))
        assert not loss.any()


def test_one_positive_is_refused():
    with pytest.raises(ValueError, match="needs two positives a row or more: columns positive, positive_2"):
        SimilarityDecorrelation()(PairBatch(torch.eye(2), torch.eye(2)))


@pytest.mark.slow
def test_in_the_stock_trainer_the_similarities_of_both_views_come_together(tiny_model, tmp_path):
    rows = Dataset.from_dict(
        {
            "anchor": SENTENCES,
            "positive": [sentence.lower() for sentence in SENTENCES],
            "positive_2": [" ".join(sentence.split()[:2]) for sentence in SENTENCES],
            "task": ["views"] * 8,
        }
    )
    task = Task("views", "", (InfoNCE(temperature=0.07, weight=0.1), SimilarityDecorrelation(weight=0.1)))
    loss = DLELoss(tiny_model, [task], num_positives=2)
    trainer = train_vipolyqwen(
        tiny_model, rows, tmp_path, loss=loss, max_steps=20, per_device_train_batch_size=8,
        gradient_accumulation_steps=1, learning_rate=1e-3, use_cpu=True, bf16=False, logging_steps=2,
        save_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    found = [
        entry["dle/views_similarity_decorrelation"]
        for entry in trainer.state.log_history
        if "dle/views_similarity_decorrelation" in entry
    ]
    assert found[-1] < 0.3 * found[0]
