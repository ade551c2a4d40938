"""Which documents come first for a query: ranks, recall with intervals, and what lies between two poolings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import bootstrap, rankdata
from torch import Tensor

from st_vi.text import comparison_key


@dataclass(frozen=True)
class RetrievalSet:
    """Queries, the documents to search, and for each query the one document that answers it.

    Args:
        queries: Q texts; none is allowed.
        corpus: N different texts.
        relevant: Q rows of the corpus.

    Raises:
        ValueError: Unequal lengths, a row that the corpus does not have, or one text twice in the corpus (the second
            would count against the first).

    Example:
        >>> from st_vi.inspection.rankings import RetrievalSet
        >>> rows = RetrievalSet(["Ai nấu cơm?", "Ai đi chợ?"], ["Chị Na nấu cơm.", "Má đi chợ."], [0, 1])
        >>> rows.with_queries(str.lower).queries
        ['ai nấu cơm?', 'ai đi chợ?']
        >>> harder = rows.with_distractors(lambda text: "Chị Na chưa nấu cơm." if "Na" in text else None)
        >>> harder.queries, harder.corpus
        (['Ai nấu cơm?'], ['Chị Na nấu cơm.', 'Má đi chợ.', 'Chị Na chưa nấu cơm.'])
    """

    queries: Sequence[str]
    corpus: Sequence[str]
    relevant: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.queries) != len(self.relevant):
            raise ValueError(f"each query needs one relevant row: {len(self.queries)} and {len(self.relevant)}")
        rows: dict[str, int] = {}
        for row, text in enumerate(self.corpus):
            if rows.setdefault(text, row) != row:
                raise ValueError(f"rows {rows[text]} and {row} of the corpus are one text; keep one: {text[:200]!r}")
        for query, row in enumerate(self.relevant):
            if not 0 <= row < len(self.corpus):
                raise ValueError(f"query {query} names row {row} of a corpus with {len(self.corpus)} documents")

    def with_queries(self, change: Callable[[str], str | None]) -> RetrievalSet:
        """The same search with other words; queries for which `change` gives None, or the same text, are left out."""
        changed = [(row, change(query)) for row, query in enumerate(self.queries)]
        kept = [(row, text) for row, text in changed if text and text != self.queries[row]]
        return RetrievalSet([text for _, text in kept], self.corpus, [self.relevant[row] for row, _ in kept])

    def with_distractors(self, change: Callable[[str], str | None]) -> RetrievalSet:
        """A harder search: the changed relevant documents join the corpus, each for the query that it may deceive.

        Queries for whose document `change` gives None, or a text that the corpus has, are left out.
        """
        changed = [(row, change(self.corpus[document])) for row, document in enumerate(self.relevant)]
        known = set(map(comparison_key, self.corpus))
        kept = [(row, text) for row, text in changed if text and comparison_key(text) not in known]
        corpus = [*self.corpus, *dict.fromkeys(text for _, text in kept)]
        return RetrievalSet([self.queries[row] for row, _ in kept], corpus, [self.relevant[row] for row, _ in kept])


def cosine_matrix(queries: Tensor, corpus: Tensor) -> Tensor:
    """The cosine of every query with every document, (Q, N), in float32 or better.

    Args:
        queries: Embeddings (Q, D).
        corpus: Embeddings (N, D).
    """
    dtype = torch.promote_types(queries.dtype, torch.float32)
    return F.normalize(queries.to(dtype), dim=-1) @ F.normalize(corpus.to(dtype), dim=-1).T


def relevant_ranks(similarities: Tensor, relevant: Sequence[int] | Tensor) -> Tensor:
    """The rank of each query's relevant document, (Q,) int; 1 is the best, and ties count against it.

    Args:
        similarities: (Q, N).
        relevant: Q columns.

    Example:
        >>> import torch
        >>> from st_vi.inspection.rankings import relevant_ranks
        >>> relevant_ranks(torch.tensor([[0.9, 0.5, 0.1], [0.7, 0.7, 0.2]]), [1, 0])
        tensor([2, 2])
    """
    own = similarities.gather(1, torch.as_tensor(relevant)[:, None])
    return (similarities >= own).sum(dim=1)  # its own column is one of them


def document_ranks(similarities: Tensor) -> Tensor:
    """The rank of every document for every query, (Q, N) int, by the rule of `relevant_ranks`.

    Args:
        similarities: (Q, N).

    Example:
        >>> import torch
        >>> from st_vi.inspection.rankings import document_ranks
        >>> document_ranks(torch.tensor([[0.9, 0.5, 0.5, 0.1]]))
        tensor([[1, 3, 3, 4]])
    """
    return torch.from_numpy(rankdata(-similarities.numpy(), method="max", axis=1)).long()


def top_k_margins(similarities: Tensor, relevant: Sequence[int] | Tensor, k: int) -> Tensor:
    """How far each relevant document is inside the first k: its cosine minus the k-th best of the others, (Q,).

    Above 0 exactly where the rank is at most k. With k = N every document is inside, and the margin infinite.

    Args:
        similarities: (Q, N).
        relevant: Q columns.
        k: From 1 to N.

    Raises:
        ValueError: k is out of its range.

    Example:
        >>> import torch
        >>> from st_vi.inspection.rankings import top_k_margins
        >>> top_k_margins(torch.tensor([[0.9, 0.5, 0.1]]), [1], k=2)  # the second best of the others has 0.1
        tensor([0.4000])
    """
    if not 1 <= k <= similarities.shape[1]:
        raise ValueError(f"k must be from 1 to the number of documents, {similarities.shape[1]}, got {k}")
    columns = torch.as_tensor(relevant)[:, None]
    others = similarities.scatter(1, columns, -torch.inf)
    return similarities.gather(1, columns).squeeze(1) - others.topk(k, dim=1).values[:, -1]


@dataclass(frozen=True)
class Estimate:
    """A mean over queries and its interval; NaN bounds where a single query says nothing about others."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def recall_at_k(ranks: Tensor, k: int, confidence: float = 0.95, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Share of queries whose relevant document is among the first k, with a bootstrap interval over queries.

    Percentile bootstrap of `scipy.stats.bootstrap`. Where all queries hit, or none, the interval has no width: the
    sample knows nothing else, which is not certainty.

    Args:
        ranks: (Q,) from `relevant_ranks`.
        k: At least 1.
        confidence: Of the interval, between 0 and 1.
        resamples: Draws of Q queries with replacement.
        seed: Of the draws.

    Raises:
        ValueError: No queries.

    Example:
        >>> import torch
        >>> from st_vi.inspection.rankings import recall_at_k
        >>> str(recall_at_k(torch.tensor([1, 1, 2, 9]), k=1))
        '0.50 (0.00 to 1.00)'
    """
    return _bootstrapped_mean((ranks <= k).double(), confidence, resamples, seed)


def recall_difference(
    a: Tensor, b: Tensor, k: int, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Recall@k of pooling A minus that of B on the same queries, with a paired bootstrap interval.

    The intervals of two recalls may overlap although their difference is clear: both know the same easy queries.

    Args:
        a: Ranks (Q,) under A.
        b: Ranks (Q,) under B, of the same queries.
        k: As for `recall_at_k`.
        confidence: Likewise.
        resamples: Likewise.
        seed: Likewise.

    Raises:
        ValueError: Unequal lengths, or no queries.
    """
    if a.shape != b.shape:
        raise ValueError(f"both must rank the same queries, got {len(a)} and {len(b)}")
    return _bootstrapped_mean((a <= k).double() - (b <= k).double(), confidence, resamples, seed)


def _bootstrapped_mean(values: Tensor, confidence: float, resamples: int, seed: int) -> Estimate:
    if not len(values):
        raise ValueError("there are no queries to average over")
    mean = values.mean().item()
    if len(values) == 1:
        return Estimate(mean, float("nan"), float("nan"))
    result = bootstrap(
        (values.numpy(),),
        np.mean,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    return Estimate(mean, float(result.confidence_interval.low), float(result.confidence_interval.high))
