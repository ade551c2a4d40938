"""The kinds of datasets that functions accept: those of `datasets`, lists of dicts, tables of pandas and Arrow."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
from datasets import (
    Dataset,
    DatasetDict,
    Features,
    IterableDataset,
    IterableDatasetDict,
    Value,
    concatenate_datasets,
)
from datasets.table import InMemoryTable

from st_vi.data.values import bad_value, shown
from st_vi.files.read import without_views
from st_vi.inputs.pictures import open_image
from st_vi.text import is_unicode

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

Rows: TypeAlias = "Dataset | IterableDataset | Sequence[Mapping[str, Any]] | pd.DataFrame | pa.Table"
TrainRows: TypeAlias = "Rows | Mapping[str, Rows]"
_CHUNK = 10_000
_EMPTY, _WHOLE, _DECIMAL = Value("null"), Value("int64"), Value("float64")
_HELD_OUT = ("test", "validation", "valid", "val", "dev", "eval", "evaluation")


def as_dataset(rows: Rows) -> Dataset:
    """One `Dataset`, from a `Dataset`, a stream, a list of dicts, a dict of columns, or a table of pandas or Arrow.

    Args:
        rows: A stream is read to its end. A key missing from some dicts becomes None. In lists and
            tables of pandas, a path becomes text, and an array (H, W, C) or (C, H, W) an image.

    Raises:
        ValueError: None of these, several datasets by name, a column with values of several types, one that is no list,
            or two of one name.

    Example:
        >>> from st_vi.data.accepted import as_dataset
        >>> as_dataset([{"text": "Trời mưa."}, {"text": "Trời nắng.", "label": 1}])["label"][:]
        [None, 1]
    """
    if isinstance(rows, Dataset):
        return _unformatted(rows)
    if isinstance(rows, IterableDataset):
        parts = [_table(chunk, rows.features) for chunk in _chunks(iter(rows))]
        return concatenate_datasets(_alike(parts)) if parts else Dataset.from_dict({})
    if isinstance(rows, Mapping):
        if _are_several(rows):
            names = list(rows)
            raise ValueError(f"one dataset is needed, here are several by name, {names}: give rows[{names[0]!r}]")
        return _columns({str(name): _listed(column, name) for name, column in rows.items()})
    if _is_frame(rows):
        frame: Any = rows
        names = _distinct([str(name) for name in frame.columns])
        return _columns({name: _cells(frame.iloc[:, place]) for place, name in enumerate(names)})
    if _is_arrow(rows):
        source: Any = rows
        # polars gives categories as texts only here
        table = source.to_arrow() if hasattr(rows, "to_arrow") else pa.table(source)
        _distinct(table.column_names)
        return without_views(Dataset(InMemoryTable(table)))
    if isinstance(rows, Sequence) and not isinstance(rows, (str, bytes)) and all(isinstance(r, Mapping) for r in rows):
        return _table(rows, None)
    raise ValueError(f"expected a Dataset, a list of dicts or a DataFrame, got {type(rows).__name__}: {shown(rows)}")


def as_train_rows(rows: TrainRows) -> Dataset | IterableDataset | DatasetDict:
    """Rows as the stock trainer takes them: a dataset, a stream with typed columns, or datasets by name.

    Raises:
        ValueError: See `as_dataset`; also for streams by name, which the stock trainer does not take, and for splits
            ("train", "test"), which would all be trained on.

    Example:
        >>> import pandas as pd
        >>> from st_vi.data.accepted import as_train_rows
        >>> as_train_rows({"nli": pd.DataFrame({"anchor": ["a"], "positive": ["b"]})}).num_rows
        {'nli': 1}
    """
    if isinstance(rows, IterableDataset):
        return _typed_stream(rows)
    if isinstance(rows, Mapping) and _are_several(rows):
        held_out = [name for name in rows if str(name).lower() in _HELD_OUT]
        if held_out and "train" in rows:
            raise ValueError(f"the rows of {held_out} would be trained on, too: give rows['train']")
    return as_datasets(rows)


def as_datasets(rows: TrainRows) -> Dataset | DatasetDict:
    """One dataset, or several by name; a stream is read to its end."""
    if isinstance(rows, DatasetDict):
        plain = {name: _unformatted(part) for name, part in rows.items()}
        return rows if all(plain[name] is part for name, part in rows.items()) else DatasetDict(plain)
    if isinstance(rows, Mapping) and _are_several(rows):
        if isinstance(rows, IterableDatasetDict) or any(isinstance(part, IterableDataset) for part in rows.values()):
            raise ValueError("streams by name cannot be trained on: give one stream (datasets.interleave_datasets)")
        return DatasetDict({name: as_dataset(part) for name, part in rows.items()})
    return as_dataset(rows)  # type: ignore[arg-type]


def _typed_stream(rows: IterableDataset) -> IterableDataset:
    """The stream with typed columns, which the stock trainer needs; the types are those of the first row."""
    if rows.features is not None:
        return rows
    first = list(islice(rows, 1))
    if not first:
        raise ValueError("the stream has no rows")
    types = Features(_table(first, None).features)
    types |= {name: Value("float64") for name in ("score", "weight") if types.get(name) == _WHOLE}

    def fits(row: Mapping[str, Any], number: int) -> bool:
        """The cast would drop other columns and decimals."""
        for name, value in row.items():
            if name not in types:
                bad_value(name, number, value, "the first row of the stream has no such column; give all rows the same")
            if types[name] == _WHOLE and isinstance(value, float) and not value.is_integer():
                bad_value(name, number, value, "expected a whole number, as in the first row of the stream")
        return True

    return rows.filter(fits, with_indices=True).cast(types)


def _alike(parts: Sequence[Dataset]) -> list[Dataset]:
    """The parts with one type for each column."""
    types: dict[str, Any] = {}
    for part in parts:
        for name, kind in part.features.items():
            before = types.get(name, _EMPTY)
            if kind not in (before, _EMPTY):
                if before != _EMPTY and {str(before), str(kind)} != {str(_WHOLE), str(_DECIMAL)}:
                    raise ValueError(f"column {name!r} of the stream holds {kind}, and {before} before")
                types[name] = kind if before == _EMPTY else _DECIMAL
    return [
        part.cast(Features({name: types.get(name, kind) for name, kind in part.features.items()})) for part in parts
    ]


def _table(rows: Sequence[Mapping[str, Any]], features: Any) -> Dataset:
    # `Dataset.from_list` drops keys that the first row does not have.
    names = list(features) if features else list(dict.fromkeys(name for row in rows for name in row))
    return _columns({name: [row.get(name) for row in rows] for name in names}, features)


def _columns(columns: Mapping[str, list[Any]], features: Any = None) -> Dataset:
    columns = {
        name: [_storable(value, name, row) for row, value in enumerate(values)] for name, values in columns.items()
    }
    try:
        return Dataset.from_dict(dict(columns), features=features)
    except Exception as error:  # of pyarrow, of many kinds
        for name, values in columns.items():
            try:
                Dataset.from_dict({name: values})
            except Exception as cause:
                for row, value in enumerate(values):
                    if isinstance(value, str) and not is_unicode(value):
                        bad_value(name, row, value, "expected Unicode, it has half of a surrogate pair")
                kinds = sorted({type(value).__name__ for value in values})
                other = next((row for row, value in enumerate(values) if type(value) is not type(values[0])), 0)
                raise ValueError(
                    f"column {name!r} cannot be a column of a dataset, it holds {kinds}, first in row {other}"
                ) from cause
        raise ValueError(f"the columns make no dataset: {error}") from error


def _storable(value: Any, name: str, row: int) -> Any:
    """Paths as texts and arrays of pixels as images, as everywhere; Arrow has neither."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if getattr(value, "ndim", 0) == 3:
        try:
            return open_image(value)
        except ValueError as error:
            raise ValueError(f"column {name!r}, row {row}: {error}") from error
    if isinstance(value, (list, tuple)) and any(
        isinstance(v, os.PathLike) or getattr(v, "ndim", 0) == 3 for v in value
    ):
        return [_storable(part, name, row) for part in value]
    return value


