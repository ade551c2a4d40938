"""NLI and fact-checking rows become contrastive training rows; and the many names of the three NLI labels.

The ViCLSR paper (arXiv 2603.21084) gives no algorithm for this step; this one is the project's own.
"""

from __future__ import annotations

import logging
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

from datasets import ClassLabel, Dataset

from st_vi.checks import check_choice
from st_vi.data.accepted import Rows, as_dataset
from st_vi.data.columns import clean_texts, find_columns
from st_vi.data.triplets import Conflict, MissingNegative, Report, Row, Triplets
from st_vi.data.values import bad_value, shown
from st_vi.text import comparison_key, normalise, strip_diacritics

logger = logging.getLogger(__name__)

Neutral = Literal["skip", "hard_negative", "weak_positive"]
WEAK_POSITIVE_WEIGHT = 0.5
ENTAILMENT, NEUTRAL, CONTRADICTION, OTHER = "entailment", "neutral", "contradiction", "other"
_NAMES = {
    ENTAILMENT: (
        *("entailment", "entail", "entails", "entailed", "supported", "supports", "support", "yes"),
        *("kéo theo", "hàm ý", "suy ra", "suy ra được", "ủng hộ", "được ủng hộ", "hỗ trợ", "xác nhận"),
    ),
    CONTRADICTION: (
        *("contradiction", "contradictory", "contradict", "contradicts", "refuted", "refutes", "refute"),
        *("mâu thuẫn", "trái ngược", "đối lập", "bác bỏ", "bị bác bỏ", "phản bác"),
    ),
    NEUTRAL: (
        *("neutral", "nei", "not enough information", "not enough info"),
        *("trung lập", "trung tính", "không xác định", "chưa xác định", "không rõ"),
        *("không đủ thông tin", "chưa đủ thông tin", "thiếu thông tin"),
    ),
    OTHER: ("other", "khác"),
}


