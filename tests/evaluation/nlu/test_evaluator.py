from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW

from st_vi.evaluation import NLU_BENCHMARKS, NLUEvaluator
from st_vi.evaluation.nlu import evaluator as nlu
from st_vi.evaluation.nlu.protocols import _Classifier, _Collator
from tests.conftest import SENTENCES

PAIR, SINGLE, CHOICE = (NLU_BENCHMARKS[name] for name in ("ViWikiFC", "UIT-ViCTSD-toxicity", "ViMMRC-2.0"))
BENCHMARKS = {"pair": PAIR, "single": SINGLE, "choice": CHOICE}
WORDS = sorted({word for sentence in SENTENCES for word in sentence.strip(".").split()} - {"mèo", "trời"})


def planted(kind: str, num_rows: int, seed: int = 0) -> Dataset:
    """Rows whose label is one word in a text of random words: in the second text of a pair, in one of the options."""
    rng = np.random.default_rng(seed)

    def text(word: str = "") -> str:
        return " ".join([*rng.choice(WORDS, 3), word]).strip()

    labels = (rng.random(num_rows) < 0.4).astype(int).tolist()
    texts = [text(["trời", "mèo"][label]) for label in labels]
    others = [text() for _ in labels]
    if kind == "single":
        return Dataset.from_dict({"Comment": texts, "Toxicity": labels})
    if kind == "pair":
        names = [["REFUTES", "SUPPORTS"][label] for label in labels]
        return Dataset.from_dict({"claim": others, "evidence": texts, "gold_label": names})
    counts = rng.integers(2, 5, size=num_rows).tolist()
    answers = [int(rng.integers(count)) for count in counts]
    options = [
        [text("mèo" if i == answer else "trời") for i in range(count)]
        for count, answer in zip(counts, answers, strict=True)
    ]
    return Dataset.from_dict({"article": others, "question": texts, "options": options, "answer": answers})


def shuffled(rows: Dataset, column: str) -> Dataset:
    labels = np.random.default_rng(1).permutation(rows[column]).tolist()
    return rows.remove_columns(column).add_column(column, labels)


def accuracy(metrics: dict[str, float]) -> float:
    return next(value for metric, value in metrics.items() if metric.endswith("_accuracy"))


@pytest.fixture
def word_counts() -> SentenceTransformer:
    """A model in whose embeddings the planted words are linearly separable."""
    return SentenceTransformer(modules=[BoW(vocab=[*WORDS, "mèo", "trời"])], device="cpu")


@pytest.mark.parametrize("kind", BENCHMARKS)
def test_probe_solves_a_planted_problem(word_counts: SentenceTransformer, kind: str) -> None:
    evaluator = NLUEvaluator(BENCHMARKS[kind], planted(kind, 200), planted(kind, 100, seed=1))
    assert accuracy(evaluator(word_counts)) > 0.95


@pytest.mark.parametrize(("kind", "column"), [("single", "Toxicity"), ("pair", "gold_label"), ("choice", "answer")])
def test_probe_does_not_solve_shuffled_labels(word_counts: SentenceTransformer, kind: str, column: str) -> None:
    train = planted(kind, 300)
    if kind == "choice":  # with two options everywhere, an answer may move to any row and tells nothing there
        train = train.filter(lambda row: len(row["options"]) == 2)
    metrics = NLUEvaluator(BENCHMARKS[kind], shuffled(train, column), planted(kind, 100, seed=1))(word_counts)
    assert accuracy(metrics) < 0.7


def test_probe_compares_the_texts_of_a_pair(word_counts: SentenceTransformer) -> None:
    def same_or_not(num_rows: int, seed: int) -> Dataset:
        rng = np.random.default_rng(seed)
        claims, others = ([" ".join(rng.choice(WORDS, 3)) for _ in range(num_rows)] for _ in range(2))
        evidence = [claim if rng.random() < 0.5 else other for claim, other in zip(claims, others, strict=True)]
        labels = [["REFUTES", "SUPPORTS"][c == e] for c, e in zip(claims, evidence, strict=True)]
        return Dataset.from_dict({"claim": claims, "evidence": evidence, "gold_label": labels})

    assert accuracy(NLUEvaluator(PAIR, same_or_not(300, 0), same_or_not(100, 1))(word_counts)) > 0.9


def seed_generators() -> None:
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(7)


def draws() -> tuple[float, ...]:
    return torch.rand(1).item(), random.random(), np.random.random()


FAST = {"protocol": "finetune", "batch_size": 16, "learning_rate": 5e-3}


