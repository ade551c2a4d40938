"""Columns of a dataset by their role, and their texts."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from st_vi.data.values import bad_value, shown
from st_vi.text import is_blank, normalise

logger = logging.getLogger(__name__)

USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "anchor": ("anchor", "premise", "evidence", "sentence1"),
    "premise": ("premise", "sentence1", "text1", "context"),
    "hypothesis": ("hypothesis", "sentence2", "text2"),
    "evidence": ("evidence", "context", "premise"),
    "claim": ("claim", "statement", "hypothesis"),
    "label": ("label", "labels", "gold_label", "verdict"),
    "passage": ("passage", "article", "context"),
    "question": ("question", "questions", "query"),
    "options": ("options", "choices"),
    "answer": ("answer", "answers", "correct", "label"),
    "sentence1": ("sentence1", "text1", "anchor"),
    "sentence2": ("sentence2", "text2", "positive"),
    "score": ("score", "similarity", "label"),
    "instruction": ("instruction", "prompt", "question"),
    "input": ("input", "context"),
    "output": ("output", "response", "answer"),
    "image": ("image", "images", "image_path"),
    "text": ("text", "transcription", "answer"),
    "turns": ("turns", "conversations", "dialogue"),
}


def find_columns(
    present: Sequence[str],
    wanted: Iterable[str],
    given: Mapping[str, str] | None = None,
    optional: Iterable[str] = (),
) -> dict[str, str]:
    """The column of each role: the given one, else the first usual name that is present, regardless of case.

    Args:
        present: Column names of the dataset.
        wanted: Roles to fill, keys of `USUAL_NAMES`.
        given: Role to column name, for columns with unusual names.
        optional: Roles that may stay empty.

    Raises:
        ValueError: A role without a column, a column that is not there, a role that does not exist, or one column
            for two roles.

    Example:
        >>> find_columns(["Statement", "Evidence", "labels"], ["evidence", "claim", "label"])
        {'evidence': 'Evidence', 'claim': 'Statement', 'label': 'labels'}
    """
    if not isinstance(given, Mapping | None):
        raise ValueError(f"columns must map roles to columns, such as {{'premise': 'câu a'}}, got {shown(given)}")
    given, wanted = dict(given or {}), list(wanted)
    if unknown := set(given) - set(wanted):
        raise ValueError(f"columns: no role {sorted(unknown)}; the roles are {wanted}")
    by_name: dict[str, list[str]] = {}
    for name in present:
        by_name.setdefault(normalise(name).lower(), []).append(name)
    composed = {normalise(name): name for name in reversed(present)}
    found: dict[str, str] = {}
    for role in wanted:
        if role in given:
            column = given[role] if given[role] in present else composed.get(normalise(str(given[role])))
            if column is None:
                raise ValueError(f"missing column {given[role]!r} for {role}; the columns are {list(present)}")
            found[role] = column
            continue
        names = next((by_name[name] for name in USUAL_NAMES[role] if name in by_name), [])
        if len(names) > 1:
            raise ValueError(
                f"several columns may be {role}: {names}; "
                f"name one with columns={{{role!r}: ...}} (--columns {role}=...)"
            )
        if names:
            found[role] = names[0]
        elif role not in optional:
            raise ValueError(
                f"missing column for {role}: none of {list(USUAL_NAMES[role])} among {list(present)}; "
                f"name it with columns={{{role!r}: ...}} (--columns {role}=...)"
            )
    for role, name in found.items():
        if twice := [other for other in found if other != role and found[other] == name]:
            raise ValueError(
                f"columns: {role} and {twice[0]} are both the column {name!r}; name another for one of them"
            )
    return found


def candidate_columns(present: Iterable[str]) -> list[str]:
    """Columns of positives, then of hard negatives: "positive", "positive_2", …, "negative" or "negative_1", ….

    Example:
        >>> candidate_columns(["negative_2", "negative_1", "anchor", "positive", "positive_image"])
        ['positive', 'negative_1', 'negative_2']
    """
    found = [match for name in present if (match := re.fullmatch(r"(positive|negative)(?:_(\d+))?", name))]
    return [match[0] for match in sorted(found, key=lambda match: (match[1] == "negative", int(match[2] or 0)))]


def refuse_near_misses(present: Iterable[str], known: Iterable[str]) -> None:
    """Refuse unknown columns that look like known ones: they would not be used in training.

    Raises:
        ValueError: There is one, such as "negatives", "Negative_1" or "Score"; it is named.
    """
    known = set(known)
    for name in present:
        if name in known:
            continue
        if (folded := normalise(name).lower()) in known:
            raise ValueError(f"column {name!r} is not {folded!r}: rename it, or remove it")
        if folded.startswith(("anchor", "positive", "negative")):
            raise ValueError(
                f"column {name!r} is no anchor, positive, negative or negative_1, …: rename it, or remove it"
            )


def say_what_is_left_out(present: Iterable[str], used: Iterable[str | None]) -> None:
    """Warn of columns that are not used in training."""
    used = set(used)
    if others := [name for name in present if name not in used]:
        logger.warning(f"columns that are not trained on: {', '.join(others)}")


def clean_texts(values: Iterable[Any], column: str) -> list[str]:
    """Normalised texts of a column (`st_vi.text.normalise`).

    Raises:
        ValueError: A value that is not text, or has nothing to read; names column, row (from 0) and value.
    """
    return [clean_text(value, column, row) for row, value in enumerate(values)]


def clean_text(value: Any, column: str, row: int) -> str:
    """One normalised text; see `clean_texts`."""
    if not isinstance(value, str) or not (text := normalise(value)):
        bad_value(column, row, value, "expected non-empty text")
    return text


def check_text(value: Any, column: str, row: int) -> str:
    """The text as it is; see `clean_texts` for the error."""
    if not isinstance(value, str) or is_blank(value):
        bad_value(column, row, value, "expected non-empty text")
    return value
