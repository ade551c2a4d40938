"""Order sensitivity: whether a model notices another order of the words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from st_vi.evaluation.base import TIE, Evaluator, by_place, check_inputs, check_lengths
from st_vi.inputs.kinds import shown


class OrderSensitivityEvaluator(Evaluator):
    """How often an anchor is nearer to its positive than to every perturbation of the positive.

    - ``order_accuracy``, in [0, 1]: the share of items whose similarity(anchor, positive) is above those with all
      perturbations, by more than 1e-6. Ties lose: a model without word order gets 0. Chance is 1 / (1 + k) for k
      perturbations.
    - ``order_margin``: the mean of similarity(anchor, positive) minus the highest similarity with a perturbation.
    - ``order_accuracy_se`` and ``order_margin_se``: their standard errors, √(p(1−p)/n) and s/√n.

    The similarity is the model's own. Perturbations may be any changed texts, those of `change_order` or other rules.
    Items without a perturbation are left out; ``num_items`` and ``num_left_out`` count both kinds.

    Source: ARO, arXiv 2210.01936, which asks an image for its caption among reordered ones; anchors that are texts
    and the margin are *inferred*.

    Args:
        anchors: N texts.
        positives: N texts. With anchor and positive the same, only a model blind to order fails.
        perturbations: N lists of texts; a list may be empty.
        name: Put before every metric, as in the stock evaluators.
        batch_size: Texts per batch.
        show_progress_bar: Show the progress of encoding.
        write_csv: Add a line to a CSV file when an output path is given.

    Raises:
        ValueError: Unequal lengths, one text in place of a list, a perturbation that equals its positive (the row is
            named; rows count from 0), or no perturbation at all.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.evaluation import OrderSensitivityEvaluator
        >>> blind = SentenceTransformer(modules=[BoW(vocab=["mèo", "đuổi", "chuột"])], device="cpu")
        >>> items = ["mèo đuổi chuột"], ["con mèo đuổi chuột"], [["con chuột đuổi mèo"]]
        >>> OrderSensitivityEvaluator(*items)(blind)["order_accuracy"]
        0.0
    """

    def __init__(
        self,
        anchors: Sequence[str],
        positives: Sequence[str],
        perturbations: Sequence[Sequence[str]],
        name: str = "",
        batch_size: int = 32,
        show_progress_bar: bool = False,
        write_csv: bool = True,
    ) -> None:
        super().__init__("order_sensitivity", "order_accuracy", name, batch_size, show_progress_bar, write_csv)
        anchors, positives, perturbations = map(by_place, (anchors, positives, perturbations))
        perturbations = [_texts_of(row, changed) for row, changed in enumerate(perturbations)]
        _check(anchors, positives, perturbations)
        kept = [row for row, changed in enumerate(perturbations) if len(changed)]
        self.anchors, self.positives = [anchors[row] for row in kept], [positives[row] for row in kept]
        self.perturbations = [perturbations[row] for row in kept]
        self.num_items, self.num_left_out = len(kept), len(anchors) - len(kept)

    def _measure(self, model: SentenceTransformer) -> tuple[dict[str, float], str]:
        margins = self._margins(model)
        accuracy = float(np.mean(margins > TIE))
        metrics = {
            "order_accuracy": accuracy,
            "order_accuracy_se": (accuracy * (1 - accuracy) / len(margins)) ** 0.5,
            "order_margin": float(margins.mean()),
            "order_margin_se": float(margins.std(ddof=1) / len(margins) ** 0.5) if len(margins) > 1 else float("nan"),
        }
        return metrics, f"{self.num_items} items, {self.num_left_out} without a perturbation left out"

    def _margins(self, model: SentenceTransformer) -> np.ndarray:
        """Margins of the positive over the nearest perturbation, (num_items,), in float64."""
        counts = [len(texts) for texts in self.perturbations]
        texts = [text for texts in self.perturbations for text in texts]
        anchors, positives, changed = self._encode(model, self.anchors, self.positives, texts)
        of_positives = model.similarity_pairwise(anchors, positives).double().cpu().numpy()
        repeated = np.repeat(anchors, counts, axis=0)
        of_changed = model.similarity_pairwise(repeated, changed).double().cpu().numpy()
        return of_positives - np.maximum.reduceat(of_changed, np.cumsum([0, *counts[:-1]]))


def _texts_of(row: int, changed: Any) -> list[str]:
    if isinstance(changed, str) or not isinstance(changed, Iterable):
        of_what = "the text " if isinstance(changed, str) else ""
        raise ValueError(f"Row {row}: perturbations must be a list of texts, got {of_what}{shown(changed)}")
    check_inputs(**{f"row {row}'s perturbations": (texts := list(changed))})
    return texts


def _check(anchors: Sequence[str], positives: Sequence[str], perturbations: Sequence[Sequence[str]]) -> None:
    check_lengths(anchors=anchors, positives=positives, perturbations=perturbations)
    check_inputs(anchors=anchors, positives=positives)
    for row, (positive, changed) in enumerate(zip(positives, perturbations, strict=True)):
        if positive in changed:
            raise ValueError(f"Row {row}: a perturbation equals the positive, {positive!r}")
    if not any(len(changed) for changed in perturbations):
        raise ValueError("Nothing to compare: no row has a perturbation")