@pytest.mark.parametrize(("kind", "num_rows"), [("pair", 224), ("single", 128), ("choice", 80)])
def test_finetune_learns(tiny_model: SentenceTransformer, kind: str, num_rows: int) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    seed_generators()
    drawn = draws()
    seed_generators()
    evaluator = NLUEvaluator(BENCHMARKS[kind], planted(kind, num_rows), planted(kind, 60, seed=1), epochs=5, **FAST)
    metrics = evaluator(tiny_model)
    assert accuracy(metrics) > 0.85
    assert metrics[f"{evaluator.name}_majority"] < 0.75
    assert draws() == drawn  # the evaluation has left the global generators as they were
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_model.state_dict().items())


def test_finetune_is_seeded(tiny_model: SentenceTransformer) -> None:
    rows = planted("choice", 48), planted("choice", 60, seed=1)
    slow = {**FAST, "learning_rate": 1e-3}
    results = []
    for seed in (0, 0, 1, 2):
        torch.rand(1)  # what the global generator stands at makes no difference
        results.append(NLUEvaluator(CHOICE, *rows, seed=seed, epochs=1, **slow)(tiny_model))
    assert results[0] == results[1]
    assert any(result != results[0] for result in results[2:])


def test_finetune_reads_pairs_jointly_and_unnormalised(tiny_model: SentenceTransformer) -> None:
    rows = [{"text1": SENTENCES[0], "text2": SENTENCES[1], "label": "supported"}]
    batch = _Collator(tiny_model.preprocess, ["refuted", "supported"])(rows)
    expected = tiny_model.tokenizer(SENTENCES[0], SENTENCES[1])["input_ids"]
    assert batch["features"]["input_ids"].tolist() == [expected]
    assert batch["labels"].tolist() == [1]
    classifier = _Classifier(tiny_model, num_labels=2).eval()
    states = tiny_model[0](dict(batch["features"]))["token_embeddings"][:, 0]
    logits = classifier.head(tiny_model[2].layers(states))  # no Normalize in between
    torch.testing.assert_close(classifier(**batch)["logits"], logits)


def test_options_are_masked(tiny_model: SentenceTransformer) -> None:
    rows = [
        {"text1": SENTENCES[0], "options": SENTENCES[1:3], "label": 1},
        {"text1": SENTENCES[3], "options": SENTENCES[4:8], "label": 2},
    ]
    collator, classifier = _Collator(tiny_model.preprocess, None), _Classifier(tiny_model, 1).eval()
    together = classifier(**collator(rows))
    alone = [classifier(**collator([row])) for row in rows]
    assert torch.isneginf(together["logits"][0, 2:]).all()
    torch.testing.assert_close(together["logits"][0, :2], alone[0]["logits"][0])
    torch.testing.assert_close(together["loss"], (alone[0]["loss"] + alone[1]["loss"]) / 2)
    together["loss"].backward()
    assert all(p.grad.isfinite().all() for p in classifier.parameters() if p.grad is not None)


def test_metrics_by_hand(tiny_model: SentenceTransformer, monkeypatch, tmp_path: Path) -> None:
    train = Dataset.from_dict({"Comment": SENTENCES[:3], "Toxicity": [1, 0, 0]})
    test = Dataset.from_dict({"Comment": SENTENCES[:4], "Toxicity": [0, 1, 1, 1]})
    predictions = ["non-toxic", "non-toxic", "toxic", "toxic"]
    monkeypatch.setattr(nlu, "probe", lambda *args, **kwargs: predictions)
    evaluator = NLUEvaluator(SINGLE, train, test)
    metrics = evaluator(tiny_model, str(tmp_path))
    name = "UIT-ViCTSD-toxicity_probe"
    assert metrics == pytest.approx(
        {f"{name}_accuracy": 3 / 4, f"{name}_macro_f1": (2 / 3 + 4 / 5) / 2, f"{name}_majority": 1 / 4}
    )
    assert evaluator.primary_metric == f"{name}_macro_f1"
    assert tiny_model.model_card_data.eval_results_dict[evaluator] == metrics
    with (tmp_path / f"nlu_evaluation_{name}_results.csv").open() as file:
        assert next(csv.reader(file)) == ["epoch", "steps", "accuracy", "macro_f1", "majority"]


def test_primary_metric_of_choice(word_counts: SentenceTransformer) -> None:
    evaluator = NLUEvaluator(CHOICE, planted("choice", 20), planted("choice", 10))
    assert evaluator.primary_metric == "ViMMRC-2.0_probe_accuracy"
    assert evaluator.primary_metric in evaluator(word_counts)


def test_refused() -> None:
    rows = planted("single", 10)
    with pytest.raises(ValueError, match="protocol must be one of"):
        NLUEvaluator(SINGLE, rows, rows, protocol="prompt")
    with pytest.raises(ValueError, match="all training rows have the label 'toxic'"):
        NLUEvaluator(SINGLE, rows.filter(lambda row: row["Toxicity"] == 1), rows)
