"""The same job on Ray Data, where one machine is not enough: an engine that is there already, and one actor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from st_vi.encoding.batches import MAX_TOKENS, encode_by_cost
from st_vi.encoding.corpus import Precision, embedding_array, is_usable
from st_vi.hub import load

if TYPE_CHECKING:
    import datasets
    import ray.data


class EncoderActor:
    """One worker: a model, loaded once, that adds ``embedding`` to every batch of rows it is given."""

    def __init__(self, model_path: str, column: str, max_tokens: int, prompt: dict[str, Any], precision: Precision):
        self.model = load(model_path)
        self.column = column
        self.encoding = {"max_tokens": max_tokens, **prompt}
        self.precision: Precision = precision

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The batch with its embeddings."""
        inputs = batch[self.column].to_pylist()
        for number, value in zip(batch["id"].to_pylist(), inputs, strict=True):
            if not is_usable(value):
                raise ValueError(f"column {self.column!r}, id {number!r}: nothing to encode in {value!r}")
        embeddings = encode_by_cost(self.model, inputs, **self.encoding)
        return batch.append_column("embedding", embedding_array(embeddings, self.precision))


def encode_with_ray(
    model_path: str | Path,
    rows: str | Path | Sequence[str] | datasets.Dataset | ray.data.Dataset,
    output: str | Path,
    column: str = "text",
    *,
    keep: Sequence[str] = (),
    concurrency: int = 2,
    batch_size: int = 1024,
    num_gpus: float = 0,
    max_tokens: int = MAX_TOKENS,
    prompt_name: str | None = None,
    prompt: str | None = None,
    precision: Precision = "float32",
) -> None:
    """Encode one column of a corpus into Parquet files, on all the workers of a Ray cluster.

    Ray reads, distributes, retries and writes; the columns are those of `encode_corpus`. Rows may come in another
    order, and the names of the files are Ray's. The cluster is the one that runs (``ray.init(address=…)`` before),
    else a local one. A killed run does not go on: for one machine, `encode_corpus` does.

    Args:
        model_path: A folder that every machine sees, or a hub id, for `st_vi.load`.
        rows: Parquet files (a path or URI, or several), a `datasets.Dataset`, or a Ray data set, with a column ``id``
            by which a row is found again; a `datasets.Dataset` without one gets the row numbers.
        output: A folder or URI that every machine sees.
        column: What to encode.
        keep: Columns to copy, besides ``id``.
        concurrency: Workers, each with a model of its own.
        batch_size: Rows a worker takes at a time.
        num_gpus: Of each worker; 1, or a part of one.
        max_tokens: As for `encode_by_cost`.
        prompt_name: As for ``encode``.
        prompt: As for ``encode``.
        precision: As for `encode_corpus`.

    Raises:
        ImportError: Ray is not installed.
        ValueError: A column is missing. A row that is bad (named by its id) comes as Ray's own error.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.encoding.ray import encode_with_ray
        >>> rows = Dataset.from_dict({"text": ["Trời mưa.", "Trời nắng."]})
        >>> encode_with_ray("outputs/viclsr", rows, "outputs/vectors", concurrency=8, num_gpus=1)  # doctest: +SKIP
    """
    try:
        import ray.data
    except ImportError as error:
        raise ImportError('encoding on a cluster needs Ray Data: pip install "st-vi[ray]"') from error
    data = _dataset(rows)
    columns = list(dict.fromkeys(["id", *keep, column]))
    if missing := [name for name in columns if name not in data.schema().names]:
        hint = ": Ray does not keep the order of rows, which are found again by it" if missing[0] == "id" else ""
        raise ValueError(f"missing column {missing[0]!r}{hint}; the columns are {data.schema().names}")
    # A table in memory is one block, and would be one worker's.
    blocks = data.select_columns(columns).repartition(target_num_rows_per_block=batch_size)
    encoded = blocks.map_batches(
        EncoderActor,
        fn_constructor_kwargs={
            "model_path": str(model_path),
            "column": column,
            "max_tokens": max_tokens,
            "prompt": {"prompt_name": prompt_name, "prompt": prompt},
            "precision": precision,
        },
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=concurrency),
        num_gpus=num_gpus,
        num_cpus=0.5,  # for Ray's accounts only: workers that hold every CPU would wait for ever for rows to be read
    )
    written = list(dict.fromkeys(["id", *keep, "embedding"]))
    encoded.select_columns(written).write_parquet(str(output))


def _dataset(rows: Any) -> ray.data.Dataset:
    import ray.data

    if isinstance(rows, ray.data.Dataset):
        return rows
    if not hasattr(rows, "column_names"):
        paths = [rows] if isinstance(rows, (str, Path)) else rows
        return ray.data.read_parquet([str(path) for path in paths])
    if "id" not in rows.column_names:
        rows = rows.add_column("id", range(len(rows)))
    return ray.data.from_huggingface(rows)
