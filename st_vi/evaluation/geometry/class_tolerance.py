"""Tolerance class by class: how close a model keeps texts of the same class."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from st_vi.evaluation.base import Evaluator, by_place, check_inputs, check_labels, check_lengths
from st_vi.evaluation.geometry.measures import tolerance

logger = logging.getLogger(__name__)


class ToleranceByClassEvaluator(Evaluator):
    """The mean cosine of two texts of the same class, in [−1, 1], for each class and for all.

    - ``tolerance_{class}``: of the pairs of that class.
    - ``tolerance``: of the pairs of all classes together, so that a class of n texts counts n(n − 1) times; see
      `st_vi.evaluation.geometry.measures.tolerance`.

    There is no primary metric, as in `GeometryEvaluator`: a model that maps everything to one point has the highest
    tolerance. Read it beside ``uniformity``.

    Source: Wang and Liu 2021, arXiv 2012.09740, Section 4.4: E xᵀy over pairs of one class; the figure of a single
    class is *inferred*.

    Args:
        texts: N texts.
        labels: N classes; two labels are the same class when they print the same.
        name: Put before every metric, as in the stock evaluators.
        batch_size: Texts per batch.
        show_progress_bar: Show the progress of encoding.
        write_csv: Add a line to a CSV file when an output path is given.

    Raises:
        ValueError: Unequal lengths, or no class with two texts. A class with one is left out, with a warning.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.evaluation import ToleranceByClassEvaluator
        >>> model = SentenceTransformer(modules=[BoW(vocab=["mưa", "gió", "mèo", "chó"])], device="cpu")
        >>> evaluator = ToleranceByClassEvaluator(["mưa", "mưa to", "mèo", "chó"], ["weather"] * 2 + ["animal"] * 2)
        >>> {metric: round(value, 4) for metric, value in evaluator(model).items()}
        {'tolerance_weather': 1.0, 'tolerance_animal': 0.0, 'tolerance': 0.5}
    """

    def __init__(
        self,
        texts: Sequence[str],
        labels: Sequence[Any],
        name: str = "",
        batch_size: int = 32,
        show_progress_bar: bool = False,
        write_csv: bool = True,
    ) -> None:
        super().__init__("class_tolerance", None, name, batch_size, show_progress_bar, write_csv)
        texts, labels = by_place(texts), by_place(labels)
        check_lengths(texts=texts, labels=labels)
        check_inputs(texts=texts)
        check_labels(labels)
        counts = Counter(str(label) for label in labels)
        self.classes = [label for label, count in counts.items() if count > 1]
        if not self.classes:
            raise ValueError("tolerance needs two texts of the same class, and all labels differ")
        if alone := [label for label, count in counts.items() if count == 1]:
            logger.warning(f"ToleranceByClassEvaluator leaves out {len(alone)} classes of one text: {alone[:10]}")
        kept = [row for row, label in enumerate(labels) if counts[str(label)] > 1]
        self.texts, self.labels = [texts[row] for row in kept], [str(labels[row]) for row in kept]

    def _measure(self, model: SentenceTransformer) -> tuple[dict[str, float], str]:
        (vectors,) = self._encode(model, self.texts)
        labels = np.array(self.labels)
        metrics: dict[str, float] = {}
        for label in self.classes:
            of_class = vectors[labels == label]
            metrics[f"tolerance_{label}"] = tolerance(of_class, [label] * len(of_class)).item()
        metrics["tolerance"] = tolerance(vectors, self.labels).item()  # type: ignore[arg-type]
        return metrics, f"{len(labels)} texts"
