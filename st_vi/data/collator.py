"""Batches of rows with different tasks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from math import nan
from typing import Any, Literal
from zlib import crc32

import torch
from sentence_transformers.base.data_collator import BaseDataCollator
from transformers.utils import logging

from st_vi.checks import check_choice
from st_vi.data.columns import candidate_columns
from st_vi.data.values import class_of, model_input, scores_of, shown, teacher_vector_of, unopened_input
from st_vi.inputs.lazy import LazyInputs
from st_vi.inputs.videos import StoredVideo
from st_vi.tasks import VIPOLYQWEN_TASKS, Task, check_tasks

logger = logging.get_logger(__name__)
PrefixSide = Literal["anchor", "both", "none"]
_LABELS = ("class", "task", "score", "teacher_scores")


@dataclass
class MixedTaskCollator(BaseDataCollator):
    """Collates rows of mixed tasks, text and images for `DLELoss` in the stock trainer.

    Rows have `task`, `anchor` and `positive`, and where there are any `score`, `anchor_image` and `positive_image`
    (a path, a PIL image, bytes, or a list of them), `anchor_video` and `positive_video` (a list of frames, or the path
    or bytes of a file; `st_vi.inputs.videos.open_video`). Text, images and videos are separate columns because Arrow
    columns cannot hold all; here they become the stock inputs: text, image, or {"text", "image", "video"}.

    Further candidates are `positive_2`, … (for a loss with as many `num_positives`), `negative` or `negative_1`, ….
    `teacher_scores` is a list of numbers, one for each of these columns, positives first. `anchor_teacher`,
    `positive_teacher`, … are a teacher's vectors of these texts, a list of numbers each, all of one size; None where
    a row has none. `class` is the number of the row's class, for terms such as `SimLAP`.

    The prefix of its task stands before the text, as in viPolyQwen: ``f"{prefix} {text}"``. The paper puts it on
    the anchor and uses none for general-purpose inference: with `prefix_dropout`, a share of the rows is trained
    without, so that such input is not new to the model (this project's own).

    A stock `prompts` or `router_mapping`, of columns or of data sets, is for this collator: with one of its own, the
    stock trainer does not apply its arguments. Prompts stand before prefixes. Batch samplers take columns such as
    `task` for labels: the stock ``"group_by_label"`` goes by `class`, or else by `task`. The stock
    ``"no_duplicates"`` takes every empty cell for the same input, so it is not for rows where some have no image;
    `DLELoss` leaves repeated inputs out by itself.

    With `lazy_images`, a batch has its images and videos as they are stored, and `CachedDLELoss` opens and preprocesses
    those of a mini-batch just before it embeds them, so that a batch of thousands of images needs the memory of a
    mini-batch. Give paths or bytes: an image column of `datasets` decodes every image of a batch unless it is cast to
    ``Image(decode=False)``.

    Args:
        preprocess_fn: The model's `preprocess`.
        tasks: The tasks in the order of the loss; a row's label holds the index of its task.
        prefix_side: Which texts get the prefix: the "anchor" (as in the paper, as far as it says), "both" or "none".
        prefix_dropout: Expected share, in [0, 1], of the rows that have no prefix; always the same rows.
        lazy_images: Leave images and videos to `CachedDLELoss`; no other loss can embed such batches.
        prompts: As in the stock collator; so are `router_mapping`, `max_length` and `valid_label_columns`.

    Returns:
        What the trainer expects: ``anchor_…``, ``positive_…``, … features, and ``label`` (B, 2) with the index of the
        task and the score, NaN where there is none; with k teacher scores a row, (B, 2 + k); with teacher vectors of
        size T in any column, (B, 2 + k + (1 + k)·T); if a term needs classes, one more column at the end. With
        `lazy_images`, each column's only feature is its `LazyInputs`.

    Raises:
        ValueError: No rows, an unknown task, a missing column, neither text, image nor video, a score that is not in
            [0, 1], teacher scores that are not one number per candidate, teacher vectors of different sizes or with
            other than finite numbers, a class that is no whole number from 0 on, or a setting out of range. Names
            column and row. With `lazy_images`, an image or video that cannot be read is the same error when the loss
            opens it.

    Example:
        >>> from st_vi import MixedTaskCollator
        >>> collator = MixedTaskCollator(preprocess_fn=lambda inputs: {"texts": inputs})
        >>> rows = [{"anchor": "Trời mưa.", "positive": "Có mưa.", "score": 0.9, "task": "text_pair"}]
        >>> batch = collator(rows)
        >>> batch["anchor_texts"], batch["positive_texts"], batch["label"]
        (['<text_pair> Trời mưa.'], ['Có mưa.'], tensor([[0.0000, 0.9000]]))
    """

    # Those of the stock collator are given by name: second comes `tasks`.
    valid_label_columns: list[str] = field(default_factory=lambda: list(_LABELS), kw_only=True)
    router_mapping: Any = field(default_factory=dict, repr=False, kw_only=True)
    prompts: Any = field(default_factory=dict, repr=False, kw_only=True)
    max_length: Any = field(default=None, repr=False, kw_only=True)
    tasks: Sequence[Task] = VIPOLYQWEN_TASKS
    prefix_side: PrefixSide = "anchor"
    prefix_dropout: float = 0.0
    lazy_images: bool = False

    def __post_init__(self) -> None:
        check_choice("prefix_side", self.prefix_side, PrefixSide)
        check_tasks(self.tasks)
        if not 0 <= self.prefix_dropout <= 1:
            raise ValueError(f"prefix_dropout must lie between 0 and 1, got {self.prefix_dropout}")
        if self.lazy_images and getattr(self.preprocess_fn, "__name__", None) != "preprocess":
            raise ValueError(
                "lazy_images=True needs preprocess_fn=model.preprocess, as the loss calls that of its model"
            )
        if self.lazy_images and (self.prompts or self.router_mapping or self.max_length):
            raise ValueError(
                "lazy_images=True leaves preprocessing to the loss, without prompts, router_mapping and max_length"
            )

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate rows into one batch; see the class."""
        batch: dict[str, Any] = {"label": self.labels(features)}
        if "dataset_name" in features[0]:
            batch["dataset_name"] = features[0]["dataset_name"]
        by_name = {task.name: task for task in self.tasks}
        prefixes = [self._prefix(row, by_name[row["task"]]) for row in features]
        by_column: dict[str, list[Any]] = {}
        for column in _columns(features):
            has_prefix = self.prefix_side == "both" or self.prefix_side == column
            read: Callable[..., Any] = unopened_input if self.lazy_images else model_input
            inputs = []
            for number, (row, prefix) in enumerate(zip(features, prefixes, strict=True)):
                try:
                    inputs.append(read(row, column, prefix if has_prefix else ""))
                except (ImportError, ValueError) as error:
                    kind = ImportError if isinstance(error, ImportError) else ValueError
                    raise kind(f"row {number} of the batch, column {column!r}: {error}") from error
            by_column[column] = inputs
        if self.lazy_images:
            return batch | {f"{column}_input_ids": _lazy(column, inputs) for column, inputs in by_column.items()}
        stock = {each.name: getattr(self, each.name) for each in fields(BaseDataCollator) if each.init}
        collate = BaseDataCollator(**stock | {"preprocess_fn": self._preprocess})
        rows = zip(*by_column.values(), strict=True)
        named = {"dataset_name": batch["dataset_name"]} if "dataset_name" in batch else {}
        return batch | collate([dict(zip(by_column, row, strict=True)) | named for row in rows])

    def labels(self, features: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        """The labels of rows alone; see the class. Their texts and images are not read."""
        if not features:
            raise ValueError("there are no rows to make a batch of")
        index = {task.name: number for number, task in enumerate(self.tasks)}
        if "task" not in features[0]:
            raise ValueError(f"missing column 'task'; the columns are {list(features[0])}")
        names: list[Any] = [row.get("task") for row in features]
        if unknown := {shown(name) for name in names if not isinstance(name, str) or name not in index}:
            raise ValueError(f"unknown task(s) {sorted(unknown)} in column 'task'; the tasks are {list(index)}")
        tasks = [index[name] for name in names]
        columns = _columns(features)
        candidates = columns[1:]
        if "positive" not in candidates and (candidates or any(self.tasks[task].needs_positive for task in tasks)):
            raise ValueError(f"missing column 'positive'; the columns are {list(features[0])}")
        numbered = enumerate(zip(tasks, features, strict=True))
        labels = [[task, *scores_of(row, candidates, f"{number} of the batch")] for number, (task, row) in numbered]
        has_scores = any("teacher_scores" in row for row in features)
        has_vectors = any(f"{column}_teacher" in row for row in features for column in columns)
        has_classes = any(task.needs_class for task in self.tasks)
        width = 2 + len(candidates) if has_scores or has_vectors or has_classes else 2
        parts = [torch.tensor(labels)[:, :width]]
        if has_vectors:
            parts.append(_teacher_vectors(features, columns))
        if has_classes:
            classes = [class_of(row, f"{number} of the batch") for number, row in enumerate(features)]
            parts.append(torch.tensor(classes)[:, None])
        return torch.cat(parts, dim=1)

    def _preprocess(self, inputs: list[Any], **settings: Any) -> dict[str, Any]:
        """What stock sets, such as a prompt or a route, goes on only where it is set."""
        return self.preprocess_fn(inputs, **{name: value for name, value in settings.items() if value is not None})

    def _prefix(self, row: Mapping[str, Any], task: Task) -> str:
        # By the row and not by chance: data loaders draw ahead, so that after a resume chance would fall otherwise.
        text = f"{task.name} {row.get('anchor')} {row.get('positive')}"
        return task.prefix if crc32(text.encode(errors="surrogatepass")) >= self.prefix_dropout * 2**32 else ""


@dataclass
class ScoreCollator(MixedTaskCollator):
    """`MixedTaskCollator` with batches for stock losses, whose label is the score if every row has one, else absent.

    Stock losses would read the task's number as a label; those that need no labels ignore the scores.

    Args:
        preprocess_fn: The model's `preprocess`; see `MixedTaskCollator` for the other arguments.
        datasets: The datasets with a stock loss; None for all. Batches of others are as from `MixedTaskCollator`.
    """

    datasets: Collection[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lazy_images:
            raise ValueError("stock losses cannot open images: lazy_images=True needs CachedDLELoss")

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate rows into one batch; see the class."""
        batch = super().__call__(features)
        if self.datasets is not None and batch["dataset_name"] not in self.datasets:
            return batch
        scores = batch.pop("label")[:, 1]
        return batch if scores.isnan().any() else {"label": scores, **batch}


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The anchor's column, then those of its candidates; all rows of a batch have the same."""
    return ["anchor", *candidate_columns(rows[0])]


def _lazy(column: str, inputs: Sequence[tuple[str, list[Any]]]) -> LazyInputs:
    texts, images = map(list, zip(*inputs, strict=True))
    if any(map(_is_decoded, chain.from_iterable(images))):
        logger.warning_once(
            f"column {column!r} has decoded images, which lazy_images=True cannot save the memory of: give paths or "
            "bytes, or cast the column to datasets.Image(decode=False)"
        )
    return LazyInputs(column, texts, images)


def _is_decoded(stored: Any) -> bool:
    frames = stored.value if isinstance(stored, StoredVideo) else stored
    return any(hasattr(one, "getbands") for one in (frames if isinstance(frames, (list, tuple)) else [frames]))


def _teacher_vectors(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> torch.Tensor:
    """(B, columns · T), column after column; NaN for missing vectors."""
    found: dict[tuple[int, int], torch.Tensor] = {}
    size = None
    for number, row in enumerate(rows):
        for place, column in enumerate(columns):
            vector = teacher_vector_of(row, column, f"{number} of the batch", size)
            if vector is not None:
                found[number, place] = vector
                size = len(vector)
    vectors = torch.full((len(rows), len(columns), size or 0), nan)
    for (number, place), vector in found.items():
        vectors[number, place] = vector
    return vectors.flatten(1)
