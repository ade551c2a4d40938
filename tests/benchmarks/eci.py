"""Does the ECI-style score of a set of negatives tell which set trains better? Five sets, measured by retrieval.

    python -m tests.benchmarks.eci                # train and measure everything, then update docs/benchmarks.md
    python -m tests.benchmarks.eci --table-only   # update the table from the figures measured so far

Questions and paragraphs of XQuAD in Vietnamese, of which whole articles are held out; the score is taken before
training, under the model that is to be trained. Every finished run is one line of a JSON Lines file, so an interrupted
run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from scipy.stats import permutation_test, spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.util import mine_hard_negatives
from transformers import set_seed

from st_vi.data import read_rows, same_document_negatives, split_by_anchor
from st_vi.data.audit.quality import effective_contrastive_information
from st_vi.data.columns import clean_texts
from st_vi.recipes import train_viclsr
from st_vi.recipes.ablation.tables import markdown, over_seeds
from tests.benchmarks.results import Results
from tests.benchmarks.tables import update_docs
from tests.benchmarks.viclsr import ARMS, DATA, build

TRAINING = {
    "max_steps": 100,
    "per_device_train_batch_size": 32,
    "learning_rate": 1e-4,
    "bf16": True,
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
}
TRAINING_LENGTH = 64  # tokens; paragraphs are measured at full length
TEST_SIZE = 0.4
PARAGRAPHS = 5  # of each article; they stand together in the file
SCORES = {"rows": "", "K": "", "answers": ".1f", "hardness": ".3f", "safety": ".3f", "eci": ".3f"}
FIGURES = {"recall@1": "recall@1", "mrr@10": "MRR@10"}


def xquad() -> Dataset:
    """Anchor (the question), positive (its paragraph), answer and document (its article)."""
    rows = read_rows(DATA / "retrieval" / "xquad_vi.jsonl")
    columns = {"anchor": "question", "positive": "context", "answer": "answer"}
    texts = {name: clean_texts(rows[column], column) for name, column in columns.items()}
    numbers = {text: i for i, text in enumerate(dict.fromkeys(texts["positive"]))}
    texts["document"] = [f"article {numbers[text] // PARAGRAPHS}" for text in texts["positive"]]
    return Dataset.from_dict(texts)


def mined(rows: Dataset, model: SentenceTransformer, **settings: Any) -> Dataset:
    """By the stock miner, among all training paragraphs."""
    defaults = {"num_negatives": 1, "range_max": len(set(rows["positive"])) - 1, "output_format": "n-tuple"}
    return mine_hard_negatives(rows.select_columns(["anchor", "positive"]), model, verbose=False, **defaults | settings)


def same_article(rows: Dataset, model: SentenceTransformer, **settings: Any) -> Dataset:
    """Another paragraph of the article, at random."""
    return same_document_negatives(rows, missing_negative="skip")["triplets"]


STRATEGIES: dict[str, Callable[..., Dataset]] = {
    "random": partial(mined, sampling_strategy="random"),
    "nearest": mined,
    "nearest, relative margin 0.05": partial(mined, relative_margin=0.05),
    "four nearest": partial(mined, num_negatives=4),
    "same article": same_article,
}
UNTRAINED, IN_BATCH = "untrained", "none but the batch's"


def sets(rows: Dataset) -> dict[str, tuple[Dataset, dict[str, Any]]]:
    """The rows with the negatives of each strategy, the same for all seeds, and their scores before training."""
    set_seed(0)
    model = build(ARMS["base, mean pooling"])
    found: dict[str, tuple[Dataset, dict[str, Any]]] = {UNTRAINED: (rows, {}), IN_BATCH: (rows, {"rows": len(rows)})}
    with tempfile.TemporaryDirectory() as cache:
        for name, strategy in STRATEGIES.items():
            made = strategy(rows, model, cache_folder=cache)
            score = effective_contrastive_information(made, model, batch_size=64, show_progress_bar=False)
            figures = {"K": score.negatives, "hardness": score.hardness, "safety": score.safety, "eci": score.score}
            found[name] = made, {"rows": len(made), "answers": 100 * with_answer(made, rows), **figures}
    return found


def with_answer(made: Dataset, rows: Dataset) -> float:
    """Share of negatives in which the answer's letters stand: an upper limit of the false ones."""
    answers = dict(zip(zip(rows["anchor"], rows["positive"], strict=True), rows["answer"], strict=True))
    names = [name for name in made.column_names if name.startswith("negative")]
    found = [answers[row["anchor"], row["positive"]].lower() in row[name].lower() for row in made for name in names]
    return sum(found) / len(found)


