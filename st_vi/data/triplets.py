"""Datasets of (anchor, positive, negatives) with a report, as all adapters return them; and their check."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Literal
from weakref import WeakSet

from datasets import Dataset, DatasetDict, IterableDataset, Value

from st_vi.data.accepted import TrainRows, as_datasets, as_train_rows
from st_vi.data.columns import candidate_columns, check_text, refuse_near_misses, say_what_is_left_out
from st_vi.data.values import bad_value, number_of
from st_vi.text import comparison_key

MissingNegative = Literal["pair", "skip"]
Conflict = Literal["error", "skip"]

_made: WeakSet[Dataset] = WeakSet()
"""Datasets of `Triplets.from_rows`: their texts need no second check, as a dataset does not change."""


@dataclass(frozen=True)
class Row:
    """One training row before it is put into columns: normalised texts, and the row's weight in the loss."""

    anchor: str
    positive: str
    negatives: tuple[str, ...]
    weight: float = 1.0


class Report(dict[str, int]):
    """Counts by name, printed as a table.

    Example:
        >>> str(Report({"rows read": 5010, "triplets": 1670})).splitlines()
        ['rows read  5,010', 'triplets   1,670']
    """

    def __str__(self) -> str:
        counts = [f"{count:,}" for count in self.values()]
        name_width, count_width = max(map(len, self), default=0), max(map(len, counts), default=0)
        return "\n".join(
            f"{name:<{name_width}}  {count:>{count_width}}" for name, count in zip(self, counts, strict=True)
        )


class Triplets(DatasetDict):
    """Training rows by their number of negatives, with a `report`.

    All rows of a batch need the same columns, so rows with the same number of negatives form a dataset: "pairs" have
    none, "triplets" one, "2_negatives" two, and so on. Columns: anchor, positive, negative (or negative_1,
    negative_2, …), and `weight`, the weight of each row in the loss, if weights differ. The stock trainer takes them as
    they are, but for weights: give it ``check_triplets(triplets)`` then.

    Attributes:
        report: All counts of the adaptation; prints as a table.
    """

    report: Report

    @classmethod
    def from_rows(cls, rows: Iterable[Row], report: Report) -> Triplets:
        """Put rows into datasets, and count them.

        Args:
            rows: Checked by the adapter that made them: no empty text, no negative that equals its positive.
            report: Counts so far.

        Raises:
            ValueError: There is no row.
        """
        rows = list(rows)
        weighted = any(row.weight != 1.0 for row in rows)
        groups: dict[int, list[dict[str, str | float]]] = defaultdict(list)
        for row in rows:
            columns = {"anchor": row.anchor, "positive": row.positive}
            count = len(row.negatives)
            numbered = ["negative"] if count == 1 else [f"negative_{i + 1}" for i in range(count)]
            columns |= dict(zip(numbered, row.negatives, strict=True))
            groups[count].append(columns | ({"weight": row.weight} if weighted else {}))
        names = {0: "pairs", 1: "triplets"}
        # The largest group first: the model card shows the first dataset first.
        order = sorted(groups, key=lambda count: -len(groups[count]))
        result = cls({names.get(n, f"{n}_negatives"): Dataset.from_list(groups[n]) for n in order})
        _made.update(result.values())
        result.report = Report(report | {name: len(dataset) for name, dataset in result.items()})
        if not rows:
            counts = ", ".join(f"{count:,} {name}" for name, count in report.items())
            raise ValueError(f"no usable pair in this dataset ({counts})")
        return result


def check_triplets(dataset: TrainRows) -> Dataset | DatasetDict:
    """Check every row before training, and put the columns in the order of training.

    The stock trainer takes columns by their place: the first is the anchor, the second the positive, and all others
    are hard negatives, whatever their names. So give it what this function returns.

    Args:
        dataset: Columns anchor, positive, and negative or negative_1, negative_2, … in any order, and perhaps weight,
            the weight of the row in the loss (a number, which may be written as text); or several such sets by name.
            A stream is read to its end.

    Returns:
        The same rows with these columns in the order of training. Weights become floats in the column "label", the name
        under which the stock trainer passes numbers to a loss; floats already under that name count as weights, too.
        Other columns are left out, with a warning that names them.

    Raises:
        ValueError: No rows, a missing column, empty or non-string text, a negative that equals its row's positive, or
            a weight that is no number of 0 or more; names column, row and value. Or a column that looks like one of
            these and is none, such as "negatives" or "score".

    Example:
        >>> from datasets import Dataset
        >>> rows = {"id": [7], "negative": ["Nắng."], "positive": ["Có mưa."], "anchor": ["Mưa."]}
        >>> check_triplets(Dataset.from_dict(rows)).column_names
        ['anchor', 'positive', 'negative']
        >>> check_triplets(Dataset.from_dict({"anchor": ["a"], "positive": ["b"], "negative": ["b"]}))
        Traceback (most recent call last):
        ValueError: column 'negative', row 0: the negative equals the positive, got 'b'
    """
    dataset = as_datasets(dataset)
    if not isinstance(dataset, Mapping):
        return checked_rows(dataset, warn=True)
    if not dataset:
        raise ValueError("no usable pair: the dataset is empty")
    checked = {}
    for name, part in dataset.items():
        try:
            checked[name] = check_triplets(part)
        except ValueError as error:
            raise ValueError(f"dataset {name!r}: {error}") from error
    same = all(checked[name] is part for name, part in dataset.items())
    return dataset if same else DatasetDict(checked)


