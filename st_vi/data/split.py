"""Splits without leaks: rows with the same anchor stay on one side."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

from datasets import Dataset, DatasetDict

from st_vi.data.accepted import Rows, as_dataset
from st_vi.data.columns import check_text, find_columns
from st_vi.data.task_rows import ModelInputs
from st_vi.data.values import bad_value
from st_vi.inputs.content import content_key
from st_vi.text import comparison_key


def split_by_anchor(dataset: Rows, test_size: float = 0.2, anchor: str | None = None, seed: int = 0) -> DatasetDict:
    """Split rows into "train" and "test" so that no anchor is on both sides.

    The side is a hash of the seed and the anchor's `st_vi.text.comparison_key`: it depends neither on the order of the
    rows nor on other rows, so several sets split with one seed share no anchor across sides either. Where a row has
    images (in "{anchor}_image"), these are its anchor and not what is asked about them: one question may be asked of
    all, and several questions of one.

    Args:
        dataset: The rows.
        test_size: Expected share of the anchors in "test", between 0 and 1.
        anchor: The column; None finds anchor, premise, evidence or sentence1.
        seed: Another seed gives another split.

    Raises:
        ValueError: `test_size` out of range, a missing column, or text that is empty or no string.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.data import split_by_anchor
        >>> rows = Dataset.from_dict({"premise": [f"Câu số {i // 3}." for i in range(30)]})
        >>> sides = split_by_anchor(rows, test_size=0.3)
        >>> set(sides["train"]["premise"]) & set(sides["test"]["premise"])
        set()
    """
    dataset = as_dataset(dataset)
    if not isinstance(test_size, (int, float)) or not 0 < test_size < 1:
        raise ValueError(f"test_size must lie between 0 and 1, got {test_size!r}")
    column = find_columns(dataset.column_names, ["anchor"], {"anchor": anchor} if anchor else None)["anchor"]
    in_test = [_uniform(f"{seed} {text}") < test_size for text in _anchors(dataset, column)]
    rows: dict[bool, list[int]] = {False: [], True: []}
    for row, side in enumerate(in_test):
        rows[side].append(row)
    return DatasetDict({"train": dataset.select(rows[False]), "test": dataset.select(rows[True])})


def _anchors(dataset: Dataset, column: str) -> Iterator[str]:
    inputs = ModelInputs(DatasetDict({"rows": dataset}), column)
    for number, text in enumerate(dataset[column]):
        if not {f"{column}_image", f"{column}_video"} & set(dataset.column_names):
            yield comparison_key(check_text(text, column, number))
            continue
        made = inputs[number]
        if isinstance(made, dict):
            made = next(made[kind] for kind in ("image", "video", "text") if kind in made)
        yield comparison_key(made) if isinstance(made, str) else repr(content_key(made))


def _uniform(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) / 2**64


def split_by_task(rows: Rows) -> DatasetDict:
    """One dataset for each task, in the order in which tasks come up.

    Raises:
        ValueError: There is no column `task`, or a task that is no string.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.data import split_by_task
        >>> rows = Dataset.from_dict({"anchor": ["a", "b", "c"], "task": ["ocr", "instr", "ocr"]})
        >>> {task: part["anchor"][:] for task, part in split_by_task(rows).items()}
        {'ocr': ['a', 'c'], 'instr': ['b']}
    """
    rows = as_dataset(rows)
    if "task" not in rows.column_names:
        raise ValueError(f"missing column 'task'; the columns are {rows.column_names}")
    numbers: dict[str, list[int]] = {}
    for number, task in enumerate(rows["task"]):
        if not isinstance(task, str):
            bad_value("task", number, task, "expected the name of a task")
        numbers.setdefault(task, []).append(number)
    return DatasetDict({task: rows.select(of_task) for task, of_task in numbers.items()})
