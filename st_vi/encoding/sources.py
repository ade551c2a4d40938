"""Rows of a corpus from wherever they are, none of them in memory before its turn where they come from a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from st_vi.data import read_rows
from st_vi.files.read import local_path, stream_rows


def open_rows(
    rows: str | Path | Iterable[Mapping[str, Any]], columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterable[Any]:
    """The rows to iterate over, with no more columns than are asked for where that saves reading them.

    Raises:
        FileNotFoundError: `rows` names a file that is not there.
        ValueError: A column is missing.
    """
    if isinstance(rows, (str, Path)):
        path = local_path(rows)
        stream = stream_rows(path) if path else None
        if stream:
            return (row for _, row in stream)  # `read_rows` would hold all of them
    source: Any = read_rows(rows) if isinstance(rows, (str, Path)) else rows  # Arrow, mapped to a file
    if hasattr(source, "itertuples"):  # pandas
        names = [str(name) for name in source.columns]
        _check(names, columns)
        return (dict(zip(names, values, strict=True)) for values in source.itertuples(index=False, name=None))
    names = list(getattr(source, "column_names", None) or [])
    if not names:
        return source
    _check(names, columns)
    selected = [name for name in dict.fromkeys([*columns, *optional]) if name in names]
    return _undecoded(source.select_columns(selected)) if hasattr(source, "select_columns") else source


def folder_of(rows: Any) -> Path | None:
    """What names of pictures in the rows are relative to, if it is not the working directory."""
    path = Path(rows).expanduser() if isinstance(rows, (str, Path)) else None
    return path.parent if path and path.is_file() else None


def row_count(source: Any, rows: Any) -> int | None:
    """How many rows there are, as far as that is known without reading all of them as rows."""
    if hasattr(source, "__len__"):
        return len(source)
    if hasattr(rows, "__len__") and not isinstance(rows, str):
        return len(rows)
    if isinstance(rows, (str, Path)) and Path(rows).suffix.lower() in (".jsonl", ".ndjson", ".txt"):
        with Path(rows).expanduser().open("rb") as file:
            return sum(1 for line in file if line.strip())
    return None


def _check(names: Sequence[str], columns: Sequence[str]) -> None:
    if missing := [name for name in columns if name not in names]:
        raise ValueError(f"missing column {missing[0]!r}; the columns are {list(names)}")


def _undecoded(rows: Any) -> Any:
    """Pictures as bytes or paths: a broken one is then one bad row, and not the end of reading."""
    for name, feature in (rows.features or {}).items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
        elif isinstance(getattr(feature, "feature", None), datasets.Image):
            rows = rows.cast_column(name, datasets.List(datasets.Image(decode=False)))
    return rows