def triplets_to_train_on(rows: TrainRows) -> Dataset | IterableDataset | DatasetDict:
    """The same, but of a stream (`IterableDataset`), a stream whose rows are checked as they come."""
    rows = as_train_rows(rows)
    return _checked_stream(rows) if isinstance(rows, IterableDataset) else check_triplets(rows)


def _checked_stream(rows: IterableDataset) -> IterableDataset:
    texts, weight = _training_columns(rows)

    def is_good(row: Mapping[str, Any], number: int) -> bool:
        _check_texts(row, texts, number)
        if weight:
            _check_weight(weight, number, row[weight])
        return True

    names = [*texts, *([weight] if weight else [])]
    say_what_is_left_out(rows.column_names, names)
    checked = rows.select_columns(names).filter(is_good, with_indices=True)
    if weight:
        checked = checked.cast_column(weight, Value("float64"))
    return checked.rename_column("weight", "label") if weight == "weight" else checked


def checked_rows(dataset: Dataset, warn: bool = False) -> Dataset:
    """Like `check_triplets` for one dataset, with or without the warning about other columns."""
    if is_made(dataset):  # as `Triplets.from_rows` put the columns
        return _with_weights(dataset, "weight") if "weight" in dataset.column_names else dataset
    texts, weight = _training_columns(dataset)
    if not len(dataset):
        raise ValueError("no usable pair: the dataset is empty")
    for number, row in enumerate(zip(*(dataset[name] for name in texts), strict=True)):
        _check_texts(dict(zip(texts, row, strict=True)), texts, number)
    names = [*texts, *([weight] if weight else [])]
    if dataset.column_names != names:
        if warn:
            say_what_is_left_out(dataset.column_names, names)
        dataset = dataset.select_columns(names)
    return _with_weights(dataset, weight) if weight else dataset


def is_made(dataset: Dataset) -> bool:
    """Whether the texts come from an adapter, checked and normalised."""
    return dataset in _made and dataset.format["type"] is None  # a transform would give other texts


def _check_texts(row: Mapping[str, Any], columns: list[str], number: int) -> None:
    for name in columns:
        check_text(row[name], name, number)
    _, positive, *negatives = columns
    key = comparison_key(row[positive]) if negatives else ""
    for name in negatives:
        if comparison_key(row[name]) == key:
            bad_value(name, number, row[name], "the negative equals the positive")


def _check_weight(column: str, row: int, value: Any) -> float:
    weight = number_of(value)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < inf:
        bad_value(column, row, value, "expected a number of 0 or more, the weight of the row")
    return float(weight)


def _training_columns(dataset: Dataset | IterableDataset) -> tuple[list[str], str | None]:
    """Anchor, positive and negatives, in the order of training; and the column of weights, if there is one."""
    present = dataset.column_names
    for name in ("anchor", "positive"):
        if name not in present:
            raise ValueError(f"missing column {name!r}; the columns are {present}")
    texts = ["anchor", *candidate_columns(present)]
    if len(positives := [name for name in texts if name.startswith("positive")]) > 1:
        raise ValueError(f"a row has one positive here, not {positives}: make a row of each")
    refuse_near_misses(present, [*texts, "weight", "score"])
    for name in ("score", "scores"):  # the stock trainer would take them as weights
        if name in present:
            raise ValueError(
                f"column {name!r} is no column of triplets: if it is the weight of a row, rename it to 'weight'"
            )
    has_floats = getattr(dataset.features.get("label"), "dtype", "")[:5] == "float"
    return texts, "weight" if "weight" in present else "label" if has_floats else None


def _with_weights(dataset: Dataset, column: str) -> Dataset:
    """Weights as floats in the column "label"."""
    values = list(dataset[column])
    weights = [_check_weight(column, row, value) for row, value in enumerate(values)]
    if column == "label" and all(type(value) is float for value in values):
        return dataset
    return dataset.remove_columns(column).add_column("label", weights)
