"""Checks of mixed-task rows before training."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import Any

import torch
from datasets import Dataset, DatasetDict, IterableDataset
from sentence_transformers import SentenceTransformer

from st_vi.data import MixedTaskCollator, check_task_rows
from st_vi.data.columns import candidate_columns
from st_vi.data.task_rows import BadImage, task_stream
from st_vi.evaluation import TaskRetrievalEvaluator
from st_vi.inputs.content import Size, picture_sizes
from st_vi.losses import DLELoss
from st_vi.modules import Qwen2VLTransformer
from st_vi.recipes.training.best_checkpoint import judges_of
from st_vi.tasks import VIPOLYQWEN_TASKS, Task


def checked_rows(
    dataset: Dataset | IterableDataset | DatasetDict,
    losses: Sequence[DLELoss],
    model: SentenceTransformer,
    bad_image: BadImage,
) -> Dataset | IterableDataset | DatasetDict:
    """Check the rows for training `model` with `losses`; rows of a stream are checked as they arrive.

    All losses have the same tasks; without losses, they are those of the paper.
    """
    if isinstance(dataset, IterableDataset):
        return task_stream(dataset, tasks_of(losses), bad_image, partial(check_pictures, model))
    if not isinstance(dataset, DatasetDict):
        return _checked(dataset, losses, model, bad_image)
    checked = DatasetDict()
    for name, rows in dataset.items():
        try:
            checked[name] = _checked(rows, losses, model, bad_image)
        except ValueError as error:
            raise ValueError(f"dataset {name!r}: {error}") from error
    return checked


def tasks_of(losses: Sequence[DLELoss]) -> tuple[Task, ...]:
    """The tasks of the losses, or those of the paper if there are no losses."""
    tasks = losses[0].tasks if losses else VIPOLYQWEN_TASKS
    if any(loss.tasks != tasks for loss in losses):
        raise ValueError("all losses must have the same tasks, because a row's label is the index of its task")
    return tasks


def num_positives(dataset: Dataset | IterableDataset | DatasetDict) -> int:
    """Number of positive columns in the dataset, or in the first of several."""
    rows = next(iter(dataset.values()), None) if isinstance(dataset, DatasetDict) else dataset
    return sum(name.startswith("positive") for name in candidate_columns(rows.column_names)) if rows is not None else 0


def check_pictures(model: SentenceTransformer, sizes: Sequence[Size]) -> None:
    """Check that the model can process the images and videos of an input, by their sizes."""
    if any(len(size) == 2 for size in sizes) and not model.supports("image"):
        raise ValueError("the model reads no images")
    if any(len(size) == 3 for size in sizes) and not model.supports("video"):
        raise ValueError("the model reads no videos")
    if isinstance(model[0], Qwen2VLTransformer):
        model[0].check_length(sizes)


def check_evaluator(model: SentenceTransformer, evaluator: Any) -> None:
    """Check the images of an evaluator before training instead of after the first epoch."""
    for judge in judges_of(evaluator):
        if isinstance(judge, TaskRetrievalEvaluator):
            for keys in (judge.anchor_keys, judge.positive_keys):
                _check_inputs(model, keys)


def _check_inputs(model: SentenceTransformer, keys: Sequence[Any]) -> None:
    for row, key in enumerate(keys):
        try:
            if sizes := picture_sizes(key):
                check_pictures(model, sizes)
        except ValueError as error:
            raise ValueError(f"evaluation row {row}: {error}") from error


def _checked(dataset: Dataset, losses: Sequence[DLELoss], model: SentenceTransformer, bad_image: BadImage) -> Dataset:
    rows, _ = check_task_rows(dataset, tasks_of(losses), bad_image, partial(check_pictures, model))
    if not len(rows):
        raise ValueError("there are no rows to train on")
    given = num_positives(rows)
    for loss in losses:
        if given and given != loss.num_positives:
            raise ValueError(
                f"there are {given} column(s) of positives, but the loss expects {loss.num_positives} and would treat "
                f"others as negatives: set {type(loss).__name__}(num_positives={given})"
            )
        _rehearse(rows, loss, model)
    return rows


def _rehearse(rows: Dataset, loss: DLELoss, model: SentenceTransformer) -> None:
    """Compute the loss of one row of every task with vectors of ones, so that terms report missing columns."""
    tasks = rows["task"][:]
    first = rows.select(sorted(tasks.index(name) for name in set(tasks)))
    first = first.remove_columns([name for name in first.column_names if name.endswith(("_image", "_video"))])
    labels = MixedTaskCollator(model.preprocess, tasks=loss.tasks).labels(list(first))
    alone = copy(loss)
    alone.gather_across_devices, alone.observer = False, None
    vectors = torch.ones(len(first), model.get_embedding_dimension() or 1)
    with torch.no_grad():
        alone.compute_loss_from_embeddings([vectors] * (1 + len(candidate_columns(rows.column_names))), labels)
