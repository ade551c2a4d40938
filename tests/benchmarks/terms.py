"""Every loss term on the same real rows: alone, and beside viPolyQwen's terms for text pairs.

    python -m tests.benchmarks.terms                # train and measure everything, then update docs/benchmarks.md
    python -m tests.benchmarks.terms --table-only   # update the tables from the figures measured so far

Every finished run is one line of a JSON Lines file, so an interrupted run goes on where it stopped; `--seeds 0` and
`--seeds 1 2` in two processes share the work.
"""

from __future__ import annotations

import math
import tempfile
import time
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import pairwise_cos_sim
from sklearn.metrics import ndcg_score
from torch import Tensor
from transformers import set_seed

from st_vi import DLELoss, Task, train_vipolyqwen
from st_vi import terms as all_terms
from st_vi.data import read_rows
from st_vi.recipes.ablation.tables import markdown, over_seeds
from st_vi.tasks import VIPOLYQWEN_TASKS
from st_vi.terms import Term
from tests.benchmarks.results import Results, options_of
from tests.benchmarks.tables import update_docs
from tests.benchmarks.term_rows import ranked_rows, rows_of_terms, with_another_view
from tests.benchmarks.viclsr import DATA, Arm, build

T = 0.07
TEXT_PAIR = VIPOLYQWEN_TASKS[0].terms
TERMS: dict[str, Term] = {
    "SoftInfoNCE": all_terms.SoftInfoNCE(temperature=T),
    "DebiasedInfoNCE": all_terms.DebiasedInfoNCE(temperature=T),
    "WeightedNegatives": all_terms.WeightedNegatives(temperature=T),
    "AttractionRepulsion": all_terms.AttractionRepulsion(),
    "GroupOrdering": all_terms.GroupOrdering(),
    "MultiViewSingularValue": all_terms.MultiViewSingularValue(),
    "SoftLabelKL": all_terms.SoftLabelKL(),
    "ListwiseDistillation": all_terms.ListwiseDistillation(),
    "IRPO": all_terms.IRPO(),
    "RankListStyle": all_terms.RankListStyle(),
    "NestedOrdinal": all_terms.NestedOrdinal(levels=(0.5, 1.0), shares=(2 / 3, 1 / 3)),
    "SupReMix": all_terms.SupReMix(),
}
"""One of each, with its defaults, at viPolyQwen's temperature where it is an InfoNCE."""

OWN = {
    **dict.fromkeys(("SoftInfoNCE", "DebiasedInfoNCE", "WeightedNegatives", "InfoNCE"), "MRR"),
    **dict.fromkeys(("AttractionRepulsion", "GroupOrdering", "MultiViewSingularValue"), "MRR"),
    "SoftLabelKL": "candidates in order",
    "ListwiseDistillation": "hard negatives in order",
    "IRPO": "NDCG",
    **dict.fromkeys(("RankListStyle", "NestedOrdinal"), "Spearman"),
    "SupReMix": "label distance",
}
"""What each term is for, by the name of its class."""

RANKED = ("SoftLabelKL", "ListwiseDistillation", "IRPO")
"""Alone, they get rows with a teacher's order that can be learnt: of paragraphs."""

VIEWS = ("AttractionRepulsion", "GroupOrdering", "MultiViewSingularValue")  # alone, they get a second positive
TRAINING = {
    "max_steps": 200,
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-4,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}
LENGTH = 48  # tokens
FIGURES = {"triplet_accuracy": "triplet accuracy", "Spearman": "Spearman", "xquad_mrr": "XQuAD MRR@10"}


def variants() -> dict[str, tuple[Term, ...]]:
    """The terms of a task of text pairs: the paper's, and each further one beside them."""
    nce, *rest = TEXT_PAIR
    gated = all_terms.InfoNCE(temperature=nce.temperature, symmetric=True, min_score=0.75)
    return {
        "text_pair as it is": TEXT_PAIR,
        "InfoNCE gated by score": (gated, *rest),
        **{f"+ {name}": (*TEXT_PAIR, term) for name, term in TERMS.items()},
    }


def train(terms: tuple[Term, ...], rows: Dataset, seed: int, bf16: bool, num_positives: int = 1) -> tuple[Any, Any]:
    """A model before and after 200 steps with the stock trainer, and the trainer's log."""
    set_seed(seed)
    model = build(Arm(head=None, pooling="mean"))
    model.max_seq_length = LENGTH
    loss = DLELoss(model, [Task("text_pair", "", terms)], num_positives=num_positives)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TRAINING | {"seed": seed, "bf16": bf16, "use_cpu": not torch.cuda.is_available()}
        trainer = train_vipolyqwen(model, rows, folder, loss=loss, **arguments)
    return model, trainer.state.log_history


