"""What the evaluators share: texts embedded once, and the lines that stock evaluators log and write."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator


def encode_distinct(
    model: SentenceTransformer, *columns: Sequence[str], batch_size: int, show_progress_bar: bool
) -> list[np.ndarray]:
    """Embed every distinct text of the columns once; float32 arrays (len(column), D), one a column."""
    index = {text: i for i, text in enumerate(dict.fromkeys(text for column in columns for text in column))}
    embeddings = model.encode(
        list(index), batch_size=batch_size, show_progress_bar=show_progress_bar, convert_to_numpy=True
    ).astype(np.float32)
    return [embeddings[[index[text] for text in column]] for column in columns]


def when(epoch: int, steps: int) -> str:
    """The stock evaluators' words for a moment of training; empty outside of training."""
    if epoch == -1:
        return ""
    return f" after epoch {epoch}" if steps == -1 else f" in epoch {epoch} after {steps} steps"


def report(
    evaluator: BaseEvaluator, model: SentenceTransformer, metrics: dict[str, float], path: Path | None, *when: int
) -> dict[str, float]:
    """What every stock evaluator does last: write the CSV line, prefix the metrics, store them in the card data."""
    if path is not None:
        append_csv(path, metrics, *when)
    metrics = evaluator.prefix_name_to_metrics(metrics, evaluator.name)  # type: ignore[attr-defined]
    evaluator.store_metrics_in_model_card_data(model, metrics, *when)
    return metrics


def append_csv(path: Path, metrics: Mapping[str, float], epoch: int, steps: int) -> None:
    """Add a line to a table of results, with a header where the table is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(["epoch", "steps", *metrics])
        writer.writerow([epoch, steps, *metrics.values()])
