"""The sample sets that were written for this project and ship with it."""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

from datasets import Dataset

from st_vi.data.read import read_rows

Split = Literal["train", "test"]


def sample_nli(split: Split | None = None) -> Dataset:
    """Vietnamese NLI: premise, hypothesis, label ("entailment", "neutral", "contradiction"), topic and split.

    400 premises on 20 topics, each with one hypothesis of every label. A quarter of the premises of each topic
    is marked as held out. For demonstrations and tests: too small to train a model worth using.

    Args:
        split: "train", "test" (held out), or None for both.

    Example:
        >>> from st_vi.data import sample_nli
        >>> sample_nli("test").column_names
        ['premise', 'hypothesis', 'label', 'topic', 'split']
    """
    rows = [
        {
            "premise": row["premise"],
            "hypothesis": row[label],
            "label": label,
            "topic": row["topic"],
            "split": row["split"],
        }
        for row in _read("nli.jsonl", split)
        for label in ("entailment", "neutral", "contradiction")
    ]
    return Dataset.from_list(rows)


def sample_sts(split: Split | None = None) -> Dataset:
    """Vietnamese sentence similarity: sentence1, sentence2, score (0 unrelated to 5 same meaning) and split.

    Args:
        split: "train", "test" (held out), or None for all 150 pairs.

    Example:
        >>> from st_vi.data import sample_sts
        >>> max(sample_sts()["score"])
        5.0
    """
    return _read("sts.jsonl", split)


def _read(name: str, split: Split | None) -> Dataset:
    if split not in ("train", "test", None):
        raise ValueError(f"split must be 'train', 'test' or None, got {split!r}")
    dataset = read_rows(str(files("st_vi.data") / "samples" / name))
    return dataset if split is None else dataset.filter(lambda value: value == split, input_columns="split")
