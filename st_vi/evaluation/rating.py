"""How good the ratings of a model's `RatingHead` are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from st_vi.evaluation.base import Evaluator, by_place, check_inputs, numbers, spearman
from st_vi.terms.ratings import rating_head


class RatingEvaluator(Evaluator):
    """Compares the ratings of a model's `st_vi.modules.RatingHead` with known scores.

    - ``spearman``, the primary metric: rank correlation of the expected rating with the score.
    - ``cosine_spearman``: that of the cosine, which the model has without a head.
    - ``accuracy`` and ``within_one``: how often the level nearest the expected rating is that of the score, and how
      often it is that or one beside it.
    - ``log_likelihood``: mean of log p at the level of the score, at most 0; a uniform guess gives −log K.

    Args:
        first: N inputs, as for ``encode``.
        second: N inputs.
        scores: N numbers on the scale of the head.
        name: Put before every metric.
        batch_size: Inputs per batch.
        show_progress_bar: Show the progress of encoding.
        write_csv: Add a line to a CSV file when an output path is given.

    Attributes:
        expected: After a call, the expected rating of every pair, (N,).
        probabilities: After a call, the probability of every level, (N, K).

    Raises:
        ValueError: Unequal lengths, no rows, a missing input or a score that is no number (its row is named), or, in a
            call, the model has no `RatingHead`, or a score is not on its scale.

    Example:
        >>> from st_vi import load
        >>> from st_vi.data import sample_sts
        >>> from st_vi.evaluation import RatingEvaluator
        >>> from st_vi.modules import RatingHead
        >>> pairs = sample_sts("test")
        >>> model = load("vi-mini", device="cpu")
        >>> head = RatingHead.add_to(model, num_levels=6, highest=5)  # untrained
        >>> metrics = RatingEvaluator(pairs["sentence1"], pairs["sentence2"], pairs["score"])(model)
        >>> metrics["spearman"] == metrics["cosine_spearman"], metrics["within_one"] > 0.5
        (True, True)
    """

    def __init__(
        self,
        first: Sequence[Any],
        second: Sequence[Any],
        scores: Sequence[float],
        name: str = "",
        batch_size: int = 32,
        show_progress_bar: bool = False,
        write_csv: bool = True,
    ) -> None:
        super().__init__("rating", "spearman", name, batch_size, show_progress_bar, write_csv)
        first, second, scores = map(by_place, (first, second, scores))
        if not len(first) == len(second) == len(scores) > 0:
            raise ValueError(
                f"first, second and scores need one length above 0, got {len(first)}, {len(second)}, {len(scores)}"
            )
        check_inputs(first=first, second=second)
        self.first, self.second = first, second
        self.scores = torch.tensor(numbers(scores, "scores"), dtype=torch.float64)
        self.expected = self.probabilities = torch.empty(0)

    @torch.no_grad()
    def _measure(self, model: SentenceTransformer) -> tuple[dict[str, float], str]:
        head = rating_head(model)
        levels = head.levels_of(self.scores)
        vectors = self._encode(model, self.first, self.second, truncate_dim=sys.maxsize)
        u, v = (torch.from_numpy(column).to(head.rating_bias.device) for column in vectors)
        log_p = head.log_probabilities(u, v)
        self.probabilities = log_p.exp().cpu()
        self.expected = head.expected(self.probabilities)
        # A model that gives no numbers is off by more than any level.
        missing = self.expected.isnan()
        off = (head.levels_of(self.expected.nan_to_num(head.lowest)) - levels).abs()
        off = off.masked_fill(missing, head.num_levels + 1)
        metrics = {
            "spearman": spearman(self.expected.numpy(), self.scores.numpy()),
            "cosine_spearman": spearman(torch.cosine_similarity(u, v).cpu().numpy(), self.scores.numpy()),
            "accuracy": (off == 0).double().mean().item(),
            "within_one": (off <= 1).double().mean().item(),
            "log_likelihood": log_p.cpu().double().gather(1, levels[:, None]).mean().item(),
        }
        return metrics, f"{len(levels)} pairs"
