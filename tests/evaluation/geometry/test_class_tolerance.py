"""Tolerance by class against loops over pairs, and inside the stock trainer."""

from __future__ import annotations

import csv
import logging
from itertools import combinations

import numpy as np
import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from st_vi.evaluation.geometry.class_tolerance import ToleranceByClassEvaluator
from tests.conftest import SENTENCES
from tests.helpers.given import GivenVectors, at

LABELS = ["weather", "weather", "school", 1, "sport", 1, "1", "weather"]


def test_figures_made_by_hand():
    """Cosines 0.6 and 0 of two classes; lengths do not matter; 1 and "1" are one class."""
    model = GivenVectors({"a": [2.0, 0.0], "b": at(0.6), "c": [0.0, 1.0], "d": [5.0, 0.0], "e": [1.0, 0.0]})
    evaluator = ToleranceByClassEvaluator(["a", "b", "c", "d", "a"], ["x", "x", 1, "1", "1"], name="dev")
    assert evaluator(model) == pytest.approx(
        {"dev_tolerance_x": 0.6, "dev_tolerance_1": 1 / 3, "dev_tolerance": (0.6 + 1) / 4}
    )
    assert model.asked == ["a", "b", "c", "d"] and evaluator.primary_metric is None


def test_figures_against_a_loop(tiny_model, caplog):
    with caplog.at_level(logging.WARNING, logger="st_vi"):
        evaluator = ToleranceByClassEvaluator(SENTENCES, LABELS)
    assert "leaves out 2 classes of one text: ['school', 'sport']" in caplog.text
    vectors = [tiny_model.encode(text).astype(float) for text in SENTENCES]
    cosines = {"weather": [], "1": []}
    for (u, a), (v, b) in combinations(zip(vectors, map(str, LABELS), strict=True), 2):
        if a == b:
            cosines[a].append(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
    assert evaluator(tiny_model) == pytest.approx(
        {
            "tolerance_weather": np.mean(cosines["weather"]),
            "tolerance_1": np.mean(cosines["1"]),
            "tolerance": np.mean(cosines["weather"] + cosines["1"]),
        },
        abs=1e-5,
    )


def test_in_the_stock_trainer_and_not_the_judge_of_checkpoints(tiny_model, tmp_path):
    evaluator = ToleranceByClassEvaluator(SENTENCES, LABELS, name="dev")
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
    key = "eval_dev_tolerance"
    logged = [entry[key] for entry in trainer.state.log_history if key in entry]
    assert len(logged) == 2 and logged[0] != logged[1] and trainer.state.best_metric is None
    (path,) = tmp_path.rglob(evaluator.csv_file)
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["tolerance"]) for row in rows] == pytest.approx(logged)
    assert list(rows[0]) == ["epoch", "steps", "tolerance_weather", "tolerance_1", "tolerance"]


def test_what_is_refused():
    with pytest.raises(ValueError, match="differ in length: 8, 3"):
        ToleranceByClassEvaluator(SENTENCES, LABELS[:3])
    with pytest.raises(ValueError, match="all labels differ"):
        ToleranceByClassEvaluator(SENTENCES, range(8))
