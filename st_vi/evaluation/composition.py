"""Does a model know who did what to whom, when both sentences have the same words?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation import BaseEvaluator

from st_vi.evaluation.common import encode_distinct, report, when
from st_vi.evaluation.order_sensitivity import TIE

logger = logging.getLogger(__name__)


class CompositionEvaluator(BaseEvaluator):
    """How often an anchor is nearer to its paraphrase than to a sentence of like words that says another thing.

    - ``{kind}_accuracy``, in [0, 1], for each kind of probe: the share with similarity(anchor, positive) above
      similarity(anchor, negative), by more than 1e-6. Chance is 0.5. Ties lose: where both have the same words, a
      model without word order gets 0.
    - ``composition_accuracy``: the same of all probes together; the primary metric.

    The similarity is the model's own. `st_vi.data.generated.composition.composition_probes` makes Vietnamese probes.

    Source: ARO, arXiv 2210.01936 (its relation and attribution tests ask a picture); probes of texts are *inferred*.

    Args:
        anchors: N texts.
        positives: N texts, each a paraphrase of its anchor.
        negatives: N texts, each with like words and another meaning.
        kinds: N names of what a probe asks for; any but "composition". None: all are of one kind.
        name: Put before every metric, as in the stock evaluators.
        batch_size: Texts a batch.
        show_progress_bar: Show the progress of encoding.
        write_csv: Add a line to a CSV file when an output path is given.

    Raises:
        ValueError: No probes, unequal lengths, a kind that is no name, or a negative that equals its positive (the row
            is named; rows count from 0).

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.data.generated.composition import composition_probes
        >>> from st_vi.evaluation.composition import CompositionEvaluator
        >>> probes = composition_probes(per_kind=2)
        >>> evaluator = CompositionEvaluator(probes["anchor"], probes["positive"], probes["negative"], probes["kind"])
        >>> bag_of_words = SentenceTransformer(modules=[BoW(vocab=["cho", "trước", "hơn"])], device="cpu")
        >>> evaluator(bag_of_words)["composition_accuracy"]
        0.0
    """

    def __init__(
        self,
        anchors: Sequence[str],
        positives: Sequence[str],
        negatives: Sequence[str],
        kinds: Sequence[str] | None = None,
        name: str = "",
        batch_size: int = 32,
        show_progress_bar: bool = False,
        write_csv: bool = True,
    ) -> None:
        super().__init__()
        self.anchors, self.positives, self.negatives = list(anchors), list(positives), list(negatives)
        self.kinds = None if kinds is None else list(kinds)
        self.name = name
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar
        self.write_csv = write_csv
        self.csv_file = "composition_evaluation" + ("_" + name if name else "") + "_results.csv"
        # With its prefix: stock adds none where the metric already begins with the name, as with "composition".
        self.primary_metric = f"{name}_composition_accuracy" if name else "composition_accuracy"
        self._check()

    def __call__(  # type: ignore[override]
        self, model: SentenceTransformer, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Return the metrics, and store them in the model's card data."""
        anchors, positives, negatives = encode_distinct(
            model,
            self.anchors,
            self.positives,
            self.negatives,
            batch_size=self.batch_size,
            show_progress_bar=self.show_progress_bar,
        )
        near, far = (model.similarity_pairwise(anchors, others).double().cpu() for others in (positives, negatives))
        won = (near - far > TIE).numpy()
        kinds = np.array(self.kinds if self.kinds is not None else [], dtype=object)
        metrics = {f"{kind}_accuracy": float(won[kinds == kind].mean()) for kind in dict.fromkeys(kinds)}
        metrics["composition_accuracy"] = float(won.mean())

        figures = ", ".join(f"{metric} {value:.4f}" for metric, value in metrics.items())
        where = f"{self.name} dataset{when(epoch, steps)}".strip()
        logger.info(f"CompositionEvaluator on the {where}: {figures} ({len(won)} probes)")
        path = Path(output_path, self.csv_file) if output_path is not None and self.write_csv else None
        return report(self, model, metrics, path, epoch, steps)

    @property
    def description(self) -> str:
        """Name of the task in the model card."""
        return "Composition"

    def _check(self) -> None:
        columns = self.anchors, self.positives, self.negatives, *([] if self.kinds is None else [self.kinds])
        if len({len(column) for column in columns}) > 1:
            lengths = ", ".join(str(len(column)) for column in columns)
            raise ValueError(f"anchors, positives, negatives and kinds differ in length: {lengths}")
        if not self.anchors:
            raise ValueError("there are no probes")
        for row, kind in enumerate(self.kinds or []):
            if not isinstance(kind, str) or kind in ("", "composition"):
                raise ValueError(f"Row {row} has the kind {kind!r}; a kind is a name other than 'composition'")
        for row, (positive, negative) in enumerate(zip(self.positives, self.negatives, strict=True)):
            if positive == negative:
                raise ValueError(f"Row {row}: the negative equals the positive, {positive!r}")
