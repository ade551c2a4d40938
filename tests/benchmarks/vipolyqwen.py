"""viPolyQwen from random weights: on generated images, then on real Vietnamese rows.

    python -m tests.benchmarks.vipolyqwen --seeds 0 1 2

A small Qwen2-VL built from a config learns to read words, to answer questions on scenes and to match images with
captions; text pairs are Vietnamese NLI with the scores 0, ½ and 1. No composition of the test rows is in the training
rows. Words come first and alone: in a mixture from the first step (`--word-steps 0`) they were not learned. Then the
same model goes on with real rows. Each seed's figures, before and after, are one line of a JSON Lines file, and the
tables go into docs/benchmarks.md.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter, defaultdict
from typing import Any

import torch
from datasets import DatasetDict
from sentence_transformers import SentenceTransformer
from transformers import set_seed

from st_vi.data.generated.rows import generated_rows, texts_of
from st_vi.recipes import build_vipolyqwen, train_vipolyqwen, vipolyqwen_evaluator
from st_vi.recipes.ablation.tables import markdown, over_seeds
from st_vi.recipes.examples.small_models import small_qwen2_vl
from tests.benchmarks.real_rows import real_rows, text_pairs
from tests.benchmarks.results import Results, options_of
from tests.benchmarks.tables import update_docs

MODEL = {"vocab_size": 4000, "width": 128, "layers": 2, "vision_width": 128, "vision_layers": 3}
SIZE = 128
MAX_PIXELS = 224 * 224
TRAINING = {
    "per_device_train_batch_size": 48,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "learning_rate_mapping": {},  # nothing is pretrained: the vision tower learns as fast as the rest
    "save_strategy": "no",
    "logging_steps": 50,
}
TRAIN_ROWS = {"words": 6000, "questions": 4000, "dialogues": 4000, "image_to_text": 3000, "text_to_image": 3000}
"""Batches are drawn in proportion; 6,000 of the text pairs make a fifth of all."""
TEST_ROWS = 200  # of each kind
TEXT_PAIRS = {"train": 6000, "test": 2000}
FIGURES = ("recall@1", "chance", "mrr", "option_accuracy", "spearman")


def generated(split: str, seed: int, count: int | None = None) -> DatasetDict:
    """Generated rows with real text pairs; `count` rows of each kind, or those of `TRAIN_ROWS`."""
    rows = DatasetDict()
    for kind, number in TRAIN_ROWS.items():
        rows |= generated_rows(split, count or number, seed, [kind])
    pairs = text_pairs(split).shuffle(seed=0)
    rows["text_pairs"] = pairs.select(range(TEXT_PAIRS[split]))
    return rows


def measure(model: SentenceTransformer, rows: DatasetDict) -> dict[str, dict[str, float]]:
    """Figures of each kind, in percent."""
    metrics = vipolyqwen_evaluator(rows, batch_size=64)(model)
    return {
        kind: {name: 100 * metrics[f"{kind}_{name}"] for name in FIGURES if f"{kind}_{name}" in metrics}
        for kind in rows
    }


def blind(train_rows: DatasetDict, test_rows: DatasetDict) -> dict[str, float]:
    """Share of test questions for which the commonest training answer to the same words is right: no image seen."""
    figures = {}
    for kind in ("questions", "dialogues"):
        answers: dict[str, Counter[str]] = defaultdict(Counter)
        for question, answer in zip(train_rows[kind]["anchor"], train_rows[kind]["positive"], strict=True):
            answers[question][answer] += 1
        guesses = [(answers[question].most_common(1) or [("", 0)])[0][0] for question in test_rows[kind]["anchor"]]
        right = [guess == answer for guess, answer in zip(guesses, test_rows[kind]["positive"], strict=True)]
        figures[kind] = 100 * sum(right) / len(right)
    return figures


def option_chance(rows: DatasetDict) -> dict[str, float]:
    """Chance of the right one among a row's own options."""
    return {
        kind: 100 * sum(1 / len(set(options)) for options in part["options"]) / len(part)
        for kind, part in rows.items()
        if "options" in part.column_names
    }


def train(model: SentenceTransformer, rows: DatasetDict, steps: int, seed: int, warm_up: float) -> int:
    """Train in place; seconds. No steps are none (to stock, they are all epochs)."""
    started = time.time()
    if not steps:
        return 0
    arguments = TRAINING | {"max_steps": steps, "seed": seed, "use_cpu": not torch.cuda.is_available()}
    with tempfile.TemporaryDirectory() as folder:
        train_vipolyqwen(model, rows, folder, info_nce_warm_up=warm_up, **arguments)
    return round(time.time() - started)


