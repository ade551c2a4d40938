"""vi-mini beside its teacher, a static table made of it, and words: what each finds, how large it is, how fast.

pip install "st-vi[search]" model2vec
python -m tests.benchmarks.encoders                # measure what has no figures yet, then update docs/benchmarks.md
python -m tests.benchmarks.encoders --table-only
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding
from sklearn.feature_extraction.text import TfidfVectorizer

from st_vi import load, pretrained
from st_vi.data import read_rows, sample_nli, sample_retrieval, sample_sts
from st_vi.encoding.search.words import WordIndex
from st_vi.evaluation import NLISimilarityEvaluator, NLUBenchmark, NLUEvaluator
from st_vi.inspection.rankings import relevant_ranks
from st_vi.recipes.ablation.tables import markdown
from st_vi.text import strip_diacritics
from tests.benchmarks.tables import update_docs
from tests.benchmarks.viclsr import BASE

DATA = Path(os.environ.get("ST_VI_DATA", "../shared/data"))
TEACHER = Path(os.environ.get("ST_VI_TEACHER", "../shared/models/e5-small-vi"))
FIGURES = {
    "weights": "weights",
    "megabytes": "MB",
    "speed": "sentences a second",
    "xnli": "XNLI triplets",
    "xnli_spearman": "XNLI Spearman",
    "xquad": "XQuAD recall@1",
    "xquad_bare": "without diacritics",
    "own": "own questions",
    "own_bare": "without diacritics",
    "pairs": "own pairs, Spearman",
    "sib200": "SIB-200 probe",
}
WHOLE = ("megabytes", "speed")
SHARES = ("xnli_spearman", "pairs")
Scores = Callable[[Sequence[str], Sequence[str]], np.ndarray]
"""Queries (Q) and texts (N) to scores (Q, N)."""


def teacher() -> SentenceTransformer:
    """multilingual-e5-small, cut to Vietnamese; every text begins with "query: "."""
    model = SentenceTransformer(str(TEACHER), device="cpu", model_kwargs={"dtype": "float32"})
    model.prompts, model.default_prompt_name = {"query": "query: "}, "query"
    return model


def static() -> SentenceTransformer:
    """One vector a piece of vi-mini's vocabulary, by model2vec with its defaults: PCA to 256, Zipf weights."""
    table = StaticEmbedding.from_distillation(str(pretrained("vi-mini")), device="cpu", pca_dims=256)
    return SentenceTransformer(modules=[table, Normalize()], device="cpu")