def embed(model: SentenceTransformer, rows: Dataset, columns: list[str]) -> list[Tensor]:
    """Vectors of each column, float64."""
    return [model.encode(rows[column][:], batch_size=64, convert_to_tensor=True).double() for column in columns]


def own_loss(term: Term, vectors: list[Tensor], rows: Dataset, num_positives: int, size: int = 32) -> float:
    """Mean of the term over batches of held-out rows."""
    labels = torch.tensor([[0.0, s, *t] for s, t in zip(rows["score"], rows["teacher_scores"], strict=True)])
    loss = DLELoss(None, [Task("held out", "", (term,))], num_positives=num_positives)
    parts = zip(*(column.split(size) for column in vectors), labels.double().split(size), strict=True)
    total = 0.0
    for *batch, label in parts:
        total += len(label) * sum(loss.compute_loss_from_embeddings(batch, label).values()).item()
    return total / len(rows)


def own_metric(kind: str, vectors: list[Tensor], rows: Dataset) -> float:
    """In percent; of anchors, positives and hard negatives."""
    anchors, positives = (torch.nn.functional.normalize(column, dim=1) for column in vectors[:2])
    scores = np.array(rows["score"])
    if kind == "MRR":
        similarity = anchors @ positives.T
        ranks = (similarity >= similarity.diagonal()[:, None]).sum(dim=1)
        return 100 * (1 / ranks.double()).mean().item()
    if kind == "Spearman":
        return 100 * spearmanr(pairwise_cos_sim(anchors, positives).numpy(), scores).statistic
    if kind in ("candidates in order", "hard negatives in order", "NDCG"):
        first = 1 if kind == "hard negatives in order" else 0
        teacher = torch.tensor(rows["teacher_scores"][:]).double()[:, first:]
        cosines = torch.stack([pairwise_cos_sim(anchors, column) for column in vectors[1 + first :]], dim=1)
        if kind == "NDCG":
            return 100 * ndcg_score((teacher.exp2() - 1).numpy(), cosines.numpy())
        better = teacher[:, :, None] > teacher[:, None]
        return 100 * (cosines[:, :, None] > cosines[:, None])[better].double().mean().item()
    pairs = torch.nn.functional.normalize(anchors * positives, dim=1)  # kind "label distance"
    distance, difference = torch.cdist(pairs, pairs), np.abs(scores[:, None] - scores)
    upper = np.triu_indices(len(scores), 1)
    return 100 * spearmanr(distance.numpy()[upper], difference[upper]).statistic


def alone(name: str, bf16: bool, seed: int = 0) -> dict[str, Any]:
    """One term and nothing else: its loss and its own metric on held-out rows, before and after."""
    term, rows = TERMS[name], ranked_rows if name in RANKED else rows_of_terms
    train_rows, test_rows = rows("train"), rows("test")
    columns, num_positives = ["anchor", "positive", "negative_1", "negative_2"], 1
    if name in VIEWS:
        train_rows, test_rows = with_another_view(train_rows), with_another_view(test_rows)
        columns.insert(2, "positive_2")
        num_positives = 2
    started = time.time()
    figures: dict[str, Any] = {"kind": "alone", "name": name, "bf16": bf16, "seed": seed}
    untrained = build(Arm(head=None, pooling="mean"))
    untrained.max_seq_length = LENGTH
    model, log = train((term,), train_rows, seed, bf16, num_positives)
    for when, which in (("before", untrained), ("after", model)):
        vectors = embed(which, test_rows, columns)
        figures[f"loss {when}"] = own_loss(term, vectors, test_rows, num_positives)
        figures[f"metric {when}"] = own_metric(OWN[name], vectors, test_rows)
    return figures | {"finite": all_finite(log), "seconds": round(time.time() - started)}


