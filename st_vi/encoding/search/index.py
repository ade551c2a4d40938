"""A hybrid index of passages: dense vectors and BM25."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from sentence_transformers import SentenceTransformer

from st_vi.checks import check_choice, check_whole
from st_vi.encoding.batches import encode_by_tokens, token_counts
from st_vi.encoding.query import QueryEncoder
from st_vi.encoding.search.passages import Passage, read_passages
from st_vi.encoding.search.vectors import VectorStore, unit
from st_vi.encoding.search.words import WordIndex
from st_vi.text import is_blank
from st_vi.text.normal import without_capitals

Side = Literal["both", "vectors", "words"]

CANDIDATES = 1000
"""Candidates from each side that are fused."""
TITLE_WEIGHT = 0.5
"""Weight of a title beside its passage, chosen on questions about laws and about Wikipedia, see docs/benchmarks.md."""


@dataclass(frozen=True)
class Found:
    """A search result.

    Attributes:
        passage: The passage.
        score: Cosine or BM25 score, each a mean of the passage's and its title's, or the sum of both after
            standardisation.
        by_vectors: Rank by vectors, from 1; None if not in the top thousand.
        by_words: Rank by BM25, from 1; None if not in the top thousand, or without a word of the query.
    """

    passage: Passage
    score: float
    by_vectors: int | None
    by_words: int | None


class SearchIndex:
    """Hybrid search of passages by vectors and words.

    Vectors are compared by cosine (FAISS, exact). Words are compared with BM25, which ignores the diacritics where
    the query is typed without them. A query in capitals is encoded in lower case. On both sides a score is the mean of
    those of the passage and of its title, with weights 1 and `title_weight`, because a title says what a long text is
    about; a passage without a title has its own score.

    For hybrid search, the scores of each side are standardised over the candidates of both, (s − mean) / deviation, and
    added. Unlike reciprocal rank fusion, this lets a confident side outweigh an uncertain one. The score of a side is
    then the standardised mean plus the better of passage and title, each standardised, because a title alone may fit a
    query while its text, perhaps a list, does not.

    Args:
        passages: Passages, at least one; see `read_passages`.
        model: The encoder; None for BM25 only.
        store: Cache of vectors; None encodes all passages now.
        query_prompt_name: Name of the prompt for queries.
        title_weight: Weight of a title beside its passage, at least 0; with 0, a title counts only as part of the text.
        show_progress_bar: Whether to show a progress bar while encoding passages.

    Raises:
        ImportError: A package of the extra `search` is missing.
        ValueError: There is no passage, or `title_weight` is negative or not finite.

    Example:
        >>> from st_vi.encoding.search import Passage, SearchIndex
        >>> texts = ["Thủ tục ly hôn tại tòa án", "Thuế nhà đất phải nộp", "Giá vé xe buýt"]
        >>> index = SearchIndex([Passage(text, "", "luat.txt", f"line {n}") for n, text in enumerate(texts, 1)])
        >>> [found.passage.place for found in index.search("thue dat", top=1)]
        ['line 2']
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        model: SentenceTransformer | None = None,
        store: VectorStore | None = None,
        *,
        query_prompt_name: str | None = None,
        title_weight: float = TITLE_WEIGHT,
        show_progress_bar: bool = False,
    ) -> None:
        if not 0 <= title_weight < math.inf:
            raise ValueError(f"title_weight must be a finite number from 0, got {title_weight}")
        if not passages:
            raise ValueError("there are no passages to search")
        self.passages = list(passages)
        self.model = model
        self.query_prompt_name = query_prompt_name
        self.title_weight = title_weight
        texts = [passage.searched for passage in self.passages]
        titles = list(dict.fromkeys(passage.title for passage in self.passages if passage.title))
        numbers = {title: number for number, title in enumerate(titles)}
        self._title_of = np.array([numbers.get(passage.title, -1) for passage in self.passages])  # -1: none
        self._words = WordIndex(texts)
        self._title_words = WordIndex(titles) if titles else None
        self._vectors: Any = None
        if model is not None:
            every = list(dict.fromkeys([*texts, *titles]))
            vectors = unit(
                store.vectors(every, show_progress_bar)
                if store
                else encode_by_tokens(model, every, show_progress_bar=show_progress_bar)
            )
            rows = {text: row for row, text in enumerate(every)}
            own, of_titles = (vectors[[rows[text] for text in each]] for each in (texts, titles))
            # The product with a mean of vectors is the mean of the products.
            self._vectors = _faiss_index(self._with_titles(own, of_titles))
            self._title_vectors = of_titles
            self._encoder = QueryEncoder(model)

    @classmethod
    def of_files(
        cls,
        source: str | Path,
        model: SentenceTransformer | None = None,
        *,
        kept_in: str | Path | None = None,
        column: str | None = None,
        query_prompt_name: str | None = None,
        show_progress_bar: bool = False,
    ) -> SearchIndex:
        """Index a file or the files of a folder; see `read_passages`.

        Args:
            source: A file or a folder.
            model: The encoder; None for BM25 only.
            kept_in: Folder in which vectors are cached, so that the next run encodes only new passages.
            column: Column of tables to search.
            query_prompt_name: Name of the prompt for queries.
            show_progress_bar: Whether to show a progress bar while encoding passages.
        """
        passages = read_passages(source, _token_counter(model), column=column, show_progress_bar=show_progress_bar)
        store = VectorStore(kept_in, model) if model is not None and kept_in is not None else None
        return cls(passages, model, store, query_prompt_name=query_prompt_name, show_progress_bar=show_progress_bar)

    def search(self, query: str, top: int = 10, side: Side | None = None) -> list[Found]:
        """The best passages for a query, in order, and of each row or paragraph only its best one.

        Args:
            query: A query with or without diacritics.
            top: Maximum number of results, at least 1.
            side: "vectors", "words" or "both"; None for both if there is a model.

        Raises:
            ValueError: The query is blank, `top` is not positive, or `side` is unknown or needs a model.
        """
        side = side or ("both" if self._vectors is not None else "words")
        check_choice("side", side, Side)
        if side != "words" and self._vectors is None:
            raise ValueError(f"side={side!r} needs a model")
        if is_blank(query):
            raise ValueError("the query is empty")
        check_whole("top", top)
        by_words = self._by_words(query) if side != "vectors" else {}
        vector = self._query_vector(query) if side != "words" else None
        by_vectors = self._by_vectors(vector) if vector is not None else {}
        if vector is not None and side == "both":
            scores = self._added(query, vector, [*by_vectors, *by_words])
        else:
            scores = by_vectors or by_words
        ranks = [{row: rank for rank, row in enumerate(found, 1)} for found in (by_vectors, by_words)]
        best: dict[tuple[str, str], int] = {}  # of each row or paragraph, its first passage
        for row in sorted(scores, key=lambda row: -scores[row]):
            best.setdefault((self.passages[row].file, self.passages[row].place), row)
        rows = islice(best.values(), top)
        return [Found(self.passages[row], scores[row], ranks[0].get(row), ranks[1].get(row)) for row in rows]

    def _by_words(self, query: str) -> dict[int, float]:
        """BM25 score by row, the best first."""
        scores, _ = self._word_scores(query)
        rows = np.argsort(-scores, kind="stable")[:CANDIDATES]
        return {int(row): float(scores[row]) for row in rows if scores[row] > 0}

    def _word_scores(self, query: str) -> tuple[np.ndarray, np.ndarray]:
        """BM25 scores of the passages, each with its title, (N,), and of the distinct titles, (T,)."""
        scores, titles = self._words.scores(query), np.zeros(0, dtype=np.float32)
        if self._title_words is not None:
            titles = self._title_words.scores(query)
        return self._with_titles(scores, titles), titles

    def _with_titles(self, passages: np.ndarray, titles: np.ndarray) -> np.ndarray:
        """Values of the passages (N, …), with those of the distinct titles (T, …) in the mean where there is one."""
        titled = self._title_of >= 0
        mean = passages.copy()
        mean[titled] += self.title_weight * titles[self._title_of[titled]]
        mean[titled] /= 1 + self.title_weight
        return mean

    def _by_vectors(self, vector: np.ndarray) -> dict[int, float]:
        scores, rows = self._vectors.search(vector, min(CANDIDATES, len(self.passages)))
        return {int(row): float(score) for row, score in zip(rows[0], scores[0], strict=True)}

    def _added(self, query: str, vector: np.ndarray, candidates: Sequence[int]) -> dict[int, float]:
        """Sum of the standardised scores of both sides for the candidates."""
        rows = list(dict.fromkeys(candidates))
        cosines = self._side(rows, self._vectors.reconstruct_batch(rows) @ vector[0], self._title_vectors @ vector[0])
        words, of_titles = self._word_scores(query)
        total = cosines + self._side(rows, words[rows], of_titles)
        return dict(zip(rows, total.tolist(), strict=True))

    def _side(self, rows: list[int], means: np.ndarray, titles: np.ndarray) -> np.ndarray:
        """Standardised scores of candidates on one side, (C,).

        Args:
            rows: The candidates.
            means: The score of each with its title, (C,).
            titles: Scores of the distinct titles, (T,).
        """
        numbers = self._title_of[rows]
        titled = numbers >= 0
        if not self.title_weight or not titled.any():
            return _standardised(means)
        own, of_titles = means.copy(), titles[numbers[titled]]
        own[titled] += self.title_weight * (own[titled] - of_titles)  # the inverse of `_with_titles`
        better = _standardised(own)
        better[titled] = np.maximum(better[titled], _standardised(of_titles))
        return _standardised(_standardised(means) + better)

    def _query_vector(self, query: str) -> np.ndarray:
        """The query vector of unit length, (1, D)."""
        vector = self._encoder.encode(without_capitals(query), prompt_name=self.query_prompt_name)
        if not np.isfinite(vector).all():
            raise ValueError("the model returned a vector that is not finite")
        return unit(vector[None])


def _standardised(scores: np.ndarray) -> np.ndarray:
    """Standardised scores; zeros if all are equal."""
    deviation = scores.std()
    return (scores - scores.mean()) / deviation if deviation > 1e-9 else np.zeros_like(scores)


def _faiss_index(vectors: np.ndarray) -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError('search by vectors needs FAISS: pip install "st-vi[search]"') from error
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def _token_counter(model: SentenceTransformer | None) -> Any:
    """A token counter of the model; without a model, syllables are counted."""
    if model is None:
        return lambda texts: [len(text.split()) for text in texts]
    return lambda texts: token_counts(model, texts)
