"""Encoding of a corpus on a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from st_vi.encoding.batches import MAX_TOKENS
from st_vi.encoding.corpus import Precision, check_arguments, embedding_array
from st_vi.encoding.row_encoder import BadRow, Problems, RowEncoder
from st_vi.encoding.rows import InputColumns
from st_vi.hub import load
from st_vi.inputs.prompts import prompt_of

if TYPE_CHECKING:
    import datasets
    import ray.data

_FIRST_ROWS = 1000  # rows used to decide whether a column has texts or image file names


class SkippedRows:
    """Reasons why rows were skipped, by id, shared by all workers. A retried batch counts once."""

    def __init__(self) -> None:
        self.found: dict[Any, str] = {}

    def add(self, problems: dict[Any, str]) -> None:
        """Record bad rows."""
        self.found |= problems

    def told(self) -> dict[Any, str]:
        """All recorded rows."""
        return self.found


class EncoderActor:
    """A worker that loads a model once and adds ``embedding`` to batches of rows."""

    def __init__(
        self,
        model_path: str,
        columns: InputColumns,
        keep: Sequence[str],
        encoding: dict[str, Any],
        precision: Precision,
        bad_row: BadRow,
        skipped: Any,
    ) -> None:
        model, encoding = load(model_path), dict(encoding)
        prompt = prompt_of(model, encoding.pop("prompt"), encoding.pop("prompt_name"))
        self.encoder = RowEncoder(model, columns, prompt, **encoding)
        self.keep = keep
        self.precision: Precision = precision
        self.bad_row: BadRow = bad_row
        self.skipped = skipped

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Ids, kept columns and embeddings of the batch."""
        ids = batch["id"].to_pylist()
        problems = Problems(self.bad_row, lambda place: f"id {ids[place]!r}")
        rows = batch.select(self.encoder.columns.names).to_pylist()
        encoded = self.encoder.encode(self.encoder.inputs(rows, problems), problems)
        if problems.found:
            import ray

            ray.get(self.skipped.add.remote({ids[place]: text for place, text in problems.found.items()}))
        table = batch.select(self.keep).take(pa.array(encoded.places, pa.int64()))
        if self.encoder.chunker:
            for side, name in enumerate(("start", "end")):
                table = table.append_column(name, pa.array([span and span[side] for span in encoded.spans], pa.int64()))
        return table.append_column("embedding", embedding_array(encoded.vectors, self.precision))


def encode_with_ray(
    model_path: str | Path,
    rows: str | Path | Sequence[str] | datasets.Dataset | ray.data.Dataset,
    output: str | Path,
    column: str | None = None,
    *,
    image_column: str | None = None,
    text_only: bool = False,
    keep: Sequence[str] = (),
    concurrency: int = 2,
    batch_size: int = 1024,
    num_gpus: float = 0,
    max_tokens: int = MAX_TOKENS,
    prompt_name: str | None = None,
    prompt: str | None = None,
    precision: Precision = "float32",
    normalize: bool = False,
    chunk: bool | int = False,
    bad_row: BadRow = "error",
) -> dict[Any, str]:
    """Encode one column of a corpus into Parquet files on a Ray cluster.

    Ray reads, distributes, retries and writes. The columns are the same as with `encode_corpus`, but row order may
    change, and Ray chooses the file names. Uses the running cluster (call ``ray.init(address=…)`` first) or starts a
    local one. A killed run cannot be resumed; on one machine, use `encode_corpus` for that.

    Args:
        model_path: Folder visible to every machine, or a Hub id, for `st_vi.load`.
        rows: Parquet files (one or more paths or URIs), a `datasets.Dataset` or a Ray dataset, with a column ``id``
            that identifies rows; a `datasets.Dataset` without one gets row numbers.
        output: Folder or URI visible to every machine.
        column: As for `encode_corpus`, like all arguments that are not listed here. Image paths are relative to the
            folder of the Parquet files, or to the working directory, and must be visible to every machine.
        keep: Columns to copy, besides ``id``.
        concurrency: Number of workers, each with its own model.
        batch_size: Rows per batch of a worker.
        num_gpus: GPUs per worker; may be a fraction.

    Returns:
        Id of each skipped row to the reason.

    Raises:
        ImportError: Ray is not installed.
        ValueError: `model_path` is a model or rows, a column is missing, or an argument is out of range. A bad row,
            named by its id, raises an error of Ray.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.encoding import encode_with_ray
        >>> rows = Dataset.from_dict({"text": ["Trời mưa.", "Trời nắng."]})
        >>> encode_with_ray("outputs/viclsr", rows, "outputs/vectors", concurrency=8, num_gpus=1)  # doctest: +SKIP
    """
    if not isinstance(model_path, (str, os.PathLike)):
        kind = type(model_path).__name__
        raise ValueError(f"model_path must be the folder or Hub id of a model, which each worker loads, got {kind}")
    try:
        import ray.data
    except ImportError as error:
        raise ImportError('encoding on a cluster needs Ray Data: pip install "st-vi[ray]"') from error
    check_arguments(column, image_column, keep, batch_size, precision, bad_row, chunk)
    data, folder = _dataset(rows)
    names = data.schema().names
    if column is None and (image_column is None or "text" in names):
        column = "text"
    columns = list(dict.fromkeys(["id", *keep, *(name for name in (column, image_column) if name is not None)]))
    if missing := [name for name in columns if name not in names]:
        hint = ": Ray does not keep the order of rows, which are found again by it" if missing[0] == "id" else ""
        raise ValueError(f"missing column {missing[0]!r}{hint}; the columns are {names}")
    data = data.select_columns(columns)
    read = InputColumns.of(data.take(_FIRST_ROWS), column, image_column, text_only, folder)
    skipped: Any = ray.remote(num_cpus=0)(SkippedRows).remote()  # type: ignore[attr-defined]
    written = list(dict.fromkeys(["id", *keep]))
    # A table in memory is a single block, which would go to a single worker.
    encoded = data.repartition(target_num_rows_per_block=batch_size).map_batches(
        EncoderActor,
        fn_constructor_kwargs={
            "model_path": str(model_path),
            "columns": read,
            "keep": written,
            "encoding": {
                "prompt_name": prompt_name,
                "prompt": prompt,
                "max_tokens": max_tokens,
                "normalize": normalize,
                "chunk": chunk,
            },
            "precision": precision,
            "bad_row": bad_row,
            "skipped": skipped,
        },
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=concurrency),
        num_gpus=num_gpus,
        num_cpus=0.5,  # leaves CPUs for reading: workers that reserve all of them would wait forever
    )
    encoded.write_parquet(str(output))
    found: dict[Any, str] = ray.get(skipped.told.remote())
    return found


def _dataset(rows: Any) -> tuple[ray.data.Dataset, Path]:
    """The rows, and the folder that image paths are relative to."""
    import ray.data

    if isinstance(rows, ray.data.Dataset):
        return rows, Path.cwd()
    if not hasattr(rows, "column_names"):
        paths = [str(path) for path in ([rows] if isinstance(rows, (str, Path)) else rows)]
        first = Path(paths[0])
        return ray.data.read_parquet(paths), (first.parent if first.is_file() else first).absolute()
    if "id" not in rows.column_names:
        rows = rows.add_column("id", range(len(rows)))
    return ray.data.from_huggingface(rows), Path.cwd()
