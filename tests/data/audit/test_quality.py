"""ECI-style scores against plain loops, known values, and the stock miner's own rule."""

from __future__ import annotations

import math

import pytest
import torch
from datasets import Dataset
from sentence_transformers.util import mine_hard_negatives

from st_vi.data import sample_nli
from st_vi.data.audit.quality import (
    ContrastiveInformation,
    effective_contrastive_information,
    information_from_similarities,
)
from tests.helpers.given import GivenVectors, at


def naive(positive, negative, teacher_positive, teacher_negative, absolute, relative):
    hardness, safe, count = 0.0, 0, 0
    for s, row, t, teacher_row in zip(positive, negative, teacher_positive, teacher_negative, strict=True):
        for n, m in zip(row, teacher_row, strict=True):
            if s > 0:
                hardness += min(max(n / s, 0.0), 1.0)
            else:
                hardness += 1.0 if n >= s else 0.0
            ok = absolute is None or m <= t - absolute
            safe += ok and (relative is None or m <= t - relative * abs(t))
            count += 1
    h, f, k = hardness / count, safe / count, len(negative[0])
    return h, f, math.log(1 + k) * 2 / (1 / h + 1 / f)


@pytest.mark.parametrize("margins", [(None, 0.05), (0.1, None), (0.1, 0.3), (None, 0.0)])
@pytest.mark.parametrize("with_teacher", [False, True])
def test_equals_a_loop(margins, with_teacher):
    generator = torch.Generator().manual_seed(0)
    draw = [torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1 for shape in [60, (60, 3)] * 2]
    positive, negative, *teacher = draw
    scored = teacher if with_teacher else [positive, negative]
    h, f, score = naive(*(values.tolist() for values in (positive, negative, *scored)), *margins)
    found = information_from_similarities(positive, negative, *(teacher if with_teacher else ()), **named(margins))
    assert (found.hardness, found.safety, found.score) == pytest.approx((h, f, score))
    assert found.negatives == 3 and 0 < f < 1


def named(margins):
    return dict(zip(("absolute_margin", "relative_margin"), margins, strict=True))


@pytest.mark.parametrize(
    ("negative", "hardness", "safety", "score"),
    [
        ([[0.0, -0.5]], 0.0, 1.0, 0.0),  # easy: nothing to learn
        ([[0.8, 0.9]], 1.0, 0.0, 0.0),  # as near as the positive, or nearer: all suspected
        ([[0.76, 0.76]], 0.95, 1.0, math.log(3) * 2 * 0.95 / 1.95),  # the hardest that are safe
    ],
)
def test_known_values(negative, hardness, safety, score):
    found = information_from_similarities(torch.tensor([0.8], dtype=torch.float64), torch.tensor(negative) + 0.0)
    assert (found.hardness, found.safety, found.score) == pytest.approx((hardness, safety, score), abs=1e-6)


def test_more_negatives_of_the_same_kind_score_higher():
    positive = torch.full((4,), 0.8)
    scores = [information_from_similarities(positive, torch.full((4, k), 0.4)).score for k in (1, 3, 7)]
    assert scores == pytest.approx([math.log(1 + k) * 2 / 3 for k in (1, 3, 7)])
    assert ContrastiveInformation(0.0, 0.0, 5).score == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"negative": torch.rand(3, 2)}, r"\(B,\) and \(B, K\)"),
        ({"negative": torch.rand(2)}, r"\(B,\) and \(B, K\)"),
        ({"negative": torch.rand(2, 0)}, "K ≥ 1"),
        ({"positive": torch.tensor([0.5, math.nan])}, "NaN"),
        ({"teacher_positive": torch.rand(2)}, "go together"),
        ({"teacher_positive": torch.rand(2), "teacher_negative": torch.rand(2, 2)}, "the teacher scored"),
        ({"relative_margin": None}, "margin of 0 or more"),
        ({"relative_margin": -0.1}, "margin of 0 or more"),
    ],
)
def test_similarities_that_do_not_fit(values, message):
    with pytest.raises(ValueError, match=message):
        information_from_similarities(**{"positive": torch.rand(2), "negative": torch.rand(2, 3)} | values)


def test_a_model_measures_hardness_and_a_teacher_safety():
    rows = Dataset.from_dict(
        {"anchor": ["a"] * 2, "positive": ["p", "q"], "negative_1": ["m", "n"], "negative_2": ["n"] * 2}
    )
    model = GivenVectors({"a": (2.0, 0.0), "p": at(0.8), "q": at(0.5), "m": at(0.4), "n": at(0.2)})
    teacher = GivenVectors({"a": (1.0, 0.0), "p": at(0.8), "q": at(0.5), "m": at(0.79), "n": at(0.1)})
    found = effective_contrastive_information(rows, model)
    assert (found.hardness, found.safety) == pytest.approx(((0.5 + 0.25 + 0.4 + 0.4) / 4, 1.0))
    assert sorted(model.asked) == ["a", "m", "n", "p", "q"]  # each text once
    taught = effective_contrastive_information(rows, model, teacher)
    assert (taught.hardness, taught.safety, taught.negatives) == pytest.approx((found.hardness, 0.75, 2))


@pytest.mark.slow
def test_what_the_stock_miner_keeps_is_safe(tiny_model):
    """The same rule: what it mines with a margin is safe by that margin, and what it mines without is not all."""
    rows = sample_nli("test").filter(lambda label: label == "entailment", input_columns="label").select(range(100))
    rows = rows.select_columns(["premise", "hypothesis"]).rename_columns(
        {"premise": "anchor", "hypothesis": "positive"}
    )
    settings = {"num_negatives": 2, "range_max": 99, "output_format": "n-tuple", "verbose": False}
    for margins in ({"relative_margin": 0.05}, {"absolute_margin": 0.02}):
        mined = mine_hard_negatives(rows, tiny_model, **settings, **margins)
        both = {"absolute_margin": None, "relative_margin": None} | margins
        assert len(mined) > 20
        assert effective_contrastive_information(mined, tiny_model, **both, show_progress_bar=False).safety == 1.0
        nearest = mine_hard_negatives(rows, tiny_model, **settings)
        assert effective_contrastive_information(nearest, tiny_model, **both, show_progress_bar=False).safety < 0.9


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"anchor": ["a"], "negative": ["n"]}, "missing column 'positive'"),
        ({"anchor": ["a"], "positive": ["p"]}, "begins with 'negative'"),
        ({"anchor": [], "positive": [], "negative": []}, "empty"),
        ({"anchor": ["a", "b"], "positive": ["p", "q"], "negative": ["n", " "]}, "column 'negative', row 1"),
    ],
)
def test_rows_that_cannot_be_scored(columns, message):
    with pytest.raises(ValueError, match=message):
        effective_contrastive_information(Dataset.from_dict(columns), GivenVectors({}))
