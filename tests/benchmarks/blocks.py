"""Time and memory of large batches, with the loss evaluated by blocks of rows.

    python -m tests.benchmarks.blocks
    python -m tests.benchmarks.blocks --only encoder

The encoder is a frozen bag of token vectors and one trained layer, so that the loss is most of the cost; and, for the
last table, vi-mini in bfloat16 autocast on short texts. Every case runs in a process of its own, on one thread: CPU
seconds of a forward and backward pass, and the peak of the process's memory above what it had with model and batch.
Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from torch import Tensor, nn

from st_vi import VIPOLYQWEN_TASKS, CachedDLELoss, CachedSupConNLILoss, load
from st_vi.data import sample_nli

SIZES = [2**power for power in range(10, 17)]
ENCODED = (1024, 65_536)
TRIPLETS = 32_768
TOKENS = 8
ENCODER_MINI_BATCH = 128  # inputs
MAX_GIB = 18.0  # what a case may take above model and batch; the uncut loss ends here
WARM_UP = 64  # rows


class Bag(nn.Module):
    """The mean of frozen token vectors, and one trained layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("vectors", torch.randn(4096, size, generator=generator))
        self.layer = nn.Linear(size, size, bias=False)
        self.layer.weight.data = torch.randn(size, size, generator=generator) / size**0.5

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adds ``sentence_embedding`` (B, size)."""
        bag = nn.functional.embedding_bag(features["input_ids"], self.vectors)
        return features | {"sentence_embedding": self.layer(bag)}


def columns(count: int, rows: int) -> list[dict[str, Tensor]]:
    """Random texts of one length; all are different, and those of a row share half of their tokens."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4096, (count, rows, TOKENS), generator=generator)
    tokens[1:, :, : TOKENS // 2] = tokens[0, :, : TOKENS // 2]
    return [{"input_ids": column, "attention_mask": torch.ones_like(column)} for column in tokens]


def texts(rows: int) -> list[list[str]]:
    """Anchors and positives of 6 to 12 random syllables."""
    draw, syllables = random.Random(1), " ".join(sample_nli("train")["premise"]).split()
    return [[" ".join(draw.choices(syllables, k=draw.randint(6, 12))) for _ in range(rows)] for _ in range(2)]


def labels(rows: int) -> Tensor:
    """Scored pairs and image questions by turns."""
    scores = torch.rand(rows, generator=torch.Generator().manual_seed(2))
    task = torch.arange(rows) % 2
    return torch.stack([task.float(), scores.masked_fill(task == 1, float("nan"))], dim=1)


def make(case: str, model: Any, mini_batch: int) -> Any:
    """The loss of a case."""
    sizes = {"mini_batch_size": mini_batch}
    if case == "stock":
        return CachedMultipleNegativesRankingLoss(model, **sizes)
    if case == "triplets":
        return CachedSupConNLILoss(model, **sizes)
    tasks = (
        VIPOLYQWEN_TASKS[0],
        VIPOLYQWEN_TASKS[2],
    )  # InfoNCE, ScoreMSE and PairwiseRank; InfoNCE and hardest negative
    limit: dict[str, Any] = {"max_matrix_bytes": None} if case == "uncut" else {}
    return CachedDLELoss(model, tasks, **sizes, **limit)


def memory(name: str) -> int:
    """Bytes, such as VmRSS (now) and VmHWM (at most)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise ValueError(name)


def run(case: str, rows: int, mini_batch: int) -> dict[str, float]:
    """One forward and backward pass in this process."""
    torch.set_num_threads(1)
    mixed = case in ("cut", "uncut", "encoder")
    bag = None if case == "encoder" else Bag(384 if mixed else 64)
    model = SentenceTransformer(modules=[bag], device="cpu") if bag else load("vi-mini", device="cpu")
    loss = make(case, model, mini_batch)

    def step(size: int) -> dict[str, float]:
        batch = columns(2 if mixed else 3, size) if bag else [model.preprocess(column) for column in texts(size)]
        of_rows = labels(size) if mixed else None
        model.zero_grad()
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        begun = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=bag is None):
            value = loss(batch, of_rows)
        value = sum(value.values()) if mixed else value
        forward = time.process_time() - begun
        value.backward()
        seconds = time.process_time() - begun
        gradient = float(nn.utils.clip_grad_norm_(model.parameters(), float("inf")))
        return {
            "value": value.item(), "gradient": gradient, "forward": forward, "seconds": seconds,
            "bytes": memory("VmHWM") - before,
        }  # fmt: skip

    step(WARM_UP)
    limit_memory(MAX_GIB)
    results = [step(rows) for _ in range(5 if rows <= 4096 else 1)]
    median = sorted(results, key=lambda result: result["seconds"])[len(results) // 2]
    return median | {"bytes": results[0]["bytes"]}  # before the allocator had memory of its own


def limit_memory(gib: float) -> None:
    """Let this process take so much more memory than it has; beyond, what asks for more gets an error."""
    most = memory("VmSize") + int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def measure(case: str, rows: int, mini_batch: int = 32) -> dict[str, float] | None:
    """`run` in a process of its own; None if it had too little memory."""
    return apart("blocks", case, rows, mini_batch)


def apart(module: str, *case: object) -> dict[str, float] | None:
    """What a benchmark prints for a case, in a process of its own with one thread; None if it had too little memory."""
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", "--case", *map(str, case)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        if "memory" not in done.stderr.lower():
            raise RuntimeError(done.stderr)
        return None
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(*case, result, file=sys.stderr, flush=True)
    return result


def print_triplets(most: int) -> None:
    """Against the stock loss."""
    rows = min(TRIPLETS, most)
    print(f"{rows:,} triplets of 64 dimensions:\n")
    print("| loss | rows in a mini-batch | loss | gradient norm | s | MiB |\n|---|---|---|---|---|---|")
    for mini_batch in (32, 1024):
        for case, name in (("stock", "CachedMultipleNegativesRankingLoss"), ("triplets", "CachedSupConNLILoss")):
            got = measure(case, rows, mini_batch)
            if got is None:
                print(f"| {name} | {mini_batch} | over {MAX_GIB} GiB |", flush=True)
                continue
            print(
                f"| {name} | {mini_batch} | {got['value']:.6f} | {got['gradient']:.6g} | {got['seconds']:.1f} | "
                f"{got['bytes'] / 2**20:,.0f} |",
                flush=True,
            )


def print_mixed(most: int) -> None:
    """By batch size, cut and uncut."""
    print("\nMixed rows of two tasks, 384 dimensions:\n")
    print(
        "| rows | by blocks: ms per row | ns per row and candidate | by blocks: MiB | all at once: ms per row | "
        "all at once: MiB | difference of the losses |\n|---|---|---|---|---|---|---|"
    )
    ended = False
    for rows in (size for size in SIZES if size <= most):
        cut = measure("cut", rows, 1024)
        assert cut is not None, "over the limit by blocks"
        uncut = None if ended else measure("uncut", rows, 1024)
        ended = uncut is None
        at_once = f"over {MAX_GIB:.1f} GiB | | |"
        if uncut:
            difference = abs(cut["value"] - uncut["value"]) / uncut["value"]
            at_once = f"{1000 * uncut['seconds'] / rows:.2f} | {uncut['bytes'] / 2**20:,.0f} | {difference:.1e} |"
        print(
            f"| {rows:,} | {1000 * cut['seconds'] / rows:.2f} | {1e9 * cut['seconds'] / (rows * rows / 2):.1f} | "
            f"{cut['bytes'] / 2**20:,.0f} | {at_once}",
            flush=True,
        )


def print_encoded(most: int) -> None:
    """With a real encoder: a small and a large batch."""
    print("\nThe same with vi-mini, texts of 6 to 12 syllables:\n")
    print("| rows | ms per row | MiB |\n|---|---|---|")
    for rows in (size for size in ENCODED if size <= most):
        got = measure("encoder", rows, ENCODER_MINI_BATCH)
        assert got is not None, "over the limit with an encoder"
        print(f"| {rows:,} | {1000 * got['seconds'] / rows:.2f} | {got['bytes'] / 2**20:,.0f} |", flush=True)


def main() -> None:
    """Run all cases and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="rows of the largest batch")
    parser.add_argument("--only", choices=["triplets", "mixed", "encoder"], help="one of the tables")
    options = parser.parse_args()
    if options.case:
        case, rows, mini_batch = options.case
        print(json.dumps(run(case, int(rows), int(mini_batch))))
        return
    tables = {"triplets": print_triplets, "mixed": print_mixed, "encoder": print_encoded}
    for name, table in tables.items():
        if options.only in (name, None):
            table(options.most)


if __name__ == "__main__":
    main()
