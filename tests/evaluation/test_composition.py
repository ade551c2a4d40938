"""Accuracy by kind against similarities made by hand, against a loop, and for a bag of words."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import BoW

from st_vi.data.generated.composition import KINDS, composition_probes
from st_vi.evaluation.composition import CompositionEvaluator
from tests.conftest import SENTENCES
from tests.helpers.given import GivenVectors, at

PROBES = (
    ["q"] * 5,
    ["p1", "p2", "p3", "p4", "p5"],
    ["n1", "n2", "n3", "n4", "n5"],
    ["roles", "time", "roles", "time", "time"],
)
COSINES = {"p1": 0.9, "n1": 0.8, "p2": 0.1, "n2": 0.3, "p3": 0.5, "n3": 0.5, "p4": -0.1, "n4": -0.2, "p5": 0.7, "n5": 0}


def columns(per_kind: int = 6) -> list[list[str]]:
    probes = composition_probes(per_kind)
    return [probes[name][:] for name in ("anchor", "positive", "negative", "kind")]


def test_figures_made_by_hand():
    model = GivenVectors({"q": [1.0, 0.0]} | {text: at(cosine) for text, cosine in COSINES.items()})
    metrics = CompositionEvaluator(*PROBES, name="dev")(model)
    assert metrics == {
        "dev_roles_accuracy": 0.5,  # a tie loses
        "dev_time_accuracy": pytest.approx(2 / 3),
        "dev_composition_accuracy": 0.6,
    }
    assert sorted(model.asked) == sorted([*COSINES, "q"])
    assert CompositionEvaluator(*PROBES[:3])(model) == {"composition_accuracy": 0.6}


def test_the_similarity_is_the_models_own():
    vectors = {"q": [1.0, 0.0]} | {text: at(cosine) for text, cosine in COSINES.items()}
    vectors["p2"] = [5.0, 50.0]
    assert CompositionEvaluator(*PROBES)(GivenVectors(vectors, "dot"))["composition_accuracy"] == 0.8
    assert CompositionEvaluator(*PROBES)(GivenVectors(vectors))["composition_accuracy"] == 0.6


def test_figures_against_a_loop(tiny_model):
    anchors, positives, negatives, kinds = columns()
    won = {kind: [] for kind in KINDS}
    for *texts, kind in zip(anchors, positives, negatives, kinds, strict=True):
        a, p, n = (tiny_model.encode(text).astype(float) for text in texts)
        won[kind].append(a @ p > a @ n)
    metrics = CompositionEvaluator(anchors, positives, negatives, kinds)(tiny_model)
    assert {f"{kind}_accuracy": pytest.approx(np.mean(won[kind])) for kind in KINDS}.items() <= metrics.items()
    every = [value for values in won.values() for value in values]
    assert metrics["composition_accuracy"] == pytest.approx(np.mean(every)) and 0 < np.mean(every) < 1


def test_a_bag_of_words_wins_nothing():
    anchors, positives, negatives, kinds = columns()
    vocabulary = sorted({word.strip(".,").lower() for text in anchors + positives for word in text.split()})
    model = SentenceTransformer(modules=[BoW(vocab=vocabulary)], device="cpu")
    metrics = CompositionEvaluator(anchors, positives, negatives, kinds)(model)
    assert set(metrics.values()) == {0.0} and len(metrics) == 8


def test_in_the_stock_trainer(tiny_model, tmp_path):
    evaluator = CompositionEvaluator(*columns(2), name="composition")  # a name that the metric begins with
    trainer = SentenceTransformerTrainer(
        tiny_model,
        SentenceTransformerTrainingArguments(
            str(tmp_path), max_steps=2, eval_strategy="steps", eval_steps=1, report_to="none", use_cpu=True
        ),
        Dataset.from_dict({"anchor": SENTENCES[:4], "positive": SENTENCES[4:]}),
        loss=MultipleNegativesRankingLoss(tiny_model),
        evaluator=evaluator,
    )
    trainer.train()
    key = "eval_" + evaluator.primary_metric
    logged = [entry[key] for entry in trainer.state.log_history if key in entry]
    assert key == "eval_composition_composition_accuracy" and len(logged) == 2
    (path,) = tmp_path.rglob(evaluator.csv_file)
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["composition_accuracy"]) for row in rows] == pytest.approx(logged)
    assert set(rows[0]) == {"epoch", "steps", "composition_accuracy", *(f"{kind}_accuracy" for kind in KINDS)}


@pytest.mark.parametrize(
    ("probes", "message"),
    [
        ((["a"], ["b"], ["c"], []), "differ in length: 1, 1, 1, 0"),
        (([], [], []), "no probes"),
        ((["a"], ["b"], ["c"], [""]), "Row 0 has the kind ''"),
        ((["a"], ["b"], ["c"], ["composition"]), "Row 0 has the kind 'composition'"),
        ((["a"] * 2, ["b"] * 2, ["c", "b"]), "Row 1: the negative equals the positive, 'b'"),
    ],
)
def test_what_is_refused(probes, message):
    with pytest.raises(ValueError, match=message):
        CompositionEvaluator(*probes)