def run(seed: int, word_steps: int, steps: int, real_steps: int) -> dict[str, Any]:
    """Build, measure, train, measure; the same with real rows."""
    made = {"train": generated("train", seed), "test": generated("test", 1000 + seed, count=TEST_ROWS)}
    real = {split: real_rows(split, seed) for split in ("train", "test")}
    # Some training rows beside the test rows: what is learned by heart, and what is carried over.
    learned = DatasetDict({f"{kind} (training rows)": real["train"][kind].select(range(88)) for kind in HEARD})
    with tempfile.TemporaryDirectory() as folder:
        small_qwen2_vl(texts_of(made["train"], real["train"]), folder, seed=seed, **MODEL)
        set_seed(seed)
        model = build_vipolyqwen(folder, embedding_dimension=SIZE, max_pixels=MAX_PIXELS)
    result: dict[str, Any] = {"seed": seed, "steps": [word_steps, steps, real_steps]}
    result["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    result["blind"] = blind(made["train"], made["test"])
    result["option_chance"] = option_chance(made["test"]) | option_chance(real["test"])
    result["untrained"] = measure(model, made["test"]) | measure(model, real["test"])
    seconds = [train(model, DatasetDict(words=made["train"]["words"]), word_steps, seed, warm_up=0.5)]
    result["after_words"] = measure(model, made["test"])
    seconds.append(train(model, made["train"], steps, seed, warm_up=0.3))
    result["trained"] = measure(model, made["test"])
    result["before_real"] = measure(model, real["test"])
    result["seconds"] = [*seconds, train(model, real["train"], real_steps, seed, warm_up=0.5)]
    result["trained"] |= measure(model, real["test"]) | measure(model, learned)
    return result


HEARD = ("driving questions", "instructions", "paragraphs")


def generated_table(results: list[dict[str, Any]]) -> str:
    """Recall@1 on generated rows."""
    rows = []
    for kind in TRAIN_ROWS:
        blind_guess = over_seeds([result["blind"][kind] for result in results]) if kind in results[0]["blind"] else ""
        states = [cell(results, state, kind, "recall@1") for state in ("untrained", "trained")]
        chance = cell(results, "trained", kind, "chance")
        rows.append([kind.replace("_", " "), chance, *states, blind_guess, *own_options(results, kind)])
    return markdown(["kind", "chance", "untrained", "trained", "blind", *OWN_OPTIONS], rows)


def real_table(results: list[dict[str, Any]]) -> str:
    """Recall@1 on real rows."""
    kinds = [kind for kind in results[0]["trained"] if kind not in TRAIN_ROWS and kind != "text_pairs"]
    rows = []
    for kind in kinds:
        known = "training rows" not in kind
        states = [cell(results, s, kind, "recall@1") if known else "" for s in ("untrained", "before_real")]
        rows.append([kind, cell(results, "trained", kind, "chance"), *states])
        rows[-1] += [cell(results, "trained", kind, figure) for figure in ("recall@1", "mrr")]
        rows[-1] += own_options(results, kind)
    header = ["rows", "chance", "untrained", "after generated rows", "after real rows", "MRR", *OWN_OPTIONS]
    return markdown(header, rows)


OWN_OPTIONS = ("among its own options", "chance of that")


def own_options(results: list[dict[str, Any]], kind: str) -> list[str]:
    """How often the right answer beats the others that its question could have, and chance."""
    own = cell(results, "trained", kind, "option_accuracy")
    chances = [result["option_chance"][kind] for result in results if kind in result["option_chance"]]
    return [own, over_seeds(chances) if chances else ""]


def cell(results: list[dict[str, Any]], state: str, kind: str, figure: str) -> str:
    """One figure over the seeds; empty where it does not apply."""
    values = [result[state][kind][figure] for result in results if figure in result[state][kind]]
    return over_seeds(values) if values else ""


def pairs_line(results: list[dict[str, Any]]) -> str:
    """The text pairs in a sentence."""
    before, after = (cell(results, state, "text_pairs", "spearman") for state in ("untrained", "trained"))
    return f"Spearman's correlation of the text pairs' cosine with their score: {before} untrained, {after} trained."


def main() -> None:
    """Run the seeds that have no figures yet, print the tables and put them into the docs."""
    parser = options_of(__doc__, "vipolyqwen")
    parser.add_argument("--word-steps", type=int, default=600, help="on words alone")
    parser.add_argument("--steps", type=int, default=1600, help="on all generated rows")
    parser.add_argument("--real-steps", type=int, default=600, help="on real rows")
    options = parser.parse_args()
    results = Results(
        options.results, word_steps=options.word_steps, steps=options.steps, real_steps=options.real_steps
    )
    for seed in [] if options.table_only else options.seeds:
        if any(result["seed"] == seed for result in results):
            continue
        results.keep(run(seed, options.word_steps, options.steps, options.real_steps))
    text = "\n\n".join([generated_table(results), pairs_line(results), real_table(results)])
    print(text)
    if not options.no_docs and (options.table_only or len(options.seeds) > 1):
        update_docs("vipolyqwen", text)


if __name__ == "__main__":
    main()
