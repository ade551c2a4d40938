"""Rows to vectors, the same on one machine and on many: bad rows by name, long texts whole or in chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from sentence_transformers import SentenceTransformer

from st_vi.encoding.batches import MAX_TOKENS, count_each, encode_each, reason
from st_vi.encoding.limits import Chunker, Cut, count_cut
from st_vi.encoding.rows import BadValue, InputColumns

BadRow = Literal["error", "skip"]


@dataclass
class Problems:
    """Bad rows by their place: the first is an error, or all are written down.

    Args:
        bad_row: "error" or "skip".
        name: What a place is called, such as "row 12".
    """

    bad_row: BadRow
    name: Callable[[int], str]
    found: dict[int, str] = field(default_factory=dict)

    def add(self, place: int, column: str, problem: str, cause: Exception | None = None) -> None:
        """Write down a bad row.

        Raises:
            ValueError: `bad_row` is "error".
        """
        if self.bad_row == "error":
            raise ValueError(f"column {column!r}, {self.name(place)}: {problem}") from cause
        self.found.setdefault(place, f"column {column!r}: {problem}")


@dataclass(frozen=True)
class EncodedRows:
    """Vectors (N, D), and for each of them the place of its row and, of a piece of a text, where that is."""

    places: list[int]
    spans: list[tuple[int, int] | None]
    vectors: np.ndarray
    cut: Cut


class RowEncoder:
    """A model with all that says how it encodes rows.

    Args:
        model: Any `SentenceTransformer`.
        columns: Where in a row its input is.
        prompt: What is put before each.
        max_tokens: As for `encode_by_cost`.
        normalize: As for `encode_by_cost`.
        chunk: Whether to encode long texts in pieces; a number says of how many tokens at most.

    Raises:
        ValueError: The model takes no pictures and the columns hold some, or there can be no such chunks.
    """

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
        """What to encode of each row, by its place."""
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
        """Encode inputs that have places; `done` is told how many rows more are through."""

        def fail(number: int, error: Exception) -> None:
            column = self.columns.image or self.columns.text
            problems.add(places[number], str(column), reason(items[number], error), error)

        places, items = list(inputs), list(inputs.values())
        counts = count_each(self.model, items, self.prompt, fail)
        spans: list[tuple[int, int] | None] = [None] * len(items)
        if self.chunker:
            places, items, spans = self._chunks(places, items, counts)
            counts = count_each(self.model, items, self.prompt, fail)
        cut = count_cut(self.model, items, counts, self.prompt)
        left = Counter(places[number] for number in counts)
        done(len(inputs) - len(left))

        def progress(batch: Sequence[int]) -> None:
            finished = 0
            for number in batch:
                left[places[number]] -= 1
                finished += not left[places[number]]
            done(finished)

        vectors = encode_each(self.model, items, counts, fail, self.max_tokens, self.prompt, self.normalize, progress)
        good = [number for number in sorted(counts) if places[number] not in problems.found]
        return EncodedRows([places[i] for i in good], [spans[i] for i in good], vectors[good], cut)

    def _chunks(
        self, places: list[int], items: list[Any], counts: Mapping[int, int]
    ) -> tuple[list[int], list[Any], list[tuple[int, int] | None]]:
        """The pieces of all texts in the order of the rows; whatever is no text stays whole."""
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
                for start, end in self.chunker.spans(text):
                    piece = text[start:end]
                    pieces.append((place, piece if item is text else {"text": piece}, (start, end)))
        return [p for p, _, _ in pieces], [i for _, i, _ in pieces], [s for _, _, s in pieces]
