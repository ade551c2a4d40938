"""Encoding of real Vietnamese sentences: speed against the usual ways, and a corpus killed half-way.

    python -m tests.benchmarks.encode                # both tables; 100,000 rows for the second
    python -m tests.benchmarks.encode --rows 0       # speed only
    python -m tests.benchmarks.encode --runs 0 --rows 4000 --shard-rows 500

All ways of the first table have the same base and the same texts and take turns in one process; given are medians.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from st_vi.data import read_rows
from st_vi.encoding import encode_by_tokens, encode_corpus
from st_vi.hub import load
from st_vi.recipes import build_viclsr
from st_vi.recipes.ablation.tables import markdown
from tests.benchmarks.timing import cells, seconds_by_turns
from tests.benchmarks.viclsr import BASE, DATA

Encode = Callable[[list[str]], np.ndarray]
CARD = "the model card's loop"


def sentences(count: int) -> list[str]:
    """Distinct premises and hypotheses of XNLI, in the order of the file."""
    rows = read_rows(DATA / "nli" / "xnli_vi.jsonl")
    return list(dict.fromkeys(text for column in ("premise", "hypothesis") for text in rows[column]))[:count]


def card_loop(model: SentenceTransformer) -> Encode:
    """As the card of huynhtin/ViCLSR: 32 texts after another as they come, all padded to 256 tokens."""
    tokenizer, backbone = AutoTokenizer.from_pretrained(BASE), AutoModel.from_pretrained(BASE).eval()
    head = model[2]  # the same weights as in our model

    @torch.no_grad()
    def encode(texts: list[str]) -> np.ndarray:
        parts = []
        for start in range(0, len(texts), 32):
            batch = texts[start : start + 32]
            inputs = tokenizer(batch, padding="max_length", truncation=True, max_length=256, return_tensors="pt")
            first = backbone(**inputs).last_hidden_state[:, 0]
            parts.append(normalize(head({"sentence_embedding": first})["sentence_embedding"], dim=-1))
        return torch.cat(parts).numpy()

    return encode


def mean_pooling() -> SentenceTransformer:
    """The same base as people use it without ViCLSR."""
    transformer = Transformer(str(BASE), max_seq_length=256)
    return SentenceTransformer(modules=[transformer, Pooling(256, "mean"), Normalize()], device="cpu")


def speed(count: int, runs: int, max_tokens: list[int]) -> str:
    """Seconds for each way to encode the same sentences."""
    texts = sentences(count)
    viclsr, mean = build_viclsr(BASE).cpu(), mean_pooling()
    ways: dict[str, Encode] = {
        CARD: card_loop(viclsr),
        "stock mean pooling, `encode`": mean.encode,
        "ViCLSR, `encode`": viclsr.encode,
    }
    for tokens in max_tokens:
        ways[f"ViCLSR, `encode_by_tokens`, {tokens:,} tokens"] = partial(encode_by_tokens, viclsr, max_tokens=tokens)
    expected = ways[CARD](texts[:200])
    for name, encode in ways.items():
        if name.startswith("ViCLSR"):
            assert np.abs(encode(texts[:200]) - expected).max() < 1e-5, name
    timed = cells(seconds_by_turns(ways, texts, runs), CARD)
    rows = [[name, *timed[name]] for name in ways]
    return markdown([f"{len(texts):,} sentences", "seconds", "range", "faster than the card"], rows)


def corpus(count: int) -> Iterator[dict[str, Any]]:
    """Rows that all differ: real sentences, over and over, each with its number."""
    texts = sentences(100_000)
    for number in range(count):
        yield {"text": f"{texts[number % len(texts)]} ({number})"}


def encode_rows(model: str, count: int, output: str, shard_rows: int) -> None:
    """What the process to be killed does."""
    print(encode_corpus(load(model, device="cpu"), corpus(count), output, shard_rows=shard_rows))


def watched(model: Path, count: int, output: Path, shard_rows: int, kill_after: int = 0) -> tuple[float, list[float]]:
    """Run `encode_rows` in a process of its own; seconds, and memory in MB over its time (four times a second)."""
    call = f"encode_rows({str(model)!r}, {count}, {str(output)!r}, {shard_rows})"
    begun = time.perf_counter()
    # glibc keeps freed tensors of changing shapes, of stock `encode` as well; given back, what is left is what is held.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    code = f"from tests.benchmarks.encode import *; {call}"
    child = subprocess.Popen([sys.executable, "-c", code], env=environment)
    process, memory = psutil.Process(child.pid), []
    while child.poll() is None:
        memory.append(process.memory_info().rss / 2**20)
        if kill_after and (output / f"shard-{kill_after - 1:05d}.parquet").exists():
            child.send_signal(signal.SIGKILL)
        time.sleep(0.25)
    assert child.wait() == (-signal.SIGKILL if kill_after else 0)
    return time.perf_counter() - begun, [value for value in memory if value]


def bulk(count: int, shard_rows: int) -> str:
    """A run without interruption, one that is killed half-way and called again, and one of half the rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_viclsr(BASE).save_pretrained(str(folder / "model"))
        shards = -(-count // shard_rows)
        plan = {
            "half of the rows": (count // 2, "half", 0),
            "all rows": (count, "whole", 0),
            "killed half-way": (count, "killed", max(1, shards // 2)),
            "called again": (count, "killed", 0),
        }
        rows = []
        for run, (number, output, kill_after) in plan.items():
            seconds, memory = watched(folder / "model", number, folder / output, shard_rows, kill_after)
            there = len(list((folder / output).glob("shard-*.parquet")))
            late = memory[len(memory) // 2 :]
            rows.append(
                [run, f"{there} of {shards}", f"{seconds:.0f}", f"{statistics.median(late):.0f}", f"{max(memory):.0f}"]
            )
        whole, killed = (
            {path.name: path.read_bytes() for path in (folder / output).iterdir()} for output in ("whole", "killed")
        )
        assert whole == killed, "the files differ"
    header = [f"{count:,} rows, {shard_rows:,} a shard", "shards", "seconds", "MB, second half", "MB, at most"]
    return markdown(header, rows) + "\n\nThe files of both runs are the same, byte for byte."


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=7, help="of each way; 0 for the second table only")
    parser.add_argument("--max-tokens", type=int, nargs="+", default=[1024, 4096, 16_384])
    parser.add_argument("--rows", type=int, default=100_000, help="of the corpus; 0 for the first table only")
    parser.add_argument("--shard-rows", type=int, default=10_000)
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} thread(s); load of the machine {os.getloadavg()[0]:.1f}\n")
    if options.runs:
        print(speed(options.sentences, options.runs, options.max_tokens) + "\n", flush=True)
    if options.rows:
        print(bulk(options.rows, options.shard_rows))


if __name__ == "__main__":
    main()
