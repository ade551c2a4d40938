"""Batches in which every row has a task of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args
from zlib import crc32

import torch
from sentence_transformers.base.data_collator import BaseDataCollator

from st_vi.data.columns import candidate_columns
from st_vi.data.images import open_images
from st_vi.tasks import VIPOLYQWEN_TASKS, Task

PrefixSide = Literal["anchor", "both", "none"]


@dataclass
class MixedTaskCollator(BaseDataCollator):
    """Collates rows of mixed tasks, text and images for `DLELoss` in the stock trainer.

    Rows have `task`, `anchor` and `positive`, and where there are any `score`, `anchor_image` and `positive_image`
    (a path, a PIL image, bytes, or a list of them). Text and images are separate columns because Arrow columns
    cannot hold both; here they become the stock inputs: text, image, or {"text", "image"}.

    Further candidates are `positive_2`, … (for a loss with as many `num_positives`), `negative` or `negative_1`, ….
    `teacher_scores` is a list of numbers, one for each of these columns, positives first.

    The prefix of its task stands before the text, as in viPolyQwen: ``f"{prefix} {text}"``. The paper puts it on
    the anchor and uses none for general-purpose inference: with `prefix_dropout`, a share of the rows is trained
    without, so that such input is not new to the model (this project's own).

    Args:
        preprocess_fn: The model's `preprocess`.
        tasks: In the order of the loss: a row's label is the index of its task.
        prefix_side: Prefix on the "anchor" (the paper's, as far as it says), on "both", or "none".
        prefix_dropout: Expected share, in [0, 1], of the rows that have no prefix; always the same rows.

    Returns:
        What the trainer expects: ``anchor_…``, ``positive_…``, … features, and ``label`` (B, 2) with the index of the
        task and the score, NaN where there is none; with k teacher scores a row, (B, 2 + k).

    Raises:
        ValueError: An unknown task, a missing column, an image that cannot be read, or a setting out of range.

    Example:
        >>> from st_vi import MixedTaskCollator
        >>> collator = MixedTaskCollator(preprocess_fn=lambda inputs: {"texts": inputs})
        >>> rows = [{"anchor": "Trời mưa.", "positive": "Có mưa.", "score": 0.9, "task": "text_pair"}]
        >>> batch = collator(rows)
        >>> batch["anchor_texts"], batch["positive_texts"], batch["label"]
        (['<text_pair> Trời mưa.'], ['Có mưa.'], tensor([[0.0000, 0.9000]]))
    """

    tasks: Sequence[Task] = VIPOLYQWEN_TASKS
    prefix_side: PrefixSide = "anchor"
    prefix_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.prefix_side not in get_args(PrefixSide):
            raise ValueError(f"prefix_side must be one of {get_args(PrefixSide)}, got {self.prefix_side!r}")
        if not 0 <= self.prefix_dropout <= 1:
            raise ValueError(f"prefix_dropout must lie between 0 and 1, got {self.prefix_dropout}")

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate rows into one batch; see the class."""
        index = {task.name: number for number, task in enumerate(self.tasks)}
        if unknown := {row.get("task") for row in features} - set(index):
            raise ValueError(f"unknown task(s) {sorted(map(repr, unknown))}; the tasks are {list(index)}")
        tasks = [index[row["task"]] for row in features]
        candidates = candidate_columns(features[0])
        labels = [
            [task, _number(row.get("score")), *_teacher_scores(row, candidates)]
            for task, row in zip(tasks, features, strict=True)
        ]
        batch: dict[str, Any] = {"label": torch.tensor(labels)}
        if "dataset_name" in features[0]:
            batch["dataset_name"] = features[0]["dataset_name"]

        prefixes = [self._prefix(row, self.tasks[task]) for row, task in zip(features, tasks, strict=True)]
        for column in ("anchor", *candidates):
            has_prefix = self.prefix_side == "both" or self.prefix_side == column
            inputs = [
                model_input(row, column, prefix if has_prefix else "")
                for row, prefix in zip(features, prefixes, strict=True)
            ]
            batch |= {f"{column}_{key}": value for key, value in self.preprocess_fn(inputs).items()}
        return batch

    def _prefix(self, row: Mapping[str, Any], task: Task) -> str:
        # By the row and not by chance: data loaders draw ahead, so that after a resume chance would fall otherwise.
        text = f"{task.name} {row.get('anchor')} {row.get('positive')}"
        return task.prefix if crc32(text.encode()) >= self.prefix_dropout * 2**32 else ""


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _teacher_scores(row: Mapping[str, Any], candidates: Sequence[str]) -> list[float]:
    if "teacher_scores" not in row:
        return []
    scores = row["teacher_scores"]
    if scores is None:
        return [float("nan")] * len(candidates)
    if len(scores) != len(candidates):
        raise ValueError(f"teacher_scores needs one number for each of {list(candidates)}, got {scores}")
    return [_number(score) for score in scores]


def model_input(row: Mapping[str, Any], column: str, prefix: str = "") -> Any:
    """Text and images of a column as one stock input: a string, an image, or {"text", "image"}.

    Raises:
        ValueError: There is neither text nor image, or an image cannot be read.
    """
    images = open_images(row.get(f"{column}_image"))
    text = f"{prefix} {row.get(column) or ''}".strip()
    if not images:
        if not row.get(column):
            raise ValueError(f"a row has neither text nor image in {column!r}")
        return text
    image = images[0] if len(images) == 1 else images
    return {"text": text, "image": image} if text else image