def beside(name: str, seed: int, bf16: bool = True) -> dict[str, Any]:
    """A task of text pairs with this term, as the table shows it."""
    started = time.time()
    model, log = train(variants()[name], rows_of_terms("train"), seed, bf16)
    test = rows_of_terms("test")
    anchors, positives = embed(model, test, ["anchor", "positive"])
    cosine = pairwise_cos_sim(anchors, positives).numpy().reshape(-1, 3)  # entailment, neutral, contradiction
    figures = {
        "triplet_accuracy": 100 * float((cosine[:, 0] > cosine[:, 2]).mean()),
        "Spearman": own_metric("Spearman", [anchors, positives], test),
        "xquad_mrr": xquad_mrr(model),
    }
    run = {"kind": "beside", "name": name, "seed": seed, "bf16": bf16, **figures}
    return run | {"finite": all_finite(log), "seconds": round(time.time() - started)}


def xquad_mrr(model: SentenceTransformer, k: int = 10) -> float:
    """MRR@10 in percent of 1,190 questions among 240 paragraphs, of which the model sees 128 tokens."""
    rows, length = read_rows(DATA / "retrieval/xquad_vi.jsonl"), model.max_seq_length
    model.max_seq_length = 128
    paragraphs = list(dict.fromkeys(rows["context"]))
    questions, corpus = (model.encode(texts, batch_size=64) for texts in (rows["question"][:], paragraphs))
    model.max_seq_length = length
    similarity = questions @ corpus.T
    own = similarity[np.arange(len(questions)), [paragraphs.index(text) for text in rows["context"]]]
    ranks = (similarity >= own[:, None]).sum(axis=1)
    return 100 * float(np.where(ranks <= k, 1 / ranks, 0).mean())


def all_finite(log: list[dict[str, Any]]) -> bool:
    """Whether no logged number of a training was NaN or infinite."""
    return all(math.isfinite(value) for entry in log for value in entry.values() if isinstance(value, float))


def alone_table(results: list[dict[str, Any]]) -> str:
    """One row a term: its own loss and metric on held-out rows, untrained and after 200 steps in either precision."""
    rows = []
    for name in TERMS:
        runs = {r["bf16"]: r for r in results if r["kind"] == "alone" and r["name"] == name}
        if not runs:
            continue
        any_run = next(iter(runs.values()))
        cells = [name, OWN[name], f"{any_run['loss before']:.3f}", f"{any_run['metric before']:.1f}"]
        for bf16 in (False, True):
            run = runs.get(bf16)
            cells += [f"{run['loss after']:.3f}", f"{run['metric after']:.1f}"] if run else ["", ""]
        rows.append(cells)
    header = ["term", "own metric", "loss untrained", "metric", "loss fp32", "metric", "loss bf16", "metric"]
    return markdown(header, rows)


def beside_table(results: list[dict[str, Any]]) -> str:
    """Mean ± standard deviation over seeds, and the difference to the paper's terms seed by seed."""
    runs = {name: {r["seed"]: r for r in results if r["kind"] == "beside" and r["name"] == name} for name in variants()}
    baseline, *_ = runs.values()
    rows = []
    for name, of_name in runs.items():
        if not of_name:
            continue
        cells = [name, str(len(of_name))]
        for figure in FIGURES:
            cells.append(over_seeds([run[figure] for run in of_name.values()]))
            common = [seed for seed in of_name if seed in baseline and of_name is not baseline]
            differences = [of_name[seed][figure] - baseline[seed][figure] for seed in common]
            cells.append(over_seeds(differences) if differences else "")
        rows.append(cells)
    return markdown(["terms", "seeds", *(cell for f in FIGURES.values() for cell in (f, "difference"))], rows)


def main() -> None:
    """Run what has no figures yet, then print the tables and put them into the docs."""
    parser = options_of(__doc__, "terms")
    parser.add_argument("--kinds", nargs="+", default=["beside", "alone"], choices=["beside", "alone"])
    options = parser.parse_args()
    results = Results(options.results)
    done = {(r["kind"], r["name"], r["seed"], r["bf16"]) for r in results}
    todo = []
    if "beside" in options.kinds:
        todo += [("beside", name, seed, True) for seed in options.seeds for name in variants()]
    if "alone" in options.kinds:
        todo += [("alone", name, 0, bf16) for bf16 in (True, False) for name in TERMS]
    for kind, name, seed, bf16 in () if options.table_only else todo:
        if (kind, name, seed, bf16) not in done:
            results.keep(alone(name, bf16, seed) if kind == "alone" else beside(name, seed, bf16))
            print(results[-1], flush=True)
    for kind, text in (("terms-alone", alone_table(results)), ("terms-beside", beside_table(results))):
        print(text)
        if not options.no_docs:
            update_docs(kind, text)


if __name__ == "__main__":
    main()
