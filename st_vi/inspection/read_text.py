"""What a model's tokenizer really reads of a text, and which token is which part of it."""

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

_FILLER = "\ue000"  # for private use: in no template, and in no text that means anything


@dataclass(frozen=True)
class ReadText:
    """A text, its template and prefix, and its N tokens.

    Attributes:
        text: All of it, as the tokenizer gets it.
        tokens: N names from the vocabulary.
        spans: N pairs of first character and the one after the last, whole letters; empty for special tokens
            that were added.
        kinds: N; "text" is the user's own, "prefix" the prompt, "special" all else: the tokenizer's special
            tokens and the words of a chat template.
        seen: The part of `text` that is the user's own and that the model saw.
        truncated: Whether tokens were cut off.
    """

    text: str
    tokens: tuple[str, ...]
    spans: tuple[Span, ...]
    kinds: tuple[Literal["text", "prefix", "special"], ...]
    seen: Span
    truncated: bool


def read_text(transformer: Transformer, text: str, prompt: str | None, ids: Sequence[int]) -> ReadText:
    """Find the characters of every token.

    Args:
        transformer: First module of a model.
        text: As given to `encode`.
        prompt: As resolved by `encode`.
        ids: The token ids that `preprocess` made of the two, without padding.

    Raises:
        ValueError: The tokenizer is not a fast one, or it makes other tokens of the text than `preprocess` did.
    """
    tokenizer: Any = getattr(transformer, "tokenizer", None)
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"{type(transformer).__name__} has no fast tokenizer, and only those tell the characters of a token"
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
        raise ValueError(f"the tokenizer does not make of {rendered!r:.100} what the model made of it")
    return _parts(transformer, rendered, prompt, encoding, chosen)


def _parts(
    transformer: Transformer, rendered: str, prompt: str | None, encoding: Mapping[str, Any], chosen: list[int]
) -> ReadText:
    before, _, behind = _render(transformer, _FILLER, prompt).partition(_FILLER)
    start, end = len(before), len(rendered) - len(behind)  # of the user's own text
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
            kinds.append("text")  # an unknown letter, too, though its token is a special one
            first, last = max(first, start), min(last, end)  # a space of the prefix may be the token's
        else:
            kinds.append("special")
        spans.append((first, last))
    truncated = len(chosen) < len(encoding["input_ids"])
    if truncated:
        own = [span for span, kind in zip(spans, kinds, strict=True) if kind == "text"]
        start, end = (own[0][0], max(last for _, last in own)) if own else (start, start)
    return ReadText(rendered, tuple(tokens), tuple(spans), tuple(kinds), (start, end), truncated)


def _find_prompt(before: str, prompt: str | None) -> Span:
    """Where in the text's surroundings the prompt is, with the spaces behind it."""
    words = (prompt or "").strip()
    start = before.rfind(words) if words else -1
    if start < 0:
        return len(before), len(before)
    behind = before[start + len(words) :]
    return start, len(before) - len(behind.lstrip())


def _as_preprocessed(transformer: Transformer, text: str) -> str:
    """The text after what our own backbones do to it before any template."""
    if isinstance(transformer, WordSegmentedTransformer):
        return segment_words(text)
    if isinstance(transformer, Qwen2VLTransformer):
        return plain_text(text) if not is_blank(text) else transformer.tokenizer.pad_token  # type: ignore[union-attr,return-value]
    return text


def _takes_messages(transformer: Transformer) -> bool:
    return "message" in transformer.modalities


def _render(transformer: Transformer, text: str, prompt: str | None) -> str:
    """The one string that is tokenized."""
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
    """Which tokens of the full text the model saw: all, or its first ones and, after truncation, its last ones."""
    head = 0
    while head < len(ids) and head < len(full) and ids[head] == full[head]:
        head += 1
    tail = len(ids) - head
    if tail > len(full) - head or ids[head:] != full[len(full) - tail :]:
        return None
    return [*range(head), *range(len(full) - tail, len(full))]
