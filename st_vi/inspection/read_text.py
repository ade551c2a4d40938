"""Alignment of tokens with the characters of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sentence_transformers.base.modules import Transformer

from st_vi.inputs.kinds import plain_text
from st_vi.modules import Qwen2VLTransformer, WordSegmentedTransformer
from st_vi.modules.tokenizers import own_tokenizer
from st_vi.text import is_blank
from st_vi.text.segmentation import segment_words
from st_vi.text.units import Span, whole_letters

_FILLER = "\ue000"  # private use: does not occur in templates or real text


@dataclass(frozen=True)
class ReadText:
    """A text with its template and prefix, and its N tokens.

    Attributes:
        text: The full string that is tokenized.
        tokens: N names from the vocabulary.
        spans: N pairs (start, end) of whole letters; empty for added special tokens.
        kinds: N kinds: "text" for the user's text, "prefix" for the prompt, "special" for special tokens and words of
            the chat template.
        seen: The user's text as far as the model saw it.
        truncated: Whether tokens were cut off.
    """

    text: str
    tokens: tuple[str, ...]
    spans: tuple[Span, ...]
    kinds: tuple[Literal["text", "prefix", "special"], ...]
    seen: Span
    truncated: bool


def read_text(transformer: Transformer, text: str, prompt: str | None, ids: Sequence[int]) -> ReadText:
    """Find the characters of every token, given the text and the prompt of `encode`, and the ids of `preprocess`.

    Raises:
        ValueError: The tokenizer is not a fast one, or its tokens differ from those of `preprocess`.
    """
    tokenizer: Any = getattr(transformer, "tokenizer", None)
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"{type(transformer).__name__} has no fast tokenizer, which is needed for the characters of each token"
        )
    text = _as_preprocessed(transformer, text)
    rendered = _render(transformer, text, prompt)
    encoding = own_tokenizer(tokenizer)(
        rendered,
        add_special_tokens=not _takes_messages(transformer),
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        truncation=False,
        verbose=False,
    )
    chosen = _aligned(list(ids), encoding["input_ids"])
    if chosen is None:
        raise ValueError(f"the tokenizer and the model split {rendered!r:.100} into different tokens")
    return _parts(transformer, rendered, prompt, encoding, chosen)


def _parts(
    transformer: Transformer, rendered: str, prompt: str | None, encoding: Mapping[str, Any], chosen: list[int]
) -> ReadText:
    before, _, behind = _render(transformer, _FILLER, prompt).partition(_FILLER)
    start, end = len(before), len(rendered) - len(behind)  # of the user's text
    prefix_start, prefix_end = _find_prompt(before, prompt)
    tokenizer: Any = transformer.tokenizer
    tokens = tokenizer.convert_ids_to_tokens([encoding["input_ids"][number] for number in chosen])
    special = set(tokenizer.all_special_tokens)
    spans: list[Span] = []
    kinds: list[Literal["text", "prefix", "special"]] = []
    for number, token in zip(chosen, tokens, strict=True):
        first, last = whole_letters(rendered, tuple(encoding["offset_mapping"][number]))
        if last <= first and encoding["special_tokens_mask"][number]:
            kinds.append("special")
        elif prefix_start < last <= prefix_end:
            kinds.append("prefix")
        elif last > start and first < end and not (token in special and rendered[first:last].strip() == token):
            kinds.append("text")  # includes unknown letters, though their token is special
            first, last = max(first, start), min(last, end)  # the token may include a space of the prefix
        else:
            kinds.append("special")
        spans.append((first, last))
    truncated = len(chosen) < len(encoding["input_ids"])
    if truncated:
        own = [span for span, kind in zip(spans, kinds, strict=True) if kind == "text"]
        start, end = (own[0][0], max(last for _, last in own)) if own else (start, start)
    return ReadText(rendered, tuple(tokens), tuple(spans), tuple(kinds), (start, end), truncated)


def _find_prompt(before: str, prompt: str | None) -> Span:
    """The span of the prompt, with the following spaces, in the string before the text."""
    words = (prompt or "").strip()
    start = before.rfind(words) if words else -1
    if start < 0:
        return len(before), len(before)
    behind = before[start + len(words) :]
    return start, len(before) - len(behind.lstrip())


def _as_preprocessed(transformer: Transformer, text: str) -> str:
    """The text as preprocessed by the backbones of st_vi, before any template."""
    if isinstance(transformer, WordSegmentedTransformer):
        return segment_words(text)
    if isinstance(transformer, Qwen2VLTransformer):
        return plain_text(text) if not is_blank(text) else transformer.tokenizer.pad_token  # type: ignore[union-attr,return-value]
    return text


def _takes_messages(transformer: Transformer) -> bool:
    return "message" in transformer.modalities


def _render(transformer: Transformer, text: str, prompt: str | None) -> str:
    """The string that is tokenized."""
    if not _takes_messages(transformer):
        return (prompt or "") + text
    formatter = transformer.input_formatter
    _, inputs = formatter.batch_to_message("text", {"text": [text]})
    messages = inputs["message"]
    if prompt:
        messages = formatter.prepend_prompt_to_messages(messages, prompt)
    settings = (transformer.processing_kwargs or {}).get("chat_template", {})
    return transformer.processor.apply_chat_template(messages, tokenize=False, **settings)[0]


def _aligned(ids: list[int], full: list[int]) -> list[int] | None:
    """Indices of the tokens of the full text that the model saw; after truncation, the first and last ones."""
    head = 0
    while head < len(ids) and head < len(full) and ids[head] == full[head]:
        head += 1
    tail = len(ids) - head
    if tail > len(full) - head or ids[head:] != full[len(full) - tail :]:
        return None
    return [*range(head), *range(len(full) - tail, len(full))]
