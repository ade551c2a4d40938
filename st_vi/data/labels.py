"""The many names of the three NLI labels, English and Vietnamese."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from datasets import ClassLabel, Dataset

from st_vi.data.columns import bad_value, shown
from st_vi.text import comparison_key, normalise, strip_diacritics

logger = logging.getLogger(__name__)

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
_VERDICTS = {"đúng": ENTAILMENT, "sai": CONTRADICTION}


def _folded(text: str) -> str:
    """Without case and diacritics, "_" and "-" as spaces: how names are looked up."""
    return " ".join(re.split(r"[\s_-]+", strip_diacritics(normalise(text).casefold()))).strip()


SYNONYMS: dict[str, str] = {_folded(name): label for label, names in _NAMES.items() for name in names}
_FOLDED_VERDICTS = {_folded(name): label for name, label in _VERDICTS.items()}


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
    names = feature.names if isinstance(feature, ClassLabel) else None

    def name_of(value: Any) -> Any:
        return names[value] if names and isinstance(value, int) and 0 <= value < len(names) else value

    def label_of(value: Any) -> str | None:
        for key in (*_keys(value), *_keys(name_of(value))):
            if key in mapped:
                return mapped[key]
        name = name_of(value)
        return SYNONYMS.get(_folded(name)) if isinstance(name, str) else None

    # Distinct ones first: a column has millions of rows and three labels.
    found: dict[Any, str | None] = {}
    for value in values:
        if (key := repr(value)) not in found:
            found[key] = label_of(value)
    unknown = {_folded(str(name_of(value))) for value in values if found[repr(value)] is None}
    if unknown <= set(_FOLDED_VERDICTS) and set(found.values()) <= {None, NEUTRAL, OTHER}:
        for value in values:
            if found[repr(value)] is None:
                found[repr(value)] = _FOLDED_VERDICTS[_folded(str(name_of(value)))]
    for row, value in enumerate(values):
        if found[repr(value)] is None:
            bad_value(column, row, value, f"unknown label ({_held(dataset, column)}; map them with labels={{...}})")
    return [label for value in values if (label := found[repr(value)])]


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
    if isinstance(value, (int, float)):
        return (str(int(value)) if value == value // 1 else str(value),)
    return ("None",) if value is None else ()
