"""What the evaluators share: texts embedded once, and the lines that stock evaluators log and write."""

from __future__ import annotations

import csv
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator
from tqdm.auto import tqdm

from st_vi.inputs.content import content_key, opened


def by_place(values: Sequence[Any]) -> Sequence[Any]:
    """The same values, counted by their place: a pandas Series is counted by its index, in whatever order that is."""
    series: Any = values
    return series.tolist() if hasattr(series, "iloc") else values


def encode_distinct(
    model: SentenceTransformer,
    *columns: Sequence[Any],
    batch_size: int,
    show_progress_bar: bool,
    prompt_name: str | None = None,
    keys: Sequence[Sequence[Hashable]] | None = None,
) -> list[np.ndarray]:
    """Embed every distinct input of the columns once; float32 arrays (len(column), D), one a column.

    Texts go to the model all at once. Of inputs with pictures, one batch is decoded at a time.

    Args:
        model: Encodes them.
        columns: Texts, or any stock inputs; those with pictures are looked up when their batch comes.
        batch_size: Inputs a batch.
        show_progress_bar: Show the progress of encoding.
        prompt_name: Of the model's prompts.
        keys: `content_key` of the columns, where they are known.
    """
    keys = keys or [[content_key(value) for value in column] for column in columns]
    places: dict[Hashable, tuple[int, int]] = {}
    for number, column_keys in enumerate(keys):
        for row, key in enumerate(column_keys):
            places.setdefault(key, (number, row))
    texts = [key for key in places if isinstance(key, str)]
    others = [key for key in places if not isinstance(key, str)]

    def encode(wanted: Sequence[Hashable], bar: bool) -> np.ndarray:
        inputs = [columns[number][row] for number, row in (places[key] for key in wanted)]
        if not isinstance(wanted[0], str) and model.supports("image"):  # to others, a path is a text
            inputs = [*map(opened, inputs)]
        return model.encode(
            inputs, prompt_name=prompt_name, batch_size=batch_size, show_progress_bar=bar, convert_to_numpy=True
        ).astype(np.float32)

    parts = [encode(texts, show_progress_bar)] if texts else []
    bar = tqdm(range(0, len(others), batch_size), "Batches", disable=not (show_progress_bar and others), leave=False)
    parts += [encode(others[start : start + batch_size], False) for start in bar]
    embeddings = np.concatenate(parts) if parts else model.encode([])
    index = {key: row for row, key in enumerate([*texts, *others])}
    return [embeddings[[index[key] for key in column_keys]] for column_keys in keys]


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
