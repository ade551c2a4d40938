"""The many names of the three NLI labels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from datasets import ClassLabel, Dataset

from st_vi.data.columns import bad_value, shown

ENTAILMENT, NEUTRAL, CONTRADICTION, OTHER = "entailment", "neutral", "contradiction", "other"
SYNONYMS: dict[str, str] = {
    "entailment": ENTAILMENT,
    "entail": ENTAILMENT,
    "supported": ENTAILMENT,
    "supports": ENTAILMENT,
    "support": ENTAILMENT,
    "yes": ENTAILMENT,
    "contradiction": CONTRADICTION,
    "contradictory": CONTRADICTION,
    "refuted": CONTRADICTION,
    "refutes": CONTRADICTION,
    "refute": CONTRADICTION,
    "neutral": NEUTRAL,
    "nei": NEUTRAL,
    "not enough information": NEUTRAL,
    "other": OTHER,
}


def canonical_labels(dataset: Dataset, column: str, given: Mapping[Any, str] | None = None) -> list[str]:
    """Each row's label as "entailment", "neutral", "contradiction" or "other".

    Names are recognised whatever their case. Integers mean nothing by themselves: they need `given`, or a
    `ClassLabel` feature that names them.

    Args:
        dataset: The rows.
        column: The label column.
        given: Label value to label name, over the usual names.

    Raises:
        ValueError: A value that is not known; names column, row and value, and lists what the column holds.

    Example:
        >>> from datasets import Dataset
        >>> canonical_labels(Dataset.from_dict({"label": [0, 2]}), "label", {0: "entailment", 2: "neutral"})
        ['entailment', 'neutral']
    """
    known: dict[Any, str] = dict(SYNONYMS)
    feature = dataset.features[column]
    if isinstance(feature, ClassLabel):
        known |= {value: SYNONYMS.get(name.lower(), name) for value, name in enumerate(feature.names)}
    for value, name in (given or {}).items():
        if not isinstance(name, str) or name.lower() not in SYNONYMS:
            raise ValueError(f"labels: {value!r} is mapped to {name!r}; use one of {sorted(set(SYNONYMS.values()))}")
        known[_key(value)] = SYNONYMS[name.lower()]

    values = list(dataset[column])
    labels: list[Any] = [known.get(_key(value)) for value in values]
    for row, (value, label) in enumerate(zip(values, labels, strict=True)):
        if label not in (ENTAILMENT, NEUTRAL, CONTRADICTION, OTHER):
            seen = sorted({shown(value) for value in values})[:20]
            bad_value(
                column,
                row,
                value,
                f"unknown label (the column holds {', '.join(seen)}; map them with labels={{...}})",
            )
    return labels


def _key(value: Any) -> Any:
    """What a label is looked up by."""
    if isinstance(value, str):
        return value.strip().lower()
    return value if isinstance(value, Hashable) else None
