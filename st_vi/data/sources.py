"""Rows of several files or Hub ids as one dataset, for the command line."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets

from st_vi.data.columns import clean_texts, find_columns
from st_vi.data.nli import known_labels, unused_labels
from st_vi.data.task_rows import BadImage, check_task_rows, combined, undecoded
from st_vi.data.triplets import Report
from st_vi.files.read import local_path, read_rows
from st_vi.inputs.kinds import is_missing
from st_vi.inputs.pictures import bytes_in_text
from st_vi.tasks import VIDEO_TASK, VIPOLYQWEN_TASKS, Task
from st_vi.text import comparison_key

logger = logging.getLogger(__name__)

TASK_ROLES = (
    *("anchor", "anchor_image", "anchor_video", "positive", "positive_image", "positive_video"),
    *("score", "task", "options"),
)


def nli_rows(
    *groups: Sequence[str | Path],
    columns: Mapping[str, str] | None = None,
    labels: Mapping[Any, str] | None = None,
    places: bool = False,
) -> list[Dataset]:
    """NLI rows as premise, hypothesis and label ("entailment", …), with texts normalised: one dataset a group.

    Args:
        groups: Files or Hub ids, as for `read_rows`; those for training, say, and those that are held out.
        columns: Role ("premise", "hypothesis", "label") to column, for columns with unusual names.
        labels: See `canonical_labels`.
        places: Add a column "place", such as "3 of rows.csv", for messages about rows of several files.

    Raises:
        ValueError: See `nli_to_triplets`; the message begins with the source. Or a key of `labels` is in no source.

    Example:
        >>> import tempfile
        >>> from st_vi.data.sources import nli_rows
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = open(f"{folder}/a.csv", "w", encoding="utf-8").write("câu,premise,nhãn\\nMưa.,Nắng.,mâu thuẫn\\n")
        ...     rows, = nli_rows([f"{folder}/a.csv"], columns={"hypothesis": "câu", "label": "nhãn"})
        >>> rows[0]
        {'premise': 'Nắng.', 'hypothesis': 'Mưa.', 'label': 'contradiction'}
    """
    unused = None
    made = []
    for sources in groups:
        parts = []
        for source in sources:
            rows = read_rows(source)
            try:
                found = find_columns(rows.column_names, ("premise", "hypothesis", "label"), columns)
                names = known_labels(rows, found["label"], labels)
                texts = {role: clean_texts(rows[found[role]], found[role]) for role in ("premise", "hypothesis")}
            except ValueError as error:
                raise ValueError(f"{source}: {error}") from error
            here = unused_labels(rows, found["label"], labels)
            unused = here if unused is None else [value for value in unused if value in here]
            where = {"place": [f"{number} of {source}" for number in range(len(rows))]} if places else {}
            parts.append(Dataset.from_dict(texts | {"label": names} | where))
        made.append(concatenate_datasets(parts))
    if unused:
        raise ValueError(
            f"labels (--label): no row of {', '.join(str(s) for group in groups for s in group)} has {unused[0]}"
        )
    return made


def task_rows(
    sources: Sequence[str | Path],
    columns: Mapping[str, str] | None = None,
    tasks: Sequence[Task] = (*VIPOLYQWEN_TASKS, VIDEO_TASK),
    bad_image: BadImage = "error",
) -> tuple[Dataset, Report]:
    """Rows of mixed tasks of all sources, checked; a path of an image or video in a file is relative to that file.

    Args:
        sources: Files or Hub ids, as for `read_rows`.
        columns: Role (one of `TASK_ROLES`) to column, where it has another name.
        tasks: See `check_task_rows`.
        bad_image: See `check_task_rows`.

    Returns:
        The rows, and how many there are of each task.

    Raises:
        ValueError: See `read_rows`, `check_task_rows` and `combine_rows`; the message begins with the source. Or a
            column of `columns` is missing.
    """
    if unknown := set(columns or ()) - set(TASK_ROLES):
        raise ValueError(f"columns: no role {sorted(unknown)}; the roles are {list(TASK_ROLES)}")
    parts, total = [], Report()
    for source in sources:
        rows = renamed(read_rows(source), source, columns or {})
        if (file := local_path(source)) is not None:
            rows = _with_paths_from(rows, file.parent)
        try:
            rows, report = check_task_rows(rows, tasks, bad_image)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
        parts.append(rows)
        for name, count in report.items():
            total[name] = total.get(name, 0) + count
    return combined(parts), total


def _with_paths_from(rows: Dataset, folder: Path) -> Dataset:
    """The rows with paths of images and videos that are relative to the working directory instead of the file."""

    def seen_from_here(value: Any) -> Any:
        if isinstance(value, list):
            return [seen_from_here(one) for one in value]
        if isinstance(value, Mapping):  # as `datasets` stores an image; the path of bytes is a name
            by_path = value.get("bytes") is None and "path" in value
            return {**value, "path": seen_from_here(value["path"])} if by_path else value
        if not isinstance(value, str) or is_missing(value):
            return value
        is_whole = re.match("data:|.*://", value, re.IGNORECASE) or bytes_in_text(value) is not None
        return value if is_whole else str(folder / os.path.expanduser(value))

    order = rows.column_names
    for name in [name for name in order if name.endswith(("_image", "_video"))]:
        stored = undecoded(rows.select_columns([name]))
        if any(seen_from_here(row[name]) != row[name] for row in stored):  # else, as of bytes, no copy is made
            paths = [seen_from_here(row[name]) for row in stored]
            rows = rows.remove_columns(name).add_column(name, paths, feature=rows.features[name])
    return rows.select_columns(order)


def say_what_is_in_both(train: Dataset, held_out: Dataset) -> None:
    """Warn of held-out rows whose texts, images and videos are those of a training row: they show no generalisation.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.data.sources import say_what_is_in_both
        >>> say_what_is_in_both(Dataset.from_dict({"anchor": ["Mưa."]}), Dataset.from_dict({"anchor": ["Nắng."]}))
    """
    inputs = ("premise", "hypothesis", *(role for role in TASK_ROLES if role.startswith(("anchor", "positive"))))
    names = [name for name in inputs if name in train.column_names or name in held_out.column_names]

    def contents(rows: Dataset) -> Iterator[int]:
        for row in undecoded(rows.select_columns([name for name in names if name in rows.column_names])):
            found = [None if is_missing(value) else value for value in map(row.get, names)]
            yield hash(tuple(comparison_key(value) if isinstance(value, str) else repr(value) for value in found))

    known = set(contents(train))
    if shared := sum(content in known for content in contents(held_out)):
        logger.warning(f"{shared} of {len(held_out)} held-out rows are training rows, too: their figures say little")


def renamed(rows: Dataset, source: str | Path, columns: Mapping[str, str]) -> Dataset:
    """The rows with the columns named by their role, in place of others of that name."""
    try:
        found = find_columns(rows.column_names, columns, columns)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    roles = {name: role for role, name in found.items() if name != role}
    taken = [role for role in roles.values() if role in rows.column_names and role not in roles]
    rows = rows.remove_columns(taken)  # the column that is named stands for it
    return rows.rename_columns(roles) if roles else rows
