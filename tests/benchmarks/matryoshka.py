"""Vectors cut to fewer dimensions and to fewer bits, with and without the stock `MatryoshkaLoss` around our losses.

    python -m tests.benchmarks.matryoshka                # train and measure everything, then update docs/benchmarks.md
    python -m tests.benchmarks.matryoshka --table-only   # update the tables from the figures measured so far

`vi-mini` with `SupConNLILoss` and `poly-mini` with `DLELoss`: as they are, after further training, and after the same
training inside `MatryoshkaLoss`. int8 and binary are those of the stock `quantize_embeddings`, for queries and
documents; "centred" vectors are less the mean of other texts and images. Every finished arm is one line of a JSON Lines
file, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from datasets import concatenate_datasets
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss
from sentence_transformers.util import quantize_embeddings
from transformers import set_seed

from st_vi.data import nli_to_triplets, read_rows, sample_retrieval
from st_vi.data.generated.rows import generated_rows
from st_vi.hub import load
from st_vi.losses import DLELoss, SupConNLILoss
from st_vi.recipes import train_viclsr, train_vipolyqwen
from st_vi.recipes.ablation.tables import markdown, over_seeds
from tests.benchmarks import good_base, strategies
from tests.benchmarks.results import Results, options_of
from tests.benchmarks.tables import update_docs
from tests.benchmarks.viclsr import DATA

DIMENSIONS = (384, 256, 128, 64)
CENTRED = "binary, centred"
PRECISIONS = {"float32": 32, "int8": 8, "binary": 1, CENTRED: 1}  # bits
ARMS = ("as it is", "trained", "Matryoshka")
MODELS = {"vi-mini": ("XQuAD", "triplets"), "poly-mini": ("XQuAD", "captions")}
RATE = {"vi-mini": 1e-4, "poly-mini": 1e-4}

Compare = Callable[[np.ndarray, np.ndarray], np.ndarray]
Vectors = dict[str, np.ndarray]


def trained(name: str, seed: int, steps: int, wrapped: bool) -> SentenceTransformer:
    """The model after further training."""
    set_seed(seed)
    model = load(name, device="cpu")
    loss: Any = SupConNLILoss(model, hard_negative_weight=1.0) if name == "vi-mini" else DLELoss(model)
    if wrapped:
        loss = MatryoshkaLoss(model, loss, list(DIMENSIONS))
    arguments: Any = strategies.TRAINING | {"max_steps": steps, "seed": seed, "learning_rate": RATE[name]}
    with tempfile.TemporaryDirectory() as folder:
        if name == "vi-mini":
            length, model.max_seq_length = model.max_seq_length, 64
            rows = nli_to_triplets(good_base.nli("train"), conflict="skip")["triplets"]
            train_viclsr(model, rows, folder, loss=loss, **arguments | {"learning_rate_mapping": {}})
            model.max_seq_length = length
        else:
            parts = strategies.train_rows(seed, steps * strategies.BATCH // 3)
            train_vipolyqwen(model, concatenate_datasets(list(parts.values())), folder, loss=loss, **arguments)
    return model.eval()


def vectors(name: str, model: SentenceTransformer) -> Vectors:
    """Of everything that is compared, and of texts that are not, for the ranges of int8."""
    model.max_seq_length = min(model.max_seq_length or 256, 256)
    settings: Any = {"batch_size": 32, "normalize_embeddings": True}
    asking: Any = settings | ({"prompt_name": "instr"} if name == "poly-mini" else {})
    xquad, other = read_rows(DATA / "retrieval/xquad_vi.jsonl"), sample_retrieval("train")
    passages = list(dict.fromkeys(xquad["context"]))
    found = {
        "questions": model.encode(xquad["question"][:], **asking),
        "passages": model.encode(passages, **settings),
        "own": np.array([passages.index(text) for text in xquad["context"]]),
        "other": model.encode([*other["question"], *dict.fromkeys(other["passage"])], **settings),
    }
    if name == "vi-mini":
        rows = good_base.nli("test")
        found |= {column: model.encode(rows[column][:], **settings) for column in ("premise", "hypothesis")}
    else:
        rows = generated_rows("test", 200, 7, ["image_to_text"])["image_to_text"]
        found["images"] = model.encode(rows["anchor_image"][:], **asking)
        found["captions"] = model.encode(rows["positive"][:], **settings)
        found["other images"] = model.encode(
            generated_rows("train", 200, 99, ["image_to_text"])["image_to_text"]["anchor_image"][:], **asking
        )
    return found


def cut(found: Vectors, dimension: int, precision: str) -> Vectors:
    """All vectors cut to so many dimensions, of length 1 again, and quantized."""
    short = {
        name: value[:, :dimension] / np.linalg.norm(value[:, :dimension], axis=1, keepdims=True)
        for name, value in found.items()
        if name != "own"
    }
    others = np.concatenate([value for name, value in short.items() if name.startswith("other")])
    if precision == CENTRED:
        short = {name: value - others.mean(axis=0) for name, value in short.items()}
    settings: Any = {
        "precision": "binary" if precision == CENTRED else precision,
        "calibration_embeddings": others if precision == "int8" else None,
    }
    return {name: quantize_embeddings(value, **settings) for name, value in short.items()} | {"own": found["own"]}


def similarity(precision: str) -> Compare:
    """Cosine, or for bits minus their Hamming distance, of all pairs."""

    def bits(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        one, two = (np.unpackbits(side.view(np.uint8) ^ 128, axis=1) * 2.0 - 1 for side in (first, second))
        return one @ two.T

    def cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        one, two = (
            side.astype(np.float32) / np.linalg.norm(side.astype(np.float32), axis=1, keepdims=True)
            for side in (first, second)
        )
        return one @ two.T

    return bits if PRECISIONS[precision] == 1 else cosine


def first(near: np.ndarray, own: np.ndarray) -> float:
    """Percentage of the rows whose own column is before all others; a tie is a miss."""
    mine = near[np.arange(len(own)), own]
    return 100 * float(((near >= mine[:, None]).sum(axis=1) == 1).mean())


def figures(name: str, found: Vectors) -> dict[str, float]:
    """Each figure in percent, by dimension and precision."""
    result = {}
    for dimension in DIMENSIONS:
        for precision in PRECISIONS:
            part, compare = cut(found, dimension, precision), similarity(precision)
            values = {"XQuAD": first(compare(part["questions"], part["passages"]), part["own"])}
            if name == "vi-mini":
                rows = good_base.nli("test")
                near = [
                    float(compare(a[None], b[None])[0, 0])
                    for a, b in zip(part["premise"], part["hypothesis"], strict=True)
                ]
                values["triplets"] = 100 * float(good_base.triplets(rows, np.array(near)).mean())
            else:
                values["captions"] = first(compare(part["images"], part["captions"]), np.arange(len(part["images"])))
            result |= {f"{dimension} {precision} {figure}": round(value, 2) for figure, value in values.items()}
    return result


def tables(results: list[dict[str, Any]]) -> str:
    """One table a model."""
    parts = []
    for name, of_model in MODELS.items():
        lines = []
        for precision, bits in PRECISIONS.items():
            for dimension in DIMENSIONS:
                cells = [str(dimension), precision, str(dimension * bits // 8)]
                for figure in of_model:
                    for arm in ARMS:
                        runs = [r["figures"] for r in results if (r["model"], r["arm"]) == (name, arm)]
                        cells.append(over_seeds(run[f"{dimension} {precision} {figure}"] for run in runs))
                lines.append(cells)
        header = [f"{figure}, {arm}" for figure in of_model for arm in ARMS]
        parts.append(markdown(["dimensions", "numbers", "bytes", *header], lines))
    return "\n\n".join(parts)


def main() -> None:
    """Run what has no figures yet, then print the tables and put them into the docs."""
    parser = options_of(__doc__, "matryoshka", seeds=[0])
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(options.results, steps=options.steps)
    todo = [(seed, name, arm) for seed in options.seeds for name in MODELS for arm in ARMS]
    for seed, name, arm in [] if options.table_only else todo:
        done = any((r["model"], r["arm"]) == (name, arm) and (r["seed"] == seed or arm == ARMS[0]) for r in results)
        if done:
            continue
        start = time.time()
        model = load(name, device="cpu") if arm == ARMS[0] else trained(name, seed, options.steps, arm == ARMS[2])
        found = figures(name, vectors(name, model))
        seconds = round(time.time() - start)
        results.keep({"model": name, "arm": arm, "seed": seed, "figures": found, "seconds": seconds})
        print(results[-1], flush=True)
    text = tables(results)
    print(text)
    if not options.no_docs:
        update_docs("matryoshka", text)


if __name__ == "__main__":
    main()
