"""The evaluator against the functions on embeddings encoded one by one, and inside the stock trainer."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from st_vi.data import sample_nli
from st_vi.evaluation.geometry.evaluator import GeometryEvaluator

TEXTS = sample_nli("test")["premise"][::3][:12]
PARTNERS = sample_nli("test")["hypothesis"][::3][:12]


def test_figures_against_embeddings_made_one_by_one(tiny_model):
    tiny_model.prompts = {"hoi": "Cô giáo: "}
    evaluator = GeometryEvaluator(TEXTS, PARTNERS, ["a", "b"] * 6, "dev", batch_size=5, prompt_name="hoi")
    metrics = evaluator(tiny_model)
    x, y = (np.stack([tiny_model.encode(p + t) for t in ts]) for p, ts in (("Cô giáo: ", TEXTS), ("", PARTNERS)))
    x, y = (v.astype(float) / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
    cosines = [(x[i] @ x[j], (i - j) % 2 == 0) for i in range(12) for j in range(i)]
    spectrum = np.linalg.svd(x - x.mean(0), compute_uv=False)
    spectrum = [value / spectrum.sum() for value in spectrum if value > 1e-7]
    assert metrics == pytest.approx(
        {
            "dev_alignment": np.mean([math.dist(a, b) ** 2 for a, b in zip(x, y, strict=True)]),
            "dev_modality_gap": math.dist(x.mean(0), y.mean(0)),
            "dev_uniformity": math.log(np.mean([math.exp(4 * cosine - 4) for cosine, _ in cosines])),
            "dev_mean_cosine": np.mean([cosine for cosine, _ in cosines]),
            "dev_effective_rank": math.exp(-sum(p * math.log(p) for p in spectrum)),
            "dev_tolerance": np.mean([cosine for cosine, same in cosines if same]),
        },
        abs=1e-4,
    )
    assert set(GeometryEvaluator(TEXTS)(tiny_model)) == {"uniformity", "mean_cosine", "effective_rank"}


def test_in_the_stock_trainer_and_not_the_judge_of_checkpoints(tiny_model, tmp_path):
    evaluator = GeometryEvaluator(TEXTS, PARTNERS, name="dev")
    trainer = SentenceTransformerTrainer(
        tiny_model,
        SentenceTransformerTrainingArguments(
            str(tmp_path), max_steps=2, eval_strategy="steps", eval_steps=1, report_to="none", use_cpu=True
        ),
        Dataset.from_dict({"anchor": TEXTS, "positive": PARTNERS}),
        loss=MultipleNegativesRankingLoss(tiny_model),
        evaluator=evaluator,
    )
    trainer.train()
    logged = [entry["eval_dev_uniformity"] for entry in trainer.state.log_history if "eval_dev_uniformity" in entry]
    assert len(logged) == 2 and logged[0] != logged[1]
    assert evaluator.primary_metric is None and trainer.state.best_metric is None
    (path,) = tmp_path.rglob(evaluator.csv_file)
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["uniformity"]) for row in rows] == pytest.approx(logged)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": TEXTS, "y": TEXTS[:3]}, "one length"),
        ({"x": TEXTS[:1]}, "2 or more"),
        ({"x": TEXTS, "labels": list(range(12))}, "all labels differ"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GeometryEvaluator(**arguments)


def test_a_missing_input_is_named(tiny_model):
    for columns, row in (((["a", None], None), "1 of x"), ((["a", "b"], [float("nan"), "b"]), "0 of y")):
        with pytest.raises(ValueError, match=f"Row {row}: expected an input"):
            GeometryEvaluator(*columns)(tiny_model)


def test_a_collapsed_model(tiny_model):
    for parameter in tiny_model[2].parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.ones_(tiny_model[2].layers[0].bias)
    metrics = GeometryEvaluator(TEXTS, PARTNERS)(tiny_model)
    assert metrics["alignment"] == pytest.approx(0, abs=1e-6) and metrics["uniformity"] == pytest.approx(0, abs=1e-6)
    assert metrics["mean_cosine"] == pytest.approx(1)
