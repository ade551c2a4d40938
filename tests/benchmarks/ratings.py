"""Ratings of sentence pairs with vi-mini: a `RatingHead` against the cosine alone and a regression head.

    python -m tests.benchmarks.ratings

Frozen: the heads are trained on vectors. End to end: vi-mini and a head that was fitted to 1,000 rows before, by the
stock trainer. A regression head has
the same inputs as the rating head and the squared error as its loss. The cosine, and what a regression head predicts,
get a normal distribution of the spread of their errors on the training rows, cut at the middle between two levels; the
cosine is first mapped to scores by a line. Every finished run is one line of a JSON Lines file, so an interrupted run
goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from scipy.stats import norm, spearmanr
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
from torch import Tensor, nn
from transformers import set_seed

from st_vi.data import read_rows, sample_sts
from st_vi.hub import load
from st_vi.losses import RatingLoss
from st_vi.modules import RatingHead
from st_vi.modules.rating_head import pair_features
from st_vi.recipes.ablation.tables import markdown, over_seeds
from tests.benchmarks.results import Results, options_of
from tests.benchmarks.tables import update_docs
from tests.benchmarks.viclsr import DATA

LEVELS, HIGHEST = 6, 5
RATINGS = {
    "ratings, 1 region": {"regions": 1},
    "ratings, 3 regions": {"regions": 3},
    "ratings, 6 regions": {"regions": 6},
    "ratings, 3 regions, not flooded": {"regions": 3, "flood": False},
    "ratings, 6 regions, not flooded": {"regions": 6, "flood": False},
}
ARMS = ("cosine", "regression", *RATINGS)
TRAINED = ("cosine", "regression", "ratings, 3 regions", "ratings, 6 regions, not flooded")
STEPS, BATCH = 300, 64
TRAINED_STEPS, TRAINED_BATCH, FITTED, CALIBRATED = 60, 32, 1000, 500
SETS = {"sample": "sample_sts", "english": "STS-B, English"}
FIGURES = {"spearman": "Spearman × 100", "within": "within one level, %", "likelihood": "log-likelihood"}


def pairs_of(name: str, split: str) -> Dataset:
    """sentence1, sentence2 and score."""
    if name == "sample":
        return sample_sts(split)  # type: ignore[arg-type]
    return read_rows(DATA / "sts" / f"stsb_en_{split}.jsonl")


class Regression(nn.Module):
    """A score of each pair from the same x as `RatingHead`, and as it, at first, from the cosine alone."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(float(HIGHEST)))
        self.bias = nn.Parameter(torch.tensor(0.0))
        self.weight = nn.Parameter(torch.zeros(2 * size))

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        x, cosine = pair_features(u, v)
        return self.scale * cosine + self.bias + x @ self.weight

    def fit(self, u: Tensor, v: Tensor, scores: Tensor, seed: int) -> None:
        """As `RatingHead.fit` does it."""
        groups = [
            {"params": [self.weight], "weight_decay": 0.1},
            {"params": [self.scale, self.bias], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=0.01)
        generator, order = torch.Generator().manual_seed(seed), torch.empty(0, dtype=torch.long)
        for _ in range(STEPS):
            if len(order) < min(BATCH, len(scores)):
                order = torch.randperm(len(scores), generator=generator)
            rows, order = order[:BATCH], order[BATCH:]
            optimizer.zero_grad()
            (self(u[rows], v[rows]) - scores[rows]).square().mean().backward()
            optimizer.step()


class SquaredError(nn.Module):
    """Trains a model and a regression head by the stock trainer."""

    def __init__(self, model: SentenceTransformer, head: Regression) -> None:
        super().__init__()
        self.model, self.head = model, head

    def forward(self, features: Any, labels: Tensor) -> Tensor:
        u, v = (self.model(column)["sentence_embedding"] for column in features)
        return (self.head(u, v) - labels).square().mean()


class Sides(NamedTuple):
    """Vectors and scores."""

    u: Tensor
    v: Tensor
    scores: Tensor


def encoded(model: SentenceTransformer, rows: Dataset) -> Sides:
    u, v = (model.encode(rows[name][:], batch_size=64, convert_to_tensor=True) for name in ("sentence1", "sentence2"))
    return Sides(u.float().cpu(), v.float().cpu(), torch.tensor(rows["score"][:], dtype=torch.float32))


def figures(expected: np.ndarray, p: np.ndarray, scores: Tensor) -> dict[str, float]:
    """Of predicted scores and probabilities of levels."""
    levels = np.floor(scores.double().numpy() + 0.5).astype(int)
    nearest = np.floor(expected.clip(0, HIGHEST) + 0.5)
    return {
        "spearman": 100 * float(spearmanr(expected, scores).statistic),
        "within": 100 * float((np.abs(nearest - levels) <= 1).mean()),
        "likelihood": float(np.log(p[np.arange(len(levels)), levels]).mean()),
    }


def of_scores(train: np.ndarray, test: np.ndarray, sides: tuple[Sides, Sides]) -> dict[str, float]:
    """Of predictions without a distribution, which get a normal one."""
    spread = np.sqrt(np.mean((train - sides[0].scores.numpy()) ** 2))
    edges = np.concatenate([[-np.inf], np.arange(LEVELS - 1) + 0.5, [np.inf]])
    p = np.diff(norm.cdf((edges - test[:, None]) / spread), axis=1)
    return figures(test, p.clip(1e-12), sides[1].scores)


def of_cosine(sides: tuple[Sides, Sides]) -> dict[str, float]:
    train, test = (torch.cosine_similarity(side.u, side.v).double().numpy() for side in sides)
    slope, start = np.polyfit(train, sides[0].scores.numpy(), 1)
    return of_scores(slope * train + start, slope * test + start, sides)


@torch.no_grad()
def of_regression(head: Regression, sides: tuple[Sides, Sides]) -> dict[str, float]:
    return of_scores(*(head(side.u, side.v).double().numpy() for side in sides), sides)


@torch.no_grad()
def of_ratings(head: RatingHead, sides: tuple[Sides, Sides]) -> dict[str, float]:
    p = head.log_probabilities(sides[1].u, sides[1].v).double().exp()
    return figures(head.expected(p).numpy(), p.numpy(), sides[1].scores)


@cache
def frozen_sides(name: str) -> tuple[Sides, Sides]:
    model = load("vi-mini", device="cpu")
    return encoded(model, pairs_of(name, "train")), encoded(model, pairs_of(name, "test"))


def frozen(name: str, arm: str, seed: int) -> dict[str, float]:
    sides = frozen_sides(name)
    size = sides[0].u.shape[1]
    if arm == "cosine":
        return of_cosine(sides)
    if arm == "regression":
        head = Regression(size)
        head.fit(*sides[0], seed)
        return of_regression(head, sides)
    rating = RatingHead(size, LEVELS, 0, HIGHEST)
    rating.fit(*sides[0], **RATINGS[arm], steps=STEPS, batch_size=BATCH, seed=seed)
    return of_ratings(rating, sides)


@cache
def first_rows(name: str) -> Sides:
    """To fit the heads to before the training."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return encoded(load("vi-mini", device="cpu"), pairs_of(name, "train").select(range(FITTED)))


def trained(name: str, arm: str, seed: int, folder: Path) -> dict[str, float]:
    """After some steps of the stock trainer."""
    set_seed(seed)
    model, rows = (
        load("vi-mini", device="cpu"),
        pairs_of(name, "train").select_columns(["sentence1", "sentence2", "score"]),
    )
    loss: nn.Module
    rates = {} if arm == "cosine" else {r"rating_|head\.": 2e-3}
    if arm == "cosine":
        loss = CosineSimilarityLoss(model)
        train_rows = rows.map(lambda row: {"score": row["score"] / HIGHEST})
    else:
        train_rows = rows
        if arm == "regression":
            loss = SquaredError(model, Regression(384))
            loss.head.fit(*first_rows(name), seed)
        else:
            rating = RatingHead.add_to(model, LEVELS, 0, HIGHEST)
            rating.fit(*first_rows(name), **RATINGS[arm], steps=STEPS, batch_size=BATCH, seed=seed)
            loss = RatingLoss(model, **RATINGS[arm])
    arguments = SentenceTransformerTrainingArguments(
        str(folder), max_steps=TRAINED_STEPS, per_device_train_batch_size=TRAINED_BATCH, learning_rate=5e-5,
        learning_rate_mapping=rates, warmup_steps=0.1, seed=seed, save_strategy="no",
        report_to="none", use_cpu=True, bf16=True, disable_tqdm=True, logging_steps=20,
    )  # fmt: skip
    SentenceTransformerTrainer(model, arguments, train_dataset=train_rows, loss=loss).train()
    model.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sides = encoded(model, rows.select(range(CALIBRATED))), encoded(model, pairs_of(name, "test"))
    if arm == "cosine":
        return of_cosine(sides)
    return of_regression(loss.head, sides) if arm == "regression" else of_ratings(model[-1], sides)


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Mean ± standard deviation over the seeds."""
    lines = []
    for how in ("frozen", "end to end"):
        for name, shown in SETS.items():
            for arm in ARMS:
                own = [run for run in runs if (run["how"], run["set"], run["arm"]) == (how, name, arm)]
                if own:
                    cells = [over_seeds([run["spearman"] for run in own]), over_seeds([run["within"] for run in own])]
                    values = np.array([run["likelihood"] for run in own])
                    likelihood = f"{values.mean():.2f}" + (f" ± {values.std(ddof=1):.2f}" if len(own) > 1 else "")
                    lines.append([how, shown, arm, *cells, likelihood])
    return markdown(["encoder", "pairs", "", *FIGURES.values()], lines)


def main() -> None:
    """Run what has no figures yet, then print the table and put it into the docs."""
    options = options_of(__doc__, "ratings").parse_args()
    torch.set_num_threads(1)
    runs = Results(options.results)
    done = {(run["how"], run["set"], run["arm"], run["seed"]) for run in runs}
    todo = [("frozen", name, arm, seed) for name in SETS for arm in ARMS for seed in options.seeds]
    todo += [("end to end", "english", arm, seed) for seed in options.seeds for arm in TRAINED]
    for how, name, arm, seed in [] if options.table_only else todo:
        if (how, name, arm, seed) in done:
            continue
        start = time.time()
        if how == "frozen":
            found = frozen(name, arm, seed)
        else:
            found = trained(name, arm, seed, options.results.parent / "ratings")
        runs.keep({"how": how, "set": name, "arm": arm, "seed": seed, **found, "seconds": round(time.time() - start)})
        print(runs[-1], flush=True)
    print(table(runs))
    if not options.no_docs:
        update_docs("ratings", table(runs))


if __name__ == "__main__":
    main()
