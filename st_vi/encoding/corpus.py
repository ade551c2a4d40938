"""Resumable encoding of a corpus to Parquet shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import quantize_embeddings
from tqdm.auto import tqdm

from st_vi.checks import check_model, check_whole
from st_vi.encoding.batches import MAX_TOKENS
from st_vi.encoding.limits import token_limit
from st_vi.encoding.row_encoder import BadRow, CountedRows, EncodedRows, Problems, RowEncoder
from st_vi.encoding.rows import InputColumns, NoRow
from st_vi.encoding.shards import (
    LAYOUT,
    Cut,
    Notes,
    begin,
    check_manifest,
    check_rows,
    check_writable,
    read_shard,
    remove_all,
    remove_unfinished,
    save_manifest,
    save_shard,
    shard_notes,
    shard_numbers,
    shard_path,
    shard_schema,
)
from st_vi.encoding.sources import folder_of, open_rows, row_count
from st_vi.files.lines import on_disk
from st_vi.identity import fingerprint, model_identity
from st_vi.inputs.kinds import is_null, shown
from st_vi.inputs.prompts import prompt_of

Precision = Literal["float32", "float16", "binary", "ubinary"]

_SHOWN = 10  # bad rows listed when a result is printed


@dataclass(frozen=True)
class EncodedCorpus:
    """Summary of an encoded corpus.

    Attributes:
        rows: Number of rows with vectors.
        skipped: Number of bad rows that were skipped.
        shards: Number of files.
        reused: Number of complete files from earlier runs.
        added: Number of rows added to a file from an earlier run.
        vectors: Number of vectors; larger than `rows` if long texts were split into chunks.
        skipped_rows: Row number to the reason why it was skipped.
        cut: Truncated texts.
        limit: Maximum number of tokens of the model, if any.
    """

    rows: int
    skipped: int
    shards: int
    reused: int
    added: int = 0
    vectors: int = 0
    skipped_rows: Mapping[int, str] = field(default_factory=dict)
    cut: Cut = field(default_factory=Cut)
    limit: int | None = None

    def __str__(self) -> str:
        """One line, and more if rows were skipped or texts truncated."""
        chunks = f" ({self.vectors} vectors)" if self.vectors > self.rows else ""
        skipped = f", {self.skipped} bad rows skipped" if self.skipped else ""
        reused = f", {self.reused} of them from an earlier run" if self.reused else ""
        added = f", {self.added} rows added to the last of an earlier run" if self.added else ""
        lines = [f"{self.rows} rows{chunks} in {self.shards} shards{reused}{added}{skipped}"]
        shown = list(self.skipped_rows.items())[:_SHOWN]
        lines += [f"skipped row {number}: {problem}" for number, problem in shown]
        if self.skipped > len(shown):
            lines.append(f"and {self.skipped - len(shown)} more: all are in manifest.json")
        if self.cut.texts:
            share = 100 * self.cut.read / self.cut.tokens
            lines.append(
                f"{self.cut.texts} texts are longer than the {self.limit} tokens that the model reads: {share:.0f} % "
                "of their tokens were used. chunk=True (--chunk) encodes all of them."
            )
        return "\n".join(lines)


def encode_corpus(
    model: SentenceTransformer,
    rows: str | Path | Iterable[Mapping[str, Any]],
    output: str | Path,
    column: str | None = None,
    *,
    image_column: str | None = None,
    text_only: bool = False,
    keep: Sequence[str] = (),
    shard_rows: int = 10_000,
    max_tokens: int = MAX_TOKENS,
    prompt_name: str | None = None,
    prompt: str | None = None,
    precision: Precision = "float32",
    normalize: bool = False,
    chunk: bool | int = False,
    bad_row: BadRow = "error",
    part: tuple[int, int] | None = None,
    show_progress_bar: bool = False,
) -> EncodedCorpus:
    """Encode one column of a corpus into Parquet files, ``shard-00000.parquet``, ``shard-00001.parquet``, ….

    Each shard has the columns `keep`, ``id`` (the row number, unless `keep` has an ``id``) and ``embedding`` (a list of
    fixed size). While the model encodes a shard, another thread tokenizes the next one: two shards are in
    memory at a time. Shards appear under their names only when complete: a killed run, called again, skips existing
    shards and writes byte-identical files. ``manifest.json`` records the model, the settings and finally the number of
    rows, so that different runs are never mixed, not even at the same time.

    **Adding rows.** If rows were appended, only those are encoded: they fill up the last shard, whose existing vectors
    stay unchanged, and then new ones. (A fresh run would give that shard the same vectors up to rounding, because its
    batches differ.) If an earlier row has changed, an error names it and its file; delete the file to re-encode only
    its rows.

    **Images** come from `image_column`. Without one, images, bytes and ``{"image": …}`` in `column` are images, and so
    are strings that look like image file names: all strings of the column if most of them do, or if it is called
    "image" or "…_image", otherwise single ones. Paths are relative to the file of the rows, as in training. A missing
    image is a bad row, and URLs are not fetched. With ``text_only=True``, every string is text.

    To read the result, use ``datasets.Dataset.from_parquet(f"{output}/*.parquet")``.

    Args:
        model: Any `SentenceTransformer`.
        rows: A file or Hub id as for `read_rows` (JSON Lines are streamed), a `datasets.Dataset`, a data frame (pandas,
            polars), an Arrow table, or dicts. To resume, pass the same rows in the same order.
        output: Output folder; created if needed.
        column: Column to encode: texts, images, or ``{"text": …, "image": …}``. Defaults to "text"; with an
            `image_column`, only if there is such a column.
        image_column: Column of images, each encoded together with the text of its row, if any: paths, bytes, `PIL`
            images, or lists of these.
        text_only: Treat all strings as text, even if they look like image file names.
        keep: Columns to copy.
        shard_rows: Rows per shard.
        max_tokens: As for `encode_by_tokens`.
        prompt_name: As for ``encode``.
        prompt: As for ``encode``.
        precision: float16 halves the files; binary and ubinary use one bit per dimension, as in stock. (int8 needs
            ranges over the whole corpus: use the stock `quantize_embeddings` on float32 shards.)
        normalize: Whether to scale vectors to length 1, so that inner products are cosines.
        chunk: Whether to split texts longer than the model's maximum length at sentence boundaries. Each chunk becomes
            a row with the same ``id`` and with ``start`` and ``end``, its position in characters (None for a row with
            an image). A number sets the maximum tokens per chunk, including the prompt.
        bad_row: What to do with a row that has no input (None, blank, a number), a missing or unreadable image, a text
            that cannot be tokenized, or a value that does not fit into its kept column. "error" stops and names the
            row; "skip" skips and lists it.
        part: (k, n) encodes only every n-th file, from the k-th, so that n processes share the work on one folder
            without waiting for each other. At the end, a call without it checks all files and completes the manifest.
        show_progress_bar: Whether to show a progress bar.

    Returns:
        Number of rows written and skipped, and of texts truncated; can be printed.

    Raises:
        FileNotFoundError: `rows` is a file that does not exist.
        ValueError: The corpus is empty or has no usable row; a column is missing or a row is bad (both are named); an
            argument is out of range; or the folder has shards of another model, other settings or other rows.
        OSError: A file cannot be written, usually because the disk is full; earlier shards are kept.

    Example:
        >>> import tempfile
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.encoding import encode_corpus
        >>> model = SentenceTransformer(modules=[BoW(["xin", "chào"])])
        >>> rows = [{"text": "xin chào"}, {"text": "chào"}, {"text": "xin"}]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     str(encode_corpus(model, rows, folder, shard_rows=2))
        ...     str(encode_corpus(model, rows, folder, shard_rows=2))
        ...     str(encode_corpus(model, [*rows, {"text": "chào xin"}], folder, shard_rows=2))
        '3 rows in 2 shards'
        '3 rows in 2 shards, 2 of them from an earlier run'
        '4 rows in 2 shards, 1 of them from an earlier run, 1 rows added to the last of an earlier run'
    """
    check_model(model)
    check_arguments(column, image_column, keep, shard_rows, precision, bad_row, chunk)
    if part is not None and not (isinstance(part, tuple) and len(part) == 2 and 1 <= part[0] <= part[1]):
        raise ValueError(f"part must be (k, n) with k from 1 to n, got {part}")
    if image_column is None:
        column = column or "text"
    wanted = [name for name in (column, image_column, *keep) if name is not None]
    source = open_rows(rows, wanted, optional=["text"] if column is None else [])
    shards = _shards(source, shard_rows)
    if not (first := next(shards, [])):
        raise ValueError(f"{_named(rows)}the corpus is empty")
    _check_columns(first, wanted, _named(rows))
    columns = InputColumns.of(first, column, image_column, text_only, folder_of(rows))
    prompt = prompt_of(model, prompt, prompt_name)
    encoder = RowEncoder(model, columns, prompt, max_tokens, normalize, chunk)
    settings = {
        "chunk": chunk,
        "column": columns.text,
        "image_column": image_column,
        "keep": list(keep),
        "layout": LAYOUT,
        "max_tokens": int(max_tokens),
        "model": model_identity(model),
        "normalize": normalize,
        "precision": precision,
        "prompt": prompt,
        "shard_rows": int(shard_rows),
        "text_only": text_only,
    }
    output = on_disk(output)
    check_manifest(output, settings)
    check_writable(output)
    types = _types(shard_path(output, 0), first, keep, rows)
    run = _Run(encoder, output, settings, list(keep), precision, bad_row, _named(rows), types)
    total = row_count(source, rows) if show_progress_bar else None
    with (
        tqdm(total=total, desc="Rows", disable=not show_progress_bar) as progress,
        ThreadPoolExecutor(1, "st_vi-tokens") as ahead,
    ):
        upcoming: Future[_CountedShard] | None = None
        # Rows are read in this thread: a source, such as a database connection, may be bound to it.
        for number, shard in chain(enumerate(chain([first], shards)), [(-1, [])]):
            if shard and part and number % part[1] != part[0] - 1:
                continue
            counted, upcoming = upcoming, ahead.submit(run.count, number, shard) if shard else None
            try:
                if counted:
                    run.shard(counted.result(), progress.update)
            except ValueError as error:
                raise ValueError(f"{_named(rows)}{error}") from error
    return run.finished() if part is None else run.summary()


# For a column, of objects of any kind.
_UNFIT = (pa.ArrowException, ArithmeticError, AttributeError, TypeError, ValueError, RecursionError)


@dataclass(frozen=True)
class _CountedShard:
    """A shard whose rows are read and tokenized, as far as they are new."""

    number: int
    rows: list[Mapping[str, Any]]
    first: int
    problems: Problems
    prints: tuple[bytes, ...]
    notes: Notes
    counted: CountedRows | None


class _Run:
    """One call of `encode_corpus`, shard after shard."""

    def __init__(
        self,
        encoder: RowEncoder,
        output: Path,
        settings: dict[str, Any],
        keep: list[str],
        precision: Precision,
        bad_row: BadRow,
        source: str,
        types: Mapping[str, pa.DataType],
    ) -> None:
        self.encoder, self.output, self.settings = encoder, output, settings
        self.keep, self.precision, self.bad_row, self.source = keep, precision, bad_row, source
        self.types = types
        self.schema: pa.Schema | None = None
        self.rows = self.vectors = self.shards = self.reused = self.added = 0
        self.skipped: dict[int, str] = {}
        self.cut = Cut()

    def count(self, number: int, rows: list[Mapping[str, Any]]) -> _CountedShard:
        """Compare one shard with an existing file, and tokenize its new rows. Runs while the one before is encoded."""
        path, first = shard_path(self.output, number), number * self.settings["shard_rows"]
        problems = Problems(self.bad_row, lambda place: f"row {first + place}")
        inputs = self.encoder.inputs(rows, problems)
        prints = tuple(self._fingerprint(row, inputs.get(place)) for place, row in enumerate(rows))
        notes = self._stored(path, prints, first)
        there = len(notes.fingerprints)
        new = {place: item for place, item in inputs.items() if place >= there and place not in problems.found}
        counted = self.encoder.count(new, problems) if there < len(rows) else None
        return _CountedShard(number, rows, first, problems, prints, notes, counted)

    def shard(self, shard: _CountedShard, done: Callable[[int], Any]) -> None:
        """Reuse, extend or create one shard."""
        path, notes, rows = shard_path(self.output, shard.number), shard.notes, shard.rows
        there = len(notes.fingerprints)
        self.reused += there == len(rows)
        done(there)
        if shard.counted is not None:
            self.added += len(rows) - there if there else 0
            table, new = self._new_rows(shard, shard.counted, there, path, done)
            table = pa.concat_tables([read_shard(path), table]) if there else table
            begin(self.output, self.settings)  # first, because shards are only valid with a manifest
            notes = self._save(shard, table, notes + Notes(shard.prints[there:], new.skipped, new.cut))
        schema = pq.read_schema(path)
        self.schema = self.schema or schema
        if not schema.equals(self.schema):  # without metadata
            raise ValueError(
                f"{path} has other types of columns than the files before it. Delete it to encode its rows again"
            )
        self._count(len(rows), notes, path)

    def _save(self, shard: _CountedShard, table: pa.Table, notes: Notes) -> Notes:
        """Write a shard, unless another run has done so since its rows were read; returns the notes in the file."""
        path = shard_path(self.output, shard.number)
        before = shard.notes.fingerprints
        try:
            if path.exists() and shard_notes(path).fingerprints != before:
                raise FileExistsError
            save_shard(path, table, notes, new=not before)
            return notes
        except FileExistsError:
            notes = shard_notes(path)
            if notes.fingerprints != shard.prints:
                raise ValueError(
                    f"{path} was written by another run at the same time, of other rows: use another output folder"
                ) from None
            return notes

    def finished(self) -> EncodedCorpus:
        """Record in the manifest that all rows are done."""
        read = self.rows + len(self.skipped)
        if shard_numbers(self.output)[-1:] > [self.shards - 1]:
            raise ValueError(f"{self.output} has more shards than these {read} rows: they belong to another corpus")
        if not self.rows:
            remove_all(self.output, self.shards)
            raise ValueError(
                f"{self.source}column {self.encoder.columns.names[0]!r} has no usable row among {read}; "
                f"row 0: {self.skipped[0]}"
            )
        found = {
            "complete": True,
            "cut": {"texts": self.cut.texts, "tokens_read": self.cut.read, "tokens": self.cut.tokens},
            "rows": self.rows,
            "shards": self.shards,
            "skipped": len(self.skipped),
            "skipped_rows": self.skipped,
            "vectors": self.vectors,
        }
        save_manifest(self.output, self.settings | found)
        remove_unfinished(self.output)
        return self.summary()

    def summary(self) -> EncodedCorpus:
        """What was done."""
        return EncodedCorpus(
            self.rows,
            len(self.skipped),
            self.shards,
            self.reused,
            self.added,
            self.vectors,
            self.skipped,
            self.cut,
            token_limit(self.encoder.model),
        )

    def _stored(self, path: Path, prints: tuple[bytes, ...], first: int) -> Notes:
        """The notes of an existing shard."""
        if not path.exists():
            return Notes()
        notes = shard_notes(path)
        check_rows(path, notes.fingerprints, prints, first)
        if notes.skipped and self.bad_row == "error":
            row, problem = next(iter(notes.skipped.items()))
            raise ValueError(f"{path} was made without row {row}, {problem}. Skip bad rows again, or correct this one")
        return notes

    def _new_rows(
        self,
        shard: _CountedShard,
        counted: CountedRows,
        there: int,
        path: Path,
        done: Callable[[int], Any],
    ) -> tuple[pa.Table, Notes]:
        """The rows of a shard, starting at `there`."""
        first, problems = shard.first, shard.problems
        kept = _kept(shard.rows, there, self.keep, self.types, path, problems)
        done(len(shard.rows) - there - counted.rows)
        encoded = self.encoder.encode_counted(counted, problems, done)
        table = self._table(encoded, kept, there, first)
        skipped = {first + place: text for place, text in sorted(problems.found.items()) if place >= there}
        return table, Notes((), skipped, encoded.cut)

    def _table(self, encoded: EncodedRows, kept: dict[str, pa.Array], there: int, first: int) -> pa.Table:
        columns = {"id": pa.array([first + place for place in encoded.places], pa.int64())}
        taken = pa.array([place - there for place in encoded.places], pa.int64())
        columns |= {name: values.take(taken) for name, values in kept.items()}
        if self.encoder.chunker:
            for side, name in enumerate(("start", "end")):
                columns[name] = pa.array([span and span[side] for span in encoded.spans], pa.int64())
        columns["embedding"] = embedding_array(encoded.vectors, self.precision)
        return pa.table(columns)

    def _fingerprint(self, row: Mapping[str, Any], item: Any) -> bytes:
        read = item if item is not None else [row.get(name) for name in self.encoder.columns.names]
        return fingerprint([read, *(row.get(name) for name in self.keep)])

    def _count(self, read: int, notes: Notes, path: Path) -> None:
        self.rows += read - len(notes.skipped)
        self.vectors += pq.read_metadata(path).num_rows
        self.skipped |= notes.skipped
        self.cut += notes.cut
        self.shards += 1


def embedding_array(embeddings: np.ndarray, precision: Precision = "float32") -> pa.FixedSizeListArray:
    """Embeddings (rows, D) as an Arrow column; (rows, D / 8) for binary precisions."""
    if precision.endswith("binary"):
        embeddings = quantize_embeddings(embeddings, precision)  # type: ignore[arg-type,assignment]
    if precision == "float16":
        largest = np.abs(embeddings).max(initial=0)
        if largest > np.finfo(np.float16).max:
            raise ValueError(f"float16 cannot hold {largest:.3g}: use normalize or another precision")
        embeddings = embeddings.astype(np.float16)
    embeddings = np.ascontiguousarray(embeddings)
    return pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1)), embeddings.shape[1])


def check_arguments(
    column: str | None,
    image_column: str | None,
    keep: Sequence[str],
    shard_rows: int,
    precision: str,
    bad_row: str,
    chunk: bool | int,
) -> None:
    """Check the arguments of `encode_corpus`."""
    for name, value in (("column", column), ("image_column", image_column)):
        if value is not None and (not isinstance(value, str) or not value):
            raise ValueError(f"{name} must be the name of a column, such as {str(value or 0)!r}, got {value!r}")
    ours = ["embedding", "start", "end"] if chunk else ["embedding"]
    if isinstance(keep, str) or set(ours) & set(keep):
        raise ValueError(f"keep must be a list of columns, {', '.join(map(repr, ours))} not among them, got {keep!r}")
    if column is not None and column == image_column:
        raise ValueError(f"column and image_column are both {column!r}: pass only image_column")
    check_whole("shard_rows", shard_rows)
    if precision not in get_args(Precision):
        raise ValueError(
            f"precision must be one of {get_args(Precision)}, got {precision!r}; int8 needs ranges over the whole "
            "corpus: use sentence_transformers.util.quantize_embeddings on the float32 shards"
        )
    if bad_row not in ("error", "skip"):
        raise ValueError(f"bad_row must be 'error' or 'skip', got {bad_row!r}")
    if chunk is not False and chunk is not True and not (isinstance(chunk, int) and chunk > 0):
        raise ValueError(f"chunk must be True, False or a positive number of tokens, got {chunk!r}")


def _shards(rows: Iterable[Any], size: int) -> Iterator[list[Mapping[str, Any]]]:
    iterator = iter(rows)
    while shard := list(islice(iterator, size)):
        yield [row if isinstance(row, Mapping) else NoRow(row) for row in shard]


def _check_columns(rows: Sequence[Mapping[str, Any]], wanted: Sequence[str], source: str) -> None:
    """Check that all columns exist in at least one row."""
    present = dict.fromkeys(name for row in rows for name in row)
    if present and (missing := [name for name in wanted if name not in present]):
        raise ValueError(
            f"{source}missing column {missing[0]!r}; the columns are {list(present)}: say which one has the texts "
            "(--column) or the images (--image-column)"
        )


def _named(rows: Any) -> str:
    return f"{rows}: " if isinstance(rows, (str, Path)) else ""


def _lossless(values: Sequence[Any], kind: pa.DataType | None) -> pa.Array:
    """The values as a column. Arrow would make 5 of 5.5, a date of a time, and drop keys that are not in the type."""
    column = pa.array(values, kind)
    for value, stored in zip(values, column.to_pylist(), strict=True) if _may_lose(column.type) else ():
        if not _is_all(value, stored):
            raise pa.ArrowInvalid(f"of {shown(value)} only {shown(stored)} would be left")
    return column


def _may_lose(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_temporal(kind) or pa.types.is_nested(kind)


def _is_all(value: Any, stored: Any) -> bool:
    if isinstance(value, Mapping) and isinstance(stored, Mapping):
        return all(part is None or _is_all(part, stored.get(name)) for name, part in value.items())
    if isinstance(value, (list, tuple)) and isinstance(stored, list):
        return all(map(_is_all, value, stored))
    if isinstance(value, (int, float, np.number, date, timedelta)):
        return bool(value == stored or value != value)  # NaN is itself
    return value is None or stored is not None


def _or_none(value: Any) -> Any:
    """None for the missing values of pandas, as in dicts that were made of a data frame."""
    return None if is_null(value) and not isinstance(value, float) else value


def _types(path: Path, first: Sequence[Mapping[str, Any]], keep: Sequence[str], rows: Any) -> dict[str, pa.DataType]:
    """Types of the kept columns, those of the first shard, whichever part of the corpus is encoded first."""
    if path.exists():
        schema = shard_schema(path)
        return {name: schema.field(name).type for name in keep}
    behind = _types_behind(first, keep, rows)
    return {name: column.type for name, column in _kept(first, 0, keep, behind, path, Problems("skip", str)).items()}


def _types_behind(first: Sequence[Mapping[str, Any]], keep: Sequence[str], rows: Any) -> dict[str, pa.DataType]:
    """Types of the kept columns that have no value in the first shard; of a stream, which is read once, none."""
    unknown = {name for name in keep if all(_or_none(row.get(name)) is None for row in first)}
    types: dict[str, pa.DataType] = {}
    again = isinstance(rows, (str, Path)) or hasattr(rows, "__len__")
    for row in open_rows(rows, sorted(unknown)) if unknown and again else ():
        for name in [name for name in unknown if isinstance(row, Mapping) and _or_none(row.get(name)) is not None]:
            unknown.remove(name)
            with suppress(*_UNFIT):  # it becomes a bad row
                types[name] = pa.array([row[name]]).type
        if not unknown:
            break
    return types


def _kept(
    rows: Sequence[Mapping[str, Any]],
    there: int,
    keep: Sequence[str],
    types: Mapping[str, pa.DataType],
    path: Path,
    problems: Problems,
) -> dict[str, pa.Array]:
    """The kept columns of the rows, starting at `there`, with the same types in every shard."""
    columns = {}
    for name in keep:
        values = [_or_none(row.get(name)) for row in rows[there:]]
        kind = types.get(name)
        try:
            column = _lossless(values, kind)
        except _UNFIT:
            fitting = list(values)
            for place, value in enumerate(values):
                try:
                    found = _lossless([value], kind).type
                    kind = kind or (None if pa.types.is_null(found) else found)
                except _UNFIT as error:
                    problem = f"this does not fit into {path.name}: {error}"
                    problems.add(there + place, name, problem, error)
                    fitting[place] = None
            column = pa.array(fitting, kind)
        # No value is present: assume text.
        columns[name] = column.cast(pa.string()) if pa.types.is_null(column.type) else column
    return columns
