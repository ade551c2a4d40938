"""Rows whose positive is hardly nearer than their negative, or farther, according to an ensemble of models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from st_vi.data.accepted import Rows, as_dataset
from st_vi.data.audit.quality import cosines, triplet_columns
from st_vi.data.triplets import Report

Suggestion = Literal["flip", "soften", "keep", "margin"]


@dataclass(frozen=True, eq=False)
class PreferenceStrength:
    """How clearly an ensemble prefers each row's positive to its negative; made by `preference_strength`.

    Attributes:
        mean: (N,), over the models, of cos(anchor, positive) − cos(anchor, negative), in [−2, 2].
        std: (N,), standard deviation over the models (divided by their number).
        suggestions: N of "flip", "soften", "keep" and "margin".
    """

    mean: np.ndarray
    std: np.ndarray
    suggestions: tuple[Suggestion, ...]

    @property
    def counts(self) -> Report:
        """The number of rows with each suggestion; prints as a table."""
        counts = Counter(self.suggestions)
        return Report({name: counts[name] for name in get_args(Suggestion)})

    def rows(self, suggestion: Suggestion) -> list[int]:
        """Rows with this suggestion, the lowest mean first."""
        found = [row for row, name in enumerate(self.suggestions) if name == suggestion]
        return sorted(found, key=lambda row: self.mean[row])


def preference_strength(
    dataset: Rows,
    models: SentenceTransformer | Sequence[SentenceTransformer],
    flip_below: float = -0.1,
    soften_below: float = 0.05,
    margin_above: float = 0.2,
    negative: str | None = None,
    batch_size: int = 32,
    show_progress_bar: bool = True,
) -> PreferenceStrength:
    """Ask an ensemble how clearly a row's positive is nearer than its negative, and suggest what to do with the row.

    With μ and σ the mean and standard deviation over the models of cos(anchor, positive) − cos(anchor, negative):

    - "soften" (smooth the label, lower the weight): μ < soften_below, or the models disagree, σ > |μ|;
    - "flip" (positive and negative look exchanged), before that: μ ≤ flip_below and σ ≤ |μ|;
    - "margin" (a margin may be asked): μ ≥ margin_above and σ ≤ |μ|;
    - "keep": the rest.

    The models should differ, by seed or order of rows at least, and be trained on other rows than these; models that
    have learned a wrong row by heart find nothing wrong with it. One model has σ = 0. Read the rows yourself before
    you change them.

    Source: Secrets of RLHF II, arXiv 2401.06080, Section 2, for the mean and standard deviation of a reward's
    difference, and for flipping, smoothing and margins. There, shares of the rows in the order of μ are treated so;
    here the thresholds, in cosine, and the use of σ are *inferred*.

    Args:
        dataset: Columns anchor, positive, and a negative.
        models: The ensemble.
        flip_below: ≤ soften_below.
        soften_below: ≤ margin_above.
        margin_above: ≥ soften_below.
        negative: The column; None takes the only one whose name begins with "negative".
        batch_size: Texts per batch.
        show_progress_bar: Show the progress of encoding.

    Raises:
        ValueError: A missing column, several negatives and none named, no rows, no model, thresholds out of order,
            or text that is empty or no string; names column, row and value.

    Example:
        >>> from datasets import Dataset
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.data import preference_strength
        >>> model = SentenceTransformer(modules=[BoW(vocab=["trời", "mưa", "nắng"])], device="cpu")
        >>> rows = {"anchor": ["trời mưa"] * 2, "positive": ["mưa", "nắng"], "negative": ["nắng", "trời mưa"]}
        >>> found = preference_strength(Dataset.from_dict(rows), [model])
        >>> found.suggestions, found.counts["flip"]
        (('margin', 'flip'), 1)
    """
    dataset = as_dataset(dataset)
    if not flip_below <= soften_below <= margin_above:
        raise ValueError(f"expected {flip_below=} ≤ {soften_below=} ≤ {margin_above=}")
    # A model is itself a sequence, of modules.
    models = [models] if isinstance(models, SentenceTransformer) else list(models)
    if not models:
        raise ValueError("there must be one model at least")
    names = ["anchor", "positive", _negative(dataset, negative)]
    settings: dict[str, Any] = {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
    scores = [cosines(dataset, names, model, **settings) for model in models]
    strengths = torch.stack([positive - negatives[:, 0] for positive, negatives in scores]).numpy()
    mean, std = strengths.mean(axis=0), strengths.std(axis=0)
    agreed = std <= np.abs(mean)
    cases = [agreed & (mean <= flip_below), ~agreed | (mean < soften_below), mean >= margin_above]
    suggestions = np.select(cases, ["flip", "soften", "margin"], "keep")
    return PreferenceStrength(mean, std, tuple(suggestions.tolist()))


def flip_rows(dataset: Rows, rows: Iterable[int], negative: str | None = None) -> Dataset:
    """The dataset with positive and negative exchanged in some rows, such as those that look flipped.

    Args:
        dataset: Columns anchor, positive, a negative, and any others.
        rows: Row numbers, from 0.
        negative: The column; None takes the only one whose name begins with "negative".

    Raises:
        ValueError: A missing column, several negatives and none named, or a row that is not there.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.data import flip_rows
        >>> rows = {"anchor": ["trời mưa"] * 2, "positive": ["mưa", "nắng"], "negative": ["gió", "mưa"]}
        >>> flip_rows(Dataset.from_dict(rows), [1])["positive"][:]
        ['mưa', 'mưa']
    """
    dataset = as_dataset(dataset)
    name, chosen = _negative(dataset, negative), set(rows)
    if outside := sorted(row for row in chosen if not 0 <= row < len(dataset)):
        raise ValueError(f"rows {outside[:5]} are not among the {len(dataset)} rows")

    def exchange(row: dict[str, str], number: int) -> dict[str, str]:
        return {"positive": row[name], name: row["positive"]} if number in chosen else row

    return dataset.map(exchange, with_indices=True)


def _negative(dataset: Dataset, given: str | None) -> str:
    _, _, *negatives = triplet_columns(dataset, given)
    if len(negatives) > 1:
        raise ValueError(f"there are several negatives, {negatives}: name one with negative=...")
    return negatives[0]
