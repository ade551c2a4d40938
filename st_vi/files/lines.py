"""Rows of text files, one at a time, each with the number of its line."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any

PACKED: dict[str, Callable[..., IO[Any]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
Fields = Iterator[tuple[int, list[str]]]


def kind_of(path: Path) -> str:
    """The kind of a file by its name: the last suffix in lower case, without that of compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file, compressed or not, with their ends and without a byte-order mark.

    Raises:
        ValueError: A line that is not UTF-8, or a compressed file that is damaged or cut short.
    """
    opened = PACKED.get(path.suffix.lower(), open)
    try:
        with opened(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield number, _decoded(line, number, path)
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{path}: damaged or cut short ({error})") from error


def _decoded(line: bytes, number: int, path: Path) -> str:
    where, todo = f"{path}, line {number}: not UTF-8", "save it as UTF-8 (in Excel: CSV UTF-8)"
    if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{where} but UTF-16; {todo}")
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} ({error.reason} at byte {error.start}); {todo}") from error
    if "\0" in text:
        raise ValueError(f"{path}, line {number}: a NUL character, which no text has; is it another kind of file?")
    return text


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a file with one on each line, or of one array; blank lines are skipped.

    Raises:
        ValueError: A line that is not JSON, or not an object; names the line.
    """
    lines = ((number, line) for number, line in lines_of(path) if line.strip())
    first = next(lines, None)
    if first is None:
        return
    if first[1].lstrip().startswith("["):
        yield from _json_array("".join(line for _, line in lines_of(path)), path)
        return
    for number, line in chain([first], lines):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            problem = f"not JSON ({error.msg} at column {error.colno}); expected an object on each line, or one array"
            raise ValueError(f"{path}, line {number}: {problem}") from error
        except (ValueError, RecursionError) as error:  # thousands of digits, lists in lists in lists
            raise ValueError(f"{path}, line {number}: {error}") from error
        yield number, _object(row, number, path)


def _json_array(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    decoder, blank = json.JSONDecoder(), re.compile(r"[ \t\r\n]*")

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


def _object(row: Any, number: int, path: Path) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{path}, line {number}: expected a JSON object, got {type(row).__name__}")
    return row


def text_lines(path: Path) -> Fields:
    """Lines of a plain text file that are not blank, without their ends, under the name "text"."""
    yield 1, ["text"]
    yield from ((number, [line.rstrip("\r\n")]) for number, line in lines_of(path) if line.strip())


def table_lines(path: Path) -> Fields:
    """Fields of a CSV or TSV file as text, the header first; blank lines are skipped.

    A TSV has no quoting: a quotation mark is a character like any other. A CSV whose header has semicolons or tabs
    and no comma is split at these, as spreadsheets save it where the comma is the decimal point.

    Raises:
        ValueError: Quotation marks that do not match; names the line where the text begins.
    """
    csv.field_size_limit(2**31 - 1)  # of the whole process; a long document in a field is no mistake
    tabs = kind_of(path) == ".tsv"
    lines = (line for _, line in lines_of(path))
    first = next(((number, line) for number, line in enumerate(lines, 1) if line.strip()), None)
    if first is None:
        return
    skipped = first[0] - 1
    if tabs:
        reader = csv.reader(chain([first[1]], lines), delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        header = re.sub(r'"[^"]*"', "", first[1])
        delimiter = next((mark for mark in ",;\t" if mark in header), ",")
        reader = csv.reader(chain([first[1]], lines), delimiter=delimiter, strict=True)
    while True:
        begins = skipped + reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"{path}, line {begins}: {_reason(error, begins, skipped + reader.line_num)}") from error
        if fields and (len(fields) > 1 or not fields[0] or fields[0].strip()):  # [""] is a quoted text of no letters
            yield begins, fields


def _reason(error: csv.Error, begins: int, ends: int) -> str:
    if "new-line" in str(error):
        return "a carriage return within a text; quote the text, or take it out"
    until = f", in line {ends}" if ends > begins else ""
    return f"quotation marks that do not match ({error}{until}); write a mark within a quoted text twice"


def checked_table(rows: Fields, path: Path) -> Fields:
    """Rows that all have as many fields as the header, and a header of different names.

    A column without a name is named as in pandas, "Unnamed: 0" for the first.

    Raises:
        ValueError: A duplicate name, or a row with more or fewer fields; names the line.
    """
    names: Sequence[str] = ()
    for number, fields in rows:
        if not names:
            names = [name.strip() or f"Unnamed: {place}" for place, name in enumerate(fields)]
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"{path}, line {number}: two columns have the name {twice[0]!r}")
            yield number, list(names)
            continue
        if len(fields) != len(names):
            raise ValueError(
                f"{path}, line {number}: {len(fields)} fields, but the header has {len(names)} ({', '.join(names)}); "
                "a text with a separator in it must be quoted (CSV) or be without it (TSV)"
            )
        yield number, fields
