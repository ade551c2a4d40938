"""viPolyQwen from random weights on generated pictures, disjoint compositions for training and test.

    python -m tests.benchmarks.vipolyqwen --seeds 0 1 2

A small Qwen2-VL built from a config learns to read words, to answer questions on scenes and to match pictures with
captions; text pairs are Vietnamese NLI with the scores 0, ½ and 1. Prints, for each task, the figures of the
untrained model and of the trained one on test rows, beside chance and beside a guess that sees no picture. One line of
a JSON Lines file a seed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from transformers import set_seed

from st_vi.data import combine_rows, read_rows, split_by_anchor
from st_vi.data.collator import model_input
from st_vi.data.render import word_rows
from st_vi.data.scenes import caption_rows, scene_rows
from st_vi.evaluation import TaskRetrievalEvaluator
from st_vi.recipes import build_vipolyqwen, train_vipolyqwen
from st_vi.recipes.small_models import small_qwen2_vl
from tests.benchmarks.viclsr import DATA

SCORES = {"entailment": 1.0, "neutral": 0.5, "contradiction": 0.0}
MODEL = {"vocab_size": 2000, "hidden_size": 128, "layers": 3, "vision_depth": 3}
TRAINING = {
    "per_device_train_batch_size": 48,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-3,
    "learning_rate_mapping": {},  # nothing is pretrained: the vision tower learns as fast as the rest
    "save_strategy": "no",
    "logging_steps": 50,
}


def text_pairs(split: str, count: int) -> Dataset:
    """Vietnamese NLI as scored pairs; without real data, the shipped samples."""
    source = DATA / "nli" / "xnli_vi.jsonl"
    if not source.exists():
        raise FileNotFoundError(f"no real data in {DATA}: set ST_VI_DATA")
    sides = split_by_anchor(read_rows(source), test_size=0.2, anchor="premise")
    rows = sides[split].shuffle(seed=0).select(range(min(count, len(sides[split]))))
    scores = [SCORES[label] for label in rows["label"]]
    columns = {"anchor": rows["premise"][:], "positive": rows["hypothesis"][:], "score": scores}
    return Dataset.from_dict(columns | {"task": ["text_pair"] * len(rows)})


def rows_of(split: str, count: int, seed: int) -> dict[str, Dataset]:
    """Rows by kind, `count` each."""
    return {
        "words": word_rows(split, count, seed),
        "questions": scene_rows(split, count, seed, tasks=("vqa_single",)),
        "dialogues": scene_rows(split, count, seed, tasks=("vqa_multi",)),
        "image to text": caption_rows(split, count, seed, direction="image_to_text"),
        "text to image": caption_rows(split, count, seed, direction="text_to_image"),
        "text pairs": text_pairs(split, count),
    }


def measure(model: SentenceTransformer, kinds: dict[str, Dataset]) -> dict[str, float]:
    """Every kind on its own corpus."""
    figures: dict[str, float] = {}
    for kind, rows in kinds.items():
        anchors, positives = ([model_input(row, side) for row in rows] for side in ("anchor", "positive"))
        scores = rows["score"] if "score" in rows.column_names else None
        task = rows["task"][0]
        evaluator = TaskRetrievalEvaluator(anchors, positives, [kind] * len(rows), scores, prompt_names={kind: task})
        metrics = evaluator(model)
        for name in ("recall@1", "chance", "mrr", "spearman"):
            if f"{kind}_{name}" in metrics:
                figures[f"{kind}, {name}"] = 100 * metrics[f"{kind}_{name}"]
    return figures


def blind(train_rows: dict[str, Dataset], test_rows: dict[str, Dataset]) -> dict[str, float]:
    """Share of test questions for which the commonest training answer to the same words is right: no picture seen."""
    figures = {}
    for kind in ("questions", "dialogues"):
        answers: dict[str, Counter[str]] = defaultdict(Counter)
        for question, answer in zip(train_rows[kind]["anchor"], train_rows[kind]["positive"], strict=True):
            answers[question][answer] += 1
        guesses = [(answers[question].most_common(1) or [("", 0)])[0][0] for question in test_rows[kind]["anchor"]]
        right = [guess == answer for guess, answer in zip(guesses, test_rows[kind]["positive"], strict=True)]
        figures[f"{kind}, blind recall@1"] = 100 * sum(right) / len(right)
    return figures


def run(seed: int, steps: int, count: int, test_count: int) -> dict[str, Any]:
    """Build, measure, train, measure."""
    train_rows, test_rows = rows_of("train", count, seed), rows_of("test", test_count, 1000 + seed)
    texts = [text for rows in train_rows.values() for side in ("anchor", "positive") for text in rows[side] if text]
    with tempfile.TemporaryDirectory() as folder:
        small_qwen2_vl(texts, Path(folder) / "base", seed=seed, **MODEL)
        set_seed(seed)
        model = build_vipolyqwen(Path(folder) / "base", embedding_dimension=128, max_pixels=112 * 112)
        before, started = measure(model, test_rows), time.time()
        arguments = TRAINING | {"max_steps": steps, "seed": seed, "use_cpu": not torch.cuda.is_available()}
        train_vipolyqwen(model, combine_rows(*train_rows.values()), Path(folder) / "model", **arguments)
        after = measure(model, test_rows)
    size = sum(parameter.numel() for parameter in model.parameters())
    seconds = round(time.time() - started)
    facts = {"seed": seed, "steps": steps, "parameters": size, "seconds": seconds}
    return facts | {"blind": blind(train_rows, test_rows), "before": before, "after": after}


def main() -> None:
    """Run the seeds and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("outputs/vipolyqwen.jsonl"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=4000, help="training rows of each kind")
    parser.add_argument("--test-rows", type=int, default=200, help="test rows of each kind")
    options = parser.parse_args()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        result = run(seed, options.steps, options.rows, options.test_rows)
        with options.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result, ensure_ascii=False) + "\n")
        print(json.dumps(result, ensure_ascii=False, indent=2), flush=True)


if __name__ == "__main__":
    main()
