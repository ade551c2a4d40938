"""The row's own candidates as likely as a teacher has them."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import kl_div

from st_vi.terms.pairs import PairBatch
from st_vi.terms.teacher import taught_candidates


@dataclass(frozen=True)
class SoftLabelKL:
    """The distribution over the row's own candidates should be that of a teacher, false negatives left out:

        P = softmax(s_i/τ),  Q = softmax(t_i/τ),  over the positives and the negatives with t_ij ≤ t⁺ − m
        L_i = ½ [KL(P‖Q) + KL(Q‖P)],  KL(P‖Q) = Σ_j P_j (log P_j − log(Q_j + ε))

    with s the cosines and t the teacher's scores, t⁺ that of the positive. A teacher that gives all to the positive
    makes KL(Q‖P) the cross-entropy of the positive. At τ = 0.02 a cosine that is 0.4 too low is a probability of
    e^{−20}: the floor ε keeps what one such candidate costs below −log ε, 18.4.

    Source: UniME-V2, arXiv 2510.13515, with τ = 0.02, m = 0.01, and ε = 10⁻⁸ as its released code has it.

    Needs teacher scores, and at least one negative or second positive a row. *Inferred:* with several positives t⁺ is
    the highest of their scores; a candidate without a score (NaN) is left out, and a row without a scored positive
    gives 0; without a floor, a score of −∞ stands for a log-probability of −10⁴ in KL(P‖Q), which would be infinite.

    Args:
        temperature: τ > 0, of both; fits teacher scores in [0, 1].
        false_negative_margin: m, on the scale of the teacher's scores; −∞ keeps all negatives.
        symmetric: False takes KL(Q‖P) alone.
        floor: ε in [0, 1), added to the probabilities inside the second logarithm of each divergence; 0 adds none.
        weight: Weight of the term in a task.

    Raises:
        ValueError: An argument is out of range, or the batch has no teacher scores or only one candidate a row.

    Example:
        >>> import torch
        >>> from st_vi.terms import PairBatch, SoftLabelKL
        >>> same, teacher = torch.ones(1, 2), torch.tensor([[1.0, 0.0, 0.995]])  # the last negative is a false one
        >>> pairs = PairBatch(same, same, torch.ones(2, 1, 2), teacher_scores=teacher)
        >>> SoftLabelKL(symmetric=False)(pairs)  # log 2: all to the first, but the model sees no difference
        tensor([0.6931])
    """

    temperature: float = 0.02
    false_negative_margin: float = 0.01
    symmetric: bool = True
    floor: float = 1e-8
    weight: float = 1.0
    needs_teacher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if isnan(self.false_negative_margin):
            raise ValueError(f"false_negative_margin must be a number, got {self.false_negative_margin}")
        if not 0 <= self.floor < 1:
            raise ValueError(f"floor must be in [0, 1), got {self.floor}")

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
