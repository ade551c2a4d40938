"""The base of the evaluators: their fields, log line, CSV file and primary metric."""

from __future__ import annotations

import csv
import io
import logging
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator
from torch import nn

from st_vi.checks import check_whole
from st_vi.evaluation.distinct import encode_distinct
from st_vi.inputs.kinds import is_null, shown

logger = logging.getLogger(__name__)

TIE = 1e-6
"""Similarities this close count as equal: in float32, they depend on the order of the sums and on the batch."""


class Evaluator(BaseEvaluator, ABC):
    """An evaluator with the stock interface. A subclass measures, in `_measure`; the rest is done here.

    Args:
        kind: First part of the name of the CSV file, as in "nli_similarity_evaluation_dev_results.csv".
        primary_metric: The metric that picks the best checkpoint, without `name`; None for none.
        name: Put before every metric, as in the stock evaluators.
        batch_size: Inputs per batch.
        show_progress_bar: Show the progress of encoding.
        write_csv: Add a line to a CSV file when an output path is given.
    """

    def __init__(
        self,
        kind: str,
        primary_metric: str | None,
        name: str,
        batch_size: int,
        show_progress_bar: bool,
        write_csv: bool,
    ) -> None:
        super().__init__()
        check_whole("batch_size", batch_size)
        self.name = name
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar
        self.write_csv = write_csv
        in_file_name = re.sub(r'[<>:"|?*]', "_", name)  # Windows has no file with these
        self.csv_file = "_".join(filter(None, (f"{kind}_evaluation", in_file_name, "results.csv")))
        # With its prefix: stock adds none to a metric that begins like the name, such as "nli_spearman" of "nli".
        self.primary_metric = f"{name}_{primary_metric}" if name and primary_metric else primary_metric

    def __call__(  # type: ignore[override]
        self, model: SentenceTransformer, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the metrics, and store them in the model's card data."""
        metrics, size = self._measure(model)
        self._log(metrics, size, _when(epoch, steps))
        if output_path is not None and self.write_csv:
            _append_csv(Path(output_path, self.csv_file), metrics, epoch, steps)
        metrics = self.prefix_name_to_metrics(metrics, self.name)
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        return metrics

    @abstractmethod
    def _measure(self, model: SentenceTransformer) -> tuple[dict[str, float], str]:
        """The metrics, and how much was measured, such as "12 rows"."""

    def _log(self, metrics: Mapping[str, float], size: str, when: str) -> None:
        where = f"{self.name} dataset{when}".strip()
        logger.info(f"{type(self).__name__} on the {where}: {in_words(metrics)} ({size})")

    def _encode(self, model: SentenceTransformer, *columns: Sequence[Any], **settings: Any) -> list[np.ndarray]:
        options: dict[str, Any] = {"batch_size": self.batch_size, "show_progress_bar": self.show_progress_bar}
        return encode_distinct(model, *columns, **options | settings)


def by_place(values: Iterable[Any]) -> Sequence[Any]:
    """The same values, counted by their place; sequences that make their values on access stay as they are.

    A pandas Series is otherwise counted by its index, an iterator can be read only once, and values in arrays and
    tensors are not those of Python.

    Raises:
        ValueError: One text in place of several, a dict, a set, which has no order, or a model.
    """
    given: Any = values
    if isinstance(given, (set, frozenset)):
        raise ValueError("expected a list of inputs, got a set, which has no order")
    if isinstance(given, (Mapping, nn.Module)):
        raise ValueError(f"expected a list of inputs, got {type(given).__name__}")
    if isinstance(given, (str, bytes)):
        raise ValueError(f"expected a list of inputs, got the text {shown(given)}")
    if getattr(given, "ndim", 1) == 1:  # an array of more dimensions is one of images
        for method in ("tolist", "to_pylist", "to_list"):  # pandas, numpy, torch; Arrow; polars
            if hasattr(given, method):
                return list(getattr(given, method)())
    return given if hasattr(given, "__getitem__") and hasattr(given, "__len__") else list(given)


def check_lengths(**columns: Sequence[Any]) -> None:
    """Refuse columns of different lengths, by their names."""
    lengths = [len(column) for column in columns.values()]
    if len(set(lengths)) > 1:
        *names, last = columns
        raise ValueError(f"{', '.join(names)} and {last} differ in length: {', '.join(map(str, lengths))}")


def check_inputs(**columns: Sequence[Any]) -> None:
    """Refuse missing values and numbers by the name of their column and their row."""
    for name, column in columns.items():
        for row, value in enumerate(column):
            check_input(value, row, name)


def check_input(value: Any, row: int, name: str) -> None:
    """Refuse one value; see `check_inputs`."""
    if is_null(value) or isinstance(value, (int, float)):
        raise ValueError(f"Row {row} of {name}: expected an input of the model, got {shown(value)}")


def check_labels(labels: Sequence[Any]) -> None:
    """Refuse a missing label, which would be a class of its own, and one that cannot be compared; its row is named."""
    for row, label in enumerate(labels):
        if is_null(label) or not isinstance(label, Hashable):
            raise ValueError(f"Row {row} of labels: expected a label, got {shown(label)}")


def numbers(values: Iterable[Any], name: str, missing: bool = False) -> list[float]:
    """Finite numbers; with `missing`, None and NaN are NaN.

    Raises:
        ValueError: Another value; its row is named.
    """
    found = []
    for row, value in enumerate(by_place(values)):
        number = _number(value)
        if number is None or not (math.isfinite(number) or (missing and math.isnan(number))):
            raise ValueError(f"Row {row} of {name}: expected a number, got {shown(value)}")
        found.append(number)
    return found


def _number(value: Any) -> float | None:
    if is_null(value):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def spearman(values: np.ndarray, scores: np.ndarray) -> float:
    """Rank correlation; NaN, without a warning, if all of either are equal."""
    return float("nan") if np.ptp(values) == 0 or np.ptp(scores) == 0 else float(spearmanr(values, scores).statistic)


def in_words(metrics: Mapping[str, float]) -> str:
    """Metrics for a log line."""
    return ", ".join(f"{metric} {value:.4f}" for metric, value in metrics.items())


def _when(epoch: int, steps: int) -> str:
    """A moment of training in the words of the stock evaluators; empty outside of training."""
    if epoch == -1:
        return ""
    return f" after epoch {epoch}" if steps == -1 else f" in epoch {epoch} after {steps} steps"


def _append_csv(path: Path, metrics: Mapping[str, float], epoch: int, steps: int) -> None:
    """Add a line. The metrics depend on what is measured: those that earlier lines lack become columns of all."""
    row = {"epoch": epoch, "steps": steps, **metrics}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", newline="", encoding="utf-8") as file:
        file.seek(0)
        earlier = csv.DictReader(io.StringIO(file.read().removeprefix("\ufeff"), newline=""))  # Excel saves the mark
        header = list(earlier.fieldnames or ())
        writer = csv.DictWriter(file, list(dict.fromkeys([*header, *row])))
        if writer.fieldnames != header:
            rows = list(earlier)
            file.truncate(0)
            writer.writeheader()
            writer.writerows(rows)
        writer.writerow(row)
