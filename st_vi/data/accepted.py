"""The kinds of datasets that functions accept: those of `datasets`, lists of dicts, pandas DataFrames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict, concatenate_datasets

from st_vi.data.columns import shown

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

Rows: TypeAlias = "Dataset | IterableDataset | Sequence[Mapping[str, Any]] | pd.DataFrame"
TrainRows: TypeAlias = "Rows | Mapping[str, Rows]"
_CHUNK = 10_000


def as_dataset(rows: Rows) -> Dataset:
    """One `Dataset`, from a `Dataset`, a stream, a list of dicts, a pandas DataFrame or a dict of columns.

    Args:
        rows: A stream is read to its end. A key missing from some dicts becomes None.

    Raises:
        ValueError: None of these, several datasets by name, or a column with values of several types.

    Example:
        >>> from st_vi.data.accepted import as_dataset
        >>> as_dataset([{"text": "Trời mưa."}, {"text": "Trời nắng.", "label": 1}])["label"][:]
        [None, 1]
    """
    if isinstance(rows, Dataset):
        return rows
    if isinstance(rows, IterableDataset):
        parts = [_table(chunk, rows.features) for chunk in _chunks(iter(rows))]
        return concatenate_datasets(parts) if parts else Dataset.from_dict({})
    if isinstance(rows, Mapping):
        if any(isinstance(part, (Dataset, IterableDataset)) for part in rows.values()):
            names = list(rows)
            raise ValueError(f"one dataset is needed, here are several by name, {names}: give rows[{names[0]!r}]")
        return _columns({str(name): list(column) for name, column in rows.items()})
    if _is_frame(rows):
        frame: Any = rows
        return _columns({str(name): _cells(frame[name]) for name in frame.columns})
    if isinstance(rows, Sequence) and not isinstance(rows, (str, bytes)) and all(isinstance(r, Mapping) for r in rows):
        return _table(rows, None)
    raise ValueError(f"expected a Dataset, a list of dicts or a DataFrame, got {type(rows).__name__}: {shown(rows)}")


def as_train_rows(rows: TrainRows) -> Dataset | IterableDataset | DatasetDict:
    """Rows as the stock trainer takes them: a dataset, a stream with typed columns, or datasets by name.

    Raises:
        ValueError: See `as_dataset`; also for streams by name, which the stock trainer does not take.

    Example:
        >>> import pandas as pd
        >>> from st_vi.data.accepted import as_train_rows
        >>> as_train_rows({"nli": pd.DataFrame({"anchor": ["a"], "positive": ["b"]})}).num_rows
        {'nli': 1}
    """
    if isinstance(rows, IterableDataset):
        return _typed_stream(rows)
    if isinstance(rows, DatasetDict):
        return rows
    if isinstance(rows, Mapping) and rows and all(_is_rows(part) for part in rows.values()):
        if isinstance(rows, IterableDatasetDict) or any(isinstance(part, IterableDataset) for part in rows.values()):
            raise ValueError("streams by name cannot be trained on: give one stream (datasets.interleave_datasets)")
        return DatasetDict({name: as_dataset(part) for name, part in rows.items()})
    return as_dataset(rows)  # type: ignore[arg-type]


def as_datasets(rows: TrainRows) -> Dataset | DatasetDict:
    """One dataset, or several by name; a stream is read to its end."""
    rows = as_train_rows(rows)
    return as_dataset(rows) if isinstance(rows, IterableDataset) else rows


def _typed_stream(rows: IterableDataset) -> IterableDataset:
    """The stream with typed columns, which the stock trainer needs; the types are those of the first row."""
    if rows.features is not None:
        return rows
    first = list(islice(rows, 1))
    if not first:
        raise ValueError("the stream has no rows")
    return rows.cast(_table(first, None).features)


def _table(rows: Sequence[Mapping[str, Any]], features: Any) -> Dataset:
    # `Dataset.from_list` drops keys that the first row does not have.
    names = list(features) if features else list(dict.fromkeys(name for row in rows for name in row))
    return _columns({name: [row.get(name) for row in rows] for name in names}, features)


def _columns(columns: Mapping[str, list[Any]], features: Any = None) -> Dataset:
    try:
        return Dataset.from_dict(dict(columns), features=features)
    except Exception as error:  # of pyarrow, of many kinds
        for name, values in columns.items():
            try:
                Dataset.from_dict({name: values})
            except Exception as cause:
                kinds = sorted({type(value).__name__ for value in values})
                raise ValueError(f"column {name!r} cannot be a column of a dataset, it holds {kinds}") from cause
        raise ValueError(f"the columns make no dataset: {error}") from error


def _cells(column: Any) -> list[Any]:
    """The values of a DataFrame's column; missing ones are NaN among numbers, and None elsewhere."""
    if column.dtype.kind == "f":
        return column.tolist()
    return [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]


def _is_rows(value: Any) -> bool:
    """Whether it is a dataset, and not a column of one."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(row, Mapping) for row in value)
    return isinstance(value, (Dataset, IterableDataset)) or _is_frame(value)


def _is_frame(value: Any) -> bool:
    return hasattr(value, "columns") and hasattr(value, "iloc")  # pandas is not imported for this


def _chunks(rows: Iterator[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    while chunk := list(islice(rows, _CHUNK)):
        yield chunk
