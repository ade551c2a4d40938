"""ViCLSR on real Vietnamese rows, beside its base and beside the stock loss.

    python -m tests.benchmarks.viclsr                # train and measure everything, then update docs/benchmarks.md
    python -m tests.benchmarks.viclsr --table-only   # update the table from the figures measured so far

Every finished run is one line of a JSON Lines file, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import set_seed

from st_vi.data import nli_to_triplets, read_rows, split_by_anchor
from st_vi.data.nli import canonical_labels
from st_vi.data.triplets import Triplets
from st_vi.evaluation import NLISimilarityEvaluator, NLUBenchmark, NLUEvaluator
from st_vi.losses import SupConNLILoss
from st_vi.recipes import build_viclsr, train_viclsr
from st_vi.recipes.ablation.tables import markdown, over_seeds
from tests.benchmarks.results import Results, options_of
from tests.benchmarks.tables import update_docs

DATA = Path(os.environ.get("ST_VI_DATA", "../shared/data"))
BASE = Path(os.environ.get("ST_VI_BASE", "../shared/models/vi-mini-base"))
E5 = Path(os.environ.get("ST_VI_TEACHER", "../shared/models/e5-small-vi"))
FIGURES = {
    "triplet_accuracy": "triplet accuracy",
    "nli_spearman": "NLI Spearman",
    "xquad_recall@1": "XQuAD recall@1",
    "xquad_mrr@10": "XQuAD MRR@10",
    "sib200_accuracy": "SIB-200 probe",
}
TRAINING = {"num_train_epochs": 3, "per_device_train_batch_size": 64, "learning_rate": 3e-4, "bf16": True}
TRAINING_LENGTH = 64  # tokens; NLI sentences are short, while paragraphs are measured at full length
VISNLI_LABELS = {0: "entailment", 1: "contradiction", 2: "neutral"}


@dataclass(frozen=True)
class Arm:
    """One row of the table: a model, and how it is trained (not at all where `loss` is None)."""

    head: str | None = "tanh"  # the activation of the head; None for no head
    pooling: str = "cls"
    loss: Callable[[SentenceTransformer], torch.nn.Module] | None = SupConNLILoss
    base: Path = BASE
    prefix: str = ""  # before every text, in training too
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


def supcon(**settings: Any) -> Callable[[SentenceTransformer], SupConNLILoss]:
    """`SupConNLILoss` with these settings."""
    return lambda model: SupConNLILoss(model, **settings)


ARMS = {
    "base, mean pooling": Arm(head=None, pooling="mean", loss=None),
    "base, CLS": Arm(head=None, loss=None),
    "stock MNRL": Arm(loss=lambda model: MultipleNegativesRankingLoss(model, scale=20)),
    "ViCLSR": Arm(),
    "hard-negative weight 1": Arm(loss=supcon(hard_negative_weight=1.0)),
    "hard-negative weight 3": Arm(loss=supcon(hard_negative_weight=3.0)),
    "neutral as hard negative": Arm(data={"neutral": "hard_negative"}),
    "neutral as weak positive": Arm(data={"neutral": "weak_positive"}),
    "same anchor masked": Arm(loss=supcon(same_anchor="mask")),
    "same anchor as negative": Arm(loss=supcon(same_anchor="negative")),
    "head identity": Arm(head="identity"),
    "no head": Arm(head=None),
    "mean pooling": Arm(pooling="mean"),
    "learning rate 1e-4": Arm(training={"learning_rate": 1e-4}),
}


def nli_rows() -> Dataset:
    """All NLI sets as premise, hypothesis and canonical label."""
    parts = []
    for name in ("visnli_train", "visnli_dev", "visnli_test", "xnli_vi", "multinli_vi"):
        rows = read_rows(DATA / "nli" / f"{name}.jsonl")
        labels = canonical_labels(rows, "label", VISNLI_LABELS if name.startswith("visnli") else None)
        rows = rows.select_columns(["premise", "hypothesis"])
        parts.append(rows.add_column("label", labels))
    return concatenate_datasets(parts)


def build(arm: Arm) -> SentenceTransformer:
    """The arm's model, untrained."""
    kwargs = {"model_kwargs": {"attn_implementation": "eager"}}  # in bf16 on a CPU, faster than SDPA's backward
    if arm.head:
        return build_viclsr(arm.base, activation=arm.head, pooling=arm.pooling, **kwargs)
    if arm.base == E5:
        kwargs["model_kwargs"]["dtype"] = "float32"  # it is stored in bf16
    transformer = Transformer(str(arm.base), **kwargs)
    pooling = Pooling(transformer.get_embedding_dimension(), arm.pooling)
    prompts = {"prompts": {"all": arm.prefix}, "default_prompt_name": "all"} if arm.prefix else {}
    return SentenceTransformer(modules=[transformer, pooling, Normalize()], **prompts)


