"""Stock evaluators on models of st_vi, in training with one of its losses beside a stock loss, and against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.evaluation import (
    BinaryClassificationEvaluator,
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
    TripletEvaluator,
)
from sentence_transformers.sentence_transformer.losses import CoSENTLoss
from sklearn.metrics import average_precision_score

from st_vi import SupConNLILoss, load
from st_vi.data import nli_to_triplets, sample_nli, sample_sts

STS, TRIPLETS = sample_sts().select(range(24)), nli_to_triplets(sample_nli())["triplets"].select(range(16))
LEFT, RIGHT, SCORES = (STS[name][:] for name in ("sentence1", "sentence2", "score"))
ANCHORS, POSITIVES, NEGATIVES = (TRIPLETS[name][:] for name in ("anchor", "positive", "negative"))
ALIKE = [int(score >= 3) for score in SCORES]


def cosines(model, left, right, left_prompt=None, right_prompt=None):
    left, right = model.encode(left, prompt_name=left_prompt), model.encode(right, prompt_name=right_prompt)
    return (left * right).sum(axis=1)


def nearer_than_the_negative(model):
    """Share of the anchors, which are questions to stock, and the others passages."""
    to_positive, to_negative = (cosines(model, ANCHORS, text, "query", "document") for text in (POSITIVES, NEGATIVES))
    return (to_positive > to_negative).mean()


def reciprocal_rank(model):
    """Of each question's passage among all, the passages in one list without repeats."""
    passages = list(dict.fromkeys(POSITIVES))
    found = model.encode_query(ANCHORS) @ model.encode_document(passages).T
    own = found[np.arange(len(ANCHORS)), [passages.index(text) for text in POSITIVES]]
    ranks = (found > own[:, None]).sum(axis=1) + 1
    return np.where(ranks <= 10, 1 / ranks, 0).mean()


def search():
    numbers = {text: f"d{number}" for number, text in enumerate(dict.fromkeys(POSITIVES))}
    queries = {f"q{number}": text for number, text in enumerate(ANCHORS)}
    relevant = {f"q{number}": {numbers[text]} for number, text in enumerate(POSITIVES)}
    return InformationRetrievalEvaluator(queries, {number: text for text, number in numbers.items()}, relevant)


EVALUATORS = {
    "spearman_cosine": (
        lambda: EmbeddingSimilarityEvaluator(LEFT, RIGHT, SCORES),
        lambda model: spearmanr(cosines(model, LEFT, RIGHT), SCORES).statistic,
    ),
    "cosine_accuracy": (
        lambda: TripletEvaluator(ANCHORS, POSITIVES, NEGATIVES),
        nearer_than_the_negative,
    ),
    "cosine_ap": (
        lambda: BinaryClassificationEvaluator(LEFT, RIGHT, ALIKE),
        lambda model: average_precision_score(ALIKE, cosines(model, LEFT, RIGHT)),
    ),
    "cosine_mrr@10": (search, reciprocal_rank),
}


@pytest.mark.slow
@pytest.mark.parametrize("metric", EVALUATORS)
def test_equals_numpy_on_the_vectors_of_encode(model, saved, metric):
    evaluator, by_hand = EVALUATORS[metric]
    value = evaluator()(load(saved))[metric]
    assert 0 < abs(value) < 1
    assert value == pytest.approx(by_hand(model), abs=1e-5)


@pytest.mark.slow
def test_the_trainer_takes_a_loss_for_each_data_set_and_all_evaluators(model, tmp_path):
    train = DatasetDict({"nli": TRIPLETS, "sts": Dataset.from_dict({"a": LEFT, "b": RIGHT, "score": SCORES})})
    losses = {"nli": SupConNLILoss(model), "sts": CoSENTLoss(model)}
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path),
        max_steps=6,
        per_device_train_batch_size=8,
        learning_rate=3e-3,
        eval_strategy="steps",
        eval_steps=3,
        save_steps=3,
        load_best_model_at_end=True,
        metric_for_best_model="spearman_cosine",
        prompts={"nli": {"anchor": model.prompts["query"]}},
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = SentenceTransformerTrainer(
        model, arguments, train_dataset=train, loss=losses, evaluator=[make() for make, _ in EVALUATORS.values()]
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "eval_spearman_cosine" in entry]
    assert len(logged) == 2 and all(f"eval_{metric}" in entry for entry in logged for metric in EVALUATORS)
    worst, best = sorted(entry["eval_spearman_cosine"] for entry in logged)
    assert worst < best == pytest.approx(EVALUATORS["spearman_cosine"][1](model), abs=1e-5)
