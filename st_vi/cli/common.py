"""Shared by the commands: what ends them, what they print, what they read."""

from __future__ import annotations

import codecs
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unicodedata import normalize

import typer

NLI_ROLES = ("premise", "hypothesis", "label")


@contextmanager
def interruptible(go_on: Callable[[], str]) -> Iterator[None]:
    """On Ctrl-C, end the command with a message on how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedRun(go_on()) from None


class InterruptedRun(Exception):
    """Carries a message on how to resume."""


def json_text(value: Any) -> str:
    """JSON in one line for standard output; escaped where that is not in UTF-8, as in a file written on Windows."""
    in_utf8 = codecs.lookup(getattr(sys.stdout, "encoding", None) or "ascii").name == "utf-8"
    return json.dumps(value, ensure_ascii=not in_utf8)


def echo_metrics(metrics: dict[str, float]) -> None:
    """Print metrics as JSON, with four decimals."""
    values = {name: round(float(value), 4) for name, value in metrics.items()}
    # JSON has no NaN.
    typer.echo(json.dumps({name: None if math.isnan(value) else value for name, value in values.items()}, indent=2))


def can_be_evaluated(rows: Any) -> bool:
    """Whether NLI rows have at least two of the three labels, which `nli_evaluator` compares."""
    from st_vi.data.nli import OTHER

    return len(set(rows["label"]) - {OTHER}) > 1


def nli_evaluator(rows: Any, sources: Sequence[str], show_progress_bar: bool = True) -> Any:
    """An evaluator over the rows of these sources whose label is one of the three."""
    from st_vi.data.nli import OTHER
    from st_vi.evaluation import NLISimilarityEvaluator

    rows = rows.filter(lambda label: label != OTHER, input_columns="label")
    try:
        return NLISimilarityEvaluator(
            rows["premise"], rows["hypothesis"], rows["label"], show_progress_bar=show_progress_bar
        )
    except ValueError as error:
        raise ValueError(f"{', '.join(sources)}: {error}") from error


def task_roles() -> tuple[str, ...]:
    """The roles of columns in rows of mixed tasks."""
    from st_vi.data.sources import TASK_ROLES

    return TASK_ROLES


def rows_with(source: str, *columns: str, named: Mapping[str, str] | None = None) -> Any:
    """The rows of a source, which has these columns, under their own names or those of `named`, and perhaps others."""
    from st_vi.data import read_rows
    from st_vi.data.sources import renamed

    rows = renamed(read_rows(source), source, named or {})
    for column in columns:
        if column not in rows.column_names:
            raise ValueError(f"{source}: missing column {column!r}; the columns are {rows.column_names}")
    return rows


def texts_of(sources: list[str], column: str) -> list[str]:
    """One column of all sources."""
    from st_vi.data.columns import clean_texts

    texts: list[str] = []
    column = normalize("NFC", column)  # as names are read
    for source in sources:
        rows = rows_with(source, column)
        try:
            texts += clean_texts(rows[column], column)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
    return texts
