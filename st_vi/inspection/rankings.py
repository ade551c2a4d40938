"""Rankings of documents: ranks, margins, and recall with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import bootstrap, rankdata
from torch import Tensor

from st_vi.checks import check_whole
from st_vi.evaluation.base import by_place, check_inputs
from st_vi.evaluation.geometry.vectors import as_tensor, unit_vectors
from st_vi.inputs.kinds import shown
from st_vi.text import comparison_key


@dataclass(frozen=True)
class RetrievalSet:
    """Queries, documents to search, and for each query the document that answers it.

    Args:
        queries: Q texts; may be empty.
        corpus: N distinct texts, by `st_vi.text.comparison_key`: two Unicode forms of one text are not distinct.
        relevant: Q rows of the corpus.

    Raises:
        ValueError: Lengths differ, a text is missing, a row is not in the corpus, or the corpus has a text twice (each
            copy would count as a wrong answer for the other).

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
        for column in ("queries", "corpus", "relevant"):  # the rows of a pandas Series are counted by place
            object.__setattr__(self, column, by_place(getattr(self, column)))
        if len(self.queries) != len(self.relevant):
            raise ValueError(
                f"each query needs one relevant row, got {len(self.queries)} queries and {len(self.relevant)} rows"
            )
        check_inputs(queries=self.queries, corpus=self.corpus)
        rows: dict[str, int] = {}
        for row, text in enumerate(self.corpus):
            first = rows.setdefault(comparison_key(text), row)
            if first != row:
                raise ValueError(f"rows {first} and {row} of the corpus have the same text; keep one: {text[:200]!r}")
        for query, row in enumerate(self.relevant):
            if not 0 <= row < len(self.corpus):
                raise ValueError(f"query {query} names row {row} of a corpus with {len(self.corpus)} documents")

    def with_queries(self, change: Callable[[str], str | None]) -> RetrievalSet:
        """The same documents with changed queries; those for which `change` returns None or the same are dropped."""
        changed = [(row, change(query)) for row, query in enumerate(self.queries)]
        kept = [(row, text) for row, text in changed if text and text != self.queries[row]]
        return RetrievalSet([text for _, text in kept], self.corpus, [self.relevant[row] for row, _ in kept])

    def with_distractors(self, change: Callable[[str], str | None]) -> RetrievalSet:
        """A harder search: a changed copy of each relevant document is added to the corpus.

        Queries for whose document `change` returns None, or a text that is in the corpus already, are dropped.
        """
        changed = [(row, change(self.corpus[document])) for row, document in enumerate(self.relevant)]
        known = set(map(comparison_key, self.corpus))
        kept = [(row, text) for row, text in changed if text and comparison_key(text) not in known]
        added: dict[str, str] = {}
        for _, text in kept:
            added.setdefault(comparison_key(text), text)
        corpus = [*self.corpus, *added.values()]
        return RetrievalSet([self.queries[row] for row, _ in kept], corpus, [self.relevant[row] for row, _ in kept])


def cosine_matrix(queries: Tensor, corpus: Tensor) -> Tensor:
    """Cosines of all queries and documents, (Q, N), in float32 or higher precision.

    Args:
        queries: Embeddings (Q, D), a tensor, an array or a list of either.
        corpus: Embeddings (N, D).

    Raises:
        ValueError: Unequal D.
    """
    queries, corpus = as_tensor(queries), as_tensor(corpus)
    if queries.shape[-1:] != corpus.shape[-1:]:
        shapes = f"{tuple(queries.shape)} and {tuple(corpus.shape)}"
        raise ValueError(f"queries and corpus must be embeddings of one dimension, got the shapes {shapes}")
    dtype = torch.promote_types(torch.promote_types(queries.dtype, corpus.dtype), torch.float32)
    return unit_vectors(queries.to(dtype)) @ unit_vectors(corpus.to(dtype)).T


def _numbers(similarities: Tensor) -> Tensor:
    """Similarities (Q, N) as a tensor; NaN has no rank."""
    similarities = as_tensor(similarities)
    if similarities.ndim != 2:
        raise ValueError(f"similarities must have the shape (Q, N), got {tuple(similarities.shape)}")
    if similarities.isnan().any():
        raise ValueError("the similarities hold NaN, which has no rank: are there NaN or infinite embeddings?")
    return similarities


