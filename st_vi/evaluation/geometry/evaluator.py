"""The geometry of a model's embeddings as an evaluator, for logging during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sentence_transformers import SentenceTransformer
from torch import Tensor

from st_vi.evaluation.base import Evaluator, by_place, check_inputs, check_labels
from st_vi.evaluation.geometry.measures import (
    alignment,
    effective_rank,
    mean_cosine,
    modality_gap,
    tolerance,
    uniformity,
)


class GeometryEvaluator(Evaluator):
    """Measures the geometry of embeddings, not their quality; see `st_vi.evaluation.geometry` for every figure.

    Of x: ``uniformity``, ``mean_cosine``, ``effective_rank`` (centred), and ``tolerance`` where there are labels.
    With y, the partner of each x: ``alignment`` and ``modality_gap``.

    There is no primary metric, so that none of these figures picks the best checkpoint by accident: each is best for
    some useless model (alignment for a collapsed one). The stock `SequentialEvaluator` takes the score of its last
    evaluator, and the first metric of one without a primary metric: put another evaluator last.

    Args:
        x: N stock inputs, two or more: text, image, or {"text", "image"}.
        y: N stock inputs, the partner of each x, such as positives or images of captions; or None.
        labels: The class of each x; or None.
        name: Put before every metric.
        batch_size: Inputs per batch.
        prompt_name: Name of the model's prompt for x; None for its default, if any.
        show_progress_bar: Show the progress of encoding.
        write_csv: Add a line to a CSV file when an output path is given.

    Raises:
        ValueError: Unequal lengths, fewer than two inputs, a missing label, or no two that are the same; or, in a call,
            a value that is no input (its row is named).

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.evaluation import GeometryEvaluator
        >>> model = SentenceTransformer(modules=[BoW(vocab=["mưa", "nắng"])], device="cpu")
        >>> metrics = GeometryEvaluator(["trời mưa", "trời nắng"], ["có mưa", "có nắng"])(model)
        >>> {metric: round(value, 4) for metric, value in metrics.items() if metric != "effective_rank"}
        {'alignment': 0.0, 'modality_gap': 0.0, 'uniformity': -4.0, 'mean_cosine': 0.0}
    """

    def __init__(
        self,
        x: Sequence[Any],
        y: Sequence[Any] | None = None,
        labels: Sequence[Any] | None = None,
        name: str = "",
        batch_size: int = 32,
        prompt_name: str | None = None,
        show_progress_bar: bool = False,
        write_csv: bool = True,
    ) -> None:
        super().__init__("geometry", None, name, batch_size, show_progress_bar, write_csv)
        x, y, labels = (None if column is None else by_place(column) for column in (x, y, labels))  # type: ignore[assignment]
        lengths = {len(column) for column in (x, y, labels) if column is not None}
        if len(lengths) != 1 or len(x) < 2:
            raise ValueError(f"x, y and labels must have one length, 2 or more, got {sorted(lengths)}")
        if labels is not None:
            check_labels(labels)
        if labels is not None and len(set(labels)) == len(labels):
            raise ValueError("labels are for tolerance, which needs two inputs of the same class; all labels differ")
        self.x, self.y, self.labels = x, y, labels
        self.prompt_name = prompt_name

    def _measure(self, model: SentenceTransformer) -> tuple[dict[str, float], str]:
        x = self._vectors(model, "x", self.x, self.prompt_name)
        figures: dict[str, Tensor] = {}
        if self.y is not None:
            y = self._vectors(model, "y", self.y)
            figures |= {"alignment": alignment(x, y), "modality_gap": modality_gap(x, y)}
        figures |= {"uniformity": uniformity(x), "mean_cosine": mean_cosine(x), "effective_rank": effective_rank(x)}
        if self.labels is not None:
            figures["tolerance"] = tolerance(x, self.labels)
        return {metric: value.item() for metric, value in figures.items()}, f"{len(x)} inputs"

    def _vectors(
        self, model: SentenceTransformer, name: str, column: Sequence[Any], prompt_name: str | None = None
    ) -> Tensor:
        inputs = list(column)
        check_inputs(**{name: inputs})
        return model.encode(
            inputs,
            prompt_name=prompt_name,
            batch_size=self.batch_size,
            show_progress_bar=self.show_progress_bar,
            convert_to_tensor=True,
        ).float()
