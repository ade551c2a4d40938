"""Sources of the rows of a corpus, streamed where possible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unicodedata import normalize

import datasets
import pyarrow as pa

from st_vi.data import read_rows
from st_vi.files.lines import on_disk
from st_vi.files.read import local_path, stream_rows
from st_vi.inputs.kinds import is_null


def open_rows(
    rows: str | Path | Iterable[Mapping[str, Any]], columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterable[Any]:
    """The rows to iterate over, with only the requested columns if that avoids reading the others.

    A column whose name is a requested one in other letters of Unicode, composed or not, gets the requested name.
    """
    asked = [*columns, *optional]
    if isinstance(rows, (str, Path)):
        path = local_path(rows)
        stream = stream_rows(path) if path else None
        if stream:
            return (_as_asked(row, asked) for _, row in stream)  # `read_rows` would load all of them
    source: Any = read_rows(rows) if isinstance(rows, (str, Path)) else rows  # memory-mapped Arrow
    if hasattr(source, "to_arrow"):  # polars
        source = source.to_arrow()
    if isinstance(source, (pa.Table, pa.RecordBatch)):
        source = source.rename_columns(names := _names(source.schema.names, asked))
        _check(names, columns)
        return (row for batch in _batches(source) for row in batch.to_pylist())
    _check_kind(source)
    if hasattr(source, "itertuples"):  # pandas
        names = _names([str(name) for name in source.columns], asked)
        _check(names, columns)
        floats = [kind.kind == "f" for kind in source.dtypes]
        rows_of_frame = source.itertuples(index=False, name=None)
        return (dict(zip(names, map(_or_none, values, floats), strict=True)) for values in rows_of_frame)
    names = list(getattr(source, "column_names", None) or [])
    if not names:
        return (_as_asked(row, asked) for row in source)
    if renamed := {old: new for old, new in zip(names, _names(names, asked), strict=True) if old != new}:
        source, names = source.rename_columns(renamed), _names(names, asked)
    _check(names, columns)
    selected = [name for name in dict.fromkeys(asked) if name in names]
    return _undecoded(source.select_columns(selected)) if hasattr(source, "select_columns") else source


def folder_of(rows: Any) -> Path | None:
    """The folder that image paths are relative to, if it is not the working directory."""
    path = on_disk(rows) if isinstance(rows, (str, Path)) else None
    return path.parent if path and path.is_file() else None


def row_count(source: Any, rows: Any) -> int | None:
    """Number of rows, if it is known without reading them."""
    if hasattr(source, "__len__"):
        return len(source)
    if hasattr(rows, "__len__") and not isinstance(rows, str):
        return len(rows)
    if isinstance(rows, (str, Path)) and Path(rows).suffix.lower() in (".jsonl", ".ndjson", ".txt"):
        with on_disk(rows).open("rb") as file:
            return sum(1 for line in file if line.strip())
    return None


def _names(present: Iterable[Any], asked: Sequence[str]) -> list[Any]:
    """The names, as they are asked for where only the composition of their letters differs."""
    present = list(present)
    wanted = {normalize("NFC", name): name for name in asked if name not in present}
    return [wanted.get(normalize("NFC", name), name) if isinstance(name, str) else name for name in present]


def _as_asked(row: Any, asked: Sequence[str]) -> Any:
    if not isinstance(row, Mapping) or all(name in row for name in asked):
        return row
    return dict(zip(_names(row, asked), row.values(), strict=True))


def _or_none(value: Any, of_floats: bool) -> Any:
    """None for the missing values of pandas, NaN among them, which is a number only in a column of floats."""
    return None if is_null(value) and not (of_floats and isinstance(value, float)) else value


def _check_kind(source: Any) -> None:
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        todo = "pass one of its datasets, or the Dataset.from_dict of its columns"
        keys = f" with the keys {list(source)[:5]}: {todo}" if isinstance(source, Mapping) else ""
        raise ValueError(f"expected a dataset, a data frame or dicts, got a {type(source).__name__}{keys}")


def _batches(table: pa.Table | pa.RecordBatch) -> Iterable[pa.RecordBatch]:
    return table.to_batches(max_chunksize=1000) if isinstance(table, pa.Table) else [table]


def _check(names: Sequence[str], columns: Sequence[str]) -> None:
    if twice := [name for name in columns if names.count(name) > 1]:
        raise ValueError(f"two columns have the name {twice[0]!r}")
    if missing := [name for name in columns if name not in names]:
        raise ValueError(f"missing column {missing[0]!r}; the columns are {list(names)}")


def _undecoded(rows: Any) -> Any:
    """As plain Python values, with undecoded images, so that a damaged one is a bad row and does not stop reading."""
    rows = rows.with_format(None)
    for name, feature in (rows.features or {}).items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
        elif isinstance(getattr(feature, "feature", None), datasets.Image):
            rows = rows.cast_column(name, datasets.List(datasets.Image(decode=False)))
    return rows
