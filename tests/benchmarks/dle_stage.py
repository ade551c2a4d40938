"""The paper's five tasks on top of the regression that a small viPolyQwen is made with: what they add, what they cost.

    python -m tests.benchmarks.dle_stage --base outputs/poly-mini/model --models outputs/dle-stage

From one base and on the same rows, three seeds each: the terms of the paper alone; the same with the regression on the
teacher's vectors beside them; and every model averaged with its base. Rows are those that the recipe may train on
(`st_vi distill vipolyqwen`), and choices are made on rows that the recipe kept apart. Models are kept in the folder, so
an interrupted run goes on with the next one.
"""

from __future__ import annotations

import gzip
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageColumn
from PIL import Image
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from transformers import set_seed

from st_vi import VIPOLYQWEN_TASKS, Task
from st_vi.data import split_by_anchor
from st_vi.data.documents import document_questions, document_texts
from st_vi.data.generated.lines import draw_lines
from st_vi.data.generated.rows import first_rows, nli_text_pairs
from st_vi.data.generated.scenes import caption_rows, scene_rows
from st_vi.data.sources import nli_rows
from st_vi.hub import load
from st_vi.losses import DLELoss
from st_vi.recipes import merge_models, train_vipolyqwen
from st_vi.recipes.ablation.tables import markdown, over_seeds
from st_vi.recipes.sight.distil import Centred
from st_vi.recipes.sight.looks import look
from st_vi.recipes.sight.seeing import for_testing
from st_vi.terms import TeacherCosine
from st_vi.text import strip_diacritics
from tests.benchmarks.results import Results, options_of
from tests.benchmarks.sight import first, measure
from tests.benchmarks.tables import update_docs
from tests.benchmarks.viclsr import DATA

BATCH, WORDS = 48, 120  # rows, and the words that are kept of a paragraph
STEPS, RATE = 225, 1e-4
BASE = "regression"
SHARES = {"pairs": 0.4, "nli": 0.12, "lines": 0.16, "captions": 0.08, "single": 0.08, "multi": 0.08, "names": 0.08}
KEPT = 6.0  # weight of the regression
FEATURES = Features(
    {
        "anchor": Value("string"),
        "anchor_image": ImageColumn(),
        "positive": Value("string"),
        "score": Value("float64"),
        "task": Value("string"),
        "means": Value("string"),
    }
)