def tfidf(queries: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Cosines of TF-IDF vectors over syllables."""
    vectors = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True).fit(texts)
    scores: np.ndarray = (vectors.transform(queries) @ vectors.transform(texts).T).toarray()
    return scores


def bm25(queries: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """BM25 as `search` has it: a query without diacritics meets texts without theirs."""
    index = WordIndex(texts)
    return np.stack([index.scores(query) for query in queries])


def one_vector(model: SentenceTransformer) -> Scores:
    """Cosines."""

    def scores(queries: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        vectors = [model.encode(list(side), convert_to_tensor=True).float() for side in (queries, texts)]
        return (F.normalize(vectors[0], dim=1) @ F.normalize(vectors[1], dim=1).T).numpy()

    return scores


def added(*sides: Scores) -> Scores:
    """Sum of scores that are standardised over the texts of each query."""

    def scores(queries: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        every = [side(queries, texts) for side in sides]
        return sum((one - one.mean(1, keepdims=True)) / one.std(1, keepdims=True) for one in every)  # type: ignore[return-value]

    return scores


def small_base() -> SentenceTransformer:
    """vi-mini-base with mean pooling."""
    transformer = Transformer(str(BASE))
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    return SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")


MODELS: dict[str, Callable[[], SentenceTransformer]] = {
    "vi-mini-base": small_base,
    "teacher": teacher,
    "vi-mini": lambda: load("vi-mini"),
    "static table of vi-mini": static,
}
WORDS: dict[str, Callable[[], Scores]] = {
    "TF-IDF": lambda: tfidf,
    "BM25, a bare query against bare texts": lambda: bm25,
    "vi-mini and BM25": lambda: added(one_vector(load("vi-mini")), bm25),
}


def found_first(scores: Scores, queries: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    """Percent of queries whose text comes first among the different ones, as written and without diacritics."""
    different = list(dict.fromkeys(texts))
    right = [different.index(text) for text in texts]
    figures = {}
    for name, asked in {"": list(queries), "_bare": [strip_diacritics(query) for query in queries]}.items():
        ranks = relevant_ranks(torch.as_tensor(scores(asked, different)), right)
        figures[name] = 100 * float((ranks == 1).double().mean())
    return figures


def measure(scores: Scores) -> dict[str, float]:
    """XQuAD and the held-out questions of the package."""
    xquad, own = read_rows(DATA / "retrieval" / "xquad_vi.jsonl"), sample_retrieval("test")
    figures = {}
    for name, rows, text in (("xquad", xquad, "context"), ("own", own, "passage")):
        found = found_first(scores, rows["question"][:], rows[text][:])
        figures |= {f"{name}{variant}": value for variant, value in found.items()}
    return figures


def measure_model(model: SentenceTransformer, runs: int = 5) -> dict[str, float]:
    """All figures of a model, in fp32: in bf16, close cosines are rounded to the same number."""
    sentences = list(dict.fromkeys(sample_nli()["hypothesis"]))[:600]
    seconds = []
    for _ in range(runs):
        started = time.process_time()  # of one thread: not what other programs take
        model.encode(sentences, batch_size=32)
        seconds.append(time.process_time() - started)
    weights = sum(parameter.numel() for parameter in model.parameters())
    figures: dict[str, float] = {"weights": weights, "megabytes": 2 * weights / 1e6, "speed": 600 / median(seconds)}

    nli = read_rows(DATA / "nli" / "xnli_vi.jsonl")
    judged = NLISimilarityEvaluator(nli["premise"], nli["hypothesis"], nli["label"])(model)
    pairs = sample_sts()
    similar = EmbeddingSimilarityEvaluator(pairs["sentence1"][:], pairs["sentence2"][:], pairs["score"][:])
    topics = {split: read_rows(DATA / "classification" / f"sib200_vi_{split}.jsonl") for split in ("train", "test")}
    sib200 = NLUBenchmark("SIB-200", "single", {"text1": "text", "label": "label"}, None, "accuracy")
    probe = NLUEvaluator(sib200, topics["train"], topics["test"], batch_size=64)(model)
    return {
        **figures,
        "xnli": 100 * judged["triplet_accuracy"],
        "xnli_spearman": judged["nli_spearman"],
        "pairs": similar(model)["spearman_cosine"],
        "sib200": 100 * probe["SIB-200_probe_accuracy"],
        **measure(one_vector(model)),
    }


def shown(key: str, figures: dict[str, float]) -> str:
    """A figure with the digits that it has, or nothing."""
    return f"{figures[key]:.{0 if key in WHOLE else 2 if key in SHARES else 1}f}" if key in figures else ""


def table(results: dict[str, dict[str, float]]) -> str:
    """One row a model."""
    rows = []
    for name in [*MODELS, *WORDS]:
        if name in results:
            of = results[name]
            size = f"{of['weights'] / 1e6:.1f} M" if "weights" in of else ""
            rows.append([name, size, *(shown(key, of) for key in list(FIGURES)[1:])])
    return markdown(["model", *FIGURES.values()], rows)


def main() -> None:
    """Measure what has no figures yet, then print the table and put it into the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("outputs/encoders.json"), help="figures measured so far")
    parser.add_argument("--table-only", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = json.loads(options.results.read_text()) if options.results.exists() else {}
    for name in [] if options.table_only else [*WORDS, *reversed(MODELS)]:
        if name not in results:
            results[name] = measure(WORDS[name]()) if name in WORDS else measure_model(MODELS[name]())
            options.results.write_text(json.dumps(results, indent=1))
            print(name, results[name], flush=True)
    print(table(results))
    update_docs("encoders", table(results))


if __name__ == "__main__":
    main()
