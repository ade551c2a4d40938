"""Reading of a file of rows, or of a dataset on the Hub; errors name the line."""

from __future__ import annotations

import logging
import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from glob import escape
from hashlib import blake2b
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, TypeVar
from unicodedata import normalize
from uuid import uuid4
from warnings import catch_warnings
from zipfile import BadZipFile

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features, config, load_dataset
from datasets.exceptions import DatasetGenerationError
from datasets.table import InMemoryTable

from st_vi.files.lines import (
    PACKED,
    Fields,
    checked_table,
    json_lines,
    kind_by_bytes,
    kind_of,
    on_disk,
    table_lines,
    text_lines,
)

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_UNFIT = (pa.ArrowException, OverflowError, UnicodeEncodeError, RecursionError)  # for a column
_JSON, _TABLES, _EXCEL, _PARQUET = (".jsonl", ".ndjson", ".json"), (".csv", ".tsv"), (".xlsx", ".xlsm"), (".parquet",)
_KINDS = (*_JSON, *_TABLES, ".txt", *_EXCEL, *_PARQUET)
_OTHER_FILES = (".zip", ".zst", ".tar", ".7z", ".xls", ".ods", ".doc", ".docx", ".pdf", ".arrow", ".pkl", ".npy")
_OF_PARSERS = (DatasetGenerationError, ValueError, OSError, KeyError, AttributeError, TypeError)
_BATCH = 10_000  # rows that are Python objects at a time
_FIRST = 1_000  # rows of a stream that warnings are of
# Vietnamese as it is after a wrong encoding, "Tr?i m?a", or in one before Unicode: "Trôøi möa", "n¾ng", "TrõÌi mýa".
_LOST = r"\x{FFFD}|\p{Ll}\?\p{Ll}|á[»º][^\s.,;!?]|Æ°|Ä[\x{91}\x{2018}]"
_VNI = "[aeuyôöAEUYÔÖ][ùøõÙØÕ]|[oO][øõØÕ]|[ôöÔÖ][ûïÛÏ]|[aeoAEO][åÅ]|[eoEO][âÂ]"
_TCVN3_OR_1258 = r"\p{Ll}[À-ÖØ-Þ]|\p{Ll}[¶¸¹¼½¾®§©ª«¬]\p{Ll}|®[\p{Ll}\x{AD}]"  # read as Windows-1252


def read_rows(source: str | Path, split: str = "train") -> Dataset:
    """Rows of a file, or of a dataset on the Hub.

    A file is .jsonl (or .json: an object on each line, or one array), .csv, .tsv, .txt (a line is a row, the column is
    "text"), .xlsx (the first sheet that is not hidden, each row of a merged cell with its value; needs openpyxl) or
    .parquet, whatever the case of these letters; text files may be compressed: .gz, .bz2, .xz. A path is never looked
    up on the Hub.

    The columns of CSV, TSV and Excel files stay text: "007", "NA", "1e5" and "" are not converted, and functions that
    need numbers, such as scores, read them from text. Blank lines are skipped.

    Args:
        source: A path or a Hub id such as "owner/name".
        split: Which split of a Hub dataset; a file has none.

    Raises:
        FileNotFoundError: A path that is not there.
        ValueError: A line that is not UTF-8, not JSON or no object; a row with more or fewer fields than the header;
            quotation marks that do not match; a duplicate column name; a column of mixed types, or a value that no
            column can hold; Excel cells that are merged over columns: names the line. Or a file that is damaged, has no
            rows, is a folder, or of another kind, a split of a file, or a source that is no path.
        ImportError: An Excel file, and openpyxl is not installed.

    Example:
        >>> import tempfile
        >>> from st_vi.data import read_rows
        >>> with tempfile.NamedTemporaryFile("w", suffix=".csv", encoding="utf-8") as file:
        ...     _ = file.write('premise,id\\n"Trời mưa, gió.",007\\nTrời nắng, nóng.,008\\n')
        ...     _ = file.flush()
        ...     read_rows(file.name)
        Traceback (most recent call last):
        ValueError: ...line 3: 3 fields, but the header has 2 (premise, id)...
    """
    path = local_path(source)
    if path is None:
        return load_dataset(str(source), split=split)
    if split != "train":
        raise ValueError(f"{path} is a file, which has no split {split!r}: give the file of these rows")
    kind = kind_of(path)
    if kind in _PARQUET:
        return _parquet(path)
    table = _objects(json_lines(path), path) if kind in _JSON else _table(_fields(path), path)
    if not table.num_rows:
        raise ValueError(f"{path}: there are no rows in it" + (", only a header" if table.column_names else ""))
    _warn(table, path)
    # A fingerprint of its own: to hash the content, it would be pickled, all of it at once.
    return Dataset(InMemoryTable(table), fingerprint=uuid4().hex)