@cache
def wiki(split: str) -> Dataset:
    """Paragraphs of the articles that the recipe trains on, or of those that it keeps apart."""
    with gzip.open(DATA / "open" / "wiki.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = Dataset.from_list([json.loads(line) for line in file])
    return split_by_anchor(rows, 0.03, anchor="title", seed=0)[split]


def pairs(split: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Questions with their paragraph, four in ten without diacritics."""
    random = Random(seed)
    rows = document_questions(wiki(split), count, seed=seed)
    return [
        {
            "anchor": strip_diacritics(row["anchor"]) if random.random() < 0.4 else row["anchor"],
            "positive": " ".join(row["positive"].split()[:WORDS]),
            "task": "instr",
            "means": row["anchor"],
        }
        for row in rows
    ]


def visnli(split: str) -> Dataset:
    """Pairs of sentences with the scores 1, ½ and 0."""
    labels = {"0": "entailment", "1": "contradiction", "2": "neutral"}
    return nli_text_pairs(nli_rows([DATA / f"nli/visnli_{split}.jsonl"], labels=labels)[0])


def drawn(count: int, seed: int) -> list[dict[str, Any]]:
    """Images of sentences and clauses, with their text."""
    random, rows = Random(seed), []
    for text in document_texts(wiki("train"), 2 * count, seed=seed, shares={"sentence": 0.5, "clause": 0.5}):
        words = text.split()
        if random.random() < 0.5 and len(words) > 8:
            start = random.randrange(len(words) - 6)
            text = " ".join(words[start : start + random.randint(4, 8)])
        try:
            picture = Image.fromarray(draw_lines(text, random).pixels)
        except ValueError:  # a letter or a word that no line has room for
            continue
        rows.append({"anchor_image": picture, "positive": text, "task": "ocr", "means": text})
    return rows[:count]


def named(count: int, seed: int) -> list[dict[str, Any]]:
    """Emoji in new looks, with their names."""
    folder, random = DATA / "vision" / "emoji", Random(seed)
    rows = [json.loads(line) for line in (folder / "emoji.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if not for_testing(row["name_vi"])]
    found = []
    for row in random.choices(rows, k=count):
        picture = Image.fromarray(look(Image.open(folder / "images" / row["image"]), random, 84))
        name = row["name_vi"]
        found.append({"anchor_image": picture, "positive": name, "task": "instr", "means": name})
    return found


def train_rows(seed: int, count: int) -> Dataset:
    """`count` rows of all kinds, by their shares."""
    of = {name: round(share * count) for name, share in SHARES.items()}
    nli = visnli("train")
    parts = [
        pairs("train", of["pairs"], seed),
        [row | {"means": row["anchor"]} for row in first_rows(nli, of["nli"], seed)],
        drawn(of["lines"], seed),
        [row | {"means": row["positive"]} for row in caption_rows("train", of["captions"], 100 + seed)],
        *(
            [row | {"means": row["positive"]} for row in scene_rows("train", of[name], 200 + seed, tasks=(task,))]
            for name, task in (("single", "vqa_single"), ("multi", "vqa_multi"))
        ),
        named(of["names"], seed),
    ]
    rows = [{name: row.get(name) for name in FEATURES} for part in parts for row in part]
    for row in rows:
        row |= {"anchor": row["anchor"] or "", "score": float("nan") if row["score"] is None else row["score"]}
    return Dataset.from_list(rows, features=FEATURES)


@cache
def teacher() -> Centred:
    """vi-mini less its mean, as the recipe has it."""
    texts = document_texts(wiki("train"), 4096, seed=0)
    return Centred(load("vi-mini", device="cpu").bfloat16(), texts)


def taught(rows: Dataset) -> Dataset:
    """With the vectors that anchor and positive shall keep: that of what they mean."""
    texts = list(dict.fromkeys([*rows["means"], *rows["positive"]]))
    vectors = dict(zip(texts, teacher()(texts).numpy(), strict=True))
    for column, of in (("anchor_teacher", "means"), ("positive_teacher", "positive")):
        rows = rows.add_column(column, [vectors[text] for text in rows[of]])
    return rows.remove_columns("means")


def tasks_with_regression(weight: float) -> tuple[Task, ...]:
    """The paper's five, each with a term that keeps the teacher's vectors."""
    return tuple(replace(task, terms=(*task.terms, TeacherCosine(weight=weight))) for task in VIPOLYQWEN_TASKS)


def trained(base: str, seed: int, steps: int, rate: float, kept: float) -> SentenceTransformer:
    """The base after `steps` steps of the five tasks."""
    set_seed(seed)
    model = load(base, device="cpu")
    model[0].model.set_attn_implementation("eager")  # in bf16 on a CPU, faster than SDPA's backward
    rows = train_rows(seed, steps * BATCH)
    rows = taught(rows) if kept else rows.remove_columns("means")
    loss = DLELoss(model, tasks=tasks_with_regression(kept) if kept else VIPOLYQWEN_TASKS)
    arguments: Any = {
        "per_device_train_batch_size": BATCH,
        "gradient_accumulation_steps": 1,
        "learning_rate": rate,
        "learning_rate_mapping": {r"visual\.": 0.3 * rate},
        "num_train_epochs": 1,
        "save_strategy": "no",
        "logging_steps": 20,
        "use_cpu": True,
        "bf16": True,
        "report_to": "none",
        "seed": seed,
    }
    with tempfile.TemporaryDirectory() as folder:
        train_vipolyqwen(model, rows, folder, loss=loss, prefix_dropout=0.5, **arguments)
    model[0].model.set_attn_implementation("sdpa")
    return model.eval()


def choice(model: SentenceTransformer) -> dict[str, float]:
    """Figures on rows that the recipe keeps apart, to choose by; no figure of the table is among them."""

    def encode(inputs: Sequence[Any], **settings: Any) -> np.ndarray:
        return model.encode(list(inputs), batch_size=32, normalize_embeddings=True, **settings).astype(np.float32)  # type: ignore[no-any-return,call-overload,union-attr]

    rows = document_questions(wiki("test"), 400, seed=5)
    paragraphs = list(dict.fromkeys(rows["positive"]))
    right, vectors = [paragraphs.index(text) for text in rows["positive"]], encode(paragraphs)
    dev = visnli("dev")
    one, two = encode(dev["anchor"][:]), encode(dev["positive"][:])
    captions = caption_rows("train", 200, seed=9001)
    names = named(200, 9002)
    called = list(dict.fromkeys(row["positive"] for row in names))
    lines = drawn(200, 9003)
    shown, written = ([row["anchor_image"] for row in part] for part in (names, lines))
    return {
        "questions": first(encode(rows["anchor"][:]), vectors, right),
        "bare": first(encode([strip_diacritics(text) for text in rows["anchor"]]), vectors, right),
        "nli": 100 * float(spearmanr((one * two).sum(axis=1), dev["score"][:]).statistic),
        "captions": first(encode(captions["anchor_image"][:]), encode(captions["positive"][:]), range(200)),
        "names": first(encode(shown), encode(called), [called.index(row["positive"]) for row in names]),
        "lines": first(encode(written), encode([row["positive"] for row in lines]), range(len(lines))),
    }


def figures(model: SentenceTransformer) -> dict[str, float]:
    """Those of the table, and those to choose by."""
    table = {what: value for what, _, value in measure(model, ("text", "read", "see", "name"))}
    return table | {f"choice: {name}": value for name, value in choice(model).items()}


def main() -> None:
    """Train and measure what has no figures yet, then print the table."""
    parser = options_of(__doc__, "dle-stage")
    parser.add_argument("--base", default="outputs/poly-mini/model", help="what the recipe made")
    parser.add_argument("--models", type=Path, default=Path("outputs/dle-stage"), help="folder for the models")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(options.results, steps=options.steps)
    done = {(result["arm"], result["seed"]) for result in results}
    if not options.table_only and (BASE, 0) not in done:
        results.keep({"arm": BASE, "seed": 0, "figures": figures(load(options.base, device="cpu"))})
    for seed in () if options.table_only else options.seeds:
        for arm, kept in (("DLE", 0.0), ("DLE and regression", KEPT)):
            if (arm, seed) in done:
                continue
            start = time.time()
            model = trained(options.base, seed, options.steps, RATE, kept)
            model.save(str(options.models / f"{arm}-{seed}".replace(" ", "-")))
            seconds = round(time.time() - start)
            mean = merge_models([model, load(options.base, device="cpu")])
            results.keep(
                {"arm": arm, "seed": seed, "seconds": seconds, "figures": figures(model)},
                {"arm": f"{arm}, averaged", "seed": seed, "figures": figures(mean)},
            )
            for result in results[-2:]:
                print(
                    result["arm"],
                    seed,
                    {name: round(value, 1) for name, value in result["figures"].items()},
                    flush=True,
                )
    text = table(results)
    print(text)
    if not options.no_docs:
        update_docs("dle-stage", text)


def table(results: Sequence[dict[str, Any]]) -> str:
    """Means over seeds, a figure a row."""
    by_arm: dict[str, list[dict[str, float]]] = {}
    for result in results:
        by_arm.setdefault(result["arm"], []).append(result["figures"])
    rows = [
        [name, *(over_seeds([figures[name] for figures in runs]) for runs in by_arm.values())]
        for name in next(iter(by_arm.values()))[0]
    ]
    return markdown(["", *by_arm], rows)


if __name__ == "__main__":
    main()