def measure(model: SentenceTransformer, test: Dataset) -> dict[str, float]:
    """The five figures, each in percent."""
    nli = NLISimilarityEvaluator(test["premise"], test["hypothesis"], test["label"])(model)

    xquad = read_rows(DATA / "retrieval" / "xquad_vi.jsonl")
    paragraphs = {text: str(i) for i, text in enumerate(dict.fromkeys(xquad["context"]))}
    retrieval = InformationRetrievalEvaluator(
        queries={str(i): question for i, question in enumerate(xquad["question"])},
        corpus={number: text for text, number in paragraphs.items()},
        relevant_docs={str(i): {paragraphs[context]} for i, context in enumerate(xquad["context"])},
        accuracy_at_k=[1], precision_recall_at_k=[1], mrr_at_k=[10], ndcg_at_k=[10], map_at_k=[10],
    )(model)  # fmt: skip

    topics = {split: read_rows(DATA / "classification" / f"sib200_vi_{split}.jsonl") for split in ("train", "test")}
    sib200 = NLUBenchmark("SIB-200", "single", {"text1": "text", "label": "label"}, None, "accuracy")
    probe = NLUEvaluator(sib200, topics["train"], topics["test"], batch_size=64)(model)

    figures = {
        "triplet_accuracy": nli["triplet_accuracy"],
        "nli_spearman": nli["nli_spearman"],
        "xquad_recall@1": retrieval["cosine_recall@1"],
        "xquad_mrr@10": retrieval["cosine_mrr@10"],
        "sib200_accuracy": probe["SIB-200_probe_accuracy"],
    }
    return {name: 100 * float(value) for name, value in figures.items()}


def run(name: str, seed: int, rows: Any) -> dict[str, Any]:
    """Train one arm with one seed, and measure it."""
    arm = ARMS[name]
    set_seed(seed)
    model = build(arm)
    started = time.time()
    if arm.loss:
        triplets: Triplets = nli_to_triplets(rows["train"], conflict="skip", **arm.data)
        arguments = TRAINING | {"save_strategy": "no", "seed": seed, "use_cpu": not torch.cuda.is_available()}
        arguments |= arm.training
        with tempfile.TemporaryDirectory() as folder:
            length, model.max_seq_length = model.max_seq_length, TRAINING_LENGTH
            train_viclsr(model, triplets, folder, loss=arm.loss(model), **arguments)
            model.max_seq_length = length
    return {"arm": name, "seed": seed, "seconds": round(time.time() - started), **measure(model, rows["test"])}


def table(results: list[dict[str, Any]]) -> str:
    """Mean ± standard deviation over seeds, one row an arm."""
    rows = []
    for name in ARMS:
        runs = [result for result in results if result["arm"] == name]
        if runs:
            figures = [over_seeds([result[figure] for result in runs]) for figure in FIGURES]
            rows.append([name, str(len(runs)), *figures])
    return markdown(["model", "seeds", *FIGURES.values()], rows)


def main() -> None:
    """Run what has no figures yet, then print the table and put it into the docs."""
    parser = options_of(__doc__, "viclsr")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--max-steps", type=int, default=-1, help="shorten every training, to try the command")
    options = parser.parse_args()
    results = Results(options.results, max_steps=options.max_steps)
    done = {(result["arm"], result["seed"]) for result in results}
    if not options.table_only:
        TRAINING["max_steps"] = options.max_steps
        rows = split_by_anchor(nli_rows(), test_size=0.2, anchor="premise", seed=0)
        for seed in options.seeds:
            for name in options.arms:
                # Without training there is nothing random.
                if (name, seed) in done or (ARMS[name].loss is None and seed != options.seeds[0]):
                    continue
                results.keep(run(name, seed, rows))
                print(results[-1], flush=True)
    print(table(results))
    if options.max_steps < 0 and not options.no_docs:
        update_docs("viclsr", table(results))


if __name__ == "__main__":
    main()
