"""The figures against similarities made by hand, against loops, and for models blind to order."""

from __future__ import annotations

import csv
import logging
import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.evaluation import SequentialEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from st_vi.data import change_order
from st_vi.evaluation.order_sensitivity import OrderSensitivityEvaluator
from tests.conftest import SENTENCES, tiny_tokenizer
from tests.helpers.given import GivenVectors, at

ITEMS = (
    ["q"] * 5,
    ["won", "lost", "tied", "alone", "won by little"],
    [["w1", "w2", "w3"], ["l1", "l2"], ["t1"], [], ["b1"]],
)
COSINES = {
    **{"won": 0.9, "w1": 0.5, "w2": 0.7, "w3": -0.2},
    **{"lost": 0.6, "l1": 0.1, "l2": 0.8},  # one of two beats it
    **{"tied": 0.4, "t1": 0.4, "won by little": 0.3, "b1": 0.29},
}


def given(**kwargs) -> GivenVectors:
    return GivenVectors({"q": [1.0, 0.0]} | {text: at(cosine) for text, cosine in COSINES.items()}, **kwargs)


def real_items() -> tuple[list[str], list[str], list[list[str]]]:
    changed = [[new for seed in range(number % 4) if (new := change_order(text, seed=seed))]
               for number, text in enumerate(SENTENCES)]  # fmt: skip
    return SENTENCES[1:] + SENTENCES[:1], SENTENCES, changed


def test_figures_made_by_hand(caplog):
    model = given()
    with caplog.at_level(logging.INFO, logger="st_vi"):
        evaluator = OrderSensitivityEvaluator(*ITEMS, name="dev")
        metrics = evaluator(model)
    margins = [0.2, -0.2, 0.0, 0.01]
    assert metrics == {
        "dev_order_accuracy": 0.5,
        "dev_order_accuracy_se": pytest.approx(math.sqrt(0.5 * 0.5 / 4)),
        "dev_order_margin": pytest.approx(np.mean(margins), abs=1e-6),
        "dev_order_margin_se": pytest.approx(np.std(margins, ddof=1) / 2, abs=1e-6),
    }
    assert (evaluator.num_items, evaluator.num_left_out) == (4, 1)
    assert "4 items, 1 without a perturbation" in caplog.text
    assert sorted(model.asked) == sorted([*COSINES, "q"])  # once each, and nothing of the row left out
    assert model.stored == {evaluator: metrics}


def test_the_similarity_is_the_models_own():
    model = given(similarity="dot")
    model.vectors["l2"] = [0.5, 0.01]  # a cosine near 1, a product below 0.6
    assert OrderSensitivityEvaluator(*ITEMS)(model)["order_accuracy"] == 0.75


def test_figures_against_a_loop(tiny_model):
    anchors, positives, perturbations = real_items()
    margins = []
    for anchor, positive, changed in zip(anchors, positives, perturbations, strict=True):
        a, p, *others = (tiny_model.encode(text).astype(float) for text in (anchor, positive, *changed))
        if others:
            margins.append(a @ p - max(a @ other for other in others))
    assert 0 < np.mean(np.array(margins) > 0) < 1 and len(margins) == 6
    metrics = OrderSensitivityEvaluator(anchors, positives, perturbations)(tiny_model)
    assert metrics["order_accuracy"] == pytest.approx(np.mean(np.array(margins) > 0))
    assert metrics["order_margin"] == pytest.approx(np.mean(margins), abs=1e-5)
    assert metrics["order_margin_se"] == pytest.approx(np.std(margins, ddof=1) / math.sqrt(6), abs=1e-5)


def test_a_bag_of_tokens_wins_nothing():
    """The sums of its float32 vectors differ by rounding only: ties, not half of the items."""
    torch.manual_seed(0)
    static = StaticEmbedding(tiny_tokenizer().backend_tokenizer, embedding_dim=64)
    model = SentenceTransformer(modules=[static], device="cpu")
    texts = [" ".join(SENTENCES[i : i + 3]).lower().replace(".", "").replace(",", "") for i in range(6)]
    changed = [[change_order(text, "shuffle", seed=seed) for seed in range(3)] for text in texts]
    metrics = OrderSensitivityEvaluator(SENTENCES[:6], texts, changed)(model)
    assert metrics["order_accuracy"] == 0 and 0 < abs(metrics["order_margin"]) < 1e-6


def test_one_item_has_no_standard_error_of_its_margin():
    metrics = OrderSensitivityEvaluator(["q"], ["won"], [["w1"]])(given())
    assert metrics["order_accuracy"] == 1 and metrics["order_accuracy_se"] == 0
    assert math.isnan(metrics["order_margin_se"])


def test_in_the_stock_trainer(tiny_model, tmp_path):
    evaluator = OrderSensitivityEvaluator(*real_items(), name="order")  # a name that the metrics begin with
    trainer = SentenceTransformerTrainer(
        tiny_model,
        SentenceTransformerTrainingArguments(
            str(tmp_path),
            max_steps=2,
            eval_strategy="steps",
            eval_steps=1,
            save_steps=1,
            report_to="none",
            use_cpu=True,
            load_best_model_at_end=True,
            metric_for_best_model="eval_order_order_accuracy",
        ),
        Dataset.from_dict({"anchor": SENTENCES[:4], "positive": SENTENCES[4:]}),
        loss=MultipleNegativesRankingLoss(tiny_model),
        evaluator=evaluator,
    )
    trainer.train()
    key = "eval_order_order_accuracy"
    logged = [entry[key] for entry in trainer.state.log_history if key in entry]
    assert len(logged) == 2 and trainer.state.best_metric == max(logged)
    assert evaluator.primary_metric == "order_order_accuracy"
    assert SequentialEvaluator([evaluator])(tiny_model)["sequential_score"] == logged[-1]
    (path,) = tmp_path.rglob(evaluator.csv_file)
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["order_accuracy"]) for row in rows] == pytest.approx(logged)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ((["a"], ["b"], []), "differ in length: 1, 1, 0"),
        ((["a"], ["b"], ["c"]), "Row 0: perturbations must be a list"),
        ((["a"] * 2, ["b"] * 2, [["c"], ["d", "b"]]), "Row 1: a perturbation equals the positive"),
        ((["a"], ["b"], [[]]), "no row has a perturbation"),
    ],
)
def test_what_is_refused(items, message):
    with pytest.raises(ValueError, match=message):
        OrderSensitivityEvaluator(*items)
