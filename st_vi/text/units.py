"""Sub-word tokens and the letters and syllables that they belong to."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Literal

from st_vi.checks import check_choice

Span = tuple[int, int]
By = Literal["syllable", "token"]


def whole_letters(text: str, span: Span) -> Span:
    """The span, widened so that no letter is cut from its diacritics.

    Tokenizers that compose letters (NFC) count a decomposed letter (NFD) as its first character, and a token of
    byte-level BPE may be a part of a letter. An empty span stays empty.

    Example:
        >>> import unicodedata
        >>> from st_vi.text.units import whole_letters
        >>> text = unicodedata.normalize("NFD", "ở Huế")  # "o", horn, hook above, …
        >>> whole_letters(text, (0, 1))
        (0, 3)
    """
    start, end = span
    if start == end:
        return span
    while 0 < start < len(text) and _is_mark(text[start]):
        start -= 1
    while end < len(text) and _is_mark(text[end]):
        end += 1
    return start, end


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def groups(text: str, spans: Sequence[Span], by: By = "syllable") -> list[list[int]]:
    """Numbers of tokens that belong together, given the span of every token in the text, from left to right.

    By "syllable", all between two spaces do, and a token that spans several syllables joins them; by "token", only
    those that are parts of one letter.

    Example:
        >>> from st_vi.text.units import groups
        >>> spans = [(0, 2), (2, 4), (4, 8), (7, 8)]  # "Tr", "ời", " mưa" and half of its last letter
        >>> groups("Trời mưa", spans), groups("Trời mưa", spans, by="token")
        ([[0, 1], [2, 3]], [[0], [1], [2, 3]])
    """
    check_choice("by", by, By)
    places = _syllables(text) if by == "syllable" else list(range(len(text)))
    found: list[list[int]] = []
    reached = -1
    for number, (start, end) in enumerate(spans):
        # A token without a character of its own, such as a lone "▁", goes with the next one.
        first, last = (places[min(place, len(text) - 1)] if text else 0 for place in (start, max(start, end - 1)))
        if found and first <= reached:
            found[-1].append(number)
        else:
            found.append([number])
        reached = max(reached, last)
    return found


def _syllables(text: str) -> list[int]:
    """For each character the number of its syllable; spaces count to the one that follows."""
    numbers, begun = [], 0
    for place, character in enumerate(text):
        if not character.isspace() and (place == 0 or text[place - 1].isspace()):
            begun += 1
        numbers.append(begun if character.isspace() else begun - 1)
    return [min(number, max(begun - 1, 0)) for number in numbers]


def without(text: str, span: Span) -> str:
    """The text after these characters are deleted, with one space where a whole word has gone.

    Example:
        >>> from st_vi.text.units import without
        >>> without("Trời mưa to.", (4, 8)), without("Trời mưa to.", (0, 4)), without("Trời mưa to.", (2, 4))
        ('Trời to.', 'mưa to.', 'Tr mưa to.')
    """
    start, end = span
    piece = text[start:end]
    if piece.strip():  # its own space stays, unless it would stand beside another one or at an edge
        start += len(piece) - len(piece.lstrip())
    before, after = text[:start], text[end:]
    if piece.strip() and (not after or after[0].isspace()):
        before = before.rstrip()
    return before + after if before else after.lstrip()
