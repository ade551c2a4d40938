"""A whole corpus to Parquet, shard by shard, in constant memory; a run that was killed goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import quantize_embeddings
from tqdm.auto import tqdm

from st_vi.data import read_rows
from st_vi.data.read import json_lines
from st_vi.encoding.batches import MAX_TOKENS, encode_by_cost
from st_vi.encoding.identity import model_identity, rows_identity

Precision = Literal["float32", "float16", "binary", "ubinary"]

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class EncodedCorpus:
    """What lies in a folder of shards, and how much of it was there before."""

    rows: int
    skipped: int
    shards: int
    reused: int

    def __str__(self) -> str:
        skipped = f", {self.skipped} bad rows skipped" if self.skipped else ""
        reused = f", {self.reused} of them from an earlier run" if self.reused else ""
        return f"{self.rows} rows in {self.shards} shards{reused}{skipped}"


def encode_corpus(
    model: SentenceTransformer,
    rows: str | Path | Iterable[dict[str, Any]],
    output: str | Path,
    column: str = "text",
    *,
    keep: Sequence[str] = (),
    shard_rows: int = 10_000,
    max_tokens: int = MAX_TOKENS,
    prompt_name: str | None = None,
    prompt: str | None = None,
    precision: Precision = "float32",
    bad_row: Literal["error", "skip"] = "error",
    show_progress_bar: bool = False,
) -> EncodedCorpus:
    """Encode one column of a corpus into Parquet files, ``shard-00000.parquet``, ``shard-00001.parquet``, ….

    Each shard has the columns `keep`, ``id`` (the row's number in the corpus, unless `keep` has an ``id``) and
    ``embedding`` (a list of fixed size). It is made of its own rows only and gets its name when it is complete, so
    that a killed run, called again, skips what is there and ends with the same files, byte for byte. One shard is in
    memory at a time. ``manifest.json`` says which model and which settings made the files, and in the end how many
    rows there are: nothing is mixed with the shards of others.

    Read all of it with ``datasets.Dataset.from_parquet(f"{output}/*.parquet")``.

    Args:
        model: Any `SentenceTransformer`.
        rows: A file or hub id as for `read_rows` (JSON Lines are streamed), a `datasets.Dataset`, or dicts. A run that
            goes on needs the same rows in the same order.
        output: A folder, made where there is none.
        column: What to encode: texts, pictures, or ``{"text": …, "image": …}``.
        keep: Columns to copy.
        shard_rows: Rows a shard.
        max_tokens: As for `encode_by_cost`.
        prompt_name: As for ``encode``.
        prompt: As for ``encode``.
        precision: float16 halves the files; binary and ubinary are stock's, a bit a dimension. (int8 needs ranges over
            the whole corpus: use stock's `quantize_embeddings` on the float32 shards.)
        bad_row: Stop at a row without an input (None, blank, a number), or leave it out and count it.
        show_progress_bar: Whether to show one, in rows.

    Returns:
        How many rows were written and skipped; print it.

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
        '3 rows in 2 shards'
        '3 rows in 2 shards, 2 of them from an earlier run'
    """
    _check_arguments(keep, shard_rows, precision, bad_row)
    source = _rows(rows, [column, *keep])
    settings = {
        "column": column,
        "keep": list(keep),
        "max_tokens": max_tokens,
        "model": model_identity(model),
        "precision": precision,
        "prompt": model._resolve_prompt(prompt, prompt_name),
        "shard_rows": shard_rows,
    }
    output = Path(output)
    _check_manifest(output, settings)
    schema: pa.Schema | None = None
    written = skipped = reused = shards = 0
    with tqdm(total=_length(source), desc="Rows", disable=not show_progress_bar) as progress:
        for shard in _shards(source, shard_rows):
            good = list(_usable(shard, [column, *keep], written + skipped, bad_row))
            identity = rows_identity([number, *(row[name] for name in (column, *keep))] for number, row in good)
            path = output / f"shard-{shards:05d}.parquet"
            if path.exists():
                _check_shard(path, identity)
                reused += 1
            else:
                table = _encoded(model, good, settings, schema, path)
                _save_manifest(output, settings)  # first: a shard without it is nobody's
                _save_shard(path, table, identity)
            schema = schema or pq.read_schema(path)
            written, skipped, shards = written + len(good), skipped + len(shard) - len(good), shards + 1
            progress.update(len(shard))
    if not shards:
        raise ValueError("the corpus is empty")
    if (output / f"shard-{shards:05d}.parquet").exists():
        raise ValueError(f"{output} has more shards than these {written + skipped} rows: they are of another corpus")
    if not written:
        raise ValueError(f"column {column!r} has no usable row among {skipped}")
    _save_manifest(output, settings | {"rows": written, "skipped": skipped, "shards": shards, "complete": True})
    return EncodedCorpus(written, skipped, shards, reused)


def embedding_array(embeddings: np.ndarray, precision: Precision = "float32") -> pa.FixedSizeListArray:
    """Embeddings (rows, D) as an Arrow column; (rows, D / 8) where a bit is left of each number."""
    if precision.endswith("binary"):
        embeddings = quantize_embeddings(embeddings, precision)  # type: ignore[arg-type,assignment]
    embeddings = np.ascontiguousarray(embeddings, dtype=np.float16 if precision == "float16" else None)
    return pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1)), embeddings.shape[1])


def is_usable(value: Any) -> bool:
    """Whether there is something to encode: not None, not blank, not a number."""
    return bool(value.strip()) if isinstance(value, str) else not (value is None or isinstance(value, (int, float)))


def _check_arguments(keep: Sequence[str], shard_rows: int, precision: str, bad_row: str) -> None:
    if isinstance(keep, str) or "embedding" in keep:
        raise ValueError(f"keep must be a list of columns, 'embedding' not among them, got {keep!r}")
    if shard_rows < 1:
        raise ValueError(f"shard_rows must be positive, got {shard_rows}")
    if precision not in get_args(Precision):
        raise ValueError(
            f"precision must be one of {get_args(Precision)}, got {precision!r}; int8 needs ranges over the whole "
            "corpus: use sentence_transformers.util.quantize_embeddings on the float32 shards"
        )
    if bad_row not in ("error", "skip"):
        raise ValueError(f"bad_row must be 'error' or 'skip', got {bad_row!r}")


def _rows(rows: str | Path | Iterable[dict[str, Any]], columns: Sequence[str]) -> Iterable[dict[str, Any]]:
    """The rows to iterate over, none of them in memory before its turn where they come from a file."""
    if isinstance(rows, (str, Path)):
        path = Path(rows)
        if path.suffix in {".jsonl", ".json"}:
            if not path.is_file():
                raise FileNotFoundError(f"no such file: {rows}")
            return (row for _, row in json_lines(path))  # `read_rows` would hold all of them
        rows = read_rows(rows)  # Arrow, mapped to a file
    names = getattr(rows, "column_names", None) or columns
    if missing := [name for name in columns if name not in names]:
        raise ValueError(f"missing column {missing[0]!r}; the columns are {list(names)}")
    # What is not asked for is not read: pictures, say.
    return rows.select_columns(list(dict.fromkeys(columns))) if hasattr(rows, "select_columns") else rows  # type: ignore[return-value]


def _length(rows: Any) -> int | None:
    return len(rows) if hasattr(rows, "__len__") else None


def _shards(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(rows)
    return iter(lambda: list(islice(iterator, size)), [])


def _usable(
    rows: list[dict[str, Any]], columns: Sequence[str], first: int, bad_row: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with their numbers in the corpus; a kept column may be absent from a row, the first must not."""
    column, *kept = columns
    for number, row in enumerate(rows, first):
        if not isinstance(row, Mapping):
            raise ValueError(f"row {number}: expected a dict of columns, got {row!r:.100}")
        if number == 0 and (missing := [name for name in columns if name not in row]):
            raise ValueError(f"missing column {missing[0]!r}; the columns are {list(row)}")
        if is_usable(row.get(column)):
            yield number, {column: row[column]} | {name: row.get(name) for name in kept}
        elif bad_row == "error":
            raise ValueError(f"column {column!r}, row {number}: nothing to encode in {row.get(column)!r}")


def _encoded(
    model: SentenceTransformer,
    rows: list[tuple[int, dict[str, Any]]],
    settings: dict[str, Any],
    schema: pa.Schema | None,
    path: Path,
) -> pa.Table:
    """What a shard holds, given its rows with their numbers and the columns of the shards before."""
    column = settings["column"]
    inputs = [row[column] for _, row in rows]
    try:
        embeddings = encode_by_cost(model, inputs, max_tokens=settings["max_tokens"], prompt=settings["prompt"])
    except ValueError as error:  # a picture that cannot be read, say; the message shows it
        raise ValueError(f"column {column!r}, rows {rows[0][0]} to {rows[-1][0]}: {error}") from error
    columns = {"id": pa.array([number for number, _ in rows], pa.int64())}
    columns |= _kept(rows, settings["keep"], schema, path)
    columns["embedding"] = embedding_array(embeddings, settings["precision"])
    return pa.table(columns)


def _kept(
    rows: list[tuple[int, dict[str, Any]]], keep: Sequence[str], schema: pa.Schema | None, path: Path
) -> dict[str, pa.Array]:
    """The kept columns, of the same types in every shard."""
    columns = {}
    for name in keep:
        values = [row[name] for _, row in rows]
        try:
            columns[name] = pa.array(values, schema.field(name).type if schema else None)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
            raise ValueError(f"column {name!r} does not fit into {path.name}: {error}") from error
        if pa.types.is_null(columns[name].type):  # the first shard has none; mostly it is text that may be absent
            columns[name] = columns[name].cast(pa.string())
    return columns


def _check_manifest(output: Path, settings: dict[str, Any]) -> None:
    manifest = output / MANIFEST
    if not manifest.exists():
        if any(output.glob("shard-*.parquet")):
            raise ValueError(f"{output} has shards without {MANIFEST}: nobody knows what made them")
        return
    before = json.loads(manifest.read_text(encoding="utf-8"))
    changed = [f"{name} {before.get(name)!r}, now {now!r}" for name, now in settings.items() if before.get(name) != now]
    if changed:
        raise ValueError(
            f"{output} was begun with another {'; another '.join(changed)}. Give another output, or delete this one."
        )


def _check_shard(path: Path, identity: str) -> None:
    found = (pq.read_schema(path).metadata or {}).get(b"st_vi.rows", b"").decode()
    if found != identity:
        raise ValueError(f"{path} was made of other rows: the corpus has changed. Give another output, or delete this.")


def _save_manifest(output: Path, content: dict[str, Any]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    with _complete(output / MANIFEST) as file:
        file.write(text.encode())


def _save_shard(path: Path, table: pa.Table, identity: str) -> None:
    table = table.replace_schema_metadata({"st_vi.rows": identity})
    # A dictionary of floats would be built, found to be too large and thrown away.
    words = [field.name for field in table.schema if field.name not in ("id", "embedding")]
    with _complete(path) as file:
        pq.write_table(table, file, use_dictionary=words)


@contextmanager
def _complete(path: Path) -> Iterator[BinaryIO]:
    """A file that has its name when all of it is on the disk, and not before."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:  # a full disk; Python names the file only where opening it fails
        todo = f"{error.strerror}. The shards before it are complete; make room and call this again"
        raise OSError(error.errno, todo, str(path)) from error
