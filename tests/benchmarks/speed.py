"""Training steps of our losses against stock, forward and backward, on real Vietnamese rows.

    python -m tests.benchmarks.speed            # prints a Markdown table
    python -m tests.benchmarks.speed --runs 11  # more repeats, for a machine that does other things as well

Both sides of a row have the same model and the same preprocessed rows, and take turns in one process; given are
medians. Dropout is off, so that wherever both compute the same loss their gradients can be compared first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CoSENTLoss,
    CosineSimilarityLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor

from st_vi import VIPOLYQWEN_TASKS, MixedTaskCollator
from st_vi.data import nli_to_triplets, read_rows
from st_vi.data.scenes import scene_rows
from st_vi.losses import DLELoss, SupConNLILoss
from st_vi.recipes import build_viclsr, build_vipolyqwen
from st_vi.recipes.small_models import small_qwen2_vl
from tests.benchmarks.viclsr import BASE, DATA

SCORES = {"entailment": 1.0, "neutral": 0.5, "contradiction": 0.0}
# For a visual token the vision tower computes about twice as much as the language model, as in Qwen2-VL-2B.
SMALL = {"width": 256, "layers": 3, "vision_width": 128, "vision_layers": 4}
Features = list[dict[str, Any]]
Step = Callable[[Features], Tensor]


@dataclass(frozen=True)
class Work:
    """One row of the table: two ways to a loss, from the same columns of the same model."""

    name: str
    against: str
    model: SentenceTransformer
    columns: Features
    ours: Step
    peer: Step
    same: bool  # whether both compute the same loss


def xnli(count: int, shuffled: bool) -> list[list[str]]:
    """The columns of `count` triplets, as they follow each other or drawn from all.

    Every premise has two: its contradiction against what it entails, and against the neutral hypothesis.
    """
    triplets = nli_to_triplets(read_rows(DATA / "nli" / "xnli_vi.jsonl"), neutral="weak_positive")["triplets"]
    triplets = (triplets.shuffle(seed=0) if shuffled else triplets).select(range(count))
    return [triplets[name][:] for name in ("anchor", "positive", "negative")]


def triplet_work(model: SentenceTransformer, name: str, columns: Sequence[list[str]]) -> Work:
    """`SupConNLILoss` with its duplicates as negatives, which makes it the stock loss, against the stock loss."""
    loss = SupConNLILoss(model, same_anchor="negative", mask_duplicates=False)
    stock = MultipleNegativesRankingLoss(model, scale=20)
    features = [model.preprocess(column) for column in columns]
    return Work(name, "MultipleNegativesRankingLoss", model, features, loss, lambda c: stock(c, None), same=True)


def scored_work(model: SentenceTransformer) -> Work:
    """The paper's `text_pair` in one pass against a stock loss for each of its three terms."""
    rows = read_rows(DATA / "nli" / "xnli_vi.jsonl").select(range(64))
    scores = torch.tensor([SCORES[label] for label in rows["label"]])
    features = [model.preprocess(rows[column][:]) for column in ("premise", "hypothesis")]
    loss = DLELoss(model, [VIPOLYQWEN_TASKS[0]])
    labels = torch.stack([torch.zeros_like(scores), scores], dim=1)
    stock = [MultipleNegativesRankingLoss(model), CosineSimilarityLoss(model), CoSENTLoss(model)]
    return Work(
        "64 scored pairs, DLE `text_pair`: InfoNCE + MSE + rank",
        "MultipleNegativesRankingLoss, CosineSimilarityLoss, CoSENTLoss, a pass each",
        model,
        features,
        lambda columns: sum(loss(columns, labels).values()),
        lambda columns: sum(part([dict(column) for column in columns], scores) for part in stock),
        same=False,
    )


def drawn_questions() -> list[dict[str, Any]]:
    """Six questions about drawn scenes, 112 to 448 pixels wide."""
    sizes = (112, 112, 168, 224, 336, 448)
    return [scene_rows("train", 1, seed, tasks=("vqa_single",), size=size)[0] for seed, size in enumerate(sizes)]


def driving_questions() -> list[dict[str, Any]]:
    """The first six questions with a picture in their file; most are 448 pixels wide."""
    root = DATA / "vision" / "driving"
    rows = [row for row in read_rows(root / "questions.jsonl") if row["image"]][:6]
    return [
        {
            "task": "vqa_single",
            "anchor": row["question"],
            "positive": row["answers"][row["correct"]],
            "anchor_image": str(picture(root, row["image"])),
        }
        for row in rows
    ]


