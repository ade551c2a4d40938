"""ViCLSR from a base that is good already: which recipe gains on inference and loses nothing elsewhere.

    python -m tests.benchmarks.good_base                # train and measure everything, then update docs/benchmarks.md
    python -m tests.benchmarks.good_base --table-only   # update the table from the figures measured so far

The base is the encoder in ``ST_VI_TEACHER``. All recipes train for as many steps of as many rows. Every finished arm is
one line of a JSON Lines file, with the value of each test row, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from transformers import set_seed

from st_vi.data import nli_to_triplets, read_rows, sample_retrieval, sample_sts, split_by_anchor
from st_vi.data.nli import canonical_labels
from st_vi.losses import DLELoss, SupConNLILoss
from st_vi.recipes import merge_models, search_merge, train_viclsr, train_vipolyqwen
from st_vi.recipes.ablation.tables import markdown, over_seeds
from st_vi.tasks import Task
from st_vi.terms import InfoNCE, TeacherCosine, TeacherSimilarities
from tests.benchmarks.results import Results, options_of
from tests.benchmarks.tables import update_docs
from tests.benchmarks.viclsr import DATA, E5, TRAINING_LENGTH, VISNLI_LABELS, Arm, build

BASE, PLAIN, WEAK, HARD, TAUGHT = (
    "base",
    "ViCLSR",
    "neutral as weak positive",
    "hard-negative weight 2",
    "weight 2, and distilled from the base",
)
SEARCHED = "chosen share"
TRAINED = (PLAIN, WEAK, HARD, TAUGHT)
MERGED = {name: f"½ {name} + ½ base" for name in (HARD, TAUGHT)}
ARMS = (BASE, PLAIN, WEAK, HARD, MERGED[HARD], SEARCHED, TAUGHT, MERGED[TAUGHT])
SHARES = [(0.5,), (0.75,), (1.0,)]
FIGURES = {
    "triplets": "triplet accuracy",
    "nli": "NLI Spearman",
    "sts": "STS Spearman",
    "xquad": "XQuAD recall@1",
}
PREFIX = "query: "
TASK = Task(
    "nli",
    PREFIX.strip(),
    (
        InfoNCE(temperature=0.05, hard_negative_weight=2.0),
        TeacherCosine(weight=10.0),
        TeacherSimilarities(weight=60.0),
    ),
)
DEGREE = {"contradiction": 0.0, "neutral": 0.5, "entailment": 1.0}
TRAINING = {
    "per_device_train_batch_size": 48,
    "gradient_accumulation_steps": 1,
    "learning_rate": 5e-5,
    "lr_scheduler_type": "linear",
    "weight_decay": 0.0,
    "bf16": True,
    "use_cpu": True,
    "save_strategy": "no",
    "logging_steps": 10,
    "report_to": "none",
    "disable_tqdm": True,
}


def nli(split: str) -> Dataset:
    """XNLI and ViSNLI, a fifth of the premises for testing; of the others, a tenth to choose on."""
    parts = []
    for name in ("visnli_train", "visnli_dev", "visnli_test", "xnli_vi"):
        rows = read_rows(DATA / "nli" / f"{name}.jsonl")
        labels = canonical_labels(rows, "label", VISNLI_LABELS if name.startswith("visnli") else None)
        parts.append(rows.select_columns(["premise", "hypothesis"]).add_column("label", labels))
    sides = split_by_anchor(concatenate_datasets(parts), test_size=0.2, anchor="premise", seed=0)
    if split == "test":
        return sides["test"]
    inner = split_by_anchor(sides["train"], test_size=0.1, anchor="premise", seed=1)
    return inner["train" if split == "train" else "test"]


def base() -> SentenceTransformer:
    """The encoder with mean pooling and its prefix before every text."""
    return build(Arm(head=None, pooling="mean", base=E5, prefix=PREFIX))


class Encode:
    """Unit vectors in bf16 where it costs nothing, each text once."""

    def __init__(self, model: SentenceTransformer, length: int = 192) -> None:
        self.model, self.length = model, length

    def __call__(self, texts: list[str]) -> np.ndarray:
        distinct = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        length, self.model.max_seq_length = self.model.max_seq_length, self.length
        with torch.autocast("cpu", torch.bfloat16):
            vectors = self.model.encode(list(distinct), batch_size=32, show_progress_bar=False, convert_to_tensor=True)
        self.model.max_seq_length = length
        vectors = torch.nn.functional.normalize(vectors.float(), dim=1).numpy()
        return vectors[[distinct[text] for text in texts]]


def cosines(encode: Encode, rows: Dataset, first: str, second: str) -> np.ndarray:
    return (encode(rows[first][:]) * encode(rows[second][:])).sum(axis=1)


def triplets(rows: Dataset, cosine: np.ndarray) -> np.ndarray:
    """Of each premise that has both, whether all its entailments are nearer than all its contradictions."""
    of: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for premise, label, value in zip(rows["premise"], rows["label"], cosine, strict=True):
        of[premise][label].append(value)
    both = [labels for labels in of.values() if {"entailment", "contradiction"} <= labels.keys()]
    return np.array([min(labels["entailment"]) > max(labels["contradiction"]) for labels in both])


def first(encode: Encode, questions: list[str], passages: list[str]) -> np.ndarray:
    """Whether each question finds its passage before all others."""
    distinct = list(dict.fromkeys(passages))
    found = (encode(questions) @ encode(distinct).T).argmax(axis=1)
    return found == np.array([distinct.index(passage) for passage in passages])


class Test:
    """The value of each test row: hits, and cosines where the figure is a correlation."""

    def __init__(self) -> None:
        self.nli, self.sts = nli("test"), sample_sts()
        self.xquad = read_rows(DATA / "retrieval/xquad_vi.jsonl")
        self.xquad = self.xquad.select(range(0, len(self.xquad), 2))  # half of the questions, and all their paragraphs
        self.gold = {
            "nli": np.array([DEGREE[label] for label in self.nli["label"]]),
            "sts": np.array(self.sts["score"]),
        }

    def __call__(self, model: SentenceTransformer) -> dict[str, list[float]]:
        encode = Encode(model)
        near = cosines(encode, self.nli, "premise", "hypothesis")
        values = {
            "triplets": triplets(self.nli, near),
            "nli": near,
            "sts": cosines(encode, self.sts, "sentence1", "sentence2"),
            "xquad": first(encode, self.xquad["question"][:], self.xquad["context"][:]),
        }
        return {name: [round(float(value), 6) for value in of_rows] for name, of_rows in values.items()}


class Choice:
    """What the share is chosen by: triplet accuracy and recall@1 on rows of the training side."""

    def __init__(self) -> None:
        self.nli, self.asked = nli("choose"), sample_retrieval("train")

    def __call__(self, model: SentenceTransformer) -> float:
        encode = Encode(model)
        inferred = triplets(self.nli, cosines(encode, self.nli, "premise", "hypothesis"))
        found = first(encode, self.asked["question"][:], self.asked["passage"][:])
        return float(inferred.mean() + found.mean()) / 2


def taught(rows: Dataset) -> Dataset:
    """The rows with the base's vectors of anchors and positives; negatives have none."""
    encode = Encode(base(), TRAINING_LENGTH)
    for column in ("anchor", "positive"):
        rows = rows.add_column(f"{column}_teacher", encode(rows[column][:]).tolist())
    return rows.add_column("task", [TASK.name] * len(rows))