def nli_to_triplets(
    dataset: Rows,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[Any, str] | None = None,
    reverse: bool = False,
    neutral: Neutral = "skip",
    missing_negative: MissingNegative = "pair",
    conflict: Conflict = "error",
    seed: int = 0,
    places: Sequence[str] | None = None,
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
        places: Where each row comes from, such as "3 of rows.csv", for messages about rows of several files.

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
        skip = 'conflict="skip" (--skip-conflicts) leaves such rows out'
        problem = f"positive and negative are equal under the anchor {anchor!r}; {skip}"
        bad_value(found[roles[1]], places[row] if places else row, text, problem)
    report["conflicts skipped"] = sum((anchor, text) in conflicts for anchor, text, _ in used)

    groups: dict[str, dict[str, list[str]]] = {}
    for anchor, text, label in used:
        if (anchor, text) not in conflicts:
            groups.setdefault(anchor, {}).setdefault(label, []).append(text)
    report["anchors"] = len(groups)

    rows = list(_pair_up(groups, positive_labels, negative_labels, seed))
    report["anchors without a positive"] = len(groups) - len({row.anchor for row in rows})
    if missing_negative == "skip":
        report["positives without a negative, skipped"] = sum(not row.negatives for row in rows)
        rows = [row for row in rows if row.negatives]
    return Triplets.from_rows(rows, Report({name: number for name, number in report.items() if number}))


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


def _pair_up(
    groups: Mapping[str, Mapping[str, list[str]]], positive: Mapping[str, float], negative: Sequence[str], seed: int
) -> Iterator[Row]:
    """Give each positive of an anchor one text of every negative label of that anchor."""
    for anchor, texts in groups.items():
        generator = random.Random(f"{seed} {anchor}")  # of this anchor alone, so that other rows change nothing
        positives = [(text, weight) for label, weight in positive.items() for text in texts.get(label, [])]
        pools = [generator.sample(texts[label], len(texts[label])) for label in negative if label in texts]
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


def _folded(text: str) -> str:
    """Without case and diacritics, "_" and "-" as spaces: how names are looked up."""
    return " ".join(re.split(r"[\s_-]+", strip_diacritics(normalise(text).casefold()))).strip()


SYNONYMS: dict[str, str] = {_folded(name): label for label, names in _NAMES.items() for name in names}
_VERDICTS = {_folded("đúng"): ENTAILMENT, _folded("sai"): CONTRADICTION}


def canonical_labels(dataset: Dataset, column: str, given: Mapping[Any, str] | None = None) -> list[str]:
    """Each row's label as "entailment", "neutral", "contradiction" or "other".

    Names are recognised in English and Vietnamese, whatever their case, with diacritics or without, with spaces,
    "_" or "-": "entailment", "SUPPORTS", "Kéo theo", "trung_lap", "mâu thuẫn", "không đủ thông tin", …. "Đúng" and
    "sai" are verdicts of fact checks, and are known where the column has no other names than these and neutral ones:
    beside "entailment" they may mean something else. Numbers mean nothing by themselves: they need `given`, or a
    `ClassLabel` feature that names them.

    Args:
        dataset: The rows.
        column: The label column.
        given: Label value to label name, over the usual names. The key 0 stands for 0, 0.0 and "0", as a CSV file
            has it. A key that no row has is named in a warning.

    Raises:
        ValueError: A value that is not known; names column, row and value, and lists what the column holds.

    Example:
        >>> from datasets import Dataset
        >>> canonical_labels(Dataset.from_dict({"label": ["0", "2"]}), "label", {0: "entailment", 2: "neutral"})
        ['entailment', 'neutral']
        >>> canonical_labels(Dataset.from_dict({"label": ["Kéo theo", "mau_thuan"]}), "label")
        ['entailment', 'contradiction']
    """
    unused = unused_labels(dataset, column, given)
    if unused:
        logger.warning(f"labels: no row has the value {', '.join(unused)}; {_held(dataset, column)}")
    return known_labels(dataset, column, given)


def known_labels(dataset: Dataset, column: str, given: Mapping[Any, str] | None = None) -> list[str]:
    """Like `canonical_labels`, without the warning about unused keys of `given`."""
    mapped = _mapped(given)
    feature, values = dataset.features[column], list(dataset[column])
    names = feature.names if isinstance(feature, ClassLabel) else []
    keys = list(map(repr, values))
    found: dict[str, str | None] = {}
    folded: dict[str, str] = {}
    for key, value in dict(zip(keys, values, strict=True)).items():  # a column has millions of rows and three labels
        name = names[value] if isinstance(value, int) and 0 <= value < len(names) else value
        folded[key] = _folded(str(name))
        found[key] = SYNONYMS.get(folded[key]) if isinstance(name, str) else None
        if mapped:
            found[key] = next((mapped[one] for one in (*_keys(value), *_keys(name)) if one in mapped), found[key])
    unknown = {key for key, label in found.items() if label is None}
    if set(found.values()) <= {None, NEUTRAL, OTHER}:  # a value that is none of these is still an error, its own
        found |= {key: _VERDICTS[folded[key]] for key in unknown if folded[key] in _VERDICTS}
    for row, (key, value) in enumerate(zip(keys, values, strict=True)):
        if found[key] is None:
            bad_value(
                column,
                row,
                value,
                f"unknown label ({_held(dataset, column)}; map them with labels={{value: name}} (--label value=name))",
            )
    return [label for key in keys if (label := found[key])]


def unused_labels(dataset: Dataset, column: str, given: Mapping[Any, str] | None) -> list[str]:
    """Keys of `given` that stand for no value of the column, as they are shown."""
    if not given:
        return []
    _mapped(given)
    feature = dataset.features[column]
    names = feature.names if isinstance(feature, ClassLabel) else []
    held = {key for value in _distinct(dataset, column) for key in _keys(value)}
    held |= {key for name in names for key in _keys(name)}
    return [shown(value) for value in given if not held & set(_keys(value))]


def _distinct(dataset: Dataset, column: str) -> list[Any]:
    return list({repr(value): value for value in dataset[column]}.values())


def _held(dataset: Dataset, column: str) -> str:
    return f"the column holds {', '.join(sorted(map(shown, _distinct(dataset, column)))[:20])}"


def _mapped(given: Mapping[Any, str] | None) -> dict[str, str]:
    if not isinstance(given, Mapping | None):
        raise ValueError(f"labels must map values to names, such as {{0: 'entailment'}}, got {shown(given)}")
    mapped: dict[str, str] = {}
    for value, name in (given or {}).items():
        if not isinstance(name, str) or _folded(name) not in SYNONYMS:
            raise ValueError(f"labels: {value!r} is mapped to {name!r}; use one of {sorted(_NAMES)}")
        label = SYNONYMS[_folded(name)]
        for key in _keys(value):
            if mapped.setdefault(key, label) != label:
                raise ValueError(f"labels: {value!r} is there twice, as {mapped[key]!r} and as {label!r}")
    return mapped


def _keys(value: Any) -> tuple[str, ...]:
    """What a value is looked up by in a given mapping: one spelling for 1, 1.0, "1", "1.0"; True is "true" and 1."""
    if isinstance(value, str):
        text = comparison_key(value, casefold=True)
        return (text.split(".")[0] if re.fullmatch(r"-?\d+\.0+", text) else text,)
    if isinstance(value, bool):
        return (str(value).casefold(), str(int(value)))
    if isinstance(value, (int, float, Decimal)):  # of databases, the last
        return (str(int(value)) if value == value // 1 else str(value),)
    return ("None",) if value is None else ()
