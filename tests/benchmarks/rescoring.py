"""Scenes found by their caption, and back: poly-mini's single vector against re-scoring by patches.

    python -m tests.benchmarks.rescoring

First as `poly-mini` comes; then after some steps on captions of training scenes: with InfoNCE on the single vectors
alone, with InfoNCE on the similarities of pooled patches beside it, and with `SimilarityDecorrelation` of both on top.
Each seed has its own scenes, from the inventory that is held out. Every finished run is one line of a JSON Lines file,
so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import set_seed

from st_vi.data.generated.scenes import caption_rows
from st_vi.hub import load
from st_vi.inspection.rescoring import RescoredRetrievalEvaluator, embedded_patches, pooled_by_query
from st_vi.recipes.ablation.tables import markdown, over_seeds
from st_vi.terms import PairBatch, SimilarityDecorrelation
from tests.benchmarks.results import Results, options_of
from tests.benchmarks.tables import update_docs

COUNT, TOP_K = 200, 10
WEIGHTS = (0.25, 0.5, 1.0)
STEPS, BATCH, RATE, T = 60, 16, 1e-4, 0.05
SHIPPED = "as it comes"
ARMS = {
    SHIPPED: "nothing, as it comes",
    "single vectors": "InfoNCE of the vectors",
    "and pooled patches": "… and of the pooled patches",
    "and decorrelation": "… and `SimilarityDecorrelation`",
}
DIRECTIONS = ("text_to_image", "image_to_text")


@cache
def scenes(split: str, count: int, seed: int) -> Dataset:
    return caption_rows(split, count, seed=seed)  # type: ignore[arg-type]


def symmetric(logits: Tensor) -> Tensor:
    """Cross-entropy of the diagonal, both ways."""
    right = torch.arange(len(logits))
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def step_loss(model: SentenceTransformer, texts: Sequence[str], pictures: Sequence[Any], arm: str) -> Tensor:
    """Of one batch."""
    of_texts, of_pictures = (model.preprocess(list(column)) for column in (texts, pictures))
    queries = F.normalize(model(of_texts)["sentence_embedding"].float(), dim=1)
    whole = F.normalize(model(dict(of_pictures))["sentence_embedding"].float(), dim=1)
    loss = symmetric(queries @ whole.T / T)
    if arm == "single vectors":
        return loss
    patches = [vectors.float() for vectors in embedded_patches(model, dict(of_pictures))]
    pooled = torch.stack([F.normalize(pooled_by_query(queries, own), dim=1) for own in patches])  # (pictures, texts, D)
    loss = loss + symmetric((queries * pooled).sum(dim=2).T / T)
    if arm == "and decorrelation":
        own = pooled.diagonal().T
        term = SimilarityDecorrelation(temperature=T, weight=0.5)
        loss = loss + term.weight * term(PairBatch(queries, whole, more_positives=own[None])).mean()
    return loss


def trained(arm: str, seed: int) -> SentenceTransformer:
    """poly-mini after some steps with AdamW and a linear decay."""
    set_seed(seed)
    model = load("poly-mini", device="cpu")
    if arm == SHIPPED:
        return model
    model.float().train()
    rows = scenes("train", STEPS * BATCH, 100 + seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=STEPS)
    for step in range(STEPS):
        batch = rows[step * BATCH : (step + 1) * BATCH]
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = step_loss(model, batch["positive"], batch["anchor_image"], arm)
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def measure(arm: str, seed: int) -> dict[str, Any]:
    """Recall@1 in percent, both ways: of the single vector, and re-scored with each weight."""
    start, model, rows = time.time(), trained(arm, seed), scenes("test", COUNT, 30 + seed)
    columns = rows["positive"][:], rows["anchor_image"][:]
    found: dict[str, Any] = {"arm": arm, "seed": seed}
    for weight in WEIGHTS:
        figures = RescoredRetrievalEvaluator(*columns, top_k=TOP_K, weight=weight)(model)
        for direction in DIRECTIONS:
            found[f"{direction} single"] = 100 * figures[f"single_{direction}_recall@1"]
            found[f"{direction} {weight}"] = 100 * figures[f"{direction}_recall@1"]
    return found | {"seconds": round(time.time() - start)}


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Mean ± standard deviation over the seeds, and the mean of the difference."""
    lines = []
    for arm in ARMS:
        own = [run for run in runs if run["arm"] == arm]
        for weight in WEIGHTS if own else ():
            cells = []
            for direction in DIRECTIONS:
                single, again = ([run[f"{direction} {kind}"] for run in own] for kind in ("single", weight))
                gap = float(np.mean(again) - np.mean(single))
                cells += [over_seeds(single), over_seeds(again), f"{gap:+.1f}"]
            lines.append([ARMS[arm], f"{weight:g}", *cells])
    header = [cell for way in ("caption → scene", "scene → caption") for cell in (f"{way}, single", "re-scored", "gap")]
    return markdown(["trained with", "w", *header], lines)


def main() -> None:
    """Run what has no figures yet, then print the table and put it into the docs."""
    options = options_of(__doc__, "rescoring").parse_args()
    torch.set_num_threads(1)
    runs = Results(options.results)
    done = {(run["arm"], run["seed"]) for run in runs}
    for seed in [] if options.table_only else options.seeds:
        for arm in ARMS:
            if (arm, seed) not in done:
                runs.keep(measure(arm, seed))
                print(runs[-1], flush=True)
    print(table(runs))
    if not options.no_docs:
        update_docs("rescoring", table(runs))


if __name__ == "__main__":
    main()