def measure(model: SentenceTransformer, rows: DatasetDict) -> dict[str, float]:
    """Held-out questions against all paragraphs, of both sides; in percent."""
    paragraphs = {
        text: str(i) for i, text in enumerate(dict.fromkeys([*rows["test"]["positive"], *rows["train"]["positive"]]))
    }
    figures = InformationRetrievalEvaluator(
        queries={str(i): question for i, question in enumerate(rows["test"]["anchor"])},
        corpus={number: text for text, number in paragraphs.items()},
        relevant_docs={str(i): {paragraphs[text]} for i, text in enumerate(rows["test"]["positive"])},
        accuracy_at_k=[1], precision_recall_at_k=[1], mrr_at_k=[10], ndcg_at_k=[10], map_at_k=[10],
    )(model)  # fmt: skip
    return {name: 100 * float(figures[f"cosine_{name}"]) for name in FIGURES}


def run(name: str, seed: int, made: Dataset, rows: DatasetDict) -> dict[str, float]:
    """Train with these negatives, and measure."""
    started = time.time()
    set_seed(seed)
    model = build(ARMS["base, mean pooling"])
    if name != UNTRAINED:
        columns = [column for column in made.column_names if column not in ("answer", "document")]
        arguments = TRAINING | {"seed": seed, "use_cpu": not torch.cuda.is_available()}
        with tempfile.TemporaryDirectory() as folder:
            length, model.max_seq_length = model.max_seq_length, TRAINING_LENGTH
            train_viclsr(model, made.select_columns(columns), folder, **arguments)
            model.max_seq_length = length
    return measure(model, rows) | {"seconds": round(time.time() - started)}


def table(results: list[dict[str, Any]]) -> str:
    """Mean ± standard deviation over seeds, one row a strategy, the highest score first; and the rank correlation."""
    runs = {name: [r for r in results if r["strategy"] == name] for name in (*STRATEGIES, IN_BATCH, UNTRAINED)}
    runs = {name: found for name, found in runs.items() if found}
    scores = {name: found[0]["eci"] for name, found in runs.items() if name in STRATEGIES}
    lines = []
    for name in sorted(runs, key=lambda name: -scores.get(name, -1)):
        first = runs[name][0]
        cells = [f"{first[key]:{form}}" if key in first else "" for key, form in SCORES.items()]
        lines.append([name, *cells, *(over_seeds(r[figure] for r in runs[name]) for figure in FIGURES)])
    header = ["negatives", "rows", "K", "% with the answer", "hardness", "safety", "ECI-style score", *FIGURES.values()]
    text = markdown(header, lines)
    if len(scores) == len(STRATEGIES):
        text += "\n\n" + "\n".join(correlation(figure, scores, runs) for figure in FIGURES)
    return text


def correlation(figure: str, scores: dict[str, float], runs: dict[str, list[dict[str, Any]]]) -> str:
    """Of the scores with the means of a figure, and how often chance gives one as large."""
    # Rounded: two means of as many right answers are a tie, whatever the last bit says.
    means = [round(float(np.mean([r[figure] for r in runs[name]])), 6) for name in scores]

    def statistic(values: np.ndarray) -> float:
        return spearmanr(values, means).statistic

    test = permutation_test((list(scores.values()),), statistic, permutation_type="pairings", n_resamples=np.inf)
    return (
        f"Spearman's correlation of the score with {FIGURES[figure]} over {len(means)} sets of negatives: "
        f"{test.statistic:.2f}; a share of {test.pvalue:.2f} of all orders has one as large in absolute value."
    )


def main() -> None:
    """Run what has no figures yet, then print the table and put it into the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("outputs/eci.jsonl"), help="figures measured so far")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--table-only", action="store_true")
    parser.add_argument("--max-steps", type=int, help="shorten every training, to try the command")
    options = parser.parse_args()
    results = Results(options.results, max_steps=options.max_steps)
    done = {(result["strategy"], result["seed"]) for result in results}
    if not options.table_only:
        TRAINING["max_steps"] = options.max_steps or TRAINING["max_steps"]
        rows = split_by_anchor(xquad(), test_size=TEST_SIZE, anchor="document", seed=0)
        made = sets(rows["train"])
        for seed in range(options.seeds):
            for name, (negatives, scores) in made.items():
                # Without training there is nothing random.
                if (name, seed) in done or (name == UNTRAINED and seed):
                    continue
                results.keep({"strategy": name, "seed": seed, **scores, **run(name, seed, negatives, rows)})
                print(results[-1], flush=True)
    print(table(results))
    if not options.max_steps:
        update_docs("eci", table(results))


if __name__ == "__main__":
    main()
