"""What all adapters make: data sets of (anchor, positive, negatives), and the account of how they came about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from datasets import Dataset, DatasetDict

from st_vi.data.columns import bad_value, clean_texts
from st_vi.text import comparison_key


@dataclass(frozen=True)
class Row:
    """One training row before it is put into columns; `score` is its weight in the loss."""

    anchor: str
    positive: str
    negatives: tuple[str, ...]
    score: float = 1.0


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
    """Training rows by their number of negatives, as the stock trainer takes them, with a `report`.

    A column cannot be missing in some rows of a batch, so rows with as many negatives stand together: "pairs"
    have none, "triplets" one, "2_negatives" two, and so on. Columns: anchor, positive, negative (or negative_1,
    negative_2, …), and `score`, a weight per row, where rows weigh differently.

    Attributes:
        report: Every count of the adaptation; prints as a table.
    """

    report: Report

    @classmethod
    def from_rows(cls, rows: Iterable[Row], report: Report) -> Triplets:
        """Put rows into data sets, and count them.

        Raises:
            ValueError: There is no row.
        """
        rows = list(rows)
        weighted = any(row.score != 1.0 for row in rows)
        groups: dict[int, list[dict[str, str | float]]] = defaultdict(list)
        for row in rows:
            columns = {"anchor": row.anchor, "positive": row.positive}
            columns |= dict(zip(_negative_columns(len(row.negatives)), row.negatives, strict=True))
            groups[len(row.negatives)].append(columns | ({"score": row.score} if weighted else {}))
        names = {0: "pairs", 1: "triplets"}
        # The largest group first: the model card shows the first data set first.
        order = sorted(groups, key=lambda count: -len(groups[count]))
        result = cls({names.get(n, f"{n}_negatives"): Dataset.from_list(groups[n]) for n in order})
        result.report = Report(report | {name: len(dataset) for name, dataset in result.items()})
        if not rows:
            counts = ", ".join(f"{count:,} {name}" for name, count in report.items())
            raise ValueError(f"no usable pair in this data set ({counts})")
        return result


def _negative_columns(count: int) -> list[str]:
    return ["negative"] if count == 1 else [f"negative_{i + 1}" for i in range(count)]


def check_triplets(dataset: Dataset | Mapping[str, Dataset]) -> None:
    """Make sure, before any training step, that every row can be trained on.

    Args:
        dataset: Columns anchor, positive, and any number whose names begin with "negative"; or several such sets.

    Raises:
        ValueError: No rows, a missing column, empty or non-string text, or a negative that equals its row's
            positive; names column, row and value.

    Example:
        >>> from datasets import Dataset
        >>> check_triplets(Dataset.from_dict({"anchor": ["a"], "positive": ["b"], "negative": ["b"]}))
        Traceback (most recent call last):
        ValueError: column 'negative', row 0: the negative equals the positive, got 'b'
    """
    if isinstance(dataset, Mapping):
        for part in dataset.values():
            check_triplets(part)
        if not dataset:
            raise ValueError("no usable pair: the data set is empty")
        return
    for name in ("anchor", "positive"):
        if name not in dataset.column_names:
            raise ValueError(f"missing column {name!r}; the columns are {dataset.column_names}")
    if not len(dataset):
        raise ValueError("no usable pair: the data set is empty")
    clean_texts(dataset["anchor"], "anchor")
    positives = clean_texts(dataset["positive"], "positive")
    for name in dataset.column_names:
        if name.startswith("negative"):
            negatives = clean_texts(dataset[name], name)
            for row, (positive, negative) in enumerate(zip(positives, negatives, strict=True)):
                if comparison_key(positive) == comparison_key(negative):
                    bad_value(name, row, negative, "the negative equals the positive")
