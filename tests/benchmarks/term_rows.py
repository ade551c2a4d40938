"""Real Vietnamese rows that have what any term may ask for: a score, hard negatives, and a score of each candidate."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from datasets import Dataset

from st_vi.data import read_rows, split_by_anchor, strip_diacritics
from tests.benchmarks.viclsr import DATA

SCORES = {"entailment": 1.0, "neutral": 0.5, "contradiction": 0.0}
RELEVANCE = {"entailment": 1.0, "neutral": 0.67, "contradiction": 0.33, "unrelated": 0.0}


LONGEST = 24  # words of a premise to train on: half of them, and the half that takes a quarter of the time


def rows_of_terms(split: str) -> Dataset:
    """Three rows a premise of XNLI: each hypothesis once as the positive, with two worse ones as hard negatives.

    What is worse: neutral than entailment, contradiction than neutral, a hypothesis of another premise than all. The
    row's score is that of its label; a candidate's teacher score only says this order. A fifth of the premises is
    held out.
    """
    rows = split_by_anchor(read_rows(DATA / "nli/xnli_vi.jsonl"), test_size=0.2, anchor="premise", seed=0)[split]
    of_premise: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        of_premise[row["premise"]][row["label"]] = row["hypothesis"]
    longest = LONGEST if split == "train" else 10**6
    complete = [(p, texts) for p, texts in of_premise.items() if len(texts) == 3 and len(p.split()) <= longest]
    result = []
    for number, (premise, texts) in enumerate(complete):
        for place, label in enumerate(SCORES):
            others = [complete[(number + 1 + further) % len(complete)][1]["neutral"] for further in range(place + 1)]
            ranked = [(name, texts[name]) for name in list(SCORES)[place:]] + [("unrelated", text) for text in others]
            (_, positive), *worse = ranked[:3]
            result.append(
                {
                    "anchor": premise,
                    "positive": positive,
                    "negative_1": worse[0][1],
                    "negative_2": worse[1][1],
                    "score": SCORES[label],
                    "teacher_scores": [RELEVANCE[name] for name, _ in ranked[:3]],
                    "task": "text_pair",
                }
            )
    return Dataset.from_list(result)


def ranked_rows(split: str) -> Dataset:
    """Questions of XQuAD with three paragraphs that documents put in order: their own, of the same article, of another.

    The dataset has five paragraphs of each of 48 articles, one after the other. Questions of a fifth of the articles
    are held out.
    """
    rows = read_rows(DATA / "retrieval/xquad_vi.jsonl")
    paragraphs = list(dict.fromkeys(rows["context"]))
    rng = np.random.default_rng(0)
    held_out = set(rng.permutation(len(paragraphs) // 5)[: len(paragraphs) // 25].tolist())
    articles = [article for article in range(len(paragraphs) // 5) if (article in held_out) == (split == "test")]
    result = []
    for row in rows:
        article, place = divmod(paragraphs.index(row["context"]), 5)
        if article in articles:
            sister = 5 * article + (place + rng.integers(1, 5)) % 5
            stranger = 5 * rng.choice([other for other in articles if other != article]) + rng.integers(5)
            result.append(
                {
                    "anchor": row["question"],
                    "positive": row["context"],
                    "negative_1": paragraphs[sister],
                    "negative_2": paragraphs[stranger],
                    "score": 1.0,
                    "teacher_scores": [1.0, 0.5, 0.0],
                    "task": "text_pair",
                }
            )
    return Dataset.from_list(result)


def with_another_view(rows: Dataset) -> Dataset:
    """The same rows with a second positive: the anchor without its diacritics. It fits as well as the first."""
    return rows.map(
        lambda row: {
            "positive_2": strip_diacritics(row["anchor"]),
            "teacher_scores": [row["teacher_scores"][0], *row["teacher_scores"]],
        }
    )