def with_columns(similarities: Tensor, relevant: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
    """Similarities (Q, N) and the columns of the relevant documents (Q, 1), as tensors.

    Raises:
        ValueError: NaN among the similarities, another number of columns than of queries, or a column out of range.
    """
    similarities, columns = _numbers(similarities), as_tensor(relevant).flatten()
    if len(columns) != len(similarities):
        raise ValueError(f"each query needs one relevant column, got {len(similarities)} and {len(columns)}")
    if len(columns) and columns.is_floating_point():
        raise ValueError(f"relevant must hold the numbers of columns, got {columns[0].item()}")
    if len(columns) and not 0 <= int(columns.min()) <= int(columns.max()) < similarities.shape[1]:
        raise ValueError(
            f"relevant names columns from {columns.min()} to {columns.max()}; there are {similarities.shape[1]}"
        )
    return similarities, columns.long()[:, None].to(similarities.device)


def relevant_ranks(similarities: Tensor, relevant: Sequence[int] | Tensor) -> Tensor:
    """Rank of the relevant document of each query, (Q,) int; 1 is best, and ties count against it.

    Args:
        similarities: (Q, N).
        relevant: Q columns.

    Raises:
        ValueError: There is NaN among the similarities, or the columns are not one for each query.

    Example:
        >>> import torch
        >>> from st_vi.inspection.rankings import relevant_ranks
        >>> relevant_ranks(torch.tensor([[0.9, 0.5, 0.1], [0.7, 0.7, 0.2]]), [1, 0])
        tensor([2, 2])
    """
    similarities, columns = with_columns(similarities, relevant)
    return (similarities >= similarities.gather(1, columns)).sum(dim=1)  # includes its own column


def document_ranks(similarities: Tensor) -> Tensor:
    """Rank of every document for every query, (Q, N) int, with ties as in `relevant_ranks`.

    Args:
        similarities: (Q, N).

    Raises:
        ValueError: There is NaN among the similarities.

    Example:
        >>> import torch
        >>> from st_vi.inspection.rankings import document_ranks
        >>> document_ranks(torch.tensor([[0.9, 0.5, 0.5, 0.1]]))
        tensor([[1, 3, 3, 4]])
    """
    return torch.from_numpy(rankdata(-_numbers(similarities).double().cpu().numpy(), method="max", axis=1)).long()


def top_k_margins(similarities: Tensor, relevant: Sequence[int] | Tensor, k: int) -> Tensor:
    """Margin of each relevant document in the top k: its cosine minus the k-th best of the others, (Q,).

    The margin is above 0 if and only if the rank is at most k. For k = N it is infinite.

    Args:
        similarities: (Q, N).
        relevant: Q columns.
        k: Cutoff, from 1 to N.

    Raises:
        ValueError: k is out of range, or as for `relevant_ranks`.

    Example:
        >>> import torch
        >>> from st_vi.inspection.rankings import top_k_margins
        >>> top_k_margins(torch.tensor([[0.9, 0.5, 0.1]]), [1], k=2)  # the second best of the others has 0.1
        tensor([0.4000])
    """
    similarities, columns = with_columns(similarities, relevant)
    check_whole("k", k, most=similarities.shape[1])
    others = similarities.scatter(1, columns, -torch.inf)
    return similarities.gather(1, columns).squeeze(1) - others.topk(k, dim=1).values[:, -1]


@dataclass(frozen=True)
class Estimate:
    """A mean over queries with its confidence interval, whose bounds are NaN for a single query."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def recall_at_k(ranks: Tensor, k: int, confidence: float = 0.95, resamples: int = 1000, seed: int = 0) -> Estimate:
    """Share of queries whose relevant document is in the top k, with a bootstrap interval over queries.

    Uses the percentile bootstrap of `scipy.stats.bootstrap`. If all queries hit, or none, the interval has zero width,
    which does not mean certainty.

    Args:
        ranks: (Q,) from `relevant_ranks`.
        k: Cutoff, at least 1.
        confidence: Confidence level, between 0 and 1.
        resamples: Number of bootstrap samples of Q queries.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: There are no queries, a rank is below 1, or k, the confidence or `resamples` is out of range.

    Example:
        >>> import torch
        >>> from st_vi.inspection.rankings import recall_at_k
        >>> str(recall_at_k(torch.tensor([1, 1, 2, 9]), k=1))
        '0.50 (0.00 to 1.00)'
    """
    return _bootstrapped_mean(_found(ranks, k), confidence, resamples, seed)


def recall_difference(
    a: Tensor, b: Tensor, k: int, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Recall@k of pooling A minus that of B on the same queries, with a paired bootstrap interval.

    The difference may be significant even if the intervals of the two recalls overlap, because both find the same easy
    queries. The other arguments are those of `recall_at_k`.

    Args:
        a: Ranks (Q,) under A.
        b: Ranks (Q,) under B, for the same queries.

    Raises:
        ValueError: Lengths differ, or as for `recall_at_k`.
    """
    found, found_b = _found(a, k), _found(b, k)
    if found.shape != found_b.shape:
        raise ValueError(f"both must rank the same queries, got {len(found)} and {len(found_b)}")
    return _bootstrapped_mean(found - found_b, confidence, resamples, seed)


def _found(ranks: Tensor, k: int) -> Tensor:
    """1 for each query whose document is in the top k, else 0, (Q,)."""
    check_whole("k", k)
    ranks = as_tensor(ranks)
    if ranks.ndim != 1 or not (ranks >= 1).all():  # False for NaN
        raise ValueError(f"ranks (Q,) must be numbers from 1, got {shown(ranks.tolist())}")
    return (ranks <= k).double()


def _bootstrapped_mean(values: Tensor, confidence: float, resamples: int, seed: int) -> Estimate:
    if not len(values):
        raise ValueError("there are no queries to average")
    check_whole("resamples", resamples)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    mean = values.mean().item()
    if len(values) == 1:
        return Estimate(mean, float("nan"), float("nan"))
    result = bootstrap(
        (values.cpu().numpy(),),
        np.mean,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    return Estimate(mean, float(result.confidence_interval.low), float(result.confidence_interval.high))
