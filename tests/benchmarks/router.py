"""What a `TaskRouter` chooses on rows that it was not trained on, and what that does to retrieval.

    python -m tests.benchmarks.router

Two routers for `poly-mini`: one trained on generated rows alone, one on generated and real rows. Rows are held out as
in `tests.benchmarks.vipolyqwen`. The rank of a row does not depend on the prefixes of others, so ranks with a threshold
follow from those without a prefix and with the most probable one. Every input is encoded once with each prefix that it
needs; that ``prompt_name="auto"`` gives the same vectors is tested in `tests/recipes/test_router.py`.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import DatasetDict
from scipy.stats import binomtest, bootstrap, spearmanr
from sentence_transformers import SentenceTransformer

from st_vi.data.generated.rows import first_rows, generated_rows
from st_vi.data.task_rows import ModelInputs
from st_vi.hub import load
from st_vi.inputs.content import content_key
from st_vi.modules.task_router import TaskRouter
from st_vi.recipes import train_router, vipolyqwen_evaluator
from st_vi.recipes.ablation.tables import markdown
from tests.benchmarks.real_rows import real_rows
from tests.benchmarks.tables import update_docs

THRESHOLDS = (0.0, 0.5, 0.7, 0.9, 0.99)


class Chosen(NamedTuple):
    """Probabilities of the tasks, (rows, tasks)."""

    tasks: list[str]
    probabilities: np.ndarray

    def best(self) -> np.ndarray:
        """The most probable task of each row."""
        return np.array(self.tasks)[self.probabilities.argmax(axis=1)]

    def sure(self) -> np.ndarray:
        """Its probability."""
        return self.probabilities.max(axis=1)


@dataclass
class Kind:
    """Test rows of one kind: the true task, what was chosen, and the ranks without, with the best and with the true
    prefix."""

    task: str
    generated: Chosen
    chosen: Chosen
    none: np.ndarray
    best: np.ndarray
    true: np.ndarray

    def auto(self, threshold: float) -> np.ndarray:
        """Ranks with a prefix where it is probable enough."""
        return np.where(self.chosen.sure() >= threshold, self.best, self.none)


def rows(split: str, count: int, seed: int) -> tuple[DatasetDict, DatasetDict]:
    """Generated and real rows, at most `count` of each kind."""
    real = {name: first_rows(part, count, seed) for name, part in real_rows(split, seed).items()}
    return generated_rows(split, count, seed), DatasetDict(real)


class Remembering:
    """Encodes as the model does, with the most probable prefix for "auto", and nothing twice."""

    def __init__(self, model: SentenceTransformer, router: TaskRouter) -> None:
        self.model, self.router, self.supports = model, router, model.supports
        self.model_card_data = model.model_card_data
        self.kept: dict[Any, np.ndarray] = {}

    def encode(self, inputs: Sequence[Any], prompt_name: str | None = None, **_: Any) -> np.ndarray:
        keys = [content_key(item) for item in inputs]
        if prompt_name == "auto":
            best = Chosen(self.router.tasks, self.probabilities(inputs, self.router)).best()
            prompts = [self.model.prompts[task] for task in best]
        else:
            prompts = [self.model.prompts[prompt_name] if prompt_name else ""] * len(keys)
        for prompt in dict.fromkeys(prompts):
            new = {
                key: item
                for key, item, own in zip(keys, inputs, prompts, strict=True)
                if own == prompt and (key, prompt) not in self.kept
            }
            if new:
                vectors = self.model.encode(list(new.values()), prompt=prompt, batch_size=32, show_progress_bar=False)
                self.kept.update({(key, prompt): vector for key, vector in zip(new, vectors, strict=True)})
        return np.stack([self.kept[place] for place in zip(keys, prompts, strict=True)])

    def probabilities(self, inputs: Sequence[Any], router: TaskRouter) -> np.ndarray:
        return router.probabilities(torch.from_numpy(self.encode(inputs))).numpy()


def measure(
    model: SentenceTransformer, routers: tuple[TaskRouter, TaskRouter], test: DatasetDict
) -> tuple[dict[str, Kind], dict[str, np.ndarray]]:
    """Each kind; and the cosines of the text pairs without, with the chosen and with the true prefix, then scores."""
    evaluator, ranks, cosines = vipolyqwen_evaluator(test), {}, {}
    encoder, true = Remembering(model, routers[1]), dict(evaluator.prompt_names)
    for name, prompts in {"none": {}, "best": dict.fromkeys(true, "auto"), "true": true}.items():
        evaluator.prompt_names = prompts
        evaluator(encoder)
        ranks[name] = {kind: values.numpy() for kind, values in evaluator.ranks.items()}
        cosines[name] = evaluator.cosines["text_pairs"].numpy()
    cosines["scores"] = np.array(test["text_pairs"]["score"])
    kinds = {}
    for kind, part in test.items():
        anchors = list(ModelInputs(DatasetDict(rows=part), "anchor"))
        chosen = [Chosen(router.tasks, encoder.probabilities(anchors, router)) for router in routers]
        kinds[kind] = Kind(true[kind], *chosen, *(ranks[name][kind] for name in ("none", "best", "true")))
    return kinds, cosines


def share(hits: np.ndarray) -> str:
    """In percent, with the 95 % interval of Wilson."""
    ends = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return f"{100 * hits.mean():.1f} [{100 * ends.low:.0f}, {100 * ends.high:.0f}]"


def kinds_table(kinds: dict[str, Kind]) -> str:
    lines = []
    for name, kind in kinds.items():
        generated, both = (chosen.best() == kind.task for chosen in (kind.generated, kind.chosen))
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
    right = np.concatenate([kind.chosen.best() == kind.task for kind in values])
    sure = np.concatenate([kind.chosen.sure() for kind in values])
    for threshold in THRESHOLDS:
        auto = [kind.auto(threshold) for kind in values]
        recall = 100 * np.mean([(ranks <= 1).mean() for ranks in auto])
        has = sure >= threshold
        against = [mean_difference(auto, [getattr(kind, name) for kind in values]) for name in ("none", "true")]
        prefixed = f"{100 * has.mean():.1f}"
        lines.append([f"auto, {threshold:g}", prefixed, share(right[has]), f"{recall:.1f}", *against])
    none, true = ([getattr(kind, name) for kind in values] for name in ("none", "true"))
    for name, ranks, share_with in (("no prefix", none, "0.0"), ("the true prefix", true, "100.0")):
        recall = 100 * np.mean([(of_kind <= 1).mean() for of_kind in ranks])
        against = ["", mean_difference(none, true)] if ranks is none else [mean_difference(true, none), ""]
        lines.append([name, share_with, "", f"{recall:.1f}", *against])
    header = [
        "threshold",
        "with a prefix",
        "of these the right one",
        "mean recall@1",
        "− no prefix",
        "− the true prefix",
    ]
    return markdown(header, lines)


def strangers_line(kinds: dict[str, Kind], real: Sequence[str]) -> str:
    """How sure the router of generated rows is of kinds that it does not know."""
    right = np.concatenate([kinds[name].generated.best() == kinds[name].task for name in real])
    sure = np.concatenate([kinds[name].generated.sure() for name in real])
    shown = []
    for threshold in (0.5, 0.9):
        has = sure >= threshold
        shown.append(f"{100 * has.mean():.1f} % of them get a prefix, the right one in {share(right[has])} %")
    return f"The router of generated rows on the real ones: with threshold 0.5, {shown[0]}; with 0.9, {shown[1]}."


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
    drawn, strangers = rows("test", options.test, seed=2)
    kinds, cosines = measure(model, routers, DatasetDict(drawn | strangers))
    lines = [
        kinds_table(kinds),
        thresholds_table(kinds),
        strangers_line(kinds, list(strangers)),
        spearman_line(cosines),
    ]
    text = "\n\n".join(lines)
    print(text)
    for name, kind in kinds.items():
        print(name, kind.task, *(Counter(chosen.best().tolist()) for chosen in (kind.generated, kind.chosen)))
    print(
        f"{len(routers[1].tasks)} tasks, {sum(map(len, (generated | real).values()))} rows, {time.time() - start:.0f} s"
    )
    if not options.no_docs:
        update_docs("router", text)


if __name__ == "__main__":
    main()
