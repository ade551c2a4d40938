"""Rows of every viPolyQwen task from this project's own generators, in any number and without a download."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from datasets import Dataset, DatasetDict

from st_vi.data import sample_nli
from st_vi.data.sample_sets import Split

NLI_SCORES: dict[str, float] = {"entailment": 1.0, "neutral": 0.5, "contradiction": 0.0}
"""NLI labels as scores of a text pair. *Inferred*: viPolyQwen says that pairs have scores, not whose."""


def nli_text_pairs(rows: Dataset) -> Dataset:
    """NLI rows (premise, hypothesis, label by name) as rows of the task text_pair.

    Raises:
        KeyError: A label that is none of `NLI_SCORES`.

    Example:
        >>> from st_vi.data import sample_nli
        >>> from st_vi.data.generated.rows import nli_text_pairs
        >>> nli_text_pairs(sample_nli("test")).column_names
        ['anchor', 'positive', 'score', 'task']
    """
    columns = {"anchor": rows["premise"][:], "positive": rows["hypothesis"][:]}
    scores = [NLI_SCORES[label] for label in rows["label"]]
    return Dataset.from_dict(columns | {"score": scores, "task": ["text_pair"] * len(rows)})


def generated_rows(split: Split, count: int, seed: int, kinds: Sequence[str] | None = None) -> DatasetDict:
    """`count` rows of each kind; no phrase and no inventory of a scene is on both sides of the split.

    - words: the image of a phrase, clean and upright (task ocr);
    - questions, dialogues: on images of coloured shapes (vqa_single, vqa_multi), with the column `options`;
    - image_to_text, text_to_image: scenes and their captions (instr);
    - text_pairs: the shipped NLI samples with the scores 0, ½ and 1 (text_pair); at most as many as there are.

    Args:
        split: "train" or "test".
        count: At least 1.
        seed: Another seed gives other rows.
        kinds: Some of the above; None is all.

    Raises:
        ValueError: An unknown kind or split.

    Example:
        >>> from st_vi.data.generated.rows import generated_rows
        >>> {name: rows["task"][0] for name, rows in generated_rows("test", 2, seed=0).items()}["words"]
        'ocr'
    """
    from st_vi.data.generated.render import word_rows
    from st_vi.data.generated.scenes import caption_rows, scene_rows

    makers: dict[str, Callable[[], Dataset]] = {
        "words": lambda: word_rows(split, count, seed, noise=0.0, max_rotation=0.0, layout="page"),
        "questions": lambda: scene_rows(split, count, seed, tasks=("vqa_single",), options=True),
        "dialogues": lambda: scene_rows(split, count, seed, tasks=("vqa_multi",), options=True),
        "image_to_text": lambda: caption_rows(split, count, seed, direction="image_to_text"),
        "text_to_image": lambda: caption_rows(split, count, seed, direction="text_to_image"),
        "text_pairs": lambda: first_rows(nli_text_pairs(sample_nli(split)), count, seed),
    }
    if unknown := set(kinds or ()) - set(makers):
        raise ValueError(f"unknown kinds {sorted(unknown)}; there are {', '.join(makers)}")
    return DatasetDict({name: make() for name, make in makers.items() if kinds is None or name in kinds})


def first_rows(rows: Dataset, count: int, seed: int) -> Dataset:
    """At most `count` rows, shuffled."""
    return rows.shuffle(seed=seed).select(range(min(count, len(rows))))


def texts_of(*parts: DatasetDict) -> list[str]:
    """Every text of these rows, to train a tokenizer on."""
    columns = [rows[side] for rows_of in parts for rows in rows_of.values() for side in ("anchor", "positive")]
    return [text for column in columns for text in column if text]
