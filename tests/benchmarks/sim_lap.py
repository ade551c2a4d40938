"""`SimLAP` on the topics of SIB-200, beside supervised contrastive learning: `vi-mini`, three seeds.

    python -m tests.benchmarks.sim_lap                # train and measure everything, then update docs/benchmarks.md
    python -m tests.benchmarks.sim_lap --table-only   # update the table from the figures measured so far

Every finished run is one line of a JSON Lines file, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import random
import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from transformers import set_seed

from st_vi import DLELoss, Task, load, train_vipolyqwen
from st_vi.data import read_rows
from st_vi.evaluation.geometry import effective_rank
from st_vi.recipes.ablation.tables import markdown, over_seeds
from st_vi.terms import SimLAP
from tests.benchmarks.results import Results, options_of
from tests.benchmarks.tables import update_docs
from tests.benchmarks.viclsr import DATA, measure

VARIANTS: dict[str, dict[str, Any]] = {
    "vi-mini": {},
    "same topic, no gates": {"partners": "identical", "trained": False},
    "same topic, gates": {"partners": "identical", "trained": True},
    "any topics, no gates": {"partners": "arbitrary", "trained": False},
    "any topics, gates (SimLAP)": {"partners": "arbitrary", "trained": True},
}
"""How each model is trained; gates that are not trained stay equal, and so without effect."""

FIGURES = {
    "sib200_accuracy": "SIB-200 probe",
    "xquad_recall@1": "XQuAD recall@1",
    "triplet_accuracy": "XNLI triplets",
    "rank": "effective rank",
}
GATES_RATE = 0.2  # in 44 steps, a gate can close
TRAINING: dict[str, Any] = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 1,
    "learning_rate": 5e-5,
    "bf16": True,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}


def topic_rows(seed: int) -> Dataset:
    """Each text with another one of its topic, and the number of the topic."""
    rows, rng = read_rows(DATA / "classification/sib200_vi_train.jsonl"), random.Random(seed)
    topics, pairs = sorted(set(rows["label"])), []
    for number, topic in enumerate(topics):
        texts = [text for text, label in zip(rows["text"], rows["label"], strict=True) if label == topic]
        rng.shuffle(texts)
        pairs += [(one, other, number) for one, other in zip(texts, texts[1:] + texts[:1], strict=True)]
    anchors, positives, classes = map(list, zip(*pairs, strict=True))
    return Dataset.from_dict(
        {"anchor": anchors, "positive": positives, "class": classes, "task": ["topic"] * len(pairs)}
    )


def run(name: str, seed: int) -> dict[str, Any]:
    """Train one variant with one seed, and measure it."""
    started, settings = time.time(), dict(VARIANTS[name])
    set_seed(seed)
    model, gates = load("vi-mini", device="cpu"), {}
    if settings:
        rows, rates = topic_rows(seed), {"learned": GATES_RATE if settings.pop("trained") else 0.0}
        term = SimLAP(num_classes=7, size=model.get_embedding_dimension(), **settings)
        loss = DLELoss(model, [Task("topic", "", (term,))])
        length, model.max_seq_length = model.max_seq_length, 48
        with tempfile.TemporaryDirectory() as folder:
            arguments = TRAINING | {"seed": seed, "use_cpu": True, "learning_rate_mapping": rates}
            train_vipolyqwen(model, rows, folder, loss=loss, **arguments)
        model.max_seq_length = length
        values = loss.learned["topic_sim_lap"].detach().sigmoid()
        gates = {"open": float((values > 0.5).float().mean()), "undecided": float((4 * values * (1 - values)).mean())}
    figures = measure(model, read_rows(DATA / "nli/xnli_vi.jsonl").select(range(600)))  # 200 premises
    questions = model.encode(read_rows(DATA / "retrieval/xquad_vi.jsonl")["question"], batch_size=64)
    figures["rank"] = float(effective_rank(torch.from_numpy(questions)))
    return {"name": name, "seed": seed, "seconds": round(time.time() - started), **figures, **gates}


def table(results: list[dict[str, Any]]) -> str:
    """Mean ± standard deviation over seeds, one row a variant."""
    rows = []
    for name in VARIANTS:
        if runs := [result for result in results if result["name"] == name]:
            figures = [over_seeds([result[figure] for result in runs]) for figure in FIGURES]
            gates = [
                over_seeds([100 * result[key] for result in runs]) if "gates" in name and "no gates" not in name else ""
                for key in ("open", "undecided")
            ]
            rows.append([name, str(len(runs)), *figures, *gates])
    return markdown(["trained on", "seeds", *FIGURES.values(), "gates open, %", "undecided, %"], rows)


def main() -> None:
    """Run what has no figures yet, then print the table and put it into the docs."""
    options = options_of(__doc__, "sim_lap").parse_args()
    torch.set_num_threads(1)
    results = Results(options.results)
    done = {(result["name"], result["seed"]) for result in results}
    for seed in [] if options.table_only else options.seeds:
        for name, settings in VARIANTS.items():
            # Without training there is nothing random.
            if (name, seed) in done or (not settings and seed != options.seeds[0]):
                continue
            results.keep(run(name, seed))
            print(results[-1], flush=True)
    print(table(results))
    if not options.no_docs:
        update_docs("sim-lap", table(results))


if __name__ == "__main__":
    main()
