"""InfoNCE corrected for a known share of false negatives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from st_vi.terms.contrastive import InfoNCE
from st_vi.terms.pairs import View


@dataclass(frozen=True, kw_only=True)
class DebiasedInfoNCE(InfoNCE):
    """Debiased contrastive loss: `InfoNCE` minus what false negatives are expected to add to the denominator.

    With N = |N(i)|, ℓ, P(i) and N(i) as in `InfoNCE`, T the temperature, and τ⁺ the probability that a negative is
    really a positive:

        g   = max( (mean_{j ∈ N(i)} e^{ℓ_ij} − τ⁺ mean_{p ∈ P(i)} e^{ℓ_ip}) / (1 − τ⁺),  e^{−1/T} )
        L_i = −1/|P(i)| Σ_{p ∈ P(i)} log( e^{ℓ_ip} / (Σ_{q ∈ P(i)} e^{ℓ_iq} + N g) )

    e^{−1/T} is the least that a mean of e^{s/T} can be; where g is at this floor, negatives have no gradient. τ⁺ = 0
    gives InfoNCE.

    In `DLELoss` negatives are of the same task, so τ⁺ is the probability that two of its rows match: about 1/c for c
    equal topics. With `negatives="batch"` it is that of two rows of any task.

    Source: Chuang et al. 2020, arXiv 2007.00224, Eq. 7 and 8, with one positive in the denominator. *Inferred*: several
    positives stand in the denominator as in InfoNCE; with a `hard_negative_weight` the floor is the mean of the e^ℓ at
    cosine −1. The published T = 0.5 and τ⁺ = 0.1, for images of ten classes, are not the defaults: at InfoNCE's
    temperature g reaches its floor as soon as a positive is T·log(1/τ⁺) more similar than the negatives, which is 0.12
    for T = 0.05 and τ⁺ = 0.1, 0.23 for τ⁺ = 0.01, and 1.15 for the published values.

    Args:
        temperature: T > 0; this and the next three as in `InfoNCE`.
        symmetric: Average with the same loss from positives to anchors.
        hard_negative_weight: Logit added to the row's own hard negatives.
        min_score: A row with a lower score gives 0.
        false_negative_prior: τ⁺ in [0, 1).
        weight: Weight of the term in a task.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> import torch
        >>> from st_vi.terms import DebiasedInfoNCE, PairBatch
        >>> pairs = PairBatch(torch.eye(2), torch.eye(2))
        >>> DebiasedInfoNCE(temperature=1.0, false_negative_prior=0.1)(pairs)  # g = (1 − 0.1·e) / 0.9, not 1
        tensor([0.2606, 0.2606])
    """

    false_negative_prior: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("false_negative_prior", 0 <= self.false_negative_prior < 1, "in [0, 1)")

    def _loss(self, view: View) -> Tensor:
        prior, negative = self.false_negative_prior, view.negative
        logits = (self._cosines(view) / self.temperature).masked_fill(~(view.positive | negative), -float("inf"))
        # Divided by the denominator of InfoNCE, held constant, so that no exponential overflows.
        log_share = logits - logits.logsumexp(dim=1, keepdim=True).detach()
        share = log_share.exp()
        positives, count = (share * view.positive).sum(dim=1), view.positive.sum(dim=1)
        # N g before the floor, then its floor.
        corrected = ((share * negative).sum(dim=1) - positives * negative.sum(dim=1) * prior / count) / (1 - prior)
        at_cosine_minus_one = (log_share - (view.similarity + 1) / self.temperature).detach().exp()
        least = (at_cosine_minus_one * negative).sum(dim=1)
        denominator = positives + corrected.maximum(least)
        loss = denominator.log() - log_share.masked_fill(~view.positive, 0.0).sum(dim=1) / count
        return loss * negative.any(dim=1)
