"""Batches in which every row has a task of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import Any, Literal, get_args
from zlib import crc32

import torch
from sentence_transformers.base.data_collator import BaseDataCollator

from st_vi.data.columns import bad_value, candidate_columns, shown
from st_vi.data.images import open_images
from st_vi.modules.unicode_text import is_unicode
from st_vi.tasks import VIPOLYQWEN_TASKS, Task

PrefixSide = Literal["anchor", "both", "none"]


@dataclass
class MixedTaskCollator(BaseDataCollator):
    """Collates rows of mixed tasks, text and images for `DLELoss` in the stock trainer.

    Rows have `task`, `anchor` and `positive`, and where there are any `score`, `anchor_image` and `positive_image`
    (a path, a PIL image, bytes, or a list of them). Text and images are separate columns because Arrow columns
    cannot hold both; here they become the stock inputs: text, image, or {"text", "image"}.

    Further candidates are `positive_2`, … (for a loss with as many `num_positives`), `negative` or `negative_1`, ….
    `teacher_scores` is a list of numbers, one for each of these columns, positives first. `anchor_teacher`,
    `positive_teacher`, … are a teacher's vectors of these texts, a list of numbers each, all of one size; None where
    a row has none.

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
        task and the score, NaN where there is none; with k teacher scores a row, (B, 2 + k); with teacher vectors of
        size T in any column, (B, 2 + k + (1 + k)·T).

    Raises:
        ValueError: No rows, an unknown task, a missing column, neither text nor image, a score that is not in [0, 1],
            teacher scores that are not one number a candidate, teacher vectors of different sizes or with anything but
            finite numbers, or a setting out of range. Names column and row.

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
        if not features:
            raise ValueError("there are no rows to make a batch of")
        index = {task.name: number for number, task in enumerate(self.tasks)}
        names: list[Any] = [row.get("task") for row in features]
        if unknown := {shown(name) for name in names if not isinstance(name, str) or name not in index}:
            raise ValueError(f"unknown task(s) {sorted(unknown)} in column 'task'; the tasks are {list(index)}")
        tasks = [index[name] for name in names]
        candidates = candidate_columns(features[0])
        if "positive" not in candidates and (candidates or any(self.tasks[task].needs_positive for task in tasks)):
            raise ValueError(f"missing column 'positive'; the columns are {list(features[0])}")
        taught = any("teacher_scores" in row for row in features)
        labels = [
            [task, _score(row, number), *(_teacher_scores(row, number, candidates) if taught else [])]
            for number, (task, row) in enumerate(zip(tasks, features, strict=True))
        ]
        batch: dict[str, Any] = {"label": torch.tensor(labels)}
        if any(f"{column}_teacher" in row for row in features for column in ("anchor", *candidates)):
            unknown_scores = torch.full((len(features), 0 if taught else len(candidates)), nan)
            vectors = _teacher_vectors(features, ("anchor", *candidates))
            batch["label"] = torch.cat([batch["label"], unknown_scores, vectors], dim=1)
        if "dataset_name" in features[0]:
            batch["dataset_name"] = features[0]["dataset_name"]

        prefixes = [self._prefix(row, self.tasks[task]) for row, task in zip(features, tasks, strict=True)]
        for column in ("anchor", *candidates):
            has_prefix = self.prefix_side == "both" or self.prefix_side == column
            inputs = []
            for number, (row, prefix) in enumerate(zip(features, prefixes, strict=True)):
                try:
                    inputs.append(model_input(row, column, prefix if has_prefix else ""))
                except ValueError as error:
                    raise ValueError(f"row {number} of the batch, column {column!r}: {error}") from error
            batch |= {f"{column}_{key}": value for key, value in self.preprocess_fn(inputs).items()}
        return batch

    def _prefix(self, row: Mapping[str, Any], task: Task) -> str:
        # By the row and not by chance: data loaders draw ahead, so that after a resume chance would fall otherwise.
        text = f"{task.name} {row.get('anchor')} {row.get('positive')}"
        return task.prefix if crc32(text.encode(errors="surrogatepass")) >= self.prefix_dropout * 2**32 else ""


def _score(row: Mapping[str, Any], number: int) -> float:
    score = _number(row.get("score"), "score", number)
    if score < 0 or score > 1:
        bad_value("score", f"{number} of the batch", row["score"], "expected a score between 0 and 1")
    return score


def _teacher_scores(row: Mapping[str, Any], number: int, candidates: Sequence[str]) -> list[float]:
    scores = row.get("teacher_scores")
    if scores is None:
        return [nan] * len(candidates)
    try:
        count = 0 if isinstance(scores, str) else len(scores)
    except TypeError:  # a number, or a tensor without dimensions
        count = 0
    if count != len(candidates):
        raise ValueError(
            f"row {number} of the batch: teacher_scores needs one number for each of {list(candidates)}, "
            f"got {shown(scores)}"
        )
    return [_number(score, "teacher_scores", number) for score in scores]


def _teacher_vectors(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> torch.Tensor:
    """(B, columns · T), column after column; NaN for a vector that is None or whose column is not there."""
    found: dict[tuple[int, int], torch.Tensor] = {}
    for number, row in enumerate(rows):
        for place, column in enumerate(columns):
            value = row.get(f"{column}_teacher")
            if value is None:
                continue
            try:
                vector = torch.as_tensor(value, dtype=torch.float32)
            except (TypeError, ValueError, RuntimeError):
                vector = torch.empty(0, 0)
            size = len(next(iter(found.values()), vector))
            if vector.ndim != 1 or not len(vector) or len(vector) != size or not vector.isfinite().all():
                expected = f"expected {size if vector.ndim == 1 and size else 'a list of'} finite numbers"
                bad_value(f"{column}_teacher", f"{number} of the batch", value, expected)
            found[number, place] = vector
    size = len(next(iter(found.values()), ()))
    vectors = torch.full((len(rows), len(columns), size), nan)
    for (number, place), vector in found.items():
        vectors[number, place] = vector
    return vectors.flatten(1)


def _number(value: Any, column: str, number: int) -> float:
    """NaN for None. What is too large for fp32 is an error, and not infinite without a word."""
    try:
        result = nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        bad_value(column, f"{number} of the batch", value, "expected a number")
    if torch.finfo(torch.float32).max < abs(result) < inf:
        bad_value(column, f"{number} of the batch", value, "expected a smaller number")
    return result


def model_input(row: Mapping[str, Any], column: str, prefix: str = "") -> Any:
    """Text and images of a column as one stock input: a string, an image, or {"text", "image"}.

    Raises:
        ValueError: There is neither text nor image, what should be text is none, or an image cannot be read.
    """
    text = row.get(column)
    if not (text is None or (isinstance(text, str) and is_unicode(text))):
        raise ValueError(f"expected text in {column!r}, got {shown(text)}")
    images = open_images(row.get(f"{column}_image"))
    if not images and not (text and text.strip()):
        raise ValueError(f"a row has neither text nor image in {column!r}")
    text = f"{prefix} {text or ''}".strip()
    if not images:
        return text
    image = images[0] if len(images) == 1 else images
    return {"text": text, "image": image} if text else image
