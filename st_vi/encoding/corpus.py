"""A whole corpus to Parquet, shard by shard, in constant memory; a run that was killed goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import quantize_embeddings
from tqdm.auto import tqdm

from st_vi.encoding.batches import MAX_TOKENS
from st_vi.encoding.identity import fingerprint, model_identity
from st_vi.encoding.limits import Cut, token_limit
from st_vi.encoding.row_encoder import BadRow, EncodedRows, Problems, RowEncoder
from st_vi.encoding.rows import InputColumns, NoRow
from st_vi.encoding.shards import (
    LAYOUT,
    Notes,
    check_manifest,
    check_rows,
    read_shard,
    save_manifest,
    save_shard,
    shard_notes,
    shard_path,
)
from st_vi.encoding.sources import folder_of, open_rows, row_count
from st_vi.inputs.prompts import prompt_of

Precision = Literal["float32", "float16", "binary", "ubinary"]

_SHOWN = 10  # bad rows, when a result is printed


@dataclass(frozen=True)
class EncodedCorpus:
    """What lies in a folder of shards, and how much of it was there before.

    Attributes:
        rows: Of the corpus that have vectors.
        skipped: Bad rows that were left out.
        shards: Files.
        reused: Files that were there before, and whole.
        added: Rows encoded now behind those of a file that was there before.
        vectors: More than `rows` where long texts were cut into chunks.
        skipped_rows: What was wrong, by the number of the row.
        cut: Texts that the model did not read to their ends.
        limit: The tokens that the model reads, if there is a limit.
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
        """One line, and more where something was left out."""
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
    show_progress_bar: bool = False,
) -> EncodedCorpus:
    """Encode one column of a corpus into Parquet files, ``shard-00000.parquet``, ``shard-00001.parquet``, ….

    Each shard has the columns `keep`, ``id`` (the row's number in the corpus, unless `keep` has an ``id``) and
    ``embedding`` (a list of fixed size). It is made of its own rows only and gets its name when it is complete, so
    that a killed run, called again, skips what is there and ends with the same files, byte for byte. One shard is in
    memory at a time. ``manifest.json`` says which model and which settings made the files, and in the end how many
    rows there are: nothing is mixed with the shards of others.

    **More rows.** Called again with rows added at the end, it encodes those alone: they fill the last shard up, whose
    other vectors stay as they are, and then make new ones. A fresh run over all would give that one shard the same
    vectors but for rounding, as its batches are others. Rows that are no longer what they were are an error that
    names the first of them and its file; delete that file to have its rows, and no others, encoded again.

    **Pictures** are values of `image_column`; without one, pictures, bytes and ``{"image": …}`` in `column`, and
    strings that are file names: all of them where most look so or the column is called "image" or "…_image", else
    those that end as a picture does. Paths are relative to the file of the rows, as in training. A picture that is
    not there is a bad row, and none is fetched from the web. ``text_only=True`` takes every string for a text, whoever
    wrote it.

    Read all of it with ``datasets.Dataset.from_parquet(f"{output}/*.parquet")``.

    Args:
        model: Any `SentenceTransformer`.
        rows: A file or hub id as for `read_rows` (JSON Lines are streamed), a `datasets.Dataset`, a data frame, or
            dicts. A run that goes on needs the same rows in the same order.
        output: A folder, made where there is none.
        column: What to encode: texts, pictures, or ``{"text": …, "image": …}``. "text" unless said otherwise; beside
            an `image_column`, only if there is such a column.
        image_column: A column of pictures, each encoded together with the text of its row if it has one: paths,
            bytes, `PIL` images, or lists of them.
        text_only: Whether a string is a text even if it looks like the name of a picture.
        keep: Columns to copy.
        shard_rows: Rows a shard.
        max_tokens: As for `encode_by_cost`.
        prompt_name: As for ``encode``.
        prompt: As for ``encode``.
        precision: float16 halves the files; binary and ubinary are stock's, a bit a dimension. (int8 needs ranges over
            the whole corpus: use stock's `quantize_embeddings` on the float32 shards.)
        normalize: Whether to bring vectors to length 1 that do not have it; for inner products that are cosines.
        chunk: Whether to cut texts that are longer than the model reads, at the ends of sentences, and to give each
            piece a row of its own, with the same ``id`` and with ``start`` and ``end``, its place in the text in
            characters (None for a row with a picture). A number says of how many tokens at most, prompt included.
        bad_row: What becomes of a row that cannot be encoded: without an input (None, blank, a number), with a picture
            that is not there or cannot be read, with a text that no tokenizer takes, or with a value that does not
            fit into its kept column. "error" names the row and stops; "skip" leaves it out and lists it.
        show_progress_bar: Whether to show one, in rows.

    Returns:
        How many rows were written and skipped, and how many texts were cut off; print it.

    Raises:
        FileNotFoundError: `rows` names a file that is not there.
        ValueError: The corpus is empty or has no usable row; a column is missing, or a row bad (both are named);
            an argument is out of its range; or the folder holds shards of another model, other settings or other rows.
        OSError: A file cannot be written, mostly since the disk is full; the shards before it are kept.

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
    check_arguments(column, image_column, keep, shard_rows, precision, bad_row, chunk)
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
        "max_tokens": max_tokens,
        "model": model_identity(model),
        "normalize": normalize,
        "precision": precision,
        "prompt": prompt,
        "shard_rows": shard_rows,
        "text_only": text_only,
    }
    output = Path(output)
    check_manifest(output, settings)
    run = _Run(encoder, output, settings, list(keep), precision, bad_row, _named(rows))
    total = row_count(source, rows) if show_progress_bar else None
    with tqdm(total=total, desc="Rows", disable=not show_progress_bar) as progress:
        for number, shard in enumerate(chain([first], shards)):
            run.shard(number, shard, progress.update)
    return run.finished()


_UNFIT = (pa.ArrowException, OverflowError, UnicodeEncodeError, RecursionError)  # for a column


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
    ) -> None:
        self.encoder, self.output, self.settings = encoder, output, settings
        self.keep, self.precision, self.bad_row, self.source = keep, precision, bad_row, source
        self.schema: pa.Schema | None = None
        self.rows = self.vectors = self.shards = self.reused = self.added = 0
        self.skipped: dict[int, str] = {}
        self.cut = Cut()

    def shard(self, number: int, rows: list[Mapping[str, Any]], done: Callable[[int], Any]) -> None:
        """Take one shard from an earlier run, or add to it, or make it."""
        path, first = shard_path(self.output, number), self.rows + len(self.skipped)
        problems = Problems(self.bad_row, lambda place: f"row {first + place}")
        try:
            inputs = self.encoder.inputs(rows, problems)
            prints = tuple(self._fingerprint(row, inputs.get(place)) for place, row in enumerate(rows))
            notes = self._stored(path, number, prints, first)
            table = None
            there = len(notes.fingerprints)
            self.reused += there == len(rows)
            done(there)
            if there < len(rows):
                self.added += len(rows) - there if there else 0
                table, new = self._new_rows(rows, inputs, problems, there, first, path, done)
                table = pa.concat_tables([read_shard(path), table]) if there else table
                notes += Notes(prints[there:], new.skipped, new.cut)
        except ValueError as error:
            raise ValueError(f"{self.source}{error}") from error
        if table is not None:
            save_manifest(self.output, self.settings)  # first: a shard without it is nobody's
            save_shard(path, table, notes)
        self.schema = self.schema or pq.read_schema(path)
        self._count(len(rows), notes, path)

    def finished(self) -> EncodedCorpus:
        """Write down that all rows are through."""
        read = self.rows + len(self.skipped)
        if shard_path(self.output, self.shards).exists():
            raise ValueError(f"{self.output} has more shards than these {read} rows: they are of another corpus")
        if not self.rows:
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

    def _stored(self, path: Path, number: int, prints: tuple[bytes, ...], first: int) -> Notes:
        """What is there of the shard."""
        if not path.exists():
            return Notes()
        notes = shard_notes(path)
        check_rows(path, notes.fingerprints, prints, first)
        if len(notes.fingerprints) < len(prints) and shard_path(self.output, number + 1).exists():
            raise ValueError(
                f"{path} was made of other rows: it has {len(notes.fingerprints)} of them, and is not the last. Give "
                "another output, or delete this one"
            )
        return notes

    def _new_rows(
        self,
        rows: Sequence[Mapping[str, Any]],
        inputs: Mapping[int, Any],
        problems: Problems,
        there: int,
        first: int,
        path: Path,
        done: Callable[[int], Any],
    ) -> tuple[pa.Table, Notes]:
        """The rows of a shard from `there` on."""
        if self.schema is None and there:
            self.schema = pq.read_schema(path)
        kept = _kept(rows, there, self.keep, self.schema, path, problems)
        wanted = {place: inputs[place] for place in inputs if place >= there and place not in problems.found}
        done(len(rows) - there - len(wanted))
        encoded = self.encoder.encode(wanted, problems, done)
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
    """Embeddings (rows, D) as an Arrow column; (rows, D / 8) where a bit is left of each number.

    Raises:
        ValueError: float16 cannot hold a number.
    """
    if precision.endswith("binary"):
        embeddings = quantize_embeddings(embeddings, precision)  # type: ignore[arg-type,assignment]
    if precision == "float16":
        largest = np.abs(embeddings).max(initial=0)
        if largest > np.finfo(np.float16).max:
            raise ValueError(f"float16 cannot hold {largest:.3g}: give normalize or another precision")
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
    """Refuse what no rows could make good.

    Raises:
        ValueError: An argument is out of its range.
    """
    ours = ["embedding", "start", "end"] if chunk else ["embedding"]
    if isinstance(keep, str) or set(ours) & set(keep):
        raise ValueError(f"keep must be a list of columns, {', '.join(map(repr, ours))} not among them, got {keep!r}")
    if column is not None and column == image_column:
        raise ValueError(f"column and image_column are both {column!r}: give the image_column alone")
    if shard_rows < 1:
        raise ValueError(f"shard_rows must be positive, got {shard_rows}")
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
    """Refuse a column that none of the rows has."""
    present = dict.fromkeys(name for row in rows for name in row)
    if present and (missing := [name for name in wanted if name not in present]):
        raise ValueError(f"{source}missing column {missing[0]!r}; the columns are {list(present)}")


def _named(rows: Any) -> str:
    return f"{rows}: " if isinstance(rows, (str, Path)) else ""


def _kept(
    rows: Sequence[Mapping[str, Any]],
    there: int,
    keep: Sequence[str],
    schema: pa.Schema | None,
    path: Path,
    problems: Problems,
) -> dict[str, pa.Array]:
    """The kept columns of the rows from `there` on, of the same types in every shard."""
    columns = {}
    for name in keep:
        values = [row.get(name) for row in rows[there:]]
        kind = schema.field(name).type if schema else None
        try:
            column = pa.array(values, kind)
        except _UNFIT:
            fitting = list(values)
            for place, value in enumerate(values):
                try:
                    found = pa.array([value], kind).type
                    kind = kind or (None if pa.types.is_null(found) else found)
                except _UNFIT as error:
                    problem = f"this does not fit into {path.name}: {error}"
                    problems.add(there + place, name, problem, error)
                    fitting[place] = None
            column = pa.array(fitting, kind)
        # All are absent: mostly it is text that may be.
        columns[name] = column.cast(pa.string()) if pa.types.is_null(column.type) else column
    return columns
