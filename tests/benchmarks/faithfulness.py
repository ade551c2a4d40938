"""Does the embedding depend on what the attention pooling looks at? Units deleted from held-out sentences.

    python -m tests.benchmarks.faithfulness              # train, measure, then update docs/benchmarks.md
    python -m tests.benchmarks.faithfulness --no-docs    # print the table only

Every sentence is encoded again without each of its units. The drift is 1 − cos to the whole sentence. In each
sentence, that of the unit with the largest weight stands beside the mean over all its units (the expectation of a
random one) and that of the unit with the smallest weight. Intervals are 95 % bootstrap over sentences, paired.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import concatenate_datasets
from scipy.stats import bootstrap, spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from transformers import set_seed

from st_vi import AttentionPooling, MLPHead
from st_vi.data import nli_to_triplets, read_rows, sample_nli, split_by_anchor
from st_vi.data.nli import canonical_labels
from st_vi.inspection.attention import pool_texts, units
from st_vi.inspection.faithfulness import cosine_drift, deletions
from st_vi.recipes import train_viclsr
from st_vi.recipes.ablation.tables import markdown
from st_vi.recipes.examples.text_models import example_text_model
from st_vi.text.units import By
from tests.benchmarks.tables import update_docs

DATA = Path(os.environ.get("ST_VI_DATA", "../shared/data"))
BASE = Path(os.environ.get("ST_VI_BASE", "../shared/models/vi-mini-base"))
TRAINING = {"num_train_epochs": 2, "per_device_train_batch_size": 64, "learning_rate": 3e-4, "bf16": True}
TRAINING_LENGTH = 64
VISNLI_LABELS = {0: "entailment", 1: "contradiction", 2: "neutral"}
SYLLABLES = (6, 30)  # of the sentences: enough to choose from, and none truncated

Model = tuple[SentenceTransformer, str | None, list[str]]


def trained_on_real_rows(sentences: int, max_steps: int) -> Model:
    """The small Vietnamese encoder with attention pooling, trained on XNLI and ViSNLI, and held-out sentences."""
    parts = []
    for name in ("visnli_train", "visnli_dev", "visnli_test", "xnli_vi"):
        rows = read_rows(DATA / "nli" / f"{name}.jsonl")
        labels = canonical_labels(rows, "label", VISNLI_LABELS if name.startswith("visnli") else None)
        parts.append(rows.select_columns(["premise", "hypothesis"]).add_column("label", labels))
    split = split_by_anchor(concatenate_datasets(parts), test_size=0.2, anchor="premise", seed=0)

    set_seed(0)
    # In bf16 on a CPU, eager attention is faster than SDPA's backward.
    transformer = Transformer(str(BASE), model_kwargs={"attn_implementation": "eager"})
    width = transformer.get_embedding_dimension()
    head = MLPHead(width, width, num_layers=2, activation="gelu", layer_norm=True)
    model = SentenceTransformer(modules=[transformer, AttentionPooling(width), head, Normalize()])
    length, model.max_seq_length = model.max_seq_length, TRAINING_LENGTH
    with tempfile.TemporaryDirectory() as folder:
        triplets = nli_to_triplets(split["train"], conflict="skip")
        print(triplets.report, flush=True)
        cpu = not torch.cuda.is_available()
        train_viclsr(model, triplets, folder, save_strategy="no", use_cpu=cpu, max_steps=max_steps, **TRAINING)
    model.max_seq_length = length
    return model, None, chosen([*split["test"]["premise"], *split["test"]["hypothesis"]], sentences)


def example(sentences: int, max_steps: int) -> Model:
    """The model of the notebooks, with the prefix it was trained with, and held-out sentences of its own set."""
    rows = sample_nli("test")
    return example_text_model(), "text_pair", chosen([*rows["premise"], *rows["hypothesis"]], sentences)


MODELS: dict[str, Callable[[int, int], Model]] = {
    "vi-mini-base, XNLI + ViSNLI": trained_on_real_rows,
    "example model": example,
}


def chosen(texts: Sequence[str], count: int) -> list[str]:
    """So many distinct sentences at random, the same every time."""
    distinct = [text for text in dict.fromkeys(texts) if SYLLABLES[0] <= len(text.split()) <= SYLLABLES[1]]
    order = np.random.default_rng(0).permutation(len(distinct))
    return [distinct[i] for i in order[:count]]


def measure(model: SentenceTransformer, prompt_name: str | None, texts: Sequence[str], by: By) -> np.ndarray:
    """For every sentence: drift of the most-weighted unit, of a random one, of the least; rank correlation."""
    rows = []
    for view in pool_texts(model, texts, prompt_name=prompt_name):
        own = [unit for unit in units(view, by) if unit.kind == "text"]
        drifts = cosine_drift(view, deletions(model, view, own)).double().numpy()
        weights = np.array([unit.weight for unit in own])
        correlation = spearmanr(weights, drifts).statistic
        rows.append([drifts[weights.argmax()], drifts.mean(), drifts[weights.argmin()], correlation])
    return np.array(rows)


def with_interval(values: np.ndarray, digits: int) -> str:
    """Mean [95 % bootstrap over the values]."""
    result = bootstrap([values], np.mean, n_resamples=2000, method="percentile", rng=0).confidence_interval
    return f"{values.mean():+.{digits}f} [{result.low:+.{digits}f}, {result.high:+.{digits}f}]"


def row(name: str, by: By, figures: np.ndarray) -> list[str]:
    """One line of the table."""
    most, any_one, least, correlation = figures.T
    means = [f"{column.mean():.3f}" for column in (most, any_one, least)]
    differences = [with_interval(most - other, 3) for other in (any_one, least)]
    unit = "syllable" if by == "syllable" else "sub-word"
    return [name, unit, str(len(figures)), *means, *differences, with_interval(correlation, 2)]


def main() -> None:
    """Train, measure, print the table and put it into the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--max-steps", type=int, default=-1, help="shorten the training, to try the command")
    parser.add_argument("--no-docs", action="store_true", help="print the table only")
    options = parser.parse_args()

    rows = []
    for name, make in MODELS.items():
        model, prompt_name, texts = make(options.sentences, options.max_steps)
        for by in ("syllable", "token"):
            rows.append(row(name, by, measure(model, prompt_name, texts, by)))
            print(rows[-1], flush=True)
    header = ["model", "unit", "sentences", "most weight", "random", "least weight", "most − random [95 %]"]
    text = markdown([*header, "most − least [95 %]", "rank correlation [95 %]"], rows)
    print(text)
    if options.max_steps < 0 and not options.no_docs:
        update_docs("faithfulness", text)


if __name__ == "__main__":
    main()
