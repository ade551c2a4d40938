"""Every argument of every term at the ends of its range: what belongs to it is taken, what does not is refused."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from st_vi import terms
from st_vi.terms import (
    IRPO,
    AttractionRepulsion,
    DebiasedInfoNCE,
    GroupOrdering,
    HardestNegativeMargin,
    InfoNCE,
    ListwiseDistillation,
    MultiViewSingularValue,
    NestedOrdinal,
    PairwiseRank,
    RankListStyle,
    SimilarityDecorrelation,
    SimLAP,
    SoftInfoNCE,
    SoftLabelKL,
    SupReMix,
    Term,
    WeightedNegatives,
)
from tests.helpers.term_checks import NEEDED, TERMS

POSITIVE = [1e-3, 0.5, 3.0], [0.0, -0.5, math.nan]
FINITE_POSITIVE = POSITIVE[0], [*POSITIVE[1], math.inf]
COUNT = [1, 2], [0, -1, 1.5, 2.0, math.inf, math.nan]
FINITE = [-0.5, 0.0, 3.0], [math.nan, math.inf, -math.inf]
RANGES: list[tuple[type, str, list[Any], list[Any]]] = [
    *(
        (term, "temperature", *FINITE_POSITIVE)
        for term in (InfoNCE, HardestNegativeMargin, DebiasedInfoNCE, SoftInfoNCE, IRPO)
    ),
    *((term, "temperature", *FINITE_POSITIVE) for term in (ListwiseDistillation, SoftLabelKL, MultiViewSingularValue)),
    *(
        (term, "temperature", *FINITE_POSITIVE)
        for term in (RankListStyle, SimLAP, SimilarityDecorrelation, SupReMix, WeightedNegatives)
    ),
    (MultiViewSingularValue, "singular_temperature", *POSITIVE),
    *((term, "hard_negative_weight", *FINITE) for term in (InfoNCE, DebiasedInfoNCE, SoftInfoNCE)),
    *((term, "margin", *FINITE) for term in (HardestNegativeMargin, PairwiseRank)),
    (InfoNCE, "min_score", [-math.inf, 0.5, math.inf], [math.nan]),
    (AttractionRepulsion, "positive_scale", [0.0, 0.5], [-1e-3, math.nan, math.inf]),
    (AttractionRepulsion, "negative_scale", [0.0, 0.5], [-1e-3, math.nan, math.inf]),
    (DebiasedInfoNCE, "false_negative_prior", [0.0, 0.5, 0.999], [-1e-3, 1.0, math.nan]),
    (GroupOrdering, "top_k", *COUNT),
    (GroupOrdering, "steepness", *FINITE_POSITIVE),
    (ListwiseDistillation, "min_score", [None, -1.0, 0.0, math.inf], [math.nan]),
    (NestedOrdinal, "levels", [(0.4, 0.8), (1e-3, 1.0)], [(), (0.0, 0.8), (0.4, 0.4), (0.4, 1.001), (0.4, math.nan)]),
    (NestedOrdinal, "shares", [(0.6, 0.2), (0.999, 0.001)], [(0.6,), (1.0, 0.2), (0.6, 0.0), (0.2, 0.2)]),
    (NestedOrdinal, "scale", [1e-3, 1.7], [0.0, -1.0, 1.8, math.nan]),
    (RankListStyle, "skips", [(), (2,), (2, 3)], [(1,), (2, 0), (2.0,)]),
    (SimLAP, "num_classes", *COUNT),
    (SimLAP, "size", *COUNT),
    (SimLAP, "binary_weight", [0.0, 0.5], [-1e-3, math.nan, math.inf]),
    (SoftInfoNCE, "relevance_weight", [0.0, 0.5], [-1e-3, math.nan]),
    (SoftInfoNCE, "uniformity_weight", *POSITIVE),
    (SoftInfoNCE, "weight_temperature", *POSITIVE),
    (SoftInfoNCE, "min_weight", [1e-3, 1.0], [0.0, 1.001, math.nan]),
    (SoftLabelKL, "false_negative_margin", [-math.inf, -0.1, 0.0, 2.0], [math.nan]),
    (SoftLabelKL, "floor", [0.0, 1e-8, 0.999], [-1e-9, 1.0, math.nan]),
    (SupReMix, "mix", [1e-3, 0.999], [0.0, 1.0, math.nan]),
    (WeightedNegatives, "num_clusters", [(1,), (2, 1)], [(), (0,), (2, 0), (2.5,)]),
    (WeightedNegatives, "same_cluster_weight", [0.0, 1.0], [-1e-3, 1.001, math.nan]),
    (WeightedNegatives, "rounds", *COUNT),
]


@pytest.mark.parametrize(("term", "name", "taken", "refused"), RANGES, ids=[f"{t.__name__}-{n}" for t, n, *_ in RANGES])
def test_the_ends_of_the_range(term, name, taken, refused):
    for value in taken:
        assert getattr(term(**NEEDED.get(term, {}) | {name: value}), name) == value
    for value in refused:
        with pytest.raises(ValueError, match=name):
            term(**NEEDED.get(term, {}) | {name: value})


def test_no_temperature_is_left_out():
    has_one = {name for name in terms.__all__ if hasattr(getattr(terms, name), "temperature")}
    assert has_one == {term.__name__ for term, name, *_ in RANGES if name == "temperature"}


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.__name__)
def test_all_terms_share_their_base(term):
    needed = NEEDED.get(term, {})
    assert issubclass(term, terms.Term) and term(**needed, weight=2.0).weight == 2.0
    with pytest.raises(TypeError, match="positional"):
        term(0.5)
    for weight in (math.nan, math.inf):
        with pytest.raises(ValueError, match=f"weight must be finite, got {weight}"):
            term(**needed, weight=weight)


def test_what_terms_need():
    needs = {name: {term.__name__ for term in TERMS if getattr(term, name)} for name in vars(Term) if "needs_" in name}
    scored = {"NestedOrdinal", "PairwiseRank", "RankListStyle", "ScoreMSE", "SupReMix"}
    vectors = {"TeacherCosine", "TeacherSimilarities"}
    assert needs == {
        "needs_score": scored,
        "needs_teacher": {"IRPO", "ListwiseDistillation", "SoftLabelKL"},
        "needs_teacher_vectors": vectors,
        "needs_class": {"SimLAP"},
        "needs_positive": {term.__name__ for term in TERMS} - vectors,
        "needs_all_rows": set(),
    }


def test_a_term_must_say_what_it_computes():
    with pytest.raises(TypeError, match="abstract"):
        Term()


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.__name__)
def test_no_number_is_nan(term):
    numbers = [part.name for part in dataclasses.fields(term) if isinstance(part.default, float)]
    for name in numbers:
        with pytest.raises(ValueError, match=f"{name} must be .*, got nan"):
            term(**NEEDED.get(term, {}), **{name: math.nan})
