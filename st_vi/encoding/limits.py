"""Truncated texts: how many there are, and how to split them into chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sentence_transformers import SentenceTransformer

from st_vi.encoding.batches import token_counts
from st_vi.encoding.shards import Cut
from st_vi.inputs.kinds import as_texts
from st_vi.modules import WordSegmentedTransformer
from st_vi.modules.tokenizers import own_tokenizer
from st_vi.text.chunks import chunk_spans
from st_vi.text.segmentation import segment_words

_NO_LIMIT = 10**9  # transformers writes "none" as 10³⁰


def token_limit(model: SentenceTransformer) -> int | None:
    """Maximum number of tokens of an input, including special ones; None for no limit."""
    limit = model.max_seq_length
    return limit if limit is not None and limit < _NO_LIMIT else None


def count_cut(model: SentenceTransformer, inputs: Sequence[Any], counts: dict[int, int], prompt: str | None) -> Cut:
    """Count truncated inputs, given the number of tokens that the model reads of each.

    Only for texts without images: visual tokens are never cut off.
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
    """Splits texts at sentence boundaries into chunks that fit the maximum length of the model, or fewer tokens.

    The tokens of a chunk include the prompt and special tokens.
    """

    def __init__(self, model: SentenceTransformer, tokens: int | None, prompt: str | None) -> None:
        limit = token_limit(model)
        if tokens is None and limit is None:
            raise ValueError("this model has no maximum length: set the tokens per chunk, such as chunk=512")
        if tokens is not None and limit is not None and tokens > limit:
            raise ValueError(f"chunks of {tokens} tokens are more than the {limit} that the model reads")
        self.model, self.prompt = model, prompt
        # Counts are after truncation: a text with the maximum number of tokens may have had more.
        self.limit = limit - 1 if limit is not None and tokens in (None, limit) else tokens
        assert self.limit is not None
        self._empty = token_counts(model, [""], prompt)
        if self._empty[0] >= self.limit:
            raise ValueError(f"chunks of {tokens or limit} tokens have no room beside prompt and special tokens")

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The chunks of a text as (start, end), in characters."""
        assert self.limit is not None
        return chunk_spans(text, self.limit, self._count)

    def _count(self, texts: Sequence[str]) -> list[int]:
        if list(texts) == [""]:
            return self._empty
        return token_counts(self.model, as_texts(self.model, texts), self.prompt)
