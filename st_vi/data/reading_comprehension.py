"""Questions with options become contrastive training rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from st_vi.checks import check_choice
from st_vi.data.accepted import Rows, as_dataset
from st_vi.data.columns import clean_text, find_columns
from st_vi.data.triplets import Conflict, Report, Row, Triplets
from st_vi.data.values import bad_value, number_of
from st_vi.inputs.kinds import is_missing
from st_vi.text import comparison_key


def reading_comprehension_to_triplets(
    dataset: Rows,
    columns: Mapping[str, str] | None = None,
    template: str = "{question} {passage}",
    conflict: Conflict = "error",
) -> Triplets:
    """Question and passage become the anchor, the right option the positive, the wrong ones the negatives.

    The number of options may vary from row to row. One row may also hold a passage with lists of questions,
    options and answers (the layout of RACE).

    Args:
        dataset: Rows with a question, options, an answer, and perhaps a passage.
        columns: Role ("passage", "question", "options", "answer") to column, for unusual names.
        template: Makes the anchor. The question comes first because encoders truncate long texts at the end, and
            without it all questions on a long passage would share one anchor.
        conflict: A wrong option that equals the right one: an "error", or "skip" it.

    Returns:
        `Triplets`, with the keys "3_negatives" for four options, and so on.

    Raises:
        ValueError: Missing column, an answer that is no option, text that is empty or no string, conflicting
            options, a bad template, or no usable row. Names column, row (from 0) and value.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.data import reading_comprehension_to_triplets
        >>> rows = reading_comprehension_to_triplets(Dataset.from_dict({
        ...     "article": ["Lan nuôi một con mèo."], "question": ["Lan nuôi con gì?"],
        ...     "options": [["chó", "mèo", "cá"]], "answer": ["B"],
        ... }))
        >>> rows["2_negatives"][0]["positive"]
        'mèo'
    """
    dataset = as_dataset(dataset)
    check_choice("conflict", conflict, Conflict)
    roles = ("passage", "question", "options", "answer")
    found = find_columns(dataset.column_names, roles, columns, optional=("passage",))
    report = Report({"rows read": len(dataset), "questions": 0, "duplicates skipped": 0, "conflicts skipped": 0})
    rows = []
    _check_template(template)
    for number, raw in enumerate(dataset.select_columns(list(found.values()))):
        passage = (
            ""
            if is_missing(raw.get(found.get("passage")))
            else clean_text(raw[found["passage"]], found["passage"], number)
        )
        for question, options, answer in _questions(raw, found, number):
            report["questions"] += 1
            right = options[_answer_index(answer, options, found["answer"], number)]
            key = comparison_key(right)
            wrong = list(options)
            wrong.remove(right)
            if twins := [option for option in wrong if comparison_key(option) == key]:
                if conflict == "error":
                    bad_value(
                        found["options"],
                        number,
                        right,
                        'a wrong option equals the right one (conflict="skip" leaves it out)',
                    )
                report["conflicts skipped"] += len(twins)
                wrong = [option for option in wrong if option not in twins]
            anchor = template.format(question=question, passage=passage).strip()
            if not anchor:
                bad_value(found.get("passage", "passage"), number, passage, f"the template {template!r} needs a text")
            distinct: dict[str, str] = {}
            for option in wrong:
                distinct.setdefault(comparison_key(option), option)
            rows.append(Row(anchor, right, tuple(distinct.values())))
    unique = list(dict.fromkeys(rows))
    report["duplicates skipped"] = len(rows) - len(unique)
    return Triplets.from_rows(unique, Report({name: number for name, number in report.items() if number}))


def _questions(raw: dict[str, Any], found: dict[str, str], row: int) -> Iterator[tuple[str, list[str], Any]]:
    question, options, answer = (raw[found[role]] for role in ("question", "options", "answer"))
    if not isinstance(question, list):
        question, options, answer = [question], [options], [answer]
    for role, values in (("options", options), ("answer", answer)):
        if not isinstance(values, list) or len(values) != len(question):
            bad_value(found[role], row, values, f"expected a list with one for each of {len(question)} questions")
    for one_question, one_options, one_answer in zip(question, options, answer, strict=True):
        if not isinstance(one_options, Sequence) or isinstance(one_options, str) or len(one_options) < 2:
            bad_value(found["options"], row, one_options, "expected a list of two or more options")
        texts = [clean_text(option, found["options"], row) for option in one_options]
        yield clean_text(one_question, found["question"], row), texts, one_answer


def _answer_index(answer: Any, options: list[str], column: str, row: int) -> int:
    """An index, a letter from A, or the text of the option."""
    if isinstance(answer, str):
        text = clean_text(answer, column, row)
        keys = [comparison_key(option) for option in options]
        if comparison_key(text) in keys:
            return options.index(text) if text in options else keys.index(comparison_key(text))
        index = ascii_uppercase.find(text.upper()) if len(text) == 1 else -1
        number = number_of(text)  # files without types have numbers as text
    else:
        index, number = -1, answer
    if isinstance(number, (int, float)) and not isinstance(number, bool) and number % 1 == 0:
        index = int(number)
    if not 0 <= index < len(options):
        bad_value(column, row, answer, f"expected one of {len(options)} options by index, letter or text")
    return index


def _check_template(template: str) -> None:
    try:
        template.format(question="", passage="")
    except (AttributeError, KeyError, IndexError, ValueError) as error:
        raise ValueError(f"template may name {{question}} and {{passage}} only, got {template!r}") from error
