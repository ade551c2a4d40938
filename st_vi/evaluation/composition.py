"""Composition: whether a model tells sentences with the same words and different meanings apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sentence_transformers import SentenceTransformer

from st_vi.evaluation.base import TIE, Evaluator, by_place, check_inputs, check_lengths


class CompositionEvaluator(Evaluator):
    """How often an anchor is nearer to its paraphrase than to a sentence with similar words and another meaning.

    - ``{kind}_accuracy``, in [0, 1], for each kind of probe: the share with a similarity(anchor, positive) above
      similarity(anchor, negative), by more than 1e-6. Chance is 0.5. Ties lose: where both have the same words, a
      model without word order gets 0.
    - ``composition_accuracy``: the same of all probes together; the primary metric.

    The similarity is the model's own. `st_vi.data.generated.composition.composition_probes` makes Vietnamese probes.

    Source: ARO, arXiv 2210.01936 (its relation and attribution tests ask an image); probes of texts are *inferred*.

    Args:
        anchors: N texts.
        positives: N texts, each a paraphrase of its anchor.
        negatives: N texts, each with similar words and another meaning.
        kinds: The kind of each probe, any name but "composition"; None if there is only one kind.
        name: Put before every metric, as in the stock evaluators.
        batch_size: Texts per batch.
        show_progress_bar: Show the progress of encoding.
        write_csv: Add a line to a CSV file when an output path is given.

    Raises:
        ValueError: No probes, unequal lengths, a kind that is no name, or a negative that equals its positive (the row
            is named; rows count from 0).

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.data import composition_probes
        >>> from st_vi.evaluation import CompositionEvaluator
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
        super().__init__("composition", "composition_accuracy", name, batch_size, show_progress_bar, write_csv)
        self.anchors, self.positives, self.negatives = (
            list(by_place(each)) for each in (anchors, positives, negatives)
        )
        self.kinds = None if kinds is None else list(by_place(kinds))
        self._check()

    def _measure(self, model: SentenceTransformer) -> tuple[dict[str, float], str]:
        anchors, positives, negatives = self._encode(model, self.anchors, self.positives, self.negatives)
        near, far = (model.similarity_pairwise(anchors, others).double().cpu() for others in (positives, negatives))
        won = (near - far > TIE).numpy()
        kinds = np.array(self.kinds if self.kinds is not None else [], dtype=object)
        metrics = {f"{kind}_accuracy": float(won[kinds == kind].mean()) for kind in dict.fromkeys(kinds)}
        metrics["composition_accuracy"] = float(won.mean())
        return metrics, f"{len(won)} probes"

    def _check(self) -> None:
        kinds = {} if self.kinds is None else {"kinds": self.kinds}
        check_lengths(anchors=self.anchors, positives=self.positives, negatives=self.negatives, **kinds)
        check_inputs(anchors=self.anchors, positives=self.positives, negatives=self.negatives)
        if not self.anchors:
            raise ValueError("there are no probes")
        for row, kind in enumerate(self.kinds or []):
            if not isinstance(kind, str) or kind in ("", "composition"):
                raise ValueError(f"Row {row} has the kind {kind!r}; a kind is a name other than 'composition'")
        for row, (positive, negative) in enumerate(zip(self.positives, self.negatives, strict=True)):
            if positive == negative:
                raise ValueError(f"Row {row}: the negative equals the positive, {positive!r}")
