"""Documents that count as wrong answers, and may be right ones that nobody has labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.feature_extraction.text import CountVectorizer
from torch import Tensor

from st_vi.inspection.rankings import document_ranks
from st_vi.text import comparison_key


@dataclass(frozen=True)
class Suspect:
    """A document that counts as wrong and may be right.

    Attributes:
        query: Row of the query.
        document: Row of the corpus.
        gap: The least, over all poolings, of its cosine minus that of the relevant document.
        overlap: Share of its words and those of the relevant document that both have, from 0 to 1.
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
    """Documents that *all* poolings put above the relevant one, or that have almost its words.

    Those with almost the same words come first, then the largest gap. To be read by a person: a poor model suspects
    much, and one "không" more turns the meaning with almost the same words.

    Args:
        similarities: One matrix (Q, N) a pooling.
        relevant: Q columns.
        overlaps: (Q, N) from `word_overlaps`, with the relevant documents.
        margin: A document is above when its cosine exceeds that of the relevant one minus this, under every pooling.
        min_overlap: Share of words from which on two texts have almost the same.
        k: The scores count only for documents in the first k under every pooling; None, for all. Without it, a query
            that no pooling can answer fills the list.
        limit: Most suspects to return.

    Raises:
        ValueError: No similarities.

    Example:
        >>> import torch
        >>> from st_vi.inspection.false_negatives import suspected_false_negatives, word_overlaps
        >>> corpus = ["Xe đến lúc tám giờ.", "Xe đến lúc 8 giờ.", "Mèo ngủ."]
        >>> scores = [torch.tensor([[0.6, 0.7, 0.1]]), torch.tensor([[0.5, 0.8, 0.6]])]
        >>> [suspect.document for suspect in suspected_false_negatives(scores, [0], word_overlaps(corpus, [0]))]
        [1]
    """
    if not similarities:
        raise ValueError("there must be the similarities of one pooling at least")
    columns = torch.as_tensor(relevant)[:, None]
    gaps = torch.stack([matrix - matrix.gather(1, columns) for matrix in similarities]).amin(dim=0)
    above, alike = gaps > -margin, torch.from_numpy(overlaps >= min_overlap)
    if k is not None:
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
    """Jaccard overlap of the words (syllables, regardless of case) of relevant documents with all others: (Q, N).

    Args:
        corpus: N texts.
        relevant: Q rows.

    Example:
        >>> from st_vi.inspection.false_negatives import word_overlaps
        >>> word_overlaps(["Trời mưa to.", "trời mưa nhỏ"], [0])
        array([[1. , 0.5]])
    """
    texts = [comparison_key(text) for text in corpus]
    words = CountVectorizer(binary=True, token_pattern=r"\w+", dtype=np.float64).fit_transform(texts)
    both = (words[list(relevant)] @ words.T).toarray()
    sizes = np.asarray(words.sum(axis=1)).ravel()
    return both / np.maximum(sizes[list(relevant)][:, None] + sizes - both, 1)
