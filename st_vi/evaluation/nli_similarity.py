"""Cosines against natural-language inference: entailments near their premise, contradictions far."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import pairwise_cos_sim

from st_vi.evaluation.base import TIE, Evaluator, by_place, check_inputs, check_lengths, spearman
from st_vi.text import comparison_key

_DEGREE = {"contradiction": 0.0, "neutral": 0.5, "entailment": 1.0}


class NLISimilarityEvaluator(Evaluator):
    """Triplet accuracy and rank correlation of cosines on NLI pairs, without training anything.

    - ``triplet_accuracy``, in [0, 1]: the share of all (entailment, contradiction) pairs under one premise with
      cos(premise, entailment) > cos(premise, contradiction), by more than 1e-6. Chance is 0.5; ties count as wrong, so
      a model that maps everything to one point gets 0. Premises are compared by `st_vi.text.comparison_key`.
      Left out where no premise has both.
    - ``nli_spearman``, in [-1, 1]: Spearman's correlation of the cosine with contradiction 0, neutral ½,
      entailment 1, over all rows; NaN when all cosines are the same.

    The primary metric is ``triplet_accuracy``, or ``nli_spearman`` where that is left out.

    Source: ViCLSR (arXiv 2603.21084) trains entailment against contradiction; both measures are this project's
    own, to see whether that carries over to unseen rows.

    Args:
        premises: N texts.
        hypotheses: N texts.
        labels: N of "entailment", "neutral" and "contradiction".
        name: Put before every metric, as in the stock evaluators.
        batch_size: Texts per batch.
        show_progress_bar: Show the progress of encoding.
        write_csv: Add a line to a CSV file when an output path is given.

    Raises:
        ValueError: Unequal lengths; a missing text, or an unknown label (row and value are named; rows count
            from 0); fewer than two different labels, which leave nothing to compare.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.evaluation import NLISimilarityEvaluator
        >>> model = SentenceTransformer(modules=[BoW(vocab=["trời", "mưa", "nắng"])], device="cpu")
        >>> evaluator = NLISimilarityEvaluator(
        ...     ["trời mưa", "trời mưa"], ["mưa", "nắng"], ["entailment", "contradiction"], name="dev"
        ... )
        >>> {metric: round(value, 4) for metric, value in evaluator(model).items()}
        {'dev_triplet_accuracy': 1.0, 'dev_nli_spearman': 1.0}
    """

    def __init__(
        self,
        premises: Sequence[str],
        hypotheses: Sequence[str],
        labels: Sequence[str],
        name: str = "",
        batch_size: int = 32,
        show_progress_bar: bool = False,
        write_csv: bool = True,
    ) -> None:
        self.premises, self.hypotheses, self.labels = (list(by_place(each)) for each in (premises, hypotheses, labels))
        self._check()
        self.triplets = _triplets(self.premises, self.labels)
        metric = "triplet_accuracy" if len(self.triplets) else "nli_spearman"
        super().__init__("nli_similarity", metric, name, batch_size, show_progress_bar, write_csv)

    def _measure(self, model: SentenceTransformer) -> tuple[dict[str, float], str]:
        cosines = pairwise_cos_sim(*self._encode(model, self.premises, self.hypotheses)).numpy()
        metrics = {}
        if len(self.triplets):
            entailment, contradiction = self.triplets.T
            metrics["triplet_accuracy"] = float(np.mean(cosines[entailment] - cosines[contradiction] > TIE))
        metrics["nli_spearman"] = spearman(cosines, np.array([_DEGREE[label] for label in self.labels]))
        return metrics, f"{len(self.labels)} rows, {len(self.triplets)} triplets"

    @property
    def description(self) -> str:
        """Name of the task in the model card."""
        return "NLI Similarity"

    def _check(self) -> None:
        check_lengths(premises=self.premises, hypotheses=self.hypotheses, labels=self.labels)
        check_inputs(premises=self.premises, hypotheses=self.hypotheses)
        for row, label in enumerate(self.labels):
            if not isinstance(label, str) or label not in _DEGREE:
                raise ValueError(f"Row {row} has the label {label!r}; known labels are {list(_DEGREE)}")
        if len(set(self.labels)) < 2:
            raise ValueError(f"Nothing to compare: there is no label but {self.labels[:1]} in {len(self.labels)} rows")


def _triplets(premises: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Row numbers of every entailment and contradiction with the same premise, (T, 2)."""
    rows: dict[str, dict[str, list[int]]] = defaultdict(lambda: {label: [] for label in _DEGREE})
    for row, (premise, label) in enumerate(zip(premises, labels, strict=True)):
        rows[comparison_key(premise)][label].append(row)
    pairs = [(e, c) for group in rows.values() for e in group["entailment"] for c in group["contradiction"]]
    return np.array(pairs, dtype=int).reshape(-1, 2)
