"""Rows of text files, one at a time, each with the number of its line."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import os
import re
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any
from unicodedata import normalize

PACKED: dict[str, Callable[..., IO[Any]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
Fields = Iterator[tuple[int, list[str]]]
_OLD_ENDS = "a carriage return within a text, or at the end of lines as on old Macs; end lines with a line feed"
_FIRST_BYTES = {
    b"\x1f\x8b": ".gz",
    b"BZh": ".bz2",
    b"\xfd7zXZ": ".xz",
    b"PK\x03\x04": ".xlsx, .xlsm or .zip",
    b"PAR1": ".parquet",
    b"\xd0\xcf\x11\xe0": ".xls, or a workbook with a password",
}


def on_disk(path: str | os.PathLike[str]) -> Path:
    """The path with its names as they are on the disk, where Macs write "ố" in three characters; "~" is the home."""
    return _as_written(Path(os.path.expanduser(path)))  # that of Path raises for "~$rows.xlsx", which Excel writes


def _as_written(path: Path) -> Path:
    if path.exists() or path.parent == path:
        return path
    folder, name = _as_written(path.parent), normalize("NFC", path.name)
    inside = folder.iterdir() if not name.isascii() and folder.is_dir() else ()
    return next((other for other in inside if normalize("NFC", other.name) == name), folder / path.name)


def file_at(path: str | os.PathLike[str]) -> Path | None:
    """The file of this path (`on_disk`); None if there is none, or a text is no path, being too long, say."""
    try:
        found = on_disk(path)
        return found if found.is_file() else None
    except (OSError, ValueError):
        return None


def kind_of(path: Path) -> str:
    """The kind of a file by its name: the last suffix in lower case, without that of compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def kind_by_bytes(path: Path) -> str | None:
    """What a file is by its first bytes, for a message, if it is none of text; None if it is what its name says."""
    with path.open("rb") as file:
        start = file.read(8)
    kind = next((kind for mark, kind in _FIRST_BYTES.items() if start.startswith(mark)), None)
    return None if kind and path.suffix.lower() in kind else kind


def append_line(path: Path, line: str) -> None:
    """Add a line to a file of lines, in place of a last one that a killed process has not finished."""
    with path.open("ab+") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line.encode() + b"\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there completely or not at all, also after a kill."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def finished_lines(path: Path) -> list[str]:
    """The lines that `append_line` has written; none if there is no file."""
    return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file, compressed or not, with their ends and without byte-order marks.

    Files that were joined have a mark in the middle, too, before which CSV would know no quotation mark.
    """
    opened = PACKED.get(path.suffix.lower(), open)
    try:
        with opened(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield number, _decoded(line, number, path)
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        kind = kind_by_bytes(path)
        raise ValueError(f"{path}: damaged or cut short ({error})" + (f"; it is {kind}" if kind else "")) from error


def _decoded(line: bytes, number: int, path: Path) -> str:
    where, todo = f"{path}, line {number}: not UTF-8", "save it as UTF-8 (in Excel: CSV UTF-8)"
    if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{where} but UTF-16; {todo}")
    try:
        text = line.removeprefix(BOM_UTF8).decode()
        if "\0" not in text:
            return text
        problem = f"{path}, line {number}: a NUL character, which no text has; if it is UTF-16, {todo}"
    except UnicodeDecodeError as error:
        problem = f"{where} ({error.reason} at byte {error.start}); {todo}"
    if kind := kind_by_bytes(path):
        problem = f"{path}: no text but {kind}, by its first bytes: give it the right ending"
    raise ValueError(problem)


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a file with one on each line, or of one array; blank lines are skipped."""
    lines = ((number, line) for number, line in lines_of(path) if line.strip())
    first = next(lines, None)
    if first is None:
        return
    if first[1].lstrip().startswith("["):
        yield from _json_array("".join(line for _, line in lines_of(path)), path)
        return
    for number, line in chain([first], lines):
        try:
            row = json.loads(line, object_pairs_hook=_with_distinct_names, parse_constant=_constant)
        except json.JSONDecodeError as error:
            problem = f"not JSON ({error.msg} at column {error.colno}); expected an object on each line, or one array"
            problem = _OLD_ENDS if "\r" in line.rstrip() else problem
            raise ValueError(f"{path}, line {number}: {problem}") from error
        except (ValueError, RecursionError) as error:  # thousands of digits, lists in lists in lists
            raise ValueError(f"{path}, line {number}: {error}") from error
        yield number, _object(row, number, path)


