"""What stops a training on mixed tasks, found before its first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Literal

import torch
from datasets import Dataset, DatasetDict, IterableDataset
from sentence_transformers import SentenceTransformer

from st_vi.data import MixedTaskCollator, check_task_rows
from st_vi.data.columns import candidate_columns
from st_vi.data.task_rows import task_stream
from st_vi.evaluation import TaskRetrievalEvaluator
from st_vi.inputs.content import opened
from st_vi.losses import DLELoss
from st_vi.modules import Qwen2VLTransformer
from st_vi.recipes.training.best_checkpoint import judges_of
from st_vi.tasks import VIPOLYQWEN_TASKS, Task


def checked_rows(
    dataset: Dataset | IterableDataset | DatasetDict,
    losses: Sequence[DLELoss],
    model: SentenceTransformer,
    bad_image: Literal["error", "skip"],
) -> Dataset | IterableDataset | DatasetDict:
    """The rows that `model` can be trained on with `losses`; of a stream, rows are checked as they come.

    Args:
        dataset: One, or several by name.
        losses: With the same tasks; without any, the paper's tasks are taken.
        model: To be trained.
        bad_image: As for `check_task_rows`.

    Raises:
        ValueError: As for `train_vipolyqwen`; names the data set of a `DatasetDict`.
    """
    if isinstance(dataset, IterableDataset):
        return task_stream(dataset, tasks_of(losses), bad_image, lambda made: check_pictures(model, made))
    if not isinstance(dataset, DatasetDict):
        return _checked(dataset, losses, model, bad_image)
    checked = DatasetDict()
    for name, rows in dataset.items():
        try:
            checked[name] = _checked(rows, losses, model, bad_image)
        except ValueError as error:
            raise ValueError(f"data set {name!r}: {error}") from error
    return checked


def tasks_of(losses: Sequence[DLELoss]) -> tuple[Task, ...]:
    """The tasks of the losses, or without any the paper's.

    Raises:
        ValueError: Two losses have different tasks.
    """
    tasks = losses[0].tasks if losses else VIPOLYQWEN_TASKS
    if any(loss.tasks != tasks for loss in losses):
        raise ValueError("the losses have different tasks: a row's label is the index of its task, the same for all")
    return tasks


def num_positives(dataset: Dataset | IterableDataset | DatasetDict) -> int:
    """How many columns of positives there are in the set, or in the first one."""
    rows = next(iter(dataset.values()), None) if isinstance(dataset, DatasetDict) else dataset
    return sum(name.startswith("positive") for name in candidate_columns(rows.column_names)) if rows is not None else 0


def check_pictures(model: SentenceTransformer, made: Any) -> None:
    """Refuse an input with pictures that the model does not read, or not so many of.

    Raises:
        ValueError: As said.
    """
    if not (hasattr(made, "getbands") or (isinstance(made, Mapping) and "image" in made)):
        return
    if not model.supports("image"):
        raise ValueError("the model reads no pictures")
    if isinstance(model[0], Qwen2VLTransformer):
        model[0].check_length(made)


def check_evaluator(model: SentenceTransformer, evaluator: Any) -> None:
    """Refuse pictures to measure with that the model does not read: not after the first epoch, but now.

    Raises:
        ValueError: As said.
    """
    for judge in judges_of(evaluator):
        if isinstance(judge, TaskRetrievalEvaluator):
            _check_inputs(model, judge.anchors, judge.anchor_keys)
            _check_inputs(model, judge.positives, judge.positive_keys)


def _check_inputs(model: SentenceTransformer, inputs: Sequence[Any], keys: Sequence[Any]) -> None:
    for row in {key: row for row, key in enumerate(keys) if not isinstance(key, str)}.values():
        try:
            check_pictures(model, opened(inputs[row]))
        except ValueError as error:
            raise ValueError(f"row {row} to measure with: {error}") from error


def _checked(
    dataset: Dataset, losses: Sequence[DLELoss], model: SentenceTransformer, bad_image: Literal["error", "skip"]
) -> Dataset:
    rows, _ = check_task_rows(dataset, tasks_of(losses), bad_image, lambda made: check_pictures(model, made))
    if not len(rows):
        raise ValueError("there are no rows to train on")
    given = num_positives(rows)
    for loss in losses:
        if given and given != loss.num_positives:
            raise ValueError(
                f"there are {given} column(s) of positives, and the loss takes {loss.num_positives}, so that others "
                f"would be negatives: give {type(loss).__name__} num_positives={given}"
            )
        _rehearse(rows, loss, model)
    return rows


def _rehearse(rows: Dataset, loss: DLELoss, model: SentenceTransformer) -> None:
    """The loss of one row of every task, with vectors of ones: what a term misses, it misses here."""
    tasks = rows["task"][:]
    first = rows.select(sorted(tasks.index(name) for name in set(tasks)))
    texts = ("anchor", *candidate_columns(rows.column_names))
    first = first.remove_columns([name for name in first.column_names if name.endswith("_image")])
    collate = MixedTaskCollator(lambda inputs: {"inputs": inputs}, tasks=loss.tasks)
    batch = collate([row | {text: row[text] or "a picture" for text in texts} for row in first])
    alone = copy(loss)
    alone.gather_across_devices, alone.observer = False, None
    vectors = torch.ones(len(first), model.get_embedding_dimension() or 1)
    with torch.no_grad():
        alone.compute_loss_from_embeddings([vectors] * len(texts), batch["label"])
