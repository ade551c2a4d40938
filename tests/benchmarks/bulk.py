"""A corpus to Parquet with vi-mini: `encode_corpus` against stock `encode` in a loop with the same tokens per batch.

    python -m tests.benchmarks.bulk
    python -m tests.benchmarks.bulk --rows 100000 --threads 2 --runs 2 --ways rows ours

Every run is a process of its own, and the ways take turns. Stock writes the same files in two ways: it gets all rows of
a file at a time, which it sorts by characters, or the rows of a batch at a time, as they come. Its batches have as many
rows as `encode_corpus` has in a batch on average. Memory is what the system reports at most in each half of a run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.encode import corpus

WAYS = {
    "rows": "stock `encode`, a file's rows at a time",
    "batch": "stock `encode`, a batch's rows at a time",
    "ours": "`encode_corpus`",
}


def encode_stock(model: Any, count: int, output: Path, shard_rows: int, batch: int, at_once: int) -> None:
    """Write shards of vectors as a loop around the stock method does."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    output.mkdir(parents=True)
    texts = [row["text"] for row in corpus(count)]
    for shard in range(0, count, shard_rows):
        rows = texts[shard : shard + shard_rows]
        parts = [
            model.encode(rows[start : start + at_once], batch_size=batch, show_progress_bar=False)
            for start in range(0, len(rows), at_once)
        ]
        vectors = np.concatenate(parts)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        table = pa.table({"id": pa.array(range(shard, shard + len(rows))), "embedding": column})
        pq.write_table(table, output / f"shard-{shard // shard_rows:05d}.parquet")


def encode(
    way: str, count: int, output: str, shard_rows: int, max_tokens: int, batch: int, threads: int, dtype: str
) -> None:
    """What a process does; prints its seconds without loading the model."""
    import torch

    from st_vi.encoding import encode_corpus
    from st_vi.hub import load

    torch.set_num_threads(threads)
    model = load("vi-mini", device="cpu", model_kwargs={"dtype": dtype})
    wall, cpu = time.perf_counter(), time.process_time()
    if way == "ours":
        encode_corpus(model, corpus(count), output, shard_rows=shard_rows, max_tokens=max_tokens)
    else:
        encode_stock(model, count, Path(output), shard_rows, batch, shard_rows if way == "rows" else batch)
    print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}))


def mean_batch(max_tokens: int) -> int:
    """Rows in a batch of so many tokens, on average."""
    from st_vi.encoding.batches import plan_batches, token_counts
    from st_vi.hub import load

    counts = token_counts(load("vi-mini", device="cpu"), [row["text"] for row in corpus(5000)])
    return round(len(counts) / len(plan_batches(counts, max_tokens)))


def watched(way: str, output: Path, options: argparse.Namespace, batch: int) -> dict[str, float]:
    """Run a way in a process of its own."""
    arguments = [
        way,
        options.rows,
        str(output),
        options.shard_rows,
        options.max_tokens,
        batch,
        options.threads,
        options.dtype,
    ]
    code = f"from tests.benchmarks.bulk import *; encode(*{arguments!r})"
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20), "OMP_NUM_THREADS": str(options.threads)}
    child = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    memory = list(_memory(child))
    printed, _ = child.communicate()
    assert child.returncode == 0
    half = len(memory) // 2
    return json.loads(printed.splitlines()[-1]) | {"early": max(memory[:half]), "late": max(memory[half:])}


def _memory(child: subprocess.Popen[str]) -> Iterator[float]:
    process = psutil.Process(child.pid)
    while child.poll() is None:
        yield process.memory_info().rss / 2**20
        time.sleep(0.25)


def main() -> None:
    """Print the table."""
    import numpy as np
    import pyarrow.parquet as pq

    from st_vi.recipes.ablation.tables import markdown

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--shard-rows", type=int, default=2_000)
    parser.add_argument("--max-tokens", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3, help="of each way")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument(
        "--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="'rows' is what others are compared with"
    )
    options = parser.parse_args()
    batch = mean_batch(options.max_tokens)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in options.ways}
    with tempfile.TemporaryDirectory() as name:
        for run in range(options.runs):
            for way in options.ways:
                found[way].append(watched(way, Path(name, f"{way}-{run}"), options, batch))
                print(way, found[way][-1], file=sys.stderr, flush=True)
        vectors = {
            way: np.stack(
                [
                    vector
                    for shard in sorted(Path(name, f"{way}-0").glob("*.parquet"))
                    for vector in pq.read_table(shard)["embedding"].to_numpy(zero_copy_only=False)
                ]
            )
            for way in options.ways
        }
    assert np.abs(vectors["ours"] - vectors["rows"]).max() < (1e-5 if options.dtype == "float32" else 0.05)
    rows = []
    for way in options.ways:
        middle = {key: statistics.median(run[key] for run in found[way]) for key in ("wall", "cpu", "early", "late")}
        ratios = [
            f"{statistics.median(a[key] / b[key] for a, b in zip(found[way], found['rows'], strict=True)):.2f}"
            for key in ("wall", "cpu")
        ]
        rows.append([WAYS[way], f"{middle['wall']:.0f}", f"{middle['cpu']:.0f}", *ratios])
        rows[-1] += [f"{middle['early']:.0f}", f"{middle['late']:.0f}"]
    print(f"{options.rows:,} rows, {batch} in a stock batch, {options.threads} thread(s), {options.dtype}; ", end="")
    print(f"load of the machine {os.getloadavg()[0]:.1f}\n")
    header = ["way", "seconds", "of the processor", "× wall", "× processor", "MB, first half", "MB, second half"]
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