def trained(name: str, seed: int, steps: int) -> tuple[SentenceTransformer, float]:
    """The base after training, and its seconds."""
    neutral: Any = {"neutral": "weak_positive"} if name == WEAK else {}
    rows: Any = nli_to_triplets(nli("train"), conflict="skip", **neutral)
    set_seed(seed)
    model, start = base(), time.time()
    length, model.max_seq_length = model.max_seq_length, TRAINING_LENGTH
    arguments: Any = TRAINING | {"max_steps": steps, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        if name == TAUGHT:
            texts = ["anchor", "positive", "negative"]
            rows = taught(rows["triplets"].select_columns(texts))
            train_vipolyqwen(model, rows, folder, loss=DLELoss(model, [TASK]), prefix_side="both", **arguments)
        else:
            loss = SupConNLILoss(model, hard_negative_weight=2.0 if name == HARD else 0.0)
            if name != WEAK:  # as in all other arms: rows with a contradiction
                rows = rows["triplets"]
            train_viclsr(model, rows, folder, loss=loss, prompts=PREFIX, **arguments)
    model.max_seq_length = length
    return model.eval(), time.time() - start


def run(name: str, seed: int, steps: int, test: Test) -> list[dict[str, Any]]:
    """A trained arm, and the merges with the base that begin with it."""
    model, seconds = trained(name, seed, steps)
    found: list[dict[str, Any]] = [{"arm": name, "seconds": round(seconds), "values": test(model)}]
    if name in MERGED:
        found.append({"arm": MERGED[name], "values": test(merge_models([model, base()]))})
    if name == HARD:
        best = search_merge(
            [model],
            Choice(),  # type: ignore[arg-type]
            base=base(),
            candidates=SHARES,
            show_progress_bar=False,
        )
        known = {share: one["values"] for share, one in zip((1.0, 0.5), found, strict=True)}
        (share,) = best.weights
        found.append({"arm": SEARCHED, "share": share, "tried": best.tried})
        found[-1]["values"] = known.get(share) or test(best.model)
    return [one | {"seed": seed} for one in found]


def figure(name: str, values: np.ndarray, gold: dict[str, np.ndarray], places: np.ndarray) -> float:
    """Of some rows of one run, in percent."""
    if name in gold:
        return 100 * float(spearmanr(values[places], gold[name][places]).statistic)
    return 100 * float(values[places].mean())


def difference(name: str, runs: np.ndarray, of_base: np.ndarray, gold: dict[str, np.ndarray]) -> str:
    """Of the mean over seeds and the base, with a 95 % bootstrap interval over rows."""
    rng, every = np.random.default_rng(0), np.arange(len(of_base))
    drawn = []
    for places in (every, *(rng.choice(every, len(every)) for _ in range(500))):
        before = figure(name, of_base, gold, places)
        drawn.append(np.mean([figure(name, run, gold, places) for run in runs]) - before)
    low, high = np.percentile(drawn[1:], (2.5, 97.5))
    return f"{drawn[0]:+.1f} [{low:+.1f}, {high:+.1f}]"


def table(results: list[dict[str, Any]], gold: dict[str, np.ndarray]) -> str:
    """Means over seeds, and differences to the base."""
    by_arm: dict[str, list[dict[str, list[float]]]] = defaultdict(list)
    for result in results:
        by_arm[result["arm"]].append(result["values"])
    shares = ", ".join(f"{one['share']:g}" for one in results if one["arm"] == SEARCHED)
    lines = []
    for arm in ARMS:
        if not by_arm[arm]:
            continue
        label = f"share of “{HARD}” chosen: {shares}" if arm == SEARCHED else arm
        cells = [label, str(len(by_arm[arm]))]
        for name in FIGURES:
            runs = np.array([values[name] for values in by_arm[arm]])
            every = np.arange(runs.shape[1])
            cells.append(over_seeds([figure(name, run, gold, every) for run in runs]))
            cells.append("" if arm == BASE else difference(name, runs, np.array(by_arm[BASE][0][name]), gold))
        lines.append(cells)
    header = [cell for label in FIGURES.values() for cell in (label, "− base [95 %]")]
    return markdown(["recipe", "seeds", *header], lines)


def main() -> None:
    """Run what has no figures yet, then print the table and put it into the docs."""
    parser = options_of(__doc__, "good_base")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--arms", nargs="+", default=[BASE, *TRAINED], choices=[BASE, *TRAINED])
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(options.results, steps=options.steps)
    test = Test()
    for seed in [] if options.table_only else options.seeds:
        for arm in options.arms:
            if any(one["arm"] == arm and (one["seed"] == seed or arm == BASE) for one in results):
                continue
            if arm == BASE:
                found = [{"arm": BASE, "seed": seed, "values": test(base())}]
            else:
                found = run(arm, seed, options.steps, test)
            results.keep(*found)
            for one in found:
                figures = {
                    name: round(figure(name, np.array(values), test.gold, np.arange(len(values))), 1)
                    for name, values in one["values"].items()
                }
                print(one["arm"], seed, one.get("seconds"), one.get("tried", ""), figures, flush=True)
    text = table(results, test.gold)
    print(text)
    if not options.no_docs:
        update_docs("good-base", text)


if __name__ == "__main__":
    main()
