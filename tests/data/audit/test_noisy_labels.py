"""Labels and scores that were made wrong on purpose, and a slow version of both rules."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import ClassLabel, Dataset
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import KFold, StratifiedGroupKFold

from st_vi.data.audit.noisy_labels import label_suspects, score_suspects
from tests.helpers.given import GivenVectors, at

MEANS = {"contradiction": 0.1, "neutral": 0.5, "entailment": 0.9}


def nli(wrong=(), noise=0.03):
    """40 premises with one hypothesis of each label, at a cosine that tells it; labels of some rows moved on by one."""
    random, names = np.random.default_rng(0), list(MEANS)
    vectors, rows = {f"p{i}": (1.0, 0.0) for i in range(40)}, []
    for i in range(40):
        for k, name in enumerate(names):
            row = len(rows)
            vectors[f"h{row}"] = at(np.clip(MEANS[name] + random.normal() * noise, -1, 1))
            rows.append((f"p{i}", f"h{row}", names[(k + (row in wrong)) % 3]))
    return Dataset.from_dict(
        dict(zip(("premise", "hypothesis", "label"), zip(*rows, strict=True), strict=True))
    ), vectors


@pytest.mark.parametrize("features", ["cosine", "pair"])
def test_wrong_labels_come_first(features):
    wrong = {4, 30, 77, 101}
    rows, vectors = nli(wrong)
    settings = {} if features == "cosine" else {"classifier": LogisticRegression(C=10.0)}
    found = label_suspects(rows, GivenVectors(vectors), features=features, **settings)
    assert {suspect.row for suspect in found[:4]} == wrong
    names = list(MEANS)
    for suspect in found[:4]:
        assert suspect.label == rows[suspect.row]["label"] and suspect.expected == names[suspect.row % 3]
        assert suspect.probability < suspect.expected_probability
    own = [suspect.probability for suspect in found]
    assert (
        own == sorted(own)
        and len(label_suspects(rows, GivenVectors(vectors), features=features, limit=2, **settings)) == 2
    )


def test_equals_confident_learning_by_hand():
    rows, vectors = nli(wrong={3, 50}, noise=0.25)
    found = label_suspects(
        rows, GivenVectors(vectors), features="cosine", folds=4, seed=1, classifier=LogisticRegression(), limit=None
    )
    classes = sorted(MEANS)
    x = np.array([vectors[text][0] for text in rows["hypothesis"]])[:, None]
    y = np.array([classes.index(label) for label in rows["label"]])
    groups = np.array(rows["premise"][:])
    p = np.zeros((len(y), 3))
    for train, test in StratifiedGroupKFold(4, shuffle=True, random_state=1).split(
        x, y, np.unique(groups, return_inverse=True)[1]
    ):
        assert not set(groups[train]) & set(groups[test])
        p[test] = LogisticRegression().fit(x[train], y[train]).predict_proba(x[test])
    mean = [p[y == k, k].mean() for k in range(3)]
    expected = {}
    for i in range(len(y)):
        reached = [k for k in range(3) if p[i, k] >= mean[k]]
        if reached and (best := max(reached, key=lambda k: p[i, k])) != y[i]:
            expected[i] = (classes[y[i]], classes[best], p[i, y[i]], p[i, best])
    assert len(expected) > 5
    assert {suspect.row for suspect in found} == {*expected}
    for suspect in found:
        label, other, own, others = expected[suspect.row]
        assert (suspect.label, suspect.expected) == (label, other)
        assert (suspect.probability, suspect.expected_probability) == pytest.approx((own, others), abs=1e-5)


def test_numbers_and_class_labels():
    rows, vectors = nli({4})
    named = rows.cast_column("label", ClassLabel(names=list(MEANS)))
    numbers = Dataset.from_dict({**rows.to_dict(), "label": named["label"][:]})
    by_name, by_number = (
        label_suspects(part, GivenVectors(vectors), features="cosine")[0] for part in (named, numbers)
    )
    assert (by_name.row, by_number.row) == (4, 4)
    assert (by_name.label, by_number.label) == (rows[4]["label"], list(MEANS).index(rows[4]["label"]))


@pytest.mark.parametrize("fit", ["isotonic", "linear"])
def test_scores_equal_a_loop_over_folds(fit):
    random = np.random.default_rng(0)
    cosines = random.uniform(-0.9, 0.9, 50)
    scores = (5 * (cosines + 1) / 2 + random.normal(size=50) * 0.2).round(2)
    scores[17] = 5 - scores[17] + (2.5 if abs(scores[17] - 2.5) < 1 else 0)
    vectors = {"a": (1.0, 0.0)} | {f"t{i}": at(cosine) for i, cosine in enumerate(cosines)}
    columns = {"sentence1": ["a"] * 50, "sentence2": [f"t{i}" for i in range(50)], "score": scores.tolist()}
    found = score_suspects(Dataset.from_dict(columns), GivenVectors(vectors), fit=fit, folds=5, seed=3, limit=None)
    expected = np.zeros(50)
    for train, test in KFold(5, shuffle=True, random_state=3).split(cosines):
        model = IsotonicRegression(out_of_bounds="clip") if fit == "isotonic" else LinearRegression()
        expected[test] = model.fit(cosines[train, None], scores[train]).predict(cosines[test, None])
    assert sorted(suspect.row for suspect in found) == list(range(50))
    for suspect in found:
        assert suspect.expected == pytest.approx(expected[suspect.row], abs=1e-4)
        assert suspect.residual == pytest.approx(scores[suspect.row] - expected[suspect.row], abs=1e-4)
        assert suspect.cosine == pytest.approx(cosines[suspect.row], abs=1e-5)
    sizes = [abs(suspect.residual) for suspect in found]
    assert sizes == sorted(sizes, reverse=True) and found[0].row == 17


def test_real_vectors_of_a_stock_model(tiny_model):
    rows, _ = nli()
    found = label_suspects(rows, tiny_model, limit=5, show_progress_bar=False)
    assert len(found) <= 5 and all(0 <= suspect.probability <= 1 for suspect in found)


def test_what_cannot_be_judged():
    rows, vectors = nli()
    model = GivenVectors(vectors)
    with pytest.raises(ValueError, match="features must be one of"):
        label_suspects(rows, model, features="both")
    with pytest.raises(ValueError, match="folds must be a whole number of at least 2"):
        label_suspects(rows, model, folds=1)
    with pytest.raises(ValueError, match="'contradiction' has 3 different premises"):
        label_suspects(rows.select(range(9)), model)
    with pytest.raises(ValueError, match="two labels or more"):
        label_suspects(rows.select([0, 3, 6]), model)
    for nothing in (None, "", " "):
        unlabelled = Dataset.from_dict({**rows.select(range(3)).to_dict(), "label": ["neutral", nothing, "neutral"]})
        with pytest.raises(ValueError, match="column 'label', row 1: expected a label"):
            label_suspects(unlabelled, model)
    pairs = Dataset.from_dict({"sentence1": ["p0"] * 3, "sentence2": ["h0"] * 3, "score": [1.0, float("nan"), 2.0]})
    with pytest.raises(ValueError, match="column 'score', row 1"):
        score_suspects(pairs, model)
    with pytest.raises(ValueError, match="folds must lie between 2"):
        score_suspects(pairs.select([0, 2]), model)
    with pytest.raises(ValueError, match="fit must be one of"):
        score_suspects(pairs, model, fit="cubic")


def test_a_negative_limit(tiny_model):
    rows = Dataset.from_dict({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": [0.1, 0.9]})
    with pytest.raises(ValueError, match="limit must be 0 or more, or None, got -1"):
        score_suspects(rows, tiny_model, folds=2, limit=-1)
