"""Make sure that rows of mixed tasks can be trained on, before the first step."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from datasets import Dataset

from st_vi.data.columns import bad_value, candidate_columns
from st_vi.data.images import open_images
from st_vi.data.triplets import Report
from st_vi.tasks import VIPOLYQWEN_TASKS, Task

logger = logging.getLogger(__name__)

BadImage = Literal["error", "skip"]


def check_task_rows(
    dataset: Dataset, tasks: Sequence[Task] = VIPOLYQWEN_TASKS, bad_image: BadImage = "error"
) -> tuple[Dataset, Report]:
    """Check every row of mixed tasks: its task, texts, images and score.

    Args:
        dataset: Columns anchor, positive, task, and where there are any score, anchor_image, positive_image, further
            candidates, teacher_scores and teacher vectors; see `MixedTaskCollator`. Tasks whose terms look at each
            input alone (`TeacherCosine`) need no positive.
        tasks: The known ones.
        bad_image: A row with an image that cannot be read is an "error", or is left out ("skip") with a warning.

    Returns:
        The rows that can be trained on, with paths and bytes of images as image columns, and the number of rows of
        each task and of those skipped.

    Raises:
        ValueError: A missing column, an unknown task, neither text nor image, a score that is missing or not in
            [0, 1] on a task that needs one, teacher scores that are missing on such a task or not one finite number
            a candidate, a row without any teacher's vector on a task that needs one, a bad image, or another
            `bad_image`. Names column, row (from 0) and value.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.data import check_task_rows
        >>> rows = {"anchor": ["Trời mưa."], "positive": ["Có mưa."], "score": [4.5], "task": ["text_pair"]}
        >>> check_task_rows(Dataset.from_dict(rows))
        Traceback (most recent call last):
        ValueError: column 'score', row 0: expected a score between 0 and 1, got 4.5
    """
    if bad_image not in get_args(BadImage):
        raise ValueError(f"bad_image must be one of {get_args(BadImage)}, got {bad_image!r}")
    by_name = {task.name: task for task in tasks}
    candidates = candidate_columns(dataset.column_names)
    needs_positive = bool(candidates) or any(task.needs_positive for task in tasks)
    for name in ("anchor", *(["positive"] if needs_positive else []), "task"):
        if name not in dataset.column_names:
            raise ValueError(f"missing column {name!r}; the columns are {dataset.column_names}")
    report, good = Report(dict.fromkeys(by_name, 0)), []
    report["skipped for a bad image"] = 0
    for number, row in enumerate(_undecoded(dataset)):
        if not isinstance(row["task"], str) or row["task"] not in by_name:
            bad_value("task", number, row["task"], f"expected one of {list(by_name)}")
        _check_score(row, number, by_name[row["task"]])
        _check_teacher_scores(row, number, by_name[row["task"]], len(candidates))
        _check_teacher_vectors(row, number, by_name[row["task"]], ["anchor", *candidates])
        try:
            for column in ("anchor", *candidates):
                _check_column(row, number, column)
        except _BadImageError as error:
            if bad_image == "error":
                raise ValueError(f"{error} (bad_image='skip' leaves such rows out)") from error
            report["skipped for a bad image"] += 1
            continue
        good.append(number)
        report[row["task"]] += 1
    if skipped := report["skipped for a bad image"]:
        logger.warning(f"{skipped} of {len(dataset)} rows are left out: their images cannot be read")
    rows = dataset if len(good) == len(dataset) else dataset.select(good)
    return _typed(rows), Report({name: count for name, count in report.items() if count})


class _BadImageError(ValueError):
    pass


def _undecoded(dataset: Dataset) -> Dataset:
    """Image columns as bytes or paths, so that one broken image does not end the loop."""
    from datasets import Image, LargeList, List

    for name, feature in dataset.features.items():
        if isinstance(feature, Image):
            dataset = dataset.cast_column(name, Image(decode=False))
        elif isinstance(feature, (List, LargeList)) and isinstance(feature.feature, Image):
            dataset = dataset.cast_column(name, type(feature)(Image(decode=False)))
    return dataset


def _typed(dataset: Dataset) -> Dataset:
    """Columns of paths as image columns: the stock model card takes strings for text, and stumbles over None."""
    from datasets import Image

    for name in [name for name in dataset.column_names if name.endswith("_image")]:
        feature = dataset.features.get(name)
        if getattr(feature, "dtype", None) in ("string", "binary"):
            dataset = dataset.cast_column(name, Image())
    return dataset


def _check_score(row: Mapping[str, Any], number: int, task: Task) -> None:
    score = row.get("score")
    missing = score is None or (isinstance(score, float) and math.isnan(score))
    if missing and not task.needs_score:
        return
    if missing or not isinstance(score, (int, float)) or not 0 <= score <= 1:
        bad_value("score", number, score, "expected a score between 0 and 1")


def _check_teacher_scores(row: Mapping[str, Any], number: int, task: Task, count: int) -> None:
    scores: Any = row.get("teacher_scores")
    if scores is None and not task.needs_teacher:
        return
    numbers = isinstance(scores, list) and all(isinstance(s, (int, float)) and math.isfinite(s) for s in scores)
    if not numbers or len(scores) != count:
        bad_value("teacher_scores", number, scores, f"expected {count} numbers, one for each positive and negative")


def _check_teacher_vectors(row: Mapping[str, Any], number: int, task: Task, columns: Sequence[str]) -> None:
    if task.needs_teacher_vectors and all(row.get(f"{column}_teacher") is None for column in columns):
        bad_value("anchor_teacher", number, None, "expected a teacher's vector of this text, or of another of the row")


def _check_column(row: Mapping[str, Any], number: int, column: str) -> None:
    text, field = row[column], f"{column}_image"
    if text is not None and not isinstance(text, str):
        bad_value(column, number, text, "expected text")
    try:
        images = open_images(row.get(field))
    except ValueError as error:
        raise _BadImageError(f"column {field!r}, row {number}: {error}") from error
    if not images and not (text and text.strip()):
        bad_value(column, number, text, "expected text or an image")
