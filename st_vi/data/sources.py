"""Rows of several files or hub ids as one data set: what the command line reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets

from st_vi.data.columns import clean_texts, find_columns
from st_vi.data.formats import combine_rows
from st_vi.data.labels import known_labels, unused_labels
from st_vi.data.read import read_rows

TASK_ROLES = ("anchor", "anchor_image", "positive", "positive_image", "score", "task", "options")


def nli_rows(
    *groups: Sequence[str | Path],
    columns: Mapping[str, str] | None = None,
    labels: Mapping[Any, str] | None = None,
) -> list[Dataset]:
    """NLI rows as premise, hypothesis and label ("entailment", …), with texts normalised: one data set a group.

    Args:
        groups: Files or hub ids, as for `read_rows`; those for training, say, and those that are held out.
        columns: Which column is "premise", "hypothesis", "label", where the names are not the usual ones.
        labels: As for `canonical_labels`.

    Raises:
        ValueError: As `nli_to_triplets` does, with the source before it; or `labels` has a value that no source has.

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
            parts.append(Dataset.from_dict(texts | {"label": names}))
        made.append(concatenate_datasets(parts))
    if unused:
        raise ValueError(f"labels: no row of {', '.join(str(s) for group in groups for s in group)} has {unused[0]}")
    return made


def task_rows(sources: Sequence[str | Path], columns: Mapping[str, str] | None = None) -> Dataset:
    """Rows of mixed tasks of all sources; a path of an image in a file is relative to that file.

    Args:
        sources: Files or hub ids, as for `read_rows`.
        columns: Role (one of `TASK_ROLES`) to column, where it has another name.

    Raises:
        ValueError: As `read_rows` and `combine_rows` do; or a column of `columns` is not there.
    """
    parts = []
    for source in sources:
        rows = _renamed(read_rows(source), source, columns or {})
        for column in ("anchor_image", "positive_image"):
            if column in rows.column_names and getattr(rows.features[column], "dtype", None) == "string":
                here = [path and str(Path(source).parent / path) for path in rows[column]]
                rows = rows.remove_columns(column).add_column(column, here)
        parts.append(rows)
    return combine_rows(*parts)


def _renamed(rows: Dataset, source: str | Path, columns: Mapping[str, str]) -> Dataset:
    if unknown := set(columns) - set(TASK_ROLES):
        raise ValueError(f"columns: no role {sorted(unknown)}; the roles are {list(TASK_ROLES)}")
    try:
        found = find_columns(rows.column_names, columns, columns)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    renamed = {name: role for role, name in found.items() if name != role}
    taken = [role for role in renamed.values() if role in rows.column_names and role not in renamed]
    rows = rows.remove_columns(taken)  # the column that is named stands for it
    return rows.rename_columns(renamed) if renamed else rows
