"""Texts and questions drawn from several sets of documents by their shares."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from random import Random

from datasets import Dataset, concatenate_datasets

from st_vi.data.documents import SHORTEST_ANSWER, document_questions, document_texts
from st_vi.vocabulary.trim import check_vietnamese


def split_by_share(count: int, sets: int, shares: Sequence[float] | None) -> list[int]:
    """How many of `count` each set gives; equal numbers without shares.

    Raises:
        ValueError: Not one share for each set, a negative share or one that is not finite, or none above 0.

    Example:
        >>> from st_vi.recipes.distil.draw import split_by_share
        >>> split_by_share(200, 2, [3, 1])
        [150, 50]
    """
    parts = list(shares or [1.0] * sets)
    if len(parts) != sets:
        raise ValueError(f"there are {sets} sets of documents and {len(parts)} shares")
    if not all(0 <= share < inf for share in parts) or not sum(parts):
        raise ValueError(f"shares must be numbers of 0 or more, and not all 0, got {parts}")
    return [round(count * share / sum(parts)) for share in parts]


def check_documents(sets: Sequence[Dataset]) -> None:
    """Check that documents are Vietnamese, before anything is drawn: what is made of them has Vietnamese words.

    Raises:
        ValueError: They are not.
    """
    each = max(1, 1000 // len(sets))
    check_vietnamese([text for rows in sets for text in rows["text"][:each]])


def draw_texts(
    sets: Sequence[Dataset], texts: Sequence[str], count: int, shares: Sequence[float] | None, seed: int
) -> list[str]:
    """Texts of the sets by their shares, and a tenth from other texts, repeated if needed."""
    other = count // 10 if texts else 0
    counts = split_by_share(count - other, len(sets), shares)
    drawn = [text for rows, part in zip(sets, counts, strict=True) for text in document_texts(rows, part, seed)]
    drawn += [texts[number % len(texts)] for number in range(other)]
    Random(seed).shuffle(drawn)
    return drawn


def draw_questions(
    sets: Sequence[Dataset], own: Dataset | None, count: int, shares: Sequence[float] | None, seed: int
) -> Dataset:
    """Rows anchor, positive, document made of the sets by their shares, and those of one's own.

    Raises:
        ValueError: There is no row. See also `split_by_share` and `document_questions`.
    """
    counts = split_by_share(count, len(sets), shares)
    made = [document_questions(rows, part, seed) for rows, part in zip(sets, counts, strict=True)]
    if own is not None:
        made.append(own)
    if not any(map(len, made)):
        raise ValueError(
            "no paragraph of the documents gives a question: those that do have at least "
            f"{SHORTEST_ANSWER} characters, in whole sentences"
        )
    return concatenate_datasets([rows.select_columns(["anchor", "positive", "document"]) for rows in made if len(rows)])
