"""Passages of files, with their positions."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

from tqdm.auto import tqdm

from st_vi.data import read_rows
from st_vi.files.lines import kind_of, lines_of, on_disk
from st_vi.text import is_blank, normalise
from st_vi.text.chunks import chunk_spans

CountTokens = Callable[[Sequence[str]], list[int]]

TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".xlsx", ".xlsm")
PROSE = (".txt", ".md", ".markdown")

# Documents that are not read; another kind of file in a folder is not meant to be searched.
_DOCUMENTS = (".pdf", ".docx", ".doc", ".odt", ".rtf", ".html", ".htm", ".epub", ".pptx", ".ppt", ".xls", ".ods")
_HIDDEN = (".", "~$")  # the latter beside a file that is open in Word or Excel
_AT_ONCE = 1000  # texts that are counted together
_HEADING = re.compile(r"#{1,6}\s+(.*?)\s*#*\s*\Z")
_FIELD = re.compile(r"[\w-]+\s*:")
_TITLE = re.compile(r"title\s*:\s*[\"']?(.+?)[\"']?\s*\Z")


@dataclass(frozen=True)
class Passage:
    """A passage of a text.

    Attributes:
        text: Text as in the file, with normalised white space.
        title: Title of the row, or title and headings of the Markdown file; may be "".
        file: The file, relative to the searched folder.
        place: "row 12" (from 1) of a table, or "line 80" of a text file.
        start: Position in the text of its row or paragraph, in characters.
    """

    text: str
    title: str
    file: str
    place: str
    start: int = 0

    @property
    def searched(self) -> str:
        """The text to encode and match: the title, unless the text begins with it, and the text."""
        return self.text if not self.title or self.text.startswith(self.title) else f"{self.title}\n{self.text}"


@dataclass(frozen=True)
class _Document:
    text: str
    title: str
    file: str
    place: str


def read_passages(
    source: str | Path,
    count_tokens: CountTokens,
    *,
    most_tokens: int = 192,
    column: str | None = None,
    show_progress_bar: bool = False,
) -> list[Passage]:
    """Read files and split their texts into passages at sentence boundaries.

    Args:
        source: A file, or a folder, which is searched recursively for tables (.jsonl, .json, .csv, .tsv, .xlsx,
            .parquet), .txt and .md; text files also .gz. Folders that are linked there are searched, too. Empty files
            and names that begin with a dot or "~$" are ignored.
        count_tokens: Function that counts the tokens of each text, such as `token_counts` of a model.
        most_tokens: Maximum tokens per passage.
        column: Column of tables to search; None for "text", or the column with the longest texts. A column "title" is
            prepended to every passage of its row.
        show_progress_bar: Whether to show a progress bar.

    Returns:
        Passages in the order of files and rows.

    Warns:
        UserWarning: A folder has documents that are not read, such as .pdf and .docx; names one. Or a file of a folder
            cannot be read and is left out; names it.

    Raises:
        FileNotFoundError: The file or folder does not exist.
        ValueError: `source` is a file that cannot be read, or a table without such a column (they are named), or there
            is nothing to search.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from st_vi.encoding.search import read_passages
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "nghi.md")
        ...     _ = file.write_text("# Nghỉ phép\\n\\nMỗi năm mười hai ngày.\\n", encoding="utf-8")
        ...     read_passages(file, lambda texts: [len(text.split()) for text in texts])
        [Passage(text='Mỗi năm mười hai ngày.', title='Nghỉ phép', file='nghi.md', place='line 3', start=0)]
    """
    source = on_disk(source)
    documents: list[_Document] = []
    left_out: list[str] = []
    for file in _files(source):
        try:
            documents += list(_documents(file, _name(file, source), column))
        except (ImportError, OSError, ValueError) as error:
            if file == source:
                raise
            left_out.append(f"not searched: {error}")
    if not documents:
        raise ValueError("; ".join([f"{source} has no text to search", *left_out[:1]]))
    for problem in left_out:
        warnings.warn(problem, stacklevel=2)
    spans = _spans([d.text for d in documents], most_tokens, count_tokens)
    hidden = not show_progress_bar
    bar = tqdm(spans, total=len(documents), desc="Texts", disable=hidden, leave=False)  # that of encoding follows
    return [
        Passage(normalise(d.text[start:end]), d.title, d.file, d.place, start)
        for d, pieces in zip(documents, bar, strict=True)
        for start, end in pieces
    ]


def _spans(texts: Sequence[str], most_tokens: int, count_tokens: CountTokens) -> Iterator[list[tuple[int, int]]]:
    """Spans of passages; many texts are counted at once, and only long ones are split."""
    for first in range(0, len(texts), _AT_ONCE):
        part = texts[first : first + _AT_ONCE]
        for text, count in zip(part, count_tokens(part), strict=True):
            yield [(0, len(text))] if count <= most_tokens else chunk_spans(text, most_tokens, count_tokens)


def _files(source: Path) -> list[Path]:
    kinds = ", ".join((*TABLES, *PROSE))
    if source.is_file():
        if kind_of(source) not in (*TABLES, *PROSE):
            raise ValueError(f"{source}: this kind of file is not searched, but {kinds}: convert it to .txt or .md")
        return [source]
    if not source.is_dir():
        raise FileNotFoundError(f"no such file or folder: {source}")
    files = files_below(source)
    found = [path for path in files if kind_of(path) in (*TABLES, *PROSE) and not _is_empty(path)]
    if others := [path for path in files if kind_of(path) in _DOCUMENTS]:
        first = others[0].relative_to(source)
        what = f"{first} is" if len(others) == 1 else f"{first} and {len(others) - 1} more are"
        warnings.warn(f"{source}: {what} not searched: convert to .txt or .md", stacklevel=3)
    if not found:
        raise ValueError(f"{source} has no file to search: {kinds}, text files also .gz")
    return found


def files_below(folder: Path) -> list[Path]:
    """Files in a folder and below, without hidden ones. Links are followed, and every folder is looked at once.

    Warns:
        UserWarning: A folder cannot be read and is left out; names it.
    """

    def say(error: OSError) -> None:
        warnings.warn(f"{error.filename} is left out: {error}", stacklevel=4)

    found: list[Path] = []
    seen: set[str] = set()
    for here, folders, names in os.walk(folder, followlinks=True, onerror=say):
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        links_last = sorted(folders, key=lambda name: (os.path.islink(os.path.join(here, name)), name))
        folders[:] = [name for name in links_last if not name.startswith(_HIDDEN)]
        paths = [Path(here, name) for name in names if not name.startswith(_HIDDEN)]
        found += [path for path in paths if path.is_file() or not path.exists()]  # a link to nothing is told of later
    return sorted(found)


def _is_empty(path: Path) -> bool:
    return path.exists() and not path.stat().st_size


def _name(file: Path, source: Path) -> str:
    return file.name if file == source else file.relative_to(source).as_posix()


def _documents(file: Path, name: str, column: str | None) -> Iterator[_Document]:
    if kind_of(file) in PROSE:
        yield from _paragraphs(file, name)
        return
    rows = read_rows(file)
    column = _text_column(rows, file, column)
    titles: Iterable[Any] = rows["title"] if "title" in rows.column_names and column != "title" else [""] * len(rows)
    for number, (text, title) in enumerate(zip(rows[column], titles, strict=True), 1):
        if isinstance(text, str) and not is_blank(text):
            yield _Document(text, normalise(title) if isinstance(title, str) else "", name, f"row {number}")


def _text_column(rows: Any, file: Path, column: str | None) -> str:
    kinds = {name: getattr(feature, "dtype", "") for name, feature in rows.features.items()}
    texts = [name for name, kind in kinds.items() if kind in ("string", "large_string")]
    column = column and normalize("NFC", column)  # as names are read
    if column is not None and column not in texts:
        raise ValueError(f"{file}: no column {column!r} of texts; the columns of texts are {texts}")
    if not texts:
        raise ValueError(f"{file}: no column holds texts; the columns are {rows.column_names}")
    first = rows[:100]
    longest = max(texts, key=lambda name: sum(len(text or "") for text in first[name]))
    return column or ("text" if "text" in texts else longest)


def _paragraphs(file: Path, name: str) -> Iterator[_Document]:
    """Paragraphs separated by blank lines, with their Markdown headings."""
    lines = [line.removesuffix("\n") for _, line in lines_of(file)]
    markdown = kind_of(file) != ".txt"
    matter = _front_matter(lines) if markdown else []
    lines[: len(matter)] = [""] * len(matter)
    titles = [found[1] for line in matter if (found := _TITLE.match(line))]
    headings = dict(enumerate(titles[:1]))  # level 0
    begin: int | None = None
    for number, line in enumerate([*lines, ""], 1):
        heading = _HEADING.match(line) if markdown else None
        if begin is None and not heading and not is_blank(line):
            begin = number
        elif begin is not None and (heading or is_blank(line)):
            title = " › ".join(headings[level] for level in sorted(headings))
            yield _Document("\n".join(lines[begin - 1 : number - 1]), title, name, f"line {begin}")
            begin = None
        if heading:
            depth = len(line) - len(line.lstrip("#"))
            headings = {level: text for level, text in headings.items() if level < depth} | {depth: heading[1]}


def _front_matter(lines: Sequence[str]) -> Sequence[str]:
    """The lines of metadata that Hugo, Jekyll, MkDocs and Obsidian keep between "---" at the top."""
    ends = [number for number, line in enumerate(lines) if line.rstrip() == "---"]
    return lines[: ends[1] + 1] if ends[:1] == [0] and len(ends) > 1 and _FIELD.match(lines[1]) else []