def text_pairs() -> list[dict[str, Any]]:
    """The first six pairs of XNLI."""
    rows = read_rows(DATA / "nli" / "xnli_vi.jsonl").select(range(6))
    return [
        {"task": "text_pair", "anchor": row["premise"], "positive": row["hypothesis"], "score": SCORES[row["label"]]}
        for row in rows
    ]


def picture(root: Path, name: str) -> Path:
    """Where a picture is."""
    return root / name if (root / name).exists() else root / "images" / name


def mixed_work(name: str, rows: list[dict[str, Any]]) -> Work:
    """`DLELoss` on a small Qwen2-VL, with and without merged inputs."""
    texts = [row[side] for row in rows for side in ("anchor", "positive") if side in row]
    with tempfile.TemporaryDirectory() as folder:
        small_qwen2_vl(texts * 20, folder, **SMALL)
        model = build_vipolyqwen(folder, embedding_dimension=128, max_pixels=448 * 448)
    batch = MixedTaskCollator(model.preprocess)(rows)
    features = [
        {key.removeprefix(f"{side}_"): value for key, value in batch.items() if key.startswith(f"{side}_")}
        for side in ("anchor", "positive")
    ]
    merged, plain = DLELoss(model), DLELoss(model, merge_inputs=False)
    return Work(
        name,
        "the same loss on stock's padded forwards",
        model,
        features,
        lambda columns: sum(merged(columns, batch["label"]).values()),
        lambda columns: sum(plain(columns, batch["label"]).values()),
        same=True,
    )


def gradients(work: Work, step: Step) -> dict[str, Tensor]:
    """Forward and backward."""
    work.model.zero_grad(set_to_none=True)
    # Modules write into the features, so every run has dicts of its own.
    step([dict(column) for column in work.columns]).backward()
    return {name: p.grad for name, p in work.model.named_parameters() if p.grad is not None}


def tokens(work: Work, step: Step) -> str:
    """Tokens forwarded, with padding and without."""
    counts = []

    def count(_: Any, args: tuple[dict[str, Tensor]]) -> None:
        mask = args[0]["attention_mask"]
        counts.append((mask.numel(), int(mask.sum())))

    handle = work.model.register_forward_pre_hook(count)
    gradients(work, step)
    handle.remove()
    padded, real = (sum(column) for column in zip(*counts, strict=True))
    return f"{padded:,} / {real:,} in {len(counts)}"


def measure(work: Work, runs: int) -> str:
    """One row of the table."""
    for module in work.model.modules():  # some models keep the probability beside the modules
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if work.same:
        mine, theirs = (gradients(work, step) for step in (work.ours, work.peer))
        assert mine.keys() == theirs.keys()
        largest = max(gradient.abs().max() for gradient in theirs.values())
        for name, expected in theirs.items():
            difference = float((mine[name] - expected).abs().max() / largest)
            assert difference < 1e-4, f"{name}: gradients differ by {difference:.1e} of the largest"
    counted = [tokens(work, step) for step in (work.ours, work.peer)]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for step, times in zip((work.ours, work.peer), seconds, strict=True):
            begun = time.perf_counter()
            gradients(work, step)
            times.append(time.perf_counter() - begun)
    ours, peer = map(statistics.median, seconds)
    return f"| {work.name} | {work.against} | {ours:.3f} | {peer:.3f} | {peer / ours:.2f}× | {' | '.join(counted)} |"


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows with this in their name")
    parser.add_argument("--runs", type=int, default=7, help="of each side, at least 5")
    options = parser.parse_args()
    model = build_viclsr(BASE)
    works = [
        mixed_work("12 mixed rows, DLE on a small Qwen2-VL; pictures of many sizes", drawn_questions() + text_pairs()),
        mixed_work("12 mixed rows, the same; pictures of one size", driving_questions() + text_pairs()),
        triplet_work(model, "64 triplets in a row, SupConNLI", xnli(64, shuffled=False)),
        triplet_work(model, "64 triplets drawn from all, SupConNLI", xnli(64, shuffled=True)),
        scored_work(model),
    ]
    print(
        f"{torch.get_num_threads()} thread(s); load of the machine {os.getloadavg()[0]:.1f}; "
        f"medians of {options.runs} runs\n"
    )
    print("| work | against | ours, s | peer, s | ratio | ours: tokens padded / real in forwards | peer: the same |")
    print("|---|---|---|---|---|---|---|")
    for work in works:
        if options.only in work.name:
            print(measure(work, max(5, options.runs)), flush=True)


if __name__ == "__main__":
    main()
