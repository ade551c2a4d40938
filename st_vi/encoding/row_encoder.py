"""Encoding of rows, with reports of bad rows and chunking of long texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from sentence_transformers import SentenceTransformer

from st_vi.encoding.batches import MAX_TOKENS, count_each, encode_each, reason
from st_vi.encoding.forward import KeptTokens
from st_vi.encoding.limits import Chunker, count_cut
from st_vi.encoding.rows import BadValue, InputColumns
from st_vi.encoding.shards import Cut

BadRow = Literal["error", "skip"]


@dataclass
class Problems:
    """Bad rows by position, either raised at the first one, or collected; `name` names a position, such as "row 12"."""

    bad_row: BadRow
    name: Callable[[int], str]
    found: dict[int, str] = field(default_factory=dict)

    def add(self, place: int, column: str, problem: str, cause: Exception | None = None) -> None:
        """Record a bad row, or raise it."""
        if self.bad_row == "error":
            raise ValueError(f"column {column!r}, {self.name(place)}: {problem}") from cause
        self.found.setdefault(place, f"column {column!r}: {problem}")


@dataclass(frozen=True)
class EncodedRows:
    """Vectors (N, D), with the position of the row of each, and of the chunk in its text."""

    places: list[int]
    spans: list[tuple[int, int] | None]
    vectors: np.ndarray
    cut: Cut


@dataclass(frozen=True)
class CountedRows:
    """Inputs, ready for the model: their tokens are counted, and long texts are chunks.

    The first two have an entry for each input or chunk, `counts` and `tokens` are by its index in them.
    """

    places: list[int]
    items: list[Any]
    spans: list[tuple[int, int] | None]
    counts: dict[int, int]
    tokens: KeptTokens
    cut: Cut
    rows: int


class RowEncoder:
    """A model with the settings for encoding rows, as those of `encode_corpus`."""

    def __init__(
        self,
        model: SentenceTransformer,
        columns: InputColumns,
        prompt: str | None = None,
        max_tokens: int = MAX_TOKENS,
        normalize: bool = False,
        chunk: bool | int = False,
    ) -> None:
        columns.check_model(model.modalities)
        self.model, self.columns, self.prompt = model, columns, prompt
        self.max_tokens, self.normalize = max_tokens, normalize
        self.chunker = Chunker(model, None if chunk is True else chunk, prompt) if chunk else None

    def inputs(self, rows: Sequence[Mapping[str, Any]], problems: Problems) -> dict[int, Any]:
        """The input of each row, by position."""
        found = {}
        for place, row in enumerate(rows):
            try:
                found[place] = self.columns.input(row, self.model.modalities)
            except BadValue as error:
                problems.add(place, error.column, error.problem, error)
        return found

    def encode(
        self, inputs: Mapping[int, Any], problems: Problems, done: Callable[[int], Any] = lambda rows: None
    ) -> EncodedRows:
        """Encode inputs by position; `done` is called with the number of rows finished since the last call."""
        return self.encode_counted(self.count(inputs, problems), problems, done)

    def count(self, inputs: Mapping[int, Any], problems: Problems) -> CountedRows:
        """Tokenize inputs by position. Another thread may do this while the model encodes earlier rows."""
        places, items = list(inputs), list(inputs.values())
        tokens = KeptTokens(self.model)
        counts = count_each(self.model, items, self.prompt, self._fail(places, items, problems), tokens)
        spans: list[tuple[int, int] | None] = [None] * len(items)
        if self.chunker:
            places, items, spans = self._chunks(places, items, counts, self._fail(places, items, problems))
            tokens = KeptTokens(self.model)
            counts = count_each(self.model, items, self.prompt, self._fail(places, items, problems), tokens)
        cut = count_cut(self.model, items, counts, self.prompt)
        return CountedRows(places, items, spans, counts, tokens, cut, len(inputs))

    def encode_counted(
        self, counted: CountedRows, problems: Problems, done: Callable[[int], Any] = lambda rows: None
    ) -> EncodedRows:
        """Encode what `count` returned, without rows that have become bad since."""
        places, items, spans = counted.places, counted.items, counted.spans
        counts = {n: count for n, count in counted.counts.items() if places[n] not in problems.found}
        cut = counted.cut
        if len(counts) < len(counted.counts):
            cut = count_cut(self.model, items, counts, self.prompt)
        fail = self._fail(places, items, problems)
        left = Counter(places[number] for number in counts)
        done(counted.rows - len(left))

        def progress(batch: Sequence[int]) -> None:
            finished = 0
            for number in batch:
                left[places[number]] -= 1
                finished += not left[places[number]]
            done(finished)

        vectors = encode_each(
            self.model, items, counts, fail, self.max_tokens, self.prompt, self.normalize, progress, counted.tokens
        )
        good = [number for number in sorted(counts) if places[number] not in problems.found]
        return EncodedRows([places[i] for i in good], [spans[i] for i in good], vectors[good], cut)

    def _fail(self, places: list[int], items: list[Any], problems: Problems) -> Callable[[int, Exception], None]:
        def fail(number: int, error: Exception) -> None:
            column = self.columns.image or self.columns.text
            problems.add(places[number], str(column), reason(items[number], error), error)

        return fail

    def _chunks(
        self, places: list[int], items: list[Any], counts: Mapping[int, int], fail: Callable[[int, Exception], None]
    ) -> tuple[list[int], list[Any], list[tuple[int, int] | None]]:
        """The chunks of all texts in row order; other inputs are not split."""
        assert self.chunker is not None and self.chunker.limit is not None
        pieces: list[tuple[int, Any, tuple[int, int] | None]] = []
        for number in sorted(counts):
            place, item = places[number], items[number]
            text = item.get("text") if isinstance(item, dict) and item.keys() == {"text"} else item
            if not isinstance(text, str):
                pieces.append((place, item, None))
            elif counts[number] <= self.chunker.limit:
                pieces.append((place, item, (0, len(text))))
            else:
                try:
                    found = self.chunker.spans(text)
                except ValueError as error:  # no room for some character
                    fail(number, error)
                    continue
                for start, end in found:
                    piece = text[start:end]
                    pieces.append((place, piece if item is text else {"text": piece}, (start, end)))
        return [p for p, _, _ in pieces], [i for _, i, _ in pieces], [s for _, _, s in pieces]
