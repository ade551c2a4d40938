from __future__ import annotations

import csv
import logging
import math
import unicodedata

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import SequentialEvaluator
from sentence_transformers.sentence_transformer.modules import BoW

from st_vi.evaluation import NLISimilarityEvaluator
from tests.conftest import SENTENCES


def nli_rows(num_rows: int = 60) -> tuple[list[str], list[str], list[str]]:
    """Three premises, one of them in three spellings that are the same after NFC and collapsing whitespace."""
    rng = np.random.default_rng(0)
    spellings = [
        SENTENCES[0],
        unicodedata.normalize("NFD", SENTENCES[0]),
        "  " + SENTENCES[0].replace(" ", "  "),
    ]
    premises = [[*spellings, SENTENCES[1], SENTENCES[2]][i] for i in rng.integers(5, size=num_rows)]
    words = sorted({word for sentence in SENTENCES for word in sentence.strip(".").split()})
    # No two alike: rounding would decide between equal cosines.
    hypotheses = list({" ".join(rng.choice(words, 5)): None for _ in range(num_rows)})
    labels = [["entailment", "neutral", "contradiction"][i] for i in rng.integers(3, size=num_rows)]
    return premises, hypotheses, labels


def naive_ranks(values: list[float]) -> list[float]:
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def test_figures_against_loops(tiny_model: SentenceTransformer) -> None:
    premises, hypotheses, labels = nli_rows()
    u, v = (tiny_model.encode(texts, batch_size=1).astype(float) for texts in (premises, hypotheses))
    cosines = [a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in zip(u, v, strict=True)]
    keys = [unicodedata.normalize("NFC", " ".join(premise.split())) for premise in premises]
    wins = [
        cosines[e] > cosines[c]
        for e in range(len(keys))
        for c in range(len(keys))
        if keys[e] == keys[c] and (labels[e], labels[c]) == ("entailment", "contradiction")
    ]
    degrees = [{"contradiction": 0, "neutral": 1, "entailment": 2}[label] for label in labels]
    spearman = np.corrcoef(naive_ranks(cosines), naive_ranks(degrees))[0, 1]

    metrics = NLISimilarityEvaluator(premises, hypotheses, labels, name="dev")(tiny_model)

    assert len(set(keys)) == 3 < len(set(premises))
    assert 0 < np.mean(wins) < 1
    assert metrics == {
        "dev_triplet_accuracy": pytest.approx(np.mean(wins)),
        "dev_nli_spearman": pytest.approx(spearman, abs=1e-3),
    }


def test_every_distinct_text_is_encoded_once(tiny_model: SentenceTransformer, monkeypatch) -> None:
    premises, hypotheses, labels = nli_rows()
    encode, seen = tiny_model.encode, []
    monkeypatch.setattr(tiny_model, "encode", lambda texts, **kwargs: seen.extend(texts) or encode(texts, **kwargs))
    NLISimilarityEvaluator(premises, hypotheses, labels)(tiny_model)
    assert sorted(seen) == sorted({*premises, *hypotheses})


def test_perfect_and_inverted() -> None:
    model = SentenceTransformer(modules=[BoW(vocab=["a", "b", "c"])], device="cpu")
    rows = ["a b"] * 3, ["a b", "a", "c"]
    perfect = NLISimilarityEvaluator(*rows, ["entailment", "neutral", "contradiction"])(model)
    inverted = NLISimilarityEvaluator(*rows, ["contradiction", "neutral", "entailment"])(model)
    assert perfect == pytest.approx({"triplet_accuracy": 1, "nli_spearman": 1})
    assert inverted == pytest.approx({"triplet_accuracy": 0, "nli_spearman": -1})


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_collapsed_model_scores_nothing() -> None:
    model = SentenceTransformer(modules=[BoW(vocab=["khác"])], device="cpu")  # knows no word of the rows
    metrics = NLISimilarityEvaluator(*nli_rows())(model)
    assert metrics["triplet_accuracy"] == 0
    assert math.isnan(metrics["nli_spearman"])


def test_without_triplets_spearman_is_primary(tiny_model: SentenceTransformer) -> None:
    # The name "nli" is a prefix of the metric "nli_spearman": the key must carry it all the same.
    evaluator = NLISimilarityEvaluator(SENTENCES[:2], SENTENCES[2:4], ["entailment", "contradiction"], name="nli")
    metrics = evaluator(tiny_model)
    assert list(metrics) == [evaluator.primary_metric] == ["nli_nli_spearman"]
    assert SequentialEvaluator([evaluator])(tiny_model)["sequential_score"] == metrics["nli_nli_spearman"]


def test_metrics_of_other_rows_are_columns_of_their_own(tiny_model: SentenceTransformer, tmp_path) -> None:
    """The metrics depend on the rows: no value may come under the name of another."""
    few = NLISimilarityEvaluator(SENTENCES[:2], SENTENCES[2:4], ["entailment", "contradiction"], name="dev")
    every = NLISimilarityEvaluator(*nli_rows(), name="dev")
    path = tmp_path / every.csv_file
    found = [evaluator(tiny_model, str(tmp_path)) for evaluator in (few, every)]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # opened and saved in Excel
    found.append(few(tiny_model, str(tmp_path)))
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["epoch", "steps", "nli_spearman", "triplet_accuracy"]
    assert {line["epoch"] for line in lines} == {"-1"}
    for line, metrics in zip(lines, found, strict=True):
        assert {f"dev_{name}": float(value) for name, value in line.items() if value and name[0] in "nt"} == metrics


def test_stored_like_a_stock_evaluator(tiny_model: SentenceTransformer, tmp_path, caplog) -> None:
    evaluator = NLISimilarityEvaluator(*nli_rows(), name="dev")
    with caplog.at_level(logging.INFO, logger="st_vi"):
        first = evaluator(tiny_model, str(tmp_path / "eval"), epoch=1, steps=10)
    second = tiny_model.evaluate(evaluator, str(tmp_path / "eval"))
    with next((tmp_path / "eval").glob("*dev*.csv")).open() as file:
        table = list(csv.reader(file))
    assert table[0] == ["epoch", "steps", "triplet_accuracy", "nli_spearman"]
    assert [[float(cell) for cell in row] for row in table[1:]] == [
        [1, 10, *first.values()],
        [-1, -1, *second.values()],
    ]
    assert tiny_model.model_card_data.eval_results_dict[evaluator] == second
    assert len(caplog.records) == 1 and "after 10 steps" in caplog.text


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["entailment", "neutral"], "differ in length: 3, 3, 2"),
        (["entailment", "neutral", "contradictory"], "Row 2 has the label 'contradictory'"),
        (["neutral"] * 3, "Nothing to compare"),
    ],
)
def test_rows_that_make_no_sense(labels: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NLISimilarityEvaluator(SENTENCES[:3], SENTENCES[3:6], labels)


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_a_model_with_one_vector_for_all_or_none_is_said(tiny_model, caplog, value):
    evaluator = NLISimilarityEvaluator(["Mưa.", "Nắng."], ["Có mưa.", "Có nắng."], ["entailment", "contradiction"])
    evaluator(tiny_model)
    assert not caplog.records
    tiny_model[2].layers[0].weight.data.fill_(value)
    evaluator(tiny_model)
    assert "the model gives 4 different inputs the same vector, or NaN" in caplog.text
