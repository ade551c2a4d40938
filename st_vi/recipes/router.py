"""A prefix that chooses itself: train a `TaskRouter` on rows of mixed tasks."""

from __future__ import annotations

import numpy as np
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformer
from tqdm.auto import tqdm

from st_vi.data.accepted import TrainRows, as_datasets
from st_vi.data.task_rows import ModelInputs
from st_vi.modules import TaskRouter
from st_vi.modules.task_router import check_model, plain_vectors


def train_router(
    model: SentenceTransformer,
    rows: TrainRows,
    threshold: float = 0.5,
    batch_size: int = 32,
    show_progress_bar: bool = False,
) -> TaskRouter:
    """Train a `TaskRouter` on the anchors of rows, and add it to the model, whose prompt "auto" then chooses.

    The weights of the model stay as they are. Its router, if it has one, is replaced.

    Args:
        model: A model with a prompt for each task, such as one trained with `train_vipolyqwen`; changed in place.
        rows: Rows as for `train_vipolyqwen`; of their columns, task and the anchor's are used.
        threshold: Probability below which an input gets no prefix.
        batch_size: Inputs per batch.
        show_progress_bar: Show the progress.

    Returns:
        The router, the last module of the model.

    Raises:
        ValueError: The rows are of fewer than two tasks, the model has no prompt for one of them or is no viPolyQwen, a
            column is missing, or an anchor cannot be read.

    Example:
        >>> from st_vi import load
        >>> from st_vi.data.generated.rows import generated_rows
        >>> from st_vi.recipes import train_router
        >>> model = load("poly-mini", device="cpu")
        >>> router = train_router(model, generated_rows("train", 8, seed=0, kinds=["words", "text_pairs"]))
        >>> [choice.task for choice in router.choose(model, ["Trời mưa to.", "Mèo đang ngủ trên ghế."])]
        ['text_pair', 'text_pair']
        >>> model.encode("Trời mưa to.", prompt_name="auto").shape
        (384,)
    """
    rows = as_datasets(rows)
    parts = rows if isinstance(rows, DatasetDict) else DatasetDict(rows=rows)
    tasks = [task for part in parts.values() for task in _tasks(part)]
    if len(set(tasks)) < 2:
        raise ValueError(f"a router chooses among tasks, and these rows are of {sorted(set(tasks)) or 'none'}")
    names = sorted(set(tasks))
    check_model(model, names)
    anchors, vectors = ModelInputs(parts, "anchor"), []
    for start in tqdm(range(0, len(anchors), batch_size), desc="Anchors", disable=not show_progress_bar):
        batch = [anchors[number] for number in range(start, min(start + batch_size, len(anchors)))]
        vectors.append(plain_vectors(model, batch, batch_size))
    router = TaskRouter(names, vectors[0].shape[1], threshold)
    router.fit(np.concatenate(vectors), tasks)
    for place in reversed(range(len(model))):
        if isinstance(model[place], TaskRouter):
            del model[place]
    model.append(router.to(model.device))
    router.on_model_ready(model)
    return router


def _tasks(rows: Dataset) -> list[str]:
    for column in ("anchor", "task"):
        if column not in rows.column_names:
            raise ValueError(f"missing column {column!r}; the columns are {rows.column_names}")
    for row, task in enumerate(tasks := rows["task"][:]):
        if not isinstance(task, str):
            raise ValueError(f"column 'task', row {row}: expected the name of a task, got {task!r}")
    return tasks