def stream_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]] | None:
    """Rows of a local file with their line numbers, one in memory at a time; None if it is no file of lines.

    Errors and warnings are those of `read_rows`, raised when the row is reached, and given of the first rows; but a
    column may have mixed types.
    """
    kind = kind_of(path)
    if kind in _JSON:
        return _warned(json_lines(path), path)
    return _warned(_dicts(_fields(path)), path) if kind in (*_TABLES, ".txt") else None


def _warned(rows: Iterator[tuple[int, dict[str, Any]]], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows; warnings come once the first of them have been passed on, which an error behind must not keep back."""
    first: list[dict[str, Any]] | None = []
    for number, row in rows:
        yield number, row
        if first is not None:
            first.append(row)
            if len(first) == _FIRST:
                _warn(_texts(first), path)
                first = None
    if first:
        _warn(_texts(first), path)


def _texts(rows: list[dict[str, Any]]) -> pa.Table:
    """The columns, with None in place of all that is no text."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({_storable(name): [_storable(row.get(name)) for row in rows] for name in names})


def _storable(value: Any) -> str | None:
    """A text that Arrow can hold: "?" for half of a surrogate pair."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else None


def local_path(source: str | Path) -> Path | None:
    """The path of a file that exists and can be read; None for a Hub id.

    Raises:
        FileNotFoundError, ValueError: See `read_rows`.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(f"expected the path of a file or the id of a Hub dataset, got {type(source).__name__}")
    text = str(source)
    if not text.strip():
        raise ValueError("the name of a file is empty")
    if "://" in text:
        raise ValueError(f"{text} is an address: download it first, and give the file")
    path = on_disk(text)
    if not path.exists():
        if _names_a_file(source):
            raise FileNotFoundError(f"no such file: {source}")
        return None
    if path.is_dir():
        raise ValueError(f"{source} is a folder: give a file in it ({', '.join(_KINDS)}), or the id of a Hub dataset")
    kind, packed = kind_of(path), path.suffix.lower() in PACKED
    if kind not in _KINDS or (packed and kind in (*_EXCEL, *_PARQUET)):
        raise ValueError(f"{source}: cannot read this kind of file; the kinds are {', '.join(_KINDS)}")
    return path


def _names_a_file(source: str | Path) -> bool:
    """Whether a source that does not exist was meant as a path. Hub ids are "name" or "owner/name"."""
    text = str(source)
    suffix = Path(text).suffix.lower()
    return (
        isinstance(source, Path)
        or text.startswith((".", "/", "~", "-"))
        or re.fullmatch(r"[\w.-]+(/[\w.-]+)?", text, re.ASCII) is None
        or suffix in (*_KINDS, *PACKED, *_OTHER_FILES)
        or ("/" not in text and re.fullmatch(r"\.[a-z]+", suffix) is not None)
    )


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Add the name of the file to errors of parsers; errors of the disk stay unchanged."""
    try:
        yield
    except (*_OF_PARSERS, BadZipFile, pa.ArrowException) as error:
        if isinstance(error, BadZipFile):
            kind = kind_by_bytes(path)
            problem = f"no Excel file but {kind}" if kind else "damaged, or no Excel file"
            raise ValueError(f"{path}: {problem} ({error})") from error
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno:
            raise
        raise ValueError(f"{path}: {cause}") from error


def _parquet(path: Path) -> Dataset:
    with _named(path):
        with pq.ParquetFile(path) as file:
            count, schema = file.metadata.num_rows, file.schema_arrow
        names = [normalize("NFC", name) for name in schema.names]
        if not count:
            raise ValueError("there are no rows in it")
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two columns have the name {twice[0]!r}")
        for field in schema:
            try:
                Features.from_arrow_schema(pa.schema([field]))
            except ValueError as error:
                todo = "write it as text, or leave it out"
                raise ValueError(f"column {field.name!r} cannot be read: {str(error).rstrip('.')}; {todo}") from None
        # Mapped to a file, not in memory. The cache knows a file by name and time, which other rows may share.
        # It takes names for patterns: "a[1].parquet" would be "a1.parquet".
        rows = Dataset.from_parquet(escape(str(path)), cache_dir=str(Path(config.HF_DATASETS_CACHE, _end_of(path))))
        return without_views(rows.rename_columns(dict(zip(rows.column_names, names, strict=True))))


def without_views(rows: Dataset) -> Dataset:
    """The rows with texts and bytes in Arrow's older layout: no path of type "string_view" is taken for an image."""
    older = [field.with_type(_older(field.type)) for field in rows.features.arrow_schema]
    changed = Features.from_arrow_schema(pa.schema(f for f in older if f != rows.features.arrow_schema.field(f.name)))
    return rows.cast(Features({**rows.features, **changed})) if changed else rows


def _older(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(_older(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_older(kind.value_type))
    return {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(kind, kind)


def _end_of(path: Path) -> str:
    """A hash of the end of a Parquet file, which has sizes and ranges of all columns."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, 2**20), os.SEEK_END)
        return blake2b(file.read(), digest_size=8).hexdigest()


def _fields(path: Path) -> Fields:
    """The header and the rows of a table."""
    kind = kind_of(path)
    if kind == ".txt":
        return text_lines(path)
    return checked_table(_workbook(path) if kind in _EXCEL else table_lines(path), path)


def _workbook(path: Path) -> Fields:
    """Cells of the first sheet that is shown as text, with the numbers of their rows."""
    try:
        from openpyxl import load_workbook  # type: ignore[import-untyped]
        from openpyxl.utils import get_column_letter  # type: ignore[import-untyped]
        from openpyxl.utils.escape import unescape  # type: ignore[import-untyped]  # of "_x000D_"
    except ImportError as error:
        raise ImportError(f'{path}: to read it, pip install "st-vi[excel]"; or save it as CSV UTF-8') from error
    import pandas as pd  # type: ignore[import-untyped]

    merged: list[Any] = []
    with _named(path), catch_warnings(action="ignore", category=UserWarning):  # of styles and other things but cells
        with pd.ExcelFile(path, engine="openpyxl") as book:
            sheets = book.book.worksheets  # without sheets of charts
            read = next((sheet for sheet in sheets if sheet.sheet_state == "visible"), sheets[0]).title
            frame = pd.read_excel(book, sheet_name=read, header=None, dtype=str, na_filter=False)
            if len(sheets) > 1:
                logger.warning(f"{path}: of its {len(sheets)} sheets only {read!r} is read")
        if (frame == "").any(axis=None):
            with closing(load_workbook(path)) as book:  # that of pandas has neither formulas nor merged cells
                _warn_of_formulas(path, book[read], frame)
                merged = list(book[read].merged_cells.ranges)
    used = [column for column in frame if (frame[column] != "").any()]
    shown = _shown_in_merged(merged, frame, used, path)
    for number, row in enumerate(frame[used].itertuples(index=False, name=None), 1):
        if wrong := [place for place, cell in zip(used, row, strict=True) if not isinstance(cell, str)]:
            cell = f"{get_column_letter(wrong[0] + 1)}{number}"
            raise ValueError(f"{path}, line {number}: the cell {cell} has an error such as #N/A; mend its formula")
        if any(cell.strip() for cell in row):
            yield number, [unescape(shown.get((number, place), cell)) for place, cell in zip(used, row, strict=True)]


def _shown_in_merged(merged: list[Any], frame: Any, used: list[int], path: Path) -> dict[tuple[int, int], str]:
    """The text of each cell that is merged with one above it, by row and column; blank rows stay blank.

    Raises:
        ValueError: Cells of several columns are merged: the row has no value for each.
    """
    header = (frame != "").any(axis=1).idxmax() + 1
    shown: dict[tuple[int, int], str] = {}
    for area in merged:
        columns = [place for place in used if area.min_col <= place + 1 <= area.max_col]
        if area.min_row <= header or not columns or area.min_row > len(frame):
            continue
        text = frame.iat[area.min_row - 1, area.min_col - 1]
        if len(columns) > 1 and text != "":
            raise ValueError(
                f"{path}, line {area.min_row}: the cells {area.coord} are merged over {len(columns)} columns; unmerge "
                "them, so that each has its own value, or take the row out"
            )
        shown |= {(number, columns[0]): text for number in range(area.min_row, min(area.max_row, len(frame)) + 1)}
    return shown


def _warn_of_formulas(path: Path, sheet: Any, frame: Any) -> None:
    """Warn of columns whose formulas all have no value, as programs that do not calculate save them."""
    from openpyxl.utils import get_column_letter

    has_value: dict[int, bool] = {}
    values = frame.itertuples(index=False, name=None)
    for row, cells in zip_longest(values, sheet.rows, fillvalue=()):
        for place, cell in enumerate(cells):
            if cell.data_type == "f":
                has_value[place] = has_value.get(place, False) or row[place : place + 1] not in ((), ("",))
    if empty := [get_column_letter(place + 1) for place, found in has_value.items() if not found]:
        logger.warning(
            f"{path}: no formula of column {', '.join(empty)} has a value, so that its cells are read as empty: open "
            "and save the file in a spreadsheet"
        )


def _dicts(rows: Fields) -> Iterator[tuple[int, dict[str, Any]]]:
    header = next(rows, None)
    if header is not None:
        yield from ((number, dict(zip(header[1], fields, strict=True))) for number, fields in rows)


def _table(rows: Fields, path: Path) -> pa.Table:
    """Columns of text."""
    header = next(rows, None)
    if header is None:
        raise ValueError(f"{path}: the file is empty")
    schema = pa.schema([(name, pa.string()) for name in header[1]])
    batches = []
    for some in _batched(rows, _BATCH):
        columns = zip(*(fields for _, fields in some), strict=True)
        batches.append(pa.record_batch([pa.array(column, pa.string()) for column in columns], schema=schema))
    return pa.Table.from_batches(batches, schema)


def _warn(table: pa.Table, path: Path) -> None:
    if kind_of(path) in _TABLES:
        _warn_of_quotes(table, path)
    _warn_of_lost_letters(table, path)


def _warn_of_quotes(table: pa.Table, path: Path) -> None:
    """Warn of a TSV written with quoting, or a CSV with spaces before quotes: there the quotes are part of the text."""
    pattern = r'^\s+".*"\s*$' if kind_of(path) == ".csv" else r'^".*"$'
    for name in table.column_names:
        if count := pc.sum(pc.match_substring_regex(table[name], f"(?s){pattern}")).as_py():
            logger.warning(f"{path}: column {name!r} keeps the quotation marks around {count} texts as part of them")


_LETTERS = (
    (_LOST, "have lost Vietnamese letters", "save the file again, as UTF-8 (in Excel: CSV UTF-8)"),
    (f"{_VNI}|{_TCVN3_OR_1258}", "be Vietnamese in VNI, TCVN3 or Windows-1258", "convert it to Unicode (UTF-8)"),
)


def _warn_of_lost_letters(table: pa.Table, path: Path) -> None:
    """Warn of Vietnamese that an encoding without its letters has spoilt ("Tr?i m?a"), or that is not in Unicode."""
    for name in table.column_names:
        if not pa.types.is_string(table.schema.field(name).type):
            continue
        for pattern, problem, todo in _LETTERS:
            found = table.filter(pc.match_substring_regex(table[name], pattern))[name]
            if len(found) > table.num_rows / 10:
                logger.warning(
                    f"{path}: column {name!r} seems to {problem} in {len(found)} of {table.num_rows} rows, such as "
                    f"{found[0].as_py()[:60]!r}: {todo}"
                )
                break


def _objects(rows: Iterable[tuple[int, dict[str, Any]]], path: Path) -> pa.Table:
    """Columns of one type each."""
    parts: list[tuple[int, dict[str, pa.Array]]] = []
    types, kinds, first = dict[str, pa.DataType](), dict[str, type](), 0
    for some in _batched(rows, _BATCH):
        first = first or some[0][0]
        columns = {}
        for name in dict.fromkeys(name for _, row in some for name in row):
            _check_kinds(name, some, kinds, path)
            columns[name] = _column(name, some, path)
            types[name] = _type_of_both(name, types.get(name), columns[name].type, some, path)
        parts.append((len(some), columns))
    if parts and not types:
        raise ValueError(f"{path}, line {first}: the object is empty, and so are all others")
    made = {}
    for name, kind in types.items():
        try:
            made[name] = pa.chunked_array(
                [columns[name].cast(kind) if name in columns else pa.nulls(count, kind) for count, columns in parts],
                kind,
            )
            pa.schema([(name, kind)])
        except _UNFIT as error:  # integers that no float can hold, beside floats
            raise ValueError(f"{path}: column {name!r}: {error}") from error
    return pa.table(made)


def _check_kinds(name: str, rows: list[tuple[int, dict[str, Any]]], kinds: dict[str, type], path: Path) -> None:
    for number, row in rows:
        if (value := row.get(name)) is not None:
            kind = float if type(value) is int else type(value)
            if kinds.setdefault(name, kind) is not kind:
                beside = kinds[name].__name__
                raise ValueError(f"{path}, line {number}: column {name!r} holds {value!r:.200} beside {beside}")


def _column(name: str, rows: list[tuple[int, dict[str, Any]]], path: Path) -> pa.Array:
    def made(some: list[tuple[int, dict[str, Any]]]) -> pa.Array:
        return pa.array([row.get(name) for _, row in some])

    try:
        return made(rows)
    except _UNFIT:
        number, error = _first_unfit(rows, made)
        raise ValueError(f"{path}, line {number}: column {name!r} cannot hold this: {error}") from error


def _first_unfit(rows: list[tuple[int, _T]], fit: Callable[[list[tuple[int, _T]]], Any]) -> tuple[int, Exception]:
    """The number of the first row with which `fit` fails for it and those before it, and the error."""
    errors: dict[int, Exception] = {}

    def fails(last: int) -> bool:
        try:
            fit(rows[: last + 1])
        except _UNFIT as error:
            errors[last] = error
        return last in errors

    last = bisect_left(range(len(rows)), True, key=fails)
    return rows[last][0], errors[last]


def _type_of_both(
    name: str, before: pa.DataType | None, now: pa.DataType, rows: list[tuple[int, dict[str, Any]]], path: Path
) -> pa.DataType:
    """The type of a column in these rows and those before."""
    if before is None or before == now:
        return now

    def of_both(some: list[tuple[int, dict[str, Any]]]) -> pa.DataType:
        now = pa.array([row.get(name) for _, row in some]).type
        schemas = [pa.schema([("", kind)]) for kind in (before, now)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type

    try:
        return of_both(rows)
    except _UNFIT as error:
        number, _ = _first_unfit(rows, of_both)
        raise ValueError(f"{path}, line {number}: column {name!r} holds {now}, and {before} before") from error


def _batched(rows: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(rows)
    return iter(lambda: list(islice(iterator, size)), [])
