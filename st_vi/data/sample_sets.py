"""The sample sets that were written for this project and ship with it."""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

from datasets import Dataset

from st_vi.files.read import read_rows

Split = Literal["train", "test"]


def sample_nli(split: Split | None = None) -> Dataset:
    """Vietnamese NLI: premise, hypothesis, label ("entailment", "neutral", "contradiction"), topic and split.

    Some 1,200 premises on everyday topics, each with one hypothesis of every label; about a quarter of the premises is
    marked as held out. For demonstrations, tests and a small model's last stage: too small to train a model alone.

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


def sample_retrieval(split: Split | None = None) -> Dataset:
    """Vietnamese questions with the passage that answers each: question, passage, passage_id, topic and split.

    204 passages of 70 to 95 syllables with three or four questions each. Passages of one topic are alike (six
    bus routes, seven medicine leaflets), and many questions share few words with their passage. Names, numbers and
    facts are invented. About a quarter of the passages is marked as held out; no passage is on both sides.

    Args:
        split: "train", "test" (held out), or None for both.

    Example:
        >>> from st_vi.data import sample_retrieval
        >>> rows = sample_retrieval("test")
        >>> rows.column_names
        ['question', 'passage', 'passage_id', 'topic', 'split']
        >>> len(rows) > 2 * len(set(rows["passage_id"]))
        True
    """
    rows = [
        {
            "question": question,
            "passage": row["passage"],
            "passage_id": row["passage_id"],
            "topic": row["topic"],
            "split": row["split"],
        }
        for row in _read("retrieval.jsonl", split)
        for question in row["questions"]
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
