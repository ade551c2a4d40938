"""Texts that are longer than a model reads: how many, how much of them is lost, and how to cut them instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sentence_transformers import SentenceTransformer

from st_vi.encoding.batches import as_texts, token_counts
from st_vi.modules import WordSegmentedTransformer
from st_vi.modules.tokenizers import own_tokenizer
from st_vi.text.chunks import chunk_spans
from st_vi.text.segmentation import segment_words

_NO_LIMIT = 10**9  # transformers writes "none" as 10³⁰


@dataclass(frozen=True)
class Cut:
    """Texts that the model did not read to their ends: how many, and of their tokens how many it read."""

    texts: int = 0
    read: int = 0
    tokens: int = 0

    def __add__(self, other: Cut) -> Cut:
        return Cut(self.texts + other.texts, self.read + other.read, self.tokens + other.tokens)


def token_limit(model: SentenceTransformer) -> int | None:
    """The tokens that a model reads of an input, special ones included; None where it reads all."""
    limit = model.max_seq_length
    return limit if limit is not None and limit < _NO_LIMIT else None


def count_cut(model: SentenceTransformer, inputs: Sequence[Any], counts: dict[int, int], prompt: str | None) -> Cut:
    """Which of the inputs were cut, given the tokens that the model makes of each.

    Texts without pictures only: visual tokens are never cut off.
    """
    limit, tokenizer = token_limit(model), getattr(model, "tokenizer", None)
    if limit is None or not callable(tokenizer):
        return Cut()
    full = []
    for number, count in counts.items():
        item = inputs[number]
        text = item["text"] if isinstance(item, dict) and item.keys() == {"text"} else item
        if count >= limit and isinstance(text, str):
            full.append((count, _full_count(model, tokenizer, text, prompt or "")))
    cut = [(count, whole) for count, whole in full if whole > limit]
    return Cut(len(cut), sum(count for count, _ in cut), sum(whole for _, whole in cut))


def _full_count(model: SentenceTransformer, tokenizer: Any, text: str, prompt: str) -> int:
    if isinstance(model[0], WordSegmentedTransformer):
        text = segment_words(text)
    return len(own_tokenizer(tokenizer)(prompt + text, truncation=False, padding=False, verbose=False)["input_ids"])


class Chunker:
    """Cuts texts at the ends of sentences into pieces that the model reads whole.

    Args:
        model: Any `SentenceTransformer`.
        tokens: Of a piece at most, prompt and special tokens included; None for all that the model reads.
        prompt: What is put before each piece.

    Raises:
        ValueError: `tokens` is more than the model reads, or too few; or neither says how many.
    """

    def __init__(self, model: SentenceTransformer, tokens: int | None, prompt: str | None) -> None:
        limit = token_limit(model)
        if tokens is None and limit is None:
            raise ValueError("this model reads texts of any length: say how many tokens a chunk has, chunk=512")
        if tokens is not None and limit is not None and tokens > limit:
            raise ValueError(f"chunks of {tokens} tokens are more than the {limit} that the model reads")
        self.model, self.prompt = model, prompt
        # What is counted is cut already: a text with as many tokens as the model reads may have had more.
        self.limit = limit - 1 if limit is not None and tokens in (None, limit) else tokens
        assert self.limit is not None
        self._empty = token_counts(model, [""], prompt)
        if self._empty[0] >= self.limit:
            raise ValueError(f"chunks of {tokens or limit} tokens have no room beside prompt and special tokens")

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The pieces of a text as (start, end), in characters."""
        assert self.limit is not None
        return chunk_spans(text, self.limit, self._count)

    def _count(self, texts: Sequence[str]) -> list[int]:
        if list(texts) == [""]:
            return self._empty
        return token_counts(self.model, as_texts(self.model, texts), self.prompt)
