"""Open a file of rows, or a data set on the hub, and say which line is broken."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetGenerationError

_UNFIT = (pa.ArrowException, OverflowError, UnicodeEncodeError, RecursionError)  # for a column


def read_rows(source: str | Path, split: str = "train") -> Dataset:
    """Rows of a JSON Lines, CSV, TSV or Parquet file, or of a data set on the hub.

    Args:
        source: A path that ends in .jsonl, .json, .csv, .tsv or .parquet; else a hub id such as "owner/name".
        split: Which split of a hub data set.

    Raises:
        FileNotFoundError: A path with such an ending that is not there.
        ValueError: A line that is not UTF-8, not JSON or no object, a column of mixed types, or a value that no column
            can hold; names the line. Or a CSV or Parquet file that cannot be read, or has no rows.

    Example:
        >>> import tempfile
        >>> from st_vi.data import read_rows
        >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        ...     _ = file.write('{"premise": "Trời mưa."}\\n{"premise": "Trời nắng."')
        ...     _ = file.flush()
        ...     read_rows(file.name)
        Traceback (most recent call last):
        ValueError: ...line 2: not JSON...
    """
    path = Path(source)
    if path.suffix in {".jsonl", ".json", ".csv", ".tsv", ".parquet"}:
        if not path.is_file():
            raise FileNotFoundError(f"no such file: {source}")
        if path.suffix in {".jsonl", ".json"}:
            return _from_rows(list(json_lines(path)), path)
        if path.suffix == ".parquet":
            with _named(path):
                return Dataset.from_parquet(str(path))
        for _ in _lines(path):  # name the line that is not UTF-8
            pass
        with _named(path):
            return Dataset.from_csv(str(path), sep="\t" if path.suffix == ".tsv" else ",", keep_default_na=False)
    return load_dataset(str(source), split=split)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of the parsers with the name of the file; those of the disk as they are."""
    try:
        yield
    except (DatasetGenerationError, ValueError, OSError, pa.ArrowException) as error:
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno:
            raise
        raise ValueError(f"{path}: {cause}") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}, line {number}: not UTF-8 ({error.reason} at byte {error.start})") from error


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a JSON Lines file with the numbers of their lines, one at a time; blank lines are passed over."""
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno})") from error
        except (ValueError, RecursionError) as error:  # thousands of digits, lists in lists in lists
            raise ValueError(f"{path}, line {number}: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: expected a JSON object, got {type(row).__name__}")
        yield number, row


def _from_rows(rows: list[tuple[int, dict[str, Any]]], path: Path) -> Dataset:
    columns = list(dict.fromkeys(name for _, row in rows for name in row))
    for name in columns:
        kinds: dict[type, tuple[int, Any]] = {}
        for number, row in rows:
            if (value := row.get(name)) is not None:
                kinds.setdefault(float if type(value) is int else type(value), (number, value))
        if len(kinds) > 1:
            number, value = list(kinds.values())[1]
            raise ValueError(
                f"{path}, line {number}: column {name!r} holds {value!r} beside {next(iter(kinds)).__name__}"
            )
    if rows and not columns:
        raise ValueError(f"{path}, line {rows[0][0]}: the object is empty, and so are all others")
    try:
        return Dataset.from_dict({name: [row.get(name) for _, row in rows] for name in columns})
    except _UNFIT as error:
        for name in columns:
            _check_column(name, rows, path)
        raise ValueError(f"{path}: {error}") from error


def _check_column(name: str, rows: list[tuple[int, dict[str, Any]]], path: Path) -> None:
    try:
        Dataset.from_dict({name: [row.get(name) for _, row in rows]})
    except _UNFIT as unfit:
        for number, row in rows:
            try:
                pa.array([row.get(name)])
            except _UNFIT as error:
                raise ValueError(f"{path}, line {number}: column {name!r} cannot hold this: {error}") from error
        raise ValueError(f"{path}: column {name!r}: {unfit}") from unfit
