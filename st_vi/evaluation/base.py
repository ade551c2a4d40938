"""The base of the evaluators: their fields, log line, CSV file and primary metric."""

from __future__ import annotations

import csv
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator

from st_vi.evaluation.distinct import encode_distinct

logger = logging.getLogger(__name__)


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
        self.name = name
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar
        self.write_csv = write_csv
        self.csv_file = "_".join(filter(None, (f"{kind}_evaluation", name, "results.csv")))
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


def by_place(values: Sequence[Any]) -> Sequence[Any]:
    """The same values, counted by their place; a pandas Series is otherwise counted by its index."""
    series: Any = values
    return series.tolist() if hasattr(series, "iloc") else values


def check_lengths(**columns: Sequence[Any]) -> None:
    """Refuse columns of different lengths, by their names."""
    lengths = [len(column) for column in columns.values()]
    if len(set(lengths)) > 1:
        *names, last = columns
        raise ValueError(f"{', '.join(names)} and {last} differ in length: {', '.join(map(str, lengths))}")


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
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(["epoch", "steps", *metrics])
        writer.writerow([epoch, steps, *metrics.values()])
