"""Turn Vietnamese NLI, fact-checking and reading-comprehension sets into contrastive training rows.

The ViCLSR paper (arXiv 2603.21084) gives no algorithm for this step; this one is the project's own.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from string import ascii_uppercase
from typing import Any, Literal

from st_vi.data.accepted import Rows, as_dataset
from st_vi.data.columns import bad_value, check_choice, clean_text, clean_texts, find_columns, is_missing, number_of
from st_vi.data.labels import CONTRADICTION, ENTAILMENT, NEUTRAL, OTHER, canonical_labels
from st_vi.data.triplets import MissingNegative, Report, Row, Triplets
from st_vi.text import comparison_key

Neutral = Literal["skip", "hard_negative", "weak_positive"]
Conflict = Literal["error", "skip"]
WEAK_POSITIVE_WEIGHT = 0.5


def nli_to_triplets(
    dataset: Rows,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[Any, str] | None = None,
    reverse: bool = False,
    neutral: Neutral = "skip",
    missing_negative: MissingNegative = "pair",
    conflict: Conflict = "error",
    seed: int = 0,
) -> Triplets:
    """Premise, hypothesis and label become anchor, positive and negative.

    Rows are grouped by anchor. Texts are compared by `st_vi.text.comparison_key`: those that differ in the place of a
    tone mark ("Hòa", "Hoà") are one, in the spelling that comes first. They are returned as `st_vi.text.normalise`
    gives them. Each entailed hypothesis takes a contradicting one of the same anchor; where their numbers differ,
    the contradictions are shuffled and cycled. Repeated rows and rows with the label "other" are skipped.

    Args:
        dataset: Rows with a premise, a hypothesis and a label.
        columns: Role ("premise", "hypothesis", "label") to column, for columns with unusual names.
        labels: Label value to "entailment", "neutral", "contradiction" or "other"; needed for integers.
        reverse: Use the hypothesis as anchor and the premises as its positives and negatives.
        neutral: "skip" leaves neutral rows out; "hard_negative" adds one of them to each row as another negative;
            "weak_positive" makes each a row of its own, with the weight 0.5 in the loss.
        missing_negative: A positive whose anchor has no negative: keep it as a "pair", or "skip" it.
        conflict: The same text as positive and as negative of an anchor: an "error", or "skip" it on both sides.
        seed: Seed of the shuffle.

    Returns:
        `Triplets`: pass it to the trainer as it is, or take ``["triplets"]``; print its ``report``.

    Raises:
        ValueError: Missing column, unknown label, text that is empty or no string, conflicting labels, or no
            usable pair. Names column, row (from 0) and value.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.data import nli_to_triplets
        >>> rows = nli_to_triplets(Dataset.from_dict({
        ...     "premise": ["Trời đang mưa to."] * 2,
        ...     "hypothesis": ["Bên ngoài có mưa.", "Trời khô ráo."],
        ...     "label": ["entailment", "contradiction"],
        ... }))
        >>> rows["triplets"][0]
        {'anchor': 'Trời đang mưa to.', 'positive': 'Bên ngoài có mưa.', 'negative': 'Trời khô ráo.'}
        >>> rows.report  # print it for a table
        {'rows read': 2, 'entailment': 1, 'contradiction': 1, 'anchors': 1, 'triplets': 1}
    """
    dataset = as_dataset(dataset)
    check_choice("neutral", neutral, Neutral)
    check_choice("missing_negative", missing_negative, MissingNegative)
    check_choice("conflict", conflict, Conflict)
    roles = ("hypothesis", "premise") if reverse else ("premise", "hypothesis")
    found = find_columns(dataset.column_names, (*roles, "label"), columns)
    names = canonical_labels(dataset, found["label"], labels)
    spelling: dict[str, str] = {}  # of twins such as "Hòa" and "Hoà", the one that comes first
    anchors, others = (
        [
            spelling.setdefault(comparison_key(text, normalised=True), text)
            for text in clean_texts(dataset[found[role]], found[role])
        ]
        for role in roles
    )

    report = Report({"rows read": len(dataset)})
    report |= {name: Counter(names)[name] for name in (ENTAILMENT, NEUTRAL, CONTRADICTION, OTHER)}
    # A dict keeps the order and the first row number of every distinct row.
    distinct: dict[tuple[str, str, str], int] = {}
    for row, key in enumerate(zip(anchors, others, names, strict=True)):
        distinct.setdefault(key, row)
    report["duplicates skipped"] = len(dataset) - len(distinct)

    positive_labels = {ENTAILMENT: 1.0} | ({NEUTRAL: WEAK_POSITIVE_WEIGHT} if neutral == "weak_positive" else {})
    negative_labels = [CONTRADICTION] + ([NEUTRAL] if neutral == "hard_negative" else [])
    used = {key: row for key, row in distinct.items() if key[2] in {*positive_labels, *negative_labels}}
    conflicts = _conflicts(used, set(positive_labels), set(negative_labels))
    if conflicts and conflict == "error":
        (anchor, text), row = next(iter(conflicts.items()))
        problem = f'positive and negative are equal under the anchor {anchor!r} (conflict="skip" leaves such rows out)'
        bad_value(found[roles[1]], row, text, problem)
    report["conflicts skipped"] = sum((anchor, text) in conflicts for anchor, text, _ in used)

    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for anchor, text, label in used:
        if (anchor, text) not in conflicts:
            groups[anchor][label].append(text)
    report["anchors"] = len(groups)

    rows = list(_pair_up(groups, positive_labels, negative_labels, seed))
    report["anchors without a positive"] = len(groups) - len({row.anchor for row in rows})
    if missing_negative == "skip":
        report["positives without a negative, skipped"] = sum(not row.negatives for row in rows)
        rows = [row for row in rows if row.negatives]
    return Triplets.from_rows(rows, _without_zeros(report))


def fact_check_to_triplets(
    dataset: Rows,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[Any, str] | None = None,
    reverse: bool = False,
    neutral: Neutral = "skip",
    missing_negative: MissingNegative = "pair",
    conflict: Conflict = "error",
    seed: int = 0,
) -> Triplets:
    """Evidence, claim and verdict become anchor, positive (supported) and negative (refuted).

    Works like `nli_to_triplets`, with the roles "evidence", "claim" and "label"; "not enough information" is neutral.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.data import fact_check_to_triplets
        >>> rows = fact_check_to_triplets(Dataset.from_dict({
        ...     "Evidence": ["Cầu dài 1,2 km."] * 2,
        ...     "Statement": ["Cầu dài hơn một cây số.", "Cầu dài 3 km."],
        ...     "labels": [0, 1],
        ... }), labels={0: "supported", 1: "refuted"})
        >>> rows["triplets"]["negative"][0]
        'Cầu dài 3 km.'
    """
    dataset = as_dataset(dataset)
    found = find_columns(dataset.column_names, ("evidence", "claim", "label"), columns)
    as_nli = {"premise": found["evidence"], "hypothesis": found["claim"], "label": found["label"]}
    return nli_to_triplets(dataset, as_nli, labels, reverse, neutral, missing_negative, conflict, seed)


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
    report, rows = (
        Report({"rows read": len(dataset), "questions": 0, "duplicates skipped": 0, "conflicts skipped": 0}),
        [],
    )
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
    return Triplets.from_rows(unique, _without_zeros(report))


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


def _pair_up(
    groups: Mapping[str, Mapping[str, list[str]]], positive: Mapping[str, float], negative: Sequence[str], seed: int
) -> Iterator[Row]:
    """Give each positive of an anchor one text of every negative label of that anchor."""
    for anchor, texts in groups.items():
        generator = random.Random(f"{seed} {anchor}")  # of this anchor alone, so that other rows change nothing
        positives = [(text, weight) for label, weight in positive.items() for text in texts[label]]
        pools = [generator.sample(texts[label], len(texts[label])) for label in negative if texts[label]]
        for number, (text, weight) in enumerate(positives):
            yield Row(anchor, text, tuple(pool[number % len(pool)] for pool in pools), weight)


def _conflicts(
    rows: Mapping[tuple[str, str, str], int], positive: set[str], negative: set[str]
) -> dict[tuple[str, str], int]:
    """Every (anchor, text) with labels that contradict each other, and the row where that shows."""
    labels: dict[tuple[str, str], set[str]] = defaultdict(set)
    found: dict[tuple[str, str], int] = {}
    for (anchor, text, label), row in rows.items():
        seen = labels[anchor, text]
        seen.add(label)
        if (seen & positive and seen & negative) or len(seen & positive) > 1:
            found.setdefault((anchor, text), row)
    return found


def _check_template(template: str) -> None:
    try:
        template.format(question="", passage="")
    except (AttributeError, KeyError, IndexError, ValueError) as error:
        raise ValueError(f"template may name {{question}} and {{passage}} only, got {template!r}") from error


def _without_zeros(report: Report) -> Report:
    return Report({name: number for name, number in report.items() if number})
