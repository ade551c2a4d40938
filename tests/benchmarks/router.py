"""What a `TaskRouter` chooses on rows that it was not trained on, and what that does to retrieval.

    ST_VI_DATA=../shared/data python -m tests.benchmarks.router

Two routers for `poly-mini`: one trained on generated rows alone, one on generated and real rows. Rows are held out as
in `tests.benchmarks.vipolyqwen`. The rank of a row does not depend on the prefixes of others, so ranks with a threshold
follow from those without a prefix and with the most probable one.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from datasets import DatasetDict
from scipy.stats import binomtest, bootstrap, spearmanr
from sentence_transformers import SentenceTransformer

from st_vi.data.generated.rows import first_rows, generated_rows
from st_vi.data.task_rows import ModelInputs
from st_vi.hub import load
from st_vi.modules.task_router import TaskChoice, TaskRouter
from st_vi.recipes import train_router, vipolyqwen_evaluator
from st_vi.recipes.ablation.tables import markdown
from tests.benchmarks.real_rows import real_rows
from tests.benchmarks.tables import update_docs

THRESHOLDS = (0.0, 0.5, 0.7, 0.9, 0.99)


@dataclass
class Kind:
    """Test rows of one kind: the true task, what was chosen, and the ranks without, with the best and with the true
    prefix."""

    task: str
    generated: list[TaskChoice]
    chosen: list[TaskChoice]
    none: np.ndarray
    best: np.ndarray
    true: np.ndarray

    def auto(self, threshold: float) -> np.ndarray:
        """Ranks with a prefix where it is probable enough."""
        sure = np.array([max(choice.probabilities.values()) for choice in self.chosen]) >= threshold
        return np.where(sure, self.best, self.none)


def rows(split: str, count: int, seed: int) -> tuple[DatasetDict, DatasetDict]:
    """Generated and real rows, at most `count` of each kind."""
    real = {name: first_rows(part, count, seed) for name, part in real_rows(split, seed).items()}
    return generated_rows(split, count, seed), DatasetDict(real)


def most_probable(choices: list[TaskChoice]) -> list[str]:
    return [max(choice.probabilities, key=choice.probabilities.__getitem__) for choice in choices]


def measure(
    model: SentenceTransformer, routers: tuple[TaskRouter, TaskRouter], test: DatasetDict
) -> tuple[dict[str, Kind], dict[str, np.ndarray]]:
    """Each kind; and the cosines of the text pairs without, with the chosen and with the true prefix, then scores."""
    routers[1].threshold = 0.0
    evaluator, ranks, cosines = vipolyqwen_evaluator(test), {}, {}
    true = dict(evaluator.prompt_names)
    for name, prompts in {"none": {}, "best": dict.fromkeys(true, "auto"), "true": true}.items():
        evaluator.prompt_names = prompts
        evaluator(model)
        ranks[name] = {kind: values.numpy() for kind, values in evaluator.ranks.items()}
        cosines[name] = evaluator.cosines["text_pairs"].numpy()
    cosines["scores"] = np.array(test["text_pairs"]["score"])
    kinds = {}
    for kind, part in test.items():
        anchors = list(ModelInputs(DatasetDict(rows=part), "anchor"))
        chosen = [router.choose(model, anchors) for router in routers]
        kinds[kind] = Kind(true[kind], *chosen, *(ranks[name][kind] for name in ("none", "best", "true")))
    return kinds, cosines


def share(hits: np.ndarray) -> str:
    """In percent, with the 95 % interval of Wilson."""
    ends = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return f"{100 * hits.mean():.1f} [{100 * ends.low:.0f}, {100 * ends.high:.0f}]"


def kinds_table(kinds: dict[str, Kind]) -> str:
    lines = []
    for name, kind in kinds.items():
        generated, both = (np.array(most_probable(c)) == kind.task for c in (kind.generated, kind.chosen))
        recall = [share(found <= 1) for found in (kind.none, kind.auto(0.5), kind.true)]
        lines.append([name.replace("_", " "), kind.task, share(generated), share(both), *recall])
    header = ["kind", "task", "right, generated rows", "right, with real rows", "no prefix", "auto", "true prefix"]
    return markdown(header, lines)


def mean_difference(first: list[np.ndarray], second: list[np.ndarray]) -> str:
    """Of mean recall@1 over kinds, with a 95 % bootstrap interval over rows within each kind."""
    rng = np.random.default_rng(0)
    gaps = [100.0 * ((one <= 1).astype(float) - (two <= 1)) for one, two in zip(first, second, strict=True)]
    drawn = np.mean([rng.choice(gap, (2000, len(gap))).mean(axis=1) for gap in gaps], axis=0)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return f"{np.mean([gap.mean() for gap in gaps]):+.1f} [{low:+.1f}, {high:+.1f}]"


def thresholds_table(kinds: dict[str, Kind]) -> str:
    lines, values = [], list(kinds.values())
    right = np.concatenate([np.array(most_probable(kind.chosen)) == kind.task for kind in values])
    sure = np.concatenate([[max(c.probabilities.values()) for c in kind.chosen] for kind in values])
    for threshold in THRESHOLDS:
        auto = [kind.auto(threshold) for kind in values]
        recall = 100 * np.mean([(ranks <= 1).mean() for ranks in auto])
        has = sure >= threshold
        against = [mean_difference(auto, [getattr(kind, name) for kind in values]) for name in ("none", "true")]
        prefixed = f"{100 * has.mean():.1f}"
        lines.append([f"{threshold:g}", prefixed, share(right[has]), f"{recall:.1f}", *against])
    header = ["threshold", "has a prefix", "the right one", "mean recall@1", "less no prefix", "less the true prefix"]
    return markdown(header, lines)


def spearman_line(cosines: dict[str, np.ndarray]) -> str:
    shown = []
    for name, label in (("none", "no prefix"), ("best", "auto"), ("true", "the true prefix")):
        columns = (cosines[name], cosines["scores"])
        found = 100 * spearmanr(*columns).statistic
        ends = bootstrap(
            columns,
            lambda x, y: 100 * spearmanr(x, y).statistic,
            paired=True,
            vectorized=False,
            n_resamples=1000,
            method="percentile",
            rng=0,
        ).confidence_interval
        shown.append(f"{found:.1f} [{ends.low:.0f}, {ends.high:.0f}] with {label}")
    return f"Spearman correlation of cosine and score on the text pairs, threshold 0: {', '.join(shown)}."


def main() -> None:
    """Print the tables, and put them into the page of benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=300, help="rows of each kind to train the routers on")
    parser.add_argument("--test", type=int, default=200, help="rows of each kind to measure on")
    parser.add_argument("--no-docs", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start, model = time.time(), load("poly-mini", device="cpu")
    generated, real = rows("train", options.train, seed=1)
    routers = (train_router(model, generated), train_router(model, DatasetDict(generated | real)))
    test = DatasetDict({name: part for of_rows in rows("test", options.test, seed=2) for name, part in of_rows.items()})
    kinds, cosines = measure(model, routers, test)
    text = "\n\n".join([kinds_table(kinds), thresholds_table(kinds), spearman_line(cosines)])
    print(text)
    for name, kind in kinds.items():
        print(name, kind.task, Counter(most_probable(kind.generated)), Counter(most_probable(kind.chosen)))
    print(
        f"{len(routers[1].tasks)} tasks, {sum(map(len, (generated | real).values()))} rows, {time.time() - start:.0f} s"
    )
    if not options.no_docs:
        update_docs("router", text)


if __name__ == "__main__":
    main()
