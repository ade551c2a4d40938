"""Which `balance` of `DLELoss`, or which merging, gives the better model, from poly-mini and from vi-mini.

    python -m tests.benchmarks.strategies                # train and measure everything, then update docs/benchmarks.md
    python -m tests.benchmarks.strategies --model vi-mini --results outputs/strategies-vi-mini.jsonl
    python -m tests.benchmarks.strategies --table-only   # update the tables from the figures measured so far

All arms of a model start from it and see as many rows: jointly, every batch in equal parts of sentence pairs, of
questions with passages and, for `poly-mini`, of images; or, to be merged, one model of each family, each trained for
its part of the steps. `vi-mini` knows no prefixes and gets none. Every finished arm is one line of a JSON Lines file,
with the value of each test row, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import gzip
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, Features, Value, concatenate_datasets
from datasets import Image as ImageColumn
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from transformers import set_seed

from st_vi import VIPOLYQWEN_TASKS
from st_vi.data import read_rows, sample_retrieval, sample_sts, split_by_anchor
from st_vi.data.documents import document_questions
from st_vi.data.generated.rows import first_rows, generated_rows, nli_text_pairs
from st_vi.data.generated.scenes import scene_rows
from st_vi.hub import load
from st_vi.losses import Balance
from st_vi.losses.balance import BALANCES, DynamicWeightAverage, balance_of
from st_vi.recipes import merge_models, search_merge, train_vipolyqwen, vipolyqwen_evaluator
from st_vi.recipes.ablation.tables import markdown, over_seeds
from tests.benchmarks.results import Results, options_of
from tests.benchmarks.tables import update_docs
from tests.benchmarks.viclsr import DATA

BASE, CONSTANTS, EQUAL, SEARCHED = "before", "constants", "merged, equal parts", "merged, searched"
FAMILIES = {"poly-mini": ("similarity", "retrieval", "images"), "vi-mini": ("similarity", "retrieval")}
ARMS = (BASE, CONSTANTS, *BALANCES, *(f"{name} alone" for name in FAMILIES["poly-mini"]), EQUAL, SEARCHED)
TEXT_FIGURES = {
    "sts": "STS, Spearman",
    "nli": "NLI triplets",
    "retrieval": "question → passage",
    "xquad": "XQuAD MRR",
}
FIGURES = {
    "poly-mini": TEXT_FIGURES | {"captions": "scene → caption", "options": "own options"},
    "vi-mini": TEXT_FIGURES,
}
BATCH, WORDS = 24, 100  # rows, and the words that are kept of a passage
RATE, STEPS = 1e-4, 90
TRAINING = {
    "per_device_train_batch_size": BATCH,
    "gradient_accumulation_steps": 1,
    "learning_rate": RATE,
    "learning_rate_mapping": {r"visual\.": 0.1 * RATE},
    "save_strategy": "no",
    "logging_steps": 20,
    "use_cpu": True,
    "bf16": True,
    "report_to": "none",
    "disable_tqdm": True,
}
FEATURES = Features(
    {
        "anchor": Value("string"),
        "anchor_image": ImageColumn(),
        "positive": Value("string"),
        "positive_image": ImageColumn(),
        "score": Value("float64"),
        "task": Value("string"),
    }
)


def nli(split: str) -> Dataset:
    """XNLI, a fifth of the premises for testing; of the others, a tenth to choose on."""
    sides = split_by_anchor(read_rows(DATA / "nli/xnli_vi.jsonl"), test_size=0.2, anchor="premise", seed=0)
    if split == "test":
        return sides["test"]
    return split_by_anchor(sides["train"], test_size=0.1, anchor="premise", seed=1)[
        "train" if split == "train" else "test"
    ]


def questions(split: str) -> Dataset:
    """Questions with their passage as rows of the task instr: of the sample set and, to train on, of Wikipedia."""
    if split == "test":
        found = sample_retrieval("test")
    else:
        sides = split_by_anchor(sample_retrieval("train"), test_size=0.15, anchor="passage", seed=1)
        found = sides["train" if split == "train" else "test"]
    return _instr(found["question"][:], found["passage"][:])


@cache
def wikipedia(count: int) -> Dataset:
    """Questions made of sentences, with their paragraph."""
    with gzip.open(DATA / "open/wiki.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    rows = document_questions(first_rows(Dataset.from_list(lines), 5 * count, seed=0), count, seed=0)
    return _instr(rows["anchor"][:], rows["positive"][:])


def _instr(questions: Sequence[str], passages: Sequence[str]) -> Dataset:
    return Dataset.from_dict(
        {
            "anchor": list(questions),
            "positive": [" ".join(passage.split()[:WORDS]) for passage in passages],
            "task": ["instr"] * len(questions),
        }
    )


def model_of(name: str) -> SentenceTransformer:
    """The included model, with a prompt for each task, empty if it knows none."""
    model = load(name, device="cpu")
    model.prompts = {task.name: "" for task in VIPOLYQWEN_TASKS} | model.prompts
    return model


def train_rows(seed: int, count: int, families: Sequence[str] = FAMILIES["poly-mini"]) -> dict[str, Dataset]:
    """`count` rows of each family, with the columns of all."""
    asked = questions("train")
    makers: dict[str, Callable[[], list[Dataset]]] = {
        "similarity": lambda: [nli_text_pairs(nli("train"))],
        "retrieval": lambda: [asked, first_rows(wikipedia(count), count - len(asked), seed)],
        "images": lambda: list(
            generated_rows("train", count // 2, 100 + seed, ["questions", "image_to_text"]).values()
        ),
    }
    return {
        name: first_rows(concatenate_datasets([_with_all_columns(part) for part in makers[name]()]), count, seed)
        for name in families
    }


def _with_all_columns(rows: Dataset) -> Dataset:
    missing = {name: [float("nan") if name == "score" else None] * len(rows) for name in FEATURES}
    missing = {name: [""] * len(rows) if name in ("anchor", "positive") else values for name, values in missing.items()}
    for name in missing.keys() - set(rows.column_names):
        rows = rows.add_column(name, missing[name], feature=FEATURES[name])
    return rows.select_columns(list(FEATURES)).cast(FEATURES)


def pairs_of(rows: Dataset) -> DatasetDict:
    """Each premise with its entailment, and each with its contradiction, in the same order."""
    texts: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        texts[row["premise"]][row["label"]] = row["hypothesis"]
    both = {premise: of for premise, of in texts.items() if {"entailment", "contradiction"} <= of.keys()}
    return DatasetDict(
        {
            label: Dataset.from_dict(
                {
                    "anchor": list(both),
                    "positive": [of[label] for of in both.values()],
                    "task": ["text_pair"] * len(both),
                }
            )
            for label in ("entailment", "contradiction")
        }
    )


class Test:
    """The values of each test row, with the prompt of its task on the anchor."""

    def __init__(self, name: str) -> None:
        self.sees = "images" in FAMILIES[name]
        pairs = sample_sts()
        self.scores = np.array(pairs["score"])
        xquad = read_rows(DATA / "retrieval/xquad_vi.jsonl")
        asked = [row for row in range(len(xquad)) if row % 3 == 0]
        rows = pairs_of(nli("test")) | {
            "sts": Dataset.from_dict(
                {"anchor": pairs["sentence1"][:], "positive": pairs["sentence2"][:], "task": ["text_pair"] * len(pairs)}
            ),
            "retrieval": questions("test"),
            "xquad": _instr(*(xquad.select(asked)[column][:] for column in ("question", "context"))),
        }
        if self.sees:
            rows["captions"] = generated_rows("test", 200, 7, ["image_to_text"])["image_to_text"]
        self.evaluator = vipolyqwen_evaluator(DatasetDict(rows), write_csv=False)
        self.asked = list(scene_rows("test", 200, seed=8, tasks=("vqa_single",), options=True))

    @torch.autocast("cpu", torch.bfloat16)
    def __call__(self, model: SentenceTransformer) -> dict[str, list[float]]:
        self.evaluator(model)
        ranks, cosines = self.evaluator.ranks, self.evaluator.cosines
        values = {
            "sts": cosines["sts"],
            "nli": cosines["entailment"] > cosines["contradiction"],
            "retrieval": ranks["retrieval"] <= 1,
            "xquad": 1 / ranks["xquad"],
        }
        if self.sees:
            values |= {"captions": ranks["captions"] <= 1, "options": self.options(model)}
        return {name: [round(float(value), 5) for value in of_rows] for name, of_rows in values.items()}

    def options(self, model: SentenceTransformer) -> list[bool]:
        """Whether the right answer is before all others that the question could have."""
        inputs = [{"image": row["anchor_image"], "text": row["anchor"]} for row in self.asked]
        queries = model.encode(inputs, prompt_name="vqa_single")
        known = list(dict.fromkeys(option for row in self.asked for option in row["options"]))
        vectors = dict(zip(known, model.encode(known), strict=True))
        return [
            max(row["options"], key=lambda option: float(query @ vectors[option])) == row["positive"]
            for query, row in zip(queries, self.asked, strict=True)
        ]


class Choice:
    """What merges are chosen by: the mean of one figure a family, on rows of the training side that no model saw."""

    def __init__(self, name: str) -> None:
        rows = pairs_of(nli("choose")) | {"retrieval": questions("choose")}
        if "images" in FAMILIES[name]:
            rows["captions"] = generated_rows("train", 100, 99, ["image_to_text"])["image_to_text"]
        self.evaluator = vipolyqwen_evaluator(DatasetDict(rows), write_csv=False)

    @torch.autocast("cpu", torch.bfloat16)
    def __call__(self, model: SentenceTransformer) -> float:
        self.evaluator(model)
        ranks, cosines = self.evaluator.ranks, self.evaluator.cosines
        triplets = cosines["entailment"] > cosines["contradiction"]
        parts = (triplets, *(ranks[kind] <= 1 for kind in ("retrieval", "captions") if kind in ranks))
        return float(np.mean([part.float().mean() for part in parts]))


def trained(
    name: str, rows: Dataset, seed: int, steps: int, balance: Balance | None = None
) -> tuple[SentenceTransformer, float]:
    """The model after further training, and its seconds."""
    set_seed(seed)
    model = model_of(name)
    settings: Any = TRAINING | {"max_steps": steps, "seed": seed}
    if name == "poly-mini":
        model[0].model.set_attn_implementation("eager")  # in bf16 on a CPU, faster than SDPA's backward
    else:
        settings |= {"learning_rate_mapping": {}, "prefix_side": "none"}
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        train_vipolyqwen(model, rows, folder, balance=balance, **settings)
    return model.eval(), time.time() - start


def strategy(arm: str) -> Balance | None:
    """With its defaults, but windows of 9 steps instead of 100 for a training as short as this."""
    if arm == "dynamic_weight_average":
        return DynamicWeightAverage(every=9)
    return None if arm == CONSTANTS else balance_of(arm)  # type: ignore[arg-type]


def joint(name: str, arm: str, seed: int, steps: int, test: Test) -> list[dict[str, Any]]:
    """One model for everything."""
    families = FAMILIES[name]
    rows = concatenate_datasets(list(train_rows(seed, steps * BATCH // len(families), families).values()))
    model, seconds = trained(name, rows, seed, steps, strategy(arm))
    return [{"arm": arm, "seed": seed, "seconds": round(seconds), "values": test(model)}]


def merged(name: str, seed: int, steps: int, test: Test) -> list[dict[str, Any]]:
    """One model a family, and merges of them."""
    count = len(FAMILIES[name])
    models, found = [], []
    for family, rows in train_rows(seed, steps * BATCH // count, FAMILIES[name]).items():
        model, seconds = trained(name, rows, seed, steps // count)
        models.append(model)
        found.append({"arm": f"{family} alone", "seed": seed, "seconds": round(seconds), "values": test(model)})
    start = time.time()
    found.append({"arm": EQUAL, "seed": seed, "values": test(merge_models(models))})
    best = search_merge(
        models,
        Choice(name),  # type: ignore[arg-type]
        base=model_of(name),
        candidates=[(1 / count,) * count, *product((0.5, 1.0), repeat=count)],  # shares of the task vectors
        show_progress_bar=False,
    )
    found.append({"arm": SEARCHED, "seed": seed, "weights": best.weights, "score": best.score})
    found[-1] |= {"values": test(best.model), "seconds": round(time.time() - start)}
    return found


def figure(name: str, values: np.ndarray, scores: np.ndarray) -> float:
    """Of one run, in percent."""
    return 100 * float(spearmanr(values, scores).statistic if name == "sts" else values.mean())


def difference(name: str, runs: np.ndarray, others: np.ndarray, scores: np.ndarray) -> str:
    """Of the means over seeds, (seeds, rows) each, with a 95 % bootstrap interval over rows."""
    rng, drawn = np.random.default_rng(0), []
    whole = np.arange(runs.shape[1])
    for places in (whole, *(rng.choice(whole, len(whole)) for _ in range(1000))):
        gaps = [
            figure(name, run[places], scores[places] if name == "sts" else scores)
            - figure(name, other[places], scores[places] if name == "sts" else scores)
            for run, other in zip(runs, others, strict=True)
        ]
        drawn.append(np.mean(gaps))
    low, high = np.percentile(drawn[1:], (2.5, 97.5))
    return f"{drawn[0]:+.1f} [{low:+.1f}, {high:+.1f}]"


def tables(name: str, results: Sequence[dict[str, Any]]) -> str:
    """Means over seeds, and differences to the constants."""
    scores, figures = np.array(sample_sts()["score"]), FIGURES[name]
    by_arm: dict[str, dict[int, dict[str, list[float]]]] = defaultdict(dict)
    for result in results:
        by_arm[result["arm"]][result["seed"]] = result["values"]
    means, gaps = [], []
    for arm in ARMS:
        runs = by_arm.get(arm, {})
        if not runs:
            continue
        of_figure = {key: [figure(key, np.array(values[key]), scores) for values in runs.values()] for key in figures}
        mean = over_seeds(np.mean(list(of_figure.values()), axis=0))
        means.append([arm, str(len(runs)), *(over_seeds(values) for values in of_figure.values()), mean])
        seeds = sorted(set(by_arm[CONSTANTS]) & set(runs)) if arm != BASE else sorted(by_arm[CONSTANTS])
        if arm != CONSTANTS and seeds:
            cells = []
            for key in figures:
                ours, others = (
                    np.array([by_arm[one][0 if one == BASE else seed][key] for seed in seeds])
                    for one in (arm, CONSTANTS)
                )
                cells.append(difference(key, ours, others, scores))
            gaps.append([arm, *cells])
    return "\n\n".join(
        [
            markdown([name, "seeds", *figures.values(), f"mean of the {len(figures)}"], means),
            markdown([f"less {CONSTANTS} [95 %]", *figures.values()], gaps),
        ]
    )


def measure(name: str, seeds: Sequence[int], arms: Sequence[str], steps: int, results: Results) -> None:
    """Train and measure what of a model has no figures yet."""
    test = Test(name)
    done = {(result["arm"], result["seed"]) for result in results}
    for seed, arm in product(seeds, (BASE, CONSTANTS, *BALANCES, SEARCHED)):
        if (arm, seed) in done or arm not in arms or (arm == BASE and seed):
            continue
        if arm == BASE:
            found = [{"arm": BASE, "seed": seed, "values": test(model_of(name))}]
        else:
            found = merged(name, seed, steps, test) if arm == SEARCHED else joint(name, arm, seed, steps, test)
        results.keep(*found)
        for one in found:
            shown = {key: round(figure(key, np.array(v), test.scores), 1) for key, v in one["values"].items()}
            print(one["arm"], seed, one.get("seconds"), one.get("weights", ""), shown, flush=True)


def main() -> None:
    """Run what has no figures yet, then print the tables and put them into the docs."""
    parser = options_of(__doc__, "strategies")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--model", default="poly-mini", choices=FAMILIES)
    parser.add_argument("--arms", nargs="+", default=[*ARMS], choices=ARMS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(options.results, model=options.model, steps=options.steps)
    if not options.table_only:
        measure(options.model, options.seeds, options.arms, options.steps, results)
    text = tables(options.model, results)
    print(text)
    if not options.no_docs:
        update_docs(f"strategies-{options.model}", text)


if __name__ == "__main__":
    main()