def _json_array(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    decoder = json.JSONDecoder(object_pairs_hook=_with_distinct_names, parse_constant=_constant)
    blank = re.compile(r"[ \t\r\n]*")

    def after_blank(place: int) -> int:
        match = blank.match(text, place)
        return match.end() if match else place

    place, line, counted = after_blank(0) + 1, 1, 0
    place = after_blank(place)
    closed = text.startswith("]", place)
    while not closed:
        line, counted = line + text.count("\n", counted, place), place
        try:
            row, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {error.lineno}: not JSON ({error.msg} at column {error.colno})") from error
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {line}: {error}") from error
        yield line, _object(row, line, path)
        place = after_blank(place)
        closed = text.startswith("]", place)
        if not closed and not text.startswith(",", place):
            line += text.count("\n", counted, place)
            raise ValueError(f"{path}, line {line}: not JSON (expected ',' or ']' after an object of the array)")
        place = place if closed else after_blank(place + 1)
    if text[place + 1 :].strip():
        line += text.count("\n", counted, place)
        raise ValueError(f"{path}, line {line}: not JSON (something follows the end of the array)")


def _with_distinct_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = {normalize("NFC", name): value for name, value in pairs}
    if len(made) < len(pairs):
        names = [normalize("NFC", name) for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} is in the object twice")
    return made


def _constant(name: str) -> float | None:
    """None for NaN, which tables of pandas have in place of any missing value, texts too."""
    return None if name == "NaN" else float(name)


def _object(row: Any, number: int, path: Path) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{path}, line {number}: expected a JSON object, got {type(row).__name__}")
    return row


def text_lines(path: Path) -> Fields:
    """Lines of a plain text file that are not blank, without their ends, under the name "text"."""
    yield 1, ["text"]
    for number, line in lines_of(path):
        if "\r" in (text := line.rstrip("\r\n")):
            raise ValueError(f"{path}, line {number}: {_OLD_ENDS}")
        if text.strip():
            yield number, [text]


def table_lines(path: Path) -> Fields:
    """Fields of a CSV or TSV file as text, the header first; lines without any text are skipped.

    A TSV has no quoting: a quotation mark is a character like any other. A CSV is split at the one of comma, semicolon
    and tab that its header has: spreadsheets save semicolons where the comma is the decimal point. A first line
    "sep=;", as they write it, says which.
    """
    csv.field_size_limit(2**31 - 1)  # of the whole process; a long document in a field is no mistake
    tabs = kind_of(path) == ".tsv"
    lines = lines_of(path)
    filled = ((number, line) for number, line in lines if line.strip())
    number, header = next(filled, (0, ""))
    said = re.fullmatch(r"(?i)sep=(.)\s*", header)
    if said:
        number, header = next(filled, (0, ""))
    if not header:
        return
    skipped, rest = number - 1, (line for _, line in lines)
    if tabs:
        reader = csv.reader(chain([header], rest), delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        delimiter = said[1] if said else _separator(header, f"{path}, line {number}")
        reader = csv.reader(chain([header], rest), delimiter=delimiter, strict=True)
    while True:
        begins = skipped + reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"{path}, line {begins}: {_reason(error, begins, skipped + reader.line_num)}") from error
        if fields == [""] or any(field.strip() for field in fields):  # [""] is a quoted text of no letters
            yield begins, fields


def _separator(header: str, where: str) -> str:
    found = [mark for mark in ",;\t" if mark in re.sub(r'"[^"]*"', "", header)]
    if len(found) > 1:
        raise ValueError(
            f"{where}: the header has {' and '.join(map(repr, found))}, and each may separate the columns: quote the "
            "names that have such a mark in them, or begin the file with a line such as sep=;"
        )
    return found[0] if found else ","


def _reason(error: csv.Error, begins: int, ends: int) -> str:
    if "new-line" in str(error):
        return f"{_OLD_ENDS}, or quote the text"
    until = f", in line {ends}" if ends > begins else ""
    return f"quotation marks that do not match ({error}{until}); write a mark within a quoted text twice"


def checked_table(rows: Fields, path: Path) -> Fields:
    """Rows that all have as many fields as the header, and a header of different names.

    A column without a name is named as in pandas, "Unnamed: 0" for the first. Names have composed letters (NFC), as
    they are typed. The header once more, as where files were joined, is an error.
    """
    names: Sequence[str] = ()
    header: Sequence[str] = ()
    for number, fields in rows:
        if not names:
            header = _stripped(fields)
            names = [normalize("NFC", name) or f"Unnamed: {place}" for place, name in enumerate(header)]
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"{path}, line {number}: two columns have the name {twice[0]!r}")
            yield number, list(names)
            continue
        if len(fields) != len(names):
            raise ValueError(
                f"{path}, line {number}: {len(fields)} fields, but the header has {len(names)} ({', '.join(names)}); "
                "a text with a separator in it must be quoted (CSV) or be without it (TSV)"
            )
        if len(names) > 1 and header[0] in fields[0] and _stripped(fields) == header:
            raise ValueError(f"{path}, line {number}: the header once more; take this line out")
        yield number, fields


def _stripped(fields: Sequence[str]) -> list[str]:
    return [field.strip("\ufeff").strip() for field in fields]