def _unformatted(rows: Dataset) -> Dataset:
    """The rows as Python values, and not as tensors or arrays of `with_format`; transforms stay."""
    rows = without_views(rows)
    kind, columns = rows.format["type"], rows.format["columns"]
    return rows if kind == "custom" or (kind is None and columns == rows.column_names) else rows.with_format(None)


def _distinct(names: list[str]) -> list[str]:
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two columns of the table have the name {twice[0]!r}")
    return names


def _listed(column: Any, name: Any) -> list[Any]:
    if isinstance(column, (str, bytes, Mapping)) or not isinstance(column, Iterable):
        raise ValueError(f"column {name!r} must be a list of values, one for each row, got {shown(column)}")
    return list(column)


def _cells(column: Any) -> list[Any]:
    """The values of a DataFrame's column; missing ones are NaN among NumPy's floats, and None elsewhere."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind == "f":
        return column.tolist()
    return [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]


def _are_several(rows: Mapping[str, Any]) -> bool:
    """Whether they are datasets by name, and not columns by name."""
    return bool(rows) and all(map(is_rows, rows.values()))


def is_rows(value: Any) -> bool:
    """Whether it is a dataset, and not a column of one."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(row, Mapping) for row in value)
    return isinstance(value, (Dataset, IterableDataset, Mapping)) or _is_frame(value) or _is_arrow(value)


def _is_frame(value: Any) -> bool:
    return hasattr(value, "iloc") and hasattr(value, "columns")  # pandas is not imported for this


def _is_arrow(value: Any) -> bool:
    """Whether it is a table of Arrow, polars, …; a Series and an array have no schema."""
    return hasattr(value, "__arrow_c_stream__") and hasattr(value, "schema")


def _chunks(rows: Iterator[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    while chunk := list(islice(rows, _CHUNK)):
        yield chunk
