"""Distillation of a teacher's distribution over the row's own candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import kl_div

from st_vi.terms.pairs import PairBatch
from st_vi.terms.teacher import taught_candidates
from st_vi.terms.term import Term


@dataclass(frozen=True, kw_only=True)
class SoftLabelKL(Term):
    """KL divergence between the model's and a teacher's distribution over the row's own candidates.

    With s the cosines, t the teacher's scores, and t⁺ the score of the positive:

        P = softmax(s_i/τ),  Q = softmax(t_i/τ)  over the positives and the negatives with t_ij ≤ t⁺ − m
        L_i = ½ [KL(P‖Q) + KL(Q‖P)],  KL(P‖Q) = Σ_j P_j (log P_j − log(Q_j + ε))

    Negatives with higher scores are left out as false ones. If Q gives all to the positive, KL(Q‖P) is the
    cross-entropy of the positive. At τ = 0.02, a cosine that is 0.4 too low means a probability of e^{−20}; the floor ε
    limits the cost of one such candidate to −log ε = 18.4.

    Needs teacher scores, and at least one negative or second positive a row.

    Source: UniME-V2, arXiv 2510.13515, with τ = 0.02 and m = 0.01, and ε = 10⁻⁸ from its released code. *Inferred*:
    with several positives, t⁺ is the highest of their scores; a candidate without a score (NaN) is left out, and a row
    without a scored positive gives 0; log-probabilities are cut at −10⁴, so that with ε = 0 a score of −∞ leaves
    KL(P‖Q) finite.

    Args:
        temperature: τ > 0 of both distributions; the default is for teacher scores in [0, 1].
        false_negative_margin: m, on the scale of the teacher's scores; −∞ keeps all negatives.
        symmetric: False uses KL(Q‖P) only.
        floor: ε in [0, 1), added to the probability inside the second logarithm of each divergence.
        weight: Weight of the term in a task.

    Raises:
        ValueError: An argument is out of range, or the batch has no teacher scores or only one candidate a row.

    Example:
        >>> import torch
        >>> from st_vi.terms import PairBatch, SoftLabelKL
        >>> same, teacher = torch.ones(1, 2), torch.tensor([[1.0, 0.0, 0.995]])  # the last negative is a false one
        >>> pairs = PairBatch(same, same, torch.ones(2, 1, 2), teacher_scores=teacher)
        >>> SoftLabelKL(symmetric=False)(pairs)  # log 2: the model cannot tell the two apart
        tensor([0.6931])
    """

    temperature: float = 0.02
    false_negative_margin: float = 0.01
    symmetric: bool = True
    floor: float = 1e-8
    needs_teacher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("floor", 0 <= self.floor < 1, "in [0, 1)")

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        view, teacher = taught_candidates(pairs)
        best = teacher.masked_fill(~view.positive, -float("inf")).amax(dim=1, keepdim=True)
        keep = view.positive | (view.negative & (teacher <= best - self.false_negative_margin))
        keep = keep & best.isfinite()
        log_p, log_q = self._log_softmax(view.similarity, keep), self._log_softmax(teacher, keep)
        loss = self._divergence(log_q, log_p, keep)
        return (loss + self._divergence(log_p, log_q, keep)) / 2 if self.symmetric else loss

    def _divergence(self, log_p: Tensor, log_q: Tensor, keep: Tensor) -> Tensor:
        floored = log_q.logaddexp(log_q.new_tensor(self.floor).log())
        return kl_div(floored, log_p, reduction="none", log_target=True).masked_fill(~keep, 0.0).sum(dim=1)

    def _log_softmax(self, scores: Tensor, keep: Tensor) -> Tensor:
        logits = (scores / self.temperature).masked_fill(~keep, -float("inf"))
        return logits.log_softmax(dim=1).clamp(min=-1e4)
