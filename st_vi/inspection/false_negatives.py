"""Possible false negatives: documents that count as wrong but may be unlabelled correct answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.feature_extraction.text import CountVectorizer
from torch import Tensor

from st_vi.checks import check_whole
from st_vi.evaluation.geometry.vectors import as_tensor
from st_vi.inspection.rankings import document_ranks, with_columns
from st_vi.text import comparison_key


@dataclass(frozen=True)
class Suspect:
    """A possible false negative.

    Attributes:
        query: Row of the query.
        document: Row of the document in the corpus.
        gap: Its cosine minus that of the relevant document, the minimum over all poolings.
        overlap: Jaccard overlap of its words with those of the relevant document, from 0 to 1.
        reasons: "scores", "words" or both.
    """

    query: int
    document: int
    gap: float
    overlap: float
    reasons: tuple[str, ...]


def suspected_false_negatives(
    similarities: Sequence[Tensor],
    relevant: Sequence[int],
    overlaps: np.ndarray,
    margin: float = 0.0,
    min_overlap: float = 0.8,
    k: int | None = None,
    limit: int = 100,
) -> list[Suspect]:
    """Documents that *all* poolings rank above the relevant one, or that share almost all its words.

    Documents with almost the same words come first, then those with the largest gap. Review them by hand: a poor model
    suspects many, and one "không" reverses the meaning of nearly the same words.

    Args:
        similarities: One matrix (Q, N) per pooling.
        relevant: Q columns.
        overlaps: (Q, N) from `word_overlaps` with the relevant documents.
        margin: A document ranks above if its cosine exceeds that of the relevant one minus this margin, under every
            pooling.
        min_overlap: Minimum word overlap of two texts to count as almost the same.
        k: Consider scores only of documents in the top k under every pooling; None for all. Without a limit, a query
            that no pooling can answer fills the list.
        limit: Maximum number of suspects to return.

    Raises:
        ValueError: There is no pooling, `overlaps` has another shape, k or `limit` is below 1, or as for
            `relevant_ranks`.

    Example:
        >>> import torch
        >>> from st_vi.inspection.false_negatives import suspected_false_negatives, word_overlaps
        >>> corpus = ["Xe đến lúc tám giờ.", "Xe đến lúc 8 giờ.", "Mèo ngủ."]
        >>> scores = [torch.tensor([[0.6, 0.7, 0.1]]), torch.tensor([[0.5, 0.8, 0.6]])]
        >>> [suspect.document for suspect in suspected_false_negatives(scores, [0], word_overlaps(corpus, [0]))]
        [1]
    """
    if not similarities:
        raise ValueError("there must be the similarities of at least one pooling")
    pairs = [with_columns(matrix, relevant) for matrix in similarities]
    similarities, columns = [matrix for matrix, _ in pairs], pairs[0][1]
    gaps = torch.stack([matrix - matrix.gather(1, columns) for matrix in similarities]).amin(dim=0)
    if np.shape(overlaps) != tuple(gaps.shape):
        raise ValueError(
            f"overlaps must have the shape {tuple(gaps.shape)} of the similarities, got {np.shape(overlaps)}"
        )
    above, alike = gaps > -margin, as_tensor(overlaps) >= min_overlap
    check_whole("limit", limit)
    if k is not None:
        check_whole("k", k)
        above &= torch.stack([document_ranks(matrix) <= k for matrix in similarities]).all(dim=0)
    found = (above | alike).scatter(1, columns, False)
    queries, documents = found.nonzero(as_tuple=True)
    order = torch.argsort(gaps[found] + 4 * alike[found], descending=True)[:limit]  # a gap lies between -2 and 2
    return [
        Suspect(
            query,
            document,
            gaps[query, document].item(),
            float(overlaps[query, document]),
            ("scores",) * bool(above[query, document]) + ("words",) * bool(alike[query, document]),
        )
        for query, document in zip(queries[order].tolist(), documents[order].tolist(), strict=True)
    ]


def word_overlaps(corpus: Sequence[str], relevant: Sequence[int]) -> np.ndarray:
    """Jaccard overlap of the words (case-insensitive syllables) of relevant documents with all documents, (Q, N).

    Example:
        >>> from st_vi.inspection.false_negatives import word_overlaps
        >>> word_overlaps(["Trời mưa to.", "trời mưa nhỏ"], [0])
        array([[1. , 0.5]])
    """
    texts = [comparison_key(text) for text in corpus]
    counts = CountVectorizer(binary=True, token_pattern=r"\w+", dtype=np.float64)
    words = counts.fit([*texts, "word"]).transform(texts)  # emoji alone would be an empty vocabulary, an error
    both = (words[list(relevant)] @ words.T).toarray()
    sizes = np.asarray(words.sum(axis=1)).ravel()
    return both / np.maximum(sizes[list(relevant)][:, None] + sizes - both, 1)
