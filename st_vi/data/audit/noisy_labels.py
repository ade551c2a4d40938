"""Rows whose label or score disagrees with a model fitted on the other rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from datasets import ClassLabel, Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import pairwise_cos_sim
from sklearn.base import BaseEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import KFold, StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from st_vi.checks import check_choice, check_whole
from st_vi.data.accepted import Rows, as_dataset
from st_vi.data.columns import clean_texts, find_columns
from st_vi.data.values import bad_value, number_of
from st_vi.evaluation.distinct import encode_distinct
from st_vi.inputs.kinds import is_missing
from st_vi.text import comparison_key

Features = Literal["pair", "cosine"]
Fit = Literal["isotonic", "linear"]


@dataclass(frozen=True)
class LabelSuspect:
    """A row whose label a classifier that has not seen it finds improbable.

    Attributes:
        row: Row number, from 0.
        label: The label of the row.
        probability: The classifier's probability of that label.
        expected: The label that the classifier prefers.
        expected_probability: Its probability.
    """

    row: int
    label: Any
    probability: float
    expected: Any
    expected_probability: float


@dataclass(frozen=True)
class ScoreSuspect:
    """A pair whose score is far from the one its cosine suggests.

    Attributes:
        row: Row number, from 0.
        score: The score of the row.
        expected: The score predicted from the cosine by a fit on other rows.
        cosine: The cosine of the two texts.
    """

    row: int
    score: float
    expected: float
    cosine: float

    @property
    def residual(self) -> float:
        """Score minus expected score; above 0, the texts are farther apart than the score says."""
        return self.score - self.expected


def label_suspects(
    dataset: Rows,
    model: SentenceTransformer,
    columns: Mapping[str, str] | None = None,
    features: Features = "pair",
    classifier: BaseEstimator | None = None,
    folds: int = 5,
    limit: int | None = 100,
    seed: int = 0,
    batch_size: int = 32,
    show_progress_bar: bool = True,
) -> list[LabelSuspect]:
    """Pairs of texts whose label disagrees with the model, the least probable label first.

    A classifier on the embeddings is fitted on some folds and asked about the others; rows with the same premise are
    in the same fold. A class is confident for a row if its probability reaches the mean over the rows with that
    label. A row is a suspect if its most probable confident class is not its label. Read the suspects yourself: rare
    cases and poor models look like wrong labels, too.

    Source: confident learning, arXiv 1911.00068, Section 3.1, for the threshold of each class. The features
    [u, v, |u − v|, u∘v], standardised, and a logistic regression with C = 0.001 (1 on the cosine alone) are *inferred*.

    Args:
        dataset: Rows with "premise", "hypothesis" and "label" (names or numbers, of any classes).
        model: An encoder trained on other rows, so that it has not learned these by heart.
        columns: Role to column name, for columns with unusual names.
        features: "pair", made of the embeddings u and v; or "cosine", one number for each pair.
        classifier: A scikit-learn classifier with `predict_proba`, instead of the default.
        folds: 2 or more; every class needs as many different premises.
        limit: The number of suspects to return; None returns all.
        seed: Seed of the folds.
        batch_size: Texts per batch.
        show_progress_bar: Show the progress of encoding.

    Raises:
        ValueError: A missing column, an unknown kind of features, a row without a label, fewer than two classes or
            too few premises of one, or text that is empty or no string; names column, row and value.

    Example:
        >>> from datasets import Dataset
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.data import label_suspects
        >>> model = SentenceTransformer(modules=[BoW(vocab=["mưa", "nắng", "gió", "bão"])], device="cpu")
        >>> premises = ["mưa", "nắng", "gió", "bão"]
        >>> rows = [{"premise": p, "hypothesis": h, "label": "same" if p == h else "other"}
        ...         for p in premises for h in premises]
        >>> rows[5]["label"] = "other"  # nắng, nắng
        >>> [found.row for found in label_suspects(Dataset.from_list(rows), model, features="cosine", folds=2)]
        [5]
    """
    dataset = as_dataset(dataset)
    check_choice("features", features, Features)
    _check_limit(limit)
    check_whole("folds", folds, least=2)
    found = find_columns(dataset.column_names, ("premise", "hypothesis", "label"), columns)
    labels, classes, codes = _classes(dataset, found["label"])
    premises, u, v = _embed(dataset, found["premise"], found["hypothesis"], model, batch_size, show_progress_bar)
    groups = np.unique([comparison_key(text, normalised=True) for text in premises], return_inverse=True)[1]
    for code, name in enumerate(classes):
        if (count := len(set(groups[codes == code]))) < folds:
            raise ValueError(f"label {name!r} has {count} different premises, and {folds} folds need as many")

    x = _cosine(u, v)[:, None] if features == "cosine" else np.hstack([u, v, np.abs(u - v), u * v])
    if classifier is None:
        strength = 1.0 if features == "cosine" else 1e-3
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    p = cross_val_predict(classifier, x, codes, groups=groups, cv=split, method="predict_proba")

    own = p[np.arange(len(p)), codes]
    thresholds = np.array([own[codes == code].mean() for code in range(len(classes))])
    confident = np.where(p >= thresholds, p, -1.0)
    expected = confident.argmax(axis=1)
    suspected = np.flatnonzero((confident.max(axis=1) >= 0) & (expected != codes))
    order = suspected[np.argsort(own[suspected], kind="stable")][:limit]
    return [
        LabelSuspect(int(i), labels[i], float(own[i]), classes[expected[i]], float(p[i, expected[i]])) for i in order
    ]


def score_suspects(
    dataset: Rows,
    model: SentenceTransformer,
    columns: Mapping[str, str] | None = None,
    fit: Fit = "isotonic",
    folds: int = 5,
    limit: int | None = 100,
    seed: int = 0,
    batch_size: int = 32,
    show_progress_bar: bool = True,
) -> list[ScoreSuspect]:
    """Scored pairs whose score is farthest from the one their cosine predicts, the farthest first.

    The score is regressed on the cosine in some folds and predicted for the others, so that no row explains itself.
    Read the suspects yourself: a poor model is surprised by good rows.

    Args:
        dataset: Rows with "sentence1", "sentence2" and a "score" of any range.
        model: An encoder trained on other rows.
        columns: Role to column name, for columns with unusual names.
        fit: "isotonic", any curve that does not fall; or "linear".
        folds: 2 or more, and no more than rows.
        limit: The number of rows to return; None returns all.
        seed: Seed of the folds.
        batch_size: Texts per batch.
        show_progress_bar: Show the progress of encoding.

    Raises:
        ValueError: A missing column, an unknown fit, folds out of range, a score that is no finite number, or text
            that is empty or no string; names column, row and value.

    Example:
        >>> from datasets import Dataset
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.data import score_suspects
        >>> model = SentenceTransformer(modules=[BoW(vocab=["mưa", "nắng", "gió"])], device="cpu")
        >>> rows = {"sentence1": ["mưa"] * 6, "sentence2": ["nắng", "mưa", "gió"] * 2, "score": [0, 5, 4, 0, 5, 0]}
        >>> found = score_suspects(Dataset.from_dict(rows), model, folds=6, limit=1)[0]
        >>> found.row, found.expected, found.residual
        (2, 0.0, 4.0)
    """
    dataset = as_dataset(dataset)
    check_choice("fit", fit, Fit)
    found = find_columns(dataset.column_names, ("sentence1", "sentence2", "score"), columns)
    scores = [number_of(score) for score in dataset[found["score"]]]
    for row, score in enumerate(scores):
        if not isinstance(score, (int, float)) or not np.isfinite(score):
            bad_value(found["score"], row, score, "expected a finite number")
    if not 2 <= folds <= len(scores):
        raise ValueError(f"folds must lie between 2 and the number of rows, {len(scores)}, got {folds}")
    _check_limit(limit)
    _, u, v = _embed(dataset, found["sentence1"], found["sentence2"], model, batch_size, show_progress_bar)
    cosines = _cosine(u, v)
    regression = IsotonicRegression(out_of_bounds="clip") if fit == "isotonic" else LinearRegression()
    split = KFold(folds, shuffle=True, random_state=seed)
    expected = cross_val_predict(regression, cosines[:, None], np.array(scores, float), cv=split)
    order = np.argsort(-np.abs(scores - expected), kind="stable")[:limit]
    return [ScoreSuspect(int(i), scores[i], float(expected[i]), float(cosines[i])) for i in order]


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 0:
        raise ValueError(f"limit must be 0 or more, or None, got {limit}")


def _classes(dataset: Dataset, column: str) -> tuple[list[Any], list[Any], np.ndarray]:
    """The label of each row, by name where there are names; the classes; and the class of each row."""
    labels, feature = list(dataset[column]), dataset.features[column]
    for row, label in enumerate(labels):
        if is_missing(label) or (isinstance(feature, ClassLabel) and label < 0):
            bad_value(column, row, label, "expected a label")
    if isinstance(feature, ClassLabel):
        labels = [feature.names[label] for label in labels]
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise ValueError(f"column {column!r}: expected two labels or more, got {classes}")
    return labels, classes, np.array([classes.index(label) for label in labels])


def _embed(
    dataset: Dataset, first: str, second: str, model: SentenceTransformer, batch_size: int, show_progress_bar: bool
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The first texts, and the vectors of the first and the second."""
    texts = [clean_texts(dataset[name], name) for name in (first, second)]
    return texts[0], *encode_distinct(model, *texts, batch_size=batch_size, show_progress_bar=show_progress_bar)  # type: ignore[return-value]


def _cosine(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return pairwise_cos_sim(u.astype(np.float64), v.astype(np.float64)).numpy()
