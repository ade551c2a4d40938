"""Chunks of long texts: whole sentences, in pieces that fit a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from st_vi.text.sentences import sentence_spans
from st_vi.text.units import Span

Count = Callable[[Sequence[str]], list[int]]


def chunk_spans(text: str, limit: int, count: Count) -> list[Span]:
    """Pieces of a text as (start, end), each as many whole sentences as fit.

    A sentence that does not fit begins a piece and is cut between words; a word that does not fit, between characters.
    Everything between two pieces is white space. A piece costs at most `limit`; `count` gives the costs of texts, such
    as their numbers of tokens with special ones, and that of an empty text is part of each.

    Example:
        >>> from st_vi.text.chunks import chunk_spans
        >>> text = "Trời mưa to. Đường ngập. Học sinh cả trường được nghỉ học."
        >>> spans = chunk_spans(text, 5, lambda texts: [len(text.split()) for text in texts])
        >>> [text[start:end] for start, end in spans]
        ['Trời mưa to. Đường ngập.', 'Học sinh cả trường được', 'nghỉ học.']
    """
    (empty,) = count([""])
    if empty >= limit:
        raise ValueError(f"pieces of {limit} leave no room for a text: an empty one has {empty}")
    sentences = sentence_spans(text)
    whole = _costs(text, sentences, count, empty)
    chunks: list[Span] = []
    group: list[tuple[Span, int]] = []
    for span, cost in zip(sentences, whole, strict=True):
        if cost + empty > limit:
            chunks += _packed(group, limit - empty)
            words = _fitting(text, [(span[0] + m.start(), span[0] + m.end()) for m in _words(text, span)], limit, count)
            pieces = _packed(list(zip(words, _costs(text, words, count, empty), strict=True)), limit - empty)
            *full, last = pieces
            chunks += full
            group = [(last, _costs(text, [last], count, empty)[0])]
        else:
            group.append((span, cost))
    chunks += _packed(group, limit - empty)
    return _checked(text, chunks, limit, count)


def _words(text: str, span: Span) -> list[re.Match[str]]:
    return list(re.finditer(r"\S+", text[span[0] : span[1]]))


def _costs(text: str, spans: Sequence[Span], count: Count, empty: int) -> list[int]:
    """The cost that each adds to a piece; at least 1, because white space may cost, too."""
    return [max(1, cost - empty) for cost in count([text[start:end] for start, end in spans])] if spans else []


def _packed(parts: list[tuple[Span, int]], room: int) -> list[Span]:
    """Join neighbours as long as there is room."""
    chunks: list[Span] = []
    used = 0
    for (start, end), cost in parts:
        if chunks and used + cost <= room:
            chunks[-1], used = (chunks[-1][0], end), used + cost
        else:
            chunks.append((start, end))
            used = cost
    return chunks


def _fitting(text: str, spans: list[Span], limit: int, count: Count) -> list[Span]:
    """The spans, halved until each fits."""
    costs = count([text[start:end] for start, end in spans])
    if max(costs, default=0) <= limit:
        return spans
    parts: list[Span] = []
    for (start, end), cost in zip(spans, costs, strict=True):
        if cost <= limit:
            parts.append((start, end))
        elif end - start == 1:
            raise ValueError(f"pieces of {limit} have no room for the character {text[start:end]!r}")
        else:
            middle = (start + end) // 2
            parts += _fitting(text, [(start, middle), (middle, end)], limit, count)
    return parts


def _checked(text: str, chunks: list[Span], limit: int, count: Count) -> list[Span]:
    """The chunks; those that cost more than the sum of their parts are cut once more."""
    costs = count([text[start:end] for start, end in chunks]) if chunks else []
    checked: list[Span] = []
    for (start, end), cost in zip(chunks, costs, strict=True):
        if cost <= limit:
            checked.append((start, end))
            continue
        inside = [(start + a, start + b) for a, b in sentence_spans(text[start:end])]
        if len(inside) == 1:
            inside = [(start + m.start(), start + m.end()) for m in _words(text, (start, end))]
        if len(inside) == 1:
            checked += _fitting(text, inside, limit, count)
            continue
        half = len(inside) // 2
        checked += _checked(text, [(start, inside[half - 1][1]), (inside[half][0], end)], limit, count)
    return checked
