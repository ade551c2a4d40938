"""Preference strength against numpy and plain rules, and rows that are exchanged."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from datasets import Dataset

from st_vi.data import nli_to_triplets, sample_nli
from st_vi.data.audit.preferences import flip_rows, preference_strength
from tests.helpers.given import GivenVectors, at


def ensemble(strengths):
    """Rows and models: row i has cosines of (difference, 0) under each model, positive first."""
    rows = range(len(strengths))
    models = []
    for which in range(len(strengths[0])):
        vectors = {"a": (1.0, 0.0), "n": (0.0, 1.0)}
        vectors |= {f"p{i}": at(strengths[i][which]) for i in rows}
        models.append(GivenVectors(vectors))
    columns = {"anchor": ["a"] * len(rows), "positive": [f"p{i}" for i in rows], "negative": ["n"] * len(rows)}
    return Dataset.from_dict(columns), models


CASES = [
    ([0.5, 0.4, 0.6], "margin"),
    ([0.2, 0.2, 0.2], "margin"),
    ([0.1, 0.12, 0.14], "keep"),
    ([0.9, 0.0, 0.0], "soften"),  # μ = 0.3, but one model alone says so
    ([0.04, 0.04, 0.04], "soften"),
    ([-0.05, -0.06, -0.04], "soften"),
    ([-0.3, -0.2, -0.4], "flip"),
    ([-0.9, 0.3, 0.0], "soften"),  # μ = −0.2, and no agreement
]


def test_means_deviations_and_suggestions():
    rows, models = ensemble([strengths for strengths, _ in CASES])
    found = preference_strength(rows, models)
    for i, (strengths, suggestion) in enumerate(CASES):
        assert found.mean[i] == pytest.approx(statistics.fmean(strengths), abs=1e-6)
        assert found.std[i] == pytest.approx(statistics.pstdev(strengths), abs=1e-6)
        assert found.suggestions[i] == suggestion, strengths
    assert found.counts == {"flip": 1, "soften": 4, "keep": 1, "margin": 2}
    assert found.rows("soften") == sorted([3, 4, 5, 7], key=lambda i: np.mean(CASES[i][0]))


def test_one_model_agrees_with_itself_and_thresholds_move():
    rows, models = ensemble([[0.9], [0.02], [-0.9]])
    found = preference_strength(rows, models)
    assert found.suggestions == ("margin", "soften", "flip") and not found.std.any()
    found = preference_strength(rows, models, flip_below=-0.95, soften_below=0.0, margin_above=0.95)
    assert found.suggestions == ("keep", "keep", "soften")


@pytest.mark.slow
def test_stock_models_alone_or_in_a_list(tiny_model):
    rows = nli_to_triplets(sample_nli("test"))["triplets"]
    alone = preference_strength(rows, tiny_model, show_progress_bar=False)
    twice = preference_strength(rows, [tiny_model, tiny_model], show_progress_bar=False)
    vectors = {name: tiny_model.encode(rows[name][:]).astype(float) for name in rows.column_names}
    assert np.allclose(
        alone.mean, (vectors["anchor"] * (vectors["positive"] - vectors["negative"])).sum(axis=1), atol=1e-5
    )
    assert np.array_equal(alone.mean, twice.mean) and alone.suggestions == twice.suggestions
    flipped = flip_rows(rows, range(len(rows)))
    assert np.allclose(preference_strength(flipped, tiny_model, show_progress_bar=False).mean, -alone.mean)


def test_rows_are_exchanged_and_all_else_stays():
    rows = Dataset.from_dict(
        {"score": [1.0, 0.5, 1.0], "anchor": list("abc"), "positive": list("pqr"), "negative_1": list("xyz")}
    )
    flipped = flip_rows(rows, [2, 0])
    assert flipped.column_names == rows.column_names and flipped.features == rows.features
    assert flipped["positive"][:] == list("xqz") and flipped["negative_1"][:] == list("pyr")
    assert flipped["score"][:] == [1.0, 0.5, 1.0] and rows["positive"][:] == list("pqr")
    assert flip_rows(rows, []).to_list() == rows.to_list()
    with pytest.raises(ValueError, match=r"rows \[3\] are not among the 3 rows"):
        flip_rows(rows, [0, 3])


def test_what_cannot_be_asked():
    rows, models = ensemble([[0.5]])
    with pytest.raises(ValueError, match="one model at least"):
        preference_strength(rows, [])
    with pytest.raises(ValueError, match=r"flip_below=0\.1 ≤"):
        preference_strength(rows, models, flip_below=0.1)
    several = rows.rename_column("negative", "negative_1").add_column("negative_2", ["n"])
    with pytest.raises(ValueError, match="several negatives"):
        preference_strength(several, models)
    assert preference_strength(several, models, negative="negative_2").suggestions == ("margin",)
    assert preference_strength(rows.rename_column("negative", "hard"), models, negative="hard").counts["margin"] == 1
    with pytest.raises(ValueError, match="missing column 'wrong'"):
        preference_strength(several, models, negative="wrong")
