"""`RatingEvaluator` against figures by hand."""

from __future__ import annotations

import math
import warnings
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW

from st_vi.evaluation import RatingEvaluator
from st_vi.evaluation.base import spearman
from st_vi.modules import RatingHead

FIRST = ["a", "a b", "a c", "b", "b c", "c"]
SECOND = ["a", "b", "b", "a c", "b c", "a"]
SCORES = [5.0, 3.4, 1.0, 0.0, 4.0, 2.0]


@pytest.fixture
def model():
    head = RatingHead(3, num_levels=6, highest=5)
    head.rating_weight.data.normal_(generator=torch.Generator().manual_seed(0))
    return SentenceTransformer(modules=[BoW(["a", "b", "c"]), head], device="cpu")


def test_figures_by_hand(model, tmp_path):
    evaluator = RatingEvaluator(FIRST, SECOND, SCORES, name="dev")
    figures = evaluator(model, output_path=str(tmp_path))
    p = model[-1].rate(model, FIRST, SECOND).probabilities.double().numpy()
    expected = (p * np.arange(6)).sum(axis=1)
    levels = [5, 3, 1, 0, 4, 2]
    off = [abs(math.floor(e + 0.5) - level) for e, level in zip(expected, levels, strict=True)]
    cosine = torch.cosine_similarity(*(model.encode(side, convert_to_tensor=True) for side in (FIRST, SECOND)))
    assert figures == pytest.approx(
        {
            "dev_spearman": spearmanr(expected, SCORES).statistic,
            "dev_cosine_spearman": spearmanr(cosine, SCORES).statistic,
            "dev_accuracy": sum(o == 0 for o in off) / 6,
            "dev_within_one": sum(o <= 1 for o in off) / 6,
            "dev_log_likelihood": sum(math.log(p[row, level]) for row, level in enumerate(levels)) / 6,
        },
        rel=1e-5,
    )
    assert figures["dev_within_one"] > 0 and figures["dev_accuracy"] < 1
    torch.testing.assert_close(evaluator.expected, torch.from_numpy(expected).float())
    assert evaluator.primary_metric == "dev_spearman"
    assert "spearman,cosine_spearman" in (tmp_path / "rating_evaluation_dev_results.csv").read_text()


@pytest.mark.parametrize("form", [tuple, np.array, lambda values: pd.Series(values, index=range(len(values))[::-1])])
def test_every_form_of_a_column_gives_the_same_figures(model, form):
    expected = RatingEvaluator(FIRST, SECOND, SCORES)(model)
    assert RatingEvaluator(form(FIRST), form(SECOND), form(SCORES))(model) == expected


def test_what_it_refuses(model):
    with pytest.raises(ValueError, match="need one length above 0, got 1, 2, 1"):
        RatingEvaluator(["a"], ["b", "c"], [1.0])
    with pytest.raises(ValueError, match="need one length above 0, got 0, 0, 0"):
        RatingEvaluator([], [], [])
    with pytest.raises(ValueError, match="Row 1 of second: expected an input of the model, got None"):
        RatingEvaluator(["a", "b"], ["b", None], [1.0, 2.0])
    with pytest.raises(ValueError, match="scores must lie between 0 and 5"):
        RatingEvaluator(["a"], ["b"], [6.0])(model)
    with pytest.raises(ValueError, match="needs one RatingHead, and has 0"):
        RatingEvaluator(["a"], ["b"], [1.0])(SentenceTransformer(modules=[BoW(["a"])], device="cpu"))


def test_a_model_that_gives_no_numbers_is_never_right(model):
    """As in the other evaluators; it is the model, and not a score, that is not on the scale."""
    model[1].rating_bias.data[2] = math.nan
    metrics = RatingEvaluator(["a", "b"], ["b", "c"], [1.0, 5.0])(model)
    assert metrics["accuracy"] == metrics["within_one"] == 0
    assert math.isnan(metrics["spearman"]) and math.isnan(metrics["log_likelihood"])


def test_one_score_has_no_order(model):
    assert math.isnan(RatingEvaluator(["a", "b"], ["b", "c"], [1.0, 1.0])(model)["spearman"])


def test_what_is_all_equal_has_no_rank_correlation_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(math.isnan(spearman(*pair)) for pair in permutations([np.ones(3), np.arange(3.0)]))
