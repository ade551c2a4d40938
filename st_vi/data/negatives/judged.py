"""Negatives judged by a model: how hard they are, and which may be false negatives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from math import inf, isfinite
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from st_vi.checks import check_choice
from st_vi.data.accepted import Rows, TrainRows, as_dataset
from st_vi.data.negatives.made import as_triplets, rows_of
from st_vi.data.triplets import MissingNegative, Row, Triplets
from st_vi.evaluation.distinct import distinct_vectors
from st_vi.text import comparison_key

_CHUNK = 8192
"""Pairs in one block of similarities."""


def hardness(
    dataset: Rows, model: SentenceTransformer, batch_size: int = 32, show_progress_bar: bool = True
) -> np.ndarray:
    """How hard the negatives of each row are: similarity(anchor, negative) − similarity(anchor, positive).

    Of several negatives the hardest counts. Above 0 the model ranks the row wrongly, or its labels are wrong. For
    `CurriculumBatchSampler`, and for looking at a set of rows before training on it.

    Args:
        dataset: Rows with anchor, positive and one or more columns that begin with "negative".
        model: Any model of texts; anchors are encoded by `encode_query`, the rest by `encode_document`.
        batch_size: Texts per batch. Every distinct text is encoded once.
        show_progress_bar: Show the progress of encoding.

    Returns:
        (N,), one number per row, in the order of the rows; in [−2, 2] for cosines.

    Raises:
        ValueError: No negatives, or rows that `check_triplets` refuses.

    Example:
        >>> from datasets import Dataset
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.data import hardness
        >>> model = SentenceTransformer(modules=[BoW(vocab=["mưa", "mèo"])], device="cpu")
        >>> rows = Dataset.from_dict({"anchor": ["có mưa"], "positive": ["trời mưa"], "negative": ["con mèo"]})
        >>> hardness(rows, model, show_progress_bar=False).tolist()
        [-1.0]
    """
    dataset = as_dataset(dataset)
    positives, negatives = _similarities(rows_of(dataset), model, batch_size, show_progress_bar)
    return np.array([max(row) for row in negatives]) - positives


def drop_false_negatives(
    dataset: TrainRows,
    model: SentenceTransformer,
    absolute_margin: float | None = None,
    relative_margin: float | None = 0.05,
    missing_negative: MissingNegative = "pair",
    batch_size: int = 32,
    show_progress_bar: bool = True,
) -> Triplets:
    """Remove negatives that are about as similar to the anchor as the positive is: they may be right answers.

    The rule of the stock miner, for negatives that are there already: with s⁺ the lowest similarity of the anchor to
    any of its positives, a negative with the similarity s stays when s ≤ s⁺ − relative_margin·|s⁺| and
    s + absolute_margin ≤ s⁺. As there, anchors are encoded by `encode_query` and the rest by `encode_document`.

    Meant for mined negatives, which have no label. Contradictions and perturbed positives are similar and still wrong:
    a model that has not learned that yet would drop the best of them.

    Source: LG-ANNA, arXiv 2506.07438: negatives stay below 0.95 of the positive's similarity.

    Args:
        dataset: Rows, or sets of rows, with anchor, positive and one or more columns that begin with "negative".
        model: Any model of texts; its judgement is as good as the model.
        absolute_margin: In units of the model's similarity; None leaves this rule out.
        relative_margin: Share of the positive's similarity; None leaves this rule out.
        missing_negative: A row that loses all its negatives: keep it as a "pair", or "skip" it.
        batch_size: Texts per batch. Every distinct text is encoded once.
        show_progress_bar: Show the progress of encoding.

    Returns:
        `Triplets`, whose report counts negatives read and dropped.

    Raises:
        ValueError: No margin or one that is not finite, no negatives, rows that `check_triplets` refuses, or no usable
            row.

    Example:
        >>> from datasets import Dataset
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.data import drop_false_negatives
        >>> model = SentenceTransformer(modules=[BoW(vocab=["mưa", "gió", "mèo"])], device="cpu")
        >>> rows = {"anchor": ["mưa gió"], "positive": ["có mưa"], "negative_1": ["mưa to"], "negative_2": ["con mèo"]}
        >>> drop_false_negatives(Dataset.from_dict(rows), model, show_progress_bar=False)["triplets"]["negative"][:]
        ['con mèo']
    """
    if absolute_margin is None and relative_margin is None:
        raise ValueError("nothing to judge by: absolute_margin and relative_margin are both None")
    for name, margin in (("absolute_margin", absolute_margin), ("relative_margin", relative_margin)):
        if margin is not None and not isfinite(margin):
            raise ValueError(f"{name} must be a finite number or None, got {margin}")
    check_choice("missing_negative", missing_negative, MissingNegative)
    rows = rows_of(dataset)
    positives, negatives = _similarities(rows, model, batch_size, show_progress_bar)
    lowest = defaultdict[str, float](lambda: inf)
    for row, similarity in zip(rows, positives, strict=True):
        anchor = comparison_key(row.anchor)
        lowest[anchor] = min(similarity, lowest[anchor])
    new_rows = []
    for row, similarities in zip(rows, negatives, strict=True):
        bound = lowest[comparison_key(row.anchor)]
        bounds = [] if relative_margin is None else [bound - abs(bound) * relative_margin]
        bounds += [] if absolute_margin is None else [bound - absolute_margin]
        kept = [text for text, s in zip(row.negatives, similarities, strict=True) if s <= min(bounds)]
        new_rows.append(replace(row, negatives=tuple(kept)))
    count, left = (sum(len(row.negatives) for row in some) for some in (rows, new_rows))
    report = {"rows read": len(rows), "negatives read": count, "negatives dropped": count - left}
    return as_triplets(new_rows, report, missing_negative)


def _similarities(
    rows: Sequence[Row], model: SentenceTransformer, batch_size: int, show_progress_bar: bool
) -> tuple[np.ndarray, list[list[float]]]:
    """Similarities of each anchor with its positive, and with each of its negatives."""
    if not any(row.negatives for row in rows):
        raise ValueError("there are no negatives to judge: no column begins with 'negative'")
    pairs = [(row.anchor, text) for row in rows for text in (row.positive, *row.negatives)]
    anchors, texts = zip(*pairs, strict=True)
    settings: dict[str, Any] = {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
    settings |= {"normalize_embeddings": True}
    queries, (of_anchors,) = distinct_vectors(model, anchors, method="encode_query", **settings)
    documents, (of_texts,) = distinct_vectors(model, texts, method="encode_document", **settings)
    places = np.stack([of_anchors, of_texts])
    chunks = (places[:, start : start + _CHUNK] for start in range(0, len(pairs), _CHUNK))
    found = np.concatenate([model.similarity_pairwise(queries[q], documents[d]).cpu().numpy() for q, d in chunks])
    of_rows = np.split(found, np.cumsum([1 + len(row.negatives) for row in rows])[:-1])
    return np.array([row[0] for row in of_rows]), [row[1:].tolist() for row in of_rows]
